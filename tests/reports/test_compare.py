from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reports.compare import Comparison, compare
from reports.flips import flips
from reports.metrics import METRICS
from reports.paired import Judged, Rules
from reports.pairing import ComparisonError, paired
from reports.store import empty
from reports.terms import Metric, Terms
from reports.verdict import clause, verdict
from schemas import mask
from tests.reports.sides import changed, outcome, traced, without

BASE = outcome(visits=1, seeds=range(1, 13))
SNR = BASE.sources["snr"]
MIDDLE = (SNR > 5.5) & (SNR < 8)
RULES = Rules(resamples=400)
NO_FLIPS = flips(*paired(BASE, BASE)[:2])
BY_KEY = {metric.key: metric for metric in METRICS}


def _compare(head, base=BASE, **options) -> Comparison:
    return compare(base, head, RULES, **options)


def judged(key: str, word: str, difference: float, reach: float, *, margin: float = 0.01, needed: int = 0,
           primary: bool | None = None) -> Judged:
    """A metric with its verdict, the interval `reach` to each side."""
    step = key.partition(".")[2]
    metric = BY_KEY.get(key) or Metric(key, f"cost of {step}", "cost", "s", "lower", margin, True, False, step, _none)
    if primary is not None:
        metric = replace(metric, primary=primary)
    return Judged(metric, 1.0, 1.0 + difference, difference, difference - reach, difference + reach, 0.001, 0.01, word,
                  12, 100, 100, needed, margin)


def _none(side) -> Terms:
    raise AssertionError("not evaluated")


# --- comparisons -----------------------------------------------------------------------------------------------------

def test_a_loss_is_judged_blamed_and_said() -> None:
    head = traced(without(BASE, MIDDLE, "not detected: significance 4.9"), "detect", "measure", "filter")
    found = _compare(head, base_label="old", head_label="new")
    assert found.verdict.word == "worse"
    assert found.verdict.sentence.startswith(
        "Worse: sources with an alert at S/N 5.5–8 down from 100 % to 0 % (by 100 points), 48 alerts now not detected")
    assert f"{MIDDLE.sum()} alerts now not detected" in found.verdict.sentence
    blamed = found.blames["completeness_raw_5.5_8"]
    assert (blamed.step, blamed.how) == ("detect", "differs in 12 of 12 detector-visits (n); upstream equal")
    assert sum(map(len, found.wanted.values())) == found.flips.shown.size > 0
    assert {j.metric.key for j in found.of("worse")} == set(found.blames)
    other_way = _compare(BASE, base=head)
    assert other_way.of("worse") == []
    assert "sources with an alert at S/N 5.5–8 up from 0 % to 100 %" in other_way.verdict.sentence


def test_equal_sides_are_not_called_anything() -> None:
    found = _compare(BASE)
    assert found.of("worse") == found.of("better") == []
    assert found.verdict.word in ("equivalent", "undecided")
    assert "no difference" in found.verdict.sentence.lower()
    assert found.blames == {}


def test_where_no_step_upstream_differs_the_flips_tell() -> None:
    head = traced(without(BASE, MIDDLE, "rejected: new_objects: glint_trail"), "filter")
    blamed = _compare(head).blames["completeness_raw_5.5_8"]         # its Step is `detect`, whose trace is equal
    assert blamed.step == "filter"
    assert blamed.how == f"{MIDDLE.sum()} of {MIDDLE.sum()} flips go back to it"


def test_without_traces_the_step_that_makes_a_metric_is_named() -> None:
    base = replace(BASE, traces=empty("seed_trace"))
    head = changed(base, np.ones(len(SNR), bool), forced_flux=BASE.sources["flux"] * 1.05)
    found = _compare(head, base)
    assert found.blames["true_flux_bias"].step == "subtract"
    assert found.blames["true_flux_bias"].how == "the Step that makes it; no trace tells more"


def test_times_measured_side_by_side_replace_those_of_the_runs() -> None:
    slower = BASE.steps.copy()
    slower["cpu_s"][slower["name"] == b"measure"] *= 3
    noted = _compare(replace(BASE, steps=slower))
    assert [j.metric.key for j in noted.of("worse")] == ["cpu.total", "cpu.measure"]
    assert noted.blames["cpu.measure"].step == noted.blames["cpu.total"].step == "measure"
    assert noted.verdict.sentence.startswith("Worse: ")
    assert "slower" in noted.verdict.sentence
    assert _compare(replace(BASE, steps=slower), steps=(BASE.steps, BASE.steps)).of("worse") == []


def test_verdicts_reached_otherwise_are_taken_as_they_are() -> None:
    given = [judged("completeness_raw_5.5_8", "worse", -0.05, 0.01)]
    assert _compare(BASE, judged=given).judged == tuple(given)


