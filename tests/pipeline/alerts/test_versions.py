"""Packets of every version that can be written, against the schema package and fastavro."""

import io
import json
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import fastavro
import lsst.alert.packet
import msgspec
import numpy as np
import pytest

from pipeline.alerts import read_packet
from pipeline.alerts.read import schema_id, source_id
from pipeline.alerts.rows import encode, utc
from pipeline.config import AlertConfig, PipelineConfig
from schemas import alert
from schemas.alert_versions import ALERT_RENAMED, RENAMED, Field, Origin, packaged, version, writable
from schemas.table import DIA_SOURCE
from tests.pipeline.alerts.makers import VISIT, full

VERSIONS = ("7.4", "8.0", "9.0", "10.0", "11.0", "11.1")


@lru_cache(maxsize=8)
def official(text):
    """The schema as Rubin's own package reads it."""
    major, minor = map(int, text.split("."))
    folder = Path(lsst.alert.packet.get_schema_path(major, minor))
    return lsst.alert.packet.Schema.from_file(str(folder / f"lsst.v{major}_{minor}.alert.avsc"))


def decoded(text, packet):
    """A packet's body under the official schema, by fastavro; and written again."""
    schema = official(text).definition
    body = io.BytesIO(packet[5:])
    found = fastavro.schemaless_reader(body, schema, None)
    assert not body.read()
    again = io.BytesIO()
    fastavro.schemaless_writer(again, schema, found)
    return found, again.getvalue()


@pytest.fixture(scope="module", params=VERSIONS)
def written(request):
    return request.param, *full(config=AlertConfig(schema=request.param, fields="all"))


def test_every_version_from_74_can_be_written():
    assert writable() == VERSIONS
    assert packaged()[0] == (3, 0)
    assert version("11.1").header == alert.WIRE_HEADER
    assert AlertConfig().schema == "11.1"


def test_packets_are_those_of_their_versions_schema(written):
    text, sources, segment = written
    major, minor = map(int, text.split("."))
    for row, packet in zip(sources, segment.packets, strict=True):
        assert schema_id(packet) == major * 100 + minor == official(text).get_schema_id()
        found, again = decoded(text, packet)
        assert again == packet[5:]
        assert read_packet(packet) == found == official(text).deserialize(packet[5:])
        assert official(text).validate(found)
        assert source_id(packet) == row["diaSourceId"]


def test_a_packet_is_not_one_of_another_version(written):
    """The control: under another version's schema the bytes make no such alert."""
    text, _, segment = written
    other = VERSIONS[VERSIONS.index(text) - 1]
    try:
        found, again = decoded(other, segment.packets[0])
    except Exception:
        return
    assert again != segment.packets[0][5:] or found != read_packet(segment.packets[0])


def test_versions_say_the_same_in_other_words(written):
    """Every field of an older version holds what the newest packet holds under the column it comes from."""
    text, _, segment = written
    newest = [read_packet(packet) for packet in full(config=AlertConfig(fields="all"))[1].packets]
    checked = set()
    for new, packet in zip(newest, segment.packets, strict=True):
        old = read_packet(packet)
        for name, value in old.items():
            record = {"MPCORB": "mpc_orbits"}.get(name, name)
            if isinstance(value, dict):
                checked |= compare(name, value, new[record], new["ssSource"])
            elif isinstance(value, list):
                item = {"prvDiaSources": "diaSource", "prvDiaForcedSources": "diaForcedSource"}[name]
                assert len(value) == len(new[name])
                for one, other in zip(value, new[name], strict=True):
                    checked |= compare(item, one, other, None)
            elif name in ("ssObject", "prvDiaNondetectionLimits"):
                assert value is None
            else:
                assert value == new[ALERT_RENAMED.get(name, name)]
    renamed = {(record, name) for record, names in RENAMED.items() for name in names}
    expected = {(r, n) for r, n in renamed if any(f.name == n for f in fields_of(text, r))}
    assert checked & renamed == expected


