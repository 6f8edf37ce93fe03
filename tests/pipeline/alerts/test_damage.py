"""Damaged packets and cutouts: an alert or a PacketError with its place, soon, in little memory."""

import gzip
import struct
import time
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.alerts import read_cutout, read_packet
from pipeline.alerts.contents import problems
from pipeline.alerts.read import HEADER, from_container, schema_id, source_id, to_container
from pipeline.alerts.rows import long
from pipeline.config import AlertConfig
from pipeline.errors import PacketError
from schemas.alert_versions import writable
from tests.pipeline.alerts.makers import full

LARGEST = 100          # bytes of memory per byte of a packet at most: a null of one byte becomes a dictionary's entry


@pytest.fixture(scope="module")
def packets():
    return {text: full(n=3, per_object=2, config=AlertConfig(schema=text))[1].packets[0] for text in writable()}


def outcome(read, content):
    """The error of reading, if any; the place of a PacketError lies in what was read."""
    start, error = time.perf_counter(), None
    try:
        read(content)
    except PacketError as found:
        error = found
    assert time.perf_counter() - start < 5.0
    assert error is None or (0 <= error.offset <= len(content) and error.reason)
    return error


texts = st.sampled_from(writable())


@settings(max_examples=150, deadline=None)
@given(text=texts, where=st.floats(0, 1, exclude_max=True))
@example(text="11.1", where=0.0)
def test_a_truncated_packet_is_refused_wherever_it_ends(packets, text, where):
    packet = packets[text]
    error = outcome(read_packet, packet[:int(where * len(packet))])
    assert error is not None


def test_a_packet_that_ends_in_its_rows_is_refused_at_every_byte(packets):
    packet = packets["11.1"]
    refused = [outcome(read_packet, packet[:n]) is not None for n in range(3000)]
    assert all(refused)
    assert outcome(read_packet, packet) is None


@settings(max_examples=150, deadline=None)
@given(text=texts, edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.booleans(), st.binary(max_size=12),
                                            st.integers(0, 12)), min_size=1, max_size=4))
@example(text="11.1", edits=[(0.0, True, b"\xff" * 9 + b"\x01", 0)])
def test_any_other_damage_gives_an_alert_or_a_place(packets, text, edits):
    """Bytes replaced, put in and taken out, half of the time within the rows."""
    content = bytearray(packets[text])
    for where, in_rows, new, old in edits:
        at = HEADER + int(where * ((2500 if in_rows else len(content)) - HEADER))
        content[at:at + old] = new
    for read in (read_packet, problems, schema_id, source_id):
        outcome(read, bytes(content))


def measured(read, content):
    tracemalloc.start()
    try:
        error = outcome(read, content)
        return error, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_reader_that_believes_what_it_is_told_would_be_seen(packets):
    """The control."""
    _, peak = measured(lambda content: bytes(LARGEST * len(content) + 1), packets["11.1"][:1000])
    assert peak > LARGEST * 1000


@pytest.mark.parametrize("declared", [2**31 - 1, 2**40, 2**62, -1, -2**40])
@pytest.mark.parametrize("field", ["observation_reason", "prvDiaSources", "cutoutDifference"])
def test_a_declared_length_beyond_the_packet_takes_no_memory(packets, field, declared):
    """A text, an array and bytes that say they are gigabytes long, or shorter than nothing."""
    packet = packets["11.1"]
    alert = read_packet(packet)
    length = long(len(alert[field]))
    if field == "observation_reason":
        at = HEADER + len(long(alert["diaSourceId"])) + 1
    elif field == "prvDiaSources":
        first = alert[field][0]
        at = packet.index(b"\x02" + length + long(first["diaSourceId"]) + long(first["visit"])) + 1
    else:
        at = packet.index(alert[field]) - len(length)
    assert packet[at:at + len(length)] == length
    error, peak = measured(read_packet, packet[:at] + long(declared) + packet[at + len(length):])
    assert error is not None
    assert peak < LARGEST * len(packet)


@settings(max_examples=60, deadline=None)
@given(text=texts, where=st.floats(0, 1), new=st.binary(min_size=1, max_size=12))
def test_damaged_packets_take_little_memory(packets, text, where, new):
    packet = packets[text]
    at = HEADER + int(where * 2500)
    _, peak = measured(read_packet, packet[:at] + new + packet[at:])
    assert peak < LARGEST * len(packet)


@settings(max_examples=100, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), in_header=st.booleans(), new=st.binary(max_size=20),
       old=st.integers(0, 3000))
def test_a_damaged_cutout_is_a_stamp_or_an_error(packets, where, in_header, new, old):
    content = read_packet(packets["11.1"])["cutoutScience"]
    at = int(where * (2880 if in_header else len(content)))
    outcome(read_cutout, content[:at] + new + content[at + old:])


@pytest.mark.parametrize("axis", [b"NAXIS1", b"NAXIS2"])
def test_a_cutout_that_says_it_is_huge_takes_no_memory(packets, axis):
    content = read_packet(packets["11.1"])["cutoutScience"]
    at = content.index(axis)
    huge = content[:at + 10] + b"%20d" % 2_000_000_000 + content[at + 30:]
    error, peak = measured(read_cutout, huge)
    assert error is not None
    assert peak < LARGEST * len(content)


def test_a_packed_cutout_is_not_unpacked():
    """A hundred kilobytes that would be a hundred megabytes."""
    error, peak = measured(read_cutout, gzip.compress(bytes(100_000_000)))
    assert "a FITS file begins with SIMPLE" in error.reason
    assert peak < 5e6


@settings(max_examples=60, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), new=st.binary(max_size=8), old=st.integers(0, 8))
def test_a_damaged_segment_file_gives_packets_or_an_error(packets, where, new, old):
    content = to_container([packets["11.1"]] * 2)
    at = int(where * len(content))
    outcome(from_container, content[:at] + new + content[at + old:])


def test_what_is_wrong_is_said_in_the_words_of_the_format(packets):
    packet = packets["11.1"]
    assert outcome(read_packet, packet[:9]).reason == "it ends within a value"
    after = HEADER + len(long(read_packet(packet)["diaSourceId"]))
    broken = outcome(read_packet, packet[:after] + b"\x04" + packet[after + 1:])
    assert broken.reason == "a union's branch that the schema does not have"
    unknown = outcome(read_packet, struct.pack(">bi", 0, 1102))
    assert unknown.reason.startswith("schema id 1102 (version 11.2) is not one of lsst-alert-packet's: 3.0, 4.0,")
