"""Schema registries as consumers use them: our own, a real one, and what registering does."""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient, SchemaRegistryError
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from fastapi.testclient import TestClient

from pipeline.alerts.read import read_packet
from pipeline.alerts.versions import SUBJECT, packaged, subjects
from pipeline.errors import InputError
from pipeline.serve.register import register
from pipeline.serve.registry import make_app
from twin.packets import distinct

VALUE = SerializationContext("alerts-simulated", MessageField.VALUE)


@pytest.fixture(scope="module")
def served():
    """Our registry in a process of its own, by its command."""
    process = subprocess.Popen([sys.executable, "-m", "twin.cli", "schemas", "serve", "--port", "0"],
                               stdout=subprocess.PIPE, text=True)
    url, end = process.stdout.readline().removeprefix("alert schemas at ").strip(), time.monotonic() + 30
    assert url.startswith("http://127.0.0.1:")
    while True:
        try:
            urllib.request.urlopen(url + "/mode", timeout=1).close()
            break
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)
    yield url
    process.terminate()
    process.wait(10)
    process.stdout.close()


@pytest.fixture(scope="module")
def client():
    return TestClient(make_app())


def packet():
    return next(distinct(1, 2, 3, seed=1)).packets[0]


def test_every_packaged_version_has_the_id_of_its_packets():
    ids = [schema.id for schema in packaged()]
    assert ids == sorted(set(ids))
    assert {704, 1001, 1101} & set(ids) == {704, 1101}
    assert packaged()[-1].version == "11.1"
    assert [one.number for one in subjects() if one.subject == SUBJECT] == list(range(1, len(ids) + 1))
    assert {one.subject for one in subjects()} > {"alert-packet", "lsst-alerts-v11.1-value", "lsst-alerts-v7.4-value"}


@contextmanager
def asking(url):
    """Confluent's own client, its connections closed afterwards."""
    registry = SchemaRegistryClient({"url": url})
    try:
        yield registry
    finally:
        registry._rest_client.session.close()


def read_with(url):
    """A packet as a consumer with confluent-kafka's own reader has it."""
    with asking(url) as registry:
        return AvroDeserializer(registry)(packet(), VALUE)


def test_confluents_client_reads_our_packets_with_our_registry(served):
    assert read_with(served) == read_packet(packet())


def test_confluents_client_finds_its_way_in_our_registry(served):
    with asking(served) as registry:
        look_around(registry)


def look_around(registry):
    assert set(registry.get_subjects()) == {one.subject for one in subjects()}
    assert registry.get_versions(SUBJECT) == list(range(1, len(packaged()) + 1))
    latest = registry.get_latest_version(SUBJECT)
    assert (latest.schema_id, latest.version) == (1101, len(packaged()))
    assert latest.schema.schema_str == packaged()[-1].text
    assert registry.get_version("lsst-alerts-v7.4-value", 1).schema_id == 704
    assert registry.get_compatibility() == "NONE"
    with pytest.raises(SchemaRegistryError, match="Schema 1 not found"):
        registry.get_schema(1)
    with pytest.raises(SchemaRegistryError, match="this registry is read-only"):
        registry.register_schema(SUBJECT, latest.schema)
    with pytest.raises(SchemaRegistryError, match="this registry is read-only"):
        registry.delete_subject(SUBJECT)


@pytest.mark.parametrize(("path", "answer"), [
    ("/", {}), ("/schemas/types", ["AVRO"]), ("/config", {"compatibilityLevel": "NONE"}),
    ("/config/alert-packet", {"compatibilityLevel": "NONE"}), ("/mode", {"mode": "READONLY"}),
    ("/mode/alert-packet", {"mode": "READONLY"}), ("/contexts", ["."]),
    ("/schemas/ids/1101/subjects", ["alert-packet", "lsst-alerts-v11.1-value"]),
    ("/schemas/ids/704/versions", [{"subject": "alert-packet", "version": 10},
                                   {"subject": "lsst-alerts-v7.4-value", "version": 1}]),
    ("/schemas/ids/1101/schema", json.loads(packaged()[-1].text)),
    ("/subjects/alert-packet/versions/latest/schema", json.loads(packaged()[-1].text)),
])
def test_what_clients_ask_is_answered(client, path, answer):
    found = client.get(path)
    assert (found.status_code, found.json()) == (200, answer)
    assert found.headers["content-type"] == "application/vnd.schemaregistry.v1+json"


@pytest.mark.parametrize(("path", "status", "code"), [
    ("/schemas/ids/9999", 404, 40403), ("/schemas/ids/..%2f..%2fetc", 404, 404), ("/schemas/ids/٣", 404, 40403),
    ("/schemas/ids/" + "9" * 400, 404, 40403), ("/schemas/ids/-1", 404, 40403),
    ("/subjects/nobody/versions", 404, 40401), ("/subjects/alert-packet/versions/99", 404, 40402),
    ("/subjects/alert-packet/versions/0", 422, 42202), ("/subjects/alert-packet/versions/x", 422, 42202),
    ("/config/nobody", 404, 40401), ("/associations/resources/-/alerts-simulated", 404, 404), ("/docs", 404, 404)])
