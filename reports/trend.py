"""Metrics over recorded commits: each against the first one, row by row, and the commits where they moved for good.

A baseline of the same nights is paired with every later one, so what noise the sky has cancels: most metrics of most
commits do not move at all. Steps are found by optimal partitioning (PELT) under a penalty that white noise passes in
5 % of series. The unit is the error of a difference, or a quarter of the metric's margin where that is larger. Each
step is then judged by itself, the commit before against the commit after.

References
----------
Killick, Fearnhead & Eckley 2012, J. American Statistical Association 107, 1590 (PELT); Truong, Oudre & Vayatis 2020,
Signal Processing 167, 107299 (ruptures).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import ruptures
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.comparison_page import WORDS, difference_text, interval_text, unit_text, value_text
from reports.drawing import BAD, BLUE, GOOD, MUTED, PALE, WARM, png, styled, svg
from reports.intervals import Z95
from reports.metrics import metrics_of
from reports.outcome import Outcome
from reports.page import plain, rendered, written
from reports.paired import Judged, Rules, judge
from reports.pairing import paired
from reports.store import StoreError
from reports.terms import Metric

VERSION: Final = 1             # of history.json
FALSE_STEPS: Final = 0.05      # share of series of white noise that show a step
DRAWS: Final = 4000
EXCUSED: Final = 0.25          # of a margin: no step is looked for in less noise than this
COLUMNS: Final = 3
DRAWN: Final = 24              # panels on the page
COLOURS: Final = {"better": GOOD, "worse": BAD}


@dataclass(frozen=True, slots=True)
class Point:
    """The outcome of one commit."""

    name: str                  # short revision, or the folder's name
    date: str                  # of the record, ISO 8601
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Move:
    """A metric's step from one commit to the next recorded one."""

    at: int                    # index of the first point after it
    judged: Judged             # before it against after it


@dataclass(frozen=True, slots=True)
class Series:
    """One metric over the points."""

    metric: Metric
    first: float               # its value at the first point
    difference: np.ndarray     # (n,) from the first point; relative for a relative metric
    low: np.ndarray            # (n,) 95 % interval of it
    high: np.ndarray
    margin: float
    noise: float               # of a difference: what steps are looked for in
    moves: tuple[Move, ...] = ()

    @property
    def values(self) -> np.ndarray:
        """(n,) the metric itself."""
        return self.first * (1 + self.difference) if self.metric.relative else self.first + self.difference


def trend(points: Sequence[Point], rules: Rules) -> list[Series]:
    """Every metric that all points have, in order of the registry; those that moved come first.

    StoreError where there are fewer than two points; ComparisonError where they are not of the same nights.
    """
    if len(points) < 2:
        raise StoreError(f"a history needs two recorded commits at least, got {len(points)}")
    plainly = [replace(point, outcome=_costless(point.outcome)) for point in points]
    metrics = metrics_of(plainly[0].outcome, plainly[-1].outcome)
    later = [{j.metric.key: j for j in _judged(metrics, plainly[0], point, rules)} for point in plainly[1:]]
    out = []
    for metric in metrics:
        row = [by_key[metric.key] for by_key in later if metric.key in by_key]
        if len(row) == len(later) and np.isfinite([j.difference for j in row]).all():
            out.append(_series(metric, row))
    moves = _moves(out, plainly, rules)
    out = [replace(one, moves=tuple(moves[one.metric.key])) for one in out]
    return sorted(out, key=lambda s: (not s.moves, not s.metric.primary))


def _series(metric: Metric, row: Sequence[Judged]) -> Series:
    difference, low, high = (np.array([0.0, *values]) for values in
                             zip(*((j.difference, j.low, j.high) for j in row), strict=True))
    margin = row[0].margin
    half = (high - low)[1:] / 2
    known = half[np.isfinite(half)]
    noise = max(float(np.median(known)) / Z95, EXCUSED * margin) if len(known) else float("inf")   # nothing is known
    return Series(metric, row[0].base, difference, low, high, margin, noise)


def _moves(series: Sequence[Series], points: Sequence[Point], rules: Rules) -> dict[str, list[Move]]:
    """The steps of every metric by its key, each judged by itself; the points of a place are paired once."""
    at: dict[int, list[Metric]] = {}
    for one in series:
        for place in steps(one.difference, one.noise):
            at.setdefault(place, []).append(one.metric)
    out: dict[str, list[Move]] = {one.metric.key: [] for one in series}
    for place, metrics in sorted(at.items()):
        base, head = paired(points[place - 1].outcome, points[place].outcome)[:2]
        for metric in metrics:
            out[metric.key].append(Move(place, judge([metric], base, head, rules)[0]))
    return out


def _judged(metrics: Sequence[Metric], base: Point, head: Point, rules: Rules) -> tuple[Judged, ...]:
    return judge(metrics, *paired(base.outcome, head.outcome)[:2], rules)


def _costless(outcome: Outcome) -> Outcome:
    """An outcome without CPU times and memory, which were measured on different days."""
    rows = outcome.steps.copy()
    rows["cpu_s"] = rows["peak_mb"] = np.nan
    return replace(outcome, steps=rows)


# --- steps -----------------------------------------------------------------------------------------------------------

