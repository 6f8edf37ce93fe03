"""Kernels that vary over an image as polynomials of position, and convolution with them.

    K(x, y) = sum over q of T_q(x, y) K_q

so an image convolved with K is the sum of its convolutions with the constant K_q, each times the polynomial T_q at the
output pixel. One forward transform per tile serves all q. On a tile much smaller than the image the sum is taken to
first order about the tile's centre, K + du dK/du + dv dK/dv: three inverse transforms whatever the order.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import fft

from pipeline.difference.memory import plane
from pipeline.kernels import difference as passes

T = TypeVar("T")
TILE = 256       # side of a transform [pixel]: tiles stay in cache
LINEAR = 0.1     # of an image's side: over narrower tiles a kernel is linear in position


def powers(order: int) -> list[tuple[int, int]]:
    """Exponents (p, q) of u^p v^q in the order of `pipeline.psf.Psf`."""
    return [(d - q, q) for d in range(order + 1) for q in range(d + 1)]


def terms(x: np.ndarray, y: np.ndarray, shape: tuple[int, int], order: int) -> np.ndarray:
    """(n, k) monomials of the scaled position: u and v run from -1 to 1 over the image."""
    u = 2.0 * np.atleast_1d(np.asarray(x, float)) / max(shape[1] - 1, 1) - 1.0
    v = 2.0 * np.atleast_1d(np.asarray(y, float)) / max(shape[0] - 1, 1) - 1.0
    return np.stack([u**p * v**q for p, q in powers(order)], axis=1)


@dataclass(frozen=True, slots=True)
class SpatialKernel:
    """A convolution kernel as a polynomial of position."""

    components: np.ndarray       # (k, m, m) float64, m odd
    order: int
    shape: tuple[int, int]       # (ny, nx) of the image

    @property
    def half(self) -> int:
        return int(self.components.shape[1]) // 2

    def at(self, x: float, y: float) -> np.ndarray:
        """(m, m) kernel at one position."""
        return np.asarray(np.tensordot(terms(np.array([x]), np.array([y]), self.shape, self.order)[0],
                                       self.components, axes=1))

    @property
    def central(self) -> np.ndarray:
        return self.at((self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2)

    def scaled(self, factor: float) -> "SpatialKernel":
        return SpatialKernel(self.components * factor, self.order, self.shape)


def identity(shape: tuple[int, int]) -> SpatialKernel:
    """The kernel that changes nothing."""
    return SpatialKernel(np.ones((1, 1, 1)), 0, shape)


def square(coefficients: np.ndarray, order: int) -> np.ndarray:
    """(order + 1, order + 1) coefficients of u^p v^q at [q, p], as kernels want them."""
    out = np.zeros((order + 1, order + 1))
    for (p, q), c in zip(powers(order), coefficients, strict=True):
        out[q, p] = c
    return out


def convolve(image: np.ndarray, kernel: SpatialKernel, beyond: np.ndarray | None = None, *, slopes: bool = True,
             out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """(ny, nx) float32 image convolved with a kernel that varies over it.

    `beyond`, (ny + 2m, nx + 2m), holds the pixels around the image; without it, or where the kernel reaches farther,
    borders are mirrored.

    Convolution in the sense that a point source becomes the kernel: output(x) = sum of image(x - s) K(s; x). Over a
    tile that is a small part of the image the kernel is taken as linear in position, or, without `slopes`, as constant.
    `out`, another array than `image`, takes the result.
    """
    image = np.asarray(image, np.float32)
    if kernel.half == 0 and kernel.order == 0:
        return image * np.float32(kernel.components[0, 0, 0])
    tiles = Tiles.over((image.shape[0], image.shape[1]), kernel.half)
    made = plane((image.shape[0], image.shape[1])) if out is None else out
    local = _Local(kernel, tiles, slopes)
    spare = 0 if beyond is None else (beyond.shape[0] - image.shape[0]) // 2
    source = image if beyond is None else beyond

    def strip(y: int) -> None:
        for x in range(0, image.shape[1], tiles.step_x):
            window = _window(source, y - kernel.half + spare, x - kernel.half + spare, tiles.size)
            local.write(fft.rfft2(window), y, x, made)

    over(strip, range(0, image.shape[0], tiles.step_y), threads)
    return made


def over(work: Callable[[int], T], items: Iterable[int], threads: int) -> list[T]:
    """The answers of the work for every item, done on so many threads."""
    if threads < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


@dataclass(frozen=True, slots=True)
class Tiles:
    """How an image is cut into tiles for transforms."""

    size: int          # side of a transform [pixel]
    step_y: int        # of its inner part, which is free of what wraps around
    step_x: int

    @classmethod
    def over(cls, shape: tuple[int, int], half: int) -> "Tiles":
        """The cheapest tiles, near TILE pixels wide, whose inner parts fit the image."""
        least = max(TILE, fft.next_fast_len(6 * half, real=True))
        sizes = sorted({fft.next_fast_len(n, real=True) for n in range(least, least + least // 3, 4)})
        counts = [[-(-n // (size - 2 * half)) for n in shape] for size in sizes]
        cost = [ny * nx * size**2 * np.log(size) for size, (ny, nx) in zip(sizes, counts, strict=True)]
        best = int(np.argmin(cost))
        return cls(sizes[best], *(-(-n // k) for n, k in zip(shape, counts[best], strict=True)))


class _Local:
    """A kernel's transforms, and what it is on one tile."""

    def __init__(self, kernel: SpatialKernel, tiles: Tiles, slopes: bool) -> None:
        self.kernel, self.tiles, self.slopes = kernel, tiles, slopes
        ny, nx = kernel.shape
        self.transforms = fft.rfft2(_wrapped(kernel.components, tiles.size))
        wide = max(tiles.step_y / max(ny - 1, 1), tiles.step_x / max(nx - 1, 1)) > LINEAR
        self.terms = powers(kernel.order)
        self.exact = wide or kernel.order == 0 or (slopes and kernel.order == 1)

    def write(self, spectrum: np.ndarray, y: int, x: int, out: np.ndarray) -> None:
        """One tile of the result, from the transform of its window."""
        half, tiles = self.kernel.half, self.tiles
        y1, x1 = min(out.shape[0], y + tiles.step_y), min(out.shape[1], x + tiles.step_x)
        ny, nx = self.kernel.shape
        u = (2.0 * np.arange(x, x1) / max(nx - 1, 1) - 1.0).astype(np.float32)
        v = (2.0 * np.arange(y, y1) / max(ny - 1, 1) - 1.0).astype(np.float32)
        inner = np.s_[half:half + y1 - y, half:half + x1 - x]
        here = out[y:y1, x:x1]
        if self.exact:
            parts = fft.irfft2(self.transforms * spectrum, (tiles.size, tiles.size), overwrite_x=True)
            here[:] = parts[0][inner]
            for (p, q), part in zip(self.terms[1:], parts[1:], strict=True):
                here += part[inner] * (v[:, None] ** q * u**p)
            return
        u0, v0 = float(u.mean()), float(v.mean())
        weights = np.array([[u0**p * v0**q for p, q in self.terms],
                            [p * u0 ** max(p - 1, 0) * v0**q for p, q in self.terms],
                            [q * v0 ** max(q - 1, 0) * u0**p for p, q in self.terms]], np.float32)
        weights = weights if self.slopes else weights[:1]
        local = np.empty((len(weights), *spectrum.shape), np.complex64)
        passes.combine(weights, *(plane.view(np.float32) for plane in (self.transforms, spectrum, local)))
        parts = fft.irfft2(local, (tiles.size, tiles.size), overwrite_x=True)
        passes.assemble(parts, half, v - np.float32(v0), u - np.float32(u0), here)


def _window(image: np.ndarray, y: int, x: int, size: int) -> np.ndarray:
    """A square of an image; what lies beyond its borders mirrors it."""
    ny, nx = image.shape
    y0, y1, x0, x1 = max(y, 0), min(y + size, ny), max(x, 0), min(x + size, nx)
    part = image[y0:y1, x0:x1]
    if part.shape == (size, size):
        return part
    around = ((y0 - y, y + size - y1), (x0 - x, x + size - x1))
    return np.pad(part, around, mode="symmetric")


def _wrapped(stamps: np.ndarray, size: int) -> np.ndarray:
    """Stamps placed with their centres at pixel (0, 0) of a periodic square, float32."""
    half = stamps.shape[-1] // 2
    out = np.zeros((*stamps.shape[:-2], size, size), np.float32)
    out[..., :stamps.shape[-2], :stamps.shape[-1]] = stamps
    return np.roll(out, (-half, -half), axis=(-2, -1))
