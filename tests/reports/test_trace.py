"""Blame, on traces made by hand."""

from collections.abc import Mapping

import numpy as np
import pytest

from reports.store import DTYPES
from reports.trace import STEP_ORDER, blame, first_difference, pipeline_order

STEPS = ("calibrate", "warp", "subtract", "detect", "measure", "filter", "objects", "reload", "associate", "forced")
Changes = Mapping[tuple[int, str], float]     # (visit, Step) -> factor


def trace(visits: int = 8, changes: Changes | None = None, *, seeds: int = 2, without: tuple[str, ...] = (),
          roundings: float = 0.0) -> np.ndarray:
    """Two numbers per Step; `changes` multiply one of them in that visit of each night."""
    rng = np.random.default_rng(5)
    rows = []
    for seed in range(seeds):
        for visit in range(visits):
            for step in STEPS:
                if step not in without:
                    value = 100.0 * (changes or {}).get((visit, step), 1.0) * (1 + roundings * rng.standard_normal())
                    rows += [(seed, visit, 94, step.encode(), b"n", value), (seed, visit, 94, step.encode(), b"x", 7.0)]
    return np.array(rows, DTYPES["seed_trace"])


def test_equal_traces_blame_nothing() -> None:
    found = first_difference(trace(), trace())
    assert [d.step for d in found] == [step for step in STEP_ORDER if step in STEPS]
    assert all((d.n, d.share, d.first, d.largest, d.quantity) == (16, 0, 0, 0, "") for d in found)
    assert blame("forced", found) == ""


@pytest.mark.parametrize("culprit", ["warp", "detect", "filter"])
def test_the_first_step_that_differs_is_blamed(culprit: str) -> None:
    after = STEPS[STEPS.index(culprit):]
    found = first_difference(trace(), trace(changes={(v, s): 1.1 for v in range(8) for s in after}))
    assert blame("forced", found) == culprit
    here = next(d for d in found if d.step == culprit)
    assert (here.share, here.first, here.quantity) == (1.0, 1.0, "n")
    assert here.largest == pytest.approx(0.1 / 1.1)


def test_a_step_downstream_of_the_metric_is_not_blamed() -> None:
    changes = {(v, s): 1.1 for v in range(8) for s in ("filter", "forced")}
    found = first_difference(trace(), trace(changes=changes))
    assert blame("detect", found) == ""
    assert blame("associate", found) == "filter"
    assert blame("a Step that no trace knows", found) == "filter"


def test_what_a_visit_inherits_through_the_store_is_not_blamed() -> None:
    """Association changes from the second visit on; what later visits read has changed because of it."""
    changes = {(v, "associate"): 0.5 for v in range(1, 8)}
    changes |= {(v, s): 0.8 for v in range(2, 8) for s in ("objects", "reload")}
    found = first_difference(trace(), trace(changes=changes))
    assert blame("forced", found) == "associate"
    assert next(d for d in found if d.step == "reload").share == 6 / 8


def test_a_read_that_changes_by_itself_is_blamed() -> None:
    changes = {(v, s): 0.8 for v in range(1, 8) for s in ("reload", "associate")}
    found = first_difference(trace(), trace(changes=changes))
    assert blame("associate", found) == "reload"


def test_a_step_that_one_side_lacks_is_blamed() -> None:
    found = first_difference(trace(), trace(without=("reload",), changes={(3, "associate"): 0.5}))
    assert blame("associate", found) == "reload"
    assert next(d for d in found if d.step == "reload").first == 1.0


def test_roundings_blame_nothing_and_hide_nothing() -> None:
    """Roundings grow to a part in 10^4 everywhere; here and there a detection more; then a true change beneath them."""
    shaken = {(2, "detect"): 1.05, (2, "measure"): 1.05, (5, "measure"): 0.7}
    found = first_difference(trace(roundings=3e-5), trace(changes=shaken, roundings=1e-4))
    assert blame("forced", found) == ""
    more = shaken | {(v, s): 1.1 for v in range(8) for s in STEPS[STEPS.index("filter"):]}
    found = first_difference(trace(roundings=3e-5), trace(changes=more, roundings=1e-4))
    assert blame("forced", found) == "filter"


def test_a_rare_change_is_blamed_where_everything_else_is_equal() -> None:
    """Streaks cross one visit in eight: what masks them changes nothing in the others."""
    found = first_difference(trace(), trace(changes={(3, s): 1.01 for s in STEPS[STEPS.index("detect"):]}))
    assert blame("measure", found) == "detect"


def test_counts_are_zero_where_they_are_missing_and_other_numbers_are_left_out() -> None:
    head = trace()
    more = head[head["step"] == b"detect"][:1].copy()
    more["quantity"] = b"a new number"
    assert blame("", first_difference(trace(), np.concatenate([head, more]))) == ""
    more["quantity"] = b"mask:STREAK"
    assert blame("", first_difference(trace(), np.concatenate([head, more]))) == "detect"


def test_steps_that_the_pipeline_does_not_know_stand_where_they_were_run() -> None:
    visit = {step: {} for step in ("calibrate", "warp", "brighten", "subtract")}
    assert pipeline_order(visit, {"detect": {}}) == ("calibrate", "warp", "brighten", "subtract", "detect")


def test_without_a_common_visit_nothing_is_said() -> None:
    head = trace()
    head["visit"] += 100
    assert blame("detect", first_difference(trace(), head)) == ""
