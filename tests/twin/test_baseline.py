"""Baselines: what they keep is what the run gave, and they say what made them."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from reports.outcome import of_baseline, of_run, tables
from reports.pairing import paired
from reports.store import Store
from tests.twin import checkouts
from twin import baseline, checkout, sides
from twin.cli import main
from twin.sides import Baseline, parse_side
from twin.workspace import git

TEST = """
name = "little"
seed = 9
[simulation.camera]
ny = 440
[platform]
costs = "mine.toml"
[judge]
seeds = [5, 6]
"""


@pytest.fixture
def recorded(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
             capsys: pytest.CaptureFixture[str]) -> Path:
    """A baseline made by the command."""
    monkeypatch.setenv("ALERT_TWIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "little.toml").write_text(TEST)
    (tmp_path / "mine.toml").write_text("")
    assert main(["baseline", str(tmp_path / "little.toml"), "--out", str(tmp_path / "recorded"), "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("baseline of 2 nights, ")
    return tmp_path / "recorded"


def test_what_is_read_back_is_what_the_run_gave(recorded: Path, night: Path) -> None:
    found, run = of_baseline(Store(recorded)), of_run(Store(night), 5)
    for name, rows in tables(sides.only(found, [5])).items():
        assert len(rows) == len(tables(run)[name])
        for column in rows.dtype.names or ():
            np.testing.assert_array_equal(rows[column], tables(run)[name][column], err_msg=f"{name}.{column}")
    assert np.unique(found.visits["seed"]).tolist() == [5, 6]
    one, other, units = paired(sides.only(found, [5]), run)   # nothing is missing that pairing asks for
    assert units.n == 2
    assert one.sources.tobytes() == other.sources.tobytes()
    assert sum(path.stat().st_size for path in recorded.rglob("*")) < 1e6


def test_a_baseline_says_what_made_it_and_holds_its_test(recorded: Path, project: Path, tmp_path: Path) -> None:
    facts = Store(recorded).facts()
    revision = git(project, "rev-parse", "HEAD").stdout.strip()
    assert {key: facts[key] for key in ("scenario", "seeds", "revision", "dirty", "fidelity", "kind")} == {
        "scenario": "little", "seeds": "5 6", "revision": revision, "dirty": "false", "fidelity": "pixels",
        "kind": "simulated"}
    assert facts["sources"] == checkout.fingerprint(project)
    assert facts["scenario_hash"] == baseline.scenario_hash(sides.of_file(tmp_path / "little.toml").settings)
    assert "cores" in facts["machine"]
    assert {p.name for p in recorded.iterdir()} == {"measures", "scenario.toml", "mine.toml"}
    side = parse_side(f"baseline:{recorded}")
    assert isinstance(side, Baseline)
    assert side.label.startswith(f"baseline recorded ({revision[:7]}, 20")
    trial = sides.read_trial(None, side, side)
    assert trial.judge.seeds == (5, 6)
    assert trial.settings["simulation"] == {"camera": {"ny": 440}}


def test_fingerprints_change_with_what_they_are_of(recorded: Path, project: Path, tmp_path: Path) -> None:
    before = checkout.fingerprint(project)
    (project / "notes.txt").write_text("no code")
    (project / "scenarios" / "baselines" / "x").mkdir(parents=True)
    (project / "scenarios" / "baselines" / "x" / "table").write_text("recorded")
    assert checkout.fingerprint(project) == before
    assert not checkout.version(project).dirty
    (project / "pipeline" / "new.py").write_text("1")
    assert checkout.fingerprint(project) != before
    settings = sides.of_file(tmp_path / "little.toml").settings
    hashed = baseline.scenario_hash(settings)
    assert baseline.scenario_hash(settings | {"name": "other", "seed": 3, "judge": {}}) == hashed
    assert baseline.scenario_hash(settings | {"simulation": {"camera": {"ny": 441}}}) != hashed


def test_the_code_of_a_baseline_is_found_or_it_is_said_why_not(recorded: Path, project: Path, night: Path,
                                                               tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = git(project, "rev-parse", "HEAD").stdout.strip()
    assert baseline.revision(recorded) == (revision, "")
    other = tmp_path / "elsewhere"
    checkouts.make(other, night, "another")
    monkeypatch.setattr(checkout, "present", lambda: other)
    assert baseline.revision(recorded) == ("", f"its revision {revision[:7]} is not in this repository")
    shutil.rmtree(other / ".git")
    assert baseline.revision(recorded) == ("", f"its revision {revision[:7]} is not in this repository")
    monkeypatch.setattr(checkout, "present", lambda: project)
    (project / "pipeline" / "new.py").write_text("1")
    bench_out = tmp_path / "dirty"
    baseline.record(tmp_path / "little.toml", (5,), bench_out, cache=tmp_path / "cache")
    assert baseline.revision(bench_out) == ("", f"it was recorded from {revision[:7]} with uncommitted changes")


def test_a_baseline_that_fails_leaves_nothing(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ALERT_TWIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "little.toml").write_text('description = "broken"\n')
    assert main(["baseline", str(tmp_path / "little.toml"), "--out", str(tmp_path / "recorded"), "--quiet"]) == 2
    assert "broken is no setting" in capsys.readouterr().err
    assert not (tmp_path / "recorded").exists()
    (tmp_path / "recorded").mkdir()
    (tmp_path / "recorded" / "precious").touch()
    with pytest.raises(InputError, match="occupied"):
        baseline.record(tmp_path / "little.toml", (5,), tmp_path / "recorded", cache=tmp_path / "cache")


def test_a_run_is_laid_beside_a_baseline_without_running_it_again(recorded: Path, project: Path, night: Path,
                                                                  tmp_path: Path,
                                                                  capsys: pytest.CaptureFixture[str]) -> None:
    checkouts.make(project, night, "second")
    assert main(["compare", f"baseline:{recorded}", ".", "--out", str(tmp_path / "out"), "--seeds", "5"]) in (0, 3)
    printed = capsys.readouterr()
    assert "no difference" in printed.out.lower()
    assert [line for line in printed.err.splitlines() if line.startswith(("base", "head"))] == [
        f"head: night 5 with {parse_side('.').label}"]
    assert "has no twin/gauge.py to measure it" in printed.out    # the stand-in; times are asked for, and not to be had
