"""Each filter rejects what it should, says why, and can be switched off."""

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.config import FilterConfig, RetryConfig
from pipeline.errors import NonRetriableError, RetriableError
from pipeline.filter import Filtered, corners, filter_sources, glints, new_object, quality
from pipeline.steps import Step, run
from schemas.exposure import Visit
from schemas.measures import MEASUREMENT, REJECTION, empty
from schemas.table import DIA_SOURCE
from schemas.wcs import Wcs

VISIT = Visit(2027082200012, "i", 30.0, -20.0, 0.0, 61640.25, 30.0)
WCS = Wcs.tangent(30.0, -20.0, (1000, 1000))
AT_ONCE = RetryConfig(limit=1, delay_s=0.0)


def good(n: int) -> np.ndarray:
    rows = empty(MEASUREMENT, n)
    rng = np.random.default_rng(4)
    rows["id"] = np.arange(n)
    rows["x"], rows["y"] = rng.uniform(0, 999, n), rng.uniform(0, 999, n)
    for side, name in ((-6, "0"), (6, "1")):
        rows[f"bbox_x{name}"], rows[f"bbox_y{name}"] = rows["x"] + side, rows["y"] + side
    rows["scienceFlux"], rows["scienceFluxErr"], rows["trailLength"], rows["reliability"] = 1000.0, 100.0, 1.0, 0.9
    return rows


class Allows:
    """A service that allows what a test says, after failing as often as it says."""

    def __init__(self, allow: Callable[[np.ndarray], np.ndarray] = lambda ids: ids, failures: int = 0) -> None:
        self.allow, self.failures, self.asked = allow, failures, 0

    def allowed(self, visit: Visit, detector: int, ids: np.ndarray, corners: np.ndarray) -> np.ndarray:
        self.asked += 1
        if self.asked <= self.failures:
            raise RetriableError("no answer")
        return self.allow(ids)


def filtered(rows: np.ndarray, config: FilterConfig | None = None, service: Allows | None = None) -> Filtered:
    config = config or FilterConfig(satellite_retry=AT_ONCE)
    return run(filter_sources(rows, VISIT, 3, WCS, service or Allows(), config))


