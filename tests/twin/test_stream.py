"""A night on the wall clock: its pace, its disorder on purpose, its folder."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import simpy

from pipeline.alerts.read import from_container, read_packet, source_id
from pipeline.config import PipelineConfig
from pipeline.ephemerides import TableEphemerides
from pipeline.errors import NonRetriableError, PipelineError, RetriableError
from pipeline.ports import AlertSink, Ports, Position, Segment
from pipeline.prompt import deliver
from pipeline.satellites import TrackSatellites
from pipeline.sinks.memory import MemorySink
from pipeline.steps import run
from pipeline.stores.duckdb import DuckDBStore
from reports.store import Store
from schemas import ids
from schemas.measures import EPHEMERIS, PUBLICATION, SENDING, TRACK, empty
from tests.twin.lives import Nowhere
from tests.twin.streams import CATALOGUE, NIGHT, Inbox, pulse, row_of
from twin import stream
from twin.cli import main
from twin.commands.stream import _url
from twin.pacing import WallClock, pace
from twin.pool import BEHIND, open_background, open_pool
from twin.posting import Disorder, Post, lags
from twin.scenario import to_toml
from twin.stream import Ending, Sent, Streaming, night_of, run_stream

# --- pace ------------------------------------------------------------------------------------------------------------


class Wall:
    """A wall clock that moves when somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def rest(self, seconds: float) -> bool:
        self.now += max(seconds, 0.0)
        return True


def happened(speed: float, ahead_s: float, *, cost_s: float = 0.0) -> list[tuple[float, float]]:
    """(simulated, wall) seconds of events at 10, 20, ... 50 s, each taking `cost_s` of the wall to compute."""
    wall, env, out = Wall(), simpy.Environment(), []

    def beat() -> Iterator[simpy.Event]:
        for _ in range(5):
            yield env.timeout(10.0)
            wall.now += cost_s
            out.append((env.now, wall.now - 100.0))

    clock = WallClock(10.0, 60000.0, speed, monotonic=wall, unix=wall)
    assert pace(env, env.process(beat()), clock, wall.rest, ahead_s)
    return out


@pytest.mark.parametrize("speed", [0.5, 1.0, 20.0])
def test_what_happens_happens_when_the_wall_clock_says(speed: float) -> None:
    for simulated, wall in happened(speed, 0.0):
        assert wall == pytest.approx((simulated - 10.0) / speed, abs=1e-9)


def test_what_may_be_computed_ahead_is_and_no_earlier() -> None:
    assert [wall for _, wall in happened(1.0, 15.0)] == pytest.approx([0.0, 0.0, 5.0, 15.0, 25.0])


def test_the_clock_does_not_wait_for_a_machine_that_is_too_slow() -> None:
    took = happened(10.0, 0.0, cost_s=3.0)      # the first before the clock runs; the second is due 1 s after that
    assert [wall for _, wall in took] == pytest.approx([3.0, 7.0, 10.0, 13.0, 16.0])


def test_a_night_does_not_begin_before_its_hour() -> None:
    wall = Wall()
    env = simpy.Environment()
    clock = WallClock(0.0, 60000.0, 1.0, monotonic=wall, unix=wall, not_before=160.0)
    assert pace(env, env.timeout(5.0), clock, wall.rest, 10.0)
    assert clock.start == pytest.approx(160.0)


# --- disorder --------------------------------------------------------------------------------------------------------

BAD = Disorder(duplicates=0.2, reorder=0.3, window_s=20.0, late=0.1, late_by_s=50.0)


def posted(disorder: Disorder, sink: AlertSink, *, n_batches: int = 20, each: int = 25, remember: bool = False
           ) -> np.ndarray:
    """SENDING rows of batches that a night sends a second apart, at 100 times the speed."""
    clock = WallClock(0.0, 60000.0, 100.0)
    now = [0.0]
    post = Post(sink, clock, lambda: now[0], disorder, 7)
    for batch in range(n_batches):
        now[0] = 1.0 + batch
        packets = [pulse(batch * each + k) for k in range(each)]
        place = Position("night", (batch + 1) * each, batch) if remember else None
        assert post.send(packets, [], place) == each
    clock.run()
    post.begin(sink)
    end = time.monotonic() + 20.0
    while post.waiting and time.monotonic() < end:
        post.check()
        time.sleep(0.005)
    post.close()
    post.check()
    return np.concatenate(post.sent())


