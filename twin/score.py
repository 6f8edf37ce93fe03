"""Any program's detections laid against a run's truth: an answer sheet becomes a run folder that reports read.

    RUN    truth, artifacts and circumstances of the detector-visits; nothing that our own pipeline measured of them
    FILE   detections: DIASources (alerts), rejections (stopped by the program's own reliability score), measurements

Positions go from pixels to the sky and back by the WCS that `twin.export` gave. What the program does not say stays
null, and facts that begin with "not known" list it.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.errors import InputError
from pipeline.transform import jacobians
from reports import known
from reports.match import RADIUS_PX, Matches, distances, match
from reports.store import Store, StoreError, groups
from reports.store import empty as blank
from schemas import ids
from schemas.measures import EXPOSURE_LOG, REJECTION, empty, fact_rows
from schemas.table import DIA_SOURCE, SUMMARY
from schemas.wcs import Wcs
from twin.answers import Answers, read_answers
from twin.folders import claimed, whole
from twin.halves import observatory
from twin.recorder import ParquetRecorder

# What a detector-visit is, whoever looks at it; true values beside.
CIRCUMSTANCES: Final = ("visit", "detector", "band", "midpointMjdTai", "exposure_s", "nx", "ny", "ra", "dec", "airmass",
                        "fidelity", "shutter_close_mjd_tai", "readout_end_mjd_tai")
OURS: Final = ("forced_flux", "forced_flux_err", "mask_at", "significance_at")   # of TRUTH: our pixels at true places

CORNERS: Final = ("llc", "ulc", "urc", "lrc", "")    # of DetectorVisitProcessingSummary; the last is the centre

BRIGHT_SNR: Final = 10.0           # true sources by which units and conventions are checked
ENOUGH: Final = 8                  # of them
MARGIN_PX: Final = 100.0           # positions so far off the image are still taken as meant

_SAME: Final = ("psfFlux", "psfFluxErr", "isDipole", "trailFlux", "scienceFlux", "scienceFluxErr", "templateFlux",
                "templateFluxErr", "extendedness", "reliability")   # in DIASource and in MEASUREMENT alike
_SKY: Final = ("ra", "dec", "x", "y", "raErr", "decErr", "diaObjectId", "ssObjectId", "dipoleLength", "trailLength",
               "trailAngle")

# Topics that a report knows nothing of (`reports.known`): never from a catalogue, and not without a column.
_NEVER: Final = {
    "work and latency": "a catalogue has no clock",
    "its own pixels": "no masks, forced photometry and cutouts: a source without a detection is called not detected, "
                      "whatever stopped it",
    "calibration": "the program's own PSF, WCS and zeropoint are not in a catalogue"}
_NEEDED: Final = {
    "psfFlux": ("fluxes", "no column psfFlux; without sign or isNegative every detection counts as positive"),
    "snr": ("signal-to-noise", "no column snr, and no psfFlux with psfFluxErr"),
    "reliability": ("reliability", "no column reliability: purity is one point, not a curve"),
    "diaObjectId": ("association", "no column diaObjectId"),
    "ssObjectId": ("Solar System objects", "no column ssObjectId"),
    "raErr": ("errors of positions", "no columns raErr and decErr"),
    "isDipole": ("dipoles", "no column isDipole"),
    "trailLength": ("trails", "no columns trailLength and trailAngle")}


@dataclass(frozen=True, slots=True)
class _Night:
    """The run that is answered."""

    folder: Path
    store: Store
    log: np.ndarray                            # EXPOSURE_LOG
    seed: int
    given: dict[tuple[int, int], Wcs]          # by visit and detector: of the pair; the true one where none was given
    pointing: dict[tuple[int, int], Wcs]       # of the exposure as it arrived


def score_catalog(run: Path, file: Path, out: Path) -> Path:
    """Lay the detections of a file against the truth of a run: the new run folder `out`.

    Where the file has a column `seed`, its rows of the run's seed count. InputError names what is wrong with the file,
    and where; nothing is left half-written.
    """
    night = _night(run)
    answers = _of_run(read_answers(file), night)
    rows = _placed(answers, night)
    with claimed(out):
        shutil.copyfile(run / "scenario.toml", out / "scenario.toml")     # another answer may be laid beside this one
        with ParquetRecorder(out / "measures") as recorder:
            for table, kept in _tables(rows, answers.given, night).items():
                recorder.append(table, kept)
        facts = _facts(answers, night) | {f"{known.CHECK}{i}": text for i, text in
                                          enumerate(_checks(match(Store(out)), answers, night, len(rows)), 1)}
        with ParquetRecorder(out / "measures") as recorder:
            recorder.append("fact", fact_rows(facts))
    return out


def summary(folder: Path) -> str:
    """A line on a scored catalogue, and one for each doubt about it."""
    facts = Store(folder).facts()
    doubts = [f"  {value}" for key, value in facts.items() if key.startswith(known.CHECK)]
    return "\n".join([f"{facts['detections']} detections of {facts['program']} in {facts['detector_visits']} "
                      f"detector-visits, {facts['alerts']} of them alerts", *doubts])


# --- the run ---------------------------------------------------------------------------------------------------------

def _night(run: Path) -> _Night:
    whole(run)
    try:
        store = Store(run)
        log, facts = store.table("exposure_log"), store.facts()
        summaries = store.optional("DetectorVisitProcessingSummary")
    except StoreError as error:
        raise InputError(str(error)) from None
    if not (run / "scenario.toml").is_file() or not np.all(log["fidelity"] == b"pixels"):
        raise InputError(f"{run}: not a simulated run of pixels, kind {facts.get('kind', 'unknown')!r}: there is no "
                         "truth that another program could have seen")
    here = observatory(run)
    log = log.copy()
    log["nx"], log["ny"] = here.config.camera.nx, here.config.camera.ny
    found = {(int(row["visit"]), int(row["detector"])): row for row in summaries}
    given, pointing = {}, {}
    for visit in here.visits:
        for detector in here.config.camera.detectors:
            key, true = (visit.visit, detector), here.facts(visit, detector)
            given[key] = calibrated_wcs(found[key], visit.ra, visit.dec) if key in found else true.wcs
            pointing[key] = true.pointing
    return _Night(run, store, log, here.seed, given, pointing)


def calibrated_wcs(summary: np.void, ra: float, dec: float) -> Wcs:
    """The WCS that calibration found, from corners and centre that DetectorVisitProcessingSummary keeps.

    It is a tangent plane about the boresight; StoreError where the five points are none.
    """
    nx, ny = int(summary["xSize"]), int(summary["ySize"])
    x, y = np.array([0, 0, nx - 1, nx - 1, (nx - 1) / 2]), np.array([0, ny - 1, ny - 1, 0, (ny - 1) / 2])
    sky = (np.array([float(summary[f"{name}{axis}"]) for name in CORNERS]) for axis in ("ra", "dec"))
    plane = np.stack(Wcs((0.0, 0.0), (ra, dec), (1.0, 0.0, 0.0, 1.0)).pixels(*sky), axis=1)
    design = np.stack([np.ones(5), x, y], axis=1)
    (xi0, eta0), (a, c), (b, d) = solved = np.linalg.lstsq(design, plane, rcond=None)[0]
    cd = np.array([[a, b], [c, d]])
    if not np.abs(design @ solved - plane).max() < 1e-3 * np.sqrt(abs(np.linalg.det(cd))):
        raise StoreError(f"visit {summary['visit']}: the corners in DetectorVisitProcessingSummary are on no tangent "
                         f"plane about RA {ra:.4f}, Dec {dec:.4f}")
    x0, y0 = np.linalg.solve(cd, [-xi0, -eta0])
    return Wcs((float(x0), float(y0)), (ra, dec), (float(a), float(b), float(c), float(d)))


# --- the answers -----------------------------------------------------------------------------------------------------

def _of_run(answers: Answers, night: _Night) -> Answers:
    """The rows of the run's seed, each in a detector-visit of the run."""
    file, rows = answers.file, answers.rows
    if "seed" in answers.given and len(rows):
        answers = answers.where(rows["seed"] == night.seed)
        if not len(answers.rows):
            found = ", ".join(str(seed) for seed in np.unique(rows["seed"])[:8])
            raise InputError(f"{file}: no row has seed {night.seed}, that of {night.folder}; the file has {found}")
    rows = answers.rows.copy()
    detectors = np.unique(night.log["detector"])
    if "detector" not in answers.given:
        if len(detectors) > 1:
            raise InputError(f"{file}: no column detector; {night.folder} has {len(detectors)} detectors")
        rows["detector"] = detectors[0]
    for row in rows[["visit", "detector", "row"]]:
        if (int(row["visit"]), int(row["detector"])) not in night.given:
            visits = np.unique(night.log["visit"])
            raise InputError(f"{file}: row {row['row']}: visit {row['visit']}, detector {row['detector']} is not in "
                             f"{night.folder}, which has visits {visits[0]} to {visits[-1]} ({len(visits)}) of "
                             f"detector {', '.join(map(str, detectors[:8]))}")
    return Answers(file, rows, answers.given)


