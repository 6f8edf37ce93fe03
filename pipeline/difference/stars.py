"""Which sources the matching kernel is fitted to, and their pixels."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter

from pipeline.errors import AlgorithmError
from pipeline.images import Calibrated
from pipeline.pixel_config import DifferenceConfig

MAX_FLUX_RATIO = 2.0    # science over template, beyond the median ratio: another source, or none


@dataclass(frozen=True, slots=True)
class KernelStars:
    """Stamps of the sources of a kernel fit: target = kernel * reference + constant."""

    x: np.ndarray            # (n,) int: the pixel at the stamp's centre
    y: np.ndarray
    target: np.ndarray       # (n, 2r+1, 2r+1) float32
    reference: np.ndarray    # (n, 2(r+h)+1, 2(r+h)+1) float32: the side that is convolved
    target_variance: np.ndarray      # (n, 2r+1, 2r+1) float32, smoothed over 3x3 pixels
    reference_variance: np.ndarray   # the same of the reference
    good: np.ndarray         # (n, 2r+1, 2r+1) bool
    point: np.ndarray        # (n,) bool: unresolved

    def __len__(self) -> int:
        return len(self.x)


def select(science: Calibrated, template: np.ndarray, flags: np.ndarray, bad: int, config: DifferenceConfig, *,
           radius: int, margin: int) -> np.ndarray:
    """Indices of the rows of science.stars to fit, at most `per_cell` of the brightest in each cell.

    Sources within config.kernel_snr, brightest first, whose core of `radius` touches no bad pixel and which are
    present in the template with a flux consistent with the others'; `margin` is the distance kept from the borders.
    Bad are pixels with any of the bits `bad` in `flags`.
    """
    stars = science.stars
    ny, nx = science.shape
    if len(stars) == 0:
        raise AlgorithmError("InsufficientKernelSources: 0 sources were found on the science image, 3 are needed")
    x, y = np.rint(stars["x"]).astype(int), np.rint(stars["y"]).astype(int)
    low, high = config.kernel_snr
    wanted = (stars["snr"] >= low) & (stars["snr"] <= high) & (stars["flux"] > 0)
    if not config.kernel_extended:
        wanted &= ~stars["extended"]
    wanted &= (x >= margin) & (y >= margin) & (x < nx - margin) & (y < ny - margin)
    index = np.flatnonzero(wanted)
    index = index[np.argsort(-stars["snr"][index], kind="stable")]
    core = max(3, radius // 3)
    index = index[~_touches(flags, bad, x[index], y[index], core)]
    index = index[_consistent(science.image, template, x[index], y[index], core)]
    index = index[_brightest_per_cell(x[index], y[index], config.cell, config.per_cell)][:config.max_kernel_sources]
    if len(index) < config.min_kernel_sources:
        raise AlgorithmError(f"InsufficientKernelSources: {len(index)} of {len(stars)} sources can be used for the "
                             f"matching kernel, {config.min_kernel_sources} are needed")
    return np.asarray(index)


def cut(images: tuple[np.ndarray, ...], variances: tuple[np.ndarray, ...], fill: tuple[float, ...], flags: np.ndarray,
        bad: int, stars: np.ndarray, *, radius: int, half: int) -> KernelStars:
    """Stamps of radius `radius` of the target and the reference; the latter's are wider by the kernel's `half`.

    Variances that are no positive number are `fill`.
    """
    target, reference = images
    x, y = np.rint(stars["x"]).astype(int), np.rint(stars["y"]).astype(int)
    inner = _stamps(target, x, y, radius)
    outer = _stamps(reference, x, y, radius + half)
    noise = [uniform_filter(_positive(_stamps(v, x, y, radius), value), size=(0, 3, 3), mode="nearest")
             for v, value in zip(variances, fill, strict=True)]
    return KernelStars(x, y, inner, outer, noise[0], noise[1], (_stamps(flags, x, y, radius) & bad) == 0,
                       ~stars["extended"])


def _stamps(image: np.ndarray, x: np.ndarray, y: np.ndarray, radius: int) -> np.ndarray:
    """(n, 2r+1, 2r+1) squares; what lies beyond the border repeats the border."""
    offsets = np.arange(-radius, radius + 1)
    rows = np.clip(y[:, None] + offsets, 0, image.shape[0] - 1)
    columns = np.clip(x[:, None] + offsets, 0, image.shape[1] - 1)
    return image[rows[:, :, None], columns[:, None, :]]


def _positive(variance: np.ndarray, fill: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(variance) & (variance > 0), variance, np.float32(fill))


def _touches(flags: np.ndarray, bad: int, x: np.ndarray, y: np.ndarray, radius: int) -> np.ndarray:
    if len(x) == 0:
        return np.zeros(0, bool)
    return np.asarray(((_stamps(flags, x, y, radius) & bad) != 0).any(axis=(1, 2)))


def _consistent(science: np.ndarray, template: np.ndarray, x: np.ndarray, y: np.ndarray, radius: int) -> np.ndarray:
    """Which sources have a flux in the template that is like their flux in the science image."""
    if len(x) == 0:
        return np.zeros(0, bool)
    ours, theirs = (_stamps(image, x, y, radius + 2).sum(axis=(1, 2)) for image in (science, template))
    ratio = np.log(np.maximum(theirs, 1e-3 * np.abs(ours) + 1e-30) / np.maximum(ours, 1e-30))
    bright = np.abs(ratio) < np.log(10.0)
    middle = np.median(ratio[bright]) if bright.any() else 0.0
    return np.asarray(bright & (np.abs(ratio - middle) < np.log(MAX_FLUX_RATIO)))


def _brightest_per_cell(x: np.ndarray, y: np.ndarray, cell: int, limit: int) -> np.ndarray:
    """Indices, in the given order, of the first `limit` of every cell."""
    key = (y // cell) * 100000 + x // cell
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    first = np.searchsorted(ordered, ordered, side="left")
    rank = np.empty(len(x), int)
    rank[order] = np.arange(len(x)) - first
    return np.flatnonzero(rank < limit)
