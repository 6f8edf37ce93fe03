"""What passes over: satellites where the sun reaches them, and aircraft, as tracks that all detectors of a visit see.

Both are too near for the telescope's focus. A point at a distance d is seen as the pupil is: a ring of outer diameter
D / d, which the seeing smooths and the motion sums along the track:

    550 km: 3.1 arcsec, two soft horns in good seeing          10 km: 170 arcsec, a band with a dark middle
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from scipy.special import j1

from schemas.exposure import Visit
from schemas.wcs import Wcs
from simulators import almanac
from simulators.camera import field_radius_deg
from simulators.config import SimulationConfig
from simulators.psf import K_MAX, K_NODES, TruePsf
from simulators.streams import stream

PUPIL_M: Final = 8.36                 # outer diameter of the primary; the inner is 5.12 m
OBSCURATION: Final = 0.61
GM: Final = 398_600.4418              # [km^3 s^-2]
LENGTH_DEG: Final = 3.0               # of half a track
AIRCRAFT_KM: Final = 10.0


@dataclass(frozen=True, slots=True)
class Track:
    """A trail as a line on the sky, longer than the detector."""

    ra: tuple[float, float]         # ends [deg]
    dec: tuple[float, float]
    surface_mag: float              # [mag/arcsec^2] at the middle of a Gaussian trail; else the mean over the FWHM
    fwhm_arcsec: float
    catalogued: bool                # known to the allow-list service
    kind: str = "satellite"
    range_km: float = 0.0           # 0: a Gaussian trail, whatever its distance
    period_arcsec: float = 0.0      # of flashing lights; 0: steady


def satellite_tracks(config: SimulationConfig, visit: Visit, seed: int) -> list[Track]:
    """Trails of satellites that cross the field of a visit; they come from the visit alone."""
    return _plain(config, visit, seed) + _sunlit(config, visit, seed)


def _plain(config: SimulationConfig, visit: Visit, seed: int) -> list[Track]:
    """Gaussian trails in a share of the visits, whatever the sun does."""
    rng = stream(seed, "satellites", visit.visit)
    c = config.artifacts
    if rng.uniform() >= c.streaks:
        return []
    camera = config.camera
    reach = 0.35 * min(camera.nx, camera.ny) * camera.scale_arcsec / 3600      # so that it crosses the central detector
    angle, offset = rng.uniform(0, np.pi), rng.uniform(-reach, reach)
    ra, dec = _ends(visit, angle, offset)
    return [Track(ra, dec, float(rng.uniform(*c.streak_mag)), c.streak_fwhm_arcsec,
                  bool(rng.uniform() < c.streak_catalogued))]


def _ends(visit: Visit, angle: float, offset: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """RA and Dec of the ends of a line at an angle [radian] and a distance [deg] from the boresight."""
    along = np.array([-LENGTH_DEG, LENGTH_DEG])
    xi = along * np.cos(angle) - offset * np.sin(angle)
    eta = along * np.sin(angle) + offset * np.cos(angle)
    ra, dec = Wcs((0.0, 0.0), (visit.ra, visit.dec), (1.0, 0.0, 0.0, 1.0)).sky(xi, eta)
    return (float(ra[0]), float(ra[1])), (float(dec[0]), float(dec[1]))


# --- satellites lit by the sun ---------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class Shell:
    """A pointing's view of a shell of satellites."""

    range_km: float
    sunlit: bool
    rate_deg_s: float           # typical speed across the sky
    per_deg2: float             # satellites, lit or not


def shell(visit: Visit, number: float, height_km: float) -> Shell:
    """The shell where a pointing meets it: distance, the Earth's cylindrical shadow, and how crowded it is."""
    up = almanac.zenith(visit.mjd_tai)
    toward = almanac.unit(visit.ra, visit.dec)
    r, orbit = almanac.EARTH_RADIUS_KM, almanac.EARTH_RADIUS_KM + height_km
    cosine = max(float(up @ toward), 0.05)
    distance = -r * cosine + np.sqrt((r * cosine) ** 2 + orbit**2 - r**2)
    place = r * up + distance * toward
    at_sun = almanac.sun(visit.mjd_tai)
    behind = float(place @ at_sun)
    dark = behind < 0.0 and float(np.linalg.norm(place - behind * at_sun)) < r
    slant = float(place @ toward) / orbit
    density = number / (4 * np.pi * orbit**2) * distance**2 / slant * np.radians(1.0) ** 2
    return Shell(float(distance), not dark, float(np.degrees(np.sqrt(GM / orbit) / distance)), float(density))


