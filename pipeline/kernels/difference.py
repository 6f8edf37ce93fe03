"""Passes over the planes of an image pair: each pixel is read once, and no plane is made that is not kept.

Flags of a pair's pixels, one byte: the low half is the science image's, the high half the template's.
"""

import numba
import numpy as np

HOLE, BAD, WRONG, FULL = 1, 2, 4, 8      # no value; unfit for a fit; a value that means nothing; saturated
BIN = 4                                  # side of the bins of coarse planes [pixel]


@numba.njit("i8(f4[:,::1], f4[:,::1], i4[:,::1], i4, i4, i4, i4, i8, i8, i8, u1[:,::1], f4[:,::1])", cache=True,
            nogil=True)
def sort_out(image, variance, mask, hole, bad, wrong, full, shift, start, stop, flags, filled):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Set the flags of one image and copy it with its holes zero; how many holes there are.

    image, variance, mask : (ny, nx)
    hole, bad, wrong, full : int
        Mask planes that give a pixel the flag of that name; a value that is not finite and a variance that is not
        positive make a hole, and a hole is bad and wrong.
    shift : int
        0 for the science image, 4 for the template.
    start, stop : int
        Rows to do.
    """
    nx = image.shape[1]
    holes = 0
    for j in range(start, stop):
        for i in range(nx):
            bits = mask[j, i]
            flag = 0
            if (bits & hole) != 0 or not (np.isfinite(image[j, i]) and np.isfinite(variance[j, i])
                                          and variance[j, i] > 0):
                flag = HOLE | BAD | WRONG
                holes += 1
                filled[j, i] = 0.0
            else:
                filled[j, i] = image[j, i]
            if bits != 0:
                if (bits & bad) != 0:
                    flag |= BAD
                if (bits & wrong) != 0:
                    flag |= WRONG
                if (bits & full) != 0:
                    flag |= FULL
            flags[j, i] |= flag << shift
    return holes


@numba.njit("void(u1[:,::1], i8, i8, f4[:,::1], f4[:,::1])", cache=True, nogil=True)
def fill(flags, start, stop, science, template):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Give wrong pixels, of some rows, the other image's value, and 0 where both are wrong."""
    nx = science.shape[1]
    for j in range(start, stop):
        for i in range(nx):
            if (flags[j, i] & (WRONG | WRONG << 4)) == 0:
                continue
            ours, theirs = flags[j, i] & WRONG, flags[j, i] & (WRONG << 4)
            if ours != 0:
                science[j, i] = 0.0 if theirs != 0 else template[j, i]
            if theirs != 0:
                template[j, i] = 0.0 if ours != 0 else science[j, i]


@numba.njit("i8[::1](u1[:,::1], i8)", cache=True, nogil=True)
def flagged(flags, flag):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Flat indices of the pixels with any of the flags, ascending."""
    ny, nx = flags.shape
    count = 0
    for j in range(ny):
        for i in range(nx):
            count += (flags[j, i] & flag) != 0
    out = np.empty(count, np.int64)
    count = 0
    for j in range(ny):
        for i in range(nx):
            if (flags[j, i] & flag) != 0:
                out[count] = j * nx + i
                count += 1
    return out


@numba.njit("i8[::1](i8[::1], i8)", cache=True, nogil=True)
def connected(flat, nx):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Number of the group, from 0 in order of first pixels, of pixels that touch along sides or corners.

    flat : (n,)
        Ascending flat indices on an image `nx` pixels wide.
    """
    n = len(flat)
    parent = np.arange(n)
    above = 0
    for k in range(n):
        y, x = flat[k] // nx, flat[k] % nx
        root = k
        if k > 0 and x > 0 and flat[k - 1] == flat[k] - 1:
            root = parent[k - 1]
            while parent[root] != root:
                root = parent[root]
            parent[k] = root
        while above < k and flat[above] < flat[k] - nx - 1:
            above += 1
        m = above
        while m < k and flat[m] <= flat[k] - nx + 1:
            if flat[m] // nx == y - 1 and abs(flat[m] % nx - x) <= 1:
                a = m
                while parent[a] != a:
                    a = parent[a]
                b = k
                while parent[b] != b:
                    b = parent[b]
                if a < b:
                    parent[b] = a
                elif b < a:
                    parent[a] = b
            m += 1
    out = np.empty(n, np.int64)
    groups = 0
    for k in range(n):
        if parent[k] == k:
            out[k] = groups
            groups += 1
        else:
            root = parent[k]
            while parent[root] != root:
                root = parent[root]
            out[k] = out[root]
    return out


