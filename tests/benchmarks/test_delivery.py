"""How fast alerts go from rows to a consumer of committed messages: packets, outbox with fsync, lz4, a real broker.

Beside it what the same broker, producer and consumer reach with the same packets ready in memory. One run prints the
table: `pytest -m bench tests/benchmarks/test_delivery.py -s`.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest

from pipeline.batches import BATCH_BYTES
from pipeline.config import PipelineConfig, RetryConfig
from pipeline.ports import Ports, Position, Segment
from pipeline.prompt import deliver
from pipeline.sender import Sender
from pipeline.sinks.kafka import KafkaSink
from pipeline.steps import Step, run
from pipeline.stores.duckdb import DuckDBStore
from tests.pipeline.test_stores import request
from tests.servers.fetch import missing
from tests.servers.fixtures import need
from tests.servers.kafka import Kafka
from tests.twin.lives import Nowhere
from twin.packets import Contents, drawn

pytestmark = pytest.mark.bench

SETTINGS = {"compression.type": "lz4"}
CONFIG = PipelineConfig(retry=RetryConfig(limit=3, delay_s=0.5))
SIZES = {"125 kB": (12, 12, 4240, 212, 800.0), "260 kB": (300, 500, 1200, 60, 250.0)}   # rows, packets, each, bar [1/s]
SHARE = 0.6                                    # of what ready-made bytes reach
ROUNDS = 2
_topics = itertools.count()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    need(missing())
    made = Kafka(tmp_path_factory.mktemp("broker"), heap_mb=512, quick_start=False).start()
    yield made
    made.kill()


@dataclass(frozen=True, slots=True)
class Timed:
    """One run: packets per second until the consumer had the last, and where the producer's seconds went."""

    n: int
    wall_s: float
    split_s: dict[str, float]
    cpu_s: dict[str, float]        # of producer, broker and consumer

    @property
    def rate(self) -> float:
        return self.n / self.wall_s

    @property
    def idle_rate(self) -> float:
        """What two cores with nothing else to do could reach, were no time spent waiting."""
        return 2 * self.n / sum(self.cpu_s.values())

    def line(self, name: str) -> str:
        parts = ", ".join(f"{what} {seconds:.2f}" for what, seconds in self.split_s.items())
        cpu = ", ".join(f"{what} {seconds:.2f}" for what, seconds in self.cpu_s.items())
        return f"{name:18}{self.rate:6.0f}/s of at most {self.idle_rate:.0f}/s by CPU ({cpu} s); seconds: {parts}"


def timed(broker: Kafka, n: int, produce: Callable[[str], dict[str, float]]) -> Timed:
    """Run a producer against a consumer in another process; every packet must arrive once."""
    topic = broker.topic(f"alerts-simulated-{next(_topics)}", 3, **{"max.message.bytes": "8000000"})
    consumer = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.consumer", broker.address(), topic, str(n)],
                                stdout=subprocess.PIPE, text=True)
    assert consumer.stdout is not None
    assert consumer.stdout.readline() == "ready\n"
    begun, cpu, of_broker = time.monotonic(), time.process_time(), broker.cpu_s()
    split = produce(topic)
    used = time.process_time() - cpu
    said = json.loads(consumer.stdout.read())
    consumer.wait(10)
    consumer.stdout.close()
    assert (said["distinct"], said["twice"]) == (n, 0)
    spent = {"producer": used, "broker": broker.cpu_s() - of_broker, "consumer": said["cpu_s"]}
    broker.empty(topic, 3)
    return Timed(n, said["done"] - begun, split, spent)


def ready_made(broker: Kafka, segments: Sequence[Segment], *, transactions: bool
               ) -> Callable[[str], dict[str, float]]:
    """The packets from memory, in as large pieces as the outbox's; with the same producer, or at least once."""
    packets = [packet for segment in segments for packet in segment.packets]
    each = BATCH_BYTES * len(packets) // sum(map(len, packets))

    def produce(topic: str) -> dict[str, float]:
        sink = KafkaSink(broker.address(), topic, settings=SETTINGS, transactions=transactions)
        sink.position("bytes")
        begun = time.monotonic()
        for first in range(0, len(packets), each):
            piece = packets[first:first + each]
            assert sink.send(piece, (), Position("bytes", first + len(piece), 0)) == len(piece)
        split = {"send": time.monotonic() - begun}
        sink.close()
        return split

    return produce


def end_to_end(broker: Kafka, contents: Sequence[Contents], folder: Path) -> Callable[[str], dict[str, float]]:
    """Rows to packets, to the outbox and the tables; from the outbox to the broker in a thread beside it."""
    def produce(topic: str) -> dict[str, float]:
        sink = KafkaSink(broker.address(), topic, settings=SETTINGS)
        store = DuckDBStore(folder / f"{topic}.db")
        split = dict.fromkeys(("package", "append and fsync", "commit"), 0.0)
        append = store._files.append

        def timed_append(packets: Sequence[bytes]) -> object:
            with_clock = time.monotonic()
            place = append(packets)
            split["append and fsync"] += time.monotonic() - with_clock
            return place

        store._files.append = timed_append  # type: ignore[method-assign, assignment]
        sink.position("warm")
        clock = Clock(split)
        sender = Sender(Ports(lambda: 61105.0, store, sink, Nowhere(), None, None),  # type: ignore[arg-type]
                        CONFIG, clock)
        for one in contents:
            begun = time.monotonic()
            segment = one.package()
            split["package"] += time.monotonic() - begun
            begun, before = time.monotonic(), split["append and fsync"]
            sender.ports.store.save(request(one.visit.visit, one.detector, objects=one.objects, sources=one.sources,
                                            forced=one.forced), segment)
            split["commit"] += time.monotonic() - begun - (split["append and fsync"] - before)
            sender.wake()
        begun = time.monotonic()
        assert sender.close() is None
        split["rest of sending"] = time.monotonic() - begun
        store.close()
        sink.close()
        return split

    return produce


