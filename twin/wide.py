"""The sources of a whole survey night at catalogue fidelity: truth of the survey's sky through the model of the pixel
half, visit by visit, drawn ahead by helper processes.

    plan -> Visit -> simulators.wide_sky -> simulators.wide_catalogs -> Measured of each detector when it is taken

What a visit holds depends on seed and visit alone, so results do not depend on the number of processes.
"""

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final

import msgspec
import numpy as np

from pipeline.ephemerides import padded
from pipeline.errors import InputError
from pipeline.footprint import PRELOAD_MARGIN_ARCSEC
from pipeline.images import Calibration, Cutouts
from pipeline.ports import Ephemerides, Satellites
from pipeline.prompt import Measured
from pipeline.satellites import TrackSatellites
from pipeline.sphere import positions
from schemas.exposure import Box, Visit
from schemas.measures import EXPOSURE_LOG, TRACK, empty
from schemas.table import take
from schemas.wcs import Wcs
from simulators.conditions import airmass
from simulators.config import SimulationConfig
from simulators.focalplane import all_detectors
from simulators.streams import stream
from simulators.wide_catalogs import VisitCatalog, draw_visit
from simulators.wide_sky import KINDS, Density, Seen, WideConfig, WideSky, density_of, model_of, seen
from twin.catalogue import calibration, psf_stamp
from twin.live import Taken
from twin.plan import DAY_S, Plan
from twin.pool import Inline, LookAhead
from twin.rendered import Depth, rendered
from twin.scenario import Scenario

AHEAD: Final = 6               # visits that are drawn before they are asked for
KEPT: Final = 64               # visits of which a detector is still awaited
LOCAL_MIDNIGHT: Final = 1.2    # [day] after 12h UTC of the day on which a night begins
EDGE: Final = np.linspace(-0.5, 0.5, 9)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the sky of a night is made from."""

    simulation: bytes          # JSON
    wide: bytes
    density: Density
    seed: int
    night_mjd: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """All detectors of one visit; every sequence is in the order of `WideSky.detectors`."""

    visit: Visit
    seen: Seen
    truth: np.ndarray          # TRUTH, detector by detector
    first: np.ndarray          # (detectors + 1,) where each one's begin
    catalog: VisitCatalog
    logs: np.ndarray           # EXPOSURE_LOG
    wcs: tuple[Wcs, ...]
    boxes: tuple[Box, ...]     # of the detectors
    ephemerides: np.ndarray    # EPHEMERIS of known asteroids around the visit
    places: np.ndarray         # (2, n) RA, Dec [deg] that they predict for it


class WideSource:
    """Where the sources of a survey night's detectors come from.

    Parameters
    ----------
    pool : Executor
        Of `twin.pool.open_pool`: with one process visits are drawn here, when they are asked for.
    density : Density or None
        None: what gives `wide.alerts_per_visit` in the mean of the plan.
    """

    brief = True

    def __init__(self, scenario: Scenario, plan: Plan, pool: Executor | None = None, *,
                 density: Density | None = None) -> None:
        _check(scenario)
        config, self.plan, self._wanted = scenario.simulation, plan, scenario.wide.alerts_per_visit
        self.visits = visits_of(scenario, plan)
        self.density = density or density_of(
            config, scenario.wide, self.visits, scenario.counts.detectors, scenario.seed,
            min_reliability=scenario.pipeline.filter.min_reliability)
        recipe = Recipe(msgspec.json.encode(config), msgspec.json.encode(scenario.wide), self.density, scenario.seed,
                        float(np.floor(plan.origin_mjd_tai - 0.5)) + LOCAL_MIDNIGHT)
        self._cutouts = scenario.pipeline.alert.produce and scenario.pipeline.alert.packets == "bytes"
        n = scenario.wide.template_visits
        self._template_share = 1.0 / (n + 1) if n else 0.0
        ready: Future[None] = Future()
        ready.set_result(None)
        self._ahead = LookAhead(pool or Inline(), partial(draw, recipe), self.visits, AHEAD, lambda visit: ready)
        self._drawn: dict[int, Drawn] = {}                 # the one longest here first
        self._over: dict[int, set[int]] = {}
        self._detectors = scenario.counts.detectors
        self.fidelities = dict.fromkeys(scenario.live, "catalogue")
        self.ephemerides: Ephemerides = self
        self.satellites: Satellites = TrackSatellites(empty(TRACK))
        self._by_time = {visit.mjd_tai: number for number, visit in enumerate(self.visits)}

    @property
    def facts(self) -> dict[str, str]:
        """What a run's facts should say of its sources."""
        return {"alerts_per_visit": f"{self._wanted:g}", "sources": "simulated survey, catalogue fidelity",
                "cutouts": "rendered from truth" if self._cutouts else "none: packets are counted",
                **{f"density_{kind}": f"{getattr(self.density, kind):.6g}" for kind in KINDS}}

    def visit(self, number: int) -> Visit:
        return self.visits[number]

    def box(self, number: int, detector: int) -> Box:
        """The predicted footprint, padded as in production."""
        return self.drawn(number).boxes[detector].padded(PRELOAD_MARGIN_ARCSEC)

    def take(self, number: int, detector: int) -> Taken:
        """The detector's sources, and the truth that they are of."""
        drawn = self.drawn(number)
        log, truth = drawn.logs[detector:detector + 1], drawn.truth[drawn.first[detector]:drawn.first[detector + 1]]
        measured = _measured(drawn, detector, self._template_share, cutouts=self._cutouts)
        self._end(number, detector)
        return Taken(measured, "done", "", log, truth)

    def skip(self, number: int, detector: int) -> None:
        """The detector is never taken."""
        self._end(number, detector)

    def near(self, box: Box, mjd_tai: float) -> np.ndarray:
        """EPHEMERIS rows around a box at a visit's time: the ephemeris service's answer."""
        drawn = self.drawn(self._by_time[mjd_tai])
        return take(drawn.ephemerides, padded(box).contains(drawn.places[0], drawn.places[1]))

    def drawn(self, number: int) -> Drawn:
        """All of a visit; kept until its last detector was taken, or many others came: then it is drawn again."""
        if number not in self._drawn:
            self._drawn[number] = self._ahead.result(self.visits[number])
            while len(self._drawn) > KEPT:
                del self._drawn[next(iter(self._drawn))]
        return self._drawn[number]

    def _end(self, number: int, detector: int) -> None:
        over = self._over.setdefault(number, set())
        over.add(detector)
        if len(over) >= self._detectors:
            if self._drawn.pop(number, None) is None:
                self._ahead.forget(self.visits[number])
            del self._over[number]


