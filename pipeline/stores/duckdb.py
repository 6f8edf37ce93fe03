"""A prompt store in one DuckDB file, with its outbox beside it.

    night.db                  the prompt tables; `detector_visits`, what was saved; `outbox`, one row per packet
    night.db.packets          the packets themselves, appended and fsynced before the commit that names them

Blobs inside DuckDB were up to 40 times slower at the 99th percentile. A crash between the append and the commit leaves
bytes that no row names. One process owns the file.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np

from pipeline.errors import NonRetriableError, RetriableError
from pipeline.ports import History, ReplicaChunk, SaveRequest, Segment
from pipeline.stores.amendments import Amendments
from pipeline.stores.chunks import touched
from schemas.exposure import Box
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE, SUMMARY, TABLES, VERSION, Table
from schemas.updates import UPDATE, chunk_of

CHUNK: Final = "apdb_replica_chunk"         # as the real APDB names it
TABLES_KEPT: Final = (DIA_OBJECT, DIA_SOURCE, DIA_FORCED_SOURCE, SS_SOURCE, SUMMARY)

_SQL_OF: Final = {"i8": "BIGINT", "i4": "INTEGER", "f8": "DOUBLE", "S40": "VARCHAR"}
_UPDATE_COLUMNS: Final = ", ".join(f'"{name}" {_SQL_OF[UPDATE[name].str[1:]]}' for name in UPDATE.names or ())
_OWN_TABLES: Final = f"""
CREATE TABLE IF NOT EXISTS updates ({_UPDATE_COLUMNS});
CREATE TABLE IF NOT EXISTS replica_chunks (id BIGINT PRIMARY KEY, last_update DOUBLE NOT NULL, unique_id VARCHAR);
CREATE TABLE IF NOT EXISTS deduplications (mjd_tai DOUBLE NOT NULL);
CREATE TABLE IF NOT EXISTS detector_visits (visit BIGINT, detector SMALLINT, PRIMARY KEY (visit, detector));
CREATE TABLE IF NOT EXISTS outbox (
    visit BIGINT NOT NULL, detector SMALLINT NOT NULL, number INTEGER NOT NULL, id BIGINT NOT NULL,
    start BIGINT NOT NULL, length INTEGER NOT NULL, sent BOOLEAN NOT NULL);
