"""`alert-twin history`: what recorded commits made of the same nights, metric by metric, in their order."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import InputError
from reports import trend
from reports.outcome import of_baseline
from reports.paired import Rules
from reports.store import Store, StoreError
from reports.trend import Point
from twin import checkout, sides
from twin.workspace import git


def history(folder: Path, out: Path) -> str:
    """Draw the baselines inside a folder into `history.html`, `.png` and `.json`; a line that says what was found.

    InputError where there are fewer than two, or where they are of different tests.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no folder of baselines")
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() and sides.is_baseline(path)]
    if len(found) < 2:
        raise InputError(f"{folder}: a history needs two recorded baselines at least, found {len(found)}")
    trials = [sides.of_file(path / "scenario.toml") for path in found]
    for path, trial in zip(found[1:], trials[1:], strict=True):
        if differs := sides.first_difference(trials[0].settings, trial.settings):
            raise InputError(f"{path}: of another test than {found[0]}, {differs[0]} is {differs[2]}, not {differs[1]}")
    judge = trials[0].judge
    points = in_order([_point(path) for path in found])
    try:
        series = trend.trend(points, Rules(judge.margins, judge.primary, judge.level, judge.resamples))
    except StoreError as error:
        raise InputError(str(error)) from None
    out.mkdir(parents=True, exist_ok=True)
    page = trend.write(series, points, out)
    moved = [s for s in series if s.moves]
    return f"{len(moved)} of {len(series)} metrics moved over {len(points)} recorded commits: {page}"


def in_order(points: Sequence[Point]) -> list[Point]:
    """By the commits' place in the present repository where it knows them all, else by the date of the record."""
    names = [point.outcome.facts.get("revision", "") for point in points]
    listed: list[str] = []
    if all(names):
        try:
            listed = git(checkout.present(), "rev-list", "--topo-order", "--reverse", *names).stdout.split()
        except InputError:
            listed = []
    if listed and set(names) <= set(listed):
        return [points[i] for i in sorted(range(len(points)), key=lambda i: (listed.index(names[i]), points[i].date))]
    return sorted(points, key=lambda point: point.date)


def _point(path: Path) -> Point:
    outcome = of_baseline(Store(path))
    revision = outcome.facts.get("revision", "")
    changed = "+" if outcome.facts.get("dirty") == "true" else ""
    return Point(revision[:7] + changed or path.name, outcome.facts.get("date", ""), outcome)
