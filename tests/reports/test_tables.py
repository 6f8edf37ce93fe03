"""The reports' tables against answers worked out by hand."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from reports import (
    association,
    astrometry,
    completeness,
    filters,
    latency,
    photometry,
    purity,
    skymap,
    solarsystem,
    steps,
    trails_dipoles,
)
from reports.completeness import tabulate
from reports.drawing import png, svg
from reports.gallery import NO_DATA_COLOUR, gallery, picture
from reports.match import REASONS, Matches, match
from reports.store import Store
from schemas.measures import EXPOSURE_LOG, PUBLICATION, STEP, empty
from tests.reports.maker import Knobs, make
from tests.reports.test_match import log_rows, matched, source_rows, truth_rows
from twin.recorder import ParquetRecorder

DAY = 86400.0


def test_bins_are_half_open_and_count_every_source_once() -> None:
    rows = tabulate(np.array([1.0, 2.0, 2.5, 3.0, 9.0]), np.array([True, True, False, True, True]),
                    np.array([False, True, False, False, True]), [1, 2, 3])
    assert rows["n"].tolist() == [1, 2]
    assert rows["raw"].tolist() == [1, 1]
    assert rows["alerts"].tolist() == [0, 1]
    assert rows["raw_fraction"].tolist() == [1.0, 0.5]


def test_purity_on_the_sky_weighs_real_sources_alone() -> None:
    """90 real and 10 false: at a third of the density 30 real remain beside the same 10 false."""
    assert purity.on_sky(90, 10, 1.0) == 0.9
    assert purity.on_sky(90, 10, 1 / 3) == 0.75


def _purity_matches() -> Matches:
    x = np.arange(10.0) * 15 + 20
    truth = truth_rows(x.tolist(), [50.0] * 10, [10.0] * 10)
    sources = source_rows([*x.tolist(), 20, 40], [50.0] * 10 + [120.0] * 2, [10.0] * 12)
    sources["reliability"] = [*np.linspace(0.1, 1.0, 10), 0.35, 0.75]
    sources["alert"] = sources["reliability"] >= 0.5
    sources["stage"] = np.where(sources["alert"], b"", b"reliability")
    return matched(truth, sources, log_rows(usable_px=2_000_000))


def test_the_purity_curve_is_counted_right_at_every_cut() -> None:
    table = purity.purity(_purity_matches())
    at = {round(float(row["threshold"]), 2): row for row in table.curve}
    assert (at[0.0]["real"], at[0.0]["false"], at[0.0]["complete"]) == (10, 2, 10)
    assert (at[0.5]["real"], at[0.5]["false"], at[0.5]["complete"]) == (6, 1, 6)
    assert (at[0.8]["real"], at[0.8]["false"]) == (3, 0)
    assert at[0.5]["purity"] == pytest.approx(6 / 7)
    assert at[0.5]["completeness"] == 0.6
    assert table.density == 5.0                                     # 10 sources on 2 x 10^6 px
    assert at[0.5]["purity_on_sky"] == pytest.approx(0.66 * 6 / (0.66 * 6 + 1))
    assert (table.raw.value, table.alerts.value) == (pytest.approx(10 / 12), pytest.approx(6 / 7))
    assert table.false_alerts.value == 0.5
    assert table.causes["raw"].sum() == 2


def test_latency_counts_from_the_end_of_readout_and_by_visit(tmp_path: Path) -> None:
    """98 of 100 alerts of one visit on time is enough, 97 of 100 is not."""
    log, sent = empty(EXPOSURE_LOG, 2), empty(PUBLICATION, 200)
    log["visit"], log["detector"], log["shutter_close_mjd_tai"] = [1, 2], 0, 61000.0
    log["readout_end_mjd_tai"] = 61000.0 + 2 / DAY
    sent["visit"], sent["detector"], sent["diaSourceId"] = np.repeat([1, 2], 100), 0, np.arange(200)
    delay = np.full(200, 50.0)
    delay[:2], delay[100:103] = 70.0, 70.0
    sent["sent_mjd_tai"] = 61000.0 + (2 + delay) / DAY
    with ParquetRecorder(tmp_path / "measures") as recorder:
        recorder.append("exposure_log", log)
        recorder.append("publication", sent)
    table = latency.latency(Store(tmp_path))
    assert table.on_time.value == 195 / 200
    assert table.late_visits.value == 0.5
    assert table.percentile(50) == pytest.approx(50, abs=1e-3)
    assert float(np.median(table.since_shutter)) == pytest.approx(52, abs=1e-3)
    assert table.readout_s == pytest.approx(2, abs=1e-3)


def test_a_step_repeated_in_a_detector_visit_is_summed() -> None:
    rows = empty(STEP, 3)
    rows["visit"], rows["detector"], rows["name"], rows["duration_s"] = 1, 0, [b"save", b"save", b"send"], [2, 3, 1]
    rows["start_mjd_tai"] = 61000 + np.array([10, 40, 50]) / DAY
    log = empty(EXPOSURE_LOG, 1)
    log["visit"], log["detector"], log["shutter_close_mjd_tai"] = 1, 0, 61000.0
    table = latency.by_step(rows, log)
    assert table["name"].tolist() == [b"save", b"send"]
    assert table["median_s"].tolist() == [5.0, 1.0]
    assert table["start_s"] == pytest.approx([10, 50], abs=1e-3)


def test_step_costs_compare_predicted_with_measured_time() -> None:
    rows = empty(STEP, 4)
    rows["name"], rows["cpu_s"], rows["duration_s"] = b"subtract", [1.0, 2.0, 4.0, np.nan], [2.2, 4.4, 8.8, 5.0]
    rows["measured"], rows["peak_mb"], rows["size"] = [True, True, True, False], [100, 300, 200, 900], 10
    table = steps.step_costs(rows, factor=2.0)
    assert table.rows["residual"][0] == pytest.approx(np.log(1.1), abs=1e-6)
    assert table.rows["peak_mb"][0] == 300
    assert (table.measured_s, table.predicted_s) == (7.0, pytest.approx(7.7))
    assert not steps.step_costs(rows, factor=float("nan")).has_predictions


def _associated(objects: list[int], truths: list[int], **columns: object) -> Matches:
    n = len(objects)
    x = np.arange(n) * 12.0 + 20
    truth = truth_rows(x.tolist(), [50.0] * n, [10.0] * n, truthId=truths)
    sources = source_rows(x.tolist(), [50.0] * n, [10.0] * n, diaObjectId=objects, **columns)
    return matched(truth, sources, log_rows(nx=900))


@pytest.mark.parametrize(("objects", "truths", "right", "duplicates", "merged"), [
    ([1, 1, 1, 2, 2], [7, 7, 7, 8, 8], 5, 0, 0),          # as it should be
    ([1, 1, 3, 2, 2], [7, 7, 7, 8, 8], 4, 1, 0),          # one alert in a duplicate
    ([1, 1, 1, 1, 2], [7, 7, 7, 8, 8], 4, 0, 1),          # one alert of 8 in the object of 7: no duplicate
    ([1, 1, 1, 1, 1], [7, 7, 7, 8, 8], 3, 0, 1),          # two sources in one object: the lesser has none
    ([0, 1, 1, 2, 2], [7, 7, 7, 8, 8], 4, 0, 0)])         # one alert without object
def test_association_is_judged_by_the_owner_of_each_object(objects: list[int], truths: list[int], right: int,
                                                           duplicates: int, merged: int) -> None:
    table = association.association(_associated(objects, truths))
    assert table.accuracy.value == right / 5
    assert (table.duplicates, table.merged) == (duplicates, merged)


def test_asteroids_are_judged_by_their_ssobject() -> None:
    matches = _associated([0, 0, 5], [1, 2, 3], ssObjectId=[70, 71, 0])
    matches.truth["kind"], matches.truth["ssObjectId"] = b"asteroid", [70, 72, 73]
    table = association.association(matches)
    assert table.solar_system.value == pytest.approx(1 / 3)


def test_asteroids_near_an_older_object_or_badly_predicted_are_not_judged() -> None:
    matches = _associated([0, 0, 9, 10, 0], [1, 2, 3, 4, 5], ssObjectId=[70, 0, 0, 0, 99])
    matches.truth["kind"], matches.truth["ssObjectId"] = b"asteroid", [70, 71, 72, 73, 74]
    matches.truth["eph_err_arcsec"] = [0.1, 0.8, 0.1, 0.1, 0.1]
    matches.sources["ra"], matches.sources["dec"] = 10.0 + np.arange(5) * 0.01, 0.0
    matches.sources["midpointMjdTai"] = 61000.0
    known = np.zeros(2, solarsystem.OBJECT)
    known["diaObjectId"], known["ra"], known["first"] = [9, 10], [10.02, 10.03], [60990.0, 61000.0]   # old, and its own
    table = solarsystem.solar_system(matches, known)
    assert table.rows["judged"].tolist() == [True, False, False, True, True]
    assert table.rows["associated"].tolist() == [True, False, False, False, False]
    assert table.associated.value == pytest.approx(1 / 3)
    assert table.causes == {'a DIAObject lies within 1"': 1, "another SSObject was nearer": 1,
                            "ephemeris error not under 0.5 arcsec": 1, "no SSObject associated": 1}


def test_rejections_are_counted_true_and_false() -> None:
    sources = source_rows([20, 60, 100, 140], [50] * 4, [9] * 4, alert=[True, False, False, False],
                          stage=[b"", b"quality", b"quality", b"reliability"], reason=[b"", b"edge", b"edge", b""])
    table = filters.filters(matched(truth_rows([20, 60], [50, 50], [9, 9]), sources))
    assert [(filters.name(r), int(r["real"]), int(r["false"])) for r in table.rows] == [
        ("quality: edge", 1, 1), ("reliability", 0, 1)]
    assert (table.detections, table.alerts) == (4, 1)


@pytest.mark.parametrize(("snr", "length", "sigma"), [(20.0, 18.0, 1.9), (40.0, 10.0, 2.0), (15.0, 40.0, 1.5)])
def test_the_fisher_bound_equals_that_of_a_numerical_model(snr: float, length: float, sigma: float) -> None:
    """The bound of all five parameters by finite differences of a model rendered on fine pixels."""
    from scipy.special import ndtr

    grid = np.arange(-length / 2 - 6 * sigma, length / 2 + 6 * sigma, 0.25)
    xx, yy = np.meshgrid(grid, grid)

    def model(p: np.ndarray) -> np.ndarray:
        flux, x, y, long, angle = p
        u = (xx - x) * np.cos(angle) + (yy - y) * np.sin(angle)
        v = -(xx - x) * np.sin(angle) + (yy - y) * np.cos(angle)
        along = (ndtr((u + long / 2) / sigma) - ndtr((u - long / 2) / sigma)) / long
        return np.asarray(flux * along * np.exp(-v**2 / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma))

    at = np.array([1.0, 0.0, 0.0, length, 0.3])
    step = 1e-4
    slopes = [(model(at + d) - model(at - d)).ravel() / (2 * step) for d in step * np.eye(5)]
    noise = np.sqrt(np.sum(model(at)**2)) / snr
    covariance = np.linalg.inv(np.array(slopes) @ np.array(slopes).T / noise**2)
    bound = trails_dipoles.fisher(snr, length, sigma)
    assert bound[0] == pytest.approx(np.sqrt(covariance[3, 3]), rel=2e-3)
    assert bound[1] == pytest.approx(np.degrees(np.sqrt(covariance[4, 4])), rel=2e-3)


def test_trail_angles_wrap_at_90_degrees() -> None:
    truth = truth_rows([100], [100], [30], trail_length=20.0, trail_angle=89.0)
    sources = source_rows([100], [100], [30], trailLength=20.5, trailAngle=-89.0)
    table = trails_dipoles.trails(matched(truth, sources))
    assert table.rows["angle_error"][0] == pytest.approx(2.0, abs=1e-5)
    assert table.rows["length_error"][0] == pytest.approx(0.5, abs=1e-5)


def test_a_trail_that_was_not_fitted_counts_as_wrong() -> None:
    x = [40.0, 90.0, 140.0]
    truth = truth_rows(x, [100] * 3, [30] * 3, trail_length=20.0, trail_angle=0.0)
    table = trails_dipoles.trails(matched(truth, source_rows(x, [100] * 3, [30] * 3)))
    assert table.fitted.value == 0.0
    assert table.length.value == np.inf


def test_moved_stars_that_were_not_detected_count_as_no_dipole() -> None:
    truth = truth_rows([40, 90], [100, 100], [20, 20], kind=b"moved_star", separation_px=4.0)
    table = trails_dipoles.dipoles(matched(truth, source_rows([40], [100], [20], isDipole=True)))
    assert table.moved.value == 0.5


def test_pulls_leave_out_what_is_masked_blended_or_trailed() -> None:
    truth = truth_rows([20, 50, 80, 110, 140], [50] * 5, [10] * 5, forced_flux=[1100, 5e4, 5e4, 5e4, 900],
                       forced_flux_err=100.0)
    truth["isolated"][1], truth["mask_at"][2], truth["trail_length"][3] = False, 1 << 3, 9.0
    truth["host_sep_arcsec"][4] = 0.4
    table = photometry.pulls(matched(truth, source_rows([], [], [])))
    assert table.rows["pull"].tolist() == pytest.approx([1.0, -1.0])
    assert table.rows["hosted"].tolist() == [False, True]


def test_position_errors_are_on_the_sky_and_scaled_with_the_seeing() -> None:
    truth = truth_rows([20], [50], [30], ra=150.0, dec=60.0)
    sources = source_rows([20], [50], [30], ra=150.0 + 0.02 / 3600, dec=60.0, raErr=0.01 / 3600, decErr=0.01 / 3600)
    table = astrometry.astrometry(matched(truth, sources, log_rows(true_fwhm_arcsec=1.66)))
    assert table.rows["dx"][0] == pytest.approx(0.01, rel=1e-4)          # cos 60 deg
    assert table.rows["scaled"][0] == pytest.approx(0.005, rel=1e-4)
    assert table.rows["pull_ra"][0] == pytest.approx(1.0, rel=1e-4)      # raErr is towards the East already


def test_a_sky_map_across_ra_0_is_centred_there() -> None:
    sources = source_rows([20, 50], [50, 50], [9, 9], ra=[359.99, 0.01], dec=0.0)
    table = skymap.sky_map(matched(truth_rows([], [], []), sources, log_rows(ra=0.0, dec=0.0)))
    assert min(table.ra, 360 - table.ra) < 0.01


def test_the_gallery_shows_found_missed_and_false(good: Store, good_matches: Matches) -> None:
    shown = gallery(good, good_matches)
    assert {t.group for t in shown} == {"found", "missed", "false"}
    assert all(t.source.startswith("data:image/png;base64,") for t in shown)
    assert all(t.lines[-1].partition(":")[0] in REASONS for t in shown if t.group == "missed")


def test_a_stamp_marks_what_has_no_data() -> None:
    import base64
    import io

    from matplotlib.image import imread

    planes = np.random.default_rng(1).normal(0, 1, (3, 51, 51))
    planes[:, :10] = np.nan
    seen = imread(io.BytesIO(base64.b64decode(picture(planes).partition(",")[2])))
    assert np.round(seen[-1, 0, :3] * 255).tolist() == list(NO_DATA_COLOUR)      # y runs upwards
    assert picture(np.full((3, 51, 51), np.nan)).startswith("data:image/png")


def _plots(store: Store) -> dict[str, Callable[[], Figure]]:
    m = match(store)
    table = completeness.completeness(m)
    return {
        "completeness": lambda: completeness.plot(table), "magnitude": lambda: completeness.plot_magnitude(table),
        "purity": lambda: purity.plot(purity.purity(m)), "latency": lambda: latency.plot(latency.latency(store)),
        "photometry": lambda: photometry.plot(photometry.pulls(m)),
        "astrometry": lambda: astrometry.plot(astrometry.astrometry(m)),
        "association": lambda: association.plot({"greedy": association.association(m)}),
        "shapes": lambda: trails_dipoles.plot(trails_dipoles.trails(m), trails_dipoles.dipoles(m)),
        "filters": lambda: filters.plot(filters.filters(m)), "sky": lambda: skymap.plot(skymap.sky_map(m)),
        "steps": lambda: steps.plot(steps.step_costs(store.optional("step")))}


def test_every_plot_draws_its_axes_within_the_figure(good: Store) -> None:
    for name, plot in _plots(good).items():
        figure = plot()
        assert svg(figure).startswith("data:image/svg+xml;base64,"), name
        for axes in figure.axes:
            if axes.axison:
                assert axes.get_xlabel(), name
                assert axes.get_title(loc="left"), name
                box = axes.get_tightbbox()
                assert box is not None
                assert box.x0 >= -1, name
                assert box.x1 <= figure.bbox.x1 + 1, name
                assert box.y0 >= -1, name
                assert box.y1 <= figure.bbox.y1 + 1, name


def test_every_plot_of_an_empty_run_says_that_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "measures").mkdir()
    for name, plot in _plots(Store(tmp_path)).items():
        figure = plot()
        assert any(text.get_text() for axes in figure.axes for text in axes.texts), name
        assert len(png(figure, 50)) > 500


def test_tables_of_another_seed_agree_within_their_intervals(good_matches: Matches, tmp_path: Path) -> None:
    """Both nights have one truth: half completeness at S/N 5, whatever the seed."""
    other = match(Store(make(tmp_path / "other", visits=4, seed=99, knobs=Knobs())))
    for matches in (good_matches, other):
        fit = completeness.completeness(matches).turnover_raw
        assert fit is not None
        sigma = (fit.half.high - fit.half.low) / 2 / 1.96
        assert abs(fit.half.value - 5.0) < 4 * sigma


def test_a_table_is_a_value() -> None:
    assert dataclasses.is_dataclass(purity.Purity)
    with pytest.raises(dataclasses.FrozenInstanceError):
        purity.purity(_purity_matches()).density = 1.0  # type: ignore[misc]  # frozen is what the test is about
