"""The alert archive: keys, idempotence, durability, and what it refuses."""

import gzip
import json
import signal
import time

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.alerts.read import schema_of
from pipeline.errors import InputError, RetriableError
from pipeline.serve.archive import (
    STALE_S,
    Archive,
    ArchiveError,
    FolderStore,
    Ingest,
    ObjectStore,
    alert_key,
    open_archive,
    schema_key,
    unpacked,
)
from pipeline.serve.consume import MemoryStream, consume
from pipeline.serve.messages import Alert, DeadFolder, DeadMemory, Message, examine, read_letter
from tests.pipeline.serve.streams import command, identifiers, packets, small_packets


def found_in(folder):
    """Ids to packets of an archive in a folder, read without the archive's code."""
    return {int(path.name.removesuffix(".avro.gz")): gzip.decompress(path.read_bytes())
            for path in (folder / "v2" / "alerts").glob("*/*.avro.gz")}


def alert_of(packet):
    found = examine(Message("topic", 0, 0, packet))
    assert isinstance(found, Alert)
    return found


@pytest.fixture(params=["folder", "memory"])
def archive(request, tmp_path):
    return open_archive(str(tmp_path / "store") if request.param == "folder" else f"memory://{tmp_path.name}/store",
                        create=True)


def test_keys_are_those_of_the_real_archive():
    assert alert_key(170055002004914266) == "v2/alerts/170055/170055002004914266.avro.gz"
    assert alert_key(42) == "v2/alerts/42/42.avro.gz"
    assert schema_key(1101) == "v2/schemas/1101.json"


@given(st.one_of(st.integers(max_value=0), st.integers(min_value=2**63), st.booleans(), st.text(), st.floats()))
def test_what_is_no_id_makes_no_key(value):
    with pytest.raises(ValueError, match="a diaSourceId is 1 to"):
        alert_key(value)


@given(st.integers(1, 2**63 - 1))
def test_every_id_has_a_key_of_its_own_within_the_archive(value):
    head, folder, name = alert_key(value).rsplit("/", 2)
    assert (head, folder, name) == ("v2/alerts", str(value)[:6], f"{value}.avro.gz")


def test_packets_come_back_as_they_were_put(archive):
    for packet in packets():
        assert archive.put(alert_of(packet))
    assert [archive.packet(identifier) for identifier in identifiers(packets())] == list(packets())
    assert archive.packet(5) is None
    assert fastavro.parse_schema(json.loads(archive.schema(1101))) == schema_of(1101)
    assert archive.schema(1100) is None


def test_a_stored_schema_reads_a_stored_packet(tmp_path):
    """The archive explains itself, without this project."""
    import io

    archive = open_archive(str(tmp_path), create=True)
    archive.put(alert_of(packets()[0]))
    schema = json.loads((tmp_path / "v2/schemas/1101.json").read_bytes())
    (identifier, packet), = found_in(tmp_path).items()
    assert fastavro.schemaless_reader(io.BytesIO(packet[5:]), schema, None)["diaSourceId"] == identifier


def test_the_same_packet_twice_is_one_and_another_under_its_id_is_refused(archive):
    first = packets()[0]
    other = first.replace(b"simulated survey", b"simulated surveX")
    assert other != first
    assert archive.put(alert_of(first))
    assert archive.put(alert_of(first))
    assert not archive.put(alert_of(other))
    assert archive.packet(identifiers([first])[0]) == first


def test_another_packet_of_the_same_id_is_set_aside_even_within_a_batch(tmp_path):
    first = packets()[0]
    other = first.replace(b"simulated survey", b"simulated surveX")
    handler, dead = Ingest(open_archive(str(tmp_path), create=True)), DeadMemory()
    tally = consume(MemoryStream([first, other, first]), handler, dead, stop_when_idle=0.0)
    handler.close()
    assert (tally.accepted, tally.set_aside) == (2, 1)
    letter, = dead.letters
    assert letter.message.value == other
    assert letter.reason == f"the archive holds another packet: its id is {identifiers([first])[0]} too"
    assert list(found_in(tmp_path).values()) == [first]


def test_equal_packets_make_equal_files(tmp_path):
    for name in ("a", "b"):
        open_archive(str(tmp_path / name), create=True).put(alert_of(packets()[0]))
    key = alert_key(identifiers(packets())[0])
    assert (tmp_path / "a" / key).read_bytes() == (tmp_path / "b" / key).read_bytes()


