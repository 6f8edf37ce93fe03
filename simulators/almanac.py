"""What an observatory works out beforehand: where Sun and Moon are, and how bright they make the sky over the site."""

from dataclasses import dataclass
from typing import Final

import erfa
import numpy as np

from simulators.conditions import DARK_SKY, SITE, WAVELENGTH_NM

TAI_TO_TT_D: Final = 32.184 / 86400
TAI_TO_UT_D: Final = -37.0 / 86400                 # UT1 to the second
SIDEREAL_RATE: Final = 2.0 * np.pi * 1.00273790935 / 86400   # [radian / s]
EARTH_RADIUS_AU: Final = 6378.137 / 149597870.7
SUN_COLOUR: Final = dict(zip("ugrizy", (1.49, 0.25, -0.17, -0.29, -0.32, -0.33), strict=True))
# AB magnitude of the Sun less that in V (Willmer 2018, LSST bands: -25.3 to -27.1 with V = -26.77)
TWILIGHT: Final = dict(zip("ugrizy", (6.0, 3.5, 1.6, 2.0, 2.9, 3.0), strict=True))
TWILIGHT_FALL: Final = 0.82
# flux of twilight over the dark sky with the Sun 12 deg down, and its fall per degree: r to y as the v2.0 baseline's
# depths in moonless twilight ask for, u and g (where nothing is observed) assumed
V_EXTINCTION: Final = 0.172                        # Krisciunas & Schaefer 1991
MOONLIGHT: Final = 1.25                            # over their model, whose own error is 23 %: halves what the depths
#                                                    of the v2.0 baseline's moonlit visits are off in g, r, i and z


@dataclass(frozen=True, slots=True)
class Bodies:
    """Sun and Moon at times, as seen from the site; arrays of one shape."""

    sun_ra: np.ndarray         # [deg], ICRF; the Moon's with its parallax
    sun_dec: np.ndarray
    moon_ra: np.ndarray
    moon_dec: np.ndarray
    sun_alt: np.ndarray        # [deg]
    sun_az: np.ndarray
    moon_alt: np.ndarray
    moon_az: np.ndarray
    elongation: np.ndarray     # of the Moon from the Sun [deg]

    @property
    def illuminated(self) -> np.ndarray:
        """Share of the Moon's disk that is lit."""
        return np.asarray((1.0 - np.cos(np.radians(self.elongation))) / 2.0)


def of_date(mjd_tai: float) -> np.ndarray:
    """(3, 3) matrix from ICRF to the true equator and equinox of date."""
    return np.asarray(erfa.pnm06a(2400000.5, mjd_tai + TAI_TO_TT_D))


def sidereal(mjd_tai: np.ndarray | float) -> np.ndarray:
    """Local apparent sidereal angle [radian] at times within two days: nutation is that of their middle."""
    t = np.asarray(mjd_tai, float)
    middle = _middle(t)
    there = erfa.gst06a(2400000.5, middle + TAI_TO_UT_D, 2400000.5, middle + TAI_TO_TT_D) + np.radians(SITE[0])
    return np.asarray((there + (t - middle) * 86400 * SIDEREAL_RATE) % (2 * np.pi))


def _middle(times: np.ndarray) -> float:
    """The mean of times near each other: precession and nutation move 0.2" in a day, so one matrix serves a night."""
    if np.ptp(times) > 2.0:
        raise ValueError(f"times must lie within 2 days, got {np.ptp(times):.1f} days")
    return float(np.mean(times))


def unit(ra_deg: np.ndarray | float, dec_deg: np.ndarray | float) -> np.ndarray:
    """(..., 3) unit vectors."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.broadcast_to(np.sin(dec), ra.shape)], -1)


def angles(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension in [0, 360) and declination [deg] of vectors."""
    flat = np.hypot(vectors[..., 0], vectors[..., 1])
    return (np.degrees(np.arctan2(vectors[..., 1], vectors[..., 0])) % 360.0,
            np.degrees(np.arctan2(vectors[..., 2], flat)))


