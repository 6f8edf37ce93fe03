"""The outbox of a prompt store: packets in segment files, and the rows that name them.

    NAME.packets/00000001.packets    packets one after another, appended and fsynced before the commit that names them
    table `outbox`                   one row per packet, committed in one transaction with the prompt tables
    table `outbox_state`             one row: the outbox's own name, and the sequence that comes next

This module owns the files and turns rows into `Segment`s and back; the SQL is each store's own. What a store must do:

1. `SegmentFiles.append` before its transaction; a crash in between leaves bytes that no row names.
2. In the transaction, `UPDATE outbox_state SET next_sequence = next_sequence + n`, and give the n sequences so taken to
   `rows_of`. The update's row lock is held until the commit, so that sequences become visible in their order even with
   many writers; a database sequence would not do, since a later number may commit first, and a consumer's position
   ("all up to 20 were sent") would then swallow the earlier one.
3. `segments_of` the rows not sent, in order of sequence. Packets are read from the file when they are asked for.
4. After marking rows sent and committing, `SegmentFiles.remove_unless` the files that rows not sent still name; rows of
   removed files may go as well.
"""

import fcntl
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, overload
from uuid import uuid4

import numpy as np

from pipeline.durable import sync_folder
from pipeline.errors import NonRetriableError, RetriableError
from pipeline.ports import Segment

DDL: Final = """
CREATE TABLE IF NOT EXISTS outbox (
    sequence BIGINT NOT NULL, visit BIGINT NOT NULL, detector SMALLINT NOT NULL, number INTEGER NOT NULL,
    id BIGINT NOT NULL, key BIGINT NOT NULL, segment INTEGER NOT NULL, start BIGINT NOT NULL,
    length INTEGER NOT NULL, sent BOOLEAN NOT NULL);
CREATE TABLE IF NOT EXISTS outbox_state (name VARCHAR(32) NOT NULL, next_sequence BIGINT NOT NULL);
"""
COLUMNS: Final = ("sequence", "visit", "detector", "number", "id", "key", "segment", "start", "length", "sent")
ROTATE_BYTES: Final = 256 * 1024 * 1024    # a segment file is followed by the next when it has grown beyond this
_SUFFIX: Final = ".packets"


def new_name() -> str:
    """A name for a new outbox. What was sent is remembered elsewhere by it, so no two outboxes may share one."""
    return uuid4().hex


@dataclass(frozen=True, slots=True)
class Place:
    """Where packets lie on disk."""

    segment: int           # number of the segment file
    start: int             # byte where the first begins


@dataclass(frozen=True, slots=True, eq=False)
class StoredPackets(Sequence[bytes]):
    """Packets of a segment file, read when they are asked for; equal to any sequence of the same packets."""

    path: Path
    starts: np.ndarray     # (n,) int64 [byte]
    lengths: np.ndarray    # (n,) int64 [byte]

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return StoredPackets(self.path, self.starts[index], self.lengths[index])
        return next(iter(StoredPackets(self.path, self.starts[[index]], self.lengths[[index]])))

    def __iter__(self) -> Iterator[bytes]:
        """One packet after the other; NonRetriableError where the file lacks what a committed row names."""
        try:
            with self.path.open("rb") as file:
                for start, length in zip(self.starts.tolist(), self.lengths.tolist(), strict=True):
                    packet = os.pread(file.fileno(), length, start)
                    if len(packet) != length:
                        raise NonRetriableError(f"{self.path}: a packet of {length} bytes expected at byte {start}, "
                                                f"found {len(packet)}")
                    yield packet
        except FileNotFoundError:
            raise NonRetriableError(f"{self.path}: this segment file of packets not sent yet is gone") from None
        except OSError as error:
            raise RetriableError(f"{self.path}: packets not read: {error.strerror}") from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))


