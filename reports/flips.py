"""Who gained and lost what between two sides, by which reason and at which Step.

A flip is a true source or a false detection that one side has and the other has not, or an alert that changed its
object. Its two states come from the closed list of reasons (`reports.match.REASONS`), so that flips gather into flows:

    found -> own mask: SAT            12   calibrate
    found -> not detected             31   detect
    no detection -> alert              4   detect        new false alerts: cosmic ray

`step` is where the flip was decided: the Step that sets the mask plane, detects, filters. `origin` is the first Step,
in the order of the pipeline, whose trace differs in that detector-visit, where it lies before.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from reports.association import STATIC_KINDS
from reports.known import is_catalogue, unknown
from reports.outcome import Outcome
from reports.store import groups
from reports.trace import STEP_ORDER
from schemas import mask

PLACE_PX: Final = 2.0              # false detections so near, in one detector-visit, are one
SAME_SCORE: Final = 1e-4           # scores so near are one: what moved is the cut
SHOWN: Final = 60                  # flips of the gallery
PER_FLOW: Final = 2                # of each of the largest flows at least
FLOWS_SHOWN: Final = 15

# Worst first: the order of the gallery.
GROUPS: Final[dict[str, str]] = {
    "lost": "alert lost", "new_false": "new false alert", "object_wrong": "object now wrong",
    "ss_lost": "SSObject lost", "raw_lost": "detection lost", "gained": "alert gained",
    "false_gone": "false alert gone", "object_right": "object now right", "ss_gained": "SSObject gained",
    "raw_gained": "detection gained", "raw_false": "new false detection", "raw_gone": "false detection gone"}
WORSE: Final = ("lost", "new_false", "object_wrong", "ss_lost", "raw_lost", "raw_false")

# The Step that sets a plane of the difference's mask.
PLANE_STEPS: Final[dict[str, str]] = {
    "BAD": "calibrate", "SAT": "calibrate", "SUSPECT": "calibrate", "INTRP": "calibrate", "SPIKE": "calibrate",
    "EDGE": "subtract", "NO_DATA": "warp", "HIGH_VARIANCE": "warp", "SAT_TEMPLATE": "warp", "CR": "detect",
    "STREAK": "detect"}
PLANES: Final = tuple(PLANE_STEPS)

# The Step that applies a filter, by the stage that a rejection names.
STAGE_STEPS: Final[dict[str, str]] = {
    "measure": "measure", "satellites": "satellites", "quality": "filter", "glints": "filter", "reliability": "filter",
    "new_objects": "associate"}

FLIP: Final = np.dtype([
    ("group", "S12"), ("seed", "i8"), ("visit", "i8"), ("detector", "i2"), ("x", "f4"), ("y", "f4"),
    ("truthId", "i8"), ("kind", "S24"),                  # class of the source; cause of what is false
    ("snr", "f4"), ("magnitude", "f4"), ("host_sep_arcsec", "f4"), ("host_sb", "f4"),
    ("before", "S64"), ("after", "S64"),                 # state at base and at head: a flow's ends
    ("step", "S24"), ("origin", "S24"),
    ("base", "i8"), ("head", "i8"),                      # rows of `sources` (of `false` for what is false); -1: none
    ("flow", "i4")])                                     # index of `flows`

Key = tuple[int, int, int]         # seed, visit, detector


@dataclass(frozen=True, slots=True)
class Flow:
    """Flips of one kind."""

    group: str
    before: str
    after: str
    kind: str                  # cause of false detections; "" for true sources
    step: str
    origin: str
    n: int
    snr: float                 # median, NaN where unknown
    largest_snr: float


@dataclass(frozen=True, slots=True)
class Flips:
    """Every flip, worst first, and the flows that they make, largest first within their group."""

    rows: np.ndarray           # FLIP
    flows: tuple[Flow, ...]
    shown: np.ndarray          # rows of the gallery, worst first

    def count(self, group: str) -> int:
        """Flips of a group."""
        return int(np.sum(self.rows["group"] == group.encode()))

    @property
    def wanted(self) -> dict[int, list[tuple[int, int, float, float]]]:
        """{seed: [(visit, detector, x, y), ...]}: where stamps are asked for, worst first."""
        out: dict[int, list[tuple[int, int, float, float]]] = {}
        for row in self.rows[self.shown]:
            out.setdefault(int(row["seed"]), []).append(
                (int(row["visit"]), int(row["detector"]), float(row["x"]), float(row["y"])))
        return out


def flips(base: Outcome, head: Outcome, differing: Mapping[Key, frozenset[str]] | None = None) -> Flips:
    """All flips between two paired sides; `differing` names the Steps whose traces differ, by detector-visit.

    Where a side is another program's catalogue no Step of ours decided, and objects count if it has any.
    """
    topics = unknown(base.facts) | unknown(head.facts)
    rows = np.concatenate([_sources(base, head), _false(base, head),
                           *([] if "association" in topics else [_objects(base, head)]),
                           *([] if "Solar System objects" in topics else [_asteroids(base, head)])])
    if is_catalogue(base.facts, head.facts):
        rows["step"] = b""
    else:
        rows = _with_origin(rows, differing or {})
    severity = np.array([list(GROUPS).index(g.decode()) for g in rows["group"].tolist()], int)
    rows = rows[np.lexsort((rows["y"], rows["visit"], rows["seed"], -np.nan_to_num(rows["snr"]), severity))]
    rows, flows = _flows(rows)
    return Flips(rows, flows, _choice(rows))


# --- true sources ----------------------------------------------------------------------------------------------------

def _sources(base: Outcome, head: Outcome) -> np.ndarray:
    b, h = base.sources, head.sources
    _check_parallel(b, h)
    alert, raw = b["alert"].astype(int) - h["alert"], b["raw"].astype(int) - h["raw"]
    with_alert = b["alert"] | h["alert"]
    groups_of = np.select([alert > 0, alert < 0, with_alert, raw > 0, raw < 0],
                          [b"lost", b"gained", b"", b"raw_lost", b"raw_gained"], b"")
    chosen = np.flatnonzero(groups_of != b"")
    out = _made(b[chosen], h[chosen], groups_of[chosen], chosen)
    for k, (row, other) in enumerate(zip(b[chosen], h[chosen], strict=True)):
        before, after, step = _states(row, other)
        out["before"][k], out["after"][k], out["step"][k] = before.encode(), after.encode(), step.encode()
    return out


def _check_parallel(base: np.ndarray, head: np.ndarray) -> None:
    """Rows of `reports.pairing.paired`: the same true source at the same place of both tables."""
    if len(base) != len(head) or any(np.any(base[n] != head[n]) for n in ("seed", "visit", "detector", "truthId")):
        raise ValueError(f"sides that `paired` has laid side by side are expected, got {len(base)} and {len(head)} "
                         "rows of other sources")


def _made(b: np.ndarray, h: np.ndarray, group: np.ndarray, index: np.ndarray) -> np.ndarray:
    """FLIP rows of true sources without states."""
    out = np.zeros(len(b), FLIP)
    for name in ("seed", "visit", "detector", "x", "y", "truthId", "kind", "magnitude", "host_sep_arcsec", "host_sb"):
        out[name] = b[name]
    measured = np.fmax(np.abs(b["found_snr"]), np.abs(h["found_snr"]))      # of what has no S/N of one flux
    out["snr"] = np.where(np.isfinite(b["snr"]), np.abs(b["snr"]), measured)
    out["group"], out["base"], out["head"] = group, index, index
    return out


def _states(base: np.void, head: np.void) -> tuple[str, str, str]:
    """States of a true source at base and head, and the Step that decided."""
    masks = [max(int(row["mask_at"]), 0) for row in (base, head)]
    before, after = state(base, new=masks[0] & ~masks[1]), state(head, new=masks[1] & ~masks[0])
    without = after if base["alert"] or (base["raw"] and not head["alert"]) else before
    same_score = bool(abs(base["reliability"] - head["reliability"]) <= SAME_SCORE)
    return before, after, decided_at(without, same_score=same_score)


def state(row: np.void, new: int = 0) -> str:
    """What became of a true source on one side, without what differs from source to source.

    `new` are the planes of the difference's mask that the other side has not at this place: the ones that count.
    """
    if row["alert"]:
        return "found"
    stage, _, detail = row["reason"].decode().partition(":")
    detail = detail.strip()
    if stage == "own mask":
        fresh = [name for name in detail.split("+") if new & mask.PLANES.get(name, 0)]
        return f"own mask: {'+'.join(fresh)}" if fresh else f"own mask: {detail}"
    if stage == "other" and np.isfinite(row["significance_at"]):
        return "not detected"                          # nothing found there, above another side's threshold
    if stage == "rejected":
        return f"rejected: {_filter(detail)}"
    if stage in ("not detected", "blended", "failed step", "no work", ""):
        return stage or "other"
    return f"{stage}: {detail}" if detail else stage


def _filter(detail: str) -> str:
    """`quality: centroid_flag`; a filter whose only reason is its own name stands alone."""
    stage, _, why = (part.strip() for part in detail.partition(":"))
    return f"{stage}: {why}" if why and why != stage else stage


def decided_at(state_without: str, *, same_score: bool = True) -> str:
    """The Step that took the source out, from the state on the side that has it not; "" where nothing tells."""
    stage, _, detail = (part.strip() for part in state_without.partition(":"))
    if stage == "own mask":
        steps = [PLANE_STEPS[name] for name in detail.split("+") if name in PLANE_STEPS]
        return min(steps, key=STEP_ORDER.index) if steps else "detect"
    if stage == "rejected":
        which = detail.partition(":")[0].strip()
        return "reliability" if which == "reliability" and not same_score else STAGE_STEPS.get(which, "filter")
    return {"not detected": "detect", "blended": "detect", "input mask": "detect", "other": "detect",
            "off image": "calibrate", "no work": "warp", "not published": "send", "no detection": "detect",
            "a true source's": "detect"}.get(stage, "")


# --- false detections ------------------------------------------------------------------------------------------------

def _false(base: Outcome, head: Outcome) -> np.ndarray:
    b, h = base.false, head.false
    i, j = paired_by_place(b, h)
    alert = _of(b, i, "alert").astype(int) - _of(h, j, "alert")
    raw = _of(b, i, "raw").astype(int) - _of(h, j, "raw")
    with_alert = _of(b, i, "alert") | _of(h, j, "alert")
    groups_of = np.select([alert < 0, alert > 0, with_alert, raw < 0, raw > 0],
                          [b"new_false", b"false_gone", b"", b"raw_false", b"raw_gone"], b"")
    chosen = np.flatnonzero(groups_of != b"")
    out = np.zeros(len(chosen), FLIP)
    out["group"], out["base"], out["head"], out["truthId"] = groups_of[chosen], i[chosen], j[chosen], -1
    for name in ("magnitude", "host_sep_arcsec", "host_sb"):
        out[name] = np.nan
    taken = [_true_places(base), _true_places(head)]
    for row, p, q in zip(out, i[chosen], j[chosen], strict=True):
        has, rows = (q, h) if row["group"] in (b"new_false", b"raw_false") else (p, b)
        for name in ("seed", "visit", "detector", "x", "y"):
            row[name] = rows[name][has]
        row["kind"], row["snr"] = rows["cause"][has] or b"unknown", abs(rows["snr"][has])
        before, after = _fate_at(b, p, row, taken[0]), _fate_at(h, q, row, taken[1])
        same = p >= 0 and q >= 0 and abs(b["reliability"][p] - h["reliability"][q]) <= SAME_SCORE
        row["before"], row["after"] = before.encode(), after.encode()
        row["step"] = decided_at(after if has == p and rows is b else before, same_score=bool(same)).encode()
    return out


def paired_by_place(base: np.ndarray, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of detections at one place of one detector-visit, nearest pairs first; -1 where a side has none.

    Examples
    --------
    >>> kind = [("seed", int), ("visit", int), ("detector", int), ("x", float), ("y", float)]
    >>> base, head = np.array([(1, 1, 1, 5.0, 5.0)], kind), np.array([(1, 1, 1, 5.5, 5.0), (1, 1, 1, 9.0, 5.0)], kind)
    >>> [part.tolist() for part in paired_by_place(base, head)]
    [[0, -1], [0, 1]]
    """
    i_all, j_all = [np.zeros(0, int)], [np.zeros(0, int)]
    keys = ("seed", "visit", "detector")
    here, there = (dict(groups(*(side[k] for k in keys))) for side in (base, head))
    none = np.zeros(0, int)
    for key in sorted(here.keys() | there.keys()):
        p, q = here.get(key, none), there.get(key, none)
        i, j = _nearest(base[["x", "y"]][p], head[["x", "y"]][q])
        lone_i, lone_j = np.setdiff1d(np.arange(len(p)), i), np.setdiff1d(np.arange(len(q)), j)
        i_all += [p[i], p[lone_i], np.full(len(lone_j), -1)]
        j_all += [q[j], np.full(len(lone_i), -1), q[lone_j]]
    return np.concatenate(i_all), np.concatenate(j_all)


