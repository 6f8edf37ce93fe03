"""Stamps around sources, of the sides that alerts have."""

from typing import Final

import numpy as np

from pipeline.images import Cutouts
from pipeline.psf import Psf
from schemas import mask as planes

MIN_SIDE: Final = 30     # [pixel] (ap_association packageAlerts)
MAX_SIDE: Final = 102    # 62.5 px, 10 deg/day in 30 s, and 40 px of PSF


def sides(sources: np.ndarray) -> np.ndarray:
    """(n,) side of each source's stamp: its bboxSize, clamped."""
    return np.asarray(np.clip(sources["bboxSize"], MIN_SIDE, MAX_SIDE))


def cut(image: np.ndarray, variance: np.ndarray, psf: Psf, sources: np.ndarray, *,
        mask: np.ndarray | None = None) -> Cutouts:
    """A stamp per MEASUREMENT row, its middle pixel (side // 2) on the pixel of the centroid.

    Pixels off the image are NaN, and NO_DATA in the mask. A centroid off the image gives a stamp of shape (0, 0), which
    means null. The PSF is the image's central one for every stamp, as deployed.
    """
    ny, nx = image.shape
    stacks: list[list[np.ndarray]] = [[], [], []]
    kinds = ((image, np.nan, np.float32), (variance, np.nan, np.float32), (mask, planes.NO_DATA, np.int32))
    for x, y, side in zip(sources["x"], sources["y"], sides(sources), strict=True):
        if not (-0.5 <= x < nx - 0.5 and -0.5 <= y < ny - 0.5):
            left, low, side = nx, ny, 0
        else:
            left, low = int(np.floor(x + 0.5)) - side // 2, int(np.floor(y + 0.5)) - side // 2
        for stack, (plane, fill, dtype) in zip(stacks, kinds, strict=True):
            if plane is not None:
                stack.append(_window(plane, left, low, int(side), fill, dtype))
    return Cutouts(tuple(stacks[0]), tuple(stacks[1]), psf.central, tuple(stacks[2]))


def _window(plane: np.ndarray, left: int, low: int, side: int, fill: float, dtype: type) -> np.ndarray:
    """(side, side) pixels from (left, low), `fill` off the plane."""
    out: np.ndarray = np.full((side, side), fill, dtype)
    ny, nx = plane.shape
    x0, x1, y0, y1 = max(left, 0), min(left + side, nx), max(low, 0), min(low + side, ny)
    if x0 < x1 and y0 < y1:
        out[y0 - low:y1 - low, x0 - left:x1 - left] = plane[y0:y1, x0:x1]
    return out
