"""A night of the platform: when its alerts left, what they waited for, and what every machine did meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from reports.delays import HELD, LIMIT_S, PARTS, busy, is_late, parts, span
from reports.drawing import (
    BAD,
    BLUE,
    CYCLE,
    GOOD,
    INK,
    MUTED,
    PALE,
    PURPLE,
    WARM,
    logarithmic,
    marked,
    nothing,
    panels,
    styled,
)
from reports.races import Races, races
from reports.requirement import AVERAGE, Requirement, requirement, weighted_percentile
from reports.store import Store
from reports.timeline import HELD_COLOURS
from reports.wide import WideNight, wide_night
from schemas.measures import CALL_SERVICES, WORK_STEPS

BINS: Final = 600              # of the night, in curves over time
LONG: Final = 8.0              # times the limit: delays are drawn on a logarithmic axis beyond
FEW: Final = 200               # visits: drawn larger up to so many
SEEN_S: Final = 0.05           # parts of a delay below it are not drawn
SERVICES: Final = tuple(dict.fromkeys(CALL_SERVICES))

PART_ROW: Final = np.dtype([("name", "S24"), ("mean_s", "f8"), ("p98_s", "f8"), ("late_mean_s", "f8")])
STEP_ROW: Final = np.dtype([("name", "S24"), ("median_s", "f8"), ("p98_s", "f8"), ("hours", "f8")])
CAUSE_ROW: Final = np.dtype([("cause", "S24"), ("alerts", "i8"), ("visits", "i8"), ("excess_s", "f8"), ("lost", "?")])
SERVICE_ROW: Final = np.dtype([("name", "S24"), ("calls", "i8"), ("mean_s", "f8"), ("wait_mean_s", "f8"),
                               ("wait_p98_s", "f8"), ("busy_mean", "f8"), ("busy_max", "f8"), ("queue_max", "f8")])


@dataclass(frozen=True, slots=True)
class Fault:
    """One trouble of a scenario, by name, and when it was."""

    name: str
    begin_s: float             # of the simulated clock
    end_s: float


@dataclass(frozen=True, slots=True)
class PlatformReport:
    """What a night of the platform shows."""

    passages: np.ndarray
    judged: Requirement
    parts: np.ndarray          # PART_ROW, of alerts that were sent
    steps: np.ndarray          # STEP_ROW
    causes: np.ndarray         # CAUSE_ROW, most alerts first
    services: np.ndarray       # SERVICE_ROW
    edges_s: np.ndarray        # (BINS + 1,)
    held: np.ndarray           # (len(HELD), BINS) workers
    waiting: np.ndarray        # (BINS,) messages in the stream
    queues: np.ndarray         # (len(SERVICES), BINS) calls that wait
    loads: np.ndarray          # (len(SERVICES), BINS) calls that are served
    alive: np.ndarray          # (BINS,) pods, busy or not
    shutter: dict[str, float]  # percentiles of the delay since shutter close [s]
    races: Races
    tag: str                   # fidelities of its detectors; every time is modelled
    by_truth: WideNight | None = None   # of live detectors


def platform(store: Store) -> PlatformReport:
    """Read and judge a run at counts fidelity."""
    p, calls, pods = store.table("passage"), store.optional("call"), store.optional("pod")
    judged = requirement(p, store.table("reference"))
    end = float(np.nanmax(np.concatenate([p["freed_s"], p["readout_end_s"]])))
    edges = np.linspace(0.0, end, BINS + 1)
    wait = p["taken_s"] >= p["published_s"]
    named = np.array([SERVICES.index(name) for name in CALL_SERVICES])[calls["step"]]
    queues = np.stack([busy(calls["asked_s"][named == k], calls["start_s"][named == k], edges)
                       for k in range(len(SERVICES))])
    loads = np.stack([busy(calls["start_s"][named == k], calls["end_s"][named == k], edges)
                      for k in range(len(SERVICES))])
    ended = np.where(np.isfinite(pods["ended_s"]), pods["ended_s"], end)
    sent = p["reason"] == b""
    shutter = (p["delivered_s"] - p["shutter_close_s"])[sent]
    return PlatformReport(
        p, judged, _parts(p, calls), _steps(store.optional("work")), _causes(p), _services(calls, named, queues, loads),
        edges, np.stack([busy(*span(p, name), edges) for name in HELD]),
        busy(p["published_s"][wait], p["taken_s"][wait], edges), queues, loads,
        busy(pods["created_s"], np.maximum(ended, pods["created_s"]), edges),
        {f"p{q}": weighted_percentile(shutter, p["n_sent"][sent], q) for q in (5, 50, 95, 98, 100)},
        races(p, store.table("next_visit")), f"{store.facts().get('fidelity', 'counts')} · modelled",
        wide_night(store) if store.has("truth") and store.has("DiaSource") else None)


def _parts(p: np.ndarray, calls: np.ndarray) -> np.ndarray:
    """How many seconds of alerts' delays each part makes."""
    each = parts(p, calls)
    sent = np.isfinite(each).all(axis=1) & (p["n_sent"] > 0)
    out = np.zeros(len(PARTS), PART_ROW)
    out["name"] = [name.encode() for name in PARTS]
    if not sent.any():
        return out[:0]
    weight, late = p["n_sent"][sent].astype(float), is_late(p)[sent]
    for row, column in zip(out, each[sent].T, strict=True):
        row["mean_s"], row["p98_s"] = np.average(column, weights=weight), weighted_percentile(column, weight, 98)
        row["late_mean_s"] = np.average(column[late], weights=weight[late]) if late.any() else np.nan
    return out[(out["mean_s"] > 0) | (out["late_mean_s"] > 0)]


