"""The filtering service: users' filters over a visit's packets, 20 packets per visit for each user (paper 7.2).

    stream -> spool of the visit -> (quiet: the visit is over) -> one process per filter -> the user's sink

A visit's packets wait in a file until no more of them come. Then every filter runs in a process of its own
(`filter_child`), with limits; what it selects, in its own order and up to the user's limit, goes to the user's sink,
and a ledger remembers it. Only then are the visit's offsets committed: after a crash visits are read and run again, and
users are given what the ledger does not have. A packet that comes after its visit was over makes the visit run again
with what is left of the limit. A filter that fails several visits in a row is switched off, and its reason is kept.

One service reads the whole topic: an alert has no key, so a visit lies in all partitions.
"""

import contextlib
import json
import logging
import os
import select
import shutil
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from pipeline.errors import InputError, PipelineError, RetriableError
from pipeline.open import open_sink
from pipeline.ports import AlertSink
from pipeline.serve.filter_config import Filter, FilterConfig
from pipeline.serve.filter_orders import Answer, Job, Order, Outcome
from pipeline.serve.messages import Alert, Message, Positions, Rejected, written_aside

LOG: Final = logging.getLogger(__name__)
REMEMBERED: Final = 5000           # visits in the ledger: five nights
TRIES: Final = 3                   # of a user's sink before the packets are set aside
START_S: Final = 120.0             # for the child process to decode a visit, beyond its filters' own time
_SERVICE: Final = "pipeline.serve.filter_child"
_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "TMPDIR")       # of the environment: no passwords among them


@dataclass(slots=True)
class OpenVisit:
    """A visit whose alerts still come."""

    visit: int
    spool: IO[bytes]
    last: float                                                # when the latest alert came
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)    # id -> first byte and length
    first: Positions = field(default_factory=dict)             # the earliest message in each partition
    messages: dict[int, Message] = field(default_factory=dict)     # id -> its message, without the packet

    def add(self, alert: Alert, now: float) -> None:
        """Keep an alert; one that comes again is kept once."""
        message = alert.message
        self.first[message.source] = min(message.offset, self.first.get(message.source, message.offset))
        self.last = now
        if alert.identifier not in self.spans:
            self.spans[alert.identifier] = self.spool.tell(), len(alert.packet)
            self.messages[alert.identifier] = replace(message, value=b"")
            self.spool.write(alert.packet)

    def packet(self, identifier: int) -> bytes:
        start, length = self.spans[identifier]
        return os.pread(self.spool.fileno(), length, start)

    def rejected(self, identifier: int, reason: str) -> Rejected:
        return Rejected(replace(self.messages[identifier], value=self.packet(identifier)), reason)