@numba.njit("void(f4[:,::1], u1[:,::1], u1, i8, i8, f4[:,::1], f4[:,::1])", cache=True, nogil=True, fastmath=True)
def binned(plane, flags, without, start, stop, total, count):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Rows of sums over BIN x BIN pixels that have none of the flags `without`, and of how many those are."""
    columns = total.shape[1]
    value, number = np.empty(columns * BIN, np.float32), np.empty(columns * BIN, np.float32)
    for j in range(start, stop):
        value[:] = np.float32(0.0)
        number[:] = np.float32(0.0)
        for b in range(BIN):            # rows first: whole vectors at a time
            row, marks = plane[j * BIN + b], flags[j * BIN + b]
            for i in range(columns * BIN):
                good = (marks[i] & without) == 0
                value[i] += row[i] if good else np.float32(0.0)
                number[i] += np.float32(1.0) if good else np.float32(0.0)
        sums, counts = total[j], count[j]
        for i in range(columns):
            sums[i] = value[BIN * i] + value[BIN * i + 1] + value[BIN * i + 2] + value[BIN * i + 3]
            counts[i] = number[BIN * i] + number[BIN * i + 1] + number[BIN * i + 2] + number[BIN * i + 3]


@numba.njit(cache=True, nogil=True, inline="always")
def _upsampled(coarse, y, row):  # type: ignore[no-untyped-def]  # internal
    """One row of a coarse plane at full resolution: linear between the centres of bins, constant beyond."""
    rows, columns = coarse.shape
    at = (y - 0.5 * (BIN - 1)) / BIN
    low = min(max(int(np.floor(at)), 0), rows - 1)
    high = min(low + 1, rows - 1)
    part = np.float32(min(max(at - low, 0.0), 1.0))
    n = len(row)
    for i in range(columns):
        here = coarse[low, i] + part * (coarse[high, i] - coarse[low, i])
        left = coarse[low, max(i - 1, 0)] + part * (coarse[high, max(i - 1, 0)] - coarse[low, max(i - 1, 0)])
        k = min(i + 1, columns - 1)
        right = coarse[low, k] + part * (coarse[high, k] - coarse[low, k])
        x = i * BIN
        row[x] = np.float32(0.375) * left + np.float32(0.625) * here
        row[x + 1] = np.float32(0.125) * left + np.float32(0.875) * here
        row[x + 2] = np.float32(0.125) * right + np.float32(0.875) * here
        row[x + 3] = np.float32(0.375) * right + np.float32(0.625) * here
    for x in range(columns * BIN, n):
        row[x] = row[columns * BIN - 1]


@numba.njit(cache=True, nogil=True, inline="always")
def _polynomial(square, v, nx, row):  # type: ignore[no-untyped-def]  # internal
    """One row of the polynomial sum of square[q, p] u^p v^q, with u from -1 to 1."""
    order = square.shape[0] - 1
    line = np.zeros(order + 1)
    for p in range(order + 1):
        value = 0.0
        for q in range(order, -1, -1):
            value = value * v + square[q, p]
        line[p] = value
    step = np.float32(2.0 / max(nx - 1, 1))
    highest = np.float32(line[order])
    for i in range(nx):
        row[i] = highest
    for p in range(order - 1, -1, -1):
        here = np.float32(line[p])
        for i in range(nx):
            row[i] = row[i] * (np.float32(-1.0) + step * np.float32(i)) + here


@numba.njit("void(f8[:,::1], f8, f4[:,::1], i8, i8, f4[:,::1])", cache=True, nogil=True, fastmath=True)
def add_smooth(square, sign, halo, start, stop, plane):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Add `sign` times a polynomial and a coarse plane to rows of a plane.

    square : (order + 1, order + 1)
        Of u^p v^q at [q, p]; u and v run from -1 to 1 over the plane.
    halo : (rows, columns) of bins, or (0, 0) for none
    """
    ny, nx = plane.shape
    row, other = np.zeros(nx, np.float32), np.zeros(nx, np.float32)
    for j in range(start, stop):
        _polynomial(square, -1.0 + 2.0 * j / max(ny - 1, 1), nx, row)
        if halo.shape[0] > 0:
            _upsampled(halo, j, other)
        for i in range(nx):
            plane[j, i] += np.float32(sign) * (row[i] + other[i])


