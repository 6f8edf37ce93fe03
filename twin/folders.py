"""Run folders: new or empty, writable, and a run's own."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import InputError


def claim(folder: Path) -> None:
    """Make a run folder; InputError where it is occupied or cannot be written."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: the run folder is occupied; name another or remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{folder}: the run folder cannot be written ({error.strerror})") from None


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """A folder made by `claim`, which is gone again if what fills it fails."""
    claim(folder)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
