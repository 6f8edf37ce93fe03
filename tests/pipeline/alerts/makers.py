"""Contents of packets for tests: triggers, objects, histories, cutouts, and packets of them."""

import json
import struct
from pathlib import Path

import lsst.alert.packet
import numpy as np

from pipeline.alerts import package
from pipeline.config import AlertConfig
from pipeline.images import Cutouts
from pipeline.ports import History
from schemas import alert, ids
from schemas.exposure import Visit
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, MPC_ORBITS, SS_SOURCE
from schemas.wcs import Wcs
from tests.strategies import random_rows

VISIT = Visit(2026030500055, "i", 62.5, -47.8, 41.6, 61105.09, 30.0, observation_reason="simulated survey",
              target_name="first light")
WCS = Wcs.tangent(62.5, -47.8, (1000, 1000), rotation=41.6)
SIGMA = 2.0


def triggers(n, rng, flux=5000.0):
    rows = random_rows(DIA_SOURCE, n, rng)
    rows["diaSourceId"] = ids.source_ids(VISIT.visit, 95, np.arange(n))
    rows["visit"], rows["detector"], rows["midpointMjdTai"] = VISIT.visit, 95, VISIT.mjd_tai
    rows["diaObjectId"], rows["ssObjectId"], rows["parentDiaSourceId"] = 1000 + np.arange(n), 0, 0
    rows["x"], rows["y"] = rng.uniform(60, 940, n), rng.uniform(60, 940, n)
    rows["ra"], rows["dec"] = WCS.sky(rows["x"].astype(float), rows["y"].astype(float))
    rows["psfFlux"], rows["timeProcessedMjdTai"] = flux, VISIT.mjd_tai + rng.uniform(1e-4, 2e-3, n)
    return rows


def objects_for(sources, n_sources):
    rows = random_rows(DIA_OBJECT, len(sources), np.random.default_rng(2))
    rows["diaObjectId"], rows["nDiaSources"] = sources["diaObjectId"][::-1], n_sources
    rows["validityStartMjdTai"] = VISIT.mjd_tai + 2e-3
    return rows


def past(table, owners, times, rng):
    rows = random_rows(table, len(owners), rng)
    rows["diaObjectId"], rows["midpointMjdTai"] = owners, times
    rows["timeProcessedMjdTai"] = rows["midpointMjdTai"] + 1e-3
    if table is DIA_SOURCE:
        rows["diaSourceId"] = np.arange(len(owners)) + 5
    return rows


def gaussian_cutouts(sources, rng, side=30, noise=20.0):
    """Stamps as `cut` makes them, with a source at its place."""
    images, k = [], np.arange(41) - 20
    psf = np.exp(-(k[:, None]**2 + k**2) / (2 * SIGMA**2))
    for row in sources:
        x, y = (float(row[c]) - alert.corner(float(row[c]), side) for c in ("x", "y"))
        yy, xx = np.mgrid[:side, :side]
        profile = np.exp(-((xx - x)**2 + (yy - y)**2) / (2 * SIGMA**2)) / (2 * np.pi * SIGMA**2)
        images.append((row["psfFlux"] * profile + rng.normal(0, noise, (side, side))).astype(np.float32))
    variance = tuple(np.full((side, side), noise**2, np.float32) for _ in images)
    return Cutouts(tuple(images), variance, psf / psf.sum())


def make(sources, objects=None, history=None, forced=None, ss=None, orbits=None, stamps=None, visit=VISIT, config=None):
    stamps = gaussian_cutouts(sources, np.random.default_rng(4)) if stamps is None else stamps
    history = History(DIA_SOURCE.empty(), DIA_FORCED_SOURCE.empty()) if history is None else history
    return package(visit, 95, sources, objects_for(sources, 1) if objects is None else objects, history,
                   DIA_FORCED_SOURCE.empty() if forced is None else forced, SS_SOURCE.empty() if ss is None else ss,
                   MPC_ORBITS.empty() if orbits is None else orbits, difference=stamps, science=stamps,
                   template=stamps, wcs=WCS, config=config or AlertConfig())


def full(n=12, per_object=7, config=None):
    """Everything a packet can hold: histories, forced photometry, Solar System objects among the triggers."""
    rng = np.random.default_rng(3)
    sources = triggers(n, rng)
    sources["ssObjectId"][-2:], sources["diaObjectId"][-2:] = [77, 78], 0
    ss = random_rows(SS_SOURCE, 2, rng)
    ss["diaSourceId"], ss["ssObjectId"] = sources["diaSourceId"][[-1, -2]], [78, 77]
    ss["designation"] = [b"2026 AB", b"2026 CD"]
    orbits = random_rows(MPC_ORBITS, 3, rng)
    orbits["designation"] = [b"2026 CD", b"2026 XX", b"2026 AB"]
    owners = np.repeat(sources["diaObjectId"][:-2], per_object)
    history = History(past(DIA_SOURCE, owners, VISIT.mjd_tai - rng.uniform(0.001, 359, len(owners)), rng),
                      past(DIA_FORCED_SOURCE, owners, VISIT.mjd_tai - rng.uniform(0.001, 359, len(owners)), rng))
    forced = past(DIA_FORCED_SOURCE, sources["diaObjectId"][:-2], VISIT.mjd_tai, rng)
    return sources, make(sources, objects_for(sources[:-2], per_object + 1), history, forced, ss, orbits, config=config)


def sample(major, minor):
    """The sample alert that the schema package ships with a version, as a wire packet."""
    schema = lsst.alert.packet.Schema.from_file(
        str(Path(lsst.alert.packet.get_schema_path(major, minor)) / f"lsst.v{major}_{minor}.alert.avsc"))
    folder = Path(lsst.alert.packet.get_schema_path(major, minor)) / "sample_data"
    record = json.loads((folder / "alert.json").read_text())
    return struct.pack(">bi", 0, major * 100 + minor) + schema.serialize(record), record
