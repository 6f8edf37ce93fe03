"""Production from the command line: FITS files in, alerts, catalogues and a report out.

The same run folder as a simulated night's, so that every report reads both. Nothing of the simulation is loaded here.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import msgspec
import numpy as np

from pipeline import service
from pipeline.errors import InputError
from pipeline.pixels import PixelsInMemory
from pipeline.ports import Pixels, Ports, Recorder
from pipeline.prompt import Measured
from pipeline.sender import sending
from pipeline.steps import Step
from schemas.exposure import Exposure
from schemas.measures import STEP, empty, fact_rows
from twin import inspect
from twin.folders import claim
from twin.keeping import keeper
from twin.recorder import PROMPT_TABLES, ParquetRecorder
from twin.trace_catalogue import DELIVERY, VisitTracer

TAI_MINUS_UTC_S = 37.0        # since 2017-01-01 (IERS Bulletin C)
UNIX_EPOCH_MJD = 40587.0


def tai_now() -> float:
    """The wall clock, TAI as MJD."""
    return UNIX_EPOCH_MJD + (time.time() + TAI_MINUS_UTC_S) / 86400


def process_files(science: Sequence[Path], out: Path, *, config: Path | None = None, template: Path | None = None,
                  template_from: Sequence[Path] = (), inject: int = 0, seed: int | None = None) -> str:
    """Run FITS files through the pipeline into a new run folder; a line that says what came of it.

    Everything that can be wrong with the input is found before the folder is made; whatever ends the run early takes
    the folder with it.
    """
    site, folder = service.read_site(config)
    if inject or seed is not None:
        site = msgspec.structs.replace(site, inject=msgspec.structs.replace(
            site.inject, count=inject or site.inject.count, seed=site.inject.seed if seed is None else seed))
    exposures = service.read_exposures(fits_files(science), site.header)
    world = service.read_world(site, folder, template, template_from)
    service.check_overlap(exposures, world, site)
    claim(out)
    try:
        lines = _process(exposures, world, site, folder, out)
    except BaseException:
        rmtree(out, ignore_errors=True)
        raise
    return lines


def fits_files(paths: Sequence[Path]) -> list[Path]:
    """The files themselves, and every .fits file directly in the folders, in order of name."""
    files: list[Path] = []
    for path in paths:
        inside = sorted(p for p in path.iterdir() if p.suffix in (".fits", ".fit", ".fz")) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"{path}: no .fits files in this folder")
        files += inside
    return files


def _process(exposures: Sequence[Exposure], world: service.World, site: service.SiteConfig, folder: Path,
             out: Path) -> str:
    done = alerts = 0
    tracers = {id(exposure): VisitTracer(exposure.visit.visit, exposure.detector, exposure.wcs)
               for exposure in exposures}

    def look(exposure: Exposure, step: Step) -> None:
        if step.name not in DELIVERY:
            tracers[id(exposure)](step)

    with ParquetRecorder(out / "measures") as recorder:
        ports = service.open_ports(site, folder, out, world, recorder, tai_now)
        try:
            keep = keeper(site.pipeline.batch.precovery, service.kept_folder(site, folder, out))
            with sending(ports, site.pipeline) as (used, saved):
                for outcome in service.process(exposures, world, site, used, cpu_clock=time.process_time, look=look,
                                               keep=keep, saved=saved):
                    _record(outcome, used.recorder, out)
                    used.recorder.append("trace", tracers[id(outcome.exposure)].rows())
                    done += outcome.summary is not None
                    alerts += outcome.summary.n_alerts if outcome.summary is not None else 0
            waiting = sum(map(len, ports.store.unsent()))
            _export(ports, recorder)
        finally:
            ports.store.close()
            ports.sink.close()
        recorder.append("fact", _facts(exposures, world, site))
    (out / "stamps").mkdir(exist_ok=True)
    rest = f"; {waiting} alerts wait in the outbox for `alert-twin deliver`" if waiting else ""
    return f"{done} of {len(exposures)} exposures processed, {alerts} alerts, in {out}{rest}"


def _record(outcome: service.Outcome, recorder: Recorder, out: Path) -> None:
    """Log, Steps, truth of injections and stamps of one exposure."""
    recorder.append("exposure_log", outcome.log)
    steps = empty(STEP, len(outcome.steps))
    steps["visit"], steps["detector"] = outcome.exposure.visit.visit, outcome.exposure.detector
    for row, (step, cpu_s) in zip(steps, outcome.steps, strict=True):
        row["name"], row["size"], row["cpu_s"], row["duration_s"] = step.name.encode(), step.size, cpu_s, cpu_s
        row["measured"] = True
    recorder.append("step", steps)
    measured = outcome.measured
    if measured is None or measured.images is None:
        recorder.append("truth", outcome.injected)
        return
    truth = inspect.inspect(outcome.injected, replace(measured, pixels=_pixels(measured)), measured.images)
    recorder.append("truth", truth)
    index, stamps = inspect.stamps(truth, measured, measured.images, 60)
    recorder.append("stamp", index)
    (out / "stamps").mkdir(exist_ok=True)
    np.save(out / "stamps" / f"{measured.visit.visit:d}_{measured.detector:d}.npy", stamps, allow_pickle=False)


def _pixels(measured: Measured) -> Pixels:
    images = measured.images
    assert images is not None
    return PixelsInMemory(images.difference, images.science, measured.wcs)


def _export(ports: Ports, recorder: ParquetRecorder) -> None:
    for name in PROMPT_TABLES:
        recorder.append(name, ports.store.table(name))


def _facts(exposures: Sequence[Exposure], world: service.World, site: service.SiteConfig) -> np.ndarray:
    facts = {"kind": "production", "fidelity": "pixels", "exposures": str(len(exposures)),
             "wcs_and_zeropoint": "calibrated against references" if len(world.references) else
             f"taken as given (no references); zeropoint {site.given_zeropoint:g}: fluxes are relative",
             "truth": "injected sources" if site.inject.count else "none", "seed": str(site.inject.seed),
             "pipeline": msgspec.json.encode(site.pipeline).decode()[:512]}
    return fact_rows(facts)
