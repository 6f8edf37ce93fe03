"""The pixel half: one detector's exposure to measured, scored sources with their cutouts; pure, no clock, no port.

Nothing of the catalogue half is imported here, so that a change there leaves what this half computed as good as it was.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipeline.cutouts import cut
from pipeline.detect import detect
from pipeline.footprint import footprint_box
from pipeline.images import Calibrated, Calibration, Cutouts, Detections, Difference, Template
from pipeline.measure import measure, quality_cut
from pipeline.pixel_config import PixelConfig
from pipeline.pixels import PixelsInMemory
from pipeline.psf import Psf
from pipeline.reasons import rejections
from pipeline.reliability import VERSION, score
from pipeline.steps import Step, Steps
from pipeline.subtraction import Static, align, difference_image, without_signature
from schemas import mask, table
from schemas.exposure import Box, Exposure, Visit, magnitudes
from schemas.measures import EXPOSURE_LOG, REJECTION, empty
from schemas.raw import RawExposure
from schemas.wcs import Wcs

if TYPE_CHECKING:
    from pipeline.ports import Pixels


@dataclass(frozen=True, slots=True)
class Images:
    """The planes that the pixel half worked on, for who wants to look: the twin's inspection, `--keep images`."""

    science: Calibrated
    template: Template                 # on the science grid, before matching
    difference: Difference             # with every mask plane that detection sets
    significance: np.ndarray           # (ny, nx) float32: matched-filter S/N


@dataclass(frozen=True, slots=True)
class Measured:
    """What the pixel half yields."""

    visit: Visit
    detector: int
    sources: np.ndarray                # MEASUREMENT, scored, unfiltered
    wcs: Wcs
    shape: tuple[int, int]
    box: Box                           # the detector on the sky
    calibration: Calibration
    science: Cutouts                   # one stamp per source, of side bboxSize clamped to 30..102
    template: Cutouts
    difference: Cutouts
    pixels: "Pixels"                   # kept for forced photometry
    log: np.ndarray                    # EXPOSURE_LOG, one row: what the pixel half knows of it
    images: Images | None = None       # let go before the catalogue half, which has `pixels`
    rejected: np.ndarray = field(default_factory=lambda: empty(REJECTION))   # by the pixel half's own cuts
    reliability_version: str = ""      # of the model that scored the sources


def measure_sources(exposure: Exposure | RawExposure, static: Static, config: PixelConfig, *,
                    rng: np.random.Generator | None = None) -> Steps[Measured]:
    """The pixel half: from one detector's exposure to measured and scored sources with their cutouts.

    `rng` is asked only for the photon noise of injected sources. NoWorkFound without a template that overlaps;
    AlgorithmError where the data defeat a stage.
    """
    plain = yield from without_signature(exposure, static, config)
    science, template = yield from align(plain, static, config, rng=rng)
    difference = yield from difference_image(science, template, config)
    return (yield from measure_difference(plain, science, template, difference, config))


def measure_difference(exposure: Exposure, science: Calibrated, template: Template, difference: Difference,
                       config: PixelConfig) -> Steps[Measured]:
    """The pixel half from the difference image on."""
    detections = detect(difference, science, config.detect)
    yield Step("detect", exposure.image.size, left=detections)
    difference = detections.difference
    measured = measure(detections, science, template, config.measure)
    kept, reasons = quality_cut(measured)
    sources = table.take(measured, np.flatnonzero(kept))
    rejected = rejections(measured, reasons, "measure", exposure.visit.visit, exposure.detector, science.wcs)
    yield Step("measure", len(measured), left=sources)
    # the template's are warped, not matched, as deployed
    stamps = (cut(science.image, science.variance, science.psf, sources, mask=science.mask),
              cut(template.image, template.variance, template.psf, sources, mask=template.mask),
              cut(difference.image, difference.variance, difference.psf, sources, mask=difference.mask))
    yield Step("cutouts", len(sources), left=stamps)
    sources = sources.copy()
    sources["reliability"] = score(sources, *stamps, config.reliability)
    yield Step("reliability", len(sources), left=sources)
    return Measured(
        visit=exposure.visit, detector=exposure.detector, sources=sources, wcs=science.wcs, shape=science.shape,
        box=footprint_box(science.wcs, science.shape), calibration=science.calibration, science=stamps[0],
        template=stamps[1], difference=stamps[2], pixels=PixelsInMemory(difference, science, science.wcs),
        log=_log(exposure, science, template, detections, len(sources)), rejected=rejected,
        images=Images(science, template, difference, detections.significance), reliability_version=VERSION)


