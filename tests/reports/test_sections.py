"""The parts of a run's report that have no acceptance figure, each against an answer known beforehand."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from reports import (
    association,
    astrometry,
    completeness,
    crowding,
    directs,
    latency,
    lightcurves,
    photometry,
    purity,
    rate,
    solarsystem,
    template,
)
from reports.drawing import png
from reports.match import Matches, match
from reports.outcome import Outcome, of_run
from reports.store import Store
from schemas.measures import EXPOSURE_LOG, OUTCOME_STAR, STAR_TRUTH, empty
from tests.reports.maker import ERROR, SIDE, Knobs
from tests.reports.test_match import matched, source_rows, truth_rows

Broken = Callable[[Knobs], Store]


@pytest.fixture(scope="session")
def outcome(good: Store) -> Outcome:
    return of_run(good, 1)


def drawn(figure: Figure) -> bool:
    return len(png(figure, 40)) > 2000


# --- 6.1 templates ---------------------------------------------------------------------------------------------------

def logged(n: int, **columns: object) -> np.ndarray:
    rows = empty(EXPOSURE_LOG, n)
    rows["visit"], rows["detector"], rows["status"], rows["nx"], rows["ny"] = np.arange(n), 4, b"done", 1000, 1000
    for name, value in columns.items():
        rows[name] = value
    return rows


def test_templates_are_averaged_per_band_in_the_order_of_colour() -> None:
    log = logged(5, band=[b"i", b"g", b"g", b"i", b"r"], template_coverage=[1, 0.9, 0.8, 1, 0.5],
                 template_fwhm_arcsec=0.7, fwhm_arcsec=[1.4, 0.7, 1.0, 1.4, 1], template_mag_lim=26.0, mag_lim=25.0,
                 template_high_variance=[0, 0.1, 0.3, 0, 0], template_n_inputs=6)
    found = template.templates(log)
    assert [b.band for b in found.bands] == ["g", "r", "i"]
    g, r, i = found.bands
    assert g.coverage.value == pytest.approx(0.85)
    assert g.coverage.low < 0.85 < g.coverage.high
    assert g.high_variance.value == pytest.approx(0.2)
    assert i.fwhm_ratio.value == pytest.approx(0.5)
    assert g.deeper.value == 1.0
    assert g.inputs.value == 6.0
    assert (r.n, r.coverage.value, np.isnan(r.coverage.low)) == (1, 0.5, True)      # one has no interval
    assert drawn(template.plot(found))


def test_visits_without_a_template_are_counted_and_older_logs_are_unknown() -> None:
    log = logged(3, band=b"r", template_coverage=[0.9, np.nan, np.nan], status=[b"done", b"no_work", b"failed"],
                 reason=[b"", b"no template in band r", b"PSF"])
    found = template.templates(log)
    assert (found.missing, found.bands[0].n) == (1, 1)
    assert np.isnan(found.bands[0].depth.value)
    assert found.bands[0].depth.n == 0
    assert drawn(template.plot(found))


# --- 6.2 rate and packets --------------------------------------------------------------------------------------------

def test_the_rate_counts_what_each_detector_visit_made(good: Store, good_matches: Matches) -> None:
    table = rate.rate(good, good_matches.exposures)
    by_name = dict(zip(table.counts["name"].tolist(), range(len(table.counts)), strict=True))
    sources, sent = good.table("DiaSource"), good.table("publication")
    assert table.counts["total"][by_name[b"alerts"]] == len(sent)
    assert table.counts["total"][by_name[b"dipoles"]] == sources["isDipole"].sum()
    alerts = by_name[b"alerts"]
    assert table.per_visit[alerts].value == pytest.approx(len(sent) / 12)
    assert table.per_megapixel[alerts].value == pytest.approx(len(sent) / (12 * SIDE**2 / 1e6))
    assert table.per_camera[alerts].value == pytest.approx(len(sent) / 12 * 189 * 4072 * 4000 / SIDE**2)
    assert table.per_megapixel[alerts].low < table.per_megapixel[alerts].value < table.per_megapixel[alerts].high
    assert table.alerts.tolist() == [np.sum(sent["visit"] == v) for v in np.unique(sent["visit"])]
    assert drawn(rate.plot(table, rate.packets(good, good_matches.exposures)))


def test_flagged_sources_are_counted_apart(good: Store, good_matches: Matches) -> None:
    """numDiaSourcesAll has them, numDiaSources has not; a flag that Rubin's selector ignores changes neither."""
    sources = good.table("DiaSource")
    for flag, fewer in (("pixelFlags_edge", 7), ("pixelFlags_cr", 0)):
        rows = sources.copy()
        rows[flag][:7] = True
        changed = Store(good.folder, {"DiaSource": rows, "publication": good.table("publication")})
        counts = rate.rate(changed, good_matches.exposures).counts
        total = {row["rubin"].decode(): int(row["total"]) for row in counts}
        assert total["numDiaSourcesAll"] - total["numDiaSources"] == fewer


