"""Delivery beside the pipeline: a thread that empties the outbox while the next visit is computed.

A store and a recorder serve one caller at a time, so both sides use them under one lock; what takes long, the waiting
for the broker, happens outside it.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

from pipeline.config import PipelineConfig
from pipeline.errors import PipelineError
from pipeline.ports import Ports, PromptStore, Recorder
from pipeline.prompt import deliver
from pipeline.steps import Step, run

_log = logging.getLogger(__name__)


class Sender:
    """Use its `ports` in place of those given, `wake` it after a save, and `close` it before them.

    While a broker is away visits go on, and what they made waits in the outbox.
    """

    def __init__(self, ports: Ports, config: PipelineConfig, note: Callable[[Step], Any] = lambda step: None) -> None:
        lock = threading.RLock()
        self.ports = replace(ports, store=cast(PromptStore, _Locked(ports.store, lock)),
                             recorder=cast(Recorder, _Locked(ports.recorder, lock)))
        self._config, self._note = config, note
        self._waiting, self._ended = threading.Event(), False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="sender", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something to send."""
        if self._failure is not None and not isinstance(self._failure, PipelineError):
            raise self._failure
        self._waiting.set()

    def close(self) -> PipelineError | None:
        """Try once more to send what is left, and end; why it stays in the outbox, if it does."""
        self._ended = True
        self._waiting.set()
        self._thread.join()
        if self._failure is None or isinstance(self._failure, PipelineError):
            return self._failure
        raise self._failure

    def _work(self) -> None:
        ended = False
        while not ended:
            self._waiting.wait()
            self._waiting.clear()
            ended = self._ended              # before the outbox is read: what was saved until then goes out
            try:
                run(deliver(self.ports, self._config), self._note)
            except PipelineError as error:           # it stays in the outbox; the next visit tries again
                _log.warning("alerts stay in the outbox: %s", error)
                self._failure = error
            except BaseException as error:
                self._failure = error
                return
            else:
                self._failure = None


@contextmanager
def sending(ports: Ports, config: PipelineConfig) -> Iterator[tuple[Ports, Callable[[], None] | None]]:
    """The ports to use and what to call after a save, while a thread delivers to a sink that remembers.

    For other sinks the ports as they are, and nothing to call: there each visit's own delivery says what was sent.
    """
    if not ports.sink.remembers:
        yield ports, None
        return
    sender = Sender(ports, config)
    try:
        yield sender.ports, sender.wake
    finally:
        sender.close()


class _Locked:
    """Every call of a port under a lock."""

    def __init__(self, port: Any, lock: "threading.RLock") -> None:
        self._port, self._lock = port, lock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if not callable(found):
            return found

        def call(*arguments: Any) -> Any:
            with self._lock:
                return found(*arguments)

        return call
