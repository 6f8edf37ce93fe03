"""Pairs of sides at catalogue fidelity whose true difference is known: the same sky, the same noise, two pipelines.

A night has fields of unequal richness, each visited several times. What sources share, as real ones do: the depth, the
seeing and the quality of the subtraction belong to a visit; the flux, the noise of the template under it and a bright
star next to it belong to an object. The noise is that of `simulators.catalogs`; each side finds what lies above its
own threshold, outside its own masks.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np

from reports.terms import Metric, Statistic, Terms
from simulators.catalogs import CatalogModel, NoiseField

SIDE_PX: Final = 1000
SIGMA_PX: Final = 1.9
ERROR: Final = 100.0            # nJy, of a visit of middling depth
MODEL: Final = CatalogModel()
DEPTH_SCATTER: Final = 0.18     # of ln flux error between visits
TEMPLATE_SHARE: Final = 0.25    # of the noise's variance that all visits of a place share
SNR: Final = (3.0, 40.0)
LARGE: Final = 0.1              # relative: a worse error counts as this in a mean of sizes
JUDGED: Final = (5.5, 8.0)      # true S/N
BINS: Final = (3.0, 4.0, 5.0, 5.5, 6.0, 7.0, 8.0, 10.0, 14.0, 20.0, 40.0)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What one side does with what both see."""

    threshold: float = 5.0
    masked: float = 0.05           # share of the sky near bright stars, at middling seeing
    blur: float = 0.0              # S/N lost to a bad kernel in a bad visit, times |N(0, 1)| of the visit
    offset_arcsec: float = 0.0     # of positions
    flux_factor: float = 1.0       # of fluxes found
    false_factor: float = 1.0      # of false detections
    jitter: float = 0.0            # noise of its own in fluxes, in units of their error
    slower: float = 1.0            # CPU time


@dataclass(frozen=True, slots=True)
class Night:
    """The terms of all metrics of one side."""

    terms: dict[str, Terms]


@dataclass(frozen=True, slots=True)
class Sky:
    """What both sides see: rows of (visit, object), rows of false detections, and visits."""

    n_visits: int
    visit: np.ndarray          # (n,) of each true source
    object: np.ndarray         # (n,)
    snr: np.ndarray            # (n,) true
    noise: np.ndarray          # (n,) in units of the error
    own: np.ndarray            # (n,) a deviate for what one side adds
    star: np.ndarray           # (n,) uniform: how far from a bright star, belongs to the object
    lucky: np.ndarray          # (n,) bool
    off: np.ndarray            # (n, 2) centroid noise, in units of its error
    false_visit: np.ndarray    # (m,)
    false_place: np.ndarray    # (m,)
    false_snr: np.ndarray      # (m,)
    false_rank: np.ndarray     # (m,) uniform: a side with fewer loses the highest
    seeing: np.ndarray         # (visits,) ln
    badness: np.ndarray        # (visits,) |N(0, 1)|
    astrometry: np.ndarray     # (visits, 2) arcsec
    zeropoint: np.ndarray      # (visits,) relative
    cpu_s: np.ndarray          # (visits,)
    cpu_own: np.ndarray        # (visits, 2) relative scatter of either side


def sky(seed: int, visits: int, *, fields: int = 4, richness: float = 25.0) -> Sky:
    """A night of `visits` visits to `fields` fields of about `richness` sources each, unequal."""
    rng = np.random.default_rng((20270822, seed))
    counts = 1 + rng.poisson(richness * np.exp(rng.normal(0.0, 0.6, fields) - 0.18))
    first = np.concatenate([[0], np.cumsum(counts)])
    flux = ERROR * np.exp(rng.uniform(*np.log(SNR), first[-1]))
    star, place = rng.random(first[-1]), rng.uniform(0, SIDE_PX, (first[-1], 2))
    error = ERROR * np.exp(DEPTH_SCATTER * rng.normal(size=visits))
    chosen = rng.integers(0, fields, visits)
    rows = [np.arange(first[f], first[f + 1])[rng.random(counts[f]) < 0.9] for f in chosen]
    seen = np.concatenate(rows)
    visit = np.repeat(np.arange(visits), [len(r) for r in rows])
    own = [NoiseField(seed * 1_000_003 + v, SIGMA_PX).at(*place[r].T) for v, r in enumerate(rows)]
    template = NoiseField(seed * 1_000_003 + 999_983, SIGMA_PX).at(*place.T)
    noise = np.sqrt(1 - TEMPLATE_SHARE) * np.concatenate(own) + np.sqrt(TEMPLATE_SHARE) * template[seen]
    false = _false(rng, visits, chosen, fields)
    return Sky(visits, visit, seen, flux[seen] / error[visit], noise, rng.normal(size=len(seen)), star[seen],
               rng.random(len(seen)) < MODEL.efficiency, rng.normal(size=(len(seen), 2)), *false,
               0.15 * rng.normal(size=visits), np.abs(rng.normal(size=visits)), 0.01 * rng.normal(size=(visits, 2)),
               0.005 * rng.normal(size=visits), np.exp(0.3 * rng.normal(size=visits)),
               0.04 * rng.normal(size=(visits, 2)))


