"""A visit's packets as columns: what SQL filters query.

    alerts     one row per alert: the columns of its diaSource by their own names, those of other records with a prefix
               (diaObject_nDiaSources, ssSource_phaseAngle, mpc_orbits_e), observation_reason and target_name
    history    its earlier diaSources; `alertId` is the diaSourceId of the alert
    forced     its forced photometry, likewise

Columns are those of the present schema; a packet of an older one has NULL where it has none.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from operator import itemgetter
from typing import Any, Final

import numpy as np

from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, MPC_ORBITS, SS_SOURCE, Column, Table

Record = Mapping[str, Any]
Columns = dict[str, np.ndarray]
CUTOUTS: Final = ("cutoutDifference", "cutoutScience", "cutoutTemplate")
CHUNK: Final = 500             # packets whose rows are dicts at one time: a row of 100 columns takes 7 kB as one
_PARTS: Final = (("diaSource", DIA_SOURCE, ""), ("diaObject", DIA_OBJECT, "diaObject_"),
                 ("ssSource", SS_SOURCE, "ssSource_"), ("mpc_orbits", MPC_ORBITS, "mpc_orbits_"))
_LISTS: Final = (("history", "prvDiaSources", DIA_SOURCE), ("forced", "prvDiaForcedSources", DIA_FORCED_SOURCE))
_TEXTS: Final = ("observation_reason", "target_name")


def tables(records: Iterable[Record]) -> dict[str, Columns]:
    """The three tables of a visit's decoded packets; columns are NumPy arrays, masked where integers are null."""
    records = iter(records)
    parts: dict[str, list[Columns]] = {"alerts": [], "history": [], "forced": []}
    while True:
        some = list(islice(records, CHUNK))
        if parts["alerts"] and not some:
            break
        parts["alerts"].append(_alerts(some))
        for name, key, table in _LISTS:
            parts[name].append(_past(some, key, table))
    return {name: _joined(found) for name, found in parts.items()}


def _alerts(records: Sequence[Record]) -> Columns:
    found: Columns = {}
    for key, table, prefix in _PARTS:
        found |= _columns(table, [record.get(key) for record in records], prefix)
    found["diaSourceId"] = np.array([_identifier(record) for record in records], np.int64)
    for name in _TEXTS:
        found[name] = _objects([record.get(name) for record in records])
    return found


def _past(records: Sequence[Record], key: str, table: Table) -> Columns:
    lists = [record.get(key) or () for record in records]
    owners = np.array([_identifier(record) for record in records], np.int64)
    return {"alertId": np.repeat(owners, [len(rows) for rows in lists]).astype(np.int64),
            **_columns(table, [row for rows in lists for row in rows])}


def _identifier(record: Record) -> int:
    return int(record.get("diaSourceId") or record["diaSource"]["diaSourceId"])


def _columns(table: Table, rows: Sequence[Record | None], prefix: str = "") -> Columns:
    wanted = [column for column in table.columns if column.in_alerts]
    names = [column.name for column in wanted]
    values: Iterator[tuple[Any, ...]] = zip(*_tuples(rows, names), strict=True) if rows else iter([()] * len(names))
    return {prefix + column.name: _array(column, found) for column, found in zip(wanted, values, strict=True)}


def _tuples(rows: Sequence[Record | None], names: Sequence[str]) -> list[tuple[Any, ...]]:
    blank = dict.fromkeys(names)
    get = itemgetter(*names)
    found = []
    for row in rows:
        try:
            found.append(get(row if row is not None else blank))
        except KeyError:           # of an older schema
            found.append(get({**blank, **(row or {})}))
    return found


def _array(column: Column, values: tuple[Any, ...]) -> np.ndarray:
    if column.is_text:
        return _objects(values)
    if column.datatype in ("float", "double"):
        return np.array(values, column.format)     # None becomes NaN, which DuckDB reads as NULL
    if column.datatype == "timestamp":
        return np.array([_naive(value) for value in values], "M8[us]")
    kind = np.bool_ if column.datatype == "boolean" else np.int64    # a packet may hold more than the column should
    if None not in values:
        return np.array(values, kind)
    return np.ma.MaskedArray(np.array([value or 0 for value in values], kind), [value is None for value in values])


def _objects(values: Sequence[Any]) -> np.ndarray:
    found = np.empty(len(values), object)
    found[:] = values
    return found


def _naive(value: Any) -> Any:
    """Avro's timestamps without their zone, which NumPy has not; numbers as they are."""
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value


def _joined(parts: Sequence[Columns]) -> Columns:
    return parts[0] if len(parts) == 1 else {name: _concatenated([part[name] for part in parts]) for name in parts[0]}


def _concatenated(arrays: Sequence[np.ndarray]) -> np.ndarray:
    values = np.concatenate([np.ma.getdata(array) for array in arrays])
    if not any(isinstance(array, np.ma.MaskedArray) for array in arrays):
        return values
    return np.ma.MaskedArray(values, np.concatenate([np.ma.getmaskarray(array) for array in arrays]))
