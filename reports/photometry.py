"""Pulls: fluxes forced at true positions against true fluxes, hosted and hostless apart."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.drawing import BLUE, INK, MUTED, WARM, nothing, panels, styled
from reports.intervals import Estimate, mean, spread
from reports.match import Matches
from schemas import mask

SNR_RANGE: Final = (3.0, 30.0)
CLIP: Final = 5.0      # pulls beyond it are outliers: counted apart, kept out of mean and standard deviation
UNCLEAN: Final = (mask.UNUSABLE | mask.CR | mask.STREAK | mask.SPIKE | mask.SUSPECT | mask.HIGH_VARIANCE
                  | mask.SAT_TEMPLATE)

PULL: Final = np.dtype([("snr", "f8"), ("pull", "f8"), ("hosted", "?")])


@dataclass(frozen=True, slots=True)
class Pulls:
    """Pulls of point sources that are isolated and on clean pixels."""

    rows: np.ndarray           # PULL of |S/N| 3 to 30
    hosted: "Summary"
    hostless: "Summary"


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean and spread of pulls without outliers, and the fraction of outliers."""

    mean: Estimate
    std: Estimate
    outliers: float            # fraction beyond CLIP


def pulls(matches: Matches) -> Pulls:
    """(forced flux - true flux) / claimed error at true positions."""
    truth = matches.truth
    with np.errstate(invalid="ignore", divide="ignore"):
        pull = (truth["forced_flux"] - truth["flux"]) / truth["forced_flux_err"]
    clean = (truth["mask_at"] & UNCLEAN) == 0
    use = (matches.judged & truth["isolated"] & clean & np.isfinite(pull) & (np.nan_to_num(truth["trail_length"]) < 1.0)
           & (np.abs(truth["snr"]) >= SNR_RANGE[0]) & (np.abs(truth["snr"]) < SNR_RANGE[1]))
    rows = np.zeros(int(use.sum()), PULL)
    rows["snr"], rows["pull"] = np.abs(truth["snr"][use]), pull[use]
    rows["hosted"] = np.isfinite(truth["host_sep_arcsec"][use])
    return Pulls(rows, summary(rows["pull"][rows["hosted"]]), summary(rows["pull"][~rows["hosted"]]))


def summary(values: np.ndarray) -> Summary:
    """Statistics of pulls."""
    kept = values[np.abs(values) <= CLIP]
    return Summary(mean(kept), spread(kept), 1.0 - len(kept) / len(values) if len(values) else float("nan"))


# --- drawing ---------------------------------------------------------------------------------------------------------

@styled
def plot(table: Pulls) -> Figure:
    """Histograms of pulls against a unit Gaussian, and pulls against S/N."""
    figure, (left, right) = panels(2)
    if not len(table.rows):
        nothing(left, "no forced fluxes at true positions")
        right.set_axis_off()
        return figure
    _plot_histogram(left, table)
    _plot_trend(right, table.rows)
    return figure


def _plot_histogram(axes: Axes, table: Pulls) -> None:
    edges = np.linspace(-CLIP, CLIP, 41)
    grid = np.linspace(-CLIP, CLIP, 200)
    for hosted, found, colour, name in ((False, table.hostless, BLUE, "hostless"),
                                        (True, table.hosted, WARM, "hosted")):
        values = table.rows["pull"][table.rows["hosted"] == hosted]
        if len(values):
            axes.hist(values, edges.tolist(), density=True, histtype="step", linewidth=1.6, color=colour, label=(
                f"{name}: {found.mean.value:+.3f} ± {found.std.value:.3f} (n = {len(values)})"))
    top = max(0.62, 1.35 * axes.get_ylim()[1])
    axes.plot(grid, np.exp(-grid**2 / 2) / np.sqrt(2 * np.pi), color=INK, linewidth=1, linestyle="--", label="N(0, 1)")
    axes.set(xlabel="(forced − true flux) / claimed error", ylabel="density", xlim=(-CLIP, CLIP),
             title="Pulls of flux forced at true positions", ylim=(0, top))
    axes.legend(loc="upper right")


def _plot_trend(axes: Axes, rows: np.ndarray) -> None:
    edges = np.array([3.0, 4.0, 5.5, 7.5, 10.0, 14.0, 20.0, 30.0])
    axes.scatter(rows["snr"], rows["pull"], s=3, color=MUTED, alpha=0.25, linewidths=0, rasterized=True)
    for hosted, colour, shift in ((False, BLUE, 0.985), (True, WARM, 1.015)):
        part = rows[(rows["hosted"] == hosted) & (np.abs(rows["pull"]) <= CLIP)]
        for low, high in pairwise(edges.tolist()):
            values = part["pull"][(part["snr"] >= low) & (part["snr"] < high)]
            if len(values) >= 5:
                x = np.sqrt(low * high) * shift
                axes.errorbar(x, values.mean(), values.std(ddof=1), color=colour, elinewidth=1, capsize=0)
                axes.errorbar(x, values.mean(), values.std(ddof=1) / np.sqrt(len(values)), fmt="o", color=colour,
                              elinewidth=3, markersize=4)
    for level in (-1, 1):
        axes.axhline(level, color=MUTED, linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlabel="true S/N", ylabel="pull", ylim=(-4.2, 4.2), xlim=SNR_RANGE,
             title="Mean and scatter of pulls against S/N")
    axes.set_xticks([3, 5, 10, 20, 30], ["3", "5", "10", "20", "30"])
    axes.minorticks_off()
