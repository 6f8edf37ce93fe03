"""CPU time and memory of two trees of code, measured side by side: what a machine does meanwhile happens to both.

    base   calibrate                     warp  subtract  ...
    head              calibrate   warp                   subtract  ...      one process each, one working at a time

Both are given the same detector-visits, drawn beforehand, and do each Step turn about, so that both figures of a pair
are less than a second apart. A process has luck of its own (where its memory lies), so each round begins with fresh
ones, whose first detector-visit is not counted. What is compared is the ratio of sums over detector-visits; `cpu_s` and
`peak_mb` are those of `twin.gauge`, which are not what a run notes for itself.
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

SAMPLES: Final = 24        # detector-visits
ROUNDS: Final = 3          # of fresh processes
MINUTES: Final = 4.0       # at most
PATIENCE_S: Final = 600.0  # for one answer
LEAST_MB: Final = 4.0      # a Step's own peak below this tells of the allocator's pages, not of the Step
GAUGE: Final = Path("twin") / "gauge.py"


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
        sums = [{name: float(side[column][side["name"] == name].sum()) for name in np.unique(side["name"])}
                for side in (self.base, self.head)]
        return {name.decode(): sums[1][name] / sums[0][name] for name in sums[0]
                if sums[0][name] > 0 and np.isfinite(sums[1].get(name, np.nan))}


class TimingError(RuntimeError):
    """Why times cannot be compared."""


@dataclass(frozen=True, slots=True)
class Place:
    """A detector-visit of a test."""

    seed: int
    visit: int
    detector: int

    def asked(self, what: str) -> dict[str, Any]:
        """The request to prepare it or to work on it."""
        return {"do": what, "seed": self.seed, "visit": self.visit, "detector": self.detector}


def interleaved(base: Tree, head: Tree, scenarios: tuple[Path, Path], seeds: Sequence[int], *, cache: Path,
                samples: int = SAMPLES, rounds: int = ROUNDS, minutes: float = MINUTES,
                say: Callable[[str], None] = lambda line: None) -> Timed:
    """Measure both sides on the same detector-visits of as few nights as hold `samples` of them.

    `scenarios` are the files of base and head: their settings may differ in what the pipeline does. Never an error:
    where times cannot be compared, `note` says why and there are no rows.
    """
    begun = monotonic()
    try:
        with TemporaryDirectory(prefix="alert-twin-times-") as folder:
            sides = [Side(tree, scenario, cache, Path(folder) / name) for tree, scenario, name in
                     zip((base, head), scenarios, ("base", "head"), strict=True)]
            places = _prepared(sides, seeds, samples, rounds, say)
            found = _measured(sides, places, min(rounds, len(places)), begun + 60 * minutes, say)
    except TimingError as error:
        return Timed(empty(seeded(STEP)), empty(seeded(STEP)), f"times are not compared: {error}", monotonic() - begun)
    rows = [_rows(part) for part in found]
    return Timed(*_without_small(*rows), _note(len(found[0]), len(places), minutes), monotonic() - begun)


def _note(measured: int, planned: int, minutes: float) -> str:
    if measured == planned:
        return ""
    return (f"times rest on {measured} of {planned} detector-visits: the others failed, or {minutes:g} minutes were "
            "over")


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
    def of(cls, side: Side) -> Iterator[Self]:
        """A fresh process, which is gone at the end of the context."""
        tree = side.tree
        if not (tree.path / GAUGE).is_file():
            raise TimingError(f"{tree.label} has no {GAUGE} to measure it")
        side.scratch.mkdir(exist_ok=True)
        with TemporaryFile() as errors:
            process = subprocess.Popen([str(tree.python), "-m", "twin.gauge"], cwd=tree.path, stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=errors, env=environment(tree.path, side.cache),
                                       start_new_session=True)
            try:
                yield cls(side, process, errors)
            finally:
                with suppress(OSError):
                    process.stdin.close()  # type: ignore[union-attr]  # it is a pipe
                process.kill()
                process.wait()
                process.stdout.close()  # type: ignore[union-attr]  # it is a pipe

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
def _pair(sides: Sequence[Side]) -> Iterator[list[Worker]]:
    """A fresh process for each side."""
    with ExitStack() as stack:
        yield [stack.enter_context(Worker.of(side)) for side in sides]


def _both(workers: Sequence[Worker], requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Answers of both at once: nothing is measured."""
    for worker, request in zip(workers, requests, strict=True):
        worker.send(request)
    return [worker.answer() for worker in workers]


