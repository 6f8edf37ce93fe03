"""Differences copied out before a visit's pixels go, where a run asks for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from pipeline.batch.kept import FolderArchive
from pipeline.config import PrecoveryConfig
from pipeline.pixel_half import Measured
from pipeline.pixels import PixelsInMemory, PixelsOnDisk

KEPT: Final = "kept"     # in a run folder


def keeper(config: PrecoveryConfig, folder: Path) -> Callable[[Measured], None]:
    """What puts a measured detector-visit's difference into the archive of a folder; nothing where none is wanted."""
    archive = FolderArchive(folder, config.noise_steps)

    def keep(measured: Measured) -> None:
        if config.keep and isinstance(measured.pixels, PixelsInMemory | PixelsOnDisk):
            archive.keep(measured.visit, measured.detector, measured.pixels.planes())

    return keep
