"""The pixel half of one detector-visit as a job for any process: expose, measure, inspect, put the pixels aside."""

import contextlib
import os
import platform as machine
import resource
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from time import thread_time

import numpy as np

from pipeline.errors import NoWorkFound, PipelineError
from pipeline.images import Template
from pipeline.ingest import write_template
from pipeline.pixel_half import Images, Measured, Static, log_row, measure_sources
from pipeline.pixels import PixelsOnDisk
from pipeline.steps import Step, run
from schemas.exposure import Visit
from schemas.measures import STAMP, empty
from simulators.observe import Exposed
from twin import history, inspect
from twin.observatory import Observatory
from twin.scenario import Scenario, read_scenario
from twin.stars import stars
from twin.trace import PixelTracer


@dataclass(frozen=True, slots=True)
class Job:
    """One detector-visit: everything its pixel half depends on, beside the scenario of the run folder."""

    folder: Path
    visit: Visit
    detector: int
    keep_images: bool = False


@dataclass(frozen=True, slots=True)
class Worked:
    """A Step of a pixel half with what it used."""

    step: Step
    cpu_s: float
    peak_mb: float


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


@lru_cache(maxsize=2)
def observatory(folder: Path) -> Observatory:
    """The observatory of a run folder's scenario, made once per process."""
    return Observatory(run_scenario(folder), folder / "templates" / "masks")


def run_scenario(folder: Path) -> Scenario:
    """The scenario as run."""
    return read_scenario(folder / "scenario.toml")


@lru_cache(maxsize=1)
def _template(folder: Path, band: str) -> Template | None:
    return history.load_template(folder, band)


def template_job(folder: Path, band: str) -> str:
    """Make the template of a band."""
    return history.make_template(observatory(folder), band, folder)


def pixel_half(job: Job) -> Half:
    """Expose and measure; a failure of the pipeline is a result with its reason."""
    here = observatory(job.folder)
    exposed = here.expose(job.visit, job.detector)
    exposure = exposed.exposure
    static = Static(_template(job.folder, job.visit.band), history.references(here, exposure))
    steps: list[Worked] = []
    tracer = PixelTracer(job.visit.visit, job.detector, exposure.wcs)
    try:
        measured = run(measure_sources(exposure, static, here.scenario.pipeline), _noting(steps, tracer))
    except PipelineError as error:
        status = "no_work" if isinstance(error, NoWorkFound) else "failed"
        log = _with_truth(log_row(exposure), exposed, None)
        return Half(None, status, str(error), log, tuple(steps), exposed.truth, exposed.truth_pixels, empty(STAMP),
                    tracer.rows(), stars(here.sky, job.visit, exposed, None))
    images = measured.images
    assert images is not None
    truth = inspect.inspect(exposed.truth, measured, images)
    index, stamps = inspect.stamps(truth, measured, images, here.scenario.recorder.stamps_per_visit)
    _save_stamps(job, stamps)
    if job.keep_images:
        _save_images(job, images)
    pixels = PixelsOnDisk.write(scratch(job), images.difference, images.science, measured.wcs)
    log = _with_truth(measured.log, exposed, measured)
    return Half(replace(measured, pixels=pixels, images=None, log=log), "done", "", log, tuple(steps), truth,
                exposed.truth_pixels, index, tracer.rows(), stars(here.sky, job.visit, exposed, images.science))


def scratch(job: Job) -> Path:
    """Where the pixels of a detector-visit wait for forced photometry."""
    return job.folder / "scratch" / f"{job.visit.visit:d}_{job.detector:d}"


def _noting(steps: list[Worked], trace: Callable[[Step], None] = lambda step: None) -> Callable[[Step], None]:
    """Notes each Step with its CPU seconds and the process's peak memory while it worked; `trace` looks, untimed."""
    last = thread_time()
    _reset_peak()

    def note(step: Step) -> None:
        nonlocal last
        now = thread_time()
        steps.append(Worked(step.bare(), now - last, _peak_mb()))
        trace(step)
        _reset_peak()
        last = thread_time()

    return note


def _reset_peak() -> None:
    """Let the kernel forget the peak; where it cannot, peaks are those of the process so far."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _with_truth(log: np.ndarray, exposed: Exposed, measured: Measured | None) -> np.ndarray:
    """The log row with true values, and how far the found WCS is from the true one."""
    row, facts = log.copy(), exposed.facts
    values = {"true_fwhm_arcsec": facts.conditions.fwhm_eff, "true_zeropoint": facts.zeropoint,
              "true_psf_sigma_px": float(np.sqrt(facts.psf.effective_area / (4 * np.pi))),
              "true_sky_adu": facts.sky_adu, "true_m5": facts.m5}
    if measured is not None:
        ny, nx = measured.shape
        x, y = np.meshgrid(np.linspace(0, nx - 1, 15), np.linspace(0, ny - 1, 15))
        found_x, found_y = measured.wcs.pixels(*facts.wcs.sky(x, y))
        off = np.hypot(found_x - x, found_y - y) * measured.wcs.scale_arcsec
        values |= {"wcs_rms_arcsec": float(np.sqrt(np.mean(off**2))), "wcs_max_arcsec": float(off.max())}
    for name, value in values.items():
        row[name] = value
    return row


def _save_stamps(job: Job, stamps: np.ndarray) -> None:
    folder = job.folder / "stamps"
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{job.visit.visit:d}_{job.detector:d}.npy", stamps, allow_pickle=False)


def _save_images(job: Job, images: Images) -> None:
    """Calibrated, difference and template images as FITS with WCS, mask, variance and PSF."""
    science, template, difference = images.science, images.template, images.difference
    planes = {"calibrated": Template(template.band, science.image, science.variance, science.mask, science.psf,
                                     science.wcs, np.ones(science.shape, np.int16), science.noise_acf,
                                     (science.visit.visit,)),
              "template": template,
              "difference": Template(template.band, difference.image, difference.variance, difference.mask,
                                     difference.psf, science.wcs, np.ones(science.shape, np.int16))}
    folder = job.folder / "images"
    folder.mkdir(exist_ok=True)
    for kind, plane in planes.items():
        write_template(folder / f"{job.visit.visit:d}_{job.detector:d}_{kind}.fits", plane)


def machine_name() -> str:
    """The processor's name and its number of cores."""
    name = machine.processor() or machine.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores"
