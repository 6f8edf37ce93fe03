"""What consumers see."""

import time
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from pipeline.alerts.read import source_id


def messages(servers: str, topic: str, *, committed: bool = True, timeout_s: float = 30.0, **settings: object
             ) -> Iterator[Message]:
    """Everything a topic holds now; AssertionError where its end is not reached in time."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "test", "enable.auto.commit": False,
                         "auto.offset.reset": "earliest", "enable.partition.eof": True, "fetch.wait.max.ms": 10,
                         "isolation.level": "read_committed" if committed else "read_uncommitted", **settings})
    try:
        open_ones = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, 0) for partition in open_ones])
        end = time.monotonic() + timeout_s
        while open_ones:
            assert time.monotonic() < end, f"{topic}: partitions {open_ones} not read to their end"
            message = consumer.poll(0.5)
            error = None if message is None else message.error()
            if message is not None and error is None:
                yield message
            elif error is not None and error.code() == KafkaError._PARTITION_EOF:
                open_ones.discard(message.partition())
    finally:
        consumer.close()


def ids(servers: str, topic: str, *, committed: bool = True) -> list[int]:
    """diaSourceIds of everything a topic holds, in the order of each partition."""
    return [source_id(message.value()) for message in messages(servers, topic, committed=committed)]
