"""Recorded baselines: what the code of a day made of a test, source by source, to lay later code beside.

    BASELINE/
      scenario.toml     the test, as its files say it: what later code has to be run with
      measures/         the tables of an Outcome and `fact`: code, scenario, seeds, date, machine

Its CPU times are of that day and machine, and are not compared: times need both sides run side by side.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.errors import InputError
from reports.outcome import Outcome, tables
from reports.store import Store
from schemas.measures import fact_rows
from twin import checkout, sides
from twin.cache import Cache
from twin.folders import claimed
from twin.recorder import ParquetRecorder
from twin.scenario import dump
from twin.sides import Bench, Trial
from twin.workspace import workspace

KEPT: Final = ("kind", "fidelity", "python", "numpy", "scipy", "numba", "galsim", "duckdb", "twin",
               "cost_table")   # of a night


@dataclass(frozen=True, slots=True)
class Recorded:
    """A baseline just made."""

    folder: Path
    nights: int
    sources: int
    bytes: int

    def __str__(self) -> str:
        return (f"baseline of {self.nights} nights, {self.sources} true sources seen, {self.bytes / 1e6:.1f} MB: "
                f"{self.folder}")


def record(scenario: Path, seeds: Sequence[int], out: Path, *, cache: Path | None = None, processes: int = 1,
           say: Callable[[str], None] = lambda line: None) -> Recorded:
    """Run a scenario's nights with the present code and record their outcome in a new folder.

    InputError where the folder is occupied, before anything is run; whatever ends it early takes the folder with it.
    """
    trial = sides.of_file(scenario)
    nights = tuple(seeds) or trial.judge.seeds
    code = sides.parse_side(".")
    with claimed(out), workspace() as place:
        bench = Bench(place, place.new("runs"), Cache.open(cache).folder, processes, say)
        outcome = sides.outcome(code, trial, nights, bench, "baseline")
        return write(outcome, trial, nights, out)


def write(outcome: Outcome, trial: Trial, seeds: Sequence[int], out: Path) -> Recorded:
    """Write an outcome as a baseline into a folder."""
    settings = {key: value for key, value in trial.settings.items() if key != "seed"}
    (out / "scenario.toml").write_text(dump(settings))
    _copy_costs(settings, trial.beside, out)
    with ParquetRecorder(out / "measures", compression="zstd") as recorder:
        for name, rows in tables(outcome).items():
            recorder.append(name, rows)
        recorder.append("fact", _facts(outcome, settings, seeds))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Recorded(out, len(seeds), len(outcome.sources), size)


def scenario_hash(settings: Mapping[str, Any]) -> str:
    """A fingerprint of what a scenario says of the nights; names, seeds and judgement aside."""
    kept = {key: settings[key] for key in sorted(settings) if key not in sides.ASIDE}
    return hashlib.sha256(dump(kept).encode()).hexdigest()[:16]


def revision(folder: Path) -> tuple[str, str]:
    """The commit whose code made a baseline, in the present repository; else an empty one and why there is none."""
    facts = Store(folder).facts()
    recorded = facts.get("revision", "")
    if not recorded:
        return "", "it was recorded from code without git"
    if facts.get("dirty") == "true":
        return "", f"it was recorded from {recorded[:7]} with uncommitted changes"
    try:
        return checkout.resolve(recorded, checkout.present()), ""
    except InputError:
        return "", f"its revision {recorded[:7]} is not in this repository"


def _facts(outcome: Outcome, settings: Mapping[str, Any], seeds: Sequence[int]) -> np.ndarray:
    from twin.halves import machine_name

    version = checkout.version(checkout.present())
    values: dict[str, str] = {
        "scenario": str(settings.get("name", "")), "scenario_hash": scenario_hash(settings),
        "code": str(version), "revision": version.revision, "dirty": str(version.dirty).lower(),
        "sources": checkout.fingerprint(checkout.present()), "seeds": " ".join(map(str, seeds)),
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine_name(),
        **{key: outcome.facts[key] for key in KEPT if key in outcome.facts}}
    return fact_rows(values)


def _copy_costs(settings: Mapping[str, Any], beside: Path, out: Path) -> None:
    """A cost table that lies beside the scenario goes along."""
    name = settings.get("platform", {}).get("costs", "")
    if name and (beside / name).is_file() and not Path(name).is_absolute():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes((beside / name).read_bytes())
