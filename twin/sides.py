"""The sides of a comparison: from what a person writes on the line to what that code, run or catalogue made of a test.

    .                       the present code as it lies there, changes and all; HEAD says the same
    KEY=VALUE[,KEY=VALUE]   the present code with other settings, as `alert-twin run` takes them
    FILE.toml               the present code with the [pipeline] and [platform] settings of a file
    REVISION                a commit, branch or tag of the present repository, in a worktree of its own
    tree:FOLDER             the code in another folder, committed or not
    REVISION:SETTINGS       either of these with settings as above: v1.2:pipeline.detect.threshold=5.3
    FOLDER                  a run folder, or a folder of run folders, one per seed
    baseline:NAME           a recorded baseline, by name or folder
    catalog:FILE            the detections of any other program (or a folder of their files); where the test has several
                            nights, a file for each with {seed} in its name, or one with a column seed

A path goes before a revision of the same name; `run:FOLDER` and `rev:NAME` say which is meant.

The test is a scenario and the seeds of its nights, or injections into a real field (`real:FOLDER`). A scenario says
everything of the sky; a side may change the pipeline and the platform, and where it changes the sky the sides cannot be
paired.
"""

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec import to_builtins

from pipeline.errors import InputError
from reports.outcome import TABLES, Outcome, joined, of_baseline, of_run
from reports.store import Store
from twin import checkout
from twin.checkout import Checkout
from twin.folders import whole
from twin.scenario import JudgeConfig, dump, find_file, overlaid, read_settings, scenario_of
from twin.workspace import Child, Workspace

REGRESSION: Final = "regression.toml"         # the test where none is named
BASELINES: Final = "baselines"                # in `scenarios/`
REAL_SCIENCE, REAL_TEMPLATE = "DEC-OBS04*.fits", "DEC-OBS18*.fits"   # epochs of the real field
REAL_INJECTED: Final = 10                     # sources in each exposure of it, per seed
REAL_JUDGE: Final = JudgeConfig(seeds=tuple(range(1, 9)), budget=40)
STAMPS: Final = 48                            # cutouts of true sources and of detections, each, per detector-visit
ASIDE: Final = ("name", "description", "seed", "judge")   # of a scenario: what may differ between runs of one test
OF_A_SIDE: Final = ("pipeline", "platform")   # sections of a file that a side takes

_KEY: Final = r"[A-Za-z_][\w-]*(?:\.[\w-]+)*"
_SETTING: Final = rf"(?:{_KEY}=|[^:=,\s]+\.toml(?=[,\s]|$))"


@dataclass(frozen=True, slots=True)
class Runs:
    """Nights that were run before."""

    label: str
    folders: dict[int, Path]   # by seed


@dataclass(frozen=True, slots=True)
class Baseline:
    """The outcome of nights that were run and recorded."""

    label: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Detections:
    """What another program found on the exposures of the test."""

    label: str
    pattern: str               # a path; {seed} is filled in


@dataclass(frozen=True, slots=True)
class Code:
    """Code to run the test with: the present one where neither revision nor folder is named."""

    label: str
    revision: str = ""
    folder: Path | None = None
    files: tuple[Path, ...] = ()        # of settings
    overrides: tuple[str, ...] = ()     # key=value, above those

    @property
    def present(self) -> bool:
        """Whether this is the code that is running."""
        return not self.revision and self.folder is None


Side = Runs | Baseline | Detections | Code


@dataclass(frozen=True, slots=True)
class Trial:
    """What both sides are put to."""

    name: str
    settings: dict[str, Any]   # of the scenario, as its files say them; of the site, on a real field
    beside: Path               # where its cost table may lie
    judge: JudgeConfig
    real: Path | None = None   # folder of the real field's exposures


@dataclass(slots=True)
class Bench:
    """Where and how sides are run."""

    place: Workspace
    runs: Path                 # run folders go here
    cache: Path
    processes: int = 1
    say: Callable[[str], None] = lambda line: None
    _checkouts: dict[tuple[str, Path | None], Checkout] = field(default_factory=dict)

    def checkout(self, code: Code) -> Checkout:
        """The code of a side with its interpreter; each code is checked out once."""
        key = code.revision, code.folder
        if key not in self._checkouts:
            if code.revision:
                found = checkout.check_out(code.revision, self.place, self.cache, self.say)
            else:
                found = checkout.use(code.folder or checkout.present(), self.place, self.cache, self.say)
            self._checkouts[key] = found
        return self._checkouts[key]


