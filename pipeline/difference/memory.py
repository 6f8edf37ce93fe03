"""Planes whose memory is used again: the first touch of fresh memory costs more than what a kernel does there.

A plane of a whole detector is returned to the system when it is freed, and comes back page by page, cleared. Here it is
kept instead, until the next plane of its size asks for it. Only memory that no array holds any more is given out again,
so a difference stays as it is for as long as anything of it is in use.
"""

from collections import deque
from typing import Any, Final

import numpy as np

LEAST: Final = 1 << 23       # smaller planes the allocator keeps by itself [byte]
KEPT: Final = 8              # planes at most that wait for their next use

_free: deque[np.ndarray] = deque(maxlen=KEPT)


class _Loan:
    """Memory that an array stands on; it is free again when the array is gone."""

    __slots__ = ("memory",)

    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory

    @property
    def __array_interface__(self) -> dict[str, Any]:  # numpy's protocol
        return self.memory.__array_interface__

    def __del__(self) -> None:
        _free.append(self.memory)


def plane(shape: tuple[int, ...], kind: type[np.generic] = np.float32) -> np.ndarray:
    """An array of no particular content, on memory used before where some of its size is free."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    if size < LEAST:
        return np.empty(shape, kind)
    memory = _taken(size, size)
    return np.asarray(_Loan(np.empty(size, np.uint8) if memory is None else memory)).view(kind).reshape(shape)


def scratch(shape: tuple[int, ...], kind: type[np.generic] = np.float32) -> np.ndarray:
    """An array for a while, on a plane that waits for its use if one is large enough."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    memory = _taken(size, 1 << 62) if size >= LEAST else None
    return np.empty(shape, kind) if memory is None else np.asarray(_Loan(memory))[:size].view(kind).reshape(shape)


def _taken(least: int, most: int) -> np.ndarray | None:
    """Free memory of a size in between, if there is any; threads may ask at once."""
    for _ in range(len(_free)):
        try:
            memory = _free.popleft()
        except IndexError:
            break
        if least <= len(memory) <= most:
            return memory
        _free.append(memory)
    return None
