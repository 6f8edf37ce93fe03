"""Completeness (6.4) against S/N, magnitude and host, raw and after all filters, with the S/N of half completeness."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.drawing import BLUE, CYCLE, INK, MUTED, WARM, nothing, panels, styled
from reports.intervals import Estimate, Turnover, flat_fraction, fraction, turnover, wilson
from reports.match import Matches
from schemas.exposure import magnitudes

SNR_EDGES: Final = (1.0, 2.0, 3.0, 4.0, 4.5, 5.0, 5.5, 6.5, 8.0, 10.0, 14.0, 20.0, 40.0, 100.0)
MAG_STEP: Final = 0.5
FLAT_EDGES: Final = np.arange(6.0, 20.5, 1.0)   # a sample flat in S/N from 6 to 20
FIT_SNR: Final = (1.0, 30.0)                    # sources that constrain the turnover
HOST_SNR: Final = (6.0, 20.0)                   # sources that are held against their hosts
BRIGHTNESS_EDGES: Final = (16.0, 20.0, 21.0, 22.0, 23.0, 24.0, 25.0, 26.0, 30.0)     # [mag/arcsec^2] under the source
DISTANCE_EDGES: Final = (0.0, 0.15, 0.3, 0.5, 0.8, 1.2, 2.0, 4.0, 20.0)              # [arcsec] from the host's centre

HOSTED_KINDS: Final = (b"transient", b"agn", b"injected")

COMPLETENESS: Final = np.dtype([
    ("kind", "S12"), ("low", "f8"), ("high", "f8"), ("n", "i8"), ("raw", "i8"), ("alerts", "i8"),
    ("raw_fraction", "f8"), ("raw_low", "f8"), ("raw_high", "f8"),
    ("alert_fraction", "f8"), ("alert_low", "f8"), ("alert_high", "f8")])


@dataclass(frozen=True, slots=True)
class Completeness:
    """What was found of what was there."""

    by_snr: np.ndarray             # COMPLETENESS of all classes together, kind b"all"
    by_snr_and_class: np.ndarray   # COMPLETENESS
    by_magnitude: np.ndarray       # COMPLETENESS by magnitude of the absolute difference flux, per class
    by_brightness: np.ndarray      # COMPLETENESS of S/N 6 to 20 by the host's surface brightness under the source
    by_distance: np.ndarray        # COMPLETENESS of S/N 6 to 20 by the distance from the host's centre
    hostless: np.ndarray           # COMPLETENESS, one row: S/N 6 to 20 without a host
    turnover_raw: Turnover | None
    turnover_alerts: Turnover | None


def completeness(matches: Matches) -> Completeness:
    """Tables and fits of all judged sources."""
    use = matches.judged
    truth = matches.truth[use]
    raw, alerts, snr = matches.raw[use], matches.alerted[use], np.abs(truth["snr"])
    magnitude = magnitudes(np.abs(truth["flux"]))
    kinds = np.unique(truth["kind"])
    magnitude = np.where(snr >= FIT_SNR[0], magnitude, np.nan)      # fainter ones only stretch the axis
    edges = _magnitude_edges(magnitude)
    by_class = [tabulate(snr[rows], raw[rows], alerts[rows], SNR_EDGES, kind)
                for kind in kinds for rows in [truth["kind"] == kind]]
    by_mag = [tabulate(magnitude[rows], raw[rows], alerts[rows], edges, kind)
              for kind in kinds for rows in [truth["kind"] == kind]]
    none = np.zeros(0, COMPLETENESS)
    fitted = (snr >= FIT_SNR[0]) & (snr <= FIT_SNR[1])
    return Completeness(tabulate(snr, raw, alerts, SNR_EDGES), np.concatenate(by_class or [none]),
                        np.concatenate(by_mag or [none]), *by_host(truth, raw, alerts),
                        turnover(snr[fitted], raw[fitted]), turnover(snr[fitted], alerts[fitted]))


def by_host(truth: np.ndarray, raw: np.ndarray, alerts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """COMPLETENESS by surface brightness and by distance, kind b"hosted", and one row of kind b"hostless".

    Sources of S/N 6 to 20 alone, and of the classes that have hosts: so that the curves are about hosts.
    """
    snr = np.abs(truth["snr"])
    use = (snr >= HOST_SNR[0]) & (snr < HOST_SNR[1]) & np.isin(truth["kind"], HOSTED_KINDS)
    hosted = np.isfinite(truth["host_sep_arcsec"]) & use
    hostless = use & ~hosted
    return (tabulate(truth["host_sb"][hosted], raw[hosted], alerts[hosted], BRIGHTNESS_EDGES, b"hosted"),
            tabulate(truth["host_sep_arcsec"][hosted], raw[hosted], alerts[hosted], DISTANCE_EDGES, b"hosted"),
            tabulate(snr[hostless], raw[hostless], alerts[hostless], HOST_SNR, b"hostless"))


def tabulate(value: np.ndarray, raw: np.ndarray, alerts: np.ndarray, edges: Sequence[float] | np.ndarray,
             kind: bytes = b"all") -> np.ndarray:
    """COMPLETENESS rows in bins of `value`, half-open on the right."""
    edges = np.asarray(edges, float)
    rows = np.zeros(len(edges) - 1, COMPLETENESS)
    rows["kind"], rows["low"], rows["high"] = kind, edges[:-1], edges[1:]
    for name, chosen in (("n", np.ones(len(value), bool)), ("raw", raw), ("alerts", alerts)):
        rows[name] = _histogram(value[chosen], edges)
    for name, count in (("raw", rows["raw"]), ("alert", rows["alerts"])):
        rows[f"{name}_fraction"] = np.where(rows["n"] > 0, count / np.maximum(rows["n"], 1), np.nan)
        rows[f"{name}_low"], rows[f"{name}_high"] = wilson(count, rows["n"])
    return rows


def in_range(matches: Matches, low: float, high: float, *, raw: bool) -> Estimate:
    """Completeness of judged sources of low <= S/N < high."""
    use, snr = matches.judged, np.abs(matches.truth["snr"])
    use &= (snr >= low) & (snr < high)
    got = matches.raw if raw else matches.alerted
    return fraction(int(np.sum(got & use)), int(np.sum(use)))


def flat(matches: Matches, *, raw: bool = False) -> tuple[Estimate, np.ndarray]:
    """Completeness over a sample flat in S/N from 6 to 20, and the number of sources of each of its bins."""
    use, snr = matches.judged, np.abs(matches.truth["snr"])
    got = matches.raw if raw else matches.alerted
    n = _histogram(snr[use], FLAT_EDGES)
    return flat_fraction(_histogram(snr[use & got], FLAT_EDGES), n), n


def _histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Counts in bins that are all half-open on the right, the last too."""
    place = np.searchsorted(edges, values, side="right") - 1
    place = place[(place >= 0) & (place < len(edges) - 1)]
    return np.bincount(place, minlength=len(edges) - 1)


