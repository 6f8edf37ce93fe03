"""The morning on one page: the steps of a night's batch, in order, each begun and ended in the journal.

    catchup      visits that the night did not finish
    dedup        DIAObjects made twice, by visits at the same time or by the catch-up
    precovery    new objects on the nights before
    consolidate  rows per visit and a summary

As in the real system the catch-up comes first: it makes objects that later visits made as well. Each step leaves the
store as if it had run once, however often it is begun, so a morning that was killed goes on where it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from pipeline.batch.catch_up import CaughtUp, Missed, catch_up
from pipeline.batch.journal import Journal
from pipeline.batch.kept import Archive
from pipeline.batch.merge import deduplicate
from pipeline.batch.precovery import precover
from pipeline.config import PipelineConfig
from pipeline.errors import InputError
from pipeline.pixel_half import Measured
from pipeline.ports import Ports, PromptArchive
from pipeline.steps import Step, Steps

STEPS: Final = ("catchup", "dedup", "precovery", "consolidate")


@dataclass(frozen=True, slots=True)
class Night:
    """What the morning is about, and what it is done with."""

    day_obs: int                               # YYYYMMDD
    since: float                               # the night's visits have midpoints in [since, until)
    until: float
    store: PromptArchive
    ports: Ports
    config: PipelineConfig
    journal: Journal
    missed: Callable[[], Sequence[Missed]]     # detector-visits that the store may lack
    archive: Archive | None                    # differences kept, if any were
    consolidate: Callable[[], dict[str, Any]]  # writes the rows per visit; gives the summary
    keep: Callable[[Measured], None] = lambda measured: None
    done: Callable[[CaughtUp], None] = lambda outcome: None


def morning(night: Night, steps: Sequence[str] = STEPS, *, again: bool = False) -> Steps[dict[str, Any]]:
    """Do the steps, those that the journal knows as ended left out unless `again`; their results by name."""
    for name in steps:
        if name not in STEPS:
            raise InputError(f"batch has no step {name!r}: there are {', '.join(STEPS)}")
    results = {} if again else {name: result for name, result in night.journal.results(night.day_obs).items()
                                if name in steps}
    for name in (step for step in STEPS if step in steps and step not in results):
        night.journal.note(night.day_obs, name, "began", night.ports.clock())
        yield Step(f"batch.{name}")
        results[name] = yield from _WORK[name](night)
        night.journal.note(night.day_obs, name, "ended", night.ports.clock(), results[name])
        yield Step(f"batch.{name}.ended")
    return {name: results[name] for name in STEPS if name in results}


def _catch_up(night: Night) -> Steps[dict[str, Any]]:
    missed = [one for one in night.missed() if not night.store.contains(one.visit.visit, one.detector)]
    outcomes = yield from catch_up(missed, night.store, night.ports, night.config, keep=night.keep, done=night.done)
    summaries = [outcome.summary for outcome in outcomes if outcome.summary is not None]
    return {"missed": len(missed), **{status: sum(o.status == status for o in outcomes)
                                      for status in ("done", "no_work", "failed")},
            "sources": sum(s.n_sources for s in summaries), "new_objects": sum(s.n_new_objects for s in summaries),
            "alerts": sum(s.n_alerts for s in summaries)}


def _deduplicate(night: Night) -> Steps[dict[str, Any]]:
    done = yield from deduplicate(night.store, night.ports.clock, night.config)
    return {"algorithm": night.config.batch.deduplicate.algorithm, **asdict(done)}


def _precover(night: Night) -> Steps[dict[str, Any]]:
    if night.archive is None:
        yield Step("precovery.none")
        return {"skipped": "no differences were kept (pipeline.batch.precovery.keep)"}
    done = yield from precover(night.store, night.archive, night.since, night.until, night.ports.clock, night.config)
    return asdict(done)


def _consolidate(night: Night) -> Steps[dict[str, Any]]:
    summary = night.consolidate()
    yield Step("consolidate", int(np.clip(summary.get("visits", 0), 1, None)))
    return summary


_WORK: Final[dict[str, Callable[[Night], Steps[dict[str, Any]]]]] = {
    "catchup": _catch_up, "dedup": _deduplicate, "precovery": _precover, "consolidate": _consolidate}
