"""Catalogue fidelity: what a difference-imaging pipeline would have measured, drawn from truth without pixels.

A Gaussian PSF and a Gaussian random field stand for the image: the field's value at a position is the matched filter's
noise there, correlated over the PSF as in a real difference, and the same whoever asks, in whatever order. So a
source's own flux, and the flux forced at its position a moment later, share their noise; and no pixel is made.

The model's numbers are fitted to the pixel fidelity with `fit`; reports name the fidelity of each figure.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.special import erf, ndtri

from schemas import mask
from schemas.measures import FORCED, MEASUREMENT, TRUTH, empty
from schemas.table import join
from schemas.wcs import Wcs

CELLS: Final = 3          # half-width, in cells of one PSF sigma, of the patch of the random field that is summed
GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)   # constants of SplitMix64 (Steele, Lea & Flood 2014)
MIX: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """How the pixel half turns truth into measurements.

    Errors and the rate of false detections are those of `fit` on scenario first_light, seed 1 (236 isolated point
    sources, 12 visits); the efficiency, the scores and the share of dipoles are assumed.
    """

    threshold: float = 5.0              # of the matched filter's S/N, both signs
    efficiency: float = 0.995           # of sources over the threshold, that no mask or blend takes away
    error_ratio: float = 1.02           # claimed flux error over the optimum
    centroid_ratio: float = 1.0         # centroid error over the bound sqrt(2) sigma / (S/N) of a Gaussian
    centroid_floor_px: float = 0.015
    false_per_megapixel: float = 0.9
    score_real: tuple[float, float] = (8.0, 1.5)     # beta distribution of the reliability of real sources
    score_false: tuple[float, float] = (1.0, 8.0)
    dipole_recognised: float = 0.9      # of moved stars


@dataclass(frozen=True, slots=True)
class NoiseField:
    """A Gaussian random field of unit variance and correlation exp(-d^2 / 4 sigma^2), fixed by its key."""

    key: int
    sigma_px: float

    def at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n,) values at positions [pixel]: white cells smoothed with the PSF, normalised to unit variance."""
        return field_at(np.uint64(self.key & (2**64 - 1)), x, y, self.sigma_px)


def field_at(key: np.ndarray | np.uint64, x: np.ndarray, y: np.ndarray, sigma_px: float) -> np.ndarray:
    """(n,) values at positions [pixel] of the noise field of a key, uint64, or of a field each."""
    u, v = np.asarray(x, float) / sigma_px, np.asarray(y, float) / sigma_px
    steps = np.arange(-CELLS, CELLS + 1)
    i, j = np.floor(u)[:, None] + steps, np.floor(v)[:, None] + steps
    across, along = np.exp(-0.5 * (i - u[:, None]) ** 2), np.exp(-0.5 * (j - v[:, None]) ** 2)
    weight = along[:, :, None] * across[:, None, :]
    cells = _cells(key, i.astype(np.int64)[:, None, :], j.astype(np.int64)[:, :, None])
    return np.asarray(np.sum(weight * cells, axis=(1, 2)) / np.sqrt(np.sum(weight**2, axis=(1, 2))))


