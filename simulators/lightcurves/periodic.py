"""Stars that repeat: RR Lyrae, long-period variables, eclipsing binaries."""

from typing import Final

import numpy as np

PULSATING: Final = np.dtype([("flux", "f8", (6,)),             # at the mean magnitude [nJy]
                             ("amplitude", "f8", (6,)),        # peak to peak [mag]
                             ("period", "f8"), ("phase", "f8"), ("ascent", "f8")])    # ascent: part of the period
ECLIPSING: Final = np.dtype([("flux", "f8", (6,)),             # outside eclipses [nJy]
                             ("first", "f8"), ("second", "f8", (6,)),       # depths, of the flux
                             ("width", "f8"),                  # half an eclipse, of the period
                             ("ellipsoidal", "f8"), ("period", "f8"), ("phase", "f8")])

# Amplitudes of RR Lyrae over that in g (Sesar et al. 2010, ApJ 708, 717, rounded; y as z)
RR_AMPLITUDE: Final = np.array([1.0, 1.0, 0.72, 0.57, 0.52, 0.50])
# and of Mira variables, whose molecules leave the red: over that in r (assumed)
MIRA_AMPLITUDE: Final = np.array([1.2, 1.15, 1.0, 0.75, 0.6, 0.5])


def pulsating_flux(rows: np.ndarray, band: int, mjd: float) -> np.ndarray:
    """(n,) fluxes [nJy]: half a cosine up in `ascent` of the period, half a slower one down."""
    phase = (mjd / rows["period"] + rows["phase"]) % 1.0
    up = np.cos(np.pi * np.minimum(phase / rows["ascent"], 1.0))
    down = np.cos(np.pi * (np.clip(phase - rows["ascent"], 0.0, 1.0) / (1.0 - rows["ascent"])) ** 0.75)
    shape = 0.5 * np.where(phase < rows["ascent"], up, -down)           # 0.5 is faintest
    return np.asarray(rows["flux"][:, band] * 10 ** (-0.4 * rows["amplitude"][:, band] * shape))


def eclipsing_flux(rows: np.ndarray, band: int, mjd: float) -> np.ndarray:
    """(n,) fluxes [nJy] with two eclipses in a circular orbit."""
    phase = (mjd / rows["period"] + rows["phase"]) % 1.0

    def eclipse(distance: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(-((distance / rows["width"]) ** 4)))

    lost = rows["first"] * eclipse(np.minimum(phase, 1.0 - phase)) + rows["second"][:, band] * eclipse(phase - 0.5)
    bulging = rows["ellipsoidal"] * 0.5 * (1.0 + np.cos(4.0 * np.pi * phase))
    return np.asarray(rows["flux"][:, band] * (1.0 - lost) * (1.0 - bulging))