def _steps(work: np.ndarray) -> np.ndarray:
    out = np.zeros(len(WORK_STEPS), STEP_ROW)
    for row, name in zip(out, WORK_STEPS, strict=True):
        seconds = work[name]
        row["name"] = name.encode()
        if len(seconds):
            row["median_s"], row["p98_s"] = np.percentile(seconds, [50, 98])
            row["hours"] = float(seconds.sum(dtype=float)) / 3600
    return out


def _causes(p: np.ndarray) -> np.ndarray:
    """Late and lost alerts by cause."""
    late = p[(p["cause"] != b"") & (p["n_alerts"] > 0)]
    rows = []
    for cause in np.unique(late["cause"]):
        mine = late[late["cause"] == cause]
        excess = mine["excess_s"][np.isfinite(mine["excess_s"])]
        rows.append((cause, int(mine["n_alerts"].sum()), len(np.unique(mine["visit"])),
                     float(np.median(excess)) if len(excess) else np.nan, bool((mine["reason"] != b"").all())))
    made = np.array(rows, CAUSE_ROW)
    return made[np.argsort(-made["alerts"], kind="stable")]


def _services(calls: np.ndarray, named: np.ndarray, queues: np.ndarray, loads: np.ndarray) -> np.ndarray:
    out = np.zeros(len(SERVICES), SERVICE_ROW)
    for k, (row, name) in enumerate(zip(out, SERVICES, strict=True)):
        mine = calls[named == k]
        row["name"], row["calls"] = name.encode(), len(mine)
        if len(mine):
            wait = mine["start_s"] - mine["asked_s"]
            row["mean_s"], row["wait_mean_s"] = (mine["end_s"] - mine["start_s"]).mean(), wait.mean()
            row["wait_p98_s"] = np.percentile(wait, 98)
            row["busy_mean"], row["busy_max"], row["queue_max"] = loads[k].mean(), loads[k].max(), queues[k].max()
    return out


# --- drawing ---------------------------------------------------------------------------------------------------------