def test_without_disorder_every_alert_comes_once_in_its_order() -> None:
    sink = MemorySink()
    rows = posted(Disorder(), sink)
    came = [source_id(packet) for packet in sink.packets]
    assert came == rows["diaSourceId"].tolist() == sorted(came)
    assert len(set(came)) == len(came) == 500
    assert (rows["copies"] == 1).all()
    assert not (rows["late"] | rows["reordered"]).any()


def test_what_comes_is_what_the_table_says_of_duplicates_order_and_lateness() -> None:
    sink = MemorySink()
    rows = posted(BAD, sink)
    came = [source_id(packet) for packet in sink.packets]
    assert came == rows["diaSourceId"].tolist()
    first = rows[rows["copy"] == 0]
    assert len(first) == 500
    for share, meant in ((0.2, first["copies"] == 2), (0.3, first["reordered"]), (0.1, first["late"])):
        assert abs(meant.sum() - 500 * share) < 4 * np.sqrt(500 * share * (1 - share))
    assert len(came) - len(set(came)) == (first["copies"] - 1).sum()
    delay = 86400 * (first["due_mjd_tai"] - first["promised_mjd_tai"])
    assert delay[first["late"]].min() > 50.0 - 1e-4
    kept_back = first["reordered"] & ~first["late"]
    assert 0 < delay[kept_back].min() < delay[kept_back].max() <= 20.0 + 1e-4
    assert (np.abs(delay[~first["reordered"] & ~first["late"]]) < 1e-4).all()
    assert (np.diff(first["promised_mjd_tai"]) < 0).any()