BAD: dict[str, tuple[str, object, str]] = {   # reason: column, value, stage
    "centroid_flag": ("centroid_flag", True, "quality"),
    "pixelFlags_crCenter": ("pixelFlags_crCenter", True, "quality"),
    "high_varianceCenterAll": ("high_varianceCenterAll", True, "quality"),
    "sky_source": ("sky_source", True, "quality"),
    "trail_off_image": ("trail_off_image", True, "quality"),
    "scienceFlux": ("scienceFlux", -201.0, "quality"),
    "trailLength": ("trailLength", 62.6, "quality"),
    "reliability": ("reliability", 0.49, "reliability"),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_source_is_rejected_with_stage_reason_and_place(reason: str) -> None:
    rows = good(5)
    column, value, stage = BAD[reason]
    rows[column][2] = value
    found = filtered(rows)
    assert found.index.tolist() == [0, 1, 3, 4]
    row = found.rejections[0]
    assert (row["stage"], row["reason"], row["id"]) == (stage.encode(), reason.encode(), 2)
    assert (row["visit"], row["detector"]) == (VISIT.visit, 3)
    np.testing.assert_allclose((row["ra"], row["dec"]), WCS.sky(rows["x"][2], rows["y"][2]))
    assert len(filtered(rows, FilterConfig(**{stage: False})).sources) == 5


def test_limits_themselves() -> None:
    rows = good(4)
    rows["scienceFlux"][0] = -199.0          # S/N -1.99
    rows["trailLength"][1] = 62.4            # 10 deg/day for 30 s is 62.5 px of 0.2"
    rows["reliability"][2] = 0.5
    rows["reliability"][3] = np.nan          # no model scored it
    assert len(filtered(rows).sources) == 4


def test_a_failed_trail_fit_is_rejected_when_its_footprint_is_as_long_as_the_limit() -> None:
    rows = good(3)
    rows["trail_flag"] = True
    rows["trailLength"] = np.nan
    rows["bbox_x1"][1], rows["bbox_y1"][1] = rows["bbox_x0"][1] + 45, rows["bbox_y0"][1] + 45
    assert quality(rows, 30.0, 0.2, FilterConfig()).tolist() == [b"", b"footprint_long", b""]
    assert quality(rows, 60.0, 0.2, FilterConfig()).tolist() == [b"", b"", b""]


def test_a_suspect_trail_on_the_edge_is_rejected() -> None:
    rows = good(3)
    rows["trail_suspect_long"][:2] = True
    rows["trail_flag_edge"][1:] = True
    assert quality(rows, 30.0, 0.2, FilterConfig()).tolist() == [b"", b"trail_suspect_long", b""]


def test_only_allowed_sources_pass_the_satellite_service() -> None:
    rows = good(4)
    found = filtered(rows, service=Allows(lambda ids: ids[[1, 3]]))
    assert found.index.tolist() == [1, 3]
    assert set(found.rejections["reason"]) == {b"satellite"}
    assert len(filtered(rows, service=Allows(lambda ids: ids[:0])).sources) == 0


def test_the_satellite_service_is_asked_twice_and_then_nothing_is_published() -> None:
    rows, steps = good(4), []
    service = Allows(failures=1)
    run(filter_sources(rows, VISIT, 3, WCS, service, FilterConfig(satellite_retry=AT_ONCE)), steps.append)
    assert [step.name for step in steps] == ["retry.satellites", "satellites", "filter"]
    with pytest.raises(RetriableError, match="no answer"):
        filtered(rows, service=Allows(failures=2))
    assert len(filtered(rows, FilterConfig(satellites=False), Allows(failures=2)).sources) == 4


def test_an_answer_about_other_sources_is_refused() -> None:
    with pytest.raises(NonRetriableError, match="not asked about"):
        filtered(good(2), service=Allows(lambda ids: ids + 5))


def test_footprint_corners_enclose_the_source() -> None:
    rows = good(3)
    box = corners(rows, WCS)
    ra, dec = WCS.sky(rows["x"], rows["y"])
    assert np.all((box[..., 0].min(1) < ra) & (ra < box[..., 0].max(1)))
    assert np.all((box[..., 1].min(1) < dec) & (dec < box[..., 1].max(1)))


def test_nothing_in_nothing_out() -> None:
    found = filtered(empty(MEASUREMENT))
    assert len(found.sources) == len(found.rejections) == 0
    assert found.rejections.dtype == REJECTION


def crowd(n: int, seed: int, size: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = empty(MEASUREMENT, n)
    rows["x"], rows["y"] = rng.uniform(0, size, n), rng.uniform(0, size, n)
    return rows


def with_glint(rows: np.ndarray, points: int, seed: int, scatter: float = 0.3) -> np.ndarray:
    """The last `points` rows in a line, evenly spaced: a tumbling satellite."""
    rng = np.random.default_rng(seed)
    angle, spacing = rng.uniform(0, np.pi), rng.uniform(60, 110)
    along = (np.arange(points) - points / 2) * spacing
    rows["x"][-points:] = 2000 + along * np.cos(angle) + rng.normal(0, scatter, points)
    rows["y"][-points:] = 2000 + along * np.sin(angle) + rng.normal(0, scatter, points)
    return rows


def test_glints_in_a_line_are_flagged_and_few_others() -> None:
    found = chance = 0
    for seed in range(20):
        flags = glints(with_glint(crowd(200, seed), 6, seed), FilterConfig())
        found += flags[-6:].sum()
        chance += flags[:-6].sum()
    assert found >= 0.95 * 120
    assert chance <= 0.02 * 20 * 194


def test_a_crowd_without_glints_has_almost_none_while_the_deployed_test_flags_many() -> None:
    flagged = {limit: sum(int(glints(crowd(300, seed), FilterConfig(glint_chance=limit)).sum()) for seed in range(10))
               for limit in (0.1, np.inf)}
    assert flagged[0.1] <= 0.01 * 3000        # expected: 0.1 lines of 5 per field
    assert flagged[np.inf] > 0.1 * 3000


def test_dipoles_and_negative_sources_are_no_glints() -> None:
    for name in ("isDipole", "isNegative"):
        rows = with_glint(crowd(60, 3), 6, 3)
        rows[name][-6:] = True
        assert not glints(rows, FilterConfig())[-6:].any()


def test_four_points_are_no_line() -> None:
    rows = with_glint(crowd(4, 3), 4, 3, scatter=0.0)
    assert not glints(rows, FilterConfig()).any()
    assert glints(with_glint(crowd(5, 3), 5, 3, scatter=0.0), FilterConfig()).all()


def test_the_glint_filter_flags_and_never_removes_and_can_be_switched_off() -> None:
    rows = good(8)
    rows["x"], rows["y"] = 100 + 80.0 * np.arange(8), 200 + 40.0 * np.arange(8)
    assert filtered(rows).sources["glint_trail"].all()
    assert len(filtered(rows).rejections) == 0
    assert not rows["glint_trail"].any()      # the given rows are left as they were
    assert not filtered(rows, FilterConfig(glints=False)).sources["glint_trail"].any()


@pytest.mark.parametrize("flag", FilterConfig().new_object_flags)
def test_flagged_sources_found_no_object(flag: str) -> None:
    rows = DIA_SOURCE.empty(3)
    rows["reliability"] = (0.9, 0.9, 0.05)
    rows[flag][1] = True
    assert new_object(rows, FilterConfig()).tolist() == [b"", flag.encode(), b"reliability"]


def test_steps_are_announced_in_order() -> None:
    steps: list[Step] = []
    run(filter_sources(good(7), VISIT, 3, WCS, Allows(), FilterConfig()), steps.append)
    assert [(step.name, step.size) for step in steps] == [("satellites", 7), ("filter", 7)]
