"""What an astronomer asks of prompt tables, in a store or in the PPDB: a light curve, and what lies around a place."""

from typing import Final, Protocol

import numpy as np

from pipeline.sphere import ARCSEC, unit_vectors
from schemas.exposure import BANDS, Box
from schemas.table import take

# A point of a light curve: a DIASource, or a forced point, whose S/N and reliability are NaN.
POINT: Final = np.dtype([
    ("kind", "S6"), ("id", "i8"), ("visit", "i8"), ("detector", "i4"), ("band", "S1"), ("midpointMjdTai", "f8"),
    ("ra", "f8"), ("dec", "f8"), ("psfFlux", "f4"), ("psfFluxErr", "f4"), ("scienceFlux", "f4"),
    ("scienceFluxErr", "f4"), ("snr", "f4"), ("reliability", "f4"), ("timeWithdrawnMjdTai", "f8")])

# A DIAObject found around a place.
FOUND: Final = np.dtype(
    [("diaObjectId", "i8"), ("distance_arcsec", "f8"), ("ra", "f8"), ("dec", "f8"), ("nDiaSources", "i4"),
     ("firstDiaSourceMjdTai", "f8"), ("lastDiaSourceMjdTai", "f8")]
    + [(f"{band}_psfFluxMean", "f4") for band in BANDS])


class Catalogue(Protocol):
    """Prompt tables that answer."""

    def objects(self, box: Box, until: float | None = None) -> np.ndarray: ...

    def sources_of(self, ids: np.ndarray) -> np.ndarray: ...

    def forced_of(self, ids: np.ndarray) -> np.ndarray: ...


def light_curve(catalogue: Catalogue, dia_object_id: int) -> np.ndarray:
    """POINT rows of a DIAObject in time order, withdrawn ones included; none where it has no points."""
    wanted = np.array([dia_object_id])
    sources = _points(catalogue.sources_of(wanted), "source", "diaSourceId")
    forced = _points(catalogue.forced_of(wanted), "forced", "diaForcedSourceId")
    points = np.concatenate([sources, forced])
    return points[np.argsort(points["midpointMjdTai"], kind="stable")]


def cone(catalogue: Catalogue, ra: float, dec: float, radius_arcsec: float) -> np.ndarray:
    """FOUND rows of current DIAObjects within a radius of a place in degrees, nearest first."""
    if not (np.isfinite([ra, dec, radius_arcsec]).all() and -90.0 <= dec <= 90.0 and 0.0 < radius_arcsec <= 324_000.0):
        raise ValueError("a cone needs a place and a radius of at most 90 deg (324000 arcsec), got "
                         f"RA {ra}, Dec {dec}, radius {radius_arcsec} arcsec")
    objects = catalogue.objects(Box.around(np.array([ra % 360.0]), np.array([dec]), 1.001 * radius_arcsec))
    centre = unit_vectors(np.array([ra]), np.array([dec]))
    chords = np.linalg.norm(unit_vectors(objects["ra"], objects["dec"]) - centre, axis=1)
    distance = 2.0 * np.arcsin(np.minimum(chords / 2.0, 1.0)) / ARCSEC
    order = np.argsort(distance, kind="stable")
    order = order[distance[order] <= radius_arcsec]
    found = np.zeros(len(order), FOUND)
    for name in FOUND.names or ():
        found[name] = distance[order] if name == "distance_arcsec" else take(objects, order)[name]
    return found


def _points(rows: np.ndarray, kind: str, key: str) -> np.ndarray:
    points = np.zeros(len(rows), POINT)
    points["kind"], points["id"] = kind.encode(), rows[key]
    for name in POINT.names or ():
        if name in (rows.dtype.names or ()):
            points[name] = rows[name]
        elif name not in ("kind", "id"):
            points[name] = np.nan
    return points
