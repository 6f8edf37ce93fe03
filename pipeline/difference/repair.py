"""Plausible values for pixels that are not to be trusted, before they are convolved.

A convolution carries a wrong pixel as far as its kernel reaches. A saturated star gets back the core of the PSF that
fits its wings; any other bad pixel takes the value of the other image. The pixels stay masked: this only limits what
they do to their neighbours.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from pipeline.kernels import difference as passes
from pipeline.psf import Psf

MAX_SHIFT: Final = 3.0       # of a saturated star's centre from the middle of its saturated pixels [pixel]
MODEL_ERROR: Final = 0.03    # relative error of a PSF model in a star's wings
TAPS: Final = 5              # on either side of an interpolation between pixels


@dataclass(frozen=True, slots=True)
class Saturated:
    """The saturated pixels of an image, star by star."""

    flat: np.ndarray         # (n,) int64 flat indices in order of `star`
    star: np.ndarray         # (n,) int64

    @classmethod
    def of(cls, flags: np.ndarray, flag: int) -> "Saturated":
        """Those with a flag."""
        flat = passes.flagged(flags, flag)
        star = passes.connected(flat, flags.shape[1])
        order = np.argsort(star, kind="stable")
        return cls(flat[order], star[order])

    def __len__(self) -> int:
        return int(self.star[-1]) + 1 if len(self.star) else 0


def restore(image: np.ndarray, variance: np.ndarray, wrong: np.ndarray, flag: int, saturated: Saturated,
            psf: Psf) -> None:
    """Write into `image` the cores of its saturated stars, as far as a PSF fits around them.

    wrong : (ny, nx) uint8
        Pixels with `flag` have no value of their own.
    """
    ends = np.searchsorted(saturated.star, np.arange(len(saturated) + 1))
    if len(saturated) == 0:
        return
    first = saturated.flat[ends[:-1]]
    stamps = psf.stamps(first % image.shape[1], first // image.shape[1])
    for start, stop, stamp in zip(ends[:-1], ends[1:], stamps, strict=True):
        y, x = np.divmod(saturated.flat[start:stop], image.shape[1])
        _restore(image, variance, wrong, flag, x, y, stamp)


def _restore(image: np.ndarray, variance: np.ndarray, wrong: np.ndarray, flag: int, px: np.ndarray, py: np.ndarray,
             stamp: np.ndarray) -> None:
    """Write the core of one saturated star, whose saturated pixels are (px, py)."""
    width = np.bincount(py - py.min())
    wide = np.flatnonzero(width >= 0.7 * width.max())     # a bleed is narrower than the star
    y = py.min() + float(wide.mean())
    x = float(np.median(px[width[py - py.min()] >= 0.7 * width.max()]))
    half = stamp.shape[0] // 2
    i, j = round(x), round(y)
    y0, y1 = max(0, j - half), min(image.shape[0], j + half + 1)
    x0, x1 = max(0, i - half), min(image.shape[1], i + half + 1)
    if y1 - y0 < 5 or x1 - x0 < 5:
        return
    here = np.s_[y0:y1, x0:x1]
    core = np.zeros((y1 - y0, x1 - x0), bool)
    inside = (py >= y0) & (py < y1) & (px >= x0) & (px < x1)
    core[py[inside] - y0, px[inside] - x0] = True
    use = (_near(core, max(4, half // 3)) & ~_near(core, 1) & ((wrong[here] & flag) == 0)
           & np.isfinite(variance[here]) & (variance[here] > 0))
    if use.sum() < 20:
        return
    value = image[here][use].astype(float)
    root = 1.0 / np.sqrt(variance[here][use] + (MODEL_ERROR * value) ** 2)
    cut = np.s_[y0 - j + half:y1 - j + half, x0 - i + half:x1 - i + half]
    dx, dy = x - i, y - j
    for _ in range(4):
        model = shifted(stamp, dx, dy)
        slope_y, slope_x = np.gradient(model)
        columns = np.stack([model[cut][use], -slope_x[cut][use], -slope_y[cut][use]], axis=1) * root[:, None]
        normal = columns.T @ columns
        found = np.linalg.solve(normal + 1e-12 * np.trace(normal) * np.eye(3), columns.T @ (value * root))
        flux = float(found[0])
        if not flux > 0:
            return
        dx += float(np.clip(found[1] / flux, -1, 1))
        dy += float(np.clip(found[2] / flux, -1, 1))
        if np.hypot(dx - (x - i), dy - (y - j)) > MAX_SHIFT:
            return
    image[here][core] = np.maximum(shifted(stamp, dx, dy)[cut] * flux, 0.0)[core]


def _near(core: np.ndarray, steps: int) -> np.ndarray:
    """Pixels within so many steps, along rows and columns, of others."""
    if steps == 1:
        return np.asarray(ndimage.binary_dilation(core))
    return np.asarray(ndimage.distance_transform_cdt(~core, metric="taxicab") <= steps)


def shifted(stamp: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """A stamp moved by (dx, dy) pixels, 0 beyond its borders (Lanczos, TAPS on either side)."""
    return np.asarray(_shift(len(stamp), dy) @ stamp @ _shift(stamp.shape[1], dx).T)


def _shift(n: int, by: float) -> np.ndarray:
    """(n, n) matrix of a Lanczos interpolation, whose rows sum to 1 in the middle."""
    at = np.arange(n)[:, None] - np.arange(n) - by
    weights = np.where(np.abs(at) < TAPS, np.sinc(at) * np.sinc(at / TAPS), 0.0)
    at0 = np.arange(-n, n + 1) - by
    total = float(np.sum(np.where(np.abs(at0) < TAPS, np.sinc(at0) * np.sinc(at0 / TAPS), 0.0)))
    return np.asarray(weights / total)
