"""What only a database of many writers can do."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psycopg
import pytest

from pipeline.errors import NonRetriableError, RetriableError
from pipeline.open import open_store
from pipeline.stores import pgcopy
from pipeline.stores.postgres import PostgresStore
from schemas.table import DIA_SOURCE
from tests.pipeline.stores import EVERYWHERE, forced_of, objects_at, request, segment, sources_of
from tests.servers import postgres
from tests.strategies import random_rows

WORKERS, VISITS = 8, 4
OWNERS = np.arange(40) + 1


@pytest.fixture
def url(postgres_server, tmp_path):
    return postgres.new_store(postgres_server, tmp_path / "packets")


def visit_of(worker, k):
    """All workers see the same objects, each in an order of its own."""
    visit = worker * 100 + k + 1
    time = 60000.0 + k + worker / 100
    owners = np.random.default_rng(visit).permutation(OWNERS)
    objects = objects_at(owners, owners / 10.0, 0.0, time)
    sources = sources_of(visit * 1000 + np.arange(len(owners)), owners, time)
    sources["timeProcessedMjdTai"] = time
    forced = forced_of(owners, visit, time)
    forced["timeProcessedMjdTai"] = time
    return request(visit, worker, objects, sources, forced), segment(visit, worker, 3)


class Careless(PostgresStore):
    """A store whose writers do not wait for each other."""

    def _lock_objects(self, arriving):
        pass


def work(kind, url, worker, barrier):
    store = kind(url)
    try:
        retried = 0
        for k in range(VISITS):
            barrier.wait(60)
            while True:
                try:
                    store.save(*visit_of(worker, k))
                    break
                except RetriableError:
                    retried += 1
        return retried
    finally:
        store.close()


def all_at_once(kind, url):
    """Retries of all workers."""
    barrier = threading.Barrier(WORKERS)
    with ThreadPoolExecutor(WORKERS) as pool:
        return sum(pool.map(lambda worker: work(kind, url, worker, barrier), range(WORKERS)))


def test_eight_writers_of_the_same_objects_do_not_block_each_other(url):
    assert all_at_once(PostgresStore, url) == 0           # no deadlock, no serialization failure
    store = open_store(url)
    sources, versions, waiting = store.table("DiaSource"), store.table("DiaObject"), store.unsent()
    assert len(sources) == len(np.unique(sources["diaSourceId"])) == WORKERS * VISITS * len(OWNERS)
    assert len(store.table("DiaForcedSource")) == WORKERS * VISITS * len(OWNERS)
    assert len(versions) == WORKERS * VISITS * len(OWNERS)
    assert sorted(store.objects(EVERYWHERE)["diaObjectId"]) == OWNERS.tolist()      # one current version of each
    sequences = np.concatenate([found.sequences for found in waiting])
    assert sequences.tolist() == list(range(1, WORKERS * VISITS * 3 + 1))
    assert {(found.visit, found.detector) for found in waiting} \
        == {(worker * 100 + k + 1, worker) for worker in range(WORKERS) for k in range(VISITS)}
    assert all(tuple(found.packets) == segment(found.visit, found.detector, 3).packets for found in waiting)
    store.close()


def test_without_their_locks_they_would(url):
    retried = all_at_once(Careless, url)
    store = open_store(url)
    assert retried > 0 or len(store.objects(EVERYWHERE)) > len(OWNERS)
    assert len(store.table("DiaSource")) == WORKERS * VISITS * len(OWNERS)
    store.close()


def test_a_deadlock_is_retriable(url):
    store, other = open_store(url), open_store(url)
    for worker in (1, 2):
        store.save(request(worker, objects=objects_at([worker], [10.0], [0.0], 100.0)), segment(worker))
    failures = []
    with store._writing("first", 60000.0), store._connection.cursor() as cursor:
        cursor.execute('UPDATE "DiaObject" SET ra = 1 WHERE "diaObjectId" = 1')

        def contrary():
            try:
                with other._writing("second", 60000.0):
                    other._execute('UPDATE "DiaObject" SET ra = 2 WHERE "diaObjectId" = 2')
                    other._execute('UPDATE "DiaObject" SET ra = 2 WHERE "diaObjectId" = 1')
            except RetriableError as error:
                failures.append(str(error))

        thread = threading.Thread(target=contrary)
        thread.start()
        thread.join(0.2)
        try:
            cursor.execute('UPDATE "DiaObject" SET ra = 1 WHERE "diaObjectId" = 2')
        except psycopg.errors.DeadlockDetected:          # either of the two may be the victim
            pytest.skip("this time the first writer was the victim")
        thread.join(30)
    assert len(failures) == 1
    assert "second not saved: deadlock detected" in failures[0]
    store.close()
    other.close()


def test_the_same_visit_twice_at_once_lands_once(url):
    barrier = threading.Barrier(2)

    def save(_):
        store = open_store(url)
        barrier.wait(30)
        try:
            store.save(*visit_of(1, 0))
        except NonRetriableError as error:
            return str(error)
        finally:
            store.close()
        return "saved"

    with ThreadPoolExecutor(2) as pool:
        outcomes = sorted(pool.map(save, range(2)))
    assert outcomes[0] == "saved"
    assert outcomes[1].startswith("visit 101 detector 1 is already in the store")


def test_a_lost_connection_is_retriable_and_is_made_again(url):
    store = open_store(url)
    store.save(*visit_of(1, 0))
    with psycopg.connect(url.partition("&packets=")[0], autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", [store._connection.info.backend_pid])
    with pytest.raises(RetriableError, match="not saved"):
        store.save(*visit_of(1, 1))
    assert not store.contains(102, 1)
    store.save(*visit_of(1, 1))
    assert store.contains(102, 1)
    store.close()


def test_no_server_is_one_line():
    with pytest.raises(NonRetriableError, match=r"store postgresql://me@127\.0\.0\.1:1/db cannot be reached"):
        open_store("postgresql://me:secret@127.0.0.1:1/db?packets=packets")


def test_a_copy_of_another_layout_is_refused():
    rows = random_rows(DIA_SOURCE, 3, np.random.default_rng(1))
    with pytest.raises(ValueError, match="DiaSource: binary COPY of rows of"):
        pgcopy.rows_of(DIA_SOURCE, pgcopy.copy_of(DIA_SOURCE, rows, {}))      # its nulls have no length
