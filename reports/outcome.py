"""A test's runs laid against their truth, row by row: what two sides are compared by, and what a baseline keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from reports.association import STATIC_KINDS, mainly, placed
from reports.match import FAINT_SNR, Matches, match
from reports.photometry import UNCLEAN
from reports.store import Store, StoreError, dtype, empty
from schemas.exposure import magnitudes
from schemas.measures import OUTCOME
from schemas.table import join, take

# Fields of an Outcome and the tables that a baseline keeps them in.
TABLES: Final = {"sources": "outcome", "false": "outcome_false", "forced": "outcome_forced", "stars": "outcome_star",
                 "visits": "seed_exposure_log", "packets": "seed_publication", "steps": "seed_step",
                 "traces": "seed_trace"}
_FROM_TRUTH: Final = ("visit", "detector", "truthId", "kind", "ra", "dec", "x", "y", "flux", "science_flux", "snr",
                      "host_sep_arcsec", "host_sb", "trail_length", "trail_angle", "separation_px", "ssObjectId",
                      "eph_err_arcsec", "isolated", "forced_flux", "forced_flux_err", "mask_at", "significance_at",
                      "input_mask")
_FROM_SOURCE: Final = ("measured_id", "psfFlux", "psfFluxErr", "scienceFlux", "reliability", "isDipole", "diaObjectId")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one side made of a test: all nights together.

    Every table has `seed`, `visit`, `detector`; `unit` and `object` are parallel arrays that `paired` fills with
    indices which both sides share.
    """

    sources: np.ndarray        # OUTCOME
    false: np.ndarray          # OUTCOME_FALSE
    forced: np.ndarray         # OUTCOME_FORCED
    stars: np.ndarray          # OUTCOME_STAR
    visits: np.ndarray         # EXPOSURE_LOG and `seed`
    packets: np.ndarray        # PUBLICATION and `seed`
    steps: np.ndarray          # STEP and `seed`
    traces: np.ndarray         # TRACE and `seed`
    facts: dict[str, str]      # of the first night
    folders: dict[int, Path] = field(default_factory=dict)   # run folder by seed, where there is one: for cutouts
    units: dict[str, np.ndarray] = field(default_factory=dict)     # by field name: (n,) int64
    objects: dict[str, np.ndarray] = field(default_factory=dict)   # by field name: (n,) int64, -1 for none
    common: dict[str, np.ndarray] = field(default_factory=dict)    # rows whose like the other side has too: `paired`


def of_run(store: Store, seed: int) -> Outcome:
    """A run folder laid against its truth; StoreError where it has no log of its detector-visits, or lacks sources
    that the log counts.
    """
    log = store.table("exposure_log")
    if (n := int(np.maximum(log["n_sources"], 0).sum())) and not store.has("DiaSource"):
        raise StoreError(f"{store.folder}: no table 'DiaSource', though the run's log counts {n:,} DIASources")
    matches = match(store)
    kept = np.flatnonzero(_kept(matches.truth))
    rows = _association(matches, _sources(store, matches, log))
    return Outcome(
        sources=_sown(take(rows, kept), seed), false=_sown(_false(matches), seed),
        forced=_sown(_forced(store, matches, rows, log), seed),
        stars=_seeded("outcome_star", store.optional("star"), seed), visits=_seeded("seed_exposure_log", log, seed),
        packets=_seeded("seed_publication", store.optional("publication"), seed),
        steps=_seeded("seed_step", store.optional("step"), seed),
        traces=_seeded("seed_trace", store.optional("trace"), seed), facts=store.facts(),
        folders={seed: store.folder})


def of_baseline(store: Store) -> Outcome:
    """What `tables` gave, read back from a measurement store that holds nothing else."""
    store.table("seed_exposure_log")
    return _made({name: store.optional(table) for name, table in TABLES.items()}, store.facts(), {})


def joined(parts: Sequence[Outcome]) -> Outcome:
    """All nights of a side as one; what `paired` has filled in is dropped."""
    if not parts:
        raise ValueError("no outcomes to join: at least one is needed")
    return _made({name: join([getattr(part, name) for part in parts]) for name in TABLES}, parts[0].facts,
                 {seed: folder for part in parts for seed, folder in part.folders.items()})


def with_rows(outcome: Outcome, rows: Mapping[str, np.ndarray]) -> Outcome:
    """The outcome with the tables of some of its fields exchanged."""
    kept = {name: rows.get(name, getattr(outcome, name)) for name in TABLES}
    return _made(kept, outcome.facts, outcome.folders, outcome.units, outcome.objects, outcome.common)


Masks = dict[str, np.ndarray]


