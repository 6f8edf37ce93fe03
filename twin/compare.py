"""`alert-twin compare`: two sides of a test are run, laid against each other, and judged.

    what is written on the line -> sides -> Outcomes -> reports.compare -> page, JSON, Markdown, JUnit

Nights are judged as they are, or added until every metric that decides is decided. Times are never those that the runs
noted, which were run at different moments: they are measured anew, both sides interleaved.
"""

import difflib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from itertools import count, islice
from pathlib import Path
from typing import Final, Self

import numpy as np

from pipeline.errors import InputError
from reports import comparison_page
from reports.compare import Comparison, compare
from reports.metrics import METRICS, metrics_of
from reports.outcome import Outcome, joined
from reports.paired import Judged, Rules
from reports.pairing import paired
from reports.power import power
from reports.sequences import Looks, judge_sequence
from reports.store import StoreError
from reports.terms import Metric
from schemas.table import join
from twin import baseline, sides, stamps
from twin.cache import Cache
from twin.folders import claimed
from twin.scenario import JudgeConfig
from twin.sides import Baseline, Bench, Code, Detections, Runs, Side, Trial
from twin.timing import Timed, Tree, interleaved
from twin.workspace import workspace

NO_REGRESSION, REGRESSION, BAD_INPUT, UNDECIDED = range(4)   # exit codes
FILES: Final = {"html": "comparison.html", "json": "comparison.json", "markdown": "comparison.md",
                "junit": "junit.xml"}   # what `comparison_page.write` writes, by the option for a copy of it
RUNS: Final = Path("runs")              # where folders go that nobody named
TIMINGS: Final = 4                      # of times, at most, where nights are added until all is decided
COSTS: Final = ("cpu.", "memory.")
OF_STEPS: Final = (*COSTS, "latency.")  # metrics that exist where a Step was measured

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of two sides."""

    base: str
    head: str
    scenario: str | None = None          # a file, a shipped one's name, or real:FOLDER
    seeds: tuple[int, ...] = ()          # none: those of the sides or of the scenario
    _: KW_ONLY
    until_decided: bool = False
    budget: int | None = None            # nights at most; None: the scenario's
    times: bool = True
    samples: int | None = None           # detector-visits that are timed; None: the scenario's
    processes: int = 1
    cache: Path | None = None            # its folder; None: the usual one


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be written down."""

    out: Path | None = None              # folder of all files; None: the next free one
    files: Mapping[str, Path] = field(default_factory=dict)   # by kind, of FILES
    keep_runs: bool = False              # in `out`
    power: bool = False                  # say what would have been found


@dataclass(frozen=True, slots=True)
class Answer:
    """A comparison, and what has to be said beside it."""

    comparison: Comparison
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """1: something got worse; 3: a metric that decides is undecided, or none has any data; else 0."""
        return {"worse": REGRESSION, "undecided": UNDECIDED}.get(self.comparison.verdict.word, NO_REGRESSION)


def report(question: Question, wanted: Wanted, show: Say, say: Say = lambda line: None) -> int:
    """Answer a question, write the files, show the verdict and what is not equivalent; the exit code.

    `say` is told what is being done meanwhile.
    """
    try:
        with _folder(wanted.out) as out:
            with answered(question, say, out / "runs" if wanted.keep_runs else None) as answer:
                cutouts = stamps.of_sides(answer.comparison, Cache.open(question.cache))
                page = comparison_page.write(answer.comparison, out, stamps=cutouts, notes=answer.notes)
            for kind, path in wanted.files.items():
                shutil.copyfile(out / FILES[kind], path)
            show(told(answer))
            if wanted.power:
                show("\n".join(["", *powers(answer.comparison)]))
            show(f"\npage: {page}")
    except StoreError as error:
        raise InputError(str(error)) from None
    return answer.exit_code


