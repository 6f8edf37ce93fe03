"""One night on many platforms: the latency of each, and the cheapest that meets the requirement."""

import csv
import io
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from hashlib import blake2b
from pathlib import Path
from typing import Final, TextIO

import msgspec
import numpy as np

from pipeline.errors import InputError
from reports.state import State, look
from reports.store import StoreError
from reports.surface import Point
from reports.sweep_page import render_sweep, said
from twin.closure import closure
from twin.cluster import Tables, computed, connected
from twin.counts_night import Made, read_costs, simulate
from twin.platform_config import ServiceConfig
from twin.pool import end, spawned
from twin.prompt_processing import Ran
from twin.running import POINTS, Progress, Running, begun
from twin.running import settings as told
from twin.scenario import Scenario, find_file, read_scenario

MOST: Final = 2000             # platforms of one sweep

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
          processes: int = 1, cluster: str = "", progress: Progress = lambda what, done, total: None) -> str:
    """Simulate a scenario's night on every platform of a grid into a new folder; says which is the cheapest that does.

    In the folder of the same sweep that did not finish, the platforms that were done are not simulated again; one that
    is ended early stays as soon as any is. With `cluster`, the address of a Dask scheduler, its workers simulate.
    InputError names what cannot be used, before anything is simulated.
    """
    axes = axes_of(over)
    grid = list(dict.fromkeys(tuple((key, value) for (key, _), value in zip(axes, values, strict=True))
                              for values in itertools.product(*(values for _, values in axes))))
    scenarios = [read_scenario(path, [*overrides, *(f"{key}={value}" for key, value in settings)], seed)
                 for settings in grid]
    for scenario in scenarios:
        if scenario.fidelity != "counts":
            raise InputError(f'{path}: a sweep is of nights of fidelity "counts", this one is of "{scenario.fidelity}"')
        if scenario.platform.pods.smallest > scenario.platform.workers:
            raise InputError(f"{path}: platform.pods.smallest is {scenario.platform.pods.smallest}, above "
                             f"platform.workers = {scenario.platform.workers}")
    keys = dict(zip(grid, keys_of(scenarios, path.parent), strict=True))
    state = State(kind="sweep", name=scenarios[0].name, seed=scenarios[0].seed, of=len(grid), settings=told(
        path=path, over=list(over), overrides=list(overrides), given_seed=seed, question=question(grid, scenarios)))
    with begun(out, state, again=_again(out, state), stays=lambda: bool(read_points(out / POINTS, keys))) as here:
        points = [point for point in read_points(out / POINTS, keys) if point.settings in keys]
        _show(here, progress, len(points))
        left = [pair for pair in zip(grid, scenarios, strict=True) if pair[0] not in {p.settings for p in points}]
        aside = out / f".{POINTS}.writing"
        with aside.open("w") as file:          # without a torn line; whoever is killed now has the old ones
            for point in points:
                _note(file, keys, point)
            aside.replace(out / POINTS)
            for point in _simulated(left, path.parent, processes, cluster):
                points.append(point)
                _note(file, keys, point)
                _show(here, progress, len(points))
        points.sort(key=lambda point: grid.index(point.settings))
        (out / "surface.csv").write_text(table(points))
        render_sweep(out, points, f"{scenarios[0].name}: a sweep",
                     circumstances(scenarios, [key for key, _ in axes], path, overrides))
        (out / POINTS).unlink()
    return f"{len(points)} platforms: {out / 'sweep.html'}, {out / 'surface.csv'}\n{said(points)}"


def _show(here: Running, progress: Progress, done: int) -> None:
    here.count(done)
    progress("platforms", done, here.state.of)


def _again(out: Path, state: State) -> bool:
    """Whether a folder is that of the same sweep, which did not finish; InputError where it did not and is another."""
    try:
        before, killed = look(out)
    except StoreError:
        return False
    if before is None or before.kind != "sweep" or not (killed or before.status == "failed"):
        return False
    if before.settings.get("question") != state.settings["question"]:
        raise InputError(f"{out}: another sweep in it did not finish ({before.place}); `alert-twin resume {out}` takes "
                         "it up, or name another folder")
    return True


def question(grid: Sequence[Settings], scenarios: Sequence[Scenario]) -> str:
    """A hash of what a sweep asks."""
    return blake2b(msgspec.json.encode([list(grid), list(scenarios)]), digest_size=16).hexdigest()


def keys_of(scenarios: Sequence[Scenario], beside: Path) -> list[str]:
    """A hash of everything that decides each platform's night: its scenario, its tables, and our source."""
    source = closure("twin.counts_night").fingerprint.encode()
    return [blake2b(b"\0".join((msgspec.json.encode(scenario), *tables_of(scenario, beside), source)),
                    digest_size=16).hexdigest() for scenario in scenarios]


def tables_of(scenario: Scenario, beside: Path) -> Tables:
    """What is in the files that a scenario names."""
    return (find_file(scenario.platform.costs, beside, "cost table").read_bytes(),
            find_file(scenario.counts.model, beside, "counts model").read_bytes())


def read_points(path: Path, keys: Mapping[Settings, str]) -> list[Point]:
    """The points of a file whose keys are still the same; a last line that was torn is none."""
    found: dict[Settings, Point] = {}
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            data = json.loads(line)
            settings = tuple((str(key), str(value)) for key, value in data.pop("settings"))
            if data.pop("key") == keys.get(settings):
                found[settings] = Point(settings=settings, **data)
        except (ValueError, KeyError, TypeError):
            continue
    return list(found.values())


def _note(file: TextIO, keys: Mapping[Settings, str], point: Point) -> None:
    """Append a point, on disk before the next is begun."""
    data = {name: getattr(point, name) for name in Point.__dataclass_fields__}
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in data.items()}
    file.write(json.dumps({"key": keys[point.settings], **plain}) + "\n")
    file.flush()
    os.fsync(file.fileno())


def _simulated(left: Sequence[tuple[Settings, Scenario]], beside: Path, processes: int, cluster: str
               ) -> Iterator[Point]:
    """The points as they are done, on as many processes; each keeps what the next of its points can use again."""
    if cluster and left:
        with connected(cluster) as client:
            yield from computed(client, left, [tables_of(scenario, beside) for _, scenario in left])
        return
    if processes == 1 or len(left) < 2:
        for settings, scenario in left:
            yield point_of(settings, scenario, beside)
        return
    pool = spawned(min(processes, len(left)))
    try:
        for future in as_completed([pool.submit(point_of, settings, scenario, beside) for settings, scenario in left]):
            yield future.result()
    except BaseException:
        end(pool)
        raise
    pool.shutdown()


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
