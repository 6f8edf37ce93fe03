"""Active galactic nuclei: damped random walks of the magnitude, redder bands less."""

from typing import Final

import numpy as np

MODES: Final = 96
NUCLEUS: Final = np.dtype([("flux", "f8", (6,)),               # mean [nJy]
                           ("sigma", "f8", (6,)),              # rms [mag]
                           ("omega", "f8", (MODES,)), ("phase", "f8", (MODES,))])    # [radian/day], [radian]
REDDER: Final = 0.48               # sigma falls as wavelength^-0.48 (MacLeod et al. 2010, ApJ 721, 1014)


def nucleus_flux(rows: np.ndarray, band: int, mjd: float) -> np.ndarray:
    """(n,) fluxes [nJy]: one sum of cosines, whose frequencies follow the walk's spectrum, drives all bands."""
    walk = np.sqrt(2.0 / MODES) * np.cos(rows["omega"] * (mjd - 60000.0) + rows["phase"]).sum(axis=1)
    return np.asarray(rows["flux"][:, band] * 10 ** (-0.4 * rows["sigma"][:, band] * walk))