def log_row(exposure: Exposure | RawExposure) -> np.ndarray:
    """EXPOSURE_LOG, one row: what is known of an exposure before anything is computed."""
    visit, row = exposure.visit, empty(EXPOSURE_LOG, 1)
    facts = {"visit": visit.visit, "detector": exposure.detector, "band": visit.band.encode(), "ra": visit.ra,
             "midpointMjdTai": visit.mjd_tai, "exposure_s": visit.exposure_s, "nx": exposure.shape[1],
             "ny": exposure.shape[0], "dec": visit.dec, "airmass": visit.airmass, "fidelity": b"pixels",
             "shutter_close_mjd_tai": visit.shutter_close_mjd_tai}
    for name, value in facts.items():
        row[name] = value
    return row


def _log(exposure: Exposure, science: Calibrated, template: Template, detections: Detections,
         n_detected: int) -> np.ndarray:
    """The EXPOSURE_LOG row as far as the pixel half knows it."""
    row, found, difference = log_row(exposure), science.calibration, detections.difference
    scale = science.wcs.scale_arcsec
    covered = (template.mask & mask.NO_DATA) == 0
    usable = (difference.mask & (mask.UNUSABLE | mask.STREAK | mask.CR)) == 0
    facts = {"n_detected": n_detected, "usable_px": int(usable.sum()),
             "fwhm_arcsec": science.psf.fwhm(scale), "psf_sigma_px": science.psf.sigma, "zeropoint": found.zeropoint,
             "sky_adu": found.sky_adu, "sky_noise_adu": found.sky_noise_adu,
             "mag_lim": _five_sigma(science.variance, science.psf, science.mask),
             "astrom_offset_mean": found.astrom_offset_mean, "astrom_offset_std": found.astrom_offset_std,
             "n_psf_star": found.n_psf_star, "n_kernel_star": difference.n_kernel_stars,
             "noise_correlation": difference.lag1, "snr_rms": detections.snr_rms,
             "template_fwhm_arcsec": template.psf.fwhm(template.wcs.scale_arcsec),
             "template_coverage": float(covered.mean()), "n_star": found.n_stars,
             "template_mag_lim": _five_sigma(template.variance, template.psf, template.mask, template.noise_acf),
             "template_high_variance": float(np.mean((template.mask[covered] & mask.HIGH_VARIANCE) != 0)),
             "template_n_inputs": float(np.median(template.n_inputs[covered])),
             "diffim_mag_lim": _five_sigma(difference.variance, difference.psf, difference.mask)}
    for name, value in facts.items():
        row[name] = value
    return row


def _five_sigma(variance: np.ndarray, psf: Psf, bits: np.ndarray, acf: np.ndarray | None = None) -> float:
    """AB magnitude of a point source of S/N 5 on a typical pixel; `acf` of the noise where it is not white."""
    good = (bits & mask.UNUSABLE) == 0
    if not good.any():
        return float("nan")
    scale = 1.0 if acf is None else correlated_noise(psf.central, acf)
    return float(magnitudes(5.0 * np.sqrt(float(np.median(variance[good])) * psf.effective_area * scale)))


def correlated_noise(psf: np.ndarray, acf: np.ndarray) -> float:
    """Variance of a matched filter's flux over that in white noise: sum over lags of acf times the PSF's own."""
    k, side = acf.shape[0] // 2, psf.shape[0]
    padded = np.pad(psf, k)
    own = np.array([[np.sum(psf * padded[k + j:k + j + side, k + i:k + i + side]) for i in range(-k, k + 1)]
                    for j in range(-k, k + 1)])
    return float(np.sum(own * acf) / np.sum(psf**2))


__all__ = ["Images", "Measured", "Static", "log_row", "measure_difference", "measure_sources"]