def _nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    gap = np.hypot(a["x"][:, None] - b["x"], a["y"][:, None] - b["y"])
    i, j = np.nonzero(gap <= PLACE_PX)
    pairs: dict[int, int] = {}
    for k in np.argsort(gap[i, j], kind="stable"):
        if int(i[k]) not in pairs and int(j[k]) not in pairs.values():
            pairs[int(i[k])] = int(j[k])
    return np.array(list(pairs), int), np.array(list(pairs.values()), int)


def _of(rows: np.ndarray, index: np.ndarray, name: str) -> np.ndarray:
    """A boolean column at rows that may be missing (-1): False there."""
    out = np.zeros(len(index), bool)
    out[index >= 0] = rows[name][index[index >= 0]]
    return out


def _true_places(side: Outcome) -> dict[Key, np.ndarray]:
    """(n, 2) places of true sources that a side detected, by detector-visit."""
    rows = side.sources[side.sources["measured_id"] >= 0]
    return {key: np.stack([rows["x"][of], rows["y"][of]], axis=1)
            for key, of in groups(rows["seed"], rows["visit"], rows["detector"])}


def _fate_at(rows: np.ndarray, index: int, flip: np.void, taken: Mapping[Key, np.ndarray]) -> str:
    """What became of a false detection on one side."""
    if index >= 0:
        return _fate(rows[index])
    places = taken.get((int(flip["seed"]), int(flip["visit"]), int(flip["detector"])))
    if places is not None and np.hypot(places[:, 0] - flip["x"], places[:, 1] - flip["y"]).min() <= PLACE_PX:
        return "a true source's"
    return "no detection"


