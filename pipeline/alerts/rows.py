"""Rows of prompt tables in Avro's binary form, each encoded once per detector-visit.

A version's record is a plan for the kernel: per field the kind, place and width of its bytes in a row. A field that is
a column as it is, is read from the row; what needs arithmetic is computed into further bytes behind it; a field without
a source is a text of width 0, which is null.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from pipeline.kernels import avro
from schemas.alert_versions import TAI_MINUS_UTC_S, UNIX_EPOCH_MJD, Field, Origin
from schemas.table import TABLES, ZERO_IDS, Column, Table

# Ids that a public alert writes as 0 and not as null: all of the trigger's, and a history row's parent.
TRIGGER_ZEROS: Final = frozenset(ZERO_IDS)
HISTORY_ZEROS: Final = frozenset({"parentDiaSourceId"})
ORBIT_NEVER_NULL: Final = frozenset({"orbit_type_int"})     # -1, the deployed placeholder, is a value here

_KINDS: Final = {"long": avro.INTEGER, "int": avro.INTEGER, "short": avro.INTEGER, "float": avro.FLOATING,
                 "double": avro.FLOATING, "boolean": avro.BOOLEAN, "timestamp": avro.TIME, "char": avro.TEXT,
                 "string": avro.TEXT, "text": avro.TEXT}
_SAME: Final = {"short": "int", "char": "string", "text": "string"}      # datatypes that Avro writes alike
_FORMATS: Final = {"long": "<i8", "int": "<i4", "float": "<f4", "double": "<f8", "timestamp": "<M8[us]"}
_VARINT: Final = 10            # bytes of the longest


@dataclass(frozen=True, slots=True)
class Encoded:
    """Encoded rows, one after the other."""

    buffer: bytes
    ends: np.ndarray           # (n + 1,) int64: row i is buffer[ends[i]:ends[i + 1]]

    def __len__(self) -> int:
        return len(self.ends) - 1

    def rows(self, first: int, last: int) -> bytes:
        """Rows `first` to `last`, the last one not included."""
        return self.buffer[self.ends[first]:self.ends[last]]


def encode(table: Table, rows: np.ndarray, *, zeros: frozenset[str] = frozenset(),
           fields: tuple[Field, ...] | None = None, blank: frozenset[str] = frozenset(),
           beside: Mapping[str, np.ndarray] | None = None) -> Encoded:
    """All rows.

    Parameters
    ----------
    zeros : frozenset
        Integers written as they are where others of that value, 0 or -1, would be null.
    fields : tuple of Field
        The record of a version; without it the table's own columns, as in the newest version.
    blank : frozenset
        Fields written as null whatever the rows hold; those that may not be null keep their value.
    beside : mapping
        (n,) values of columns that a version's record has and the table has not.
    """
    if rows.dtype != table.dtype:
        raise TypeError(f"{table.name} rows expected, got columns {rows.dtype.names}")
    plan = _plan(table.name, zeros, own_fields(table.name) if fields is None else fields, blank)
    raw = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), table.dtype.itemsize)
    if plan.computed:
        raw = np.concatenate([raw, _computed(plan, rows, beside or {})], axis=1)
    out = np.empty(len(rows) * plan.largest, np.uint8)
    ends = np.zeros(len(rows) + 1, np.int64)
    if len(rows):
        ends[1:] = avro.encode(raw, plan.columns, out)
    return Encoded(out[:ends[-1]].tobytes(), ends)


def long(value: int) -> bytes:
    """One Avro long."""
    zigzag = (value << 1) ^ (value >> 63)
    out = bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    out.append(zigzag)
    return bytes(out)


@lru_cache(maxsize=16)
def own_fields(table: str) -> tuple[Field, ...]:
    """The record that a table's own declaration makes, which is the newest version's."""
    return tuple(Field(column.name, _SAME.get(column.datatype, column.datatype), column.nullable, Origin(column.name))
                 for column in TABLES[table].columns if column.in_alerts)


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a record is made of a row."""

    columns: np.ndarray                 # (k, 5) int64, as the kernel takes it
    computed: tuple[Field, ...]         # fields whose bytes follow the row's, in this order
    dtype: np.dtype                     # of those bytes
    largest: int                        # bytes of a row at most


