"""A broker for the consumers' tests."""

from collections.abc import Iterator

import pytest

from tests.pipeline.serve.streams import Broker


@pytest.fixture
def broker() -> Iterator[Broker]:
    made = Broker()
    yield made
    made.close()