def _false(rng: np.random.Generator, visits: int, chosen: np.ndarray,
           fields: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """False detections: a third recur at places of their field, the rest fall where they like."""
    rate = MODEL.false_per_megapixel * np.exp(rng.normal(0.0, 0.4, visits) - 0.08)
    fresh = np.repeat(np.arange(visits), rng.poisson(2 * rate / 3))
    spots = np.repeat(np.arange(fields), rng.poisson(1.0, fields))
    shows = rng.random((visits, len(spots))) < np.minimum(rate / 3, 1.0)[:, None]
    again, spot = np.nonzero(shows & (spots == chosen[:, None]))
    visit = np.concatenate([fresh, again])
    place = np.concatenate([len(spots) + np.arange(len(fresh)), spot])
    return visit, place, 5.0 + rng.exponential(2.0, len(visit)), rng.random(len(visit))


def side(seen: Sky, pipeline: Pipeline, *, which: int = 0) -> Night:
    """What a pipeline makes of a sky; `which` says whose clock noise it has."""
    s, p = seen, pipeline
    amplitude = s.snr * np.exp(-p.blur * s.badness[s.visit]) + s.noise + p.jitter * s.own
    clear = s.star >= p.masked * np.exp(s.seeing[s.visit])
    found = (amplitude >= p.threshold) & clear & s.lucky
    judged = (s.snr >= JUDGED[0]) & (s.snr < JUDGED[1])
    floor = MODEL.centroid_floor_px * 0.2
    width = np.hypot(np.sqrt(2.0) * SIGMA_PX * 0.2 / np.maximum(amplitude, 1.0), floor)
    off = s.off * width[:, None] + s.astrometry[s.visit] + np.array([p.offset_arcsec, 0.0])
    error = (amplitude * p.flux_factor * (1 + s.zeropoint[s.visit]) - s.snr)
    kept = (s.false_rank < p.false_factor / 1.5) & (s.false_snr >= p.threshold)
    bright = found & (s.snr > 10)
    visits = np.arange(s.n_visits)

    def of(rows: np.ndarray, value: np.ndarray, statistic: Statistic = "ratio") -> Terms:
        return Terms(value[rows].astype(float), np.ones(int(rows.sum())), s.visit[rows], s.object[rows], statistic)

    area = Terms(np.concatenate([np.zeros(s.n_visits), np.ones(int(kept.sum()))]),
                 np.concatenate([np.ones(s.n_visits), np.zeros(int(kept.sum()))]),
                 np.concatenate([visits, s.false_visit[kept]]),
                 np.concatenate([np.full(s.n_visits, -1), s.false_place[kept]]))
    cpu = s.cpu_s * p.slower * (1 + s.cpu_own[:, which])
    binned: dict[str, Terms] = {}
    for low, high in itertools.pairwise(BINS):
        inside = (s.snr >= low) & (s.snr < high)
        binned[f"completeness_{low:g}"] = of(inside, found)
        binned[f"offset_{low:g}"] = of(inside & found, np.hypot(*off.T), "median")
        binned[f"flux_{low:g}"] = of(inside & found, error / s.snr)
        binned[f"pulls_{low:g}"] = of(inside & found, error, "std")
    return Night({
        "completeness": of(judged, found), "false_rate": area,
        "offset_median": of(found, np.hypot(*off.T), "median"),
        "flux_bias": of(bright, error / s.snr, "abs_ratio"), "flux_mean": of(bright, error / s.snr),
        "flux_size": of(bright, np.minimum(np.abs(error / s.snr), LARGE)),
        "pull_std": of(bright, error, "std"), "pull_rms": of(bright, error, "rms"),
        "offset_98": of(found, np.hypot(*off.T), "percentile98"),
        "cpu": Terms(cpu, np.ones(s.n_visits), visits, np.full(s.n_visits, -1))} | binned)


def joined(nights: Sequence[Night]) -> Night:
    """Several seeds as one side: visits and objects counted on."""
    keys = nights[0].terms
    units = np.cumsum([0, *(1 + max(int(t.unit.max(initial=0)) for t in n.terms.values()) for n in nights)])
    objects = np.cumsum([0, *(1 + max(int(t.object.max(initial=0)) for t in n.terms.values()) for n in nights)])
    parts: dict[str, Terms] = {}
    for key in keys:
        terms = [n.terms[key] for n in nights]
        parts[key] = Terms(
            np.concatenate([t.value for t in terms]), np.concatenate([t.weight for t in terms]),
            np.concatenate([t.unit + u for t, u in zip(terms, units, strict=False)]),
            np.concatenate([np.where(t.object >= 0, t.object + o, -1) for t, o in zip(terms, objects, strict=False)]),
            terms[0].statistic)
    return Night(parts)


def pair(seed: int, visits: Sequence[int], base: Pipeline, head: Pipeline, *, fields: int = 4,
         richness: float = 25.0) -> tuple[Night, Night]:
    """Both sides of nights of so many visits each."""
    skies = [sky(1000 * seed + i, n, fields=fields, richness=richness) for i, n in enumerate(visits)]
    return (joined([side(s, base, which=0) for s in skies]), joined([side(s, head, which=1) for s in skies]))


def swapped(base: Night, head: Night, units: np.ndarray) -> tuple[Night, Night]:
    """The sides with the rows of the units where `units` (bool, by unit) exchanged."""
    out: list[dict[str, Terms]] = [{}, {}]
    for key in base.terms:
        sides = (base.terms[key], head.terms[key])
        for i in range(2):
            mine, other = sides[i], sides[1 - i]
            keep, take = ~units[mine.unit], units[other.unit]
            out[i][key] = Terms(*(np.concatenate([getattr(mine, name)[keep], getattr(other, name)[take]])
                                  for name in ("value", "weight", "unit", "object")), mine.statistic)
    return Night(out[0]), Night(out[1])


KINDS: Final[Mapping[str, tuple[float, bool, Literal["higher", "lower", "neither"]]]] = {   # margin, relative, better
    "completeness": (0.01, False, "higher"), "false_rate": (0.1, True, "lower"),
    "offset_median": (0.002, False, "lower"), "flux_bias": (0.001, False, "lower"),
    "flux_mean": (0.001, False, "lower"), "flux_size": (0.001, False, "lower"), "pull_std": (0.02, True, "lower"),
    "pull_rms": (0.02, True, "lower"), "offset_98": (0.01, False, "lower"), "cpu": (0.03, True, "lower")}
OF_BINS: Final[Mapping[str, tuple[float, bool, Literal["higher", "lower", "neither"]]]] = {
    "completeness_{}": (0.01, False, "higher"), "offset_{}": (0.002, False, "lower"),
    "flux_{}": (0.001, False, "lower"), "pulls_{}": (0.02, True, "lower")}


PRIMARY: Final = ("completeness", "false_rate", "offset_median", "flux_bias", "cpu")


def _terms(key: str, night: Night) -> Terms:
    return night.terms[key]


def _metric(key: str, kind: tuple[float, bool, Literal["higher", "lower", "neither"]]) -> Metric:
    return Metric(key, key.replace("_", " "), "validation", "", kind[2], kind[0], kind[1], key in PRIMARY,
                  "detect", partial(_terms, key))  # type: ignore[arg-type]  # nights stand for outcomes


METRICS: Final = tuple(_metric(key, kind) for key, kind in KINDS.items())      # without bins: of many rows each
ALL: Final = METRICS + tuple(_metric(key.format(f"{low:g}"), kind) for low in BINS[:-1]
                             for key, kind in OF_BINS.items())
