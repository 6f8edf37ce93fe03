"""Terms of metrics: which rows of an outcome count, as what, and with which weight.

Where a quantity exists for a source on one side only, a figure over what each side found would compare two samples:
a lower threshold adds faint sources, whose positions are worse, and looks like worse astrometry. So errors are taken of
the sources that both sides have (`Outcome.common`, filled in by `reports.pairing`); an outcome that stands alone counts
its own. Counts and completeness are taken of everything.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from reports.association import STATIC_KINDS
from reports.astrometry import PULL_SNR
from reports.completeness import HOSTED_KINDS
from reports.latency import DAY_S, LIMIT_S
from reports.outcome import Outcome, located
from reports.photometry import CLIP, SNR_RANGE
from reports.purity import SAMPLE_SNR
from reports.solarsystem import MAX_EPHEMERIS_ERROR, MIN_SNR
from reports.terms import Statistic, Terms
from reports.trails_dipoles import MIN_LENGTH_SIGMA, MIN_LOBE_SNR, MIN_POINT_SNR, MIN_TRAIL_SNR
from schemas import mask
from schemas.exposure import magnitudes

VISIT: Final = ("seed", "visit", "detector")
MMAG: Final = 2500.0 / np.log(10.0)     # of a relative flux
MAX_MMAG: Final = 300.0                 # a worse error counts as this: one blend must not decide a mean
LARGE_MMAG: Final = 100.0               # the same where sizes are averaged: twice the noise at S/N 20
MAX_ARCSEC: Final = 0.5
POINT_PX: Final = 1.0                   # shorter trails are points
CONTRAST: Final = 1.5                   # densities of the densest third of the fields over those of the sparsest
FAINT_SNR: Final = 10.0                  # fainter sources add no noise of their own that matters
SNR_OF_DEPTH: Final = 5.0
ANY: Final = (-np.inf, np.inf)


def terms(outcome: Outcome, table: str, value: np.ndarray, *, use: np.ndarray | None = None,
          weight: np.ndarray | float = 1.0, statistic: Statistic = "ratio") -> Terms:
    """Terms of the rows of one table, parallel to it; rows that are not used or not known are left out."""
    n = len(value)
    chosen = np.isfinite(value) & (np.ones(n, bool) if use is None else use)
    weights = np.broadcast_to(np.asarray(weight, float), (n,))
    return Terms(np.asarray(value[chosen], float), weights[chosen].copy(), units(outcome, table)[chosen],
                 objects(outcome, table)[chosen], statistic)


def units(outcome: Outcome, table: str) -> np.ndarray:
    """(n,) visits by number: those of `paired`, or of the outcome alone."""
    if table in outcome.units:
        return np.asarray(outcome.units[table])
    rows, log = getattr(outcome, table), outcome.visits
    return located([rows[n] for n in VISIT[:2]], [log[n] for n in VISIT[:2]]).astype(np.int64)


def objects(outcome: Outcome, table: str) -> np.ndarray:
    """(n,) true objects or places by number; -1 for none."""
    return outcome.objects.get(table, np.full(len(getattr(outcome, table)), -1, np.int64))


def pooled(parts: Sequence[Terms]) -> Terms:
    """Terms of several tables as one; the statistic is the first one's."""
    value, weight, unit, seen = (np.concatenate([getattr(p, name) for p in parts])
                                 for name in ("value", "weight", "unit", "object"))
    return Terms(value, weight, unit, seen, parts[0].statistic)


def common(outcome: Outcome, name: str) -> np.ndarray:
    """A mask of `Outcome.common`, or what the outcome alone has."""
    if name in outcome.common:
        return np.asarray(outcome.common[name])
    match name:
        case "found":
            return np.asarray(np.isfinite(outcome.sources["found_snr"]))
        case "visits":
            return np.asarray(outcome.visits["status"] == b"done")
        case "stars":
            return np.asarray(outcome.stars["found"])
        case "forced":
            return np.asarray(outcome.forced["clean"])
        case "steps":
            return np.asarray(outcome.steps["measured"])
    return np.asarray(outcome.sources[name])      # alert, clean


# --- counts ----------------------------------------------------------------------------------------------------------