def fields_of(text, record):
    found = version(text).records
    names = {"DiaSource": "diaSource", "DiaObject": "diaObject", "DiaForcedSource": "diaForcedSource",
             "SSSource": "ssSource", "mpc_orbits": "mpc_orbits" if "10" <= text < "2" else "MPCORB"}
    return next((fields for table, fields in found.items() if names[table] == record), ())


def compare(record, old, new, ss_source):
    checked = set()
    for name, value in old.items():
        origin = RENAMED.get(record, {}).get(name, Origin(name))
        if (record, name) == ("MPCORB", "ssObjectId"):
            expected = ss_source["ssObjectId"]
        elif origin.column in new:
            expected = new[origin.column]
        else:
            assert value is None, f"{record}.{name} has no source, and holds {value}"
            continue
        checked.add((record, name))
        if origin.utc:
            seconds = (expected - 40587.0) * 86400.0 - 37.0
            assert value.timestamp() == pytest.approx(seconds, abs=1e-5)
        elif origin.factor != 1.0 and expected is not None:
            assert value == pytest.approx(expected * origin.factor, rel=1e-6)
        elif isinstance(value, float) and isinstance(expected, float):
            assert value in (expected, float(np.float32(expected)))
        else:
            assert value == expected, f"{record}.{name}"
    return checked


def test_units_of_version_8_are_its_own():
    """Velocities in au/d where today has km/s, residuals in degrees where today has arcsec (their declarations)."""
    folder = Path(lsst.alert.packet.get_schema_path(8, 0))
    said = {field["name"]: field["doc"]
            for field in json.loads((folder / "lsst.v8_0.ssSource.avsc").read_text())["fields"]}
    assert "[AU/d]" in said["heliocentricVX"]
    assert "[deg]" in said["residualRa"]
    earth = 29.78                                    # mean orbital speed [km/s]
    assert earth * RENAMED["ssSource"]["heliocentricVX"].factor == pytest.approx(0.0172, abs=2e-5)    # Gauss's k
    assert 3600.0 * RENAMED["ssSource"]["residualRa"].factor == pytest.approx(1.0)


def test_timestamps_are_utc():
    assert utc(np.array([57754.0 + 37.0 / 86400.0]))[0] == np.datetime64(datetime(2017, 1, 1))   # TAI - UTC is 37 s
    assert np.isnat(utc(np.array([np.nan]))[0])
    found = read_packet(full(config=AlertConfig(schema="8.0"))[1].packets[0])["diaSource"]["time_processed"]
    assert found.tzinfo is UTC or found.utcoffset().total_seconds() == 0


def test_a_version_that_there_is_not_is_refused_with_those_that_there_are():
    message = r"alert\.schema must be one of 7\.4, 8\.0, 9\.0, 10\.0, 11\.0, 11\.1 .*, got '{}'"
    for wrong in ("12.0", "7.3", "11", "", "11.10", "latest"):
        with pytest.raises(ValueError, match=message.format(wrong)):
            AlertConfig(schema=wrong)
    with pytest.raises(msgspec.ValidationError, match=message.format("6.0")):
        msgspec.convert({"alert": {"schema": "6.0"}}, PipelineConfig)


def test_a_required_field_without_a_source_is_refused():
    fields = (Field("unheard", "long", False, Origin("unheard")),)
    with pytest.raises(ValueError, match="DiaSource: unheard may not be null and has no source"):
        encode(DIA_SOURCE, DIA_SOURCE.empty(1), fields=fields)


def test_every_version_of_ours_is_read_with_its_visit(written):
    text, _, segment = written
    found = read_packet(segment.packets[0])
    assert found.get("target_name", VISIT.target_name) == VISIT.target_name
    assert found["diaSource"]["midpointMjdTai"] == VISIT.mjd_tai
    assert ("alertId" in found) == (text == "7.4")
