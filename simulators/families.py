"""Families of minor planets: how many of each size, the shapes and tilts of their orbits, their surfaces."""

from dataclasses import dataclass
from typing import Final

import numpy as np

FAMILIES: Final = ("main_belt", "near_earth", "trojan", "tno", "hilda", "hungaria")

# V - ugrizy, V - R of Cousins, and slope G. C, S and D: colours of Sorcha's demonstration catalogue with V - r of 0.18,
# 0.26, 0.22; G of Warner et al. 2009 for C and S. V-types with their 1 micron band in z, red trans-Neptunian surfaces,
# and the other G: assumed.
TAXA: Final = b"CSDVR"
V_MINUS: Final = np.array([
    [-1.54, -0.30, 0.18, 0.29, 0.30, 0.30],
    [-1.87, -0.39, 0.26, 0.45, 0.40, 0.40],
    [-1.68, -0.36, 0.22, 0.43, 0.52, 0.61],
    [-1.81, -0.36, 0.26, 0.45, 0.20, 0.31],
    [-2.00, -0.55, 0.32, 0.66, 0.80, 0.88]])
V_MINUS_R_COUSINS: Final = np.array([0.38, 0.49, 0.45, 0.46, 0.58])
SLOPE_G: Final = np.array([0.12, 0.24, 0.10, 0.32, 0.15])

DENSITY_24: Final = 290.0    # main belt per square degree to R = 24.4 at opposition on the ecliptic (SMBAS)


@dataclass(frozen=True, slots=True)
class Population:
    """One family: how many to which H, and how its inclinations are spread."""

    counts: tuple[tuple[float, float], ...]      # (H, log10 of the number brighter), straight between
    tilts: tuple[tuple[float, float], ...]       # (mean, s) [deg] of f(i) = sin i exp(-(i - mean)^2 / 2 s^2), per part
    shares: tuple[float, ...] = (1.0,)           # of the parts

    def number(self, h: np.ndarray | float) -> np.ndarray:
        """Objects brighter than H."""
        knots, logs = np.array(self.counts).T
        inside = np.clip(h, knots[0], knots[-1])
        return np.where(np.asarray(h) < knots[0], 0.0, 10.0 ** np.interp(inside, knots, logs))

    def magnitudes(self, number: np.ndarray) -> np.ndarray:
        """H of the object that is this many-th in brightness."""
        knots, logs = np.array(self.counts).T
        return np.asarray(np.interp(np.log10(np.maximum(number, 1e-300)), logs, knots))


# Numbers. Main belt: slope 0.30 beyond the bright end (Gladman et al. 2009: 0.30 +- 0.02), scaled to `DENSITY_24`.
# Near Earth: 920 to H = 17.75 (Tricarico 2017), 802,000 to 25 (Granvik et al. 2018), slope 0.5 beyond (Valdes 2019).
# Trojans: 1e5 beyond 2 km, H = 17.4 (Nakamura & Yoshida 2008), slope 0.38. Beyond Neptune: one per square degree to
# R = 23.4 on the ecliptic (Bernstein et al. 2004), slopes assumed. Hildas: 1e4 beyond 2 km (Terai & Yoshida 2018).
# Hungarias: assumed. Inclinations beyond Neptune: cold and hot after Brown 2001; elsewhere the spreads are assumed.
POPULATIONS: Final = {
    "main_belt": Population(((5.0, 0.60), (10.0, 2.85), (15.0, 5.0168), (26.0, 7.8548)), ((0.0, 7.5),)),
    "near_earth": Population(((9.0, 0.0), (17.75, 2.9638), (25.0, 5.9042), (28.0, 7.4042)), ((0.0, 15.0),)),
    "trojan": Population(((7.0, 0.3), (17.4, 5.0), (22.0, 6.75)), ((0.0, 11.0),)),
    "tno": Population(((3.0, 0.62), (7.0, 3.42), (14.0, 6.22)), ((0.0, 2.0), (0.0, 14.0), (0.0, 14.0)),
                      (0.4, 0.4, 0.2)),
    "hilda": Population(((7.0, 0.3), (17.4, 4.0), (23.0, 6.1)), ((0.0, 7.0),)),
    "hungaria": Population(((11.0, 0.0), (16.0, 3.2), (25.0, 6.35)), ((21.0, 3.0),))}
PSI: Final = np.linspace(0.0, np.pi / 2, 513)      # between the motion and the parallel


def _rayleigh(rng: np.random.Generator, n: int, sigma: float, largest: float) -> np.ndarray:
    return np.minimum(sigma * np.sqrt(-2.0 * np.log(rng.uniform(1e-9, 1.0, n))), largest)


