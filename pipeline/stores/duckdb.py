"""A prompt store in one DuckDB file, with its outbox beside it.

    night.db                  the prompt tables; `detector_visits`, what was saved; the outbox's rows
    night.db.packets/         the packets themselves, appended and fsynced before the commit that names them

Blobs inside DuckDB were up to 40 times slower at the 99th percentile. One process owns the file.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np

from pipeline.errors import NonRetriableError, RetriableError
from pipeline.ports import History, SaveRequest, Segment
from pipeline.stores import outbox
from schemas.exposure import Box
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE, SUMMARY, TABLES, VERSION, Table

TABLES_KEPT: Final = (DIA_OBJECT, DIA_SOURCE, DIA_FORCED_SOURCE, SS_SOURCE, SUMMARY)

_OWN_TABLES: Final = """
CREATE TABLE IF NOT EXISTS detector_visits (visit BIGINT, detector SMALLINT, PRIMARY KEY (visit, detector));
CREATE TABLE IF NOT EXISTS schema_version (version VARCHAR PRIMARY KEY);
"""


class DuckDBStore:
    """The prompt tables of one process."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self._connection = duckdb.connect(str(path), config={"threads": 1})
        except duckdb.Error as error:
            raise NonRetriableError(f"store {path} cannot be opened: {error}") from error
        self._create()
        self._files = outbox.SegmentFiles(Path(f"{path}.packets"))

    def objects(self, box: Box, until: float | None = None) -> np.ndarray:
        where, values = _in_box(box)
        if until is None:
            where += ' AND "validityEndMjdTai" IS NULL'
        else:
            where += (' AND "validityStartMjdTai" <= ? AND ("validityEndMjdTai" IS NULL OR "validityEndMjdTai" > ?)')
            values = [*values, until, until]
        return self._select(DIA_OBJECT, f"WHERE {where} ORDER BY \"diaObjectId\"", values)

    def history(self, ids: np.ndarray, since: float, until: float) -> History:
        if not len(ids):
            return History(DIA_SOURCE.empty(), DIA_FORCED_SOURCE.empty())
        clause = ('WHERE "diaObjectId" IN (SELECT id FROM wanted) AND "midpointMjdTai" >= ? AND "midpointMjdTai" < ? '
                  "ORDER BY \"midpointMjdTai\", ")
        with self._registered({"wanted": {"id": np.unique(np.asarray(ids, np.int64))}}):
            return History(self._select(DIA_SOURCE, clause + '"diaSourceId"', [since, until]),
                           self._select(DIA_FORCED_SOURCE, clause + '"diaForcedSourceId"', [since, until]))

    def contains(self, visit: int, detector: int) -> bool:
        return bool(self._read("SELECT 1 FROM detector_visits WHERE visit = ? AND detector = ?",
                               [int(visit), int(detector)]).fetchall())

    def save(self, request: SaveRequest, segment: Segment) -> None:
        where = f"visit {request.visit} detector {request.detector}"
        arriving = _arriving(request)
        place = self._files.append(segment.packets)
        with self._registered(arriving):
            try:
                self._connection.execute("BEGIN TRANSACTION")
                self._insert(request, arriving)
                self._insert_outbox(segment, place)
                self._connection.execute("COMMIT")
            except duckdb.ConstraintException as error:
                self._roll_back()
                raise NonRetriableError(f"{where} is already in the store: {error}") from error
            except duckdb.Error as error:
                self._roll_back()
                raise RetriableError(f"{where} not saved: {error}") from error
            except BaseException:
                self._roll_back()
                raise

    def unsent(self) -> list[Segment]:
        name = str(self._read("SELECT name FROM outbox_state").fetchall()[0][0])
        rows = self._read(f"SELECT {', '.join(outbox.COLUMNS)} FROM outbox WHERE NOT sent ORDER BY sequence")
        return outbox.segments_of(rows.fetchnumpy(), self._files, name)

    def mark_sent(self, segment: Segment) -> None:
        try:
            self._connection.execute("UPDATE outbox SET sent = true WHERE visit = ? AND detector = ?",
                                     [int(segment.visit), int(segment.detector)])
            if self._files.older():
                self._forget_sent()
        except duckdb.Error as error:
            raise RetriableError(f"visit {segment.visit} detector {segment.detector} not marked: {error}") from error

    def table(self, name: str) -> np.ndarray:
        if name not in TABLES:
            raise KeyError(f"no table {name!r}; there are {', '.join(TABLES)}")
        table = TABLES[name]
        return self._select(table, "ORDER BY rowid") if table in TABLES_KEPT else table.empty()

    def counts(self) -> dict[str, int]:
        """Rows of each table kept; of DIAObjects, those that are current."""
        current = {DIA_OBJECT.name: 'WHERE "validityEndMjdTai" IS NULL'}
        return {table.name: int(self._read(f'SELECT count(*) FROM "{table.name}" {current.get(table.name, "")}')
                                .fetchall()[0][0]) for table in TABLES_KEPT}

    def close(self) -> None:
        self._files.close()
        with suppress(duckdb.Error):
            self._forget_sent()
        self._connection.close()

    def _create(self) -> None:
        for table in TABLES_KEPT:
            self._connection.execute(table.ddl("duckdb"))
        self._connection.execute(_OWN_TABLES + outbox.DDL)
        self._check_outbox()
        self._connection.execute("INSERT INTO outbox_state SELECT ?, 1 WHERE NOT EXISTS (FROM outbox_state)",
                                 [outbox.new_name()])
        known = [row[0] for row in self._connection.execute("SELECT version FROM schema_version").fetchall()]
        if not known:
            self._connection.execute("INSERT INTO schema_version VALUES (?)", [VERSION])
        elif known != [VERSION]:
            self._connection.close()
            raise NonRetriableError(f"store {self.path} has schema version {known[0]}, this program has {VERSION}")

    def _check_outbox(self) -> None:
        present = {row[0] for row in self._connection.execute("DESCRIBE outbox").fetchall()}
        missing = [column for column in outbox.COLUMNS if column not in present]
        if missing:
            self._connection.close()
            raise NonRetriableError(f"store {self.path} is of an earlier version of this program: its outbox lacks the "
                                    f"columns {', '.join(missing)}")

    def _insert(self, request: SaveRequest, arriving: dict[str, Any]) -> None:
        execute = self._connection.execute
        execute("INSERT INTO detector_visits VALUES (?, ?)", [int(request.visit), int(request.detector)])
        if f"new_{DIA_OBJECT.name}" in arriving:
            execute(f'UPDATE "{DIA_OBJECT.name}" AS old SET "validityEndMjdTai" = new."validityStartMjdTai" '
                    f'FROM "new_{DIA_OBJECT.name}" AS new '
                    'WHERE old."diaObjectId" = new."diaObjectId" AND old."validityEndMjdTai" IS NULL')
        for name in arriving:
            execute(f'INSERT INTO "{name.removeprefix("new_")}" BY NAME SELECT * FROM "{name}"')

    def _insert_outbox(self, segment: Segment, place: outbox.Place) -> None:
        if not len(segment):
            return
        after = self._connection.execute("UPDATE outbox_state SET next_sequence = next_sequence + ? "
                                         "RETURNING next_sequence", [len(segment)]).fetchall()[0][0]
        with self._registered({"new_outbox": outbox.rows_of(segment, place, int(after) - len(segment))}):
            self._connection.execute("INSERT INTO outbox BY NAME SELECT * FROM new_outbox")

    def _forget_sent(self) -> None:
        """Delete segment files of which everything was sent, and then their rows."""
        found = self._connection.execute("SELECT DISTINCT segment FROM outbox WHERE NOT sent").fetchall()
        removed = self._files.remove_unless({int(row[0]) for row in found})
        if removed:
            self._connection.execute("DELETE FROM outbox WHERE list_contains(?, segment)", [removed])

    def _select(self, table: Table, clause: str, values: Sequence[Any] = ()) -> np.ndarray:
        return table.from_columns(self._read(f'SELECT * FROM "{table.name}" {clause}', values).fetchnumpy())

    def _read(self, query: str, values: Sequence[Any] = ()) -> Any:
        try:
            return self._connection.execute(query, list(values))
        except duckdb.Error as error:
            raise RetriableError(f"store {self.path} not read: {error}") from error

    def _roll_back(self) -> None:
        with suppress(duckdb.Error):     # a failed COMMIT has already rolled back
            self._connection.execute("ROLLBACK")

    @contextmanager
    def _registered(self, views: dict[str, dict[str, np.ndarray]]) -> Iterator[None]:
        for name, columns in views.items():
            self._connection.register(name, columns)
        try:
            yield
        finally:
            for name in views:
                self._connection.unregister(name)


def _arriving(request: SaveRequest) -> dict[str, dict[str, np.ndarray]]:
    """Columns of every table that gets rows, under the name of a view."""
    rows = (request.objects, request.sources, request.forced, request.ss_sources, request.summary)
    columns = {f"new_{table.name}": table.to_columns(part) for table, part in zip(TABLES_KEPT, rows, strict=True)}
    return {name: found for (name, found), part in zip(columns.items(), rows, strict=True) if len(part)}


def _in_box(box: Box) -> tuple[str, list[float]]:
    across = "(ra >= ? OR ra <= ?)" if box.ra_min > box.ra_max else "(ra >= ? AND ra <= ?)"
    return f"dec >= ? AND dec <= ? AND {across}", [box.dec_min, box.dec_max, box.ra_min, box.ra_max]
