"""Photometric precision (6.6): fluxes forced at true positions and of alerts against true fluxes."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import gammaincinv

from reports.drawing import BLUE, INK, MUTED, WARM, nothing, panels, styled
from reports.intervals import UNKNOWN, Estimate, mean, median, spread
from reports.match import Matches
from reports.store import groups
from schemas import mask

SNR_RANGE: Final = (3.0, 30.0)
BRIGHT_SNR: Final = 20.0
MOST_PERCENT: Final = 25.0         # of the axis of biases
MIN_EPOCHS: Final = 2
CLIP: Final = 5.0      # pulls beyond it are outliers: counted apart, kept out of mean and standard deviation
UNCLEAN: Final = (mask.UNUSABLE | mask.CR | mask.STREAK | mask.SPIKE | mask.SUSPECT | mask.HIGH_VARIANCE
                  | mask.SAT_TEMPLATE)

SNR_EDGES: Final = (5.0, 6.0, 8.0, 10.0, 14.0, 20.0, 30.0, 60.0, 200.0)

PULL: Final = np.dtype([("snr", "f8"), ("pull", "f8"), ("hosted", "?")])
FLUX: Final = np.dtype([("run", "i2"), ("truthId", "i8"), ("band", "S1"), ("snr", "f8"),
                        ("error", "f8"), ("pull", "f8")])        # flux / true flux - 1; (flux - true) / claimed error
PRECISION: Final = np.dtype([
    ("kind", "S8"), ("low", "f8"), ("high", "f8"), ("n", "i8"),
    ("bias", "f8"), ("bias_low", "f8"), ("bias_high", "f8"),      # median of flux / true flux - 1
    ("scatter", "f8"),                                           # of the same: 1.4826 median absolute deviation
    ("pull_mean", "f8"), ("pull_mean_low", "f8"), ("pull_mean_high", "f8"),
    ("pull_std", "f8"), ("pull_std_low", "f8"), ("pull_std_high", "f8")])   # outliers beyond 5 aside


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


@dataclass(frozen=True, slots=True)
class Precision:
    """Fluxes of isolated point sources on clean pixels against truth, by true S/N."""

    rows: np.ndarray           # PRECISION: kind b"alert", psfFlux of alerts; b"forced", forced at the true position
    bias: Estimate             # median of psfFlux / true flux - 1 of alerts, S/N >= 20
    scatter_mmag: Estimate     # median |error| of alerts, S/N >= 20, in mmag
    repeatability: Estimate    # scatter of a source's alerts in one band over their claimed errors; 1 is right


def precision(matches: Matches) -> Precision:
    """Tables of alerts' psfFlux and of forced fluxes, and how well one source's alerts repeat."""
    truth = matches.truth
    use = (matches.judged & truth["isolated"] & ((truth["mask_at"] & UNCLEAN) == 0)
           & (np.nan_to_num(truth["trail_length"]) < 1.0))
    seen = use & matches.alerted
    found = matches.sources[matches.found[seen]] if len(matches.sources) else matches.sources[:0]
    bands = band_of(matches)
    alerts = _fluxes(truth[seen], bands[seen], found["psfFlux"], found["psfFluxErr"])
    forced = _fluxes(truth[use], bands[use], truth["forced_flux"][use], truth["forced_flux_err"][use])
    bright = alerts["error"][alerts["snr"] >= BRIGHT_SNR]
    millimag = median(2500 / np.log(10) * np.abs(bright))
    return Precision(np.concatenate([by_snr(alerts, b"alert"), by_snr(forced, b"forced")]), median(bright), millimag,
                     repeatability(alerts))


def band_of(matches: Matches) -> np.ndarray:
    """(n_truth,) S1: band of each true source's detector-visit."""
    log = matches.exposures
    bands = {(int(r["run"]), int(r["visit"]), int(r["detector"])): r["band"] for r in log}
    found = [bands.get((int(r["run"]), int(r["visit"]), int(r["detector"])), b"") for r in matches.truth]
    return np.array(found, "S1")


def _fluxes(truth: np.ndarray, bands: np.ndarray, flux: np.ndarray, error: np.ndarray) -> np.ndarray:
    """FLUX rows of what is known."""
    rows = np.zeros(len(truth), FLUX)
    for name in ("run", "truthId"):
        rows[name] = truth[name]
    rows["snr"], rows["band"] = np.abs(truth["snr"]), bands
    with np.errstate(invalid="ignore", divide="ignore"):
        rows["error"], rows["pull"] = flux / truth["flux"] - 1.0, (flux - truth["flux"]) / error
    return np.asarray(rows[np.isfinite(rows["error"]) & np.isfinite(rows["pull"])])


