"""Where it happened: detector outlines, alerts by what they are, sources missed."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from reports.drawing import BAD, CYCLE, INK, MUTED, nothing, panels, styled
from reports.match import Matches

MIN_MISSED_SNR: Final = 8.0

MARK: Final = np.dtype([("kind", "S16"), ("ra", "f8"), ("dec", "f8")])


@dataclass(frozen=True, slots=True)
class SkyMap:
    """Positions [deg] by kind: a class of truth, b"false", b"missed"."""

    marks: np.ndarray          # MARK
    ra: float                  # centre of the map
    dec: float
    outline_deg: float         # side of a typical detector
    pointings: np.ndarray      # (n, 2) RA, Dec of detector-visits


def sky_map(matches: Matches) -> SkyMap:
    """Alerts of all detector-visits, and sources missed above S/N 8."""
    alerts = np.flatnonzero(matches.sources["alert"])
    missed = np.flatnonzero(matches.judged & ~matches.alerted & (np.abs(matches.truth["snr"]) >= MIN_MISSED_SNR))
    marks = np.zeros(len(alerts) + len(missed), MARK)
    partner = matches.partner[alerts]
    unknown = b"alert" if matches.kind != "simulated" else b"false"
    kinds = matches.truth["kind"][np.maximum(partner, 0)] if len(matches.truth) else np.zeros(len(alerts), "S12")
    marks["kind"] = np.concatenate([np.where(partner >= 0, kinds, unknown), np.full(len(missed), b"missed", "S16")])
    for name in ("ra", "dec"):
        marks[name] = np.concatenate([matches.sources[name][alerts], matches.truth[name][missed]])
    log = matches.exposures
    places = log if len(log) else marks
    ra, dec = (places[name][np.isfinite(places[name])] for name in ("ra", "dec"))
    if not len(ra):
        return SkyMap(marks, np.nan, np.nan, np.nan, np.zeros((0, 2)))
    turn = float(np.degrees(np.angle(np.mean(np.exp(1j * np.radians(ra))))) % 360.0)
    side = float(np.median(np.hypot(*_plane(matches, turn)))) if len(alerts) else 0.05
    return SkyMap(marks, turn, float(np.median(dec)), side, np.column_stack([ra, dec]))


def _plane(matches: Matches, ra: float) -> tuple[np.ndarray, np.ndarray]:
    rows = matches.sources[matches.sources["alert"]]
    return (rows["ra"] - ra + 180) % 360 - 180, rows["dec"] - np.median(rows["dec"])


@styled
def plot(table: SkyMap) -> Figure:
    """The map on a tangent plane, East to the left."""
    figure, (axes,) = panels(1, width=7.6, height=5.2, right=2.4)
    if not len(table.marks) or not np.isfinite(table.ra):
        nothing(axes, "no alerts")
        return figure
    x = ((table.marks["ra"] - table.ra + 180.0) % 360.0 - 180.0) * np.cos(np.radians(table.dec)) * 60
    y = (table.marks["dec"] - table.dec) * 60
    kinds, counts = np.unique(table.marks["kind"], return_counts=True)
    order = np.argsort(-counts)
    colours = dict(zip([k for k in kinds[order] if k not in (b"false", b"missed")], CYCLE, strict=False))
    for kind in kinds[order]:
        of = table.marks["kind"] == kind
        name = f"{kind.decode().replace('_', ' ')} ({int(of.sum())})"
        if kind == b"missed":
            axes.plot(x[of], y[of], "o", color=INK, markerfacecolor="none", markersize=9, label=f"{name}, S/N ≥ 8",
                      rasterized=True)
        elif kind == b"false":
            axes.plot(x[of], y[of], "x", color=BAD, markersize=5, label=name, rasterized=True)
        else:
            axes.plot(x[of], y[of], ".", color=colours.get(kind, MUTED), alpha=0.75, label=name, rasterized=True)
    axes.invert_xaxis()
    axes.set_aspect("equal")
    axes.set(xlabel=f"RA − {table.ra:.3f}° [arcmin, on the sky]", ylabel=f"Dec − {table.dec:.3f}° [arcmin]",
             title="Alerts on the sky, all visits")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
