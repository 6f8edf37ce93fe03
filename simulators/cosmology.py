"""Distances and volumes in a flat universe of matter and a cosmological constant."""

from functools import cache
from typing import Final

import numpy as np

HUBBLE: Final = 70.0               # [km/s/Mpc], as in most of the rates that `simulators.lightcurves` quotes
MATTER: Final = 0.3
LIGHT_KM_S: Final = 299792.458
LARGEST: Final = 8.0               # redshift at the end of the table


@cache
def _table() -> tuple[np.ndarray, np.ndarray]:
    """Redshifts, uniform in ln(1 + z), and comoving distances [Mpc]; Simpson's rule between nodes."""
    grow = np.linspace(0.0, np.log1p(LARGEST), 2001)

    def integrand(x: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(x) / _expansion(np.expm1(x)))

    steps = np.diff(grow) / 6.0 * (integrand(grow[:-1]) + 4.0 * integrand((grow[:-1] + grow[1:]) / 2)
                                   + integrand(grow[1:]))
    return np.expm1(grow), LIGHT_KM_S / HUBBLE * np.concatenate([[0.0], np.cumsum(steps)])


def _expansion(z: np.ndarray) -> np.ndarray:
    """H(z) over H(0)."""
    return np.asarray(np.sqrt(MATTER * (1.0 + z) ** 3 + 1.0 - MATTER))


def comoving_mpc(z: np.ndarray) -> np.ndarray:
    """Comoving distance [Mpc], 0 < z < 8."""
    nodes, distance = _table()
    grow = np.log1p(np.asarray(z, float))
    return np.asarray(np.interp(grow, np.log1p(nodes), distance))


def distance_modulus(z: np.ndarray) -> np.ndarray:
    """m - M [mag] without any K correction."""
    z = np.asarray(z, float)
    return np.asarray(5.0 * np.log10((1.0 + z) * comoving_mpc(z)) + 25.0)


def volume_mpc3_sr(z: np.ndarray) -> np.ndarray:
    """Comoving volume per unit redshift and steradian [Mpc^3/sr]."""
    z = np.asarray(z, float)
    return np.asarray(comoving_mpc(z) ** 2 * LIGHT_KM_S / HUBBLE / _expansion(z))
