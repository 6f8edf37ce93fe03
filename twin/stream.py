"""A night on the wall clock: its alerts go out when the simulated night sends them, its truth lies beside them.

    scenario -> night, computed ahead -> Post -> sink              (twin.pacing, twin.posting)
                  +-> OUT/measures/: truth, DiaSource, sending, ... written as the night goes

A stream that is told to end keeps what it has: the folder is a run folder, of the night so far.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec
import numpy as np
import simpy

from pipeline.errors import InputError, PipelineError
from pipeline.open import open_sink, topic_of
from pipeline.ports import AlertSink, Ports, SaveRequest, Segment
from schemas.measures import SENDING, empty
from schemas.table import DIA_FORCED_SOURCE, DIA_SOURCE
from simulators.conditions import SITE, airmass, transit
from twin.conduct import Conduct, Stopped
from twin.faults import Wrapper
from twin.live_night import Place, run_live
from twin.night import run_night
from twin.pacing import AHEAD_S, WallClock, pace
from twin.pool import open_background
from twin.posting import Disorder, Post, lags
from twin.process import tai_now
from twin.recorder import ParquetRecorder
from twin.scenario import Scenario

TICK_S: Final = 0.1            # between two looks at what was sent and whether to end
FLUSH_S: Final = 20.0          # so old may be what the folder's tables say
BEHIND_S: Final = 1.0          # a lag that is worth a word
AT_THE_END: Final = ("DiaObject",)      # the versions of objects close one another until then
DAY_S: Final = 86400.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Streaming:
    """How a night is sent."""

    speed: float = 1.0                     # simulated seconds in one of the wall
    disorder: Disorder = Disorder()
    nights: float = 1                      # one after the other, each of the next seed and day; inf: until ended
    prepare_min: float | None = None       # the first shutter opens so many minutes from now, and packets say so

    def __post_init__(self) -> None:
        d = self.disorder
        if not (self.speed > 0 and math.isfinite(self.speed)):
            raise InputError(f"speed {self.speed:g}: expected simulated seconds per second, more than 0")
        for name, rate in (("duplicates", d.duplicates), ("reorder", d.reorder), ("late", d.late)):
            if not 0 <= rate <= 1:
                raise InputError(f"{name} {rate:g}: expected a share of the alerts, 0 to 1")
        for name, seconds in (("window", d.window_s), ("late-by", d.late_by_s)):
            if not (seconds >= 0 and math.isfinite(seconds)):
                raise InputError(f"{name} {seconds:g}: expected seconds, not negative")
        if self.nights < 1:
            raise InputError(f"repeat {self.nights:g}: expected a number of nights, 1 or more")
        if self.prepare_min is not None and not (self.prepare_min >= 0 and math.isfinite(self.prepare_min)):
            raise InputError(f"now {self.prepare_min:g}: expected minutes from now, not negative")
        if self.prepare_min is not None and self.nights > 1:
            raise InputError("--now goes not with --repeat: two nights of one day would have the same visits")


@dataclass(frozen=True, slots=True)
class Sent:
    """A stream in numbers."""

    folder: Path
    rows: np.ndarray          # SENDING
    unsent: int               # messages that were computed when it was ended
    ended: bool               # before the night was over

    def __str__(self) -> str:
        rows, first = self.rows, self.rows["copy"] == 0
        lag = lags(rows)
        said = f"{first.sum()} alerts of {len(np.unique(rows['visit']))} visits sent"
        meant = [f"{n} {what}" for n, what in (
            ((~first).sum(), "twice"), ((first & rows["reordered"]).sum(), "out of order"),
            ((first & rows["late"]).sum(), "late")) if n]
        said += f" ({', '.join(meant)}, on purpose)" if meant else ""
        if len(lag):
            said += (f"; lag median {np.median(lag):.3f} s, 99 % {np.percentile(lag, 99):.3f} s, "
                     f"worst {lag.max():.3f} s")
        return f"{said}{f'; ended, {self.unsent} not sent' if self.ended else ''}: {self.folder}"


class Ending:
    """Whether somebody wants the stream to end: the first request is noted, the second one is an interrupt."""

    def __init__(self) -> None:
        self.wanted = threading.Event()
        self.heeded = False          # whether anybody looks at it now

    def ask(self, number: int = signal.SIGINT, frame: FrameType | None = None) -> None:
        """A signal's handler."""
        if self.wanted.is_set() or not self.heeded:
            raise KeyboardInterrupt
        self.wanted.set()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Interrupts and requests to end go here meanwhile."""
        before = {number: signal.signal(number, self.ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Waiting:
    """Alerts that the pipeline thinks are sent, until they are: neither may come first."""

    def __init__(self) -> None:
        self._sent: dict[int, float] = {}       # due time of those that were sent before the pipeline said so

    def sent(self, rows: np.ndarray) -> None:
        """First messages of alerts are out (SENDING)."""
        first = rows[rows["copy"] == 0]
        self._sent.update(zip(first["diaSourceId"].tolist(), first["due_mjd_tai"].tolist(), strict=True))

    def take(self, identifiers: Iterable[int]) -> dict[int, float]:
        """Of some alerts those that are out, each once."""
        return {one: self._sent.pop(one) for one in list(identifiers) if one in self._sent}


class Noting(Wrapper):
    """A prompt store that marks as sent what is out; with a recorder it has saves before their alerts are out."""

    def __init__(self, store: Any, recorder: ParquetRecorder | None) -> None:
        super().__init__(store)
        self._recorder, self._out = recorder, Waiting()
        self._taken: dict[tuple[int, int], tuple[Segment, set[int]]] = {}

    def save(self, request: SaveRequest, segment: Segment) -> None:
        super().save(request, segment)
        for table, rows in ((DIA_SOURCE.name, request.sources), (DIA_FORCED_SOURCE.name, request.forced),
                            ("SSSource", request.ss_sources), ("DetectorVisitProcessingSummary", request.summary)):
            if self._recorder is not None:
                self._recorder.append(table, rows)

    def unsent(self) -> list[Segment]:
        return [one for one in super().unsent() if (one.visit, one.detector) not in self._taken]

    def mark_sent(self, segment: Segment) -> None:
        self._taken[segment.visit, segment.detector] = segment, set(segment.ids.tolist())
        self._mark((segment.visit, segment.detector))

    def sent(self, rows: np.ndarray) -> None:
        """These are out."""
        self._out.sent(rows)
        for place in set(zip(rows["visit"].tolist(), rows["detector"].tolist(), strict=True)) & self._taken.keys():
            self._mark(place)

    def _mark(self, place: tuple[int, int]) -> None:
        segment, missing = self._taken[place]
        missing.difference_update(self._out.take(missing))
        if not missing:
            super().mark_sent(segment)
            del self._taken[place]


class Published(ParquetRecorder):
    """A recorder that keeps publications back until the alerts are out."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._held: dict[int, np.ndarray] = {}
        self._out = Waiting()

    def append(self, table: str, rows: np.ndarray) -> None:
        if table != "publication":
            super().append(table, rows)
            return
        self._held.update((identifier, rows[i:i + 1]) for i, identifier in enumerate(rows["diaSourceId"].tolist()))
        self._publish(rows["diaSourceId"].tolist())

    def sent(self, rows: np.ndarray) -> None:
        """These are out."""
        self.append("sending", rows)
        self._out.sent(rows)
        self._publish(one for one in rows["diaSourceId"].tolist() if one in self._held)

    def _publish(self, identifiers: Iterable[int]) -> None:
        out = self._out.take(identifiers)
        if out:
            rows = np.concatenate([self._held.pop(one) for one in out])
            rows["sent_mjd_tai"] = list(out.values())
            super().append("publication", rows)


