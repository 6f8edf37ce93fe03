"""Sides: what a word on the line means, and that what runs is what was said."""

import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import service
from pipeline.errors import InputError
from reports.outcome import of_run
from reports.store import Store
from schemas.measures import FACT
from tests.twin import checkouts
from tests.twin.conftest import small
from twin import baseline, checkout, sides
from twin.recorder import ParquetRecorder
from twin.scenario import JudgeConfig, read_settings, to_toml
from twin.sides import Baseline, Bench, Code, Detections, Runs, Trial, first_difference, parse_side
from twin.workspace import git, workspace

KEPT = {"recorder": {"stamps_per_visit": sides.STAMPS}}


@pytest.fixture
def bench(tmp_path: Path, temporary: Path) -> Iterator[Bench]:
    with workspace() as place:
        yield Bench(place, tmp_path / "runs", tmp_path / "cache", 2)


def trial(tmp_path: Path, text: str = "") -> Trial:
    path = tmp_path / "test.toml"
    path.write_text(text)
    return sides.of_file(path)


def said(run: Path) -> tuple[str, Path, int, str]:
    """What the stand-in was told: its name, where it lay, the seed, the settings."""
    first, _, settings = (run / "said").read_text().partition("\n")
    name, root, seed = first.split()
    return name, Path(root), int(seed), settings


# --- words -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("word", [".", "HEAD"])
def test_the_present_code_is_named_with_its_changes(project: Path, word: str) -> None:
    head = git(project, "rev-parse", "HEAD").stdout.strip()
    assert parse_side(word) == Code(f"present code ({head[:7]})")
    (project / "notes").write_text("no code")
    assert parse_side(word) == Code(f"present code ({head[:7]})")
    (project / "twin" / "new.py").touch()
    assert parse_side(word) == Code(f"present code ({head[:7]} + uncommitted changes)")


@pytest.mark.parametrize(("word", "overrides"), [
    ("a.b=1", ("a.b=1",)),
    ("a.b=1,c.d=x y", ("a.b=1", "c.d=x y")),
    ("a.b=1 c.d=2", ("a.b=1", "c.d=2")),
    ('a.b=["4", "5"], c.d=2', ('a.b=["4", "5"]', "c.d=2")),
    ('a.b=[1,2],c.d="x:y"', ("a.b=[1,2]", 'c.d="x:y"'))])
def test_settings_are_split_where_another_begins(project: Path, word: str, overrides: tuple[str, ...]) -> None:
    found = parse_side(word)
    assert isinstance(found, Code)
    assert (found.overrides, found.revision, found.folder, found.label) == (overrides, "", None, word)
    head = git(project, "rev-parse", "HEAD").stdout.strip()
    assert parse_side(f"trunk:{word}") == Code(f"trunk ({head[:7]}) with {word}", head, None, (), overrides)
    assert parse_side(f"tree:{project}:{word}") == replace(
        found, label=f"project ({head[:7]}) with {word}")   # the present one


