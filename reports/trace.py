"""Which Step made a difference: the first, in the pipeline's order, that left something else behind.

Two runs on the same sky, noise and faults are equal to the last bit up to the Step that was changed. So the Step at
which a detector-visit parts from its twin, by more than `TOLERANCE` of max(|value|, 1), is the one.

A detector-visit also inherits: what the store gives it was saved by earlier visits. Once a visit of a night differs,
later ones speak only for Steps that do not rest on the store.

And where runs differ by roundings from the start (another library, another machine), most visits part by next to
nothing: errors of 1e-6 grow, and now and then one tips a star, a peak or a fit over an edge, this way or that. Then the
Step is the first that moves one and the same number in most visits, the same way (by a sign test: that takes eleven
visits) or far.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

STEP_ORDER: Final = ("isr", "calibrate", "inject", "warp", "subtract", "detect", "measure", "cutouts", "reliability",
                     "satellites", "filter", "transform", "objects", "history", "ephemerides", "reload", "associate",
                     "statistics", "forced", "package", "save", "unsent", "send", "mark_sent")
STORED: Final = frozenset(STEP_ORDER[STEP_ORDER.index("objects"):])   # rest on what earlier visits saved
TOLERANCE: Final = 1e-3               # pixels perturbed by 1e-6 move the noise and kernel estimates by 1e-4 and more
COUNTED: Final = ("mask:", "n:")      # quantities that are zero where they are missing
ROUNDING: Final = 1e-9                # less is equal to the last bit
FAR: Final = 0.1                      # what roundings seldom grow to,
SEVERAL: Final = 6                    # in so many detector-visits
SIGMAS: Final = 3.3                   # of a sign test: p = 0.001
LEAST: Final = 0.02                   # share of detector-visits that a culprit parts
LACKING: Final = ""                   # the quantity that a Step itself is, when one side lacks it

Place = tuple[int, int, int]          # seed, visit, detector
Numbers = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class StepDifference:
    """How two runs differ after one Step."""

    step: str
    n: int               # detector-visits compared
    share: float         # of them that differ here
    first: float         # of those that inherited nothing: part here, equal to the last bit before
    rounded: float       # of the same: part here, by less than the tolerance
    largest: float       # difference relative to max(|value|, 1); 1 where one side lacks the Step
    quantity: str        # that differs in most detector-visits; "" where none does
    moved: bool          # one quantity does in most of them the same way, or far


def first_difference(base: np.ndarray, head: np.ndarray, *, tolerance: float = TOLERANCE) -> tuple[StepDifference, ...]:
    """How the traces of two sides differ, Step by Step in the pipeline's order.

    Parameters
    ----------
    base, head : TRACE rows with `seed`
        Detector-visits that both sides have are compared; a Step that one side lacks in such a visit differs.
    """
    traces = _by_place(base), _by_place(head)
    places = sorted(traces[0].keys() & traces[1].keys())
    order = pipeline_order(*{tuple(trace[place]): trace[place] for place in places for trace in traces}.values())
    changes = {place: _changes(traces[0][place], traces[1][place]) for place in places}
    firsts, rounded, fresh = _partings(changes, order, tolerance)
    out = []
    for step in order:
        here = [change.get(step, {}) for change in changes.values()]
        found = [beyond for change in here if (beyond := _beyond(change, tolerance))]
        told = max(fresh if step in STORED else len(places), 1)
        out.append(StepDifference(
            step, len(places), len(found) / max(len(places), 1), min(firsts[step] / told, 1.0),
            min(rounded[step] / told, 1.0), max((abs(d) for change in found for d in change.values()), default=0.0),
            _commonest(found), _moved(here, tolerance)))
    return tuple(out)


def blame(step: str, differences: Sequence[StepDifference]) -> str:
    """The Step that made the difference of a metric which `step` makes, "" where no trace tells.

    Of the Steps upstream, the metric's own included, it is the one at which most detector-visits part, the earlier of
    equals; where more part there by a rounding, the first that moves one number in most of them. A Step that no trace
    knows looks upstream to the end. For its CPU time and memory a Step answers itself: that needs no trace.
    """
    names = [d.step for d in differences]
    upstream = differences[:names.index(step) + 1] if step in names else differences
    parting = max((d for d in upstream if d.first >= max(LEAST, d.rounded)), key=lambda d: d.first, default=None)
    if parting is not None:
        return parting.step
    return next((d.step for d in upstream if d.moved), "")


def parted(base: np.ndarray, head: np.ndarray) -> dict[Place, frozenset[str]]:
    """By detector-visit, the Steps whose traces differ by more than `TOLERANCE`, without those that rest on the store.

    Of one source at one place it tells more than the whole run: what differs there alone can have moved it.
    """
    traces = _by_place(base), _by_place(head)
    return {place: frozenset(step for step, change in _changes(traces[0][place], traces[1][place]).items()
                             if step not in STORED and _beyond(change, TOLERANCE))
            for place in traces[0].keys() & traces[1].keys()}


def pipeline_order(*visits: Mapping[str, Numbers]) -> tuple[str, ...]:
    """All Steps of traces in the pipeline's order; one that it does not know comes after the one it followed."""
    order = list(STEP_ORDER)
    for visit in visits:
        before = ""
        for step in visit:
            if step not in order:
                order.insert(order.index(before) + 1 if before else 0, step)
            before = step
    present = {step for visit in visits for step in visit}
    return tuple(step for step in order if step in present)


