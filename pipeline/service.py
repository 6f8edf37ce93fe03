"""Production: FITS files through the same two halves, with real ports and the wall clock.

A site config names what the headers lack, the pipeline's settings, and the files of the outside world: references,
ephemerides, satellite tracks, earlier objects and their history. What is not named is absent: without references the
header's WCS and a zeropoint are taken as given, and the report says so.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from pipeline import ingest, inject
from pipeline.batch.catch_up import Missed
from pipeline.calibrate import calibrate
from pipeline.config import PipelineConfig, Section
from pipeline.ephemerides import TableEphemerides
from pipeline.errors import InputError, NoWorkFound, PipelineError
from pipeline.images import Calibrated, Template
from pipeline.ports import Clock, Ports, PromptStore, Recorder, SaveRequest, Segment
from pipeline.prompt import (
    PRELOAD_MARGIN_ARCSEC,
    Measured,
    Static,
    Summary,
    deliver,
    footprint_box,
    log_row,
    measure_sources,
    preload,
    report_sources,
)
from pipeline.satellites import TrackSatellites
from pipeline.steps import Step, Steps, run
from pipeline.template import coadd, warp
from schemas.exposure import Exposure
from schemas.measures import EPHEMERIS, REFERENCE, TRACK, TRUTH, empty
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE, SUMMARY


class InjectConfig(Section, frozen=True):
    """Sources to inject into each exposure; 0: none. An injected run refuses sinks and stores outside its folder."""

    count: int = 0
    spacing_px: float = 60.0
    border_px: float = 8.0
    snr_min: float = 5.0
    snr_max: float = 30.0
    seed: int = 0


class SiteConfig(Section, frozen=True):
    """What a site says of its data; paths are relative to the config's folder."""

    header: ingest.HeaderConfig = ingest.HeaderConfig()
    pipeline: PipelineConfig = PipelineConfig()
    references: str = ""               # FITS table with REFERENCE columns
    ephemerides: str = ""              # FITS table with EPHEMERIS columns
    satellites: str = ""               # FITS table with TRACK columns
    state: str = ""                    # folder of DiaObject.fits, DiaSource.fits, DiaForcedSource.fits
    templates: dict[str, str] = {}     # band -> template file
    store: str = ""                    # URL; empty: prompt.duckdb in the output folder
    sink: str = ""                     # URL; empty: files in the output folder
    kept: str = ""                     # folder of differences kept for precovery; empty: kept in the output folder
    given_zeropoint: float = 31.4      # AB magnitude of 1 ADU where there are no references
    inject: InjectConfig = InjectConfig()


@dataclass(frozen=True, slots=True)
class World:
    """What a site's files hold."""

    references: np.ndarray
    ephemerides: TableEphemerides
    satellites: TrackSatellites
    templates: dict[str, Template]     # by band; "" serves every band


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one exposure."""

    exposure: Exposure
    log: np.ndarray                    # EXPOSURE_LOG, one row
    measured: Measured | None
    summary: Summary | None
    injected: np.ndarray               # TRUTH rows; empty without injection
    steps: tuple[tuple[Step, float], ...]   # with the CPU seconds since the Step before


def read_site(path: Path | None) -> tuple[SiteConfig, Path]:
    """The site config of a TOML file, and the folder its paths are relative to."""
    if path is None:
        return SiteConfig(), Path()
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None
    return ingest.decode_config(text, SiteConfig, path), path.parent


def read_exposures(paths: Sequence[Path], config: ingest.HeaderConfig) -> list[Exposure]:
    """All exposures in order of time; two of one visit and detector are an InputError that names both files."""
    exposures: dict[tuple[int, int], tuple[Path, Exposure]] = {}
    for path in paths:
        exposure = ingest.read_exposure(path, config)
        key = exposure.visit.visit, exposure.detector
        if key in exposures:
            raise InputError(f"{path}: visit {key[0]}, detector {key[1]} is also in {exposures[key][0]}; "
                             "give the ids of these files in the config, [header.files.\"NAME\"]")
        exposures[key] = path, exposure
    if not exposures:
        raise InputError("no science files given")
    return sorted((e for _, e in exposures.values()), key=lambda e: (e.visit.mjd_tai, e.visit.visit, e.detector))


def read_world(site: SiteConfig, folder: Path, template: Path | None = None,
               template_from: Sequence[Path] = ()) -> World:
    """The files that a site config names, and the template of the command line in place of the config's."""
    references = _table(site.references, folder, REFERENCE)
    templates = {band: ingest.read_template(folder / name) for band, name in site.templates.items()}
    if template_from:
        templates = {"": coadd_files(template_from, site, references)}
    elif template is not None and ingest.is_template(template):
        templates = {"": ingest.read_template(template)}
    elif template is not None:
        templates = {"": coadd_files([template], site, references)}
    if not templates:
        raise InputError("no template: give --template FILE, --template-from FILES, or [templates] in the config")
    return World(references, TableEphemerides(_table(site.ephemerides, folder, EPHEMERIS)),
                 TrackSatellites(_table(site.satellites, folder, TRACK)), templates)