def test_the_same_seed_makes_the_same_disorder_however_alerts_are_batched() -> None:
    one, other = (posted(BAD, MemorySink(), n_batches=n, each=500 // n) for n in (10, 50))
    for name in ("copies", "reordered", "late"):
        assert dict(zip(one["diaSourceId"].tolist(), one[name].tolist(), strict=True)) == \
            dict(zip(other["diaSourceId"].tolist(), other[name].tolist(), strict=True))


class Forgetful(MemorySink):
    """Keeps positions as Kafka does; of every third sending the answer is lost, of every fifth the packets."""

    remembers = True     # type: ignore[misc]  # of a MemorySink it is False

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[str, Position] = {}
        self.tries = 0

    def position(self, outbox: str) -> Position | None:
        return self.at.get(outbox)

    def send(self, packets: Sequence[bytes], keys: Sequence[int] = (), position: Position | None = None) -> int:
        assert position is not None
        self.tries += 1
        if self.tries % 5 == 0:
            raise RetriableError("nothing arrived")
        assert position.outbox not in self.at or self.at[position.outbox].sequence < position.sequence
        super().send(packets)
        self.at[position.outbox] = position
        if self.tries % 3 == 0:
            raise RetriableError("it arrived, and the answer was lost")
        return len(packets)


def test_a_sink_that_remembers_holds_exactly_what_was_meant_through_lost_answers(monkeypatch: pytest.MonkeyPatch
                                                                               ) -> None:
    monkeypatch.setattr("twin.posting.AGAIN_S", 0.002)
    sink = Forgetful()
    rows = posted(BAD, sink, remember=True)
    came = [source_id(packet) for packet in sink.packets]
    assert sink.tries > 10
    assert sorted(came) == sorted(rows["diaSourceId"].tolist())
    assert len(came) - len(set(came)) == (rows["copy"] == 1).sum() > 0
    assert {outbox: place.sequence for outbox, place in sink.at.items()} == {
        "night": 500, "night-disorder": len(rows) - sum(row_of(rows, i)["plain"] for i in set(came))}


def test_a_sink_that_is_gone_for_good_ends_the_stream() -> None:
    class Gone(MemorySink):
        def send(self, packets: Sequence[bytes], keys: Sequence[int] = (), position: Position | None = None) -> int:
            raise NonRetriableError("the topic is gone")

    with pytest.raises(NonRetriableError, match="the topic is gone"):
        posted(Disorder(), Gone())


# --- a night ---------------------------------------------------------------------------------------------------------

SPEED = 25.0


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sent, Inbox]:
    """The small night at high speed, rendered here, with disorder."""
    inbox, folder = Inbox(), tmp_path_factory.mktemp("stream") / "run"
    how = Streaming(SPEED, Disorder(duplicates=0.2, reorder=0.2, window_s=20.0, late=0.1, late_by_s=30.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "open_background", lambda processes: open_pool(1))
        [sent] = run_stream(NIGHT, folder, "memory:", how, opener=inbox.open)
    return sent, inbox


def test_a_stream_is_what_the_night_sends_and_when(streamed: tuple[Sent, Inbox]) -> None:
    sent, inbox = streamed
    store = Store(sent.folder)
    rows = store.table("sending")
    assert not sent.ended
    assert [source_id(packet) for _, packet in inbox.came] == rows["diaSourceId"].tolist()
    assert set(rows["diaSourceId"]) == set(store.table("DiaSource")["diaSourceId"])
    due = 86400 * (rows["due_mjd_tai"] - rows["due_mjd_tai"][0]) / SPEED
    assert due == pytest.approx(rows["due_unix_s"] - rows["due_unix_s"][0], abs=2e-3)
    assert lags(rows).min() > -1e-3
    assert inbox.visits_apart_s() * SPEED == pytest.approx(inbox.visits_apart_simulated_s(rows), rel=0.3)


def test_the_negative_control_without_a_pace_fails_that(streamed: tuple[Sent, Inbox]) -> None:
    """The alerts of a night at once come in no time: the check above tells a stream from a run."""
    sent, inbox = streamed
    at_once = Inbox([(1e-3 * i, packet) for i, (_, packet) in enumerate(inbox.came)])
    apart = at_once.visits_apart_simulated_s(Store(sent.folder).table("sending"))
    assert at_once.visits_apart_s() * SPEED != pytest.approx(apart, rel=0.3)


def test_publications_are_what_was_sent_and_truth_is_joined_by_id(streamed: tuple[Sent, Inbox]) -> None:
    sent, inbox = streamed
    store = Store(sent.folder)
    rows = store.table("publication")
    assert sorted(rows["diaSourceId"].tolist()) == sorted({source_id(packet) for _, packet in inbox.came})
    joined = documented(1, sent.folder)
    assert {row[0] for row in joined} == set(rows["diaSourceId"].tolist())
    strong = {row[0] for row in joined if row[1] == "transient" and row[2] > 12}
    assert len(strong) > 5
    alerts = {source_id(packet): read_packet(packet) for _, packet in inbox.came}
    truth = {(t["visit"], t["truthId"]): t for t in store.table("truth")}
    for identifier, kind, _, number, _ in joined:
        if kind is not None:
            source, true = alerts[identifier]["diaSource"], truth[int(source_visit(identifier)), number]
            assert np.hypot(source["x"] - true["x"], source["y"] - true["y"]) < 3.0
    facts = store.facts()
    assert facts["complete"] == "True"
    assert float(facts["lag_worst_s"]) == pytest.approx(lags(store.table("sending")).max(), abs=1e-3)


def test_the_counts_that_a_consumer_is_told_to_expect_are_what_came(streamed: tuple[Sent, Inbox]) -> None:
    sent, inbox = streamed
    [(messages, alerts, doubled, reordered, late)] = documented(0, sent.folder)
    came = [source_id(packet) for _, packet in inbox.came]
    assert (messages, alerts, doubled) == (len(came), len(set(came)), len(came) - len(set(came)))
    assert doubled > 0
    assert f"{doubled} twice, {reordered} out of order, {late} late, on purpose" in str(sent)


def documented(number: int, folder: Path) -> list[tuple[Any, ...]]:
    """What a query of the consumers' page gives on a run folder."""
    text = Path(__file__).parents[2].joinpath("docs", "consumers.md").read_text()
    sql = text.split("```sql\n")[1 + number].partition("```")[0].replace("stream/measures", str(folder / "measures"))
    found: list[tuple[Any, ...]] = duckdb.sql(sql).fetchall()
    return found


def source_visit(identifier: int) -> int:
    return int(ids.unpack(np.array([identifier])).visit[0])


def test_neither_the_pipeline_nor_the_broker_has_to_say_first_that_an_alert_is_sent(tmp_path: Path) -> None:
    """A machine that is behind sends before the pipeline has marked."""
    sending, published = empty(SENDING, 2), empty(PUBLICATION, 2)
    sending["diaSourceId"], sending["copy"], sending["visit"], sending["detector"] = (1, 2), 0, 7, 94
    published["diaSourceId"], sending["due_mjd_tai"] = (1, 2), 60000.0
    segment = Segment(7, 94, np.array([1, 2]), (b"", b""))

    class Marks:
        done = 0

        def mark_sent(self, segment: Segment) -> None:
            self.done += 1

        def unsent(self) -> list[Segment]:
            return [segment]

    for broker_first in (True, False):
        recorder, marks = stream.Published(tmp_path / f"{broker_first}" / "measures"), Marks()
        store = stream.Noting(marks, None)
        steps = [lambda s=store, r=recorder: (s.sent(sending[:1]), r.sent(sending[:1])),
                 lambda s=store, r=recorder: (s.mark_sent(segment), r.append("publication", published))]
        assert store.unsent() == [segment]
        for step in steps if broker_first else steps[::-1]:
            step()
        assert (marks.done, store.unsent()) == (0, [])
        store.sent(sending[1:])
        recorder.sent(sending[1:])
        recorder.close()
        assert marks.done == 1
        assert Store(tmp_path / f"{broker_first}").table("publication")["diaSourceId"].tolist() == [1, 2]


def test_a_stream_that_is_interrupted_keeps_a_whole_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "open_background", lambda processes: open_pool(1))
    inbox, ending = Inbox(), Ending()
    inbox.after, inbox.then = 1, ending.ask
    [sent] = run_stream(NIGHT, tmp_path / "run", "memory:", Streaming(SPEED, nights=1), ending=ending,
                        opener=inbox.open)
    store = Store(tmp_path / "run")
    assert sent.ended
    assert 0 < len(store.table("publication")) == len(sent.rows)
    assert len(np.unique(store.table("publication")["visit"])) < 4
    assert set(store.table("publication")["diaSourceId"]) <= set(store.table("DiaSource")["diaSourceId"])
    assert store.facts()["complete"] == "False"
    assert not (tmp_path / "run" / "scratch").exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "post"]
    assert "ended, " in str(sent)
    sink = MemorySink()
    ports = Ports(lambda: 0.0, DuckDBStore(tmp_path / "run" / "prompt.duckdb"), sink, Nowhere(),
                  TableEphemerides(empty(EPHEMERIS)), TrackSatellites(empty(TRACK)))
    try:
        run(deliver(ports, PipelineConfig()))
    finally:
        ports.store.close()
    later = [source_id(packet) for packet in sink.packets]     # what is left is what was not sent, in the outbox
    assert sorted(later + sent.rows["diaSourceId"].tolist()) == sorted(store.table("DiaSource")["diaSourceId"].tolist())


