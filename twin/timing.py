"""CPU time and memory of two trees of code, measured side by side: what a machine does meanwhile happens to both.

    base   calibrate                     warp  subtract  ...
    head              calibrate   warp                   subtract  ...      one process each, one working at a time

Both are given the same detector-visits, drawn beforehand, and do each Step turn about, so that both figures of a pair
are less than a second apart. A process has luck of its own (where its memory lies), so each round begins with fresh
ones, whose first detector-visit is not counted. What is compared is the ratio of sums over detector-visits. Memory is
measured afterwards by other processes, both at once, for it does not depend on what else runs.

`cpu_s` and `peak_mb` are those of `twin.gauge`, which are not what a run notes for itself.
"""

import json
import os
import select
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count, cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from time import monotonic
from typing import IO, Any, Final, Self

import numpy as np

from reports.store import seeded
from schemas.measures import STEP, empty
from twin.checkout import environment

SAMPLES: Final = 20          # detector-visits
ROUNDS: Final = 2            # of fresh processes
OF_MEMORY: Final = 14        # detector-visits: fewer cannot be significant among many metrics
MINUTES: Final = 4.0         # at most
PATIENCE_S: Final = 600.0    # for one answer
LEAST_MB: Final = 8.0        # a Step's own memory below this is mostly the allocator's: it counts as this much
GAUGE: Final = Path("twin") / "gauge.py"
# The environment of a process by what it gauges. Huge pages are asked for by NumPy where there are some just then, and
# clearing them empties the caches: without them CPU times scatter half as much, about the same mean.
ALLOCATION: Final = {"cpu": {"NUMPY_MADVISE_HUGEPAGE": "0"},
                     "memory": {"NUMPY_MADVISE_HUGEPAGE": "0", "MALLOC_MMAP_THRESHOLD_": "131072"}}

