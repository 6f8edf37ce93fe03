import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from reports.contributions import Contrast, Form, contrast
from reports.paired import NEVER, Judged, Rules, _fieller, bounds, corrected, judge, p_values, visits_needed
from reports.terms import Metric, Statistic, Terms

RULES = Rules({}, ())


def metric(key: str = "completeness", *, better: Literal["higher", "lower", "neither"] = "higher",
           margin: float = 0.01, relative: bool = False) -> Metric:
    return Metric(key, key, "test", "", better, margin, relative, False, "detect", partial(_of, key))


def _of(key: str, side: Any) -> Terms:
    return side[key]  # type: ignore[no-any-return]  # a dict of terms stands for an outcome


def one(base: Terms, head: Terms, rules: Rules = RULES, **kind: Any) -> Judged:
    return judge([metric(**kind)], {"completeness": base}, {"completeness": head}, rules)[0]  # type: ignore[arg-type]  # see `_of`


def half_width(freedom: float) -> float:
    return float(t.isf(0.025, freedom))


def found_of(visits: int, per_visit: int, lost: Sequence[int] = (), gained: Sequence[int] = ()) -> tuple[Terms, Terms]:
    """Sources of which every fifth is missed; rows that one side loses and gains."""
    n = visits * per_visit
    unit, base = np.repeat(np.arange(visits), per_visit), (np.arange(n) % 5 > 0).astype(float)
    head = base.copy()
    head[list(lost)], head[list(gained)] = 0.0, 1.0
    return Terms(base, np.ones(n), unit, np.arange(n)), Terms(head, np.ones(n), unit, np.arange(n))


def measured(statistic: Statistic, shift: float, *, visits: int = 30, n: int = 20, noise: float = 0.1,
             factor: float = 1.0) -> tuple[Terms, Terms]:
    rng = np.random.default_rng(8)
    unit = np.repeat(np.arange(visits), n)
    value = 2.0 + rng.normal(size=visits * n) + 0.3 * rng.normal(size=visits)[unit]
    head = factor * value + shift + noise * rng.normal(size=visits * n)
    return (Terms(value, np.ones(len(unit)), unit, np.arange(len(unit)), statistic),
            Terms(head, np.ones(len(unit)), unit, np.arange(len(unit)), statistic))


# --- verdicts --------------------------------------------------------------------------------------------------------

def test_losses_in_many_visits_are_worse_and_gains_are_better() -> None:
    lost = [20 * v + 1 for v in range(30)]
    worse = one(*found_of(40, 20, lost=lost))
    assert worse.verdict == "worse"
    assert worse.difference == pytest.approx(-30 / 800)
    assert worse.low < worse.difference < worse.high < 0
    assert worse.p < 1e-3
    assert (worse.n_units, worse.n_base, worse.n_head, worse.needed) == (40, 800, 800, 0)
    better = one(*reversed(found_of(40, 20, lost=lost)))
    assert better.verdict == "better"
    assert (better.low, better.high) == pytest.approx((-worse.high, -worse.low))
    assert one(*found_of(40, 20, lost=lost), better="lower").verdict == "better"


def test_as_many_losses_as_gains_are_no_difference() -> None:
    even = one(*found_of(40, 200, lost=[200 * v + 1 for v in range(15)], gained=[200 * v for v in range(15, 30)]))
    assert even.difference == 0
    assert even.p == 1.0
    assert even.verdict == "equivalent"


def test_a_small_difference_may_be_certain_and_not_matter() -> None:
    certain = one(*measured("ratio", 0.02, noise=0.01), margin=0.05)
    assert certain.q < 0.01
    assert certain.low > 0
    assert certain.verdict == "equivalent"
    assert one(*measured("ratio", 0.02, noise=0.01), margin=0.001).verdict == "better"


def test_a_metric_without_a_better_direction_is_never_better_or_worse() -> None:
    changed = one(*measured("ratio", 0.5), better="neither")
    assert changed.low > 0
    assert (changed.verdict, changed.needed) == ("changed", 0)
    assert one(*measured("ratio", 0.0, noise=5.0), better="neither").verdict == "undecided"
    assert one(*measured("ratio", 0.0), better="neither", margin=0.1).verdict == "equivalent"


def test_the_rules_margin_and_primaries_stand_above_the_metrics_own() -> None:
    sides = measured("ratio", 0.02, noise=0.01)
    judged = one(*sides, replace(RULES, margins={"completeness": 0.2}, primary=("completeness",)), margin=0.001)
    assert (judged.margin, judged.verdict, judged.metric.primary) == (0.2, "equivalent", True)
    assert not one(*sides).metric.primary


