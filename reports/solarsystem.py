"""Known asteroids: which of their detections got their SSObject, and why the others did not."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np

from reports.intervals import Estimate, fraction
from reports.match import Matches
from reports.store import Store

MIN_SNR: Final = 6.0
RADIUS_ARCSEC: Final = 1.0         # association radius, paper 4.9
MAX_EPHEMERIS_ERROR: Final = 0.5   # [arcsec]: beyond it a detection is not judged

KNOWN: Final = np.dtype([
    ("run", "i2"), ("visit", "i8"), ("detector", "i2"), ("truthId", "i8"), ("ssObjectId", "i8"), ("snr", "f4"),
    ("eph_err_arcsec", "f4"), ("object_within", "?"), ("judged", "?"), ("associated", "?"), ("cause", "S40")])


@dataclass(frozen=True, slots=True)
class SolarSystem:
    """Detections (alerts) of known asteroids above S/N 6."""

    rows: np.ndarray           # KNOWN
    associated: Estimate       # of those without a DIAObject within 1" and with an ephemeris error under 0.5"
    causes: dict[str, int]     # of every detection without its SSObject


def solar_system(matches: Matches, objects: np.ndarray) -> SolarSystem:
    """Judge alerts of known asteroids; `objects` are OBJECT rows, the DIAObjects of all runs."""
    use = matches.alerted & (matches.truth["ssObjectId"] > 0) & (np.abs(matches.truth["snr"]) > MIN_SNR)
    truth, sources = matches.truth[use], matches.sources[matches.found[use]]
    rows = np.zeros(len(truth), KNOWN)
    for column in ("run", "visit", "detector", "truthId", "ssObjectId", "snr", "eph_err_arcsec"):
        rows[column] = truth[column]
    rows["object_within"] = _near_object(truth, sources, objects)
    rows["associated"] = sources["ssObjectId"] == truth["ssObjectId"]
    rows["judged"] = ~rows["object_within"] & (rows["eph_err_arcsec"] < MAX_EPHEMERIS_ERROR)
    rows["cause"] = [_cause(row, int(source["ssObjectId"])).encode() for row, source in zip(rows, sources, strict=True)]
    judged = rows[rows["judged"]]
    missed = rows[~rows["associated"]]
    causes = Counter(cause.decode() for cause in missed["cause"].tolist())
    return SolarSystem(rows, fraction(int(judged["associated"].sum()), len(judged)), dict(sorted(causes.items())))


OBJECT: Final = np.dtype([("run", "i2"), ("diaObjectId", "i8"), ("ra", "f8"), ("dec", "f8"), ("first", "f8")])


def objects(store: Store, run: int = 0) -> np.ndarray:
    """OBJECT rows of a run: every DIAObject once, with the time of its first source [MJD TAI]."""
    found = store.optional("DiaObject")
    _, once = np.unique(found["diaObjectId"], return_index=True)
    rows = np.zeros(len(once), OBJECT)
    rows["run"], rows["first"] = run, found["firstDiaSourceMjdTai"][once]
    for name in ("diaObjectId", "ra", "dec"):
        rows[name] = found[name][once]
    return rows


def _near_object(truth: np.ndarray, sources: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Whether a DIAObject older than the detection lies within the association radius."""
    out = np.zeros(len(truth), bool)
    for i, (row, source) in enumerate(zip(truth, sources, strict=True)):
        here = objects[(objects["run"] == row["run"]) & (np.abs(objects["dec"] - source["dec"]) < RADIUS_ARCSEC / 3600)]
        east = ((here["ra"] - source["ra"] + 180) % 360 - 180) * np.cos(np.radians(source["dec"])) * 3600
        gap = np.hypot(east, (here["dec"] - source["dec"]) * 3600)
        older = ~(here["first"] >= source["midpointMjdTai"] - 1e-9)   # an unknown time counts as older
        out[i] = bool(np.any((gap <= RADIUS_ARCSEC) & older))
    return out


def _cause(row: np.void, got: int) -> str:
    if row["associated"]:
        return ""
    if got > 0:
        return "another SSObject was nearer"
    if row["object_within"]:
        return 'a DIAObject lies within 1"'
    if not row["eph_err_arcsec"] < MAX_EPHEMERIS_ERROR:
        return "ephemeris error not under 0.5 arcsec"
    return "no SSObject associated"
