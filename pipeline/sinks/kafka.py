"""A sink that produces to a Kafka topic, as Rubin's packager is configured (ap_association packageAlerts.py).

Every message has a header `producer_timestamp` (milliseconds) and, unless asked for, no key.

With a position, packets and position are one Kafka transaction: the position goes to a compacted topic of its own,
`TOPIC.positions`, under the name of the outbox, and the transactional.id is the outbox's too. A consumer of committed
messages sees every packet once whatever is killed when: a transaction that did not commit shows neither packets nor
position, and whoever goes on reads the position first. Of two senders of one outbox the older is fenced off.

Without a position delivery is at least once: what follows the first missing acknowledgement is sent again.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar
from uuid import uuid4

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from pipeline.errors import InputError, NonRetriableError, PipelineError, RetriableError
from pipeline.ports import Position

SETTINGS: Final[dict[str, Any]] = {
    "compression.type": "snappy", "batch.size": 2 * 1024 * 1024, "linger.ms": 5, "enable.idempotence": True,
    "message.max.bytes": 4 * 1024 * 1024 + 65_536,      # packets up to 4 MB; one with a long history has 300 kB
    "queue.buffering.max.kbytes": 65_536}
QUIET: Final = {"log_level": 2}             # librdkafka writes to the standard error; its errors come as exceptions
DELIVERY_S: Final = 30.0                     # how long a batch may take; the deployed 1.2 s loses alerts silently
TRANSACTION_S: Final = 60.0                  # after so long a broker gives up a transaction whose sender is gone
ANSWER_S: Final = 10.0                       # how long a broker may take to answer at all
KEYS: Final = ("none", "object")
POSITIONS: Final = ".positions"              # what the topic of positions is called after the topic
_ID: Final = "alert-twin-{}"                 # transactional.id of an outbox

# What no second try mends.
_REFUSED: Final = frozenset({
    KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM, KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED})
_FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})

T = TypeVar("T")


class KafkaSink:
    """Produces packets and waits for their acknowledgement, or for the commit of their transaction."""

    def __init__(self, servers: str, topic: str, *, headers: Mapping[str, str] | None = None,
                 settings: Mapping[str, Any] | None = None, key: str = "none", transactions: bool = True,
                 positions: str = "", delivery_s: float = DELIVERY_S, answer_s: float = ANSWER_S,
                 now: Callable[[], float] = time.time) -> None:
        if key not in KEYS:
            raise ValueError(f"key must be {' or '.join(KEYS)}, got {key!r}")
        self.topic, self.positions, self.remembers = topic, positions or topic + POSITIONS, transactions
        self._headers = [(name, value.encode()) for name, value in (headers or {}).items()]
        self._key, self._delivery_s, self._answer_s, self._now = key, delivery_s, answer_s, now
        self._refusal = ""
        self._settings = {**QUIET, **(settings or {}), "bootstrap.servers": servers, "error_cb": self._note_error}
        self._session = uuid4().hex                       # who writes positions
        self._plain: Producer | None = None
        self._outboxes: dict[str, _Outbox] = {}

    def send(self, packets: Sequence[bytes], keys: Sequence[int] = (), position: Position | None = None) -> int:
        named: Sequence[bytes | None] = [None] * len(packets)
        if self._key == "object" and len(keys):
            named = [str(key).encode() for key in keys]
        if position is not None and self.remembers:
            self._transact(packets, named, position)
            return len(packets)
        return self._acknowledged(packets, named)

    def position(self, outbox: str) -> Position | None:
        """The position committed last; the first call fences off other senders of the outbox and asks the broker."""
        return self._outbox(outbox).position if self.remembers else None

    def check(self) -> None:
        """InputError in one line where the broker does not answer, refuses, or lacks the topic."""
        try:
            found = self._answer(self._plain_producer())
        except PipelineError as error:
            raise InputError(str(error)) from None
        if found.topics[self.topic].error is not None:
            raise InputError(f"topic {self.topic}: {found.topics[self.topic].error.str()}")

    def close(self) -> None:
        if self._plain is not None:
            self._plain.flush(self._delivery_s)
        self._plain = None
        self._outboxes.clear()

    # --- at least once ------------------------------------------------------------------------------------------------

    def _plain_producer(self) -> Producer:
        if self._plain is None:
            self._plain = Producer({**SETTINGS, "delivery.timeout.ms": int(self._delivery_s * 1000), **self._settings})
        return self._plain

    @property
    def _producer(self) -> Producer:
        return self._plain_producer()

    def _acknowledged(self, packets: Sequence[bytes], keys: Sequence[bytes | None]) -> int:
        outcome, producer = _Outcome(len(packets)), self._plain_producer()
        self._refusal = ""
        end = time.monotonic() + self._delivery_s + 1.0
        headers = self._all_headers()
        try:
            for number, (packet, key) in enumerate(zip(packets, keys, strict=True)):
                self._produce(producer, packet, key, headers, end, partial(outcome.note, number))
        except RetriableError as error:
            outcome.reason = str(error)
        while producer.flush(0.2) and time.monotonic() < end and not self._refusal:
            pass
        if len(producer):
            producer.purge()
            producer.flush(1.0)
        acknowledged = outcome.first()
        if packets and not acknowledged:
            reason = self._refusal or outcome.reason
            kind = NonRetriableError if self._refusal else RetriableError
            raise kind(f"none of {len(packets)} alerts reached topic {self.topic}: {reason}")
        return acknowledged

    def _produce(self, producer: Producer, packet: bytes, key: bytes | None, headers: list[tuple[str, bytes]],
                 end: float, note: "Callable[[Any, Message], None] | None" = None) -> None:
        while True:
            try:
                producer.produce(self.topic, packet, key=key, headers=headers, on_delivery=note)
            except BufferError:              # the queue is full: let acknowledgements come in
                producer.poll(0.1)
                if self._refusal or time.monotonic() > end:
                    raise RetriableError(self._refusal or f"the queue stayed full for {self._delivery_s:g} s") from None
            except KafkaException as error:
                if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    raise NonRetriableError(f"a packet of {len(packet)} bytes is larger than message.max.bytes "
                                            f"{self._settings.get('message.max.bytes', SETTINGS['message.max.bytes'])}"
                                            ) from error
                raise
            else:
                producer.poll(0)
                return

    def _all_headers(self) -> list[tuple[str, bytes]]:
        return [("producer_timestamp", str(int(self._now() * 1000)).encode()), *self._headers]

    # --- exactly once -------------------------------------------------------------------------------------------------

    def _outbox(self, name: str) -> "_Outbox":
        """The outbox's own producer, with the position as the broker has it."""
        known = self._outboxes.get(name)
        if known is not None and known.producer is not None:
            return known
        before = known.position if known is not None else None
        producer = Producer({
            **SETTINGS, "transactional.id": _ID.format(name), "transaction.timeout.ms": int(TRANSACTION_S * 1000),
            "delivery.timeout.ms": int(min(self._delivery_s, TRANSACTION_S) * 1000), **self._settings})
        servers = ",".join(f"{broker.host}:{broker.port}" for broker in self._answer(producer).brokers.values())
        self._make_positions()
        self._call(f"outbox {name}: transactions not begun", producer.init_transactions, self._delivery_s)
        found, session = self._read_position(servers, name)
        if known is not None and known.fenced and session not in ("", self._session):
            raise NonRetriableError(f"outbox {name}: another sender has taken it over")
        if before is not None and (found is None or found.sequence < before.sequence):
            raise NonRetriableError(f"outbox {name}: topic {self.positions} has lost its position {before.sequence}")
        made = _Outbox(producer, found)
        self._outboxes[name] = made
        self._commit(made, name, (), (), found)          # says who sends from now on
        return made

    def _transact(self, packets: Sequence[bytes], keys: Sequence[bytes | None], position: Position) -> None:
        outbox = self._outbox(position.outbox)
        if outbox.position is not None and outbox.position.sequence >= position.sequence:
            raise NonRetriableError(f"outbox {position.outbox}: sequence {position.sequence} was sent before")
        self._commit(outbox, position.outbox, packets, keys, position)

    def _commit(self, outbox: "_Outbox", name: str, packets: Sequence[bytes], keys: Sequence[bytes | None],
                position: Position | None) -> None:
        """Packets and position in one transaction; after any failure the next call asks what came of it."""
        producer = outbox.producer
        assert producer is not None
        end, headers = time.monotonic() + self._delivery_s, self._all_headers()
        self._refusal = ""
        try:
            producer.begin_transaction()
            for packet, key in zip(packets, keys, strict=True):
                self._produce(producer, packet, key, headers, end)
            producer.produce(self.positions, _position_record(position, self._session), key=name.encode(),
                             partition=0)        # where it is looked for, however many the topic has
            self._commit_until(producer, end)
        except (KafkaException, RetriableError) as error:
            outbox.producer = None
            reason = error.args[0]
            outbox.fenced = isinstance(reason, KafkaError) and reason.code() in _FENCED
            if self._refusal:
                raise NonRetriableError(f"outbox {name}: {self._refusal}") from error
            raise RetriableError(f"outbox {name}: {len(packets)} packets not committed to topic {self.topic}: "
                                 f"{reason.str() if isinstance(reason, KafkaError) else reason}") from error
        except BaseException:
            outbox.producer = None
            raise
        outbox.position = position

    def _commit_until(self, producer: Producer, end: float) -> None:
        while True:
            try:
                producer.commit_transaction(max(0.1, min(1.0, end - time.monotonic())))
            except KafkaException as error:
                if not error.args[0].retriable() or self._refusal or time.monotonic() > end:
                    raise
            else:
                return

    def _make_positions(self) -> None:
        """The topic of positions, compacted: made where it is not there."""
        admin = AdminClient(self._settings)
        new = NewTopic(self.positions, 1, -1, config={
            "cleanup.policy": "compact", "segment.bytes": "16777216"})    # only closed segments are compacted
        if self.positions in self._answer(admin).topics:
            return
        try:
            admin.create_topics([new], request_timeout=self._answer_s)[self.positions].result(self._answer_s + 1)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise NonRetriableError(f"topic {self.positions}, compacted, with one partition, is needed beside "
                                        f"{self.topic}: {error.args[0].str()}") from error

    def _read_position(self, servers: str, name: str) -> tuple[Position | None, str]:
        """The last committed position of an outbox, and the session that wrote it."""
        consumer = Consumer({**self._settings, "bootstrap.servers": servers, "group.id": "positions",
                             "enable.auto.commit": False, "fetch.wait.max.ms": 10, "isolation.level": "read_committed",
                             "auto.offset.reset": "earliest", "enable.partition.eof": True})
        try:
            where = TopicPartition(self.positions, 0, 0)
            consumer.assign([where])
            return self._last_of(consumer, name.encode())
        finally:
            consumer.close()

    def _last_of(self, consumer: Consumer, key: bytes) -> tuple[Position | None, str]:
        found: bytes | None = None
        end = time.monotonic() + self._delivery_s
        while time.monotonic() < end and not self._refusal:
            message = consumer.poll(0.2)
            error = None if message is None else message.error()
            if message is not None and error is None and message.key() == key:
                found = message.value()
            elif error is not None and error.code() == KafkaError._PARTITION_EOF:
                return _read_record(found, key.decode())
        raise RetriableError(f"topic {self.positions} not read: {self._refusal or 'no answer in time'}")

    # --- answers ------------------------------------------------------------------------------------------------------

    def _answer(self, client: Any) -> Any:
        """The cluster's metadata; an error within seconds where nobody answers or the client is refused."""
        self._refusal = ""
        end = time.monotonic() + self._answer_s
        while True:
            try:
                return client.list_topics(timeout=0.5) if isinstance(client, AdminClient) else \
                    client.list_topics(self.topic, timeout=0.5)
            except KafkaException as error:
                reason = error.args[0].str()
            client.poll(0)
            where = f"Kafka at {self._settings['bootstrap.servers']}"
            if self._refusal:
                raise NonRetriableError(f"{where} refuses: {self._refusal}")
            if time.monotonic() > end:
                raise RetriableError(f"{where} does not answer within {self._answer_s:g} s: {reason}")

    def _call(self, what: str, call: Callable[[float], T], timeout_s: float) -> T:
        try:
            return call(timeout_s)
        except KafkaException as error:
            kind = NonRetriableError if self._refusal or error.args[0].code() in _REFUSED else RetriableError
            raise kind(f"{what}: {self._refusal or error.args[0].str()}") from error

    def _note_error(self, error: KafkaError) -> None:
        if error.code() in _REFUSED:
            self._refusal = " ".join(error.str().split())


@dataclass(slots=True)
class _Outbox:
    """A producer that holds the outbox's transactional.id; None when what became of its last transaction is unknown."""

    producer: Producer | None
    position: Position | None
    fenced: bool = field(default=False)


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


def _position_record(position: Position | None, session: str) -> bytes:
    known = {} if position is None else {"sequence": position.sequence, "id": position.id}
    return json.dumps({**known, "session": session}).encode()


def _read_record(content: bytes | None, outbox: str) -> tuple[Position | None, str]:
    if content is None:
        return None, ""
    try:
        record = json.loads(content)
        session = str(record["session"])
        return (Position(outbox, int(record["sequence"]), int(record["id"])) if "sequence" in record else None), session
    except (ValueError, KeyError, TypeError) as error:
        raise NonRetriableError(f"the position of outbox {outbox} is unreadable: {content[:80]!r}") from error
