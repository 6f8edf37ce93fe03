"""Light along lines: a cross-section drawn beside a straight track."""

import numpy as np
from numba import njit


@njit("void(float64[:, ::1], float64, float64, float64, float64, float64, float64[::1], float64, float64, float64)",
      cache=True)
def add_line(image: np.ndarray, x0: float, y0: float, x1: float, y1: float, level: float, table: np.ndarray,
             step: float, period: float, duty: float) -> None:
    """Add level * table(distance) beside the infinite line through two points, in place.

    `table` holds the cross-section at multiples of `step` pixels from the axis, 0 beyond its end. With a period [pixel]
    the line is lit for the share `duty` of each along its length.
    """
    ny, nx = image.shape
    length = np.hypot(x1 - x0, y1 - y0)
    along_x, along_y = (x1 - x0) / length, (y1 - y0) / length
    reach = (table.size - 1) * step
    for j in range(ny):
        dy = j - y0
        first, last = 0, nx - 1
        if abs(along_y) > 1e-9:                       # |dx along_y - dy along_x| < reach
            a = x0 + (dy * along_x - reach) / along_y
            b = x0 + (dy * along_x + reach) / along_y
            first, last = max(0, int(np.ceil(min(a, b)))), min(nx - 1, int(np.floor(max(a, b))))
        elif abs(dy) >= reach:
            continue
        for k in range(first, last + 1):
            dx = k - x0
            t = abs(dx * along_y - dy * along_x) / step
            n = int(t)
            if n >= table.size - 1:
                continue
            if period > 0.0 and ((dx * along_x + dy * along_y) / period) % 1.0 >= duty:
                continue
            image[j, k] += level * (table[n] + (t - n) * (table[n + 1] - table[n]))


@njit("void(float64[:, ::1], float64, float64, float64, float64, float64, float64)", cache=True)
def add_ring(image: np.ndarray, x: float, y: float, inner: float, outer: float, level: float, soft: float) -> None:
    """Add a flat annulus whose edges rise and fall linearly over `soft` pixels, in place."""
    ny, nx = image.shape
    end = outer + soft / 2
    for j in range(max(0, int(np.ceil(y - end))), min(ny - 1, int(np.floor(y + end))) + 1):
        for k in range(max(0, int(np.ceil(x - end))), min(nx - 1, int(np.floor(x + end))) + 1):
            r = np.hypot(k - x, j - y)
            up = min(max((r - inner) / soft + 0.5, 0.0), 1.0)
            down = min(max((outer - r) / soft + 0.5, 0.0), 1.0)
            image[j, k] += level * min(up, down)