class Ledger:
    """What every user was sent of each visit, and who failed how often: two files in a folder.

    `sent.jsonl` grows by a line per user and visit, synchronised to the disk; it is rewritten at the start without what
    is too old. `users.json` has the filters that failed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sent: OrderedDict[int, dict[str, list[int]]] = OrderedDict()
        self.failed: dict[str, dict[str, Any]] = {}
        self._read()
        lines = [_line(visit, user, ids) for visit, users in self._sent.items() for user, ids in users.items()]
        written_aside(folder / "sent.jsonl", b"".join(lines))
        self._file = (folder / "sent.jsonl").open("ab")

    def sent(self, visit: int, user: str) -> list[int]:
        return self._sent.get(visit, {}).get(user, [])

    def note(self, visit: int, user: str, ids: Sequence[int]) -> None:
        """Remember for good that a user has these."""
        self._add(visit, user, ids)
        self._file.write(_line(visit, user, ids))
        self._file.flush()
        os.fsync(self._file.fileno())

    def note_failed(self, one: Filter, offence: str, *, limit: int) -> bool:
        """Count an offence; whether the filter is off now."""
        before = self.failed.get(one.user, {})
        count = int(before.get("count", 0)) + 1 if before.get("digest") == one.digest else 1
        off = count >= limit
        self.failed[one.user] = {"count": count, "reason": offence, "off": off, "digest": one.digest}
        self._write_failed()
        return off

    def note_fine(self, user: str) -> None:
        if self.failed.pop(user, None) is not None:
            self._write_failed()

    def is_off(self, one: Filter) -> bool:
        """Whether a filter was switched off and is still the same."""
        found = self.failed.get(one.user, {})
        return bool(found.get("off")) and found.get("digest") == one.digest

    def close(self) -> None:
        self._file.close()

    def _add(self, visit: int, user: str, ids: Sequence[int]) -> None:
        self._sent.setdefault(visit, {}).setdefault(user, []).extend(ids)
        while len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)

    def _read(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / "sent.jsonl"
            for line in path.read_bytes().splitlines() if path.is_file() else ():
                try:
                    found = json.loads(line)
                    self._add(int(found["visit"]), str(found["user"]), [int(one) for one in found["ids"]])
                except (ValueError, KeyError, TypeError):
                    LOG.warning("%s: a line is cut short, as a crash leaves it", path)
            users = self._folder / "users.json"
            self.failed = json.loads(users.read_text()) if users.is_file() else {}
        except (OSError, ValueError) as error:
            raise InputError(f"state of the filters {self._folder}: {error}") from error

    def _write_failed(self) -> None:
        written_aside(self._folder / "users.json", json.dumps(self.failed, indent=1).encode())


class Runner:
    """The process that runs filters; begun anew when it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, order: Order) -> Answer:
        """All outcomes of an order. PipelineError if the process dies of it twice."""
        rounds = -(-len(order.jobs) // order.processes)
        patience = START_S + rounds * max(job.wall_s for job in order.jobs)
        for _ in range(2):
            process = self._started()
            try:
                _pipe(process.stdin).write(msgspec.json.encode(order) + b"\n")
                _pipe(process.stdin).flush()
                line = _line_within(process, patience)
                return msgspec.json.decode(line, type=Answer)
            except (OSError, ValueError, TimeoutError) as error:
                LOG.warning("the process of the filters is begun anew: %s", error)
                self.close()
        raise PipelineError("the process that runs filters ended twice on one visit")

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    _pipe(pipe).close()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self.close()
            environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
            environment |= {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "MALLOC_ARENA_MAX": "1",
                            "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            self._process = subprocess.Popen([sys.executable, "-m", _SERVICE], stdin=subprocess.PIPE,
                                             stdout=subprocess.PIPE, env=environment, start_new_session=True)
        return self._process


class FilterService:
    """A handler that gives every user what his filter selects."""

    def __init__(self, config: FilterConfig, *, clock: Callable[[], float] = time.monotonic,
                 sinks: Callable[..., AlertSink] = open_sink, runner: Runner | None = None) -> None:
        self.config = config
        self.delivered: dict[str, int] = {one.user: 0 for one in config.filters}
        self.alerts = self.visits = 0
        self.seconds: list[tuple[float, float]] = []           # (until filters could start, until all were done)
        self._clock, self._open_sink = clock, sinks
        self._open: dict[int, OpenVisit] = {}
        self._sinks: dict[tuple[str, bool], AlertSink] = {}
        self._folder = Path(config.state)
        self._ledger = Ledger(self._folder)
        self._runner = runner or Runner()
        self._lent = runner is not None                        # then its owner closes it
        self._spools = self._folder / "spool"
        shutil.rmtree(self._spools, ignore_errors=True)        # what is there was never committed, and comes again
        self._spools.mkdir()
        for one in config.filters:
            if self._ledger.is_off(one):
                LOG.warning("the filter of %s stays off: %s", one.user, self._ledger.failed[one.user]["reason"])

    @property
    def switched_off(self) -> dict[str, str]:
        """User to reason."""
        return {one.user: str(self._ledger.failed[one.user]["reason"]) for one in self.config.filters
                if self._ledger.is_off(one)}

    def handle(self, alerts: Sequence[Alert]) -> Iterable[Rejected]:
        rejected = []
        for alert in alerts:
            if alert.visit is None:
                rejected.append(Rejected(alert.message, "its diaSource has no visit, by which filters work"))
                continue
            visit = self._open.get(alert.visit) or self._opened(alert.visit)
            visit.add(alert, self._clock())
            self.alerts += 1
            if len(visit.spans) >= self.config.max_alerts:
                rejected += self._close(visit)
        quiet = self._clock() - self.config.quiet_s
        for visit in [one for one in self._open.values() if one.last <= quiet]:
            rejected += self._close(visit)
        return rejected

    def settled(self, read: Positions) -> Positions:
        held: Positions = {}
        for visit in self._open.values():
            for source, offset in visit.first.items():
                held[source] = min(offset, held.get(source, offset))
        return {**read, **held}

    def finish(self) -> Iterable[Rejected]:
        return [one for visit in list(self._open.values()) for one in self._close(visit)]

    def close(self) -> None:
        if not self._lent:
            self._runner.close()
        for sink in self._sinks.values():
            sink.close()
        for visit in self._open.values():
            visit.spool.close()
        self._ledger.close()

    def _opened(self, visit: int) -> OpenVisit:
        spool = (self._spools / f"{int(visit)}.packets").open("w+b")
        self._open[visit] = OpenVisit(visit, spool, self._clock())
        return self._open[visit]

    def _close(self, visit: OpenVisit) -> list[Rejected]:
        """Run all filters on a visit and deliver; what reached no sink comes back."""
        began = time.monotonic()
        visit.spool.flush()
        jobs = tuple(job for one in self.config.filters if (job := self._job(one, visit.visit)))
        rejected: list[Rejected] = []
        try:
            answer = self._runner.run(Order(visit.spool.name, tuple(visit.spans.values()), jobs, self.config.processes)
                                      ) if jobs else Answer((), 0.0)
        except PipelineError as error:         # all of it is set aside: it must not stop the visits after it
            answer = Answer((), 0.0)
            rejected = [visit.rejected(identifier, str(error)) for identifier in visit.spans]
        by_user = {one.user: one for one in self.config.filters}
        for outcome in answer.outcomes:
            rejected += self._settle(by_user[outcome.user], outcome, visit)
        self.seconds.append((answer.tables_s, time.monotonic() - began))
        del self._open[visit.visit]
        visit.spool.close()
        Path(visit.spool.name).unlink()
        self.visits += 1
        return rejected

    def _job(self, one: Filter, visit: int) -> Job | None:
        limits = self.config.limits
        sent = tuple(self._ledger.sent(visit, one.user))
        left = (one.packets or limits.packets) - len(sent)
        if left <= 0 or self._ledger.is_off(one):
            return None
        return Job(one.user, left, limits.wall_s, limits.cpu_s, limits.memory_mb, one.sql, one.python, sent)

    def _settle(self, one: Filter, outcome: Outcome, visit: OpenVisit) -> list[Rejected]:
        LOG.info("visit %d of %d alerts, user %s: %s in %.2f s (%.2f s of CPU)", visit.visit, len(visit.spans),
                 one.user, outcome.offence or f"{len(outcome.ids)} selected", outcome.wall_s, outcome.cpu_s)
        if outcome.offence:
            if self._ledger.note_failed(one, outcome.offence, limit=self.config.limits.offences):
                LOG.warning("the filter of %s is switched off: %s", one.user, outcome.offence)
            return []
        self._ledger.note_fine(one.user)
        return self._deliver(one, outcome.ids, visit) if outcome.ids else []

    def _deliver(self, one: Filter, ids: Sequence[int], visit: OpenVisit) -> list[Rejected]:
        packets = [visit.packet(identifier) for identifier in ids]
        reason, sent = "", 0
        for _ in range(TRIES):
            try:
                sent += self._sink(one, visit.messages[ids[0]]).send(packets[sent:])
            except (PipelineError, OSError, ValueError) as error:     # one user's sink must not stop the others'
                reason = " ".join(str(error).split())
            if sent == len(packets):
                break
        self._ledger.note(visit.visit, one.user, ids[:sent])
        self.delivered[one.user] += sent
        if reason:
            LOG.warning("sink of %s: %s", one.user, reason)
        return [visit.rejected(identifier, f"not delivered to user {one.user}: {reason}") for identifier in ids[sent:]]

    def _sink(self, one: Filter, message: Message) -> AlertSink:
        """The user's sink; its messages say that they are simulated if the stream's do."""
        simulated = dict(message.headers).get("simulated") == b"true"
        if (one.user, simulated) not in self._sinks:
            headers = {"filter": one.user, **({"simulated": "true"} if simulated else {})}
            try:
                self._sinks[one.user, simulated] = self._open_sink(one.sink, headers=headers)
            except InputError as error:
                raise RetriableError(str(error)) from error
        return self._sinks[one.user, simulated]


def _line(visit: int, user: str, ids: Sequence[int]) -> bytes:
    return json.dumps({"visit": visit, "user": user, "ids": list(ids)}).encode() + b"\n"


def _pipe(pipe: "IO[bytes] | None") -> IO[bytes]:
    assert pipe is not None
    return pipe


def _line_within(process: "subprocess.Popen[bytes]", patience: float) -> bytes:
    """A line of a process. TimeoutError if it is late, ValueError if it ended."""
    handle = _pipe(process.stdout).fileno()
    end, found = time.monotonic() + patience, b""
    while not found.endswith(b"\n"):
        ready, _, _ = select.select([handle], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            raise TimeoutError(f"no answer within {patience:.0f} s")
        some = os.read(handle, 65536)
        if not some:
            raise ValueError(f"it ended with code {process.wait()}")
        found += some
    return found
