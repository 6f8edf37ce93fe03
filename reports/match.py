"""Truth against detections: what was found, what was missed and why, what is false and by which cause.

Pairs are made in pixels, per detector-visit, nearest first and of one sign: true sources first with alerts, then with
detections that only the reliability filter stopped, then with those that another filter stopped. Sources below S/N 1
explain nothing; sources of S/N 1 to 3 explain only what brighter ones leave over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from reports.store import Store, empty, groups
from schemas import mask
from schemas.exposure import fluxes_njy

RADIUS_PX: Final = 3.0          # 0.6" at 0.2"/px; the real fakes pipeline matches within 0.5" (analysis_tools)
BRIGHT_SNR: Final = 3.0         # true sources above it are matched first
FAINT_SNR: Final = 1.0          # true sources below it are not matched
THRESHOLD: Final = 5.0          # detection threshold, transSNR of DMS-REQ-0269
ARTIFACT_MARGIN_PX: Final = 4.0   # a detection may lie so far outside the pixels that its cause touched
SATURATED_MARGIN_PX: Final = 12.0   # wings of a saturated star reach farther
# artifacts that cover much of a detector, the narrowest first: they explain what nothing of its own kind explains
WIDE: Final = (b"template_edge", b"ghost", b"aircraft", b"bad_flat", b"bad_wcs")
VAGUE: Final = (b"noise", b"dipole", b"static source residual")
BLEND_FWHM: Final = 2.0         # sources nearer than this many FWHM share one footprint

# Flags of the new-object filter: a source that has one, and no object, makes no alert (ap_association, 4.6e).
NEW_OBJECT_FLAGS: Final = ("centroid_flag", "pixelFlags_crCenter", "pixelFlags_nodataCenter",
                           "pixelFlags_interpolatedCenter", "pixelFlags_saturatedCenter", "pixelFlags_suspectCenter",
                           "pixelFlags_streakCenter", "glint_trail")

# Why a true source has no alert: the closed list. What follows a colon is the detail.
REASONS: Final = ("failed step", "no work", "off image", "input mask", "own mask", "not detected", "rejected",
                  "blended", "not published", "other")

# A detection that entered the filters, wherever it ended.
SOURCE: Final = np.dtype([
    ("run", "i2"), ("visit", "i8"), ("detector", "i2"), ("id", "i8"), ("diaObjectId", "i8"), ("ssObjectId", "i8"),
    ("midpointMjdTai", "f8"), ("x", "f8"), ("y", "f8"), ("ra", "f8"), ("dec", "f8"), ("raErr", "f8"), ("decErr", "f8"),
    ("snr", "f4"), ("psfFlux", "f4"), ("psfFluxErr", "f4"), ("scienceFlux", "f4"), ("templateFlux", "f4"),
    ("templateFluxErr", "f4"), ("reliability", "f4"), ("isNegative", "?"), ("isDipole", "?"), ("extendedness", "f4"),
    ("trailLength", "f4"), ("trailAngle", "f4"),         # [pixel], [deg from +x to +y]
    ("bbox_x0", "i4"), ("bbox_y0", "i4"), ("bbox_x1", "i4"), ("bbox_y1", "i4"),   # footprint; -1 where unknown
    ("measured_id", "i4"),                               # of MEASUREMENT; -1 where unknown
    ("stage", "S24"), ("reason", "S40"),                 # of the filter that stopped it; b"" for a DIASource
    ("raw", "?"),                                        # an alert, were it not for the reliability filter
    ("alert", "?")])                                     # published

RUN: Final = [("run", "i2")]


@dataclass(frozen=True, slots=True)
class Matches:
    """One or several runs, matched: truth i has its detection in `found[i]`, source j its truth in `partner[j]`."""

    truth: np.ndarray          # TRUTH and `run`
    sources: np.ndarray        # SOURCE
    exposures: np.ndarray      # EXPOSURE_LOG and `run`
    found: np.ndarray          # (n_truth,) intp into sources; -1: none
    partner: np.ndarray        # (n_sources,) intp into truth; -1: false
    causes: np.ndarray         # (n_sources,) S24: of what is false; b"" otherwise
    reasons: np.ndarray        # (n_truth,) S64: why there is no alert, `REASONS` and a detail; b"" where there is one
    kind: str                  # simulated | injected | none: what the truth is

    @property
    def alerted(self) -> np.ndarray:
        """(n_truth,) bool: the source has an alert."""
        return self._found_and("alert")

    @property
    def raw(self) -> np.ndarray:
        """(n_truth,) bool: the source has an alert, or would have but for the reliability filter."""
        return self._found_and("raw")

    @property
    def false(self) -> np.ndarray:
        """(n_sources,) bool: no true source explains the detection."""
        return np.asarray(self.partner < 0)

    @property
    def judged(self) -> np.ndarray:
        """(n_truth,) bool: in the denominators, a source of known S/N that no mask of the input covers.

        Stars that moved have two lobes and no S/N of one flux: they are judged as dipoles alone.
        """
        truth = self.truth
        clear = (truth["input_mask"] & (mask.INPUT | mask.NO_DATA | mask.SAT_TEMPLATE)) == 0
        return np.asarray(clear & np.isfinite(truth["snr"]) & (truth["kind"] != b"moved_star"))

    @property
    def megapixels(self) -> float:
        """Pixels searched, in units of 10^6: usable ones of all detector-visits that were processed."""
        log = self.exposures[self.exposures["status"] == b"done"]
        area = log["nx"].astype(float) * log["ny"]
        return float(np.sum(np.where(log["usable_px"] > 0, log["usable_px"], area))) / 1e6

    def _found_and(self, column: str) -> np.ndarray:
        if len(self.sources) == 0:
            return np.zeros(len(self.truth), bool)
        return np.asarray((self.found >= 0) & self.sources[column][np.maximum(self.found, 0)])


def match(store: Store, *, run: int = 0, fidelity: str = "") -> Matches:
    """Match one run's truth with its detections; `fidelity` keeps the detector-visits of one kind."""
    log = store.optional("exposure_log")
    if fidelity:
        log = log[log["fidelity"] == fidelity.encode()]
    truth, kind = _truth(store, log)
    sources = _sources(store, log)
    log, truth = with_run(log, run), with_run(truth, run)
    sources["run"] = run
    return assign(truth, sources, log, store.optional("truth_pixels"), kind)


