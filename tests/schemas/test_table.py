import json
from pathlib import Path

import duckdb
import lsst.alert.packet
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import alert
from schemas.table import (
    DIA_FORCED_SOURCE,
    DIA_OBJECT,
    DIA_SOURCE,
    MPC_ORBITS,
    SS_OBJECT,
    SS_SOURCE,
    SUMMARY,
    TABLES,
    copy,
    join,
    take,
)
from tests.strategies import random_rows, table_rows

IN_ALERTS = (DIA_SOURCE, DIA_OBJECT, DIA_FORCED_SOURCE, SS_SOURCE, SS_OBJECT, MPC_ORBITS)
PROMPT = (*IN_ALERTS, SUMMARY)


def shipped(name):
    folder = Path(lsst.alert.packet.get_schema_path(*alert.VERSION))
    return json.loads((folder / f"{alert.NAMESPACE}.{name}.avsc").read_text())


def without_doc(fields):
    return [{key: value for key, value in field.items() if key != "doc"} for field in fields]


@pytest.mark.parametrize("table", IN_ALERTS, ids=lambda table: table.name)
def test_every_avro_record_equals_the_shipped_one_field_by_field(table):
    """Names, order, types and defaults; the prose of some descriptions differs between the two packages."""
    ours = table.avro()
    theirs = shipped(ours["name"])
    assert without_doc(ours["fields"]) == without_doc(theirs["fields"])
    assert (ours["namespace"], ours["type"]) == (theirs["namespace"], theirs["type"])


def test_the_alert_record_equals_the_shipped_one():
    ours, theirs = alert.record(), shipped("alert")

    def short(kind):
        if isinstance(kind, dict) and kind["type"] == "record":
            return f"{kind['namespace']}.{kind['name']}"
        if isinstance(kind, dict):
            return {key: short(value) for key, value in kind.items()}
        return [short(item) for item in kind] if isinstance(kind, list) else kind

    assert [{**field, "type": short(field["type"])} for field in without_doc(ours["fields"])] \
        == without_doc(theirs["fields"])
    assert lsst.alert.packet.get_latest_schema_version() == alert.VERSION
    assert lsst.alert.packet.Schema.from_file().get_schema_id() == alert.SCHEMA_ID


def test_tables_have_the_published_numbers_of_columns():
    found = {table.name: len(table.columns) for table in PROMPT}
    assert found == {"DiaSource": 103, "DiaObject": 83, "DiaForcedSource": 14, "SSSource": 39, "SSObject": 80,
                     "mpc_orbits": 53, "DetectorVisitProcessingSummary": 52}


def test_empty_rows_hold_each_columns_null():
    row = DIA_SOURCE.empty(3)[1]
    assert row["diaObjectId"] == row["ssObjectId"] == row["parentDiaSourceId"] == 0
    assert row["trailAlgorithm"] == -1
    assert row["band"] == b""
    assert np.isnan(row["psfFlux"])
    assert not row["isDipole"]
    assert row["psfNdata"] == 0            # required: no null
    assert np.isnat(MPC_ORBITS.empty(1)["created_at"][0])


@pytest.fixture(scope="module")
def databases():
    """One in-memory database with every prompt table."""
    connection = duckdb.connect(config={"threads": 1})
    for table in PROMPT:
        connection.execute(table.ddl("duckdb"))
    yield connection
    connection.close()


def through_database(connection, table, rows):
    connection.execute("BEGIN TRANSACTION")
    try:
        if len(rows):
            connection.register("arriving", table.to_columns(rows))
            connection.execute(f'INSERT INTO "{table.name}" BY NAME SELECT * FROM arriving')
            connection.unregister("arriving")
        return table.from_columns(connection.execute(f'SELECT * FROM "{table.name}" ORDER BY rowid').fetchnumpy())
    finally:
        connection.execute("ROLLBACK")


@pytest.mark.parametrize("table", PROMPT, ids=lambda table: table.name)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_survive_a_database(table, databases, data):
    rows = data.draw(table_rows(table))
    for i, key in enumerate(table.primary_key):        # keys are unique
        rows[key] = np.arange(len(rows)) + i
    for name in ("designation", "packed_primary_provisional_designation", "unpacked_primary_provisional_designation"):
        if table is not SS_SOURCE and name in (table.dtype.names or ()):
            rows[name] = [f"{name[:4]}{i}" for i in range(len(rows))]
    back = through_database(databases, table, rows)
    assert back.dtype == rows.dtype
    for column in table.columns:
        np.testing.assert_array_equal(back[column.name], rows[column.name], err_msg=column.name)


