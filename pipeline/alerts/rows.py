"""Rows of prompt tables in Avro's binary form, each encoded once per detector-visit."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from pipeline.kernels import avro
from schemas.table import TABLES, ZERO_IDS, Column, Table

# Ids that a public alert writes as 0 and not as null: all of the trigger's, and a history row's parent.
TRIGGER_ZEROS: Final = frozenset(ZERO_IDS)
HISTORY_ZEROS: Final = frozenset({"parentDiaSourceId"})

_KINDS: Final = {"long": avro.INTEGER, "int": avro.INTEGER, "short": avro.INTEGER, "float": avro.FLOATING,
                 "double": avro.FLOATING, "boolean": avro.BOOLEAN, "timestamp": avro.TIME, "char": avro.TEXT,
                 "string": avro.TEXT, "text": avro.TEXT}
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


def encode(table: Table, rows: np.ndarray, *, zeros: frozenset[str] = frozenset()) -> Encoded:
    """All rows; ids named in `zeros` are written as 0 where others would be null."""
    if rows.dtype != table.dtype:
        raise TypeError(f"{table.name} rows expected, got columns {rows.dtype.names}")
    columns, largest = _columns(table.name, zeros)
    raw = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), table.dtype.itemsize)
    out = np.empty(len(rows) * largest, np.uint8)
    ends = np.zeros(len(rows) + 1, np.int64)
    if len(rows):
        ends[1:] = avro.encode(raw, columns, out)
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


@lru_cache(maxsize=64)
def _columns(name: str, zeros: frozenset[str]) -> tuple[np.ndarray, int]:
    table = TABLES[name]
    wanted = [column for column in table.columns if column.in_alerts]
    out = np.zeros((len(wanted), 5), np.int64)
    fields = dict(table.dtype.fields or {})
    for row, column in zip(out, wanted, strict=True):
        kind, offset = fields[column.name][:2]
        row[:] = _KINDS[column.datatype], offset, kind.itemsize, _nullability(column, zeros), _null(column)
    return out, int(np.sum(1 + _VARINT + out[:, 2]))


def _nullability(column: Column, zeros: frozenset[str]) -> int:
    if not column.nullable:
        return avro.REQUIRED
    return avro.NEVER_NULL if column.name in zeros or column.datatype == "boolean" else avro.NULLABLE


def _null(column: Column) -> int:
    return int(column.null) if _KINDS[column.datatype] == avro.INTEGER and column.null is not None else 0
