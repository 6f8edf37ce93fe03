"""Which detections go on: the five filters of section 4.6, in order, each with an off-switch and its own reasons.

    satellites    the allow-list service knows where satellites were; it fails safe: no answer, no alerts
    glints        five and more sources in a line; flags, never removes
    quality       flags, sources missing from the science image, trails too long for the Solar System
    reliability   score below the cut
    new_objects   what may not found a new object; applied by `pipeline.associate` after matching

A filter answers with one reason per source, b"" for those that pass, so that every rejection can say why.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import betainc, betaincinv

from pipeline.config import FilterConfig
from pipeline.errors import NonRetriableError
from pipeline.ports import Satellites
from pipeline.reasons import REASON, first_reason, rejections
from pipeline.retry import read
from pipeline.steps import Step, Steps
from schemas import ids, table
from schemas.exposure import Visit
from schemas.measures import REJECTION, empty
from schemas.wcs import Wcs

QUALITY_FLAGS = ("sky_source", "centroid_flag", "pixelFlags_crCenter", "high_varianceCenterAll", "trail_off_image")
# FilterDiaSourceCatalogTask of the LSST Science Pipelines, 2026
HUBS_AT_ONCE = 300   # sources whose pairs are looked at together
GLINT_MOST = 50   # sources beyond a line's first two that are counted


@dataclass(frozen=True, slots=True)
class Filtered:
    """What passed the filters before association."""

    sources: np.ndarray      # MEASUREMENT, with glint_trail set
    index: np.ndarray        # (n,) rows of the sources given
    rejections: np.ndarray   # REJECTION


def filter_sources(sources: np.ndarray, visit: Visit, detector: int, wcs: Wcs, satellites: Satellites,
                   config: FilterConfig) -> Steps[Filtered]:
    """The filters before association; a failing satellite service rises after its retry: nothing is published."""
    kept, rejected = np.arange(len(sources)), []

    def drop(reasons: np.ndarray, stage: str) -> np.ndarray:
        rejected.append(rejections(table.take(sources, kept), reasons, stage, visit.visit, detector, wcs))
        return np.asarray(kept[reasons == b""])

    if config.satellites and len(sources):
        names = ids.source_ids(visit.visit, detector, sources["id"])
        boxes = corners(sources, wcs)
        allowed = yield from read("satellites", lambda: satellites.allowed(visit, detector, names, boxes),
                                  config.satellite_retry)
        kept = drop(satellite_reasons(names, allowed), "satellites")
    if config.glints:
        sources = table.copy(sources)
        sources["glint_trail"] = False
        sources["glint_trail"][kept[glints(table.take(sources, kept), config)]] = True
    if config.quality:
        kept = drop(quality(table.take(sources, kept), visit.exposure_s, wcs.scale_arcsec, config), "quality")
    if config.reliability:
        kept = drop(reliability(table.take(sources, kept), config), "reliability")
    found = table.join(rejected) if rejected else empty(REJECTION)
    filtered = Filtered(table.take(sources, kept), kept, found)
    yield Step("filter", len(sources), left=filtered)
    return filtered


def corners(sources: np.ndarray, wcs: Wcs) -> np.ndarray:
    """(n, 4, 2) RA, Dec [deg] of the corners of the footprints' boxes, pixel borders included."""
    x0, x1 = sources["bbox_x0"] - 0.5, sources["bbox_x1"] + 0.5
    y0, y1 = sources["bbox_y0"] - 0.5, sources["bbox_y1"] + 0.5
    ra, dec = wcs.sky(np.stack([x0, x1, x1, x0], axis=1), np.stack([y0, y0, y1, y1], axis=1))
    return np.stack([ra, dec], axis=-1)


