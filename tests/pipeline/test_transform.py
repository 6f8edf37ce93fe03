"""Positions, errors, lengths and angles on the sky are those of points moved on the pixels."""

import numpy as np
import pytest

from pipeline.transform import direction, jacobians, propagate, transform
from schemas import ids
from schemas.exposure import Visit
from schemas.measures import MEASUREMENT, empty
from schemas.wcs import Wcs

SHAPE = (1000, 1000)
VISIT = Visit(2027082200012, "i", 30.0, -20.0, 35.0, 61640.25, 30.0)


def at(x: float, y: float, n: int = 1, **values: float) -> np.ndarray:
    rows = empty(MEASUREMENT, n)
    rows["id"] = np.arange(n)
    rows["x"], rows["y"], rows["trailX"], rows["trailY"] = x, y, x, y
    for name, value in values.items():
        rows[name] = value
    return rows


def bearing(ra: float, dec: float, ra_to: float, dec_to: float) -> float:
    """Spherical trigonometry, from North through East."""
    a, d, e = np.radians(ra_to - ra), np.radians(dec), np.radians(dec_to)
    north = np.cos(d) * np.sin(e) - np.sin(d) * np.cos(e) * np.cos(a)
    return float(np.degrees(np.arctan2(np.sin(a) * np.cos(e), north)))


@pytest.mark.parametrize(("dec", "rotation"), [(-20.0, 35.0), (0.0, 0.0), (89.99, 200.0), (-75.0, -110.0)])
def test_trails_and_dipoles_get_the_length_and_bearing_of_their_ends(dec: float, rotation: float) -> None:
    wcs = Wcs.tangent(359.999, dec, SHAPE, rotation=rotation)
    angle, length = 25.0, 12.0
    rows = transform(at(300.0, 700.0, trailLength=length, trailAngle=angle, trailAngleErr=3.0, dipoleLength=length,
                        dipoleAngle=angle + 180.0), wcs, VISIT, 7, 61640.26)
    step = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    (ra0, ra1), (dec0, dec1) = wcs.sky(300.0 + np.array([-6, 6]) * step[0], 700.0 + np.array([-6, 6]) * step[1])
    expected = bearing(*(float(v) for v in (*wcs.sky(300.0, 700.0), ra1, dec1)))
    apart = 3600 * np.degrees(2 * np.arcsin(np.sqrt(np.sin(np.radians(dec1 - dec0) / 2) ** 2 + np.cos(
        np.radians(dec0)) * np.cos(np.radians(dec1)) * np.sin(np.radians(ra1 - ra0) / 2) ** 2)))
    assert abs((rows["trailAngle"][0] - expected + 90) % 180 - 90) < 0.01
    assert -90 < rows["trailAngle"][0] <= 90
    assert abs((rows["dipoleAngle"][0] - expected - 180 + 180) % 360 - 180) < 0.01
    np.testing.assert_allclose([rows["trailLength"][0], rows["dipoleLength"][0]], apart, rtol=1e-4)
    np.testing.assert_allclose(rows["trailAngleErr"], 3.0, rtol=1e-3)


def test_errors_on_the_sky_are_the_scatter_of_displaced_pixels() -> None:
    wcs = Wcs.tangent(30.0, 60.0, SHAPE, rotation=35.0)
    covariance = np.array([[0.04, 0.015], [0.015, 0.01]])
    rows = transform(at(200.0, 300.0, xErr=0.2, yErr=0.1, x_y_Cov=0.015), wcs, VISIT, 7, 61640.26)
    rng = np.random.default_rng(1)
    x, y = rng.multivariate_normal([200.0, 300.0], covariance, 20_000).T
    ra, dec = wcs.sky(x, y)
    east, north = (ra - rows["ra"]) * np.cos(np.radians(dec)), dec - rows["dec"]
    sampling = 4 / np.sqrt(2 * 20_000)     # 4 sigma of a standard deviation
    assert abs(rows["raErr"][0] / east.std() - 1) < sampling
    assert abs(rows["decErr"][0] / north.std() - 1) < sampling
    sky = np.cov(east, north)[0, 1]
    assert abs(rows["ra_dec_Cov"][0] - sky) < 4 * rows["raErr"][0] * rows["decErr"][0] * np.sqrt(2 / 20_000)


def test_errors_turn_with_the_detector() -> None:
    turned = jacobians(Wcs.tangent(30.0, 0.0, SHAPE, rotation=90.0), np.array([499.5]), np.array([499.5]))
    ra_err, dec_err, _ = propagate(turned, np.array([0.2]), np.array([0.1]), 0.0)
    np.testing.assert_allclose([ra_err[0] * 3600, dec_err[0] * 3600], [0.02, 0.04], rtol=1e-6)


def test_jacobians_are_the_wcs_own_and_hold_at_the_pole() -> None:
    wcs = Wcs.tangent(30.0, -20.0, SHAPE, rotation=35.0)
    np.testing.assert_allclose(jacobians(wcs, np.array([100.0]), np.array([800.0]))[0], wcs.jacobian(100.0, 800.0),
                               rtol=1e-7, atol=1e-12)
    polar = Wcs.tangent(0.0, 90.0, SHAPE)
    _, stretch, turn = direction(jacobians(polar, np.array([499.5]), np.array([499.6])), np.array([70.0]))
    np.testing.assert_allclose([stretch[0] * 3600, turn[0]], [0.2, 1.0], rtol=1e-6)


def test_rows_carry_ids_times_band_and_units() -> None:
    rows = transform(at(10.0, 20.0, n=3, ixx=4.0, trailLength=2.0, psfFlux=123.0, snr=8.0, bboxSize=30),
                     Wcs.tangent(30.0, -20.0, SHAPE), VISIT, 7, 61640.26, reliability_version="1.0")
    parts = ids.unpack(rows["diaSourceId"])
    assert parts.visit.tolist() == [VISIT.visit] * 3
    assert parts.detector.tolist() == [7] * 3
    assert parts.counter.tolist() == [0, 1, 2]
    row = rows[0]
    assert (row["band"], row["reliabilityVersion"], row["exposureTime"]) == (b"i", b"1.0", 30.0)
    assert (row["midpointMjdTai"], row["timeProcessedMjdTai"]) == (61640.25, 61640.26)
    assert (row["diaObjectId"], row["ssObjectId"], row["parentDiaSourceId"]) == (0, 0, 0)
    np.testing.assert_allclose([row["ixx"], row["psfFlux"], row["snr"], row["bboxSize"]], [0.16, 123, 8, 30], rtol=1e-4)
    assert row["trailAlgorithm"] == 3
    assert transform(at(10.0, 20.0), Wcs.tangent(30.0, 0.0, SHAPE), VISIT, 7, 0.0)["trailAlgorithm"][0] == -1


def test_no_sources_give_no_rows() -> None:
    assert len(transform(empty(MEASUREMENT), Wcs.tangent(30.0, 0.0, SHAPE), VISIT, 7, 0.0)) == 0
