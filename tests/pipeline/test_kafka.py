"""The Kafka sink against a real broker: exactly once, in order, authenticated."""

import itertools
import json
import os
import time

import numpy as np
import pytest

from pipeline.config import PipelineConfig, RetryConfig
from pipeline.errors import InputError, NonRetriableError, RetriableError
from pipeline.open import open_sink, open_store, topic_of
from pipeline.ports import Ports, Position, Segment
from pipeline.prompt import deliver
from pipeline.sinks.kafka import KafkaSink
from pipeline.sinks.kafka_url import PASSWORD as PASSWORD_VARIABLE
from pipeline.steps import run
from pipeline.stores.memory import MemoryStore
from tests.pipeline.test_sinks import packets
from tests.pipeline.test_stores import request
from tests.servers import consume
from tests.servers.kafka import PASSWORD, USER

AT_ONCE = PipelineConfig(retry=RetryConfig(limit=2, delay_s=0.0))
_topics = itertools.count()


class NoRecorder:
    def append(self, table, rows):
        pass


def ports_of(store, sink):
    return Ports(lambda: 61105.0, store, sink, NoRecorder(), None, None)


def segment(visit, n=5, size=300, keys=None):
    made = packets(n, detector=visit % 189, size=size)
    ids = np.array([consume.source_id(packet) for packet in made])
    return Segment(visit, visit % 189, ids, tuple(made), np.arange(n) + 1 if keys is None else np.asarray(keys))


def filled(store, visits, **options):
    for visit in visits:
        store.save(request(visit, visit % 189), segment(visit, **options))
    return sorted(itertools.chain.from_iterable(segment(visit, **options).ids.tolist() for visit in visits))


@pytest.fixture
def topic(kafka_server):
    return kafka_server.topic(f"alerts-simulated-{next(_topics)}", 3, **{"max.message.bytes": "8000000"})


@pytest.fixture
def sink_of(kafka_server, topic):
    made = []

    def make(**options):
        made.append(KafkaSink(kafka_server.address(), topic, **options))
        return made[-1]

    yield make
    for sink in made:
        sink.close()


def test_an_outbox_arrives_once_and_its_position_with_it(kafka_server, topic, sink_of):
    store = MemoryStore()
    sent = filled(store, range(1, 5))
    sink = sink_of(headers={"simulated": "true"}, now=lambda: 1772500000.25)
    assert run(deliver(ports_of(store, sink), AT_ONCE)) == 20
    assert store.unsent() == []
    seen = list(consume.messages(kafka_server.address(), topic))
    assert sorted(consume.source_id(message.value()) for message in seen) == sent
    assert {tuple(message.headers()) for message in seen} == {(("producer_timestamp", b"1772500000250"),
                                                               ("simulated", b"true"))}
    assert {message.key() for message in seen} == {None}
    last = list(consume.messages(kafka_server.address(), topic + ".positions"))[-1]
    assert json.loads(last.value())["sequence"] == 20
    assert kafka_server.setting(topic + ".positions", "cleanup.policy") == "compact"


def test_what_was_committed_but_not_marked_is_not_sent_again(kafka_server, topic, sink_of):
    """A crash between the commit of the transaction and the mark, and a new process after it."""
    store = MemoryStore()
    sent = filled(store, range(1, 4))
    crashed = Crashes(store, "mark_sent")
    with pytest.raises(Killed):
        run(deliver(ports_of(crashed, sink_of()), AT_ONCE))
    assert len(store.unsent()) == 3
    sent += filled(store, [7])
    assert run(deliver(ports_of(store, sink_of()), AT_ONCE)) == 5
    assert store.unsent() == []
    assert sorted(consume.ids(kafka_server.address(), topic)) == sorted(sent)


def test_without_transactions_the_same_crash_sends_twice(kafka_server, topic, sink_of):
    """The control: a consumer of committed messages tells the difference."""
    store = MemoryStore()
    sent = filled(store, [1])
    with pytest.raises(Killed):
        run(deliver(ports_of(Crashes(store, "mark_sent"), sink_of(transactions=False)), AT_ONCE))
    run(deliver(ports_of(store, sink_of(transactions=False)), AT_ONCE))
    assert sorted(consume.ids(kafka_server.address(), topic)) == sorted(sent * 2)


