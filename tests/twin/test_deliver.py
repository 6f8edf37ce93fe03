"""`alert-twin deliver` and production to a broker."""

from pathlib import Path

import pytest

from pipeline.open import open_store
from tests.pipeline.test_kafka import filled
from tests.servers import consume
from tests.servers.kafka import Kafka
from twin.cli import main


def test_the_command_sends_what_an_outbox_holds_and_nothing_twice(kafka_server: Kafka, tmp_path: Path,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    topic = kafka_server.topic("alerts-simulated-deliver", 3)
    url = f"duckdb:{tmp_path / 'night.db'}"
    store = open_store(url)
    sent = filled(store, [1, 2, 3])
    store.close()
    sink = f"kafka://{kafka_server.address()}/{topic}?compression=lz4&key=object"
    assert main(["deliver", url, sink]) == 0
    assert main(["deliver", url, sink]) == 0
    assert capsys.readouterr().out == f"15 alerts sent from {url}\n0 alerts sent from {url}\n"
    assert sorted(consume.ids(kafka_server.address(), topic)) == sent


def test_a_store_or_a_broker_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deliver", f"duckdb:{tmp_path / 'x.db'}", "memory:"]) == 2
    assert f"there is no file {tmp_path / 'x.db'}" in capsys.readouterr().err
    assert not (tmp_path / "x.db").exists()
