"""LSST's requirements on alert latency, judged on a night: what should have been sent, and when it was.

The denominator is the alerts that are due: those of the same night with no fault and unlimited workers, and those that
even then were lost to a machine (too few servers); one never sent is late.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from reports.delays import LIMIT_S

MIN_ON_TIME: Final = 0.98      # OTR1 (DMS-REQ-0406): of a visit's alerts within OTT1, 60 s from the end of readout
MAX_LATE: Final = 0.01         # sciVisitAlertDelay (DMS-REQ-0392): of visits with fewer
MAX_FAILED: Final = 0.001      # sciVisitAlertFailure: of visits with no alerts at all
AVERAGE: Final = 10_000        # nAlertVisitAvg (DMS-REQ-0393): above it latency may suffer, nothing may be lost
PEAK: Final = 40_000           # nAlertVisitPeak
NOT_DUE: Final = (b"no template", b"too many new objects")   # of the reference: the sky's doing, not the machines'

VISIT: Final = np.dtype([
    ("visit", "i8"), ("readout_end_s", "f8"), ("alerts", "i8"), ("sent", "i8"), ("on_time", "i8"),
    ("median_s", "f8"), ("p98_s", "f8")])   # of all its alerts, those never sent at infinity


@dataclass(frozen=True, slots=True)
class Requirement:
    """A night's verdict."""

    visits: np.ndarray         # VISIT
    alerts: int                # of the reference
    on_time: float             # share of them within 60 s
    within_120: float
    late: float                # share of visits with alerts of which fewer than 98 % are on time
    failed: float              # share of visits with alerts of which none was sent
    busy_visits: int           # of more than 10,000 alerts
    busy_lost: int             # alerts of those that were never sent
    percentiles_s: dict[str, float]    # of the delay since the end of readout, alerts never sent at infinity

    @property
    def met(self) -> bool:
        """Whether both shares of visits are small enough."""
        return self.late <= MAX_LATE and self.failed <= MAX_FAILED

    @property
    def verdicts(self) -> list[tuple[str, str, str, bool]]:
        """(what, found, allowed, whether it is met) of each part of the requirement."""
        found = [
            ("visits with fewer than 98 % of their alerts within 60 s", f"{self.late:.2%}", f"at most {MAX_LATE:.0%}",
             self.late <= MAX_LATE),
            ("visits with no alerts at all", f"{self.failed:.2%}", f"at most {MAX_FAILED:.1%}",
             self.failed <= MAX_FAILED)]
        if self.busy_visits:
            found.append((f"alerts never sent of the {self.busy_visits} visits above {AVERAGE:,}",
                          f"{self.busy_lost:,}", "none", self.busy_lost == 0))
        return found

    def lines(self) -> list[str]:
        """The verdict in words."""
        def verdict(good: bool) -> str:
            return "met" if good else "not met"
        p = self.percentiles_s
        return [
            f"delay since the end of readout: median {p['p50']:.1f} s, 98 % within {p['p98']:.1f} s; "
            f"{self.on_time:.1%} of alerts within 60 s, {self.within_120:.1%} within 120 s",
            f"visits with fewer than 98 % of their alerts within 60 s: {self.late:.2%}, at most 1 %: "
            f"{verdict(self.late <= MAX_LATE)}",
            f"visits with no alerts at all: {self.failed:.2%}, at most 0.1 %: {verdict(self.failed <= MAX_FAILED)}",
            f"visits above 10,000 alerts: {self.busy_visits}, with {self.busy_lost:,} alerts never sent: "
            f"{verdict(self.busy_lost == 0)}" if self.busy_visits else "no visit has more than 10,000 alerts"]


def requirement(passages: np.ndarray, reference: np.ndarray) -> Requirement:
    """Judge a night's PASSAGE rows against those with no fault and unlimited workers, row by row the same."""
    should = np.where(np.isin(reference["reason"], NOT_DUE), 0, reference["n_alerts"]).astype(np.int64)
    sent = np.minimum(passages["n_sent"], should)
    delay = np.where(passages["reason"] == b"", passages["delivered_s"] - passages["readout_end_s"], np.inf)
    delay = np.where(np.isfinite(delay), delay, np.inf)
    visits = _visits(passages, should, sent, delay)
    some = visits[visits["alerts"] > 0]
    n = max(len(some), 1)
    busy = some[some["alerts"] > AVERAGE]
    total = max(int(should.sum()), 1)
    return Requirement(
        visits, int(should.sum()), float(should[delay <= LIMIT_S].sum() / total),
        float(should[delay <= 2 * LIMIT_S].sum() / total),
        float(np.sum(some["on_time"] < MIN_ON_TIME * some["alerts"]) / n), float(np.sum(some["sent"] == 0) / n),
        len(busy), int((busy["alerts"] - busy["sent"]).sum()),
        {f"p{q}": weighted_percentile(delay, should, q) for q in (5, 50, 95, 98, 100)})


def _visits(passages: np.ndarray, should: np.ndarray, sent: np.ndarray, delay: np.ndarray) -> np.ndarray:
    """VISIT rows; passages of a visit lie together."""
    starts = np.flatnonzero(np.concatenate([[True], passages["visit"][1:] != passages["visit"][:-1]]))
    out = np.zeros(len(starts), VISIT)
    out["visit"], out["readout_end_s"] = passages["visit"][starts], passages["readout_end_s"][starts]
    out["alerts"], out["sent"] = np.add.reduceat(should, starts), np.add.reduceat(sent, starts)
    out["on_time"] = np.add.reduceat(np.where(delay <= LIMIT_S, should, 0), starts)
    ends = np.append(starts[1:], len(passages))
    for row, begin, end in zip(out, starts.tolist(), ends.tolist(), strict=True):
        row["median_s"] = weighted_percentile(delay[begin:end], should[begin:end], 50)
        row["p98_s"] = weighted_percentile(delay[begin:end], should[begin:end], 98)
    return out


def weighted_percentile(values: np.ndarray, weights: np.ndarray, q: float) -> float:
    """The smallest value within which `q` % of the weight lies; NaN without weight."""
    total = weights.sum()
    if total <= 0:
        return float("nan")
    order = np.argsort(values, kind="stable")
    k = int(np.searchsorted(np.cumsum(weights[order]), q / 100 * total))
    return float(values[order][min(k, len(values) - 1)])


__all__ = ["AVERAGE", "MAX_FAILED", "MAX_LATE", "MIN_ON_TIME", "VISIT", "Requirement", "requirement",
           "weighted_percentile"]
