"""A past for a scenario: months of earlier visits at catalogue fidelity, in a prompt store that nights begin with.

    cadence.past -> truth of each visit -> simulators.catalogs -> report_sources -> DIR/prompt.duckdb

The sky is the scenario's own, so what varies in the night has varied before, in the same DIAObjects. What a template
decides is that of the night's templates, and where a band has none its visits have no work. Asteroids are in no
earlier visit: those of the night were elsewhere.

    DIR/
      scenario.toml        the scenario as it was drawn: nights of another sky are refused
      prompt.duckdb        the prompt tables after the last earlier visit, with its row files beside it
      measures/            truth, exposure_log, rejection, fact: what a run keeps
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final

import msgspec
import numpy as np

from pipeline.ephemerides import TableEphemerides
from pipeline.errors import InputError
from pipeline.footprint import PRELOAD_MARGIN_ARCSEC, footprint_box
from pipeline.open import open_sink
from pipeline.ports import Ports
from pipeline.prompt import preload, report_sources
from pipeline.satellites import TrackSatellites
from pipeline.steps import run
from pipeline.stores.duckdb import DuckDBStore, copy_store
from schemas.exposure import AB_ZEROPOINT_NJY, Visit
from schemas.measures import EPHEMERIS, TRACK, empty, fact_rows
from simulators import cadence, observe
from simulators.catalogs import Catalog, CatalogModel, draw, trail_power
from simulators.observe import Facts
from simulators.streams import stream
from twin import exposures
from twin.catalogue import measured_from_catalog
from twin.exposures import Input
from twin.folders import claimed
from twin.observatory import Observatory
from twin.recorder import ParquetRecorder
from twin.scenario import Scenario, read_scenario, to_toml

STORE: Final = "prompt.duckdb"
DELAY_D: Final = 60.0 / 86400     # from shutter close to the save: what is asked of the real system

Progress = Callable[[str, int, int], None]      # what, done, of how many


@dataclass(frozen=True, slots=True)
class Prefilled:
    """A past in numbers."""

    folder: Path
    visits: int
    objects: int
    sources: int
    forced: int
    wall_s: float

    def __str__(self) -> str:
        return (f"{self.visits} earlier detector-visits, {self.objects} DIAObjects with {self.sources} DIASources and "
                f"{self.forced} forced sources in {self.wall_s:.0f} s: {self.folder}")


def prefill(scenario: Scenario, folder: Path, progress: Progress = lambda what, done, total: None) -> Prefilled:
    """Draw a scenario's past into a new folder; InputError where the scenario has none or the folder is occupied."""
    begun = perf_counter()
    here = Observatory(scenario, Path())
    try:
        visits = cadence.past(here.config, here.seed)
    except ValueError as error:
        raise InputError(f"{scenario.name}: {error}") from None
    with claimed(folder):
        (folder / "scenario.toml").write_text(to_toml(scenario))
        store = DuckDBStore(folder / STORE)
        try:
            with ParquetRecorder(folder / "measures") as recorder:
                drawn = _draw(here, visits, store, recorder, progress)
                recorder.append("fact", _facts(scenario, drawn))
            counts = store.counts()
        finally:
            store.close()
    return Prefilled(folder, drawn, counts["DiaObject"],
                     counts["DiaSource"], counts["DiaForcedSource"], perf_counter() - begun)


def place(past: Path, scenario: Scenario, store: Path) -> None:
    """Put a past where a night's prompt store will be; InputError where it is none, or of another sky."""
    if not (past / STORE).is_file() or not (past / "scenario.toml").is_file():
        raise InputError(f"{past}: no past in this folder; `alert-twin prefill SCENARIO --out DIR` makes one")
    drawn = read_scenario(past / "scenario.toml")
    for what, was, now in (("seed", drawn.seed, scenario.seed),
                           *((f"simulation.{name}", getattr(drawn.simulation, name), getattr(scenario.simulation, name))
                             for name in ("field", "camera", "cadence", "conditions", "sky"))):
        if was != now:
            differs = f"{was} there, {now} here" if what == "seed" else "it differs"
            raise InputError(f"{past}: this past is of another sky than the night: {what} ({differs})")
    copy_store(past / STORE, store)


