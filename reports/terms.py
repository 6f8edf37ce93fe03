"""What a metric is made of: weighted values that belong to visits and to objects, and the statistic over them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from reports.outcome import Outcome

Statistic = Literal["ratio", "abs_ratio", "median", "std", "rms", "percentile98"]


@dataclass(frozen=True, slots=True)
class Terms:
    """The evidence for one metric on one side.

    `ratio` is sum(value) / sum(weight): a fraction (0 or 1 over 1), a rate (counts over area), a mean. `abs_ratio` is
    its absolute value: a bias. The others are of `value`, each row counting as `weight`.
    """

    value: np.ndarray          # (n,) float64
    weight: np.ndarray         # (n,) float64
    unit: np.ndarray           # (n,) int64: the visit, an index that both sides share
    object: np.ndarray         # (n,) int64: the true object (or place on the sky) seen, shared by both sides; -1: none
    statistic: Statistic = "ratio"


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that two sides are compared by."""

    key: str                   # stable name for machines: "completeness_raw_5.5_8"
    name: str                  # for people
    section: str               # of the page: template, rate, purity, completeness, latency, photometry, astrometry, ...
    unit: str                  # "" for fractions
    better: Literal["higher", "lower", "neither"]
    margin: float              # a difference within it does not matter; scenarios may set another
    relative: bool             # the difference is head / base - 1, and so is the margin
    primary: bool              # decides the exit code where it stays undecided
    step: str                  # the Step that makes it, where nothing else is known
    terms: Callable[["Outcome"], Terms]
    rubin: str = ""            # Rubin's name where Rubin has the metric


__all__ = ["Metric", "Statistic", "Terms"]
