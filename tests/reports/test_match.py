import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.match import RADIUS_PX, REASONS, Matches, assign, blank_sources, distances, pool
from schemas import mask
from schemas.measures import EXPOSURE_LOG, TRUTH, TRUTH_PIXELS, empty

VISIT, DETECTOR, SIDE = 2026030500001, 7, 200
RUN_TRUTH = np.dtype([("run", "i2"), *((name, TRUTH[name]) for name in TRUTH.names)])
RUN_LOG = np.dtype([("run", "i2"), *((name, EXPOSURE_LOG[name]) for name in EXPOSURE_LOG.names)])


def truth_rows(x: list[float], y: list[float], snr: list[float], **columns: object) -> np.ndarray:
    rows = np.zeros(len(x), RUN_TRUTH)
    plain = empty(TRUTH, len(x))
    for name in TRUTH.names:
        rows[name] = plain[name]
    rows["visit"], rows["detector"], rows["truthId"], rows["kind"] = VISIT, DETECTOR, np.arange(len(x)), b"transient"
    rows["x"], rows["y"], rows["snr"], rows["flux"] = x, y, snr, 100 * np.asarray(snr, float)
    rows["trail_length"] = rows["trail_angle"] = 0.0
    rows["isolated"], rows["significance_at"] = True, snr
    for name, value in columns.items():
        rows[name] = value
    return rows


def source_rows(x: list[float], y: list[float], snr: list[float], **columns: object) -> np.ndarray:
    rows = blank_sources(len(x))
    rows["visit"], rows["detector"], rows["id"] = VISIT, DETECTOR, np.arange(len(x))
    rows["x"], rows["y"], rows["snr"], rows["psfFlux"] = x, y, np.abs(snr), 100 * np.asarray(snr, float)
    rows["isNegative"], rows["alert"], rows["raw"] = np.asarray(snr) < 0, True, True
    for name, value in columns.items():
        rows[name] = value
    return rows


def log_rows(**columns: object) -> np.ndarray:
    rows = np.zeros(1, RUN_LOG)
    plain = empty(EXPOSURE_LOG, 1)
    for name in EXPOSURE_LOG.names:
        rows[name] = plain[name]
    rows["visit"], rows["detector"], rows["status"], rows["nx"], rows["ny"] = VISIT, DETECTOR, b"done", SIDE, SIDE
    rows["fidelity"], rows["psf_sigma_px"] = b"pixels", 1.8
    for name, value in columns.items():
        rows[name] = value
    return rows


def matched(truth: np.ndarray, sources: np.ndarray, log: np.ndarray | None = None,
            pixels: np.ndarray | None = None) -> Matches:
    return assign(truth, sources, log_rows() if log is None else log,
                  empty(TRUTH_PIXELS) if pixels is None else pixels)


places = st.lists(st.tuples(st.floats(0, 40), st.floats(0, 40), st.sampled_from([-20.0, -6.0, 2.0, 6.0, 20.0])),
                  min_size=0, max_size=12)


@given(places, places)
@settings(max_examples=80, deadline=None)
def test_pairs_are_one_to_one_within_the_radius_and_of_one_sign(a: list[tuple[float, float, float]],
                                                                b: list[tuple[float, float, float]]) -> None:
    truth, sources = truth_rows(*map(list, zip(*a, strict=True))) if a else truth_rows([], [], []), (
        source_rows(*map(list, zip(*b, strict=True))) if b else source_rows([], [], []))
    found = matched(truth, sources)
    for i, j in enumerate(found.found):
        if j >= 0:
            assert found.partner[j] == i
            assert np.hypot(truth["x"][i] - sources["x"][j], truth["y"][i] - sources["y"][j]) <= RADIUS_PX
            assert (truth["flux"][i] > 0) == (sources["psfFlux"][j] > 0)
    assert np.sum(found.found >= 0) == np.sum(found.partner >= 0)
    free = [(i, j) for i in np.flatnonzero(found.found < 0) for j in np.flatnonzero(found.partner < 0)
            if (truth["flux"][i] > 0) == (sources["psfFlux"][j] > 0)]
    assert all(np.hypot(truth["x"][i] - sources["x"][j], truth["y"][i] - sources["y"][j]) > RADIUS_PX for i, j in free)
    assert np.all((found.causes != b"") == (found.partner < 0))


