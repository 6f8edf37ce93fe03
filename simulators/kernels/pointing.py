"""Times of moves of a telescope, its dome and its rotator, and the visits of a block one after the other.

Angles are radians. `mount` is the array that `simulators.kinematics.Kinematics.packed` makes; its order is ORDER there.
"""

import numpy as np
from numba import njit

TWO_PI = 2.0 * np.pi


@njit("f8(f8, f8, f8, f8)", cache=True)
def move_s(distance, speed, acceleration, jerk):  # type: ignore[no-untyped-def] # numba
    """Seconds to move from rest to rest with bounds on speed, acceleration and jerk (0: none on jerk)."""
    if distance <= 0.0:
        return 0.0
    if jerk <= 0.0:
        if distance < speed * speed / acceleration:
            return 2.0 * np.sqrt(distance / acceleration)
        return distance / speed + speed / acceleration
    if speed * jerk >= acceleration * acceleration:
        rise = acceleration / jerk
        if distance >= speed * (speed / acceleration + rise):
            return distance / speed + speed / acceleration + rise
        if distance >= 2.0 * acceleration * rise * rise:
            return rise + np.sqrt(rise * rise + 4.0 * distance / acceleration)
    elif distance >= 2.0 * speed * np.sqrt(speed / jerk):
        return distance / speed + 2.0 * np.sqrt(speed / jerk)
    return 4.0 * (0.5 * distance / jerk) ** (1.0 / 3.0)


@njit("f8(f8, f8)", cache=True)
def turn(start, end):  # type: ignore[no-untyped-def] # numba
    """The smaller signed angle from `start` to `end`."""
    return (end - start + np.pi) % TWO_PI - np.pi


@njit("f8(f8, f8, f8, f8[::1])", cache=True)
def slew_s(altitude, azimuth_telescope, azimuth_dome, mount):  # type: ignore[no-untyped-def] # numba
    """Seconds of a slew by the sizes of its parts: altitude, azimuth of the mount and of the dome; no rotator."""
    telescope = max(move_s(altitude, mount[0], mount[1], mount[2]),
                    move_s(azimuth_telescope, mount[3], mount[4], mount[5]))
    if telescope > 0.0:
        telescope += max(altitude * mount[7], mount[6])      # open-loop optics run while the mount settles
    dome = 0.0
    view = mount[10]
    if altitude * altitude + azimuth_dome * azimuth_dome >= view * view:
        # the dome creeps at full speed; one axis has to be centred in the slit, the other to be half a view nearer
        dome = min(max(altitude / mount[8], (azimuth_dome + view / 2.0) / mount[9]),
                   max((altitude + view / 2.0) / mount[8], azimuth_dome / mount[9]))
    longest = max(telescope, dome)
    if altitude >= mount[11]:
        longest += mount[12]
    return longest


@njit("f8(f8, f8, f8, f8)", cache=True)
def unwound(wrap, azimuth, low, high):  # type: ignore[no-untyped-def] # numba
    """Signed move of the mount from the cable angle `wrap` to an azimuth, the shorter way that the cable allows."""
    short = turn(wrap, azimuth)
    if low <= wrap + short <= high:
        return short
    return short - TWO_PI if short > 0.0 else short + TWO_PI


@njit("i8[::1](f8[::1], f8[::1], f8, f8)", cache=True)
def tour(altitude, azimuth, start_altitude, start_azimuth):  # type: ignore[no-untyped-def] # numba
    """An order of fields near each other on the sky, from where the telescope points: nearest first, then 2-opt."""
    n = len(altitude)
    cost = np.empty((n + 1, n))
    for i in range(n + 1):
        from_altitude = start_altitude if i == n else altitude[i]
        from_azimuth = start_azimuth if i == n else azimuth[i]
        for j in range(n):
            half = (np.sin((altitude[j] - from_altitude) / 2.0) ** 2
                    + np.cos(altitude[j]) * np.cos(from_altitude) * np.sin((azimuth[j] - from_azimuth) / 2.0) ** 2)
            cost[i, j] = 2.0 * np.arcsin(np.sqrt(min(1.0, half)))
    order = np.empty(n, np.int64)
    left = np.ones(n, np.bool_)
    here = n
    for place in range(n):
        best, least = -1, np.inf
        for j in range(n):
            if left[j] and cost[here, j] < least:
                best, least = j, cost[here, j]
        order[place] = best
        left[best] = False
        here = best
    for _ in range(40):
        gained = False
        for i in range(n - 1):
            before = n if i == 0 else order[i - 1]
            for j in range(i + 1, n):
                old = cost[before, order[i]]
                new = cost[before, order[j]]
                if j + 1 < n:
                    old += cost[order[j], order[j + 1]]
                    new += cost[order[i], order[j + 1]]
                if new < old - 1e-9:
                    order[i:j + 1] = order[i:j + 1][::-1].copy()
                    gained = True
        if not gained:
            break
    return order


