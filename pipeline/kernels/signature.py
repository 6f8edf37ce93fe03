"""What undoes the way of charge through a camera, pixel by pixel."""

import numpy as np
from numba import njit


@njit("void(f4[:,:,::1], f8[:,::1], f8)", cache=True)
def linearise(signal: np.ndarray, table: np.ndarray, step: float) -> None:
    """Add to (n, ny, nx) signals what each one's `table` has at their level, in place.

    The table holds corrections at levels 0, step, 2 step ...; between them it is interpolated, beyond its ends the last
    value counts.
    """
    n, ny, nx = signal.shape
    last = table.shape[1] - 1
    for a in range(n):
        for j in range(ny):
            for k in range(nx):
                at = signal[a, j, k] / step
                if at <= 0.0:
                    signal[a, j, k] += table[a, 0]
                    continue
                m = int(at)
                if m >= last:
                    signal[a, j, k] += table[a, last]
                else:
                    signal[a, j, k] += table[a, m] + (at - m) * (table[a, m + 1] - table[a, m])


@njit("void(f4[:,:,::1], f8[::1], f8[::1], f8[::1], f8[::1], i8, f4[:,:,::1])", cache=True)
def restore(signal: np.ndarray, cti: np.ndarray, trap: np.ndarray, level: np.ndarray, release: np.ndarray,
            prescan: int, out: np.ndarray) -> None:
    """Charge as it lay in the pixels, written to `out`, from (n, ny, wide) signals in the order of readout.

    From the first pixel on, what the packets before left behind and what the trap released are taken off, and what
    this packet must have lost is added.
    """
    n, rows, columns = out.shape
    for a in range(n):
        for j in range(rows):
            left_behind, held = 0.0, 0.0
            for k in range(prescan + columns):
                value = np.float64(signal[a, j, k])
                if trap[a] > 0.0:
                    freed = held * release[a]
                    held -= freed
                    before = value
                    for _ in range(2):
                        caught = trap[a] * (1.0 - np.exp(-max(before, 0.0) / level[a])) - held
                        before = value + max(caught, 0.0)
                    held += before - value
                    value = before - freed
                share = cti[a] * (k + 1)
                value = (value - left_behind) / (1.0 - share)
                left_behind = value * share if k >= prescan else 0.0
                if k >= prescan:
                    out[a, j, k - prescan] = value


@njit("void(f4[:,::1], f4[:,::1], f4[:,::1], f4[:,::1])", cache=True)
def take_back(observed: np.ndarray, estimate: np.ndarray, potential: np.ndarray, out: np.ndarray) -> None:
    """out = observed - 1/2 div(estimate grad potential), on the borders of pixels; none through the array's edge."""
    ny, nx = observed.shape
    for j in range(ny):
        for k in range(nx):
            here, at = estimate[j, k], potential[j, k]
            total = np.float32(0.0)
            if k < nx - 1:
                total += (here + estimate[j, k + 1]) * (potential[j, k + 1] - at)
            if k > 0:
                total -= (here + estimate[j, k - 1]) * (at - potential[j, k - 1])
            if j < ny - 1:
                total += (here + estimate[j + 1, k]) * (potential[j + 1, k] - at)
            if j > 0:
                total -= (here + estimate[j - 1, k]) * (at - potential[j - 1, k])
            out[j, k] = observed[j, k] - np.float32(0.25) * total


@njit("void(f4[:,::1], b1[:,::1])", cache=True)
def bridge(image: np.ndarray, bad: np.ndarray) -> None:
    """Fill bad pixels along rows, in place: a line between the good ones on both sides, one's value at a border.

    A row without a good pixel becomes 0.
    """
    ny, nx = image.shape
    for j in range(ny):
        k = 0
        while k < nx:
            if not bad[j, k]:
                k += 1
                continue
            first = k
            while k < nx and bad[j, k]:
                k += 1
            low = image[j, first - 1] if first > 0 else np.float32(0.0)
            high = image[j, k] if k < nx else np.float32(0.0)
            if first == 0:
                low = high
            if k == nx:
                high = low
            for m in range(first, k):
                part = np.float32(m - first + 1) / np.float32(k - first + 1)
                image[j, m] = low + part * (high - low)
