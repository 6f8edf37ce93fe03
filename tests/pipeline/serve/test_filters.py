"""Users' filters: what they select, what they may not do, and that others do not notice."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import duckdb
import fastavro
import numpy as np
import pytest

from pipeline.alerts.read import read_packet, read_packets, schema_of, source_id
from pipeline.errors import InputError, PipelineError, RetriableError
from pipeline.serve.consume import MemoryStream, consume
from pipeline.serve.filter_child import open_database
from pipeline.serve.filter_config import Filter, FilterConfig, Limits, read_filters
from pipeline.serve.filter_orders import Job, Order
from pipeline.serve.filter_tables import CHUNK, tables
from pipeline.serve.filters import FilterService, Ledger, Runner
from pipeline.serve.messages import DeadMemory, Message, Rejected, examine
from pipeline.sinks.memory import MemorySink
from schemas import alert
from tests.pipeline.serve.streams import command, identifiers, packets

IDS = identifiers(packets())
GOOD = "SELECT diaSourceId FROM alerts ORDER BY x"
EARLIEST = "SELECT diaSourceId FROM alerts ORDER BY diaSourceId"
LATEST = EARLIEST + " DESC"


def by_x():
    """Ids in the order of x, from the packets themselves."""
    return sorted(IDS, key=lambda one: read_packet(packets()[IDS.index(one)])["diaSource"]["x"])


@pytest.fixture(scope="module")
def runner():
    made = Runner()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", "open sesame")
        made._started()
    yield made
    made.close()


@pytest.fixture(scope="module")
def spool(tmp_path_factory):
    path = tmp_path_factory.mktemp("spool") / "packets"
    path.write_bytes(b"".join(packets()))
    ends = list(itertools.accumulate(map(len, packets())))
    return str(path), tuple(zip([0, *ends[:-1]], map(len, packets()), strict=True))


def order(spool, *jobs, processes=2):
    return Order(*spool, tuple(jobs), processes)


def job(sql="", user="anna", **changes):
    return Job(**{"user": user, "limit": 20, "wall_s": 20.0, "cpu_s": 10, "memory_mb": 192, "sql": sql, **changes})


def outcome(runner, spool, *args, **changes):
    found, = runner.run(order(spool, job(*args, **changes))).outcomes
    return found


# ---------------------------------------------------------------- what filters see and select

def test_the_first_packets_of_the_filters_own_order_are_selected(runner, spool):
    for limit in (1, 5, 20):
        assert list(outcome(runner, spool, GOOD, limit=limit).ids) == by_x()[:limit]
    assert list(outcome(runner, spool, GOOD + " DESC", limit=5).ids) == by_x()[::-1][:5]


def test_what_was_sent_before_is_passed_over_and_repeated_rows_count_once(runner, spool):
    twice = "SELECT diaSourceId FROM (SELECT * FROM alerts UNION ALL SELECT * FROM alerts) ORDER BY x"
    assert list(outcome(runner, spool, twice, limit=3, sent=tuple(by_x()[:2])).ids) == by_x()[2:5]


def test_history_and_forced_photometry_are_tables(runner, spool):
    sql = "SELECT alertId AS diaSourceId FROM history GROUP BY 1 HAVING count(*) = 3 ORDER BY 1"
    found = outcome(runner, spool, sql)
    expected = [one for one, packet in zip(IDS, packets(), strict=True)
                if len(read_packet(packet)["prvDiaSources"] or ()) == 3]
    assert list(found.ids) == sorted(expected)
    assert expected
    assert outcome(runner, spool, """SELECT alerts.diaSourceId FROM alerts JOIN forced ON alertId = alerts.diaSourceId
        WHERE diaObject_nDiaSources = 4 AND alerts.midpointMjdTai >= forced.midpointMjdTai ORDER BY 1""").ids


def test_columns_say_what_the_packets_say():
    records = [read_packet(packet) for packet in packets()]
    found = tables(records)
    with open_database(found, 128) as database:
        cursor = database.execute("SELECT * FROM alerts")
        names = [one[0] for one in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        history = database.execute("SELECT alertId, diaSourceId, psfFlux, band, reliability FROM history").fetchall()
    for row, record in zip(rows, records, strict=True):
        for name, value in record["diaSource"].items():
            assert same(row[name], value), name
        for prefix in ("diaObject", "ssSource", "mpc_orbits"):
            for name, value in (record[prefix] or {}).items():
                assert same(row[f"{prefix}_{name}"], value), name
        if record["diaObject"] is None:
            assert row["diaObject_diaObjectId"] is None
        assert row["observation_reason"] == record["observation_reason"]
    expected = [(record["diaSourceId"], past["diaSourceId"], past["psfFlux"], past["band"], past["reliability"])
                for record in records for past in record["prvDiaSources"] or ()]
    assert len(history) == len(expected)
    assert all(same(*pair) for row, past in zip(history, expected, strict=True) for pair in zip(row, past, strict=True))


def same(found, expected):
    if hasattr(expected, "tzinfo"):
        return found == expected.replace(tzinfo=None)
    if isinstance(expected, float):
        return found is None if np.isnan(expected) else found == np.float32(expected) or found == expected
    return found == expected


@pytest.mark.parametrize("n", [0, 1, CHUNK, CHUNK + 1])
def test_chunks_are_joined(n):
    record = read_packet(packets()[0])
    other = {**record, "diaObject": None, "prvDiaSources": None}
    found = tables({**(other if i % 3 else record), "diaSourceId": i + 1} for i in range(n))
    assert found["alerts"]["diaSourceId"].tolist() == list(range(1, n + 1))
    assert len(found["history"]["alertId"]) == 3 * -(-n // 3)
    assert len({len(column) for column in found["alerts"].values()}) == 1
    if n > 1:
        assert found["alerts"]["diaObject_nDiaSources"].mask.tolist() == [bool(i % 3) for i in range(n)]


def test_packets_of_an_older_schema_have_nulls():
    record = read_packet(packets()[0])
    del record["diaSource"]["trailLength"]
    del record["target_name"]
    with open_database(tables([record]), 128) as database:
        row = database.execute("SELECT trailLength, target_name, psfFlux FROM alerts").fetchone()
    assert row[:2] == (None, None)
    assert row[2] is not None


# ---------------------------------------------------------------- hostile SQL

HOSTILE = {
    "read_csv": ("SELECT * FROM read_csv('{file}')", "Permission Error"),
    "read_text": ("SELECT content AS diaSourceId FROM read_text('{file}')", "Permission Error"),
    "read_blob": ("SELECT content AS diaSourceId FROM read_blob('{file}')", "Permission Error"),
    "file-as-table": ("SELECT * FROM '{file}'", "SQL: "),
    "glob": ("SELECT file AS diaSourceId FROM glob('/*')", "Permission Error"),
    "sniff": ("SELECT * FROM sniff_csv('{file}')", "Permission Error"),
    "query": ("FROM query('SELECT * FROM read_csv(''{file}'')')", "Permission Error"),
    "secrets": ("SELECT * FROM duckdb_secrets()", "Permission Error"),
    "http": ("SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')", "SQL: "),
    "python-variable": ("SELECT * FROM visit", "SQL: Catalog Error"),
    "copy-to": ("COPY alerts TO '{out}'", "got COPY"),
    "copy-from": ("COPY alerts FROM '{file}'", "got COPY"),
    "export": ("EXPORT DATABASE '{out}'", "got EXPORT"),
    "attach": ("ATTACH '{out}' AS other", "got ATTACH"),
    "install": ("INSTALL httpfs", "got LOAD"),
    "load": ("LOAD httpfs", "got LOAD"),
    "pragma": ("PRAGMA enable_profiling", "got PRAGMA"),
    "set": ("SET memory_limit = '64GB'", "got SET"),
    "reset": ("RESET enable_external_access", "got "),
    "create": ("CREATE TABLE t AS SELECT 1", "got CREATE"),
    "insert": ("INSERT INTO alerts SELECT * FROM alerts", "got INSERT"),
    "drop": ("DROP VIEW alerts", "got DROP"),
    "two": ("SELECT diaSourceId FROM alerts; DROP VIEW alerts", "got 2 statements"),
    "two-selects": ("SELECT 1; SELECT diaSourceId FROM alerts", "got 2 statements"),
    "hidden-second": ("SELECT diaSourceId FROM alerts; /* x */ COPY alerts TO '{out}' --", "got 2 statements"),
    "nothing": ("-- nothing", "got 0 statements"),
    "no-sql": ("drop everything", "SQL: Parser Error"),
    "deep": ("SELECT " + "(" * 5000 + "1" + ")" * 5000, "SQL: "),
    "long": ("SELECT " + "1+" * 100_000 + "1", "SQL: "),
    "parameter": ("SELECT diaSourceId FROM alerts WHERE x > ?", "SQL: "),
    "memory-list": ("SELECT max(len(l)) AS diaSourceId FROM (SELECT list(i) AS l FROM range(1000000000) t(i))",
                    "memory"),
    "memory-text": ("SELECT length(repeat(repeat('x', 2000000000), 2)) AS diaSourceId", "memory"),
    "memory-sort": ("SELECT a.i AS diaSourceId FROM range(100000000) a(i) ORDER BY hash(a.i)", "memory"),
    "other-ids": ("SELECT 5 AS diaSourceId", "diaSourceId 5 is not of an alert of this visit"),
    "text-ids": ("SELECT 'x' AS diaSourceId FROM alerts", "diaSourceId x is not"),
    "null-ids": ("SELECT NULL AS diaSourceId FROM alerts", "diaSourceId None is not"),
    "list-ids": ("SELECT [1] AS diaSourceId FROM alerts", "TypeError"),
    "other-column": ("SELECT x FROM alerts", "a filter selects diaSourceId, got x"),
}


@pytest.fixture(scope="module")
def tried(runner, spool, tmp_path_factory):
    """What came of all of them, run on one visit beside two good filters, and the folder that they tried to use."""
    folder = tmp_path_factory.mktemp("hostile")
    secret, out = folder / "secret.csv", folder / "out"
    secret.write_text("diaSourceId\n17\n")
    jobs = [job(sql.replace("{file}", str(secret)).replace("{out}", str(out)), name)
            for name, (sql, _) in HOSTILE.items()]
    answer = runner.run(order(spool, job(GOOD, "first"), *jobs, job(GOOD, "last")))
    return {one.user: one for one in answer.outcomes}, folder


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_sql_is_an_offence(tried, name):
    found, folder = tried
    assert HOSTILE[name][1] in found[name].offence, found[name].offence
    assert not found[name].ids
    assert "17" not in found[name].offence.replace(str(folder), "")
    assert "\n" not in found[name].offence


def test_hostile_sql_does_nothing_and_others_do_not_notice(tried):
    found, folder = tried
    assert [path.name for path in folder.iterdir()] == ["secret.csv"]
    assert list(found["first"].ids) == list(found["last"].ids) == by_x()


def test_without_the_locks_the_same_statements_do_harm(tmp_path):
    """The control: what is tried above works in a DuckDB that is not locked."""
    (tmp_path / "secret.csv").write_text("diaSourceId\n17\n")
    with duckdb.connect(":memory:", config={"threads": 1}) as database:
        assert database.execute(f"SELECT * FROM read_csv('{tmp_path}/secret.csv')").fetchall() == [(17,)]
        database.execute(f"COPY (SELECT 1) TO '{tmp_path}/out'")
        assert (tmp_path / "out").exists()
        visit = {"a": np.arange(3)}
        assert len(database.execute("SELECT * FROM visit").fetchall()) == len(visit["a"])


def test_settings_are_locked_even_for_what_would_be_run():
    with open_database(tables([]), 128) as database:
        for statement in ("SET enable_external_access = true", "SET lock_configuration = false", "PRAGMA threads = 8",
                          "SET python_enable_replacements = true", "SET memory_limit = '64GB'"):
            with pytest.raises(duckdb.Error):
                database.execute(statement)


ENDLESS = {
    "recursion": "WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t) SELECT max(i) AS diaSourceId FROM t",
    "cross-join": "SELECT count(*) AS diaSourceId FROM range(1000000) a, range(1000000) b, range(1000000) c WHERE "
                  "hash(a.range + b.range + c.range) = 5"}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_filter_is_killed_at_its_deadline_and_others_go_on(runner, spool, name):
    began = time.monotonic()
    jobs = job(ENDLESS[name], "eve", wall_s=0.8, cpu_s=60), job(GOOD)
    found = {one.user: one for one in runner.run(order(spool, *jobs, processes=1)).outcomes}
    assert found["eve"].offence == "it took longer than 0.8 s"
    assert list(found["anna"].ids) == by_x()
    assert time.monotonic() - began < 15


def test_a_filter_that_computes_too_long_is_ended_by_the_kernel(runner, spool):
    found = outcome(runner, spool, ENDLESS["cross-join"], wall_s=60.0, cpu_s=1)
    assert found.offence == "it took more than 1 s of CPU time"
    assert 0.9 < found.cpu_s < 3


def test_no_process_is_left_of_a_killed_filter(runner, spool):
    outcome(runner, spool, ENDLESS["recursion"], wall_s=0.5)
    children = Path(f"/proc/{runner._process.pid}/task/{runner._process.pid}/children").read_text().split()
    assert children == []


# ---------------------------------------------------------------- Python filters, the operator's

def python(tmp_path, text):
    path = tmp_path / "filter.py"
    path.write_text(textwrap.dedent(text))
    return str(path)


def test_a_python_filter_sees_alerts_and_whole_packets(runner, spool, tmp_path):
    path = python(tmp_path, """
        def select(alerts, packet):
            for alert in sorted(alerts, key=lambda alert: -alert["diaSource"]["x"]):
                assert "cutoutScience" not in alert
                if packet(alert["diaSourceId"])["cutoutScience"].startswith(b"SIMPLE"):
                    yield alert["diaSourceId"]
        """)
    assert list(outcome(runner, spool, python=path, limit=4).ids) == by_x()[::-1][:4]


@pytest.mark.parametrize(("text", "said"), [
    ("def select(alerts, packet): return bytearray(10**10)", "it took more than 192 MB of memory"),
    ("def select(alerts, packet):\n    import time\n    time.sleep(60)", "it took longer than 1 s"),
    ("def select(alerts, packet):\n    while True: pass", "it took longer than 1 s"),
    ("def select(alerts, packet): return [1 / 0]", "ZeroDivisionError: division by zero"),
    ("def select(alerts, packet):\n    with open(__file__ + '.out', 'w') as file:\n        file.write('x')", "OSError"),
    ("def select(alerts, packet):\n    import os\n    os.kill(os.getpid(), 9)", "it ended with SIGKILL and without"),
    ("def select(alerts, packet):\n    import os\n    os._exit(3)", "it ended with code 3 and without an answer"),
    ("def select(alerts, packet):\n    import os\n    return [os.environ['SECRET']]", "KeyError: 'SECRET'"),
    ("import nothing_of_this_name", "ModuleNotFoundError"), ("x = 1", "AttributeError"), ("def", "SyntaxError")])
def test_a_python_filter_that_fails_is_an_offence(runner, spool, tmp_path, text, said):
    found = outcome(runner, spool, python=python(tmp_path, text), wall_s=1.0)
    assert said in found.offence
    assert found.ids == ()


def test_a_filter_that_leaves_a_process_behind_does_not_keep_it(runner, spool, tmp_path):
    mark = tmp_path / "pid"
    path = python(tmp_path, f"""
        import os, resource, time
        def select(alerts, packet):
            child = os.fork()
            if child == 0:
                time.sleep(60)
            os.mkdir({str(mark)!r} + str(child))
            return []
        """)
    outcome(runner, spool, python=path, wall_s=1.0)
    made, = tmp_path.glob("pid*")
    left = Path("/proc") / made.name.removeprefix("pid") / "stat"
    for _ in range(100):
        if not left.exists() or left.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the process that the filter left behind lives")


def test_a_runner_that_died_is_begun_anew(spool):
    runner = Runner()
    assert outcome(runner, spool, GOOD).ids
    os.kill(runner._process.pid, signal.SIGKILL)
    assert outcome(runner, spool, GOOD).ids
    runner.close()


def test_the_service_does_not_load_duckdb():
    code = "import sys, pipeline.serve.filters; sys.exit('duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False).returncode == 0


# ---------------------------------------------------------------- the service

@pytest.fixture
def serve(tmp_path, runner):
    """Services of one state folder, one after the other, that share the module's process."""
    def made(*filters, sinks, clock=time.monotonic, **changes):
        config = FilterConfig(filters=filters, state=str(tmp_path / "state"), **{"quiet_s": 5.0, **changes})
        return FilterService(config, sinks=sinks, clock=clock, runner=runner)
    return made


