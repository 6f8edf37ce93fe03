"""Catch-up: the visits that the night did not finish, in the order in which they were taken.

Each is processed as it would have been then: the store is read through `AsOf`, which shows DIAObjects as the sources of
earlier visits make them, and no row of a later one. What is saved is computed from all sources there are, so that an
object that later visits know as well ends in the state that it would have had. An object whose first detection is
caught up is a duplicate of the one that a later visit made in the night: deduplication comes after.

By default no packets are made and nothing is forced, as deployed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from pipeline.config import PipelineConfig
from pipeline.errors import NoWorkFound, PipelineError
from pipeline.objects import recomputed
from pipeline.pixel_half import Measured
from pipeline.ports import History, Ports, PromptArchive, SaveRequest, Segment
from pipeline.prompt import Summary, deliver, preload, report_sources
from pipeline.steps import Steps
from schemas import table
from schemas.exposure import Box, Visit

MARGIN_ARCSEC = 5.0     # objects this far outside a box may have been inside it before later visits moved them


@dataclass(frozen=True, slots=True)
class Missed:
    """A detector-visit that is not in the store."""

    visit: Visit
    detector: int
    box: Box                                      # predicted footprint
    measure: Callable[[], Steps[Measured]]        # its pixel half, computed when its turn comes


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """What became of a missed detector-visit."""

    missed: Missed
    status: str                    # done, no_work, failed
    reason: str
    measured: Measured | None      # its pixels are closed
    summary: Summary | None


class AsOf:
    """The prompt tables as the visits before a time left them, whenever those were processed.

    A `pipeline.ports.PromptStore`. An object that has later sources is what those of midpoints before `until` say, and
    is not there without any. A save goes to the store itself, its objects computed from all of their sources.
    """

    def __init__(self, store: PromptArchive, until: float, config: PipelineConfig) -> None:
        self.store, self.until, self._config = store, until, config

    def objects(self, box: Box, until: float | None = None) -> np.ndarray:
        """Versions as of the time; their validity starts with their last source."""
        now = self.store.objects(box.padded(MARGIN_ARCSEC))
        until = self.until if until is None else min(until, self.until)
        later = now["lastDiaSourceMjdTai"] >= until
        found = recomputed(self.store.sources_of(now["diaObjectId"][later], until), until, self._config.objects)
        found["validityStartMjdTai"] = found["lastDiaSourceMjdTai"]
        found = table.join([table.take(now, np.flatnonzero(~later)), found])
        return table.take(found, box.contains(found["ra"], found["dec"]))

    def history(self, ids: np.ndarray, since: float, until: float) -> History:
        return self.store.history(ids, since, min(until, self.until))

    def contains(self, visit: int, detector: int) -> bool:
        return self.store.contains(visit, detector)

    def save(self, request: SaveRequest, segment: Segment) -> None:
        self.store.save(replace(request, objects=self._versions(request)), segment)

    def unsent(self) -> list[Segment]:
        return self.store.unsent()

    def mark_sent(self, segment: Segment) -> None:
        self.store.mark_sent(segment)

    def table(self, name: str) -> np.ndarray:
        return self.store.table(name)

    def close(self) -> None:
        """Nothing: the store belongs to whoever opened it."""

    def _versions(self, request: SaveRequest) -> np.ndarray:
        """The request's objects; those that later visits know as well, from all their sources."""
        sources = self.store.sources_of(request.objects["diaObjectId"])
        ids = np.unique(sources["diaObjectId"][sources["midpointMjdTai"] >= self.until])
        if not len(ids):
            return request.objects
        whole = table.join([sources, request.sources])
        now = float(request.objects["validityStartMjdTai"][0])
        versions = recomputed(table.take(whole, np.isin(whole["diaObjectId"], ids)), now, self._config.objects)
        rest = ~np.isin(request.objects["diaObjectId"], ids)
        return table.join([table.take(request.objects, np.flatnonzero(rest)), versions])


def settings(config: PipelineConfig) -> PipelineConfig:
    """The pipeline's settings for visits that are caught up."""
    chosen = config.batch.catch_up
    produce, forced = config.alert.produce and chosen.alerts, config.forced.enabled and chosen.forced
    return msgspec.structs.replace(config, alert=msgspec.structs.replace(config.alert, produce=produce),
                                   forced=msgspec.structs.replace(config.forced, enabled=forced))


def catch_up(missed: Sequence[Missed], store: PromptArchive, ports: Ports, config: PipelineConfig, *,
             keep: Callable[[Measured], None] = lambda measured: None,
             done: Callable[[CaughtUp], None] = lambda outcome: None) -> Steps[list[CaughtUp]]:
    """Process what is missing in visit order; what is in the store by now is passed over.

    A visit that fails is an outcome with its reason, and the next goes on. `keep` is shown each measured visit before
    its pixels go, `done` each outcome as it comes.
    """
    outcomes = []
    for one in sorted(missed, key=lambda m: (m.visit.mjd_tai, m.visit.visit, m.detector)):
        if store.contains(one.visit.visit, one.detector):
            continue
        outcome = yield from _catch_up_one(one, store, ports, settings(config), keep)
        done(outcome)
        outcomes.append(outcome)
    return outcomes


def _catch_up_one(missed: Missed, store: PromptArchive, ports: Ports, config: PipelineConfig,
                  keep: Callable[[Measured], None]) -> Steps[CaughtUp]:
    past = replace(ports, store=AsOf(store, missed.visit.mjd_tai, config))
    measured: Measured | None = None
    try:
        known = yield from preload(missed.visit, missed.detector, missed.box, past, config)
        measured = yield from missed.measure()
        summary = yield from report_sources(measured, known, past, config)
        keep(measured)
        if config.alert.produce:
            yield from deliver(ports, config, only=(missed.visit.visit, missed.detector))
        return CaughtUp(missed, "done", "", measured, summary)
    except NoWorkFound as error:
        return CaughtUp(missed, "no_work", str(error), measured, None)
    except PipelineError as error:
        return CaughtUp(missed, "failed", str(error), measured, None)
    finally:
        if measured is not None:
            measured.pixels.close()
