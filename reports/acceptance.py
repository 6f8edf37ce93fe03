"""The acceptance figures: each a value with its 95 % interval, the bar it is held against, and whether it passes.

S/N is flux over the optimum error with the noise of both images. The denominator is every true source that no mask of
the input covers (saturated and known-defect pixels); sources lost to the pipeline's own masks count as missed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from reports.association import association
from reports.astrometry import astrometry
from reports.completeness import completeness, flat, in_range
from reports.intervals import UNKNOWN, Estimate, fraction, worst
from reports.match import Matches, match, pool
from reports.photometry import pulls
from reports.purity import purity
from reports.solarsystem import objects, solar_system
from reports.steps import step_costs
from reports.store import Store, StoreError
from reports.trails_dipoles import dipoles, trails

MIN_BIN: Final = 200               # true sources that every judged bin must hold
MIN_PULLS: Final = 1000
MIN_ASTEROIDS: Final = 100
MAX_HALF_SNR: Final = 5.2
RAW_BARS: Final = ((5.5, 6.5, 0.78), (8.0, 10.0, 0.97))
ALERT_BAR: Final = (5.5, 6.5, 0.70)
FLAT_BAR: Final = 0.90
MAX_FALSE: Final = 2.0             # per 10^6 px and visit
MAX_MEAN_PULL: Final = 0.1
PULL_STD: Final = (0.9, 1.15)
MAX_PULL_OUTLIERS: Final = 0.01    # pulls beyond 5 are left out of mean and std, if they are no more than this
MAX_POSITION_ARCSEC: Final = 0.03
POSITION_STD: Final = (0.9, 1.2)
MAX_WCS_ARCSEC: Final = 0.05
MAX_ZEROPOINT_MAG: Final = 0.01
MAX_PSF_SIZE: Final = 0.01
MAX_LAG1: Final = 0.02
MAX_DEPTH_MAG: Final = 0.05
MAX_TRAIL_LENGTH: Final = 0.15
MAX_TRAIL_ANGLE_DEG: Final = 5.0
MAX_OVER_FISHER: Final = 1.3
MIN_DIPOLE: Final = 0.80
MAX_POINT_DIPOLE: Final = 0.01
MIN_SS_ASSOCIATED: Final = 0.99
REASON_SNR: Final = 10.0
MAX_OTHER: Final = 0.005
MIN_INJECTED: Final = 0.90         # of injections above S/N 8 into real images
SNR_RMS: Final = 0.05              # the matched-filter S/N on blank sky has an rms of 1 within this
MAX_COST_ERROR: Final = 0.15


@dataclass(frozen=True, slots=True)
class Figure:
    """One acceptance figure."""

    key: str                   # stable name for machines
    name: str
    value: float
    low: float                 # 95 % interval; NaN where there is none (an extreme of all cases)
    high: float
    bar: str                   # "" for a figure that is only quoted
    passes: bool               # the value is within the bar; False where it is unknown
    n: int
    n_min: int = 0             # cases that the figure needs
    unit: str = ""
    detail: str = ""

    @property
    def verdict(self) -> str:
        """pass, fail, too few (cases), unknown, or quoted."""
        if not math.isfinite(self.value) and self.n == 0:
            return "unknown"
        if not self.bar:
            return "quoted"
        if self.n < self.n_min:
            return "too few"
        return "pass" if self.passes else "fail"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the figures are made from: one or several runs."""

    matches: Matches
    objects: np.ndarray        # OBJECT
    steps: np.ndarray          # STEP of all runs, durations free of their runs' factors
    simulated: bool            # durations are predictions


def evidence(stores: Sequence[Store], fidelity: str = "pixels") -> Evidence:
    """Runs read and matched; `fidelity` keeps the detector-visits of one kind (others are modelled), "" keeps all."""
    matches = pool([match(store, run=i, fidelity=fidelity) for i, store in enumerate(stores)])
    factors = [cost_factor(store) for store in stores]
    scaled = []
    for store, factor in zip(stores, factors, strict=True):
        rows = store.optional("step").copy()
        rows["duration_s"] /= factor if math.isfinite(factor) else 1.0
        scaled.append(rows)
    return Evidence(matches, np.concatenate([objects(store, i) for i, store in enumerate(stores)]),
                    np.concatenate(scaled), all(math.isfinite(factor) for factor in factors))


def cost_factor(store: Store) -> float:
    """The factor from fitted CPU seconds to simulated durations; NaN for a run on the wall clock."""
    facts = store.facts()
    if facts.get("kind", "simulated") != "simulated":
        return float("nan")
    text = facts.get("cost_scale", "1")
    try:
        return float(text)
    except ValueError:
        raise StoreError(f"{store.folder}: fact cost_scale must be a number, got {text!r}") from None


