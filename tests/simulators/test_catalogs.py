"""Catalogue fidelity has the noise, the depth and the losses that it claims."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import mask
from schemas.measures import TRUTH, empty
from schemas.wcs import Wcs
from simulators.catalogs import Catalog, CatalogModel, NoiseField, draw, fit, trail_loss

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


def drawn(truth: np.ndarray, seed: int = 1, **model: object) -> Catalog:
    given_model = CatalogModel(**{"efficiency": 1.0, "false_per_megapixel": 0.0, **model})  # type: ignore[arg-type]
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
    assert np.median(catalog.sources["reliability"]) < 0.2
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


def test_a_fit_to_its_own_catalogue_returns_the_model() -> None:
    model = {"error_ratio": 1.07, "centroid_ratio": 1.3, "centroid_floor_px": 0.05, "score_real": (9.0, 2.0),
             "false_per_megapixel": 12.0}
    snr = np.exp(np.random.default_rng(2).uniform(np.log(6), np.log(200), 3000))
    truth = truth_of(snr, 3000)
    catalog = drawn(truth, **model)
    real = catalog.truth_row >= 0
    got = fit(truth[catalog.truth_row[real]], catalog.sources[real], catalog.sources[~real], 16.0, psf_sigma_px=SIGMA)
    np.testing.assert_allclose(got.error_ratio, 1.07, rtol=1e-3)
    np.testing.assert_allclose(got.centroid_ratio, 1.3, rtol=0.08)
    np.testing.assert_allclose(got.centroid_floor_px, 0.05, rtol=0.2)
    np.testing.assert_allclose(got.score_real, (9.0, 2.0), rtol=0.15)
    np.testing.assert_allclose(got.false_per_megapixel, 12.0, atol=4 * np.sqrt(12 / 16))
    with pytest.raises(ValueError, match="at least 30"):
        fit(truth[:5], catalog.sources[:5], catalog.sources[:0], 16.0, psf_sigma_px=SIGMA)
