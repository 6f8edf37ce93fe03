"""The command: what it prints, what it refuses, and what it loads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from twin.bundle import write_bundle
from twin.cli import _parsed, main

ROOT = Path(__file__).resolve().parents[2]
SIMULATION = {"simpy", "galsim", "simulators", "matplotlib", "twin.night", "twin.observatory"}


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a refused command."""
    assert main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(("text", "named"), [
    ("[simulation.camera]\nseeing = 1\n", "simulation.camera: Object contains unknown field `seeing`"),
    ("[simulation.conditions]\nfwhm_eff = -0.7\n", "simulation.conditions.fwhm_eff"),
    ("[[[", "bad.toml")])
def test_a_wrong_scenario_ends_in_one_line_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                             text: str, named: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    line = refused(capsys, "run", tmp_path / "bad.toml", "--out", tmp_path / "run")
    assert named in line
    assert "bad.toml" in line
    assert not (tmp_path / "run").exists()


def test_an_occupied_or_unwritable_folder_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "night.toml").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("kept")
    assert "occupied" in refused(capsys, "run", tmp_path / "night.toml", "--out", tmp_path / "run")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["precious"]
    below = tmp_path / "night.toml" / "run"
    assert "cannot be written" in refused(capsys, "run", tmp_path / "night.toml", "--out", below)


def test_a_folder_that_is_no_run_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no run folder" in refused(capsys, "report", tmp_path)


@pytest.mark.parametrize("option", [["--processes", "0"], ["--processes", "two"], ["--seed", "-1"], ["--keep", "all"]])
def test_a_wrong_option_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]) -> None:
    (tmp_path / "night.toml").write_text("")
    arguments = ["run", str(tmp_path / "night.toml"), "--out", str(tmp_path / "run"), *option]
    with pytest.raises(SystemExit, match="2"):
        sys.exit(main(arguments))
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_overrides_may_stand_before_and_after_options() -> None:
    options = _parsed(["run", "a.toml", "x.y=1", "--out", "b", "z=2", "--seed", "3"])
    assert (options.overrides, options.seed) == (["x.y=1", "z=2"], 3)
    for wrong in (["run", "a.toml", "--out", "b", "--fast=1"], ["run", "a.toml", "--out", "b", "fast"],
                  ["report", "a", "x=1"]):
        with pytest.raises(SystemExit, match="2"):
            _parsed(wrong)


def test_process_on_fits_files_loads_nothing_of_the_simulation(night: Path, tmp_path: Path) -> None:
    write_bundle(night, tmp_path / "bundle", after=1)
    code = ("import sys; from twin.cli import main; "
            f"main(['process', '--config', {str(tmp_path / 'bundle' / 'site.toml')!r}, "
            f"{str(tmp_path / 'bundle' / 'exposures')!r}, '--out', {str(tmp_path / 'run')!r}]); "
            "print('loaded', *sys.modules)")
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
                           env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert "1 of 1 exposures processed" in found.stdout
    loaded = set(found.stdout.rpartition("loaded")[2].split())
    assert "pipeline.prompt" in loaded
    assert not SIMULATION & loaded


def test_simulated_alerts_do_not_go_to_a_topic_of_real_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "night.toml").write_text("")
    line = refused(capsys, "run", tmp_path / "night.toml", "--out", tmp_path / "run", "--sink",
                   "kafka://localhost:9092/lsst-alerts-v11")
    assert "simulated alerts go to the topic alerts-simulated" in line
    assert not (tmp_path / "run").exists()


def test_output_that_nobody_reads_ends_the_command_without_a_word(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run([sys.executable, "-m", "twin.cli", "cache", str(tmp_path)], stdout=write, cwd=ROOT,
                           stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize("command", [["schemas", "serve"], ["archive", "serve", "--store", "alerts"]])
@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_a_port_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], command: list[str], port: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--port", port])
    assert ended.value.code == 2
    assert f"expected 0 to 65535, got '{port}'" in capsys.readouterr().err
