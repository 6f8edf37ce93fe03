from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reports import evidence
from reports.metrics import CAUSES, METRICS, SECTIONS, evaluate, metrics_of, step_metrics
from reports.outcome import TABLES, Outcome, joined, of_run
from reports.paired import Rules, judge
from reports.pairing import paired, swapped
from reports.store import Store, empty
from reports.terms import Terms
from schemas.exposure import Visit
from schemas.wcs import Wcs
from simulators.artifacts import record
from simulators.bright_stars import Stars
from simulators.config import ArtifactConfig, CadenceConfig, CameraConfig, SimulationConfig
from simulators.psf import TruePsf, profile
from tests.reports.maker import make
from tests.reports.test_outcome import write

SEED, V1, V2, DETECTOR = 3, 2027082100001, 2027082100002, 4
BY_KEY = {metric.key: metric for metric in METRICS}
Columns = Mapping[str, object]


def rows(table: str, n: int, **columns: object) -> np.ndarray:
    """`n` rows at the first visit."""
    out = empty(table, n)
    out["seed"], out["visit"], out["detector"] = SEED, V1, DETECTOR
    for name, value in columns.items():
        out[name] = value
    return out


def sources(n: int, **columns: object) -> np.ndarray:
    """Judged, isolated transients of S/N 30 on clean pixels, found where they are."""
    given = {"truthId": np.arange(n) + 1, "kind": b"transient", "judged": True, "isolated": True, "clean": True,
             "snr": 30.0, "flux": 3000.0, "psfFlux": 3000.0, "found_snr": 30.0, "trail_length": 0.0, "raw": True,
             "alert": True, "diaSourceId": np.arange(n) + 1, "dra": 0.0, "ddec": 0.0, "measured_id": np.arange(n),
             "ssObjectId": 0, "found_ssObjectId": 0}
    return rows("outcome", n, **{**given, **columns})


def visits(n: int = 2, **columns: object) -> np.ndarray:
    given = {"visit": V1 + np.arange(n), "status": b"done", "fidelity": b"pixels", "nx": 100, "ny": 100}
    return rows("seed_exposure_log", n, **{**given, **columns})


def outcome(**tables: np.ndarray) -> Outcome:
    """Two visits and what is given."""
    made = {name: tables.get(name, empty(table)) for name, table in TABLES.items()}
    if "visits" not in tables:
        made["visits"] = visits()
    return Outcome(**made, facts={})


def value(terms: Terms) -> float:
    return float(evaluate(terms))


def of(key: str, **tables: np.ndarray) -> float:
    return value(BY_KEY[key].terms(outcome(**tables)))


# --- the registry ----------------------------------------------------------------------------------------------------

def test_keys_are_unique_and_margins_positive_and_sections_known() -> None:
    keys = [metric.key for metric in METRICS]
    assert len(set(keys)) == len(keys)
    for metric in METRICS:
        assert metric.margin > 0, metric.key
        assert metric.section in SECTIONS, metric.key
        assert metric.better in ("higher", "lower", "neither"), metric.key
        assert metric.name, metric.key
        assert " " not in metric.key, metric.key
    assert {metric.section for metric in METRICS} == set(SECTIONS)


def test_the_metrics_that_decide_are_eight() -> None:
    assert [metric.key for metric in METRICS if metric.primary] == [
        "completeness_raw_5.5_8", "completeness_alerts_5.5_8", "false_alerts", "magnitude_error", "position_median",
        "association_accuracy", "solar_system_associated", "cpu.total"]


def test_margins_allow_what_has_to_be_found() -> None:
    """2 % of completeness, 15 % of false alerts, 5 % of CPU, 0.003 arcsec and 2 mmag must not lie inside a margin."""
    for key, size in (("completeness_raw_5.5_8", 0.02), ("completeness_alerts_5.5_8", 0.02), ("false_alerts", 0.15),
                      ("position_median", 0.003), ("magnitude_error", 2.0), ("magnitude_median", 2.0),
                      ("cpu.total", 0.0501)):
        assert BY_KEY[key].margin < size


# --- a night against itself ------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Twelve visits of 300 sources, and a night by hand that has forced photometry and stars."""
    folder = tmp_path_factory.mktemp("night")
    return joined([of_run(Store(make(folder / "made", visits=12, sources=300)), 1),
                   of_run(write(folder / "by_hand"), 2)])


