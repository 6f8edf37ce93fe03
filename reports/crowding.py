"""Crowded fields (6.11): what the density of stars does to completeness, false detections and CPU time."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.drawing import BLUE, MUTED, WARM, nothing, panels, styled
from reports.intervals import UNKNOWN, Estimate, fraction, poisson_rate
from reports.outcome import Outcome, located
from reports.template import known_mean

SNR_RANGE: Final = (6.0, 20.0)     # of the true sources whose completeness is shown
CONTRAST: Final = 2.0              # fields differ in density where one has so many times the stars of another
MIN_SIGMA: Final = 4.0             # and where chance does not make it
BINS: Final = 4

FIELD: Final = np.dtype([
    ("seed", "i8"), ("visit", "i8"), ("detector", "i2"), ("band", "S1"), ("megapixels", "f8"), ("n_stars", "i8"),
    ("density", "f8"),                                   # stars of science S/N >= 5 per 10^6 px
    ("n_true", "i8"), ("n_found", "i8"), ("n_false", "i8"), ("n_false_raw", "i8"),
    ("cpu_s", "f8")])                                    # of all Steps; NaN where none was measured


@dataclass(frozen=True, slots=True)
class DensityBin:
    """Detector-visits of similar density."""

    low: float                 # stars per 10^6 px
    high: float
    n: int                     # detector-visits
    completeness: Estimate     # alerts of true sources of S/N 6 to 20
    false: Estimate            # false alerts per 10^6 px
    false_raw: Estimate        # the same before the reliability filter
    cpu: Estimate              # seconds per 10^6 px


@dataclass(frozen=True, slots=True)
class Crowding:
    """Detector-visits against their density of stars."""

    fields: np.ndarray         # FIELD
    bins: list[DensityBin]     # one where the run has a single density; none where no star was recorded
    single: bool
    ratio: float               # largest over smallest density in one band


def crowding(outcome: Outcome) -> Crowding:
    """Judge the processed detector-visits of a run whose true stars are recorded."""
    fields = _fields(outcome)
    ratio, differ = contrast(fields)
    if not len(fields) or not fields["n_stars"].any():
        return Crowding(fields[:0], [], True, float("nan"))
    edges = np.array([0.0, np.inf])
    if differ:
        inner = np.quantile(fields["density"], np.arange(1, BINS) / BINS)
        edges = np.unique(np.concatenate([[0.0], inner, [np.inf]]))
    bins = [_bin(fields[(fields["density"] >= low) & (fields["density"] < high)])
            for low, high in pairwise(edges.tolist())]
    return Crowding(fields, [b for b in bins if b.n], not differ, ratio)


def contrast(fields: np.ndarray) -> tuple[float, bool]:
    """The largest ratio of densities within one band, and whether it is above 2 and beyond chance."""
    worst, differ = float("nan"), False
    for band in np.unique(fields["band"]):
        of = fields[fields["band"] == band]
        low, high = of[np.argmin(of["density"])], of[np.argmax(of["density"])]
        ratio = float(high["density"] / low["density"]) if low["density"] > 0 else float("inf")
        expected = low["density"] * high["megapixels"]            # of the denser one, were it like the other
        sigma = (high["n_stars"] - expected) / np.sqrt(max(high["n_stars"] + expected, 1.0))
        worst = float(np.fmax(worst, ratio))
        differ |= bool(ratio > CONTRAST and sigma > MIN_SIGMA)
    return worst, differ


def _fields(outcome: Outcome) -> np.ndarray:
    log = outcome.visits[outcome.visits["status"] == b"done"]
    rows = np.zeros(len(log), FIELD)
    for name in ("seed", "visit", "detector", "band"):
        rows[name] = log[name]
    area = log["nx"].astype(float) * log["ny"]
    rows["megapixels"] = np.where(log["usable_px"] > 0, log["usable_px"], area) / 1e6
    rows["n_stars"] = _count(rows, outcome.stars)
    with np.errstate(invalid="ignore", divide="ignore"):
        rows["density"] = rows["n_stars"] / (area / 1e6)
    snr = np.abs(outcome.sources["snr"])
    judged = outcome.sources[outcome.sources["judged"] & (snr >= SNR_RANGE[0]) & (snr < SNR_RANGE[1])]
    rows["n_true"], rows["n_found"] = _count(rows, judged), _count(rows, judged[judged["alert"]])
    rows["n_false"] = _count(rows, outcome.false[outcome.false["alert"]])
    rows["n_false_raw"] = _count(rows, outcome.false[outcome.false["raw"]])
    rows["cpu_s"] = _cpu(rows, outcome.steps)
    return rows


def _place(fields: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(n,) the detector-visit of each row; -1 for none."""
    return located([rows[name] for name in ("seed", "visit", "detector")],
                   [fields[name] for name in ("seed", "visit", "detector")])