def _placed(answers: Answers, night: _Night) -> np.ndarray:
    """The rows with pixel and sky positions, signs, S/N, times and ids all filled in."""
    rows, given = answers.rows.copy(), answers.given
    log = {(int(row["visit"]), int(row["detector"])): row for row in night.log}
    own_ids = "diaSourceId" in given and bool(np.all(rows["diaSourceId"] != 0))
    time = np.full(len(rows), np.nan)
    for key, index in groups(rows["visit"], rows["detector"]):
        visit, detector = int(key[0]), int(key[1])
        wcs = night.given[visit, detector]
        if "x" not in given:
            rows["x"][index], rows["y"][index] = wcs.pixels(rows["ra"][index], rows["dec"][index])
        if "ra" not in given:
            rows["ra"][index], rows["dec"][index] = wcs.sky(rows["x"][index], rows["y"][index])
        if not own_ids:
            rows["diaSourceId"][index] = ids.source_ids(visit, detector, np.arange(len(index)))
        time[index] = log[visit, detector]["midpointMjdTai"]
    rows["ra"] %= 360.0
    rows["midpointMjdTai"] = np.where(np.isfinite(rows["midpointMjdTai"]), rows["midpointMjdTai"], time)
    if "sign" in given:
        rows["psfFlux"] = rows["sign"] * np.abs(rows["psfFlux"])
        rows["isNegative"] = rows["sign"] < 0
    elif "isNegative" not in given:
        rows["isNegative"] = rows["psfFlux"] < 0
    with np.errstate(invalid="ignore", divide="ignore"):
        rows["snr"] = np.abs(np.where(np.isfinite(rows["snr"]), rows["snr"], rows["psfFlux"] / rows["psfFluxErr"]))
    rows["snr"][~np.isfinite(rows["snr"])] = np.nan
    _refuse_elsewhere(answers, rows, log, night)
    return rows


