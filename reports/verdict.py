"""The verdict of a comparison as a person would say it, in one sentence.

    Worse: 2.1 % fewer sources detected at S/N 5.5–8 (1.3–2.9), 43 alerts now masked near bright stars; 8 % faster.
    Worse: sources detected at S/N 5.5–8 down from 80 % to 36 % (by 34–55 points); but 91 % fewer false alerts (42–98).

A small difference of fractions is told as the share that it nearly is; of a large one the two would not be the same.
Primary metrics come first, the worst by its margin before the others; what follows from the same Step in the same
section of the page is counted and not listed. Speed has the last word.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from reports.flips import Flips

if TYPE_CHECKING:
    from reports.paired import Judged
    from reports.terms import Metric

Word = Literal["worse", "better", "equivalent", "undecided"]
CLAUSES: Final = 3                 # at most, beside speed
PER_SECTION: Final = 1
BUT: Final = 2                     # better clauses after worse ones, of as many sections
LARGE: Final = 0.05                # a difference of fractions that is told with both of them
DOMINANT: Final = 0.3              # share of the flips of a kind that a flow must have to be told
LEAST: Final = 3                   # flips of a flow that is told
COSTS: Final = ("cpu.", "memory.")
SPEED: Final = "cpu.total"         # key of the metric of all Steps together
FORESEEN: Final = 100_000          # visits: nobody would wait for more
SMALL_ARCSEC: Final = 0.1          # margins below it are told in thousandths

# What befell a source, after "43 alerts".
FATES: Final[dict[str, str]] = {
    "own mask: CR": "masked as cosmic rays", "own mask: STREAK": "masked as streaks",
    "own mask: EDGE": "masked at the edge", "own mask: HIGH_VARIANCE": "masked where the template is shallow",
    "own mask: NO_DATA": "off the template", "own mask: BAD": "masked as defects",
    "own mask: INTRP": "masked as defects", "own mask: SAT_TEMPLATE": "masked near the template's bright stars",
    "own mask: SAT": "masked near bright stars", "own mask: SUSPECT": "masked near bright stars",
    "own mask: SPIKE": "masked near bright stars", "not detected": "not detected",
    "rejected: reliability": "stopped by the reliability cut", "rejected: satellites": "taken for satellites",
    "rejected: new_objects: glint_trail": "taken for glints",
    "rejected: new_objects": "refused as new objects", "rejected: quality": "stopped by the quality filter",
    "rejected: measure": "refused after measurement", "blended": "blended with a neighbour",
    "failed step": "lost with detector-visits that fail", "no work": "lost with detector-visits without work",
    "not published": "not published", "input mask": "on masked pixels",
    "another's object": "in another source's object", "duplicate object": "in a duplicate object",
    "no object": "without an object", "another SSObject": "with another SSObject",
    "a DIAObject": "in a DIAObject", "neither object": "in neither kind of object"}

# Groups of flips by the section of a metric: where it got worse, and where it got better.
BEHIND: Final = {"completeness": ("lost", "gained"), "purity": ("new_false", "false_gone"),
                 "association": ("object_wrong", "object_right"), "Solar System": ("ss_lost", "ss_gained")}
# What flips came to: the group that is worse, a noun and what befell it, the better group and what befell that.
SO_FAR: Final = (("lost", "alert", "lost", "gained", "gained"),
                 ("new_false", "false alert", "new", "false_gone", "gone"),
                 ("object_wrong", "alert", "in wrong objects", "object_right", "now in right ones"),
                 ("ss_lost", "SSObject", "lost", "ss_gained", "gained"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided."""

    word: Word
    sentence: str


def verdict(judged: Sequence["Judged"], flips: Flips, n_visits: int) -> Verdict:
    """The verdict on all metrics of a comparison."""
    by = {word: _ranked([j for j in judged if j.verdict == word]) for word in
          ("worse", "better", "changed", "equivalent", "undecided")}
    open_ones = [j for j in by["undecided"] if j.metric.primary]
    if by["worse"]:
        return Verdict("worse", f"Worse: {_changes(by['worse'], flips)}{_but(by['better'])}.")
    if open_ones:
        return Verdict("undecided", _undecided(open_ones, by["better"], flips, n_visits))
    if by["better"]:
        return Verdict("better", f"Better: {_changes(by['better'], flips)}.")
    if not any(j.metric.primary for j in (*by["equivalent"], *by["changed"])):
        return Verdict("undecided", "Undecided: no metric that decides has any data.")
    return Verdict("equivalent", _equivalent(judged, by["changed"], flips))


