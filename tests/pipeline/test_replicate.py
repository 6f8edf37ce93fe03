"""Replication to the PPDB: the real lag rules, and the same tables in the end however often it was interrupted."""

import shutil

import numpy as np
import pytest

from pipeline import replicate
from pipeline.errors import InputError, NonRetriableError
from pipeline.lookup import cone, light_curve
from pipeline.ports import ReplicaChunk
from pipeline.ppdb import Copied, Ppdb
from pipeline.replicate import due, poll, polls
from pipeline.stores.memory import MemoryStore
from schemas.table import take
from schemas.updates import chunk_of, chunk_start_mjd_tai
from tests.pipeline.stores import EVERYWHERE, forced_of, objects_at, request, segment, sources_of

TABLES = ("DiaObject", "DiaSource", "DiaForcedSource")
NIGHT, MINUTE = 60000.0, 1 / 1440
MORNING = NIGHT + 0.5


def visit(store, k, time, ids=(1, 2, 3)):
    ids = np.array(ids)
    objects = objects_at(ids, 10.0 + ids / 100, -5.0, time + 0.0005)
    objects["nDiaSources"] = k
    sources = sources_of(k * 10 + ids, ids, time)
    sources["timeWithdrawnMjdTai"], sources["timeProcessedMjdTai"] = np.nan, time
    forced = forced_of(ids, k, time)
    forced["timeProcessedMjdTai"] = time
    store.save(request(k, objects=objects, sources=sources, forced=forced), segment(k))


def a_night(store):
    for k in range(1, 9):
        visit(store, k, NIGHT + k * 4 * MINUTE, (1, 2, 3) if k % 2 else (2, 3, 4))


def a_morning(store):
    store.reassign_sources(store.sources_of([2])["diaSourceId"], np.ones(8, int), MORNING)
    store.reassign_forced(np.array([200, 202, 301]), np.array([1, 1, 1]), MORNING)
    store.set_validity_end([2], MORNING + MINUTE)
    store.withdraw_sources(np.array([11, 24]), MORNING)
    store.withdraw_forced(np.array([100]), MORNING + MINUTE)
    store.reassign_sources_to_ss(np.array([33]), np.array([5]), MORNING)
    store.update_n_dia_sources([3], [40], MORNING)


def sorted_rows(rows):
    key = "validityStartMjdTai" if "validityStartMjdTai" in rows.dtype.names else "midpointMjdTai"
    names = [name for name in ("diaSourceId", "diaForcedSourceId", "diaObjectId") if name in rows.dtype.names]
    return take(rows, np.lexsort((rows[key], *(rows[name] for name in names[:1]))))


def assert_replicated(store, ppdb):
    for name in TABLES:
        ours, theirs = sorted_rows(store.table(name)), sorted_rows(ppdb.table(name))
        assert len(ours) == len(theirs), name
        for column in ours.dtype.names:
            np.testing.assert_array_equal(theirs[column], ours[column], err_msg=f"{name}.{column}")
    latest = ppdb.table("DiaObjectLatest")
    assert sorted(latest["diaObjectId"]) == sorted(store.objects(EVERYWHERE)["diaObjectId"])
    assert np.isnan(latest["validityEndMjdTai"]).all()


def chunk(number, last_update_s, unique="a"):
    first = chunk_of(NIGHT)
    return ReplicaChunk(first + number * 600, chunk_start_mjd_tai(first) + last_update_s / 86400, unique)


