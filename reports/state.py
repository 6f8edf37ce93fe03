"""How a run stands, from its folder alone: what its process wrote there, and whether that process lives.

    RUN/state.json    how far it is; written aside and renamed, about every second
    RUN/.owner        locked by its process as long as that lives: of a killed one the kernel gives the lock back
"""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np

from reports.delays import LIMIT_S
from reports.store import StoreError

STATE: Final = "state.json"
OWNER: Final = ".owner"
# Ends of bins of delays since the end of readout [s]: each half a second up to 200 s, then 1 % longer to three days.
EDGES: Final = np.concatenate([np.arange(1, 401) / 2, 200.0 * 1.01 ** np.arange(1, 720)])


class VisitState(msgspec.Struct, frozen=True, kw_only=True):
    """A visit and where its detectors are; the numbers add up to `detectors` where its messages are out."""

    visit: int
    band: str
    opens_s: float             # on the simulated clock
    detectors: int
    waiting: int = 0           # for a worker
    working: int = 0
    saved: int = 0             # and not sent
    sent: int = 0
    failed: int = 0
    alerts: int = 0            # sent
    slowest_s: float | None = None   # of those sent, since the end of readout


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """A night so far."""

    origin_mjd_tai: float      # of the simulated clock
    at_s: float
    opened: int                # visits
    waiting: int = 0           # messages
    busy: int = 0              # workers
    idle: int = 0
    starting: int = 0
    cap: int = 0
    produced: int = 0          # alerts that were saved
    sent: int = 0
    late: int = 0              # of those sent: later than 60 s after the end of readout
    lost: dict[str, int] = {}  # never to be sent, by reason
    delays: tuple[int, ...] = ()     # alerts sent, by delay since the end of readout in bins of EDGES
    last: tuple[VisitState, ...] = ()

    @property
    def on_time(self) -> float:
        """Share within 60 s among alerts that were sent or lost; NaN without any."""
        known = self.sent + sum(self.lost.values())
        return (self.sent - self.late) / known if known else float("nan")


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as its process wrote it down last."""

    version: int = 1
    kind: Literal["counts", "pixels", "live", "sweep"]
    name: str = ""
    seed: int = 0
    status: Literal["running", "done", "failed"] = "running"
    why: str = ""              # it failed
    process: int = 0
    started: float = 0.0       # wall clock, seconds since 1970
    updated: float = 0.0
    begun: int = 1             # how often: a killed run may be done again
    doing: str = ""            # before and beside the night itself
    done: int = 0              # visits, of a sweep platforms
    of: int = 0
    settings: dict[str, Any] = {}    # what the run was told beside its scenario
    night: Tally | None = None

    @property
    def unit(self) -> str:
        """What `done` counts."""
        return "platform" if self.kind == "sweep" else "visit"

    @property
    def place(self) -> str:
        """How far it is, in words."""
        if not self.of:
            return self.doing or "the beginning"
        at = self.night.opened if self.night is not None else self.done
        if not at:
            return f"{self.doing or 'the beginning'}, before the first of {self.of} {self.unit}s"
        return f"{self.unit} {at} of {self.of}"


def read_state(folder: Path) -> State | None:
    """The state in a folder; None where it has none. StoreError where it cannot be read."""
    try:
        return msgspec.json.decode((folder / STATE).read_bytes(), type=State)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(f"{folder / STATE}: unreadable ({error})") from None


def is_owned(folder: Path) -> bool:
    """Whether the process that writes into a folder lives."""
    try:
        return is_locked(folder / OWNER)
    except OSError:
        return False


def is_locked(path: Path) -> bool:
    """Whether a process holds a file for itself; OSError where the file cannot be opened."""
    lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def look(folder: Path) -> tuple[State | None, bool]:
    """The state, and whether its run was killed: it says that it is running, and its process is gone."""
    state = read_state(folder)
    if state is None or state.status != "running" or is_owned(folder):
        return state, False
    state = read_state(folder)         # it may have ended between the two looks
    return state, state is not None and state.status == "running"


def unfinished(folder: Path) -> str:
    """Why a run's tables are not those of a whole run, in a sentence; "" where they are."""
    state, killed = look(folder)
    if state is None or state.status == "done":
        return ""
    what = "sweep" if state.kind == "sweep" else "run"
    if killed:
        return f"this {what} did not finish: killed at {state.place}"
    if state.status == "failed":
        return f"this {what} did not finish: {state.why} at {state.place}"
    return f"this {what} is still going: {state.place}"


def percentile_s(delays: Sequence[int], q: float) -> float:
    """The delay within which `q` % of alerts were sent, to the end of its bin; NaN without any.

    Examples
    --------
    >>> percentile_s([0, 3, 1], 50), percentile_s([], 50)
    (1.0, nan)
    """
    total = int(np.sum(delays, dtype=np.int64)) if len(delays) else 0
    if not total:
        return float("nan")
    k = int(np.searchsorted(np.cumsum(delays), q / 100 * total))
    return float(EDGES[k])


__all__ = ["EDGES", "LIMIT_S", "OWNER", "STATE", "State", "Tally", "VisitState", "is_locked", "is_owned", "look",
           "percentile_s", "read_state", "unfinished"]
