"""The outbox's segment files, and the rows that name them."""

import errno
import os
import resource
import subprocess
import sys
import textwrap

import duckdb
import numpy as np
import pytest

from pipeline.errors import NonRetriableError, RetriableError
from pipeline.open import open_store
from pipeline.ports import Segment
from pipeline.stores.outbox import COLUMNS, Place, SegmentFiles, new_name, rows_of, segments_of
from tests.pipeline.test_stores import request, segment, sources_of


def packets(n, size=1000):
    return tuple(bytes([k % 251]) * (size + k) for k in range(n))


def held(visit, packets, detector=0):
    n = len(packets)
    return Segment(visit, detector, np.arange(n) + visit * 1000, packets, np.arange(n) + 7)


@pytest.fixture
def files(tmp_path):
    made = SegmentFiles(tmp_path / "out", rotate_bytes=5000)
    yield made
    made.close()


def joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}


def test_rows_give_the_segments_back_with_their_keys_and_places(files):
    put = [held(1, packets(3)), held(1, packets(2), detector=5), held(2, packets(4))]
    rows, sequence = [], 10
    for one in put:
        rows.append(rows_of(one, files.append(one.packets), sequence))
        sequence += len(one)
    found = segments_of(joined(rows), files, "mine")
    assert [(one.visit, one.detector, one.outbox) for one in found] == [(1, 0, "mine"), (1, 5, "mine"), (2, 0, "mine")]
    for one, before in zip(found, put, strict=True):
        assert one.packets == before.packets
        assert one.size == before.size
        assert one.keys.tolist() == before.keys.tolist()
        assert one.ids.tolist() == before.ids.tolist()
    assert np.concatenate([one.sequences for one in found]).tolist() == list(range(10, 19))
    part = found[2].part(slice(1, 3))
    assert list(part.packets) == list(put[2].packets[1:3])
    assert part.packets[1] == put[2].packets[2]
    assert part.packets != put[2].packets
    assert part.sequences.tolist() == [16, 17]


def test_no_rows_are_no_segments(files):
    nothing = rows_of(held(1, ()), files.append(()), 1)
    assert segments_of(nothing, files, "mine") == []
    assert list(files.folder.iterdir()) == []


def test_a_full_file_is_followed_by_the_next_and_the_sent_ones_go(files):
    places = [files.append(packets(3)) for _ in range(5)]
    assert [place.segment for place in places] == [1, 1, 2, 2, 3]
    assert files.older()
    assert files.remove_unless({2}) == [1]
    assert [path.name for path in sorted(files.folder.iterdir())] == ["00000002.packets", "00000003.packets"]
    files.close()
    assert files.remove_unless(()) == [2, 3]


def test_a_file_that_another_writer_holds_stays_and_two_writers_never_share_one(files):
    other = SegmentFiles(files.folder)
    assert files.append(packets(1)) == Place(1, 0)
    assert other.append(packets(1)) == Place(2, 0)
    assert files.remove_unless(()) == []            # its own, and the other's
    other.close()
    assert files.remove_unless(()) == [2]


def test_a_lost_or_short_file_is_said_with_its_place(files):
    one = held(1, packets(3))
    found = segments_of(rows_of(one, files.append(one.packets), 1), files, "mine")[0]
    os.truncate(files.path(1), 1500)
    with pytest.raises(NonRetriableError, match=r"00000001\.packets: a packet of 1001 bytes expected at byte 1000, "
                                                  "found 500"):
        list(found.packets)
    files.path(1).unlink()
    with pytest.raises(NonRetriableError, match="this segment file of packets not sent yet is gone"):
        list(found.packets)


