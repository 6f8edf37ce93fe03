"""`alert-twin replicate`, `lightcurve` and `cone` as a user types them."""

import csv
import io

import pytest

from pipeline.open import open_store
from tests.pipeline.test_replicate import MORNING, a_morning, a_night
from twin.cli import main


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    store = open_store(f"duckdb:{folder / 'prompt.duckdb'}")
    a_night(store)
    a_morning(store)
    store.close()
    return folder


def table(capsys):
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_a_run_is_replicated_and_asked(run_folder, tmp_path, capsys):
    ppdb = str(tmp_path / "ppdb")
    assert main(["replicate", str(run_folder), "--out", ppdb, "--simulated"]) == 0
    out = capsys.readouterr().out
    assert "copied 5 chunks" in out
    assert "18 updates" in out
    assert "from the last save of a chunk to its copy: median" in out
    assert main(["replicate", f"duckdb:{run_folder / 'prompt.duckdb'}", "--out", ppdb, "--now", str(MORNING + 1)]) == 0
    assert "copied 0 chunks" in capsys.readouterr().out

    assert main(["lightcurve", ppdb, "1", "--plot", str(tmp_path / "curve.png")]) == 0
    curve = table(capsys)
    assert [row["kind"] for row in curve].count("source") == 12
    assert [row["id"] for row in curve if row["timeWithdrawnMjdTai"]] == ["11", "100"]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert main(["lightcurve", str(run_folder), "1"]) == 0
    assert table(capsys) == curve

    assert main(["cone", ppdb, "10.02", "-5", "50"]) == 0
    around = table(capsys)
    assert [row["diaObjectId"] for row in around] == ["3", "1"]
    assert main(["cone", str(run_folder), "10.02", "-5", "50"]) == 0
    assert table(capsys) == around


@pytest.mark.parametrize(("words", "message"), [
    (["lightcurve", "{run}", "99"], "no DIAObject 99 has points there"),
    (["cone", "{run}", "10", "-95", "5"], "a cone needs a place and a radius of at most 90 deg"),
    (["cone", "/no/such", "10", "5", "5"], "there is no file /no/such"),
    (["replicate", "/no/such", "--out", "{out}"], "there is no file /no/such"),
])
def test_errors_are_one_line(run_folder, tmp_path, capsys, words, message):
    assert main([word.format(run=run_folder, out=tmp_path / "x") for word in words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("alert-twin: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_chunk_saved_into_after_its_copy_is_one_line(tmp_path, capsys):
    path = tmp_path / "n.db"
    store = open_store(f"duckdb:{path}")
    a_night(store)
    store.close()
    assert main(["replicate", str(path), "--out", str(tmp_path / "ppdb"), "--now", str(MORNING)]) == 0
    store = open_store(f"duckdb:{path}")
    store.withdraw_sources([11], store.chunks()[0].last_update_mjd_tai)
    store.close()
    assert main(["replicate", str(path), "--out", str(tmp_path / "ppdb"), "--now", str(MORNING)]) == 2
    assert "was saved into after it was copied" in capsys.readouterr().err
