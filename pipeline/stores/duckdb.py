"""A prompt store in one DuckDB file, with what makes it fast beside it.

    night.db                  the prompt tables; `detector_visits`, what was saved; update records, replica chunks; the
                              outbox's rows
    night.db.packets/         the packets themselves, appended and fsynced before the commit that names them
    night.db.DiaSource ...    the rows once more, by rows, for histories (`rowfile`); made from the tables where missing

Each table has three columns beside the declared ones: `number`, the order of arrival, which finds a row in its row
file; `pixelId`, the HTM index of its position; `apdb_replica_chunk`. Which numbers an object has, and which current
DIAObjects lie in a pixel, is an index in memory (`runs`), read from the tables when the store is opened. Secondary
indexes of apdb.yaml are left out: zone maps and those indexes do their work.

Blobs inside DuckDB were up to 40 times slower at the 99th percentile. One process owns the file.
"""

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import duckdb
import numpy as np

from pipeline.errors import NonRetriableError, RetriableError
from pipeline.htm import htm_index, htm_ranges
from pipeline.ports import History, ReplicaChunk, SaveRequest, Segment
from pipeline.stores import outbox
from pipeline.stores.amendments import Amendments
from pipeline.stores.chunks import touched
from pipeline.stores.rowfile import RowFile
from pipeline.stores.runs import Runs
from schemas.exposure import Box
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE, SUMMARY, TABLES, VERSION, Table, take
from schemas.updates import UPDATE, chunk_of

TABLES_KEPT: Final = (DIA_OBJECT, DIA_SOURCE, DIA_FORCED_SOURCE, SS_SOURCE, SUMMARY)
IN_ROW_FILES: Final = (DIA_OBJECT, DIA_SOURCE, DIA_FORCED_SOURCE)
MEMORY_LIMIT: Final = "1GB"                 # of DuckDB itself
_CONFIG: Final[dict[str, Any]] = {           # a checkpoint every 80 visits of 1,000 sources or so, not every 20
    "threads": 1, "memory_limit": MEMORY_LIMIT, "checkpoint_threshold": "64MB"}
_SYNC_ROWS: Final = 100_000                 # rows of a row file that a crash may lose, to be read from the tables again
_LOAD_ROWS: Final = 100_000                 # rows copied at a time from the tables to a row file

_ADDED: Final = "number BIGINT NOT NULL, pixelId BIGINT NOT NULL, apdb_replica_chunk BIGINT NOT NULL"
_SQL_OF: Final = {"i8": "BIGINT", "i4": "INTEGER", "f8": "DOUBLE", "S40": "VARCHAR"}
_UPDATE_COLUMNS: Final = ", ".join(f'"{name}" {_SQL_OF[UPDATE[name].str[1:]]}' for name in UPDATE.names or ())
_OWN_TABLES: Final = f"""
CREATE TABLE IF NOT EXISTS updates ({_UPDATE_COLUMNS});
CREATE TABLE IF NOT EXISTS replica_chunks (id BIGINT PRIMARY KEY, last_update DOUBLE NOT NULL, unique_id VARCHAR);
CREATE TABLE IF NOT EXISTS deduplications (mjd_tai DOUBLE NOT NULL);
CREATE TABLE IF NOT EXISTS stale_rows (name VARCHAR NOT NULL, number BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS row_file_owner (owner VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS row_files (name VARCHAR PRIMARY KEY, synced BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS detector_visits (visit BIGINT, detector SMALLINT, PRIMARY KEY (visit, detector));
CREATE TABLE IF NOT EXISTS schema_version (version VARCHAR PRIMARY KEY);
"""


