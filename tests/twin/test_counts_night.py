"""Nights at counts fidelity from the command: run folders, pages, sweeps, and checks against published figures."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from pipeline.errors import InputError
from reports.platform_page import circumstances, faults_of, render_platform
from reports.store import Store
from tests.twin.test_prompt_processing import BARE, numbers, run, standing
from twin.cli import main
from twin.counts_night import run_counts, simulate
from twin.platform_config import FaultConfig, PlatformConfig
from twin.prompt_processing import Ran
from twin.scenario import read_scenario
from twin.sweep import axes_of, point_of, price, sweep

SCENARIOS = Path(__file__).parents[2] / "scenarios"
SMALL = SCENARIOS / "platform_small.toml"
RUBIN = SCENARIOS / "rubin_2026.toml"
FEW = ["counts.visits=6", "counts.detectors=20", "counts.alerts_per_visit=1000"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A night of a few of Rubin's visits, in one process."""
    out = tmp_path_factory.mktemp("counts") / "run"
    run_counts(read_scenario(RUBIN, FEW), out, beside=SCENARIOS)
    return out


def test_one_process_and_two_make_the_same_night(folder: Path, tmp_path: Path) -> None:
    run_counts(read_scenario(RUBIN, FEW), tmp_path / "two", beside=SCENARIOS, processes=2)
    one, two = Store(folder), Store(tmp_path / "two")
    for name in ("passage", "call", "pod", "work", "reference"):
        first, second = one.table(name), two.table(name)
        assert len(first)
        assert first.tobytes() == second.tobytes(), name
    other = tmp_path / "other"
    run_counts(read_scenario(RUBIN, FEW, seed=2), other, beside=SCENARIOS)
    assert (Store(other).table("passage")["n_alerts"] != one.table("passage")["n_alerts"]).any()


