"""Footprints from a sparse set of significant pixels: which maxima stand by themselves, and growth by a radius."""

import numba
import numpy as np


@numba.njit(cache=True)
def _root(parent, i):  # type: ignore[no-untyped-def]  # compiled
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@numba.njit("i4[::1](f4[::1], i8[::1], i4[:,::1], f8, f8, f8, f8)", cache=True)
def separate(values, flat, labels, threshold, drop, fraction, contrast):  # type: ignore[no-untyped-def]
    """Label pixels by the maximum they belong to, flooding from the highest down (topological persistence).

    Where two hills meet, the lower one stays by itself if its peak is above `threshold`, at least
    max(drop, fraction * peak) above the saddle, and above `contrast` times the higher peak; else it is swallowed.

    Parameters
    ----------
    values, flat : (n,)
        Significances in descending order, all positive, and their pixels' flat indices.
    labels : (ny, nx) int32
        0 everywhere; filled with 1 + index of a hill (0 for hills below the threshold).

    Returns
    -------
    (k,) int32 : index into `values` of each hill's highest pixel.
    """
    ny, nx = labels.shape
    n = values.shape[0]
    parent = np.empty(n, np.int32)
    top = np.empty(n, np.int32)
    count = 0
    for s in range(n):
        y, x = flat[s] // nx, flat[s] % nx
        highest = -1
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                v, u = y + dy, x + dx
                if 0 <= v < ny and 0 <= u < nx and labels[v, u] > 0:
                    root = _root(parent, labels[v, u] - 1)
                    if highest < 0 or top[root] < top[highest]:
                        highest = root
        if highest < 0:
            parent[count] = count
            top[count] = s
            labels[y, x] = count + 1
            count += 1
            continue
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                v, u = y + dy, x + dx
                if 0 <= v < ny and 0 <= u < nx and labels[v, u] > 0:
                    root = _root(parent, labels[v, u] - 1)
                    if root != highest:
                        peak = values[top[root]]
                        if (peak < threshold or peak - values[s] < max(drop, fraction * peak)
                                or peak < contrast * values[top[highest]]):
                            parent[root] = highest
        labels[y, x] = highest + 1
    number = np.zeros(max(count, 1), np.int32)
    tops = np.empty(count, np.int32)
    kept = 0
    for c in range(count):
        if parent[c] == c and values[top[c]] >= threshold:
            tops[kept] = top[c]
            kept += 1
            number[c] = kept
    for s in range(n):
        y, x = flat[s] // nx, flat[s] % nx
        labels[y, x] = number[_root(parent, labels[y, x] - 1)]
    return tops[:kept].copy()


@numba.njit(cache=True)
def paint(y, x, mine, labels, boxes, area):  # type: ignore[no-untyped-def]  # compiled, integers and arrays only
    """Give a pixel without a label its label, and count it."""
    if labels[y, x] == 0:
        labels[y, x] = mine
        area[mine] += 1
        boxes[mine, 0], boxes[mine, 1] = min(boxes[mine, 0], x), min(boxes[mine, 1], y)
        boxes[mine, 2], boxes[mine, 3] = max(boxes[mine, 2], x), max(boxes[mine, 3], y)


@numba.njit("void(i8[::1], i4[::1], i4[::1], i8[:,::1], i4[:,::1], i4[:,::1], i4[:,::1], i4[::1])", cache=True,
            nogil=True)
def grow(flat, number, bit, steps, labels, bits, boxes, area):  # type: ignore[no-untyped-def]
    """Paint discs around pixels; where they overlap the nearer pixel's label wins, the earlier one's at equal distance.

    Parameters
    ----------
    flat, number, bit : (n,)
        Pixels, the label of each, and the bit that marks its disc.
    steps : (k, 3)
        The disc without its middle: squared distance, rows, columns; in ascending order.
    labels, bits : (ny, nx) int32
        Labels, 0 before; mask, without those bits before.
    boxes, area : (m, 4), (m,) int32
        Updated by label: first and last column and row (x0, y0, x1, y1), and number of pixels.
    """
    ny, nx = labels.shape
    n = flat.shape[0]
    for s in range(n):
        y, x = flat[s] // nx, flat[s] % nx
        bits[y, x] |= bit[s]
        paint(y, x, number[s], labels, boxes, area)
    edge, count = np.empty(n, np.int64), 0      # what lies within a hill is nearest to nothing outside
    for s in range(n):
        y, x = flat[s] // nx, flat[s] % nx
        if ((y > 0 and bits[y - 1, x] & bit[s] == 0) or (y < ny - 1 and bits[y + 1, x] & bit[s] == 0)
                or (x > 0 and bits[y, x - 1] & bit[s] == 0) or (x < nx - 1 and bits[y, x + 1] & bit[s] == 0)):
            edge[count] = s
            count += 1
    first = 0
    while first < steps.shape[0]:
        last = first
        while last < steps.shape[0] and steps[last, 0] == steps[first, 0]:
            last += 1
        for e in range(count):
            s = edge[e]
            y, x = flat[s] // nx, flat[s] % nx
            for k in range(first, last):
                v, u = y + steps[k, 1], x + steps[k, 2]
                if 0 <= v < ny and 0 <= u < nx:
                    bits[v, u] |= bit[s]
                    paint(v, u, number[s], labels, boxes, area)
        first = last


@numba.njit("void(i4[::1], i4[:,::1], i4[:,::1])", cache=True, nogil=True)
def erase(number, boxes, labels):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Set labels to 0 again within their boxes (x0, y0, x1, y1)."""
    for k in range(number.shape[0]):
        for y in range(boxes[k, 1], boxes[k, 3] + 1):
            for x in range(boxes[k, 0], boxes[k, 2] + 1):
                if labels[y, x] == number[k]:
                    labels[y, x] = 0
