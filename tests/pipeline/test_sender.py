"""Delivery in a thread beside the pipeline."""

import threading

import pytest

from pipeline.config import PipelineConfig, RetryConfig
from pipeline.errors import RetriableError
from pipeline.ports import Position
from pipeline.sender import Sender, sending
from pipeline.sinks.memory import MemorySink
from pipeline.stores.memory import MemoryStore
from tests.pipeline.test_stores import request, segment
from tests.twin.nights import Notes, ports_of

ONCE = PipelineConfig(retry=RetryConfig(limit=0, delay_s=0.0))


class Remembers(MemorySink):
    """A sink in memory that keeps positions, and is down while told to be."""

    remembers = True

    def __init__(self):
        super().__init__()
        self.known, self.down, self.gate = {}, False, threading.Event()
        self.gate.set()

    def position(self, outbox):
        return self.known.get(outbox)

    def send(self, packets, keys=(), position=None):
        self.gate.wait(10)
        if self.down:
            raise RetriableError("the broker is away")
        self.known[position.outbox] = position
        return super().send(packets)


def saved(sender, visit, n=3):
    sender.ports.store.save(request(visit), segment(visit, 0, n))
    sender.wake()


def test_what_is_saved_goes_out_beside_the_next_visit_and_all_of_it_before_the_end():
    sink, notes = Remembers(), Notes()
    sender = Sender(ports_of(sink=sink, recorder=notes), ONCE)
    sink.gate.clear()
    for visit in range(1, 6):
        saved(sender, visit)                   # no visit waits for the broker
    assert sink.packets == []
    sink.gate.set()
    assert sender.close() is None
    assert sink.packets == [packet for visit in range(1, 6) for packet in segment(visit, 0, 3).packets]
    assert notes.rows("publication")["visit"].tolist() == [visit for visit in range(1, 6) for _ in range(3)]
    assert sender.ports.store.unsent() == []


def test_while_the_broker_is_away_alerts_wait_and_go_out_when_it_is_back(caplog):
    sink = Remembers()
    sender = Sender(ports_of(sink=sink), ONCE)
    sink.down = True
    saved(sender, 1)
    while sender._failure is None:
        pass
    assert "alerts stay in the outbox: the broker is away" in caplog.text
    sink.down = False
    saved(sender, 2)
    assert sender.close() is None
    assert len(sink.packets) == 6


def test_what_stays_behind_is_said_at_the_end():
    sink = Remembers()
    sender = Sender(ports_of(sink=sink), ONCE)
    sink.down = True
    saved(sender, 1)
    assert str(sender.close()) == "the broker is away"
    assert len(sender.ports.store.unsent()) == 1


def test_an_error_that_is_none_of_the_outside_rises():
    class Broken(Remembers):
        def send(self, packets, keys=(), position=None):
            raise TypeError("a mistake")

    sender = Sender(ports_of(sink=Broken()), ONCE)
    saved(sender, 1)
    with pytest.raises(TypeError, match="a mistake"):
        sender.close()


def test_a_sink_that_does_not_remember_is_delivered_to_by_each_visit():
    ports = ports_of(store=MemoryStore())
    with sending(ports, ONCE) as (used, after):
        assert used is ports
        assert after is None


def test_a_position_says_where_an_outbox_stands():
    sink = Remembers()
    with sending(ports_of(sink=sink), ONCE) as (ports, wake):
        ports.store.save(request(4), segment(4, 0, 3))
        name = ports.store.unsent()[0].outbox
        wake()
    assert sink.known == {name: Position(name, 3, int(segment(4, 0, 3).ids[-1]))}
