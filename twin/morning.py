"""The morning after a run: its batch, with what it leaves beside the run.

    RUN/batch/
      journal.jsonl          steps begun and ended: where a morning that was killed goes on
      caught_up/VISIT_DETECTOR/measures/   what the twin knows of a detector-visit that was caught up: truth, log, ...
      retractions.jsonl      withdrawn sources, with the reason
      measures/, stamps      the run as the morning leaves it: `alert-twin report RUN/batch` reads it like a run
      summary.json           the night in numbers

The night's own records stay as they are, so that a report can lay both side by side.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.batch.catch_up import CaughtUp, Missed
from pipeline.batch.consolidate import Tables, night_summary, visit_summaries
from pipeline.batch.journal import Journal
from pipeline.batch.kept import FolderArchive
from pipeline.batch.morning import Night
from pipeline.config import PipelineConfig
from pipeline.errors import InputError, NoWorkFound, PipelineError
from pipeline.open import open_sink, open_store
from pipeline.pixel_half import Measured
from pipeline.ports import Clock, Ports, PromptArchive
from pipeline.steps import Steps
from reports.store import Store, empty
from schemas.ids import day_obs
from schemas.measures import EXPOSURE_LOG, FACT, RETRACTION
from schemas.table import take
from twin.keeping import KEPT, keeper
from twin.recorder import PROMPT_TABLES, ParquetRecorder

STORE: Final = "prompt.duckdb"
REPLACED: Final = (*PROMPT_TABLES, "exposure_log", "visit_summary", "retraction")   # tables that the morning rewrites
HOUR: Final = 1 / 24


@dataclass(slots=True)
class MorningClock:
    """TAI as MJD, a second later whenever it is read: a simulated morning has no other time."""

    mjd_tai: float

    def __call__(self) -> float:
        self.mjd_tai += 1 / 86400
        return self.mjd_tai


@dataclass(slots=True)
class VisitRecorder:
    """A recorder of one detector-visit after the other, each with a folder of its own that begins anew."""

    folder: Path
    _current: ParquetRecorder | None = None

    def begin(self, visit: int, detector: int) -> None:
        """What follows is of this detector-visit; what was recorded of it before goes."""
        self.end()
        place = self.folder / f"{visit:d}_{detector:d}"
        shutil.rmtree(place, ignore_errors=True)
        self._current = ParquetRecorder(place / "measures")

    def append(self, table: str, rows: np.ndarray) -> None:
        if self._current is not None:
            self._current.append(table, rows)

    def end(self) -> None:
        """Write what is kept."""
        if self._current is not None:
            self._current.close()
            self._current = None


@dataclass(frozen=True, slots=True)
class Beside:
    """What a morning leaves beside the night: `folder` is RUN/batch, `run` is None for a store alone."""

    folder: Path
    run: Path | None
    visits: np.ndarray                 # (n,) int64 of the night; of a store alone those of the observing day
    since: float
    whole: bool = False                # the prompt tables are recorded whole, as `process` does, not the night's alone
    recorder: VisitRecorder = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "recorder", VisitRecorder(self.folder / "caught_up"))

    @property
    def journal(self) -> Journal:
        return Journal(self.folder / "journal.jsonl")

    @property
    def retractions(self) -> Path:
        return self.folder / "retractions.jsonl"


# --- whose morning ---------------------------------------------------------------------------------------------------


@contextmanager
def simulated(run: Path, config: PipelineConfig) -> Iterator[tuple[Night, Beside]]:
    """The morning of a simulated night's run folder."""
    from pipeline.ephemerides import TableEphemerides
    from pipeline.satellites import TrackSatellites
    from twin.halves import observatory

    here = observatory(run)
    visits = here.visits
    log = Store(run).table("exposure_log")
    beside = Beside(run / "batch", run, np.array([v.visit for v in visits]), visits[0].mjd_tai)
    clock = MorningClock(max(float(np.nanmax(log["done_mjd_tai"])), beside.journal.latest()) + HOUR)
    ports = partial(Ports, clock=clock, recorder=beside.recorder, ephemerides=TableEphemerides(here.ephemerides()),
                    satellites=TrackSatellites(here.tracks()))
    try:
        with _opened(f"duckdb:{run / STORE}", f"file:{run / 'alerts'}", ports) as (store, given):
            yield _night(beside, store, given, config, visits[-1].mjd_tai + 1 / 86400,
                         partial(_missed_of, run, log, beside.recorder), run / KEPT), beside
    finally:
        shutil.rmtree(run / "scratch", ignore_errors=True)


