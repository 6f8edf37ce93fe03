"""Catalogue fidelity: what a difference-imaging pipeline would have measured, drawn from truth without pixels.

A Gaussian PSF and a Gaussian random field stand for the image: the field's value at a position is the matched filter's
noise there, correlated over the PSF as in a real difference, and the same whoever asks, in whatever order. So a
source's own flux, and the flux forced at its position a moment later, share their noise; and no pixel is made.

The model's numbers are fitted to the pixel fidelity with `fit`; reports name the fidelity of each figure.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import erf, ndtr, ndtri

from schemas import mask
from schemas.measures import FORCED, MEASUREMENT, TRUTH, empty
from schemas.table import join
from schemas.wcs import Wcs

BRIGHT_SNR: Final = 8.0   # above it the threshold decides nothing
NORMAL_MAD: Final = 1.4826   # sigma over the median absolute deviation
FAINT_SNR: Final = 10.0   # below it real sources have scores of their own
LOW_THRESHOLD: Final = 3.0   # S/N down to which a footprint follows its source
CELLS: Final = 3          # half-width, in cells of one PSF sigma, of the patch of the random field that is summed
GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)   # constants of SplitMix64 (Steele, Lea & Flood 2014)
MIX: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """How the pixel half turns truth into measurements: defaults are what `alert-twin fidelity-fit` gave.

    Ratios are to the error that the truth given to `draw` claims: the optimum without the light of hosts. The share of
    dipoles is assumed.
    """

    source: str = ("three fidelities, seeds 1 2 3 4 5 6 7 8 11 12 13 14: 5382 "
                   "true sources, 4447 of them found, 95 megapixels")
    threshold: float = 5.0              # of the matched filter's S/N, both signs
    snr_ratio: float = 0.9639           # detection's S/N over the optimum
    efficiency: float = 0.9789          # of sources far over the threshold: what masks and what no model knows take
    edge_px: float = 1.0                # nearer to the border nothing is found
    flagged: float = 0.004722           # of what is found: flags that the quality filter takes
    noise_ratio: float = 1.019          # scatter of fluxes over the optimum
    flux_floor: float = 0.01907         # more scatter, of the flux: the PSF's and the kernel's errors
    error_ratio: float = 1.017          # claimed flux error over the optimum
    centroid_ratio: float = 0.9509      # centroid error over the bound sqrt(2) sigma / (S/N) of a Gaussian
    centroid_floor_px: float = 0.0
    false_per_megapixel: float = 1.14
    false_shape: float = 0.5191         # of the gamma of 10^6 px' number: satellites, bleeding stars; 0: Poisson
    false_flagged: float = 0.1759       # of them: flags that the quality filter takes
    sky_sources: int = 10               # places without a source, measured all the same; the quality filter takes them
    score_real: tuple[float, float] = (1.968, 0.007456)   # beta distribution of the reliability of real sources
    score_faint: tuple[float, float] = (1.316, 0.07429)   # of those below `FAINT_SNR`
    score_false: tuple[float, float] = (0.1737, 0.44)
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
    return np.asarray(ndtri(_share(word)))


def _share(word: np.ndarray) -> np.ndarray:
    """Words of 64 bits as numbers between 0 and 1."""
    return np.asarray(((word >> np.uint64(11)).astype(float) + 0.5) * 2.0**-53)


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
    error: np.ndarray          # (n,) optimum of a point source there [nJy]
    flux_err: float            # the same on blank sky
    claimed: float             # errors claimed, over the optimum
    noise: float               # scatter, over the optimum
    field: NoiseField

    def force(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """FORCED rows; NaN off the image."""
        rows = empty(FORCED, len(ra))
        x, y = self.wcs.pixels(ra, dec)
        rows["x"], rows["y"] = x, y
        rows["inside"] = (x >= -0.5) & (x < self.shape[1] - 0.5) & (y >= -0.5) & (y < self.shape[0] - 0.5)
        rows["flag_edge"], rows["flag_noGoodPixels"] = False, False
        inside = np.flatnonzero(rows["inside"])
        near = self._overlap(x[inside], y[inside])
        error = np.sqrt(self.flux_err**2 + near @ np.maximum(self.error**2 - self.flux_err**2, 0.0))
        noise = self.noise * error * self.field.at(x[inside], y[inside])
        rows["psfFlux"][inside] = near @ self.flux + noise
        rows["scienceFlux"][inside] = near @ self.science_flux + noise
        rows["psfFluxErr"][inside] = rows["scienceFluxErr"][inside] = self.claimed * error
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
         rng: np.random.Generator, model: CatalogModel | None = None, losses: int = 0) -> Catalog:
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
    losses : int
        Key of what is lost for no reason that the model knows: of a sky, where the same sources are lost every time.
    """
    model = model or CatalogModel()
    field = NoiseField(key, psf_sigma_px)
    amplitude, moved = seen_flux(truth, psf_sigma_px)
    amplitude = amplitude * (1.0 + model.flux_floor * rng.normal(size=len(truth)))
    error = point_error(truth, flux_err, psf_sigma_px)
    flux = amplitude + model.noise_ratio * error * field.at(truth["x"], truth["y"])
    found = _found(truth, model.snr_ratio * flux / error, shape, psf_sigma_px, model, losses)
    false = _false(shape, flux_err, model, rng)
    sky = _sky(truth, false, shape, flux_err, field, model, rng)
    real = measured_rows(truth[found], flux[found], error[found], psf_sigma_px, model, rng)
    unreal = [measured_rows(rows, rows["flux"], rows["flux_err_optimum"], psf_sigma_px, model, rng)
              for rows in (false, sky)]
    sources = join([real_rows(real, moved[found], model, rng), unreal_rows(unreal[0], False, model, rng),
                    unreal_rows(unreal[1], True, model, rng)])
    sources["id"] = np.arange(len(sources))
    everything = join([truth, false])
    pixels = CatalogPixels(
        wcs, shape, everything["x"], everything["y"], np.concatenate([np.where(moved, 0.0, amplitude), false["flux"]]),
        np.nan_to_num(everything["science_flux"]), np.concatenate([error, false["flux_err_optimum"]]), flux_err,
        model.error_ratio, model.noise_ratio, field)
    return Catalog(sources, np.concatenate([found, np.full(len(sources) - len(found), -1)]), pixels)