def per_visit(outcome: Outcome, *counted: tuple[str, np.ndarray]) -> Terms:
    """Rows per detector-visit, over all of them: each a table and the mask of its rows that count."""
    visits = np.ones(len(outcome.visits))
    parts = [terms(outcome, "visits", 0 * visits, weight=visits)]
    for table, use in counted:
        parts.append(terms(outcome, table, np.ones(len(use)), use=use, weight=0.0))
    return pooled(parts)


def log_mean(outcome: Outcome, *, column: str) -> Terms:
    """Mean of a column of the log over detector-visits that both sides have done; unknown and -1 are left out."""
    value = outcome.visits[column].astype(float)
    known = value >= 0 if outcome.visits[column].dtype.kind == "i" else np.isfinite(value)
    return terms(outcome, "visits", value, use=common(outcome, "visits") & known)


def log_size(outcome: Outcome, *, column: str, ideal: float = 0.0) -> Terms:
    """Mean distance of a column from its ideal over detector-visits that both sides have done."""
    value = np.abs(outcome.visits[column].astype(float) - ideal)
    return terms(outcome, "visits", value, use=common(outcome, "visits"))


def searched(outcome: Outcome) -> Terms:
    """Fraction of the pixels outside all masks, over detector-visits that both sides have done."""
    log = outcome.visits
    area = log["nx"].astype(float) * log["ny"]
    return terms(outcome, "visits", log["usable_px"].astype(float), weight=area,
                 use=common(outcome, "visits") & (log["usable_px"] >= 0) & (log["nx"] > 0))


def masked(outcome: Outcome, *, step: str, plane: str) -> Terms:
    """Fraction of the pixels that a Step left in a mask plane, over detector-visits that both sides have done.

    One cause at a time, as `searched` cannot tell them: a streak that one side sees and the other does not is 10^4
    pixels, a ring about the detector where a kernel is a pixel wider 4000, and the two would hide the hundreds that
    masks of saturated stars take. From the trace, which leaves out planes that have no pixel.
    """
    log = outcome.visits
    traced = outcome.traces[outcome.traces["step"] == step.encode()]
    of = traced[traced["quantity"] == f"mask:{plane}".encode()]
    known, at = (located([log[n] for n in VISIT], [rows[n] for n in VISIT]) for rows in (traced, of))
    pixels = np.where(at >= 0, of["value"][at], 0.0) if len(of) else np.zeros(len(log))
    return terms(outcome, "visits", pixels, weight=log["nx"].astype(float) * log["ny"],
                 use=common(outcome, "visits") & (known >= 0) & (log["nx"] > 0))


def with_status(outcome: Outcome, *, statuses: tuple[bytes, ...]) -> Terms:
    """Fraction of detector-visits that ended so."""
    return terms(outcome, "visits", np.isin(outcome.visits["status"], statuses).astype(float))


def alerts(outcome: Outcome) -> Terms:
    """Alerts per detector-visit."""
    return per_visit(outcome, ("sources", outcome.sources["alert"]), ("false", outcome.false["alert"]))


def dia_sources(outcome: Outcome, *, column: str = "") -> Terms:
    """DIASources per detector-visit; those for which a column is true, if one is named."""
    parts = []
    for table in ("sources", "false"):
        rows = getattr(outcome, table)
        parts.append((table, (rows["diaSourceId"] > 0) & (rows[column] if column else True)))
    return per_visit(outcome, *parts)


def false(outcome: Outcome, *, column: str, cause: bytes = b"") -> Terms:
    """False detections per detector-visit, `column` raw or alert; of one cause, if one is named."""
    rows = outcome.false
    return per_visit(outcome, ("false", rows[column] & (rows["cause"] == cause if cause else True)))


def purity(outcome: Outcome, *, column: str) -> Terms:
    """Fraction of detections of S/N 6 and more that are of true sources."""
    sources, other = outcome.sources, outcome.false
    real = sources[column] & (np.abs(sources["found_snr"]) >= SAMPLE_SNR)
    wrong = other[column] & (np.abs(other["snr"]) >= SAMPLE_SNR)
    return pooled([terms(outcome, "sources", np.ones(len(sources)), use=real),
                   terms(outcome, "false", np.zeros(len(other)), use=wrong)])


