"""The row files and indexes of a DuckDB store: whatever happens to them, the tables decide."""

import shutil
from pathlib import Path

import duckdb
import numpy as np
import pytest

from pipeline.errors import NonRetriableError
from pipeline.open import open_store
from pipeline.stores.duckdb import copy_store
from pipeline.stores.runs import Runs
from schemas.exposure import Box
from schemas.table import take
from tests.pipeline.stores import EVERYWHERE, forced_of, objects_at, request, segment, sources_of

OWNERS = np.arange(20) + 1


def fill(store, visits, start=0):
    for visit in range(start, start + visits):
        time = 60000.0 + visit
        sources = sources_of(visit * 100 + OWNERS, OWNERS, time)
        sources["timeWithdrawnMjdTai"] = np.nan
        store.save(request(visit, objects=objects_at(OWNERS, OWNERS / 10, -5.0, time), sources=sources,
                           forced=forced_of(OWNERS, visit, time)), segment(visit))


def seen(store):
    found = store.history(OWNERS[::3], 0.0, 1e9)
    return (found.sources.tobytes(), found.forced.tobytes(), store.objects(EVERYWHERE).tobytes(),
            store.objects_of(OWNERS).tobytes())


@pytest.fixture
def place(tmp_path):
    return tmp_path / "night.db"


def opened(place):
    return open_store(f"duckdb:{place}")


@pytest.mark.parametrize("loss", ["nothing", "files", "end", "header", "wrong rows beyond what was synchronized"])
def test_lost_row_files_are_made_from_the_tables(place, loss):
    store = opened(place)
    fill(store, 5)
    store.reassign_sources(np.array([102, 202]), np.array([1, 1]), 60010.0)
    expected = seen(store)
    store.close()
    files = sorted(place.parent.glob("night.db.Dia*"))
    assert [path.suffix for path in files] == [".DiaForcedSource", ".DiaObject", ".DiaSource"]
    for path in files:
        match loss:
            case "files":
                path.unlink()
            case "end":
                with path.open("r+b") as file:
                    file.truncate(4096 + 1000)
            case "header":
                with path.open("r+b") as file:
                    file.write(b"another store's")
            case "wrong rows beyond what was synchronized":
                with path.open("r+b") as file:
                    file.seek(4096)
                    file.write(bytes(5000))
    if loss.startswith("wrong"):
        with duckdb.connect(str(place)) as connection:
            connection.execute("DELETE FROM row_files")
    store = opened(place)
    assert seen(store) == expected
    fill(store, 1, start=5)
    assert len(store.history(OWNERS, 0.0, 1e9).sources) == 120
    store.close()


def test_wrong_rows_that_were_synchronized_would_be_seen(place):
    """The control of the test above."""
    store = opened(place)
    fill(store, 3)
    expected = seen(store)
    store.close()
    path = Path(f"{place}.DiaSource")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(5000))
    store = opened(place)
    assert seen(store) != expected
    store.close()


def test_a_crash_after_the_commit_of_a_change_is_mended(place, monkeypatch):
    store = opened(place)
    fill(store, 3)
    with monkeypatch.context() as patch:
        def crash(*_):
            raise KeyboardInterrupt
        patch.setattr(store, "_changed", crash)
        with pytest.raises(KeyboardInterrupt):
            store.withdraw_sources(np.array([105, 205]), 60010.0)
    store._connection.close()                              # as a kill leaves it: nothing synchronized
    store = opened(place)
    sources = store.history(np.array([5]), 0.0, 1e9).sources
    assert sources["timeWithdrawnMjdTai"].tolist()[1:] == [60010.0, 60010.0]
    assert np.isnan(sources["timeWithdrawnMjdTai"][0])
    store.close()


def test_a_kill_between_saves_loses_nothing(place):
    store = opened(place)
    fill(store, 4)
    expected = seen(store)
    store._connection.close()
    store = opened(place)
    assert seen(store) == expected
    store.close()


def test_a_copied_database_file_is_enough(place, tmp_path):
    store = opened(place)
    fill(store, 3)
    expected = seen(store)
    store.close()
    (tmp_path / "copy").mkdir()
    shutil.copy(place, tmp_path / "copy")
    store = opened(tmp_path / "copy" / "night.db")
    assert seen(store) == expected
    store.close()


