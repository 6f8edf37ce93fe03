"""Run folders: new or empty, writable, and a run's own."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import InputError
from reports.state import look, unfinished
from reports.store import StoreError


def claim(folder: Path) -> None:
    """Make a run folder; InputError where it is occupied or cannot be written."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: {_occupied(folder)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{folder}: the run folder cannot be written ({error.strerror})") from None


def _occupied(folder: Path) -> str:
    """What is in a folder that is not empty, and what can be done."""
    try:
        state, killed = look(folder)
    except StoreError:
        state, killed = None, False
    if state is None or state.status == "done":
        return "the run folder is occupied; name another or remove it"
    if killed or state.status == "failed":
        what = "killed" if killed else state.why
        return (f"the {'sweep' if state.kind == 'sweep' else 'run'} in it did not finish ({what} at {state.place}); "
                f"`alert-twin resume {folder}` takes it up, or remove the folder")
    return f"a run is going on in it (process {state.process}, {state.place}); `alert-twin watch {folder}` shows it"


def whole(folder: Path) -> None:
    """InputError where a folder's run did not finish, or has not yet."""
    try:
        why = unfinished(folder)
    except StoreError as error:
        raise InputError(str(error)) from None
    if why:
        raise InputError(f"{folder}: {why}")


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """A folder made by `claim`, which is gone again if what fills it fails."""
    claim(folder)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