def test_a_night_of_numbers_has_its_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.strip().endswith("report.html")
    page, found = (folder / "report.html").read_text(), json.loads((folder / "report.json").read_text())
    for text in ("Rubin 2026", "worker by worker", "Why alerts were late or lost", "itself: pixels",
                 "modelled: prompt_processing.toml", "share 30 %"):
        assert text in page
    assert str(SCENARIOS) not in page                     # a table by its name
    assert page.count("<figure") == page.count("<b>counts · modelled</b></figcaption>") == 5
    shown = json.loads(page.split('id="timeline-data">')[1].split("</script>")[0])
    assert (shown["n"], shown["detectors"], len(shown["visits"])) == (120, 20, 6)
    assert "://" not in page                              # nothing comes from elsewhere
    for name in ("delays", "visits", "load", "workers"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert found["fidelity"] == "counts"
    assert found["requirement"]["alerts"] == Store(folder).table("reference")["n_sent"].sum()
    assert sum(row["alerts"] for row in found["causes"]) == Store(folder).table("passage")["n_alerts"].sum()
    assert sum(row["mean_s"] for row in found["parts"]) == pytest.approx(
        found["requirement"]["percentiles_s"]["p50"], rel=0.1)


def test_the_page_of_a_troubled_night_tells_its_faults_in_order(tmp_path: Path) -> None:
    scenario = read_scenario(SMALL, ["counts.visits=6", "counts.detectors=2"])
    faults = [FaultConfig(kind="image_late", start_s=10.0 * k, duration_s=10.0, delay_s=1.0 + k) for k in range(11)]
    faults[3] = FaultConfig(kind="next_visit_extra", rate=0.5)
    faults[5] = FaultConfig(kind="service_slow", service="apdb", factor=3.0, detectors=1)
    run_counts(structs.replace(scenario, faults=tuple(faults)), tmp_path / "run")
    facts = Store(tmp_path / "run").facts()
    shown = faults_of(facts)
    assert [fault.name for fault in shown][2:6] == ["image late, 3 s", "next visit extra, 50 % of visits",
                                                    "image late, 5 s", "service slow (apdb), 1 detector, 3 times"]
    assert shown[10].name == "image late, 11 s"
    assert (shown[10].begin_s, shown[10].end_s) == (200.0, 210.0)      # the first shutter opens at 100 s
    page = render_platform(tmp_path / "run").read_text()
    assert page.index("image late, 3 s") < page.index("image late, 11 s")
    assert "messages whose worker found nothing to do" in page
    # Ghosts of three visits of two detectors preload for 6 s, one of them 3.6 s longer, and wait.
    wait = 3 * (2 * (6.0 + 2 * 35.0 + 120.0) + 2 * 1.8)
    held = Store(tmp_path / "run").table("passage")
    assert float(facts["busy_s"]) == pytest.approx((held["freed_s"] - held["taken_s"]).sum() + wait, abs=0.1)
    assert f"not drawn here</td><td>{wait / 3600:.1f}</td>" in page


@pytest.mark.parametrize(("facts", "said"), [
    ({}, "every figure here is modelled"),
    ({"detectors_pixels": "94", "detectors_counts": "171"}, "detectors 94: pixels; 171 others: counts"),
    ({"detectors_catalogue": " ".join(map(str, range(172)))}, r"detectors \(172 of them\): catalogue; 0 others")])
def test_the_page_says_of_what_fidelity_each_detector_is(facts: dict[str, str], said: str) -> None:
    assert re.search(said, dict(circumstances(facts))["fidelity"])


def test_the_command_says_whether_a_scenario_ended_as_expected(tmp_path: Path, capsys: pytest.CaptureFixture[str]
                                                               ) -> None:
    lost = str(SCENARIOS / "faults" / "kafka_down.toml")
    assert main(["run", lost, "--out", str(tmp_path / "a"), "--quiet", "--processes", "1"]) == 0
    assert "as the scenario expects" in capsys.readouterr().out
    assert main(["run", lost, "--out", str(tmp_path / "b"), "--quiet", "--processes", "1",
                 'platform.publication.order="outbox"']) == 1
    assert "not as expected: failed (kafka): 0, 5000 expected" in capsys.readouterr().out
    assert main(["run", lost, "--out", str(tmp_path / "c"), "--keep", "images"]) == 2
    assert "a night at counts fidelity has no sources; --keep does not go with it" in capsys.readouterr().err


def test_a_run_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "few.toml").write_text('machine = "none"\ndate = "never"\n[steps.registry]\na = 1.0\n')
    with pytest.raises(InputError, match=r"few\.toml has no cost for Step 'templates'"):
        run_counts(read_scenario(SMALL, ['platform.costs="few.toml"']), tmp_path / "run", beside=tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_sweep_finds_the_cheapest_platform(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(SMALL), "--over", "platform.workers=10:30:10", "--over", "platform.cost_scale=1,0.8",
                 "--out", str(tmp_path / "out"), "--quiet", "--processes", "1", "platform.pods.smallest=3",
                 "counts.visits=16"]) == 0
    with (tmp_path / "out" / "surface.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["platform.workers"], row["platform.cost_scale"]) for row in rows] == [
        (w, s) for w in ("10", "20", "30") for s in ("1", "0.8")]
    met = [row for row in rows if row["met"] == "True"]
    least = min(met, key=lambda row: (float(row["price"]), float(row["p98_s"])))
    said = f"platform.workers = {least['platform.workers']}, platform.cost_scale = {least['platform.cost_scale']}"
    assert f"the cheapest that meets the requirement: {said}" in capsys.readouterr().out
    page = (tmp_path / "out" / "sweep.html").read_text()
    assert f"The cheapest that meets the requirement: {said}" in page
    assert page.count('class="v v-pass"') == len(met)
    assert page.count('class="v v-fail"') == len(rows) - len(met)
    for text in ("night", "platform_small.toml, platform.pods.smallest=3", "round numbers", "What each figure is"):
        assert text in page
    assert page.count("<b>counts · modelled</b>") == 2
    for name in ("surface", "prices"):
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    waits = [float(row["longest_wait_s"]) for row in rows if row["platform.cost_scale"] == "1"]
    assert waits == sorted(waits, reverse=True)           # more workers, shorter waits


