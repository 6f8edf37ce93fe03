"""What crosses from the observatory to the pipeline: a visit, its place on the sky, and one detector's exposure.

An `Exposure` carries what a camera knows and no more: pixels, the mask of saturated and known bad pixels, header
facts, and the pointing WCS with its error. No PSF, no zeropoint, no true WCS: no truth travels by type.

Conventions: pixel coordinates are 0-based with the centre of the first pixel at (0, 0), x along columns; arrays are
indexed [y, x]; times are TAI as MJD; angles in degrees; fluxes in nJy.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from schemas.wcs import Wcs

BANDS = "ugrizy"
AB_ZEROPOINT_NJY = 31.4  # AB magnitude of 1 nJy: 8.90 + 22.5


def magnitudes(flux_njy: np.ndarray | float) -> np.ndarray:
    """AB magnitudes of fluxes in nJy; NaN where the flux is not positive."""
    flux = np.asarray(flux_njy, float)
    safe = np.where(flux > 0, flux, 1.0)
    return np.where(flux > 0, AB_ZEROPOINT_NJY - 2.5 * np.log10(safe), np.nan)


def fluxes_njy(magnitude: np.ndarray | float) -> np.ndarray:
    """Fluxes in nJy of AB magnitudes."""
    return np.asarray(10.0 ** (0.4 * (AB_ZEROPOINT_NJY - np.asarray(magnitude, float))))


@dataclass(frozen=True, slots=True)
class Visit:
    """One pointing of the telescope with the shutter open."""

    visit: int                 # YYYYMMDD * 100000 + sequence number
    band: str                  # one of ugrizy
    ra: float                  # boresight [deg]
    dec: float
    rotation: float            # position angle of the detector's +y axis, East of North [deg]
    mjd_tai: float             # midpoint of the exposure
    exposure_s: float          # time the shutter is open
    airmass: float = 1.0
    observation_reason: str = ""
    target_name: str = ""

    @property
    def shutter_close_mjd_tai(self) -> float:
        """When the shutter closed; the latency metric `alert_timing_since_shutter_close` counts from here."""
        return self.mjd_tai + self.exposure_s / 2 / 86400


@dataclass(frozen=True, slots=True)
class Box:
    """A region of the sky between two meridians and two parallels, across RA 0 and around a pole if need be."""

    ra_min: float     # [deg] in [0, 360); ra_min > ra_max means the box crosses RA 0
    ra_max: float
    dec_min: float
    dec_max: float

    @classmethod
    def around(cls, ra: np.ndarray, dec: np.ndarray, margin_arcsec: float = 0.0) -> Self:
        """The smallest box around positions (less than 180 deg apart), padded on every side."""
        ra, dec = np.atleast_1d(np.asarray(ra, float)), np.atleast_1d(np.asarray(dec, float))
        margin = margin_arcsec / 3600
        low, high = max(-90.0, float(dec.min()) - margin), min(90.0, float(dec.max()) + margin)
        span = (ra - ra[0] + 180.0) % 360.0 - 180.0
        if low <= -90.0 or high >= 90.0 or np.ptp(span) > 180.0:
            return cls(0.0, 360.0, low, high)
        wide = margin / np.cos(np.radians(max(abs(low), abs(high))))
        if np.ptp(span) + 2 * wide >= 360.0:
            return cls(0.0, 360.0, low, high)
        return cls(float((ra[0] + span.min() - wide) % 360.0), float((ra[0] + span.max() + wide) % 360.0), low, high)

    def padded(self, margin_arcsec: float) -> Self:
        """The box with a margin on every side."""
        margin = margin_arcsec / 3600
        low, high = max(-90.0, self.dec_min - margin), min(90.0, self.dec_max + margin)
        width = (self.ra_max - self.ra_min) % 360.0 if self.ra_max - self.ra_min < 360.0 else 360.0
        if low <= -90.0 or high >= 90.0:
            return type(self)(0.0, 360.0, low, high)
        wide = margin / np.cos(np.radians(max(abs(low), abs(high))))
        if width + 2 * wide >= 360.0:
            return type(self)(0.0, 360.0, low, high)
        return type(self)(float((self.ra_min - wide) % 360.0), float((self.ra_max + wide) % 360.0), low, high)

    def contains(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Which positions lie inside, borders included."""
        ra, dec = np.asarray(ra, float) % 360.0, np.asarray(dec, float)
        inside = (dec >= self.dec_min) & (dec <= self.dec_max)
        if self.ra_min > self.ra_max:
            return np.asarray(inside & ((ra >= self.ra_min) | (ra <= self.ra_max)))
        return np.asarray(inside & (ra >= self.ra_min) & (ra <= self.ra_max))


@dataclass(frozen=True, slots=True)
class Exposure:
    """One detector's pixels of one visit, as they leave signature removal."""

    visit: Visit
    detector: int
    image: np.ndarray          # (ny, nx) float32 [ADU], sky included
    mask: np.ndarray           # (ny, nx) int32: BAD (known defects) and SAT alone, bits of `schemas.mask`
    wcs: Wcs                   # from the pointing: wrong by up to wcs_error_arcsec and wcs_error_deg of rotation
    gain: float                # electrons per ADU
    read_noise: float          # [electrons]
    saturation: float          # [ADU]
    wcs_error_arcsec: float = 5.0
    wcs_error_deg: float = 0.1
    pedestal: float = 0.0      # sky level already subtracted [ADU]; NaN where unknown: noise is then measured

    def __post_init__(self) -> None:
        if self.image.ndim != 2 or self.image.shape != self.mask.shape:
            raise ValueError(f"image and mask must have one two-dimensional shape, got {self.image.shape} "
                             f"and {self.mask.shape}")
        if not self.gain > 0:
            raise ValueError(f"gain must be positive, got {self.gain}")

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]