def test_a_refused_save_leaves_the_next_rows_in_their_places(place):
    store = opened(place)
    fill(store, 2)
    with pytest.raises(NonRetriableError):
        store.save(request(7, objects=objects_at([50], [1.0], [1.0], 60007.0),
                           sources=sources_of(100 + OWNERS, OWNERS, 60007.0)), segment(7))
    fill(store, 1, start=2)
    found = store.history(OWNERS, 0.0, 1e9)
    assert found.sources["diaSourceId"].tolist() == [*OWNERS, *(100 + OWNERS), *(200 + OWNERS)]
    assert 50 not in store.objects(EVERYWHERE)["diaObjectId"]
    store.close()


def test_boxes_across_the_seam_and_at_the_poles_are_as_in_memory(place):
    rng = np.random.default_rng(2)
    ra, dec = rng.random(3000) * 360.0, np.degrees(np.arcsin(2 * rng.random(3000) - 1))
    ra[:500], dec[500:1000] = rng.normal(size=500) * 0.3 % 360.0, 90.0 - np.abs(rng.normal(size=500))
    ids = np.arange(3000) + 1
    stores = [opened(place), open_store("memory:")]
    for store in stores:
        store.save(request(1, objects=objects_at(ids, ra, dec, 60000.0)), segment(1))
        store.save(request(2, objects=objects_at(ids[::2], ra[::2] * 0.999, dec[::2], 60001.0)), segment(2))
    for box in (Box(359.0, 1.0, -2.0, 2.0), Box(0.0, 360.0, 88.0, 90.0), Box(0.0, 360.0, -90.0, -80.0),
                Box(100.0, 140.0, -10.0, 40.0), Box(0.0, 0.5, -1.0, 1.0)):
        for until in (None, 60000.5):
            first, second = (np.sort(store.objects(box, until)["diaObjectId"]) for store in stores)
            assert first.tolist() == second.tolist()
            assert len(first) > 0 or box.ra_max == 0.5
    stores[0].close()


def test_a_store_of_before_the_row_files_is_refused(place):
    with duckdb.connect(str(place)) as connection:
        connection.execute('CREATE TABLE "DiaObject" ("diaObjectId" BIGINT)')
    with pytest.raises(NonRetriableError, match="earlier version of this program: its table DiaObject lacks the col"):
        opened(place)


def test_runs_find_what_was_added():
    rng = np.random.default_rng(4)
    runs, keys = Runs(), np.empty(0, np.int64)
    for _ in range(200):
        more = rng.integers(0, 500, rng.integers(0, 60))
        runs.add(more, len(keys) + np.arange(len(more)))
        keys = np.concatenate([keys, more])
    assert len(runs) == len(keys)
    assert len(runs._runs) < 15
    wanted = rng.integers(0, 600, 40)
    assert runs.find(np.unique(wanted)).tolist() == np.flatnonzero(np.isin(keys, wanted)).tolist()
    assert runs.find(np.empty(0, np.int64)).tolist() == []
    assert runs.within(np.array([[10, 20], [400, 410]])).tolist() == np.flatnonzero(
        ((keys >= 10) & (keys <= 20)) | ((keys >= 400) & (keys <= 410))).tolist()


def test_runs_forget_what_is_of_no_use():
    useful = np.zeros(10_000, bool)
    runs = Runs(lambda numbers: useful[numbers])
    for k in range(100):
        useful[:] = False
        useful[k * 50:k * 50 + 50] = True
        runs.add(np.arange(50), k * 50 + np.arange(50))
    found = runs.find(np.arange(50))
    assert take(found, useful[found]).tolist() == list(range(4950, 5000))
    assert len(runs) < 1000


def test_a_copy_of_a_store_has_its_rows_and_an_outbox_of_its_own(place, tmp_path):
    store = opened(place)
    fill(store, 3)
    store.save(request(50), segment(50, 0, 2))
    expected, outbox = seen(store), store.unsent()[0].outbox
    store.close()
    copy_store(place, tmp_path / "copy.db")
    store = opened(tmp_path / "copy.db")
    assert seen(store) == expected
    assert store.unsent() == []
    store.save(request(51), segment(51, 0, 2))
    assert store.unsent()[0].outbox != outbox
    assert store.unsent()[0].sequences.tolist() == [1, 2]
    store.close()
