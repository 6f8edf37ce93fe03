"""The sky: a robust mesh over pixels without sources, in two passes."""

from dataclasses import dataclass

import numpy as np
import sep
from scipy import ndimage

_ENOUGH = 0.25     # of the mesh's cells must have sky


@dataclass(frozen=True, slots=True)
class Background:
    """Level and noise of the sky over an image."""

    level: np.ndarray      # (ny, nx) float32
    noise: float           # per pixel, median over the mesh
    blank: np.ndarray      # (ny, nx) bool: pixels without sources and defects


def mesh_side(shape: tuple[int, int], mesh: int) -> int:
    """The mesh's side [pixel]: at least three cells along the shorter side of the image."""
    return int(max(16, min(mesh, min(shape) // 3)))


def estimate(image: np.ndarray, bad: np.ndarray, mesh: int, grow_px: int = 5) -> Background:
    """The background of `image` (float32, finite) outside `bad`.

    The first pass finds sources on a first background; the second leaves them and their surroundings out. Where so many
    are crowded that no sky is left for the mesh, the surroundings are drawn closer, and at last sources stay in.
    """
    side = mesh_side((image.shape[0], image.shape[1]), mesh)
    first = sep.Background(image, mask=bad, bw=side, bh=side, fw=3, fh=3)
    sources = _sources(image - first.back(), bad, float(first.globalrms), grow_px)
    for less in (3, 2, 1, 0):
        if _free(sources | bad, side) >= _ENOUGH:
            break
        sources = _sources(image - first.back(), bad, float(first.globalrms), min(less, grow_px))
    if _free(sources | bad, side) < _ENOUGH:
        sources = np.zeros_like(bad)
    second = sep.Background(image, mask=sources | bad, bw=side, bh=side, fw=3, fh=3)
    return Background(second.back(dtype=np.float32), float(second.globalrms), ~(sources | bad))


def _free(masked: np.ndarray, side: int) -> float:
    """The share of the mesh's cells that are not masked by more than half: of others sep knows nothing."""
    rows, columns = (np.arange(0, n, side) for n in masked.shape)
    count = np.add.reduceat(np.add.reduceat(masked, rows, axis=0, dtype=np.int64), columns, axis=1)
    size = np.outer(np.diff(np.r_[rows, masked.shape[0]]), np.diff(np.r_[columns, masked.shape[1]]))
    return float(np.mean(count <= 0.5 * size))


def _sources(residual: np.ndarray, bad: np.ndarray, noise: float, grow_px: int) -> np.ndarray:
    """Pixels of sources and of their wings: 3 sigma at two smoothing lengths, grown; both signs, to leave no bias.

    The noise of a smoothed image is measured on it: correlated noise falls less than white noise does.
    """
    found = np.abs(residual) > 6.0 * noise
    usable = np.where(bad, 0, residual).astype(np.float32)
    for sigma, step in ((1.7, 1), (5.0, 4)):
        smooth = ndimage.gaussian_filter(usable, sigma, truncate=3.0) if step == 1 else _coarse(usable, step, sigma)
        low, middle = np.percentile(smooth[::3, ::3], [15.8655, 50.0])
        high = np.abs(smooth - middle) > 3.5 * max(middle - low, 1e-3 * noise)
        found |= high if step == 1 else np.kron(high, np.ones((step, step), bool))[:found.shape[0], :found.shape[1]]
    near = ndimage.uniform_filter((found & ~bad).astype(np.float32), 2 * grow_px + 1, mode="constant")
    return np.asarray(near > 0.5 / (2 * grow_px + 1) ** 2)


def _coarse(image: np.ndarray, step: int, sigma: float) -> np.ndarray:
    """Means of blocks of step^2 pixels (the border repeated), smoothed by `sigma` pixels of the image."""
    pads = [(0, -side % step) for side in image.shape]
    padded = np.pad(image, pads, mode="edge")
    blocks = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step).mean(axis=(1, 3))
    return np.asarray(ndimage.gaussian_filter(blocks, sigma / step, truncate=3.0))
