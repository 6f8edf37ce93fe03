"""Nights and hours without observing: clouds in eighths of the sky, maintenance and failures."""

from typing import Final

import numpy as np

from simulators.conditions import SEEING_PARTS, SITE
from simulators.config import ConditionsConfig, SchedulerConfig
from simulators.streams import stream

STEP_D: Final = 0.12                # clouds are judged for a quarter of a long night at a time, counted from midnight
JANUARY_MJD: Final = 61041.0        # 2026-01-01
YEAR_D: Final = 365.25
FAILURES: Final = ((1, 0.0137), (3, 0.00548), (7, 0.00137), (14, 0.000274))
# nights lost and their chance per night: minor, intermediate, major, catastrophic (rubin_scheduler)
MAINTENANCE: Final = ((308, 7), (360, 3), (158, 14))
# first day of the year and nights: the v2.0 baseline's holes in November, December and June
MODES: Final = 384


def _step(mjd_tai: np.ndarray | float, part: float) -> np.ndarray:
    """The time at a part of the step that holds a time."""
    t = np.asarray(mjd_tai, float)
    midnight = np.round(t + SITE[0] / 360.0) - SITE[0] / 360.0
    return np.asarray(midnight + (np.floor((t - midnight) / STEP_D + 1e-9) + part) * STEP_D)


class Weather:
    """What one seed's sky over the site does at any time."""

    def __init__(self, config: SchedulerConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        rng = stream(seed, "clouds")
        self._omega = rng.standard_cauchy(MODES) / config.cloud_memory_d
        self._phase = rng.uniform(0, 2 * np.pi, MODES)

    def clouds(self, mjd_tai: np.ndarray | float) -> np.ndarray:
        """Fraction of the sky under clouds, in eighths."""
        t = _step(mjd_tai, 0.5)
        wave = np.sqrt(2.0 / MODES) * np.cos((t[..., None] - JANUARY_MJD) * self._omega + self._phase).sum(-1)
        winter, summer = self.config.clear
        season = 0.5 * (1.0 + np.cos(2 * np.pi * (t - JANUARY_MJD - 15.0) / YEAR_D))
        clear = winter + (summer - winter) * season
        rank = 0.5 * (1.0 + np.tanh(0.7978845608 * (wave + 0.044715 * wave**3)))   # the normal distribution's, to 3e-4
        cloudless = np.clip((clear - 0.25) / 0.75, 0.0, 1.0)     # at and below two eighths are `clear` of all
        return np.asarray(np.clip(np.ceil(8 * (rank - cloudless) / np.maximum(1.0 - cloudless, 1e-9)), 0, 8) / 8)

    def open_until(self, start: float, end: float) -> tuple[float, float] | None:
        """The first stretch of [start, end] under the cloud limit; None without one."""
        edges = _step(start, 0.0) + np.arange(int(np.ceil((end - start) / STEP_D)) + 1) * STEP_D
        edges = edges[edges < end]
        usable = self.clouds(edges + STEP_D / 2) <= self.config.cloud_limit
        first = np.flatnonzero(usable)
        if not len(first):
            return None
        i = int(first[0])
        closed = np.flatnonzero(~usable[i:])
        last = end if not len(closed) else min(end, float(edges[i + closed[0]]))
        return max(start, float(edges[i])), last

    def lost_nights(self, first_mjd: int, nights: int) -> np.ndarray:
        """(nights,) bool: maintenance or a failure takes the night."""
        out = np.zeros(nights, bool)
        if not self.config.downtime:
            return out
        chances = stream(self.seed, "downtime").uniform(size=(nights, len(FAILURES)))
        for k, (length, chance) in enumerate(FAILURES):
            for night in np.flatnonzero(chances[:, k] < chance):
                out[night:night + length] = True
        day = (first_mjd + np.arange(nights) - JANUARY_MJD) % YEAR_D
        for begin, length in MAINTENANCE:
            out |= (day - begin) % YEAR_D < length
        return out


def seeing(config: ConditionsConfig, mjd_tai: np.ndarray, seed: int) -> np.ndarray:
    """`conditions.fwhm500` at many times of one night's day."""
    night = int(np.floor(mjd_tai[0] - 0.5))
    total = np.zeros(len(mjd_tai))
    for part, (share, memory) in enumerate(SEEING_PARTS):
        rng = stream(seed, f"seeing {part}", night)
        if memory is None:
            total += np.sqrt(share) * rng.normal()
            continue
        omega, phase = rng.standard_cauchy(96) / memory, rng.uniform(0, 2 * np.pi, 96)
        total += np.sqrt(share * 2.0 / 96) * np.cos((mjd_tai - night)[:, None] * omega + phase).sum(1)
    value = config.fwhm500_median * np.exp(config.fwhm500_ln_sigma * total)
    return np.clip(value, config.fwhm500_min, config.fwhm500_max)
