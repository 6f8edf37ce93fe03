"""A night that is looked at while it runs: the same night, and what is seen is so."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from pipeline.errors import InputError
from reports.delays import LIMIT_S
from reports.requirement import weighted_percentile
from reports.state import State, is_owned, look, percentile_s, read_state, unfinished
from reports.store import Store, StoreError
from tests.twin.conftest import small
from twin.cli import main
from twin.counts_night import run_counts, simulate
from twin.night import run_night
from twin.pulse import Pulse
from twin.recorder import ParquetRecorder
from twin.running import Due, Running, begun, owned
from twin.scenario import read_scenario
from twin.watch import Watcher, clock, curve, drawn, duration, watch

SCENARIOS = Path(__file__).parents[2] / "scenarios"
SMALL = SCENARIOS / "platform_small.toml"
FAULTS = ("kafka_down", "kafka_down_outbox", "worker_killed", "worker_killed_redelivered", "worker_hung",
          "next_visit_lost", "next_visit_duplicated", "image_missing", "apdb_commits_then_fails_outbox", "network_cut")
NIGHTS = [*(SCENARIOS / "faults" / f"{name}.toml" for name in FAULTS), SMALL]


class Held:
    """A pulse that takes no notice of the wall clock, and is checked against a count of everything at every look."""

    def __init__(self, here: Running, recorder: ParquetRecorder, platform: object) -> None:
        self.pulse = Pulse(here, recorder, platform)  # type: ignore[arg-type]
        here.due._least_s = 0.0
        self.looks = 0

    def __call__(self, platform) -> None:  # type: ignore[no-untyped-def]
        self.pulse._not_before = 0.0
        before = self.pulse._next_s
        self.pulse(platform)
        if self.pulse._next_s == before:
            return
        self.looks += 1
        night = self.pulse._here.state.night
        assert night is not None
        sent = np.frombuffer(platform.times["sent_s"], float)
        assert night.sent == int(np.frombuffer(platform.n_sent, np.int32).sum())
        delays = np.frombuffer(platform.times["delivered_s"], float) - self.pulse._readout
        assert night.late == int(np.array(platform.n_sent)[delays > LIMIT_S].sum())
        assert night.produced == int(self.pulse._alerts[self.pulse._saved == 1].sum())
        assert sum(night.delays) == night.sent
        coming = {visit for at, visit, _, real in platform._messages if real and at >= platform.env.now}
        lost = [k for k in np.flatnonzero((sent != sent) & (self.pulse._alerts > 0)).tolist()
                if platform.reason[k] not in ("not taken", "committed, not sent")
                and not (platform.reason[k] == "no nextVisit" and k // platform.n_detectors in coming)]
        assert sum(night.lost.values()) <= int(self.pulse._alerts[lost].sum())
        for visit in night.last:
            assert visit.waiting + visit.working + visit.saved + visit.sent + visit.failed == visit.detectors

    def last(self) -> None:
        self.pulse.last()


@pytest.mark.parametrize("path", NIGHTS, ids=lambda path: path.stem)
def test_what_is_seen_of_a_night_is_so_and_changes_nothing(path: Path, tmp_path: Path) -> None:
    scenario = read_scenario(path)
    unseen = simulate(scenario, path.parent)
    made: list[Held] = []
    with begun(tmp_path / "run", State(kind="counts")) as here, ParquetRecorder(tmp_path / "run/measures") as recorder:
        seen = simulate(scenario, path.parent, reference=unseen.reference,
                        look=lambda platform: made.append(Held(here, recorder, platform)) or made[0])  # type: ignore
    for name in ("passages", "calls", "pods"):
        assert getattr(seen.ran, name).tobytes() == getattr(unseen.ran, name).tobytes(), name
    assert seen.ran.end_s == unseen.ran.end_s
    assert made[0].looks > 20
    night, p = here.state.night, seen.ran.passages
    assert night is not None
    lost = p[(p["reason"] != b"") & (p["n_alerts"] > 0)]
    assert night.lost == dict(sum((Counter({row["reason"].decode(): int(row["n_alerts"])}) for row in lost), Counter()))
    sent = p["reason"] == b""
    delays = (p["delivered_s"] - p["readout_end_s"])[sent]
    for q in (50, 98):
        exact = weighted_percentile(delays, p["n_sent"][sent], q)
        assert exact <= percentile_s(night.delays, q) <= max(exact + 0.5, 1.01 * exact)
    assert night.late == p["n_sent"][sent][delays > LIMIT_S].sum()
    pulse = Store(tmp_path / "run").table("pulse")
    assert len(pulse) == made[0].looks + 1
    for name in ("at_s", "opened", "done", "produced", "sent"):
        assert (np.diff(pulse[name].astype(float)) >= 0).all(), name
    assert pulse["done"][-1] == pulse["opened"][-1] == scenario.counts.visits
    assert pulse["busy"].max() <= scenario.platform.workers


def test_parts_become_rarer_as_a_run_grows_older() -> None:
    now = [0.0]
    due = Due(2.0, 1 / 50, clock=lambda: now[0])
    written = 0
    for second in range(10 * 3600):
        now[0] = float(second)
        written += due()
    assert 200 < written < 400          # 50 in the first 100 s, then 50 while the age grows by a factor of e
    now[0] = 1.0
    assert not due()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("watch") / "run"
    run_counts(read_scenario(SMALL), out, beside=SCENARIOS)
    return out


def test_a_run_that_is_over_is_shown_at_its_end(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(folder), "--once"]) == 0
    said = capsys.readouterr().out
    for text in ("done in", "40 of 40 visits done", "2026-06-27 00:26:39 UTC", "20,000 sent", "0 late, 0 lost",
                 "50 % within 38.0 s", "100.0 % within 60 s", "120 idle", "2026062600040 r"):
        assert text in said
    assert main(["watch", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert re.match(r"done in \d s \| 2026-06-27 00:26:39 UTC \| visits 40 of 40 \| queue 0 \| busy 0 of 120 \| alerts "
                    r"20,000 sent, 0 late, 0 lost \| 98 % within 38\.0 s", lines[0])
    assert unfinished(folder) == ""
    assert not (folder / ".owner").exists()


def test_a_frame_fits_its_terminal(folder: Path) -> None:
    for width in (80, 100, 140):
        console = Console(width=width, file=io.StringIO())
        console.print(drawn(Watcher(folder).frame(), folder, width))
        assert isinstance(console.file, io.StringIO)
        said = console.file.getvalue()
        assert "…" not in said
        assert max(map(len, said.splitlines())) == width


def test_a_folder_without_a_run_is_one_error_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"alert-twin: {tmp_path}: no run to watch, it has no state.json\n"
    (tmp_path / "state.json").write_text('{"kind":')
    assert main(["watch", str(tmp_path)]) == 2
    assert "unreadable" in capsys.readouterr().err
    with pytest.raises(StoreError, match="unreadable"):
        read_state(tmp_path)
    (tmp_path / "state.json").unlink()
    (tmp_path / "seed_3").mkdir()
    (tmp_path / "seed_3" / "state.json").write_bytes(msgspec.json.encode(State(kind="counts")))
    with pytest.raises(InputError, match=r"several runs are in this folder; watch one of them, e\.g\. .*seed_3"):
        watch(tmp_path, once=True)


def test_a_run_is_owned_as_long_as_its_process_lives(tmp_path: Path) -> None:
    with begun(tmp_path / "run", State(kind="counts", of=9, doing="numbers")):
        assert is_owned(tmp_path / "run")
        assert look(tmp_path / "run")[1] is False
        with pytest.raises(InputError, match="another process is at this run"), owned(tmp_path / "run"):
            pass
        with pytest.raises(InputError, match=r"a run is going on in it \(process \d+, numbers, before the first of 9"):
            run_counts(read_scenario(SMALL), tmp_path / "run", beside=SCENARIOS)
        assert unfinished(tmp_path / "run") == "this run is still going: numbers, before the first of 9 visits"
    assert not is_owned(tmp_path / "run")


def test_a_watcher_reads_new_parts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with begun(tmp_path / "run", State(kind="counts")), ParquetRecorder(tmp_path / "run/measures") as recorder:
        from schemas.measures import PULSE

        watcher, read = Watcher(tmp_path / "run"), []
        since = Store.since
        monkeypatch.setattr(Store, "since", lambda self, name, part: read.append(part) or since(self, name, part))
        for at in range(3):
            rows = np.zeros(1, PULSE)
            rows["at_s"] = at
            recorder.append("pulse", rows)
            recorder.flush()
            assert watcher.frame().pulse["at_s"].tolist() == list(range(at + 1))
        assert read == [0, 1, 2]


def test_a_killed_run_is_known_for_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    child = subprocess.Popen([sys.executable, "-m", "twin.cli", "run", str(SMALL), "--out", str(out), "--quiet",
                              "--processes", "1", "counts.visits=2000", "counts.detectors=20"])
    try:
        deadline = time.monotonic() + 60
        while (state := read_state(out)) is None or state.night is None or state.night.opened < 100:
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.05)
        assert watch(out, once=True) == 0
        assert f"process {child.pid}" in capsys.readouterr().out
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    state, killed = look(out)
    assert state is not None
    assert state.night is not None
    assert killed
    assert watch(out) == 1
    at = state.night.opened
    assert f"killed at visit {at} of 2000" in capsys.readouterr().out
    assert main(["run", str(SMALL), "--out", str(out)]) == 2
    assert (f"the run in it did not finish (killed at visit {at} of 2000); `alert-twin resume {out}` takes it up, or "
            "remove the folder") in capsys.readouterr().err
    assert main(["report", str(out)]) == 2
    assert f"this run did not finish: killed at visit {at} of 2000" in capsys.readouterr().err


def test_a_night_of_pixels_can_be_reported_on_before_it_is_over(night: Path, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("night_pulse.TABLES_S", 0.0), ("night_pulse.TABLES_AGE", 0.0), ("night_pulse.SHARE", 1e9),
                        ("running.WRITE_S", 0.0)):          # whatever is due, is due now
        monkeypatch.setattr(f"twin.{name}", value)
    out, part = tmp_path / "run", tmp_path / "part"

    def progress(what: str, done: int, total: int) -> None:
        if (what, done) == ("detector-visits", 2):        # as if it were killed here
            assert unfinished(out).startswith("this run is still going: visit 2 of 2")
            shutil.copytree(out, part)

    run_night(small(), out, progress=progress)
    first, store = Store(night).table("exposure_log")[:1], Store(part)
    assert main(["report", str(part)]) == 0
    said = "this run did not finish: killed at visit 2 of 2"
    assert f"{part}: {said}" in capsys.readouterr().err
    assert said.capitalize() in (part / "report.html").read_text()
    assert store.table("exposure_log").tobytes() == first.tobytes()
    found, whole = json.loads((part / "report.json").read_text()), Store(night)
    assert [row["visit"] for row in found["exposures"]] == first["visit"].tolist()
    assert found["exposures"][0]["n_alerts"] == first["n_alerts"][0]
    of_log = store.of_log()
    for name in ("DiaSource", "truth", "measurement", "publication", "rejection"):
        rows = whole.table(name)
        mine = rows[rows["visit"] == first["visit"][0]]
        assert of_log.table(name).tobytes() == mine.tobytes(), name
    assert unfinished(out) == ""                          # and what came of it is the night that nobody looked at
    for name in ("DiaSource", "DiaObject", "truth", "measurement", "publication", "exposure_log"):
        assert Store(out).table(name).tobytes() == whole.table(name).tobytes(), name
    assert {p.name: p.read_bytes() for p in (out / "alerts").iterdir()} == {
        p.name: p.read_bytes() for p in (night / "alerts").iterdir()}
    state = read_state(out)
    assert state is not None
    assert state.night is not None
    delays = (whole.table("publication")["sent_mjd_tai"] - first["readout_end_mjd_tai"][0]) * 86400
    assert percentile_s(state.night.delays, 1) == pytest.approx(delays.min(), abs=0.51)
    assert state.night.sent == state.night.produced == len(delays)


def test_words_and_curves() -> None:
    assert clock(61218.0) == "2026-06-26 23:59:23 UTC"
    assert [duration(s) for s in (-3, 59.6, 3599, 3600, 90061)] == ["0 s", "1 min 00 s", "59 min 59 s", "1 h 00 min",
                                                                   "25 h 01 min"]
    assert curve(np.arange(9.0), np.arange(9.0), 8) == " ▁▂▃▄▅▆█"
    assert curve(np.arange(8.0), np.array([0, 0, 4, 0, 8, 0, 0, 1.0]), 7) == "  ▄ █ ▁"
    assert curve(np.arange(3.0), np.zeros(3), 5) == "     "
    assert curve(np.zeros(0), np.zeros(0)) == ""