@pytest.mark.parametrize("statistic", ["median", "std", "rms", "percentile98", "abs_ratio", "ratio"])
def test_every_statistic_finds_a_change_of_its_own_kind_and_none_where_there_is_none(statistic: Statistic) -> None:
    changed = one(*measured(statistic, 0.3, factor=1.3), better="lower", margin=0.05)
    assert changed.verdict == "worse"
    assert changed.low < changed.difference < changed.high
    same = one(*measured(statistic, 0.0, noise=0.01), better="lower", margin=0.2)
    assert same.verdict == "equivalent"
    assert same.low <= 0 <= same.high


def test_a_bias_that_turns_to_the_other_side_is_no_change_of_its_size() -> None:
    base, head = measured("abs_ratio", 0.0, visits=60)
    value = base.value - base.value.mean()
    plus, minus = replace(base, value=value + 0.2), replace(head, value=value - 0.2)
    turned = one(plus, minus, better="lower")
    assert turned.p < 1e-3            # the sides do differ,
    assert turned.verdict == "undecided"      # but not in size
    assert turned.low < 0 < turned.high
    grown = one(replace(base, value=value + 0.02), replace(head, value=value - 0.5), better="lower")
    assert grown.verdict == "worse"   # whatever the sign of a bias that is nearly 0 may be
    assert grown.difference == pytest.approx(0.48, abs=0.01)
    assert grown.high - grown.low > 0.1      # for that sign is not known


# --- few data --------------------------------------------------------------------------------------------------------

def test_no_flips_in_forty_sources_are_not_equivalent_within_a_percent() -> None:
    none = one(*found_of(4, 10))
    assert (none.difference, none.p, none.verdict) == (0.0, 1.0, "undecided")
    assert none.high > 3 / 40          # at least the rule of three
    assert 4 < none.needed < 40
    many = one(*found_of(none.needed + 1, 10))
    assert many.verdict == "equivalent"
    assert many.needed == 0


def test_a_flip_in_one_or_two_visits_is_neither_proof_nor_nothing() -> None:
    for lost in ([1], [1, 21], [1, 2, 3, 4]):
        few = one(*found_of(40, 20, lost=lost))
        assert few.p >= 0.5
        assert few.low < 0 < few.high
        assert few.verdict in ("equivalent", "undecided")
        assert few.low <= -(len(lost) + 1) / 800
    in_one_visit = one(*found_of(40, 20, lost=[1, 2, 3, 4, 6, 7, 8, 9]))
    in_eight = one(*found_of(40, 20, lost=[20 * v + 1 for v in range(8)]))
    assert in_one_visit.low < in_eight.low      # eight that were lost together are one event


def test_a_side_without_rows_has_no_data_and_never_a_verdict() -> None:
    base, _ = measured("median", 0.0)
    nothing = Terms(np.zeros(0), np.zeros(0), np.zeros(0, int), np.zeros(0, int), "median")
    for sides in ((base, nothing), (nothing, base), (nothing, nothing)):
        judged = one(*sides)
        assert judged.verdict == "no data"
        assert np.isnan(judged.difference)
        assert judged.needed == 0


def test_metrics_without_data_do_not_count_in_the_correction() -> None:
    p, _ = corrected(np.array([0.01, np.nan, 0.04, np.nan]))
    assert p[0] == pytest.approx(0.02)
    assert p[2] == pytest.approx(0.04)
    assert np.isnan(p[[1, 3]]).all()
    assert np.isnan(corrected(np.array([np.nan]))[0]).all()


def test_one_visit_says_nothing_of_others() -> None:
    single = one(*measured("ratio", 5.0, visits=1))
    assert (single.low, single.high, single.p, single.verdict) == (-np.inf, np.inf, 1.0, "undecided")


def counts(per_visit: Sequence[int]) -> Terms:
    """Events over an area of 1 per visit."""
    n, total = len(per_visit), sum(per_visit)
    visit = np.repeat(np.arange(n), per_visit)
    return Terms(np.concatenate([np.zeros(n), np.ones(total)]), np.concatenate([np.ones(n), np.zeros(total)]),
                 np.concatenate([np.arange(n), visit]), np.concatenate([np.full(n, -1), np.arange(total)]))


def test_ratios_to_nothing_stay_sane() -> None:
    none, some = counts([0] * 20), counts([1] * 20)
    assert one(none, none, relative=True).difference == 0
    assert one(none, none, relative=True).verdict == "undecided"
    new = one(none, some, relative=True, better="lower")
    assert new.difference == new.high == np.inf
    assert new.low > 0
    assert new.verdict == "worse"
    gone = one(some, none, relative=True, better="lower")
    assert gone.difference == -1
    assert gone.low == -1
    assert gone.high < 0
    assert gone.verdict == "better"
    rare = one(none, counts([1] + [0] * 19), relative=True, better="lower")
    assert rare.verdict == "undecided"
    assert (rare.low, rare.high) == (-1, np.inf)


