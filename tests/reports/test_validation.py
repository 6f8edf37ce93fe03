"""Verdicts keep their promises on nights whose true difference is known: small forms, and the full ones of acceptance.

Each has its negative control: sources taken as independent, no correction for many metrics, plain intervals looked at
again and again.
"""

import numpy as np
import pytest

from reports.paired import Rules
from reports.power import pairing_gain
from tests.reports.validation.nights import METRICS, Pipeline, pair, sky, swapped
from tests.reports.validation.runs import (
    BASE,
    WORSE,
    coverage,
    decided,
    measured_gain,
    nulls,
    sequences,
    true_differences,
)

SMALLER = Pipeline(threshold=5.14)     # 2 % of completeness


# --- the nights ------------------------------------------------------------------------------------------------------

def test_sources_of_one_visit_and_of_one_object_share_what_real_ones_share() -> None:
    s = sky(1, 40)
    noise = np.full((40, s.object.max() + 1), np.nan)
    noise[s.visit, s.object] = s.noise
    seen = np.isfinite(noise).sum(axis=0) > 5
    products = [np.nanmean(noise[v, seen] * noise[w, seen]) for v in range(20) for w in range(20, 40)
                if np.isfinite(noise[v, seen] * noise[w, seen]).sum() > 5]
    assert np.mean(products) == pytest.approx(0.25, abs=0.1)       # the template's share of the noise
    assert np.nanvar(noise) == pytest.approx(1.0, abs=0.1)
    counts = np.bincount(s.visit, minlength=40)
    assert counts.max() > 1.5 * counts.min()                       # visits are unequal


def test_exchanging_all_visits_exchanges_the_sides() -> None:
    base, head = pair(1, (6,), BASE, WORSE)
    one, other = swapped(base, head, np.ones(6, bool))
    for key, terms in base.terms.items():
        assert sorted(other.terms[key].value) == sorted(terms.value)
        assert sorted(one.terms[key].value) == sorted(head.terms[key].value)
    same, _ = swapped(base, head, np.zeros(6, bool))
    np.testing.assert_array_equal(same.terms["completeness"].value, base.terms["completeness"].value)


# --- small forms -----------------------------------------------------------------------------------------------------

def test_intervals_hold_the_true_difference_and_those_of_independent_sources_do_not() -> None:
    """80 pairs, 10 metrics; tolerances: 4 sigma of one metric's share (2.4 %), and of their mean taken as three's."""
    found = coverage(80, (8, 14, 22), nights=60)
    for c in found:
        assert c.ours > 0.95 - 4 * 0.0244, c.key
    ours, independent = (np.mean([getattr(c, name) for c in found]) for name in ("ours", "independent"))
    assert abs(ours - 0.95) < 4 * 0.0244 / np.sqrt(3)
    assert independent < 0.86
    assert min(c.independent for c in found) < 0.7


def test_nothing_is_called_where_nothing_differs_and_much_without_correction() -> None:
    found = nulls(40, (8, 14, 22))
    assert found.called <= 0.06 + 2 * np.sqrt(0.06 * 0.94 / 40)
    assert found.uncorrected > 0.15


def test_looks_may_be_taken_at_will_but_not_with_plain_intervals() -> None:
    few = [m for m in METRICS if m.key in ("completeness", "flux_mean", "cpu")]
    found = sequences(20, (12,) * 5, seed=2, metrics=few)
    assert found.false <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 20)
    assert found.missed <= 0.05
    assert found.peeking_missed > 0.07


def test_visits_predicted_for_a_change_decide_it_when_paired_and_not_with_independent_seeds() -> None:
    change = -true_differences(60, METRICS[:1], BASE, SMALLER)[0]
    assert change == pytest.approx(0.02, abs=0.003)
    base, head = (side.terms["completeness"] for side in pair(7, (12,) * 20, BASE, SMALLER))
    gain = pairing_gain(METRICS[0], base, Rules(), head=head, change=change, n_metrics=49)
    assert gain.ratio > 4
    assert decided(10, gain.paired, independent=False, head=SMALLER) >= 0.6
    assert decided(10, gain.paired, independent=True, head=SMALLER) <= 0.4


# --- acceptance ------------------------------------------------------------------------------------------------------

@pytest.mark.accept
@pytest.mark.parametrize("visits", [(8, 14, 22), (10, 15, 30, 45)])
def test_500_pairs_are_covered_by_93_to_97_per_cent(visits: tuple[int, ...]) -> None:
    found = coverage(500, visits)
    for c in found:
        print(f"{c.key:16}{c.true:10.4f}  covered {100 * c.ours:.1f} %, sources as independent "
              f"{100 * c.independent:.1f} %")
    assert 0.93 <= np.mean([c.ours for c in found]) <= 0.97
    for c in found:      # each within 3 sigma of the bounds
        assert 0.93 - 3 * 0.0097 <= c.ours <= 0.97 + 3 * 0.0097, c.key
    assert np.mean([c.independent for c in found]) < 0.85


@pytest.mark.accept
@pytest.mark.parametrize("visits", [(12,), (8, 14, 22), (40, 40)])
def test_of_1000_comparisons_without_effect_at_most_6_per_cent_call_anything(visits: tuple[int, ...]) -> None:
    found = nulls(1000, visits)
    print(f"{visits}: {100 * found.called:.1f} %, without correction {100 * found.uncorrected:.1f} %")
    assert found.called <= 0.06
    assert found.uncorrected > 0.06


@pytest.mark.accept
def test_of_1000_sequences_without_effect_at_most_5_per_cent_end_in_a_false_verdict() -> None:
    found = sequences(1000, (12,) * 6)
    print(f"{100 * found.false:.1f} %, judged anew at each look {100 * found.peeking:.1f} %")
    assert found.false <= 0.05
    assert found.missed <= 0.05
    assert found.peeking > 0.05


@pytest.mark.accept
def test_pairing_needs_at_most_a_quarter_of_the_visits() -> None:
    gain = measured_gain(SMALLER, 0.02)
    print(f"{gain.paired} visits paired, {gain.independent} with independent seeds")
    assert gain.ratio >= 4
