"""`alert-twin compare`: which side is better, in an exit code; what cannot be compared, in a line; and nothing left."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from pipeline.errors import InputError
from reports.outcome import of_run
from reports.paired import Rules, corrected
from reports.power import Power, corrected_level
from reports.store import Store
from reports.terms import Metric, Terms
from schemas.measures import FACT
from tests.reports.sides import outcome
from tests.twin import checkouts
from twin import compare
from twin.cli import _seeds, main
from twin.compare import (
    NO_REGRESSION,
    REGRESSION,
    UNDECIDED,
    Question,
    Seeds,
    Wanted,
    aligned,
    answered,
    report,
    terms_of,
    told,
)
from twin.night import run_night
from twin.recorder import ParquetRecorder
from twin.scenario import JudgeConfig, to_toml
from twin.sides import Code, Runs
from twin.timing import Timed, Tree
from twin.workspace import git

from .conftest import small

ROOT = Path(__file__).resolve().parents[2]
PRIMARY = '[judge]\nprimary = ["completeness_raw_transient"]\n'
EIGHT = tuple(range(1, 9))


@pytest.fixture(scope="session")
def fewer(tmp_path_factory: pytest.TempPathFactory, night: Path) -> Path:
    """The small night without its true sources below S/N 15; its false detections are the same."""
    folder = tmp_path_factory.mktemp("fewer") / "run"
    shutil.copytree(night, folder)
    lost = of_run(Store(night), 3).sources
    lost = lost["diaSourceId"][lost["alert"] & (lost["found_snr"] < 15)]
    for table in ("DiaSource", "publication"):
        rows = Store(night).table(table)
        shutil.rmtree(folder / "measures" / table)
        with ParquetRecorder(folder / "measures") as recorder:
            recorder.append(table, rows[~np.isin(rows["diaSourceId"], lost)])
    return folder


@pytest.fixture
def change(project: Path, fewer: Path) -> Path:
    """The stand-in for the project, whose last commit finds fewer sources."""
    checkouts.make(project, fewer, "second")
    return project


@pytest.fixture
def test_file(tmp_path: Path) -> Path:
    """A test that needs one metric decided."""
    path = tmp_path / "test.toml"
    path.write_text(PRIMARY)
    return path


def asked(base: str, head: str, scenario: Path, tmp_path: Path, *, seeds: Sequence[int] = EIGHT,
          **options: object) -> tuple[int, str, dict[str, object]]:
    """Exit code, what was printed, and the JSON."""
    shown: list[str] = []
    out = tmp_path / "out"
    question = Question(base, head, str(scenario), tuple(seeds), times=False, cache=tmp_path / "cache",
                        **options)  # type: ignore[arg-type]
    code = report(question, Wanted(out), shown.append)
    written = json.loads((out / "comparison.json").read_text())
    assert ElementTree.parse(out / "junit.xml").getroot().tag in ("testsuite", "testsuites")
    shutil.rmtree(out)
    return code, "\n".join(shown), written


def decided(base: str, head: str, scenario: Path, tmp_path: Path, *, seeds: Sequence[int] = EIGHT,
            **options: object) -> tuple[int, str, list[int]]:
    """Exit code, what would be printed, and the nights, without a page."""
    question = Question(base, head, str(scenario), tuple(seeds), times=False, cache=tmp_path / "cache",
                        **options)  # type: ignore[arg-type]
    with answered(question) as answer:
        return answer.exit_code, told(answer), list(answer.comparison.seeds)


# --- verdicts --------------------------------------------------------------------------------------------------------

def test_the_verdict_is_the_exit_code(change: Path, test_file: Path, tmp_path: Path) -> None:
    code, text, written = asked("HEAD~1", ".", test_file, tmp_path)
    assert code == REGRESSION
    assert "Worse:" in text
    assert "completeness_raw_transient" in text
    assert written["verdict"] == "worse"
    code, text, _ = decided(".", "HEAD~1", test_file, tmp_path)
    assert (code, "Better:" in text) == (NO_REGRESSION, True)
    code, text, _ = decided("HEAD~1", "rev:HEAD~1", test_file, tmp_path)
    assert (code, "No difference" in text) == (NO_REGRESSION, True)
    assert "worse" not in text
    code, text, _ = decided("HEAD~1", ".", test_file, tmp_path, seeds=[1])
    assert (code, "Undecided:" in text) == (UNDECIDED, True)


def test_nights_are_added_until_all_is_decided_or_the_budget_is_spent(change: Path, test_file: Path,
                                                                      tmp_path: Path) -> None:
    code, _, nights = decided("HEAD~1", ".", test_file, tmp_path, seeds=[4], until_decided=True, budget=30)
    assert code == REGRESSION
    assert 5 <= len(nights) < 30       # of two visits: nothing is said of fewer than ten
    assert nights == list(range(4, 4 + len(nights)))
    code, _, nights = decided("HEAD~1", ".", test_file, tmp_path, seeds=[4], until_decided=True, budget=3)
    assert (code, nights) == (UNDECIDED, [4, 5, 6])


def test_what_is_written_where(change: Path, test_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALERT_TWIN_CACHE", str(tmp_path / "cache"))
    words = ["compare", "HEAD~1", ".", "--scenario", str(test_file), "--seeds", "1-3", "5", "--no-times"]
    assert main([*words, "--junit", "j.xml", "--markdown", "m.md"]) == REGRESSION
    printed = capsys.readouterr()
    assert "page: runs/compare-1/comparison.html" in printed.out
    assert printed.err.splitlines() == [
        f"base: nights 1-3, 5 with HEAD~1 ({git(change, 'rev-parse', 'HEAD~1').stdout[:7]})",
        f"head: nights 1-3, 5 with present code ({git(change, 'rev-parse', 'HEAD').stdout[:7]})"]
    assert {p.name for p in Path("runs/compare-1").iterdir()} == {"comparison.html", "comparison.json",
                                                                  "comparison.md", "junit.xml"}
    assert Path("j.xml").read_bytes() == Path("runs/compare-1/junit.xml").read_bytes()
    assert Path("m.md").read_bytes() == Path("runs/compare-1/comparison.md").read_bytes()
    assert main([*words, "--keep-runs", "--quiet", "--power"]) == REGRESSION
    assert (Path("runs/compare-2/runs/head/seed_5/measures")).is_dir()
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "changes that would be found in nine cases of ten:" in printed.out
    assert main([*words, "--out", "runs/compare-2"]) == 2
    assert "occupied" in capsys.readouterr().err


def test_the_present_code_is_laid_beside_itself_with_another_setting(tmp_path: Path, temporary: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERT_TWIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "night.toml").write_text(to_toml(small()))
    words = ["compare", ".", "pipeline.detect.threshold=15.0", "--scenario", str(tmp_path / "night.toml")]
    words += ["--seeds", "3", "--no-times", "--quiet", "--out", str(tmp_path / "out")]
    assert main(words) == UNDECIDED   # of two visits
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    metrics = {m["key"]: m for m in found["metrics"]}
    assert metrics["completeness_raw_transient"]["head"] < metrics["completeness_raw_transient"]["base"]
    assert metrics["wcs_rms"]["head"] == metrics["wcs_rms"]["base"]
    assert len(list((tmp_path / "cache" / "exposure").glob("*/*"))) == 2   # drawn once for both sides
    assert list(temporary.glob("alert-twin*")) == []


def test_a_catalogue_is_laid_against_the_truth_of_the_other_side(night: Path, tmp_path: Path, temporary: Path) -> None:
    sources = Store(night).table("DiaSource")
    for name, rows in (("all", sources), ("half", sources[::2])):
        lines = [f"{row['visit']},{row['detector']},{row['ra']:.8f},{row['dec']:.8f},{row['psfFlux']:.3f}"
                 for row in rows]
        (tmp_path / f"{name}.csv").write_text("\n".join(["visit,detector,ra,dec,psfFlux", *lines]))
    question = Question(str(night), f"catalog:{tmp_path / 'half.csv'}", times=False, cache=tmp_path / "cache")
    shown: list[str] = []
    report(question, Wanted(tmp_path / "out"), shown.append)
    found = {m["key"]: m for m in json.loads((tmp_path / "out" / "comparison.json").read_text())["metrics"]}
    key = "completeness_alerts_10_20"
    assert 0.3 * found[key]["base"] < found[key]["head"] < 0.7 * found[key]["base"]
    report(replace(question, head=f"catalog:{tmp_path / 'all.csv'}"), Wanted(tmp_path / "out2"), shown.append)
    found = {m["key"]: m for m in json.loads((tmp_path / "out2" / "comparison.json").read_text())["metrics"]}
    assert found[key]["head"] == found[key]["base"] > 0


# --- nights ----------------------------------------------------------------------------------------------------------

def chosen(base: object, head: object, **options: object) -> Seeds:
    return Seeds.of(Question("", "", **options), JudgeConfig(seeds=(7, 8), budget=4), base, head)  # type: ignore[arg-type]


def runs(*seeds: int) -> Runs:
    return Runs("x", {seed: Path() for seed in seeds})


def test_the_nights_are_those_asked_for_or_recorded_or_the_scenario_s() -> None:
    code = Code("y")
    assert chosen(code, code) == Seeds((7, 8), (9, 10))
    assert chosen(code, code, budget=3) == Seeds((7, 8), (9,))
    assert chosen(code, code, seeds=(20, 3)) == Seeds((20, 3), (21, 22))
    assert chosen(code, code, seeds=(1, 2, 3, 4, 5)) == Seeds((1, 2, 3, 4, 5), ())
    assert chosen(runs(1, 2, 3), code) == Seeds((1, 2, 3), ())
    assert chosen(runs(1, 2, 3), code, seeds=(2,)) == Seeds((2,), (1, 3))
    assert chosen(runs(1, 2), runs(2, 1)) == Seeds((1, 2), ())
    assert chosen(runs(1, 2), runs(2, 3), seeds=(2,)).first == (2,)
    with pytest.raises(InputError, match="of other nights: seeds 1-2 and 2-3; choose"):
        chosen(runs(1, 2), runs(2, 3))
    with pytest.raises(InputError, match="x has no night of seed 4, only of 1-2"):
        chosen(code, runs(1, 2), seeds=(1, 4))


def test_seeds_are_written_singly_or_as_a_range() -> None:
    assert _seeds("3") == (3,)
    assert _seeds("1-6") == (1, 2, 3, 4, 5, 6)
    for wrong in ("6-1", "-1", "a", "1-", "1-b"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"range of seeds like 1-6, got '{wrong}'"):
            _seeds(wrong)


def test_every_option_of_the_command_is_part_of_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[object] = []
    monkeypatch.setattr(compare, "report", lambda *given: asked_for.extend(given[:2]) or NO_REGRESSION)
    words = ["a", "b", "--scenario", "c.toml", "--seeds", "1-2", "5", "--until-decided", "--budget", "9", "--no-times",
             "--processes", "3", "--out", "d", "--json", "e.json", "--keep-runs", "--power"]
    assert main(["compare", *words]) == NO_REGRESSION
    assert asked_for == [Question("a", "b", "c.toml", (1, 2, 5), until_decided=True, budget=9, times=False,
                                  processes=3),
                         Wanted(Path("d"), {"json": Path("e.json")}, keep_runs=True, power=True)]
    asked_for.clear()
    assert main(["compare", "a", "b", "--processes", "1"]) == NO_REGRESSION
    assert asked_for == [Question("a", "b"), Wanted()]


def test_metrics_that_do_not_exist_are_refused(night: Path) -> None:
    outcome = of_run(Store(night), 3)
    metrics, rules = terms_of(JudgeConfig(margins={"false_alerts": 0.5}, primary=("cpu.detect",)), outcome, outcome)
    assert rules.margins == {"false_alerts": 0.5}
    assert rules.primary == ("cpu.detect",)
    assert "false_alerts" in {metric.key for metric in metrics}
    for judge in (JudgeConfig(margins={"false_alert": 0.5}), JudgeConfig(primary=("false_alert",))):
        with pytest.raises(InputError, match="names 'false_alert', which is no metric; near: false_alerts"):
            terms_of(judge, outcome, outcome)


def test_text_stands_in_columns() -> None:
    assert aligned([("a", "bb", "c"), ("aaa", "b", "")]) == ["a    bb  c", "aaa  b"]


def test_what_decides_would_be_found_at_the_level_that_it_is_judged_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size is told for the p that would make a verdict, not for the smaller one of a metric that does not decide."""
    side = outcome(visits=1, seeds=range(1, 7))
    comparison = compare.compare(side, side, Rules(resamples=400))
    levels = []

    def power(metric: Metric, terms: Terms, units: int, rules: Rules, **told: Any) -> Power:
        levels.append(corrected_level(metric, rules, told["n_metrics"], told["n_primary"]))
        return Power(metric, 0.02, 0.9, units, 0.01)

    monkeypatch.setattr(compare, "power", power)
    rows = compare.powers(comparison)
    deciding = [j for j in comparison.judged if j.metric.primary and j.verdict != "no data"]
    assert len(rows) == 1 + len(deciding) > 4
    p = np.array([1.0 if j is not deciding[0] else levels[0] for j in comparison.judged])
    primary = np.array([j.metric.primary for j in comparison.judged])
    p[[j.verdict == "no data" for j in comparison.judged]] = np.nan
    assert np.nanmin(corrected(p, primary)[0]) == pytest.approx(0.05)      # just significant


