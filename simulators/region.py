"""The part of the sky that is drawn: a square about the field, or, of detectors off the axis, cells that they meet.

    +-----------------+      A detector 1.5 degrees from the axis covers 0.05 square degrees of the 13 that a square
    |              ## |      about the boresight has; its sky is drawn in the cells (#) that it meets in some visit.
    |        +        |
    +-----------------+
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.wcs import Wcs
from simulators import cadence, camera
from simulators.camera import MARGIN_PX, field_radius_deg, from_plane
from simulators.config import SimulationConfig

SPARSE: Final = 0.5        # of the square: cells are drawn where they cover less of it
CELLS: Final = 8           # along a detector's side


@dataclass(frozen=True, slots=True)
class Region:
    """Cells of the tangent plane about the field that do not overlap."""

    ra: float                  # [deg] of the field
    dec: float
    radius_deg: float          # half the side of the square that holds them
    cells: np.ndarray          # (n, 2) their lower corners: xi to the East, eta to the North [deg]; none: the square
    side_deg: float            # of a cell

    @property
    def whole(self) -> bool:
        """Whether it is the square."""
        return not len(self.cells)

    @property
    def extent_deg(self) -> float:
        """Side of a square of its area."""
        return 2.0 * self.radius_deg if self.whole else float(self.side_deg * np.sqrt(len(self.cells)))

    def places(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """RA, Dec [deg] of uniform places."""
        if self.whole:
            return from_plane(self.ra, self.dec, *rng.uniform(-self.radius_deg, self.radius_deg, (2, n)))
        corner = self.cells[rng.integers(len(self.cells), size=n)]
        return from_plane(self.ra, self.dec, *(corner + rng.uniform(0.0, self.side_deg, (n, 2))).T)


def region(config: SimulationConfig, seed: int) -> Region:
    """The sky that the scenario's detectors see, dithered and turned as its visits are."""
    field, radius = config.field, field_radius_deg(config)
    square = Region(field.ra, field.dec, radius, np.zeros((0, 2)), 0.0)
    c = config.camera
    side = (np.array([c.nx, c.ny]) + 2 * MARGIN_PX) * c.scale_arcsec / 3600.0
    if len(c.detectors) * side.prod() > SPARSE * (2.0 * radius) ** 2:
        return square
    cell = float(side.min()) / CELLS
    corners = -radius + cell * np.arange(int(np.ceil(2.0 * radius / cell)))
    lower = np.stack(np.meshgrid(corners, corners), axis=-1).reshape(-1, 2)
    met = _met(config, seed, lower + cell / 2, cell / np.sqrt(2.0))
    if np.mean(met) > SPARSE:
        return square
    return Region(field.ra, field.dec, radius, lower[met], cell)


def _met(config: SimulationConfig, seed: int, middle: np.ndarray, around_deg: float) -> np.ndarray:
    """Which circles about places of the plane some detector meets in some visit of the night or of its templates.

    With a margin that holds dithers, and three sigmas of the turns of any other visit.
    """
    c, spread = config.camera, np.radians(config.cadence.rotation_spread_deg)
    out = np.zeros(len(middle), bool)
    plane = Wcs((0.0, 0.0), (config.field.ra, config.field.dec), (1.0, 0.0, 0.0, 1.0))
    ra, dec = plane.sky(*middle.T)
    still = MARGIN_PX + (around_deg * 3600.0 + 2 * config.cadence.dither_arcsec) / c.scale_arcsec
    for visit in [*cadence.visits(config, seed), *cadence.history(config, seed)]:
        for detector in c.detectors:
            margin = still + 3.0 * spread * np.hypot(*camera.offset_px(c, detector))
            wcs = camera.true_wcs(c, visit, detector, seed)
            xi, eta = plane.pixels(*wcs.sky(c.nx / 2, c.ny / 2))
            far = (np.hypot(c.nx, c.ny) / 2 + 2.0 * margin) * c.scale_arcsec / 3600.0
            near = np.flatnonzero(~out & (np.hypot(middle[:, 0] - xi, middle[:, 1] - eta) < far))
            x, y = wcs.pixels(ra[near], dec[near])
            out[near] = (x > -margin) & (x < c.nx + margin) & (y > -margin) & (y < c.ny + margin)
    return out
