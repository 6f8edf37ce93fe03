"""A sink that takes packets when the night has made them, and sends each when its second comes.

    pipeline.deliver --- send ---> Post: what, and when ---> a thread, on the wall clock ---> the sink itself
                                    | disorder on purpose: copies, delays
                                    +---> SENDING: a row per message, when it was due and when it was sent

What nothing is done to goes on as it came, packets and the outbox's position together. What is delayed or copied goes
by an outbox of its own, so that a sink that remembers holds every message once, and no other.
"""

import heapq
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Final

import numpy as np

from pipeline.alerts.read import source_id
from pipeline.batches import BATCH_BYTES
from pipeline.errors import RetriableError
from pipeline.ports import AlertSink, Position
from schemas import ids
from schemas.measures import SENDING, empty
from simulators.streams import stream
from twin.pacing import WallClock

APART: Final = "-disorder"       # the outbox of what is delayed or copied, after the outbox
AGAIN_S: Final = 1.0             # between two tries at a sink that failed


@dataclass(frozen=True, slots=True)
class Disorder:
    """Shares of the alerts that consumers get otherwise than they should; delays in simulated seconds."""

    duplicates: float = 0.0        # sent once more, within the window
    reorder: float = 0.0           # held back within the window, so that others pass them
    window_s: float = 30.0
    late: float = 0.0
    late_by_s: float = 300.0

    def __bool__(self) -> bool:
        return bool(self.duplicates or self.reorder or self.late)

    def of(self, identifier: int, seed: int) -> "Fate":
        """What is done to an alert: of its id and the seed alone."""
        if not self:
            return KEPT
        doubled, moved, late, by, again = stream(seed, "disorder", identifier).random(5).tolist()
        delay = self.window_s * by * (moved < self.reorder) + self.late_by_s * (late < self.late)
        copies = (delay, delay + self.window_s * again) if doubled < self.duplicates else (delay,)
        return Fate(copies, moved < self.reorder, late < self.late)


@dataclass(frozen=True, slots=True)
class Fate:
    """When the copies of an alert are sent [s after it should be], and what was meant by it."""

    delays: tuple[float, ...] = (0.0,)
    reordered: bool = False
    late: bool = False

    @property
    def disordered(self) -> bool:
        return len(self.delays) > 1 or self.reordered or self.late


KEPT: Final = Fate()


@dataclass(order=True, slots=True)
class Letter:
    """What is sent together when its second comes."""

    due_s: float
    number: int
    apart: bool = field(compare=False)
    packets: list[bytes] = field(compare=False)
    keys: list[int] = field(compare=False)
    position: Position | None = field(compare=False)
    rows: np.ndarray = field(compare=False)             # SENDING, the times of sending still to come


