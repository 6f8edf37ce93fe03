"""A consumer of committed messages in a process of its own: says when it is ready, and when it had them all.

`python -m tests.benchmarks.consumer SERVERS TOPIC N` prints `ready`, and then JSON: the second (of the machine's
monotonic clock) at which the N-th distinct diaSourceId had come, and how many came twice. What it has read it deletes
from the broker, so that a long run does not fill the disk.
"""

import json
import sys
import time

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.alerts.read import source_id

DELETE_BYTES = 400_000_000


def consume(servers: str, topic: str, n: int, timeout_s: float = 900.0) -> dict[str, float]:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "bench", "enable.auto.commit": False,
                         "isolation.level": "read_committed", "auto.offset.reset": "earliest",
                         "queued.max.messages.kbytes": 65_536, "fetch.message.max.bytes": 4 * 1024 * 1024})
    admin = AdminClient({"bootstrap.servers": servers})
    partitions = [TopicPartition(topic, partition, 0) for partition in
                  consumer.list_topics(topic, timeout=10).topics[topic].partitions]
    consumer.assign(partitions)
    consumer.poll(0.5)
    print("ready", flush=True)
    begun = time.process_time()
    seen: set[int] = set()
    total = size = since = 0
    end = time.monotonic() + timeout_s
    while len(seen) < n and time.monotonic() < end:
        for message in consumer.consume(200, 0.05):
            if message.error() is None:
                seen.add(source_id(message.value()))
                total += 1
                size += len(message.value())
                since += len(message.value())
        if since > DELETE_BYTES:
            since = 0
            admin.delete_records([p for p in consumer.position(partitions) if p.offset > 0])
    done = time.monotonic()
    consumer.close()
    return {"done": done, "distinct": len(seen), "twice": total - len(seen), "bytes": size,
            "cpu_s": time.process_time() - begun}


if __name__ == "__main__":
    print(json.dumps(consume(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
