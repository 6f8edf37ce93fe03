"""The latency of one night over platforms: a table's rows, the cheapest that will do, and a drawing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.delays import LIMIT_S
from reports.drawing import BAD, BLUE, GOOD, INK, MUTED, PALE, WARM, logarithmic, marked, panels, styled
from reports.requirement import MAX_LATE

MODELLED: Final = "counts · modelled"


@dataclass(frozen=True, slots=True)
class Point:
    """One platform's night."""

    settings: tuple[tuple[str, str], ...]   # key and value of each axis
    price: float               # in workers
    met: bool                  # the requirement
    p50_s: float               # delay since the end of readout; infinite where so many alerts were never sent
    p98_s: float
    on_time: float             # share of alerts within 60 s
    within_120: float
    late: float                # share of visits
    failed: float              # share of visits
    sent: float                # share of alerts
    held: float                # workers, mean over the night
    longest_wait_s: float      # of a message for its worker

    @property
    def name(self) -> str:
        """Its settings."""
        return ", ".join(f"{key} = {value}" for key, value in self.settings)


def cheapest(points: Sequence[Point]) -> Point | None:
    """The one of least price that meets the requirement, of equal ones the fastest."""
    return min((point for point in points if point.met), key=lambda point: (point.price, point.p98_s), default=None)


def nearest(points: Sequence[Point]) -> Point:
    """The one with the fewest visits late or failed, of equal ones the fastest, then the cheapest."""
    return min(points, key=lambda point: (point.late + point.failed, point.p98_s, point.price))


@styled
def plot_prices(points: Sequence[Point]) -> Figure:
    """Latency against price, those that meet the requirement in green; the cheapest of them with a star."""
    figure, (axes,) = panels(1, width=10.4, height=3.4)
    marked(figure, MODELLED)
    best, top = cheapest(points), _ceiling(points)
    for met, colour, label in ((True, GOOD, "meets the requirement"), (False, WARM, "does not")):
        mine = [point for point in points if point.met is met]
        if mine:
            axes.plot([point.price for point in mine], [min(point.p98_s, top) for point in mine], "o", color=colour,
                      label=f"{label} ({len(mine)})")
    if best is not None:
        axes.plot([best.price], [best.p98_s], "*", color=GOOD, markersize=16, markeredgecolor=INK, label=best.name)
    axes.axhline(LIMIT_S, color=BAD, linewidth=1.2, label=f"{LIMIT_S:g} s")
    axes.set_yscale("log")
    logarithmic(axes.yaxis)
    axes.set(xlabel="price [workers]", ylabel="98 % of alerts within [s]", title="Latency and price")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=4, fontsize=7.5, columnspacing=1.0)
    return figure


def _ceiling(points: Sequence[Point]) -> float:
    """Where what is never out is drawn [s]."""
    return 2 * max([LIMIT_S, *(point.p98_s for point in points if np.isfinite(point.p98_s))])


@styled
def plot(points: Sequence[Point]) -> Figure:
    """The surface: over one axis two curves, over two or more a map of the first two, the best over the others."""
    if len(points[0].settings) == 1:
        return _curves(points)
    return _map(points)


def _curves(points: Sequence[Point]) -> Figure:
    figure, (left, right) = panels(2)
    marked(figure, MODELLED)
    key = points[0].settings[0][0]
    x, numeric = _positions([point.settings[0][1] for point in points])
    for name, colour, label in (("p98_s", BLUE, "98 % of alerts"), ("p50_s", PALE, "half of them")):
        y = np.array([getattr(point, name) for point in points])
        known = np.isfinite(y)
        left.plot(x[known], y[known], "o-", color=colour, label=label)
    left.axhline(LIMIT_S, color=BAD, linewidth=1.2, label=f"{LIMIT_S:g} s")
    left.set_yscale("log")
    logarithmic(left.yaxis)
    left.set(xlabel=key, ylabel="delay since readout [s]", title="Latency")
    _above(left)
    right.plot(x, [100 * point.late for point in points], "o-", color=BLUE, label="visits late")
    right.plot(x, [100 * (1 - point.sent) for point in points], "o-", color=BAD, label="alerts never sent")
    right.axhline(100 * MAX_LATE, color=MUTED, linewidth=1, linestyle=":", label=f"{MAX_LATE:.0%}")
    right.set(xlabel=key, ylabel="share [%]", title="Late or lost", ylim=(-3, 103))
    _above(right)
    if not numeric:
        for axes in (left, right):
            axes.set_xticks(x, [point.settings[0][1] for point in points])
    best = cheapest(points)
    if best is not None:
        at = x[list(points).index(best)]
        left.axvline(at, color=GOOD, linewidth=1.2)
        left.annotate(f"cheapest that meets the requirement: {best.settings[0][1]}", (at, 1.0), rotation=90,
                      xycoords=("data", "axes fraction"), xytext=(3, -4), textcoords="offset points", va="top",
                      color=GOOD, fontsize=8)
    return figure


def _above(axes: Axes) -> None:
    """The legend above the axes, where it covers nothing."""
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=3, fontsize=7.5, columnspacing=1.0)


def _map(points: Sequence[Point]) -> Figure:
    (first, second), best = points[0].settings[:2], cheapest(points)
    columns = list(dict.fromkeys(point.settings[0][1] for point in points))
    rows = list(dict.fromkeys(point.settings[1][1] for point in points))
    labels = max((*rows, "0000"), key=len)
    figure, (axes,) = panels(1, width=1.8 + max(5.0, 0.75 * len(columns)), height=1.6 + 0.5 * max(len(rows), 4),
                             labels=[labels], right=0.4)
    marked(figure, MODELLED)
    shown = np.full((len(rows), len(columns)), np.inf)
    met = np.zeros(shown.shape, bool)
    for point in points:
        place = rows.index(point.settings[1][1]), columns.index(point.settings[0][1])
        shown[place] = min(shown[place], point.p98_s)
        met[place] |= point.met
    # White at the limit: greener below it, browner above.
    image = np.log10(np.where(np.isfinite(shown), np.maximum(shown, 1.0), _ceiling(points)) / LIMIT_S)
    span = max(float(np.abs(image).max()), 0.05)
    axes.imshow(image, cmap="BrBG_r", aspect="auto", origin="lower", vmin=-span, vmax=span)
    for i, j in np.ndindex(shown.shape):
        _cell(axes, j, i, float(shown[i, j]), bool(met[i, j]))
    if best is not None:
        axes.plot(columns.index(best.settings[0][1]), rows.index(best.settings[1][1]) + 0.3, "*", color=GOOD,
                  markersize=11)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(visible=False)
    rest = " (best over the other axes)" if len(points[0].settings) > 2 else ""
    axes.set(xlabel=first[0], ylabel=second[0],
             title=f"98 % of alerts within [s]; bold green meets the requirement{rest}")
    return figure


def _cell(axes: Axes, x: int, y: int, value: float, met: bool) -> None:
    text = f"{value:.0f}" if np.isfinite(value) else "never"
    axes.text(x, y, text, ha="center", va="center", fontsize=8.5, color=GOOD if met else INK,
              fontweight="bold" if met else "normal",
              bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5})


def _positions(values: Sequence[str]) -> tuple[np.ndarray, bool]:
    try:
        return np.array([float(value) for value in values]), True
    except ValueError:
        return np.arange(len(values), dtype=float), False


__all__ = ["MODELLED", "Point", "cheapest", "nearest", "plot", "plot_prices"]
