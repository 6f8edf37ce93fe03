"""Measurement stores with known answers: a night whose pipeline is a formula.

A source of S/N s is measured at s + N(0, 1) and detected above 5; positions err by sqrt(2) sigma / (S/N); the score of
real sources is high, that of false ones low; forced fluxes err by their claimed error. Each knob breaks one thing.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reports.match import NEW_OBJECT_FLAGS
from reports.store import MEASURED
from reports.trails_dipoles import fisher
from schemas.measures import (
    EXPOSURE_LOG,
    FACT,
    PUBLICATION,
    REJECTION,
    STAMP,
    STAMP_SIDE,
    STAR_TRUTH,
    STEP,
    TRUTH,
    TRUTH_PIXELS,
    empty,
)
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE
from schemas.wcs import Wcs
from twin.recorder import ParquetRecorder

RA, DEC, SIDE, SCALE, SIGMA, ERROR = 150.0, -30.0, 1000, 0.2, 1.9, 100.0   # deg, deg, px, arcsec/px, px, nJy
WCS = Wcs.tangent(RA, DEC, (SIDE, SIDE), scale_arcsec=SCALE)
MJD0 = 61000.2
STEPS = (("preload", -20.0, 4.0), ("readout", 0.0, 2.0), ("transfer", 2.0, 5.0), ("queue", 7.0, 1.0),
         ("calibrate", 8.0, 6.0), ("warp", 14.0, 3.0), ("subtract", 17.0, 7.0), ("detect", 24.0, 3.0),
         ("measure", 27.0, 4.0), ("cutouts", 31.0, 0.4), ("reliability", 31.4, 0.8), ("filter", 32.2, 0.1),
         ("reload", 32.3, 2.0), ("associate", 34.3, 0.3), ("forced", 34.6, 0.7), ("package", 35.3, 1.5),
         ("save", 36.8, 1.2), ("send", 38.0, 2.0))


@dataclass(frozen=True, slots=True)
class Knobs:
    """What the made pipeline does wrong; the defaults do nothing wrong."""

    threshold: float = 5.0
    lose: float = 0.0              # fraction of detections lost without trace
    real_score: float = 0.97       # fraction of real sources that pass the reliability filter
    false_alerts: float = 0.4      # per 10^6 px and visit
    flux_bias: float = 0.0         # in units of the claimed error
    claimed_flux_error: float = 1.0    # over the true one
    offset_arcsec: float = 0.0
    position_error: float = 1.0    # over the claimed one
    wcs_arcsec: float = 0.01
    zeropoint: float = 0.002
    psf_size: float = 0.003
    lag1: float = 0.005
    depth: float = 0.01
    snr_rms: float = 1.0
    trail_error: float = 1.0       # over the Fisher bound
    dipoles: float = 0.95          # fraction of moved stars called so
    point_dipoles: float = 0.002
    ss_lost: float = 0.0
    split: float = 0.0             # fraction of alerts in a wrong DIAObject
    unexplained: bool = False      # nothing is known of why sources were lost
    cost: float = 1.05             # predicted over measured
    star_bias: float = 0.0         # of the fluxes of direct-image stars
    ephemeris_arcsec: float = 0.0  # along the track
    packet_bytes: int = 100_000


def make(folder: Path, *, visits: int = 12, sources: int = 600, seed: int = 1, knobs: Knobs | None = None,
         stamps: int = 0, kind: str = "") -> Path:
    """A run folder; `kind` replaces every class of truth (`injected`), `sources` are per visit."""
    knobs = knobs or Knobs()
    rng = np.random.default_rng(seed)
    sky = _sky(rng, sources)
    if kind:
        sky["kind"], sky["ssObjectId"], sky["trail_length"], sky["host_sep_arcsec"] = kind.encode(), 0, 0.0, np.nan
    with ParquetRecorder(folder / "measures") as recorder:
        for i in range(visits):
            _visit(folder, recorder, rng, sky, i, knobs, stamps)
        facts = np.zeros(5, FACT)
        facts["key"] = [b"scenario", b"seed", b"kind", b"cost_scale", b"note"]
        facts["value"] = [b"made", str(seed).encode(), b"simulated", b"1", b"<script>alert(1)</script>"]
        recorder.append("fact", facts)
    return folder


def _sky(rng: np.random.Generator, n: int) -> np.ndarray:
    """TRUTH rows that every visit shares, on a jittered grid: all isolated."""
    side = int(np.ceil(np.sqrt(n)))
    grid = (np.arange(side) + 0.5) * (SIDE - 40) / side + 20
    x, y = (c.ravel()[:n] for c in np.meshgrid(grid, grid))
    rows = empty(TRUTH, n)
    rows["truthId"] = np.arange(n) + 1
    rows["kind"] = rng.choice([b"transient", b"variable", b"agn", b"asteroid", b"moved_star"], n,
                              p=[0.5, 0.15, 0.08, 0.17, 0.10])
    rows["x"], rows["y"] = x + rng.uniform(-3, 3, n), y + rng.uniform(-3, 3, n)
    rows["trail_length"] = np.where(rows["kind"] == b"asteroid", rng.choice([0.4, 18.0], n), 0.0)
    rows["trail_angle"] = np.where(rows["trail_length"] > 0, rng.uniform(-89, 89, n), 0.0)
    rows["separation_px"] = np.where(rows["kind"] == b"moved_star", rng.uniform(1.0, 5.0, n), np.nan)
    known = (rows["kind"] == b"asteroid") & (rng.random(n) < 0.8)
    rows["ssObjectId"] = np.where(known, 7_000_000 + rows["truthId"], 0)
    rows["eph_err_arcsec"] = np.where(known, rng.exponential(0.15, n), np.nan)
    hosted = (rows["kind"] == b"transient") & (rng.random(n) < 0.5)
    rows["host_sep_arcsec"] = np.where(hosted, rng.exponential(0.5, n), np.nan)
    rows["isolated"], rows["input_mask"], rows["mask_at"] = True, 0, 0
    return rows


def _visit(folder: Path, recorder: ParquetRecorder, rng: np.random.Generator, sky: np.ndarray, i: int, knobs: Knobs,
           stamps: int) -> None:
    visit, mjd = 20260305 * 100000 + i + 1, MJD0 + i * 34 / 86400
    truth = _truth(rng, sky, visit, knobs)
    measured, real = _detections(rng, truth, visit, knobs)
    pixels, false = _false(rng, visit, knobs, len(measured))
    rows = np.concatenate([measured, false])
    real = np.concatenate([real, np.full(len(false), -1)])
    rows["id"] = np.arange(len(rows))
    passed = rows["reliability"] >= 0.5
    good = _dia_sources(rng, rows[passed], truth, real[passed], visit, mjd, knobs)
    recorder.append("truth", truth)
    recorder.append("truth_pixels", pixels)
    recorder.append("measurement", rows)
    recorder.append("DiaSource", good)
    recorder.append("DiaObject", _objects(good, mjd))
    recorder.append("rejection", _rejections(rows[~passed], visit))
    recorder.append("publication", _publications(rng, good, visit, mjd, knobs))
    recorder.append("step", _steps(rng, visit, mjd, knobs))
    recorder.append("exposure_log", _log(rng, visit, mjd, len(rows), len(good), i, knobs))
    aside = np.random.default_rng([visit, 7])               # what came later takes nothing from the stream before it
    recorder.append("DiaForcedSource", _forced(aside, truth, good, visit, mjd, i, knobs))
    recorder.append("SSSource", _ss_sources(aside, good, knobs))
    recorder.append("star", _stars(aside, visit, i, knobs))
    if stamps:
        _stamps(folder, recorder, np.random.default_rng(visit), truth, rows[len(measured):], visit, stamps)


def _truth(rng: np.random.Generator, sky: np.ndarray, visit: int, knobs: Knobs) -> np.ndarray:
    rows, n = sky.copy(), len(sky)
    rows["visit"], rows["detector"] = visit, 4
    snr = np.where(rng.random(n) < 0.5, rng.uniform(3, 21, n), np.exp(rng.uniform(np.log(2.0), np.log(100), n)))
    snr[rows["trail_length"] > 1] = rng.uniform(12, 60, int(np.sum(rows["trail_length"] > 1)))
    sign = np.where((rows["kind"] == b"variable") & (rng.random(n) < 0.5), -1.0, 1.0)
    moved = rows["kind"] == b"moved_star"
    rows["science_flux"] = np.where(moved, 40 * snr * ERROR, np.maximum(snr * sign * ERROR, 0) + 1000.0)
    rows["template_flux"] = np.where(moved, rows["science_flux"], 1000.0)
    rows["flux"] = np.where(moved, rows["science_flux"], snr * sign * ERROR)
    rows["flux_err_optimum"] = ERROR
    lobe = -np.expm1(-np.nan_to_num(rows["separation_px"]) ** 2 / (4 * SIGMA**2))     # what the other lobe leaves
    rows["snr"] = rows["flux"] / ERROR * np.where(moved, lobe, 1.0)
    rows["ra"], rows["dec"] = WCS.sky(rows["x"], rows["y"])
    rows["forced_flux_err"] = ERROR * knobs.claimed_flux_error
    rows["forced_flux"] = rows["flux"] + ERROR * (rng.standard_normal(n) + knobs.flux_bias)
    rows["significance_at"] = np.nan if knobs.unexplained else 0.0
    return rows


def _detections(rng: np.random.Generator, truth: np.ndarray, visit: int, knobs: Knobs) -> tuple[np.ndarray, np.ndarray]:
    moved = truth["kind"] == b"moved_star"
    seen = np.where(moved, 30.0, np.abs(truth["snr"]) + rng.standard_normal(len(truth)))
    index = np.flatnonzero((seen > knobs.threshold) & (rng.random(len(truth)) >= knobs.lose))
    t, rows = truth[index], empty(MEASURED, len(index))
    sign = np.where(t["flux"] < 0, -1.0, 1.0)
    rows["visit"], rows["detector"], rows["snr"] = visit, 4, seen[index]
    rows["psfFlux"], rows["psfFluxErr"], rows["isNegative"] = seen[index] * sign * ERROR, ERROR, sign < 0
    error = np.sqrt(2.0) * SIGMA / seen[index]
    rows["xErr"] = rows["yErr"] = error
    rows["x"] = t["x"] + error * knobs.position_error * rng.standard_normal(len(t)) + knobs.offset_arcsec / SCALE
    rows["y"] = t["y"] + error * knobs.position_error * rng.standard_normal(len(t))
    rows["templateFlux"], rows["templateFluxErr"] = 1000.0, ERROR
    rows["reliability"] = np.where(rng.random(len(t)) < knobs.real_score, rng.beta(20, 1, len(t)) * 0.5 + 0.5,
                                   rng.uniform(0, 0.5, len(t)))
    rows["isDipole"] = rng.random(len(t)) < np.where(t["kind"] == b"moved_star", knobs.dipoles, knobs.point_dipoles)
    for r, s in zip(rows, t, strict=True):
        if s["trail_length"] > 1:
            length, angle = fisher(float(abs(s["snr"])), float(s["trail_length"]), SIGMA)
            r["trailLength"] = s["trail_length"] + knobs.trail_error * length * rng.standard_normal()
            r["trailAngle"] = (s["trail_angle"] + knobs.trail_error * angle * rng.standard_normal() + 90) % 180 - 90
    return _boxes(rows), index


def _boxes(rows: np.ndarray) -> np.ndarray:
    for name, reach in (("bbox_x0", -6), ("bbox_x1", 6), ("bbox_y0", -6), ("bbox_y1", 6)):
        coordinate = name[5]
        rows[name] = np.rint(rows[coordinate]) + reach
    for name in NEW_OBJECT_FLAGS:
        rows[name] = False
    return rows


def _false(rng: np.random.Generator, visit: int, knobs: Knobs, n_real: int) -> tuple[np.ndarray, np.ndarray]:
    """Artifacts and the detections that they make: 8 to 1 of them stopped by their score."""
    n = rng.poisson(knobs.false_alerts)
    stopped = rng.poisson(6)
    rows, pixels = empty(MEASURED, n + stopped), empty(TRUTH_PIXELS, n + stopped)
    rows["visit"] = pixels["visit"] = visit
    rows["detector"] = pixels["detector"] = 4
    rows["x"], rows["y"] = rng.uniform(5, SIDE - 5, n + stopped), rng.uniform(3, 15, n + stopped)
    rows["snr"] = 5 + rng.exponential(8, n + stopped)
    rows["psfFlux"], rows["psfFluxErr"] = rows["snr"] * ERROR, ERROR
    rows["reliability"] = np.concatenate([rng.uniform(0.5, 0.9, n), rng.beta(1, 12, stopped) * 0.5])
    pixels["kind"] = rng.choice([b"cosmic_ray", b"streak", b"bright_star", b"bad_column"], n + stopped,
                                p=[0.6, 0.2, 0.15, 0.05])
    pixels["x0"], pixels["y0"], pixels["x1"], pixels["y1"] = rows["x"] - 2, rows["y"] - 1, rows["x"] + 2, rows["y"] + 1
    pixels["width"], pixels["truthId"] = 1.5, np.arange(n + stopped)
    pixels["kind"][pixels["truthId"] % 7 == 6] = b"bright_star"
    return pixels, _boxes(rows)


def _dia_sources(rng: np.random.Generator, rows: np.ndarray, truth: np.ndarray, real: np.ndarray, visit: int,
                 mjd: float, knobs: Knobs) -> np.ndarray:
    out = DIA_SOURCE.empty(len(rows))
    for name in ("visit", "detector", "x", "y", "xErr", "yErr", "snr", "psfFlux", "psfFluxErr", "isNegative",
                 "isDipole", "reliability", "templateFlux", "templateFluxErr"):
        out[name] = rows[name]
    out["diaSourceId"] = visit * 100000 + rows["id"].astype(np.int64)
    out["ra"], out["dec"] = WCS.sky(rows["x"], rows["y"])
    out["raErr"] = rows["xErr"] * SCALE / 3600      # to the East, as packets have it
    out["decErr"] = rows["yErr"] * SCALE / 3600
    out["midpointMjdTai"] = mjd
    owner = np.where(real >= 0, truth["truthId"][np.maximum(real, 0)], 0)
    known = np.where(real >= 0, truth["ssObjectId"][np.maximum(real, 0)], 0)
    known = np.where(rng.random(len(rows)) < knobs.ss_lost, 0, known)
    objects = np.where(owner > 0, owner, 10_000_000 + out["diaSourceId"])
    objects = np.where(rng.random(len(rows)) < knobs.split, 20_000_000 + rng.integers(0, 50, len(rows)), objects)
    out["ssObjectId"], out["diaObjectId"] = known, np.where(known > 0, 0, objects)
    return out


def _objects(sources: np.ndarray, mjd: float) -> np.ndarray:
    chosen = sources[sources["diaObjectId"] > 0]
    _, once = np.unique(chosen["diaObjectId"], return_index=True)
    out = DIA_OBJECT.empty(len(once))
    for name in ("diaObjectId", "ra", "dec"):
        out[name] = chosen[name][once]
    out["firstDiaSourceMjdTai"] = mjd
    return out


def _rejections(rows: np.ndarray, visit: int) -> np.ndarray:
    out = empty(REJECTION, len(rows))
    for name in REJECTION.names or ():
        if name in (rows.dtype.names or ()):
            out[name] = rows[name]
    out["ra"], out["dec"] = WCS.sky(rows["x"], rows["y"])
    out["visit"], out["stage"], out["reason"] = visit, b"reliability", b"reliability"
    return out


def _forced(rng: np.random.Generator, truth: np.ndarray, sources: np.ndarray, visit: int, mjd: float, i: int,
            knobs: Knobs) -> np.ndarray:
    """Forced photometry of every static source's object: as good as its claimed error."""
    static = truth[np.isin(truth["truthId"], sources["diaObjectId"])]
    out = DIA_FORCED_SOURCE.empty(len(static))
    out["diaObjectId"], out["visit"], out["detector"], out["midpointMjdTai"] = static["truthId"], visit, 4, mjd
    out["diaForcedSourceId"] = visit * 100000 + np.arange(len(static))
    out["ra"], out["dec"], out["band"] = static["ra"], static["dec"], b"gri"[i % 3:i % 3 + 1]
    out["psfFlux"] = static["flux"] + ERROR * (rng.standard_normal(len(static)) + knobs.flux_bias)
    out["psfFluxErr"] = ERROR * knobs.claimed_flux_error
    return out