@styled
def plot_delays(report: PlatformReport) -> Figure:
    """Delays of alerts on both clocks, and what they are made of."""
    rows = report.parts[np.maximum(report.parts["p98_s"], report.parts["mean_s"]) >= SEEN_S][::-1]
    height = max(3.6, 0.2 * len(rows) + 1.2)
    figure, (left, right) = panels(2, height=height, labels=["", max((n.decode() for n in rows["name"]), key=len,
                                                                     default="")])
    for axes in (left, right):      # room for a legend below the title
        box = axes.get_position()
        axes.set_position((box.x0, box.y0, box.width, box.height - 0.3 / height))
    marked(figure, report.tag)
    p = report.passages
    sent = (p["reason"] == b"") & (p["n_sent"] > 0)
    if not sent.any():
        nothing(left, "no alert was sent")
        nothing(right, "no alert was sent")
        return figure
    total, last = max(report.judged.alerts, 1), 0.0
    for clock, label, colour in (("readout_end_s", "since the end of readout", BLUE),
                                 ("shutter_close_s", "since shutter close", WARM)):
        delay = (p["delivered_s"] - p[clock])[sent]
        order = np.argsort(delay)
        share = np.cumsum(p["n_sent"][sent][order]) / total
        keep = np.unique(np.linspace(0, len(order) - 1, 600).astype(int))
        left.plot(delay[order][keep], 100 * share[keep], color=colour, label=label)
        last = max(last, weighted_percentile(delay, p["n_sent"][sent], 99.5))
    if last > LONG * LIMIT_S:
        left.set(xscale="log", xlim=(10.0, 1.2 * last))
        logarithmic(left.xaxis)
    else:
        left.set_xlim(0, max(1.25 * LIMIT_S, 1.05 * last))
    left.axvline(LIMIT_S, color=BAD, linewidth=1.2, label=f"{LIMIT_S:g} s")
    left.axhline(98, color=MUTED, linewidth=1, linestyle=":", label="98 %")
    left.set(ylim=(0, 102), xlabel="delay of alerts [s]", ylabel="alerts of the night [%]")
    left.set_title("When alerts leave", pad=22.0)
    left.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.985), ncols=4, fontsize=7.5, columnspacing=1.0,
                handlelength=1.2)
    place = np.arange(len(rows))
    right.barh(place, rows["p98_s"], 0.66, color=PALE, label="98 % of alerts within")
    right.barh(place, rows["mean_s"], 0.66, color=BLUE, label="mean")
    for y, row in zip(place, rows, strict=True):
        right.annotate(f"{row['mean_s']:.1f} / {row['p98_s']:.1f}", (max(row["p98_s"], row["mean_s"]), y),
                       xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5, color=MUTED)
    right.set_xlim(0, 1.22 * float(max(rows["p98_s"].max(), rows["mean_s"].max(), 1e-3)))
    right.set_yticks(place, [name.decode() for name in rows["name"]], fontsize=8)
    right.set(xlabel="part of the delay after the end of readout [s]")
    right.set_title("What their delay is made of", pad=22.0)
    right.grid(axis="y", visible=False)
    right.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.985), ncols=2, fontsize=7.5)
    return figure


@styled
def plot_load(report: PlatformReport) -> Figure:
    """Workers by what holds them, messages and calls that wait, over the night."""
    figure = Figure(figsize=(10.4, 7.4), dpi=100)
    axes = [figure.add_axes((0.075, bottom, 0.90, 0.215)) for bottom in (0.715, 0.395, 0.075)]
    marked(figure, report.tag)
    hours = (report.edges_s[1:] + report.edges_s[:-1]) / 7200
    axes[0].stackplot(hours, report.held, colors=[HELD_COLOURS[name] for name in HELD], labels=HELD)
    axes[0].plot(hours, report.alive, color=INK, linewidth=0.9, label="pods")
    axes[0].set(ylabel="workers", title="Workers by what holds them")
    _above(axes[0], 6)
    _curves(axes[1], hours, report.loads, "calls", "Calls that shared services work at")
    _curves(axes[2], hours, report.queues, "number", "Who waits")
    axes[2].plot(hours, report.waiting, color=INK, linewidth=1.2, label="messages for a worker")
    _above(axes[2], 8)
    axes[2].set_xlabel("hours of the simulated clock")
    for one in axes:
        one.set_xlim(hours[0], hours[-1])
        one.set_ylim(0, max(1.05 * one.get_ylim()[1], 1.0))
    return figure


def _above(axes: Axes, columns: int) -> None:
    """The legend above the axes, where it covers nothing."""
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=columns, fontsize=7.5, columnspacing=1.0,
                handlelength=1.2)


def _curves(axes: Axes, hours: np.ndarray, rows: np.ndarray, label: str, title: str) -> None:
    shown = 0
    for k, name in enumerate(SERVICES):
        if rows[k].max() >= 0.05:
            axes.plot(hours, rows[k], color=CYCLE[k % len(CYCLE)], linewidth=1.0, label=name)
            shown += 1
    axes.set(ylabel=label, title=title)
    if shown:
        _above(axes, 8)