def told(answer: Answer) -> str:
    """The verdict, and the metrics that are not equivalent, as text."""
    comparison = answer.comparison
    shown = [(j, comparison_page.row(j, comparison)) for j in comparison.judged]
    changed = [(j, row) for j, row in shown if row.verdict in ("worse", "better", "changed")]
    open_ones = [(j, row) for j, row in shown if row.verdict == "undecided"]
    lines = [f"{comparison.base_label}  against  {comparison.head_label}: {comparison.scenario}, "
             f"{comparison.units.n} visits", comparison.verdict.sentence]
    cells = [(row.verdict, j.metric.key, f"{row.base} -> {row.head}", f"{row.difference} ({row.interval})",
              f"{row.step}: {row.note}" if row.step else row.note)
             for j, row in (*changed, *(pair for pair in open_ones if pair[0].metric.primary))]
    others = sum(not j.metric.primary for j, _ in open_ones)
    counted = Counter(row.verdict for _, row in shown)
    lines += ["", *aligned(cells)] if cells else []
    lines += ["", f"{counted['equivalent']} of {len(shown)} metrics equivalent, {others} others undecided, "
              f"{counted['no data']} without data", *answer.notes]
    return "\n".join(lines)


def powers(comparison: Comparison) -> list[str]:
    """What change of each metric that decides this comparison would have found in nine cases of ten."""
    known = [judged.metric for judged in comparison.judged if judged.verdict != "no data"]
    n_metrics, n_primary = len(known), sum(metric.primary for metric in known)
    rows = []
    for judged in comparison.judged:
        if not judged.metric.primary or judged.verdict == "no data":
            continue
        base, head = judged.metric.terms(comparison.base), judged.metric.terms(comparison.head)
        of_costs = judged.metric.key.startswith(COSTS)   # never the same twice: the other side tells their scatter
        found = power(judged.metric, base, len(np.unique(base.unit)), comparison.rules,
                      other=head if of_costs else None, n_metrics=n_metrics, n_primary=n_primary)
        size = comparison_page.difference_text(replace(judged, difference=found.size)).lstrip("+")
        rows.append((f"  {size if np.isfinite(found.size) else 'none'}", judged.metric.name))
    return ["changes that would be found in nine cases of ten:", *aligned(rows)] if rows else []


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text in columns.

    Examples
    --------
    >>> aligned([("a", "bb", "c"), ("aaa", "b", "")])
    ['a    bb  c', 'aaa  b']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


@contextmanager
def _folder(named: Path | None) -> Iterator[Path]:
    """The folder of the files: the one named, else the next free one of ours; gone again after an error."""
    if named is None:
        number = next(n for n in count(1) if not (RUNS / f"compare-{n}").exists())
        named = RUNS / f"compare-{number}"
    with claimed(named) as folder:
        yield folder


@contextmanager
def answered(question: Question, say: Say = lambda line: None, keep: Path | None = None) -> Iterator[Answer]:
    """The answer to a question; the run folders behind it last as long as the context, those in `keep` longer.

    InputError, StoreError or ComparisonError, each of one line, where the sides cannot be compared.
    """
    base, head = sides.parse_side(question.base), sides.parse_side(question.head)
    trial = sides.read_trial(question.scenario, base, head)
    for side in (base, head):
        if isinstance(side, Code):
            sides.settings_of(side, trial)   # refused now, not after the other side's nights
    seeds = Seeds.of(question, trial.judge, base, head)
    with workspace() as place:
        runs = (keep or place.new("runs")).absolute()
        bench = Bench(place, runs, Cache.open(question.cache).folder, question.processes, say)
        left_aside = [note for side in (base, head) for note in sides.notes(side, trial)]
        pair = Pair(base, head, trial, bench)
        pair.add(seeds.first)
        looks = add_until_decided(pair, seeds) if question.until_decided else None
        one, other, judged, without = judged_with_times(pair, question, looks)
        metrics, rules = terms_of(trial.judge, one, other)
        comparison = compare(one, other, rules, base_label=base.label, head_label=head.label, scenario=trial.name,
                             metrics=metrics, judged=judged)
        yield Answer(comparison, (*left_aside, *pair.remarks, *without))


