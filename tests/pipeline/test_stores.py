"""One battery for every prompt store."""

import duckdb
import numpy as np
import pytest

from pipeline.errors import InputError, NonRetriableError
from pipeline.open import open_store
from pipeline.ports import SaveRequest
from schemas.exposure import Box
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE, SUMMARY, join
from tests.pipeline.stores import EVERYWHERE, forced_of, objects_at, request, segment, sources_of
from tests.strategies import random_rows


def test_a_new_store_is_empty(store):
    assert len(store.objects(EVERYWHERE)) == 0
    assert len(store.history(np.array([1, 2]), 0.0, 1e9)) == 0
    assert len(store.history(np.array([], int), 0.0, 1e9)) == 0
    assert store.unsent() == []
    assert not store.contains(1, 2)
    assert store.table("DiaSource").dtype == DIA_SOURCE.dtype
    assert len(store.table("SSObject")) == 0
    with pytest.raises(KeyError, match="no table 'Nothing'"):
        store.table("Nothing")


def test_what_was_saved_comes_back_unchanged(store):
    rng = np.random.default_rng(5)
    sources = random_rows(DIA_SOURCE, 30, rng)
    sources["diaSourceId"] = np.arange(30)
    ss_sources = random_rows(SS_SOURCE, 4, rng)
    ss_sources["diaSourceId"] = np.arange(4)
    objects = random_rows(DIA_OBJECT, 20, rng)
    objects["diaObjectId"] = np.arange(20) + 1
    forced = random_rows(DIA_FORCED_SOURCE, 20, rng)
    forced["diaObjectId"] = np.arange(20) + 1
    row = random_rows(SUMMARY, 1, rng)
    row["visit"], row["detector"] = 7, 3
    store.save(SaveRequest(7, 3, objects, sources, forced, ss_sources, row), segment(7, 3))
    for name, rows in (("DiaObject", objects), ("DiaSource", sources), ("DiaForcedSource", forced),
                       ("SSSource", ss_sources), ("DetectorVisitProcessingSummary", row)):
        found = store.table(name)
        for column in rows.dtype.names:
            np.testing.assert_array_equal(found[column], rows[column], err_msg=f"{name}.{column}")
    assert store.contains(7, 3)
    assert not store.contains(7, 4)


def test_objects_lie_in_the_box_even_across_ra_zero(store):
    store.save(request(1, objects=objects_at([1, 2, 3, 4], [359.9, 0.1, 1.0, 0.05], [0.0, 0.0, 0.0, 5.0], 10.0)),
               segment(1))
    assert sorted(store.objects(Box(359.5, 0.5, -1.0, 1.0))["diaObjectId"]) == [1, 2]
    assert sorted(store.objects(Box(0.0, 0.5, -1.0, 6.0))["diaObjectId"]) == [2, 4]


def test_a_new_version_closes_the_old_one_and_the_latest_is_found(store):
    store.save(request(1, objects=objects_at([1, 2], [10.0, 11.0], [0.0, 0.0], 100.0)), segment(1))
    store.save(request(2, objects=objects_at([1], [10.5], [0.0], 101.0)), segment(2))
    store.save(request(3, objects=objects_at([1], [10.7], [0.0], 102.0)), segment(3))
    found = np.sort(store.objects(EVERYWHERE), order="diaObjectId")
    assert found["ra"].tolist() == [10.7, 11.0]
    assert np.isnan(found["validityEndMjdTai"]).all()
    versions = store.table("DiaObject")
    of_one = versions[versions["diaObjectId"] == 1]
    np.testing.assert_array_equal(of_one["validityEndMjdTai"], [101.0, 102.0, np.nan])
    assert len(store.objects(Box(9.9, 10.1, -1.0, 1.0))) == 0     # the old position is no longer valid


def test_a_version_is_saved_once(store):
    store.save(request(1, objects=objects_at([1], [10.0], [0.0], 100.0)), segment(1))
    with pytest.raises(NonRetriableError, match="already in the store"):
        store.save(request(2, objects=objects_at([1], [11.0], [0.0], 100.0)), segment(2))
    assert store.objects(EVERYWHERE)["ra"].tolist() == [10.0]


