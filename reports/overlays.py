"""Curves of two sides over each other, with their difference below.

Differences are of paired visits: each visit's share in both sides' curves is taken together, and the interval follows
from the scatter of those shares over visits (linearised ratios, Student's t), so that what both sides share cancels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import stdtrit

from reports.completeness import SNR_EDGES
from reports.drawing import BAD, BLUE, GOOD, INK, MUTED, WARM, nothing, styled
from reports.evidence import point_sources
from reports.latency import DAY_S
from reports.outcome import Outcome
from reports.purity import SAMPLE_SNR

BASE: Final = BLUE
HEAD: Final = WARM
MIN_CASES: Final = 5               # of a bin that is drawn
CAUSES: Final = 9                  # of false alerts that are drawn
CUTS: Final = np.linspace(0.0, 0.95, 20)
SEPARATIONS: Final = (0.0, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5, 4.0)   # arcsec from the host's centre
PULLS: Final = np.linspace(-4.0, 4.0, 17)
POINTS: Final = 200                # of a cumulative curve


@dataclass(frozen=True, slots=True)
class Curve:
    """A ratio in bins on both sides, and the difference head less base with its 95 % interval."""

    x: np.ndarray              # (n,) where bins are drawn
    base: np.ndarray
    head: np.ndarray
    half: np.ndarray           # half width of the interval of the difference; NaN where one visit gives it all
    n: np.ndarray              # weight at base

    @property
    def difference(self) -> np.ndarray:
        """(n,) head less base."""
        return np.asarray(self.head - self.base)


Sums = tuple[np.ndarray, np.ndarray]       # (n_bins, n_units) sums of values and of weights


def curve(x: np.ndarray, base: Sums, head: Sums) -> Curve:
    """Ratios of sums over visits, with the interval of their difference."""
    ratios, parts = [], []
    for value, weight in (base, head):
        total = weight.sum(axis=1)
        ratio = np.where(total > 0, value.sum(axis=1) / np.where(total > 0, total, 1.0), np.nan)
        ratios.append(ratio)
        parts.append((value - ratio[:, None] * weight) / np.where(total > 0, total, np.nan)[:, None])
    n = base[0].shape[1]
    half = np.full(len(x), np.nan)
    if n > 1:
        scatter = np.sqrt(n / (n - 1) * np.sum((parts[1] - parts[0]) ** 2, axis=1))
        half = scatter * float(stdtrit(n - 1, 0.975))
    return Curve(np.asarray(x, float), ratios[0], ratios[1], half, base[1].sum(axis=1))


def sums(value: np.ndarray, weight: np.ndarray, place: np.ndarray, unit: np.ndarray, shape: tuple[int, int]) -> Sums:
    """(n_bins, n_units) sums of values and weights; rows of a place outside the bins are left out."""
    inside = (place >= 0) & (place < shape[0])
    code = place[inside] * shape[1] + unit[inside]
    value, weight = (np.bincount(code, c[inside].astype(float), shape[0] * shape[1]).reshape(shape)
                     for c in (value, weight))
    return value, weight


def binned(base: np.ndarray, head: np.ndarray, x: tuple[np.ndarray, np.ndarray], edges: Sequence[float] | np.ndarray,
           units: tuple[np.ndarray, np.ndarray], n_units: int, *, logarithmic: bool = False) -> Curve:
    """Means of both sides' values in bins of `x`; a side's values, x and units are parallel."""
    edges = np.asarray(edges, float)
    middle = np.sqrt(np.maximum(edges[1:] * edges[:-1], 1e-9)) if logarithmic else (edges[1:] + edges[:-1]) / 2
    found = []
    for value, at, unit in zip((base, head), x, units, strict=True):
        place = np.where(np.isfinite(at), np.searchsorted(edges, at, side="right") - 1, -1)
        found.append(sums(value, np.ones(len(value)), place, unit, (len(edges) - 1, n_units)))
    return curve(middle, *found)


@dataclass(frozen=True, slots=True)
class Sides:
    """What is drawn: two paired sides and their names."""

    base: Outcome
    head: Outcome
    labels: tuple[str, str]
    n_units: int

    @property
    def both(self) -> tuple[Outcome, Outcome]:
        """The two outcomes."""
        return self.base, self.head


# --- figures ---------------------------------------------------------------------------------------------------------

@styled
def completeness(sides: Sides) -> Figure:
    """Completeness against S/N, magnitude, the host's surface brightness and the distance from its centre."""
    figure, pairs = _pairs(2, 2)
    sources = sides.base.sources
    magnitude = np.where(np.abs(sources["snr"]) >= 1.0, sources["magnitude"], np.nan)
    brightness = sources["host_sb"]
    for (upper, lower), x, edges, label, logarithmic in (
            (pairs[0], [np.abs(s.sources["snr"]) for s in sides.both], np.array(SNR_EDGES), "true S/N", True),
            (pairs[1], [s.sources["magnitude"] for s in sides.both], _edges(magnitude, 0.5),
             "AB magnitude of |difference flux|", False),
            (pairs[2], [s.sources["host_sb"] for s in sides.both], _edges(brightness, 1.0),
             "host's surface brightness there [mag/arcsec²], S/N ≥ 5", False),
            (pairs[3], [s.sources["host_sep_arcsec"] for s in sides.both], np.array(SEPARATIONS),
             "distance from the host's centre [″], S/N ≥ 5", False)):
        limit = 5.0 if "S/N ≥ 5" in label else 1.0
        for column, colour in (("raw", MUTED), ("alert", INK)):
            use = [s.sources["judged"] & (np.abs(s.sources["snr"]) >= limit) for s in sides.both]
            values = [s.sources[column][u].astype(float) for s, u in zip(sides.both, use, strict=True)]
            found = binned(values[0], values[1], (x[0][use[0]], x[1][use[1]]), edges, _units(sides, "sources", use),
                           sides.n_units, logarithmic=logarithmic)
            _draw(upper, lower, found, sides.labels, dashed=column == "raw", colour=colour)
        if upper.lines:
            upper.set(ylabel="fraction found", ylim=(-0.03, 1.05))
            if logarithmic:
                _logarithmic(upper, lower)
        lower.set_xlabel(label)
    pairs[0][0].set_title("Completeness: alerts (dashed: raw detections)")
    return figure


