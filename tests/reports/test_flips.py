from dataclasses import replace

import numpy as np
import pytest

from reports.flips import GROUPS, PLANE_STEPS, SHOWN, Flow, decided_at, flips, paired_by_place, state, told
from reports.match import REASONS
from reports.pairing import paired
from reports.store import empty
from reports.trace import parted
from schemas import mask
from tests.reports.sides import changed, outcome, traced, without

BASE = outcome()
BRIGHT = BASE.sources["snr"] > 20
STATIC = BASE.sources["kind"] != b"asteroid"


def _flips(head, base=BASE):
    one, other, _ = paired(base, head)
    return flips(one, other, parted(one.traces, other.traces))


def _only(found) -> Flow:
    assert len(found.flows) == 1, found.flows
    return found.flows[0]


def test_equal_sides_have_no_flips() -> None:
    found = _flips(BASE)
    assert len(found.rows) == 0
    assert found.flows == ()
    assert found.wanted == {}


@pytest.mark.parametrize(("reason", "values", "state_after", "step"), [
    ("own mask: SAT", {"mask_at": mask.SAT}, "own mask: SAT", "calibrate"),
    ("own mask: CR+STREAK", {"mask_at": mask.CR | mask.STREAK}, "own mask: CR+STREAK", "detect"),
    ("own mask: EDGE", {"mask_at": mask.EDGE}, "own mask: EDGE", "subtract"),
    ("own mask: HIGH_VARIANCE", {"mask_at": mask.HIGH_VARIANCE}, "own mask: HIGH_VARIANCE", "warp"),
    ("not detected: significance 4.9", {"significance_at": 4.9}, "not detected", "detect"),
    ("other", {"significance_at": 5.2}, "not detected", "detect"),
    ("blended: with transient 17", {}, "blended", "detect"),
    ("rejected: quality: centroid_flag", {}, "rejected: quality: centroid_flag", "filter"),
    ("rejected: new_objects: pixelFlags_crCenter", {}, "rejected: new_objects: pixelFlags_crCenter", "associate"),
    ("not published", {}, "not published", "send"),
    ("no work: no template", {}, "no work", "warp")])
def test_a_lost_source_names_the_step_that_its_reason_names(reason, values, state_after, step) -> None:
    lost = _flips(without(BASE, BRIGHT, reason, **values))
    flow = _only(lost)
    assert (flow.group, flow.before, flow.after, flow.step) == ("lost", "found", state_after, step)
    assert flow.n == BRIGHT.sum()
    gained = _only(_flips(BASE, without(BASE, BRIGHT, reason, **values)))      # the other way round
    assert (gained.group, gained.before, gained.after, gained.step) == ("gained", state_after, "found", step)


def test_every_reason_of_the_closed_list_has_a_state_and_a_step() -> None:
    row = BASE.sources[:1].copy()
    row["alert"] = False
    for reason in REASONS:
        row["reason"] = f"{reason}: detail".encode()
        told_state = state(row[0])
        assert told_state.partition(":")[0] in (*REASONS, "not detected")
        assert decided_at(told_state) or reason == "failed step"     # any Step may fail: the trace tells which


def test_of_a_mask_the_planes_that_are_new_count() -> None:
    both = changed(BASE, BRIGHT, mask_at=mask.SUSPECT)                  # a plane that base lives with
    head = without(both, BRIGHT, "own mask: SUSPECT+CR", mask_at=mask.SUSPECT | mask.CR)
    flow = _only(_flips(head, both))
    assert (flow.after, flow.step) == ("own mask: CR", "detect")
    assert _only(_flips(without(both, BRIGHT, "own mask: SUSPECT"), both)).after == "own mask: SUSPECT"


def test_planes_of_the_mask_that_reasons_name_have_their_step() -> None:
    known = set(mask.PLANES) - {"DETECTED", "DETECTED_NEGATIVE"}
    assert {name for name in known if not name.startswith("INJECTED")} == set(PLANE_STEPS)


