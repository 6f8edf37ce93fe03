"""Nights of overlapping visits for tests of the morning, on one deterministic clock, and what truth says of objects."""

import heapq
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.batch.catch_up import Missed
from pipeline.config import PipelineConfig
from pipeline.pixel_half import Measured
from pipeline.ports import Ports, PromptArchive
from pipeline.prompt import Summary, footprint_box, preload, report_sources
from pipeline.sphere import unit_vectors
from pipeline.steps import Step, Steps
from schemas.exposure import Visit
from schemas.table import take
from schemas.wcs import Wcs
from tests.twin.nights import DETECTOR, MJD, SHAPE, measured_of, ports_of

SECONDS = {"objects": 1.0, "history": 2.0, "reload": 0.5, "save": 1.0}


@dataclass
class Clock:
    """The clock that the driver below moves."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return MJD + self.seconds / 86400


def interleaved(starts: Sequence[tuple[float, Generator[float, None, Any]]], clock: Clock) -> list[Any]:
    """Generators of waits [s], each begun at its time, on one clock."""
    results: list[Any] = [None] * len(starts)
    queue = [(at, number) for number, (at, _) in enumerate(starts)]
    heapq.heapify(queue)
    while queue:
        clock.seconds, number = heapq.heappop(queue)
        try:
            heapq.heappush(queue, (clock.seconds + next(starts[number][1]), number))
        except StopIteration as stop:
            results[number] = stop.value
    return results


def timed(steps: Steps[Any]) -> Generator[float, None, Any]:
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            return stop.value
        yield step.delay_s or SECONDS.get(step.name, 0.1)


def visit_in_time(visit: Visit, truth: np.ndarray, ports: Ports, config: PipelineConfig, pixel_s: float,
                  **drawn: Any) -> Generator[float, None, Summary]:
    box = predicted(visit)
    known = yield from timed(preload(visit, DETECTOR, box, ports, config))
    yield pixel_s
    summary: Summary = yield from timed(report_sources(measured_of(visit, truth, **drawn), known, ports, config))
    return summary


def predicted(visit: Visit) -> Any:
    return footprint_box(Wcs.tangent(visit.ra, visit.dec, SHAPE), SHAPE, 50.1)


def concurrent_night(visits: Sequence[Visit], truth: np.ndarray | Callable[[Visit], np.ndarray],
                     config: PipelineConfig, store: PromptArchive, *, pixel_s: Callable[[int], float] = lambda i: 50.0,
                     lost: Sequence[int] = (), **drawn: Any) -> Ports:
    """A night whose visits begin when they are taken and take their time; those numbered in `lost` never run."""
    clock = Clock()
    ports = ports_of(store, clock=clock)
    truth_of = truth if callable(truth) else lambda visit: truth
    interleaved([(max((visit.mjd_tai - MJD) * 86400 - 35.0, 0.0),
                  visit_in_time(visit, truth_of(visit), ports, config, pixel_s(i), **drawn))
                 for i, visit in enumerate(visits) if i not in lost], clock)
    clock.seconds += 6 * 3600.0
    return ports_of(store, clock=Morning(clock.seconds), sink=ports.sink, recorder=ports.recorder)


@dataclass
class Morning:
    """A clock that moves on by a second whenever it is read."""

    seconds: float

    def __call__(self) -> float:
        self.seconds += 1.0
        return MJD + self.seconds / 86400


def missed(visits: Sequence[Visit], truth: np.ndarray, **drawn: Any) -> list[Missed]:
    def measure(visit: Visit) -> Steps[Measured]:
        yield Step("detect")
        return measured_of(visit, truth, **drawn)

    return [Missed(visit, DETECTOR, predicted(visit), lambda visit=visit: measure(visit))  # type: ignore[misc]
            for visit in visits]


@dataclass(frozen=True)
class Judged:
    """The current objects of a store, by truth."""

    duplicates: int          # objects of one true source beyond its first
    merged: int              # objects that hold several true sources
    far: int                 # of these, of true sources farther apart than 1.5"
    owners: dict[int, int]   # diaObjectId to a truth, of its first source
    counts: dict[int, int]   # DIASources by truth


def judge(store: PromptArchive, truth: np.ndarray) -> Judged:
    """Objects laid against truth: a source is of the nearest true one."""
    sources = store.table("DiaSource")
    sources = take(sources, (sources["diaObjectId"] != 0) & np.isnan(sources["timeWithdrawnMjdTai"]))
    vectors = unit_vectors(truth["ra"], truth["dec"])
    which = np.argmin(-unit_vectors(sources["ra"], sources["dec"]) @ vectors.T, axis=1)
    objects = store.table("DiaObject")
    current = set(objects["diaObjectId"][np.isnan(objects["validityEndMjdTai"])].tolist())
    held: dict[int, set[int]] = {}
    for owner, true in zip(sources["diaObjectId"].tolist(), which.tolist(), strict=True):
        held.setdefault(owner, set()).add(true)
    assert set(held) <= current, "a source belongs to an object that is closed"
    of_truth: dict[int, int] = {}
    for trues in held.values():
        for true in trues:
            of_truth[true] = of_truth.get(true, 0) + 1
    mixed = [sorted(trues) for trues in held.values() if len(trues) > 1]
    limit = np.cos(np.radians(1.5 / 3600))
    far = sum(bool(np.min(vectors[trues] @ vectors[trues].T) < limit) for trues in mixed)
    values, counts = np.unique(which, return_counts=True)
    return Judged(sum(n - 1 for n in of_truth.values()), len(mixed), far, {o: min(t) for o, t in held.items()},
                  dict(zip(values.tolist(), counts.tolist(), strict=True)))
