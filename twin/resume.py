"""A run that was killed, done again from what is in its folder: the same night, as if nothing had happened.

Nothing of the tables is kept, so nothing of two lives is mixed: what is pure comes from the cache, and of a sweep the
platforms that were done stay. Alerts that left for a broker, and rows in a database elsewhere, cannot be taken back:
such a run is not resumed.
"""

from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.open import topic_of
from reports.state import State
from reports.store import StoreError
from twin.cache import Cache
from twin.prefill import STORE
from twin.running import SCENARIO, Progress, reopen
from twin.scenario import Scenario, read_scenario


def resume(folder: Path, *, processes: int = 1, cache: Cache | None = None,
           progress: Progress = lambda what, done, total: None) -> tuple[str, bool]:
    """Do the run of a folder again; what it says, and whether it is as its scenario expects.

    InputError where the run is finished, going on, or cannot be done again.
    """
    try:
        state = reopen(folder)
    except StoreError as error:
        raise InputError(str(error)) from None
    if state.kind == "sweep":
        return _sweep(folder, state, processes, progress), True
    scenario = _scenario(folder)
    if state.kind == "counts":
        from twin.counts_night import run_counts

        outcome = run_counts(scenario, folder, beside=Path(state.settings["beside"]), processes=processes, again=True,
                             progress=progress)
        return str(outcome), not outcome.missed
    if why := beyond(folder, state.settings["sink"], state.settings["store"]):
        raise InputError(f"{folder}: this run cannot be resumed: {why}")
    told: dict[str, Any] = dict(state.settings)
    if (kept := told.pop("cache")) is not None:
        cache = Cache.open(Path(kept))
    again: dict[str, Any] = {"beside": Path(told.pop("beside")), "processes": processes, "again": True,
                             "progress": progress}
    if state.kind == "live":
        from twin.live_night import Place, run_live

        outcome = run_live(scenario, Place(folder, cache=cache, **told), **again)
        return str(outcome), not outcome.missed
    from twin.night import run_night

    past = told.pop("past")
    said = run_night(scenario, folder, cache=cache, past=None if past is None else Path(past), **told, **again)
    return str(said), True


def _scenario(folder: Path) -> Scenario:
    path = folder / SCENARIO
    if not path.is_file():
        raise InputError(f"{folder}: it was killed before its scenario was written; remove it and run anew")
    return read_scenario(path)


def beyond(folder: Path, sink: str, store: str) -> str:
    """Why a run that left something outside its folder cannot be done again; "" where it left nothing."""
    if topic_of(sink) is not None:
        why = (f"its alerts went to {sink}, and those that consumers have seen cannot be taken back; the night done "
               "again has a new outbox, whose position Kafka does not know, and would send them all once more. ")
        if (folder / STORE).is_file():
            why += (f"`alert-twin deliver duckdb:{folder / STORE} {sink}` sends what was saved and not sent, each "
                    "alert once: the position of that outbox is with Kafka. ")
        return why + "Run the night anew into another folder, to another topic"
    if store.partition(":")[0] not in ("", "memory"):
        return (f"its prompt tables are in {store}, and what it saved there would be the past of the night done again. "
                "Run it anew into another folder, with an empty store")
    return ""


def _sweep(folder: Path, state: State, processes: int, progress: Progress) -> str:
    from twin.sweep import sweep

    told = state.settings
    return sweep(Path(told["path"]), told["over"], folder, overrides=told["overrides"], seed=told["given_seed"],
                 processes=processes, progress=progress)


__all__ = ["beyond", "resume"]
