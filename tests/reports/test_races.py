"""DIAObjects that are made twice: from the times of two visits and from how much of the sky they share."""

from pathlib import Path

import numpy as np
import pytest

from reports.races import RADIUS_DEG, Races, overlap, races
from schemas.measures import NEXT_VISIT, PASSAGE
from twin.counts_night import simulate
from twin.scenario import read_scenario

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def night(fresh: tuple[int, ...], *, saves_after: float, apart: float = 0.0, asks_after: float = 60.0) -> Races:
    """Visits every 40 s of one detector each, along a meridian."""
    n = len(fresh)
    rows, announced = np.zeros(n, PASSAGE), np.zeros(n, NEXT_VISIT)
    rows["visit"] = announced["visit"] = np.arange(n)
    announced["dec"] = apart * np.arange(n)
    rows["shutter_close_s"], rows["field"], rows["n_fresh"], rows["n_alerts"] = 40.0 * np.arange(n), 7, fresh, 100
    rows["standardized_s"] = rows["shutter_close_s"] + asks_after
    rows["saved_s"] = rows["shutter_close_s"] + saves_after
    return races(rows, announced)


@pytest.mark.parametrize(("saves_after", "duplicates"), [
    (65.0, 0), (100.0, 0), (101.0, 5 + 3 + 2), (140.0, 5 + 3 + 2), (141.0, (5 + 3 + 2) + (5 + 3)),
    (181.0, (5 + 3 + 2) + (5 + 3) + 5)])
def test_visits_race_when_they_ask_before_the_other_saved(saves_after: float, duplicates: int) -> None:
    found = night((5, 3, 2, 1), saves_after=saves_after)
    assert found.duplicates == pytest.approx(duplicates)
    assert found.same_field == found.duplicates
    assert (found.objects, found.alerts) == (11, 400)


def test_who_saved_before_the_other_asked_does_not_race_whatever_their_order() -> None:
    rows, announced = np.zeros(2, PASSAGE), np.zeros(2, NEXT_VISIT)
    rows["visit"] = announced["visit"] = (1, 2)
    rows["shutter_close_s"], rows["n_fresh"] = (0.0, 40.0), 5
    rows["standardized_s"], rows["saved_s"] = (3000.0, 100.0), (3010.0, 110.0)     # the first was held up
    assert races(rows, announced).duplicates == 0.0
    rows["saved_s"][1] = 3001.0
    assert races(rows, announced).duplicates == 5.0
    assert races(rows, announced[:1]).pairs == 0          # never announced, never seen
    rows["saved_s"][1] = np.nan
    assert races(rows, announced).pairs == 0


def test_the_share_of_two_fields_of_view_is_what_points_thrown_at_them_say() -> None:
    rng = np.random.default_rng(1)
    n = 200_000
    radius, angle = RADIUS_DEG * np.sqrt(rng.random(n)), rng.uniform(0, 2 * np.pi, n)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    for apart in (0.0, 0.5, 1.7, 3.0, 3.4, 3.6):
        share = np.mean(np.hypot(x - apart, y) < RADIUS_DEG)
        assert abs(overlap(apart) - share) < 4 * np.sqrt(share * (1 - share) / n) + 1e-9
    half = night((10, 10), saves_after=101.0, apart=1.7)
    assert half.duplicates == pytest.approx(10 * overlap(1.7))
    assert night((10, 10), saves_after=101.0, apart=3.6).pairs == 0


def test_a_night_of_one_field_races_when_its_steps_take_longer_than_a_gap() -> None:
    few = ["counts.visits=6", "counts.fields=1", "platform.workers=400", "platform.pods.smallest=400"]
    for scale, racing in ((1.0, 0), (20.0, 5)):
        # At 1 a visit saves 2.3 s after it asks, at 20 46 s after it, longer than the 40 s to the next.
        ran = simulate(read_scenario(SCENARIOS / "platform_small.toml", [*few, f"platform.cost_scale={scale}"])).ran
        found = races(ran.passages, ran.next_visits)
        assert found.pairs == racing
        assert found.duplicates == racing * 50            # 5 new objects on each of 10 detectors
