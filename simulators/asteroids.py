"""Asteroids on Keplerian orbits, chosen so that they cross a field on a night; known ones with orbit errors.

Heliocentric two-body motion in the ecliptic of J2000; the Earth from ERFA's analytic ephemeris, the site on a rotating
Earth, light time once. Over a night this is exact to milliarcseconds as a world of its own: truth and predictions share
the dynamics and differ by the orbit error alone.
"""

from typing import Final

import erfa
import numpy as np

from schemas.measures import EPHEMERIS, EPHEMERIS_ORDER, empty
from simulators.conditions import SITE, sidereal_deg
from simulators.config import AsteroidConfig

GM_SUN: Final = 0.01720209895**2            # Gaussian constant squared [au^3 / day^2]
OBLIQUITY: Final = np.radians(23.43929111)  # J2000
LIGHT_AU_PER_DAY: Final = 173.144632674
AU_KM: Final = 149597870.7
EARTH_KM: Final = 6378.137
SITE_HEIGHT_KM: Final = 2.663
TO_EQUATOR: Final = np.array([[1.0, 0.0, 0.0], [0.0, np.cos(OBLIQUITY), -np.sin(OBLIQUITY)],
                               [0.0, np.sin(OBLIQUITY), np.cos(OBLIQUITY)]])
V_MINUS: Final = np.array([-1.9, -0.4, 0.2, 0.4, 0.4, 0.35])   # V - ugrizy of a mean C and S asteroid

ASTEROID: Final = np.dtype([
    ("id", "i8"), ("ssObjectId", "i8"), ("a", "f8"), ("e", "f8"), ("inc", "f8"), ("node", "f8"), ("argperi", "f8"),
    ("mean_anomaly", "f8"), ("epoch", "f8"), ("h", "f8"), ("near_earth", "?"), ("known", "?"),
    ("predicted_anomaly", "f8"),    # what the catalogue believes the mean anomaly to be
    ("claimed_error", "f8")])       # [au], [radian], [MJD TAI], [arcsec]


def eccentric_anomaly(mean_anomaly: np.ndarray, e: np.ndarray) -> np.ndarray:
    """Solution of Kepler's equation E - e sin E = M for e < 1, by Newton steps from Danby's start."""
    m = (np.asarray(mean_anomaly, float) + np.pi) % (2.0 * np.pi) - np.pi
    value = m + np.sign(np.sin(m)) * 0.85 * e
    for _ in range(30):
        step = (value - e * np.sin(value) - m) / (1.0 - e * np.cos(value))
        value = value - step
        if np.all(np.abs(step) < 1e-14):
            break
    return np.asarray(value)


