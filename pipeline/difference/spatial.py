"""Kernels that vary over an image as polynomials of position, and convolution with them.

    K(x, y) = sum over q of T_q(x, y) K_q

so an image convolved with K is the sum of its convolutions with the constant K_q, each times the polynomial T_q at the
output pixel. One forward transform per tile serves all q: exact, and cheaper than one separable pass per basis term.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft

TILE = 256   # side of a transform [pixel]: tiles stay in cache


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


def polynomial(coefficients: np.ndarray, shape: tuple[int, int], order: int) -> np.ndarray:
    """(ny, nx) float32 image of a polynomial of position."""
    u = np.linspace(-1.0, 1.0, shape[1])
    v = np.linspace(-1.0, 1.0, shape[0])
    square = np.zeros((order + 1, order + 1))
    for (p, q), c in zip(powers(order), coefficients, strict=True):
        square[q, p] = c
    return (np.vander(v, order + 1, increasing=True) @ square
            @ np.vander(u, order + 1, increasing=True).T).astype(np.float32)


def convolve(image: np.ndarray, kernel: SpatialKernel, beyond: np.ndarray | None = None) -> np.ndarray:
    """(ny, nx) float32 image convolved with a kernel that varies over it.

    `beyond`, (ny + 2m, nx + 2m), holds the pixels around the image; without it, or where the kernel reaches farther,
    borders are mirrored.

    Convolution in the sense that a point source becomes the kernel: output(x) = sum of image(x - s) K(s; x).
    """
    half = kernel.half
    image = np.asarray(image, np.float32)
    if half == 0 and kernel.order == 0:
        return image * np.float32(kernel.components[0, 0, 0])
    ny, nx = image.shape
    size = max(TILE, fft.next_fast_len(4 * half, real=True))
    step = size - 2 * half
    rows, columns = -(-ny // step), -(-nx // step)
    around = 0
    if beyond is not None:
        spare = (beyond.shape[0] - ny) // 2
        around = min(spare, half)
        image = np.asarray(beyond[spare - around:spare + ny + around, spare - around:spare + nx + around], np.float32)
    padded = np.pad(image, ((half - around, half - around + rows * step - ny),
                            (half - around, half - around + columns * step - nx)),
                    mode="symmetric" if min(ny, nx) > half + step else "edge")
    transforms = fft.rfft2(_wrapped(kernel.components, size))
    u = np.linspace(-1.0, 1.0, nx).astype(np.float32)
    v = np.linspace(-1.0, 1.0, ny).astype(np.float32)
    out = np.empty((ny, nx), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size))[::step, ::step]
    for row in range(rows):
        y0, y1 = row * step, min(ny, (row + 1) * step)
        spectra = fft.rfft2(windows[row, :columns])
        strip = np.zeros((y1 - y0, columns * step), np.float32)
        wide = np.zeros(columns * step, np.float32)
        wide[:nx] = u
        for (p, q), transform in zip(powers(kernel.order), transforms, strict=True):
            tiles = fft.irfft2(spectra * transform, (size, size))[:, half:half + y1 - y0, half:half + step]
            part = tiles.transpose(1, 0, 2).reshape(y1 - y0, columns * step)
            strip += part if p == q == 0 else part * (v[y0:y1, None] ** q * wide ** p)
        out[y0:y1] = strip[:, :nx]
    return out


def _wrapped(stamps: np.ndarray, size: int) -> np.ndarray:
    """Stamps placed with their centres at pixel (0, 0) of a periodic square, float32."""
    half = stamps.shape[-1] // 2
    out = np.zeros((*stamps.shape[:-2], size, size), np.float32)
    out[..., :stamps.shape[-2], :stamps.shape[-1]] = stamps
    return np.roll(out, (-half, -half), axis=(-2, -1))
