import pickle

import numpy as np
import pytest

from schemas.exposure import Box, fluxes_njy
from simulators.cadence import history, visits
from simulators.conditions import nominal_sigma_njy
from simulators.config import (
    AsteroidConfig,
    CadenceConfig,
    CameraConfig,
    SimulationConfig,
    SkyConfig,
    StarConfig,
    TransientConfig,
    VariableConfig,
)
from simulators.sky import FIRST_ID, Sky

CONFIG = SimulationConfig()
EVERYWHERE = Box(0.0, 360.0, -90.0, 90.0)


@pytest.fixture(scope="module")
def sky() -> Sky:
    return Sky(CONFIG, 1)


def test_counts_are_those_asked_for(sky: Sky) -> None:
    stars = np.sum(sky.stars["flux"][:, 2] > fluxes_njy(25.0))
    galaxies = np.sum(sky.galaxies["flux"][:, 2] > fluxes_njy(25.0))
    assert abs(stars - 6 * sky.area_arcmin2) < 4.5 * np.sqrt(6 * sky.area_arcmin2)
    assert abs(galaxies - 35 * sky.area_arcmin2) < 4.5 * np.sqrt(35 * sky.area_arcmin2)


def test_star_counts_have_the_asked_slope() -> None:
    config = SimulationConfig(sky=SkyConfig(stars=StarConfig(density=60.0, slope=0.2)))
    r = -2.5 * np.log10(Sky(config, 2).stars["flux"][:, 2]) + 31.4
    n = [np.sum((r > m) & (r < m + 2)) for m in (19.0, 23.0)]
    ratio = 10 ** (0.2 * 4)
    assert n[1] / n[0] == pytest.approx(ratio, rel=4 / np.sqrt(n[0]))


def test_the_same_seed_is_the_same_sky_and_another_is_not(sky: Sky) -> None:
    again, other = pickle.loads(pickle.dumps(sky)), Sky(CONFIG, 2)
    for name in ("stars", "galaxies", "transients", "variables", "agn", "asteroids", "moved"):
        assert getattr(sky, name).tobytes() == getattr(again, name).tobytes()
    assert len(other.stars) != len(sky.stars) or not np.array_equal(other.stars, sky.stars)


def test_transients_are_flat_in_signal_to_noise() -> None:
    config = SimulationConfig(sky=SkyConfig(transients=TransientConfig(per_field=400.0, fading=0.0)))
    here = Sky(config, 3)
    snr = here.fluxes("transient", "r", here.night) / nominal_sigma_njy("r", 30.0, config.camera)
    counts = np.histogram(snr, np.linspace(5, 45, 9))[0]
    assert np.all(np.abs(counts - counts.mean()) < 4.5 * np.sqrt(counts.mean()))


def test_new_transients_are_not_in_templates_and_fading_ones_are_only_there(sky: Sky) -> None:
    templates = [v for v in history(CONFIG, 1) if v.band == "r"]
    flux = sky.template_flux(sky.transients["id"], templates)
    fading = sky.transients["fading"]
    assert np.all(flux[~fading] == 0)
    assert np.allclose(flux[fading], sky.transients["flux"][fading, 2])
    assert np.all(sky.fluxes("transient", "r", sky.night)[fading] < 1e-4 * flux[fading])


def test_hosted_transients_lie_in_their_hosts(sky: Sky) -> None:
    rows = sky.transients[sky.transients["host"] >= 0]
    hosts = sky.galaxies[rows["host"]]
    east = (rows["ra"] - hosts["ra"]) * np.cos(np.radians(hosts["dec"])) * 3600
    north = (rows["dec"] - hosts["dec"]) * 3600
    assert np.allclose(np.hypot(east, north), rows["host_sep"], atol=1e-4)
    assert np.all(rows["host_sep"] < 8 * hosts["radius"])
    share = len(rows) / len(sky.transients)
    assert abs(share - 0.5) < 4 * np.sqrt(0.25 / len(sky.transients))


def test_variables_keep_their_period_and_amplitude() -> None:
    config = SimulationConfig(sky=SkyConfig(variables=VariableConfig(stars_per_field=100.0)))
    here = Sky(config, 4)
    row = np.flatnonzero(here.variables["pulsating"])[0]
    period = here.variables["period"][row]
    m = [-2.5 * np.log10(here.fluxes("variable", "r", here.night + t)[row]) for t in np.linspace(0, period, 200)]
    assert np.ptp(m) == pytest.approx(here.variables["amplitude"][row], rel=0.02)
    assert m[0] == pytest.approx(m[-1], abs=1e-6)