def test_a_night_against_itself_gives_the_same_terms(night: Outcome) -> None:
    base, head, units = paired(night, night)
    found = metrics_of(base, head)
    assert len({metric.key for metric in found}) == len(found)
    known = 0
    for metric in found:
        a, b = metric.terms(base), metric.terms(head)
        for name in ("value", "weight", "unit", "object"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert len(a.value) == len(a.weight) == len(a.unit) == len(a.object), metric.key
        assert np.all(np.isfinite(a.value) & np.isfinite(a.weight)), metric.key
        assert np.all((a.unit >= 0) & (a.unit < units.n)), metric.key
        known += np.isfinite(evaluate(a))
    assert known > 80


def test_exchanging_every_visit_exchanges_the_figures(night: Outcome) -> None:
    lost = replace(night, sources=night.sources.copy())
    lost.sources["raw"][::3] = lost.sources["alert"][::3] = False
    lost.sources["psfFlux"] *= 1.02
    base, head, units = paired(night, lost)
    a, b = swapped(base, head, np.ones(units.n, bool))
    for metric in METRICS:
        before, after = (value(metric.terms(side)) for side in (base, head))
        np.testing.assert_allclose([value(metric.terms(a)), value(metric.terms(b))], [after, before], rtol=1e-12)


def test_an_outcome_that_stands_alone_has_its_metrics_too(night: Outcome) -> None:
    base, _, _ = paired(night, night)
    for key in ("completeness_raw_5.5_8", "magnitude_median", "wcs_rms", "cpu.total", "false_alerts"):
        assert value(BY_KEY[key].terms(night)) == pytest.approx(value(BY_KEY[key].terms(base)), rel=1e-12)


def test_rows_belong_to_their_visit_and_their_object(night: Outcome) -> None:
    base, _, units = paired(night, night)
    terms = BY_KEY["completeness_raw_20_up"].terms(base)
    use = base.sources["judged"] & (np.abs(base.sources["snr"]) >= 20)
    chosen = base.sources[use]
    assert units.visit[terms.unit].tolist() == chosen["visit"].tolist()
    pairs = {(int(r["seed"]), int(r["truthId"]), int(o)) for r, o in zip(chosen, terms.object, strict=True)}
    assert len(pairs) == len({p[:2] for p in pairs}) == len({p[2] for p in pairs})


# --- samples ---------------------------------------------------------------------------------------------------------

def test_errors_are_compared_on_the_sources_that_both_sides_found() -> None:
    """A side that finds a faint source more, badly placed, has no worse astrometry."""
    place = np.array([0.01, 0.02, 0.03, 0.4])
    both = sources(4, dra=place)
    fewer = both.copy()
    fewer["found_snr"][3], fewer["dra"][3], fewer["raw"][3], fewer["alert"][3] = np.nan, np.nan, False, False
    metric = BY_KEY["position_median"]
    base, head, _ = paired(outcome(sources=fewer), outcome(sources=both))
    assert value(metric.terms(base)) == value(metric.terms(head)) == pytest.approx(0.02)
    assert value(metric.terms(outcome(sources=both))) == pytest.approx(0.025)     # alone, it counts its own
    assert value(BY_KEY["completeness_raw_20_up"].terms(base)) == 0.75
    assert value(BY_KEY["completeness_raw_20_up"].terms(head)) == 1.0


def test_fluxes_are_compared_on_pixels_that_are_clean_on_both_sides() -> None:
    ours = sources(3, psfFlux=[3000.0, 3030.0, 6000.0])
    theirs = ours.copy()
    theirs["clean"][2] = False
    base, head, _ = paired(outcome(sources=ours), outcome(sources=theirs))
    metric = BY_KEY["flux_bias"]
    assert value(metric.terms(base)) == value(metric.terms(head)) == pytest.approx(evidence.MMAG * 0.005, rel=1e-5)
    assert value(BY_KEY["clean"].terms(head)) == pytest.approx(2 / 3)


# --- oracles ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("key", "expected", "columns"), [
    # three of four judged sources between 5.5 and 8 were detected, two published; S/N 8 is in the next bin
    ("completeness_raw_5.5_8", 0.75, {"snr": [5.5, -6, 6, 7, 8, 6], "judged": [1, 1, 1, 1, 1, 0],
                                      "raw": [1, 1, 0, 1, 1, 1]}),
    ("completeness_alerts_5.5_8", 0.5, {"snr": [5.5, -6, 6, 7, 8, 6], "judged": [1, 1, 1, 1, 1, 0],
                                        "alert": [1, 0, 0, 1, 1, 1]}),
    ("completeness_raw_20_up", 1.0, {"snr": [20, 19, 25, 400, 5, 5], "raw": [1, 0, 1, 1, 0, 0]}),
    ("completeness_raw_agn", 0.5, {"kind": [b"agn"] * 2 + [b"variable"] * 4, "raw": [1, 0, 1, 1, 1, 1]}),
    ("completeness_raw_mag_22_23", 0.5, {"magnitude": [22, 22.9, 23, 21, np.nan, 24], "raw": [1, 0, 1, 1, 1, 1]}),
    ("completeness_raw_host_20_22", 0.5, {"snr": 10, "host_sb": [21, 20, 22, np.nan, 23, 19],
                                          "host_sep_arcsec": 0.1, "raw": [1, 0, 1, 1, 1, 1]}),
    ("completeness_raw_distance_0.3_0.8", 0.5, {"snr": 10, "host_sep_arcsec": [0.3, 0.5, 0.8, 0.1, np.nan, 2],
                                                "raw": [1, 0, 1, 1, 1, 1]}),
    ("completeness_raw_hostless", 0.5, {"snr": [10, 10, 3, 10, 10, 10], "raw": [1, 0, 0, 1, 1, 1],
                                        "host_sep_arcsec": [np.nan] * 3 + [0.1] * 3}),
    ("clean", 0.5, {"clean": [1, 1, 1, 0, 0, 0]}),
    # 1 % of a flux is 10.857 mmag
    ("magnitude_median", 10.857, {"psfFlux": [3030, 2970, 3030, 2970, 3030, 2970]}),
    ("magnitude_error", 10.857, {"psfFlux": [3030, 2970, 3030, 2970, 3030, 2970]}),
    ("magnitude_error", 30.0, {"psfFlux": [3e9, 3000 * (1 - 0.0736827), 3000, 3000, 3000, 3000]}),   # 100 and 80 mmag
    ("magnitude_error", 0.0, {"psfFlux": [9e3, 3000, 9e3, 9e3, 9e3, 3000], "isolated": [0, 1, 1, 1, 1, 1],
                              "trail_length": [0, 0, 3, 0, 0, 0], "snr": [30, 30, 30, 5, 30, 30],
                              "clean": [1, 1, 1, 1, 0, 1]}),
    ("flux_bias", 0.0, {"psfFlux": [3030, 2970, 3030, 2970, 3030, 2970]}),
    ("flux_bias", 10.857, {"psfFlux": 2970.0}),
    ("flux_bias", 50.0, {"psfFlux": [3e9, 3000, 3000, 3000, 3000, 3000]}),      # the worst error counts as 300
    ("flux_bias", 0.0, {"psfFlux": [9e3, 3000, 9e3, 9e3, 9e3, 3000], "isolated": [0, 1, 1, 1, 1, 1],
                        "trail_length": [0, 0, 3, 0, 0, 0], "snr": [30, 30, 30, 5, 30, 30],
                        "clean": [1, 1, 1, 1, 0, 1]}),
    ("flux_bias_8_20", 10.857, {"snr": 10.0, "psfFlux": 3030.0}),
    ("true_magnitude_median", 10.857, {"forced_flux": 3030.0}),
    ("true_flux_bias", 10.857, {"forced_flux": 3030.0}),
    ("pull_bias_hostless", 0.5, {"snr": 10, "forced_flux": 3050.0, "forced_flux_err": 100.0}),
    ("pull_bias_hosted", 0.5, {"snr": 10, "forced_flux": [3100, 3000, 0, 0, 0, 0], "forced_flux_err": 100.0,
                               "host_sep_arcsec": [1.0, 1.0, np.nan, np.nan, np.nan, np.nan]}),
    ("pull_variance", 3.0, {"snr": 10, "forced_flux": [3200, 2800, 3200, 2800, 3200, 9000], "forced_flux_err": 100.0}),
    ("pull_variance", 0.75, {"snr": 10, "forced_flux": [3050, 2950] * 3, "forced_flux_err": 100.0}),
    ("pull_outliers", 0.5, {"snr": 10, "forced_flux": [3000, 3000, 3000, 3600, 9000, 2000],
                            "forced_flux_err": 100.0}),
    ("position_median", 0.05, {"dra": 0.03, "ddec": 0.04}),
    ("position_median_6_20", 0.05, {"snr": [10, 10, 10, 30, 30, 5], "dra": [0.03] * 3 + [1] * 3, "ddec": 0.04}),
    ("ra_bias", 0.0, {"dra": [0.03, -0.03] * 3}),
    ("ra_bias", 0.03, {"dra": -0.03}),
    ("ra_bias", 0.1, {"dra": [6, 0.02, 0.02, 0.02, 0.02, 0.02]}),               # the worst error counts as 0.5
    ("dec_bias", 0.03, {"ddec": 0.03}),
    ("position_pull_variance", 1.5, {"dra": [0.02, -0.02] * 3, "raErr": 0.01, "ddec": [0.01, -0.01] * 3,
                                     "decErr": 0.01}),
    ("position_pull_outliers", 0.25, {"dra": [0.08, 0.08, 0.08, 0, 0, 0], "raErr": 0.01, "decErr": 0.01}),
    ("dipoles_found", 2 / 3, {"kind": b"moved_star", "snr": [8, 9, 30, 5, 30, 30], "isDipole": [1, 0, 1, 1, 0, 0],
                              "input_mask": [0, 0, 0, 0, 1, 2], "judged": False}),
    ("dipole_length", 0.5, {"kind": b"moved_star", "separation_px": 3.0, "found_dipole_length": [3.5, 2.5, 3.5] * 2}),
    ("dipole_length", 3.0, {"kind": b"moved_star", "separation_px": 3.0}),      # no fit is a length of 0
    ("point_dipoles", 0.5, {"isDipole": [1, 0, 1, 0, 1, 1], "isolated": [1, 1, 1, 1, 0, 0]}),
    ("association_accuracy", 0.5, {"associated": [1, 0, 1, 0, 1, 1], "ssObjectId": [0, 0, 0, 7, 0, 0],
                                   "kind": [b"agn", b"variable", b"transient", b"asteroid", b"asteroid",
                                            b"moved_star"]}),
    ("association_accuracy", 0.75, {"associated": [1, 1, 1, 0, 0, 0], "alert": [1, 1, 1, 1, 0, 0]}),
    # two sources with three and two alerts, one further DIAObject; the sixth is no DIASource
    ("duplicate_objects", 0.5, {"truthId": [1, 1, 1, 2, 2, 3], "duplicate": [0, 1, 0, 0, 0, 0],
                                 "diaSourceId": [1, 2, 3, 4, 5, -1]}),
    ("merged_objects", 0.5, {"merged": [1, 1, 1, 0, 0, 0]}),
    ("solar_system_associated", 0.5, {"kind": b"asteroid", "ssObjectId": [7, 8, 9, 9, 9, 0], "eph_err_arcsec":
                                      [0.1, 0.1, 0.6, 0.1, 0.1, np.nan], "snr": [9, 9, 9, 5, 9, 9],
                                      "found_ssObjectId": [7, 0, 0, 0, 0, 0], "alert": [1, 1, 1, 1, 0, 1]}),
    ("solar_system_sources", 1.5, {"kind": b"asteroid", "found_ssObjectId": [7, 8, 9, 0, 0, 0]}),
    ("solar_system_wrong", 0.5, {"found_ssObjectId": [7, 8, 9, 0, 0, 0]}),
])
def test_metrics_of_sources(key: str, expected: float, columns: Columns) -> None:
    assert of(key, sources=sources(6, **columns)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("key", "expected", "columns"), [
    ("template_coverage", 0.9, {"template_coverage": [1.0, 0.8]}),
    ("template_coverage", 1.0, {"template_coverage": [1.0, 0.8], "status": [b"done", b"failed"]}),
    ("template_depth", 26.0, {"template_mag_lim": [26.0, np.nan]}),
    ("searched_area", 0.75, {"usable_px": [9000, 6000]}),
    ("dia_sources", 15.0, {"n_sources": [10, 20]}),
    ("direct_sources", 150.0, {"n_star": [100, 200]}),
    ("new_objects", 10.0, {"n_new_objects": [10, -1]}),          # -1 is unknown
    ("snr_rms", 0.02, {"snr_rms": [1.02, 0.98]}),
    ("noise_correlation", 0.03, {"noise_correlation": [0.03, -0.03]}),
    ("depth_error", 0.02, {"mag_lim": [24.52, 24.48], "true_m5": 24.5}),
    ("zeropoint_bias", 0.0, {"zeropoint": [31.01, 30.99], "true_zeropoint": 31.0}),
    ("zeropoint_bias", 10.0, {"zeropoint": 31.01, "true_zeropoint": 31.0}),
    ("zeropoint_rms", 10.0, {"zeropoint": [31.01, 30.99], "true_zeropoint": 31.0}),
    ("psf_size", 0.03, {"psf_sigma_px": [2.06, 1.94], "true_psf_sigma_px": 2.0}),
    ("wcs_rms", 0.02, {"wcs_rms_arcsec": [0.01, 0.03]}),
    ("failed_visits", 0.5, {"status": [b"timeout", b"done"]}),
    ("failed_visits", 0.0, {"status": [b"no_work", b"done"]}),
    ("no_work", 0.5, {"status": [b"no_work", b"done"]}),
])
def test_metrics_of_the_log(key: str, expected: float, columns: Columns) -> None:
    assert of(key, visits=visits(2, **columns)) == pytest.approx(expected, abs=2e-3 * max(abs(expected), 0.01))


