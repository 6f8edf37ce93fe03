"""Dipoles: two lobes of opposite sign where a static source moved or was ill subtracted."""

from typing import Final

import numpy as np

from pipeline.images import Calibrated, Detections
from pipeline.kernels import fits
from pipeline.measure import centroid
from pipeline.measure.flux import BAD_PIXELS, PsfModel, force

MIN_SNR: Final = 5.0 * np.sqrt(2.0)     # of both lobes in quadrature (ip_diffim dipoleFitTask minSn)
MAX_RATIO: Final = 0.65                 # of one lobe's flux to both (maxFluxRatio)
MIN_FLUX: Final = 1.0                   # [nJy]
MAX_AREA: Final = 415.0          # [PSF sigma^2] larger footprints are not tried: 1200 px at FWHM 0.8"
LOOSE: Final = 0.5                      # relative error given to lobe fluxes seen before subtraction
_ITERATIONS: Final = 60
_MARGIN: Final = 5                      # [pixel] added to the half window of a point source


def fit_dipoles(rows: np.ndarray, detections: Detections, science: Calibrated, model: PsfModel) -> None:
    """Fill dipole columns of sources with lobes of both signs, in place.

    Close lobes alone fix only flux times distance: the fluxes of the science image and of the matched template at
    the lobes, where they are significant, enter as Gaussian priors of 50 %. Angles are degrees from +x towards +y,
    of the positive lobe seen from the negative one, in (-180, 180]. The position of a dipole becomes that of its
    positive lobe: where a source that moved is now.
    """
    difference, peaks = detections.difference, detections.peaks
    small = peaks["area"] <= MAX_AREA * difference.psf.sigma**2
    tried = np.flatnonzero(peaks["positive"] & peaks["negative"] & small)
    rows["dipoleFitAttempted"][tried] = True
    if not len(tried):
        return
    chosen = peaks[tried]
    start = np.column_stack([chosen[f"{sign}_{c}"] for sign in ("positive", "negative") for c in "xy"]).astype(float)
    middle = 0.5 * (start[:, 0] + start[:, 2]), 0.5 * (start[:, 1] + start[:, 3])
    terms, found = model.terms(*middle), np.empty(0)
    for _ in range(2):       # the second time with priors from where the lobes are, not their peaks
        prior = _prior(detections, science, model, start)
        found = fits.lobes(
            np.ascontiguousarray(difference.image, np.float32), np.ascontiguousarray(difference.variance, np.float32),
            np.ascontiguousarray(difference.mask, np.int32), BAD_PIXELS, detections.labels,
            (tried + 1).astype(np.int32), model.basis, terms, np.ascontiguousarray(start),
            np.ascontiguousarray(prior), model.half + _MARGIN, _ITERATIONS)
        fair = found[:, fits.PAIR_FAILED] == 0
        start = np.where(fair[:, None], found[:, fits.PLUS_X:fits.MINUS_Y + 1], start)
    _fill(rows, tried, found, difference.noise_scale, _snr(detections, model, found))
    dipole = rows["isDipole"][tried] & np.isfinite(found[:, fits.PLUS_XX])
    to = found[dipole]
    centroid.move(rows, tried[dipole], detections, model, to[:, fits.PLUS_X], to[:, fits.PLUS_Y],
                  to[:, fits.PLUS_XX:fits.PLUS_XY + 1])


def _prior(detections: Detections, science: Calibrated, model: PsfModel, start: np.ndarray) -> np.ndarray:
    """(n, 4) lobe fluxes and their errors, from before the subtraction, or else from the lobes' own heights."""
    difference = detections.difference
    out = np.empty_like(start)
    sides = ((science.image, science.variance, science.mask, PsfModel.of(science.psf)),
             (difference.matched, difference.matched_variance, difference.mask, PsfModel.of(difference.matched_psf)))
    for k, (image, variance, mask, psf) in enumerate(sides):
        x, y = start[:, 2 * k], start[:, 2 * k + 1]
        own = force(difference.image, difference.variance, difference.mask, model, x, y)
        seen = force(image, variance, mask, psf, x, y)
        least = np.where(np.isfinite(own.flux), np.abs(own.flux), 1.0) + 1e-3
        error = np.where(np.isfinite(own.error), own.error, least)
        good = np.isfinite(seen.flux) & (seen.flux > 0.7 * least) & ~seen.empty
        flux = np.where(good, seen.flux, 1.5 * least)
        out[:, 2 * k] = flux
        out[:, 2 * k + 1] = np.where(good, LOOSE * flux + error, 10.0 * flux + error)
    return out


def _snr(detections: Detections, model: PsfModel, found: np.ndarray) -> np.ndarray:
    """(n,) S/N of both lobes in quadrature, each against the noise of a single point source."""
    difference = detections.difference
    total = np.zeros(len(found))
    for flux, x, y in ((fits.PLUS, fits.PLUS_X, fits.PLUS_Y), (fits.MINUS, fits.MINUS_X, fits.MINUS_Y)):
        noise = force(difference.image, difference.variance, difference.mask, model, found[:, x], found[:, y],
                      noise_scale=difference.noise_scale).error
        total += np.nan_to_num(found[:, flux] / noise) ** 2
    return np.sqrt(total)


def _fill(rows: np.ndarray, at: np.ndarray, found: np.ndarray, noise_scale: float, snr: np.ndarray) -> None:
    plus, minus = found[:, fits.PLUS], found[:, fits.MINUS]
    dx, dy = found[:, fits.PLUS_X] - found[:, fits.MINUS_X], found[:, fits.PLUS_Y] - found[:, fits.MINUS_Y]
    plain = found[:, fits.PLUS_VARIANCE] + found[:, fits.MINUS_VARIANCE]
    columns = {
        "dipoleMeanFlux": 0.5 * (np.abs(plus) + np.abs(minus)),
        "dipoleMeanFluxErr": 0.5 * np.sqrt(plain + 2 * found[:, fits.COVARIANCE]) * noise_scale,
        "dipoleFluxDiff": plus - minus,
        "dipoleFluxDiffErr": np.sqrt(np.maximum(plain - 2 * found[:, fits.COVARIANCE], 0)) * noise_scale,
        "dipoleLength": np.hypot(dx, dy), "dipoleAngle": np.degrees(np.arctan2(dy, dx)),
        "dipoleChi2": found[:, fits.PAIR_CHI2]}
    for name, values in columns.items():
        rows[name][at] = values
    rows["dipoleNdata"][at] = np.nan_to_num(found[:, fits.PAIR_NDATA]).astype(int)
    share = np.maximum(np.abs(plus), np.abs(minus)) / np.maximum(np.abs(plus) + np.abs(minus), 1e-30)
    faint = np.minimum(np.abs(plus), np.abs(minus))
    rows["isDipole"][at] = ((found[:, fits.PAIR_FAILED] == 0) & (snr > MIN_SNR) & (share < MAX_RATIO)
                            & (faint >= MIN_FLUX) & (plus > 0) & (minus > 0))