def _magnitude_edges(magnitude: np.ndarray) -> np.ndarray:
    known = magnitude[np.isfinite(magnitude)]
    if not len(known):
        return np.array([20.0, 25.0])
    low, high = np.floor(np.percentile(known, [0.5, 99.5]) / MAG_STEP) * MAG_STEP
    return np.arange(low, high + 1.5 * MAG_STEP, MAG_STEP)


# --- drawing ---------------------------------------------------------------------------------------------------------

@styled
def plot(table: Completeness) -> Figure:
    """Completeness against S/N: raw and alerts with the requirement, and by class."""
    figure, (left, right) = panels(2)
    _plot_all(left, table)
    _plot_classes(right, table.by_snr_and_class, "Alerts by class")
    right.set(xscale="log", xlabel="true S/N", xlim=(1.8, 110))
    _plain_log(right)
    return figure


@styled
def plot_magnitude(table: Completeness) -> Figure:
    """Completeness of alerts against magnitude by class."""
    figure, (axes,) = panels(1)
    _plot_classes(axes, table.by_magnitude, "Alerts by magnitude of the difference flux")
    axes.set(xlabel="AB magnitude of |difference flux|")
    return figure


@styled
def plot_hosts(table: Completeness) -> Figure:
    """Completeness against the host's surface brightness and the distance from its centre, beside hostless sources."""
    figure, (left, right) = panels(2)
    for axes, rows, label, title in (
            (left, table.by_brightness, "surface brightness under the source [mag/arcsec²]", "Completeness on hosts"),
            (right, table.by_distance, "distance from the host's centre [arcsec]", "Completeness near hosts' centres")):
        _plot_host(axes, rows, table.hostless[0] if len(table.hostless) else None)
        axes.set(xlabel=label, title=title)
    return figure


