"""Catalogue fidelity for all detectors of a visit at once: what `catalogs.draw` gives, at a hundredth of its time.

Sources of the noise field's making agree with `draw` exactly, since the field is keyed by detector; what is random
beside it (false detections, scores, centroids) is drawn for the visit as a whole.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.spatial import cKDTree

from schemas import mask
from schemas.measures import TRUTH, empty
from schemas.table import join, take
from schemas.wcs import Wcs
from simulators.catalogs import (
    Catalog,
    CatalogModel,
    CatalogPixels,
    NoiseField,
    field_at,
    measured_rows,
    seen_flux,
    with_scores,
)

APART: Final = 1e5             # between detectors, laid side by side [pixel]


@dataclass(frozen=True, slots=True)
class VisitCatalog:
    """All detectors of a visit, one after the other."""

    shape: tuple[int, int]
    psf_sigma_px: float
    keys: np.ndarray           # (detectors,) uint64 of the noise fields
    flux_err: np.ndarray       # (detectors,) of a point source on blank sky [nJy], true
    error_ratio: float         # claimed over true
    sources: np.ndarray        # MEASUREMENT
    truth_row: np.ndarray      # (sources,) row of the truth given; -1 for false detections
    first_source: np.ndarray   # (detectors + 1,) where each one's begin
    fluxes: np.ndarray         # (m, 4) x, y, flux on the difference, science flux: of all that is there, false ones too
    first_flux: np.ndarray     # (detectors + 1,)

    def of(self, slot: int, wcs: Wcs) -> Catalog:
        """One detector's."""
        rows = slice(int(self.first_source[slot]), int(self.first_source[slot + 1]))
        x, y, flux, science = self.fluxes[self.first_flux[slot]:self.first_flux[slot + 1]].T
        error = float(self.flux_err[slot])
        pixels = CatalogPixels(wcs, self.shape, x, y, flux, science, error * self.error_ratio, error,
                               NoiseField(int(self.keys[slot]), self.psf_sigma_px))
        return Catalog(self.sources[rows], self.truth_row[rows], pixels)


def draw_visit(truth: np.ndarray, slot: np.ndarray, shape: tuple[int, int], *, psf_sigma_px: float,
               flux_err: np.ndarray, keys: np.ndarray, rng: np.random.Generator,
               model: CatalogModel | None = None) -> VisitCatalog:
    """Sources that a pipeline would have measured on every detector of a visit.

    Parameters
    ----------
    truth : (n,) TRUTH
        Detector by detector.
    slot : (n,) int
        Index of each row's detector, ascending.
    flux_err, keys : (detectors,) float64 [nJy], uint64
        Optimum error of a point source on blank sky, and the key of the noise field.
    rng : Generator
        Of this visit: false detections, scores and centroids.
    """
    model, n = model or CatalogModel(), len(flux_err)
    amplitude, moved = seen_flux(truth, psf_sigma_px)
    error = np.where(np.isfinite(truth["flux_err_optimum"]), truth["flux_err_optimum"],
                     flux_err[slot].astype(truth["flux_err_optimum"].dtype))
    flux = amplitude + error * field_at(keys[slot], truth["x"], truth["y"], psf_sigma_px)
    found = _found(truth, slot, flux / error, shape, psf_sigma_px, model, rng)
    false, false_slot = _false(shape, flux_err, model, rng)
    sources = join([
        with_scores(measured_rows(take(truth, found), flux[found], error[found], psf_sigma_px, model, rng),
                    model.score_real, rng),
        with_scores(measured_rows(false, false["flux"], false["flux_err_optimum"], psf_sigma_px, model, rng),
                    model.score_false, rng)])
    sources["isDipole"][:len(found)] = moved[found] & (rng.random(len(found)) < model.dipole_recognised)
    sources["dipoleFitAttempted"][:len(found)] = moved[found]
    owner = np.concatenate([slot[found], false_slot])
    order = np.argsort(owner, kind="stable")
    sources, owner = take(sources, order), owner[order]
    first = np.searchsorted(owner, np.arange(n + 1))
    sources["id"] = np.arange(len(sources)) - first[owner]
    of_all = np.concatenate([slot, false_slot])
    by_detector = np.argsort(of_all, kind="stable")
    fluxes = np.stack([np.concatenate([truth["x"], false["x"]]), np.concatenate([truth["y"], false["y"]]),
                       np.concatenate([np.where(moved, 0.0, amplitude), false["flux"]]),
                       np.nan_to_num(np.concatenate([truth["science_flux"], false["science_flux"]]))], axis=1)
    return VisitCatalog(shape, psf_sigma_px, keys, flux_err, model.error_ratio, sources,
                        np.concatenate([found, np.full(len(false), -1)])[order], first, fluxes[by_detector],
                        np.searchsorted(of_all[by_detector], np.arange(n + 1)))


def _found(truth: np.ndarray, slot: np.ndarray, snr: np.ndarray, shape: tuple[int, int], sigma: float,
           model: CatalogModel, rng: np.random.Generator) -> np.ndarray:
    """As `catalogs._found`, with neighbours by a tree."""
    inside = ((truth["x"] > -0.5) & (truth["x"] < shape[1] - 0.5) & (truth["y"] > -0.5) & (truth["y"] < shape[0] - 0.5))
    usable = (truth["input_mask"] & mask.UNUSABLE) == 0
    lucky = rng.random(len(truth)) < model.efficiency
    rows = np.flatnonzero(inside & usable & lucky & (np.abs(snr) >= model.threshold))
    rows = rows[np.argsort(-np.abs(snr[rows]), kind="stable")]
    if not len(rows):
        return rows
    places = np.stack([truth["x"][rows] + APART * slot[rows], truth["y"][rows]], axis=1)
    near = cKDTree(places).query_pairs(2 * sigma, output_type="ndarray")
    blended = np.zeros(len(rows), bool)
    blended[near.max(axis=1)] = True                     # the less significant of each pair
    return np.sort(rows[~blended])


def _false(shape: tuple[int, int], flux_err: np.ndarray, model: CatalogModel,
           rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """TRUTH-like rows of false detections, and whose: as `catalogs._false`."""
    count = rng.poisson(model.false_per_megapixel * shape[0] * shape[1] / 1e6, len(flux_err))
    slot = np.repeat(np.arange(len(flux_err)), count)
    rows, n = empty(TRUTH, len(slot)), len(slot)
    rows["x"], rows["y"] = rng.uniform(0, shape[1] - 1, n), rng.uniform(0, shape[0] - 1, n)
    rows["flux"] = (model.threshold + rng.exponential(2.0, n)) * rng.choice([-1.0, 1.0], n) * flux_err[slot]
    rows["science_flux"], rows["template_flux"] = np.maximum(rows["flux"], 0), np.maximum(-rows["flux"], 0)
    rows["flux_err_optimum"], rows["trail_length"] = flux_err[slot], 0.0
    return rows, slot


__all__ = ["VisitCatalog", "draw_visit"]
