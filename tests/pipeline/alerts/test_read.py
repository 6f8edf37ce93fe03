import os
import struct
import subprocess
import sys
from pathlib import Path

import fastavro
import lsst.alert.packet
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.alerts import read_packet, read_packets
from pipeline.alerts.read import from_container, schema_id, schema_of, source_id, to_container
from pipeline.errors import PacketError
from schemas import alert
from schemas.alert_versions import packaged
from tests.pipeline.alerts.makers import sample

ROOT = Path(__file__).resolve().parents[3]
VERSIONS = packaged()


def tiny(identifier, version=alert.SCHEMA_ID, body=b"body"):
    return struct.pack(">bi", 0, version) + fastavro_long(identifier) + body


def fastavro_long(value):
    from pipeline.alerts.rows import long
    return long(value)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: f"v{version[0]}.{version[1]}")
def test_samples_of_every_version_are_read(version):
    packet, record = sample(*version)
    found = read_packet(packet)
    assert found["diaSource"]["diaSourceId"] == record["diaSource"]["diaSourceId"]
    name = "psfFlux" if version >= (5, 0) else "psFlux"
    assert found["diaSource"][name] == pytest.approx(record["diaSource"][name])


def test_real_alerts_are_read(shared_data):
    found = {path.stem: read_packet(path.read_bytes()) for path in (shared_data / "rubin_alerts").glob("*.bin")}
    assert len(found) == 8
    for name, one in found.items():
        assert str(one["diaSourceId"]) == name.removesuffix("_v9")
        if one["diaObject"] is None:
            assert one["ssSource"] is not None
            assert one["prvDiaSources"] is None
    assert max(len(one["prvDiaSources"] or ()) for one in found.values()) == 391


def test_the_record_we_write_is_the_one_the_package_reads(shared_data):
    ours, theirs = schema_of(alert.SCHEMA_ID), lsst.alert.packet.Schema.from_file().definition
    assert fastavro.schema.fingerprint(fastavro.schema.to_parsing_canonical_form(ours), "CRC-64-AVRO") \
        == fastavro.schema.fingerprint(fastavro.schema.to_parsing_canonical_form(theirs), "CRC-64-AVRO")


@pytest.mark.parametrize(("packet", "message"), [
    (b"", "byte 0: the wire header has 5 bytes, got 0"),
    (b"\x00\x00", "byte 2: the wire header has 5 bytes, got 2"),
    (b"\x01\x00\x00\x04\x4d", "byte 0: the first byte must be 0, got 1"),
    (struct.pack(">bi", 0, 9999), "schema id 9999 .version 99.99. is not one of lsst-alert-packet's"),
    (struct.pack(">bi", 0, -7), "schema id -7"),
    (alert.WIRE_HEADER, "byte 5"),
])
def test_a_packet_that_is_not_one_is_refused_with_its_place(packet, message):
    with pytest.raises(PacketError, match=message):
        read_packet(packet)


@pytest.fixture(scope="module")
def newest():
    return sample(11, 1)[0]


@settings(max_examples=60)
@given(offset=st.integers(5, 700), value=st.integers(0, 255))
def test_a_damaged_packet_is_an_alert_or_a_packet_error(newest, offset, value):
    packet = bytearray(newest)
    packet[offset % len(packet)] = value
    for damaged in (bytes(packet), bytes(packet[:offset])):
        place = offset_of_failure(damaged)
        assert place is None or 0 <= place <= len(damaged)


def offset_of_failure(packet):
    try:
        assert "diaSource" in read_packet(packet)
    except PacketError as error:
        return error.offset
    return None


def test_what_is_left_over_is_refused():
    packet = sample(11, 1)[0]
    with pytest.raises(PacketError, match="3 bytes are left over"):
        read_packet(packet + b"abc")


@given(st.integers(-2**63, 2**63 - 1))
def test_the_source_id_is_read_without_the_rest(value):
    assert source_id(tiny(value)) == value
    assert schema_id(tiny(value)) == alert.SCHEMA_ID


def test_an_endless_first_long_is_refused():
    with pytest.raises(PacketError, match="more than 10 bytes"):
        source_id(alert.WIRE_HEADER + b"\xff" * 12)
    with pytest.raises(PacketError, match="ends in the first long"):
        source_id(alert.WIRE_HEADER + b"\xff")


def test_a_segment_file_gives_its_packets_back_and_any_avro_tool_reads_it(tmp_path):
    packet, record = sample(11, 1)
    packets = [packet, packet]
    content = to_container(packets)
    assert from_container(content) == packets
    (tmp_path / "a.avro").write_bytes(content)
    with (tmp_path / "a.avro").open("rb") as file:
        read = list(fastavro.reader(file))
    assert [one["diaSourceId"] for one in read] == [record["diaSourceId"]] * 2
    with (tmp_path / "a.avro").open("rb") as file:
        _, records = lsst.alert.packet.Schema.from_file().retrieve_alerts(file)
        assert len(list(records)) == 2
    assert list(read_packets(tmp_path)) == packets
    assert to_container(packets) == content


def test_files_do_not_depend_on_the_process_that_writes_them() -> None:
    code = ("import hashlib; from pipeline.alerts.read import _container_header; "
            f"print(hashlib.sha256(_container_header({alert.SCHEMA_ID})).hexdigest())")
    told = {subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, cwd=ROOT,
                           capture_output=True, text=True, check=True).stdout for seed in ("1", "2", "3")}
    assert len(told) == 1


def test_a_segment_file_holds_one_version():
    with pytest.raises(ValueError, match=r"one schema id, got \[1000, 1101\]"):
        to_container([tiny(1), tiny(1, 1000)])


def test_a_broken_segment_file_is_refused():
    content = to_container([sample(11, 1)[0]])
    for damaged in (content[:-40], b"", content[:100], b"x" * 50):
        with pytest.raises(PacketError, match="segment file"):
            from_container(damaged)


def test_old_packets_may_have_nan_for_null(shared_data):
    found = read_packet((shared_data / "rubin_alerts" / "7912941781254298_v9.bin").read_bytes())
    assert np.isnan(found["diaSource"]["trailFlux"])
