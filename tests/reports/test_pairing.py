from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reports.outcome import TABLES, Outcome, joined, of_run
from reports.pairing import ComparisonError, paired, swapped
from reports.store import StoreError
from schemas.table import take
from tests.reports.test_outcome import V1, V2, write


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Two nights of two visits."""
    folder = tmp_path_factory.mktemp("sides")
    return joined([of_run(write(folder / str(seed)), seed) for seed in (41, 42)])


def changed(outcome: Outcome, table: str, change: Callable[[np.ndarray], np.ndarray | None]) -> Outcome:
    """The outcome with a copy of one table changed, in place or exchanged."""
    rows = getattr(outcome, table).copy()
    found = change(rows)
    return replace(outcome, **{table: rows if found is None else found})


def setting(column: str, value: object, which: object = 0) -> Callable[[np.ndarray], None]:
    def change(rows: np.ndarray) -> None:
        rows[column][which] = value
    return change


def without(which: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rows: take(rows, ~which(rows))


def same(a: Outcome, b: Outcome) -> bool:
    return (all(getattr(a, n).tobytes() == getattr(b, n).tobytes() for n in TABLES)
            and all(np.array_equal(a.units[n], b.units[n]) and np.array_equal(a.objects[n], b.objects[n])
                    for n in TABLES) and all(np.array_equal(a.common[n], b.common[n]) for n in a.common))


def test_a_side_against_itself_is_the_same_twice(side: Outcome) -> None:
    base, head, units = paired(side, side)
    assert same(base, head)
    assert units.n == 4
    assert units.seed.tolist() == [41, 41, 42, 42]
    assert units.visit.tolist() == [V1, V2, V1, V2]
    assert units.detectors.tolist() == [1, 1, 1, 1]


def test_another_order_of_rows_changes_nothing(side: Outcome) -> None:
    rng = np.random.default_rng(3)
    mixed = replace(side, **{n: take(getattr(side, n), rng.permutation(len(getattr(side, n))))
                             for n in TABLES if n not in ("false", "packets")})
    base, head, _ = paired(side, mixed)
    for name in ("sources", "visits", "steps", "forced", "stars"):
        assert getattr(base, name).tobytes() == getattr(head, name).tobytes()


def test_true_sources_share_an_object_over_visits_and_not_over_seeds(side: Outcome) -> None:
    base, _, _ = paired(side, side)
    rows, objects = base.sources, base.objects["sources"]
    pairs = {(int(r["seed"]), int(r["truthId"])): set() for r in rows}
    for row, index in zip(rows, objects.tolist(), strict=True):
        pairs[int(row["seed"]), int(row["truthId"])].add(index)
    assert all(len(found) == 1 for found in pairs.values())
    assert len(set(objects.tolist())) == len(pairs) == 10
    forced = dict(zip(zip(base.forced["seed"].tolist(), base.forced["truthId"].tolist(), strict=True),
                      base.objects["forced"].tolist(), strict=True))
    assert {key: {index} for key, index in forced.items()} == {key: pairs[key] for key in forced}
    others = np.concatenate([base.objects["false"], base.objects["stars"]])
    assert not set(others.tolist()) & set(objects.tolist())
    assert set(base.objects["visits"]) == {-1}
    assert len(set(base.objects["stars"].tolist())) == 4


def test_false_detections_within_1_5_arcsec_are_one_place(side: Outcome) -> None:
    moved = changed(side, "false", setting("ra", side.false["ra"][0] + 1.2 / 3600 / np.cos(np.radians(30))))
    base, head, _ = paired(side, moved)
    assert base.objects["false"].tolist()[:3] == head.objects["false"].tolist()[:3]
    assert base.objects["false"][0] == base.objects["false"][1] != base.objects["false"][2]
    far = changed(side, "false", setting("ra", side.false["ra"][0] + 1.8 / 3600 / np.cos(np.radians(30))))
    base, head, _ = paired(side, far)
    assert base.objects["false"][0] != head.objects["false"][0]
    seeds = [set(base.objects["false"][base.false["seed"] == seed].tolist()) for seed in (41, 42)]
    assert not seeds[0] & seeds[1]


def test_common_masks_hold_what_both_sides_have(side: Outcome) -> None:
    lost = changed(side, "sources", lambda rows: setting("alert", False)(rows) or setting("found_snr", np.nan)(rows))
    base, head, _ = paired(side, lost)
    assert base.sources["alert"][0]
    assert not base.common["alert"][0]
    assert np.array_equal(base.common["found"], head.common["found"])
    assert base.common["alert"].sum() == side.sources["alert"].sum() - 1
    failed = changed(side, "visits", setting("status", b"failed"))
    base, head, _ = paired(side, failed)
    assert base.common["visits"].tolist() == head.common["visits"].tolist() == [False, True, True, True]
    fewer = changed(side, "forced", lambda rows: rows[1:])
    base, head, _ = paired(side, fewer)
    assert base.common["forced"].tolist() == [False, True, True, True]
    assert head.common["forced"].tolist() == [True, True, True]


def test_denominators_are_the_same_on_both_sides(side: Outcome) -> None:
    uncovered = changed(side, "sources", setting("judged", False))
    base, head, _ = paired(side, uncovered)
    assert np.array_equal(base.sources["judged"], head.sources["judged"])
    assert head.sources["judged"][0]


def test_swapped_visits_exchange_their_rows_and_back(side: Outcome) -> None:
    lost = changed(side, "sources", setting("alert", False, slice(None)))
    lost = changed(lost, "false", lambda rows: rows[2:])
    base, head, units = paired(side, lost)
    chosen = np.array([True, False, False, True])
    a, b = swapped(base, head, chosen)
    in_chosen = chosen[a.units["sources"]]
    assert not a.sources["alert"][in_chosen].any()
    assert np.array_equal(a.sources["alert"][~in_chosen], base.sources["alert"][~in_chosen])
    assert np.array_equal(b.sources["alert"][in_chosen], base.sources["alert"][in_chosen])
    assert len(a.false) + len(b.false) == len(base.false) + len(head.false)
    assert same(swapped(a, b, chosen)[0], base)
    assert same(swapped(a, b, chosen)[1], head)
    assert same(swapped(base, head, np.zeros(units.n, bool))[0], base)
    assert same(swapped(base, head, np.ones(units.n, bool))[0], head)
    with pytest.raises(ValueError, match="laid side by side"):
        swapped(side, side, chosen)


@pytest.mark.parametrize(("table", "change", "message"), [
    ("sources", setting("flux", 3001.0), r"other truth: flux of seed 41, visit 2027082100001, detector 4, truthId 1 is "
     r"3000 on the base side, 3001 on the head side \(1 of 20 differ\)"),
    ("sources", setting("kind", b"agn", 2), "kind of seed 41, visit 2027082100001, detector 4, truthId 3 is transient"),
    ("sources", setting("ra", 151.0, 2), "ra of seed 41.*truthId 3 is 150.0192"),
    ("sources", lambda rows: rows[1:], r"seed 41, visit 2027082100001, detector 4, truthId 1 is on the base side only "
     r"\(1 of 20"),
    ("sources", lambda rows: rows[:0], "the head side has no table truth or injection"),
    ("sources", lambda rows: np.concatenate([rows, rows[:1]]), "the head side: truth has seed 41, visit 2027082100001, "
     "detector 4, truthId 1 more than once"),
    ("false", setting("diaSourceId", 1000), "the head side: DiaSource has seed 41, diaSourceId 1000 more than once"),
    ("visits", lambda rows: rows[1:], "seed 41, visit 2027082100001, detector 4 is on the base side only"),
    ("visits", lambda rows: rows[:2], "seed 42 is on the base side only"),
    ("visits", lambda rows: np.concatenate([rows, rows[:1]]), "exposure_log has seed 41.*more than once"),
    ("visits", lambda rows: rows[:0], "the head side has no table exposure_log"),
    ("visits", setting("fidelity", b"catalogue"), "other fidelity: seed 41, visit 2027082100001, detector 4 is of "
     "pixels on the base side, of catalogue on the head side"),
])
def test_sides_that_cannot_be_compared_end_in_one_line(side: Outcome, table: str, message: str,
                                                       change: Callable[[np.ndarray], np.ndarray | None]) -> None:
    with pytest.raises(ComparisonError, match=message) as caught:
        paired(side, changed(side, table, change))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, StoreError)
    with pytest.raises(ComparisonError):
        paired(changed(side, table, change), side)


def test_simulated_and_real_data_are_not_compared(side: Outcome) -> None:
    with pytest.raises(ComparisonError, match="other data: simulated on the base side, production on the head side"):
        paired(replace(side, facts={"kind": "simulated"}), replace(side, facts={"kind": "production"}))


def test_rounding_of_the_truth_is_no_difference(side: Outcome) -> None:
    other = changed(side, "sources", lambda rows: setting("flux", 3000.0 * (1 + 1e-9))(rows) or setting(
        "snr", np.float32(30.0001))(rows))
    base, head, _ = paired(side, other)
    assert head.sources["snr"][0] == base.sources["snr"][0] == 30.0


def test_injected_sources_are_planned_by_each_side(side: Outcome) -> None:
    ours = changed(side, "sources", setting("kind", b"injected", slice(None)))
    theirs = changed(ours, "sources", setting("flux", 3040.0))
    _, head, _ = paired(ours, theirs)
    assert head.sources["flux"][0] == 3040.0                       # judged by what it injected itself
    with pytest.raises(ComparisonError, match="flux"):
        paired(ours, changed(ours, "sources", setting("flux", 3300.0)))


def test_a_detector_visit_that_failed_on_one_side_is_a_difference_and_no_error(side: Outcome) -> None:
    def fail(rows: np.ndarray) -> None:
        rows["status"][0], rows["reason"][0] = b"timeout", b"not done after 900 s"

    def first(rows: np.ndarray) -> np.ndarray:
        return (rows["visit"] == V1) & (rows["seed"] == 41)

    head = changed(changed(side, "visits", fail), "sources", without(first))
    head = changed(head, "false", without(first))
    a, b, _ = paired(side, head)
    assert np.array_equal(a.sources["truthId"], b.sources["truthId"])
    filled = b.sources[b.units["sources"] == 0]
    assert not filled["alert"].any() | filled["raw"].any()
    assert set(filled["reason"]) == {b"failed step: not done after 900 s"}
    assert filled["judged"].tolist() == a.sources["judged"][a.units["sources"] == 0].tolist()
    assert not b.common["clean"][b.units["sources"] == 0].any()
    paired(head, side)


def test_a_catalogue_is_comparable_on_what_it_has(side: Outcome) -> None:
    bare = replace(side, **{n: getattr(side, n)[:0] for n in ("forced", "stars", "steps", "traces", "packets")})
    base, head, units = paired(side, bare)
    assert units.n == 4
    assert len(head.steps) == 0
    assert not base.common["steps"].any()
    assert head.sources["alert"].sum() == base.sources["alert"].sum()


def test_steps_timed_on_other_visits_have_units_of_their_own(side: Outcome) -> None:
    timed = changed(side, "steps", setting("seed", 99, slice(None)))
    timed = changed(timed, "steps", setting("measured", True, slice(None)))
    timed = changed(timed, "steps", lambda rows: rows[:2])
    base, _, units = paired(timed, timed)
    assert units.n == 6
    assert base.units["steps"].tolist() == [4, 5]
    assert base.common["steps"].all()
    assert units.detectors.tolist() == [1, 1, 1, 1, 0, 0]


def test_a_night_without_truth_is_laid_against_itself(tmp_path: Path, side: Outcome) -> None:
    bare = changed(side, "sources", lambda rows: rows[:0])
    bare = replace(bare, forced=bare.forced[:0])
    base, head, _ = paired(bare, bare)
    assert len(base.sources) == len(head.sources) == 0
    assert base.objects["false"].min() == 4                        # after four stars
