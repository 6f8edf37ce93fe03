import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from reports import intervals


@pytest.mark.parametrize(("k", "n", "low", "high"), [
    (8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 1, 0.2065, 1.0),
    (81, 263, 0.2553, 0.3662)])   # Newcombe 1998, Statistics in Medicine 17, 857, table I: 81 of 263 by Wilson
def test_wilson_agrees_with_published_intervals(k: int, n: int, low: float, high: float) -> None:
    found = intervals.wilson(k, n)
    assert float(found[0]) == pytest.approx(low, abs=1e-4)
    assert float(found[1]) == pytest.approx(high, abs=1e-4)


@given(st.integers(0, 500), st.integers(0, 500))
def test_a_fraction_lies_in_its_interval(k: int, more: int) -> None:
    found = intervals.fraction(k, k + more)
    if k + more:
        assert 0 <= found.low <= found.value <= found.high <= 1
    else:
        assert np.isnan(found.value)


def test_nothing_tried_is_nothing_known() -> None:
    low, high = intervals.wilson(0, 0)
    assert (float(low), float(high)) == (0.0, 1.0)
    assert intervals.fraction(0, 0).n == 0


def test_a_flat_fraction_weighs_strata_alike() -> None:
    found = intervals.flat_fraction(np.array([10, 900]), np.array([20, 1000]))
    assert found.value == pytest.approx((0.5 + 0.9) / 2)
    assert found.low < found.value < found.high
    whole = intervals.fraction(910, 1020)
    assert found.high - found.low > whole.high - whole.low      # the small stratum carries half of the weight


def test_a_flat_fraction_of_equal_strata_is_the_plain_one() -> None:
    flat = intervals.flat_fraction(np.array([45, 45]), np.array([50, 50]))
    plain = intervals.fraction(90, 100)
    assert flat.low == pytest.approx(plain.low, abs=0.01)
    assert flat.high == pytest.approx(plain.high, abs=0.01)


def test_an_empty_stratum_makes_a_flat_fraction_unknown() -> None:
    assert np.isnan(intervals.flat_fraction(np.array([1, 0]), np.array([1, 0])).value)


@pytest.mark.parametrize(("count", "low", "high"), [(0, 0.0, 3.689), (1, 0.0253, 5.572), (10, 4.795, 18.39)])
def test_poisson_intervals_are_garwoods(count: int, low: float, high: float) -> None:
    found = intervals.poisson_rate(count, 1.0)
    assert found.low == pytest.approx(low, abs=2e-3)
    assert found.high == pytest.approx(high, abs=2e-2)


def test_intervals_of_mean_spread_and_median_cover_the_truth_in_19_of_20_samples() -> None:
    rng = np.random.default_rng(11)
    truth = {"mean": 0.0, "spread": 1.0, "median": 0.0}
    hits = dict.fromkeys(truth, 0)
    tries = 600
    for _ in range(tries):
        sample = rng.standard_normal(80)
        for name, value in truth.items():
            found = getattr(intervals, name)(sample)
            hits[name] += found.low <= value <= found.high
    for name, count in hits.items():
        assert 0.91 < count / tries < 0.985, name


def _trials(rng: np.random.Generator, n: int, centre: float, width: float,
            plateau: float) -> tuple[np.ndarray, np.ndarray]:
    snr = rng.uniform(1, 25, n)
    return snr, rng.random(n) < plateau * ndtr((snr - centre) / width)


@pytest.mark.parametrize(("centre", "width", "plateau"), [(5.0, 1.0, 1.0), (5.8, 1.3, 0.9), (5.2, 0.7, 0.97)])
def test_the_turnover_is_recovered_within_its_errors(centre: float, width: float, plateau: float) -> None:
    snr, found = _trials(np.random.default_rng(5), 4000, centre, width, plateau)
    fit = intervals.turnover(snr, found)
    assert fit is not None
    half = np.linspace(3, 12, 90_001)
    expected = half[np.argmin(np.abs(plateau * ndtr((half - centre) / width) - 0.5))]
    sigma = (fit.half.high - fit.half.low) / 2 / 1.96
    assert 0.01 < sigma < 0.1
    assert abs(fit.half.value - expected) < 4 * sigma
    assert fit.plateau == pytest.approx(plateau, abs=0.02)
    assert float(fit.at(np.array([fit.half.value]))[0]) == pytest.approx(0.5, abs=1e-6)


def test_the_half_points_interval_is_honest() -> None:
    rng = np.random.default_rng(17)
    inside = 0
    for _ in range(60):
        fit = intervals.turnover(*_trials(rng, 700, 5.0, 1.0, 0.95))
        assert fit is not None
        true_half = 5.0 + 0.0660   # Phi^-1(0.5 / 0.95)
        inside += fit.half.low <= true_half <= fit.half.high
    assert inside >= 51            # 57 expected, 4 sigma below


def test_a_curve_that_nothing_constrains_is_none() -> None:
    snr = np.linspace(1, 20, 100)
    assert intervals.turnover(snr, np.ones(100, bool)) is None
    assert intervals.turnover(snr, np.zeros(100, bool)) is None
    assert intervals.turnover(snr[:5], snr[:5] > 3) is None
    assert intervals.turnover(np.tile(snr, 5), np.arange(500) % 4 == 0) is None     # never reaches one half