Say = Callable[[str], None]
Used = list[list[Any]]       # [name, size, CPU seconds or MB] of each Step


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder of code with an interpreter for it."""

    python: Path
    path: Path
    label: str


@dataclass(frozen=True, slots=True)
class Timed:
    """STEP rows with `seed` of both sides, in the order in which both were given the same detector-visits."""

    base: np.ndarray
    head: np.ndarray
    note: str = ""             # why times are not compared, or are by fewer samples
    wall_s: float = 0.0

    @property
    def samples(self) -> int:
        """Detector-visits that were measured."""
        return len(np.unique(self.base[["seed", "visit", "detector"]]))

    def ratios(self, column: str = "cpu_s") -> dict[str, float]:
        """Head over base by Step, of sums over the detector-visits."""
        sums = [{name: float(np.nansum(side[column][side["name"] == name])) for name in np.unique(side["name"])}
                for side in (self.base, self.head)]
        return {name.decode(): sums[1][name] / total for name, total in sums[0].items()
                if total > 0 and name in sums[1]}


class TimingError(RuntimeError):
    """Why times cannot be compared."""


@dataclass(frozen=True, slots=True)
class Place:
    """A detector-visit of a test."""

    seed: int
    visit: int
    detector: int

    def asked(self, what: str) -> dict[str, Any]:
        """The request to prepare it or to begin it."""
        return {"do": what, "seed": self.seed, "visit": self.visit, "detector": self.detector}


@dataclass(frozen=True, slots=True)
class Pair:
    """What both sides used in one detector-visit."""

    place: Place
    base: Used
    head: Used


def interleaved(base: Tree, head: Tree, scenarios: tuple[Path, Path], seeds: Sequence[int], *, cache: Path,
                samples: int = SAMPLES, rounds: int = ROUNDS, minutes: float = MINUTES,
                say: Say = lambda line: None) -> Timed:
    """Measure both sides on the same detector-visits of as few nights as hold `samples` of them.

    `scenarios` are the files of base and head: their settings may differ in what the pipeline does. Never an error:
    where times cannot be compared, `note` says why and there are no rows.
    """
    begun = monotonic()
    until = begun + 60 * minutes
    try:
        with TemporaryDirectory(prefix="alert-twin-times-") as folder:
            sides = [Side(tree, scenario, cache, Path(folder) / name) for tree, scenario, name in
                     zip((base, head), scenarios, ("base", "head"), strict=True)]
            places = _prepared(sides, seeds, samples, rounds, say)
            times = _times(sides, places, min(rounds, len(places)), until, say)
            late = monotonic() > until
            memory = _memory(sides, places[:OF_MEMORY], until, say)
    except TimingError as error:
        return Timed(empty(seeded(STEP)), empty(seeded(STEP)), f"times are not compared: {error}", monotonic() - begun)
    rows = _rows([(pair.place, pair.base) for pair in times]), _rows([(pair.place, pair.head) for pair in times])
    _add_memory(rows, memory)
    note = f"times rest on {len(times)} of {len(places)} detector-visits: " + (
        f"{minutes:g} minutes were over" if late else "the others failed") if len(times) < len(places) else ""
    return Timed(*rows, note, monotonic() - begun)


# --- processes -------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class Side:
    """One side of a measurement."""

    tree: Tree
    scenario: Path
    cache: Path
    scratch: Path

    def opened(self, seed: int) -> dict[str, Any]:
        """The request to begin a night."""
        return {"do": "open", "scenario": str(self.scenario), "seed": seed, "cache": str(self.cache),
                "scratch": str(self.scratch)}


class Worker:
    """A process that runs detector-visits of one side."""

    def __init__(self, side: Side, process: "subprocess.Popen[bytes]", errors: IO[bytes]) -> None:
        self._side, self._process, self._errors = side, process, errors
        self._waiting = b""

    @classmethod
    @contextmanager
    def of(cls, side: Side, kind: str) -> Iterator[Self]:
        """A fresh process that gauges CPU time or memory, gone at the end of the context."""
        tree = side.tree
        if not (tree.path / GAUGE).is_file():
            raise TimingError(f"{tree.label} has no {GAUGE} to measure it")
        side.scratch.mkdir(exist_ok=True)
        variables = environment(tree.path, side.cache) | ALLOCATION[kind]
        with TemporaryFile() as errors:
            process = subprocess.Popen([str(tree.python), "-m", "twin.gauge", kind], cwd=tree.path, env=variables,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                                       start_new_session=True)
            try:
                yield cls(side, process, errors)
            finally:
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    with suppress(OSError):
                        pipe.close()  # type: ignore[union-attr]  # they are pipes

    def send(self, request: Mapping[str, Any]) -> None:
        """Ask for something."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None

    def answer(self) -> dict[str, Any]:
        """The answer to the oldest request; TimingError where it is an error or does not come."""
        found: dict[str, Any] = json.loads(self._line())
        if "error" in found:
            raise TimingError(f"{self._side.tree.label}: {found['error']}")
        return found

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Ask, and wait for the answer."""
        self.send(request)
        return self.answer()

    def _line(self) -> bytes:
        out = self._process.stdout
        assert out is not None
        while b"\n" not in self._waiting:
            ready, _, _ = select.select([out], [], [], PATIENCE_S)
            if not ready:
                raise TimingError(f"{self._side.tree.label} does not answer for {PATIENCE_S:g} s")
            if not (more := os.read(out.fileno(), 1 << 16)):
                raise self._ended()
            self._waiting += more
        line, _, self._waiting = self._waiting.partition(b"\n")
        return line

    def _ended(self) -> TimingError:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return TimingError(f"{self._side.tree.label}: {lines[-1] if lines else 'its process ended'}")


@contextmanager
def _fresh(sides: Sequence[Side], kind: str) -> Iterator[list[Worker]]:
    """A fresh process for each side."""
    with ExitStack() as stack:
        yield [stack.enter_context(Worker.of(side, kind)) for side in sides]


def _both(workers: Sequence[Worker], requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Answers of both at once: nothing is timed."""
    for worker, request in zip(workers, requests, strict=True):
        worker.send(request)
    return [worker.answer() for worker in workers]


# --- measuring -------------------------------------------------------------------------------------------------------

def _prepared(sides: Sequence[Side], seeds: Sequence[int], samples: int, rounds: int, say: Say) -> list[Place]:
    """The detector-visits to measure, drawn, with the templates of their nights: at most all of them in each round."""
    places: list[Place] = []
    with _fresh(sides, "cpu") as workers:
        for seed in seeds:
            if len(places) >= samples:
                break
            visits = [answer["visits"] for answer in _both(workers, [side.opened(seed) for side in sides])]
            if visits[0] != visits[1]:
                raise TimingError(f"the sides have other visits in the night of seed {seed}")
            night = [Place(seed, *place) for place in visits[0]][:samples - len(places)]
            for place in night:
                _both(workers, [place.asked("prepare")] * 2)
            places += night
            say(f"times: {len(places)} detector-visits prepared")
    if not places:
        raise TimingError("the test has no detector-visit")
    return list(islice(cycle(places), min(samples, rounds * len(places))))


def _times(sides: Sequence[Side], places: Sequence[Place], rounds: int, until: float, say: Say) -> list[Pair]:
    """CPU seconds, those of failed detector-visits left out."""
    found: list[Pair] = []
    for number, chosen in enumerate(np.array_split(np.arange(len(places)), rounds)):
        here = [places[i] for i in chosen]
        with _fresh(sides, "cpu") as workers:
            _begin(workers, sides, here, _turn_about)
            for k, place in enumerate(here):
                if monotonic() > until and found:
                    return found
                found += _pair(place, _turn_about(workers, place, number + k))
        say(f"times: round {number + 1} of {rounds}, {len(found)} of {len(places)} detector-visits measured")
    return found


