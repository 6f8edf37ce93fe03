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
from schemas.exposure import BANDS


@dataclass(frozen=True, slots=True)
class Deduplicated:
    """What a deduplication did."""

    looked_at: int           # DIAObjects written since the last one
    merged: int              # DIAObjects that are closed now
    kept: int                # that they went into
    sources: int             # DIASources with another owner
    strays: int              # of these, first sources of objects that another source has taken over
    forced: int              # forced points with another owner
    withdrawn: int           # forced points of a visit and object that already had one
    recounted: int           # other objects whose newest version did not count all their sources


def deduplicate(store: Amendable, clock: Clock, config: PipelineConfig) -> Steps[Deduplicated]:
    """Merge the duplicates among the objects that were written since the last deduplication.

    AlgorithmError where the deployed algorithm finds too many objects; nothing is changed then.
    """
    began, since = clock(), store.last_deduplication()
    objects = yield from read("deduplicate.objects", lambda: store.objects_since(since), config.retry)
    sources = yield from read("deduplicate.sources", lambda: store.sources_of(objects["diaObjectId"]), config.retry)
    merges = duplicates(objects, sources, config.batch.deduplicate, config.objects)
    yield Step("deduplicate.find", len(objects), left=merges)
    left = _unsettled(objects, sources) if config.batch.deduplicate.algorithm == "ours" else merges.strays
    moved, forced, withdrawn = 0, 0, 0
    if len(merges) or len(merges.strays) or len(left):
        moved, forced, withdrawn = yield from merge(store, clock, merges, sources, config, left)
    yield from write("deduplicate.mark", 1, lambda: store.set_deduplicated(began), config.retry)
    return Deduplicated(len(objects), len(merges), len(np.unique(merges.kept)), moved, len(merges.strays), forced,
                        withdrawn, len(np.setdiff1d(left, np.concatenate([merges.kept, merges.removed]))))


def _unsettled(objects: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Objects whose newest version does not count all their sources.

    Visits at the same time leave such: each adds its source to the version that both have read, and the later save
    wins. So does a deduplication that ended between the moves and the new versions. An object that counts more sources
    than the store has is left alone: its history has gone.
    """
    ids = objects["diaObjectId"]
    row = slots(sources["diaObjectId"], ids)
    held = np.bincount(row[(row >= 0) & np.isnan(sources["timeWithdrawnMjdTai"])], minlength=len(ids))
    lost = ids[held > objects["nDiaSources"]]
    founding = slots(ids, sources["diaSourceId"])
    owner = np.append(sources["diaObjectId"], 0)[founding]
    away = (owner != ids) & np.isin(owner, ids)
    counted = sum(objects[f"{band}_psfFluxNdata"].astype(int).clip(0) for band in BANDS)
    return np.union1d(lost, np.intersect1d(np.union1d(ids[away], owner[away]), ids[counted != objects["nDiaSources"]]))


def merge(store: Amendable, clock: Clock, merges: Merges, sources: np.ndarray, config: PipelineConfig,
          unsettled: np.ndarray) -> Steps[tuple[int, int, int]]:
    """Merge what is known to be one; sources moved, forced points moved, and withdrawn.

    `sources` are those of all objects concerned; `unsettled` ones get a new version whatever else happens.
    """
    ours = config.batch.deduplicate.algorithm == "ours"
    owner = _owners(sources["diaObjectId"], merges)
    home = slots(sources["diaSourceId"], merges.strays)
    owner = np.where(home >= 0, np.append(merges.homes, 0)[home], owner)
    moved = np.flatnonzero(owner != sources["diaObjectId"])
    if len(moved):
        yield from write("deduplicate.sources_moved", len(moved), lambda: store.reassign_sources(
            sources["diaSourceId"][moved], owner[moved], clock()), config.retry)
    forced, withdrawn = (yield from _forced(store, clock, merges, config)) if ours and len(merges) else (0, 0)
    if ours:
        left = sources["diaObjectId"][home >= 0]
        changed = np.setdiff1d(np.concatenate([merges.kept, merges.homes, left, unsettled]), merges.removed)
        rows = np.flatnonzero(np.isin(owner, changed))
        concerned = table.take(sources, rows)
        concerned["diaObjectId"] = owner[rows]

        def save() -> None:
            now = clock()
            store.save_objects(recomputed(concerned, now, config.objects), now)

        yield from write("deduplicate.versions", len(concerned), save, config.retry)
    if len(merges):
        yield from write("deduplicate.close", len(merges), lambda: store.set_validity_end(merges.removed, clock()),
                         config.retry)
    return len(moved), forced, withdrawn


def _forced(store: Amendable, clock: Clock, merges: Merges, config: PipelineConfig) -> Steps[tuple[int, int]]:
    """Forced points of removed objects to those that are kept; of two of one visit the kept object's own stays.

    What did not move is read again, not taken from the answer: a move that is tried again has moved nothing.
    """
    points = yield from _alive(store, merges, config)
    if not len(points):
        return 0, 0
    ids = points["diaForcedSourceId"]
    yield from write("deduplicate.forced_moved", len(ids), lambda: store.reassign_forced(
        ids, _owners(points["diaObjectId"], merges), clock()), config.retry)
    left = (yield from _alive(store, merges, config))["diaForcedSourceId"]
    if len(left):
        yield from write("deduplicate.forced_withdrawn", len(left), lambda: store.withdraw_forced(left, clock()),
                         config.retry)
    return len(ids) - len(left), len(left)


def _alive(store: Amendable, merges: Merges, config: PipelineConfig) -> Steps[np.ndarray]:
    """Forced points of removed objects that are not withdrawn."""
    points = yield from read("deduplicate.forced", lambda: store.forced_of(merges.removed), config.retry)
    return table.take(points, np.flatnonzero(np.isnan(points["timeWithdrawnMjdTai"])))


def _owners(ids: np.ndarray, merges: Merges) -> np.ndarray:
    """Whose a row of each object is once they are merged."""
    row = slots(ids, merges.removed)
    return np.where(row >= 0, np.append(merges.kept, 0)[row], ids)
