"""Precovery: what new DIAObjects were before anybody knew of them, measured on the differences that were kept.

Every object whose first detection is of the night is forced at its position on each kept difference of the days
before it. A point that the object has of a visit and detector already is not measured again, so a second run adds
nothing. (The real system plans this, DPDD section 3; no code of it was found.)
"""

from dataclasses import dataclass

import numpy as np

from pipeline.batch.kept import Archive, Kept
from pipeline.config import PipelineConfig
from pipeline.forced import force, on_detector
from pipeline.ports import Amendable, Clock
from pipeline.retry import read, write
from pipeline.steps import Step, Steps
from schemas import ids, table


@dataclass(frozen=True, slots=True)
class Precovered:
    """What a precovery did."""

    objects: int         # new DIAObjects
    visits: int          # detector-visits kept of the days before
    points: int          # forced points added
    expired: int         # detector-visits let go


def precover(store: Amendable, archive: Archive, since: float, until: float, clock: Clock,
             config: PipelineConfig) -> Steps[Precovered]:
    """Measure the objects first detected in [since, until) on what is kept of the days before; then let go of the old.

    `since` and `until` are MJD, those of a night. `config.batch.precovery.days` count back from `until`, and from
    there what is kept expires.
    """
    chosen = config.batch.precovery
    objects = yield from read("precovery.objects", lambda: store.objects_since(since), config.retry)
    first = objects["firstDiaSourceMjdTai"]
    objects = table.take(objects, np.flatnonzero((first >= since) & (first < until)
                                                 & (objects["nDiaSources"] >= chosen.min_sources)))
    points = yield from read("precovery.forced", lambda: store.forced_of(objects["diaObjectId"]), config.retry)
    have = set(zip(points["diaObjectId"].tolist(), points["visit"].tolist(), points["detector"].tolist(), strict=True))
    oldest = until - chosen.days
    kept = archive.kept(oldest, until) if len(objects) else []
    added = 0
    for one in kept:
        added += yield from _on_one(store, archive, one, objects, have, clock, config)
    expired = archive.expire(oldest)
    yield Step("precovery.expire", expired)
    return Precovered(len(objects), len(kept), added, expired)


def _on_one(store: Amendable, archive: Archive, kept: Kept, objects: np.ndarray, have: set[tuple[int, int, int]],
            clock: Clock, config: PipelineConfig) -> Steps[int]:
    """Force on one difference what was detected later, and save it; how many points."""
    place = kept.visit.visit, kept.detector
    later = objects["firstDiaSourceMjdTai"] > kept.visit.mjd_tai
    new = np.array([(owner, *place) not in have for owner in objects["diaObjectId"].tolist()], bool)
    near = np.flatnonzero(later & new)
    near = near[on_detector(table.take(objects, near), kept.wcs, kept.shape)]
    if not len(near):
        return 0
    rows = force(archive.pixels(kept), table.take(objects, near), kept.visit, kept.detector, clock())
    yield Step("precovery.force", len(rows), left=rows)
    rows = table.take(rows, np.isfinite(rows["psfFlux"]))
    if not len(rows):
        return 0
    first = archive.reserve(kept, len(rows))
    rows["diaForcedSourceId"] = ids.source_ids(*place, first + np.arange(len(rows)))
    yield from write("precovery.save", len(rows), lambda: store.save_forced(rows, clock()), config.retry)
    return len(rows)
