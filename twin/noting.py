"""What the Steps of a detector-visit's pixel half used and left behind, noted part by part."""

import contextlib
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import thread_time
from typing import TypeVar

import numpy as np

from pipeline.steps import Step, Steps, run
from schemas.measures import TRACE, empty
from schemas.wcs import Wcs
from twin.trace import PixelTracer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Worked:
    """A Step of a pixel half with what it used."""

    step: Step
    cpu_s: float
    peak_mb: float


class Notes:
    """Of one detector-visit; `wcs` is the pointing's. Parts are run here, or taken over from when they were."""

    def __init__(self, visit: int, detector: int, wcs: Wcs) -> None:
        self._about = visit, detector, wcs
        self._steps: list[Worked] = []
        self._traces: list[np.ndarray] = [empty(TRACE)]

    @property
    def steps(self) -> tuple[Worked, ...]:
        """All Steps so far."""
        return tuple(self._steps)

    @property
    def trace(self) -> np.ndarray:
        """TRACE rows so far."""
        return np.concatenate(self._traces)

    def run(self, part: Steps[T]) -> T:
        """Run a part; each Step is noted with its CPU seconds and the process's peak memory while it worked."""
        tracer = PixelTracer(*self._about)
        last = thread_time()
        _reset_peak()

        def note(step: Step) -> None:
            nonlocal last
            now = thread_time()
            self._steps.append(Worked(step.bare(), now - last, _peak_mb()))
            tracer(step)                # untimed
            _reset_peak()
            last = thread_time()

        try:
            return run(part, note)
        finally:
            self._traces.append(tracer.rows())

    def take(self, steps: Sequence[Worked], trace: np.ndarray) -> None:
        """Take over the notes of a part that was run before."""
        self._steps += steps
        self._traces.append(trace)


def _reset_peak() -> None:
    """Let the kernel forget the peak; where it cannot, peaks are those of the process so far."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
