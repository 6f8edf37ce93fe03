"""A night worker by worker and visit by visit: packed for a page that zooms, and drawn around its worst visit.

A row is a worker: pods that follow each other share one. What held a worker is one of `HELD`.
"""

import base64
import heapq
import zlib
from typing import Any, Final

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from reports.delays import HELD, LIMIT_S
from reports.drawing import BAD, BLUE, GOOD, INK, MUTED, PALE, WARM, marked, nothing, styled

HELD_COLOURS: Final = {"preload": PALE, "image": "#c3ccd6", "pixels": BLUE, "catalogue": GOOD, "export": WARM}
COLUMNS: Final = 1500          # of time in the drawing
AROUND_S: Final = (180.0, 60.0)    # drawn before the end of a visit's readout, and after its last worker is free
LONGEST_S: Final = 1200.0      # drawn at most
TICK: Final = 0.1              # s, of packed times
NEVER: Final = {"u4": 2**32 - 1, "u2": 2**16 - 1}
STATIONS: Final = ("taken_s", "preloaded_s", "seen_s", "measured_s", "saved_s")     # begin of each of HELD


def worst(visits: np.ndarray) -> int:
    """Index of the visit of the greatest share of late alerts, of equal ones the slowest that was sent (VISIT rows)."""
    share = np.where(visits["alerts"] > 0, 1.0 - visits["on_time"] / np.maximum(visits["alerts"], 1), -1.0)
    slow = np.where(np.isfinite(visits["p98_s"]), visits["p98_s"], -1.0)
    return int(np.lexsort((slow, np.where(slow < 0, -1.0, share)))[-1]) if len(visits) else 0


def window(p: np.ndarray, visits: np.ndarray) -> tuple[float, float]:
    """(begin, end) around the worst visit: its work, from before its readout where that is near."""
    if not len(visits):
        return 0.0, 1.0
    mine = p[p["visit"] == visits["visit"][worst(visits)]]
    mine = mine[np.isfinite(mine["taken_s"]) & np.isfinite(mine["freed_s"])]
    zero = float(visits["readout_end_s"][worst(visits)])
    end = float(mine["freed_s"].max(initial=zero)) + AROUND_S[1]
    if end - zero <= LONGEST_S or not len(mine):
        return zero - AROUND_S[0], end
    begin = float(mine["taken_s"].min()) - AROUND_S[0]
    return begin, min(end, begin + LONGEST_S)


def packed(p: np.ndarray, visits: np.ndarray) -> dict[str, Any]:
    """What the page's script reads: columns of all detector-visits, in the order of `p`, and each visit's figures.

    Columns are little-endian, one after the other, deflated: `taken` u4, seconds of each of HELD u2, `delivered` after
    `taken` u2, `row` u2, `reason` u1; times in ticks, the greatest number where there was none.
    """
    row, reasons = np.full(len(p), -1), np.unique(p["reason"])
    held = np.isfinite(p["taken_s"]) & np.isfinite(p["freed_s"])
    row[held] = worker_rows(p[held])
    edges = _edges(p)
    columns = [_ticks(p["taken_s"], "u4"), *(_ticks(edges[k + 1] - edges[k], "u2") for k in range(len(HELD))),
               _ticks(p["delivered_s"] - p["taken_s"], "u2"), _ticks(row * TICK, "u2"),
               np.searchsorted(reasons, p["reason"]).astype("u1")]
    data = base64.b64encode(zlib.compress(b"".join(column.tobytes() for column in columns), 6)).decode()
    return {"n": len(p), "detectors": len(p) // max(len(visits), 1), "rows": int(row.max(initial=0)) + 1,
            "end_s": float(np.nanmax(np.append(p["freed_s"], 1.0))), "tick_s": TICK, "limit_s": LIMIT_S,
            "held": list(HELD), "colours": [HELD_COLOURS[name] for name in HELD], "worst": worst(visits),
            "window_s": list(window(p, visits)),
            "reasons": [reason.decode() for reason in reasons],
            "visits": [str(visit) for visit in visits["visit"].tolist()],
            "readout_s": np.round(visits["readout_end_s"], 1).tolist(), "data": data}


