"""Cost tables: fits, files, and what they refuse."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.steps import Step
from reports.store import Store
from schemas.measures import STEP, empty
from twin.costs import CostTable, fit, fit_table, shortfalls, to_toml


def test_a_fit_gives_back_the_line_it_was_drawn_from() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(1000, 20000, 60)
    cost = fit(sizes, (0.02 + 3e-6 * sizes) * rng.normal(1.0, 0.05, 60))
    assert cost.a == pytest.approx(0.02, abs=0.003)
    assert cost.b == pytest.approx(3e-6, rel=0.1)
    assert 0.03 < cost.rms_fraction < 0.07
    assert (cost.runs, cost.size_min, cost.size_max) == (60, sizes.min(), sizes.max())


def test_a_fit_ignores_a_busy_machine_now_and_then() -> None:
    rng = np.random.default_rng(2)
    sizes = rng.integers(1000, 20000, 60)
    cpu = (0.02 + 3e-6 * sizes) * rng.normal(1.0, 0.02, 60)
    cpu[::20] *= 6
    assert fit(sizes, cpu).b == pytest.approx(3e-6, rel=0.1)


@pytest.mark.parametrize(("cpu", "a", "b"), [([3.0, 2.0, 1.0], None, 0.0), ([0.0, 1.0, 3.0], 0.0, None)])
def test_neither_coefficient_is_negative(cpu: list[float], a: float | None, b: float | None) -> None:
    cost = fit(np.array([1, 2, 3]), np.array(cpu))
    assert cost.a >= 0
    assert cost.b >= 0
    assert cost.a == (a if a is not None else cost.a)
    assert cost.b == (b if b is not None else cost.b)


def test_equal_sizes_give_a_constant() -> None:
    cost = fit(np.array([5, 5, 5]), np.array([1.0, 2.0, 3.0]))
    assert (cost.a, cost.b) == (pytest.approx(2.0), 0.0)


def rows(n: int, low: int, high: int) -> np.ndarray:
    out = empty(STEP, n)
    out["name"], out["measured"] = b"detect", True
    out["size"] = np.linspace(low, high, n).astype(int)
    out["cpu_s"] = 1e-6 * out["size"]
    return out


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    file = fit_table(rows(30, 1000, 16000), machine="a machine", date="2027-01-01")
    path = tmp_path / "costs.toml"
    path.write_text(to_toml(file))
    table = CostTable.read(path, scale=2.0)
    assert table.seconds(Step("detect", 10_000)) == pytest.approx(0.02, rel=1e-4)
    assert table.file.machine == "a machine"


def test_too_few_runs_or_too_narrow_a_range_is_said() -> None:
    assert shortfalls(fit_table(rows(30, 1000, 16000), machine="", date="")) == []
    assert shortfalls(fit_table(rows(29, 1000, 16000), machine="", date="")) == ["detect: 29 runs, 30 wanted"]
    assert "a range of 16 wanted" in shortfalls(fit_table(rows(30, 1001, 16000), machine="", date=""))[0]


@pytest.mark.parametrize(("text", "message"), [
    ("machine = 'm'\ndate = 'd'\n[steps.x]\na = -1\nb = 0\n", "steps.x: a and b must be 0 or more"),
    ("machine = 'm'\ndate = 'd'\n[steps.x]\na = 1\nb = 0\nc = 3\n", "unknown field `c`"),
    ("machine = ", "Invalid value")])
def test_a_bad_table_is_refused_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "costs.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"costs\.toml.*{message}"):
        CostTable.read(path)


def test_a_table_fitted_to_a_night_predicts_the_nights_work(night: Path) -> None:
    steps = Store(night).table("step")
    table = CostTable(fit_table(steps, machine="", date=""))
    predicted = sum(table.seconds(Step(row["name"].decode(), int(row["size"]))) for row in steps)
    assert predicted == pytest.approx(steps["cpu_s"].sum(), rel=0.15)


def test_steps_that_nobody_could_measure_keep_what_is_assumed(tmp_path: Path) -> None:
    path = tmp_path / "costs.toml"
    path.write_text("machine = 'm'\ndate = 'd'\n[steps.inject]\na = 1.0\nb = 0.5\nassumed = 'no injections'\n")
    kept = fit_table(rows(30, 1000, 16000), machine="", date="", keep=CostTable.read(path).file)
    assert CostTable(kept).seconds(Step("inject", 4)) == 3.0
    assert CostTable(kept).seconds(Step("detect", 10_000)) == pytest.approx(0.01)