def test_an_interval_of_the_rate_holds_the_truth_as_often_as_it_says() -> None:
    rng, hits = np.random.default_rng(5), 0
    for _ in range(400):
        area = rng.uniform(0.5, 1.0, 40)
        found = rate._density(rng.poisson(20 * area).astype(float), area)
        hits += found.low < 20 < found.high
    assert 0.90 < hits / 400 < 0.98


def test_no_interval_of_a_count_reaches_below_0() -> None:
    counts = np.array([30.0, 0, 0, 0])
    for found in (rate.count_mean(counts), rate._density(counts, np.full(4, 0.5))):
        assert found.low == 0.0 < found.value < found.high
    assert np.isnan(rate.count_mean(counts[:1]).low)


def test_visits_that_were_not_processed_have_no_rate() -> None:
    log = logged(3, status=[b"done", b"failed", b"no_work"], n_new_objects=[4, 100, 100], n_detected=6)
    rows = np.zeros(0, EXPOSURE_LOG)
    table = rate.per_visit(log[log["status"] == b"done"], rows)
    assert table.tolist() == [0.0]


def test_packet_sizes_are_those_that_were_sent(broken: Broken) -> None:
    store = broken(Knobs(packet_bytes=80_000))
    log = store.table("exposure_log")
    sizes = rate.packets(store, log)
    assert sizes.median.value == 80_000
    assert len(sizes.sizes) == len(store.table("publication"))
    assert sizes.per_visit.value == pytest.approx(0.08 * len(sizes.sizes) / 4)
    assert len(rate.packets(store, log[:1]).sizes) < len(sizes.sizes)


# --- 6.3 purity ------------------------------------------------------------------------------------------------------

def test_reliability_is_counted_for_real_and_false_apart() -> None:
    score, real = np.array([0.96, 0.99, 0.5, np.nan, 0.02, 0.3]), np.array([True, True, True, True, False, False])
    rows, unscored, high, low = purity.reliability(score, real)
    assert (rows["real"].sum(), rows["false"].sum(), unscored) == (3, 2, 1)
    assert rows["real"][-1] == 2
    assert high.value == pytest.approx(2 / 3)
    assert low.value == 0.5


def test_scores_of_a_night_separate_real_from_false(good_matches: Matches) -> None:
    found = purity.purity(good_matches)
    middle = (found.scores["low"] + found.scores["high"]) / 2
    mean = {name: float(np.average(middle, weights=found.scores[name])) for name in ("real", "false")}
    assert mean["real"] > 0.9 > 0.4 > mean["false"]
    assert drawn(purity.plot_scores(found))


# --- 6.4 completeness against hosts ----------------------------------------------------------------------------------

def detected(truth: np.ndarray) -> np.ndarray:
    """A detection of each true source, where it is."""
    return source_rows(truth["x"].tolist(), truth["y"].tolist(), truth["snr"].tolist())


