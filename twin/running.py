"""A run folder while its run lives: owned by one process, with a state that anybody may read (`reports.state`)."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from pipeline.durable import write_whole
from pipeline.errors import InputError
from reports.state import OWNER, STATE, State, Tally, look
from twin.folders import claim

WRITE_S: Final = 1.0           # between two states
PARTS_S: Final = 2.0           # between two parts of a table, and longer as the run grows older:
PARTS: Final = 50              # so many while its age grows by a factor of e
POINTS: Final = "points.jsonl"  # of a sweep: what is done so far
SCENARIO: Final = "scenario.toml"
KEPT: Final = (SCENARIO, POINTS, STATE, OWNER)      # of a killed run that is done again

Progress = Callable[[str, int, int], None]      # what, done, of how many


class Due:
    """Says when something is to be done again: after some seconds, or a share of the time since the beginning."""

    def __init__(self, least_s: float, share: float = 0.0, clock: Callable[[], float] = monotonic) -> None:
        self._least_s, self._share, self._clock = least_s, share, clock
        self._begun = self._last = clock()

    def __call__(self) -> bool:
        now = self._clock()
        if now - self._last < max(self._least_s, self._share * (now - self._begun)):
            return False
        self._last = now
        return True


class Running:
    """The state of a run, by the process that runs it."""

    def __init__(self, folder: Path, state: State) -> None:
        self.folder, self.state = folder, state
        self.due, self.parts_due = Due(WRITE_S), Due(PARTS_S, 1 / PARTS)
        self._write(lasting=True)

    def say(self, doing: str) -> None:
        """What it does now."""
        self.state = msgspec.structs.replace(self.state, doing=doing)
        self._write()

    def count(self, done: int) -> None:
        """How many are done."""
        self.state = msgspec.structs.replace(self.state, done=done)
        self._write()

    def tell(self, night: Tally, done: int, of: int) -> None:
        """How the night stands."""
        self.state = msgspec.structs.replace(self.state, night=night, done=done, of=of, doing="")
        self._write()

    def end(self, why: str = "") -> None:
        """It is over: done, or failed for a reason."""
        self.state = msgspec.structs.replace(self.state, status="failed" if why else "done", why=why)
        self._write(lasting=True)

    def _write(self, *, lasting: bool = False) -> None:
        self.state = msgspec.structs.replace(self.state, updated=time())
        path, aside = self.folder / STATE, self.folder / f".{STATE}.writing"
        content = msgspec.json.encode(self.state)
        if lasting:
            write_whole(path, content, aside)
            return
        aside.write_bytes(content)     # not on disk for certain: a crash of the machine may cost the last second's
        aside.replace(path)


@contextmanager
def begun(folder: Path, state: State, *, again: bool = False, stays: Callable[[], bool] = lambda: False
          ) -> Iterator[Running]:
    """A new run folder and its state, gone if what fills it fails; with `again` that of a run that did not finish.

    Such a one is emptied of its results, and stays with the reason if it fails once more, as others do where `stays`
    says so. InputError where the folder is occupied, cannot be written, or is another process's.
    """
    before = reopen(folder) if again else None
    if before is None:
        claim(folder)
    with owned(folder):
        if before is not None:
            clear(folder)
            state = msgspec.structs.replace(state, begun=before.begun + 1)
        here = Running(folder, msgspec.structs.replace(state, process=os.getpid(), started=time()))
        try:
            yield here
        except BaseException as error:
            if before is None and not stays():
                shutil.rmtree(folder, ignore_errors=True)
            else:
                with suppress(OSError):
                    here.end(reason(error))
            raise
        here.end()


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """A folder that is this process's alone; InputError where it is another's."""
    path = folder / OWNER
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        for attempt in range(20):      # who looks whether it is locked locks it for a moment
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == 19:
                    raise InputError(f"{folder}: another process is at this run") from None
                sleep(0.05)
        yield
        path.unlink(missing_ok=True)
    finally:
        os.close(lock)


def reopen(folder: Path) -> State:
    """The state of a run that did not finish; InputError where it did, is going on, or is none."""
    state, killed = look(folder)
    if state is None:
        raise InputError(f"{folder}: no run that could be done again, it has no {STATE}")
    if state.status == "done":
        raise InputError(f"{folder}: this run is finished, there is nothing to resume")
    if state.status == "running" and not killed:
        raise InputError(f"{folder}: this run is still going (process {state.process}, {state.place})")
    return state


def clear(folder: Path) -> None:
    """Remove what a run left, without its scenario."""
    for path in folder.iterdir():
        if path.name in KEPT:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def keep_scenario(folder: Path, text: str) -> None:
    """Write a run's scenario whole, unless it is there from an earlier life."""
    if not (folder / SCENARIO).is_file():
        write_whole(folder / SCENARIO, text.encode(), folder / f".{SCENARIO}.writing")


def telling(here: Running, progress: Progress) -> Progress:
    """Progress that the run's state tells as well."""
    def tell(what: str, done: int, total: int) -> None:
        progress(what, done, total)
        if what != "detector-visits":
            here.say(f"{what} {done} of {total}")

    return tell


def reason(error: BaseException) -> str:
    """Why a run ended, in a few words."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "interrupted"
    return " ".join(str(error).split())[:200] or type(error).__name__


def settings(**values: Any) -> dict[str, Any]:
    """What a run was told, as its state keeps it: paths in full."""
    return {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in values.items()}


def public(url: str) -> str:
    """A URL without its user, password and options, as it may be written down."""
    parts = urlsplit(url)
    if not parts.netloc:
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


__all__ = ["Due", "Running", "begun", "clear", "keep_scenario", "owned", "public", "reason", "reopen", "settings",
           "telling"]
