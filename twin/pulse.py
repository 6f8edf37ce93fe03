"""How a night stands while it runs: rows of `pulse`, and the state that `alert-twin watch` reads. It only looks.

A look counts the detector-visits of a window, from the first visit that is not over to the last that was announced;
what lies before it was counted for good. So a look late in the night costs no more, and looks have a share set of it.
"""

from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter, time
from typing import Any, Final

import numpy as np

from reports.state import EDGES, LIMIT_S, Tally, VisitState
from schemas.measures import PULSE
from twin.prompt_processing import PromptProcessing
from twin.recorder import ParquetRecorder
from twin.running import Running

EVERY_S: Final = 30.0          # of the simulated clock, between two looks
SHARE: Final = 0.02            # of the wall clock, at most, for looks
LAST: Final = 8                # visits that the state names
UNSEEN_S: Final = 120.0        # after readout: whoever was not taken by then may never be
NEVER: Final = frozenset({"no nextVisit", "expired"})    # reasons of those that no worker took
AGAIN: Final = "not taken"     # the reason of those whose message is in the stream, the second one too


@dataclass(slots=True)
class Sums:
    """Alerts of some detector-visits."""

    produced: int = 0
    sent: int = 0
    late: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    delays: np.ndarray = field(default_factory=lambda: np.zeros(len(EDGES), np.int64))

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.produced + other.produced, self.sent + other.sent, self.late + other.late,
                    self.lost + other.lost, self.delays + other.delays)


