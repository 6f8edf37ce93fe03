"""Passes over a whole difference image that leave no plane behind: clipped means in bins, weights, sparse pixels.

A background is given by its `level` at the middles of (my, mx) bins, linear in between and constant beyond.
"""

import numba
import numpy as np

_RUN = 64        # pixels of a row looked at together: most runs hold nothing
_SUMS = {"reassoc", "contract", "nsz"}      # sums may be taken in any order; NaN keeps its meaning


@numba.njit("void(f4[:,::1], f4[:,::1], i4[:,::1], i8, b1[:,::1])", cache=True, nogil=True)
def usable(image, variance, mask, weightless, out):  # type: ignore[no-untyped-def]  # compiled for the signature above
    """Fill `out`: no bit of `weightless`, a finite value, a positive and finite variance."""
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            v = variance[y, x]
            out[y, x] = ((mask[y, x] & weightless) == 0) & (v > 0) & (v < np.inf) & (abs(image[y, x]) < np.inf)


@numba.njit(cache=True, nogil=True, fastmath=_SUMS)
def row_of(level, y, ny, line, out):  # type: ignore[no-untyped-def]  # compiled, floats and arrays only
    """Fill `out` (nx,) with a background along row y; line : (mx,) scratch."""
    my, mx = level.shape
    nx = out.shape[0]
    at = min(max((y + 0.5) / ny * my - 0.5, 0.0), my - 1.0)
    j = min(int(at), max(my - 2, 0))
    share = np.float32(at - j)
    for i in range(mx):
        line[i] = (np.float32(1) - share) * level[j, i] + share * level[min(j + 1, my - 1), i]
    pitch = nx / mx
    for i in range(-1, mx):       # between the middles of bins i and i + 1
        first = 0 if i < 0 else int(np.ceil((i + 0.5) * pitch - 0.5))
        last = nx if i == mx - 1 else int(np.ceil((i + 1.5) * pitch - 0.5))
        left, right = line[max(i, 0)], line[min(i + 1, mx - 1)]
        slope = np.float32((right - left) / pitch)
        start = np.float32(left + slope * (0.5 - (i + 0.5) * pitch))
        for x in range(first, min(last, nx)):
            out[x] = start + slope * np.float32(x)


@numba.njit("void(f4[:,::1], f4[:,::1], b1[:,::1], f4[:,::1], f8, i8[::1], i8[::1], f8[:,::1], f8[:,::1])",
            cache=True, nogil=True, fastmath=_SUMS)
def binned(image, variance, fit, level, clip, rows, columns, total, count):  # type: ignore[no-untyped-def]
    """Add to `total` and `count`, per bin, what `fit` pixels within `clip` sigmas of a background have beyond it.

    rows, columns : (my + 1,), (mx + 1,)
        Edges of the bins.
    """
    ny, nx = image.shape
    about, line = np.empty(nx, np.float32), np.empty(level.shape[1], np.float32)
    square = np.float32(clip * clip)
    for j in range(rows.shape[0] - 1):
        for y in range(rows[j], rows[j + 1]):
            row_of(level, y, ny, line, about)
            for i in range(columns.shape[0] - 1):
                s, n = np.float32(0), np.float32(0)
                for x in range(columns[i], columns[i + 1]):
                    off = image[y, x] - about[x]
                    fair = fit[y, x] & (off * off < square * variance[y, x])
                    s += off if fair else np.float32(0)
                    n += np.float32(1) if fair else np.float32(0)
                total[j, i] += s
                count[j, i] += n