def test_settings_that_differ_are_told(tmp_path: Path) -> None:
    sides = []
    for name, threshold in (("base", "5.0"), ("head", "5.5")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scenario.toml").write_text(f"seed = 1\n[pipeline.detect]\nthreshold = {threshold}\nx = 1\n")
        sides.append(replace(BASE, folders={1: tmp_path / name}, facts={**BASE.facts, "wall_s": name, "numpy": name}))
    told = {s.key: (s.base, s.head) for s in _compare(sides[1], sides[0]).settings}
    assert told == {"pipeline.detect.threshold": ("5.0", "5.5"), "numpy": ("base", "head")}
    assert _compare(BASE).settings == ()


def test_sides_of_another_truth_are_refused() -> None:
    with pytest.raises(ComparisonError, match="other truth: flux of seed 1"):
        _compare(changed(BASE, MIDDLE, flux=1.0))


# --- sentences -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("key", "difference", "reach", "said"), [
    ("completeness_raw_5.5_8", -0.021, 0.008, "2.1 % fewer sources detected at S/N 5.5–8 (1.3–2.9)"),
    ("completeness_alerts_20_up", 0.02, 0.01, "2 % more sources with an alert at S/N > 20 (1–3)"),
    ("false_alerts", 0.5, 0.2, "50 % more false alerts (30–70)"),
    ("cpu.total", -0.08, 0.01, "8 % faster (7–9)"),
    ("cpu.detect", 0.1, 0.02, "10 % more CPU time in detect (8–12)"),
    ("memory.warp", 0.3, 0.02, "30 % more memory in warp (28–32)"),
    ("position_median", 0.0032, 0.001, "3.2 mas larger median position error at S/N > 20 (2.2–4.2)"),
    ("association_accuracy", -0.012, 0.002, "1.2 % lower association accuracy (1–1.4)"),
    ("flux_bias", -3.0, 4.0, "3 mmag smaller flux bias at S/N > 20 (−7 to +1)")])
def test_a_change_is_said_as_a_person_would(key, difference, reach, said) -> None:
    assert clause(judged(key, "worse", difference, reach)) == said


@pytest.mark.parametrize(("key", "base", "head", "reach", "said"), [
    ("completeness_alerts_5.5_8", 0.8016, 0.3587, 0.103,
     "sources with an alert at S/N 5.5–8 down from 80 % to 36 % (by 34–55 points)"),
    ("association_accuracy", 0.8306, 0.9989, 0.0576, "association accuracy up from 83 % to 99.9 % (by 11–23 points)"),
    ("purity_alerts", 0.9978, 0.91, 0.1, "purity of alerts, S/N ≥ 6 down from 99.8 % to 91 % (by −19 to +1.2 points)"),
    ("duplicate_objects", 0.0, 0.06, 0.01, "duplicate DIAObjects per true source up from 0 % to 6 % (by 5–7 points)")])
def test_a_large_change_of_a_fraction_says_from_what_to_what(key, base, head, reach, said) -> None:
    assert clause(replace(judged(key, "worse", head - base, reach), base=base, head=head)) == said


def test_two_sections_that_got_better_are_told_beside_what_got_worse() -> None:
    rows = [judged("completeness_raw_5.5_8", "worse", -0.02, 0.01), judged("wcs_rms", "better", -0.01, 0.001),
            judged("false_alerts", "better", -0.9, 0.05), judged("false_raw", "better", -0.5, 0.05),
            judged("association_accuracy", "better", 0.02, 0.01)]
    assert verdict(rows, NO_FLIPS, 12).sentence.endswith(
        "; but 90 % fewer false alerts (85–95) and 2 % higher association accuracy (1–3).")


def test_from_none_to_some_there_is_no_percentage() -> None:
    j = replace(judged("false_alerts", "worse", 1.0, 0.1), difference=np.inf, low=np.inf, high=np.inf)
    assert clause(j) == "more false alerts, from none"


def test_primary_metrics_lead_and_what_follows_is_counted() -> None:
    rows = [judged("completeness_raw_20_up", "worse", -0.5, 0.01), judged("completeness_raw_8_10", "worse", -0.3, 0.01),
            judged("completeness_raw_5.5_8", "worse", -0.02, 0.01), judged("snr_rms", "worse", 0.1, 0.01),
            judged("wcs_rms", "worse", 0.1, 0.01), judged("duplicate_objects", "worse", 0.3, 0.01),
            judged("cpu.total", "better", -0.08, 0.01), judged("false_alerts", "better", -0.2, 0.05)]
    found = verdict(rows, NO_FLIPS, 12)
    assert found.word == "worse"
    assert found.sentence.startswith("Worse: 2 % fewer sources detected at S/N 5.5–8 (1–3); ")
    assert found.sentence.count("sources detected") == 1
    assert "; and 3 other metrics; but 20 % fewer false alerts (15–25); 8 % faster (7–9)." in found.sentence


