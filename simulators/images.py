"""Noiseless images: stars from the PSF's radial table, galaxies as products of transforms."""

from functools import lru_cache
from typing import Final

import galsim
import numpy as np
from scipy.fft import irfft2

from schemas.wcs import Wcs
from simulators.kernels.stamps import add_stamps, fill_transforms
from simulators.psf import TruePsf

SERSIC: Final = (1, 4)
TABLE_NODES: Final = 4096
TABLE_END: Final = 24.0             # root of the dimensionless frequency k r_e at the table's end
SIDES: Final = (32, 48, 64, 96, 128, 192, 256, 512)
TRAIL_STEP_PX: Final = 0.5


@lru_cache(maxsize=1)
def sersic_tables() -> np.ndarray:
    """(2, TABLE_NODES) GalSim's transforms of Sersic profiles of half-light radius 1, uniform in sqrt(k)."""
    roots = np.linspace(0.0, TABLE_END, TABLE_NODES)
    out = np.zeros((len(SERSIC), TABLE_NODES))
    for row, n in enumerate(SERSIC):
        galaxy = galsim.Sersic(n=n, half_light_radius=1.0)
        out[row] = [galaxy.kValue(float(s * s), 0.0).real for s in roots]
    return out


def pixel_shear(wcs: Wcs, x: float, y: float) -> np.ndarray:
    """(2, 2) matrix from (West, North) [arcsec] to pixels at a position."""
    east_north = wcs.jacobian(x, y) * 3600.0
    return np.asarray(np.linalg.inv(np.diag([-1.0, 1.0]) @ east_north))


def galaxy_matrices(galaxies: np.ndarray, to_pixels: np.ndarray) -> np.ndarray:
    """(n, 2, 2) matrices from a circle of half-light radius 1 to the galaxy in pixels."""
    g1, g2 = galaxies["g1"], galaxies["g2"]
    norm = galaxies["radius"] / np.sqrt(1.0 - g1**2 - g2**2)
    shear = np.stack([np.stack([1.0 + g1, g2], -1), np.stack([g2, 1.0 - g1], -1)], -2) * norm[:, None, None]
    return np.asarray(to_pixels @ shear)


def _sides(galaxies: np.ndarray, flux: np.ndarray, scale_px: float, psf: TruePsf, faintest: float) -> np.ndarray:
    """Stamp side of each galaxy: wide enough for its own light and for the PSF's wings."""
    wings = psf.radius(flux, faintest, 10.0)
    stretch = np.sqrt((1 + np.hypot(galaxies["g1"], galaxies["g2"])) / (1 - np.hypot(galaxies["g1"], galaxies["g2"])))
    radius_px = galaxies["radius"] * scale_px * stretch
    # surface brightness of n = 1 falls as exp(-1.68 r / r_e); n = 4 as exp(-7.67 (r / r_e)^1/4)
    ratio = np.log(np.maximum(flux / (2 * np.pi * radius_px**2) / faintest, 1.0))
    own = np.where(galaxies["sersic"] == 4, np.minimum((np.maximum(ratio + 4.0, 0) / 7.67) ** 4, 12.0), ratio / 1.68)
    need = 2.0 * np.maximum(wings, own * radius_px + 8.0)
    return np.asarray(np.take(SIDES, np.minimum(np.searchsorted(SIDES, need), len(SIDES) - 1)))


def add_galaxies(image: np.ndarray, galaxies: np.ndarray, flux: np.ndarray, wcs: Wcs, psf: TruePsf,
                 faintest: float) -> None:
    """Add GALAXY rows of given fluxes to `image` in place; stamps end where they add less than `faintest`."""
    x, y = wcs.pixels(galaxies["ra"], galaxies["dec"])
    ny, nx = image.shape
    to_pixels = pixel_shear(wcs, (nx - 1) / 2, (ny - 1) / 2)
    sides = _sides(galaxies, flux, 1.0 / wcs.scale_arcsec, psf, faintest)
    half = sides / 2
    near = np.isfinite(x) & (x > -half) & (x < nx + half) & (y > -half) & (y < ny + half)
    for side in np.unique(sides[near]):
        index = np.flatnonzero(near & (sides == side))
        for part in np.array_split(index, max(1, len(index) * int(side) ** 2 // 4_000_000)):
            _add_group(image, galaxies[part], flux[part], x[part], y[part], to_pixels, psf, int(side))


def _add_group(image: np.ndarray, galaxies: np.ndarray, flux: np.ndarray, x: np.ndarray, y: np.ndarray,
               to_pixels: np.ndarray, psf: TruePsf, side: int) -> None:
    ix, iy = np.round(x).astype(np.int64), np.round(y).astype(np.int64)
    matrices = galaxy_matrices(galaxies, to_pixels)
    q = matrices @ np.swapaxes(matrices, -1, -2)
    out = np.empty((len(x), side, side // 2 + 1), np.complex128)
    fill_transforms(out, x - ix, y - iy, np.ascontiguousarray(flux, float),
                    np.ascontiguousarray(psf.frequency_shape(x, y)),
                    np.ascontiguousarray(np.stack([q[:, 0, 0], q[:, 0, 1], q[:, 1, 1]], -1)),
                    np.ascontiguousarray(galaxies["sersic"] == 4).astype(np.int64), psf.profile.transform,
                    psf.profile.k_step, sersic_tables(), TABLE_END / (TABLE_NODES - 1))
    add_stamps(image, irfft2(out, s=(side, side), workers=1), ix - side // 2, iy - side // 2)


def add_trails(image: np.ndarray, x0: np.ndarray, y0: np.ndarray, x1: np.ndarray, y1: np.ndarray, flux: np.ndarray,
               psf: TruePsf, faintest: float) -> None:
    """Add sources that move uniformly from (x0, y0) to (x1, y1) during the exposure, in place."""
    for k in range(len(x0)):
        n = max(1, int(np.ceil(np.hypot(x1[k] - x0[k], y1[k] - y0[k]) / TRAIL_STEP_PX)))
        t = (np.arange(n) + 0.5) / n
        radius = float(psf.radius(flux[k:k + 1], faintest)[0])
        psf.draw(image, x0[k] + t * (x1[k] - x0[k]), y0[k] + t * (y1[k] - y0[k]), np.full(n, flux[k] / n),
                 np.full(n, radius))
