"""A survey of our scheduler on the command line: make one, and lay it beside the published baseline."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.errors import InputError
from simulators import opsim
from simulators.config import SchedulerConfig
from simulators.survey_check import BANDS, checks, lines, statistics

Progress = Callable[[str, int, int], None]      # what, done, of how many
BASELINE_NIGHTS = 365
PANELS = ("visits per night", "slew gap [s]", "slew distance [deg]", "pair gap [min]", "airmass", "FWHM500 [arcsec]")


def make(nights: int, seed: int, out: Path, progress: Progress) -> str:
    """Simulate nights from the survey's first into a database."""
    if out.exists():
        raise InputError(f"{out} exists; choose another name")
    visits = _surveyed(nights, seed, progress)
    opsim.write(out, visits)
    return f"{len(visits)} visits in {len(np.unique(visits['night']))} of {nights} nights: {out}"


def validate(path: Path | None, seed: int, *, as_published: bool, plot: Path | None,
             progress: Progress) -> tuple[str, bool]:
    """The figures of a database, or of a year of our scheduler, as a table; and whether all are within their bars."""
    if path is None:
        visits = _surveyed(BASELINE_NIGHTS, seed, progress)
    else:
        try:
            visits = opsim.read(path)
        except ValueError as error:
            raise InputError(str(error)) from None
    found = checks(visits, as_published=as_published and path is not None)
    if plot is not None:
        draw(visits, plot)
    return "\n".join(lines(found)), all(one.passed for one in found)


def _surveyed(nights: int, seed: int, progress: Progress) -> np.ndarray:
    """The visits of our scheduler's first nights."""
    from simulators.scheduler import Survey

    parts = []
    for k, rows in enumerate(Survey(SchedulerConfig(), seed).nights(nights), 1):
        parts.append(rows)
        progress("nights", k, nights)
    return np.concatenate(parts)


def draw(visits: np.ndarray, path: Path) -> None:
    """Distributions with the published percentiles, filters through the year, and where the visits are on the sky."""
    from matplotlib.figure import Figure

    from simulators.survey_check import PUBLISHED

    figure = Figure(figsize=(15, 11), layout="constrained")
    axes = figure.subplots(3, 3).ravel()
    values = statistics(visits)
    for axis, name in zip(axes, PANELS, strict=False):
        data = values[name]
        low, high = np.percentile(data, [0.5, 98.5]) if len(data) else (0.0, 1.0)
        axis.hist(np.clip(data, low, high), bins=60, color="0.7")
        for k, mark in enumerate(PUBLISHED[name]):
            label = "v2.0: 5, 25, 50, 75, 95 %" if k == 2 else None
            axis.axvline(mark, color="C3", lw=2 if k == 2 else 0.8, label=label)
        for k, mark in enumerate(np.percentile(data, [5, 25, 50, 75, 95]) if len(data) else ()):
            axis.axvline(mark, color="C0", lw=2 if k == 2 else 0.8, ls="--", label="ours" if k == 2 else None)
        axis.set(xlabel=name, yticks=[])
    axes[0].legend(fontsize=8, loc="upper left")
    _filters(axes[6], visits)
    _sky(figure, axes[7], visits)
    _night(axes[8], visits)
    figure.savefig(path, dpi=100)


COLOURS = dict(zip(BANDS, ("#5b3fd1", "#2b8cbe", "#31a354", "#e6a000", "#d94801", "#7f2704"), strict=True))


def _filters(axis: object, visits: np.ndarray) -> None:
    """Share of each band by night."""
    night = visits["night"]
    bottom = np.zeros(int(night.max()) + 1)
    for band in BANDS:
        count = np.bincount(night[visits["band"] == band], minlength=len(bottom)).astype(float)
        axis.bar(np.arange(len(bottom)), count, 1.0, bottom, color=COLOURS[band], label=band)  # type: ignore[attr-defined]  # an Axes
        bottom += count
    axis.set(xlabel="night", ylabel="visits")  # type: ignore[attr-defined]  # an Axes
    axis.legend(ncol=6, fontsize=7, loc="upper center")  # type: ignore[attr-defined]  # an Axes


def _sky(figure: object, axis: object, visits: np.ndarray) -> None:
    """Visits per bin of equal area."""
    x, y = (visits["fieldRA"] + 180.0) % 360.0 - 180.0, np.sin(np.radians(visits["fieldDec"]))
    made = axis.hist2d(x, y, bins=(90, 45), range=((-180, 180), (-1, 0.6)), cmin=1, vmax=_most(x, y))  # type: ignore[attr-defined]  # an Axes
    figure.colorbar(made[3], ax=axis, label="visits")  # type: ignore[attr-defined]  # a Figure
    axis.set(xlabel="RA [deg]", ylabel="sin Dec")  # type: ignore[attr-defined]  # an Axes


def _most(x: np.ndarray, y: np.ndarray) -> float:
    """End of the colour scale: deep-drilling fields lie above it."""
    count = np.histogram2d(x, y, bins=(90, 45), range=((-180, 180), (-1, 0.6)))[0]
    return float(np.percentile(count[count > 0], 98)) if np.any(count) else 1.0


def _night(axis: object, visits: np.ndarray) -> None:
    """Altitude against time in the longest night."""
    number, count = np.unique(visits["night"], return_counts=True)
    rows = visits[visits["night"] == number[np.argmax(count)]]
    hours = (rows["observationStartMJD"] - rows["observationStartMJD"][0]) * 24.0
    known = np.isfinite(rows["altitude"])
    altitude = np.where(known, rows["altitude"],
                        opsim.site_altitude(rows["fieldRA"], rows["fieldDec"], rows["observationStartMJD"]))
    axis.scatter(hours, altitude, s=4, c=[COLOURS[str(b)] for b in rows["band"]])  # type: ignore[attr-defined]  # an Axes
    axis.set(xlabel=f"hours in night {rows['night'][0]}", ylabel="altitude [deg]")  # type: ignore[attr-defined]  # an Axes
