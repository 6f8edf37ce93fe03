from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from reports.contributions import contrast
from reports.paired import Rules, judge
from reports.sequences import FIRST, Looks, always_valid, boundary, judge_sequence, p_value, single_look, tuned
from reports.terms import Metric, Terms

RULES = Rules()


def metric(key: str = "a", margin: float = 0.1) -> Metric:
    return Metric(key, key, "test", "", "higher", margin, False, True, "detect", partial(_of, key))


def _of(key: str, side: Any) -> Terms:
    return side[key]  # type: ignore[no-any-return]  # a dict of terms stands for an outcome


def sides(shift: float, visits: int, seed: int = 1, noise: float = 1.0) -> tuple[Any, Any]:
    """One value per visit and side; the first visits of a longer run are those of a shorter one."""
    rng = np.random.default_rng(seed)
    base, head = rng.normal(size=(2, 400))
    unit, one, nothing = np.arange(visits), np.ones(visits), np.full(visits, -1)
    return ({"a": Terms(noise * base[:visits], one, unit, nothing)},
            {"a": Terms((noise * head + shift)[:visits], one, unit, nothing)})


def looks_at(shift: float, visits: range, seed: int = 1, **kind: float) -> list[Any]:
    looks, found = None, []
    for n in visits:
        judged, looks = judge_sequence([metric(**kind)], *sides(shift, n, seed), RULES, looks)
        found.append(judged[0])
    return found


def test_the_boundary_is_crossed_by_few_paths_however_long_they_are() -> None:
    """5,000 paths of 2,000 normal steps from the tenth on; the plain quantile is crossed by most."""
    rng = np.random.default_rng(1)
    steps = np.arange(1, 2001)
    paths = np.abs(np.cumsum(rng.normal(size=(5000, 2000)).astype(np.float32), axis=1))[:, 9:] / np.sqrt(steps[9:])
    bounds = np.array([boundary(float(n), 0.05, 40.0) for n in steps[9:]])
    crossed = np.mean(np.any(paths > bounds, axis=1))
    assert crossed <= 0.05
    assert crossed > 0.01      # not by being useless
    assert np.mean(np.any(paths > norm.isf(0.025), axis=1)) > 0.3


def test_the_boundary_is_nearest_where_it_was_tuned() -> None:
    visits = np.arange(5, 400)
    heights = [boundary(float(n), 0.05, 60.0) / np.sqrt(n) for n in visits]
    assert np.all(np.diff(heights) < 0)     # the interval shrinks all the way
    others = [boundary(60.0, 0.05, at) for at in (15.0, 30.0, 120.0, 240.0)]
    assert boundary(60.0, 0.05, 60.0) < min(others)
    assert single_look(0.05) == pytest.approx(2 * norm.sf(boundary(60.0, 0.05, 60.0)))


@pytest.mark.parametrize("heavy", [False, True])
def test_p_is_small_at_any_time_with_no_more_than_its_probability(heavy: bool) -> None:
    """Shares of any size whose signs are chance: no look of 300 finds p <= 0.05 in more than 5 % of 2,000 runs."""
    rng = np.random.default_rng(2)
    shares = np.abs(rng.standard_t(1.5, (2000, 300)) if heavy else rng.normal(size=(2000, 300)))
    shares *= rng.choice([-1.0, 1.0], shares.shape)
    first = np.sum(shares[:, :FIRST] ** 2, axis=1)
    tau2 = (18.0 / (2 * first))[:, None]
    p = always_valid(np.cumsum(shares, axis=1), np.cumsum(shares**2, axis=1), tau2)
    assert np.mean(np.any(p <= 0.05, axis=1)) <= 0.05
    assert np.mean(np.any(p <= 0.5, axis=1)) > 0.05      # not by being useless


def test_the_p_value_is_that_of_the_mixture() -> None:
    base, head = sides(0.5, 30)
    c = contrast(base["a"], head["a"])
    assert c is not None
    shares = np.bincount(c.unit, c.swap)
    tau2 = tuned(c, (0.0, 0.0), 0.05)[0]
    lam = np.linspace(-60, 60, 400_001) * np.sqrt(tau2)
    values = np.exp(lam * shares.sum() - lam**2 * np.sum(shares**2) / 2) * norm.pdf(lam, scale=np.sqrt(tau2))
    assert p_value(c, (tau2, 0.0)) == pytest.approx(1 / (values.sum() * (lam[1] - lam[0])), rel=1e-4)
    assert tuned(c, (0.7, 0.0), 0.05)[0] == 0.7      # tuned once


def test_a_change_is_found_and_stays_found() -> None:
    found = looks_at(2.0, range(10, 60, 5))
    words = [j.verdict for j in found]
    assert words[0] == "undecided"
    assert words[-1] == "better"
    at = words.index("better")
    assert set(words[at:]) == {"better"}
    p = [j.p for j in found]
    assert p == sorted(p, reverse=True)


def test_no_change_becomes_equivalent_in_time() -> None:
    found = looks_at(0.0, range(10, 200, 20), margin=1.0)
    assert found[0].verdict == "undecided"
    assert found[-1].verdict == "equivalent"
    assert all(j.low < 0 < j.high for j in found)


def test_nothing_is_said_of_the_first_few_visits() -> None:
    few = looks_at(9.0, range(2, FIRST))
    assert {j.verdict for j in few} == {"undecided"}
    assert all(np.isinf(j.low) and j.p == 1.0 for j in few)
    assert all(j.needed >= FIRST for j in few)


def test_intervals_of_a_sequence_are_wider_than_of_a_single_look() -> None:
    base, head = sides(0.5, 40)
    judged, looks = judge_sequence([metric()], base, head, RULES)
    alone = judge([metric()], base, head, RULES)[0]
    assert 1.3 < (judged[0].high - judged[0].low) / (alone.high - alone.low) < 2.0
    assert looks.n == 1
    assert looks.sharpest == {"a": 80.0}


def test_a_metric_without_data_waits_for_them() -> None:
    nothing = Terms(np.zeros(0), np.zeros(0), np.zeros(0, int), np.zeros(0, int), "median")
    first, looks = judge_sequence([metric()], {"a": nothing}, {"a": nothing}, RULES)  # type: ignore[arg-type]  # see `_of`
    assert first[0].verdict == "no data"
    assert looks == Looks(n=1)
    second, _ = judge_sequence([metric()], *sides(3.0, 60), RULES, looks)
    assert second[0].verdict == "better"


def test_what_is_looked_at_once_has_a_plain_interval() -> None:
    few = sides(3.0, FIRST - 2)
    judged, looks = judge_sequence([metric()], *few, RULES, once=("a",))
    alone = judge([metric()], *few, RULES)[0]
    assert (judged[0].low, judged[0].high, judged[0].p) == (alone.low, alone.high, alone.p)
    assert judged[0].verdict == alone.verdict == "better"
    assert not looks.p