class Post:
    """An AlertSink on the wall clock: it says yes at once and keeps its word later.

    Packets are due when `now` says that they are sent. Failures that another try may mend are tried again until the
    post is closed; any other ends it, and `check` raises it.
    """

    def __init__(self, sink: AlertSink, clock: WallClock, now: Callable[[], float], disorder: Disorder, seed: int,
                 say: Callable[[str], None] = lambda line: None) -> None:
        self.sink, self.clock, self.disorder = sink, clock, disorder
        self._now, self._seed, self._say = now, seed, say
        self._letters: list[Letter] = []
        self._taken: dict[str, Position] = {}
        self._number = self._apart = 0
        self._sent: SimpleQueue[np.ndarray] = SimpleQueue()
        self._change = threading.Condition()
        self._closed = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="post", daemon=True)
        self._in_flight, self._begun = 0, False

    # --- AlertSink, for the night -----------------------------------------------------------------------------------

    @property
    def remembers(self) -> bool:
        return self.sink.remembers

    def position(self, outbox: str) -> Position | None:
        """How far an outbox was taken: a night's is new, and nobody else sends it."""
        return self._taken.get(outbox)

    def send(self, packets: Sequence[bytes], keys: Sequence[int] = (), position: Position | None = None) -> int:
        due_s = self._now()
        named = list(keys) if len(keys) else []
        fates = [self.disorder.of(source_id(packet), self._seed) for packet in packets]
        rows = self._rows(packets, fates, due_s)
        plain = [i for i, fate in enumerate(fates) if not fate.disordered]
        letters = [self._letter(due_s, packets, named, plain, position, rows)] if plain else []
        for i in (i for i, fate in enumerate(fates) if fate.disordered):
            for copy, delay in enumerate(fates[i].delays):
                one = self._letter(due_s + delay, packets, named, [i], position, rows, apart=True)
                one.rows["copy"], one.rows["due_mjd_tai"] = copy, self.clock.mjd_tai(one.due_s)
                letters.append(one)
        if position is not None:
            self._taken[position.outbox] = position
        with self._change:
            for letter in letters:
                heapq.heappush(self._letters, letter)
            self._change.notify()
        return len(packets)

    def close(self) -> None:
        """End the thread; what is not sent by now never is."""
        self._closed.set()
        with self._change:
            self._change.notify()
        if self._thread.is_alive():
            self._thread.join()
        self.sink.close()

    # --- for whoever drives the night -------------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        return self._begun

    def begin(self, sink: AlertSink) -> None:
        """Send from now on, through this sink instead of the one before."""
        self.sink, self._begun = sink, True
        self._thread.start()

    def check(self) -> None:
        """Raise what ended the sending."""
        if self._failure is not None:
            raise self._failure

    def sent(self) -> list[np.ndarray]:
        """SENDING rows of what was sent since the last call, a part per sending."""
        out: list[np.ndarray] = []
        with suppress(Empty):
            while True:
                out.append(self._sent.get_nowait())
        return out

    @property
    def waiting(self) -> int:
        """Messages that are not sent yet."""
        with self._change:
            return sum(len(letter.packets) for letter in self._letters) + self._in_flight

    # --- within -----------------------------------------------------------------------------------------------------

    def _rows(self, packets: Sequence[bytes], fates: Sequence[Fate], due_s: float) -> np.ndarray:
        rows = empty(SENDING, len(packets))
        rows["diaSourceId"] = [source_id(packet) for packet in packets]
        parts = ids.unpack(rows["diaSourceId"])
        rows["visit"], rows["detector"], rows["copy"] = parts.visit, parts.detector, 0
        rows["promised_mjd_tai"] = rows["due_mjd_tai"] = self.clock.mjd_tai(due_s)
        rows["copies"] = [len(fate.delays) for fate in fates]
        rows["reordered"], rows["late"] = [fate.reordered for fate in fates], [fate.late for fate in fates]
        return rows

    def _letter(self, due_s: float, packets: Sequence[bytes], keys: Sequence[int], chosen: Sequence[int],
                position: Position | None, rows: np.ndarray, *, apart: bool = False) -> Letter:
        self._number += 1
        return Letter(due_s, self._number, apart, [packets[i] for i in chosen], [keys[i] for i in chosen if keys],
                      position, rows[list(chosen)])

    def _work(self) -> None:
        try:
            self._greet()
            while (letters := self._due()):
                self._deliver(letters)
        except BaseException as error:
            self._failure = error

    def _greet(self) -> None:
        """Ask the sink for the outboxes' positions once there is something: the first answer takes long."""
        with self._change:
            self._change.wait_for(lambda: self._closed.is_set() or bool(self._letters))
            named = [letter.position.outbox for letter in self._letters[:1] if letter.position is not None]
        with suppress(RetriableError):
            for outbox in named:
                self.sink.position(outbox)
                if self.disorder:
                    self.sink.position(outbox + APART)

    def _due(self) -> list[Letter]:
        """Letters whose second has come, those of one kind together; none when the post is closed."""
        with self._change:
            while not self._closed.is_set():
                wait = self.clock.until(self._letters[0].due_s) if self._letters else None
                if wait is not None and wait <= 0:
                    out = self._together()
                    self._in_flight = sum(len(letter.packets) for letter in out)
                    return out
                self._change.wait(wait)
            return []

    def _together(self) -> list[Letter]:
        out = [heapq.heappop(self._letters)]
        size = sum(map(len, out[0].packets))
        joined = self.remembers or out[0].apart        # as `pipeline.batches` joins segments
        while joined and self._letters and self._letters[0].apart == out[0].apart and self.clock.until(
                self._letters[0].due_s) <= 0:
            size += sum(map(len, self._letters[0].packets))
            if size > BATCH_BYTES:
                break
            out.append(heapq.heappop(self._letters))
        return out

    def _deliver(self, letters: Sequence[Letter]) -> None:
        packets = [packet for letter in letters for packet in letter.packets]
        keys = [key for letter in letters for key in letter.keys]
        position = letters[-1].position
        if position is not None and letters[0].apart:
            self._apart += len(packets)
            position = Position(position.outbox + APART, self._apart, source_id(packets[-1]))
        if not self._arrive(packets, keys, position):
            return
        rows = np.concatenate([letter.rows for letter in letters])
        rows["due_unix_s"] = np.concatenate([np.full(len(letter.rows), self.clock.unix_of(letter.due_s))
                                             for letter in letters])
        rows["sent_unix_s"] = self.clock.unix_now()
        self._sent.put(rows)
        self._in_flight = 0

    def _arrive(self, packets: list[bytes], keys: list[int], position: Position | None) -> bool:
        """Send until all is acknowledged; False where the post was closed before."""
        done, said = 0, False
        while True:
            try:
                if position is None:
                    done += self.sink.send(packets[done:], keys[done:])
                elif not self._landed(position):
                    done = self.sink.send(packets, keys, position)
                else:
                    done = len(packets)
            except RetriableError as error:
                if not said:
                    self._say(f"the alerts wait: {error}")
                said = True
            if done >= len(packets):
                return True
            if self._closed.wait(AGAIN_S):
                return False

    def _landed(self, position: Position) -> bool:
        """Whether an earlier try landed whose answer was lost."""
        found = self.sink.position(position.outbox)
        return found is not None and found.sequence >= position.sequence


def lags(rows: np.ndarray) -> np.ndarray:
    """Seconds from when SENDING rows were due to when they were acknowledged."""
    return np.asarray(rows["sent_unix_s"] - rows["due_unix_s"])


__all__ = ["Disorder", "Fate", "Post", "lags"]
