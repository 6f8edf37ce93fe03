"""A process that runs detector-visits when asked and says what each Step used: `python -m twin.gauge KIND`.

Requests and answers are lines of JSON on standard input and output; the end of the input is the end of the process.

    {"do": "open", "scenario": FILE, "seed": 3, "cache": FOLDER, "scratch": FOLDER}
        -> {"visits": [[visit, detector], ...]}
    {"do": "prepare", "seed": 3, "visit": ..., "detector": ...}
        -> {}
    {"do": "begin", "seed": 3, "visit": ..., "detector": ...}
        -> {}
    {"do": "step"}
        -> {}, after the last {"steps": [[name, size, used], ...]}, or {"failed": "..."}

and {"error": "..."} where a request fails. To open is to begin a night with an empty prompt store, again if need be. To
prepare is to draw the exposure and to make the template, into the cache and the scratch folder. To begin is to have the
exposure in memory; each Step of both halves is then done when it is asked for, and only that is measured.

KIND is `cpu`, CPU seconds of the process, or `memory`, the Step's own [MB]: its peak less what the process held when it
began. The peak of a process as the kernel tells it is mostly libraries and images: of 400 MB a Step's own 50 may grow
by a third before anybody sees a twentieth. Nor does what a Step has freed count: holes that the allocator keeps differ
by 10 % from process to process of the same code, so whoever starts a process that gauges memory sees to it that large
arrays have pages of their own, which go back when they are freed (`twin.timing.ALLOCATION`); then the same code differs
by 1 %. That doubles the CPU time, so memory and CPU time are not gauged by the same process.
"""

import ctypes
import gc
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from time import process_time
from typing import Any, Final, TypeVar

import numpy as np

from pipeline.ephemerides import TableEphemerides
from pipeline.errors import PipelineError
from pipeline.footprint import PRELOAD_MARGIN_ARCSEC, footprint_box
from pipeline.images import Template
from pipeline.ingest import read_template
from pipeline.open import open_store
from pipeline.pixel_half import Static, measure_sources
from pipeline.ports import Ports, Position
from pipeline.prompt import deliver, preload, report_sources
from pipeline.satellites import TrackSatellites
from pipeline.steps import Step, Steps
from schemas.exposure import Exposure, Visit
from schemas.raw import RawExposure
from twin import history
from twin.cache import Cache
from twin.pool import assert_one_thread
from twin.recall import Remembering, keep_template, recall_template
from twin.scenario import read_scenario

CATALOGUE_DELAY_D: Final = 60.0 / 86400     # of the catalogue half's clock after the exposure
PARENT_DEATH: Final = 1                     # PR_SET_PDEATHSIG of prctl(2)

T = TypeVar("T")


@dataclass(slots=True)
class Meter:
    """What each Step used of one kind: CPU seconds, or its own memory [MB]."""

    kind: str
    used: list[tuple[str, int, float]] = field(default_factory=list)
    _ahead: tuple[Step, float] | None = None    # a write announced, with what was used before it
    _begun: float = 0.0

    def start(self) -> None:
        """From here on."""
        if self.kind == "memory":
            _give_back()
            _forget_peak()
            self._begun = _memory_mb("VmRSS:")
        else:
            self._begun = process_time()

    def note(self, step: Step) -> None:
        """A Step was announced: what was used since the start is its own, or that of the write announced before it."""
        used = self._since()
        if self._ahead is not None:
            self._add(*self._ahead, used)
            used, self._ahead = 0.0, None
        if step.ahead:
            self._ahead = step.bare(), used
        else:
            self._add(step, used)

    def end(self) -> None:
        """The work is over."""
        if self._ahead is not None:
            self._add(*self._ahead, self._since())
            self._ahead = None

    def _since(self) -> float:
        if self.kind == "memory":
            return max(_memory_mb("VmHWM:") - self._begun, 0.0)
        return process_time() - self._begun

    def _add(self, step: Step, used: float, after: float = 0.0) -> None:
        self.used.append((step.name, step.size, max(used, after) if self.kind == "memory" else used + after))


class Nowhere:
    """A sink that takes all packets, and a recorder that keeps no rows."""

    remembers: Final = False

    def position(self, outbox: str) -> Position | None:
        return None

    def send(self, packets: Sequence[bytes], keys: Sequence[int] = (), position: Position | None = None) -> int:
        return len(packets)

    def append(self, table: str, rows: np.ndarray) -> None: ...

    def close(self) -> None: ...


