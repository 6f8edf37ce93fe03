"""Cutouts at given places of a run, from the pixels that the cache keeps: what a comparison's gallery asks for.

The cache keeps science and difference, the run folder its templates: these are resampled and not matched, as in alerts.
"""

from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from scipy.ndimage import map_coordinates

from pipeline.errors import InputError
from pipeline.images import Template
from pipeline.pixels import PixelsOnDisk
from reports.compare import Comparison
from reports.comparison_page import Key, Stamps
from schemas import mask
from schemas.measures import STAMP_SIDE
from schemas.wcs import Wcs
from twin.cache import Cache
from twin.detector_visit import Half
from twin.halves import remembering
from twin.history import load_template
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
    found = {key: _stamps(folder, here, *key, np.array(places)) for key, places in sorted(by_visit.items())}
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


def _stamps(folder: Path, here: Remembering, number: int, detector: int, places: np.ndarray) -> np.ndarray | None:
    visit = next((v for v in here.visits if v.visit == number), None)
    loan = here.cache.get("half", here.half_key(visit, detector)) if visit is not None else None
    if visit is None or loan is None:
        return None
    try:
        half: Half = loan.value
        pixels = half.measured.pixels if half.measured is not None else None
        if not isinstance(pixels, PixelsOnDisk):
            return None
        science, difference = (np.load(pixels.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                               for name in ("science", "difference"))
        template = _template(folder, visit.band)
        out = np.full((len(places), 3, STAMP_SIDE, STAMP_SIDE), np.nan, np.float32)
        for stamp, (x, y) in zip(out, places, strict=True):
            stamp[0], stamp[2] = window(science, x, y), window(difference, x, y)
            if template is not None:
                stamp[1] = np.where(np.isnan(stamp[0]), np.nan, resampled(template, pixels.wcs, x, y))
        return out
    finally:
        loan.close()


@lru_cache(maxsize=2)
def _template(folder: Path, band: str) -> Template | None:
    return load_template(folder, band)


def resampled(template: Template, wcs: Wcs, x: float, y: float) -> np.ndarray:
    """The stamp of a template on the grid of an exposure, NaN where it has no data."""
    offsets = np.arange(STAMP_SIDE) - HALF
    at_x, at_y = template.wcs.pixels(*wcs.sky(*np.meshgrid(round(x) + offsets, round(y) + offsets)))
    corner = [max(int(np.floor(v.min())) - 1, 0) for v in (at_y, at_x)]
    rows, columns = (slice(k, max(int(np.ceil(v.max())) + 2, k)) for k, v in zip(corner, (at_y, at_x), strict=True))
    known = (template.mask[rows, columns] & mask.NO_DATA) == 0
    crop = np.where(known, template.image[rows, columns], np.nan)
    if not crop.size:
        return np.full((STAMP_SIDE, STAMP_SIDE), np.nan, np.float32)
    return np.asarray(map_coordinates(crop, [at_y - corner[0], at_x - corner[1]], order=1, cval=np.nan), np.float32)


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


__all__ = ["Found", "of_sides", "resampled", "stamps_at", "window"]
