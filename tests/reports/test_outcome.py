import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reports.match import match
from reports.outcome import TABLES, Outcome, joined, located, of_baseline, of_run, tables
from reports.store import Store, StoreError
from schemas import mask
from schemas.measures import (
    EXPOSURE_LOG,
    FACT,
    PUBLICATION,
    REJECTION,
    STAR_TRUTH,
    STEP,
    TRACE,
    TRUTH,
    empty,
)
from schemas.table import DIA_FORCED_SOURCE, DIA_SOURCE
from tests.reports.maker import Knobs, make
from twin.recorder import ParquetRecorder

V1, V2, DETECTOR = 2027082100001, 2027082100002, 4
RA, DEC = 150.0, -30.0
#        truthId  kind          x     snr    ssObjectId
SKY = ((1, b"transient", 100.0, 30.0, 0), (2, b"variable", 200.0, 20.0, 0), (3, b"transient", 300.0, 10.0, 0),
       (4, b"asteroid", 400.0, 15.0, 77), (5, b"transient", 500.0, 6.0, 0), (6, b"transient", 600.0, 0.5, 0))
#         visit truthId diaObjectId ssObjectId; a negative truthId is false
FOUND = ((V1, 1, 11, 0), (V1, 2, 12, 0), (V1, 3, 11, 0), (V1, 4, 0, 77), (V1, -1, 15, 0),
         (V2, 1, 11, 0), (V2, 2, 13, 0), (V2, 4, 0, 0), (V2, -2, 15, 0), (V2, -3, 16, 0))


def place(x: float) -> tuple[float, float]:
    """A sky in which a pixel is 0.2" to the East."""
    return RA + x * 0.2 / 3600 / np.cos(np.radians(DEC)), DEC


def write(folder: Path, found: tuple[tuple[int, int, int, int], ...] = FOUND) -> Store:
    """Two visits of six true sources whose detections are at their places plus 0.5 px."""
    with ParquetRecorder(folder / "measures") as recorder:
        for visit in (V1, V2):
            recorder.append("truth", truth(visit))
            recorder.append("exposure_log", log(visit))
            star = empty(STAR_TRUTH, 2)
            star["visit"], star["detector"], star["starId"], star["found"] = visit, DETECTOR, [8, 9], [True, False]
            recorder.append("star", star)
            step = empty(STEP, 1)
            step["visit"], step["detector"], step["name"], step["cpu_s"] = visit, DETECTOR, b"detect", 0.25
            recorder.append("step", step)
            trace = empty(TRACE, 1)
            trace["visit"], trace["step"], trace["quantity"], trace["value"] = visit, b"detect", b"peaks", 5.0
            recorder.append("trace", trace)
        recorder.append("DiaSource", detections(found))
        recorder.append("DiaForcedSource", forced())
        recorder.append("rejection", rejection())
        sent = empty(PUBLICATION, len(found))
        sent["diaSourceId"], sent["visit"] = 1000 + np.arange(len(found)), [row[0] for row in found]
        recorder.append("publication", sent)
        facts = np.zeros(1, FACT)
        facts["key"], facts["value"] = b"scenario", b"by hand"
        recorder.append("fact", facts)
    return Store(folder)


def truth(visit: int) -> np.ndarray:
    rows = empty(TRUTH, len(SKY))
    rows["visit"], rows["detector"], rows["isolated"] = visit, DETECTOR, True
    for row, (truth_id, kind, x, snr, known) in zip(rows, SKY, strict=True):
        row["truthId"], row["kind"], row["x"], row["y"], row["snr"], row["flux"] = truth_id, kind, x, 50, snr, 100 * snr
        row["ssObjectId"] = known
        row["ra"], row["dec"] = place(x)
    rows["trail_length"], rows["mask_at"][2] = 0.0, mask.CR
    rows["significance_at"] = rows["snr"]
    return rows


def log(visit: int) -> np.ndarray:
    row = empty(EXPOSURE_LOG, 1)
    row["visit"], row["detector"], row["band"], row["status"] = visit, DETECTOR, b"r", b"done"
    row["fidelity"] = b"pixels"
    row["nx"] = row["ny"] = 1000
    return row