def _axes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (n, 3) to perihelion and 90 deg ahead in the orbit, ICRF."""
    co, so, cw, sw = np.cos(rows["node"]), np.sin(rows["node"]), np.cos(rows["argperi"]), np.sin(rows["argperi"])
    ci, si = np.cos(rows["inc"]), np.sin(rows["inc"])
    p = np.stack([co * cw - so * sw * ci, so * cw + co * sw * ci, sw * si], -1)
    q = np.stack([-co * sw - so * cw * ci, -so * sw + co * cw * ci, cw * si], -1)
    return p @ TO_EQUATOR.T, q @ TO_EQUATOR.T


def positions(rows: np.ndarray, mjd: np.ndarray, *, predicted: bool = False) -> np.ndarray:
    """(n, 3) heliocentric positions [au], ICRF, each at its own time."""
    m = rows["predicted_anomaly"] if predicted else rows["mean_anomaly"]
    anomaly = eccentric_anomaly(m + np.sqrt(GM_SUN / rows["a"] ** 3) * (mjd - rows["epoch"]), rows["e"])
    p, q = _axes(rows)
    along = rows["a"] * (np.cos(anomaly) - rows["e"])
    across = rows["a"] * np.sqrt(1.0 - rows["e"] ** 2) * np.sin(anomaly)
    return np.asarray(along[:, None] * p + across[:, None] * q)


def observer(mjd_tai: np.ndarray | float) -> np.ndarray:
    """(..., 3) heliocentric positions of the site [au], ICRF (precession of the site's 0.00004 au neglected)."""
    earth = erfa.epv00(2400000.5, np.asarray(mjd_tai, float) + 32.184 / 86400)[0]["p"]
    angle, lat = np.radians(sidereal_deg(mjd_tai)), np.radians(SITE[1])
    radius = (EARTH_KM * (1.0 - np.sin(lat) ** 2 / 298.257) + SITE_HEIGHT_KM) / AU_KM
    site = radius * np.stack([np.cos(lat) * np.cos(angle), np.cos(lat) * np.sin(angle),
                              np.broadcast_to(np.sin(lat), angle.shape)], -1)
    return np.asarray(earth + site)


def barycentric(mjd_tai: float) -> np.ndarray:
    """(3,) position of the Earth from the barycentre of the Solar System [au], ICRF."""
    return np.asarray(erfa.epv00(2400000.5, mjd_tai + 32.184 / 86400)[1]["p"])


def topocentric(rows: np.ndarray, mjd_tai: np.ndarray | float, *, predicted: bool = False) -> np.ndarray:
    """(n, 3) vectors from the site to where the asteroids were when the light left them [au], ICRF.

    `mjd_tai` is one time, or one per row.
    """
    here = observer(mjd_tai)
    vector = positions(rows, np.broadcast_to(mjd_tai, len(rows)), predicted=predicted) - here
    for _ in range(2):
        delay = np.linalg.norm(vector, axis=1) / LIGHT_AU_PER_DAY
        vector = positions(rows, mjd_tai - delay, predicted=predicted) - here
    return np.asarray(vector)


def sky(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RA, Dec [deg] of vectors (..., 3)."""
    ra = np.degrees(np.arctan2(vectors[..., 1], vectors[..., 0])) % 360.0
    return ra, np.degrees(np.arctan2(vectors[..., 2], np.hypot(vectors[..., 0], vectors[..., 1])))


def directions(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """(..., 3) unit vectors."""
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], -1)


def v_magnitudes(rows: np.ndarray, mjd_tai: np.ndarray | float) -> np.ndarray:
    """Apparent V of the H, G system with G = 0.15 (Bowell et al. 1989)."""
    vector = topocentric(rows, mjd_tai)
    delta, sun = np.linalg.norm(vector, axis=1), vector + observer(mjd_tai)
    r = np.linalg.norm(sun, axis=1)
    cosine = np.sum(vector * sun, axis=1) / (delta * r)
    half = np.tan(0.5 * np.arccos(np.clip(cosine, -1.0, 1.0)))
    phase = 0.85 * np.exp(-3.33 * half**0.63) + 0.15 * np.exp(-1.87 * half**1.22)
    return np.asarray(rows["h"] + 5.0 * np.log10(r * delta) - 2.5 * np.log10(np.maximum(phase, 1e-6)))


def _heliocentric_distance(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(a, e, r) of main-belt orbits: four zones between the Kirkwood gaps, Rayleigh eccentricities of 0.1."""
    zone = rng.choice(4, n, p=[0.2, 0.3, 0.25, 0.25])
    a = np.array([2.35, 2.6, 2.75, 3.1])[zone] + np.array([0.07, 0.07, 0.06, 0.08])[zone] * rng.normal(size=n)
    e = np.minimum(0.1 * np.sqrt(-2.0 * np.log(rng.uniform(1e-9, 1.0, n))), 0.4)
    r = a * (1.0 - e * np.cos(eccentric_anomaly(rng.uniform(-np.pi, np.pi, n), e)))
    return a, e, r


def _distance_along(direction: np.ndarray, here: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Distance from the observer to the sphere of heliocentric radius r along a line of sight; NaN without one."""
    b = np.sum(direction * here, axis=-1)
    inside = b**2 - np.sum(here * here, axis=-1) + r**2
    return np.asarray(-b + np.sqrt(np.where(inside > 0, inside, np.nan)))


def elements(position: np.ndarray, velocity: np.ndarray, epoch: np.ndarray) -> np.ndarray:
    """ASTEROID rows (orbit only) of heliocentric states (n, 3) in the ICRF [au, au/day]."""
    r_vec, v_vec = position @ TO_EQUATOR, velocity @ TO_EQUATOR
    r, v2 = np.linalg.norm(r_vec, axis=1), np.sum(v_vec**2, axis=1)
    h = np.cross(r_vec, v_vec)
    e_vec = np.cross(v_vec, h) / GM_SUN - r_vec / r[:, None]
    out = np.zeros(len(r), ASTEROID)
    out["a"] = 1.0 / (2.0 / r - v2 / GM_SUN)
    out["e"] = np.linalg.norm(e_vec, axis=1)
    out["inc"] = np.arccos(np.clip(h[:, 2] / np.linalg.norm(h, axis=1), -1, 1))
    out["node"] = np.arctan2(h[:, 0], -h[:, 1]) % (2 * np.pi)
    node = np.stack([np.cos(out["node"]), np.sin(out["node"]), np.zeros(len(r))], -1)
    normal = h / np.linalg.norm(h, axis=1)[:, None]
    out["argperi"] = np.arctan2(np.sum(np.cross(node, e_vec) * normal, axis=1),
                                np.sum(node * e_vec, axis=1)) % (2 * np.pi)
    anomaly = np.arctan2(np.sum(r_vec * v_vec, axis=1) / np.sqrt(GM_SUN * out["a"]), 1.0 - r / out["a"])
    out["mean_anomaly"] = (anomaly - out["e"] * np.sin(anomaly)) % (2 * np.pi)
    out["epoch"] = epoch
    return out


def _velocity(rng: np.random.Generator, position: np.ndarray, a: np.ndarray, e: np.ndarray,
              inclination: np.ndarray) -> np.ndarray:
    """Velocities (n, 3) [au/day] of orbits of given (a, e, i) through positions.

    An inclination below a position's latitude is raised to it.
    """
    ecliptic = position @ TO_EQUATOR
    r = np.linalg.norm(ecliptic, axis=1)
    out = ecliptic / r[:, None]
    speed2 = GM_SUN * np.maximum(2.0 / r - 1.0 / a, 1e-6)
    tangential = np.minimum(np.sqrt(GM_SUN * a * (1.0 - e**2)) / r, np.sqrt(speed2))
    radial = np.sqrt(np.maximum(speed2 - tangential**2, 0.0)) * rng.choice([-1.0, 1.0], len(r))
    east = np.cross([0.0, 0.0, 1.0], out)
    cos_lat = np.linalg.norm(east, axis=1)
    east /= cos_lat[:, None]
    north = np.cross(out, east)
    cosine = np.clip(np.cos(inclination) / cos_lat, -1.0, 1.0)      # of the angle between motion and the parallel
    angle = np.arccos(cosine) * rng.choice([-1.0, 1.0], len(r))
    moving = np.cos(angle)[:, None] * east + np.sin(angle)[:, None] * north
    return np.asarray((radial[:, None] * out + tangential[:, None] * moving) @ TO_EQUATOR.T)


def belt(rng: np.random.Generator, ra: np.ndarray, dec: np.ndarray, mjd: np.ndarray) -> np.ndarray:
    """Main-belt orbits (a, e, i distributed as the belt's) that stand at given positions at given times.

    A line of sight meets a shell of radius r in (distance / r)^2 of it, so of four candidates each one is drawn so.
    """
    here = observer(mjd)
    tried = [_heliocentric_distance(rng, len(ra)) for _ in range(4)]
    line = directions(ra, dec)
    weight = np.array([(_distance_along(line, here, r) / r) ** 2 for _, _, r in tried]).reshape(4, len(ra))
    cumulative = np.cumsum(np.nan_to_num(weight), axis=0)
    chosen = np.sum(rng.uniform(size=len(ra)) * cumulative[-1] > cumulative, axis=0)
    a, e, r = (np.array([one[k] for one in tried])[chosen, np.arange(len(ra))] for k in range(3))
    inclination = np.minimum(np.radians(7.5) * np.sqrt(-2.0 * np.log(rng.uniform(1e-9, 1.0, len(ra)))), 0.7)
    distance = _distance_along(line, here, r)
    position = here + distance[:, None] * line
    return elements(position, _velocity(rng, position, a, e, inclination), mjd - distance / LIGHT_AU_PER_DAY)


def near_earth(rng: np.random.Generator, ra: np.ndarray, dec: np.ndarray, mjd: np.ndarray,
               rate_deg_d: np.ndarray) -> np.ndarray:
    """Near-Earth orbits at given positions and times whose distance makes them move at given rates."""
    n = len(ra)
    here = observer(mjd)
    site_velocity = (observer(mjd + 1e-3) - observer(mjd - 1e-3)) / 2e-3
    line = directions(ra, dec)
    distance = np.full(n, 0.05)
    inclination = np.minimum(np.radians(12.0) * np.sqrt(-2.0 * np.log(rng.uniform(1e-9, 1.0, n))), 1.0)
    a, e = rng.uniform(1.1, 2.4, n), np.zeros(n)
    sign = rng.integers(1 << 30)
    velocity = np.zeros((n, 3))
    position = here
    for _ in range(8):
        position = here + distance[:, None] * line
        r = np.linalg.norm(position, axis=1)
        e = np.maximum(0.1 + 0.3 * np.abs(np.sin(17.0 * a)), np.abs(1.0 - r / a) + 0.03)
        velocity = _velocity(np.random.default_rng(sign), position, a, np.minimum(e, 0.9), inclination)
        relative = velocity - site_velocity
        across = relative - np.sum(relative * line, axis=1)[:, None] * line
        rate = np.degrees(np.linalg.norm(across, axis=1) / distance)
        distance = np.clip(distance * rate / rate_deg_d, 0.003, 0.6)
    position = here + distance[:, None] * line
    return elements(position, velocity, mjd - distance / LIGHT_AU_PER_DAY)


def with_predictions(rows: np.ndarray, config: AsteroidConfig, rng: np.random.Generator) -> np.ndarray:
    """The same rows, some of them known, with a mean anomaly that puts the prediction off along the track."""
    out = rows.copy()
    n = len(out)
    out["known"] = rng.uniform(size=n) < config.known
    out["ssObjectId"] = np.where(out["known"], 20_000_000_000 + out["id"], 0)
    error = config.ephemeris_error_arcsec * np.exp(0.6 * rng.normal(size=n))
    error = np.where(rng.uniform(size=n) < config.lost, rng.uniform(0.5, 3.0, n), error)
    error *= rng.choice([-1.0, 1.0], n)
    out["predicted_anomaly"] = out["mean_anomaly"] + 1e-6
    moved = separation_arcsec(topocentric(out, out["epoch"]), topocentric(out, out["epoch"], predicted=True))
    out["predicted_anomaly"] = out["mean_anomaly"] + 1e-6 * error / np.maximum(moved, 1e-9)
    out["claimed_error"] = config.ephemeris_error_arcsec * np.where(np.abs(error) > 0.5, 5.0, 1.0)
    return out


def separation_arcsec(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles between vectors (n, 3) [arcsec]."""
    cross = np.linalg.norm(np.cross(a, b), axis=1)
    return np.asarray(np.degrees(np.arctan2(cross, np.sum(a * b, axis=1))) * 3600.0)


def ephemerides(rows: np.ndarray, mjd_tai: float, half_span_d: float) -> np.ndarray:
    """EPHEMERIS rows of known asteroids about an epoch; their polynomials follow the predicted orbit.

    The cubic cannot follow the site's daily circle for long: over a half span of 0.25 day it is off by up to 0.3" in
    the main belt and 20" for an object of 10 deg/day; the error falls with the fourth power of the span.
    """
    out = empty(EPHEMERIS, len(rows))
    if not len(rows):
        return out
    times = np.cos(np.pi * (np.arange(9) + 0.5) / 9)
    basis = np.linalg.pinv(times[:, None] ** np.arange(EPHEMERIS_ORDER + 1))
    at = [mjd_tai + half_span_d * t for t in times]
    objects = np.stack([topocentric(rows, t, predicted=True) for t in at])          # (9, n, 3)
    here = observer(np.array(at))
    out["ssObjectId"] = rows["ssObjectId"]
    out["designation"] = [f"SIM{number % 1_000_000:06d}".encode() for number in rows["id"]]
    out["epoch_mjd_tai"], out["half_span_d"] = mjd_tai, half_span_d
    out["object_xyz"] = np.einsum("kt,tnc->nck", basis, objects)
    out["observer_xyz"] = np.einsum("kt,tc->ck", basis, here)
    out["vmag"] = v_magnitudes(rows, mjd_tai)
    out["error_arcsec"] = rows["claimed_error"]
    for name in ("a", "e"):
        out[name] = rows[name]
    for name in ("inc", "node", "argperi"):
        out[name] = np.degrees(rows[name])
    out["mean_anomaly"] = np.degrees(rows["predicted_anomaly"]) % 360.0
    out["epoch_orbit_mjd_tai"], out["h"], out["g"] = rows["epoch"], rows["h"], 0.15
    _history(out)
    return out


def _history(out: np.ndarray) -> None:
    """What the catalogue says of the orbits' observations: those off by more were seen in one apparition alone.

    Here predictions are off along the orbit alone, so of the elements only the mean anomaly has an error.
    """
    out["element_errors"] = 0.0
    out["element_errors"][:, 5] = out["error_arcsec"] / 3600.0
    one = out["error_arcsec"] > 2.0 * np.median(out["error_arcsec"])
    out["arc_d"], out["n_oppositions"], out["n_observations"] = (np.where(one, *pair) for pair in
                                                                 ((60.0, 1929.3), (1, 5), (6, 15)))
