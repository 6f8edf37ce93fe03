"""Cosmic rays on a difference image: what is sharper than the PSF.

A pixel of a star stands no higher over the mean of two opposite neighbours than the PSF's own peak does. A pixel that
does, along any of four directions and beyond its noise, is part of a cosmic ray (condition 3 of the finder of SDSS's
photo, which meas_algorithms has; here against the difference's own PSF).
"""

from typing import Final

import numpy as np

from pipeline.kernels import detection as kernels
from pipeline.pixel_config import DetectConfig
from pipeline.psf import Psf

_HOLE: Final = 0.35       # of the pixel's own height: deeper than whitening leaves beside a cosmic ray
_DIRECTIONS: Final = ((0, 1), (1, 0), (1, 1), (1, -1))


def find(image: np.ndarray, variance: np.ndarray, usable: np.ndarray, psf: Psf, config: DetectConfig) -> np.ndarray:
    """(ny, nx) bool: pixels of cosmic rays; unusable pixels are never among them and are no evidence.

    The neighbours of a core that stand 2 sigma above the sky belong to it.
    """
    found = np.zeros(image.shape, bool)
    y, x = np.divmod(kernels.bright(image, variance, usable, config.cosmic_ray_sigmas), image.shape[1])

    def squared_noise(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.where(usable[y, x], variance[y, x], np.inf)

    value, noise = image[y, x].astype(float), squared_noise(y, x)
    sharp = np.zeros(len(x), bool)
    for (dy, dx), share in zip(_DIRECTIONS, contrast(psf), strict=True):
        limit = config.cosmic_ray_contrast * share
        pair = 0.5 * (image[y - dy, x - dx].astype(float) + image[y + dy, x + dx])
        spread = 0.25 * (squared_noise(y - dy, x - dx) + squared_noise(y + dy, x + dx))
        excess = limit * value - pair
        sharp |= excess > config.cosmic_ray_excess * np.sqrt(limit**2 * noise + spread)
    y, x, value, noise = y[sharp], x[sharp], value[sharp], noise[sharp]
    cores = ~_beside_a_hole(image, noise, value, y, x)
    y, x = y[cores], x[cores]
    found[y, x] = True
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            v, u = y + dy, x + dx       # inside: cores are never on the border
            raised = image[v, u] > 2.0 * np.sqrt(squared_noise(v, u))
            found[v[raised], u[raised]] = True
    return found


def _beside_a_hole(image: np.ndarray, noise: np.ndarray, value: np.ndarray, y: np.ndarray,
                   x: np.ndarray) -> np.ndarray:
    """(n,) bool: a pixel with one about as negative near it is the lobe of a dipole, which is sharp by itself."""
    lowest, steps = value, range(-2, 3)
    ny, nx = image.shape
    for dy in steps:
        for dx in steps:
            lowest = np.minimum(lowest, image[np.clip(y + dy, 0, ny - 1), np.clip(x + dx, 0, nx - 1)])
    return np.asarray((lowest < -_HOLE * value) & (lowest < -4.0 * np.sqrt(noise)))


def contrast(psf: Psf) -> tuple[float, ...]:
    """Mean of two opposite neighbours over the peak, of a star centred on a pixel, along each direction."""
    stamp, c = psf.central, psf.width // 2
    return tuple(float(0.5 * (stamp[c - dy, c - dx] + stamp[c + dy, c + dx]) / stamp[c, c]) for dy, dx in _DIRECTIONS)