def test_a_cut_that_moved_is_told_from_a_score_that_moved() -> None:
    values = {"alert": False, "raw": True, "reason": b"rejected: reliability"}
    assert _only(_flips(changed(BASE, BRIGHT, **values))).step == "filter"
    moved = _only(_flips(changed(BASE, BRIGHT, reliability=0.3, **values)))
    assert (moved.after, moved.step) == ("rejected: reliability", "reliability")


def test_a_source_that_only_the_detections_lost_is_apart() -> None:
    base = changed(BASE, BRIGHT, alert=False, reason=b"rejected: reliability", reliability=0.3)
    flow = _only(_flips(without(BASE, BRIGHT, "not detected: significance 4.9"), base))
    assert (flow.group, flow.before, flow.after) == ("raw_lost", "rejected: reliability", "not detected")


def test_the_origin_is_the_first_step_that_differs_where_the_flip_is() -> None:
    head = without(BASE, BRIGHT, "not detected: significance 4.9")
    visit = int(BASE.visits["visit"][0])
    found = _flips(traced(head, "subtract", "detect", visits=[visit]))
    here = found.rows["visit"] == visit
    assert set(found.rows["origin"][here]) == {b"subtract"}
    assert set(found.rows["origin"][~here]) == {b"detect"}             # nothing upstream differs there
    assert set(found.rows["step"]) == {b"detect"}
    later = _flips(traced(head, "measure"))
    assert set(later.rows["origin"]) == {b"detect"}                    # what comes after did not make it


def test_false_detections_pair_by_place_and_flip_by_their_fate() -> None:
    rows = BASE.false.copy()
    rows["x"] += 1.2                                                   # the same places
    assert len(_flips(replace(BASE, false=rows)).rows) == 0
    stopped = rows["cause"] == b"streak"
    rows["alert"][stopped], rows["stage"][stopped], rows["reason"][stopped] = True, b"", b""
    flow = _only(_flips(replace(BASE, false=rows)))
    assert (flow.group, flow.before, flow.after, flow.kind) == ("new_false", "rejected: reliability", "alert", "streak")
    assert (flow.step, flow.n, flow.snr) == ("filter", 4, 12.0)
    moved = BASE.false.copy()
    moved["y"][moved["cause"] == b"noise"] -= 2.5                      # other places
    found = _flips(replace(BASE, false=moved))
    assert found.count("new_false") == found.count("false_gone") == 4
    assert {(f.before, f.after) for f in found.flows} == {("no detection", "alert"), ("alert", "no detection")}


def test_a_false_alert_that_a_true_source_explains_elsewhere_says_so() -> None:
    row = BASE.sources[30]
    rows = BASE.false.copy()
    rows["x"][0], rows["y"][0] = row["x"] + 1, row["y"]
    head = replace(without(BASE, np.arange(len(BASE.sources)) == 30, "other"), false=rows)
    found = _flips(head)
    assert [(f.group, f.before, f.after) for f in found.flows if f.before == "a true source's"] == [
        ("new_false", "a true source's", "alert")]


def test_nearest_places_pair_first_and_each_once() -> None:
    rows = empty("outcome_false", 3)
    rows["seed"] = rows["visit"] = rows["detector"] = 1
    rows["x"], rows["y"] = [10.0, 11.5, 50.0], 20.0
    other = rows[:2].copy()
    other["x"] = [11.4, 12.8]
    i, j = paired_by_place(rows, other)
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == {(-1, 1), (0, -1), (1, 0), (2, -1)}
    other["detector"] = 2                                              # another detector-visit
    assert np.all((paired_by_place(rows, other)[0] < 0) | (paired_by_place(rows, other)[1] < 0))