def test_a_damaged_file_is_an_error_to_readers_and_is_written_anew_by_the_next_copy(tmp_path):
    archive, packet = open_archive(str(tmp_path), create=True), packets()[0]
    archive.put(alert_of(packet))
    path = tmp_path / alert_key(identifiers([packet])[0])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArchiveError, match=r"alert [0-9]+: its file in the archive is cut short"):
        archive.packet(identifiers([packet])[0])
    assert archive.put(alert_of(packet))
    assert archive.packet(identifiers([packet])[0]) == packet


def test_a_gzip_bomb_ends_in_an_error_and_little_memory(tmp_path):
    import tracemalloc

    bomb = gzip.compress(bytes(100_000_000), 9)
    tracemalloc.start()
    with pytest.raises(ArchiveError, match="alert 7: its file in the archive unpacks to more than 4194304 bytes"):
        unpacked(bomb, "alert 7")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12_000_000
    assert len(unpacked(gzip.compress(bytes(4_000_000)), "alert 7")) == 4_000_000


@pytest.mark.parametrize(("content", "said"), [
    (b"not gzip", "not gzip"), (b"", "cut short"), (gzip.compress(b"a") + b"x", "followed by other bytes"),
    (gzip.compress(b"a") + gzip.compress(bytes(10**7)), "followed by other bytes")])
def test_what_is_not_one_gzip_member_is_an_error(content, said):
    with pytest.raises(ArchiveError, match=said):
        unpacked(content, "alert 7")


@pytest.mark.parametrize("url", ["", "  ", "simplecache::s3://bucket", "file::memory://x", "http://example.com/x", "ftp://x/y",
                                 "github://org:repo@/", "zip://a.zip", "local://x", "filecache::folder", "a\0b",
                                 "reference://", "sftp://host/x"])
def test_other_stores_are_refused(url):
    with pytest.raises(InputError, match="expected a folder, file:folder/ or SCHEME://bucket/prefix"):
        open_archive(url)


