"""A night at counts fidelity from a scenario to a run folder, beside the same with no fault and unlimited workers."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import numpy as np

from reports.delays import causes, held_by, is_late, parts
from reports.requirement import Requirement, requirement
from reports.state import State
from schemas.measures import WORK_STEPS, fact_rows
from twin.balance import check
from twin.costs import CostTable
from twin.counts import CountsModel, Numbers, draw_night, read_model, work_rows
from twin.halves import machine_name
from twin.plan import Plan, plan_of
from twin.platform_config import ExpectConfig
from twin.pool import spawned
from twin.prompt_processing import PromptProcessing, Ran
from twin.pulse import Pulse
from twin.recorder import ParquetRecorder
from twin.running import begun, keep_scenario, settings
from twin.scenario import Scenario, find_file, to_toml
from twin.troubles import Trouble, bursts, described, lay

Progress = Callable[[str, int, int], None]      # what, done, of how many
Looker = Callable[[PromptProcessing], Pulse]


@dataclass(frozen=True, slots=True)
class Made:
    """What a night is simulated from."""

    plan: Plan
    numbers: Numbers
    troubles: list[Trouble]
    costs: CostTable
    model: CountsModel


@dataclass(frozen=True, slots=True)
class Night:
    """A night, and what it was to be."""

    made: Made
    ran: Ran                   # its passages with reference, cause and excess
    reference: Ran             # the same numbers with no fault and unlimited workers
    requirement: Requirement


@dataclass(frozen=True, slots=True)
class Outcome:
    """A night in numbers."""

    folder: Path
    night: Night
    wall_s: float
    missed: list[str]          # what the scenario expects and the night is not
    expected: bool             # whether it expects anything

    def __str__(self) -> str:
        p, judged = self.night.ran.passages, self.night.requirement
        lines = [f"{len(self.night.made.plan)} visits, {len(p)} detector-visits, {int(p['n_sent'].sum()):,} of "
                 f"{judged.alerts:,} alerts sent in {self.wall_s:.0f} s: {self.folder}", *judged.lines()]
        if self.expected:
            lines += [f"not as expected: {line}" for line in self.missed] or ["as the scenario expects"]
        return "\n".join(lines)


def read_costs(scenario: Scenario, beside: Path = Path()) -> CostTable:
    """The cost table of a scenario."""
    return CostTable.read(find_file(scenario.platform.costs, beside, "cost table"), scenario.platform.cost_scale)


def made(scenario: Scenario, beside: Path = Path()) -> Made:
    """Plan, numbers and faults of a scenario; InputError names what cannot be used."""
    costs = read_costs(scenario, beside)
    model = read_model(find_file(scenario.counts.model, beside, "counts model"))
    plan = plan_of(scenario)
    troubles = lay(scenario.faults, plan)
    return Made(plan, draw_night(scenario, plan, model, costs, bursts(troubles, len(plan))), troubles, costs, model)


def simulate(scenario: Scenario, beside: Path = Path(), *, processes: int = 1, reference: Ran | None = None,
             night: Made | None = None, look: Looker | None = None) -> Night:
    """The night and its reference, checked; with two processes both at once. The result does not depend on that.

    A burst is the sky's, no fault of the machines: the reference has it too. `look` makes who looks at the night.
    """
    if reference is None and processes > 1:
        with spawned(1) as pool:
            beside_it = pool.submit(run_reference, scenario, beside)
            night = night or made(scenario, beside)
            ran = run_once(scenario, night, look=look)
            reference = beside_it.result()
    else:
        night = night or made(scenario, beside)
        reference = reference or run_once(scenario, night, unlimited=True)
        ran = run_once(scenario, night, look=look)
    explain(ran, reference)
    return Night(night, ran, reference, requirement(ran.passages, reference.passages))


def run_reference(scenario: Scenario, beside: Path) -> Ran:
    """The night with no fault and unlimited workers."""
    return run_once(scenario, made(scenario, beside), unlimited=True)


def run_once(scenario: Scenario, night: Made, *, unlimited: bool = False, look: Looker | None = None) -> Ran:
    """One night of numbers, checked; `unlimited` is the one with no fault and unlimited workers."""
    platform = PromptProcessing(scenario.platform, night.plan, night.numbers, () if unlimited else night.troubles,
                                seed=scenario.seed, unlimited=unlimited,
                                max_new_objects=scenario.pipeline.associate.max_new_objects)
    looking = None if look is None else look(platform)
    if looking is not None:
        platform.pulse = looking
    ran = platform.run()
    if looking is not None:
        looking.last()
    check(ran)
    return ran


def explain(ran: Ran, reference: Ran) -> None:
    """Fill in `reference_s`, `cause` and `excess_s` of the night's passages, in place."""
    rows = ran.passages
    rows["reference_s"] = reference.passages["delivered_s"]
    rows["cause"], rows["excess_s"] = causes(rows, parts(rows, ran.calls),
                                             parts(reference.passages, reference.calls),
                                             held_by(rows, reference.passages))