def real_rows(rows: np.ndarray, moved: np.ndarray, model: CatalogModel, rng: np.random.Generator) -> np.ndarray:
    """Scores and flags of what is real."""
    n = len(rows)
    rows["reliability"] = np.where(rows["snr"] < FAINT_SNR, rng.beta(*model.score_faint, n),
                                   rng.beta(*model.score_real, n))
    rows["centroid_flag"] = rng.random(n) < model.flagged
    rows["isDipole"] = moved & (rng.random(n) < model.dipole_recognised)
    rows["dipoleFitAttempted"] = moved
    return rows


def unreal_rows(rows: np.ndarray, blank: bool, model: CatalogModel, rng: np.random.Generator) -> np.ndarray:
    """The same of false detections, and of places on blank sky."""
    rows["reliability"], rows["sky_source"] = rng.beta(*model.score_false, len(rows)), blank
    rows["centroid_flag"] = not blank and rng.random(len(rows)) < model.false_flagged
    return rows


def seen_flux(truth: np.ndarray, psf_sigma_px: float) -> tuple[np.ndarray, np.ndarray]:
    """(n,) flux on the difference that a point-source filter sees without noise, and which are moved stars."""
    moved = np.nan_to_num(truth["separation_px"]) > 0
    lobe = truth["science_flux"] * -np.expm1(-np.nan_to_num(truth["separation_px"]) ** 2 / (4 * psf_sigma_px**2))
    return np.where(moved, lobe, truth["flux"] * trail_loss(truth["trail_length"], psf_sigma_px)), moved


def point_error(truth: np.ndarray, flux_err: np.ndarray | float, psf_sigma_px: float) -> np.ndarray:
    """(n,) error of a point source's filter at each source: its own, or that on blank sky [nJy]."""
    error = np.where(np.isfinite(truth["flux_err_optimum"]), truth["flux_err_optimum"], flux_err)
    return np.asarray(error * np.sqrt(trail_power(truth["trail_length"], psf_sigma_px)))


def kept(truth: np.ndarray, model: CatalogModel, losses: int) -> np.ndarray:
    """(n,) bool: not among what is lost for no reason that the model knows, which is the same for a key of `losses`."""
    word = _mixed(_mixed(np.uint64(losses & (2**64 - 1))) ^ truth["truthId"].astype(np.uint64))
    return np.asarray(_share(word) < model.efficiency)