def _by_place(rows: np.ndarray) -> dict[Place, dict[str, dict[str, float]]]:
    """Numbers by detector-visit, Step and quantity."""
    out: dict[Place, dict[str, dict[str, float]]] = defaultdict(dict)
    columns = (rows[name].tolist() for name in ("seed", "visit", "detector", "step", "quantity", "value"))
    for seed, visit, detector, step, quantity, value in zip(*columns, strict=True):
        out[seed, visit, detector].setdefault(step.decode(), {})[quantity.decode()] = value
    return dict(out)


def _changes(base: Mapping[str, Numbers], head: Mapping[str, Numbers]) -> dict[str, dict[str, float]]:
    """By Step that differs, by however little, the quantities that do, with their relative differences, signed."""
    out = {}
    for step in base.keys() | head.keys():
        if step not in base or step not in head:
            out[step] = {LACKING: 1.0}
        elif found := _unequal(base[step], head[step]):
            out[step] = found
    return out


def _unequal(base: Numbers, head: Numbers) -> dict[str, float]:
    """Quantities that differ; those that one side alone knows are left out, unless they are counts."""
    out = {}
    for name in base.keys() | head.keys():
        if not name.startswith(COUNTED) and (name not in base or name not in head):
            continue
        a, b = base.get(name, 0.0), head.get(name, 0.0)
        if a == b or (np.isnan(a) and np.isnan(b)):
            continue
        moved = (b - a) / max(abs(a), abs(b), 1.0)
        if not abs(moved) < ROUNDING:
            out[name] = moved if np.isfinite(moved) else 1.0
    return out


def _beyond(change: Numbers, tolerance: float) -> dict[str, float]:
    return {name: moved for name, moved in change.items() if abs(moved) > tolerance}


def _commonest(changes: Sequence[Numbers]) -> str:
    """The quantity that most of them have."""
    counts = Counter(name for change in changes for name in change)
    return counts.most_common(1)[0][0] if counts else ""


def _moved(changes: Sequence[Numbers], tolerance: float) -> bool:
    """Whether one quantity differs in most detector-visits, the same way or far."""
    most = len(changes) / 2
    for name in {name for change in changes for name in change}:
        moved = np.array([change.get(name, 0.0) for change in changes])
        up, down, far = (int(np.sum(m)) for m in (moved > tolerance, moved < -tolerance, np.abs(moved) > FAR))
        same_way = max(up, down) > most and abs(up - down) > SIGMAS * np.sqrt(up + down)
        if same_way or far > max(most, SEVERAL - 1):
            return True
    return False


def _partings(changes: Mapping[Place, Mapping[str, Numbers]], order: Sequence[str],
              tolerance: float) -> tuple[Counter[str], Counter[str], int]:
    """How many detector-visits part at each Step, how many by less than the tolerance, how many inherited nothing."""
    differed: set[int] = set()
    firsts: Counter[str] = Counter()
    rounded: Counter[str] = Counter()
    fresh = 0
    for (seed, _, _), change in changes.items():
        inherits = seed in differed
        fresh += not inherits
        told = [step for step in change if not inherits or step not in STORED or LACKING in change[step]]
        if told:
            step = min(told, key=order.index)
            (firsts if _beyond(change[step], tolerance) else rounded)[step] += 1
        if change:
            differed.add(seed)
    return firsts, rounded, fresh


__all__ = ["LEAST", "STEP_ORDER", "StepDifference", "blame", "first_difference", "parted", "pipeline_order"]