def _missed_of(run: Path, log: np.ndarray, recorder: VisitRecorder) -> list[Missed]:
    """Every detector-visit of a simulated night that had work."""
    from pipeline.footprint import PRELOAD_MARGIN_ARCSEC, footprint_box
    from schemas.wcs import Wcs
    from simulators.camera import offset_px
    from twin.halves import Job, observatory

    here = observatory(run)
    camera = here.config.camera
    idle = {(int(row["visit"]), int(row["detector"])) for row in log if row["status"] == b"no_work"}
    found = []
    for visit in here.visits:
        for detector in camera.detectors:
            if (visit.visit, detector) in idle:
                continue
            wcs = Wcs.tangent(visit.ra, visit.dec, (camera.ny, camera.nx), scale_arcsec=camera.scale_arcsec,
                              rotation=visit.rotation).shifted(*offset_px(camera, detector))
            job = Job(run, visit, detector)
            found.append(Missed(visit, detector, footprint_box(wcs, (camera.ny, camera.nx), PRELOAD_MARGIN_ARCSEC),
                                partial(_measured, job, recorder)))
    return found


def _measured(job: Any, recorder: VisitRecorder) -> Steps[Measured]:
    """The pixel half of a simulated detector-visit, what the twin knows of it recorded first."""
    from twin.halves import observatory, pixel_half
    from twin.night import with_visit

    here = observatory(job.folder)
    for earlier in here.earlier[job.visit.band]:
        for detector in here.config.camera.detectors:
            if not here.has_mask(earlier, detector):     # a run with a cache keeps none
                here.expose_earlier(earlier, detector)
    recorder.begin(job.visit.visit, job.detector)
    half = pixel_half(job)
    for name, rows in (("truth", half.truth), ("truth_pixels", half.truth_pixels), ("stamp", half.stamps),
                       ("trace", half.trace), ("star", half.stars), ("exposure_log", half.log)):
        recorder.append(name, rows)
    if half.measured is not None:
        recorder.append("measurement", with_visit(half.measured.sources, job))
    yield from (worked.step for worked in half.steps)
    if half.measured is None:
        raise (NoWorkFound if half.status == "no_work" else PipelineError)(half.reason)
    return half.measured


@contextmanager
def produced(out: Path, config: Path | None, science: Sequence[Path], template: Path | None,
             template_from: Sequence[Path], changed: Callable[[PipelineConfig], PipelineConfig]
             ) -> Iterator[tuple[Night, Beside]]:
    """The morning of a run folder of `alert-twin process`; `science` are the files of its night, for the catch-up."""
    from pipeline import service
    from twin.process import fits_files

    site, place = service.read_site(config)
    if site.inject.count:
        raise InputError(f"inject.count {site.inject.count}: a run with injected sources has no morning")
    settings = changed(site.pipeline)
    log = Store(out).table("exposure_log")
    missed: list[Missed] = []
    services = _no_services()
    if science:
        exposures = service.read_exposures(fits_files(science), site.header)
        world = service.read_world(site, place, template, template_from)
        service.check_overlap(exposures, world, site)
        missed = service.missed(exposures, world, site)
        services = {"ephemerides": world.ephemerides, "satellites": world.satellites}
    visits = np.union1d(log["visit"], np.array([one.visit.visit for one in missed], np.int64))
    times = np.array([*log["midpointMjdTai"].tolist(), *(one.visit.mjd_tai for one in missed)])
    since, until = float(np.nanmin(times)), float(np.nanmax(times)) + 1 / 86400
    beside = Beside(out / "batch", out, visits, since, whole=True)
    missed = [replace(one, measure=partial(_recorded, one, beside.recorder)) for one in missed]
    ports = partial(Ports, clock=lambda: 0.0, recorder=beside.recorder)
    with _opened(site.store or f"duckdb:{out / STORE}", site.sink or f"file:{out / 'alerts'}",
                 partial(ports, **services)) as (store, given):
        given = replace(given, clock=_clock(store))
        yield _night(beside, store, given, settings, until, lambda: missed, service.kept_folder(site, place, out)
                     ), beside


def _recorded(one: Missed, recorder: VisitRecorder) -> Steps[Measured]:
    recorder.begin(one.visit.visit, one.detector)
    measured = yield from one.measure()
    recorder.append("exposure_log", measured.log)
    return measured


