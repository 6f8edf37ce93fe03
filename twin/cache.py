"""What was computed once, by the hash of everything that decides it: kept whole or not at all, checked, bounded.

    FOLDER/
      half/3f/3f0c.../entry       the value, with sizes and checksums of the files beside it; its own checksum in front
                      arrays      the value's arrays, mapped into memory when read
                      *.npy, ...  files that the value speaks of
                      used        a byte per use; its time is that of the last
      live/PID-...                one per process that uses the folder, locked as long as it lives
      aside/PID-.../              entries being written, and loans: hard links to the files of an entry in use
      limit                       bytes: at first use a third of the free disk, 20 GB at most; or what was set since

An entry is written aside and renamed. Whoever gets one works on a loan of its files, which outlives the entry, so that
nothing is pulled from under a run; entries on loan are not evicted either. What a killed process left aside is swept by
the next one: the kernel gave its lock back.
"""

import atexit
import fcntl
import mmap
import os
import re
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any, Final, Self

import msgspec
import numpy as np

from pipeline.errors import InputError
from twin.packing import PackingError, pack, unpack

NAMES: Final = {"exposure": "exposures", "earlier": "earlier exposures", "template": "templates", "night": "nights",
                "difference": "difference images", "half": "pixel halves"}   # by the kind of entry
KINDS: Final = tuple(NAMES)
DEFAULT_LIMIT: Final = 20 * 10**9   # both sides of 34 nights of the regression scenario take 11 to 12 GB
OF_DISK: Final = 3              # and no more than one part in so many of what is free
FOLDER_VARIABLE: Final = "ALERT_TWIN_CACHE"
LIMIT_VARIABLE: Final = "ALERT_TWIN_CACHE_LIMIT"
MARK: Final = "CACHEDIR.TAG"    # what backups skip, and what makes a folder one of ours (bford.info/cachedir)
SIGNATURE: Final = "Signature: 8a477f597d28d172789f06886806bc55\n"
ROOM: Final = 0.9               # of the limit: what eviction leaves
BLOCK: Final = 4096             # bytes of a file that are summed before their checksum
LOOK: Final = 0.02              # of the limit: written so much, a process looks how large the cache is
UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
                "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


