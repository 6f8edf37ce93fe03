"""Judging two sides metric by metric: difference, interval, p-value, and a verdict.

The independent unit is the visit, and the object where one is seen in several visits, never the source:
`reports.contributions` has the variance, `reports.randomisation` the p-values. All metrics of a comparison are
corrected for their number. A verdict needs both a difference that chance does not explain and an effect that the
margin, set beforehand, does not excuse:

- better, worse: significant after the correction, the interval excludes 0 and does not lie inside the margin;
- changed: the same of a metric that has no better direction, as the number of alerts;
- equivalent: the interval lies inside the margin;
- undecided: neither; `needed` visits would decide it, if the difference and its scatter stay as they are;
- no data: a side has no figure.

References
----------
Benjamini & Hochberg 1995, J. Royal Statistical Society B 57, 289 (the share of false among all verdicts); valid for
metrics that depend on each other positively: Benjamini & Yekutieli 2001, Annals of Statistics 29, 1165.
Genovese, Roeder & Wasserman 2006, Biometrika 93, 509 (weights: what has to be decided has half of the level).
Tarone 1990, Biometrics 46, 515 (what can never be significant, because too few visits differ, need not be counted).
Schuirmann 1987, J. Pharmacokinetics and Biopharmaceutics 15, 657 (equivalence by an interval inside a margin).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from scipy.stats import false_discovery_control, norm, t

from reports.contributions import LOG_EVENTS, Contrast, Form, contrast, estimate, forms, freedom, unseen
from reports.randomisation import DRAWS, attainable, exchange, exchange_many
from reports.terms import Metric

if TYPE_CHECKING:
    from reports.outcome import Outcome

Word = Literal["better", "worse", "changed", "equivalent", "undecided", "no data"]
NEVER: Final = 1_000_000       # visits: more than this is not quoted


@dataclass(frozen=True, slots=True)
class Rules:
    """What was agreed before anybody looked."""

    margins: Mapping[str, float] = field(default_factory=dict)     # by metric's key; others have their own
    primary: tuple[str, ...] = ()      # keys of metrics that have to be decided; empty: the metrics' own choice
    level: float = 0.05                # of false verdicts in a comparison without effect, and of the intervals
    resamples: int = 2000              # exchanges of the sides at least; never fewer than the correction needs
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of one metric. Bounds may be infinite: nothing excludes such a difference."""

    metric: Metric
    base: float
    head: float
    difference: float          # head - base, or head / base - 1 for a relative metric
    low: float                 # of the difference, two-sided
    high: float
    p: float                   # before, and
    q: float                   # after the correction for the number of metrics
    verdict: Word
    n_units: int               # visits with rows
    n_base: int                # rows
    n_head: int
    needed: int                # visits that would decide it; 0 where it is decided or has no data
    margin: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """A difference with its interval, and what the interval is made of."""

    difference: float
    low: float
    high: float
    variance: float            # of the difference (to first order for ratios), falling as 1 / visits
    unseen: float              # what too few flips leave open, falling as 1 / visits^2
    freedom: float             # degrees of freedom of `variance`


NOTHING: Final = Bounds(float("nan"), float("nan"), float("nan"), float("nan"), float("nan"), 0.0)


def judge(metrics: Sequence[Metric], base: "Outcome", head: "Outcome", rules: Rules) -> tuple[Judged, ...]:
    """Every metric of two paired sides, in the order given."""
    metrics = chosen(metrics, rules)
    contrasts = [contrast(m.terms(base), m.terms(head)) for m in metrics]
    p, least = p_values(contrasts, rules)
    critical = student(rules.level)
    found = [bounds(c, m, critical) if c is not None else NOTHING for c, m in zip(contrasts, metrics, strict=True)]
    q, next_p = corrected(p, np.array([m.primary for m in metrics], bool), least, rules.level)
    return judged(metrics, contrasts, found, p, q, next_p, rules)


def chosen(metrics: Sequence[Metric], rules: Rules) -> tuple[Metric, ...]:
    """The metrics, with those primary that the rules name, if they name any."""
    if not rules.primary:
        return tuple(metrics)
    return tuple(replace(m, primary=m.key in rules.primary) for m in metrics)


def judged(metrics: Sequence[Metric], contrasts: Sequence[Contrast | None], found: Sequence[Bounds], p: np.ndarray,
           q: np.ndarray, next_p: np.ndarray, rules: Rules,
           single_look: Callable[[float], float] = float) -> tuple[Judged, ...]:
    """Verdicts from intervals, p-values and those corrected (NaN: no data).

    `single_look` gives the level of a plain interval that is as wide as the one in use.
    """
    level = single_look(rules.level)
    out = []
    for i, (m, c, b) in enumerate(zip(metrics, contrasts, found, strict=True)):
        margin = rules.margins.get(m.key, m.margin)
        if c is None:
            nan = float("nan")
            out.append(Judged(m, nan, nan, nan, nan, nan, nan, nan, "no data", 0, 0, 0, 0, margin))
            continue
        word = verdict(m, b, float(q[i]), margin, rules.level)
        needed = visits_needed(c, b, margin, level, single_look(float(next_p[i]))) if word == "undecided" else 0
        out.append(Judged(m, c.base, c.head, b.difference, b.low, b.high, float(p[i]), float(q[i]), word, c.n_units,
                          c.n_base, c.n_head, needed, margin))
    return tuple(out)