@numba.njit("void(f4[:,::1], b1[:,::1], f4[:,::1], f4[:,::1])", cache=True, nogil=True)
def subtract(image, fit, level, out):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Fill `out` with the image less a background, 0 where not `fit`; `out` may be the image."""
    ny, nx = image.shape
    about, line = np.empty(nx, np.float32), np.empty(level.shape[1], np.float32)
    for y in range(ny):
        row_of(level, y, ny, line, about)
        for x in range(nx):
            out[y, x] = image[y, x] - about[x] if fit[y, x] else np.float32(0)


@numba.njit("i8[::1](f4[:,::1], f4[:,::1], b1[:,::1], f8)", cache=True, nogil=True, fastmath=_SUMS)
def bright(image, variance, fit, sigmas):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """(n,) flat indices of `fit` pixels more than `sigmas` above 0; none on the border."""
    ny, nx = image.shape
    out, n = np.empty(4096, np.int64), 0
    square = np.float32(sigmas * sigmas)
    for y in range(1, ny - 1):
        for first in range(0, nx, _RUN):
            found = np.float32(0)
            for x in range(first, min(first + _RUN, nx)):
                d = image[y, x]
                hit = fit[y, x] & (d > np.float32(0)) & (d * d > square * variance[y, x])
                found += np.float32(1) if hit else np.float32(0)
            if found == 0:
                continue
            for x in range(max(first, 1), min(first + _RUN, nx - 1)):
                d = image[y, x]
                if fit[y, x] and d > 0 and d * d > square * variance[y, x]:
                    if n == out.shape[0]:
                        out = np.concatenate((out, np.empty(n, np.int64)))
                    out[n] = y * nx + x
                    n += 1
    return out[:n].copy()


@numba.njit("i8[::1](f4[:,::1], f8)", cache=True, nogil=True, fastmath=_SUMS)
def beyond(plane, limit):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """(n,) flat indices of pixels farther than `limit` from 0."""
    ny, nx = plane.shape
    out, n = np.empty(4096, np.int64), 0
    least = np.float32(limit)
    for y in range(ny):
        for first in range(0, nx, _RUN):
            found = np.float32(0)
            for x in range(first, min(first + _RUN, nx)):
                found += np.float32(1) if abs(plane[y, x]) > least else np.float32(0)
            if found == 0:
                continue
            for x in range(first, min(first + _RUN, nx)):
                if abs(plane[y, x]) > least:
                    if n == out.shape[0]:
                        out = np.concatenate((out, np.empty(n, np.int64)))
                    out[n] = y * nx + x
                    n += 1
    return out[:n].copy()


@numba.njit("void(i8[::1], i8, b1[:,::1])", cache=True, nogil=True)
def hide(flat, steps, plane):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Clear a plane on pixels and whatever lies within so many steps along rows and columns from them."""
    ny, nx = plane.shape
    for k in range(flat.shape[0]):
        y, x = flat[k] // nx, flat[k] % nx
        for v in range(max(y - steps, 0), min(y + steps + 1, ny)):
            reach = steps - abs(v - y)
            for u in range(max(x - reach, 0), min(x + reach + 1, nx)):
                plane[v, u] = False


@numba.njit(cache=True, nogil=True, fastmath=_SUMS)
def add_row(variance, fit, sums, counts):  # type: ignore[no-untyped-def]  # compiled, arrays only
    """Add the variances and the number of fit pixels of a row."""
    for k in range(sums.shape[0]):
        sums[k] += variance[k] if fit[k] else np.float32(0)
        counts[k] += np.float32(1) if fit[k] else np.float32(0)


@numba.njit(cache=True, nogil=True, fastmath=_SUMS)
def weigh_row(image, variance, fit, sums, counts, reach, signal, power, weight):  # type: ignore[no-untyped-def]
    """Fill a row of `weigh` from sums over columns, which begin and end `reach` earlier and later."""
    for k in range(weight.shape[0]):
        total, count = sums[k], counts[k]
        for q in range(1, 2 * reach + 1):
            total += sums[k + q]
            count += counts[k + q]
        w = count / total if fit[k] else np.float32(0)
        weight[k] = w
        signal[k] = w * image[k] if fit[k] else np.float32(0)
        power[k] = w * w * variance[k] if fit[k] else np.float32(0)


@numba.njit("void(f4[:,::1], f4[:,::1], b1[:,::1], i8, i8, i8, f4[:,::1], f4[:,::1], f4[:,::1])", cache=True,
            nogil=True, fastmath=_SUMS)