def test_a_folder_that_is_not_there_is_made_by_the_writer_alone(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        open_archive(f"file:{tmp_path}/new")
    open_archive(f"file:{tmp_path}/new", create=True)
    (tmp_path / "plain").write_text("")
    with pytest.raises(InputError, match="archive"):
        open_archive(str(tmp_path / "plain" / "under"), create=True)


def test_leftovers_of_dead_writers_are_swept(tmp_path):
    import os

    aside = tmp_path / ".partial"
    aside.mkdir()
    for name in ("1-1", "2-2"):
        (aside / name).write_bytes(b"half")
    os.utime(aside / "1-1", (time.time() - STALE_S - 5,) * 2)
    open_archive(str(tmp_path))
    assert [path.name for path in aside.iterdir()] == ["2-2"]


def test_a_store_that_fails_is_retriable_and_nothing_is_committed(tmp_path):
    class Broken:
        def cat_file(self, path):
            raise PermissionError("denied")

    handler = Ingest(Archive(ObjectStore(Broken(), "bucket")))
    stream = MemoryStream(packets())
    with pytest.raises(RetriableError, match="not read: denied"):
        consume(stream, handler, DeadMemory(), stop_when_idle=0.0)
    handler.close()
    assert stream.committed == 0


def test_files_are_whole_and_last_before_offsets_are_committed(tmp_path, monkeypatch):
    """Order of events: every file is synchronised, then its folder, then the offset is committed."""
    events = []
    store = FolderStore(tmp_path)
    monkeypatch.setattr("pipeline.serve.messages.os.fsync", lambda handle: events.append("fsync"))

    class Noting(MemoryStream):
        def commit(self, positions):
            events.append("commit")

    handler = Ingest(Archive(store))
    consume(Noting(packets()[:2]), handler, DeadMemory(), stop_when_idle=0.0)
    handler.close()
    files, folders = 3, 5       # two alerts and a schema; 2 of ids at most, alerts, schemas, v2, the archive
    assert events.count("commit") == 1
    assert events[-1] == "commit"
    assert files + folders - 1 <= events.count("fsync") <= files + folders + 1


def test_the_command_archives_a_topic_and_a_crash_of_it_loses_nothing(broker, tmp_path):
    """Killed in the middle and started again: every alert is there once, the broken message is set aside."""
    sent = small_packets(400)
    broker.send([*sent[:20], b"broken", *sent[20:]])
    words = ("archive", "ingest", *broker.stream, "--store", tmp_path / "store", "--dead-letters",
             f"file:{tmp_path}/dead")
    with command(*words) as first:
        wait_for(lambda: len(found_in(tmp_path / "store")) >= 1)
        first.send_signal(signal.SIGKILL)
        first.wait()
    before = len(found_in(tmp_path / "store"))
    assert 1 <= before < 400, "it was not killed in the middle"
    with command(*words) as second:
        out, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    assert found_in(tmp_path / "store") == dict(zip(identifiers(sent), sent, strict=True))
    assert len(list((tmp_path / "dead").iterdir())) == 1
    assert "messages archived in" in out


def test_a_command_that_is_told_to_end_has_stored_and_committed_all(broker, tmp_path):
    broker.send(packets())
    words = "archive", "ingest", *broker.stream[:4], "--store", tmp_path / "store"
    with command(*words, cwd=tmp_path) as first:
        wait_for(lambda: len(found_in(tmp_path / "store")) == 12)
        first.send_signal(signal.SIGTERM)
        out, errors = first.communicate(timeout=60)
    assert first.returncode == 0, errors
    assert out == f"12 of 12 messages archived in {tmp_path}/store, 0 set aside\n"
    with command("archive", "ingest", *broker.stream, "--store", tmp_path / "store", cwd=tmp_path) as second:
        out, errors = second.communicate(timeout=60)
    assert out == f"0 of 0 messages archived in {tmp_path}/store, 0 set aside\n", errors


def test_dead_letters_of_a_schema_that_was_unknown_are_archived_after_the_upgrade(tmp_path, monkeypatch, capsys):
    from pipeline.errors import PacketError
    from pipeline.serve import messages
    from twin.cli import main

    def unknown(packet):
        raise PacketError(1, "schema id 1101 is not one of lsst-alert-packet's")

    with monkeypatch.context() as patch:
        patch.setattr(messages, "read_packet", unknown)
        handler = Ingest(open_archive(str(tmp_path / "store"), create=True))
        tally = consume(MemoryStream([*packets()[:3], b"broken"]), handler, DeadFolder(tmp_path / "dead"),
                        stop_when_idle=0.0)
        handler.close()
    assert (tally.accepted, tally.set_aside) == (0, 4)
    assert main(["archive", "retry", str(tmp_path / "dead"), "--store", str(tmp_path / "store")]) == 0
    assert capsys.readouterr().out.startswith("3 dead letters archived")
    assert found_in(tmp_path / "store") == dict(zip(identifiers(packets()[:3]), packets()[:3], strict=True))
    left, = (tmp_path / "dead").iterdir()
    assert read_letter(left).message.value == b"broken"


def wait_for(happened, timeout_s=30.0):
    end = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


@pytest.mark.bench
@pytest.mark.parametrize("per_object", [1, 7, 40])
def test_archiving_from_memory_to_a_folder(benchmark, tmp_path, per_object):
    """Messages per second are 300 over the time; with 1, 7 and 40 earlier sources, each with forced photometry."""
    sent, places = packets(300, per_object), iter(range(100))

    def archived():
        handler = Ingest(open_archive(str(tmp_path / str(next(places))), create=True))
        tally = consume(MemoryStream(sent), handler, DeadMemory(), stop_when_idle=0.0)
        handler.close()
        return tally.accepted

    assert benchmark.pedantic(archived, rounds=3) == 300


def test_an_archive_in_s3_holds_the_same_and_says_when_it_is_away(tmp_path, monkeypatch):
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    server = pytest.importorskip("moto.server", reason="moto[server], a stand-in for S3, is not installed")
    import boto3

    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3 = server.ThreadedMotoServer("127.0.0.1", 0)
    s3.start()
    address = "http://{}:{}".format(*s3.get_host_and_port())
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    boto3.client("s3", endpoint_url=address).create_bucket(Bucket="alerts")
    handler, dead = Ingest(open_archive("s3://alerts/prefix")), DeadMemory()
    consume(MemoryStream([*packets(), packets()[0], b"broken"]), handler, dead, stop_when_idle=0.0)
    archive = open_archive("s3://alerts/prefix")
    assert [archive.packet(identifier) for identifier in identifiers(packets())] == list(packets())
    assert archive.packet(5) is None
    assert archive.schema(1101) is not None
    found = boto3.client("s3", endpoint_url=address).list_objects_v2(Bucket="alerts")["Contents"]
    names = [one["Key"] for one in found]
    assert sorted(names) == sorted([f"prefix/{alert_key(one)}" for one in identifiers(packets())]
                                   + [f"prefix/{schema_key(1101)}"])
    s3.stop()
    with pytest.raises(RetriableError, match="not read"):
        archive.packet(identifiers(packets())[0])
    handler.close()