def _prepared(sides: Sequence[Side], seeds: Sequence[int], samples: int, rounds: int,
              say: Callable[[str], None]) -> list[Place]:
    """The detector-visits to measure, drawn, with the templates of their nights: at most all of them in each round."""
    places: list[Place] = []
    with _pair(sides) as workers:
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


Found = list[tuple[Place, list[list[Any]]]]


def _measured(sides: Sequence[Side], places: Sequence[Place], rounds: int, until: float,
              say: Callable[[str], None]) -> tuple[Found, Found]:
    """What each side answers of each detector-visit."""
    found: tuple[Found, Found] = ([], [])
    for number, chosen in enumerate(np.array_split(np.arange(len(places)), rounds)):
        here = [places[i] for i in chosen]
        with _pair(sides) as workers:
            _begin(workers, sides, here)
            for k, place in enumerate(here):
                if monotonic() > until and found[0]:
                    return found
                answers = _turn_about(workers, place, number + k)
                if not any("failed" in answer for answer in answers):
                    for part, answer in zip(found, answers, strict=True):
                        part.append((place, answer["steps"]))
        say(f"times: round {number + 1} of {rounds}, {len(found[0])} of {len(places)} detector-visits measured")
    return found


def _turn_about(workers: Sequence[Worker], place: Place, number: int) -> list[dict[str, Any]]:
    """What both sides say of a detector-visit in the end: a Step of one, the same of the other, and so on."""
    _both(workers, [place.asked("begin")] * 2)
    answers: list[dict[str, Any]] = [{}, {}]
    for turn in count(number):
        for which in (turn % 2, 1 - turn % 2):
            if not answers[which]:
                answers[which] = workers[which].ask({"do": "step"})
        if all(answers):
            return answers
    raise AssertionError("unreachable")


def _begin(workers: Sequence[Worker], sides: Sequence[Side], places: Sequence[Place]) -> None:
    """Open the nights of a round, and warm up with its first detector-visit."""
    for seed in dict.fromkeys((places[0].seed, *(place.seed for place in places))):
        _both(workers, [side.opened(seed) for side in sides])
    _turn_about(workers, places[0], 0)
    _both(workers, [side.opened(places[0].seed) for side in sides])


def _rows(found: Found) -> np.ndarray:
    """STEP rows with `seed`, in the order measured."""
    rows = empty(seeded(STEP), sum(len(steps) for _, steps in found))
    flat = [(place, step) for place, steps in found for step in steps]
    for row, (place, (name, size, cpu_s, peak_mb)) in zip(rows, flat, strict=True):
        row["seed"], row["visit"], row["detector"] = place.seed, place.visit, place.detector
        row["name"], row["size"], row["cpu_s"], row["peak_mb"] = name.encode(), size, cpu_s, peak_mb
        row["measured"] = True
    return rows


def _without_small(base: np.ndarray, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows without the memory of Steps whose own is next to nothing on both sides."""
    for name in np.unique(np.concatenate([base["name"], head["name"]])):
        here = [side["name"] == name for side in (base, head)]
        own = [float(np.median(side["peak_mb"][mask])) if mask.any() else 0.0
               for side, mask in zip((base, head), here, strict=True)]
        if not max(own) >= LEAST_MB:
            base["peak_mb"][here[0]] = head["peak_mb"][here[1]] = np.nan
    return base, head


__all__ = ["ROUNDS", "SAMPLES", "Timed", "TimingError", "Tree", "interleaved"]
