"""Processes, senders and brokers are killed at every moment: nothing is lost, nothing arrives twice, nothing is half.

The check reads the topic as a consumer does that takes committed messages and removes no duplicates itself. Two
controls show that it can fail: the real system's order of publication, and a sink without transactions.
"""

import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from pipeline.stores.duckdb import DuckDBStore
from tests.servers import consume
from tests.servers.fetch import missing
from tests.servers.fixtures import need
from tests.servers.kafka import Kafka
from tests.twin.lives import TABLES, Life, Lives, Nowhere, field_visit, work
from tests.twin.nights import ports_of
from twin.cli import main

_topics = itertools.count()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker of this file alone, since it is killed."""
    need(missing())
    made = Kafka(tmp_path_factory.mktemp("broker")).start()
    yield made
    made.kill()


@pytest.fixture(scope="module")
def lives() -> Iterator[Lives]:
    made = Lives()
    yield made
    made.close()


@pytest.fixture
def life(broker: Kafka, tmp_path: Path) -> Life:
    topic = broker.topic(f"alerts-simulated-{next(_topics)}", 3, **{"max.message.bytes": "8000000"})
    return Life(str(tmp_path / "night.db"), broker.address(), topic, visits=3)


@lru_cache
def undisturbed(visits: int, sources: int) -> dict[str, Counter[int]]:
    """Ids of every table after the same night in memory, without a fault."""
    ports = ports_of(recorder=Nowhere())
    work(Life("", "", "", visits, sources), ports.store, ports, lambda step: None)
    return {name: Counter(ports.store.table(name)[column].tolist()) for name, column in TABLES.items()}


def check(life: Life) -> str:
    """AssertionError where an alert is lost, arrives twice, or rows are not those of a night without faults."""
    store = DuckDBStore(Path(life.store))
    tables = {name: Counter(store.table(name)[column].tolist()) for name, column in TABLES.items()}
    waiting = sum(map(len, store.unsent()))
    visits = {int(visit) for visit in store.table("DetectorVisitProcessingSummary")["visit"]}
    store.close()
    assert waiting == 0, f"{waiting} packets still in the outbox"
    assert visits == {field_visit(i).visit for i in range(1, life.visits + 1)}
    for name, wanted in undisturbed(life.visits, life.sources).items():
        assert tables[name] == wanted, f"{name}: {sum((wanted - tables[name]).values())} rows missing, " \
                                       f"{sum((tables[name] - wanted).values())} too many"
    sent = tables["DiaSource"]
    seen = Counter(consume.ids(life.servers, life.topic))
    lost, twice = sent - seen, seen - sent
    assert not lost, f"{sum(lost.values())} of {len(sent)} alerts lost"
    assert not twice, f"{sum(twice.values())} alerts arrived twice"
    raw = Counter(consume.ids(life.servers, life.topic, committed=False))
    return f"{len(sent)} alerts once each; read_uncommitted sees {sum((raw - sent).values())} more"


def finish(lives: Lives, life: Life) -> None:
    ended = lives.lead(life)
    assert not ended["killed"]
    assert ended["error"] == ""


def test_a_night_without_faults_passes_the_check(lives: Lives, life: Life) -> None:
    finish(lives, life)
    assert check(life) == "24 alerts once each; read_uncommitted sees 0 more"


@pytest.mark.parametrize("kill_at", [3, 9, 12, 13, 14])
def test_a_pipeline_killed_at_a_step_goes_on_where_it_was(lives: Lives, life: Life, kill_at: int) -> None:
    """Among them the save, the reading of the outbox, the sending and the marking."""
    assert lives.lead(replace(life, kill_at=kill_at))["killed"]
    finish(lives, life)
    check(life)


def test_a_sender_killed_at_random_moments_goes_on_where_it_was(lives: Lives, life: Life) -> None:
    life = replace(life, visits=10)
    finish(lives, replace(life, deliver="no"))
    sender = replace(life, deliver="only")
    for moment in (0.15, 0.3, 0.45):
        lives.lead(replace(sender, kill_after_s=moment))
    for step in (2, 3):
        lives.lead(replace(sender, kill_at=step))
    finish(lives, sender)
    check(life)


def test_a_killed_broker_loses_nothing(lives: Lives, life: Life, broker: Kafka) -> None:
    life = replace(life, visits=100, sources=20)
    begun = time.monotonic()
    lives.begin(life)
    time.sleep(1.5)
    broker.kill()
    broker.start()
    restarted = time.monotonic() - begun
    ended = lives.end()
    assert ended["error"] == ""
    assert ended["seconds"] > restarted           # it went on after the broker was there again
    check(life)


def test_the_command_sends_what_a_crash_left_and_nothing_twice(lives: Lives, life: Life,
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    finish(lives, replace(life, stop_after=2))
    assert lives.lead(replace(life, kill_at=12))["killed"]        # saved, not sent
    command = ["deliver", f"duckdb:{life.store}", f"kafka://{life.servers}/{life.topic}?compression=lz4"]
    assert [main(command), main(command)] == [0, 0]
    assert capsys.readouterr().out == f"8 alerts sent from {command[1]}\n0 alerts sent from {command[1]}\n"
    check(life)


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deliver", f"duckdb:{tmp_path / 'x.db'}", "memory:"]) == 2
    assert f"there is no file {tmp_path / 'x.db'}" in capsys.readouterr().err
    assert not (tmp_path / "x.db").exists()


# --- controls ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kill_at", [10, 11])
def test_the_deployed_order_loses_what_was_saved_and_not_yet_sent(lives: Lives, life: Life, kill_at: int) -> None:
    life = replace(life, order="write_first")
    assert lives.lead(replace(life, kill_at=kill_at))["killed"]
    finish(lives, life)
    with pytest.raises(AssertionError, match="8 of 24 alerts lost"):
        check(life)


def test_a_sink_without_transactions_sends_twice(lives: Lives, life: Life) -> None:
    life = replace(life, transactions=False)
    assert lives.lead(replace(life, kill_at=13))["killed"]
    finish(lives, life)
    with pytest.raises(AssertionError, match="8 alerts arrived twice"):
        check(life)


# --- disks ------------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_a_clear_error_and_the_night_goes_on_when_there_is_room(lives: Lives, life: Life) -> None:
    """The packets of the second visit find no room; that the tables find none is tried with the outbox."""
    ended = lives.lead(replace(life, sources=16, file_size=900_000))
    assert ended["error"].startswith("RetriableError: ")
    assert ended["error"].endswith("packets not written: File too large")
    life = replace(life, sources=16)
    finish(lives, life)
    check(life)


def test_a_store_that_cannot_be_written_is_a_clear_error_and_goes_on_when_it_can(lives: Lives, life: Life) -> None:
    finish(lives, replace(life, stop_after=1))
    path = Path(life.store)
    for one in (path, *path.parent.rglob("*")):
        one.chmod(0o555 if one.is_dir() else 0o444)
    ended = lives.lead(replace(life, user=65534 if os.getuid() == 0 else 0))
    assert ended["error"].startswith("NonRetriableError: store ")
    assert "cannot be opened" in ended["error"]
    for one in (path, *path.parent.rglob("*")):
        one.chmod(0o755 if one.is_dir() else 0o644)
    finish(lives, life)
    check(life)


# --- many -------------------------------------------------------------------------------------------------------------


@pytest.mark.accept
def test_every_step_of_a_visit_and_of_its_delivery_may_be_the_last(lives: Lives, life: Life, broker: Kafka,
                                                                  tmp_path: Path) -> None:
    for kill_at in range(1, 30):
        one = replace(life, store=str(tmp_path / f"{kill_at}.db"), visits=2, topic=broker.topic(
            f"alerts-simulated-{next(_topics)}", 3, **{"max.message.bytes": "8000000"}))
        lives.lead(replace(one, kill_at=kill_at))
        finish(lives, one)
        check(one)


@pytest.mark.accept
def test_two_hundred_kills_lose_nothing(lives: Lives, life: Life, broker: Kafka) -> None:
    """100 at a Step, 60 of the pipeline and 30 of the sender at any moment, 10 of the broker, in random order."""
    rng = np.random.default_rng(20260305)
    life = replace(life, visits=400, sources=8)
    killed: Counter[str] = Counter()
    for kind in rng.permutation(["step"] * 100 + ["moment"] * 60 + ["sender"] * 30 + ["broker"] * 10).tolist():
        if kind == "step":
            one = replace(life, kill_at=int(rng.integers(1, 60)))
        elif kind == "moment":
            one = replace(life, kill_after_s=float(rng.uniform(0.05, 2.0)))
        elif kind == "sender":
            lives.lead(replace(life, deliver="no", stop_after=3))
            one = replace(life, deliver="only", kill_after_s=float(rng.uniform(0.05, 0.8)))
        else:
            one = replace(life, stop_after=8)
        lives.begin(one)
        if kind == "broker":
            time.sleep(float(rng.uniform(0.1, 1.0)))
            broker.kill()
            broker.start()
        ended = lives.end()
        assert ended["error"] == "", ended
        killed[kind] += ended["killed"] or kind == "broker"
    finish(lives, life)
    print(f"\n{dict(killed)} killed; {check(life)}")
    assert sum(killed.values()) >= 180          # some moments come after the end