def test_what_is_not_there_is_an_error_of_confluents_form(client, path, status, code):
    found = client.get(path)
    assert (found.status_code, found.json()["error_code"]) == (status, code)
    assert "\n" not in found.json()["message"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/subjects/alert-packet/versions", "/mode", "/config", "/schemas/ids/1101", "/none"])
def test_nothing_can_be_written(client, method, path):
    found = client.request(method, path, json={"schema": "{}"})
    assert (found.status_code, found.json()["error_code"]) == (405, 405)
    assert found.headers["allow"] == "GET, HEAD"


# --- registering ------------------------------------------------------------------------------------------------------


class Confluent(BaseHTTPRequestHandler):
    """As much of a server with mode IMPORT as registering needs: ids are forced in that mode, its own in the other."""

    keeps_ids = True

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        state, parts = self.server.state, self.path.strip("/").split("/")
        if parts == ["mode"]:
            return self.answer(200, {"mode": state["mode"]})
        if parts[:2] == ["schemas", "ids"]:
            return self.answer(200, {"schema": state["ids"][int(parts[2].partition("?")[0])]})
        return self.answer(404, {"error_code": 404, "message": "no"})

    def do_DELETE(self):
        subject = self.path.split("/")[2].partition("?")[0]
        if subject not in self.server.state["subjects"]:
            return self.answer(404, {"error_code": 40401, "message": "Subject not found"})
        if self.path.endswith("permanent=true"):
            del self.server.state["subjects"][subject]
        return self.answer(200, [1])

    def do_PUT(self):
        self.server.state["mode"] = self.body()["mode"]
        self.server.state["modes"].append(self.server.state["mode"])
        return self.answer(200, {"mode": self.server.state["mode"]})

    def do_POST(self):
        state, subject, body = self.server.state, self.path.split("/")[2], self.body()
        if state["mode"] != "IMPORT":
            return self.answer(422, {"error_code": 42205, "message": "Subject is not in import mode"})
        identifier = body["id"] if state["keeps_ids"] else len(state["ids"]) + 1
        state["ids"][identifier] = body["schema"]
        state["subjects"].setdefault(subject, []).append((body["version"], identifier, body.get("metadata")))
        return self.answer(200, {"id": identifier})

    def body(self):
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, status, content):
        raw = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


@pytest.fixture
def confluent():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Confluent)
    server.state = {"mode": "READWRITE", "modes": [], "ids": {}, "subjects": {"alert-packet": [(1, 7, None)]},
                    "keeps_ids": True}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def url_of(server):
    return f"http://127.0.0.1:{server.server_port}"


def test_registering_forces_the_packets_ids_and_leaves_the_server_writable(confluent):
    n = len(packaged())
    for _ in range(2):                            # what was there before is replaced
        assert register(url_of(confluent)) == f"{n} schema versions under {n + 1} subjects in {url_of(confluent)}"
    state = confluent.state
    assert state["modes"] == ["IMPORT", "READWRITE"] * 2
    assert [(version, identifier) for version, identifier, _ in state["subjects"]["alert-packet"]] == \
        [(k, schema.id) for k, schema in enumerate(packaged(), 1)]
    assert state["subjects"]["lsst-alerts-v11.1-value"] == [(1, 1101, {"properties": {"confluent:version": "1"}})]
    assert read_with(url_of(confluent)) == read_packet(packet())


def test_a_server_that_gives_ids_of_its_own_is_refused_and_left_writable(confluent):
    confluent.state["keeps_ids"] = False
    with pytest.raises(InputError, match=r"gave version 3\.0 the id 1 of its own instead of 300"):
        register(url_of(confluent))
    assert confluent.state["mode"] == "READWRITE"


def test_a_real_registry_without_forced_ids_is_refused_and_by_its_own_protocol_keeps_them(registry_server):
    with pytest.raises(InputError, match="it has no mode IMPORT, so it gives ids of its own") as error:
        register(registry_server.confluent)
    assert "\n" not in str(error.value)
    register(registry_server.native)
    with asking(registry_server.confluent) as registry:
        assert set(registry.get_subjects()) == {one.subject for one in subjects()}
        for schema in packaged():
            assert json.loads(registry.get_schema(schema.id).schema_str) == json.loads(schema.text)
        assert registry.get_latest_version(SUBJECT).schema_id == 1101
        assert registry.get_latest_version("lsst-alerts-v11.1-value").schema_id == 1101
    assert read_with(registry_server.confluent) == read_packet(packet())


@pytest.mark.parametrize(("url", "message"), [("ftp://x", r"schema registry 'ftp://x': expected http://host:port"),
                                              ("http://127.0.0.1:1", "Connection refused")])
def test_a_registry_that_is_not_there_is_one_line(url, message):
    with pytest.raises(InputError, match=message):
        register(url)


def test_a_port_in_use_is_one_line(served, capsys):
    from twin.cli import main

    assert main(["schemas", "serve", "--port", served.rsplit(":", 1)[1]]) == 2
    assert "alert-twin: schema registry: cannot listen on 127.0.0.1:" in capsys.readouterr().err
