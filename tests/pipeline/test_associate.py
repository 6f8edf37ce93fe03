"""Sources find the objects that a human would give them, wherever on the sky, whoever is asked first."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.associate import Associated, associate, candidates, greedy, likelihood, pairs, position_costs
from pipeline.config import AssociateConfig, FilterConfig
from pipeline.errors import AlgorithmError, TooManyDiaObjects
from pipeline.sphere import angles_arcsec, east_north, positions, unit_vectors
from schemas.measures import EPHEMERIS, empty
from schemas.table import DIA_OBJECT, DIA_SOURCE

MJD = 61639.1


def placed(table: object, ra: float, dec: float, east: list[float], north: list[float],
           sigma_arcsec: float = 0.05) -> np.ndarray:
    """Rows offset from a centre by arcseconds, with ids from 1."""
    rows = table.empty(len(east))  # type: ignore[attr-defined]
    e, n = east_north(np.array([ra]), np.array([dec]))
    vectors = unit_vectors(np.array([ra]), np.array([dec])) + np.radians(
        (np.array(east)[:, None] * e + np.array(north)[:, None] * n) / 3600)
    rows["ra"], rows["dec"] = positions(vectors)
    rows["raErr"] = rows["decErr"] = sigma_arcsec / 3600
    return rows


def sources(east: list[float], north: list[float] | None = None, *, ra: float = 30.0, dec: float = -20.0,
            sigma: float = 0.05) -> np.ndarray:
    rows = placed(DIA_SOURCE, ra, dec, east, north or [0.0] * len(east), sigma)
    rows["diaSourceId"], rows["reliability"] = 1000 + np.arange(len(rows)), 0.9
    return rows


def objects(east: list[float], north: list[float] | None = None, *, ra: float = 30.0, dec: float = -20.0,
            sigma: float = 0.05) -> np.ndarray:
    rows = placed(DIA_OBJECT, ra, dec, east, north or [0.0] * len(east), sigma)
    rows["diaObjectId"] = 1 + np.arange(len(rows))
    return rows


def moving(east: list[float], north: list[float] | None = None, *, ra: float = 30.0, dec: float = -20.0) -> np.ndarray:
    """EPHEMERIS rows of objects at rest 2 au away, ids from 501."""
    where = placed(DIA_OBJECT, ra, dec, east, north or [0.0] * len(east))
    rows = empty(EPHEMERIS, len(east))
    rows["object_xyz"], rows["observer_xyz"] = 0.0, 0.0
    rows["object_xyz"][:, :, 0] = 2.0 * unit_vectors(where["ra"], where["dec"])
    rows["observer_xyz"][:, 0, 0] = 1.0
    rows["epoch_mjd_tai"], rows["half_span_d"], rows["ssObjectId"] = MJD, 0.2, 501 + np.arange(len(east))
    return rows


def associated(found: np.ndarray, known: np.ndarray, ephemerides: np.ndarray | None = None, *, new_objects: bool = True,
               **config: object) -> Associated:
    return associate(found, known, ephemerides if ephemerides is not None else empty(EPHEMERIS), MJD,
                     AssociateConfig(**config), FilterConfig(new_objects=new_objects))


PLACES = [(30.0, -20.0), (0.0, 0.0), (359.99999, -45.0), (10.0, 89.99999), (200.0, -89.9999), (0.0, 90.0)]


@pytest.mark.parametrize("matcher", ["greedy", "likelihood"])
@pytest.mark.parametrize(("ra", "dec"), PLACES)
def test_each_source_gets_its_own_object_at_the_seam_and_at_the_poles(ra: float, dec: float, matcher: str) -> None:
    rng = np.random.default_rng(3)
    grid = np.arange(-20, 21, 5.0)
    east, north = (c.ravel() for c in np.meshgrid(grid, grid))
    known = objects(east.tolist(), north.tolist(), ra=ra, dec=dec)
    order = rng.permutation(len(known))
    found = sources((east + rng.normal(0, 0.1, len(east)))[order].tolist(),
                    (north + rng.normal(0, 0.1, len(east)))[order].tolist(), ra=ra, dec=dec)
    result = associated(found, known, matcher=matcher)
    assert result.sources["diaObjectId"].tolist() == known["diaObjectId"][order].tolist()
    assert result.n_new == 0


def test_a_source_exactly_on_its_object_matches() -> None:
    assert associated(sources([0.0]), objects([0.0])).object_row.tolist() == [0]


@pytest.mark.parametrize("matcher", ["greedy", "likelihood"])
@pytest.mark.parametrize(("separation", "is_new"), [(0.999, False), (1.001, True)])
def test_the_radius_is_one_arcsecond(separation: float, is_new: bool, matcher: str) -> None:
    result = associated(sources([separation]), objects([0.0]), matcher=matcher)
    assert bool(result.is_new[0]) is is_new


def test_greedy_takes_the_nearest_pair_first_and_leaves_the_other_to_be_new() -> None:
    # object at 0; sources at 0.3 and -0.5: the nearer wins, the other founds an object
    result = associated(sources([-0.5, 0.3]), objects([0.0]))
    assert result.sources["diaObjectId"].tolist() == [1000, 1]
    assert result.is_new.tolist() == [True, False]


def test_likelihood_keeps_two_pairs_where_greedy_keeps_one() -> None:
    # objects at 0 and 0.9; sources at 0.5 and 1.3. Nearest first pairs source 0 with object 1 (0.4"); then source 1
    # is 1.3" from object 0 and left over. Together, each source has an object within 0.5".
    found, known = sources([0.5, 1.3]), objects([0.0, 0.9])
    assert associated(found, known).sources["diaObjectId"].tolist() == [2, 1001]
    assert associated(found, known, matcher="likelihood").sources["diaObjectId"].tolist() == [1, 2]


def test_likelihood_weighs_errors_where_greedy_weighs_distance() -> None:
    # two objects, one well measured at 0, one badly at 0.7; a source at 0.3 is nearer to the first, 4 sigma away
    known = objects([0.0, 0.7])
    known["raErr"][1] = known["decErr"][1] = 0.3 / 3600
    found = sources([0.3])
    assert greedy(found, known, AssociateConfig())[1].tolist() == [0]
    assert likelihood(found, known, AssociateConfig())[1].tolist() == [1]


def brute_force(found: np.ndarray, known: np.ndarray, config: AssociateConfig) -> float:
    """Least cost over all one-to-one assignments, a source alone costing the worst candidate and one more."""
    i, j, _ = candidates(found, known, config.radius_arcsec)
    cost = {(a, b): c for a, b, c in zip(i.tolist(), j.tolist(), position_costs(found, known, i, j, config),
                                         strict=True)}
    alone = max(cost.values()) + 1.0
    slots = list(range(len(known))) + [-1] * len(found)
    return min(sum(alone if b < 0 else cost.get((a, b), np.inf) for a, b in enumerate(chosen))
               for chosen in set(permutations(slots, len(found))))


@given(st.lists(st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)), min_size=1, max_size=4, unique=True),
       st.lists(st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)), min_size=1, max_size=4, unique=True))
def test_likelihood_is_the_best_of_all_assignments(a: list[tuple[float, float]], b: list[tuple[float, float]]) -> None:
    config = AssociateConfig(radius_arcsec=2.0)     # everything competes with everything
    found, known = (make(*(list(c) for c in zip(*xy, strict=True))) for make, xy in ((sources, a), (objects, b)))
    i, j = likelihood(found, known, config)
    ci, cj, _ = candidates(found, known, 2.0)
    alone = position_costs(found, known, ci, cj, config).max() + 1.0
    cost = position_costs(found, known, i, j, config).sum() + alone * (len(found) - len(i))
    assert abs(cost - brute_force(found, known, config)) < 1e-6 * max(1.0, abs(cost))


@given(st.integers(0, 2**32 - 1), st.sampled_from(["greedy", "likelihood"]))
def test_matches_are_one_to_one_within_the_radius_and_no_free_pair_is_left(seed: int, matcher: str) -> None:
    rng = np.random.default_rng(seed)
    known = objects(*(rng.uniform(-3, 3, 12).tolist() for _ in range(2)))
    found = sources(*(rng.uniform(-3, 3, 15).tolist() for _ in range(2)))
    config = AssociateConfig(matcher=matcher)
    i, j = pairs(found, known, config)
    assert len(set(i.tolist())) == len(i)
    assert len(set(j.tolist())) == len(j)
    apart = np.linalg.norm(unit_vectors(found["ra"], found["dec"])[i] - unit_vectors(known["ra"], known["dec"])[j],
                           axis=1)
    assert np.all(angles_arcsec(apart) <= 1.0)
    ci, cj, _ = candidates(found, known, 1.0)
    assert not np.any(~np.isin(ci, i) & ~np.isin(cj, j))


@given(st.integers(0, 2**32 - 1), st.sampled_from(["greedy", "likelihood"]))
def test_the_order_of_the_rows_does_not_matter(seed: int, matcher: str) -> None:
    rng = np.random.default_rng(seed)
    known = objects(*(rng.uniform(-2, 2, 8).tolist() for _ in range(2)))
    found = sources(*(rng.uniform(-2, 2, 10).tolist() for _ in range(2)))
    config = AssociateConfig(matcher=matcher)
    i, j = pairs(found, known, config)
    p, q = rng.permutation(len(found)), rng.permutation(len(known))
    k, m = pairs(found[p], known[q], config)
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == set(zip(p[k].tolist(), q[m].tolist(), strict=True))


def test_missing_errors_count_as_two_tenths_of_an_arcsecond_and_none_is_under_a_twentieth() -> None:
    known, found = objects([0.0], sigma=0.05), sources([0.2], sigma=np.nan)
    cost = position_costs(found, known, np.array([0]), np.array([0]), AssociateConfig())
    variance = 0.2**2 + 0.05**2
    np.testing.assert_allclose(cost, 0.5 * 0.2**2 / variance + np.log(variance), rtol=1e-4)
    small = position_costs(sources([0.2], sigma=1e-4), objects([0.0], sigma=1e-4), np.array([0]), np.array([0]),
                           AssociateConfig())
    np.testing.assert_allclose(small, 0.5 * 0.2**2 / 0.005 + np.log(0.005), rtol=1e-4)


@pytest.mark.parametrize(("order", "object_id", "ss_id"), [("objects", 1, 0), ("solar_system", 0, 501)])
def test_who_is_asked_first_takes_a_source_that_both_claim(order: str, object_id: int, ss_id: int) -> None:
    result = associated(sources([0.0]), objects([0.2]), moving([0.3]), order=order)
    assert (result.sources["diaObjectId"][0], result.sources["ssObjectId"][0]) == (object_id, ss_id)
    assert len(result.ss_sources) == (order == "solar_system")
    assert not result.is_new.any()


def test_each_known_asteroid_takes_its_nearest_source_and_the_nearest_asteroid_wins() -> None:
    # sources at 0, 5, 10; asteroids at 0.2 and -0.4 share the first, one at 5.9 reaches the second, one at 8 none
    result = associated(sources([0.0, 5.0, 10.0]), objects([]), moving([-0.4, 0.2, 5.9, 8.0]))
    assert result.sources["ssObjectId"].tolist() == [502, 503, 0]
    assert result.is_new.tolist() == [False, False, True]
    assert result.ss_sources["diaSourceId"].tolist() == [1000, 1001]
    assert result.ephemerides["ssObjectId"].tolist() == [502, 503]
    assert result.n_predicted == 4


def test_new_objects_take_the_id_of_their_first_source() -> None:
    result = associated(sources([0.0, 5.0]), objects([5.1]))
    assert result.sources["diaObjectId"].tolist() == [1000, 1]


def test_a_flagged_source_joins_an_object_but_founds_none() -> None:
    found = sources([0.0, 5.0, 10.0])
    found["pixelFlags_streakCenter"] = True
    result = associated(found, objects([0.0]), moving([5.0]))
    assert result.index.tolist() == [0, 1]
    assert result.reasons.tolist() == [b"", b"", b"pixelFlags_streakCenter"]
    assert len(associated(found, objects([0.0]), moving([5.0]), new_objects=False)) == 3


def test_sources_without_a_position_are_left_out_with_that_reason() -> None:
    found = sources([0.0, 5.0])
    found["ra"][1] = np.nan
    result = associated(found, objects([0.0]), new_objects=False)
    assert result.index.tolist() == [0]
    assert result.reasons.tolist() == [b"", b"position"]


def test_too_many_new_objects_stop_the_visit() -> None:
    far = (np.arange(11) * 5.0).tolist()
    assert associated(sources(far), objects([]), max_new_objects=11).n_new == 11
    with pytest.raises(TooManyDiaObjects, match="11 new DIAObjects"):
        associated(sources(far), objects([]), max_new_objects=10)
    assert issubclass(TooManyDiaObjects, AlgorithmError)


def test_nothing_known_and_nothing_found() -> None:
    for matcher in ("greedy", "likelihood"):
        assert associated(sources([0.0]), objects([]), matcher=matcher).n_new == 1
        assert len(associated(sources([]), objects([0.0]), moving([0.0]), matcher=matcher)) == 0


@pytest.mark.parametrize("config", [{"order": "moons"}, {"matcher": "guess"}])
def test_unknown_choices_are_named(config: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(config.values()))):
        associated(sources([0.0]), objects([0.0]), **config)


def test_greedy_loses_pairs_in_a_crowd_that_likelihood_keeps() -> None:
    rng = np.random.default_rng(5)
    right: dict[str, list[float]] = {"greedy": [], "likelihood": []}
    for _ in range(30):     # objects 1.1" apart on average, sources scattered by 0.25"
        xy = rng.uniform(-4, 4, (2, 50))
        sigma = rng.choice([0.05, 0.3], 50)
        known = objects(*xy.tolist())
        shift = rng.normal(0, sigma, (2, 50))
        found = sources(*(xy + shift).tolist())
        found["raErr"] = found["decErr"] = sigma / 3600
        for matcher, share in right.items():
            i, j = pairs(found, known, AssociateConfig(matcher=matcher))
            share.append(np.mean(np.bincount(i[i == j], minlength=50)))
    assert np.mean(right["likelihood"]) > np.mean(right["greedy"]) + 0.005
    assert np.mean(right["greedy"]) > 0.85
