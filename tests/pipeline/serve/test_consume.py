"""The core of the consumers: at least once, and nothing unreadable stops it."""

import io
import json
import re
import struct
from dataclasses import dataclass, field

import fastavro
import pytest
from confluent_kafka import Producer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError, RetriableError
from pipeline.serve.consume import (
    FIXED,
    KafkaStream,
    MemoryStream,
    consume,
    open_dead_letters,
    open_stream,
)
from pipeline.serve.messages import (
    MAX_PACKET,
    Alert,
    DeadFolder,
    DeadMemory,
    Message,
    Rejected,
    examine,
    read_letter,
)
from schemas import alert
from tests.pipeline.serve.streams import identifiers, packets
from tests.servers import consume as consume_module

TOPIC = "alerts-simulated"


@dataclass
class Keeping:
    """A handler that stores in a list, and may fail."""

    kept: list[Alert] = field(default_factory=list)
    fails_at: int = -1

    def handle(self, alerts):
        if alerts and len(self.kept) >= self.fails_at >= 0:
            self.fails_at = -1
            raise RetriableError("the store is away")
        self.kept += alerts
        return ()

    def settled(self, read):
        return read

    def finish(self):
        return ()


def message(value, offset=0):
    return Message("topic", 0, offset, value)


def reason(value):
    found = examine(message(value))
    assert isinstance(found, Rejected)
    return found.reason


def other_record():
    """A whole message of another schema, under an id that alerts have."""
    buffer = io.BytesIO()
    schema = fastavro.parse_schema({"type": "record", "name": "heartbeat", "fields": [
        {"name": "when", "type": "long"}, {"name": "who", "type": "string"}]})
    fastavro.schemaless_writer(buffer, schema, {"when": 2**40, "who": "the scheduler"})
    return alert.WIRE_HEADER + buffer.getvalue()


def huge_cutout():
    """A packet whose last cutout says that it has 2^62 bytes."""
    whole = packets()[0]
    start = whole.rindex(b"SIMPLE  =")
    return whole[:start - 3] + fastavro_long(2**62) + whole[start:]


def fastavro_long(value):
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, "long", value)
    return buffer.getvalue()


def test_a_whole_packet_is_an_alert():
    for packet, identifier in zip(packets(), identifiers(packets()), strict=True):
        found = examine(message(packet))
        assert isinstance(found, Alert)
        assert (found.identifier, found.visit, found.packet) == (identifier, 2026030500055, packet)


@pytest.mark.parametrize(("value", "said"), [
    (b"", "the message is empty"),
    (b"\0\0\0", "the wire header has 5 bytes, got 3"),
    (b"\x01" + packets()[0][1:], "the first byte must be 0, got 1"),
    (struct.pack(">bi", 0, 4242) + packets()[0][5:], "schema id 4242 .* is not one of lsst-alert-packet's"),
    (struct.pack(">bi", 0, -7) + packets()[0][5:], "schema id -7"),
    (packets()[0] + b"\0", "1 bytes are left over"),
    (packets()[0][:-1], "it ends within a value"),
    (packets()[0][:400], "packet unreadable at byte"),
    (alert.WIRE_HEADER, "packet unreadable at byte 5"),
    (bytes(MAX_PACKET + 1), f"the message has {MAX_PACKET + 1} bytes, a packet at most {MAX_PACKET}"),
    (huge_cutout(), "packet unreadable"),
    (other_record(), "packet unreadable"),
    (b"<html>503 Service Unavailable</html>", "the first byte must be 0, got 60"),
], ids=["empty", "short", "magic", "unknown-schema", "negative-schema", "left-over", "cut-by-one", "cut",
        "header-alone", "too-big", "huge-cutout", "other-record", "not-avro"])
def test_what_is_no_packet_is_rejected_with_the_reason(value, said):
    assert re.search(said, reason(value)), reason(value)


