"""Rows of prompt tables to and from PostgreSQL's binary COPY, whole columns at a time.

A table's rows in binary COPY are tuples of (length, bytes) fields. Asked for with every null replaced by its value in
memory and every text as so many bytes, they all have one length, and NumPy reads them as they come: a history of 40,000
rows of 103 columns through Python's objects takes seconds.
"""

import struct
from typing import Any, Final

import numpy as np

from schemas.table import Column, Table

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_END: Final = struct.pack(">h", -1)
_NULL: Final = struct.pack(">i", -1)
_EPOCH: Final = np.datetime64("2000-01-01", "us")          # PostgreSQL counts microseconds from here


def selection(table: Table) -> str:
    """What to SELECT so that `rows_of` can read it."""
    return ", ".join(_expression(column) for column in table.columns)


def rows_of(table: Table, data: bytes) -> np.ndarray:
    """Rows of a binary COPY of `selection`."""
    fields: list[tuple[str, str]] = [("count", ">i2")]
    for column in table.columns:
        fields += [(f"length {column.name}", ">i4"), (column.name, _wire(column))]
    dtype = np.dtype(fields)
    body = len(data) - len(_SIGNATURE) - len(_END)
    if not data.startswith(_SIGNATURE[:11]) or not data.endswith(_END) or body % dtype.itemsize:
        raise ValueError(f"{table.name}: binary COPY of rows of {dtype.itemsize} bytes expected, got {body} bytes")
    found = np.frombuffer(data, dtype, body // dtype.itemsize, len(_SIGNATURE))
    rows = np.zeros(len(found), table.dtype)
    for column in table.columns:
        values = found[column.name]
        rows[column.name] = _EPOCH + values.astype("m8[us]") if column.datatype == "timestamp" else values
    return rows


def names(table: Table, added: tuple[str, ...]) -> str:
    """The columns of `copy_of`, in its order."""
    return ", ".join(f'"{name}"' for name in (*(column.name for column in table.columns), *added))


def copy_of(table: Table, rows: np.ndarray, added: dict[str, np.ndarray]) -> bytes:
    """Rows as a binary COPY, with int64 columns added at the end."""
    if rows.dtype != table.dtype:
        table.to_columns(rows)                             # says what is wrong
    n = len(rows)
    columns = [_fields(column, rows[column.name]) for column in table.columns]
    columns += [_split(np.asarray(values, ">i8"), np.zeros(n, bool)) for values in added.values()]
    count = struct.pack(">h", len(columns))
    return b"".join([_SIGNATURE, *(count + b"".join(fields) for fields in zip(*columns, strict=True)), _END])


def _expression(column: Column) -> str:
    name = f'"{column.name}"'
    if column.is_text:
        zeros = r"'\x" + "00" * column.length + "'::bytea"
        return f"substring(convert_to(COALESCE({name}, ''), 'UTF8') || {zeros} FROM 1 FOR {column.length})"
    if not column.nullable:
        return name
    if column.datatype == "boolean":
        return f"COALESCE({name}, FALSE)"
    if column.datatype == "timestamp":
        raise NotImplementedError(f"{column.name}: no prompt table that is kept has a nullable timestamp")
    null = "NaN" if column.datatype in ("float", "double") else str(column.null)
    return f"COALESCE({name}, '{null}')"                   # quoted: of the column's own type


def _wire(column: Column) -> str:
    if column.datatype == "timestamp":
        return ">i8"
    return column.format.replace("<", ">")


def _fields(column: Column, values: np.ndarray) -> list[bytes]:
    if column.is_text:
        texts = values.tolist()
        if column.nullable:
            return [struct.pack(">i", len(text)) + text if text else _NULL for text in texts]
        return [struct.pack(">i", len(text)) + text for text in texts]
    if column.datatype == "timestamp":
        return _split(((values - _EPOCH) // np.timedelta64(1, "us")).astype(">i8"), np.isnat(values))
    wire = np.ascontiguousarray(values).astype(_wire(column))
    return _split(wire, _missing(column, values))


def _missing(column: Column, values: np.ndarray) -> np.ndarray:
    if not column.nullable or column.datatype == "boolean":
        return np.zeros(len(values), bool)
    if column.datatype in ("float", "double"):
        return np.asarray(np.isnan(values))
    missing: np.ndarray = values == column.null
    return missing


def _split(wire: np.ndarray, missing: np.ndarray) -> list[bytes]:
    """Each value with its length before it."""
    record: Any = np.empty(len(wire), np.dtype([("length", ">i4"), ("value", wire.dtype)]))
    record["length"], record["value"] = wire.itemsize, wire
    data, size = record.tobytes(), record.itemsize
    fields = [data[k:k + size] for k in range(0, len(data), size)]
    for k in np.flatnonzero(missing).tolist():
        fields[k] = _NULL
    return fields
