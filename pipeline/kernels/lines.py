"""Straight lines across an image: votes for them, their profile, and pixels on them."""

import numba
import numpy as np


@numba.njit("i8[::1](i8[::1], i8[::1], f8[::1], f8[::1], f8, f8, i8)", cache=True, nogil=True)
def strongest(x, y, cosine, sine, offset, cell, cells):  # type: ignore[no-untyped-def]  # compiled
    """The line on which most points lie: index of its angle, of its cell, and number of votes.

    Points vote, for every angle, in the cell of their distance x cos + y sin + offset; two neighbouring cells count
    together, so that no line is cut by their border.
    """
    best, best_angle, best_cell = 0, -1, 0
    votes = np.empty(cells, np.int32)
    for a in range(cosine.shape[0]):
        votes[:] = 0
        c, s = cosine[a], sine[a]
        for k in range(x.shape[0]):
            votes[int((x[k] * c + y[k] * s + offset) / cell)] += 1
        top, at = -1, 0
        for i in range(cells - 1):
            if votes[i] + votes[i + 1] > top:
                top, at = votes[i] + votes[i + 1], i
        if top > best:
            best, best_angle, best_cell = top, a, at
    return np.array([best_angle, best_cell, best])


@numba.njit("f8[:,::1](f4[:,::1], b1[:,::1], f8, f8, f8, f8, i8, f8, f8)", cache=True, nogil=True)
def across(plane, usable, angle, distance, reach, step, width, low, high):  # type: ignore[no-untyped-def]  # compiled
    """(2 width + 1, 2) sums over usable pixels of a plane clipped to low .. high, and their number, beside a line.

    The line's normal has an angle and a distance; it is followed every `step` from -reach to reach.
    """
    ny, nx = plane.shape
    out = np.zeros((2 * width + 1, 2))
    c, s = np.cos(angle), np.sin(angle)
    n = int(np.ceil(2 * reach / step))
    for i in range(2 * width + 1):
        base_x, base_y = (distance + i - width) * c, (distance + i - width) * s
        for k in range(n):
            along = k * step - reach
            x, y = base_x - along * s, base_y + along * c
            if x > -0.5 and x < nx - 0.5 and y > -0.5 and y < ny - 0.5:
                u, v = int(np.rint(x)), int(np.rint(y))
                if usable[v, u]:
                    out[i, 0] += min(max(plane[v, u], low), high)
                    out[i, 1] += 1
    return out


@numba.njit("void(i4[:,::1], f8, f8, f8, i8)", cache=True, nogil=True)
def mark(bits, angle, distance, half_width, bit):  # type: ignore[no-untyped-def]  # compiled for the one signature
    """Set a bit on the pixels within `half_width` of a line."""
    ny, nx = bits.shape
    c, s = np.cos(angle), np.sin(angle)
    for y in range(ny):
        first, last = 0, nx
        if abs(c) > 1e-6:
            middle, half = (distance - y * s) / c, half_width / abs(c) + 1.0
            if not (middle + half >= 0 and middle - half <= nx):
                continue
            first, last = max(int(middle - half), 0), min(int(middle + half) + 2, nx)
        for x in range(first, last):
            if abs(x * c + y * s - distance) <= half_width:
                bits[y, x] |= bit