@lru_cache(maxsize=128)
def _plan(name: str, zeros: frozenset[str], fields: tuple[Field, ...], blank: frozenset[str]) -> _Plan:
    table = TABLES[name]
    columns = {column.name: column for column in table.columns}
    places = dict(table.dtype.fields or {})
    computed = tuple(field for field in fields
                     if not (field.nullable and field.name in blank) and _is_computed(field, columns))
    dtype = np.dtype([(field.name, _FORMATS[field.kind]) for field in computed])
    behind = dict(dtype.fields or {})
    out = np.zeros((len(fields), 5), np.int64)
    for row, field in zip(out, fields, strict=True):
        column = columns.get(field.origin.column)
        if field.nullable and (field.name in blank or (column is None and field.name not in behind)):
            row[:] = avro.TEXT, 0, 0, avro.NULLABLE, 0
        elif field.name in behind:
            kind, offset = behind[field.name][:2]
            row[:] = (_KINDS[field.kind], table.dtype.itemsize + offset, kind.itemsize,
                      _nullability(field, column, zeros), _null(column))
        elif column is not None:
            kind, offset = places[column.name][:2]
            row[:] = _KINDS[column.datatype], offset, kind.itemsize, _nullability(field, column, zeros), _null(column)
        else:
            raise ValueError(f"{name}: {field.name} may not be null and has no source")
    return _Plan(out, computed, dtype, int(np.sum(1 + _VARINT + out[:, 2])))


def _is_computed(field: Field, columns: Mapping[str, Column]) -> bool:
    column = columns.get(field.origin.column)
    if column is None:
        return field.origin != Origin(field.name) or field.origin.column in BESIDE
    kind = _SAME.get(column.datatype, column.datatype)
    alike = kind == field.kind or (kind in ("int", "long") and field.kind in ("int", "long"))
    return field.origin.factor != 1.0 or field.origin.utc or not alike


BESIDE: Final = frozenset({"ssObjectId"})      # what `beside` may hold: MPCORB's, which mpc_orbits has not


def _computed(plan: _Plan, rows: np.ndarray, beside: Mapping[str, np.ndarray]) -> np.ndarray:
    """(n, bytes) uint8 of the computed fields."""
    out = np.zeros(len(rows), plan.dtype)
    for field in plan.computed:
        origin = field.origin
        values = beside[origin.column] if origin.column in beside else rows[origin.column]
        if origin.utc:
            values = utc(values)
        elif origin.factor != 1.0:
            values = values * origin.factor
        out[field.name] = values
    return out.view(np.uint8).reshape(len(rows), plan.dtype.itemsize)


def utc(mjd_tai: np.ndarray) -> np.ndarray:
    """UTC as datetime64[us] of MJD TAI since 2017; NaT where it is not known.

    Examples
    --------
    >>> utc(np.array([60676.0 + 37 / 86400])).tolist()[0].isoformat()
    '2025-01-01T00:00:00'
    """
    days = np.asarray(mjd_tai, float) - UNIX_EPOCH_MJD
    known = np.isfinite(days)
    whole = np.floor(np.where(known, days, 0.0))
    part = np.rint((np.where(known, days, 0.0) - whole) * 86400e6 - TAI_MINUS_UTC_S * 1e6)
    out = (whole.astype(np.int64) * 86_400_000_000 + part.astype(np.int64)).astype("M8[us]")
    out[~known] = np.datetime64("NaT")
    return out


def _nullability(field: Field, column: Column | None, zeros: frozenset[str]) -> int:
    if not field.nullable:
        return avro.REQUIRED
    if column is not None and (column.datatype == "boolean" or column.name in zeros or _plain(column)):
        return avro.NEVER_NULL
    return avro.NULLABLE


def _plain(column: Column) -> bool:
    """An integer that is never null in our tables, whatever an older version allowed."""
    return not column.nullable and _KINDS[column.datatype] == avro.INTEGER


def _null(column: Column | None) -> int:
    if column is None or column.null is None or _KINDS[column.datatype] != avro.INTEGER:
        return 0
    return int(column.null)
