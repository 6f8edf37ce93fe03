"""Places of Sun, Moon and fields against astropy; the sky's brightness against what every observer knows."""

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import AltAz, EarthLocation, SkyCoord, get_body
from astropy.time import Time
from astropy.utils import iers
from hypothesis import given
from hypothesis import strategies as st

from simulators.almanac import bodies, horizon, moonlight, night_bounds, separation, sky_brightness, unit
from simulators.conditions import DARK_SKY, SITE

MJD = 61250.2
LOCATION = EarthLocation.from_geodetic(SITE[0] * units.deg, SITE[1] * units.deg, 2663 * units.m)


@pytest.fixture(scope="module", autouse=True)
def offline() -> None:
    iers.conf.auto_download = False


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


@given(st.sampled_from("ugrizy"), st.floats(0.0, 85.0), st.floats(1.0, 5.0), st.floats(5.0, 85.0),
       st.floats(20.0, 85.0), st.floats(60.0, 180.0))
def test_moonlight_falls_with_distance(band: str, distance: float, further: float, moon_alt: float, altitude: float,
                                       elongation: float) -> None:
    near = moonlight(band, elongation, distance, moon_alt, altitude)
    assert moonlight(band, elongation, distance + further, moon_alt, altitude) < near
    assert moonlight(band, elongation, distance, -1.0, altitude) == 0.0
    assert moonlight(band, min(elongation + 5.0, 180.0), distance, moon_alt, altitude) >= near


def test_the_full_moon_brightens_blue_bands_more() -> None:
    down, up = ([float(sky_brightness(b, 50.0, 60.0, moon, 175.0, -40.0)) for b in "ugrizy"] for moon in (-20.0, 50.0))
    gain = [a - b for a, b in zip(down, up, strict=True)]
    assert gain == sorted(gain, reverse=True)
    assert 3.0 < gain[1] < 4.5          # Krisciunas & Schaefer: 3.2 mag in V, and g lies bluer
    assert gain[5] < 0.6


def test_a_moonless_midnight_zenith_is_the_dark_sky() -> None:
    for band in "ugrizy":
        assert sky_brightness(band, 90.0, 90.0, -30.0, 10.0, -50.0) == pytest.approx(DARK_SKY[band])


def test_the_sky_brightens_towards_the_horizon_and_into_twilight() -> None:
    mags = [float(sky_brightness("r", a, 90.0, -30.0, 10.0, -50.0)) for a in (90, 60, 45, 30)]
    assert mags == sorted(mags, reverse=True)
    assert mags[0] - mags[2] == pytest.approx(2.5 * np.log10(1 / np.sqrt(1 - 0.96 / 2)))
    twilight = [float(sky_brightness("r", 60.0, 90.0, -30.0, 10.0, sun)) for sun in (-20.0, -17.0, -14.0, -12.0)]
    assert twilight == sorted(twilight, reverse=True)


def test_times_far_apart_are_refused() -> None:
    with pytest.raises(ValueError, match=r"within 2 days, got 3\.0 days"):
        bodies(np.array([61000.0, 61003.0]))