def _ss_sources(rng: np.random.Generator, sources: np.ndarray, knobs: Knobs) -> np.ndarray:
    known = sources[sources["ssObjectId"] > 0]
    out = SS_SOURCE.empty(len(known))
    out["diaSourceId"], out["ssObjectId"] = known["diaSourceId"], known["ssObjectId"]
    out["ephOffsetAlongTrack"] = knobs.ephemeris_arcsec + rng.normal(0, 0.05, len(known))
    out["ephOffsetCrossTrack"] = rng.normal(0, 0.05, len(known))
    out["ephOffset"] = np.hypot(out["ephOffsetAlongTrack"], out["ephOffsetCrossTrack"])
    return out


def _stars(rng: np.random.Generator, visit: int, i: int, knobs: Knobs) -> np.ndarray:
    """Direct-image stars: found above S/N 30, their errors as claimed."""
    n = 120
    out = empty(STAR_TRUTH, n)
    out["visit"], out["detector"], out["band"], out["starId"] = visit, 4, b"gri"[i % 3:i % 3 + 1], np.arange(n)
    out["snr"] = np.geomspace(5, 500, n)
    out["flux"] = out["snr"] * ERROR
    out["found"], out["judged"], out["isolated"] = out["snr"] > 30, True, True
    seen = np.flatnonzero(out["found"])
    out["psfFlux"][seen] = out["flux"][seen] * (1 + knobs.star_bias) + ERROR * rng.standard_normal(len(seen))
    out["psfFluxErr"][seen] = ERROR
    error = np.sqrt(2.0) * SIGMA * SCALE / out["snr"][seen]
    out["position_err_arcsec"][seen] = error
    for name in ("dx_arcsec", "dy_arcsec"):
        out[name][seen] = error * rng.standard_normal(len(seen))
    return out


