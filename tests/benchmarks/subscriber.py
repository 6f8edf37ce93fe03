"""A broker's developer: subscribes to a topic with confluent_kafka and decodes with fastavro and the schema package.

    python -m tests.benchmarks.subscriber BROKER TOPIC FILE

says "ready", notes every message in FILE until its standard input is closed and the topic's end is reached, and decodes
every alert with its three cutouts. Nothing of this project is imported.
"""

import io
import json
import selectors
import sys
import time
from collections import deque
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import fastavro
import lsst.alert.packet
from astropy.io import fits
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

CUTOUTS = ("cutoutDifference", "cutoutScience", "cutoutTemplate")


@lru_cache
def schema(identifier: int) -> Any:
    """The schema package's own schema of a Confluent id."""
    major, minor = divmod(identifier, 100)
    folder = lsst.alert.packet.get_schema_path(str(major), str(minor))
    return lsst.alert.packet.Schema.from_file(f"{folder}/lsst.v{major}_{minor}.alert.avsc")


def note(value: bytes, headers: list[tuple[str, bytes]], arrived: float) -> dict[str, Any]:
    """What a message held."""
    assert value[0] == 0
    identifier = int.from_bytes(value[1:5], "big")
    alert = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema(identifier).definition)
    assert schema(identifier).validate(alert)
    shapes, good = [], 0
    for name in CUTOUTS:
        with fits.open(io.BytesIO(alert[name])) as found:
            shapes.append(found[0].data.shape)
            good += int((found[0].data == found[0].data).sum())
    source = alert["diaSource"]
    return {"id": alert["diaSourceId"], "visit": source["visit"], "detector": source["detector"], "schema": identifier,
            "mjd": source["midpointMjdTai"], "arrived": arrived, "shapes": shapes, "good": good, "bytes": len(value),
            "headers": {name: content.decode() for name, content in headers}}


def main(broker: str, topic: str, path: str) -> None:
    """Subscribe until told to end."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "developer", "enable.auto.commit": False,
                         "isolation.level": "read_committed", "enable.partition.eof": True, "fetch.wait.max.ms": 10,
                         "auto.offset.reset": "earliest"})
    partitions = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    told = selectors.DefaultSelector()
    told.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)
    ending, ended = False, set[int]()
    waiting: deque[tuple[float, Message]] = deque()      # decoded when nothing comes: arrivals are noted in time
    with Path(path).open("w") as out:
        while waiting or not (ending and len(ended) == len(partitions)):
            message = consumer.poll(0.0 if waiting else 0.5)
            arrived = time.time()
            if not ending and told.select(0):
                ending, ended = True, set()
                consumer.assign([TopicPartition(topic, p.partition, p.offset)
                                 for p in consumer.position([TopicPartition(topic, one) for one in partitions])])
            if message is None:
                if waiting:
                    write(*waiting.popleft(), out)
                continue
            if message.error() is not None:
                if message.error().code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
                continue
            waiting.append((arrived, message))
    consumer.close()


def write(arrived: float, message: Message, out: IO[str]) -> None:
    """Decode a message and note it."""
    print(json.dumps({**note(message.value(), message.headers() or [], arrived), "partition": message.partition()}),
          file=out, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
