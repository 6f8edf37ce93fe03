import numpy as np
import pytest

from simulators.conditions import (
    DARK_SKY,
    FIDUCIAL_FWHM_EFF,
    Conditions,
    airmass,
    conditions,
    fwhm500,
    fwhm_eff,
    m5,
    sky_electrons,
    transit,
)
from simulators.config import CameraConfig, ConditionsConfig, SimulationConfig


@pytest.mark.parametrize(("band", "depth"), [("g", 24.97), ("r", 24.52), ("i", 24.13), ("z", 23.56)])
def test_depth_agrees_with_smtn_002(band: str, depth: float) -> None:
    fiducial = Conditions(0.6, FIDUCIAL_FWHM_EFF[band], 1.0, DARK_SKY[band], 0.0)
    assert m5(band, fiducial, 30.0, CameraConfig()) == pytest.approx(depth, abs=0.02)


@pytest.mark.parametrize(("band", "rate"), [("g", 15.45), ("r", 32.95), ("i", 52.94), ("z", 79.40)])
def test_sky_rates_agree_with_lsstcam_fiducials(band: str, rate: float) -> None:
    # obs_lsst's calibrateImage fiducials [e/s/pixel], for a marginally different sky
    assert sky_electrons(band, DARK_SKY[band], 1.0) == pytest.approx(rate, rel=0.05)


def test_seeing_has_the_baselines_distribution() -> None:
    config = ConditionsConfig(fwhm500_min=0.01, fwhm500_max=9.0)
    log = np.log([fwhm500(config, 60000.6 + night, 1) for night in range(1500)])
    assert abs(np.mean(log) - np.log(0.655)) < 4 * 0.34 / np.sqrt(1500)
    assert np.std(log) == pytest.approx(0.34, rel=0.08)


@pytest.mark.parametrize(("minutes", "expected"), [(0.75, 0.94), (9.0, 0.81), (30.0, 0.66), (120.0, 0.49)])
def test_seeing_keeps_the_baselines_memory(minutes: float, expected: float) -> None:
    config = ConditionsConfig(fwhm500_min=0.01, fwhm500_max=9.0)
    pairs = np.log([[fwhm500(config, 60000.7 + night + d, 1) for d in (0.0, minutes / 1440)] for night in range(800)])
    assert np.corrcoef(pairs.T)[0, 1] == pytest.approx(expected, abs=0.13)


def test_fixed_seeing_is_every_visits_seeing() -> None:
    from simulators.cadence import visits
    config = SimulationConfig(conditions=ConditionsConfig(fwhm_eff=0.83, airmass=1.0))
    assert {conditions(config, v, 1).fwhm_eff for v in visits(config, 1)} == {0.83}


def test_fwhm_eff_of_the_median_seeing_is_near_the_baselines() -> None:
    assert fwhm_eff(0.655, "r", 1.17) == pytest.approx(0.96, abs=0.04)


def test_a_field_is_highest_at_its_transit() -> None:
    when = transit(330.0, 61639)
    x = [airmass(330.0, -12.0, when + h / 24) for h in (-2, 0, 2)]
    assert x[0] == pytest.approx(x[2], rel=1e-3)
    assert x[1] < x[0]


def test_airmass_agrees_with_astropy() -> None:
    from astropy import units as u
    from astropy.coordinates import AltAz, EarthLocation, SkyCoord
    from astropy.time import Time
    from astropy.utils import iers
    site = EarthLocation.from_geodetic(-70.7494, -30.2444, 2663.0)
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("auto_max_age", None), \
            iers.conf.set_temp("iers_degraded_accuracy", "ignore"):
        frame = AltAz(obstime=Time(61300.2, format="mjd", scale="tai"), location=site)
        z = SkyCoord(330.0, -12.0, unit="deg").transform_to(frame).zen.to_value(u.rad)
    assert airmass(330.0, -12.0, 61300.2) == pytest.approx(1 / np.cos(z), rel=0.01)  # precession since 2000: 0.35 deg
