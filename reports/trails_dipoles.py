"""Trails against truth and against the Fisher bound; dipoles that are stars that moved, and point sources called so."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import ndtr

from reports.drawing import BAD, BLUE, INK, MUTED, WARM, nothing, panels, styled
from reports.intervals import Estimate, fraction, median
from reports.match import Matches

MIN_LENGTH_SIGMA: Final = 5.0      # trails longer than this many PSF sigma are judged
MIN_TRAIL_SNR: Final = 15.0
MIN_LOBE_SNR: Final = 7.0          # both lobes of a moved star, in the noise-free difference
MEDIAN_OF_NORMAL: Final = 0.6745   # median of |N(0, 1)|
MIN_POINT_SNR: Final = 5.0

TRAIL: Final = np.dtype([("snr", "f8"), ("length", "f8"), ("sigma", "f8"), ("length_error", "f8"),
                         ("angle_error", "f8"), ("length_bound", "f8"), ("angle_bound", "f8")])   # [pixel], [deg]


@dataclass(frozen=True, slots=True)
class Trails:
    """Detected trails over 5 PSF sigma and S/N 15."""

    rows: np.ndarray           # TRAIL; errors NaN where no trail was fitted
    length: Estimate           # median |error| / true length
    angle: Estimate            # median |error| [deg]
    length_bound: Estimate     # median |error| over the median that the Fisher bound allows
    angle_bound: Estimate
    fitted: Estimate           # fraction of those detected that have a fit


@dataclass(frozen=True, slots=True)
class Dipoles:
    """isDipole for stars that moved, and for isolated point sources."""

    moved: Estimate            # fraction of stars with both lobes over S/N 7 that are detected as a dipole
    points: Estimate           # fraction of detected isolated point sources called a dipole
    lobe_snr: np.ndarray       # (n,) of all moved stars, the weaker lobe
    called: np.ndarray         # (n,) bool


def trails(matches: Matches) -> Trails:
    """Fitted lengths and angles of true trails against truth; a detection without a fit counts as an infinite error."""
    truth = matches.truth
    sigma = psf_sigma(matches)
    use = (matches.judged & (matches.found >= 0) & (np.abs(truth["snr"]) > MIN_TRAIL_SNR)
           & (np.nan_to_num(truth["trail_length"]) > MIN_LENGTH_SIGMA * sigma))
    t, s = truth[use], matches.sources[matches.found[use]]
    rows = np.zeros(len(t), TRAIL)
    rows["snr"], rows["length"], rows["sigma"] = np.abs(t["snr"]), t["trail_length"], sigma[use]
    rows["length_error"] = s["trailLength"] - t["trail_length"]
    rows["angle_error"] = (s["trailAngle"] - t["trail_angle"] + 90.0) % 180.0 - 90.0
    bounds = [fisher(float(r["snr"]), float(r["length"]), float(r["sigma"])) for r in rows]
    rows["length_bound"], rows["angle_bound"] = np.reshape(bounds, (-1, 2)).T
    fitted = np.isfinite(rows["length_error"]) & np.isfinite(rows["angle_error"])
    length = np.where(fitted, np.abs(rows["length_error"]), np.inf)
    angle = np.where(fitted, np.abs(rows["angle_error"]), np.inf)
    return Trails(rows, median(length / rows["length"]), median(angle),
                  median(length / (MEDIAN_OF_NORMAL * rows["length_bound"])),
                  median(angle / (MEDIAN_OF_NORMAL * rows["angle_bound"])), fraction(int(fitted.sum()), len(rows)))


def psf_sigma(matches: Matches) -> np.ndarray:
    """(n_truth,) PSF sigma [pixel] of each truth's detector-visit: the true one, else the measured, else NaN."""
    log = matches.exposures
    sigma = np.where(np.isfinite(log["true_psf_sigma_px"]), log["true_psf_sigma_px"], log["psf_sigma_px"])
    keys = {(int(r["run"]), int(r["visit"]), int(r["detector"])): float(v) for r, v in zip(log, sigma, strict=True)}
    return np.array([keys.get((int(r["run"]), int(r["visit"]), int(r["detector"])), np.nan) for r in matches.truth])


