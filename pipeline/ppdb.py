"""The Prompt Products Database as a folder of Parquet files: what astronomers query.

    PPDB/manifest.json                        chunks copied and promoted, and the files that are live
    PPDB/staging/CHUNK/TABLE.parquet          rows of a replica chunk as they were copied, and its update records
    PPDB/DiaSource/month=2045/1-0.parquet     promoted rows, in partitions of 30 days of midpointMjdTai
    PPDB/DiaObject/1-0.parquet                all versions, in the order of their HTM pixels
    PPDB/DiaObjectLatest/1-0.parquet          the current version of each DIAObject: what the public sees

A promotion writes new files beside the live ones and then names them in the manifest, which is replaced in one step: a
reader sees all of it or nothing, and what a crash leaves is removed by the next promotion. As in the real PPDB, rows
are inserted, validityEndMjdTai is filled from the next version, and update records are applied (paper code: dax_ppdb
and ppdb-cloud-functions).
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np

from pipeline.durable import write_whole
from pipeline.errors import InputError
from pipeline.htm import htm_index, htm_ranges
from pipeline.ports import ReplicaChunk
from schemas import updates
from schemas.exposure import Box
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, VERSION, Table, join, take

REPLICATED: Final = (DIA_OBJECT, DIA_SOURCE, DIA_FORCED_SOURCE)
LATEST: Final = "DiaObjectLatest"
MONTH_DAYS: Final = 30                       # width of a time partition (paper code: dax_apdb's Cassandra tables)
ROW_GROUP: Final = 10_240                    # rows written at a time (real: 10,000; DuckDB writes multiples of 2,048)
_FORMAT: Final = f"(FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE {ROW_GROUP})"
_KEYS: Final = {DIA_OBJECT.name: ("diaObjectId", "validityStartMjdTai"), DIA_SOURCE.name: ("diaSourceId",),
                DIA_FORCED_SOURCE.name: ("diaForcedSourceId",)}
# What each kind of update changes: table, key, columns.
_CHANGES: Final = {
    updates.REASSIGN_SOURCE: (DIA_SOURCE, "diaSourceId", ("diaObjectId",)),
    updates.REASSIGN_SOURCE_TO_SS: (DIA_SOURCE, "diaSourceId", ("diaObjectId", "ssObjectId",
                                                                "ssObjectReassocTimeMjdTai")),
    updates.WITHDRAW_SOURCE: (DIA_SOURCE, "diaSourceId", ("timeWithdrawnMjdTai",)),
    updates.WITHDRAW_FORCED: (DIA_FORCED_SOURCE, "diaForcedSourceId", ("timeWithdrawnMjdTai",)),
    updates.REASSIGN_FORCED: (DIA_FORCED_SOURCE, "diaForcedSourceId", ("diaObjectId",)),
    updates.CLOSE_OBJECT: (DIA_OBJECT, "diaObjectId", ("validityEndMjdTai",)),
    updates.COUNT_SOURCES: (DIA_OBJECT, "diaObjectId", ("nDiaSources",))}


@dataclass(frozen=True, slots=True)
class Copied:
    """A replica chunk that is here."""

    id: int
    unique_id: str
    last_update_mjd_tai: float
    copied_mjd_tai: float
    rows: dict[str, int]                     # of each table, and of "updates"
    promoted: bool = False


@dataclass(slots=True)
class _Manifest:
    schema: str = VERSION
    generation: int = 0
    chunks: list[Copied] = field(default_factory=list)
    files: dict[str, list[str]] = field(default_factory=dict)       # live files of each table


class Ppdb:
    """A PPDB folder; made where there is none if `create` says so."""

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self.folder = Path(folder)
        if create:
            self.folder.mkdir(parents=True, exist_ok=True)
        self._manifest = self._read_manifest(create)
        self._connection = duckdb.connect(config={"threads": 1, "memory_limit": "1GB"})

    # ---- copying

    @property
    def chunks(self) -> list[Copied]:
        """Chunks that were copied, in the order of their ids."""
        return list(self._manifest.chunks)

    def stage(self, chunk: ReplicaChunk, rows: dict[str, np.ndarray], records: np.ndarray, now_mjd_tai: float) -> None:
        """Keep a chunk's rows and update records as they were copied; a second time changes nothing."""
        if any(known.id == chunk.id for known in self._manifest.chunks):
            return
        final, aside = self.folder / "staging" / str(chunk.id), self.folder / "staging" / f".{chunk.id}.writing"
        for folder in (aside, final):
            shutil.rmtree(folder, ignore_errors=True)         # of a copy that was interrupted
        aside.mkdir(parents=True)
        for table in REPLICATED:
            self._write(table.to_columns(rows[table.name]), aside / f"{table.name}.parquet")
        np.save(aside / "updates.npy", records, allow_pickle=False)
        aside.rename(final)
        counts = {table.name: len(rows[table.name]) for table in REPLICATED} | {"updates": len(records)}
        self._manifest.chunks.append(Copied(chunk.id, chunk.unique_id, chunk.last_update_mjd_tai, now_mjd_tai, counts))
        self._write_manifest()

    # ---- promotion

    def promote(self) -> int:
        """Make staged chunks part of what is queried; how many they were."""
        staged = [chunk for chunk in self._manifest.chunks if not chunk.promoted]
        self._remove_strays()
        if not staged:
            return 0
        generation = self._manifest.generation + 1
        records = np.concatenate([np.load(self.folder / "staging" / str(chunk.id) / "updates.npy", allow_pickle=False)
                                  for chunk in staged])
        files = {DIA_OBJECT.name: [self._promote_objects(staged, records, generation)]}
        files[LATEST] = [self._promote_latest(files[DIA_OBJECT.name], generation)]
        for table in (DIA_SOURCE, DIA_FORCED_SOURCE):
            files[table.name] = self._promote_points(table, staged, records, generation)
        names = {chunk.id for chunk in staged}
        self._manifest = _Manifest(VERSION, generation, [
            Copied(c.id, c.unique_id, c.last_update_mjd_tai, c.copied_mjd_tai, c.rows, True) if c.id in names else c
            for c in self._manifest.chunks], files)
        self._write_manifest()
        self._remove_strays()
        return len(staged)

    def _promote_objects(self, staged: Sequence[Copied], records: np.ndarray, generation: int) -> str:
        """All versions, those that a later one follows closed at its start."""
        rows = join([self._load(DIA_OBJECT, self._live(DIA_OBJECT.name)), *self._staged_rows(DIA_OBJECT, staged)])
        rows = _last_of_each(DIA_OBJECT, rows)
        order = np.lexsort((rows["validityStartMjdTai"], rows["diaObjectId"]))
        rows = take(rows, order)
        followed = np.flatnonzero(rows["diaObjectId"][1:] == rows["diaObjectId"][:-1])
        open_ones = followed[np.isnan(rows["validityEndMjdTai"][followed])]
        rows["validityEndMjdTai"][open_ones] = rows["validityStartMjdTai"][open_ones + 1]
        _apply(DIA_OBJECT, rows, records)
        pixels = htm_index(rows["ra"], rows["dec"])
        order = np.argsort(pixels, kind="stable")
        columns = DIA_OBJECT.to_columns(take(rows, order)) | {"pixelId": pixels[order]}
        return self._put(columns, f"{DIA_OBJECT.name}/{generation}-0.parquet")

    def _promote_latest(self, versions: list[str], generation: int) -> str:
        name = f"{LATEST}/{generation}-0.parquet"
        target = self._aside(name)
        self._connection.execute(f"COPY (SELECT * FROM read_parquet(?) WHERE \"validityEndMjdTai\" IS NULL) "
                                 f"TO '{_quoted(target)}' {_FORMAT}", [[str(self.folder / one) for one in versions]])
        return self._settle(target, name)

    def _promote_points(self, table: Table, staged: Sequence[Copied], records: np.ndarray,
                        generation: int) -> list[str]:
        """New rows, each in its month; months that updates reach are written anew, the others stay as they are."""
        new = _last_of_each(table, join([table.empty(), *self._staged_rows(table, staged)]))
        kinds = [kind.encode() for kind, change in _CHANGES.items() if change[0] is table]
        touched = records[np.isin(records["updateType"], kinds)]
        months = np.union1d(_months(new["midpointMjdTai"]), _months(touched["midpointMjdTai"]))
        files = [name for name in self._manifest.files.get(table.name, []) if _month_of(name) not in set(months)]
        for month in months.tolist():
            before = [name for name in self._manifest.files.get(table.name, []) if _month_of(name) == month]
            rows = join([self._load(table, [self.folder / name for name in before]),
                         take(new, _months(new["midpointMjdTai"], distinct=False) == month)])
            rows = _last_of_each(table, rows)
            _apply(table, rows, touched)
            files.append(self._put(table.to_columns(take(rows, np.lexsort((rows["midpointMjdTai"],
                                                                          rows["diaObjectId"])))),
                                   f"{table.name}/month={month}/{generation}-0.parquet"))
        return sorted(files)

    def _staged_rows(self, table: Table, staged: Sequence[Copied]) -> list[np.ndarray]:
        return [self._load(table, [self.folder / "staging" / str(chunk.id) / f"{table.name}.parquet"])
                for chunk in staged]

    # ---- what is queried

    def table(self, name: str) -> np.ndarray:
        """All rows of DiaObject, DiaObjectLatest, DiaSource or DiaForcedSource."""
        table = {one.name: one for one in REPLICATED}.get(DIA_OBJECT.name if name == LATEST else name)
        if table is None:
            raise KeyError(f"no table {name!r}; there are {', '.join((*_KEYS, LATEST))}")
        return self._load(table, self._live(name))

    def objects(self, box: Box, until: float | None = None) -> np.ndarray:
        """Current DIAObjects in a box, or those of an earlier time."""
        ranges = " OR ".join(f'"pixelId" BETWEEN {first} AND {last}' for first, last in htm_ranges(box).tolist())
        if until is None:
            found = self._load(DIA_OBJECT, self._live(LATEST), f"WHERE {ranges}")
        else:
            found = self._load(DIA_OBJECT, self._live(DIA_OBJECT.name),
                               f'WHERE ({ranges}) AND "validityStartMjdTai" <= {float(until)!r} AND '
                               f'("validityEndMjdTai" IS NULL OR "validityEndMjdTai" > {float(until)!r})')
        return take(found, box.contains(found["ra"], found["dec"]))

    def objects_of(self, ids: np.ndarray) -> np.ndarray:
        """Current versions of DIAObjects."""
        return self._load(DIA_OBJECT, self._live(LATEST), _of(ids))

    def sources_of(self, ids: np.ndarray) -> np.ndarray:
        """DIASources of DIAObjects in time order."""
        return self._load(DIA_SOURCE, self._live(DIA_SOURCE.name),
                          _of(ids) + ' ORDER BY "midpointMjdTai", "diaSourceId"')

    def forced_of(self, ids: np.ndarray) -> np.ndarray:
        """DIAForcedSources of DIAObjects in time order."""
        return self._load(DIA_FORCED_SOURCE, self._live(DIA_FORCED_SOURCE.name),
                          _of(ids) + ' ORDER BY "midpointMjdTai", "diaForcedSourceId"')

    def close(self) -> None:
        self._connection.close()

    # ---- files

    def _live(self, name: str) -> list[Path]:
        return [self.folder / one for one in self._manifest.files.get(name, [])]

    def _load(self, table: Table, files: list[Path], clause: str = "") -> np.ndarray:
        if not files:
            return table.empty()
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        try:
            found = self._connection.execute(f"SELECT {names} FROM read_parquet(?, hive_partitioning = false) {clause}",
                                             [[str(one) for one in files]]).fetchnumpy()
        except duckdb.Error as error:
            raise InputError(f"PPDB {self.folder}: {table.name} cannot be read: {error}") from error
        return table.from_columns(found)

    def _put(self, columns: dict[str, np.ndarray], name: str) -> str:
        target = self._aside(name)
        self._write(columns, target)
        return self._settle(target, name)

    def _write(self, columns: dict[str, np.ndarray], target: Path) -> None:
        self._connection.register("rows", columns)
        try:
            self._connection.execute(f"COPY (SELECT * FROM rows) TO '{_quoted(target)}' {_FORMAT}")
        finally:
            self._connection.unregister("rows")

    def _aside(self, name: str) -> Path:
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.with_name(f".{target.name}.writing")

    def _settle(self, aside: Path, name: str) -> str:
        os.replace(aside, self.folder / name)
        return name

    def _remove_strays(self) -> None:
        """Remove files that the manifest does not name: of promotions that were interrupted, or are over."""
        live = {self.folder / one for files in self._manifest.files.values() for one in files}
        for name in (*_KEYS, LATEST):
            for path in sorted((self.folder / name).rglob("*")):
                if path.is_file() and path not in live:
                    path.unlink()
        known = {str(chunk.id) for chunk in self._manifest.chunks if not chunk.promoted}
        for path in (self.folder / "staging").glob("*"):
            if path.name not in known:
                shutil.rmtree(path, ignore_errors=True)

    def _read_manifest(self, create: bool) -> _Manifest:
        path = self.folder / "manifest.json"
        if not path.is_file():
            if create:
                return _Manifest()
            raise InputError(f"PPDB {self.folder}: there is no manifest.json; `alert-twin replicate` makes one")
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            manifest = _Manifest(found["schema"], found["generation"], [Copied(**one) for one in found["chunks"]],
                                 found["files"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a manifest of a PPDB: {error}") from error
        if manifest.schema != VERSION:
            raise InputError(f"{path}: schema {manifest.schema}, this program has {VERSION}")
        return manifest

    def _write_manifest(self) -> None:
        content = {"schema": self._manifest.schema, "generation": self._manifest.generation,
                   "chunks": [{name: getattr(chunk, name) for name in Copied.__slots__}
                              for chunk in self._manifest.chunks], "files": self._manifest.files}
        write_whole(self.folder / "manifest.json", json.dumps(content, indent=1).encode(),
                    self.folder / ".manifest.json.writing")


def _apply(table: Table, rows: np.ndarray, records: np.ndarray) -> None:
    """Apply update records to rows, in their order; DIAObjects are in order of id and start."""
    records = records[np.argsort(records["updateOrder"], kind="stable")]
    for kind, (changed, key, columns) in _CHANGES.items():
        mine = records[records["updateType"] == kind.encode()]
        if changed is not table or not len(mine):
            continue
        if table is DIA_OBJECT:
            place = _current_then(rows, mine)
        else:
            order = np.argsort(rows[key], kind="stable")
            near = order[np.minimum(np.searchsorted(rows[key], mine[key], sorter=order), len(rows) - 1)]
            place = np.where(rows[key][near] == mine[key], near, -1)      # a row of a month not loaded here: -1
        hit = place >= 0
        for column in columns:
            rows[column][place[hit]] = mine[column][hit]      # of several for one row the last counts


def _current_then(rows: np.ndarray, records: np.ndarray) -> np.ndarray:
    """The version of each record's DIAObject that was current at the time of the update; -1 without one."""
    first = np.searchsorted(rows["diaObjectId"], records["diaObjectId"], "left").tolist()
    end = np.searchsorted(rows["diaObjectId"], records["diaObjectId"], "right").tolist()
    starts = rows["validityStartMjdTai"]
    found = [low + int(np.searchsorted(starts[low:high], time, "right")) - 1
             for low, high, time in zip(first, end, records["updateTimeMjdTai"].tolist(), strict=True)]
    return np.array([place if place >= low else -1 for place, low in zip(found, first, strict=True)], np.int64)


def _last_of_each(table: Table, rows: np.ndarray) -> np.ndarray:
    """One row of each key, the last: a chunk copied again replaces what it brought before."""
    keys = [rows[name] for name in _KEYS[table.name]]
    order = np.lexsort((np.arange(len(rows)), *keys))
    same = np.ones(max(len(rows) - 1, 0), bool)
    for key in keys:
        same &= key[order][1:] == key[order][:-1]
    return take(rows, np.sort(order[~np.append(same, False)])) if len(rows) else rows


def _months(mjd_tai: np.ndarray, *, distinct: bool = True) -> np.ndarray:
    found = np.floor(np.nan_to_num(np.asarray(mjd_tai)) / MONTH_DAYS).astype(np.int64)
    return np.unique(found) if distinct else found


def _month_of(name: str) -> int:
    return int(name.split("month=")[1].split("/")[0])


def _of(ids: np.ndarray) -> str:
    return f'WHERE "diaObjectId" IN ({", ".join(map(str, np.asarray(ids, np.int64).tolist())) or "NULL"})'


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
