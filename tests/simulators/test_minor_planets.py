"""The population in a field: its density, latitudes, rates and sizes, and the whole sky as oracle of the short way."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import kstest

from simulators import asteroids as solar
from simulators import families, minor_planets, orbits
from simulators.families import FAMILIES, POPULATIONS
from simulators.minor_planets import Patch

T = 61639.2
ALL = 99.0                                                   # a magnitude that everything reaches
_EARTH = orbits.observer(np.array([T]))[0] @ solar.TO_EQUATOR
OPPOSITE = float(np.degrees(np.arctan2(_EARTH[1], _EARTH[0])))   # ecliptic longitude opposite the Sun [deg]


def patch(longitude: float = 0.0, latitude: float = 0.0, radius: float = 1.75, faint: float = 24.4,
          band: str = "R") -> Patch:
    """A circle at an ecliptic longitude from opposition."""
    ra, dec = solar.sky(solar.directions(np.array(OPPOSITE + longitude), np.array(latitude)) @ solar.TO_EQUATOR.T)
    return Patch(float(ra), float(dec), radius, T, faint, band)


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def density(where: Patch, family: str = "main_belt", n: int = 60_000) -> float:
    return minor_planets.expected(family, where, rng(), n) / where.area_deg2


def rates(rows: np.ndarray) -> np.ndarray:
    """Motion on the sky from the geocentre [deg/day]."""
    at = T + np.array([-0.005, 0.005])
    vectors = orbits.apparent(rows, at, orbits.observer(at) - orbits.site(at))
    return np.asarray(solar.separation_arcsec(*vectors) / 3600 / 0.01)


def test_the_ecliptic_at_opposition_has_the_published_density() -> None:
    found = len(minor_planets.draw("main_belt", patch(), rng())) / patch().area_deg2
    assert abs(found - 290.0) < 4 * np.sqrt(290.0 / patch().area_deg2)
    assert density(patch(), n=300_000) == pytest.approx(290.0, rel=0.01)


def test_a_visit_there_has_two_thousand_eight_hundred() -> None:
    lsst = patch(radius=np.sqrt(9.6 / np.pi))
    assert abs(len(minor_planets.draw("main_belt", lsst, rng(2))) - 2800) < 4 * np.sqrt(2800)


def test_a_belt_a_fifth_denser_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    knots = tuple((h, log + np.log10(1.2)) for h, log in POPULATIONS["main_belt"].counts)
    monkeypatch.setitem(POPULATIONS, "main_belt", replace(POPULATIONS["main_belt"], counts=knots))
    found = len(minor_planets.draw("main_belt", patch(), rng())) / patch().area_deg2
    assert abs(found - 290.0) > 4 * np.sqrt(290.0 / patch().area_deg2)


def test_density_falls_with_ecliptic_latitude_as_measured() -> None:
    edges, measured = [0, 2, 5, 10, 15, 20, 30, 40], [1.00, 0.96, 0.81, 0.58, 0.35, 0.13, 0.02]
    found = [np.mean([density(patch(latitude=low + (high - low) * part, radius=0.5, faint=ALL), n=20_000)
                      for part in (0.1, 0.3, 0.5, 0.7, 0.9)]) for low, high in pairwise(edges)]
    assert np.array(found) / found[0] == pytest.approx(measured, abs=0.025)


@pytest.mark.parametrize(("elongations", "measured"), [
    ((180.0,), (0.19, 0.22, 0.27)), (np.linspace(95.0, 115.0, 7), (0.06, 0.14, 0.26))])
def test_rates_of_the_belt_are_as_measured(elongations: tuple[float, ...], measured: tuple[float, ...]) -> None:
    rows = [minor_planets.draw("main_belt", patch(180.0 - away, faint=ALL), rng(k), boost=0.01)
            for k, away in enumerate([*elongations, *(-np.array(elongations))])]
    assert np.percentile(rates(np.concatenate(rows)), [5, 50, 95]) == pytest.approx(measured, abs=0.012)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("longitude", [15.0, 105.0])       # from opposition: elongations of 165 and 75 deg
def test_a_field_holds_what_the_whole_sky_has_there(family: str, longitude: float) -> None:
    n, brightest = 60_000, POPULATIONS[family].counts[-1][0]
    rows = minor_planets.whole_sky(family, rng(), n, T, brightest)
    if family == "trojan":
        longitude = 55.0 + longitude / 15.0 + np.degrees(minor_planets.jupiter_longitude(T)) - OPPOSITE
    where = patch(longitude, 3.0, radius=10.0, faint=ALL)
    here = orbits.observer(np.array([T]))
    vectors = orbits.apparent(rows, np.array([T]), here)[0]
    inside = vectors @ solar.directions(np.array(where.ra), np.array(where.dec)) > (
        np.cos(np.radians(10.0)) * np.linalg.norm(vectors, axis=1))
    total = float(POPULATIONS[family].number(ALL))
    mean = minor_planets.expected(family, where, rng(), 40_000) * n / total
    assert abs(inside.sum() - mean) < 4 * np.sqrt(mean) + 0.01 * mean
    drawn = minor_planets.draw(family, where, rng(3), boost=4000.0 / (mean * total / n))
    for name in ("a", "e", "inc"):
        assert kstest(drawn[name], rows[name][inside]).pvalue > 1e-4, name
    found = solar.separation_arcsec(*orbits.apparent(drawn, T + np.array([0.0, 2.0]), np.repeat(here, 2, 0)))
    expected = solar.separation_arcsec(*orbits.apparent(rows[inside], T + np.array([0.0, 2.0]), np.repeat(here, 2, 0)))
    assert kstest(found, expected).pvalue > 1e-4


def test_magnitudes_of_a_field_are_those_of_the_whole_sky_to_the_same_limit() -> None:
    n, faintest = 150_000, 20.5
    rows = minor_planets.whole_sky("main_belt", rng(), n, T, faintest)
    where = patch(radius=12.0, faint=20.0, band="r")
    at = np.array([T])
    here = orbits.observer(at)
    vectors = orbits.apparent(rows, at, here)[0]
    still = rows.copy()
    still["amplitude"] = 0.0
    inside = vectors @ solar.directions(np.array(where.ra), np.array(where.dec)) > (
        np.cos(np.radians(12.0)) * np.linalg.norm(vectors, axis=1))
    bright = inside & (minor_planets.magnitudes(still, "r", T, vectors, here[0]) < 20.0)
    share = n / float(POPULATIONS["main_belt"].number(faintest))
    mean = minor_planets.expected("main_belt", where, rng(), 100_000) * share
    assert abs(bright.sum() - mean) < 4 * np.sqrt(mean)
    drawn = minor_planets.draw("main_belt", where, rng(3), boost=share * 5)
    assert kstest(drawn["h"], rows["h"][bright]).pvalue > 1e-3
    assert abs(np.mean(drawn["taxon"] == b"S") - np.mean(rows["taxon"][bright] == b"S")) < 0.08
    still = drawn.copy()
    still["amplitude"] = 0.0
    assert minor_planets.magnitudes(still, "r", T, orbits.apparent(drawn, at, here)[0], here[0]).max() < 20.0 + 0.01


def test_drawn_orbits_stand_in_the_patch() -> None:
    where = patch(20.0, -4.0, radius=0.5)
    for family in ("main_belt", "near_earth", "tno"):
        rows = minor_planets.draw(family, where, rng(), boost=50.0)
        vectors = orbits.apparent(rows, np.array([T]), orbits.observer(np.array([T])))[0]
        away = solar.separation_arcsec(vectors, solar.directions(np.array(where.ra), np.array(where.dec))[None, :])
        assert len(rows) > 10
        assert away.max() < 0.5 * 3600 + 0.1


def test_a_boost_multiplies_the_number_and_the_weights_undo_it() -> None:
    one = minor_planets.expected("near_earth", patch(), rng())
    rows = minor_planets.draw("near_earth", patch(), rng(), boost=30.0)
    assert abs(len(rows) - 30 * one) < 4 * np.sqrt(30 * one) + 0.02 * 30 * one
    assert rows["weight"].sum() == pytest.approx(len(rows) / 30.0)


def test_sizes_follow_the_counts() -> None:
    population = families.Population(((10.0, 1.0), (15.0, 3.5), (20.0, 5.0)), ((0.0, 5.0),))
    h = population.magnitudes(rng().uniform(size=100_000) * population.number(20.0))
    for limit in (16.0, 18.0):
        expected = population.number(limit) / population.number(20.0)
        assert abs(np.mean(h < limit) - expected) < 4 * np.sqrt(expected / len(h))
    assert population.number(9.0) == 0.0


def test_rotation_has_two_unequal_maxima_a_turn_and_its_amplitude() -> None:
    rows = minor_planets.draw("main_belt", patch(), rng())[:50]
    times = rows["epoch"][0] + np.linspace(0, 1, 400)[:, None] * rows["period"]
    curve = minor_planets.rotation(rows, times)
    assert np.ptp(curve, axis=0) == pytest.approx(rows["amplitude"], rel=0.02)
    maxima = np.sum((curve[1:-1] < curve[:-2]) & (curve[1:-1] < curve[2:]), axis=0)
    assert np.all((maxima >= 1) & (maxima <= 2))
    assert np.all(rows["period"][rows["h"] < 22.0] > 2.2 / 24)


def test_colours_are_the_surfaces() -> None:
    rows = minor_planets.draw("main_belt", patch(), rng())
    at = np.array([T])
    here = orbits.observer(at)
    vectors = orbits.apparent(rows, at, here)[0]
    g, r = (minor_planets.magnitudes(rows, band, T, vectors, here[0]) for band in "gr")
    assert np.median((g - r)[rows["taxon"] == b"C"]) == pytest.approx(0.48)     # Sorcha's demonstration catalogue
    assert np.median((g - r)[rows["taxon"] == b"S"]) == pytest.approx(0.65)


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(ValueError, match=r"family must be one of main_belt, .* got 'vulcanoid'"):
        families.shapes("vulcanoid", rng(), 3)