@numba.njit("void(f4[:,::1], f4[:,::1], u1[:,::1], u1, i8, i8, f4[:,::1])", cache=True, nogil=True, fastmath=True)
def minus(science, matched, flags, without, start, stop, raw):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Rows of science - matched; 0 on pixels that have any of the flags `without`."""
    nx = science.shape[1]
    for j in range(start, stop):
        for i in range(nx):
            raw[j, i] = np.float32(0.0) if (flags[j, i] & without) != 0 else science[j, i] - matched[j, i]


@numba.njit("void(f4[:,::1], u1[:,::1], u1, f4, f4[::1], f4[::1], i8, i8, f4[:,::1])", cache=True, nogil=True,
            fastmath=True)
def spread(variance, flags, hole, instead, down, across, start, stop, out):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Rows of a variance plane convolved with down[y] across[x]; borders repeat the border.

    hole, instead
        Pixels with the flag have this value.
    """
    ny, nx = variance.shape
    half_y, half_x = len(down) // 2, len(across) // 2
    line = np.empty(nx + 2 * half_x, np.float32)
    wide = np.empty((stop - start + 2 * half_y, nx), np.float32)
    for row in range(len(wide)):
        y = min(max(start - half_y + row, 0), ny - 1)
        inner, values, marks, here = line[half_x:], variance[y], flags[y], wide[row]
        for i in range(nx):
            inner[i] = instead if (marks[i] & hole) != 0 else values[i]
        for i in range(half_x):
            line[i] = line[half_x]
            line[half_x + nx + i] = line[half_x + nx - 1]
        here[:] = np.float32(0.0)
        k = 0
        while k + 3 <= len(across):
            a, b, c = across[k], across[k + 1], across[k + 2]
            one, two, three = line[2 * half_x - k:], line[2 * half_x - k - 1:], line[2 * half_x - k - 2:]
            for i in range(nx):
                here[i] += a * one[i] + b * two[i] + c * three[i]
            k += 3
        while k < len(across):
            a, one = across[k], line[2 * half_x - k:]
            for i in range(nx):
                here[i] += a * one[i]
            k += 1
    for j in range(start, stop):
        here, first = out[j], j - start + 2 * half_y
        here[:] = np.float32(0.0)
        k = 0
        while k + 3 <= len(down):
            a, b, c = down[k], down[k + 1], down[k + 2]
            one, two, three = wide[first - k], wide[first - k - 1], wide[first - k - 2]
            for i in range(nx):
                here[i] += a * one[i] + b * two[i] + c * three[i]
            k += 3
        while k < len(down):
            a, one = down[k], wide[first - k]
            for i in range(nx):
                here[i] += a * one[i]
            k += 1


@numba.njit(cache=True, nogil=True)
def _value(square, u, v):  # type: ignore[no-untyped-def]  # internal
    out = 0.0
    for q in range(square.shape[0] - 1, -1, -1):
        line = 0.0
        for p in range(square.shape[1] - 1, -1, -1):
            line = line * u + square[q, p]
        out = out * v + line
    return out


@numba.njit("void(f4[:,::1], f4[:,::1], f4[:,::1], u1[:,::1], f4, f8[:,::1], f8[:,::1], i8[::1], i8, i8, f4[::1])",
            cache=True, nogil=True)
