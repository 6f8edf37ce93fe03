import io

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.alerts.rows import HISTORY_ZEROS, TRIGGER_ZEROS, encode, long
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, MPC_ORBITS, SS_OBJECT, SS_SOURCE
from tests.strategies import random_rows, table_rows

TABLES = (DIA_SOURCE, DIA_OBJECT, DIA_FORCED_SOURCE, SS_SOURCE, SS_OBJECT, MPC_ORBITS)


def record(table, row, zeros=frozenset()):
    """A row as fastavro takes it: the plain form of what the kernel does."""
    out = {}
    for column in table.columns:
        if not column.in_alerts:
            continue
        value = row[column.name]
        if column.is_text:
            out[column.name] = value.decode() if value or not column.nullable else None
        elif column.datatype == "timestamp":
            out[column.name] = None if np.isnat(value) else int(value.astype(np.int64))
        elif column.datatype in ("float", "double"):
            out[column.name] = None if np.isnan(value) and column.nullable else float(value)
        elif column.nullable and column.null is not None and column.name not in zeros and value == column.null:
            out[column.name] = None
        else:
            out[column.name] = value.item()
    return out


def by_fastavro(table, rows, zeros=frozenset()):
    schema = fastavro.parse_schema(table.avro())
    out = []
    for row in rows:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, record(table, row, zeros))
        out.append(buffer.getvalue())
    return out


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_the_kernel_writes_fastavros_bytes(table):
    rows = random_rows(table, 60, np.random.default_rng(8), nulls=0.3)
    encoded = encode(table, rows)
    expected = by_fastavro(table, rows)
    assert [encoded.rows(i, i + 1) for i in range(len(rows))] == expected
    assert encoded.rows(3, 20) == b"".join(expected[3:20])
    assert len(encoded) == 60


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_kernel_writes_fastavros_bytes_for_any_row(data):
    table = data.draw(st.sampled_from(TABLES))
    rows = data.draw(table_rows(table))
    assert [encode(table, rows).rows(i, i + 1) for i in range(len(rows))] == by_fastavro(table, rows)


def test_ids_that_alerts_write_as_zero_are_not_null():
    rows = DIA_SOURCE.empty(2)
    rows["diaObjectId"] = [0, 5]
    for zeros in (TRIGGER_ZEROS, HISTORY_ZEROS):
        encoded = encode(DIA_SOURCE, rows, zeros=zeros)
        assert [encoded.rows(0, 1), encoded.rows(1, 2)] == by_fastavro(DIA_SOURCE, rows, zeros)
    read = fastavro.schemaless_reader(io.BytesIO(encode(DIA_SOURCE, rows, zeros=TRIGGER_ZEROS).rows(0, 1)),
                                      fastavro.parse_schema(DIA_SOURCE.avro()), None)
    assert (read["diaObjectId"], read["ssObjectId"], read["parentDiaSourceId"]) == (0, 0, 0)


def test_rows_of_another_table_are_refused():
    with pytest.raises(TypeError, match="DiaSource rows expected"):
        encode(DIA_SOURCE, DIA_OBJECT.empty(1))


@given(st.integers(-2**63, 2**63 - 1))
def test_a_long_is_written_as_fastavro_writes_it(value):
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, {"type": "long"}, value)
    assert long(value) == buffer.getvalue()


@pytest.mark.bench
def test_encoding_against_fastavro(benchmark):
    rows = random_rows(DIA_SOURCE, 2000, np.random.default_rng(8))
    found = benchmark(encode, DIA_SOURCE, rows)
    assert len(found) == 2000
