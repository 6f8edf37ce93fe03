"""Retraction: DIASources, or whole detector-visits, that should never have been.

They stay in the tables with the time of their withdrawal, as consumers have them; what rests on them is put right:
objects are computed again from the sources that are left, and those that have none are closed, their forced points
withdrawn.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.config import PipelineConfig
from pipeline.errors import InputError
from pipeline.objects import recomputed
from pipeline.ports import Amendable, Clock
from pipeline.retry import read, write
from pipeline.steps import Steps
from schemas import table
from schemas.measures import RETRACTION, empty


@dataclass(frozen=True, slots=True)
class Retracted:
    """What a retraction did, and why."""

    sources: int             # DIASources withdrawn
    forced: int              # forced points withdrawn
    closed: int              # DIAObjects left without a source
    changed: int             # DIAObjects computed again


def retract(store: Amendable, clock: Clock, sources: np.ndarray, forced: np.ndarray, reason: str,
            config: PipelineConfig, note: Callable[[np.ndarray], None] = lambda rows: None) -> Steps[Retracted]:
    """Withdraw DIASources, and forced points, given as rows of their tables; those already withdrawn are passed over.

    `note` is given RETRACTION rows of the sources, with the reason, before they are withdrawn. Withdrawn first and put
    right after: whatever ends it between, the same call finishes it. InputError without a reason.
    """
    if not reason.strip():
        raise InputError(f"a retraction needs a reason, got {reason!r}")
    fresh = table.take(sources, np.flatnonzero(np.isnan(sources["timeWithdrawnMjdTai"])))
    points = forced["diaForcedSourceId"][np.isnan(forced["timeWithdrawnMjdTai"])]
    began = clock()
    note(_rows(fresh, began, reason))
    if len(fresh):
        yield from write("retract.sources", len(fresh), lambda: store.withdraw_sources(fresh["diaSourceId"], clock()),
                         config.retry)
    owners = np.unique(sources["diaObjectId"][sources["diaObjectId"] != 0])
    left = yield from read("retract.left", lambda: store.sources_of(owners), config.retry)
    versions = recomputed(left, began, config.objects)
    orphans = np.setdiff1d(owners, versions["diaObjectId"])
    theirs = yield from read("retract.forced", lambda: store.forced_of(orphans), config.retry)
    points = np.union1d(points, theirs["diaForcedSourceId"][np.isnan(theirs["timeWithdrawnMjdTai"])])
    if len(points):
        yield from write("retract.forced_withdrawn", len(points), lambda: store.withdraw_forced(points, clock()),
                         config.retry)
    changed = yield from _versions(store, clock, versions, config)
    closed = yield from write("retract.close", len(orphans), lambda: store.set_validity_end(orphans, clock()),
                              config.retry)
    return Retracted(len(fresh), len(points), closed or 0, changed)


def _rows(sources: np.ndarray, began: float, reason: str) -> np.ndarray:
    rows = empty(RETRACTION, len(sources))
    for name in ("diaSourceId", "diaObjectId", "visit", "detector"):
        rows[name] = sources[name]
    rows["timeWithdrawnMjdTai"], rows["reason"] = began, reason.strip().encode()[:RETRACTION["reason"].itemsize]
    return rows


def _versions(store: Amendable, clock: Clock, versions: np.ndarray, config: PipelineConfig) -> Steps[int]:
    """Save the versions that count other sources than the current ones; how many."""
    current = yield from read("retract.objects", lambda: store.objects_of(versions["diaObjectId"]), config.retry)
    counts = dict(zip(current["diaObjectId"].tolist(), current["nDiaSources"].tolist(), strict=True))
    other = [row for row, (owner, n) in enumerate(_pairs(versions)) if owner in counts and counts[owner] != n]
    chosen = table.take(versions, np.array(other, int))

    def save() -> None:
        now = clock()
        chosen["validityStartMjdTai"] = now
        store.save_objects(chosen, now)

    if len(chosen):
        yield from write("retract.versions", len(chosen), save, config.retry)
    return len(chosen)


def _pairs(versions: np.ndarray) -> Iterator[tuple[int, int]]:
    yield from zip(versions["diaObjectId"].tolist(), versions["nDiaSources"].tolist(), strict=True)
