"""Predictions, offsets and angles against two-body geometry, astropy, and what a real alert says."""

import json

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from pipeline.solarsystem import AU_KM, GALACTIC, match, mpc_orbits, packed, predict, ss_sources
from schemas.measures import EPHEMERIS, empty
from schemas.table import DIA_SOURCE

MJD = 61639.1
SPEED = AU_KM / 86400


def ephemeris(object_xyz: np.ndarray, observer_xyz: np.ndarray, half_span: float = 0.25) -> np.ndarray:
    """One row from coefficients (3, 4) per half-span."""
    row = empty(EPHEMERIS, 1)
    row["object_xyz"], row["observer_xyz"] = object_xyz, observer_xyz
    row["epoch_mjd_tai"], row["half_span_d"], row["ssObjectId"] = MJD, half_span, 42
    row["designation"], row["vmag"] = b"2027 QA1", 21.0
    return row


def moving_row() -> np.ndarray:
    """An object 1.5 au away that moves and accelerates; the Earth on a circle."""
    topo = np.array([[1.2, 0.002, 1e-6, 0], [0.9, -0.001, 2e-6, 0], [0.3, 0.0005, 0, 1e-7]])
    observer = np.array([[-0.7, 0.003, 0, 0], [0.7, 0.002, 0, 0], [0.1, 0.001, 0, 0]])
    return ephemeris(topo, observer)


