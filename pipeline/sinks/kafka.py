"""A sink that produces to a Kafka topic, as Rubin's packager is configured (ap_association packageAlerts.py).

Every message has a header `producer_timestamp` (milliseconds) and no key. Delivery is at least once: what follows the
first missing acknowledgement is sent again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaException, Message, Producer

from pipeline.errors import RetriableError

SETTINGS: Final[dict[str, Any]] = {
    "compression.type": "snappy", "batch.size": 2 * 1024 * 1024, "linger.ms": 5, "enable.idempotence": True,
    "message.max.bytes": 4_000_000,          # a packet with a long history has 300 kB
    "queue.buffering.max.kbytes": 262_144}
DELIVERY_S: Final = 30.0                     # how long a batch may take; the deployed 1.2 s loses alerts silently


class KafkaSink:
    """Produces every packet and waits for its acknowledgement."""

    def __init__(self, servers: str, topic: str, *, headers: Mapping[str, str] | None = None,
                 settings: Mapping[str, Any] | None = None, delivery_s: float = DELIVERY_S,
                 now: Callable[[], float] = time.time) -> None:
        self.topic = topic
        self._headers = [(key, value.encode()) for key, value in (headers or {}).items()]
        self._delivery_s, self._now = delivery_s, now
        self._producer = Producer({**SETTINGS, "delivery.timeout.ms": int(delivery_s * 1000),
                                   **(settings or {}), "bootstrap.servers": servers})

    def send(self, packets: Sequence[bytes]) -> int:
        outcome = _Outcome(len(packets))
        stamp = [("producer_timestamp", str(int(self._now() * 1000)).encode())]
        for number, packet in enumerate(packets):
            self._produce(packet, [*stamp, *self._headers], partial(outcome.note, number), outcome)
        self._producer.flush(self._delivery_s + 1.0)
        acknowledged = outcome.first()
        if packets and not acknowledged:
            raise RetriableError(f"none of {len(packets)} alerts reached topic {self.topic}: {outcome.reason}")
        return acknowledged

    def close(self) -> None:
        self._producer.flush(self._delivery_s)

    def _produce(self, packet: bytes, headers: list[tuple[str, bytes]], note: Callable[[Any, Message], None],
                 outcome: "_Outcome") -> None:
        while True:
            try:
                self._producer.produce(self.topic, packet, headers=headers, on_delivery=note)
            except BufferError:              # the queue is full: let acknowledgements come in
                self._producer.poll(0.1)
            except KafkaException as error:
                outcome.reason = str(error)
                return
            else:
                self._producer.poll(0)
                return


class _Outcome:
    """The acknowledgements of one batch."""

    def __init__(self, n: int) -> None:
        self.acknowledged = [False] * n
        self.reason = "no acknowledgement arrived in time"

    def note(self, number: int, error: Any, _: Message) -> None:
        if error is None:
            self.acknowledged[number] = True
        else:
            self.reason = str(error)

    def first(self) -> int:
        """How many of the first were acknowledged."""
        return next((i for i, arrived in enumerate(self.acknowledged) if not arrived), len(self.acknowledged))
