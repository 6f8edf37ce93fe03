from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest
from scipy.stats import binom

from reports.contributions import QUANTILES, estimate
from reports.paired import NEVER, Rules, judge
from reports.power import NOISE, _drawn, changed, corrected_level, pairing_gain, power
from reports.terms import Metric, Statistic, Terms

RULES = Rules()


def metric(better: Literal["higher", "lower", "neither"] = "higher", *, margin: float = 0.01,
           relative: bool = False) -> Metric:
    return Metric("a", "a", "test", "", better, margin, relative, True, "detect", partial(_of, "a"))


def _of(key: str, side: Any) -> Terms:
    return side[key]  # type: ignore[no-any-return]  # a dict of terms stands for an outcome


def fraction(visits: int = 40, per_visit: int = 25, p: float = 0.9) -> Terms:
    rng = np.random.default_rng(1)
    n = visits * per_visit
    return Terms((rng.random(n) < p).astype(float), np.ones(n), np.repeat(np.arange(visits), per_visit), np.arange(n))


def rate(visits: int = 40, each: float = 3.0) -> Terms:
    rng = np.random.default_rng(2)
    unit = np.repeat(np.arange(visits), rng.poisson(each, visits))
    return Terms(np.concatenate([np.zeros(visits), np.ones(len(unit))]),
                 np.concatenate([np.ones(visits), np.zeros(len(unit))]), np.concatenate([np.arange(visits), unit]),
                 np.concatenate([np.full(visits, -1), np.arange(len(unit))]))


def values(statistic: Statistic, visits: int = 40, n: int = 20) -> Terms:
    rng = np.random.default_rng(3)
    unit = np.repeat(np.arange(visits), n)
    return Terms(3.0 + rng.normal(size=len(unit)), np.ones(len(unit)), unit, np.arange(len(unit)), statistic)


# --- a change is as large as was asked -------------------------------------------------------------------------------

@pytest.mark.parametrize(("terms", "better", "size", "relative"), [
    (fraction(), "higher", 0.05, False), (fraction(p=0.1), "lower", 0.05, False), (rate(), "lower", 0.3, True),
    (values("ratio"), "lower", 0.2, False), (values("median"), "lower", 0.2, False),
    (values("std"), "lower", 0.2, True), (values("rms"), "higher", 0.2, True),
    (values("abs_ratio"), "lower", 0.2, False), (values("percentile98"), "lower", 0.4, False)])
def test_a_simulated_change_is_for_the_worse_and_as_large_as_asked(
        terms: Terms, better: Literal["higher", "lower"], size: float, relative: bool) -> None:
    kind, rng, shifts = metric(better, relative=relative), np.random.default_rng(4), []
    before = estimate(terms)
    for _ in range(80):
        # noise widens a distribution, so that its quantiles move by themselves
        after = changed(kind, terms, size, rng, noise=0.0 if terms.statistic in QUANTILES else NOISE)
        assert after is not None
        shifts.append(estimate(after) / before - 1 if relative else estimate(after) - before)
    expected = -size if better == "higher" else size
    assert np.mean(shifts) == pytest.approx(expected, abs=4 * np.std(shifts) / np.sqrt(80) + 0.02 * size)


def test_there_is_no_room_for_more_losses_than_sources() -> None:
    assert changed(metric(), fraction(p=0.3), 0.5, np.random.default_rng(5)) is None
    assert changed(metric("higher"), rate(each=1.0), 1.5, np.random.default_rng(5)) is None