def test_until_shows_the_objects_of_an_earlier_time(store):
    store.save(request(1, objects=objects_at([1, 2], [10.0, 11.0], [0.0, 0.0], 100.0)), segment(1))
    store.save(request(2, objects=objects_at([1, 3], [10.5, 12.0], [0.0, 0.0], 101.0)), segment(2))
    def positions(until):
        return sorted(store.objects(EVERYWHERE, until)["ra"].tolist())
    assert positions(99.0) == []
    assert positions(100.0) == [10.0, 11.0]
    assert positions(100.9) == [10.0, 11.0]
    assert positions(101.0) == [10.5, 11.0, 12.0]
    assert positions(None) == [10.5, 11.0, 12.0]


def test_history_is_of_the_objects_asked_in_time_order_and_stops_before_until(store):
    for visit, time in ((1, 103.0), (2, 101.0), (3, 102.0)):
        store.save(request(visit, sources=sources_of(np.arange(3) + visit * 10, [5, 6, 0], time),
                           forced=forced_of([5, 6], visit, time + 0.5)), segment(visit))
    found = store.history(np.array([5, 5, 99]), 101.0, 103.0)
    assert found.sources["diaSourceId"].tolist() == [20, 30]
    assert found.sources["midpointMjdTai"].tolist() == [101.0, 102.0]
    assert found.forced["midpointMjdTai"].tolist() == [101.5, 102.5]
    assert set(found.forced["diaObjectId"]) == {5}
    assert len(found) == 4
    both = store.history(np.array([6, 5]), 0.0, 1e9).sources
    assert both["midpointMjdTai"].tolist() == [101.0, 101.0, 102.0, 102.0, 103.0, 103.0]


def test_a_detector_visit_is_saved_once(store):
    store.save(request(1, 4, sources=sources_of([1], [9], 1.0)), segment(1, 4, 2))
    for again in (request(1, 4), request(1, 4, sources=sources_of([2], [9], 1.0))):
        with pytest.raises(NonRetriableError, match="visit 1 detector 4 is already in the store"):
            store.save(again, segment(1, 4, 3))
    with pytest.raises(NonRetriableError, match="already in the store"):
        store.save(request(2, 4, sources=sources_of([1], [9], 1.0)), segment(2, 4))
    assert len(store.table("DiaSource")) == 1
    assert not store.contains(2, 4)
    assert [len(found) for found in store.unsent()] == [2]


def test_a_refused_save_leaves_no_trace(store):
    store.save(request(1, objects=objects_at([1], [10.0], [0.0], 100.0), sources=sources_of([1], [1], 1.0)), segment(1))
    bad = request(2, objects=objects_at([1, 2], [20.0, 21.0], [0.0, 0.0], 101.0), sources=sources_of([1], [1], 1.0))
    with pytest.raises(NonRetriableError):
        store.save(bad, segment(2, 0, 3))
    assert store.objects(EVERYWHERE)["ra"].tolist() == [10.0]
    assert np.isnan(store.objects(EVERYWHERE)["validityEndMjdTai"]).all()
    assert store.unsent() == []
    store.save(request(2, sources=sources_of([2], [1], 1.0)), segment(2, 0, 1))
    assert store.contains(2, 0)


def test_rows_of_the_wrong_table_are_refused(store):
    with pytest.raises(TypeError, match="DiaObject rows expected"):
        store.save(request(1, objects=DIA_SOURCE.empty(1)), segment(1))
    assert not store.contains(1, 0)


def test_the_outbox_gives_packets_in_order_until_they_are_marked(store):
    sent = [segment(visit, detector, n) for visit, detector, n in ((1, 0, 3), (1, 1, 0), (2, 0, 40), (3, 5, 1))]
    for one in sent:
        store.save(request(one.visit, one.detector), one)
    waiting = store.unsent()
    assert [(found.visit, found.detector) for found in waiting] == [(1, 0), (2, 0), (3, 5)]
    for found, put in zip(waiting, [sent[0], sent[2], sent[3]], strict=True):
        assert found.packets == put.packets
        assert found.ids.tolist() == put.ids.tolist()
    store.mark_sent(waiting[1])
    assert [(found.visit, found.detector) for found in store.unsent()] == [(1, 0), (3, 5)]
    store.mark_sent(waiting[1])          # twice is harmless


