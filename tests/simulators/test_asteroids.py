import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators import asteroids as solar
from simulators.config import AsteroidConfig

OPPOSITION = 61639.2        # RA 330, Dec -12 is opposite the Sun
WHERE = np.full(400, 330.0), np.full(400, -12.0), np.full(400, OPPOSITION)


def belt(n: int = 400) -> np.ndarray:
    return solar.belt(np.random.default_rng(1), *(w[:n] for w in WHERE))


def rate_deg_d(rows: np.ndarray, mjd: float) -> np.ndarray:
    h = 0.01
    return solar.separation_arcsec(solar.topocentric(rows, mjd - h), solar.topocentric(rows, mjd + h)) / 3600 / (2 * h)


@given(st.floats(-20, 20), st.floats(0, 0.97))
def test_keplers_equation_is_solved(mean_anomaly: float, e: float) -> None:
    anomaly = solar.eccentric_anomaly(np.array([mean_anomaly]), np.array([e]))[0]
    residual = anomaly - e * np.sin(anomaly) - mean_anomaly
    assert abs((residual + np.pi) % (2 * np.pi) - np.pi) < 1e-11


def test_a_state_and_its_elements_agree() -> None:
    rows = belt()
    h = 1e-3
    position = solar.positions(rows, rows["epoch"])
    velocity = (solar.positions(rows, rows["epoch"] + h) - solar.positions(rows, rows["epoch"] - h)) / (2 * h)
    again = solar.elements(position, velocity, rows["epoch"])
    for name in ("a", "e", "inc"):
        assert np.allclose(again[name], rows[name], atol=1e-5)
    later = rows["epoch"] + 300.0
    assert np.allclose(solar.positions(again, later), solar.positions(rows, later), atol=1e-4)


def test_energy_and_momentum_are_conserved() -> None:
    rows = belt(20)
    h = 1e-3
    for t in (0.0, 500.0):
        at = rows["epoch"] + t
        p = solar.positions(rows, at)
        v = (solar.positions(rows, at + h) - solar.positions(rows, at - h)) / (2 * h)
        energy = 0.5 * np.sum(v**2, axis=1) - solar.GM_SUN / np.linalg.norm(p, axis=1)
        assert np.allclose(energy, -solar.GM_SUN / (2 * rows["a"]), rtol=1e-5)


def test_chosen_orbits_stand_where_they_were_asked_to() -> None:
    ra, dec = solar.sky(solar.topocentric(belt(), OPPOSITION))
    assert np.abs((ra - 330.0) * 3600).max() < 0.01
    assert np.abs((dec + 12.0) * 3600).max() < 0.01


def test_main_belt_rates_at_opposition_are_the_belts() -> None:
    # a toy belt seen from the geocentre: 0.19 / 0.22 / 0.27 deg/day at 5, 50, 95 %; the site's turning adds 0.01
    low, middle, high = np.percentile(rate_deg_d(belt(), OPPOSITION), [5, 50, 95])
    assert low == pytest.approx(0.19, abs=0.02)
    assert middle == pytest.approx(0.22, abs=0.02)
    assert high == pytest.approx(0.27, abs=0.03)


def test_near_earth_orbits_move_at_the_asked_rate() -> None:
    rng = np.random.default_rng(3)
    wanted = np.exp(rng.uniform(0.0, np.log(12.0), 100))
    rows = solar.near_earth(rng, *(w[:100] for w in WHERE), wanted)
    assert np.all((rows["e"] > 0) & (rows["e"] < 0.95) & (rows["a"] > 0))
    ratio = rate_deg_d(rows, OPPOSITION) / wanted
    assert np.mean(np.abs(ratio - 1) < 0.2) > 0.85
    ra, dec = solar.sky(solar.topocentric(rows, OPPOSITION))
    assert np.hypot((ra - 330) * np.cos(np.radians(12)), dec + 12).max() * 3600 < 0.5


