"""The alert archive: every packet by its diaSourceId, every schema once, in a folder or an object store.

    v2/alerts/<first 6 digits of the id>/<id>.avro.gz     gzip of the wire-format message as it came
    v2/schemas/<schema id>.json

These are the keys of Rubin's alert_database_ingester. Equal packets make equal files, so a message that is read twice
is stored once. Where the store is comes from whoever starts the service, never from a request.
"""

import gzip
import logging
import os
import threading
import time
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import fsspec

from pipeline.alerts.read import schema_id, schema_json
from pipeline.durable import sync_folder
from pipeline.errors import InputError, PipelineError, RetriableError
from pipeline.serve.messages import (
    MAX_ID,
    MAX_PACKET,
    Alert,
    Positions,
    Rejected,
    examine,
    letters,
    read_letter,
    written_aside,
)

LOG: Final = logging.getLogger(__name__)
SCHEMES: Final = ("s3", "gs", "gcs", "abfs", "abfss", "az", "memory")    # of fsspec, beside folders
LEVEL: Final = 6               # of gzip: 9, the deployed, takes twice as long and saves less than 1 percent
WRITERS: Final = 8             # messages stored at once: an object store answers in tens of milliseconds
STALE_S: Final = 3600.0        # a file so long aside is of a writer that died
_PARTIAL: Final = ".partial"


class ArchiveError(PipelineError):
    """What the archive holds cannot be used."""


def alert_key(identifier: int) -> str:
    """Where the packet of a diaSourceId is: the only way an id becomes a path."""
    if type(identifier) is not int or not 0 < identifier <= MAX_ID:
        raise ValueError(f"a diaSourceId is 1 to {MAX_ID}, got {identifier!r}")
    text = str(identifier)
    return f"v2/alerts/{text[:6]}/{text}.avro.gz"


def schema_key(identifier: int) -> str:
    """Where the schema of a schema id is."""
    if type(identifier) is not int or not 0 <= identifier < 2**31:
        raise ValueError(f"a schema id is 0 to {2**31 - 1}, got {identifier!r}")
    return f"v2/schemas/{identifier}.json"


class Store(Protocol):
    """Files by key; one is there whole or not at all."""

    def get(self, key: str) -> bytes | None:
        """The content; None if there is none. RetriableError if the store does not answer."""
        ...

    def put(self, key: str, content: bytes) -> None: ...

    def settle(self) -> None:
        """Make all that was put last."""
        ...


