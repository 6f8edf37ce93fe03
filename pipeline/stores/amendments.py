"""The morning's changes to the prompt tables, written once for all stores over a few primitives of each.

Order of the records as in the real APDB (paper code: dax_apdb, apdbSql): the rows' own first, then the counts that
follow from them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from pipeline.errors import NonRetriableError
from pipeline.objects import slots
from schemas import updates
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, Table, take


class Amendments(ABC):
    """What the morning changes; see `pipeline.ports.Amendable`."""

    @abstractmethod
    @contextmanager
    def _writing(self, what: str, mjd_tai: float) -> Iterator[None]:
        """One transaction that belongs to the replica chunk of its time."""

    @abstractmethod
    def _find(self, table: Table, column: str, values: np.ndarray) -> np.ndarray:
        """Rows whose column has one of the values."""

    @abstractmethod
    def objects_of(self, ids: np.ndarray) -> np.ndarray:
        """Current versions of those DiaObjects that have one."""

    @abstractmethod
    def _change(self, table: Table, keys: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray]) -> None:
        """Set columns of the rows with those keys."""

    @abstractmethod
    def _record(self, records: np.ndarray) -> None:
        """Add UPDATE records."""

    @abstractmethod
    def _add(self, table: Table, rows: np.ndarray, mjd_tai: float) -> None:
        """Add rows; a DiaObject closes the version before it."""

    def sources_of(self, ids: np.ndarray, until: float | None = None) -> np.ndarray:
        return _in_time(self._find(DIA_SOURCE, "diaObjectId", _distinct(ids)), "diaSourceId", until)

    def forced_of(self, ids: np.ndarray, until: float | None = None) -> np.ndarray:
        return _in_time(self._find(DIA_FORCED_SOURCE, "diaObjectId", _distinct(ids)), "diaForcedSourceId", until)

    def save_objects(self, objects: np.ndarray, mjd_tai: float) -> None:
        with self._writing(f"{len(objects)} DiaObjects", mjd_tai):
            self._add(DIA_OBJECT, objects, mjd_tai)

    def save_forced(self, forced: np.ndarray, mjd_tai: float) -> None:
        with self._writing(f"{len(forced)} DiaForcedSources", mjd_tai):
            self._add(DIA_FORCED_SOURCE, forced, mjd_tai)

    def set_validity_end(self, ids: np.ndarray, mjd_tai: float) -> int:
        with self._writing("set_validity_end", mjd_tai):
            current = self.objects_of(ids)
            early = current["validityStartMjdTai"] > mjd_tai
            if early.any():
                first = take(current, early)[0]
                raise NonRetriableError(f"DiaObject {first['diaObjectId']} is valid from MJD "
                                        f"{first['validityStartMjdTai']}, its end cannot be {mjd_tai}")
            self._change_current(current, "validityEndMjdTai", np.full(len(current), mjd_tai))
            self._record(updates.updates(updates.CLOSE_OBJECT, current, mjd_tai, validityEndMjdTai=mjd_tai))
        return len(current)

    def update_n_dia_sources(self, ids: np.ndarray, counts: np.ndarray, mjd_tai: float) -> None:
        ids, counts = _pairs("DiaObject", ids, counts)
        with self._writing("update_n_dia_sources", mjd_tai):
            self._set_counts(self._current(ids), ids, counts, mjd_tai)

    def reassign_sources(self, dia_source_ids: np.ndarray, to_object_ids: np.ndarray, mjd_tai: float) -> None:
        ids, owners = _pairs("DiaSource", dia_source_ids, to_object_ids)
        with self._writing("reassign_sources", mjd_tai):
            self._current(np.unique(owners))
            sources = self._all(DIA_SOURCE, "diaSourceId", ids)
            self._change(DIA_SOURCE, {"diaSourceId": ids}, {"diaObjectId": owners})
            self._record(updates.updates(updates.REASSIGN_SOURCE, sources, mjd_tai, diaObjectId=owners))
            self._recount(np.concatenate([owners, sources["diaObjectId"]]), np.repeat([1, -1], len(ids)), mjd_tai)

    def reassign_sources_to_ss(self, dia_source_ids: np.ndarray, ss_object_ids: np.ndarray, mjd_tai: float) -> None:
        ids, owners = _pairs("DiaSource", dia_source_ids, ss_object_ids)
        with self._writing("reassign_sources_to_ss", mjd_tai):
            sources = self._all(DIA_SOURCE, "diaSourceId", ids)
            self._change(DIA_SOURCE, {"diaSourceId": ids},
                         {"diaObjectId": np.zeros(len(ids), np.int64), "ssObjectId": owners,
                          "ssObjectReassocTimeMjdTai": np.full(len(ids), mjd_tai)})
            self._record(updates.updates(updates.REASSIGN_SOURCE_TO_SS, sources, mjd_tai, ssObjectId=owners,
                                         ssObjectReassocTimeMjdTai=mjd_tai))
            self._recount(sources["diaObjectId"], np.full(len(ids), -1), mjd_tai)

    def reassign_forced(self, dia_forced_source_ids: np.ndarray, to_object_ids: np.ndarray,
                        mjd_tai: float) -> np.ndarray:
        ids, owners = _pairs("DiaForcedSource", dia_forced_source_ids, to_object_ids)
        with self._writing("reassign_forced", mjd_tai):
            self._current(np.unique(owners))
            forced = self._all(DIA_FORCED_SOURCE, "diaForcedSourceId", ids)
            moves = _free(forced, owners, self._find(DIA_FORCED_SOURCE, "diaObjectId", np.unique(owners)))
            self._change(DIA_FORCED_SOURCE, {"diaForcedSourceId": ids[moves]}, {"diaObjectId": owners[moves]})
            self._record(updates.updates(updates.REASSIGN_FORCED, take(forced, moves), mjd_tai,
                                         diaObjectId=owners[moves]))
        return np.asarray(ids[~moves])

    def withdraw_sources(self, dia_source_ids: np.ndarray, mjd_tai: float) -> None:
        self._withdraw(DIA_SOURCE, "diaSourceId", updates.WITHDRAW_SOURCE, dia_source_ids, mjd_tai)

    def withdraw_forced(self, dia_forced_source_ids: np.ndarray, mjd_tai: float) -> None:
        self._withdraw(DIA_FORCED_SOURCE, "diaForcedSourceId", updates.WITHDRAW_FORCED, dia_forced_source_ids, mjd_tai)

    def _withdraw(self, table: Table, key: str, kind: str, ids: np.ndarray, mjd_tai: float) -> None:
        with self._writing(kind, mjd_tai):
            rows = self._all(table, key, _distinct(ids))
            rows = take(rows, np.isnan(rows["timeWithdrawnMjdTai"]))
            self._change(table, {key: rows[key]}, {"timeWithdrawnMjdTai": np.full(len(rows), mjd_tai)})
            self._record(updates.updates(kind, rows, mjd_tai, timeWithdrawnMjdTai=mjd_tai))

    def _recount(self, ids: np.ndarray, steps: np.ndarray, mjd_tai: float) -> None:
        """Add to nDiaSources of those DiaObjects that are current."""
        distinct, place = np.unique(ids, return_inverse=True)
        change = np.bincount(place, steps, len(distinct)).astype(np.int64)
        current = self.objects_of(distinct[(change != 0) & (distinct != 0)])
        counts = current["nDiaSources"] + change[np.searchsorted(distinct, current["diaObjectId"])]
        self._set_counts(current, current["diaObjectId"], counts, mjd_tai)

    def _set_counts(self, current: np.ndarray, ids: np.ndarray, counts: np.ndarray, mjd_tai: float) -> None:
        counts = counts[slots(current["diaObjectId"], ids)].astype(np.int32)
        self._change_current(current, "nDiaSources", counts)
        self._record(updates.updates(updates.COUNT_SOURCES, current, mjd_tai, nDiaSources=counts))

    def _change_current(self, current: np.ndarray, column: str, values: np.ndarray) -> None:
        self._change(DIA_OBJECT, {name: current[name] for name in ("diaObjectId", "validityStartMjdTai")},
                     {column: values})

    def _current(self, ids: np.ndarray) -> np.ndarray:
        """Current versions, all of them."""
        found = self.objects_of(ids)
        _complete("current DiaObject", ids, found["diaObjectId"])
        return found

    def _all(self, table: Table, key: str, ids: np.ndarray) -> np.ndarray:
        """Rows of distinct ids, in their order, all of them."""
        found = self._find(table, key, ids)
        _complete(table.name, ids, found[key])
        return take(found, slots(ids, found[key]))


def _distinct(ids: np.ndarray) -> np.ndarray:
    return np.unique(np.asarray(ids, np.int64))


def _pairs(what: str, ids: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ids, values = np.asarray(ids, np.int64), np.asarray(values, np.int64)
    if ids.shape != values.shape or ids.ndim != 1:
        raise ValueError(f"one value for each {what} expected, got shapes {ids.shape} and {values.shape}")
    if len(np.unique(ids)) != len(ids):
        raise ValueError(f"distinct {what} ids expected, got {len(ids) - len(np.unique(ids))} twice")
    return ids, values


def _complete(what: str, ids: np.ndarray, found: np.ndarray) -> None:
    missing = np.setdiff1d(ids, found)
    if len(missing):
        shown = ", ".join(map(str, missing[:3].tolist())) + (", ..." if len(missing) > 3 else "")
        raise NonRetriableError(f"no {what} {shown} in the store ({len(missing)} of {len(np.unique(ids))} ids)")


def _in_time(rows: np.ndarray, key: str, until: float | None) -> np.ndarray:
    if until is not None:
        rows = take(rows, rows["midpointMjdTai"] < until)
    return take(rows, np.lexsort((rows[key], rows["midpointMjdTai"])))


def _free(forced: np.ndarray, owners: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Which points may go to their owners: the first of each (owner, visit, detector) that the owner does not have."""
    taken = set(zip(present["diaObjectId"].tolist(), present["visit"].tolist(), present["detector"].tolist(),
                    strict=True))
    moves = np.zeros(len(forced), bool)
    for k, key in enumerate(zip(owners.tolist(), forced["visit"].tolist(), forced["detector"].tolist(), strict=True)):
        moves[k] = key not in taken
        taken.add(key)
    return moves
