"""Three nights of the scheduler: the night is kept, pairs are pairs, no second is counted twice."""

import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.time import Time
from msgspec.structs import replace

from schemas.opsim import OPSIM
from simulators.conditions import SITE, Conditions, m5
from simulators.config import CameraConfig, SchedulerConfig
from simulators.depth import depth
from simulators.kinematics import Kinematics
from simulators.scheduler import BANDS, DAY_S, Survey, simulate
from simulators.survey_fields import DEEP, EDGE, fields, lattice
from simulators.weather import Weather, quarters, seeing

CLEAR = SchedulerConfig(clear=(1.0, 1.0), downtime=False)
CLOUDY = SchedulerConfig(downtime=False)


@pytest.fixture(scope="module")
def visits() -> np.ndarray:
    return simulate(CLEAR, 5, 3)


def test_three_clear_nights_are_full_of_visits(visits: np.ndarray) -> None:
    assert visits.dtype == OPSIM
    assert sorted(set(visits["night"].tolist())) == [0, 1, 2]
    assert all(950 < np.sum(visits["night"] == k) < 1080 for k in range(3))     # 11.9 h at 40 s
    for name in OPSIM.names or ():
        if OPSIM[name].kind == "f":
            assert np.isfinite(visits[name]).all(), name


def test_no_visit_in_daylight_nor_below_the_limits(visits: np.ndarray) -> None:
    assert visits["sunAlt"].max() < -11.98
    assert np.all(visits["airmass"] < CLEAR.airmass_max + 0.05)
    assert np.all((visits["altitude"] > 25) & (visits["altitude"] < CLEAR.altitude[1] + 0.5))
    assert visits["moonDistance"].min() > CLEAR.moon_distance_deg - 0.5
    blue = np.isin(visits["band"], ["u", "g"])
    assert np.all(visits["sunAlt"][blue] < -17.9)


def test_every_second_of_a_night_is_a_slew_an_exposure_or_idle(visits: np.ndarray) -> None:
    for night in range(3):
        rows = visits[visits["night"] == night]
        start = rows["observationStartMJD"] * DAY_S
        idle = np.diff(start) - rows["visitTime"][:-1] - rows["slewTime"][1:]
        assert idle.min() > -1e-3                      # nothing overlaps
        assert idle.sum() < 0.02 * (start[-1] - start[0])
    k = Kinematics()
    assert visits["slewTime"].min() >= k.readout_s
    assert np.all(visits["visitTime"] == np.where(visits["band"] == "u", k.visit_s(30, 1), k.visit_s(30, 2)))


def test_a_filter_change_takes_two_minutes(visits: np.ndarray) -> None:
    changed = (visits["band"][1:] != visits["band"][:-1]) & (visits["night"][1:] == visits["night"][:-1])
    assert changed.sum() >= 3
    assert np.all(visits["slewTime"][1:][changed] >= 120.0)
    assert np.percentile(visits["slewTime"][1:][~changed], 98) < 60.0


def test_pairs_are_the_same_pointing_half_an_hour_apart_in_the_bands_of_their_note(visits: np.ndarray) -> None:
    first = np.char.startswith(visits["note"], "pair_33") & np.char.endswith(visits["note"], "a")
    second = np.char.startswith(visits["note"], "pair_33") & np.char.endswith(visits["note"], "b")
    partner = {(int(visits["night"][k]), int(visits["fieldId"][k])): k for k in np.flatnonzero(second)}
    found = 0
    for k in np.flatnonzero(first):
        at = partner.get((int(visits["night"][k]), int(visits["fieldId"][k])))
        if at is None:
            continue
        found += 1
        assert visits["fieldRA"][at] == pytest.approx(visits["fieldRA"][k], abs=1e-9)
        assert str(visits["note"][k]).split(", ")[1] == str(visits["band"][k]) + str(visits["band"][at])
        assert 20.0 < (visits["observationStartMJD"][at] - visits["observationStartMJD"][k]) * 1440 < 50.0
    assert found > 0.95 * first.sum()


def test_a_night_uses_the_filters_that_are_loaded(visits: np.ndarray) -> None:
    for night in range(3):
        rows = visits[visits["night"] == night]
        lit = rows["moonPhase"][0] / 100.0             # at the first visit: minutes after sunset
        loaded = CLEAR.bright_filters if lit > CLEAR.moon_limit else CLEAR.dark_filters
        assert set(rows["band"].tolist()) <= set(loaded)


