"""Scenario files: strict, complete when written back, and clear when wrong."""

from pathlib import Path

import pytest

from pipeline.errors import InputError
from twin.scenario import (
    JudgeConfig,
    Scenario,
    dump,
    overlaid,
    read_scenario,
    read_settings,
    scenario_of,
    to_toml,
)

SHIPPED = Path(__file__).parents[2] / "scenarios"


def write(folder: Path, text: str, name: str = "night.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_scenario_written_back_is_the_same(tmp_path: Path) -> None:
    path = write(tmp_path, '[simulation.camera]\nny = 512\n[simulation.conditions.sky_mag]\nr = 20.5\n')
    scenario = read_scenario(path, ["pipeline.detect.threshold=5.5", "name=a b"], seed=7)
    assert (scenario.seed, scenario.name, scenario.pipeline.detect.threshold) == (7, "a b", 5.5)
    again = read_scenario(write(tmp_path, to_toml(scenario), "again.toml"))
    assert again == scenario


def test_a_base_is_changed_only_where_said(tmp_path: Path) -> None:
    write(tmp_path, 'seed = 5\n[simulation.camera]\nny = 512\nnx = 256\n', "below.toml")
    above = read_scenario(write(tmp_path, 'base = "below.toml"\n[simulation.camera]\nny = 300\n'))
    assert (above.seed, above.simulation.camera.ny, above.simulation.camera.nx) == (5, 300, 256)


@pytest.mark.parametrize(("text", "message"), [
    ("[simulation.camera]\nnyy = 512\n", r"simulation\.camera: .*unknown field `nyy`"),
    ("[simulation.conditions]\nfwhm_eff = -0.8\n", r"simulation\.conditions\.fwhm_eff: Expected `float` > 0"),
    ("[simulation.conditions]\nfwhm500_median = -1.0\n", r"simulation\.conditions\.fwhm500_median"),
    ("seeing = 1\n", "unknown field `seeing`"),
    ("seed = 'x'\n", "seed: Expected `int`, got `str`"),
    ("[pipeline.difference]\nwhiten_order = -1\n", r"pipeline\.difference\.whiten_order: Expected `int` >= 0"),
    ("[pipeline.difference]\nwhiten_half = 40\n", r"pipeline\.difference\.whiten_half: Expected `int` <= 31"),
    ("[pipeline.difference]\nconvolve = 'both'\n", r"pipeline\.difference\.convolve: Invalid enum value 'both'"),
    ("[pipeline.difference]\nbasis_sigmas = [1.0, 2.0]\n",
     "difference: basis_sigmas must be one for each of 3 .*, got 2"),
    ("[pipeline.difference]\nkernel_half = [20, 10]\n",
     r"difference: kernel_half must be \(low, high\), got \(20, 10\)"),
    ("[pipeline.template]\nstrip_rows = 0\n", r"pipeline\.template\.strip_rows: Expected `int` >= 1"),
    ("[pipeline.detect]\nthreshold = -5.0\n", r"pipeline\.detect\.threshold: Expected `float` > 0"),
    ("[platform]\nworkers = 0\n", r"platform\.workers: Expected `int` >= 1"),
    ("base = 'nowhere.toml'\n", r"no scenario 'nowhere\.toml'"),
    ("base = 'night.toml'\n", "at most 5 deep"),
    ("= 3\n", r"night\.toml: Invalid")])
def test_a_wrong_scenario_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_scenario(write(tmp_path, text))
    assert "\n" not in str(error.value)


FIRST = '[[faults]]\nkind = "image_missing"\n\n'


@pytest.mark.parametrize(("entry", "message"), [
    ('kind = "image_lat"', r"kind = 'image_lat', expected one of next_visit_lost, .*, image_late, .*clock_skew"),
    ('kind = "image_late"\nrate = 1.5', r"rate = 1\.5: Expected `float` <= 1\.0"),
    ('kind = "image_late"\nrate = "x"', r"rate = 'x': Expected `float`, got `str`"),
    ('kind = "image_late"\nrat = 0.5', r"unknown key rat = 0\.5, expected kind, .*rate"),
    ("rate = 0.5", r"missing required field `kind`: kind is one of next_visit_lost"),
    ('kind = "service_down"\nservice = "butler"', r"service = 'butler', expected one of registry, .*, export$"),
    ('kind = "service_down"', "no key service, service_down needs the service it is of"),
    ('kind = "image_late"\ndelay_s = 0.0', r"delay_s = 0\.0, image_late needs seconds above 0"),
    ('kind = "service_slow"\nservice = "apdb"', "no key factor, service_slow needs a factor that is not 1")])
def test_a_wrong_fault_is_named_with_its_line(tmp_path: Path, entry: str, message: str) -> None:
    path = write(tmp_path, f'name = "x"\n\n{FIRST}[[faults]]\n{entry}\n')
    with pytest.raises(InputError, match=rf"night\.toml, line 6: \[\[faults\]\] 2: .*{message}") as error:
        read_scenario(path)
    assert "\n" not in str(error.value)
    above = write(tmp_path, 'base = "night.toml"\nseed = 3\n', "above.toml")
    with pytest.raises(InputError, match=rf"night\.toml, line 6: \[\[faults\]\] 2: .*{message}"):
        read_scenario(above)      # where it stands, not who was read


def test_a_wrong_fault_that_no_line_says_is_named_without_one(tmp_path: Path) -> None:
    path = write(tmp_path, FIRST)
    with pytest.raises(InputError, match=r"night\.toml: \[\[faults\]\] 1: rate = 3: Expected `float` <= 1\.0"):
        read_scenario(path, ['faults=[{kind="burst", rate=3}]'])
    with pytest.raises(InputError, match=r"night\.toml: \[\[faults\]\] 1: Expected `object`, got `int`, got 3"):
        read_scenario(path, ["faults=[3]"])


@pytest.mark.parametrize("override", ["seed", "=3", "a..b=3", "seed.x=3"])
def test_a_wrong_override_is_named(tmp_path: Path, override: str) -> None:
    with pytest.raises(InputError, match="override"):
        read_scenario(write(tmp_path, "seed = 1\n"), [override])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no scenario file .*gone\.toml"):
        read_scenario(tmp_path / "gone.toml")


@pytest.mark.parametrize("name", [path.stem for path in sorted(SHIPPED.glob("*.toml"))])
def test_the_shipped_scenarios_are_read(name: str) -> None:
    assert isinstance(read_scenario(SHIPPED / f"{name}.toml"), Scenario)


def test_values_are_spelled_as_toml_spells_them() -> None:
    import tomllib

    data = {"a": 1e-12, "b": "quote \" and \\ back", "c": [1, 2.5], "d": True, "e": {"f g": {"h": [{"i": 1}]}},
            "j": float("inf")}
    assert tomllib.loads(dump(data)) == data


def test_the_terms_of_judgement_are_read_as_strictly_as_the_rest(tmp_path: Path) -> None:
    text = '[judge]\nseeds = [4, 5]\nprimary = ["a_5.5"]\n[judge.margins]\n"a_5.5" = 0.01\n'
    scenario = read_scenario(write(tmp_path, text))
    assert scenario.judge == JudgeConfig(seeds=(4, 5), primary=("a_5.5",), margins={"a_5.5": 0.01})
    assert read_scenario(write(tmp_path, to_toml(scenario), "again.toml")) == scenario
    for wrong, named in (("level = 1.0", "level"), ("margins = {a = -1.0}", r"margins"), ("seed = 1", "`seed`")):
        with pytest.raises(InputError, match=named):
            read_scenario(write(tmp_path, f"[judge]\n{wrong}\n"))


def test_settings_are_laid_above_others_section_by_section(tmp_path: Path) -> None:
    below = read_settings(write(tmp_path, '[simulation.camera]\nny = 512\nnx = 256\n'))
    above = overlaid(below, {"simulation": {"camera": {"ny": 300}}}, ["pipeline.detect.threshold=6.0"])
    assert below == {"simulation": {"camera": {"ny": 512, "nx": 256}}}
    assert above == {"simulation": {"camera": {"ny": 300, "nx": 256}}, "pipeline": {"detect": {"threshold": 6.0}}}
    assert scenario_of(above, "test").simulation.camera.ny == 300