class SegmentFiles:
    """The segment files of one outbox; every writer appends to a file of its own, which it holds locked."""

    def __init__(self, folder: Path, *, rotate_bytes: int = ROTATE_BYTES) -> None:
        self.folder, self._rotate_bytes = Path(folder), rotate_bytes
        self._number, self._descriptor, self._end = 0, -1, 0
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise NonRetriableError(f"{self.folder}: no folder for packets: {error.strerror}") from error

    def path(self, segment: int) -> Path:
        return self.folder / f"{segment:08d}{_SUFFIX}"

    def append(self, packets: Sequence[bytes]) -> Place:
        """Put packets on disk, all of them or none; where the first begins."""
        if not packets:
            return Place(self._number, self._end)
        try:
            if self._descriptor < 0 or self._end >= self._rotate_bytes:
                self._next_file()
            place = Place(self._number, self._end)
            self._write(packets)
        except OSError as error:
            raise RetriableError(f"{self.folder}: packets not written: {error.strerror}") from error
        return place

    def remove_unless(self, needed: Collection[int]) -> list[int]:
        """Delete the files that are not needed and that no writer holds; their numbers."""
        removed = []
        for number in self._numbers():
            if number not in needed and number != self._number and self._remove(number):
                removed.append(number)
        return removed

    def older(self) -> bool:
        """Whether there are files beside the one being written."""
        return any(number != self._number for number in self._numbers())

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)       # which also lets the lock go
        self._number, self._descriptor, self._end = 0, -1, 0

    def _write(self, packets: Sequence[bytes]) -> None:
        end = self._end
        try:
            for packet in packets:
                rest = memoryview(packet)
                while rest:
                    written = os.write(self._descriptor, rest)
                    rest, end = rest[written:], end + written
            os.fsync(self._descriptor)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._end)
            self.close()                     # whatever is left at its end, nothing is appended to it
            raise
        self._end = end

    def _next_file(self) -> None:
        self.close()
        number = max(self._numbers(), default=0) + 1
        while True:
            try:
                descriptor = os.open(self.path(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            except FileExistsError:          # another writer was faster
                number += 1
            else:
                break
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._number, self._descriptor, self._end = number, descriptor, 0
        sync_folder(self.folder)

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob(f"*{_SUFFIX}") if path.stem.isdecimal())

    def _remove(self, number: int) -> bool:
        path = self.path(number)
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        except OSError:                      # held by its writer, or gone already
            return False
        return True


def rows_of(segment: Segment, place: Place, first_sequence: int) -> dict[str, np.ndarray]:
    """The columns of `outbox` for a segment's packets, which lie at `place` one after another."""
    n, lengths = len(segment), np.array([len(packet) for packet in segment.packets], np.int64)
    keys = segment.keys if len(segment.keys) else np.zeros(n, np.int64)
    return {"sequence": first_sequence + np.arange(n, dtype=np.int64),
            "visit": np.full(n, segment.visit, np.int64), "detector": np.full(n, segment.detector, np.int16),
            "number": np.arange(n, dtype=np.int32), "id": np.asarray(segment.ids, np.int64),
            "key": np.asarray(keys, np.int64), "segment": np.full(n, place.segment, np.int32),
            "start": place.start + np.cumsum(lengths) - lengths, "length": lengths.astype(np.int32),
            "sent": np.zeros(n, bool)}


def segments_of(rows: Mapping[str, np.ndarray], files: SegmentFiles, outbox: str) -> list[Segment]:
    """The segments of rows not sent (columns `COLUMNS` in order of sequence); none of their packets is read yet."""
    n = len(rows["sequence"])
    if not n:
        return []
    changes = np.zeros(n, bool)
    for column in ("visit", "detector", "segment"):
        values = np.asarray(rows[column])
        changes[1:] |= values[1:] != values[:-1]
    bounds = [0, *np.flatnonzero(changes).tolist(), n]
    return [_segment({name: np.asarray(column[first:last]) for name, column in rows.items()}, files, outbox)
            for first, last in pairwise(bounds)]


def _segment(rows: Mapping[str, np.ndarray], files: SegmentFiles, outbox: str) -> Segment:
    packets = StoredPackets(files.path(int(rows["segment"][0])), rows["start"].astype(np.int64),
                            rows["length"].astype(np.int64))
    return Segment(int(rows["visit"][0]), int(rows["detector"][0]), rows["id"].astype(np.int64), packets,
                   rows["key"].astype(np.int64), rows["sequence"].astype(np.int64), outbox)