def verdict(metric: Metric, found: Bounds, q: float, margin: float, level: float) -> Word:
    """The word for one metric."""
    if -margin <= found.low and found.high <= margin:
        return "equivalent"
    if not (q <= level and (found.low > 0 or found.high < 0)):
        return "undecided"
    if metric.better == "neither":
        return "changed"
    return "better" if (found.difference > 0) == (metric.better == "higher") else "worse"


# --- p-values --------------------------------------------------------------------------------------------------------

def p_values(contrasts: Sequence[Contrast | None], rules: Rules) -> tuple[np.ndarray, np.ndarray]:
    """By exchanging visits, and objects where they repeat: the larger; and the smallest that it could have been.

    NaN without data.
    """
    rng = np.random.default_rng((rules.seed, 20))
    draws = max(rules.resamples, DRAWS)
    p, least = np.full(len(contrasts), np.nan), np.full(len(contrasts), np.nan)
    known = [(i, c) for i, c in enumerate(contrasts) if c is not None]
    again = [(i, c) for i, c in known if c.repeated]
    visits = [np.bincount(c.unit, c.swap, c.n_units) for _, c in known]
    objects = [np.bincount(c.object, c.swap, c.n_objects) for _, c in again]
    there, where = [i for i, _ in known], [i for i, _ in again]
    p[there], least[there] = exchange(visits, rng, draws), [attainable(share, draws) for share in visits]
    p[where] = np.maximum(p[where], exchange_many(objects, rng, draws))
    least[where] = np.maximum(least[where], [attainable(share, draws) for share in objects])
    return p, least