# --- nights ----------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class Seeds:
    """The nights of a comparison: those it begins with, and those it may add."""

    first: tuple[int, ...]
    more: tuple[int, ...]

    @classmethod
    def of(cls, question: Question, judge: JudgeConfig, base: Side, head: Side) -> Self:
        """Those asked for, else those that the sides have or the scenario names; more up to the budget."""
        had = [(side, seeds) for side in (base, head) if (seeds := sides.seeds_of(side)) is not None]
        if not question.seeds and len(had) == 2 and set(had[0][1]) != set(had[1][1]):
            raise InputError(f"the sides are of other nights: seeds {sides.written(had[0][1])} and "
                             f"{sides.written(had[1][1])}; choose those of both with --seeds")
        first = question.seeds or (had[0][1] if had else judge.seeds)
        for side, seeds in had:
            if missing := set(first) - set(seeds):
                raise InputError(f"{side.label} has no night of seed {sides.written(tuple(missing))}, only of "
                                 f"{sides.written(seeds)}")
        left = max(question.budget or judge.budget, len(first)) - len(first)
        others = (s for s in (had[0][1] if had else range(max(first) + 1, max(first) + 1 + left))
                  if s not in first and all(s in seeds for _, seeds in had))
        return cls(first, tuple(islice(others, left)))


@dataclass(slots=True)
class Pair:
    """Two sides of a test, night by night."""

    base: Side
    head: Side
    trial: Trial
    bench: Bench
    remarks: list[str] = field(default_factory=list)     # what has to be said beside the answer
    timed: list[Timed] = field(default_factory=list)     # measurements of times so far
    _parts: list[tuple[Outcome, Outcome]] = field(default_factory=list)
    _truth: dict[int, Path] = field(default_factory=dict)

    @property
    def outcomes(self) -> tuple[Outcome, Outcome]:
        """Both sides, all nights so far."""
        return joined([base for base, _ in self._parts]), joined([head for _, head in self._parts])

    @property
    def seeds(self) -> list[int]:
        """The nights so far."""
        return [int(seed) for seed in np.unique(self.outcomes[0].visits["seed"])]

    def scenario_files(self, codes: Sequence[Code]) -> tuple[Path, Path]:
        """Files of the test with each side's settings."""
        base, head = (sides.write_settings(code, self.trial, self.bench, "times") for code in codes)
        return base, head

    def add(self, seeds: Sequence[int]) -> None:
        """Run, or read, more nights of both sides."""
        made: dict[str, Outcome] = {}
        named = {"base": self.base, "head": self.head}
        for name, side in sorted(named.items(), key=lambda item: isinstance(item[1], Detections)):
            seen = {other: o for other, o in made.items() if not isinstance(named[other], Detections)}
            others = self._runs_for(seeds, seen) if isinstance(side, Detections) else {}
            made[name] = sides.outcome(side, self.trial, seeds, self.bench, name, others)
        self._parts.append((made["base"], made["head"]))

    def _runs_for(self, seeds: Sequence[int], made: dict[str, Outcome]) -> dict[int, Path]:
        """Run folders whose truth another program's detections are laid against: the other side's, or new ones."""
        for outcome in made.values():
            if set(seeds) <= set(outcome.folders):
                return outcome.folders
        if missing := [seed for seed in seeds if seed not in self._truth]:
            self._truth |= sides.nights(Code("present code"), self.trial, missing, self.bench, "truth")
        return self._truth


def add_until_decided(pair: Pair, seeds: Seeds) -> Looks:
    """Add nights until every metric that decides is decided, or there are no more; what the looks at them left behind.

    Costs are not among them: they are measured once, at the end.
    """
    looks: Looks | None = None
    waiting = list(seeds.more)
    while True:
        base, head = (costless(outcome) for outcome in pair.outcomes)
        metrics, rules = terms_of(pair.trial.judge, base, head)
        base, head, units = paired(base, head)
        judged, looks = judge_sequence(metrics, base, head, rules, looks)
        left = undecided(judged)
        if not left or not waiting:
            return looks
        pair.bench.say(f"{units.n} visits: undecided {', '.join(left)}")
        batch, waiting = waiting[:pair.bench.processes], waiting[pair.bench.processes:]
        pair.add(batch)


def undecided(judged: Sequence[Judged], of: tuple[str, ...] = ("",)) -> list[str]:
    """Keys, beginning with one of some words, of metrics that decide and are not decided."""
    return [j.metric.key for j in judged
            if j.metric.primary and j.verdict == "undecided" and j.metric.key.startswith(of)]


