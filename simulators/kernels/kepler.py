"""Two-body orbits seen from a moving observer, with light time."""

import numpy as np
from numba import njit

GM_SUN = 0.01720209895**2            # Gaussian constant squared [au^3 / day^2]
LIGHT_AU_PER_DAY = 173.144632674
COS_OBLIQUITY = 0.9174820620768958   # J2000, 23.43929111 deg
SIN_OBLIQUITY = 0.3977771559141214


@njit("f8(f8, f8)", cache=True, nogil=True)
def eccentric_anomaly(mean: float, e: float) -> float:
    """Solution of Kepler's equation for e < 1, by Newton steps from Danby's start."""
    m = (mean + np.pi) % (2.0 * np.pi) - np.pi
    value = m + 0.85 * e * (1.0 if m > 0.0 else -1.0)
    for _ in range(40):
        step = (value - e * np.sin(value) - m) / (1.0 - e * np.cos(value))
        value -= step
        if abs(step) < 1e-14:
            break
    return value


@njit("void(f8[::1], f8[::1])", cache=True, nogil=True)
def axes(orbit: np.ndarray, out: np.ndarray) -> None:
    """Semi-axes of an orbit's ellipse, ICRF [au]: (a P, b Q) in six numbers; `orbit` as in `apparent`."""
    co, so, cw, sw = np.cos(orbit[3]), np.sin(orbit[3]), np.cos(orbit[4]), np.sin(orbit[4])
    ci, si = np.cos(orbit[2]), np.sin(orbit[2])
    a, b = orbit[0], orbit[0] * np.sqrt(1.0 - orbit[1] ** 2)
    py, pz = so * cw + co * sw * ci, sw * si
    qy, qz = -so * sw + co * cw * ci, cw * si
    out[0], out[3] = a * (co * cw - so * sw * ci), b * (-co * sw - so * cw * ci)
    out[1], out[2] = a * (COS_OBLIQUITY * py - SIN_OBLIQUITY * pz), a * (SIN_OBLIQUITY * py + COS_OBLIQUITY * pz)
    out[4], out[5] = b * (COS_OBLIQUITY * qy - SIN_OBLIQUITY * qz), b * (SIN_OBLIQUITY * qy + COS_OBLIQUITY * qz)


@njit("void(f8[:,::1], f8[::1], f8[:,::1], f8, f8[:,:,::1])", cache=True, nogil=True)
def apparent(orbits: np.ndarray, mjd: np.ndarray, observers: np.ndarray, light: float, out: np.ndarray) -> None:
    """Fill (m, n, 3) vectors from the observer to where each object was when the light left it, ICRF [au].

    `orbits` is (n, 7): a [au], e, inclination, node, argument of perihelion, mean anomaly [radian], epoch [day];
    `observers` (m, 3) heliocentric; `light` the speed of light [au/day], infinite for geometric places.
    """
    ellipse = np.empty(6)
    for i in range(orbits.shape[0]):
        axes(orbits[i], ellipse)
        e = orbits[i, 1]
        motion = np.sqrt(GM_SUN / orbits[i, 0] ** 3)
        delay = 0.0
        for t in range(mjd.size):
            x, y, z = 0.0, 0.0, 0.0
            for _ in range(6):
                anomaly = eccentric_anomaly(orbits[i, 5] + motion * (mjd[t] - delay - orbits[i, 6]), e)
                along, across = np.cos(anomaly) - e, np.sin(anomaly)
                x = along * ellipse[0] + across * ellipse[3] - observers[t, 0]
                y = along * ellipse[1] + across * ellipse[4] - observers[t, 1]
                z = along * ellipse[2] + across * ellipse[5] - observers[t, 2]
                last, delay = delay, np.sqrt(x * x + y * y + z * z) / light
                if abs(delay - last) < 1e-11:      # day: 0.03 mm of a main-belt orbit
                    break
            out[t, i, 0], out[t, i, 1], out[t, i, 2] = x, y, z


@njit("void(f8[:,::1], f8[:,:,::1])", cache=True, nogil=True)
def states(orbits: np.ndarray, out: np.ndarray) -> None:
    """Fill (2, n, 3) heliocentric positions and velocities of orbits at their epochs, ICRF [au, au/day]."""
    ellipse = np.empty(6)
    for i in range(orbits.shape[0]):
        axes(orbits[i], ellipse)
        e = orbits[i, 1]
        anomaly = eccentric_anomaly(orbits[i, 5], e)
        cosine, sine = np.cos(anomaly), np.sin(anomaly)
        rate = np.sqrt(GM_SUN / orbits[i, 0] ** 3) / (1.0 - e * cosine)
        for k in range(3):
            out[0, i, k] = (cosine - e) * ellipse[k] + sine * ellipse[k + 3]
            out[1, i, k] = rate * (cosine * ellipse[k + 3] - sine * ellipse[k])


@njit("void(f8[::1], f8[::1], f8[::1])", cache=True, nogil=True)
def anomalies(mean: np.ndarray, e: np.ndarray, out: np.ndarray) -> None:
    """Fill with the eccentric anomalies of mean ones."""
    for i in range(mean.size):
        out[i] = eccentric_anomaly(mean[i], e[i])
