"""Centroids: the position and flux of a point source, fitted together on the difference."""

from typing import Final

import numpy as np

from pipeline.images import Detections
from pipeline.kernels import fits
from pipeline.measure.flux import BAD_PIXELS, PsfModel

MAX_DISTANCE: Final = 5.0     # [pixel] a centroid farther from its peak has failed (SdssCentroid maxDistToPeak)
ITERATIONS: Final = 30
_ALL: Final = slice(None)


def centre(rows: np.ndarray, detections: Detections, model: PsfModel) -> None:
    """Fill positions, PSF fluxes and their fit's quality in MEASUREMENT rows, in place.

    Pixels in the footprint of another source take no part. A fit that fails leaves the peak and sets centroid_flag;
    a sky source stays where it is.
    """
    difference, peaks = detections.difference, detections.peaks
    x, y = refined(detections.significance, peaks["x"], peaks["y"])
    labels = (np.arange(len(rows)) + 1).astype(np.int32)
    sky = peaks["sky_source"]
    x, y, labels = np.where(sky, peaks["x"], x), np.where(sky, peaks["y"], y), np.where(sky, 0, labels).astype(np.int32)
    planes = (np.ascontiguousarray(difference.image, np.float32), np.ascontiguousarray(difference.variance, np.float32),
              np.ascontiguousarray(difference.mask, np.int32), BAD_PIXELS, detections.labels)
    found = np.empty((len(rows), 13))
    for chosen, iterations in ((~sky, ITERATIONS), (sky, 0)):
        at = x[chosen], y[chosen]
        found[chosen] = fits.points(*planes, labels[chosen], model.basis, model.terms(*at), *at, model.half, iterations,
                                    MAX_DISTANCE)
    fill(rows, found, difference.noise_scale)


def fill(rows: np.ndarray, found: np.ndarray, noise_scale: float, at: np.ndarray | slice = _ALL) -> None:
    """Put the kernel's numbers into MEASUREMENT columns of the rows `at`, in place."""
    rows["x"][at], rows["y"][at] = found[:, fits.X], found[:, fits.Y]
    for name, column in (("xErr", fits.XX), ("yErr", fits.YY)):     # a fit may end where its curvature is not positive
        rows[name][at] = np.sqrt(np.where(found[:, column] >= 0, found[:, column], np.nan)) * noise_scale
    rows["x_y_Cov"][at] = found[:, fits.XY] * noise_scale**2
    rows["centroid_flag"][at] = found[:, fits.FAILED] > 0
    rows["psfFlux"][at] = found[:, fits.FLUX]
    rows["psfFluxErr"][at] = np.sqrt(found[:, fits.FLUX_VARIANCE]) * noise_scale
    rows["psfChi2"][at], rows["psfLnL"][at] = found[:, fits.CHI2], found[:, fits.LNL]
    rows["psfNdata"][at] = found[:, fits.NDATA].astype(int)
    rows["psfFlux_flag_edge"][at] = found[:, fits.CUT] > 0
    rows["psfFlux_flag_noGoodPixels"][at] = found[:, fits.COVERED] == 0
    rows["psfFlux_flag"][at] = ~np.isfinite(found[:, fits.FLUX]) | (found[:, fits.COVERED] < 0.5)


def move(rows: np.ndarray, at: np.ndarray, detections: Detections, model: PsfModel, x: np.ndarray, y: np.ndarray,
         covariance: np.ndarray) -> None:
    """Put the rows `at` on (x, y) with (n, 3) variances of x, y and covariance, and the PSF flux there, in place."""
    difference = detections.difference
    x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
    found = fits.points(
        np.ascontiguousarray(difference.image, np.float32), np.ascontiguousarray(difference.variance, np.float32),
        np.ascontiguousarray(difference.mask, np.int32), BAD_PIXELS, detections.labels, (at + 1).astype(np.int32),
        model.basis, model.terms(x, y), x, y, model.half, 0, 0.0)
    found[:, fits.XX:fits.XY + 1] = covariance
    fill(rows, found, difference.noise_scale, at)


def refined(significance: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Peak pixels moved to the top of the parabola through their neighbours, by at most half a pixel."""
    ny, nx = significance.shape
    cx, cy = np.clip(x, 1, max(nx - 2, 1)), np.clip(y, 1, max(ny - 2, 1))

    def move(low: np.ndarray, middle: np.ndarray, high: np.ndarray) -> np.ndarray:
        bend = low.astype(float) - 2.0 * middle + high
        safe = np.where(np.abs(bend) > 1e-9, bend, 1.0)
        return np.clip(np.where(np.abs(bend) > 1e-9, 0.5 * (low - high) / safe, 0.0), -0.5, 0.5)

    if min(nx, ny) < 3 or not len(x):
        return np.asarray(x, float), np.asarray(y, float)
    s = significance
    dx = move(s[cy, cx - 1], s[cy, cx], s[cy, cx + 1])
    dy = move(s[cy - 1, cx], s[cy, cx], s[cy + 1, cx])
    return np.where(cx == x, x + dx, x), np.where(cy == y, y + dy, y)
