"""The Hierarchical Triangular Mesh: one integer for a place on the sky, near integers for near places.

The sphere is eight spherical triangles, each parted into four, again and again; an index is the root (8 to 15) with two
bits for each level. The real SQL APDB keeps level 20 (triangles of 0.3") in its column `pixelId`, and asks for a region
in at most 64 ranges of it, which cover the region and a little more (paper code: dax_apdb, over sphgeom).

References
----------
Kunszt, Szalay & Thakar 2001, "The Hierarchical Triangular Mesh"; numbering as in sphgeom's HtmPixelization.
"""

from typing import Final

import numpy as np

from pipeline.sphere import unit_vectors
from schemas.exposure import Box

LEVEL: Final = 20
MAX_RANGES: Final = 64

_X, _Y, _Z = np.eye(3)
_ROOTS: Final = np.array([                       # S0 to S3, N0 to N3
    [_X, -_Z, _Y], [_Y, -_Z, -_X], [-_X, -_Z, -_Y], [-_Y, -_Z, _X],
    [_X, _Z, -_Y], [-_Y, _Z, -_X], [-_X, _Z, _Y], [_Y, _Z, _X]])
_SLACK: Final = 1e-12                            # rounding of a bounding circle [rad]


def htm_index(ra: np.ndarray, dec: np.ndarray, level: int = LEVEL) -> np.ndarray:
    """(n,) int64 indexes of positions in degrees; 0, which is no triangle, where a position is not finite."""
    ra, dec = np.atleast_1d(np.asarray(ra, float)), np.atleast_1d(np.asarray(dec, float))
    finite = np.isfinite(ra) & np.isfinite(dec)
    points = unit_vectors(np.where(finite, ra, 0.0), np.where(finite, dec, 0.0))
    root = _root(points)
    index, (v0, v1, v2) = root + 8, _ROOTS[root].transpose(1, 2, 0)      # (3, n) each: fast along positions
    points = np.ascontiguousarray(points.T)
    for _ in range(level):
        w0, w1, w2 = _between(v1, v2), _between(v0, v2), _between(v0, v1)
        child = np.where(_beyond(points, w2, w1), 0, np.where(_beyond(points, w0, w2), 1,
                                                              np.where(_beyond(points, w1, w0), 2, 3)))
        index = index << 2 | child
        first, second, third = child == 0, child == 1, child == 2
        v0, v1, v2 = (np.where(first, v0, np.where(second, v1, np.where(third, v2, w0))),
                      np.where(first, w2, np.where(second, w0, w1)),
                      np.where(first, w1, np.where(third, w0, w2)))
    return np.where(finite, index, 0)


def htm_ranges(box: Box, level: int = LEVEL, max_ranges: int = MAX_RANGES) -> np.ndarray:
    """(n, 2) int64 first and last indexes of at most `max_ranges` ranges that cover a box, in order.

    They cover somewhat more than the box: who asks trims.
    """
    if max_ranges < 8:
        raise ValueError(f"max_ranges must be 8 or more, got {max_ranges}")
    index, corners = np.arange(8, 16), _ROOTS
    index, corners, within = _kept(box, index, corners)
    done = np.empty((0, 2), np.int64)
    ranges = _ranges(index, level, 0)
    for depth in range(level):
        done = np.concatenate([done, _ranges(index[within], level, depth)])
        index, corners = index[~within], corners[~within]
        if not len(index):
            break
        index = (index[:, None] << 2 | np.arange(4)).ravel()
        index, corners, within = _kept(box, index, _children(corners).reshape(-1, 3, 3))
        finer = _merged(np.concatenate([done, _ranges(index, level, depth + 1)]))
        if len(finer) > max_ranges:
            break
        ranges = finer
    return _merged(ranges)


def _root(points: np.ndarray) -> np.ndarray:
    """Root triangles; a point on a border belongs to the one that begins there."""
    x, y, north = points[:, 0], points[:, 1], points[:, 2] >= 0
    quarter = np.select([(x > 0) & (y >= 0), (x <= 0) & (y > 0), (x < 0) & (y <= 0), (x >= 0) & (y < 0)],
                        [0, 1, 2, 3], 0)
    return np.where(north, 4 + (3 - quarter), quarter)


def _children(corners: np.ndarray) -> np.ndarray:
    """(n, 4, 3, 3) corners of the four parts of triangles (n, 3, 3)."""
    v0, v1, v2 = corners[:, 0], corners[:, 1], corners[:, 2]
    w0, w1, w2 = _middle(v1, v2), _middle(v0, v2), _middle(v0, v1)
    return np.stack([np.stack(part, axis=1) for part in ((v0, w2, w1), (v1, w0, w2), (v2, w1, w0), (w0, w1, w2))],
                    axis=1)


def _middle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    total = a + b
    return np.asarray(total / np.sqrt((total * total).sum(axis=1, keepdims=True)))


def _between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    total = a + b
    return np.asarray(total / np.sqrt(total[0] * total[0] + total[1] * total[1] + total[2] * total[2]))


def _beyond(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether points (3, n) lie to the left of the great circles from a to b, borders included."""
    return np.asarray((a[1] * b[2] - a[2] * b[1]) * points[0] + (a[2] * b[0] - a[0] * b[2]) * points[1]
                      + (a[0] * b[1] - a[1] * b[0]) * points[2] >= 0)


def _kept(box: Box, index: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles that may touch the box, and which of them certainly lie within."""
    centre = corners.sum(axis=1)
    centre /= np.sqrt((centre * centre).sum(axis=1, keepdims=True))
    reach = np.arccos(np.clip((centre[:, None] * corners).sum(axis=2).min(axis=1), -1.0, 1.0)) + _SLACK
    ra, dec = np.degrees(np.arctan2(centre[:, 1], centre[:, 0])) % 360.0, np.arcsin(np.clip(centre[:, 2], -1, 1))
    polar = np.abs(dec) + reach >= np.pi / 2
    wide = np.degrees(np.where(polar, np.pi, np.arcsin(np.minimum(np.sin(reach) / np.cos(np.where(polar, 0.0, dec)),
                                                                  1.0))))
    low, high = np.degrees(dec - reach), np.degrees(dec + reach)
    width = box.ra_max - box.ra_min if box.ra_max >= box.ra_min else box.ra_max - box.ra_min + 360.0
    from_west = (ra - box.ra_min) % 360.0            # of the centre, along the box
    in_ra = (from_west <= width + wide) | (from_west >= 360.0 - wide) | (width >= 360.0)
    touch = in_ra & (high >= box.dec_min) & (low <= box.dec_max)
    within = touch & (low >= box.dec_min) & (high <= box.dec_max)
    within &= (width >= 360.0) | ((from_west - wide >= 0.0) & (from_west + wide <= width))
    return index[touch], corners[touch], within[touch]


def _ranges(index: np.ndarray, level: int, depth: int) -> np.ndarray:
    shift = 2 * (level - depth)
    return np.stack([index << shift, (index + 1 << shift) - 1], axis=1)


def _merged(ranges: np.ndarray) -> np.ndarray:
    """Ranges in order, with those that touch made one."""
    if not len(ranges):
        return ranges
    ranges = ranges[np.argsort(ranges[:, 0])]
    begins = np.append(True, ranges[1:, 0] > ranges[:-1, 1] + 1)
    return np.stack([ranges[begins, 0], ranges[np.append(np.flatnonzero(begins)[1:] - 1, len(ranges) - 1), 1]], axis=1)
