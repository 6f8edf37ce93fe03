"""Noise of an exposure: its variance per pixel, and how pixels share it."""

import numpy as np
from scipy import ndimage

MAX_LAG = 5           # pixels
_MIN_BLANK = 500      # pixels of blank sky to measure anything from


def spread(values: np.ndarray) -> float:
    """Standard deviation of the core of a distribution, from its lower half: faint sources lie in the upper one."""
    low, middle = np.percentile(values, [15.8655, 50.0])
    return float(middle - low)


def variance_factor(image: np.ndarray, variance: np.ndarray, blank: np.ndarray) -> float:
    """Measured over modelled variance on blank sky; 1 where too little sky is blank."""
    ratio = image[blank] / np.sqrt(variance[blank])
    return spread(ratio) ** 2 if len(ratio) >= _MIN_BLANK else 1.0


def autocorrelation(image: np.ndarray, blank: np.ndarray, max_lag: int = MAX_LAG) -> np.ndarray:
    """(2k+1, 2k+1) autocorrelation of the noise on blank sky, 1 at the centre; ((1,),) where it is white.

    Pairs of blank pixels, clipped at 3.5 sigma. A lag counts when it exceeds 4 of its own errors (1 / sqrt(N)) and
    0.01: undetected sources give every deep image that much, and they are no noise (they are in the template too).
    """
    if np.count_nonzero(blank) < _MIN_BLANK:
        return np.ones((1, 1))
    noise = spread(image[blank])
    level = float(np.median(image[blank]))
    good = blank & (np.abs(image - level) < 3.5 * noise)
    values = np.where(good, image - level, 0).astype(np.float32)
    values -= np.where(good, values[good].mean(dtype=float), 0).astype(np.float32)
    total = float(np.mean(np.square(values[good], dtype=float)))
    out = np.zeros((2 * max_lag + 1, 2 * max_lag + 1))
    counts = np.ones_like(out)
    weight = good.astype(np.float32)
    ny, nx = image.shape
    for j in range(max_lag + 1):
        for i in range(-max_lag, max_lag + 1):
            if j == 0 and i < 0:
                continue
            a = (slice(j, ny), slice(max(i, 0), nx + min(i, 0)))
            b = (slice(0, ny - j), slice(max(-i, 0), nx + min(-i, 0)))
            pairs = max(float(np.vdot(weight[a], weight[b])), 1.0)
            value = float(np.vdot(values[a], values[b])) / pairs / total
            out[max_lag + j, max_lag + i] = out[max_lag - j, max_lag - i] = value
            counts[max_lag + j, max_lag + i] = counts[max_lag - j, max_lag - i] = pairs
    significant = (np.abs(out) > 4.0 / np.sqrt(counts)) & (np.abs(out) > 0.01)
    out = np.where(significant, out, 0.0)
    out[max_lag, max_lag] = 1.0
    if np.count_nonzero(out) == 1:
        return np.ones((1, 1))
    return out


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