def _cells(key: np.ndarray | np.uint64, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Independent normal deviates of cells, by hashing their indices."""
    with np.errstate(over="ignore"):
        begun = _mixed(key)
        begun = begun[:, None, None] if begun.ndim else begun
        word = _mixed(_mixed(begun ^ i.astype(np.uint64)) ^ j.astype(np.uint64))
    return np.asarray(ndtri(((word >> np.uint64(11)).astype(float) + 0.5) * 2.0**-53))


def _mixed(word: np.ndarray | np.uint64) -> np.ndarray:
    with np.errstate(over="ignore"):
        word = np.asarray(word) + GOLDEN
        word = (word ^ (word >> np.uint64(30))) * MIX[0]
        word = (word ^ (word >> np.uint64(27))) * MIX[1]
        return np.asarray(word ^ (word >> np.uint64(31)))


@dataclass(frozen=True, slots=True)
class CatalogPixels:
    """Forced photometry without pixels: truth through the PSF, plus the noise field."""

    wcs: Wcs
    shape: tuple[int, int]
    x: np.ndarray              # (n,) positions of all sources of flux on the difference [pixel], false ones included
    y: np.ndarray
    flux: np.ndarray           # (n,) on the difference [nJy]
    science_flux: np.ndarray   # (n,)
    flux_err: float            # [nJy] of a point source on blank sky, claimed
    noise_err: float           # [nJy] true
    field: NoiseField

    def force(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """FORCED rows; NaN off the image."""
        rows = empty(FORCED, len(ra))
        x, y = self.wcs.pixels(ra, dec)
        rows["x"], rows["y"] = x, y
        rows["inside"] = (x >= -0.5) & (x < self.shape[1] - 0.5) & (y >= -0.5) & (y < self.shape[0] - 0.5)
        rows["flag_edge"], rows["flag_noGoodPixels"] = False, False
        inside = np.flatnonzero(rows["inside"])
        noise = self.noise_err * self.field.at(x[inside], y[inside])
        near = self._overlap(x[inside], y[inside])
        rows["psfFlux"][inside] = near @ self.flux + noise
        rows["scienceFlux"][inside] = near @ self.science_flux + noise
        rows["psfFluxErr"][inside] = rows["scienceFluxErr"][inside] = self.flux_err
        return rows

    def close(self) -> None:
        pass

    def _overlap(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(positions, sources) share of a source's flux that a matched filter sees at a position."""
        d2 = (x[:, None] - self.x) ** 2 + (y[:, None] - self.y) ** 2
        return np.asarray(np.exp(-d2 / (4 * self.field.sigma_px**2)))


@dataclass(frozen=True, slots=True)
class Catalog:
    """One detector-visit at catalogue fidelity."""

    sources: np.ndarray        # MEASUREMENT
    truth_row: np.ndarray      # (n,) row of the truth given; -1 for false detections
    pixels: CatalogPixels


def draw(truth: np.ndarray, wcs: Wcs, shape: tuple[int, int], *, psf_sigma_px: float, flux_err: float, key: int,
         rng: np.random.Generator, model: CatalogModel | None = None) -> Catalog:
    """Sources that a pipeline would have measured on one detector.

    Parameters
    ----------
    truth : (n,) TRUTH
        Of this detector-visit. Sources with BAD, SAT or NO_DATA input under them are not detected.
    flux_err : float
        Optimum error of a point source on blank sky of this visit [nJy]; brighter sources have their own in `truth`.
    key : int
        Of the noise field: one per seed, visit and detector.
    rng : Generator
        For false detections, scores and centroids.
    """
    model = model or CatalogModel()
    field = NoiseField(key, psf_sigma_px)
    amplitude, moved = seen_flux(truth, psf_sigma_px)
    error = np.where(np.isfinite(truth["flux_err_optimum"]), truth["flux_err_optimum"], flux_err)
    flux = amplitude + error * field.at(truth["x"], truth["y"])
    found = _found(truth, flux / error, shape, psf_sigma_px, model, rng)
    false = _false(shape, flux_err, model, rng)
    sources = join([
        measured_rows(truth[found], flux[found], error[found], psf_sigma_px, model, rng),
        measured_rows(false, false["flux"], false["flux_err_optimum"], psf_sigma_px, model, rng)])
    n = len(found)
    with_scores(sources[:n], model.score_real, rng)
    with_scores(sources[n:], model.score_false, rng)
    sources["isDipole"][:n] = moved[found] & (rng.random(n) < model.dipole_recognised)
    sources["dipoleFitAttempted"][:n] = moved[found]
    sources["id"] = np.arange(len(sources))
    everything = join([truth, false])
    pixels = CatalogPixels(wcs, shape, everything["x"], everything["y"],
                           np.concatenate([np.where(moved, 0.0, amplitude), false["flux"]]),
                           np.nan_to_num(everything["science_flux"]), flux_err * model.error_ratio, flux_err, field)
    return Catalog(sources, np.concatenate([found, np.full(len(false), -1)]), pixels)


def seen_flux(truth: np.ndarray, psf_sigma_px: float) -> tuple[np.ndarray, np.ndarray]:
    """(n,) flux on the difference that a point-source filter sees without noise, and which are moved stars."""
    moved = np.nan_to_num(truth["separation_px"]) > 0
    lobe = truth["science_flux"] * -np.expm1(-np.nan_to_num(truth["separation_px"]) ** 2 / (4 * psf_sigma_px**2))
    return np.where(moved, lobe, truth["flux"] * trail_loss(truth["trail_length"], psf_sigma_px)), moved


def trail_loss(length: np.ndarray, sigma: float) -> np.ndarray:
    """Flux of a trail, of a length in the units of `sigma`, that a point-source filter at its middle sees, of 1."""
    a = np.maximum(np.nan_to_num(np.asarray(length, float)), 1e-6) / (4.0 * sigma)
    return np.asarray(np.sqrt(np.pi) / (2.0 * a) * erf(a))


def _found(truth: np.ndarray, snr: np.ndarray, shape: tuple[int, int], sigma: float, model: CatalogModel,
           rng: np.random.Generator) -> np.ndarray:
    """Rows detected: over the threshold, on good input, not within two PSF sigma of one more significant."""
    inside = ((truth["x"] > -0.5) & (truth["x"] < shape[1] - 0.5) & (truth["y"] > -0.5) & (truth["y"] < shape[0] - 0.5))
    usable = (truth["input_mask"] & mask.UNUSABLE) == 0
    lucky = rng.random(len(truth)) < model.efficiency
    rows = np.flatnonzero(inside & usable & lucky & (np.abs(snr) >= model.threshold))
    rows = rows[np.argsort(-np.abs(snr[rows]), kind="stable")]
    d2 = (truth["x"][rows][:, None] - truth["x"][rows]) ** 2 + (truth["y"][rows][:, None] - truth["y"][rows]) ** 2
    blended = np.any(np.tril(d2 < (2 * sigma) ** 2, -1), axis=1)
    return np.sort(rows[~blended])


def _false(shape: tuple[int, int], flux_err: float, model: CatalogModel, rng: np.random.Generator) -> np.ndarray:
    """TRUTH-like rows of false detections: uniform on the detector, S/N exponential above the threshold."""
    rows = empty(TRUTH, int(rng.poisson(model.false_per_megapixel * shape[0] * shape[1] / 1e6)))
    n = len(rows)
    rows["x"], rows["y"] = rng.uniform(0, shape[1] - 1, n), rng.uniform(0, shape[0] - 1, n)
    snr = (model.threshold + rng.exponential(2.0, n)) * rng.choice([-1.0, 1.0], n)
    rows["flux"] = snr * flux_err
    rows["science_flux"], rows["template_flux"] = np.maximum(rows["flux"], 0), np.maximum(-rows["flux"], 0)
    rows["flux_err_optimum"], rows["trail_length"] = flux_err, 0.0
    return rows


def measured_rows(truth: np.ndarray, flux: np.ndarray, error: np.ndarray, sigma: float, model: CatalogModel,
                  rng: np.random.Generator) -> np.ndarray:
    """MEASUREMENT rows of detections with the fluxes already drawn."""
    rows, n = empty(MEASUREMENT, len(truth)), len(truth)
    snr = np.abs(flux) / error
    centroid = np.hypot(model.centroid_ratio * np.sqrt(2.0) * sigma / snr, model.centroid_floor_px)
    rows["x"], rows["y"] = truth["x"] + rng.normal(0, centroid), truth["y"] + rng.normal(0, centroid)
    rows["xErr"] = rows["yErr"] = centroid
    rows["x_y_Cov"] = 0.0
    rows["trailX"], rows["trailY"] = rows["x"], rows["y"]
    rows["peak_x"], rows["peak_y"] = np.rint(rows["x"]), np.rint(rows["y"])
    rows["snr"], rows["isNegative"] = snr, flux < 0
    rows["psfFlux"], rows["psfFluxErr"] = flux, error * model.error_ratio
    rows["apFlux"], rows["apFluxErr"] = truth["flux"] + rng.normal(0, 1, n) * 3 * error, 3 * error
    rows["scienceFlux"] = np.nan_to_num(truth["science_flux"]) + (flux - truth["flux"])
    rows["scienceFluxErr"] = error * model.error_ratio
    rows["templateFlux"], rows["templateFluxErr"] = truth["template_flux"], 0.3 * error
    length = np.nan_to_num(truth["trail_length"])
    length_err = np.maximum(2.0 * sigma / snr, 0.05)
    rows["trailLength"] = np.abs(length + rng.normal(0, 1, n) * length_err)
    rows["trailLengthErr"], rows["trailFlux"], rows["trailFluxErr"] = length_err, flux, error
    rows["trailAngle"], rows["trailAngleErr"] = np.nan_to_num(truth["trail_angle"]), 5.0
    rows["trailNdata"], rows["psfNdata"], rows["dipoleNdata"] = 441, 441, 0
    _extent(rows, truth, length, snr, sigma)
    return rows


def _extent(rows: np.ndarray, truth: np.ndarray, length: np.ndarray, snr: np.ndarray, sigma: float) -> None:
    """Footprints and moments: where the smoothed source passes the threshold, grown by 2.4 sigma."""
    radius = sigma * np.sqrt(4.0 * np.log(np.maximum(snr / 5.0, 1.0))) + 2.4 * sigma
    theta = np.radians(np.nan_to_num(truth["trail_angle"]))
    half_x = np.ceil(radius + length / 2 * np.abs(np.cos(theta))).astype(int)
    half_y = np.ceil(radius + length / 2 * np.abs(np.sin(theta))).astype(int)
    rows["bbox_x0"], rows["bbox_x1"] = rows["peak_x"] - half_x, rows["peak_x"] + half_x
    rows["bbox_y0"], rows["bbox_y1"] = rows["peak_y"] - half_y, rows["peak_y"] + half_y
    rows["bboxSize"] = 2 * np.maximum(half_x, half_y) + 1
    rows["footprint_area"] = np.pi * half_x * half_y
    rows["ixxPSF"], rows["iyyPSF"], rows["ixyPSF"] = sigma**2, sigma**2, 0.0
    spread = length**2 / 12.0
    rows["ixx"] = sigma**2 + spread * np.cos(theta) ** 2
    rows["iyy"] = sigma**2 + spread * np.sin(theta) ** 2
    rows["ixy"] = spread * np.sin(theta) * np.cos(theta)
    rows["extendedness"] = np.clip(spread / (2 * sigma**2), 0.0, 1.0)


def with_scores(rows: np.ndarray, shape: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """The same rows, with scores filled in."""
    rows["reliability"] = rng.beta(*shape, len(rows))
    return rows


def fit(truth: np.ndarray, measured: np.ndarray, false: np.ndarray, megapixels: float, *, psf_sigma_px: float,
        model: CatalogModel | None = None) -> CatalogModel:
    """The model of matched pairs from the pixel fidelity.

    Parameters
    ----------
    truth, measured : (n,) TRUTH, (n,) MEASUREMENT
        Isolated point sources and what was measured of them, row by row, S/N above 5.
    false : (m,) MEASUREMENT
        Detections that match no truth, on `megapixels` of usable detector.
    """
    if len(truth) < 30:
        raise ValueError(f"at least 30 matched sources are needed for a fit, got {len(truth)}")
    ratio = float(np.median(measured["psfFluxErr"] / truth["flux_err_optimum"]))
    snr = np.abs(measured["psfFlux"] / truth["flux_err_optimum"])
    bound = np.sqrt(2.0) * psf_sigma_px / snr
    squared = 0.5 * ((measured["x"] - truth["x"]) ** 2 + (measured["y"] - truth["y"]) ** 2)
    faint, bright = snr < np.median(snr), snr >= np.quantile(snr, 0.9)
    slope = float(np.sqrt(np.median(squared[faint] / bound[faint] ** 2) / np.log(2.0)))    # median of chi^2_2 / 2
    floor = float(np.sqrt(max(np.median(squared[bright] - (slope * bound[bright]) ** 2) / np.log(2.0), 0.0)))
    return replace(model or CatalogModel(), error_ratio=ratio, centroid_ratio=slope, centroid_floor_px=floor,
                   false_per_megapixel=len(false) / megapixels, score_real=_beta(measured["reliability"]),
                   score_false=_beta(false["reliability"]) if len(false) >= 10 else (1.0, 8.0))


def _beta(scores: np.ndarray) -> tuple[float, float]:
    """Parameters of the beta distribution of scores, by its first two moments."""
    mean = float(np.clip(np.nanmean(scores), 1e-3, 1 - 1e-3))
    variance = float(np.clip(np.nanvar(scores), 1e-5, 0.99 * mean * (1 - mean)))
    concentration = mean * (1 - mean) / variance - 1.0
    return mean * concentration, (1.0 - mean) * concentration
