"""A night as files: what `alert-twin process` needs to make the same alerts again, and nothing that is true.

    BUNDLE/
      site.toml           headers, pipeline settings and the files below
      exposures/          one FITS file per detector-visit: pixels, mask, header, observation reason
      templates/BAND.fits
      references.fits     the reference catalogue around the field
      ephemerides.fits    known Solar System objects: polynomials and orbits
      satellites.fits     predicted tracks
      state/              objects and their history before the first of these visits; absent where there is none
"""

import shutil
from pathlib import Path

import msgspec
import numpy as np

from pipeline.errors import InputError
from pipeline.ingest import write_exposure, write_table
from pipeline.open import open_store
from pipeline.prompt import PRELOAD_MARGIN_ARCSEC, footprint_box
from schemas.exposure import Box, Visit
from schemas.table import take
from simulators import observe
from twin.folders import claimed, whole
from twin.halves import observatory
from twin.history import template_path
from twin.scenario import dump

WHOLE_SKY = Box(0.0, 360.0, -90.0, 90.0)


def write_bundle(run: Path, out: Path, *, after: int = 0) -> str:
    """Write the visits of a run folder that come after the first `after`, with the state that those left behind.

    InputError where `run` is no finished run, or `out` is occupied; nothing is left half-written.
    """
    visits = bundled(run, after)
    with claimed(out):
        fill(run, out, visits, after)
    return f"{len(visits)} visits in {out}"


def bundled(run: Path, after: int = 0) -> list[Visit]:
    """The visits that come after the first `after` of a finished run of pixels; InputError where it is none."""
    whole(run)
    for needed in ("scenario.toml", "templates", "prompt.duckdb"):
        if not (run / needed).exists():
            raise InputError(f"{run}: not a finished run of pixels: it has no {needed}")
    here = observatory(run)
    visits = here.visits[after:]
    if not visits:
        raise InputError(f"after: the run has {len(here.visits)} visits, none comes after {after}")
    return visits


def fill(run: Path, out: Path, visits: list[Visit], after: int = 0) -> None:
    """Write a bundle of some visits into an empty folder."""
    here = observatory(run)
    if here.config.camera.product == "raw":
        raise InputError(f"{run}: its exposures are raw, and a bundle holds exposures without signature: run it with "
                         'simulation.camera.product="calibrated"')
    for name in ("exposures", "templates", *(["state"] if after else [])):
        (out / name).mkdir()
    for visit in visits:
        for detector in here.config.camera.detectors:
            exposure = observe.expose(here.sky, visit, detector, here.seed).calibrated   # pixels alone, no truth
            write_exposure(out / "exposures" / f"{visit.visit:d}_{detector:d}.fits", exposure)
    templates = {}
    for band in dict.fromkeys(visit.band for visit in visits):
        if template_path(run, band).is_file():
            shutil.copyfile(template_path(run, band), out / "templates" / f"{band}.fits")
            templates[band] = f"templates/{band}.fits"
    write_table(out / "references.fits", here.sky.references(_field(visits, run), here.seed))
    write_table(out / "ephemerides.fits", here.sky.ephemerides())
    write_table(out / "satellites.fits", here.tracks())
    if after:
        opens = visits[0].mjd_tai - visits[0].exposure_s / 2 / 86400
        _write_state(run, out / "state", np.array([v.visit for v in here.visits[:after]]), opens)
    site = {"references": "references.fits", "ephemerides": "ephemerides.fits", "satellites": "satellites.fits",
            "state": "state" if after else "", "templates": templates,
            "pipeline": msgspec.to_builtins(here.scenario.pipeline)}
    (out / "site.toml").write_text(dump(site))


def _field(visits: list[Visit], run: Path) -> Box:
    """A box around every pointing, twice as wide as any detector with its margin."""
    here = observatory(run)
    ra, dec = [], []
    for visit in visits:
        for detector in here.config.camera.detectors:
            shape = here.config.camera.ny, here.config.camera.nx
            box = footprint_box(here.facts(visit, detector).wcs, shape, 4 * PRELOAD_MARGIN_ARCSEC)
            ra += [box.ra_min, box.ra_max]
            dec += [box.dec_min, box.dec_max]
    return Box.around(np.array(ra), np.array(dec))


def _write_state(run: Path, folder: Path, earlier: np.ndarray, time: float) -> None:
    """Objects as they were at a time, and sources and forced points of the earlier visits."""
    store = open_store(f"duckdb:{run / 'prompt.duckdb'}")
    try:
        rows = {name: _of_visits(store.table(name), earlier) for name in ("DiaSource", "DiaForcedSource")}
        rows["DiaObject"] = _as_of(store.table("DiaObject"), time)
    finally:
        store.close()
    for name, found in rows.items():
        write_table(folder / f"{name}.fits", found)


def _of_visits(rows: np.ndarray, visits: np.ndarray) -> np.ndarray:
    return take(rows, np.isin(rows["visit"], visits))


def _as_of(objects: np.ndarray, time: float) -> np.ndarray:
    """The version of each object that was valid at a time, its interval open again."""
    ended = np.nan_to_num(objects["validityEndMjdTai"], nan=np.inf)
    rows = take(objects, (objects["validityStartMjdTai"] <= time) & (ended > time))
    rows["validityEndMjdTai"] = np.nan
    return rows