@pytest.mark.parametrize(("chunks", "now_s", "expected"), [
    ([chunk(0, 500)], 700, []),                                 # no newer one: an hour
    ([chunk(0, 500)], 4101, [0]),
    ([chunk(0, 500)], 4099, []),
    ([chunk(0, 590), chunk(1, 610)], 640, []),                  # a newer one: 60 s
    ([chunk(0, 590), chunk(1, 610)], 651, [0]),
    ([chunk(0, 599), chunk(1, 601), chunk(2, 1201)], 1300, [0, 1]),
    ([chunk(0, 1280), chunk(1, 601), chunk(2, 1201)], 1300, []),       # the first not due ends the poll
    ([chunk(2, 1201), chunk(0, 100), chunk(1, 601)], 1300, [0, 1]),    # in the order of ids
    ([chunk(0, 100), chunk(5, 3001)], 2000, []),                # the second is not there yet
])
def test_chunks_are_copied_by_the_real_rules(chunks, now_s, expected):
    now = chunk_start_mjd_tai(chunk_of(NIGHT)) + now_s / 86400
    assert [(found.id - chunk_of(NIGHT)) // 600 for found in due(chunks, [], now)] == expected


def test_a_chunk_that_changed_after_its_copy_is_an_error():
    copied = [Copied(chunk(1, 0).id, "a", 0.0, 0.0, {})]
    with pytest.raises(NonRetriableError, match=r"saved into after it was copied \(unique id b, copied as a\)"):
        due([chunk(1, 700, "b")], copied, NIGHT + 1)
    with pytest.raises(NonRetriableError, match=r"appeared after chunk \d+ was copied"):
        due([chunk(0, 700), chunk(1, 700)], copied, NIGHT + 1)


def test_the_ppdb_becomes_the_store_poll_by_poll(tmp_path, store):
    a_night(store)
    with replicate.opened(tmp_path / "ppdb") as ppdb:
        copied = [poll(store, ppdb, now) for now in polls(store.chunks())]
        assert sum(copied) == len(store.chunks()) == 4
        assert max(copied) == 1                                  # none had to wait for more than its turn
        lags = replicate.lags_s(ppdb.chunks)
        assert all(60 <= lag <= 960 for lag in lags[:-1])
        assert 3600 <= lags[-1] <= 3900
        assert_replicated(store, ppdb)
        a_morning(store)
        assert_not_replicated(store, ppdb)
        assert sum(poll(store, ppdb, now) for now in polls(store.chunks())) == 1
        assert_replicated(store, ppdb)
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "ppdb").rglob("*.parquet")}
        assert poll(store, ppdb, MORNING + 1) == 0
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "ppdb").rglob("*.parquet")} == before
    months = {path.parent.name for path in (tmp_path / "ppdb" / "DiaSource").rglob("*.parquet")}
    assert months == {"month=2000"}


def assert_not_replicated(store, ppdb):
    with pytest.raises(AssertionError):
        assert_replicated(store, ppdb)


def test_rows_copied_before_and_after_the_morning_come_to_the_same(tmp_path):
    """Rows are copied as they are, and an update applied twice changes nothing more."""
    store = MemoryStore()
    a_night(store)
    a_morning(store)
    visit(store, 20, MORNING + 0.4)                               # new versions after the morning's changes
    with replicate.opened(tmp_path) as ppdb:
        for now in polls(store.chunks()):
            poll(store, ppdb, now)
        assert_replicated(store, ppdb)


def test_without_the_updates_it_would_differ(tmp_path, monkeypatch):
    store = MemoryStore()
    a_night(store)
    with replicate.opened(tmp_path) as ppdb:
        for now in polls(store.chunks()):
            poll(store, ppdb, now)
        a_morning(store)
        monkeypatch.setattr("pipeline.ppdb._apply", lambda *_: None)
        poll(store, ppdb, MORNING + 1)
        assert_not_replicated(store, ppdb)


@pytest.mark.parametrize("where", ["stage", "manifest", "objects", "latest", "points"])
def test_an_interrupted_replication_is_resumed(tmp_path, monkeypatch, where):
    store = MemoryStore()
    a_night(store)
    with replicate.opened(tmp_path) as ppdb:
        poll(store, ppdb, NIGHT + 13 * MINUTE)
        assert len(ppdb.chunks) == 1
    target = {"stage": "Ppdb._write", "manifest": "Ppdb._write_manifest", "objects": "Ppdb._settle",
              "latest": "Ppdb._promote_latest", "points": "Ppdb._promote_points"}[where]
    with replicate.opened(tmp_path) as ppdb, monkeypatch.context() as patch:
        def fail(*_, **__):
            raise KeyboardInterrupt
        patch.setattr(f"pipeline.ppdb.{target}", fail)
        with pytest.raises(KeyboardInterrupt):
            poll(store, ppdb, NIGHT + 1)
    reader = Ppdb(tmp_path)
    assert len(reader.table("DiaSource")) == 6                   # readers still see the first chunk, whole
    reader.close()
    with replicate.opened(tmp_path) as ppdb:
        poll(store, ppdb, NIGHT + 1)
        assert_replicated(store, ppdb)
    assert not list(tmp_path.rglob("*.writing"))
    assert not list((tmp_path / "staging").iterdir())


