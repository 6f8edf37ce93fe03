"""How a night of pixels stands while it runs: its state, curves and tables so far, for `watch` and `report`."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter, time
from typing import Any, Final

import numpy as np

from reports.state import EDGES, LIMIT_S, Tally, VisitState
from schemas.exposure import Visit
from schemas.measures import PULSE
from twin.platform import SECONDS_PER_DAY, Platform
from twin.pulse import LAST, binned, trimmed
from twin.recorder import PROMPT_TABLES, ParquetRecorder
from twin.running import Due, Running

EVERY_S: Final = 5.0           # of the simulated clock, between two rows of `pulse`
TABLES_S: Final = 10.0         # of the wall clock, between two exports of all tables; later this share of the run's age
TABLES_AGE: Final = 0.1
SHARE: Final = 0.02            # of the wall clock, at most, for these
STATES: Final = ("waiting", "working", "saved", "sent", "failed")


@dataclass(slots=True)
class Fate:
    """The detectors of a visit that was announced."""

    where: dict[int, str] = field(default_factory=dict)     # detector -> one of STATES
    alerts: int = 0
    slowest_s: float | None = None


class NightPulse:
    """Told of what happens to each detector-visit; it only looks at the rest. `prompt` gives the prompt tables."""

    def __init__(self, here: Running, recorder: ParquetRecorder, prompt: Callable[[str], np.ndarray],
                 platform: Platform, visits: Sequence[Visit], detectors: int, readout_s: float) -> None:
        self._here, self._recorder, self._prompt, self._platform = here, recorder, prompt, platform
        self._visits, self._detectors = visits, detectors
        self._opens = np.array([platform.seconds(visit.mjd_tai) - visit.exposure_s / 2 for visit in visits])
        self._readout_ends = {visit.visit: visit.shutter_close_mjd_tai + readout_s / SECONDS_PER_DAY
                              for visit in visits}
        self._fates: dict[int, Fate] = {}
        self._tables_due, self._next_s, self._not_before = Due(TABLES_S, TABLES_AGE), 0.0, 0.0
        self.produced = self.sent = self.late = 0
        self.delays = np.zeros(len(EDGES), np.int64)

    def mark(self, visit: Visit, detector: int, state: str, alerts: int = 0) -> None:
        """Where a detector-visit is now; `alerts` that it saved."""
        self._fates.setdefault(visit.visit, Fate()).where[detector] = state
        self.produced += alerts

    def append(self, table: str, rows: np.ndarray) -> None:
        """What the pipeline records, on its way to the tables: alerts that were sent count."""
        self._recorder.append(table, rows)
        if table != "publication" or not len(rows):
            return
        ends = np.array([self._readout_ends[visit] for visit in rows["visit"].tolist()])
        delays = (rows["sent_mjd_tai"] - ends) * SECONDS_PER_DAY
        self.delays += binned(delays, np.ones(len(rows)))
        self.sent += len(rows)
        self.late += int((delays > LIMIT_S).sum())
        for visit, delay in zip(rows["visit"].tolist(), delays.tolist(), strict=True):
            fate = self._fates.setdefault(visit, Fate())
            fate.alerts, fate.slowest_s = fate.alerts + 1, max(delay, fate.slowest_s or 0.0)

    def look(self, *, last: bool = False) -> None:
        """Write what is due."""
        now = float(self._platform.env.now)
        if now >= self._next_s or last:
            self._next_s = now + EVERY_S
            self._recorder.append("pulse", self._row(now))
        if last or self._here.due():
            self._here.tell(self._tally(now), self._done(), len(self._visits))
        if self._here.parts_due():
            self._recorder.flush(["pulse"])
        if not last and perf_counter() >= self._not_before and not self._between() and self._tables_due():
            begun = perf_counter()
            self._write_tables()
            self._not_before = perf_counter() + (perf_counter() - begun) / SHARE

    def _between(self) -> bool:
        """Whether a detector-visit is in the log and its alerts are not sent."""
        return any("saved" in fate.where.values() for fate in self._fates.values())

    def _write_tables(self) -> None:
        """All tables so far; the log last, so that whatever it names is in the others."""
        for name in PROMPT_TABLES:
            self._recorder.replace(name, self._prompt(name))
        self._recorder.flush(last="exposure_log")

    def _workers(self) -> tuple[int, int, int]:
        """Waiting messages, busy and idle workers."""
        workers = self._platform.workers
        return len(workers.queue), workers.count, workers.capacity - workers.count

    def _opened(self, now: float) -> int:
        return int((self._opens <= now).sum())

    def _done(self) -> int:
        return sum(len(fate.where) == self._detectors and set(fate.where.values()) <= {"sent", "failed"}
                   for fate in self._fates.values())

    def _row(self, now: float) -> np.ndarray:
        row = np.zeros(1, PULSE)
        row[0] = (time(), now, self._opened(now), self._done(), *self._workers(), 0, self.produced, self.sent,
                  self.late, 0)
        return row

    def _tally(self, now: float) -> Tally:
        waiting, busy, idle = self._workers()
        announced = [i for i, visit in enumerate(self._visits) if visit.visit in self._fates]
        return Tally(origin_mjd_tai=self._platform.origin_mjd_tai, at_s=now, opened=self._opened(now), waiting=waiting,
                     busy=busy, idle=idle, cap=busy + idle, produced=self.produced, sent=self.sent, late=self.late,
                     delays=trimmed(self.delays), last=tuple(self._visit(i) for i in announced[-LAST:]))

    def _visit(self, i: int) -> VisitState:
        visit, fate = self._visits[i], self._fates[self._visits[i].visit]
        count: Counter[str] = Counter(fate.where.values())
        numbers: dict[str, Any] = {name: count[name] for name in STATES}
        return VisitState(visit=visit.visit, band=visit.band, opens_s=float(self._opens[i]), detectors=self._detectors,
                          alerts=fate.alerts, slowest_s=fate.slowest_s, **numbers)


__all__ = ["NightPulse"]