def _ranked(judged: Sequence["Judged"]) -> list["Judged"]:
    """Primary ones first, the largest change by its margin first."""
    return sorted(judged, key=lambda j: (not j.metric.primary, is_cost(j), -in_margins(j), j.metric.key))


def is_cost(judged: "Judged") -> bool:
    """Whether the metric is a Step's time or memory."""
    return judged.metric.key.startswith(COSTS)


def in_margins(judged: "Judged") -> float:
    """The size of a difference in units of its margin."""
    size = abs(judged.difference)
    return float(size / judged.margin) if judged.margin > 0 else float(np.inf if size else 0.0)


# --- sentences -------------------------------------------------------------------------------------------------------

def _changes(ranked: Sequence["Judged"], flips: Flips) -> str:
    """The first few changes with the flow that dominates among the flips, the number of others, speed."""
    speed = [j for j in ranked if j.metric.key == SPEED][:1]
    told: list[Judged] = []
    seen: Counter[str] = Counter()
    for j in ranked:
        if j in speed or (is_cost(j) and speed):
            continue
        if len(told) < CLAUSES and seen[j.metric.section] < PER_SECTION:
            told.append(j)
            seen[j.metric.section] += 1
    parts = [clause(j) + _why(j, flips) for j in told]
    rest = len([j for j in ranked if j not in told and j not in speed])
    text = "; ".join(parts)
    if rest and parts:
        text += f"; and {rest} other metric{'s' if rest > 1 else ''}"
    return "; ".join([text] * bool(text) + [clause(j) for j in speed])


def _but(better: Sequence["Judged"]) -> str:
    """What got better beside: the first of two sections, and speed."""
    speed = [j for j in better if j.metric.key == SPEED][:1]
    others = list({j.metric.section: j for j in reversed(better) if not is_cost(j)}.values())[::-1]
    said = " and ".join(clause(j) for j in sorted(others, key=list(better).index)[:BUT])
    return "".join(f"; {part}" for part in ([f"but {said}"] if said else []) + [clause(j) for j in speed])


def _why(judged: "Judged", flips: Flips) -> str:
    """The flow that most of the flips behind a metric go along."""
    metric, worse = judged.metric, judged.verdict == "worse"
    if metric.section not in BEHIND:
        return ""
    group, rows = BEHIND[metric.section][not worse], flips.rows
    if group in ("lost", "gained") and "raw" in metric.key and flips.count("raw_" + group) > flips.count(group):
        group = "raw_" + group
    chosen = rows[rows["group"] == group.encode()]
    if "false" in group:
        cause, n = Counter(chosen["kind"].tolist()).most_common(1)[0] if len(chosen) else (b"", 0)
        told = n >= max(LEAST, DOMINANT * len(chosen))
        return f", {n} of the {'new' if worse else 'gone'} ones: {cause.decode()}" if told else ""
    states = Counter(_brief(state.decode()) for state in chosen["after" if worse else "before"].tolist())
    return _dominant(states, "now" if worse else "no longer", "detections" if group.startswith("raw") else "alerts")


def _dominant(states: Counter[str], turn: str, noun: str) -> str:
    state, n = max(((s, n) for s, n in states.items() if s in FATES), key=lambda pair: pair[1], default=("", 0))
    if n < max(LEAST, DOMINANT * states.total()):
        return ""
    return f", {n:,} {noun} {turn} {FATES[state]}"


