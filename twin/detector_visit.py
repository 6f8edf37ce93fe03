"""The pixel half of one detector-visit as the twin does it: measured, inspected at the true places, with what it used.

What is imported here decides what a cached result depends on: no scenario, no catalogue half, no cache.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import NoWorkFound, PipelineError
from pipeline.images import Calibrated, Template
from pipeline.pixel_config import PixelConfig
from pipeline.pixel_half import Measured, Static, log_row, measure_difference
from pipeline.subtraction import align, without_signature
from schemas.exposure import Exposure, Visit
from schemas.measures import STAMP, STAMP_SIDE, empty
from simulators.observe import Exposed, Facts
from twin import history, inspect
from twin.differencing import Differenced, make_difference
from twin.noting import Notes, Worked
from twin.observatory import Observatory
from twin.stars import stars

Make = Callable[[Exposure, Calibrated, Template, PixelConfig], Differenced]


@dataclass(frozen=True, slots=True)
class Half:
    """What comes back: the measured sources or why there are none, and the truth."""

    measured: Measured | None
    status: str                  # done | no_work | failed
    reason: str
    log: np.ndarray              # EXPOSURE_LOG, one row, true values filled in
    steps: tuple[Worked, ...]
    truth: np.ndarray            # TRUTH, inspected
    truth_pixels: np.ndarray
    stamps: np.ndarray           # STAMP
    trace: np.ndarray            # TRACE of its Steps
    stars: np.ndarray            # STAR_TRUTH


@dataclass(frozen=True, slots=True)
class Seen:
    """A half whose pixels are still at hand, and what is kept beside it."""

    half: Half                   # `images` and the pixels are in memory
    stamps: np.ndarray           # (n, 3, side, side) float32: the rows of `half.stamps`


def measure(here: Observatory, visit: Visit, detector: int, template: Template | None, config: PixelConfig,
            n_stamps: int, make: Make = make_difference) -> Seen:
    """Expose and measure; a failure of the pipeline is a result with its reason. `make` gives the difference image."""
    exposed = here.expose(visit, detector)
    taken = exposed.exposure
    static = Static(template, history.references(here, taken), calibrations=here.calibrations(visit, detector))
    notes = Notes(visit.visit, detector, taken.wcs)
    try:
        exposure = notes.run(without_signature(taken, static, config))
        science, warped = notes.run(align(exposure, static, config))
        made = make(exposure, science, warped, config)
        notes.take(made.steps, made.trace)
        measured = notes.run(measure_difference(exposure, science, warped, made.difference, config))
    except PipelineError as error:
        status = "no_work" if isinstance(error, NoWorkFound) else "failed"
        log = _with_truth(log_row(taken), exposed, None)
        return Seen(Half(None, status, str(error), log, notes.steps, exposed.truth, exposed.truth_pixels,
                         empty(STAMP), notes.trace, stars(here.sky, visit, exposed, None)),
                    np.zeros((0, 3, STAMP_SIDE, STAMP_SIDE), np.float32))
    images = measured.images
    assert images is not None
    truth = inspect.inspect(exposed.truth, measured, images)
    index, stamps = inspect.stamps(truth, measured, images, n_stamps)
    log = _with_truth(measured.log, exposed, measured)
    return Seen(Half(replace(measured, log=log), "done", "", log, notes.steps, truth, exposed.truth_pixels, index,
                     notes.trace, stars(here.sky, visit, exposed, images.science)), stamps)


def true_values(facts: Facts) -> dict[str, float]:
    """What EXPOSURE_LOG has of an exposure's true circumstances."""
    return {"true_fwhm_arcsec": facts.conditions.fwhm_eff, "true_zeropoint": facts.zeropoint,
            "true_psf_sigma_px": facts.psf_sigma_px, "true_sky_adu": facts.sky_adu, "true_m5": facts.m5}


def _with_truth(log: np.ndarray, exposed: Exposed, measured: Measured | None) -> np.ndarray:
    """The log row with true values, and how far the found WCS is from the true one."""
    row, facts = log.copy(), exposed.facts
    values = true_values(facts)
    if measured is not None:
        ny, nx = measured.shape
        x, y = np.meshgrid(np.linspace(0, nx - 1, 15), np.linspace(0, ny - 1, 15))
        found_x, found_y = measured.wcs.pixels(*facts.wcs.sky(x, y))
        off = np.hypot(found_x - x, found_y - y) * measured.wcs.scale_arcsec
        values |= {"wcs_rms_arcsec": float(np.sqrt(np.mean(off**2))), "wcs_max_arcsec": float(off.max())}
    for name, value in values.items():
        row[name] = value
    return row
