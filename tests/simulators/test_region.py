"""The sky that is drawn: all that the detectors see, and little else."""

import dataclasses

import numpy as np
import pytest
from msgspec.structs import replace

from schemas.exposure import Visit
from schemas.wcs import Wcs
from simulators import camera
from simulators.cadence import history, visits
from simulators.config import CameraConfig, SimulationConfig, SkyConfig, StarConfig
from simulators.region import Region, region
from simulators.sky import Sky
from simulators.stars import mean_number

OUTER = 180       # R41_S00... of LSSTCam's list: off the axis by more than a degree


def off_axis(detector: int = OUTER, **cadence: object) -> SimulationConfig:
    plain = SimulationConfig()
    return replace(plain, camera=CameraConfig(layout="lsstcam", detectors=(detector,), ny=4000, nx=4072),
                   cadence=replace(plain.cadence, history_per_band=4, **cadence))


def cell_of(here: Region, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Which places lie in a cell."""
    xi, eta = Wcs((0.0, 0.0), (here.ra, here.dec), (1.0, 0.0, 0.0, 1.0)).pixels(ra, dec)
    have = {(round(a), round(b)) for a, b in (here.cells + here.radius_deg) / here.side_deg}
    at = np.floor((np.stack([xi, eta], -1) + here.radius_deg) / here.side_deg).astype(int)
    return np.array([tuple(one) in have for one in at.tolist()])


def footprint(config: SimulationConfig, visit: Visit, n: int = 41) -> tuple[np.ndarray, np.ndarray]:
    """RA, Dec of a grid over the detector, edges included."""
    c = config.camera
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(0, c.nx - 1, n), np.linspace(0, c.ny - 1, n)))
    return camera.true_wcs(c, visit, c.detectors[0], 1).sky(x, y)


def test_a_detector_on_the_axis_has_the_square_about_the_field() -> None:
    here = region(SimulationConfig(), 1)
    assert here.whole
    assert here.extent_deg == 2.0 * here.radius_deg


def test_every_pixel_of_an_outer_detector_has_its_sky() -> None:
    config = off_axis()
    here = region(config, 1)
    assert not here.whole
    assert here.extent_deg**2 < 0.15 * (2.0 * here.radius_deg) ** 2
    for visit in [*visits(config, 1), *history(config, 1), *history(config, 1, "uz")]:
        assert cell_of(here, *footprint(config, visit)).all()
    turned = dataclasses.replace(visits(config, 1)[0], rotation=visits(config, 1)[0].rotation + 45.0)
    assert cell_of(here, *footprint(config, turned)).mean() < 0.5


def test_without_quarter_turns_less_is_drawn() -> None:
    once, four = region(off_axis(quarter_turns=False), 1), region(off_axis(), 1)
    assert once.extent_deg**2 < 0.4 * four.extent_deg**2


def test_places_are_uniform_over_the_cells() -> None:
    here = region(off_axis(quarter_turns=False), 1)
    ra, dec = here.places(np.random.default_rng(3), 20_000)
    xi, eta = Wcs((0.0, 0.0), (here.ra, here.dec), (1.0, 0.0, 0.0, 1.0)).pixels(ra, dec)
    at = np.floor((np.stack([xi, eta], -1) + here.radius_deg) / here.side_deg + 1e-9).astype(int)
    _, count = np.unique(at, axis=0, return_counts=True)
    assert len(count) == len(here.cells)
    expected = 20_000 / len(here.cells)
    assert np.sum((count - expected) ** 2 / expected) < len(count) + 4 * np.sqrt(2 * len(count))


def test_a_detector_has_the_stars_that_the_density_says() -> None:
    config = replace(off_axis(quarter_turns=False), sky=SkyConfig(stars=StarConfig(density=20.0)))
    sky, c = Sky(config, 5), config.camera
    s = config.sky.stars
    visit = visits(config, 5)[0]
    x, y = camera.true_wcs(c, visit, OUTER, 5).pixels(sky.stars["ra"], sky.stars["dec"])
    seen = np.sum((x > 0) & (x < c.nx) & (y > 0) & (y < c.ny))
    area = c.nx * c.ny * (c.scale_arcsec / 60.0) ** 2
    expected = mean_number(s.density, s.slope, s.bright, s.faint, area)
    assert seen == pytest.approx(expected, abs=4 * np.sqrt(expected) + 0.01 * expected)      # distortion: a per cent
