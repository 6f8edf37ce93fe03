"""Survey nights at catalogue fidelity for tests and benchmarks: one detector-visit after the other."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from pipeline.ports import AlertSink, Ports, PromptStore, Recorder
from pipeline.prompt import Known, Summary, deliver, preload, report_sources
from pipeline.satellites import TrackSatellites
from pipeline.steps import Steps
from schemas.measures import FACT, TRACK, empty
from twin.recorder import PROMPT_TABLES, ParquetRecorder
from twin.scenario import Scenario
from twin.wide import WideSource

DELAY_D = 60.0 / 86400         # from shutter close to the save
T = TypeVar("T")


@dataclass
class Watch:
    """CPU seconds of this process by what they went into; what follows the last Step is `after NAME`."""

    spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    sizes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    last: float = 0.0

    def begin(self) -> None:
        self.last = time.process_time()

    def lap(self, name: str) -> None:
        now = time.process_time()
        self.spent[name] += now - self.last
        self.last = now

    def drive(self, steps: Steps[T]) -> T:
        self.begin()
        name = "nothing"
        while True:
            try:
                step = next(steps)
            except StopIteration as stop:
                self.lap(f"after {name}")
                return stop.value  # type: ignore[no-any-return]  # the generator's declared return type
            name = step.name
            self.sizes[name] += step.size
            self.lap(name)


@dataclass
class Night:
    """A survey night without a platform: all detectors of a visit at one time, and nothing waits.

    A visit is preloaded `lead_s` before its shutter opens, and reported `latency_s` after it closed: at once where that
    is None, so that no two visits overlap.
    """

    source: WideSource
    store: PromptStore
    sink: AlertSink
    recorder: Recorder
    scenario: Scenario
    latency_s: float | None = None
    lead_s: float = 20.0
    watch: Watch = field(default_factory=Watch)
    known: dict[tuple[int, int], Known] = field(default_factory=dict)

    def run(self, numbers: Sequence[int], after: Callable[[int, list[Summary]], None] = lambda k, s: None
            ) -> list[Summary]:
        """All visits, in the order of time."""
        plan, events, out = self.source.plan, [], []
        for number in numbers:
            opens, closes = float(plan.opens_s[number]), float(plan.closes_s[number])
            report = closes + (DELAY_D * 86400 if self.latency_s is None else self.latency_s)
            events += [(report if self.latency_s is None else opens - self.lead_s, number, 0), (report, number, 1)]
        for at, number, what in sorted(events, key=lambda event: event if self.latency_s is not None else event[1:]):
            if what:
                out += (made := self.report(number, plan.origin_mjd_tai + at / 86400))
                after(number, made)
            else:
                self.preload(number)
        return out

    def preload(self, number: int) -> None:
        visit, ports, watch = self.source.visit(number), self.ports(0.0), self.watch
        for detector in range(self.scenario.counts.detectors):
            watch.begin()
            box = self.source.box(number, detector)
            watch.lap("box")
            self.known[number, detector] = watch.drive(preload(visit, detector, box, ports, self.scenario.pipeline))

    def report(self, number: int, mjd_tai: float) -> list[Summary]:
        ports, config, watch, out = self.ports(mjd_tai), self.scenario.pipeline, self.watch, []
        for detector in range(self.scenario.counts.detectors):
            watch.begin()
            taken = self.source.take(number, detector)
            watch.lap("take")
            assert taken.measured is not None
            summary = watch.drive(report_sources(taken.measured, self.known.pop((number, detector)), ports, config))
            watch.drive(deliver(ports, config))
            log = taken.log.copy()
            log["n_sources"], log["n_new_objects"] = summary.n_sources, summary.n_new_objects
            log["n_alerts"], log["done_mjd_tai"] = summary.n_alerts, mjd_tai
            self.recorder.append("exposure_log", log)
            self.recorder.append("truth", taken.truth)
            watch.lap("record")
            out.append(summary)
        return out

    def ports(self, mjd_tai: float) -> Ports:
        return Ports(partial(float, mjd_tai), self.store, self.sink, self.recorder, self.source,
                     TrackSatellites(empty(TRACK)))


def finish(recorder: ParquetRecorder, store: PromptStore, source: WideSource) -> None:
    """The prompt tables and facts into the measurement store, which is closed."""
    for name in PROMPT_TABLES:
        recorder.append(name, store.table(name))
    facts = empty(FACT, len(source.facts))
    facts["key"], facts["value"] = list(source.facts), list(source.facts.values())
    recorder.append("fact", facts)
    recorder.close()


class Nothing:
    """A recorder that keeps nothing."""

    def append(self, table: str, rows: np.ndarray) -> None:
        pass