@dataclass
class Sinks:
    """What users were sent, by user."""

    made: dict = field(default_factory=dict)
    broken: set = field(default_factory=set)
    headers: dict = field(default_factory=dict)

    def __call__(self, url, *, headers):
        user = headers["filter"]
        self.headers[user] = headers
        if user in self.broken:
            return Broken()
        return self.made.setdefault(user, MemorySink())

    def ids(self, user):
        return identifiers(self.made[user].packets) if user in self.made else []


class Broken:
    def send(self, batch):
        raise RetriableError("the sink is away")

    def close(self):
        pass


def user(name="anna", sql=GOOD, **changes):
    return Filter(user=name, sink="memory:", sql=sql, **changes)


@dataclass
class Time:
    now: float = 0.0

    def __call__(self):
        return self.now


def run(service, values, dead=None, **options):
    stream = MemoryStream(values)
    consume(stream, service, dead or DeadMemory(), stop_when_idle=0.0, **options)
    service.close()
    return stream


def of_visit(sequence, n=12):
    """The packets under another visit's number."""
    found = []
    for i, packet in enumerate(packets()[:n]):
        record = read_packet(packet)
        record["diaSource"]["visit"] = 2026030500000 + sequence
        record["diaSourceId"] = record["diaSource"]["diaSourceId"] = sequence * 1000 + i
        buffer = BytesIO()
        fastavro.schemaless_writer(buffer, schema_of(1101), {**record, "cutoutScience": None})
        found.append(alert.WIRE_HEADER + buffer.getvalue())
    return found


