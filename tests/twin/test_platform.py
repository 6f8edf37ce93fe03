"""Simulated time: what Steps wait for, and how a driver ends a pipeline."""

import math

import pytest
import simpy

from pipeline.config import RetryConfig
from pipeline.errors import InputError, RetriableError, VisitTimeout
from pipeline.retry import read, write
from pipeline.steps import Step, Steps
from twin.costs import CostFile, CostTable, StepCost
from twin.platform import Platform, Timed, drive, replay
from twin.platform_config import PlatformConfig

COSTS = CostTable(CostFile(machine="none", date="never", steps={
    "work": StepCost(a=1.0, b=0.5), "save": StepCost(a=10.0, b=0.0), "objects": StepCost(a=4.0, b=0.0)}))


def platform(**config: int) -> Platform:
    return Platform(PlatformConfig(**config), COSTS, 60000.0)


def test_a_step_takes_what_the_table_says() -> None:
    def steps() -> Steps[str]:
        yield Step("work", 4)
        yield Step("work", 0)
        return "done"

    machines, notes = platform(), []
    outcome = machines.env.process(drive(steps(), machines, notes.append))
    assert machines.env.run(outcome) == "done"
    assert machines.env.now == 3.0 + 1.0
    assert [(n.step.size, n.start_s, n.duration_s) for n in notes] == [(4, 0.0, 3.0), (0, 3.0, 1.0)]


def test_a_step_without_a_cost_is_an_error() -> None:
    def steps() -> Steps[None]:
        yield Step("unheard")

    machines = platform()
    with pytest.raises(InputError, match="no cost for Step 'unheard'"):
        machines.env.run(machines.env.process(drive(steps(), machines)))


def test_a_write_lands_at_the_end_of_its_step_and_a_read_sees_the_start_of_its_own() -> None:
    machines, rows, seen = platform(), [], []

    def writer() -> Steps[None]:
        yield from write("save", 1, lambda: rows.append(machines.env.now), RetryConfig())

    def reader() -> Steps[None]:
        yield Step("work", 10)                       # until 6 s
        seen.append((yield from read("objects", lambda: list(rows), RetryConfig())))
        seen.append((yield from read("objects", lambda: list(rows), RetryConfig())))

    machines.env.process(drive(writer(), machines))
    machines.env.run(machines.env.process(drive(reader(), machines)))
    assert rows == [10.0]
    assert seen == [[], [10.0]]                      # read at 6 s, and at 10 s just after the commit


def test_the_database_serves_as_many_at_once_as_it_has_connections() -> None:
    def steps() -> Steps[None]:
        yield Step("objects")

    for connections, expected in ((1, 24.0), (2, 12.0), (3, 8.0)):
        machines, notes = platform(database_connections=connections), []
        done = [machines.env.process(drive(steps(), machines, notes.append)) for _ in range(6)]
        machines.env.run(simpy.AllOf(machines.env, done))
        assert machines.env.now == expected
        assert sum(n.waited_s for n in notes) == sum(4.0 * (i // connections) for i in range(6))


def test_a_timeout_is_thrown_into_the_pipeline_and_its_unfinished_write_never_happens() -> None:
    machines, landed, cleaned = platform(), [], []

    def steps() -> Steps[str]:
        try:
            yield Step("work", 2)
            yield from write("save", 1, lambda: landed.append(1), RetryConfig())
        except VisitTimeout:
            cleaned.append(machines.env.now)
            return "too late"
        return "in time"

    visit = machines.env.process(drive(steps(), machines))

    def alarm() -> simpy.events.ProcessGenerator:
        yield machines.env.timeout(7.0)
        visit.interrupt(VisitTimeout("7 s"))

    machines.env.process(alarm())
    assert machines.env.run(visit) == "too late"
    assert (landed, cleaned) == ([], [7.0])
    assert machines.slots["database"].count == 0     # the slot was let go


def test_a_kill_closes_the_pipeline() -> None:
    machines, closed = platform(), []

    def steps() -> Steps[None]:
        try:
            yield Step("work", 100)
        finally:
            closed.append(True)

    def visit() -> simpy.events.ProcessGenerator:
        try:
            yield from drive(steps(), machines)
        except simpy.Interrupt as interrupt:
            return interrupt.cause

    process = machines.env.process(visit())

    def kill() -> simpy.events.ProcessGenerator:
        yield machines.env.timeout(1.0)
        process.interrupt("pod evicted")

    machines.env.process(kill())
    assert machines.env.run(process) == "pod evicted"
    assert closed == [True]


def test_the_pause_before_a_retry_needs_no_cost() -> None:
    answers = iter([RetriableError("busy"), None])

    def call() -> int:
        if (error := next(answers)) is not None:
            raise error
        return 1

    machines, notes = platform(), []
    machines.env.run(machines.env.process(drive(read("objects", call, RetryConfig(delay_s=30.0)), machines,
                                                notes.append)))
    assert [(n.step.name, n.duration_s) for n in notes] == [("retry.objects", 30.0), ("objects", 4.0)]


def test_the_work_of_a_write_is_counted_to_the_write() -> None:
    def busy() -> None:
        math.factorial(60_000)

    def steps() -> Steps[None]:
        yield Step("work", 1)
        yield from write("save", 1, busy, RetryConfig())

    machines, notes = platform(), []
    machines.env.run(machines.env.process(drive(steps(), machines, notes.append)))
    by_name: dict[str, Timed] = {n.step.name: n for n in notes}
    assert by_name["save"].cpu_s > 10 * by_name["work"].cpu_s


def test_finished_steps_are_replayed_as_one_wait_with_their_breakdown() -> None:
    machines, notes = platform(), []
    machines.env.run(machines.env.process(replay([(Step("work", 2), 0.1), (Step("work", 6), 0.2)], machines,
                                                 notes.append)))
    assert machines.env.now == 2.0 + 4.0
    assert [(n.start_s, n.duration_s, n.cpu_s) for n in notes] == [(0.0, 2.0, 0.1), (2.0, 4.0, 0.2)]


def test_the_clock_counts_from_the_origin_in_days() -> None:
    machines = platform()
    machines.env.run(machines.until(60000.25))
    assert machines.env.now == pytest.approx(21600.0, abs=1e-3)
    assert machines.clock() == pytest.approx(60000.25, abs=1e-9)
