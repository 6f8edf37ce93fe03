"""One declaration per prompt table gives its dtype, its DDL and its Avro record.

    apdb.yaml of lsst-sdm-schemas  ->  Table  ->  .dtype   NumPy structured rows (in memory)
                                              ->  .ddl()   CREATE TABLE (DuckDB, PostgreSQL)
                                              ->  .avro()  record of the alert packet (lsst-alert-packet)

Each column declares its null in memory: NaN for floats; 0 for the ids of `ZERO_IDS`; -1 for other nullable integers;
b"" for text; NaT for timestamps; a nullable boolean is false. Columns that may not be null have no such value.
`Table.to_columns` and `Table.from_columns` are the only way in and out of a database, because databases disagree on
what NaN is.

NumPy's own take and copy are 15 to 20 times slower on rows of 100 columns than on their void view: `take`, `join` and
`copy` go through it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

ALERT_NAMESPACE: Final = "lsst.v11_1"      # of lsst-alert-packet 30.2026.2700
ZERO_IDS: Final = frozenset({"diaObjectId", "ssObjectId", "parentDiaSourceId"})   # 0 is null (paper code: dax_apdb)
TEXT_WIDTH: Final = 64                     # bytes of a `text` column, which has no length of its own
TEXT_WIDTHS: Final = {"mpc_orb_jsonb": 1024}     # other ones

_DTYPES: Final = {"long": "<i8", "int": "<i4", "short": "<i2", "float": "<f4", "double": "<f8", "boolean": "?",
                  "timestamp": "<M8[us]"}
_SQL: Final = {"long": "BIGINT", "int": "INTEGER", "short": "SMALLINT", "float": "REAL", "double": "DOUBLE PRECISION",
               "boolean": "BOOLEAN", "timestamp": "TIMESTAMP", "char": "VARCHAR", "string": "VARCHAR",
               "text": "VARCHAR"}
_AVRO: Final[dict[str, Any]] = {
    "long": "long", "int": "int", "short": "int", "float": "float", "double": "double", "boolean": "boolean",
    "timestamp": {"logicalType": "timestamp-micros", "type": "long"}, "char": "string", "string": "string",
    "text": "string"}
_NOT_IN_ALERTS: Final = ("validityEnd", "ssObjectReassocTime")


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the schema package declares it."""

    name: str
    datatype: str              # long | int | short | float | double | boolean | char | string | text | timestamp
    nullable: bool
    length: int                # bytes of text; 0 otherwise
    description: str
    unit: str

    @property
    def is_text(self) -> bool:
        return self.datatype in ("char", "string", "text")

    @property
    def format(self) -> str:
        """The NumPy type."""
        return f"S{self.length}" if self.is_text else _DTYPES[self.datatype]

    @property
    def null(self) -> Any:
        """The value that stands for null in memory; None where there is none, as in booleans and required numbers."""
        if self.is_text:
            return b""
        if self.datatype in ("float", "double"):
            return np.nan
        if self.datatype == "timestamp":
            return np.datetime64("NaT", "us")
        if self.datatype == "boolean" or not self.nullable:
            return None
        return 0 if self.name in ZERO_IDS else -1

    @property
    def in_alerts(self) -> bool:
        return not self.name.startswith(_NOT_IN_ALERTS)

    @property
    def documentation(self) -> str:
        """The description with its unit."""
        text = self.description.strip()
        if not self.unit or self.unit in text:
            return text
        return f"{text[:-1]} [{self.unit}]." if text.endswith(".") else f"{text} [{self.unit}]"


