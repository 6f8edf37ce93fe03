"""A night in numbers once the morning is over: a row per visit, and one summary.

Everything is counted from the prompt tables and the log of what became of each detector-visit; nothing here knows a
truth.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.batch.kept import FIRST_ID
from pipeline.objects import slots
from schemas import ids
from schemas.measures import VISIT_SUMMARY, empty


@dataclass(frozen=True, slots=True)
class Tables:
    """The prompt tables of a night, and its log."""

    objects: np.ndarray      # DIA_OBJECT, every version
    sources: np.ndarray      # DIA_SOURCE of the night
    forced: np.ndarray       # DIA_FORCED_SOURCE of the night's visits, and those that precovery added to others
    summaries: np.ndarray    # SUMMARY of the night
    log: np.ndarray          # EXPOSURE_LOG, the last row of each detector-visit
    caught_up: np.ndarray    # (n, 2) int64 visit and detector of those that the morning did


def visit_summaries(tables: Tables) -> np.ndarray:
    """VISIT_SUMMARY rows in time order."""
    log, sources, forced = tables.log, tables.sources, tables.forced
    visits = np.unique(np.concatenate([log["visit"], tables.summaries["visit"], sources["visit"]]))
    rows = empty(VISIT_SUMMARY, len(visits))
    rows["visit"] = visits
    for name in (n for n in VISIT_SUMMARY.names or () if n.startswith("n_")):
        rows[name] = 0
    caught = set(map(tuple, tables.caught_up.tolist()))
    late = np.array([(v, d) in caught for v, d in zip(log["visit"].tolist(), log["detector"].tolist(), strict=True)],
                    bool)
    done = log["status"] == b"done"
    _count(rows, "n_done", log["visit"][done])
    _count(rows, "n_caught_up", log["visit"][done & late])
    _count(rows, "n_no_work", log["visit"][log["status"] == b"no_work"])
    _count(rows, "n_failed", log["visit"][~done & (log["status"] != b"no_work")])
    founding = slots(sources["diaSourceId"], np.unique(tables.objects["diaObjectId"])) >= 0
    _count(rows, "n_sources", sources["visit"])
    _count(rows, "n_withdrawn", sources["visit"][np.isfinite(sources["timeWithdrawnMjdTai"])])
    _count(rows, "n_ss", sources["visit"][sources["ssObjectId"] != 0])
    _count(rows, "n_founding", sources["visit"][founding])
    _count(rows, "n_lost_founding", sources["visit"][founding & (sources["diaObjectId"] != sources["diaSourceId"])])
    precovered = ids.unpack(forced["diaForcedSourceId"]).counter >= FIRST_ID
    _count(rows, "n_forced", forced["visit"][~precovered])
    _count(rows, "n_precovered", forced["visit"][precovered])
    alerts = np.maximum(log["n_alerts"], 0)
    rows["n_alerts"] = np.bincount(slots(log["visit"], visits), alerts, len(visits))[:len(visits)]
    _facts(rows, tables)
    return rows[np.argsort(np.where(np.isfinite(rows["midpointMjdTai"]), rows["midpointMjdTai"], 0), kind="stable")]


def night_summary(tables: Tables, rows: np.ndarray) -> dict[str, Any]:
    """The night in plain numbers, for JSON."""
    objects = tables.objects
    current = np.isnan(objects["validityEndMjdTai"])
    night = slots(objects["diaObjectId"], np.unique(tables.sources["diaSourceId"])) >= 0
    counts = {name.removeprefix("n_"): int(rows[name].sum()) for name in VISIT_SUMMARY.names or ()
              if name.startswith("n_")}
    lone = current & (objects["nDiaSources"] == 1)
    return {"visits": len(rows), **counts,
            "precovered": int(np.sum(ids.unpack(tables.forced["diaForcedSourceId"]).counter >= FIRST_ID)),
            "objects": int(current.sum()), "objects_of_the_night": int(np.sum(current & night)),
            "objects_closed": int(len(np.unique(objects["diaObjectId"])) - current.sum()),
            "objects_with_one_source": int(lone.sum()),
            "median_reliability": _rounded(np.nanmedian(tables.sources["reliability"]) if len(tables.sources)
                                           else np.nan)}


def _count(rows: np.ndarray, name: str, visits: np.ndarray) -> None:
    place = slots(visits, rows["visit"])
    rows[name] = np.bincount(place[place >= 0], minlength=len(rows))[:len(rows)]


def _facts(rows: np.ndarray, tables: Tables) -> None:
    """Band, time and medians of each visit."""
    log, sources = tables.log, tables.sources
    for row in rows:
        of, mine = log[log["visit"] == row["visit"]], sources[["reliability", "snr", "midpointMjdTai", "band"]][
            sources["visit"] == row["visit"]]
        summary = tables.summaries[["psfSigma", "zeroPoint"]][tables.summaries["visit"] == row["visit"]]
        for known in (of, mine):
            if len(known):
                row["band"], row["midpointMjdTai"] = known["band"][0], known["midpointMjdTai"][0]
                break
        for name, values in (("reliability", mine["reliability"]), ("snr", mine["snr"]),
                             ("psf_sigma_px", summary["psfSigma"]), ("zeropoint", summary["zeroPoint"])):
            values = values[np.isfinite(values)]
            row[name] = np.median(values) if len(values) else np.nan


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