def test_revisions_folders_and_runs_are_told_apart(project: Path, night: Path, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    first = git(project, "rev-parse", "HEAD").stdout.strip()
    second = checkouts.make(project, night, "second")
    git(project, "tag", "v1.2", first)
    assert parse_side("HEAD~1") == Code(f"HEAD~1 ({first[:7]})", first)
    assert parse_side(first[:9]) == Code(first[:7], first)
    assert parse_side("rev:HEAD") == Code(f"HEAD ({second[:7]})", second)
    settings = tmp_path / "sides.toml"
    settings.write_text("[pipeline.detect]\nthreshold = 6.0\n")
    assert parse_side(f"v1.2:{settings},a.b=1") == Code(f"v1.2 ({first[:7]}) with {settings},a.b=1", first, None,
                                                       (settings,), ("a.b=1",))
    shutil.copytree(project, tmp_path / "other")
    (tmp_path / "other" / "twin" / "new.py").touch()
    assert parse_side(f"tree:{tmp_path / 'other'}") == Code(f"other ({second[:7]} + uncommitted changes)", "",
                                                           tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(night, tmp_path / "v1.2")     # as the tag
    assert parse_side("v1.2") == Runs("v1.2", {3: tmp_path / "v1.2"})
    assert parse_side("rev:v1.2") == Code(f"v1.2 ({first[:7]})", first)


def test_a_folder_of_run_folders_is_one_side(project: Path, night: Path, tmp_path: Path) -> None:
    for seed in (12, 9):
        shutil.copytree(night, tmp_path / "nights" / f"run_{seed}")
        with ParquetRecorder(tmp_path / "nights" / f"run_{seed}" / "measures") as recorder:
            recorder._parts["fact"] = 1
            recorder.append("fact", np.array([(b"seed", str(seed).encode())], FACT))
    found = parse_side(str(tmp_path / "nights"))
    assert found == Runs("nights", {9: tmp_path / "nights" / "run_9", 12: tmp_path / "nights" / "run_12"})
    assert sides.seeds_of(found) == (9, 12)
    shutil.copytree(tmp_path / "nights" / "run_9", tmp_path / "nights" / "again")
    with pytest.raises(InputError, match=r"run_9: has the seed 9 of .*again; one run folder per seed"):
        parse_side(str(tmp_path / "nights"))
    shutil.rmtree(tmp_path / "nights" / "again" / "measures" / "fact")
    with pytest.raises(InputError, match="again: an unfinished run"):
        parse_side(str(tmp_path / "nights"))


@pytest.mark.parametrize(("word", "message"), [
    ("no-such-branch", "^unknown revision 'no-such-branch', and no folder of this name$"),
    ("rev:--all", "^unknown revision '--all'$"),
    ("baseline:nothing", "^no baseline 'nothing'"), ("catalog:none.csv", "^none.csv: no such file of detections"),
    ("run:nowhere", "^nowhere: no such run folder"), ("none.toml", "no scenario file none.toml"),
    ("tree:/", "^tree:/: no checkout of the twin"), ("rev:", "needs the name"), ("catalog:", "needs a file")])
def test_what_does_not_exist_is_refused_in_a_line(project: Path, word: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_side(word)


def test_a_folder_of_code_is_no_run(project: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"write tree:{project}$"):
        parse_side(str(project))
    with pytest.raises(InputError, match="neither a run folder"):
        parse_side(str(tmp_path / "temporary"))


# --- the test --------------------------------------------------------------------------------------------------------

def test_the_test_is_asked_for_or_recorded_or_a_file_s_sky_or_the_project_s_own(project: Path, night: Path,
                                                                              tmp_path: Path) -> None:
    here, run = Code("x"), Runs("night", {3: night})
    sky = tmp_path / "sky.toml"
    sky.write_text("[simulation.camera]\nny = 300\n[pipeline.detect]\nthreshold = 6.0\n[judge]\nseeds = [8]\n")
    assert sides.read_trial(str(sky), run, here).settings == read_settings(sky)
    assert sides.read_trial("first_light.toml", run, here).settings["name"] == "first light"   # shipped
    found = sides.read_trial(None, here, run)
    assert found.settings == read_settings(night / "scenario.toml")
    file = Code("x", files=(sky,))
    found = sides.read_trial(None, here, file)
    assert "pipeline" not in found.settings       # that is the side's
    assert found.settings["simulation"] == {"camera": {"ny": 300}}
    assert found.judge.seeds == (8,)
    assert sides.settings_of(file, found)["pipeline"] == {"detect": {"threshold": 6.0}}
    assert sides.read_trial(None, file, run).name == "small"
    assert sides.read_trial(None, here, here).name == "regression"
    with pytest.raises(InputError, match=r"no scenario 'nowhere\.toml'"):
        sides.read_trial("nowhere.toml", here, here)
    with pytest.raises(InputError, match="no exposures DEC-OBS04"):
        sides.read_trial(f"real:{tmp_path}", here, here)


def test_runs_of_different_skies_are_refused_by_the_key_that_differs(night: Path, tmp_path: Path) -> None:
    shutil.copytree(night, tmp_path / "other")
    file = tmp_path / "other" / "scenario.toml"
    base, head = Runs("night", {3: night}), Runs("other", {3: tmp_path / "other"})
    file.write_text(file.read_text().replace("threshold = 5.0", "threshold = 6.0"))
    assert sides.read_trial(None, base, head).name == "small"                   # the pipeline is a side's own
    file.write_text(file.read_text().replace("ny = 440", "ny = 441"))
    with pytest.raises(InputError, match=r"the sides saw different skies: simulation\.camera\.ny is 440 in night, 441 "
                                         "in other$"):
        sides.read_trial(None, base, head)


def test_a_file_s_sky_is_left_aside_with_a_word(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("name = 'x'\n[simulation.camera]\nny = 500\n[pipeline.detect]\nthreshold = 6.0\n")
    test = trial(tmp_path, "[simulation.camera]\nny = 300\n")
    side = Code("x", files=(other,))
    assert sides.notes(side, test) == [f"{other}: [simulation] left aside, the sky is that of test"]
    assert sides.notes(side, replace(test, settings=read_settings(other))) == []
    found = sides.settings_of(side, test)
    assert found == KEPT | {"simulation": {"camera": {"ny": 300}}, "pipeline": {"detect": {"threshold": 6.0}}}
    assert test.settings == {"simulation": {"camera": {"ny": 300}}}


def test_the_present_code_s_settings_are_checked_before_anything_runs(tmp_path: Path) -> None:
    test = trial(tmp_path)
    with pytest.raises(InputError, match=r"^x: pipeline\.detect: .*unknown field `treshold`"):
        sides.settings_of(Code("x", overrides=("pipeline.detect.treshold=6.0",)), test)
    with pytest.raises(InputError, match=r"^x: the sky is the test's, not a side's: set simulation\.camera\.ny in "):
        sides.settings_of(Code("x", overrides=("simulation.camera.ny=6",)), test)
    with pytest.raises(InputError, match="the seed is the test's"):
        sides.settings_of(Code("x", overrides=("seed=6",)), test)
    assert sides.settings_of(Code("x", "a1b2c3d", None, (), ("pipeline.detect.treshold=6.0",)), test)   # its affair


def test_a_cost_table_beside_its_scenario_is_found_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("")
    found = sides.settings_of(Code("x"), trial(tmp_path, '[platform]\ncosts = "mine.toml"\n'))
    assert found["platform"]["costs"] == str(tmp_path / "mine.toml")
    assert sides.settings_of(Code("x"), trial(tmp_path, '[platform]\ncosts = "reference.toml"\n')) == KEPT | {
        "platform": {"costs": "reference.toml"}}
    fewer = sides.settings_of(Code("x"), trial(tmp_path, "[recorder]\nstamps_per_visit = 5\n"))
    assert fewer == {"recorder": {"stamps_per_visit": 5}}


def test_the_first_key_that_differs_is_named() -> None:
    same = {"a": {"x": 1.0, "nan": float("nan")}, "judge": {"level": 0.1}, "seed": 1}
    assert first_difference(same, same | {"seed": 2, "judge": {}, "name": "other"}) is None
    assert first_difference(same, {"a": {"x": 2.0, "nan": float("nan")}}) == ("a.x", 1.0, 2.0)
    assert first_difference({"a": {"seed": 1}}, {"a": {"seed": 2}}) == ("a.seed", 1, 2)
    assert first_difference(same, {}) == ("a", same["a"], "not set")


def test_the_real_field_is_processed_with_a_side_s_pipeline_and_a_night_s_injections(tmp_path: Path,
                                                                                    bench: Bench) -> None:
    for name in ("DEC-OBS04b.mini.fits", "DEC-OBS04a.mini.fits", "DEC-OBS18a.mini.fits"):
        (tmp_path / name).touch()
    field = sides.read_trial(f"real:{tmp_path}", Code("x"), Code("y"))
    assert len(field.judge.seeds) == 8
    (tmp_path / "side.toml").write_text("[pipeline.detect]\nthreshold = 6.0\n[platform]\nworkers = 2\n")
    side = Code("x", "", None, (tmp_path / "side.toml",), ("pipeline.associate.radius_arcsec=0.5",))
    site, _ = service.read_site(sides.write_settings(side, field, bench, "base"))
    assert (site.pipeline.detect.threshold, site.pipeline.associate.radius_arcsec) == (6.0, 0.5)
    assert site.header.values.detector == 37       # the rest is the site's
    words = sides._words(field, tmp_path / "site.toml", 7)
    assert words[:3] == ("process", str(tmp_path / "DEC-OBS04a.mini.fits"), str(tmp_path / "DEC-OBS04b.mini.fits"))
    assert words[3:] == ("--config", str(tmp_path / "site.toml"), "--template-from",
                         str(tmp_path / "DEC-OBS18a.mini.fits"), "--inject", "10", "--seed", "7")


# --- runs ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("several", [False, True])
def test_each_side_runs_its_own_code_with_its_own_settings(project: Path, bench: Bench, night: Path,
                                                           tmp_path: Path, several: bool) -> None:
    first = git(project, "rev-parse", "HEAD").stdout.strip()
    shutil.copytree(project, tmp_path / "other")
    checkouts.make(project, night, "second", several=several)
    (tmp_path / "other" / "twin" / "cli.py").write_text(
        (tmp_path / "other" / "twin" / "cli.py").read_text().replace("'first'", "'changed'"))
    test = trial(tmp_path, "[simulation.camera]\nny = 300\n[judge]\nlevel = 0.1\n")
    for word, name, root in ((".", "second", project), ("HEAD~1", "first", None),
                             (f"tree:{tmp_path / 'other'}", "changed", tmp_path / "other")):
        runs = sides.nights(parse_side(f"{word}:pipeline.detect.threshold=6.5"), test, (4, 5), bench, name)  # type: ignore[arg-type]
        assert list(runs) == [4, 5]
        for seed, run in runs.items():
            told = said(run)
            assert (told[0], told[2]) == (name, seed)
            assert told[1] == (root or bench.checkout(Code("", first)).root)
            assert tomllib.loads(told[3]) == KEPT | {
                "simulation": {"camera": {"ny": 300}}, "pipeline": {"detect": {"threshold": 6.5}}}
    assert len(git(project, "worktree", "list").stdout.splitlines()) == 2   # one revision, one worktree
    assert not list(bench.place.folder.glob("runs*"))


def test_code_that_fails_ends_in_its_own_last_line(project: Path, bench: Bench, tmp_path: Path) -> None:
    side = parse_side("rev:trunk:pipeline.broken=1")
    with pytest.raises(InputError, match=r"^trunk \(\w{7}\) with pipeline.broken=1, seed 1: settings: broken is no"):
        sides.outcome(side, trial(tmp_path), (1,), bench, "base")


def test_a_folder_whose_code_is_not_what_runs_is_refused(project: Path, bench: Bench, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path / "other")
    (tmp_path / "other" / "twin" / "__init__.py").write_text(f"__path__ = [{str(project / 'twin')!r}]")
    with pytest.raises(InputError, match=f"{tmp_path / 'other'}: its code is not what .* imports, but {project}/twin"):
        checkout.use(tmp_path / "other", bench.place, bench.cache, bench.say)


def test_outcomes_of_runs_are_joined_and_chosen_by_seed(night: Path, bench: Bench, tmp_path: Path) -> None:
    one = of_run(Store(night), 3)
    found = sides.outcome(Runs("x", {3: night, 4: night}), trial(tmp_path), (3, 4), bench, "base")
    assert len(found.sources) == 2 * len(one.sources)
    assert np.unique(found.visits["seed"]).tolist() == [3, 4]
    assert sides.only(found, [3]).sources.tobytes() == one.sources.tobytes()
    assert sides.only(found, [3]).folders == {3: night}


def test_only_a_change_of_dependencies_makes_an_environment(project: Path, bench: Bench,
                                                            monkeypatch: pytest.MonkeyPatch, night: Path) -> None:
    asked: list[tuple[str, ...]] = []

    def make(root: Path, needed: tuple[str, ...], *rest: object) -> Path:
        asked.append(needed)
        return Path(sys.executable)

    monkeypatch.setattr(checkout, "_environment", make)
    first = git(project, "rev-parse", "HEAD").stdout.strip()
    bench.checkout(Code("", first))
    assert asked == []
    (project / "pyproject.toml").write_text('[project]\nname = "stand-in"\ndependencies = ["numpy >= 2.1"]\n')
    bench._checkouts.clear()
    bench.checkout(Code("", first))
    assert asked == [("numpy>=2.0",)]


# --- baselines -------------------------------------------------------------------------------------------------------

def recorded(night: Path, tmp_path: Path, bench: Bench) -> tuple[Baseline, Trial]:
    (tmp_path / "small.toml").write_text(to_toml(small()))
    test = sides.of_file(tmp_path / "small.toml")
    (tmp_path / "recorded").mkdir()
    outcome = sides.outcome(Runs("x", {3: night}), test, (3,), bench, "base")
    baseline.write(outcome, test, (3,), tmp_path / "recorded")
    side = parse_side(f"baseline:{tmp_path / 'recorded'}")
    assert isinstance(side, Baseline)
    return side, test


def test_a_baseline_gives_its_test_and_refuses_another(night: Path, tmp_path: Path, bench: Bench) -> None:
    side, test = recorded(night, tmp_path, bench)
    assert parse_side(str(tmp_path / "recorded")) == side
    assert sides.seeds_of(side) == (3,)
    found = sides.read_trial(None, side, Code("x"))
    assert first_difference(found.settings, test.settings) is None
    (tmp_path / "small.toml").write_text(to_toml(small()).replace("ny = 440", "ny = 441"))
    with pytest.raises(InputError, match=r"recorded from another scenario: simulation\.camera\.ny is 440 there, 441 "
                                         "in small; record it anew"):
        sides.read_trial(str(tmp_path / "small.toml"), Code("x"), side)


def test_detections_of_several_nights_are_in_several_files(tmp_path: Path) -> None:
    (tmp_path / "found.csv").write_text("visit,x,y\n")
    side = parse_side(f"catalog:{tmp_path / 'found.csv'}")
    assert side == Detections("found.csv", str(tmp_path / "found.csv"))
    with pytest.raises(InputError, match=r"the test has 2 nights; write \{seed\} in the name"):
        sides.scored(side, (1, 2), tmp_path / "out", {})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"found_2\.csv: no such file"):
        sides.scored(parse_side(f"catalog:{tmp_path / 'found_{seed}.csv'}"), (2,), tmp_path / "out", {})  # type: ignore[arg-type]


def test_the_terms_of_judgement_come_with_the_test(tmp_path: Path) -> None:
    assert trial(tmp_path, "[judge]\nlevel = 0.1\n").judge == JudgeConfig(level=0.1)
