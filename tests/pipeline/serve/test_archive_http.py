"""The archive over HTTP: forms, cutouts, and requests that try to leave it."""

import base64
import gzip
import io
import json
import re
import socket
import struct
import zlib
from pathlib import Path
from urllib.request import urlopen

import fastavro
import numpy as np
import pytest
from astropy.io import fits
from starlette.testclient import TestClient

from pipeline.alerts.read import from_container, read_packet, read_stamp, schema_of
from pipeline.errors import PacketError, RetriableError
from pipeline.serve.archive import Archive, alert_key, open_archive
from pipeline.serve.archive_http import make_app
from pipeline.serve.pictures import first_image, picture
from tests.pipeline.serve.streams import command, identifiers, packets
from tests.pipeline.serve.test_archive import alert_of, wait_for

PACKET = packets()[0]
ID = identifiers([PACKET])[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("served") / "store"
    archive = open_archive(str(place), create=True)
    for packet in packets():
        archive.put(alert_of(packet))
    (place.parent / "secret.avro.gz").write_bytes(gzip.compress(b"secret"))
    (place / "v2" / "schemas" / "x.json").write_bytes(b"secret")
    return place


@pytest.fixture(scope="module")
def client(folder):
    return TestClient(make_app(open_archive(str(folder))), raise_server_exceptions=False)


def test_it_says_that_it_lives(client):
    assert client.get("/v1/health").json() == {"status": "ok"}


def test_an_alert_comes_as_it_was_archived(client):
    answer = client.get(f"/v1/alerts/{ID}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-schema-id"] == "1101"
    assert answer.content == PACKET


@pytest.mark.parametrize("how", [{"params": {"format": "avro"}}, {"headers": {"Accept": "application/avro"}},
                                 {"headers": {"Accept": "text/html, application/json;q=0.5, application/avro;q=0.9"}}])
def test_an_alert_comes_as_an_avro_file(client, how):
    answer = client.get(f"/v1/alerts/{ID}", **how)
    assert answer.headers["content-type"] == "application/avro"
    assert [one["diaSourceId"] for one in fastavro.reader(io.BytesIO(answer.content))] == [ID]
    assert from_container(answer.content) == [PACKET]


@pytest.mark.parametrize("how", [{"params": {"format": "json"}}, {"headers": {"Accept": "application/json"}},
                                 {"params": {"format": "json"}, "headers": {"Accept": "application/avro"}}])
def test_an_alert_comes_as_json(client, how):
    answer = client.get(f"/v1/alerts/{ID}", **how)
    assert answer.headers["content-type"] == "application/json"
    found, expected = answer.json(), read_packet(PACKET)
    assert found["diaSourceId"] == ID
    assert found["diaSource"]["psfFlux"] == expected["diaSource"]["psfFlux"]
    assert len(found["prvDiaSources"]) == len(expected["prvDiaSources"])
    assert base64.b64decode(found["cutoutScience"]) == expected["cutoutScience"]


def test_a_schema_comes_as_json(client):
    answer = client.get("/v1/schemas/1101")
    assert answer.headers["content-type"] == "application/json"
    assert fastavro.parse_schema(answer.json()) == schema_of(1101)


@pytest.mark.parametrize("kind", ["difference", "science", "template"])
def test_cutouts_come_as_fits_and_as_pictures(client, kind):
    content = read_packet(PACKET)[f"cutout{kind.capitalize()}"]
    answer = client.get(f"/v1/alerts/{ID}/cutouts/{kind}.fits")
    assert (answer.content, answer.headers["content-type"]) == (content, "application/fits")
    answer = client.get(f"/v1/alerts/{ID}/cutouts/{kind}.png")
    assert answer.headers["content-type"] == "image/png"
    image = decoded(answer.content)
    stamp = read_stamp(content).image
    assert image.shape == (6 * stamp.shape[0], 6 * stamp.shape[1])
    y, x = np.unravel_index(np.argmax(stamp), stamp.shape)
    assert image[6 * (stamp.shape[0] - 1 - y) + 3, 6 * x + 3] == 255      # the first row is below


def decoded(content):
    """The pixels of a grey PNG, read with Pillow, which comes with matplotlib."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(content)))


def test_what_is_not_there_is_404_in_one_line(client):
    for path, said in ((f"/v1/alerts/{ID + 10**6}", f"alert {ID + 10**6} is not in the archive"),
                       ("/v1/schemas/1100", "schema 1100 is not in the archive (v2/schemas/1100.json)"),
                       (f"/v1/alerts/{ID + 10**6}/cutouts/science.png", f"alert {ID + 10**6} is not in the archive"),
                       ("/v1/nothing", "Not Found")):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (404, {"detail": said})


BAD_IDS = ["0", "-1", "-170055002004914266", str(2**63), "9" * 19, "9" * 5000, "1e5", "0x10", "1.0", "+5", "007",
           "1_000", "%20%35", "5%20", "5%00", "5%0a", "٣", "١٧", "%D9%A3", "¹", "５", "nan", "true", "x", "../secret",
           "%2e%2e",
           "%2e%2e%2fsecret", "..%2f..%2fsecret", "..%5c..%5csecret", "%252e%252e%252f", "..", "secret.avro.gz",
           "x.json", "*", "[0-9]", "~", "s3:%2f%2fbucket", "memory:%2f%2fx", "file:%2f%2f%2fetc%2fpasswd"]


@pytest.mark.parametrize("bad", BAD_IDS, ids=ascii)
@pytest.mark.parametrize("path", ["/v1/alerts/{}", "/v1/schemas/{}", "/v1/alerts/{}/cutouts/science.png",
                                  "/v1/alerts/{}/cutouts/science.fits"])
def test_what_is_no_id_reaches_no_file(client, monkeypatch, path, bad):
    def touched(*_):
        raise AssertionError("a file was asked for")

    if path.startswith("/v1/schemas") and bad == "0":
        return
    monkeypatch.setattr("pipeline.serve.archive.FolderStore.get", touched)
    answer = client.get(path.format(bad))
    assert answer.status_code in (404, 422), answer.text
    assert len(answer.text) < 300
    assert "\n" not in answer.text
    assert "secret" not in answer.json()["detail"].replace(ascii(bad), "").partition(":")[2]


def test_the_check_above_sees_a_file_that_is_asked_for(client, monkeypatch):
    def touched(*_):
        raise AssertionError("a file was asked for")

    monkeypatch.setattr("pipeline.serve.archive.FolderStore.get", touched)
    assert client.get("/v1/alerts/5").status_code == 500


@pytest.mark.parametrize("path", [f"/v1/alerts/{ID}/cutouts/{kind}" for kind in (
    "other.png", "science.jpg", "science", "../../x.png", "%2e%2e%2fx.png", "Science.png", "science.png.fits",
    "diaSource.fits")])
def test_other_cutouts_are_refused(client, path):
    assert client.get(path).status_code in (404, 422)


def test_another_form_is_refused_in_one_line(client):
    answer = client.get(f"/v1/alerts/{ID}?format=pickle")
    assert answer.status_code == 422
    assert re.match(r"query format 'pickle': Input should be", answer.json()["detail"])


@pytest.mark.parametrize(("content", "said"), [
    (gzip.compress(bytes(50_000_000)), "unpacks to more than 4194304 bytes"),
    (b"plain", "not gzip"), (gzip.compress(PACKET)[:-9], "cut short")], ids=["bomb", "plain", "cut"])
def test_a_file_that_is_no_packet_is_an_error_in_one_line(tmp_path, content, said):
    path = tmp_path / alert_key(7)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    answer = TestClient(make_app(open_archive(str(tmp_path)))).get("/v1/alerts/7")
    assert answer.status_code == 500
    assert answer.json()["detail"].startswith("alert 7: its file in the archive")
    assert said in answer.json()["detail"]


def test_a_packet_that_cannot_be_decoded_is_given_raw_and_not_otherwise(tmp_path):
    path = tmp_path / alert_key(7)
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(PACKET[:300], mtime=0))
    client = TestClient(make_app(open_archive(str(tmp_path))))
    assert client.get("/v1/alerts/7").content == PACKET[:300]
    answer = client.get("/v1/alerts/7?format=json")
    assert answer.status_code == 500
    assert answer.json()["detail"].startswith("packet unreadable at byte")


def test_a_store_that_does_not_answer_is_503():
    class Away:
        def get(self, key):
            raise RetriableError("archive: the store is away")

    answer = TestClient(make_app(Archive(Away()))).get("/v1/alerts/7")
    assert (answer.status_code, answer.json()) == (503, {"detail": "archive: the store is away"})


def test_openapi_describes_every_path(client):
    found = client.get("/openapi.json").json()
    assert set(found["paths"]) == {"/v1/health", "/v1/alerts/{id}", "/v1/schemas/{id}",
                                   "/v1/alerts/{id}/cutouts/{kind}.fits", "/v1/alerts/{id}/cutouts/{kind}.png"}
    answers = found["paths"]["/v1/alerts/{id}"]["get"]["responses"]
    assert set(answers["200"]["content"]) == {"application/octet-stream", "application/avro", "application/json"}
    assert {"404", "422", "500", "503"} <= set(answers)
    assert client.get("/docs").status_code == 404


def image_file(data, **cards):
    buffer = io.BytesIO()
    hdu = fits.PrimaryHDU(data)
    hdu.header.update(cards)
    hdu.writeto(buffer)
    return buffer.getvalue()


def test_pictures_of_constants_and_of_nothing_finite_are_dark():
    for data in (np.full((30, 31), 5.0), np.full((30, 31), np.nan), np.full((30, 31), np.inf)):
        image = decoded(picture(image_file(data.astype(np.float32))))
        assert image.shape == (180, 186)
        assert not image.any()


def announced(ny, nx):
    """A FITS file that says it has more pixels than it has."""
    content = image_file(np.zeros((10, 10), np.float32))
    for axis, size in ((1, nx), (2, ny)):
        content = content.replace(f"NAXIS{axis}  = {10:20d}".encode(), f"NAXIS{axis}  = {size:20d}".encode())
    return content


@pytest.mark.parametrize(("content", "said"), [
    (announced(10**9, 10**9), "1 to 1000 pixels"), (announced(900, 900), "cutout: "),
    (gzip.compress(image_file(np.zeros((9, 9)))), "not a FITS file"), (b"SIMPLE  =", "cutout: "),
    (image_file(np.zeros((3, 3, 3))), "two axes"), (image_file(None), "two axes"),
    (image_file(np.zeros((2, 2)))[:2880], "cutout: "), (b"", "not a FITS file")])
def test_a_cutout_that_is_no_image_is_an_error(content, said):
    with pytest.raises(PacketError, match=said):
        first_image(content)


def test_a_png_is_what_the_standard_says():
    content = picture(image_file(np.arange(12, dtype=np.float32).reshape(3, 4)))
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (24, 18)
    assert zlib.crc32(content[12:29]) == struct.unpack(">I", content[29:33])[0]


def test_the_command_serves_on_this_machine_alone(folder):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    with command("archive", "serve", "--store", folder, "--port", port) as process:
        def answers():
            assert process.poll() is None, process.stderr.read()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_for(answers)
        with urlopen(f"http://127.0.0.1:{port}/v1/alerts/{ID}", timeout=10) as answer:
            assert answer.read() == PACKET
        raw = b"GET /v1/alerts/../../../secret HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), 10) as line:      # clients tidy such paths, this does not
            line.sendall(raw)
            said = b"".join(iter(lambda: line.recv(65536), b""))
        assert said.startswith(b"HTTP/1.1 404")
        assert json.loads(said.partition(b"\r\n\r\n")[2]) == {"detail": "Not Found"}
        assert listeners(port) == {"0100007F"}      # 127.0.0.1
        process.terminate()
        assert process.wait(20) in (0, -15)


def listeners(port):
    """Addresses on which somebody listens at a port, as the kernel writes them."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            address, _, number = line.split()[1].rpartition(":")
            if int(number, 16) == port and line.split()[3] == "0A":
                found.add(address)
    return found


def test_serving_what_is_not_there_ends_in_one_line(tmp_path):
    with command("archive", "serve", "--store", tmp_path / "none") as process:
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert errors == f"alert-twin: archive '{tmp_path}/none': there is no folder {tmp_path}/none\n"
