"""Runs that kill themselves: `python -m tests.twin.killed KIND SCENARIO OUT` ends by SIGKILL on its way."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path


def at(what: str, number: int) -> Callable[[str, int, int], None]:
    """Progress that is the last once so many of something are done."""
    def progress(doing: str, done: int, total: int) -> None:
        if (doing, done) == (what, number):
            os.kill(os.getpid(), signal.SIGKILL)

    return progress


def counts(scenario: Path, out: Path) -> None:
    from twin import pulse
    from twin.counts_night import run_counts
    from twin.scenario import read_scenario

    look, pulse.SHARE = pulse.Pulse._look, 1e9     # type: ignore[misc]

    def last_look(self: pulse.Pulse, now: float, **options: bool) -> None:
        self._here.due._least_s = self._next_s = 0.0     # at every poll
        look(self, now, **options)
        night = self._here.state.night
        if night is not None and night.opened >= 20:
            os.kill(os.getpid(), signal.SIGKILL)

    pulse.Pulse._look = last_look  # type: ignore[method-assign]
    run_counts(read_scenario(scenario), out, beside=scenario.parent)


def pixels(scenario: Path, out: Path, cache: str) -> None:
    from twin import running
    from twin.cache import Cache
    from twin.night import run_night
    from twin.scenario import read_scenario

    running.WRITE_S = 0.0      # type: ignore[misc]  # its state is that of the moment when it dies
    run_night(read_scenario(scenario), out, processes=1, cache=Cache.open(Path(cache)),
              progress=at("detector-visits", 1))


def live(scenario: Path, out: Path) -> None:
    from twin.live_night import Place, run_live
    from twin.scenario import read_scenario

    run_live(read_scenario(scenario), Place(out), processes=1, progress=at("detector-visits", 5))


def sweep(scenario: Path, out: Path, *over: str) -> None:
    from twin.sweep import sweep

    sweep(scenario, over, out, overrides=OVERRIDES, progress=at("platforms", 2))


OVERRIDES = ("platform.pods.smallest=3", "counts.visits=8")

if __name__ == "__main__":
    kinds: dict[str, Callable[..., None]] = {"counts": counts, "pixels": pixels, "live": live, "sweep": sweep}
    kinds[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
