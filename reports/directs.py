"""Sources of the direct image (6.10): the true static stars that calibration found, their fluxes and positions.

The real system's direct-image catalogue (PromptSource) is detected in the morning; the night has the stars that
calibration measured, which is what WCS, zeropoint and PSF rest on.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.drawing import BLUE, MUTED, PALE, WARM, nothing, panels, styled
from reports.intervals import UNKNOWN, Estimate, fraction, median, spread, wilson
from reports.store import groups

SNR_EDGES: Final = np.array([5.0, 8.0, 12.0, 16.0, 20.0, 25.0, 30.0, 40.0, 60.0, 100.0, 200.0, 500.0, 1e4])
MIN_SCIENCE_SNR: Final = 10.0
BRIGHT_SNR: Final = 100.0          # repeatability and offsets are judged above it
CLIP: Final = 5.0                  # pulls beyond it are outliers

DIRECT: Final = np.dtype([
    ("low", "f8"), ("high", "f8"), ("n", "i8"), ("found", "i8"),
    ("fraction", "f8"), ("fraction_low", "f8"), ("fraction_high", "f8"),
    ("bias_mmag", "f8"), ("bias_low", "f8"), ("bias_high", "f8"), ("scatter_mmag", "f8"),
    ("radial_mas", "f8"), ("radial_low", "f8"), ("radial_high", "f8")])


@dataclass(frozen=True, slots=True)
class Directs:
    """Judged stars of all detector-visits; errors are those of isolated ones."""

    by_snr: np.ndarray             # DIRECT
    bright: Estimate               # fraction of stars over S/N 100 that were found
    half_snr: float                # where half of them are found; NaN where the bins do not cross it
    flux_bias: Estimate            # median error over S/N 100 [mmag]
    flux_pull: Estimate            # spread of (flux - truth) / claimed error, S/N 20 to 100
    radial: Estimate               # median position error over S/N 100 [mas]
    east: Estimate                 # median error in RA cos Dec over S/N 100 [mas]
    north: Estimate
    position_pull: Estimate        # spread of (position - truth) / claimed error, S/N 20 to 100, both axes
    repeatability: Estimate        # rms of a bright star's magnitudes about their mean, median over stars [mmag]
    n_visits: int
    science_bias: Estimate         # median of scienceFlux / true flux - 1, alerts of hostless points of S/N >= 10
    science_pull: Estimate         # spread of (scienceFlux - truth) / claimed error of the same


def directs(stars: np.ndarray, sources: np.ndarray) -> Directs:
    """Judge OUTCOME_STAR rows, and the fluxes that OUTCOME rows have on the science image."""
    judged = stars[stars["judged"]]
    bright = judged[judged["snr"] >= BRIGHT_SNR]
    clean = judged[judged["found"] & judged["isolated"]]
    sharp = clean[clean["snr"] >= BRIGHT_SNR]
    middle = clean[(clean["snr"] >= 20.0) & (clean["snr"] < BRIGHT_SNR)]
    with np.errstate(invalid="ignore", divide="ignore"):
        flux = (middle["psfFlux"] - middle["flux"]) / middle["psfFluxErr"]
        position = np.concatenate([middle[name] / middle["position_err_arcsec"] for name in ("dx_arcsec", "dy_arcsec")])
    table = by_snr(judged)
    return Directs(
        table, fraction(int(bright["found"].sum()), len(bright)), _half(table), median(_millimag(sharp)),
        clipped(flux), median(_radial(sharp)), median(1e3 * sharp["dx_arcsec"]), median(1e3 * sharp["dy_arcsec"]),
        clipped(position), repeatability(sharp), sum(1 for _ in groups(stars["visit"], stars["detector"])),
        *science_fluxes(sources))


def science_fluxes(sources: np.ndarray) -> tuple[Estimate, Estimate]:
    """Bias and spread of alerts' scienceFlux: of isolated points without a host, whose light would be in it."""
    use = (sources["alert"] & sources["judged"] & sources["isolated"] & sources["clean"]
           & ~np.isfinite(sources["host_sep_arcsec"]) & (np.nan_to_num(sources["trail_length"]) < 1.0)
           & (np.abs(sources["snr"]) >= MIN_SCIENCE_SNR) & (sources["science_flux"] > 0))
    rows = sources[use]
    with np.errstate(invalid="ignore", divide="ignore"):
        error = (rows["scienceFlux"] / rows["science_flux"] - 1.0)
        pull = (rows["scienceFlux"] - rows["science_flux"]) / rows["scienceFluxErr"]
    return median(error[np.isfinite(error)]), clipped(pull)


def by_snr(judged: np.ndarray) -> np.ndarray:
    """DIRECT rows of judged stars: found among all of them, errors of isolated ones."""
    rows = np.zeros(len(SNR_EDGES) - 1, DIRECT)
    rows["low"], rows["high"] = SNR_EDGES[:-1], SNR_EDGES[1:]
    for row in rows:
        here = judged[(judged["snr"] >= row["low"]) & (judged["snr"] < row["high"])]
        row["n"], row["found"] = len(here), here["found"].sum()
        share = fraction(int(row["found"]), len(here))
        row["fraction"], row["fraction_low"], row["fraction_high"] = share.value, share.low, share.high
        clean = here[here["found"] & here["isolated"]]
        error, radial = median(_millimag(clean)), median(_radial(clean))
        row["bias_mmag"], row["bias_low"], row["bias_high"] = error.value, error.low, error.high
        row["scatter_mmag"] = robust(_millimag(clean))
        row["radial_mas"], row["radial_low"], row["radial_high"] = radial.value, radial.low, radial.high
    return rows