def source_at(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    rows = DIA_SOURCE.empty(len(ra))
    rows["ra"], rows["dec"], rows["diaSourceId"] = ra, dec, 7 + np.arange(len(ra))
    return rows


def test_polynomials_are_evaluated_at_the_time_asked_for_with_their_derivative() -> None:
    row, dt = moving_row(), 1e-3
    before, now, after = (predict(row, MJD + 0.1 + step) for step in (-dt, 0.0, dt))
    np.testing.assert_allclose(now.topo_velocity, (after.topo - before.topo) / (2 * dt), rtol=1e-7)
    np.testing.assert_allclose(now.helio_velocity, (after.helio - before.helio) / (2 * dt), rtol=1e-7)
    t = 0.1 / 0.25
    np.testing.assert_allclose(now.topo[0], row["object_xyz"][0] @ t ** np.arange(4))
    np.testing.assert_allclose(now.helio, now.topo + (row["observer_xyz"][0] @ t ** np.arange(4)))


def test_an_ephemeris_that_does_not_reach_the_time_is_left_out() -> None:
    assert len(predict(moving_row(), MJD + 0.2499)) == 1
    assert len(predict(moving_row(), MJD + 0.2501)) == 0
    assert len(predict(empty(EPHEMERIS), MJD)) == 0


def test_offsets_and_rates_are_those_of_the_predicted_track() -> None:
    row = moving_row()
    now = predict(row, MJD)
    later = predict(row, MJD + 1e-3)
    found = source_at(later.ra, later.dec)      # the object, seen 86 s further along its track
    out = ss_sources(found, row, now, np.array([0]))[0]
    here, there = SkyCoord(now.ra, now.dec, unit="deg"), SkyCoord(later.ra, later.dec, unit="deg")
    apart = here.separation(there).arcsec[0]
    east, north = (c.arcsec[0] for c in here.spherical_offsets_to(there))
    np.testing.assert_allclose(out["ephOffset"], apart, rtol=1e-6)
    np.testing.assert_allclose([out["ephOffsetRa"], out["ephOffsetDec"]], [east, north], rtol=1e-5)
    np.testing.assert_allclose(out["ephRate"], apart / 3600 / 1e-3, rtol=2e-3)
    np.testing.assert_allclose(np.hypot(out["ephRateRa"], out["ephRateDec"]), out["ephRate"], rtol=1e-6)
    np.testing.assert_allclose(out["ephOffsetAlongTrack"], apart, rtol=1e-3)
    assert abs(out["ephOffsetCrossTrack"]) < 1e-3 * apart
    assert (out["ephRa"], out["ephDec"]) == (now.ra[0], now.dec[0])
    assert (out["diaSourceId"], out["ssObjectId"], out["designation"]) == (7, 42, b"2027 QA1")
    assert out["diaDistanceRank"] == 1
    np.testing.assert_allclose(out["ephVmag"], 21.0)


def test_ranges_and_angles_follow_from_the_triangle_of_sun_observer_and_object() -> None:
    # the observer at (1, 0, 0), the object at (1, 2, 0): seen from it the Sun is at quadrature
    at_rest = [0.0, 0.0, 0.0, 0.0]
    row = ephemeris(np.array([at_rest, [2, 0.01, 0, 0], at_rest]), np.array([[1.0, 0, 0, 0], at_rest, at_rest]))
    now = predict(row, MJD)
    out = ss_sources(source_at(now.ra, now.dec), row, now, np.array([0]))[0]
    np.testing.assert_allclose(out["elongation"], 90.0, rtol=1e-6)
    np.testing.assert_allclose(out["phaseAngle"], np.degrees(np.arctan2(1, 2)), rtol=1e-6)
    np.testing.assert_allclose([out["topoRange"], out["helioRange"]], [2.0, np.sqrt(5.0)], rtol=1e-6)
    speed = 0.01 / 0.25 * SPEED
    np.testing.assert_allclose([out["topoRangeRate"], out["topo_vtot"], out["topo_vy"]], speed, rtol=1e-6)
    np.testing.assert_allclose(out["helioRangeRate"], speed * 2 / np.sqrt(5.0), rtol=1e-6)
    assert out["ephRate"] < 1e-12                   # nothing moves across the sky


def test_a_real_alert_has_our_ecliptic_and_galactic_coordinates_and_angles() -> None:
    """ssSource of the public alert 170094456480989258 (2004 JQ12); its vectors are au / 149597870.7."""
    topo = np.array([-1.4280457705240224e-08, 8.094136028091725e-09, 9.98838789456613e-10]) * AU_KM
    helio = np.array([-2.0690114510557578e-08, 9.653398969078353e-09, 1.6745750341939925e-09]) * AU_KM
    coefficients = np.zeros((2, 3, 4))
    coefficients[:, :, 0] = topo, helio - topo
    row = ephemeris(*coefficients)
    out = ss_sources(source_at(np.array([150.4555220874077]), np.array([3.482150412358473])), row, predict(row, MJD),
                     np.array([0]))[0]
    nutation = -13.932 / 3600    # at J2000.0: the real longitude is in the true ecliptic of that day, ours in the mean
    np.testing.assert_allclose([out["eclLambda"] + nutation, out["eclBeta"]], [151.28002768856328, -8.051063636866],
                               atol=2e-5)
    np.testing.assert_allclose([out["galLon"], out["galLat"]], [235.6650803901776, 43.130084231803075], atol=1e-9)
    np.testing.assert_allclose([out["elongation"], out["phaseAngle"]], [164.0061492919922, 4.577733516693115],
                               rtol=1e-5)
    # the place seen is that of the vectors, to the light time's few arcseconds
    np.testing.assert_allclose([out["topoRange"], out["helioRange"]], [2.46016, 3.42469], rtol=2e-4)


def test_galactic_coordinates_are_astropys() -> None:
    rng = np.random.default_rng(1)
    sky = SkyCoord(rng.uniform(0, 360, 50), np.degrees(np.arcsin(rng.uniform(-1, 1, 50))), unit="deg")
    np.testing.assert_allclose(sky.cartesian.xyz.value.T @ GALACTIC.T, sky.galactic.cartesian.xyz.value.T, atol=1e-12)


def test_orbits_are_written_as_the_real_ones() -> None:
    """mpc_orbits of two public alerts: a, e, mean anomaly in; q, motion, period and next perihelion out."""
    real = {"a": [2.7631964753383103, 2.455264240408624], "e": [0.293936430869032, 0.073714884932825],
            "mean_anomaly": [202.6859807197188, 21.5303049274022], "q": [1.95099236558748, 2.27427471944722],
            "mean_motion": [0.21457860843693796, 0.25618678052130955], "period": [1677.70684423, 1405.224732],
            "peri_time": [61733.130018999, 62321.1832959652]}
    row = empty(EPHEMERIS, 2)
    row["a"], row["e"], row["mean_anomaly"] = real["a"], real["e"], real["mean_anomaly"]
    row["epoch_orbit_mjd_tai"], row["designation"] = 61000.0 - 32.184 / 86400, [b"2004 JQ12", b"2020 SJ88"]
    out = mpc_orbits(row)
    for name, tolerance in (("q", 1e-9), ("mean_motion", 1e-6), ("period", 1e-6), ("peri_time", 1e-7)):
        np.testing.assert_allclose(out[name], real[name], rtol=tolerance)
    np.testing.assert_allclose(out["epoch_mjd"], 61000.0)
    assert out["unpacked_primary_provisional_designation"].tolist() == [b"2004 JQ12", b"2020 SJ88"]
    assert out["created_at"][0] == np.datetime64("1970-01-01")


def test_orbit_uncertainties_and_grades_follow_from_the_elements_errors() -> None:
    """Public orbits of many oppositions have U 0 and errors of 1e-8 au; their placeholders are 0."""
    row = empty(EPHEMERIS, 3)
    row["a"], row["e"], row["inc"], row["mean_anomaly"] = 2.4552642, 0.0737, 5.0, 21.53
    row["designation"] = b"2020 SJ88"
    row["epoch_orbit_mjd_tai"] = 61000.0
    row["element_errors"][0] = 8.8e-8, 4.15e-7, 1.25e-5, 2.7e-4, 5.5e-4, 4.9e-4
    row["element_errors"][1] = 0.2, 0.1, 1.0, 1.0, 5.0, 20.0
    row["arc_d"][:2], row["n_oppositions"][:2], row["n_observations"][:2] = [5935.6, 6.0], [6, 1], [73, 4]
    out = mpc_orbits(row)
    assert out["u_param"].tolist() == [0, 9, -1]
    assert out["period_unc"][0] == pytest.approx(7.5616516e-05, rel=0.02)        # of the public orbit with this a_unc
    assert out["mean_motion_unc"][0] == pytest.approx(1.3785661e-08, rel=0.02)
    assert out["q_unc"][0] == pytest.approx(9.65556e-07, rel=0.1)
    assert out["peri_time_unc"][0] == pytest.approx(0.00190069, rel=0.02)
    assert [out[name][0] for name in ("yarkovsky", "a1_unc", "earth_moid", "not_normalized_rms")] == [0.0] * 4
    assert json.loads(out["mpc_orb_jsonb"][1])["orbit_fit_statistics"]["nobs_total"] == 4
    assert [int(out[name][2]) for name in ("nopp", "nobs_total", "nobs_total_sel")] == [-1] * 3
    assert out["mpc_orb_jsonb"][2] == b""
    assert np.isnan(out["a_unc"][2])


@pytest.mark.parametrize(("designation", "expected"), [
    # the Minor Planet Center's own examples, then what is no provisional designation
    (b"1995 XA", b"J95X00A"), (b"1995 XL1", b"J95X01L"), (b"1995 FB13", b"J95F13B"), (b"1998 SQ108", b"J98SA8Q"),
    (b"1998 SV127", b"J98SC7V"), (b"1998 SS162", b"J98SG2S"), (b"2099 AZ193", b"K99AJ3Z"), (b"2008 AA360", b"K08Aa0A"),
    (b"2007 TA418", b"K07Tf8A"), (b"2024 ZA620", b"2024 ZA620"), (b"SIM000042", b"SIM000042"), (b"", b"")])
def test_designations_are_packed_as_the_minor_planet_center_does(designation: bytes, expected: bytes) -> None:
    assert packed(designation) == expected


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 0.0), (359.9999, 60.0), (0.0, 90.0)])
def test_matching_knows_no_seam(ra: float, dec: float) -> None:
    here = SkyCoord(ra, dec, unit="deg")
    there = here.directional_offset_by(33 * u.deg, 0.9 * u.arcsec)
    topo = np.zeros((3, 4))
    topo[:, 0] = here.cartesian.xyz.value
    now = predict(ephemeris(topo, np.zeros((3, 4))), MJD)
    i, j = match(np.array([there.ra.deg]), np.array([there.dec.deg]), now, 1.0)
    assert (i.tolist(), j.tolist()) == ([0], [0])
    assert len(match(np.array([there.ra.deg]), np.array([there.dec.deg]), now, 0.89)[0]) == 0