def _publications(rng: np.random.Generator, sources: np.ndarray, visit: int, mjd: float, knobs: Knobs) -> np.ndarray:
    out = empty(PUBLICATION, len(sources))
    out["diaSourceId"], out["visit"], out["detector"] = sources["diaSourceId"], visit, 4
    out["bytes"] = knobs.packet_bytes
    out["shutter_close_mjd_tai"] = mjd + 15 / 86400
    out["readout_end_mjd_tai"] = mjd + 17 / 86400
    out["sent_mjd_tai"] = mjd + (15 + 38 + rng.gamma(2.0, 1.5) + rng.uniform(0, 2, len(sources))) / 86400
    return out


def _steps(rng: np.random.Generator, visit: int, mjd: float, knobs: Knobs) -> np.ndarray:
    out = empty(STEP, len(STEPS))
    out["visit"], out["detector"], out["name"] = visit, 4, [name.encode() for name, _, _ in STEPS]
    out["size"] = SIDE * SIDE
    out["start_mjd_tai"] = mjd + (15 + np.array([start for _, start, _ in STEPS])) / 86400
    out["duration_s"] = np.array([duration for _, _, duration in STEPS]) * rng.gamma(50, 1 / 50, len(STEPS))
    out["measured"] = ~np.isin(out["name"], [b"preload", b"readout", b"transfer", b"queue"])
    out["cpu_s"] = np.where(out["measured"], out["duration_s"] / knobs.cost, np.nan)
    out["peak_mb"] = np.where(out["measured"], 300 + 40 * np.arange(len(STEPS)), np.nan)
    return out


