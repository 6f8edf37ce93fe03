"""Where Sun, Moon and fields stand over the site, at any time: the one ephemeris of scheduler, weather and satellites.

ERFA's analytic series for Sun and Moon, its precession and nutation, the Moon's parallax at the site; no refraction and
no aberration. Tests compare with astropy: 0.02 degrees.
"""

from dataclasses import dataclass
from typing import Final

import erfa
import numpy as np

SITE: Final = (-70.7494, -30.2444)     # longitude, latitude of the Simonyi Survey Telescope [deg]
TAI_TO_TT_D: Final = 32.184 / 86400
TAI_TO_UT_D: Final = -37.0 / 86400                 # UT1 to the second
SIDEREAL_RATE: Final = 2.0 * np.pi * 1.00273790935 / 86400   # [radian / s]
EARTH_RADIUS_KM: Final = 6378.137
EARTH_RADIUS_AU: Final = EARTH_RADIUS_KM / 149597870.7


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


def sidereal_deg(mjd_tai: np.ndarray | float) -> np.ndarray:
    """Local mean sidereal time [deg] at times however far apart: within 0.005 deg of `sidereal`, nutation left out."""
    d = np.asarray(mjd_tai, float) - 37.0 / 86400 - 51544.5
    return np.asarray((280.46061837 + 360.98564736629 * d + SITE[0]) % 360.0)


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
    up = _up(angle)
    east = np.stack([-np.sin(angle), np.cos(angle), np.zeros_like(angle)], -1)
    north = np.cross(up, east)
    z, x, y = (np.sum(here * axis, -1) for axis in (up, east, north))
    return np.degrees(np.arcsin(np.clip(z, -1, 1))), np.degrees(np.arctan2(x, y)) % 360.0


def _up(angle: np.ndarray) -> np.ndarray:
    """(..., 3) unit vectors to the zenith in axes of date, at sidereal angles [radian]."""
    lat = np.radians(SITE[1])
    north = np.broadcast_to(np.sin(lat), angle.shape)
    return np.stack([np.cos(lat) * np.cos(angle), np.cos(lat) * np.sin(angle), north], -1)


def zenith(mjd_tai: np.ndarray | float) -> np.ndarray:
    """(..., 3) ICRF unit vectors to the zenith, at times within two days of each other."""
    t = np.asarray(mjd_tai, float)
    return np.asarray(_up(sidereal(t)) @ of_date(_middle(t)))


def sun(mjd_tai: np.ndarray | float) -> np.ndarray:
    """(..., 3) ICRF unit vectors to the Sun."""
    place = -erfa.epv00(2400000.5, np.asarray(mjd_tai, float) + TAI_TO_TT_D)[0]["p"]
    return np.asarray(place / np.linalg.norm(place, axis=-1, keepdims=True))


def bodies(mjd_tai: np.ndarray | float) -> Bodies:
    """Sun and Moon at times within two days of each other (ERFA's analytic series; the Moon's to some arcseconds)."""
    t = np.asarray(mjd_tai, float)
    at_sun = sun(t)
    moon = erfa.moon98(2400000.5, t + TAI_TO_TT_D)["p"] - EARTH_RADIUS_AU * _up(sidereal(t)) @ of_date(_middle(t))
    moon /= np.linalg.norm(moon, axis=-1, keepdims=True)
    return Bodies(*angles(at_sun), *angles(moon), *horizon(at_sun, t), *horizon(moon, t), separation(at_sun, moon))


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The geometry of one pointing [deg]."""

    altitude: float
    sun_alt: float
    moon_alt: float
    moon_distance: float
    elongation: float          # of the Moon from the Sun: 180 at full moon


def circumstances(ra_deg: float, dec_deg: float, mjd_tai: float) -> Circumstances:
    """Altitude, Sun and Moon for a pointing (ICRF) at a time."""
    there, now = unit(ra_deg, dec_deg), bodies(mjd_tai)
    altitude, _ = horizon(there, mjd_tai)
    distance = separation(there, unit(now.moon_ra, now.moon_dec))
    return Circumstances(float(altitude), float(now.sun_alt), float(now.moon_alt), float(distance),
                         float(now.elongation))


def zenith_angle(ra_deg: float, dec_deg: float, mjd_tai: float) -> float:
    """Position angle of the zenith, East of North of the ICRF [deg]: the parallactic angle."""
    up, there = zenith(mjd_tai), unit(ra_deg, dec_deg)
    east = np.array([-np.sin(np.radians(ra_deg)), np.cos(np.radians(ra_deg)), 0.0])
    return float(np.degrees(np.arctan2(up @ east, up @ np.cross(there, east))))


def separation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle between unit vectors [deg]."""
    return np.asarray(np.degrees(np.arccos(np.clip(np.sum(a * b, -1), -1, 1))))


def night_bounds(night_mjd: int, *sun_alts: float) -> list[tuple[float, float]]:
    """TAI MJD of evening and morning when the Sun passes each altitude [deg], in the night of a local midnight."""
    t = night_mjd - SITE[0] / 360.0 + np.linspace(-0.5, 0.5, 361)
    first, last = sun(night_mjd + np.array([-0.5, 0.5]) - SITE[0] / 360.0)
    arc = first + (last - first) * np.linspace(0, 1, 361)[:, None]     # 0.002 deg off the arc at most
    alt, _ = horizon(arc / np.linalg.norm(arc, axis=-1, keepdims=True), t)
    out = []
    for limit in sun_alts:
        below = np.flatnonzero(alt < limit)
        i, j = below[0], below[-1]
        out.append((float(np.interp(-limit, -alt[i - 1:i + 1], t[i - 1:i + 1])),
                    float(np.interp(limit, alt[j:j + 2], t[j:j + 2]))))
    return out