def fisher(snr: float, length: float, sigma: float) -> tuple[float, float]:
    """Smallest errors of a trail's length [pixel] and angle [deg] at an S/N, in white noise.

    The model is a line of uniform brightness in a Gaussian PSF, its free parameters flux, centre, length and angle.
    S/N is that of its own profile, so that noise per pixel = flux sqrt(sum T^2) / snr. By symmetry flux and length
    couple with each other alone, the angle with nothing.
    """
    half = length / 2 + 5 * sigma
    u, v = np.arange(-half, half + 0.25, 0.25 * sigma), np.arange(-5 * sigma, 5.01 * sigma, 0.25 * sigma)
    across = np.exp(-v**2 / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
    a, b = (u + length / 2) / sigma, (u - length / 2) / sigma
    pa, pb = (np.exp(-c**2 / 2) / np.sqrt(2 * np.pi) for c in (a, b))
    along = (ndtr(a) - ndtr(b)) / length
    by_length = (pa + pb) / (2 * sigma * length) - along / length
    slope = (pa - pb) / (sigma * length)                                   # d along / du
    norm = float(np.sum(along**2) * np.sum(across**2))                     # sum T^2 on this grid
    ff = 1.0
    fl = float(np.sum(along * by_length) / np.sum(along**2))
    ll = float(np.sum(by_length**2) / np.sum(along**2))
    turned = np.outer(v * across, slope) + np.outer(across * v / sigma**2, u * along)   # (v d/du - u d/dv) T
    return (float(np.sqrt(1 / (ll - fl**2 / ff)) / snr),
            float(np.degrees(np.sqrt(norm / np.sum(turned**2)) / snr)))


def dipoles(matches: Matches) -> Dipoles:
    """Judge every moved star with two lobes, found or not, and every detected isolated point source."""
    truth, found = matches.truth, matches.found
    called = np.zeros(len(truth), bool)
    if len(matches.sources):
        called = (found >= 0) & matches.sources["isDipole"][np.maximum(found, 0)]
    clear = (truth["input_mask"] == 0)
    moved = (truth["kind"] == b"moved_star") & clear
    lobes = lobe_snr(truth, psf_sigma(matches))
    two = moved & (lobes > MIN_LOBE_SNR)
    points = (matches.judged & truth["isolated"] & (found >= 0) & (np.nan_to_num(truth["trail_length"]) < 1.0)
              & (np.abs(truth["snr"]) >= MIN_POINT_SNR))
    return Dipoles(fraction(int(np.sum(called & two)), int(two.sum())),
                   fraction(int(np.sum(called & points)), int(points.sum())), lobes[moved], called[moved])


def lobe_snr(truth: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Matched-filter S/N of the weaker lobe of a star that moved, without noise: the other lobe takes its part.

    It is the S/N of TRUTH where that is known, else that of a Gaussian PSF.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        weaker = np.where(truth["template_flux"] > 0, np.minimum(truth["science_flux"], truth["template_flux"]),
                          truth["science_flux"])
        left = -np.expm1(-truth["separation_px"].astype(float)**2 / (4 * sigma**2))
        gaussian = weaker * left / truth["flux_err_optimum"]
    return np.asarray(np.where(np.isfinite(truth["snr"]), np.abs(truth["snr"]), gaussian))


# --- drawing ---------------------------------------------------------------------------------------------------------

@styled
def plot(trailed: Trails, dipole: Dipoles) -> Figure:
    """Errors of trails over what the Fisher bound allows, and dipoles against the S/N of their weaker lobe."""
    figure, (left, right) = panels(2)
    _plot_trails(left, trailed)
    _plot_dipoles(right, dipole)
    return figure


def _plot_trails(axes: Axes, table: Trails) -> None:
    rows = table.rows[np.isfinite(table.rows["length_error"]) & np.isfinite(table.rows["angle_error"])]
    if not len(rows):
        return nothing(axes, "no true trail over 5 PSF sigma and S/N 15 was detected")
    for error, bound, label, colour in (("length_error", "length_bound", "length", BLUE),
                                        ("angle_error", "angle_bound", "angle", WARM)):
        over = np.abs(rows[error]) / rows[bound]
        axes.scatter(rows["length"] / rows["sigma"], np.clip(over, 1e-2, 1e2), s=11, color=colour, alpha=0.7,
                     linewidths=0, label=f"{label}: median {np.nanmedian(over):.2f}")
    axes.axhline(MEDIAN_OF_NORMAL, color=INK, linewidth=1, linestyle="--")
    axes.annotate("median at the bound", (0.99, MEDIAN_OF_NORMAL), xycoords=("axes fraction", "data"), xytext=(0, -9),
                  textcoords="offset points", fontsize=8, ha="right", color=INK)
    axes.axhline(1.3 * MEDIAN_OF_NORMAL, color=BAD, linewidth=1)
    axes.set(yscale="log", xlabel="trail length / PSF sigma", ylabel="|error| / Fisher bound",
             title=f"Trails over S/N 15 ({len(rows)} of {len(table.rows)} fitted)")
    axes.set_yticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
    axes.minorticks_off()
    axes.legend(loc="lower left")
    return None


def _plot_dipoles(axes: Axes, table: Dipoles) -> None:
    known = np.isfinite(table.lobe_snr)
    if not known.any():
        return nothing(axes, "no moved stars")
    snr, called = np.clip(table.lobe_snr[known], 1.0, 300), table.called[known]
    edges = np.geomspace(0.9, 320, 14)
    total, yes = np.histogram(snr, edges)[0], np.histogram(snr[called], edges)[0]
    middle, width = np.sqrt(edges[:-1] * edges[1:]), np.diff(edges) * 0.9
    axes.bar(middle, total, width, color="#d7dee6", label="stars that moved")
    axes.bar(middle, yes, width, color=BLUE, label="called a dipole")
    axes.axvline(MIN_LOBE_SNR, color=MUTED, linewidth=1, linestyle=":")
    axes.set(xscale="log", xlabel="S/N of the weaker lobe without noise", ylabel="number",
             title=f"Dipoles: {100 * table.moved.value:.0f} % of stars with two lobes" if table.moved.n else "Dipoles")
    axes.set_xticks([1, 3, 7, 20, 50, 200], ["1", "3", "7", "20", "50", "200"])
    axes.minorticks_off()
    axes.legend(loc="upper left")
    return None