def test_a_write_that_fails_half_way_leaves_no_bytes_between(files, monkeypatch):
    one = held(1, packets(3))
    first = rows_of(one, files.append(one.packets), 1)
    real, budget = os.write, [1500]

    def full(descriptor, content):
        if budget[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(descriptor, content[:budget[0]])
        budget[0] -= written
        return written

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(RetriableError, match="packets not written: No space left on device"):
            files.append(packets(3))
    assert files.path(1).stat().st_size == one.size
    second = rows_of(held(2, packets(4)), files.append(packets(4)), 4)
    found = segments_of(joined([first, second]), files, "mine")
    assert [one.packets for one in found] == [packets(3), packets(4)]


def test_packets_are_read_one_at_a_time(tmp_path):
    """An outbox of 200 MB is walked through in a process that may have 60 MB more than it began with."""
    script = textwrap.dedent(f"""
        import resource, numpy as np
        from pathlib import Path
        from pipeline.ports import Segment
        from pipeline.stores.outbox import SegmentFiles, rows_of, segments_of
        files, one = SegmentFiles(Path({str(tmp_path / 'out')!r})), bytes(1_000_000)
        rows = rows_of(Segment(1, 0, np.arange(200), (one,) * 200), files.append((one,) * 200), 1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert sum(map(len, segments_of(rows, files, "mine")[0].packets)) == 200_000_000
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    grown_kb = int(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)
    assert grown_kb < 60_000


def test_a_store_of_before_the_outbox_had_sequences_is_refused(tmp_path):
    path = tmp_path / "night.db"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE outbox (visit BIGINT, sent BOOLEAN)")
    with pytest.raises(NonRetriableError, match="its table outbox lacks the columns sequence, detector, number"):
        open_store(f"duckdb:{path}")


def test_names_of_outboxes_differ():
    assert len({new_name() for _ in range(100)}) == 100


def test_sequences_go_on_across_visits_and_restarts_of_a_store(tmp_path):
    url = f"duckdb:{tmp_path / 'night.db'}"
    store = open_store(url)
    for visit in (1, 2):
        store.save(request(visit), segment(visit, 0, 3))
    first = store.unsent()
    for one in first:
        store.mark_sent(one)
    store.close()
    again = open_store(url)
    again.save(request(3), segment(3, 0, 2))
    last = again.unsent()
    assert [one.sequences.tolist() for one in (*first, *last)] == [[1, 2, 3], [4, 5, 6], [7, 8]]
    assert {one.outbox for one in (*first, *last)} == {first[0].outbox}
    again.close()


def test_a_sequence_of_a_save_that_was_refused_is_not_taken(tmp_path):
    store = open_store(f"duckdb:{tmp_path / 'night.db'}")
    store.save(request(1, sources=sources_of([1], [9], 1.0)), segment(1, 0, 3))
    with pytest.raises(NonRetriableError):
        store.save(request(2, sources=sources_of([1], [9], 1.0)), segment(2, 0, 3))
    store.save(request(3), segment(3, 0, 1))
    assert [one.sequences.tolist() for one in store.unsent()] == [[1, 2, 3], [4]]
    store.close()


def test_a_duckdb_store_forgets_what_was_sent_with_its_files(tmp_path):
    store = open_store(f"duckdb:{tmp_path / 'night.db'}")
    store._files = SegmentFiles(tmp_path / "night.db.packets", rotate_bytes=1)
    for visit in (1, 2, 3):
        store.save(request(visit), segment(visit, 0, 3))
    first, second, _ = store.unsent()
    store.mark_sent(second)
    assert [path.stem for path in sorted((tmp_path / "night.db.packets").iterdir())] == ["00000001", "00000003"]
    store.mark_sent(first)
    assert store._read("SELECT DISTINCT visit FROM outbox").fetchall() == [(3,)]
    assert store.unsent()[0].packets == segment(3, 0, 3).packets
    store.mark_sent(store.unsent()[0])
    store.close()
    assert list((tmp_path / "night.db.packets").iterdir()) == []


def test_a_store_whose_tables_find_no_room_saves_nothing_and_goes_on_when_there_is_some(tmp_path):
    store = open_store(f"duckdb:{tmp_path / 'night.db'}")
    owners = np.arange(500) + 1

    def save(visit):
        sources = sources_of(owners + visit * 1000, owners, float(visit))
        store.save(request(visit, sources=sources), segment(visit, 0, 3))

    save(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "night.db.wal").stat().st_size + 20_000, hard))
    try:
        for visit in (2, 3):
            with pytest.raises(RetriableError, match="File too large"):
                save(visit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not store.contains(2, 0)
    assert len(store.table("DiaSource")) == 500
    save(2)
    assert [one.sequences.tolist() for one in store.unsent()] == [[1, 2, 3], [4, 5, 6]]
    store.close()


def test_a_store_on_a_full_disk_saves_nothing_and_goes_on_when_there_is_room(tmp_path):
    """The file-size limit of this process stands for the disk."""
    store = open_store(f"duckdb:{tmp_path / 'night.db'}")
    store.save(request(1), segment(1, 0, 3))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
    try:
        with pytest.raises(RetriableError, match="packets not written: File too large"):
            store.save(request(2), Segment(2, 0, np.arange(3), (bytes(1_000_000),) * 3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not store.contains(2, 0)
    store.save(request(2), segment(2, 0, 2))
    assert [one.packets for one in store.unsent()] == [segment(1, 0, 3).packets, segment(2, 0, 2).packets]
    store.close()
