"""The temporary place of one command: worktrees, half-made runs and child processes that go when it ends.

    $TMPDIR/alert-twin-XXXXXXXX/
      owner            locked as long as the command lives
      repositories     those that have worktrees here, one path per line
      tree-a1b2c3d/    a worktree

A command that ends by itself, by an error or by a signal clears its place. One that was killed outright cannot: the
kernel gives its lock back, and the next command that opens a place removes what lies under an unlocked one.
"""

import fcntl
import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from pipeline.errors import InputError
from reports.state import is_locked

PREFIX: Final = "alert-twin-"
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE_S: Final = 5.0      # between asking a child to end and ending it
ABANDONED_S: Final = 3600.0  # a place without its lock was left between two calls; none lives that long in between


@dataclass(frozen=True, slots=True)
class Child:
    """A command to run in a process of its own."""

    what: str                      # for people: "main (a1b2c3d), seed 3"
    command: tuple[str, ...]
    folder: Path                   # where it works
    environment: Mapping[str, str]


@dataclass(slots=True)
class Workspace:
    """A place that is cleared when its `workspace` ends."""

    folder: Path
    _guard: "_Guard"
    _running: dict[subprocess.Popen[bytes], tuple[Child, Path]] = field(default_factory=dict)
    _count: int = 0

    def new(self, name: str) -> Path:
        """A name in this place that nothing has yet."""
        self._count += 1
        return self.folder / f"{name}-{self._count}"

    def worktree(self, repository: Path, revision: str) -> Path:
        """A worktree of a commit, which goes with this place."""
        tree = self.new(f"tree-{revision[:7]}")
        with (self.folder / "repositories").open("a") as file:
            file.write(f"{repository}\n")
        with self._guard.held():   # a `git worktree add` ended half-way leaves its books half-written
            # without the repository's hooks: they are the developer's, for the developer's own checkouts
            done = git(repository, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--detach",
                       str(tree), revision)
        if done.returncode:
            raise InputError(f"no worktree of {revision[:7]}: {_last_line(done.stderr)}")
        return tree

    def drop(self, folder: Path) -> None:
        """Remove a folder of this place before its time, a worktree with its entry in the repository's books."""
        with self._guard.held():
            for repository in _repositories(self.folder):
                _remove_worktrees(repository, folder)
            shutil.rmtree(folder, ignore_errors=True)

    def run(self, children: Sequence[Child], processes: int,
            done: Callable[[Child], None] = lambda child: None) -> None:
        """Run commands, so many at once. The first that fails ends the others: an InputError with its last line."""
        waiting = list(children)
        try:
            while waiting or self._running:
                while waiting and len(self._running) < processes:
                    self._start(waiting.pop(0))
                time.sleep(0.05)
                for process in [p for p in self._running if p.poll() is not None]:
                    child, log = self._running.pop(process)
                    if process.returncode:
                        _signal_group(process, signal.SIGKILL)   # those that it left behind
                        why = _ending(process.returncode, log).replace(f"{self.folder}/", "")
                        raise InputError(f"{child.what}: {why}")
                    done(child)
        finally:
            self._end_children()

    def _start(self, child: Child) -> None:
        log = self.new("log")
        with self._guard.held(), log.open("wb") as file:   # not lost between its start and its entry
            # a session of its own: its own children end with it, and a terminal's Ctrl-C reaches the parent alone
            process = subprocess.Popen(child.command, cwd=child.folder, env=dict(child.environment), stdout=file,
                                       stderr=file, stdin=subprocess.DEVNULL, start_new_session=True)
            self._running[process] = child, log

    def _end_children(self) -> None:
        with self._guard.held():
            for number in (signal.SIGTERM, signal.SIGKILL):
                for process in self._running:
                    if process.poll() is None:
                        _signal_group(process, number)
                limit = time.monotonic() + PATIENCE_S
                while any(p.poll() is None for p in self._running) and time.monotonic() < limit:
                    time.sleep(0.02)
            self._running.clear()

    def clear(self) -> None:
        """End the children and remove everything."""
        with self._guard.held():
            self._end_children()
            _clear(self.folder)


@contextmanager
def workspace() -> Iterator[Workspace]:
    """A new place in the temporary folder; while it is open, a signal to end is an exception, so that it is cleared."""
    sweep()
    with _guarded() as guard:
        place: Workspace | None = None
        lock = -1
        try:
            with guard.held():
                place = Workspace(Path(tempfile.mkdtemp(prefix=PREFIX)).resolve(), guard)
                lock = _own(place.folder)
            yield place
        finally:
            with guard.held():
                if place is not None:
                    place.clear()
                if lock >= 0:
                    os.close(lock)


def sweep() -> None:
    """Remove what commands left that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if folder.is_dir() and folder.stat().st_uid == os.getuid() and _dead(folder):
                _clear(folder.resolve())
        except OSError:
            continue   # somebody else was faster


def git(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A git command in a repository, told nothing of a repository that a hook may have named in the environment."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")} | {"LC_ALL": "C"}
    try:
        return subprocess.run(["git", "-C", str(repository), *arguments], env=clean, capture_output=True, text=True,
                              check=False, stdin=subprocess.DEVNULL, start_new_session=True)
    except FileNotFoundError:
        raise InputError("git is not installed: no revision can be looked up") from None


class _Guard:
    """Turns signals to end into exceptions, or keeps them until a moment that must not be torn is over."""

    def __init__(self) -> None:
        self._depth = 0
        self._pending: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            child.terminate()   # else the pool's end waits for work that nobody wants any more
        if self._depth:
            self._pending = number
            return
        raise _ended(number)

    @contextmanager
    def held(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth and self._pending is not None:
                number, self._pending = self._pending, None
                raise _ended(number)


@contextmanager
def _guarded() -> Iterator[_Guard]:
    guard = _Guard()
    before = {}
    try:
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:   # as under nohup
                before[number] = signal.signal(number, guard)
    except ValueError:
        pass   # not the main thread: whoever has it answers for the signals
    try:
        yield guard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ended(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


def _own(folder: Path) -> int:
    """Lock a place; the lock is held before the file has its name, so that nobody finds it unlocked."""
    aside = folder / ".owner"
    lock = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    aside.rename(folder / "owner")
    return lock


def _dead(folder: Path) -> bool:
    try:
        return not is_locked(folder / "owner")
    except FileNotFoundError:
        return time.time() - folder.stat().st_mtime > ABANDONED_S


def _clear(folder: Path) -> None:
    for repository in _repositories(folder):
        _remove_worktrees(repository, folder)
    shutil.rmtree(folder, ignore_errors=True)


def _repositories(folder: Path) -> list[Path]:
    try:
        return [Path(line) for line in dict.fromkeys((folder / "repositories").read_text().splitlines())]
    except FileNotFoundError:
        return []


def _remove_worktrees(repository: Path, folder: Path) -> None:
    """Remove those of our worktrees; `git worktree prune` would take along others whose disk is away just now."""
    if not repository.is_dir():
        return
    listed = git(repository, "worktree", "list", "--porcelain").stdout
    for line in listed.splitlines():
        path = Path(line.removeprefix("worktree "))
        if line.startswith("worktree ") and path.is_relative_to(folder):
            git(repository, "worktree", "remove", "--force", "--force", str(path))   # twice: locked ones too


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _ending(code: int, log: Path) -> str:
    """Why a child ended, in a line."""
    if code < 0:
        return f"its process was killed ({signal.Signals(-code).name})"
    return _last_line(log.read_text(errors="replace")).removeprefix("alert-twin: ") or f"ended with exit code {code}"


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
