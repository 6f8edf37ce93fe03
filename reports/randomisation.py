"""p-values by exchanging the sides: exact where the sides are exchangeable, visit by visit or object by object.

If a change has no effect, each visit's rows might as well have come from the other side; exchanging them changes the
sign of the visit's share in the difference. The p-value is the share of all such exchanges that make a difference as
large as the one that was seen.

References
----------
Fisher 1935, The Design of Experiments, section 21.
Phipson & Smyth 2010, Statistical Applications in Genetics and Molecular Biology 9, 39 (random draws: never p = 0).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.special import ndtr

DRAWS: Final = 20_000
EXACT: Final = 14          # shares other than zero, up to which all exchanges are made
DRAWN: Final = 256         # largest shares that are drawn one by one; the sum of the rest is nearly normal
TIE: Final = 1e-9          # relative
MANY: Final = 100.0        # effective number of shares from which their sum is as good as normal


def exchange(shares: Sequence[np.ndarray], rng: np.random.Generator, draws: int = DRAWS) -> np.ndarray:
    """Two-sided p-value of each set of shares in a difference; 1 where all are zero.

    Examples
    --------
    >>> exchange([np.array([1.0, 2, 1, 3, 1]), np.zeros(3)], np.random.default_rng(1)).tolist()
    [0.0625, 1.0]
    """
    kept = [share[share != 0] for share in shares]
    p = np.ones(len(kept))
    many = []
    for i, share in enumerate(kept):
        if 0 < len(share) <= EXACT:
            p[i] = _exact(share)
        elif len(share):
            many.append(i)
    if many:
        p[many] = _drawn([kept[i] for i in many], rng, draws)
    return p


def attainable(share: np.ndarray, draws: int = DRAWS) -> float:
    """The smallest p that a set of shares could have: when all visits that differ agree.

    Examples
    --------
    >>> attainable(np.array([0.0, 1.0, -2.0, 0.5]))
    0.25
    """
    n = int(np.count_nonzero(share))
    return max(2.0 ** (1 - n), 1 / (1 + draws) if n > EXACT else 0.0) if n else 1.0


def exchange_many(shares: Sequence[np.ndarray], rng: np.random.Generator, draws: int = DRAWS) -> np.ndarray:
    """The same, by the normal tail where a set has very many shares of like size: a little conservative there.

    A sum of random signs has thinner tails than the normal distribution of its variance (Hoeffding 1963).
    """
    p = np.ones(len(shares))
    left = []
    for i, share in enumerate(shares):
        square = float(share @ share)
        if square > 0 and square**2 >= MANY * float(np.sum(share**4)):
            p[i] = 2 * ndtr(-abs(float(share.sum())) / np.sqrt(square))
        else:
            left.append(i)
    p[left] = exchange([shares[i] for i in left], rng, draws)
    return p


def _exact(share: np.ndarray) -> float:
    """Over all exchanges; the first share keeps its sign, for the other half mirrors this one."""
    n = len(share) - 1
    signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    sums = np.abs(share[0] + signs @ share[1:])
    return float(np.mean(sums >= abs(float(share.sum())) * (1 - TIE)))


def _drawn(shares: Sequence[np.ndarray], rng: np.random.Generator, draws: int) -> np.ndarray:
    """Over random exchanges; what was seen counts as one of them, so p is never 0."""
    width = min(max(len(share) for share in shares), DRAWN)
    columns, rest = np.zeros((width, len(shares))), np.zeros(len(shares))
    for i, share in enumerate(shares):
        order = np.argsort(-np.abs(share))
        columns[:len(share[:width]), i] = share[order[:width]]
        rest[i] = np.sqrt(np.sum(share[order[width:]] ** 2))
    seen = np.array([abs(float(share.sum())) for share in shares]) * (1 - TIE)
    signs = 1.0 - 2.0 * rng.integers(0, 2, (draws, width), dtype=np.int8)
    sums = signs @ columns
    if rest.any():
        sums += rng.normal(size=draws)[:, None] * rest
    return np.asarray((1 + np.count_nonzero(np.abs(sums) >= seen, axis=0)) / (1 + draws))


__all__ = ["DRAWS", "attainable", "exchange", "exchange_many"]