def inside(truth: np.ndarray, shape: tuple[int, int], model: CatalogModel) -> np.ndarray:
    """(n,) bool: on the detector, and far enough from its border."""
    margin = model.edge_px - 0.5
    return np.asarray((truth["x"] > margin) & (truth["x"] < shape[1] - 1 - margin)
                      & (truth["y"] > margin) & (truth["y"] < shape[0] - 1 - margin))


def trail_loss(length: np.ndarray, sigma: float) -> np.ndarray:
    """Flux of a trail, of a length in the units of `sigma`, that a point-source filter at its middle sees, of 1."""
    a = np.maximum(np.nan_to_num(np.asarray(length, float)), 1e-6) / (4.0 * sigma)
    return np.asarray(np.sqrt(np.pi) / (2.0 * a) * erf(a))


def trail_power(length: np.ndarray, sigma: float) -> np.ndarray:
    """Integral of a trail's squared profile, over a point's: the optimum error grows by one over its root."""
    a = np.maximum(np.nan_to_num(np.asarray(length, float)), 1e-3) / (2.0 * sigma)
    return np.asarray(np.sqrt(np.pi) * erf(a) / a + np.expm1(-a**2) / a**2)


def _found(truth: np.ndarray, snr: np.ndarray, shape: tuple[int, int], sigma: float, model: CatalogModel,
           losses: int) -> np.ndarray:
    """Rows detected: over the threshold, on good input, not within two PSF sigma of one more significant."""
    usable = (truth["input_mask"] & mask.UNUSABLE) == 0
    rows = np.flatnonzero(inside(truth, shape, model) & usable & kept(truth, model, losses)
                          & (np.abs(snr) >= model.threshold))
    rows = rows[np.argsort(-np.abs(snr[rows]), kind="stable")]
    d2 = (truth["x"][rows][:, None] - truth["x"][rows]) ** 2 + (truth["y"][rows][:, None] - truth["y"][rows]) ** 2
    blended = np.any(np.tril(d2 < (2 * sigma) ** 2, -1), axis=1)
    return np.sort(rows[~blended])


def _false(shape: tuple[int, int], flux_err: float, model: CatalogModel, rng: np.random.Generator) -> np.ndarray:
    """TRUTH-like rows of false detections: uniform on the detector, S/N exponential above the threshold."""
    rate = model.false_per_megapixel * shape[0] * shape[1] / 1e6
    if gamma := model.false_shape * shape[0] * shape[1] / 1e6:
        rate *= rng.gamma(gamma, 1.0 / gamma)
    rows = empty(TRUTH, int(rng.poisson(rate)))
    n = len(rows)
    rows["x"], rows["y"] = rng.uniform(0, shape[1] - 1, n), rng.uniform(0, shape[0] - 1, n)
    snr = (model.threshold + rng.exponential(2.0, n)) * rng.choice([-1.0, 1.0], n)
    rows["flux"] = snr * flux_err
    rows["science_flux"], rows["template_flux"] = np.maximum(rows["flux"], 0), np.maximum(-rows["flux"], 0)
    rows["flux_err_optimum"], rows["trail_length"] = flux_err, 0.0
    return rows


def _sky(truth: np.ndarray, false: np.ndarray, shape: tuple[int, int], flux_err: float, field: NoiseField,
         model: CatalogModel, rng: np.random.Generator) -> np.ndarray:
    """TRUTH-like rows of places far from all sources, with the noise that is there for flux."""
    x, y = rng.uniform(10, np.array(shape[::-1]) - 11, (5 * model.sky_sources, 2)).T
    near = np.zeros(len(x), bool)
    for rows in (truth, false):
        near |= np.any(np.hypot(x[:, None] - rows["x"], y[:, None] - rows["y"]) < 5 * field.sigma_px, axis=1)
    x, y = x[~near][:model.sky_sources], y[~near][:model.sky_sources]
    rows = empty(TRUTH, len(x))
    rows["x"], rows["y"], rows["flux_err_optimum"] = x, y, flux_err
    rows["flux"] = rows["science_flux"] = model.noise_ratio * flux_err * field.at(x, y)
    rows["template_flux"] = rows["trail_length"] = 0.0
    return rows


