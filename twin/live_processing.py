"""Live detectors among those that are numbers: their halves of the pipeline are run, on the same pods and services.

Steps of a live detector take what the platform's cost table says of their real sizes, scattered as a counted one's
would be. Trouble reaches them through their ports, and the pipeline itself tries again; what other services do
(registry, templates, images) is as for counted ones. Packets leave through `deliver` when the platform's outbox says
so. A live detector-visit leaves its numbers in the night's, so that the same night can be run again as numbers alone.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from time import thread_time
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
import simpy

from pipeline.associate import Associated
from pipeline.config import PipelineConfig, PublishConfig
from pipeline.errors import NonRetriableError, PipelineError, RetriableError, TooManyDiaObjects, VisitTimeout
from pipeline.filter import Filtered
from pipeline.pixel_half import Measured
from pipeline.ports import Ports
from pipeline.prompt import Known, Summary, deliver, preload, report_sources
from pipeline.sinks.memory import MemorySink
from pipeline.steps import Step, Steps, run
from schemas.measures import EXPOSURE_LOG, WORK_STEPS, empty
from schemas.measures import STEP as STEP_ROW
from schemas.table import join
from twin.costs import CostTable
from twin.counts import FILTERS, Numbers
from twin.exposure_log import end, unseen
from twin.faults import Wrapper
from twin.live import Source, Taken
from twin.plan import DAY_S, Plan
from twin.platform_config import PlatformConfig
from twin.prompt_processing import (
    COLUMN,
    ISR_STEPS,
    PIXEL_STEPS,
    PRELOADED,
    RELOADED,
    SAVED,
    SINGLE_FRAME_STEPS,
    STANDARDIZED,
    STEP,
    Ended,
    Events,
    Message,
    PromptProcessing,
    Ran,
)
from twin.troubles import Trouble

T = TypeVar("T")
OF_DETECTIONS: Final = ("measure", "cutouts", "reliability")     # of PIXEL_STEPS
SERVICE_OF_CALL: Final = {"objects": "apdb", "history": "apdb", "save": "apdb", "contains": "apdb",
                          "near": "ephemeris", "allowed": "satellites"}


@dataclass(slots=True)
class _Said:
    """What troubled ports of one detector-visit had to refuse."""

    refused: str = ""          # the last service that did
    unanswered: bool = False   # a save landed and its answer was lost


class Troubled(Wrapper):
    """A port whose service may be down when it is called."""

    def __init__(self, port: Any, trouble: Callable[[str], bool], said: _Said, *, loses_answers: bool = False) -> None:
        super().__init__(port)
        self._down, self._said, self._loses_answers = trouble, said, loses_answers

    def _call(self, name: str, *arguments: Any) -> Any:
        service = SERVICE_OF_CALL.get(name, "")
        if service and self._down(service):
            self._said.refused = service
            raise RetriableError(f"{name}: {service} is down")
        answer = super()._call(name, *arguments)
        if name == "save" and self._loses_answers:
            self._said.unanswered = True
            raise RetriableError("save: the connection was lost before the answer")
        return answer


class LiveProcessing(PromptProcessing):
    """Prompt Processing with the detectors of a `Source` live.

    Parameters
    ----------
    ports : Ports
        Store, sink and recorder; clock and services are this night's own.
    """

    def __init__(self, config: PlatformConfig, plan: Plan, numbers: Numbers, troubles: Sequence[Trouble] = (), *,
                 source: Source, ports: Ports, costs: CostTable, pipeline: PipelineConfig, seed: int = 1,
                 keep: Callable[[Measured], None] = lambda measured: None,
                 done: Callable[[int, int], None] = lambda number, of: None) -> None:
        super().__init__(config, plan, numbers, troubles, seed=seed,
                         max_new_objects=pipeline.associate.max_new_objects)
        self.source, self.pipeline = source, pipeline
        self.fidelities = source.fidelities
        self.ports = replace(ports, clock=self.clock, ephemerides=source.ephemerides, satellites=source.satellites)
        self._costs = costs
        self._lines = [(costs.file.steps[name].a * costs.scale, costs.file.steps[name].b * costs.scale)
                       for name in WORK_STEPS]
        self._known: dict[int, Known] = {}
        self._told: set[int] = set()           # rows whose truth is recorded
        self.logs: dict[int, np.ndarray] = {}  # by row, those not recorded yet
        self._tell, self._n_done, self._n_live = done, 0, len(plan) * len(self.fidelities)
        self._keep_pixels = keep

    def clock(self) -> float:
        """Now, TAI as MJD."""
        return self.plan.origin_mjd_tai + float(self.env.now) / DAY_S

    # --- a detector-visit -------------------------------------------------------------------------------------------

    def _work(self, message: Message, cache: "deque[int]", *, cold: bool) -> Events:
        if message.row < 0 or message.detector not in self.fidelities:
            yield from super()._work(message, cache, cold=cold)
            return
        taken: Taken | None = None
        summary: Summary | None = None
        failed = ""
        try:
            missing = yield from self._preload(message, cache, cold=cold)
            message.times[PRELOADED] = self.env.now
            yield from self._image(message)
            if missing:
                yield from self._fall_back(message, missing)
            if message.troubled:
                yield from self._pixel_troubles(message)
            taken = self._take_image(message)
            yield from self._measure_pixels(message)
            if taken.measured is None:
                failed = taken.reason
                raise Ended("no template" if taken.status == "no_work" else "pipeline failed")
            summary = yield from self._report(message, taken)
            yield from self._send_live(message, summary)
            if not (yield from self._call(message, "export")):
                self.counters["not_exported"] += 1
        except Ended as ended:
            failed = failed or ended.reason
            taken = self._foresee(message, taken)
            raise
        except PipelineError as error:
            failed = " ".join(str(error).split())
            taken = self._foresee(message, taken)
            raise Ended("pipeline failed") from None
        finally:
            self._known.pop(message.row, None)
            if taken is not None and taken.measured is not None:
                self._keep_pixels(taken.measured)
                taken.measured.pixels.close()
            self._log(message, taken, summary, failed)

    def _look_up(self, message: Message) -> Generator[simpy.Event, Any, str]:
        if message.row < 0 or message.detector not in self.fidelities:
            return (yield from super()._look_up(message))
        said = _Said()
        visit, box = self.source.visit(message.visit), self.source.box(message.visit, message.detector)
        try:
            known = yield from self._drive(message, preload(visit, message.detector, box, self._ports_of(message, said),
                                                            self.pipeline))
        except PipelineError:
            return "no preload"
        if said.refused == "ephemeris" and not len(known.ephemerides):
            self.counters["without_ephemerides"] += 1
        self._known[message.row] = known
        return ""

    def _take_image(self, message: Message) -> Taken:
        """The pixel half, and what it takes on this platform."""
        taken = self._measure(message.visit, message.detector)
        if message.row not in self._told:
            self._told.add(message.row)
            self._record_taken(message, taken)
        return taken

    def _measure(self, visit: int, detector: int) -> Taken:
        """The same, with its numbers in the night's."""
        row = visit * self.n_detectors + detector
        taken = self.source.take(visit, detector)
        counts, work = self.numbers.counts, self.numbers.work
        n = len(taken.measured.sources) if taken.measured is not None else 0
        counts[row] = 0
        counts["n_detected"][row] = self._detected[row] = n
        self._alerts[row] = self._bytes[row] = self._fresh[row] = 0
        if taken.half is None:
            for name in OF_DETECTIONS:        # the others grow with the image, as the counted one's
                work[row, COLUMN[name]] = self._seconds(row, name, n)
        else:
            sizes: dict[str, float] = {}
            for worked in taken.half.steps:
                sizes[worked.step.name] = sizes.get(worked.step.name, 0.0) + worked.step.size
            for name in PIXEL_STEPS:
                work[row, COLUMN[name]] = self._seconds(row, name, sizes[name]) if name in sizes else 0.0
        self._pixel[row] = self._sum(row, PIXEL_STEPS)
        self._single[row], self._isr[row] = self._sum(row, SINGLE_FRAME_STEPS), self._sum(row, ISR_STEPS)
        return taken

    def _foresee(self, message: Message, taken: Taken | None) -> Taken | None:
        """What would have become of a detector-visit that fails, for the night without faults: nothing is saved."""
        if not self._saved[message.row]:
            taken = taken or self._measure(message.visit, message.detector)
            self.foresee(message.visit, message.detector, taken, self._known.get(message.row))
        return taken

    def foresee(self, visit: int, detector: int, taken: Taken | None = None, known: Known | None = None) -> None:
        """The numbers of a detector-visit that did not save: those that it would have had now."""
        row = visit * self.n_detectors + detector
        mine = taken is None
        taken = taken or self._measure(visit, detector)
        if taken.measured is None:
            return
        ports = replace(self.ports, store=Unsaved(self.ports.store), recorder=Silent(), sink=MemorySink())
        config = msgspec.structs.replace(self.pipeline, publish=PublishConfig())
        filtered: list[Step] = []

        def look(step: Step) -> None:
            filtered.extend([step] if step.name == "filter" else [])
            if step.name == "package":
                self._bytes[row] = step.size

        try:
            known = known or run(preload(self.source.visit(visit), detector, self.source.box(visit, detector), ports,
                                         config))
            self._count(row, run(report_sources(taken.measured, known, ports, config), look))
        except TooManyDiaObjects:
            self._count_left(row, filtered[0].left, None)
        if mine:
            taken.measured.pixels.close()

    def _count_left(self, row: int, filtered: Filtered, associated: Associated | None) -> None:
        """The numbers of a detector-visit that gave no Summary; one that was not associated has too many new objects,
        whatever the platform does.
        """
        counts, stages = self.numbers.counts, filtered.rejections["stage"]
        for name in FILTERS:
            counts[f"n_{name}"][row] = np.count_nonzero(stages == name.encode())
        n, fresh = len(filtered.sources), self.max_new_objects + 1
        if associated is not None:
            counts["n_new_objects"][row], n, fresh = n - len(associated), len(associated), associated.n_new
        counts["n_alerts"][row] = self._alerts[row] = n
        counts["n_fresh"][row] = self._fresh[row] = fresh
        counts["bytes"][row] = self._bytes[row]

    def _sum(self, row: int, names: Sequence[str]) -> float:
        work = self.numbers.work[row].tolist()
        return float(sum(work[COLUMN[name]] for name in names))

    def _seconds(self, row: int, name: str, size: float) -> float:
        """What a Step of a real size takes: the table's line, off it by as much as the counted one would be."""
        k = COLUMN[name]
        a, b = self._lines[k]
        return float(np.float32(float(self.numbers.scatter[row, k]) * (a + b * size)))     # as the night keeps it

    def _report(self, message: Message, taken: Taken) -> Generator[simpy.Event, Any, Summary]:
        """The catalogue half; Ended where it gives no alerts."""
        assert taken.measured is not None
        said, known, left = _Said(), self._known[message.row], dict[str, Any]()
        half = report_sources(taken.measured, known, self._ports_of(message, said), self.pipeline)
        try:
            summary = yield from self._drive(message, half, lambda step: left.__setitem__(step.name, step.left))
        except TooManyDiaObjects:
            raise Ended("too many new objects") from None
        except NonRetriableError:
            if not said.unanswered:
                raise
            self._landed(message)
            self._count_left(message.row, left["filter"], left["associate"])
            self.counters["unanswered"] += 1
            self._leave(message, self.env.now)
            raise Ended("committed, not sent") from None
        except RetriableError:
            if said.refused in ("satellites", "apdb"):
                raise Ended(said.refused) from None
            raise
        self._count(message.row, summary)
        return summary

    def _count(self, row: int, summary: Summary) -> None:
        """The real numbers in place of the drawn ones."""
        counts, stages = self.numbers.counts, summary.rejections["stage"]
        for name in FILTERS:
            counts[f"n_{name}"][row] = np.count_nonzero(stages == name.encode())
        counts["n_alerts"][row] = self._alerts[row] = summary.n_alerts
        counts["n_fresh"][row] = self._fresh[row] = summary.n_new_objects
        counts["bytes"][row] = self._bytes[row]

    def _landed(self, message: Message) -> None:
        """The save is in the database."""
        self._saved[message.row] = True
        message.times[SAVED] = self.env.now
        self.reason[message.row] = "committed, not sent"

    def _send_live(self, message: Message, summary: Summary) -> Events:
        if self.pipeline.publish.order == "outbox":
            yield from self._send(message)
        elif summary.n_lost:
            self.reason[message.row] = "kafka"
        else:
            super()._publish_alerts(message)

    def _publish_alerts(self, message: Message) -> None:
        before = self.n_sent_twice[message.row]
        super()._publish_alerts(message)
        if self.n_sent_twice[message.row] == before and message.detector in self.fidelities:
            self.env.process(self._deliver(message))

    def _deliver(self, message: Message) -> Events:
        """The packets themselves; what that takes was spent by who sends, retries wait."""
        only = (int(self.plan.visit[message.visit]), message.detector)
        steps = deliver(self.ports, self.pipeline, only=only)
        for step in steps:
            if step.delay_s:
                yield self.env.timeout(step.delay_s)

    # --- ports and Steps --------------------------------------------------------------------------------------------

    def _ports_of(self, message: Message, said: _Said) -> Ports:
        """The ports of a detector-visit; troubled ones only where a trouble touches it."""
        if not message.troubled:
            return self.ports

        def down(service: str) -> bool:
            return self._service_trouble(message, service)[0]

        loses = self._trouble("commits_then_fails", message) is not None
        return replace(self.ports, store=Troubled(self.ports.store, down, said, loses_answers=loses),
                       ephemerides=Troubled(self.ports.ephemerides, down, said),
                       satellites=Troubled(self.ports.satellites, down, said),
                       sink=Refusing(self.ports.sink, lambda: self._kafka_down(message)))

    def _kafka_down(self, message: Message) -> bool:
        trouble = self._trouble("kafka_down", message)
        return trouble is not None and trouble.at(self.env.now)

    def _drive(self, message: Message, steps: Steps[T], look: Callable[[Step], None] = lambda step: None
               ) -> Generator[simpy.Event, Any, T]:
        """A half of the pipeline, each Step at its service or on the worker, until the worker's time is over."""
        clock = _no_time if self.source.brief else thread_time      # which takes as long as a small Step
        began, last = clock(), ""
        while True:
            try:
                step = next(steps)
            except StopIteration as stop:
                self._passed(message, last)
                return stop.value  # type: ignore[no-any-return]  # the generator's declared return type
            worked = clock() - began
            if not step.name.startswith("retry."):
                self._passed(message, last)
            last = step.name
            look(step)
            start = float(self.env.now)
            try:
                yield from self._pay(message, step)
            except Ended as ended:
                self._stop(steps, ended)
                raise
            if not self.source.brief:
                self._note(message, step, start, worked)
            if step.name == "save" and self._saved[message.row]:
                steps.close()
                raise Ended("done already")
            began = clock()

    def _passed(self, message: Message, last: str) -> None:
        """A Step was followed by something else than a new try: its effect is there."""
        if last == "save":
            self._landed(message)
        elif last == "transform":
            message.times[STANDARDIZED] = message.times[RELOADED] = self.env.now
        elif last == "reload":
            message.times[RELOADED] = self.env.now

    def _stop(self, steps: Steps[T], ended: Ended) -> None:
        """Time is over, which is thrown into the pipeline; or its worker is gone, which closes it."""
        if ended.reason != "timeout":
            steps.close()
            return
        try:
            steps.throw(VisitTimeout(f"{self.config.timeout_s:g} s"))
        except (VisitTimeout, StopIteration):
            return
        steps.close()

    def _pay(self, message: Message, step: Step) -> Events:
        """Wait what a Step takes."""
        row, name = message.row, step.name
        if name.startswith("retry."):
            number, now = STEP.get(name.removeprefix("retry.")), self.env.now
            if number is not None:
                until = now + min(step.delay_s, message.limit - now)
                self._calls.extend((row, message.number, number, now, until, until))
            yield from self._spend(message, step.delay_s)
            return
        if name not in COLUMN:
            self._costs.seconds(step)          # which says that there is none
        seconds = self._seconds(row, name, step.size)
        self.numbers.work[row, COLUMN[name]] = seconds
        if name == "package":
            self._bytes[row] = step.size
        if name == "send" and self._kafka_down(message):
            seconds = self.config.publication.delivery_timeout_s
        if name not in STEP:
            yield from self._spend(message, seconds)
            return
        number = STEP[name]
        desk, _, service = self._desks[number]
        if message.troubled:
            seconds *= self._service_trouble(message, service)[1]
        now = self.env.now
        start, end, served = desk.book(now, seconds, message.limit)
        self._calls.extend((row, message.number, number, now, start, end))
        if end > now:
            yield self.env.timeout(end - now)
        if not served:
            raise Ended(message.limit_reason)

    def run(self, drive: Callable[[simpy.Environment], None] = simpy.Environment.run) -> Ran:
        """The whole night; what no worker had is measured after it, for the night without faults."""
        ran = super().run(drive)
        never = [row for row in self._live_rows() if row not in self.logs]
        for row in never:
            self.foresee(*divmod(row, self.n_detectors))
        if never:
            for name in ran.passages.dtype.names or ():
                if name in (self.numbers.counts.dtype.names or ()):
                    ran.passages[name] = self.numbers.counts[name]
        return ran

    def _live_rows(self) -> list[int]:
        return [number * self.n_detectors + detector for number in range(len(self.plan))
                for detector in sorted(self.fidelities)]

    # --- records ----------------------------------------------------------------------------------------------------

    def _note(self, message: Message, step: Step, start: float, cpu_s: float) -> None:
        row = empty(STEP_ROW, 1)
        row["visit"], row["detector"] = self.plan.visit[message.visit], message.detector
        row["name"], row["size"] = step.name.encode(), step.size
        row["start_mjd_tai"] = self.plan.origin_mjd_tai + start / DAY_S
        row["duration_s"], row["cpu_s"] = float(self.env.now) - start, cpu_s
        row["measured"] = not step.delay_s
        self.ports.recorder.append("step", row)

    def _record_taken(self, message: Message, taken: Taken) -> None:
        """What is known of a detector-visit when its pixel half is over: recorded once."""
        record = self.ports.recorder.append
        record("truth", taken.truth)
        if taken.half is None:
            return
        half = taken.half
        for name, rows in (("truth_pixels", half.truth_pixels), ("stamp", half.stamps), ("trace", half.trace),
                           ("star", half.stars)):
            record(name, rows)
        start, rows = float(self.env.now), empty(STEP_ROW, len(half.steps))
        rows["visit"], rows["detector"], rows["measured"] = self.plan.visit[message.visit], message.detector, True
        for one, worked in zip(rows, half.steps, strict=True):
            seconds = self._seconds(message.row, worked.step.name, worked.step.size)
            one["name"], one["size"] = worked.step.name.encode(), worked.step.size
            one["start_mjd_tai"] = self.plan.origin_mjd_tai + start / DAY_S
            one["duration_s"], one["cpu_s"], one["peak_mb"] = seconds, worked.cpu_s, worked.peak_mb
            start += seconds
        record("step", rows)

    def _log(self, message: Message, taken: Taken | None, summary: Summary | None, failed: str) -> None:
        """EXPOSURE_LOG of an attempt; a later one takes its place, unless this one saved."""
        row = message.row
        if self.logs.get(row) is not None and self.logs[row]["status"][0] == b"done":
            return
        visit = self.source.visit(message.visit)
        log = taken.log.copy() if taken is not None else unseen(visit, message.detector)
        log["fidelity"] = self.fidelities[message.detector].encode()
        status = "done" if summary is not None else "timeout" if failed == "timeout" else \
            taken.status if taken is not None and taken.measured is None else "failed"
        end(log, summary, status, "" if summary is not None else failed)
        log["readout_end_mjd_tai"] = visit.shutter_close_mjd_tai + self.config.readout_s / DAY_S
        log["done_mjd_tai"] = self.clock()
        if row not in self.logs:
            self._n_done += 1
            self._tell(self._n_done, self._n_live)
        self.logs[row] = log

    def log_rows(self) -> np.ndarray:
        """EXPOSURE_LOG of all live detector-visits, also of those that no worker had."""
        logs = []
        for row in self._live_rows():
            if row in self.logs:
                logs.append(self.logs[row])
                continue
            number, detector = divmod(row, self.n_detectors)
            log = unseen(self.source.visit(number), detector)
            end(log, None, "failed", self.reason[row])
            log["fidelity"] = self.fidelities[detector].encode()
            logs.append(log)
        return join(logs) if logs else empty(EXPOSURE_LOG)


def _no_time() -> float:
    return 0.0


class Unsaved(Wrapper):
    """A store that reads and does not write."""

    def _call(self, name: str, *arguments: Any) -> Any:
        return None if name == "save" else super()._call(name, *arguments)


class Silent:
    """A recorder that keeps nothing."""

    def append(self, table: str, rows: np.ndarray) -> None:
        """Nothing."""


class Refusing(Wrapper):
    """A sink that refuses everything while its broker is down."""

    def __init__(self, port: Any, down: Callable[[], bool]) -> None:
        super().__init__(port)
        self._down = down

    def _call(self, name: str, *arguments: Any) -> Any:
        if name == "send" and self._down():
            raise RetriableError("send: the broker is down")
        return super()._call(name, *arguments)


__all__ = ["LiveProcessing", "Refusing", "Troubled"]
