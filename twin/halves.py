"""The pixel half of one detector-visit as a job for any process: computed or recalled, its pixels put aside."""

import os
import platform as machine
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from pipeline.images import Template
from pipeline.ingest import write_template
from pipeline.pixel_half import Images
from pipeline.pixels import PixelsOnDisk
from schemas.exposure import Visit
from twin import history
from twin.cache import Cache
from twin.detector_visit import Half, Seen, measure
from twin.differencing import make_difference
from twin.noting import Worked
from twin.observatory import Observatory
from twin.recall import Remembering, keep_half, keep_template, recall_half, recall_template
from twin.scenario import Scenario, read_scenario


@dataclass(frozen=True, slots=True)
class Job:
    """One detector-visit: everything its pixel half depends on, beside the scenario of the run folder."""

    folder: Path
    visit: Visit
    detector: int
    keep_images: bool = False
    cache: Cache | None = None


def observatory(folder: Path, cache: Cache | None = None) -> Observatory:
    """The observatory of a run folder's scenario, made once per process."""
    return _observatory(folder) if cache is None else remembering(folder, cache)


@lru_cache(maxsize=2)
def _observatory(folder: Path) -> Observatory:
    return Observatory(run_scenario(folder), folder / "templates" / "masks")


@lru_cache(maxsize=2)
def remembering(folder: Path, cache: Cache) -> Remembering:
    """The observatory of a run folder's scenario that draws nothing twice, made once per process."""
    return Remembering(run_scenario(folder), cache)


def run_scenario(folder: Path) -> Scenario:
    """The scenario as run."""
    return read_scenario(folder / "scenario.toml")


@lru_cache(maxsize=1)
def _template(folder: Path, band: str) -> Template | None:
    return history.load_template(folder, band)


def template_job(folder: Path, band: str, cache: Cache | None = None) -> str:
    """Make the template of a band, or find it in the cache; gives a line that says what it is made of."""
    found = recalled_template(folder, band, cache)
    if found is not None:
        return found
    path = history.template_path(folder, band)
    if cache is None:
        return history.make_template(_observatory(folder), band, path)
    return keep_template(remembering(folder, cache), band, path)


def template_of(folder: Path, band: str, pool: Executor, cache: Cache | None) -> Future[str]:
    """What the template of a band is made of: at once where the cache has it."""
    found = recalled_template(folder, band, cache)
    if found is None:
        return pool.submit(template_job, folder, band, cache)
    future: Future[str] = Future()
    future.set_result(found)
    return future


def recalled_template(folder: Path, band: str, cache: Cache | None) -> str | None:
    """What the template of a band is made of, if the cache has it; it is then in the run folder."""
    if cache is None:
        return None
    return recall_template(remembering(folder, cache), band, history.template_path(folder, band))


def pixel_half(job: Job) -> Half:
    """Expose and measure, or find it in the cache; what is kept as images is measured anew."""
    if job.cache is None or job.keep_images:
        return _put_aside(job, _seen(job))
    here, stamps = remembering(job.folder, job.cache), _stamps_path(job)
    found = recall_half(here, job.visit, job.detector, stamps)
    return keep_half(here, job.visit, job.detector, _seen(job), stamps) if found is None else found


def recalled_half(job: Job) -> Half | None:
    """The half as the cache has it, if it has."""
    if job.cache is None or job.keep_images:
        return None
    return recall_half(remembering(job.folder, job.cache), job.visit, job.detector, _stamps_path(job))


def is_known(job: Job) -> bool:
    """Whether the cache has an entry of the half."""
    if job.cache is None or job.keep_images:
        return False
    return job.cache.has("half", remembering(job.folder, job.cache).half_key(job.visit, job.detector))


def _seen(job: Job) -> Seen:
    here = observatory(job.folder, job.cache)
    make = here.make_difference if isinstance(here, Remembering) else make_difference
    return measure(here, job.visit, job.detector, _template(job.folder, job.visit.band),
                   here.scenario.pipeline.pixel_part(), here.scenario.recorder.stamps_per_visit, make)


def _put_aside(job: Job, seen: Seen) -> Half:
    """The half with its pixels in the scratch folder, its stamps and images in theirs."""
    measured = seen.half.measured
    if measured is None:
        return seen.half
    images = measured.images
    assert images is not None
    path = _stamps_path(job)
    path.parent.mkdir(exist_ok=True)
    np.save(path, seen.stamps, allow_pickle=False)
    if job.keep_images:
        _save_images(job, images)
    pixels = PixelsOnDisk.write(scratch(job), images.difference, images.science, measured.wcs)
    return replace(seen.half, measured=replace(measured, pixels=pixels, images=None))


def scratch(job: Job) -> Path:
    """Where the pixels of a detector-visit wait for forced photometry."""
    return job.folder / "scratch" / _name(job)


def _stamps_path(job: Job) -> Path:
    return job.folder / "stamps" / f"{_name(job)}.npy"


def _name(job: Job) -> str:
    return f"{job.visit.visit:d}_{job.detector:d}"


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


__all__ = ["Half", "Job", "Worked", "is_known", "machine_name", "observatory", "pixel_half", "recalled_half",
           "recalled_template", "run_scenario", "scratch", "template_job", "template_of"]
