"""The minor planets at their natural density: families of orbits, sizes, colours and rotations, drawn near a field.

Angles of an orbit but its shape and inclination are uniform (Trojans: their distance from Jupiter is not), so the
density of a family on a line of sight is known in closed form. With (a, e) and the mean anomaly drawn, an object
stands on a sphere of radius r about the Sun; a line of sight meets that sphere at a distance d, under the phase angle
p, at the heliocentric latitude b, and

    dN / dOmega = N(< H limit) d^2 / (4 pi r^2 |cos p|) L(b)
    L(b) = (2 / pi) integral over psi of f(i) / sin i,   cos i = cos b cos psi,

where psi, between the motion and the parallel of latitude, is what remains to be drawn once b is known. So proposals
(orbit shape, direction) are taken as often as Poisson deviates of that weight say: the result is the whole population
restricted to the field and the magnitude limit, whatever the number of proposals, without drawing the millions
elsewhere. `whole_sky` draws without any of this, and is the test's oracle.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.exposure import AB_ZEROPOINT_NJY
from simulators import asteroids as solar
from simulators import orbits
from simulators.families import (
    POPULATIONS,
    SLOPE_G,
    TAXA,
    V_MINUS,
    V_MINUS_R_COUSINS,
    latitudes,
    motion_angles,
    shapes,
    taxa,
    tilt_density,
)
from simulators.stars import band_index

# `weight` is 1 / boost: what a row stands for in the real sky. Of unknown objects the last four fields mean nothing.
MINOR_PLANET: Final = np.dtype([
    ("id", "i8"), ("ssObjectId", "i8"), *((name, "f8") for name in orbits.ORBIT.names or ()), ("h", "f8"), ("g", "f8"),
    ("family", "S12"), ("taxon", "S1"), ("weight", "f8"),
    ("amplitude", "f8"), ("period", "f8"), ("spin", "f8"),     # peak to peak [mag], [day], phase at the epoch [turn]
    ("known", "?"), ("claimed_error", "f8"),                   # [arcsec]
    ("arc", "S8"), ("designation", "S16"),
    ("element_errors", "f8", (6,)),                            # a, e, inc, node, argperi, mean anomaly [au, radian]
    ("predicted", orbits.ORBIT),                               # what the catalogue believes, at the same epoch
    ("published", orbits.ORBIT)])                              # the same at the catalogue's standard epoch

PILOT: Final = 30_000                               # proposals at least
LIBRATION_DEG: Final = 13.0                         # rms distance of a Trojan from 60 deg: assumed


# --- in a field ---------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class Patch:
    """A circle on the sky at a moment, and how faint one looks."""

    ra: float                # centre [deg]
    dec: float
    radius_deg: float
    mjd_tai: float
    faint: float             # magnitude limit
    band: str = "r"          # ugrizy, or "R" of Cousins

    @property
    def area_deg2(self) -> float:
        """Of the spherical cap."""
        return float(2.0 * np.pi * (1.0 - np.cos(np.radians(self.radius_deg))) * np.degrees(1.0) ** 2)


@dataclass(frozen=True, slots=True)
class _Proposals:
    """Orbit shapes on lines of sight through a patch, and how many objects each stands for."""

    position: np.ndarray     # (n, 3) heliocentric, ecliptic [au]
    distance: np.ndarray     # from the observer [au]
    a: np.ndarray
    e: np.ndarray
    part: np.ndarray
    taxon: np.ndarray
    number: np.ndarray       # N(< H limit)
    weight: np.ndarray


def _v_minus(taxon: np.ndarray, band: str) -> np.ndarray:
    return np.asarray(V_MINUS_R_COUSINS[taxon] if band == "R" else V_MINUS[taxon, band_index(band)])


def _directions(patch: Patch, rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, 3) unit vectors evenly over the patch."""
    centre = solar.directions(np.array(patch.ra), np.array(patch.dec))
    east = np.array([-np.sin(np.radians(patch.ra)), np.cos(np.radians(patch.ra)), 0.0])
    north = np.cross(centre, east)
    cosine = rng.uniform(np.cos(np.radians(patch.radius_deg)), 1.0, n)
    angle, sine = rng.uniform(0, 2 * np.pi, n), np.sqrt(1.0 - cosine**2)
    return np.asarray(cosine[:, None] * centre + (sine * np.cos(angle))[:, None] * east
                      + (sine * np.sin(angle))[:, None] * north)