class OnTheWall(Conduct):
    """A night in step with the wall clock."""

    tables = AT_THE_END

    def __init__(self, how: Streaming, url: str, seed: int, ending: Ending, say: Say, *, notes: bool = False,
                 opener: "Opener | None" = None) -> None:
        self.how, self.url, self.seed, self.ending, self.say = how, url, seed, ending, say
        self.clock = WallClock(math.nan, math.nan, how.speed)
        self.rows: list[np.ndarray] = []
        self.unsent, self.complete, self.known = 0, False, False
        self.failure: PipelineError | None = None
        self._opener = opener or _reopened
        self._notes = notes          # saves as they come, of nights that write no tables before they end
        self._env: simpy.Environment | None = None
        self._flushed, self._said_behind = time.monotonic(), False

    def recorder(self, folder: Path) -> Published:
        self.published = Published(folder)
        return self.published

    def pool(self, processes: int, *, most: int = 0) -> AbstractContextManager[Executor]:
        return open_background(min(processes, most) if most else processes)

    def ports(self, ports: Ports) -> Ports:
        self.post = Post(ports.sink, self.clock, self._now, self.how.disorder, self.seed, self.say)
        self.store = Noting(ports.store, self.published if self._notes else None)
        return replace(ports, sink=self.post, store=self.store)

    def drive(self, env: simpy.Environment, origin_mjd_tai: float, opens_s: float, over: simpy.Event | None = None
              ) -> None:
        self._env = env
        self.clock.origin_mjd_tai, self.clock.begin_s = origin_mjd_tai, opens_s
        if self.how.prepare_min is not None:
            self.clock.not_before = time.time() + (self.clock.mjd_tai(opens_s) - tai_now()) * DAY_S
        try:
            self.complete = pace(env, over, self.clock, self._rest, AHEAD_S) and self._drain()
        except (PipelineError, BrokenExecutor) as error:
            self.failure = error if isinstance(error, PipelineError) else PipelineError(
                "a process that renders images died, perhaps for want of memory: fewer --processes")
            if not self.known:
                raise self.failure from error
        finally:
            self.post.close()
            self._settle()
            self.unsent = self.post.waiting
        if not self.complete:
            raise Stopped

    def facts(self) -> dict[str, object]:
        lag = lags(self.sending)
        d = self.how.disorder
        known: dict[str, object] = {"clock": str(self.clock), "complete": self.complete, "messages_unsent": self.unsent,
                                    "duplicates": d.duplicates, "reorder": d.reorder, "window_s": d.window_s,
                                    "late": d.late, "late_by_s": d.late_by_s}
        if len(lag):
            known |= {"lag_median_s": f"{np.median(lag):.4f}", "lag_99_s": f"{np.percentile(lag, 99):.4f}",
                      "lag_worst_s": f"{lag.max():.4f}"}
        return known

    @property
    def sending(self) -> np.ndarray:
        """SENDING rows so far."""
        return np.concatenate([empty(SENDING), *self.rows])

    def _now(self) -> float:
        assert self._env is not None
        return float(self._env.now)

    def _rest(self, seconds: float) -> bool:
        """Settle what was sent, wait a tick at most; whether to go on."""
        if self.clock.running and not self.post.begun:
            self.post.begin(self._opener(self.url, self.post.sink, self.clock))
            self.ending.heeded = self.known = True
            self.say(f"the clock runs: {self.clock}")
        self._settle()
        self.post.check()
        if seconds > 0:
            self.ending.wanted.wait(min(seconds, TICK_S))
        return not self.ending.wanted.is_set()

    def _drain(self) -> bool:
        while self.post.waiting:
            if not self._rest(TICK_S):
                return False
        return self._rest(0.0)

    def _settle(self) -> None:
        """What was sent into the tables."""
        for rows in self.post.sent():
            self.rows.append(rows)
            self.published.sent(rows)
            self.store.sent(rows)
            self._tell(float(lags(rows).max()))
        if self.clock.running and time.monotonic() - self._flushed > FLUSH_S:
            self.published.flush(last="exposure_log")
            self._flushed = time.monotonic()

    def _tell(self, lag_s: float) -> None:
        if (lag_s > BEHIND_S) != self._said_behind:
            self._said_behind = not self._said_behind
            self.say(f"behind the clock by {lag_s:.1f} s" if self._said_behind else "in step again")


