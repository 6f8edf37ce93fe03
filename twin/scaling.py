"""How many pods KEDA starts at a poll, as its ScaledJob strategies count (pkg/scaling/executor/scale_jobs.go, 2.17)."""

from typing import Literal

Strategy = Literal["eager", "accurate", "default"]


def to_start(strategy: Strategy, waiting: int, alive: int, pending: int, most: int) -> int:
    """Pods to start for `waiting` messages where `alive` are not over, `pending` of them not running yet.

    Only `accurate` and `default` take off what was started already. `eager` starts a pod for every waiting message at
    every poll, whoever is still starting, and counts those that are pending twice against the most that may be.
    (KEDA leaves the smallest number of pods out of `alive`, so that it may have as many more than the most; not here.)

    Examples
    --------
    >>> [to_start(strategy, 4, 6, 3, 10) for strategy in ("eager", "accurate", "default")]
    [1, 1, 0]
    """
    wanted = min(waiting, most)
    if strategy == "eager":
        return max(min(most - alive - pending, wanted), 0)
    if strategy == "accurate":
        return max(most - alive if wanted + alive > most else wanted - pending, 0)
    return max(min(wanted - alive, most - alive), 0)


__all__ = ["Strategy", "to_start"]
