"""A scenario file: the description of a night, read strictly.

Sections of the sky and the telescope are `simulators.config`, those of the pipeline `pipeline.config`; the rest is
here. Unknown keys and impossible values are refused with the file and the key. `base = "other.toml"` starts from
another file, beside this one or shipped, and changes what is said again.
"""

import copy
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from pipeline.config import PipelineConfig
from pipeline.errors import InputError
from simulators.config import SimulationConfig
from simulators.wide_config import WideConfig
from twin.fault_entries import incomplete, refused
from twin.platform_config import (
    AtLeastOne,
    CountsConfig,
    ExpectConfig,
    FaultConfig,
    FidelitiesConfig,
    NotNegative,
    PlatformConfig,
    Section,
)

DEPTH: Final = 5   # of `base` chains
SHIPPED: Final = {"cost table": "costs", "counts model": "counts"}   # folders of `scenarios/` by kind of file


class HistoryConfig(Section, frozen=True):
    """The night's templates: coadds of the cadence's earlier visits that `pipeline.template` selects."""

    margin_px: Annotated[int, msgspec.Meta(ge=0)] = 24     # template beyond the detectors' outlines


class RecorderConfig(Section, frozen=True):
    """What the run folder keeps beside the tables."""

    stamps_per_visit: Annotated[int, msgspec.Meta(ge=0)] = 24   # of truth and of sources each, for the gallery


class JudgeConfig(Section, frozen=True):
    """How two sides of this test are judged, set before anybody looks at them."""

    level: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.05   # of false verdicts among all metrics, and of intervals
    resamples: Annotated[int, msgspec.Meta(ge=100)] = 2000     # of the bootstrap and of the randomisation
    seeds: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] = (1, 2, 3)   # nights of the test, where none are asked for
    budget: AtLeastOne = 12              # nights at most, where seeds are added until all is decided
    samples: AtLeastOne = 24             # detector-visits whose CPU time and memory are measured on both sides
    primary: tuple[str, ...] = ()        # keys of metrics that have to be decided; empty: the metrics' own choice
    margins: dict[str, NotNegative] = {}   # by key: a difference within it does not matter; others have their own


class Scenario(Section, frozen=True):
    """One night."""

    name: str = "a night"
    description: str = ""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 1
    fidelity: Literal["pixels", "counts"] = "pixels"   # counts: the whole platform, numbers of sources and Steps alone
    fidelities: FidelitiesConfig = FidelitiesConfig()  # of counts: detectors that are more than numbers
    simulation: SimulationConfig = SimulationConfig()
    pipeline: PipelineConfig = PipelineConfig()
    platform: PlatformConfig = PlatformConfig()
    history: HistoryConfig = HistoryConfig()
    recorder: RecorderConfig = RecorderConfig()
    judge: JudgeConfig = JudgeConfig()
    counts: CountsConfig = CountsConfig()
    wide: WideConfig = WideConfig()        # the sky of survey nights at catalogue fidelity
    faults: tuple[FaultConfig, ...] = ()   # of nights at counts fidelity
    expect: ExpectConfig = ExpectConfig()  # and what they must end in

    def __post_init__(self) -> None:
        named, n = self.live, self.counts.detectors
        if named and self.fidelity != "counts":
            raise ValueError(f'fidelities need fidelity = "counts", the platform they stand on, got {self.fidelity!r}')
        if named and max(named) >= n:
            raise ValueError(f"fidelities: counts.detectors has 0 to {n - 1}, got {max(named)}")
        if named and any(fault.kind == "burst" for fault in self.faults):
            raise ValueError("faults: a burst multiplies numbers, and live detectors (fidelities) have the sky's")
        if self.fidelities.pixels and self.counts.cadence != "simulation":
            raise ValueError("fidelities.pixels: only a field of the simulation can be rendered, which needs "
                             f'counts.cadence = "simulation", got {self.counts.cadence!r}')

    @property
    def live(self) -> tuple[int, ...]:
        """Detectors on the platform whose halves of the pipeline are run: rendered ones first."""
        f = self.fidelities
        if f.catalogue == "all":
            return (*f.pixels, *(one for one in range(self.counts.detectors) if one not in f.pixels))
        return (*f.pixels, *f.catalogue)


