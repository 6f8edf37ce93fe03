"""Several nights at once, a process for each: a catalogue half is serial, and nights know nothing of each other."""

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from twin.cache import Cache
from twin.pool import assert_one_thread, end, spawned
from twin.scenario import Scenario

if TYPE_CHECKING:   # it imports what only the processes need
    from twin.night import Outcome


def run_nights(scenarios: Sequence[Scenario], out: Path, *, beside: Path = Path(), processes: int = 1,
               cache: Cache | None = None, sink: str = "", any_topic: bool = False, store: str = "",
               progress: Callable[[str, int, int], None] = lambda what, done, total: None) -> list["Outcome"]:
    """Run the nights of scenarios into `out/seed_SEED`; their outcomes in the order of the scenarios.

    What else is told is told to `run_night`. With fewer nights than processes each has several. Whatever ends this
    early takes all of the folders with it.
    """
    assert_one_thread()
    folders = [out / f"seed_{scenario.seed}" for scenario in scenarios]
    if len(set(folders)) < len(folders):
        raise ValueError("two of the nights have the same seed")
    at_once = max(1, min(processes, len(scenarios)))
    each = max(1, processes // at_once)
    outcomes: dict[int, Outcome] = {}
    pool = spawned(at_once)
    begun = [folder for folder in folders if not folder.exists()]
    try:
        futures = {pool.submit(_night, scenario, folder, beside, each, cache, sink, any_topic, store): number
                   for number, (scenario, folder) in enumerate(zip(scenarios, folders, strict=True))}
        for future in as_completed(futures):
            outcomes[futures[future]] = future.result()
            progress("nights", len(outcomes), len(folders))
    except BaseException:
        end(pool)
        for folder in begun:
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            out.rmdir()              # where nothing else is in it
        raise
    pool.shutdown()
    return [outcomes[number] for number in range(len(folders))]


def _night(scenario: Scenario, folder: Path, beside: Path, processes: int, cache: Cache | None, sink: str,
           any_topic: bool, store: str) -> "Outcome":
    from twin.night import run_night

    return run_night(scenario, folder, beside=beside, processes=processes, cache=cache, sink=sink,
                     any_topic=any_topic, store=store)


__all__ = ["run_nights"]
