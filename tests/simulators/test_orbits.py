"""Where objects are seen and how bright, against astropy, the definition of light time, and published magnitudes."""

import numpy as np
import pytest

from simulators import asteroids as solar
from simulators import orbits

OPPOSITION = 61639.2


def belt(n: int = 300) -> np.ndarray:
    where = np.full(n, 330.0), np.full(n, -12.0), np.full(n, OPPOSITION)
    return orbits.rows_of(orbits.table(solar.belt(np.random.default_rng(1), *where)))


@pytest.mark.parametrize("mjd", [61639.2, 61300.9, 61001.4])
def test_the_observer_agrees_with_astropy(mjd: float) -> None:
    from astropy import units as u
    from astropy.coordinates import EarthLocation, get_body_barycentric
    from astropy.time import Time
    from astropy.utils import iers
    when = Time(mjd, format="mjd", scale="tai")
    place = EarthLocation.from_geodetic(-70.7494, -30.2444, 2663.0)
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("auto_max_age", None):
        site = place.get_gcrs(when).cartesian.get_xyz().to_value(u.km)
    earth = (get_body_barycentric("earth", when) - get_body_barycentric("sun", when)).get_xyz().to_value(u.km)
    au_km = orbits.AU_M / 1000
    assert np.linalg.norm(orbits.site(np.array([mjd]))[0] * au_km - site) < 0.5       # UT1 - UTC, polar motion [km]
    assert np.linalg.norm(orbits.observer(np.array([mjd]))[0] * au_km - earth - site) < 0.5


def test_light_left_the_object_where_it_was_then() -> None:
    rows, at = belt(), np.array([OPPOSITION])
    here = orbits.observer(at)
    seen = orbits.apparent(rows, at, here)[0]
    delay = np.linalg.norm(seen, axis=1) / 173.144632674
    for k in range(0, len(rows), 30):
        then = orbits.apparent(rows[k:k + 1], at - delay[k], np.zeros((1, 3)), light_time=False)[0, 0]
        assert np.linalg.norm(then - here[0] - seen[k]) < 1e-12


def test_without_light_time_a_main_belt_place_is_wrong_by_seconds_of_arc() -> None:
    rows, at = belt(), np.array([OPPOSITION])
    here = orbits.observer(at)
    off = solar.separation_arcsec(orbits.apparent(rows, at, here)[0],
                                  orbits.apparent(rows, at, here, light_time=False)[0])
    # an asteroid at 17 km/s and 1.5 au: 12 minutes of light, 13,000 km, 12"
    assert 5.0 < off.min() < 14.0
    assert off.max() < 20.0


@pytest.mark.parametrize(("g", "phase", "fainter"), [
    # reduced magnitude over that at zero phase: Bowell et al. 1989, G = 0.15 and 0.25, to 0.01 mag
    (0.15, 0.0, 0.0), (0.15, 10.0, 0.66), (0.15, 20.0, 1.00), (0.25, 20.0, 0.88)])
def test_the_phase_function_has_the_published_values(g: float, phase: float, fainter: float) -> None:
    found = -2.5 * np.log10(orbits.phase_function(np.cos(np.radians(phase)), g))
    assert found == pytest.approx(fainter, abs=0.015)


def test_the_phase_function_agrees_with_the_simple_form_beyond_the_surge() -> None:
    # A exp(-3.33 tan^0.63) and so on: a fit to the same curves, good to 0.03 mag
    for phase in np.radians([8.0, 15.0, 30.0, 60.0, 100.0]):
        tan = np.tan(phase / 2)
        simple = 0.85 * np.exp(-3.33 * tan**0.63) + 0.15 * np.exp(-1.87 * tan**1.22)
        assert -2.5 * np.log10(orbits.phase_function(np.cos(phase), 0.15) / simple) == pytest.approx(0.0, abs=0.03)


def test_brightness_falls_with_both_distances() -> None:
    vectors = np.array([[[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]]])         # beyond an observer at 1 au, opposite the Sun
    v = orbits.v_magnitudes(np.array([15.0, 15.0]), np.array([0.15, 0.15]), vectors, np.array([[1.0, 0.0, 0.0]]))
    assert v[0, 0] == pytest.approx(15.0 + 5 * np.log10(2.0), abs=1e-9)
    assert v[0, 1] == pytest.approx(15.0 + 5 * np.log10(12.0), abs=1e-9)


def test_orbits_with_another_epoch_are_the_same_orbits() -> None:
    rows, at = belt(), np.array([OPPOSITION + 12.0])
    here = orbits.observer(at)
    off = orbits.apparent(rows, at, here) - orbits.apparent(orbits.at_epoch(rows, 60800.0), at, here)
    assert np.abs(off).max() < 1e-11
