"""The six bands as weights over wavelength, spectra through them, and dust.

The shapes are those of the LSST throughputs that GalSim ships; they are older than the zeropoints of `conditions`
(SMTN-002), so only ratios of fluxes are taken from them, never an absolute throughput.
"""

from functools import cache
from typing import Final

import galsim
import numpy as np

from schemas.exposure import BANDS

STEP_NM: Final = 2.0
WAVELENGTHS_NM: Final = np.arange(300.0, 1110.0, STEP_NM)
VISUAL_RV: Final = 3.1


@cache
def weights() -> np.ndarray:
    """(6, n) weights over WAVELENGTHS_NM whose sum with f_nu is a band's AB flux density; each row sums to 1."""
    out = np.array([galsim.Bandpass(f"LSST_{band}.dat", "nm")(WAVELENGTHS_NM) for band in BANDS]) / WAVELENGTHS_NM
    return np.asarray(out / out.sum(axis=1, keepdims=True))


@cache
def effective_nm() -> np.ndarray:
    """(6,) mean wavelengths of the bands [nm]."""
    return np.asarray(weights() @ WAVELENGTHS_NM)


def extinction(wavelength_nm: np.ndarray) -> np.ndarray:
    """A(lambda) / A(V) of Milky Way dust with R(V) = 3.1, from 120 nm to 3 um (Cardelli, Clayton & Mathis 1989)."""
    x = 1000.0 / np.clip(np.asarray(wavelength_nm, float), 120.0, 3000.0)
    y, far = x - 1.82, np.maximum(x - 5.9, 0.0)
    infrared = 0.574 * x**1.61, -0.527 * x**1.61
    optical = (np.polyval([0.32999, -0.77530, 0.01979, 0.72085, -0.02427, -0.50447, 0.17699, 1.0], y),
               np.polyval([-2.09002, 5.30260, -0.62251, -5.38434, 1.07233, 2.28305, 1.41338, 0.0], y))
    ultraviolet = (1.752 - 0.316 * x - 0.104 / ((x - 4.67) ** 2 + 0.341) - 0.04473 * far**2 - 0.009779 * far**3,
                   -3.090 + 1.825 * x + 1.206 / ((x - 4.62) ** 2 + 0.263) + 0.2130 * far**2 + 0.1207 * far**3)
    a, b = (np.select([x < 1.1, x < 3.3], [infrared[k], optical[k]], ultraviolet[k]) for k in (0, 1))
    return np.asarray(a + b / VISUAL_RV)


def band_extinction() -> np.ndarray:
    """(6,) A(band) / A(V) of dust in front of everything."""
    return extinction(effective_nm())


def dimming(a_v: np.ndarray, z: np.ndarray | float = 0.0) -> np.ndarray:
    """(n, 6) factors by which dust of A(V) at redshift z dims the observed bands, each taken at its mean wavelength."""
    rest = effective_nm() / (1.0 + np.broadcast_to(z, np.shape(a_v)))[:, None]
    return np.asarray(10 ** (-0.4 * np.asarray(a_v, float)[:, None] * extinction(rest)))


def planck(temperature: np.ndarray, wavelength_nm: np.ndarray) -> np.ndarray:
    """f_nu of a black body, in arbitrary units, of broadcast temperatures [K] and wavelengths."""
    x = 1.438777e7 / (np.asarray(wavelength_nm, float) * np.asarray(temperature, float))
    return np.asarray(1.0 / (np.asarray(wavelength_nm, float) ** 3 * np.expm1(np.minimum(x, 600.0))))
