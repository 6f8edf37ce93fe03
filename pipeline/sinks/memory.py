"""A sink that keeps what it was sent: for tests and for the twin."""

from collections.abc import Sequence


class MemorySink:
    """Keeps every packet in the order sent."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def send(self, packets: Sequence[bytes]) -> int:
        self.packets.extend(packets)
        return len(packets)

    def close(self) -> None:
        pass
