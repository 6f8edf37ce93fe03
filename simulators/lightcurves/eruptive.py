"""Stars that erupt now and then: dwarf novae and flaring M dwarfs.

Eruption k of a star comes at a time that is hashed from the star's phase and k, once in each interval of its mean
recurrence, so that any moment can be asked alone.
"""

from typing import Final

import numpy as np

from simulators.passbands import WAVELENGTHS_NM, planck, weights

ERUPTING: Final = np.dtype([("flux", "f8", (6,)),              # quiescent [nJy]
                            ("burst", "f8", (6,)),             # added at the top of an eruption of median size [nJy]
                            ("recurrence", "f8"), ("phase", "f8"),   # [day]
                            ("duration", "f8"),                # [day]: of the plateau, or half-width of a flare
                            ("spread", "f8")])                 # of the natural logarithm of eruptions' sizes

FLARE_K: Final = 10_000.0          # [K] of the white light of flares (Hawley & Fisher 1992)
OUTBURST_K: Final = 12_000.0       # [K] of an accretion disk in outburst: assumed


def _hashed(rows: np.ndarray, k: np.ndarray, salt: float) -> np.ndarray:
    """(n,) numbers in [0, 1) that depend on the star and the eruption's number alone."""
    angle = 12.9898 * (k % 9973.0) + 78.233 * rows["phase"] * (1.0 + salt) + salt
    return np.asarray((np.sin(angle) * 43758.5453) % 1.0)


def _eruptions(rows: np.ndarray, mjd: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Days since, and relative size of, the eruptions of this interval and of its two neighbours."""
    now = np.floor(mjd / rows["recurrence"] + rows["phase"])
    out = []
    for k in (now - 1.0, now, now + 1.0):
        start = (k - rows["phase"] + 0.1 + 0.8 * _hashed(rows, k, 1.0)) * rows["recurrence"]
        share = np.clip(_hashed(rows, k, 2.0), 0.01, 0.99)
        out.append((mjd - start, (share / (1.0 - share)) ** (rows["spread"] / 1.7)))    # nearly lognormal
    return out


def dwarf_nova_flux(rows: np.ndarray, band: int, mjd: float) -> np.ndarray:
    """(n,) fluxes [nJy]: a rise of half a day, a plateau, a fall of 1.5 days per e-folding."""
    total = np.zeros(len(rows))
    for since, size in _eruptions(rows, mjd):
        left = np.maximum(since - rows["duration"], 0.0) / 1.5
        total += size * np.exp(-left) / (1.0 + np.exp(-np.clip(since / 0.25, -50.0, 50.0)))
    return np.asarray(rows["flux"][:, band] + rows["burst"][:, band] * total)


def flare_profile(t: np.ndarray) -> np.ndarray:
    """A flare's light over its peak, at a time in units of its width at half maximum (Davenport et al. 2014)."""
    rise = np.polyval([-1.125, -2.246, -0.175, 1.941, 1.0], np.clip(t, -1.0, 0.0))
    after = np.maximum(t, 0.0)
    fall = (0.6890 * np.exp(-1.600 * after) + 0.3030 * np.exp(-0.2783 * after)) / 0.9920
    return np.asarray(np.where(t < -1.0, 0.0, np.where(t < 0.0, np.maximum(rise, 0.0), fall)))


def flare_flux(rows: np.ndarray, band: int, mjd: float) -> np.ndarray:
    """(n,) fluxes [nJy] with the flares of three intervals."""
    total = sum((size * flare_profile(since / rows["duration"]) for since, size in _eruptions(rows, mjd)),
                np.zeros(len(rows)))
    return np.asarray(rows["flux"][:, band] + rows["burst"][:, band] * total)


def black_body(temperature: float, band: int = 2) -> np.ndarray:
    """(6,) band fluxes of a black body over that in one band."""
    flux = weights() @ planck(np.array(temperature), WAVELENGTHS_NM)
    return np.asarray(flux / flux[band])
