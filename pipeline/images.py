"""The images that pass between stages of the pixel half; all calibrated to nJy."""

from dataclasses import dataclass, field

import numpy as np

from pipeline.psf import Psf
from schemas.exposure import Visit
from schemas.wcs import Wcs


@dataclass(frozen=True, slots=True)
class Calibration:
    """What calibration found, as the exposure summary of the real system names it."""

    zeropoint: float              # AB magnitude of 1 ADU in this exposure
    sky_adu: float                # median background [ADU]
    sky_noise_adu: float          # per pixel, blank sky [ADU]
    n_stars: int
    n_psf_star: int
    n_matches: int                # with the reference catalogue; 0 where WCS and zeropoint were given
    astrom_offset_mean: float     # [arcsec]
    astrom_offset_std: float      # [arcsec]
    zeropoint_err: float          # [mag]
    variance_factor: float        # measured over modelled variance on blank sky; the planes are scaled by it
    noise_correlation: float      # lag-1 correlation of blank-sky noise, mean of x and y
    wcs_given: bool = False       # taken from the header: no reference catalogue
    zeropoint_given: bool = False


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A science exposure with sky subtracted and everything known that calibration finds."""

    visit: Visit
    detector: int
    image: np.ndarray             # (ny, nx) float32 [nJy], sky subtracted
    variance: np.ndarray          # (ny, nx) float32 [nJy^2], source noise included
    mask: np.ndarray              # (ny, nx) int32, bits of `schemas.mask`
    psf: Psf
    wcs: Wcs
    stars: np.ndarray             # STAR
    calibration: Calibration
    gain_njy: float               # electrons per nJy
    saturation_njy: float
    noise_acf: np.ndarray = field(default_factory=lambda: np.ones((1, 1)))
    # (2k+1, 2k+1) autocorrelation of blank-sky noise, 1 at the centre; (1, 1) for white noise

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True, slots=True)
class Template:
    """A deep image of the static sky, on a grid of its own or warped to a science exposure's."""

    band: str
    image: np.ndarray             # (ny, nx) float32 [nJy]
    variance: np.ndarray          # (ny, nx) float32 [nJy^2], per pixel, correlations aside
    mask: np.ndarray              # (ny, nx) int32
    psf: Psf
    wcs: Wcs
    n_inputs: np.ndarray          # (ny, nx) int16: visits that contributed to each pixel
    noise_acf: np.ndarray = field(default_factory=lambda: np.ones((1, 1)))
    inputs: tuple[int, ...] = ()  # visit ids
    beyond: np.ndarray | None = None
    # (ny + 2m, nx + 2m) float32 [nJy]: the image with m pixels around it, NaN without data; what convolution needs at
    # the border of a science grid

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True, slots=True)
class Difference:
    """Science minus matched template, its noise whitened, with the PSF that a new source has in it."""

    image: np.ndarray             # (ny, nx) float32 [nJy]
    variance: np.ndarray          # (ny, nx) float32 [nJy^2]
    mask: np.ndarray              # (ny, nx) int32
    psf: Psf
    matched: np.ndarray           # (ny, nx) float32 [nJy]: the template convolved to the science PSF, background and
    #                               flux scale fitted
    matched_variance: np.ndarray  # (ny, nx) float32 [nJy^2]
    matched_psf: Psf              # of `matched`, and so of the science image where the template was convolved
    noise_scale: float            # matched-filter noise over that of white noise of this variance: 1 when whitened
    lag1: float                   # measured lag-1 noise correlation on blank sky
    n_kernel_stars: int
    kernel_sum: float             # flux scale between the two calibrations, near 1
    convolved: str = "template"   # which side was convolved
    uncorrelated: bool = True     # whether decorrelation was applied


@dataclass(frozen=True, slots=True)
class Detections:
    """Footprints and peaks on a difference image, before measurement."""

    difference: Difference        # background-subtracted, with CR, STREAK, DETECTED and DETECTED_NEGATIVE planes set
    significance: np.ndarray      # (ny, nx) float32: matched-filter S/N, signed
    labels: np.ndarray            # (ny, nx) int32: 0 outside, else index + 1 of the merged footprint
    peaks: np.ndarray             # PEAK rows, one per footprint: its most significant peak first in order of labels
    snr_rms: float                # rms of `significance` on blank sky
    rejected: np.ndarray          # PEAK rows refused before measurement (peak on NO_DATA, BAD, SAT, EDGE)


PEAK = np.dtype([("x", "i4"), ("y", "i4"), ("snr", "f4"), ("positive", "?"), ("negative", "?"), ("area", "i4"),
                 ("x0", "i4"), ("y0", "i4"), ("x1", "i4"), ("y1", "i4"), ("mask", "i4"), ("sky_source", "?"),
                 ("positive_x", "f4"), ("positive_y", "f4"), ("negative_x", "f4"), ("negative_y", "f4")])


@dataclass(frozen=True, slots=True)
class Cutouts:
    """Square stamps of one kind around every source, all of one side per source."""

    image: tuple[np.ndarray, ...]       # n of (s, s) float32 [nJy]
    variance: tuple[np.ndarray, ...]
    psf: np.ndarray                     # (m, m) float64: the image's central PSF, as deployed (useAveragePsf)
    mask: tuple[np.ndarray, ...] = ()   # n of (s, s) int32; alerts hold them in the paper alone

    def __len__(self) -> int:
        return len(self.image)
