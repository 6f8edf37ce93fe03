"""Times of moves against literal values of rubin_scheduler's model, against the model itself, and against physics."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.kernels import pointing
from simulators.kinematics import Kinematics, slew_seconds

altitudes = st.floats(20.0, 86.5)
azimuths = st.floats(0.0, 360.0)
places = st.tuples(altitudes, azimuths)


def plain_move_s(distance: float, speed: float, acceleration: float, jerk: float) -> float:
    """Rest to rest by bisection of the peak speed: to reach v takes v/a + a/j, or 2 sqrt(v/j) below a^2/j."""
    def rise(v: float) -> float:
        return v / acceleration + acceleration / jerk if v >= acceleration**2 / jerk else 2.0 * np.sqrt(v / jerk)

    low, high = 0.0, speed
    if speed * rise(speed) <= distance:
        return 2.0 * rise(speed) + (distance - speed * rise(speed)) / speed
    for _ in range(200):
        peak = (low + high) / 2
        low, high = (peak, high) if peak * rise(peak) < distance else (low, peak)
    return 2.0 * rise(low)


@given(st.floats(1e-4, 200.0), st.floats(0.1, 10.0), st.floats(0.1, 10.0), st.floats(0.1, 40.0))
def test_a_move_takes_as_long_as_its_profile_of_speed(distance: float, speed: float, acceleration: float,
                                                      jerk: float) -> None:
    assert pointing.move_s(distance, speed, acceleration, jerk) == pytest.approx(
        plain_move_s(distance, speed, acceleration, jerk), rel=1e-6)


@given(st.floats(1e-4, 200.0), st.floats(0.1, 10.0), st.floats(0.1, 10.0))
def test_unbounded_jerk_is_the_limit_of_a_large_one(distance: float, speed: float, acceleration: float) -> None:
    assert pointing.move_s(distance, speed, acceleration, 0.0) == pytest.approx(
        pointing.move_s(distance, speed, acceleration, 1e9), rel=1e-4)


@pytest.mark.parametrize(("end", "seconds"), [
    ((50.0, 3.5), 4.69), ((53.5, 0.0), 5.27), ((58.9, 0.0), 6.79), ((59.0, 0.0), 42.8), ((50.0, 10.0), 6.7),
    ((50.0, 30.0), 20.0), ((50.0, 90.0), 60.0), ((50.0, 180.0), 120.0)])
def test_slews_take_what_rubin_schedulers_model_says(end: tuple[float, float], seconds: float) -> None:
    assert slew_seconds(Kinematics(), (50.0, 0.0), end) == pytest.approx(seconds, abs=0.05)


def test_slews_are_those_of_rubin_scheduler() -> None:
    model = pytest.importorskip("rubin_scheduler.scheduler.model_observatory",
                                reason="rubin-scheduler is not installed").KinemModel()
    rng = np.random.default_rng(1)
    start, end = rng.uniform([22, 0], [85, 360], (200, 2)), rng.uniform([22, 0], [85, 360], (200, 2))
    end[:100] = np.clip(start[:100] + rng.uniform(-12, 12, (100, 2)), [22, 0], [85, 360])
    ours_without = Kinematics(open_loop_s_deg=0.0)     # it divides by the open loop's slope: never felt
    for a, b in zip(np.radians(start), np.radians(end), strict=True):
        theirs = model.slew_times(np.zeros(1), np.zeros(1), 0.0, bandname=np.array(["r"]), alt_rad=b[:1], az_rad=b[1:],
                                  starting_alt_rad=a[:1], starting_az_rad=a[1:])
        ours = slew_seconds(ours_without, tuple(np.degrees(a)), tuple(np.degrees(b)))
        assert ours == pytest.approx(float(theirs[0]), abs=1e-6)


@given(places, places)
def test_a_slew_takes_as_long_as_the_way_back_and_never_less_than_the_settling(a: tuple[float, float],
                                                                              b: tuple[float, float]) -> None:
    k = Kinematics()
    there = slew_seconds(k, a, b)
    assert there == pytest.approx(slew_seconds(k, b, a), rel=1e-9)
    assert there >= k.settle_s or abs(a[0] - b[0]) + abs(a[1] - b[1]) % 360.0 < 1e-9


@given(places, places, places)
def test_a_stop_on_the_way_saves_no_time(a: tuple[float, float], b: tuple[float, float],
                                         c: tuple[float, float]) -> None:
    k = Kinematics(closed_loop_s=0.0)       # the optics' loop is a step at 9 deg: two short slews do avoid it
    assert slew_seconds(k, a, c) <= slew_seconds(k, a, b) + slew_seconds(k, b, c) + 1e-9


@given(st.floats(-250.0, 250.0), azimuths)
def test_the_cable_never_winds_beyond_its_limits(wrap: float, azimuth: float) -> None:
    low, high = np.radians([-250.0, 250.0])
    end = np.radians(wrap) + pointing.unwound(np.radians(wrap), np.radians(azimuth), low, high)
    assert low - 1e-9 <= end <= high + 1e-9
    assert np.cos(end - np.radians(azimuth)) == pytest.approx(1.0)


def test_a_rotator_that_turns_far_decides_the_slew() -> None:
    k = Kinematics()
    assert slew_seconds(k, (50.0, 0.0), (51.0, 0.0), turn_deg=160.0) == pytest.approx(160 / 3.5 + 3.5 + 0.25, abs=0.01)


def test_a_tour_takes_every_field_once_and_is_short() -> None:
    rng = np.random.default_rng(4)
    altitude, azimuth = np.radians(rng.uniform(50, 70, 40)), np.radians(rng.uniform(0, 30, 40))
    order = pointing.tour(altitude, azimuth, altitude[0], azimuth[0])
    assert sorted(order.tolist()) == list(range(40))
    x, y = np.cos(altitude) * azimuth, altitude

    def length(rows: np.ndarray) -> float:
        return float(np.hypot(np.diff(x[rows]), np.diff(y[rows])).sum())

    area = np.ptp(x) * np.ptp(y)
    assert length(order) < 0.95 * np.sqrt(40 * area)      # Beardwood et al.: the shortest is about 0.71 sqrt(n A)
    assert length(order) < 0.4 * length(np.arange(40))


def test_a_slower_telescope_is_slower_in_all_but_exposures() -> None:
    k = Kinematics()
    slow = k.slower(2.0)
    for end in ((53.0, 0.0), (50.0, 40.0), (65.0, 200.0)):
        assert slew_seconds(slow, (50.0, 0.0), end) == pytest.approx(2.0 * slew_seconds(k, (50.0, 0.0), end), rel=1e-9)
    assert slow.visit_s(30.0, 1) == k.visit_s(30.0, 1) == 31.0
    assert k.visit_s(30.0, 2) == pytest.approx(35.07)