@contextmanager
def stored(url: str, folder: Path, night: int | None, config: PipelineConfig) -> Iterator[tuple[Night, Beside]]:
    """The morning of a store alone: nothing to catch up and nothing kept; `night` is YYYYMMDD, the last one if None."""
    ports = partial(Ports, clock=lambda: 0.0, recorder=VisitRecorder(folder / "caught_up"), **_no_services())
    with _opened(url, "memory:", ports) as (store, given):
        given = replace(given, clock=_clock(store))
        visits = np.unique(store.table("DetectorVisitProcessingSummary")["visit"])
        visits = visits[visits > 0]
        if not len(visits):
            raise InputError(f"{url}: no detector-visits in this store")
        chosen = int(visits[-1] // 100_000) if night is None else night
        visits = visits[visits // 100_000 == chosen]
        if not len(visits):
            raise InputError(f"{url}: no visits of the night {chosen}")
        sources = store.table("DiaSource")
        times = sources["midpointMjdTai"][np.isin(sources["visit"], visits)]
        since, until = (float(times.min()), float(times.max()) + 1 / 86400) if len(times) else (np.inf, -np.inf)
        beside = Beside(folder, None, visits, since)
        yield replace(_night(beside, store, given, config, until, lambda: (), folder / KEPT), day_obs=chosen), beside


def _night(beside: Beside, store: PromptArchive, ports: Ports, config: PipelineConfig, until: float,
           missed: Callable[[], Sequence[Missed]], kept: Path) -> Night:
    archive = FolderArchive(kept, config.batch.precovery.noise_steps) if kept.is_dir() else None

    def done(outcome: CaughtUp) -> None:
        beside.recorder.end()

    return Night(day_obs(beside.since) if np.isfinite(beside.since) else 0, beside.since, until, store, ports, config,
                 beside.journal, missed, archive, partial(consolidate, beside, store),
                 keeper(config.batch.precovery, kept), done)


@contextmanager
def _opened(url: str, sink: str, ports: Callable[..., Ports]) -> Iterator[tuple[PromptArchive, Ports]]:
    if url.startswith("duckdb:") and not Path(url.partition(":")[2]).is_file():
        raise InputError(f"prompt store {url!r}: there is no such file")
    store, alerts = open_store(url), open_sink(sink, headers={"simulated": "true"})
    try:
        yield store, ports(store=store, sink=alerts)
    finally:
        alerts.close()
        store.close()


def _clock(store: PromptArchive) -> Clock:
    """The wall clock; of a simulated night, whose time is yet to come, a clock that begins after it."""
    from twin.process import tai_now

    latest = float(store.table("DiaObject")["validityStartMjdTai"].max(initial=0.0))
    return MorningClock(latest + HOUR) if latest > tai_now() else tai_now


def _no_services() -> dict[str, Any]:
    from pipeline.ephemerides import TableEphemerides
    from pipeline.satellites import TrackSatellites
    from schemas import measures

    return {"ephemerides": TableEphemerides(measures.empty(measures.EPHEMERIS)),
            "satellites": TrackSatellites(measures.empty(measures.TRACK))}


# --- what it leaves --------------------------------------------------------------------------------------------------


def consolidate(beside: Beside, store: PromptArchive) -> dict[str, Any]:
    """Write the run as the morning leaves it; the night in numbers. Done again it writes the same."""
    caught_up = caught(beside, store)
    log = _log(beside, store, caught_up)
    whole = {name: store.table(name) for name in PROMPT_TABLES}
    rows = {name: _of(table, beside) for name, table in whole.items()}
    tables = Tables(rows["DiaObject"], rows["DiaSource"], rows["DiaForcedSource"],
                    rows["DetectorVisitProcessingSummary"], log, caught_up)
    visits = visit_summaries(tables)
    summary = night_summary(tables, visits)
    aside = beside.folder / ".measures.writing"
    shutil.rmtree(aside, ignore_errors=True)
    with ParquetRecorder(aside) as recorder:
        for name, table in {**(whole if beside.whole else rows), "exposure_log": log, "visit_summary": visits,
                            "retraction": read_retractions(beside.retractions)}.items():
            recorder.append(name, table)
    _link(beside, aside, caught_up)
    _place(aside, beside.folder / "measures")
    _written(beside.folder / "summary.json", json.dumps(summary, indent=1))
    return summary


def caught(beside: Beside, store: PromptArchive) -> np.ndarray:
    """(n, 2) visit and detector of those that were caught up and are in the store."""
    found = [tuple(map(int, path.name.split("_"))) for path in sorted((beside.folder / "caught_up").glob("[0-9]*_*"))]
    return np.array([key for key in found if store.contains(*key)], np.int64).reshape(-1, 2)


def _log(beside: Beside, store: PromptArchive, caught_up: np.ndarray) -> np.ndarray:
    """The night's log with the rows of what was caught up in place of what they were."""
    if beside.run is None:
        return empty("exposure_log")
    log = Store(beside.run).table("exposure_log")
    new = []
    for visit, detector in caught_up.tolist():
        row = Store(_folder(beside, visit, detector)).optional("exposure_log")[:1].copy()
        sources = _at(store.table("DiaSource"), visit, detector)
        row["status"], row["reason"], row["n_sources"] = b"done", b"caught up", len(sources)
        row["n_new_objects"] = np.sum(np.isin(sources["diaSourceId"], store.table("DiaObject")["diaObjectId"]))
        row["done_mjd_tai"], row["n_alerts"] = sources["timeProcessedMjdTai"].max(initial=0.0), 0
        log = log[~((log["visit"] == visit) & (log["detector"] == detector))]
        new.append(row)
    return np.concatenate([log, *new]) if new else log


def _of(rows: np.ndarray, beside: Beside) -> np.ndarray:
    """Rows of a prompt table that belong to the night: of its visits, or of its time."""
    names = rows.dtype.names or ()
    if "visit" in names:
        return take(rows, np.isin(rows["visit"], beside.visits))
    if "validityStartMjdTai" in names and np.isfinite(beside.since):
        return take(rows, rows["validityStartMjdTai"] >= beside.since)
    return rows


def _at(rows: np.ndarray, visit: int, detector: int) -> np.ndarray:
    return take(rows, (rows["visit"] == visit) & (rows["detector"] == detector))


def _folder(beside: Beside, visit: int, detector: int) -> Path:
    return beside.folder / "caught_up" / f"{visit:d}_{detector:d}"


def _link(beside: Beside, measures: Path, caught_up: np.ndarray) -> None:
    """Put beside the new tables those of the night that stay, and what is known of the visits that were caught up."""
    if beside.run is None:
        return
    for table in (path for path in (beside.run / "measures").iterdir() if path.name not in REPLACED):
        for part in table.glob("part-*.parquet"):
            _hard(part, measures / table.name / part.name)
    log = Store(beside.run).table("exposure_log")
    for number, (visit, detector) in enumerate(caught_up.tolist()):
        known = np.any((log["visit"] == visit) & (log["detector"] == detector) & (log["fidelity"] != b""))
        for table in (_folder(beside, visit, detector) / "measures").iterdir():
            if table.name not in REPLACED and (table.name == "rejection" or not known):
                for part in table.glob("part-*.parquet"):
                    _hard(part, measures / table.name / f"part-9{number:04d}-{part.name[5:]}")
    facts = np.zeros(1, FACT)
    facts["key"], facts["value"] = b"batch", f"caught up {len(caught_up)} detector-visits".encode()
    with ParquetRecorder(measures / ".facts") as recorder:
        recorder.append("fact", facts)
    _hard(measures / ".facts" / "fact" / "part-00000.parquet", measures / "fact" / "part-90000.parquet")
    shutil.rmtree(measures / ".facts")
    for name in ("stamps", "scenario.toml"):
        place = beside.folder / name
        if (beside.run / name).exists() and not place.is_symlink():
            place.symlink_to(Path("..") / name)


def _hard(file: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)


def _place(aside: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(aside, folder)
    shutil.rmtree(old, ignore_errors=True)


def _written(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.writing")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def note_retractions(path: Path, rows: np.ndarray) -> None:
    """Add RETRACTION rows to a file of JSON lines, on disk before it returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({name: row[name].decode() if name == "reason" else row[name].item()
                                   for name in RETRACTION.names or ()}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_retractions(path: Path) -> np.ndarray:
    """RETRACTION rows, the first of each source; a line that a kill cut short is none."""
    rows = empty("retraction")
    if not path.is_file():
        return rows
    text = path.read_text(encoding="utf-8")
    entries: dict[int, dict[str, Any]] = {}
    for line in text[:text.rfind("\n") + 1].splitlines():
        entry = json.loads(line)
        entries.setdefault(entry["diaSourceId"], entry)
    rows = np.zeros(len(entries), RETRACTION)
    for row, entry in zip(rows, entries.values(), strict=True):
        for name in RETRACTION.names or ():
            row[name] = entry[name].encode() if name == "reason" else entry[name]
    return rows


__all__ = ["EXPOSURE_LOG", "Beside", "consolidate", "note_retractions", "produced", "read_retractions", "simulated",
           "stored"]