def expected_trails(config: SimulationConfig, visit: Visit) -> float:
    """Mean number of sunlit satellites that cross the circle about the field during an exposure."""
    c = config.artifacts
    seen = shell(visit, c.satellites, c.satellite_height_km)
    radius = np.sqrt(2.0) * field_radius_deg(config)
    swept = np.pi * radius**2 + 2 * radius * seen.rate_deg_s * visit.exposure_s
    return float(seen.sunlit * seen.per_deg2 * swept)


def _sunlit(config: SimulationConfig, visit: Visit, seed: int) -> list[Track]:
    c = config.artifacts
    if not c.satellites:
        return []
    rng, seen = stream(seed, "sunlit satellites", visit.visit), shell(visit, c.satellites, c.satellite_height_km)
    radius = np.sqrt(2.0) * field_radius_deg(config)
    width = np.degrees(PUPIL_M / seen.range_km / 1e3) * 3600.0
    out = []
    for _ in range(rng.poisson(expected_trails(config, visit))):
        ends = _ends(visit, rng.uniform(0, np.pi), rng.uniform(-radius, radius))
        apparent = rng.uniform(*c.satellite_mag) + 5.0 * np.log10(seen.range_km / 550.0)
        # a second's light falls on rate arcseconds of trail and `width` across; m is of the whole exposure
        surface = apparent + 2.5 * np.log10(visit.exposure_s * seen.rate_deg_s * 3600.0 * width)
        out.append(Track(*ends, float(surface), float(width), bool(rng.uniform() < c.streak_catalogued),
                         range_km=seen.range_km))
    return out


def aircraft_tracks(config: SimulationConfig, visit: Visit, seed: int) -> list[Track]:
    """An aircraft in some visits: steady lights and flashing ones, each a band minutes of arc wide."""
    rng, c = stream(seed, "aircraft", visit.visit), config.artifacts
    if rng.uniform() >= c.aircraft:
        return []
    reach = 0.35 * min(config.camera.nx, config.camera.ny) * config.camera.scale_arcsec / 3600
    angle, offset, mag = rng.uniform(0, np.pi), rng.uniform(-reach, reach), rng.uniform(*c.aircraft_mag)
    width = np.degrees(PUPIL_M / AIRCRAFT_KM / 1e3) * 3600.0
    lights = ((0.0, 0.0), (0.3 * width / 3600, 0.0), (0.15 * width / 3600, 240.0))     # offset [deg], period [arcsec]
    return [Track(*_ends(visit, angle, offset + beside), float(mag + (1.0 if flash else 0.0)), float(width), False,
                  "aircraft", AIRCRAFT_KM, flash) for beside, flash in lights]


# --- the cross-section of a trail ------------------------------------------------------------------------------------

def cross_section(track: Track, psf: TruePsf, scale_arcsec: float) -> tuple[np.ndarray, float]:
    """(table, step [pixel]): brightness beside the axis of a track at a range, over its `surface_mag`.

    The pupil's ring convolved with the PSF and summed along the track; its integral is that of a band of the ring's
    width.
    """
    outer = np.degrees(PUPIL_M / track.range_km / 1e3) * 3600.0 / scale_arcsec / 2.0
    step = max(0.25, round(outer / 400.0, 2))
    table = _ring_profile(round(outer, 3), step, psf.profile.transform.tobytes())
    return table * (track.fwhm_arcsec / scale_arcsec), step


@lru_cache(maxsize=8)
def _ring_profile(outer: float, step: float, psf_transform: bytes) -> np.ndarray:
    """Line integral of ring and PSF at multiples of `step`, of unit area: the cosine transform of the product."""
    k = np.linspace(0.0, K_MAX, K_NODES)
    transform = np.frombuffer(psf_transform) * _ring_transform(k * outer)
    used = int(np.searchsorted(-np.frombuffer(psf_transform), -1e-7)) + 2
    distance = np.arange(0.0, outer + 40.0, step)
    table = np.trapezoid(np.cos(np.outer(distance, k[:used])) * transform[:used], k[:used], axis=1) / np.pi
    table[-1] = 0.0
    return np.ascontiguousarray(np.maximum(table, 0.0))


def _ring_transform(t: np.ndarray) -> np.ndarray:
    """Transform of a uniform annulus of unit flux, outer radius 1 and inner OBSCURATION."""
    safe = np.maximum(t, 1e-9)
    disc, hole = 2 * j1(safe) / safe, 2 * j1(OBSCURATION * safe) / (OBSCURATION * safe)
    return np.asarray((disc - OBSCURATION**2 * hole) / (1.0 - OBSCURATION**2))