@dataclass(frozen=True, slots=True)
class Table:
    """A prompt table."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    indexes: tuple[tuple[str, ...], ...]
    description: str
    dtype: np.dtype
    blank: np.ndarray              # one row of nulls

    def empty(self, n: int = 0) -> np.ndarray:
        """`n` rows of nulls; required integers are 0, required floats NaN, required text empty."""
        return take(self.blank, np.zeros(n, np.intp))

    def ddl(self, dialect: str = "duckdb") -> str:
        """CREATE TABLE and CREATE INDEX statements; `dialect` is duckdb or postgresql."""
        return _ddl(self, dialect)

    def avro(self, namespace: str = ALERT_NAMESPACE) -> dict[str, Any]:
        """The Avro record of this table in an alert packet."""
        return {"type": "record", "namespace": namespace, "name": record_name(self.name),
                "fields": [_field(column) for column in self.columns if column.in_alerts]}

    def to_columns(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Arrays that a database takes as they are: NaN and NaT, masks for null integers, None for null text."""
        if rows.dtype != self.dtype:
            raise TypeError(f"{self.name} rows expected, got dtype {_difference(rows.dtype, self.dtype)}")
        return {column.name: _outward(column, rows[column.name]) for column in self.columns}

    def from_columns(self, columns: Mapping[str, Any]) -> np.ndarray:
        """Rows of what a database gave: arrays, masked arrays or sequences with None."""
        missing = [column.name for column in self.columns if column.name not in columns]
        if missing:
            raise KeyError(f"{self.name}: columns {', '.join(missing)} are missing")
        n = len(columns[self.columns[0].name])
        rows = np.zeros(n, self.dtype)
        for column in self.columns:
            rows[column.name] = _inward(self.name, column, columns[column.name])
        return rows


def record_name(table: str) -> str:
    """Name of a table's record in an alert: DiaSource is diaSource, SSSource is ssSource."""
    for prefix, lower in (("Dia", "dia"), ("SS", "ss")):
        if table.startswith(prefix):
            return lower + table[len(prefix):]
    return table


def take(rows: np.ndarray, index: np.ndarray) -> np.ndarray:
    """`rows[index]` for integers or a boolean mask, always a copy."""
    rows = np.ascontiguousarray(rows)
    index = np.asarray(index)
    if index.dtype == bool:
        index = index.nonzero()[0]
    return _rows(rows.view(_void(rows.dtype))[index.astype(np.intp, copy=False)], rows.dtype)


