"""Catalogue fidelity has the noise, the depth and the losses that it claims."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import mask
from schemas.measures import TRUTH, empty
from schemas.wcs import Wcs
from simulators.catalogs import FALSE, FOUND, Catalog, CatalogModel, NoiseField, draw, fit, trail_loss, trail_power

SHAPE = (4000, 4000)
SIGMA, ERROR = 1.8, 100.0
WCS = Wcs.tangent(30.0, -20.0, SHAPE)


def truth_of(snr: np.ndarray | float, n: int, **values: float) -> np.ndarray:
    """Point sources on a grid, so that none blend."""
    rows = empty(TRUTH, n)
    side = max(int(np.ceil(np.sqrt(n))), 1)
    cell = 3960 / side
    rows["x"], rows["y"] = 20 + (np.arange(n) % side + 0.4) * cell, 20 + (np.arange(n) // side + 0.4) * cell
    rows["flux"] = rows["science_flux"] = np.asarray(snr) * ERROR
    rows["flux_err_optimum"], rows["template_flux"], rows["trail_length"], rows["separation_px"] = ERROR, 0.0, 0.0, 0.0
    for name, value in values.items():
        rows[name] = value
    rows["ra"], rows["dec"] = WCS.sky(rows["x"], rows["y"])
    return rows


# A pixel half that loses nothing and adds nothing.
PLAIN = CatalogModel(source="a test", snr_ratio=1.0, efficiency=1.0, edge_px=0.0, flagged=0.0, noise_ratio=1.0,
                     flux_floor=0.0, error_ratio=1.0, centroid_ratio=1.0, centroid_floor_px=0.015,
                     false_per_megapixel=0.0, false_shape=0.0, false_flagged=0.0, sky_sources=0)


def drawn(truth: np.ndarray, seed: int = 1, **model: object) -> Catalog:
    given_model = replace(PLAIN, **model)  # type: ignore[arg-type]
    return draw(truth, WCS, SHAPE, psf_sigma_px=SIGMA, flux_err=ERROR, key=seed, rng=np.random.default_rng(seed),
                model=given_model)


def test_the_field_has_unit_variance_and_the_correlation_of_a_matched_filter() -> None:
    rng, field = np.random.default_rng(1), NoiseField(5, SIGMA)
    x, y = rng.uniform(0, 4000, (2, 20_000))
    here = field.at(x, y)
    assert abs(here.mean()) < 5 / np.sqrt(20_000)
    assert abs(here.std() - 1) < 5 / np.sqrt(40_000)
    for d in (0.5, 1.8, 3.6, 12.0):
        expected = np.exp(-d**2 / (4 * SIGMA**2))
        assert abs(np.mean(here * field.at(x + d, y)) - expected) < 5 / np.sqrt(20_000)


@given(st.integers(0, 2**62), st.floats(-100, 5000), st.floats(-100, 5000))
def test_the_field_does_not_depend_on_who_else_asks(key: int, x: float, y: float) -> None:
    field = NoiseField(key, SIGMA)
    alone = field.at(np.array([x]), np.array([y]))[0]
    assert field.at(np.array([1.0, x, 7.0]), np.array([2.0, y, 9.0]))[1] == alone
    assert abs(alone) < 8


@pytest.mark.parametrize(("snr", "found"), [(5.0, 0.5), (6.0, 0.841), (4.0, 0.159), (9.0, 1.0)])
def test_completeness_is_the_normal_distribution_about_the_threshold(snr: float, found: float) -> None:
    n = 2500
    catalog = drawn(truth_of(snr, n))
    assert abs(len(catalog.sources) / n - found) < 4 * np.sqrt(found * (1 - found) / n) + 1e-3


def test_fluxes_and_positions_scatter_as_they_claim() -> None:
    truth = truth_of(20.0, 2500)
    catalog = drawn(truth, error_ratio=1.1, centroid_ratio=1.2, centroid_floor_px=0.03)
    of = truth[catalog.truth_row]
    sources = catalog.sources
    assert len(sources) == 2500
    pull = (sources["psfFlux"] - of["flux"]) / sources["psfFluxErr"]
    assert abs(pull.mean()) < 4 / 50
    assert abs(pull.std() - 1 / 1.1) < 4 / np.sqrt(5000)
    for axis in "xy":
        pull = (sources[axis] - of[axis]) / sources[f"{axis}Err"]
        assert abs(pull.std() - 1) < 4 / np.sqrt(5000)
    np.testing.assert_allclose(sources["xErr"], np.hypot(1.2 * np.sqrt(2) * SIGMA / sources["snr"], 0.03), rtol=1e-5)


def test_forced_flux_where_a_source_was_found_is_its_own_flux() -> None:
    truth = truth_of(20.0, 400)
    catalog = drawn(truth)
    forced = catalog.pixels.force(truth["ra"], truth["dec"])
    np.testing.assert_allclose(forced["psfFlux"], catalog.sources["psfFlux"], rtol=1e-4)
    off = catalog.pixels.force(np.array([30.0]), np.array([-21.0]))
    assert not off["inside"][0]
    assert np.isnan(off["psfFlux"][0])


def test_forced_flux_on_blank_sky_is_noise_alone() -> None:
    pixels = drawn(truth_of(20.0, 100)).pixels
    x, y = np.random.default_rng(8).uniform(20, 3980, (2, 4000))
    near = np.min(np.hypot(x[:, None] - pixels.x, y[:, None] - pixels.y), axis=1) < 20
    forced = pixels.force(*WCS.sky(x[~near], y[~near]))
    pull = forced["psfFlux"] / forced["psfFluxErr"]
    assert abs(pull.mean()) < 4 / np.sqrt(len(pull))
    assert abs(pull.std() - 1) < 4 / np.sqrt(2 * len(pull))


def test_a_trail_loses_what_the_integral_over_it_says() -> None:
    for length in (0.0, 3.0, 20.0, 60.0):
        s = np.linspace(-length / 2, length / 2, 20_001) if length else np.zeros(3)
        np.testing.assert_allclose(trail_loss(np.array(length), SIGMA), np.exp(-s**2 / (4 * SIGMA**2)).mean(),
                                   rtol=1e-4)


def test_masked_and_outlying_sources_are_lost_and_close_ones_blend() -> None:
    truth = truth_of(50.0, 9)
    truth["input_mask"][0] = mask.SAT
    truth["x"][1] = -3.0
    truth["x"][2], truth["y"][2], truth["flux"][2] = truth["x"][3] + 2.0, truth["y"][3], 4000.0
    assert drawn(truth).truth_row.tolist() == [3, 4, 5, 6, 7, 8]


def test_false_detections_come_at_their_rate_over_the_threshold_and_score_low() -> None:
    catalog = drawn(truth_of(20.0, 0), false_per_megapixel=25.0)
    n = len(catalog.sources)
    assert abs(n - 400) < 4 * 20
    assert np.all(catalog.sources["snr"] >= 5.0)
    assert np.all(catalog.truth_row == -1)
    assert np.median(catalog.sources["reliability"]) < 0.4
    assert abs(catalog.sources["isNegative"].mean() - 0.5) < 4 * 0.5 / np.sqrt(n)


def test_moved_stars_become_dipoles_and_negative_sources_are_negative() -> None:
    truth = truth_of(60.0, 100, separation_px=4.0)
    catalog = drawn(truth, dipole_recognised=0.8)
    assert abs(catalog.sources["isDipole"].mean() - 0.8) < 4 * 0.04
    fading = drawn(truth_of(-20.0, 100))
    assert fading.sources["isNegative"].all()


def test_equal_keys_draw_equal_catalogues() -> None:
    truth = truth_of(7.0, 300)
    a, b, c = drawn(truth, 3, false_per_megapixel=5.0), drawn(truth, 3, false_per_megapixel=5.0), drawn(truth, 4)
    assert a.sources.tobytes() == b.sources.tobytes()
    assert a.sources.tobytes() != c.sources.tobytes()


def test_sky_sources_are_noise_where_nothing_is() -> None:
    truth = truth_of(50.0, 400)
    catalog = drawn(truth, sky_sources=500)
    sky = catalog.sources[catalog.sources["sky_source"]]
    assert len(sky) == 500
    assert np.all(catalog.truth_row[-500:] == -1)
    assert np.min(np.hypot(sky["x"][:, None] - truth["x"], sky["y"][:, None] - truth["y"])) > 5 * SIGMA
    pull = sky["psfFlux"] / sky["psfFluxErr"]
    assert abs(pull.mean()) < 4 / np.sqrt(500)
    assert abs(pull.std() - 1) < 4 / np.sqrt(1000)


def test_what_is_lost_for_no_reason_is_lost_in_every_visit_of_one_sky() -> None:
    truth = truth_of(50.0, 2000)
    truth["truthId"] = np.arange(2000)

    def rows(key: int, losses: int) -> set[int]:
        model = replace(PLAIN, efficiency=0.9)
        catalog = draw(truth, WCS, SHAPE, psf_sigma_px=SIGMA, flux_err=ERROR, key=key,
                       rng=np.random.default_rng(key), model=model, losses=losses)
        return set(catalog.truth_row.tolist())

    assert abs(len(rows(1, 1)) - 1800) < 4 * np.sqrt(180)
    assert rows(1, 1) == rows(2, 1)
    assert abs(len(rows(1, 1) & rows(1, 2)) - 1620) < 4 * np.sqrt(308)


def test_near_the_border_nothing_is_found_and_fluxes_of_bright_sources_have_a_floor() -> None:
    truth = truth_of(400.0, 2500)
    truth["x"][::50] = np.linspace(0, 10, 50)
    truth["ra"], truth["dec"] = WCS.sky(truth["x"], truth["y"])
    catalog = drawn(truth, edge_px=4.0, flux_floor=0.02)
    assert catalog.sources["x"].min() > 3.4
    of = truth[catalog.truth_row]
    pull = (catalog.sources["psfFlux"] - of["flux"]) / catalog.sources["psfFluxErr"]
    assert pull.std() == pytest.approx(np.hypot(1.0, 0.02 * 400), rel=4 / np.sqrt(2 * len(pull)))
    forced = catalog.pixels.force(of["ra"], of["dec"])          # and the same flux is there to be forced
    np.testing.assert_allclose(forced["psfFlux"], catalog.sources["psfFlux"], rtol=1e-3)


def test_a_trails_squared_profile_is_what_the_integral_says() -> None:
    axis = np.arange(-80.0, 80.0, 0.25)
    for length in (0.0, 2.0, 15.0, 50.0):
        along = axis[None, :] - np.linspace(-length / 2, length / 2, 401)[:, None]
        profile = np.exp(-0.5 * (along / SIGMA) ** 2).mean(axis=0)
        expected = np.sum(profile**2) / np.sum(np.exp(-(axis / SIGMA) ** 2))
        np.testing.assert_allclose(trail_power(np.array(length), SIGMA), expected, rtol=4e-3)


def found_of(truth: np.ndarray, catalog: Catalog) -> np.ndarray:
    """FOUND rows of a catalogue."""
    rows = np.zeros(len(truth), FOUND)
    for name in ("x", "y", "flux"):
        rows[name] = truth[name]
    rows["error"], rows["snr"], rows["sigma_px"] = ERROR, truth["flux"] / ERROR, SIGMA
    rows["edge_px"] = np.minimum(truth["x"], truth["y"]) + 0.5
    rows["clear"] = rows["point"] = True
    rows["psfFluxErr"] = np.nan
    at = catalog.truth_row[catalog.truth_row >= 0]
    sources = catalog.sources[:len(at)]
    rows["found"][at], rows["flagged"][at] = True, sources["centroid_flag"]
    for name, column in (("measured_x", "x"), ("measured_y", "y"), ("psfFlux", "psfFlux"), ("psfFluxErr", "psfFluxErr"),
                         ("reliability", "reliability")):
        rows[name][at] = sources[column]
    return rows


def test_a_fit_to_its_own_catalogue_returns_the_model() -> None:
    model: dict[str, Any] = {
        "error_ratio": 1.07, "centroid_ratio": 1.3, "centroid_floor_px": 0.05, "score_real": (9.0, 2.0),
        "score_faint": (4.0, 2.0), "score_false": (2.0, 7.0), "false_per_megapixel": 40.0, "snr_ratio": 0.93,
        "efficiency": 0.96, "edge_px": 3.0, "flagged": 0.03, "false_flagged": 0.2, "noise_ratio": 1.1,
        "flux_floor": 0.02}
    rng = np.random.default_rng(2)
    truth = truth_of(np.exp(rng.uniform(np.log(2.5), np.log(150), 4_000)), 4_000)
    truth["truthId"] = np.arange(4_000)
    truth["x"][::64] = np.linspace(0, 12, 63)     # the first column of the grid
    catalog = drawn(truth, **model)
    false = np.zeros(int(np.sum(catalog.truth_row < 0)), FALSE)
    false["reliability"] = catalog.sources["reliability"][catalog.truth_row < 0]
    false["flagged"] = catalog.sources["centroid_flag"][catalog.truth_row < 0]
    false["visit"] = rng.integers(0, 40, len(false))
    got = fit(found_of(truth, catalog), false, 16.0, 40)
    assert abs(got.false_flagged - 0.2) < 4 * np.sqrt(0.16 / 640)
    assert got.false_shape == 0.0 or got.false_shape > 20         # Poisson: 16 a visit
    false["visit"] = rng.permutation(np.repeat(np.arange(40), rng.gamma(0.5, 100.0, 40).astype(int) + 1))[:len(false)]
    assert fit(found_of(truth, catalog), false, 16.0, 40).false_shape < 2.0
    np.testing.assert_allclose(got.error_ratio, 1.07, rtol=1e-3)
    np.testing.assert_allclose(got.centroid_ratio, 1.3, rtol=0.08)
    np.testing.assert_allclose(got.centroid_floor_px, 0.05, rtol=0.25)
    np.testing.assert_allclose(got.score_real, (9.0, 2.0), rtol=0.15)
    np.testing.assert_allclose(got.score_faint, (4.0, 2.0), rtol=0.15)
    np.testing.assert_allclose(got.score_false, (2.0, 7.0), rtol=0.3)
    np.testing.assert_allclose(got.false_per_megapixel, 40.0, atol=4 * np.sqrt(40 / 16))
    assert abs(got.snr_ratio - 0.93) < 0.03
    assert abs(got.efficiency - 0.96) < 4 * np.sqrt(0.96 * 0.04 / 2600)
    assert abs(got.edge_px - 3.0) < 0.5
    assert abs(got.flagged - 0.03) < 4 * np.sqrt(0.03 / 3000)
    assert abs(got.noise_ratio - 1.1) < 0.08
    assert abs(got.flux_floor - 0.02) < 0.003
    with pytest.raises(ValueError, match="at least 30"):
        fit(found_of(truth, catalog)[:20], false, 16.0, 40)