def test_altitude_and_airmass_are_astropys(visits: np.ndarray) -> None:
    rows = visits[::97]
    place = EarthLocation.from_geodetic(*SITE, 2663)
    theirs = SkyCoord(rows["fieldRA"], rows["fieldDec"], unit="deg").transform_to(
        AltAz(obstime=Time(rows["observationStartMJD"], format="mjd", scale="tai"), location=place))
    assert np.abs(theirs.alt.deg - rows["altitude"]).max() < 0.01
    assert np.abs(theirs.secz.value - rows["airmass"]).max() < 2e-3


def test_angles_of_the_camera_add_up(visits: np.ndarray) -> None:
    turn = (visits["rotTelPos"] - visits["paraAngle"] - visits["rotSkyPos"] + 180.0) % 360.0 - 180.0
    assert np.abs(turn).max() < 1e-9
    telescope = (visits["rotTelPos"] + 180.0) % 360.0 - 180.0
    assert np.abs(telescope).max() <= CLEAR.rotator_deg


def test_depths_are_those_of_the_exact_formula(visits: np.ndarray) -> None:
    rows = visits[(visits["numExposures"] == 2)][::61]
    camera = CameraConfig()
    for row in rows:
        now = Conditions(float(row["seeingFwhm500"]), float(row["seeingFwhmEff"]), float(row["airmass"]),
                         float(row["skyBrightness"]), 0.0)
        single = m5(str(row["band"]), now, 15.0, camera)
        assert row["fiveSigmaDepth"] == pytest.approx(single + 1.25 * np.log10(2), abs=0.03)


def test_a_cloudless_dark_zenith_visit_reaches_smtn_002s_depths() -> None:
    expected = (23.70, 24.97, 24.52, 24.13, 23.56, 22.55)
    fwhm = (0.92, 0.87, 0.83, 0.80, 0.78, 0.76)
    dark = (23.051983, 22.253839, 21.197579, 20.462795, 19.606305, 18.601512)
    found = [float(depth(b, s, f, 1.0)) for b, s, f in zip(BANDS, dark, fwhm, strict=True)]
    assert found == pytest.approx(expected, abs=0.011)


def test_the_same_seed_gives_the_same_nights_however_many_are_played(visits: np.ndarray) -> None:
    assert np.array_equal(simulate(CLEAR, 5, 1), visits[visits["night"] == 0])
    assert not np.array_equal(simulate(CLEAR, 6, 1)["fieldRA"][:5], visits["fieldRA"][:5])


def test_a_slower_telescope_takes_fewer_visits(visits: np.ndarray) -> None:
    slow = simulate(CLEAR, 5, 1, kinematics=Kinematics().slower(2.0))
    assert len(slow) < 0.92 * np.sum(visits["night"] == 0)


def test_twilight_near_the_sun_is_four_passes_of_short_exposures() -> None:
    config = SchedulerConfig(clear=(1.0, 1.0), downtime=False, near_sun_nights=1)
    night = simulate(config, 5, 1)
    near = night[np.char.startswith(night["note"], "twilight_near_sun")]
    assert len(near) > 60
    assert set(near["band"].tolist()) <= set("riz")
    assert np.all(near["visitExposureTime"] == 15.0)
    assert near["solarElong"].max() < 66.0
    assert np.median(night["solarElong"]) > 80.0
    _, count = np.unique(np.round(near["fieldRA"], 4), return_counts=True)
    assert np.median(count) in (4, 8)                  # the same fields may return in the morning


def test_a_deep_drilling_sequence_stays_on_its_field(visits: np.ndarray) -> None:
    deep = visits[visits["observation_reason"] == "deep_drilling"]
    assert len(deep) > 60
    place = {f"DD:{name}": (ra, dec) for name, ra, dec in DEEP}
    for row in deep:
        ra, dec = place[str(row["target_name"])]
        assert (row["fieldRA"], row["fieldDec"]) == pytest.approx((ra, dec), abs=1e-9)


def test_fields_tile_the_sky_as_wide_as_the_camera_sees() -> None:
    v = lattice(EDGE)
    assert len(v) == 10 * EDGE**2 + 2
    assert np.allclose(np.linalg.norm(v, axis=1), 1.0)
    nearest = np.degrees(np.arccos(np.clip(np.sort(v @ v.T, axis=1)[:, -2], -1, 1)))
    assert nearest.min() > 2.2
    assert nearest.max() < 3.7
    probe = np.random.default_rng(1).normal(size=(3000, 3))
    probe /= np.linalg.norm(probe, axis=1)[:, None]
    gap = np.degrees(np.arccos((probe @ v.T).max(1)))
    assert gap.max() < 2.25                            # the view's radius is 1.75, its corners overlap
    assert np.mean(gap < 1.75) > 0.93


