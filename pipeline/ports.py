"""The outside world as the pipeline sees it: Protocols of few methods, all handed over in one frozen `Ports`."""

import math
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
    mjd_tai: float = math.nan     # when it is saved; NaN: the latest time that its rows name

    @property
    def saved_mjd_tai(self) -> float:
        """When it is saved; NaN where nothing says it."""
        if math.isfinite(self.mjd_tai):
            return self.mjd_tai
        times = np.concatenate([self.objects["validityStartMjdTai"], self.sources["timeProcessedMjdTai"],
                                self.forced["timeProcessedMjdTai"]])
        times = times[np.isfinite(times)]
        return float(times.max()) if len(times) else math.nan

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


class Amendable(Protocol):
    """What the morning changes in the prompt tables. Each method is one transaction, and leaves UPDATE records.

    Ids that are not in the store are a NonRetriableError, and nothing changes. Names as in the real APDB's API (paper
    code: dax_apdb 30.2026.4100).
    """

    def objects_since(self, mjd_tai: float) -> np.ndarray:
        """Current versions of DiaObjects written at or after a time."""
        ...

    def objects_of(self, ids: np.ndarray) -> np.ndarray:
        """Current versions of those DiaObjects that have one."""
        ...

    def sources_of(self, ids: np.ndarray, until: float | None = None) -> np.ndarray:
        """DiaSources of DiaObjects, in time order, of midpoints before `until`."""
        ...

    def forced_of(self, ids: np.ndarray, until: float | None = None) -> np.ndarray:
        """DiaForcedSources of DiaObjects, in time order, of midpoints before `until`."""
        ...

    def save_objects(self, objects: np.ndarray, mjd_tai: float) -> None:
        """Add new versions of DiaObjects; each closes the version before it."""
        ...

    def save_forced(self, forced: np.ndarray, mjd_tai: float) -> None:
        """Add DiaForcedSources, as precovery makes them."""
        ...

    def set_validity_end(self, ids: np.ndarray, mjd_tai: float) -> int:
        """Close the current versions of DiaObjects; how many had one. The others are left as they are."""
        ...

    def update_n_dia_sources(self, ids: np.ndarray, counts: np.ndarray, mjd_tai: float) -> None:
        """Set nDiaSources of current DiaObjects."""
        ...

    def reassign_sources(self, dia_source_ids: np.ndarray, to_object_ids: np.ndarray, mjd_tai: float) -> None:
        """Give DiaSources to other, current DiaObjects; nDiaSources of both sides' current versions follow."""
        ...

    def reassign_sources_to_ss(self, dia_source_ids: np.ndarray, ss_object_ids: np.ndarray, mjd_tai: float) -> None:
        """Give DiaSources to Solar System objects: they belong to no DiaObject then; nDiaSources follow."""
        ...

    def reassign_forced(self, dia_forced_source_ids: np.ndarray, to_object_ids: np.ndarray,
                        mjd_tai: float) -> np.ndarray:
        """Give DiaForcedSources to other, current DiaObjects; the ids of those that could not move.

        An object has one point of a visit and detector: a second one stays where it is.
        """
        ...

    def withdraw_sources(self, dia_source_ids: np.ndarray, mjd_tai: float) -> None:
        """Mark DiaSources as withdrawn; those that already are keep their time."""
        ...

    def withdraw_forced(self, dia_forced_source_ids: np.ndarray, mjd_tai: float) -> None:
        """Mark DiaForcedSources as withdrawn; those that already are keep their time."""
        ...

    def last_deduplication(self) -> float:
        """When duplicates were last looked for; minus infinity if never."""
        ...

    def set_deduplicated(self, mjd_tai: float) -> None:
        """Remember when duplicates were looked for."""
        ...


@dataclass(frozen=True, slots=True)
class ReplicaChunk:
    """What was saved in one window of 600 s, the unit of replication."""

    id: int                       # start of the window, seconds TAI since 1970
    last_update_mjd_tai: float
    unique_id: str                # another one after every save into the chunk


class Replicable(Protocol):
    """What a replication to the PPDB reads."""

    def chunks(self) -> list[ReplicaChunk]:
        """Replica chunks in the order of their ids."""
        ...

    def chunk_rows(self, chunk: int, table: str) -> np.ndarray:
        """Rows of a table that were saved in a chunk, as they are now."""
        ...

    def updates(self, chunk: int | None = None) -> np.ndarray:
        """UPDATE records, of one chunk or of all, in the order of their commits."""
        ...


class PromptArchive(PromptStore, Amendable, Replicable, Protocol):
    """A whole prompt database: every backend is one."""


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
