from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, permutation_test, ttest_1samp

from reports.randomisation import EXACT, exchange, exchange_many


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_few_shares_are_exchanged_in_all_ways(values: list[int]) -> None:
    share = np.array(values, float)
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True)))
            for signs in product((1, -1), repeat=len(values))]
    expected = np.mean([total >= abs(sum(values)) for total in sums])
    assert exchange([share], np.random.default_rng(1))[0] == pytest.approx(expected)


def test_it_is_scipys_test_of_paired_samples() -> None:
    rng = np.random.default_rng(2)
    share = rng.normal(0.4, 1.0, 12)
    found = permutation_test((share, np.zeros(12)), lambda x, y: np.sum(x) - np.sum(y), permutation_type="samples",
                             n_resamples=np.inf)
    assert exchange([share], rng)[0] == pytest.approx(found.pvalue)


def test_many_shares_are_drawn_and_agree_with_students_test() -> None:
    rng = np.random.default_rng(3)
    shares = [rng.normal(shift, 1.0, n) for n in (60, 400) for shift in (0.0, 0.1, 0.25)]
    p = exchange(shares, rng)
    for share, found in zip(shares, p, strict=True):
        expected = ttest_1samp(share, 0.0).pvalue
        assert found == pytest.approx(expected, rel=0.15, abs=4 * np.sqrt(expected / 20_000) + 2e-4)


def test_drawn_and_exact_agree() -> None:
    rng = np.random.default_rng(4)
    share = rng.normal(0.5, 1.0, EXACT)
    padded = np.concatenate([share, np.full(3, 1e-12)])
    exact, drawn = exchange([share, padded], rng)
    assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000))


def test_nothing_that_differs_has_p_1_and_no_p_is_0() -> None:
    p = exchange([np.zeros(5), np.zeros(0), np.ones(200), np.ones(3)], np.random.default_rng(5))
    assert p.tolist()[:2] == [1.0, 1.0]
    assert p[2] == pytest.approx(1 / 20_001)
    assert p[3] == 0.25       # eight exchanges, two of them as extreme: three visits alone prove nothing


def test_p_values_are_uniform_where_sides_are_exchangeable() -> None:
    rng = np.random.default_rng(6)
    shares = [rng.normal(size=30) * rng.choice([-1, 1], 30) * np.exp(rng.normal(size=30)) for _ in range(600)]
    assert kstest(exchange(shares, rng), "uniform").pvalue > 1e-3
    few = exchange([rng.choice([-1.0, 1.0], 5) for _ in range(2000)], rng)
    for level in (0.01, 0.05, 0.1, 0.4):     # discrete: never more often below than said
        assert np.mean(few <= level) <= level + 4 * np.sqrt(level / 2000)


def test_shares_taken_as_normal_err_on_the_safe_side() -> None:
    rng = np.random.default_rng(7)
    shares = [rng.normal(shift, 1.0, 500) for shift in (0.0, 0.05, 0.1, 0.13)]
    fast, drawn = exchange_many(shares, rng), exchange(shares, rng, 100_000)
    np.testing.assert_array_less(np.abs(fast - drawn), 0.02 * drawn + 4 * np.sqrt(drawn / 100_000))
    few = [np.concatenate([np.full(3, 5.0), np.tile([0.01, -0.01], 250), [-0.1]])]    # three shares rule
    assert 0.1 < exchange_many(few, rng)[0] < 0.26      # by the normal tail it would be 0.08