@styled
def purity(sides: Sides) -> Figure:
    """Purity against the cut of reliability, and false alerts by cause."""
    figure, pairs = _pairs(1, 2, plain=1, label=_longest(sides))
    (upper, lower), (right, _) = pairs
    places = []
    for side in sides.both:
        real = side.sources["raw"] & (np.abs(side.sources["found_snr"]) >= SAMPLE_SNR)
        false = side.false["raw"] & (np.abs(side.false["snr"]) >= SAMPLE_SNR)
        parts = []
        for rows, chosen, name in ((side.sources, real, "sources"), (side.false, false, "false")):
            score = np.nan_to_num(rows["reliability"][chosen].astype(float))
            place = np.searchsorted(CUTS, score, side="right") - 1
            one = np.ones(int(chosen.sum()))
            total = sums(one, one, place, side.units[name][chosen], (len(CUTS), sides.n_units))[0]
            parts.append(total[::-1].cumsum(axis=0)[::-1])       # that pass a cut
        places.append((parts[0], parts[0] + parts[1]))
    _draw(upper, lower, curve(CUTS, places[0], places[1]), sides.labels, colour=INK)
    upper.set(ylabel="purity", title="Purity at S/N ≥ 6 as the reliability cut moves")
    lowest = min((float(np.nanmin(line.get_ydata())) for line in upper.lines), default=1.0)
    upper.set_ylim(lowest - 0.15 * max(1 - lowest, 0.01), 1 + 0.15 * max(1 - lowest, 0.01))
    lower.set_xlabel("reliability cut")
    _draw_causes(right, sides)
    return figure


@styled
def errors(sides: Sides) -> Figure:
    """Pulls of forced fluxes, and position errors against S/N."""
    figure, ((pulls, pull_change), (radial, radial_change)) = _pairs(1, 2)
    found = []
    for side in sides.both:
        rows = side.sources
        use = rows["clean"] & rows["judged"] & rows["isolated"] & (rows["forced_flux_err"] > 0)
        use &= (rows["trail_length"] < 1) & np.isfinite(rows["forced_flux"])
        pull = (rows["forced_flux"][use] - rows["flux"][use]) / rows["forced_flux_err"][use]
        unit, place = side.units["sources"][use], np.searchsorted(PULLS, pull, side="right") - 1
        one = np.ones(len(pull))
        value = sums(one, one, place, unit, (len(PULLS) - 1, sides.n_units))[0]
        found.append((value, np.broadcast_to(np.bincount(unit, minlength=sides.n_units), value.shape).astype(float)))
    middle = (PULLS[1:] + PULLS[:-1]) / 2
    _draw(pulls, pull_change, curve(middle, *found), sides.labels, colour=INK, least=0)
    width = PULLS[1] - PULLS[0]
    pulls.plot(middle, width * np.exp(-middle**2 / 2) / np.sqrt(2 * np.pi), color=MUTED, linewidth=1, linestyle=":")
    pulls.set(ylabel="share of sources", title="Pulls of forced fluxes (dotted: N(0, 1))")
    pull_change.set_xlabel("(measured − true) / claimed error")
    _draw_positions(radial, radial_change, sides)
    return figure


