"""A second copy of a table's rows, by rows: what a history reads.

A history wants all 103 columns of thousands of rows from dozens of places. A column store reads a block per column and
place for that, a gigabyte for 14 MB; here a row's bytes lie together, and so do a detector-visit's rows.

    night.db.DiaSource    a page that says whose rows these are, then row `number` at number * itemsize

The database is the truth. Rows are appended before the commit that counts them, so what a crash leaves beyond the count
is written over. They reach the disk when the system likes, or at `sync`: a store remembers up to where that was, and
reads what lies beyond from its tables when it is opened again.
"""

import os
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.errors import NonRetriableError, RetriableError
from schemas.table import Table

_HEADER: Final = 4096
_GROWTH: Final = 64 * 1024 * 1024          # bytes by which the file grows, so that it is mapped anew seldom


class RowFile:
    """Rows of one table in a file, found by their numbers."""

    def __init__(self, path: Path, table: Table, owner: str) -> None:
        """Open the file, or begin it anew where it is not `owner`'s (the name of a store and a version)."""
        self.path, self.table = path, table
        header = f"{owner} {table.name} {table.dtype.itemsize}".encode().ljust(_HEADER, b"\0")
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            if os.pread(self._file, _HEADER, 0) != header:
                os.ftruncate(self._file, 0)
                _write_all(self._file, header, 0)
        except OSError as error:
            raise NonRetriableError(f"rows in {path} cannot be opened: {error.strerror}") from error
        self._void = np.dtype((np.void, table.dtype.itemsize))
        self._mapped = table.empty().view(self._void)

    def __len__(self) -> int:
        """Rows that the file has room for, those never written included."""
        return (os.fstat(self._file).st_size - _HEADER) // self.table.dtype.itemsize

    def write(self, number: int, rows: np.ndarray) -> None:
        """Put rows from a number on."""
        if len(rows):
            self._write([(number, rows)])

    def put(self, numbers: np.ndarray, rows: np.ndarray) -> None:
        """Put rows at their numbers."""
        if len(rows):
            self._write([(number, rows[k:k + 1]) for k, number in enumerate(numbers.tolist())])

    def sync(self) -> None:
        """Return when all is on disk."""
        try:
            os.fdatasync(self._file)
        except OSError as error:
            raise RetriableError(f"{self.path} not synchronized: {error.strerror}") from error

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Rows of those numbers, a copy."""
        if not len(numbers):
            return self.table.empty()
        self._map(int(numbers.max()))
        return np.asarray(self._mapped[numbers]).view(self.table.dtype)

    def column(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """One column of those rows."""
        if not len(numbers):
            return self.table.empty()[name]
        self._map(int(numbers.max()))
        return np.asarray(self._mapped.view(self.table.dtype)[name][numbers])

    def close(self) -> None:
        self._mapped = self.table.empty().view(self._void)
        os.close(self._file)

    def _map(self, last: int) -> None:
        if last >= len(self._mapped):
            self._mapped = np.memmap(self.path, self._void, "r", offset=_HEADER, shape=(len(self),))

    def _grow(self, rows: int) -> None:
        if rows > len(self):
            os.ftruncate(self._file, _HEADER + rows * self.table.dtype.itemsize + _GROWTH)

    def _write(self, pieces: list[tuple[int, np.ndarray]]) -> None:
        try:
            self._grow(max(number + len(rows) for number, rows in pieces))
            for number, rows in pieces:
                _write_all(self._file, np.ascontiguousarray(rows).tobytes(), _HEADER + number * rows.itemsize)
        except OSError as error:
            raise RetriableError(f"rows not written to {self.path}: {error.strerror}") from error


def _write_all(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
