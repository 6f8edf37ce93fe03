"""What the morning changes in a prompt database, one battery for every backend."""

import numpy as np
import pytest

from pipeline.errors import NonRetriableError
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, take
from schemas.updates import chunk_of
from tests.pipeline.stores import EVERYWHERE, forced_of, objects_at, request, segment, sources_of

MORNING = 60010.5


@pytest.fixture
def filled(store):
    """Objects 1 and 2 are one star, seen in two visits each; object 3 is another."""
    for visit, owner in ((1, 1), (2, 2), (3, 1), (4, 2)):
        time = 60000.0 + visit
        objects = objects_at([owner, 3], [10.0 + owner / 1e4, 20.0], [0.0, 0.0], time)
        objects["nDiaSources"] = 1 + visit // 3
        sources = sources_of([visit * 10, visit * 10 + 1], [owner, 3], time)
        sources["timeWithdrawnMjdTai"] = np.nan
        sources["timeProcessedMjdTai"] = time + 0.001
        forced = forced_of([owner, 3], visit, time)
        forced["timeProcessedMjdTai"] = time + 0.002
        store.save(request(visit, objects=objects, sources=sources, forced=forced), segment(visit))
    return store


def of(store, name, column, value):
    rows = store.table(name)
    return take(rows, rows[column] == value)


def kinds(store):
    return [kind.decode() for kind in store.updates()["updateType"].tolist()]


def test_duplicates_are_merged_as_the_morning_does(filled):
    moved = filled.sources_of([2])
    assert moved["diaSourceId"].tolist() == [20, 40]
    filled.reassign_sources(moved["diaSourceId"], np.array([1, 1]), MORNING)
    assert filled.set_validity_end(np.array([2]), MORNING) == 1
    filled.set_deduplicated(MORNING)
    assert filled.sources_of([1])["diaSourceId"].tolist() == [10, 20, 30, 40]
    assert filled.history(np.array([1, 2]), 0.0, 1e9).sources["diaObjectId"].tolist() == [1] * 4
    assert filled.objects(EVERYWHERE)["diaObjectId"].tolist() == [1, 3]
    assert filled.objects_of([1, 2])["nDiaSources"].tolist() == [4]
    closed = of(filled, "DiaObject", "diaObjectId", 2)
    assert closed["validityEndMjdTai"].tolist() == [60004.0, MORNING]
    assert filled.last_deduplication() == MORNING
    assert kinds(filled) == ["reassign_diasource_to_diaobject"] * 2 + ["update_n_dia_sources"] * 2 \
        + ["close_diaobject_validity"]
    records = filled.updates()
    assert records["updateOrder"].tolist() == [0, 1, 2, 3, 4]
    assert records["diaSourceId"].tolist()[:2] == [20, 40]
    assert records["diaObjectId"].tolist() == [1, 1, 1, 2, 2]
    assert records["nDiaSources"].tolist()[2:4] == [4, 0]
    assert records["validityEndMjdTai"][4] == MORNING
    assert set(records["chunk"]) == {chunk_of(MORNING)}
    assert (records["updateTimeMjdTai"] == MORNING).all()


def test_a_source_goes_to_a_solar_system_object(filled):
    filled.reassign_sources_to_ss(np.array([20]), np.array([77]), MORNING)
    row = of(filled, "DiaSource", "diaSourceId", 20)[0]
    assert (row["diaObjectId"], row["ssObjectId"], row["ssObjectReassocTimeMjdTai"]) == (0, 77, MORNING)
    assert filled.sources_of([2])["diaSourceId"].tolist() == [40]
    assert filled.objects_of([2])["nDiaSources"].tolist() == [1]
    assert kinds(filled) == ["reassign_diasource_to_ssobject", "update_n_dia_sources"]
    assert filled.updates()["ssObjectId"][0] == 77


def test_forced_points_move_but_where_the_new_owner_has_one(filled):
    stay = filled.reassign_forced(np.array([200, 201, 300]), np.array([1, 1, 3]), MORNING)
    assert stay.tolist() == [201, 300]       # 1 has then a point of visit 2; 3 has one of visit 3
    assert filled.forced_of([1])["diaForcedSourceId"].tolist() == [100, 200, 300]
    assert filled.forced_of([2])["diaForcedSourceId"].tolist() == [400]
    assert kinds(filled) == ["reassign_diaforcedsource_to_diaobject"]
    record = filled.updates()[0]
    assert (record["diaForcedSourceId"], record["diaObjectId"], record["visit"], record["detector"]) == (200, 1, 2, 0)


def test_withdrawn_rows_say_when_and_only_once(filled):
    filled.withdraw_sources(np.array([10, 11]), MORNING)
    filled.withdraw_sources(np.array([11, 20]), MORNING + 1.0)
    times = {row["diaSourceId"]: row["timeWithdrawnMjdTai"] for row in filled.table("DiaSource")}
    assert (times[10], times[11], times[20]) == (MORNING, MORNING, MORNING + 1.0)
    assert np.isnan(times[21])
    filled.withdraw_forced(np.array([100]), MORNING)
    assert of(filled, "DiaForcedSource", "diaForcedSourceId", 100)["timeWithdrawnMjdTai"].tolist() == [MORNING]
    assert kinds(filled) == ["withdraw_diasource"] * 3 + ["withdraw_diaforcedsource"]
    assert filled.updates()["diaSourceId"].tolist()[:3] == [10, 11, 20]
    assert filled.history(np.array([1]), 0.0, 1e9).sources["timeWithdrawnMjdTai"][0] == MORNING