@given(places, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_rows_does_not_matter(a: list[tuple[float, float, float]], random: object) -> None:
    if not a:
        return
    truth = truth_rows(*map(list, zip(*a, strict=True)))
    rng = np.random.default_rng(len(a))
    sources = source_rows((truth["x"] + rng.normal(0, 1, len(a))).tolist(), truth["y"].tolist(), truth["snr"].tolist())
    order = rng.permutation(len(a))
    straight, shuffled = matched(truth, sources), matched(truth, sources[order])
    as_before = np.where(shuffled.found >= 0, order[np.maximum(shuffled.found, 0)], -1)
    np.testing.assert_array_equal(straight.found, as_before)


def test_the_nearest_pair_goes_first() -> None:
    found = matched(truth_rows([10, 12], [10, 10], [9, 9]), source_rows([11.5, 13.8], [10, 10], [9, 9]))
    assert found.found.tolist() == [-1, 0]      # the second took the nearer one; none is left for the first
    found = matched(truth_rows([10, 12], [10, 10], [9, 9]), source_rows([11.5, 9.0], [10, 10], [9, 9]))
    assert found.found.tolist() == [1, 0]


def test_an_alert_is_preferred_to_a_rejected_detection_that_is_nearer() -> None:
    sources = source_rows([10.1, 12], [10, 10], [9, 9], alert=[False, True], raw=[True, True],
                          stage=[b"reliability", b""])
    assert matched(truth_rows([10], [10], [9]), sources).found.tolist() == [1]


def test_a_source_too_faint_to_be_seen_explains_nothing() -> None:
    sources = source_rows([10], [10], [6])
    assert matched(truth_rows([10.2], [10], [0.5]), sources).false.tolist() == [True]
    assert matched(truth_rows([10.2], [10], [2.0]), sources).false.tolist() == [False]
    both = matched(truth_rows([10.1, 11.5], [10, 10], [2.0, 6.0]), sources)
    assert both.found.tolist() == [-1, 0]       # the bright one explains it, although it is farther


def test_a_detection_anywhere_on_a_trail_is_the_trails() -> None:
    truth = truth_rows([100], [100], [30], trail_length=40.0, trail_angle=30.0)
    end = 100 + 19 * np.cos(np.radians(30)), 100 + 19 * np.sin(np.radians(30))
    assert matched(truth, source_rows([end[0]], [end[1]], [12])).found.tolist() == [0]
    assert matched(truth, source_rows([end[0]], [100 - 19 * 0.5], [12])).found.tolist() == [-1]


def test_pieces_of_a_trail_are_false_and_named_so() -> None:
    truth = truth_rows([100], [100], [30], trail_length=40.0, trail_angle=0.0)
    found = matched(truth, source_rows([100, 115], [100, 100], [12, 9]))
    assert found.found.tolist() == [0]
    assert found.causes.tolist() == [b"", b"fragment of a trail"]


def test_both_lobes_of_a_star_that_moved_are_true() -> None:
    truth = truth_rows([100], [100], [30], kind=b"moved_star", separation_px=8.0)
    found = matched(truth, source_rows([104, 96], [100, 100], [20, -20]))
    assert found.false.tolist() == [False, False]
    assert found.found[0] in (0, 1)


@given(st.floats(-90, 90), st.floats(0, 60), st.floats(-50, 50), st.floats(-50, 50))
def test_distance_from_a_trail_is_that_from_a_dense_line_of_points(angle: float, length: float, x: float,
                                                                   y: float) -> None:
    truth = truth_rows([0], [0], [9], trail_length=np.float32(length), trail_angle=np.float32(angle))
    along = np.linspace(-length / 2, length / 2, 2001)
    dense = np.hypot(along * np.cos(np.radians(angle)) - x, along * np.sin(np.radians(angle)) - y).min()
    assert float(distances(truth, np.array([x]), np.array([y]))[0, 0]) == pytest.approx(dense, abs=0.05)


@pytest.mark.parametrize(("kind", "line", "at", "cause"), [
    (b"cosmic_ray", (50, 50, 60, 50), (55, 52), b"cosmic ray"),
    (b"satellite", (0, 0, 199, 199), (120, 122), b"satellite"),
    (b"saturated", (90, 90, 110, 110), (118, 118), b"saturated"),
    (b"cosmic_ray", (50, 50, 60, 50), (55, 70), b"noise")])
def test_a_false_detection_is_named_after_the_artifact_under_it(kind: bytes, line: tuple[float, ...],
                                                                at: tuple[float, float], cause: bytes) -> None:
    pixels = empty(TRUTH_PIXELS, 1)
    pixels["visit"], pixels["detector"], pixels["kind"], pixels["width"] = VISIT, DETECTOR, kind, 2.0
    for name, value in zip(("x0", "y0", "x1", "y1"), line, strict=True):
        pixels[name] = value
    found = matched(truth_rows([], [], []), source_rows([at[0]], [at[1]], [8]), pixels=pixels)
    assert found.causes.tolist() == [cause]


def test_what_covers_much_of_a_detector_explains_only_what_nothing_else_does() -> None:
    pixels = empty(TRUTH_PIXELS, 4)
    pixels["visit"], pixels["detector"] = VISIT, DETECTOR
    for k, row in enumerate([(b"bad_wcs", 0, 100, 199, 100, 200), (b"bad_flat", 50, 0, 50, 199, 60),
                             (b"template_edge", 0, 30, 199, 30, 40), (b"hot_pixel", 50, 150, 50, 150, 1)]):
        pixels[["kind", "x0", "y0", "x1", "y1", "width"]][k] = row
    sources = source_rows([50, 50, 50, 150], [150, 120, 30, 120], [8] * 4, isDipole=[False, False, False, True])
    found = matched(truth_rows([], [], []), sources, pixels=pixels)
    assert found.causes.tolist() == [b"hot pixel", b"bad flat", b"template edge", b"bad wcs"]
    alone = matched(truth_rows([], [], []), sources, pixels=pixels[:0])
    assert alone.causes.tolist() == [b"noise", b"noise", b"noise", b"dipole"]


def test_a_false_detection_on_bright_template_light_is_a_residual() -> None:
    sources = source_rows([20, 60, 100], [20, 20, 20], [8, 8, 8], templateFlux=[5e5, 100, np.nan],
                          templateFluxErr=100.0, isDipole=[False, True, False])
    assert matched(truth_rows([], [], []), sources).causes.tolist() == [b"static source residual", b"dipole", b"noise"]


ONE = truth_rows([100], [100], [20])


@pytest.mark.parametrize(("truth", "sources", "log", "reason"), [
    (ONE, source_rows([], [], []), log_rows(status=b"failed", reason=b"no PSF stars"), b"failed step: no PSF stars"),
    (ONE, source_rows([], [], []), log_rows(status=b"timeout"), b"failed step: timeout"),
    (ONE, source_rows([], [], []), log_rows(status=b"no_work", reason=b"no template"), b"no work: no template"),
    (truth_rows([100], [100], [20], input_mask=mask.SAT), source_rows([], [], []), log_rows(), b"input mask: SAT"),
    (truth_rows([100], [100], [20], mask_at=mask.EDGE | mask.DETECTED), source_rows([], [], []), log_rows(),
     b"own mask: EDGE"),
    (truth_rows([100], [100], [20], mask_at=mask.CR), source_rows([], [], []), log_rows(), b"own mask: CR"),
    (truth_rows([300], [100], [20]), source_rows([], [], []), log_rows(), b"off image"),
    (truth_rows([100], [100], [20], significance_at=4.2), source_rows([], [], []), log_rows(),
     b"not detected: significance 4.2"),
    (ONE, source_rows([100], [100], [20], alert=False, raw=True, stage=b"reliability", reason=b"reliability"),
     log_rows(), b"rejected: reliability"),
    (ONE, source_rows([100], [100], [20], alert=False, raw=False, stage=b"quality", reason=b"pixelFlags_crCenter"),
     log_rows(), b"rejected: quality: pixelFlags_crCenter"),
    (ONE, source_rows([100], [100], [20], alert=False), log_rows(), b"not published"),
    (truth_rows([100, 105], [100, 100], [20, 60]), source_rows([105], [100], [60]), log_rows(),
     b"blended: with transient 1"),
    (ONE, source_rows([106], [100], [20]), log_rows(), b"blended: with an unmatched detection"),
    (ONE, source_rows([130], [100], [20], bbox_x0=90, bbox_x1=135, bbox_y0=90, bbox_y1=110), log_rows(),
     b"blended: with noise"),
    (ONE, source_rows([], [], []), log_rows(), b"other")])
def test_a_missed_source_says_which_stage_lost_it(truth: np.ndarray, sources: np.ndarray, log: np.ndarray,
                                                  reason: bytes) -> None:
    found = matched(truth, sources, log)
    assert found.reasons[0] == reason
    assert reason.decode().partition(":")[0] in REASONS


def test_a_source_with_an_alert_has_no_reason() -> None:
    assert matched(ONE, source_rows([100], [100], [20])).reasons.tolist() == [b""]


def test_a_detector_visit_without_a_record_is_a_failed_step() -> None:
    assert matched(ONE, source_rows([], [], []), log_rows()[:0]).reasons[0].startswith(b"failed step")


def test_sources_under_a_mask_of_the_input_are_not_judged_and_those_under_our_own_are() -> None:
    truth = truth_rows([20, 60, 100, 140], [20] * 4, [9, 9, 9, np.nan], input_mask=[mask.SAT, mask.BAD, 0, 0],
                       mask_at=[0, 0, mask.CR | mask.STREAK, 0])
    assert matched(truth, source_rows([], [], [])).judged.tolist() == [False, False, True, False]


def test_pooled_runs_keep_their_pairs_apart() -> None:
    one = matched(truth_rows([10, 50], [10, 50], [9, 9]), source_rows([50.5], [50], [9]))
    two = matched(truth_rows([10], [10], [9]), source_rows([90, 10], [10, 10], [9, 9]))
    both = pool([one, two])
    assert both.found.tolist() == [-1, 0, 2]
    assert both.partner.tolist() == [1, -1, 2]
    assert both.megapixels == pytest.approx(2 * SIDE * SIDE / 1e6)
    with pytest.raises(ValueError, match="no runs to pool"):
        pool([])