# --- times -----------------------------------------------------------------------------------------------------------

def timed(night: Path, seeds: Sequence[int], factor: float, noise: float = 0.0) -> Timed:
    """The Steps of the small night, `factor` slower on the head side, as measured side by side.

    Each takes a tenth of a second: what the night itself noted has the loading of kernels in its first visit.
    """
    rng = np.random.default_rng(len(seeds))
    steps = [of_run(Store(night), seed).steps for seed in seeds]
    base = np.concatenate(steps)
    base["duration_s"] = np.nan
    base["cpu_s"] = np.where(np.isfinite(base["cpu_s"]), 0.1, np.nan)
    head = base.copy()
    head["cpu_s"] *= factor * np.exp(noise * rng.normal(size=len(head)))
    return Timed(base, head)


def test_times_are_those_measured_side_by_side_and_not_the_runs_own(change: Path, night: Path, test_file: Path,
                                                                    tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Sequence[int]] = []

    def measure(base: Tree, head: Tree, files: tuple[Path, Path], seeds: Sequence[int], **options: object) -> Timed:
        told.append((base.path == change, head.path == change, options["samples"], tuple(seeds)))
        assert [file.is_file() for file in files] == [True, True]
        return timed(night, seeds, 1.5)

    monkeypatch.setattr(compare, "interleaved", measure)
    question = Question("HEAD~1", ".", str(test_file), (1, 2, 3), cache=tmp_path / "cache")
    with compare.answered(question) as answer:
        found = {j.metric.key: j for j in answer.comparison.judged}
    assert told == [(False, True, 24, (1, 2, 3))]
    assert answer.notes == ()
    assert found["cpu.total"].difference == pytest.approx(0.5)
    assert found["latency.subtract"].difference == pytest.approx(0.0, abs=0.05)   # the runs' own, of a like clock
    with compare.answered(replace(question, times=False)) as answer:
        found = {j.metric.key: j for j in answer.comparison.judged}
    assert len(told) == 1
    assert "cpu.subtract" not in found
    assert found["cpu.total"].verdict == "no data"
    assert found["latency.subtract"].n_units > 0