def _refuse_elsewhere(answers: Answers, rows: np.ndarray, log: dict[tuple[int, int], np.void], night: _Night) -> None:
    """InputError where not one position lies on its detector: with the unit that would bring it there."""
    if not len(rows) or np.any(_inside(rows["x"], rows["y"], night.log, MARGIN_PX)):
        return
    first, nx, ny = rows[0], int(night.log["nx"][0]), int(night.log["ny"][0])
    key = int(first["visit"]), int(first["detector"])
    if "x" in answers.given:
        raise InputError(f"{answers.file}: no position lies on its detector: row {first['row']} has x {first['x']:g}, "
                         f"y {first['y']:g}, detectors have {nx} x {ny} pixels")
    given = answers.rows[0]
    for unit, ra, dec in (("radians", np.degrees(given["ra"]), np.degrees(given["dec"])),
                          ("hours and degrees", 15 * given["ra"], given["dec"])):
        if np.any(_inside(*night.given[key].pixels(np.array([ra]), np.array([dec])), night.log, MARGIN_PX)):
            raise InputError(f"{answers.file}: ra and dec look like {unit}: row {first['row']} has {given['ra']:.6f}, "
                             f"{given['dec']:.6f}; degrees expected")
    raise InputError(f"{answers.file}: no position lies on its detector: row {first['row']} has ra {given['ra']:.5f}, "
                     f"dec {given['dec']:.5f}, visit {key[0]} looks at {log[key]['ra']:.5f}, {log[key]['dec']:.5f} "
                     "(degrees)")


def _inside(x: np.ndarray, y: np.ndarray, log: np.ndarray, margin: float) -> np.ndarray:
    nx, ny = int(log["nx"][0]), int(log["ny"][0])
    return np.asarray((x > -0.5 - margin) & (x < nx - 0.5 + margin) & (y > -0.5 - margin) & (y < ny - 0.5 + margin))


# --- tables ----------------------------------------------------------------------------------------------------------

def _tables(rows: np.ndarray, given: frozenset[str], night: _Night) -> dict[str, np.ndarray]:
    """The run folder's tables, by name."""
    measured = _measurements(rows, night)
    sent = rows["alert"]
    return {"exposure_log": _log(rows, night), "truth": _truth(night), "truth_pixels": night.store.optional(
        "truth_pixels"), "measurement": measured, "DiaSource": _sources(rows[sent], night),
        "rejection": _rejections(rows[~sent], measured["id"][~sent]),
        "DetectorVisitProcessingSummary": _outlines(night)}