def test_the_command_ends_cleanly_at_an_interrupt(tmp_path: Path) -> None:
    scenario, out = tmp_path / "night.toml", tmp_path / "run"
    scenario.write_text(to_toml(CATALOGUE))
    command = [sys.executable, "-m", "twin.cli", "stream", str(scenario), "--sink", f"file:{tmp_path / 'alerts'}",
               "--out", str(out), "--speed", "30"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "the clock runs: mjd_tai=" in process.stderr.readline()
    end = time.monotonic() + 30.0
    while not list((tmp_path / "alerts").glob("*.avro")) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said, more = process.communicate(timeout=60)
    assert process.returncode == 0, more
    assert said.count("\n") == 1
    rows = Store(out).table("sending")
    assert 0 < len(rows) == sum(len(from_container(path.read_bytes())) for path in (tmp_path / "alerts").iterdir())
    assert said.startswith(f"{len(rows)} alerts of {len(np.unique(rows['visit']))} visits sent; lag median ")
    assert "; ended, " in said
    assert set(rows["diaSourceId"]) <= set(Store(out).table("DiaSource")["diaSourceId"])


def test_a_process_that_dies_ends_the_stream_in_one_line_and_the_folder_stays(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(conduct: stream.OnTheWall, seconds: float) -> bool:
        if conduct.rows:
            raise BrokenExecutor("a child process terminated abruptly")
        return rest(conduct, seconds)

    rest = stream.OnTheWall._rest
    monkeypatch.setattr(stream, "open_background", lambda processes: open_pool(1))
    monkeypatch.setattr(stream.OnTheWall, "_rest", killed)
    nights = run_stream(CATALOGUE, tmp_path / "run", "memory:", Streaming(100.0), opener=Inbox().open)
    assert len(next(nights).rows) == len(Store(tmp_path / "run").table("publication")) > 0
    with pytest.raises(PipelineError, match="a process that renders images died, perhaps for want of memory"):
        next(nights)


def nice_and_deaf() -> tuple[int, bool]:
    """Whether this process gives way, and does not hear an interrupt."""
    return os.nice(0), signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_processes_that_render_give_way_and_leave_interrupts_to_the_night() -> None:
    with open_background(1) as pool:
        assert pool.submit(nice_and_deaf).result() == (os.nice(0) + BEHIND, True)


# --- nights ----------------------------------------------------------------------------------------------------------


def test_nights_go_on_one_after_the_other_until_they_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "open_background", lambda processes: open_pool(1))
    inbox, ending, sent = Inbox(), Ending(), []
    for one in run_stream(CATALOGUE, tmp_path, "memory:", Streaming(600.0, nights=np.inf), ending=ending,
                          opener=inbox.open):
        sent.append(one)
        if len(sent) == 2:
            ending.wanted.set()
    assert [one.folder.name for one in sent] == ["seed_2", "seed_3"]
    assert not any(one.ended for one in sent)
    came = [source_id(packet) for _, packet in inbox.came]
    assert len(set(came)) == len(came) == sum(len(one.rows) for one in sent)


def test_brokers_are_named_by_host_and_port_or_by_a_whole_url() -> None:
    assert _url("a:1,b:2") == "kafka://a:1,b:2/alerts-simulated"
    assert _url("kafka+tls://a:1/mine") == "kafka+tls://a:1/mine"


def test_the_next_night_has_the_next_seed_and_other_visits() -> None:
    how = Streaming(nights=3)
    first, second = night_of(NIGHT, 0, how), night_of(NIGHT, 1, how)
    assert first == NIGHT
    assert second.seed == NIGHT.seed + 1
    assert second.simulation.cadence.night_mjd == NIGHT.simulation.cadence.night_mjd + 1


def test_a_night_of_now_begins_in_so_many_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "tai_now", lambda: 61700.3)
    night = night_of(NIGHT, 0, Streaming(prepare_min=12.0))
    assert night.simulation.cadence.start_mjd_tai == pytest.approx(61700.3 + 12 / 1440)
    assert abs(night.simulation.cadence.night_mjd - 61700.3) <= 1.0
    assert 1.0 <= (night.simulation.conditions.airmass or 0.0) < 1.3