def _propose(family: str, patch: Patch, rng: np.random.Generator, n: int) -> _Proposals:
    population = POPULATIONS[family]
    a, e, part = shapes(family, rng, n)
    taxon = taxa(family, rng, a)
    r = a * (1.0 - e * np.cos(orbits.eccentric_anomaly(rng.uniform(-np.pi, np.pi, n), e)))
    line = _directions(patch, rng, n) @ solar.TO_EQUATOR
    here = orbits.observer(np.array([patch.mjd_tai]))[0] @ solar.TO_EQUATOR
    b = line @ here
    inside = b**2 - here @ here + r**2
    root = np.sqrt(np.maximum(inside, 0.0))
    two = (inside > 0) & (-b - root > 0)              # the line enters the sphere and leaves it: one of both, twice
    distance = np.where(two & (rng.uniform(size=n) < 0.5), -b - root, -b + root)
    seen = (inside > 0) & (distance > 1e-5)
    distance = np.where(seen, distance, 1.0)
    position = here + distance[:, None] * line
    cosine = np.sum(position * line, axis=1) / r
    limit = (patch.faint + _v_minus(taxon, patch.band) - 5.0 * np.log10(r * distance)
             + 2.5 * np.log10(orbits.phase_function(cosine, SLOPE_G[taxon])))
    number = population.number(limit)
    weight = (number * np.radians(1.0) ** 2 * patch.area_deg2 / (4.0 * np.pi) * distance**2
              / (r**2 * np.maximum(np.abs(cosine), 1e-9)) * latitudes(population, part, position[:, 2] / r)
              * np.where(two, 2.0, 1.0) * seen)
    if family == "trojan":
        weight = weight * _beside_jupiter(position, patch.mjd_tai)
    return _Proposals(position, distance, a, e, part, taxon, number, weight)


def jupiter_longitude(mjd: float) -> float:
    """Mean longitude of Jupiter [radian] (Standish's mean elements: 34.396 deg + 3034.746 per century)."""
    return float(np.radians((34.396 + 3034.746 * (mjd - 51544.5) / 36525.0) % 360.0))


def _beside_jupiter(position: np.ndarray, mjd: float) -> np.ndarray:
    """Density of Trojans in longitude over an even one; L4 has 1.6 of what L5 has."""
    away = np.degrees(np.arctan2(position[:, 1], position[:, 0]) - jupiter_longitude(mjd))
    out = np.zeros(len(position))
    for centre, share in ((60.0, 1.6 / 2.6), (-60.0, 1.0 / 2.6)):
        off = (away - centre + 180.0) % 360.0 - 180.0
        out += share * 360.0 / (LIBRATION_DEG * np.sqrt(2 * np.pi)) * np.exp(-0.5 * (off / LIBRATION_DEG) ** 2)
    return out


def expected(family: str, patch: Patch, rng: np.random.Generator, proposals: int = PILOT) -> float:
    """Mean number of a family in a patch; the error is that of the mean of so many weights."""
    return float(np.mean(_propose(family, patch, rng, proposals).weight))


def draw(family: str, patch: Patch, rng: np.random.Generator, boost: float = 1.0) -> np.ndarray:
    """MINOR_PLANET rows of a family in a patch, `boost` times as many as there are; their weight is 1 / boost.

    The orbits' epoch is the patch's time. Two rows may share a proposal, and so their place at that time, once in some
    20 times the number of rows.
    """
    if boost < 0:
        raise ValueError(f"boost of {family} must not be negative, got {boost}")
    mean = boost * expected(family, patch, rng)
    n = int(np.clip(20.0 * mean, PILOT, 2_000_000))
    tried = _propose(family, patch, rng, n)
    row = np.repeat(np.arange(n), rng.poisson(boost * tried.weight / n))
    position, a, e = tried.position[row], tried.a[row], tried.e[row]
    r = np.linalg.norm(position, axis=1)
    psi = motion_angles(rng, POPULATIONS[family], tried.part[row], position[:, 2] / np.maximum(r, 1e-9))
    velocity = _velocities(rng, position, a, e, psi)
    left = patch.mjd_tai - tried.distance[row] / solar.LIGHT_AU_PER_DAY
    found = orbits.of_states(position @ solar.TO_EQUATOR.T, velocity @ solar.TO_EQUATOR.T, left)
    h = POPULATIONS[family].magnitudes(rng.uniform(size=len(row)) * tried.number[row])
    return _described(family, orbits.at_epoch(found, patch.mjd_tai), h, tried.taxon[row], boost, rng)


def _velocities(rng: np.random.Generator, position: np.ndarray, a: np.ndarray, e: np.ndarray,
                psi: np.ndarray) -> np.ndarray:
    """(n, 3) ecliptic velocities [au/day] of orbits through positions; in or out, up or down with equal chances."""
    n = len(a)
    r = np.linalg.norm(position, axis=1)
    out = position / r[:, None]
    east = np.stack([-out[:, 1], out[:, 0], np.zeros(n)], axis=1)
    east /= np.linalg.norm(east, axis=1)[:, None]
    north = np.cross(out, east)
    along = np.sqrt(solar.GM_SUN * a * (1.0 - e**2)) / r
    radial = np.sqrt(np.maximum(solar.GM_SUN * (2.0 / r - 1.0 / a) - along**2, 0.0)) * rng.choice([-1.0, 1.0], n)
    up = np.sin(psi) * rng.choice([-1.0, 1.0], n)
    return np.asarray(radial[:, None] * out + (along * np.cos(psi))[:, None] * east + (along * up)[:, None] * north)


