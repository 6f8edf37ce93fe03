"""Operating-system processes for the pixel halves: results depend neither on how many there are nor on who computes.

Every process sets its numerical libraries to one thread before NumPy is imported (the command does it, and children
inherit the environment), draws its random numbers from keyed streams, and compiles nothing: `warm` in the parent has
filled numba's cache.

    night (parent, simulated time)  --- asks for a job --->  LookAhead  --- submits ahead, bounded --->  processes
"""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Final, Generic, TypeVar

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PARENT_DEATH: Final = 1     # PR_SET_PDEATHSIG of prctl(2)
# Parameters of mallopt(3) and their values: M_MMAP_THRESHOLD, above which an array has pages of its own that go
# back when it is freed (32 MiB is glibc's most), and M_TRIM_THRESHOLD, what the heap keeps of what was freed.
ALLOCATION: Final = {-3: 32 << 20, -1: 256 << 20}

BEHIND: Final = 10          # niceness of those that give way

Job = TypeVar("Job", bound=Hashable)
Result = TypeVar("Result")


class Inline(Executor):
    """An executor that does the work at once, in this process."""

    def submit(self, function, /, *arguments, **named):  # type: ignore[no-untyped-def]  # the base class's signature
        future: Future[object] = Future()
        try:
            future.set_result(function(*arguments, **named))
        except BaseException as error:
            future.set_exception(error)
        return future


@contextmanager
def open_pool(processes: int, *, most: int = 0) -> Iterator[Executor]:
    """An executor of as many processes; with one, the work is done here. `most` is how many helpers are of use."""
    assert_one_thread()
    if processes == 1:
        keep_memory()
        yield Inline()
        return
    pool = spawned(min(processes, most) if most else processes)
    try:
        yield pool
    except BaseException:
        end(pool)
        raise
    pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def open_background(processes: int) -> Iterator[Executor]:
    """An executor of processes that give way to this one, and leave an interrupt at the keyboard to it."""
    assert_one_thread()
    pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_behind)
    try:
        yield pool
    finally:
        end(pool)


def spawned(processes: int) -> ProcessPoolExecutor:
    """Fresh processes on one thread each, which end with their parent."""
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)


def end(pool: ProcessPoolExecutor) -> None:
    """End the processes of a pool at once, whatever they are at."""
    for process in list((pool._processes or {}).values()):   # as `terminate_workers` does, from Python 3.14 on
        process.terminate()
    pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    assert_one_thread()
    keep_memory()
    with suppress(OSError, AttributeError):     # where there is no prctl orphans work on to the end of their job
        ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL, 0, 0, 0)


def _begin_behind() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(BEHIND)
    _begin()


def keep_memory() -> None:
    """Let this process keep the memory of planes and packets for the next ones: the kernel clears every page that it
    gives, which was a third of the catalogue half's CPU time. Harmless where the C library knows nothing of it.
    """
    with suppress(OSError, AttributeError):
        for parameter, value in ALLOCATION.items():
            ctypes.CDLL(None).mallopt(parameter, value)


def warm() -> None:
    """Fill numba's cache, so that no kernel compiles in a worker: those of the pipeline compile when they are imported
    or on a small exposure, as those of the simulators do.
    """
    from pipeline import prompt  # noqa: F401  # its kernels compile on import
    from schemas.exposure import Visit
    from simulators.config import ArtifactConfig, CameraConfig, SimulationConfig
    from simulators.observe import expose
    from simulators.sky import Sky

    config = SimulationConfig(camera=CameraConfig(ny=64, nx=64), artifacts=ArtifactConfig(streaks=1.0, glints=1.0))
    visit = Visit(visit=1, band="r", ra=config.field.ra, dec=config.field.dec, rotation=0.0, mjd_tai=61639.0,
                  exposure_s=30.0)
    expose(Sky(config, 1), visit, config.camera.detectors[0], 1)


def assert_one_thread() -> None:
    """RuntimeError unless the numerical libraries were told to use one thread: sums depend on their order."""
    wrong = {name: os.environ.get(name) for name in THREAD_VARIABLES if os.environ.get(name) != "1"}
    if wrong:
        raise RuntimeError(f"numerical libraries must run on one thread: set {', '.join(wrong)} to 1 beforehand")


class LookAhead(Generic[Job, Result]):
    """Results of planned jobs, computed ahead of the asking, at most `depth` at a time.

    A result is known by its job, which holds every input: asking for a job that was not planned (a fault changed an
    input) computes that one. `needs` gives the future that a job waits for: its template.
    """

    def __init__(self, pool: Executor, work: Callable[[Job], Result], planned: Sequence[Job], depth: int,
                 needs: Callable[[Job], Future[Any]]) -> None:
        self._pool, self._work, self._needs = pool, work, needs
        self._depth = 0 if isinstance(pool, Inline) else depth
        self._planned = list(planned)
        self._futures: dict[Job, Future[Result]] = {}

    def result(self, job: Job) -> Result:
        """The result of a job, with the next ones begun."""
        self._needs(job).result()
        if job not in self._futures:
            self._drop(job)
            self._futures[job] = self._pool.submit(self._work, job)
        self._begin()
        return self._futures.pop(job).result()

    def forget(self, job: Job) -> None:
        """A job that nobody will ask for."""
        self._drop(job)
        future = self._futures.pop(job, None)
        if future is not None:
            future.cancel()

    def _begin(self) -> None:
        while self._planned and len(self._futures) < self._depth and self._needs(self._planned[0]).done():
            job = self._planned.pop(0)
            self._futures[job] = self._pool.submit(self._work, job)

    def _drop(self, job: Job) -> None:
        self._planned = [other for other in self._planned if other != job]
