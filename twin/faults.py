"""Trouble in the outside world, as wrappers round ports: the pipeline never knows.

    Slow(store, delays, wait)           every call waits first, on the clock of whoever drives
    Flaky(store, rng, 0.01)             a call fails before anything changed
    CommitsThenFails(store, {7})        the seventh save lands, and its answer is lost
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from pipeline.errors import RetriableError
from pipeline.ports import History, Position, SaveRequest, Segment
from schemas.exposure import Box, Visit


class Wrapper:
    """Hands every call of any port to the wrapped one; a fault overrides `_call`."""

    def __init__(self, port: Any) -> None:
        self.port = port

    def _call(self, name: str, *arguments: Any) -> Any:
        return getattr(self.port, name)(*arguments)

    # AlertSink
    @property
    def remembers(self) -> bool:
        return bool(self.port.remembers)

    def position(self, outbox: str) -> Position | None:
        found: Position | None = self._call("position", outbox)
        return found

    def send(self, packets: Sequence[bytes], keys: Sequence[int] = (), position: Position | None = None) -> int:
        return int(self._call("send", packets, keys, position))

    # PromptStore
    def objects(self, box: Box, until: float | None = None) -> np.ndarray:
        return np.asarray(self._call("objects", box, until))

    def history(self, ids: np.ndarray, since: float, until: float) -> History:
        found: History = self._call("history", ids, since, until)
        return found

    def contains(self, visit: int, detector: int) -> bool:
        return bool(self._call("contains", visit, detector))

    def save(self, request: SaveRequest, segment: Segment) -> None:
        self._call("save", request, segment)

    def unsent(self) -> list[Segment]:
        found: list[Segment] = self._call("unsent")
        return found

    def mark_sent(self, segment: Segment) -> None:
        self._call("mark_sent", segment)

    def table(self, name: str) -> np.ndarray:
        return np.asarray(self.port.table(name))     # for reports: no faults there

    # Ephemerides, Satellites, Recorder
    def near(self, box: Box, mjd_tai: float) -> np.ndarray:
        return np.asarray(self._call("near", box, mjd_tai))

    def allowed(self, visit: Visit, detector: int, ids: np.ndarray, corners: np.ndarray) -> np.ndarray:
        return np.asarray(self._call("allowed", visit, detector, ids, corners))

    def append(self, table: str, rows: np.ndarray) -> None:
        self._call("append", table, rows)

    def close(self) -> None:
        self.port.close()


class Slow(Wrapper):
    """Waits before every call: `wait` is time.sleep, or adds to the simulated Step under way."""

    def __init__(self, port: Any, delays: Callable[[], float], wait: Callable[[float], None]) -> None:
        super().__init__(port)
        self._delays, self._wait = delays, wait

    def _call(self, name: str, *arguments: Any) -> Any:
        self._wait(self._delays())
        return super()._call(name, *arguments)


class Flaky(Wrapper):
    """Fails a fraction of calls before they reach the port; `only` names the calls that may fail."""

    def __init__(self, port: Any, rng: np.random.Generator, rate: float, only: Collection[str] = ()) -> None:
        super().__init__(port)
        if not 0 <= rate <= 1:
            raise ValueError(f"the rate of failures must be 0 to 1, got {rate}")
        self._rng, self._rate, self._only = rng, rate, frozenset(only)

    def _call(self, name: str, *arguments: Any) -> Any:
        if (not self._only or name in self._only) and self._rng.random() < self._rate:
            raise RetriableError(f"{name}: the connection failed")
        return super()._call(name, *arguments)


class CommitsThenFails(Wrapper):
    """Performs every save, and loses the answers of those whose number, from 1, is in `lost`."""

    def __init__(self, port: Any, lost: Collection[int] = (1,)) -> None:
        super().__init__(port)
        self._lost, self._saves = frozenset(lost), 0

    def _call(self, name: str, *arguments: Any) -> Any:
        answer = super()._call(name, *arguments)
        if name == "save":
            self._saves += 1
            if self._saves in self._lost:
                raise RetriableError("save: the connection was lost before the answer")
        return answer