@styled
def delays(sides: Sides) -> Figure:
    """When alerts leave, and the time that Steps take on the driver's clock."""
    figure, ((upper, lower), (right, _)) = _pairs(1, 2, plain=1, label="satellites")
    late = [np.sort(_delays(side)) for side in sides.both]
    if not all(map(len, late)):
        _nothing(upper, lower, "no alert of a live exposure was published on both sides")
    else:
        ends = np.quantile(np.concatenate(late), [0, 1])
        at = np.linspace(ends[0] - 0.02 * np.ptp(ends), ends[1] + 0.02 * np.ptp(ends), POINTS)
        sent = [np.searchsorted(delay, at, side="right") / len(delay) for delay in late]
        for share, label, colour in zip(sent, sides.labels, (BASE, HEAD), strict=True):
            upper.plot(at, share, color=colour, label=label)
        lower.plot(at, sent[1] - sent[0], color=INK, linewidth=1.4)
        lower.axhline(0, color=MUTED, linewidth=1)
        upper.set(ylabel="fraction of alerts sent", title="When alerts leave")
        upper.legend(loc="lower right")
        lower.set(xlabel="delay since the end of readout [s]", ylabel="change")
    _draw_steps(right, sides)
    return figure


@dataclass(frozen=True, slots=True)
class Ratio:
    """A Step's cost at head over base with its interval, and what was decided."""

    step: str
    difference: float          # relative
    low: float
    high: float
    margin: float
    verdict: str


@styled
def costs(cpu: Sequence[Ratio], memory: Sequence[Ratio]) -> Figure:
    """CPU time and peak memory by Step: head over base."""
    most = max(len(cpu), len(memory), 2)
    figure = Figure(figsize=(10.4, 0.24 * most + 1.1), dpi=100)
    for k, (rows, title) in enumerate(((cpu, "CPU time by Step"), (memory, "Peak memory by Step"))):
        axes = figure.add_axes((0.1 + 0.5 * k, 0.5 / (0.24 * most + 1.1), 0.38, 1 - 1.0 / (0.24 * most + 1.1)))
        if not rows:
            nothing(axes, "not measured")
            continue
        place = np.arange(len(rows))[::-1]
        for y, row in zip(place, rows, strict=True):
            colour = {"worse": BAD, "better": GOOD}.get(row.verdict, MUTED)
            axes.plot([-100 * row.margin, 100 * row.margin], [y, y], color="#dbe9e2", linewidth=9,
                      solid_capstyle="butt", zorder=1)
            if np.isfinite(row.low):
                axes.plot([100 * row.low, 100 * row.high], [y, y], color=colour, linewidth=1.6, zorder=2)
            axes.plot([100 * row.difference], [y], "o", color=colour, zorder=3)
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.set_yticks(place, [row.step for row in rows], fontsize=8)
        axes.set(xlabel="head over base [%] (shaded: within the margin)", title=title, ylim=(-0.7, len(rows) - 0.3))
        axes.grid(axis="y", visible=False)
        largest = max((abs(100 * v) for r in rows for v in (r.difference, r.margin) if np.isfinite(v)), default=10.0)
        axes.set_xlim(-1.3 * largest, 1.3 * largest)
    return figure


# --- parts of figures ------------------------------------------------------------------------------------------------

