import re
from pathlib import Path

import numpy as np
import pytest

from reports.store import Store, StoreError, dtype, groups
from schemas.measures import STEP, TRUTH, empty
from schemas.table import DIA_SOURCE
from twin.recorder import ParquetRecorder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "measures").mkdir()
    return tmp_path


def _steps(n: int) -> np.ndarray:
    rows = empty(STEP, n)
    rows["visit"], rows["name"], rows["size"] = np.arange(n), b"detect", 7
    return rows


def test_rows_come_back_as_they_were_written_nulls_included(folder: Path) -> None:
    truth, sources = empty(TRUTH, 3), DIA_SOURCE.empty(2)
    truth["kind"], truth["snr"], truth["isolated"] = [b"agn", b"", b"transient"], [1.5, np.nan, -7], [True, False, True]
    sources["diaSourceId"], sources["psfFlux"], sources["band"] = [2**62, 5], [np.nan, 3.0], b"r"
    with ParquetRecorder(folder / "measures") as recorder:
        recorder.append("truth", truth)
        recorder.append("DiaSource", sources)
    store = Store(folder)
    for name, rows in (("truth", truth), ("DiaSource", sources)):
        found = store.table(name)
        assert found.dtype == rows.dtype
        for column in rows.dtype.names:
            np.testing.assert_array_equal(found[column], rows[column], err_msg=column)


def test_a_missing_table_is_named_with_what_there_is(folder: Path) -> None:
    with ParquetRecorder(folder / "measures") as recorder:
        recorder.append("step", _steps(1))
    with pytest.raises(StoreError, match=re.escape(f"{folder}: no table 'truth', found step")):
        Store(folder).table("truth")
    assert len(Store(folder).optional("truth")) == 0
    assert Store(folder).optional("truth").dtype == TRUTH


def test_a_table_that_no_schema_knows_is_refused(folder: Path) -> None:
    with pytest.raises(StoreError, match="no schema declares table 'stars'"):
        Store(folder).optional("stars")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run folder"):
        Store(tmp_path / "nowhere")


def test_whole_parts_are_read_while_the_writer_lives(folder: Path) -> None:
    with ParquetRecorder(folder / "measures") as recorder:
        recorder.append("step", _steps(3))
        recorder.flush()
        recorder.append("step", _steps(4))
        (folder / "measures" / "step" / ".part-00001.parquet.writing").write_bytes(b"PAR1 half of a file")
        assert len(Store(folder).table("step")) == 3
    assert len(Store(folder).table("step")) == 7


def test_a_damaged_part_is_one_clear_error(folder: Path) -> None:
    (folder / "measures" / "step").mkdir()
    (folder / "measures" / "step" / "part-00000.parquet").write_bytes(b"not parquet")
    with pytest.raises(StoreError, match=r"step: unreadable \("):
        Store(folder).table("step")


def test_columns_of_an_older_store_are_filled_with_nulls(folder: Path) -> None:
    kept = [name for name in TRUTH.names if name != "reason"]
    older = np.zeros(2, [(name, TRUTH[name]) for name in kept])
    with ParquetRecorder(folder / "measures") as recorder:
        recorder.append("truth", older)
    found = Store(folder).table("truth")
    assert found.dtype == TRUTH
    assert found["reason"].tolist() == [b"", b""]


def test_text_longer_than_its_column_is_refused(folder: Path) -> None:
    rows = np.zeros(1, [("name", "S40")])
    rows["name"] = b"x" * 40
    with ParquetRecorder(folder / "measures") as recorder:
        recorder.append("step", rows)
    with pytest.raises(StoreError, match="column name holds 24 bytes"):
        Store(folder).table("step")


def test_a_damaged_stack_of_stamps_is_one_clear_error(folder: Path) -> None:
    (folder / "stamps").mkdir()
    (folder / "stamps" / "12_3.npy").write_bytes(b"no stack")
    with pytest.raises(StoreError, match="not a stack of stamps"):
        Store(folder).stamps(12, 3)
    assert Store(folder).stamps(12, 4).shape[0] == 0


def test_groups_hold_every_row_once() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 5, 200), rng.integers(0, 3, 200)
    found = list(groups(a, b))
    assert [key for key, _ in found] == sorted(set(zip(a.tolist(), b.tolist(), strict=True)))
    assert sorted(np.concatenate([rows for _, rows in found]).tolist()) == list(range(200))
    assert all(set(zip(a[rows].tolist(), b[rows].tolist(), strict=True)) == {key} for key, rows in found)


def test_every_table_of_the_store_has_a_dtype() -> None:
    assert dtype("SSSource").names is not None
    assert dtype("measurement").names[:2] == ("visit", "detector")
