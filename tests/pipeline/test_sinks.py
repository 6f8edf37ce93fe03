"""One battery for every alert sink."""

import struct
import time

import confluent_kafka
import numpy as np
import pytest

from pipeline.alerts.read import read_packets, source_id
from pipeline.alerts.rows import long
from pipeline.errors import InputError, NonRetriableError, RetriableError
from pipeline.open import open_sink
from pipeline.ports import Position
from pipeline.sinks.files import FileSink
from pipeline.sinks.kafka import KafkaSink
from pipeline.sinks.memory import MemorySink
from schemas import alert, ids

VISIT = 2026030500055
TOPIC = "alerts-simulated"


def packets(n, detector=95, size=200):
    """Small packets: the wire header, a diaSourceId, and bytes that differ."""
    found = ids.source_ids(VISIT, detector, np.arange(n)).tolist()
    return [alert.WIRE_HEADER + long(one) + bytes([one % 251]) * (size + one % 7) for one in found]


class MemoryBackend:
    def __init__(self, folder):
        self.sink = MemorySink()

    def received(self, n):
        return self.sink.packets


class FilesBackend:
    def __init__(self, folder):
        self.folder = folder / "alerts"
        self.sink = FileSink(self.folder)

    def received(self, n):
        return list(read_packets(self.folder))


class KafkaBackend:
    """A broker of librdkafka's mock cluster, which lives as long as its producer."""

    def __init__(self, folder):
        self.sink = KafkaSink("ignored:9092", TOPIC, headers={"simulated": "true"}, now=lambda: 1772500000.25,
                              settings={"test.mock.num.brokers": 1})
        brokers = self.sink._producer.list_topics(TOPIC, timeout=10).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def messages(self, n):
        consumer = confluent_kafka.Consumer({
            "bootstrap.servers": self.servers, "group.id": "test", "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "security.protocol": "plaintext"})
        metadata = consumer.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
        consumer.assign([confluent_kafka.TopicPartition(TOPIC, partition, 0) for partition in metadata])
        found, end = [], time.monotonic() + 10
        while len(found) < n and time.monotonic() < end:
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                found.append(message)
        consumer.close()
        return found

    def received(self, n):
        return [message.value() for message in self.messages(n)]


@pytest.fixture(params=[MemoryBackend, FilesBackend, KafkaBackend], ids=["memory", "files", "kafka"])
def backend(request, tmp_path):
    made = request.param(tmp_path)
    yield made
    made.sink.close()


def test_every_packet_arrives_unchanged(backend):
    sent = packets(40) + packets(1, detector=96, size=300_000)
    assert backend.sink.send(sent[:40]) == 40
    assert backend.sink.send(sent[40:]) == 1
    assert sorted(backend.received(41)) == sorted(sent)


def test_nothing_sent_is_nothing_acknowledged(backend):
    assert backend.sink.send([]) == 0


@pytest.fixture
def kafka(tmp_path):
    backend = KafkaBackend(tmp_path)
    yield backend
    backend.sink.close()


def test_kafka_messages_say_when_they_were_produced_and_that_they_are_simulated(kafka):
    kafka.sink.send(packets(3))
    for message in kafka.messages(3):
        headers = dict(message.headers())
        assert headers == {"producer_timestamp": b"1772500000250", "simulated": b"true"}
        assert message.key() is None
        assert struct.unpack(">bi", message.value()[:5]) == (0, 1101)


def test_positions_survive_their_sender_on_a_mock_cluster_too():
    """What a machine without a real broker can try of exactly once: `test_kafka` has the rest."""
    holder = confluent_kafka.Producer({"bootstrap.servers": "ignored:9092", "test.mock.num.brokers": 1})
    brokers = holder.list_topics(TOPIC, timeout=10).brokers.values()
    holder.list_topics(f"{TOPIC}.positions", timeout=10)             # made by being asked for
    servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    first = KafkaSink(servers, TOPIC)
    assert first.position("mine") is None
    assert first.send(packets(3), (), Position("mine", 3, 7)) == 3
    first.close()
    second = KafkaSink(servers, TOPIC)
    assert second.position("mine") == Position("mine", 3, 7)
    assert second.position("another") is None
    with pytest.raises(NonRetriableError, match="outbox mine: sequence 3 was sent before"):
        second.send(packets(1), (), Position("mine", 3, 7))
    second.close()


def test_an_unreachable_broker_is_retriable_and_says_why():
    sink = KafkaSink("127.0.0.1:1", TOPIC, delivery_s=0.3, settings={"log_level": 0})
    with pytest.raises(RetriableError, match="none of 2 alerts reached topic alerts-simulated"):
        sink.send(packets(2))


def test_a_gap_in_the_acknowledgements_ends_the_count():
    from pipeline.sinks.kafka import _Outcome

    outcome = _Outcome(4)
    for number, error in ((0, None), (1, None), (2, "lost"), (3, None)):
        outcome.note(number, error, None)
    assert outcome.first() == 2
    assert outcome.reason == "lost"


def test_a_batch_sent_twice_leaves_one_file(tmp_path):
    sink = FileSink(tmp_path)
    for _ in range(2):
        sink.send(packets(5))
    sink.send(packets(3, detector=96))
    first = source_id(packets(1)[0])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"{VISIT}_095_{first}.avro", f"{VISIT}_096_{source_id(packets(1, 96)[0])}.avro"]
    assert list(read_packets(tmp_path)) == packets(5) + packets(3, detector=96)


def test_a_folder_that_vanished_is_retriable_and_leaves_nothing(tmp_path):
    sink = FileSink(tmp_path / "alerts")
    (tmp_path / "alerts").rmdir()
    with pytest.raises(RetriableError, match="alerts not written to"):
        sink.send(packets(2))
    assert list(tmp_path.iterdir()) == []


def test_urls_open_their_sinks(tmp_path):
    assert isinstance(open_sink("memory:"), MemorySink)
    files = open_sink(f"file:{tmp_path / 'a' / 'b'}/")
    assert isinstance(files, FileSink)
    assert (tmp_path / "a" / "b").is_dir()
    kafka = open_sink("kafka://127.0.0.1:1/alerts-simulated")
    assert isinstance(kafka, KafkaSink)
    assert kafka.topic == TOPIC


@pytest.mark.parametrize("url", ["kafka://host:9092", "kafka://host:9092/a/b", "kafka:///topic", "kafka:host/topic",
                                 "http://x/y", "file:", "memory", "", "memory:x"])
def test_an_unknown_sink_is_refused_by_name(url):
    with pytest.raises(InputError, match=f"alert sink '{url}': expected kafka://host:port/topic"):
        open_sink(url)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="alert sink"):
        open_sink(f"file:{tmp_path / 'file' / 'under'}")


@pytest.mark.bench
def test_sending_to_a_mock_broker(benchmark, kafka):
    sent = packets(100, size=120_000)
    assert benchmark.pedantic(lambda: kafka.sink.send(sent), rounds=3) == 100