def _draw(here: Observatory, visits: list[Visit], store: DuckDBStore, recorder: ParquetRecorder,
          progress: Progress) -> int:
    """Every earlier visit through the catalogue half, in time order; how many detector-visits that were."""
    config = msgspec.structs.replace(here.scenario.pipeline,
                                     alert=msgspec.structs.replace(here.scenario.pipeline.alert, produce=False))
    templates = {band: exposures.inputs(here.sky, here.template_visits(band), here.seed)
                 for band in dict.fromkeys(visit.band for visit in visits)}
    detectors = here.config.camera.detectors
    jobs = [(visit, detector) for visit in visits if templates[visit.band] for detector in detectors]
    for number, (visit, detector) in enumerate(jobs):
        now = visit.shutter_close_mjd_tai + DELAY_D
        ports = Ports(clock=partial(float, now), store=store, sink=open_sink("memory:"), recorder=recorder,
                      ephemerides=TableEphemerides(empty(EPHEMERIS)), satellites=TrackSatellites(empty(TRACK)))
        facts = here.facts(visit, detector)
        truth = observe.sources(here.sky, visit, detector, here.seed,
                                template_visits=[one.visit for one in templates[visit.band]])
        catalog = catalog_of(here, visit, detector, facts, truth, templates[visit.band])
        shape = here.config.camera.ny, here.config.camera.nx
        measured = measured_from_catalog(catalog, visit, detector, facts.wcs, shape, psf_sigma_px=facts.psf_sigma_px,
                                         template_sigmas_px=template_sigmas_px(templates[visit.band]),
                                         zeropoint=facts.zeropoint)
        known = run(preload(visit, detector, footprint_box(facts.wcs, shape, PRELOAD_MARGIN_ARCSEC), ports, config))
        summary = run(report_sources(measured, known, ports, config))
        log = measured.log.copy()
        log["status"], log["n_sources"], log["n_new_objects"] = b"done", summary.n_sources, summary.n_new_objects
        log["done_mjd_tai"], log["n_alerts"] = now, 0
        recorder.append("exposure_log", log)
        recorder.append("truth", truth)
        progress("earlier visits", number + 1, len(jobs))
    return len(jobs)


def catalog_of(here: Observatory, visit: Visit, detector: int, facts: Facts, truth: np.ndarray,
               template: list[Input]) -> Catalog:
    """What was measured in one visit; `truth` gets its errors."""
    flux_err = set_errors(here, facts, truth, template)
    rng = stream(here.seed, "past sources", visit.visit, detector)
    shape = here.config.camera.ny, here.config.camera.nx
    detect = here.scenario.pipeline.detect
    model = CatalogModel(threshold=detect.threshold, sky_sources=detect.sky_sources)
    return draw(truth, facts.wcs, shape, psf_sigma_px=facts.psf_sigma_px, flux_err=flux_err,
                key=int(rng.integers(2**62)), rng=rng, model=model, losses=here.seed)


def set_errors(here: Observatory, facts: Facts, truth: np.ndarray, template: list[Input]) -> float:
    """Fill the optimum errors and S/N of TRUTH rows, in place; the error on blank sky [nJy]. Hosts are left out."""
    flux_err, sigma = _error(facts, template), facts.psf_sigma_px
    per_electron = 10 ** (0.4 * (AB_ZEROPOINT_NJY - facts.zeropoint)) / here.config.camera.gain
    # a source's own photons, weighted with the squared PSF: 4/3 of its flux for a Gaussian
    point = np.sqrt(flux_err**2 + 4 / 3 * np.maximum(truth["science_flux"], 0.0) * per_electron)
    truth["flux_err_optimum"] = point / np.sqrt(trail_power(truth["trail_length"], sigma))
    apart = -np.expm1(-np.nan_to_num(truth["separation_px"]) ** 2 / (4 * sigma**2))
    truth["snr"] = truth["flux"] / truth["flux_err_optimum"] * np.where(truth["kind"] == b"moved_star", apart, 1.0)
    return flux_err


def template_sigmas_px(template: list[Input]) -> tuple[float, float]:
    """Sigmas of the Gaussians with the effective areas of the template's PSF, and of its widest input's."""
    mean = np.sqrt(1.0 / np.sum(_template_psf(template) ** 2) / (4.0 * np.pi))
    return float(mean), max(one.facts.psf_sigma_px for one in template)


def _template_psf(template: list[Input]) -> np.ndarray:
    weights = np.array([one.weight for one in template])
    ny, nx = template[0].facts.psf.shape
    stamps = np.stack([one.facts.psf.at((nx - 1) / 2, (ny - 1) / 2, exposures.SIDE) for one in template])
    return np.asarray(np.average(stamps, axis=0, weights=weights))


def _error(facts: Facts, template: list[Input]) -> float:
    """Optimum flux error on blank sky at the detector's centre [nJy], the template's noise included."""
    centre = (facts.psf.shape[1] - 1) / 2, (facts.psf.shape[0] - 1) / 2
    weights = np.array([one.weight for one in template])
    ours, theirs = facts.psf.at(*centre, exposures.SIDE), _template_psf(template)
    point = np.zeros(1)
    error, _ = exposures.optimum_error(ours[None], np.array([facts.noise_njy**2]), theirs[None],
                                       np.array([1.0 / weights.sum()]), point, point, point)
    return float(error[0])


def _facts(scenario: Scenario, visits: int) -> np.ndarray:
    values = {"scenario": scenario.name, "seed": scenario.seed, "fidelity": "catalogue", "kind": "simulated past",
              "detector_visits": visits}
    return fact_rows(values)


__all__ = ["Prefilled", "catalog_of", "place", "prefill", "set_errors", "template_sigmas_px"]
