"""Survey nights at catalogue fidelity for tests and benchmarks: one detector-visit after the other."""

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from pipeline.ports import AlertSink, Ports, PromptStore, Recorder
from pipeline.prompt import Summary, deliver, preload, report_sources
from pipeline.satellites import TrackSatellites
from pipeline.steps import Steps
from schemas.measures import TRACK, empty
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


def run_visit(source: WideSource, number: int, detectors: Iterable[int], store: PromptStore, sink: AlertSink,
              recorder: Recorder, scenario: Scenario, watch: Watch) -> list[Summary]:
    """All detectors of a visit, from preload to delivery."""
    visit, config, out = source.visit(number), scenario.pipeline, []
    ports = Ports(partial(float, visit.shutter_close_mjd_tai + DELAY_D), store, sink, recorder, source,
                  TrackSatellites(empty(TRACK)))
    for detector in detectors:
        watch.begin()
        box = source.box(number, detector)
        watch.lap("box")
        known = watch.drive(preload(visit, detector, box, ports, config))
        taken = source.take(number, detector)
        watch.lap("take")
        assert taken.measured is not None
        summary = watch.drive(report_sources(taken.measured, known, ports, config))
        watch.drive(deliver(ports, config))
        log = taken.log.copy()
        log["n_sources"], log["n_new_objects"] = summary.n_sources, summary.n_new_objects
        log["n_alerts"], log["done_mjd_tai"] = summary.n_alerts, ports.clock()
        recorder.append("exposure_log", log)
        recorder.append("truth", taken.truth)
        watch.lap("record")
        out.append(summary)
    return out


class Nothing:
    """A recorder that keeps nothing."""

    def append(self, table: str, rows: np.ndarray) -> None:
        pass
