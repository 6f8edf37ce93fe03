"""A night of the platform: when its alerts left, what they waited for, and what every machine did meanwhile."""

import heapq
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from reports.delays import HELD, LIMIT_S, PARTS, busy, is_late, parts, span
from reports.drawing import BAD, BLUE, CYCLE, GOOD, INK, MUTED, PALE, PURPLE, WARM, nothing, panels, styled
from reports.races import Races, races
from reports.requirement import Requirement, requirement, weighted_percentile
from reports.store import Store
from reports.wide import WideNight, wide_night
from schemas.measures import CALL_SERVICES, WORK_STEPS

BINS: Final = 600              # of the night, in curves over time
RASTER: Final = (1500, 1700)   # columns of time, and rows of workers at most
HELD_COLOURS: Final = {"preload": PALE, "image": "#b4c0cc", "pixels": BLUE, "catalogue": GOOD, "export": WARM}
SERVICES: Final = tuple(dict.fromkeys(CALL_SERVICES))

PART_ROW: Final = np.dtype([("name", "S24"), ("mean_s", "f8"), ("p98_s", "f8"), ("late_mean_s", "f8")])
STEP_ROW: Final = np.dtype([("name", "S24"), ("median_s", "f8"), ("p98_s", "f8"), ("hours", "f8")])
CAUSE_ROW: Final = np.dtype([("cause", "S24"), ("alerts", "i8"), ("visits", "i8"), ("excess_s", "f8"), ("lost", "?")])
SERVICE_ROW: Final = np.dtype([("name", "S24"), ("calls", "i8"), ("mean_s", "f8"), ("wait_mean_s", "f8"),
                               ("wait_p98_s", "f8"), ("busy_mean", "f8"), ("busy_max", "f8"), ("queue_max", "f8")])


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
        races(p, store.table("next_visit")),
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
    rows = report.parts[::-1]
    figure, (left, right) = panels(2, height=max(3.5, 0.2 * len(rows) + 1.1),
                                   labels=["", max((n.decode() for n in rows["name"]), key=len, default="")])
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
        left.plot(delay[order][keep], share[keep], color=colour, label=label)
        last = max(last, weighted_percentile(delay, p["n_sent"][sent], 99.5))
    left.axvline(LIMIT_S, color=BAD, linewidth=1.2)
    left.axhline(0.98, color=MUTED, linewidth=1, linestyle=":")
    left.set(xlim=(0, max(1.25 * LIMIT_S, 1.05 * last)), ylim=(0, 1.02), xlabel="delay of alerts [s]",
             ylabel="share of the night's alerts", title="When alerts leave")
    left.legend(loc="lower right")
    place = np.arange(len(rows))
    right.barh(place, rows["p98_s"], 0.66, color=PALE, label="98 % of alerts")
    right.barh(place, rows["mean_s"], 0.66, color=BLUE, label="mean")
    right.set_yticks(place, [name.decode() for name in rows["name"]], fontsize=8)
    right.set(xlabel="seconds after the end of readout", title="What their delay is made of")
    right.grid(axis="y", visible=False)
    right.legend(loc="lower right")
    return figure


@styled
def plot_load(report: PlatformReport) -> Figure:
    """Workers by what holds them, messages and calls that wait, over the night."""
    figure = Figure(figsize=(10.4, 7.2), dpi=100)
    axes = [figure.add_axes((0.075, bottom, 0.90, 0.24)) for bottom in (0.715, 0.395, 0.075)]
    hours = (report.edges_s[1:] + report.edges_s[:-1]) / 7200
    axes[0].stackplot(hours, report.held, colors=[HELD_COLOURS[name] for name in HELD], labels=HELD)
    axes[0].plot(hours, report.alive, color=INK, linewidth=0.9, label="pods")
    axes[0].set(ylabel="workers", title="Workers, by what holds them")
    axes[0].legend(loc="upper right", ncols=6)
    _curves(axes[1], hours, report.loads, "calls being served", "Shared services at work")
    _curves(axes[2], hours, report.queues, "waiting", "Who waits: messages for a worker, calls for a server")
    axes[2].plot(hours, report.waiting, color=INK, linewidth=1.2, label="messages")
    axes[2].legend(loc="upper right", ncols=4)
    axes[2].set_xlabel("hours of the simulated clock")
    for one in axes:
        one.set_xlim(hours[0], hours[-1])
        one.set_ylim(0, 1.3 * one.get_ylim()[1])      # room for the legend
    return figure


def _curves(axes: Axes, hours: np.ndarray, rows: np.ndarray, label: str, title: str) -> None:
    shown = 0
    for k, name in enumerate(SERVICES):
        if rows[k].max() >= 0.05:
            axes.plot(hours, rows[k], color=CYCLE[k % len(CYCLE)], linewidth=1.0, label=name)
            shown += 1
    axes.set(ylabel=label, title=title)
    if shown:
        axes.legend(loc="upper right", ncols=4)