def check_overlap(exposures: Sequence[Exposure], world: World, site: SiteConfig) -> None:
    """Every exposure must meet the template of its band somewhere: InputError names the first that does not."""
    for exposure in exposures:
        visit = exposure.visit
        template = world.templates.get(visit.band, world.templates.get(""))
        if template is None:
            raise InputError(f"visit {visit.visit}: no template in band {visit.band}; "
                             f"there are templates in {', '.join(sorted(world.templates))}")
        if template.band and template.band != visit.band:
            raise InputError(f"visit {visit.visit}: band {visit.band}, but the template's is {template.band}")
        ny, nx = exposure.shape
        x, y = np.meshgrid(np.linspace(0, nx - 1, 33), np.linspace(0, ny - 1, 33))
        tx, ty = template.wcs.pixels(*exposure.wcs.sky(x, y))
        margin = exposure.wcs_error_arcsec / template.wcs.scale_arcsec
        meets = (tx > -margin) & (tx < template.shape[1] + margin) & (ty > -margin) & (ty < template.shape[0] + margin)
        if not meets.any():
            raise InputError(f"visit {visit.visit}: no overlap with the template (exposure about RA {visit.ra:.4f}, "
                             f"Dec {visit.dec:.4f}; template about RA {template.wcs.crval[0]:.4f}, "
                             f"Dec {template.wcs.crval[1]:.4f})")


def coadd_files(paths: Sequence[Path], site: SiteConfig, references: np.ndarray) -> Template:
    """A template from exposures: each calibrated, coadded on the grid of the first."""
    calibrated: list[Calibrated] = []
    for path in paths:
        exposure = ingest.read_exposure(path, site.header)
        try:
            calibrated.append(calibrate(exposure, references, site.pipeline.calibrate,
                                        given_zeropoint=site.given_zeropoint))
        except PipelineError as error:
            raise InputError(f"{path}: cannot serve as template: {error}") from None
    return coadd(calibrated, calibrated[0].wcs, calibrated[0].shape, site.pipeline.template)


def restore(store: PromptStore, site: SiteConfig, folder: Path) -> None:
    """Put earlier objects and their history into an empty store."""
    if not site.state:
        return
    tables = {name: ingest.read_table(folder / site.state / f"{name}.fits", table.dtype)
              for name, table in (("DiaObject", DIA_OBJECT), ("DiaSource", DIA_SOURCE),
                                  ("DiaForcedSource", DIA_FORCED_SOURCE))}
    store.save(SaveRequest(0, -1, tables["DiaObject"], tables["DiaSource"], tables["DiaForcedSource"],
                           SS_SOURCE.empty(0), SUMMARY.empty(0)), Segment(0, -1, np.empty(0, np.int64), ()))


def process(exposures: Sequence[Exposure], world: World, site: SiteConfig, ports: Ports, *,
            measure: Callable[[Exposure, Static, PipelineConfig, np.random.Generator | None], Measured] | None = None,
            cpu_clock: Callable[[], float],
            look: Callable[[Exposure, Step], None] = lambda exposure, step: None,
            keep: Callable[[Measured], None] = lambda measured: None,
            saved: Callable[[], None] | None = None) -> Iterator[Outcome]:
    """Each exposure through preload, the pixel half, the catalogue half and delivery; one outcome per exposure.

    A visit that fails is an outcome with its reason, and the next goes on. `measure` may run the pixel half elsewhere.
    `look` is shown each Step with what it left, beyond the time that is measured; `keep` what was measured, its pixels
    still at hand, once it is delivered. `saved` is called in place of the delivery where somebody else delivers
    (`pipeline.sender`).
    """
    for exposure in exposures:
        outcome = _process_one(exposure, world, site, ports, measure, cpu_clock, look, saved)
        if outcome.measured is not None and outcome.summary is not None:
            keep(outcome.measured)
        yield outcome


def missed(exposures: Sequence[Exposure], world: World, site: SiteConfig) -> list[Missed]:
    """Exposures as detector-visits that a store may lack, for the morning's catch-up."""
    def measured(exposure: Exposure) -> Steps[Measured]:
        static, _, _ = _static(exposure, world, site)
        return (yield from measure_sources(exposure, static, site.pipeline))

    return [Missed(exposure.visit, exposure.detector,
                   footprint_box(exposure.wcs, exposure.shape, PRELOAD_MARGIN_ARCSEC), partial(measured, exposure))
            for exposure in exposures]