def test_nulls_are_nulls_in_the_database_and_numbers_are_not(databases):
    rows = DIA_SOURCE.empty(2)
    for name in ("ra", "dec", "x", "y", "midpointMjdTai", "timeProcessedMjdTai"):
        rows[name] = 1.0
    rows["diaSourceId"] = [1, 2]
    rows["diaObjectId"], rows["psfFlux"], rows["snr"] = [0, 7], [np.nan, -3.0], [np.inf, np.nan]
    databases.execute("BEGIN TRANSACTION")
    databases.register("arriving", DIA_SOURCE.to_columns(rows))
    databases.execute('INSERT INTO "DiaSource" BY NAME SELECT * FROM arriving')
    found = databases.execute('SELECT "diaObjectId", "psfFlux", "snr", "trailAlgorithm", band, "isDipole" '
                              'FROM "DiaSource" ORDER BY "diaSourceId"').fetchall()
    databases.execute("ROLLBACK")
    assert found == [(None, None, np.inf, None, None, False), (7, -3.0, None, None, None, False)]


def test_a_null_in_a_required_column_is_refused():
    columns = {name: [1] for name in DIA_FORCED_SOURCE.dtype.names}
    with pytest.raises(ValueError, match=r"DiaForcedSource\.visit may not be null"):
        DIA_FORCED_SOURCE.from_columns({**columns, "visit": [None]})
    with pytest.raises(KeyError, match="columns visit are missing"):
        DIA_FORCED_SOURCE.from_columns({name: values for name, values in columns.items() if name != "visit"})


def test_text_longer_than_its_column_is_refused():
    columns = {column.name: ["r" if column.is_text else 1] for column in DIA_FORCED_SOURCE.columns}
    with pytest.raises(ValueError, match=r"DiaForcedSource\.band holds 1 bytes, got b'red'"):
        DIA_FORCED_SOURCE.from_columns({**columns, "band": ["red"]})


def test_rows_of_another_table_are_refused():
    with pytest.raises(TypeError, match="DiaSource rows expected"):
        DIA_SOURCE.to_columns(DIA_OBJECT.empty(1))
    with pytest.raises(TypeError, match="rows of one dtype"):
        join([DIA_SOURCE.empty(1), DIA_OBJECT.empty(1)])


@pytest.mark.parametrize("dialect", ["duckdb", "postgresql"])
def test_ddl_declares_every_column_key_and_index(dialect):
    text = DIA_SOURCE.ddl(dialect)
    assert all(f'"{column.name}" ' in text for column in DIA_SOURCE.columns)
    assert 'PRIMARY KEY ("diaSourceId")' in text
    assert 'ON "DiaSource" ("visit", "detector")' in text
    assert '"band" VARCHAR(1),' in text
    assert '"timeProcessedMjdTai" DOUBLE PRECISION NOT NULL' in text
    with pytest.raises(ValueError, match="dialect must be duckdb or postgresql, got 'oracle'"):
        DIA_SOURCE.ddl("oracle")


def test_the_schema_loads_without_felis():
    import subprocess
    import sys

    code = ("import sys, schemas.table; "
            "print([m for m in sys.modules if m.split('.')[0] in ('felis', 'pydantic', 'sqlalchemy')])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_take_join_and_copy_equal_numpys_own():
    rows = random_rows(DIA_SOURCE, 50, np.random.default_rng(3))
    index = np.random.default_rng(4).integers(0, 50, 200)
    assert take(rows, index).tobytes() == rows[index].tobytes()
    assert take(rows, rows["isDipole"]).tobytes() == rows[rows["isDipole"]].tobytes()
    assert join([rows[:7], rows[7:]]).tobytes() == rows.tobytes()
    twin = copy(rows)
    twin["ra"] = 0
    assert not np.array_equal(twin["ra"], rows["ra"])
    assert len(take(rows, np.array([], int))) == 0


@pytest.mark.bench
def test_take_is_faster_than_numpys_own(benchmark):
    rows = random_rows(DIA_SOURCE, 1000, np.random.default_rng(3))
    index = np.random.default_rng(4).integers(0, 1000, 1000)
    found = benchmark(take, rows, index)
    assert found.tobytes() == rows[index].tobytes()


def test_all_tables_of_the_schema_are_declared():
    assert len(TABLES) == 12
