"""Times side by side: the order of work, what is counted, and how it ends; by stand-ins for trees of code, and once by
the code itself.
"""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.steps import Step
from reports.trace import STEP_ORDER
from twin import gauge, timing
from twin.checkout import PACKAGES, present
from twin.scenario import to_toml
from twin.timing import Timed, Tree, interleaved

from .conftest import small

GAUGE = """
import json, os, sys, time
settings = json.load(open("settings.json"))
log = open(settings["log"], "a", buffering=1)
kind, steps, n = sys.argv[1], [], 0
print("started", kind, settings["name"], os.getpid(), file=log)
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "open":
        answer = {"visits": settings["visits"]}
    elif request["do"] == "step":
        print("step", kind, settings["name"], len(steps), file=log)
        name, used = settings["steps"][len(steps)]
        steps.append([name, 100, used[kind], *settings["more"]])
        answer = {"steps": steps} if len(steps) == len(settings["steps"]) else {}
        answer = {"failed": "no kernel"} if answer and visit in settings["fails"] else answer
    elif request["do"] == "begin":
        n += 1
        steps, answer, visit = [], {}, request["visit"]
        if n == settings["dies"]:
            sys.exit("MemoryError: out of luck")
        print("begin", kind, settings["name"], visit, file=log)
    else:
        answer = {"error": settings["error"]} if settings["error"] else {}
    print(json.dumps(answer), flush=True)
"""

CALIBRATE, WARP = ("calibrate", {"cpu": 0.5, "memory": 40.0}), ("warp", {"cpu": 0.2, "memory": 1.0})


def tree(folder: Path, name: str, log: Path, *, steps: Sequence[object] = (CALIBRATE, WARP),
         visits: Sequence[tuple[int, int]] = ((11, 94), (12, 94), (13, 94)), fails: Sequence[int] = (),
         error: str = "", dies: int = 0, more: Sequence[float] = ()) -> Tree:
    """A tree of code whose Steps use what they are told to use."""
    root = folder / name
    (root / "twin").mkdir(parents=True)
    (root / "twin" / "__init__.py").touch()
    (root / "twin" / "gauge.py").write_text(GAUGE)
    (root / "settings.json").write_text(json.dumps({"name": name, "log": str(log), "steps": steps, "visits": visits,
                                                    "fails": fails, "error": error, "dies": dies, "more": more}))
    return Tree(Path(sys.executable), root, name)


def measured(folder: Path, base: Tree, head: Tree, **options: object) -> Timed:
    given: dict[str, object] = {"samples": 6, "rounds": 2, "cache": folder / "cache"} | options
    return interleaved(base, head, (folder / "a.toml", folder / "b.toml"), [3, 4], **given)  # type: ignore[arg-type]


def test_both_sides_do_each_step_turn_about(tmp_path: Path) -> None:
    log = tmp_path / "log"
    timed = measured(tmp_path, tree(tmp_path, "base", log), tree(tmp_path, "head", log), samples=2, rounds=1)
    assert (timed.note, timed.samples) == ("", 2)
    steps = [line.split()[2:] for line in log.read_text().splitlines() if line.startswith("step cpu")]
    warm, first, second = steps[:4], steps[4:8], steps[8:]
    assert warm == first == [["base", "0"], ["head", "0"], ["head", "1"], ["base", "1"]]
    assert second == [["head", "0"], ["base", "0"], ["base", "1"], ["head", "1"]]


def test_every_round_has_fresh_processes_and_a_detector_visit_that_does_not_count(tmp_path: Path) -> None:
    log = tmp_path / "log"
    timed = measured(tmp_path, tree(tmp_path, "base", log), tree(tmp_path, "head", log))
    words = [line.split() for line in log.read_text().splitlines()]
    started = [w[1:] for w in words if w[0] == "started"]
    assert len({pid for *_, pid in started}) == len(started) == 8      # to prepare, two rounds, memory; of two sides
    begun = [int(w[3]) for w in words if w[:3] == ["begin", "cpu", "base"]]
    assert begun == [11, 11, 12, 13, 11, 11, 12, 13]
    keys = [tuple(row) for row in timed.base[["seed", "visit", "name"]].tolist()]
    assert keys == [(seed, visit, name) for seed in (3, 4) for visit in (11, 12, 13)
                    for name in (b"calibrate", b"warp")]


def test_sides_are_row_for_row_and_differ_as_their_code_does(tmp_path: Path) -> None:
    log = tmp_path / "log"
    slower = [("calibrate", {"cpu": 0.55, "memory": 52.0}), WARP]
    timed = measured(tmp_path, tree(tmp_path, "base", log), tree(tmp_path, "head", log, steps=slower))
    for column in ("seed", "visit", "detector", "name", "size", "measured"):
        assert np.array_equal(timed.base[column], timed.head[column])
    assert timed.ratios() == pytest.approx({"calibrate": 1.1, "warp": 1.0})
    assert timed.ratios("peak_mb") == pytest.approx({"calibrate": 1.3})
    assert np.isnan(timed.base["peak_mb"][timed.base["name"] == b"warp"]).all()
    assert np.isnan(timed.base["duration_s"]).all()