def horizon(vectors: np.ndarray, mjd_tai: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Altitude and azimuth [deg] of ICRF vectors (..., 3); no refraction, no aberration (20")."""
    t = np.asarray(mjd_tai, float)
    here = vectors @ of_date(_middle(t)).T
    angle = sidereal(t)
    lat = np.radians(SITE[1])
    up = np.stack([np.cos(lat) * np.cos(angle), np.cos(lat) * np.sin(angle), np.broadcast_to(np.sin(lat), t.shape)], -1)
    east = np.stack([-np.sin(angle), np.cos(angle), np.zeros_like(angle)], -1)
    north = np.cross(up, east)
    z, x, y = (np.sum(here * axis, -1) for axis in (up, east, north))
    return np.degrees(np.arcsin(np.clip(z, -1, 1))), np.degrees(np.arctan2(x, y)) % 360.0


def bodies(mjd_tai: np.ndarray | float) -> Bodies:
    """Sun and Moon at times within two days of each other (ERFA's analytic series; the Moon's to some arcseconds)."""
    t = np.asarray(mjd_tai, float)
    sun = -erfa.epv00(2400000.5, t + TAI_TO_TT_D)[0]["p"]
    moon = erfa.moon98(2400000.5, t + TAI_TO_TT_D)["p"]
    lat = np.radians(SITE[1])
    angle = sidereal(t)
    site = EARTH_RADIUS_AU * np.stack([np.cos(lat) * np.cos(angle), np.cos(lat) * np.sin(angle),
                                       np.broadcast_to(np.sin(lat), t.shape)], -1)
    moon = moon - site @ of_date(_middle(t))
    sun, moon = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (sun, moon))
    elongation = np.degrees(np.arccos(np.clip(np.sum(sun * moon, -1), -1, 1)))
    return Bodies(*angles(sun), *angles(moon), *horizon(sun, t), *horizon(moon, t), elongation)


def separation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle between unit vectors [deg]."""
    return np.asarray(np.degrees(np.arccos(np.clip(np.sum(a * b, -1), -1, 1))))


def moonlight(band: str, elongation: np.ndarray | float, distance: np.ndarray | float, moon_alt: np.ndarray | float,
              altitude: np.ndarray | float) -> np.ndarray:
    """Sky flux of scattered moonlight, in units of one magnitude-0 star per arcsec^2.

    Krisciunas & Schaefer (1991) in V; in other bands Rayleigh's part goes with wavelength^-4 and the aerosol's with
    ^-1.3 (Patat 2003), the light is the Sun's off a surface whose albedo grows with wavelength (B - V of the Moon 0.92,
    of the Sun 0.65). Angles in degrees; 0 while the Moon is down.
    """
    up = np.asarray(moon_alt, float)
    phase = 180.0 - np.asarray(elongation, float)
    lunar = 10 ** (-0.4 * (3.84 + 0.026 * np.abs(phase) + 4e-9 * phase**4))
    rho = np.asarray(distance, float)
    ratio = WAVELENGTH_NM[band] / 550.0
    scatter = (10**5.36 * (1.06 + np.cos(np.radians(rho)) ** 2) * ratio**-4.0
               + 10 ** (6.15 - rho / 40.0) * ratio**-1.3)

    def path(altitude: np.ndarray | float) -> np.ndarray:
        return np.asarray((1.0 - 0.96 * np.cos(np.radians(altitude)) ** 2) ** -0.5)

    nanolamberts = (MOONLIGHT * scatter * lunar * 10 ** (-0.4 * V_EXTINCTION * path(np.maximum(up, 0.0)))
                    * (1.0 - 10 ** (-0.4 * V_EXTINCTION * path(altitude))))
    v_mag = (20.7233 - np.log(np.maximum(nanolamberts, 1e-30) / 34.08)) / 0.92104
    colour = SUN_COLOUR[band] - 2.5 * np.log10(ratio)
    return np.where(up > 0.0, 10 ** (-0.4 * (v_mag + colour)), 0.0)


def sky_brightness(band: str, altitude: np.ndarray | float, moon_distance: np.ndarray | float,
                   moon_alt: np.ndarray | float, elongation: np.ndarray | float,
                   sun_alt: np.ndarray | float) -> np.ndarray:
    """Sky [AB mag/arcsec^2]: SMTN-002's dark sky through van Rhijn's layer, moonlight and twilight; angles degrees."""
    dark = 10 ** (-0.4 * DARK_SKY[band])
    zenith = np.radians(90.0 - np.asarray(altitude, float))
    glow = dark / np.sqrt(1.0 - 0.96 * np.sin(zenith) ** 2)
    sun = np.asarray(sun_alt, float)
    twilight = np.where(sun > -18.5, dark * TWILIGHT[band] * np.exp(TWILIGHT_FALL * -(-12.0 - sun)), 0.0)
    return np.asarray(-2.5 * np.log10(glow + twilight + moonlight(band, elongation, moon_distance, moon_alt, altitude)))


def night_bounds(night_mjd: int, *sun_alts: float) -> list[tuple[float, float]]:
    """TAI MJD of evening and morning when the Sun passes each altitude [deg], in the night of a local midnight."""
    t = night_mjd - SITE[0] / 360.0 + np.linspace(-0.5, 0.5, 361)
    sun = -erfa.epv00(2400000.5, night_mjd + np.array([-0.5, 0.5]) - SITE[0] / 360.0 + TAI_TO_TT_D)[0]["p"]
    sun = sun[0] + (sun[1] - sun[0]) * np.linspace(0, 1, 361)[:, None]     # 0.002 deg off the arc at most
    alt, _ = horizon(sun / np.linalg.norm(sun, axis=-1, keepdims=True), t)
    out = []
    for limit in sun_alts:
        below = np.flatnonzero(alt < limit)
        i, j = below[0], below[-1]
        out.append((float(np.interp(-limit, -alt[i - 1:i + 1], t[i - 1:i + 1])),
                    float(np.interp(limit, alt[j:j + 2], t[j:j + 2]))))
    return out
