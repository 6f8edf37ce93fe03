"""What is wrong with a packet: nothing with sound ones, and each rule is broken once."""

import io
import struct

import fastavro
import pytest

from pipeline.alerts import read_packet
from pipeline.alerts.contents import Filled, filled, problems
from pipeline.alerts.read import schema_of
from pipeline.config import AlertConfig
from schemas.alert_versions import writable
from twin.packets import distinct


@pytest.fixture(scope="module")
def alert():
    return read_packet(next(iter(distinct(1, 3, 3, 2))).packets[0])


def packed(alert, identifier=1101):
    body = io.BytesIO()
    fastavro.schemaless_writer(body, schema_of(identifier), alert)
    return struct.pack(">bi", 0, identifier) + body.getvalue()


@pytest.mark.parametrize("text", writable())
def test_our_packets_are_sound(text):
    for packet in next(iter(distinct(2, 2, 2, 1, config=AlertConfig(schema=text)))).packets:
        assert problems(packet) == []


def test_public_packets_are_sound(shared_data):
    packets = [path.read_bytes() for path in sorted((shared_data / "rubin_alerts").glob("*.bin"))]
    assert [problems(packet) for packet in packets] == [[]] * 8


def source(**changes):
    return lambda alert: {"diaSource": {**alert["diaSource"], **changes}}


def history(name, change):
    return lambda alert: {name: change([dict(row) for row in alert[name]], alert)}


def first(rows, **changes):
    return [{**rows[0], **changes}, *rows[1:]]


def cutout(old, new):
    return lambda alert: {"cutoutScience": alert["cutoutScience"].replace(old, new, 1)}


@pytest.mark.parametrize(("change", "message"), [
    (source(diaSourceId=5), "its id is "),
    (source(diaObjectId=5), "its diaObject is "),
    (source(ssObjectId=7), "a Solar System alert has neither diaObject nor histories"),
    (lambda a: {"diaObject": None, "prvDiaSources": None}, "it belongs to no diaObject and to no Solar System object"),
    (history("prvDiaSources", lambda rows, a: rows[::-1]), "prvDiaSources descends in time"),
    (history("prvDiaForcedSources", lambda rows, a: rows[::-1]), "prvDiaForcedSources descends in time"),
    (history("prvDiaSources", lambda rows, a: [*rows, dict(a["diaSource"])]), "holds the triggering source"),
    (history("prvDiaSources", lambda rows, a: [*rows, {**rows[0], "midpointMjdTai": 70000.0}]), "later than the alert"),
    (history("prvDiaSources", lambda rows, a: first(rows, diaObjectId=1)), "prvDiaSources holds rows of another"),
    (lambda a: {"diaObject": {**a["diaObject"], "nDiaSources": 1}}, "is there though nDiaSources is 1"),
    (cutout(b"UNCERT  ", b"NOISE   "), "cutoutScience: cutout: a cutout needs an HDU UNCERT"),
    (cutout(b"'nJy     '", b"'adu     '"), "cutoutScience: BUNIT must be nJy, got 'adu'"),
    (cutout(b"CUTMINX ", b"CUTMINZ "), "CUTMINX, CRPIX1, CRVAL1 must be numbers"),
    (source(x=1.0), "its header puts the source at x = "),
    (source(ra=1.0), "CRVAL1 is "),
    (source(bboxSize=80), "30 pixels wide, with a bboxSize of 80"),
    (lambda a: {"cutoutTemplate": b"SIMPLE  ="}, "cutoutTemplate: cutout: "),
])
def test_every_rule_is_kept_an_eye_on(alert, change, message):
    assert problems(packed(alert)) == []
    found = problems(packed({**alert, **change(alert)}))
    assert any(message in problem for problem in found), found


def test_other_bytes_for_the_same_values_are_noticed(alert):
    """An array in two blocks says what one block says, and is not what our writer or Rubin's makes."""
    packet = packed({**alert, "prvDiaForcedSources": []})
    empty = packed({**alert, "prvDiaForcedSources": None})
    at = next(i for i in range(len(packet)) if packet[i] != empty[i])
    assert packet[at:at + 2] == b"\x02\x00"
    assert problems(packet) == []
    # the target name's length as a varint of two bytes: 15 is 0x1e, and 0x9e 0x00
    named = packet.index(b"\x1esimulated field")
    found = problems(packet[:named] + b"\x9e\x00" + packet[named + 1:])
    assert found == ["its bytes are not those that its schema writes for what it holds"]


def test_what_cannot_be_read_is_the_one_problem(alert):
    (found,) = problems(packed(alert)[:400])
    assert found == "packet unreadable at byte 400: it ends within a value"


def test_filled_fields_are_counted_by_record(alert):
    counts = filled([alert, {**alert, "diaSource": {**alert["diaSource"], "snr": float("nan"), "apFlux": None}}])
    assert counts["diaSource", "snr"] == counts["diaSource", "apFlux"] == Filled(1, 2)
    assert counts["diaSource", "psfFlux"].always
    assert counts["diaSource", "psfLnL"].never
    assert counts["prvDiaSources", "psfFlux"] == Filled(6, 6)
    assert counts["alert", "ssSource"] == Filled(0, 2)
