"""`alert-twin bisect`: the commit that made a metric worse, found by decided verdicts only.

    good  o---o---?---o---x---x  bad      o equivalent to good, or better    x worse    ? undecided

Each commit asked is compared with the good one on the same nights; nights are added until its verdict is decided,
within the budget. Of an undecided commit the neighbours are asked; where they stay undecided, what is left is a range.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from msgspec import structs

from pipeline.errors import InputError
from reports.metrics import METRICS
from reports.paired import Judged, judge
from reports.pairing import paired
from reports.sequences import judge_sequence
from twin import checkout, sides
from twin.cache import Cache
from twin.compare import Pair, Question, Seeds, add_until_decided, costless, side_by_side, terms_of
from twin.scenario import JudgeConfig
from twin.sides import Bench, Code, Trial
from twin.workspace import git, workspace

COSTS = ("cpu.", "memory.")     # metrics that are measured side by side, once per commit


@dataclass(frozen=True, slots=True)
class Range:
    """Where the change is: after `good`, at `bad` or at one of `between`, which nothing decided."""

    good: str
    bad: str
    between: tuple[str, ...]

    def __str__(self) -> str:
        if not self.between:
            return f"{self.bad} is the first worse commit"
        return (f"between {self.good} and {self.bad}: {len(self.between)} commits stay undecided "
                f"({', '.join(self.between)})")


def first_bad(n: int, asked: Callable[[int], bool | None]) -> tuple[int, int]:
    """The last good and the first bad of places 0 .. n - 1, the first good and the last bad.

    `asked` says whether a place is bad, None where it cannot be decided: the nearest other one is asked then. Places
    between the two that are given back were all asked in vain.

    Examples
    --------
    >>> first_bad(8, lambda i: i >= 5)
    (4, 5)
    >>> first_bad(8, lambda i: None if i in (4, 5) else i >= 5)
    (3, 6)
    """
    good, bad = 0, n - 1
    vain: set[int] = set()
    while open_ones := [i for i in range(good + 1, bad) if i not in vain]:
        middle = min(open_ones, key=lambda i: abs(2 * i - good - bad))
        answer = asked(middle)
        if answer is None:
            vain.add(middle)
        elif answer:
            bad = middle
        else:
            good = middle
    return good, bad


def bisect(good: str, bad: str, metric: str, question: Question, say: Callable[[str], None]) -> Range:
    """The commit between two that made a metric worse; `question` has scenario, seeds, budget and processes.

    InputError where there is no such metric or no such way, or where the bad commit is not decidedly worse.
    """
    root = checkout.present()
    first, last = checkout.resolve(good, root), checkout.resolve(bad, root)
    commits = [first, *commits_between(first, last)]
    if metric not in {m.key for m in METRICS} and not metric.startswith((*COSTS, "latency.")):
        raise InputError(f"--metric {metric!r}: no such metric; keys are in the JSON of any comparison")
    trial = sides.read_trial(question.scenario, Code(good, first), Code(bad, last))
    trial = replace(trial, judge=replace_primary(trial, metric))
    with workspace() as place:
        bench = Bench(place, place.new("runs"), Cache.open(question.cache).folder, question.processes)

        def asked(i: int) -> bool | None:
            found = verdict_of(commits[0], commits[i], metric, trial, replace(question, until_decided=True), bench)
            say(f"{commits[i][:7]}: {found.verdict}, {found.difference:+.3g} ({found.low:+.3g} to {found.high:+.3g})")
            return None if found.verdict in ("undecided", "no data") else found.verdict in ("worse", "changed")

        if asked(len(commits) - 1) is not True:
            raise InputError(f"{bad} is not decidedly worse than {good} in {metric}: there is nothing to find")
        left, right = first_bad(len(commits), asked)
    names = [name[:7] for name in commits]
    return Range(names[left], names[right], tuple(names[left + 1:right]))


def commits_between(good: str, bad: str) -> list[str]:
    """Commits after a good one up to a bad one, oldest first; InputError where no way leads from one to the other."""
    root = checkout.present()
    if git(root, "merge-base", "--is-ancestor", good, bad).returncode:
        raise InputError(f"{good[:7]} is no ancestor of {bad[:7]}: give the earlier commit first")
    found = git(root, "rev-list", "--reverse", "--first-parent", "--ancestry-path", f"{good}..{bad}").stdout.split()
    if not found:
        raise InputError(f"{good[:7]} and {bad[:7]} are the same commit")
    return found


def replace_primary(trial: Trial, metric: str) -> JudgeConfig:
    """The rules of a test by which one metric alone has to be decided."""
    return structs.replace(trial.judge, primary=(metric,))


def verdict_of(good: str, commit: str, metric: str, trial: Trial, question: Question, bench: Bench) -> Judged:
    """What a commit made of a metric, nights added until it is decided or the budget is spent."""
    base, head = Code(good[:7], good), Code(commit[:7], commit)
    seeds = Seeds.of(question, trial.judge, base, head)
    pair = Pair(base, head, trial, replace(bench, runs=bench.place.new("runs")))
    pair.add(seeds.first)
    if metric.startswith(COSTS):
        steps, without = side_by_side(pair, question)
        if without:
            raise InputError(without[0])
        one, other = (replace(o, steps=rows) for o, rows in zip(pair.outcomes, steps, strict=True))
        metrics, rules = terms_of(trial.judge, one, other)
        found = judge(metrics, *paired(one, other)[:2], rules)
    else:
        looks = add_until_decided(pair, seeds)
        one, other = (costless(outcome) for outcome in pair.outcomes)
        metrics, rules = terms_of(trial.judge, one, other)
        found = judge_sequence(metrics, *paired(one, other)[:2], rules, looks)[0]
    of = [judged for judged in found if judged.metric.key == metric]
    if not of:
        raise InputError(f"--metric {metric!r}: the sides have no figure of it")
    return of[0]