class DuckDBStore(Amendments):
    """The prompt tables of one process."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self._connection = duckdb.connect(str(path), config=_CONFIG)
        except duckdb.Error as error:
            raise NonRetriableError(f"store {path} cannot be opened: {error}") from error
        try:
            self._create()
            self._files = outbox.SegmentFiles(Path(f"{path}.packets"))
            self._name = str(self._connection.execute("SELECT name FROM outbox_state").fetchall()[0][0])
            owner = str(self._connection.execute("SELECT owner FROM row_file_owner").fetchall()[0][0])
            self._rows = {table.name: RowFile(Path(f"{path}.{table.name}"), table, f"{owner} {VERSION}")
                          for table in IN_ROW_FILES}
            self._counts = {table.name: self._count(table) for table in TABLES_KEPT}
            self._synced = dict.fromkeys(self._rows, 0) | dict(
                self._connection.execute("SELECT name, synced FROM row_files").fetchall())
            self._mend()
            self._read_indexes()
        except BaseException:
            self._connection.close()
            raise
        self._settling: list[Callable[[], None]] = []          # what follows the commit
        self._marked = False                                   # rows are marked as stale

    def objects(self, box: Box, until: float | None = None) -> np.ndarray:
        if until is not None:
            where, values = _in_box(box)
            return self._select(DIA_OBJECT, f'WHERE {where} AND "validityStartMjdTai" <= ? AND ("validityEndMjdTai" '
                                            'IS NULL OR "validityEndMjdTai" > ?) ORDER BY "diaObjectId"',
                                [*values, until, until])
        found = self._rows[DIA_OBJECT.name].take(self._still_current(self._by_pixel.within(htm_ranges(box))))
        return _by_id(take(found, box.contains(found["ra"], found["dec"])))

    def history(self, ids: np.ndarray, since: float, until: float) -> History:
        ids = np.unique(np.asarray(ids, np.int64))
        return History(self._earlier(DIA_SOURCE, "diaSourceId", ids, since, until),
                       self._earlier(DIA_FORCED_SOURCE, "diaForcedSourceId", ids, since, until))

    def contains(self, visit: int, detector: int) -> bool:
        return bool(self._read("SELECT 1 FROM detector_visits WHERE visit = ? AND detector = ?",
                               [int(visit), int(detector)]).fetchall())

    def save(self, request: SaveRequest, segment: Segment) -> None:
        where = f"visit {request.visit} detector {request.detector}"
        arriving = (request.objects, request.sources, request.forced, request.ss_sources, request.summary)
        for table, rows in zip(TABLES_KEPT, arriving, strict=True):
            table.to_columns(rows[:0])                         # TypeError for rows of another table
        mjd_tai, place = request.saved_mjd_tai, self._files.append(segment.packets)
        with self._writing(where, mjd_tai):
            self._connection.execute("INSERT INTO detector_visits VALUES (?, ?)",
                                     [int(request.visit), int(request.detector)])
            for table, rows in zip(TABLES_KEPT, arriving, strict=True):
                self._add(table, rows, mjd_tai)
            self._insert_outbox(segment, place)

    def unsent(self) -> list[Segment]:
        rows = self._read(f"SELECT {', '.join(outbox.COLUMNS)} FROM outbox WHERE NOT sent ORDER BY sequence")
        return outbox.segments_of(rows.fetchnumpy(), self._files, self._name)

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
        return self._select(table, "ORDER BY number") if table in TABLES_KEPT else table.empty()

    def counts(self) -> dict[str, int]:
        """Rows of each table kept; of DIAObjects, those that are current."""
        current = {DIA_OBJECT.name: 'WHERE "validityEndMjdTai" IS NULL'}
        return {table.name: int(self._read(f'SELECT count(*) FROM "{table.name}" {current.get(table.name, "")}')
                                .fetchall()[0][0]) for table in TABLES_KEPT}

    def objects_since(self, mjd_tai: float) -> np.ndarray:
        return self._select(DIA_OBJECT, 'WHERE "validityEndMjdTai" IS NULL AND "validityStartMjdTai" >= ? '
                                        'ORDER BY "diaObjectId"', [mjd_tai])

    def objects_of(self, ids: np.ndarray) -> np.ndarray:
        return _by_id(self._rows[DIA_OBJECT.name].take(self._current_numbers(ids)))

    def last_deduplication(self) -> float:
        found = self._read("SELECT max(mjd_tai) FROM deduplications").fetchall()[0][0]
        return -math.inf if found is None else float(found)

    def set_deduplicated(self, mjd_tai: float) -> None:
        self._read("INSERT INTO deduplications VALUES (?)", [float(mjd_tai)]).fetchall()

    def chunks(self) -> list[ReplicaChunk]:
        return [ReplicaChunk(*row) for row in
                self._read("SELECT id, last_update, unique_id FROM replica_chunks ORDER BY id").fetchall()]

    def chunk_rows(self, chunk: int, table: str) -> np.ndarray:
        return self._select(TABLES[table], "WHERE apdb_replica_chunk = ? ORDER BY number", [int(chunk)])

    def updates(self, chunk: int | None = None) -> np.ndarray:
        where, values = ("", []) if chunk is None else ("WHERE chunk = ?", [int(chunk)])
        found = self._read(f'SELECT * FROM updates {where} ORDER BY "updateOrder"', values).fetchnumpy()
        rows = np.zeros(len(found["chunk"]), UPDATE)
        for name in UPDATE.names or ():
            column = found[name]
            rows[name] = column.filled(np.nan) if column.dtype.kind == "f" and np.ma.isMaskedArray(column) else column
        return rows

    def close(self) -> None:
        self._files.close()
        with suppress(duckdb.Error):
            self._forget_sent()
        with suppress(duckdb.Error, RetriableError):
            self._sync_rows()
        for rows in self._rows.values():
            rows.close()
        self._connection.close()

    # ---- opening

    def _create(self) -> None:
        for table in TABLES_KEPT:
            self._connection.execute(_ddl(table))
        self._connection.execute(_OWN_TABLES + outbox.DDL)
        self._check_columns("outbox", outbox.COLUMNS)
        for table in TABLES_KEPT:
            self._check_columns(table.name, ("number", "pixelId", "apdb_replica_chunk"))
        self._connection.execute("INSERT INTO outbox_state SELECT ?, 1 WHERE NOT EXISTS (FROM outbox_state)",
                                 [outbox.new_name()])
        self._connection.execute("INSERT INTO row_file_owner SELECT ? WHERE NOT EXISTS (FROM row_file_owner)",
                                 [uuid4().hex])
        known = [row[0] for row in self._connection.execute("SELECT version FROM schema_version").fetchall()]
        if not known:
            self._connection.execute("INSERT INTO schema_version VALUES (?)", [VERSION])
        elif known != [VERSION]:
            raise NonRetriableError(f"store {self.path} has schema version {known[0]}, this program has {VERSION}")

    def _check_columns(self, name: str, columns: Sequence[str]) -> None:
        present = {row[0] for row in self._connection.execute(f'DESCRIBE "{name}"').fetchall()}
        missing = [column for column in columns if column not in present]
        if missing:
            raise NonRetriableError(f"store {self.path} is of an earlier version of this program: its table {name} "
                                    f"lacks the columns {', '.join(missing)}")

    def _count(self, table: Table) -> int:
        found = self._connection.execute(f'SELECT max(number) FROM "{table.name}"').fetchall()[0][0]
        return 0 if found is None else int(found) + 1

    def _mend(self) -> None:
        """Bring the row files to what the tables hold: rows that are missing, and rows that changed without them."""
        for table in IN_ROW_FILES:
            rows, count = self._rows[table.name], self._counts[table.name]
            for first in range(min(len(rows), count, self._synced[table.name]), count, _LOAD_ROWS):
                rows.write(first, self._select(table, "WHERE number >= ? AND number < ? ORDER BY number",
                                               [first, min(first + _LOAD_ROWS, count)]))
            stale = self._read("SELECT DISTINCT number FROM stale_rows WHERE name = ? ORDER BY number", [table.name])
            numbers = np.asarray(stale.fetchnumpy()["number"], np.int64)
            if len(numbers):
                with self._registered({"wanted": {"number": numbers}}):
                    rows.put(numbers, self._select(table, "WHERE number IN (SELECT number FROM wanted) "
                                                          "ORDER BY number"))
        self._sync_rows()

    def _sync_rows(self) -> None:
        """Put the row files on disk, and remember that they are."""
        for name, rows in self._rows.items():
            rows.sync()
            self._synced[name] = self._counts[name]
        self._connection.execute("DELETE FROM stale_rows")
        self._connection.executemany("INSERT OR REPLACE INTO row_files VALUES (?, ?)",
                                     [[name, synced] for name, synced in self._synced.items()])

    def _read_indexes(self) -> None:
        self._is_current = np.zeros(max(self._counts[DIA_OBJECT.name], 1024), bool)
        self._by_object = {DIA_SOURCE.name: Runs(), DIA_FORCED_SOURCE.name: Runs(),
                           DIA_OBJECT.name: Runs(lambda numbers: self._is_current[numbers])}
        self._by_pixel = Runs(lambda numbers: self._is_current[numbers])
        for table in (DIA_SOURCE, DIA_FORCED_SOURCE):
            query = f'SELECT "diaObjectId", number FROM "{table.name}" WHERE "diaObjectId" <> 0'
            found = self._read(query).fetchnumpy()
            self._by_object[table.name].add(np.asarray(found["diaObjectId"]), np.asarray(found["number"]))
        found = self._read(f'SELECT "diaObjectId", pixelId, number FROM "{DIA_OBJECT.name}" '
                           'WHERE "validityEndMjdTai" IS NULL').fetchnumpy()
        self._point(np.asarray(found["diaObjectId"]), np.asarray(found["pixelId"]), np.asarray(found["number"]))

    # ---- reading

    def _earlier(self, table: Table, key: str, ids: np.ndarray, since: float, until: float) -> np.ndarray:
        numbers, rows = self._numbers_of(table, ids), self._rows[table.name]
        time = rows.column("midpointMjdTai", numbers)
        inside = (time >= since) & (time < until)
        numbers, time = numbers[inside], time[inside]
        return rows.take(numbers[np.lexsort((rows.column(key, numbers), time))])

    def _numbers_of(self, table: Table, ids: np.ndarray) -> np.ndarray:
        """Numbers of an ascending list of objects' rows; what was given to another object since does not count."""
        numbers = self._by_object[table.name].find(ids)
        owners = self._rows[table.name].column("diaObjectId", numbers)
        if not len(numbers):
            return numbers
        return np.asarray(numbers[ids[np.minimum(np.searchsorted(ids, owners), len(ids) - 1)] == owners])

    def _current_numbers(self, ids: np.ndarray) -> np.ndarray:
        """Numbers of the current versions of objects."""
        return self._still_current(self._by_object[DIA_OBJECT.name].find(np.unique(np.asarray(ids, np.int64))))

    def _still_current(self, numbers: np.ndarray) -> np.ndarray:
        return np.asarray(numbers[self._is_current[numbers]])

    def _find(self, table: Table, column: str, values: np.ndarray) -> np.ndarray:
        rows = self._rows[table.name]
        if column == "diaObjectId":
            return rows.take(self._numbers_of(table, np.unique(values)))
        return rows.take(self._matching(table, {column: values})[0])

    def _matching(self, table: Table, keys: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the rows with given keys, and which keys those were."""
        where = " AND ".join(f'old."{name}" = new."{name}"' for name in keys)
        columns = {name: np.ascontiguousarray(array) for name, array in keys.items()}
        with self._registered({"wanted": columns | {"k": np.arange(len(next(iter(keys.values()))))}}):
            found = self._read(f'SELECT old.number, new.k FROM "{table.name}" AS old JOIN wanted AS new ON {where} '
                               "ORDER BY 1").fetchnumpy()
        return np.asarray(found["number"], np.int64), np.asarray(found["k"], np.int64)

    def _select(self, table: Table, clause: str, values: Sequence[Any] = ()) -> np.ndarray:
        return table.from_columns(self._read(f'SELECT {_columns(table)} FROM "{table.name}" {clause}',
                                             values).fetchnumpy())

    def _read(self, query: str, values: Sequence[Any] = ()) -> Any:
        try:
            return self._connection.execute(query, list(values))
        except duckdb.Error as error:
            raise RetriableError(f"store {self.path} not read: {error}") from error

    # ---- writing

    @contextmanager
    def _writing(self, what: str, mjd_tai: float) -> Iterator[None]:
        self._settling, self._marked = [], False
        try:
            self._connection.execute("BEGIN TRANSACTION")
            yield
            self._touch(mjd_tai, what)
            self._connection.execute("COMMIT")
        except duckdb.ConstraintException as error:
            self._roll_back()
            raise NonRetriableError(f"{what} is already in the store: {error}") from error
        except duckdb.Error as error:
            self._roll_back()
            raise RetriableError(f"{what} not saved: {error}") from error
        except BaseException:
            self._roll_back()
            raise
        for settle in self._settling:
            settle()
        if self._marked or any(self._counts[name] - synced > _SYNC_ROWS for name, synced in self._synced.items()):
            self._sync_rows()

    def _touch(self, mjd_tai: float, why: str) -> None:
        found = self._connection.execute("SELECT id, last_update, unique_id FROM replica_chunks WHERE id = ?",
                                         [chunk_of(mjd_tai)]).fetchall()
        chunk = touched(ReplicaChunk(*found[0]) if found else None, mjd_tai, why)
        self._connection.execute("INSERT OR REPLACE INTO replica_chunks VALUES (?, ?, ?)",
                                 [chunk.id, chunk.last_update_mjd_tai, chunk.unique_id])

    def _add(self, table: Table, rows: np.ndarray, mjd_tai: float) -> None:
        columns = table.to_columns(rows)
        if not len(rows):
            return
        first = self._counts[table.name]
        pixels = htm_index(rows["ra"], rows["dec"]) if table in IN_ROW_FILES else np.zeros(len(rows), np.int64)
        numbers = first + np.arange(len(rows))
        columns |= {"number": numbers, "pixelId": pixels,
                    "apdb_replica_chunk": np.full(len(rows), chunk_of(mjd_tai))}
        if table in IN_ROW_FILES:
            self._rows[table.name].write(first, rows)
        closed = self._close_versions(rows) if table is DIA_OBJECT else None
        with self._registered({"arriving": columns}):
            self._connection.execute(f'INSERT INTO "{table.name}" BY NAME SELECT * FROM arriving')
        self._settling.append(lambda: self._added(table, rows["diaObjectId"] if closed is not None or table in (
            DIA_SOURCE, DIA_FORCED_SOURCE) else None, numbers, pixels, closed))

    def _added(self, table: Table, owners: np.ndarray | None, numbers: np.ndarray, pixels: np.ndarray,
               closed: np.ndarray | None) -> None:
        """Count and index rows that have been committed."""
        self._counts[table.name] += len(numbers)
        if closed is not None and owners is not None:
            self._is_current[closed] = False
            self._point(owners, pixels, numbers)
        elif owners is not None:
            owned = owners != 0
            self._by_object[table.name].add(owners[owned], numbers[owned])

    def _point(self, owners: np.ndarray, pixels: np.ndarray, numbers: np.ndarray) -> None:
        """Make those versions of DIAObjects current."""
        if len(numbers) and numbers.max() >= len(self._is_current):
            more = np.zeros(max(len(self._is_current), len(numbers)), bool)
            self._is_current = np.concatenate([self._is_current, more])
        self._is_current[numbers] = True
        self._by_object[DIA_OBJECT.name].add(owners, numbers)
        self._by_pixel.add(pixels, numbers)

    def _close_versions(self, arriving: np.ndarray) -> np.ndarray:
        """End the current versions of the DIAObjects that arrive; their numbers."""
        closed = self._current_numbers(arriving["diaObjectId"])
        if len(closed):
            order = np.argsort(arriving["diaObjectId"], kind="stable")
            owners = self._rows[DIA_OBJECT.name].column("diaObjectId", closed)
            place = order[np.searchsorted(arriving["diaObjectId"], owners, sorter=order)]
            self._set(DIA_OBJECT, closed, {"validityEndMjdTai": arriving["validityStartMjdTai"][place]})
        return closed

    def _change(self, table: Table, keys: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray]) -> None:
        numbers, k = self._matching(table, keys)
        if not len(numbers):
            return
        changed = {name: np.ascontiguousarray(array[k]) for name, array in values.items()}
        self._set(table, numbers, changed)
        self._connection.execute("INSERT INTO stale_rows SELECT ?, unnest(?)", [table.name, numbers.tolist()])
        self._marked = True
        self._settling.append(lambda: self._changed(table, numbers, changed))

    def _changed(self, table: Table, numbers: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Follow with row file and indexes; rows stay marked as stale until they are on disk."""
        file = self._rows[table.name]
        rows = file.take(numbers)
        for name, array in values.items():
            rows[name] = array
        file.put(numbers, rows)
        if "diaObjectId" in values:
            self._by_object[table.name].add(values["diaObjectId"], numbers)
        if "validityEndMjdTai" in values:
            self._is_current[numbers] = False

    def _set(self, table: Table, numbers: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        setting = ", ".join(f'"{name}" = new."{name}"' for name in values)
        with self._registered({"changes": {"k": numbers, **values}}):
            self._connection.execute(f'UPDATE "{table.name}" AS old SET {setting} FROM changes AS new '
                                     "WHERE old.number = new.k")

    def _record(self, records: np.ndarray) -> None:
        if not len(records):
            return
        last = self._connection.execute('SELECT max("updateOrder") FROM updates').fetchall()[0][0]
        records["updateOrder"] = (-1 if last is None else last) + 1 + np.arange(len(records))
        columns = {name: np.ascontiguousarray(records[name]) for name in UPDATE.names or ()}
        columns["updateType"] = records["updateType"].astype("U40").astype(object)
        with self._registered({"new_updates": columns}):
            self._connection.execute("INSERT INTO updates BY NAME SELECT * FROM new_updates")

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
                with suppress(duckdb.Error):     # in an aborted transaction they stay until the next of that name
                    self._connection.unregister(name)


def copy_store(source: Path, target: Path) -> None:
    """Copy the tables and rows of a store that nobody has open; the copy has an empty outbox of another name."""
    shutil.copyfile(source, target)
    for suffix in (".wal", *(f".{table.name}" for table in IN_ROW_FILES)):
        if Path(f"{source}{suffix}").is_file():
            shutil.copyfile(f"{source}{suffix}", f"{target}{suffix}")
    with duckdb.connect(str(target), config=_CONFIG) as connection:
        connection.execute("DELETE FROM outbox")
        connection.execute("UPDATE outbox_state SET name = ?, next_sequence = 1", [outbox.new_name()])


def _columns(table: Table) -> str:
    return ", ".join(f'"{column.name}"' for column in table.columns)


def _ddl(table: Table) -> str:
    """The declared table and its primary key, with the store's own columns before them."""
    create = table.ddl("duckdb").partition("\nCREATE INDEX")[0]
    return create.replace("(\n", f"(\n    {_ADDED},\n", 1)


def _by_id(objects: np.ndarray) -> np.ndarray:
    return take(objects, np.argsort(objects["diaObjectId"], kind="stable"))


def _in_box(box: Box) -> tuple[str, list[float]]:
    across = "(ra >= ? OR ra <= ?)" if box.ra_min > box.ra_max else "(ra >= ? AND ra <= ?)"
    return f"dec >= ? AND dec <= ? AND {across}", [box.dec_min, box.dec_max, box.ra_min, box.ra_max]