@dataclass(frozen=True, slots=True)
class Cache:
    """Entries of a folder by kind and key; small enough to send to another process."""

    folder: Path
    limit_bytes: int = DEFAULT_LIMIT

    @classmethod
    def open(cls, folder: Path | None = None, limit_bytes: int | None = None) -> Self:
        """The cache of a folder, made if need be; by default $ALERT_TWIN_CACHE, else ~/.cache/rubin-alert-twin.

        The limit is that given, $ALERT_TWIN_CACHE_LIMIT, or the one kept in the folder: a third of what was free on its
        disk at first use, 20 GB at most, unless another was set since. InputError where the folder holds something else
        or cannot be written.
        """
        named = folder or Path(os.environ.get(FOLDER_VARIABLE) or Path.home() / ".cache" / "rubin-alert-twin")
        place = Path(os.path.abspath(named))
        _claim(place)
        if limit_bytes is None and os.environ.get(LIMIT_VARIABLE):
            limit_bytes = parse_bytes(os.environ[LIMIT_VARIABLE])
        return cls(place, _kept_limit(place) if limit_bytes is None else limit_bytes)

    def has(self, kind: str, key: str) -> bool:
        """Whether there is an entry, sound or not."""
        return (self._place(kind, key) / "entry").is_file()

    def get(self, kind: str, key: str) -> "Loan | None":
        """An entry, None where there is none. One that is damaged is removed."""
        place = self._place(kind, key)
        if not place.is_dir():
            return None
        loan = _session(self.folder).aside(f"{kind}~{key}")
        try:
            loan.mkdir()
            _link_files(place, loan)
            found = Loan(_read(loan), loan)
        except (OSError, PackingError, msgspec.DecodeError):
            _remove(loan)
            self._discard(place)
            return None
        with suppress(OSError), (place / "used").open("ab") as uses:
            uses.write(b".")
        return found

    @contextmanager
    def draft(self, kind: str, key: str) -> Iterator["Draft"]:
        """A folder for the files of a new entry; what is not kept by then is gone."""
        draft = Draft(self, kind, key, _session(self.folder).aside(f"{kind}~{key}"))
        draft.folder.mkdir()
        try:
            yield draft
        finally:
            _remove(draft.folder)

    def put(self, kind: str, key: str, value: Any, *, lasting: bool = True) -> Any:
        """Keep a value that needs no files of its own; gives it as it will be got."""
        with self.draft(kind, key) as draft:
            loan = draft.keep(value, lasting=lasting)
            loan.close()
            return loan.value

    def usage(self) -> dict[str, "Usage"]:
        """What each kind of entry takes, of those that there are."""
        found: dict[str, Usage] = {}
        for entry in self._entries():
            found[entry.kind] = found.get(entry.kind, Usage()).with_(entry)
        return {kind: found[kind] for kind in KINDS if kind in found}

    def trim(self, limit_bytes: int | None = None) -> int:
        """Evict the least recently used entries until the others take no more than a limit; gives what is left."""
        with _locked(self.folder / "lock") as ours:
            entries = sorted(self._entries(), key=lambda entry: entry.used)
            total = sum(entry.bytes for entry in entries)
            limit = self.limit_bytes if limit_bytes is None else limit_bytes
            if total <= limit or not ours:     # another process is at it
                return total
            lent = _lent(self.folder)
            for entry in entries:
                if total <= limit * ROOM:
                    break
                if entry.place.name not in lent and self._discard(entry.place):
                    total -= entry.bytes
        return total

    def settle(self) -> None:
        """Evict what was on loan until now, where this process has kept anything since it last looked."""
        session = _session(self.folder)
        if session.total is None or session.written or session.total > self.limit_bytes:
            session.total, session.written = self.trim(), 0

    def keep_limit(self, limit_bytes: int) -> Self:
        """Set the limit of the folder for good, and evict what exceeds it."""
        _keep_limit(self.folder, limit_bytes)
        made = replace(self, limit_bytes=limit_bytes)
        made.trim()
        return made

    def clear(self) -> int:
        """Remove every entry; gives how many there were."""
        return sum(self._discard(entry.place) for entry in list(self._entries()))

    def sweep(self) -> None:
        """Remove what processes left that are no more."""
        _sweep(self.folder)

    def _place(self, kind: str, key: str) -> Path:
        if kind not in KINDS:
            raise ValueError(f"no kind of entry is {kind!r}")
        return self.folder / kind / key[:2] / key

    def _discard(self, place: Path) -> bool:
        """Take an entry away at once, then delete it; whether it was there."""
        away = _session(self.folder).aside("gone")
        try:
            place.rename(away)
        except OSError:
            return False
        _remove(away)
        return True

    def _entries(self) -> Iterator["_Entry"]:
        for kind in KINDS:
            for begin in _names(self.folder / kind):
                for key in _names(self.folder / kind / begin):
                    with suppress(OSError):      # evicted meanwhile
                        yield _entry(kind, self.folder / kind / begin / key)


@dataclass(frozen=True, slots=True)
class Loan:
    """The value of an entry, and its files for as long as they are needed."""

    value: Any
    folder: Path

    def close(self) -> None:
        """Give the files back: arrays of the value stay; again is harmless."""
        _remove(self.folder)


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry in the making: files are put into its folder."""

    cache: Cache
    kind: str
    key: str
    folder: Path

    def keep(self, value: Any, *, lasting: bool = True) -> Loan:
        """Make it an entry, with a value whose paths lie in the folder; gives a loan of it.

        Where another process was first, its entry stays and this one is the loan's alone; so it is where `lasting` is
        false.
        """
        with (self.folder / "arrays").open("wb") as arrays:
            packed = pack(value, arrays, self.folder)
        files = {path.name: [path.stat().st_size, _checksum(path)] for path in sorted(self.folder.iterdir())}
        data = msgspec.msgpack.encode({"files": files, "value": packed})
        (self.folder / "entry").write_bytes(zlib.crc32(data).to_bytes(4, "little") + data)
        (self.folder / "used").touch()
        size = _entry(self.kind, self.folder).bytes
        folder = _session(self.cache.folder).aside(f"{self.kind}~{self.key}")
        folder.mkdir()
        _link_files(self.folder, folder)
        if lasting:
            place = self.cache._place(self.kind, self.key)
            place.parent.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):
                self.folder.rename(place)
            self._bound(size)
        return Loan(_read(folder, checked=True), folder)

    def _bound(self, size: int) -> None:
        """Evict when there is reason to believe that the limit is exceeded."""
        session, limit = _session(self.cache.folder), self.cache.limit_bytes
        session.written += size
        if session.total is None or session.total + session.written > limit or session.written > LOOK * limit:
            session.total, session.written = self.cache.trim(), 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What entries of a kind take."""

    entries: int = 0
    bytes: int = 0
    hits: int = 0
    oldest: float = float("inf")   # when the one used longest ago was, seconds of the Unix epoch
    newest: float = 0.0

    def with_(self, entry: "_Entry") -> "Usage":
        """With one more."""
        return Usage(self.entries + 1, self.bytes + entry.bytes, self.hits + entry.hits, min(self.oldest, entry.used),
                     max(self.newest, entry.used))