def test_rows_in_another_order_are_the_same() -> None:
    base, _ = measured("ratio", 0.0)
    order = np.random.default_rng(9).permutation(len(base.value))
    head = Terms(base.value[order], base.weight[order], base.unit[order], base.object[order], base.statistic)
    judged = one(base, head, margin=1.0)
    assert judged.difference == 0.0
    assert judged.p == 1.0


# --- intervals -------------------------------------------------------------------------------------------------------

def test_a_difference_of_independent_visits_has_students_interval() -> None:
    rng = np.random.default_rng(10)
    unit, base, head = np.arange(25), rng.normal(size=25), rng.normal(size=25)
    sides = [Terms(v, np.ones(25), unit, np.full(25, -1)) for v in (base, head)]
    judged = one(*sides)
    half = t.isf(0.025, 24) * np.std(head - base, ddof=1) / 5
    assert judged.high - judged.difference == pytest.approx(half, rel=0.03)


@pytest.mark.parametrize("form", [Form(1.0, 0.5, 1.0), Form(0.2, 0.0, 2.0), Form(30.0, 1.0, 3.0),
                                  Form(30.0, 1.0, 300.0)])
def test_fiellers_bounds_hold_all_ratios_within_the_error(form: Form) -> None:
    rho = np.linspace(0, 60, 600_001)
    allowed = rho[(12.0 - rho * 10.0) ** 2 <= 4.0 * np.array(form.hh - 2 * rho * form.bh + rho**2 * form.bb)]
    low, high = _fieller(10.0, 12.0, form, 4.0)
    assert max(low, 0.0) == pytest.approx(allowed[0], abs=2e-4)
    assert min(high, 60.0) == pytest.approx(allowed[-1], abs=2e-4)


def test_a_ratio_of_times_has_the_interval_of_its_logarithm() -> None:
    rng = np.random.default_rng(11)
    unit, base = np.arange(40), np.exp(rng.normal(size=40))
    head = 1.1 * base * np.exp(0.05 * rng.normal(size=40))
    sides = [Terms(v, np.ones(40), unit, np.full(40, -1)) for v in (base, head)]
    judged = one(*sides, relative=True, better="lower", margin=0.02)
    assert judged.difference == pytest.approx(0.1, abs=0.02)
    assert judged.low < judged.difference < judged.high
    assert np.log1p(judged.high) + np.log1p(judged.low) == pytest.approx(2 * np.log1p(judged.difference))
    assert judged.verdict == "worse"


# --- p-values --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("factor", [1.1, 1.5, 0.7])
def test_an_exact_ratio_in_every_row_is_found_as_it_is(factor: float) -> None:
    seconds = np.random.default_rng(5).uniform(1.0, 3.0, 40)
    of = Terms(seconds, np.ones(40), np.arange(40), np.full(40, -1))
    found = one(of, replace(of, value=seconds * factor), better="lower", relative=True, margin=0.05)
    assert found.difference == pytest.approx(factor - 1)
    assert found.low <= found.difference <= found.high
    assert found.verdict == ("worse" if factor > 1 else "better")


def test_the_larger_p_counts_where_one_object_makes_the_difference_in_every_visit() -> None:
    """Thirty visits lose the same source: thirty flips, one cause."""
    unit, seen = (x.ravel() for x in np.meshgrid(np.arange(30), np.arange(20)))
    base, head = np.ones(600), np.where(seen == 3, 0.0, 1.0)
    sides = [Terms(v, np.ones(600), unit, seen) for v in (base, head)]
    c = contrast(*sides)
    assert c is not None
    assert p_values([c], RULES)[0][0] == 1.0
    assert p_values([replace(c, repeated=False)], RULES)[0][0] < 1e-4      # by visits alone it would be certain
    assert one(*sides).verdict == "undecided"


def test_more_metrics_make_each_harder_to_call() -> None:
    lost = [20 * v + 1 for v in range(7)]      # p = 2 / 2^7
    base, head = found_of(10, 20, lost=lost)
    alone = one(base, head)
    assert alone.q == alone.p == pytest.approx(2 / 2**7)
    assert alone.verdict == "worse"
    even = found_of(10, 20, lost=[20 * v + 1 for v in range(5)], gained=[20 * v for v in range(5, 10)])[1]
    keys = [f"other {i}" for i in range(9)]
    among = judge([metric(), *(metric(k) for k in keys)], {"completeness": base} | dict.fromkeys(keys, base),  # type: ignore[arg-type]  # see `_of`
                  {"completeness": head} | dict.fromkeys(keys, even), RULES)  # type: ignore[arg-type]  # see `_of`
    assert among[0].q == pytest.approx(20 / 2**7)
    assert among[0].verdict == "undecided"
    assert among[0].needed > 10