def pool(parts: Sequence[Matches]) -> Matches:
    """Several runs as one; rows keep the run they are from."""
    if not parts:
        raise ValueError("no runs to pool: at least one is needed")
    truths, sources = _starts([p.truth for p in parts]), _starts([p.sources for p in parts])
    kinds = {p.kind for p in parts if p.kind != "none"} or {"none"}
    if len(kinds) > 1:
        raise ValueError(f"runs of one kind of truth expected, got {', '.join(sorted(kinds))}")
    return Matches(
        np.concatenate([p.truth for p in parts]), np.concatenate([p.sources for p in parts]),
        np.concatenate([p.exposures for p in parts]),
        np.concatenate([np.where(p.found >= 0, p.found + s, -1) for p, s in zip(parts, sources, strict=True)]),
        np.concatenate([np.where(p.partner >= 0, p.partner + s, -1) for p, s in zip(parts, truths, strict=True)]),
        np.concatenate([p.causes for p in parts]), np.concatenate([p.reasons for p in parts]), kinds.pop())


def assign(truth: np.ndarray, sources: np.ndarray, exposures: np.ndarray, pixels: np.ndarray,
           kind: str = "simulated") -> Matches:
    """Match given rows: TRUTH with `run`, SOURCE, EXPOSURE_LOG with `run`, TRUTH_PIXELS."""
    found, partner = np.full(len(truth), -1), np.full(len(sources), -1)
    causes, reasons = np.zeros(len(sources), "S24"), np.zeros(len(truth), "S64")
    none = np.zeros(0, np.intp)
    by_source = dict(groups(sources["visit"], sources["detector"]))
    by_truth = dict(groups(truth["visit"], truth["detector"]))
    by_pixels = dict(groups(pixels["visit"], pixels["detector"]))
    logs = {(int(row["visit"]), int(row["detector"])): row for row in exposures}
    for key in sorted(by_source.keys() | by_truth.keys()):
        t, s = by_truth.get(key, none), by_source.get(key, none)
        log = logs.get((int(key[0]), int(key[1])))
        here_truth, here = truth[t], sources[s]
        forward, backward = _pairs(here_truth, here)
        found[t] = np.where(forward >= 0, s[np.maximum(forward, 0)] if len(s) else -1, -1)
        partner[s] = np.where(backward >= 0, t[np.maximum(backward, 0)] if len(t) else -1, -1)
        causes[s] = _causes(here, backward, here_truth, pixels[by_pixels.get(key, none)], _fwhm_px(log))
        reasons[t] = _reasons(here_truth, here, forward, backward, causes[s], log)
    return Matches(truth, sources, exposures, found, partner, causes, reasons, kind)


