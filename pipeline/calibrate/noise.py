"""Noise of an exposure: its variance per pixel, and how pixels share it."""

import numpy as np
from scipy import ndimage

MAX_LAG = 5           # pixels
_SAMPLE = 1_000_000     # values from which percentiles are taken
_BLOCK = 128          # rows that autocorrelations are summed over at once,
_BLOCKS = 12          # in at most this many blocks of an image
_MIN_BLANK = 500      # pixels of blank sky to measure anything from


def spread(values: np.ndarray) -> float:
    """Standard deviation of the core of a distribution, from its lower half: faint sources lie in the upper one."""
    low, middle = np.percentile(values[::max(1, len(values) // _SAMPLE)], [15.8655, 50.0])
    return float(middle - low)


def flattened(image: np.ndarray, blank: np.ndarray, side: int = 21) -> np.ndarray:
    """(ny, nx) float32 noise of blank sky, 0 elsewhere, without what varies over more than `side` pixels.

    Undetected sources and their wings are removed as far as they are wider than that; noise loses 1 / n of its
    variance in a window of n blank pixels, which is given back.
    """
    weight = ndimage.uniform_filter(blank.astype(np.float32), side, mode="constant")
    mean = ndimage.uniform_filter(np.where(blank, image, 0).astype(np.float32), side, mode="constant")
    pixels = np.maximum(weight * side**2, 2.0)
    rest = (image - mean / np.maximum(weight, 1.0 / side**2)) / np.sqrt(1.0 - 1.0 / pixels)
    return np.where(blank & (weight > 0.1), rest, 0).astype(np.float32)


def variance_factor(image: np.ndarray, variance: np.ndarray, blank: np.ndarray, skewness: float) -> float:
    """Measured over modelled variance on blank sky (`image` flattened); 1 where too little sky is blank.

    The lower half of a distribution is narrower by a sixth of its skewness (Cornish-Fisher): Poisson noise has some.
    """
    blank = blank & (image != 0)
    ratio = image[blank] / np.sqrt(variance[blank])
    return (spread(ratio) / (1.0 - skewness / 6.0)) ** 2 if len(ratio) >= _MIN_BLANK else 1.0


def autocorrelation(image: np.ndarray, blank: np.ndarray, max_lag: int = MAX_LAG) -> np.ndarray:
    """(2k+1, 2k+1) autocorrelation of the noise on blank sky, 1 at the centre; ((1,),) where it is white.

    Pairs of blank pixels of a `flattened` image, clipped at 3.5 sigma. A lag counts when it exceeds 4 of its own errors
    (1 / sqrt(N)) and 0.01; noise is white when no lag reaches 0.02: undetected sources give every deep image that
    much, and they are no noise (the template has them too).
    """
    blank = blank & (image != 0)
    if np.count_nonzero(blank) < _MIN_BLANK:
        return np.ones((1, 1))
    noise = spread(image[blank])
    level = float(np.median(image[blank]))
    good = blank & (np.abs(image - level) < 3.5 * noise)
    values = np.where(good, image - level, 0).astype(np.float32)
    values -= np.where(good, values[good].mean(dtype=float), 0).astype(np.float32)
    total = float(np.mean(np.square(values[good], dtype=float)))
    weight = good.astype(np.float32)
    sums = np.zeros((2, 2 * max_lag + 1, 2 * max_lag + 1))
    starts = np.arange(0, max(image.shape[0] - _BLOCK // 2, 1), _BLOCK)
    for first in starts[::-(-len(starts) // _BLOCKS)]:
        rows = slice(first, first + _BLOCK)
        sums += _lag_sums(values[rows], weight[rows], max_lag)
    counts = np.maximum(sums[1], 1.0)
    out = sums[0] / counts / total
    significant = (np.abs(out) > 4.0 / np.sqrt(counts)) & (np.abs(out) > 0.01)
    out = np.where(significant, out, 0.0)
    out[max_lag, max_lag] = 1.0
    off = out.copy()
    off[max_lag, max_lag] = 0.0
    if np.abs(off).max() < 0.02:
        return np.ones((1, 1))
    return out


def _lag_sums(values: np.ndarray, weight: np.ndarray, max_lag: int) -> np.ndarray:
    """(2, 2k+1, 2k+1): sums of products and numbers of pairs for every lag."""
    ny, nx = values.shape
    sums = np.zeros((2, 2 * max_lag + 1, 2 * max_lag + 1))
    for j in range(max_lag + 1):
        for i in range(-max_lag if j else 0, max_lag + 1):
            a = (slice(j, ny), slice(max(i, 0), nx + min(i, 0)))
            b = (slice(0, ny - j), slice(max(-i, 0), nx + min(-i, 0)))
            for k, plane in enumerate((values, weight)):
                sums[k, max_lag + j, max_lag + i] = sums[k, max_lag - j, max_lag - i] = np.vdot(plane[a], plane[b])
    return sums


def lag1(acf: np.ndarray) -> float:
    """Mean correlation of horizontal and vertical neighbours."""
    k = acf.shape[0] // 2
    return float((acf[k, k + 1] + acf[k + 1, k]) / 2) if k else 0.0


def source_counts(image: np.ndarray, sky_noise: float) -> np.ndarray:
    """(ny, nx) counts of sources for the variance: smoothed where faint, the pixel itself where bright, never negative.

    A variance that follows the pixel's own noise biases weighted fluxes low; one that is smoothed everywhere is too
    small in the cores of stars. Between 5 and 20 sigma of the sky the two are mixed.
    """
    smooth = ndimage.gaussian_filter(image, 1.0, truncate=3.0)
    noise = sky_noise / np.sqrt(4.0 * np.pi)
    part = np.clip((smooth / sky_noise - 5.0) / 15.0, 0.0, 1.0)
    mixed = part * image + (1.0 - part) * smooth
    return np.asarray(np.where(smooth > 3.0 * noise, np.maximum(mixed, 0.0), 0.0), np.float32)
