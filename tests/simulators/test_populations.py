import msgspec
import numpy as np
import pytest

from schemas.exposure import fluxes_njy
from simulators.cadence import visits
from simulators.config import CLASS_NAMES, ClassConfig, DustConfig, SimulationConfig
from simulators.densities import LIMITS, NO_GALAXIES, explosive_densities, gaussian_densities
from simulators.observe import sources
from simulators.populations import (
    EXPLOSIVE,
    GALACTIC,
    STELLAR,
    Patch,
    explosions,
    redshifts,
    stars_that_change,
)
from simulators.sky import FIRST_ID, Sky
from simulators.streams import stream

PATCH = Patch(150.0, 2.2, 0.5, 1.0, 60_000.0, 60_000.0, DustConfig(a_v=0.0))
NOBODY = np.zeros(0, bool)

# Events per deg^2 and year brighter than LIMITS, computed by others from the same rates with Gaussian peaks, K = 1.0 z
TABLE = {"sn_ia": (1.1, 5.3, 14.0, 32.0, 47.0), "sn_iin": (0.22, 1.2, 3.3, 8.7, 14.0),
         "slsn_i": (0.015, 0.06, 0.13, 0.27, 0.38)}


def config(**sky: object) -> SimulationConfig:
    return msgspec.convert({"camera": {"ny": 600, "nx": 600}, "sky": sky}, SimulationConfig)


@pytest.fixture(scope="module")
def sky() -> Sky:
    return Sky(config(classes={name: {"per_field": 60.0} for name in CLASS_NAMES}, stars={"model": "galaxy"},
                      galaxies={"model": "bulge_disk"}), 1)


def test_every_class_is_declared_with_its_source() -> None:
    assert set(EXPLOSIVE) | set(STELLAR) == set(CLASS_NAMES)
    assert all(declared.source for declared in [*EXPLOSIVE.values(), *GALACTIC])


@pytest.mark.parametrize("name", TABLE)
def test_rates_and_volumes_give_the_published_densities(name: str) -> None:
    ours = gaussian_densities(name)
    assert ours == pytest.approx(TABLE[name], rel=0.35)        # the table has two digits, its peaks are rounded
    assert ours[1:] == pytest.approx(TABLE[name][1:], rel=0.2)


def test_core_collapse_densities_are_within_a_factor_of_one_and_a_half_of_the_published() -> None:
    stripped = sum(gaussian_densities(name) for name in ("sn_iib", "sn_ib", "sn_ic"))
    assert np.all(np.abs(np.log(stripped / (0.28, 1.7, 5.5, 16.0, 28.0))) < np.log(1.5))
    assert np.all(np.abs(np.log(gaussian_densities("sn_ii") / (0.35, 2.1, 6.8, 20.0, 34.0))) < np.log(1.5))


def test_drawn_explosions_have_the_density_of_their_rate() -> None:
    # spectra at rest differ little from K = 0 while z is small: the draws and the quadrature count the same events
    found, crude = explosive_densities("sn_ib"), gaussian_densities("sn_ib")
    assert np.all(np.abs(np.log(found["yearly"][:2] / crude[:2])) < 0.4)
    assert np.all(found["live"] < found["yearly"])
    assert np.all(np.diff(found["yearly"]) > 0)
    assert tuple(found["limit"]) == LIMITS


@pytest.mark.parametrize("spread", ["natural", "flat"])
def test_weights_sum_to_the_true_number(spread: str) -> None:
    declared, years = EXPLOSIVE["sn_ia"], 2e-4
    rng = np.random.default_rng(5)
    z, weight = redshifts(declared, msgspec.convert({"per_field": 20_000.0, "spread": spread}, ClassConfig), years, 1.0,
                          rng)
    grid = np.linspace(0, declared.z_max, 4001)
    from simulators.populations import events_per_year_sr

    expected = float(np.sum(events_per_year_sr(declared, grid)) * grid[1] * years)
    error = np.sqrt(np.sum(weight**2))
    assert abs(weight.sum() - expected) < 4 * error
    near = z < 0.4
    truth = float(np.sum(events_per_year_sr(declared, grid)[grid < 0.4]) * grid[1] * years)
    assert abs(weight[near].sum() - truth) < 4 * np.sqrt(np.sum(weight[near] ** 2))