# --- rows ------------------------------------------------------------------------------------------------------------

def _starts(parts: list[np.ndarray]) -> list[int]:
    return [0, *np.cumsum([len(p) for p in parts]).tolist()[:-1]]


def with_run(rows: np.ndarray, run: int) -> np.ndarray:
    """The rows with the number of their run in front."""
    out = np.zeros(len(rows), [*RUN, *((n, rows.dtype[n]) for n in rows.dtype.names or ())])
    out["run"] = run
    for name in rows.dtype.names or ():
        out[name] = rows[name]
    return out


def _of_log(rows: np.ndarray, log: np.ndarray) -> np.ndarray:
    """Which rows belong to a detector-visit of the log; all where there is no log."""
    if len(log) == 0:
        return np.ones(len(rows), bool)
    return np.isin(_key(rows), _key(log))


def _key(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows["visit"].astype("i8") * 1000 + rows["detector"])


def _truth(store: Store, log: np.ndarray) -> tuple[np.ndarray, str]:
    """TRUTH rows of a run, from its injections where no other truth is known."""
    rows = store.optional("truth")
    if not len(rows) and store.has("injection"):
        rows = _injected(store.table("injection"), log)
    rows = rows[_of_log(rows, log)]
    if not len(rows):
        return rows, "none"
    return rows, "injected" if np.all(rows["kind"] == b"injected") else "simulated"


def _injected(injections: np.ndarray, log: np.ndarray) -> np.ndarray:
    """Injections as TRUTH; their error is that of the detector-visit's limiting magnitude, where it is known."""
    rows = empty("truth", len(injections))
    for name in ("visit", "detector", "ra", "dec", "x", "y", "trail_length", "trail_angle"):
        rows[name] = injections[name]
    rows["truthId"], rows["kind"] = injections["injectionId"], b"injected"
    rows["flux"] = np.where(injections["template"], -1.0, 1.0) * injections["flux"]
    keys, depths = _key(log), np.where(np.isfinite(log["diffim_mag_lim"]), log["diffim_mag_lim"], log["mag_lim"])
    errors = dict(zip(keys.tolist(), (fluxes_njy(depths) / THRESHOLD).tolist(), strict=True))
    rows["flux_err_optimum"] = [errors.get(key, np.nan) for key in _key(rows).tolist()]
    rows["snr"] = rows["flux"] / rows["flux_err_optimum"]
    rows["isolated"] = True
    return rows


def _sources(store: Store, log: np.ndarray) -> np.ndarray:
    """DIASources and rejected detections of a run."""
    good, bad = store.optional("DiaSource"), store.optional("rejection")
    good, bad = good[_of_log(good, log)], bad[_of_log(bad, log)]
    rows = np.concatenate([_accepted(store, good), _rejected(bad)])
    if store.has("measurement") and len(rows):
        rows = _measured(rows, store.table("measurement"))
    return rows


def blank_sources(n: int) -> np.ndarray:
    """SOURCE rows of nulls."""
    rows = np.zeros(n, SOURCE)
    for name in SOURCE.names or ():
        if SOURCE[name].kind == "f":
            rows[name] = np.nan
    for name in ("bbox_x0", "bbox_y0", "bbox_x1", "bbox_y1", "measured_id"):
        rows[name] = -1
    return rows


