"""One good night for all tests of the reports, and short broken ones."""

from collections.abc import Callable
from pathlib import Path

import pytest

from reports.match import Matches, match
from reports.store import Store
from tests.reports.maker import Knobs, make


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Twelve visits of 600 sources and no fault."""
    return Store(make(tmp_path_factory.mktemp("good") / "first_light", stamps=3))


@pytest.fixture(scope="session")
def good_matches(good: Store) -> Matches:
    return match(good)


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[Knobs], Store]:
    """Four visits with a fault."""
    return lambda knobs: Store(make(tmp_path / "broken", visits=4, knobs=knobs))
