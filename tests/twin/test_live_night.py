"""Live detectors among counted ones: the real halves of the pipeline on the platform's clock."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from pipeline.errors import InputError
from reports.store import Store
from twin.counts_night import run_once
from twin.live_night import Place, run_live
from twin.platform_config import FaultConfig
from twin.scenario import Scenario, read_scenario

SCENARIOS = Path("scenarios")
LIVE = ["fidelities.pixels=[]", "fidelities.catalogue=[0, 1, 2]", "counts.detectors=5", "counts.alerts_per_visit=40.0",
        "simulation.camera.ny=400", "simulation.camera.nx=400", "simulation.cadence.blocks=['rr', 'rr']",
        "platform.costs='constant.toml'", "platform.pods.cold_s=0.0", "simulation.sky.transients.per_field=40.0"]


def scenario(*overrides: str, fault: FaultConfig | None = None) -> Scenario:
    found = read_scenario(SCENARIOS / "mixed_small.toml", [*LIVE, *overrides])
    return msgspec.structs.replace(found, faults=() if fault is None else (fault,))


def place(folder: Path) -> Place:
    return Place(folder, "memory:", "memory:")


def test_what_is_sent_is_what_the_database_has(tmp_path: Path) -> None:
    outcome = run_live(scenario(), place(tmp_path / "run"))
    store = Store(tmp_path / "run")
    passages = outcome.night.ran.passages
    live = passages[passages["detector"] < 3]
    assert live["n_alerts"].sum() > 100
    assert np.all(live["n_sent"] == live["n_alerts"])
    sent, saved = store.table("publication"), store.table("DiaSource")
    assert sorted(sent["diaSourceId"]) == sorted(saved["diaSourceId"])
    assert len(saved) == live["n_sent"].sum()
    by_row = {(int(v), int(d)): n for v, d, n in zip(live["visit"], live["detector"], live["n_alerts"], strict=True)}
    for key, n in by_row.items():
        assert np.sum((saved["visit"] == key[0]) & (saved["detector"] == key[1])) == n
    log = store.table("exposure_log")
    assert len(log) == len(live)
    assert np.all(log["status"] == b"done")
    assert passages["n_alerts"][passages["detector"] >= 3].sum() > 0      # counted ones have their numbers


FAULTS = {
    "none": None,
    "apdb down": FaultConfig(kind="service_down", service="apdb", duration_s=1e6, rate=0.5),
    "satellites down": FaultConfig(kind="service_down", service="satellites", duration_s=1e6, rate=0.5),
    "satellites slow": FaultConfig(kind="service_slow", service="satellites", duration_s=1e6, rate=0.5, factor=5.0),
    "registry down": FaultConfig(kind="service_down", service="registry", duration_s=1e6, rate=0.5),
    "lost answers": FaultConfig(kind="commits_then_fails", duration_s=1e6, rate=0.5),
    "kafka down": FaultConfig(kind="kafka_down", duration_s=1e6, rate=0.5),
    "killed": FaultConfig(kind="worker_killed", duration_s=1e6, rate=0.5, delay_s=52.0),
    "hung": FaultConfig(kind="worker_hung", duration_s=1e6, rate=0.5, detectors=2),
    "no template": FaultConfig(kind="template_missing", duration_s=1e6, rate=0.5),
    "no references": FaultConfig(kind="references_missing", duration_s=1e6, rate=0.5),
    "never an image": FaultConfig(kind="image_missing", duration_s=1e6, rate=0.5),
    "twice": FaultConfig(kind="next_visit_duplicated", duration_s=1e6, rate=0.5),
    "never taken": FaultConfig(kind="next_visit_extra", duration_s=1e6, rate=0.5),
    "never announced": FaultConfig(kind="next_visit_lost", duration_s=1e6, rate=0.5),
}


@pytest.mark.parametrize(("name", "order"), [
    *((name, "outbox") for name in FAULTS),
    *((name, "write_first") for name in ("none", "apdb down", "lost answers", "kafka down", "killed"))])
def test_a_live_night_goes_as_its_numbers_do(name: str, order: str, tmp_path: Path) -> None:
    """The same night again as numbers, under the same trouble: every time, count and reason is the same."""
    wanted = scenario(f"platform.publication.order='{order}'", fault=FAULTS[name])
    live = run_live(wanted, place(tmp_path / "run")).night
    again = run_once(wanted, live.made)
    ours, numbers = live.ran.passages, again.passages
    for column in ("reason", "n_sent", "n_sent_twice", "n_alerts", "attempts"):
        assert np.array_equal(ours[column], numbers[column]), column
    for column in ("taken_s", "preloaded_s", "measured_s", "reloaded_s", "saved_s", "delivered_s", "freed_s"):
        assert np.allclose(ours[column], numbers[column], atol=1e-5, equal_nan=True), column
    assert live.ran.counters == again.counters
    troubled = {"none", "satellites slow", "never taken"}
    clean = name in troubled or (order == "outbox" and name in ("kafka down", "lost answers")) or name == "twice"
    assert bool(np.all(ours["reason"] == b"")) is clean
    saved = Store(tmp_path / "run").table("DiaSource")
    landed = ours[(ours["detector"] < 3) & np.isin(ours["reason"], [b"", b"committed, not sent", b"kafka"])]
    assert len(saved) == landed["n_alerts"].sum()


def test_a_worker_that_dies_with_its_message_changes_nothing_when_it_comes_again(tmp_path: Path) -> None:
    fault = FaultConfig(kind="worker_killed", duration_s=1e6, rate=0.5, delay_s=52.0)
    last = scenario("platform.front.acknowledge='last'", fault=fault)
    run_live(last, place(tmp_path / "killed"))
    outcome = run_live(scenario(), place(tmp_path / "calm"))
    assert outcome.night.ran.counters["redelivered"] == 0
    tables = [Store(tmp_path / name).table("DiaSource") for name in ("calm", "killed")]
    ids = [np.sort(table["diaSourceId"]) for table in tables]
    assert len(ids[0])
    assert np.array_equal(ids[0], ids[1])
    truths = [Store(tmp_path / name).table("truth") for name in ("calm", "killed")]
    assert len(truths[0]) == len(truths[1])            # of a detector-visit that was taken twice, once


def test_a_rendered_detector_stands_among_drawn_and_counted_ones(tmp_path: Path) -> None:
    small = read_scenario(SCENARIOS / "mixed_small.toml", [
        "simulation.camera.ny=400", "simulation.camera.nx=400", "counts.detectors=12", "simulation.cadence.pairs=1",
        "simulation.cadence.history_per_band=3", "simulation.cadence.blocks=['rr']"])
    outcome = run_live(small, place(tmp_path / "run"))
    passages, store = outcome.night.ran.passages, Store(tmp_path / "run")
    log = store.table("exposure_log")
    kinds = dict(zip(log["detector"].tolist(), log["fidelity"].tolist(), strict=True))
    assert kinds == {4: b"pixels"} | dict.fromkeys([0, 1, 2, 3, 5, 6, 7, 8], b"catalogue")
    steps = store.table("step")
    rendered = steps[steps["detector"] == 4]
    assert {b"subtract", b"detect", b"measure", b"save"} <= set(rendered["name"].tolist())
    assert np.all(np.isfinite(rendered["cpu_s"]))
    assert np.all(passages["reason"][passages["detector"] >= 9] == b"")
    facts = store.facts()
    assert facts["fidelity"] == "pixels, catalogue, counts"
    assert facts["detectors_counts"] == "3"


def test_one_process_and_two_send_the_same_bytes(tmp_path: Path) -> None:
    small = read_scenario(SCENARIOS / "mixed_small.toml", [
        "simulation.camera.ny=400", "simulation.camera.nx=400", "counts.detectors=6", "simulation.cadence.pairs=1",
        "simulation.cadence.history_per_band=3", "simulation.cadence.blocks=['rr']", "fidelities.catalogue=[1, 2]"])
    for processes in (1, 2):
        run_live(small, Place(tmp_path / f"{processes}"), processes=processes)
    packets = [sorted((file.name, file.read_bytes()) for file in (tmp_path / run / "alerts").rglob("*.avro"))
               for run in ("1", "2")]
    assert len(packets[0]) >= 1
    assert packets[0] == packets[1]
    passages = [Store(tmp_path / run).table("passage") for run in ("1", "2")]
    assert passages[0].tobytes() == passages[1].tobytes()


def test_a_survey_night_runs_on_the_platform_and_goes_as_its_numbers_do(tmp_path: Path) -> None:
    wanted = read_scenario(SCENARIOS / "catalogue_night.toml", [
        "counts.visits=12", "counts.detectors=9", "wide.alerts_per_visit=90.0", "platform.publication.order='outbox'"])
    live = run_live(wanted, Place(tmp_path / "run")).night
    ours, numbers = live.ran.passages, run_once(wanted, live.made).passages
    assert len(ours) == 108
    assert abs(ours["n_alerts"].sum() / 12 - 90.0) < 5 * np.sqrt(90.0 / 12) + 18.0      # the sky's own scatter
    assert np.allclose(ours["delivered_s"], numbers["delivered_s"], atol=1e-5)
    store = Store(tmp_path / "run")
    assert len(store.table("DiaSource")) == ours["n_sent"].sum() == len(store.table("publication"))
    assert np.all(store.table("exposure_log")["fidelity"] == b"catalogue")
    assert not (tmp_path / "run" / "alerts").exists()
    with pytest.raises(InputError, match="there are no packets to send"):
        run_live(wanted, Place(tmp_path / "other", sink="file:somewhere"))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("overrides", "message"), [
    (["fidelities.catalogue=[0, 7]"], "counts.detectors has 0 to 4, got 7"),
    (["fidelities.catalogue=[0, 1]", "fidelities.pixels=[1]"], "a detector has one fidelity, 1 is named twice"),
    (["fidelities.pixels=[3]", "counts.cadence='regular'"], "only a field of the simulation can be rendered"),
    (["fidelity='pixels'"], "fidelities need fidelity"),
    (["faults=[{kind='burst', factor=4.0}]"], "a burst multiplies numbers"),
])
def test_fidelities_that_cannot_be_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        scenario(*overrides)
