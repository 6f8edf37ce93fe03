"""The outside world as the pipeline sees it: Protocols of few methods, all handed over in one frozen `Ports`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from schemas.exposure import Box, Visit

Clock = Callable[[], float]      # TAI as MJD
_none = partial(np.empty, 0, np.int64)


@dataclass(frozen=True, slots=True)
class Segment:
    """The packets of one detector-visit, made before the save and sent from an outbox after it."""

    visit: int
    detector: int
    ids: np.ndarray               # (n,) int64 diaSourceId
    packets: Sequence[bytes]      # wire format: magic byte, schema id, Avro body; an outbox reads them when asked
    keys: np.ndarray = field(default_factory=_none)        # (n,) int64 diaObjectId or ssObjectId; or empty
    sequences: np.ndarray = field(default_factory=_none)   # (n,) int64 places in the outbox, increasing; empty before
    outbox: str = ""              # the name of the outbox it lies in; empty before the save

    def __len__(self) -> int:
        return len(self.packets)

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64 bytes of each packet."""
        known = getattr(self.packets, "lengths", None)
        return np.array(list(map(len, self.packets)), np.int64) if known is None else np.asarray(known)

    @property
    def size(self) -> int:
        """Bytes of all packets."""
        return int(self.lengths.sum())

    def part(self, rows: slice) -> "Segment":
        """Some of its packets."""
        return Segment(self.visit, self.detector, self.ids[rows], self.packets[rows], self.keys[rows],
                       self.sequences[rows], self.outbox)


@dataclass(frozen=True, slots=True)
class History:
    """Earlier rows of a set of objects, in time order."""

    sources: np.ndarray           # DiaSource
    forced: np.ndarray            # DiaForcedSource

    def __len__(self) -> int:
        return len(self.sources) + len(self.forced)


@dataclass(frozen=True, slots=True)
class SaveRequest:
    """What one detector-visit commits, in one transaction."""

    visit: int
    detector: int
    objects: np.ndarray           # DiaObject: new versions of updated and new objects
    sources: np.ndarray           # DiaSource
    forced: np.ndarray            # DiaForcedSource
    ss_sources: np.ndarray        # SSSource
    summary: np.ndarray           # DetectorVisitProcessingSummary, one row

    def __len__(self) -> int:
        return len(self.objects) + len(self.sources) + len(self.forced) + len(self.ss_sources)


@dataclass(frozen=True, slots=True)
class Position:
    """How far an outbox was sent: up to this sequence, which belongs to this diaSourceId."""

    outbox: str
    sequence: int
    id: int


class AlertSink(Protocol):
    """Where alerts go."""

    @property
    def remembers(self) -> bool:
        """Whether it keeps the position of each outbox together with the packets: then nothing arrives twice."""
        ...

    def position(self, outbox: str) -> Position | None:
        """How far it holds an outbox; None where it holds nothing of it, or does not remember."""
        ...

    def send(self, packets: Sequence[bytes], keys: Sequence[int] = (), position: Position | None = None) -> int:
        """Send all of them; how many of the first were acknowledged, without a gap.

        `keys` are the objects the packets are about, or none. With a `position`, a sink that remembers takes packets
        and position together or not at all.
        """
        ...

    def close(self) -> None: ...


class PromptStore(Protocol):
    """The prompt tables and the outbox; `until` keeps a catch-up from reading the future."""

    def objects(self, box: Box, until: float | None = None) -> np.ndarray: ...

    def history(self, ids: np.ndarray, since: float, until: float) -> History: ...

    def contains(self, visit: int, detector: int) -> bool: ...

    def save(self, request: SaveRequest, segment: Segment) -> None: ...

    def unsent(self) -> list[Segment]:
        """What the outbox still has to send, in order of `sequences`; packets may be read from disk when asked for."""
        ...

    def mark_sent(self, segment: Segment) -> None: ...

    def table(self, name: str) -> np.ndarray:
        """A whole table, for reports and tests."""
        ...

    def close(self) -> None: ...


class Recorder(Protocol):
    """The measurement store of a run."""

    def append(self, table: str, rows: np.ndarray) -> None: ...


class Ephemerides(Protocol):
    """Predicted positions of known Solar System objects (in the real system MPSky)."""

    def near(self, box: Box, mjd_tai: float) -> np.ndarray:
        """EPHEMERIS rows of objects that may be in the box then."""
        ...


class Satellites(Protocol):
    """The satellite allow-list service (in the real system sattle); a failure means no alerts."""

    def allowed(self, visit: Visit, detector: int, ids: np.ndarray, corners: np.ndarray) -> np.ndarray:
        """The ids of those sources, given by sky corners (n, 4, 2) [deg] of their boxes, that may be published."""
        ...


class Pixels(Protocol):
    """A detector-visit's pixels, kept for forced photometry and let go when the visit ends."""

    def force(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """FORCED rows: PSF flux at sky positions on the difference and on the science image."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything the catalogue half may touch."""

    clock: Clock
    store: PromptStore
    sink: AlertSink
    recorder: Recorder
    ephemerides: Ephemerides
    satellites: Satellites