# --- judgement -------------------------------------------------------------------------------------------------------

def terms_of(judge: JudgeConfig, base: Outcome, head: Outcome) -> tuple[tuple[Metric, ...], Rules]:
    """The metrics of a comparison and the rules of its scenario; InputError for keys that no metric has."""
    metrics = metrics_of(base, head)
    known = {metric.key for metric in (*METRICS, *metrics)}
    for key in (*judge.primary, *judge.margins):
        if key not in known and not key.startswith(OF_STEPS):
            near = difflib.get_close_matches(key, known, 3)
            raise InputError(f"[judge] names {key!r}, which is no metric{'; near: ' if near else ''}{', '.join(near)}")
    return metrics, Rules(judge.margins, judge.primary, judge.level, judge.resamples)


# --- times -----------------------------------------------------------------------------------------------------------

def judged_with_times(pair: Pair, question: Question, looks: Looks | None) -> tuple[
        Outcome, Outcome, tuple[Judged, ...] | None, tuple[str, ...]]:
    """Both sides with times, what looks at them judge, and why there are no times.

    Where looks have been taken, more times are measured until those that decide are decided, or enough is enough.
    """
    while True:
        steps, without = side_by_side(pair, question)
        base, head = (replace(o, steps=rows) for o, rows in zip(pair.outcomes, steps, strict=True))
        if looks is None:
            return base, head, None, without
        metrics, rules = terms_of(pair.trial.judge, base, head)
        judged, looks = judge_sequence(metrics, *paired(base, head)[:2], rules, looks)
        if without or not undecided(judged, COSTS) or len(pair.timed) >= TIMINGS:
            return base, head, judged, without


Steps = tuple[np.ndarray, np.ndarray]


def costless(outcome: Outcome) -> Outcome:
    """An outcome without the CPU time and memory of its run: only durations on the simulated clock are left."""
    steps = outcome.steps.copy()
    steps["cpu_s"] = steps["peak_mb"] = np.nan
    return replace(outcome, steps=steps)


def side_by_side(pair: Pair, question: Question) -> tuple[Steps, tuple[str, ...]]:
    """STEP rows of both sides with costs that were measured together; without those, a line that says why.

    Called again, it measures more and gives all.
    Durations on the simulated clock are the runs' own; both kinds of rows stand beside each other.
    """
    base, head = (costless(outcome).steps for outcome in pair.outcomes)
    if not question.times:
        return (base, head), ()
    codes, why = timed_codes(pair)
    if why:
        return (base, head), (f"times are not compared: {why}",)
    trees = [tree_of(code, pair.bench) for code in codes]
    known = {int(seed) for timed in pair.timed for seed in timed.base["seed"]}
    nights = sorted(pair.seeds, key=lambda seed: seed in known)   # each time others first
    timed = interleaved(trees[0], trees[1], pair.scenario_files(codes), nights, cache=pair.bench.cache,
                        samples=question.samples or pair.trial.judge.samples, say=pair.bench.say)
    pair.timed.append(timed)
    if not any(len(one.base) for one in pair.timed):
        return (base, head), (timed.note,)
    pair.remarks += [timed.note] if timed.note else []
    return (join([base, *(t.base for t in pair.timed)]), join([head, *(t.head for t in pair.timed)])), ()


def timed_codes(pair: Pair) -> tuple[list[Code], str]:
    """The code of both sides that can be run for its times, or why it cannot."""
    codes = []
    for side in (pair.base, pair.head):
        if pair.trial.real is not None:
            return [], "the real field is not timed"
        if isinstance(side, Runs):
            return [], f"{side.label} was run before, and its run does not hold its code"
        if isinstance(side, Detections):
            return [], f"{side.label} has no clock"
        if isinstance(side, Baseline):
            revision, why = baseline.revision(side.folder)
            if why:
                return [], f"{side.label}: {why}"
            side = Code(side.label, revision)
        codes.append(side)
    return codes, ""


def tree_of(code: Code, bench: Bench) -> Tree:
    """The code of a side as what is timed."""
    found = bench.checkout(code)
    return Tree(found.python, found.root, code.label)