def _edges(p: np.ndarray) -> np.ndarray:
    """(len(HELD) + 1, n) when each of HELD begins, and the last ends; cut short, when the worker is free."""
    times = np.stack([p[name] for name in STATIONS])
    return np.concatenate([np.where(np.isfinite(times), times, p["freed_s"]), p["freed_s"][None]])


def _ticks(seconds: np.ndarray, kind: str) -> np.ndarray:
    most = NEVER[kind]
    ticks = np.where(np.isfinite(seconds) & (seconds >= 0), np.rint(np.nan_to_num(seconds) / TICK), most)
    return np.minimum(ticks, most).astype(f"<{kind}")


@styled
def plot_workers(p: np.ndarray, visits: np.ndarray, tag: str) -> Figure:
    """The workers around the worst visit: what each did, in minutes after the end of its readout."""
    figure = Figure(figsize=(10.4, 5.2), dpi=100)
    axes = figure.add_axes((0.075, 0.11, 0.90, 0.77))
    marked(figure, tag)
    if not len(visits) or not np.isfinite(p["taken_s"]).any():
        nothing(axes, "no message was taken")
        return figure
    chosen = worst(visits)
    zero, (begin, end) = float(visits["readout_end_s"][chosen]), window(p, visits)
    raster = workers_raster(p, begin, end, min(max(zero, begin), end))
    colours = ["#ffffff", *(HELD_COLOURS[name] for name in HELD)]
    axes.imshow(raster, aspect="auto", interpolation="nearest", origin="lower", cmap=ListedColormap(colours), vmin=-0.5,
                vmax=len(HELD) + 0.5, extent=((begin - zero) / 60, (end - zero) / 60, 0, len(raster)))
    for name in HELD:
        axes.plot([], [], "s", color=HELD_COLOURS[name], label=name)
    for late, colour, label in ((0.0, INK, "its readout ends"), (LIMIT_S, BAD, f"{LIMIT_S:g} s later")):
        if begin <= zero + late <= end:
            axes.axvline(late / 60, color=colour, linewidth=1.2, label=label)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(HELD) + 2, handlelength=1.0, columnspacing=1.2)
    axes.set(xlabel=f"minutes after the end of readout of visit {visits['visit'][chosen]}, {zero / 3600:.2f} h",
             ylabel="workers, by when they took their message",
             title="Workers around the worst visit")
    axes.grid(visible=False)
    axes.tick_params(colors=MUTED)
    return figure


def workers_raster(p: np.ndarray, begin: float, end: float, at: float, columns: int = COLUMNS) -> np.ndarray:
    """(rows, columns) uint8 from `begin` to `end`: 1 + index of HELD where a worker is held, 0 where it is free.

    Only workers that do anything then have a row, in the order in which they took what they had at the time `at`.
    """
    taken = p[np.isfinite(p["taken_s"]) & np.isfinite(p["freed_s"])]
    rows = worker_rows(taken)
    inside = (taken["taken_s"] < end) & (taken["freed_s"] > begin)
    taken, rows = taken[inside], np.unique(rows[inside], return_inverse=True)[1]
    had = np.full(int(rows.max(initial=0)) + 1, np.inf)
    after = had.copy()
    early = taken["taken_s"] <= at
    np.minimum.at(after, rows[~early], taken["taken_s"][~early])
    had[rows[early]] = -np.inf
    np.maximum.at(had, rows[early], taken["taken_s"][early])
    place = np.empty(len(had), int)
    place[np.lexsort((after, had))] = np.arange(len(had))
    out = np.zeros((len(had), columns), np.uint8)
    cells = np.clip((_edges(taken) - begin) / (end - begin) * columns, 0, columns).astype(int)
    for k in range(len(HELD)):
        for row, first, last in zip(place[rows].tolist(), cells[k].tolist(), cells[k + 1].tolist(), strict=True):
            if last > first:
                out[row, first:last] = k + 1
    return out


def worker_rows(taken: np.ndarray) -> np.ndarray:
    """A row for every passage: each pod takes the first one that is free when it begins."""
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


__all__ = ["HELD_COLOURS", "packed", "plot_workers", "window", "worker_rows", "workers_raster", "worst"]
