"""A run's measurement store, read as structured arrays while its writer may still be at work.

    RUN/measures/TABLE/part-*.parquet    tables of `schemas.measures` in lower case, prompt tables by their own names
    RUN/stamps/VISIT_DETECTOR.npy        (n, 3, 51, 51) float32: rows of table `stamp`

A part that is being written has another name (`.part-00000.parquet.writing`), so that only whole parts are read.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np

from schemas import measures
from schemas.table import TABLES, Table, take

MEASURED: Final = np.dtype([("visit", "i8"), ("detector", "i2"), *((n, measures.MEASUREMENT[n])
                            for n in measures.MEASUREMENT.names or ())])   # MEASUREMENT of all detector-visits


def seeded(kind: np.dtype) -> np.dtype:
    """A table's dtype with the seed of the night in front: several nights in one table."""
    return np.dtype([("seed", "i8"), *((name, kind[name]) for name in kind.names or ())])


DTYPES: Final[dict[str, np.dtype]] = {
    "step": measures.STEP, "publication": measures.PUBLICATION, "rejection": measures.REJECTION,
    "exposure_log": measures.EXPOSURE_LOG, "truth": measures.TRUTH, "truth_pixels": measures.TRUTH_PIXELS,
    "sending": measures.SENDING, "injection": measures.INJECTION, "stamp": measures.STAMP, "star": measures.STAR_TRUTH,
    "fact": measures.FACT, "measurement": MEASURED,
    "trace": measures.TRACE, "retraction": measures.RETRACTION, "visit_summary": measures.VISIT_SUMMARY,
    "passage": measures.PASSAGE, "call": measures.CALL, "work": measures.WORK, "pod": measures.POD,
    "reference": measures.PASSAGE, "next_visit": measures.NEXT_VISIT, "pulse": measures.PULSE,
    "outcome": measures.OUTCOME, "outcome_false": measures.OUTCOME_FALSE, "outcome_forced": measures.OUTCOME_FORCED,
    "outcome_star": measures.OUTCOME_STAR, "seed_exposure_log": seeded(measures.EXPOSURE_LOG),
    "seed_publication": seeded(measures.PUBLICATION), "seed_step": seeded(measures.STEP),
    "seed_trace": seeded(measures.TRACE)}


class StoreError(ValueError):
    """A run folder that cannot be read: the message names the folder, table or column."""


@dataclass(frozen=True, slots=True)
class Store:
    """Tables of one run folder, each read once."""

    folder: Path
    _read: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        if not (self.folder / "measures").is_dir():
            raise StoreError(f"{self.folder}: no run folder, it has no measures/")

    def has(self, table: str) -> bool:
        """Whether the table has any part."""
        return bool(self._parts(table))

    def table(self, name: str) -> np.ndarray:
        """All rows of a table, in the order they were written; StoreError where it is missing."""
        rows = self.optional(name)
        if name not in self._read:
            raise StoreError(f"{self.folder}: no table {name!r}, found {', '.join(self.tables()) or 'none'}")
        return rows

    def optional(self, name: str) -> np.ndarray:
        """All rows of a table; none where it is missing."""
        if name in self._read:
            return self._read[name]
        if not (parts := self._parts(name)):
            return empty(name)
        self._read[name] = _rows(name, parts)
        return self._read[name]

    def tables(self) -> tuple[str, ...]:
        """Names of the tables that have parts."""
        return tuple(sorted(p.name for p in (self.folder / "measures").iterdir() if p.is_dir() and self._parts(p.name)))

    def facts(self) -> dict[str, str]:
        """The circumstances of the run; the last value of a key counts."""
        rows = self.optional("fact")
        return {row["key"].decode(): row["value"].decode() for row in rows}

    def stamps(self, visit: int, detector: int) -> np.ndarray:
        """(n, 3, side, side) float32 science, template and difference stamps; none where they were not kept."""
        path = self.folder / "stamps" / f"{int(visit)}_{int(detector)}.npy"
        none = np.zeros((0, 3, measures.STAMP_SIDE, measures.STAMP_SIDE), np.float32)
        if not path.is_file():
            return none
        try:
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))   # of many stamps few are looked at
        except (ValueError, EOFError, OSError) as error:
            raise StoreError(f"{path}: not a stack of stamps ({error})") from error

    def of_log(self) -> "Store":
        """The same of a run that still writes: of every table the detector-visits that its log has by now."""
        log, out = self.table("exposure_log"), Store(self.folder)
        out._read["exposure_log"] = log
        known = _key(log)
        for name in self.tables():
            rows = out.optional(name)
            if {"visit", "detector"} <= set(rows.dtype.names or ()):
                out._read[name] = take(rows, np.flatnonzero(np.isin(_key(rows), known)))
        return out

    def since(self, name: str, part: int) -> tuple[np.ndarray, int]:
        """Rows of a table's parts from a number on, and how many parts there are now; nothing is kept."""
        parts = self._parts(name)
        return (_rows(name, parts[part:]) if parts[part:] else empty(name)), len(parts)

    def _parts(self, table: str) -> list[Path]:
        return sorted((self.folder / "measures" / table).glob("part-*.parquet"))


