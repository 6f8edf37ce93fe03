"""Visit databases of every generation are read; what cannot be used is named."""

import sqlite3
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.opsim import OPSIM
from simulators.config import SchedulerConfig
from simulators.opsim import read, within, write
from simulators.scheduler import simulate
from simulators.survey_check import checks

OLD: Mapping[str, Sequence[Any]] = {        # the columns of Sorcha's demo database: v2.0
    "observationId": (7, 8, 9), "observationStartMJD": (60219.2, 60219.1, 60220.1), "visitTime": (34.0, 34.0, 31.0),
    "visitExposureTime": (30.0, 30.0, 30.0), "filter": ("r", "i", "u"), "seeingFwhmGeom": (0.8, 0.7, 0.9),
    "seeingFwhmEff": (0.9, 0.8, 1.0), "fiveSigmaDepth": (24.1, 23.5, 23.6), "fieldRA": (10.0, 10.5, 200.0),
    "fieldDec": (-30.0, -30.2, -40.0), "rotSkyPos": (10.0, 20.0, 30.0)}
NEW = {**OLD, "filter": ("r_57", "i_39", "u_24"), "band": ("r", "i", "u"), "airmass": (1.1, 1.2, 1.3),
       "skyBrightness": (21.0, 20.0, 22.5), "cloud": (0.0, 0.125, 0.0), "seeingFwhm500": (0.6, 0.55, 0.7)}


def database(path: Path, columns: Mapping[str, Sequence[Any]], table: str = "observations") -> Path:
    base = sqlite3.connect(path)
    base.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
    base.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})",
                     list(zip(*columns.values(), strict=True)))
    base.commit()
    base.close()
    return path


def test_an_old_database_with_filters_alone_is_read_in_time_order(tmp_path: Path) -> None:
    rows = read(database(tmp_path / "old.db", OLD))
    assert rows["band"].tolist() == ["i", "r", "u"]
    assert rows["observationStartMJD"].tolist() == [60219.1, 60219.2, 60220.1]
    assert np.isnan(rows["airmass"]).all()
    assert np.isnan(rows["skyBrightness"]).all()


def test_a_new_database_has_bands_beside_physical_filters(tmp_path: Path) -> None:
    rows = read(database(tmp_path / "new.db", NEW))
    assert rows["band"].tolist() == ["i", "r", "u"]
    assert rows["filter"].tolist() == ["i_39", "r_57", "u_24"]
    assert rows["cloud"].tolist() == [0.125, 0.0, 0.0]


def test_an_opsim_3_summary_is_read_by_its_own_names(tmp_path: Path) -> None:
    names = {"seeingFwhmEff": "finSeeing", "observationStartMJD": "expMJD", "visitExposureTime": "visitExpTime"}
    columns = {names.get(k, k): v for k, v in OLD.items() if k != "visitTime"}
    rows = read(database(tmp_path / "opsim3.db", columns, "SummaryAllProps"))
    assert rows["seeingFwhmEff"].tolist() == [0.8, 0.9, 1.0]
    assert rows["visitTime"].tolist() == [31.0, 31.0, 31.0]


def test_visits_around_a_place_are_chosen(tmp_path: Path) -> None:
    path = database(tmp_path / "old.db", OLD)
    assert read(path, around=(10.2, -30.1, 1.75))["band"].tolist() == ["i", "r"]
    assert len(read(path, around=(100.0, 10.0, 1.75))) == 0


def test_places_are_near_across_the_meridian_of_zero() -> None:
    rows = np.zeros(3, OPSIM)
    rows["fieldRA"], rows["fieldDec"] = (359.5, 0.5, 3.0), -1.0
    assert within(rows, 0.0, -1.0, 1.75).tolist() == [True, True, False]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    visits = simulate(SchedulerConfig(clear=(1.0, 1.0), downtime=False), 2, 1)
    write(tmp_path / "mine.db", visits)
    again = read(tmp_path / "mine.db")
    for name in OPSIM.names or ():
        assert np.array_equal(again[name], visits[name]), name
    with pytest.raises(ValueError, match=r"mine\.db exists"):
        write(tmp_path / "mine.db", visits)


@pytest.mark.parametrize(("changes", "message"), [
    ({"fieldRA": None}, r"table observations lacks fieldRA; it has observationId"),
    ({"filter": None}, r"lacks band or filter"),
    ({"filter": ("r", "w", "u")}, r"band must be one of ugrizy, got 'w' in visit 0"),
    ({"fieldDec": (-30.0, -130.0, -40.0)}, r"fieldDec must be within -90 and 90, got -130\.0 in visit 0"),
    ({"seeingFwhmEff": (0.9, "bad", 1.0)}, r"column seeingFwhmEff holds a value that cannot be used \(.*bad"),
    ({"fiveSigmaDepth": (24.1, 23.5, None)}, r"fiveSigmaDepth must be a number, got nan in visit 2"),
    ({"observationStartMJD": (-1.0, 60219.1, 60220.1)}, r"observationStartMJD must be within 40000 and 100000")])
def test_what_cannot_be_used_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    columns = {k: v for k, v in {**OLD, **changes}.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        read(database(tmp_path / "wrong.db", columns))


def test_files_that_are_no_visit_databases_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no visit database .*nowhere\.db"):
        read(tmp_path / "nowhere.db")
    (tmp_path / "text.db").write_text("not a database, " * 100)
    with pytest.raises(ValueError, match=r"text\.db: not a readable sqlite database"):
        read(tmp_path / "text.db")
    with pytest.raises(ValueError, match=r"no table observations or SummaryAllProps, found orbits"):
        read(database(tmp_path / "other.db", OLD, "orbits"))
    with pytest.raises(ValueError, match=r"table observations has no visits"):
        read(database(tmp_path / "empty.db", dict.fromkeys(OLD, ())))


def test_the_published_baseline_passes_its_own_bars() -> None:
    if find_spec("sorcha") is None:
        pytest.skip("sorcha, whose wheel ships a year of the v2.0 baseline, is not installed")
    rows = read(Path(str(resources.files("sorcha") / "data" / "demo" / "baseline_v2.0_1yr.db")))
    assert len(rows) == 216233
    assert all(one.passed for one in checks(rows, as_published=True))
