"""A night on the platform with live detectors, from a scenario to a run folder: any mix of the three fidelities.

Beside it the same night with no fault and unlimited workers, as numbers: those of the live detectors are what they
were, and where a fault kept one from having any, those that it would have had.
"""

from concurrent.futures import Executor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np

from pipeline.errors import InputError
from pipeline.ports import AlertSink, Ports
from pipeline.sinks.counting import CountingSink
from reports.requirement import requirement
from reports.state import State
from schemas.measures import EXPOSURE_LOG, empty, fact_rows
from schemas.table import join
from twin import counts_night
from twin.balance import check
from twin.cache import Cache
from twin.conduct import Conduct, Stopped
from twin.counts import work_rows
from twin.counts_night import Made, Outcome, Progress, explain, made, missed
from twin.keeping import KEPT, keeper
from twin.live import SimulatedDetectors, Source, live_camera
from twin.live_processing import LiveProcessing
from twin.outside import check_topic, ports_of, scratch_in
from twin.plan import Plan
from twin.platform_config import ExpectConfig
from twin.pool import Inline, assert_one_thread, warm
from twin.prompt_processing import Ran
from twin.pulse import Pulse
from twin.recorder import ParquetRecorder
from twin.running import Running, begun, keep_scenario, public, settings, telling
from twin.scenario import Scenario, to_toml
from twin.wide import WideSource


@dataclass(frozen=True, slots=True)
class Place:
    """Where a night leaves what it makes, and finds what was made before."""

    folder: Path
    sink: str = ""             # URL; files in the folder without one
    store: str = ""            # URL; "memory:" without one, a DuckDB file in the folder where something is rendered
    cache: Cache | None = None
    keep_images: bool = False
    any_topic: bool = False    # of simulated alerts


def run_live(scenario: Scenario, place: Place, *, beside: Path = Path(), processes: int = 1,
             progress: Progress = lambda what, done, total: None, again: bool = False,
             conduct: Conduct | None = None) -> Outcome:
    """Simulate a night with live detectors into a new run folder; `beside` is where its tables may lie.

    `conduct` says how the night is gone through: at once without one; `Stopped` where it ends it. InputError where the
    folder is occupied. Whatever else ends the run early takes the folder with it, unless the world saw some of it. With
    `again` the folder is of a run that did not finish (`twin.running`).
    """
    start, conduct = perf_counter(), conduct or Conduct()
    assert_one_thread()
    check_topic(place.sink, any_topic=place.any_topic)
    scenario = live_scenario(scenario)
    night = made(scenario, beside)
    state = State(kind="live", name=scenario.name, seed=scenario.seed, of=len(night.plan), doing="the sky",
                  settings=settings(beside=beside, sink=public(place.sink), store=public(place.store),
                                    keep_images=place.keep_images, any_topic=place.any_topic,
                                    cache=None if place.cache is None else place.cache.folder))
    with begun(place.folder, state, again=again, stays=lambda: conduct.known) as here:
        outcome = _into(place, scenario, night, processes, telling(here, progress), conduct, start, here)
    if outcome is None:
        raise Stopped
    return outcome


def live_scenario(scenario: Scenario) -> Scenario:
    """The scenario as it is run: one order of publication, and a camera of the live detectors."""
    publish = msgspec.structs.replace(scenario.pipeline.publish, order=scenario.platform.publication.order)
    scenario = msgspec.structs.replace(scenario, pipeline=msgspec.structs.replace(scenario.pipeline, publish=publish))
    return live_camera(scenario) if scenario.counts.cadence == "simulation" else scenario


