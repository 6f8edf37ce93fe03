"""A run for any other program: the bundle's files, pairs of images ready to be subtracted, a page that explains them,
and the answer sheet.

    DIR/
      README.md           what each file holds, and what is known to a pipeline
      answer_sheet.csv    the columns of an answer: name, type, unit, required or optional, meaning
      pairs/              VISIT_DETECTOR.fits: the calibrated exposure and the template warped onto its pixels
      exposures/ templates/ references.fits ephemerides.fits satellites.fits site.toml    as `twin.bundle` writes them

Nothing that is true is written: what calibration says comes from our pipeline's own measurements of the same pixels.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from astropy.io import fits

from pipeline.calibrate import calibrate
from pipeline.config import PipelineConfig
from pipeline.errors import PipelineError
from pipeline.images import Calibrated, Template
from pipeline.ingest import HeaderConfig, read_exposure, read_table, read_template
from pipeline.prompt import PRELOAD_MARGIN_ARCSEC, footprint_box
from pipeline.psf import Psf
from pipeline.template import warp
from schemas.exposure import AB_ZEROPOINT_NJY, Exposure
from schemas.mask import PLANES
from schemas.measures import REFERENCE
from twin.answers import sheet_rows
from twin.bundle import bundled, fill
from twin.folders import claimed
from twin.halves import run_scenario
from twin.scenario import Scenario

MEANINGS = {
    "BAD": "known defect of the detector", "SAT": "saturated", "INTRP": "interpolated over", "CR": "cosmic ray",
    "EDGE": "too near to the border to be trusted", "DETECTED": "in a positive footprint",
    "DETECTED_NEGATIVE": "in a negative footprint", "SUSPECT": "near or above the end of the linear range",
    "NO_DATA": "no input pixel", "STREAK": "on a satellite's trail",
    "HIGH_VARIANCE": "variance of the template far above its median", "SPIKE": "diffraction spike of a bright star",
    "SAT_TEMPLATE": "saturated in the template", "INJECTED": "touched by an injected source",
    "INJECTED_CORE": "centre of an injected source", "INJECTED_TEMPLATE": "touched by a source injected into the "
    "template", "INJECTED_CORE_TEMPLATE": "centre of a source injected into the template"}


@dataclass(frozen=True, slots=True)
class _Listed:
    """One detector-visit on the page."""

    exposure: Exposure
    note: str                  # why there is no pair; "" where there is one


def export_run(run: Path, out: Path) -> str:
    """Write a finished run of pixels for other programs into a new folder; a line that says what is there.

    InputError where `run` is none or `out` is occupied; nothing is left half-written.
    """
    visits, scenario = bundled(run), run_scenario(run)
    with claimed(out):
        fill(run, out, visits)
        listed = list(_pairs(out, scenario.pipeline))
        _write_sheet(out / "answer_sheet.csv")
        (out / "README.md").write_text(_page(scenario, listed), encoding="utf-8")
    return f"{len(listed)} detector-visits, {sum(not one.note for one in listed)} with a pair of images, in {out}"


def _pairs(out: Path, config: PipelineConfig) -> Iterator[_Listed]:
    """Calibrate each exposure of a bundle, warp its template, write both."""
    (out / "pairs").mkdir()
    references = read_table(out / "references.fits", REFERENCE)
    templates = {path.stem: read_template(path) for path in sorted((out / "templates").glob("*.fits"))}
    for path in sorted((out / "exposures").iterdir()):
        exposure = read_exposure(path, HeaderConfig())
        yield _Listed(exposure, _pair(out / "pairs" / path.name, exposure, templates.get(exposure.visit.band),
                                      references, config))


def _pair(path: Path, exposure: Exposure, template: Template | None, references: np.ndarray,
          config: PipelineConfig) -> str:
    """Write one pair; why there is none, or nothing."""
    if template is None:
        return f"no template in {exposure.visit.band}"
    near = footprint_box(exposure.wcs, exposure.shape, PRELOAD_MARGIN_ARCSEC)
    try:
        science = calibrate(exposure, references[near.contains(references["ra"], references["dec"])], config.calibrate)
        write_pair(path, science, warp(template, science.wcs, science.shape, config.template))
    except PipelineError as error:
        return str(error)
    return ""


def write_pair(path: Path, science: Calibrated, template: Template) -> None:
    """A calibrated exposure and its template on one grid, with variances, masks and PSFs, as one FITS file."""
    header = fits.Header(science.wcs.header())
    visit = science.visit
    for key, value, comment in (
            ("VISIT", visit.visit, ""), ("DETECTOR", science.detector, ""), ("BAND", visit.band, ""),
            ("MJD-MID", visit.mjd_tai, "middle of the exposure, TAI"), ("EXPTIME", visit.exposure_s, "[s]"),
            ("AIRMASS", visit.airmass, ""), ("BUNIT", "nJy", ""), ("MAGZERO", AB_ZEROPOINT_NJY, "AB, of 1 nJy"),
            ("GAIN", science.gain_njy, "electrons per nJy")):
        header[key] = (value, comment)
    hdus = [fits.PrimaryHDU()]
    for name, plane in (("SCIENCE", science), ("TEMPLATE", template)):
        hdus += [fits.ImageHDU(plane.image, header, name=name), fits.ImageHDU(plane.variance, name=f"{name}_VARIANCE"),
                 fits.ImageHDU(plane.mask, name=f"{name}_MASK"), fits.ImageHDU(*_psf(plane.psf), name=f"{name}_PSF")]
    fits.HDUList(hdus).writeto(path)


def _psf(psf: Psf) -> tuple[np.ndarray, fits.Header]:
    """The PSF at the detector's centre, and its FWHM."""
    return psf.central.astype(np.float32), fits.Header([("FWHM", psf.fwhm(1.0), "[pixel]")])


def _write_sheet(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("column", "type", "unit", "needed", "meaning"), *sheet_rows()])


def _page(scenario: Scenario, listed: list[_Listed]) -> str:
    camera = scenario.simulation.camera
    visits = [(e.visit.visit, e.detector, e.visit.band, f"{e.visit.mjd_tai:.6f}", f"{e.visit.exposure_s:g}",
               one.note or "pair") for one in listed for e in (one.exposure,)]
    planes = [(name, bit, MEANINGS[name]) for name, bit in PLANES.items()]
    text = (resources.files("twin") / "export_page.md").read_text(encoding="utf-8")
    return text.format(
        name=scenario.name, seed=scenario.seed, nx=camera.nx, ny=camera.ny, scale=camera.scale_arcsec,
        visits=_table(("visit", "detector", "band", "middle, MJD TAI", "exposure [s]", "images"), visits),
        planes=_table(("plane", "value", "meaning"), planes),
        sheet=_table(("column", "type", "unit", "needed", "meaning"), sheet_rows()))


def _table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Rows as a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