def measured_rows(truth: np.ndarray, flux: np.ndarray, error: np.ndarray, sigma: float, model: CatalogModel,
                  rng: np.random.Generator) -> np.ndarray:
    """MEASUREMENT rows of detections with the fluxes already drawn."""
    rows, n = empty(MEASUREMENT, len(truth)), len(truth)
    snr = model.snr_ratio * np.abs(flux) / error
    centroid = np.hypot(model.centroid_ratio * np.sqrt(2.0) * sigma * error / np.abs(flux), model.centroid_floor_px)
    centroid = np.where(snr < LOW_THRESHOLD, 0.0, centroid)        # blank sky stays where it is
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
    length_err = np.maximum(2.0 * sigma / np.maximum(snr, LOW_THRESHOLD), 0.05)
    rows["trailLength"] = np.abs(length + rng.normal(0, 1, n) * length_err)
    rows["trailLengthErr"], rows["trailFlux"], rows["trailFluxErr"] = length_err, flux, error
    rows["trailAngle"], rows["trailAngleErr"] = np.nan_to_num(truth["trail_angle"]), 5.0
    rows["trailNdata"], rows["psfNdata"], rows["dipoleNdata"] = 441, 441, 0
    _extent(rows, truth, length, snr, sigma)
    return rows


def _extent(rows: np.ndarray, truth: np.ndarray, length: np.ndarray, snr: np.ndarray, sigma: float) -> None:
    """Footprints and moments: where the smoothed source passes the lower threshold, grown by 2.4 sigma."""
    radius = sigma * np.sqrt(4.0 * np.log(np.maximum(snr / LOW_THRESHOLD, 1.0))) + 2.4 * sigma
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


# What the pixel half made of one true source, moved stars left out.
FOUND: Final = np.dtype([
    ("x", "f8"), ("y", "f8"), ("flux", "f8"), ("error", "f8"),      # true; error as the truth given to `draw` has it
    ("snr", "f8"),                         # of a point source's filter
    ("edge_px", "f8"), ("sigma_px", "f8"),           # distance to the border; of the PSF
    ("clear", "?"), ("point", "?"),        # no mask of the input covers it; isolated, and no trail
    ("found", "?"), ("flagged", "?"),      # detected; taken by the quality filter
    ("measured_x", "f8"), ("measured_y", "f8"), ("psfFlux", "f8"), ("psfFluxErr", "f8"), ("reliability", "f8")])


# A detection that matches no truth: of which detector-visit, counted from 0.
FALSE: Final = np.dtype([("visit", "i4"), ("reliability", "f8"), ("flagged", "?")])


def fit(rows: np.ndarray, false: np.ndarray, megapixels: float, visits: int, model: CatalogModel | None = None
        ) -> CatalogModel:
    """The model of true sources as the pixel fidelity found them.

    Parameters
    ----------
    rows : (n,) FOUND
        All true sources down to S/N 3 or less; 30 isolated points among them at least were found.
    false : (m,) FALSE
        On `megapixels` of usable detector, in so many detector-visits.
    """
    model = model or CatalogModel()
    measured = rows[rows["found"] & rows["point"] & np.isfinite(rows["psfFluxErr"])]
    if len(measured) < 30:
        raise ValueError(f"at least 30 matched sources are needed for a fit, got {len(measured)}")
    edge = _edge(rows, model.edge_px)
    inner = rows[rows["edge_px"] >= edge]
    bright = inner[np.abs(inner["snr"]) >= BRIGHT_SNR]
    efficiency = float(np.mean(bright["found"])) if len(bright) >= 30 else model.efficiency
    noise, floor = _fluxes(measured, model)
    slope, least = _centroids(measured)
    return replace(
        model, edge_px=edge, efficiency=efficiency, flagged=float(np.mean(rows["flagged"][rows["found"]])),
        snr_ratio=_snr_ratio(inner[inner["clear"]], efficiency, model.threshold),
        false_per_megapixel=len(false) / megapixels,
        false_shape=_shape(np.bincount(false["visit"], minlength=visits)) * visits / megapixels,
        false_flagged=float(np.mean(false["flagged"])) if len(false) >= 10 else model.false_flagged,
        score_false=_beta(false["reliability"], model.score_false),
        score_real=_scores(rows, model.score_real, faint=False),
        score_faint=_scores(rows, model.score_faint, faint=True),
        error_ratio=float(np.median(measured["psfFluxErr"] / measured["error"])), noise_ratio=noise, flux_floor=floor,
        centroid_ratio=slope, centroid_floor_px=least)