def _key(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows["visit"].astype("i8") * 1000 + rows["detector"])


def dtype(name: str) -> np.dtype:
    """The dtype of a table of the store; StoreError for a name that no schema declares."""
    if name in DTYPES:
        return DTYPES[name]
    if name in TABLES:
        return TABLES[name].dtype
    raise StoreError(f"no schema declares table {name!r}: {', '.join([*DTYPES, *TABLES])} are known")


def empty(name: str, n: int = 0) -> np.ndarray:
    """Rows of nulls of a table of the store."""
    return TABLES[name].empty(n) if name in TABLES else measures.empty(dtype(name), n)


@cache
def _database(process: int) -> duckdb.DuckDBPyConnection:
    """The one database of a process: to open another for each table took four times as long as to read it."""
    return duckdb.connect(":memory:", config={"threads": 1})


def _rows(name: str, parts: list[Path]) -> np.ndarray:
    kind = dtype(name)
    try:
        with _database(os.getpid()).cursor() as connection:
            found = connection.execute("SELECT * FROM read_parquet(?, union_by_name=true)",
                                       [[str(part) for part in parts]]).fetchnumpy()
    except duckdb.Error as error:
        raise StoreError(f"{parts[0].parent}: unreadable ({str(error).splitlines()[0]})") from error
    if name in TABLES:
        return _prompt_rows(TABLES[name], found)
    n = len(next(iter(found.values()))) if found else 0
    rows = empty(name, n)
    for column in kind.names or ():
        if column in found:
            _fill(rows[column], found[column], f"{parts[0].parent}: column {column}")
    return rows


def _prompt_rows(table: Table, found: Mapping[str, Any]) -> np.ndarray:
    n = len(next(iter(found.values()))) if found else 0
    blank = table.to_columns(table.empty(n))
    return table.from_columns({name: found.get(name, blank[name]) for name in blank})


def _fill(out: np.ndarray, values: Any, place: str) -> None:
    """Copy database values into a column that already holds nulls, leaving nulls where the database has them."""
    known = ~np.ma.getmaskarray(values)
    data = np.ma.getdata(values)
    if data.dtype == object:
        known &= np.array([value is not None for value in data.tolist()], bool)
    if out.dtype.kind == "S":
        texts = [v if isinstance(v, bytes) else str(v).encode() for v in data[known].tolist()]
        if max(map(len, texts), default=0) > out.dtype.itemsize:
            raise StoreError(f"{place} holds {out.dtype.itemsize} bytes, got {max(texts, key=len)!r}")
        out[known] = texts
        return
    try:
        out[known] = data[known]
    except (ValueError, TypeError, OverflowError) as error:
        raise StoreError(f"{place} must be {out.dtype}, got {data.dtype} ({error})") from error


def groups(*columns: np.ndarray) -> Iterator[tuple[tuple[Any, ...], np.ndarray]]:
    """Distinct combinations of equally long columns, in order, each with the indices of its rows.

    Examples
    --------
    >>> [(key, rows.tolist()) for key, rows in groups(np.array([2, 1, 2]))]
    [((1,), [1]), ((2,), [0, 2])]
    """
    if len(columns[0]) == 0:
        return
    order = np.lexsort(columns[::-1])
    changes = np.zeros(len(order), bool)
    for column in columns:
        ordered = column[order]
        changes[1:] |= ordered[1:] != ordered[:-1]
    for rows in np.split(order, np.flatnonzero(changes)):
        yield tuple(column[rows[0]].item() for column in columns), rows