def judge(stores: Sequence[Store], fidelity: str = "pixels") -> list[Figure]:
    """All figures of one or several pooled runs."""
    return figures(evidence(stores, fidelity))


def figures(given: Evidence) -> list[Figure]:
    """All figures that the evidence allows, in the order of the page."""
    matches = given.matches
    out = []
    if matches.kind != "none":
        out += completeness_figures(matches)
    if matches.kind == "simulated":
        out += purity_figures(matches)
    if matches.kind != "none":
        out += pull_figures(matches) + position_figures(matches)
    out += stage_figures(matches)
    if matches.kind == "simulated":
        out += trail_figures(matches) + dipole_figures(matches) + solar_system_figures(matches, given.objects)
        out += association_figures(matches)
    if matches.kind != "none":
        out += reason_figures(matches)
    if given.simulated:
        out += cost_figures(given.steps)
    return out


def accepted(found: Sequence[Figure]) -> bool:
    """Whether every figure that has a bar passes with enough cases."""
    return all(figure.verdict in ("pass", "quoted") for figure in found)


# --- the figures -----------------------------------------------------------------------------------------------------

def completeness_figures(matches: Matches) -> list[Figure]:
    """Raw completeness, its half point, and completeness of alerts."""
    table = completeness(matches)
    half = table.turnover_raw.half if table.turnover_raw else UNKNOWN
    out = [at_most("s50_raw", "Raw: S/N of 50 % completeness", half, MAX_HALF_SNR, n_min=MIN_BIN)]
    for low, high, bar in RAW_BARS:
        out.append(at_least(f"raw_{low:g}_{high:g}", f"Raw completeness at S/N {low:g} to {high:g}",
                            in_range(matches, low, high, raw=True), bar, n_min=MIN_BIN))
    low, high, bar = ALERT_BAR
    out.append(at_least(f"alerts_{low:g}_{high:g}", f"Completeness of alerts at S/N {low:g} to {high:g}",
                        in_range(matches, low, high, raw=False), bar, n_min=MIN_BIN))
    level, counts = flat(matches)
    out.append(at_least("alerts_flat_6_20", "Completeness of alerts, flat in S/N from 6 to 20", level, FLAT_BAR,
                        n_min=MIN_BIN, detail=f"{int(counts.min())} to {int(counts.max())} sources per unit of S/N"))
    if matches.kind == "injected":
        out.append(at_least("injected_8", "Injections recovered above S/N 8",
                            in_range(matches, 8.0, np.inf, raw=True), MIN_INJECTED))
    return out


def purity_figures(matches: Matches) -> list[Figure]:
    """False alerts, and purity at S/N 6 and above."""
    table = purity(matches)
    return [at_most("false_alerts", "False alerts per 10⁶ px and visit", table.false_alerts, MAX_FALSE,
                    count=len(matches.exposures), detail=f"{table.false_alerts.n} on {table.megapixels:.1f} × 10⁶ px"),
            quoted("purity_raw", "Purity at S/N ≥ 6 before the reliability filter", table.raw,
                   f"{table.raw_on_sky:.3f} at 3.3 real sources per 10⁶ px"),
            quoted("purity_alerts", "Purity of alerts at S/N ≥ 6", table.alerts,
                   f"{table.alerts_on_sky:.3f} at 3.3 real sources per 10⁶ px")]


def pull_figures(matches: Matches) -> list[Figure]:
    """Mean and spread of pulls of forced fluxes, hosted and hostless apart (hostless alone for injections)."""
    table = pulls(matches)
    groups = (("hostless", table.hostless), ("hosted", table.hosted))
    out = []
    for name, found in groups:
        if name == "hosted" and matches.kind == "injected" and found.mean.n == 0:
            continue
        few = MIN_PULLS if matches.kind == "simulated" else MIN_BIN
        clipped = f"{100 * found.outliers:.2f} % beyond 5 left out" if math.isfinite(found.outliers) else ""
        sound = not found.outliers > MAX_PULL_OUTLIERS
        out.append(between(f"pull_mean_{name}", f"Mean pull of forced flux, S/N 3 to 30, {name}", found.mean,
                           -MAX_MEAN_PULL, MAX_MEAN_PULL, n_min=few, detail=clipped, sound=sound))
        out.append(between(f"pull_std_{name}", f"Std of pulls, {name}", found.std, *PULL_STD, n_min=few,
                           detail=clipped, sound=sound))
    return out


