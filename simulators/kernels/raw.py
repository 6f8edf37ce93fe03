"""What charge does between the pixel where it landed and the digits: moving, bleeding, and leaving by the registers."""

import numpy as np
from numba import njit


@njit("void(f4[:,::1], f4[::1], f4[::1], b1)", cache=True)
def bleed(image: np.ndarray, full_well_below: np.ndarray, full_well_above: np.ndarray, midline: bool) -> None:
    """Spill charge above the full well along columns, half up and half down, in place.

    The full well is given by column, for the lower and the upper half. Charge that reaches the first or last row leaves
    the detector; with `midline`, none crosses the middle: what would turns back.
    """
    ny, nx = image.shape
    middle = ny // 2
    for j in range(ny):
        for k in range(nx):
            below = j < middle
            well = full_well_below[k] if below else full_well_above[k]
            excess = image[j, k] - well
            if excess <= 0.0:
                continue
            image[j, k] = well
            low = 0 if below or not midline else middle
            high = middle if below and midline else ny
            back = np.float32(0.0)
            for direction in (1, -1, 0):
                left = np.float32(0.5) * excess if direction else back
                away = direction if direction else (-1 if below else 1)
                row = j + away
                while left > 0.0 and low <= row < high:
                    level = full_well_below[k] if row < middle else full_well_above[k]
                    room = level - image[row, k]
                    if room > 0.0:
                        put = min(room, left)
                        image[row, k] += put
                        left -= put
                    row += away
                if direction and midline and left > 0.0 and row == middle - (0 if below else 1):
                    back += left


@njit("void(f4[:,:,::1], f8[::1], f8[::1], f8, f8, f8[::1], f8[::1], f8, i8, f4[:,:,::1])", cache=True)
def read_out(charge: np.ndarray, cti: np.ndarray, trap: np.ndarray, trap_level: float, trap_release: float,
             bend: np.ndarray, wave: np.ndarray, wave_period: float, prescan: int, out: np.ndarray) -> None:
    """Signals [electrons] of (16, rows, columns) charge as they leave the output amplifiers, written to `out`.

    Each packet leaves a share `cti` behind at each transfer, which the next one picks up; a trap beside the output
    fills up to trap (1 - exp(-charge / trap_level)) and releases a share at each transfer. The output then falls short
    by `bend` at 100,000 electrons, in proportion to the level, with a wave in it.
    """
    n, rows, columns = charge.shape
    wide = out.shape[2]
    plain = (not np.any(cti)) and (not np.any(trap))
    for a in range(n):
        straight = bend[a] == 0.0 and wave[a] == 0.0
        for j in range(rows):
            behind, held = 0.0, 0.0
            for k in range(wide):
                m = k - prescan
                packet = np.float64(charge[a, j, m]) if 0 <= m < columns else 0.0
                if not plain:
                    lost = packet * cti[a] * (k + 1)
                    packet += behind - lost
                    behind = lost
                    freed = held * trap_release
                    held -= freed
                    packet += freed
                    if packet > 0.0 and trap[a] > 0.0:
                        room = trap[a] * (1.0 - np.exp(-packet / trap_level)) - held
                        if room > 0.0:
                            caught = min(room, packet)
                            packet -= caught
                            held += caught
                if not straight:
                    packet *= 1.0 - bend[a] * packet / 1.0e5 + wave[a] * np.sin(2.0 * np.pi * packet / wave_period)
                out[a, j, k] = packet


@njit("void(f4[:,::1], f4[:,::1], f4[:,::1])", cache=True)
def move_charge(image: np.ndarray, shift_x: np.ndarray, shift_y: np.ndarray) -> None:
    """Charge across pixel borders that moved, in place; `shift_x` and `shift_y` are of the right and upper borders.

    A border that moves outwards takes the mean charge of its two pixels for each pixel of way; nothing is lost, and
    the detector's own edge does not move.
    """
    ny, nx = image.shape
    lower = np.zeros(nx, np.float32)              # that came in over the upper border of the row below
    for j in range(ny):
        left = np.float32(0.0)                    # that came in over the right border of the pixel before
        here = image[j, 0]
        for k in range(nx):
            right, up = np.float32(0.0), np.float32(0.0)
            beside = image[j, k + 1] if k < nx - 1 else np.float32(0.0)
            if k < nx - 1:
                right = np.float32(0.5) * shift_x[j, k] * (here + beside)
            if j < ny - 1:
                up = np.float32(0.5) * shift_y[j, k] * (here + image[j + 1, k])
            image[j, k] = here + right - left + up - lower[k]
            left, lower[k], here = right, up, beside
