"""Wings beyond the matching kernel's reach.

Seeing moves light far out: around a bright star the halo left by a kernel of 20-35 px is significant although no single
pixel is. The halo is the template convolved with a wide radial function, whose few values are fitted on images binned
4x4, where all bright stars together say what it is.
"""

import numpy as np
from scipy import fft, ndimage

from pipeline.difference.kernel import intrinsic

BIN = 4
STEP = 1.4            # ratio of the radii of neighbouring rings
REACH = 90.0          # largest radius [pixel]
MODEL_ERROR = 0.02    # relative error per binned pixel within the kernel's reach


def wings(raw: np.ndarray, variance: np.ndarray, template: np.ndarray, bad: np.ndarray,
          half: int) -> tuple[np.ndarray, float]:
    """The halo left in a difference, (ny, nx) float32, and its relative error.

    `template` has its saturated stars restored; `half` is the half width of the matching kernel [pixel].
    """
    shape = raw.shape[0], raw.shape[1]
    rows, columns = shape[0] // BIN, shape[1] // BIN
    if min(rows, columns) < 32:
        return np.zeros(shape, np.float32), 0.0
    good = ~bad
    count = _binned(good.astype(np.float32))
    data = _binned(np.where(good, raw, 0)) / np.maximum(count, 1.0)
    light = _binned(template) / BIN**2
    noise = _binned(np.where(good, variance, 0)) / np.maximum(count, 1.0) ** 2
    rings = _rings(0.6 * half, min(REACH, 0.3 * min(shape)))
    responses = np.stack([_convolved(light, ring) for ring in rings])
    weight = np.where(count > BIN**2 / 2, 1.0 / (noise + (MODEL_ERROR * light) ** 2 + 1e-30), 0.0)
    for _ in range(3):
        heavy = responses * weight
        normal = np.tensordot(heavy, responses, axes=((1, 2), (1, 2)))
        normal += 1e-6 * np.diag(np.diag(normal)) + 1e-30 * np.eye(len(normal))
        found = np.linalg.solve(normal, np.tensordot(heavy, data, axes=((1, 2), (0, 1))))
        model = np.tensordot(found, responses, axes=1)
        weight = np.where((data - model) ** 2 * weight > 25.0, 0.0, weight)
    error = np.sqrt(noise)
    clear = (np.abs(model) > error) & (weight > 0)
    relative = intrinsic(((data - model) / model)[clear], (error / np.abs(model))[clear]) if clear.sum() > 20 else 0.0
    place = [(np.arange(n) - (BIN - 1) / 2) / BIN for n in shape]
    full = ndimage.map_coordinates(model, np.meshgrid(*place, indexing="ij"), order=1, mode="nearest")
    return np.asarray(full, np.float32), relative


def _binned(image: np.ndarray) -> np.ndarray:
    rows, columns = image.shape[0] // BIN, image.shape[1] // BIN
    return np.asarray(image[:rows * BIN, :columns * BIN].reshape(rows, BIN, columns, BIN).sum(axis=(1, 3), dtype=float))


def _rings(first: float, last: float) -> np.ndarray:
    """(n, m, m) radial hat functions of log radius on binned pixels, of unit sum each."""
    radii = first * STEP ** np.arange(1 + max(2, int(np.log(last / first) / np.log(STEP))))
    half = int(np.ceil(radii[-1] * STEP / BIN))
    fine = (np.arange((2 * half + 1) * BIN) + 0.5) / BIN - half - 0.5
    log = np.log(np.maximum(np.hypot(fine[:, None], fine), 1e-3) * BIN)
    side = 2 * half + 1
    hats = [np.clip(1.0 - np.abs(log - np.log(r)) / np.log(STEP), 0.0, 1.0) for r in radii]
    out = [hat.reshape(side, BIN, side, BIN).mean(axis=(1, 3)) for hat in hats]
    return np.stack([ring / ring.sum() for ring in out])


def _convolved(image: np.ndarray, ring: np.ndarray) -> np.ndarray:
    half = ring.shape[0] // 2
    size = [fft.next_fast_len(n + 2 * half, real=True) for n in image.shape]
    product = fft.rfft2(image, size) * fft.rfft2(ring, size)
    return np.asarray(fft.irfft2(product, size)[half:half + image.shape[0], half:half + image.shape[1]])