def shapes(family: str, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(a, e, part) of `n` orbits of a family; `part` is the row of its tilts.

    Main belt: the mixture of four zones whose rates and latitudes are the validated ones. The others: assumed, with
    the limits that define the family.
    """
    part = np.zeros(n, int)
    if family == "main_belt":
        zone = rng.choice(4, n, p=[0.2, 0.3, 0.25, 0.25])
        a = np.array([2.35, 2.6, 2.75, 3.1])[zone] + np.array([0.07, 0.07, 0.06, 0.08])[zone] * rng.normal(size=n)
        return a, _rayleigh(rng, n, 0.1, 0.4), part
    if family == "near_earth":
        return *_near_earth(rng, n), part
    if family == "trojan":
        return 5.2 + 0.06 * np.clip(rng.normal(size=n), -3, 3), _rayleigh(rng, n, 0.045, 0.2), part
    if family == "hilda":
        return 3.96 + 0.02 * np.clip(rng.normal(size=n), -3, 3), rng.normal(0.17, 0.05, n).clip(0.01, 0.33), part
    if family == "hungaria":
        return rng.uniform(1.80, 1.99, n), _rayleigh(rng, n, 0.06, 0.18), part
    if family == "tno":
        return _beyond_neptune(rng, n)
    raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")


def _near_earth(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Perihelia inside 1.3 au and aphelia outside 0.983 au; more of them near 1 au than near the Sun."""
    a, e = np.zeros(0), np.zeros(0)
    while len(a) < n:
        axis, q = rng.normal(1.75, 0.65, 2 * n + 8), 1.3 * np.sqrt(rng.uniform(0.02, 1.0, 2 * n + 8))
        ok = (axis > 0.6) & (axis < 4.2) & (q < axis)
        axis, q = axis[ok], q[ok]
        ok = axis * 2 - q > 0.983
        a, e = np.concatenate([a, axis[ok]]), np.concatenate([e, 1.0 - q[ok] / axis[ok]])
    return a[:n], np.minimum(e[:n], 0.97)


def _beyond_neptune(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cold classical, hot classical, and scattered orbits."""
    part = rng.choice(3, n, p=list(POPULATIONS["tno"].shares))
    cold = 44.0 + 1.2 * np.clip(rng.normal(size=n), -2.5, 2.5)
    hot, wide = rng.uniform(39.0, 47.5, n), np.exp(rng.uniform(np.log(48.0), np.log(150.0), n))
    a = np.choose(part, [cold, hot, wide])
    q = rng.uniform(34.0, 39.0, n)
    e = np.choose(part, [_rayleigh(rng, n, 0.04, 0.12), _rayleigh(rng, n, 0.09, 0.2), 1.0 - q / wide])
    return a, e, part


def taxa(family: str, rng: np.random.Generator, a: np.ndarray) -> np.ndarray:
    """Row of `TAXA` of each object: in the belt, S gives way to C outwards (Gradie & Tedesco 1982, by eye)."""
    n = len(a)
    shares = {"near_earth": (0.25, 0.63, 0.07, 0.05, 0.0), "trojan": (0.2, 0.0, 0.8, 0.0, 0.0),
              "hilda": (0.4, 0.0, 0.6, 0.0, 0.0), "hungaria": (0.6, 0.4, 0.0, 0.0, 0.0),
              "tno": (0.4, 0.0, 0.1, 0.0, 0.5)}
    if family == "main_belt":
        stony = np.interp(a, [2.1, 2.5, 2.8, 3.2], [0.70, 0.50, 0.28, 0.12])
        vestal, dark = np.where(a < 2.5, 0.06, 0.0), np.interp(a, [2.5, 3.2], [0.0, 0.08])
        share = np.stack([1.0 - stony - vestal - dark, stony, dark, vestal, np.zeros(n)])
    else:
        share = np.repeat(np.array(shares[family])[:, None], n, axis=1)
    return np.asarray(np.sum(rng.uniform(size=n) > np.cumsum(share, axis=0), axis=0).clip(0, len(TAXA) - 1))


def tilt_density(population: Population, part: int, inclination: np.ndarray) -> np.ndarray:
    """f(i) / sin i, normalised so that f integrates to 1 over prograde orbits."""
    mean, sigma = population.tilts[part]
    grid = np.linspace(0.0, np.pi / 2, 4001)
    shape = np.exp(-0.5 * ((np.degrees(grid) - mean) / sigma) ** 2)
    norm = np.trapezoid(shape * np.sin(grid), grid)
    return np.asarray(np.exp(-0.5 * ((np.degrees(inclination) - mean) / sigma) ** 2) / norm)


def latitudes(population: Population, part: np.ndarray, sine: np.ndarray) -> np.ndarray:
    """L(b): density of a family at heliocentric latitudes over that of an even sky."""
    grid = np.linspace(0.0, np.pi / 2, 721)
    out = np.zeros(len(sine))
    for k in range(len(population.tilts)):
        tilt = np.arccos(np.clip(np.cos(grid)[:, None] * np.cos(PSI), -1.0, 1.0))
        values = 2.0 / np.pi * np.trapezoid(tilt_density(population, k, tilt), PSI, axis=1)
        here = part == k
        out[here] = np.interp(np.arcsin(np.abs(np.clip(sine[here], -1.0, 1.0))), grid, values)
    return out


def motion_angles(rng: np.random.Generator, population: Population, part: np.ndarray, sine: np.ndarray) -> np.ndarray:
    """psi of objects at given latitudes."""
    cosine = np.sqrt(1.0 - sine**2)
    out = np.zeros(len(sine))
    for k in range(len(population.tilts)):
        for rows in np.array_split(np.flatnonzero(part == k), 1 + len(part) // 4096):
            tilt = np.arccos(np.clip(cosine[rows, None] * np.cos(PSI), -1.0, 1.0))
            density = tilt_density(population, k, tilt)
            steps = 0.5 * (density[:, 1:] + density[:, :-1])
            total = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(steps, axis=1)], axis=1)
            wanted = rng.uniform(size=len(rows)) * total[:, -1]
            j = np.clip(np.sum(total <= wanted[:, None], axis=1) - 1, 0, len(PSI) - 2)
            row = np.arange(len(rows))
            part_way = (wanted - total[row, j]) / np.maximum(total[row, j + 1] - total[row, j], 1e-300)
            out[rows] = PSI[j] + part_way * (PSI[1] - PSI[0])
    return out