CREATE TABLE IF NOT EXISTS schema_version (version VARCHAR PRIMARY KEY);
"""


class DuckDBStore(Amendments):
    """The prompt tables of one process."""

    def __init__(self, path: Path) -> None:
        self.path, self.packets_path = Path(path), Path(f"{path}.packets")
        try:
            self._connection = duckdb.connect(str(path), config={"threads": 1})
        except duckdb.Error as error:
            raise NonRetriableError(f"store {path} cannot be opened: {error}") from error
        self._create()
        self._packets = self.packets_path.open("ab")

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
        start = self._append(segment)
        with self._registered(arriving | _outbox(segment, start)):
            try:
                self._connection.execute("BEGIN TRANSACTION")
                self._insert(request, arriving, segment)
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
        found = self._read("SELECT visit, detector, id, start, length FROM outbox WHERE NOT sent "
                           "ORDER BY start").fetchall()
        groups: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        for visit, detector, identifier, start, length in found:
            groups.setdefault((visit, detector), []).append((identifier, start, length))
        with self.packets_path.open("rb") as file:
            return [Segment(visit, detector, np.array([row[0] for row in rows], np.int64),
                            tuple(_piece(file, row[1], row[2]) for row in rows))
                    for (visit, detector), rows in groups.items()]

    def mark_sent(self, segment: Segment) -> None:
        try:
            self._connection.execute("UPDATE outbox SET sent = true WHERE visit = ? AND detector = ?",
                                     [int(segment.visit), int(segment.detector)])
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

    def objects_since(self, mjd_tai: float) -> np.ndarray:
        return self._select(DIA_OBJECT, 'WHERE "validityEndMjdTai" IS NULL AND "validityStartMjdTai" >= ? '
                                        'ORDER BY "diaObjectId"', [mjd_tai])

    def objects_of(self, ids: np.ndarray) -> np.ndarray:
        with self._registered({"wanted": {"id": np.unique(np.asarray(ids, np.int64))}}):
            return self._select(DIA_OBJECT, 'WHERE "diaObjectId" IN (SELECT id FROM wanted) AND "validityEndMjdTai" '
                                            'IS NULL ORDER BY "diaObjectId"')

    def last_deduplication(self) -> float:
        found = self._read("SELECT max(mjd_tai) FROM deduplications").fetchall()[0][0]
        return -math.inf if found is None else float(found)

    def set_deduplicated(self, mjd_tai: float) -> None:
        self._read("INSERT INTO deduplications VALUES (?)", [float(mjd_tai)])

    def chunks(self) -> list[ReplicaChunk]:
        return [ReplicaChunk(*row) for row in
                self._read("SELECT id, last_update, unique_id FROM replica_chunks ORDER BY id").fetchall()]

    def chunk_rows(self, chunk: int, table: str) -> np.ndarray:
        return self._select(TABLES[table], f"WHERE {CHUNK} = ? ORDER BY rowid", [int(chunk)])

    def updates(self, chunk: int | None = None) -> np.ndarray:
        where, values = ("", []) if chunk is None else ("WHERE chunk = ?", [int(chunk)])
        found = self._read(f'SELECT * FROM updates {where} ORDER BY "updateOrder"', values).fetchnumpy()
        rows = np.zeros(len(found["chunk"]), UPDATE)
        for name in UPDATE.names or ():
            column = found[name]
            rows[name] = column.filled(np.nan) if column.dtype.kind == "f" and np.ma.isMaskedArray(column) else column
        return rows

    @contextmanager
    def _writing(self, what: str, mjd_tai: float) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN TRANSACTION")
            yield
            self._touch(mjd_tai, what)
            self._connection.execute("COMMIT")
        except duckdb.ConstraintException as error:
            self._roll_back()
            raise NonRetriableError(f"{what} refused: {error}") from error
        except duckdb.Error as error:
            self._roll_back()
            raise RetriableError(f"{what} not done: {error}") from error
        except BaseException:
            self._roll_back()
            raise

    def _touch(self, mjd_tai: float, why: str) -> None:
        found = self._connection.execute("SELECT id, last_update, unique_id FROM replica_chunks WHERE id = ?",
                                         [chunk_of(mjd_tai)]).fetchall()
        chunk = touched(ReplicaChunk(*found[0]) if found else None, mjd_tai, why)
        self._connection.execute("INSERT OR REPLACE INTO replica_chunks VALUES (?, ?, ?)",
                                 [chunk.id, chunk.last_update_mjd_tai, chunk.unique_id])

    def _find(self, table: Table, column: str, values: np.ndarray) -> np.ndarray:
        with self._registered({"wanted": {"id": values}}):
            return self._select(table, f'WHERE "{column}" IN (SELECT id FROM wanted)')

    def _change(self, table: Table, keys: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray]) -> None:
        if not len(next(iter(keys.values()))):
            return
        columns = ({f"key_{name}": np.ascontiguousarray(array) for name, array in keys.items()}
                   | {f"new_{name}": np.ascontiguousarray(array) for name, array in values.items()})
        setting = ", ".join(f'"{name}" = new."new_{name}"' for name in values)
        where = " AND ".join(f'old."{name}" = new."key_{name}"' for name in keys)
        with self._registered({"changes": columns}):
            self._connection.execute(f'UPDATE "{table.name}" AS old SET {setting} FROM changes AS new WHERE {where}')

    def _record(self, records: np.ndarray) -> None:
        if not len(records):
            return
        last = self._connection.execute('SELECT max("updateOrder") FROM updates').fetchall()[0][0]
        records["updateOrder"] = (-1 if last is None else last) + 1 + np.arange(len(records))
        columns = {name: np.ascontiguousarray(records[name]) for name in UPDATE.names or ()}
        columns["updateType"] = records["updateType"].astype("U40").astype(object)
        with self._registered({"new_updates": columns}):
            self._connection.execute("INSERT INTO updates BY NAME SELECT * FROM new_updates")

    def _add(self, table: Table, rows: np.ndarray, mjd_tai: float) -> None:
        columns = table.to_columns(rows)
        if not len(rows):
            return
        with self._registered({f"new_{table.name}": columns}):
            if table is DIA_OBJECT:
                self._close_versions()
            self._connection.execute(f'INSERT INTO "{table.name}" BY NAME SELECT *, ?::BIGINT AS {CHUNK} '
                                     f'FROM "new_{table.name}"', [chunk_of(mjd_tai)])

    def _close_versions(self) -> None:
        """End the current versions of the DiaObjects that arrive."""
        self._connection.execute(
            f'UPDATE "{DIA_OBJECT.name}" AS old SET "validityEndMjdTai" = new."validityStartMjdTai" '
            f'FROM "new_{DIA_OBJECT.name}" AS new '
            'WHERE old."diaObjectId" = new."diaObjectId" AND old."validityEndMjdTai" IS NULL')

    def close(self) -> None:
        self._packets.close()
        self._connection.close()

    def _create(self) -> None:
        for table in TABLES_KEPT:
            self._connection.execute(_ddl(table))
        self._connection.execute(_OWN_TABLES)
        known = [row[0] for row in self._connection.execute("SELECT version FROM schema_version").fetchall()]
        if not known:
            self._connection.execute("INSERT INTO schema_version VALUES (?)", [VERSION])
        elif known != [VERSION]:
            self._connection.close()
            raise NonRetriableError(f"store {self.path} has schema version {known[0]}, this program has {VERSION}")

    def _append(self, segment: Segment) -> int:
        """Put the packets on disk; the place of the first."""
        start = self._packets.seek(0, os.SEEK_END)
        if segment.packets:
            try:
                self._packets.write(b"".join(segment.packets))
                self._packets.flush()
                os.fsync(self._packets.fileno())
            except OSError as error:
                raise RetriableError(f"packets not written to {self.packets_path}: {error}") from error
        return start

    def _insert(self, request: SaveRequest, arriving: dict[str, Any], segment: Segment) -> None:
        execute = self._connection.execute
        execute("INSERT INTO detector_visits VALUES (?, ?)", [int(request.visit), int(request.detector)])
        if f"new_{DIA_OBJECT.name}" in arriving:
            self._close_versions()
        chunk = chunk_of(request.saved_mjd_tai)
        for name in arriving:
            execute(f'INSERT INTO "{name.removeprefix("new_")}" BY NAME SELECT *, ?::BIGINT AS {CHUNK} FROM "{name}"',
                    [chunk])
        self._touch(request.saved_mjd_tai, f"{request.visit} {request.detector}")
        if len(segment):
            execute("INSERT INTO outbox BY NAME SELECT * FROM new_outbox")

    def _select(self, table: Table, clause: str, values: Sequence[Any] = ()) -> np.ndarray:
        return table.from_columns(self._read(f'SELECT {_columns(table)} FROM "{table.name}" {clause}',
                                             values).fetchnumpy())

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
                with suppress(duckdb.Error):     # in an aborted transaction they stay until the next of that name
                    self._connection.unregister(name)


def _columns(table: Table) -> str:
    return ", ".join(f'"{column.name}"' for column in table.columns)


def _ddl(table: Table) -> str:
    """The declared table, with the replica chunk of each row."""
    return table.ddl("duckdb") + f'\nALTER TABLE "{table.name}" ADD COLUMN IF NOT EXISTS {CHUNK} BIGINT;'


def _arriving(request: SaveRequest) -> dict[str, dict[str, np.ndarray]]:
    """Columns of every table that gets rows, under the name of a view."""
    rows = (request.objects, request.sources, request.forced, request.ss_sources, request.summary)
    columns = {f"new_{table.name}": table.to_columns(part) for table, part in zip(TABLES_KEPT, rows, strict=True)}
    return {name: found for (name, found), part in zip(columns.items(), rows, strict=True) if len(part)}


def _outbox(segment: Segment, start: int) -> dict[str, dict[str, np.ndarray]]:
    """Rows of the outbox for packets that begin at byte `start`."""
    n = len(segment)
    if not n:
        return {}
    lengths = np.array([len(packet) for packet in segment.packets], np.int64)
    return {"new_outbox": {
        "visit": np.full(n, segment.visit, np.int64), "detector": np.full(n, segment.detector, np.int16),
        "number": np.arange(n, dtype=np.int32), "id": np.asarray(segment.ids, np.int64),
        "start": start + np.concatenate([[0], np.cumsum(lengths)[:-1]]), "length": lengths,
        "sent": np.zeros(n, bool)}}


def _in_box(box: Box) -> tuple[str, list[float]]:
    across = "(ra >= ? OR ra <= ?)" if box.ra_min > box.ra_max else "(ra >= ? AND ra <= ?)"
    return f"dec >= ? AND dec <= ? AND {across}", [box.dec_min, box.dec_max, box.ra_min, box.ra_max]


def _piece(file: Any, start: int, length: int) -> bytes:
    file.seek(start)
    return bytes(file.read(length))
