"""Identifiers as Rubin packs them.

A visit is YYYYMMDD * 100000 + sequence number of its observing day. A diaSourceId, and likewise a diaForcedSourceId:

    bit  63    57..62    56        42..55               27..41     19..26     0..18
         sign  release   1-to-1    day since 2010-01-01  sequence   detector   counter

A new DIAObject takes the diaSourceId of its first source. (Layout: meas_base's IdGenerator and obs_lsst's packer; a
test reproduces it on public alerts.)
"""

from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np

COUNTER_BITS: Final = 19
DETECTOR_BITS: Final = 8
SEQUENCE_BITS: Final = 15
DAY_BITS: Final = 14
RELEASE_BITS: Final = 6
ONE_TO_ONE_BIT: Final = COUNTER_BITS + DETECTOR_BITS + SEQUENCE_BITS + DAY_BITS
RELEASE_SHIFT: Final = ONE_TO_ONE_BIT + 1
FIRST_DAY: Final = date(2010, 1, 1)
MAX_COUNT: Final = 1 << COUNTER_BITS


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The parts of packed ids, one element per id."""

    release: np.ndarray
    visit: np.ndarray
    detector: np.ndarray
    counter: np.ndarray


def visit_id(day_obs: int, sequence: int) -> int:
    """The visit of a day, written YYYYMMDD, and a sequence number."""
    if not 0 <= sequence < 1 << SEQUENCE_BITS:
        raise ValueError(f"the sequence number must be 0 to {(1 << SEQUENCE_BITS) - 1}, got {sequence}")
    _days(day_obs)
    return day_obs * 100_000 + sequence


def split_visit(visit: int) -> tuple[int, int]:
    """Observing day as YYYYMMDD and sequence number of a visit."""
    return visit // 100_000, visit % 100_000


def day_obs(mjd_tai: float) -> int:
    """The observing day, written YYYYMMDD: it changes at 12:00 UTC (the 37 s of TAI fall in daylight)."""
    day = date.fromordinal(date(1858, 11, 17).toordinal() + int(np.floor(mjd_tai - 0.5)))
    return day.year * 10_000 + day.month * 100 + day.day


def source_ids(visit: int, detector: int, counters: np.ndarray, *, release: int = 0) -> np.ndarray:
    """diaSourceIds, (n,) int64, of the sources numbered `counters` of one detector-visit.

    `release` is 0 in development, 1 in Rubin's production.
    """
    day, sequence = split_visit(visit)
    if not 0 <= detector < 1 << DETECTOR_BITS:
        raise ValueError(f"the detector must be 0 to {(1 << DETECTOR_BITS) - 1}, got {detector}")
    if not 0 <= release < 1 << RELEASE_BITS:
        raise ValueError(f"the release must be 0 to {(1 << RELEASE_BITS) - 1}, got {release}")
    if sequence >= 1 << SEQUENCE_BITS:
        raise ValueError(f"visit {visit}: the sequence number must be below {1 << SEQUENCE_BITS}, got {sequence}")
    counters = np.asarray(counters, np.int64)
    if counters.size and not (counters.min() >= 0 and counters.max() < MAX_COUNT):
        raise ValueError(f"counters must be 0 to {MAX_COUNT - 1}, got {counters.min()} to {counters.max()}")
    packed = detector + (sequence + (_days(day) << SEQUENCE_BITS) << DETECTOR_BITS)
    return np.asarray((release << RELEASE_SHIFT) + (packed << COUNTER_BITS) + counters)


def unpack(ids: np.ndarray) -> Unpacked:
    """Release, visit, detector and counter of packed ids."""
    ids = np.asarray(ids, np.int64)
    rest = ids >> COUNTER_BITS
    detector = rest & ((1 << DETECTOR_BITS) - 1)
    rest = rest >> DETECTOR_BITS
    sequence = rest & ((1 << SEQUENCE_BITS) - 1)
    days = (rest >> SEQUENCE_BITS) & ((1 << DAY_BITS) - 1)
    return Unpacked(ids >> RELEASE_SHIFT, _written(days) * 100_000 + sequence, detector, ids & (MAX_COUNT - 1))


def _days(day: int) -> int:
    try:
        written = date(day // 10_000, day // 100 % 100, day % 100)
    except ValueError:
        raise ValueError(f"an observing day is written YYYYMMDD, got {day}") from None
    days = (written - FIRST_DAY).days
    if not 0 <= days < 1 << DAY_BITS:
        raise ValueError(f"an observing day must lie in the {1 << DAY_BITS} days from {FIRST_DAY}, got {day}")
    return days


def _written(days: np.ndarray) -> np.ndarray:
    dates = np.datetime64(FIRST_DAY, "D") + days.astype("m8[D]")
    years = dates.astype("M8[Y]").astype(np.int64) + 1970
    months = dates.astype("M8[M]").astype(np.int64) % 12 + 1
    in_month = (dates - dates.astype("M8[M]")).astype(np.int64) + 1
    return np.asarray(years * 10_000 + months * 100 + in_month)