def _accepted(store: Store, sources: np.ndarray) -> np.ndarray:
    rows = blank_sources(len(sources))
    for name in ("visit", "detector", "diaObjectId", "ssObjectId", "midpointMjdTai", "x", "y", "ra", "dec", "raErr",
                 "decErr", "snr", "psfFlux", "psfFluxErr", "scienceFlux", "templateFlux", "templateFluxErr",
                 "reliability", "isNegative", "isDipole", "extendedness"):
        rows[name] = sources[name]
    rows["id"], rows["raw"], rows["alert"] = sources["diaSourceId"], True, True
    if store.has("publication"):
        rows["alert"] = np.isin(sources["diaSourceId"], store.table("publication")["diaSourceId"])
    return rows


def _rejected(rejections: np.ndarray) -> np.ndarray:
    """Rejected detections; sky sources were never any."""
    rejections = rejections[rejections["reason"] != b"sky_source"]
    rows = blank_sources(len(rejections))
    for name in ("visit", "detector", "id", "x", "y", "ra", "dec", "snr", "psfFlux", "reliability", "isNegative",
                 "bbox_x0", "bbox_y0", "bbox_x1", "bbox_y1", "stage", "reason"):
        rows[name] = rejections[name]
    rows["measured_id"] = rejections["id"]
    rows["raw"] = np.char.find(rejections["stage"], b"reliability") >= 0
    return rows


