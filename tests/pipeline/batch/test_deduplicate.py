"""Duplicates among DIAObjects, as pure functions: the deployed task against its own library, and ours against truth."""

import msgspec
import numpy as np
import pytest

from pipeline.batch.deduplicate import Merges, deployed, duplicates, ours
from pipeline.config import DeduplicateConfig, ObjectsConfig
from pipeline.errors import AlgorithmError
from schemas.table import DIA_OBJECT, DIA_SOURCE, join

OURS, ERRORS = DeduplicateConfig(), ObjectsConfig()
DEPLOYED = DeduplicateConfig(algorithm="deployed")
SIGMA = 0.05       # [arcsec]


def founded(ra: np.ndarray, dec: np.ndarray, visit: int, *, minutes: float, processed_min: float = 1.0,
            first: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Objects of one visit at positions [deg], and their founding sources."""
    objects, sources = DIA_OBJECT.empty(len(ra)), DIA_SOURCE.empty(len(ra))
    ids = 1_000_000 * visit + first + np.arange(len(ra))
    objects["diaObjectId"] = sources["diaObjectId"] = sources["diaSourceId"] = ids
    sources["visit"], sources["detector"] = visit, 4
    sources["midpointMjdTai"] = 61000 + minutes / 1440
    sources["timeProcessedMjdTai"] = 61000 + (minutes + processed_min) / 1440
    objects["validityStartMjdTai"] = sources["timeProcessedMjdTai"]
    for rows in (objects, sources):
        rows["ra"], rows["dec"] = np.asarray(ra) % 360.0, dec
        rows["raErr"] = rows["decErr"] = SIGMA / 3600
    return objects, sources


def scattered(ra: np.ndarray, dec: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions with errors of SIGMA on the sky."""
    rng = np.random.default_rng(seed)
    step = rng.normal(0, SIGMA / 3600, (2, len(ra)))
    return ra + step[0] / np.cos(np.radians(dec)), dec + step[1]


def together(*parts: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return join([p[0] for p in parts]), join([p[1] for p in parts])


def field(n: int, ra: float, dec: float, side_deg: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return ra + side_deg * rng.uniform(-1, 1, n) / np.cos(np.radians(dec)), dec + side_deg * rng.uniform(-1, 1, n)


def raced(ra: np.ndarray, dec: np.ndarray, visits: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Every place found by each of some visits 34 s apart, none of which saw the others'."""
    return together(*(founded(*scattered(ra, dec, seed), seed, minutes=0.57 * seed) for seed in range(1, visits + 1)))


# --- ours ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ra", "dec"), [(150.0, 2.0), (0.0, -30.0), (200.0, -85.0), (0.0, 90.0 - 0.06)])
def test_every_duplicate_is_found_wherever_the_field_lies(ra: float, dec: float) -> None:
    objects, sources = raced(*field(400, ra, dec), visits=3)
    found = ours(objects, sources, OURS, ERRORS)
    assert len(found) == 800
    np.testing.assert_array_equal(found.removed % 1_000_000, found.kept % 1_000_000)
    assert np.all(found.kept // 1_000_000 == 1)                    # the first made is kept
    assert len(np.intersect1d(found.kept, found.removed)) == 0


def test_two_sources_of_one_visit_are_two_sources_however_near() -> None:
    ra, dec = np.array([10.0, 10.0 + 0.3 / 3600]), np.array([0.0, 0.0])     # 0.3" apart
    one, other = founded(ra, dec, 1, minutes=0.0), founded(ra, dec, 2, minutes=0.5)
    found = ours(*together(one, other), OURS, ERRORS)
    assert sorted(zip(found.removed % 10, found.kept % 10, strict=True)) == [(1, 1), (2, 2)]
    assert len(ours(*one, OURS, ERRORS)) == 0
    assert len(deployed(one[0], DEPLOYED)) == 1                    # it merges them


def test_objects_of_visits_that_saw_each_other_are_not_duplicates() -> None:
    ra, dec = np.array([10.0]), np.array([0.0])
    first = founded(ra, dec, 1, minutes=0.0)
    for minutes, duplicate in ((0.5, True), (15.0, True), (40.0, False)):
        assert len(ours(*together(first, founded(ra, dec, 2, minutes=minutes)), OURS, ERRORS)) == duplicate


def test_a_catch_up_in_the_morning_that_read_as_of_its_visit_makes_duplicates() -> None:
    ra, dec = np.array([10.0]), np.array([0.0])
    live = founded(ra, dec, 2, minutes=35.0)
    caught_up = founded(ra, dec, 1, minutes=0.0, processed_min=600.0)
    found = ours(*together(live, caught_up), OURS, ERRORS)
    assert (found.removed.tolist(), found.kept.tolist()) == ([1_000_001], [2_000_001])    # the published id stays
    later = founded(ra, dec, 3, minutes=80.0, processed_min=600.0)     # its read, as of 80 min, saw the live one
    assert len(ours(*together(live, later), OURS, ERRORS)) == 0


def test_no_chain_links_what_is_far_apart() -> None:
    step = 0.4 / 3600
    parts = [founded(np.array([10.0 + k * step]), np.array([0.0]), k + 1, minutes=0.3 * k) for k in range(8)]
    objects, sources = together(*parts)
    found = ours(objects, sources, OURS, ERRORS)
    assert 0 < len(found) < 7
    ra = dict(zip(objects["diaObjectId"].tolist(), objects["ra"].tolist(), strict=True))
    apart = [abs(ra[a] - ra[b]) * 3600 for a, b in zip(found.removed.tolist(), found.kept.tolist(), strict=True)]
    assert max(apart) <= OURS.radius_arcsec


def test_objects_apart_by_more_than_their_errors_are_two() -> None:
    ra, dec = np.array([10.0]), np.array([0.0])
    for apart, duplicate in ((0.4, True), (0.8, False)):            # 0.25" + 4 sqrt(2) 0.05" = 0.53"
        pair = together(founded(ra, dec, 1, minutes=0.0), founded(ra + apart / 3600, dec, 2, minutes=0.5))
        assert len(ours(*pair, OURS, ERRORS)) == duplicate
    pair[0]["raErr"] = np.nan                                       # 0.2" in place of what is missing
    assert len(ours(*pair, OURS, ERRORS)) == 1


def test_the_order_of_the_rows_does_not_matter() -> None:
    objects, sources = raced(*field(100, 0.0, -60.0, 0.002), visits=4)
    found = ours(objects, sources, OURS, ERRORS)
    order = np.random.default_rng(0).permutation(len(objects))
    again = ours(objects[order], sources[order[::-1]], OURS, ERRORS)
    assert (sorted(zip(found.removed.tolist(), found.kept.tolist(), strict=True))
            == sorted(zip(again.removed.tolist(), again.kept.tolist(), strict=True)))


def test_none_one_and_unplaced_objects_pass() -> None:
    objects, sources = raced(*field(1, 10.0, 0.0), visits=2)
    for config in (OURS, DEPLOYED):
        assert len(duplicates(objects[:0], sources[:0], config)) == 0
        assert len(duplicates(objects[:1], sources, config)) == 0
        assert len(duplicates(objects, sources, config)) == 1
    objects["ra"][0] = np.nan
    for config in (OURS, DEPLOYED):
        assert len(duplicates(objects, sources, config)) == 0


def test_a_merged_object_whose_sources_have_gone_is_merged_again_into_the_same() -> None:
    """A morning that was killed after the sources moved and before the object was closed."""
    objects, sources = raced(*field(20, 10.0, 0.0), visits=2)
    found = ours(objects, sources, OURS, ERRORS)
    moved = sources.copy()
    kept = dict(zip(found.removed.tolist(), found.kept.tolist(), strict=True))
    moved["diaObjectId"] = [kept.get(owner, owner) for owner in sources["diaObjectId"].tolist()]
    again = ours(objects, moved, OURS, ERRORS)
    np.testing.assert_array_equal(again.removed, found.removed)
    np.testing.assert_array_equal(again.kept, found.kept)


def test_the_first_source_of_an_object_that_another_source_took_over_goes_home_alone() -> None:
    ra, dec = np.array([10.0]), np.array([0.0])
    first, second = founded(ra, dec, 1, minutes=0.0), founded(ra, dec, 2, minutes=0.5)
    stranger = founded(ra + 0.9 / 3600, dec, 3, minutes=30.0)[1]            # matched to the second within 1"
    stranger["diaObjectId"] = second[0]["diaObjectId"]
    second[0]["ra"], second[0]["nDiaSources"] = ra + 0.8 / 3600, 2          # the mean has moved: it is the brighter
    objects, sources = join([first[0], second[0]]), join([first[1], second[1], stranger])
    found = ours(objects, sources, OURS, ERRORS)
    assert len(found) == 0
    assert (found.strays.tolist(), found.homes.tolist()) == ([2_000_001], [1_000_001])
    moved = sources.copy()
    moved["diaObjectId"][1] = 1_000_001
    assert len(ours(objects, moved, OURS, ERRORS).strays) == 0              # again: it is at home
    moved = sources.copy()
    moved["visit"][0] = 2
    assert len(ours(objects, moved, OURS, ERRORS).strays) == 0              # the other was in that visit itself


def test_unknown_algorithms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"batch\.deduplicate\.algorithm must be ours or deployed, got 'best'"):
        duplicates(DIA_OBJECT.empty(2), DIA_SOURCE.empty(), DeduplicateConfig(algorithm="best"))


# --- deployed --------------------------------------------------------------------------------------------------------


def labels(found: Merges, ids: np.ndarray) -> np.ndarray:
    kept = dict(zip(found.removed.tolist(), found.kept.tolist(), strict=True))
    return np.array([kept.get(i, i) for i in ids.tolist()])


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return len(np.unique(a)) == len(np.unique(b)) == len(np.unique(np.stack([a, b]), axis=1).T)


@pytest.mark.parametrize(("n", "side_deg", "dec"), [(500, 0.05, 2.0), (1500, 0.004, -30.0), (400, 0.05, -85.0)])
@pytest.mark.filterwarnings("ignore:the number of connected components of the connectivity matrix")
def test_the_deployed_clusters_are_those_of_scikit_learn(n: int, side_deg: float, dec: float) -> None:
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn is in the extra `train`")
    neighbors = pytest.importorskip("sklearn.neighbors")
    objects, _ = raced(*field(n, 150.0, dec, side_deg))
    plane = np.stack([objects["ra"], objects["dec"]], axis=1)
    graph = neighbors.kneighbors_graph(plane, 30, include_self=False)
    oracle = cluster.AgglomerativeClustering(n_clusters=None, distance_threshold=1.5 / 3600, connectivity=graph,
                                             linkage="ward").fit(plane).labels_
    assert same_partition(labels(deployed(objects, DEPLOYED), objects["diaObjectId"]), oracle)


def test_the_deployed_task_keeps_the_version_that_began_first() -> None:
    objects, _ = raced(*field(30, 150.0, 2.0))
    objects["validityStartMjdTai"][:30] += 1.0          # a later version of the first visit's
    found = deployed(objects, DEPLOYED)
    assert np.all(found.kept // 1_000_000 == 2)
    assert len(found) == 30


def test_the_deployed_task_misses_pairs_across_ra_zero_and_near_the_pole_and_merges_true_pairs() -> None:
    ra, dec = np.array([0.0]), np.array([-30.0])
    pair = together(founded(ra - 0.1 / 3600, dec, 1, minutes=0.0), founded(ra + 0.1 / 3600, dec, 2, minutes=0.5))
    assert len(deployed(pair[0], DEPLOYED)) == 0
    assert len(ours(*pair, OURS, ERRORS)) == 1
    polar = together(founded(ra + 40, dec * 0 - 85, 1, minutes=0.0),
                     founded(ra + 40 + 0.2 / 3600 / np.cos(np.radians(85)), dec * 0 - 85, 2, minutes=0.5))
    assert len(deployed(polar[0], DEPLOYED)) == 0       # 0.2" on the sky, 2.3" in RA
    assert len(ours(*polar, OURS, ERRORS)) == 1


def test_the_deployed_task_merges_nothing_across_the_borders_of_its_subsets() -> None:
    objects, _ = raced(*field(300, 150.0, 2.0))
    whole, pieces = (len(deployed(objects, msgspec.structs.replace(DEPLOYED, subset=n))) for n in (1000, 20))
    assert whole == 300
    assert 270 <= pieces < 300


def test_the_deployed_task_aborts_on_too_many_objects() -> None:
    objects, _ = raced(*field(10, 150.0, 2.0))
    with pytest.raises(AlgorithmError, match="20 DIAObjects to deduplicate; at most 19"):
        deployed(objects, msgspec.structs.replace(DEPLOYED, max_objects=19))