def run_counts(scenario: Scenario, folder: Path, *, beside: Path = Path(), processes: int = 1, again: bool = False,
               progress: Progress = lambda what, done, total: None) -> Outcome:
    """Simulate a night at counts fidelity into a new run folder; `beside` is where its tables may lie.

    InputError where the folder is occupied. Whatever ends the run early takes the folder with it. With `again` the
    folder is of a run that did not finish (`twin.running`).
    """
    start = perf_counter()
    state = State(kind="counts", name=scenario.name, seed=scenario.seed, of=scenario.counts.visits,
                  doing="numbers and reference", settings=settings(beside=beside))
    with begun(folder, state, again=again) as here:
        progress("nights", 0, 1)
        keep_scenario(folder, to_toml(scenario))
        with ParquetRecorder(folder / "measures") as recorder:
            night = simulate(scenario, beside, processes=processes,
                             look=lambda platform: Pulse(here, recorder, platform))
            here.say("writing the tables")
            recorder.append("passage", night.ran.passages)
            recorder.append("call", night.ran.calls)
            recorder.append("work", work_rows(night.made.plan, night.made.numbers, scenario.counts.detectors))
            recorder.append("pod", night.ran.pods)
            recorder.append("next_visit", night.ran.next_visits)
            recorder.append("reference", night.reference.passages)
            recorder.append("fact", facts(scenario, night, perf_counter() - start))
        progress("nights", 1, 1)
    return Outcome(folder, night, perf_counter() - start, missed(scenario.expect, night),
                   scenario.expect != ExpectConfig())


def missed(expect: ExpectConfig, night: Night) -> list[str]:
    """What a scenario expects exactly and the night is not, in words."""
    p = night.ran.passages
    found = {"alerts": night.requirement.alerts, "sent": int(p["n_sent"].sum()),
             "late": int(p["n_alerts"][is_late(p)].sum()), "sent_twice": int(p["n_sent_twice"].sum()),
             **night.ran.counters}
    out = [f"{name}: {found[name]}, {getattr(expect, name)} expected" for name in expect.__struct_fields__
           if name in found and getattr(expect, name) not in (None, found[name])]
    failed = failures(p)
    return out + [f"failed ({reason}): {failed.get(reason, 0)}, {expect.failed.get(reason, 0)} expected"
                  for reason in sorted(set(failed) | set(expect.failed))
                  if failed.get(reason, 0) != expect.failed.get(reason, 0)]


def failures(passages: np.ndarray) -> dict[str, int]:
    """Alerts that were never sent, by reason."""
    lost = passages[(passages["reason"] != b"") & (passages["n_alerts"] > 0)]
    return {reason.decode(): int(lost["n_alerts"][lost["reason"] == reason].sum())
            for reason in np.unique(lost["reason"])}


def facts(scenario: Scenario, night: Night, wall_s: float) -> np.ndarray:
    """FACT rows: the run's circumstances, and where its numbers come from."""
    costs, judged = night.made.costs, night.requirement
    origins = sorted({costs.origin(name).partition(":")[0] for name in costs.file.steps}, key=str)
    values = {
        "scenario": scenario.name, "description": scenario.description, "seed": scenario.seed, "fidelity": "counts",
        "kind": "simulated", "wall_s": f"{wall_s:.1f}", "origin_mjd_tai": repr(night.made.plan.origin_mjd_tai),
        "machine": machine_name(), "python": sys.version.split()[0], "twin": version("rubin-alert-twin"),
        "cost_table": costs.source, "cost_machine": costs.file.machine, "cost_date": costs.file.date,
        "cost_note": costs.file.note, "cost_scale": costs.scale, "cost_origin": " and ".join(origins),
        "counts_model": night.made.model.source, "workers": scenario.platform.workers,
        "detectors": scenario.counts.detectors, "readout_s": scenario.platform.readout_s,
        "servers": ", ".join(f"{name} {getattr(scenario.platform.services, name).servers or 'without limit'}"
                             for name in scenario.platform.services.__struct_fields__),
        "egress_gbps": scenario.platform.publication.egress_gbps, "reference_alerts": judged.alerts,
        "expect": scenario.expect.why, "expect_missed": "; ".join(missed(scenario.expect, night)),
        **{f"counter_{name}": value for name, value in night.ran.counters.items()},
        "busy_s": f"{night.ran.busy_area:.1f}",
        **{f"step_{name}": costs.origin(name) for name in WORK_STEPS},
        **{f"fault_{k}": described(trouble.config) for k, trouble in enumerate(night.made.troubles)},
        **{f"fault_{k}_span_s": f"{trouble.start_s:.1f} {trouble.end_s:.1f}"
           for k, trouble in enumerate(night.made.troubles)}}
    return fact_rows(values)


__all__ = ["Made", "Night", "Outcome", "explain", "failures", "made", "missed", "read_costs", "run_counts", "run_once",
           "simulate"]
