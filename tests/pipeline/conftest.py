"""Prompt stores of every backend."""

import pytest

from pipeline.open import open_store
from tests.servers import postgres


@pytest.fixture(scope="session")
def postgres_server():
    """The URL of a PostgreSQL server of the tests' own; a skip where there is none, unless servers are required."""
    try:
        with postgres.running() as server:
            yield server
    except postgres.Absent as reason:
        if postgres.REQUIRED:
            raise
        pytest.skip(str(reason))


@pytest.fixture(params=["memory", "duckdb", "postgresql"])
def store_url(request, tmp_path):
    """The URL of a store that nobody has opened yet."""
    match request.param:
        case "memory":
            return "memory:"
        case "duckdb":
            return f"duckdb:{tmp_path / 'night.db'}"
    return postgres.new_store(request.getfixturevalue("postgres_server"), tmp_path / "packets")


@pytest.fixture
def store(store_url):
    """An empty store."""
    opened = open_store(store_url)
    yield opened
    opened.close()
