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


@numba.njit("void(i4[:,::1], i8[::1], i4[::1], i8, i4[:,::1], i2[:,::1])", cache=True)
def grow(seeds, flat, number, radius, labels, distance):  # type: ignore[no-untyped-def]
    """Paint discs of `radius` pixels around labelled pixels; where discs overlap the nearer pixel's label wins.

    seeds, flat : labels, and the flat indices of the pixels to grow from; `number` renumbers labels (index 0 unused).
    labels, distance : painted; `distance` holds squared distances and starts large.
    """
    ny, nx = labels.shape
    for s in range(flat.shape[0]):
        y, x = flat[s] // nx, flat[s] % nx
        label = seeds[y, x]
        if label == 0:
            continue
        mine = number[label]
        for dy in range(-radius, radius + 1):
            v = y + dy
            if v < 0 or v >= ny:
                continue
            for dx in range(-radius, radius + 1):
                square = dy * dy + dx * dx
                u = x + dx
                if square <= radius * radius and 0 <= u < nx and square < distance[v, u]:
                    distance[v, u] = square
                    labels[v, u] = mine
