"""Differential chromatic refraction: where a source's colour puts it, and how it lengthens the PSF.

The atmosphere lifts blue light higher. A source whose spectrum rises to the blue has its mean wavelength in the band
below the band's own and lies nearer to the zenith than one that is flat in f_nu; Rubin has no corrector, and
calibration against mean stars leaves what differs from the mean. Within the band the same dispersion draws every image
out. TRUTH has a source where its light falls, not where it would without an atmosphere.
"""

from typing import Final

import numpy as np

from schemas.exposure import BANDS, Visit
from simulators.almanac import zenith_angle
from simulators.conditions import WAVELENGTH_NM

PRESSURE_MMHG: Final = 563.0       # 750 hPa on Cerro Pachon
TEMPERATURE_C: Final = 10.0
WATER_MMHG: Final = 2.0
# rms width of each band's photon rate for a flat f_nu [nm], of GalSim's LSST bandpasses
WIDTH_NM: Final = dict(zip("ugrizy", (19.9, 42.7, 40.7, 37.6, 30.5, 33.5), strict=True))


def index_minus_one(wavelength_nm: np.ndarray | float) -> np.ndarray:
    """n - 1 of the air at the site (Filippenko 1982, PASP 94, 715, equations 1 to 3)."""
    square = (1e3 / np.asarray(wavelength_nm, float)) ** 2         # [um^-2]
    dry = 64.328 + 29498.1 / (146.0 - square) + 255.4 / (41.0 - square)
    dry *= PRESSURE_MMHG * (1.0 + (1.049 - 0.0157 * TEMPERATURE_C) * 1e-6 * PRESSURE_MMHG) / (
        720.883 * (1.0 + 0.003661 * TEMPERATURE_C))
    wet = (0.0624 - 0.000680 * square) / (1.0 + 0.003661 * TEMPERATURE_C) * WATER_MMHG
    return np.asarray((dry - wet) * 1e-6)


def lift_arcsec(wavelength_nm: np.ndarray | float, airmass: float) -> np.ndarray:
    """How far light is lifted towards the zenith [arcsec]; the plane-parallel form, good to 1 % within airmass 2."""
    return np.asarray(index_minus_one(wavelength_nm) * np.sqrt(max(airmass**2 - 1.0, 0.0)) * 206264.806)


def dispersion(band: str, airmass: float) -> float:
    """Change of the lift with wavelength [arcsec per nm], negative, at the band's effective wavelength."""
    middle = WAVELENGTH_NM[band]
    low, high = lift_arcsec(np.array([middle - 5.0, middle + 5.0]), airmass)
    return float((high - low) / 10.0)


def spectral_index(flux: np.ndarray, band: str) -> np.ndarray:
    """d ln f_nu / d ln wavelength across a band, from (n, 6) fluxes in ugrizy; 0 where a flux is not positive."""
    b = BANDS.index(band)
    low, high = max(b - 1, 0), min(b + 1, 5)
    ratio = np.log(WAVELENGTH_NM[BANDS[high]] / WAVELENGTH_NM[BANDS[low]])
    good = (flux[:, low] > 0) & (flux[:, high] > 0)
    safe = np.where(good[:, None], flux, 1.0)
    return np.asarray(np.where(good, np.clip(np.log(safe[:, high] / safe[:, low]) / ratio, -8.0, 12.0), 0.0))


def lifts(flux: np.ndarray, visit: Visit) -> np.ndarray:
    """How far sources of (n, 6) fluxes lie towards the zenith of one of flat f_nu [arcsec]: positive for blue ones."""
    moved_nm = spectral_index(flux, visit.band) * WIDTH_NM[visit.band] ** 2 / WAVELENGTH_NM[visit.band]
    return dispersion(visit.band, visit.airmass) * moved_nm


def displaced(ra: np.ndarray, dec: np.ndarray, lift: np.ndarray, visit: Visit) -> tuple[np.ndarray, np.ndarray]:
    """RA, Dec [deg] of sources moved towards the zenith."""
    angle = np.radians(zenith_angle(visit.ra, visit.dec, visit.mjd_tai))
    return ((ra + lift * np.sin(angle) / 3600.0 / np.cos(np.radians(dec))) % 360.0,
            dec + lift * np.cos(angle) / 3600.0)


def elongation(visit: Visit, fwhm_eff_arcsec: float) -> tuple[float, float, float]:
    """(stretch, g1, g2): what the dispersion in the band does to the PSF, shear along the pixel axes."""
    spread = dispersion(visit.band, visit.airmass) * WIDTH_NM[visit.band]           # rms [arcsec]
    ratio = (spread / (fwhm_eff_arcsec / 2.3548)) ** 2                              # of variances
    size = (1.0 + ratio) ** 0.25                                                    # equal area
    axes = np.sqrt(1.0 + ratio)                                                     # major over minor
    shear = (axes - 1.0) / (axes + 1.0)
    # +y points `rotation` East of North and +x to the West of that: an angle from +x towards +y
    angle = np.radians(90.0 + zenith_angle(visit.ra, visit.dec, visit.mjd_tai) - visit.rotation)
    return float(size), float(shear * np.cos(2 * angle)), float(shear * np.sin(2 * angle))
