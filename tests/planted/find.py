"""Are planted changes found, and changes without effect called nothing? Figures, from seeds given on the line.

    python tests/planted/find.py --seeds 40 --first 1000 --out runs/planted [NAME ...]

The present code runs the regression scenario's nights once; each change runs them again, by settings or in a copy of
the code. Repeats are disjoint sets of those nights. What a change costs in time and memory is measured side by side, on
nights of its own.
"""

import argparse
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

from changes import ROOT, Change, null, planted

from reports.compare import Comparison, compare
from reports.outcome import Outcome
from twin import sides
from twin.checkout import PACKAGES
from twin.compare import Pair, Question, costless, side_by_side, terms_of
from twin.scenario import overlaid
from twin.sides import Bench, Code, Trial
from twin.workspace import workspace

COSTS = ("cpu.", "memory.")


@dataclass(frozen=True, slots=True)
class Found:
    """What became of one change in its repeats."""

    change: Change
    repeats: int
    found: int            # a named metric is among the worse ones
    blamed: int           # ... and the right Step is blamed for it
    called: int           # repeats in which anything is better or worse
    words: Counter[str]   # verdicts of the named metrics

    def row(self) -> str:
        """One line of the table."""
        if not self.change.metrics:
            return f"{self.change.name:28} anything called: {self.called} of {self.repeats}"
        return (f"{self.change.name:22} {', '.join(self.change.metrics):44} found {self.found:2} of {self.repeats}, "
                f"{self.change.step} blamed {self.blamed:2}   {dict(self.words)}")


def main() -> int:
    """Print the table; 1 where a bar is missed."""
    options = _options()
    trial = sides.of_file(ROOT / "scenarios" / "regression.toml")
    settings = overlaid(trial.settings, {"recorder": {"stamps_per_visit": 0}})
    trial = Trial(trial.name, settings, trial.beside, trial.judge)
    chosen = [c for c in (null() if options.null else planted()) if not options.names or c.name in options.names]
    seeds = range(options.first, options.first + options.seeds)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    with workspace() as place:
        bench = Bench(place, options.out, options.cache, options.processes)
        base = _outcome(None, trial, seeds, bench, before := "null_base" if options.null else "base")
        for change in chosen:
            begun = perf_counter()
            if change.metrics and all(key.startswith(COSTS) for key in change.metrics):
                rows.append(_costs(change, base, seeds, options.repeats, trial, bench))
                print(f"{rows[-1].row()}   ({perf_counter() - begun:.0f} s)", flush=True)
                continue
            name = f"null_{change.name}" if options.null else change.name
            head = _outcome(change, trial, seeds, bench, name)
            rows.append(_judged(change, base, head, seeds, options.repeats, trial))
            print(f"{rows[-1].row()}   ({perf_counter() - begun:.0f} s)", flush=True)
            shutil.rmtree(options.out / name, ignore_errors=True)
        shutil.rmtree(options.out / before, ignore_errors=True)    # read already; the next call may have the folder
    kept = [{"name": r.change.name, "repeats": r.repeats, "found": r.found, "blamed": r.blamed, "called": r.called,
             "verdicts": r.words} for r in rows]
    (options.out / f"{'null' if options.null else 'planted'}.json").write_text(json.dumps(kept, indent=1))
    if options.null:
        called = sum(row.called for row in rows)
        print(f"anything called better or worse: {called} of {sum(row.repeats for row in rows)} comparisons")
        return int(called > 0.1 * sum(row.repeats for row in rows))
    good = [row for row in rows if min(row.found, row.blamed) >= 0.9 * row.repeats]
    print(f"{len(good)} of {len(rows)} changes found and blamed in at least 9 of 10 repeats")
    return int(len(good) < len(rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of changes; all without")
    parser.add_argument("--null", action="store_true", help="the changes without effect")
    parser.add_argument("--first", type=int, required=True, help="first seed")
    parser.add_argument("--seeds", type=int, default=40, help="how many")
    parser.add_argument("--repeats", type=int, default=10, help="disjoint sets of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("ALERT_TWIN_CACHE", "runs/cache")))
    options = parser.parse_args()
    options.out, options.cache = options.out.absolute(), options.cache.absolute()   # changed code runs elsewhere
    return options


def _outcome(change: Change | None, trial: Trial, seeds: Sequence[int], bench: Bench, name: str) -> Outcome:
    """The present code's nights, or those with a change."""
    if change is None:
        return sides.outcome(Code("present"), trial, seeds, bench, name)
    folder = _changed(change, bench) if change.edits else None
    if change.processes:
        bench = Bench(bench.place, bench.runs, bench.cache, change.processes, bench.say)
    return sides.outcome(Code(change.name, "", folder, (), change.overrides), trial, seeds, bench, name)


def _changed(change: Change, bench: Bench) -> Path:
    """A copy of the code with a change."""
    folder = bench.place.new("code")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package)
    shutil.copy(ROOT / "pyproject.toml", folder)
    change.apply(folder)
    return folder


def _costs(change: Change, base: Outcome, seeds: Sequence[int], repeats: int, trial: Trial, bench: Bench) -> Found:
    """What a change costs in time and memory, measured side by side once per repeat; the outcomes are the same."""
    sides_ = Code("present"), Code(change.name, "", _changed(change, bench))
    tally = Tally(change)
    for part in (list(seeds)[i::repeats] for i in range(repeats)):
        outcome = sides.only(base, part)
        pair = Pair(*sides_, trial, bench)
        pair._parts.append((outcome, outcome))
        steps, without = side_by_side(pair, Question("present", change.name))
        if without:
            raise SystemExit(without[0])
        tally.add(replace(outcome, steps=steps[0]), replace(outcome, steps=steps[1]), trial)
    return tally.found()


@dataclass(slots=True)
class Tally:
    """Repeats of one change, counted as they come."""

    change: Change
    repeats: int = 0
    hits: int = 0
    blamed: int = 0
    called: int = 0
    words: Counter[str] = field(default_factory=Counter)

    def add(self, base: Outcome, head: Outcome, trial: Trial) -> None:
        """Judge one repeat."""
        metrics, rules = terms_of(trial.judge, base, head)
        comparison = compare(base, head, rules, metrics=metrics)
        worse = {j.metric.key for j in comparison.of("worse")}
        self.words.update(j.verdict for j in comparison.judged if j.metric.key in self.change.metrics)
        hit = [key for key in self.change.metrics if key in worse]
        self.repeats += 1
        self.hits += bool(hit)
        self.blamed += any(comparison.blames[key].step == self.change.step for key in hit)
        self.called += bool(worse or comparison.of("better"))
        _tell(comparison, self.change)

    def found(self) -> Found:
        """The row of the table."""
        return Found(self.change, self.repeats, self.hits, self.blamed, self.called, self.words)


def _judged(change: Change, base: Outcome, head: Outcome, seeds: Sequence[int], repeats: int, trial: Trial) -> Found:
    tally = Tally(change)
    for part in (list(seeds)[i::repeats] for i in range(repeats)):
        tally.add(*(costless(sides.only(outcome, part)) for outcome in (base, head)), trial)
    return tally.found()


def _tell(comparison: Comparison, change: Change) -> None:
    """What one repeat said, to standard error."""
    said = [f"{j.metric.key}:{j.verdict}({j.difference:+.3g})[{comparison.blames[j.metric.key].step}]"
            for j in comparison.judged if j.verdict in ("worse", "better")]
    print(f"  {change.name}: {' '.join(said) or 'nothing'}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