def steps(values: np.ndarray, noise: float) -> list[int]:
    """Indices of the first values after each step of a series with independent errors of a known size.

    Examples
    --------
    >>> steps(np.array([0.0, 0.1, -0.1, 5.0, 5.1]), 0.1)
    [3]
    """
    n = len(values)
    if n < 2 or noise <= 0:
        return []
    search = ruptures.Pelt(model="l2", min_size=1, jump=1).fit(np.asarray(values, float)[:, None] / noise)
    return [int(end) for end in search.predict(pen=penalty(n))[:-1]]


@lru_cache
def penalty(n: int) -> float:
    """What one step must take off the sum of squares, so that white noise of unit variance shows a step in 5 % of
    series: the quantile of the largest gain that any one place offers, by simulation with a fixed seed.
    """
    noise = np.random.default_rng((0, n)).standard_normal((DRAWS, n))
    k = np.arange(1, n)
    off = np.cumsum(noise, axis=1)[:, :-1] - k / n * noise.sum(axis=1, keepdims=True)
    gain = (off**2 / (k * (1 - k / n))).max(axis=1)
    return float(np.quantile(gain, 1 - FALSE_STEPS)) if n > 2 else Z95**2


# --- drawing ---------------------------------------------------------------------------------------------------------

def write(series: Sequence[Series], points: Sequence[Point], out: Path) -> Path:
    """`history.html`, `history.png` and `history.json` in a folder; the page's path."""
    shown = series[:DRAWN]
    figure = plot(shown, [point.name for point in points])
    decided_first = sorted(((s, move) for s in series for move in s.moves), key=lambda one: WORDS.index(
        one[1].judged.verdict))
    rows = [(points[move.at - 1].name, points[move.at].name, points[move.at].date[:10], s.metric.name,
             f"{value_text(move.judged, move.judged.base)} → {value_text(move.judged, move.judged.head)} "
             f"{unit_text(s.metric)}".strip(),
             f"{difference_text(move.judged)} ({interval_text(move.judged)})", move.judged.verdict)
            for s, move in decided_first]
    (out / "history.png").write_bytes(png(figure))
    written(out / "history.json", _json(series, points))
    return written(out / "history.html", rendered(
        "history.html", points=points, rows=rows, image=svg(plot(shown, [point.name for point in points])),
        left_out=len(series) - len(shown)))


@styled
def plot(series: Sequence[Series], names: Sequence[str]) -> Figure:
    """A panel per metric: its difference from the first commit with 95 % intervals, steps marked."""
    rows = max(-(-len(series) // COLUMNS), 1)
    figure = Figure(figsize=(12.5, 2.6 * rows), dpi=100, layout="constrained")
    panels = np.ravel(figure.subplots(rows, COLUMNS, squeeze=False))
    for axes, one in zip(panels, series, strict=False):
        _panel(axes, one, names)
    for axes in panels[len(series):]:
        axes.set_axis_off()
    return figure


def _panel(axes: Axes, series: Series, names: Sequence[str]) -> None:
    x = np.arange(len(names))
    axes.axhspan(-series.margin, series.margin, color=PALE, alpha=0.25, linewidth=0)
    low, high = (np.where(np.isfinite(v), v, series.difference) for v in (series.low, series.high))
    axes.errorbar(x, series.difference, [series.difference - low, high - series.difference], fmt="o", markersize=3.5,
                  color=BLUE, ecolor=MUTED, elinewidth=1)
    for begin, end in zip([0, *(m.at for m in series.moves)], [*(m.at for m in series.moves), len(x)], strict=True):
        level = float(np.mean(series.difference[begin:end]))
        axes.plot([begin - 0.3, end - 0.7], [level, level], color=BLUE, linewidth=1.2)
    for move in series.moves:
        axes.axvline(move.at - 0.5, color=COLOURS.get(move.judged.verdict, WARM), linewidth=1.4, linestyle="--")
        axes.annotate(names[move.at], (move.at - 0.5, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -9),
                      textcoords="offset points", fontsize=7.5, color=COLOURS.get(move.judged.verdict, WARM))
    ticks = x[:: max(len(x) // 6, 1)]
    axes.set_xticks(ticks.tolist(), [names[i] for i in ticks], fontsize=7)
    unit = "relative" if series.metric.relative else series.metric.unit
    axes.set_title(f"{series.metric.name}" + (f" [{unit}]" if unit else ""), fontsize=8.5)


def _json(series: Sequence[Series], points: Sequence[Point]) -> str:
    document: dict[str, Any] = {
        "version": VERSION, "commits": [{"name": p.name, "date": p.date} for p in points],
        "metrics": [{"key": s.metric.key, "name": s.metric.name, "unit": s.metric.unit, "values": plain(s.values),
                     "difference": plain(s.difference), "low": plain(s.low), "high": plain(s.high),
                     "steps": [{"after": points[m.at - 1].name, "at": points[m.at].name,
                                "difference": plain(m.judged.difference), "low": plain(m.judged.low),
                                "high": plain(m.judged.high), "verdict": m.judged.verdict} for m in s.moves]}
                    for s in series]}
    return json.dumps(document, indent=1, allow_nan=False)