def _log(rows: np.ndarray, night: _Night) -> np.ndarray:
    """What the detector-visits are; a step of ours that failed did not fail in the program."""
    log, out = night.log, empty(EXPOSURE_LOG, len(night.log))
    for name in (*CIRCUMSTANCES, *(n for n in EXPOSURE_LOG.names or () if n.startswith("true_"))):
        out[name] = log[name]
    no_work = log["status"] == b"no_work"
    out["status"] = np.where(no_work, log["status"], b"done")
    out["reason"] = np.where(no_work, log["reason"], b"")
    opened = _opening(rows)
    for row in out:
        here = (rows["visit"] == row["visit"]) & (rows["detector"] == row["detector"])
        row["n_detected"], row["n_new_objects"] = here.sum(), np.sum(here & opened)
        row["n_sources"] = row["n_alerts"] = np.sum(here & rows["alert"])
    return out


def _opening(rows: np.ndarray) -> np.ndarray:
    """(n,) bool: the alert is the first of its object."""
    order = np.lexsort((rows["row"], rows["midpointMjdTai"]))
    order = order[rows["alert"][order] & (rows["diaObjectId"][order] > 0)]
    out = np.zeros(len(rows), bool)
    out[order[np.unique(rows["diaObjectId"][order], return_index=True)[1]]] = True
    return out


def _truth(night: _Night) -> np.ndarray:
    """TRUTH without what our own pixels hold at true places."""
    truth = night.store.optional("truth").copy()
    nulls = blank("truth", 1)
    for name in OURS:
        truth[name] = nulls[name][0]
    truth["reason"] = b"not detected"
    return truth


def _outlines(night: _Night) -> np.ndarray:
    """Where the detectors lay, by the WCS that was given: all of DetectorVisitProcessingSummary that a score needs."""
    rows = night.store.optional("DetectorVisitProcessingSummary")
    out = SUMMARY.empty(len(rows))
    for name in ("visit", "detector", "xSize", "ySize", *(f"{corner}{axis}" for corner in CORNERS
                                                          for axis in ("ra", "dec"))):
        out[name] = rows[name]
    return out


def _measurements(rows: np.ndarray, night: _Night) -> np.ndarray:
    """MEASUREMENT rows: shapes in pixels, by the WCS at the place."""
    out = blank("measurement", len(rows))
    for name in ("visit", "detector", "x", "y", "snr", "isNegative", *_SAME):
        out[name] = rows[name]
    for key, index in groups(rows["visit"], rows["detector"]):
        out["id"][index] = np.arange(len(index))
        part = rows[index]
        toward = np.linalg.inv(jacobians(night.given[int(key[0]), int(key[1])], part["x"], part["y"]))
        bearing, length = np.radians(part["trailAngle"]), part["trailLength"] / 3600
        along = toward @ np.stack([np.sin(bearing), np.cos(bearing)], axis=-1)[..., None]
        dx, dy = along[..., 0, 0], along[..., 1, 0]
        out["trailLength"][index] = length * np.hypot(dx, dy)
        out["trailAngle"][index] = 90.0 - (90.0 - np.degrees(np.arctan2(dy, dx))) % 180.0
        out["dipoleLength"][index] = part["dipoleLength"] / 3600 * np.sqrt(np.abs(np.linalg.det(toward)))
    return out


def _sources(rows: np.ndarray, night: _Night) -> np.ndarray:
    """DIA_SOURCE rows of the alerts."""
    out = DIA_SOURCE.empty(len(rows))
    for name in ("diaSourceId", "visit", "detector", "midpointMjdTai", "snr", "isNegative", *_SAME, *_SKY):
        out[name] = rows[name]
    bands = {int(row["visit"]): row["band"] for row in night.log}
    out["band"] = [bands[int(visit)] for visit in rows["visit"]]
    return out


def _rejections(rows: np.ndarray, measured_ids: np.ndarray) -> np.ndarray:
    """REJECTION rows of what the program's own reliability score stopped."""
    out = empty(REJECTION, len(rows))
    for name in ("visit", "detector", "x", "y", "ra", "dec", "snr", "psfFlux", "reliability", "isNegative"):
        out[name] = rows[name]
    out["id"], out["stage"], out["reason"] = measured_ids, b"reliability", b"reliability"
    return out


