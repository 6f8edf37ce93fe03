"""Star fields with everything known: a PSF, a WCS, noise and references, for tests of the pixel half.

    field = make(seed=1, shape=(512, 512), fwhm=4.0)
    calibrated = calibrate(field.exposure, field.references, CalibrateConfig(), given_zeropoint=31.4)

    exact = known(field)       # the same, calibrated with the truth

Nothing here comes from the simulators: these are analytic profiles on a grid, with Poisson and read noise.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy.special import j0

from pipeline.images import Calibrated, Calibration
from pipeline.psf import Psf
from schemas.exposure import Exposure, Visit, fluxes_njy
from schemas.mask import SAT
from schemas.measures import REFERENCE, STAR, empty
from schemas.wcs import ARCSEC, Wcs

KOLMOGOROV = 0.0      # for beta: a Kolmogorov profile
GAIN, READ_NOISE, SATURATION = 1.6, 6.0, 60000.0


@dataclass(frozen=True, slots=True)
class Field:
    """An exposure and the truth about it."""

    exposure: Exposure
    references: np.ndarray     # REFERENCE
    wcs: Wcs                   # true
    x: np.ndarray              # (n,) true positions of the stars on this exposure [pixel]
    y: np.ndarray
    flux: np.ndarray           # (n,) [nJy]
    zeropoint: float
    sky: float                 # [ADU]
    fwhm: float                # [pixel]
    beta: float                # Moffat; inf is a Gaussian, KOLMOGOROV one
    ellipticity: float
    angle: float               # of the major axis, from +x towards +y [deg]
    noiseless: np.ndarray      # (ny, nx) [ADU], sky included


@cache
def _kolmogorov() -> tuple[np.ndarray, np.ndarray]:
    """Radii and values of a Kolmogorov PSF of unit FWHM and flux: the Hankel transform of its structure function."""
    k = np.linspace(0, 24, 20_000)
    transform = np.exp(-3.44 * (k / (2 * np.pi * 0.9759)) ** (5 / 3))      # FWHM = 0.9759 lambda / r0 (Fried 1966)
    r = np.concatenate([np.linspace(0, 6, 1201), np.geomspace(6.01, 60, 200)])
    near = r <= 8
    values = np.array([np.trapezoid(transform * j0(k * a) * k, k) for a in r[near]]) / (2 * np.pi)
    far = values[-1] * (r[~near] / r[near][-1]) ** (-11 / 3)
    return r, np.concatenate([values, far])


def profile(dx: np.ndarray, dy: np.ndarray, fwhm: float, beta: float = 3.0, ellipticity: float = 0.0,
            angle: float = 0.0) -> np.ndarray:
    """An elliptical Moffat (inf: Gaussian; KOLMOGOROV) of unit flux; the ratio of its axes is 1 - ellipticity."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    q = 1.0 - ellipticity
    r2 = (dx * c + dy * s) ** 2 * q + (dy * c - dx * s) ** 2 / q
    if beta == KOLMOGOROV:
        at, values = _kolmogorov()
        return np.asarray(np.interp(np.sqrt(r2) / fwhm, at, values) / fwhm**2)
    if np.isinf(beta):
        sigma = fwhm / np.sqrt(8 * np.log(2))
        return np.asarray(np.exp(-0.5 * r2 / sigma**2) / (2 * np.pi * sigma**2))
    alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
    return np.asarray((beta - 1) / (np.pi * alpha2) * (1 + r2 / alpha2) ** -beta)


def psf_stamp(side: int, fwhm: float, beta: float = 3.0, ellipticity: float = 0.0, angle: float = 0.0,
              dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """(side, side) profile of unit sum centred on the middle pixel, moved by (dx, dy)."""
    k = np.arange(side) - side // 2
    stamp = profile(k[None, :] - dx, k[:, None] - dy, fwhm, beta, ellipticity, angle)
    return np.asarray(stamp / stamp.sum())


def draw(shape: tuple[int, int], x: np.ndarray, y: np.ndarray, flux: np.ndarray, fwhm: np.ndarray | float,
         beta: float = 3.0, ellipticity: float = 0.0, angle: float = 0.0, half: int = 60) -> np.ndarray:
    """(ny, nx) float64 image of stars at positions [pixel]; `fwhm` may differ from star to star."""
    image = np.zeros(shape)
    for xs, ys, f, w in zip(x, y, flux, np.broadcast_to(fwhm, np.shape(x)), strict=True):
        i, j = round(float(xs)), round(float(ys))
        x0, x1, y0, y1 = max(i - half, 0), min(i + half + 1, shape[1]), max(j - half, 0), min(j + half + 1, shape[0])
        if x0 < x1 and y0 < y1:
            dx, dy = np.arange(x0, x1)[None, :] - xs, np.arange(y0, y1)[:, None] - ys
            image[y0:y1, x0:x1] += f * profile(dx, dy, w, beta, ellipticity, angle)
    return image


def wrong(wcs: Wcs, arcsec: float, degrees: float, *, direction: float = 30.0) -> Wcs:
    """The WCS of a pointing that is off by `arcsec` towards `direction` (East of North) and turned by `degrees`."""
    a = np.radians(direction)
    ra = wcs.crval[0] + arcsec * ARCSEC * np.sin(a) / np.cos(np.radians(wcs.crval[1]))
    dec = wcs.crval[1] + arcsec * ARCSEC * np.cos(a)
    t = np.radians(degrees)
    turn = np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]])
    cd = turn @ np.reshape(wcs.cd, (2, 2))
    return replace(wcs, crval=(ra, dec), cd=tuple(float(v) for v in cd.ravel()))