def parse_bytes(text: str) -> int:
    """The bytes that `5GB`, `500 MB`, `1.5GiB` or a plain number say."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text, re.IGNORECASE)
    if found is None:
        raise InputError(f"{text!r} is no size: expected a number of bytes, or one with KB, MB, GB or TB")
    return int(float(found[1]) * UNITS[(found[2] or "").upper()])


def format_bytes(size: float) -> str:
    """`1.2 GB`."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def described(cache: Cache) -> str:
    """What a cache holds, as a table for people."""
    usage, now = cache.usage(), time.time()
    held = sum(kind.bytes for kind in usage.values())
    lines = [f"{cache.folder}: {format_bytes(held)} of at most {format_bytes(cache.limit_bytes)}"]
    if usage:
        lines.append(f"{'':20}{'entries':>9}{'size':>10}{'hits':>8}   last used")
    for kind, one in usage.items():
        lines.append(f"{NAMES[kind]:20}{one.entries:9d}{format_bytes(one.bytes):>10}{one.hits:8d}   "
                     f"{_age(now - one.newest)} to {_age(now - one.oldest)} ago")
    return "\n".join(lines)


def _age(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0.0):.0f} s"


# --- entries ---------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class _Entry:
    kind: str
    place: Path
    bytes: int
    hits: int
    used: float


def _entry(kind: str, place: Path) -> _Entry:
    facts = {item.name: item.stat() for item in os.scandir(place)}
    used = facts.get("used") or place.stat()      # one that is damaged may lack it
    return _Entry(kind, place, sum(fact.st_size for fact in facts.values()),
                  facts["used"].st_size if "used" in facts else 0, used.st_mtime)


def _read(folder: Path, *, checked: bool = False) -> Any:
    """The value of an entry; PackingError where anything of it is not as it was written, unless that is known."""
    data = (folder / "entry").read_bytes()
    if zlib.crc32(data[4:]).to_bytes(4, "little") != data[:4]:
        raise PackingError("the entry is damaged")
    told = msgspec.msgpack.decode(data[4:])
    for name, (size, checksum) in told["files"].items():
        path = folder / name
        if not checked and (path.stat().st_size != size or _checksum(path) != checksum):
            raise PackingError(f"{name} is damaged")
    return unpack(told["value"], folder / "arrays", folder)