# --- facts -----------------------------------------------------------------------------------------------------------

def _facts(answers: Answers, night: _Night) -> dict[str, str]:
    theirs, rows, given = night.store.facts(), answers.rows, answers.given
    said = given | ({"snr"} if {"psfFlux", "psfFluxErr"} <= given else set())
    facts = {"kind": known.CATALOGUE, "fidelity": "pixels", "program": answers.file.name,
             "run": night.folder.resolve().name, "scenario": theirs.get("scenario", ""),
             "seed": str(night.seed), "detector_visits": str(len(night.log)), "detections": str(len(rows)),
             "alerts": str(int(rows["alert"].sum())), "columns": ", ".join(sorted(given)),
             "twin": version("rubin-alert-twin")}
    lacking = [pair for column, pair in _NEEDED.items() if column not in said]
    return facts | {f"{known.FACT}{topic}": why for topic, why in (*_NEVER.items(), *lacking)}


def _checks(matches: Matches, answers: Answers, night: _Night, n: int) -> Sequence[str]:
    """Doubts about units and conventions, from bright true sources that are alone."""
    truth, sources = matches.truth, matches.sources
    if not n:
        return ["The file holds no detections: a result, if the program found none."]
    out = []
    if off := int(np.sum(~_inside(sources["x"], sources["y"], night.log, 0.0))):
        out.append(f"{off} of {n} positions lie off their detector.")
    bright = np.flatnonzero(matches.judged & truth["isolated"] & (np.abs(truth["snr"]) > BRIGHT_SNR)
                            & (np.nan_to_num(truth["trail_length"]) < 1.0))
    nearest = _nearest(truth[bright], sources, sources["x"], sources["y"])
    t, s = truth[bright][nearest >= 0], sources[nearest[nearest >= 0]]
    if len(t) >= ENOUGH:
        out += _doubts(t, s)
    if "x" not in answers.given and len(bright) >= ENOUGH:
        x, y = np.empty(n), np.empty(n)
        for key, index in groups(sources["visit"], sources["detector"]):
            wcs = night.pointing[int(key[0]), int(key[1])]
            x[index], y[index] = wcs.pixels(sources["ra"][index], sources["dec"][index])
        pointed = int(np.sum(_nearest(truth[bright], sources, x, y) >= 0))
        if pointed >= ENOUGH and pointed > 2 * len(t):
            out.append(f"Positions fit the pointing WCS of exposures/ ({pointed} bright sources, {len(t)} by the "
                       "calibrated one): calibrate it, or take that of pairs/.")
    return out


def _nearest(truth: np.ndarray, sources: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n_truth,) the nearest detection of either sign within the matching radius; -1 for none."""
    out = np.full(len(truth), -1)
    by_source = dict(groups(sources["visit"], sources["detector"]))
    for key, index in groups(truth["visit"], truth["detector"]):
        if (there := by_source.get(key)) is None:
            continue
        gap = distances(truth[index], x[there], y[there])
        best = gap.argmin(axis=1)
        near = gap[np.arange(len(index)), best] <= RADIUS_PX
        out[index[near]] = there[best[near]]
    return out


def _doubts(truth: np.ndarray, sources: np.ndarray) -> list[str]:
    """What bright sources, and the detections nearest to them, say of signs, pixel origin and flux units."""
    out = []
    right = np.sign(truth["flux"]) == np.where(sources["isNegative"], -1, 1)
    if right.mean() < 0.5:
        out.append(f"{int(np.sum(~right))} of {len(truth)} bright sources have the other sign: differences are science "
                   "less template.")
    dx, dy = float(np.median(sources["x"] - truth["x"])), float(np.median(sources["y"] - truth["y"]))
    if np.hypot(dx, dy) > 0.5:
        out.append(f"Positions lie {dx:+.2f}, {dy:+.2f} pixels from the true ones in the median of {len(truth)} bright "
                   "sources: pixels count from 0, and the WCS is that of pairs/.")
    known = np.isfinite(sources["psfFlux"])
    if known.sum() >= ENOUGH:
        ratio = float(np.median(np.abs(sources["psfFlux"][known] / truth["flux"][known])))
        if not 0.5 < ratio < 2.0:
            out.append(f"Fluxes are {ratio:.3g} of the true ones in the median of {int(known.sum())} bright sources: "
                       "nJy expected.")
    return out