def test_points_of_a_sweep_do_not_depend_on_each_other() -> None:
    scenario = read_scenario(SMALL, ["counts.visits=8"])
    other = read_scenario(SMALL, ["counts.visits=8", "platform.workers=5", "platform.pods.smallest=5"])
    slower = read_scenario(SMALL, ["counts.visits=8", "platform.cost_scale=3"])
    first = point_of((), scenario, SCENARIOS)
    point_of((), other, SCENARIOS)
    changed = point_of((), slower, SCENARIOS)
    assert point_of((), scenario, SCENARIOS) == first
    assert changed.p98_s > first.p98_s + 60


@pytest.mark.parametrize(("over", "message"), [
    ([], "at least one --over"), (["platform.workers"], "expected section.key=value,value"),
    (["platform.workers=1:2"], "'1:2' is no range"), (["counts.visits=1:5000:1"], "5000 platforms are too many"),
    (["platform.worker=1,2"], "unknown field `worker`"),
    (["platform.workers=2"], r"platform\.pods\.smallest is 120, above platform\.workers = 2")])
def test_a_sweep_refuses_what_it_cannot_use(tmp_path: Path, over: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sweep(SMALL, over, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match='of fidelity "counts", this one is of "pixels"'):
        sweep(SCENARIOS / "first_light.toml", ["platform.workers=4"], tmp_path / "out")


def test_axes_and_prices() -> None:
    assert axes_of(["a.b=1,3:5:1"]) == [("a.b", ["1", "3", "4", "5"])]
    assert price(read_scenario(SMALL, ["platform.services.apdb.servers=10", "platform.services.apdb.price=4"])) == 160


# --- consistency checks: published figures that follow from others, no predictions ------------------------------------

GAP = 38.8                     # s between visits of 189 detectors (Prompt Processing's design load)


def held_for(seconds: float, cap: int, visits: int = 40) -> Ran:
    """A regular night whose workers are held for so long, in one piece."""
    config = PlatformConfig(**BARE, workers=cap, pods=standing(cap))
    return run(config, GAP * np.arange(visits), numbers(visits, 189, export=seconds))


def test_a_worker_held_for_110_s_makes_536_busy_ones() -> None:
    ran = held_for(110.0, 1700, 20)
    p = ran.passages
    inside = (5 * GAP, 15 * GAP)
    busy = np.clip(np.minimum(p["freed_s"], inside[1]) - np.maximum(p["taken_s"], inside[0]), 0, None).sum()
    assert busy / (inside[1] - inside[0]) == pytest.approx(536, abs=1)
    assert ran.busy_area == pytest.approx(20 * 189 * 110.0)


@pytest.mark.parametrize(("seconds", "cap", "stalls"), [
    (710.0, 1000, True), (710.0, 1500, True), (710.0, 3600, False), (110.0, 1000, False),
    (345.0, 1700, False), (360.0, 1700, True)])
def test_exports_of_ten_minutes_stall_a_platform_of_a_thousand_workers(seconds: float, cap: int, stalls: bool) -> None:
    p = held_for(seconds, cap).passages
    wait = (p["taken_s"] - p["published_s"]).reshape(40, 189).mean(axis=1)
    assert bool(wait[-1] > 5.0) is stalls
    if stalls and seconds > 700:
        assert wait[-1] > 300.0                           # and longer from visit to visit
        assert wait[39] > wait[30] > wait[21]


@pytest.mark.bench
def test_a_night_of_numbers_takes_a_minute_at_most_and_grows_with_its_visits() -> None:
    """Every queue and a dozen faults, 1000 visits of 189 detectors, the reference as well: 60 s of CPU, 2 GB."""
    import resource
    from time import process_time

    def seconds(visits: int) -> float:
        scenario = read_scenario(SCENARIOS / "rubin_troubled.toml", [f"counts.visits={visits}", "counts.detectors=189"])
        begun = process_time()
        night = simulate(scenario, SCENARIOS)
        assert len(night.ran.passages) == visits * 189
        assert 0 < night.ran.passages["n_sent"].sum() < night.requirement.alerts
        return process_time() - begun

    quarter, whole = seconds(250), seconds(1000)
    assert whole < 60.0
    assert whole / quarter < 4 * 1.4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2e6     # [kB]
