"""How a night is gone through: at once, as fast as it computes, or otherwise (`twin.stream`: on the wall clock)."""

from concurrent.futures import Executor
from contextlib import AbstractContextManager
from pathlib import Path

import simpy

from pipeline.ports import Ports
from twin.pool import open_pool
from twin.recorder import PROMPT_TABLES, ParquetRecorder


class Stopped(Exception):
    """A night was ended before it was over; its folder has what there was."""


class Conduct:
    """A night at once."""

    tables: tuple[str, ...] = PROMPT_TABLES        # prompt tables that a night on the platform writes when it ends
    known = False                                  # whether the world saw any of it: then its folder stays

    def recorder(self, folder: Path) -> ParquetRecorder:
        """Where the night's tables are kept."""
        return ParquetRecorder(folder)

    def pool(self, processes: int, *, most: int = 0) -> AbstractContextManager[Executor]:
        """Where the night's images and catalogues are made ahead; `most` is how many processes are of use."""
        return open_pool(processes, most=most)

    def ports(self, ports: Ports) -> Ports:
        """The night's ports, as it sees them."""
        return ports

    def drive(self, env: simpy.Environment, origin_mjd_tai: float, opens_s: float, over: simpy.Event | None = None
              ) -> None:
        """Take the night's events in turn.

        Simulated second 0 is at `origin_mjd_tai`, the first shutter opens at `opens_s`. What comes after the event
        `over` is of no interest; without one nothing comes after the night. `Stopped` where this ends it before.
        """
        env.run(over)
        env.run()

    def facts(self) -> dict[str, object]:
        """What the run folder says of it."""
        return {}


__all__ = ["Conduct", "Stopped"]
