"""Sums over the pixels of footprints and of circles, found by the boxes around them."""

import math

import numba
import numpy as np


@numba.njit("i4[::1](i4[:,::1], i4[:,::1], i4[:,::1])", cache=True, nogil=True)
def bits_of(labels, bits, boxes):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """(n,) all mask bits of the pixels labelled 1 + i within boxes[i] (x0, y0, x1, y1)."""
    out = np.zeros(boxes.shape[0], np.int32)
    ny, nx = labels.shape
    for i in range(boxes.shape[0]):
        for y in range(max(boxes[i, 1], 0), min(boxes[i, 3] + 1, ny)):
            for x in range(max(boxes[i, 0], 0), min(boxes[i, 2] + 1, nx)):
                if labels[y, x] == i + 1:
                    out[i] |= bits[y, x]
    return out


@numba.njit("f8[:,::1](i4[:,::1], f4[:,::1], i4[:,::1], i4[::1], f8[::1])", cache=True, nogil=True)
def moments_of(labels, plane, boxes, label, sign):  # type: ignore[no-untyped-def]  # compiled for the one signature
    """(n, 6) sums of w, w x, w y, w x^2, w y^2, w x y, with w = max(sign plane - 1, 0), over the pixels of labels.

    x and y are from the first pixel of each box (x0, y0, x1, y1).
    """
    out = np.zeros((boxes.shape[0], 6))
    for i in range(boxes.shape[0]):
        x0, y0 = boxes[i, 0], boxes[i, 1]
        for y in range(y0, boxes[i, 3] + 1):
            for x in range(x0, boxes[i, 2] + 1):
                if labels[y, x] == label[i]:
                    w = max(sign[i] * plane[y, x] - 1.0, 0.0)
                    u, v = float(x - x0), float(y - y0)
                    out[i, 0] += w
                    out[i, 1] += w * u
                    out[i, 2] += w * v
                    out[i, 3] += w * u * u
                    out[i, 4] += w * v * v
                    out[i, 5] += w * u * v
    return out


@numba.njit("f8[:,::1](f4[:,::1], f4[:,::1], i4[:,::1], i8, f8[::1], f8[::1], f8, i8)", cache=True, nogil=True)
def circles(image, variance, mask, bad, x, y, radius, parts):  # type: ignore[no-untyped-def]  # compiled
    """(n, 3) flux, its variance, and the area of pixels that do not count, in circles.

    Pixels with a bit of `bad`, or without finite values, count 0. A pixel on the rim counts by the share of its
    parts x parts middles that lie inside.
    """
    ny, nx = image.shape
    out = np.zeros((x.shape[0], 3))
    for i in range(x.shape[0]):
        for v in range(max(int(y[i] - radius - 1.0), 0), min(int(y[i] + radius + 2.0), ny)):
            for u in range(max(int(x[i] - radius - 1.0), 0), min(int(x[i] + radius + 2.0), nx)):
                dx, dy = u - x[i], v - y[i]
                away = math.sqrt(dx * dx + dy * dy)
                if away > radius + 0.7072:
                    continue
                share = 1.0
                if away > radius - 0.7072:
                    inside = 0
                    for q in range(parts):
                        for p in range(parts):
                            a, b = dx + (p + 0.5) / parts - 0.5, dy + (q + 0.5) / parts - 0.5
                            inside += a * a + b * b < radius * radius
                    share = inside / parts**2
                d, s = image[v, u], variance[v, u]
                if mask[v, u] & bad != 0 or not math.isfinite(d):
                    out[i, 2] += share
                    continue
                out[i, 0] += share * d
                if math.isfinite(s):
                    out[i, 1] += share * s
    return out
