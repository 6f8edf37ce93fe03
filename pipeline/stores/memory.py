"""A prompt store in memory: shipped for tests, and for detectors of catalogue fidelity."""

from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import NonRetriableError
from pipeline.ports import History, SaveRequest, Segment
from pipeline.stores.outbox import new_name
from schemas.exposure import Box
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE, SUMMARY, TABLES, Table, copy, join, take


class MemoryStore:
    """Rows in growing arrays, found by object through one index per table."""

    def __init__(self) -> None:
        self._tables = {table.name: _Rows(table) for table in (DIA_OBJECT, DIA_SOURCE, DIA_FORCED_SOURCE, SS_SOURCE,
                                                               SUMMARY)}
        self._latest: dict[int, int] = {}                  # diaObjectId to its newest row
        self._by_object: dict[str, dict[int, list[int]]] = {DIA_SOURCE.name: {}, DIA_FORCED_SOURCE.name: {}}
        self._source_ids: set[int] = set()
        self._visits: set[tuple[int, int]] = set()
        self._outbox: dict[tuple[int, int], Segment] = {}
        self._name, self._next_sequence = new_name(), 1

    def objects(self, box: Box, until: float | None = None) -> np.ndarray:
        rows = self._tables[DIA_OBJECT.name].rows
        inside = box.contains(rows["ra"], rows["dec"])
        end = rows["validityEndMjdTai"]
        if until is None:
            return take(rows, inside & np.isnan(end))
        return take(rows, inside & (rows["validityStartMjdTai"] <= until) & ~(end <= until))

    def history(self, ids: np.ndarray, since: float, until: float) -> History:
        return History(*(self._earlier(table, ids, since, until) for table in (DIA_SOURCE, DIA_FORCED_SOURCE)))

    def contains(self, visit: int, detector: int) -> bool:
        return (int(visit), int(detector)) in self._visits

    def save(self, request: SaveRequest, segment: Segment) -> None:
        key = (int(request.visit), int(request.detector))
        if key in self._visits:
            raise NonRetriableError(f"visit {key[0]} detector {key[1]} is already in the store")
        self._check(request)
        self._save_objects(request.objects)
        for table, rows in ((DIA_SOURCE, request.sources), (DIA_FORCED_SOURCE, request.forced)):
            first = self._tables[table.name].append(rows)
            index = self._by_object[table.name]
            for position, owner in enumerate(rows["diaObjectId"].tolist(), first):
                if owner:
                    index.setdefault(owner, []).append(position)
        self._tables[SS_SOURCE.name].append(request.ss_sources)
        self._tables[SUMMARY.name].append(request.summary)
        self._source_ids.update(request.sources["diaSourceId"].tolist())
        self._visits.add(key)
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

    def close(self) -> None:
        pass

    def _check(self, request: SaveRequest) -> None:
        for table, rows in ((DIA_OBJECT, request.objects), (DIA_SOURCE, request.sources),
                            (DIA_FORCED_SOURCE, request.forced), (SS_SOURCE, request.ss_sources),
                            (SUMMARY, request.summary)):
            if rows.dtype != table.dtype:
                raise TypeError(f"{table.name} rows expected, got columns {rows.dtype.names}")
        for rows, column in ((request.objects, "diaObjectId"), (request.sources, "diaSourceId")):
            if len(np.unique(rows[column])) != len(rows):
                raise NonRetriableError(f"{column} occurs twice in visit {request.visit} detector {request.detector}")
        versions = self._tables[DIA_OBJECT.name].rows["validityStartMjdTai"]
        for owner, start in zip(request.objects["diaObjectId"].tolist(),
                                request.objects["validityStartMjdTai"].tolist(), strict=True):
            if owner in self._latest and versions[self._latest[owner]] == start:
                raise NonRetriableError(f"DiaObject {owner} of MJD {start} is already in the store")
        if not self._source_ids.isdisjoint(request.sources["diaSourceId"].tolist()):
            raise NonRetriableError(f"a diaSourceId of visit {request.visit} detector {request.detector} is already "
                                    "in the store")

    def _save_objects(self, objects: np.ndarray) -> None:
        table = self._tables[DIA_OBJECT.name]
        first = table.append(objects)
        rows = table.rows
        for position, (owner, start) in enumerate(zip(objects["diaObjectId"].tolist(),
                                                      objects["validityStartMjdTai"].tolist(), strict=True), first):
            before = self._latest.get(owner)
            if before is not None:
                rows["validityEndMjdTai"][before] = start
            self._latest[owner] = position

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
    """Rows that grow by doubling."""

    table: Table
    count: int = 0
    space: np.ndarray | None = None

    @property
    def rows(self) -> np.ndarray:
        return self.table.empty() if self.space is None else self.space[:self.count]

    def append(self, rows: np.ndarray) -> int:
        """Add rows; the position of the first."""
        first, self.count = self.count, self.count + len(rows)
        if self.space is None or self.count > len(self.space):
            spare = np.zeros(max(self.count, 256), self.table.dtype)
            self.space = join([self.rows_before(first), rows, spare])
        else:
            void = np.dtype((np.void, self.table.dtype.itemsize))
            self.space.view(void)[first:self.count] = np.ascontiguousarray(rows).view(void)
        return first

    def rows_before(self, count: int) -> np.ndarray:
        return self.table.empty() if self.space is None else self.space[:count]
