"""Alerts of a survey night matched at once: the pairs of the slow way, and figures that tell what was planted."""

import numpy as np
import pytest

from reports.association import association
from reports.match import Matches, pool
from reports.store import Store
from reports.wide import match_alerts, paired, wide_night
from tests.reports.test_match import source_rows, truth_rows


def test_alerts_have_the_true_sources_that_the_slow_way_gives_them(good: Store, good_matches: Matches) -> None:
    slow, fast = good_matches, match_alerts(good)
    alerts = np.flatnonzero(slow.sources["alert"])
    there = dict(zip(slow.sources["id"][alerts].tolist(), alerts.tolist(), strict=True))
    assert len(alerts) == fast.sources["alert"].sum() > 500
    keys = []
    for matches, rows in ((slow, [there[k] for k in fast.sources["id"].tolist()]),
                          (fast, range(len(fast.sources)))):
        partner = matches.partner[list(rows)]
        keys.append(np.where(partner >= 0, matches.truth["truthId"][partner], -1))
    assert np.mean(keys[0] == keys[1]) > 0.999
    one, other = association(slow), association(fast)
    for name in ("sources", "objects", "duplicates", "merged"):
        assert abs(getattr(one, name) - getattr(other, name)) <= 1, name
    assert other.static.value == pytest.approx(one.static.value, abs=0.002)


def test_pairs_are_nearest_first_one_to_one_and_of_one_sign() -> None:
    truth = truth_rows([10.0, 12.0, 50.0, 90.0], [10.0, 10.0, 50.0, 90.0], [20.0, 20.0, 20.0, -20.0])
    sources = source_rows([11.4, 11.6, 50.0, 50.5, 90.0, 150.0], [10.0, 10.0, 51.0, 50.0, 90.0, 10.0],
                          [20.0, 20.0, 20.0, 20.0, 20.0, 20.0])
    found, partner = paired(truth, sources)
    assert partner.tolist() == [0, 1, -1, 2, -1, -1]       # 11.6 is nearest to 12, so 11.4 has what is left
    assert found.tolist() == [0, 1, 3, -1]


def test_other_detectors_and_visits_explain_nothing() -> None:
    truth = truth_rows([10.0, 30.0], [10.0, 30.0], [20.0, 20.0])
    truth["detector"][1] += 1
    sources = source_rows([10.0, 30.0, 10.0], [10.0, 30.0, 10.0], [20.0, 20.0, 20.0])
    sources["visit"][2] += 1
    assert paired(truth, sources)[1].tolist() == [0, -1, -1]
    assert paired(truth[:0], sources)[1].tolist() == [-1, -1, -1]


def test_a_trail_is_matched_along_its_line() -> None:
    truth = truth_rows([100.0], [100.0], [20.0])
    truth["trail_length"], truth["trail_angle"] = 20.0, 90.0
    sources = source_rows([100.0, 100.0, 109.0], [109.0, 115.0, 100.0], [9.0, 9.0, 9.0])
    assert paired(truth, sources)[1].tolist() == [0, -1, -1]


def test_faint_sources_explain_what_bright_ones_leave_over() -> None:
    truth = truth_rows([10.0, 11.0], [10.0, 10.0], [2.0, 20.0])
    sources = source_rows([10.2, 10.1], [10.0, 10.0], [5.0, 5.0])
    _, partner = paired(truth, sources)
    assert partner.tolist() == [1, 0]          # the bright one takes its nearest; the faint one the other


def test_ids_of_several_runs_are_not_mixed_up(good: Store) -> None:
    """Two runs of the same ids have twice the objects of one, and no duplicates more."""
    one = association(match_alerts(good))
    two = association(pool([match_alerts(good), match_alerts(good, run=1)]))
    assert (two.sources, two.objects) == (2 * one.sources, 2 * one.objects)
    assert (two.duplicates, two.merged, two.lone) == (2 * one.duplicates, 2 * one.merged, 2 * one.lone)
    assert two.complete.value == pytest.approx(one.complete.value)


def test_the_figures_say_what_was_found(good: Store) -> None:
    night = wide_night(good)
    assert night.visits == 12
    assert night.alerts == int(match_alerts(good).sources["alert"].sum())
    assert night.per_visit == pytest.approx(night.alerts / 12)
    text = "\n".join(night.lines())
    assert f"{night.association.duplicates} of {night.association.sources} static sources" in text
    assert "asked for" not in text             # the run does not say how many were
