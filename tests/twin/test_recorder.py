"""The measurement store: what is written is what is read, and only when it is whole."""

from pathlib import Path

import numpy as np
import pytest

from reports.store import Store
from schemas.measures import EPHEMERIS, STEP, TRUTH, empty
from twin.recorder import ParquetRecorder


def truth(n: int) -> np.ndarray:
    rows = empty(TRUTH, n)
    rows["visit"], rows["truthId"] = 2027082200001, np.arange(n)
    rows["kind"], rows["isolated"], rows["flux"] = b"transient", True, np.linspace(-1e3, 1e3, n)
    rows["snr"][::2] = 7.0
    return rows


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = truth(5)
    with ParquetRecorder(tmp_path / "measures") as recorder:
        recorder.append("truth", rows[:2])
        recorder.append("truth", rows[2:])
        recorder.append("step", empty(STEP, 0))
    back = Store(tmp_path).table("truth")
    for name in TRUTH.names or ():
        np.testing.assert_array_equal(back[name], rows[name], err_msg=name)
    assert Store(tmp_path).tables() == ("truth",)


def test_many_rows_at_once_become_several_parts(tmp_path: Path) -> None:
    rows = truth(10)
    with ParquetRecorder(tmp_path / "measures", part_rows=4) as recorder:
        recorder.append("truth", rows)
        assert len(Store(tmp_path).table("truth")) == 8
    assert len(list((tmp_path / "measures" / "truth").glob("part-*.parquet"))) == 3
    np.testing.assert_array_equal(Store(tmp_path).table("truth")["truthId"], rows["truthId"])


def test_a_reader_sees_whole_parts_while_the_writer_lives(tmp_path: Path) -> None:
    recorder = ParquetRecorder(tmp_path / "measures", part_rows=4)
    recorder.append("truth", truth(3))
    assert Store(tmp_path).optional("truth").size == 0
    recorder.append("truth", truth(3))                       # six rows: a part
    recorder.append("truth", truth(2))
    assert len(Store(tmp_path).table("truth")) == 6
    recorder.close()
    assert len(Store(tmp_path).table("truth")) == 8
    assert sorted(p.name for p in (tmp_path / "measures" / "truth").iterdir()) == [
        "part-00000.parquet", "part-00001.parquet"]


def test_fields_of_several_values_are_lists(tmp_path: Path) -> None:
    rows = empty(EPHEMERIS, 2)
    rows["object_xyz"] = np.arange(24.0).reshape(2, 3, 4)
    rows["designation"] = b"2027 AB"
    with ParquetRecorder(tmp_path) as recorder:
        recorder.append("ephemeris", rows)
    import duckdb

    found = duckdb.sql(f"SELECT object_xyz, designation FROM '{tmp_path}/ephemeris/*.parquet'").fetchall()
    assert found[1] == (list(map(float, range(12, 24))), "2027 AB")


def test_rows_of_another_kind_are_refused(tmp_path: Path) -> None:
    with ParquetRecorder(tmp_path) as recorder:
        recorder.append("truth", truth(1))
        with pytest.raises(ValueError, match="another dtype"):
            recorder.append("truth", empty(STEP, 1))
        with pytest.raises(ValueError, match="identifier"):
            recorder.append("../truth", truth(1))
