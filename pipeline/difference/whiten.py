"""Noise decorrelation: the kernel that whitens a difference of convolved images (DMTN-021; Reiss & Lupton 2016).

The noise of D = S - K * T has the power spectrum v_s rho_s(k) + v_t |K(k)|^2 rho_t(k), where rho are the transforms
of the inputs' own noise autocorrelations (1 for white noise). Dividing its root out makes D white; the kernel has unit
sum, so that fluxes keep their scale, and the white level is the spectrum's value at k = 0.

The spectrum changes over an image (kernel, sky, depth of the template), so kernels are made on a grid of nodes, and a
polynomial of position through them filters the image.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft

SIZE = 64            # of the transforms in which spectra are evaluated
FLOOR = 0.02         # least power of an input's noise spectrum, relative to its mean: measured correlations are noisy


@dataclass(frozen=True, slots=True)
class Noise:
    """Blank-sky noise of one image."""

    variance: float          # per pixel
    acf: np.ndarray          # (2k+1, 2k+1), 1 at the centre


def spectrum(acf: np.ndarray, size: int = SIZE) -> np.ndarray:
    """(size, size) noise power for unit variance per pixel; its mean is 1."""
    side = acf.shape[0]
    if side == 1:
        return np.ones((size, size))
    stamp = np.zeros((size, size))
    stamp[:side, :side] = acf
    power = fft.fft2(np.roll(stamp, (-(side // 2), -(side // 2)), axis=(0, 1))).real
    power = np.maximum(power, FLOOR)
    return np.asarray(power / power.mean())


def transfer(kernel: np.ndarray, size: int = SIZE) -> np.ndarray:
    """(size, size) squared modulus of a kernel's transform."""
    stamp = np.zeros((size, size))
    stamp[:kernel.shape[0], :kernel.shape[1]] = kernel
    return np.asarray(np.abs(fft.fft2(stamp)) ** 2)


def whitening(left: Noise, left_kernel: np.ndarray, right: Noise, right_kernel: np.ndarray,
              half: int) -> tuple[np.ndarray, float, float]:
    """The whitening kernel of left_kernel * left - right_kernel * right, and what it makes of unit input variances.

    Returns
    -------
    kernel : (2 half + 1, 2 half + 1) float64
        Of unit sum.
    gain_left, gain_right : float
        Variance of a pixel of the whitened difference per unit of variance of a pixel of each input.
    """
    power_left = spectrum(left.acf) * transfer(left_kernel)
    power_right = spectrum(right.acf) * transfer(right_kernel)
    power = left.variance * power_left + right.variance * power_right
    response = np.sqrt(power[0, 0] / np.maximum(power, 1e-6 * power.max()))
    stamp = fft.fftshift(fft.ifft2(response).real)
    middle = SIZE // 2
    stamp = stamp[middle - half:middle + half + 1, middle - half:middle + half + 1]
    radius = np.hypot(*np.mgrid[-half:half + 1, -half:half + 1])
    stamp = stamp * np.clip((half + 1 - radius) / (0.25 * half), 0.0, 1.0)
    stamp /= stamp.sum()
    filtered = transfer(stamp)
    return stamp, float((filtered * power_left).mean()), float((filtered * power_right).mean())


@dataclass(frozen=True, slots=True)
class Nodes:
    """A grid over an image, from border to border."""

    x: np.ndarray            # (nx,) float64, the first at 0 and the last at the last pixel
    y: np.ndarray

    @classmethod
    def over(cls, shape: tuple[int, int], count: int) -> "Nodes":
        """So many nodes along each side."""
        return cls(np.linspace(0, shape[1] - 1, count), np.linspace(0, shape[0] - 1, count))

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """(ny nx,) x and y of all nodes, row by row."""
        x, y = np.meshgrid(self.x, self.y)
        return x.ravel(), y.ravel()


def interpolate(values: np.ndarray, nodes: Nodes, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(len(y), len(x)) float32 values at rows and columns [pixel], linear between those (my, mx) at nodes."""
    down, across = ((1.0 - np.abs(at[:, None] - of) / (of[1] - of[0])).clip(0.0, 1.0).astype(np.float32)
                    for at, of in ((y, nodes.y), (x, nodes.x)))
    return np.asarray(down @ values.astype(np.float32) @ across.T)
