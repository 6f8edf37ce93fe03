"""The core of every consumer: read, decode, hand over, set aside what is broken, and only then commit offsets.

    stream -> examine -> handler            stored, then offsets committed: at least once
                     \\-> dead letters      with the reason; also stored before the commit

The Kafka consumer reads `read_committed`: of a producer's transactions that were aborted it sees nothing.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as KafkaMessage

from pipeline.errors import InputError, PipelineError, RetriableError
from pipeline.serve.messages import (
    MAX_PACKET,
    TOPIC_NAME,
    Alert,
    DeadFolder,
    DeadLetters,
    Handler,
    Message,
    Positions,
    Rejected,
    Stopped,
    described,
    examine,
)
from pipeline.sinks.kafka import QUIET
from pipeline.sinks.kafka_url import KafkaUrl

LOG: Final = logging.getLogger(__name__)
BATCH: Final = 100             # messages between commits (alert_database_ingester)
WAIT_S: Final = 0.5            # for a batch to fill
START_S: Final = 15.0          # for the broker to list its topics (ap_association's packager waits as long)
SILENCE_S: Final = 60.0        # a stream that is neither at its end nor gives messages: the brokers are gone
SETTINGS: Final[dict[str, Any]] = {
    "auto.offset.reset": "earliest", "max.poll.interval.ms": 1_800_000,    # message timeout of alert_database_ingester
    "fetch.message.max.bytes": MAX_PACKET, "queued.max.messages.kbytes": 131_072}
FIXED: Final[dict[str, Any]] = {   # what at-least-once rests on: nobody may set these otherwise
    "isolation.level": "read_committed", "enable.auto.commit": False, "enable.auto.offset.store": False,
    "enable.partition.eof": True}
_REBALANCED: Final = frozenset({KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID,
                                KafkaError.REBALANCE_IN_PROGRESS, KafkaError._NO_OFFSET, KafkaError._ASSIGNMENT_LOST})

_HOPELESS: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED,
                              KafkaError.UNKNOWN_TOPIC_OR_PART})


class Stream(Protocol):
    """A source of messages that remembers how far it was read."""

    @property
    def finished(self) -> bool:
        """Whether all that is there now was given."""
        ...

    def batch(self, limit: int, wait_s: float) -> list[Message]: ...

    def commit(self, positions: Positions) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Tally:
    """What a consumer did."""

    received: int = 0
    set_aside: int = 0
    reasons: dict[str, int] = field(default_factory=dict)      # the first words of each

    @property
    def accepted(self) -> int:
        return self.received - self.set_aside


def consume(stream: Stream, handler: Handler, dead: DeadLetters, *, batch: int = BATCH,
            stop_when_idle: float | None = None, stopped: Stopped = lambda: False, wait_s: float = WAIT_S,
            clock: Callable[[], float] = time.monotonic) -> Tally:
    """Read until told to stop, or until the stream has been at its end for `stop_when_idle` seconds.

    Told to stop it leaves what the handler still holds uncommitted, to be read again; at the end of the stream the
    handler finishes. RetriableError if the stream falls silent before its end.
    """
    tally, read, committed = Tally(), Positions(), Positions()
    last = clock()
    while not stopped():
        messages = stream.batch(batch, wait_s)
        _pass_on(messages, handler, dead, tally)
        read.update({message.source: message.offset + 1 for message in messages})
        committed = _commit(stream, handler.settled(read), committed)
        if messages:
            last = clock()
        elif stop_when_idle is not None and clock() - last >= stop_when_idle:
            if stream.finished:
                _put(handler.finish(), dead, tally)
                _commit(stream, handler.settled(read), committed)
                break
            if clock() - last > stop_when_idle + SILENCE_S:
                raise RetriableError(f"no message for {clock() - last:.0f} s, and the end of the topic is not reached")
    return tally


def _pass_on(messages: Sequence[Message], handler: Handler, dead: DeadLetters, tally: Tally) -> None:
    """Alerts to the handler, the rest aside."""
    tally.received += len(messages)
    found = [examine(message) for message in messages]
    _put([one for one in found if isinstance(one, Rejected)], dead, tally)
    _put(handler.handle([one for one in found if isinstance(one, Alert)]), dead, tally)


def _put(rejected: Any, dead: DeadLetters, tally: Tally) -> None:
    for one in rejected:
        dead.put(one)
        tally.set_aside += 1
        LOG.warning("set aside %s", json.dumps(described(one)))
        kind = one.reason.partition(":")[0][:60]
        tally.reasons[kind] = tally.reasons.get(kind, 0) + 1


def _commit(stream: Stream, settled: Positions, committed: Positions) -> Positions:
    fresh = {source: offset for source, offset in settled.items() if committed.get(source) != offset}
    if fresh:
        stream.commit(fresh)
    return {**committed, **fresh}


@dataclass(slots=True)
class MemoryStream:
    """A stream of one topic and partition in memory; what was not committed is read again after `rewind`."""

    values: Sequence[bytes]
    topic: str = "memory"
    position: int = 0
    committed: int = 0

    @property
    def finished(self) -> bool:
        return self.position == len(self.values)

    def batch(self, limit: int, wait_s: float) -> list[Message]:
        first, self.position = self.position, min(self.position + limit, len(self.values))
        return [Message(self.topic, 0, offset, self.values[offset]) for offset in range(first, self.position)]

    def commit(self, positions: Positions) -> None:
        self.committed = positions[self.topic, 0]

    def rewind(self) -> None:
        """Begin again where a consumer that died had committed."""
        self.position = self.committed

    def close(self) -> None:
        pass


class KafkaStream:
    """A topic read as a member of a consumer group."""

    def __init__(self, servers: str, topic: str, group: str, *, settings: Mapping[str, Any] | None = None) -> None:
        self.topic = topic
        self._ended: set[tuple[str, int]] = set()
        self._joined = False
        try:
            given = {key: value for key, value in (settings or {}).items() if key != "compression.type"}
            self._consumer = Consumer({**SETTINGS, **given, **FIXED, "bootstrap.servers": servers, "group.id": group,
                                       "logger": LOG, **QUIET})
        except KafkaException as error:
            raise InputError(f"Kafka settings: {error.args[0].str()}") from error
        try:
            self._require_topic(servers)
            self._consumer.subscribe([topic], on_assign=self._assigned, on_revoke=self._revoked)
        except BaseException:
            self._consumer.close()
            raise

    @property
    def finished(self) -> bool:
        return self._joined and all((one.topic, one.partition) in self._ended for one in self._consumer.assignment())

    def batch(self, limit: int, wait_s: float) -> list[Message]:
        found = []
        for one in self._consumer.consume(limit, wait_s):
            if one.error() is not None:
                self._note(one)
                continue
            message = _message(one)
            self._ended.discard(message.source)
            found.append(message)
        return found

    def commit(self, positions: Positions) -> None:
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in positions.items()]
        try:
            done = self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() not in _REBALANCED:
                raise RetriableError(f"offsets of topic {self.topic} not committed: {error.args[0].str()}") from error
            LOG.warning("offsets not committed, the partitions went to another consumer, which reads them again")
            return
        for one in done or ():
            if one.error is not None and one.error.code() not in _REBALANCED:
                raise RetriableError(f"offset {one.offset} of {one.topic}/{one.partition} not committed: {one.error}")

    def close(self) -> None:
        self._consumer.close()

    def _require_topic(self, servers: str) -> None:
        try:
            found = self._consumer.list_topics(self.topic, timeout=START_S).topics.get(self.topic)
        except KafkaException as error:
            raise RetriableError(f"no broker at {servers}: {error.args[0].str()}") from error
        if found is None or found.error is not None:
            raise InputError(f"topic {self.topic} is not on {servers}: {found.error if found else 'unknown'}")

    def _assigned(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._joined = True
        self._ended -= {(one.topic, one.partition) for one in partitions}

    def _revoked(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._ended -= {(one.topic, one.partition) for one in partitions}

    def _note(self, message: KafkaMessage) -> None:
        error = message.error()
        if error.code() == KafkaError._PARTITION_EOF:
            self._ended.add((message.topic(), message.partition()))
        elif error.fatal() or error.code() in _HOPELESS:
            raise PipelineError(f"topic {self.topic} cannot be read: {error.str()}")
        else:
            LOG.warning("Kafka: %s", error.str())      # librdkafka tries again by itself


class KafkaDeadLetters:
    """A topic of dead letters: the value is the message as it was, the header `dead_letter` says the rest as JSON."""

    def __init__(self, servers: str, topic: str, *, settings: Mapping[str, Any] | None = None,
                 delivery_s: float = 30.0) -> None:
        self.topic, self._delivery_s = topic, delivery_s
        self._producer = Producer({**(settings or {}), "bootstrap.servers": servers, "enable.idempotence": True,
                                   "message.max.bytes": 100_000_000, "delivery.timeout.ms": int(delivery_s * 1000),
                                   "logger": LOG, **QUIET})

    def put(self, rejected: Rejected) -> None:
        failed: list[str] = ["no acknowledgement arrived in time"]

        def note(error: KafkaError | None, _: KafkaMessage) -> None:
            failed[:] = [] if error is None else [error.str()]

        message = rejected.message
        headers = [*message.headers, ("dead_letter", json.dumps(described(rejected)).encode())]
        try:
            self._producer.produce(self.topic, message.value, headers=headers, on_delivery=note)
            self._producer.flush(self._delivery_s + 1.0)
        except (KafkaException, BufferError) as error:
            failed[:] = [str(error)]
        if failed:
            raise RetriableError(f"dead letter of {message.topic}/{message.partition} offset {message.offset} not "
                                 f"written to topic {self.topic}: {failed[0]}")

    def close(self) -> None:
        self._producer.flush(self._delivery_s)


def open_stream(url: str, group: str) -> KafkaStream:
    """The stream of `kafka://host:port/topic`, or any other Kafka URL (`pipeline.sinks.kafka_url`)."""
    to = _parsed("alert stream", url)
    ours = sorted({*FIXED, "bootstrap.servers", "group.id"} & set(to.settings))
    if ours:
        raise InputError(f"alert stream {url!r}: {ours[0]} is set by the consumer itself")
    return KafkaStream(to.servers, to.topic, group, settings=to.settings)


def open_dead_letters(url: str) -> DeadLetters:
    """Dead letters in `file:folder/` or `kafka://host:port/topic`."""
    scheme, colon, folder = url.partition(":")
    if scheme.startswith("kafka"):
        to = _parsed("dead letters", url)
        return KafkaDeadLetters(to.servers, to.topic, settings=to.settings)
    if scheme != "file" or not colon or not folder.strip("/"):
        raise InputError(f"dead letters {url!r}: expected file:folder/ or kafka://host:port/topic")
    return DeadFolder(Path(folder))


def _parsed(what: str, url: str) -> KafkaUrl:
    try:
        to = KafkaUrl.parse(url, os.environ)
    except InputError as error:
        raise InputError(str(error).replace("alert sink", what, 1)) from None
    if not TOPIC_NAME.fullmatch(to.topic):
        raise InputError(f"{what} {url!r}: expected kafka://host:port/topic")
    return to


def _message(one: KafkaMessage) -> Message:
    headers = tuple((key, value or b"") for key, value in one.headers() or ())
    kind, timestamp = one.timestamp()
    return Message(one.topic(), one.partition(), one.offset(), one.value() or b"", headers, timestamp if kind else -1)