class FolderStore:
    """A folder; files are written aside, synchronised and renamed."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._touched: set[Path] = set()
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        try:
            return (self.folder / key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RetriableError(f"archive: {key} not read: {error.strerror}") from error

    def put(self, key: str, content: bytes) -> None:
        path = self.folder / key
        aside = self.folder / _PARTIAL / f"{os.getpid()}-{threading.get_ident()}"
        try:
            aside.parent.mkdir(exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RetriableError(f"archive: {key} not written: {error.strerror}") from error
        written_aside(path, content, aside)
        with self._lock:
            self._touched.update(parent for parent in path.parents if parent.is_relative_to(self.folder))

    def settle(self) -> None:
        with self._lock:
            touched, self._touched = self._touched, set()
        for folder in touched:
            sync_folder(folder)

    def sweep(self) -> None:
        """Take away what writers that died had begun."""
        for path in (self.folder / _PARTIAL).glob("*-*"):
            if time.time() - path.stat().st_mtime > STALE_S:
                path.unlink(missing_ok=True)


class ObjectStore:
    """Any file system of fsspec whose uploads are whole or nothing, as those of object stores are."""

    def __init__(self, system: Any, root: str) -> None:
        self._system, self._root = system, root.rstrip("/")

    def get(self, key: str) -> bytes | None:
        try:
            return bytes(self._system.cat_file(f"{self._root}/{key}"))
        except FileNotFoundError:
            return None
        except Exception as error:     # each file system has its own
            raise RetriableError(f"archive: {key} not read: {error}") from error

    def put(self, key: str, content: bytes) -> None:
        try:
            self._system.pipe_file(f"{self._root}/{key}", content)
        except Exception as error:
            raise RetriableError(f"archive: {key} not written: {error}") from error

    def settle(self) -> None:
        pass


def open_archive(url: str, *, create: bool = False) -> "Archive":
    """The archive in `folder/`, `file:folder/`, `s3://bucket/prefix` or another object store of fsspec.

    Chained URLs are refused: they would reach file systems that nobody named.
    """
    if not url.strip() or "::" in url or "\0" in url:
        raise InputError(f"archive {url!r}: {_EXPECTED}")
    scheme = urlsplit(url).scheme if "://" in url else url.partition(":")[0] if url.startswith("file:") else ""
    if scheme in ("", "file"):
        return Archive(_folder(url, create))
    if scheme not in SCHEMES:
        raise InputError(f"archive {url!r}: {_EXPECTED}")
    try:
        system, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise InputError(f"archive {url!r}: the library for {scheme}: is not installed ({error})") from None
    return Archive(ObjectStore(system, str(root)))


def _folder(url: str, create: bool) -> FolderStore:
    folder = Path(url.removeprefix("file:").removeprefix("//") if url.startswith("file:") else url)
    try:
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        if not folder.is_dir():
            raise InputError(f"archive {url!r}: there is no folder {folder}")
    except OSError as error:
        raise InputError(f"archive {url!r}: {error.strerror}") from error
    store = FolderStore(folder)
    store.sweep()
    return store


class Archive:
    """Packets by id and schemas by id. Threads may share one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._schemas: set[int] = set()     # known to be stored

    def packet(self, identifier: int) -> bytes | None:
        """The wire-format message of an alert; None if there is none. ArchiveError if it cannot be unpacked."""
        stored = self._store.get(alert_key(identifier))
        return None if stored is None else unpacked(stored, f"alert {identifier}")

    def schema(self, identifier: int) -> bytes | None:
        """A schema as JSON; None if no alert of it was archived."""
        return self._store.get(schema_key(identifier))

    def put(self, alert: Alert) -> bool:
        """Store a packet and, once, its schema: whether it is there now; False if another is under its id."""
        self._put_schema(schema_id(alert.packet))
        key = alert_key(alert.identifier)
        before = self._store.get(key)
        if before is not None:
            try:
                return unpacked(before, f"alert {alert.identifier}") == alert.packet
            except ArchiveError as error:
                LOG.warning("%s; it is written anew", error)
        self._store.put(key, gzip.compress(alert.packet, LEVEL, mtime=0))
        return True

    def settle(self) -> None:
        self._store.settle()

    def _put_schema(self, identifier: int) -> None:
        if identifier in self._schemas:
            return
        if self._store.get(schema_key(identifier)) is None:
            self._store.put(schema_key(identifier), schema_json(identifier).encode())
        self._schemas.add(identifier)


def unpacked(content: bytes, what: str, limit: int = MAX_PACKET) -> bytes:
    """The inside of a gzip file of one member, at most `limit` bytes of it in memory; ArchiveError names `what`."""
    reader = zlib.decompressobj(wbits=31)
    try:
        found = reader.decompress(content, limit + 1)
    except zlib.error as error:
        raise ArchiveError(f"{what}: its file in the archive is not gzip ({error})") from None
    if len(found) > limit:
        raise ArchiveError(f"{what}: its file in the archive unpacks to more than {limit} bytes")
    if not reader.eof or reader.unused_data:
        raise ArchiveError(f"{what}: its file in the archive is {'followed by' if reader.eof else 'cut short, without'}"
                           f" {'other bytes' if reader.eof else 'its end'}")
    return found


@dataclass(slots=True)
class Ingest:
    """A handler that stores alerts, several at once."""

    archive: Archive
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(WRITERS, "archive"))

    def handle(self, alerts: Sequence[Alert]) -> Iterable[Rejected]:
        by_id: dict[int, list[Alert]] = {}
        for alert in alerts:
            by_id.setdefault(alert.identifier, []).append(alert)
        rejected = [one for some in self.pool.map(self._store, by_id.values()) for one in some]
        if alerts:
            self.archive.settle()
        return rejected

    def settled(self, read: Positions) -> Positions:
        return read

    def finish(self) -> Iterable[Rejected]:
        return ()

    def close(self) -> None:
        self.pool.shutdown()

    def _store(self, alerts: Sequence[Alert]) -> list[Rejected]:
        return [Rejected(alert.message, f"the archive holds another packet: its id is {alert.identifier} too")
                for alert in alerts if not self.archive.put(alert)]


def retry_letters(archive: Archive, folder: Path) -> tuple[int, int]:
    """Archive those of a folder's dead letters that can be by now, and take them away: how many, and how many stay."""
    handler, stored, found = Ingest(archive), 0, letters(folder)
    try:
        for path in found:
            alert = examine(read_letter(path).message)
            if isinstance(alert, Alert) and not list(handler.handle([alert])):
                path.unlink()
                stored += 1
    finally:
        handler.close()
    return stored, len(found) - stored


_EXPECTED: Final = f"expected a folder, file:folder/ or SCHEME://bucket/prefix, SCHEME one of {', '.join(SCHEMES)}"
