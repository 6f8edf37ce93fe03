"""Microlensing of a star by a point mass that passes in front."""

from typing import Final

import numpy as np

LENSED: Final = np.dtype([("flux", "f8", (6,)),                # unmagnified, lensed and blended light together [nJy]
                          ("lensed", "f8"),                    # share of it that is lensed
                          ("peak", "f8"), ("einstein", "f8"), ("impact", "f8")])    # [MJD], [day], [Einstein radii]


def magnification(separation: np.ndarray) -> np.ndarray:
    """Of a point source by a point lens at a separation in Einstein radii (Paczynski 1986, ApJ 304, 1)."""
    u2 = np.asarray(separation, float) ** 2
    return np.asarray((u2 + 2.0) / np.sqrt(u2 * (u2 + 4.0)))


def lensed_flux(rows: np.ndarray, band: int, mjd: float) -> np.ndarray:
    """(n,) fluxes [nJy], achromatic but for the blend."""
    separation = np.hypot(rows["impact"], (mjd - rows["peak"]) / rows["einstein"])
    return np.asarray(rows["flux"][:, band] * (1.0 + rows["lensed"] * (magnification(separation) - 1.0)))