def robust(values: np.ndarray) -> float:
    """Standard deviation of a normal distribution with the same median absolute deviation; NaN below 3 values."""
    if len(values) < 3:
        return float("nan")
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def clipped(pulls: np.ndarray) -> Estimate:
    """Spread of pulls without those beyond 5."""
    known = pulls[np.isfinite(pulls)]
    kept = known[np.abs(known) <= CLIP]
    return spread(kept) if len(kept) > 2 else UNKNOWN


def repeatability(stars: np.ndarray) -> Estimate:
    """Rms of one star's magnitude errors about their mean, in one band: the median over stars seen twice or more."""
    found = []
    for _, rows in groups(stars["starId"], stars["band"]):
        if len(rows) >= 2:
            found.append(float(np.std(_millimag(stars[rows]), ddof=1)))
    return median(np.array(found, float))


def _millimag(stars: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(-2500.0 * np.log10(stars["psfFlux"] / stars["flux"]), float)


def _radial(stars: np.ndarray) -> np.ndarray:
    return np.asarray(1e3 * np.hypot(stars["dx_arcsec"], stars["dy_arcsec"]), float)


def _half(table: np.ndarray) -> float:
    """S/N where the found fraction crosses one half, between the middles of bins."""
    rows = table[table["n"] > 0]
    middle = np.log(np.sqrt(rows["low"] * rows["high"]))
    for i in range(len(rows) - 1):
        a, b = rows["fraction"][i], rows["fraction"][i + 1]
        if a < 0.5 <= b:
            return float(np.exp(middle[i] + (0.5 - a) / (b - a) * (middle[i + 1] - middle[i])))
    return float("nan")


# --- drawing ---------------------------------------------------------------------------------------------------------

@styled
def plot(table: Directs) -> Figure:
    """Found fraction, flux errors and position errors of stars against S/N."""
    figure, (left, middle, right) = panels(3, width=13.0, height=3.2)
    rows = table.by_snr[table.by_snr["n"] > 0]
    if not len(rows):
        nothing(left, "no true stars were recorded")
        middle.set_axis_off()
        right.set_axis_off()
        return figure
    x = np.minimum(np.sqrt(rows["low"] * rows["high"]), 1000.0)
    low, high = wilson(rows["found"], rows["n"])
    left.errorbar(x, rows["fraction"], [np.maximum(rows["fraction"] - low, 0), np.maximum(high - rows["fraction"], 0)],
                  fmt="o-", color=BLUE, elinewidth=1, linewidth=1.2)
    left.axhline(0.5, color=MUTED, linewidth=0.8, linestyle=":")
    left.set(ylabel="fraction found", ylim=(-0.02, 1.04), title="Stars that calibration found")
    seen = rows["found"] > 2
    _plot_flux(middle, x[seen], rows[seen])
    _plot_position(right, x[seen], rows[seen])
    for axes in (left, middle, right):
        axes.set(xscale="log", xlabel="true S/N on the science image", xlim=(5, 1500))
        axes.set_xticks([5, 20, 100, 500], ["5", "20", "100", "500"])
        axes.minorticks_off()
    return figure


def _plot_flux(axes: Axes, x: np.ndarray, rows: np.ndarray) -> None:
    if not len(rows):
        return nothing(axes, "too few stars were found")
    axes.fill_between(x, rows["bias_mmag"] - rows["scatter_mmag"], rows["bias_mmag"] + rows["scatter_mmag"], color=PALE,
                      alpha=0.5, linewidth=0, label="scatter, 1σ")
    _with_errors(axes, x, rows, "bias_mmag", "bias_low", "bias_high", BLUE, "median")
    axes.axhline(0.0, color=MUTED, linewidth=0.8)
    axes.set(ylabel="found − true [mmag]", title="Magnitudes")
    axes.legend(loc="best")
    return None


def _plot_position(axes: Axes, x: np.ndarray, rows: np.ndarray) -> None:
    if not len(rows):
        return nothing(axes, "too few stars were found")
    _with_errors(axes, x, rows, "radial_mas", "radial_low", "radial_high", WARM, "median")
    axes.set(yscale="log", ylabel="radial error [mas]", title="Positions")
    axes.set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    axes.minorticks_off()
    return None


def _with_errors(axes: Axes, x: np.ndarray, rows: np.ndarray, value: str, low: str, high: str, colour: str,
                 label: str) -> None:
    """Points with their intervals where these are known."""
    y = rows[value]
    errors = [np.nan_to_num(np.maximum(y - rows[low], 0.0)), np.nan_to_num(np.maximum(rows[high] - y, 0.0))]
    axes.errorbar(x, y, errors, fmt="o", color=colour, elinewidth=1.2, label=label)
