"""Clouds that are not everywhere the same: extinction as a function of place on the focal plane.

The field is a sum of plane waves of Kolmogorov power, k^(-11/3) per area of wave numbers, between 3 degrees and 2
arcminutes; clouds that drift during an exposure are smeared below that. It depends on the visit
alone, so all detectors of a visit look through the same cloud.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.exposure import Visit
from schemas.wcs import Wcs
from simulators.config import SimulationConfig
from simulators.streams import stream

LARGEST_DEG: Final = 3.0
SMALLEST_DEG: Final = 2.0 / 60
WAVES: Final = 64
NODE_PX: Final = 32.0           # of the grid that the extinction is computed on


@dataclass(frozen=True, slots=True)
class Cloud:
    """Extinction over the field of one visit."""

    mean: float                 # [mag] over the focal plane
    waves: np.ndarray           # (WAVES, 4): amplitude [mag], wave vector (xi, eta) [radian per deg], phase

    def extinction(self, xi: np.ndarray, eta: np.ndarray) -> np.ndarray:
        """[mag] at tangent-plane offsets [deg] from the boresight; never negative."""
        xi, eta = np.asarray(xi, float)[..., None], np.asarray(eta, float)[..., None]
        amplitude, k_xi, k_eta, phase = self.waves.T
        waves = np.sum(amplitude * np.cos(k_xi * xi + k_eta * eta + phase), -1)
        return np.asarray(np.maximum(self.mean + waves, 0.0))

    def transmission(self, wcs: Wcs, visit: Visit, shape: tuple[int, int]) -> np.ndarray:
        """(ny, nx) share of the light that passes."""
        plain = Wcs((0.0, 0.0), (visit.ra, visit.dec), (1.0, 0.0, 0.0, 1.0))
        ny, nx = shape
        x, y = (np.linspace(0.0, n - 1.0, max(2, int(np.ceil(n / NODE_PX)) + 1)) for n in (nx, ny))
        nodes = self.extinction(*plain.pixels(*wcs.sky(*np.meshgrid(x, y))))
        rows = np.stack([np.interp(np.arange(nx), x, row) for row in nodes])
        place = np.arange(ny) / (ny - 1.0) * (len(y) - 1) if ny > 1 else np.zeros(1)
        low = np.minimum(place.astype(int), len(y) - 2)
        part = (place - low)[:, None]
        return np.asarray(10 ** (-0.4 * (rows[low] * (1.0 - part) + rows[low + 1] * part)))


def cloud(config: SimulationConfig, visit: Visit, seed: int, mean: float) -> Cloud | None:
    """The cloud of a visit whose mean extinction is given; None without structure."""
    structure = config.conditions.cloud_structure
    if not structure or not mean > 0.0:
        return None
    rng = stream(seed, "cloud structure", visit.visit)
    scale = np.exp(rng.uniform(np.log(SMALLEST_DEG), np.log(LARGEST_DEG), WAVES))
    angle, phase = rng.uniform(0.0, 2 * np.pi, (2, WAVES))
    k = 2 * np.pi / scale
    power = scale ** (5.0 / 3.0)                 # k^-11/3 d^2k, in equal steps of ln k
    amplitude = structure * mean * np.sqrt(2.0 * power / power.sum())
    return Cloud(mean, np.stack([amplitude, k * np.cos(angle), k * np.sin(angle), phase], 1))
