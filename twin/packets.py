"""Distinct alert packets in any number, with a history of any length: what transports and archives are measured with.

Every row, cutout and header is drawn anew, so that no compressor, cache or duplicate check sees one packet twice. The
packets pass through `pipeline.alerts.package`, and hold what public alerts hold; their visits say that they are
simulated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.alerts import package
from pipeline.config import AlertConfig
from pipeline.images import Cutouts
from pipeline.ports import History, Segment
from schemas import alert, ids
from schemas.exposure import BANDS, Visit
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, MPC_ORBITS, SS_SOURCE, Table
from schemas.wcs import Wcs

DETECTORS: Final = 189
PER_DETECTOR: Final = 212          # the peak of 40,000 alerts in a visit, over the detectors (LSE-163: nAlertVisitPeak)
SHAPE: Final = (4000, 4072)
BEFORE: Final = 20250901 * 100_000             # the day from which all earlier rows are
FIRST: Final = Visit(2026030500055, "i", 62.5, -47.8, 41.6, 61105.09, 30.0,
                     observation_reason="simulated packets", target_name="simulated field")
CADENCE_D: Final = 34.0 / 86400.0
SIDE: Final = 30                   # of nearly all public cutouts [pixel]
PSF_SIDES: Final = {"difference": 41, "science": 41, "template": 55}     # as in public alerts
SIGMA_PX: Final = 1.7
FLUX_NJY: Final = 40_000.0

# What public alerts leave null, beside the fluxes of bands without data.
_NULL: Final = frozenset({"psfLnL", "trailRaErr", "trailDecErr", "trailLengthErr", "trailAngleErr", "trailChi2",
                          "timeWithdrawnMjdTai", "dipoleMeanFlux", "dipoleMeanFluxErr", "dipoleFluxDiff",
                          "dipoleFluxDiffErr", "dipoleLength", "dipoleAngle", "dipoleChi2", "ssObjectId",
                          "parentDiaSourceId", "validityEndMjdTai", "firstDiaSourceMjdTai", "lastDiaSourceMjdTai",
                          "ssObjectReassocTimeMjdTai"})


@dataclass(frozen=True, slots=True)
class Contents:
    """What the packets of one detector-visit are made of."""

    visit: Visit
    detector: int
    sources: np.ndarray            # (n,) DIA_SOURCE
    objects: np.ndarray            # (n,) DIA_OBJECT
    history: History
    forced: np.ndarray             # DIA_FORCED_SOURCE of this visit
    wcs: Wcs
    difference: Cutouts
    science: Cutouts
    template: Cutouts

    def package(self, config: AlertConfig | None = None) -> Segment:
        """The packets."""
        return package(self.visit, self.detector, self.sources, self.objects, self.history, self.forced,
                       SS_SOURCE.empty(), MPC_ORBITS.empty(), difference=self.difference, science=self.science,
                       template=self.template, wcs=self.wcs, config=config or AlertConfig())


def distinct(n: int, n_sources: int, n_forced: int, seed: int, *, per_detector: int = PER_DETECTOR,
             config: AlertConfig | None = None) -> Iterator[Segment]:
    """`n` distinct packets as the segments of consecutive detector-visits; only one of them is in memory at a time.

    Parameters
    ----------
    n_sources, n_forced : int
        Entries of prvDiaSources and prvDiaForcedSources in each packet; 12 and 12 make packets of about 125 kB, 300
        and 500 of about 260 kB.
    seed : int
        Equal seeds give equal packets; segments are drawn independently of each other.
    per_detector : int
        Packets per segment; the last segment holds what is left.

    Examples
    --------
    >>> [len(segment) for segment in distinct(5, 2, 2, 1, per_detector=3)]
    [3, 2]
    """
    for contents in drawn(n, n_sources, n_forced, seed, per_detector=per_detector):
        yield contents.package(config)


def drawn(n: int, n_sources: int, n_forced: int, seed: int, *, per_detector: int = PER_DETECTOR) -> Iterator[Contents]:
    """What `distinct` packages."""
    if n < 0 or per_detector < 1 or min(n_sources, n_forced) < 0:
        raise ValueError(f"numbers of packets and rows may not be negative, got {n} packets, {n_sources} sources, "
                         f"{n_forced} forced sources, {per_detector} packets per detector")
    for number, start in enumerate(range(0, n, per_detector)):
        yield _contents(min(per_detector, n - start), n_sources, n_forced, seed, number)


def _contents(n: int, n_sources: int, n_forced: int, seed: int, number: int) -> Contents:
    """The detector-visit of a running number."""
    later, detector = divmod(number, DETECTORS)
    rng = np.random.default_rng([seed, later, detector])
    visit = Visit(FIRST.visit + later, FIRST.band, FIRST.ra, FIRST.dec, FIRST.rotation,
                  FIRST.mjd_tai + later * CADENCE_D, FIRST.exposure_s, observation_reason=FIRST.observation_reason,
                  target_name=FIRST.target_name)
    wcs = Wcs.tangent(FIRST.ra + 0.24 * (detector % 14), FIRST.dec + 0.23 * (detector // 14), SHAPE,
                      rotation=FIRST.rotation)
    sources = _triggers(n, visit, detector, wcs, rng)
    objects = _rows(DIA_OBJECT, n, rng, visit.band)
    objects["diaObjectId"], objects["nDiaSources"] = sources["diaObjectId"], n_sources + 1
    objects["ra"], objects["dec"] = sources["ra"], sources["dec"]
    forced = _forced(sources if n_forced else sources[:0], visit, detector, rng)
    history = History(_history(DIA_SOURCE, sources, n_sources, visit, detector, rng),
                      _history(DIA_FORCED_SOURCE, sources, max(n_forced - 1, 0), visit, detector, rng))
    stamps = {kind: _stamps(sources, side, rng) for kind, side in PSF_SIDES.items()}
    return Contents(visit, detector, sources, objects, history, forced, wcs, **stamps)


def _triggers(n: int, visit: Visit, detector: int, wcs: Wcs, rng: np.random.Generator) -> np.ndarray:
    rows = _rows(DIA_SOURCE, n, rng, visit.band)
    rows["diaSourceId"] = ids.source_ids(visit.visit, detector, np.arange(n))
    rows["diaObjectId"] = ids.source_ids(BEFORE + visit.visit % 100_000, detector, np.arange(n))
    rows["visit"], rows["detector"], rows["midpointMjdTai"] = visit.visit, detector, visit.mjd_tai
    rows["x"], rows["y"] = rng.uniform(50, SHAPE[1] - 50, n), rng.uniform(50, SHAPE[0] - 50, n)
    rows["ra"], rows["dec"] = wcs.sky(rows["x"].astype(float), rows["y"].astype(float))
    rows["timeProcessedMjdTai"] = visit.mjd_tai + 60.0 / 86400.0
    rows["bboxSize"] = rng.integers(12, SIDE, n, endpoint=True)
    return rows


def _history(table: Table, owners: np.ndarray, each: int, visit: Visit, detector: int,
             rng: np.random.Generator) -> np.ndarray:
    """`each` rows per owner, within the year before the visit."""
    rows = _beside(table, np.repeat(np.arange(len(owners)), each), owners, visit, rng)
    identifiers = ids.source_ids(BEFORE + visit.visit % 100_000, detector, len(owners) + np.arange(len(rows)))
    rows["diaSourceId" if table is DIA_SOURCE else "diaForcedSourceId"] = identifiers
    rows["midpointMjdTai"] = visit.mjd_tai - rng.uniform(0.01, 359.0, len(rows))
    rows["timeProcessedMjdTai"] = rows["midpointMjdTai"] + 60.0 / 86400.0
    rows["visit"], rows["detector"] = BEFORE + rng.integers(0, 900, len(rows)), rng.integers(0, DETECTORS, len(rows))
    return rows


def _forced(owners: np.ndarray, visit: Visit, detector: int, rng: np.random.Generator) -> np.ndarray:
    """This visit's forced photometry of every owner."""
    rows = _beside(DIA_FORCED_SOURCE, np.arange(len(owners)), owners, visit, rng)
    rows["diaForcedSourceId"] = ids.source_ids(visit.visit, detector, np.arange(len(rows)))
    rows["midpointMjdTai"], rows["timeProcessedMjdTai"] = visit.mjd_tai, visit.mjd_tai + 60.0 / 86400.0
    rows["visit"], rows["detector"] = visit.visit, detector
    return rows