def _into(place: Place, scenario: Scenario, night: Made, processes: int, progress: Progress, conduct: Conduct,
          start: float, here: Running) -> Outcome | None:
    """The night in its folder; None where its conduct ended it, and the folder has what there was."""
    folder = place.folder
    keep_scenario(folder, to_toml(scenario))
    store = place.store or (f"duckdb:{folder / 'prompt.duckdb'}" if scenario.fidelities.pixels else "memory:")
    drawn_ahead = 0 if scenario.fidelities.pixels else 1
    with (conduct.recorder(folder / "measures") as recorder, conduct.pool(processes, most=drawn_ahead) as pool,
          scratch_in(folder), ports_of(store, _sink_of(place, scenario), recorder) as ports):
        if scenario.fidelities.pixels and not isinstance(pool, Inline):
            progress("kernels", 0, 1)
            warm()
            progress("kernels", 1, 1)
        source = source_of(scenario, night.plan, place, pool, processes)
        platform = LiveProcessing(
            scenario.platform, night.plan, night.numbers, night.troubles, source=source,
            ports=conduct.ports(ports), costs=night.costs, pipeline=scenario.pipeline, seed=scenario.seed,
            keep=keeper(scenario.pipeline.batch.precovery, folder / KEPT),
            done=lambda done, of: progress("detector-visits", done, of))
        platform.pulse = looking = Pulse(here, recorder, platform)
        try:
            ran = platform.run(lambda env: conduct.drive(env, night.plan.origin_mjd_tai, float(night.plan.opens_s[0])))
        except Stopped:
            recorder.append("exposure_log", join([empty(EXPOSURE_LOG), *platform.logs.values()]))
            _record_prompt(ports, recorder, conduct)
            recorder.append("fact", fact_rows({
                "scenario": scenario.name, "description": scenario.description, "seed": scenario.seed,
                "kind": "simulated", **_live_facts(scenario, source, processes), **conduct.facts()}))
            return None
        looking.last()
        here.say("the reference")
        outcome = _judged(scenario, night, ran)
        recorder.append("exposure_log", platform.log_rows())
        _record_prompt(ports, recorder, conduct)
        _record_platform(scenario, outcome, recorder)
        facts = counts_night.facts(scenario, outcome, perf_counter() - start)
        told = {**_live_facts(scenario, source, processes), **conduct.facts()}
        recorder.append("fact", np.concatenate([facts[facts["key"] != b"fidelity"], fact_rows(told)]))
    if place.cache is not None:
        place.cache.settle()
    return Outcome(folder, outcome, perf_counter() - start, missed(scenario.expect, outcome),
                   scenario.expect != ExpectConfig())


def _judged(scenario: Scenario, night: Made, ran: Ran) -> counts_night.Night:
    """The night beside its reference."""
    check(ran)
    reference = counts_night.run_once(scenario, night, unlimited=True)
    explain(ran, reference)
    return counts_night.Night(night, ran, reference, requirement(ran.passages, reference.passages))


def _record_platform(scenario: Scenario, night: counts_night.Night, recorder: ParquetRecorder) -> None:
    ran, made = night.ran, night.made
    for name, rows in (("passage", ran.passages), ("call", ran.calls), ("pod", ran.pods),
                       ("work", work_rows(made.plan, made.numbers, scenario.counts.detectors)),
                       ("next_visit", ran.next_visits), ("reference", night.reference.passages)):
        recorder.append(name, rows)


def _record_prompt(ports: Ports, recorder: ParquetRecorder, conduct: Conduct) -> None:
    for name in conduct.tables:
        recorder.append(name, ports.store.table(name))


def source_of(scenario: Scenario, plan: Plan, place: Place, pool: Executor, processes: int) -> Source:
    """The world of a scenario's live detectors: one simulated field, or the sky of a survey."""
    if scenario.counts.cadence == "simulation":
        return SimulatedDetectors(scenario, place.folder, pool, processes, cache=place.cache,
                                  keep_images=place.keep_images)
    return WideSource(scenario, plan, pool)


def _sink_of(place: Place, scenario: Scenario) -> str | AlertSink:
    if scenario.pipeline.alert.packets != "counted":
        return place.sink or f"file:{place.folder / 'alerts'}"
    if place.sink:
        raise InputError(f"sink {place.sink!r}: with pipeline.alert.packets = \"counted\" there are no packets to send")
    return CountingSink()


def _live_facts(scenario: Scenario, source: Source, processes: int) -> dict[str, object]:
    """Which detectors were more than numbers, and by what."""
    named = {kind: [d for d, one in sorted(source.fidelities.items()) if one == kind]
             for kind in ("pixels", "catalogue")}
    counted = scenario.counts.detectors - len(source.fidelities)
    kinds = [kind for kind, some in named.items() if some] + ["counts"] * (counted > 0)
    return {"fidelity": ", ".join(kinds),
            **{f"detectors_{kind}": " ".join(map(str, some)) for kind, some in named.items()},
            "detectors_counts": counted, "processes": processes,
            **{package: version(package) for package in ("numpy", "scipy", "numba", "galsim", "duckdb")},
            **source.facts}


__all__ = ["Place", "live_scenario", "run_live", "source_of"]