def make(*, seed: int = 1, shape: tuple[int, int] = (512, 512), density: float = 600.0, fwhm: float = 4.0,
         beta: float = 3.0, ellipticity: float = 0.05, angle: float = 30.0, fwhm_slope: float = 0.0,
         zeropoint: float = 31.8, sky: float = 1200.0, magnitudes: tuple[float, float] = (17.0, 24.5),
         wcs: Wcs | None = None, rotation: float = 0.0, pointing_arcsec: float = 3.0, pointing_deg: float = 0.05,
         band: str = "r", visit: int = 2026010100001, detector: int = 0, mjd_tai: float = 61041.1,
         reference_limit: float = 22.0, pedestal: float = 0.0, sky_seed: int = 7,
         center: tuple[float, float] = (150.0, -30.0)) -> Field:
    """A field of stars: `density` per 10^6 px, counts rising as 10^(0.25 mag), the same sky for one `sky_seed`.

    `seed` draws the noise alone. `fwhm_slope` is the relative change of FWHM from the left border to the right.
    The pointing WCS is wrong by `pointing_arcsec` and `pointing_deg`.
    """
    truth = wcs if wcs is not None else Wcs.tangent(*center, shape, rotation=rotation)
    stars = np.random.default_rng(sky_seed)
    side = 1.6 * max(shape)
    n = stars.poisson(density * side**2 / 1e6)
    u = stars.uniform(size=n)
    lo, hi = 10 ** (0.25 * magnitudes[0]), 10 ** (0.25 * magnitudes[1])
    flux = fluxes_njy(np.log10(lo + u * (hi - lo)) / 0.25)
    grid = Wcs.tangent(*center, (int(side), int(side)))
    ra, dec = grid.sky(stars.uniform(0, side, n), stars.uniform(0, side, n))
    x, y = truth.pixels(ra, dec)
    near = (x > -60) & (x < shape[1] + 60) & (y > -60) & (y < shape[0] + 60)
    widths = fwhm * (1 + fwhm_slope * (x / (shape[1] - 1) - 0.5))
    per_adu = 10 ** (0.4 * (31.4 - zeropoint))
    noiseless = sky + draw(shape, x[near], y[near], flux[near] / per_adu, widths[near], beta, ellipticity, angle)
    noise = np.random.default_rng([seed, 1])
    image = (noise.poisson(np.maximum(noiseless, 0) * GAIN) + noise.normal(0, READ_NOISE, shape)) / GAIN
    saturated = image >= SATURATION
    image = np.where(saturated, SATURATION, image).astype(np.float32)
    reference = empty(REFERENCE, n)
    reference["refId"], reference["ra"], reference["dec"] = np.arange(n), ra, dec
    reference["raErr"] = reference["decErr"] = 0.005
    reference[f"{band}_flux"], reference[f"{band}_fluxErr"] = flux, 0.005 * flux
    reference = reference[flux > fluxes_njy(reference_limit)]
    inside = (x > -0.5) & (x < shape[1] - 0.5) & (y > -0.5) & (y < shape[0] - 0.5)
    at = truth.sky((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    observed = Visit(visit, band, float(at[0]), float(at[1]), rotation, mjd_tai, 30.0)
    exposure = Exposure(observed, detector, (image - (0.0 if np.isnan(pedestal) else pedestal)).astype(np.float32),
                        np.where(saturated, SAT, 0).astype(np.int32), wrong(truth, pointing_arcsec, pointing_deg), GAIN,
                        READ_NOISE, SATURATION, pedestal=pedestal)
    return Field(exposure, reference, truth, x[inside], y[inside], flux[inside], zeropoint, sky, fwhm, beta,
                 ellipticity, angle, noiseless)


def known(field: Field, *, acf: np.ndarray | None = None) -> Calibrated:
    """The field calibrated with the truth: no estimate of any kind in it (for `fwhm_slope` 0)."""
    e = field.exposure
    njy = 10 ** (0.4 * (31.4 - field.zeropoint))
    variance = field.noiseless / GAIN + (READ_NOISE / GAIN) ** 2
    side = int(np.clip(2 * round(5 * field.fwhm) + 1, 31, 51))
    psf = Psf.constant(psf_stamp(side, field.fwhm, field.beta, field.ellipticity, field.angle), e.shape)
    calibration = Calibration(field.zeropoint, field.sky, float(np.sqrt(np.median(variance))), len(field.x), 0,
                              len(field.x), 0.0, 0.0, 0.0, 1.0, 0.0)
    stars = np.zeros(len(field.x), STAR)
    stars["x"], stars["y"], stars["flux"] = field.x, field.y, field.flux
    stars["fluxErr"] = np.sqrt(psf.effective_area * field.sky / GAIN) * njy
    stars["snr"], stars["refId"] = stars["flux"] / stars["fluxErr"], -1
    level = field.sky - (0.0 if np.isnan(e.pedestal) else e.pedestal)
    return Calibrated(e.visit, e.detector, ((e.image - level) * njy).astype(np.float32),
                      (variance * njy**2).astype(np.float32), e.mask, psf, field.wcs, stars, calibration,
                      GAIN / njy, (SATURATION - field.sky) * njy, np.ones((1, 1)) if acf is None else acf)