def test_one_replication_at_a_time(tmp_path):
    with replicate.opened(tmp_path), pytest.raises(InputError, match="another replication is at work"), \
            replicate.opened(tmp_path):
        pass


def test_a_folder_that_is_no_ppdb_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"there is no manifest\.json"):
        Ppdb(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="not a manifest of a PPDB"):
        Ppdb(tmp_path)


def test_a_broken_file_is_one_line(tmp_path):
    store = MemoryStore()
    a_night(store)
    with replicate.opened(tmp_path) as ppdb:
        poll(store, ppdb, NIGHT + 1)
    next((tmp_path / "DiaSource").rglob("*.parquet")).write_bytes(b"PAR1")
    ppdb = Ppdb(tmp_path)
    with pytest.raises(InputError, match="DiaSource cannot be read"):
        ppdb.table("DiaSource")
    ppdb.close()


def test_light_curves_and_cones_are_the_same_in_store_and_ppdb(tmp_path, store):
    a_night(store)
    a_morning(store)
    with replicate.opened(tmp_path / "ppdb") as ppdb:
        for now in polls(store.chunks()):
            poll(store, ppdb, now)
        for place in (store, ppdb):
            points = light_curve(place, 1)
            assert points["kind"].tolist().count(b"source") == 12
            assert (np.diff(points["midpointMjdTai"]) >= 0).all()
            assert points["id"][np.isfinite(points["timeWithdrawnMjdTai"])].tolist() == [11, 100]
            assert len(light_curve(place, 99)) == 0
            found = cone(place, 10.02, -5.0, 50.0)
            assert found["diaObjectId"].tolist() == [3, 1]      # 2 was closed
            np.testing.assert_allclose(found["distance_arcsec"], 36.0 * np.cos(np.radians(5.0)), rtol=1e-6)
            assert len(cone(place, 190.0, 5.0, 50.0)) == 0
            with pytest.raises(ValueError, match="radius -1"):
                cone(place, 10.0, 5.0, -1.0)


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 0.0), (359.9999, 10.0), (123.0, 89.9999), (0.0, -90.0)])
def test_cones_know_the_seam_and_the_poles(ra, dec):
    store = MemoryStore()
    rng = np.random.default_rng(3)
    at_ra, at_dec = (ra + rng.normal(size=200) * 0.01 / max(np.cos(np.radians(dec)), 1e-3)) % 360.0, dec
    at_dec = np.clip(dec + rng.normal(size=200) * 0.01, -90.0, 90.0)
    store.save(request(1, objects=objects_at(np.arange(200) + 1, at_ra, at_dec, NIGHT)), segment(1))
    cosine = (np.sin(np.radians(at_dec)) * np.sin(np.radians(dec))
              + np.cos(np.radians(at_dec)) * np.cos(np.radians(dec)) * np.cos(np.radians(at_ra - ra)))
    expected = np.flatnonzero(np.degrees(np.arccos(np.clip(cosine, -1, 1))) * 3600 < 30.0) + 1
    assert len(expected) > 5
    assert sorted(cone(store, ra, dec, 30.0)["diaObjectId"]) == expected.tolist()


def test_staging_left_by_a_kill_is_written_over(tmp_path):
    store = MemoryStore()
    a_night(store)
    (tmp_path / "staging" / str(store.chunks()[0].id)).mkdir(parents=True)
    with replicate.opened(tmp_path) as ppdb:
        poll(store, ppdb, NIGHT + 1)
        assert_replicated(store, ppdb)
    shutil.rmtree(tmp_path / "DiaSource")
    ppdb = Ppdb(tmp_path)
    with pytest.raises(InputError):
        ppdb.table("DiaSource")
    ppdb.close()
