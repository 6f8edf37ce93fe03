"""Every metric of one run, with the interval that chance in its visits and objects gives it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import t as student

from reports.contributions import contrast, forms, freedom, unseen
from reports.intervals import Estimate
from reports.outcome import Outcome
from reports.terms import Metric, Terms

LEVEL: Final = 0.05


@dataclass(frozen=True, slots=True)
class Found:
    """A metric of a run."""

    metric: Metric
    estimate: Estimate         # n: rows; without an interval where there is one visit
    n_units: int               # visits with rows


def singles(metrics: Sequence[Metric], outcome: Outcome) -> tuple[Found, ...]:
    """All metrics that the run has data for, in the order given."""
    every = (single(metric, metric.terms(outcome)) for metric in metrics)
    return tuple(one for one in every if one is not None)


def single(metric: Metric, terms: Terms) -> Found | None:
    """A figure with its interval; None without data.

    The variance is that of the comparison of two sides (`reports.contributions`), of one side alone: over rows, visits
    and objects, whichever is largest, and one flip that was not seen.
    """
    c = contrast(terms, terms)
    if c is None:
        return None
    value = c.base
    if c.n_units < 2:       # one visit tells nothing of others
        return Found(metric, Estimate(value, float("nan"), float("nan"), c.n_base), c.n_units)
    variance = max(form.bb for form in forms(c)) + unseen(c, 0.0).bb
    half = float(student.isf(LEVEL / 2, freedom(c, 0.0, variance))) * float(np.sqrt(variance))
    low, high = c.signed[0] - half, c.signed[0] + half
    if c.statistic == "abs_ratio":
        low, high = (0.0 if low < 0 < high else min(abs(low), abs(high))), max(abs(low), abs(high))
    if _counts(terms):
        low = max(low, 0.0)
    if _share(terms):
        high = min(high, 1.0)
    return Found(metric, Estimate(value, low, high, c.n_base), c.n_units)


def _counts(terms: Terms) -> bool:
    """Nothing that a value could be is below 0."""
    return bool(np.all(terms.value[np.isfinite(terms.value)] >= 0))


def _share(terms: Terms) -> bool:
    """A fraction: each row counts as much as it weighs, at most."""
    known = np.isfinite(terms.value) & np.isfinite(terms.weight)
    certain = np.isin(terms.value[known], (0.0, 1.0)) & (terms.weight[known] == 1)
    return terms.statistic == "ratio" and bool(certain.all())