def test_thousands_of_objects_have_their_history_quickly(store):
    """A crowded detector: 2000 objects of 6 visits; the answer is complete."""
    owners = np.arange(2000) + 1
    for visit in range(6):
        store.save(request(visit, sources=sources_of(owners + visit * 10_000, owners, float(visit))), segment(visit))
    found = store.history(owners[::2], 1.0, 5.0).sources
    assert len(found) == 1000 * 4
    assert (np.diff(found["midpointMjdTai"]) >= 0).all()


def test_duckdb_keeps_everything_across_processes(tmp_path):
    url = f"duckdb:{tmp_path / 'night.db'}"
    first = open_store(url)
    first.save(request(1, objects=objects_at([1], [10.0], [0.0], 100.0)), segment(1, 0, 3))
    first.close()
    second = open_store(url)
    assert second.contains(1, 0)
    assert second.unsent()[0].packets == segment(1, 0, 3).packets
    second.save(request(2), segment(2, 0, 2))
    second.mark_sent(second.unsent()[0])
    assert second.unsent()[0].packets == segment(2, 0, 2).packets
    second.close()


def test_bytes_of_a_save_that_never_committed_are_not_sent(tmp_path):
    store = open_store(f"duckdb:{tmp_path / 'night.db'}")
    store.save(request(1), segment(1, 0, 3))
    with pytest.raises(NonRetriableError):
        store.save(request(1), segment(1, 0, 5))
    store.save(request(2), segment(2, 0, 4))
    assert [found.packets for found in store.unsent()] == [segment(1, 0, 3).packets, segment(2, 0, 4).packets]
    store.close()


def test_a_store_of_another_schema_is_refused(tmp_path):
    path = tmp_path / "night.db"
    open_store(f"duckdb:{path}").close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE schema_version SET version = '9.9.9'")
    with pytest.raises(NonRetriableError, match=r"schema version 9\.9\.9, this program has 10\.0\.0"):
        open_store(f"duckdb:{path}")


@pytest.mark.parametrize(("url", "message"), [
    ("sqlite:x.db", "prompt store 'sqlite:x.db': expected duckdb:path, postgresql://... or memory:"),
    ("duckdb:", "expected duckdb:path, postgresql://... or memory:"),
    ("memory", "expected duckdb:path, postgresql://... or memory:"),
    ("duckdb:/no/such/folder/x.db", "there is no folder /no/such/folder"),
    ("postgresql:x", "expected duckdb:path, postgresql://... or memory:"),
    ("postgresql://me:secret@host/db", r"'postgresql://me@host/db': expected postgresql://user@host:port/database\?pack"),
    ("postgresql://host/db?packets=/no/such/folder/x", "there is no folder /no/such/folder"),
])
def test_an_unknown_store_is_refused_by_name(url, message):
    with pytest.raises(InputError, match=message):
        open_store(url)


@pytest.mark.bench
@pytest.mark.parametrize("url", ["memory:", "duckdb:"])
def test_saving_a_detector_visit(benchmark, tmp_path, url):
    opened = open_store(url + (str(tmp_path / "b.db") if url == "duckdb:" else ""))
    visits = iter(range(100_000))

    def save():
        visit = next(visits)
        owners = np.arange(300) + 1
        opened.save(request(visit, objects=objects_at(owners, 1.0, 1.0, float(visit)),
                            sources=sources_of(owners + visit * 1000, owners, float(visit))), segment(visit, 0, 200))

    benchmark.pedantic(save, rounds=20)
    assert len(opened.table("DiaSource")) == 6000
    assert len(opened.objects(EVERYWHERE)) == 300
    opened.close()


def test_join_of_histories_keeps_dtype(store):
    found = store.history(np.array([1]), 0.0, 1.0)
    assert join([found.sources, found.sources]).dtype == DIA_SOURCE.dtype