def _memory(sides: Sequence[Side], places: Sequence[Place], until: float, say: Say) -> list[Pair]:
    """Memory [MB], those of failed detector-visits left out."""
    found: list[Pair] = []
    here = list(dict.fromkeys(places))
    with _fresh(sides, "memory") as workers:
        _begin(workers, sides, here, _at_once)
        for place in here:
            if monotonic() > until and found:
                break
            found += _pair(place, _at_once(workers, place, 0))
    say(f"times: memory of {len(found)} detector-visit{'' if len(found) == 1 else 's'} measured")
    return found


Way = Callable[[Sequence[Worker], Place, int], list[dict[str, Any]]]


def _begin(workers: Sequence[Worker], sides: Sequence[Side], places: Sequence[Place], way: Way) -> None:
    """Open the nights of a round, and warm up with its first detector-visit."""
    for seed in dict.fromkeys(place.seed for place in places):
        _both(workers, [side.opened(seed) for side in sides])
    way(workers, places[0], 0)
    _both(workers, [side.opened(places[0].seed) for side in sides])


def _turn_about(workers: Sequence[Worker], place: Place, number: int) -> list[dict[str, Any]]:
    """What both sides say of a detector-visit in the end: a Step of one, the same of the other, and so on."""
    _both(workers, [place.asked("begin")] * 2)
    answers: list[dict[str, Any]] = [{}, {}]
    for turn in count(number):
        for which in (turn % 2, 1 - turn % 2):
            if not answers[which]:
                answers[which] = workers[which].ask({"do": "step"})
        if all(answers):
            break
    return answers


def _at_once(workers: Sequence[Worker], place: Place, number: int) -> list[dict[str, Any]]:
    """What both sides say of a detector-visit in the end, working at the same time."""
    _both(workers, [place.asked("begin")] * 2)
    answers: list[dict[str, Any]] = [{}, {}]
    while not all(answers):
        busy = [which for which in (0, 1) if not answers[which]]
        for which, answer in zip(busy, _both([workers[w] for w in busy], [{"do": "step"}] * len(busy)), strict=True):
            answers[which] = answer
    return answers


def _pair(place: Place, answers: Sequence[Mapping[str, Any]]) -> list[Pair]:
    """What both sides used; nothing where the pipeline of either gave up."""
    if any("failed" in answer for answer in answers):
        return []
    if other := [side for side, answer in zip(("base", "head"), answers, strict=True)
                 if any(len(step) != 3 for step in answer["steps"])]:
        raise TimingError(f"the code of {other[0]} gauges its Steps in another way")
    return [Pair(place, answers[0]["steps"], answers[1]["steps"])]


# --- rows ------------------------------------------------------------------------------------------------------------

def _rows(found: Sequence[tuple[Place, Used]]) -> np.ndarray:
    """STEP rows with `seed`, in the order measured, without memory."""
    rows = empty(seeded(STEP), sum(len(used) for _, used in found))
    flat = [(place, step) for place, used in found for step in used]
    for row, (place, (name, size, cpu_s)) in zip(rows, flat, strict=True):
        row["seed"], row["visit"], row["detector"] = place.seed, place.visit, place.detector
        row["name"], row["size"], row["cpu_s"], row["measured"] = name.encode(), size, cpu_s, True
    return rows


def _add_memory(rows: tuple[np.ndarray, np.ndarray], pairs: Sequence[Pair]) -> None:
    """Fill in, in place, the memory of Steps that need some on either side; of one that does not there, `LEAST_MB`."""
    sides = [_by_step([(pair.place, used) for pair, used in zip(pairs, part, strict=True)])
             for part in ([pair.base for pair in pairs], [pair.head for pair in pairs])]
    names = {name for side in sides for _, name in side}
    large = {name for name in names
             if max(float(np.median([mb for (_, n), mb in side.items() if n == name] or [0.0])) for side in sides)
             >= LEAST_MB}
    for side, known in zip(rows, sides, strict=True):
        told: set[tuple[Place, str]] = set()
        for row in side:
            key = Place(int(row["seed"]), int(row["visit"]), int(row["detector"])), row["name"].decode()
            if key in known and key[1] in large and key not in told:
                row["peak_mb"] = max(known[key], LEAST_MB)
                told.add(key)


def _by_step(found: Sequence[tuple[Place, Used]]) -> dict[tuple[Place, str], float]:
    """The most that a Step needed in a detector-visit."""
    out: dict[tuple[Place, str], float] = {}
    for place, used in found:
        for name, _, mb in used:
            out[place, name] = max(out.get((place, name), 0.0), mb)
    return out


__all__ = ["ROUNDS", "SAMPLES", "Timed", "TimingError", "Tree", "interleaved"]
