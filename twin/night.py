"""A night from a scenario to a run folder.

    cadence -> nextVisit -> queue -> worker: preload, image, pixel half, catalogue half -> outbox -> broker

Time is simulated: Steps take what the cost table says. The pixel halves are computed by a pool of processes at any real
time, ahead of the simulated clock and bounded; the catalogue half has the effects and runs in simulated order.
"""

import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import simpy

from pipeline.ephemerides import TableEphemerides
from pipeline.errors import InputError, NoWorkFound, PipelineError, VisitTimeout
from pipeline.ports import Ports
from pipeline.prompt import PRELOAD_MARGIN_ARCSEC, Summary, deliver, footprint_box, preload, report_sources
from pipeline.satellites import TrackSatellites
from pipeline.steps import Step
from reports.state import State
from schemas.exposure import Visit
from schemas.measures import MEASUREMENT, STEP, empty, fact_rows
from schemas.table import take
from twin import prefill
from twin.cache import Cache
from twin.conduct import Conduct, Stopped
from twin.costs import CostTable
from twin.exposure_log import end, unseen
from twin.halves import (
    Half,
    Job,
    Worked,
    is_known,
    machine_name,
    observatory,
    pixel_half,
    recalled_half,
    scratch,
    template_of,
)
from twin.keeping import KEPT, keeper
from twin.night_pulse import NightPulse
from twin.outside import check_topic, ports_of, scratch_in
from twin.platform import SECONDS_PER_DAY, Platform, Timed, drive, replay
from twin.pool import Inline, LookAhead, assert_one_thread, warm
from twin.recorder import PROMPT_TABLES, ParquetRecorder
from twin.running import Running, begun, keep_scenario, public, settings, telling
from twin.scenario import Scenario, find_file, to_toml
from twin.trace_catalogue import CatalogueTracer

MEASURED = np.dtype([("visit", "i8"), ("detector", "i2"), *((n, MEASUREMENT[n]) for n in MEASUREMENT.names or ())])

Progress = Callable[[str, int, int], None]      # what, done, of how many


@dataclass(frozen=True, slots=True)
class Outcome:
    """A night in numbers."""

    folder: Path
    visits: int
    done: int
    alerts: int
    wall_s: float

    def __str__(self) -> str:
        return (f"{self.done} of {self.visits} detector-visits, {self.alerts} alerts in {self.wall_s:.0f} s: "
                f"{self.folder}")