def ratios(image, ours, theirs, flags, instead, gain_ours, gain_theirs, flat, start, stop, out):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Pixels of an image over the root of their variance: gain_ours * ours + gain_theirs * theirs.

    instead : float
        What `ours` is where it is a hole of the science image.
    flat : (n,)
        Flat indices of the pixels, of which those from `start` to `stop` are done.
    gain_ours, gain_theirs : polynomials as in `add_smooth`
    """
    ny, nx = image.shape
    for k in range(start, stop):
        j, i = flat[k] // nx, flat[k] % nx
        u, v = -1.0 + 2.0 * i / max(nx - 1, 1), -1.0 + 2.0 * j / max(ny - 1, 1)
        mine = instead if (flags[j, i] & HOLE) != 0 else ours[j, i]
        out[k] = image[j, i] / np.sqrt(_value(gain_ours, u, v) * mine + _value(gain_theirs, u, v) * theirs[j, i])


@numba.njit("void(f4[:,::1], f4[:,::1], u1[:,::1], f4, f8[:,::1], f8[:,::1], f4[:,::1], f4[::1], f4[:,::1], i4[:,::1], "
            "i4, i8, i8, f4[:,::1], f4[:,::1])", cache=True, nogil=True, fastmath=True)
def compose(ours, theirs, flags, instead, gain_ours, gain_theirs, matched, errors, doubt,  # type: ignore[no-untyped-def]  # compiled for the one signature above
            mask, empty, start, stop, image, variance):
    """Rows of the difference's variance, and zeros in the image where the mask has `empty`.

        gain_ours ours + gain_theirs theirs + e0 (d matched / dx)^2 + e1 (d matched / dy)^2 + e2 matched^2 + doubt

    errors : (3,)
        e0, e1, e2.
    doubt : coarse plane
    """
    ny, nx = matched.shape
    a, b, d = np.zeros(nx, np.float32), np.zeros(nx, np.float32), np.zeros(nx, np.float32)
    for j in range(start, stop):
        v = -1.0 + 2.0 * j / max(ny - 1, 1)
        _polynomial(gain_ours, v, nx, a)
        _polynomial(gain_theirs, v, nx, b)
        if doubt.shape[0] > 0:
            _upsampled(doubt, j, d)
        up, down = max(j - 1, 0), min(j + 1, ny - 1)
        across = np.float32(1.0 / max(down - up, 1))
        mine, deep, marks, out = ours[j], theirs[j], flags[j], variance[j]
        above, here, below = matched[up], matched[j], matched[down]
        for i in range(nx):
            value = instead if (marks[i] & HOLE) != 0 else mine[i]
            slope = (below[i] - above[i]) * across
            out[i] = a[i] * value + b[i] * deep[i] + d[i] + errors[1] * slope * slope + errors[2] * here[i] * here[i]
        left, right, middle = here[:nx - 2], here[2:], out[1:]
        for i in range(nx - 2):
            slope = np.float32(0.5) * (right[i] - left[i])
            middle[i] += errors[0] * slope * slope
        lost, kept = mask[j], image[j]
        for i in range(nx):
            kept[i] = np.float32(0.0) if (lost[i] & empty) != 0 else kept[i]


@numba.njit(cache=True, nogil=True, inline="always")
def _slope_x(plane, j, i):  # type: ignore[no-untyped-def]  # internal
    """The derivative along x, exact for polynomials of degree 4."""
    return (8.0 * (plane[j, i + 1] - plane[j, i - 1]) - (plane[j, i + 2] - plane[j, i - 2])) / 12.0


@numba.njit(cache=True, nogil=True, inline="always")
def _slope_y(plane, j, i):  # type: ignore[no-untyped-def]  # internal
    return (8.0 * (plane[j + 1, i] - plane[j - 1, i]) - (plane[j + 2, i] - plane[j - 2, i])) / 12.0


@numba.njit("f8[:,::1](f4[:,::1], f4[:,::1], f4[:,:], f4[:,:], u1[:,::1], u1, i8[::1], i8[::1], f8, f8[::1], f8)",
            cache=True, nogil=True)
def settle(raw, matched, ours, theirs, flags, without, x, y, radius, scatter, limit):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Take off a difference what a small shift of each source explains; the shifts [pixel], NaN where left alone.

    A source displaced by d leaves -d . gradient(matched). Its d is fitted beside a change of flux, which stays, with a
    prior of width `scatter` (x and y) about 0, so that noise moves nothing; a shift beyond `limit` of those is no error
    of registration, and is left alone.

    raw, matched : (ny, nx)
        The difference and the matched template; `raw` is changed.
    ours, theirs : (ny, nx)
        Their variances; pixels with any of the flags `without` take no part.
    x, y : (n,)
        Sources, in the order in which they are settled.
    radius : float
        Of the pixels that are fitted and changed.
    """
    ny, nx = raw.shape
    out = np.full((len(x), 2), np.nan)
    half = int(np.ceil(radius))
    for s in range(len(x)):
        if x[s] < half + 2 or y[s] < half + 2 or x[s] >= nx - half - 2 or y[s] >= ny - half - 2:
            continue
        xx, xy, yy, xm, ym, mm = 1.0 / scatter[0] ** 2, 0.0, 1.0 / scatter[1] ** 2, 0.0, 0.0, 0.0
        xr, yr, mr = 0.0, 0.0, 0.0
        spoilt = False
        for j in range(y[s] - half, y[s] + half + 1):
            for i in range(x[s] - half, x[s] + half + 1):
                if (i - x[s]) ** 2 + (j - y[s]) ** 2 > radius * radius:
                    continue
                if (flags[j, i] & without) != 0:
                    spoilt = True
                    break
                w = 1.0 / (ours[j, i] + theirs[j, i])
                gx, gy = -_slope_x(matched, j, i), -_slope_y(matched, j, i)
                m = matched[j, i]
                r = raw[j, i]
                xx += w * gx * gx
                xy += w * gx * gy
                yy += w * gy * gy
                xm += w * gx * m
                ym += w * gy * m
                mm += w * m * m
                xr += w * gx * r
                yr += w * gy * r
                mr += w * m * r
            if spoilt:
                break
        if spoilt or mm <= 0.0:
            continue
        xx -= xm * xm / mm
        xy -= xm * ym / mm
        yy -= ym * ym / mm
        xr -= xm * mr / mm
        yr -= ym * mr / mm
        det = xx * yy - xy * xy
        if det <= 0.0:
            continue
        dx, dy = (yy * xr - xy * yr) / det, (xx * yr - xy * xr) / det
        if (dx / scatter[0]) ** 2 + (dy / scatter[1]) ** 2 > limit * limit:
            continue
        out[s, 0], out[s, 1] = dx, dy
        for j in range(y[s] - half, y[s] + half + 1):
            for i in range(x[s] - half, x[s] + half + 1):
                if (i - x[s]) ** 2 + (j - y[s]) ** 2 <= radius * radius:
                    raw[j, i] += np.float32(dx * _slope_x(matched, j, i) + dy * _slope_y(matched, j, i))
    return out