def test_an_id_that_is_none_is_rejected():
    packet = packets()[0]
    body = packet[5:]
    first = len(fastavro_long(identifiers([packet])[0]))
    for value in (0, -5):
        assert f"got {value}" in reason(packet[:5] + fastavro_long(value) + body[first:])
    assert "that of its diaSource" in reason(packet[:5] + fastavro_long(77) + body[first:])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_damage_stops_the_consumer(data):
    """Damaged packets between whole ones: all whole ones arrive, every message is either kept or set aside."""
    whole = packets()[:3]
    damaged = data.draw(st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=60).map(lambda tail: alert.WIRE_HEADER + tail),
        st.integers(0, len(whole[0]) - 1).map(lambda end: whole[0][:end]),
        st.tuples(st.integers(0, 3000), st.integers(1, 255)).map(lambda at: _flipped(whole[0], *at)),
        st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=20)).map(
            lambda at: whole[0][:at[0]] + at[1] + whole[0][at[0]:])))
    handler, dead = Keeping(), DeadMemory()
    tally = consume(MemoryStream([whole[1], damaged, whole[2]]), handler, dead, stop_when_idle=0.0)
    kept = [one.packet for one in handler.kept]
    assert kept[0] == whole[1]
    assert kept[-1] == whole[2]
    assert len(kept) + len(dead.letters) == tally.received == 3
    assert all(one.reason and "\n" not in one.reason for one in dead.letters)


def _flipped(packet, place, mask):
    return packet[:place] + bytes([packet[place] ^ mask]) + packet[place + 1:]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 13), st.integers(0, 12))
@example(5, 5)
def test_a_handler_that_fails_is_given_all_again_that_it_had_not_stored(batch, fails_at):
    stream, handler = MemoryStream(packets()), Keeping(fails_at=fails_at)
    for _ in range(2):
        stream.rewind()
        try:
            consume(stream, handler, DeadMemory(), batch=batch, stop_when_idle=0.0)
        except RetriableError:
            continue
    assert stream.committed == 12
    assert {one.packet for one in handler.kept} == set(packets())


def test_offsets_committed_before_storing_would_lose_alerts():
    """The control: the check above sees a consumer that commits as it reads."""
    class Hasty(MemoryStream):
        def batch(self, limit, wait_s):
            found = super().batch(limit, wait_s)
            self.committed = self.position
            return found

    stream, handler = Hasty(packets()), Keeping(fails_at=5)
    with pytest.raises(RetriableError):
        consume(stream, handler, DeadMemory(), batch=5, stop_when_idle=0.0)
    stream.rewind()
    consume(stream, handler, DeadMemory(), batch=5, stop_when_idle=0.0)
    assert {one.packet for one in handler.kept} != set(packets())


def test_offsets_are_committed_after_the_dead_letter_is_stored():
    class Full(DeadMemory):
        def put(self, rejected):
            raise RetriableError("the disk is full")

    stream = MemoryStream([packets()[0], b"broken", packets()[1]])
    with pytest.raises(RetriableError, match="the disk is full"):
        consume(stream, Keeping(), Full(), batch=2, stop_when_idle=0.0)
    assert stream.committed == 0


def test_a_silent_stream_is_not_taken_for_one_at_its_end():
    class Silent(MemoryStream):
        finished = property(lambda self: False)

    times = iter(range(0, 1000, 10))
    with pytest.raises(RetriableError, match="the end of the topic is not reached"):
        consume(Silent([]), Keeping(), DeadMemory(), stop_when_idle=1.0, clock=lambda: next(times))


def test_a_dead_letter_file_gives_the_message_back(tmp_path):
    dead = DeadFolder(tmp_path / "dead")
    bad = Message(TOPIC, 3, 17, bytes(range(256)), (("simulated", b"true"),), 1772500000250)
    for _ in range(2):
        dead.put(Rejected(bad, "broken"))
    dead.put(Rejected(bad, "another reason"))
    path, other = sorted((tmp_path / "dead").iterdir(), key=lambda path: read_letter(path).reason, reverse=True)
    assert re.fullmatch(TOPIC + r"_0003_00000000000000000017_[0-9a-f]{8}\.json", path.name)
    assert read_letter(other).reason == "another reason"
    assert read_letter(path) == Rejected(bad, "broken")
    found = json.loads(path.read_text())
    assert (found["topic"], found["partition"], found["offset"], found["reason"]) == (TOPIC, 3, 17, "broken")


@pytest.mark.parametrize("topic", ["../../etc", "a/b", "", ".."])
def test_a_topic_that_is_no_file_name_makes_no_file(tmp_path, topic):
    with pytest.raises(ValueError, match="not a name that Kafka allows"):
        DeadFolder(tmp_path).put(Rejected(Message(topic, 0, 0, b"x"), "broken"))
    assert list(tmp_path.iterdir()) == []


