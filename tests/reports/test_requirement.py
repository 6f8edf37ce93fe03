"""The requirement judged on nights whose verdict is known."""

import numpy as np
import pytest

from reports.requirement import requirement, weighted_percentile
from reports.surface import Point, cheapest, plot
from schemas.measures import PASSAGE, empty


def night(visits: int = 1000, detectors: int = 4, alerts: int = 25, delay_s: float = 30.0) -> np.ndarray:
    rows = empty(PASSAGE, visits * detectors)
    rows["visit"] = np.repeat(np.arange(visits), detectors)
    rows["readout_end_s"] = 40.0 * rows["visit"]
    rows["delivered_s"] = rows["readout_end_s"] + delay_s
    rows["n_alerts"] = rows["n_sent"] = alerts
    rows["reason"] = b""
    return rows


def lose(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    out = rows.copy()
    out["n_sent"][chosen], out["delivered_s"][chosen], out["reason"][chosen] = 0, np.nan, b"killed"
    return out


def test_the_shares_that_are_allowed_pass_and_one_visit_more_does_not() -> None:
    reference = night()
    for late, failed, met in ((9, 1, True), (10, 1, False), (8, 2, False), (0, 0, True)):
        rows = lose(reference, reference["visit"] < failed)
        rows["delivered_s"][(rows["visit"] >= 100) & (rows["visit"] < 100 + late)] += 100.0
        judged = requirement(rows, reference)
        assert judged.late == pytest.approx((late + failed) / 1000)     # never sent is late
        assert judged.failed == pytest.approx(failed / 1000)
        assert judged.met is met


def test_a_visit_may_lose_two_alerts_in_a_hundred() -> None:
    reference = night(visits=2, detectors=50, alerts=2)
    one = lose(reference, np.arange(100) == 0)
    assert requirement(one, reference).late == 0.0
    two = lose(reference, np.arange(100) < 2)
    assert requirement(two, reference).late == 0.5


@pytest.mark.parametrize(("reason", "due"), [(b"no template", 9900), (b"too many new objects", 9900),
                                             (b"registry", 10_000), (b"timeout", 10_000)])
def test_what_even_the_reference_lost_to_a_machine_is_due(reason: bytes, due: int) -> None:
    reference = night(visits=100)
    few = lose(reference, reference["visit"] == 3)
    few["reason"][reference["visit"] == 3] = reason
    judged = requirement(few, few)
    assert judged.alerts == due
    assert judged.failed == pytest.approx(0.01 if due == 10_000 else 0.0)
    assert requirement(reference, few).on_time == pytest.approx(1.0)     # never more than all


def test_alerts_never_sent_are_in_the_percentiles() -> None:
    reference = night(visits=100)
    assert requirement(reference, reference).percentiles_s == dict.fromkeys(("p5", "p50", "p95", "p98", "p100"), 30.0)
    judged = requirement(lose(reference, reference["visit"] < 3), reference)
    assert judged.percentiles_s["p95"] == 30.0
    assert judged.percentiles_s["p98"] == np.inf
    assert judged.on_time == pytest.approx(0.97)
    assert any("98 % within inf s" in line for line in judged.lines())


def test_visits_above_the_average_may_be_late_but_lose_nothing() -> None:
    reference = night(visits=10, alerts=5000)
    slow = reference.copy()
    slow["delivered_s"] += 100.0
    assert (requirement(slow, reference).busy_visits, requirement(slow, reference).busy_lost) == (10, 0)
    assert requirement(lose(slow, slow["visit"] == 3), reference).busy_lost == 20_000


def test_a_percentile_is_weighted() -> None:
    assert weighted_percentile(np.array([1.0, 2.0, 3.0]), np.array([98, 1, 1]), 98) == 1.0
    assert weighted_percentile(np.array([1.0, 2.0, 3.0]), np.array([97, 2, 1]), 98) == 2.0
    assert np.isnan(weighted_percentile(np.array([1.0]), np.array([0]), 50))


def point(workers: int, price: float, met: bool, p98: float) -> Point:
    return Point((("platform.workers", str(workers)),), price, met, 20.0, p98, 1.0, 1.0, 0.0, 0.0, 1.0, 5.0, 0.0)


def test_the_cheapest_platform_meets_the_requirement() -> None:
    points = [point(1, 1, False, 90.0), point(3, 3, True, 50.0), point(2, 2, True, 55.0), point(4, 2, True, 54.0)]
    assert cheapest(points) is points[3]
    assert cheapest(points[:1]) is None
    axes = plot(points).axes
    assert any("98 % of alerts" in text.get_text() for text in axes[0].get_legend().get_texts())
