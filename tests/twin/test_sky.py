from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from reports.report import gather
from reports.store import Store
from twin.cli import main
from twin.night import run_night
from twin.scenario import read_scenario
from twin.sky import densities, draw_sky

SCENARIOS = Path(__file__).resolve().parents[2] / "scenarios"
REDUCED = ['simulation.cadence.blocks=["rr"]', "simulation.cadence.pairs=1", "simulation.cadence.history_per_band=3",
           "pipeline.template.min_visits=2", "simulation.conditions.fwhm_eff=0.9"]
SIDES = {"wide_fast_deep": 700, "deep_drilling": 800, "galactic_plane": 700}      # few stars calibrate a small field


def reduced(side: int) -> list[str]:
    """Overrides for two visits of a small detector."""
    return [*REDUCED, f"simulation.camera.ny={side}", f"simulation.camera.nx={side}"]


def test_the_command_draws_pictures_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sky"
    assert main(["sky", str(SCENARIOS / "wide_fast_deep.toml"), "--out", str(out), *reduced(300)]) == 0
    assert {path.name for path in out.iterdir()} == {"field.png", "visits.png", "light_curves.png", "densities.png",
                                                     "densities.md", "psf.png", "artifacts.png"}
    assert capsys.readouterr().out == (out / "densities.md").read_text()
    field = matplotlib.image.imread(out / "field.png")
    assert field[..., :3].std() > 0.1                        # there is something on it
    assert main(["sky", str(SCENARIOS / "wide_fast_deep.toml"), "--out", str(out)]) == 2
    assert "occupied" in capsys.readouterr().err


def test_a_scenario_without_classes_is_drawn_as_well(tmp_path: Path) -> None:
    table = draw_sky(read_scenario(SCENARIOS / "first_light.toml", reduced(300)), tmp_path / "sky")
    assert "| stars | here / deg² |" in table


def test_densities_are_within_a_factor_of_three_of_the_published_and_by_their_recipe_within_one_and_a_half() -> None:
    from simulators.sky import Sky

    scenario = read_scenario(SCENARIOS / "first_light.toml", reduced(300))
    rows = [row for row in densities(Sky(scenario.simulation, 1)) if np.isfinite(row.published).any()]
    assert len(rows) > 10
    for row in rows:
        if "live" in row.what or row.name not in ("slsn_i", "kilonova"):     # 4 times more, and the nearest few
            assert np.all(np.abs(np.log(np.array(row.ours) / row.published)) < np.log(3)), row.name
        if row.crude and row.name not in ("tde", "kilonova"):                # whose peaks we do not share
            assert np.all(np.abs(np.log(np.array(row.crude[1:]) / row.published[1:])) < np.log(1.5)), row.name


@pytest.mark.parametrize("name", ["wide_fast_deep", pytest.param("deep_drilling", marks=pytest.mark.accept),
                                  pytest.param("galactic_plane", marks=pytest.mark.accept)])
def test_a_scenario_of_declared_classes_runs_and_reports_at_the_skys_densities(name: str, tmp_path: Path) -> None:
    run_night(read_scenario(SCENARIOS / f"{name}.toml", reduced(SIDES[name])), tmp_path / "run", processes=1)
    report = gather(Store(tmp_path / "run"))
    assert np.all(report.matches.exposures["status"] == b"done")
    truth = report.matches.truth
    assert np.sum(truth["class"] != b"") > 10
    every = report.survey.classes[report.survey.classes["class"] == b"all"][0]
    assert every["alert_low"] <= every["alert_fraction"] <= every["alert_high"]
    assert every["density"] < every["n"] / report.matches.megapixels          # the sky holds fewer
