"""Reads and writes of ports as Steps, tried again while that is safe."""

from collections.abc import Callable, Sized
from typing import TypeVar

from pipeline.config import RetryConfig
from pipeline.errors import NonRetriableError, RetriableError
from pipeline.steps import Step, Steps

T = TypeVar("T")


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
