"""Light curves: forced photometry of DIAObjects (DiaForcedSource) against the true light curves of their sources."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import chdtrc

from reports.drawing import BANDS, BLUE, INK, MUTED, WARM, nothing, panels, styled
from reports.intervals import UNKNOWN, Estimate, fraction, mean, median, spread
from reports.outcome import Outcome
from reports.store import groups

CLIP: Final = 5.0          # pulls beyond it are outliers
MIN_POINTS: Final = 3      # of a light curve whose scatter is judged
UNLIKELY: Final = 0.01     # a light curve scatters too much where chance gives as much so rarely
SHOWN: Final = 6           # light curves in the panel

POINT: Final = np.dtype([("seed", "i8"), ("truthId", "i8"), ("band", "S1"), ("snr", "f8"), ("flux", "f8"),
                         ("psfFlux", "f8"), ("psfFluxErr", "f8"), ("pull", "f8")])
CURVE: Final = np.dtype([("seed", "i8"), ("truthId", "i8"), ("band", "S1"), ("n", "i8"), ("chi2", "f8"), ("p", "f8")])


@dataclass(frozen=True, slots=True)
class LightCurves:
    """Forced points of true static sources: isolated ones on clean pixels are judged."""

    points: np.ndarray         # POINT
    curves: np.ndarray         # CURVE: sum of squared pulls of each source in a band, with 3 points at least
    n_objects: int             # DIAObjects with a forced point, judged or not
    n_all: int                 # forced points, judged or not
    bias: Estimate             # mean pull, outliers aside
    spread: Estimate           # of the pulls
    outliers: float            # fraction of pulls beyond 5
    error: Estimate            # median |flux - truth| [nJy]
    scattered: Estimate        # fraction of `curves` that scatter more than 99 % of claimed errors would: 0.01 is right


def light_curves(outcome: Outcome) -> LightCurves:
    """Judge the forced points of a run."""
    forced = outcome.forced
    clean = forced[forced["clean"] & np.isfinite(forced["psfFlux"]) & (forced["psfFluxErr"] > 0)]
    points = np.zeros(len(clean), POINT)
    for name in ("seed", "truthId", "band", "flux", "psfFlux", "psfFluxErr"):
        points[name] = clean[name]
    points["snr"] = np.abs(clean["snr"])
    points["pull"] = (points["psfFlux"] - points["flux"]) / points["psfFluxErr"]
    pulls = points["pull"]
    kept = pulls[np.abs(pulls) <= CLIP]
    found = [(seed, truth, band, len(rows), float(np.sum(pulls[rows]**2)), 1.0) for (seed, truth, band), rows in
             groups(points["seed"], points["truthId"], points["band"]) if len(rows) >= MIN_POINTS]
    curves = np.array(found, CURVE)
    curves["p"] = chdtrc(curves["n"], curves["chi2"])
    return LightCurves(
        points, curves, len(np.unique(forced["diaObjectId"])), len(forced), mean(kept),
        spread(kept) if len(kept) > 2 else UNKNOWN, 1.0 - len(kept) / len(pulls) if len(pulls) else float("nan"),
        median(np.abs(points["psfFlux"] - points["flux"])),
        fraction(int(np.sum(curves["p"] < UNLIKELY)), len(curves)))


# --- drawing ---------------------------------------------------------------------------------------------------------

@styled
def plot(table: LightCurves) -> Figure:
    """Pulls of forced points against a unit Gaussian, and the scatter of each light curve."""
    figure, (left, right) = panels(2)
    pulls = table.points["pull"]
    if not len(pulls):
        nothing(left, "no forced photometry of true sources")
        right.set_axis_off()
        return figure
    grid = np.linspace(-CLIP, CLIP, 200)
    left.hist(np.clip(pulls, -CLIP, CLIP), np.linspace(-CLIP, CLIP, 41).tolist(), density=True, histtype="step",
              linewidth=1.6, color=BLUE, label=f"{table.bias.value:+.3f} ± {table.spread.value:.3f} (n = {len(pulls)})")
    left.plot(grid, np.exp(-grid**2 / 2) / np.sqrt(2 * np.pi), color=INK, linewidth=1, linestyle="--", label="N(0, 1)")
    left.set(xlabel="(DiaForcedSource − true flux) / claimed error", ylabel="density", xlim=(-CLIP, CLIP),
             ylim=(0, max(0.6, 1.3 * left.get_ylim()[1])), title="Pulls of forced points")
    left.legend(loc="upper right")
    if not len(table.curves):
        nothing(right, f"no light curve has {MIN_POINTS} points in one band")
        return figure
    ratio = np.clip(table.curves["chi2"] / table.curves["n"], 0.02, 50)
    right.hist(ratio, np.geomspace(0.02, 50, 31).tolist(), color=WARM, alpha=0.7)
    right.axvline(1.0, color=INK, linewidth=1, linestyle="--")
    right.set(xscale="log", xlabel="mean squared pull of a source in one band", ylabel="light curves",
              title=f"Scatter of {len(ratio)} light curves")
    right.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
    right.minorticks_off()
    return figure


@styled
def plot_brightest(outcome: Outcome) -> Figure:
    """The brightest transients of a run: true light curve, detections and forced points."""
    chosen = brightest(outcome)
    figure, axes = _grid(2 if len(chosen) > 3 else 1)
    for panel in axes[len(chosen):]:
        panel.set_axis_off()
    if not len(chosen):
        nothing(axes[0], "no transient was seen more than once")
    for i, (panel, key) in enumerate(zip(axes, chosen, strict=False)):
        _plot_one(panel, outcome, key, legend=i == 0)
    return figure


def _grid(rows: int) -> tuple[Figure, list[Axes]]:
    """A figure of three panels in each row."""
    height = 2.9 * rows
    figure, first = panels(3, width=13.0, height=height)
    axes = []
    for row in range(rows):
        for panel in first:
            box = panel.get_position()
            bottom = (0.52 + (rows - 1 - row) * 2.9) / height
            axes.append(figure.add_axes((box.x0, bottom, box.width, 2.0 / height)))
    for panel in first:
        panel.remove()
    return figure, axes


def brightest(outcome: Outcome) -> list[tuple[int, int]]:
    """(seed, truthId) of the transients of largest S/N that have an alert and were looked at twice or more."""
    sources = outcome.sources
    ranked = []
    for (seed, truth), rows in groups(sources["seed"], sources["truthId"]):
        here = sources[rows]
        if here["kind"][0] in (b"transient", b"injected") and len(here) > 1 and here["alert"].any():
            ranked.append((float(np.max(np.abs(here["snr"]))), (seed, truth)))
    return [key for _, key in sorted(ranked, key=lambda pair: (-pair[0], pair[1]))[:SHOWN]]


def _plot_one(axes: Axes, outcome: Outcome, key: tuple[int, int], *, legend: bool) -> None:
    truth, forced = (rows[(rows["seed"] == key[0]) & (rows["truthId"] == key[1])]
                     for rows in (outcome.sources, outcome.forced))
    start = float(np.nanmin(outcome.visits["midpointMjdTai"])) if len(outcome.visits) else 0.0
    when = _hours(outcome, truth, start)
    for band in dict.fromkeys(truth["band"].tolist()):
        colour = BANDS.get(band.decode(), MUTED)
        of = np.flatnonzero(truth["band"] == band)
        of = of[np.argsort(when[of])]
        axes.plot(when[of], truth["flux"][of] / 1e3, "-_", color=colour, linewidth=1.2, markersize=11, alpha=0.8,
                  label=f"{band.decode()}, true")
        axes.annotate(band.decode(), (float(when[of[0]]), float(truth["flux"][of[0]]) / 1e3), xytext=(-11, 0),
                      va="center", textcoords="offset points", color=colour, fontsize=9, fontweight="bold")
        points = forced[forced["band"] == band]
        axes.errorbar(_hours(outcome, points, start), points["psfFlux"] / 1e3, points["psfFluxErr"] / 1e3, fmt="s",
                      color=colour, markersize=7.5, markerfacecolor="none", elinewidth=1, label="DiaForcedSource")
        seen = of[truth["alert"][of]]
        axes.errorbar(when[seen], truth["psfFlux"][seen] / 1e3, truth["psfFluxErr"][seen] / 1e3, fmt="o", color=colour,
                      markersize=3.5, elinewidth=1, label="DIASource")
    away = float(truth["host_sep_arcsec"][0])
    place = f", {away:.1f}″ from its host's centre" if np.isfinite(away) else ", hostless"
    axes.set(xlabel="hours of the night", ylabel="difference flux [µJy]",
             title=f"S/N {np.max(np.abs(truth['snr'])):.0f}{place}")
    if legend:
        handles, labels = axes.get_legend_handles_labels()
        first = {label.split(", ")[-1]: handle for handle, label in zip(handles, labels, strict=True)}
        axes.legend(list(first.values()), list(first), loc="best", fontsize=7.5)


def _hours(outcome: Outcome, rows: np.ndarray, start: float) -> np.ndarray:
    """Hours since the run's first exposure, of each row's visit."""
    times = {(int(v["seed"]), int(v["visit"])): float(v["midpointMjdTai"]) for v in outcome.visits}
    found = [times.get((int(r["seed"]), int(r["visit"])), np.nan) for r in rows]
    return (np.array(found, float) - start) * 24.0