@numba.njit("void(f4[:,::1], i8[::1], i8[::1], f4[::1], f4[:,::1], f4)", cache=True, nogil=True, fastmath=True)
def add_doubt(variance, flat, group, light, kernel, scale):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Add scale (sum of light kernel)^2 around each group of pixels, for an error that a group's pixels share.

    flat, group, light : (n,)
        Pixels in order of their groups, and what light is doubtful there.
    kernel : (m, m)
        Where a pixel's light goes.
    """
    ny, nx = variance.shape
    side = kernel.shape[0]
    half = side // 2
    n = len(flat)
    first = 0
    while first < n:
        last = first
        y0, y1, x0, x1 = ny, -1, nx, -1
        while last < n and group[last] == group[first]:
            y, x = flat[last] // nx, flat[last] % nx
            y0, y1, x0, x1 = min(y0, y), max(y1, y), min(x0, x), max(x1, x)
            last += 1
        patch = np.zeros((y1 - y0 + side, x1 - x0 + side), np.float32)
        for k in range(first, last):
            y, x = flat[k] // nx - y0, flat[k] % nx - x0
            for b in range(side):
                for a in range(side):
                    patch[y + b, x + a] += light[k] * kernel[b, a]
        for b in range(patch.shape[0]):
            y = y0 - half + b
            if y < 0 or y >= ny:
                continue
            for a in range(patch.shape[1]):
                x = x0 - half + a
                if 0 <= x < nx:
                    variance[y, x] += scale * patch[b, a] * patch[b, a]
        first = last


@numba.njit(cache=True, nogil=True)
def _renamed(bits, kept, renamed):  # type: ignore[no-untyped-def]  # internal
    out = bits & kept
    for k in range(len(renamed)):
        if (bits & renamed[k, 0]) != 0:
            out |= renamed[k, 1]
    return out


@numba.njit("void(i4[:,::1], i4[:,::1], u1[:,::1], i4, i4, i4[:,::1], i4, i8[:,::1], i8[:,::1], i8, i8, i4[:,::1])",
            cache=True, nogil=True)
def merge(science, template, flags, ours, theirs, renamed, empty, reach_science, reach_template, start, stop, out):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Rows of the mask of a difference: planes of both inputs, each grown as far as its side was smeared.

    ours, theirs : int
        Planes that are kept of each.
    renamed : (n, 2)
        Planes of the template that another plane stands for.
    empty : int
        The plane of holes of either.
    reach_science, reach_template : (k, 2)
        Offsets (dy, dx) over which a pixel's planes are smeared; only a region's rim has to be.
    """
    ny, nx = science.shape
    for j in range(start, stop):
        for i in range(nx):
            bits = science[j, i] & ours
            if template[j, i] != 0:
                bits |= _renamed(template[j, i], theirs, renamed)
            if (flags[j, i] & (HOLE | HOLE << 4)) != 0:
                bits |= empty
            out[j, i] = bits
    for side in range(2):
        plane = science if side == 0 else template
        reach = reach_science if side == 0 else reach_template
        if len(reach) < 2:
            continue
        far = np.max(reach[:, 0])
        for j in range(max(start - far, 0), min(stop + far, ny)):
            for i in range(nx):
                if plane[j, i] == 0:
                    continue
                bits = plane[j, i] & ours if side == 0 else _renamed(plane[j, i], theirs, renamed)
                if bits == 0:
                    continue
                inner = True
                for k in range(4):
                    y, x = j + (k == 0) - (k == 1), i + (k == 2) - (k == 3)
                    if 0 <= y < ny and 0 <= x < nx and plane[y, x] != plane[j, i]:
                        beside = plane[y, x] & ours if side == 0 else _renamed(plane[y, x], theirs, renamed)
                        if (bits & ~beside) != 0:
                            inner = False
                            break
                if inner:
                    continue
                for k in range(len(reach)):
                    y, x = j + reach[k, 0], i + reach[k, 1]
                    if start <= y < stop and 0 <= x < nx:
                        out[y, x] |= bits


