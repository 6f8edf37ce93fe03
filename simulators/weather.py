"""Nights and hours without observing: clouds in eighths of the sky, maintenance and failures."""

from functools import lru_cache
from typing import Final

import numpy as np

from simulators.almanac import SITE, night_bounds
from simulators.conditions import SEEING_PARTS
from simulators.config import ConditionsConfig, SchedulerConfig
from simulators.streams import stream

JANUARY_MJD: Final = 61041.0        # 2026-01-01
YEAR_D: Final = 365.25
FAILURES: Final = ((1, 0.0137), (3, 0.00548), (7, 0.00137), (14, 0.000274))
# nights lost and their chance per night: minor, intermediate, major, catastrophic (rubin_scheduler)
MAINTENANCE: Final = ((308, 7), (360, 3), (158, 14))
# first day of the year and nights: the v2.0 baseline's holes in November, December and June
MODES: Final = 384


@lru_cache(maxsize=4096)
def quarters(night_mjd: int) -> np.ndarray:
    """(5,) TAI MJD: edges of the four quarters of a night, from the Sun's 18 degrees below in the evening to morning.

    Clouds were judged once in each; twilight belongs to the first and the last.
    """
    ((dusk, dawn),) = night_bounds(night_mjd, -18.0)
    return np.linspace(dusk, dawn, 5)


def _middle(mjd_tai: np.ndarray | float) -> np.ndarray:
    """The middle of the quarter of a night that each time belongs to."""
    t = np.asarray(mjd_tai, float)
    night = np.round(t + SITE[0] / 360.0).astype(int)
    out = np.empty(t.shape)
    for one in np.unique(night):
        edges, here = quarters(int(one)), night == one
        k = np.searchsorted(edges[1:-1], t[here], side="right")
        out[here] = 0.5 * (edges[k] + edges[k + 1])
    return out


class Weather:
    """What one seed's sky over the site does at any time."""

    def __init__(self, config: SchedulerConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        rng, passing = stream(seed, "clouds"), config.cloud_passing
        self._parts = [(np.sqrt(2.0 * share / MODES), rng.standard_cauchy(MODES) / memory_d,
                        rng.uniform(0, 2 * np.pi, MODES))
                       for share, memory_d in zip((passing, 1.0 - passing), config.cloud_memory_d, strict=True)]

    def clouds(self, mjd_tai: np.ndarray | float) -> np.ndarray:
        """Fraction of the sky under clouds, in eighths: one figure for a quarter of a night.

        A Gaussian process of two memories, spells of days and clouds that pass in hours, as the quarters of the v2.0
        baseline's nights ask for: 9, 13 and 17 % of those one, two and three apart in a night differ in whether the
        dome is open (here 11, 14, 16), 21 % of the same quarter on the next night and the one after (here 20, 21); 25,
        16 and 24 nights of its year have one, two and three open quarters (here 19, 21, 27).
        """
        t = _middle(mjd_tai)
        since = t[..., None] - JANUARY_MJD
        wave = sum(size * np.cos(since * omega + phase).sum(-1) for size, omega, phase in self._parts)
        winter, summer = self.config.clear
        season = 0.5 * (1.0 + np.cos(2 * np.pi * (t - JANUARY_MJD - 15.0) / YEAR_D))
        clear = winter + (summer - winter) * season
        rank = 0.5 * (1.0 + np.tanh(0.7978845608 * (wave + 0.044715 * wave**3)))   # the normal distribution's, to 3e-4
        cloudless = np.clip((clear - 0.25) / 0.75, 0.0, 1.0)     # at and below two eighths are `clear` of all
        return np.asarray(np.clip(np.ceil(8 * (rank - cloudless) / np.maximum(1.0 - cloudless, 1e-9)), 0, 8) / 8)

    def open_until(self, start: float, end: float) -> tuple[float, float] | None:
        """The first stretch of [start, end] under the cloud limit; None without one."""
        inner = quarters(int(np.round(0.5 * (start + end) + SITE[0] / 360.0)))[1:-1]
        edges = np.concatenate([[start], inner[(inner > start) & (inner < end)], [end]])
        usable = self.clouds(0.5 * (edges[1:] + edges[:-1])) <= self.config.cloud_limit
        first = np.flatnonzero(usable)
        if not len(first):
            return None
        i = int(first[0])
        closed = np.flatnonzero(~usable[i:])
        return float(edges[i]), float(edges[i + closed[0]] if len(closed) else end)

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
