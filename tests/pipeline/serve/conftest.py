"""A broker for the consumers' tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.serve.streams import Broker
from tests.servers.fetch import missing


@pytest.fixture
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """A topic of a real broker where its programs are fetched, of a mock one elsewhere."""
    made = Broker(None if missing() else request.getfixturevalue("kafka_server"), tmp_path)
    yield made
    made.close()


@pytest.fixture
def real_broker(kafka_server: object, broker: Broker) -> Broker:
    """A topic of a real broker, or a skip."""
    assert broker.real
    return broker
