"""A broker in this process, real packets for it, and commands that read from it."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import fastavro
from confluent_kafka import Producer

from pipeline.alerts.read import read_packet, schema_of, source_id
from schemas import alert
from tests.pipeline.alerts.test_package import full

ROOT = Path(__file__).resolve().parents[3]
TOPIC = "alerts-simulated"
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
    """librdkafka's mock cluster, which lives as long as its producer."""

    def __init__(self) -> None:
        self._producer = Producer({"bootstrap.servers": "ignored:9092", "test.mock.num.brokers": 1, "log_level": 0,
                                   "message.max.bytes": 8_000_000})
        brokers = self._producer.list_topics(TOPIC, timeout=10).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def url(self, topic: str = TOPIC) -> str:
        return f"kafka://{self.servers}/{topic}"

    def send(self, values: Sequence[bytes], topic: str = TOPIC) -> None:
        for value in values:
            self._producer.produce(topic, value, headers=[("producer_timestamp", b"1772500000250")])
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
