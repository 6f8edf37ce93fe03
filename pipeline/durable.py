"""Files that are there whole or not at all, even after a crash of the machine."""

import os
from pathlib import Path


def write_whole(path: Path, content: bytes, aside: Path) -> None:
    """Write a file aside, on disk, and rename it into place; after an OSError nothing is left aside."""
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make renames within a folder, and files new in it, last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
