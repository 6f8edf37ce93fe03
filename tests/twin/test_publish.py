"""The two orders of publication: through the outbox, and as the real system does."""

from pathlib import Path

import pytest

from pipeline.config import PipelineConfig, PublishConfig, RetryConfig
from pipeline.errors import RetriableError
from pipeline.prompt import deliver, report_sources
from pipeline.sinks.memory import MemorySink
from pipeline.steps import run
from tests.twin.nights import Notes, known_for, measured_of, ports_of, sky, visit_of
from twin.scenario import read_scenario

FIRST = PipelineConfig(publish=PublishConfig(order="write_first"), retry=RetryConfig(limit=3, delay_s=0.0))


class Sips(MemorySink):
    """Takes four packets of a batch."""

    def send(self, packets, keys=(), position=None):
        return super().send(packets[:4])


class Down(MemorySink):
    def send(self, packets, keys=(), position=None):
        raise RetriableError("the broker is away")


def report(ports, config, n=9):
    steps = []
    visit = visit_of(1)
    summary = run(report_sources(measured_of(visit, sky(n)), known_for(visit, ports), ports, config),
                  lambda step: steps.append(step.name))
    return summary, steps


def test_the_deployed_order_saves_then_packages_then_sends_once():
    ports = ports_of(recorder=Notes())
    summary, steps = report(ports, FIRST)
    assert steps[-3:] == ["save", "package", "send"]
    assert (summary.n_alerts, summary.n_lost) == (9, 0)
    assert len(ports.sink.packets) == 9
    assert ports.recorder.rows("publication")["diaSourceId"].tolist() == ports.store.table("DiaSource")[
        "diaSourceId"].tolist()
    assert run(deliver(ports, FIRST)) == 0


def test_both_orders_send_the_same_packets():
    first, outbox = ports_of(), ports_of()
    report(first, FIRST)
    report(outbox, PipelineConfig())
    assert outbox.sink.packets == []
    run(deliver(outbox, PipelineConfig()))
    assert first.sink.packets == outbox.sink.packets


@pytest.mark.parametrize(("sink", "arrived"), [(Sips, 4), (Down, 0)])
def test_what_does_not_arrive_at_once_is_lost_in_the_deployed_order_and_waits_in_ours(sink, arrived):
    ports = ports_of(sink=sink(), recorder=Notes())
    summary, steps = report(ports, FIRST)
    assert summary.n_lost == 9 - arrived
    assert steps.count("send") == 1
    assert sum(map(len, ports.recorder.tables["publication"])) == len(ports.sink.packets) == arrived
    assert ports.store.unsent() == []
    assert len(ports.store.table("DiaSource")) == 9
    ours = ports_of(sink=Down())
    assert report(ours, PipelineConfig())[0].n_lost == 0
    with pytest.raises(RetriableError):
        run(deliver(ours, PipelineConfig(retry=RetryConfig(limit=1, delay_s=0.0))))
    assert [len(segment) for segment in ours.store.unsent()] == [9]


def test_the_deployed_scenario_publishes_as_deployed():
    folder = Path(__file__).resolve().parents[2] / "scenarios"
    assert read_scenario(folder / "deployed.toml", [], None).pipeline.publish.order == "write_first"
    assert read_scenario(folder / "paper.toml", [], None).pipeline.publish.order == "outbox"