def _check(scenario: Scenario) -> None:
    """InputError where a scenario's camera is none that a survey night has."""
    layout, n = scenario.simulation.camera.layout, scenario.counts.detectors
    if layout != "lsstcam":
        raise InputError(f"simulation.camera.layout: a survey night has \"lsstcam\", got {layout!r}")
    if n > len(all_detectors()):
        raise InputError(f"counts.detectors: LSSTCam has {len(all_detectors())}, got {n}")


def visits_of(scenario: Scenario, plan: Plan) -> tuple[Visit, ...]:
    """The plan's visits as exposures have them."""
    out = []
    for number, opens, closes, place in zip(plan.visit.tolist(), plan.opens_s.tolist(), plan.closes_s.tolist(),
                                            plan.pointing, strict=True):
        mjd = plan.origin_mjd_tai + (opens + closes) / 2 / DAY_S
        ra, dec, rotation = (float(place[name]) for name in ("ra", "dec", "rotation"))
        out.append(Visit(number, place["band"].decode(), ra, dec, rotation, mjd, closes - opens,
                         scenario.simulation.conditions.airmass or airmass(ra, dec, mjd),
                         observation_reason="simulated survey", target_name="simulated field"))
    return tuple(out)


def draw(recipe: Recipe, visit: Visit) -> Drawn:
    """Everything of a visit; the sky's cells are kept by the process that draws."""
    sky = _sky(recipe)
    plane, seed = sky.plane, recipe.seed
    now = seen(sky.config, sky.wide, visit, seed, plane.light)
    truth = sky.truth(visit, now)
    slot = np.searchsorted(plane.detectors, truth["detector"])
    rng = stream(seed, "wide sources", visit.visit)
    keys = rng.integers(2**62, size=len(plane.detectors)).astype(np.uint64)
    catalog = draw_visit(truth, slot, plane.shape, psf_sigma_px=now.psf_sigma_px, flux_err=now.flux_err, keys=keys,
                         rng=rng, model=model_of(sky.wide), losses=seed)
    wcs = plane.wcs(visit)
    first = np.searchsorted(slot, np.arange(len(wcs) + 1))
    ephemerides = sky.ephemerides(visit)
    places = np.stack(positions(ephemerides["object_xyz"][:, :, 0]))
    return Drawn(visit, now, truth, first, catalog, _logs(sky, visit, now, catalog), wcs, _boxes(wcs, plane.shape),
                 ephemerides, places)


