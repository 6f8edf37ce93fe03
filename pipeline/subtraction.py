"""The pixel half up to the difference image, in three parts: `without_signature`, `align` and `difference_image`.

Nothing of what comes after is imported here, so that a change of detection or measurement leaves it as good as it was.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.calibrate import calibrate
from pipeline.calibrate.signature import remove_signature
from pipeline.difference import subtract
from pipeline.errors import InputError, NoWorkFound
from pipeline.images import Calibrated, Difference, Template
from pipeline.inject import inject
from pipeline.pixel_config import PixelConfig
from pipeline.steps import Step, Steps
from pipeline.template import warp
from schemas import mask
from schemas.exposure import Exposure
from schemas.raw import Calibrations, RawExposure


@dataclass(frozen=True, slots=True)
class Static:
    """What preload brings for the pixels; frozen for a run."""

    template: Template | None          # on its own grid; None where none exists: no work
    references: np.ndarray             # REFERENCE; empty: WCS and zeropoint are taken as given
    injections: np.ndarray | None = None   # INJECTION rows to add after calibration
    given_zeropoint: float = 31.4      # where there are no references
    calibrations: Calibrations | None = None   # of the detector, for raw exposures


def without_signature(exposure: Exposure | RawExposure, static: Static, config: PixelConfig) -> Steps[Exposure]:
    """A raw exposure's signature removed; what comes without one is given back as it is. InputError without
    calibrations for it.
    """
    if isinstance(exposure, Exposure):
        return exposure
    if static.calibrations is None:
        raise InputError(f"visit {exposure.visit.visit}: a raw exposure of detector {exposure.detector} needs "
                         "calibrations, got none")
    removed = remove_signature(exposure, static.calibrations, config.signature)
    yield Step("isr", exposure.amplifiers.size, left=removed)
    return removed.exposure


def align(exposure: Exposure, static: Static, config: PixelConfig, *,
          rng: np.random.Generator | None = None) -> Steps[tuple[Calibrated, Template]]:
    """Calibrate an exposure, and bring the template onto its grid."""
    n_pixels = exposure.image.size
    if static.template is None:
        raise NoWorkFound(f"visit {exposure.visit.visit}: no template in band {exposure.visit.band}")
    science = calibrate(exposure, static.references, config.calibrate, given_zeropoint=static.given_zeropoint)
    yield Step("calibrate", n_pixels, left=science)
    if static.injections is not None and len(static.injections):
        science = inject(science, static.injections, rng)
        yield Step("inject", len(static.injections), left=science)
    template = warp(static.template, science.wcs, science.shape, config.template)
    yield Step("warp", n_pixels, left=template)
    if not np.any((template.mask & mask.NO_DATA) == 0):
        raise NoWorkFound(f"visit {exposure.visit.visit}: the template does not overlap the exposure")
    return science, template


def difference_image(science: Calibrated, template: Template, config: PixelConfig) -> Steps[Difference]:
    """Take the template, on the science grid, off the science image."""
    difference = subtract(science, template, config.difference)
    yield Step("subtract", science.image.size, left=difference)
    return difference