def _checksum(path: Path) -> int:
    """CRC of the sums of a file's blocks, each of 64-bit words: eight times faster than a CRC of all bytes.

    Any word that is not as written changes its block's sum, and any blocks exchanged the CRC.
    """
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return 0
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents:
            whole = len(contents) // BLOCK * BLOCK
            blocks = np.frombuffer(contents, np.uint64, whole // 8).reshape(-1, BLOCK // 8)
            sums = blocks.sum(axis=1)
            del blocks               # a map with views cannot be closed
            return zlib.crc32(contents[whole:], zlib.crc32(sums))


def _link_files(source: Path, target: Path) -> None:
    """The files of an entry in another folder of the same file system, without copying where it can."""
    for name in os.listdir(source):
        if name == "used":
            continue
        link(source / name, target / name)


def link(source: Path, target: Path) -> None:
    """Another name for a file that nobody will write to, a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


# --- the folder ------------------------------------------------------------------------------------------------------

def _claim(folder: Path) -> None:
    """Make a folder a cache; InputError where it holds something else or cannot be written."""
    mark = folder / MARK
    try:
        if mark.is_file() and os.access(folder, os.W_OK):
            return
        if folder.is_dir() and any(item.name != "lock" and not item.name.startswith(".") for item in folder.iterdir()):
            raise InputError(f"{folder}: not a cache: it holds other things")
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f".mark-{os.getpid()}"
        aside.write_text(f"{SIGNATURE}# What the Alert Production Twin computed; it may be deleted at any time.\n")
        aside.replace(mark)
    except OSError as error:
        raise InputError(f"{folder}: the cache cannot be written ({error.strerror})") from None


def _kept_limit(folder: Path) -> int:
    """The limit of a folder; one that has none gets it now, for the cache itself will take from what is free."""
    try:
        return int((folder / "limit").read_text())
    except (OSError, ValueError):
        limit = min(DEFAULT_LIMIT, shutil.disk_usage(folder).free // OF_DISK)
        with suppress(OSError):
            _keep_limit(folder, limit)
        return limit


def _keep_limit(folder: Path, limit_bytes: int) -> None:
    aside = folder / f".limit-{os.getpid()}"
    aside.write_text(f"{limit_bytes}\n")
    aside.replace(folder / "limit")


# --- processes -------------------------------------------------------------------------------------------------------

@dataclass(slots=True)
class _Session:
    """This process among those that use a folder."""

    folder: Path
    name: str
    lock: int                        # file descriptor, locked as long as the process lives
    numbers: Iterator[int] = field(default_factory=count)
    total: int | None = None         # bytes of all entries when last counted
    written: int = 0                 # since

    def aside(self, what: str) -> Path:
        """A new name aside, which is swept once this process is no more."""
        folder = self.folder / "aside" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{next(self.numbers)}~{what}"

    def close(self) -> None:
        _remove(self.folder / "aside" / self.name)
        (self.folder / "live" / self.name).unlink(missing_ok=True)
        os.close(self.lock)


_SESSIONS: Final[dict[tuple[Path, int], _Session]] = {}


def _session(folder: Path) -> _Session:
    """The session of this process, begun at its first use of the folder."""
    at = folder, os.getpid()       # a forked child is another process
    if at not in _SESSIONS:
        _sweep(folder)
        _SESSIONS[at] = _begun(folder)
        if len(_SESSIONS) == 1:
            atexit.register(_end_sessions)
    return _SESSIONS[at]


def _begun(folder: Path) -> _Session:
    (folder / "live").mkdir(parents=True, exist_ok=True)
    while True:
        name = f"{os.getpid()}-{token_hex(4)}"
        path = folder / "live" / name
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():            # not swept between its making and its lock
            return _Session(folder, name, lock)
        os.close(lock)


def _end_sessions() -> None:
    for (_, pid), session in _SESSIONS.items():
        if pid == os.getpid():
            session.close()


def _sweep(folder: Path) -> None:
    for name in _names(folder / "live"):
        with _locked(folder / "live" / name) as ours:
            if ours:
                _remove(folder / "aside" / name)
                (folder / "live" / name).unlink(missing_ok=True)
    for name in _names(folder / "aside"):
        if not (folder / "live" / name).exists():
            _remove(folder / "aside" / name)


def _lent(folder: Path) -> set[str]:
    """Keys of the entries that some process has on loan."""
    return {name.rpartition("~")[2] for session in _names(folder / "aside")
            for name in _names(folder / "aside" / session)}


def _names(folder: Path) -> list[str]:
    """What a folder holds, sorted; nothing where it has gone meanwhile."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Whether the lock of a file could be had; it is given back after."""
    try:
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
    finally:
        os.close(lock)


__all__ = ["DEFAULT_LIMIT", "KINDS", "Cache", "Draft", "Loan", "Usage", "described", "format_bytes", "link",
           "parse_bytes"]