# --- completeness ----------------------------------------------------------------------------------------------------

def completeness(outcome: Outcome, *, column: str, snr: tuple[float, float] = ANY, kind: bytes = b"",
                 magnitude: tuple[float, float] = ANY) -> Terms:
    """Fraction of the judged true sources with a detection (`raw`) or an `alert`."""
    rows = outcome.sources
    use = rows["judged"] & _between(np.abs(rows["snr"]), snr) & (rows["kind"] == kind if kind else True)
    if magnitude != ANY:
        use = use & _between(rows["magnitude"], magnitude)
    return terms(outcome, "sources", rows[column].astype(float), use=use)


def hosted(outcome: Outcome, *, column: str = "raw", snr: tuple[float, float], host: str = "",
           within: tuple[float, float] = ANY) -> Terms:
    """Completeness of the classes that have hosts, by a column that tells of those; without one, of the hostless."""
    rows = outcome.sources
    use = rows["judged"] & _between(np.abs(rows["snr"]), snr) & np.isin(rows["kind"], HOSTED_KINDS)
    use = use & (_between(rows[host], within) if host else ~np.isfinite(rows["host_sep_arcsec"]))
    if not np.isfinite(rows["host_sep_arcsec"]).any():
        use = use & False                                  # a test without hosts says nothing of the hostless
    return terms(outcome, "sources", rows[column].astype(float), use=use)


def clean(outcome: Outcome) -> Terms:
    """Fraction of the judged true sources on no mask plane that spoils a flux."""
    return terms(outcome, "sources", outcome.sources["clean"].astype(float), use=outcome.sources["judged"])


def crowded(outcome: Outcome, *, column: str, snr: tuple[float, float]) -> Terms:
    """Completeness in the densest third of the fields less that in the sparsest; no rows if they hardly differ."""
    rows, log = outcome.sources, outcome.visits
    stars = _per_field(outcome, outcome.stars)
    known = common(outcome, "visits") & (stars > 0)
    use = rows["judged"] & _between(np.abs(rows["snr"]), snr)
    side = np.zeros(len(log))
    if known.sum() >= 3:
        low, high = np.quantile(stars[known], [1 / 3, 2 / 3])
        side = np.where(known & (stars >= high), 1.0, np.where(known & (stars <= low), -1.0, 0.0))
        if not np.any(side < 0) or stars[side > 0].mean() < CONTRAST * stars[side < 0].mean():
            side *= 0
    sign = side[located([rows[n] for n in VISIT], [log[n] for n in VISIT])] if len(log) else np.zeros(len(rows))
    n = np.array([np.sum(use & (sign > 0)), np.sum(use & (sign < 0))])
    use = use & (sign != 0) & bool(n.all())
    scale = sign * n.sum() / np.where(sign > 0, n[0], n[1]) if n.all() else sign
    return terms(outcome, "sources", scale * rows[column], use=use)


def _per_field(outcome: Outcome, rows: np.ndarray) -> np.ndarray:
    """(n_visits,) rows of each detector-visit."""
    place = located([rows[n] for n in VISIT], [outcome.visits[n] for n in VISIT])
    return np.bincount(place[place >= 0], minlength=len(outcome.visits))


