"""Orbits, where they are seen, and how bright: two-body motion, the site on the turning Earth, light time, H and G.

Heliocentric osculating elements in the ecliptic of J2000; the Earth from ERFA's analytic ephemeris (a few km), the site
with precession, nutation and the Earth's turning (UT1 taken as TAI - 37 s: a kilometre). Places are astrometric: light
time, no aberration of the observer, as the Minor Planet Center's are. The Sun is at rest: its motion about the
barycentre while the light is on its way would move everything in a field by the same 0.007".
"""

from typing import Final

import erfa
import numpy as np

from simulators.asteroids import GM_SUN, LIGHT_AU_PER_DAY, elements
from simulators.conditions import SITE
from simulators.kernels import kepler

AU_M: Final = 149597870700.0
SITE_HEIGHT_M: Final = 2663.0
TT_MINUS_TAI_D: Final = 32.184 / 86400.0
UT1_MINUS_TAI_D: Final = -37.0 / 86400.0
MJD0: Final = 2400000.5

ORBIT: Final = np.dtype([("a", "f8"), ("e", "f8"), ("inc", "f8"), ("node", "f8"), ("argperi", "f8"),
                         ("mean_anomaly", "f8"), ("epoch", "f8")])     # [au], [radian], [MJD TAI]
_NAMES: Final = ORBIT.names or ()


def table(rows: np.ndarray) -> np.ndarray:
    """(n, 7) float64 of rows that have ORBIT's fields among theirs."""
    return np.ascontiguousarray(np.stack([rows[name] for name in _NAMES], axis=-1).reshape(-1, 7))


def rows_of(columns: np.ndarray) -> np.ndarray:
    """ORBIT rows of an (n, 7) array."""
    out = np.zeros(len(columns), ORBIT)
    for k, name in enumerate(_NAMES):
        out[name] = columns[:, k]
    return out


def at_epoch(rows: np.ndarray, epoch: float) -> np.ndarray:
    """The same two-body orbits as ORBIT rows with another epoch."""
    out = rows_of(table(rows))
    out["mean_anomaly"] = (rows["mean_anomaly"]
                           + np.sqrt(GM_SUN / rows["a"] ** 3) * (epoch - rows["epoch"])) % (2.0 * np.pi)
    out["epoch"] = epoch
    return out


def of_states(position: np.ndarray, velocity: np.ndarray, epoch: np.ndarray | float) -> np.ndarray:
    """ORBIT rows of heliocentric states (n, 3) in the ICRF [au, au/day]."""
    return rows_of(table(elements(position, velocity, np.broadcast_to(epoch, len(position)))))


def states(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heliocentric positions and velocities (n, 3) of orbits at their epochs, ICRF [au, au/day]."""
    out = np.empty((2, len(rows), 3))
    kepler.states(table(rows), out)
    return out[0], out[1]


def eccentric_anomaly(mean: np.ndarray, e: np.ndarray) -> np.ndarray:
    """Solutions of Kepler's equation for e < 1."""
    out = np.empty(len(mean))
    kepler.anomalies(np.ascontiguousarray(mean, float), np.ascontiguousarray(e, float), out)
    return out


def site(mjd_tai: np.ndarray) -> np.ndarray:
    """(m, 3) positions of the telescope from the geocentre [au], ICRF."""
    at = np.asarray(mjd_tai, float)
    turned = erfa.pvtob(np.radians(SITE[0]), np.radians(SITE[1]), SITE_HEIGHT_M, 0.0, 0.0, 0.0,
                        erfa.era00(MJD0, at + UT1_MINUS_TAI_D))["p"]
    return np.asarray(np.einsum("...ji,...j->...i", erfa.c2i06a(MJD0, at + TT_MINUS_TAI_D), turned) / AU_M)


def observer(mjd_tai: np.ndarray) -> np.ndarray:
    """(m, 3) heliocentric positions of the telescope [au], ICRF."""
    at = np.asarray(mjd_tai, float)
    return np.asarray(erfa.epv00(MJD0, at + TT_MINUS_TAI_D)[0]["p"] + site(at))


def apparent(rows: np.ndarray, mjd_tai: np.ndarray, observers: np.ndarray, *, light_time: bool = True) -> np.ndarray:
    """(m, n, 3) vectors from observers (m, 3) at times (m,) to n two-body orbits as they are seen, ICRF [au]."""
    at = np.ascontiguousarray(mjd_tai, float)
    out = np.empty((len(at), len(rows), 3))
    kepler.apparent(table(rows), at, np.ascontiguousarray(observers, float),
                    LIGHT_AU_PER_DAY if light_time else np.inf, out)
    return out


def phase_function(cos_phase: np.ndarray, g: np.ndarray | float) -> np.ndarray:
    """Brightness at a phase angle over that at zero, of the H, G system.

    References
    ----------
    Bowell et al. 1989, Asteroids II, with the blending of forward scattering near zero phase (A and B of 3.332, 0.631,
    0.986 and 1.862, 1.218, 0.238).
    """
    angle = np.arccos(np.clip(cos_phase, -1.0, 1.0))
    tan, sin = np.tan(0.5 * angle), np.sin(angle)
    near = np.exp(-90.56 * np.tan(0.5 * angle) ** 2)
    bottom = 0.119 + 1.341 * sin - 0.754 * sin**2
    first = near * (1.0 - 0.986 * sin / bottom) + (1.0 - near) * np.exp(-3.332 * tan**0.631)
    second = near * (1.0 - 0.238 * sin / bottom) + (1.0 - near) * np.exp(-1.862 * tan**1.218)
    return np.asarray(np.maximum((1.0 - g) * first + g * second, 1e-10))


def v_magnitudes(h: np.ndarray, g: np.ndarray, vectors: np.ndarray, observers: np.ndarray) -> np.ndarray:
    """(..., n) apparent V without rotation, of vectors (..., n, 3) as `apparent` gives them."""
    sun = vectors + observers[..., None, :]
    delta, r = np.linalg.norm(vectors, axis=-1), np.linalg.norm(sun, axis=-1)
    cosine = np.sum(vectors * sun, axis=-1) / (delta * r)
    return np.asarray(h + 5.0 * np.log10(r * delta) - 2.5 * np.log10(phase_function(cosine, g)))