def _made(rows: Mapping[str, np.ndarray], facts: dict[str, str], folders: dict[int, Path], units: Masks | None = None,
          objects: Masks | None = None, common: Masks | None = None) -> Outcome:
    return Outcome(rows["sources"], rows["false"], rows["forced"], rows["stars"], rows["visits"], rows["packets"],
                   rows["steps"], rows["traces"], facts, folders, units or {}, objects or {}, common or {})


def tables(outcome: Outcome) -> dict[str, np.ndarray]:
    """Rows by the names of the tables that a baseline keeps."""
    return {table: getattr(outcome, name) for name, table in TABLES.items()}


def located(wanted: Sequence[np.ndarray], among: Sequence[np.ndarray]) -> np.ndarray:
    """(n,) intp: for each row of the columns `wanted`, the first row of the columns `among` that equals it; -1: none.

    Examples
    --------
    >>> located([np.array([3, 4])], [np.array([4, 4, 5])]).tolist()
    [-1, 0]
    """
    n = len(wanted[0])
    code = np.zeros(n + len(among[0]), np.int64)
    for one, other in zip(wanted, among, strict=True):
        values, inverse = np.unique(np.concatenate([one, other]), return_inverse=True)
        code = np.unique(code * max(len(values), 1) + inverse, return_inverse=True)[1]
    known, first = np.unique(code[n:], return_index=True)
    if not len(known):
        return np.full(n, -1)
    place = np.minimum(np.searchsorted(known, code[:n]), len(known) - 1)
    return np.where(known[place] == code[:n], first[place], -1)


# --- rows ------------------------------------------------------------------------------------------------------------

def _kept(truth: np.ndarray) -> np.ndarray:
    """True sources that a detection may be expected of: the others explain none either (`reports.match`)."""
    faint = np.abs(truth["snr"]) < FAINT_SNR
    return np.asarray(~faint | (truth["kind"] == b"moved_star") | (truth["trail_length"] > 0))


def _sown(rows: np.ndarray, seed: int) -> np.ndarray:
    rows["seed"] = seed
    return rows


def _seeded(name: str, rows: np.ndarray, seed: int) -> np.ndarray:
    """The rows with `seed`."""
    out = np.zeros(len(rows), dtype(name))
    out["seed"] = seed
    for column in rows.dtype.names or ():
        out[column] = rows[column]
    return out


def _sources(store: Store, matches: Matches, log: np.ndarray) -> np.ndarray:
    """OUTCOME rows of every row of TRUTH, without what association made of them."""
    truth = matches.truth
    out = empty("outcome", len(truth))
    for name in _FROM_TRUTH:
        out[name] = truth[name]
    out["band"], out["magnitude"] = _band(truth, log), magnitudes(np.abs(truth["flux"]))
    out["judged"], out["clean"] = matches.judged, (truth["mask_at"] & UNCLEAN) == 0
    out["raw"], out["alert"], out["reason"] = matches.raw, matches.alerted, matches.reasons
    out["diaObjectId"] = out["found_ssObjectId"] = 0
    found = np.flatnonzero(matches.found >= 0)
    t, s = truth[found], matches.sources[matches.found[found]]
    for name in _FROM_SOURCE:
        out[name][found] = s[name]
    out["found_snr"][found], out["found_ssObjectId"][found] = s["snr"], s["ssObjectId"]
    out["diaSourceId"][found] = np.where(s["stage"] == b"", s["id"], -1)
    out["dra"][found] = ((s["ra"] - t["ra"] + 180.0) % 360.0 - 180.0) * np.cos(np.radians(t["dec"])) * 3600
    out["ddec"][found] = (s["dec"] - t["dec"]) * 3600
    out["raErr"][found], out["decErr"][found] = s["raErr"] * 3600, s["decErr"] * 3600    # errors to the East and North
    out["found_trail_length"][found], out["found_trail_angle"][found] = s["trailLength"], s["trailAngle"]
    _add_fits(out, found, store)
    return out


def _add_fits(out: np.ndarray, found: np.ndarray, store: Store) -> None:
    """Fill what MEASUREMENT alone knows in pixels, or DIASource in arcseconds, in place."""
    if store.has("measurement"):
        fits = store.table("measurement")
        row = located([out[n][found] for n in ("visit", "detector", "measured_id")],
                      [fits[n] for n in ("visit", "detector", "id")])
        there = row >= 0
        to, of = found[there], fits[row[there]]
        out["trailFlux"][to], out["scienceFluxErr"][to] = of["trailFlux"], of["scienceFluxErr"]
        out["found_dipole_length"][to] = of["dipoleLength"]
    good = store.optional("DiaSource")
    row = located([out["diaSourceId"][found]], [good["diaSourceId"]])
    there = (row >= 0) & ~np.isfinite(out["scienceFluxErr"][found])
    out["trailFlux"][found[there]] = good["trailFlux"][row[there]]
    out["scienceFluxErr"][found[there]] = good["scienceFluxErr"][row[there]]


