"""The pipeline announces its steps; whoever drives it decides how time passes.

Writes announce, then perform: their effect lands at the end of the Step. Reads perform, then announce with what they
found: the snapshot is taken at the start and the transfer comes after. Pure work computes, then announces.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

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
