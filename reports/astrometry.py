"""Astrometric precision (6.7): positions of alerts against truth, and their errors against those claimed."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from reports.drawing import BAD, BLUE, INK, MUTED, WARM, nothing, panels, styled
from reports.intervals import UNKNOWN, Estimate, median, spread
from reports.match import Matches

BRIGHT_SNR: Final = 20.0
PULL_SNR: Final = 6.0              # errors over claimed errors are judged above it
FIDUCIAL_FWHM: Final = 0.83        # [arcsec], r band at zenith (SMTN-002)
LIMIT_ARCSEC: Final = 0.03         # x FWHM / FIDUCIAL_FWHM
CLIP: Final = 5.0

POSITION: Final = np.dtype([("snr", "f8"), ("dx", "f8"), ("dy", "f8"), ("radial", "f8"), ("scaled", "f8"),
                            ("pull_ra", "f8"), ("pull_dec", "f8")])   # [arcsec]; scaled to a FWHM of 0.83"

SNR_EDGES: Final = (5.0, 6.0, 8.0, 10.0, 14.0, 20.0, 30.0, 60.0, 200.0)
BY_SNR: Final = np.dtype([
    ("low", "f8"), ("high", "f8"), ("n", "i8"),
    ("radial", "f8"), ("radial_low", "f8"), ("radial_high", "f8"),     # median [arcsec]
    ("ra", "f8"), ("ra_low", "f8"), ("ra_high", "f8"),                 # median offset to the East [arcsec]
    ("dec", "f8"), ("dec_low", "f8"), ("dec_high", "f8"),              # to the North
    ("pull", "f8"), ("pull_low", "f8"), ("pull_high", "f8")])          # std of error / claimed error, both axes


@dataclass(frozen=True, slots=True)
class Astrometry:
    """Errors of the positions of isolated point sources."""

    rows: np.ndarray           # POSITION
    by_snr: np.ndarray         # BY_SNR
    offset_ra: Estimate        # median offset at S/N >= 20 [arcsec]: bias to the East
    offset_dec: Estimate       # to the North
    radial: Estimate           # median of `scaled` at S/N > 20 [arcsec]
    pull_ra: Estimate          # spread of error over claimed error, outliers beyond 5 aside
    pull_dec: Estimate
    outliers: float            # fraction of pulls beyond 5


def astrometry(matches: Matches) -> Astrometry:
    """Alert minus truth, on the sky."""
    truth, found = matches.truth, matches.found
    use = matches.judged & matches.alerted & truth["isolated"] & (np.nan_to_num(truth["trail_length"]) < 1.0)
    t, s = truth[use], matches.sources[found[use]]
    rows = np.zeros(len(t), POSITION)
    rows["snr"] = np.abs(t["snr"])
    rows["dx"] = ((s["ra"] - t["ra"] + 180.0) % 360.0 - 180.0) * np.cos(np.radians(t["dec"])) * 3600
    rows["dy"] = (s["dec"] - t["dec"]) * 3600
    rows["radial"] = np.hypot(rows["dx"], rows["dy"])
    rows["scaled"] = rows["radial"] * FIDUCIAL_FWHM / _fwhm(matches, use)
    with np.errstate(invalid="ignore", divide="ignore"):
        rows["pull_ra"] = rows["dx"] / (s["raErr"] * 3600)      # claimed towards the East: the schema's dRA cos(Dec)
        rows["pull_dec"] = rows["dy"] / (s["decErr"] * 3600)
    bright = rows["scaled"][(rows["snr"] > BRIGHT_SNR) & np.isfinite(rows["scaled"])]
    pulls = [rows[name][(rows["snr"] >= PULL_SNR) & np.isfinite(rows[name])] for name in ("pull_ra", "pull_dec")]
    both = np.concatenate(pulls)
    ra, dec = (spread(p[np.abs(p) <= CLIP]) for p in pulls)
    near = rows[(rows["snr"] >= BRIGHT_SNR) & np.isfinite(rows["radial"])]
    return Astrometry(rows, by_snr(rows), median(near["dx"]), median(near["dy"]), median(bright), ra, dec,
                      float(np.mean(np.abs(both) > CLIP)) if len(both) else float("nan"))


def by_snr(positions: np.ndarray) -> np.ndarray:
    """BY_SNR rows of POSITION rows; bins are half-open on the right."""
    rows = np.zeros(len(SNR_EDGES) - 1, BY_SNR)
    rows["low"], rows["high"] = SNR_EDGES[:-1], SNR_EDGES[1:]
    positions = positions[np.isfinite(positions["radial"])]
    for row in rows:
        here = positions[(positions["snr"] >= row["low"]) & (positions["snr"] < row["high"])]
        pulls = np.concatenate([here["pull_ra"], here["pull_dec"]])
        kept = pulls[np.abs(pulls) <= CLIP]
        row["n"] = len(here)
        for name, found in (("radial", median(here["radial"])), ("ra", median(here["dx"])), ("dec", median(here["dy"])),
                            ("pull", spread(kept) if len(kept) > 2 else UNKNOWN)):
            row[name], row[f"{name}_low"], row[f"{name}_high"] = found.value, found.low, found.high
    return rows


def _fwhm(matches: Matches, use: np.ndarray) -> np.ndarray:
    """FWHM [arcsec] of the detector-visit of each truth: the true one, else the measured, else the fiducial."""
    log, truth = matches.exposures, matches.truth
    fwhm = np.where(np.isfinite(log["true_fwhm_arcsec"]), log["true_fwhm_arcsec"], log["fwhm_arcsec"])
    keys = {(int(r["run"]), int(r["visit"]), int(r["detector"])): float(f) for r, f in zip(log, fwhm, strict=True)}
    out = np.array([keys.get((int(r["run"]), int(r["visit"]), int(r["detector"])), np.nan) for r in truth[use]], float)
    return np.where(np.isfinite(out), out, FIDUCIAL_FWHM)


# --- drawing ---------------------------------------------------------------------------------------------------------

@styled
def plot(table: Astrometry) -> Figure:
    """Errors on the sky against S/N, and error over claimed error."""
    figure, (left, right) = panels(2)
    rows = table.rows[np.isfinite(table.rows["radial"])]
    if len(rows) < 3:
        nothing(left, "too few matched point sources")
        right.set_axis_off()
        return figure
    left.scatter(rows["snr"], rows["scaled"] * 1e3, s=5, color=MUTED, alpha=0.35, linewidths=0, rasterized=True)
    edges = np.geomspace(5, 200, 11)
    for low, high in pairwise(edges.tolist()):
        values = rows["scaled"][(rows["snr"] >= low) & (rows["snr"] < high)]
        if len(values) >= 5:
            found = median(values)
            middle = found.value * 1e3
            left.errorbar(np.sqrt(low * high), middle, [[middle - found.low * 1e3], [found.high * 1e3 - middle]]
                          if np.isfinite(found.low) else None, fmt="o", color=BLUE)
    left.plot([BRIGHT_SNR, 200], [LIMIT_ARCSEC * 1e3] * 2, color=BAD, linewidth=1.3)
    left.annotate('bar: 30 mas at FWHM 0.83"', (BRIGHT_SNR, LIMIT_ARCSEC * 1e3), xytext=(2, 4),
                  textcoords="offset points", color=BAD, fontsize=8,
                  bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0})
    left.set(xscale="log", yscale="log", xlabel="true S/N", ylabel="radial error × 0.83″ / FWHM [mas]", xlim=(4, 250),
             title="Position error of alerts (dots: medians)")
    left.set_xticks([5, 10, 20, 50, 100, 200], ["5", "10", "20", "50", "100", "200"])
    left.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    left.minorticks_off()
    span, grid = np.linspace(-CLIP, CLIP, 41), np.linspace(-CLIP, CLIP, 200)
    for name, label, found, colour in (("pull_ra", "RA", table.pull_ra, BLUE),
                                       ("pull_dec", "Dec", table.pull_dec, WARM)):
        values = rows[name][(rows["snr"] >= PULL_SNR) & np.isfinite(rows[name])]
        if len(values):
            right.hist(values, span.tolist(), density=True, histtype="step", linewidth=1.6, color=colour,
                       label=f"{label}: std {found.value:.3f}")
    right.plot(grid, np.exp(-grid**2 / 2) / np.sqrt(2 * np.pi), color=INK, linewidth=1, linestyle="--", label="N(0, 1)")
    right.set(xlabel="error / claimed error", ylabel="density", title="Position pulls at S/N ≥ 6", xlim=(-CLIP, CLIP),
              ylim=(0, max(0.6, 1.25 * right.get_ylim()[1])))
    right.legend(loc="upper right")
    return figure


@styled
def plot_bias(table: Astrometry) -> Figure:
    """Offsets in both coordinates and the ratio of true to claimed errors, against S/N."""
    figure, (left, right) = panels(2)
    rows = table.by_snr[table.by_snr["n"] > 2]
    if not len(rows):
        nothing(left, "too few matched point sources")
        right.set_axis_off()
        return figure
    x = np.sqrt(rows["low"] * rows["high"])
    for name, label, colour, shift in (("ra", "RA cos Dec", BLUE, 0.98), ("dec", "Dec", WARM, 1.02)):
        errors = np.maximum([rows[name] - rows[f"{name}_low"], rows[f"{name}_high"] - rows[name]], 0.0)
        left.errorbar(x * shift, 1e3 * rows[name], 1e3 * np.nan_to_num(errors), fmt="o", color=colour, label=label,
                      elinewidth=1.4)
    left.axhline(0.0, color=MUTED, linewidth=0.8)
    left.set(ylabel="found − true [mas]", title="Bias of positions (medians)")
    left.legend(loc="upper right")
    errors = np.maximum([rows["pull"] - rows["pull_low"], rows["pull_high"] - rows["pull"]], 0.0)
    right.errorbar(x, rows["pull"], np.nan_to_num(errors), fmt="o", color=BLUE, elinewidth=1.4)
    right.axhline(1.0, color=INK, linewidth=1, linestyle="--")
    top = max(1.8, 1.1 * float(np.fmax(np.fmax.reduce(rows["pull_high"]), np.fmax.reduce(rows["pull"]))))
    right.set(ylabel="std of (position − true) / claimed error", title="Are the errors as claimed?",
              ylim=(0.5, min(top if np.isfinite(top) else 1.8, 4.0)))
    for axes in (left, right):
        axes.set(xscale="log", xlabel="true S/N", xlim=(4.5, 200))
        axes.set_xticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
        axes.minorticks_off()
    return figure
