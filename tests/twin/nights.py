"""Small nights at catalogue fidelity for tests: a sky of known sources, visits of it, and ports in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.config import PipelineConfig
from pipeline.ephemerides import TableEphemerides
from pipeline.ports import Ports, PromptStore
from pipeline.prompt import Known, Measured, Summary, deliver, footprint_box, preload, report_sources
from pipeline.sinks.memory import MemorySink
from pipeline.steps import Step, run
from pipeline.stores.memory import MemoryStore
from schemas.exposure import Visit
from schemas.measures import EPHEMERIS, TRUTH, empty
from schemas.wcs import Wcs
from simulators.catalogs import CatalogModel, draw
from simulators.streams import stream
from twin.catalogue import measured_from_catalog

SHAPE = (1000, 1000)
SIGMA = 1.8          # of the PSF [pixel]
FLUX_ERR = 100.0     # [nJy]
DETECTOR = 94
MJD = 61639.1
SURE = CatalogModel(source="nothing lost", snr_ratio=1.0, efficiency=1.0, edge_px=0.0, flagged=0.0, noise_ratio=1.0,
                    flux_floor=0.0, error_ratio=1.0, centroid_ratio=1.0, centroid_floor_px=0.015,
                    false_per_megapixel=0.0, false_shape=0.0, sky_sources=0, score_real=(40.0, 1.0),
                    score_faint=(40.0, 1.0), score_false=(1.0, 8.0), false_flagged=0.0)


class Everything:
    """A satellite service that allows all."""

    def allowed(self, visit: Visit, detector: int, ids: np.ndarray, corners: np.ndarray) -> np.ndarray:
        return ids


@dataclass
class Notes:
    """A recorder in memory."""

    tables: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def append(self, table: str, rows: np.ndarray) -> None:
        self.tables.setdefault(table, []).append(rows)

    def rows(self, table: str) -> np.ndarray:
        return np.concatenate(self.tables[table])


@dataclass
class Ticking:
    """A clock that moves on by a second whenever it is read."""

    mjd_tai: float = MJD

    def __call__(self) -> float:
        self.mjd_tai += 1 / 86400
        return self.mjd_tai


def visit_of(sequence: int, *, minutes: float | None = None, band: str = "r", ra: float = 330.0,
             dec: float = -12.0) -> Visit:
    gap = 38.8 / 60 * sequence if minutes is None else minutes
    return Visit(20270822 * 100_000 + sequence, band, ra, dec, 0.0, MJD + gap / 1440, 30.0,
                 observation_reason="simulated test", target_name="simulated field")


def sky(n: int, *, seed: int = 1, snr: float | None = 30.0, border: int = 40, ra: float = 330.0,
        dec: float = -12.0) -> np.ndarray:
    """TRUTH rows of point sources on a jittered grid, so that none blend."""
    rng = np.random.default_rng(seed)
    rows = empty(TRUTH, n)
    side = max(int(np.ceil(np.sqrt(n))), 1)
    cell = (SHAPE[0] - 2 * border) / side
    which = rng.permutation(side * side)[:n]
    rows["x"] = border + (which % side + rng.uniform(0.25, 0.75, n)) * cell
    rows["y"] = border + (which // side + rng.uniform(0.25, 0.75, n)) * cell
    rows["flux"] = FLUX_ERR * (snr if snr is not None else np.exp(rng.uniform(np.log(3), np.log(60), n)))
    rows["science_flux"], rows["template_flux"], rows["flux_err_optimum"] = rows["flux"], 0.0, FLUX_ERR
    rows["trail_length"], rows["separation_px"], rows["kind"], rows["truthId"] = 0.0, 0.0, b"transient", np.arange(n)
    rows["ra"], rows["dec"] = Wcs.tangent(ra, dec, SHAPE).sky(rows["x"], rows["y"])
    return rows


def measured_of(visit: Visit, truth: np.ndarray, *, seed: int = 1, model: CatalogModel | None = None,
                wcs: Wcs | None = None) -> Measured:
    """The pixel half's part of one visit, drawn."""
    wcs = wcs or Wcs.tangent(visit.ra, visit.dec, SHAPE, rotation=visit.rotation)
    rows = truth.copy()
    rows["x"], rows["y"] = wcs.pixels(truth["ra"], truth["dec"])
    rng = stream(seed, "catalogue", visit.visit, DETECTOR)
    catalog = draw(rows, wcs, SHAPE, psf_sigma_px=SIGMA, flux_err=FLUX_ERR, key=int(rng.integers(2**62)), rng=rng,
                   model=model or SURE)
    return measured_from_catalog(catalog, visit, DETECTOR, wcs, SHAPE, psf_sigma_px=SIGMA)


def ports_of(store: PromptStore | None = None, **changes: object) -> Ports:
    given: dict[str, object] = {"clock": Ticking(), "store": store or MemoryStore(), "sink": MemorySink(),
                                "recorder": Notes(), "ephemerides": TableEphemerides(empty(EPHEMERIS)),
                                "satellites": Everything()}
    return Ports(**{**given, **changes})  # type: ignore[arg-type]


def known_for(visit: Visit, ports: Ports, config: PipelineConfig | None = None) -> Known:
    wcs = Wcs.tangent(visit.ra, visit.dec, SHAPE, rotation=visit.rotation)
    return run(preload(visit, DETECTOR, footprint_box(wcs, SHAPE, 50.1), ports, config or PipelineConfig()))


def process(visit: Visit, truth: np.ndarray, ports: Ports, config: PipelineConfig | None = None, *, seed: int = 1,
            model: CatalogModel | None = None, steps: list[Step] | None = None) -> Summary:
    """One visit from preload to delivery, nothing beside it."""
    config = config or PipelineConfig()
    known = known_for(visit, ports, config)
    measured = measured_of(visit, truth, seed=seed, model=model)
    summary = run(report_sources(measured, known, ports, config), steps.append if steps is not None else lambda s: None)
    run(deliver(ports, config))
    return summary


def night(visits: Sequence[Visit], truth: np.ndarray, ports: Ports, config: PipelineConfig | None = None,
          **options: object) -> list[Summary]:
    return [process(visit, truth, ports, config, **options) for visit in visits]  # type: ignore[arg-type]