def _plot_host(axes: Axes, rows: np.ndarray, hostless: np.void | None) -> None:
    rows = rows[rows["n"] > 0]
    if not len(rows):
        return nothing(axes, "no true source of S/N 6 to 20 has a host")
    place = np.arange(len(rows))
    for name, label, colour, shift in (("raw", "raw detections", BLUE, -0.06), ("alert", "alerts", WARM, 0.06)):
        y = rows[f"{name}_fraction"]
        errors = np.maximum([y - rows[f"{name}_low"], rows[f"{name}_high"] - y], 0.0)
        axes.errorbar(place + shift, y, errors, fmt="o", color=colour, label=label, elinewidth=1.2)
    if hostless is not None and hostless["n"]:
        axes.axhspan(hostless["alert_low"], hostless["alert_high"], color=WARM, alpha=0.13, linewidth=0,
                     label=f"hostless alerts ({int(hostless['n'])})")
    for i, row in enumerate(rows):
        axes.annotate(f"{int(row['n'])}", (i, 0.0), ha="center", fontsize=7.5, color=MUTED)
    axes.set_xticks(place, [f"{row['low']:g}–{row['high']:g}" for row in rows], fontsize=8)
    axes.set(ylabel="fraction found, S/N 6 to 20", ylim=(-0.04, 1.06), xlim=(-0.5, len(rows) - 0.5))
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.06))
    return None


def _plot_all(axes: Axes, table: Completeness) -> None:
    rows = table.by_snr[table.by_snr["n"] > 0]
    if not len(rows):
        return nothing(axes, "no true sources of known S/N")
    grid = np.geomspace(1.8, 110, 300)
    for name, label, colour, fit in (("raw", "raw detections", BLUE, table.turnover_raw),
                                     ("alert", "alerts, all filters", WARM, table.turnover_alerts)):
        x = np.sqrt(rows["low"] * rows["high"]) * (0.985 if name == "raw" else 1.015)
        y = rows[f"{name}_fraction"]
        errors = np.maximum([y - rows[f"{name}_low"], rows[f"{name}_high"] - y], 0.0)
        half = f", 50 % at {fit.half.value:.2f}" if fit else ""
        axes.errorbar(x, y, errors, fmt="o", color=colour, label=label + half, elinewidth=1.2)
        if fit:
            axes.plot(grid, fit.at(grid), color=colour, linewidth=1.4, alpha=0.8)
    axes.axvline(5.0, color=MUTED, linewidth=1, linestyle=":")
    axes.annotate("threshold 5", (5.0, 0.02), xytext=(4, 0), textcoords="offset points", color=MUTED, fontsize=8)
    axes.plot([6], [0.9], marker="*", markersize=12, color=INK, linestyle="none", label="requirement: 90 % at S/N 6")
    axes.set(xscale="log", xlabel="true S/N", ylabel="fraction found", ylim=(-0.02, 1.04), xlim=(1.8, 110),
             title="Completeness against S/N")
    _plain_log(axes)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.05))
    return None


def _plot_classes(axes: Axes, rows: np.ndarray, title: str) -> None:
    rows = rows[rows["n"] >= 3]
    if not len(rows):
        return nothing(axes, "too few true sources by class")
    for kind, colour in zip(np.unique(rows["kind"]), CYCLE, strict=False):
        part = rows[rows["kind"] == kind]
        logarithmic = bool(np.all(part["high"] / np.maximum(part["low"], 1e-9) > 1.05))
        x = np.sqrt(part["low"] * part["high"]) if logarithmic else (part["low"] + part["high"]) / 2
        y = part["alert_fraction"]
        errors = np.maximum([y - part["alert_low"], part["alert_high"] - y], 0.0)
        axes.errorbar(x, y, errors, fmt="o-", color=colour, label=f"{kind.decode().replace('_', ' ')} "
                      f"({int(part['n'].sum())})", elinewidth=1, linewidth=1.2, markersize=4)
    axes.set(ylabel="fraction with an alert", ylim=(-0.02, 1.04), title=title)
    axes.legend(loc="best")
    return None


def _plain_log(axes: Axes) -> None:
    ticks = [2, 3, 5, 10, 20, 50, 100]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