def _measured(rows: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """The rows with what MEASUREMENT knows more: footprints, dipoles and trails in pixels, flags of the rejected."""
    by_key = dict(groups(measured["visit"], measured["detector"]))
    out = rows.copy()
    for key, index in groups(rows["visit"], rows["detector"]):
        if key not in by_key:
            continue
        there = by_key[key]
        x, y = rows["x"][index][:, None], rows["y"][index][:, None]
        gap = np.hypot(x - measured["x"][there], y - measured["y"][there])
        gap = np.where(np.isfinite(gap), gap, np.inf)
        nearest = gap.argmin(axis=1)
        same = gap[np.arange(len(index)), nearest] < 0.05
        to, of = index[same], measured[there[nearest[same]]]
        out["measured_id"][to] = of["id"]
        for name in ("isDipole", "extendedness", "trailLength", "trailAngle", "bbox_x0", "bbox_y0", "bbox_x1",
                     "bbox_y1", "psfFluxErr", "scienceFlux", "templateFlux", "templateFluxErr"):
            out[name][to] = of[name]
        flagged = np.any([of[name] for name in NEW_OBJECT_FLAGS], axis=0)
        out["raw"][to] &= ~flagged | (rows["stage"][to] == b"")
    return out


# --- pairs -----------------------------------------------------------------------------------------------------------

def _fwhm_px(log: np.void | None) -> float:
    """FWHM of a detector-visit [pixel]; 4 where the log does not know it."""
    if log is None:
        return 4.0
    for name in ("psf_sigma_px", "true_psf_sigma_px"):
        if np.isfinite(log[name]) and log[name] > 0:
            return float(log[name]) * 2.3548
    return 4.0


def distances(truth: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n_truth, n) distances [pixel] of positions from true sources: from a trail's line, or from a point."""
    length = np.nan_to_num(truth["trail_length"].astype(float))
    angle = np.radians(np.nan_to_num(truth["trail_angle"].astype(float)))
    dx, dy = x[None] - truth["x"][:, None], y[None] - truth["y"][:, None]
    along = dx * np.cos(angle)[:, None] + dy * np.sin(angle)[:, None]
    across = -dx * np.sin(angle)[:, None] + dy * np.cos(angle)[:, None]
    beyond = np.maximum(np.abs(along) - length[:, None] / 2, 0.0)
    return np.asarray(np.hypot(beyond, across))


def _pairs(truth: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the source of each truth, and of the truth that explains each source; -1 for none."""
    forward, backward = np.full(len(truth), -1), np.full(len(sources), -1)
    if not len(truth) or not len(sources):
        return forward, backward
    moved = truth["kind"] == b"moved_star"
    gap = distances(truth, sources["x"], sources["y"])
    reach = RADIUS_PX + np.where(moved, np.nan_to_num(truth["separation_px"]) / 2, 0.0)
    sign = np.sign(np.where(np.isfinite(sources["psfFlux"]) & (sources["psfFlux"] != 0), sources["psfFlux"],
                            1.0 - 2.0 * sources["isNegative"]))
    same = (np.sign(truth["flux"])[:, None] == sign) | moved[:, None] | (truth["flux"] == 0)[:, None]
    near = (gap <= reach[:, None]) & same
    snr = np.where(np.isfinite(truth["snr"]), np.abs(truth["snr"]), np.inf)
    bright = (snr >= BRIGHT_SNR) | moved | (truth["trail_length"] > 0)
    stage = np.where(sources["alert"], 0, np.where(sources["raw"], 1, 2))
    for rows in (bright, ~bright & (snr >= FAINT_SNR)):
        for level in range(3):
            _nearest_first(gap, near & rows[:, None] & (stage == level), forward, backward)
    lobes = near & moved[:, None]      # the second lobe of a star that moved is not false either
    extra = (backward < 0) & lobes.any(axis=0)
    backward[extra] = lobes.argmax(axis=0)[extra]
    return forward, backward


def _nearest_first(gap: np.ndarray, near: np.ndarray, forward: np.ndarray, backward: np.ndarray) -> None:
    """Fill `forward` and `backward` with the allowed pairs of free rows, nearest pair first."""
    i, j = np.nonzero(near)
    for k in np.argsort(gap[i, j], kind="stable"):
        if forward[i[k]] < 0 and backward[j[k]] < 0:
            forward[i[k]], backward[j[k]] = j[k], i[k]


# --- causes of what is false ----------------------------------------------------------------------------------------

def _causes(sources: np.ndarray, partner: np.ndarray, truth: np.ndarray, pixels: np.ndarray,
            fwhm_px: float) -> np.ndarray:
    """Why there is a detection that no true source explains."""
    out = np.zeros(len(sources), "S24")
    false = np.flatnonzero(partner < 0)
    if not len(false):
        return out
    rows = sources[false]
    cause = np.full(len(false), b"noise", "S24")
    with np.errstate(invalid="ignore"):
        light = np.fmax(rows["templateFlux"], rows["scienceFlux"])
        error = np.fmax(rows["templateFluxErr"], rows["psfFluxErr"])
        static = (light > 20 * error) & (light > 5 * np.abs(rows["psfFlux"]))
    cause[rows["isDipole"]] = b"dipole"
    cause[static] = b"static source residual"
    real = truth[(np.abs(truth["snr"]) >= THRESHOLD) | (truth["kind"] == b"moved_star")]
    if len(real):
        gap = distances(real, rows["x"], rows["y"])
        reach = BLEND_FWHM * fwhm_px + np.nan_to_num(real["separation_px"]) / 2
        cause[np.any(gap <= reach[:, None], axis=0)] = b"near a true source"
        cause[np.any((gap <= reach[:, None]) & (real["trail_length"] > 0)[:, None], axis=0)] = b"fragment of a trail"
    for kind in WIDE:
        covered, kinds = _artifacts(rows["x"], rows["y"], pixels[pixels["kind"] == kind])
        covered &= np.isin(cause, VAGUE)
        cause[covered] = kinds[covered]
    covered, kinds = _artifacts(rows["x"], rows["y"], pixels[~np.isin(pixels["kind"], WIDE)])
    cause[covered] = kinds[covered]
    out[false] = cause
    return out


def _artifacts(x: np.ndarray, y: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether artifacts cover positions, and the kind of the one that reaches deepest."""
    if not len(pixels):
        return np.zeros(len(x), bool), np.zeros(len(x), "S24")
    dx, dy = pixels["x1"] - pixels["x0"], pixels["y1"] - pixels["y0"]
    length2 = np.maximum(dx * dx + dy * dy, 1e-12)
    u, v = x[:, None] - pixels["x0"], y[:, None] - pixels["y0"]
    along = np.clip((u * dx + v * dy) / length2, 0.0, 1.0)
    outside = np.hypot(u - along * dx, v - along * dy) - np.nan_to_num(pixels["width"]) / 2
    outside -= np.where(np.isin(pixels["kind"], [b"saturated", b"bleed"]), SATURATED_MARGIN_PX, ARTIFACT_MARGIN_PX)
    deepest = outside.argmin(axis=1)
    covered = outside[np.arange(len(x)), deepest] <= 0
    names = np.char.replace(pixels["kind"].astype("S24"), b"_", b" ").astype("S24")
    return covered, names[deepest]


# --- reasons of what is missed --------------------------------------------------------------------------------------

_OWN_MASKS: Final = ("CR", "STREAK", "EDGE", "NO_DATA", "INTRP", "SUSPECT", "SAT", "BAD", "SPIKE", "HIGH_VARIANCE",
                     "SAT_TEMPLATE")


def _reasons(truth: np.ndarray, sources: np.ndarray, found: np.ndarray, partner: np.ndarray, causes: np.ndarray,
             log: np.void | None) -> np.ndarray:
    """Why true sources of one detector-visit have no alert; b"" where there is one."""
    out = np.zeros(len(truth), "S64")
    alerted = sources["alert"][found] & (found >= 0) if len(sources) else np.zeros(len(truth), bool)
    missed = np.flatnonzero(~alerted)
    gaps = distances(truth[missed], sources["x"], sources["y"])
    for i, gap in zip(missed.tolist(), gaps, strict=True):
        out[i] = _reason(truth, i, sources, int(found[i]), gap, partner, causes, log).encode()
    return out


def _reason(truth: np.ndarray, i: int, sources: np.ndarray, j: int, gap: np.ndarray, partner: np.ndarray,
            causes: np.ndarray, log: np.void | None) -> str:
    row = truth[i]
    if (failed := _failed(log)) is not None:
        return failed
    if hit := int(row["input_mask"]) & (mask.INPUT | mask.NO_DATA | mask.SAT_TEMPLATE):
        return f"input mask: {'+'.join(mask.names(hit))}"
    if j >= 0:
        if not sources["stage"][j]:
            return "not published"
        stage, why = sources["stage"][j].decode(), sources["reason"][j].decode()
        return f"rejected: {stage}" + (f": {why}" if why and why != stage else "")
    if log is not None and not (-0.5 <= row["x"] < log["nx"] - 0.5 and -0.5 <= row["y"] < log["ny"] - 0.5):
        return "off image"
    fatal = int(row["mask_at"]) & (mask.UNUSABLE | mask.HIGH_VARIANCE) if row["mask_at"] > 0 else 0
    if fatal:
        return f"own mask: {'+'.join(mask.names(fatal))}"
    if blend := _blend(truth, row, sources, gap, partner, causes, _fwhm_px(log)):
        return f"blended: {blend}"
    if hits := [name for name in _OWN_MASKS if row["mask_at"] > 0 and int(row["mask_at"]) & mask.PLANES[name]]:
        return f"own mask: {'+'.join(hits)}"
    if np.isfinite(row["significance_at"]) and abs(row["significance_at"]) < THRESHOLD:
        return f"not detected: significance {abs(row['significance_at']):.1f}"
    if log is not None and log["fidelity"] == b"catalogue":
        return "not detected"
    told = row["reason"].decode()
    return told if told.partition(":")[0] in REASONS else "other"


def _failed(log: np.void | None) -> str | None:
    if log is None:
        return "failed step: the detector-visit has no record"
    status = log["status"].decode()
    if status in ("", "done"):
        return None
    if status == "no_work":
        return f"no work: {log['reason'].decode()}"
    return f"failed step: {log['reason'].decode() or status}"


def _blend(truth: np.ndarray, row: np.void, sources: np.ndarray, gap: np.ndarray, partner: np.ndarray,
           causes: np.ndarray, fwhm_px: float) -> str:
    """The source or artifact whose detection took the true one of `row` in, `gap` pixels away; empty for none."""
    near = gap <= BLEND_FWHM * fwhm_px
    x, y = float(row["x"]), float(row["y"])
    inside = ((sources["bbox_x0"] >= 0) & (sources["bbox_x0"] - 1 <= x) & (x <= sources["bbox_x1"] + 1)
              & (sources["bbox_y0"] - 1 <= y) & (y <= sources["bbox_y1"] + 1))
    for j in np.flatnonzero(near | inside)[np.argsort(gap[near | inside])]:
        if partner[j] >= 0:
            other = truth[partner[j]]
            return f"with {other['kind'].decode()} {int(other['truthId'])}"
        if causes[j] == b"near a true source":
            return "with an unmatched detection"
        return f"with {causes[j].decode() or 'a detection'}"
    return ""


