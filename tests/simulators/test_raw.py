"""Raw images: each effect does what physics says of it."""

import numpy as np
import pytest

from schemas import mask as planes
from simulators import focalplane, observe, raw
from simulators.cadence import visits
from simulators.config import CameraConfig, RawConfig, SimulationConfig
from simulators.sky import Sky
from tests.pipeline.raws import patches, settings

E2V, ITL = (focalplane.sensor(focalplane.detector_id(name)) for name in ("R22_S11", "R01_S11"))


@pytest.mark.parametrize(("sensor", "a00"), [(E2V, -3.49e-6), (ITL, -1.70e-6)])
def test_areas_that_pixels_lose_to_charge_are_as_measured(sensor: focalplane.Sensor, a00: float) -> None:
    areas = raw.area_matrix(sensor)
    middle = len(areas) // 2
    assert areas[middle, middle] == pytest.approx(a00, rel=1e-3)
    assert areas[middle, middle + 1] > areas[middle + 1, middle] > 0.0
    assert abs(areas.sum()) < 1e-12                      # the area of all pixels together stays


def test_the_potential_has_the_areas_as_its_laplacian() -> None:
    areas = raw.area_matrix(E2V)
    k = raw.potential(areas)
    laplacian = k[1:-1, 2:] + k[1:-1, :-2] + k[2:, 1:-1] + k[:-2, 1:-1] - 4 * k[1:-1, 1:-1]
    assert np.allclose(laplacian, areas[1:-1, 1:-1], atol=1e-12)


def test_flats_have_the_covariances_of_the_brighter_fatter_effect() -> None:
    """V = mu + a00 mu^2 + higher, C_ij = a_ij mu^2 (Astier et al. 2019): to first order, and 5 sigmas of sampling."""
    level, rng = 10_000.0, np.random.default_rng(8)
    flat = rng.poisson(level, (1200, 1200)).astype(np.float32)
    plain = flat.var(dtype=float)
    raw.brighter_fatter(flat, E2V)
    away = flat.astype(float) - level
    areas = raw.area_matrix(E2V)
    m = len(areas) // 2
    assert (away.var() - plain) / level**2 == pytest.approx(areas[m, m], rel=0.05)
    for dx, dy in ((1, 0), (0, 1), (1, 1)):
        found = np.mean(away[dy:, dx:] * away[: len(away) - dy, : len(away) - dx]) / level**2
        assert abs(found - areas[m + dy, m + dx] * (1 + level * areas[m, m])) < 5 / level / 1200


def test_brighter_fatter_keeps_every_electron() -> None:
    image = np.random.default_rng(1).uniform(0, 50_000, (300, 200)).astype(np.float32)
    before = image.sum(dtype=float)
    raw.brighter_fatter(image, ITL)
    assert image.sum(dtype=float) == pytest.approx(before, rel=1e-7)


def drawn(effects: tuple[str, ...], scene: np.ndarray | None = None, *, select: str = "R22_S11") -> raw.Drawn:
    config = settings(effects, select=select, shape=(256, 512))
    scene = patches(config, 500.0) if scene is None else scene
    visit = visits(config, 1)[0]
    return raw.record(scene, 500.0, config, visit, config.camera.detectors[0], 1, None, None, 30.0)   # type: ignore[arg-type]


def test_digits_are_whole_and_above_a_bias_of_each_amplifier() -> None:
    amplifiers = drawn(("read_noise",)).amplifiers
    assert amplifiers.dtype == np.int32
    levels = amplifiers[:, :, -20:].mean(axis=(1, 2))
    assert np.abs(levels - E2V.bias_adu).max() < 0.2
    noise = amplifiers[:, :, -20:].std(axis=(1, 2)) * E2V.gain
    assert np.abs(noise / np.hypot(E2V.read_noise, E2V.gain / np.sqrt(12)) - 1).max() < 0.06


def test_crosstalk_shows_an_amplifiers_light_in_the_others() -> None:
    scene = np.full((256, 512), 100.0)
    scene[:128, :64] = 90_000.0                          # C10
    with_it, without_it = (drawn(effects, scene).amplifiers.astype(float) for effects in (("crosstalk",), ()))
    light = (with_it - without_it)[:, :128, 12:70].mean(axis=(1, 2)) * E2V.gain
    expected = E2V.crosstalk[:, 0] * 90_000.0
    assert np.abs(light[1:] - expected[1:]).max() < 0.3 + 0.02 * np.abs(expected).max()
    assert light[1] > 5.0


def test_what_is_truly_saturated_is_known_and_bleeds() -> None:
    scene = np.full((256, 512), 500.0)
    scene[50, 100] = 3e6
    mask = drawn(("saturation",), scene).mask
    column = np.flatnonzero(mask[:, 100] & planes.SAT)
    assert len(column) == pytest.approx(3e6 / E2V.full_well.mean(), abs=4)
    assert np.ptp(column) == len(column) - 1
    assert not (mask[:, 99] & planes.SAT).any()


def test_detectors_are_themselves_whatever_the_seed_and_effects_of_others_do_not_move() -> None:
    config = settings(("bias", "dark", "defects"), shape=(128, 256))
    once, again = raw.response(config, 94, "r"), raw.response(config, 94, "g")
    assert np.array_equal(once.dark, again.dark)
    assert np.array_equal(once.bias, again.bias)
    assert not np.array_equal(once.dark, raw.response(settings(("dark",), select="R22_S12", shape=(128, 256)), 95,
                                                      "r").dark)


def test_fringes_are_in_y_alone() -> None:
    config = settings(("fringe",), shape=(128, 256))
    assert raw.response(config, 94, "z").fringe is None
    fringe = raw.response(config, 94, "y").fringe
    assert fringe is not None
    assert abs(fringe.mean()) < 1e-6
    assert 0.5 * raw.FRINGES < np.abs(fringe).max() < 2.1 * raw.FRINGES


def test_calibrations_of_more_frames_are_nearer_to_the_ideal() -> None:
    ideal, few, many = (raw.calibrations(settings(("bias", "dark", "flat", "read_noise"), shape=(128, 256), frames=n),
                                         94, "r") for n in (0, 5, 500))
    for name in ("bias", "dark", "flat"):
        far, near = (float(np.std(getattr(c, name) - getattr(ideal, name))) for c in (few, many))
        assert far / near == pytest.approx(10.0, rel=0.05)


def test_an_exposure_of_the_sky_is_raw_where_the_scenario_says_so() -> None:
    camera = CameraConfig(layout="lsstcam", product="raw", select=("R22_S11",), ny=128, nx=256, raw=RawConfig())
    config = SimulationConfig(camera=camera)
    sky, visit = Sky(config, 3), visits(config, 3)[0]
    exposed = observe.expose(sky, visit, 94, 3)
    assert exposed.exposure.amplifiers.shape == (16, 64 + 46, 10 + 32 + 54)      # type: ignore[union-attr]
    assert set(np.unique(exposed.mask)) <= {0, planes.BAD, planes.SAT, planes.BAD | planes.SAT}
    earlier = observe.expose(sky, visit, 94, 3, around_px=10).exposure
    assert earlier.image.shape == (148, 276)             # type: ignore[union-attr]  # calibrated: a template's input
