"""The process that runs users' filters: `python -m pipeline.serve.filter_child`, which the service starts.

It decodes a visit once, and forks for every filter a child that dies with its visit:

    service --(a line of JSON)--> this process --fork--> one child per filter: limits, then the filter
            <--(a line of JSON)--             <--pipe--  ids, or why not

The child cannot use more memory, CPU time or wall-clock time than its limits, write no file, and reach no credentials,
for neither it nor its parent has any. SQL runs in a DuckDB in memory that reads no file, loads no extension, sees no
Python variable, and whose settings are locked. Python filters are the operator's own code: they are limited likewise,
yet nothing keeps them from what the operator's account may read or whom it may call.
"""

import importlib.util
import json
import mmap
import os
import resource
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import duckdb
import msgspec
import numpy as np

from pipeline.alerts.read import read_packet
from pipeline.serve.filter_orders import Answer, Job, Order, Outcome
from pipeline.serve.filter_tables import CUTOUTS, Columns, Record, tables

MAX_ANSWER: Final = 1_000_000      # bytes of a filter's answer
SLACK_MB: Final = 256              # address space of DuckDB's own threads and of Python
DATABASE_SHARE: Final = 0.75       # of a filter's memory that DuckDB may take before it says so itself
LOCKED: Final = {"python_enable_replacements": "false", "autoinstall_known_extensions": "false",
                 "autoload_known_extensions": "false", "allow_community_extensions": "false",
                 "enable_external_access": "false", "lock_configuration": "true"}    # the last one last


class Refused(Exception):
    """A filter that may not run, or gave what it may not give."""


@dataclass(frozen=True, slots=True)
class Visit:
    """What a filter sees."""

    tables: dict[str, Columns]
    records: Sequence[Record]              # only where a Python filter wants them; without cutouts
    packet: Callable[[int], Record]        # the whole packet of an id, cutouts and all

    @property
    def ids(self) -> frozenset[int]:
        return frozenset(self.tables["alerts"]["diaSourceId"].tolist())


@dataclass(slots=True)
class _Run:
    """A child at work."""

    job: Job
    pid: int
    pipe: int
    started: float
    said: bytes = b""

    @property
    def deadline(self) -> float:
        return self.started + self.job.wall_s


