"""What charge does in a detector."""

import numpy as np
from numba import njit


@njit(cache=True)
def bleed(image: np.ndarray, full_well: float) -> None:
    """Spill charge above the full well along columns, half up and half down, in place.

    Charge that reaches the first or last row leaves the detector.
    """
    ny, nx = image.shape
    for k in range(nx):
        for j in range(ny):
            excess = image[j, k] - full_well
            if excess <= 0.0:
                continue
            image[j, k] = full_well
            for direction in (-1, 1):
                left = 0.5 * excess
                row = j + direction
                while left > 0.0 and 0 <= row < ny:
                    room = full_well - image[row, k]
                    if room > 0.0:
                        put = min(room, left)
                        image[row, k] += put
                        left -= put
                    row += direction