def test_visits_are_drawn_whole_and_new_nights_have_objects_of_their_own() -> None:
    base = fraction(visits=5, per_visit=4)
    drawn, same = _drawn(base, base, 12, np.random.default_rng(6))
    np.testing.assert_array_equal(drawn.value, same.value)
    assert len(drawn.value) == 48
    assert np.bincount(drawn.unit).tolist() == [4] * 12
    for unit in range(12):
        rows = drawn.object[drawn.unit == unit]
        assert len(set((rows % 20) // 4)) == 1
        assert set(rows // 20) == {unit // 5}
    as_they_are, _ = _drawn(base, base, 5, np.random.default_rng(6))
    np.testing.assert_array_equal(as_they_are.value, base.value)


# --- power -----------------------------------------------------------------------------------------------------------

def test_the_size_found_is_that_of_the_sign_test() -> None:
    """One value per visit, all losses: called when at least k visits lose theirs, k from the binomial distribution."""
    terms = replace(fraction(60, 20, 1.0), object=np.full(1200, -1))
    n_metrics = 10
    k = next(k for k in range(1, 60) if 2.0 ** (1 - k) <= 0.05 / n_metrics)      # visits that must lose one at least
    expected = next(size for size in np.linspace(0.001, 0.1, 400)
                    if binom.sf(k - 1, 60, 1 - (1 - size) ** 20) >= 0.9)
    found = power(metric(margin=0.001), terms, 60, RULES, n_metrics=n_metrics)
    assert found.size == pytest.approx(expected, rel=0.3)     # it has churn, this has not
    assert found.found >= 0.9


def test_more_visits_and_fewer_metrics_find_smaller_changes() -> None:
    sizes = [power(metric(), fraction(), visits, RULES, n_metrics=n, trials=25).size
             for visits, n in ((40, 80), (160, 80), (40, 1))]
    assert sizes[1] < 0.7 * sizes[0]
    assert sizes[2] < 0.9 * sizes[0]


@pytest.mark.parametrize(("kind", "make"), [
    (metric("lower", relative=True, margin=0.1), rate), (metric("lower", margin=0.05), partial(values, "median")),
    (metric("lower", relative=True, margin=0.02), partial(values, "std"))])
def test_a_change_of_the_size_found_is_called(kind: Metric, make: Callable[[], Terms]) -> None:
    terms = make()
    size = power(kind, terms, 40, RULES, n_metrics=1, trials=40).size
    assert np.isfinite(size)
    rng = np.random.default_rng(7)

    def called(of: float) -> float:
        sides = [({"a": terms}, {"a": changed(kind, terms, of, rng)}) for _ in range(40)]
        return float(np.mean([judge([kind], *pair, RULES)[0].verdict == "worse" for pair in sides]))  # type: ignore[arg-type]  # see `_of`

    assert called(1.3 * size) >= 0.85
    assert called(0.4 * size) <= 0.6


def test_what_has_to_be_decided_has_more_of_the_level() -> None:
    other = replace(metric(), primary=False)
    levels = [corrected_level(m, RULES, 100, 5) for m in (metric(), other)]
    assert levels == pytest.approx([0.05 / 10, 0.05 / 190])
    assert corrected_level(metric(), RULES, 100, 0) == corrected_level(other, RULES, 100, 0) == pytest.approx(0.0005)


def test_with_the_other_side_its_own_noise_is_used() -> None:
    rng = np.random.default_rng(8)
    unit, one, none = np.arange(40), np.ones(40), np.full(40, -1)
    time = np.exp(rng.normal(size=40))
    kind = metric("lower", relative=True, margin=0.02)
    quiet, loud = (Terms(time * np.exp(noise * rng.normal(size=40)), one, unit, none) for noise in (0.01, 0.2))
    terms = Terms(time, one, unit, none)
    sizes = [power(kind, terms, 40, RULES, other=other, n_metrics=1, trials=40).size for other in (quiet, loud)]
    assert sizes[0] < 0.04      # the margin, and a little
    assert sizes[1] > 0.1


def test_what_cannot_be_found_is_infinite() -> None:
    four = fraction(visits=4)
    assert power(metric(), four, 4, RULES, trials=10).size == np.inf      # four visits: p = 1 / 8 at best
    assert power(metric("lower", relative=True), rate(each=0.0), 40, RULES, trials=10).size == np.inf


# --- pairing ---------------------------------------------------------------------------------------------------------

def test_pairing_saves_what_both_sides_share() -> None:
    """Flips of a few per cent against the binomial scatter of two samples: by theory, for independent sources."""
    p, change, per_visit = 0.8, 0.02, 25
    gain = pairing_gain(metric(), fraction(200, per_visit, p), RULES, change=change, n_metrics=1)
    z = 1.96 + 1.28
    paired = z**2 * (1.5 * change - change**2) / change**2 / per_visit      # with a quarter more of flips, either way
    apart = z**2 * (p * (1 - p) + (p - change) * (1 - p + change)) / change**2 / per_visit
    assert gain.paired == pytest.approx(paired, rel=0.3)
    assert gain.independent == pytest.approx(apart, rel=0.15)
    assert gain.ratio > 4


def test_sides_that_share_nothing_gain_nothing() -> None:
    base = fraction(200, 25, 0.8)
    head = replace(base, value=np.random.default_rng(9).permutation(base.value))
    assert pairing_gain(metric(), base, RULES, head=head).ratio == pytest.approx(1.0, abs=0.15)


def test_a_change_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a change of 0\.5 cannot be made in a"):
        pairing_gain(metric(), fraction(p=0.3), RULES, change=0.5)
    assert pairing_gain(metric(), fraction(4, 2, 0.8), RULES, change=1e-5, head=fraction(4, 2, 0.5)).paired == NEVER