def test_metrics_in_which_hardly_anything_differs_cost_the_others_nothing() -> None:
    p, least = np.array([0.02, 0.3, 1.0, 1.0]), np.array([0.001, 0.25, 0.5, 1.0])
    assert corrected(p)[0].tolist() == pytest.approx([0.08, 0.6, 1.0, 1.0])
    assert corrected(p, least=least)[0].tolist() == pytest.approx([0.02, 1.0, 1.0, 1.0])
    both, _ = corrected(np.array([0.02, 0.03, 0.9]), least=np.array([0.001, 0.002, 1.0]))
    assert both.tolist() == pytest.approx([0.03, 0.03, 1.0])


def test_what_has_to_be_decided_shares_half_of_the_level() -> None:
    p, primary = np.full(100, 0.9), np.arange(100) < 5
    p[[0, 50]] = 0.004
    q, next_p = corrected(p, primary)
    assert q[0] == pytest.approx(0.004 * 10)      # of five, twice
    assert q[50] == pytest.approx(0.004 * 190 / 2)   # of 95, twice; the second in order
    assert next_p[[0, 50]] == pytest.approx([2 * 0.05 / 10, 2 * 0.05 / 190])
    plain, _ = corrected(p)
    assert plain[0] == plain[50] == pytest.approx(0.2)
    np.testing.assert_allclose(corrected(p, np.ones(100, bool))[0], plain)     # all of them: none
    assert np.all(corrected(np.full(100, 0.01), primary)[0] >= 0.01)


@given(st.lists(st.floats(0, 1), min_size=5, max_size=60), st.integers(1, 2))
def test_the_level_is_shared_out_and_no_more_than_that(values: list[float], few: int) -> None:
    """The p that alone makes a verdict, summed over all metrics, is the level."""
    _, next_p = corrected(np.maximum(np.array(values), 0.06 * len(values)), np.arange(len(values)) < few)
    assert next_p.sum() == pytest.approx(0.05)


# --- how many visits -------------------------------------------------------------------------------------------------

def contrasted(sides: tuple[Terms, Terms]) -> Contrast:
    c = contrast(*sides)
    assert c is not None
    return c


def test_as_many_visits_as_were_asked_for_decide() -> None:
    """The same visits, as often as needed, make a verdict; half of them do not."""
    lost = [20 * v + 1 for v in range(0, 12, 2)]
    few = found_of(12, 20, lost=lost)
    needed = one(*few, rules=replace(RULES, level=0.01)).needed
    assert 12 < needed < 60

    def repeated(rows: Terms, times: int) -> Terms:
        return Terms(np.tile(rows.value, times), np.tile(rows.weight, times),
                     np.concatenate([rows.unit + 12 * i for i in range(times)]),
                     np.concatenate([rows.object + len(rows.value) * i for i in range(times)]))

    enough = int(np.ceil(needed / 12))
    assert one(*(repeated(s, enough) for s in few), rules=replace(RULES, level=0.01)).verdict == "worse"
    assert one(*(repeated(s, 1) for s in few), rules=replace(RULES, level=0.01)).verdict == "undecided"


def test_a_difference_at_its_margin_is_decided_by_being_certain_of_it() -> None:
    sides = found_of(12, 20, lost=[1, 21, 41])
    c = contrasted(sides)
    b = bounds(c, metric(), half_width)
    generous = visits_needed(c, b, 0.05, 0.05, 0.05)
    mean = visits_needed(c, b, 0.0125, 0.05, 0.05)
    assert 12 < generous < mean < NEVER
    assert visits_needed(c, replace(b, difference=0.0), 0.0, 0.05, 0.05) == NEVER     # no margin, no difference


# --- speed -----------------------------------------------------------------------------------------------------------

@pytest.mark.bench
def test_a_hundred_metrics_of_200_visits_are_judged_within_three_seconds() -> None:
    rng, n = np.random.default_rng(12), 10_000
    statistics: tuple[Statistic, ...] = ("ratio", "median", "std", "abs_ratio", "percentile98", "rms")
    sides: tuple[dict[str, Terms], dict[str, Terms]] = ({}, {})
    for i in range(100):
        unit, seen = rng.integers(0, 200, n), rng.integers(0, 1500, n)
        value = rng.normal(3.0, 1.0, n)
        for side in sides:
            side[str(i)] = Terms(value + 0.1 * rng.normal(size=n), np.ones(n), unit, seen, statistics[i % 6])
    began = time.process_time()
    judged = judge([metric(str(i)) for i in range(100)], *sides, RULES)  # type: ignore[arg-type]  # see `_of`
    assert time.process_time() - began < 3.0
    assert sum(j.verdict in ("better", "worse") for j in judged) == 0