def _brief(state: str) -> str:
    """A state as `FATES` has it: the first plane of a mask, a filter without its flag."""
    if state in FATES:
        return state
    stage, _, detail = state.partition(": ")
    if stage == "own mask":
        planes = detail.split("+")
        return next((f"own mask: {p}" for p in ("SAT", "SPIKE", "SUSPECT", "CR", "STREAK") if p in planes),
                    f"own mask: {planes[0]}")
    return f"rejected: {detail.partition(':')[0]}" if stage == "rejected" else stage


def _undecided(open_ones: Sequence["Judged"], better: Sequence["Judged"], flips: Flips, n_visits: int) -> str:
    """What may have changed by how much, what it would take to know, and what is known already."""
    first = open_ones[0]
    more = outlook(max(j.needed for j in open_ones), n_visits)
    if all(j.difference == 0 for j in open_ones) and not len(flips.rows):
        return (f"Undecided: no difference in {n_visits:,} visit{'s' if n_visits > 1 else ''}, too few to tell for "
                f"{first.metric.name}: {span(first)} are left open; {more}.")
    text = f"Undecided: {first.metric.name} may have changed by {span(first)}"
    if rest := len(open_ones) - 1:
        text += f", {rest} other{'s' if rest > 1 else ''} by more than the margin too"
    text += f"; {more}"
    counts = []
    for lost, noun, loss, gained, gain in SO_FAR:
        if (n := flips.count(lost)) + (m := flips.count(gained)):
            counts.append(f"{n:,} {noun}{'' if n == 1 else 's'} {loss} and {m:,} {gain}")
    text += f"; so far {', '.join(counts[:2])}" if counts else ""
    return text + "".join(f"; better: {clause(j)}" for j in better[:1]) + "."


def outlook(needed: int, n_visits: int) -> str:
    """How many more visits would decide."""
    if needed > FORESEEN:
        return "too few sources changed to foresee how many visits would tell"
    more = max(needed - n_visits, 1)
    return f"about {more:,} more visit{'s' if more > 1 else ''} would tell"


def _equivalent(judged: Sequence["Judged"], changed: Sequence["Judged"], flips: Flips) -> str:
    """No difference, how small a one could have been seen, and what changed that is no better either way."""
    primary = [j for j in judged if j.metric.primary and j.verdict == "equivalent"]
    if not len(flips.rows) and all(j.difference == 0 for j in judged if not is_cost(j) and np.isfinite(j.difference)):
        text = "No difference: every source, alert and measurement is the same"
    else:
        bounds = [f"{j.metric.name} to {_size(j, max(abs(j.low), abs(j.high)))}" for j in primary if not is_cost(j)]
        text = "No difference that matters: the same " + (", ".join(bounds[:CLAUSES]) or "in all metrics")
        if (rest := len(bounds) - CLAUSES) > 0:
            text += f", and {rest} other{'s' if rest > 1 else ''} within their margins"
    speed = [j for j in judged if j.metric.key == SPEED and np.isfinite(j.low)][:1]
    text += "".join(f"; CPU time to {_size(j, max(abs(j.low), abs(j.high)))}" for j in speed)
    if changed:
        text += f"; neither better nor worse: {clause(changed[0])}"
        text += f" and {rest} other{'s' if rest > 1 else ''}" if (rest := len(changed) - 1) else ""
    return text + "."


# --- clauses ---------------------------------------------------------------------------------------------------------

# Words for more and less of a metric, by its key.
_PHRASES: Final[tuple[tuple[str, str, str], ...]] = (
    (r"cpu\.total", "slower", "faster"),
    (r"cpu\.(?P<step>.+)", "more CPU time in {step}", "less CPU time in {step}"),
    (r"memory\.peak", "more memory", "less memory"),
    (r"memory\.(?P<step>.+)", "more memory in {step}", "less memory in {step}"),
    (r"latency.*", "longer {name}", "shorter {name}"),
    (r"completeness_raw_(?P<low>[\d.]+)_(?P<high>[\d.]+)", "more sources detected at S/N {low}–{high}",
     "fewer sources detected at S/N {low}–{high}"),
    (r"completeness_raw_(?P<low>[\d.]+)_up", "more sources detected at S/N > {low}",
     "fewer sources detected at S/N > {low}"),
    (r"completeness_alerts_(?P<low>[\d.]+)_(?P<high>[\d.]+)", "more sources with an alert at S/N {low}–{high}",
     "fewer sources with an alert at S/N {low}–{high}"),
    (r"completeness_alerts_(?P<low>[\d.]+)_up", "more sources with an alert at S/N > {low}",
     "fewer sources with an alert at S/N > {low}"),
    (r"false_.*|(duplicate|merged|new|unassociated|lone)_objects|alerts|detections|dia_(sources|dipoles)"
     r"|(direct|solar_system)_sources|solar_system_known|failed_visits|no_work", "more {name}", "fewer {name}"))