def test_counts_are_set_on_current_versions(filled):
    filled.update_n_dia_sources(np.array([3, 1]), np.array([7, 8]), MORNING)
    assert filled.objects_of([1, 3])["nDiaSources"].tolist() == [8, 7]
    assert of(filled, "DiaObject", "diaObjectId", 1)["nDiaSources"].tolist() == [1, 8]
    assert filled.updates()["nDiaSources"].tolist() == [8, 7]


def test_new_versions_and_forced_points_come_without_a_visit(filled):
    filled.save_objects(objects_at([1, 9], [10.5, 11.0], [1.0, 1.0], MORNING), MORNING)
    assert filled.objects_of([1])["ra"].tolist() == [10.5]
    assert of(filled, "DiaObject", "diaObjectId", 1)["validityEndMjdTai"].tolist()[:2] == [60003.0, MORNING]
    with pytest.raises(NonRetriableError):
        filled.save_objects(objects_at([1, 10], [10.5, 11.0], [1.0, 1.0], MORNING), MORNING)
    assert 10 not in filled.objects(EVERYWHERE)["diaObjectId"]
    before = forced_of([3], 90, 59990.0)
    filled.save_forced(before, MORNING)
    assert filled.forced_of([3])["midpointMjdTai"].tolist() == [59990.0, 60001.0, 60002.0, 60003.0, 60004.0]
    with pytest.raises(NonRetriableError):
        filled.save_forced(before, MORNING)
    assert len(filled.forced_of([3])) == 5
    assert len(filled.updates()) == 0


def test_objects_since_are_the_current_versions_written_then(filled):
    assert filled.objects_since(60003.0)["diaObjectId"].tolist() == [1, 2, 3]
    assert filled.objects_since(60003.5)["diaObjectId"].tolist() == [2, 3]
    assert filled.last_deduplication() == -np.inf
    filled.set_validity_end([2], MORNING)
    assert filled.objects_since(0.0)["diaObjectId"].tolist() == [1, 3]
    assert filled.set_validity_end([2, 99], MORNING) == 0


def test_rows_of_objects_stop_before_until(filled):
    assert filled.sources_of([1, 2], 60003.0)["diaSourceId"].tolist() == [10, 20]
    assert filled.forced_of([1, 2], 60003.0)["diaForcedSourceId"].tolist() == [100, 200]
    assert filled.sources_of([], 60003.0).dtype == DIA_SOURCE.dtype
    assert filled.forced_of([55]).dtype == DIA_FORCED_SOURCE.dtype
    assert filled.objects_of([]).dtype == DIA_OBJECT.dtype


@pytest.mark.parametrize("refused", [
    lambda store: store.reassign_sources(np.array([20, 999]), np.array([1, 1]), MORNING),
    lambda store: store.reassign_sources(np.array([20]), np.array([555]), MORNING),
    lambda store: store.reassign_sources_to_ss(np.array([20, 999]), np.array([1, 1]), MORNING),
    lambda store: store.reassign_forced(np.array([200, 999]), np.array([1, 1]), MORNING),
    lambda store: store.withdraw_sources(np.array([10, 999]), MORNING),
    lambda store: store.withdraw_forced(np.array([100, 999]), MORNING),
    lambda store: store.update_n_dia_sources(np.array([1, 555]), np.array([1, 1]), MORNING),
    lambda store: store.set_validity_end(np.array([1]), 60000.0),
])
def test_what_is_not_in_the_store_is_refused_and_nothing_changes(filled, refused):
    names = ("DiaObject", "DiaSource", "DiaForcedSource")
    before, chunks = [filled.table(name).tobytes() for name in names], filled.chunks()
    with pytest.raises(NonRetriableError, match=r"999|555|60000\.0"):
        refused(filled)
    assert [filled.table(name).tobytes() for name in names] == before
    assert len(filled.updates()) == 0
    assert filled.chunks() == chunks


def test_ids_and_values_come_in_pairs(filled):
    with pytest.raises(ValueError, match="one value for each DiaSource"):
        filled.reassign_sources(np.array([20, 40]), np.array([1]), MORNING)
    with pytest.raises(ValueError, match="distinct DiaSource ids"):
        filled.reassign_sources(np.array([20, 20]), np.array([1, 1]), MORNING)


def test_rows_belong_to_the_chunk_of_their_save(filled):
    chunks = filled.chunks()
    assert [chunk.id for chunk in chunks] == [chunk_of(60000.0 + visit + 0.002) for visit in (1, 2, 3, 4)]
    assert filled.chunk_rows(chunks[1].id, "DiaSource")["diaSourceId"].tolist() == [20, 21]
    assert filled.chunk_rows(chunks[1].id, "DiaObject")["diaObjectId"].tolist() == [2, 3]
    assert filled.chunk_rows(chunks[1].id, "DiaForcedSource")["visit"].tolist() == [2, 2]
    assert filled.chunk_rows(chunks[1].id, "DetectorVisitProcessingSummary")["visit"].tolist() == [2]
    assert len(filled.chunk_rows(12345, "DiaSource")) == 0
    filled.withdraw_sources(np.array([20]), 60002.0021)
    again = filled.chunks()
    assert again[1].id == chunks[1].id
    assert again[1].unique_id != chunks[1].unique_id
    assert again[1].last_update_mjd_tai == 60002.0021
    assert [chunk for chunk in again if chunk.id != chunks[1].id] == [*chunks[:1], *chunks[2:]]
    assert filled.updates(chunks[1].id)["diaSourceId"].tolist() == [20]
    assert len(filled.updates(chunks[0].id)) == 0