def _fate(row: np.void) -> str:
    """What became of a false detection that is there."""
    if row["alert"]:
        return "alert"
    stage, why = row["stage"].decode(), row["reason"].decode()
    return f"rejected: {_filter(f'{stage}: {why}')}" if stage else "not published"


# --- alerts that changed their object --------------------------------------------------------------------------------

def _objects(base: Outcome, head: Outcome) -> np.ndarray:
    """Alerts of static sources that both sides have, in an object that is right on one side only."""
    return _changed(base, head, object_states, "right object", b"object_wrong", b"object_right")


def _asteroids(base: Outcome, head: Outcome) -> np.ndarray:
    """Alerts of known asteroids that both sides have, with the right SSObject on one side only."""
    return _changed(base, head, solar_system_states, "right SSObject", b"ss_lost", b"ss_gained")


def _changed(base: Outcome, head: Outcome, states: Callable[[np.ndarray], np.ndarray], right: str, worse: bytes,
             better: bytes) -> np.ndarray:
    before, after = states(base.sources), states(head.sources)
    judged = (before != b"") & (after != b"") & ((before == right.encode()) != (after == right.encode()))
    chosen = np.flatnonzero(judged)
    group = np.where(before[chosen] == right.encode(), worse, better)
    out = _made(base.sources[chosen], head.sources[chosen], group, chosen)
    out["before"], out["after"] = before[chosen], after[chosen]
    reloads = [bool(np.any(side.steps["name"] == b"reload")) for side in (base, head)]
    out["step"] = b"reload" if reloads[0] != reloads[1] and right == "right object" else b"associate"
    return out