def _log(rng: np.random.Generator, visit: int, mjd: float, detected: int, sources: int, i: int,
         knobs: Knobs) -> np.ndarray:
    out = empty(EXPOSURE_LOG, 1)
    values = {"visit": visit, "detector": 4, "band": b"gri"[i % 3:i % 3 + 1], "midpointMjdTai": mjd, "exposure_s": 30.0,
              "nx": SIDE, "ny": SIDE, "ra": RA, "dec": DEC, "airmass": 1.1, "fidelity": b"pixels", "status": b"done",
              "n_detected": detected, "n_sources": sources, "n_alerts": sources, "usable_px": SIDE * SIDE,
              "shutter_close_mjd_tai": mjd + 15 / 86400, "readout_end_mjd_tai": mjd + 17 / 86400,
              "fwhm_arcsec": 0.83, "true_fwhm_arcsec": 0.83, "true_psf_sigma_px": SIGMA, "true_zeropoint": 31.0,
              "psf_sigma_px": SIGMA * (1 + knobs.psf_size * rng.uniform(-1, 1)), "true_m5": 24.5,
              "zeropoint": 31.0 + knobs.zeropoint * rng.uniform(-1, 1), "mag_lim": 24.5 + knobs.depth,
              "noise_correlation": knobs.lag1, "snr_rms": knobs.snr_rms + rng.normal(0, 0.01),
              "wcs_rms_arcsec": knobs.wcs_arcsec, "template_coverage": 0.99, "template_mag_lim": 25.6,
              "template_fwhm_arcsec": 0.7, "template_high_variance": 0.01, "template_n_inputs": 6.0,
              "n_new_objects": 5, "astrom_offset_mean": 0.012, "astrom_offset_std": 0.01}
    for name, value in values.items():
        out[name] = value
    return out