def _edge(rows: np.ndarray, default: float) -> float:
    """The margin that is wrong about the fewest bright sources near the border."""
    near = rows[rows["clear"] & (rows["edge_px"] < 12.0) & (np.abs(rows["snr"]) >= BRIGHT_SNR)]
    if len(near) < 10 or near["found"].all():
        return default if len(near) < 10 else 0.0
    margins = np.arange(0.0, 10.25, 0.25)
    wrong = [float(np.sum((near["edge_px"] >= margin) != near["found"])) for margin in margins]
    return float(np.mean(margins[np.array(wrong) == min(wrong)]))


def _shape(counts: np.ndarray) -> float:
    """Shape of the gamma that makes Poisson numbers scatter as these; 0 where they scatter no more than Poisson's."""
    mean = float(counts.mean())
    excess = float(counts.var(ddof=1)) - mean if len(counts) > 1 else 0.0
    return mean**2 / excess if excess > 0 else 0.0


def _snr_ratio(rows: np.ndarray, efficiency: float, threshold: float) -> float:
    """The most likely ratio r, where a source is found with probability efficiency Phi(r S/N - threshold)."""
    snr, found = np.abs(rows["snr"]), rows["found"]

    def against(r: float) -> float:
        p = np.clip(efficiency * ndtr(r * snr - threshold), 1e-6, 1 - 1e-6)
        return -float(np.sum(np.log(np.where(found, p, 1 - p))))

    return float(minimize_scalar(against, bounds=(0.7, 1.3), method="bounded").x)


def _fluxes(rows: np.ndarray, model: CatalogModel) -> tuple[float, float]:
    """True errors over those given, and their floor, by medians: a few wild ones are not the law."""
    off = np.abs(rows["psfFlux"] - rows["flux"]) / rows["error"]
    snr = np.abs(rows["snr"])
    middle, bright = (snr >= BRIGHT_SNR) & (snr < 25.0), snr >= 25.0
    noise, floor = model.noise_ratio, model.flux_floor if np.sum(bright) < 30 else 0.0
    for _ in range(5):         # each without the other's part
        if np.sum(middle) >= 30:
            alone = off[middle] / np.hypot(1.0, floor * snr[middle] / noise)
            noise = NORMAL_MAD * float(np.median(alone))
        if np.sum(bright) >= 30:
            squared = (NORMAL_MAD * off[bright]) ** 2 - noise**2
            floor = float(np.sqrt(max(np.median(squared / snr[bright] ** 2), 0.0)))
    return noise, floor


def _centroids(rows: np.ndarray) -> tuple[float, float]:
    """Ratio to the bound, from the fainter half, and floor, from the brightest tenth."""
    snr = np.abs(rows["psfFlux"] / rows["error"])
    bound = np.sqrt(2.0) * rows["sigma_px"] / snr
    squared = 0.5 * ((rows["measured_x"] - rows["x"]) ** 2 + (rows["measured_y"] - rows["y"]) ** 2)
    faint, bright = snr < np.median(snr), snr >= np.quantile(snr, 0.9)
    slope = float(np.sqrt(np.median(squared[faint] / bound[faint] ** 2) / np.log(2.0)))    # median of chi^2_2 / 2
    floor = float(np.sqrt(max(np.median(squared[bright] - (slope * bound[bright]) ** 2) / np.log(2.0), 0.0)))
    return slope, floor


def _scores(rows: np.ndarray, default: tuple[float, float], *, faint: bool) -> tuple[float, float]:
    chosen = rows["found"] & ((np.abs(rows["snr"]) < FAINT_SNR) == faint)
    return _beta(rows["reliability"][chosen], default)


def _beta(scores: np.ndarray, default: tuple[float, float]) -> tuple[float, float]:
    """Parameters of the beta distribution of scores, by its first two moments; the default's of fewer than 10."""
    scores = scores[np.isfinite(scores)]
    if len(scores) < 10:
        return default
    mean = float(np.clip(np.mean(scores), 1e-3, 1 - 1e-3))
    variance = float(np.clip(np.var(scores), 1e-5, 0.99 * mean * (1 - mean)))
    concentration = mean * (1 - mean) / variance - 1.0
    return mean * concentration, (1.0 - mean) * concentration
