"""Source injection: known sources drawn into a calibrated exposure with its own PSF, and their noise with them.

Sources enter after calibration, as in Rubin's source_injection; an injected run never reaches a production stream. The
plan places them on a jittered grid, so that no two blend and the field is sampled evenly.
"""

import dataclasses

import numpy as np
from scipy import fft

from pipeline.errors import InputError
from pipeline.images import Calibrated, Template
from pipeline.psf import Psf
from schemas import mask as planes
from schemas.measures import INJECTION, TRUTH, empty

CORE_RADIUS_PX = 3     # INJECTED_CORE: the PSF's core (the real system marks 3x3 px about the centre)


def plan(calibrated: Calibrated, n: int, rng: np.random.Generator, *, spacing_px: float = 60.0,
         border_px: float = 20.0, snr: tuple[float, float] = (5.0, 30.0),
         flux_err: float | None = None) -> np.ndarray:
    """INJECTION rows of `n` sources on a jittered grid, their S/N uniform in `snr`.

    The grid's step is at least `spacing_px`; each source is moved from its node by up to a tenth of the step, so that
    neighbours stay apart. `flux_err` [nJy] turns S/N into flux; without it the science image's own PSF flux error.

    Raises InputError where the image cannot hold `n` sources at this spacing.
    """
    ny, nx = calibrated.shape
    columns = max(int((nx - 2 * border_px) // spacing_px), 0)
    rows = max(int((ny - 2 * border_px) // spacing_px), 0)
    if columns * rows < n:
        raise InputError(f"{n} injections {spacing_px:g} px apart do not fit {nx} x {ny} px "
                         f"(room for {columns * rows})")
    step_x, step_y = (nx - 2 * border_px) / columns, (ny - 2 * border_px) / rows
    nodes = rng.permutation(columns * rows)[:n]
    jitter = rng.uniform(-0.1, 0.1, (2, n))
    x = border_px + (nodes % columns + 0.5 + jitter[0]) * step_x
    y = border_px + (nodes // columns + 0.5 + jitter[1]) * step_y
    if flux_err is None:
        good = calibrated.mask & planes.UNUSABLE == 0
        flux_err = float(np.sqrt(np.median(calibrated.variance[good]) * calibrated.psf.effective_area))
    return at_pixels(calibrated, x, y, rng.uniform(*snr, n) * flux_err)


def at_pixels(calibrated: Calibrated, x: np.ndarray, y: np.ndarray, flux_njy: np.ndarray) -> np.ndarray:
    """INJECTION rows of point sources at pixel positions."""
    out = empty(INJECTION, len(x))
    out["injectionId"] = np.arange(1, len(x) + 1)
    out["visit"], out["detector"] = calibrated.visit.visit, calibrated.detector
    out["x"], out["y"] = x, y
    out["ra"], out["dec"] = calibrated.wcs.sky(x, y)
    out["flux"], out["kind"] = flux_njy, b"injected"
    out["trail_length"], out["trail_angle"], out["template"] = 0.0, 0.0, False
    return out


def inject(calibrated: Calibrated, injections: np.ndarray, noise: np.random.Generator | None) -> Calibrated:
    """The exposure with sources added: image, their photon noise (where `noise` is given), variance and mask.

    Parameters
    ----------
    injections : INJECTION
        Sky positions and fluxes [nJy]; rows whose sky position is off the image change nothing. A `trail_length`
        [pixel] draws the PSF along a line.
    """
    image, variance = calibrated.image.astype(float), calibrated.variance.astype(float)
    mask = calibrated.mask.copy()
    x, y = calibrated.wcs.pixels(injections["ra"], injections["dec"])
    for row, px, py in zip(injections, x, y, strict=True):
        if not (np.isfinite(px) and np.isfinite(py)):
            continue
        stamp, x0, y0 = draw(calibrated.psf, px, py, row["trail_length"], row["trail_angle"])
        there, part = _overlap(calibrated.shape, x0, y0, stamp.shape)
        if there is None:
            continue
        light = row["flux"] * stamp[part]
        electrons = np.maximum(light, 0.0) * calibrated.gain_njy
        if noise is not None:
            image[there] += noise.poisson(electrons) / calibrated.gain_njy + np.minimum(light, 0.0)
        else:
            image[there] += light
        variance[there] += electrons / calibrated.gain_njy**2
        mask[there] |= planes.INJECTED
        yy, xx = np.ogrid[there]
        near = np.hypot(xx - px, yy - py) <= CORE_RADIUS_PX
        mask[there] |= np.where(near, planes.INJECTED_CORE, 0)
    return dataclasses.replace(calibrated, image=image.astype(np.float32), variance=variance.astype(np.float32),
                               mask=mask)


def draw(psf: Psf, x: float, y: float, length: float = 0.0, angle_deg: float = 0.0) -> tuple[np.ndarray, int, int]:
    """A unit source at (x, y): its stamp and the pixel of the stamp's first element.

    The centred PSF is moved by a fraction of a pixel in Fourier space; a trail is the mean of PSFs along its line.
    """
    base = psf.at(x, y)
    pad = 4 + int(np.ceil(max(length, 0.0) / 2))
    n = psf.width + 2 * pad
    frame = np.zeros((n, n))
    frame[pad:-pad, pad:-pad] = base
    x0, y0 = int(np.floor(x + 0.5)) - n // 2, int(np.floor(y + 0.5)) - n // 2
    steps = np.linspace(-0.5, 0.5, 1 if length <= 0 else 2 * int(np.ceil(length)) + 1)
    angle = np.radians(angle_deg)
    dx = x - (x0 + n // 2) + steps * max(length, 0.0) * np.cos(angle)
    dy = y - (y0 + n // 2) + steps * max(length, 0.0) * np.sin(angle)
    ky, kx = fft.fftfreq(n)[:, None], fft.rfftfreq(n)[None, :]
    weights = np.ones(len(steps)) if len(steps) == 1 else _trapezoid(len(steps))
    phase = sum(w * np.exp(-2j * np.pi * (kx * a + ky * b)) for w, a, b in zip(weights, dx, dy, strict=True))
    return np.asarray(fft.irfft2(fft.rfft2(frame) * phase / weights.sum(), (n, n))), x0, y0


def _trapezoid(n: int) -> np.ndarray:
    weights = np.ones(n)
    weights[[0, -1]] = 0.5
    return weights


def _overlap(shape: tuple[int, int], x0: int, y0: int, size: tuple[int, ...]
             ) -> tuple[tuple[slice, slice] | None, tuple[slice, slice]]:
    top, left = max(y0, 0), max(x0, 0)
    bottom, right = min(y0 + size[0], shape[0]), min(x0 + size[1], shape[1])
    part = slice(top - y0, bottom - y0), slice(left - x0, right - x0)
    if top >= bottom or left >= right:
        return None, part
    return (slice(top, bottom), slice(left, right)), part


def optimum_flux_error(science_psf: np.ndarray, science_variance: float, template_psf: np.ndarray,
                       template_variance: float, science_acf: np.ndarray | None = None,
                       template_acf: np.ndarray | None = None) -> float:
    """The smallest flux error that any differencing can reach, with the noise of both images.

    For white or correlated stationary noise of power spectra Vs and Vt: err^-2 = mean over k of
    |Ps Pt|^2 / (Vs |Pt|^2 + Vt |Ps|^2) (Zackay, Ofek & Gal-Yam 2016, equation 12 and on).

    Parameters
    ----------
    science_psf, template_psf : (m, m) unit-sum stamps
    science_variance, template_variance : variance per pixel [nJy^2]
    science_acf, template_acf : (2k+1, 2k+1) noise autocorrelations, 1 at the centre; None for white
    """
    n = fft.next_fast_len(2 * max(science_psf.shape[0], template_psf.shape[0]))
    ps, pt = (np.abs(fft.fft2(p, (n, n))) ** 2 for p in (science_psf, template_psf))
    vs, vt = science_variance * _spectrum(science_acf, n), template_variance * _spectrum(template_acf, n)
    signal, noise = ps * pt, vs * pt + vt * ps
    floor = 1e-12 * noise.max()
    return float(1.0 / np.sqrt(np.mean(np.where(noise > floor, signal / np.maximum(noise, floor), 0.0)) * 1.0))


def _spectrum(acf: np.ndarray | None, n: int) -> np.ndarray:
    if acf is None or acf.size == 1:
        return np.ones((n, n))
    k = acf.shape[0] // 2
    frame = np.zeros((n, n))
    frame[:acf.shape[0], :acf.shape[1]] = acf
    return np.asarray(np.maximum(fft.fft2(np.roll(frame, (-k, -k), (0, 1))).real, 1e-3))


def truth_of(injections: np.ndarray, calibrated: Calibrated, template: Template) -> np.ndarray:
    """TRUTH rows of injected sources: position, flux, and S/N over the optimum error at their place.

    `template` is on the science grid. Estimates stand in for the truth here: PSFs and noise are the pipeline's own.
    """
    rows = empty(TRUTH, len(injections))
    for name in ("visit", "detector", "ra", "dec", "x", "y", "flux", "trail_length", "trail_angle"):
        rows[name] = injections[name]
    rows["truthId"], rows["kind"] = injections["injectionId"], b"injected"
    rows["science_flux"], rows["template_flux"], rows["isolated"] = injections["flux"], 0.0, True
    rows["input_mask"], rows["mask_at"], rows["separation_px"] = 0, 0, 0.0
    ny, nx = calibrated.shape
    for row in rows:
        i, j = int(np.clip(np.rint(row["y"]), 0, ny - 1)), int(np.clip(np.rint(row["x"]), 0, nx - 1))
        box = slice(max(i - 3, 0), i + 4), slice(max(j - 3, 0), j + 4)
        row["flux_err_optimum"] = optimum_flux_error(
            calibrated.psf.at(row["x"], row["y"]), float(np.median(calibrated.variance[box])),
            template.psf.at(row["x"], row["y"]), float(np.median(template.variance[box])),
            calibrated.noise_acf, template.noise_acf)
        row["input_mask"] = int(np.bitwise_or.reduce((calibrated.mask | template.mask)[i, j:j + 1]) & planes.INPUT)
    rows["snr"] = np.abs(rows["flux"]) / rows["flux_err_optimum"]
    return rows