def object_states(sources: np.ndarray) -> np.ndarray:
    """(n,) S24: whether each alert of a static source is in its source's own DIAObject; b"" where there is no alert."""
    judged = sources["alert"] & np.isin(sources["kind"], STATIC_KINDS)
    return np.select([~judged, sources["associated"], sources["diaObjectId"] <= 0, sources["merged"]],
                     [b"", b"right object", b"no object", b"another's object"], b"duplicate object").astype("S24")


def solar_system_states(sources: np.ndarray) -> np.ndarray:
    """(n,) S24: whether each alert of a known asteroid carries its SSObject; b"" where there is no alert."""
    judged = sources["alert"] & (sources["ssObjectId"] > 0)
    return np.select([~judged, sources["associated"], sources["found_ssObjectId"] > 0, sources["diaObjectId"] > 0],
                     [b"", b"right SSObject", b"another SSObject", b"a DIAObject"], b"neither object").astype("S24")


# --- origins, flows, gallery -----------------------------------------------------------------------------------------

def _with_origin(rows: np.ndarray, differing: Mapping[Key, frozenset[str]]) -> np.ndarray:
    out, places = rows.copy(), {name: k for k, name in enumerate(STEP_ORDER)}
    ranked = {key: sorted((places[s], s) for s in names if s in places) for key, names in differing.items()}
    for row in out:
        if row["group"].startswith((b"object", b"ss")):    # earlier visits may have decided what object there is
            row["origin"] = row["step"]
            continue
        steps = ranked.get((int(row["seed"]), int(row["visit"]), int(row["detector"])), [])
        last = places.get(row["step"].decode(), len(places))
        row["origin"] = steps[0][1].encode() if steps and steps[0][0] < last else row["step"]
        if not row["step"]:
            row["step"] = row["origin"]
    return out