def satellite_reasons(names: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """The service's allow-list as reasons; an answer with other names than asked for is refused."""
    if np.array_equal(allowed, names):
        return np.zeros(len(names), REASON)
    unknown = np.setdiff1d(allowed, names)
    if len(unknown):
        raise NonRetriableError(f"the satellite service allows sources that it was not asked about: {unknown[:3]}")
    return np.where(np.isin(names, allowed), b"", b"satellite").astype(REASON)


def quality(sources: np.ndarray, exposure_s: float, scale_arcsec: float, config: FilterConfig) -> np.ndarray:
    """Reasons of the quality filter: flags, negative flux on the science image, trails of 10 deg per day and more."""
    limit = config.max_trail_rate * exposure_s / scale_arcsec
    width = sources["bbox_x1"] - sources["bbox_x0"] + 1
    height = sources["bbox_y1"] - sources["bbox_y0"] + 1
    tests = [(sources[name], name) for name in QUALITY_FLAGS]
    with np.errstate(divide="ignore", invalid="ignore"):
        science_snr = sources["scienceFlux"] / sources["scienceFluxErr"]
        tests += [(science_snr < config.min_science_snr, "scienceFlux"),
                  (sources["trailLength"] >= limit, "trailLength"),
                  (sources["trail_suspect_long"] & sources["trail_flag_edge"], "trail_suspect_long"),
                  (sources["trail_flag"] & (np.hypot(width, height) >= limit), "footprint_long")]
    return first_reason(tests, len(sources))


def reliability(sources: np.ndarray, config: FilterConfig) -> np.ndarray:
    """Reasons of the reliability filter; sources without a score pass."""
    return first_reason([(sources["reliability"] < config.min_reliability, "reliability")], len(sources))


def new_object(sources: np.ndarray, config: FilterConfig) -> np.ndarray:
    """Why DIASources that match nothing may not found a new DIAObject."""
    tests = [(sources[name], name) for name in config.new_object_flags]
    tests.append((sources["reliability"] < config.new_object_min_reliability, "reliability"))
    return first_reason(tests, len(sources))


def glints(sources: np.ndarray, config: FilterConfig) -> np.ndarray:
    """Which sources lie on a line of several: glints of a tumbling satellite.

    Candidates are positive and no dipoles. Every candidate is a hub; through it and each neighbour within
    `glint_radius_px` goes a line, and the best line of a hub is the one that holds at least `glint_points` sources
    and would least likely hold as many by chance. The deployed search accepts any line whose residuals have a root
    of summed squares up to 15 px, which a crowd of unrelated sources gives easily; here the line must also be
    unlikely: with m neighbours of density uniform in the circle, a strip that holds k more of them has chance
    P(binomial(m - 1, strip / circle) >= k), and that times the number of lines tried must stay under `glint_chance`.

    References
    ----------
    Rubin Alert Production, section 4.6; Desolneux, Moisan & Morel 2000 (meaningful alignments).
    """
    flagged = np.zeros(len(sources), bool)
    candidates = np.flatnonzero(~sources["isNegative"] & ~sources["isDipole"]
                                & np.isfinite(sources["x"]) & np.isfinite(sources["y"]))
    if len(candidates) < config.glint_points:
        return flagged
    xy = np.column_stack([sources["x"][candidates], sources["y"][candidates]])
    for hub in _hubs(xy, config).tolist():
        offset = xy - xy[hub]
        near = np.flatnonzero((np.hypot(*offset.T) <= config.glint_radius_px) & (np.hypot(*offset.T) > 0))
        if len(near) + 1 >= config.glint_points:
            members = _best_line(offset[near], len(candidates), config)
            if len(members):
                flagged[candidates[hub]] = True
                flagged[candidates[near[members]]] = True
    return flagged


def _hubs(xy: np.ndarray, config: FilterConfig) -> np.ndarray:
    """Rows of positions that may have enough others near: by boxes, and all where they are many."""
    if len(xy) > HUBS_AT_ONCE:
        return np.arange(len(xy))
    x, y = xy[:, 0], xy[:, 1]
    reach = config.glint_radius_px
    near = (np.abs(x[:, None] - x) <= reach) & (np.abs(y[:, None] - y) <= reach)
    return np.flatnonzero(near.sum(axis=1) >= config.glint_points)


@lru_cache(maxsize=1024)
def _widths(m: int, n_candidates: int, config: FilterConfig) -> tuple[np.ndarray, np.ndarray]:
    """Numbers k of sources beyond a line's first two, and the half-width [pixel] within which k are no chance."""
    k = np.arange(config.glint_points - 2, min(m - 1, GLINT_MOST) + 1)
    tries = 0.5 * n_candidates * m * (m - 1)
    strip = betaincinv(k, m - k, min(config.glint_chance / tries, 1.0))    # P(binomial(m - 1, strip) >= k) = its share
    return k, np.minimum(strip * np.pi * config.glint_radius_px / 4.0, config.glint_residual_px)


def _best_line(offset: np.ndarray, n_candidates: int, config: FilterConfig) -> np.ndarray:
    """Rows of `offset`, (m, 2) [pixel] from a hub, on the least likely line through the hub; empty without a line."""
    m = len(offset)
    k, widest = _widths(m, n_candidates, config)
    direction = offset / np.hypot(*offset.T)[:, None]
    distance = np.abs(direction[:, :1] * offset[:, 1] - direction[:, 1:] * offset[:, 0])     # (line, point)
    np.fill_diagonal(distance, 0.0)
    lines = np.flatnonzero((distance <= widest[-1]).sum(axis=1) >= config.glint_points - 1)
    nearest = np.sort(distance[lines], axis=1)[:, 1:k[-1] + 1]             # without the one that sets the line
    squares = np.cumsum(nearest**2, axis=1)[:, k - 1]
    good = (nearest[:, k - 1] <= widest) & (squares <= config.glint_residual_px**2)
    line, count = np.nonzero(good)
    if not len(line):
        return np.empty(0, int)
    share = np.minimum(4.0 * nearest[line, k[count] - 1] / (np.pi * config.glint_radius_px), 1.0)
    best = int(np.argmin(betainc(k[count], m - k[count], share)))
    return np.argsort(distance[lines[line[best]]], kind="stable")[:k[count[best]] + 1]