def test_alerts_that_change_their_object_are_flips() -> None:
    bright = BRIGHT & STATIC
    for values, after in (({"diaObjectId": 5, "merged": True}, "another's object"),
                          ({"diaObjectId": 6}, "duplicate object"), ({"diaObjectId": 0}, "no object")):
        flow = _only(_flips(changed(BASE, bright, associated=False, **values)))
        assert (flow.group, flow.before, flow.after, flow.step, flow.n) == (
            "object_wrong", "right object", after, "associate", bright.sum())
    other_names = changed(BASE, STATIC, diaObjectId=BASE.sources["diaObjectId"][STATIC] + 1)
    assert len(_flips(other_names).rows) == 0                          # ids are names: another numbering is no flip


def test_without_the_re_read_of_objects_that_step_decided() -> None:
    head = changed(BASE, BRIGHT & STATIC, associated=False)
    assert _only(_flips(head)).step == "associate"
    assert _only(_flips(replace(head, steps=head.steps[head.steps["name"] != b"reload"]))).step == "reload"


def test_asteroids_gain_and_lose_their_ssobject() -> None:
    head = changed(BASE, BRIGHT & ~STATIC, associated=False, found_ssObjectId=0, diaObjectId=77)
    flow = _only(_flips(head))
    assert (flow.group, flow.after, flow.step) == ("ss_lost", "a DIAObject", "associate")
    assert _only(_flips(BASE, head)).group == "ss_gained"


def test_the_worst_come_first_and_each_large_flow_is_shown() -> None:
    base = outcome(visits=6, sources=100)
    snr = base.sources["snr"]
    head = without(base, snr > 6, "not detected: significance 4.0")
    head = replace(head, sources=np.where((base.sources["truthId"] % 7 == 0) & (snr > 6),
                                          without(base, snr > 6, "own mask: SAT", mask_at=mask.SAT).sources,
                                          head.sources))
    rows = base.false.copy()
    rows["alert"], rows["stage"] = True, b""
    found = _flips(replace(head, false=rows), base)
    lost = found.rows["snr"][found.rows["group"] == b"lost"]
    assert np.all(np.diff(lost) <= 0)
    groups = [list(GROUPS).index(g.decode()) for g in found.rows["group"]]
    assert groups == sorted(groups)
    assert len(found.shown) == SHOWN < len(found.rows)
    assert np.all(np.diff(found.shown) > 0)
    assert {0, 1, 2} <= set(found.shown.tolist())                      # the worst of all
    assert set(found.rows["flow"][found.shown]) == set(range(len(found.flows)))
    assert sum(map(len, found.wanted.values())) == SHOWN


def test_flows_count_their_flips() -> None:
    found = _flips(without(BASE, BRIGHT, "own mask: SAT", mask_at=mask.SAT))
    flow = _only(found)
    assert flow.snr == pytest.approx(np.median(BASE.sources["snr"][BRIGHT]))
    assert flow.largest_snr == pytest.approx(BASE.sources["snr"][BRIGHT].max())


def test_sides_that_were_not_paired_are_refused() -> None:
    with pytest.raises(ValueError, match="sides that `paired` has laid side by side are expected, got 160 and 159"):
        flips(BASE, replace(BASE, sources=BASE.sources[1:]))


def test_what_a_side_measured_is_told_in_short_lines() -> None:
    row = BASE.sources[np.flatnonzero(BRIGHT)[0]]
    first, second, third = told(row, false=False)
    assert first == "alert"
    assert second == f"S/N {row['snr']:.1f}, reliability 0.90"
    assert third.startswith("flux ")
    lost = without(BASE, BRIGHT, "other", significance_at=5.25).sources[np.flatnonzero(BRIGHT)[0]]
    assert told(lost, false=False) == ("not detected: significance 5.2",)
    assert told(BASE.false[2], false=True) == ("rejected: reliability", "S/N 12.0, reliability 0.20")
    silent = changed(BASE, BRIGHT, reliability=np.nan, dra=np.nan).sources[np.flatnonzero(BRIGHT)[0]]   # a catalogue
    assert told(silent, false=False)[1] == f"S/N {silent['snr']:.1f}"
    assert "nan" not in " ".join(told(silent, false=False))