def _flows(rows: np.ndarray) -> tuple[np.ndarray, tuple[Flow, ...]]:
    """The rows with the index of their flow; flows in the order of `GROUPS`, largest first."""
    out, found = rows.copy(), []
    cause = np.where(rows["truthId"] < 0, rows["kind"], b"")
    for key, of in groups(rows["group"], rows["before"], rows["after"], cause, rows["step"], rows["origin"]):
        snr = rows["snr"][of][np.isfinite(rows["snr"][of])]
        group, before, after, kind, step, origin = (part.decode() for part in key)
        middle, largest = (float(np.median(snr)), float(snr.max())) if len(snr) else (np.nan, np.nan)
        found.append((Flow(group, before, after, kind, step, origin, len(of), middle, largest), of))
    names = list(GROUPS)
    found.sort(key=lambda pair: (names.index(pair[0].group), -pair[0].n, pair[0].before, pair[0].after, pair[0].kind))
    for k, (_, of) in enumerate(found):
        out["flow"][of] = k
    return out, tuple(flow for flow, _ in found)


def _choice(rows: np.ndarray) -> np.ndarray:
    """Rows for the gallery, in order: some of each of the largest flows, and the worst of what is lost, of what is
    false and of all else.
    """
    wanted = dict.fromkeys(_of_large_flows(rows["flow"]))
    lost, false = rows["group"] == b"lost", rows["group"] == b"new_false"
    for share, part in ((SHOWN // 2, lost), (SHOWN // 4, false), (SHOWN // 5, ~lost & ~false),
                        (SHOWN, np.ones(len(rows), bool))):
        more = [k for k in np.flatnonzero(part).tolist() if k not in wanted]
        wanted |= dict.fromkeys(more[:max(0, min(share, SHOWN - len(wanted)))])
    return np.sort(np.array(list(wanted)[:SHOWN], int))


def _of_large_flows(flow: np.ndarray) -> Iterator[int]:
    count = np.bincount(flow) if len(flow) else np.zeros(0, int)
    for k in np.argsort(-count, kind="stable")[:FLOWS_SHOWN]:
        yield from np.flatnonzero(flow == k)[:PER_FLOW].tolist()


def told(row: np.void, *, false: bool) -> tuple[str, ...]:
    """What a side measured of a flip's source, in short lines."""
    if false:
        return (_fate(row), _measured(row["snr"], row["reliability"]) + (", dipole" if row["isDipole"] else ""))
    first = "alert" if row["alert"] else row["reason"].decode() or "no reason"
    significant = np.isfinite(row["significance_at"])
    if row["reason"].startswith((b"other", b"not detected")) and significant:
        first = f"not detected: significance {abs(row['significance_at']):.1f}"
    lines = [first]
    if np.isfinite(row["found_snr"]):
        lines.append(_measured(row["found_snr"], row["reliability"]))
        lines += _errors(row)
    elif significant and not first.startswith("not detected"):
        lines.append(f"significance {abs(row['significance_at']):.1f} there")
    return tuple(lines)


def _measured(snr: float, reliability: float) -> str:
    """What is known of the two."""
    known = [f"S/N {abs(snr):.1f}"] if np.isfinite(snr) else []
    known += [f"reliability {reliability:.2f}"] if np.isfinite(reliability) else []
    return ", ".join(known) or "S/N not known"


def _errors(row: np.void) -> list[str]:
    """How far flux and place are from the truth, as far as a side measured them: one line or none."""
    offset = 1e3 * np.hypot(row["dra"], row["ddec"])
    known = [f"flux {100 * (row['psfFlux'] / row['flux'] - 1):+.0f} %"] * bool(np.isfinite(row["psfFlux"])
                                                                             and row["flux"])
    known += [f"{offset:.0f} mas off"] * bool(np.isfinite(offset))
    return [", ".join(known)] if known else []


__all__ = ["FLIP", "GROUPS", "WORSE", "Flips", "Flow", "decided_at", "flips", "object_states",
           "paired_by_place", "solar_system_states", "state", "told"]
