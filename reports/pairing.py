"""Two outcomes of one test, row against row: the same true sources in the same order, visits and objects by indices
that both sides share.

What differs between the sides must be the pipeline alone. Another sky, other visits or another fidelity end in a
`ComparisonError` of one line; a detector-visit that failed on one side does not, for that is a difference between the
pipelines.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from reports.known import CATALOGUE
from reports.match import FAINT_SNR
from reports.outcome import TABLES, Outcome, located, with_rows
from reports.store import StoreError, empty
from schemas.table import join, take

PLACE_ARCSEC: Final = 1.5       # false detections so near to each other are one place (the real deduplication's length)
VISIT: Final = ("seed", "visit", "detector")
SOURCE: Final = (*VISIT, "truthId")

# What the truth says of a source, with the relative and absolute tolerance within which two sides must agree: the same
# seed gives the same numbers but for the last bits, which differ between machines.
EXACT: Final = ("kind", "ssObjectId", "isolated")
CLOSE: Final = {"ra": (0.0, 1e-7), "dec": (0.0, 1e-7), "flux": (1e-6, 1e-3), "science_flux": (1e-6, 1e-3),
                "snr": (1e-3, 1e-3), "host_sep_arcsec": (1e-4, 1e-3), "trail_length": (1e-4, 1e-3),
                "separation_px": (1e-4, 1e-3), "eph_err_arcsec": (1e-4, 1e-3)}
# Sources injected into real exposures are planned in S/N, so that each side's own calibration sets their flux and
# place; each side is then judged by what it injected.
INJECTED: Final = {"ra": (0.0, 3e-5), "dec": (0.0, 3e-5), "flux": (0.05, 0.0), "science_flux": (0.05, 0.0),
                   "snr": (0.05, 0.0)}
CIRCUMSTANCES: Final = ("band", "snr", "magnitude", "host_sep_arcsec", "host_sb")     # what bins are made of
TRUE: Final = (*CIRCUMSTANCES, "truthId", "kind", "ra", "dec", "x", "y", "flux", "science_flux", "trail_length",
               "trail_angle", "separation_px", "ssObjectId", "eph_err_arcsec", "isolated", "input_mask")
SIDES: Final = ("the base side", "the head side")


class ComparisonError(StoreError):
    """Two sides that cannot be compared: the message names the first thing that differs, and where."""


@dataclass(frozen=True, slots=True)
class Units:
    """The visits of a comparison, in order: what its statistics take as independent."""

    seed: np.ndarray           # (n,) int64
    visit: np.ndarray          # (n,) int64
    detectors: np.ndarray      # (n,) int64: detector-visits that belong to it

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.visit)


def paired(base: Outcome, head: Outcome) -> tuple[Outcome, Outcome, Units]:
    """Both sides with rows in one order and `units`, `objects` and `common` filled in.

    `sources` become parallel: row i is the same true source at the same detector-visit on both sides, its S/N,
    magnitude and host the base's, in the denominators of both sides if it is in either's. `common` holds masks, equal
    on both sides where the rows are parallel:

    - `found`, `alert`, `clean` of `sources`: detected, published, on clean pixels on both sides;
    - `visits`: the detector-visit was done on both; `steps`: the Step was measured on both;
    - `forced`: the source was forced on clean pixels on both; `stars`: the star was found on both.
    """
    for outcome, side in zip((base, head), SIDES, strict=True):
        _check_tables(outcome, side)
    _check_visits(base, head)
    units = _units(base, head)
    base, head = _of_units(base, units), _of_units(head, units)
    base, head = _parallel(base, head)
    return (*_indexed(base, head), units)


def swapped(base: Outcome, head: Outcome, chosen: np.ndarray) -> tuple[Outcome, Outcome]:
    """Two paired sides with the rows of the chosen units exchanged; `chosen` is (n_units,) bool."""
    if not base.units or not head.units:
        raise ValueError("outcomes that `paired` has laid side by side are expected")
    return _mixed(base, head, chosen), _mixed(head, base, chosen)


# --- what must agree -------------------------------------------------------------------------------------------------

def _check_tables(outcome: Outcome, side: str) -> None:
    if not len(outcome.visits):
        raise ComparisonError(f"{side} has no table exposure_log: no detector-visit to compare")
    _check_unique(outcome.visits, VISIT, f"{side}: exposure_log")
    _check_unique(outcome.sources, SOURCE, f"{side}: truth")
    ids = np.zeros(len(outcome.sources) + len(outcome.false), [("seed", "i8"), ("diaSourceId", "i8")])
    for name in ids.dtype.names or ():
        ids[name] = np.concatenate([outcome.sources[name], outcome.false[name]])
    _check_unique(ids[ids["diaSourceId"] > 0], ("seed", "diaSourceId"), f"{side}: DiaSource")


def _check_unique(rows: np.ndarray, columns: Sequence[str], place: str) -> None:
    if not len(rows):
        return
    first = located([rows[n] for n in columns], [rows[n] for n in columns])
    again = np.flatnonzero(first != np.arange(len(rows)))
    if len(again):
        raise ComparisonError(f"{place} has {_named(rows[again[0]], columns)} more than once")


def _named(row: np.void, columns: Sequence[str]) -> str:
    return ", ".join(f"{name} {int(row[name])}" for name in columns)


def _check_visits(base: Outcome, head: Outcome) -> None:
    """The same detector-visits in the same fidelity on both sides."""
    outcomes = (base, head)
    for i, (one, other) in enumerate(((base.visits, head.visits), (head.visits, base.visits))):
        if len(alone := np.setdiff1d(one["seed"], other["seed"])):
            raise ComparisonError(f"seed {alone[0]} is on {SIDES[i]} only")
        absent = np.flatnonzero(located([one[n] for n in VISIT], [other[n] for n in VISIT]) < 0)
        if len(absent):
            raise ComparisonError(f"{_named(one[absent[0]], VISIT)} is on {SIDES[i]} only: both sides must have "
                                  f"the same visits ({len(absent)} of {len(one)} differ)")
    there = head.visits[located([base.visits[n] for n in VISIT], [head.visits[n] for n in VISIT])]
    ours, theirs = base.visits["fidelity"], there["fidelity"]
    other = np.flatnonzero((ours != theirs) & (ours != b"") & (theirs != b""))
    if len(other):
        i = other[0]
        raise ComparisonError(f"other fidelity: {_named(base.visits[i], VISIT)} is of {ours[i].decode()} on "
                              f"{SIDES[0]}, of {theirs[i].decode()} on {SIDES[1]}")
    # another program's catalogue is of a simulated night
    kinds = [o.facts.get("kind", "").replace(CATALOGUE, "simulated") for o in outcomes]
    if all(kinds) and kinds[0] != kinds[1]:
        raise ComparisonError(f"other data: {kinds[0]} on {SIDES[0]}, {kinds[1]} on {SIDES[1]}")


def _check_truth(base: np.ndarray, head: np.ndarray) -> None:
    """Parallel rows of one truth; the first that differs is named."""
    for name in EXACT:
        _complain(base, head, name, base[name] != head[name])
    for name, (relative, absolute) in CLOSE.items():
        a, b = base[name].astype(float), head[name].astype(float)
        close = np.isclose(a, b, rtol=relative, atol=absolute, equal_nan=True)
        if name in INJECTED:
            relative, absolute = INJECTED[name]
            close |= (base["kind"] == b"injected") & np.isclose(a, b, rtol=relative, atol=absolute)
        _complain(base, head, name, ~close)


def _complain(base: np.ndarray, head: np.ndarray, name: str, differ: np.ndarray) -> None:
    if not differ.any():
        return
    i = int(np.flatnonzero(differ)[0])
    values = [v.decode() if isinstance(v, bytes) else f"{v:.9g}" for v in (base[name][i], head[name][i])]
    raise ComparisonError(f"other truth: {name} of {_named(base[i], SOURCE)} is {values[0]} on {SIDES[0]}, "
                          f"{values[1]} on {SIDES[1]} ({int(differ.sum())} of {len(base)} differ)")


# --- units -----------------------------------------------------------------------------------------------------------

def _units(base: Outcome, head: Outcome) -> Units:
    """Every (seed, visit) of the log; and of the Steps, which may have been timed on visits of their own."""
    pairs = np.concatenate([np.stack([rows["seed"], rows["visit"]], axis=1)
                            for rows in (base.visits, base.steps, head.steps)])
    known = np.unique(pairs, axis=0)
    place = located([base.visits["seed"], base.visits["visit"]], [known[:, 0], known[:, 1]])
    return Units(known[:, 0], known[:, 1], np.bincount(place, minlength=len(known)))


def _of_units(outcome: Outcome, units: Units) -> Outcome:
    """Rows of the units, in their order: by unit, detector and, where it has one, the id of what is true."""
    rows: dict[str, np.ndarray] = {}
    places: dict[str, np.ndarray] = {}
    for name in TABLES:
        table = getattr(outcome, name)
        unit = located([table["seed"], table["visit"]], [units.seed, units.visit])
        ids = next((table[n] for n in ("truthId", "starId") if n in (table.dtype.names or ())), np.zeros(len(table)))
        order = np.lexsort((ids, table["detector"], unit))
        order = order[unit[order] >= 0]
        rows[name], places[name] = take(table, order), unit[order].astype(np.int64)
    return replace(with_rows(outcome, rows), units=places)


# --- the same true sources on both sides ----------------------------------------------------------------------------

def _parallel(base: Outcome, head: Outcome) -> tuple[Outcome, Outcome]:
    """Both with one row per true source, in one order."""
    filled = _filled(base, head, 0), _filled(head, base, 1)
    ours, theirs = filled[0].sources, filled[1].sources
    there = located([ours[n] for n in SOURCE], [theirs[n] for n in SOURCE])
    kept = np.flatnonzero(there >= 0)
    base, head = _keep_sources(filled[0], kept), _keep_sources(filled[1], there[kept])
    _check_truth(base.sources, head.sources)
    for name in CIRCUMSTANCES:
        head.sources[name] = base.sources[name]
    base.sources["judged"] = head.sources["judged"] = base.sources["judged"] | head.sources["judged"]
    return base, head


def _keep_sources(outcome: Outcome, index: np.ndarray) -> Outcome:
    return replace(outcome, sources=take(outcome.sources, index),
                   units={**outcome.units, "sources": outcome.units["sources"][index]})


def _filled(outcome: Outcome, other: Outcome, side: int) -> Outcome:
    """With a missed row for each true source of a detector-visit that this side never got so far as to record.

    Sources at the very limit of S/N are left out where one side has them and the other, by its last bits, has not.
    """
    rows, full = outcome.sources, other.sources
    alone = located([full[n] for n in SOURCE], [rows[n] for n in SOURCE]) < 0
    alone &= ~(np.abs(np.abs(full["snr"]) - FAINT_SNR) < 2e-3)
    if not alone.any():
        return outcome
    log = outcome.visits
    place = located([full[n] for n in VISIT], [log[n] for n in VISIT])
    recorded = located([full[n] for n in VISIT], [rows[n] for n in VISIT]) >= 0
    failed = (log["status"][place] != b"done") & ~recorded
    if len(unknown := np.flatnonzero(alone & ~failed)):
        raise ComparisonError(
            f"other truth: {_named(full[unknown[0]], SOURCE)} is on {SIDES[1 - side]} only ("
            + (f"{len(unknown)} of {len(full)} true sources are" if len(rows)
               else f"{SIDES[side]} has no table truth or injection") + ")")
    extra = np.flatnonzero(alone)
    missed = empty("outcome", len(extra))
    for name in (*VISIT, *TRUE, "judged"):
        missed[name] = full[name][extra]
    missed["diaObjectId"] = missed["found_ssObjectId"] = 0
    why = log[place[extra]]
    missed["reason"] = [f"failed step: {(r['reason'] or r['status']).decode()}".encode()[:64] for r in why]
    units = np.concatenate([outcome.units["sources"], other.units["sources"][extra]])
    joint = join([rows, missed])
    order = np.lexsort((joint["truthId"], joint["detector"], units))
    return replace(outcome, sources=take(joint, order), units={**outcome.units, "sources": units[order]})


# --- indices and masks that both sides share -------------------------------------------------------------------------

def _indexed(base: Outcome, head: Outcome) -> tuple[Outcome, Outcome]:
    """With `objects` and `common`; true sources, places of false detections and stars have ranges of their own."""
    names = {"sources": "truthId", "forced": "truthId", "stars": "starId"}
    keys = [np.stack([table["seed"], table[column]], axis=1) for o in (base, head) for column, table in
            ((column, getattr(o, name)) for name, column in names.items())]
    shift = np.repeat([0, 0, 1, 0, 0, 1], [len(key) for key in keys])       # a star's id may equal a truthId
    known, index = np.unique(np.column_stack([np.concatenate(keys), shift]), axis=0, return_inverse=True)
    parts = np.split(index.astype(np.int64).ravel(), np.cumsum([len(key) for key in keys])[:-1])
    places = _places(base.false, head.false)
    common = _common(base, head)
    out = []
    for i, outcome in enumerate((base, head)):
        objects = {name: np.full(len(getattr(outcome, name)), -1, np.int64) for name in TABLES}
        objects.update(zip(names, parts[3 * i:3 * i + 3], strict=True))
        objects["false"] = len(known) + places[i]
        out.append(replace(outcome, objects=objects, common=common[i]))
    return out[0], out[1]


def _places(base: np.ndarray, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the place on the sky of each false detection, counted over both sides and all visits of a seed."""
    rows = np.concatenate([np.stack([t["ra"], t["dec"], t["seed"].astype(float)], axis=1) for t in (base, head)])
    n = len(rows)
    if not n:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    ra, dec = np.radians(np.nan_to_num(rows[:, 0])), np.radians(np.nan_to_num(rows[:, 1]))
    points = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec), rows[:, 2]], axis=1)
    near = cKDTree(points).query_pairs(np.radians(PLACE_ARCSEC / 3600), output_type="ndarray")
    links = coo_array((np.ones(len(near), bool), (near[:, 0], near[:, 1])), shape=(n, n))
    _, place = connected_components(links, directed=False)
    return place[:len(base)].astype(np.int64), place[len(base):].astype(np.int64)


