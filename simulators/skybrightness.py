"""How bright the sky is: airglow by altitude, moonlight, twilight.

The scheduler and scenarios with `conditions.sky = "model"` ask the same. Airglow: SMTN-002's dark sky through van
Rhijn's layer. Moonlight: Krisciunas & Schaefer's V model, its scattering carried to each band by wavelength. Twilight:
an exponential in the Sun's depression, as bright as the depths of the v2.0 baseline's moonless twilight ask for.
"""

from typing import Final

import numpy as np

# LSST SMTN-002: dark zenith sky [mag/arcsec^2], extinction [mag per airmass], effective wavelength
DARK_SKY: Final = dict(zip("ugrizy", (23.051983, 22.253839, 21.197579, 20.462795, 19.606305, 18.601512), strict=True))
K_ATM: Final = dict(zip("ugrizy", (0.470116, 0.212949, 0.126369, 0.095764, 0.068417, 0.171009), strict=True))
WAVELENGTH_NM: Final = dict(zip("ugrizy", (372.354597, 480.687954, 622.146782, 755.898675, 867.965175, 975.343548),
                                strict=True))
SUN_COLOUR: Final = dict(zip("ugrizy", (1.49, 0.25, -0.17, -0.29, -0.32, -0.33), strict=True))
# AB magnitude of the Sun less that in V (Willmer 2018, LSST bands: -25.3 to -27.1 with V = -26.77)
TWILIGHT: Final = dict(zip("ugrizy", (6.0, 3.5, 1.6, 2.0, 2.9, 3.0), strict=True))
TWILIGHT_FALL: Final = 0.82
# flux of twilight over the dark sky with the Sun 12 deg down, and its fall per degree: r to y as the v2.0 baseline's
# depths in moonless twilight ask for, u and g (where nothing is observed) assumed
MOON_RADIUS_DEG: Final = 0.26
V_EXTINCTION: Final = 0.172                        # Krisciunas & Schaefer 1991
MOONLIGHT: Final = 1.25                            # over their model, whose own error is 23 %: halves what the depths
#                                                    of the v2.0 baseline's moonlit visits are off in g, r, i and z


def sky_brightness(band: str, altitude: np.ndarray | float, moon_distance: np.ndarray | float,
                   moon_alt: np.ndarray | float, elongation: np.ndarray | float, sun_alt: np.ndarray | float, *,
                   dark: float | None = None) -> np.ndarray:
    """Sky as the telescope sees it [AB mag/arcsec^2]; angles in degrees, arrays that broadcast.

    `elongation` is the Moon's from the Sun, 180 at full moon; `dark` replaces SMTN-002's dark zenith sky. Moonlight and
    twilight do not depend on it.
    """
    zenith = DARK_SKY[band] if dark is None else dark
    glow = 10 ** (-0.4 * zenith) * airglow(altitude)
    moon = moonlight(band, elongation, moon_distance, moon_alt, altitude)
    return np.asarray(-2.5 * np.log10(glow + twilight(band, sun_alt) + moon))


def airglow(altitude: np.ndarray | float) -> np.ndarray:
    """Dark sky over its zenith value (van Rhijn 1921); also the airmass of scattering in Krisciunas & Schaefer 1991."""
    return np.asarray(1.0 / np.sqrt(1.0 - 0.96 * np.sin(np.radians(90.0 - np.asarray(altitude, float))) ** 2))


def twilight(band: str, sun_alt: np.ndarray | float) -> np.ndarray:
    """Sky flux of twilight, in units of one magnitude-0 star per arcsec^2; 0 with the Sun below -18.5 deg."""
    sun = np.asarray(sun_alt, float)
    at_twelve = 10 ** (-0.4 * DARK_SKY[band]) * TWILIGHT[band]
    return np.where(sun > -18.5, at_twelve * np.exp(TWILIGHT_FALL * (sun + 12.0)), 0.0)


def moonlight(band: str, elongation: np.ndarray | float, distance: np.ndarray | float, moon_alt: np.ndarray | float,
              altitude: np.ndarray | float) -> np.ndarray:
    """Sky flux of scattered moonlight, in units of one magnitude-0 star per arcsec^2.

    Krisciunas & Schaefer (1991) in V; in other bands Rayleigh's part goes with wavelength^-4 and the aerosol's with
    ^-1.3 (Patat 2003), the light is the Sun's off a surface whose albedo grows with wavelength (B - V of the Moon 0.92,
    of the Sun 0.65). Near the Moon the aerosol's is the larger of their two forms, which cross at 9 degrees. Angles in
    degrees; 0 while the Moon is down.
    """
    up = np.asarray(moon_alt, float)
    phase = 180.0 - np.asarray(elongation, float)
    lunar = 10 ** (-0.4 * (3.84 + 0.026 * np.abs(phase) + 4e-9 * phase**4))
    rho = np.asarray(distance, float)
    ratio = WAVELENGTH_NM[band] / 550.0
    aerosol = np.maximum(10 ** (6.15 - rho / 40.0), 6.2e7 / np.maximum(rho, MOON_RADIUS_DEG) ** 2)
    scatter = 10**5.36 * (1.06 + np.cos(np.radians(rho)) ** 2) * ratio**-4.0 + aerosol * ratio**-1.3
    nanolamberts = (MOONLIGHT * scatter * lunar * 10 ** (-0.4 * V_EXTINCTION * airglow(np.maximum(up, 0.0)))
                    * (1.0 - 10 ** (-0.4 * V_EXTINCTION * airglow(altitude))))
    v_mag = (20.7233 - np.log(np.maximum(nanolamberts, 1e-30) / 34.08)) / 0.92104
    colour = SUN_COLOUR[band] - 2.5 * np.log10(ratio)
    return np.where(up > 0.0, 10 ** (-0.4 * (v_mag + colour)), 0.0)
