"""Fixtures of real servers: one of each per test session, started when first asked for."""

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.servers.fetch import missing

REQUIRED = "ALERT_TWIN_SERVERS"      # with the value "required" an absent server fails the tests that need it


def need(reason: str) -> None:
    """Skip where a server is absent, or fail where it may not be."""
    if reason and os.environ.get(REQUIRED) == "required":
        pytest.fail(f"{REQUIRED}=required, but {reason}")
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["object"]:
    """A broker (`tests.servers.kafka.Kafka`) for every test of this process: use topics of your own."""
    need(missing())
    from tests.servers.kafka import Kafka

    folder = tmp_path_factory.mktemp("kafka")
    broker = Kafka(folder).start()
    yield broker
    broker.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def registry_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["object"]:
    """An Apicurio registry (`tests.servers.registry.Registry`), in memory."""
    need(missing())
    from tests.servers.registry import Registry

    registry = Registry(tmp_path_factory.mktemp("registry")).start()
    yield registry
    registry.stop()