def test_the_flow_that_dominates_is_told_and_a_small_one_is_not() -> None:
    rows = [judged("completeness_alerts_5.5_8", "worse", -0.02, 0.01)]
    heads = [without(BASE, MIDDLE, "own mask: SAT+INTRP", mask_at=mask.SAT | mask.INTRP), BASE]
    said = [verdict(rows, flips(*paired(BASE, head)[:2]), 12).sentence for head in heads]
    assert said[0].endswith(f"{MIDDLE.sum()} alerts now masked near bright stars.")
    assert said[1].endswith("at S/N 5.5–8 (1–3).")
    new = BASE.false.copy()
    new["alert"], new["stage"] = True, b""                                    # the stopped streaks are alerts
    sentence = verdict([judged("false_alerts", "worse", 0.5, 0.1)],
                       flips(*paired(BASE, replace(BASE, false=new))[:2]), 12).sentence
    assert sentence == "Worse: 50 % more false alerts (40–60), 12 of the new ones: streak."


def test_objects_that_changed_are_told() -> None:
    static = BASE.sources["kind"] != b"asteroid"
    head = changed(BASE, static & (SNR > 15), associated=False)
    found = flips(*paired(BASE, head)[:2])
    n = int((static & (SNR > 15)).sum())
    assert verdict([judged("association_accuracy", "worse", -0.2, 0.01)], found, 12).sentence == (
        f"Worse: association accuracy down from 100 % to 80 % (by 19–21 points), {n} alerts now in a duplicate object.")
    open_one = verdict([judged("association_accuracy", "undecided", -0.2, 0.3, needed=14)], found, 12).sentence
    assert open_one.endswith(f"; so far {n} alerts in wrong objects and 0 now in right ones.")
    back = flips(*paired(head, BASE)[:2])
    assert verdict([judged("association_accuracy", "better", 0.2, 0.01)], back, 12).sentence == (
        f"Better: association accuracy up from 100 % to 120 % (by 19–21 points), {n} alerts no longer in a duplicate "
        "object.")


def test_no_difference_says_how_small_a_one_could_have_been_seen() -> None:
    rows = [judged("completeness_raw_5.5_8", "equivalent", 0.001, 0.003), judged("cpu.total", "equivalent", 0.0, 0.02)]
    assert verdict(rows, NO_FLIPS, 12) == verdict(rows[::-1], NO_FLIPS, 12)
    assert verdict(rows, NO_FLIPS, 12).sentence == (
        "No difference that matters: the same completeness of detections at S/N 5.5–8 to 0.4 %; CPU time to 2 %.")
    equal = [judged("completeness_raw_5.5_8", "equivalent", 0.0, 0.003)]
    assert verdict(equal, NO_FLIPS, 12).sentence == "No difference: every source, alert and measurement is the same."


def test_what_changed_and_is_no_better_either_way_is_told() -> None:
    rows = [judged("completeness_raw_5.5_8", "equivalent", 0.001, 0.003), judged("alerts", "changed", 0.12, 0.04),
            judged("new_objects", "changed", -0.06, 0.01)]
    found = verdict(rows, NO_FLIPS, 12)
    assert found.word == "equivalent"
    assert found.sentence == ("No difference that matters: the same completeness of detections at S/N 5.5–8 to 0.4 %; "
                              "neither better nor worse: 12 % more alerts (8–16) and 1 other.")
    assert verdict([judged("alerts", "changed", 0.12, 0.04, primary=True)], NO_FLIPS, 12).word == "equivalent"


def test_undecided_says_what_it_would_take() -> None:
    rows = [judged("completeness_raw_5.5_8", "undecided", -0.004, 0.008, needed=26),
            judged("false_alerts", "undecided", 0.1, 0.3, needed=20, primary=True),
            judged("snr_rms", "undecided", 0.1, 0.3, needed=900)]              # nobody has to decide it
    assert verdict(rows, NO_FLIPS, 12).sentence == (
        "Undecided: false alerts may have changed by −20 to +40 %, 1 other by more than the margin too; about 14 more "
        "visits would tell.")
    never = [judged("completeness_raw_5.5_8", "undecided", -0.004, 0.008, needed=1_000_000)]
    assert "too few sources changed to foresee" in verdict(never, NO_FLIPS, 12).sentence
    assert verdict(rows[2:], NO_FLIPS, 12).sentence == "Undecided: no metric that decides has any data."


def test_worse_outweighs_undecided_and_better() -> None:
    rows = [judged("completeness_raw_5.5_8", "undecided", 0.0, 0.1, needed=30), judged("snr_rms", "worse", 0.1, 0.01),
            judged("false_alerts", "better", -0.5, 0.1)]
    assert verdict(rows, NO_FLIPS, 12).word == "worse"
    assert verdict(rows[::2], NO_FLIPS, 12).word == "undecided"
    assert verdict(rows[2:], NO_FLIPS, 12).word == "better"
