"""The pipeline announces its steps; whoever drives it decides how time passes.

Writes announce, then perform: their effect lands at the end of the Step. Reads perform, then announce with what they
found: the snapshot is taken at the start and the transfer comes after. Pure work computes, then announces.
"""

from collections.abc import Callable, Generator, Sized
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pipeline.config import RetryConfig
from pipeline.errors import NonRetriableError, RetriableError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of work, or a wait, that the driver turns into time."""

    name: str
    size: int = 1          # what its cost grows with: pixels, sources, rows, bytes
    delay_s: float = 0.0   # a wait that is not work: the pause before a retry
    ahead: bool = False    # announced before it is performed, as writes are: its work comes after
    left: Any = field(default=None, compare=False, repr=False)   # what it leaves to the next, for who wants to look

    def bare(self) -> "Step":
        """The Step without what it left: what is kept of it must not hold on to images."""
        return replace(self, left=None)


Steps = Generator[Step, None, T]


def read(name: str, call: Callable[[], T], retry: RetryConfig) -> Steps[T]:
    """Perform a read of a port, then announce it with the size of what it found; retry while that is safe."""
    for attempt in range(retry.limit + 1):
        try:
            found = call()
        except RetriableError:
            if attempt == retry.limit:
                raise
            yield Step(f"retry.{name}", delay_s=retry.delay_s)
        else:
            yield Step(name, len(found) if isinstance(found, Sized) else 1, left=found)
            return found
    raise AssertionError("unreachable")


def write(name: str, size: int, call: Callable[[], T], retry: RetryConfig,
          landed: Callable[[], bool] | None = None) -> Steps[T | None]:
    """Announce a write, then perform it; before each retry ask `landed` whether the last attempt committed after all.

    A write whose commit landed although its answer was lost is not retriable: NonRetriableError.
    """
    for attempt in range(retry.limit + 1):
        yield Step(name, size, ahead=True)
        try:
            return call()
        except RetriableError as error:
            if landed is not None and landed():
                raise NonRetriableError(f"{name}: committed, but its answer was lost ({error})") from error
            if attempt == retry.limit:
                raise
            yield Step(f"retry.{name}", delay_s=retry.delay_s)
    raise AssertionError("unreachable")


def run(steps: Steps[T], note: Callable[[Step], Any] = lambda step: None) -> T:
    """Drive a pipeline on the wall clock: every Step is noted when announced, and nothing waits but a retry's pause."""
    import time

    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # the generator's declared return type
        note(step)
        if step.delay_s:
            time.sleep(step.delay_s)
