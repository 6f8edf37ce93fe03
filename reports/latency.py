"""Latency (6.5): when alerts leave, from the end of readout and from shutter close, and what the time went into."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.drawing import BAD, BLUE, INK, MUTED, PALE, WARM, nothing, panels, styled
from reports.intervals import Estimate, fraction, median
from reports.store import Store, groups

LIMIT_S: Final = 60.0              # OTT1 of DMS-REQ-0406, from the end of readout
MIN_ON_TIME: Final = 0.98          # OTR1: fraction of a visit's alerts within OTT1
DAY_S: Final = 86400.0

BY_STEP: Final = np.dtype([
    ("name", "S24"), ("n", "i8"), ("start_s", "f8"), ("median_s", "f8"), ("p95_s", "f8"), ("total_s", "f8")])


@dataclass(frozen=True, slots=True)
class Latency:
    """Delays of alerts [s], and of the steps before them."""

    since_readout: np.ndarray      # (n,) float64, one per alert, sorted
    since_shutter: np.ndarray      # (n,) float64, sorted: the deployed metric alert_timing_since_shutter_close
    on_time: Estimate              # fraction of alerts within 60 s of the end of readout
    late_visits: Estimate          # fraction of visits with fewer than 98 % of their alerts on time
    steps: np.ndarray              # BY_STEP in order of their median start; start from shutter close
    readout_s: float               # median time from shutter close to the end of readout
    timing: Estimate               # alert_timing_since_shutter_close [s]: the last alerts of detector-visits, median

    def percentile(self, q: float) -> float:
        """Of the delay since the end of readout [s]."""
        return float(np.percentile(self.since_readout, q)) if len(self.since_readout) else float("nan")


def latency(store: Store) -> Latency:
    """Delays of one run."""
    sent, log = store.optional("publication"), store.optional("exposure_log")
    readout = (sent["sent_mjd_tai"] - _moments(sent, log, "readout_end_mjd_tai")) * DAY_S
    shutter = (sent["sent_mjd_tai"] - _moments(sent, log, "shutter_close_mjd_tai")) * DAY_S
    known = np.isfinite(readout) & (readout < DAY_S)     # older exposures were processed afterwards: no latency
    live = shutter < DAY_S
    each = [float(np.max(shutter[live][rows])) for _, rows in groups(sent["visit"][live], sent["detector"][live])]
    shutter = shutter[live]
    on_time = readout[known] <= LIMIT_S
    shares = [float(np.mean(on_time[rows])) for _, rows in groups(sent["visit"][known])]
    gap = (log["readout_end_mjd_tai"] - log["shutter_close_mjd_tai"]) * DAY_S
    return Latency(np.sort(readout[known]), np.sort(shutter[np.isfinite(shutter)]),
                   fraction(int(on_time.sum()), len(on_time)),
                   fraction(sum(share < MIN_ON_TIME for share in shares), len(shares)),
                   by_step(store.optional("step"), log),
                   float(np.median(gap[np.isfinite(gap)])) if np.isfinite(gap).any() else float("nan"),
                   median(np.array(each, float)))


def _moments(sent: np.ndarray, log: np.ndarray, name: str) -> np.ndarray:
    """A time of each publication's exposure [MJD TAI]: its own, or the log's where the publisher did not know it."""
    logged = {(int(r["visit"]), int(r["detector"])): float(r[name]) for r in log}
    found = np.array([logged.get((int(r["visit"]), int(r["detector"])), np.nan) for r in sent], float)
    return np.where(np.isfinite(sent[name]), sent[name], found)


def by_step(steps: np.ndarray, log: np.ndarray) -> np.ndarray:
    """BY_STEP rows: a step that a detector-visit repeats counts once, with its summed duration."""
    closed = {(int(r["visit"]), int(r["detector"])): float(r["shutter_close_mjd_tai"]) for r in log}
    once = []
    for (visit, detector, name), rows in groups(steps["visit"], steps["detector"], steps["name"]):
        start = float(steps["start_mjd_tai"][rows].min())
        since = (start - closed.get((visit, detector), np.nan)) * DAY_S
        once.append((name, since, float(steps["duration_s"][rows].sum())))
    table = np.array(once, [("name", "S24"), ("start", "f8"), ("duration", "f8")])
    out = []
    for (name,), rows in groups(table["name"]):
        known = table["start"][rows][np.isfinite(table["start"][rows])]
        duration = table["duration"][rows]
        out.append((name, len(rows), float(np.median(known)) if len(known) else np.nan, float(np.median(duration)),
                    float(np.percentile(duration, 95)), float(duration.sum())))
    made = np.array(out, BY_STEP)
    return made[np.lexsort((made["name"], np.nan_to_num(made["start_s"], nan=1e9)))]


# --- drawing ---------------------------------------------------------------------------------------------------------

@styled
def plot(table: Latency) -> Figure:
    """The delay of alerts on both clocks, and the typical detector-visit step by step."""
    figure, (left, right) = panels(2, height=max(3.5, 0.2 * len(table.steps) + 1.0),
                                   labels=["", max((n.decode() for n in table.steps["name"]), key=len, default="")])
    _plot_delays(left, table)
    _plot_steps(right, table)
    return figure


def _plot_delays(axes: Axes, table: Latency) -> None:
    if not len(table.since_readout):
        return nothing(axes, "no alert of a live exposure was published")
    for values, label, colour in ((table.since_readout, "since the end of readout", BLUE),
                                  (table.since_shutter, "since shutter close", WARM)):
        if len(values):
            keep = np.unique(np.linspace(0, len(values) - 1, 400).astype(int))
            axes.plot(values[keep], (keep + 1) / len(values), drawstyle="steps-post", color=colour, label=label)
    axes.axvline(LIMIT_S, color=BAD, linewidth=1.2)
    axes.annotate("60 s", (LIMIT_S, 0.03), xytext=(4, 0), textcoords="offset points", color=BAD, fontsize=8.5)
    axes.axhline(MIN_ON_TIME, color=MUTED, linewidth=1, linestyle=":")
    right = max(1.25 * LIMIT_S, 1.05 * float(table.since_shutter[-1] if len(table.since_shutter) else 0))
    axes.set(xlabel="delay of alerts [s]", ylabel="fraction of alerts sent", xlim=(0, right), ylim=(0, 1.02),
             title="When alerts leave")
    axes.legend(loc="center" if table.percentile(50) < LIMIT_S / 2 else "upper left")
    return None


def _plot_steps(axes: Axes, table: Latency) -> None:
    rows = table.steps[np.isfinite(table.steps["start_s"])][::-1]
    if not len(rows):
        return nothing(axes, "no steps were recorded")
    place = np.arange(len(rows))
    axes.barh(place, rows["p95_s"], left=rows["start_s"], height=0.62, color=PALE, label="95 % of them are shorter")
    axes.barh(place, rows["median_s"], left=rows["start_s"], height=0.62, color=BLUE, label="median")
    axes.axvline(0.0, color=MUTED, linewidth=1)
    last = float(np.max(rows["start_s"] + rows["p95_s"]))
    low = max(min(-0.04 * last, float(rows["start_s"].min())), -0.3 * last)      # far earlier steps are told, not drawn
    span = last - low
    for i, row in enumerate(rows):
        end, text = float(row["start_s"] + max(row["p95_s"], row["median_s"])), _seconds(float(row["median_s"]))
        if end < low:
            text += f", from {row['start_s']:.0f} s"
        axes.annotate(text, (max(end, low), i), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7.5,
                      color=MUTED)
    axes.set_yticks(place, [r.decode() for r in rows["name"]], fontsize=8)
    axes.set_xlim(low - 0.02 * span, low + 1.14 * span)
    if np.isfinite(table.readout_s):
        axes.axvline(table.readout_s, color=INK, linewidth=1, linestyle=":")
        if table.readout_s + LIMIT_S < axes.get_xlim()[1]:
            axes.axvline(table.readout_s + LIMIT_S, color=BAD, linewidth=1.2)
    axes.set(xlabel="time since shutter close [s]", title="The typical detector-visit")
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower left")
    return None


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 0.95 else f"{value * 1e3:.0f} ms"