def test_a_user_gets_the_limit_of_each_visit_in_his_order(serve, tmp_path):
    sinks = Sinks()
    service = serve(user("anna", LATEST), user("bert", packets=2),
                    user("none", "SELECT diaSourceId FROM alerts WHERE false"), limits=Limits(packets=3), sinks=sinks)
    first, second = of_visit(1), of_visit(2)
    stream = run(service, [one for pair in zip(first, second, strict=True) for one in pair])     # they overlap
    assert sinks.ids("anna") == [1011, 1010, 1009, 2011, 2010, 2009]
    assert len(sinks.ids("bert")) == 4
    assert sinks.ids("none") == []
    assert set(sinks.made["anna"].packets) <= {*first, *second}
    assert stream.committed == 24
    assert (service.alerts, service.visits) == (24, 2)
    assert list((tmp_path / "state" / "spool").iterdir()) == []


def test_the_default_limit_is_the_papers():
    assert Limits().packets == 20


def test_a_visit_is_over_when_it_is_quiet_and_late_alerts_get_what_is_left(serve):
    sinks, time_ = Sinks(), Time()
    service = serve(user(sql=EARLIEST), limits=Limits(packets=5), sinks=sinks, clock=time_)
    alerts = alerts_of(of_visit(1))
    service.handle(alerts[:3])
    time_.now = 4.0
    service.handle([])
    assert sinks.ids("anna") == []
    assert service.settled({("memory", 0): 3}) == {("memory", 0): 0}      # nothing is committed yet
    time_.now = 5.0
    service.handle([])
    assert sinks.ids("anna") == [1000, 1001, 1002]
    assert service.settled({("memory", 0): 3}) == {("memory", 0): 3}
    service.handle(alerts)                       # nine late ones, and three that come again
    assert service.settled({("memory", 0): 12}) == {("memory", 0): 0}
    service.finish()
    assert sinks.ids("anna") == [1000, 1001, 1002, 1003, 1004]
    service.close()