def _pairs(rows: int, columns: int, *, plain: int | None = None,
           label: str = "") -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """Pairs of axes, a curve's and its difference's below; the pair number `plain` is one axes, twice."""
    width, height = 5.2 * columns, 3.7 * rows
    figure = Figure(figsize=(width, height), dpi=100)
    pairs = []
    for k in range(rows * columns):
        row, column = divmod(k, columns)
        left = 0.8 if plain != k else max(0.8, 0.2 + 0.078 * len(label))
        x, bottom = 5.2 * column + left, 3.7 * (rows - 1 - row)
        box = (5.2 - left - 0.16) / width
        if plain == k:
            axes = figure.add_axes((x / width, (bottom + 0.5) / height, box, 2.8 / height))
            pairs.append((axes, axes))
            continue
        upper = figure.add_axes((x / width, (bottom + 1.45) / height, box, 1.85 / height))
        lower = figure.add_axes((x / width, (bottom + 0.5) / height, box, 0.85 / height), sharex=upper)
        upper.tick_params(labelbottom=False)
        for axes in (upper, lower):
            axes.yaxis.set_label_coords(-0.135, 0.5)
        pairs.append((upper, lower))
    return figure, pairs


def _draw(upper: Axes, lower: Axes, found: Curve, labels: tuple[str, str], *, colour: str, dashed: bool = False,
          least: int = MIN_CASES) -> None:
    """Both curves, and the difference with its interval."""
    use = (found.n >= least) & np.isfinite(found.base) & np.isfinite(found.head)
    if not use.any():
        return _nothing(upper, lower, "too few sources")
    style: dict[str, Any] = ({"linestyle": "--", "linewidth": 1.1, "alpha": 0.75} if dashed
                             else {"marker": "o", "markersize": 3.5})
    for y, shade, label in ((found.base, BASE, labels[0]), (found.head, HEAD, labels[1])):
        upper.plot(found.x[use], y[use], color=shade, label=None if dashed else label, **style)
    half = np.nan_to_num(found.half[use])
    if dashed:
        lower.plot(found.x[use], found.difference[use], color=colour, linestyle="--", linewidth=1)
    else:
        lower.errorbar(found.x[use], found.difference[use], half, fmt="o", color=colour, markersize=3.5, elinewidth=1.1)
        upper.legend(loc="best")
    lower.axhline(0, color=MUTED, linewidth=1)
    lower.set_ylabel("change")
    return None


def _nothing(upper: Axes, lower: Axes, text: str) -> None:
    if not upper.lines:
        nothing(upper, text)
        lower.set_axis_off()


def _logarithmic(upper: Axes, lower: Axes) -> None:
    upper.set(xscale="log", xlim=(0.9, 110))
    ticks = [1, 2, 3, 5, 10, 20, 50, 100]
    lower.set_xticks(ticks, [str(t) for t in ticks])
    for axes in (upper, lower):
        axes.minorticks_off()


def _edges(values: np.ndarray, step: float) -> np.ndarray:
    known = values[np.isfinite(values)]
    if not len(known):
        return np.array([20.0, 21.0])
    low, high = np.floor(np.percentile(known, [0.5, 99.5]) / step) * step
    return np.arange(low, high + 1.5 * step, step)


