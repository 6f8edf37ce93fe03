"""Survey-weighted figures: what completeness and purity would be at the sky's own densities.

A scenario may hold more of a class than the sky does. Each such source carries its weight, the true density over that
in the field, so that sums over it stand for the survey: the weight is in TRUTH, and unknown (NaN) for made-up sources.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.drawing import BLUE, MUTED, WARM, nothing, panels, styled
from reports.intervals import UNKNOWN, Estimate, weighted_fraction, weighted_purity
from reports.match import Matches

SAMPLE_SNR: Final = 6.0            # transSampleSNR, OSS-REQ-0353

SURVEYED: Final = np.dtype([
    ("class", "S12"), ("n", "i8"), ("objects", "i8"),      # judged detections to be made, and of how many sources
    ("density", "f8"),                                     # of them on the sky, per 10^6 px and visit
    ("plain", "f8"),                                       # completeness of alerts without weights
    ("raw_fraction", "f8"), ("raw_low", "f8"), ("raw_high", "f8"),
    ("alert_fraction", "f8"), ("alert_low", "f8"), ("alert_high", "f8")])


@dataclass(frozen=True, slots=True)
class Survey:
    """Figures at the sky's densities, of sources and detections of S/N 6 and above."""

    classes: np.ndarray        # SURVEYED by class, and of all that have a weight, b"all"
    raw: Estimate              # purity of detections before the reliability filter
    alerts: Estimate           # purity of alerts
    unweighted: int            # real detections of sources of unknown weight, which count once


def survey(matches: Matches) -> Survey:
    """Weighted completeness by class, and weighted purity; no rows where no source has a weight."""
    truth = matches.truth
    weight = _weights(truth)
    use = matches.judged & (np.abs(truth["snr"]) >= SAMPLE_SNR) & np.isfinite(weight)
    if not np.any(np.isfinite(weight)):
        return Survey(np.zeros(0, SURVEYED), UNKNOWN, UNKNOWN, 0)
    names = [name for name in np.unique(truth["class"][use]) if name]
    parts = [(name, use & (truth["class"] == name)) for name in names] + [(b"all", use)]
    rows = np.zeros(len(parts), SURVEYED)
    for row, (name, of) in zip(rows, parts, strict=True):
        w, ids = weight[of], truth["truthId"][of]
        row["class"], row["n"], row["objects"] = name, len(w), len(np.unique(ids))
        row["density"] = w.sum() / matches.megapixels if matches.megapixels else np.nan
        row["plain"] = matches.alerted[of].mean() if len(w) else np.nan
        for key, found in (("raw", matches.raw[of]), ("alert", matches.alerted[of])):
            one = weighted_fraction(w, found, ids)
            row[f"{key}_fraction"], row[f"{key}_low"], row[f"{key}_high"] = one.value, one.low, one.high
    return Survey(rows, _purity(matches, weight, "raw"), _purity(matches, weight, "alert"),
                  _unweighted(matches, weight))


def _weights(truth: np.ndarray) -> np.ndarray:
    """(n,) weights; NaN where unknown."""
    return np.asarray(truth["weight"], float) if len(truth) else np.zeros(0)


def _purity(matches: Matches, weight: np.ndarray, column: str) -> Estimate:
    sources, partner = matches.sources, matches.partner
    chosen = sources[column] & (np.abs(sources["snr"]) >= SAMPLE_SNR)
    real = partner[chosen & (partner >= 0)]
    return weighted_purity(np.nan_to_num(weight[real], nan=1.0), matches.truth["truthId"][real],
                           int(np.sum(chosen & (partner < 0))))


def _unweighted(matches: Matches, weight: np.ndarray) -> int:
    chosen = matches.sources["alert"] & (np.abs(matches.sources["snr"]) >= SAMPLE_SNR) & (matches.partner >= 0)
    return int(np.sum(np.isnan(weight[matches.partner[chosen]])))


# --- drawing ---------------------------------------------------------------------------------------------------------

@styled
def plot(table: Survey) -> Figure:
    """Completeness by class, weighted and not, and how many of each the sky has."""
    rows = table.classes[table.classes["n"] > 0]
    figure, (left, right) = panels(2, height=1.7 + 0.26 * max(len(rows), 5), labels=["dwarf nova  "])
    if not len(rows):
        nothing(left, "no source of known weight has S/N 6")
        nothing(right, "")
        return figure
    _plot_completeness(left, rows)
    _plot_density(right, rows)
    return figure


def _plot_completeness(axes: Axes, rows: np.ndarray) -> None:
    place = np.arange(len(rows))[::-1]
    errors = np.maximum([rows["alert_fraction"] - rows["alert_low"], rows["alert_high"] - rows["alert_fraction"]], 0.0)
    axes.errorbar(rows["alert_fraction"], place, xerr=errors, fmt="o", color=BLUE, elinewidth=1.2,
                  label="weighted to the sky")
    axes.plot(rows["plain"], place + 0.18, "x", color=WARM, label="of the sources injected")
    axes.set_yticks(place, [name.decode().replace("_", " ") for name in rows["class"]])
    axes.set(xlim=(-0.02, 1.04), ylim=(-0.7, len(rows) + 1.2), xlabel="fraction with an alert, S/N ≥ 6",
             title="Completeness by class")
    axes.legend(loc="upper left")


def _plot_density(axes: Axes, rows: np.ndarray) -> None:
    place = np.arange(len(rows))[::-1]
    axes.barh(place, rows["density"], 0.6, color=BLUE)
    for y, row in zip(place, rows, strict=True):
        axes.annotate(f"{row['n']} in the run, {row['objects']} different", (row["density"], y), xytext=(4, 0),
                      va="center", textcoords="offset points", fontsize=7.5, color=MUTED)
    axes.set_yticks([])
    axes.set(xscale="log", xlabel="on the sky, per 10⁶ px and visit", ylim=(-0.7, len(rows) + 1.2),
             title="Sources of S/N ≥ 6 at the sky's density")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.45)
    axes.grid(axis="y", visible=False)
