"""What the weather and the night do to a visit: seeing, sky brightness, throughput, and the depth they give.

Formulas and constants: LSST SMTN-002 (syseng_throughputs v1.9, triple silver) and rubin_scheduler's seeing and m5
models. Seeing is a function of time (not a chain from visit to visit), so any visit can be drawn alone.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.exposure import AB_ZEROPOINT_NJY, Visit
from simulators import almanac
from simulators.almanac import SITE as SITE
from simulators.almanac import sidereal_deg as sidereal_deg
from simulators.config import CameraConfig, ConditionsConfig, SimulationConfig
from simulators.skybrightness import DARK_SKY as DARK_SKY
from simulators.skybrightness import K_ATM as K_ATM
from simulators.skybrightness import WAVELENGTH_NM as WAVELENGTH_NM
from simulators.skybrightness import sky_brightness
from simulators.streams import stream

BANDS: Final = "ugrizy"
ZP_T: Final = dict(zip(BANDS, (26.524237, 28.508375, 28.360838, 28.171396, 27.782264, 26.817819), strict=True))
FIDUCIAL_FWHM_EFF: Final = dict(zip(BANDS, (0.92, 0.87, 0.83, 0.80, 0.78, 0.76), strict=True))
SYSTEM_FWHM: Final = float(np.sqrt(0.25**2 + 0.08**2 + 0.30**2))   # telescope, optics, camera [arcsec]
SEEING_PARTS: Final = ((0.30, None), (0.55, 3.0 / 24), (0.15, 0.1 / 24))
# share of the variance and memory [day] of ln FWHM500: nightly, hours, minutes (near the v2.0 baseline's
# autocorrelation: 0.94 at 45 s, 0.66 at 30 min, 0.49 at 2 h)
MJD_ZERO: Final = 60000.0
SEEING_MODELS: Final = {
    "three_terms": SEEING_PARTS,
    # fit to the v2.0 baseline's from 45 s to 4 days: 0.94, 0.81 (9 min), 0.67 (30 min), 0.59 (1 h), 0.49 (2 h),
    # 0.36 (4 h; 0.40 there), 0.23 (8 h; 0.14 there, from few nights), 0.15 (1 d), 0.11 (4 d)
    "baseline": ((0.165, 10.0), (0.55, 3.9 / 24), (0.245, 0.19 / 24), (0.04, 20.0 / 86400))}


@dataclass(frozen=True, slots=True)
class Conditions:
    """The circumstances of one visit."""

    fwhm500: float          # atmospheric seeing at 500 nm and zenith [arcsec]
    fwhm_eff: float         # of the delivered PSF: 1/sum(P^2) = 2.266 (FWHMeff / scale)^2 [arcsec]
    airmass: float
    sky_mag: float          # [mag/arcsec^2]
    extinction: float       # clouds and throughput [mag]


def airmass(ra: float, dec: float, mjd_tai: float) -> float:
    """Secant of the zenith distance, at most 4."""
    hour = np.radians(sidereal_deg(mjd_tai) - ra)
    lat, dec = np.radians(SITE[1]), np.radians(dec)
    sine = np.sin(lat) * np.sin(dec) + np.cos(lat) * np.cos(dec) * np.cos(hour)
    return float(1.0 / max(sine, 0.25))


def transit(ra: float, night_mjd: int) -> float:
    """TAI MJD when `ra` crosses the meridian, nearest to local midnight of the night."""
    midnight = night_mjd + 0.0 - SITE[0] / 360.0
    hours = (ra - sidereal_deg(midnight) + 180.0) % 360.0 - 180.0
    return float(midnight + hours / 360.98564736629)


def noise_of_time(days: float, memory_d: float, rng: np.random.Generator, modes: int = 96) -> float:
    """A unit Gaussian process of time with covariance exp(-|dt| / memory): random Fourier features of its spectrum."""
    omega = rng.standard_cauchy(modes) / memory_d
    phase = rng.uniform(0, 2 * np.pi, modes)
    return float(np.sqrt(2.0 / modes) * np.sum(np.cos(omega * days + phase)))


def fwhm500(config: ConditionsConfig, mjd_tai: float, seed: int) -> float:
    """Seeing at 500 nm and zenith [arcsec]: lognormal, correlated over minutes, hours and the night."""
    night = int(np.floor(mjd_tai - 0.5))
    kind = "seeing" if config.seeing == "three_terms" else f"seeing {config.seeing}"
    total = 0.0
    for part, (share, memory) in enumerate(SEEING_MODELS[config.seeing]):
        across = memory is not None and memory > 1.0                # one process for all nights
        rng = stream(seed, f"{kind} {part}", 0 if across else night)
        since = mjd_tai - (MJD_ZERO if across else night)
        total += np.sqrt(share) * (rng.normal() if memory is None else noise_of_time(since, memory, rng))
    value = config.fwhm500_median * np.exp(config.fwhm500_ln_sigma * total)
    return float(np.clip(value, config.fwhm500_min, config.fwhm500_max))


def fwhm_eff(fwhm500_arcsec: float, band: str, airmass: float) -> float:
    """Effective FWHM of the delivered PSF [arcsec]."""
    system = airmass**0.6 * SYSTEM_FWHM
    atmosphere = fwhm500_arcsec * (500.0 / WAVELENGTH_NM[band]) ** 0.3 * airmass**0.6
    return float(1.16 * np.sqrt(system**2 + 1.04 * atmosphere**2))


def conditions(config: SimulationConfig, visit: Visit, seed: int) -> Conditions:
    """The circumstances of a visit, from its time and id alone."""
    c, rng = config.conditions, stream(seed, "conditions", visit.visit)
    x = visit.airmass
    seeing = fwhm500(c, visit.mjd_tai, seed)
    delivered = c.fwhm_eff if c.fwhm_eff is not None else fwhm_eff(seeing, visit.band, x)
    van_rhijn = 2.5 * np.log10(1.0 / np.sqrt(1.0 - 0.96 * (1.0 - 1.0 / x**2)))   # airglow layer
    zenith = next((mag for band, mag in c.sky_mag.items() if band == visit.band), DARK_SKY[visit.band])
    level = zenith - van_rhijn if c.sky == "given" else _modelled_sky(visit, zenith)
    sky = level + c.sky_scatter * rng.normal()
    cloud = c.clouds * rng.exponential() if c.clouds else 0.0
    return Conditions(seeing, delivered, x, float(sky), float(cloud + abs(c.zeropoint_scatter * rng.normal())))


def _modelled_sky(visit: Visit, dark: float) -> float:
    """Sky of the visit's place and time [mag/arcsec^2]; its airmass is the visit's, which a scenario may have set."""
    at = almanac.circumstances(visit.ra, visit.dec, visit.mjd_tai)
    altitude = float(np.degrees(np.arcsin(1.0 / visit.airmass)))
    return float(sky_brightness(visit.band, altitude, at.moon_distance, at.moon_alt, at.elongation, at.sun_alt,
                                dark=dark))


def zeropoint_e(band: str, airmass: float, exposure_s: float, extinction: float = 0.0) -> float:
    """AB magnitude that gives one electron in the exposure."""
    return float(ZP_T[band] - K_ATM[band] * (airmass - 1.0) + 2.5 * np.log10(exposure_s) - extinction)


def sky_electrons(band: str, sky_mag: float, exposure_s: float, scale_arcsec: float = 0.2) -> float:
    """Sky electrons per pixel; sky brightness is as seen at the telescope, so no extinction applies."""
    return float(10 ** (0.4 * (ZP_T[band] + K_ATM[band] - sky_mag)) * scale_arcsec**2 * exposure_s)


def m5(band: str, now: Conditions, exposure_s: float, camera: CameraConfig) -> float:
    """AB magnitude of a point source at S/N 5, its own noise included (SMTN-002)."""
    area = 2.266 * (now.fwhm_eff / camera.scale_arcsec) ** 2
    per_pixel = (sky_electrons(band, now.sky_mag, exposure_s, camera.scale_arcsec) + camera.dark * exposure_s
                 + camera.read_noise**2)
    electrons = 12.5 + np.sqrt(12.5**2 + 25.0 * area * per_pixel)
    return float(zeropoint_e(band, now.airmass, exposure_s, now.extinction) - 2.5 * np.log10(electrons))


def nominal_sigma_njy(band: str, exposure_s: float, camera: CameraConfig) -> float:
    """Flux error of a faint point source at the fiducial seeing, dark sky and zenith [nJy]."""
    depth = m5(band, Conditions(0.6, FIDUCIAL_FWHM_EFF[band], 1.0, DARK_SKY[band], 0.0), exposure_s, camera)
    return float(10 ** (0.4 * (AB_ZEROPOINT_NJY - depth)) / 5.0)