def by_snr(fluxes: np.ndarray, kind: bytes) -> np.ndarray:
    """PRECISION rows of FLUX rows; bins are half-open on the right."""
    rows = np.zeros(len(SNR_EDGES) - 1, PRECISION)
    rows["kind"], rows["low"], rows["high"] = kind, SNR_EDGES[:-1], SNR_EDGES[1:]
    for row in rows:
        here = fluxes[(fluxes["snr"] >= row["low"]) & (fluxes["snr"] < row["high"])]
        kept = here["pull"][np.abs(here["pull"]) <= CLIP]
        row["n"] = len(here)
        for name, found in (("bias", median(here["error"])), ("pull_mean", mean(kept)),
                            ("pull_std", spread(kept) if len(kept) > 2 else UNKNOWN)):
            row[name], row[f"{name}_low"], row[f"{name}_high"] = found.value, found.low, found.high
        middle = np.median(here["error"]) if len(here) else np.nan
        row["scatter"] = 1.4826 * np.median(np.abs(here["error"] - middle)) if len(here) > 2 else np.nan
    return rows


def repeatability(fluxes: np.ndarray) -> Estimate:
    """Scatter of one source's errors in one band over its claimed errors: the median over sources seen twice or more.

    Truth is subtracted first, so that what varies repeats too. Each value is over the median that chance gives to so
    few measurements: 1 is right.
    """
    out = []
    for _, rows in groups(fluxes["run"], fluxes["truthId"], fluxes["band"]):
        if len(rows) >= MIN_EPOCHS:
            free = len(rows) - 1
            out.append(float(np.sqrt(np.var(fluxes["pull"][rows], ddof=1) * free / (2 * gammaincinv(free / 2, 0.5)))))
    return median(np.array(out, float))


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


@styled
def plot_precision(table: Precision) -> Figure:
    """Bias and scatter of fluxes against S/N, and the spread of their pulls."""
    figure, (left, right) = panels(2)
    rows = table.rows[table.rows["n"] > 2]
    if not len(rows):
        nothing(left, "too few fluxes of isolated point sources")
        right.set_axis_off()
        return figure
    for kind, label, colour, shift in ((b"alert", "psfFlux of alerts", WARM, 1.02),
                                       (b"forced", "forced at the true position", BLUE, 0.98)):
        of = rows[rows["kind"] == kind]
        x = np.sqrt(of["low"] * of["high"]) * shift
        left.errorbar(x, 100 * of["bias"], _reach(of, "bias", 100.0), fmt="o", color=colour, label=label,
                      elinewidth=1.4)
        right.errorbar(x, of["pull_std"], _reach(of, "pull_std", 1.0), fmt="o", color=colour, label=label,
                       elinewidth=1.4)
    alerts = rows[rows["kind"] == b"alert"]
    x = np.sqrt(alerts["low"] * alerts["high"])
    left.fill_between(x, -100 * alerts["scatter"], 100 * alerts["scatter"], color=WARM, alpha=0.12, linewidth=0,
                      label="scatter of alerts, 1σ")
    left.axhline(0.0, color=MUTED, linewidth=0.8)
    right.axhline(1.0, color=INK, linewidth=1, linestyle="--")
    left.set(ylabel="flux / true flux − 1 [%]", title="Bias of fluxes (medians)", ylim=(-MOST_PERCENT, MOST_PERCENT))
    for row in rows[np.abs(100 * rows["bias"]) > MOST_PERCENT]:
        edge = MOST_PERCENT * float(np.sign(row["bias"]))
        left.annotate(f"{100 * row['bias']:+.0f} % (n = {row['n']})", (float(np.sqrt(row["low"] * row["high"])), edge),
                      xytext=(0, -10 if edge > 0 else 4), textcoords="offset points", fontsize=7.5, color=MUTED,
                      ha="center")
    right.set(ylabel="std of (flux − true) / claimed error", title="Are the errors as claimed?", ylim=(0.5, 1.8))
    for axes in (left, right):
        axes.set(xscale="log", xlabel="true S/N", xlim=(4.5, 200))
        axes.set_xticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
        axes.minorticks_off()
        axes.legend(loc="upper right")
    return figure


def _reach(rows: np.ndarray, name: str, scale: float) -> np.ndarray:
    """(2, n) lengths of the error bars of a column; 0 where there is no interval."""
    return np.asarray(scale * np.nan_to_num(np.maximum([rows[name] - rows[f"{name}_low"],
                                                        rows[f"{name}_high"] - rows[name]], 0.0)))