def position_figures(matches: Matches) -> list[Figure]:
    """Errors of alert positions."""
    table = astrometry(matches)
    clipped = f"{100 * table.outliers:.2f} % beyond 5 left out" if math.isfinite(table.outliers) else ""
    sound = not table.outliers > MAX_PULL_OUTLIERS
    return [at_most("position", 'Median radial position error at S/N > 20, × 0.83" / FWHM', table.radial,
                    MAX_POSITION_ARCSEC, unit="arcsec", n_min=MIN_BIN),
            between("position_pull_ra", "Position error over claimed error, std in RA", table.pull_ra, *POSITION_STD,
                    n_min=MIN_BIN, detail=clipped, sound=sound),
            between("position_pull_dec", "Position error over claimed error, std in Dec", table.pull_dec,
                    *POSITION_STD, n_min=MIN_BIN, detail=clipped, sound=sound)]


def stage_figures(matches: Matches) -> list[Figure]:
    """Calibration and differencing against truth: the worst detector-visit counts."""
    log = matches.exposures[matches.exposures["status"] == b"done"]
    with np.errstate(invalid="ignore"):
        zeropoint = np.abs(log["zeropoint"] - log["true_zeropoint"])
        size = np.abs(log["psf_sigma_px"] / log["true_psf_sigma_px"] - 1)
        depth = np.abs(log["mag_lim"] - log["true_m5"])
        lag, rms = np.abs(log["noise_correlation"]), np.abs(log["snr_rms"] - 1)
    out = [_worst("snr_rms", "S/N on blank sky: largest |rms − 1|", rms, SNR_RMS)]
    if matches.kind == "simulated":
        out = [_worst("wcs", "WCS: largest final error (rms over the detector)", log["wcs_rms_arcsec"], MAX_WCS_ARCSEC,
                      "arcsec"),
               _worst("zeropoint", "Zeropoint: largest error", zeropoint, MAX_ZEROPOINT_MAG, "mag"),
               _worst("psf_size", "PSF size: largest relative error", size, MAX_PSF_SIZE),
               _worst("lag1", "Decorrelated noise: largest |lag-1 correlation|", lag, MAX_LAG1), *out]
        out += [_worst(f"depth_{band}", f"Depth in {band}: largest difference from the m5 formula",
                       depth[log["band"] == band.encode()], MAX_DEPTH_MAG, "mag") for band in "ri"]
    return out


def trail_figures(matches: Matches) -> list[Figure]:
    """Trails over 5 PSF sigma and S/N 15."""
    table = trails(matches)
    return [at_most("trail_length", "Trails: median relative error of length", table.length, MAX_TRAIL_LENGTH,
                    n_min=MIN_BIN),
            at_most("trail_angle", "Trails: median error of angle", table.angle, MAX_TRAIL_ANGLE_DEG, unit="deg",
                    n_min=MIN_BIN),
            at_most("trail_length_fisher", "Trails: length error over the Fisher bound", table.length_bound,
                    MAX_OVER_FISHER, n_min=MIN_BIN),
            at_most("trail_angle_fisher", "Trails: angle error over the Fisher bound", table.angle_bound,
                    MAX_OVER_FISHER, n_min=MIN_BIN)]


def dipole_figures(matches: Matches) -> list[Figure]:
    """isDipole where it should be, and where it should not."""
    table = dipoles(matches)
    return [at_least("dipole_moved", "isDipole for stars that moved, both lobes over S/N 7", table.moved, MIN_DIPOLE,
                     n_min=MIN_BIN),
            at_most("dipole_points", "isDipole for isolated point sources", table.points, MAX_POINT_DIPOLE,
                    n_min=MIN_BIN)]


def solar_system_figures(matches: Matches, known: np.ndarray) -> list[Figure]:
    """SSObjects of known asteroids."""
    table = solar_system(matches, known)
    causes = "; ".join(f"{count} × {cause}" for cause, count in table.causes.items())
    return [at_least("ss_association", 'Known asteroids with their SSObject (S/N > 6, no DIAObject within 1", '
                     'ephemeris error < 0.5")', table.associated, MIN_SS_ASSOCIATED, n_min=MIN_ASTEROIDS,
                     detail=f"without: {causes}" if causes else "none without")]


def association_figures(matches: Matches) -> list[Figure]:
    """Association accuracy by truth."""
    table = association(matches)
    return [quoted("association", "Association accuracy of alerts by truth", table.accuracy,
                   f"{table.duplicates} duplicate and {table.merged} mixed DIAObjects for {table.sources} sources")]


def reason_figures(matches: Matches) -> list[Figure]:
    """Missed sources above S/N 10 whose reason is not on the list."""
    with np.errstate(invalid="ignore"):
        missed = ~matches.alerted & (np.abs(matches.truth["snr"]) > REASON_SNR)
    other = missed & (np.char.partition(matches.reasons, b":")[:, 0] == b"other") if missed.any() else missed
    share = fraction(int(other.sum()), int(missed.sum())) if missed.any() else Estimate(0.0, 0.0, 0.0, 0)
    return [at_most("reasons", "Sources over S/N 10 without alert whose reason is “other”", share, MAX_OTHER,
                    detail=f"{int(other.sum())} of {int(missed.sum())}")]