def kept_folder(site: SiteConfig, folder: Path, out: Path) -> Path:
    """Where differences are kept: as the config names it, relative to its folder, or in the output folder."""
    return folder / site.kept if site.kept else out / "kept"


def _process_one(exposure: Exposure, world: World, site: SiteConfig, ports: Ports,
                 measure: Callable[..., Measured] | None, cpu_clock: Callable[[], float],
                 look: Callable[[Exposure, Step], None], saved: Callable[[], None] | None) -> Outcome:
    steps: list[tuple[Step, float]] = []
    last = cpu_clock()

    def note(step: Step) -> None:
        nonlocal last
        now = cpu_clock()
        steps.append((step.bare(), now - last))
        look(exposure, step)
        last = cpu_clock()

    log = log_row(exposure)
    measured: Measured | None = None
    summary: Summary | None = None
    truth = empty(TRUTH, 0)
    try:
        static, truth, rng = _static(exposure, world, site)
        box = footprint_box(exposure.wcs, exposure.shape, PRELOAD_MARGIN_ARCSEC)
        known = run(preload(exposure.visit, exposure.detector, box, ports, site.pipeline), note)
        measured = measure(exposure, static, site.pipeline, rng) if measure is not None else \
            run(measure_sources(exposure, static, site.pipeline, rng=rng), note)
        log = measured.log.copy()
        summary = run(report_sources(measured, known, ports, site.pipeline), note)
        if saved is None:
            run(deliver(ports, site.pipeline), note)
        else:
            saved()
        log["status"] = b"done"
        log["n_sources"], log["n_new_objects"] = summary.n_sources, summary.n_new_objects
        log["n_alerts"] = summary.n_alerts
    except NoWorkFound as reason:
        log["status"], log["reason"] = b"no_work", str(reason).encode()[:64]
    except PipelineError as reason:
        log["status"], log["reason"] = b"failed", str(reason).encode()[:64]
    log["done_mjd_tai"] = ports.clock()
    return Outcome(exposure, log, measured, summary, truth, tuple(steps))


def _static(exposure: Exposure, world: World, site: SiteConfig
            ) -> tuple[Static, np.ndarray, np.random.Generator | None]:
    template = world.templates.get(exposure.visit.band, world.templates.get(""))
    near = footprint_box(exposure.wcs, exposure.shape, PRELOAD_MARGIN_ARCSEC)
    references = world.references[near.contains(world.references["ra"], world.references["dec"])]
    static = Static(template, references, given_zeropoint=site.given_zeropoint)
    if not site.inject.count or template is None:
        return static, empty(TRUTH, 0), None
    rng = np.random.default_rng([site.inject.seed, exposure.visit.visit, exposure.detector])
    calibrated = calibrate(exposure, references, site.pipeline.calibrate, given_zeropoint=site.given_zeropoint)
    on_grid = warp(template, calibrated.wcs, calibrated.shape, site.pipeline.template)
    middle = np.array([(calibrated.shape[1] - 1) / 2]), np.array([(calibrated.shape[0] - 1) / 2])
    probe = inject.truth_of(inject.at_pixels(calibrated, *middle, np.ones(1)), calibrated, on_grid)
    rows = inject.plan(calibrated, site.inject.count, rng, spacing_px=site.inject.spacing_px,
                       border_px=site.inject.border_px, snr=(site.inject.snr_min, site.inject.snr_max),
                       flux_err=float(probe["flux_err_optimum"][0]))
    return replace(static, injections=rows), inject.truth_of(rows, calibrated, on_grid), rng


def open_ports(site: SiteConfig, folder: Path, out: Path, world: World, recorder: Recorder, clock: Clock) -> Ports:
    """The ports of a run; an injected run with a sink or store outside its own folder is refused."""
    from pipeline.open import open_sink, open_store

    if site.inject.count and (site.sink or site.store):
        raise InputError(f"sink {site.sink!r}, store {site.store!r}: a run with injected sources writes to its own "
                         "folder only; leave both empty")
    sink = open_sink(site.sink or f"file:{out / 'alerts'}", check=True)
    store = open_store(site.store or f"duckdb:{out / 'prompt.duckdb'}")
    restore(store, site, folder)
    return Ports(clock, store, sink, recorder, world.ephemerides, world.satellites)


def _table(name: str, folder: Path, dtype: np.dtype) -> np.ndarray:
    return ingest.read_table(folder / name, dtype) if name else empty(dtype, 0)
