"""A prompt store in PostgreSQL, for several workers at once; each has a store object, and a connection, of its own.

    postgresql://user@host:port/database?packets=FOLDER

The tables, their keys and their indexes are apdb.yaml's, with `number` (the order of arrival), `pixelId` (HTM, level
20) and `apdb_replica_chunk` beside them. `DiaObjectLast` holds one row for each current DIAObject, which a writer
locks, in the order of the ids, before it ends a version: two visits that see the same objects queue instead of leaving
two current versions or blocking each other. All other locks (the visit, the replica chunk, the outbox's sequence) are
taken in one order too, the hottest last.

Packets lie in segment files in FOLDER, which the workers share and whoever delivers reads. No time partitions: a
partitioned table could not keep diaSourceId unique, and a history goes through the index of diaObjectId anyway.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import numpy as np
import psycopg

from pipeline.errors import InputError, NonRetriableError, RetriableError
from pipeline.htm import htm_index, htm_ranges
from pipeline.ports import History, ReplicaChunk, SaveRequest, Segment
from pipeline.stores import outbox, pgcopy
from pipeline.stores.amendments import Amendments
from pipeline.stores.chunks import touched
from schemas.exposure import Box
from schemas.measures import empty
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE, SUMMARY, TABLES, VERSION, Table, take
from schemas.updates import UPDATE, chunk_of

DIA_OBJECT_LAST: Final = TABLES["DiaObjectLast"]
TABLES_KEPT: Final = (DIA_OBJECT, DIA_SOURCE, DIA_FORCED_SOURCE, SS_SOURCE, SUMMARY)
_PLACED: Final = (DIA_OBJECT, DIA_SOURCE, DIA_FORCED_SOURCE)
_ADDED: Final = ('number BIGINT GENERATED ALWAYS AS IDENTITY, "pixelId" BIGINT NOT NULL, '
                 "apdb_replica_chunk BIGINT NOT NULL")
_SQL_OF: Final = {"i8": "BIGINT", "i4": "INTEGER", "f8": "DOUBLE PRECISION", "S40": "VARCHAR(40)"}
_UPDATE_COLUMNS: Final = ", ".join(f'"{name}" {_SQL_OF[UPDATE[name].str[1:]]} NOT NULL' for name in UPDATE.names or ())
_OWN_TABLES: Final = f"""
CREATE TABLE IF NOT EXISTS updates ({_UPDATE_COLUMNS});
CREATE TABLE IF NOT EXISTS update_state (next_order BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS replica_chunks (
    id BIGINT PRIMARY KEY, last_update DOUBLE PRECISION NOT NULL, unique_id VARCHAR(64) NOT NULL);
CREATE TABLE IF NOT EXISTS deduplications (mjd_tai DOUBLE PRECISION NOT NULL);
CREATE TABLE IF NOT EXISTS detector_visits (visit BIGINT, detector SMALLINT, PRIMARY KEY (visit, detector));
CREATE TABLE IF NOT EXISTS schema_version (version VARCHAR(64) PRIMARY KEY);
CREATE INDEX IF NOT EXISTS "IDX_DiaObject_current" ON "DiaObject" ("pixelId") WHERE "validityEndMjdTai" IS NULL;
CREATE INDEX IF NOT EXISTS "IDX_DiaObject_pixelId" ON "DiaObject" ("pixelId");
CREATE INDEX IF NOT EXISTS "IDX_DiaForcedSource_id" ON "DiaForcedSource" ("diaForcedSourceId");
"""
_CREATION_LOCK: Final = 4_907_300_115        # any number of ours: one worker at a time creates tables


class PostgresStore(Amendments):
    """The prompt tables of many processes."""

    def __init__(self, url: str) -> None:
        self.url, packets = _parts(url)
        self._connection = self._connect(NonRetriableError)
        try:
            self._create()
            self._files = outbox.SegmentFiles(packets)
            self._name = str(self._rows("SELECT name FROM outbox_state")[0][0])
        except BaseException:
            self._connection.close()
            raise

    def objects(self, box: Box, until: float | None = None) -> np.ndarray:
        ranges = " OR ".join(f'"pixelId" BETWEEN {first} AND {last}' for first, last in htm_ranges(box).tolist())
        if until is None:
            found = self._select(DIA_OBJECT, f'WHERE ({ranges}) AND "validityEndMjdTai" IS NULL '
                                             'ORDER BY "diaObjectId"')
        else:
            found = self._select(DIA_OBJECT, f'WHERE ({ranges}) AND "validityStartMjdTai" <= %s AND '
                                             '("validityEndMjdTai" IS NULL OR "validityEndMjdTai" > %s) '
                                             'ORDER BY "diaObjectId"', [until, until])
        return take(found, box.contains(found["ra"], found["dec"]))

    def history(self, ids: np.ndarray, since: float, until: float) -> History:
        wanted = np.unique(np.asarray(ids, np.int64)).tolist()
        return History(*(self._select(table, 'WHERE "diaObjectId" = ANY(%s) AND "midpointMjdTai" >= %s AND '
                                             f'"midpointMjdTai" < %s ORDER BY "midpointMjdTai", "{key}"',
                                      [wanted, float(since), float(until)])
                         for table, key in ((DIA_SOURCE, "diaSourceId"), (DIA_FORCED_SOURCE, "diaForcedSourceId"))))

    def contains(self, visit: int, detector: int) -> bool:
        return bool(self._rows("SELECT 1 FROM detector_visits WHERE visit = %s AND detector = %s",
                               [int(visit), int(detector)]))

    def save(self, request: SaveRequest, segment: Segment) -> None:
        where = f"visit {request.visit} detector {request.detector}"
        arriving = (request.objects, request.sources, request.forced, request.ss_sources, request.summary)
        for table, rows in zip(TABLES_KEPT, arriving, strict=True):
            table.to_columns(rows[:0])                         # TypeError for rows of another table
        mjd_tai, place = request.saved_mjd_tai, self._files.append(segment.packets)
        with self._writing(where, mjd_tai):
            self._execute("INSERT INTO detector_visits VALUES (%s, %s)", [int(request.visit), int(request.detector)])
            for table, rows in zip(TABLES_KEPT, arriving, strict=True):
                self._add(table, rows, mjd_tai)
            self._touch(mjd_tai, where)
            self._insert_outbox(segment, place)

    def unsent(self) -> list[Segment]:
        found = self._rows(f"SELECT {', '.join(outbox.COLUMNS)} FROM outbox WHERE NOT sent ORDER BY sequence")
        columns = zip(*found, strict=True) if found else ((),) * len(outbox.COLUMNS)
        rows = {name: np.array(column) for name, column in zip(outbox.COLUMNS, columns, strict=True)}
        return outbox.segments_of(rows, self._files, self._name)

    def mark_sent(self, segment: Segment) -> None:
        with self._transaction(f"visit {segment.visit} detector {segment.detector} marked as sent"):
            self._execute("UPDATE outbox SET sent = TRUE WHERE visit = %s AND detector = %s AND NOT sent",
                          [int(segment.visit), int(segment.detector)])
        if self._files.older():
            self._forget_sent()

    def table(self, name: str) -> np.ndarray:
        if name not in TABLES:
            raise KeyError(f"no table {name!r}; there are {', '.join(TABLES)}")
        table = TABLES[name]
        return self._select(table, "ORDER BY number") if table in TABLES_KEPT else table.empty()

    def counts(self) -> dict[str, int]:
        """Rows of each table kept; of DIAObjects, those that are current."""
        current = {DIA_OBJECT.name: 'WHERE "validityEndMjdTai" IS NULL'}
        return {table.name: int(self._rows(f'SELECT count(*) FROM "{table.name}" {current.get(table.name, "")}')[0][0])
                for table in TABLES_KEPT}

    def objects_since(self, mjd_tai: float) -> np.ndarray:
        return self._select(DIA_OBJECT, 'WHERE "validityEndMjdTai" IS NULL AND "validityStartMjdTai" >= %s '
                                        'ORDER BY "diaObjectId"', [float(mjd_tai)])

    def objects_of(self, ids: np.ndarray) -> np.ndarray:
        return self._select(DIA_OBJECT, 'WHERE "diaObjectId" = ANY(%s) AND "validityEndMjdTai" IS NULL '
                                        'ORDER BY "diaObjectId"', [np.asarray(ids, np.int64).tolist()])

    def last_deduplication(self) -> float:
        found = self._rows("SELECT max(mjd_tai) FROM deduplications")[0][0]
        return -math.inf if found is None else float(found)

    def set_deduplicated(self, mjd_tai: float) -> None:
        with self._transaction("set_deduplicated"):
            self._execute("INSERT INTO deduplications VALUES (%s)", [float(mjd_tai)])

    def chunks(self) -> list[ReplicaChunk]:
        return [ReplicaChunk(*row) for row in
                self._rows("SELECT id, last_update, unique_id FROM replica_chunks ORDER BY id")]

    def chunk_rows(self, chunk: int, table: str) -> np.ndarray:
        return self._select(TABLES[table], "WHERE apdb_replica_chunk = %s ORDER BY number", [int(chunk)])

    def updates(self, chunk: int | None = None) -> np.ndarray:
        where, values = ("", []) if chunk is None else ("WHERE chunk = %s", [int(chunk)])
        found = self._rows(f'SELECT * FROM updates {where} ORDER BY "updateOrder"', values)
        rows = empty(UPDATE, len(found))
        for name, column in zip(UPDATE.names or (), zip(*found, strict=True), strict=False):
            rows[name] = [text.encode() for text in column] if UPDATE[name].kind == "S" else column
        return rows

    def close(self) -> None:
        self._files.close()
        with suppress(psycopg.Error, RetriableError):
            self._forget_sent()
        self._connection.close()

    # ---- opening

    def _connect(self, failure: type[NonRetriableError | RetriableError]) -> psycopg.Connection[Any]:
        try:
            return psycopg.connect(self.url, autocommit=True, application_name="alert-twin")
        except psycopg.Error as error:
            raise failure(f"store {_shown(self.url)} cannot be reached: {_line(error)}") from error

    def _create(self) -> None:
        with self._transaction("tables not created"):
            self._execute("SELECT pg_advisory_xact_lock(%s)", [_CREATION_LOCK])
            for table in TABLES_KEPT:
                self._execute(table.ddl("postgresql").replace("(\n", f"(\n    {_ADDED},\n", 1))
            self._execute(DIA_OBJECT_LAST.ddl("postgresql"))
            self._execute(_OWN_TABLES + outbox.DDL)
            self._execute("INSERT INTO outbox_state SELECT %s, 1 WHERE NOT EXISTS (SELECT 1 FROM outbox_state)",
                          [outbox.new_name()])
            self._execute("INSERT INTO update_state SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM update_state)")
            self._execute("INSERT INTO schema_version SELECT %s WHERE NOT EXISTS (SELECT 1 FROM schema_version)",
                          [VERSION])
        known = [row[0] for row in self._rows("SELECT version FROM schema_version")]
        if known != [VERSION]:
            raise NonRetriableError(f"store {_shown(self.url)} has schema version {known[0]}, this program has "
                                    f"{VERSION}")

    # ---- reading

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._reading():
            found: list[tuple[Any, ...]] = self._connection.execute(query, values).fetchall()
        return found

    def _select(self, table: Table, clause: str, values: Sequence[Any] = ()) -> np.ndarray:
        query = f'COPY (SELECT {pgcopy.selection(table)} FROM "{table.name}" {clause}) TO STDOUT (FORMAT BINARY)'
        with self._reading(), self._connection.cursor().copy(query, values) as copying:
            return pgcopy.rows_of(table, b"".join(copying))

    def _find(self, table: Table, column: str, values: np.ndarray) -> np.ndarray:
        return self._select(table, f'WHERE "{column}" = ANY(%s) ORDER BY number', [values.tolist()])

    @contextmanager
    def _reading(self) -> Iterator[None]:
        if self._connection.closed:
            self._connection = self._connect(RetriableError)
        try:
            yield
        except psycopg.Error as error:
            raise RetriableError(f"store {_shown(self.url)} not read: {_line(error)}") from error

    # ---- writing

    @contextmanager
    def _transaction(self, what: str) -> Iterator[None]:
        if self._connection.closed:
            self._connection = self._connect(RetriableError)
        try:
            with self._connection.transaction():
                yield
        except psycopg.IntegrityError as error:
            raise NonRetriableError(f"{what} is already in the store: {_line(error)}") from error
        except psycopg.Error as error:         # a deadlock, a serialization failure, a lost connection: rolled back
            raise RetriableError(f"{what} not saved: {_line(error)}") from error

    @contextmanager
    def _writing(self, what: str, mjd_tai: float) -> Iterator[None]:
        with self._transaction(what):
            self._touched = False
            yield
            if not self._touched:
                self._touch(mjd_tai, what)

    def _touch(self, mjd_tai: float, why: str) -> None:
        """Name the replica chunk anew; its row is locked from here to the commit."""
        self._touched = True
        first = touched(None, mjd_tai, why)
        self._execute("INSERT INTO replica_chunks VALUES (%s, %s, %s) ON CONFLICT (id) DO NOTHING",
                      [first.id, first.last_update_mjd_tai, ""])
        found = self._connection.execute("SELECT id, last_update, unique_id FROM replica_chunks WHERE id = %s "
                                         "FOR UPDATE", [first.id]).fetchall()
        chunk = touched(ReplicaChunk(*found[0]) if found[0][2] else None, mjd_tai, why)
        self._execute("UPDATE replica_chunks SET last_update = %s, unique_id = %s WHERE id = %s",
                      [chunk.last_update_mjd_tai, chunk.unique_id, chunk.id])

    def _execute(self, query: str, values: Sequence[Any] | None = None) -> None:
        self._connection.execute(query, values)

    def _add(self, table: Table, rows: np.ndarray, mjd_tai: float) -> None:
        pixels = (htm_index(rows["ra"], rows["dec"]) if table in _PLACED and rows.dtype == table.dtype
                  else np.zeros(len(rows), np.int64))
        added = {"pixelId": pixels, "apdb_replica_chunk": np.full(len(rows), chunk_of(mjd_tai))}
        data = pgcopy.copy_of(table, rows, added)
        if not len(rows):
            return
        if table is DIA_OBJECT:
            objects = take(rows, np.argsort(rows["diaObjectId"], kind="stable"))
            self._lock_objects(objects)
            self._close_versions(objects)
        query = f'COPY "{table.name}" ({pgcopy.names(table, tuple(added))}) FROM STDIN (FORMAT BINARY)'
        with self._connection.cursor().copy(query) as copying:
            copying.write(data)

    def _lock_objects(self, arriving: np.ndarray) -> None:
        """Wait until no other writer has these DIAObjects in hand, in the order of their ids, and hold them."""
        columns = DIA_OBJECT_LAST.columns
        values = [[None if value is None or value != value else value for value in arriving[column.name].tolist()]
                  for column in columns]
        kinds = ", ".join(f"%s::{_ARRAY_OF[column.datatype]}[]" for column in columns)
        setting = ", ".join(f'"{column.name}" = EXCLUDED."{column.name}"' for column in columns)
        names = ", ".join(f'"{column.name}"' for column in columns)
        self._execute(f'INSERT INTO "DiaObjectLast" ({names}) SELECT * FROM unnest({kinds}) ORDER BY 1 '
                      f'ON CONFLICT ("diaObjectId") DO UPDATE SET {setting}', values)

    def _close_versions(self, arriving: np.ndarray) -> None:
        """End the current versions of those DIAObjects: a statement of its own, to see what was waited for."""
        self._execute('UPDATE "DiaObject" AS old SET "validityEndMjdTai" = new.start '
                      "FROM unnest(%s::bigint[], %s::double precision[]) AS new (id, start) "
                      'WHERE old."diaObjectId" = new.id AND old."validityEndMjdTai" IS NULL',
                      [arriving["diaObjectId"].tolist(), arriving["validityStartMjdTai"].tolist()])

    def _change(self, table: Table, keys: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray]) -> None:
        kinds = {column.name: _ARRAY_OF.get(column.datatype, "text") for column in table.columns}
        arrays = ", ".join(f"%s::{kinds[name]}[]" for name in (*keys, *values))
        given = ", ".join([*(f'"key_{name}"' for name in keys), *(f'"new_{name}"' for name in values)])
        where = " AND ".join(f'old."{name}" = new."key_{name}"' for name in keys)
        setting = ", ".join(f'"{name}" = new."new_{name}"' for name in values)
        self._execute(f'UPDATE "{table.name}" AS old SET {setting} FROM unnest({arrays}) AS new ({given}) '
                      f"WHERE {where}", [array.tolist() for array in (*keys.values(), *values.values())])
        if table is DIA_OBJECT and "validityEndMjdTai" in values:
            self._execute('DELETE FROM "DiaObjectLast" WHERE "diaObjectId" = ANY(%s)', [keys["diaObjectId"].tolist()])

    def _record(self, records: np.ndarray) -> None:
        if not len(records):
            return
        after = self._connection.execute("UPDATE update_state SET next_order = next_order + %s RETURNING next_order",
                                         [len(records)]).fetchall()[0][0]
        records["updateOrder"] = after - len(records) + np.arange(len(records))
        values = [[text.decode() for text in records[name].tolist()] if UPDATE[name].kind == "S"
                  else records[name].tolist() for name in UPDATE.names or ()]
        kinds = ", ".join(f"%s::{_SQL_OF[UPDATE[name].str[1:]]}[]" for name in UPDATE.names or ())
        self._execute(f"INSERT INTO updates SELECT * FROM unnest({kinds})", values)

    def _insert_outbox(self, segment: Segment, place: outbox.Place) -> None:
        if not len(segment):
            return
        after = self._connection.execute("UPDATE outbox_state SET next_sequence = next_sequence + %s "
                                         "RETURNING next_sequence", [len(segment)]).fetchall()[0][0]
        rows = outbox.rows_of(segment, place, int(after) - len(segment))
        kinds = ", ".join(f"%s::{_OUTBOX_KINDS.get(name, 'bigint')}[]" for name in outbox.COLUMNS)
        self._execute(f"INSERT INTO outbox ({', '.join(outbox.COLUMNS)}) SELECT * FROM unnest({kinds})",
                      [rows[name].tolist() for name in outbox.COLUMNS])

    def _forget_sent(self) -> None:
        """Delete segment files of which everything was sent, and then their rows."""
        needed = {int(row[0]) for row in self._rows("SELECT DISTINCT segment FROM outbox WHERE NOT sent")}
        removed = self._files.remove_unless(needed)
        if removed:
            with self._transaction("rows of sent packets"):
                self._execute("DELETE FROM outbox WHERE segment = ANY(%s) AND sent", [removed])


_ARRAY_OF: Final = {"long": "bigint", "int": "integer", "short": "smallint", "float": "real",
                    "double": "double precision", "boolean": "boolean"}
_OUTBOX_KINDS: Final = {"sent": "boolean"}


def _parts(url: str) -> tuple[str, Path]:
    """The connection's URL and the folder of packets."""
    parts = urlsplit(url)
    options = parse_qsl(parts.query, keep_blank_values=True)
    folders = [value for name, value in options if name == "packets"]
    if len(folders) != 1 or not folders[0]:
        raise InputError(f"prompt store {_shown(url)!r}: expected postgresql://user@host:port/database?packets=FOLDER")
    if not Path(folders[0]).absolute().parent.is_dir():
        raise InputError(f"prompt store {_shown(url)!r}: there is no folder {Path(folders[0]).absolute().parent}")
    rest = urlencode([(name, value) for name, value in options if name != "packets"])
    return urlunsplit(parts._replace(query=rest)), Path(folders[0])


def _shown(url: str) -> str:
    """The URL without a password."""
    parts = urlsplit(url)
    name, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=name.partition(":")[0] + at + host))


def _line(error: psycopg.Error) -> str:
    return " ".join(str(error).split())
