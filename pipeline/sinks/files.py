"""A sink that writes each batch as one Avro file: visit_detector_firstid.avro, written aside and renamed.

The name comes from the first packet's diaSourceId, so a batch sent twice leaves one file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.alerts.read import source_id, to_container
from pipeline.durable import write_whole
from pipeline.errors import RetriableError
from pipeline.ports import Position
from schemas import ids


class FileSink:
    """Writes into a folder, which it makes."""

    remembers: Final = False

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def position(self, outbox: str) -> Position | None:
        return None

    def send(self, packets: Sequence[bytes], keys: Sequence[int] = (), position: Position | None = None) -> int:
        if not packets:
            return 0
        path = self.folder / _name(source_id(packets[0]))
        try:
            write_whole(path, to_container(packets), path.with_suffix(".partial"))
        except OSError as error:
            raise RetriableError(f"alerts not written to {path}: {error}") from error
        return len(packets)

    def close(self) -> None:
        pass


def _name(first: int) -> str:
    parts = ids.unpack(np.array([first]))
    return f"{parts.visit[0]}_{parts.detector[0]:03d}_{first}.avro"