def test_a_transaction_that_did_not_commit_shows_nothing_and_is_sent_again(kafka_server, topic, sink_of):
    store = MemoryStore()
    sent = filled(store, [1, 2])
    sink = sink_of()
    run(deliver(ports_of(MemoryStore(), sink), AT_ONCE))
    name = store.unsent()[0].outbox
    outbox = sink._outbox(name)
    outbox.producer.begin_transaction()
    for packet in packets(4):
        outbox.producer.produce(topic, packet)
    outbox.producer.flush(10)
    assert consume.ids(kafka_server.address(), topic) == []
    assert run(deliver(ports_of(store, sink_of()), AT_ONCE)) == 10      # another process takes over
    assert sorted(consume.ids(kafka_server.address(), topic)) == sent
    assert len(consume.ids(kafka_server.address(), topic, committed=False)) == 14


def test_a_topic_of_positions_may_have_many_partitions(kafka_server, topic, sink_of):
    kafka_server.topic(topic + ".positions", 7)
    store = MemoryStore()
    sent = filled(store, [1])
    with pytest.raises(Killed):
        run(deliver(ports_of(Crashes(store, "mark_sent"), sink_of()), AT_ONCE))
    assert run(deliver(ports_of(store, sink_of()), AT_ONCE)) == 0
    assert sorted(consume.ids(kafka_server.address(), topic)) == sent


def test_the_older_of_two_senders_is_fenced_off_and_stays_so(kafka_server, topic, sink_of):
    store = MemoryStore()
    sent = filled(store, [1])
    older, newer = sink_of(), sink_of()
    run(deliver(ports_of(store, older), AT_ONCE))
    sent += filled(store, [2])
    run(deliver(ports_of(store, newer), AT_ONCE))
    sent += filled(store, [3])
    for _ in range(2):
        with pytest.raises(NonRetriableError, match=r"outbox [0-9a-f]+: another sender has taken it over"):
            run(deliver(ports_of(store, older), AT_ONCE))
    assert run(deliver(ports_of(store, newer), AT_ONCE)) == 5
    assert sorted(consume.ids(kafka_server.address(), topic)) == sorted(sent)


def test_two_outboxes_share_a_topic(kafka_server, topic, sink_of):
    first, second = MemoryStore(), MemoryStore()
    sent = filled(first, [1, 2]) + filled(second, [3])
    sink = sink_of()
    for store in (first, second):
        run(deliver(ports_of(store, sink), AT_ONCE))
    sent += filled(second, [4]) + filled(first, [5])
    for store in (second, first):
        assert run(deliver(ports_of(store, sink), AT_ONCE)) == 5
    assert sorted(consume.ids(kafka_server.address(), topic)) == sorted(sent)


def test_a_store_put_back_from_an_older_copy_is_found_out(tmp_path, sink_of):
    """Its sequences were given out before: what carries them now was never sent, and must not count as sent."""
    path = tmp_path / "night.db"
    store = open_store(f"duckdb:{path}")
    filled(store, [1])
    store.close()
    copy = path.read_bytes()
    store = open_store(f"duckdb:{path}")
    filled(store, [2])
    run(deliver(ports_of(store, sink_of()), AT_ONCE))
    store.close()
    path.write_bytes(copy)
    store = open_store(f"duckdb:{path}")
    filled(store, [3, 4])
    with pytest.raises(NonRetriableError, match=r"the sink holds it up to sequence 10 .* it is an older copy"):
        run(deliver(ports_of(store, sink_of()), AT_ONCE))
    store.close()


def test_only_means_up_to_there_for_a_sink_that_remembers(kafka_server, topic, sink_of):
    store = MemoryStore()
    sent = filled(store, [1, 2, 3])
    assert run(deliver(ports_of(store, sink_of()), AT_ONCE, only=(2, 2))) == 10
    assert [one.visit for one in store.unsent()] == [3]
    assert run(deliver(ports_of(store, sink_of()), AT_ONCE)) == 5
    assert sorted(consume.ids(kafka_server.address(), topic)) == sent


