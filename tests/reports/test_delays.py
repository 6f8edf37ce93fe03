"""Critical paths, causes, and counts of what is under way, by hand."""

import numpy as np
import pytest

from reports.delays import HELD, PART, PARTS, busy, causes, held_by, is_late, parts
from schemas.measures import CALL, CALL_STEPS, PASSAGE, empty


def passage(**values: float) -> np.ndarray:
    """One detector-visit: readout ends at 0, preload long before, all done without a wait at 40 s."""
    row = empty(PASSAGE, 1)
    given = {"readout_end_s": 0.0, "shutter_close_s": -3.0, "published_s": -50.0, "taken_s": -50.0,
             "preloaded_s": -40.0, "arrived_s": 4.0, "seen_s": 5.0, "measured_s": 30.0, "standardized_s": 31.0,
             "reloaded_s": 32.0, "saved_s": 38.0, "sent_s": 39.0, "delivered_s": 40.0, "freed_s": 45.0, "message": 0,
             "attempts": 1, "n_alerts": 10, "n_sent": 10, "reason": b""}
    for name, value in (given | values).items():
        row[name] = value
    return row


def calls(*rows: tuple[str, float, float, float]) -> np.ndarray:
    """CALL rows of the first detector-visit: step, asked, start, end."""
    return np.array([(0, 0, CALL_STEPS.index(step), *times) for step, *times in rows], CALL)


EGRESS = ("egress", 39.0, 39.4, 40.0)


def made_of(row: np.ndarray, *rows: tuple[str, float, float, float]) -> dict[str, float]:
    found = parts(row, calls(*rows))[0]
    assert found.sum() == pytest.approx(float(row["delivered_s"][0]))
    return {name: round(float(found[PART[name]]), 6) for name in PARTS if found[PART[name]]}


def test_a_delay_is_the_sum_of_what_was_waited_for() -> None:
    found = made_of(passage(), ("reload", 31.0, 31.5, 32.0), ("save", 35.0, 36.0, 38.0), EGRESS)
    assert found == {"image": 5.0, "pixels": 25.0, "catalogue": 4.0, "kafka": 1.0, "apdb queue": 1.5, "apdb": 2.5,
                     "egress queue": 0.4, "egress": 0.6}


def test_a_preload_that_ends_before_the_image_comes_costs_nothing() -> None:
    found = made_of(passage(preloaded_s=4.5, taken_s=-2.0), ("objects", -1.0, 2.0, 4.0), EGRESS)
    assert found["image"] == 5.0
    assert "apdb queue" not in found


def test_a_preload_that_ends_after_it_is_what_was_waited_for() -> None:
    late = passage(published_s=-50.0, taken_s=3.0, preloaded_s=15.0, seen_s=15.0)
    found = made_of(late, ("registry", 3.0, 3.0, 5.0), ("objects", 6.0, 10.0, 14.0), EGRESS)
    assert "image" not in found
    assert (found["start-up"], found["registry"], found["apdb queue"], found["apdb"], found["preload"]) == \
        (3.0, 2.0, 4.0, 4.0, 2.0)
    late["capped"] = True
    assert made_of(late, ("registry", 3.0, 3.0, 5.0), ("objects", 6.0, 10.0, 14.0), EGRESS)["workers"] == 3.0
    late["attempts"] = 2
    assert made_of(late, ("registry", 3.0, 3.0, 5.0), ("objects", 6.0, 10.0, 14.0), EGRESS)["another try"] == 3.0


def test_calls_of_another_attempt_and_exports_do_not_count() -> None:
    others = calls(("save", 35.0, 36.0, 37.0), ("export", 39.0, 39.0, 45.0), EGRESS)
    others["message"][0] = 5
    found = parts(passage(), others)[0]
    assert found[PART["apdb"]] == 0.0
    assert found.sum() == pytest.approx(40.0)


def test_what_was_never_sent_has_no_delay_and_is_late() -> None:
    lost = passage(delivered_s=np.nan, sent_s=np.nan, reason=b"kafka", n_sent=0)
    assert np.isnan(parts(lost, calls())).all()
    assert is_late(lost).all()
    assert not is_late(passage()).any()
    assert is_late(passage(), limit_s=39.0).all()


def test_the_cause_is_what_took_most_longer_than_it_need() -> None:
    row, reference = passage(delivered_s=90.0, sent_s=89.0), np.zeros((1, len(PARTS)))
    these = np.zeros((1, len(PARTS)))
    these[0, PART["pixels"]], reference[0, PART["pixels"]] = 45.0, 40.0
    these[0, PART["apdb queue"]] = 30.0
    holders = np.array([HELD.index("export")])
    cause, excess = causes(row, these, reference, holders)
    assert (cause[0], excess[0]) == (b"apdb queue", 30.0)
    these[0, PART["workers"]] = 31.0
    assert causes(row, these, reference, holders)[0][0] == b"workers: export"
    reference[0, PART["pixels"]] = 61.0
    assert causes(row, these, reference, holders)[0][0] == b"itself: pixels"
    assert causes(passage(), these, reference, holders)[0][0] == b""
    lost = passage(delivered_s=np.nan, reason=b"killed")
    assert causes(lost, these, reference, holders)[0][0] == b"killed"


def test_the_holder_is_who_keeps_most_more_workers_than_it_would() -> None:
    reference = np.concatenate([passage() for _ in range(20)])
    night = reference.copy()
    night["freed_s"] = 600.0                      # exports take ten minutes
    night["published_s"][0], night["taken_s"][0] = 100.0, 500.0
    assert HELD[held_by(night, reference)[0]] == "export"


def test_busy_is_the_mean_number_under_way() -> None:
    begin, end = np.array([0.0, 1.0, 1.5]), np.array([2.0, 3.0, 1.75])
    assert busy(begin, end, np.array([0.0, 1.0, 2.0, 3.0, 4.0])).tolist() == [1.0, 2.25, 1.0, 0.0]
    rng = np.random.default_rng(1)
    begin = rng.uniform(0, 90, 500)
    end = begin + rng.exponential(5.0, 500)
    assert busy(begin, end, np.linspace(0, 200, 51)).sum() * 4.0 == pytest.approx((end - begin).sum())
