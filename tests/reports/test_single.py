"""Figures of one run with their intervals."""

from collections.abc import Callable

import numpy as np
import pytest

from reports.intervals import fraction
from reports.metrics import METRICS, metrics_of
from reports.outcome import Outcome, of_run
from reports.single import single, singles
from reports.store import Store
from reports.terms import Metric, Statistic, Terms
from tests.reports.maker import ERROR, Knobs

ONE = METRICS[0]
Broken = Callable[[Knobs], Store]


def made(value: np.ndarray, unit: np.ndarray, statistic: Statistic = "ratio") -> Terms:
    return Terms(np.asarray(value, float), np.ones(len(value)), unit, np.full(len(value), -1), statistic)


def of(found: list[Metric] | tuple[Metric, ...], key: str) -> Metric:
    return next(m for m in found if m.key == key)


def test_intervals_hold_the_truth_where_visits_differ_and_those_of_single_sources_do_not() -> None:
    """A fraction of 0.8 that scatters by 0.1 from visit to visit: 30 visits of 40 sources each."""
    rng, ours, naive = np.random.default_rng(8), 0, 0
    unit = np.repeat(np.arange(30), 40)
    for _ in range(300):
        found = rng.random(1200) < np.clip(0.8 + 0.1 * rng.standard_normal(30), 0, 1)[unit]
        one = single(ONE, made(found, unit))
        assert one is not None
        ours += one.estimate.low < 0.797 < one.estimate.high               # clipping takes a little from 0.8
        alone = fraction(int(found.sum()), len(found))
        naive += alone.low < 0.797 < alone.high
    assert 0.91 < ours / 300 < 0.985
    assert naive / 300 < 0.85


def test_a_fraction_of_all_or_none_has_an_interval_within_0_and_1() -> None:
    unit = np.repeat(np.arange(10), 5)
    for value in (0.0, 1.0):
        one = single(ONE, made(np.full(50, value), unit))
        assert one is not None
        assert one.estimate.value == value
        assert one.estimate.high - one.estimate.low > 0.01
        assert 0.0 <= one.estimate.low <= value <= one.estimate.high <= 1.0


def test_a_bias_that_may_be_none_has_an_interval_from_0() -> None:
    rng, unit = np.random.default_rng(3), np.arange(200)
    chance, real = (single(ONE, made(rng.normal(mean, 1, 200), unit, "abs_ratio")) for mean in (0.0, -1.0))
    assert chance is not None
    assert real is not None
    assert chance.estimate.low == 0.0 < chance.estimate.high
    assert real.estimate.low < 1.0 < real.estimate.high
    assert real.estimate.low > 0.8


def test_one_visit_has_no_interval_and_no_row_no_figure() -> None:
    one = single(ONE, made(np.array([1.0, 0.0, 1.0]), np.zeros(3, int)))
    assert one is not None
    assert one.estimate.value == pytest.approx(2 / 3)
    assert np.isnan(one.estimate.low)
    assert (one.n_units, one.estimate.n) == (1, 3)
    assert single(ONE, made(np.zeros(0), np.zeros(0, int))) is None


def test_a_nights_metrics_are_what_it_was_made_with(good: Store, broken: Broken) -> None:
    outcome = of_run(good, 1)
    found = {one.metric.key: one for one in singles(metrics_of(outcome), outcome)}
    assert len(found) > 60
    size = found["packet_size"]
    assert (size.estimate.value, size.n_units) == (100_000, 12)
    alerts = found["alerts"].estimate
    assert alerts.low < len(good.table("publication")) / 12 < alerts.high
    assert found["template_depth"].metric.rubin == "templateLimitingMagnitude"
    assert found["template_depth"].estimate.value == pytest.approx(25.6, abs=1e-5)
    biased = of_run(broken(Knobs(flux_bias=3.0)), 1)
    metric = of(METRICS, "pull_bias_hostless")
    off = single(metric, metric.terms(biased))
    assert off is not None
    assert off.estimate.low > 1.0                                          # a bias of ERROR, and errors of ERROR
    assert found["pull_bias_hostless"].estimate.low == 0.0
    assert ERROR == 100.0


def test_metrics_without_data_are_left_out(good: Store) -> None:
    outcome = of_run(good, 1)
    bare = Outcome(outcome.sources[:0], outcome.false[:0], outcome.forced[:0], outcome.stars[:0], outcome.visits,
                   outcome.packets[:0], outcome.steps[:0], outcome.traces[:0], outcome.facts)
    keys = {one.metric.key for one in singles(metrics_of(bare), bare)}
    assert "template_depth" in keys
    assert not {key for key in keys if key.startswith(("completeness", "star", "forced", "cpu", "packet"))}
