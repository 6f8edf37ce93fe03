"""The services for a container engine."""

from pathlib import Path

import yaml

from pipeline.serve.registry import PORT

FILE = Path(__file__).resolve().parents[1] / "compose.yaml"


def test_only_this_machine_reaches_the_services_and_no_password_lies_there() -> None:
    text = FILE.read_text()
    services = yaml.safe_load(text)["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert f"127.0.0.1:{PORT}:{PORT}" in published
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")
