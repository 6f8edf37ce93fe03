"""Our packets in the hands of others: Rubin's own reader and writer, Confluent's deserializer with a registry."""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fastavro
import lsst.alert.packet
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

from pipeline.alerts import read_packet
from pipeline.alerts.read import schema_json, to_container
from pipeline.config import AlertConfig
from schemas.alert_versions import packaged, version, writable
from tests.pipeline.alerts.makers import full

WHERE = SerializationContext("alerts-simulated", MessageField.VALUE)


class Registry(BaseHTTPRequestHandler):
    """Answers GET /schemas/ids/ID as a Confluent registry does."""

    asked: list[str] = []

    def do_GET(self) -> None:
        place, _, name = self.path.partition("?")[0].rpartition("/")
        self.asked.append(f"{place}/{name}")
        identifier = int(name) if place == "/schemas/ids" else 0       # nothing else is known, as of a plain registry
        known = identifier in {major * 100 + minor for major, minor in packaged()}
        found = {"schema": schema_json(identifier)} if known else {"error_code": 40403, "message": "Schema not found"}
        body = json.dumps(found).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def packets() -> dict[str, tuple[bytes, ...]]:
    """Few packets of every version."""
    return {text: full(n=5, per_object=3, config=AlertConfig(schema=text))[1].packets for text in writable()}


def test_confluents_deserializer_reads_a_stream_of_all_versions(registry, packets):
    """It asks the registry for each id once, and gives what we read."""
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry}))
    Registry.asked.clear()
    for several in zip(*packets.values(), strict=True):
        for packet in several:
            assert deserialize(packet, WHERE) == read_packet(packet)
    asked = [path for path in Registry.asked if path.startswith("/schemas")]
    assert sorted(asked) == sorted(f"/schemas/ids/{version(text).schema_id}" for text in packets)


def test_confluents_deserializer_refuses_an_id_that_the_registry_has_not(registry, packets):
    """The control: the id in the header is what it goes by."""
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry, "max.retries": 0}))
    packet = packets["11.1"][0]
    with pytest.raises(SchemaRegistryError, match="Schema not found"):
        deserialize(packet[:3] + b"\x07\x07" + packet[5:], WHERE)
    assert_other(deserialize, packet[:3] + (1000).to_bytes(2, "big") + packet[5:], read_packet(packet))


def assert_other(deserialize, packet, expected):
    with suppress(IndexError, EOFError, UnicodeDecodeError):
        assert deserialize(packet, WHERE) != expected


def test_rubins_own_writer_makes_our_bytes_and_its_reader_our_alerts(packets):
    for text, several in packets.items():
        major, minor = map(int, text.split("."))
        folder = Path(lsst.alert.packet.get_schema_path(major, minor))
        schema = lsst.alert.packet.Schema.from_file(str(folder / f"lsst.v{major}_{minor}.alert.avsc"))
        for packet in several:
            alert = schema.deserialize(packet[5:])
            assert alert == read_packet(packet)
            assert schema.serialize(alert) == packet[5:]
        stored = io.BytesIO()
        schema.store_alerts(stored, [read_packet(packet) for packet in several])
        stored.seek(0)
        _, again = schema.retrieve_alerts(stored)
        assert list(again) == [read_packet(packet) for packet in several]
        _, ours = schema.retrieve_alerts(io.BytesIO(to_container(several)))
        assert list(ours) == [read_packet(packet) for packet in several]


def test_rubins_reader_of_the_newest_version_reads_what_version_11_0_stored(packets):
    """Schema evolution as consumers have it: a file of 11.0 under a reader of 11.1."""
    _, found = lsst.alert.packet.Schema.from_file().retrieve_alerts(io.BytesIO(to_container(packets["11.0"])))
    for alert, packet in zip(found, packets["11.0"], strict=True):
        assert alert["diaSource"]["psfFlux"] == read_packet(packet)["diaSource"]["psfFlux"]


def test_a_registrys_schema_is_the_official_one():
    for text in writable():
        major, minor = map(int, text.split("."))
        folder = Path(lsst.alert.packet.get_schema_path(major, minor))
        official = lsst.alert.packet.Schema.from_file(str(folder / f"lsst.v{major}_{minor}.alert.avsc")).definition
        ours = json.loads(schema_json(version(text).schema_id))
        canonical = [fastavro.schema.to_parsing_canonical_form(fastavro.parse_schema(one)) for one in (ours, official)]
        assert canonical[0] == canonical[1]
