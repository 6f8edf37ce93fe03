"""The population in a scenario's field: who crosses, how predictions follow, what reaches truth and the services."""

import pickle

import numpy as np
import pytest

from schemas.exposure import Box
from simulators import asteroids as solar
from simulators import minor_planets, orbits
from simulators.cadence import visits
from simulators.config import (
    AsteroidConfig,
    CadenceConfig,
    CameraConfig,
    GalaxyConfig,
    SimulationConfig,
    SkyConfig,
    StarConfig,
)
from simulators.minor_planets import Patch
from simulators.sky import Sky
from simulators.solar_system import SolarSystem, weights

T = 61639.2
POPULATION = AsteroidConfig(model="population", boost={"main_belt": 30.0, "near_earth": 300.0})
CONFIG = SimulationConfig(camera=CameraConfig(ny=2000, nx=2000), cadence=CadenceConfig(blocks=("rr", "gr")),
                          sky=SkyConfig(stars=StarConfig(density=0.05), galaxies=GalaxyConfig(density=0.05),
                                        asteroids=POPULATION))


@pytest.fixture(scope="module")
def sky() -> Sky:
    return Sky(CONFIG, 1)


def worst_mas(rows: np.ndarray, half_span_d: float) -> np.ndarray:
    """Largest error of each object's polynomials anywhere in windows at all hours of a day."""
    here, worst, s = SolarSystem(POPULATION), np.zeros(len(rows)), np.linspace(-1, 1, 13)
    for middle in T + np.linspace(-0.5, 0.4, 10):
        table = here.ephemerides(rows, middle, half_span_d)
        at = middle + half_span_d * s
        true = here.apparent(rows["predicted"], at, here.observer(at))
        fit = np.einsum("nck,tk->tnc", table["object_xyz"], s[:, None] ** np.arange(4))
        off = [solar.separation_arcsec(a, b) for a, b in zip(fit, true, strict=True)]
        worst = np.maximum(worst, 1000 * np.max(off, axis=0))
    return worst


def test_cubics_of_the_services_windows_follow_the_belt_to_a_milliarcsecond_and_the_fastest_to_ten() -> None:
    belt = minor_planets.draw("main_belt", Patch(330.0, -12.0, 1.75, T, 24.4), np.random.default_rng(1), 0.2)
    near = minor_planets.draw("near_earth", Patch(330.0, -12.0, 5.0, T, 25.0), np.random.default_rng(1), 30.0)
    at = T + np.array([-0.005, 0.005])
    rate = solar.separation_arcsec(*orbits.apparent(near, at, orbits.observer(at))) / 3600 / 0.01
    near = near[(rate > 3.0) & (rate < 11.0)]
    assert rate[rate < 11.0].max() > 9.0
    span = 0.03                                           # the default of `Sky.ephemerides`
    assert worst_mas(belt, span).max() < 1.0
    assert worst_mas(near, span).max() < 10.0
    assert worst_mas(belt, 0.25).max() > 50.0             # one cubic for a night would not do
    assert worst_mas(near, 2 * span).max() > 10.0         # nor windows twice as long for the fastest


def test_everything_that_is_in_the_field_in_the_night_is_there_and_nothing_else(sky: Sky) -> None:
    rows, here = sky.asteroids, SolarSystem(POPULATION)
    reach = np.cos(np.radians(np.sqrt(2.0) * sky.radius_deg))
    centre = solar.directions(np.array(CONFIG.field.ra), np.array(CONFIG.field.dec))
    counts = np.zeros(len(sky.times))
    ever = np.zeros(len(rows), bool)
    for k, at in enumerate(sky.times):
        vectors = here.apparent(rows, np.array([at]), here.observer(np.array([at])))[0]
        inside = vectors @ centre > reach * np.linalg.norm(vectors, axis=1)
        counts[k], ever = inside.sum(), ever | inside
    assert ever.all()
    # the field is as full at the night's ends, where objects had to come in from outside, as in its middle
    mean = counts.mean()
    assert np.all(np.abs(counts - mean) < 4 * np.sqrt(mean))
    area = Patch(CONFIG.field.ra, CONFIG.field.dec, float(np.sqrt(2.0) * sky.radius_deg), sky.night, 25.0)
    expected = sum(POPULATION.boost[family] * minor_planets.expected(family, area, np.random.default_rng(1))
                   for family in ("main_belt", "near_earth"))
    assert abs(mean - expected) < 4.5 * np.sqrt(expected)


