"""Cutouts at given places of a run, from the pixels that the cache keeps: what a comparison's gallery asks for.

The cache keeps science and difference; the template is what was subtracted, science less difference, which is the
matched template but for the whitening of the difference's noise.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.errors import InputError
from pipeline.pixels import PixelsOnDisk
from reports.compare import Comparison
from reports.comparison_page import Key, Stamps
from schemas.measures import STAMP_SIDE
from twin.cache import Cache
from twin.detector_visit import Half
from twin.halves import remembering
from twin.recall import Remembering

HALF: Final = STAMP_SIDE // 2

Place = tuple[int, int, float, float]                      # visit, detector, x, y [pixel]
Found = dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]


def stamps_at(folder: Path, cache: Cache, wanted: Iterable[Place]) -> Found:
    """By visit and detector, (n, 2) places and (n, 3, side, side) float32 science, template and difference [nJy].

    Detector-visits whose pixels the cache has no longer, or that other code computed, are left out: nothing is
    computed here.
    """
    by_visit: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for visit, detector, x, y in wanted:
        by_visit.setdefault((visit, detector), []).append((x, y))
    here = remembering(folder, cache)
    found = {key: _stamps(here, *key, np.array(places)) for key, places in by_visit.items()}
    return {key: (np.array(by_visit[key]), stamps) for key, stamps in found.items() if stamps is not None}


def of_sides(comparison: Comparison, cache: Cache) -> tuple[Stamps, Stamps]:
    """Cutouts of both sides at the flips that a comparison shows, as far as the cache has their pixels."""
    found: list[dict[Key, tuple[np.ndarray, np.ndarray]]] = []
    for side in (comparison.base, comparison.head):
        stamps: dict[Key, tuple[np.ndarray, np.ndarray]] = {}
        for seed, places in comparison.wanted.items():
            if seed in side.folders:
                with suppress(InputError):         # the scenario of another revision may say what this one knows not
                    of_seed = stamps_at(side.folders[seed], cache, places)
                    stamps |= {(seed, *key): value for key, value in of_seed.items()}
        found.append(stamps)
    return found[0], found[1]


def _stamps(here: Remembering, number: int, detector: int, places: np.ndarray) -> np.ndarray | None:
    visit = next((v for v in here.visits if v.visit == number), None)
    loan = here.cache.get("half", here.half_key(visit, detector)) if visit is not None else None
    if loan is None:
        return None
    try:
        half: Half = loan.value
        pixels = half.measured.pixels if half.measured is not None else None
        if not isinstance(pixels, PixelsOnDisk):
            return None
        science, difference = (np.load(pixels.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                               for name in ("science", "difference"))
        out = np.empty((len(places), 3, STAMP_SIDE, STAMP_SIDE), np.float32)
        for stamp, (x, y) in zip(out, places, strict=True):
            stamp[0], stamp[2] = window(science, x, y), window(difference, x, y)
            stamp[1] = stamp[0] - stamp[2]
        return out
    finally:
        loan.close()


def window(plane: np.ndarray, x: float, y: float) -> np.ndarray:
    """The stamp of a plane around the pixel nearest to a place, NaN off the plane.

    Examples
    --------
    >>> stamp = window(np.arange(12.0).reshape(3, 4), 1.2, 0.0)
    >>> stamp.shape, float(stamp[HALF, HALF]), bool(np.isnan(stamp[HALF - 1, HALF]))
    ((51, 51), 1.0, True)
    """
    out = np.full((STAMP_SIDE, STAMP_SIDE), np.nan, np.float32)
    i, j = round(y) - HALF, round(x) - HALF
    rows, columns = (slice(max(k, 0), min(k + STAMP_SIDE, n)) for k, n in zip((i, j), plane.shape, strict=True))
    if rows.start < rows.stop and columns.start < columns.stop:
        out[rows.start - i:rows.stop - i, columns.start - j:columns.stop - j] = plane[rows, columns]
    return out


__all__ = ["Found", "of_sides", "stamps_at", "window"]
