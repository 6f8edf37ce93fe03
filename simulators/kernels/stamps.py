"""Placing sources on an image: points from a radial PSF table, and the transforms of galaxies."""

import numpy as np
from numba import njit


@njit(cache=True)
def add_points(image: np.ndarray, x: np.ndarray, y: np.ndarray, flux: np.ndarray, radius: np.ndarray,
               shape: np.ndarray, table: np.ndarray, step: float) -> None:
    """Add flux * det * table(|A d|) around each point, out to its radius [pixel].

    `shape` is (n, 4): the symmetric matrix Q = A^T A as (xx, xy, yy) and the factor det; `table` holds the profile at
    multiples of `step` pixels, and 0 at its end.
    """
    ny, nx = image.shape
    last = table.size - 1
    for i in range(x.size):
        qxx, qxy, qyy, det = shape[i, 0], shape[i, 1], shape[i, 2], shape[i, 3]
        r = radius[i]
        r2 = r * r
        scale = flux[i] * det
        j0, j1 = max(0, int(np.ceil(y[i] - r))), min(ny - 1, int(np.floor(y[i] + r)))
        for j in range(j0, j1 + 1):
            dy = j - y[i]
            half = np.sqrt(max(r2 - dy * dy, 0.0))
            k0, k1 = max(0, int(np.ceil(x[i] - half))), min(nx - 1, int(np.floor(x[i] + half)))
            for k in range(k0, k1 + 1):
                dx = k - x[i]
                t = np.sqrt(qxx * dx * dx + 2.0 * qxy * dx * dy + qyy * dy * dy) / step
                n = int(t)
                if n < last:
                    f = t - n
                    image[j, k] += scale * (table[n] + f * (table[n + 1] - table[n]))


@njit(cache=True)
def fill_transforms(out: np.ndarray, dx: np.ndarray, dy: np.ndarray, flux: np.ndarray, psf_shape: np.ndarray,
                    galaxy_shape: np.ndarray, profile: np.ndarray, psf_table: np.ndarray, psf_step: float,
                    tables: np.ndarray, table_step: float) -> None:
    """Half-plane transforms of galaxies convolved with the PSF, displaced by (dx, dy) from the stamp's centre pixel.

    `out` is (n, side, side / 2 + 1) complex, as numpy.fft.rfft2 orders it. `psf_shape` and `galaxy_shape` are (n, 3)
    matrices (xx, xy, yy) of the quadratic form whose root is the radial frequency: psf_table is sampled uniformly in
    it [radian per pixel], row `profile` of `tables` uniformly in the root of the dimensionless frequency.
    """
    n, side, width = out.shape
    psf_last, last = psf_table.size - 1, tables.shape[1] - 1
    unit = 2.0 * np.pi / side
    for i in range(n):
        cx, cy = side // 2 + dx[i], side // 2 + dy[i]
        row = profile[i]
        for j in range(side):
            ky = unit * (j if j < (side + 1) // 2 else j - side)
            for k in range(width):
                kx = unit * k
                t = np.sqrt(psf_shape[i, 0] * kx * kx + 2.0 * psf_shape[i, 1] * kx * ky
                            + psf_shape[i, 2] * ky * ky) / psf_step
                m = int(t)
                if m >= psf_last:
                    out[i, j, k] = 0.0
                    continue
                value = psf_table[m] + (t - m) * (psf_table[m + 1] - psf_table[m])
                q = galaxy_shape[i, 0] * kx * kx + 2.0 * galaxy_shape[i, 1] * kx * ky + galaxy_shape[i, 2] * ky * ky
                t = q**0.25 / table_step
                m = int(t)
                if m >= last:
                    out[i, j, k] = 0.0
                    continue
                value *= flux[i] * (tables[row, m] + (t - m) * (tables[row, m + 1] - tables[row, m]))
                angle = -(kx * cx + ky * cy)
                out[i, j, k] = value * complex(np.cos(angle), np.sin(angle))


@njit(cache=True)
def add_stamps(image: np.ndarray, stamps: np.ndarray, x0: np.ndarray, y0: np.ndarray) -> None:
    """Add square stamps whose first pixels are (x0, y0), cut at the image's border."""
    ny, nx = image.shape
    n, side, _ = stamps.shape
    for i in range(n):
        for j in range(max(0, -y0[i]), min(side, ny - y0[i])):
            for k in range(max(0, -x0[i]), min(side, nx - x0[i])):
                image[y0[i] + j, x0[i] + k] += stamps[i, j, k]
