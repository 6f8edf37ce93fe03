"""Purity: what is false among detections, by cause, and against completeness as the reliability cut moves."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.drawing import BLUE, GOOD, INK, MUTED, PALE, WARM, nothing, panels, styled
from reports.intervals import Estimate, fraction, poisson_rate, wilson
from reports.match import Matches

SAMPLE_SNR: Final = 6.0            # transSampleSNR, OSS-REQ-0353
MIN_COMPLETENESS: Final = 0.90     # transCompletenessMin
MIN_PURITY: Final = 0.95           # transPurityMin
REAL_DENSITY: Final = 3.3          # real sources per 10^6 px: 10,000 alerts on 189 detectors of 4072 x 4000 px

CURVE: Final = np.dtype([
    ("threshold", "f8"), ("real", "i8"), ("false", "i8"), ("complete", "i8"), ("sources", "i8"),
    ("completeness", "f8"), ("completeness_low", "f8"), ("completeness_high", "f8"),
    ("purity", "f8"), ("purity_low", "f8"), ("purity_high", "f8"), ("purity_on_sky", "f8")])

RELIABILITY: Final = np.dtype([("low", "f8"), ("high", "f8"), ("real", "i8"), ("false", "i8")])
SCORE_EDGES: Final = np.linspace(0.0, 1.0, 21)
HIGH_SCORE: Final = 0.9            # analysis_tools counts DIASources above and below
LOW_SCORE: Final = 0.1

CAUSES: Final = np.dtype([("cause", "S24"), ("raw", "i8"), ("alerts", "i8"), ("raw_rate", "f8"), ("alert_rate", "f8")])


@dataclass(frozen=True, slots=True)
class Purity:
    """Real and false detections."""

    curve: np.ndarray           # CURVE over thresholds of reliability, detections and sources of S/N >= 6
    causes: np.ndarray          # CAUSES of false detections at any S/N, most frequent first
    raw: Estimate               # purity at S/N >= 6 without the reliability filter, at the injected density
    alerts: Estimate            # purity of alerts
    raw_on_sky: float           # the same, with real sources at REAL_DENSITY
    alerts_on_sky: float
    false_alerts: Estimate      # per 10^6 px and visit, at any S/N
    density: float              # true sources of S/N >= 6 per 10^6 px
    megapixels: float
    scores: np.ndarray          # RELIABILITY: detections of any S/N that passed every other filter
    unscored: int               # of them, without a score
    high_real: Estimate         # fraction of real detections that score over 0.9
    low_false: Estimate         # fraction of false ones that score under 0.1


def purity(matches: Matches) -> Purity:
    """Tables of all detections that entered the reliability filter."""
    sources, real = matches.sources, ~matches.false
    bright = np.abs(sources["snr"]) >= SAMPLE_SNR
    sample = matches.judged & (np.abs(matches.truth["snr"]) >= SAMPLE_SNR)
    density = float(sample.sum()) / matches.megapixels if matches.megapixels else float("nan")
    weight = REAL_DENSITY / density if density > 0 else float("nan")
    raw, alerts = _pair(real, sources["raw"] & bright), _pair(real, sources["alert"] & bright)
    return Purity(
        _curve(matches, bright, sample, weight), _causes(matches), fraction(raw[0], sum(raw)),
        fraction(alerts[0], sum(alerts)), on_sky(*raw, weight), on_sky(*alerts, weight),
        poisson_rate(int(np.sum(sources["alert"] & ~real)), matches.megapixels), density, matches.megapixels,
        *reliability(sources["reliability"][sources["raw"]], real[sources["raw"]]))


def reliability(score: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, int, Estimate, Estimate]:
    """RELIABILITY rows of real and false detections, those without a score, and the shares at both ends."""
    known = np.isfinite(score)
    rows = np.zeros(len(SCORE_EDGES) - 1, RELIABILITY)
    rows["low"], rows["high"] = SCORE_EDGES[:-1], SCORE_EDGES[1:]
    for name, of in (("real", real), ("false", ~real)):
        rows[name] = np.histogram(score[known & of], SCORE_EDGES)[0]
    high, low = score[known & real] > HIGH_SCORE, score[known & ~real] < LOW_SCORE
    return (rows, int(np.sum(~known)), fraction(int(high.sum()), len(high)), fraction(int(low.sum()), len(low)))


def on_sky(real: float, false: float, weight: float) -> float:
    """Purity with the real detections weighted to another density."""
    total = weight * real + false
    return float(weight * real / total) if total > 0 else float("nan")


def _pair(real: np.ndarray, chosen: np.ndarray) -> tuple[int, int]:
    return int(np.sum(real & chosen)), int(np.sum(~real & chosen))


def _curve(matches: Matches, bright: np.ndarray, sample: np.ndarray, weight: float) -> np.ndarray:
    """Purity and completeness of detections that pass every other filter, for each cut of reliability."""
    sources, found = matches.sources, matches.found
    chosen = sources["raw"] & bright
    score = np.nan_to_num(sources["reliability"].astype(float), nan=0.0)
    kept = np.where(sample & (found >= 0), found, -1)
    scored = np.full(len(found), -1.0)
    usable = kept >= 0
    scored[usable] = np.where(sources["raw"][kept[usable]], score[kept[usable]], -1.0)
    rows = np.zeros(101, CURVE)
    rows["threshold"] = np.linspace(0.0, 1.0, 101)
    for row in rows:
        passed = chosen & (score >= row["threshold"])
        row["real"], row["false"] = _pair(~matches.false, passed)
        row["complete"] = np.sum(scored[sample] >= row["threshold"])
    rows["sources"] = sample.sum()
    total = rows["real"] + rows["false"]
    rows["purity"] = np.where(total > 0, rows["real"] / np.maximum(total, 1), np.nan)
    rows["purity_low"], rows["purity_high"] = wilson(rows["real"], total)
    rows["completeness"] = np.where(rows["sources"] > 0, rows["complete"] / np.maximum(rows["sources"], 1), np.nan)
    rows["completeness_low"], rows["completeness_high"] = wilson(rows["complete"], rows["sources"])
    rows["purity_on_sky"] = [on_sky(float(r["real"]), float(r["false"]), weight) for r in rows]
    return rows


def _causes(matches: Matches) -> np.ndarray:
    false, sources = matches.false, matches.sources
    names = np.unique(matches.causes[false & sources["raw"]])
    rows = np.zeros(len(names), CAUSES)
    rows["cause"] = names
    area = matches.megapixels or float("nan")
    for row in rows:
        of = false & (matches.causes == row["cause"])
        row["raw"], row["alerts"] = np.sum(of & sources["raw"]), np.sum(of & sources["alert"])
    rows["raw_rate"], rows["alert_rate"] = rows["raw"] / area, rows["alerts"] / area
    return rows[np.argsort(-rows["raw"], kind="stable")]


# --- drawing ---------------------------------------------------------------------------------------------------------

@styled
def plot(table: Purity) -> Figure:
    """Purity against completeness, and false detections by cause."""
    names = [cause.decode() for cause in table.causes["cause"][:10]]
    figure, (left, right) = panels(2, labels=["", max(names, key=len, default="")])
    _plot_curve(left, table.curve)
    _plot_causes(right, table.causes)
    return figure


@styled
def plot_scores(table: Purity) -> Figure:
    """Reliability of real and of false detections."""
    figure, (axes,) = panels(1, width=5.2, height=3.3)
    rows = table.scores
    if not (rows["real"].any() or rows["false"].any()):
        nothing(axes, "no detection has a score")
        return figure
    middle, width = (rows["low"] + rows["high"]) / 2, (rows["high"] - rows["low"])
    for name, colour, shift in (("real", BLUE, -0.22), ("false", WARM, 0.22)):
        axes.bar(middle + shift * width, rows[name], 0.44 * width, color=colour, label=f"{name} ({rows[name].sum()})")
    axes.axvline(0.5, color=INK, linewidth=1, linestyle=":")
    axes.annotate("0.5, the default cut", (0.5, 0.93), xycoords=("data", "axes fraction"), xytext=(4, 0), fontsize=8,
                  textcoords="offset points", color=INK)
    axes.set(yscale="symlog", xlim=(0, 1), xlabel="reliability", ylabel="detections",
             title="Reliability of what passes the other filters")
    axes.set_yticks([0, 1, 10, 100, 1000], ["0", "1", "10", "100", "1000"])
    axes.set_ylim(0, 3 * max(rows["real"].max(), rows["false"].max()))
    axes.minorticks_off()
    axes.legend(loc="upper left")
    return figure


def _plot_curve(axes: Axes, curve: np.ndarray) -> None:
    known = curve[(curve["sources"] > 0) & np.isfinite(curve["purity"])]
    if not len(known):
        return nothing(axes, "no true sources at S/N 6 and above")
    axes.fill_betweenx([MIN_PURITY, 1.005], MIN_COMPLETENESS, 1.005, color=GOOD, alpha=0.10, linewidth=0)
    axes.plot(known["completeness"], known["purity"], color=BLUE, label="at the injected density")
    axes.fill_between(known["completeness"], known["purity_low"], known["purity_high"], color=BLUE, alpha=0.15,
                      linewidth=0)
    axes.plot(known["completeness"], known["purity_on_sky"], color=WARM, label="at 3.3 real sources per 10⁶ px")
    marked = [known[np.argmin(np.abs(known["threshold"] - threshold))] for threshold in (0.0, 0.5)]
    for threshold, row in zip((0.0, 0.5), marked, strict=True):
        if threshold and abs(row["completeness"] - marked[0]["completeness"]) < 0.005 > abs(
                row["purity_on_sky"] - marked[0]["purity_on_sky"]):
            continue
        for name, colour in (("purity", BLUE), ("purity_on_sky", WARM)):
            axes.plot(row["completeness"], row[name], "o", color=colour)
        axes.annotate(f"cut {threshold:g}", (row["completeness"], row["purity_on_sky"]), xytext=(-5, -4), ha="right",
                      va="top", textcoords="offset points", fontsize=8, color=MUTED)
    axes.plot([MIN_COMPLETENESS], [MIN_PURITY], marker="*", markersize=12, color=INK, linestyle="none",
              label="requirement: 90 % complete, 95 % pure")
    lowest = float(np.nanmin([known["purity"].min(), np.nanmin(known["purity_on_sky"])]))
    near = 0.5 if marked[1]["completeness"] > 0.7 else 0.0      # where the cut is low, the corner is what matters
    axes.set(xlim=(near, 1.01), ylim=(max(0.0, min(0.6, lowest - 0.05)), 1.01), xlabel="completeness at S/N ≥ 6",
             ylabel="purity at S/N ≥ 6", title="Purity and completeness as the reliability cut moves")
    axes.legend(loc="lower left")
    return None


def _plot_causes(axes: Axes, causes: np.ndarray) -> None:
    rows = causes[:10][::-1]
    if not len(rows):
        return nothing(axes, "no false detections")
    place = np.arange(len(rows))
    axes.barh(place + 0.2, rows["raw_rate"], 0.38, color=PALE, label="before the reliability filter")
    axes.barh(place - 0.2, rows["alert_rate"], 0.38, color=WARM, label="alerts")
    for i, row in enumerate(rows):
        axes.annotate(f"{row['raw']}", (row["raw_rate"], i + 0.2), xytext=(3, 0), textcoords="offset points",
                      va="center", fontsize=7.5, color=MUTED)
        axes.annotate(f"{row['alerts']}", (row["alert_rate"], i - 0.2), xytext=(3, 0), textcoords="offset points",
                      va="center", fontsize=7.5, color=MUTED)
    axes.set_yticks(place, [r.decode() for r in rows["cause"]])
    axes.set(xlabel="false detections per 10⁶ px and visit", title="False detections by cause")
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower right")
    return None