def test_the_weighted_mean_of_a_raised_sample_is_that_of_a_natural_one_and_without_weights_is_not() -> None:
    declared = EXPLOSIVE["sn_ia"]

    def drawn(spread: str, number: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        found = explosions(declared, msgspec.convert({"per_field": number, "spread": spread}, ClassConfig), PATCH,
                           stream(seed, "weights"), NO_GALAXIES, NOBODY)
        return found.rows["redshift"], found.rows["weight"]

    natural, _ = drawn("natural", 20_000.0, 1)
    z, weight = drawn("flat", 5000.0, 2)
    mean = np.sum(weight * z) / weight.sum()
    error = np.hypot(np.sqrt(np.sum(weight**2 * (z - mean) ** 2)) / weight.sum(), natural.std() / np.sqrt(len(natural)))
    assert abs(mean - natural.mean()) < 4 * error
    assert abs(z.mean() - natural.mean()) > 10 * error          # negative control: weights forgotten


def test_boost_and_per_field_say_the_same_thing() -> None:
    found = [stars_that_change(STELLAR["eclipsing"], c, PATCH, stream(1, "same"))
             for c in (ClassConfig(boost=4.0), ClassConfig(per_field=4.0 / 2.0 * 100.0))]
    assert found[0].rows["weight"][0] == pytest.approx(0.25, rel=0.3)
    expected = [np.sum(one.rows["weight"]) for one in found]
    assert expected[0] == pytest.approx(expected[1], rel=4 / np.sqrt(len(found[1].rows)))


def test_stars_cannot_be_spread_in_redshift() -> None:
    with pytest.raises(ValueError, match="class rr_lyrae: spread must be 'natural' for stars, got 'flat'"):
        stars_that_change(STELLAR["rr_lyrae"], ClassConfig(spread="flat"), PATCH, stream(1, "x"))


def test_an_unknown_class_is_refused_by_name() -> None:
    with pytest.raises(msgspec.ValidationError, match="Invalid enum value 'sn_x'"):
        config(classes={"sn_x": {}})


def test_truth_carries_class_and_weight_of_every_declared_source(sky: Sky) -> None:
    visit = visits(sky.config, 1)[0]
    rows = sources(sky, visit, 94, 1)
    declared = rows[rows["class"] != b""]
    assert set(declared["class"].tolist()) <= {name.encode() for name in CLASS_NAMES}
    assert len(np.unique(declared["class"])) > 10
    assert np.all(declared["weight"] > 0)
    assert set(np.unique(declared["kind"]).tolist()) == {b"transient", b"variable", b"agn"}
    assert np.all(np.isnan(rows["weight"][rows["class"] == b""]))


def test_a_visit_can_be_asked_alone_and_fluxes_by_id_are_those_of_points(sky: Sky) -> None:
    visit = visits(sky.config, 1)[-1]
    points = sky.points(visit)
    of = points["id"] >= FIRST_ID["class"]
    assert of.sum() > 300
    assert sky.flux_at(points["id"][of][::-1], visit.band, visit.mjd_tai) == pytest.approx(points["flux"][of][::-1])
    again = Sky(sky.config, 1).points(visit)
    assert np.array_equal(again["flux"], points["flux"])


def test_sources_that_no_visit_sees_are_left_out(sky: Sky) -> None:
    from simulators.cadence import history

    looks = [*history(sky.config, 1), *visits(sky.config, 1)]
    for found in sky.populations:
        top = np.max([found.fluxes("ugrizy".index(v.band), v.mjd_tai) for v in looks], axis=0)
        assert np.all(top > fluxes_njy(sky.config.sky.classes_faintest))


def test_no_galaxy_hosts_twice_and_hosts_are_near_their_events_in_redshift(sky: Sky) -> None:
    hosts = np.concatenate([p.rows["host"] for p in sky.populations])
    hosts = hosts[hosts >= 0]
    assert len(hosts) > 50
    assert len(np.unique(hosts)) == len(hosts)
    for found in sky.populations:
        rows = found.rows[(found.rows["host"] >= 0) & np.isfinite(found.rows["redshift"])]
        gap = np.log1p(rows["redshift"]) - np.log1p(sky.galaxies["redshift"][rows["host"]])
        assert np.all(np.abs(gap) <= 0.1 + 1e-9)
        assert found.name != "tde" or np.all(rows["host_sep"] == 0)


def test_disks_and_bulges_share_the_light_of_their_galaxy(sky: Sky) -> None:
    rows = sky.galaxies
    bulges = rows[rows["total"][:, 2] == 0]
    assert len(bulges) > 0.3 * np.sum(rows["sersic"] == 1)
    assert np.all(bulges["sersic"] == 4)
    assert rows["flux"].sum(axis=0) == pytest.approx(rows["total"].sum(axis=0))
    assert len(np.unique(rows["id"])) == len(rows)


def test_without_classes_the_sky_has_no_populations_and_its_points_no_weight() -> None:
    plain = Sky(config(), 1)
    points = plain.points(visits(plain.config, 1)[0])
    assert plain.populations == ()
    assert np.all(np.isnan(points["weight"]))
    assert np.all(points["class"] == b"")
