"""A broker in this process, real packets for it, and commands that read from it."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

import fastavro
from confluent_kafka import Producer

from pipeline.alerts.read import read_packet, schema_of, source_id
from schemas import alert
from tests.pipeline.alerts.test_package import full
from tests.servers.kafka import Kafka

ROOT = Path(__file__).resolve().parents[3]
FAST = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 300}     # a consumer that is gone is soon forgotten


@lru_cache(maxsize=4)
def packets(n: int = 12, per_object: int = 3) -> tuple[bytes, ...]:
    """Whole packets of one detector-visit, with histories and cutouts."""
    return tuple(full(n, per_object)[1].packets)


@lru_cache(maxsize=4)
def small_packets(n: int) -> tuple[bytes, ...]:
    """Packets without cutouts: the mock broker keeps 5 MB of a partition."""
    found = []
    for packet in packets(n, 1):
        buffer = io.BytesIO()
        record = read_packet(packet)
        record |= {name: None for name in record if name.startswith("cutout")}
        fastavro.schemaless_writer(buffer, schema_of(alert.SCHEMA_ID), record)
        found.append(alert.WIRE_HEADER + buffer.getvalue())
    return tuple(found)


def identifiers(found: Sequence[bytes]) -> list[int]:
    return [source_id(packet) for packet in found]


class Broker:
    """A topic of a real broker where one is given, else of librdkafka's mock cluster, which lives with its producer."""

    def __init__(self, kafka: Kafka | None, folder: Path) -> None:
        name = uuid4().hex[:12]
        self.topic, self.group = f"alerts-simulated-{name}", f"group-{name}"
        self.settings = folder / "librdkafka.properties"
        self.settings.write_text("".join(f"{key}={value}\n" for key, value in FAST.items()))
        self.real = kafka is not None
        mock: dict[str, object] = {} if kafka else {"test.mock.num.brokers": 1}
        self._producer = Producer({"bootstrap.servers": kafka.address() if kafka else "ignored:9092", "log_level": 0,
                                   "message.max.bytes": 8_000_000, **mock})
        if kafka is not None:
            kafka.topic(self.topic, 3)
        brokers = self._producer.list_topics(self.topic, timeout=10).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    @property
    def url(self) -> str:
        return f"kafka://{self.servers}/{self.topic}?config={self.settings}"

    @property
    def stream(self) -> tuple[str, ...]:
        """The options of a command that reads it to its end."""
        return "--kafka", self.url, "--group", self.group, "--stop-when-idle", "0.3"

    def send(self, values: Sequence[bytes]) -> None:
        for value in values:
            self._producer.produce(self.topic, value, headers=[("producer_timestamp", b"1772500000250")])
            self._producer.poll(0)
        assert self._producer.flush(20) == 0

    def close(self) -> None:
        self._producer.flush(5)


@contextmanager
def command(*words: object, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """`alert-twin WORDS` as a process of its own; killed at the end if it still runs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([sys.executable, "-m", "twin.cli", *map(str, words)], cwd=cwd or ROOT, text=True,
                               env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
