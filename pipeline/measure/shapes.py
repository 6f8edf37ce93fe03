"""Shapes: adaptive second moments of source and PSF, extendedness, aperture flux."""

from typing import Final

import numpy as np
import sep

from pipeline.images import Detections
from pipeline.kernels import moments
from pipeline.measure.flux import BAD_PIXELS, NO_LABELS
from pipeline.psf import Psf

APERTURE: Final = 12.0       # [pixel] radius (base_CircularApertureFlux_12_0)
_ITERATIONS: Final = 100


def shape(rows: np.ndarray, detections: Detections) -> None:
    """Fill moments of sources and of the PSF, and extendedness, in place; NaN and shape_flag where they fail."""
    difference = detections.difference
    usable = ((difference.mask & BAD_PIXELS) == 0) & np.isfinite(difference.image)
    x, y = np.array(rows["x"]), np.array(rows["y"])
    sign = np.where(rows["psfFlux"] < 0, -1.0, 1.0)
    start = np.full(len(rows), difference.psf.sigma)
    label = np.where(rows["sky_source"], 0, np.arange(len(rows)) + 1).astype(np.int32)
    found = moments.adaptive(np.ascontiguousarray(difference.image, np.float32), usable, detections.labels, label,
                             x, y, sign, start, _ITERATIONS)
    psf = psf_moments(difference.psf, x, y)
    for i, name in enumerate(("ixx", "iyy", "ixy")):
        rows[name], rows[f"{name}PSF"] = found[:, i], psf[:, i]
    rows["shape_flag"] = found[:, 3] > 0
    rows["shape_flag_not_contained"] = found[:, 4] > 0
    rows["shape_flag_no_pixels"] = rows["psfFlux_flag_noGoodPixels"]
    # 0 for a point source, towards 1 for one much larger than the PSF
    rows["extendedness"] = np.clip(1.0 - (psf[:, 0] + psf[:, 1]) / (found[:, 0] + found[:, 1]), 0.0, 1.0)


def psf_moments(psf: Psf, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, 3) adaptive moments Ixx, Iyy, Ixy of the PSF at positions [pixel^2]."""
    nx, ny = psf.shape[1], psf.shape[0]
    if psf.order == 0:
        x, y, repeat = np.zeros(min(len(x), 1)), np.zeros(min(len(x), 1)), len(x)
    else:
        repeat = 1
    stamps = psf.stamps(np.clip(np.nan_to_num(x), 0, nx - 1), np.clip(np.nan_to_num(y), 0, ny - 1))
    n, m = stamps.shape[0], psf.width
    strip = np.ascontiguousarray(stamps.reshape(n * m, m), np.float32)       # one above the other, each its own label
    labels = np.repeat(np.arange(n, dtype=np.int32) + 1, m)[:, None] * np.ones((1, m), np.int32)
    middle = np.full(n, float(m // 2))
    found = moments.adaptive(strip, np.ones(strip.shape, bool), labels if n else NO_LABELS,
                             np.arange(n, dtype=np.int32) + 1, middle, middle + m * np.arange(n), np.ones(n),
                             np.full(n, psf.sigma), _ITERATIONS)
    return np.asarray(np.repeat(found[:, :3], repeat, axis=0))


def aperture(rows: np.ndarray, detections: Detections) -> None:
    """Fill the flux in a circle of `APERTURE` pixels, in place; unusable pixels count 0 and set the truncated flag."""
    difference = detections.difference
    bad = ((difference.mask & BAD_PIXELS) != 0) | ~np.isfinite(difference.image)
    ny, nx = difference.image.shape
    on = ~rows["pixelFlags_offimage"]
    x, y = np.where(on, rows["x"], 0.0), np.where(on, rows["y"], 0.0)
    image = np.where(bad, np.float32(0), difference.image)
    variance = np.where(bad | ~np.isfinite(difference.variance), np.float32(0), difference.variance)
    flux, error, _ = sep.sum_circle(image, x, y, APERTURE, var=variance, subpix=5)
    lost = sep.sum_circle(bad.astype(np.float32), x, y, APERTURE, subpix=5)[0]
    off = (x < APERTURE) | (y < APERTURE) | (x > nx - 1 - APERTURE) | (y > ny - 1 - APERTURE)
    rows["apFlux"] = np.where(on, flux, np.nan)
    rows["apFluxErr"] = np.where(on, error * difference.noise_scale, np.nan)
    rows["apFlux_flag_apertureTruncated"] = off | (lost > 0)
    rows["apFlux_flag"] = ~on | off
