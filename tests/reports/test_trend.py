from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reports.outcome import TABLES, Outcome, of_run, with_rows
from reports.paired import Rules
from reports.store import Store, StoreError
from reports.trend import FALSE_STEPS, Point, steps, trend, write


@pytest.fixture(scope="module")
def outcome(good: Store) -> Outcome:
    return of_run(good, 1)


@pytest.fixture(scope="module")
def worse(outcome: Outcome) -> Outcome:
    """A third of what was found is missed."""
    rows = outcome.sources.copy()
    lost = np.random.default_rng(3).uniform(size=len(rows)) < 1 / 3
    for name in ("raw", "alert"):
        rows[name][lost] = False
    return replace(outcome, sources=rows)


def test_a_step_is_found_where_it_is() -> None:
    rng = np.random.default_rng(1)
    level = np.repeat([0.0, 1.0, 0.4], [12, 9, 15])
    assert steps(level + 0.1 * rng.standard_normal(36), 0.1) == [12, 21]


def test_white_noise_shows_a_step_in_one_series_of_twenty() -> None:
    rng = np.random.default_rng(2)
    series = 300
    shown = sum(bool(steps(0.3 * rng.standard_normal(20), 0.3)) for _ in range(series))
    assert shown <= FALSE_STEPS * series + 4 * np.sqrt(FALSE_STEPS * (1 - FALSE_STEPS) * series)
    too_small = sum(bool(steps(0.3 * rng.standard_normal(20), 0.1)) for _ in range(50))
    assert too_small > 40    # the control: noise taken for less than it is


def test_a_history_of_one_is_none(outcome: Outcome) -> None:
    with pytest.raises(StoreError, match="two recorded commits at least, got 1"):
        trend([Point("a", "2026-01-01", outcome)], Rules())


def test_the_commit_that_lost_sources_is_named(outcome: Outcome, worse: Outcome, tmp_path: Path) -> None:
    points = [Point(f"c{i}", f"2026-01-{i + 1:02d}T00:00:00", worse if i >= 2 else outcome) for i in range(4)]
    series = trend(points, Rules())
    moved = {s.metric.key: s for s in series if s.moves}
    assert moved["completeness_raw_5.5_8"].moves[0].at == 2
    assert moved["completeness_raw_5.5_8"].moves[0].judged.difference < 0
    assert not [s for s in trend(points[:2], Rules()) if s.moves]     # nothing changed before it
    page = write(series, points, tmp_path).read_text()
    assert "c2" in page
    assert (tmp_path / "history.png").stat().st_size > 10_000
    assert "points (−" in page                                # as the page of a comparison has it
    assert "inf" not in page.partition("<h2>Metrics</h2>")[0].partition("<main>")[2]


def test_a_metric_without_any_interval_has_no_step(outcome: Outcome, worse: Outcome) -> None:
    """Of one visit nothing is known of others."""
    one, other = (_of_one_visit(side) for side in (outcome, worse))
    assert not [s for s in trend([Point("a", "", one), Point("b", "", other)], Rules()) if s.moves]


def _of_one_visit(side: Outcome) -> Outcome:
    visit = side.visits["visit"][0]
    rows = {name: getattr(side, name) for name in TABLES}
    return with_rows(side, {name: table[table["visit"] == visit] for name, table in rows.items()})
