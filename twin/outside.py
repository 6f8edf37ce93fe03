"""The outside of a simulated night: store, sink, and the scratch folder where pixels wait."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.ephemerides import TableEphemerides
from pipeline.errors import InputError
from pipeline.open import open_sink, open_store, topic_of
from pipeline.ports import AlertSink, Ports, Recorder
from pipeline.satellites import TrackSatellites

TOPIC: Final = "alerts-simulated"        # as in production (sasquatch: lsst-alerts and alerts-simulated)


def check_topic(sink: str, *, any_topic: bool) -> None:
    """InputError of a sink on another topic than simulated alerts go to, unless any will do."""
    if topic_of(sink) not in (None, TOPIC) and not any_topic:
        raise InputError(f"sink {sink!r}: simulated alerts go to the topic {TOPIC}, unless another is asked for "
                         "expressly (--any-topic)")


@contextmanager
def ports_of(store: str, sink: str | AlertSink, recorder: Recorder) -> Iterator[Ports]:
    """Ports with a store and a sink, by their URLs; clock and services are the night's to put in."""
    opened = open_store(store)
    into = open_sink(sink, headers={"simulated": "true"}, check=True) if isinstance(sink, str) else sink
    try:
        yield Ports(clock=lambda: 0.0, store=opened, sink=into, recorder=recorder,
                    ephemerides=TableEphemerides(np.zeros(0)), satellites=TrackSatellites(np.zeros(0)))
    finally:
        into.close()
        opened.close()


@contextmanager
def scratch_in(folder: Path) -> Iterator[None]:
    """Whatever a visit left of its pixels goes when the night ends, however it ends."""
    try:
        yield
    finally:
        shutil.rmtree(folder / "scratch", ignore_errors=True)


__all__ = ["TOPIC", "check_topic", "ports_of", "scratch_in"]
