"""What a night loses without a stage: each switched off makes its figure worse by a stated amount."""

from pathlib import Path

import numpy as np
import pytest

from reports.match import match
from reports.store import Store
from twin.night import run_night

from .conftest import SMALL, small


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small night with many hot pixels that no defect list knows, and cosmic rays."""
    folder = tmp_path_factory.mktemp("dirty") / "run"
    simulation = {**SMALL["simulation"], "artifacts": {"unknown_pixels": 900.0, "cosmic_rays": 3.0}}  # type: ignore[dict-item]  # a plain mapping
    run_night(small(simulation=simulation, seed=5), folder)
    return folder


def test_without_reliability_false_alerts_at_least_double(dirty: Path) -> None:
    found = match(Store(dirty))
    false = found.partner < 0
    refused = found.sources["stage"] == b"reliability"
    with_filter = int(np.sum(false & found.sources["alert"]))
    without = with_filter + int(np.sum(false & refused))
    assert without >= 5
    assert without >= 2 * max(with_filter, 1)
    real = found.partner >= 0
    assert np.sum(real & refused) < 0.1 * np.sum(real & found.sources["alert"])


def test_without_calibration_positions_are_arcseconds_off(dirty: Path, tmp_path: Path) -> None:
    pipeline = {**SMALL["pipeline"], "calibrate": {"enabled_astrometry": False}}  # type: ignore[dict-item]  # a plain mapping
    run_night(small(pipeline=pipeline), tmp_path / "run")
    log = Store(tmp_path / "run").table("exposure_log")
    done = Store(dirty).table("exposure_log")
    assert done["wcs_rms_arcsec"].max() < 0.05
    off = log["wcs_rms_arcsec"][np.isfinite(log["wcs_rms_arcsec"])]
    assert (log["status"] != b"done").any() or off.min() > 0.3