@pytest.mark.parametrize(("how", "match"), [
    (["--speed", "0"], "speed 0: expected simulated seconds per second, more than 0"),
    (["--speed", "nan"], "speed nan"),
    (["--duplicates", "1.5"], r"duplicates 1.5: expected a share of the alerts, 0 to 1"),
    (["--reorder", "-0.1"], "reorder -0.1: expected a share"),
    (["--late", "2"], "late 2: expected a share"),
    (["--late-by", "-1"], "late-by -1: expected seconds"),
    (["--repeat", "0"], "repeat 0: expected a number of nights"),
    (["--repeat", "--now"], "--now goes not with --repeat"),
    (["pipeline.alert.packets=counted"], "its packets are counted and not made"),
    (["fidelity=counts"], "name detectors in [fidelities]"),
    (["--duplicates", "0.1", "--sink", "file:a"], "--duplicates needs Kafka"),
    (["--sink", "kafka://127.0.0.1:1/mine"], "alerts-simulated")])
def test_what_cannot_be_streamed_is_one_line(how: list[str], match: str, tmp_path: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    sink = [] if "--sink" in how else ["--sink", "memory:"]
    path = tmp_path / "night.toml"
    path.write_text('name = "night"\n')
    assert main(["stream", str(path), "--out", str(tmp_path / "run"), *sink, *how]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert match in said
    assert not (tmp_path / "run").exists()
