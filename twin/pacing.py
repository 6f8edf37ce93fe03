"""A simulated night on the wall clock.

Simulated second s falls on the wall's start + (s - begin) / speed. What happens then may be computed up to `ahead_s`
earlier, since nothing simulated depends on the wall; it never happens earlier to the outside (`twin.posting`), and what
is too late is late: the clock does not wait for the machine. (`simpy.rt.RealtimeEnvironment` can neither compute ahead
nor begin when the first templates are made, and forgets what it lagged.)

         computed                        sent
            v                              v
    --------|------------------------------|-----------------> simulated seconds
            now + ahead_s                  now
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import simpy

AHEAD_S: Final = 40.0       # simulated: one visit's work is spread over the time until the next
UNIX_EPOCH_MJD: Final = 40587.0
DAY_S: Final = 86400.0


@dataclass(slots=True)
class WallClock:
    """When simulated seconds are; before its start no second has come."""

    begin_s: float                                 # the simulated second that falls on the start
    origin_mjd_tai: float                          # of simulated second 0
    speed: float = 1.0
    monotonic: Callable[[], float] = time.monotonic
    unix: Callable[[], float] = time.time
    start: float = math.nan                        # of `monotonic`
    start_unix: float = math.nan
    not_before: float = -math.inf                  # unix time of the earliest start

    @property
    def running(self) -> bool:
        return not math.isnan(self.start)

    def run(self) -> None:
        """Now is the simulated second `begin_s`."""
        self.start_unix, self.start = self.unix(), self.monotonic()

    def until(self, simulated_s: float) -> float:
        """Seconds of the wall until a simulated second; negative when it is over."""
        if not self.running:
            return (simulated_s - self.begin_s) / self.speed if simulated_s > self.begin_s else 0.0
        return self.start + (simulated_s - self.begin_s) / self.speed - self.monotonic()

    def unix_of(self, simulated_s: float) -> float:
        """Unix time of a simulated second."""
        return self.start_unix + (simulated_s - self.begin_s) / self.speed

    def unix_now(self) -> float:
        """Unix time as this clock counts it: adjustments of the machine's clock do not reach it."""
        return self.start_unix + self.monotonic() - self.start

    def mjd_tai(self, simulated_s: float) -> float:
        """The time that the night's packets say."""
        return self.origin_mjd_tai + simulated_s / DAY_S

    def __str__(self) -> str:
        return f"mjd_tai={self.mjd_tai(self.begin_s):.8f};unix={self.start_unix:.3f};speed={self.speed:g}"


Rest = Callable[[float], bool]      # wait at most so many seconds; whether to go on


def pace(env: simpy.Environment, over: simpy.Event | None, clock: WallClock, rest: Rest, ahead_s: float = AHEAD_S
         ) -> bool:
    """Step through a night until it is over, or nothing is left of it; False where `rest` ended it before.

    A clock that does not run yet is begun when all that may be computed ahead is.
    """
    while not (over is not None and over.processed) and (at := float(env.peek())) < math.inf:
        while (early := clock.until(at - ahead_s)) > 0:
            if not (clock.running or _begin(clock, rest)) or not rest(early):
                return False
        if not rest(0.0):
            return False
        env.step()
    return clock.running or _begin(clock, rest)


def _begin(clock: WallClock, rest: Rest) -> bool:
    while (early := clock.not_before - clock.unix()) > 0:
        if not rest(early):
            return False
    clock.run()
    return True


__all__ = ["AHEAD_S", "WallClock", "pace"]
