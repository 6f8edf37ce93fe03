"""One Apicurio registry, in memory."""

import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tests.servers.fetch import registry_jars
from tests.servers.process import JavaServer, free_ports


@dataclass(slots=True)
class Registry:
    """A schema registry with Confluent's protocol (which gives ids of its own) and Apicurio's (which keeps them)."""

    folder: Path
    port: int = 0
    server: JavaServer | None = None

    def start(self) -> "Registry":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_ports(1)[0]
        jar = next(registry_jars().glob("*-runner.jar"))
        self.server = JavaServer(("-Xmx256m", "-XX:TieredStopAtLevel=1", f"-Dquarkus.http.port={self.port}",
                                  "-Dquarkus.http.host=127.0.0.1", "-jar", str(jar)), self.folder, self.port)
        self.server.start(self._ready)
        return self

    def stop(self) -> None:
        if self.server is not None:
            self.server.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def confluent(self) -> str:
        return f"{self.url}/apis/ccompat/v7"

    @property
    def native(self) -> str:
        return f"{self.url}/apis/registry/v2"

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.confluent}/subjects", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