def _between(value: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return np.asarray((value >= limits[0]) & (value < limits[1]))


def point_sources(outcome: Outcome) -> np.ndarray:
    """Isolated judged point sources."""
    rows = outcome.sources
    return np.asarray(rows["judged"] & rows["isolated"] & ~(rows["trail_length"] >= POINT_PX))


# --- photometry ------------------------------------------------------------------------------------------------------

def flux_error(outcome: Outcome, *, flux: str, snr: tuple[float, float], statistic: Statistic) -> Terms:
    """Error of fluxes [mmag]: its mean (`abs_ratio`: the size of that), or the median of its size.

    `psfFlux` is that of the sources that both sides found, `forced_flux` that at true positions; isolated points that
    are on clean pixels on both sides.
    """
    error, use = _flux_errors(outcome, flux, snr)
    return terms(outcome, "sources", np.abs(error) if statistic == "median" else error, use=use, statistic=statistic)


def flux_size(outcome: Outcome, *, snr: tuple[float, float]) -> Terms:
    """Mean size of the errors of `flux_error`'s psfFlux [mmag], those beyond 100 counted as 100.

    All errors speak, where of a median those alone do that pass it: on the regression nights a change half as large is
    found.
    """
    error, use = _flux_errors(outcome, "psfFlux", snr)
    return terms(outcome, "sources", np.minimum(np.abs(error), LARGE_MMAG), use=use)


def _flux_errors(outcome: Outcome, flux: str, snr: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Errors of a flux [mmag], and the rows that count."""
    rows = outcome.sources
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.clip(MMAG * (rows[flux] / rows["flux"] - 1.0), -MAX_MMAG, MAX_MMAG)
    use = point_sources(outcome) & common(outcome, "clean") & _between(np.abs(rows["snr"]), snr)
    return error, use & common(outcome, "found") if flux == "psfFlux" else use


def true_pulls(outcome: Outcome, *, of: str, hosted: bool | None = None) -> Terms:
    """Pulls of fluxes forced at true positions, S/N 3 to 30: size of the `mean`, |`variance` - 1|, or `outliers`.

    Isolated points on pixels that are clean on both sides, pulls beyond 5 counted apart (`reports.photometry`).
    """
    rows = outcome.sources
    with np.errstate(invalid="ignore", divide="ignore"):
        pull = (rows["forced_flux"] - rows["flux"]) / rows["forced_flux_err"]
    use = point_sources(outcome) & common(outcome, "clean") & _between(np.abs(rows["snr"]), SNR_RANGE)
    if hosted is not None:
        use = use & (np.isfinite(rows["host_sep_arcsec"]) == hosted)
    return pulls(outcome, "sources", pull, use, of)


def pulls(outcome: Outcome, table: str, pull: np.ndarray, use: np.ndarray, of: str) -> Terms:
    """What pulls tell of errors: size of their `mean`, |`variance` - 1| about 0, fraction of `outliers` beyond 5."""
    use = use & np.isfinite(pull)
    if of == "outliers":
        return terms(outcome, table, (np.abs(pull) > CLIP).astype(float), use=use)
    use = use & (np.abs(pull) <= CLIP)
    return terms(outcome, table, pull if of == "mean" else pull.astype(float) ** 2 - 1.0, use=use,
                 statistic="abs_ratio")


def zeropoint(outcome: Outcome, *, statistic: Statistic) -> Terms:
    """Error of zeropoints [mmag]."""
    log = outcome.visits
    return terms(outcome, "visits", 1e3 * (log["zeropoint"].astype(float) - log["true_zeropoint"]),
                 use=common(outcome, "visits"), statistic=statistic)


def psf_size(outcome: Outcome) -> Terms:
    """Mean |relative error| of the PSF's size."""
    log = outcome.visits
    error = np.abs(log["psf_sigma_px"].astype(float) / log["true_psf_sigma_px"] - 1.0)
    return terms(outcome, "visits", error, use=common(outcome, "visits"))


def depth(outcome: Outcome) -> Terms:
    """Mean |error| of the limiting magnitude that the science image claims."""
    log = outcome.visits
    return terms(outcome, "visits", np.abs(log["mag_lim"].astype(float) - log["true_m5"]),
                 use=common(outcome, "visits"))


def difference_depth(outcome: Outcome) -> Terms:
    """Mean |error| of the limiting magnitude that the difference claims, against what its noise allows.

    The true one is that of the optimum errors of a detector-visit's faint points, which know the noise of both images.
    """
    rows, log = outcome.sources, outcome.visits
    use = point_sources(outcome) & (np.abs(rows["snr"]) < FAINT_SNR)
    with np.errstate(invalid="ignore", divide="ignore"):
        optimum = magnitudes(SNR_OF_DEPTH * np.abs(rows["flux"] / rows["snr"]))
    place = located([rows[n] for n in VISIT], [log[n] for n in VISIT])
    true = np.full(len(log), np.nan)
    for field in np.unique(place[use & (place >= 0)]).tolist():
        true[field] = np.median(optimum[use & (place == field)])
    return terms(outcome, "visits", np.abs(log["diffim_mag_lim"].astype(float) - true), use=common(outcome, "visits"))


def efficiency(outcome: Outcome) -> Terms:
    """Rms error of fluxes forced at true positions over the optimum error: 1 for a perfect difference and PSF.

    Isolated points of S/N 3 to 30 on pixels that are clean on both sides, errors beyond 5 aside.
    """
    rows = outcome.sources
    with np.errstate(invalid="ignore", divide="ignore"):
        error = (rows["forced_flux"] - rows["flux"]) / np.abs(rows["flux"] / rows["snr"])
    use = (point_sources(outcome) & common(outcome, "clean") & _between(np.abs(rows["snr"]), SNR_RANGE)
           & (np.abs(error) <= CLIP))
    return terms(outcome, "sources", error, use=use, statistic="rms")


# --- astrometry ------------------------------------------------------------------------------------------------------

def positions(outcome: Outcome, *, snr: tuple[float, float]) -> Terms:
    """Median radial error [arcsec] of the isolated points that both sides found."""
    rows = outcome.sources
    use = point_sources(outcome) & common(outcome, "found") & _between(np.abs(rows["snr"]), snr)
    return terms(outcome, "sources", np.hypot(rows["dra"], rows["ddec"]), use=use, statistic="median")


def offset(outcome: Outcome, *, axis: str, snr: tuple[float, float]) -> Terms:
    """Size of the mean error [arcsec] along one axis of the isolated points that both sides found."""
    rows = outcome.sources
    use = point_sources(outcome) & common(outcome, "found") & _between(np.abs(rows["snr"]), snr)
    error = np.clip(rows[axis].astype(float), -MAX_ARCSEC, MAX_ARCSEC)
    return terms(outcome, "sources", error, use=use, statistic="abs_ratio")


def position_pulls(outcome: Outcome, *, of: str) -> Terms:
    """Pulls of positions, both axes, of the isolated points of S/N 6 and more that have an alert on both sides."""
    rows = outcome.sources
    use = point_sources(outcome) & common(outcome, "alert") & (np.abs(rows["snr"]) >= PULL_SNR)
    with np.errstate(invalid="ignore", divide="ignore"):
        return pooled([pulls(outcome, "sources", rows[error] / rows[claimed], use, of)
                       for error, claimed in (("dra", "raErr"), ("ddec", "decErr"))])


# --- trails and dipoles ----------------------------------------------------------------------------------------------

def trails(outcome: Outcome, *, of: str) -> Terms:
    """Trails over 5 PSF sigma and S/N 15 that both sides found: what their fits say of `length`, `angle` or `flux`.

    Medians of |error| of the length, relative, and of the angle [deg], where no fit counts as no length (an error of
    1) and no direction (45 deg); the fraction `fitted`; the size of the mean relative error of the flux as published:
    that of the trail where one was fitted, else of a point.
    """
    rows = outcome.sources
    use = (rows["judged"] & common(outcome, "found") & (np.abs(rows["snr"]) > MIN_TRAIL_SNR)
           & (rows["trail_length"] > MIN_LENGTH_SIGMA * _psf_sigma(outcome)))
    fitted = np.isfinite(rows["found_trail_length"]) & np.isfinite(rows["found_trail_angle"])
    with np.errstate(invalid="ignore", divide="ignore"):
        length = np.abs(rows["found_trail_length"] / rows["trail_length"] - 1.0)
        flux = np.where(fitted & np.isfinite(rows["trailFlux"]), rows["trailFlux"], rows["psfFlux"]) / rows["flux"]
    turn = np.abs((rows["found_trail_angle"] - rows["trail_angle"] + 90.0) % 180.0 - 90.0)
    match of:
        case "length":
            return terms(outcome, "sources", np.where(fitted, np.minimum(length, 1.0), 1.0), use=use & _measured(rows),
                         statistic="median")
        case "angle":
            return terms(outcome, "sources", np.where(fitted, np.minimum(turn, 45.0), 45.0), use=use & _measured(rows),
                         statistic="median")
        case "fitted":
            return terms(outcome, "sources", fitted.astype(float), use=use & _measured(rows))
    return terms(outcome, "sources", np.clip(flux - 1.0, -1.0, 1.0), use=use, statistic="abs_ratio")


def _measured(rows: np.ndarray) -> np.ndarray:
    """Whether a row's detection is one whose fits are recorded in pixels."""
    return np.asarray(rows["measured_id"] >= 0)


def _psf_sigma(outcome: Outcome) -> np.ndarray:
    """(n_sources,) sigma of the true PSF [pixel], of the measured one where no other is known."""
    rows, log = outcome.sources, outcome.visits
    if not len(log):
        return np.full(len(rows), np.nan)
    sigma = np.where(np.isfinite(log["true_psf_sigma_px"]), log["true_psf_sigma_px"], log["psf_sigma_px"])
    return np.asarray(sigma[located([rows[n] for n in VISIT], [log[n] for n in VISIT])])


def dipoles(outcome: Outcome) -> Terms:
    """Fraction of the stars that moved, both lobes over S/N 7, that are called a dipole, found or not."""
    rows = outcome.sources
    return terms(outcome, "sources", rows["isDipole"].astype(float), use=_moved(rows))


def dipole_length(outcome: Outcome) -> Terms:
    """Median |error| of the separation of lobes [pixel] of the same stars where both sides found them; no fit: 0."""
    rows = outcome.sources
    error = np.abs(np.nan_to_num(rows["found_dipole_length"]) - rows["separation_px"])
    return terms(outcome, "sources", error, use=_moved(rows) & common(outcome, "found") & _measured(rows),
                 statistic="median")


def _moved(rows: np.ndarray) -> np.ndarray:
    covered = rows["input_mask"] & (mask.INPUT | mask.NO_DATA | mask.SAT_TEMPLATE)
    return np.asarray((rows["kind"] == b"moved_star") & (covered == 0) & (np.abs(rows["snr"]) > MIN_LOBE_SNR))


def point_dipoles(outcome: Outcome) -> Terms:
    """Fraction of the isolated points of S/N 5 and more that both sides found that are called a dipole."""
    rows = outcome.sources
    use = point_sources(outcome) & common(outcome, "found") & (np.abs(rows["snr"]) >= MIN_POINT_SNR)
    return terms(outcome, "sources", rows["isDipole"].astype(float), use=use)


# --- association and the Solar System --------------------------------------------------------------------------------

def association(outcome: Outcome) -> Terms:
    """Fraction of alerts in their source's DIAObject, known asteroids' in their SSObject; alerts on both sides."""
    rows = outcome.sources
    use = common(outcome, "alert") & (np.isin(rows["kind"], STATIC_KINDS) | (rows["ssObjectId"] > 0))
    return terms(outcome, "sources", rows["associated"].astype(float), use=use)


def duplicates(outcome: Outcome) -> Terms:
    """DIAObjects beyond the first per static true source that has alerts; a source's alerts share its weight."""
    rows = outcome.sources
    use = (rows["diaSourceId"] > 0) & np.isin(rows["kind"], STATIC_KINDS)
    _, source = np.unique(np.stack([rows["seed"], np.where(use, rows["truthId"], -1)]), axis=1, return_inverse=True)
    n = np.bincount(source.ravel(), use.astype(float))
    return terms(outcome, "sources", rows["duplicate"].astype(float), use=use,
                 weight=1.0 / np.maximum(n[source.ravel()], 1.0))


def merged(outcome: Outcome) -> Terms:
    """Fraction of the alerts of static sources in a DIAObject that is mainly another source's."""
    rows = outcome.sources
    use = common(outcome, "alert") & np.isin(rows["kind"], STATIC_KINDS)
    return terms(outcome, "sources", rows["merged"].astype(float), use=use)


def wrong_solar_system(outcome: Outcome) -> Terms:
    """Fraction of the alerts of static sources that carry an SSObject."""
    rows = outcome.sources
    use = common(outcome, "alert") & np.isin(rows["kind"], STATIC_KINDS)
    return terms(outcome, "sources", (rows["found_ssObjectId"] > 0).astype(float), use=use)


def known_asteroids(outcome: Outcome) -> Terms:
    """Fraction of known asteroids' alerts with their SSObject: S/N over 6, ephemeris good to 0.5", alerts on both."""
    rows = outcome.sources
    use = (common(outcome, "alert") & (rows["ssObjectId"] > 0) & (np.abs(rows["snr"]) > MIN_SNR)
           & (rows["eph_err_arcsec"] < MAX_EPHEMERIS_ERROR))
    return terms(outcome, "sources", (rows["found_ssObjectId"] == rows["ssObjectId"]).astype(float), use=use)


def associated_asteroids(outcome: Outcome) -> Terms:
    """True sources' DIASources with an SSObject per detector-visit: those of the Solar System that were associated."""
    return per_visit(outcome, ("sources", outcome.sources["found_ssObjectId"] > 0))


def updated_objects(outcome: Outcome, *, of: str) -> Terms:
    """Of the DIAObjects that were loaded, the fraction with a new DIASource (`updated`), or the number without one.

    Loaded are those that the detector-visit read last before association; a DIASource that is neither in a new
    DIAObject nor in an SSObject has updated one.
    """
    log, steps = outcome.visits, outcome.steps
    loaded = np.full(len(log), -1.0)
    for name in (b"objects", b"reload"):
        rows = steps[steps["name"] == name]
        place = located([log[n] for n in VISIT], [rows[n] for n in VISIT])
        loaded = np.where(place >= 0, rows["size"][place] if len(rows) else 0.0, loaded)
    known = _per_field(outcome, outcome.sources[outcome.sources["found_ssObjectId"] > 0])
    updated = log["n_sources"].astype(float) - log["n_new_objects"] - known
    use = common(outcome, "visits") & (loaded >= 0) & (log["n_sources"] >= 0) & (log["n_new_objects"] >= 0)
    if of == "updated":
        return terms(outcome, "visits", updated, use=use, weight=np.maximum(loaded, 0.0))
    return terms(outcome, "visits", loaded - updated, use=use)


# --- forced photometry and direct images -----------------------------------------------------------------------------

def forced_pulls(outcome: Outcome, *, of: str, snr: tuple[float, float] = SNR_RANGE) -> Terms:
    """Pulls of forced photometry of DIAObjects, where both sides forced the source on clean pixels; see `pulls`."""
    rows = outcome.forced
    with np.errstate(invalid="ignore", divide="ignore"):
        pull = (rows["psfFlux"] - rows["flux"]) / rows["psfFluxErr"]
    return pulls(outcome, "forced", pull, common(outcome, "forced") & _between(np.abs(rows["snr"]), snr), of)


def forced_scatter(outcome: Outcome, *, snr: tuple[float, float] = (1.0, 30.0)) -> Terms:
    """Rms of the pulls of forced photometry about 0, those beyond 5 aside: the scatter of light curves."""
    rows = outcome.forced
    with np.errstate(invalid="ignore", divide="ignore"):
        pull = (rows["psfFlux"] - rows["flux"]) / rows["psfFluxErr"]
    use = common(outcome, "forced") & _between(np.abs(rows["snr"]), snr) & (np.abs(pull) <= CLIP)
    return terms(outcome, "forced", pull, use=use, statistic="rms")


def forced_offset(outcome: Outcome) -> Terms:
    """How far from the true place photometry was forced [arcsec], of clean pixels that both sides forced."""
    return terms(outcome, "forced", outcome.forced["offset_arcsec"], use=common(outcome, "forced"), statistic="median")


def forced_error(outcome: Outcome, *, snr: tuple[float, float], statistic: Statistic) -> Terms:
    """Error of forced fluxes [mmag] of bright sources: size of its mean, or median of its size."""
    rows = outcome.forced
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.clip(MMAG * (rows["psfFlux"] / rows["flux"] - 1.0), -MAX_MMAG, MAX_MMAG)
    use = common(outcome, "forced") & _between(np.abs(rows["snr"]), snr)
    return terms(outcome, "forced", np.abs(error) if statistic == "median" else error, use=use, statistic=statistic)


def stars(outcome: Outcome, *, snr: tuple[float, float]) -> Terms:
    """Fraction of the true static stars that were found on the direct image."""
    rows = outcome.stars
    return terms(outcome, "stars", rows["found"].astype(float),
                 use=rows["judged"] & rows["isolated"] & _between(rows["snr"], snr))


def star_error(outcome: Outcome, *, snr: tuple[float, float], of: str) -> Terms:
    """Of the isolated stars that both sides found: size of the mean error of `flux` [mmag], median of its `scatter`,
    median radial error of the `position` [arcsec], |variance of pulls - 1| (`pulls`)."""
    rows = outcome.stars
    use = common(outcome, "stars") & rows["judged"] & rows["isolated"] & _between(rows["snr"], snr)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.clip(MMAG * (rows["psfFlux"] / rows["flux"] - 1.0), -MAX_MMAG, MAX_MMAG)
        pull = (rows["psfFlux"] - rows["flux"]) / rows["psfFluxErr"]
    match of:
        case "flux":
            return terms(outcome, "stars", error, use=use, statistic="abs_ratio")
        case "scatter":
            return terms(outcome, "stars", np.abs(error), use=use, statistic="median")
        case "position":
            return terms(outcome, "stars", np.hypot(rows["dx_arcsec"], rows["dy_arcsec"]), use=use, statistic="median")
    return pulls(outcome, "stars", pull, use, "variance")


# --- time and cost ---------------------------------------------------------------------------------------------------

def latency(outcome: Outcome, *, since: str, statistic: Statistic) -> Terms:
    """Delays of alerts [s] from a moment of their exposure on the simulated clock; `ratio`: share within 60 s."""
    sent, log = outcome.packets, outcome.visits
    delay = np.full(len(sent), np.nan)
    if len(log):
        place = located([sent[n] for n in VISIT], [log[n] for n in VISIT])
        logged = np.where(place >= 0, log[since][place], np.nan)
        delay = (sent["sent_mjd_tai"] - np.where(np.isfinite(sent[since]), sent[since], logged)) * DAY_S
    live = delay < DAY_S                   # older exposures were processed afterwards: no latency
    value = (delay <= LIMIT_S).astype(float) if statistic == "ratio" else delay
    return terms(outcome, "packets", value, use=live, statistic=statistic)


def packet_size(outcome: Outcome) -> Terms:
    """Mean bytes of a packet."""
    size = outcome.packets["bytes"].astype(float)
    return terms(outcome, "packets", size, use=size >= 0)


def step_cost(outcome: Outcome, *, column: str, names: tuple[str, ...] = ()) -> Terms:
    """Sum of a Step's column per detector-visit, where both sides measured it; of several Steps, or of all, together.

    A Step that is repeated within a detector-visit counts with all its rows, so both sides must have been timed
    equally often.
    """
    rows = outcome.steps
    use = common(outcome, "steps") & np.isfinite(rows[column]) & (rows[column] >= 0)
    if names:
        use = use & np.isin(rows["name"], [name.encode() for name in names])
    return terms(outcome, "steps", rows[column].astype(float), use=use, weight=_once(rows, use, VISIT))


def step_size(outcome: Outcome, *, name: str) -> Terms:
    """Mean size that a Step announced, where both sides measured it."""
    rows = outcome.steps
    use = common(outcome, "steps") & (rows["name"] == name.encode()) & (rows["size"] >= 0)
    return terms(outcome, "steps", rows["size"].astype(float), use=use)


def step_memory(outcome: Outcome, *, name: str = "") -> Terms:
    """Mean peak memory of a Step [MB]; without a name, of the largest Step of each detector-visit."""
    rows = outcome.steps
    use = common(outcome, "steps") & np.isfinite(rows["peak_mb"]) & (rows["peak_mb"] > 0)
    if name:
        return terms(outcome, "steps", rows["peak_mb"].astype(float), use=use & (rows["name"] == name.encode()))
    order = np.lexsort((-rows["peak_mb"], rows["detector"], rows["visit"], rows["seed"], ~use))
    largest = np.zeros(len(rows), bool)
    largest[order] = _once(rows[order], use[order], VISIT) > 0
    return terms(outcome, "steps", rows["peak_mb"].astype(float), use=largest)


def _once(rows: np.ndarray, use: np.ndarray, columns: Sequence[str]) -> np.ndarray:
    """(n,) float64: 1 for the first used row of each combination, 0 for others."""
    out = np.zeros(len(rows))
    chosen = np.flatnonzero(use)
    keys = [rows[n][chosen] for n in columns]
    first = located(keys, keys) == np.arange(len(chosen))
    out[chosen[first]] = 1.0
    return out