class Night:
    """One night of a scenario, with a prompt store of its own."""

    def __init__(self, scenario: Path, seed: int, cache: Path, scratch: Path) -> None:
        self.here = Remembering(read_scenario(scenario, (), seed), Cache.open(cache))
        self.config = self.here.scenario.pipeline
        self._scratch = scratch
        self._templates: dict[str, Template | None] = {}
        self._store = Path(mkdtemp(prefix="store-", dir=scratch))
        nowhere = Nowhere()
        self._ports = Ports(clock=lambda: 0.0, store=open_store(f"duckdb:{self._store / 'prompt.duckdb'}"),
                            sink=nowhere, recorder=nowhere, ephemerides=TableEphemerides(self.here.ephemerides()),
                            satellites=TrackSatellites(self.here.tracks()))

    @property
    def places(self) -> list[tuple[int, int]]:
        """(visit, detector) of the night, in time order."""
        return [(visit.visit, detector) for visit in self.here.visits for detector in self.here.config.camera.detectors]

    def visit(self, visit: int) -> Visit:
        """A visit by its number."""
        return next(v for v in self.here.visits if v.visit == visit)

    def prepare(self, visit: int, detector: int) -> None:
        """Draw the exposure and make the template, unless that was done."""
        band = self.visit(visit).band
        path = self._template_path(band)
        if not path.is_file() and recall_template(self.here, band, path) is None:
            keep_template(self.here, band, path)
        self.here.expose(self.visit(visit), detector)

    def work(self, visit: int, detector: int) -> Steps[None]:
        """Both halves of a detector-visit, its exposure and template in memory."""
        about = self.visit(visit)
        exposure = in_memory(self.here.expose(about, detector).exposure)
        static = Static(self._template(about.band), history.references(self.here, exposure),
                        calibrations=self.here.calibrations(about, detector))
        return self._halves(exposure, static, replace(self._ports, clock=lambda: about.mjd_tai + CATALOGUE_DELAY_D))

    def _halves(self, exposure: Exposure | RawExposure, static: Static, ports: Ports) -> Steps[None]:
        visit, detector, config = exposure.visit, exposure.detector, self.config
        box = footprint_box(exposure.wcs, exposure.shape, PRELOAD_MARGIN_ARCSEC)
        known = yield from preload(visit, detector, box, ports, config)
        measured = yield from measure_sources(exposure, static, config.pixel_part())
        yield from report_sources(measured, known, ports, config)
        yield from deliver(ports, config, only=(visit.visit, detector))

    def close(self) -> None:
        """Let the store go."""
        self._ports.store.close()
        rmtree(self._store, ignore_errors=True)

    def _template(self, band: str) -> Template | None:
        if band not in self._templates:
            path = self._template_path(band)
            self._templates = {band: read_template(path) if path.is_file() else None}
        return self._templates[band]

    def _template_path(self, band: str) -> Path:
        return self._scratch / f"template-{self.here.seed}" / f"{band}.fits"


def in_memory(value: T) -> T:
    """A frozen dataclass whose arrays are no longer mapped from files: reading them is not the pipeline's work."""
    arrays = {f.name: np.array(getattr(value, f.name)) for f in fields(value)  # type: ignore[arg-type]  # a dataclass
              if isinstance(getattr(value, f.name), np.ndarray)}
    return replace(value, **arrays)  # type: ignore[type-var]  # a dataclass


@dataclass(slots=True)
class Session:
    """The nights that were opened, and the detector-visit that is being worked on."""

    kind: str
    nights: dict[int, Night] = field(default_factory=dict)
    steps: Steps[None] | None = None
    meter: Meter = field(default_factory=lambda: Meter(""))

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request."""
        match request["do"]:
            case "open":
                seed = int(request["seed"])
                if seed in self.nights:
                    self.nights.pop(seed).close()
                self.nights[seed] = Night(Path(request["scenario"]), seed, Path(request["cache"]),
                                          Path(request["scratch"]))
                return {"visits": self.nights[seed].places}
            case "prepare":
                self.nights[request["seed"]].prepare(request["visit"], request["detector"])
                return {}
            case "begin":
                self.steps = self.nights[request["seed"]].work(request["visit"], request["detector"])
                self.meter = Meter(self.kind)
                gc.collect()
                return {}
            case "step" if self.steps is not None:
                return self._step(self.steps)
        raise ValueError(f"unknown request {request['do']!r}")

    def _step(self, steps: Steps[None]) -> dict[str, Any]:
        self.meter.start()
        try:
            self.meter.note(next(steps))
        except StopIteration:
            self.meter.end()
            self.steps = None
            return {"steps": self.meter.used}
        except PipelineError as error:
            self.steps = None
            return {"failed": str(error)}
        return {}

    def close(self) -> None:
        """Let the stores go."""
        for night in self.nights.values():
            night.close()


def serve(kind: str) -> None:
    """Answer requests until there are no more."""
    _die_with_parent()
    assert_one_thread()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)     # what a library prints must not stand between the answers
    session = Session(kind)
    try:
        for line in sys.stdin:
            try:
                answer = session.answer(json.loads(line))
            except (PipelineError, OSError) as error:
                answer = {"error": " ".join(str(error).split()) or type(error).__name__}
            print(json.dumps(answer), file=answers)
    finally:
        session.close()


def _die_with_parent() -> None:
    with suppress(OSError, AttributeError):     # where there is no prctl the end of the input has to do
        ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL, 0, 0, 0)


def _give_back() -> None:
    """Give memory that was freed back to the system, so that using it again is seen."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _forget_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _memory_mb(key: str) -> float:
    """A figure of /proc/self/status [MB]; NaN where there is none."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key):
                return float(line.split()[1]) / 1024
    return float("nan")


if __name__ == "__main__":
    serve(sys.argv[1])