@lru_cache(maxsize=1)
def _sky(recipe: Recipe) -> WideSky:
    return WideSky(msgspec.json.decode(recipe.simulation, type=SimulationConfig),
                   msgspec.json.decode(recipe.wide, type=WideConfig), recipe.density, recipe.seed, recipe.night_mjd)


def _boxes(wcs: Sequence[Wcs], shape: tuple[int, int]) -> tuple[Box, ...]:
    """The boxes around the detectors' borders."""
    u, v = np.meshgrid(EDGE, EDGE)
    border = np.maximum(np.abs(u), np.abs(v)) == 0.5
    x, y = u[border] * shape[1] + (shape[1] - 1) / 2, v[border] * shape[0] + (shape[0] - 1) / 2
    return tuple(Box.around(*one.sky(x, y)) for one in wcs)


def _logs(sky: WideSky, visit: Visit, now: Seen, catalog: VisitCatalog) -> np.ndarray:
    """EXPOSURE_LOG rows of all detectors."""
    (ny, nx), scale = sky.plane.shape, sky.plane.camera.scale_arcsec
    rows = empty(EXPOSURE_LOG, len(sky.detectors))
    facts = {"visit": visit.visit, "detector": sky.detectors, "band": visit.band.encode(), "ra": visit.ra,
             "dec": visit.dec, "midpointMjdTai": visit.mjd_tai, "exposure_s": visit.exposure_s, "nx": nx, "ny": ny,
             "airmass": visit.airmass, "fidelity": b"catalogue", "n_detected": np.diff(catalog.first_source),
             "usable_px": nx * ny, "shutter_close_mjd_tai": visit.shutter_close_mjd_tai, "status": b"done",
             "fwhm_arcsec": 2.3548 * now.psf_sigma_px * scale, "psf_sigma_px": now.psf_sigma_px,
             "zeropoint": now.zeropoint, "n_psf_star": 0, "true_fwhm_arcsec": 2.3548 * now.psf_sigma_px * scale,
             "true_psf_sigma_px": now.psf_sigma_px, "true_zeropoint": now.zeropoint}
    for name, value in facts.items():
        rows[name] = value
    return rows


def _measured(drawn: Drawn, slot: int, template_share: float, *, cutouts: bool) -> Measured:
    catalog, first = drawn.catalog.of(slot, drawn.wcs[slot]), int(drawn.first[slot])
    if cutouts:
        rows = np.where(catalog.truth_row >= 0, catalog.truth_row - first, -1)
        science, template, difference = rendered(catalog, drawn.truth[first:drawn.first[slot + 1]], rows,
                                                 Depth(template_share, 0.75 * drawn.seen.own_noise))
    else:
        science = template = difference = _no_stamps(drawn.seen.psf_sigma_px)
    return Measured(visit=drawn.visit, detector=int(drawn.logs["detector"][slot]), sources=catalog.sources,
                    wcs=drawn.wcs[slot], shape=drawn.catalog.shape, box=drawn.boxes[slot],
                    calibration=_calibration(drawn.seen.zeropoint), science=science, template=template,
                    difference=difference, pixels=catalog.pixels, log=drawn.logs[slot:slot + 1])


@lru_cache(maxsize=4)
def _no_stamps(sigma: float) -> Cutouts:
    return Cutouts((), (), psf_stamp(sigma))


@lru_cache(maxsize=4)
def _calibration(zeropoint: float) -> Calibration:
    return calibration(zeropoint)


__all__ = ["Drawn", "Recipe", "WideSource", "draw", "visits_of"]
