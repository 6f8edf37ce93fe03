"""Interpolation between pixels: the best linear prediction of a well-sampled image.

The weights of the 2a nearest pixels minimise the error for a signal whose covariance is Gaussian with a sigma of
1.8 px, and sum to 1. For a Moffat star of FWHM 3.3 px and 8 taps the largest error is 1.2e-3 of the peak, against 4e-3
for Lanczos-4 and 6e-3 for Lanczos-3, whose pass-band ripples; for FWHM 4 px it is 6e-4 (measured).
"""

from functools import cache
from typing import Final

import numpy as np

HALF: Final = 4            # taps on each side, for images
STAMP_HALF: Final = 5      # for noise-free stamps
STEPS: Final = 1024        # fractions of a pixel in a table of weights

_SIGMA: Final = 1.8        # px; the covariance of an image seen with FWHM 3.3 px and more
_NUGGET: Final = 1e-6      # relative white noise: keeps the system well conditioned


@cache
def table(half: int = HALF) -> np.ndarray:
    """(STEPS + 1, 2 half) weights of the pixels 1 - half .. half about a point k / STEPS beyond pixel 0."""
    taps = np.arange(1 - half, half + 1)
    covariance = np.exp(-0.5 * ((taps[:, None] - taps) / _SIGMA) ** 2) + _NUGGET * np.eye(2 * half)
    system = np.zeros((2 * half + 1, 2 * half + 1))
    system[:-1, :-1], system[-1, :-1], system[:-1, -1] = covariance, 1.0, 1.0
    fraction = np.arange(STEPS + 1) / STEPS
    wanted = np.ones((2 * half + 1, STEPS + 1))
    wanted[:-1] = np.exp(-0.5 * ((taps[:, None] - fraction) / _SIGMA) ** 2)
    weights = np.linalg.solve(system, wanted)[:-1].T
    weights[0], weights[-1] = taps == 0, taps == 1      # on a pixel the answer is that pixel
    weights.setflags(write=False)
    return np.ascontiguousarray(weights)


def weights(fraction: np.ndarray, half: int = HALF) -> np.ndarray:
    """(n, 2 half) weights for fractions in [0, 1), interpolated in the table."""
    step = np.clip(np.asarray(fraction, float), 0.0, 1.0) * STEPS
    low = np.minimum(step.astype(int), STEPS - 1)
    part = (step - low)[:, None]
    rows = table(half)
    return np.asarray((1.0 - part) * rows[low] + part * rows[low + 1])


def matrices(shift: np.ndarray, side: int, width: int) -> np.ndarray:
    """(n, width, side) operators that sample a line of `side` pixels, moved by `shift`, on its `width` central ones."""
    shift = np.asarray(shift, float)
    whole = np.floor(-shift).astype(int)
    rows = weights(-shift - whole, STAMP_HALF)
    out = np.zeros((len(shift), width, side + 4 * STAMP_HALF))
    margin = 2 * STAMP_HALF
    first = np.arange(width) + (side - width) // 2 + margin + 1 - STAMP_HALF
    n, line = np.arange(len(shift))[:, None], np.arange(width)[None, :]
    for k in range(2 * STAMP_HALF):
        column = np.clip(first[None, :] + whole[:, None] + k, 0, side + 2 * margin - 1)
        out[n, line, column] += rows[:, k, None]
    return out[:, :, margin:-margin]


def shifted(stamps: np.ndarray, dx: np.ndarray, dy: np.ndarray, width: int | None = None) -> np.ndarray:
    """(n, width, width) stamps moved by (dx, dy) pixels, cut to their central `width`; nothing beyond the border.

    Examples
    --------
    >>> stamp = np.zeros((1, 21, 21)); stamp[0, 10, 10] = 1.0
    >>> int(shifted(stamp, np.array([2.0]), np.array([0.0]))[0, 10].argmax())
    12
    """
    side = stamps.shape[-1]
    wide = side if width is None else width
    across = matrices(np.atleast_1d(dx), side, wide)
    down = matrices(np.atleast_1d(dy), side, wide)
    return np.asarray(down @ stamps @ across.transpose(0, 2, 1))


def sampled(stamp: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values of an image at positions (x, y) [pixel, from the first pixel's centre]; 0 beyond the border."""
    padded = np.pad(stamp, 2 * STAMP_HALF)
    ny, nx = stamp.shape
    x, y = np.asarray(x, float), np.asarray(y, float)
    inside = (x > -STAMP_HALF) & (x < nx - 1 + STAMP_HALF) & (y > -STAMP_HALF) & (y < ny - 1 + STAMP_HALF)
    xs, ys = np.where(inside, x, 0.0).ravel(), np.where(inside, y, 0.0).ravel()
    left, low = np.floor(xs).astype(int), np.floor(ys).astype(int)
    wx, wy = weights(xs - left, STAMP_HALF), weights(ys - low, STAMP_HALF)
    offset = np.arange(1 - STAMP_HALF, STAMP_HALF + 1) + 2 * STAMP_HALF
    patches = padded[(low[:, None] + offset)[:, :, None], (left[:, None] + offset)[:, None, :]]
    values = np.einsum("ni,nij,nj->n", wy, patches, wx)
    return np.asarray(np.where(inside, values.reshape(x.shape), 0.0))