def weigh(image, variance, fit, reach, y0, x0, signal, power, weight):  # type: ignore[no-untyped-def]
    """Fill three windows from (y0, x0) on: weight * image, weight^2 * variance, weight; 0 on unfit pixels and outside.

    The weight is 1 over the mean variance of the fit pixels within `reach` rows and columns.
    """
    ny, nx = image.shape
    height, width = signal.shape
    u0, u1 = max(x0, 0), max(min(x0 + width, nx), 0)
    a, b = max(u0 - reach, 0), min(u1 + reach, nx)
    sums, counts = np.zeros(u1 - u0 + 2 * reach, np.float32), np.zeros(u1 - u0 + 2 * reach, np.float32)
    first, last = a - u0 + reach, b - u0 + reach
    for plane in (signal, power, weight):
        plane[:] = 0
    for r in range(max(-y0, 0), min(height, ny - y0)):
        y = y0 + r
        sums[:] = 0
        counts[:] = 0
        for v in range(max(y - reach, 0), min(y + reach + 1, ny)):
            add_row(variance[v, a:b], fit[v, a:b], sums[first:last], counts[first:last])
        weigh_row(image[y, u0:u1], variance[y, u0:u1], fit[y, u0:u1], sums, counts, reach,
                  signal[r, u0 - x0:u1 - x0], power[r, u0 - x0:u1 - x0], weight[r, u0 - x0:u1 - x0])


@numba.njit(cache=True, nogil=True)
def divide_row(signal, square, scale, floor, out, norm):  # type: ignore[no-untyped-def]  # compiled, arrays only
    """Fill a row of `divide`."""
    for k in range(out.shape[0]):
        n = scale * np.sqrt(max(square[k], np.float32(0)))
        norm[k] = n if n > floor else np.float32(0)
        out[k] = signal[k] / n if n > floor else np.float32(0)


@numba.njit("void(f4[:,::1], f4[:,::1], f8, f8, i8, i8, i8, i8, f4[:,::1])", cache=True, nogil=True)
def divide(signal, square, scale, floor, y0, x0, height, width, out):  # type: ignore[no-untyped-def]  # compiled
    """Fill a window of `out` from (y0, x0) on with signal / norm, norm = scale sqrt(square), or 0 under `floor`.

    `square` becomes the norm.
    """
    for r in range(height):
        divide_row(signal[r, :width], square[r, :width], np.float32(scale), np.float32(floor),
                   out[y0 + r, x0:x0 + width], square[r, :width])


@numba.njit("void(f4[:,::1], i8, i8, i8, f4[:,::1], i8, i8)", cache=True, nogil=True, fastmath=_SUMS)
def block_sums(plane, first, height, width, out, y0, x0):  # type: ignore[no-untyped-def]  # compiled
    """Put sums over 4 x 4 pixels of height x width pixels of a plane from (first, first) on into `out` at (y0, x0)."""
    for j in range((height + 3) // 4):
        for i in range((width + 3) // 4):
            total = np.float32(0)
            for r in range(first + 4 * j, first + min(4 * j + 4, height)):
                for k in range(first + 4 * i, first + min(4 * i + 4, width)):
                    total += plane[r, k]
            out[y0 + j, x0 + i] = total


@numba.njit("void(f4[:,::1], f4[:,::1], b1[:,::1], f4[:,::1], f4[:,::1], i8)", cache=True, nogil=True)
def correct(image, snr, fit, level, ratio, block):  # type: ignore[no-untyped-def]  # compiled for the one signature
    """Take a faint background off an image, and what it adds to the significance off that, in place.

    ratio : (ny / block, nx / block)
        Significance of a background of 1, in blocks of pixels.
    """
    ny, nx = image.shape
    about, line = np.empty(nx, np.float32), np.empty(level.shape[1], np.float32)
    for y in range(ny):
        row_of(level, y, ny, line, about)
        for x in range(nx):
            image[y, x] -= about[x] if fit[y, x] else np.float32(0)
        for i in range(ratio.shape[1]):
            per = ratio[y // block, i]
            for x in range(i * block, min((i + 1) * block, nx)):
                s = snr[y, x]
                snr[y, x] = s - about[x] * per if s != 0 else s
