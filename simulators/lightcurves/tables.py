"""Tables of band fluxes over redshift and something else, and the way between their nodes."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class BandTable:
    """log10 of fluxes in six bands on a grid uniform in ln(1 + z) and in a second axis."""

    logs: np.ndarray           # (6, second axis, redshift) float64
    second: tuple[float, float]     # first and last node of the second axis
    redshift: float            # last node; the first is 0

    def at(self, band: int, second: np.ndarray, z: np.ndarray) -> np.ndarray:
        """(n,) fluxes, bilinear in the logarithm; the ends are held beyond the grid."""
        rows, columns = self.logs.shape[1:]
        low, high = self.second
        u = np.clip((second - low) / (high - low) * (rows - 1), 0.0, rows - 1.000001)
        v = np.clip(np.log1p(z) / np.log1p(self.redshift) * (columns - 1), 0.0, columns - 1.000001)
        i, j = u.astype(np.intp), v.astype(np.intp)
        u, v = u - i, v - j
        table = self.logs[band]
        logs = ((1 - u) * ((1 - v) * table[i, j] + v * table[i, j + 1])
                + u * ((1 - v) * table[i + 1, j] + v * table[i + 1, j + 1]))
        return np.asarray(10.0**logs)


def redshifts(largest: float, nodes: int) -> np.ndarray:
    """Nodes uniform in ln(1 + z) from 0."""
    return np.asarray(np.expm1(np.linspace(0.0, np.log1p(largest), nodes)))