@styled
def plot_visits(report: PlatformReport, faults: Sequence[Fault] = ()) -> Figure:
    """The night visit by visit: what troubled it, delays, the share in time, alerts."""
    v = report.judged.visits
    strip = 0.17 * len(faults) + (0.45 if faults else 0.0)     # inches
    height = 6.4 + strip
    figure = Figure(figsize=(10.4, height), dpi=100)
    boxes = [(3.84, 2.18), (2.18, 1.09), (0.51, 1.09)]
    axes = [figure.add_axes((0.085, bottom / height, 0.89, tall / height)) for bottom, tall in boxes]
    marked(figure, report.tag)
    hours = v["readout_end_s"] / 3600
    known = v["p98_s"][np.isfinite(v["p98_s"])]
    top = 1.25 * max(float(known.max(initial=0)), 1.2 * LIMIT_S)
    long, size = top > LONG * LIMIT_S, 3.5 if len(v) > FEW else 6.0
    for name, colour, label in (("p98_s", BLUE, "98 % of a visit's alerts"), ("median_s", PALE, "half of them")):
        finite = np.isfinite(v[name])
        axes[0].plot(hours[finite], v[name][finite], ".", markersize=size, color=colour, label=label)
    never = ~np.isfinite(v["p98_s"]) & (v["alerts"] > 0)
    if never.any():
        axes[0].plot(hours[never], np.full(never.sum(), 0.97 * top), "v", markersize=4, color=BAD, clip_on=False,
                     label="over 2 % never sent")
    axes[0].axhline(LIMIT_S, color=BAD, linewidth=1.2, label=f"{LIMIT_S:g} s")
    if long:
        axes[0].set_yscale("log")
        logarithmic(axes[0].yaxis)
    axes[0].set(ylabel="delay after readout [s]", ylim=(10.0 if long else 0, top), title="Visit by visit")
    axes[0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4)
    share = 100 * v["on_time"] / np.maximum(v["alerts"], 1)
    good = share >= 98
    for chosen, colour, label in ((good, GOOD, "98 % or more"), (~good, BAD, "fewer")):
        axes[1].plot(hours[chosen], share[chosen], ".", markersize=size, color=colour, label=label)
    axes[1].set(ylabel=f"within {LIMIT_S:g} s [%]", ylim=(-5, 108))
    axes[1].legend(loc="lower right", bbox_to_anchor=(1.0, 0.96), ncols=2)
    axes[2].plot(hours, v["alerts"], ".", markersize=size, color=PURPLE)
    if v["alerts"].max(initial=0) > AVERAGE / 4:
        axes[2].axhline(AVERAGE, color=MUTED, linewidth=1, linestyle=":", label=f"{AVERAGE:,}")
        axes[2].legend(loc="lower right", bbox_to_anchor=(1.0, 0.96))
    axes[2].set(ylabel="alerts", xlabel="hours of the simulated clock", ylim=(0, None))
    axes[2].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if faults:
        _strip(figure.add_axes((0.085, 6.38 / height, 0.89, (strip - 0.40) / height)), faults, hours)
    for one in figure.axes:
        one.set_xlim(0, 1.01 * float(hours.max(initial=1e-3)))
    return figure


def _strip(axes: Axes, faults: Sequence[Fault], hours: np.ndarray) -> None:
    """When each fault was, one bar below the other."""
    end = float(hours.max(initial=1e-3))
    for k, fault in enumerate(faults):
        begin, stop = fault.begin_s / 3600, min(fault.end_s / 3600, 1.01 * end)
        axes.barh(-k, max(stop - begin, 0.004 * end), 0.7, left=begin, color=WARM, alpha=0.75)
        at, side = (stop, "left") if stop < 0.75 * end else (begin, "right")
        if at == begin and begin < 0.25 * end:      # all night: on the bar
            side = "left"
        axes.annotate(fault.name, (at, -k), xytext=(4 if side == "left" else -4, 0), textcoords="offset points",
                      va="center", ha=side, fontsize=7.5, color=INK)
    axes.set(ylim=(-len(faults) + 0.4, 0.6), title="Faults")
    axes.set_yticks([])
    axes.tick_params(labelbottom=False)
    axes.grid(axis="y", visible=False)


__all__ = ["BINS", "Fault", "PlatformReport", "platform", "plot_delays", "plot_load", "plot_visits"]
