"""Nothing computed twice: what decides each result, and the results that are kept by it.

    exposure    drawn, its truth complete: the simulation, the seed, visit and detector, the template's visits; the
                source of `twin.exposures` and all that it imports
    earlier     an exposure for a template: the same without the template
    template    its visits, the settings of calibration and templates; the source of `twin.history`
    difference  exposure and template as above, the settings of calibration, templates and differencing; the source of
                `twin.differencing`
    half        exposure and template as above, the pixel half's settings; the source of `twin.detector_visit`
    night       what services know of it: the simulation and the seed

and for each the versions of the libraries that this source imports, of Python and of the processor. The catalogue half
is in none of them: a change of it finds every pixel half as it was.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from pipeline.images import Calibrated, Template
from pipeline.pixel_config import PixelConfig
from pipeline.pixels import PixelsOnDisk
from schemas.exposure import Exposure, Visit
from simulators import surveyed
from simulators.observe import Exposed
from twin import closure, exposures, history
from twin.cache import Cache, Loan, link
from twin.detector_visit import Half, Seen
from twin.differencing import Differenced, make_difference
from twin.observatory import Observatory

if TYPE_CHECKING:
    from twin.scenario import Scenario

FORM: Final = 2             # of keys and entries
STAMPS: Final = "stamps.npy"
STARTED: Final = closure.started()
SOURCES: Final = {"exposure": "twin.exposures", "earlier": "twin.exposures", "night": "twin.exposures",
                  "template": "twin.history", "difference": "twin.differencing",
                  "half": "twin.detector_visit"}   # what computes each kind


def key_of(kind: str, decided_by: Mapping[str, Any]) -> str:
    """The key of a result: a hash of what decides it, of the source that computes it and of what that rests on."""
    source = closure.closure(SOURCES[kind])
    told = [FORM, kind, source.fingerprint, closure.libraries(source.others), decided_by]
    return blake2b(msgspec.msgpack.encode(told, order="sorted"), digest_size=16).hexdigest()


def is_lasting(kind: str) -> bool:
    """Whether what was computed is what its source now says: nothing of that was changed while this process ran."""
    return not closure.closure(SOURCES[kind]).touched_since(STARTED)


class Remembering(Observatory):
    """An observatory that draws nothing twice."""

    def __init__(self, scenario: "Scenario", cache: Cache) -> None:
        super().__init__(scenario, Path())
        self.cache = cache
        self._drawn: dict[str, Any] = {"simulation": self.config, "seed": self.seed}
        if self.config.cadence.surveyed and self.visits:     # a database may change behind its name
            self._drawn["survey"] = list(surveyed.circumstances(self.config, self.seed).items())
        self._masks: dict[tuple[Visit, int], np.ndarray] = {}

    def expose(self, visit: Visit, detector: int) -> Exposed:
        """An exposure of the night, its truth complete."""
        found: Exposed | None = self._got("exposure", self.exposure_key(visit, detector))
        return found or self._kept("exposure", self.exposure_key(visit, detector), super().expose(visit, detector))

    def expose_earlier(self, visit: Visit, detector: int) -> Exposure:
        """An earlier exposure."""
        key = self.earlier_key(visit, detector)
        found: Exposure | None = self._got("earlier", key)
        return found or self._kept("earlier", key, exposures.expose_earlier(self.sky, visit, detector, self.seed))

    def mask(self, visit: Visit, detector: int) -> np.ndarray:
        """The mask of an earlier exposure, uint8."""
        if (visit, detector) not in self._masks:
            self._masks[visit, detector] = self.expose_earlier(visit, detector).mask.astype(np.uint8)
        return self._masks[visit, detector]

    def tracks(self) -> np.ndarray:
        """TRACK rows of the satellites that the allow-list service knows."""
        return self._services["tracks"]

    def ephemerides(self) -> np.ndarray:
        """EPHEMERIS rows of the asteroids that the ephemeris service knows."""
        return self._services["ephemerides"]

    def make_difference(self, exposure: Exposure, science: Calibrated, template: Template, config: PixelConfig
                        ) -> Differenced:
        """The difference image of an exposure of the night; science image and template must be those of the scenario.

        It is all that is kept of the images on the way: what precedes it is cheaper, and would take twice the room.
        """
        key = self.difference_key(exposure.visit, exposure.detector)
        found: Differenced | None = self._got("difference", key)
        return found or self._kept("difference", key, make_difference(exposure, science, template, config))

    def exposure_key(self, visit: Visit, detector: int) -> str:
        """What decides an exposure and its truth."""
        return key_of("exposure", {**self._drawn, "visit": visit, "detector": detector,
                                   "template": self.earlier[visit.band]})

    def earlier_key(self, visit: Visit, detector: int) -> str:
        """What decides an earlier exposure."""
        return key_of("earlier", {**self._drawn, "visit": visit, "detector": detector})

    def template_key(self, band: str) -> str:
        """What decides a template."""
        if band not in self._template_keys:
            pipeline = self.scenario.pipeline
            self._template_keys[band] = key_of("template", {
                **self._drawn, "band": band, "visits": self.earlier[band], "calibrate": pipeline.calibrate,
                "template": pipeline.template, "margin_px": self.scenario.history.margin_px})
        return self._template_keys[band]

    def difference_key(self, visit: Visit, detector: int) -> str:
        """What decides a difference image."""
        pipeline = self.scenario.pipeline
        return key_of("difference", {
            "exposure": self.exposure_key(visit, detector), "template": self.template_key(visit.band),
            "config": [pipeline.signature, pipeline.calibrate, pipeline.template, pipeline.difference]})

    def half_key(self, visit: Visit, detector: int) -> str:
        """What decides a pixel half."""
        return key_of("half", {"exposure": self.exposure_key(visit, detector),
                               "template": self.template_key(visit.band), **self._pixel_settings})

    @cached_property
    def _template_keys(self) -> dict[str, str]:
        return {}

    @cached_property
    def _pixel_settings(self) -> dict[str, Any]:
        settings = self.scenario.pipeline.pixel_part()
        model = Path(settings.reliability.model)
        shown = blake2b(model.read_bytes()).hexdigest() if settings.reliability.model and model.is_file() else ""
        return {"config": settings, "model": shown, "stamps": self.scenario.recorder.stamps_per_visit}

    @cached_property
    def _services(self) -> dict[str, np.ndarray]:
        key = key_of("night", self._drawn)
        found: dict[str, np.ndarray] | None = self._got("night", key)
        return found or self._kept("night", key, {"tracks": super().tracks(), "ephemerides": super().ephemerides()})

    def _got(self, kind: str, key: str) -> Any:
        loan = self.cache.get(kind, key)
        if loan is None:
            return None
        loan.close()
        return loan.value

    def _kept(self, kind: str, key: str, value: Any) -> Any:
        return self.cache.put(kind, key, value, lasting=is_lasting(kind))


def recall_template(here: Remembering, band: str, path: Path) -> str | None:
    """Put a template that was made before where a run keeps it; what it is made of, None where none was made."""
    loan = here.cache.get("template", here.template_key(band))
    if loan is None:
        return None
    _place(loan.folder / path.name, path)
    loan.close()
    return str(loan.value)


def keep_template(here: Remembering, band: str, path: Path) -> str:
    """Make a template, keep it, and put it where a run keeps it."""
    with here.cache.draft("template", here.template_key(band)) as draft:
        note = history.make_template(here, band, draft.folder / path.name)
        loan = draft.keep(note, lasting=is_lasting("template"))
    _place(loan.folder / path.name, path)
    loan.close()
    return note


def recall_half(here: Remembering, visit: Visit, detector: int, stamps: Path) -> Half | None:
    """A pixel half that was computed before, its stamps where a run keeps them; its pixels are on loan."""
    loan = here.cache.get("half", here.half_key(visit, detector))
    return None if loan is None else _lent(loan, stamps)


def keep_half(here: Remembering, visit: Visit, detector: int, seen: Seen, stamps: Path) -> Half:
    """Keep a pixel half; gives it as `recall_half` will."""
    half = seen.half
    with here.cache.draft("half", here.half_key(visit, detector)) as draft:
        if half.measured is not None:
            images = half.measured.images
            assert images is not None
            pixels = PixelsOnDisk.write(draft.folder, images.difference, images.science, half.measured.wcs,
                                        exist_ok=True)
            np.save(draft.folder / STAMPS, seen.stamps, allow_pickle=False)
            half = replace(half, measured=replace(half.measured, pixels=pixels, images=None))
        return _lent(draft.keep(half, lasting=is_lasting("half")), stamps)


def _lent(loan: Loan, stamps: Path) -> Half:
    half: Half = loan.value
    if half.measured is None:
        loan.close()
    else:
        _place(loan.folder / STAMPS, stamps)
    return half


def _place(file: Path, path: Path) -> None:
    """Put a file of an entry into a run folder, if there is one."""
    if file.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        link(file, path)
