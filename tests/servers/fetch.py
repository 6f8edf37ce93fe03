"""The servers' programs, fetched once from Maven Central into the user's cache, outside the repository.

    kafka/       Apache Kafka and what it needs (45 jars, 43 MB)
    registry/    Apicurio Registry (a tar of jars, 80 MB)

Tests never fetch: `python -m tests.servers fetch` does, before them.
"""

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final

KAFKA: Final = "4.4.0"
REGISTRY: Final = "2.6.13.Final"

_POM: Final = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>local</groupId><artifactId>servers</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{kafka}</version></dependency>
</dependencies></project>
"""


def cache() -> Path:
    """The folder that keeps them: ALERT_TWIN_SERVERS_CACHE, or one in the user's cache."""
    named = os.environ.get("ALERT_TWIN_SERVERS_CACHE")
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else root / "rubin-alert-twin-servers"


def kafka_jars() -> Path:
    return cache() / f"kafka-{KAFKA}"


def registry_jars() -> Path:
    return cache() / f"apicurio-{REGISTRY}"


def missing() -> str:
    """Why the servers cannot run here; empty when they can."""
    if shutil.which("java") is None:
        return "no java on this machine"
    absent = [folder.name for folder in (kafka_jars(), registry_jars()) if not folder.is_dir()]
    return f"{', '.join(absent)} not fetched: python -m tests.servers fetch" if absent else ""


def fetch() -> None:
    """Fetch what is not there yet; a folder appears when it is whole."""
    cache().mkdir(parents=True, exist_ok=True)
    if not kafka_jars().is_dir():
        with tempfile.TemporaryDirectory(dir=cache()) as name:
            work = Path(name)
            (work / "pom.xml").write_text(_POM.format(kafka=KAFKA))
            _maven(work, "dependency:copy-dependencies", f"-DoutputDirectory={work / 'jars'}", "-DincludeScope=runtime")
            (work / "jars").rename(kafka_jars())
    if not registry_jars().is_dir():
        with tempfile.TemporaryDirectory(dir=cache()) as name:
            work = Path(name)
            (work / "pom.xml").write_text(_POM.format(kafka=KAFKA))
            _maven(work, "dependency:copy", f"-Dartifact=io.apicurio:apicurio-registry-app:{REGISTRY}:tar.gz:all",
                   f"-DoutputDirectory={work}")
            with tarfile.open(next(work.glob("*.tar.gz"))) as archive:
                archive.extractall(work / "app", filter="data")
            (work / "app").rename(registry_jars())


def _maven(work: Path, *arguments: str) -> None:
    subprocess.run(["mvn", "-q", "-B", "-f", str(work / "pom.xml"), *arguments], check=True)