@styled
def plot_visits(report: PlatformReport) -> Figure:
    """The night visit by visit: delays, the share in time, alerts."""
    v = report.judged.visits
    figure = Figure(figsize=(10.4, 6.4), dpi=100)
    axes = [figure.add_axes((0.075, bottom, 0.90, height)) for bottom, height in ((0.60, 0.34), (0.34, 0.17),
                                                                                (0.08, 0.17))]
    hours = v["readout_end_s"] / 3600
    top = 1.25 * max(float(np.max(np.where(np.isfinite(v["p98_s"]), v["p98_s"], 0), initial=0)), 1.2 * LIMIT_S)
    for name, colour, label in (("p98_s", BLUE, "98 % of a visit's alerts"), ("median_s", PALE, "half of them")):
        finite = np.isfinite(v[name])
        axes[0].plot(hours[finite], v[name][finite], ".", markersize=3.5, color=colour, label=label)
    never = ~np.isfinite(v["p98_s"]) & (v["alerts"] > 0)
    axes[0].plot(hours[never], np.full(never.sum(), 0.97 * top), "v", markersize=4, color=BAD,
                 label="over 2 % never sent")
    axes[0].axhline(LIMIT_S, color=BAD, linewidth=1.2)
    axes[0].set(ylabel="delay since readout [s]", ylim=(0, top), title="Visit by visit")
    axes[0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3)
    share = v["on_time"] / np.maximum(v["alerts"], 1)
    good = share >= 0.98
    for chosen, colour in ((good, GOOD), (~good, BAD)):
        axes[1].plot(hours[chosen], share[chosen], ".", markersize=3, color=colour)
    axes[1].set(ylabel="within 60 s", ylim=(-0.05, 1.08))
    axes[2].plot(hours, v["alerts"], ".", markersize=3, color=PURPLE)
    axes[2].axhline(10_000, color=MUTED, linewidth=1, linestyle=":")
    axes[2].set(ylabel="alerts", xlabel="hours of the simulated clock", ylim=(0, None))
    for one in axes:
        one.set_xlim(0, 1.01 * float(hours.max(initial=1e-3)))
    return figure


@styled
def plot_workers(report: PlatformReport) -> Figure:
    """The night worker by worker: what each did, at every time."""
    raster, end = workers_raster(report.passages)
    figure = Figure(figsize=(10.4, 5.2), dpi=100)
    axes = figure.add_axes((0.075, 0.10, 0.90, 0.80))
    colours = ["#ffffff", *(HELD_COLOURS[name] for name in HELD)]
    axes.imshow(raster, aspect="auto", interpolation="nearest", origin="lower", cmap=ListedColormap(colours), vmin=-0.5,
                vmax=len(HELD) + 0.5, extent=(0, end / 3600, 0, len(raster)))
    for name in HELD:
        axes.plot([], [], "s", color=HELD_COLOURS[name], label=name)
    axes.legend(loc="upper right", ncols=len(HELD))
    axes.set(xlabel="hours of the simulated clock", ylabel="worker", ylim=(0, len(raster) * 1.12),
             title="Worker by worker (a restarted one keeps its row)")
    axes.grid(visible=False)
    return figure


def workers_raster(p: np.ndarray) -> tuple[np.ndarray, float]:
    """(rows, columns) uint8: 1 + index of HELD where a worker is held, 0 where it is free; and the end of time [s].

    Rows are workers: each pod takes the first row that is free when it begins.
    """
    taken = p[np.isfinite(p["taken_s"]) & np.isfinite(p["freed_s"])]
    end = float(taken["freed_s"].max(initial=1.0))
    row_of = _rows(taken)
    n_rows = min(max(int(row_of.max(initial=0)) + 1, 1), RASTER[1])
    out = np.zeros((n_rows, RASTER[0]), np.uint8)
    times = np.stack([taken[name] for name in ("taken_s", "preloaded_s", "seen_s", "measured_s", "saved_s")])
    times = np.where(np.isfinite(times), times, taken["freed_s"])
    cells = np.minimum((np.concatenate([times, taken["freed_s"][None]]) / end * RASTER[0]).astype(int), RASTER[0] - 1)
    inside = row_of < n_rows
    for k in range(len(HELD)):
        for row, begin, stop in zip(row_of[inside].tolist(), cells[k][inside].tolist(), cells[k + 1][inside].tolist(),
                                    strict=True):
            if stop > begin:
                out[row, begin:stop] = k + 1
    return out, end


def _rows(taken: np.ndarray) -> np.ndarray:
    """A row for every passage: pods one after the other share rows."""
    order = np.argsort(taken["taken_s"], kind="stable")
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    for pod, begin, end in zip(taken["pod"][order].tolist(), taken["taken_s"][order].tolist(),
                               taken["freed_s"][order].tolist(), strict=True):
        first.setdefault(pod, begin)
        last[pod] = max(last.get(pod, end), end)
    free: list[int] = []
    busy_until: list[tuple[float, int]] = []
    row_of: dict[int, int] = {}
    for pod, begin in sorted(first.items(), key=lambda item: item[1]):
        while busy_until and busy_until[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(busy_until)[1])
        row_of[pod] = heapq.heappop(free) if free else len(busy_until)
        heapq.heappush(busy_until, (last[pod], row_of[pod]))
    return np.array([row_of[pod] for pod in taken["pod"].tolist()], int)


__all__ = ["BINS", "PlatformReport", "platform", "plot_delays", "plot_load", "plot_visits", "plot_workers",
           "workers_raster"]
