"""What Steps cost on this machine: a scenario run in one process at several detector sizes, a line for each Step."""

import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import structs

from pipeline.errors import InputError
from reports.store import Store
from twin.costs import CostFile, CostTable, fit_table, shortfalls, to_toml
from twin.folders import claim
from twin.halves import machine_name
from twin.night import run_night
from twin.pool import warm
from twin.scenario import Scenario, find_file, read_scenario

SIDES: Final = (620, 880, 1250, 1780, 2560)    # [pixel]: areas over a range of 17


def measure_costs(scenario: Path | None, out: Path, *, runs: Path | None = None, name: str = "",
                  sides: Sequence[int] = SIDES, say: Callable[[str], None] = lambda line: None) -> str:
    """Run, fit and write the table `out`; gives what was written and what it falls short of.

    The run folders go to `runs` when it is given, where `alert-twin report` reads them; else they are thrown away.
    """
    path = scenario or Path(str(resources.files("scenarios"))) / "costs.toml"
    base = read_scenario(path)
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise InputError(f"{out}: the table must be a file in a folder that exists")
    before = CostTable.read(find_file(base.platform.costs, path.parent, "cost table")).file
    warm()
    with tempfile.TemporaryDirectory() as scratch:
        folder = runs or Path(scratch)
        claim(folder)
        steps = []
        for number, side in enumerate(sides):
            say(f"{side} x {side} px")
            run_night(_at_side(base, side, number), folder / f"{side}", beside=path.parent, processes=1)
            steps.append(Store(folder / f"{side}").table("step"))
    file = fit_table(np.concatenate(steps), machine=name or machine_name(), date=datetime.now(UTC).date().isoformat(),
                     keep=_assumed(before))
    out.write_text(to_toml(file))
    return "\n".join([f"{len(file.steps)} Steps: {out}", *(f"short of the rule: {line}" for line in shortfalls(file))])


def _at_side(base: Scenario, side: int, number: int) -> Scenario:
    """The scenario with detectors of another size, and another seed, so that sizes are independent draws.

    Ephemerides are asked for in a box wider than the detector: asteroids are made denser where it is larger, so that
    their numbers span as much as the areas do.
    """
    simulation, sky = base.simulation, base.simulation.sky
    asteroids = structs.replace(sky.asteroids, belt_per_field=sky.asteroids.belt_per_field * side / 1000)
    return structs.replace(base, seed=base.seed + number, simulation=structs.replace(
        simulation, camera=structs.replace(simulation.camera, ny=side, nx=side),
        sky=structs.replace(sky, asteroids=asteroids)))


def _assumed(file: CostFile) -> CostFile:
    """Of an older table, the costs that nobody can measure here."""
    return CostFile(machine=file.machine, date=file.date,
                    steps={name: cost for name, cost in file.steps.items() if cost.assumed})


__all__ = ["SIDES", "measure_costs"]
