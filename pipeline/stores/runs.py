"""An index in memory: keys to row numbers, in sorted runs that double.

What is added is a run; two runs of a kind become one. So an entry is moved a few times, and a look-up asks a few runs.
16 bytes per entry.
"""

from collections.abc import Callable

import numpy as np


class Runs:
    """Row numbers by int64 key; a key may have many."""

    def __init__(self, keep: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        """`keep` says of numbers which are still of use: the others go when runs are merged."""
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []
        self._keep = keep

    def __len__(self) -> int:
        return sum(len(keys) for keys, _ in self._runs)

    def add(self, keys: np.ndarray, numbers: np.ndarray) -> None:
        if not len(keys):
            return
        self._runs.append(_sorted(np.array(keys, np.int64), np.array(numbers, np.int64)))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            last, before = self._runs.pop(), self._runs.pop()
            merged = tuple(np.concatenate([a, b]) for a, b in zip(before, last, strict=True))
            if self._keep is not None:
                kept = self._keep(merged[1])
                merged = (merged[0][kept], merged[1][kept])
            self._runs.append(_sorted(*merged))

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Numbers of those keys, in ascending order."""
        return self.within(np.stack([keys, keys], axis=1)) if len(keys) else np.empty(0, np.int64)

    def within(self, ranges: np.ndarray) -> np.ndarray:
        """Numbers of keys in ranges (n, 2), both ends included; in ascending order, each once."""
        parts = [numbers[_spans(np.searchsorted(keys, ranges[:, 0], "left"),
                                np.searchsorted(keys, ranges[:, 1], "right"))] for keys, numbers in self._runs]
        return _distinct(np.concatenate(parts)) if parts else np.empty(0, np.int64)


def _sorted(keys: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(keys, kind="stable")
    return keys[order], numbers[order]


def _distinct(numbers: np.ndarray) -> np.ndarray:
    """In ascending order, each once: by sorting, several times faster here than np.unique, which hashes."""
    numbers = np.sort(numbers)
    return numbers[np.append(True, numbers[1:] != numbers[:-1])] if len(numbers) else numbers


def _spans(first: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Positions first to end - 1 of every span, one after the other."""
    count = end - first
    total = int(count.sum())
    return np.repeat(first - np.append(0, np.cumsum(count)[:-1]), count) + np.arange(total)
