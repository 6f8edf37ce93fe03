"""The sky's brightness against SMTN-002, Krisciunas and Schaefer's worked figures, and what every observer knows."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.exposure import Visit
from simulators import almanac, skybrightness
from simulators.conditions import airmass, conditions
from simulators.config import ConditionsConfig, SimulationConfig
from simulators.skybrightness import DARK_SKY, airglow, moonlight, sky_brightness


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


def test_a_darker_zenith_leaves_moonlight_as_it_is() -> None:
    found = sky_brightness("r", 60.0, 60.0, 45.0, 150.0, -40.0, dark=22.0)
    light = 10 ** (-0.4 * 22.0) * airglow(60.0) + moonlight("r", 150.0, 60.0, 45.0, 60.0)
    assert found == pytest.approx(-2.5 * np.log10(light))


def test_moonlight_in_v_is_that_of_krisciunas_and_schaefer() -> None:
    """Their worked figures: phase angle 0 to 90 deg, moon and pointing at a zenith distance of 60 and 0 deg.

    With k = 0.172 and a dark sky of V = 21.587 (79.0 nL) the model gives 3.2 mag at full moon and 0.9 at quarter.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(skybrightness.WAVELENGTH_NM, "g", 550.0)
        patch.setitem(skybrightness.SUN_COLOUR, "g", 0.0)
        patch.setattr(skybrightness, "MOONLIGHT", 1.0)
        rise = [21.587 - float(sky_brightness("g", 90.0, 60.0, 30.0, 180.0 - phase, -40.0, dark=21.587))
                for phase in (0.0, 30.0, 60.0, 90.0)]
    k, scattering = 0.172, 1 / np.sqrt(1 - 0.96 * 0.75)
    for found, phase in zip(rise, (0.0, 30.0, 60.0, 90.0), strict=True):
        light = 10 ** (-0.4 * (3.84 + 0.026 * phase + 4e-9 * phase**4))
        f = 10**5.36 * (1.06 + 0.25) + 10 ** (6.15 - 1.5)
        nl = f * light * 10 ** (-0.4 * k * scattering) * (1 - 10 ** (-0.4 * k))
        assert found == pytest.approx(2.5 * np.log10(1 + nl / 78.99), abs=0.01)
    assert rise[0] > rise[1] > rise[2] > rise[3] > 0.3


def test_the_moon_spoils_the_blue_and_spares_the_infrared() -> None:
    rise = [DARK_SKY[band] - float(sky_brightness(band, 90.0, 60.0, 45.0, 135.0, -40.0)) for band in "ugrizy"]
    assert rise[0] > 1.5
    assert rise[5] < 0.5
    assert all(a > b for a, b in pairwise(rise))


def test_twilight_ends_at_eighteen_degrees() -> None:
    for band in "ugrizy":
        assert DARK_SKY[band] - sky_brightness(band, 90.0, 90.0, -30.0, 90.0, -18.0) < 0.35
        steps = [float(sky_brightness(band, 90.0, 90.0, -30.0, 90.0, sun)) for sun in (-11.0, -10.0)]
        assert steps[0] - steps[1] == pytest.approx(0.85, abs=0.15)       # e^0.82 per degree, over the dark sky


@pytest.mark.parametrize("mjd", [61638.968, 61639.2, 61631.2])
def test_a_scenarios_sky_is_the_schedulers(mjd: float) -> None:
    """Of a place and time, the conditions of a visit have what the survey's table would say."""
    config = SimulationConfig(conditions=ConditionsConfig(sky="model", sky_scatter=0.0))
    for band in "ugrizy":
        visit = Visit(visit=1, band=band, ra=330.0, dec=-40.0, rotation=0.0, mjd_tai=mjd, exposure_s=30.0,
                      airmass=airmass(330.0, -40.0, mjd))
        now = almanac.bodies(np.array([mjd]))
        vector = almanac.unit(330.0, -40.0)
        altitude, _ = almanac.horizon(vector[None], np.array([mjd]))
        distance = almanac.separation(vector, almanac.unit(now.moon_ra[0], now.moon_dec[0]))
        theirs = sky_brightness(band, altitude, distance, now.moon_alt, now.elongation, now.sun_alt)
        assert conditions(config, visit, 1).sky_mag == pytest.approx(float(theirs[0]), abs=0.01)   # airmass: to 1 %