def test_a_segment_of_many_batches_is_bounded_and_goes_on_in_the_middle(kafka_server, topic, sink_of):
    """Twelve packets of 4 MB are two batches; a crash after the first sends the second alone."""
    store = MemoryStore()
    made = [packet[:13] + os.urandom(4 * 1024 * 1024 - 13) for packet in packets(12)]
    ids = [consume.source_id(packet) for packet in made]
    store.save(request(1), Segment(1, 0, np.array(ids), tuple(made)))
    steps = deliver(ports_of(store, sink_of()), AT_ONCE)
    assert [next(steps).name, next(steps).name] == ["unsent", "send"]
    assert next(steps).name == "send"               # the first batch is out, the second announced
    steps.close()
    assert run(deliver(ports_of(store, sink_of()), AT_ONCE)) == 12 - 8 + 0
    assert sorted(consume.ids(kafka_server.address(), topic)) == sorted(ids)


def test_a_packet_beyond_the_limit_is_named(sink_of):
    with pytest.raises(NonRetriableError, match=r"a packet of 5000000 bytes is larger than message\.max\.bytes 42598"):
        sink_of().send([bytes(5_000_000)], (), Position("mine", 1, 1))


def test_messages_keyed_by_object_keep_each_objects_order(kafka_server, topic, sink_of):
    store = MemoryStore()
    rng = np.random.default_rng(2)
    order = {}
    for visit in range(1, 41):
        keys = rng.choice(20, 6, replace=False) + 1
        filled(store, [visit], n=6, keys=keys)
        for key, one in zip(keys.tolist(), segment(visit, 6).ids.tolist(), strict=True):
            order.setdefault(str(key).encode(), []).append(one)
        if visit % 7 == 0:
            run(deliver(ports_of(store, sink_of(key="object")), AT_ONCE))
    run(deliver(ports_of(store, sink_of(key="object")), AT_ONCE))
    seen, where = {}, {}
    for message in consume.messages(kafka_server.address(), topic):
        seen.setdefault(message.key(), []).append(consume.source_id(message.value()))
        where.setdefault(message.key(), set()).add(message.partition())
    assert seen == order
    assert all(len(partitions) == 1 for partitions in where.values())
    assert len(set.union(*where.values())) == 3


@pytest.mark.parametrize("compression", ["lz4", "snappy", "zstd", "none"])
def test_compressions_are_the_producers_own_affair(kafka_server, topic, compression):
    sink = open_sink(f"kafka://{kafka_server.address()}/{topic}?compression={compression}")
    assert sink.send(packets(5)) == 5
    sink.close()
    assert sorted(m.value() for m in consume.messages(kafka_server.address(), topic)) == sorted(packets(5))


# --- authentication ---------------------------------------------------------------------------------------------------

WAYS = [("kafka", "PLAINTEXT", ""), ("kafka+tls", "SSL", "?ca={ca}"), ("kafka+sasl", "SASL_PLAINTEXT", ""),
        ("kafka+sasl", "SASL_PLAINTEXT", "?mechanism=PLAIN"), ("kafka+sasl+tls", "SASL_SSL", "?ca={ca}"),
        ("kafka+sasl+tls", "SASL_SSL", "?ca={ca}&mechanism=PLAIN")]


def url_of(kafka_server, topic, scheme, listener, query, user=USER):
    who = f"{user}@" if "sasl" in scheme else ""
    return f"{scheme}://{who}{kafka_server.address(listener)}/{topic}{query.format(ca=kafka_server.certificate)}"


@pytest.mark.parametrize(("scheme", "listener", "query"), WAYS)
def test_every_way_in_delivers_exactly_once(kafka_server, topic, monkeypatch, scheme, listener, query):
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    store = MemoryStore()
    sent = filled(store, [1, 2])
    sink = open_sink(url_of(kafka_server, topic, scheme, listener, query), check=True)
    assert run(deliver(ports_of(store, sink), AT_ONCE)) == 10
    sink.close()
    assert sorted(consume.ids(kafka_server.address(), topic)) == sent