def join(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of one dtype, one array after the other."""
    dtype = parts[0].dtype
    for part in parts:
        if part.dtype != dtype:
            raise TypeError(f"rows of one dtype expected, got {_difference(part.dtype, dtype)}")
    return _rows(np.concatenate([np.ascontiguousarray(part).view(_void(dtype)) for part in parts]), dtype)


def copy(rows: np.ndarray) -> np.ndarray:
    """A copy."""
    return _rows(np.ascontiguousarray(rows).view(_void(rows.dtype)).copy(), rows.dtype)


def _rows(void: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Fresh void rows as what they are; a view would look at every field again to see whether it is safe."""
    return np.ndarray(void.shape, dtype, void)


def _void(dtype: np.dtype) -> np.dtype:
    return _void_of(dtype.itemsize)


@cache
def _void_of(size: int) -> np.dtype:
    return np.dtype((np.void, size))


def _difference(found: np.dtype, expected: np.dtype) -> str:
    names, wanted = set(found.names or ()), set(expected.names or ())
    changed = [name for name in names & wanted if found[name] != expected[name]]
    return (f"with columns missing {sorted(wanted - names)}, unknown {sorted(names - wanted)}, of other type "
            f"{sorted(changed)}")


def _outward(column: Column, values: np.ndarray) -> np.ndarray:
    if column.is_text:
        texts = np.array([text.decode() for text in values.tolist()] or [""], dtype=object)[:len(values)]
        if column.nullable:
            texts[values == b""] = None
        return texts
    if column.nullable and column.datatype in ("long", "int", "short"):
        return np.ma.MaskedArray(np.ascontiguousarray(values), mask=values == column.null)
    return np.ascontiguousarray(values)


def _inward(table: str, column: Column, values: Any) -> np.ndarray:
    array, missing = _with_mask(values)
    if column.is_text:
        return _encoded(table, column, array, missing)
    if missing.any() and not column.nullable:
        raise ValueError(f"{table}.{column.name} may not be null, got {int(missing.sum())} nulls")
    if not missing.any():
        return array.astype(column.format)
    null = False if column.datatype == "boolean" else column.null
    out = np.full(len(array), null, column.format)
    out[~missing] = array[~missing].astype(column.format)
    return out


def _with_mask(values: Any) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(values, np.ma.MaskedArray):
        return values.data, np.ma.getmaskarray(values)
    array = np.asarray(values)
    if array.dtype == object:
        return array, np.array([value is None for value in array.tolist()], bool)
    return array, np.zeros(len(array), bool)


def _encoded(table: str, column: Column, array: np.ndarray, missing: np.ndarray) -> np.ndarray:
    texts = [b"" if absent or value is None else value if isinstance(value, bytes) else str(value).encode()
             for value, absent in zip(array.tolist(), missing, strict=True)]
    longest = max(map(len, texts), default=0)
    if longest > column.length:
        raise ValueError(f"{table}.{column.name} holds {column.length} bytes, got {max(texts, key=len)!r}")
    return np.array(texts, column.format)


def _field(column: Column) -> dict[str, Any]:
    kind = _AVRO[column.datatype]
    if not column.nullable:
        return {"name": column.name, "type": kind, "doc": column.documentation}
    return {"name": column.name, "type": ["null", kind], "doc": column.documentation, "default": None}


def _ddl(table: Table, dialect: str) -> str:
    if dialect not in ("duckdb", "postgresql"):
        raise ValueError(f"dialect must be duckdb or postgresql, got {dialect!r}")
    lines = [f'"{c.name}" {_sql_type(c)}{"" if c.nullable else " NOT NULL"}' for c in table.columns]
    if table.primary_key:
        lines.append(f"PRIMARY KEY ({_quoted(table.primary_key)})")
    create = f'CREATE TABLE IF NOT EXISTS "{table.name}" (\n    ' + ",\n    ".join(lines) + "\n);"
    indexes = [f'CREATE INDEX IF NOT EXISTS "IDX_{table.name}_{"_".join(columns)}" ON "{table.name}" '
               f"({_quoted(columns)});" for columns in table.indexes]
    return "\n".join([create, *indexes])


def _sql_type(column: Column) -> str:
    name = _SQL[column.datatype]
    return f"{name}({column.length})" if column.is_text and column.datatype != "text" else name


def _quoted(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _declared(found: Mapping[str, Any]) -> Table:
    columns = tuple(_column(entry) for entry in found["columns"])
    dtype = np.dtype([(column.name, column.format) for column in columns])
    blank = np.zeros(1, dtype)
    for column in columns:
        if column.null is not None:
            blank[column.name] = column.null
    key = found.get("primaryKey", ())
    return Table(found["name"], columns, tuple(_names([key] if isinstance(key, str) else key)),
                 tuple(tuple(_names(index["columns"])) for index in found.get("indexes", ())),
                 found.get("description", ""), dtype, blank)


def _names(references: Sequence[str]) -> list[str]:
    return [reference.rpartition(".")[2] for reference in references]


def _column(entry: Mapping[str, Any]) -> Column:
    datatype = entry["datatype"]
    length = 0
    if datatype in ("char", "string", "text"):
        length = int(entry.get("length", TEXT_WIDTHS.get(entry["name"], TEXT_WIDTH)))
    return Column(entry["name"], datatype, bool(entry.get("nullable", True)), length,
                  str(entry.get("description", "")), str(entry.get("fits:tunit") or entry.get("ivoa:unit") or ""))


def _load() -> tuple[str, dict[str, Table]]:
    spec = find_spec("lsst.sdm.schemas")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("lsst-sdm-schemas is not installed")
    text = (Path(spec.origin).parent / "apdb.yaml").read_text(encoding="utf-8")
    found = yaml.load(text, Loader=yaml.CSafeLoader)  # the C form of safe_load
    return str(found["version"]), {table["name"]: _declared(table) for table in found["tables"]}


VERSION, TABLES = _load()

DIA_SOURCE: Final = TABLES["DiaSource"]
DIA_OBJECT: Final = TABLES["DiaObject"]
DIA_FORCED_SOURCE: Final = TABLES["DiaForcedSource"]
SS_SOURCE: Final = TABLES["SSSource"]
SS_OBJECT: Final = TABLES["SSObject"]
MPC_ORBITS: Final = TABLES["mpc_orbits"]
SUMMARY: Final = TABLES["DetectorVisitProcessingSummary"]
