"""How small a change a comparison would find, and what it gains by giving both sides the same sky and noise.

A change is simulated on what was recorded: a share of the sources found is lost, and some are gained, as when noise
falls differently about a threshold; counts get rows more and rows less; measured values move, and scatter. The judge's
own test says in how many cases it would be called; bisection finds the size at which that is nine of ten.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.stats import norm, t

from reports.contributions import Contrast, contrast, estimate, forms, quantile, unseen
from reports.paired import NEVER, Rules, bounds, p_values, student
from reports.terms import Metric, Terms

CHURN: Final = 0.25        # flips the other way, for each flip that remains: a change seldom only takes
NOISE: Final = 0.3         # scatter that a change gives to measured values, in units of their own
LARGEST: Final = 64.0      # changes beyond so many margins are not looked for
STEPS: Final = 7           # of bisection: to 1/128 of an octave and less than the noise of the trials


@dataclass(frozen=True, slots=True)
class Power:
    """The smallest change of a metric that is found."""

    metric: Metric
    size: float                # absolute, or relative for a relative metric; infinite where nothing would be found
    found: float               # share of cases in which it is
    n_units: int               # visits
    margin: float


@dataclass(frozen=True, slots=True)
class PairingGain:
    """Visits that decide a change when both sides see the same, and when each has seeds of its own."""

    change: float
    paired: int
    independent: int

    @property
    def ratio(self) -> float:
        """How many times more visits independent seeds need."""
        return self.independent / self.paired


def power(metric: Metric, terms: Terms, units: int, rules: Rules, *, other: Terms | None = None, n_metrics: int = 80,
          n_primary: int = 0, share: float = 0.9, trials: int = 60) -> Power:
    """The change for the worse that a comparison of so many visits calls in `share` of the cases.

    Parameters
    ----------
    terms : Terms
        One side as recorded.
    units : int
        Visits of the comparison; drawn from those recorded, unless they are as many.
    other : Terms
        The other side of a comparison without effect: its differences are then the noise (times are never the same
        twice), and no other is added.
    n_metrics, n_primary : int
        Metrics that the comparison corrects for, and how many of them have to be decided (and share half of the level).
        The change is taken to be in this one alone.
    """
    rng = np.random.default_rng((rules.seed, 90))
    level = corrected_level(metric, rules, n_metrics, n_primary)
    margin = rules.margins.get(metric.key, metric.margin)
    judge = replace(metric, better="higher" if metric.better == "neither" else metric.better)

    def cases(size: float) -> float:
        return _called(judge, terms, other, units, size, margin, rules, level, trials, rng)

    size, found = _smallest(cases, max(margin, 1e-6 * abs(estimate(terms)), 1e-12), share)
    return Power(metric, size, found, units, margin)


def pairing_gain(metric: Metric, base: Terms, rules: Rules, *, head: Terms | None = None, change: float = 0.02,
                 n_metrics: int = 80, n_primary: int = 0, share: float = 0.9) -> PairingGain:
    """Visits that would decide a change of a metric in `share` of the cases, paired and with independent seeds.

    From the variances of recorded visits. `head` is a side recorded with about that change; without it, the change is
    simulated on `base`.
    """
    if head is None:
        head = changed(metric, base, change, np.random.default_rng((rules.seed, 91)))
    if head is None:
        raise ValueError(f"a change of {change:g} cannot be made in {metric.key}: {estimate(base):.4g}")
    apart = replace(head, unit=head.unit + int(base.unit.max()) + 1,
                    object=np.where(head.object >= 0, head.object + int(base.object.max()) + 1, -1))
    level = corrected_level(metric, rules, n_metrics, n_primary)
    return PairingGain(change, *(_visits(contrast(base, side), pairs, metric, change, level, share)
                                 for side, pairs in ((head, 1), (apart, 2))))


def corrected_level(metric: Metric, rules: Rules, n_metrics: int, n_primary: int) -> float:
    """The p that makes a verdict on one metric where nothing else is called."""
    if not 0 < 2 * n_primary < n_metrics:
        return rules.level / n_metrics
    return rules.level / (2 * (n_primary if metric.primary else n_metrics - n_primary))


# --- a change --------------------------------------------------------------------------------------------------------

def changed(metric: Metric, terms: Terms, size: float, rng: np.random.Generator, *, noise: float = NOISE,
            churn: float = CHURN) -> Terms | None:
    """The same rows with a change of the metric for the worse; None where there is no room for it."""
    worse = -1.0 if metric.better == "higher" else 1.0
    shift = worse * size * (abs(estimate(terms)) if metric.relative else 1.0)
    counted = np.all((terms.value == 0) | (terms.value == 1))
    if terms.statistic == "ratio" and counted and np.all(terms.weight == terms.weight[0]):
        return _flipped(terms, shift, rng, churn)
    if terms.statistic == "ratio" and counted and np.any(terms.weight == 0):
        return _recounted(terms, shift, rng, churn)
    return _moved(terms, shift, rng, noise)


def _flipped(terms: Terms, shift: float, rng: np.random.Generator, churn: float) -> Terms | None:
    """A fraction with some of its cases turned."""
    n, away = len(terms.value), terms.value == (1.0 if shift < 0 else 0.0)
    turns, returns = (1 + churn) * abs(shift) * n, churn * abs(shift) * n
    if turns > away.sum():
        return None
    chance = np.where(away, turns / max(away.sum(), 1), min(returns / max((~away).sum(), 1), 1.0))
    return replace(terms, value=np.abs(terms.value - (rng.random(n) < chance)))


def _recounted(terms: Terms, shift: float, rng: np.random.Generator, churn: float) -> Terms | None:
    """A rate with events more and less; half of the new ones where others were, half anywhere in the area."""
    events, area = np.flatnonzero(terms.value == 1), np.flatnonzero(terms.weight > 0)
    net = abs(shift) * float(terms.weight.sum())
    more, less = ((1 + churn) * net, churn * net) if shift > 0 else (churn * net, (1 + churn) * net)
    if less > len(events) or not len(events):
        return None
    kept = np.ones(len(terms.value), bool)
    kept[events] = rng.random(len(events)) >= less / len(events)
    places = [rng.choice(events, rng.poisson(more / 2)),
              rng.choice(area, rng.poisson(more / 2), p=terms.weight[area] / terms.weight[area].sum())]
    unit = terms.unit[np.concatenate(places)]
    new = int(terms.object.max()) + 1 + np.arange(len(unit))
    return Terms(np.concatenate([terms.value[kept], np.ones(len(unit))]),
                 np.concatenate([terms.weight[kept], np.zeros(len(unit))]),
                 np.concatenate([terms.unit[kept], unit]), np.concatenate([terms.object[kept], new]), terms.statistic)


def _moved(terms: Terms, shift: float, rng: np.random.Generator, noise: float) -> Terms:
    """Measured values that move by as much as the figure, and scatter."""
    value, weight = terms.value, terms.weight
    one = value / np.where(weight > 0, weight, 1.0) if "ratio" in terms.statistic else value
    quarters = quantile(one, weight, np.array([0.25, 0.75]))
    scatter = noise * float(quarters[1] - quarters[0]) / 1.349 * rng.normal(size=len(value))
    figure = estimate(terms)
    if terms.statistic in ("std", "rms"):
        centre = float(weight @ value / weight.sum()) if terms.statistic == "std" else 0.0
        wider = max(1.0 + shift / figure, 0.0) if figure > 0 else 1.0
        part = min(noise, 0.9) * wider      # what scatter adds is taken off the rest, so that the figure is as asked
        return replace(terms, value=centre + np.sqrt(wider**2 - part**2) * (value - centre)
                       + part * figure * rng.normal(size=len(value)))
    if terms.statistic == "abs_ratio":
        shift *= float(np.sign(value.sum()) or 1.0)
    return replace(terms, value=value + (shift + scatter) * (weight if "ratio" in terms.statistic else 1.0))


# --- the judge's test ------------------------------------------------------------------------------------------------

def _called(metric: Metric, terms: Terms, other: Terms | None, units: int, size: float, margin: float, rules: Rules,
            level: float, trials: int, rng: np.random.Generator) -> float:
    """Share of simulated comparisons in which a change is called worse."""
    contrasts = []
    for _ in range(trials):
        base, head = _drawn(terms, other or terms, units, rng)
        after = changed(metric, head, size, rng, noise=NOISE if other is None else 0.0,
                        churn=CHURN if other is None else 0.0)
        contrasts.append(None if after is None else contrast(base, after))
    p, _ = p_values(contrasts, rules)
    worse = 0
    for c, p_one in zip(contrasts, p.tolist(), strict=True):
        if c is None or not p_one <= level:
            continue
        found = bounds(c, metric, student(rules.level))
        low, high = (found.low, found.high) if metric.better == "lower" else (-found.high, -found.low)
        worse += low > 0 and high > margin
    return worse / trials


def _drawn(base: Terms, head: Terms, units: int, rng: np.random.Generator) -> tuple[Terms, Terms]:
    """Both sides of as many visits as asked for, their sides exchanged at random.

    Visits drawn beyond those recorded are taken for nights of their own, with objects of their own.
    """
    known, index = np.unique(np.concatenate([base.unit, head.unit]), return_inverse=True)
    of = np.split(index, [len(base.unit)])
    drawn = np.arange(units) if units == len(known) else rng.integers(0, len(known), units)
    turned = rng.random(units) < 0.5 if head is not base else np.zeros(units, bool)
    objects = 1 + max(int(base.object.max(initial=-1)), int(head.object.max(initial=-1)))
    parts = [_rows(side, i, drawn, len(known), objects) for side, i in ((base, of[0]), (head, of[1]))]
    if not turned.any():
        return parts[0], parts[1]
    return _joined(parts[0], ~turned, parts[1], turned), _joined(parts[1], ~turned, parts[0], turned)


def _rows(terms: Terms, index: np.ndarray, drawn: np.ndarray, recorded: int, objects: int) -> Terms:
    """The rows of the visits drawn, one after another."""
    order = np.argsort(index, kind="stable")
    ends = np.searchsorted(index[order], np.arange(recorded + 1))
    counts = np.diff(ends)[drawn]
    start = np.repeat(ends[drawn] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    rows = order[start + np.arange(int(counts.sum()))]
    unit = np.repeat(np.arange(len(drawn)), counts)
    night = unit // recorded
    seen = np.where(terms.object[rows] >= 0, terms.object[rows] + night * objects, -1)
    return Terms(terms.value[rows], terms.weight[rows], unit, seen, terms.statistic)


def _joined(mine: Terms, keep: np.ndarray, others: Terms, take: np.ndarray) -> Terms:
    """Rows of visits kept, and of visits taken from the other side; masks are by visit."""
    rows, more = keep[mine.unit], take[others.unit]
    return Terms(np.concatenate([mine.value[rows], others.value[more]]),
                 np.concatenate([mine.weight[rows], others.weight[more]]),
                 np.concatenate([mine.unit[rows], others.unit[more]]),
                 np.concatenate([mine.object[rows], others.object[more]]), mine.statistic)


def _smallest(cases: Callable[[float], float], start: float, share: float) -> tuple[float, float]:
    """The smallest size whose share of cases is reached, and that share; infinite where none is."""
    high, found = start, cases(start)
    while found < share and high < LARGEST * start:
        high *= 2
        found = cases(high)
    if found < share:
        return float("inf"), found
    low = high / 2 if high > start else start / LARGEST
    for _ in range(STEPS):
        middle = float(np.sqrt(low * high))
        if (now := cases(middle)) >= share:
            high, found = middle, now
        else:
            low = middle
    return high, found


def _visits(c: Contrast | None, pairs: int, metric: Metric, change: float, level: float, share: float) -> int:
    """Visits of each side after which a change stands out of its error in `share` of the cases."""
    if c is None:
        return NEVER
    scale = abs(c.base) if metric.relative else 1.0
    rho = 1 + change if metric.relative else 1.0
    variance, left = max(f.at(rho) for f in forms(c)) / scale**2, unseen(c, rho).at(rho) / scale**2
    visits = np.arange(3, 20_000)
    growth = visits * pairs / c.n_units
    error = np.sqrt(variance / growth + left / growth**2)
    enough = (t.isf(level / 2, pairs * (visits - 1)) + norm.ppf(share)) * error <= change
    return int(visits[enough][0]) if enough.any() else NEVER


__all__ = ["PairingGain", "Power", "changed", "corrected_level", "pairing_gain", "power"]
