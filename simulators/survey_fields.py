"""The fields of a survey: where they are, and how many visits each is to have in each band."""

from dataclasses import dataclass
from itertools import combinations
from typing import Final

import erfa
import numpy as np

from simulators.almanac import angles, separation

EDGE: Final = 21                     # parts of an icosahedron's edge: 4412 pointings, 3.0 deg apart, 9.4 deg^2 each,
#                                      within the camera's view of 9.6 deg^2
BLOCK_RADIUS_DEG: Final = 12.0       # fields about a centre that its worth is judged by
DEEP: Final = (("ELAISS1", 9.45, -44.02), ("XMM_LSS", 35.57, -4.82), ("ECDFS", 52.98, -28.12),
               ("COSMOS", 150.11, 2.23), ("EDFS", 61.28, -48.42))    # Rubin's deep-drilling fields [deg]
# shares of the wide-fast-deep field's visits that other regions get, by band (v2.0 baseline, rounded)
PLANE: Final = (0.27, 0.27, 0.27, 0.27, 0.27, 0.27)
NORTH: Final = (0.0, 0.30, 0.30, 0.30, 0.30, 0.0)
SOUTH: Final = (0.14, 0.14, 0.14, 0.14, 0.14, 0.14)


@dataclass(frozen=True, slots=True)
class Fields:
    """Pointings without the night's dither."""

    vectors: np.ndarray        # (n, 3) ICRF
    weight: np.ndarray         # (n, 6) visits wanted, of those that a wide-fast-deep field gets in r
    near: np.ndarray           # (n, m) indices of those within the radius of a block; n where there are fewer than m
    region: np.ndarray         # (n,) names


def lattice(parts: int) -> np.ndarray:
    """(10 parts^2 + 2, 3) unit vectors: an icosahedron's faces in triangles, each pointing with six neighbours."""
    golden = (1.0 + np.sqrt(5.0)) / 2.0
    signs = [(i, j) for i in (-1.0, 1.0) for j in (-golden, golden)]
    corners = np.array([p for i, j in signs for p in ((0, i, j), (i, j, 0), (j, 0, i))])
    side = np.linalg.norm(corners[:, None] - corners, axis=-1)
    edges = np.abs(side - 2.0) < 1e-9
    points = []
    for a, b, c in combinations(range(12), 3):
        if edges[a, b] and edges[b, c] and edges[a, c]:
            i, j = (k.ravel() for k in np.meshgrid(np.arange(parts + 1), np.arange(parts + 1)))
            i, j = i[i + j <= parts], j[i + j <= parts]
            points.append(i[:, None] * corners[a] + j[:, None] * corners[b] + (parts - i - j)[:, None] * corners[c])
    every = np.concatenate(points)
    every /= np.linalg.norm(every, axis=1)[:, None]
    _, first = np.unique(np.round(every, 6) + 0.0, axis=0, return_index=True)
    return np.asarray(every[np.sort(first)])


def fields(targets: tuple[float, ...]) -> Fields:
    """Wide-fast-deep with the bulge, the galactic plane, the northern ecliptic spur, the southern cap."""
    v = lattice(EDGE)
    ra, dec = angles(v)
    ecliptic = np.degrees(np.arcsin(v @ np.array([0.0, -np.sin(np.radians(23.43929)), np.cos(np.radians(23.43929))])))
    longitude, latitude = (np.degrees(x) for x in erfa.icrs2g(np.radians(ra), np.radians(dec)))
    longitude = (longitude + 180.0) % 360.0 - 180.0
    bulge = np.hypot(longitude, latitude) < 12.0
    plane = (np.abs(latitude) < 15.0) & ~bulge
    region = np.select([dec > 32.0, (dec > 12.0) & (ecliptic < 10.0) & (ecliptic > -90.0), dec > 12.0, dec < -72.0,
                        plane, bulge], ["", "north", "", "south", "plane", "wide"], "wide")
    share = {"wide": np.ones(6), "plane": np.array(PLANE), "north": np.array(NORTH), "south": np.array(SOUTH),
             "": np.zeros(6)}
    weight = np.stack([share[name] for name in region]) * np.array(targets) / max(targets[2], 1e-9)
    keep = weight.sum(1) > 0
    v, weight, region = v[keep], weight[keep], region[keep]
    return Fields(v, weight, _neighbours(v), region)


def _neighbours(vectors: np.ndarray) -> np.ndarray:
    close = vectors @ vectors.T > np.cos(np.radians(BLOCK_RADIUS_DEG))
    count = close.sum(1)
    out = np.full((len(vectors), int(count.max())), len(vectors))
    row, column = np.nonzero(close)
    out[row, np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)] = column
    return out


def dithered(vectors: np.ndarray, rng: np.random.Generator, most_deg: float = 1.75) -> np.ndarray:
    """All fields turned together about a random axis: neighbours keep their distances."""
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    angle = np.radians(most_deg) * np.sqrt(rng.uniform())
    along = (vectors @ axis)[:, None] * axis
    return np.asarray(vectors * np.cos(angle) + np.cross(axis, vectors) * np.sin(angle) + along * (1 - np.cos(angle)))


__all__ = ["DEEP", "Fields", "dithered", "fields", "lattice", "separation"]
