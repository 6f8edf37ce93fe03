"""Which known thing each DIASource is: a DIAObject, a Solar System object, or something new (section 4.9).

Positions are matched as unit vectors within a radius. `greedy` pairs the nearest first (the paper); `likelihood`
assigns all of them at once so that the positions are likeliest together (deployed since 2026-06). `order` says who
is asked first: `objects` (the paper) or `solar_system` (deployed since 2026-01).
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from pipeline.config import AssociateConfig, FilterConfig
from pipeline.errors import TooManyDiaObjects
from pipeline.filter import new_object
from pipeline.solarsystem import Predicted, match, predict, ss_sources
from pipeline.sphere import chord, offsets_arcsec, unit_vectors
from schemas import table


@dataclass(frozen=True, slots=True)
class Associated:
    """DIASources with what they belong to."""

    sources: np.ndarray        # (n,) DIA_SOURCE: diaObjectId or ssObjectId is set
    index: np.ndarray          # (n,) rows of the sources given
    object_row: np.ndarray     # (n,) row of the objects given; -1 for new objects and Solar System objects
    is_new: np.ndarray         # (n,) bool: founds a DIAObject, whose id is its diaSourceId
    ss_sources: np.ndarray     # SS_SOURCE
    ephemerides: np.ndarray    # EPHEMERIS rows of ss_sources
    reasons: np.ndarray        # S40 per source given; b"" for those kept
    n_predicted: int           # known Solar System objects near the detector

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def n_new(self) -> int:
        return int(self.is_new.sum())


def associate(sources: np.ndarray, objects: np.ndarray, ephemerides: np.ndarray, mjd_tai: float,
              config: AssociateConfig, filters: FilterConfig) -> Associated:
    """Associate DIASources with DIAObjects, Solar System objects and, last, new DIAObjects.

    Parameters
    ----------
    sources : (n,) DIA_SOURCE
        Those without a finite position are left out, with that reason.
    objects : (m,) DIA_OBJECT
        Newest versions around the detector.
    ephemerides : (k,) EPHEMERIS
    mjd_tai : float
        Midpoint of the exposure, for which the ephemerides are evaluated.

    Raises
    ------
    TooManyDiaObjects
        More than `config.max_new_objects` would be new.
    """
    placed = np.isfinite(sources["ra"]) & np.isfinite(sources["dec"])
    predicted = predict(ephemerides, mjd_tai)
    object_row, prediction = np.full(len(sources), -1), np.full(len(sources), -1)

    def to_objects() -> None:
        free = np.flatnonzero(placed & (prediction < 0))
        i, j = pairs(table.take(sources, free), objects, config)
        object_row[free[i]] = j

    def to_solar_system() -> None:
        free = np.flatnonzero(placed & (object_row < 0))
        i, j = match(sources["ra"][free], sources["dec"][free], predicted, config.solar_system_radius_arcsec)
        prediction[free[i]] = j

    steps = {"objects": (to_objects, to_solar_system), "solar_system": (to_solar_system, to_objects)}
    if config.order not in steps:
        raise ValueError(f"associate.order must be one of {', '.join(steps)}, got {config.order!r}")
    for step in steps[config.order]:
        step()
    reasons = np.where(placed, b"", b"position").astype("S40")
    unmatched = np.flatnonzero(placed & (object_row < 0) & (prediction < 0))
    if filters.new_objects:
        reasons[unmatched] = new_object(table.take(sources, unmatched), filters)
    return _associated(sources, objects, ephemerides, predicted, object_row, prediction, reasons, config)


def _associated(sources: np.ndarray, objects: np.ndarray, ephemerides: np.ndarray, predicted: Predicted,
                object_row: np.ndarray, prediction: np.ndarray, reasons: np.ndarray,
                config: AssociateConfig) -> Associated:
    """Give every kept source its id."""
    index = np.flatnonzero(reasons == b"")
    kept, row, eph = table.take(sources, index), object_row[index], prediction[index]
    is_new = (row < 0) & (eph < 0)
    if is_new.sum() > config.max_new_objects:
        raise TooManyDiaObjects(f"{int(is_new.sum())} new DIAObjects on one detector; at most "
                                f"{config.max_new_objects} are believed (associate.max_new_objects)")
    matched, moving = np.flatnonzero(row >= 0), np.flatnonzero(eph >= 0)
    kept["diaObjectId"][matched] = objects["diaObjectId"][row[matched]]
    kept["diaObjectId"][is_new] = kept["diaSourceId"][is_new]
    known = ephemerides[predicted.row[eph[moving]]]
    kept["ssObjectId"][moving] = known["ssObjectId"]
    ss_rows = ss_sources(table.take(kept, moving), ephemerides, predicted, eph[moving])
    return Associated(kept, index, row, is_new, ss_rows, known, reasons, len(predicted))


def pairs(sources: np.ndarray, objects: np.ndarray, config: AssociateConfig) -> tuple[np.ndarray, np.ndarray]:
    """(source, object) rows of one-to-one pairs within the radius."""
    matchers = {"greedy": greedy, "likelihood": likelihood}
    if config.matcher not in matchers:
        raise ValueError(f"associate.matcher must be one of {', '.join(matchers)}, got {config.matcher!r}")
    return matchers[config.matcher](sources, objects, config)


def candidates(sources: np.ndarray, objects: np.ndarray,
               radius_arcsec: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All (source, object, chord) within the radius, in order of source and object."""
    if not len(sources) or not len(objects):
        return np.empty(0, int), np.empty(0, int), np.empty(0)
    ours = cKDTree(unit_vectors(sources["ra"], sources["dec"]))
    theirs = cKDTree(unit_vectors(objects["ra"], objects["dec"]))
    found = ours.sparse_distance_matrix(theirs, chord(radius_arcsec), output_type="ndarray")
    found = found[np.lexsort((found["j"], found["i"]))]
    return found["i"], found["j"], found["v"]


