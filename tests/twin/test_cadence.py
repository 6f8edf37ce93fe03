"""Surveys on the command line, and nights of scenarios that name one."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from reports.store import Store
from simulators import surveyed
from simulators.opsim import read, write
from tests.simulators.test_opsim import NEW, database
from twin.cache import Cache
from twin.cli import main
from twin.recall import Remembering
from twin.scenario import read_scenario

SCENARIO = """\
seed = 3
[simulation.field]
ra = 10.2
dec = -30.1
[simulation.camera]
ny = 300
nx = 300
[simulation.cadence]
opsim = "survey.db"
night_mjd = 61639
history_per_band = 2
[simulation.sky.stars]
density = 60.0
[pipeline.template]
min_visits = 2
"""


def survey(path: Path) -> Path:
    """A night of two visits in r, and two earlier ones, all turned differently."""
    four = {name: (*values, values[0]) for name, values in NEW.items()}
    return database(path, {
        **four, "band": ("r",) * 4, "filter": ("r_57",) * 4,
        "observationStartMJD": (61639.2, 61639.1, 61630.1, 61628.2),
        "fieldRA": (10.0, 10.5, 10.1, 10.2), "fieldDec": (-30.0, -30.2, -30.0, -30.1), "visitTime": (34.0,) * 4,
        "seeingFwhmEff": (0.9, 0.8, 0.85, 0.95), "skyBrightness": (21.0, 20.8, 20.9, 21.1),
        "rotSkyPos": (10.0, 75.0, 140.0, 200.0)})


def test_a_scenario_that_names_a_database_runs_its_night(tmp_path: Path) -> None:
    survey(tmp_path / "survey.db")
    (tmp_path / "night.toml").write_text(SCENARIO)
    assert main(["run", str(tmp_path / "night.toml"), "--out", str(tmp_path / "run"), "--quiet", "--lean",
                 "--processes", "1"]) == 0
    log = Store(tmp_path / "run").table("exposure_log")
    assert len(log) == 2
    assert log["status"].tolist() == [b"done", b"done"]


def test_what_a_cache_keeps_depends_on_what_the_database_says(tmp_path: Path) -> None:
    (tmp_path / "night.toml").write_text(SCENARIO)
    keys = []
    for sky in (21.0, 20.0):
        path = survey(tmp_path / "survey.db")
        base = sqlite3.connect(path)
        base.execute("UPDATE observations SET skyBrightness = ?", (sky,))
        base.commit()
        base.close()
        surveyed._covering.cache_clear()
        here = Remembering(read_scenario(tmp_path / "night.toml"), Cache.open(tmp_path / "cache"))
        keys.append(here.exposure_key(here.visits[0], 94))
        path.unlink()
    assert keys[0] != keys[1]


def test_a_night_that_the_database_lacks_is_refused_in_one_line(tmp_path: Path,
                                                                capsys: pytest.CaptureFixture[str]) -> None:
    survey(tmp_path / "survey.db")
    (tmp_path / "night.toml").write_text(SCENARIO)
    assert main(["run", str(tmp_path / "night.toml"), "--out", str(tmp_path / "run"), "--quiet",
                 "simulation.cadence.night_mjd=61700"]) == 2
    assert "no visit in the night 61700" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_cadence_writes_a_database_that_validate_cadence_judges_and_draws(tmp_path: Path,
                                                                          capsys: pytest.CaptureFixture[str]) -> None:
    out, plot = tmp_path / "survey.db", tmp_path / "cadence.png"
    assert main(["cadence", "--nights", "2", "--seed", "4", "--out", str(out), "--quiet"]) == 0
    assert "of 2 nights" in capsys.readouterr().out
    assert main(["cadence", "--nights", "1", "--out", str(out), "--quiet"]) == 2
    assert "exists" in capsys.readouterr().err
    assert len(read(out)) > 500
    assert main(["validate-cadence", str(out), "--plot", str(plot), "--quiet"]) == 1      # two nights are no year
    text = capsys.readouterr().out
    assert "slew gap [s]" in text
    assert "FAIL" in text
    assert plot.stat().st_size > 20_000


def test_a_file_that_is_no_survey_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate-cadence", str(tmp_path / "nowhere.db")]) == 2
    assert "no visit database" in capsys.readouterr().err
    write(tmp_path / "empty.db", np.zeros(0, read(survey(tmp_path / "survey.db")).dtype))
    assert main(["validate-cadence", str(tmp_path / "empty.db")]) == 2
    assert "has no visits" in capsys.readouterr().err
