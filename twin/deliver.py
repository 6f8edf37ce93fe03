"""Delivery by itself: a store's outbox to a sink, on the wall clock."""

from pathlib import Path

import numpy as np

from pipeline.config import PipelineConfig
from pipeline.ephemerides import TableEphemerides
from pipeline.errors import InputError
from pipeline.open import open_sink, open_store
from pipeline.ports import Ports
from pipeline.prompt import deliver
from pipeline.satellites import TrackSatellites
from pipeline.steps import run
from schemas.measures import EPHEMERIS, TRACK, empty
from twin.process import tai_now


class _Nowhere:
    def append(self, table: str, rows: np.ndarray) -> None:
        """There is no run folder that would keep them."""


def deliver_outbox(store_url: str, sink_url: str) -> str:
    """Send what an outbox still holds; a line that says how much that was."""
    file = store_url.removeprefix("duckdb:")
    if file != store_url and not Path(file).is_file():
        raise InputError(f"store {store_url!r}: there is no file {file}")
    sink = open_sink(sink_url, check=True)
    store = open_store(store_url)
    try:
        ports = Ports(tai_now, store, sink, _Nowhere(), TableEphemerides(empty(EPHEMERIS)),
                      TrackSatellites(empty(TRACK)))
        waiting = sum(map(len, store.unsent()))
        sent = run(deliver(ports, PipelineConfig()))
    finally:
        store.close()
        sink.close()
    before = f", {waiting - sent} had arrived before" if waiting > sent else ""
    return f"{sent} alerts sent from {store_url}{before}"