def _planes(*rows_: tuple[int, bytes, bytes, float]) -> np.ndarray:
    """TRACE rows: (visit, Step, quantity, value)."""
    visit, step, quantity, number = zip(*rows_, strict=True)
    return rows("seed_trace", len(rows_), visit=visit, step=step, quantity=quantity, value=number)


def test_masked_area_is_told_by_cause() -> None:
    seen = _planes((V1, b"calibrate", b"mask:SAT", 60.0), (V1, b"subtract", b"mask:SAT", 900.0),
                   (V1, b"subtract", b"mask:NO_DATA", 500.0), (V1, b"detect", b"mask:STREAK", 2000.0),
                   (V1, b"detect", b"mask:CR", 30.0), (V2, b"calibrate", b"stars", 17.0),
                   (V2, b"detect", b"mask:CR", 10.0))
    assert of("saturated_area", traces=seen) == pytest.approx(0.003)      # the second visit has none
    assert of("missing_area", traces=seen) == pytest.approx(0.05)         # the second's trace knows no subtraction
    assert of("streak_area", traces=seen) == pytest.approx(0.1)
    assert of("cosmic_ray_area", traces=seen) == pytest.approx(0.002)
    assert of("saturated_area", traces=seen, visits=visits(status=[b"failed", b"done"])) == 0.0
    assert np.isnan(of("saturated_area"))                                  # without traces nothing is known