def test_weights_by_truth_id_undo_the_boosts(sky: Sky) -> None:
    rows = sky.asteroids
    ids = np.concatenate([rows["id"][::-1], [3_000_000_001, 7_000_000_000]])
    found = weights(rows, ids)
    assert np.array_equal(found[:-2], rows["weight"][::-1])
    assert found[-2:].tolist() == [1.0, 1.0]
    for family, boost in POPULATION.boost.items():
        assert np.allclose(rows["weight"][rows["family"] == family.encode()], 1 / boost)
    assert weights(rows[:0], ids[:2]).tolist() == [1.0, 1.0]


def test_a_sky_is_its_seeds_and_survives_another_process(sky: Sky) -> None:
    assert pickle.loads(pickle.dumps(sky)).asteroids.tobytes() == sky.asteroids.tobytes()
    assert Sky(CONFIG, 2).asteroids.tobytes() != sky.asteroids.tobytes()


def test_points_trail_along_the_motion_and_carry_the_prediction_error(sky: Sky) -> None:
    visit = visits(CONFIG, 1)[0]
    points = sky.points(visit)
    points = points[points["kind"] == b"asteroid"]
    rows = sky.asteroids
    assert np.array_equal(points["id"], rows["id"])
    middle = np.hypot((points["ra_start"] + points["ra_end"]) / 2 - points["ra"],
                      (points["dec_start"] + points["dec_end"]) / 2 - points["dec"]) * 3600
    assert middle.max() < 0.01
    length = np.hypot((points["ra_end"] - points["ra_start"]) * np.cos(np.radians(points["dec"])),
                      points["dec_end"] - points["dec_start"]) * 3600
    belt = rows["family"] == b"main_belt"
    assert np.median(length[belt]) == pytest.approx(0.23 * 3600 * 30 / 86400, rel=0.15)     # 0.29"
    assert np.array_equal(np.isfinite(points["eph_err_arcsec"]), rows["known"])
    assert np.array_equal(points["ssObjectId"] > 0, rows["known"])
    assert np.allclose(points["flux"], sky.flux_at(points["id"], visit.band, visit.mjd_tai))
    assert np.all(sky.template_flux(points["id"], [visit]) == 0)


def test_the_service_predicts_where_the_catalogue_says(sky: Sky) -> None:
    table = sky.ephemerides(Box(0.0, 360.0, -90.0, 90.0), sky.night)
    known = sky.asteroids[sky.asteroids["known"]]
    assert np.array_equal(table["ssObjectId"], known["ssObjectId"])
    off = solar.separation_arcsec(table["object_xyz"][:, :, 0], sky.solar_system.predicted(known, sky.night))
    assert off.max() < 0.005
    again = np.zeros(len(table), orbits.ORBIT)
    for name in ("a", "e"):
        again[name] = table[name]
    for name in ("inc", "node", "argperi", "mean_anomaly"):
        again[name] = np.radians(table[name])
    again["epoch"] = table["epoch_orbit_mjd_tai"]
    at = np.array([sky.night])
    off = solar.separation_arcsec(orbits.apparent(again, at, orbits.observer(at))[0], table["object_xyz"][:, :, 0])
    assert off.max() < 0.005
    assert len(sky.ephemerides(Box(329.9, 330.1, -12.05, -11.95), sky.night)) < len(table)


def test_the_magnitude_the_service_gives_is_the_v_without_rotation(sky: Sky) -> None:
    table = sky.ephemerides(None, sky.night)
    known = sky.asteroids[sky.asteroids["known"]]
    still = known.copy()
    still["amplitude"] = 0.0
    r = 31.4 - 2.5 * np.log10(sky.solar_system.fluxes(still, "r", sky.night))
    stony = (known["taxon"] == b"S") & (known["family"] == b"main_belt") & (known["arc"] == b"many")
    assert stony.sum() > 20
    assert np.allclose((table["vmag"] - r)[stony], 0.26, atol=2e-3)       # of the predicted distance


def test_the_oversampled_model_knows_nothing_of_it() -> None:
    plain = Sky(SimulationConfig(), 1)
    assert plain.solar_system is None
    assert plain.asteroids.dtype == solar.ASTEROID
