"""Judging as the visits come in, batch after batch, with verdicts that hold however often one looks.

A fixed-size interval covers the truth at one look; somebody who looks after each night and stops when it pleases sees
it fail sooner or later. Here the interval is one of a sequence, all of which hold the truth together with the stated
probability, and the p-value is small at any time with no more than its own probability:

- the interval is that of `reports.paired` with the boundary of Robbins' normal mixture in place of Student's quantile,
  an asymptotic confidence sequence; small numbers of visits are met by taking the boundary's tail in Student's
  distribution, and by saying nothing before `FIRST` visits;
- the p-value is the inverse of a test martingale. Where the sides are exchangeable, each visit's share x in the
  difference has a random sign, so exp(lambda sum x - lambda^2 sum x^2 / 2) is a supermartingale for every lambda, with
  no assumption on the size of the shares; a normal mixture over lambda gives

      e = (1 + tau^2 sum x^2)^(-1/2) exp(tau^2 (sum x)^2 / (2 (1 + tau^2 sum x^2)))

  and p = 1 / e, at its smallest so far. The same over objects where they repeat; the larger p counts.

References
----------
Robbins 1970, Annals of Mathematical Statistics 41, 1397 (boundaries by a normal mixture).
Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024, Annals of Statistics 52, 2613 (arXiv:2103.06476; asymptotic
confidence sequences: equation 8, and the tuning for a size of sample).
de la Pena 1999, Annals of Probability 27, 537 (the supermartingale of symmetric variables).
Johari, Koomen, Pekelis & Walsh 2022, Operations Research 70, 1806 (always-valid p-values, and corrections over them).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.stats import norm, t

from reports.contributions import Contrast, contrast
from reports.paired import NOTHING, Bounds, Judged, Rules, bounds, chosen, corrected, judged, p_values, student
from reports.terms import Metric

if TYPE_CHECKING:
    from reports.outcome import Outcome

FIRST: Final = 10          # visits with rows, before which nothing is said
AHEAD: Final = 2.0         # sharpest at this many times the visits of the first look


@dataclass(frozen=True, slots=True)
class Looks:
    """What the looks so far have left behind."""

    n: int = 0
    sharpest: Mapping[str, float] = field(default_factory=dict)    # by metric's key: visits at which its interval is
    scale: Mapping[str, tuple[float, float]] = field(default_factory=dict)     # tau^2, of visits and of objects
    p: Mapping[str, float] = field(default_factory=dict)           # smallest so far


def judge_sequence(metrics: Sequence[Metric], base: "Outcome", head: "Outcome", rules: Rules,
                   looks: Looks | None = None, *, once: Collection[str] = ()) -> tuple[tuple[Judged, ...], Looks]:
    """Verdicts on all batches so far, and what the next look needs to know of this one.

    `base` and `head` hold every batch up to now, paired; batches are whole nights, so that an object belongs to one.
    Metrics whose keys are in `once` are looked at this one time only (times, measured at the end): a plain interval and
    p-value do for them.
    """
    looks = looks or Looks()
    metrics = chosen(metrics, rules)
    contrasts = [contrast(m.terms(base), m.terms(head)) for m in metrics]
    keys = [m.key for m in metrics]
    sharpest, scale, smallest = dict(looks.sharpest), dict(looks.scale), dict(looks.p)
    p, found = np.full(len(metrics), np.nan), []
    for i, (key, metric, c) in enumerate(zip(keys, metrics, contrasts, strict=True)):
        if c is None:
            found.append(NOTHING)
            continue
        if key in once:
            p[i] = p_values([c], rules)[0][0]
            found.append(bounds(c, metric, student(rules.level)))
            continue
        if c.n_units >= FIRST:
            sharpest.setdefault(key, AHEAD * c.n_units)
            scale[key] = tuned(c, scale.get(key, (0.0, 0.0)), rules.level / len(metrics))
            smallest[key] = min(p_value(c, scale[key]), smallest.get(key, 1.0))
        p[i] = smallest.get(key, 1.0)
        found.append(sequence_bounds(c, metric, rules.level, sharpest.get(key, np.inf)))
    q, next_p = corrected(p, np.array([m.primary for m in metrics], bool), level=rules.level)
    verdicts = judged(metrics, contrasts, found, p, q, next_p, rules, single_look)
    return verdicts, Looks(looks.n + 1, sharpest, scale, smallest)


def boundary(visits: float, level: float, sharpest: float) -> float:
    """Half-width of the confidence sequence in standard errors.

    Examples
    --------
    >>> [round(boundary(n, 0.05, 40.0), 2) for n in (10, 40, 160)]
    [3.23, 3.04, 3.14]
    """
    spread = visits * mixture(level) / sharpest
    return float(np.sqrt(2 * (spread + 1) / spread * np.log(np.sqrt(spread + 1) / level)))


def mixture(level: float) -> float:
    """The mixture's variance times the number of visits at which its boundary is nearest to 0."""
    two = -2 * np.log(level)
    return float(two + np.log(two) + 1)


def single_look(level: float) -> float:
    """The level whose fixed-size interval is as wide as the sequence at its sharpest."""
    return float(2 * norm.sf(boundary(1.0, level, 1.0)))


def sequence_bounds(c: Contrast, metric: Metric, level: float, sharpest: float) -> Bounds:
    """The difference with its interval in the sequence; without end before the first visits."""
    if c.n_units < FIRST:
        few = bounds(c, metric, lambda _: 1.0)
        return Bounds(few.difference, -np.inf, np.inf, few.variance, few.unseen, few.freedom)
    tail = norm.sf(boundary(c.n_units, level, sharpest))
    return bounds(c, metric, lambda freedom: float(t.isf(tail, freedom)))


def tuned(c: Contrast, scale: tuple[float, float], level: float) -> tuple[float, float]:
    """tau^2 of visits and objects, once there are shares to see; sizes alone tell nothing of the signs."""
    squares = [float(np.sum(x**2)) for x in _shares(c)]
    first = [s if s > 0 or not q > 0 else mixture(level) / (AHEAD * q) for s, q in zip(scale, squares, strict=False)]
    return first[0], first[1] if len(first) > 1 else scale[1]


def p_value(c: Contrast, scale: tuple[float, float]) -> float:
    """Small at any time with no more than its own probability, where the sides are exchangeable."""
    return max(float(always_valid(np.sum(x), np.sum(x**2), tau2)) for x, tau2 in zip(_shares(c), scale, strict=False))


def always_valid(total: np.ndarray, squares: np.ndarray, tau2: np.ndarray | float) -> np.ndarray:
    """p of a sum of shares and the sum of their squares, by the mixture of variance tau^2."""
    spread = 1 + tau2 * squares
    return np.asarray(np.minimum(np.sqrt(spread) * np.exp(-tau2 * total**2 / (2 * spread)), 1.0))


def _shares(c: Contrast) -> list[np.ndarray]:
    """Shares in the difference of each visit, and of each object where objects repeat."""
    visits = np.bincount(c.unit, c.swap, c.n_units)
    return [visits, np.bincount(c.object, c.swap, c.n_objects)] if c.repeated else [visits]


__all__ = ["FIRST", "Looks", "always_valid", "boundary", "judge_sequence", "p_value", "sequence_bounds"]