def test_growth_about_saturated_stars_is_found_among_streaks_that_come_and_go() -> None:
    """24 visits: 300 px more about stars; a streak of 9000 px on one side alone in one of six, either way."""
    n = 24
    log = visits(n, nx=1000, ny=1000)
    streaks = [np.where(np.arange(n) % 6 == k, 9000.0, 0.0) for k in (0, 1)]
    saturated = 600.0 + 10.0 * np.arange(n)

    def side(grown: float, streak: np.ndarray) -> Outcome:
        seen = [(v, step, b"mask:" + plane, float(px))
                for v, sat, line in zip(log["visit"], saturated, streak, strict=True)
                for step, plane, px in ((b"calibrate", b"SAT", sat + grown), (b"detect", b"STREAK", line))]
        usable = 1_000_000 - saturated - grown - streak
        return outcome(visits=visits(n, nx=1000, ny=1000, usable_px=usable), traces=_planes(*seen))

    chosen = [BY_KEY["searched_area"], BY_KEY["saturated_area"]]
    grown = judge(chosen, *paired(side(0.0, streaks[0]), side(300.0, streaks[1]))[:2], Rules())
    assert [j.verdict for j in grown] == ["undecided", "worse"]
    same = judge(chosen, *paired(side(0.0, streaks[0]), side(0.0, streaks[1]))[:2], Rules())
    assert [j.verdict for j in same] == ["undecided", "equivalent"]


