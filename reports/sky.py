"""Pictures of a scenario's sky before any night is run: the field, the visits, light curves, and densities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.drawing import BANDS, BLUE, CYCLE, INK, MUTED, WARM, nothing, styled

VISIT: Final = np.dtype([("ra", "f8"), ("dec", "f8"), ("mjd", "f8"), ("band", "S1"), ("past", "?")])
MARKS: Final = "osD^vP*Xhp<>d8"


@dataclass(frozen=True, slots=True)
class Marked:
    """A class of sources on the field's picture."""

    name: str
    x: np.ndarray              # [pixel]
    y: np.ndarray


@dataclass(frozen=True, slots=True)
class Curves:
    """Light curves of one source."""

    name: str
    note: str
    days: np.ndarray           # (n,) from the night's middle
    magnitude: np.ndarray      # (6, n) AB; NaN where there is no light
    visits: np.ndarray         # (m,) days of the night's visits and of the templates'


@dataclass(frozen=True, slots=True)
class Density:
    """A row of the table: ours beside what is published."""

    name: str
    what: str                  # peaks per deg^2 and year | at any time per deg^2 | stars per deg^2
    limits: tuple[float, ...]
    ours: tuple[float, ...]
    published: tuple[float, ...]
    source: str                # of the published
    crude: tuple[float, ...] = ()   # ours by the recipe of the published


@styled
def plot_field(picture: np.ndarray, marked: Sequence[Marked], title: str) -> Figure:
    """The detector's sky in colour, (ny, nx, 3) in 0..1, with the sources of declared classes that shine now."""
    figure = Figure(figsize=(9.6, 7.6), dpi=100)
    axes = figure.add_axes((0.07, 0.07, 0.72, 0.86))
    axes.imshow(picture, origin="lower", interpolation="nearest")
    for k, one in enumerate(marked):
        axes.plot(one.x, one.y, MARKS[k % len(MARKS)], color=CYCLE[k % len(CYCLE)], markerfacecolor="none",
                  markersize=9, markeredgewidth=1.3, linestyle="none",
                  label=f"{one.name.replace('_', ' ')} ({len(one.x)})")
    ny, nx = picture.shape[:2]
    axes.set(xlim=(-0.5, nx - 0.5), ylim=(-0.5, ny - 0.5), xlabel="x [pixel]", ylabel="y [pixel]", title=title)
    axes.grid(visible=False)
    if marked:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
    return figure


@styled
def plot_visits(visits: np.ndarray, corners: Sequence[np.ndarray]) -> Figure:
    """The night's visits on the sky, each with the outlines (k, 4, 2) of its detectors [deg], and all over time."""
    figure = Figure(figsize=(10.4, 4.3), dpi=100)
    left, right = figure.add_axes((0.08, 0.13, 0.40, 0.76)), figure.add_axes((0.57, 0.13, 0.41, 0.76))
    middle = np.mean(np.concatenate(corners), axis=(0, 1))
    stretch = np.cos(np.radians(middle[1]))
    night = visits[~visits["past"]]
    for row, corner in zip(night, corners, strict=True):
        ring = np.concatenate([corner, corner[:, :1]], axis=1) - middle
        left.plot(ring[..., 0].T * stretch * 60, ring[..., 1].T * 60, color=BANDS[row["band"].decode()], linewidth=1,
                  alpha=0.8)
    left.set(xlabel="East of the field [arcmin]", ylabel="North [arcmin]", aspect="equal",
             title=f"Detectors of {len(night)} visits about {middle[0]:.2f}, {middle[1]:+.2f}")
    left.invert_xaxis()
    for k, band in enumerate("ugrizy"):
        of = visits[visits["band"] == band.encode()]
        right.plot(of["mjd"][of["past"]], np.full(int(of["past"].sum()), k), "|", color=BANDS[band], markersize=12)
        right.plot(of["mjd"][~of["past"]], np.full(int((~of["past"]).sum()), k), "o", color=BANDS[band])
    right.set_yticks(range(6), list("ugrizy"))
    right.set(xlabel="TAI MJD", ylim=(-0.6, 5.6), title="Visits of templates (bars) and of the night (dots)")
    right.ticklabel_format(axis="x", useOffset=False)
    return figure


PSF_PLACE: Final = np.dtype([("x_deg", "f8"), ("y_deg", "f8"), ("fwhm", "f8"), ("g1", "f8"), ("g2", "f8")])
# from the axis along the pixel axes [deg], FWHMeff [arcsec], shear


@styled
def plot_psf(places: np.ndarray, title: str) -> Figure:
    """PSF_PLACE rows over the focal plane: FWHMeff as colour, ellipticity as lines along the longer axis."""
    figure = Figure(figsize=(8.4, 7.2), dpi=100)
    axes = figure.add_axes((0.1, 0.08, 0.74, 0.84))
    x, y = places["x_deg"], places["y_deg"]
    span = max(float(np.ptp(x)), float(np.ptp(y)))
    each = span / max(np.sqrt(len(places)) - 1.0, 1.0)
    points = axes.scatter(x, y, c=places["fwhm"], s=(0.96 * 72 * 6.2 * each / (1.1 * span + each)) ** 2, marker="s",
                          cmap="viridis")
    ellipticity, angle = np.hypot(places["g1"], places["g2"]), 0.5 * np.arctan2(places["g2"], places["g1"])
    half = 0.45 * each * ellipticity / max(float(ellipticity.max()), 1e-9)
    dx, dy = half * np.cos(angle), half * np.sin(angle)
    axes.plot(np.stack([x - dx, x + dx]), np.stack([y - dy, y + dy]), color="white", linewidth=1.6)
    axes.set(xlabel="x from the axis [deg]", ylabel="y [deg]", aspect="equal", title=title)
    axes.grid(visible=False)
    figure.colorbar(points, cax=figure.add_axes((0.87, 0.08, 0.025, 0.84)), label="FWHMeff [arcsec]")
    axes.annotate(f"longest line: ellipticity {ellipticity.max():.3f}", (1.0, 1.01), xycoords="axes fraction",
                  ha="right", va="bottom", fontsize=8, color=MUTED)
    return figure