def _band(rows: np.ndarray, log: np.ndarray) -> np.ndarray:
    where = located([rows["visit"], rows["detector"]], [log["visit"], log["detector"]])
    return np.where(where >= 0, log["band"][where], b"").astype("S1") if len(log) else np.zeros(len(rows), "S1")


def _false(matches: Matches) -> np.ndarray:
    """OUTCOME_FALSE rows of the detections that no true source explains."""
    of = np.flatnonzero(matches.false)
    sources = matches.sources[of]
    out = empty("outcome_false", len(of))
    for name in ("visit", "detector", "x", "y", "ra", "dec", "snr", "raw", "alert", "stage", "reason", "reliability",
                 "isNegative", "isDipole", "measured_id", "diaObjectId"):
        out[name] = sources[name]
    out["cause"] = matches.causes[of]
    out["diaSourceId"] = np.where(sources["stage"] == b"", sources["id"], -1)
    out["lone"] = _lone(matches.sources)[of]
    return out


# --- association -----------------------------------------------------------------------------------------------------

def _association(matches: Matches, rows: np.ndarray) -> np.ndarray:
    """The rows with `associated`, `duplicate`, `merged` and `lone` filled in.

    A DIASource of a static source is associated when `placed` finds it right; one of a known asteroid, when it has the
    right SSObject.
    """
    out = rows.copy()
    found = np.flatnonzero((matches.found >= 0) & (rows["diaSourceId"] > 0))
    out["lone"][found] = _lone(matches.sources)[matches.found[found]]
    known = found[rows["ssObjectId"][found] > 0]
    out["associated"][known] = rows["found_ssObjectId"][known] == rows["ssObjectId"][known]
    static = found[np.isin(rows["kind"][found], STATIC_KINDS)]
    if not len(static):
        return out
    static = static[np.argsort(matches.sources["midpointMjdTai"][matches.found[static]], kind="stable")]
    at = placed(rows["diaObjectId"][static], rows["truthId"][static])
    out["associated"][static], out["merged"][static], out["duplicate"][static] = at.right, at.merged, at.duplicate
    return out


def _lone(sources: np.ndarray) -> np.ndarray:
    """(n,) bool: DIASources whose DIAObject has no other."""
    held = (sources["stage"] == b"") & (sources["diaObjectId"] > 0)
    _, inverse, n = np.unique(np.where(held, sources["diaObjectId"], 0), return_inverse=True, return_counts=True)
    return np.asarray(held & (n[inverse] == 1))


def _forced(store: Store, matches: Matches, rows: np.ndarray, log: np.ndarray) -> np.ndarray:
    """OUTCOME_FORCED rows: forced photometry of DIAObjects that belong to a static source which is in TRUTH there."""
    forced = store.optional("DiaForcedSource")
    static = np.flatnonzero(np.isin(rows["kind"], STATIC_KINDS) & (rows["diaObjectId"] > 0)
                            & (rows["diaSourceId"] > 0))
    static = static[np.argsort(matches.sources["midpointMjdTai"][matches.found[static]], kind="stable")]
    objects = rows["diaObjectId"][static]
    of = located([forced["diaObjectId"]], [objects])
    owners = mainly(objects, rows["truthId"][static])
    truth_id = np.where(of >= 0, owners[of], 0) if len(static) else np.zeros(len(forced), np.int64)
    there = located([forced["visit"], forced["detector"], truth_id],
                    [rows[n] for n in ("visit", "detector", "truthId")])
    use = np.flatnonzero((there >= 0) & (truth_id != 0))
    out = empty("outcome_forced", len(use))
    for name in ("visit", "detector", "diaObjectId", "psfFlux", "psfFluxErr"):
        out[name] = forced[name][use]
    truth = rows[there[use]]
    for name in ("truthId", "flux", "snr", "band"):
        out[name] = truth[name]
    out["clean"] = truth["clean"] & truth["isolated"] & truth["judged"]
    east = (forced["ra"][use] - truth["ra"]) * np.cos(np.radians(truth["dec"]))
    out["offset_arcsec"] = 3600.0 * np.hypot((east + 180.0) % 360.0 - 180.0, forced["dec"][use] - truth["dec"])
    return out


__all__ = ["OUTCOME", "TABLES", "Outcome", "joined", "located", "of_baseline", "of_run", "tables", "with_rows"]
