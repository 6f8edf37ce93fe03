"""What the Steps of the catalogue half left behind, in a few numbers.

    filter      sources kept, and refused by reason
    transform   how far positions lie from where the WCS puts them, sums of fluxes and lengths
    objects, reload, history   rows read
    associate   sources with an object, new ones, Solar System objects, separations
    statistics  objects updated, how far they lie from this visit's sources, mean fluxes
    forced      fluxes; package: packets and bytes
"""

from typing import ClassVar, Final

import numpy as np

from pipeline.associate import Associated
from pipeline.filter import Filtered
from pipeline.images import Calibrated
from pipeline.ports import History, Segment
from pipeline.steps import Step
from schemas.exposure import BANDS
from schemas.table import DIA_OBJECT, DIA_SOURCE
from schemas.wcs import Wcs
from twin.trace import Numbers, PixelTracer, Tracer, apart, mean, median, total

DELIVERY: Final = frozenset({"unsent", "send", "mark_sent"})   # what waits in the outbox depends on other visits


class CatalogueTracer(Tracer):
    """Of the catalogue half, preload included; `wcs` is the one that the pixel half found, known after preload."""

    def __init__(self, visit: int, detector: int, wcs: Wcs) -> None:
        super().__init__(visit, detector, wcs)
        self._objects = DIA_OBJECT.empty(0)
        self._sources = DIA_SOURCE.empty(0)

    def _satellites(self, allowed: np.ndarray) -> Numbers:
        return {"allowed": len(allowed)}

    def _filter(self, filtered: Filtered) -> Numbers:
        glints = int(np.count_nonzero(filtered.sources["glint_trail"]))
        return {"n": len(filtered.sources), "glints": glints, **_reasons(filtered.rejections["reason"])}

    def _transform(self, sources: np.ndarray) -> Numbers:
        shift = np.hypot(*apart((sources["ra"], sources["dec"]), self.wcs.sky(sources["x"], sources["y"])))
        return {"n": len(sources), "shift_arcsec": mean(shift), "psfFlux": total(sources["psfFlux"]),
                "error_mas": 3.6e6 * median(sources["raErr"]), "trailLength": total(sources["trailLength"]),
                "dipoleLength": total(sources["dipoleLength"])}

    def _read(self, objects: np.ndarray) -> Numbers:
        self._objects = objects
        return {"n": len(objects), "sources": total(objects["nDiaSources"])}

    def _history(self, history: History) -> Numbers:
        return {"sources": len(history.sources), "forced": len(history.forced),
                "psfFlux": total(history.sources["psfFlux"])}

    def _associate(self, associated: Associated) -> Numbers:
        self._sources = associated.sources
        matched = np.flatnonzero(associated.object_row >= 0)
        gap = np.zeros(0)
        if len(matched) and len(self._objects):
            row = associated.object_row[matched]
            gap = np.hypot(*apart((self._objects["ra"][row], self._objects["dec"][row]),
                                  (associated.sources["ra"][matched], associated.sources["dec"][matched])))
        return {"with_object": len(matched), "new": associated.n_new, "separation_arcsec": total(gap),
                "solar_system": int(np.count_nonzero(associated.sources["ssObjectId"])),
                "predicted": associated.n_predicted, **_reasons(associated.reasons)}

    def _statistics(self, versions: np.ndarray) -> Numbers:
        here = np.flatnonzero(self._sources["diaObjectId"] != 0)
        gap = np.zeros(0)
        if len(here) == len(versions):
            gap = np.hypot(*apart((versions["ra"], versions["dec"]),
                                  (self._sources["ra"][here], self._sources["dec"][here])))
        return {"n": len(versions), "sources": total(versions["nDiaSources"]), "from_source_arcsec": total(gap),
                "error_mas": 3.6e6 * median(versions["raErr"]),
                "psfFlux": sum(total(versions[f"{band}_psfFluxMean"]) for band in BANDS)}

    def _forced(self, rows: np.ndarray) -> Numbers:
        return {name: total(rows[name]) for name in ("psfFlux", "psfFluxErr", "scienceFlux")}

    def _package(self, segment: Segment) -> Numbers:
        return {"packets": len(segment)}

    looks: ClassVar = {"satellites": _satellites, "filter": _filter, "transform": _transform, "objects": _read,
                       "history": _history, "reload": _read, "associate": _associate, "statistics": _statistics,
                       "forced": _forced, "package": _package}


class VisitTracer:
    """Of a whole detector-visit that one driver takes through both halves; `wcs` is the pointing's."""

    def __init__(self, visit: int, detector: int, wcs: Wcs) -> None:
        self._pixels = PixelTracer(visit, detector, wcs)
        self._catalogue = CatalogueTracer(visit, detector, wcs)

    def __call__(self, step: Step) -> None:
        """Note what a Step left."""
        if step.name in PixelTracer.looks:
            self._pixels(step)
            if isinstance(step.left, Calibrated):
                self._catalogue.wcs = step.left.wcs
        else:
            self._catalogue(step)

    def rows(self) -> np.ndarray:
        """TRACE rows of what has been noted."""
        return np.concatenate([self._pixels.rows(), self._catalogue.rows()])


def _reasons(reasons: np.ndarray) -> Numbers:
    names, counts = np.unique(reasons, return_counts=True)
    return {f"n:{name.decode()}": float(count) for name, count in zip(names, counts, strict=True) if name}


__all__ = ["CatalogueTracer", "VisitTracer"]
