"""Estimates with their 95 % intervals: fractions, rates, medians, means, spreads, and the S/N of half completeness.

References
----------
Wilson 1927, JASA 22, 209; Brown, Cai & DasGupta 2001, Statistical Science 16, 101.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri

Z95: Final = float(ndtri(0.975))   # two-sided 95 %


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval and the number of cases behind it; NaN where there are none."""

    value: float
    low: float
    high: float
    n: int


UNKNOWN: Final = Estimate(float("nan"), float("nan"), float("nan"), 0)


def wilson(k: np.ndarray | float, n: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of a binomial fraction; (0, 1) where nothing was tried.

    Examples
    --------
    >>> low, high = wilson(8, 10)
    >>> round(float(low), 4), round(float(high), 4)
    (0.4902, 0.9433)
    """
    k, n = np.asarray(k, float), np.asarray(n, float)
    m = np.maximum(n, 1e-12)
    p, z2 = k / m, Z95**2
    centre = (p + z2 / (2 * m)) / (1 + z2 / m)
    half = Z95 / (1 + z2 / m) * np.sqrt(np.maximum(p * (1 - p) / m + z2 / (4 * m**2), 0.0))
    low, high = np.clip(centre - half, 0.0, p), np.clip(centre + half, p, 1.0)   # to the last bit, at k = 0 and n
    return np.where(n > 0, low, 0.0), np.where(n > 0, high, 1.0)


def fraction(k: float, n: float) -> Estimate:
    """A fraction with Wilson's interval."""
    if n <= 0:
        return UNKNOWN
    low, high = wilson(k, n)
    return Estimate(float(k) / float(n), float(low), float(high), int(n))


def flat_fraction(k: np.ndarray, n: np.ndarray) -> Estimate:
    """The mean of the fractions of equally weighted strata, with Wilson's interval at the effective number of cases.

    A stratum without cases makes the answer unknown: the sample then is not flat.
    """
    k, n = np.asarray(k, float), np.asarray(n, float)
    if len(n) == 0 or np.any(n <= 0):
        return Estimate(float("nan"), float("nan"), float("nan"), int(n.sum()))
    value = float(np.mean(k / n))
    smooth = (k + 0.5) / (n + 1.0)   # Jeffreys' mean keeps the variance of k = n above 0
    variance = float(np.sum(smooth * (1 - smooth) / n)) / len(n)**2
    middle = float(np.mean(smooth))
    effective = min(middle * (1 - middle) / variance, float(n.sum()))
    low, high = wilson(value * effective, effective)
    return Estimate(value, float(low), float(high), int(n.sum()))


def weighted_fraction(weight: np.ndarray, chosen: np.ndarray, group: np.ndarray) -> Estimate:
    """A fraction of weighted cases, with Wilson's interval at the effective number of cases.

    Cases of one group (an object seen in many visits) may be alike: the effective number is that whose binomial
    variance is the variance between groups. Where all or none are chosen it is Kish's number of groups.

    Parameters
    ----------
    weight : (n,) float
        Cases on the sky that a case stands for.
    chosen : (n,) bool
    group : (n,) int

    References
    ----------
    Kish 1965, Survey Sampling, 8.2 and 11.7.
    """
    weight, chosen = np.asarray(weight, float), np.asarray(chosen, bool)
    total = float(weight.sum())
    if total <= 0:
        return UNKNOWN
    value = float(weight[chosen].sum()) / total
    _, of = np.unique(group, return_inverse=True)
    size = np.bincount(of, weight)
    kish = total**2 / float(np.sum(size**2))
    variance = float(np.sum(np.bincount(of, weight * (chosen - value)) ** 2)) / total**2
    rows = total**2 / float(np.sum(weight**2))
    effective = float(np.clip(value * (1 - value) / variance, min(1.0, kish), rows)) if variance > 0 else kish
    low, high = wilson(value * effective, effective)
    return Estimate(value, float(low), float(high), len(weight))


def weighted_purity(weight: np.ndarray, group: np.ndarray, false: int) -> Estimate:
    """The real part of detections whose real ones stand for `weight` each, beside `false` that stand for themselves.

    Real ones vary by object (compound Poisson), false ones by Poisson; the interval is normal in the log-odds, and with
    no false one at all ends where 3.7 of them (Garwood 1936) would leave it.
    """
    weight = np.asarray(weight, float)
    real = float(weight.sum())
    if real <= 0:
        return UNKNOWN if not false else Estimate(0.0, 0.0, float("nan"), false)
    _, of = np.unique(group, return_inverse=True)
    spread = float(np.sum(np.bincount(of, weight) ** 2)) / real**2
    if not false:
        least = real * np.exp(-Z95 * np.sqrt(spread))
        return Estimate(1.0, float(least / (least + 3.69)), 1.0, len(weight))
    odds, error = np.log(real / false), Z95 * np.sqrt(spread + 1.0 / false)
    value, low, high = (float(_logistic(x)) for x in (odds, odds - error, odds + error))
    return Estimate(value, low, high, len(weight) + false)


def poisson_rate(count: float, exposure: float) -> Estimate:
    """Events per unit of exposure, with the 95 % interval by Garwood (1936)."""
    from scipy.special import gammaincinv

    if exposure <= 0:
        return UNKNOWN
    low = float(gammaincinv(count, 0.025)) if count > 0 else 0.0
    return Estimate(count / exposure, low / exposure, float(gammaincinv(count + 1, 0.975)) / exposure, int(count))


def mean(values: np.ndarray) -> Estimate:
    """A mean with the normal interval."""
    n = len(values)
    if n < 2:
        return UNKNOWN
    value, half = float(np.mean(values)), Z95 * float(np.std(values, ddof=1)) / np.sqrt(n)
    return Estimate(value, value - half, value + half, n)


def spread(values: np.ndarray) -> Estimate:
    """A standard deviation, its interval from the fourth moment of the sample."""
    n = len(values)
    if n < 3:
        return UNKNOWN
    value = float(np.std(values, ddof=1))
    fourth = float(np.mean((values - np.mean(values))**4))
    half = Z95 * np.sqrt(max(fourth - value**4, 0.0) / n) / (2 * max(value, 1e-300))
    return Estimate(value, value - half, value + half, n)


def median(values: np.ndarray) -> Estimate:
    """A median with the distribution-free interval between order statistics."""
    ordered = np.sort(np.asarray(values, float))
    n = len(ordered)
    if n < 6:   # no pair of order statistics holds the median with 95 % below 6
        return Estimate(float(np.median(ordered)) if n else float("nan"), float("nan"), float("nan"), n)
    half = Z95 * np.sqrt(n) / 2
    low = int(np.floor((n - 1) / 2 - half))
    high = int(np.ceil((n - 1) / 2 + half))
    return Estimate(float(np.median(ordered)), float(ordered[max(low, 0)]), float(ordered[min(high, n - 1)]), n)


def worst(values: np.ndarray) -> Estimate:
    """The largest value: no interval, every case is in it."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if len(known) == 0:
        return UNKNOWN
    return Estimate(float(known.max()), float("nan"), float("nan"), len(known))


@dataclass(frozen=True, slots=True)
class Turnover:
    """Completeness as a function of S/N: plateau * Phi((S/N - centre) / width)."""

    half: Estimate      # S/N at which completeness is 0.5
    centre: float
    width: float
    plateau: float

    def at(self, snr: np.ndarray) -> np.ndarray:
        """Completeness at given S/N."""
        return np.asarray(self.plateau * ndtr((np.asarray(snr, float) - self.centre) / self.width))


def turnover(snr: np.ndarray, found: np.ndarray) -> Turnover | None:
    """The maximum-likelihood completeness curve of single trials; None where it is not constrained.

    The interval of the half point comes from the observed information in (centre, log width, plateau), by the delta
    method.

    Parameters
    ----------
    snr : (n,) float
        Absolute S/N of every true source.
    found : (n,) bool
    """
    snr, found = np.asarray(snr, float), np.asarray(found, bool)
    if len(snr) < 20 or found.all() or not found.any():
        return None

    def cost(p: np.ndarray) -> float:
        top = float(_logistic(p[2]))
        q = np.clip(top * ndtr((snr - p[0]) / np.exp(p[1])), 1e-6, 1 - 1e-6)
        return -float(np.sum(np.log(q[found])) + np.sum(np.log1p(-q[~found])))

    start = float(np.clip(np.median(snr[found]) if found.any() else 5.0, 3.0, 8.0))
    best = minimize(cost, (start, 0.0, 4.0), method="Nelder-Mead", options={"maxiter": 2000, "xatol": 1e-3,
                                                                           "fatol": 1e-3})
    p = np.asarray(best.x, float)
    p[2] = min(p[2], 12.0)   # a plateau of 1 is at infinity
    if _logistic(p[2]) <= 0.5 or not 0 < p[0] < 100:
        return None
    half, covariance = _half(p), _covariance(cost, p)
    slope = np.array([(_half(p + d) - _half(p - d)) / (2 * 1e-4) for d in 1e-4 * np.eye(3)])
    error = float(np.sqrt(max(slope @ covariance @ slope, 0.0))) * Z95
    return Turnover(Estimate(half, half - error, half + error, len(snr)), float(p[0]), float(np.exp(p[1])),
                    float(_logistic(p[2])))


def _logistic(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def _half(p: np.ndarray) -> float:
    return float(p[0] + np.exp(p[1]) * ndtri(min(0.5 / _logistic(p[2]), 1 - 1e-9)))


def _covariance(cost: Callable[[np.ndarray], float], p: np.ndarray) -> np.ndarray:
    """Inverse of the numerical Hessian; the plateau is held where it is at its bound."""
    free = [0, 1, 2] if p[2] < 8.0 else [0, 1]
    step = 1e-2 * np.eye(3)
    hessian = np.array([[(cost(p + step[i] + step[j]) - cost(p + step[i] - step[j]) - cost(p - step[i] + step[j])
                          + cost(p - step[i] - step[j])) / 4e-4 for j in free] for i in free])
    out = np.zeros((3, 3))
    out[np.ix_(free, free)] = np.linalg.pinv(hessian)
    return out
