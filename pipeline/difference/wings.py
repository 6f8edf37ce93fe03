"""Wings beyond the matching kernel's reach.

Seeing moves light far out: around a bright star the halo left by a kernel of 20-35 px is significant although no single
pixel is. The halo is the template convolved with a wide radial function, whose few values are fitted on images binned
4x4, where all bright stars together say what it is.
"""

import numpy as np
from scipy import fft

from pipeline.difference.kernel import intrinsic
from pipeline.difference.memory import scratch
from pipeline.difference.spatial import over
from pipeline.kernels.difference import BIN

STEP = 1.4            # ratio of the radii of neighbouring rings
REACH = 90.0          # largest radius [pixel]
MODEL_ERROR = 0.02    # relative error per binned pixel within the kernel's reach
FAINT = 2.0           # bins with less light than this at all rings, in units of their noise, say nothing
MOST = 150_000        # bins to fit, those with most light


def wings(data: np.ndarray, noise: np.ndarray, light: np.ndarray, use: np.ndarray, half: int, *,
          threads: int = 1) -> tuple[np.ndarray, float]:
    """The halo left in a difference, (rows, columns) float32 per bin, and its relative error.

    Parameters
    ----------
    data, noise : (rows, columns)
        Mean of the difference in each bin of BIN x BIN pixels, and its variance.
    light : (rows, columns)
        Mean of the template, its saturated stars restored.
    use : (rows, columns) bool
        Bins to fit.
    half : int
        Half width of the matching kernel [pixel].
    """
    if min(data.shape) < 32:
        return np.zeros((0, 0), np.float32), 0.0
    rings = _rings(0.6 * half, min(REACH, 0.3 * BIN * min(data.shape)))
    responses = _convolved(light.astype(np.float32), rings, threads)
    strength = np.where(use, responses.max(axis=0) / np.sqrt(np.where(use, noise, 1)), np.float32(0))
    least = np.partition(strength.ravel(), -MOST)[-MOST] if strength.size > MOST else 0.0
    telling = strength > max(FAINT, least)
    if telling.sum() < 10 * len(rings):
        return np.zeros((0, 0), np.float32), 0.0
    inside = responses[:, telling].astype(float)
    value, variance, glow = data[telling].astype(float), noise[telling].astype(float), light[telling].astype(float)
    weight = 1.0 / (variance + (MODEL_ERROR * glow) ** 2 + 1e-30)
    for _ in range(3):
        heavy = inside * weight
        normal = heavy @ inside.T
        normal += 1e-6 * np.diag(np.diag(normal)) + 1e-30 * np.eye(len(normal))
        found = np.linalg.solve(normal, heavy @ value)
        model = found @ inside
        weight = np.where((value - model) ** 2 * weight > 25.0, 0.0, weight)
    error = np.sqrt(variance)
    clear = (np.abs(model) > error) & (weight > 0)
    relative = intrinsic((value / model - 1)[clear], (error / np.abs(model))[clear]) if clear.sum() > 20 else 0.0
    return np.tensordot(found.astype(np.float32), responses, axes=1), relative


def _rings(first: float, last: float) -> np.ndarray:
    """(n, m, m) radial hat functions of log radius on bins, of unit sum each."""
    radii = first * STEP ** np.arange(1 + max(2, int(np.log(last / first) / np.log(STEP))))
    half = int(np.ceil(radii[-1] * STEP / BIN))
    fine = (np.arange((2 * half + 1) * BIN) + 0.5) / BIN - half - 0.5
    log = np.log(np.maximum(np.hypot(fine[:, None], fine), 1e-3) * BIN)
    side = 2 * half + 1
    hats = [np.clip(1.0 - np.abs(log - np.log(r)) / np.log(STEP), 0.0, 1.0) for r in radii]
    out = [hat.reshape(side, BIN, side, BIN).mean(axis=(1, 3)) for hat in hats]
    return np.stack([ring / ring.sum() for ring in out])


def _convolved(image: np.ndarray, rings: np.ndarray, threads: int) -> np.ndarray:
    """(n, rows, columns) float32 image convolved with every ring, dark beyond its borders."""
    half = rings.shape[1] // 2
    size = [fft.next_fast_len(n + 2 * half, real=True) for n in image.shape]
    spectrum = fft.rfft2(image, size)
    out = scratch((len(rings), image.shape[0], image.shape[1]))
    inner = np.s_[half:half + image.shape[0], half:half + image.shape[1]]

    def work(k: int) -> None:
        product = fft.rfft2(rings[k].astype(np.float32), size)
        product *= spectrum
        out[k] = fft.irfft2(product, size, overwrite_x=True)[inner]

    over(work, range(len(rings)), threads)
    return out