# --- reading the line ------------------------------------------------------------------------------------------------

def parse_side(text: str) -> Side:
    """The side that a word describes; InputError where there is no such thing. Nothing is run yet."""
    kind, colon, rest = text.partition(":")
    match kind if colon else "":
        case "baseline":
            return _baseline(rest)
        case "catalog":
            return _detections(rest)
        case "run":
            return _runs(Path(rest))
        case "rev" | "tree":
            return _code(kind, *_split(rest))
    before, settings = _split(text)
    if before in ("", ".", "HEAD"):
        return _code("", "", settings)
    if not settings and Path(before).is_dir():
        return _recorded(Path(before))
    try:
        return _code("rev", before, settings)
    except InputError as error:
        if str(error).startswith("unknown revision"):
            raise InputError(f"{error}, and no folder of this name") from None
        raise


def _split(text: str) -> tuple[str, str]:
    """CODE and SETTINGS of `CODE:SETTINGS`, either of which may be missing."""
    found = re.search(rf"(?:^|:)(?={_SETTING})", text)
    return (text, "") if found is None else (text[:found.start()], text[found.end():])


def _code(kind: str, name: str, settings: str) -> Code:
    settings = settings.strip(", ")
    words = re.split(rf"[,\s]+(?={_SETTING})", settings) if settings else []
    files = tuple(Path(word) for word in words if "=" not in word)
    overrides = tuple(word for word in words if "=" in word)
    for path in files:
        read_settings(path)   # so that a missing one is found now
    if kind == "tree":
        folder = Path(name).expanduser().resolve()
        if not name or not checkout.is_code(folder):
            raise InputError(f"tree:{name}: no checkout of the twin in this folder")
        label = _label(f"{folder.name} ({checkout.version(folder)})", settings)
        return Code(label, "", None if folder == checkout.present() else folder, files, overrides)
    if kind == "rev":
        if not name:
            raise InputError("rev: needs the name of a revision")
        revision = checkout.resolve(name, checkout.present())
        where = revision[:7] if revision.startswith(name) else f"{name} ({revision[:7]})"
        return Code(_label(where, settings), revision, None, files, overrides)
    where = "" if settings else f"present code ({checkout.version(checkout.present())})"
    return Code(_label(where, settings), "", None, files, overrides)


def _label(where: str, changes: str) -> str:
    return " with ".join(filter(None, (where, changes)))


def _recorded(folder: Path) -> Side:
    if is_baseline(folder):
        return _baseline(str(folder))
    if (folder / "measures").is_dir() or any(_inside(folder)):
        return _runs(folder)
    if checkout.is_code(folder):
        raise InputError(f"{folder}: to compare the code in this folder write tree:{folder}")
    raise InputError(f"{folder}: neither a run folder, nor a folder of run folders, nor a baseline; for a revision of "
                     f"this name write rev:{folder}")


def _inside(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if (p / "measures").is_dir())


def _runs(folder: Path) -> Runs:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run folder")
    found = [folder] if (folder / "measures").is_dir() else _inside(folder)
    if not found:
        raise InputError(f"{folder}: no run folder, and no folder of run folders")
    folders: dict[int, Path] = {}
    for run in found:
        whole(run)
        seed = Store(run).facts().get("seed", "")
        if not seed.isdecimal():
            raise InputError(f"{run}: an unfinished run, it does not say its seed")
        if int(seed) in folders:
            raise InputError(f"{run}: has the seed {seed} of {folders[int(seed)]}; one run folder per seed is needed")
        folders[int(seed)] = run.resolve()
    return Runs(folder.name or str(folder), dict(sorted(folders.items())))


def is_baseline(folder: Path) -> bool:
    """Whether a folder holds a recorded outcome."""
    return (folder / "measures" / TABLES["visits"]).is_dir()


