"""Catalogued orbits err as fits do: by the stated amount, along the longest axis, more with time."""

import numpy as np
import pytest

from simulators import minor_planets, orbit_catalogue, orbits
from simulators.config import AsteroidConfig
from simulators.minor_planets import Patch
from simulators.orbit_catalogue import ARCS, catalogued, designation, separations

T = 61639.2
WHERE = Patch(330.0, -12.0, 1.75, T, 24.4)


def known(family: str = "main_belt", boost: float = 1.0, seed: int = 1, **settings: float) -> np.ndarray:
    rows = minor_planets.draw(family, WHERE, np.random.default_rng(seed), boost)
    rows["id"] = 6_000_000_000 + np.arange(len(rows))
    return catalogued(rows, AsteroidConfig(model="population", **settings), np.random.default_rng(seed), T)


def east_north_arcsec(rows: np.ndarray, mjd: float) -> np.ndarray:
    """(n, 2) predicted less true places."""
    at = np.array([mjd])
    here = orbits.observer(at)
    true, predicted = (orbits.apparent(o, at, here)[0] for o in (rows, rows["predicted"]))
    line = true / np.linalg.norm(true, axis=1)[:, None]
    east = np.stack([-line[:, 1], line[:, 0], np.zeros(len(line))], 1)
    east /= np.linalg.norm(east, axis=1)[:, None]
    off = predicted / np.linalg.norm(predicted, axis=1)[:, None] - line
    return np.degrees(np.stack([np.sum(off * east, 1), np.sum(off * np.cross(line, east), 1)], 1)) * 3600


@pytest.mark.parametrize(("family", "arc"), [(family, arc) for family in ("main_belt", "near_earth", "tno")
                                             for arc in ARCS if (family, arc) != ("tno", "short")])
def test_places_err_by_one_sigma_along_the_longest_axis(arc: str, family: str) -> None:
    one = minor_planets.draw(family, WHERE, np.random.default_rng(2), 3.0)[:1]
    n = 1500
    rows, rng = np.repeat(one, n), np.random.default_rng(3)
    fit = orbit_catalogue._fit(rows, T, T - ARCS[arc][0], np.full(n, 0.2))
    rows["predicted"] = orbit_catalogue._off(rows, fit, rng.normal(size=(n, 6)))
    off = east_north_arcsec(rows, T)
    longest, shortest = np.sqrt(np.linalg.eigvalsh(np.cov(off.T))[::-1])
    assert abs(longest - 0.2) < 4 * 0.2 / np.sqrt(2 * n)
    assert shortest <= longest
    assert np.all(np.abs(off.mean(axis=0)) < 4 * 0.2 / np.sqrt(n))


def test_errors_of_arcs_are_those_configured() -> None:
    rows = known(known=1.0, lost=0.05, ephemeris_error_arcsec=0.15)
    for arc, (_, factor) in ARCS.items():
        mine = rows[rows["arc"] == arc.encode()]
        tolerance = 4 * 1.25 * orbit_catalogue.SPREAD / np.sqrt(len(mine))       # of the logarithm of a median
        assert abs(np.log(np.median(mine["claimed_error"]) / (0.15 * factor))) < tolerance
    assert abs(np.mean(rows["arc"] == b"short") - 0.05) < 4 * np.sqrt(0.05 * 0.95 / len(rows))
    pulls = separations(rows, T) / rows["claimed_error"]
    # between a line and a circle: 68 % and 39 % within one sigma
    assert 0.39 - 0.04 < np.mean(pulls < 1.0) < 0.68 + 0.04
    assert np.mean(pulls > 4.0) < 0.005


def test_a_catalogue_that_claims_half_its_errors_would_be_noticed() -> None:
    rows = known(known=1.0)
    assert np.mean(separations(rows, T) / (0.5 * rows["claimed_error"]) < 1.0) < 0.39 - 0.04


def test_a_fraction_is_unknown_and_has_no_names() -> None:
    rows = known(known=0.6)
    assert abs(np.mean(rows["known"]) - 0.6) < 4 * np.sqrt(0.24 / len(rows))
    unknown = rows[~rows["known"]]
    assert np.all(unknown["ssObjectId"] == 0)
    assert np.all(unknown["designation"] == b"")
    names = rows["designation"][rows["known"]]
    assert len(np.unique(names)) == len(names)


def test_one_apparition_errs_more_a_year_later_than_many_do() -> None:
    rows = known(known=1.0, lost=0.0)
    growth = {arc: np.median(separations(rows[rows["arc"] == arc], T + 400) / separations(rows[rows["arc"] == arc], T))
              for arc in (b"many", b"one")}
    assert growth[b"one"] > 1.0
    assert np.median(separations(rows[rows["arc"] == b"one"], T + 400)) > 3 * np.median(
        separations(rows[rows["arc"] == b"many"], T + 400))


@pytest.mark.parametrize("arc", [b"many", b"one"])
def test_elements_err_by_what_the_catalogue_claims(arc: bytes) -> None:
    rows = known(known=1.0, lost=0.0)
    mine = rows[rows["arc"] == arc]
    for k, name in enumerate(("a", "e", "inc", "node", "argperi", "mean_anomaly")):
        off = mine["predicted"][name] - mine[name]
        pulls = ((off + np.pi) % (2 * np.pi) - np.pi if k > 1 else off) / mine["element_errors"][:, k]
        inside = np.mean(np.abs(pulls) < 1.0)
        assert abs(inside - 0.683) < 4 * np.sqrt(0.683 * 0.317 / len(mine)), name


def test_published_elements_are_at_a_standard_epoch_and_give_the_predicted_place() -> None:
    rows = known(known=1.0)
    terrestrial = rows["published"]["epoch"] + orbits.TT_MINUS_TAI_D
    assert np.allclose(terrestrial, 61600.0, atol=1e-9)
    at = np.array([T])
    here = orbits.observer(at)
    off = orbits.apparent(rows["published"], at, here) - orbits.apparent(rows["predicted"], at, here)
    assert np.abs(off).max() < 1e-10


def test_designations_are_of_a_half_month_that_no_calendar_has() -> None:
    assert [designation(k) for k in (0, 24, 25, 26)] == ["2024 ZA", "2024 ZZ", "2024 ZA1", "2024 ZB1"]
    assert len({designation(k) for k in range(5000)}) == 5000
    assert max(len(designation(k)) for k in range(200_000)) <= 16