def _described(family: str, found: np.ndarray, h: np.ndarray, taxon: np.ndarray, boost: float,
               rng: np.random.Generator) -> np.ndarray:
    """MINOR_PLANET rows with everything but catalogue and ids.

    Amplitudes: mean 0.25 mag, exponential. Periods: lognormal about 7 h, none under the 2.2 h at which rubble flies
    apart but of those fainter than H = 22, which spin faster (Pravec & Harris 2000). Spreads assumed.
    """
    out = np.zeros(len(found), MINOR_PLANET)
    n = len(out)
    for name in orbits.ORBIT.names or ():
        out[name] = out["predicted"][name] = out["published"][name] = found[name]
    out["h"], out["family"] = h, family.encode()
    out["taxon"] = np.frombuffer(TAXA, "S1")[taxon]
    out["g"], out["weight"] = SLOPE_G[taxon], 1.0 / boost if boost else 0.0
    out["amplitude"] = np.minimum(rng.exponential(0.25, n), 1.5)
    hours = 7.0 * np.exp(0.8 * rng.normal(size=n))
    quick = hours * 0.1 ** rng.uniform(0.0, 1.5, n)
    hours = np.where(h > 22.0, quick, np.where(hours > 2.2, hours, 2.2 + 2.0 * rng.exponential(size=n)))
    out["period"], out["spin"] = hours / 24.0, rng.uniform(size=n)
    return out


# --- the whole sky -----------------------------------------------------------------------------------------------

def whole_sky(family: str, rng: np.random.Generator, n: int, mjd_tai: float, h: float) -> np.ndarray:
    """MINOR_PLANET rows of `n` members of a family all over the sky, the number brighter than H being `n` of them."""
    population = POPULATIONS[family]
    a, e, part = shapes(family, rng, n)
    inclination = np.zeros(n)
    grid = np.linspace(0.0, np.pi / 2, 4001)
    for k in range(len(population.tilts)):
        total = np.cumsum(tilt_density(population, k, grid) * np.sin(grid))
        here = part == k
        inclination[here] = np.interp(rng.uniform(size=int(here.sum())) * total[-1], total, grid)
    columns = [a, e, inclination, *rng.uniform(0, 2 * np.pi, (3, n)), np.full(n, mjd_tai)]
    found = orbits.rows_of(np.stack(columns, axis=1))
    if family == "trojan":
        side = np.where(rng.uniform(size=n) < 1.6 / 2.6, 60.0, -60.0) + LIBRATION_DEG * rng.normal(size=n)
        place, _ = orbits.states(found)
        place = place @ solar.TO_EQUATOR
        found["node"] += jupiter_longitude(mjd_tai) + np.radians(side) - np.arctan2(place[:, 1], place[:, 0])
    magnitudes = population.magnitudes(rng.uniform(size=n) * population.number(h))
    return _described(family, found, magnitudes, taxa(family, rng, a), 1.0, rng)


# --- brightness --------------------------------------------------------------------------------------------------

def rotation(rows: np.ndarray, mjd_tai: np.ndarray | float) -> np.ndarray:
    """Magnitudes by which rotation makes objects fainter at times: two unequal maxima a turn, of mean about zero."""
    turn = 2.0 * np.pi * ((np.asarray(mjd_tai) - rows["epoch"]) / rows["period"] + rows["spin"])
    return np.asarray(-rows["amplitude"] * (0.46 * np.cos(2.0 * turn) + 0.08 * np.cos(turn)))


def magnitudes(rows: np.ndarray, band: str, mjd_tai: float, vectors: np.ndarray, observer: np.ndarray) -> np.ndarray:
    """(n,) magnitudes in a band of objects seen along vectors (n, 3) from an observer (3,)."""
    taxon = np.searchsorted(_SORTED, rows["taxon"])
    left = mjd_tai - np.linalg.norm(vectors, axis=1) / solar.LIGHT_AU_PER_DAY
    v = orbits.v_magnitudes(rows["h"], rows["g"], vectors, observer)
    return np.asarray(v + rotation(rows, left) - _v_minus(_ORDER[taxon], band))


def fluxes(rows: np.ndarray, band: str, mjd_tai: float, vectors: np.ndarray, observer: np.ndarray) -> np.ndarray:
    """The same as fluxes [nJy]."""
    return np.asarray(10 ** (0.4 * (AB_ZEROPOINT_NJY - magnitudes(rows, band, mjd_tai, vectors, observer))))


_ORDER: Final = np.argsort(np.frombuffer(TAXA, "S1"))
_SORTED: Final = np.frombuffer(TAXA, "S1")[_ORDER]