def detections(found: tuple[tuple[int, int, int, int], ...]) -> np.ndarray:
    rows = DIA_SOURCE.empty(len(found))
    places = {truth_id: x for truth_id, _, x, _, _ in SKY} | {-1: 800.0, -2: 800.0, -3: 900.0}
    fluxes = {truth_id: 100 * snr for truth_id, _, _, snr, _ in SKY}
    for i, (row, (visit, truth_id, held, known)) in enumerate(zip(rows, found, strict=True)):
        row["diaSourceId"], row["visit"], row["detector"] = 1000 + i, visit, DETECTOR
        row["diaObjectId"], row["ssObjectId"], row["midpointMjdTai"] = held, known, 61000.0 + (visit - V1)
        row["x"], row["y"] = places[truth_id] + 0.5, 50
        row["ra"], row["dec"] = place(places[truth_id] + 0.5)
        row["psfFlux"], row["snr"] = fluxes.get(truth_id, 700.0) + 5, 7.0
    rows["raErr"] = rows["decErr"] = 0.03 / 3600
    rows["psfFluxErr"], rows["scienceFluxErr"], rows["trailFlux"] = 100.0, 90.0, 321.0
    return rows


def forced() -> np.ndarray:
    """Of DIAObjects 11 (source 1), 13 (source 2), 15 (false)."""
    rows = DIA_FORCED_SOURCE.empty(3)
    rows["diaForcedSourceId"], rows["diaObjectId"], rows["visit"] = [1, 2, 3], [11, 13, 15], V2
    rows["detector"], rows["psfFlux"], rows["psfFluxErr"] = DETECTOR, [2950.0, 2100.0, 9.0], 100.0
    for row, x in zip(rows, (SKY[0][2], SKY[1][2] + 0.5, 800.0), strict=True):
        row["ra"], row["dec"] = place(x)
    return rows


def rejection() -> np.ndarray:
    row = empty(REJECTION, 1)
    row["visit"], row["detector"], row["id"], row["x"], row["y"] = V1, DETECTOR, 9, 500.0, 50.0
    row["ra"], row["dec"] = place(500.0)
    row["psfFlux"], row["snr"], row["stage"], row["reason"] = 600.0, 6.0, b"reliability", b"reliability"
    return row


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    return of_run(write(tmp_path / "run"), 41)


def of(outcome: Outcome, column: str, visit: int) -> dict[int, object]:
    rows = outcome.sources[outcome.sources["visit"] == visit]
    return dict(zip(rows["truthId"].tolist(), rows[column].tolist(), strict=True))


def test_each_true_source_has_its_detection_and_the_faintest_are_left_out(outcome: Outcome) -> None:
    assert of(outcome, "alert", V1) == {1: True, 2: True, 3: True, 4: True, 5: False}      # 6 has S/N 0.5
    assert of(outcome, "raw", V1) == {1: True, 2: True, 3: True, 4: True, 5: True}         # 5: reliability alone
    assert of(outcome, "alert", V2) == {1: True, 2: True, 3: False, 4: True, 5: False}
    assert of(outcome, "reason", V1)[5] == b"rejected: reliability"
    assert of(outcome, "reason", V2)[3] == b"own mask: CR"
    assert of(outcome, "clean", V1) == {1: True, 2: True, 3: False, 4: True, 5: True}
    assert set(outcome.sources["seed"]) == {41}
    assert set(outcome.sources["band"]) == {b"r"}
    assert outcome.sources["magnitude"][0] == pytest.approx(31.4 - 2.5 * np.log10(3000.0), abs=1e-5)


def test_positions_are_errors_on_the_sky(outcome: Outcome) -> None:
    found = outcome.sources[outcome.sources["alert"]]
    assert found["dra"] == pytest.approx(0.1, abs=1e-6)            # half a pixel of 0.2"
    assert found["ddec"] == pytest.approx(0.0, abs=1e-6)
    assert found["raErr"] == pytest.approx(0.03, rel=1e-6)
    missed = outcome.sources[~outcome.sources["raw"]]
    assert np.isnan(missed["dra"]).all()
    assert set(missed["diaSourceId"]) == {-1}


def test_what_only_the_prompt_table_knows_is_taken_from_it(outcome: Outcome) -> None:
    assert set(outcome.sources["scienceFluxErr"][outcome.sources["alert"]]) == {90.0}
    assert set(outcome.sources["trailFlux"][outcome.sources["alert"]]) == {321.0}
    assert np.isnan(outcome.sources["found_dipole_length"]).all()  # no MEASUREMENT in this run


def test_association_is_judged_by_the_object_that_holds_most_of_a_source(outcome: Outcome) -> None:
    assert of(outcome, "associated", V1) == {1: True, 2: True, 3: False, 4: True, 5: False}
    assert of(outcome, "associated", V2) == {1: True, 2: False, 3: False, 4: False, 5: False}
    assert of(outcome, "duplicate", V2) == {1: False, 2: True, 3: False, 4: False, 5: False}
    assert not any(of(outcome, "duplicate", V1).values())
    assert of(outcome, "merged", V1) == {1: False, 2: False, 3: True, 4: False, 5: False}
    assert of(outcome, "lone", V1) == {1: False, 2: True, 3: False, 4: False, 5: False}
    assert outcome.false["lone"].tolist() == [False, False, True]