@njit("void(f8, f8, f8, f8[::1])", cache=True)
def horizontal(hour_angle, dec, latitude, out):  # type: ignore[no-untyped-def] # numba
    """Altitude, azimuth (from north by east) and parallactic angle into `out`."""
    sine = np.sin(latitude) * np.sin(dec) + np.cos(latitude) * np.cos(dec) * np.cos(hour_angle)
    out[0] = np.arcsin(min(1.0, max(-1.0, sine)))
    out[1] = np.arctan2(-np.sin(hour_angle) * np.cos(dec),
                        np.sin(dec) * np.cos(latitude) - np.cos(dec) * np.cos(hour_angle) * np.sin(latitude)) % TWO_PI
    out[2] = np.arctan2(np.sin(hour_angle), np.tan(latitude) * np.cos(dec) - np.sin(dec) * np.cos(hour_angle))


@njit("i8(f8[::1], f8[::1], i8[::1], f8[::1], f8, f8, f8, f8, f8, f8, f8[::1], f8[::1], f8[:, ::1])", cache=True)
def observe(ra, dec, band, visit_s, rotator, latitude, sidereal, rate,  # type: ignore[no-untyped-def] # numba
            start_s, end_s, mount, state, out):
    """Visits in the order given, until one would end after `end_s`; gives their number.

    Parameters
    ----------
    ra, dec, band, visit_s : (n,)
        Of the equator of date; shutter open to closed with all but the last readout [s].
    rotator : float
        Angle of the camera rotator at the start of every visit.
    sidereal, rate : float
        Local sidereal angle at second 0 and its growth [radian/s].
    start_s, end_s : float
        When the last visit ended, when all must end.
    state : (8,)
        What the telescope is at, changed in place: tracked ra, dec, rotator minus parallactic angle, cable angle of
        azimuth, band, overhead to come [s], 1 where it tracks and 0 where it is parked at altitude `state[7]`.
    out : (n, 7)
        Start of the exposure, slew [s], altitude, azimuth, parallactic angle, distance, 1 where the band changed.
    """
    now = start_s
    place, target = np.empty(3), np.empty(3)
    for k in range(len(ra)):
        angle = sidereal + rate * now
        horizontal(angle - ra[k], dec[k], latitude, target)
        if state[6] > 0.5:
            horizontal(angle - state[0], state[1], latitude, place)
            rotator_now = turn(0.0, state[2] + place[2])
        else:
            place[0], place[1], place[2] = state[7], state[3] % TWO_PI, 0.0
            rotator_now = rotator
        wrap = state[3] + turn(state[3], place[1])          # tracking turned the mount since the last slew
        move = unwound(wrap, target[1], mount[13], mount[14])
        slew = slew_s(abs(target[0] - place[0]), abs(move), abs(turn(place[1], target[1])), mount)
        changed = state[6] > 0.5 and band[k] != int(state[4])
        if changed:
            slew = max(slew, mount[18]) if mount[20] > 0.5 else slew + mount[18]
        else:
            slew = max(slew, move_s(abs(turn(rotator_now, rotator)), mount[15], mount[16], mount[17]))
        slew = max(slew, state[5])
        if now + slew + visit_s[k] > end_s:
            return k
        distance = 0.0
        if state[6] > 0.5:
            half = np.sin((dec[k] - state[1]) / 2.0) ** 2 + np.cos(dec[k]) * np.cos(state[1]) * np.sin(
                (ra[k] - state[0]) / 2.0) ** 2
            distance = 2.0 * np.arcsin(np.sqrt(min(1.0, half)))
        now += slew
        horizontal(sidereal + rate * now - ra[k], dec[k], latitude, place)
        out[k, 0], out[k, 1], out[k, 2], out[k, 3], out[k, 4] = now, slew, place[0], place[1], place[2]
        out[k, 5], out[k, 6] = distance, 1.0 if changed else 0.0
        state[0], state[1], state[2], state[3] = ra[k], dec[k], rotator - place[2], wrap + move
        state[4], state[5], state[6] = band[k], mount[19], 1.0
        now += visit_s[k]
    return len(ra)
