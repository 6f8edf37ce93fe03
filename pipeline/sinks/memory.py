"""A sink that keeps what it was sent: for tests and for the twin."""

from collections.abc import Sequence
from typing import Final

from pipeline.ports import Position


class MemorySink:
    """Keeps every packet in the order sent."""

    remembers: Final = False

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def position(self, outbox: str) -> Position | None:
        return None

    def send(self, packets: Sequence[bytes], keys: Sequence[int] = (), position: Position | None = None) -> int:
        self.packets.extend(packets)
        return len(packets)

    def close(self) -> None:
        pass
