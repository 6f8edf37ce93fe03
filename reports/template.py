"""Templates (6.1): coverage, depth, PSF against the science's, variance and inputs, per band."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from reports.drawing import BANDS, INK, MUTED, nothing, panels, styled
from reports.intervals import Estimate, mean


@dataclass(frozen=True, slots=True)
class BandTemplate:
    """The template of a band as its detector-visits saw it, warped: means over them."""

    band: str
    n: int                     # detector-visits that had a template
    coverage: Estimate         # fraction of the science pixels with template data (templateCoveragePercent)
    depth: Estimate            # AB magnitude of S/N 5 on the template (templateLimitingMagnitude)
    deeper: Estimate           # the same less the science image's [mag]
    fwhm: Estimate             # of its PSF [arcsec] (templatePsfSize)
    fwhm_ratio: Estimate       # over the science PSF's (sciencePsfSize)
    high_variance: Estimate    # fraction of the covered pixels of high variance
    inputs: Estimate           # visits behind the typical covered pixel


@dataclass(frozen=True, slots=True)
class Templates:
    """The templates of a run."""

    bands: list[BandTemplate]
    rows: np.ndarray           # EXPOSURE_LOG of the detector-visits that had a template
    missing: int               # detector-visits without one


def templates(log: np.ndarray) -> Templates:
    """Judge the templates that EXPOSURE_LOG rows tell of; what was not recorded is unknown."""
    had = log[np.isfinite(log["template_coverage"])]
    without = (log["status"] == b"no_work") & (np.char.find(log["reason"], b"template") >= 0)
    bands = [_band(band.decode(), had[had["band"] == band]) for band in _in_order(np.unique(had["band"]))]
    return Templates(bands, had, int(without.sum()))


def _in_order(bands: np.ndarray) -> list[bytes]:
    return sorted(bands.tolist(), key=lambda band: (b"ugrizy".find(band), band))


def _band(band: str, rows: np.ndarray) -> BandTemplate:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = rows["template_fwhm_arcsec"] / rows["fwhm_arcsec"]
    columns = (rows["template_coverage"], rows["template_mag_lim"], rows["template_mag_lim"] - rows["mag_lim"],
               rows["template_fwhm_arcsec"], ratio, rows["template_high_variance"], rows["template_n_inputs"])
    return BandTemplate(band, len(rows), *(known_mean(column) for column in columns))


def known_mean(values: np.ndarray) -> Estimate:
    """The mean of what is known, with its interval where there are two of it at least."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if len(known) == 1:
        return Estimate(float(known[0]), float("nan"), float("nan"), 1)
    return mean(known)


# --- drawing ---------------------------------------------------------------------------------------------------------

@styled
def plot(table: Templates) -> Figure:
    """Template against science, one point per detector-visit: sharpness and depth."""
    figure, (left, right) = panels(2)
    rows = table.rows
    for axes, across, up, title, x_label, y_label in (
            (left, "fwhm_arcsec", "template_fwhm_arcsec", "PSF: below the line the template is sharper",
             "science FWHM [″]", "template FWHM [″]"),
            (right, "mag_lim", "template_mag_lim", "Depth: above the line the template is deeper",
             "science 5σ depth [mag]", "template 5σ depth [mag]")):
        known = rows[np.isfinite(rows[across]) & np.isfinite(rows[up])]
        if not len(known):
            nothing(axes, "not recorded in this run")
            continue
        for band in _in_order(np.unique(known["band"])):
            of = known[known["band"] == band]
            axes.plot(of[across], of[up], "o", color=BANDS.get(band.decode(), MUTED), label=band.decode(), alpha=0.8)
        both = np.concatenate([known[across], known[up]])
        span = np.array([both.min(), both.max()]) + np.array([-1, 1]) * 0.06 * max(float(np.ptp(both)), 0.1)
        axes.plot(span, span, color=INK, linewidth=1, linestyle="--")
        axes.set(xlim=span, ylim=span, xlabel=x_label, ylabel=y_label, title=title)
        axes.legend(loc="upper left" if up == "template_fwhm_arcsec" else "lower right")
    return figure
