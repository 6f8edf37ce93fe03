"""Comparison of resampled visits with their median, and their weighted mean; planes are (rows, nx) of one strip."""

import math

import numba
import numpy as np


@numba.njit("void(f4[:,:,::1], b1[:,:,::1], f4[:,::1])", cache=True, nogil=True)
def median(images, good, out):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Fill `out` with the median of the good pixels of a stack (n, rows, nx); 0 where there is none."""
    n, ny, nx = images.shape
    values = np.empty(n, np.float32)
    for y in range(ny):
        for x in range(nx):
            k = 0
            for i in range(n):
                if good[i, y, x]:
                    v = images[i, y, x]
                    j = k
                    while j > 0 and values[j - 1] > v:
                        values[j] = values[j - 1]
                        j -= 1
                    values[j] = v
                    k += 1
            if k == 0:
                out[y, x] = 0
            elif k % 2 == 1:
                out[y, x] = values[k // 2]
            else:
                out[y, x] = np.float32(0.5) * (values[k // 2 - 1] + values[k // 2])


@numba.njit("void(f4[:,::1], f4[:,::1], b1[:,::1], i2[:,::1], f4[:,::1])", cache=True, nogil=True)
def deviation(image, middle, good, count, out):  # type: ignore[no-untyped-def]  # compiled for the one signature
    """Fill `out` with how far good pixels are from the median; of two visits the brighter is the odd one."""
    root = np.float32(math.sqrt(2.0))
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            d = image[y, x] - middle[y, x]
            d = max(d * root, np.float32(0)) if count[y, x] == 2 else d
            out[y, x] = d if good[y, x] else np.float32(0)


@numba.njit(cache=True, nogil=True)
def add_times(line, weight, out):  # type: ignore[no-untyped-def]  # compiled, arrays only
    """Add weight * line."""
    for x in range(out.shape[0]):
        out[x] += weight * line[x]


@numba.njit("void(f4[:,::1], f4[::1], f4[:,::1])", cache=True, nogil=True)
def blur(plane, taps, out):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Fill `out` with a plane smoothed along both axes by symmetric taps; the border is reflected."""
    ny, nx = plane.shape
    half = taps.shape[0] // 2
    line = np.empty(nx + 2 * half, np.float32)
    for y in range(ny):
        line[:] = 0
        for k in range(-half, half + 1):
            v = y + k
            while v < 0 or v >= ny:
                v = -1 - v if v < 0 else 2 * ny - 1 - v
            add_times(plane[v], taps[k + half], line[half:half + nx])
        for k in range(half):
            line[half - 1 - k] = line[half + min(k, nx - 1)]
            line[half + nx + k] = line[half + max(nx - 1 - k, 0)]
        out[y] = 0
        for k in range(2 * half + 1):
            add_times(line[k:k + nx], taps[k], out[y])


@numba.njit("void(f4[:,::1], f4[:,::1], f4[:,::1], f4[:,::1], f4[:,::1], f4[:,::1], f4[:,::1], f4[::1], b1[:,::1])",
            cache=True, nogil=True)
def reject(difference, smooth, variance, bright, steep, smooth_bright, scratch, limits, good):  # type: ignore[no-untyped-def]
    """Clear `good` on artifacts: what differs by more than noise and allowance, and what hangs together with that.

    Parameters
    ----------
    limits : (5,)
        Sigmas; allowed share of `steep`; noise after smoothing over noise of a pixel; allowed share of `smooth_bright`;
        share of the brightness by which a star may differ from itself at another time.
    scratch : (rows, nx)
        Overwritten.
    """
    ny, nx = difference.shape
    sigmas, sharp_share, noise, broad_share, own = limits[0], limits[1], limits[2], limits[3], limits[4]
    some = False
    for y in range(ny):
        for x in range(nx):      # 0 nothing, 1 odd, 2 core
            sigma = np.sqrt(variance[y, x])
            sharp = abs(difference[y, x]) - sigmas * sigma - sharp_share * steep[y, x]
            broad = abs(smooth[y, x]) - sigmas * noise * sigma - broad_share * smooth_bright[y, x]
            odd = good[y, x] & ((sharp > np.float32(0)) | (broad > np.float32(0)))
            core = good[y, x] & ((sharp > own * bright[y, x]) | (broad > own * smooth_bright[y, x]))
            scratch[y, x] = np.float32(2) if core else (np.float32(1) if odd else np.float32(0))
            some |= core
    if not some:
        return
    front, n = np.empty(1024, np.int64), 0
    for y in range(ny):
        for x in range(nx):
            if scratch[y, x] == 2:
                if n == front.shape[0]:
                    front = np.concatenate((front, np.empty(n, np.int64)))
                front[n] = y * nx + x
                n += 1
    first = 0
    for _ in range(5):           # how far an artifact is followed into a star that it crosses
        last = n
        for k in range(first, last):
            y, x = front[k] // nx, front[k] % nx
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < ny and 0 <= u < nx and scratch[v, u] == 1:
                    scratch[v, u] = 2
                    if n == front.shape[0]:
                        front = np.concatenate((front, np.empty(n, np.int64)))
                    front[n] = v * nx + u
                    n += 1
        first = last
    for k in range(n):
        y, x = front[k] // nx, front[k] % nx
        for dy in range(-2, 3):
            for dx in range(-2 + abs(dy), 3 - abs(dy)):
                v, u = y + dy, x + dx
                if 0 <= v < ny and 0 <= u < nx and good[v, u]:
                    raised = abs(difference[v, u]) > 1.5 * np.sqrt(variance[v, u]) + sharp_share * steep[v, u]
                    if abs(dy) + abs(dx) <= 1 or raised:
                        good[v, u] = False


@numba.njit("void(f4[:,:,::1], f4[:,:,::1], i4[:,:,::1], b1[:,:,::1], f8[::1], i8, i8, i8, f8, i8, f4[:,::1], "
            "f4[:,::1], i4[:,::1], i2[:,::1])", cache=True, nogil=True)
def mean(images, variances, masks, good, weights, no_data, saturated, kept, share, low, image, variance, mask, count):  # type: ignore[no-untyped-def]
    """Fill four planes with the weighted mean of a stack, from its row `low` on.

    Pixels saturated in `share` of the weight are marked; those good in no visit keep the mean of the saturated ones.
    `kept` are the bits that pass from good pixels to the mean's mask.
    """
    n, _, nx = images.shape
    for r in range(image.shape[0]):
        y = low + r
        for x in range(nx):
            total = value = noise = covered = spoiled = 0.0
            bits, used = 0, 0
            for i in range(n):
                m, w = masks[i, y, x], weights[i]
                if m & no_data == 0:
                    covered += w
                if m & saturated:
                    spoiled += w
                if good[i, y, x]:
                    total += w
                    value += w * images[i, y, x]
                    noise += w * w * variances[i, y, x]
                    bits |= m & kept
                    used += 1
            if used == 0 and spoiled > 0.0:
                for i in range(n):
                    if masks[i, y, x] & saturated:
                        w = weights[i]
                        total += w
                        value += w * images[i, y, x]
                        noise += w * w * variances[i, y, x]
            if total > 0.0:
                image[r, x], variance[r, x] = value / total, noise / total**2
            else:
                image[r, x], variance[r, x] = 0.0, 0.0
                bits |= no_data
            if spoiled >= share * max(covered, 1e-30):
                bits |= saturated
            mask[r, x], count[r, x] = bits, used
