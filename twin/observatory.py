"""The simulated observatory as the night sees it: its visits, exposures with their truth, what services know."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import InputError
from pipeline.template import Quality, select
from schemas.exposure import Exposure, Visit
from schemas.raw import Calibrations
from schemas.wcs import Wcs
from simulators import cadence
from simulators.camera import offset_px
from simulators.observe import Exposed, Facts, circumstances
from simulators.perturbed import MissingPackage
from simulators.sky import Sky
from twin import exposures
from twin.exposures import Input

if TYPE_CHECKING:
    from twin.scenario import Scenario


class Observatory:
    """Sky, telescope and weather of one scenario; exposures depend on (scenario, visit, detector) alone.

    `masks` is the folder where the masks of earlier exposures are kept, `VISIT_DETECTOR.npy`.
    """

    def __init__(self, scenario: "Scenario", masks: Path) -> None:
        self.scenario, self.masks = scenario, masks
        self.config, self.seed = scenario.simulation, scenario.seed
        self._inputs: dict[str, list[Input]] = {}

    @cached_property
    def sky(self) -> Sky:
        """Everything on the sky."""
        try:
            return Sky(self.config, self.seed)
        except MissingPackage as error:
            raise InputError(str(error)) from None

    @cached_property
    def visits(self) -> list[Visit]:
        """The night's, in time order; InputError where a survey has none for the field."""
        try:
            return cadence.visits(self.config, self.seed)
        except ValueError as error:
            raise InputError(str(error)) from None

    @cached_property
    def earlier(self) -> dict[str, list[Visit]]:
        """By band, the earlier visits that its template is made of, chosen by their seeing."""
        rows = cadence.history(self.config, self.seed)
        return {band: self._best([visit for visit in rows if visit.band == band])
                for band in dict.fromkeys(visit.band for visit in self.visits)}

    def template_visits(self, band: str) -> list[Visit]:
        """The same for any band, also for one in which the night has no visit."""
        return self.earlier.get(band) or self._best(cadence.history(self.config, self.seed, [band]))

    def _best(self, visits: list[Visit]) -> list[Visit]:
        """Those that a template takes, in time order."""
        now = [cadence.conditions_of(self.config, visit, self.seed) for visit in visits]
        chosen = select([Quality(c.fwhm_eff, 10 ** (-0.8 * c.extinction)) for c in now],
                        self.scenario.pipeline.template)
        return [visits[i] for i in sorted(chosen)]

    def facts(self, visit: Visit, detector: int) -> Facts:
        """The true circumstances of an exposure of the night."""
        return circumstances(self.sky, visit, detector, self.seed)

    def predicted(self, visit: Visit, detector: int) -> Wcs:
        """Where nextVisit says that a detector will look."""
        c = self.config.camera
        plain = Wcs.tangent(visit.ra, visit.dec, (c.ny, c.nx), scale_arcsec=c.scale_arcsec, rotation=visit.rotation)
        return plain.shifted(*offset_px(c, detector))

    def inputs(self, band: str) -> list[Input]:
        """The inputs of a band's template."""
        if band not in self._inputs:
            self._inputs[band] = exposures.inputs(self.sky, self.earlier[band], self.seed)
        return self._inputs[band]

    def expose_earlier(self, visit: Visit, detector: int) -> Exposure:
        """An earlier exposure; its mask is kept for the truth of the night."""
        exposure = exposures.expose_earlier(self.sky, visit, detector, self.seed)
        self.masks.mkdir(parents=True, exist_ok=True)
        np.save(self._mask_path(visit, detector), exposure.mask.astype(np.uint8), allow_pickle=False)
        return exposure

    def expose(self, visit: Visit, detector: int) -> Exposed:
        """An exposure of the night, its truth complete: template flux, optimum error, S/N, masks of the inputs."""
        return exposures.expose(self.sky, visit, detector, self.seed, self.inputs(visit.band), self.mask)

    def calibrations(self, visit: Visit, detector: int) -> Calibrations | None:
        """What the signature of a raw exposure is removed with; None where exposures come without."""
        return exposures.calibrations(self.config, visit, detector, self.seed)

    def mask(self, visit: Visit, detector: int) -> np.ndarray:
        """The mask of an earlier exposure, uint8."""
        found: np.ndarray = np.load(self._mask_path(visit, detector), mmap_mode="r", allow_pickle=False)
        return found

    def has_mask(self, visit: Visit, detector: int) -> bool:
        """Whether the mask of an earlier exposure is kept."""
        return self._mask_path(visit, detector).is_file()

    def tracks(self) -> np.ndarray:
        """TRACK rows of the satellites that the allow-list service knows."""
        return exposures.tracks(self.config, self.visits, self.seed)

    def ephemerides(self) -> np.ndarray:
        """EPHEMERIS rows of the asteroids that the ephemeris service knows."""
        return self.sky.ephemerides()

    def _mask_path(self, visit: Visit, detector: int) -> Path:
        return self.masks / f"{visit.visit:d}_{detector:d}.npy"
