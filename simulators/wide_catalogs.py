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
    inside,
    kept,
    measured_rows,
    point_error,
    real_rows,
    seen_flux,
    unreal_rows,
)

APART: Final = 1e5             # between detectors, laid side by side [pixel]


@dataclass(frozen=True, slots=True)
class VisitCatalog:
    """All detectors of a visit, one after the other."""

    shape: tuple[int, int]
    psf_sigma_px: float
    keys: np.ndarray           # (detectors,) uint64 of the noise fields
    flux_err: np.ndarray       # (detectors,) optimum of a point source on blank sky [nJy]
    error_ratio: float         # claimed over that
    noise_ratio: float         # scatter over that
    sources: np.ndarray        # MEASUREMENT
    truth_row: np.ndarray      # (sources,) row of the truth given; -1 for false detections
    first_source: np.ndarray   # (detectors + 1,) where each one's begin
    fluxes: np.ndarray         # (m, 5) x, y, flux on the difference, science flux, error: of all, false ones too
    first_flux: np.ndarray     # (detectors + 1,)

    def of(self, slot: int, wcs: Wcs) -> Catalog:
        """One detector's."""
        rows = slice(int(self.first_source[slot]), int(self.first_source[slot + 1]))
        x, y, flux, science, error = self.fluxes[self.first_flux[slot]:self.first_flux[slot + 1]].T
        pixels = CatalogPixels(wcs, self.shape, x, y, flux, science, error, float(self.flux_err[slot]),
                               self.error_ratio, self.noise_ratio,
                               NoiseField(int(self.keys[slot]), self.psf_sigma_px))
        return Catalog(self.sources[rows], self.truth_row[rows], pixels)


def draw_visit(truth: np.ndarray, slot: np.ndarray, shape: tuple[int, int], *, psf_sigma_px: float,
               flux_err: np.ndarray, keys: np.ndarray, rng: np.random.Generator,
               model: CatalogModel | None = None, losses: int = 0) -> VisitCatalog:
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
    losses : int
        As `catalogs.draw` has it.
    """
    model, n = model or CatalogModel(), len(flux_err)
    amplitude, moved = seen_flux(truth, psf_sigma_px)
    amplitude = amplitude * (1.0 + model.flux_floor * rng.normal(size=len(truth)))
    error = point_error(truth, flux_err[slot].astype(truth["flux_err_optimum"].dtype), psf_sigma_px)
    flux = amplitude + model.noise_ratio * error * field_at(keys[slot], truth["x"], truth["y"], psf_sigma_px)
    found = _found(truth, slot, model.snr_ratio * flux / error, shape, psf_sigma_px, model, losses)
    false, false_slot = _false(shape, flux_err, model, rng)
    places = join([truth, false]), np.concatenate([slot, false_slot])
    sky, sky_slot = _sky(*places, shape, flux_err, keys, psf_sigma_px, model, rng)
    real = measured_rows(take(truth, found), flux[found], error[found], psf_sigma_px, model, rng)
    unreal = [measured_rows(rows, rows["flux"], rows["flux_err_optimum"], psf_sigma_px, model, rng)
              for rows in (false, sky)]
    sources = join([real_rows(real, moved[found], model, rng), unreal_rows(unreal[0], False, model, rng),
                    unreal_rows(unreal[1], True, model, rng)])
    owner = np.concatenate([slot[found], false_slot, sky_slot])
    order = np.argsort(owner, kind="stable")
    sources, owner = take(sources, order), owner[order]
    first = np.searchsorted(owner, np.arange(n + 1))
    sources["id"] = np.arange(len(sources)) - first[owner]
    of_all = np.concatenate([slot, false_slot])
    by_detector = np.argsort(of_all, kind="stable")
    fluxes = np.stack([np.concatenate([truth["x"], false["x"]]), np.concatenate([truth["y"], false["y"]]),
                       np.concatenate([np.where(moved, 0.0, amplitude), false["flux"]]),
                       np.nan_to_num(np.concatenate([truth["science_flux"], false["science_flux"]])),
                       np.concatenate([error, false["flux_err_optimum"]])], axis=1)
    return VisitCatalog(shape, psf_sigma_px, keys, flux_err, model.error_ratio, model.noise_ratio, sources,
                        np.concatenate([found, np.full(len(false) + len(sky), -1)])[order], first, fluxes[by_detector],
                        np.searchsorted(of_all[by_detector], np.arange(n + 1)))


def _found(truth: np.ndarray, slot: np.ndarray, snr: np.ndarray, shape: tuple[int, int], sigma: float,
           model: CatalogModel, losses: int) -> np.ndarray:
    """As `catalogs._found`, with neighbours by a tree."""
    usable = (truth["input_mask"] & mask.UNUSABLE) == 0
    rows = np.flatnonzero(inside(truth, shape, model) & usable & kept(truth, model, losses)
                          & (np.abs(snr) >= model.threshold))
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
    rate = np.full(len(flux_err), model.false_per_megapixel * shape[0] * shape[1] / 1e6)
    if gamma := model.false_shape * shape[0] * shape[1] / 1e6:
        rate *= rng.gamma(gamma, 1.0 / gamma, len(rate))
    count = rng.poisson(rate)
    slot = np.repeat(np.arange(len(flux_err)), count)
    rows, n = empty(TRUTH, len(slot)), len(slot)
    rows["x"], rows["y"] = rng.uniform(0, shape[1] - 1, n), rng.uniform(0, shape[0] - 1, n)
    rows["flux"] = (model.threshold + rng.exponential(2.0, n)) * rng.choice([-1.0, 1.0], n) * flux_err[slot]
    rows["science_flux"], rows["template_flux"] = np.maximum(rows["flux"], 0), np.maximum(-rows["flux"], 0)
    rows["flux_err_optimum"], rows["trail_length"] = flux_err[slot], 0.0
    return rows, slot


def _sky(there: np.ndarray, slot: np.ndarray, shape: tuple[int, int], flux_err: np.ndarray, keys: np.ndarray,
         sigma: float, model: CatalogModel, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """TRUTH-like rows of places on blank sky, and whose: as `catalogs._sky`, away from all that is `there`."""
    n, tries = len(flux_err), 5 * model.sky_sources
    x, y = rng.uniform(10, np.array(shape[::-1]) - 11, (n * tries, 2)).T
    owner = np.repeat(np.arange(n), tries)
    if len(there):
        tree = cKDTree(np.stack([there["x"] + APART * slot, there["y"]], axis=1))
        gap, _ = tree.query(np.stack([x + APART * owner, y], axis=1), distance_upper_bound=5 * sigma)
        x, y, owner = x[np.isinf(gap)], y[np.isinf(gap)], owner[np.isinf(gap)]
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)       # among its detector's
    x, y, owner = (values[place < model.sky_sources] for values in (x, y, owner))
    rows = empty(TRUTH, len(x))
    rows["x"], rows["y"], rows["flux_err_optimum"] = x, y, flux_err[owner]
    rows["flux"] = rows["science_flux"] = model.noise_ratio * flux_err[owner] * field_at(keys[owner], x, y, sigma)
    rows["template_flux"] = rows["trail_length"] = 0.0
    return rows, owner


__all__ = ["VisitCatalog", "draw_visit"]
