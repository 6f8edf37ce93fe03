"""Where on the sky rows are: cells between parallels, so that a box is found without looking at everything."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

import numpy as np

from schemas.exposure import Box

SIDE_DEG: Final = 0.25     # about a detector's
BANDS: Final = round(180.0 / SIDE_DEG)
_MIDDLE = -90.0 + SIDE_DEG * (np.arange(BANDS) + 0.5)
_COUNT: Final = np.maximum(np.round(360.0 * np.cos(np.radians(_MIDDLE)) / SIDE_DEG).astype(np.int64), 1)   # of a band
_FIRST: Final = np.cumsum(_COUNT) - _COUNT
_COUNTS, _FIRSTS = _COUNT.tolist(), _FIRST.tolist()
NOWHERE: Final = -1


def cells(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """(n,) numbers of the cells of positions [deg]; NOWHERE without a position."""
    placed = np.isfinite(ra) & np.isfinite(dec)
    ra, dec = np.where(placed, ra, 0.0), np.where(placed, dec, 0.0)
    band = np.clip(np.floor((dec + 90.0) / SIDE_DEG), 0, BANDS - 1).astype(np.int64)
    count = _COUNT[band]
    along = np.minimum(np.floor(ra % 360.0 * count / 360.0), count - 1).astype(np.int64)
    return np.where(placed, _FIRST[band] + along, NOWHERE)


@dataclass(slots=True)
class Cells:
    """Numbers of rows by cell."""

    rows: dict[int, set[int]] = field(default_factory=dict)

    def add(self, cell: int, row: int) -> None:
        self.rows.setdefault(cell, set()).add(row)

    def remove(self, cell: int, row: int) -> None:
        self.rows[cell].discard(row)

    def near(self, box: Box) -> np.ndarray:
        """(n,) sorted rows of the cells that meet a box: those in it, and some around it."""
        found = sorted(chain.from_iterable(self.rows.get(cell, ()) for cell in _meeting(box)))
        return np.array(found, np.intp)


def _meeting(box: Box) -> Iterator[int]:
    """The cells of a box."""
    low = min(max(math.floor((box.dec_min + 90.0) / SIDE_DEG), 0), BANDS - 1)
    high = min(max(math.floor((box.dec_max + 90.0) / SIDE_DEG), 0), BANDS - 1)
    spans = [(box.ra_min, box.ra_max)] if box.ra_min <= box.ra_max else [(box.ra_min, 360.0), (0.0, box.ra_max)]
    for band in range(low, high + 1):
        count, first = _COUNTS[band], _FIRSTS[band]
        for start, end in spans:
            i, j = (min(math.floor(ra * count / 360.0), count - 1) for ra in (start, end))
            yield from range(first + i, first + j + 1)


__all__ = ["NOWHERE", "Cells", "cells"]