def cost_figures(steps: np.ndarray) -> list[Figure]:
    """CPU time of the run as the cost table predicts it, over what was measured."""
    table = step_costs(steps)
    n = int(table.rows["n"].sum())
    ratio = table.predicted_s / table.measured_s if table.measured_s > 0 else float("nan")
    return [between("cost", "Predicted over measured CPU time", Estimate(ratio, float("nan"), float("nan"), n),
                    1 - MAX_COST_ERROR, 1 + MAX_COST_ERROR,
                    detail=f"{table.predicted_s:.1f} s and {table.measured_s:.1f} s")]


# --- bars ------------------------------------------------------------------------------------------------------------

def at_most(key: str, name: str, found: Estimate, bar: float, *, unit: str = "", n_min: int = 0, detail: str = "",
            count: int | None = None) -> Figure:
    """A figure whose value must not exceed the bar."""
    return Figure(key, name, found.value, found.low, found.high, f"≤ {bar:g}", bool(found.value <= bar),
                  found.n if count is None else count, n_min, unit, detail)


def at_least(key: str, name: str, found: Estimate, bar: float, *, unit: str = "", n_min: int = 0,
             detail: str = "") -> Figure:
    """A figure whose value must reach the bar."""
    return Figure(key, name, found.value, found.low, found.high, f"≥ {bar:g}", bool(found.value >= bar), found.n,
                  n_min, unit, detail)


def between(key: str, name: str, found: Estimate, low: float, high: float, *, unit: str = "", n_min: int = 0,
            detail: str = "", sound: bool = True) -> Figure:
    """A figure whose value must lie between two bars; `sound` adds a condition of its own."""
    return Figure(key, name, found.value, found.low, found.high, f"{low:g} to {high:g}",
                  bool(low <= found.value <= high) and sound, found.n, n_min, unit, detail)


def quoted(key: str, name: str, found: Estimate, detail: str = "") -> Figure:
    """A figure without a bar."""
    return Figure(key, name, found.value, found.low, found.high, "", True, found.n, 0, "", detail)


def _worst(key: str, name: str, values: np.ndarray, bar: float, unit: str = "") -> Figure:
    values = np.asarray(values, float)
    found, middle = worst(values), values[np.isfinite(values)]
    detail = f"median {np.median(middle):.2g}, {int(np.sum(middle > bar))} beyond the bar" if len(middle) else ""
    if lost := len(values) - len(middle):
        detail += f"; {lost} of {len(values)} unknown"
    return at_most(key, name, found, bar, unit=unit, detail=detail)


# --- printing --------------------------------------------------------------------------------------------------------

def table(found: Sequence[Figure]) -> str:
    """The figures as text, one line each."""
    rows = [("figure", "value", "95 % interval", "bar", "n", "verdict")]
    rows += [(f.name, number(f), interval(f), f.bar, f"{f.n:,}" + (f" of {f.n_min:,}" if f.n < f.n_min else ""),
              f.verdict) for f in found]
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    lines = ["  ".join(cell.ljust(width) if i in (0, 5) else cell.rjust(width)
                       for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def number(figure: Figure) -> str:
    """A figure's value for people."""
    if not math.isfinite(figure.value):
        return "–"
    return _digits(figure.value) + (f" {figure.unit}" if figure.unit else "")


def side_by_side(runs: Mapping[str, Sequence[Store]]) -> str:
    """Association accuracy by truth of several settings, each with its pooled runs, as text."""
    head = ("setting", "accuracy", "95 % interval", "static", "Solar System", "duplicates", "mixed", "n")
    rows = [head]
    for name, stores in runs.items():
        table = association(pool([match(store, run=i) for i, store in enumerate(stores)]))
        rows.append((name, f"{table.accuracy.value:.4f}", f"{table.accuracy.low:.4f} to {table.accuracy.high:.4f}",
                     f"{table.static.value:.4f}", f"{table.solar_system.value:.4f}", str(table.duplicates),
                     str(table.merged), f"{table.accuracy.n:,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                               for i, (cell, width) in enumerate(zip(row, widths, strict=True))) for row in rows)


def interval(figure: Figure) -> str:
    """A figure's interval for people; empty where there is none."""
    if not math.isfinite(figure.low) or not math.isfinite(figure.high):
        return ""
    return f"{_digits(figure.low)} to {_digits(figure.high)}"


def _digits(value: float) -> str:
    """Three significant digits, trailing zeros kept, no exponent for what people read."""
    return f"{value:#.3g}".rstrip(".") if 1e-4 <= abs(value) < 1e4 else f"{value:.3g}"
