"""Runs that were killed and taken up again end as those that nobody disturbed."""

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pipeline.errors import InputError
from reports.state import STATE, State, look
from reports.store import Store
from tests.twin.conftest import small
from tests.twin.killed import OVERRIDES
from tests.twin.test_live_night import scenario as live_scenario
from twin.cache import Cache
from twin.cli import main
from twin.counts_night import run_counts
from twin.live_night import Place, run_live
from twin.resume import resume
from twin.running import public
from twin.scenario import read_scenario, to_toml
from twin.sweep import point_of, sweep

SCENARIOS = Path(__file__).parents[2] / "scenarios"
SMALL = SCENARIOS / "platform_small.toml"
MEASURED = {"step": ("cpu_s", "peak_mb")}      # what a table has of the machine that computed it
OVER = ("platform.workers=10:50:10",)


def kill(*arguments: str | Path) -> None:
    """A run that ends by SIGKILL."""
    ended = subprocess.run([sys.executable, "-m", "tests.twin.killed", *map(str, arguments)], capture_output=True,
                           text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def same(one: Path, two: Path) -> int:
    """How many tables there are, all of the same bytes beside what is of the machine and the moment."""
    first, second = Store(one), Store(two)
    assert first.tables() == second.tables()
    for name in set(first.tables()) - {"pulse", "fact"}:
        a, b = first.table(name).copy(), second.table(name).copy()
        for column in MEASURED.get(name, ()):
            a[column] = b[column] = 0
        assert a.tobytes() == b.tobytes(), name
    assert {k: v for k, v in first.facts().items() if k != "wall_s"} == {
        k: v for k, v in second.facts().items() if k != "wall_s"}
    return len(first.tables())


def packets(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "alerts").iterdir())}


def test_a_killed_night_of_numbers_is_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, whole = tmp_path / "run", tmp_path / "whole"
    kill("counts", SMALL, out)
    assert not Store(out).has("passage")
    state, killed = look(out)
    assert state is not None
    assert state.night is not None
    assert killed
    assert 20 <= state.night.opened < 40
    assert main(["run", str(SMALL), "--out", str(out)]) == 2
    assert (f"the run in it did not finish (killed at visit {state.night.opened} of 40); `alert-twin resume {out}` "
            "takes it up") in capsys.readouterr().err
    assert main(["resume", str(out), "--quiet", "--processes", "1"]) == 0
    assert "20,000 of 20,000 alerts sent" in capsys.readouterr().out
    run_counts(read_scenario(SMALL), whole, beside=SCENARIOS)
    assert same(out, whole) == 8
    state, killed = look(out)
    assert state is not None
    assert (state.status, state.begun, killed) == ("done", 2, False)
    assert (out / "scenario.toml").read_bytes() == (whole / "scenario.toml").read_bytes()
    assert main(["resume", str(out)]) == 2
    assert "this run is finished, there is nothing to resume" in capsys.readouterr().err