def alerts_of(values):
    return [examine(Message("memory", 0, offset, value)) for offset, value in enumerate(values)]


def test_a_visit_of_too_many_alerts_is_run_in_parts_within_one_limit(serve):
    sinks = Sinks()
    service = serve(user(sql=EARLIEST), max_alerts=5, limits=Limits(packets=7), sinks=sinks)
    run(service, of_visit(1))
    assert sinks.ids("anna") == [1000, 1001, 1002, 1003, 1004, 1005, 1006]


def test_a_bad_filter_is_switched_off_with_its_reason_and_the_others_go_on(serve):
    sinks = Sinks()
    filters = user("eve", "SELECT diaSourceId FROM read_csv('/etc/passwd')"), user("anna"), \
        user("once", "SELECT CASE WHEN visit % 10 = 2 THEN error('no') ELSE diaSourceId END AS diaSourceId FROM alerts")
    limits = Limits(packets=1, offences=2)
    service = serve(*filters, limits=limits, sinks=sinks)
    run(service, [one for sequence in (1, 2, 3, 4) for one in of_visit(sequence, 2)], batch=2)
    assert len(sinks.ids("anna")) == 4
    assert len(sinks.ids("once")) == 3            # a failure is forgiven when the next visit is well
    assert set(service.switched_off) == {"eve"}
    assert "Permission Error" in service.switched_off["eve"]

    again = serve(*filters, limits=limits, sinks=sinks)      # it stays off
    assert set(again.switched_off) == {"eve"}
    again.close()
    mended = serve(user("eve"), *filters[1:], limits=limits, sinks=sinks)
    assert mended.switched_off == {}
    run(mended, of_visit(5, 2))
    assert len(sinks.ids("eve")) == 1


