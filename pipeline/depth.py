"""How deep a template is, place by place."""

import numpy as np

from pipeline.images import Template
from pipeline.pixel_half import correlated_noise
from schemas import mask as planes
from schemas.exposure import magnitudes

_NODES = 9       # per side, at which the PSF is taken; linear in between


def depth(template: Template) -> np.ndarray:
    """(ny, nx) float32 AB magnitude of a point source of S/N 5 on the noise of each pixel; NaN without data."""
    ny, nx = template.shape
    y, x = np.linspace(0, ny - 1, _NODES), np.linspace(0, nx - 1, _NODES)
    area = np.empty((_NODES, _NODES))
    for j in range(_NODES):
        for i in range(_NODES):
            stamp = template.psf.at(float(x[i]), float(y[j]))
            area[j, i] = correlated_noise(stamp, template.noise_acf) / np.sum(stamp**2)
    across = np.stack([np.interp(np.arange(nx), x, line) for line in area])       # (nodes, nx)
    out = np.empty((ny, nx), np.float32)
    for row in range(ny):
        j = min(int(row / max(ny - 1, 1) * (_NODES - 1)), _NODES - 2)
        share = row / max(ny - 1, 1) * (_NODES - 1) - j
        noise = template.variance[row] * ((1 - share) * across[j] + share * across[j + 1])
        known = (template.mask[row] & planes.NO_DATA) == 0
        out[row] = np.where(known, magnitudes(5.0 * np.sqrt(np.where(known, noise, 1.0))), np.nan)
    return out
