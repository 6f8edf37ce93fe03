"""A prompt store in memory: shipped for tests, and for detectors of catalogue fidelity."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.errors import NonRetriableError
from pipeline.ports import History, ReplicaChunk, SaveRequest, Segment
from pipeline.stores.amendments import Amendments
from pipeline.stores.cells import Cells, cells
from pipeline.stores.chunks import touched
from pipeline.stores.outbox import new_name
from schemas.exposure import Box
from schemas.measures import empty
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE, SUMMARY, TABLES, Table, copy, take
from schemas.updates import UPDATE, chunk_of


class MemoryStore(Amendments):
    """Rows in growing arrays, found by object through one index per table, and newest DiaObjects by place."""

    def __init__(self) -> None:
        self._tables = {table.name: _Rows(table) for table in (DIA_OBJECT, DIA_SOURCE, DIA_FORCED_SOURCE, SS_SOURCE,
                                                               SUMMARY)}
        self._latest: dict[int, int] = {}                  # diaObjectId to its newest row
        self._places = Cells()                             # of newest rows
        self._by_object: dict[str, dict[int, list[int]]] = {DIA_SOURCE.name: {}, DIA_FORCED_SOURCE.name: {}}
        self._source_ids: set[int] = set()
        self._visits: set[tuple[int, int]] = set()
        self._forced_visits: set[tuple[int, int]] = set()  # visit and detector of forced points
        self._outbox: dict[tuple[int, int], Segment] = {}
        self._name, self._next_sequence = new_name(), 1
        self._chunks: dict[int, ReplicaChunk] = {}
        self._updates = empty(UPDATE)
        self._deduplicated = -math.inf

    def objects(self, box: Box, until: float | None = None) -> np.ndarray:
        rows = self._tables[DIA_OBJECT.name].rows
        if until is None:
            near = self._places.near(box)
            inside = box.contains(rows["ra"][near], rows["dec"][near])
            return take(rows, near[inside & np.isnan(rows["validityEndMjdTai"][near])])
        inside = box.contains(rows["ra"], rows["dec"])
        return take(rows, inside & (rows["validityStartMjdTai"] <= until) & ~(rows["validityEndMjdTai"] <= until))

    def history(self, ids: np.ndarray, since: float, until: float) -> History:
        return History(*(self._earlier(table, ids, since, until) for table in (DIA_SOURCE, DIA_FORCED_SOURCE)))

    def contains(self, visit: int, detector: int) -> bool:
        return (int(visit), int(detector)) in self._visits

    def save(self, request: SaveRequest, segment: Segment) -> None:
        key = (int(request.visit), int(request.detector))
        if key in self._visits:
            raise NonRetriableError(f"visit {key[0]} detector {key[1]} is already in the store")
        self._check(request)
        chunk = chunk_of(request.saved_mjd_tai)
        self._save_objects(request.objects, chunk)
        self._save_points(DIA_SOURCE, request.sources, chunk)
        self._save_points(DIA_FORCED_SOURCE, request.forced, chunk)
        self._tables[SS_SOURCE.name].append(request.ss_sources, chunk)
        self._tables[SUMMARY.name].append(request.summary, chunk)
        self._source_ids.update(request.sources["diaSourceId"].tolist())
        self._visits.add(key)
        self._touch(request.saved_mjd_tai, f"{key[0]} {key[1]}")
        if len(segment):
            first, self._next_sequence = self._next_sequence, self._next_sequence + len(segment)
            self._outbox[key] = replace(segment, sequences=np.arange(first, self._next_sequence), outbox=self._name)

    def unsent(self) -> list[Segment]:
        return list(self._outbox.values())

    def mark_sent(self, segment: Segment) -> None:
        self._outbox.pop((int(segment.visit), int(segment.detector)), None)

    def table(self, name: str) -> np.ndarray:
        if name in self._tables:
            return copy(self._tables[name].rows)
        if name in TABLES:
            return TABLES[name].empty()
        raise KeyError(f"no table {name!r}; there are {', '.join(TABLES)}")

    def objects_since(self, mjd_tai: float) -> np.ndarray:
        rows = self._tables[DIA_OBJECT.name].rows
        return take(rows, np.isnan(rows["validityEndMjdTai"]) & (rows["validityStartMjdTai"] >= mjd_tai))

    def objects_of(self, ids: np.ndarray) -> np.ndarray:
        rows = self._tables[DIA_OBJECT.name].rows
        newest = [self._latest[owner] for owner in np.unique(ids).tolist() if owner in self._latest]
        found = take(rows, np.array(newest, np.intp))
        return take(found, np.isnan(found["validityEndMjdTai"]))

    def last_deduplication(self) -> float:
        return self._deduplicated

    def set_deduplicated(self, mjd_tai: float) -> None:
        self._deduplicated = float(mjd_tai)

    def chunks(self) -> list[ReplicaChunk]:
        return [self._chunks[chunk] for chunk in sorted(self._chunks)]

    def chunk_rows(self, chunk: int, table: str) -> np.ndarray:
        return self._tables[table].of_chunk(chunk)

    def updates(self, chunk: int | None = None) -> np.ndarray:
        return copy(self._updates) if chunk is None else take(self._updates, self._updates["chunk"] == chunk)

    def close(self) -> None:
        pass

    @contextmanager
    def _writing(self, what: str, mjd_tai: float) -> Iterator[None]:
        yield
        self._touch(mjd_tai, what)

    def _touch(self, mjd_tai: float, why: str) -> None:
        chunk = chunk_of(mjd_tai)
        self._chunks[chunk] = touched(self._chunks.get(chunk), mjd_tai, why)

    def _find(self, table: Table, column: str, values: np.ndarray) -> np.ndarray:
        rows = self._tables[table.name].rows
        if column == "diaObjectId":
            index = self._by_object[table.name]
            return take(rows, np.array([k for owner in values.tolist() for k in index.get(owner, ())], np.intp))
        return take(rows, np.isin(rows[column], values))

    def _change(self, table: Table, keys: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray]) -> None:
        rows = self._tables[table.name].rows
        wanted = list(zip(*(column.tolist() for column in keys.values()), strict=True))
        place = {key: k for k, key in enumerate(wanted)}
        first, column = next(iter(keys.items()))
        for position in np.flatnonzero(np.isin(rows[first], column)).tolist():
            k = place.get(tuple(rows[name][position].item() for name in keys))
            if k is None:
                continue
            if "diaObjectId" in values:
                self._move(table, position, int(rows["diaObjectId"][position]), int(values["diaObjectId"][k]))
            for name, array in values.items():
                rows[name][position] = array[k]

    def _move(self, table: Table, position: int, before: int, after: int) -> None:
        index = self._by_object[table.name]
        if before:
            index[before].remove(position)
        if after:
            index.setdefault(after, []).append(position)

    def _record(self, records: np.ndarray) -> None:
        records["updateOrder"] = len(self._updates) + np.arange(len(records))
        self._updates = np.concatenate([self._updates, records])

    def _add(self, table: Table, rows: np.ndarray, mjd_tai: float) -> None:
        if table is DIA_OBJECT:
            self._check_objects(rows, "save_objects")
            self._save_objects(rows, chunk_of(mjd_tai))
        else:
            self._check_forced(rows, "save_forced")
            self._save_points(table, rows, chunk_of(mjd_tai))

    def _save_points(self, table: Table, rows: np.ndarray, chunk: int) -> None:
        first = self._tables[table.name].append(rows, chunk)
        index = self._by_object[table.name]
        if table is DIA_FORCED_SOURCE:
            self._forced_visits.update(zip(rows["visit"].tolist(), rows["detector"].tolist(), strict=True))
        for position, owner in enumerate(rows["diaObjectId"].tolist(), first):
            if owner:
                index.setdefault(owner, []).append(position)

    def _check(self, request: SaveRequest) -> None:
        where = f"visit {request.visit} detector {request.detector}"
        for table, rows in ((SS_SOURCE, request.ss_sources), (SUMMARY, request.summary)):
            _check_rows(table, rows)
        self._check_objects(request.objects, where)
        self._check_forced(request.forced, where)
        _check_rows(DIA_SOURCE, request.sources)
        _check_distinct(request.sources, ("diaSourceId",), where)
        if not self._source_ids.isdisjoint(request.sources["diaSourceId"].tolist()):
            raise NonRetriableError(f"a diaSourceId of {where} is already in the store")

    def _check_objects(self, objects: np.ndarray, where: str) -> None:
        _check_rows(DIA_OBJECT, objects)
        _check_distinct(objects, ("diaObjectId",), where)
        versions = self._tables[DIA_OBJECT.name].rows["validityStartMjdTai"]
        for owner, start in zip(objects["diaObjectId"].tolist(), objects["validityStartMjdTai"].tolist(), strict=True):
            if owner in self._latest and versions[self._latest[owner]] == start:
                raise NonRetriableError(f"{where}: DiaObject {owner} of MJD {start} is already in the store")

    def _check_forced(self, forced: np.ndarray, where: str) -> None:
        _check_rows(DIA_FORCED_SOURCE, forced)
        _check_distinct(forced, ("diaObjectId", "visit", "detector"), where)
        rows = self._tables[DIA_FORCED_SOURCE.name].rows
        index = self._by_object[DIA_FORCED_SOURCE.name]
        if self._forced_visits.isdisjoint(zip(forced["visit"].tolist(), forced["detector"].tolist(), strict=True)):
            return                                         # as when a visit is saved
        for owner, visit, detector in zip(forced["diaObjectId"].tolist(), forced["visit"].tolist(),
                                          forced["detector"].tolist(), strict=True):
            before = index.get(owner, [])
            if ((rows["visit"][before] == visit) & (rows["detector"][before] == detector)).any():
                raise NonRetriableError(f"{where}: a DiaForcedSource of DiaObject {owner}, visit {visit}, detector "
                                        f"{detector} is already in the store")

    def _save_objects(self, objects: np.ndarray, chunk: int) -> None:
        table = self._tables[DIA_OBJECT.name]
        position = table.append(objects, chunk)
        owners, end = objects["diaObjectId"].tolist(), table.rows["validityEndMjdTai"]
        earlier = [(k, self._latest[owner]) for k, owner in enumerate(owners) if owner in self._latest]
        if earlier:
            before = np.array([row for _, row in earlier], np.intp)
            start = objects["validityStartMjdTai"][[k for k, _ in earlier]]
            end[before] = np.where(np.isnan(end[before]), start, end[before])
            places = cells(table.rows["ra"][before], table.rows["dec"][before])
            for cell, row in zip(places.tolist(), before.tolist(), strict=True):
                self._places.remove(cell, row)
        for row, (owner, cell) in enumerate(zip(owners, cells(objects["ra"], objects["dec"]).tolist(), strict=True),
                                            position):
            self._latest[owner] = row
            self._places.add(cell, row)

    def _earlier(self, table: Table, ids: np.ndarray, since: float, until: float) -> np.ndarray:
        index, rows = self._by_object[table.name], self._tables[table.name].rows
        found = [position for owner in np.unique(ids).tolist() for position in index.get(owner, ())]
        positions = np.array(found, np.intp)
        time = rows["midpointMjdTai"][positions]
        keep = (time >= since) & (time < until)
        positions, time = positions[keep], time[keep]
        return take(rows, positions[np.argsort(time, kind="stable")])


@dataclass(slots=True)
class _Rows:
    """Rows that grow by doubling; what is not yet used of the space is never touched, so it takes no memory."""

    table: Table
    count: int = 0
    space: np.ndarray | None = None
    saved: dict[int, list[tuple[int, int]]] = field(default_factory=dict)     # chunk to first and last + 1 of its rows

    @property
    def rows(self) -> np.ndarray:
        return self.table.empty() if self.space is None else self.space[:self.count]

    def of_chunk(self, chunk: int) -> np.ndarray:
        """Rows saved in a replica chunk."""
        spans = [np.arange(first, end) for first, end in self.saved.get(chunk, ())]
        return take(self.rows, np.concatenate(spans)) if spans else self.table.empty()

    def append(self, rows: np.ndarray, chunk: int) -> int:
        """Add rows; the position of the first."""
        first, self.count = self.count, self.count + len(rows)
        self.saved.setdefault(chunk, []).append((first, self.count))
        void = np.dtype((np.void, self.table.dtype.itemsize))
        if self.space is None or self.count > len(self.space):
            space = np.empty(max(2 * self.count, 256), self.table.dtype)
            if self.space is not None:
                space.view(void)[:first] = self.space.view(void)[:first]
            self.space = space
        self.space.view(void)[first:self.count] = np.ascontiguousarray(rows).view(void)
        return first


def _check_rows(table: Table, rows: np.ndarray) -> None:
    if rows.dtype != table.dtype:
        raise TypeError(f"{table.name} rows expected, got columns {rows.dtype.names}")


def _check_distinct(rows: np.ndarray, columns: tuple[str, ...], where: str) -> None:
    keys = list(zip(*(rows[name].tolist() for name in columns), strict=True))
    if len(set(keys)) != len(keys):
        raise NonRetriableError(f"{where}: {', '.join(columns)} occurs twice")