class Pulse:
    """Looks at a night of PromptProcessing."""

    def __init__(self, here: Running, recorder: ParquetRecorder, platform: PromptProcessing) -> None:
        self._here, self._recorder, self._platform, self._plan = here, recorder, platform, platform.plan
        self._n = platform.n_detectors
        columns = {name: np.frombuffer(platform.times[name], float) for name in
                   ("freed_s", "sent_s", "delivered_s")}
        self._freed, self._sent_at, self._delivered = columns.values()
        self._readout = np.repeat(self._plan.closes_s + platform.config.readout_s, self._n)
        self._announced = np.repeat(last_messages(platform), self._n)
        self._alerts = platform.numbers.counts["n_alerts"]     # of live detectors they become known on the way
        self._n_sent, self._attempts = np.frombuffer(platform.n_sent, np.int32), np.frombuffer(platform.attempts, "i4")
        self._saved = np.frombuffer(platform.standing()[1], np.uint8)
        front = platform.config.front
        self._grace_s = front.redeliver_s + 1.0       # a failure older than that is not tried again
        self._outbox = platform.config.publication.order == "outbox"
        self._first, self._over, self._next_s, self._not_before = 0, Sums(), 0.0, 0.0

    def __call__(self, platform: PromptProcessing) -> None:
        """Look, where it is time."""
        now = float(platform.env.now)
        if now < self._next_s or (begun := perf_counter()) < self._not_before:
            return
        self._look(now)
        self._next_s = now + EVERY_S
        ended = perf_counter()
        self._not_before = ended + (ended - begun) / SHARE
        if self._here.parts_due():
            self._recorder.flush(["pulse"])

    def last(self) -> None:
        """Count everything once more: the night is over, and every fate known."""
        self._first, self._over = 0, Sums()
        self._look(float(self._platform.env.now), whole=True)
        self._recorder.flush(["pulse"])

    # --- a look -----------------------------------------------------------------------------------------------------

    def _look(self, now: float, *, whole: bool = False) -> None:
        opened = int(np.searchsorted(self._plan.opens_s, now, "right"))
        announced = len(self._plan) if whole else int(np.searchsorted(
            self._plan.opens_s - self._platform.config.lead_s, now, "right"))
        settled = self._settled(announced, now, whole=whole)
        over = np.asarray(settled.reshape(-1, self._n).all(axis=1))
        done, closed = self._first + int(over.sum()), self._close(over)
        sums = self._over + self._sums(self._first, announced, settled[closed * self._n:])
        (waiting, busy, idle, starting), _ = self._platform.standing()
        row = np.zeros(1, PULSE)
        row[0] = (time(), now, opened, done, waiting, busy, idle, starting, sums.produced, sums.sent, sums.late,
                  sum(sums.lost.values()))
        self._recorder.append("pulse", row)
        if whole or self._here.due():
            tally = Tally(
                origin_mjd_tai=self._plan.origin_mjd_tai, at_s=now, opened=opened, waiting=waiting, busy=busy,
                idle=idle, starting=starting, cap=self._platform.config.workers, produced=sums.produced,
                sent=sums.sent, late=sums.late, lost=dict(sums.lost), delays=trimmed(sums.delays),
                last=self._last(announced, now))
            self._here.tell(tally, done, len(self._plan))

    def _rows(self, low: int, high: int) -> slice:
        return slice(low * self._n, high * self._n)

    def _settled(self, announced: int, now: float, *, whole: bool) -> np.ndarray:
        """(rows of the window,) bool: whose fate is known."""
        rows = self._rows(self._first, announced)
        sent, freed = self._sent_at[rows], self._freed[rows]
        if whole:
            return np.ones(len(sent), bool)
        out = np.asarray(sent == sent)
        reasons, begin = self._platform.reason, rows.start
        failed = now - freed >= self._grace_s
        if self._outbox:
            failed &= self._saved[rows] == 0       # what is saved will be sent
        for k in np.flatnonzero(~out & failed).tolist():
            out[k] = reasons[begin + k] != AGAIN
        old = (now - self._readout[rows] > UNSEEN_S) & (now > self._announced[rows])
        for k in np.flatnonzero(~out & (freed != freed) & old).tolist():
            out[k] = reasons[begin + k] in NEVER
        return out

    def _close(self, over: np.ndarray) -> int:
        """Count the visits at the window's beginning that are over for good; how many they are."""
        n = len(over) if over.all() else int(np.argmin(over))
        if n:
            self._over = self._over + self._sums(self._first, self._first + n, np.ones(n * self._n, bool))
            self._first += n
        return n

    def _sums(self, low: int, high: int, settled: np.ndarray) -> Sums:
        rows = self._rows(low, high)
        alerts, n_sent = self._alerts[rows].astype(np.int64), self._n_sent[rows]
        sent = self._sent_at[rows] == self._sent_at[rows]
        delays = (self._delivered[rows] - self._readout[rows])[sent]
        weights = n_sent[sent]
        bins = binned(delays, weights)
        lost: Counter[str] = Counter()
        for k in np.flatnonzero(settled & ~sent & (alerts > 0)).tolist():
            lost[self._platform.reason[rows.start + k]] += int(alerts[k])
        return Sums(int(alerts[self._saved[rows] == 1].sum()), int(n_sent.sum()), int(weights[delays > LIMIT_S].sum()),
                    lost, bins)

    def _last(self, announced: int, now: float) -> tuple[VisitState, ...]:
        """The visits announced last, and where their detectors are."""
        return tuple(self._visit(i, now) for i in range(max(announced - LAST, 0), announced))

    def _visit(self, i: int, now: float) -> VisitState:
        rows = self._rows(i, i + 1)
        sent, freed = self._sent_at[rows] == self._sent_at[rows], self._freed[rows] == self._freed[rows]
        saved, reasons = (self._saved[rows] == 1) & ~sent, self._platform.reason[rows]
        never = np.array([reason in NEVER for reason in reasons]) & (
            now > max(self._plan.closes_s[i], self._announced[rows.start]))
        again = np.array([reason == AGAIN for reason in reasons])
        failed = ~sent & ~again & np.where(saved, freed & (not self._outbox), freed | never)
        saved &= ~failed
        waiting = ~sent & ~saved & ~failed & (self._attempts[rows] == 0)
        slow = (self._delivered[rows] - self._readout[rows])[sent]
        return VisitState(
            visit=int(self._plan.visit[i]), band=self._plan.pointing["band"][i].decode(),
            opens_s=float(self._plan.opens_s[i]), detectors=self._n, waiting=int(waiting.sum()),
            working=int((~waiting & ~sent & ~saved & ~failed).sum()), saved=int(saved.sum()), sent=int(sent.sum()),
            failed=int(failed.sum()), alerts=int(self._n_sent[rows].sum()),
            slowest_s=float(slow.max()) if len(slow) else None)


def last_messages(platform: PromptProcessing) -> np.ndarray:
    """(visits,) when the last message of each comes; -inf where its nextVisit is lost."""
    out = np.full(len(platform.plan), -np.inf)
    for at, visit, _, taken in platform._messages:
        if taken:
            out[visit] = max(out[visit], at)
    return out


def binned(delays: np.ndarray, alerts: np.ndarray) -> np.ndarray:
    """(len(EDGES),) alerts by their delay."""
    found = np.minimum(np.searchsorted(EDGES, delays), len(EDGES) - 1)
    return np.bincount(found, alerts, len(EDGES)).astype(np.int64)


def trimmed(delays: np.ndarray) -> tuple[int, ...]:
    """Bins up to the last that holds anything."""
    filled = np.flatnonzero(delays)
    out: list[Any] = delays[:filled[-1] + 1].tolist() if len(filled) else []
    return tuple(out)


__all__ = ["EVERY_S", "Pulse", "Sums", "binned", "trimmed"]
