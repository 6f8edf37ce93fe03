"""All of it at full size: `python -m tests.reports.validation` (about a quarter of an hour)."""

import argparse
from collections.abc import Sequence

from tests.reports.validation.nights import METRICS, Pipeline
from tests.reports.validation.runs import BASE, coverage, measured_gain, nulls, sequences, true_differences


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.reports.validation", description=__doc__)
    parser.add_argument("--pairs", type=int, default=500, help="for coverage")
    parser.add_argument("--nulls", type=int, default=1000, help="comparisons without effect")
    parser.add_argument("--sequences", type=int, default=1000, help="sequences without effect")
    parser.add_argument("--trials", type=int, default=60, help="for the visits that a change needs")
    asked = parser.parse_args(arguments)
    for visits in ((20,), (8, 14, 22), (10, 15, 30, 45)):
        if asked.pairs:
            print(f"\ncoverage of 95 % intervals, {asked.pairs} pairs of nights of {visits} visits")
            print(f"{'':16}{'true':>10}{'ours':>8}{'visits':>8}{'sources':>9}{'width':>10}")
            found = coverage(asked.pairs, visits)
            for c in found:
                print(f"{c.key:16}{c.true:10.4f}{100 * c.ours:8.1f}{100 * c.visits_only:8.1f}"
                      f"{100 * c.independent:9.1f}{c.width:10.4f}")
            for name in ("ours", "visits_only", "independent"):
                print(f"  mean, {name}: {100 * sum(getattr(c, name) for c in found) / len(found):.1f} %")
    for visits in ((12,), (8, 14, 22), (40, 40)):
        if asked.nulls:
            n = nulls(asked.nulls, visits)
            print(f"\n{n.n} comparisons without effect of {visits} visits: {100 * n.called:.1f} % call anything better "
                  f"or worse; without correction {100 * n.uncorrected:.1f} %")
    if asked.sequences:
        s = sequences(asked.sequences, (12,) * 6)
        print(f"\n{s.n} sequences without effect, 6 looks: {100 * s.false:.1f} % with a false verdict; judged anew at "
              f"each look {100 * s.peeking:.1f} %\nintervals that miss: {100 * s.missed:.1f} %; plain ones "
              f"{100 * s.peeking_missed:.1f} %")
    if asked.trials:
        head = Pipeline(threshold=5.14)
        change = true_differences(100, METRICS[:1], BASE, head)[0]
        gain = measured_gain(head, change, trials=asked.trials)
        print(f"\na change of completeness by {100 * change:.1f} % is decided in 9 of 10 cases after {gain.paired} "
              f"visits, with independent seeds after {gain.independent}: {gain.ratio:.1f} times as many")


main()
