"""Two sides of a test laid against each other: judged, with who gained and lost what, and which Step made it."""

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from reports.flips import Flips, flips
from reports.known import is_catalogue, unknown
from reports.metrics import metrics_of
from reports.outcome import Outcome
from reports.paired import Judged, Rules, judge
from reports.pairing import Units, paired
from reports.terms import Metric
from reports.trace import StepDifference, blame, first_difference, parted
from reports.verdict import Verdict, is_cost, verdict

WHOLE: Final = ("cpu.total", "memory.peak")        # keys of what all Steps cost together
# Facts of a run that say nothing of its pipeline.
PASSING: Final = frozenset({"wall_s", "processes", "description", "cost_date"})


@dataclass(frozen=True, slots=True)
class Blame:
    """The Step that made a metric's difference, and how that is known."""

    step: str
    how: str


@dataclass(frozen=True, slots=True)
class Setting:
    """Something that the sides do not share: a key of the scenario, a fact of the run."""

    key: str
    base: str
    head: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides, laid against each other."""

    base_label: str
    head_label: str
    scenario: str
    base: Outcome              # paired
    head: Outcome
    units: Units
    rules: Rules
    judged: tuple[Judged, ...]
    blames: dict[str, Blame]   # by the key of a metric that got better or worse
    differences: tuple[StepDifference, ...]
    flips: Flips
    settings: tuple[Setting, ...]
    verdict: Verdict

    @property
    def seeds(self) -> tuple[int, ...]:
        """Nights of the test."""
        return tuple(np.unique(self.base.visits["seed"]).tolist())

    @property
    def wanted(self) -> dict[int, list[tuple[int, int, float, float]]]:
        """{seed: [(visit, detector, x, y), ...]}: where cutouts of both sides are asked for, worst first."""
        return self.flips.wanted

    def of(self, word: str) -> list[Judged]:
        """Metrics with a verdict."""
        return [j for j in self.judged if j.verdict == word]


def compare(base: Outcome, head: Outcome, rules: Rules, *, base_label: str = "base", head_label: str = "head",
            scenario: str = "", metrics: Sequence[Metric] | None = None, judged: Sequence[Judged] | None = None,
            steps: tuple[np.ndarray, np.ndarray] | None = None) -> Comparison:
    """Pair two sides and judge them.

    Parameters
    ----------
    judged : verdicts that were reached otherwise, as by looking again and again while seeds are added.
    steps : STEP rows with `seed` of both sides, measured side by side: in place of those that the runs noted.

    Raises
    ------
    ComparisonError
        Sides of another truth, other visits, another fidelity.
    """
    if steps is not None:
        base, head = replace(base, steps=steps[0]), replace(head, steps=steps[1])
    base, head, units = paired(base, head)
    found = tuple(judged) if judged is not None else judge(metrics or metrics_of(base, head), base, head, rules)
    differences = first_difference(base.traces, head.traces)
    changed = flips(base, head, parted(base.traces, head.traces))
    return Comparison(base_label, head_label, scenario or base.facts.get("scenario", ""), base, head, units, rules,
                      found, {} if is_catalogue(base.facts, head.facts) else blames(found, differences, changed),
                      differences, changed, settings(base, head), verdict(found, changed, units.n))


def blames(judged: Sequence[Judged], differences: Sequence[StepDifference], flips: Flips) -> dict[str, Blame]:
    """The Step behind each metric that got better or worse: the first of those that make it whose trace differs.

    Where none of these differs the metric rests on more than its own Step: what most of the flips behind it went
    through is told, or the first Step that differs at all.
    """
    return {j.metric.key: _blame(j, judged, differences, flips) for j in judged if j.verdict in ("better", "worse")}


def _blame(judged: Judged, others: Sequence[Judged], differences: Sequence[StepDifference], flips: Flips) -> Blame:
    own = judged.metric.step
    if is_cost(judged):
        if own:
            return Blame(own, "its own cost")
        whole = judged.metric.key in WHOLE
        return _of_costs(judged, others) if whole else Blame("", "Steps too short to be judged alone")
    if step := blame(own, differences):
        return Blame(step, _how(step, differences))
    if (behind := _of_flips(judged, flips)) is not None:
        return behind
    if step := blame("", differences):
        return Blame(step, _how(step, differences))
    return Blame(own, "the Step that makes it" + ("" if differences else "; no trace tells more"))


def _of_costs(whole: Judged, judged: Sequence[Judged]) -> Blame:
    """The Step whose own cost changed most of what all Steps together cost, in the same direction."""
    kind = whole.metric.key.partition(".")[0]
    parts = [j for j in judged if j.metric.key.startswith(f"{kind}.") and j.metric.step
             and j.difference * whole.difference > 0 and np.isfinite(j.head - j.base)]
    if not parts:
        return Blame("", "of all Steps together")
    most = max(parts, key=lambda j: abs(j.head - j.base))
    return Blame(most.metric.step, "of all Steps it changed most")


# Groups of flips behind the metrics of a section, where these got worse and where they got better.
_BEHIND: Final = {"completeness": (("lost", "raw_lost"), ("gained", "raw_gained")),
                  "purity": (("new_false", "raw_false"), ("false_gone", "raw_gone"))}


def _of_flips(judged: Judged, flips: Flips) -> Blame | None:
    behind = _BEHIND.get(judged.metric.section)
    if behind is None:
        return None
    chosen = behind[judged.verdict == "better"]
    count: Counter[str] = Counter()
    for flow in flips.flows:
        if flow.group in chosen:
            count[flow.origin or flow.step] += flow.n
    if not count:
        return None
    step, n = count.most_common(1)[0]
    return Blame(step, f"{n} of {count.total()} flips go back to it")


def _how(step: str, differences: Sequence[StepDifference]) -> str:
    """`differs in 48 of 48 detector-visits (peaks); upstream equal`."""
    names = [d.step for d in differences]
    here = differences[names.index(step)] if step in names else None
    if here is None:
        return "its own"
    text = f"differs in {round(here.share * here.n)} of {here.n} detector-visits"
    if here.quantity:
        text += f" ({here.quantity.partition(':')[2] or here.quantity})"
    above = [d for d in differences[:names.index(step)] if d.share > 0]
    if not above:
        return text + "; upstream equal"
    most = max(above, key=lambda d: d.share)
    return f"{text}; upstream {most.step} in {round(most.share * most.n)}"


# --- settings --------------------------------------------------------------------------------------------------------

def settings(base: Outcome, head: Outcome) -> tuple[Setting, ...]:
    """What the scenarios and facts of two sides say differently; of another program's catalogue, what it does not."""
    if is_catalogue(base.facts, head.facts):
        return tuple(_unequal(unknown(base.facts), unknown(head.facts)))
    scenarios = [_scenario(side) for side in (base, head)]
    out = _unequal(*scenarios) if all(scenarios) else []
    facts = [{k: v for k, v in side.facts.items() if k not in PASSING} for side in (base, head)]
    return (*out, *_unequal(*facts))


def _unequal(base: Mapping[str, str], head: Mapping[str, str]) -> list[Setting]:
    keys = sorted(k for k in base.keys() | head.keys() if base.get(k) != head.get(k))
    return [Setting(k, base.get(k, ""), head.get(k, "")) for k in keys]


def _scenario(side: Outcome) -> dict[str, str]:
    """Dotted keys of the scenario as run, from the first night's folder; none where there is no folder."""
    for _, folder in sorted(side.folders.items()):
        path = Path(folder) / "scenario.toml"
        if path.is_file():
            try:
                return dict(_flat(tomllib.loads(path.read_text(encoding="utf-8")), ""))
            except (tomllib.TOMLDecodeError, OSError):
                return {}
    return {}


def _flat(table: Mapping[str, Any], above: str) -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    for key, value in table.items():
        name = f"{above}.{key}" if above else key
        out += _flat(value, name) if isinstance(value, dict) else [(name, str(value))]
    return out


__all__ = ["Blame", "Comparison", "Setting", "blames", "compare", "settings"]
