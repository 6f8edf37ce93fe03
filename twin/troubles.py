"""Faults of a scenario laid on the visits of a night: which are touched, from when to when.

A fault touches the i-th of the visits whose shutter opens in its span where floor((i + 1) rate) > floor(i rate):
evenly, and known beforehand, so that what must come of it can be counted by hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twin.plan import Plan
from twin.platform_config import FaultConfig


@dataclass(frozen=True, slots=True)
class Trouble:
    """One fault of one night."""

    config: FaultConfig
    start_s: float             # of the simulated clock
    end_s: float
    touched: np.ndarray        # (visits,) bool

    def of(self, visit: int, detector: int) -> bool:
        """Whether it touches a detector of the night's visit of an index."""
        return bool(self.touched[visit]) and not 0 < self.config.detectors <= detector

    def at(self, now: float) -> bool:
        """Whether it is under way."""
        return self.start_s <= now < self.end_s


def lay(faults: Sequence[FaultConfig], plan: Plan) -> list[Trouble]:
    """The troubles of a night."""
    return [_laid(fault, plan) for fault in faults]


def _laid(fault: FaultConfig, plan: Plan) -> Trouble:
    start = float(plan.opens_s[0]) + fault.start_s
    end = start + fault.duration_s
    inside = np.flatnonzero((plan.opens_s >= start - 1e-6) & (plan.opens_s < end - 1e-6))
    order = np.arange(len(inside))
    touched = np.zeros(len(plan), bool)
    touched[inside] = np.floor((order + 1) * fault.rate + 1e-9) > np.floor(order * fault.rate + 1e-9)
    return Trouble(fault, start, end, touched)


def described(fault: FaultConfig) -> str:
    """A fault in words, without when it was."""
    said = [f"{fault.kind.replace('_', ' ')}{f' ({fault.service})' if fault.service else ''}"]
    if fault.rate < 1:
        said.append(f"{100 * fault.rate:g} % of visits")
    if fault.detectors:
        said.append(f"{fault.detectors} detector{'s' if fault.detectors > 1 else ''}")
    if fault.delay_s:
        said.append(f"{fault.delay_s:g} s")
    if fault.factor != 1:
        said.append(f"turned by {fault.factor:g} degrees" if fault.kind == "mismatch" else f"{fault.factor:g} times")
    return ", ".join(said)


def bursts(troubles: Sequence[Trouble], n_visits: int) -> np.ndarray:
    """(n_visits,) factor on the alerts of each visit."""
    factor = np.ones(n_visits)
    for trouble in troubles:
        if trouble.config.kind == "burst":
            factor[trouble.touched] *= trouble.config.factor
    return factor


__all__ = ["Trouble", "bursts", "described", "lay"]
