"""Every scenario of scenarios/faults ends in exactly what it says; with no fault, or twice as much, it does not."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from reports.delays import is_late
from tests.twin.test_prompt_processing import plan
from twin.counts_night import Night, failures, missed, simulate
from twin.platform_config import FaultConfig, FaultKind
from twin.scenario import Scenario, read_scenario
from twin.troubles import lay

SCENARIOS = Path(__file__).parents[2] / "scenarios"
FAULTS = sorted((SCENARIOS / "faults").glob("*.toml"))


def at_rate(scenario: Scenario, factor: float) -> Scenario:
    """The scenario with its faults' rates multiplied."""
    return structs.replace(scenario, faults=tuple(structs.replace(fault, rate=fault.rate * factor)
                                                  for fault in scenario.faults))


@pytest.mark.parametrize("path", FAULTS, ids=lambda path: path.stem)
def test_a_fault_ends_in_what_its_scenario_says(path: Path) -> None:
    scenario = read_scenario(path)
    assert scenario.faults
    assert all(0 < fault.rate <= 0.5 for fault in scenario.faults)
    assert scenario.expect.why
    night = simulate(scenario)
    assert missed(scenario.expect, night) == []
    assert_explained(night)
    for factor in (0.0, 2.0):
        assert missed(scenario.expect, simulate(at_rate(scenario, factor))), f"{factor} times the rate passes too"


def assert_explained(night: Night) -> None:
    """Every late or lost alert has a cause, no other has one, and the cause is not that nothing took longer."""
    p = night.ran.passages
    late = is_late(p) & (p["n_alerts"] > 0)
    assert ((p["cause"] != b"") == late).all()
    sent = late & (p["reason"] == b"")
    assert (p["excess_s"][sent] > 1.0).all()
    assert (p["cause"][late & ~sent] == p["reason"][late & ~sent]).all()


@pytest.mark.parametrize(("name", "cause"), [
    ("next_visit_late", b"nextVisit"), ("image_late", b"image"), ("notification_lost", b"image"),
    ("worker_killed_redelivered", b"another try"), ("apdb_slow", b"apdb"), ("kafka_down_outbox", b"kafka"),
    ("network_cut", b"nextVisit"), ("kafka_throttled", b"egress")])
def test_the_cause_is_the_one_that_was_planted(name: str, cause: bytes) -> None:
    night = simulate(read_scenario(SCENARIOS / "faults" / f"{name}.toml"))
    p = night.ran.passages
    found = set(p["cause"][is_late(p)].tolist())
    assert found <= {cause, cause + b" queue"}


def test_without_a_fault_the_small_night_is_on_time() -> None:
    scenario = read_scenario(SCENARIOS / "platform_small.toml")
    night = simulate(scenario)
    assert missed(scenario.expect, night) == []
    assert night.requirement.met
    assert night.requirement.percentiles_s["p50"] == pytest.approx(37.6, abs=0.1)
    assert not night.ran.passages["cause"].any()


def test_too_few_workers_are_named_with_what_holds_them() -> None:
    scenario = read_scenario(SCENARIOS / "platform_small.toml", ["platform.workers=10", "platform.pods.smallest=10"])
    night = simulate(scenario)
    p = night.ran.passages
    assert not night.requirement.met
    assert (p["n_sent"] == p["n_alerts"]).all()          # late, not lost
    late = p["cause"][is_late(p)]
    assert (np.char.startswith(late, b"workers")).mean() > 0.95


def test_a_fault_touches_an_even_share_of_the_visits_in_its_span() -> None:
    night = plan(10.0 * np.arange(100))
    for rate in (0.0, 0.1, 0.25, 1 / 3, 0.5, 1.0):
        touched = lay([FaultConfig(kind="image_late", start_s=200.0, duration_s=600.0, rate=rate)], night)[0].touched
        assert touched.sum() == int(60 * rate + 1e-9)
        assert not touched[:20].any()
        assert not touched[80:].any()


FAULT = st.builds(
    FaultConfig, kind=st.sampled_from(get_args(FaultKind)), start_s=st.floats(0.0, 300.0),
    duration_s=st.floats(10.0, 600.0), rate=st.floats(0.0, 1.0), detectors=st.integers(0, 3),
    delay_s=st.sampled_from([0.0, 5.0, 31.0, 60.0, 100.0, 5000.0]), factor=st.sampled_from([0.5, 2.0, 40.0, 300.0]),
    service=st.sampled_from(["registry", "storage", "apdb", "ephemeris", "satellites", "export"]))


@settings(max_examples=40, deadline=None)
@example(faults=[FaultConfig(kind="out_of_memory", duration_s=10.0)], workers=3, servers=0, order="outbox",
         acknowledge="last", retries=0, visits=0, seed=0)
@given(faults=st.lists(FAULT, min_size=1, max_size=4), workers=st.integers(3, 40), servers=st.integers(0, 3),
       order=st.sampled_from(["outbox", "write_first"]), acknowledge=st.sampled_from(["first", "last"]),
       retries=st.integers(0, 2), visits=st.integers(0, 3), seed=st.integers(0, 100))
def test_whatever_goes_wrong_nothing_vanishes(faults: list[FaultConfig], workers: int, servers: int, order: str,
                                              acknowledge: str, retries: int, visits: int, seed: int) -> None:
    scenario = read_scenario(SCENARIOS / "platform_small.toml", [
        "counts.visits=8", "counts.detectors=4", "counts.alerts_per_visit=200", f"platform.workers={workers}",
        "platform.pods.smallest=2", f"platform.pods.visits={visits}", "platform.pods.startup_s=7",
        f'platform.publication.order="{order}"', f'platform.front.acknowledge="{acknowledge}"',
        f"platform.front.retries={retries}", f"platform.services.apdb.servers={servers}"], seed)
    night = simulate(structs.replace(scenario, faults=tuple(faults)))     # raises where it does not balance
    p = night.ran.passages
    failed = sum(failures(p).values())
    assert int(p["n_sent"].sum()) + failed == int(p["n_alerts"].sum())
    assert p["n_sent_twice"].sum() == 0
    assert ((p["cause"] != b"") == (is_late(p) & (p["n_alerts"] > 0))).all()
    # A detector-visit that kills whoever takes it is claimed every minute until its message has expired.
    poison = acknowledge == "last" and any(fault.kind == "out_of_memory" for fault in faults)
    assert (p["attempts"] <= 2 * (62 if poison else retries + 2)).all()
