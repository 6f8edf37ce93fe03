import msgspec
import numpy as np
import pytest

from simulators import milky_way
from simulators.asteroids import barycentric
from simulators.config import SimulationConfig
from simulators.densities import star_counts
from simulators.sky import Sky

coordinates = pytest.importorskip("astropy.coordinates")
units = pytest.importorskip("astropy.units")


def test_directions_are_galactic_as_astropy_has_them() -> None:
    for ra, dec in ((0.0, 0.0), (266.4, -29.0), (150.1, 2.2)):
        view, known = milky_way.sight(ra, dec), coordinates.SkyCoord(ra, dec, unit="deg").galactic
        assert view.latitude == pytest.approx(known.b.deg, abs=1e-4)
        assert view.longitude == pytest.approx(known.l.wrap_at("180d").deg, abs=1e-4)


def test_stars_move_as_astropys_space_motion() -> None:
    ra, dec = np.array([10.0, 200.0, 359.9]), np.array([-30.0, 60.0, 5.0])
    pm_east, pm_north = np.array([300.0, -5.0, 1000.0]), np.array([-150.0, 8.0, 2000.0])
    start = coordinates.SkyCoord(ra * units.deg, dec * units.deg, pm_ra_cosdec=pm_east * units.mas / units.yr,
                                 pm_dec=pm_north * units.mas / units.yr, distance=np.full(3, 50.0) * units.pc,
                                 obstime="J2010.0")
    end = start.apply_space_motion(dt=10 * units.yr)
    found = milky_way.moved(ra, dec, pm_east, pm_north, np.zeros(3), 10.0, np.zeros(3))
    gap = coordinates.SkyCoord(*found, unit="deg").separation(coordinates.SkyCoord(end.ra, end.dec))
    assert np.all(gap.mas < 0.1)
    unmoved = coordinates.SkyCoord(ra, dec, unit="deg").separation(coordinates.SkyCoord(end.ra, end.dec))
    assert np.all(unmoved.mas > 50)              # negative control: the motion is there


def test_parallax_is_an_ellipse_of_its_size() -> None:
    ra, dec = np.array([90.0]), np.array([66.5607])             # the ecliptic's pole: a circle
    still = np.zeros(1)
    places = np.array([[p[0] for p in milky_way.moved(ra, dec, still, still, np.array([100.0]), 0.0, barycentric(t))]
                       for t in 61_000.0 + np.arange(0, 365, 15)])
    pole = coordinates.SkyCoord(270, 66.5607, unit="deg")       # opposite in RA is the true pole; both see the circle
    east = (places[:, 0] - 90.0) * np.cos(np.radians(dec[0])) * 3.6e6
    assert pole.dec.deg == pytest.approx(dec[0])
    assert np.ptp(east) == pytest.approx(200.0, rel=0.03)       # 2 x 100 mas, and the orbit's ellipticity


def test_drawn_stars_number_as_expected() -> None:
    view = milky_way.sight(330.0, -12.0)
    steradian = np.radians(1.0) ** 2
    expected = milky_way.star_numbers(view, 15.0, 23.0)[0].sum() * steradian
    drawn = milky_way.draw_stars(view, np.random.default_rng(1), steradian, 15.0, 23.0)
    assert abs(len(drawn) - expected) < 4 * np.sqrt(expected)
    bright = milky_way.star_numbers(view, 15.0, 19.0)[0].sum() * steradian
    assert abs(np.sum(drawn["r"] < 19.0) - bright) < 4 * np.sqrt(bright) + 0.03 * bright    # cells of 0.1 mag


def test_star_counts_are_near_those_observed() -> None:
    # 1,100 stars to r = 25 on a CCD of 0.0503 deg^2 at b = -30 deg; a few thousand per deg^2 to r = 20 at the pole
    counts = [star_counts(*_equatorial(longitude, -30.0), np.array([25.0]))[0] for longitude in (60, 120, 180, 240)]
    assert np.mean(counts) * 0.0503 == pytest.approx(1100, rel=0.5)
    assert 1000 < star_counts(*_equatorial(0.0, 89.0), np.array([20.0]))[0] < 4000
    assert star_counts(*_equatorial(60.0, 0.0), np.array([25.0]))[0] > 10 * np.mean(counts)      # the plane is crowded


def _equatorial(longitude: float, latitude: float) -> tuple[float, float]:
    place = coordinates.SkyCoord(l=longitude, b=latitude, unit="deg", frame="galactic").icrs
    return float(place.ra.deg), float(place.dec.deg)


def test_stars_near_the_pole_drift_as_the_suns_motion_says() -> None:
    # thin-disk stars towards the Galactic pole reflect the Sun's motion; the mean is minus it, plus their drift
    view = milky_way.sight(*_equatorial(0.0, 90.0))
    stars = milky_way.draw_stars(view, np.random.default_rng(2), np.radians(3.0) ** 2, 14.0, 20.0)
    stars = stars[(stars["component"] == 0) & (stars["distance"] < 600)]
    ra, dec = np.full(len(stars), 192.8595), np.full(len(stars), 27.1283)
    east, north = milky_way.motions(stars, ra, dec, np.random.default_rng(3))
    speed = np.stack([east, north], -1) * milky_way.KM_S * stars["distance"][:, None] / 1000.0
    expected = np.hypot(11.1, 12.24 + 15.0)
    error = 35.0 / np.sqrt(len(stars))
    assert abs(np.hypot(*speed.mean(axis=0)) - expected) < 4 * error + 2.0      # 2: rotation changes over 600 pc


def test_stars_that_moved_visibly_are_in_the_truth_and_not_drawn_twice() -> None:
    data = {"camera": {"ny": 600, "nx": 600}, "sky": {"stars": {"model": "galaxy", "moved_min_px": 0.05}}}
    sky = Sky(msgspec.convert(data, SimulationConfig), 1)
    assert len(sky.moved) > 5
    assert not set(sky.moving["id"].tolist()) & set(sky.stars["id"].tolist())
    assert np.all(np.hypot(sky.moved["east"], sky.moved["north"]) > 0.05 * 0.2)
    before, now = sky.stars_at(sky.template_mjd), sky.stars_at(sky.night)
    rest = 3600 * np.hypot((now[0] - before[0]) * np.cos(np.radians(now[1])), now[1] - before[1])
    assert rest.max() <= 0.05 * 0.2 + 1e-9
    assert rest.max() > 0