@numba.njit("void(f4[:,::1], f4[:,:,::1], f4[:,::1], f4[:,:,::1])", cache=True, nogil=True, fastmath=True)
def combine(weights, transforms, spectrum, out):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Weighted sums of transforms, each times a spectrum; real and imaginary parts in turn.

    weights : (m, k), transforms : (k, ny, 2 nx), spectrum : (ny, 2 nx), out : (m, ny, 2 nx)
    """
    wide = spectrum.shape[1]
    line = np.empty(wide, np.float32)
    for j in range(spectrum.shape[0]):
        for m in range(len(weights)):
            w = weights[m, 0]
            for i in range(wide):
                line[i] = w * transforms[0, j, i]
            for k in range(1, len(transforms)):
                w = weights[m, k]
                if w != 0.0:
                    for i in range(wide):
                        line[i] += w * transforms[k, j, i]
            for i in range(wide // 2):
                a, b = line[2 * i], line[2 * i + 1]
                c, d = spectrum[j, 2 * i], spectrum[j, 2 * i + 1]
                out[m, j, 2 * i] = a * c - b * d
                out[m, j, 2 * i + 1] = a * d + b * c


@numba.njit("void(f4[:,:,:], i8, f4[::1], f4[::1], f4[:,:])", cache=True, nogil=True, fastmath=True)
def assemble(parts, half, v, u, out):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """The inner part of a tile: parts[0] + u parts[1] + v parts[2], or parts[0] alone.

    v, u : (rows,), (columns,)
        Of `out`, whose first pixel is at (half, half) of the parts.
    """
    for j in range(out.shape[0]):
        if len(parts) == 1:
            for i in range(out.shape[1]):
                out[j, i] = parts[0, half + j, half + i]
        else:
            for i in range(out.shape[1]):
                out[j, i] = (parts[0, half + j, half + i] + u[i] * parts[1, half + j, half + i]
                             + v[j] * parts[2, half + j, half + i])


__all__ = ["BAD", "BIN", "FULL", "HOLE", "WRONG", "add_doubt", "add_smooth", "assemble", "binned", "combine", "compose",
           "connected", "fill", "flagged", "merge", "minus", "ratios", "settle", "sort_out", "spread"]
