"""The truth that only the twin can complete: optimum errors, template fluxes, masks of the inputs."""

from pathlib import Path

import numpy as np
import pytest

from schemas.exposure import Visit
from schemas.mask import BAD, NO_DATA, SAT
from schemas.wcs import Wcs
from simulators.cadence import history
from twin.exposures import optimum_error
from twin.history import grid
from twin.observatory import Observatory

from .conftest import small


def gaussian(sigma: float, side: int = 41) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - side // 2
    stamp = np.exp(-0.5 * (x**2 + y**2) / sigma**2)
    return stamp / stamp.sum()


def one(science: float, template: float, noise: float, template_noise: float, length: float = 0.0,
        separation: float = 0.0) -> tuple[float, float]:
    error, correlation = optimum_error(gaussian(science)[None], np.array([noise]), gaussian(template)[None],
                                       np.array([template_noise]), np.array([length]), np.array([30.0]),
                                       np.array([separation]))
    return float(error[0]), float(correlation[0])


def test_without_template_noise_the_error_is_the_matched_filters() -> None:
    error, _ = one(2.0, 1.5, 9.0, 1e-12)
    assert error == pytest.approx(3.0 / np.sqrt((gaussian(2.0)**2).sum()), rel=1e-4)
    assert error == pytest.approx(3.0 * np.sqrt(4 * np.pi) * 2.0, rel=1e-2)


def test_two_equal_images_make_the_error_larger_by_the_root_of_two() -> None:
    assert one(2.0, 2.0, 9.0, 9.0)[0] == pytest.approx(np.sqrt(2) * one(2.0, 2.0, 9.0, 1e-12)[0], rel=1e-4)


def test_a_sharper_template_with_the_same_noise_is_worth_more() -> None:
    errors = [one(2.0, sigma, 9.0, 9.0)[0] for sigma in (1.5, 2.0, 2.5)]
    assert errors == sorted(errors)


def test_a_long_trail_costs_what_its_footprint_does() -> None:
    """The footprint of a trail much longer than the PSF is a band of L by 2 sqrt(pi) sigma pixels."""
    error, _ = one(1.5, 1.5, 4.0, 1e-12, length=30.0)
    assert error == pytest.approx(2.0 * np.sqrt(30.0 * 2 * np.sqrt(np.pi) * 1.5), rel=0.06)
    assert one(1.5, 1.5, 4.0, 1e-12, length=1e-3)[0] == pytest.approx(one(1.5, 1.5, 4.0, 1e-12)[0], rel=1e-4)


def test_the_filters_correlation_is_that_of_the_psf_with_itself() -> None:
    for distance in (1.0, 3.0, 6.0):
        assert one(2.0, 2.0, 9.0, 1e-12, separation=distance)[1] == pytest.approx(
            np.exp(-0.25 * distance**2 / 2.0**2), abs=2e-3)


def test_no_template_means_no_flux() -> None:
    assert one(2.0, 2.0, 9.0, np.inf)[0] == np.inf


@pytest.fixture(scope="module")
def observatory(tmp_path_factory: pytest.TempPathFactory) -> Observatory:
    """With every template input observed."""
    made = Observatory(small(), tmp_path_factory.mktemp("masks"))
    for visit in made.earlier["r"]:
        made.expose_earlier(visit, 94)
    return made


def test_the_best_seeing_makes_the_template() -> None:
    here = Observatory(small(simulation={"cadence": {"blocks": ["gr"], "pairs": 1, "history_per_band": 9},
                                         "camera": {"ny": 64, "nx": 64}},
                             pipeline={"template": {"min_visits": 3}}), Path("unused"))
    for band in "gr":
        chosen = {visit.visit for visit in here.earlier[band]}
        assert len(chosen) == 3
        seeing = {visit.visit: here.facts(visit, 94).conditions.fwhm_eff
                  for visit in history(here.config, here.seed) if visit.band == band}
        assert chosen == set(sorted(seeing, key=lambda v: seeing[v])[:3])


def test_snr_is_flux_over_the_error_that_both_images_leave(observatory: Observatory) -> None:
    exposed = observatory.expose(observatory.visits[0], 94)
    truth, facts = exposed.truth, exposed.facts
    point = (truth["kind"] == b"transient") & np.isnan(truth["host_mag"]) & (np.abs(truth["flux"]) < 6000)
    alone = 10 ** (0.4 * (31.4 - facts.m5)) / 5 / 1.02       # a source of S/N 5 adds 2 % of noise of its own
    assert point.sum() > 3
    ratio = truth["flux_err_optimum"][point] / alone
    two = np.sqrt(1.5)                                       # two templates of the same seeing and depth
    assert np.median(ratio) == pytest.approx(two, rel=0.1)
    assert truth["snr"][point] == pytest.approx(truth["flux"][point] / truth["flux_err_optimum"][point])


def test_the_template_flux_is_the_inputs_mean_by_their_depth(observatory: Observatory) -> None:
    truth = observatory.expose(observatory.visits[0], 94).truth
    inputs = observatory.inputs("r")
    rows = truth[np.isin(truth["kind"], [b"variable", b"agn"])]
    assert len(rows)
    weights = np.array([one.weight for one in inputs])
    each = np.array([observatory.sky.flux_at(rows["truthId"], "r", one.visit.mjd_tai) for one in inputs])
    covered = np.array([_inside(one.facts.wcs, rows) for one in inputs]).all(axis=0)
    expected = (weights[:, None] * each).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(rows["template_flux"][covered], expected[covered], rtol=1e-9)
    np.testing.assert_allclose(rows["flux"], rows["science_flux"] - rows["template_flux"], rtol=1e-9)


def _inside(wcs: Wcs, rows: np.ndarray) -> np.ndarray:
    x, y = wcs.pixels(rows["ra"], rows["dec"])
    return np.asarray((x > 0) & (x < 439) & (y > 0) & (y < 439))


def test_planes_of_a_third_of_the_inputs_are_the_templates(tmp_path: Path, observatory: Observatory) -> None:
    visit: Visit = observatory.visits[0]
    truth = observatory.expose(visit, 94).truth
    copy = Observatory(observatory.scenario, tmp_path)
    for n, one in enumerate(copy.inputs("r")):
        np.save(copy.masks / f"{one.visit.visit}_94.npy",
                np.full((440, 440), SAT if n == 0 else BAD | SAT, np.uint8))
    masked = copy.expose(visit, 94).truth
    assert len(masked) == len(truth)
    covered = (masked["input_mask"] & NO_DATA) == 0
    assert covered.any()
    assert (masked["input_mask"][covered] & SAT > 0).all()


def test_the_templates_grid_covers_every_detector_of_every_visit(observatory: Observatory) -> None:
    wcs, shape = grid(observatory)
    for visit in observatory.visits:
        true = observatory.facts(visit, 94).wcs
        x, y = wcs.pixels(*true.sky(np.array([0.0, 439.0, 0.0, 439.0]), np.array([0.0, 0.0, 439.0, 439.0])))
        assert (x > 20).all()
        assert (y > 20).all()
        assert (x < shape[1] - 20).all()
        assert (y < shape[0] - 20).all()
