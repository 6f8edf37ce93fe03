"""The catalogue half of small detectors on an in-memory store: milliseconds per detector-visit by Step.

    python -m tests.benchmarks.catalogue_half --objects 5000 50000 300000

Objects are uniform on a strip, 20 in a detector's preload box; a detector-visit sees six of those on it again.
"""

import argparse
from functools import partial
from hashlib import sha256

import numpy as np

from pipeline.config import AlertConfig, PipelineConfig
from pipeline.ephemerides import TableEphemerides
from pipeline.footprint import PRELOAD_MARGIN_ARCSEC, footprint_box
from pipeline.ports import Ports, SaveRequest, Segment
from pipeline.prompt import deliver, preload, report_sources
from pipeline.satellites import TrackSatellites
from pipeline.sinks.counting import CountingSink
from pipeline.stores.memory import MemoryStore
from schemas import ids
from schemas.exposure import Visit
from schemas.measures import EPHEMERIS, TRACK, TRUTH, empty
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE, SUMMARY
from schemas.wcs import Wcs
from simulators.catalogs import draw
from tests.twin.wides import Nothing, Watch
from twin.catalogue import measured_from_catalog

SHAPE = (4000, 4072)
MJD = 61218.0
DENSITY = 350.0        # objects per square degree
DEC = (-25.0, -15.0)


def filled(n: int, rng: np.random.Generator) -> tuple[MemoryStore, np.ndarray, np.ndarray]:
    """A store of `n` objects with two sources each, and where they are."""
    width = n / DENSITY / (DEC[1] - DEC[0]) / np.cos(np.radians(20.0))
    ra, dec = rng.uniform(10.0, 10.0 + width, n), rng.uniform(*DEC, n)
    store = MemoryStore()
    for first in range(0, n, 500):
        some = slice(first, first + 500)
        visit, k = 20260101 * 100_000 + first // 500, len(ra[some])
        objects, sources = DIA_OBJECT.empty(k), DIA_SOURCE.empty(2 * k)
        objects["diaObjectId"] = ids.source_ids(visit, 0, np.arange(k))
        objects["ra"], objects["dec"], objects["nDiaSources"] = ra[some], dec[some], 2
        objects["validityStartMjdTai"] = MJD - 5.0
        sources["diaSourceId"] = ids.source_ids(visit, 0, np.arange(2 * k))
        sources["diaObjectId"] = np.tile(objects["diaObjectId"], 2)
        sources["ra"], sources["dec"] = np.tile(ra[some], 2), np.tile(dec[some], 2)
        sources["midpointMjdTai"], sources["band"] = MJD - 5.0 + 0.01 * np.repeat([0, 1], k), b"r"
        sources["reliability"], sources["psfFlux"], sources["psfFluxErr"] = 0.9, 2000.0, 100.0
        sources["scienceFlux"], sources["scienceFluxErr"] = 2000.0, 100.0
        summary = SUMMARY.empty(1)
        summary["visit"] = visit
        store.save(SaveRequest(visit, 0, objects, sources, DIA_FORCED_SOURCE.empty(), SS_SOURCE.empty(), summary,
                               MJD - 4.0 + first * 1e-6), Segment(visit, 0, np.empty(0, np.int64), ()))
    return store, ra, dec


def truth_on(wcs: Wcs, ra: np.ndarray, dec: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Six known objects of a detector, seen again."""
    near = np.flatnonzero(np.abs(dec - wcs.crval[1]) < 0.2)
    x, y = wcs.pixels(ra[near], dec[near])
    on = near[(x > 0) & (x < SHAPE[1]) & (y > 0) & (y < SHAPE[0])]
    chosen = rng.permutation(on)[:6]
    rows = empty(TRUTH, len(chosen))
    rows["ra"], rows["dec"] = ra[chosen], dec[chosen]
    rows["x"], rows["y"] = wcs.pixels(ra[chosen], dec[chosen])
    rows["flux"] = rows["science_flux"] = 2000.0
    rows["template_flux"], rows["flux_err_optimum"], rows["trail_length"] = 0.0, 100.0, 0.0
    rows["truthId"] = chosen
    return rows


def measure(n: int, repeats: int, config: PipelineConfig) -> Watch:
    """A night of `repeats` detector-visits on a store of `n` objects."""
    rng, watch = np.random.default_rng(1), Watch()
    store, ra, dec = filled(n, rng)
    for k in range(repeats):
        at = float(rng.uniform(ra.min() + 0.3, ra.max() - 0.3)), float(rng.uniform(DEC[0] + 0.3, DEC[1] - 0.3))
        visit, wcs = Visit(20260701 * 100_000 + k, "r", *at, 0.0, MJD + k * 1e-4, 30.0), Wcs.tangent(*at, SHAPE)
        truth = truth_on(wcs, ra, dec, rng)
        watch.begin()
        catalog = draw(truth, wcs, SHAPE, psf_sigma_px=1.8, flux_err=100.0, key=k, rng=rng)
        watch.lap("draw")
        measured = measured_from_catalog(catalog, visit, 0, wcs, SHAPE, psf_sigma_px=1.8)
        watch.lap("dress")
        ports = Ports(partial(float, visit.mjd_tai + 0.001), store, CountingSink(), Nothing(),
                      TableEphemerides(empty(EPHEMERIS)), TrackSatellites(empty(TRACK)))
        known = watch.drive(preload(visit, 0, footprint_box(wcs, SHAPE, PRELOAD_MARGIN_ARCSEC), ports, config))
        watch.drive(report_sources(measured, known, ports, config))
        watch.drive(deliver(ports, config))
    tables = b"".join(store.table(name).tobytes() for name in ("DiaObject", "DiaSource", "DiaForcedSource", "SSSource",
                                                               "DetectorVisitProcessingSummary"))
    print(f"{n} objects, tables {sha256(tables).hexdigest()[:16]}; sizes of a detector-visit:",
          {name: round(size / repeats, 1) for name, size in watch.sizes.items()})
    return watch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, nargs="+", default=[5000, 50_000, 300_000])
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--packets", choices=["bytes", "counted"], default="counted")
    given = parser.parse_args()
    config = PipelineConfig(alert=AlertConfig(packets=given.packets))
    for n in given.objects:
        spent = measure(n, given.repeats, config).spent
        print("  ms:", {name: round(1000 * value / given.repeats, 3) for name, value in spent.items()})
        half = sum(value for name, value in spent.items() if name not in ("draw", "dress"))
        print(f"  ms in all but draw and dress: {1000 * half / given.repeats:.3f}")


if __name__ == "__main__":
    main()