@styled
def plot_light_curves(curves: Sequence[Curves]) -> Figure:
    """One panel per class, six bands."""
    columns = min(4, max(2, len(curves)))
    rows = max(1, -(-len(curves) // columns))
    figure = Figure(figsize=(3.25 * columns, 0.5 + 2.75 * rows), dpi=100)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for one, panel in zip(curves, axes, strict=False):
        _curve(panel, one)
    for panel in axes[len(curves):]:
        panel.set_axis_off()
    if curves:
        axes[0].legend(loc="best", ncols=3, handlelength=1.0, columnspacing=0.8)
    else:
        nothing(axes[0], "the scenario asks for no declared class")
    figure.subplots_adjust(left=0.2 / columns, right=1 - 0.06 / columns, top=1 - 0.32 / (0.5 + 2.75 * rows),
                           bottom=0.5 / (0.5 + 2.75 * rows), wspace=0.24, hspace=0.52)
    return figure


def _curve(axes: Axes, one: Curves) -> None:
    bright = np.nanmin(one.magnitude) if np.isfinite(one.magnitude).any() else 20.0
    faint = min(np.nanmax(one.magnitude, initial=bright), bright + 7.0)
    for k, band in enumerate("ugrizy"):
        axes.plot(one.days, one.magnitude[k], color=BANDS[band], linewidth=1.3, label=band)
    low, high = one.days[0], one.days[-1]
    for day in one.visits[(one.visits >= low) & (one.visits <= high)]:
        axes.axvline(day, color=MUTED, linewidth=0.5, alpha=0.5, zorder=0)
    pad = 0.08 * max(faint - bright, 0.3)
    axes.set(xlim=(low, high), ylim=(faint + pad, bright - pad), title=one.name.replace("_", " "))
    axes.annotate(one.note, (1.0, 1.02), xycoords="axes fraction", ha="right", va="bottom", fontsize=7.5, color=MUTED)
    axes.title.set_fontsize(9)
    axes.set_xlabel("days from the night", fontsize=8, labelpad=1)
    axes.tick_params(labelsize=8)


@styled
def plot_densities(rows: Sequence[Density]) -> Figure:
    """Ours against the published, by limiting magnitude, a panel per class."""
    columns = 4
    count = max(1, -(-len(rows) // columns))
    figure = Figure(figsize=(13.0, 0.5 + 2.7 * count), dpi=100)
    axes = figure.subplots(count, columns, squeeze=False).ravel()
    for k, (row, panel) in enumerate(zip(rows, axes, strict=False)):
        panel.plot(row.limits, row.ours, "o-", color=BLUE, label="this sky")
        known = np.isfinite(row.published)
        panel.plot(np.array(row.limits)[known], np.array(row.published)[known], "x--", color=WARM,
                   label="published rates, K = 1.0 z", markersize=7)
        if row.crude:
            panel.plot(row.limits, row.crude, ":", color=INK, label="this sky, K = 1.0 z")
        panel.set(yscale="log", ylim=_decades(row), title=f"{row.name.replace('_', ' ')}", xlabel="brighter than r")
        panel.set_ylabel(row.what, fontsize=8)
        panel.title.set_fontsize(9)
        panel.tick_params(labelsize=8)
        if k == 0:
            panel.legend(loc="lower right", fontsize=7)
    for panel in axes[len(rows):]:
        panel.set_axis_off()
    figure.subplots_adjust(left=0.065, right=0.985, top=1 - 0.32 / (0.5 + 2.7 * count),
                           bottom=0.55 / (0.5 + 2.7 * count), wspace=0.38, hspace=0.55)
    return figure


def _decades(row: Density) -> tuple[float, float]:
    """Limits of a logarithmic axis that hold all values and at least a decade."""
    values = np.array([v for v in (*row.ours, *row.published, *row.crude) if np.isfinite(v) and v > 0] or [1.0])
    low, high = float(values.min()), float(values.max())
    more = max(1.6, float(np.sqrt(10.0 * low / high)))
    return low / more, high * more


def density_table(rows: Sequence[Density]) -> str:
    """The densities as a Markdown table: ours / published."""
    limits = sorted({limit for row in rows for limit in row.limits})
    lines = ["| class | what | " + " | ".join(f"r < {limit:g}" for limit in limits) + " | source of the published |",
             "|---|---|" + "---|" * (len(limits) + 1)]
    for row in rows:
        cells = dict(zip(row.limits, zip(row.ours, row.published, strict=True), strict=True))
        texts = [f"{cells[m][0]:.3g}" + (f" / {cells[m][1]:.3g}" if np.isfinite(cells[m][1]) else "")
                 if m in cells else "" for m in limits]
        lines.append(f"| {row.name.replace('_', ' ')} | {row.what} | " + " | ".join(texts) + f" | {row.source} |")
    return "\n".join(lines) + "\n"


__all__ = ["PSF_PLACE", "VISIT", "Curves", "Density", "Marked", "density_table", "plot_densities", "plot_field",
           "plot_light_curves", "plot_psf", "plot_visits"]
