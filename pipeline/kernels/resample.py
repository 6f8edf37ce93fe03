"""Resampling of an image with its variance and mask onto another grid."""

import numba
import numpy as np


@numba.njit("void(f4[:,:], f4[:,:], i4[:,:], f8[:,:], f8[:,:], i8, i8, f8[:,:], f4[:,:], f4[:,:], i4[:,:], i4)",
            cache=True)
def resample(image, variance, mask, map_x, map_y, step, row0, table, out, out_variance, out_mask, outside):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Fill `out`, `out_variance` and `out_mask` with the input seen at mapped positions.

    image, variance, mask : (ny, nx)
        The input; all pixels finite.
    map_x, map_y : (my, mx)
        Input positions of every `step`-th output pixel of every `step`-th row, from output row 0; linear in between.
    row0 : int
        Output row of the first row of `out`.
    table : (steps + 1, taps)
        Interpolation weights by fraction of a pixel.
    outside : int
        Mask bits of pixels whose position is not in the input; their variance is 0.
    """
    ny, nx = image.shape
    steps = table.shape[0] - 1
    taps = table.shape[1]
    half = taps // 2
    wx = np.empty(taps)
    wy = np.empty(taps)
    for j in range(out.shape[0]):
        gy = (row0 + j) / step
        jy = min(int(gy), map_x.shape[0] - 2)
        fy = gy - jy
        for i in range(out.shape[1]):
            gx = i / step
            ix = min(int(gx), map_x.shape[1] - 2)
            fx = gx - ix
            x = ((1 - fy) * ((1 - fx) * map_x[jy, ix] + fx * map_x[jy, ix + 1])
                 + fy * ((1 - fx) * map_x[jy + 1, ix] + fx * map_x[jy + 1, ix + 1]))
            y = ((1 - fy) * ((1 - fx) * map_y[jy, ix] + fx * map_y[jy, ix + 1])
                 + fy * ((1 - fx) * map_y[jy + 1, ix] + fx * map_y[jy + 1, ix + 1]))
            if not (x > -0.5 and x < nx - 0.5 and y > -0.5 and y < ny - 0.5):
                out[j, i] = 0.0
                out_variance[j, i] = 0.0
                out_mask[j, i] = outside
                continue
            left = int(np.floor(x + 1e-9))
            low = int(np.floor(y + 1e-9))
            px = max((x - left) * steps, 0.0)
            py = max((y - low) * steps, 0.0)
            kx = min(int(px), steps - 1)
            ky = min(int(py), steps - 1)
            px -= kx
            py -= ky
            square_x = 0.0
            square_y = 0.0
            for k in range(taps):
                w = (1 - px) * table[kx, k] + px * table[kx + 1, k]
                wx[k] = w
                square_x += w * w
                w = (1 - py) * table[ky, k] + py * table[ky + 1, k]
                wy[k] = w
                square_y += w * w
            total = 0.0
            for m in range(taps):
                if wy[m] != 0.0:
                    row = min(max(low + 1 - half + m, 0), ny - 1)
                    line = 0.0
                    if left + 1 - half >= 0 and left + half < nx:
                        for k in range(taps):
                            line += wx[k] * image[row, left + 1 - half + k]
                    else:      # the border repeats outwards
                        for k in range(taps):
                            line += wx[k] * image[row, min(max(left + 1 - half + k, 0), nx - 1)]
                    total += wy[m] * line
            out[j, i] = total
            near_x = min(max(int(np.floor(x + 0.5)), 0), nx - 1)
            near_y = min(max(int(np.floor(y + 0.5)), 0), ny - 1)
            out_variance[j, i] = variance[near_y, near_x] * square_x * square_y
            bits = mask[near_y, near_x]
            for m in range(half - 1, half + 1):
                row = low + 1 - half + m
                if abs(wy[m]) > 0.1 and row >= 0 and row < ny:
                    for k in range(half - 1, half + 1):
                        column = left + 1 - half + k
                        if abs(wx[k]) > 0.1 and column >= 0 and column < nx:
                            bits |= mask[row, column]
            out_mask[j, i] = bits