def _units(sides: Sides, name: str, use: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return sides.base.units[name][use[0]], sides.head.units[name][use[1]]


def _causes(sides: Sides) -> list[tuple[str, int, int]]:
    """Causes of false alerts with their numbers on both sides, most frequent first."""
    counts: dict[str, list[int]] = {}
    for k, side in enumerate(sides.both):
        names, n = np.unique(side.false["cause"][side.false["alert"]], return_counts=True)
        for name, number in zip(names.tolist(), n.tolist(), strict=True):
            counts.setdefault(name.decode() or "unknown", [0, 0])[k] = number
    rows = [(name, pair[0], pair[1]) for name, pair in counts.items()]
    return sorted(rows, key=lambda row: (-max(row[1], row[2]), row[0]))[:CAUSES]


def _longest(sides: Sides) -> str:
    return max((name for name, _, _ in _causes(sides)), key=len, default="")


def _draw_causes(axes: Axes, sides: Sides) -> None:
    rows = _causes(sides)[::-1]
    if not rows:
        return nothing(axes, "no false alerts on either side")
    place = np.arange(len(rows))
    for k, (shift, colour) in enumerate(((0.2, BASE), (-0.2, HEAD))):
        numbers = [row[k + 1] for row in rows]
        axes.barh(place + shift, numbers, 0.38, color=colour, label=sides.labels[k])
        for y, n in zip(place, numbers, strict=True):
            axes.annotate(str(n), (n, y + shift), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7.5,
                          color=MUTED)
    axes.set_yticks(place, [row[0] for row in rows])
    axes.set(xlabel="false alerts", title="False alerts by cause", ylim=(-0.6, len(rows) - 0.4))
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower right")
    return None


def _draw_positions(upper: Axes, lower: Axes, sides: Sides) -> None:
    """Median radial error against S/N; below, the mean change of sources that both sides have."""
    edges = np.array([5.0, 6.0, 8.0, 11.0, 16.0, 25.0, 50.0, 120.0])
    middle = np.sqrt(edges[1:] * edges[:-1])
    snr = np.abs(sides.base.sources["snr"])
    radial = [1e3 * np.hypot(s.sources["dra"], s.sources["ddec"]) for s in sides.both]
    both = (sides.base.sources["alert"] & sides.head.sources["alert"] & np.isfinite(radial[0]) & np.isfinite(radial[1])
            & point_sources(sides.base))
    place = np.where(both, np.searchsorted(edges, snr, side="right") - 1, -1)
    bins = [np.flatnonzero(place == k) for k in range(len(middle))]
    use = [len(rows) >= MIN_CASES for rows in bins]
    if not any(use):
        return _nothing(upper, lower, "too few sources that both sides have")
    for values, label, colour in zip(radial, sides.labels, (BASE, HEAD), strict=True):
        upper.plot(middle[use], [np.median(values[rows]) for rows, u in zip(bins, use, strict=True) if u], "o-",
                   color=colour, label=label, markersize=3.5)
    n = int(both.sum())
    change = binned(np.zeros(n), (radial[1] - radial[0])[both], (snr[both], snr[both]), edges,
                    (sides.base.units["sources"][both],) * 2, sides.n_units, logarithmic=True)
    lower.errorbar(change.x[use], change.difference[use], np.nan_to_num(change.half[use]), fmt="o", color=INK,
                   markersize=3.5, elinewidth=1.1)
    lower.axhline(0, color=MUTED, linewidth=1)
    upper.set(xscale="log", yscale="log", ylabel="median error [mas]", title="Position errors of points that both have")
    low, high = upper.get_ylim()
    upper.set_yticks(ticks := [t for t in (5, 10, 20, 50, 100, 200, 500) if low <= t <= high], [str(t) for t in ticks])
    upper.legend(loc="best")
    lower.set(xlabel="true S/N", ylabel="change [mas]")
    lower.set_xticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    for axes in (upper, lower):
        axes.minorticks_off()
    return None


def _delays(side: Outcome) -> np.ndarray:
    """Delays of alerts since the end of readout [s]; packets of older exposures are left out."""
    rows, log = side.packets, side.visits
    ends = {(s, v, d): t for s, v, d, t in zip(*(log[n].tolist() for n in ("seed", "visit", "detector",
                                                                         "readout_end_mjd_tai")), strict=True)}
    known = np.array([ends.get(key, np.nan) for key in zip(*(rows[n].tolist() for n in ("seed", "visit", "detector")),
                                                           strict=True)], float)
    late = (rows["sent_mjd_tai"] - np.where(np.isfinite(rows["readout_end_mjd_tai"]), rows["readout_end_mjd_tai"],
                                            known)) * DAY_S
    return np.asarray(late[np.isfinite(late) & (late < DAY_S)])


def _draw_steps(axes: Axes, sides: Sides) -> None:
    """Mean time per detector-visit of each Step on both sides."""
    names = [n.decode() for n in dict.fromkeys([n for s in sides.both for n in s.steps["name"].tolist()])
             if not n.startswith(b"retry")][:24]
    times = [[float(np.nansum(s.steps["duration_s"][s.steps["name"] == n.encode()])) / max(len(s.visits), 1)
              for n in names] for s in sides.both]      # rows that were timed beside the runs have no duration
    if not np.any(times):
        return nothing(axes, "no steps were recorded")
    place = np.arange(len(names))[::-1]
    for values, label, colour, marker in zip(times, sides.labels, (BASE, HEAD), ("o", "D"), strict=True):
        axes.plot(values, place, marker, color=colour, label=label, markersize=4 if marker == "o" else 3)
    for y, one, other in zip(place, *times, strict=True):
        axes.plot([one, other], [y, y], color=MUTED, linewidth=1, zorder=1)
    axes.set_xscale("symlog", linthresh=0.01)
    axes.set_yticks(place, names, fontsize=7.5)
    axes.set(xlabel="mean per detector-visit, on the run's clock [s]", title="Time by Step")
    axes.legend(loc="best")
    return None


__all__ = ["Curve", "Ratio", "Sides", "binned", "completeness", "costs", "curve", "delays", "errors", "purity", "sums"]