def test_times_are_measured_again_until_they_are_decided(change: Path, night: Path, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test.toml").write_text('[judge]\nprimary = ["cpu.total"]\nsamples = 12\n')
    question = Question("HEAD~1", ".", str(tmp_path / "test.toml"), EIGHT, until_decided=True, cache=tmp_path / "cache")
    for noise, times, word in ((0.0, 1, "worse"), (3.0, compare.TIMINGS, "undecided")):
        told: list[Sequence[int]] = []

        def measure(*given: Any, told: list[Sequence[int]] = told, noise: float = noise, **options: object) -> Timed:
            told.append(given[3][:3])
            return timed(night, given[3][:6], 1.5, noise)

        monkeypatch.setattr(compare, "interleaved", measure)
        with compare.answered(question) as answer:
            verdicts = {j.metric.key: j.verdict for j in answer.comparison.judged}
        assert len(told) == times
        assert verdicts["cpu.total"] == word
        assert told[:2] == [[1, 2, 3], [7, 8, 1]][:times]      # other nights first


def test_without_times_it_is_said_why(change: Path, night: Path, test_file: Path, tmp_path: Path,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = timed(night, [1], 1.0)
    monkeypatch.setattr(compare, "interleaved", lambda *given, **options: Timed(
        nothing.base[:0], nothing.head[:0], "times are not compared: no gauge"))
    question = Question("HEAD~1", ".", str(test_file), (1, 2), cache=tmp_path / "cache")
    with compare.answered(question) as answer:
        assert answer.notes == ("times are not compared: no gauge",)
    with compare.answered(replace(question, base=str(night), seeds=(3,))) as answer:
        assert answer.notes == ("times are not compared: run was run before, and its run does not hold its code",)


# --- what cannot be compared -----------------------------------------------------------------------------------------

def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line of a refused comparison."""
    assert main(["compare", *map(str, words), "--no-times", "--quiet"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err
    return printed.err


def doctored(night: Path, folder: Path, table: str, **columns: object) -> Path:
    """A copy of a run with other values in a table; without any, without the table."""
    shutil.copytree(night, folder)
    rows = Store(night).table(table).copy()
    shutil.rmtree(folder / "measures" / table)
    for name, value in columns.items():
        rows[name] = value
    if columns:
        with ParquetRecorder(folder / "measures") as recorder:
            recorder.append(table, rows)
    return folder


def test_sides_that_cannot_be_compared_end_in_a_line(night: Path, tmp_path: Path, project: Path,
                                                     capsys: pytest.CaptureFixture[str],
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALERT_TWIN_CACHE", str(tmp_path / "cache"))
    truth = Store(night).table("truth")
    sources = Store(night).table("DiaSource")
    twice = np.where(np.arange(len(sources)) == 1, sources["diaSourceId"][0], sources["diaSourceId"])
    (tmp_path / "nowhere.csv").write_text("visit,detector,snr\n1,94,5.0\n")
    (tmp_path / "bad.toml").write_text("[judge]\nmargins = {completenes = 0.1}\n")
    for words, message in (
            (["no-such-branch", "."], "unknown revision 'no-such-branch'"),
            ([night, "nowhere/"], "unknown revision 'nowhere/'"),
            ([night, doctored(night, tmp_path / "a", "truth", flux=truth["flux"] * 1.01)], "truth"),
            ([night, doctored(night, tmp_path / "b", "exposure_log", fidelity=b"catalogue")], "other fidelity"),
            ([night, doctored(night, tmp_path / "c", "exposure_log")], "no table 'exposure_log'"),
            ([night, doctored(night, tmp_path / "d", "DiaSource", diaSourceId=twice)], "more than once"),
            ([night, doctored(night, tmp_path / "e", "fact")], "unfinished run"),
            ([night, f"catalog:{tmp_path / 'nowhere.csv'}"], "position"),
            ([".", "pipeline.detect.treshold=5"], "unknown field `treshold`"),
            ([".", "rev:trunk:pipeline.broken=1"], "broken is no setting"),
            ([night, night, "--scenario", tmp_path / "bad.toml"], "which is no metric; near: "),
            ([".", ".", "--scenario", "no.toml"], "no scenario 'no.toml'")):
        assert message in refused(capsys, *words, "--out", tmp_path / "out")
        assert not (tmp_path / "out").exists()
    assert main(["compare", str(night), str(night), "--no-times", "--quiet", "--out", str(tmp_path / "out")]) in (0, 3)


def test_other_nights_are_of_another_truth(night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                           temporary: Path) -> None:
    run_night(small(seed=4), tmp_path / "other")
    assert "of other nights: seeds 3 and 4" in refused(capsys, night, tmp_path / "other", "--out", tmp_path / "out")
    facts = Store(tmp_path / "other").table("fact")
    facts["value"][facts["key"] == b"seed"] = b"3"
    shutil.rmtree(tmp_path / "other" / "measures" / "fact")
    with ParquetRecorder(tmp_path / "other" / "measures") as recorder:
        recorder.append("fact", facts.astype(FACT))
    assert "side" in refused(capsys, night, tmp_path / "other", "--out", tmp_path / "out")


# --- nothing is left -------------------------------------------------------------------------------------------------

RUNNER = """
import sys
from pathlib import Path
from twin import checkout
checkout.present = lambda: Path(sys.argv[1])
from twin.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_comparison_that_is_ended_leaves_nothing(change: Path, tmp_path: Path, temporary: Path, number: int) -> None:
    words = ["compare", "HEAD~1:name=slow", ".", "--scenario", "first_light.toml", "--seeds", "1-4", "--processes", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(change), *words, "--out", str(tmp_path / "out"), "--no-times"], cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "ALERT_TWIN_CACHE": str(tmp_path / "cache")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 30
    while not list(temporary.glob("alert-twin-*/runs-*/base/seed_*")) and time.monotonic() < limit:
        time.sleep(0.05)
    assert len(git(change, "worktree", "list").stdout.splitlines()) == 2
    assert (tmp_path / "out").is_dir()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert "Traceback" not in out + err
    assert len(git(change, "worktree", "list").stdout.splitlines()) == 1
    assert not any((change / ".git" / "worktrees").glob("*"))
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "out").exists()
