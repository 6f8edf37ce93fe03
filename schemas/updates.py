"""What changes in the prompt tables after a save, as records: the morning's work, and what the PPDB applies.

The kinds are those of the real APDB (paper code: dax_apdb 30.2026.4100, apdbUpdateRecord), and one of ours for forced
points, which the real system does not reassign. Columns that a kind does not use hold their null.
"""

from typing import Final

import numpy as np

from schemas.measures import empty

REASSIGN_SOURCE: Final = "reassign_diasource_to_diaobject"
REASSIGN_SOURCE_TO_SS: Final = "reassign_diasource_to_ssobject"
WITHDRAW_SOURCE: Final = "withdraw_diasource"
WITHDRAW_FORCED: Final = "withdraw_diaforcedsource"
CLOSE_OBJECT: Final = "close_diaobject_validity"
COUNT_SOURCES: Final = "update_n_dia_sources"
REASSIGN_FORCED: Final = "reassign_diaforcedsource_to_diaobject"    # ours

UPDATE: Final = np.dtype([
    ("chunk", "i8"),                            # replica chunk, seconds TAI since 1970
    ("updateOrder", "i8"),                      # of all updates of a store, in the order of their commits
    ("updateTimeMjdTai", "f8"), ("updateType", "S40"),
    ("diaSourceId", "i8"),                      # of sources
    ("diaForcedSourceId", "i8"), ("visit", "i8"), ("detector", "i4"),    # of forced points
    ("diaObjectId", "i8"),                      # the object of an object's update, or the new owner of a source
    ("ssObjectId", "i8"),                       # the new owner of a source
    ("ra", "f8"), ("dec", "f8"), ("midpointMjdTai", "f8"),               # of the row, as the APDB's partitions need it
    ("nDiaSources", "i4"), ("validityEndMjdTai", "f8"), ("timeWithdrawnMjdTai", "f8"),
    ("ssObjectReassocTimeMjdTai", "f8")])

CHUNK_SECONDS: Final = 600                      # width of a replica chunk (paper code: dax_apdb)
_UNIX_EPOCH_MJD: Final = 40587.0


def chunk_of(mjd_tai: float) -> int:
    """The replica chunk of a time: the start of its 600 s, in seconds TAI since 1970; 0 where there is no time."""
    if not np.isfinite(mjd_tai):
        return 0
    return int((mjd_tai - _UNIX_EPOCH_MJD) * 86400.0 // CHUNK_SECONDS) * CHUNK_SECONDS


def chunk_start_mjd_tai(chunk: int) -> float:
    """When a replica chunk begins."""
    return chunk / 86400.0 + _UNIX_EPOCH_MJD


def updates(kind: str, rows: np.ndarray, mjd_tai: float, **payload: np.ndarray | float | int) -> np.ndarray:
    """UPDATE records of one kind for rows of a prompt table, with the columns of `payload` as they shall be."""
    found = empty(UPDATE, len(rows))
    for name in UPDATE.names or ():
        if name in (rows.dtype.names or ()) and name in _KEYS[kind]:
            found[name] = rows[name]
    found["chunk"], found["updateTimeMjdTai"], found["updateType"] = chunk_of(mjd_tai), mjd_tai, kind.encode()
    for name, values in payload.items():
        found[name] = values
    return found


_PLACE: Final = ("ra", "dec", "midpointMjdTai")
_KEYS: Final = {
    REASSIGN_SOURCE: ("diaSourceId", *_PLACE), REASSIGN_SOURCE_TO_SS: ("diaSourceId", *_PLACE),
    WITHDRAW_SOURCE: ("diaSourceId", *_PLACE), CLOSE_OBJECT: ("diaObjectId", *_PLACE),
    COUNT_SOURCES: ("diaObjectId", *_PLACE),
    WITHDRAW_FORCED: ("diaForcedSourceId", "diaObjectId", "visit", "detector", *_PLACE),
    REASSIGN_FORCED: ("diaForcedSourceId", "visit", "detector", *_PLACE)}
