"""Resampling of an image with its variance and mask onto another grid."""

import numba
import numpy as np

_I0, _I1, _I2, _I3, _I4, _I5, _I6, _I7 = (np.uintp(k) for k in range(8))     # unsigned: no index counts from the end


@numba.njit(cache=True, error_model="numpy")
def eight(flat, first, pitch, wx, wy):  # type: ignore[no-untyped-def]  # compiled, arrays only
    """Weighted sum of 8 x 8 pixels of a flattened image, whose first has an index; rows are `pitch` apart."""
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = np.float32(0)
    p = first
    for m in range(8):
        w = wy[m]
        a0 += w * flat[p + _I0]
        a1 += w * flat[p + _I1]
        a2 += w * flat[p + _I2]
        a3 += w * flat[p + _I3]
        a4 += w * flat[p + _I4]
        a5 += w * flat[p + _I5]
        a6 += w * flat[p + _I6]
        a7 += w * flat[p + _I7]
        p += pitch
    return (((a0 * wx[0] + a1 * wx[1]) + (a2 * wx[2] + a3 * wx[3]))
            + ((a4 * wx[4] + a5 * wx[5]) + (a6 * wx[6] + a7 * wx[7])))


@numba.njit(cache=True, error_model="numpy")
def blend(flat, squares, position, steps, out):  # type: ignore[no-untyped-def]  # compiled, arrays only
    """Fill `out` with the 8 weights of a position in a table; the sum of their squares."""
    k = min(int(position), steps - 1)
    part = np.float32(position - k)
    p = np.uintp(8 * k)
    q = np.uintp(8 * k + 8)
    out[0] = flat[p + _I0] + part * (flat[q + _I0] - flat[p + _I0])
    out[1] = flat[p + _I1] + part * (flat[q + _I1] - flat[p + _I1])
    out[2] = flat[p + _I2] + part * (flat[q + _I2] - flat[p + _I2])
    out[3] = flat[p + _I3] + part * (flat[q + _I3] - flat[p + _I3])
    out[4] = flat[p + _I4] + part * (flat[q + _I4] - flat[p + _I4])
    out[5] = flat[p + _I5] + part * (flat[q + _I5] - flat[p + _I5])
    out[6] = flat[p + _I6] + part * (flat[q + _I6] - flat[p + _I6])
    out[7] = flat[p + _I7] + part * (flat[q + _I7] - flat[p + _I7])
    return squares[k] + part * (squares[k + 1] - squares[k])


@numba.njit("void(f4[:,::1], f4[:,::1], i4[:,::1], f8[:,:], f8[:,:], i8, i8, f8[:,:], f4[:,:], f4[:,:], i4[:,:], i4)",
            cache=True, nogil=True)
def resample(image, variance, mask, map_x, map_y, step, row0, table, out, out_variance, out_mask, outside):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Fill `out`, `out_variance` and `out_mask` with the input seen at mapped positions.

    image, variance, mask : (ny, nx)
        The input; all pixels finite.
    map_x, map_y : (my, mx)
        Input positions of every `step`-th output pixel of every `step`-th row, from output row 0; linear in between.
    row0 : int
        Output row of the first row of `out`.
    table : (steps + 1, 8)
        Interpolation weights by fraction of a pixel.
    outside : int
        Mask bits of pixels whose position is not in the input; their variance is 0.
    """
    ny, nx = image.shape
    steps = table.shape[0] - 1
    wx, wy = np.empty(8, np.float32), np.empty(8, np.float32)
    weights, squares = np.empty(8 * steps + 8, np.float32), np.zeros(steps + 1, np.float32)
    for k in range(steps + 1):
        for m in range(8):
            weights[8 * k + m] = table[k, m]
            squares[k] += table[k, m] ** 2
    flat, pitch = image.reshape(-1), np.uintp(nx)
    columns, share = map_x.shape[1], 1.0 / step
    line_x, line_y = np.empty(columns), np.empty(columns)
    for j in range(out.shape[0]):
        gy = (row0 + j) / step
        jy = min(int(gy), map_x.shape[0] - 2)
        fy = gy - jy
        for k in range(columns):
            line_x[k] = (1 - fy) * map_x[jy, k] + fy * map_x[jy + 1, k]
            line_y[k] = (1 - fy) * map_y[jy, k] + fy * map_y[jy + 1, k]
        for i in range(out.shape[1]):
            gx = i * share
            ix = min(int(gx), columns - 2)
            fx = gx - ix
            x = (1 - fx) * line_x[ix] + fx * line_x[ix + 1]
            y = (1 - fx) * line_y[ix] + fx * line_y[ix + 1]
            if not (x > -0.5 and x < nx - 0.5 and y > -0.5 and y < ny - 0.5):
                out[j, i] = 0.0
                out_variance[j, i] = 0.0
                out_mask[j, i] = outside
                continue
            left = int(np.floor(x + 1e-9))
            low = int(np.floor(y + 1e-9))
            px = max((x - left) * steps, 0.0)
            py = max((y - low) * steps, 0.0)
            square = blend(weights, squares, px, steps, wx) * blend(weights, squares, py, steps, wy)
            if left >= 3 and left + 4 < nx and low >= 3 and low + 4 < ny:
                out[j, i] = eight(flat, np.uintp((low - 3) * nx + left - 3), pitch, wx, wy)
            else:      # the border repeats outwards
                total = np.float32(0)
                for m in range(8):
                    row = min(max(low - 3 + m, 0), ny - 1)
                    for k in range(8):
                        total += wy[m] * wx[k] * image[row, min(max(left - 3 + k, 0), nx - 1)]
                out[j, i] = total
            near_x = min(max(int(np.floor(x + 0.5)), 0), nx - 1)
            near_y = min(max(int(np.floor(y + 0.5)), 0), ny - 1)
            out_variance[j, i] = variance[near_y, near_x] * square
            bits = mask[near_y, near_x]
            for m in range(2):
                row = low + m
                if abs(wy[3 + m]) > 0.1 and row >= 0 and row < ny:
                    for k in range(2):
                        column = left + k
                        if abs(wx[3 + k]) > 0.1 and column >= 0 and column < nx:
                            bits |= mask[row, column]
            out_mask[j, i] = bits
