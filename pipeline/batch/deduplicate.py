"""Which DIAObjects are one source twice.

Visits a minute apart are processed at the same time: neither sees the objects that the other is about to make, and both
make one of the same source. Two ways to find these in the morning:

`deployed`  Ward clusters of (ra, dec) as if the sky were a plane, cut at 1.5", the oldest of each cluster kept.
            What that costs: pairs across RA 0 and towards the poles are missed, and two sources 1.4" apart are merged.
`ours`      on the sphere, nearest pairs first, and only objects that can be duplicates: never two of one visit, nor
            one that was in the store when the other's visit read it, nor two that lie apart by more than their errors.

Reference: DeduplicateAllSkyDiaObjectsTask of ap_association (a branch of 2026).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.cluster.hierarchy import fcluster, ward
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from pipeline.config import DeduplicateConfig, ObjectsConfig
from pipeline.errors import AlgorithmError
from pipeline.objects import slots
from pipeline.sphere import angles_arcsec, chord, unit_vectors

SECONDS_PER_DAY = 86400.0
LINKING = 3.0     # in units of the cut: pieces that lie farther apart than this share no Ward cluster under the cut


def _none() -> np.ndarray:
    return np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Merges:
    """DIAObjects that are one source, in parallel arrays: each removed id goes into the one that is kept.

    `strays` are founding sources of objects that another source has taken over: they alone go to a kept object.
    """

    removed: np.ndarray      # (n,) int64, distinct
    kept: np.ndarray         # (n,) int64, none of them removed
    strays: np.ndarray = field(default_factory=_none)    # (k,) int64 diaSourceId
    homes: np.ndarray = field(default_factory=_none)     # (k,) int64 diaObjectId, none of them removed

    def __len__(self) -> int:
        return len(self.removed)


def duplicates(objects: np.ndarray, sources: np.ndarray, config: DeduplicateConfig,
               errors: ObjectsConfig | None = None) -> Merges:
    """Which of the newest versions of DIAObjects are duplicates, by the configured algorithm.

    Parameters
    ----------
    objects : (n,) DIA_OBJECT
        The newest version of each.
    sources : (m,) DIA_SOURCE
        All of theirs; the deployed algorithm does not look at them.

    Raises
    ------
    AlgorithmError
        Deployed: more objects than it will look at.
    """
    if config.algorithm == "deployed":
        return deployed(objects, config)
    if config.algorithm == "ours":
        return ours(objects, sources, config, errors or ObjectsConfig())
    raise ValueError(f"batch.deduplicate.algorithm must be ours or deployed, got {config.algorithm!r}")


# --- ours ------------------------------------------------------------------------------------------------------------


def ours(objects: np.ndarray, sources: np.ndarray, config: DeduplicateConfig, errors: ObjectsConfig) -> Merges:
    """Duplicates by what makes them: the founding visits did not see each other, and nothing else tells them apart.

    Clusters grow from the nearest pairs; two join only if every object of one may be a duplicate of every object of the
    other, so no chain links sources that are not near each other. The id that was made first is kept: consumers have
    met it first.
    """
    born = _Born.of(objects, sources)
    i, j = _near(objects, config, errors)
    possible = born.unaware(i, j, config.window_s)
    i, j = i[possible], j[possible]
    candidates = set(zip(i.tolist(), j.tolist(), strict=True))
    visits = _visits(objects, sources, np.unique(np.concatenate([i, j])))
    clusters: dict[int, list[int]] = {}
    seen: dict[int, set[int]] = {}
    for a, b in zip(i.tolist(), j.tolist(), strict=True):
        one, other = clusters.setdefault(a, [a]), clusters.setdefault(b, [b])
        if one is other or not _may_join(one, other, candidates):
            continue
        visits_one, visits_other = (seen.setdefault(c[0], set(visits.get(c[0], ()))) for c in (one, other))
        if not visits_one.isdisjoint(visits_other):
            continue
        visits_one |= visits_other
        one += other
        clusters.update(dict.fromkeys(other, one))
    order = np.lexsort((objects["diaObjectId"], born.processed))
    rank = np.empty(len(objects), int)
    rank[order] = np.arange(len(objects))
    first = {min(cluster, key=lambda row: rank[row]): cluster for cluster in clusters.values() if len(cluster) > 1}
    merges = _merges(objects["diaObjectId"], [(keep, row) for keep, cluster in first.items() for row in cluster])
    return replace(merges, **_strays(objects, sources, merges, born, config, errors))


def _strays(objects: np.ndarray, sources: np.ndarray, merges: Merges, born: "_Born", config: DeduplicateConfig,
            errors: ObjectsConfig) -> dict[str, np.ndarray]:
    """Founding sources that lie off their own object and on one whose founding visit was unaware of theirs.

    An object made twice may be taken over by something near it: its next source is another's, and its mean moves away
    from the duplicate that it was. Its first source then goes home alone.
    """
    ids = objects["diaObjectId"]
    founding = slots(ids, sources["diaSourceId"])
    rows = np.flatnonzero((founding >= 0) & (objects["nDiaSources"] > 1) & ~np.isin(ids, merges.removed))
    mine = sources[["diaSourceId", "diaObjectId", "visit", "ra", "dec", "raErr", "decErr", "timeWithdrawnMjdTai"]][
        founding[rows]]
    spread, noise = _variance(objects, errors), _variance(mine, errors)
    here, vectors = unit_vectors(mine["ra"], mine["dec"]), unit_vectors(objects["ra"], objects["dec"])
    off = angles_arcsec(np.linalg.norm(here - vectors[rows], axis=1))
    away = ((off > config.allowance_arcsec + config.sigmas * np.sqrt(noise + spread[rows]))
            & (mine["diaObjectId"] == ids[rows]) & np.isnan(mine["timeWithdrawnMjdTai"]))
    placed = np.flatnonzero(np.isfinite(objects["ra"]) & ~np.isin(ids, merges.removed))
    if not away.any():
        return {}
    tree, found = cKDTree(vectors[placed]), []
    for k in np.flatnonzero(away).tolist():
        near = placed[tree.query_ball_point(here[k], chord(config.radius_arcsec))]
        apart = angles_arcsec(np.linalg.norm(vectors[near] - here[k], axis=1))
        limit = config.allowance_arcsec + config.sigmas * np.sqrt(noise[k] + spread[near])
        fits = ((near != rows[k]) & (apart <= limit)
                & born.unaware(near, np.full(len(near), rows[k]), config.window_s))
        for home in near[fits][np.argsort(apart[fits], kind="stable")].tolist():
            theirs = np.append(merges.removed[merges.kept == ids[home]], ids[home])
            if not np.any(np.isin(sources["diaObjectId"], theirs) & (sources["visit"] == mine["visit"][k])):
                found.append((int(mine["diaSourceId"][k]), int(ids[home])))
                break
    pairs = np.array(found, np.int64).reshape(-1, 2)
    return {"strays": pairs[:, 0], "homes": pairs[:, 1]}


def _variance(rows: np.ndarray, errors: ObjectsConfig) -> np.ndarray:
    """(n,) variance of positions, mean of both directions [arcsec^2]; a missing error is replaced."""
    total = np.zeros(len(rows))
    for name in ("raErr", "decErr"):
        sigma = 3600.0 * rows[name].astype(float)
        sigma = np.where(np.isfinite(sigma), sigma, errors.sigma_missing_arcsec)
        total += 0.5 * np.maximum(sigma, errors.sigma_floor_arcsec) ** 2
    return total


def _may_join(one: list[int], other: list[int], candidates: set[tuple[int, int]]) -> bool:
    return all((min(a, b), max(a, b)) in candidates for a in one for b in other)


def _near(objects: np.ndarray, config: DeduplicateConfig, errors: ObjectsConfig) -> tuple[np.ndarray, np.ndarray]:
    """(i, j), i < j, of objects no farther apart than the radius and than their errors allow, nearest first."""
    vectors = unit_vectors(objects["ra"], objects["dec"])
    placed = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    if len(placed) < 2:
        return np.empty(0, int), np.empty(0, int)
    pairs = placed[cKDTree(vectors[placed]).query_pairs(chord(config.radius_arcsec), output_type="ndarray")]
    i, j = pairs.min(axis=1), pairs.max(axis=1)
    apart = angles_arcsec(np.linalg.norm(vectors[i] - vectors[j], axis=1))
    variance = _variance(objects, errors)
    close = apart <= config.allowance_arcsec + config.sigmas * np.sqrt(variance[i] + variance[j])
    i, j, apart = i[close], j[close], apart[close]
    order = np.lexsort((j, i, apart))
    return i[order], j[order]


@dataclass(frozen=True, slots=True)
class _Born:
    """When each object was made: its founding source, which has its id, says so."""

    midpoint: np.ndarray      # (n,) of the founding visit [MJD]
    processed: np.ndarray     # (n,) of the founding source, before its visit was saved [MJD]

    @classmethod
    def of(cls, objects: np.ndarray, sources: np.ndarray) -> "_Born":
        row = slots(objects["diaObjectId"], sources["diaSourceId"])
        midpoint, processed = (np.append(sources[name], np.inf)[row] for name in ("midpointMjdTai",
                                                                                 "timeProcessedMjdTai"))
        return cls(midpoint, processed)

    def unaware(self, i: np.ndarray, j: np.ndarray, window_s: float) -> np.ndarray:
        """Which pairs were made by visits that may have read the store before the other's object was in it.

        An object is in the store by `window_s` after its founding source was processed, and a visit reads the store no
        earlier than it begins; so a catch-up in the morning, which reads as of its visit, is judged as rightly.
        """
        known = self.processed + window_s / SECONDS_PER_DAY
        return np.asarray((known[i] >= self.midpoint[j]) & (known[j] >= self.midpoint[i])
                          | ~np.isfinite(self.midpoint[i]) | ~np.isfinite(self.midpoint[j]))


def _visits(objects: np.ndarray, sources: np.ndarray, wanted: np.ndarray) -> dict[int, list[int]]:
    """The visits that each wanted row of the objects was detected in."""
    row = slots(sources["diaObjectId"], objects["diaObjectId"][wanted])
    of: dict[int, list[int]] = {}
    held = np.flatnonzero((row >= 0) & np.isnan(sources["timeWithdrawnMjdTai"]))
    for place, visit in zip(wanted[row[held]].tolist(), sources["visit"][held].tolist(), strict=True):
        of.setdefault(place, []).append(visit)
    return of


# --- deployed --------------------------------------------------------------------------------------------------------


def deployed(objects: np.ndarray, config: DeduplicateConfig) -> Merges:
    """Duplicates as the deployed task finds them.

    Its clusters are those of scikit-learn's AgglomerativeClustering with Ward linkage on (ra, dec) in degrees, cut at
    the radius and joined only along the 30 nearest neighbours. Its subsets of at most 50,000 come from k-means with
    random starts; here a field is halved at its medians instead, and nothing is merged across a border either.

    Raises
    ------
    AlgorithmError
        More objects than `config.max_objects`.
    """
    if len(objects) > config.max_objects:
        raise AlgorithmError(f"{len(objects)} DIAObjects to deduplicate; at most {config.max_objects} are taken on "
                             "(batch.deduplicate.max_objects)")
    plane = np.stack([objects["ra"], objects["dec"]], axis=1)
    found: list[tuple[int, int]] = []
    for subset in _halved(plane, np.flatnonzero(np.isfinite(plane).all(axis=1)), config.subset):
        for members in _ward_clusters(plane[subset], config):
            rows = subset[members]
            start = objects["validityStartMjdTai"][rows]
            keep = int(rows[np.lexsort((objects["diaObjectId"][rows], start))[0]])
            found += [(keep, int(row)) for row in rows]
    return _merges(objects["diaObjectId"], found)


def _halved(plane: np.ndarray, rows: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Rows in subsets of at most so many, cut at medians of the longer side."""
    if len(rows) <= most:
        yield rows
        return
    axis = int(np.argmax(np.ptp(plane[rows], axis=0)))
    order = rows[np.argsort(plane[rows, axis], kind="stable")]
    for half in (order[:len(order) // 2], order[len(order) // 2:]):
        yield from _halved(plane, half, most)


def _ward_clusters(plane: np.ndarray, config: DeduplicateConfig) -> Iterator[np.ndarray]:
    """Members of each Ward cluster of several points, cut at the radius.

    Ward never joins, under the cut, pieces that lie far apart, so every piece of the graph of near neighbours has its
    own tree: no tree of 50,000 is made.
    """
    cut = config.radius_arcsec / 3600.0
    if len(plane) < 2:
        return
    distance, neighbour = cKDTree(plane).query(plane, k=min(config.neighbours + 1, len(plane)),
                                               distance_upper_bound=LINKING * cut)
    linked = np.isfinite(distance)
    i = np.broadcast_to(np.arange(len(plane))[:, None], linked.shape)[linked]
    graph = coo_array((np.ones(len(i)), (i, neighbour[linked])), shape=(len(plane), len(plane)))
    _, piece = connected_components(graph, directed=False)
    order = np.argsort(piece, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(piece[order])) + 1):
        if len(rows) > 1:
            label = fcluster(ward(plane[rows]), cut * (1 - 1e-12), criterion="distance")   # its cut leaves out equals
            for value in np.flatnonzero(np.bincount(label) > 1):
                yield rows[label == value]


def _merges(ids: np.ndarray, pairs: list[tuple[int, int]]) -> Merges:
    """Merges of (kept, member) rows; a kept row is no member of its own."""
    rows = np.array(sorted((member, keep) for keep, member in pairs if member != keep), int).reshape(-1, 2)
    return Merges(ids[rows[:, 0]].astype(np.int64), ids[rows[:, 1]].astype(np.int64))