def _stamps(folder: Path, recorder: ParquetRecorder, rng: np.random.Generator, truth: np.ndarray, false: np.ndarray,
            visit: int, limit: int) -> None:
    snr = np.abs(truth["snr"])
    chosen = np.concatenate([np.flatnonzero(snr > 8)[:limit], np.flatnonzero((snr > 3) & (snr < 5))[:1]])
    extra = false[:limit]
    rows = empty(STAMP, len(chosen) + len(extra))
    rows["visit"], rows["detector"], rows["index"] = visit, 4, np.arange(len(rows))
    rows["kind"] = np.where(np.arange(len(rows)) < len(chosen), b"truth", b"source")
    rows["truthId"][:len(chosen)], rows["id"][len(chosen):] = truth["truthId"][chosen], extra["id"]
    for name in ("x", "y"):
        rows[name] = np.concatenate([truth[name][chosen], extra[name]])
    flux = np.concatenate([truth["flux"][chosen], extra["psfFlux"]])
    grid = np.arange(STAMP_SIDE) - STAMP_SIDE // 2
    profile = np.exp(-(grid[:, None]**2 + grid**2) / (2 * SIGMA**2)) / (2 * np.pi * SIGMA**2)
    noise = ERROR / np.sqrt(4 * np.pi * SIGMA**2)
    planes = rng.normal(0, noise, (len(rows), 3, STAMP_SIDE, STAMP_SIDE)).astype(np.float32)
    planes[:, 1] *= 0.3
    planes[:, 0] += (flux[:, None, None] * profile).astype(np.float32)
    planes[:, 2] += (flux[:, None, None] * profile).astype(np.float32)
    planes[:1, :, :6] = np.nan
    (folder / "stamps").mkdir(exist_ok=True)
    np.save(folder / "stamps" / f"{visit}_4.npy", planes)
    recorder.append("stamp", rows)
