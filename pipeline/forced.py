"""Forced photometry: which objects are measured where nothing may have been detected, and the rows that makes (4.12).

Objects on the detector with at least two sources, two of them good, are measured at their position on the difference
and on the science image: first detections never have forced points.
"""

import numpy as np

from pipeline.config import ForcedConfig
from pipeline.objects import slots
from pipeline.ports import Pixels
from schemas import ids, table
from schemas.exposure import Visit
from schemas.table import DIA_FORCED_SOURCE
from schemas.wcs import Wcs


def good_sources(sources: np.ndarray, config: ForcedConfig) -> np.ndarray:
    """Which DIASources speak for an object: reliable, not trailed, no glint, no dipole."""
    trailed = sources["trailLength"] > config.max_trail_arcsec    # a missing length is no trail
    return np.asarray((sources["reliability"] >= config.min_reliability) & ~trailed & ~sources["glint_trail"]
                      & ~sources["isDipole"])


def select(objects: np.ndarray, sources: np.ndarray, config: ForcedConfig) -> np.ndarray:
    """Rows of the objects to measure, given all their loaded sources and this visit's."""
    slot = slots(sources["diaObjectId"], objects["diaObjectId"])
    good = np.bincount(slot[good_sources(sources, config) & (slot >= 0)], minlength=len(objects))
    return np.flatnonzero((objects["nDiaSources"] >= config.min_sources) & (good >= config.min_sources))


def on_detector(objects: np.ndarray, wcs: Wcs, shape: tuple[int, int]) -> np.ndarray:
    """Which objects lie on the detector."""
    x, y = wcs.pixels(objects["ra"], objects["dec"])
    return np.asarray((x >= -0.5) & (x < shape[1] - 0.5) & (y >= -0.5) & (y < shape[0] - 0.5))


def force(pixels: Pixels, objects: np.ndarray, visit: Visit, detector: int, processed_mjd_tai: float) -> np.ndarray:
    """DIA_FORCED_SOURCE rows of the objects that fall on the image."""
    measured = pixels.force(objects["ra"], objects["dec"])
    inside = np.flatnonzero(measured["inside"])
    rows = DIA_FORCED_SOURCE.empty(len(inside))
    chosen, found = table.take(objects, inside), measured[inside]
    for name in ("diaObjectId", "ra", "dec"):
        rows[name] = chosen[name]
    for name in ("psfFlux", "psfFluxErr", "scienceFlux", "scienceFluxErr"):
        rows[name] = found[name]
    rows["diaForcedSourceId"] = ids.source_ids(visit.visit, detector, np.arange(len(rows)))
    rows["visit"], rows["detector"], rows["band"] = visit.visit, detector, visit.band.encode()
    rows["midpointMjdTai"], rows["timeProcessedMjdTai"] = visit.mjd_tai, processed_mjd_tai
    return rows
