"""Places of Sun, Moon and fields against astropy."""

from collections.abc import Iterator

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import AltAz, EarthLocation, SkyCoord, get_body
from astropy.time import Time
from astropy.utils import iers

from simulators.almanac import (
    SITE,
    bodies,
    circumstances,
    horizon,
    night_bounds,
    separation,
    sidereal,
    sidereal_deg,
    sun,
    unit,
    zenith,
    zenith_angle,
)

MJD = 61250.2
LOCATION = EarthLocation.from_geodetic(SITE[0] * units.deg, SITE[1] * units.deg, 2663 * units.m)


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("auto_max_age", None), \
            iers.conf.set_temp("iers_degraded_accuracy", "ignore"):
        yield


def frame(mjd: float) -> AltAz:
    return AltAz(obstime=Time(mjd, format="mjd", scale="tai"), location=LOCATION)


def test_altitude_and_airmass_are_astropys() -> None:
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(0, 360, 300), np.degrees(np.arcsin(rng.uniform(-1, 0.6, 300)))
    theirs = SkyCoord(ra, dec, unit="deg").transform_to(frame(MJD))
    altitude, azimuth = horizon(unit(ra, dec), MJD)
    ours = unit(azimuth, altitude)
    assert separation(ours, unit(theirs.az.deg, theirs.alt.deg)).max() < 0.01     # aberration is 0.006 deg
    up = altitude > 25
    assert np.abs(1 / np.sin(np.radians(altitude[up])) - theirs.secz[up].value).max() < 1e-3


@pytest.mark.parametrize("body", ["sun", "moon"])
def test_sun_and_moon_stand_where_astropy_has_them(body: str) -> None:
    times = MJD + np.linspace(0, 0.4, 5)
    found = bodies(times)
    altitude, azimuth = (found.sun_alt, found.sun_az) if body == "sun" else (found.moon_alt, found.moon_az)
    for k, mjd in enumerate(times):
        theirs = get_body(body, Time(mjd, format="mjd", scale="tai"), LOCATION).transform_to(frame(mjd))
        assert separation(unit(azimuth[k], altitude[k]), unit(theirs.az.deg, theirs.alt.deg)) < 0.02


def test_nights_begin_and_end_with_the_sun_at_the_asked_altitude() -> None:
    for night in (61218, 61310, 61400):
        (evening, morning), (dusk, dawn) = night_bounds(night, -12.0, -18.0)
        assert evening < dusk < dawn < morning
        assert bodies(np.array([evening, morning])).sun_alt == pytest.approx([-12.0, -12.0], abs=0.02)


@pytest.mark.filterwarnings("ignore:Tried to get polar motions")
@pytest.mark.parametrize("mjd", [61300.2, 61500.37, 61639.1, 61645.3])
def test_the_circumstances_of_a_pointing_are_astropys(mjd: float) -> None:
    time, here = Time(mjd, format="mjd", scale="tai"), SkyCoord(330.0, -12.0, unit="deg")
    theirs = {name: get_body(name, time, LOCATION) for name in ("sun", "moon")}
    found = circumstances(330.0, -12.0, mjd)
    assert found.altitude == pytest.approx(here.transform_to(frame(mjd)).alt.deg, abs=0.01)
    assert found.sun_alt == pytest.approx(theirs["sun"].transform_to(frame(mjd)).alt.deg, abs=0.02)
    assert found.moon_alt == pytest.approx(theirs["moon"].transform_to(frame(mjd)).alt.deg, abs=0.02)
    assert found.elongation == pytest.approx(theirs["moon"].separation(theirs["sun"], origin_mismatch="ignore").deg,
                                             abs=0.02)
    moon = SkyCoord(theirs["moon"].ra, theirs["moon"].dec)
    assert found.moon_distance == pytest.approx(here.separation(moon).deg, abs=0.02)


@pytest.mark.filterwarnings("ignore:Tried to get polar motions")
@pytest.mark.parametrize("mjd", [61300.2, 61639.1])
def test_the_zenith_lies_where_altitude_grows(mjd: float) -> None:
    altitude, _ = horizon(zenith(mjd), mjd)
    assert altitude == pytest.approx(90.0, abs=1e-3)
    angle, step = np.radians(zenith_angle(330.0, -12.0, mjd)), 0.01
    here = SkyCoord(330.0, -12.0, unit="deg")
    towards = here.directional_offset_by(angle * units.rad, step * units.deg).transform_to(frame(mjd))
    assert towards.alt.deg - here.transform_to(frame(mjd)).alt.deg == pytest.approx(step, rel=2e-3)
    assert separation(sun(mjd), unit(bodies(mjd).sun_ra, bodies(mjd).sun_dec)) == pytest.approx(0.0, abs=1e-5)


def test_mean_sidereal_time_is_within_its_error_of_the_true_one() -> None:
    for mjd in np.arange(60000.3, 65000.0, 97.0):
        assert abs((sidereal_deg(mjd) - np.degrees(sidereal(mjd)) + 180.0) % 360.0 - 180.0) < 0.006


def test_times_far_apart_are_refused() -> None:
    with pytest.raises(ValueError, match=r"within 2 days, got 3\.0 days"):
        bodies(np.array([61000.0, 61003.0]))
