"""Deduplication of the prompt tables: what is one source becomes one DIAObject, with everything that it had.

    look    objects written since the last time, their sources  ->  which are one
    move    sources to the object that is kept; ours: forced points too, and of two of one visit one is withdrawn
    count   ours: a new version of each kept object, computed from all its sources
    close   the validity of the removed ones

Each of these is one transaction, and in this order: whatever ends the morning between two of them, the next time finds
the same duplicates and finishes, since an object stays current until all that it had has moved.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.batch.deduplicate import Merges, duplicates
from pipeline.config import PipelineConfig
from pipeline.objects import recomputed, slots
from pipeline.ports import Amendable, Clock
from pipeline.retry import read, write
from pipeline.steps import Step, Steps
from schemas import table


@dataclass(frozen=True, slots=True)
class Deduplicated:
    """What a deduplication did."""

    looked_at: int           # DIAObjects written since the last one
    merged: int              # DIAObjects that are closed now
    kept: int                # that they went into
    sources: int             # DIASources with another owner
    forced: int              # forced points with another owner
    withdrawn: int           # forced points of a visit and object that already had one


def deduplicate(store: Amendable, clock: Clock, config: PipelineConfig) -> Steps[Deduplicated]:
    """Merge the duplicates among the objects that were written since the last deduplication.

    AlgorithmError where the deployed algorithm finds too many objects; nothing is changed then.
    """
    began, since = clock(), store.last_deduplication()
    objects = yield from read("deduplicate.objects", lambda: store.objects_since(since), config.retry)
    sources = yield from read("deduplicate.sources", lambda: store.sources_of(objects["diaObjectId"]), config.retry)
    merges = duplicates(objects, sources, config.batch.deduplicate, config.objects)
    yield Step("deduplicate.find", len(objects), left=merges)
    done = (yield from merge(store, clock, merges, sources, config)) if len(merges) else (0, 0, 0)
    yield from write("deduplicate.mark", 1, lambda: store.set_deduplicated(began), config.retry)
    return Deduplicated(len(objects), len(merges), len(np.unique(merges.kept)), *done)


def merge(store: Amendable, clock: Clock, merges: Merges, sources: np.ndarray,
          config: PipelineConfig) -> Steps[tuple[int, int, int]]:
    """Merge what is known to be one; sources moved, forced points moved, and withdrawn.

    `sources` are those of all objects concerned.
    """
    ours = config.batch.deduplicate.algorithm == "ours"
    owner = _owners(sources["diaObjectId"], merges)
    moved = np.flatnonzero(owner != sources["diaObjectId"])
    yield from write("deduplicate.sources_moved", len(moved), lambda: store.reassign_sources(
        sources["diaSourceId"][moved], owner[moved], clock()), config.retry)
    forced, withdrawn = (yield from _forced(store, clock, merges, config)) if ours else (0, 0)
    if ours:
        concerned = table.take(sources, np.flatnonzero(np.isin(owner, merges.kept)))
        concerned["diaObjectId"] = owner[np.isin(owner, merges.kept)]

        def save() -> None:
            now = clock()
            store.save_objects(recomputed(concerned, now, config.objects), now)

        yield from write("deduplicate.versions", len(concerned), save, config.retry)
    yield from write("deduplicate.close", len(merges), lambda: store.set_validity_end(merges.removed, clock()),
                     config.retry)
    return len(moved), forced, withdrawn


def _forced(store: Amendable, clock: Clock, merges: Merges, config: PipelineConfig) -> Steps[tuple[int, int]]:
    """Forced points of removed objects to those that are kept; of two of one visit the kept object's own stays."""
    points = yield from read("deduplicate.forced", lambda: store.forced_of(merges.removed), config.retry)
    points = table.take(points, np.flatnonzero(np.isnan(points["timeWithdrawnMjdTai"])))
    if not len(points):
        return 0, 0
    ids = points["diaForcedSourceId"]
    left = yield from write("deduplicate.forced_moved", len(ids), lambda: store.reassign_forced(
        ids, _owners(points["diaObjectId"], merges), clock()), config.retry)
    assert left is not None
    if len(left):
        yield from write("deduplicate.forced_withdrawn", len(left), lambda: store.withdraw_forced(left, clock()),
                         config.retry)
    return len(ids) - len(left), len(left)


def _owners(ids: np.ndarray, merges: Merges) -> np.ndarray:
    """Whose a row of each object is once they are merged."""
    row = slots(ids, merges.removed)
    return np.where(row >= 0, np.append(merges.kept, 0)[row], ids)
