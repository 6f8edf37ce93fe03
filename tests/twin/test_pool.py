"""Look-ahead over a pool: order, bounds, and the one-thread rule."""

import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from twin.pool import Inline, LookAhead, assert_one_thread, open_pool


def ready(_: object) -> "Future[None]":
    future: Future[None] = Future()
    future.set_result(None)
    return future


def test_results_are_those_of_the_jobs_in_any_order_of_asking() -> None:
    with ThreadPoolExecutor(2) as pool:
        ahead = LookAhead(pool, lambda job: job * job, [1, 2, 3, 4], 3, ready)
        assert [ahead.result(job) for job in (1, 3, 2, 4, 9)] == [1, 9, 4, 16, 81]


def test_look_ahead_is_bounded() -> None:
    begun: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        ahead = LookAhead(pool, lambda job: begun.append(job), list(range(10)), 3, ready)
        ahead.result(0)
        pool.submit(lambda: None).result()
        assert begun == [0, 1, 2]


def test_one_process_computes_nothing_before_it_is_asked() -> None:
    begun: list[int] = []
    ahead = LookAhead(Inline(), lambda job: begun.append(job), [0, 1, 2], 3, ready)
    ahead.result(1)
    assert begun == [1]


def test_a_job_waits_for_what_it_needs() -> None:
    template: Future[None] = Future()
    begun: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        ahead = LookAhead(pool, lambda job: begun.append(job), ["g", "r"], 3,
                          lambda job: template if job == "r" else ready(job))
        ahead.result("g")
        pool.submit(lambda: None).result()
        assert begun == ["g"]
        template.set_result(None)
        ahead.result("r")
        assert begun == ["g", "r"]


def test_a_failure_reaches_who_asks() -> None:
    def fail(job: int) -> None:
        raise KeyError(job)

    with pytest.raises(KeyError):
        LookAhead(Inline(), fail, [1], 1, ready).result(1)


def test_threaded_libraries_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with pytest.raises(RuntimeError, match="OMP_NUM_THREADS"):
        assert_one_thread()
    with pytest.raises(RuntimeError, match="one thread"), open_pool(2):
        pass


FAULTS = """
import resource, sys
from twin.pool import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
def once():
    packets = [bytearray(100_000) for _ in range(90)]
    for packet in packets:
        packet[::4096] = b"x" * len(packet[::4096])
once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted as Linux does")
def test_memory_that_was_freed_is_not_asked_for_again() -> None:
    faults = {how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True,
                                      check=True).stdout) for how in ("given_back", "kept")}
    assert faults["given_back"] > 10 * max(faults["kept"], 100)
