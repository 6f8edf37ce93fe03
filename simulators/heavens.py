"""Where the sun and the moon stand, and how high anything is at the site: to a few hundredths of a degree, fast.

Low-precision series of the Astronomical Almanac (sun 0.01 deg, moon 0.3 deg and 0.2 % in distance); the moon's parallax
at the site is applied. Tests compare with astropy.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

SITE: Final = (-70.7494, -30.2444)     # longitude, latitude of the Simonyi Survey Telescope [deg]
EARTH_RADIUS_KM: Final = 6378.137


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The geometry of one pointing [deg]."""

    zenith_distance: float
    sun_altitude: float
    moon_altitude: float
    moon_separation: float
    moon_phase: float           # phase angle: 0 at full moon, 180 at new


def sidereal_deg(mjd_tai: np.ndarray | float) -> np.ndarray:
    """Local mean sidereal time at the site [deg]; UT1 is TAI - 37 s to the second."""
    d = np.asarray(mjd_tai, float) - 37.0 / 86400 - 51544.5
    return np.asarray((280.46061837 + 360.98564736629 * d + SITE[0]) % 360.0)


def unit(ra: float, dec: float) -> np.ndarray:
    """Unit vector of a direction [deg]."""
    a, d = np.radians(ra), np.radians(dec)
    return np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])


def zenith(mjd_tai: float) -> np.ndarray:
    """Unit vector of the site's zenith in equatorial axes of date."""
    return unit(float(sidereal_deg(mjd_tai)), SITE[1])


def sun(mjd_tai: float) -> np.ndarray:
    """Unit vector to the sun in equatorial axes of date."""
    d = mjd_tai - 51544.5
    g = np.radians(357.528 + 0.9856003 * d)
    longitude = np.radians(280.460 + 0.9856474 * d + 1.915 * np.sin(g) + 0.020 * np.sin(2 * g))
    return _equatorial(longitude, 0.0, d)


def moon(mjd_tai: float) -> np.ndarray:
    """Unit vector from the site to the moon in equatorial axes of date."""
    d = mjd_tai - 51544.5
    t = d / 36525.0

    def wave(amplitude: float, start: float, rate: float) -> float:
        return float(amplitude * np.sin(np.radians(start + rate * t)))

    longitude = (218.32 + 481267.881 * t + wave(6.29, 135.0, 477198.87) - wave(1.27, 259.3, -413335.36)
                 + wave(0.66, 235.7, 890534.22) + wave(0.21, 269.9, 954397.74) - wave(0.19, 357.5, 35999.05)
                 - wave(0.11, 186.5, 966404.03))
    latitude = (wave(5.13, 93.3, 483202.02) + wave(0.28, 228.2, 960400.89) - wave(0.28, 318.3, 6003.15)
                - wave(0.17, 217.6, -407332.21))
    parallax = (0.9508 + wave(0.0518, 225.0, 477198.87) + wave(0.0095, 349.3, -413335.36)
                + wave(0.0078, 325.7, 890534.22) + wave(0.0028, 0.0, 954397.74))
    geocentric = _equatorial(np.radians(longitude), np.radians(latitude), d) / np.sin(np.radians(parallax))
    topocentric = geocentric - zenith(mjd_tai)           # in Earth radii
    return np.asarray(topocentric / np.linalg.norm(topocentric))


def _equatorial(longitude: float, latitude: float, days: float) -> np.ndarray:
    tilt = np.radians(23.439 - 4e-7 * days)
    x, y, z = np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)
    return np.array([x, y * np.cos(tilt) - z * np.sin(tilt), y * np.sin(tilt) + z * np.cos(tilt)])


def separation(a: np.ndarray, b: np.ndarray) -> float:
    """Angle between unit vectors [deg]."""
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


def circumstances(ra: float, dec: float, mjd_tai: float) -> Circumstances:
    """Zenith distance, sun and moon for a pointing [deg] at a time."""
    up, there, at_sun, at_moon = zenith(mjd_tai), unit(ra, dec), sun(mjd_tai), moon(mjd_tai)
    return Circumstances(separation(up, there), 90.0 - separation(up, at_sun), 90.0 - separation(up, at_moon),
                         separation(there, at_moon), 180.0 - separation(at_sun, at_moon))


def zenith_angle(ra: float, dec: float, mjd_tai: float) -> float:
    """Position angle of the zenith, East of North [deg]: the parallactic angle."""
    hour, lat, d = np.radians(sidereal_deg(mjd_tai) - ra), np.radians(SITE[1]), np.radians(dec)
    return float(np.degrees(np.arctan2(np.sin(hour), np.tan(lat) * np.cos(d) - np.sin(d) * np.cos(hour))))