def _beside(table: Table, own: np.ndarray, owners: np.ndarray, visit: Visit, rng: np.random.Generator) -> np.ndarray:
    """Rows near their owners."""
    rows = _rows(table, len(own), rng, visit.band)
    rows["diaObjectId"] = owners["diaObjectId"][own]
    for name in ("ra", "dec"):
        rows[name] = owners[name][own] + rng.normal(0.0, 3e-5, len(own))
    return rows


def _rows(table: Table, n: int, rng: np.random.Generator, band: str) -> np.ndarray:
    """Rows with a number in every column that public alerts fill."""
    rows = table.empty(n)
    for column in table.columns:
        if column.name in _NULL or (column.name[1:2] == "_" and column.name[0] in BANDS.replace(band, "")
                                    and not column.name.endswith("Ndata")):
            continue
        if column.datatype in ("float", "double"):
            rows[column.name] = 1000.0 * rng.standard_normal(n, np.float32)
        elif column.is_text:
            rows[column.name] = band.encode() if column.name == "band" else b"0.2"       # or a version
        elif column.datatype in ("int", "short"):
            rows[column.name] = rng.integers(20, 60, n)
    return rows


def _stamps(sources: np.ndarray, psf_side: int, rng: np.random.Generator) -> Cutouts:
    """Noise of 350 nJy with a source in it."""
    offsets = np.arange(psf_side) - psf_side // 2
    profile = np.exp(-0.5 * (offsets / SIGMA_PX) ** 2)
    psf = np.outer(profile, profile) / np.outer(profile, profile).sum()
    images = rng.normal(0.0, 350.0, (len(sources), SIDE, SIDE)).astype(np.float32)
    pixels = np.arange(SIDE)
    for image, x, y in zip(images, sources["x"].tolist(), sources["y"].tolist(), strict=True):
        column, row = (np.exp(-0.5 * ((pixels - at + alert.corner(at, SIDE)) / SIGMA_PX) ** 2) for at in (y, x))
        image += (FLUX_NJY / (2 * np.pi * SIGMA_PX**2) * np.outer(column, row)).astype(np.float32)
    variance = (350.0**2 * rng.uniform(0.95, 1.05, images.shape)).astype(np.float32)
    return Cutouts(tuple(images), tuple(variance), psf)


__all__ = ["Contents", "distinct", "drawn"]