def run_night(scenario: Scenario, folder: Path, *, beside: Path = Path(), processes: int = 1, keep_images: bool = False,
              progress: Progress = lambda what, done, total: None, sink: str = "", any_topic: bool = False,
              cache: Cache | None = None, store: str = "", past: Path | None = None, again: bool = False,
              conduct: Conduct | None = None) -> Outcome:
    """Simulate a scenario's night into a new run folder; `beside` is where its cost table may lie.

    `sink` is a URL for the alerts, files in the folder without one. Simulated alerts go to the Kafka topic
    `alerts-simulated`; `any_topic` allows another. `store` is a URL for the prompt tables while the night lasts, a
    DuckDB file in the folder without one; that file begins with the tables of a `past`, a folder of `twin.prefill`.
    With a `cache` nothing is drawn or measured that was before.

    InputError where the folder is occupied or cannot be written, before anything is computed. Whatever ends the run
    early takes the folder with it. With `again` the folder is of a run that did not finish (`twin.running`). `conduct`
    says how the night is gone through: at once without one.
    """
    start, conduct = perf_counter(), conduct or Conduct()
    assert_one_thread()
    costs = CostTable.read(find_file(scenario.platform.costs, beside, "cost table"), scenario.platform.cost_scale)
    check_topic(sink, any_topic=any_topic)
    if past is not None and store:
        raise InputError(f"past {past}: a night begins with it in its own DuckDB file, not in {store}")
    state = State(kind="pixels", name=scenario.name, seed=scenario.seed, doing="the sky", settings=settings(
        beside=beside, keep_images=keep_images, sink=public(sink), any_topic=any_topic, store=public(store), past=past,
        cache=cache.folder if cache is not None else None))
    with begun(folder, state, again=again, stays=lambda: conduct.known) as here:
        if past is not None:
            prefill.place(past, scenario, folder / prefill.STORE)
        place = Place(folder, sink or f"file:{folder / 'alerts'}", store or f"duckdb:{folder / prefill.STORE}", cache,
                      keep_images)
        night = _into(place, scenario, costs, processes, telling(here, progress), start, here, conduct)
    return Outcome(folder, len(night.log), sum(row["status"][0] == b"done" for row in night.log),
                   sum(max(int(row["n_alerts"][0]), 0) for row in night.log), perf_counter() - start)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a night leaves what it makes, and finds what was made before."""

    folder: Path
    sink: str
    store: str
    cache: Cache | None = None
    keep_images: bool = False


def _into(place: Place, scenario: Scenario, costs: CostTable, processes: int, progress: Progress, start: float,
          here: Running, conduct: Conduct) -> "Night":
    """The night, over, with everything it recorded in its folder."""
    folder = place.folder
    keep_scenario(folder, to_toml(scenario))
    with (conduct.recorder(folder / "measures") as recorder, conduct.pool(processes) as pool, scratch_in(folder),
          ports_of(place.store, place.sink, recorder) as ports):
        recorder.replace("fact", facts(scenario, costs, processes, 0.0, {}))
        night = Night(place, costs, conduct.ports(ports), recorder, pool, processes, progress, here)
        with suppress(Stopped):
            night.run(conduct)
        night.pulse.look(last=True)
        for name in PROMPT_TABLES:
            recorder.replace(name, night.prompt(name))
        recorder.replace("fact", facts(scenario, costs, processes, perf_counter() - start,
                                       {**night.template_notes, **conduct.facts()}))
    if place.cache is not None:
        place.cache.settle()
    return night


class Night:
    """The simulated processes of one night, and the records they leave."""

    def __init__(self, place: Place, costs: CostTable, ports: Ports, recorder: ParquetRecorder, pool: Executor,
                 processes: int, progress: Progress, running: Running) -> None:
        self.here = here = observatory(place.folder, place.cache)
        self.recorder, self.progress = recorder, progress
        self.scenario, self.config = here.scenario, here.scenario.pipeline
        self.jobs = [Job(place.folder, visit, detector, place.keep_images, place.cache) for visit in here.visits
                     for detector in here.config.camera.detectors]
        first = here.visits[0]
        origin = first.mjd_tai - (first.exposure_s / 2 + self.scenario.platform.lead_s + 60.0) / SECONDS_PER_DAY
        self.platform = Platform(self.scenario.platform, costs, origin)
        self.pulse = NightPulse(running, recorder, self.prompt, self.platform, here.visits,
                                len(here.config.camera.detectors), self.scenario.platform.readout_s)
        self.ports = replace(ports, clock=self.platform.clock, recorder=self.pulse,
                             ephemerides=TableEphemerides(here.ephemerides()),
                             satellites=TrackSatellites(here.tracks()))
        self.known = {job for job in self.jobs if is_known(job)}
        unknown = [job for job in self.jobs if job not in self.known]
        if unknown and not isinstance(pool, Inline):
            progress("kernels", 0, 1)
            warm()
            progress("kernels", 1, 1)
        self.templates = {band: template_of(place.folder, band, pool, place.cache) for band in here.earlier}
        self.ahead = LookAhead(pool, pixel_half, unknown, 2 * processes, self._template_of)
        self.log: list[np.ndarray] = []
        self.killed = {here.visits[number - 1].visit for number in self.scenario.platform.killed
                       if number <= len(here.visits)}
        self.keep = keeper(self.config.batch.precovery, place.folder / KEPT)

    @property
    def template_notes(self) -> dict[str, str]:
        """What the templates were made of, as facts."""
        return {f"template_{band}": future.result() for band, future in self.templates.items() if future.done()}

    def run(self, conduct: Conduct) -> None:
        """The whole night, or what its conduct wants of it."""
        for future in self.templates.values():
            future.add_done_callback(lambda _: self._say("templates", self.templates.values()))
        visits = [self.platform.env.process(self._detector_visit(job)) for job in self.jobs]
        first = self.here.visits[0]
        opens_s = self.platform.seconds(first.mjd_tai - first.exposure_s / 2 / SECONDS_PER_DAY)
        conduct.drive(self.platform.env, self.platform.origin_mjd_tai, opens_s, simpy.AllOf(self.platform.env, visits))

    def prompt(self, name: str) -> np.ndarray:
        """A prompt table as the night has made it so far."""
        return _of_night(self.ports.store.table(name), self.here.visits)

    def _say(self, what: str, futures: Iterable[Future[str]]) -> None:
        self.progress(what, sum(future.done() for future in futures), len(self.templates))

    def _template_of(self, job: Job) -> Future[str]:
        return self.templates[job.visit.band]

    def _detector_visit(self, job: Job) -> Generator[simpy.Event, Any, None]:
        """One detector of one visit: from nextVisit to its packets with the broker."""
        p, visit, settings = self.platform, job.visit, self.scenario.platform
        opens = visit.mjd_tai - visit.exposure_s / 2 / SECONDS_PER_DAY
        yield p.until(opens - settings.lead_s / SECONDS_PER_DAY)
        arrives = visit.shutter_close_mjd_tai + (settings.readout_s + settings.transfer_s) / SECONDS_PER_DAY
        predicted = self.here.predicted(visit, job.detector)
        tracer = CatalogueTracer(visit.visit, job.detector, predicted)
        half: Half | None = None
        summary: Summary | None = None
        status, reason = "done", ""
        self.pulse.mark(visit, job.detector, "waiting")
        with p.workers.request() as worker:
            yield worker
            self.pulse.mark(visit, job.detector, "working")
            alarm = p.env.process(self._alarm(p.env.active_process))
            try:
                box = footprint_box(predicted, self._shape, PRELOAD_MARGIN_ARCSEC)
                known = yield from drive(preload(visit, job.detector, box, self.ports, self.config), p,
                                         partial(self._note, job, trace=tracer))
                yield p.until(arrives)
                if visit.visit in self.killed:
                    raise PipelineError("the worker was killed")
                half = self._half(job)
                yield from replay([(w.step, w.cpu_s) for w in half.steps], p, partial(self._note_half, job, half.steps))
                status, reason = half.status, half.reason
                if half.measured is not None:
                    tracer.wcs = half.measured.wcs
                    summary = yield from drive(report_sources(half.measured, known, self.ports, self.config), p,
                                               partial(self._note, job, trace=tracer))
            except (VisitTimeout, simpy.Interrupt):
                status, reason = "timeout", f"not done after {settings.timeout_s:g} s"
            except PipelineError as error:
                status, reason = "no_work" if isinstance(error, NoWorkFound) else "failed", str(error)
            finally:
                if half is None:
                    self.ahead.forget(job)
                elif half.measured is not None:
                    self.keep(half.measured)
                    half.measured.pixels.close()
            if alarm.is_alive:
                alarm.interrupt()
        self._record(job, half, summary, status, reason)
        self.recorder.append("trace", tracer.rows())
        if summary is None:
            self.pulse.mark(visit, job.detector, "failed")
            return
        self.pulse.mark(visit, job.detector, "saved", max(summary.n_alerts, 0))
        yield from drive(deliver(self.ports, self.config, only=(visit.visit, job.detector)), p,
                         partial(self._note, job))
        self.pulse.mark(visit, job.detector, "sent")

    def _half(self, job: Job) -> Half:
        """The pixel half of a job, from the cache or the processes."""
        found = recalled_half(job) if job in self.known else None
        return self.ahead.result(job) if found is None else found

    def _alarm(self, visit: simpy.Process | None) -> Generator[simpy.Event, Any, None]:
        """Interrupts a detector-visit whose time is over."""
        try:
            yield self.platform.env.timeout(self.scenario.platform.timeout_s)
        except simpy.Interrupt:
            return
        if visit is not None and visit.is_alive:
            visit.interrupt(VisitTimeout(f"{self.scenario.platform.timeout_s:g} s"))

    @property
    def _shape(self) -> tuple[int, int]:
        return self.here.config.camera.ny, self.here.config.camera.nx

    # --- records ----------------------------------------------------------------------------------------------------

    def _note(self, job: Job, timed: Timed, peak_mb: float = float("nan"),
              trace: Callable[[Step], None] = lambda step: None) -> None:
        row = empty(STEP, 1)
        step = timed.step
        trace(step)
        row["visit"], row["detector"], row["name"], row["size"] = job.visit.visit, job.detector, step.name, step.size
        row["start_mjd_tai"] = self.platform.origin_mjd_tai + timed.start_s / SECONDS_PER_DAY
        row["duration_s"], row["cpu_s"], row["peak_mb"] = timed.duration_s, timed.cpu_s, peak_mb
        row["measured"] = not step.delay_s
        self.recorder.append("step", row)
        self.pulse.look()

    def _note_half(self, job: Job, worked: tuple[Worked, ...], timed: Timed) -> None:
        peak = next(w.peak_mb for w in worked if w.step is timed.step)
        self._note(job, timed, peak)

    def _record(self, job: Job, half: Half | None, summary: Summary | None, status: str, reason: str) -> None:
        visit, settings = job.visit, self.scenario.platform
        log = half.log.copy() if half is not None else unseen(visit, job.detector)
        end(log, summary, status, reason)
        log["readout_end_mjd_tai"] = visit.shutter_close_mjd_tai + settings.readout_s / SECONDS_PER_DAY
        log["done_mjd_tai"] = self.platform.clock()
        self.log.append(log)
        self.recorder.append("exposure_log", log)
        if half is not None:
            self.recorder.append("truth", half.truth)
            self.recorder.append("truth_pixels", half.truth_pixels)
            self.recorder.append("stamp", half.stamps)
            self.recorder.append("trace", half.trace)
            self.recorder.append("star", half.stars)
            if half.measured is not None:
                self.recorder.append("measurement", with_visit(half.measured.sources, job))
        self.progress("detector-visits", len(self.log), len(self.jobs))


def _of_night(rows: np.ndarray, visits: Sequence[Visit]) -> np.ndarray:
    """Rows of a prompt table that the night made, without those of a past."""
    names = rows.dtype.names or ()
    if "visit" in names:
        return take(rows, np.isin(rows["visit"], [visit.visit for visit in visits]))
    if "validityStartMjdTai" in names:
        return take(rows, rows["validityStartMjdTai"] >= visits[0].mjd_tai)
    return rows     # SSSource: a past has none


def with_visit(sources: np.ndarray, job: Job) -> np.ndarray:
    """MEASUREMENT rows with the detector-visit in front."""
    rows = np.zeros(len(sources), MEASURED)
    rows["visit"], rows["detector"] = job.visit.visit, job.detector
    for name in MEASUREMENT.names or ():
        rows[name] = sources[name]
    return rows


def facts(scenario: Scenario, costs: CostTable, processes: int, wall_s: float, notes: Mapping[str, object]
          ) -> np.ndarray:
    """FACT rows: the run's circumstances."""
    values = {"scenario": scenario.name, "description": scenario.description, "seed": scenario.seed,
              "fidelity": "pixels", "kind": "simulated", "processes": processes, "wall_s": f"{wall_s:.1f}",
              "machine": machine_name(), "python": sys.version.split()[0], "twin": version("rubin-alert-twin"),
              "cost_table": costs.source, "cost_machine": costs.file.machine, "cost_date": costs.file.date,
              "cost_scale": costs.scale,
              **{package: version(package) for package in ("numpy", "scipy", "numba", "galsim", "duckdb")},
              **notes}
    return fact_rows(values)


__all__ = ["Night", "Outcome", "run_night", "scratch", "with_visit"]