def test_after_a_crash_nobody_gets_more_than_the_limit_and_nothing_is_lost(serve):
    """The service dies after delivery and before the commit, at every alert in turn: all is read again."""
    values = [one for pair in zip(of_visit(1, 4), of_visit(2, 4), strict=True) for one in pair]
    sinks = Sinks()
    made = {"limits": Limits(packets=3), "sinks": sinks}
    first = serve(user(sql=EARLIEST), **made)
    first.handle(alerts_of(values))
    first.finish()                                # delivered, in the ledger, not committed
    first.close()
    run(serve(user(sql=EARLIEST), **made), values)
    assert sinks.ids("anna") == [1000, 1001, 1002, 2000, 2001, 2002]


def test_a_ledger_whose_last_line_is_cut_short_is_read(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.note(1, "anna", [5, 6])
    ledger.note(2, "anna", [7])
    ledger.close()
    path = tmp_path / "sent.jsonl"
    path.write_bytes(path.read_bytes()[:-4])
    again = Ledger(tmp_path)
    assert (again.sent(1, "anna"), again.sent(2, "anna")) == ([5, 6], [])
    again.note(2, "anna", [7])
    again.close()
    assert [json.loads(line)["visit"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_sink_that_is_away_costs_its_user_alone(serve):
    sinks, dead = Sinks(broken={"bert"}), DeadMemory()
    service = serve(user("bert"), user("anna"), limits=Limits(packets=2), sinks=sinks)
    stream = run(service, packets(), dead)
    assert sinks.ids("anna") == by_x()[:2]
    assert [source_id(one.message.value) for one in dead.letters] == by_x()[:2]
    assert {one.reason for one in dead.letters} == {"not delivered to user bert: the sink is away"}
    assert stream.committed == 12


def test_a_visit_that_cannot_be_run_is_set_aside_whole_and_the_next_is_run(tmp_path, runner):
    class Failing:
        def run(self, order):
            if len(order.spans) == 3:
                raise PipelineError("the process that runs filters ended twice on one visit")
            return runner.run(order)

    sinks, dead = Sinks(), DeadMemory()
    service = FilterService(FilterConfig(filters=(user(sql=EARLIEST),), state=str(tmp_path)), sinks=sinks,
                            runner=Failing())
    stream = run(service, of_visit(1, 3) + of_visit(2, 2), dead)
    assert [one.message.value for one in dead.letters] == of_visit(1, 3)
    assert sinks.ids("anna") == [2000, 2001]
    assert stream.committed == 5


def test_a_spool_that_is_no_packets_ends_the_runner_in_an_error(tmp_path):
    (tmp_path / "spool").write_bytes(b"no packet")
    runner = Runner()
    with pytest.raises(PipelineError, match="ended twice on one visit"):
        runner.run(Order(str(tmp_path / "spool"), ((0, 9),), (job(GOOD),), 1))
    runner.close()


def test_users_topics_say_that_alerts_are_simulated(serve, tmp_path):
    sinks = Sinks()
    service = serve(user(), sinks=sinks)
    service.handle([examine(Message("t", 0, 0, packets()[0], (("simulated", b"true"),)))])
    service.finish()
    service.close()
    assert sinks.headers["anna"] == {"filter": "anna", "simulated": "true"}


@pytest.mark.bench
@pytest.mark.parametrize("users", [1, 20])
@pytest.mark.parametrize("per_object", [1, 7, 40])
def test_filters_on_a_visit_of_500_alerts(benchmark, runner, tmp_path, users, per_object):
    """The difference between 20 users and one is what a filter costs, the rest what the visit does."""
    sent = packets(500, per_object)
    (tmp_path / "spool").write_bytes(b"".join(sent))
    ends = list(itertools.accumulate(map(len, sent)))
    made = Order(str(tmp_path / "spool"), tuple(zip([0, *ends[:-1]], map(len, sent), strict=True)),
                 tuple(job(GOOD, f"user{i}") for i in range(users)), 2)
    answer = benchmark.pedantic(lambda: runner.run(made), rounds=3)
    assert [len(one.ids) for one in answer.outcomes] == [20] * users


# ---------------------------------------------------------------- the config

def written(tmp_path, text):
    path = tmp_path / "filters.toml"
    path.write_text(textwrap.dedent(text))
    return path


def test_a_config_is_read(tmp_path):
    (tmp_path / "bert.py").write_text("def select(alerts, packet): return []")
    found = read_filters(written(tmp_path, """
        quiet_s = 2
        [limits]
        packets = 10
        [[filters]]
        user = "anna"
        sink = "file:out/"
        sql = "SELECT diaSourceId FROM alerts"
        [[filters]]
        user = "bert"
        sink = "kafka://127.0.0.1:9092/bert"
        python = "bert.py"
        packets = 5
        """))
    assert [one.user for one in found.filters] == ["anna", "bert"]
    assert found.filters[1].python == str(tmp_path / "bert.py")
    assert found.state == str(tmp_path / "filter-state")
    assert (found.limits.packets, found.limits.offences) == (10, 3)


ONE = '[[filters]]\nuser = "anna"\nsink = "file:out/"\n'


@pytest.mark.parametrize(("text", "said"), [
    ("", "missing required field `filters`"), ("filters = []", "length >= 1"), (ONE, "expected either sql or python"),
    (ONE + 'sql = "x"\npython = "y"', "expected either sql or python"), (ONE + 'sql = " "', "expected either"),
    (ONE + 'sql = "x"\n' + ONE + 'sql = "x"', "a user has one filter"), (ONE + 'python = "y.py"', "there is no file"),
    (ONE + 'sql = "x"\npackets = 21', "packets is at most 20, got 21"),
    (ONE + 'sql = "x"\nspeed = 1', "unknown field `speed`"),
    (ONE.replace("anna", "../anna") + 'sql = "x"', "a name has"), ("x = [", "not a TOML file"),
    ('[limits]\ncpu_s = 0\n' + ONE + 'sql = "x"', r"\$.limits.cpu_s"), ("\xff", "filters.toml")])
def test_a_config_that_cannot_be_used_is_refused(tmp_path, text, said):
    path = tmp_path / "filters.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=said) as caught:
        read_filters(path)
    assert str(path) in str(caught.value)


def test_the_command_filters_a_topic(broker, tmp_path):
    broker.send(packets())
    path = written(tmp_path, f"""
        [[filters]]
        user = "anna"
        sink = "file:{tmp_path}/anna/"
        sql = "SELECT diaSourceId FROM alerts ORDER BY x"
        packets = 5
        [[filters]]
        user = "eve"
        sink = "file:{tmp_path}/eve/"
        sql = "COPY alerts TO '{tmp_path}/stolen.csv'"
        """)
    with command("filter", "--config", path, *broker.stream, cwd=tmp_path) as process:
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert sorted(identifiers(list(read_packets(tmp_path / "anna")))) == sorted(by_x()[:5])
    assert out.splitlines() == ["12 alerts of 1 visits, 0 set aside", "anna: 5 alerts", "eve: 0 alerts"]
    assert "a filter is one SELECT statement, got COPY" in errors
    assert not (tmp_path / "stolen.csv").exists()


def test_any_packet_that_is_one_makes_rows():
    """Records drawn at random from the schema, with what no pipeline would write: no visit is lost to one."""
    from fastavro.utils import generate_many

    random.seed(5)
    seen = 0
    for number, record in enumerate(generate_many(schema_of(alert.SCHEMA_ID), 20)):
        record["diaSourceId"] = record["diaSource"]["diaSourceId"] = number + 1
        record["diaSource"]["band"] = "r\0\N{GREEK SMALL LETTER ALPHA}" * number
        record["diaSource"]["psfFlux"] = (1e39, -1e300, float("inf"), float("nan"), None)[number % 5]
        record["diaSource"]["ssObjectId"] = (2**63 - 1, -2**63, None)[number % 3]
        buffer = BytesIO()
        fastavro.schemaless_writer(buffer, schema_of(alert.SCHEMA_ID), record)
        found = examine(Message("t", 0, number, alert.WIRE_HEADER + buffer.getvalue()))
        if isinstance(found, Rejected):
            continue
        seen += 1
        with np.errstate(over="ignore"), open_database(tables([read_packet(found.packet)]), 128) as database:
            for name in ("alerts", "history", "forced"):
                database.execute(f"SELECT * FROM {name}").fetchall()
    assert seen > 5
