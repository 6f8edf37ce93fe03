"""How many pods a poll starts, against the numbers of KEDA's own tests, and what it makes of a night."""

import numpy as np
import pytest
from msgspec import structs

from tests.twin.test_prompt_processing import BARE, numbers, run
from twin.platform_config import PlatformConfig, PodsConfig
from twin.scaling import Strategy, to_start


# scale_jobs_test.go of KEDA: TestEagerScalingStrategy, TestAccurateScalingStrategy (maxScale, running, pending, most).
@pytest.mark.parametrize(("strategy", "waiting", "alive", "pending", "most", "started"), [
    ("eager", 4, 3, 0, 10, 4), ("eager", 4, 0, 3, 10, 4), ("eager", 4, 7, 0, 10, 3), ("eager", 4, 1, 6, 10, 3),
    ("eager", 15, 0, 0, 10, 10),
    ("accurate", 3, 2, 0, 5, 3), ("accurate", 5, 2, 0, 5, 3), ("accurate", 3, 4, 2, 10, 1), ("accurate", 5, 4, 2, 5, 1),
    ("default", 5, 2, 0, 10, 3), ("default", 2, 5, 0, 10, 0)])
def test_a_poll_starts_what_keda_starts(strategy: Strategy, waiting: int, alive: int, pending: int, most: int,
                                        started: int) -> None:
    assert to_start(strategy, waiting, alive, pending, most) == started


def created(strategy: Strategy, cap: int = 400, share: float = 1.0) -> np.ndarray:
    """When pods were started of a visit of 23 detectors, of which 3 find a worker."""
    pods = PodsConfig(smallest=3, poll_s=2.0, scaling=strategy, startup_s=19.0, startup_spread=0.0, cold_s=0.0,
                      pending_share=share)
    ran = run(PlatformConfig(**BARE, workers=cap, pods=pods), np.array([30.5]), numbers(1, 23, measure=60.0))
    assert (ran.passages["n_sent"] == 1).all()
    return np.asarray(ran.pods["created_s"][3:])


def test_eager_starts_a_pod_for_every_waiting_message_at_every_poll() -> None:
    times, each = np.unique(created("eager"), return_counts=True)
    assert times.tolist() == pytest.approx(list(np.arange(32.0, 51.0, 2.0)))     # until the first ones are there
    assert each.tolist() == [20] * 10                    # ten times the pods that are needed
    assert len(created("accurate")) == 20
    assert len(created("default")) == 17                 # and those at work are taken off what waits


def test_eager_counts_pending_pods_twice_against_the_cap() -> None:
    assert len(created("eager", cap=60)) < len(created("eager", cap=60, share=0.0))
    assert len(created("eager", cap=60, share=0.0)) == 57
    pending = created("eager", cap=60)
    assert (pending == 32.0).sum() == 20
    assert (pending == 34.0).sum() == 17                 # 60 - 23 alive - 20 pending
    assert len(pending) == 37


def test_a_message_that_waits_for_start_up_is_not_told_that_no_more_pods_may_be() -> None:
    pods = PodsConfig(smallest=1, startup_s=20.0, startup_spread=0.0, cold_s=0.0)
    few = run(PlatformConfig(**BARE, workers=4, pods=pods), np.array([30.5]), numbers(1, 12, measure=60.0))
    assert few.passages["capped"].sum() >= 8
    enough = run(structs.replace(PlatformConfig(**BARE, workers=12, pods=pods)), np.array([30.5]),
                 numbers(1, 12, measure=60.0))
    assert not enough.passages["capped"].any()