Opener = Callable[[str, AlertSink, WallClock], AlertSink]


def _reopened(url: str, sink: AlertSink, clock: WallClock) -> AlertSink:
    """The sink with a header that says how simulated times lie on the wall's; others than Kafka have no headers."""
    if topic_of(url) is None:
        return sink
    sink.close()
    return open_sink(url, headers={"simulated": "true", "simulated_clock": str(clock)})


def run_stream(scenario: Scenario, folder: Path, url: str, how: Streaming, *, ending: Ending | None = None,
               beside: Path = Path(), processes: int = 1, any_topic: bool = False, say: Say = lambda line: None,
               opener: Opener | None = None) -> Iterator[Sent]:
    """Send a scenario's night, or nights one after the other, each into a folder of its own.

    What the world has seen of a night stays in its folder, whatever ends it.
    """
    if not scenario.live and scenario.fidelity == "counts":
        raise InputError(f"{scenario.name}: a night at counts fidelity has numbers of alerts, and none to send; name "
                         "detectors in [fidelities]")
    if scenario.pipeline.alert.packets == "counted":
        raise InputError(f"{scenario.name}: its packets are counted and not made (pipeline.alert.packets)")
    if url.startswith("file:") and how.disorder.duplicates:
        raise InputError("a folder of files holds every alert once: --duplicates needs Kafka")
    ending = ending or Ending()
    number = 0
    while number < how.nights and not ending.wanted.is_set():
        tonight = night_of(scenario, number, how)
        place = folder if how.nights == 1 else folder / f"seed_{tonight.seed}"
        conduct = OnTheWall(how, url, tonight.seed, ending, say, notes=bool(scenario.live), opener=opener)
        try:
            _run(tonight, Place(place, url, any_topic=any_topic), beside, processes, conduct)
        except KeyboardInterrupt:
            if not number or conduct.known:
                raise
            return          # between two nights
        ending.heeded = False
        yield Sent(place, conduct.sending, conduct.unsent, not conduct.complete)
        if conduct.failure is not None:
            raise conduct.failure
        number += 1