def test_wide_fields_get_what_the_survey_wants_and_others_their_share() -> None:
    found = fields(CLEAR.targets)
    wide, plane = found.weight[found.region == "wide"], found.weight[found.region == "plane"]
    assert np.all(wide[:, 2] == 1.0)
    assert np.allclose(plane, 0.27 * wide[0])
    assert np.all(found.weight[found.region == "north"][:, [0, 5]] == 0)


def test_clouds_close_the_share_of_nights_that_the_setting_says() -> None:
    weather = Weather(SchedulerConfig(clear=(0.7, 0.7)), 3)
    eighths = weather.clouds(61218 + np.arange(0, 3650, 0.12))
    assert set(np.unique(eighths * 8)) <= set(range(9))
    assert np.mean(eighths <= 0.3) == pytest.approx(0.7, abs=0.05)    # ~3000 independent days: sigma 0.01, and the
    #                                                                   series has 384 modes
    assert Weather(SchedulerConfig(clear=(1.0, 1.0)), 3).open_until(61218.0, 61218.4) == (61218.0, 61218.4)
    assert Weather(SchedulerConfig(clear=(0.0, 0.0), cloud_limit=0.0), 3).open_until(61218.0, 61218.4) is None


def differing(config: SchedulerConfig, seeds: range) -> np.ndarray:
    """[%] of quarters of nights that differ in whether the dome is open from that one, two and three later."""
    middles = np.array([0.5 * (q[1:] + q[:-1]) for q in (quarters(61218 + k) for k in range(365))])
    out = []
    for seed in seeds:
        is_open = (Weather(config, seed).clouds(middles.ravel()) <= config.cloud_limit).reshape(middles.shape)
        out.append([100 * np.mean(is_open[:, k:] != is_open[:, :-k]) for k in (1, 2, 3)])
    return np.mean(out, axis=0)


def test_clouds_come_and_go_within_a_night_as_the_baselines() -> None:
    """v2.0's first year: 8.8, 12.5 and 16.8 % (its nights in which something was observed, or fewer than 3 lost)."""
    year = 2.0 * np.array([1.4, 1.9, 2.3])             # two sigmas of one year
    baseline = np.array([8.8, 12.5, 16.8])
    assert np.all(np.abs(differing(CLOUDY, range(25)) - baseline) < year)
    spells = differing(replace(CLOUDY, cloud_passing=0.0), range(25))
    assert np.all(spells < baseline - year)            # without clouds that pass, nights are whole


def test_the_dome_opens_and_closes_at_a_quarter_of_the_night() -> None:
    evening, morning = 61218.0, 61218.4
    edges = [evening, *quarters(61218)[1:-1].tolist(), morning]
    seen = {Weather(CLOUDY, seed).open_until(evening, morning) for seed in range(40)}
    assert len(seen) > 4
    for stretch in seen - {None}:
        assert all(min(abs(t - edge) for edge in edges) < 1e-9 for t in stretch or ())
    for seed in range(8):                              # and the clouds are those of the stretch
        weather = Weather(CLOUDY, seed)
        if stretch := weather.open_until(evening, morning):
            assert np.all(weather.clouds(np.linspace(stretch[0], stretch[1] - 1e-6, 40)) <= CLOUDY.cloud_limit)


def test_failures_and_maintenance_take_the_nights_that_they_should() -> None:
    lost = np.mean([Weather(SchedulerConfig(), seed).lost_nights(61218, 365).sum() for seed in range(60)])
    failures = 365 * (0.0137 + 3 * 0.00548 + 7 * 0.00137 + 14 * 0.000274)
    assert 0.75 * failures + 24 - 2 < lost < failures + 24 + 3        # some overlap
    assert not Weather(CLEAR, 1).lost_nights(61218, 365).any()


def test_seeing_of_many_times_is_that_of_each() -> None:
    from simulators.conditions import fwhm500
    from simulators.config import ConditionsConfig

    times = 61250.0 + np.array([0.01, 0.1, 0.3])
    assert seeing(ConditionsConfig(), times, 4) == pytest.approx([fwhm500(ConditionsConfig(), t, 4) for t in times])


def test_no_nights_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 night is needed, got 0"):
        simulate(CLEAR, 1, 0)


def test_the_band_that_is_behind_is_wanted() -> None:
    survey = Survey(CLEAR, 1)
    survey.progress.by_band[:] = (0, 100, 100, 100, 100, 100)
    assert survey.wanted("u") > 0 > survey.wanted("g")