class Clock:
    """The seconds of the sender's Steps: a write is announced before it is performed, a read afterwards."""

    def __init__(self, split: dict[str, float]) -> None:
        self.split, self.last, self.name = split, time.monotonic(), ""

    def __call__(self, step: Step) -> None:
        now = time.monotonic()
        if self.name:
            self.split["sender: " + self.name] = self.split.get("sender: " + self.name, 0.0) + now - self.last
        self.last, self.name = now, step.name if step.ahead else ""


@pytest.mark.parametrize("size", SIZES)
def test_alerts_from_rows_to_a_consumer(broker: Kafka, tmp_path: Path, size: str) -> None:
    n_sources, n_forced, n, each, bar = SIZES[size]
    contents = list(drawn(n, n_sources, n_forced, 1, per_detector=each))
    segments = [one.package() for one in contents]
    ready = ready_made(broker, segments, transactions=True)
    timed(broker, n, ready)                            # the broker compiles
    raw, whole, plain = [], [], []
    for _ in range(ROUNDS):
        raw.append(timed(broker, n, ready))
        whole.append(timed(broker, n, end_to_end(broker, contents, tmp_path)))
        plain.append(timed(broker, n, ready_made(broker, segments, transactions=False)))
    mean = sum(segment.size for segment in segments) / n
    share = median(b.rate / a.rate for a, b in zip(raw, whole, strict=True))
    best = max(one.rate for one in whole)
    print(f"\n{n} packets of {mean / 1000:.0f} kB")
    for a, b, c in zip(raw, whole, plain, strict=True):
        print(a.line("ready-made bytes"), b.line("rows to consumer"), c.line("at least once"), sep="\n")
    of_plain = median(b.rate / c.rate for b, c in zip(whole, plain, strict=True))
    print(f"share {share:.2f} (bar {SHARE}; of bytes at least once {of_plain:.2f}), "
          f"best {best:.0f}/s (bar {bar:.0f}/s), load of the machine {os.getloadavg()[0]:.1f}")
    assert share >= SHARE
    assert best >= bar


BURST = """
import json, sys
from pathlib import Path
from tests.benchmarks.test_delivery import burst
print(json.dumps(burst(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))))
"""


def burst(servers: str, topic: str, n: int, folder: Path) -> dict[str, float]:
    """All packets of a burst into the outbox before the first is sent; memory of this process, in MB."""
    store = DuckDBStore(folder / "burst.db")
    begun, size = time.monotonic(), 0
    for one in drawn(n, 2, 2, 7):
        segment = one.package()
        size += segment.size
        store.save(request(one.visit.visit, one.detector, objects=one.objects, sources=one.sources, forced=one.forced),
                   segment)
    saved = time.monotonic()
    before = memory_mb()
    sink = KafkaSink(servers, topic, settings=SETTINGS)
    ports = Ports(lambda: 61105.0, store, sink, Nowhere(), None, None)  # type: ignore[arg-type]
    sent = run(deliver(ports, CONFIG))
    done = time.monotonic()
    left = len(store.unsent())
    store.close()
    return {"sent": sent, "left": left, "bytes": size, "save_s": saved - begun, "send_s": done - saved,
            "memory_before_mb": before, "memory_mb": memory_mb(),
            "files": len(list((folder / "burst.db.packets").iterdir()))}


def memory_mb() -> float:
    """The most that this process has used; `getrusage` would count what its parent had."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def test_a_burst_of_forty_thousand_alerts_waits_on_disk_and_loses_nothing(broker: Kafka, tmp_path: Path) -> None:
    """The whole of a crowded visit lies in the outbox before a packet is sent; memory does not grow with it."""
    n = 40_000

    def produce(topic: str) -> dict[str, float]:
        done = subprocess.run([sys.executable, "-c", BURST, broker.address(), topic, str(n), str(tmp_path)],
                              capture_output=True, text=True, check=True)
        return dict(json.loads(done.stdout))

    result = timed(broker, n, produce)
    found = result.split_s
    print(f"\nburst of {n} packets, {found['bytes'] / 1e9:.1f} GB: saved in {found['save_s']:.0f} s, sent in "
          f"{found['send_s']:.0f} s ({n / found['send_s']:.0f}/s); memory {found['memory_before_mb']:.0f} MB before "
          f"sending, {found['memory_mb']:.0f} MB at most")
    assert (found["sent"], found["left"], found["files"]) == (n, 0, 0)
    assert found["memory_mb"] < 1000           # a fifth of what waits on disk
    assert found["memory_mb"] - found["memory_before_mb"] < 300
