"""Replication from the prompt tables to the PPDB, chunk by chunk, by the rules of the real one.

Every 300 s the replicator looks at the store's replica chunks, in the order of their ids. It copies a chunk when a
newer one exists and its last save is 60 s past, or when that is 3600 s past; the first that is not due ends the poll. A
chunk that was saved into after it was copied is an error: its unique id has changed (paper code: dax_ppdb).
"""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import InputError, NonRetriableError
from pipeline.ports import Replicable, ReplicaChunk
from pipeline.ppdb import REPLICATED, Copied, Ppdb
from schemas.updates import CHUNK_SECONDS, chunk_start_mjd_tai

POLL_S: Final = 300.0
DAY_S: Final = 86400.0


@dataclass(frozen=True, slots=True)
class LagRules:
    """When a chunk may be copied."""

    with_newer_s: float = 60.0            # after its last save, where a newer chunk exists
    alone_s: float = 3600.0               # where none does


def due(chunks: Sequence[ReplicaChunk], copied: Sequence[Copied], now_mjd_tai: float,
        rules: LagRules = LagRules()) -> list[ReplicaChunk]:
    """The chunks to copy now, in the order of their ids; NonRetriableError where a copied one has changed.

    Chunks that begin later than now, as a finished simulation has them, are not there yet.
    """
    known = {chunk.id: chunk.unique_id for chunk in copied}
    present = sorted((chunk for chunk in chunks if chunk_start_mjd_tai(chunk.id) <= now_mjd_tai),
                     key=lambda chunk: chunk.id)
    newest_copied = max(known, default=-1)
    found: list[ReplicaChunk] = []
    for place, chunk in enumerate(present):
        if chunk.id in known:
            if known[chunk.id] != chunk.unique_id:
                raise NonRetriableError(f"replica chunk {chunk.id} was saved into after it was copied (unique id "
                                        f"{chunk.unique_id}, copied as {known[chunk.id]})")
            continue
        if chunk.id < newest_copied:
            raise NonRetriableError(f"replica chunk {chunk.id} appeared after chunk {newest_copied} was copied: chunks "
                                    "are copied in the order of their ids")
        age_s = (now_mjd_tai - chunk.last_update_mjd_tai) * DAY_S
        if not (age_s >= rules.alone_s or (place < len(present) - 1 and age_s >= rules.with_newer_s)):
            break
        found.append(chunk)
    return found


def poll(store: Replicable, ppdb: Ppdb, now_mjd_tai: float) -> int:
    """Copy what is due and promote it; how many chunks were copied."""
    chunks = due(store.chunks(), ppdb.chunks, now_mjd_tai)
    for chunk in chunks:
        rows = {table.name: store.chunk_rows(chunk.id, table.name) for table in REPLICATED}
        ppdb.stage(chunk, rows, store.updates(chunk.id), now_mjd_tai)
    ppdb.promote()
    return len(chunks)


def polls(chunks: Sequence[ReplicaChunk]) -> list[float]:
    """The times of all polls that a store's chunks need [MJD TAI], every 300 s from the first chunk's begin."""
    if not chunks:
        return []
    first = min(chunk_start_mjd_tai(chunk.id) for chunk in chunks)
    last = max(chunk.last_update_mjd_tai for chunk in chunks) + LagRules().alone_s / DAY_S
    times, now = [], first
    waits = sorted(max(chunk_start_mjd_tai(chunk.id), chunk.last_update_mjd_tai) for chunk in chunks)
    for when in waits:                       # between the nights nothing is due
        now = max(now, first + int((when - first) * DAY_S // POLL_S) * POLL_S / DAY_S)
        until = min(last, when + (LagRules().alone_s + 2 * POLL_S) / DAY_S)
        while now <= until + POLL_S / DAY_S:
            times.append(now)
            now += POLL_S / DAY_S
    return times


def lags_s(copied: Sequence[Copied]) -> list[float]:
    """How long each chunk's last save waited for its copy [s]."""
    return [(chunk.copied_mjd_tai - chunk.last_update_mjd_tai) * DAY_S for chunk in copied]


@contextmanager
def opened(folder: Path) -> Iterator[Ppdb]:
    """The PPDB to write to; one process at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"PPDB {folder}: another replication is at work there") from None
        ppdb = Ppdb(folder, create=True)
        try:
            yield ppdb
        finally:
            ppdb.close()


__all__ = ["CHUNK_SECONDS", "POLL_S", "LagRules", "due", "lags_s", "opened", "poll", "polls"]
