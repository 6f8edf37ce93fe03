"""A sink that counts what it is sent and keeps nothing."""

from collections.abc import Sequence
from typing import Final

from pipeline.ports import Position


class CountingSink:
    """How many packets came; they may be known by their lengths alone."""

    remembers: Final = False

    def __init__(self) -> None:
        self.n_sent = 0

    def position(self, outbox: str) -> Position | None:
        return None

    def send(self, packets: Sequence[bytes], keys: Sequence[int] = (), position: Position | None = None) -> int:
        self.n_sent += len(packets)
        return len(packets)

    def close(self) -> None:
        pass