def test_false_detections_count_per_detector_visit() -> None:
    wrong = rows("outcome_false", 4, raw=True, alert=[1, 1, 1, 0], cause=[b"noise", b"noise", b"bleed", b"noise"])
    assert of("false_raw", false=wrong) == 2.0
    assert of("false_alerts", false=wrong) == 1.5
    assert of("false_alerts_noise", false=wrong) == 1.0
    assert of("false_raw_glint", false=wrong) == 0.0
    assert of("false_alerts", false=wrong, visits=visits(4)) == 0.75
    assert of("alerts", false=wrong, sources=sources(5, alert=[1, 1, 1, 1, 0])) == 3.5


def test_purity_is_of_detections_of_snr_6_and_more() -> None:
    wrong = rows("outcome_false", 4, raw=[1, 1, 1, 0], alert=[1, 0, 0, 0], snr=[7, 7, 5, 7])
    true = sources(4, found_snr=[7, 7, 5.5, 7], raw=[1, 1, 1, 0], alert=[1, 1, 1, 0])
    assert of("purity_raw", sources=true, false=wrong) == 0.5
    assert of("purity_alerts", sources=true, false=wrong) == pytest.approx(2 / 3)


def test_dipoles_and_objects_of_one_source_are_counted_among_all_dia_sources() -> None:
    wrong = rows("outcome_false", 3, isDipole=[1, 1, 0], lone=[0, 0, 1], diaSourceId=[1, -1, 3])
    true = sources(3, isDipole=[1, 0, 0], lone=[0, 1, 0])
    assert of("dia_dipoles", sources=true, false=wrong) == 1.0
    assert of("lone_objects", sources=true, false=wrong) == 1.0


def test_trails_without_a_fit_have_no_length_and_no_direction() -> None:
    log = visits(2, true_psf_sigma_px=2.0)
    true = sources(5, trail_length=20.0, trail_angle=89.0, found_trail_length=[21, 19, 21, np.nan, np.nan],
                   found_trail_angle=[-89, 87, 89, np.nan, np.nan], trailFlux=[3300, 3300, 3300, 1, 1],
                   psfFlux=[1, 1, 1, 1500, 1500])
    assert of("trail_length", sources=true, visits=log) == pytest.approx(0.05)
    assert of("trail_angle", sources=true, visits=log) == pytest.approx(2.0)     # across +-90
    assert of("trails_fitted", sources=true, visits=log) == pytest.approx(0.6)
    assert of("trail_flux_ratio", sources=true, visits=log) == pytest.approx(abs(3 * 0.1 - 2 * 0.5) / 5)
    unfitted = true.copy()
    unfitted["found_trail_length"] = unfitted["found_trail_angle"] = np.nan
    assert of("trail_length", sources=unfitted, visits=log) == 1.0
    assert of("trail_angle", sources=unfitted, visits=log) == 45.0
    short = sources(2, trail_length=9.0, found_trail_length=9.0, found_trail_angle=0.0)
    assert np.isnan(of("trail_length", sources=short, visits=log))               # below 5 sigma
    other = true.copy()
    other["measured_id"] = -1                                                    # a catalogue without our fits
    assert np.isnan(of("trails_fitted", sources=other, visits=log))


def test_the_depth_of_a_difference_is_held_against_the_optimum_errors() -> None:
    true = sources(4, snr=[5, 6, -8, 30], flux=[500, 600, -800, 99999])      # optimum error 100 nJy: depth 24.653
    assert of("difference_depth_error", sources=true, visits=visits(2, diffim_mag_lim=[24.703, 23.0])) == pytest.approx(
        0.05, abs=1e-3)                                                      # the other visit has no source
    assert np.isnan(of("difference_depth_error", visits=visits(2, diffim_mag_lim=24.0)))


