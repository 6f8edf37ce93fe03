"""Whether verdicts keep their promises, measured: coverage of intervals, verdicts on nothing, looks without end.

    python -m tests.reports.validation

prints all of it at full size; `tests/reports/test_validation.py` has small forms with fixed seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.special import ndtri
from scipy.stats import t

from reports.contributions import contrast, estimate, forms
from reports.paired import Bounds, Judged, Rules, bounds, judge, verdict
from reports.power import PairingGain
from reports.sequences import judge_sequence
from reports.terms import Metric, Terms
from tests.reports.validation.nights import ALL, METRICS, Night, Pipeline, joined, pair, side, sky, swapped

LEVEL: Final = 0.05
BASE: Final = Pipeline()
WORSE: Final = Pipeline(threshold=5.3, masked=0.07, blur=0.02, jitter=0.15, offset_arcsec=0.004, flux_factor=1.003,
                        slower=1.05, false_factor=0.9)
# Changes whose visits are exchanged: of everything a little; of few sources; of none but what is measured.
CHANGES: Final = (Pipeline(threshold=5.1, masked=0.055, blur=0.01, jitter=0.15, offset_arcsec=0.002,
                           flux_factor=1.001, slower=1.02, false_factor=1.3),
                  Pipeline(threshold=5.05), Pipeline(masked=0.06), Pipeline(jitter=0.05, false_factor=0.8))


# --- coverage --------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class Coverage:
    """How many intervals hold the true difference, as a share."""

    key: str
    true: float
    ours: float
    independent: float         # with sources taken as independent
    visits_only: float         # with visits as the only unit
    width: float               # median, of ours


def coverage(pairs: int, visits: Sequence[int], *, nights: int = 300, metrics: Sequence[Metric] = METRICS,
             base: Pipeline = BASE, head: Pipeline = WORSE, first: int = 1) -> list[Coverage]:
    """Of `pairs` pairs of nights of so many visits; the true difference is that of `nights` nights of 100."""
    true = true_differences(nights, metrics, base, head)
    held = np.full((pairs, len(metrics), 3), np.nan)
    width = np.full((pairs, len(metrics)), np.nan)
    for i in range(pairs):
        sides = pair(first + i, visits, base, head)
        for j, m in enumerate(metrics):
            c = contrast(*(m.terms(s) for s in sides))  # type: ignore[arg-type]  # nights stand for outcomes
            if c is None:
                continue
            found = bounds(c, m, lambda free: float(t.isf(LEVEL / 2, free)))
            scale = abs(c.base) if m.relative else 1.0
            single, over_visits = (np.sqrt(f.at(c.head / c.base if m.relative else 1.0)) / scale
                                   for f in forms(c)[:2])
            away = abs(found.difference - true[j])
            held[i, j] = (found.low <= true[j] <= found.high, away <= -ndtri(LEVEL / 2) * single,
                          away <= t.isf(LEVEL / 2, c.n_units - 1) * over_visits)
            width[i, j] = found.high - found.low
    shares = np.nanmean(held, axis=0)
    return [Coverage(m.key, true[j], *shares[j].tolist(), float(np.nanmedian(width[:, j])))
            for j, m in enumerate(metrics)]


def true_differences(nights: int, metrics: Sequence[Metric], base: Pipeline, head: Pipeline) -> list[float]:
    """From so many visits that their own error does not matter."""
    sides = [joined(nights_of) for nights_of in
             zip(*(pair(1_000_000 + i, (100,), base, head) for i in range(nights)), strict=True)]
    figures = [[estimate(m.terms(s)) for s in sides] for m in metrics]  # type: ignore[arg-type]  # nights stand for outcomes
    return [h / b - 1 if m.relative else h - b for m, (b, h) in zip(metrics, figures, strict=True)]


# --- verdicts on nothing ---------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class Nulls:
    """Shares of comparisons without effect in which anything was called better or worse."""

    n: int
    called: float
    uncorrected: float         # each metric judged as if it were the only one


def nulls(n: int, visits: Sequence[int], *, metrics: Sequence[Metric] = ALL, seed: int = 1) -> Nulls:
    """Recorded sides that do differ, the sides of each visit exchanged at random: nothing is to be found."""
    rng = np.random.default_rng(seed)
    recorded = [pair(seed + i, visits, BASE, change) for i, change in enumerate(CHANGES)]
    called, alone = 0, 0
    for i in range(n):
        sides = swapped(*recorded[i % len(recorded)], rng.random(sum(visits)) < 0.5)
        judged = judge(metrics, *sides, Rules(seed=i))  # type: ignore[arg-type]  # nights stand for outcomes
        called += anything(judged)
        alone += any(verdict(j.metric, Bounds(j.difference, j.low, j.high, 0, 0, 0), j.p, j.margin, LEVEL)
                     in ("better", "worse") for j in judged if j.verdict != "no data")
    return Nulls(n, called / n, alone / n)


def anything(judged: Sequence[Judged]) -> bool:
    """Whether any metric was called better or worse."""
    return any(j.verdict in ("better", "worse") for j in judged)


# --- looks without end -----------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class Looked:
    """Shares of sequences without effect with a false verdict at any look, or an interval that misses 0 at any."""

    n: int
    false: float
    peeking: float             # judged anew at each look as if it were the only one
    missed: float              # intervals, on the average over the metrics
    peeking_missed: float


def sequences(n: int, batches: Sequence[int], *, metrics: Sequence[Metric] = METRICS, seed: int = 1) -> Looked:
    """Looks after each batch of visits whose sides were exchanged at random."""
    rng = np.random.default_rng(seed)
    recorded = [pair(seed + i, batches, BASE, CHANGES[0]) for i in range(4)]
    false, missed = np.zeros(2), np.zeros(2)
    for i in range(n):
        sides = swapped(*recorded[i % len(recorded)], rng.random(sum(batches)) < 0.5)
        looks, called, away = None, np.zeros(2, bool), np.zeros((2, len(metrics)), bool)
        for end in np.cumsum(batches):
            parts = [first(s, int(end)) for s in sides]
            judged, looks = judge_sequence(metrics, *parts, Rules(seed=i), looks)  # type: ignore[arg-type]  # nights stand for outcomes
            fresh = judge(metrics, *parts, Rules(seed=i))  # type: ignore[arg-type]  # nights stand for outcomes
            called |= [anything(judged), anything(fresh)]
            away |= [[j.low > 0 or j.high < 0 for j in found] for found in (judged, fresh)]
        false, missed = false + called, missed + away.mean(axis=1)
    return Looked(n, *(false / n).tolist(), *(missed / n).tolist())


def first(night: Night, visits: int) -> Night:
    """The first visits of a side."""
    def cut(rows: Terms) -> Terms:
        there = rows.unit < visits
        return Terms(rows.value[there], rows.weight[there], rows.unit[there], rows.object[there], rows.statistic)

    return Night({key: cut(rows) for key, rows in night.terms.items()})


# --- what pairing gains ----------------------------------------------------------------------------------------------

def decided(trials: int, visits: int, *, independent: bool, head: Pipeline, n_metrics: int = len(ALL), seed: int = 1,
            per_night: int = 12) -> float:
    """Share of comparisons of completeness that call a change for the worse, of nights of `per_night` visits."""
    metric, found = METRICS[0], 0
    nights = max(round(visits / per_night), 1)
    for i in range(trials):
        seeds = [(seed * 1000 + i) * 1000 + k for k in range(nights)]
        skies = [sky(s, per_night) for s in seeds]
        others = [sky(s + 500, per_night) for s in seeds] if independent else skies
        base, after = joined([side(s, BASE) for s in skies]), joined([side(s, head, which=1) for s in others])
        rows = after.terms[metric.key]
        if independent:
            rows = replace(rows, unit=rows.unit + nights * per_night, object=rows.object + 1_000_000)
        c = contrast(base.terms[metric.key], rows)
        if c is not None:
            found += bounds(c, metric, lambda free: float(t.isf(LEVEL / n_metrics / 2, free))).high < 0
    return found / trials


def measured_gain(head: Pipeline, change: float, *, trials: int = 60, share: float = 0.9) -> PairingGain:
    """Visits after which a change is called in `share` of the cases, by doubling, then by bisection to a tenth."""
    needed = []
    for independent in (False, True):
        high = 24
        while decided(trials, high, independent=independent, head=head) < share and high < 10_000:
            high *= 2
        low = high // 2
        while high - low > max(12, 0.1 * low):
            middle = (low + high) // 2
            if decided(trials, middle, independent=independent, head=head) >= share:
                high = middle
            else:
                low = middle
        needed.append(high)
    return PairingGain(change, *needed)
