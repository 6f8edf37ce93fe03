"""The platform at counts fidelity against the exact results of queueing theory, and its own laws."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from schemas.measures import CALL_STEPS, WORK_STEPS
from twin.balance import Unbalanced, broken_laws, check
from twin.counts import NUMBERS, Numbers
from twin.counts_night import made
from twin.plan import Plan, strip
from twin.platform_config import (
    FaultConfig,
    FrontConfig,
    PlatformConfig,
    PodsConfig,
    PublicationConfig,
    ServiceConfig,
    ServicesConfig,
)
from twin.prompt_processing import PromptProcessing, Ran
from twin.scenario import read_scenario
from twin.troubles import lay

FREE = ServicesConfig(**{name: ServiceConfig(servers=0) for name in ServicesConfig.__struct_fields__})
# Nothing but work: no exposure, no lead, no transfer, no notice; pods that are always there.
BARE: dict[str, Any] = {
    "lead_s": 0.0, "readout_s": 0.0, "transfer_s": 0.0, "timeout_s": 1e9, "services": FREE,
    "front": FrontConfig(fan_out_s=0.0, notification_s=0.0, image_mb=1e-9, expiry_s=1e12, image_timeout_s=1e9),
    "publication": PublicationConfig(egress_gbps=1e9)}


def standing(workers: int) -> PodsConfig:
    return PodsConfig(smallest=workers, visits=0, idle_s=1e12, startup_s=0.0, cold_s=0.0, poll_s=1e6)


def plan(opens: np.ndarray) -> Plan:
    opens = np.asarray(opens, float) + 1.0
    number = np.arange(1, len(opens) + 1)
    return Plan(61218.0, number, number, opens, opens, strip(number))


def numbers(n: int, detectors: int = 1, **seconds: np.ndarray | float) -> Numbers:
    """One alert per detector-visit; Steps that are named take their seconds, others none."""
    counts = np.zeros(n * detectors, NUMBERS)
    counts["n_detected"] = counts["n_alerts"] = counts["bytes"] = 1
    work = np.zeros((n * detectors, len(WORK_STEPS)), np.float32)
    for name, values in seconds.items():
        work[:, WORK_STEPS.index(name)] = values
    return Numbers(counts, work, np.ones_like(work), np.zeros(n * detectors), np.zeros(n, bool))


def poisson(n: int, rate: float, seed: int) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, n))


def run(config: PlatformConfig, opens: np.ndarray, made: Numbers, **options: Any) -> Ran:
    ran = PromptProcessing(config, plan(opens), made, **options).run()
    check(ran)
    return ran


def erlang_c(load: float, servers: int) -> float:
    """Probability that a customer of M/M/c waits, for `load` = rate x mean service."""
    below = sum(load**k / math.factorial(k) for k in range(servers))
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (below + last)


def deterministic_queue(rate: float, service: float, servers: int) -> float:
    """Mean number waiting in M/D/c, exactly: the number there a service time later is Poisson plus those left over."""
    size = 400
    arrivals = np.exp([k * math.log(rate * service) - rate * service - math.lgamma(k + 1) for k in range(size)])
    state = np.zeros(size)
    state[0] = 1.0
    for _ in range(4000):
        left = np.concatenate([[state[:servers + 1].sum()], state[servers + 1:], np.zeros(servers)])[:size]
        after = np.convolve(left, arrivals)[:size]
        if np.abs(after - state).max() < 1e-13:
            break
        state = after
    return float(np.sum(np.maximum(np.arange(size) - servers, 0) * state))


def mean_and_error(values: np.ndarray, batches: int = 20) -> tuple[float, float]:
    """Mean of a stationary series and its standard error by batch means, the first tenth left out."""
    kept = values[len(values) // 10:]
    means = np.array([batch.mean() for batch in np.array_split(kept, batches)])
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(batches))


def waits(ran: Ran) -> np.ndarray:
    return np.asarray(ran.passages["taken_s"] - ran.passages["published_s"])


RATE, SERVICE, SERVERS, CUSTOMERS = 1.0, 4.0, 5, 12_000


def test_workers_are_an_m_m_c_queue() -> None:
    service = np.random.default_rng(2).exponential(SERVICE, CUSTOMERS)
    ran = run(PlatformConfig(workers=SERVERS, pods=standing(SERVERS), **BARE), poisson(CUSTOMERS, RATE, 1),
              numbers(CUSTOMERS, measure=service))
    wait, error = mean_and_error(waits(ran))
    exact = erlang_c(RATE * SERVICE, SERVERS) / (SERVERS / SERVICE - RATE)
    assert error < 0.2 * exact
    assert abs(wait - exact) < 4 * error
    chance, error = mean_and_error((waits(ran) > 1e-9).astype(float))
    assert abs(chance - erlang_c(RATE * SERVICE, SERVERS)) < 4 * error
    assert abs(chance - erlang_c(RATE * SERVICE, SERVERS + 1)) > 4 * error      # one worker more is told apart


def test_workers_are_an_m_d_c_queue() -> None:
    ran = run(PlatformConfig(workers=SERVERS, pods=standing(SERVERS), **BARE), poisson(CUSTOMERS, RATE, 3),
              numbers(CUSTOMERS, measure=SERVICE))
    wait, error = mean_and_error(waits(ran))
    exact = deterministic_queue(RATE, SERVICE, SERVERS) / RATE
    assert deterministic_queue(0.8, 1.0, 1) == pytest.approx(0.8**2 / (2 * 0.2), rel=1e-6)     # Pollaczek-Khinchine
    assert abs(wait - exact) < 4 * error
    assert abs(wait - erlang_c(RATE * SERVICE, SERVERS) / (SERVERS / SERVICE - RATE)) > 4 * error   # not M/M/c


@pytest.mark.parametrize(("service", "step"), [("satellites", "satellites"), ("export", "export")])
def test_a_shared_service_is_an_m_m_c_queue(service: str, step: str) -> None:
    seconds = np.random.default_rng(5).exponential(SERVICE, CUSTOMERS)
    services = structs.replace(FREE, **{service: ServiceConfig(servers=SERVERS, timeout_s=1e9)})
    ran = run(PlatformConfig(**{**BARE, "services": services}), poisson(CUSTOMERS, RATE, 4),
              numbers(CUSTOMERS, **{step: seconds}), unlimited=True)
    calls = ran.calls[ran.calls["step"] == CALL_STEPS.index(step)]
    assert len(calls) == CUSTOMERS
    wait, error = mean_and_error(calls["start_s"] - calls["asked_s"])
    assert abs(wait - erlang_c(RATE * SERVICE, SERVERS) / (SERVERS / SERVICE - RATE)) < 4 * error


def test_unlimited_workers_are_an_m_g_infinity_queue() -> None:
    service = np.random.default_rng(7).lognormal(1.0, 0.8, CUSTOMERS)
    mean = math.exp(1.0 + 0.8**2 / 2)
    ran = run(PlatformConfig(**BARE), poisson(CUSTOMERS, 3.0, 6), numbers(CUSTOMERS, measure=service), unlimited=True)
    assert waits(ran).max() == 0.0
    p = ran.passages
    at = np.arange(60.0, p["taken_s"].max(), 15.0)     # farther apart than most services last
    busy = np.searchsorted(np.sort(p["taken_s"]), at) - np.searchsorted(np.sort(p["freed_s"]), at)
    assert abs(busy.mean() - 3.0 * mean) < 5 * np.sqrt(3.0 * mean / len(at))
    dispersion = busy.var(ddof=1) / busy.mean()        # of a Poisson number: 1
    assert abs(dispersion - 1) < 5 * np.sqrt(2 / len(at))


@settings(max_examples=25, deadline=None)
@given(gap=st.floats(0.01, 50.0), detectors=st.integers(1, 5), work=st.floats(0.0, 200.0), lead=st.floats(0.0, 60.0),
       seed=st.integers(0, 10_000))
def test_with_enough_workers_nobody_waits(gap: float, detectors: int, work: float, lead: float, seed: int) -> None:
    n = 12
    opens = 100.0 + poisson(n, 1 / gap, seed)
    seconds = np.random.default_rng(seed).uniform(0, 1, n * detectors) * work
    config = PlatformConfig(**{**BARE, "lead_s": lead}, workers=n * detectors, pods=standing(n * detectors))
    ran = run(config, opens, numbers(n, detectors, measure=seconds))
    assert waits(ran).max() == 0.0
    assert (ran.passages["n_sent"] == 1).all()
    few = structs.replace(config, workers=1, pods=standing(1))
    one = run(few, opens, numbers(n, detectors, measure=seconds + 0.01))
    assert detectors == 1 or waits(one).max() > 0.0     # and with one worker somebody does


def test_pods_come_when_they_are_polled_for_and_go_when_they_were_idle() -> None:
    pods = PodsConfig(smallest=3, poll_s=2.0, startup_s=20.0, startup_spread=0.0, cold_s=0.0, visits=10, idle_s=50.0)
    config = PlatformConfig(**BARE, workers=40, pods=pods)
    ran = run(config, np.array([30.5, 400.0]), numbers(2, 8, measure=5.0))
    first, second = ran.passages[:8], ran.passages[8:]
    assert np.sort(waits(ran)[:8]).tolist() == pytest.approx([0, 0, 0, 5, 5, 5, 10, 10])   # before the pods are up
    created = ran.pods["created_s"]
    assert (created[:3] == 0).all()
    assert (created == 32.0).sum() == 5                  # the next poll, for the five that wait
    assert (created == 34.0).sum() == 5                  # eager: and again while they start
    assert first["pod"].max() == 2
    assert (ran.pods["ended_s"][3:13] < 400).any()       # idle ones went
    assert len(second)


def test_a_worker_restarts_after_so_many_visits() -> None:
    pods = PodsConfig(smallest=1, visits=4, startup_s=0.0, cold_s=0.0, idle_s=1e9, poll_s=1.0)
    ran = run(PlatformConfig(**BARE, workers=1, pods=pods), 10.0 * np.arange(10), numbers(10, measure=1.0))
    assert ran.pods["visits"][:2].tolist() == [4, 4]
    assert ran.passages["pod"].tolist() == [0] * 4 + [1] * 4 + [2] * 2


def test_calibrations_are_warm_for_the_last_detectors_alone() -> None:
    config = PlatformConfig(**BARE, workers=1, pods=structs.replace(standing(1), cache=2))
    ran = run(config, 100.0 * np.arange(3), numbers(3, 2, calibs=1.0, measure=1.0))
    assert ran.passages["warm"].tolist() == [False, False, True, True, True, True]
    small = structs.replace(config, pods=structs.replace(standing(1), cache=1))
    cold = run(small, 100.0 * np.arange(3), numbers(3, 2, calibs=1.0, measure=1.0))
    assert not cold.passages["warm"].any()


def test_more_detections_than_memory_kill_the_worker() -> None:
    made = numbers(2, measure=1.0)
    made.counts["n_detected"][1] = made.counts["n_alerts"][1] = 20_000
    ran = run(PlatformConfig(**BARE, workers=2, pods=standing(2)), np.array([0.0, 10.0]), made)
    assert ran.passages["reason"].tolist() == [b"", b"out of memory"]


def test_a_caller_that_gave_up_is_never_served() -> None:
    services = structs.replace(FREE, satellites=ServiceConfig(servers=1, timeout_s=3.5, tries=1))
    ran = run(PlatformConfig(**{**BARE, "services": services}), np.array([0.0, 0.4, 0.4, 4.0]),
              numbers(4, satellites=3.0), unlimited=True)
    assert ran.passages["reason"].tolist() == [b"", b"satellites", b"satellites", b""]
    asked = ran.calls[ran.calls["step"] == CALL_STEPS.index("satellites")]
    assert asked["start_s"].tolist() == pytest.approx([1.0, 4.0, 4.9, 5.0])    # the second is cut, the third
    assert asked["end_s"].tolist() == pytest.approx([4.0, 4.9, 4.9, 8.0])    # never begun


@pytest.fixture(scope="module")
def quiet() -> Ran:
    return run(PlatformConfig(**BARE, workers=2, pods=standing(2)), poisson(60, 1.0, 8), numbers(60, 2, measure=1.0))


@pytest.mark.parametrize(("change", "law"), [
    ({"n_alerts": 3}, "neither filtered nor alerts"), ({"n_sent": 0}, "neither sent nor failed"),
    ({"reason": b"bad luck"}, "reasons that nobody knows: bad luck"),
    ({"delivered_s": 1e6}, "not the sum of its parts")])
def test_books_that_do_not_balance_are_refused(quiet: Ran, change: dict[str, Any], law: str) -> None:
    assert broken_laws(quiet) == []
    rows = quiet.passages.copy()
    for name, value in change.items():
        rows[name][7] = value
    with pytest.raises(Unbalanced, match=law):
        check(replace(quiet, passages=rows))


def test_littles_law_is_checked_for_the_stream_and_the_pods(quiet: Ran) -> None:
    assert quiet.queue_area > 1.0
    with pytest.raises(Unbalanced, match="Little's law fails for messages in the stream"):
        check(replace(quiet, queue_waits=quiet.queue_waits - 0.5))
    with pytest.raises(Unbalanced, match="Little's law fails for busy workers"):
        check(replace(quiet, busy_spans=quiet.busy_spans + 0.5))
    with pytest.raises(Unbalanced, match=r"alerts sent, .* carried to the brokers"):
        check(replace(quiet, calls=quiet.calls[:-1] if quiet.calls["step"][-1] == CALL_STEPS.index("egress")
                      else quiet.calls[quiet.calls["row"] != 5]))


def test_next_visit_comes_as_long_before_the_exposure_as_it_has_to() -> None:
    config = PlatformConfig(**{**BARE, "lead_s": 20.0}, workers=4, pods=standing(4))
    ran = run(config, 100.0 + 40.0 * np.arange(3), numbers(3, 2, measure=1.0))
    rows = ran.next_visits
    assert (rows["startTime_s"] - rows["private_sndStamp_s"]).tolist() == pytest.approx([20.0] * 3)
    assert ran.passages["published_s"].tolist() == np.repeat(rows["published_s"], 2).tolist()
    assert rows["visit"].tolist() == [1, 2, 3]
    assert rows["duration"].tolist() == [35.0] * 3
    assert {len(set(rows[name].tolist())) for name in ("groupId", "ra", "scriptSalIndex")} == {3}


@pytest.mark.parametrize(("turned", "reason"), [(0.9, b""), (1.1, b"mismatch"), (359.5, b""), (181.0, b"mismatch")])
def test_an_exposure_turned_by_more_than_a_degree_is_dropped(turned: float, reason: bytes) -> None:
    night = plan(100.0 * np.arange(2))
    trouble = lay([FaultConfig(kind="mismatch", factor=turned)], night)
    ran = PromptProcessing(PlatformConfig(**BARE, workers=2, pods=standing(2)), night, numbers(2, measure=1.0),
                           trouble).run()
    check(ran)
    assert ran.passages["reason"].tolist() == [reason] * 2


SMALL = Path(__file__).parents[2] / "scenarios" / "platform_small.toml"


def small(*overrides: str, **fault: Any) -> tuple[Plan, Ran]:
    """Two visits of the small platform, with a fault of one kind."""
    scenario = read_scenario(SMALL, ["counts.visits=2", *overrides])
    night = made(structs.replace(scenario, faults=(FaultConfig(**fault),) if fault else ()))
    ran = PromptProcessing(scenario.platform, night.plan, night.numbers, night.troubles).run()
    check(ran)
    return night.plan, ran


def test_a_worker_waits_for_both_snaps_and_takes_the_signature_off_each() -> None:
    plain, ran = small("platform.front.nimages=2")
    one, single = small()
    assert plain.closes_s - plain.opens_s == pytest.approx(30.0 + 3.07)       # the first one is read out in between
    assert one.closes_s - one.opens_s == pytest.approx(30.0)
    p, q = ran.passages, single.passages
    assert (p["seen_s"] - p["readout_end_s"]).max() == pytest.approx((q["seen_s"] - q["readout_end_s"]).max(), abs=0.01)
    assert p["delivered_s"] - p["readout_end_s"] == pytest.approx(q["delivered_s"] - q["readout_end_s"] + 2.0, abs=0.02)
    assert (ran.next_visits["nimages"] == 2).all()


@pytest.mark.parametrize(("overrides", "fault"), [
    (("platform.front.nimages=2",), {"kind": "snap_missing"}), (("platform.front.nimages=0",), {})])
def test_images_that_do_not_come_or_are_not_counted_are_waited_for_to_the_end(overrides: tuple[str, ...],
                                                                             fault: dict[str, Any]) -> None:
    _, ran = small(*overrides, **fault)
    p = ran.passages
    assert p["seen_s"] - p["preloaded_s"] == pytest.approx(2 * 35.0 + 120.0)
    assert (p["arrived_s"] < p["seen_s"]).all()
    assert (p["n_sent"] == p["n_alerts"]).all()


def test_an_image_more_than_announced_is_taken_by_nobody_unless_nobody_counts() -> None:
    _, counted = small(kind="image_extra")
    _, unknown = small("platform.front.nimages=0", kind="image_extra")
    assert (counted.counters["surplus"], unknown.counters["surplus"]) == (20, 0)


def test_a_visit_that_is_never_taken_preloads_and_holds_its_workers_to_the_end() -> None:
    _, real = small()
    _, ran = small(kind="next_visit_extra")
    assert ran.counters["in_vain"] == 20
    ghosts = ran.calls[ran.calls["row"] < 0]
    assert len(ghosts) == 20 * 6                          # registry, templates, calibrations, objects, history, orbits
    assert ran.busy_area == pytest.approx(real.busy_area + 20 * (6.0 + 2 * 35.0 + 120.0))
    _, down = small(kind="next_visit_extra", detectors=1)
    assert len(down.calls[down.calls["row"] < 0]) == 20 * 6      # a ghost visit is of all detectors


def test_each_level_of_the_fallback_holds_its_worker_for_less() -> None:
    held = {}
    for kind, counter in (("template_missing", "single_frames"), ("references_missing", "isr_only")):
        _, ran = small(kind=kind)
        assert ran.counters[counter] == 20
        p = ran.passages
        held[kind] = float((p["freed_s"] - p["seen_s"]).max())
        assert (p["n_sent"] == 0).all()
    _, full = small()
    whole = float((full.passages["freed_s"] - full.passages["seen_s"]).max())
    assert held["references_missing"] == pytest.approx(2.0 + 4.0)             # signature, export
    assert held["template_missing"] == pytest.approx(2.0 + 8.0 + 4.0)         # and calibration
    assert whole > 30.0


@pytest.mark.parametrize(("retries", "duration_s", "sent", "attempts"), [
    (0, 50.0, 0, 1), (1, 50.0, 1, 2), (1, 5000.0, 0, 2), (3, 5000.0, 0, 4)])
def test_a_failure_that_changed_nothing_is_tried_again_as_often_as_is_said(retries: int, duration_s: float, sent: int,
                                                                           attempts: int) -> None:
    night = plan(np.array([10.0]))
    services = structs.replace(FREE, satellites=ServiceConfig(servers=0, tries=2, pause_s=30.0))
    front = structs.replace(BARE["front"], retries=retries)
    config = PlatformConfig(**{**BARE, "services": services, "front": front}, workers=1, pods=standing(1))
    trouble = lay([FaultConfig(kind="service_down", service="satellites", duration_s=duration_s)], night)
    ran = PromptProcessing(config, night, numbers(1, measure=1.0), trouble).run()
    check(ran)
    p = ran.passages
    assert (p["n_sent"].tolist(), p["attempts"].tolist()) == ([sent], [attempts])
    assert ran.counters["redelivered"] == attempts - 1


def test_a_save_is_never_tried_again_once_it_landed() -> None:
    night = plan(np.array([10.0]))
    config = PlatformConfig(**{**BARE, "front": structs.replace(BARE["front"], retries=3),
                               "publication": PublicationConfig(order="write_first")}, workers=1, pods=standing(1))
    ran = PromptProcessing(config, night, numbers(1, measure=1.0),
                           lay([FaultConfig(kind="commits_then_fails")], night)).run()
    check(ran)
    assert ran.passages["reason"].tolist() == [b"committed, not sent"]
    assert ran.counters["redelivered"] == 0
    assert ran.counters["unanswered"] == 1
