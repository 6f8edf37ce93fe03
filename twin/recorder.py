"""The measurement store: one folder per run, which a report may read while the run still writes.

    RUN/
      scenario.toml                  the scenario as run: seed and overrides applied
      state.json                     how far it is, or how it ended (`reports.state`); .owner is locked while it runs
      measures/TABLE/part-00000.parquet   step, exposure_log, truth, stamp, fact, ...
      measures/DiaSource/...         the prompt tables, exported now and then and when the run ends: DiaSource,
                                     DiaObject, DiaForcedSource, SSSource, DetectorVisitProcessingSummary
      stamps/VISIT_DETECTOR.npy      (n, 3, 51, 51) float32: the rows of table `stamp`, in order of its `index`
      alerts/                        packets, as the file sink writes them
      prompt.duckdb, segments/       the prompt store and its packets
      images/                        FITS, with `--keep images`
      report.html, report.json       written by `alert-twin report`

Tables of `schemas.measures` are in files of their names in lower case (`STEP` is `step`), prompt tables under their own
(`DiaSource`). Each part is written aside and renamed, so that a reader sees whole parts only. Text columns are VARCHAR,
nulls are kept as the tables declare them (NaN stays NaN, -1 stays -1); fields of several values are lists.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import duckdb
import numpy as np

from schemas.table import copy, join

PROMPT_TABLES = ("DiaSource", "DiaObject", "DiaForcedSource", "SSSource", "DetectorVisitProcessingSummary")
PART_ROWS = 200_000   # a part is written when a table has gathered as many rows


class ParquetRecorder:
    """A `pipeline.ports.Recorder` that gathers rows and writes them as Parquet parts.

    Use it as a context manager, or call `flush` at the end. `compression` is Parquet's: what is kept for
    long takes the smaller, slower `zstd`.
    """

    def __init__(self, folder: Path, *, part_rows: int = PART_ROWS,
                 compression: Literal["snappy", "zstd"] = "snappy") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._part_rows, self._compression = part_rows, compression
        self._rows: dict[str, list[np.ndarray]] = defaultdict(list)
        self._kept: dict[str, int] = defaultdict(int)      # rows of each
        self._parts: dict[str, int] = defaultdict(int)
        self._connection = duckdb.connect(":memory:", config={"threads": 1})

    def append(self, table: str, rows: np.ndarray) -> None:
        """Keep rows of one table; they are on disk after the next `flush` at the latest."""
        if not table.isidentifier():
            raise ValueError(f"a table is named by an identifier, got {table!r}")
        if len(rows) == 0:
            return
        kept = self._rows[table]
        if kept and kept[0].dtype != rows.dtype:
            raise ValueError(f"table {table}: rows of another dtype than before")
        for first in range(0, len(rows), self._part_rows):     # a night's sources at once would be held four times
            some = copy(rows[first:first + self._part_rows])
            self._rows[table].append(some)
            self._kept[table] += len(some)
            if self._kept[table] >= self._part_rows:
                self._write(table)

    def replace(self, table: str, rows: np.ndarray) -> None:
        """Write a table as one part in place of the one that was; of tables that are always written so."""
        self._rows[table], self._parts[table] = [copy(rows)] if len(rows) else [], 0
        self._write(table)

    def flush(self, only: Sequence[str] = (), *, last: str = "") -> None:
        """Write what is kept, one part per table; of some tables only, or one of them after all others."""
        for table in sorted(only or self._rows, key=lambda name: name == last):
            self._write(table)

    def close(self) -> None:
        """Write what is kept and let the writer go."""
        self.flush()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _write(self, table: str) -> None:
        kept = self._rows.pop(table, [])
        self._kept[table] = 0
        if not kept:
            return
        folder = self.folder / table
        folder.mkdir(parents=True, exist_ok=True)
        name = f"part-{self._parts[table]:05d}.parquet"
        self._parts[table] += 1
        aside = folder / f".{name}.writing"
        rows = join(kept)
        view = f"rows_{table}"
        self._connection.register(view, plain_columns(rows))
        try:
            self._connection.execute(f'COPY (SELECT {_selection(rows.dtype)} FROM "{view}") TO \'{_quoted(aside)}\' '
                                     f"(FORMAT parquet, COMPRESSION {self._compression})")
        finally:
            self._connection.unregister(view)
        os.replace(aside, folder / name)


def plain_columns(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Columns that DuckDB scans: text as str, a field of several values as one column each, `name[i]`."""
    columns: dict[str, np.ndarray] = {}
    for name in rows.dtype.names or ():
        column = rows[name]
        if column.ndim == 1:
            columns[name] = _plain(column)
        else:
            flat = column.reshape(len(rows), -1)
            columns.update({f"{name}[{i}]": _plain(flat[:, i]) for i in range(flat.shape[1])})
    return columns


def _plain(column: np.ndarray) -> np.ndarray:
    if column.dtype.kind == "S":
        values = column.tolist()
        known = {value: value.decode() for value in set(values)}      # few texts, in many rows
        out = np.empty(len(values), object)
        out[:] = [known[value] for value in values]
        return out
    return np.ascontiguousarray(column)


def _selection(dtype: np.dtype) -> str:
    """SQL that gathers `name[i]` columns into one list each; NaN is kept by asking the scan not to read it as null."""
    parts = []
    for name in dtype.names or ():
        field = dtype[name]
        cells = [f"{name}[{i}]" for i in range(int(np.prod(field.shape)))] if field.shape else [name]
        values = [f"coalesce(\"{c}\", 'nan'::{'FLOAT' if field.base.itemsize == 4 else 'DOUBLE'})"
                  if field.base.kind == "f" else f'"{c}"' for c in cells]
        parts.append(f"[{', '.join(values)}] AS \"{name}\"" if field.shape else f'{values[0]} AS "{name}"')
    return ", ".join(parts)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