def test_noise_over_the_optimum_is_of_true_errors() -> None:
    true = sources(4, snr=10.0, flux=1000.0, forced_flux=[1200, 800, 1200, 9000], forced_flux_err=1e-9)
    assert of("noise_over_optimum", sources=true) == pytest.approx(2.0)
    true["isolated"] = False
    assert np.isnan(of("noise_over_optimum", sources=true))


@pytest.mark.parametrize(("key", "expected", "columns"), [
    ("forced_bias", 0.5, {"snr": 10, "psfFlux": 1050.0}),
    ("forced_bias", 0.0, {"snr": 10, "psfFlux": [1100, 900, 1100, 900]}),
    ("forced_bias", 0.0, {"snr": [10, 10, 40, 10], "psfFlux": [1000, 1000, 1100, 9000], "clean": [1, 1, 1, 0]}),
    ("forced_variance", 3.0, {"snr": 10, "psfFlux": [1200, 800, 1200, 800]}),
    ("forced_outliers", 0.25, {"snr": 10, "psfFlux": [1000, 1000, 1000, 2000]}),
    ("forced_scatter", 2.0, {"snr": 10, "psfFlux": [1200, 800, 1200, 800]}),
    ("forced_scatter", 0.0, {"snr": 10, "psfFlux": [1000, 1000, 1000, 2000]}),
    ("forced_flux_bias", 10.857, {"snr": 30, "psfFlux": 1010.0}),
    ("light_curves", 10.857, {"snr": 30, "psfFlux": [1010, 990, 1010, 990]}),
])
def test_metrics_of_forced_photometry(key: str, expected: float, columns: Columns) -> None:
    given = {"truthId": np.arange(4), "flux": 1000.0, "psfFluxErr": 100.0, "clean": True}
    assert of(key, forced=rows("outcome_forced", 4, **{**given, **columns})) == pytest.approx(expected, rel=1e-4,
                                                                                              abs=1e-5)


@pytest.mark.parametrize(("key", "expected", "columns"), [
    ("stars_found_5_10", 0.5, {"snr": [6, 6, 4, 60], "found": [1, 0, 0, 0]}),
    ("stars_found_10_up", 0.5, {"snr": [60, 60, 60, 60], "found": [1, 0, 0, 0], "judged": [1, 1, 0, 1],
                                "isolated": [1, 1, 1, 0]}),
    ("star_flux_bias", 10.857, {"snr": 60, "psfFlux": 1010.0}),
    ("star_flux_bias", 0.0, {"snr": 60, "psfFlux": [1010, 990, 1010, 990]}),
    ("star_scatter", 10.857, {"snr": 60, "psfFlux": [1010, 990, 1010, 990]}),
    ("star_position", 0.05, {"snr": 60, "dx_arcsec": 0.03, "dy_arcsec": -0.04}),
    ("star_pull_variance", 3.0, {"snr": 20, "psfFlux": [1020, 980, 1020, 980]}),
])
def test_metrics_of_direct_images(key: str, expected: float, columns: Columns) -> None:
    given = {"starId": np.arange(4), "found": True, "judged": True, "isolated": True, "flux": 1000.0,
             "psfFluxErr": 10.0}
    assert of(key, stars=rows("outcome_star", 4, **{**given, **columns})) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_crowded_fields_are_laid_against_sparse_ones() -> None:
    log = visits(6)
    densities = [10, 10, 20, 20, 40, 40]
    stars = np.concatenate([rows("outcome_star", n, visit=V1 + i) for i, n in enumerate(densities)])
    found = [1, 1, 0, 0, 1, 0]
    true = sources(6, visit=V1 + np.arange(6), snr=10.0, raw=found)
    assert of("crowded_completeness", sources=true, visits=log, stars=stars) == pytest.approx(0.5 - 1.0)
    more = np.concatenate([true, sources(2, visit=V1 + 4, truthId=[11, 12], snr=10.0)])      # three of four found there
    assert of("crowded_completeness", sources=more, visits=log, stars=stars) == pytest.approx(0.75 - 1.0)
    even = np.concatenate([rows("outcome_star", 10 + i, visit=V1 + i) for i in range(6)])
    assert np.isnan(of("crowded_completeness", sources=true, visits=log, stars=even))
    assert np.isnan(of("crowded_completeness", sources=true, visits=log))


