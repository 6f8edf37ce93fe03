"""One Apache Kafka broker in KRaft mode, with a listener of every kind of authentication."""

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource
from confluent_kafka.cimpl import NewTopic

from tests.servers.fetch import kafka_jars
from tests.servers.process import JavaServer, free_ports

USER: Final = "packager"
PASSWORD: Final = "open sesame"
KINDS: Final = ("PLAINTEXT", "SASL_PLAINTEXT", "SASL_SSL", "SSL")
_STORE_PASSWORD: Final = "changeit"

_SETTINGS: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={listeners}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,\
SASL_SSL:SASL_SSL,SSL:SSL
sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
{plain}
ssl.keystore.location={folder}/broker.p12
ssl.keystore.password=changeit
ssl.keystore.type=PKCS12
log.dirs={folder}/data
num.partitions=3
message.max.bytes=8000000
replica.fetch.max.bytes=8000000
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=300
group.initial.rebalance.delay.ms=0
log.segment.bytes=67108864
"""
_PLAIN: Final = ("listener.name.{listener}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain."
                 'PlainLoginModule required user_{user}="{password}";\n'
                 "listener.name.{listener}.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram."
                 "ScramLoginModule required;")


@dataclass(slots=True)
class Kafka:
    """A broker whose data lie in `folder`; it can be killed and started again."""

    folder: Path
    heap_mb: int = 384
    quick_start: bool = True       # compile quickly rather than well: not for timings
    ports: dict[str, int] = field(default_factory=dict)
    server: JavaServer | None = None

    def start(self) -> "Kafka":
        if not self.ports:
            self._format()
        classes = f"{kafka_jars()}/*"
        compile_ = ("-XX:TieredStopAtLevel=1",) if self.quick_start else ()
        self.server = JavaServer((f"-Xmx{self.heap_mb}m", *compile_, "-cp", classes, "kafka.Kafka",
                                  str(self.folder / "server.properties")), self.folder, self.ports["PLAINTEXT"])
        self.server.start(self._ready)
        return self

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()

    def kill(self) -> None:
        assert self.server is not None
        self.server.kill()

    def address(self, kind: str = "PLAINTEXT") -> str:
        return f"127.0.0.1:{self.ports[kind]}"

    @property
    def certificate(self) -> Path:
        """The authority that a client of TLS must trust."""
        return self.folder / "broker.pem"

    def cpu_s(self) -> float:
        """CPU seconds that it has used."""
        assert self.server is not None
        assert self.server.process is not None
        fields = Path(f"/proc/{self.server.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def topic(self, name: str, partitions: int = 1, **settings: str) -> str:
        """Make a topic."""
        admin = AdminClient({"bootstrap.servers": self.address(), "log_level": 2})
        for future in admin.create_topics([NewTopic(name, partitions, 1, config=settings)]).values():
            future.result(30)
        return name

    def setting(self, topic: str, name: str) -> str:
        """A setting of a topic."""
        admin = AdminClient({"bootstrap.servers": self.address(), "log_level": 2})
        found = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)])
        return str(next(iter(found.values())).result(30)[name].value)

    def empty(self, topic: str, partitions: int = 1) -> None:
        """Delete a topic's records, so that a long test does not fill the disk."""
        admin = AdminClient({"bootstrap.servers": self.address(), "log_level": 2})
        everything = [TopicPartition(topic, p, -1) for p in range(partitions)]
        for future in admin.delete_records(everything).values():
            future.result(30)

    def _ready(self) -> bool:
        try:
            admin = AdminClient({"bootstrap.servers": self.address(), "log_level": 0})
            return bool(admin.list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def _format(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        *found, controller = free_ports(len(KINDS) + 1)
        self.ports = dict(zip(KINDS, found, strict=True))
        listeners = ",".join(f"{kind}://127.0.0.1:{port}" for kind, port in self.ports.items())
        plain = "\n".join(_PLAIN.format(listener=listener, user=USER, password=PASSWORD)
                          for listener in ("sasl_plaintext", "sasl_ssl"))
        (self.folder / "server.properties").write_text(_SETTINGS.format(
            controller=controller, listeners=listeners, folder=self.folder, plain=plain))
        store = str(self.folder / "broker.p12")
        _run("keytool", "-genkeypair", "-alias", "broker", "-keyalg", "EC", "-validity", "36500", "-dname",
             "CN=127.0.0.1", "-ext", "SAN=ip:127.0.0.1,dns:localhost", "-ext", "bc:c", "-storetype", "PKCS12",
             "-keystore", store, "-storepass", _STORE_PASSWORD)
        _run("keytool", "-exportcert", "-rfc", "-alias", "broker", "-keystore", store, "-storepass", _STORE_PASSWORD,
             "-file", str(self.certificate))
        _run("java", "-XX:TieredStopAtLevel=1", "-cp", f"{kafka_jars()}/*", "kafka.tools.StorageTool", "format",
             "--cluster-id", "YWxlcnQtdHdpbi10ZXN0cw", "--config", str(self.folder / "server.properties"),
             "--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout[-1000:]} {done.stderr[-1000:]}")