def test_the_earth_agrees_with_astropy() -> None:
    from astropy import units as u
    from astropy.coordinates import get_body_barycentric
    from astropy.time import Time
    when = Time(OPPOSITION, format="mjd", scale="tai")
    earth = (get_body_barycentric("earth", when) - get_body_barycentric("sun", when)).get_xyz().to_value(u.au)
    assert np.linalg.norm(solar.observer(OPPOSITION) - earth) == pytest.approx(6378 / solar.AU_KM, rel=0.01)


def test_the_hg_system_at_zero_phase_and_unit_distance_gives_h() -> None:
    rows = belt(50)
    rows["h"] = 15.0
    v = solar.v_magnitudes(rows, OPPOSITION)
    r = np.linalg.norm(solar.positions(rows, np.full(50, OPPOSITION)), axis=1)
    expected = 15.0 + 5 * np.log10(r * (r - 1.01))       # within some degrees of opposition
    assert np.all(v > expected - 0.05)
    assert np.median(v - expected) < 0.5


def test_predictions_of_known_asteroids_are_off_by_their_orbit_error() -> None:
    rng = np.random.default_rng(5)
    config = AsteroidConfig(known=1.0, lost=0.05, ephemeris_error_arcsec=0.15)
    rows = solar.with_predictions(belt(), config, rng)
    off = solar.separation_arcsec(solar.topocentric(rows, OPPOSITION),
                                  solar.topocentric(rows, OPPOSITION, predicted=True))
    assert np.median(off) == pytest.approx(0.15, rel=0.2)
    assert 0.02 < np.mean(off > 0.5) < 0.12


def test_ephemeris_polynomials_follow_the_predicted_orbit_through_the_night() -> None:
    rows = solar.with_predictions(belt(60), AsteroidConfig(known=1.0), np.random.default_rng(5))
    table = solar.ephemerides(rows, OPPOSITION, 0.25)
    for t in (-0.8, -0.3, 0.1, 0.7):
        vector = table["object_xyz"] @ t ** np.arange(4)
        at = OPPOSITION + 0.25 * t
        off = solar.separation_arcsec(vector, solar.topocentric(rows, at, predicted=True))
        assert off.max() < 0.07
        assert np.allclose(table["observer_xyz"][0] @ t ** np.arange(4), solar.observer(at), atol=2e-6)


def test_short_windows_follow_near_earth_objects() -> None:
    where = tuple(w[:40] for w in WHERE)
    rows = solar.near_earth(np.random.default_rng(3), *where, np.geomspace(1.0, 10.0, 40))
    rows = solar.with_predictions(rows, AsteroidConfig(known=1.0), np.random.default_rng(5))
    worst = []
    for span in (0.03, 0.25):
        table = solar.ephemerides(rows, OPPOSITION, span)
        vector = table["object_xyz"] @ 0.9 ** np.arange(4)
        worst.append(np.max(solar.separation_arcsec(vector, solar.topocentric(rows, OPPOSITION + 0.9 * span,
                                                                              predicted=True))))
    assert worst[0] < 0.02
    assert worst[1] > 20 * worst[0]      # one polynomial for the night would not do


def test_orbit_elements_in_the_ephemeris_give_its_positions() -> None:
    rows = solar.with_predictions(belt(10), AsteroidConfig(known=1.0), np.random.default_rng(5))
    table = solar.ephemerides(rows, OPPOSITION, 0.25)
    again = np.zeros(10, solar.ASTEROID)
    for name in ("a", "e"):
        again[name] = table[name]
    for name in ("inc", "node", "argperi", "mean_anomaly"):
        again[name] = np.radians(table[name])
    again["epoch"] = table["epoch_orbit_mjd_tai"]
    off = solar.separation_arcsec(solar.topocentric(again, OPPOSITION),
                                  solar.topocentric(rows, OPPOSITION, predicted=True))
    assert off.max() < 1e-5
