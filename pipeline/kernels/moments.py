"""Second moments under a Gaussian weight that adapts to the source."""

import math

import numba
import numpy as np

_FINE = 32        # entries of the table per unit: cubics between them are right to 1e-8
_TABLE = np.exp(-0.5 * np.arange(16 * _FINE + 2) / _FINE)


@numba.njit(cache=True, error_model="numpy")
def bell(square):  # type: ignore[no-untyped-def]  # compiled, floats only
    """exp(-square / 2) for square from 0 to 16."""
    i = int(square * _FINE)
    s = square * _FINE - i
    low, high = _TABLE[i], _TABLE[i + 1]
    slope = -0.5 / _FINE
    return ((1.0 + 2.0 * s) * (1.0 - s) * (1.0 - s) * low + s * s * (3.0 - 2.0 * s) * high
            + slope * s * (1.0 - s) * ((1.0 - s) * low - s * high))


@numba.njit("f8[:,::1](f4[:,::1], i4[:,::1], i8, i4[:,::1], i4[::1], f8[::1], f8[::1], f8[::1], f8[::1], i8)",
            cache=True, nogil=True)
def adaptive(image, mask, bad, labels, label, x, y, sign, sigma, iterations):  # type: ignore[no-untyped-def]
    """Adaptive moments: those of the elliptical Gaussian that fits best (Bernstein & Jarvis 2002).

    Parameters
    ----------
    image, mask : (ny, nx)
    bad : int
        Mask bits of pixels that take no part; nor do pixels that are not finite.
    labels, label : (ny, nx) or (1, 1), (n,)
        Footprints, and each source's own; 0 to use every pixel.
    x, y : (n,)
        Centres, kept.
    sign : (n,)
        -1 for negative sources.
    sigma : (n,)
        Where the weight starts [pixel].

    Returns
    -------
    (n, 5) : Ixx, Iyy, Ixy [pixel^2]; 1 where it failed; 1 where the weight reached off the image.
    """
    n = x.shape[0]
    ny, nx = image.shape
    ly, lx = labels.shape
    out = np.full((n, 5), np.nan)
    for s in range(n):
        out[s, 3], out[s, 4] = 1.0, 0.0
        if not (0.0 <= x[s] < nx and 0.0 <= y[s] < ny):
            out[s, 4] = 1.0
            continue
        xx = yy = sigma[s] ** 2
        xy = 0.0
        for _ in range(iterations):
            determinant = xx * yy - xy * xy
            reach_x, reach_y = math.ceil(4.0 * math.sqrt(xx)), math.ceil(4.0 * math.sqrt(yy))
            total = mxx = myy = mxy = 0.0
            cut = False
            cx, cy = math.floor(x[s] + 0.5), math.floor(y[s] + 0.5)
            for v in range(cy - reach_y, cy + reach_y + 1):
                for u in range(cx - reach_x, cx + reach_x + 1):
                    if not (0 <= v < ny and 0 <= u < nx):
                        cut = True
                        continue
                    other = label[s] > 0 and v < ly and u < lx and labels[v, u] > 0 and labels[v, u] != label[s]
                    if other or mask[v, u] & bad != 0 or not math.isfinite(image[v, u]):
                        continue
                    dx, dy = u - x[s], v - y[s]
                    square = (yy * dx * dx - 2.0 * xy * dx * dy + xx * dy * dy) / determinant
                    if square > 16.0:
                        continue
                    w = bell(square) * sign[s] * image[v, u]
                    total += w
                    mxx += w * dx * dx
                    myy += w * dy * dy
                    mxy += w * dx * dy
            out[s, 4] = 1.0 if cut else 0.0
            if not total > 0.0:
                break
            mxx, myy, mxy = 2.0 * mxx / total, 2.0 * myy / total, 2.0 * mxy / total
            if not (mxx > 0.05 and myy > 0.05 and mxx * myy - mxy * mxy > 0.0025 and mxx < 1e4 and myy < 1e4):
                break
            change = max(abs(mxx - xx), abs(myy - yy), abs(mxy - xy))
            # half way in the logarithm of scale: stable in noise
            xx, yy, xy = 0.5 * (xx + mxx), 0.5 * (yy + myy), 0.5 * (xy + mxy)
            if max(xx, yy) > 900.0:
                break
            if change < 1e-4 * (xx + yy):
                out[s, 0], out[s, 1], out[s, 2], out[s, 3] = mxx, myy, mxy, 0.0
                break
    return out