def test_a_killed_night_of_pixels_is_done_again_with_what_the_cache_kept(
        night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, scenario, cache = tmp_path / "run", tmp_path / "small.toml", tmp_path / "cache"
    scenario.write_text(to_toml(small()))
    kill("pixels", scenario, out, cache)
    assert main(["watch", str(out), "--once"]) == 1
    assert "killed at visit 1 of 2" in capsys.readouterr().out
    before = Cache.open(cache).usage()
    assert before["half"].entries == 1
    assert main(["resume", str(out), "--quiet", "--processes", "1"]) == 0
    after = Cache.open(cache).usage()
    assert after["half"].entries == 2
    assert after["half"].hits > before["half"].hits                  # the half of the first life, again
    assert packets(out) == packets(night)
    assert same(out, night) > 12
    assert sorted(p.name for p in (out / "stamps").iterdir()) == sorted(p.name for p in (night / "stamps").iterdir())
    assert not (out / "scratch").exists()


def test_a_killed_night_of_live_detectors_is_done_again(tmp_path: Path) -> None:
    out, whole, scenario = tmp_path / "run", tmp_path / "whole", tmp_path / "live.toml"
    scenario.write_text(to_toml(live_scenario()))
    kill("live", scenario, out)
    assert not Store(out).has("passage")
    state, killed = look(out)
    assert state is not None
    assert (state.kind, state.of, killed) == ("live", 8, True)
    said, expected = resume(out)
    assert expected
    assert "8 visits" in said
    run_live(read_scenario(scenario), Place(whole))
    assert packets(out) == packets(whole)
    assert len(packets(out)) > 10
    assert same(out, whole) > 15
    state, _ = look(out)
    assert state is not None
    assert state.night is not None
    assert state.night.sent == Store(out).table("passage")["n_sent"].sum() > 100


def test_a_killed_sweep_does_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    out, whole = tmp_path / "sweep", tmp_path / "whole"
    kill("sweep", SMALL, out, *OVER)
    assert len((out / "points.jsonl").read_text().splitlines()) == 2
    with (out / "points.jsonl").open("a") as file:
        file.write('{"key": "torn')
    simulated: list[str] = []

    def counted(settings, *rest):  # type: ignore[no-untyped-def]
        simulated.append(settings[0][1])
        return point_of(settings, *rest)

    monkeypatch.setattr("twin.sweep.point_of", counted)
    with pytest.raises(InputError, match=r"another sweep in it did not finish \(platform 2 of 5\)"):
        sweep(SMALL, ["platform.workers=10,20"], out, overrides=OVERRIDES)
    assert main(["resume", str(out), "--quiet", "--processes", "1"]) == 0
    assert simulated == ["30", "40", "50"]
    assert "5 platforms" in capsys.readouterr().out
    sweep(SMALL, OVER, whole, overrides=OVERRIDES)
    for name in ("surface.csv", "surface.png"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert not (out / "points.jsonl").exists()
    with pytest.raises(InputError, match="occupied"):
        sweep(SMALL, OVER, out, overrides=OVERRIDES)


def test_the_same_sweep_goes_on_and_one_of_other_tables_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                    ) -> None:
    for name in ("costs", "counts"):
        (tmp_path / f"{name}_mine.toml").write_bytes((SCENARIOS / name / "constant.toml").read_bytes())
    mine = tmp_path / "mine.toml"
    mine.write_text(f'base = "{SMALL}"\n[platform]\ncosts = "costs_mine.toml"\n[counts]\nmodel = "counts_mine.toml"\n')
    out, simulated = tmp_path / "sweep", [""] * 2

    def stopping(settings, *rest):  # type: ignore[no-untyped-def]
        simulated.append(settings[0][1])
        if len(simulated) == 3:
            raise KeyboardInterrupt
        return point_of(settings, *rest)

    monkeypatch.setattr("twin.sweep.point_of", stopping)
    with pytest.raises(KeyboardInterrupt):
        sweep(mine, OVER, out, overrides=OVERRIDES)
    assert not out.exists()                              # nothing was done yet
    simulated.clear()
    with pytest.raises(KeyboardInterrupt):
        sweep(mine, OVER, out, overrides=OVERRIDES)
    state, killed = look(out)
    assert state is not None
    assert (state.status, state.why, killed) == ("failed", "interrupted", False)
    costs = tmp_path / "costs_mine.toml"
    text = costs.read_text()
    costs.write_text(text + "\n# another table\n")
    simulated.clear()
    with pytest.raises(KeyboardInterrupt):
        sweep(mine, OVER, out, overrides=OVERRIDES)
    assert simulated == ["10", "20", "30"]               # the points of the first table do not count
    sweep(mine, OVER, out, overrides=OVERRIDES)
    assert simulated == ["10", "20", "30", "30", "40", "50"]


def left(folder: Path, state: State) -> Path:
    """A folder as a killed run leaves it."""
    folder.mkdir()
    (folder / ".owner").touch()
    (folder / "scenario.toml").write_text(to_toml(small()))
    (folder / STATE).write_bytes(msgspec.json.encode(state))
    return folder


def test_what_left_the_folder_cannot_be_taken_back(tmp_path: Path) -> None:
    told = {"beside": ".", "sink": "kafka://broker:9092/alerts-simulated", "store": "", "past": None, "cache": None,
            "keep_images": False, "any_topic": False}
    kafka = left(tmp_path / "kafka", State(kind="pixels", settings=told))
    (kafka / "prompt.duckdb").touch()
    with pytest.raises(InputError, match=r"cannot be resumed: its alerts went to kafka://broker:9092/alerts-simulated, "
                       r"and those that consumers have seen cannot be taken back.*`alert-twin deliver duckdb:.*prompt"
                       r"\.duckdb kafka://broker:9092/alerts-simulated` sends what was saved and not sent"):
        resume(kafka)
    store = "postgresql://db/night"
    elsewhere = left(tmp_path / "store", State(kind="pixels", settings=told | {"sink": "", "store": store}))
    with pytest.raises(InputError, match="cannot be resumed: its prompt tables are in postgresql://db/night"):
        resume(elsewhere)
    assert sorted(path.name for path in kafka.iterdir()) == [
        ".owner", "prompt.duckdb", "scenario.toml", STATE]                               # nothing is touched
    assert public("postgresql://me:secret@db:5432/night?password=x") == "postgresql://db:5432/night"
    assert public("file:/tmp/alerts") == "file:/tmp/alerts"


@pytest.mark.parametrize("command", ["bundle RUN --out OUT", "export RUN --out OUT", "score RUN FILE --out OUT",
                                     "batch RUN", "compare RUN RUN --out OUT"])
def test_who_needs_a_whole_run_refuses_a_part_of_one(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
                                                     ) -> None:
    run = left(tmp_path / "run", State(kind="pixels", of=2, doing="the sky"))
    (run / "measures").mkdir()
    (tmp_path / "file.csv").write_text("visit,ra,dec\n")
    words = {"RUN": str(run), "OUT": str(tmp_path / "out"), "FILE": str(tmp_path / "file.csv")}
    assert main([words.get(word, word) for word in command.split()]) == 2
    assert f"{run}: this run did not finish: killed at the sky, before the first of 2 visits" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_no_killed_run_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run that could be done again, it has no state\.json"):
        resume(tmp_path)
    early = left(tmp_path / "early", State(kind="counts", of=40, doing="numbers"))
    (early / "scenario.toml").unlink()
    with pytest.raises(InputError, match="killed before its scenario was written; remove it and run anew"):
        resume(early)
    (early / STATE).write_text("{")
    with pytest.raises(InputError, match="unreadable"):
        resume(early)


def test_a_run_that_fails_again_stays_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = left(tmp_path / "run", State(kind="counts", of=40, settings={"beside": str(tmp_path)}))
    (out / "scenario.toml").write_text(to_toml(read_scenario(SMALL, ['platform.costs="few.toml"'])))
    (tmp_path / "few.toml").write_text('machine = "none"\ndate = "never"\n[steps.registry]\na = 1.0\n')
    with pytest.raises(InputError, match="has no cost for Step"):
        resume(out)
    state, killed = look(out)
    assert state is not None
    assert (state.status, killed, state.begun) == ("failed", False, 2)
    assert "has no cost for Step" in state.why
    assert main(["watch", str(out)]) == 1
    assert "failed at" in capsys.readouterr().out


def test_points_are_read_as_they_were(tmp_path: Path) -> None:
    from reports.surface import Point
    from twin.sweep import _note, read_points

    point = Point((("a", "1"),), 3.0, False, 1 / 3, float("inf"), 0.1, np.float64(0.2), 0.3, 0.4, 0.5, 0.6, 7e-300)
    with (tmp_path / "points").open("w") as file:
        _note(file, {point.settings: "key"}, point)
    assert read_points(tmp_path / "points", {point.settings: "key"}) == [point]
    assert read_points(tmp_path / "points", {point.settings: "other"}) == []