def main() -> int:
    """Answer orders until the service closes the line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)       # an interrupt at the keyboard is the service's to handle
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)                                      # what filters print is no answer
    for line in sys.stdin.buffer:
        answers.write(msgspec.json.encode(obey(msgspec.json.decode(line, type=Order))) + b"\n")
        answers.flush()
    return 0


def obey(order: Order) -> Answer:
    """Run the filters of an order on its visit."""
    began = time.monotonic()
    with Path(order.spool).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as packets:
        visit = _visit(packets, order)
        tables_s = time.monotonic() - began
        return Answer(tuple(_run_all(order.jobs, visit, order.processes)), tables_s)


def _visit(packets: mmap.mmap, order: Order) -> Visit:
    keep = any(job.python for job in order.jobs)
    records: list[Record] = []
    spans: dict[int, tuple[int, int]] = {}

    def decoded() -> Iterator[Record]:
        for start, length in order.spans:
            record = read_packet(packets[start:start + length])
            for name in CUTOUTS:
                record.pop(name, None)
            spans[int(record.get("diaSourceId") or record["diaSource"]["diaSourceId"])] = start, length
            if keep:
                records.append(record)
            yield record

    def packet(identifier: int) -> Record:
        start, length = spans[int(identifier)]
        return read_packet(packets[start:start + length])

    return Visit(tables(decoded()), records, packet)


def _run_all(jobs: Iterable[Job], visit: Visit, processes: int) -> list[Outcome]:
    waiting, running, done = deque(jobs), list[_Run](), list[Outcome]()
    while waiting or running:
        while waiting and len(running) < processes:
            running.append(_start(waiting.popleft(), visit))
        patience = max(0.0, min(run.deadline for run in running) - time.monotonic())
        ready, _, _ = select.select([run.pipe for run in running], [], [], patience)
        for run in list(running):
            ended = run.pipe in ready and _read(run)
            if ended or time.monotonic() >= run.deadline:
                running.remove(run)
                done.append(_reaped(run, late=not ended))
    return done


def _start(job: Job, visit: Visit) -> _Run:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(job, visit, writing)
    os.close(writing)
    return _Run(job, pid, reading, time.monotonic())


def _read(run: _Run) -> bool:
    """Take what a child says; whether it has ended, or says too much."""
    some = os.read(run.pipe, 65536)
    run.said += some
    return not some or len(run.said) > MAX_ANSWER


def _reaped(run: _Run, *, late: bool) -> Outcome:
    os.close(run.pipe)
    try:
        os.killpg(run.pid, signal.SIGKILL)     # itself if it is late, and whatever it left behind
    except ProcessLookupError:
        os.kill(run.pid, signal.SIGKILL)       # it had no time to found its group
    _, status, used = os.wait4(run.pid, 0)
    ids, offence = _judged(run, status, late=late)
    return Outcome(run.job.user, tuple(ids), offence, time.monotonic() - run.started, used.ru_utime + used.ru_stime)


def _judged(run: _Run, status: int, *, late: bool) -> tuple[Sequence[int], str]:
    job = run.job
    if late:
        return (), f"it took longer than {job.wall_s:g} s"
    try:
        said = json.loads(run.said)
        return ([], str(said["offence"])[:500]) if said.get("offence") else (said["ids"], "")
    except (ValueError, KeyError, TypeError):
        pass
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        return (), f"it took more than {job.cpu_s} s of CPU time"
    how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"code {os.WEXITSTATUS(status)}"
    return (), f"it ended with {how} and without an answer; its memory is limited to {job.memory_mb} MB"


def _child(job: Job, visit: Visit, pipe: int) -> NoReturn:
    """The forked process: never returns."""
    try:
        os.setsid()
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR)
        for handle in (0, 1, 2):
            os.dup2(null, handle)
        _limit(job)
        said: dict[str, Any] = {"ids": _chosen(job, visit)}
    except Refused as refusal:
        said = {"offence": str(refusal)}
    except MemoryError:
        said = {"offence": f"it took more than {job.memory_mb} MB of memory"}
    except BaseException as error:
        said = {"offence": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
    try:
        answer = json.dumps(said).encode()
        while answer:
            answer = answer[os.write(pipe, answer):]
    finally:
        os._exit(0)


def _limit(job: Job) -> None:
    space = _address_space() + (job.memory_mb + SLACK_MB) * 2**20
    for what, soft, hard in ((resource.RLIMIT_AS, space, space), (resource.RLIMIT_CPU, job.cpu_s, job.cpu_s + 1),
                             (resource.RLIMIT_FSIZE, 0, 0), (resource.RLIMIT_CORE, 0, 0),
                             (resource.RLIMIT_NOFILE, 64, 64)):
        resource.setrlimit(what, (soft, hard))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _chosen(job: Job, visit: Visit) -> list[int]:
    """The first ids of the filter's answer that are new, as many as it may have."""
    known, taken = visit.ids, dict.fromkeys(job.sent)
    before = len(taken)
    for identifier in _sql(job, visit) if job.sql else _python(job, visit):
        if identifier not in known:
            raise Refused(f"diaSourceId {str(identifier)[:40]} is not of an alert of this visit")
        taken.setdefault(int(identifier))
        if len(taken) - before >= job.limit:
            break
    return list(taken)[before:]


def _sql(job: Job, visit: Visit) -> Iterator[Any]:
    with open_database(visit.tables, job.memory_mb) as database:
        try:
            yield from _first_column(select_only(database, job.sql))
        except duckdb.OutOfMemoryException:
            raise Refused(f"it took more than {job.memory_mb} MB of memory") from None
        except duckdb.Error as error:
            raise Refused(f"SQL: {' '.join(str(error).split())[:400]}") from None


def open_database(visit: dict[str, Columns], memory_mb: int) -> duckdb.DuckDBPyConnection:
    """A database in memory that shows a visit's tables and nothing else."""
    database = duckdb.connect(":memory:", config={
        "threads": 1, "memory_limit": f"{int(memory_mb * DATABASE_SHARE)}MB", "temp_directory": ""})
    for name, columns in visit.items():
        database.register(name, columns)
    for key, value in LOCKED.items():
        database.execute(f"SET {key} = {value}")
    return database


def select_only(database: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyConnection:
    """The result of one SELECT; Refused if it is anything else."""
    statements = database.extract_statements(sql)
    if len(statements) != 1:
        raise Refused(f"a filter is one SELECT statement, got {len(statements)} statements")
    kind = statements[0].type
    if kind != duckdb.StatementType.SELECT:
        raise Refused(f"a filter is one SELECT statement, got {kind.name}")
    return database.execute(statements[0])


def _first_column(result: duckdb.DuckDBPyConnection) -> Iterator[Any]:
    names = [column[0] for column in result.description or ()]
    if "diaSourceId" not in names:
        raise Refused(f"a filter selects diaSourceId, got {', '.join(names)[:200]}")
    place = names.index("diaSourceId")
    while rows := result.fetchmany(256):
        for row in rows:
            yield row[place]


def _python(job: Job, visit: Visit) -> Iterable[Any]:
    spec = importlib.util.spec_from_file_location("operators_filter", job.python)
    if spec is None or spec.loader is None:
        raise Refused(f"{job.python} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Iterable[Any] = module.select(visit.records, visit.packet)
    return found


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(main())