def _common(base: Outcome, head: Outcome) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Masks of what both sides have, by name; see `paired`."""
    ours, theirs = base.sources, head.sources
    sources = {"found": np.isfinite(ours["found_snr"]) & np.isfinite(theirs["found_snr"]),
               "alert": ours["alert"] & theirs["alert"], "clean": ours["clean"] & theirs["clean"]}
    out: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = (dict(sources), dict(sources))
    for masks, one, other in zip(out, (base, head), (head, base), strict=True):
        masks["visits"] = _done(one.visits) & _shared(one.visits, other.visits[_done(other.visits)], VISIT)
        masks["steps"] = one.steps["measured"] & _shared(one.steps, other.steps[other.steps["measured"]],
                                                         (*VISIT, "name"))
        masks["forced"] = one.forced["clean"] & _shared(one.forced, other.forced[other.forced["clean"]], SOURCE)
        masks["stars"] = one.stars["found"] & _shared(one.stars, other.stars[other.stars["found"]], (*VISIT, "starId"))
    return out


def _done(visits: np.ndarray) -> np.ndarray:
    return np.asarray(visits["status"] == b"done")


def _shared(rows: np.ndarray, among: np.ndarray, columns: Sequence[str]) -> np.ndarray:
    return np.asarray(located([rows[n] for n in columns], [among[n] for n in columns]) >= 0)


# --- exchange --------------------------------------------------------------------------------------------------------

# Masks of `common` by the table that they are parallel to.
_MASKS: Final = {"found": "sources", "alert": "sources", "clean": "sources", "visits": "visits", "steps": "steps",
                 "forced": "forced", "stars": "stars"}


def _mixed(own: Outcome, other: Outcome, chosen: np.ndarray) -> Outcome:
    """`own` with the other's rows in the chosen units."""
    orders: dict[str, np.ndarray] = {}
    rows: dict[str, np.ndarray] = {}
    for name in TABLES:
        units = np.concatenate([own.units[name], other.units[name]])
        taken = chosen[units]
        taken[:len(own.units[name])] ^= True
        order = np.flatnonzero(taken)
        orders[name] = order[np.argsort(units[order], kind="stable")]
        rows[name] = take(join([getattr(own, name), getattr(other, name)]), orders[name])
    return replace(
        with_rows(own, rows),
        units={n: np.concatenate([own.units[n], other.units[n]])[orders[n]] for n in TABLES},
        objects={n: np.concatenate([own.objects[n], other.objects[n]])[orders[n]] for n in TABLES},
        common={n: np.concatenate([own.common[n], other.common[n]])[orders[t]] for n, t in _MASKS.items()})


__all__ = ["ComparisonError", "Units", "paired", "swapped"]