def test_kafka_gives_all_once_and_a_second_consumer_of_the_group_none(broker, tmp_path):
    broker.send([*packets(), b"broken"])
    handler, dead = Keeping(), DeadMemory()
    for _ in range(2):
        stream = open_stream(broker.url, broker.group)
        consume(stream, handler, dead, stop_when_idle=0.3)
        stream.close()
    assert sorted(one.packet for one in handler.kept) == sorted(packets())
    assert [one.message.value for one in dead.letters] == [b"broken"]
    assert dict(handler.kept[0].message.headers) == {"producer_timestamp": b"1772500000250"}


def test_what_was_not_committed_comes_again_from_kafka(broker):
    broker.send(packets())
    handler = Keeping(fails_at=0)
    stream = open_stream(broker.url, broker.group)
    with pytest.raises(RetriableError, match="away"):
        consume(stream, handler, DeadMemory(), stop_when_idle=0.3)
    stream.close()
    stream = open_stream(broker.url, broker.group)
    consume(stream, handler, DeadMemory(), stop_when_idle=0.3)
    stream.close()
    assert sorted(one.packet for one in handler.kept) == sorted(packets())


def test_a_topic_of_dead_letters_holds_message_place_and_reason(broker):
    dead = open_dead_letters(broker.url)
    dead.put(Rejected(Message(TOPIC, 2, 9, b"broken", (("simulated", b"true"),)), "the reason"))
    dead.close()
    found, = consume_module.messages(broker.servers, broker.topic)
    headers = dict(found.headers())
    assert found.value() == b"broken"
    assert headers["simulated"] == b"true"
    said = json.loads(headers["dead_letter"])
    assert (said["topic"], said["partition"], said["offset"], said["reason"]) == (TOPIC, 2, 9, "the reason")


def test_aborted_transactions_are_not_seen(real_broker):
    producer = Producer({"bootstrap.servers": real_broker.servers, "transactional.id": real_broker.group})
    producer.init_transactions(20)
    for packet, ends in zip(packets()[:3], (True, False, True), strict=True):
        producer.begin_transaction()
        producer.produce(real_broker.topic, packet)
        producer.flush()
        producer.commit_transaction(20) if ends else producer.abort_transaction(20)
    handler = Keeping()
    stream = open_stream(real_broker.url, real_broker.group)
    tally = consume(stream, handler, DeadMemory(), stop_when_idle=0.3)
    stream.close()
    assert {one.packet for one in handler.kept} == {packets()[0], packets()[2]}
    assert tally.received == 2
    everything = consume_module.messages(real_broker.servers, real_broker.topic, committed=False)
    assert {one.value() for one in everything} == set(packets()[:3])      # the control: they are there


def test_dead_letters_that_reach_no_broker_stop_the_consumer():
    from pipeline.serve.consume import KafkaDeadLetters

    dead = KafkaDeadLetters("127.0.0.1:1", "dead", delivery_s=0.3, settings={"log_level": 0})
    with pytest.raises(RetriableError, match="dead letter of topic/0 offset 0 not written"):
        dead.put(Rejected(message(b"x"), "broken"))


def test_no_broker_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr("pipeline.serve.consume.START_S", 0.3)
    with pytest.raises(RetriableError, match=r"no broker at 127.0.0.1:1"):
        KafkaStream("127.0.0.1:1", TOPIC, "group", settings={"log_level": 0})


@pytest.mark.parametrize("url", ["host:9092", "kafka://host", "kafka://host/a/b", "file:x", "kafka:///t",
                                 "kafka://h/topic with space"])
def test_a_stream_of_no_topic_is_refused(url):
    with pytest.raises(InputError, match=r"alert stream .*expected kafka://host:port/topic"):
        open_stream(url, "group")
    if url != "file:x":
        with pytest.raises(InputError, match=r"dead letters .*expected"):
            open_dead_letters(url)


def test_settings_that_at_least_once_rests_on_cannot_be_changed(tmp_path):
    path = tmp_path / "client.properties"
    for key in [*FIXED, "group.id", "bootstrap.servers"]:
        path.write_text(f"{key}=x\n")
        with pytest.raises(InputError, match=f"{key} is set by the consumer itself"):
            open_stream(f"kafka://127.0.0.1:1/topic?config={path}", "group")


def test_a_setting_that_librdkafka_does_not_know_is_refused(broker):
    broker.settings.write_text("no.such.thing=1\n")
    with pytest.raises(InputError, match="No such configuration property"):
        open_stream(broker.url, "group")


def test_a_topic_that_is_not_there_is_refused(real_broker):
    with pytest.raises(InputError, match="topic no-such-topic is not on"):
        open_stream(real_broker.url.replace(real_broker.topic, "no-such-topic"), "group")
