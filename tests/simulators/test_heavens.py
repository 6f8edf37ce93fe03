from itertools import pairwise

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import AltAz, EarthLocation, SkyCoord, get_body
from astropy.time import Time
from astropy.utils import iers

from simulators import heavens
from simulators.skybrightness import DARK_SKY, K_ATM, airglow, sky_mag

TIMES = (61300.2, 61500.37, 61639.1, 61645.3)


@pytest.mark.filterwarnings("ignore:Tried to get polar motions")
@pytest.mark.parametrize("mjd", TIMES)
def test_sun_and_moon_stand_where_astropy_has_them(mjd: float) -> None:
    site = EarthLocation.from_geodetic(*heavens.SITE, 2663.0)
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("auto_max_age", None), \
            iers.conf.set_temp("iers_degraded_accuracy", "ignore"):
        time = Time(mjd, format="mjd", scale="tai")
        frame = AltAz(obstime=time, location=site)
        bodies = {name: get_body(name, time, site) for name in ("sun", "moon")}
        altitude = {name: body.transform_to(frame).alt.to_value(u.deg) for name, body in bodies.items()}
        elongation = bodies["moon"].separation(bodies["sun"], origin_mismatch="ignore").deg
        north = SkyCoord(330.0, -11.99, unit="deg").transform_to(frame)
        here = SkyCoord(330.0, -12.0, unit="deg").transform_to(frame)
        to_zenith = here.position_angle(north).deg     # azimuth runs clockwise: the angle from North to the zenith
    found = heavens.circumstances(330.0, -12.0, mjd)
    assert found.sun_altitude == pytest.approx(altitude["sun"], abs=0.05)
    assert found.moon_altitude == pytest.approx(altitude["moon"], abs=0.4)
    assert found.moon_phase == pytest.approx(180.0 - elongation, abs=0.5)
    zenith = heavens.zenith_angle(330.0, -12.0, mjd)
    assert abs((zenith - to_zenith + 180.0) % 360.0 - 180.0) < 1.5      # precession since 2000 is 0.4 deg


def test_the_dark_zenith_is_smtn_002s_and_the_horizon_brighter() -> None:
    for band in "ugrizy":
        assert sky_mag(band, 0.0, -30.0, 90.0, 90.0, -40.0) == pytest.approx(DARK_SKY[band])
    assert airglow(60.0) == pytest.approx(1.0 / np.sqrt(1 - 0.96 * 0.75))
    assert DARK_SKY["r"] - sky_mag("r", 60.0, -30.0, 90.0, 90.0, -40.0) == pytest.approx(0.69, abs=0.01)


def test_moonlight_in_v_is_that_of_krisciunas_and_schaefer() -> None:
    """Their worked figures: phase angle 0 to 90 deg, moon and pointing at a zenith distance of 30, 60 deg apart.

    With k = 0.172 and a dark sky of V = 21.587 (79.0 nL) the model gives 3.2 mag at full moon and 0.9 at quarter.
    """
    from simulators import skybrightness
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(skybrightness.K_ATM, "g", 0.172)
        patch.setitem(skybrightness.MOON_MINUS_V, "g", 0.0)
        rise = [21.587 - sky_mag("g", 0.0, 30.0, phase, 60.0, -40.0, dark=21.587) for phase in (0.0, 30.0, 60.0, 90.0)]
    k, scattering = 0.172, 1 / np.sqrt(1 - 0.96 * 0.75)
    for found, phase in zip(rise, (0.0, 30.0, 60.0, 90.0), strict=True):
        light = 10 ** (-0.4 * (3.84 + 0.026 * phase + 4e-9 * phase**4))
        f = 10**5.36 * (1.06 + 0.25) + 10 ** (6.15 - 1.5)
        nl = f * light * 10 ** (-0.4 * k * scattering) * (1 - 10 ** (-0.4 * k))
        assert found == pytest.approx(2.5 * np.log10(1 + nl / 78.99), abs=0.01)
    assert rise[0] > rise[1] > rise[2] > rise[3] > 0.3


def test_the_moon_spoils_the_blue_and_spares_the_infrared() -> None:
    rise = [DARK_SKY[band] - sky_mag(band, 0.0, 45.0, 45.0, 60.0, -40.0) for band in "ugrizy"]
    assert rise[0] > 1.5
    assert rise[5] < 0.5
    assert all(a > b for a, b in pairwise(rise[1:]))
    assert sky_mag("g", 0.0, -1.0, 0.0, 60.0, -40.0) == pytest.approx(DARK_SKY["g"])


def test_twilight_ends_at_eighteen_degrees() -> None:
    for band in "ugrizy":
        assert DARK_SKY[band] - sky_mag(band, 0.0, -30.0, 90.0, 90.0, -18.0) < 0.35
        steps = [sky_mag(band, 0.0, -30.0, 90.0, 90.0, sun) for sun in (-11.0, -10.0)]
        assert steps[0] - steps[1] == pytest.approx(1.0, abs=0.25)            # a magnitude per degree
    assert set(K_ATM) == set("ugrizy")
