"""Streams for tests: a small night, packets that are ids alone, and an inbox that notes when things come."""

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from pipeline.alerts.read import source_id
from pipeline.ports import AlertSink, Position
from schemas import ids
from tests.twin.conftest import SMALL
from twin.pacing import WallClock
from twin.scenario import Scenario

NIGHT = msgspec.convert(SMALL | {"simulation": SMALL["simulation"] | {"cadence": {
    "blocks": ["rr"], "pairs": 2, "pair_gap_min": 1.0, "history_per_band": 2, "dither_arcsec": 5.0}}}, Scenario)
CATALOGUE = msgspec.convert({
    "name": "catalogue stream", "seed": 2, "fidelity": "counts", "fidelities": {"catalogue": [0, 1, 2]},
    "counts": {"cadence": "simulation", "detectors": 4, "pixels": 1_000_000, "alerts_per_visit": 50.0},
    "simulation": {"camera": {"ny": 600, "nx": 600},
                   "cadence": {"blocks": ["rr"], "pairs": 3, "pair_gap_min": 1.0, "history_per_band": 6}},
    "platform": {"workers": 40, "costs": "ours.toml"}}, Scenario)
VISIT = 2026112800001


@lru_cache(maxsize=4096)
def pulse(number: int) -> bytes:
    """The smallest packet that has a diaSourceId: magic byte, schema id, the id as Avro writes it."""
    value = int(ids.source_ids(VISIT, 94, np.array([number]))[0]) << 1
    body = bytearray()
    while value > 0x7F:
        body.append(value & 0x7F | 0x80)
        value >>= 7
    body.append(value)
    return b"\0" + (1101).to_bytes(4, "big") + bytes(body)


def row_of(rows: np.ndarray, identifier: int) -> dict[str, Any]:
    """What SENDING says of an alert."""
    mine = rows[rows["diaSourceId"] == identifier]
    return {"messages": len(mine), "plain": bool((mine["copies"] == 1).all()
                                                 and not (mine["late"] | mine["reordered"]).any())}


class Inbox:
    """A sink that notes when packets come; after `after` sendings it calls `then`."""

    remembers = False

    def __init__(self, came: Sequence[tuple[float, bytes]] = ()) -> None:
        self.came = list(came)
        self.after, self.then = -1, lambda: None
        self.clock: WallClock | None = None
        self._n = 0

    def open(self, url: str, sink: AlertSink, clock: WallClock) -> "Inbox":
        self.clock = clock
        return self

    def position(self, outbox: str) -> Position | None:
        return None

    def send(self, packets: Sequence[bytes], keys: Sequence[int] = (), position: Position | None = None) -> int:
        now = time.monotonic()
        self.came += [(now, packet) for packet in packets]
        self._n += 1
        if self._n == self.after:
            self.then()
        return len(packets)

    def close(self) -> None:
        pass

    def visits_apart_s(self) -> float:
        """Seconds from the first alert of the first visit to that of the last one."""
        first: dict[int, float] = {}
        for at, packet in self.came:
            first.setdefault(int(ids.unpack(np.array([source_id(packet)])).visit[0]), at)
        return max(first.values()) - min(first.values())

    def visits_apart_simulated_s(self, rows: np.ndarray) -> float:
        """The same in the night's seconds, as promised."""
        first = [rows["due_mjd_tai"][rows["visit"] == visit].min() for visit in np.unique(rows["visit"])]
        return 86400 * float(max(first) - min(first))
