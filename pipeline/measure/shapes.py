"""Shapes: adaptive second moments of source and PSF, extendedness, aperture flux."""

from typing import Final

import numpy as np

from pipeline.images import Detections
from pipeline.kernels import footprints, moments
from pipeline.measure.flux import BAD_PIXELS, NO_LABELS
from pipeline.psf import Psf

APERTURE: Final = 12.0       # [pixel] radius (base_CircularApertureFlux_12_0)
_ITERATIONS: Final = 100
_AT_ONCE: Final = 256        # stamps of the PSF held at once
_PARTS: Final = 5            # a pixel on the rim of an aperture is divided in so many rows and columns


def shape(rows: np.ndarray, detections: Detections) -> None:
    """Fill moments of sources and of the PSF, and extendedness, in place; NaN and shape_flag where they fail."""
    difference = detections.difference
    x, y = np.array(rows["x"]), np.array(rows["y"])
    sign = np.where(rows["psfFlux"] < 0, -1.0, 1.0)
    start = np.full(len(rows), difference.psf.sigma)
    label = np.where(rows["sky_source"], 0, np.arange(len(rows)) + 1).astype(np.int32)
    found = moments.adaptive(np.ascontiguousarray(difference.image, np.float32),
                             np.ascontiguousarray(difference.mask, np.int32), BAD_PIXELS, detections.labels, label,
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
    if psf.order == 0:
        one = _stamp_moments(psf, np.zeros(min(len(x), 1)), np.zeros(min(len(x), 1)))
        return np.repeat(one, len(x), axis=0)
    nx, ny = psf.shape[1], psf.shape[0]
    x, y = np.clip(np.nan_to_num(x), 0, nx - 1), np.clip(np.nan_to_num(y), 0, ny - 1)
    parts = [_stamp_moments(psf, x[i:i + _AT_ONCE], y[i:i + _AT_ONCE]) for i in range(0, len(x), _AT_ONCE)]
    return np.concatenate([np.empty((0, 3)), *parts])


def _stamp_moments(psf: Psf, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    stamps = psf.stamps(x, y)
    n, m = stamps.shape[0], psf.width
    strip = np.ascontiguousarray(stamps.reshape(n * m, m), np.float32)       # one above the other, each its own label
    labels = np.repeat(np.arange(n, dtype=np.int32) + 1, m)[:, None] * np.ones((1, m), np.int32)
    middle = np.full(n, float(m // 2))
    found = moments.adaptive(strip, np.zeros(strip.shape, np.int32), 0, labels if n else NO_LABELS,
                             np.arange(n, dtype=np.int32) + 1, middle, middle + m * np.arange(n), np.ones(n),
                             np.full(n, psf.sigma), _ITERATIONS)
    return np.asarray(found[:, :3])


def aperture(rows: np.ndarray, detections: Detections) -> None:
    """Fill the flux in a circle of `APERTURE` pixels, in place; unusable pixels count 0 and set the truncated flag."""
    difference = detections.difference
    ny, nx = difference.image.shape
    on = ~rows["pixelFlags_offimage"]
    x, y = np.where(on, rows["x"], 0.0), np.where(on, rows["y"], 0.0)
    flux, squared_error, lost = footprints.circles(
        np.ascontiguousarray(difference.image, np.float32), np.ascontiguousarray(difference.variance, np.float32),
        np.ascontiguousarray(difference.mask, np.int32), BAD_PIXELS, x, y, APERTURE, _PARTS).T
    off = (x < APERTURE) | (y < APERTURE) | (x > nx - 1 - APERTURE) | (y > ny - 1 - APERTURE)
    rows["apFlux"] = np.where(on, flux, np.nan)
    rows["apFluxErr"] = np.where(on, np.sqrt(squared_error) * difference.noise_scale, np.nan)
    rows["apFlux_flag_apertureTruncated"] = off | (lost > 0)
    rows["apFlux_flag"] = ~on | off
