"""Science images with their warped templates, everything known, for tests of differencing.

    pair = make(seed=3, template_noise=7.0, new=[(100.0, 120.0, 2000.0)])
    difference = subtract(pair.science, pair.template, DifferenceConfig())
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import correlate1d

from pipeline.images import Calibrated, Calibration, Difference, Template
from pipeline.psf import Psf
from schemas.exposure import Visit
from schemas.mask import SAT
from schemas.measures import STAR, empty
from schemas.wcs import Wcs
from tests.pipeline.fields import draw, psf_stamp

ELECTRONS_PER_NJY = 0.2


@dataclass(frozen=True, slots=True)
class Pair:
    science: Calibrated
    template: Template
    x: np.ndarray            # (n,) stars, on the science image
    y: np.ndarray
    flux: np.ndarray         # in the template


def correlated(rng: np.random.Generator, shape: tuple[int, int], share: float) -> tuple[np.ndarray, np.ndarray]:
    """Noise of unit variance smoothed along both axes by (share, 1 - 2 share, share), and its autocorrelation."""
    noise = rng.standard_normal(shape)
    if share == 0:
        return noise, np.ones((1, 1))
    kernel = np.array([share, 1 - 2 * share, share])
    line = np.convolve(kernel, kernel)
    noise = correlate1d(correlate1d(noise, kernel, 0), kernel, 1) / line.max()
    return noise, np.outer(line, line) / line.max() ** 2


def make(*, seed: int = 1, shape: tuple[int, int] = (384, 384), fwhm: float = 4.5, template_fwhm: float = 3.6,
         beta: float = 3.0, ellipticity: float = 0.05, noise: float = 10.0, template_noise: float = 3.0,
         stars: int = 60, magnitudes: float = 2.0, brightest: float = 1.2e5, scale: float = 1.0,
         shift: tuple[float, float] = (0.0, 0.0), jitter: float = 0.0,
         new: Sequence[tuple[float, float, float]] = (), vary: Sequence[float] = (), smooth: float = 0.0,
         saturation: float = np.inf, sky: float = 0.0) -> Pair:
    """A pair of images; the PSF models are exact.

    `scale` multiplies the template's fluxes, `shift` and the rms `jitter` [pixel] move its stars; `new` are (x, y,
    flux) on the science image alone; the brightest stars change by the factors `vary`; `smooth` correlates the noise
    of the science image. Stars are brighter than `brightest` / 10^magnitudes.
    """
    rng = np.random.default_rng([seed, 5])
    x, y = rng.uniform(5, shape[1] - 6, stars), rng.uniform(5, shape[0] - 6, stars)
    flux = np.sort(brightest * 10.0 ** -rng.uniform(0, magnitudes, stars))[::-1]
    factor = np.ones(stars)
    factor[:len(vary)] = vary
    added = np.array(new, float).reshape(-1, 3)
    ours = draw(shape, np.r_[x, added[:, 0]], np.r_[y, added[:, 1]], np.r_[flux * factor, added[:, 2]], fwhm, beta,
                ellipticity)
    moved = rng.normal(0, jitter, (2, stars)) if jitter else np.zeros((2, stars))
    theirs = draw(shape, x + shift[0] + moved[0], y + shift[1] + moved[1], flux * scale, template_fwhm, beta)
    variance = noise**2 + ours / ELECTRONS_PER_NJY
    template_variance = template_noise**2 + theirs / ELECTRONS_PER_NJY * (template_noise / noise) ** 2
    grain, acf = correlated(rng, shape, smooth)
    image = ours + sky + np.sqrt(variance) * grain
    other = theirs + np.sqrt(template_variance) * rng.standard_normal(shape)
    rows = empty(STAR, stars)
    rows["x"], rows["y"], rows["flux"], rows["extended"] = x, y, flux * factor, False
    rows["fluxErr"] = np.sqrt(noise**2 * 20.0 * (fwhm / 4.0) ** 2 + flux / ELECTRONS_PER_NJY)
    rows["snr"] = rows["flux"] / rows["fluxErr"]
    wcs = Wcs.tangent(150.0, -30.0, shape)
    visit = Visit(2026010100001, "r", 150.0, -30.0, 0.0, 61041.1, 30.0)
    facts = Calibration(31.4, 0.0, noise, stars, stars, 0, 0.0, 0.0, 0.0, 1.0, float(acf[0, acf.shape[0] // 2]))
    psfs = [Psf.constant(psf_stamp(41, w, beta, e), shape) for w, e in ((fwhm, ellipticity), (template_fwhm, 0.0))]
    planes = [np.where(light >= saturation, SAT, 0).astype(np.int32) for light in (ours, theirs)]
    science = Calibrated(visit, 0, np.minimum(image, saturation).astype(np.float32), variance.astype(np.float32),
                         planes[0], psfs[0], wcs, rows, facts, ELECTRONS_PER_NJY, saturation, acf)
    template = Template("r", np.minimum(other, saturation).astype(np.float32), template_variance.astype(np.float32),
                        planes[1], psfs[1], wcs, np.full(shape, 10, np.int16))
    return Pair(science, template, x, y, flux)


def forced(difference: Difference, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PSF fluxes and their errors at positions, which must be whole pixels."""
    half = difference.psf.width // 2
    flux, error = np.zeros(len(x)), np.zeros(len(x))
    for k, (i, j) in enumerate(zip(np.asarray(x, int), np.asarray(y, int), strict=True)):
        stamp = difference.psf.at(float(i), float(j))
        here = np.s_[j - half:j + half + 1, i - half:i + half + 1]
        norm = (stamp**2).sum()
        flux[k] = (stamp * difference.image[here]).sum() / norm
        error[k] = np.sqrt((stamp**2 * difference.variance[here]).sum()) / norm
    return flux, error


def grid(shape: tuple[int, int], step: int, margin: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Whole-pixel positions on a grid."""
    x, y = np.meshgrid(np.arange(margin, shape[1] - margin, step), np.arange(margin, shape[0] - margin, step))
    return x.ravel().astype(float), y.ravel().astype(float)


def far_from_stars(pair: Pair, x: np.ndarray, y: np.ndarray, distance: float = 18.0) -> np.ndarray:
    """Which positions have no star within a distance [pixel]."""
    return np.asarray(np.hypot(x[:, None] - pair.x, y[:, None] - pair.y).min(axis=1) > distance)