def _count(fields: np.ndarray, rows: np.ndarray) -> np.ndarray:
    place = _place(fields, rows)
    return np.bincount(place[place >= 0], minlength=len(fields))


def _cpu(fields: np.ndarray, steps: np.ndarray) -> np.ndarray:
    known = steps[steps["measured"] & np.isfinite(steps["cpu_s"])]
    place = _place(fields, known)
    here = place >= 0
    total = np.bincount(place[here], weights=known["cpu_s"][here], minlength=len(fields))
    return np.where(np.bincount(place[here], minlength=len(fields)) > 0, total, np.nan)


def _bin(rows: np.ndarray) -> DensityBin:
    if not len(rows):
        return DensityBin(float("nan"), float("nan"), 0, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
    area = float(rows["megapixels"].sum())
    return DensityBin(
        float(rows["density"].min()), float(rows["density"].max()), len(rows),
        fraction(int(rows["n_found"].sum()), int(rows["n_true"].sum())), poisson_rate(int(rows["n_false"].sum()), area),
        poisson_rate(int(rows["n_false_raw"].sum()), area), known_mean(rows["cpu_s"] / rows["megapixels"]))


# --- drawing ---------------------------------------------------------------------------------------------------------

@styled
def plot(table: Crowding) -> Figure:
    """Completeness, false detections and CPU time against the density of stars."""
    figure, (left, middle, right) = panels(3, width=13.0, height=3.2)
    rows = table.fields
    if not len(rows):
        nothing(left, "no true stars were recorded")
        middle.set_axis_off()
        right.set_axis_off()
        return figure
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(rows["n_true"] > 0, rows["n_found"] / np.maximum(rows["n_true"], 1), np.nan)
    for axes, values, name, colour, title, label in (
            (left, shares, "completeness", BLUE, "Completeness at S/N 6 to 20", "fraction with an alert"),
            (middle, rows["n_false_raw"] / rows["megapixels"], "false_raw", WARM, "False detections before reliability",
             "per 10⁶ px"),
            (right, rows["cpu_s"] / rows["megapixels"], "cpu", BLUE, "CPU time", "seconds per 10⁶ px")):
        _plot_against(axes, rows["density"], values, table.bins, name, colour)
        axes.set(xlabel="stars of S/N ≥ 5 per 10⁶ px", ylabel=label, title=title)
    left.set_ylim(-0.02, 1.05)
    for axes in (middle, right):
        axes.set_ylim(bottom=0)
    return figure


def _plot_against(axes: Axes, density: np.ndarray, values: np.ndarray, bins: list[DensityBin], name: str,
                  colour: str) -> None:
    axes.scatter(density, values, s=12, color=MUTED, alpha=0.5, linewidths=0)
    for one in bins:
        found: Estimate = getattr(one, name)
        if not np.isfinite(found.value):
            continue
        middle = (one.low + one.high) / 2
        errors = np.nan_to_num([[max(found.value - found.low, 0.0)], [max(found.high - found.value, 0.0)]])
        axes.errorbar(middle, found.value, errors, xerr=(one.high - one.low) / 2, fmt="o", color=colour, elinewidth=1.2)
    if len(density) and density.min() > 0 and density.max() > 5 * density.min():
        axes.set_xscale("log")
    else:
        axes.set_xlim(0, 1.15 * max(float(density.max()), 1.0))
