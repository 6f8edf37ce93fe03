"""Stamps around sources, of the sides that alerts have."""

from typing import Final

import numpy as np

from pipeline.images import Cutouts
from pipeline.psf import Psf

MIN_SIDE: Final = 30     # [pixel] (ap_association packageAlerts)
MAX_SIDE: Final = 102    # 62.5 px, 10 deg/day in 30 s, and 40 px of PSF


def sides(sources: np.ndarray) -> np.ndarray:
    """(n,) side of each source's stamp: its bboxSize, clamped."""
    return np.asarray(np.clip(sources["bboxSize"], MIN_SIDE, MAX_SIDE))


def cut(image: np.ndarray, variance: np.ndarray, psf: Psf, sources: np.ndarray) -> Cutouts:
    """A stamp per MEASUREMENT row, its middle pixel (side // 2) on the pixel of the centroid.

    Pixels off the image are NaN. A centroid off the image gives a stamp of shape (0, 0), which means null. The PSF is
    the image's central one for every stamp, as deployed.
    """
    ny, nx = image.shape
    stamps: list[np.ndarray] = []
    noises: list[np.ndarray] = []
    for x, y, side in zip(sources["x"], sources["y"], sides(sources), strict=True):
        if not (-0.5 <= x < nx - 0.5 and -0.5 <= y < ny - 0.5):
            stamps.append(np.zeros((0, 0), np.float32))
            noises.append(np.zeros((0, 0), np.float32))
            continue
        left, low = int(np.floor(x + 0.5)) - side // 2, int(np.floor(y + 0.5)) - side // 2
        stamps.append(_window(image, left, low, int(side)))
        noises.append(_window(variance, left, low, int(side)))
    return Cutouts(tuple(stamps), tuple(noises), psf.central)


def _window(plane: np.ndarray, left: int, low: int, side: int) -> np.ndarray:
    """(side, side) float32 pixels from (left, low), NaN off the plane."""
    out = np.full((side, side), np.nan, np.float32)
    ny, nx = plane.shape
    x0, x1, y0, y1 = max(left, 0), min(left + side, nx), max(low, 0), min(low + side, ny)
    if x0 < x1 and y0 < y1:
        out[y0 - low:y1 - low, x0 - left:x1 - left] = plane[y0:y1, x0:x1]
    return out