def corrected(p: np.ndarray, primary: np.ndarray | None = None, least: np.ndarray | None = None,
              level: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Benjamini and Hochberg's q over all that have data, and in which enough differs to be significant at all.

    Metrics that have to be decided share half of the level, the others the other half (weights: Genovese, Roeder &
    Wasserman 2006). `least` is the smallest p that each could have had: it follows from the sizes of the shares, not
    from their signs, so what is left out (q = 1) is chosen without a look at the outcome.

    Returns q, and the p that would make one verdict more.
    """
    q = np.where(np.isfinite(p), 1.0, np.nan)
    able = np.isfinite(p) if least is None else np.isfinite(p) & (least <= level)
    weight = _weights(able, np.zeros(len(p), bool) if primary is None else primary)
    if able.any():
        found = false_discovery_control(np.minimum(p[able] / weight[able], 1.0), method="bh")
        q[able] = np.maximum(found, p[able])
    n = max(int(able.sum()), 1)
    return q, level * weight * min(int(np.sum(q <= level)) + 1, n) / n


def _weights(able: np.ndarray, primary: np.ndarray) -> np.ndarray:
    """Of mean 1 over those that count; half of it on the primary ones, if they are the fewer."""
    n, few = int(able.sum()), int((able & primary).sum())
    if not 0 < 2 * few < n:
        return np.ones(len(able))
    return np.where(primary, n / (2 * few), n / (2 * (n - few)))


# --- intervals -------------------------------------------------------------------------------------------------------

def student(level: float) -> Callable[[float], float]:
    """Half-width of an interval in standard errors, for degrees of freedom, by Student's distribution."""
    return lambda freedom: float(t.isf(level / 2, freedom))


def bounds(c: Contrast, metric: Metric, critical: Callable[[float], float]) -> Bounds:
    """The difference with its interval: `critical` gives the half-width in standard errors for degrees of freedom."""
    scale = abs(c.base) if metric.relative else 1.0
    difference = 0.0 if c.head == c.base else (c.head - c.base) / scale if scale > 0 else float("inf")
    if c.n_units < 2:       # one visit tells nothing of others
        return Bounds(difference, -np.inf, np.inf, np.inf, 0.0, 0.0)
    sizes = c.statistic == "abs_ratio"
    stretched = metric.relative and c.head * c.base > 0 and not sizes
    rho = c.head / c.base if stretched else 1.0
    chance, few = forms(c), unseen(c, rho, LOG_EVENTS) if stretched else unseen(c, rho)
    # an exact ratio in every row leaves no variance, but for rounding
    variance, left = max(0.0, *(f.at(rho) for f in chance)), few.at(rho)
    free = freedom(c, rho, variance + left)
    multiple = critical(free)
    half = multiple * float(np.sqrt(variance + left))
    if stretched:           # symmetric in the logarithm: a ratio's error is skewed
        low, high = rho * float(np.exp(-half / abs(c.head))) - 1, rho * float(np.exp(half / abs(c.head))) - 1
    elif sizes:
        low, high = _of_sizes(c, chance, few, multiple)
        low, high = (low / scale, high / scale) if scale > 0 else (-np.inf, np.inf)
    elif metric.relative:
        low, high = _of_ratio(c, chance, few, multiple)
    else:
        low, high = difference - half, difference + half
    square = scale**2 if scale > 0 else float("nan")
    return Bounds(difference, low, high, variance / square, left / square, free)


def _of_ratio(c: Contrast, chance: Sequence[Form], few: Form, multiple: float) -> tuple[float, float]:
    """Of head / base - 1 where one of them is 0, by Fieller: all rho with |head - rho base| within its error.

    For several forms of the variance, what any of them allows; maybe without end.
    """
    found = [_fieller(c.base, c.head, form + few, multiple**2) for form in chance]
    low, high = min(f[0] for f in found), max(f[1] for f in found)
    positive = min(c.base, c.head) >= 0
    return (max(low, 0.0) if positive else low) - 1, high - 1


def _fieller(base: float, head: float, form: Form, square: float) -> tuple[float, float]:
    """Bounds of the ratio where a rho^2 - 2 b rho + c <= 0; `square` is that of the multiple of the error.

    Examples
    --------
    >>> [round(bound, 3) for bound in _fieller(10.0, 12.0, Form(1.0, 0.5, 1.0), 4.0)]
    [0.958, 1.459]
    >>> _fieller(1.0, 12.0, Form(1.0, 0.0, 1.0), 4.0)[1]
    inf
    """
    a, b, c = base**2 - square * form.bb, base * head - square * form.bh, head**2 - square * form.hh
    root = b * b - a * c
    if a > 0:
        half = float(np.sqrt(max(root, 0.0)))     # negative for a form that allows nothing but the estimate itself
        return (b - half) / a, (b + half) / a
    if c <= 0 or a == 0:
        return -np.inf if a < 0 else c / (2 * b) if b > 0 else -np.inf, np.inf
    ends = sorted(((b - np.sqrt(root)) / a, (b + np.sqrt(root)) / a))
    return (ends[1], np.inf) if head * base >= 0 else (-np.inf, ends[0])


def _of_sizes(c: Contrast, chance: Sequence[Form], few: Form, multiple: float) -> tuple[float, float]:
    """Of |head| - |base|: the range of |middle + shift / 2| - |middle - shift / 2| over the intervals of both.

    Where the sign is certain that is the interval of the shift; where it is not, a shift says little.
    """
    shift, middle = c.signed[1] - c.signed[0], (c.signed[1] + c.signed[0]) / 2
    reach = multiple * float(np.sqrt(max(f.at(1.0) for f in chance) + few.at(1.0)))
    about = multiple * float(np.sqrt(max(f.at(-1.0) for f in chance) + few.at(-1.0))) / 2
    corners = [abs(m + s / 2) - abs(m - s / 2) for m in (middle - about, middle + about)
               for s in (shift - reach, shift + reach)]
    return min(corners), max(corners)


# --- how many visits -------------------------------------------------------------------------------------------------

def visits_needed(c: Contrast, found: Bounds, margin: float, level: float, corrected_level: float) -> int:
    """Visits after which the metric would be decided, if the difference and its scatter stay as they are.

    Equivalence needs an interval inside the margin; a difference a p-value below `corrected_level`, which takes a
    number of visits that differ at all, and an interval that leaves 0.
    """
    if not np.isfinite(found.variance + found.unseen + found.difference):
        return NEVER
    more = np.unique(np.rint(c.n_units * 2 ** np.arange(0.125, 24, 0.125)).astype(int))
    more = more[(more > c.n_units) & (more <= NEVER)]
    growth = more / c.n_units
    error = np.sqrt(found.variance / growth + found.unseen / growth**2)
    reach = t.isf(level / 2, np.maximum(found.freedom, 1.0) * growth) * error
    touched = len(np.unique(c.unit[c.differs]))
    size = abs(found.difference)
    same = size + reach <= margin
    other = ((size > np.maximum(reach, norm.isf(corrected_level / 2) * error)) & (size + reach > margin)
             & (2.0 ** (1 - np.minimum(touched * growth, 100.0)) <= corrected_level))
    decided = more[same | other]
    return int(decided[0]) if len(decided) else NEVER


__all__ = ["NEVER", "NOTHING", "Bounds", "Judged", "Rules", "bounds", "chosen", "corrected", "estimate", "judge",
           "judged", "p_values", "student", "verdict", "visits_needed"]
