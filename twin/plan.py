"""The visits of a night at counts fidelity: our scheduler's, or at regular or random times."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.errors import InputError
from schemas.exposure import Visit
from simulators.scheduler import Survey
from simulators.streams import stream
from simulators.surveyed import visit_id
from twin.observatory import Observatory
from twin.scenario import Scenario

DAY_S: Final = 86400.0
BEFORE_S: Final = 100.0        # of the simulated clock before the first shutter opens
NIGHTS: Final = 20             # tried until one has as many visits as are wanted
START_MJD: Final = 61218.0     # of made-up nights
POINTING: Final = np.dtype([("ra", "f8"), ("dec", "f8"), ("rotation", "f8"), ("band", "S1")])   # [deg]


@dataclass(frozen=True, slots=True)
class Plan:
    """A night's visits in the order of their shutters; seconds are of the simulated clock."""

    origin_mjd_tai: float
    visit: np.ndarray          # (n,) int64
    field: np.ndarray          # (n,) int64: the same field, the same sky
    opens_s: np.ndarray        # (n,) float64
    closes_s: np.ndarray       # (n,) float64, for the last time
    pointing: np.ndarray       # (n,) POINTING

    def __len__(self) -> int:
        return len(self.visit)


def plan_of(scenario: Scenario) -> Plan:
    """The night of a scenario; InputError where the scheduler has none of as many visits."""
    c = scenario.counts
    if c.cadence == "scheduler":
        return _scheduled(scenario)
    if c.cadence == "simulation":
        return of_visits(Observatory(scenario, Path()).visits)
    gaps = np.full(c.visits, c.interval_s)
    if c.cadence == "poisson":
        gaps = stream(scenario.seed, "visits").exponential(c.interval_s, c.visits)
    field = np.arange(c.visits) % c.fields
    return _made(START_MJD, np.cumsum(gaps) - gaps[0], field, scenario, strip(field))


def _scheduled(scenario: Scenario) -> Plan:
    """The first visits of the first night of our scheduler's survey that has enough."""
    c, longest = scenario.counts, 0
    for night in Survey(scenario.simulation.cadence.scheduler, scenario.seed).nights(NIGHTS):
        longest = max(longest, len(night))
        if len(night) >= c.visits:
            break
    else:
        raise InputError(f"counts.visits: {c.visits} visits are wanted, the longest of the scheduler's first {NIGHTS} "
                         f"nights has {longest}")
    night = night[:c.visits]
    start = float(night["observationStartMJD"][0])
    pointing = np.zeros(len(night), POINTING)
    pointing["ra"], pointing["dec"] = night["fieldRA"], night["fieldDec"]
    pointing["rotation"], pointing["band"] = night["rotSkyPos"], night["band"]
    return _made(start, (night["observationStartMJD"] - start) * DAY_S, _fields(night["fieldId"].astype("i8")),
                 scenario, pointing)


def of_visits(visits: Sequence[Visit]) -> Plan:
    """The visits of a simulated field."""
    middle = np.array([visit.mjd_tai for visit in visits])
    half = np.array([visit.exposure_s for visit in visits]) / (2 * DAY_S)
    origin = float(middle[0] - half[0]) - BEFORE_S / DAY_S
    pointing = np.zeros(len(visits), POINTING)
    for row, visit in zip(pointing, visits, strict=True):
        row["ra"], row["dec"], row["rotation"], row["band"] = visit.ra, visit.dec, visit.rotation, visit.band.encode()
    return Plan(origin, np.array([visit.visit for visit in visits], np.int64), np.zeros(len(visits), np.int64),
                (middle - half - origin) * DAY_S, (middle + half - origin) * DAY_S, pointing)


def strip(field: np.ndarray) -> np.ndarray:
    """POINTING of made-up fields: side by side along a parallel."""
    out = np.zeros(len(field), POINTING)
    out["ra"], out["dec"], out["band"] = 3.5 * field % 360.0, -30.0, b"r"
    return out


def _fields(number: np.ndarray) -> np.ndarray:
    """Numbers of fields from 0: those of deep fields are negative in the scheduler's table."""
    return np.where(number < 0, 1_000_000 - number, number)


def _made(start_mjd: float, seconds: np.ndarray, field: np.ndarray, scenario: Scenario, pointing: np.ndarray) -> Plan:
    """Its shutters close for the last time when all snaps but the last are read out."""
    opens = BEFORE_S + np.asarray(seconds, float)
    shut = scenario.counts.exposure_s + scenario.platform.readout_s * (max(scenario.platform.front.nimages, 1) - 1)
    number = np.array([visit_id(start_mjd, k) for k in range(1, len(opens) + 1)], np.int64)
    return Plan(start_mjd - BEFORE_S / DAY_S, number, np.asarray(field, np.int64), opens, opens + shut, pointing)


__all__ = ["BEFORE_S", "POINTING", "Plan", "of_visits", "plan_of", "strip"]