def read_scenario(path: Path, overrides: Sequence[str] = (), seed: int | None = None) -> Scenario:
    """The scenario of a file with overrides `section.key=value`, the value as TOML spells it.

    InputError names the file and the key that cannot be used.
    """
    data = read_settings(path, overrides)
    if seed is not None:
        data["seed"] = seed
    _place_survey(data, path.parent)
    return scenario_of(data, str(path))


def _place_survey(data: dict[str, Any], beside: Path) -> None:
    """Make the path of a database of visits absolute, in place: it is beside the scenario unless it says more."""
    cadence = data.get("simulation", {})
    cadence = cadence.get("cadence", {}) if isinstance(cadence, dict) else {}
    if isinstance(cadence, dict) and isinstance(cadence.get("opsim"), str) and cadence["opsim"]:
        cadence["opsim"] = str((beside / cadence["opsim"]).resolve())


def read_settings(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What a scenario file and those below it say, as they say it, with overrides; defaults are not filled in."""
    data = _load(path, DEPTH)
    for override in overrides:
        _override(data, override)
    return data


def overlaid(settings: Mapping[str, Any], above: Mapping[str, Any] | None = None,
             overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Settings with others laid above them, section by section, and overrides above both."""
    data = copy.deepcopy(_merged(dict(settings), dict(above or {})))
    for override in overrides:
        _override(data, override)
    return data


def scenario_of(settings: Mapping[str, Any], source: str) -> Scenario:
    """The scenario that settings describe; InputError names their source and the key that cannot be used."""
    try:
        scenario = msgspec.convert(settings, Scenario)
    except msgspec.ValidationError as error:
        what, key = _explained(error)
        said = refused(what, key, settings, source) or f"{source}: {f'{key}: ' if key else ''}{what}"
        raise InputError(said) from None
    if lacking := incomplete(scenario.faults, settings, source):
        raise InputError(lacking)
    return scenario


def find_file(name: str, beside: Path, kind: str) -> Path:
    """A file named in a scenario: beside it, or among those shipped in `scenarios/`."""
    local = beside / name
    if local.is_file():
        return local
    shipped = Path(str(resources.files("scenarios"))) / SHIPPED.get(kind, "") / name
    if shipped.is_file():
        return shipped
    raise InputError(f"no {kind} {name!r}: looked in {beside} and among the scenarios shipped")


def to_toml(scenario: Scenario) -> str:
    """The scenario with every value, defaults included, as a file that `read_scenario` reads."""
    return dump(msgspec.to_builtins(scenario))


def dump(data: Mapping[str, Any], prefix: str = "") -> str:
    """A mapping of scalars, lists and mappings as TOML; None is left out."""
    lines = [f"{_key(key)} = {_value(value)}" for key, value in data.items()
             if value is not None and not _is_table(value)]
    for key, value in data.items():
        name = f"{prefix}{_key(key)}"
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]", dump(value, f"{name}.")]
        elif _is_table(value):
            for item in value:
                lines += ["", f"[[{name}]]", dump(item, f"{name}.")]
    return "\n".join(lines)


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(v, Mapping) for v in value))


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(repr(value), repr(value))
    return msgspec.json.encode(value).decode()   # TOML's basic strings, integers and booleans are JSON's


def _load(path: Path, depth: int) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no scenario file {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: {error}") from None
    base = data.pop("base", None)
    if base is None:
        return data
    if not isinstance(base, str) or depth == 0:
        raise InputError(f"{path}: base must name another scenario file, at most {DEPTH} deep, got {base!r}")
    return _merged(_load(find_file(base, path.parent, "scenario"), depth - 1), data)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        out[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def _override(data: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise InputError(f"override {text!r}: expected section.key=value")
    try:
        parsed = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for part in parts[:-1]:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise InputError(f"override {text!r}: {part} is not a section")
    data[parts[-1]] = parsed


def _explained(error: msgspec.ValidationError) -> tuple[str, str]:
    """What is wrong and the key of an error that reads `what is wrong - at `$.key``."""
    what, _, where = str(error).partition(" - at ")
    return what, where.strip("`").removeprefix("$").removeprefix(".")