@pytest.mark.parametrize(("scheme", "listener", "query"), WAYS[2:])
@pytest.mark.parametrize("wrong", ["user", "password"])
def test_wrong_credentials_are_one_error_within_seconds(kafka_server, topic, tmp_path, scheme, listener, query, wrong):
    secret = tmp_path / "secret"
    secret.write_text("guess" if wrong == "password" else PASSWORD)
    query += ("&" if query else "?") + f"password_file={secret}"
    url = url_of(kafka_server, topic, scheme, listener, query, user="nobody" if wrong == "user" else USER)
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"Kafka at 127\.0\.0\.1:\d+ refuses: .*[Aa]uthentication failed") as error:
        open_sink(url, check=True)
    assert "\n" not in str(error.value)
    store = MemoryStore()
    filled(store, [1])
    with pytest.raises(NonRetriableError, match="refuses"):
        run(deliver(ports_of(store, open_sink(url)), AT_ONCE))
    with pytest.raises(NonRetriableError, match="none of 2 alerts reached topic"):
        open_sink(url).send(packets(2))
    assert time.monotonic() - begun < 15
    assert len(store.unsent()) == 1


def test_a_certificate_of_nobody_trusted_is_refused(kafka_server, topic):
    with pytest.raises(InputError, match=r"refuses: .*certificate verify failed"):
        open_sink(url_of(kafka_server, topic, "kafka+tls", "SSL", ""), check=True)


def test_an_absent_broker_or_topic_is_said_at_once(kafka_server, topic):
    sink = KafkaSink("127.0.0.1:1", topic, answer_s=1.0, settings={"log_level": 0})
    with pytest.raises(InputError, match=r"Kafka at 127\.0\.0\.1:1 does not answer within 1 s"):
        sink.check()
    with pytest.raises(RetriableError, match="does not answer"):
        sink.position("mine")
    with pytest.raises(InputError, match="topic no-such-topic: Broker: Unknown topic or partition"):
        open_sink(f"kafka://{kafka_server.address()}/no-such-topic", check=True)


# --- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("url", "message"), [
    ("kafka+sasl://me:secret@host:1/t", r"alert sink kafka\+sasl://host:1/t: no password in a URL"),
    ("kafka+sasl://host:1/t", r"expected kafka\+sasl://user@host:port/topic"),
    ("kafka://me@host:1/t", "without a user"),
    ("kafka+sasl://me@host:1/t?mechanism=GSSAPI", "mechanism must be SCRAM-SHA-512, .*, got 'GSSAPI'"),
    ("kafka://host:1/t?compression=gzip", "compression must be snappy, lz4, zstd, none, got 'gzip'"),
    ("kafka://host:1/t?colour=red", "no option 'colour'; there are mechanism, key"),
    ("kafka+sasl://me@host:1/t?password_env=NO_SUCH_VARIABLE", "environment variable NO_SUCH_VARIABLE"),
    ("kafka+sasl://me@host:1/t?password_file=/no/such", "password_file '/no/such' is not a file"),
    ("kafka+tls://host:1/t?ca=/no/such", "ca '/no/such' is not a file"),
])
def test_a_kafka_url_that_cannot_be_used_says_why(url, message):
    with pytest.raises(InputError, match=message) as error:
        open_sink(url)
    assert "secret" not in str(error.value)


def test_settings_files_add_to_a_url(tmp_path, monkeypatch):
    file = tmp_path / "kafka.properties"
    file.write_text("# ours\nclient.id = twin\n\nsasl.password=open\n")
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    sink = open_sink(f"kafka+sasl://me@a:1,b:2/t?config={file}&password_file={file}")
    assert sink._settings["client.id"] == "twin"
    assert sink._settings["bootstrap.servers"] == "a:1,b:2"
    file.write_text("client.id\n")
    with pytest.raises(InputError, match=r"line 1: expected name=value, got 'client\.id'"):
        open_sink(f"kafka://a:1/t?config={file}")


@pytest.mark.parametrize(("url", "topic"), [("kafka+sasl://me@h:1/alerts?ca=/a/b", "alerts"), ("kafka://h/x", "x"),
                                            ("file:alerts/", None), ("memory:", None)])
def test_the_topic_of_a_url(url, topic):
    assert topic_of(url) == topic


class Killed(Exception):
    pass


class Crashes:
    """A store of a process that dies when it is called for `what`."""

    def __init__(self, store, what):
        self.store, self.what = store, what

    def __getattr__(self, name):
        def die(*arguments):
            raise Killed
        return die if name == self.what else getattr(self.store, name)