def test_active_nuclei_walk_as_far_as_their_structure_function_says() -> None:
    config = SimulationConfig(sky=SkyConfig(variables=VariableConfig(agn_per_field=300.0)),
                              camera=CameraConfig(ny=3000, nx=3000))
    here = Sky(config, 5)
    assert len(here.agn) > 200
    def structure(days: float) -> float:
        a, b = (-2.5 * np.log10(here.fluxes("agn", "r", here.night + t)) for t in (0.0, days))
        return float(np.sqrt(np.mean((a - b) ** 2)))
    assert structure(3000.0) == pytest.approx(0.25 * np.exp(0.09), rel=0.15)       # SF infinity, its scatter squared
    assert structure(20.0) == pytest.approx(0.25 * np.exp(0.09) * np.sqrt(1 - np.exp(-0.1)), rel=0.2)


def test_asteroids_reach_their_signal_to_noise_and_enough_are_in_the_field(sky: Sky) -> None:
    inside = [np.sum(_inside(sky, v)) for v in visits(CONFIG, 1)]
    assert 6 < np.mean(inside) < 28              # 12 of the belt and 3 near the Earth asked for
    assert abs(np.mean(sky.asteroids["known"]) - 0.7) < 4 * np.sqrt(0.21 / len(sky.asteroids))


def _inside(sky: Sky, visit: object) -> np.ndarray:
    from simulators.observe import sources
    truth = sources(sky, visit, 94, 1)  # type: ignore[arg-type]  # a Visit
    return truth["kind"] == b"asteroid"


def test_no_asteroid_is_in_a_template(sky: Sky) -> None:
    assert not np.any(sky.points(history(CONFIG, 1)[0])["kind"] == b"asteroid")


def test_moved_stars_move_between_templates_and_the_night(sky: Sky) -> None:
    now, before = (sky.points(v) for v in (visits(CONFIG, 1)[0], history(CONFIG, 1)[0]))
    a, b = (p[p["kind"] == b"moved_star"] for p in (now, before))
    moved = np.hypot((a["ra"] - b["ra"]) * np.cos(np.radians(-12)), a["dec"] - b["dec"]) * 3600 / 0.2
    assert np.all((moved > 1.49) & (moved < 6.01))
    assert np.array_equal(b["ra"], b["ra_before"])
    assert np.all(sky.template_flux(a["id"], history(CONFIG, 1)[:1]) > 0)


def test_references_are_bright_stars_with_errors(sky: Sky) -> None:
    rows = sky.references(EVERYWHERE, 1)
    stars = sky.stars[rows["refId"] - FIRST_ID["star"]]
    assert np.all((stars["flux"][:, 2] < fluxes_njy(15.5)) & (stars["flux"][:, 2] > fluxes_njy(22.5)))
    pull = (rows["dec"] - stars["dec"]) * 3600 / rows["decErr"]
    assert abs(np.std(pull) - 1) < 4 / np.sqrt(2 * len(rows))
    pull = (rows["r_flux"] - stars["flux"][:, 2]) / rows["r_fluxErr"]
    assert abs(np.std(pull) - 1) < 4 / np.sqrt(2 * len(rows))
    half = Box(330.0, 340.0, -90.0, 90.0)
    assert np.array_equal(sky.references(half, 1)["refId"], rows["refId"][half.contains(stars["ra"], stars["dec"])])


def test_the_nights_ephemerides_hold_at_every_visit_once(sky: Sky) -> None:
    table = sky.ephemerides()
    known = sky.asteroids["known"].sum()
    for visit in visits(CONFIG, 1):
        holds = np.abs(visit.mjd_tai - table["epoch_mjd_tai"]) <= table["half_span_d"]
        assert holds.sum() == known


def test_a_sky_without_anything_is_empty() -> None:
    nothing = SkyConfig(stars=StarConfig(density=0.0, moved_per_visit_field=0.0),
                        transients=TransientConfig(per_field=0.0),
                        variables=VariableConfig(stars_per_field=0.0, agn_per_field=0.0),
                        asteroids=AsteroidConfig(belt_per_field=0.0, near_earth_per_field=0.0))
    here = Sky(SimulationConfig(sky=nothing, cadence=CadenceConfig(pairs=1)), 1)
    assert len(here.points(visits(here.config, 1)[0])) == 0
    assert len(here.ephemerides()) == 0
    assert len(here.references(EVERYWHERE, 1)) == 0