def test_a_step_that_one_side_lacks_goes_on_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    timed = measured(tmp_path, tree(tmp_path, "base", log), tree(tmp_path, "head", log, steps=[CALIBRATE]))
    assert set(timed.head["name"]) == {b"calibrate"}
    assert len(timed.base) == 12


def test_a_detector_visit_that_fails_on_one_side_counts_on_neither(tmp_path: Path) -> None:
    log = tmp_path / "log"
    timed = measured(tmp_path, tree(tmp_path, "base", log), tree(tmp_path, "head", log, fails=[12]))
    assert set(timed.base["visit"]) == set(timed.head["visit"]) == {11, 13}
    assert timed.note == "times rest on 4 of 6 detector-visits: the others failed"


def test_time_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "log"
    timed = measured(tmp_path, tree(tmp_path, "base", log), tree(tmp_path, "head", log), minutes=0.0)
    assert timed.samples == 1
    assert timed.note.startswith("times rest on 1 of 6")


@pytest.mark.parametrize(("options", "why"), [
    ({"visits": [(11, 94)]}, "the sides have other visits in the night of seed 3"),
    ({"error": "a.toml: no such scenario"}, "head: a.toml: no such scenario"),
    ({"dies": 2}, "head: MemoryError: out of luck"),
    ({"visits": []}, "the sides have other visits"),
    ({"more": [1.0]}, "the code of head gauges its Steps in another way"),
])
def test_what_cannot_be_measured_is_one_line(tmp_path: Path, options: dict[str, object], why: str) -> None:
    log = tmp_path / "log"
    timed = measured(tmp_path, tree(tmp_path, "base", log), tree(tmp_path, "head", log, **options))  # type: ignore[arg-type]
    assert timed.note.startswith(f"times are not compared: {why}")
    assert len(timed.base) == len(timed.head) == 0
    assert "\n" not in timed.note


def test_a_tree_that_cannot_measure_itself_is_one_line(tmp_path: Path) -> None:
    base = tree(tmp_path, "base", tmp_path / "log")
    (tmp_path / "old" / "twin").mkdir(parents=True)
    timed = measured(tmp_path, base, Tree(Path(sys.executable), tmp_path / "old", "old (a1b2c3d)"))
    assert timed.note == "times are not compared: old (a1b2c3d) has no twin/gauge.py to measure it"


def test_no_process_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    base, head = tree(tmp_path, "base", log), tree(tmp_path, "head", log)
    turn_about = timing._turn_about

    def interrupted(*arguments: object) -> object:
        if "begin cpu base 12" in log.read_text():
            raise KeyboardInterrupt
        return turn_about(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(timing, "_turn_about", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, base, head)
    pids = [int(line.split()[3]) for line in log.read_text().splitlines() if line.startswith("started")]
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_write_is_charged_with_what_it_does_after_it_was_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 1.0, 3.0, 3.0, 7.0])
    monkeypatch.setattr(gauge, "process_time", lambda: next(clock))
    meter = gauge.Meter("cpu")
    for step in (Step("package"), Step("save", ahead=True), Step("unsent")):
        meter.start()
        meter.note(step)
    meter.end()
    assert [(name, used) for name, _, used in meter.used] == [("package", 1.0), ("save", 6.0), ("unsent", 0.0)]


SLOWER = """
    from time import process_time
    begun = process_time()
    found = _detect(difference, science, config)
    until = process_time() + 1.0 * (process_time() - begun)
    while process_time() < until:
        pass
    ballast = np.ones(4_000_000)
    return found if ballast.any() else found


def _detect("""


def test_a_step_made_slower_and_larger_is_seen_in_the_code_itself(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    for package in PACKAGES:
        shutil.copytree(present() / package, slow / package, ignore=shutil.ignore_patterns("baselines"))
    path = slow / "pipeline" / "detect.py"
    text = path.read_text()
    begin = text.index("def detect(")
    body = text.index(":\n", text.index("->", begin)) + 2
    signature = text[begin:body]
    path.write_text(text[:begin] + signature + SLOWER + signature.removeprefix("def detect(") + text[body:])
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(to_toml(small()))
    here, there = (Tree(Path(sys.executable), root, root.name) for root in (present(), slow))
    timed = interleaved(here, there, (scenario, scenario), [3], cache=tmp_path / "cache", samples=6, rounds=3)
    assert (timed.note, timed.samples) == ("", 2)
    ratios, memory = timed.ratios(), timed.ratios("peak_mb")
    assert set(ratios) >= {"calibrate", "subtract", "detect", "associate", "save"}
    assert {name.decode() for name in timed.base["name"]} <= set(STEP_ORDER)
    others = [ratios[name] for name in ("calibrate", "warp", "subtract", "measure")]
    assert ratios["detect"] > 1.5 > max(others)
    assert memory["detect"] > 1.5 > max(memory[name] for name in ("calibrate", "warp", "subtract"))