def _run(scenario: Scenario, place: Place, beside: Path, processes: int, conduct: Conduct) -> None:
    """A night into its folder, or as much of it as there is when it is ended."""
    if not scenario.live:
        run_night(scenario, place.folder, beside=beside, processes=processes, sink=place.sink,
                  any_topic=place.any_topic, conduct=conduct)
        return
    with suppress(Stopped):
        run_live(scenario, place, beside=beside, processes=processes, conduct=conduct)


def night_of(scenario: Scenario, number: int, how: Streaming) -> Scenario:
    """The scenario of a stream's night, from 0: of the next seed and the next day, or of now.

    A night of now looks at its field as at its transit, whatever is up in Chile.
    """
    if number == 0 and how.prepare_min is None:
        return scenario
    cadence, sky = scenario.simulation.cadence, scenario.simulation
    if cadence.surveyed or (scenario.live and scenario.counts.cadence != "simulation"):
        raise InputError(f"{scenario.name}: nights of a survey have their own days; --now and --repeat need drawn ones")
    start, night, conditions = cadence.start_mjd_tai, cadence.night_mjd + number, sky.conditions
    if start is not None:
        start += number
    if how.prepare_min is not None:
        start = tai_now() + how.prepare_min * 60 / DAY_S
        night = round(start + SITE[0] / 360.0)
        if conditions.airmass is None:
            highest = airmass(sky.field.ra, sky.field.dec, transit(sky.field.ra, night))
            conditions = msgspec.structs.replace(conditions, airmass=highest)
    cadence = msgspec.structs.replace(cadence, night_mjd=night, start_mjd_tai=start)
    return msgspec.structs.replace(scenario, seed=scenario.seed + number, simulation=msgspec.structs.replace(
        sky, cadence=cadence, conditions=conditions))


__all__ = ["Ending", "OnTheWall", "Sent", "Streaming", "night_of", "run_stream"]
