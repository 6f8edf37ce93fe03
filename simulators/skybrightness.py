"""How bright the sky is: airglow by zenith distance, moonlight, twilight.

Airglow: van Rhijn's layer in the form of Krisciunas & Schaefer (1991). Moonlight: their V model with the band's
extinction, carried to each band by the colour of scattered moonlight against V. Twilight: a magnitude per degree of the
sun's depression (Patat et al. 2006), as bright as the dark sky at the depression where each band's night begins.
"""

from typing import Final

import numpy as np

# LSST SMTN-002: dark zenith sky [mag/arcsec^2], extinction [mag per airmass]
DARK_SKY: Final = dict(zip("ugrizy", (23.051983, 22.253839, 21.197579, 20.462795, 19.606305, 18.601512), strict=True))
K_ATM: Final = dict(zip("ugrizy", (0.470116, 0.212949, 0.126369, 0.095764, 0.068417, 0.171009), strict=True))
# the scattered moonlight's AB colour against V: the sun's colours, bluer by scattering (u-V, g-V, ...): assumed, within
# 0.3 mag of the skies that DECam and LSSTComCam saw
MOON_MINUS_V: Final = dict(zip("ugrizy", (0.9, 0.0, 0.0, 0.1, 0.25, 0.35), strict=True))
TWILIGHT_EQUALS_DARK: Final = dict(zip("ugrizy", (-16.5, -16.5, -15.5, -14.5, -13.5, -12.5), strict=True))   # [deg]
TWILIGHT_MAG_PER_DEG: Final = 1.0


def sky_mag(band: str, zenith_distance: float, moon_altitude: float, moon_phase: float, moon_separation: float,
            sun_altitude: float, *, dark: float | None = None) -> float:
    """Sky brightness [mag/arcsec^2] as the telescope sees it.

    Parameters
    ----------
    zenith_distance, moon_altitude, moon_separation, sun_altitude : [deg]
    moon_phase : phase angle, 0 at full moon, 180 at new [deg]
    dark : the band's dark zenith sky; SMTN-002's if not given

    References
    ----------
    Krisciunas & Schaefer 1991, PASP 103, 1033; van Rhijn 1921; Patat, Ugolnikov & Postylyakov 2006, A&A 455, 385.
    """
    zenith = DARK_SKY[band] if dark is None else dark
    glow = airglow(zenith_distance)
    moon = moonlight(band, zenith_distance, moon_altitude, moon_phase, moon_separation, zenith)
    return float(zenith - 2.5 * np.log10(glow + moon + twilight(band, sun_altitude)))


def airglow(zenith_distance: float) -> float:
    """Dark sky over its zenith value."""
    sine = np.sin(np.radians(min(zenith_distance, 85.0)))
    return float(1.0 / np.sqrt(1.0 - 0.96 * sine**2))


def moonlight(band: str, zenith_distance: float, moon_altitude: float, moon_phase: float, moon_separation: float,
              dark: float) -> float:
    """Scattered moonlight over the dark zenith sky; 0 with the moon below the horizon."""
    if moon_altitude <= 0.0:
        return 0.0
    phase, rho = abs(moon_phase), max(moon_separation, 5.0)
    illuminance = 10 ** (-0.4 * (3.84 + 0.026 * phase + 4e-9 * phase**4))
    rayleigh = 10**5.36 * (1.06 + np.cos(np.radians(rho)) ** 2)
    mie = 10 ** (6.15 - rho / 40.0) if rho >= 10.0 else 6.2e7 / rho**2
    k = K_ATM[band]
    nanolamberts = ((rayleigh + mie) * illuminance * 10 ** (-0.4 * k * _airmass(90.0 - moon_altitude))
                    * (1.0 - 10 ** (-0.4 * k * _airmass(zenith_distance))))
    v_mag = (20.7233 - np.log(max(nanolamberts, 1e-30) / 34.08)) / 0.92104
    return float(10 ** (-0.4 * (v_mag + MOON_MINUS_V[band] - dark)))


def twilight(band: str, sun_altitude: float) -> float:
    """Twilight over the dark zenith sky; none below -20 deg."""
    if sun_altitude < -20.0:
        return 0.0
    return float(10 ** (0.4 * TWILIGHT_MAG_PER_DEG * (sun_altitude - TWILIGHT_EQUALS_DARK[band])))


def _airmass(zenith_distance: float) -> float:
    """Krisciunas & Schaefer's airmass of scattering."""
    return float(1.0 / np.sqrt(1.0 - 0.96 * np.sin(np.radians(min(zenith_distance, 89.0))) ** 2))
