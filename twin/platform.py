"""Simulated time: workers, database and broker as queues, and the driver that turns Steps into seconds.

    nextVisit -> queue -> worker | preload ... wait for the image ... pixel half, catalogue half | -> outbox -> broker
                                   each Step: request its resource, wait its cost, let it go

A worker is held from the request to the end of its detector-visit, as a pod of Prompt Processing is; Steps that need
the database or the broker queue for one of its slots beside that.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from time import thread_time
from typing import Any, TypeVar

import simpy

from pipeline.errors import VisitTimeout
from pipeline.steps import Step, Steps
from twin.costs import CostTable
from twin.platform_config import PlatformConfig

T = TypeVar("T")
SECONDS_PER_DAY = 86400.0

# Which Steps occupy something beside their worker.
RESOURCES = {"objects": "database", "history": "database", "reload": "database", "save": "database",
             "contains": "database", "unsent": "database", "mark_sent": "database", "send": "broker"}


@dataclass(frozen=True, slots=True)
class Timed:
    """A Step as it went."""

    step: Step
    start_s: float          # on the simulated clock, after any wait for its resource
    duration_s: float       # on the simulated clock
    waited_s: float         # in the resource's queue
    cpu_s: float            # measured here, while the generator worked on it


Note = Callable[[Timed], Any]


class Platform:
    """The machines of one night on one simulated clock that starts at `origin_mjd_tai`."""

    def __init__(self, config: PlatformConfig, costs: CostTable, origin_mjd_tai: float) -> None:
        self.env = simpy.Environment()
        self.costs = costs
        self.origin_mjd_tai = origin_mjd_tai
        self.workers = simpy.Resource(self.env, config.workers)
        self.slots = {"database": simpy.Resource(self.env, config.database_connections),
                      "broker": simpy.Resource(self.env, config.broker_connections)}

    def clock(self) -> float:
        """Now, TAI as MJD: the `Clock` of the ports."""
        return self.origin_mjd_tai + float(self.env.now) / SECONDS_PER_DAY

    def seconds(self, mjd_tai: float) -> float:
        """The simulated second of a time."""
        return (mjd_tai - self.origin_mjd_tai) * SECONDS_PER_DAY

    def until(self, mjd_tai: float) -> simpy.Event:
        """An event at a time, or now if it has passed."""
        return self.env.timeout(max(0.0, self.seconds(mjd_tai) - float(self.env.now)))


def drive(steps: Steps[T], platform: Platform, note: Note = lambda timed: None) -> Generator[simpy.Event, Any, T]:
    """Drive a pipeline in simulated time; gives its Summary.

    Each Step takes its resource, waits its cost and lets go, whatever happens. An interrupt whose cause is
    `VisitTimeout` is thrown into the pipeline; any other (a kill) closes it, and the interrupt goes on.
    """
    began = thread_time()
    thrown: BaseException | None = None
    pending: Timed | None = None     # a Step announced ahead, whose work is being done
    while True:
        try:
            step = steps.throw(thrown) if thrown is not None else next(steps)
        except StopIteration as stop:
            _note_ahead(pending, thread_time() - began, note)
            return stop.value  # type: ignore[no-any-return]  # the generator's declared return type
        worked = thread_time() - began
        if pending is not None:
            _note_ahead(pending, worked, note)
            worked = 0.0
        start = float(platform.env.now)
        thrown, pending, waited = None, None, 0.0
        try:
            waited = yield from _spend(step, platform)
        except simpy.Interrupt as interrupt:
            if not isinstance(interrupt.cause, VisitTimeout):
                steps.close()
                raise
            thrown = interrupt.cause
        timed = Timed(step, start + waited, float(platform.env.now) - start - waited, waited, worked)
        if step.ahead and thrown is None:
            pending = timed
        else:
            note(timed)
        began = thread_time()


def _note_ahead(pending: Timed | None, worked: float, note: Note) -> None:
    if pending is not None:
        note(replace(pending, cpu_s=pending.cpu_s + worked))


def replay(finished: Iterable[tuple[Step, float]], platform: Platform,
           note: Note = lambda timed: None) -> Generator[simpy.Event, Any, None]:
    """The pixel half's Steps, finished and measured elsewhere, as one wait with their breakdown kept."""
    steps = list(finished)
    costs = [platform.costs.seconds(step) for step, _ in steps]
    start = float(platform.env.now)
    yield platform.env.timeout(sum(costs))
    for (step, cpu_s), cost in zip(steps, costs, strict=True):
        note(Timed(step, start, cost, 0.0, cpu_s))
        start += cost


def _spend(step: Step, platform: Platform) -> Generator[simpy.Event, Any, float]:
    """Wait a Step's cost on its resource; gives the seconds spent in the queue."""
    cost = step.delay_s or platform.costs.seconds(step)
    resource = platform.slots.get(RESOURCES.get(step.name, ""))
    if resource is None:
        yield platform.env.timeout(cost)
        return 0.0
    asked = float(platform.env.now)
    with resource.request() as slot:
        yield slot
        waited = float(platform.env.now) - asked
        yield platform.env.timeout(cost)
    return waited
