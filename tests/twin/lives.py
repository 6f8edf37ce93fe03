"""A pipeline that is killed and started again: each life is forked from a process without database or broker.

`python -m tests.twin.lives` reads one order per line, as JSON, and answers with how that life ended:

    {"store": ..., "servers": ..., "topic": ..., "visits": 40, "kill_at": 17}        SIGKILL itself at its 17th Step
    {..., "kill_after_s": 0.3}                                                      SIGKILL from outside, at any moment
    {..., "deliver": "only"}                                                        the sender alone; also "no", "each"
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import FilterConfig, PipelineConfig, PublishConfig, RetryConfig
from pipeline.ports import Ports, PromptStore
from pipeline.prompt import deliver, report_sources
from pipeline.sinks.kafka import KafkaSink
from pipeline.steps import Step, run
from pipeline.stores.duckdb import DuckDBStore
from schemas.exposure import Visit
from tests.twin.nights import MJD, known_for, measured_of, ports_of, sky, visit_of

FIELDS = 25                    # visits go round: most objects have some history, none a long one
TABLES = {"DiaSource": "diaSourceId", "DiaForcedSource": "diaForcedSourceId", "DiaObject": "diaObjectId"}


@dataclass(frozen=True, slots=True)
class Life:
    """What one process is to do, and when it is to die."""

    store: str
    servers: str
    topic: str
    visits: int
    sources: int = 8
    deliver: str = "each"          # after each visit | only: no visits | no
    order: str = "outbox"
    transactions: bool = True
    stop_after: int = 10**9        # new visits
    kill_at: int = 0               # the Step, from 1; 0: it does not
    kill_after_s: float = 0.0      # 0: it is not
    file_size: int = 0             # RLIMIT_FSIZE: the disk is full there; 0: it is not
    user: int = 0                  # changes to this user first; 0: it does not


class Nowhere:
    """A recorder of nothing."""

    def append(self, table: str, rows: np.ndarray) -> None:
        pass


def clock() -> float:
    """It goes on from life to life."""
    return MJD + time.time() / 86400


def field_visit(i: int) -> Visit:
    return visit_of(i, ra=330.0 + 0.5 * (i % FIELDS))


def config_of(life: Life) -> PipelineConfig:
    return PipelineConfig(publish=PublishConfig(order=life.order),  # type: ignore[arg-type]
                          retry=RetryConfig(limit=20, delay_s=0.2),
                          filter=FilterConfig(satellite_retry=RetryConfig(limit=0, delay_s=0.0)))


def work(life: Life, store: PromptStore, ports: Ports, note: Any) -> None:
    """What was left in the outbox, then the visits that are not in the store."""
    config = config_of(life)
    if life.deliver != "no":
        run(deliver(ports, config), note)
    done = 0
    for i in range(1, life.visits + 1):
        if life.deliver == "only" or done == life.stop_after:
            return
        visit = field_visit(i)
        if store.contains(visit.visit, 94):
            continue
        truth = sky(life.sources, seed=i % FIELDS, ra=visit.ra)
        known = known_for(visit, ports, config)
        run(report_sources(measured_of(visit, truth), known, ports, config), note)
        if life.deliver == "each":
            run(deliver(ports, config), note)
        done += 1


def live(life: Life) -> None:
    """One life, to its end or to the Step at which it kills itself."""
    import resource

    if life.file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (life.file_size, resource.RLIM_INFINITY))
    if life.user:
        os.setuid(life.user)
    steps = 0

    def note(step: Step) -> None:
        nonlocal steps
        steps += 1
        if steps == life.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    store = DuckDBStore(Path(life.store))
    sink = KafkaSink(life.servers, life.topic, settings={"compression.type": "lz4"}, transactions=life.transactions)
    try:
        work(life, store, ports_of(store, sink=sink, recorder=Nowhere(), clock=clock), note)
    finally:
        sink.close()
        store.close()


class Lives:
    """The process that lives are forked from."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "tests.twin.lives"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def begin(self, life: Life) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asdict(life)) + "\n")
        self.process.stdin.flush()

    def end(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the process that lives are forked from is gone"
        return dict(json.loads(line))

    def lead(self, life: Life) -> dict[str, Any]:
        """A life from beginning to end: {"killed": bool, "error": str, "seconds": float}."""
        self.begin(life)
        return self.end()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


def _main() -> None:
    for line in sys.stdin:
        life, begun = Life(**json.loads(line)), time.monotonic()
        answers, says = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(answers)
            code = 0
            try:
                live(life)
            except BaseException as error:
                os.write(says, f"{type(error).__name__}: {error}".encode()[:4000])
                code = 1
            os._exit(code)
        os.close(says)
        timer = threading.Timer(life.kill_after_s, os.kill, (child, signal.SIGKILL)) if life.kill_after_s else None
        if timer is not None:
            timer.start()
        with os.fdopen(answers, "rb") as file:
            said = file.read()
        _, status = os.waitpid(child, 0)
        if timer is not None:
            timer.cancel()
        print(json.dumps({"killed": os.WIFSIGNALED(status), "error": said.decode(),
                          "seconds": time.monotonic() - begun}), flush=True)


if __name__ == "__main__":
    _main()
