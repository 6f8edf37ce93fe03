"""A small night that several tests look at."""

import tempfile
from pathlib import Path

import msgspec
import pytest

from tests.twin import checkouts
from twin import checkout
from twin.night import run_night
from twin.scenario import Scenario

SMALL = {
    "name": "small", "seed": 3,
    "simulation": {
        "camera": {"ny": 440, "nx": 440},
        "cadence": {"blocks": ["rr"], "pairs": 1, "history_per_band": 2, "dither_arcsec": 5.0},
        "conditions": {"fwhm_eff": 0.9},
        "sky": {"stars": {"density": 30.0}, "transients": {"per_field": 80.0}}},
    "pipeline": {"template": {"min_visits": 2}},
    "platform": {"workers": 2}}


def small(**changes: object) -> Scenario:
    """The scenario of the small night with top-level sections replaced."""
    return msgspec.convert(SMALL | changes, Scenario)


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the small night, one process, images kept."""
    folder = tmp_path_factory.mktemp("night") / "run"
    run_night(small(), folder, processes=1, keep_images=True)
    return folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the test's own, for this process and its children."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def project(tmp_path: Path, night: Path, monkeypatch: pytest.MonkeyPatch, temporary: Path) -> Path:
    """A stand-in for the present project: its `run` copies the small night."""
    root = tmp_path / "project"
    checkouts.make(root, night)
    monkeypatch.setattr(checkout, "present", lambda: root)
    return root