def _baseline(name: str) -> Baseline:
    shipped = Path(str(resources.files("scenarios"))) / BASELINES
    for folder in (Path(name), shipped / name):
        if name and is_baseline(folder):
            facts = Store(folder).facts()
            made = ", ".join(filter(None, (facts.get("code", ""), facts.get("date", "")[:10])))
            return Baseline(f"baseline {folder.name}" + (f" ({made})" if made else ""), folder.resolve())
    raise InputError(f"no baseline {name!r}: looked for a folder of this name, here and in {shipped}")


def _detections(name: str) -> Detections:
    if not name:
        raise InputError("catalog: needs a file of detections")
    if "{seed}" not in name and not Path(name).exists():
        raise InputError(f"{name}: no such file of detections")
    return Detections(Path(name).name, str(Path(name).expanduser().absolute()))


# --- the test --------------------------------------------------------------------------------------------------------

def read_trial(text: str | None, base: Side, head: Side) -> Trial:
    """The test that was asked for, else that of a recorded side, else of a side's file, else the project's own.

    InputError where a baseline was recorded from another scenario, or runs are of different skies: it names the first
    key that differs.
    """
    if text is not None and text.startswith("real:"):
        trial = _real(Path(text.removeprefix("real:")).expanduser())
    elif text is not None:
        trial = of_file(Path(text) if Path(text).is_file() else find_file(text, Path(), "scenario"))
    else:
        first = sorted((base, head), key=lambda side: not isinstance(side, Baseline))
        found = [t for of in (_of_recorded, _of_sky) for side in first if (t := of(side)) is not None]
        trial = found[0] if found else of_file(find_file(REGRESSION, Path(), "scenario"))
    for side in (base, head):
        if isinstance(side, Baseline):
            _assert_same(side, trial)
    if isinstance(base, Runs) and isinstance(head, Runs):
        _assert_one_sky(base, head)
    return trial


def of_file(path: Path) -> Trial:
    """The test of a scenario file."""
    settings = read_settings(path)
    return Trial(path.stem, settings, path.absolute().parent, scenario_of(settings, str(path)).judge)


def _of_recorded(side: Side) -> Trial | None:
    if isinstance(side, Baseline):
        return _called(of_file(side.folder / "scenario.toml"))
    if not isinstance(side, Runs):
        return None
    files = [folder / "scenario.toml" for folder in side.folders.values()]
    if not all(file.is_file() for file in files):
        return None
    first, *others = map(of_file, files)
    for other in others:
        if found := first_difference(first.settings, other.settings):
            raise InputError(f"{side.label}: its runs are of different scenarios, they differ in {found[0]}")
    return _called(first)


def _called(trial: Trial) -> Trial:
    """A test under the name that its scenario gives itself."""
    return replace(trial, name=str(trial.settings.get("name", trial.name)))


def _of_sky(side: Side) -> Trial | None:
    """The test of a side's settings file that describes a sky; its settings of the pipeline are that side's alone."""
    for path in side.files if isinstance(side, Code) else ():
        trial = of_file(path)
        if "simulation" in trial.settings:
            return replace(trial, settings={k: v for k, v in trial.settings.items() if k not in OF_A_SIDE})
    return None


def _real(folder: Path) -> Trial:
    for pattern in (REAL_SCIENCE, REAL_TEMPLATE):
        if not list(folder.glob(pattern)):
            raise InputError(f"real:{folder}: no exposures {pattern} of the real field in this folder")
    site = Path(str(resources.files("scenarios"))) / "decam" / "site.toml"
    return Trial("real field", tomllib.loads(site.read_text()), site.parent, REAL_JUDGE, folder.resolve())


def _assert_same(baseline: Baseline, trial: Trial) -> None:
    recorded = of_file(baseline.folder / "scenario.toml")
    if trial.real is not None:
        raise InputError(f"{baseline.label} is of simulated nights, the test is the real field")
    if found := first_difference(recorded.settings, trial.settings):
        key, was, now = found
        raise InputError(f"{baseline.label} was recorded from another scenario: {key} is {was} there, {now} in "
                         f"{trial.name}; record it anew")