_SIZES: Final = re.compile("error|bias|scatter|rms|variance|offset|FWHM|size")     # in a name: larger, smaller


def clause(judged: "Judged") -> str:
    """A change in words: `2.1 % fewer sources detected at S/N 5.5–8 (1.3–2.9)`; of a large one, from what to what."""
    metric = judged.metric
    up, down = ("larger {name}", "smaller {name}") if _SIZES.search(metric.name) else ("higher {name}", "lower {name}")
    given = {"name": metric.name}
    for pattern, more, less in _PHRASES:
        if found := re.fullmatch(pattern, metric.key):
            up, down, given = more, less, {**given, **found.groupdict()}
            break
    phrase = (up if judged.difference > 0 else down).format(**given)
    if math.isinf(judged.difference):          # from nothing to something
        return f"{phrase}, from none"
    if not metric.unit and not metric.relative and abs(judged.difference) >= LARGE:
        by = _interval(judged).replace("(", "(by ").replace(")", " points)")
        turn = "up" if judged.difference > 0 else "down"
        return f"{phrase.partition(' ')[2]} {turn} from {_percent(judged.base)} to {_percent(judged.head)}{by}"
    return f"{_size(judged, abs(judged.difference))} {phrase}{_interval(judged)}"


def scale(metric: "Metric") -> tuple[float, str]:
    """What differences of a metric are multiplied with to be read, and their unit."""
    if metric.relative or not metric.unit:
        return 100.0, "%"
    if metric.unit == "arcsec" and metric.margin < SMALL_ARCSEC:
        return 1000.0, "mas"
    return 1.0, metric.unit


def span(judged: "Judged") -> str:
    """The interval of a difference with its signs: `−1.2 to +0.4 %`."""
    factor, unit = scale(judged.metric)
    if not (math.isfinite(judged.low) and math.isfinite(judged.high)):
        return "any amount"
    return f"{_signed(judged.low * factor)} to {_signed(judged.high * factor)} {unit}"


def _size(judged: "Judged", size: float) -> str:
    factor, unit = scale(judged.metric)
    return f"{_digits(size * factor)} {unit}"


def _interval(judged: "Judged") -> str:
    """The interval's bounds as sizes; with signs where it holds both."""
    if not (math.isfinite(judged.low) and math.isfinite(judged.high)):
        return ""
    low, high = (bound * scale(judged.metric)[0] for bound in (judged.low, judged.high))
    if low < 0 < high:
        return f" ({_signed(low)} to {_signed(high)})"
    return f" ({'–'.join(dict.fromkeys(_digits(v) for v in sorted((abs(low), abs(high)))))})"


def _digits(size: float) -> str:
    """A size with two digits that mean something."""
    if not math.isfinite(size):
        return "∞"
    if size == 0:
        return "0"
    places = max(0, 1 - math.floor(math.log10(size)))
    return f"{size:.{min(places, 6)}f}".rstrip("0").rstrip(".") if places else f"{size:,.0f}"


def _percent(share: float) -> str:
    """A fraction in percent, as exactly as its distance from 0 and 100 % asks for: `80 %`, `99.9 %`."""
    least = 100 * min(abs(share), abs(1 - share))
    return f"{100 * share:.{max(0, -math.floor(math.log10(least))) if least > 1e-6 else 0}f} %"


def _signed(value: float) -> str:
    return ("+" if value > 0 else "−" if value < 0 else "") + _digits(abs(value))


__all__ = ["Verdict", "clause", "in_margins", "is_cost", "outlook", "scale", "span", "verdict"]
