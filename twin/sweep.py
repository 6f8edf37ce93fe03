"""One night on many platforms: the latency of each, and the cheapest that meets the requirement."""

import csv
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from pipeline.errors import InputError
from reports.surface import Point
from reports.sweep_page import render_sweep, said
from twin.counts_night import Made, read_costs, simulate
from twin.folders import claimed
from twin.platform_config import ServiceConfig
from twin.pool import spawned
from twin.prompt_processing import Ran
from twin.scenario import Scenario, read_scenario

MOST: Final = 2000             # platforms of one sweep

Progress = Callable[[str, int, int], None]      # what, done, of how many
Settings = tuple[tuple[str, str], ...]          # key and value of each axis


def axes_of(texts: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Axes from `section.key=value,value,...`; a whole-number range is `first:last:step`.

    Examples
    --------
    >>> axes_of(["platform.workers=200:600:200", "platform.cost_scale=1,0.5"])
    [('platform.workers', ['200', '400', '600']), ('platform.cost_scale', ['1', '0.5'])]
    """
    out = []
    for text in texts:
        key, equals, values = text.partition("=")
        parts = [v.strip() for v in values.split(",") if v.strip()]
        if not equals or not key.strip() or not parts:
            raise InputError(f"--over {text!r}: expected section.key=value,value,... or section.key=first:last:step")
        out.append((key.strip(), [v for part in parts for v in _range(part, text)]))
    if not out:
        raise InputError("a sweep needs at least one --over section.key=value,value,...")
    number = 1
    for _, found in out:
        number *= len(found)
    if number > MOST:
        raise InputError(f"{number} platforms are too many for one sweep: at most {MOST}")
    return out


def _range(part: str, text: str) -> list[str]:
    pieces = part.split(":")
    if len(pieces) == 1:
        return [part]
    try:
        first, last, step = (int(piece) for piece in pieces)
        return [str(value) for value in range(first, last + (1 if step > 0 else -1), step)]
    except ValueError:
        raise InputError(f"--over {text!r}: {part!r} is no range of whole numbers first:last:step") from None


def sweep(path: Path, over: Sequence[str], out: Path, *, overrides: Sequence[str] = (), seed: int | None = None,
          processes: int = 1, progress: Progress = lambda what, done, total: None) -> str:
    """Simulate a scenario's night on every platform of a grid into a new folder; says which is the cheapest that does.

    InputError names what cannot be used, before anything is simulated.
    """
    axes = axes_of(over)
    grid = [tuple((key, value) for (key, _), value in zip(axes, values, strict=True))
            for values in itertools.product(*(values for _, values in axes))]
    scenarios = [read_scenario(path, [*overrides, *(f"{key}={value}" for key, value in settings)], seed)
                 for settings in grid]
    for scenario in scenarios:
        if scenario.fidelity != "counts":
            raise InputError(f'{path}: a sweep is of nights of fidelity "counts", this one is of "{scenario.fidelity}"')
        if scenario.platform.pods.smallest > scenario.platform.workers:
            raise InputError(f"{path}: platform.pods.smallest is {scenario.platform.pods.smallest}, above "
                             f"platform.workers = {scenario.platform.workers}")
    with claimed(out):
        points = list(_simulated(grid, scenarios, path.parent, processes, progress))
        points.sort(key=lambda point: grid.index(point.settings))
        (out / "surface.csv").write_text(table(points))
        render_sweep(out, points, f"{scenarios[0].name}: a sweep",
                     circumstances(scenarios, [key for key, _ in axes], path, overrides))
    return f"{len(points)} platforms: {out / 'sweep.html'}, {out / 'surface.csv'}\n{said(points)}"


def _simulated(grid: Sequence[Settings], scenarios: Sequence[Scenario], beside: Path, processes: int,
               progress: Progress) -> Iterator[Point]:
    """The points as they are done, on as many processes; each keeps what the next of its points can use again."""
    total = len(grid)
    progress("platforms", 0, total)
    if processes == 1:
        for done, (settings, scenario) in enumerate(zip(grid, scenarios, strict=True), 1):
            yield point_of(settings, scenario, beside)
            progress("platforms", done, total)
        return
    with spawned(min(processes, total)) as pool:
        futures = [pool.submit(point_of, settings, scenario, beside)
                   for settings, scenario in zip(grid, scenarios, strict=True)]
        for done, future in enumerate(as_completed(futures), 1):
            yield future.result()
            progress("platforms", done, total)


_kept: dict[bytes, tuple[Made, Ran | None]] = {}     # of this process: the last night's numbers and its reference


def point_of(settings: Settings, scenario: Scenario, beside: Path) -> Point:
    """One platform's night."""
    platform = msgspec.structs.replace(scenario.platform, workers=1, pods=type(scenario.platform.pods)())
    key = msgspec.json.encode([msgspec.structs.replace(scenario, platform=platform), str(beside)])
    night, reference = _kept.get(key, (None, None))
    found = simulate(scenario, beside, reference=reference, night=night)
    _kept.clear()
    _kept[key] = (found.made, found.reference)
    p, judged = found.ran.passages, found.requirement
    held = found.ran.busy_area / (found.ran.end_s - float(np.nanmin(p["published_s"])))
    wait = p["taken_s"] - p["published_s"]
    return Point(settings, price(scenario), judged.met, judged.percentiles_s["p50"], judged.percentiles_s["p98"],
                 judged.on_time, judged.within_120, judged.late, judged.failed,
                 float(p["n_sent"].sum() / max(judged.alerts, 1)), held,
                 float(wait[wait == wait].max(initial=0.0)))


def price(scenario: Scenario) -> float:
    """What a platform is to cost, in workers: those that may be, and the servers of what is limited at their prices."""
    services = scenario.platform.services
    each: list[ServiceConfig] = [getattr(services, name) for name in services.__struct_fields__]
    return scenario.platform.workers + sum(service.servers * service.price for service in each)


def table(points: Sequence[Point]) -> str:
    """The surface as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    numbers = [name for name in Point.__dataclass_fields__ if name != "settings"]
    writer.writerow([*(key for key, _ in points[0].settings), *numbers])
    for point in points:
        writer.writerow([*(value for _, value in point.settings), *(getattr(point, name) for name in numbers)])
    return out.getvalue()


def circumstances(scenarios: Sequence[Scenario], axes: Sequence[str], path: Path, overrides: Sequence[str]
                  ) -> list[tuple[str, str]]:
    """What a sweep's figures come from, by name."""
    first = scenarios[0]
    costs = read_costs(first, path.parent)
    origins = " and ".join(sorted({costs.origin(name).partition(":")[0] for name in costs.file.steps}))
    c, same = first.counts, "; the same for all" if all(key.startswith("platform.") for key in axes) else " at first"
    return [
        ("fidelity", "counts: numbers of sources and seconds of Steps; every figure here is modelled"),
        ("night", f"{', '.join([path.name, *overrides])}: {c.visits} visits of {c.detectors} detectors, "
                  f"{c.alerts_per_visit:,g} alerts in a visit, seed {first.seed}{same}"),
        ("seconds of Steps", f"{origins}: {first.platform.costs}, {costs.file.machine}, {costs.file.date}"),
        ("platforms", f"{len(scenarios)}, over {', '.join(axes)}")]


__all__ = ["axes_of", "circumstances", "point_of", "price", "sweep", "table"]
