"""Where the sources of live detectors come from: rendered images, or truth through a model of the pixel half.

    nextVisit -> box ... image -> take: Measured, and the truth about it
"""

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from pipeline.ephemerides import TableEphemerides
from pipeline.footprint import PRELOAD_MARGIN_ARCSEC, footprint_box
from pipeline.pixel_half import Measured
from pipeline.ports import Ephemerides, Satellites
from pipeline.satellites import TrackSatellites
from schemas.exposure import Box, Visit
from simulators import observe
from simulators.observe import Facts
from twin import exposures
from twin.cache import Cache
from twin.catalogue import measured_from_catalog
from twin.detector_visit import Half, true_values
from twin.exposures import Input
from twin.halves import Job, is_known, observatory, pixel_half, recalled_half, template_of
from twin.observatory import Observatory
from twin.pool import LookAhead
from twin.prefill import catalog_of, template_sigmas_px
from twin.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Taken:
    """One detector of one visit, as its worker has it when the pixel half is over."""

    measured: Measured | None      # None: the pixel half had no work, or failed
    status: str                    # done | no_work | failed
    reason: str
    log: np.ndarray                # EXPOSURE_LOG, one row
    truth: np.ndarray              # TRUTH
    half: Half | None = None       # of a rendered image


class Source(Protocol):
    """The world of the live detectors of one night; visits by their number in its plan."""

    @property
    def fidelities(self) -> dict[int, str]:
        """`pixels` or `catalogue` of each detector that is live."""
        ...

    @property
    def brief(self) -> bool:
        """Whether single Steps are too many to be kept."""
        ...

    @property
    def facts(self) -> dict[str, str]:
        """What a run's facts say of its sources."""
        ...

    @property
    def ephemerides(self) -> Ephemerides: ...

    @property
    def satellites(self) -> Satellites: ...

    def visit(self, number: int) -> Visit: ...

    def box(self, number: int, detector: int) -> Box:
        """Where nextVisit says that the detector will look, with the margin of preload."""
        ...

    def take(self, number: int, detector: int) -> Taken:
        """What the pixel half yields; the same whenever it is asked for."""
        ...


class SimulatedDetectors:
    """Detectors of one simulated field: some are rendered, the sources of the others drawn from the same sky's truth.

    The scenario is that of the run folder, whose camera has the live detectors (`live_camera`).
    """

    brief = False

    def __init__(self, scenario: Scenario, folder: Path, pool: Executor, processes: int, *, cache: Cache | None = None,
                 keep_images: bool = False) -> None:
        self.here: Observatory = observatory(folder, cache)
        pixels = scenario.fidelities.pixels
        self.fidelities = dict.fromkeys(scenario.live, "catalogue") | dict.fromkeys(pixels, "pixels")
        self._folder, self._cache, self._keep_images = folder, cache, keep_images
        self._shape = self.here.config.camera.ny, self.here.config.camera.nx
        jobs = [self._job(number, detector) for number in range(len(self.here.visits))
                for detector in pixels]
        self._known = {job for job in jobs if is_known(job)}
        self.templates = {band: template_of(folder, band, pool, cache) for band in self.here.earlier} if jobs else {}
        self._ahead = LookAhead(pool, pixel_half, [job for job in jobs if job not in self._known], 2 * processes,
                                lambda job: self.templates[job.visit.band])
        self._inputs: dict[str, list[Input]] = {}

    @cached_property
    def ephemerides(self) -> Ephemerides:
        """Of the asteroids that are known."""
        return TableEphemerides(self.here.ephemerides())

    @cached_property
    def satellites(self) -> Satellites:
        """The allow-list service."""
        return TrackSatellites(self.here.tracks())

    def visit(self, number: int) -> Visit:
        """A visit of the night."""
        return self.here.visits[number]

    def box(self, number: int, detector: int) -> Box:
        """Where nextVisit says that a detector will look, with the margin of preload."""
        return footprint_box(self.here.predicted(self.visit(number), detector), self._shape, PRELOAD_MARGIN_ARCSEC)

    def take(self, number: int, detector: int) -> Taken:
        """What the pixel half yields, or would yield."""
        if self.fidelities[detector] == "catalogue":
            return self._drawn(self.visit(number), detector)
        job = self._job(number, detector)
        half = recalled_half(job) if job in self._known else None
        half = self._ahead.result(job) if half is None else half
        return Taken(half.measured, half.status, half.reason, half.log, half.truth, half)

    @property
    def facts(self) -> dict[str, str]:
        """What the templates were made of, by band."""
        return {f"template_{band}": future.result() for band, future in self.templates.items() if future.done()}

    def _drawn(self, visit: Visit, detector: int) -> Taken:
        inputs = self._inputs_of(visit.band)
        facts = self.here.facts(visit, detector)
        truth = observe.sources(self.here.sky, visit, detector, self.here.seed,
                                template_visits=list(dict.fromkeys(one.visit for one in inputs)))
        catalog = catalog_of(self.here, visit, detector, facts, truth, inputs)
        measured = measured_from_catalog(catalog, visit, detector, facts.wcs, self._shape,
                                         psf_sigma_px=facts.psf_sigma_px, zeropoint=facts.zeropoint,
                                         template_sigmas_px=template_sigmas_px(inputs))
        return Taken(measured, "done", "", _with_facts(measured.log, facts), truth)

    def _inputs_of(self, band: str) -> list[Input]:
        """Inputs of a band's template; those of one detector stand for all."""
        if band not in self._inputs:
            found = exposures.inputs(self.here.sky, self.here.template_visits(band), self.here.seed)
            self._inputs[band] = [one for one in found if one.detector == found[0].detector]
        return self._inputs[band]

    def _job(self, number: int, detector: int) -> Job:
        return Job(self._folder, self.visit(number), detector, self._keep_images, self._cache)


def live_camera(scenario: Scenario) -> Scenario:
    """The scenario whose camera has the live detectors, in the order of their numbers."""
    detectors, pixels = tuple(sorted(scenario.live)), scenario.fidelities.pixels
    camera = msgspec.structs.replace(scenario.simulation.camera, detectors=detectors, select=(),
                                     rendered=pixels or detectors[:1])
    return msgspec.structs.replace(scenario, simulation=msgspec.structs.replace(scenario.simulation, camera=camera))


def _with_facts(log: np.ndarray, facts: Facts) -> np.ndarray:
    """The log with what is true of the exposure."""
    row = log.copy()
    for name, value in true_values(facts).items():
        row[name] = value
    return row


__all__ = ["SimulatedDetectors", "Source", "Taken", "live_camera"]