def test_latency_is_from_the_exposure_that_an_alert_is_of() -> None:
    day = 86400.0
    log = visits(2, readout_end_mjd_tai=61000.0, shutter_close_mjd_tai=61000.0 - 2 / day)
    sent = rows("seed_publication", 4, bytes=[10, 20, 30, 40], sent_mjd_tai=61000.0 + np.array([10, 20, 90, 2e5]) / day)
    sent["readout_end_mjd_tai"][2] = 61000.0 + 40 / day          # its own; others are the log's, the last is catch-up
    assert of("latency_median", packets=sent, visits=log) == pytest.approx(20.0, abs=1e-4)
    assert of("latency_shutter", packets=sent, visits=log) == pytest.approx(22.0, abs=1e-4)
    assert of("on_time", packets=sent, visits=log) == 1.0
    sent["readout_end_mjd_tai"][2] = 61000.0
    assert of("on_time", packets=sent, visits=log) == pytest.approx(2 / 3)
    assert of("packet_size", packets=sent, visits=log) == 25.0


def steps(name: list[bytes], cpu: list[float], **columns: object) -> np.ndarray:
    given = {"name": name, "cpu_s": cpu, "measured": True, "duration_s": cpu, "size": 5}
    return rows("seed_step", len(name), **{**given, **columns})


def test_costs_are_sums_per_detector_visit() -> None:
    made = steps([b"detect", b"save", b"save", b"detect", b"retry.save"], [1.0, 0.2, 0.3, 2.0, 9.0],
                 visit=[V1, V1, V1, V2, V1], measured=[1, 1, 1, 1, 0], peak_mb=[100, np.nan, np.nan, 300, 900])
    side = outcome(steps=made)
    assert value(BY_KEY["cpu.total"].terms(side)) == pytest.approx((1.5 + 2.0) / 2)
    assert value(BY_KEY["memory.peak"].terms(side)) == 200.0
    named = {metric.key: metric for metric in step_metrics([side])}
    assert value(named["cpu.detect"].terms(side)) == 1.5
    assert value(named["cpu.save"].terms(side)) == 0.5           # both calls; the visit without one does not count
    assert value(named["memory.detect"].terms(side)) == 200.0
    assert "cpu.retry.save" not in named
    assert named["cpu.save"].step == "save"


def test_only_steps_over_50_ms_are_judged_one_by_one() -> None:
    side = outcome(steps=steps([b"detect", b"filter", b"save"], [0.06, 0.04, 0.01], peak_mb=[1, np.nan, np.nan]))
    keys = {metric.key: metric for metric in step_metrics([side, side])}
    assert set(keys) == {"cpu.detect", "cpu.rest", "memory.detect", "latency.detect"}
    assert value(keys["cpu.rest"].terms(side)) == pytest.approx(0.05)
    slower = outcome(steps=steps([b"detect", b"filter", b"save"], [0.06, 0.06, 0.01]))
    assert {"cpu.filter", "cpu.rest"} < {metric.key for metric in step_metrics([side, slower])}   # on any side
    assert not step_metrics([outcome(), outcome()])


def test_a_step_is_compared_where_both_sides_measured_it() -> None:
    ours = steps([b"detect", b"detect"], [1.0, 3.0], visit=[V1, V2])
    base, head, _ = paired(outcome(steps=ours), outcome(steps=ours[:1]))
    assert value(BY_KEY["cpu.total"].terms(base)) == value(BY_KEY["cpu.total"].terms(head)) == 1.0


def test_updated_objects_have_rubins_definition() -> None:
    """Of 20 objects loaded 8 have one of 12 DIASources: one is new, three are of asteroids."""
    log = visits(1, n_sources=12, n_new_objects=1)
    loaded = steps([b"objects", b"reload"], [0.0, 0.0], size=[19, 20])
    true = sources(4, found_ssObjectId=[7, 8, 9, 0])
    assert of("updated_objects", visits=log, steps=loaded, sources=true) == pytest.approx(8 / 20)
    assert of("unassociated_objects", visits=log, steps=loaded, sources=true) == 12.0
    assert of("updated_objects", visits=log, steps=loaded[:1], sources=true) == pytest.approx(8 / 19)
    assert np.isnan(of("updated_objects", visits=log, sources=true))


def test_known_objects_are_what_the_ephemerides_gave() -> None:
    made = steps([b"ephemerides", b"objects", b"ephemerides"], [0.0] * 3, size=[50, 9, 60], visit=[V1, V1, V2])
    assert of("solar_system_known", steps=made) == 55.0


def test_causes_that_no_side_has_are_left_out() -> None:
    none, some = outcome(), outcome(false=rows("outcome_false", 1, cause=b"bleed", raw=True))
    keys = {metric.key for metric in metrics_of(none, some)}
    assert {"false_raw_bleed", "false_alerts_bleed", "false_raw", "false_alerts"} <= keys
    assert not any(f"false_raw_{cause.replace(' ', '_')}" in keys for cause in CAUSES if cause != "bleed")


