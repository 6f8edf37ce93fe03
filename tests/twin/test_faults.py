import numpy as np
import pytest

from pipeline.config import RetryConfig
from pipeline.errors import NonRetriableError, RetriableError
from pipeline.ports import SaveRequest, Segment
from pipeline.retry import read, write
from pipeline.sinks.memory import MemorySink
from pipeline.steps import run
from pipeline.stores.memory import MemoryStore
from schemas.exposure import Box
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE, SUMMARY
from twin.faults import CommitsThenFails, Flaky, Slow

SKY = Box(0.0, 360.0, -90.0, 90.0)
RETRY = RetryConfig(limit=2, delay_s=0.0)


def request(visit):
    return SaveRequest(visit, 0, DIA_OBJECT.empty(), DIA_SOURCE.empty(), DIA_FORCED_SOURCE.empty(), SS_SOURCE.empty(),
                       SUMMARY.empty())


def segment(visit):
    return Segment(visit, 0, np.array([visit]), (b"packet",))


def test_without_faults_a_wrapper_changes_nothing():
    store = Flaky(MemoryStore(), np.random.default_rng(0), 0.0)
    store.save(request(1), segment(1))
    assert store.contains(1, 0)
    assert len(store.objects(SKY)) == len(store.history(np.array([1]), 0.0, 1.0)) == 0
    assert store.unsent()[0].packets == (b"packet",)
    store.mark_sent(segment(1))
    assert store.unsent() == []
    assert len(store.table("DiaSource")) == 0
    store.close()


def test_a_flaky_port_fails_at_its_rate_before_anything_changed():
    sink = MemorySink()
    flaky = Flaky(sink, np.random.default_rng(5), 0.2)
    failures = 0
    for _ in range(2000):
        try:
            flaky.send([b"x"])
        except RetriableError:
            failures += 1
    assert len(sink.packets) == 2000 - failures
    assert abs(failures - 400) < 4 * np.sqrt(2000 * 0.2 * 0.8)


def test_only_the_named_calls_fail():
    store = Flaky(MemoryStore(), np.random.default_rng(0), 1.0, only=("save",))
    assert not store.contains(1, 0)
    with pytest.raises(RetriableError, match="save: the connection failed"):
        store.save(request(1), segment(1))
    assert not store.port.contains(1, 0)
    with pytest.raises(ValueError, match="rate of failures must be 0 to 1, got 2"):
        Flaky(MemoryStore(), np.random.default_rng(0), 2)


def test_a_flaky_read_is_retried_until_the_limit():
    store = Flaky(MemoryStore(), np.random.default_rng(0), 1.0)
    steps = []
    with pytest.raises(RetriableError):
        run(read("objects", lambda: store.objects(SKY), RETRY), steps.append)
    assert [step.name for step in steps] == ["retry.objects"] * 2


def test_a_commit_whose_answer_was_lost_is_not_retried():
    store = CommitsThenFails(MemoryStore(), lost={2})
    for visit in (1, 2):
        def save(visit=visit):
            store.save(request(visit), segment(visit))
        call = write("save", 1, save, RETRY, landed=lambda visit=visit: store.contains(visit, 0))
        if visit == 1:
            run(call)
        else:
            with pytest.raises(NonRetriableError, match="committed, but its answer was lost"):
                run(call)
    assert [found.visit for found in store.unsent()] == [1, 2]       # nothing is lost


def test_a_slow_port_waits_on_the_clock_it_is_given():
    waited = []
    sink = MemorySink()
    delays = iter([1.5, 0.25])
    slow = Slow(sink, lambda: next(delays), waited.append)
    slow.send([b"a"])
    slow.send([b"b"])
    assert waited == [1.5, 0.25]
    assert sink.packets == [b"a", b"b"]