def _assert_one_sky(base: Runs, head: Runs) -> None:
    skies = []
    for side in (base, head):
        if (recorded := _of_recorded(side)) is None:
            return
        skies.append(to_builtins(scenario_of(recorded.settings, side.label).simulation))
    if found := first_difference(skies[0], skies[1], "simulation."):
        key, was, now = found
        raise InputError(f"the sides saw different skies: {key} is {was} in {base.label}, {now} in {head.label}")


def first_difference(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> tuple[str, Any, Any] | None:
    """The first key, in order, in which two scenarios differ, with both values; names, seeds and judgement aside.

    Examples
    --------
    >>> first_difference({"seed": 1, "a": {"x": 1}}, {"seed": 2, "a": {"x": 1, "y": 3}})
    ('a.y', 'not set', 3)
    """
    for key in sorted({*one, *other} - set(() if prefix else ASIDE)):
        was, now = one.get(key, "not set"), other.get(key, "not set")
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            if found := first_difference(was, now, f"{prefix}{key}."):
                return found
        elif was != now and repr(was) != repr(now):   # a NaN is no difference
            return f"{prefix}{key}", was, now
    return None


def notes(side: Side, trial: Trial) -> list[str]:
    """What of a side's files does not count, since the sky is the test's."""
    lines = []
    for path in side.files if isinstance(side, Code) else ():
        said = {k: v for k, v in read_settings(path).items() if k not in (*OF_A_SIDE, *ASIDE)}
        left = [section for section in said if said[section] != trial.settings.get(section)]
        if left:
            lines.append(f"{path}: {', '.join(f'[{section}]' for section in left)} left aside, the sky is that of "
                         f"{trial.name}")
    return lines


# --- running ---------------------------------------------------------------------------------------------------------

def seeds_of(side: Side) -> tuple[int, ...] | None:
    """The nights that a recorded side has; None for a side that can be run."""
    if isinstance(side, Runs):
        return tuple(side.folders)
    if isinstance(side, Baseline):
        return tuple(int(seed) for seed in np.unique(Store(side.folder).table(TABLES["visits"])["seed"]))
    return None


def settings_of(code: Code, trial: Trial) -> dict[str, Any]:
    """The test's settings with a side's laid above; InputError where the present code cannot use them."""
    settings = overlaid({key: value for key, value in trial.settings.items() if key not in ("judge", "seed")})
    takes = OF_A_SIDE if trial.real is None else OF_A_SIDE[:1]   # a site has no simulated platform
    for path in code.files:
        said = read_settings(path)
        settings = overlaid(settings, {section: said[section] for section in takes if section in said})
        _locate_costs(settings, path.absolute().parent)
    if trial.real is None:
        _locate_costs(settings, trial.beside)
        settings = overlaid({"recorder": {"stamps_per_visit": STAMPS}}, settings)   # cutouts of what one side lacks
    settings = overlaid(settings, None, code.overrides)
    if "seed" in settings:
        raise InputError(f"{code.label}: the seed is the test's, not a side's: give --seeds")
    if sky := [word for word in code.overrides if word.startswith("simulation.")]:
        raise InputError(f"{code.label}: the sky is the test's, not a side's: set {sky[0].partition('=')[0]} in the "
                         "scenario")
    if code.present and trial.real is None:
        scenario_of(settings, code.label)
    return settings


def _locate_costs(settings: dict[str, Any], beside: Path) -> None:
    """Name a cost table that lies beside the scenario in full, in place: the settings will be read elsewhere."""
    platform = settings.get("platform")
    if isinstance(platform, dict) and isinstance(platform.get("costs"), str):
        local = beside / platform["costs"]
        if local.is_file():
            platform["costs"] = str(local)


def outcome(side: Side, trial: Trial, seeds: Sequence[int], bench: Bench, name: str,
            others: Mapping[int, Path] | None = None) -> Outcome:
    """What a side made of the nights of a test, run now where it has to be.

    `others` are run folders of the same test, by seed, whose truth another program's detections are laid against.
    """
    if isinstance(side, Baseline):
        return only(of_baseline(Store(side.folder)), seeds)
    if isinstance(side, Runs):
        folders = {seed: side.folders[seed] for seed in seeds}
    elif isinstance(side, Detections):
        folders = scored(side, seeds, bench.runs / name, dict(others or {}))
    else:
        folders = nights(side, trial, seeds, bench, name)
    return joined([of_run(Store(folder), seed) for seed, folder in folders.items()])


def only(whole: Outcome, seeds: Sequence[int]) -> Outcome:
    """The rows of some nights."""
    return replace(whole, **{name: rows[np.isin(rows["seed"], list(seeds))] for name in TABLES
                             for rows in [getattr(whole, name)]},
                   folders={seed: folder for seed, folder in whole.folders.items() if seed in seeds})


def scored(side: Detections, seeds: Sequence[int], out: Path, runs: Mapping[int, Path]) -> dict[int, Path]:
    """Run folders made of another program's detections."""
    from twin.answers import read_answers
    from twin.score import score_catalog

    if len(seeds) > 1 and "{seed}" not in side.pattern and "seed" not in read_answers(Path(side.pattern)).given:
        raise InputError(f"{side.label}: the test has {len(seeds)} nights; write {{seed}} in the name of the file, "
                         "give the detections a column seed, or choose one night with --seeds")
    folders = {}
    for seed in seeds:
        file = Path(side.pattern.replace("{seed}", str(seed)))
        if not file.exists():
            raise InputError(f"{file}: no such file of detections")
        folders[seed] = score_catalog(runs[seed], file, out / f"seed_{seed}")
    return folders


def nights(code: Code, trial: Trial, seeds: Sequence[int], bench: Bench, name: str) -> dict[int, Path]:
    """Run the nights of a test with a side's code and settings; run folders by seed."""
    folders = {seed: bench.runs / name / f"seed_{seed}" for seed in seeds}
    file = write_settings(code, trial, bench, name)
    found = bench.checkout(code)
    variables = checkout.environment(found.root, bench.cache)

    def child(what: str, *words: str) -> Child:
        return Child(f"{code.label}{what}", (str(found.python), "-m", "twin.cli", *words), found.root, variables)

    if trial.real is None and (found.root / "twin" / "nights.py").is_file():
        # one process that shares out the nights, so that what all need is loaded once
        (bench.runs / name).mkdir(parents=True, exist_ok=True)
        children = [child("", "run", str(file), "--seeds", *map(str, seeds), "--quiet", "--processes",
                          str(bench.processes), *_lean(found.root), "--out", str(bench.runs / name))]
    else:
        children = [child(f", seed {seed}", *_words(trial, file, seed), "--out", str(folder))
                    for seed, folder in folders.items()]
    nights = f"night{'s' if len(seeds) > 1 else ''} {written(seeds)}"
    bench.say(f"{name}: {nights} with {code.label}")
    bench.place.run(children, bench.processes)
    return folders


def write_settings(code: Code, trial: Trial, bench: Bench, name: str) -> Path:
    """A file of the test's settings with a side's laid above."""
    file = bench.place.new(name).with_suffix(".toml")
    file.write_text(dump(settings_of(code, trial)))
    return file


def _lean(root: Path) -> tuple[str, ...]:
    """Options that spare a night what no comparison looks at, where the code knows them."""
    return ("--lean",) if '"--lean"' in (root / "twin" / "cli.py").read_text(encoding="utf-8") else ()


def _words(trial: Trial, settings: Path, seed: int) -> tuple[str, ...]:
    """The command for one night of a test: simulated, or injected into the real field."""
    if trial.real is None:
        return "run", str(settings), "--seed", str(seed), "--quiet", "--processes", "1"
    science, template = (sorted(map(str, trial.real.glob(p))) for p in (REAL_SCIENCE, REAL_TEMPLATE))
    return ("process", *science, "--config", str(settings), "--template-from", *template, "--inject",
            str(REAL_INJECTED), "--seed", str(seed))


def written(seeds: Sequence[int]) -> str:
    """Seeds in short.

    Examples
    --------
    >>> written((1, 2, 3, 7))
    '1-3, 7'
    """
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and runs[-1][-1] == seed - 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