def test_forced_fluxes_are_laid_against_the_truth_of_their_objects_source(outcome: Outcome) -> None:
    assert outcome.forced["truthId"].tolist() == [1, 2]            # object 15 is of no true source
    assert outcome.forced["flux"].tolist() == [3000.0, 2000.0]
    assert outcome.forced["psfFlux"].tolist() == [2950.0, 2100.0]
    assert outcome.forced["clean"].all()
    assert outcome.forced["offset_arcsec"] == pytest.approx([0.0, 0.1], abs=1e-5)     # the second is 0.5 px off


def test_false_detections_keep_their_cause(outcome: Outcome) -> None:
    assert outcome.false["cause"].tolist() == [b"noise"] * 3
    assert outcome.false["diaObjectId"].tolist() == [15, 15, 16]
    assert outcome.false["raw"].all()


def test_tables_of_the_run_are_kept_with_its_seed(outcome: Outcome) -> None:
    assert outcome.visits["status"].tolist() == [b"done", b"done"]
    assert outcome.steps["cpu_s"].tolist() == [0.25, 0.25]
    assert outcome.traces["value"].tolist() == [5.0, 5.0]
    assert outcome.stars["starId"].tolist() == [8, 9, 8, 9]
    assert all(set(getattr(outcome, name)["seed"]) == {41} for name in TABLES)
    assert outcome.facts == {"scenario": "by hand"}


def test_a_baseline_gives_back_what_was_kept(outcome: Outcome, tmp_path: Path) -> None:
    with ParquetRecorder(tmp_path / "baseline/measures") as recorder:
        for name, rows in tables(outcome).items():
            recorder.append(name, rows)
    again = of_baseline(Store(tmp_path / "baseline"))
    for name in TABLES:
        for column in getattr(outcome, name).dtype.names:
            np.testing.assert_array_equal(getattr(again, name)[column], getattr(outcome, name)[column])


def test_a_folder_without_a_log_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "measures").mkdir()
    with pytest.raises(StoreError, match="no table 'exposure_log'"):
        of_run(Store(tmp_path), 1)
    with pytest.raises(StoreError, match="no table 'seed_exposure_log'"):
        of_baseline(Store(tmp_path))


def test_a_run_that_lacks_the_sources_it_counts_is_refused(broken: Callable[[Knobs], Store], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(broken(Knobs()).folder, run)
    shutil.rmtree(run / "measures" / "DiaSource")
    with pytest.raises(StoreError, match=r"run: no table 'DiaSource', though the run's log counts [\d,]+ DIASources"):
        of_run(Store(run), 1)


def test_nights_are_joined_in_order(outcome: Outcome, tmp_path: Path) -> None:
    other = of_run(write(tmp_path / "other"), 42)
    both = joined([outcome, other])
    assert both.visits["seed"].tolist() == [41, 41, 42, 42]
    assert len(both.sources) == 2 * len(outcome.sources)
    assert set(both.folders) == {41, 42}
    with pytest.raises(ValueError, match="at least one"):
        joined([])


def test_a_made_night_counts_as_its_matches_do(broken: Callable[[Knobs], Store], tmp_path: Path) -> None:
    store = broken(Knobs())
    found, matches = of_run(store, 3), match(store)
    kept = ~(np.abs(matches.truth["snr"]) < 1)
    assert np.sum(found.sources["alert"]) == np.sum(matches.alerted & kept)
    assert np.sum(found.sources["raw"]) == np.sum(matches.raw & kept)
    assert len(found.false) == np.sum(matches.false)
    assert np.isfinite(found.sources["found_trail_length"]).any()  # from MEASUREMENT
    injected = of_run(Store(make(tmp_path / "real", visits=1, sources=50, kind="injected")), 3)
    assert set(injected.sources["kind"]) == {b"injected"}


def test_located_finds_the_first_equal_row_of_several_columns() -> None:
    wanted = [np.array([1, 1, 2]), np.array([b"a", b"c", b"a"])]
    among = [np.array([2, 1, 1, 1]), np.array([b"a", b"b", b"a", b"a"])]
    assert located(wanted, among).tolist() == [2, -1, 0]
    assert located(wanted, [c[:0] for c in among]).tolist() == [-1, -1, -1]
    assert located([c[:0] for c in wanted], among).tolist() == []
