"""Prompt stores of every backend."""

import pytest

from pipeline.open import open_store


@pytest.fixture(params=["memory:", "duckdb:"])
def store(request, tmp_path):
    """An empty store."""
    opened = open_store(request.param + (str(tmp_path / "night.db") if request.param == "duckdb:" else ""))
    yield opened
    opened.close()
