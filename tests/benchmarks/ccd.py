"""A whole CCD as detection finds it: points, dipoles, trails, cosmic rays, a satellite, defects, an uneven sky.

    planes = ccd(1500)
    detections = detect(planes.difference, planes.science, DetectConfig())

The noise is white, its variance follows vignetting and the light of static stars, the PSF is wider at the border.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.images import Calibrated, Calibration, Difference, Template
from pipeline.psf import Psf
from schemas import mask as planes
from schemas.exposure import Visit
from schemas.wcs import Wcs
from tests.pipeline.fields import profile, psf_stamp

SHAPE = (4000, 4072)
SIGMA = 10.0         # noise of a pixel at the centre [nJy]
SIDE = 41            # of a PSF stamp [pixel]
BETA = 3.5


@dataclass(frozen=True, slots=True)
class Ccd:
    difference: Difference
    science: Calibrated
    template: Template
    x: np.ndarray        # (n,) places of the point sources
    y: np.ndarray
    snr: np.ndarray      # (n,) signed


def widths(x: np.ndarray, y: np.ndarray, shape: tuple[int, int], fwhm: float) -> np.ndarray:
    """FWHM at places: 10 % more in the corners than at the centre."""
    u, v = 2 * x / (shape[1] - 1) - 1, 2 * y / (shape[0] - 1) - 1
    return np.asarray(fwhm * (1 + 0.05 * (u * u + v * v)))


def varying_psf(shape: tuple[int, int], fwhm: float) -> Psf:
    """The PSF of those widths, as second-order polynomials."""
    u, v = (g.ravel() for g in np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-1, 1, 7)))
    terms = np.stack([u**(d - q) * v**q for d in range(3) for q in range(d + 1)], axis=1)
    stamps = np.stack([psf_stamp(SIDE, fwhm * (1 + 0.05 * (a * a + b * b)), BETA) for a, b in zip(u, v, strict=True)])
    basis = np.linalg.lstsq(terms, stamps.reshape(len(u), -1), rcond=None)[0]
    return Psf(basis.reshape(-1, SIDE, SIDE), 2, shape)


def draw(image: np.ndarray, x: np.ndarray, y: np.ndarray, flux: np.ndarray, fwhm: float) -> None:
    """Add point sources to an image, in place."""
    half = SIDE // 2 + 4
    for u, v, f, w in zip(x, y, flux, widths(x, y, image.shape, fwhm), strict=True):
        left, low = round(float(u)) - half, round(float(v)) - half
        x0, x1 = max(left, 0), min(left + 2 * half + 1, image.shape[1])
        y0, y1 = max(low, 0), min(low + 2 * half + 1, image.shape[0])
        if x1 > x0 and y1 > y0:
            dx, dy = np.meshgrid(np.arange(x0, x1) - u, np.arange(y0, y1) - v)
            image[y0:y1, x0:x1] += f * profile(dx, dy, w, BETA, 0.0)


def ccd(n_points: int, *, n_dipoles: int = 60, n_trails: int = 30, n_rays: int = 300, n_stars: int = 1500,
        satellite: bool = True, seed: int = 1, shape: tuple[int, int] = SHAPE, fwhm: float = 4.0) -> Ccd:
    """One detector's difference, with the science image and the template that it came from."""
    rng = np.random.default_rng(seed)
    ny, nx = shape
    psf = varying_psf(shape, fwhm)
    error = SIGMA * np.sqrt(psf.effective_area)

    def places(n: int) -> tuple[np.ndarray, np.ndarray]:
        return rng.uniform(0, nx - 1, n), rng.uniform(0, ny - 1, n)

    x, y = places(n_stars)
    static = np.zeros(shape, np.float32)
    draw(static, x, y, error * 10 ** rng.uniform(0.5, 3.5, n_stars), fwhm)
    v, u = np.mgrid[-1:1:ny * 1j, -1:1:nx * 1j].astype(np.float32)
    expected = np.float32(SIGMA**2) * (1 + np.float32(0.15) * (u * u + v * v)) + static / 4      # gain: 4 e- per nJy
    image = rng.standard_normal(shape, np.float32) * np.sqrt(expected)
    variance = (expected * (1 + np.float32(0.02) * rng.standard_normal(shape, np.float32))).astype(np.float32)
    sky = 4 * u - 3 * v * v + 2 * u * v * v
    sky += np.float32(0.4) * np.sin(9 * u) * np.cos(7 * v)
    image += sky.astype(np.float32)
    del u, v, sky, expected
    x, y = places(n_points)
    snr = 10 ** rng.uniform(np.log10(5.0), 2.0, n_points) * np.where(rng.random(n_points) < 0.4, -1, 1)
    draw(image, x, y, snr * error, fwhm)
    p, q = places(n_dipoles)
    angle, flux = rng.uniform(0, 2 * np.pi, n_dipoles), error * 10 ** rng.uniform(1.2, 2.3, n_dipoles)
    dx, dy = 1.2 * np.cos(angle), 1.2 * np.sin(angle)
    draw(image, p + dx, q + dy, flux, fwhm)
    draw(image, p - dx, q - dy, -flux, fwhm)
    draw(static, p - dx, q - dy, flux, fwhm)
    for p0, q0, f, length, angle0 in zip(*places(n_trails), error * rng.uniform(20, 80, n_trails),
                                         rng.uniform(8, 60, n_trails), rng.uniform(0, np.pi, n_trails), strict=True):
        n = int(np.ceil(length / 0.5))
        s = ((np.arange(n) + 0.5) / n - 0.5) * length
        draw(image, p0 + s * np.cos(angle0), q0 + s * np.sin(angle0), np.full(n, f / n), fwhm)
    if satellite:
        s = np.arange(0, nx, 0.5)
        draw(image, s, 0.2 * ny + 0.55 * s, np.full(len(s), 0.5 * 3 * SIGMA * fwhm), fwhm)
    for p0, q0, size, angle0 in zip(*places(n_rays), rng.exponential(8, n_rays) + 1, rng.uniform(0, 7, n_rays),
                                    strict=True):
        s = np.arange(0, min(size, 40), 0.5)
        i = np.clip(np.rint(p0 + s * np.cos(angle0)), 0, nx - 1).astype(int)
        j = np.clip(np.rint(q0 + s * np.sin(angle0)), 0, ny - 1).astype(int)
        image[j, i] += 600.0
    mask = np.zeros(shape, np.int32)
    mask[:8], mask[:, -6:] = planes.NO_DATA, planes.EDGE
    mask[ny // 3:, nx // 4:nx // 4 + 2] = planes.BAD
    for i, j in rng.integers(30, min(shape) - 30, (40, 2)):
        mask[j - 5:j + 6, i - 5:i + 6] |= planes.SAT
        image[j - 5:j + 6, i - 5:i + 6] += 3e4
    image[mask & planes.NO_DATA > 0] = np.nan      # the variance stays finite, as differencing leaves it
    difference = Difference(image, variance, mask, psf, static.copy(), variance * np.float32(0.1), psf, 1.0, 0.0, 50,
                            1.0)
    found = Calibration(31.4, 0.0, SIGMA, 0, 0, 0, 0.0, 0.0, 0.0, 1.0, 0.0)
    wcs = Wcs.tangent(150.0, -30.0, shape)
    visit = Visit(2026010100001, "r", 150.0, -30.0, 0.0, 61000.0, 30.0)
    science = Calibrated(visit, 0, image + static, variance.copy(), mask.copy(), psf, wcs, np.zeros(0), found, 1.0, 1e9)
    template = Template("r", static, variance * np.float32(0.1), mask.copy(), psf, wcs, np.ones(shape, np.int16))
    return Ccd(difference, science, template, x, y, snr)
