"""The sky: a robust mesh over pixels without sources, in two passes."""

from dataclasses import dataclass

import numpy as np
import sep
from scipy import ndimage


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

    The first pass finds sources on a first background; the second leaves them and their surroundings out.
    """
    side = mesh_side((image.shape[0], image.shape[1]), mesh)
    first = sep.Background(image, mask=bad, bw=side, bh=side, fw=3, fh=3)
    sources = _sources(image - first.back(), bad, float(first.globalrms), grow_px)
    if np.mean(sources | bad) > 0.95:
        sources = np.zeros_like(bad)
    second = sep.Background(image, mask=sources | bad, bw=side, bh=side, fw=3, fh=3)
    return Background(second.back(dtype=np.float32), float(second.globalrms), ~(sources | bad))


def _sources(residual: np.ndarray, bad: np.ndarray, noise: float, grow_px: int) -> np.ndarray:
    """Pixels of sources: 1.5 sigma of a smoothed image, grown; both signs, so that blank sky is not biased."""
    smooth = ndimage.gaussian_filter(np.where(bad, 0, residual).astype(np.float32), 2.0, truncate=3.0)
    # a Gaussian of sigma s lowers white noise by sqrt(4 pi) s; correlated noise less: take what is measured
    spread = 1.4826 * float(np.median(np.abs(smooth[::4, ::4]))) or noise
    found = (np.abs(smooth) > 4.0 * spread) & ~bad
    return np.asarray(ndimage.binary_dilation(found, _disc(grow_px)) | (np.abs(residual) > 6.0 * noise))


def _disc(radius: int) -> np.ndarray:
    k = np.arange(-radius, radius + 1)
    return np.asarray(k[:, None] ** 2 + k**2 <= radius**2 + 1)