def hosted(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Sources of S/N 10, half of them on hosts; those on the brightest part of a host are lost."""
    truth = truth_rows(np.linspace(20, 980, n).tolist(), [500.0] * n, [10.0] * n)
    truth["host_sep_arcsec"] = np.where(np.arange(n) % 2, np.nan, np.linspace(0, 1.6, n))
    truth["host_sb"] = np.where(np.arange(n) % 2, np.nan, 20.5 + 5 * np.linspace(0, 1, n))
    return truth, truth["host_sb"] < 22


def test_completeness_falls_on_bright_hosts_and_near_centres_where_sources_are_lost() -> None:
    truth, lost = hosted(80)
    keep = truth[~lost]
    found = matched(truth, detected(keep))
    table = completeness.completeness(found)
    bright = table.by_brightness[table.by_brightness["high"] <= 22.0]
    faint = table.by_brightness[table.by_brightness["low"] >= 22.0]
    assert (bright["n"].sum(), bright["alerts"].sum()) == (lost.sum(), 0)
    assert faint["alerts"].sum() == faint["n"].sum() == np.sum(~lost & np.isfinite(truth["host_sb"]))
    near, far = table.by_distance[0], table.by_distance[table.by_distance["low"] >= 0.5]
    assert near["alert_fraction"] == 0.0
    assert far["alerts"].sum() == far["n"].sum() > 10
    assert (table.hostless["n"][0], table.hostless["alert_fraction"][0]) == (40, 1.0)
    assert drawn(completeness.plot_hosts(table))


def test_hosts_do_not_matter_where_nothing_is_lost_and_faint_sources_are_not_held_against_them() -> None:
    truth, _ = hosted(80)
    truth["snr"][:10] = 5.5
    found = matched(truth, detected(truth))
    table = completeness.completeness(found)
    assert table.by_brightness["n"].sum() + table.hostless["n"][0] == 70
    assert np.nanmin(table.by_brightness["alert_fraction"]) == 1.0
    assert np.nanmin(table.by_distance["alert_fraction"]) == 1.0


# --- 6.5 latency -----------------------------------------------------------------------------------------------------

def test_alert_timing_counts_from_shutter_close_to_the_last_alert_of_a_detector_visit(good: Store) -> None:
    sent = good.table("publication")
    last = [86400 * np.max((sent["sent_mjd_tai"] - sent["shutter_close_mjd_tai"])[sent["visit"] == v])
            for v in np.unique(sent["visit"])]
    found = latency.latency(good).timing
    assert found.value == pytest.approx(np.median(last), abs=1e-3)
    assert found.n == 12
    assert found.low < found.value < found.high


# --- 6.6 photometry and light curves ---------------------------------------------------------------------------------

def test_fluxes_without_fault_have_no_bias_and_the_errors_they_claim(good_matches: Matches) -> None:
    table = photometry.precision(good_matches)
    for kind in (b"alert", b"forced"):
        rows = table.rows[(table.rows["kind"] == kind) & (table.rows["low"] >= 8) & (table.rows["n"] > 50)]
        assert len(rows) >= 3
        assert np.all((rows["pull_std_low"] - 0.04 < 1) & (rows["pull_std_high"] + 0.04 > 1))
        assert np.abs(rows["bias"]).max() < 0.02
    assert table.repeatability.value == pytest.approx(1.0, abs=0.12)
    at_20 = table.rows[(table.rows["kind"] == b"forced") & (table.rows["low"] == 20.0)][0]
    assert at_20["scatter"] == pytest.approx(1 / 24.5, rel=0.25)          # 1 / (S/N)
    assert drawn(photometry.plot_precision(table))


def test_a_bias_and_claimed_errors_too_small_are_seen(broken: Broken) -> None:
    table = photometry.precision(match(broken(Knobs(flux_bias=1.0, claimed_flux_error=0.5))))
    forced = table.rows[(table.rows["kind"] == b"forced") & (table.rows["n"] > 50)]
    assert (forced["pull_std_low"] > 1.2).all()
    assert (forced["pull_mean_low"] > 1.0).all()
    low = forced[forced["low"] == 10.0][0]
    assert low["bias_low"] > 0.03                                         # one error of S/N 10 to 14


def test_repeatability_does_not_count_that_sources_vary() -> None:
    rng = np.random.default_rng(2)
    rows = np.zeros(600, photometry.FLUX)
    rows["truthId"], rows["band"], rows["pull"] = np.repeat(np.arange(200), 3), b"r", rng.standard_normal(600)
    assert photometry.repeatability(rows).value == pytest.approx(1.0, abs=0.1)
    rows["pull"] *= 2
    assert photometry.repeatability(rows).value == pytest.approx(2.0, abs=0.2)
    rows["pull"] = np.repeat(rng.normal(0, 5, 200), 3)                    # each off by the same amount every time
    assert photometry.repeatability(rows).value == pytest.approx(0.0, abs=1e-9)


def test_forced_light_curves_scatter_as_claimed(outcome: Outcome) -> None:
    found = lightcurves.light_curves(outcome)
    assert found.n_all == len(outcome.forced) > 1000
    assert found.bias.low < 0 < found.bias.high
    assert found.spread.value == pytest.approx(1.0, abs=0.05)
    assert found.error.value == pytest.approx(0.6745 * ERROR, rel=0.1)
    assert found.scattered.low < 0.012
    assert found.scattered.value < 0.03
    assert drawn(lightcurves.plot(found))


def test_light_curves_that_scatter_too_much_are_counted(outcome: Outcome) -> None:
    forced = outcome.forced.copy()
    chosen = np.isin(forced["truthId"], np.unique(forced["truthId"])[::2])
    forced["psfFlux"][chosen] += 10 * ERROR * np.where(np.arange(chosen.sum()) % 2, 1, -1)
    found = lightcurves.light_curves(replace(outcome, forced=forced))
    assert 0.4 < found.scattered.value < 0.6
    assert found.outliers > 0.4
    unclean = outcome.forced.copy()
    unclean["clean"] = False
    assert len(lightcurves.light_curves(replace(outcome, forced=unclean)).points) == 0


def test_the_brightest_transients_are_shown_brightest_first(outcome: Outcome) -> None:
    shown = lightcurves.brightest(outcome)
    peaks = [np.max(np.abs(outcome.sources["snr"][outcome.sources["truthId"] == truth])) for _, truth in shown]
    transients = outcome.sources[(outcome.sources["kind"] == b"transient") & outcome.sources["alert"]]
    assert peaks == sorted(peaks, reverse=True)
    assert len(shown) == lightcurves.SHOWN
    assert peaks[0] == np.abs(transients["snr"]).max()
    assert drawn(lightcurves.plot_brightest(outcome))
    nothing = replace(outcome, sources=outcome.sources[:0])
    assert lightcurves.brightest(nothing) == []
    assert drawn(lightcurves.plot_brightest(nothing))


# --- 6.7 astrometry --------------------------------------------------------------------------------------------------

def test_positions_without_fault_have_no_bias_and_the_errors_they_claim(good_matches: Matches) -> None:
    found = astrometry.astrometry(good_matches)
    rows = found.by_snr[(found.by_snr["low"] >= 8) & (found.by_snr["n"] > 50)]
    assert len(rows) >= 3
    assert np.all((rows["pull_low"] - 0.05 < 1) & (rows["pull_high"] + 0.05 > 1))
    assert np.all(np.diff(rows["radial"]) < 0)
    assert abs(found.offset_ra.value) < 0.003
    assert abs(found.offset_dec.value) < 0.003
    assert drawn(astrometry.plot_bias(found))


def test_an_offset_of_the_wcs_is_a_bias_of_the_right_size_and_axis(broken: Broken) -> None:
    """Positions move towards +x, which is the West of this field; claimed errors stay."""
    found = astrometry.astrometry(match(broken(Knobs(offset_arcsec=0.05))))
    assert found.offset_ra.value == pytest.approx(-0.05, abs=0.01)
    assert found.offset_dec.value == pytest.approx(0.0, abs=0.01)
    wide = astrometry.astrometry(match(broken(Knobs(position_error=2.0))))
    assert (wide.by_snr["pull_low"][wide.by_snr["n"] > 50] > 1.5).all()


# --- 6.8 association -------------------------------------------------------------------------------------------------

def test_splits_merges_and_lone_objects_are_counted_by_rubins_definition() -> None:
    """Source 1: two objects. Sources 2 and 3: one object. Source 4: an object with a single DIASource."""
    truth = truth_rows([20.0 * i for i in range(1, 8)], [100.0] * 7, [20.0] * 7)
    truth["truthId"] = [1, 1, 2, 3, 4, 5, 5]
    sources = detected(truth)
    sources["diaObjectId"] = [11, 12, 23, 23, 44, 55, 55]
    found = association.association(matched(truth, sources))
    assert found.split.value == pytest.approx(1 / 5)
    assert found.merges.value == pytest.approx(1 / 5)
    assert (found.lone, found.all_objects) == (3, 5)                      # 11, 12, 44
    sources["diaObjectId"] = [11, 11, 23, 34, 44, 55, 55]
    found = association.association(matched(truth, sources))
    assert (found.split.value, found.merges.value, found.lone) == (0.0, 0.0, 3)       # 23, 34, 44


def test_rejected_detections_make_no_lone_object() -> None:
    sources = source_rows([10.0, 20.0], [10.0, 20.0], [8.0, 8.0])
    sources["diaObjectId"] = [5, 6]
    assert association.unassociated(sources) == (2, 2)
    sources["stage"][1] = b"quality"
    assert association.unassociated(sources) == (1, 1)


# --- 6.9 Solar System ------------------------------------------------------------------------------------------------

def test_known_objects_in_view_and_those_associated_are_counted(good: Store, good_matches: Matches) -> None:
    found = solarsystem.ephemerides(good, good_matches)
    assert found.total == np.sum(good_matches.truth["ssObjectId"] > 0)
    assert found.associated == np.sum(good.table("DiaSource")["ssObjectId"] > 0)
    assert found.total_per_visit.value == pytest.approx(found.total / 12)
    assert found.found.value > 0.9
    assert found.along.low < 0 < found.along.high
    assert found.by_snr["associated"].sum() <= found.associated
    assert drawn(solarsystem.plot(found))


def test_lost_associations_and_a_late_ephemeris_are_seen(broken: Broken) -> None:
    store = broken(Knobs(ss_lost=0.5, ephemeris_arcsec=0.2))
    found = solarsystem.ephemerides(store, match(store))
    assert 0.3 < found.found.value < 0.7
    assert found.along.value == pytest.approx(0.2, abs=0.03)
    assert abs(found.cross.value) < 0.03
    assert found.offset.value > 0.15


# --- 6.10 direct-image stars -----------------------------------------------------------------------------------------

def test_stars_are_found_above_their_threshold_with_the_errors_they_claim(outcome: Outcome) -> None:
    found = directs.directs(outcome.stars, outcome.sources)
    assert 27 < found.half_snr < 34
    assert found.bright.value == 1.0
    assert found.flux_bias.low < 0 < found.flux_bias.high
    assert found.flux_pull.value == pytest.approx(1.0, abs=0.08)
    assert found.position_pull.value == pytest.approx(1.0, abs=0.08)
    assert found.repeatability.value < 1086 / 100
    assert found.n_visits == 12
    assert drawn(directs.plot(found))


def test_a_zeropoint_off_is_a_bias_of_stars(broken: Broken) -> None:
    found = directs.directs(of_run(broken(Knobs(star_bias=0.01)), 1).stars, of_run(broken(Knobs()), 1).sources)
    assert found.flux_bias.value == pytest.approx(-2500 * np.log10(1.01), abs=2.0)


def test_masked_stars_are_not_judged_and_crowded_ones_have_no_errors(outcome: Outcome) -> None:
    stars = outcome.stars.copy()
    stars["judged"][stars["snr"] > 100] = False
    assert directs.directs(stars, outcome.sources).bright.n == 0
    stars = outcome.stars.copy()
    stars["isolated"] = False
    found = directs.directs(stars, outcome.sources)
    assert found.bright.value == 1.0
    assert found.flux_bias.n == 0


def test_a_run_recorded_before_stars_were_has_none(outcome: Outcome) -> None:
    found = directs.directs(np.zeros(0, OUTCOME_STAR), outcome.sources)
    assert (found.bright.n, found.n_visits) == (0, 0)
    assert drawn(directs.plot(found))


def test_science_fluxes_are_judged_without_hosts(outcome: Outcome) -> None:
    sources = outcome.sources.copy()
    sources["clean"] = sources["isolated"] = True
    sources["scienceFlux"], sources["scienceFluxErr"] = sources["science_flux"] * 1.02, sources["science_flux"] * 0.02
    with_hosts = np.isfinite(sources["host_sep_arcsec"])
    sources["scienceFlux"][with_hosts] *= 3
    bias, _ = directs.science_fluxes(sources)
    assert bias.value == pytest.approx(0.02, abs=1e-6)
    assert bias.n > 100


# --- 6.11 crowded fields ---------------------------------------------------------------------------------------------

def with_stars(outcome: Outcome, numbers: list[int]) -> Outcome:
    """The outcome with so many stars in each of its detector-visits, all in one band."""
    log = outcome.visits[np.argsort(outcome.visits["visit"])].copy()
    log["band"] = b"r"
    rows = empty(OUTCOME_STAR, sum(numbers))
    rows["visit"] = np.repeat(log["visit"], numbers)
    rows["detector"], rows["seed"], rows["judged"] = 4, 1, True
    return replace(outcome, visits=log, stars=rows)


def test_a_run_of_one_density_says_so(outcome: Outcome) -> None:
    rng = np.random.default_rng(1)
    found = crowding.crowding(with_stars(outcome, rng.poisson(60, 12).tolist()))
    assert found.single
    assert len(found.bins) == 1
    assert found.bins[0].n == 12
    few = crowding.crowding(with_stars(outcome, [1, 3, 2, 5, 1, 4, 2, 2, 3, 6, 2, 1]))   # chance, not crowding
    assert few.single
    assert few.ratio == 6.0


def test_crowded_fields_are_laid_against_sparse_ones(outcome: Outcome) -> None:
    """Where every alert of the crowded visits is lost, completeness falls there alone; so do false alerts' rates."""
    log = np.sort(outcome.visits["visit"])
    sources, false = outcome.sources.copy(), outcome.false.copy()
    crowded = np.isin(sources["visit"], log[6:])
    sources["alert"][crowded] = False
    false["raw"] = np.isin(false["visit"], log[6:])
    made = with_stars(replace(outcome, sources=sources, false=false), [40] * 6 + [400] * 6)
    found = crowding.crowding(made)
    assert not found.single
    assert found.ratio == 10.0
    sparse, dense = found.bins[0], found.bins[-1]
    assert sparse.completeness.value > 0.85
    assert dense.completeness.value == 0.0
    assert (sparse.low, dense.low) == (40.0, 400.0)
    assert sparse.false_raw.value == 0.0 < dense.false_raw.value
    total = outcome.steps["cpu_s"][outcome.steps["measured"]].sum() / 12
    assert sparse.cpu.value == pytest.approx(total, rel=0.2)
    assert sum(b.n for b in found.bins) == 12
    assert drawn(crowding.plot(found))


def test_without_stars_nothing_is_said_of_crowding(outcome: Outcome) -> None:
    found = crowding.crowding(replace(outcome, stars=outcome.stars[:0]))
    assert found.bins == []
    assert drawn(crowding.plot(found))


def test_stars_of_a_run_are_read_as_they_were_recorded(good: Store, outcome: Outcome) -> None:
    recorded = good.table("star")
    assert recorded.dtype == STAR_TRUTH
    for name in STAR_TRUTH.names or ():
        np.testing.assert_array_equal(outcome.stars[name], recorded[name])