def test_every_artifact_that_is_drawn_is_a_cause_with_a_metric() -> None:
    artifacts = ArtifactConfig(cosmic_rays=20.0, bad_columns=300.0, bad_pixels=800.0, unknown_pixels=400.0, ghosts=0.1,
                               spikes=0.1, crosstalk=1e-2, bleed_residual=0.1, aircraft=1.0, bad_flats=1.0, bad_wcs=1.0)
    config = SimulationConfig(camera=CameraConfig(ny=400, nx=400), artifacts=artifacts,
                              cadence=CadenceConfig(history_missing=0.4))
    psf = TruePsf(profile(4.15, 0.6), (400, 400), np.zeros(5), np.zeros(5), np.zeros(5))
    scene = np.full((400, 400), 900.0)
    psf.draw(scene, np.array([200.0]), np.array([180.0]), np.array([4e7]), np.array([150.0]))
    visit = Visit(2027082200001, "r", 330.0, -12.0, 20.0, 61639.2, 30.0)
    stars = Stars(np.array([200.0]), np.array([180.0]), np.array([4e7]))
    drawn = record(scene, config, visit, 94, 1, Wcs.tangent(330.0, -12.0, (400, 400)), psf, 32.05, stars)[2]
    causes = {kind.decode().replace("_", " ") for kind in drawn["kind"]}
    assert {"cosmic ray", "bad column", "bad pixel", "hot pixel", "bleed", "ghost", "spike", "crosstalk",
            "bleed residual", "aircraft", "bad flat", "bad wcs", "template edge"} <= causes <= set(CAUSES)


def test_purity_is_left_out_where_all_that_is_known_was_injected() -> None:
    false = rows("outcome_false", 1, cause=b"noise", raw=True, alert=True)
    real, simulated = (outcome(sources=sources(4, kind=kind), false=false) for kind in (b"injected", b"transient"))
    left, kept = ({metric.key: metric for metric in metrics_of(side, side)} for side in (real, simulated))
    assert {key for key, metric in kept.items() if metric.section == "purity"} == kept.keys() - left.keys()
    assert {"purity_raw", "false_alerts", "false_raw_noise"} <= kept.keys() - left.keys()


# --- what a bad change would do --------------------------------------------------------------------------------------

def _threshold(side: Outcome) -> Outcome:
    kept = ~(side.sources["found_snr"] < 5.6)
    return _with(side, raw=side.sources["raw"] & kept, alert=side.sources["alert"] & kept)


def _with(side: Outcome, **columns: object) -> Outcome:
    changed = side.sources.copy()
    for name, column in columns.items():
        changed[name] = column
    return replace(side, sources=changed)


def _log(side: Outcome, **columns: Callable[[np.ndarray], np.ndarray]) -> Outcome:
    changed = side.visits.copy()
    for name, change in columns.items():
        changed[name] = change(changed[name])
    return replace(side, visits=changed)


def _cut(side: Outcome) -> Outcome:
    return _with(side, alert=side.sources["alert"] & (side.sources["reliability"] > 0.9))


DAMAGE: Mapping[str, tuple[Callable[[Outcome], Outcome], str]] = {
    "threshold": (_threshold, "completeness_raw_5.5_8"),
    "reliability cut": (_cut, "completeness_alerts_5.5_8"),
    "noise correlated": (lambda side: _log(side, snr_rms=lambda v: v * 1.1), "snr_rms"),
    "PSF too wide": (lambda side: _log(side, psf_sigma_px=lambda v: v * 1.03), "psf_size"),
    "astrometry off": (lambda side: _with(side, dra=side.sources["dra"] + 0.03), "position_median"),
    "zeropoint off": (lambda side: _log(side, zeropoint=lambda v: v + 0.01), "zeropoint_bias"),
    "masks grown": (lambda side: _log(side, usable_px=lambda v: v - 5000), "searched_area"),
    "no trails": (lambda side: _with(side, found_trail_length=np.nan), "trail_length"),
    "no dipoles": (lambda side: _with(side, isDipole=False), "dipoles_found"),
    "duplicates": (lambda side: _with(side, duplicate=side.sources["alert"], associated=False), "duplicate_objects"),
    "asteroids lost": (lambda side: _with(side, found_ssObjectId=0), "solar_system_associated"),
    "false alerts": (lambda side: replace(side, false=_published(side.false)), "false_alerts"),
}


def _published(false: np.ndarray) -> np.ndarray:
    out = false.copy()
    out["alert"] = True
    return out


@pytest.mark.parametrize("name", DAMAGE)
def test_a_bad_change_makes_its_metric_worse(night: Outcome, name: str) -> None:
    change, key = DAMAGE[name]
    base, head, _ = paired(night, change(night))
    metric = BY_KEY[key]
    before, after = value(metric.terms(base)), value(metric.terms(head))
    difference = after / before - 1 if metric.relative else after - before
    assert difference * (-1 if metric.better == "higher" else 1) > metric.margin
    for other in ("wcs_rms", "packet_size", "cpu.total", "false_raw"):
        assert value(BY_KEY[other].terms(base)) == value(BY_KEY[other].terms(head)), other


def test_a_run_of_injected_sources_has_its_figures(tmp_path: Path) -> None:
    side = of_run(Store(make(tmp_path / "real", visits=2, sources=80, kind="injected")), 1)
    assert 0 < value(BY_KEY["completeness_raw_injected"].terms(side)) <= 1
    assert np.isnan(value(BY_KEY["completeness_raw_agn"].terms(side)))
