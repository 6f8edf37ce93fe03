"""A night's alerts through Kafka to those who consume them: archive and filters have what the twin sent."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.alerts.read import read_packet, read_packets, source_id
from pipeline.sinks.kafka import KafkaSink
from tests.pipeline.serve.conftest import broker
from tests.pipeline.serve.streams import ROOT, Broker, command
from tests.twin.nights import night, ports_of, sky, visit_of

__all__ = ["broker"]     # a fixture

VISITS = 3
PER_VISIT = 26       # more than a user's 20


class Keeping(KafkaSink):
    """A Kafka sink that remembers what it sent."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker.servers, broker.topic, headers={"simulated": "true"},
                         transactions=broker.real)
        self.sent: list[bytes] = []

    def send(self, packets, keys=(), position=None):
        acknowledged = super().send(packets, keys, position)
        self.sent += packets[:acknowledged]
        return acknowledged


@pytest.fixture
def sent(broker):
    """The packets of a small night, on a topic."""
    sink = Keeping(broker)
    ports = ports_of(sink=sink)
    night([visit_of(i) for i in range(VISITS)], sky(PER_VISIT), ports)
    sink.close()
    return {source_id(packet): packet for packet in sink.sent}


def test_archive_and_filters_have_what_the_twin_sent(broker, sent, tmp_path):
    (tmp_path / "filters.toml").write_text(f"""
        [[filters]]
        user = "bright"
        sink = "file:{tmp_path}/bright/"
        sql = "SELECT diaSourceId FROM alerts ORDER BY psfFlux DESC"
        [[filters]]
        user = "again"
        sink = "file:{tmp_path}/again/"
        sql = "SELECT alertId AS diaSourceId FROM history GROUP BY alertId HAVING count(*) >= 2 ORDER BY alertId"
        packets = 10
        """)
    with command("archive", "ingest", *broker.stream, "--store", tmp_path / "store", cwd=tmp_path) as ingest, \
            command("filter", *broker.stream, "--group", f"{broker.group}-filter", "--config",
                    tmp_path / "filters.toml", cwd=tmp_path) as filters:
        for process in (ingest, filters):
            errors = process.communicate(timeout=90)[1]
            assert process.returncode == 0, errors
    archived = {int(path.name.partition(".")[0]): gzip.decompress(path.read_bytes())
                for path in (tmp_path / "store/v2/alerts").glob("*/*.avro.gz")}
    assert len(sent) == VISITS * PER_VISIT
    assert archived == sent

    alerts = {one: read_packet(packet) for one, packet in sent.items()}
    for visit in (visit_of(i).visit for i in range(VISITS)):
        of_visit = [one for one in alerts.values() if one["diaSource"]["visit"] == visit]
        expected = sorted(of_visit, key=lambda one: -one["diaSource"]["psfFlux"])[:20]
        assert ids_of(tmp_path / "bright", visit) == [one["diaSourceId"] for one in expected]
        twice = sorted(one["diaSourceId"] for one in of_visit if len(one["prvDiaSources"] or ()) >= 2)
        assert ids_of(tmp_path / "again", visit) == twice[:10]
    assert ids_of(tmp_path / "again", visit_of(VISITS - 1).visit)


def ids_of(folder: Path, visit: int) -> list[int]:
    """What a user was sent of a visit, in its order."""
    return [source_id(packet) for packet in read_packets(folder)
            if read_packet(packet)["diaSource"]["visit"] == visit] if folder.is_dir() else []


@pytest.fixture
def kcat():
    import shutil

    found = shutil.which("kcat")
    if found is None:
        pytest.skip("kcat is not installed (apt-get install kcat)")
    return found


def test_kcat_reads_the_same_packets(broker, sent, kcat):
    """An independent consumer: the lengths and bytes of the messages are those of the packets."""
    words = "-b", broker.servers, "-t", broker.topic, "-X", "isolation.level=read_committed", "-f", "%S %h\\n%s"
    read = subprocess.run([kcat, "-C", *words, "-e", "-q"], capture_output=True, timeout=60, check=True,
                          env={**os.environ, "LC_ALL": "C"}).stdout
    found = []
    while read:
        size, _, rest = read.partition(b"\n")
        length, headers = size.split(b" ", 1)
        assert b"simulated=true" in headers
        found.append(rest[:int(length)])
        read = rest[int(length):]
    assert sorted(found) == sorted(sent.values())


def test_the_commands_start_without_their_drivers():
    code = ("import sys, twin.cli; twin.cli._parser(); "
            "print({'confluent_kafka', 'duckdb', 'fastapi', 'uvicorn', 'fsspec'} & set(sys.modules))")
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