def greedy(sources: np.ndarray, objects: np.ndarray, config: AssociateConfig) -> tuple[np.ndarray, np.ndarray]:
    """Nearest pairs first."""
    i, j, distance = candidates(sources, objects, config.radius_arcsec)
    taken_i, taken_j = np.zeros(len(sources), bool), np.zeros(len(objects), bool)
    chosen = []
    for pair in np.argsort(distance, kind="stable").tolist():
        if not taken_i[i[pair]] and not taken_j[j[pair]]:
            taken_i[i[pair]] = taken_j[j[pair]] = True
            chosen.append(pair)
    return i[chosen], j[chosen]


def likelihood(sources: np.ndarray, objects: np.ndarray, config: AssociateConfig) -> tuple[np.ndarray, np.ndarray]:
    """The assignment of least summed cost, cost = chi^2 / 2 + ln(variance to the East x variance to the North) / 2.

    A source may stay alone for a little more than the worst candidate of its group of sources and objects that
    compete, so it does where objects run out.
    """
    i, j, _ = candidates(sources, objects, config.radius_arcsec)
    cost = position_costs(sources, objects, i, j, config)
    n = len(sources)
    graph = coo_array((np.ones(len(i)), (i, n + j)), shape=(n + len(objects), n + len(objects)))
    _, label = connected_components(graph, directed=False)
    group = label[i]
    size = np.bincount(group, minlength=1)
    chosen = np.flatnonzero(size[group] == 1).tolist() if len(i) else []
    for one in np.flatnonzero(size > 1):
        chosen.extend(_assign(i, j, cost, np.flatnonzero(group == one)))
    order = np.sort(np.array(chosen, int))
    return i[order], j[order]


def position_costs(sources: np.ndarray, objects: np.ndarray, i: np.ndarray, j: np.ndarray,
                   config: AssociateConfig) -> np.ndarray:
    """Negative log-likelihoods of pairs, up to a constant; errors of both sides add, missing ones are replaced."""
    def variance(name: str) -> np.ndarray:
        total = np.zeros(len(i))
        for rows, index in ((sources, i), (objects, j)):
            sigma = rows[name][index].astype(float) * 3600.0
            sigma = np.where(np.isfinite(sigma) & (sigma > 0), sigma, config.sigma_missing_arcsec)
            total += np.maximum(sigma, config.sigma_floor_arcsec) ** 2
        return total

    east, north = offsets_arcsec(objects["ra"][j], objects["dec"][j], sources["ra"][i], sources["dec"][i])
    var_east, var_north = variance("raErr"), variance("decErr")
    return np.asarray(0.5 * (east**2 / var_east + north**2 / var_north) + 0.5 * np.log(var_east * var_north))


def _assign(i: np.ndarray, j: np.ndarray, cost: np.ndarray, members: np.ndarray) -> list[int]:
    """The members (rows of the pair arrays) of the best assignment within one group."""
    ours, row = np.unique(i[members], return_inverse=True)
    theirs, column = np.unique(j[members], return_inverse=True)
    worst = cost[members].max()
    matrix = np.full((len(ours), len(theirs) + len(ours)), np.inf)
    which = np.full(matrix.shape, -1)
    matrix[row, column], which[row, column] = cost[members], members
    matrix[np.arange(len(ours)), len(theirs) + np.arange(len(ours))] = worst + 1.0
    chosen = which[linear_sum_assignment(matrix)]
    return [int(member) for member in chosen if member >= 0]
