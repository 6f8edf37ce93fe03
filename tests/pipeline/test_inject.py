"""Injected sources carry the flux, place and noise that they claim, and the optimum error is the theory's."""

import numpy as np
import pytest

from pipeline import inject
from pipeline.images import Calibrated, Calibration, Template
from pipeline.psf import Psf
from schemas import mask as planes
from schemas.exposure import Visit
from schemas.measures import STAR, empty
from schemas.wcs import Wcs


def gaussian(sigma: float, width: int = 41) -> np.ndarray:
    y, x = np.mgrid[:width, :width] - width // 2
    stamp = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return stamp / stamp.sum()


def blank(shape: tuple[int, int] = (256, 256), sigma: float = 2.0, noise: float = 10.0) -> Calibrated:
    visit = Visit(2026010100001, "r", 10.0, -30.0, 0.0, 61000.0, 30.0)
    facts = Calibration(31.4, 0.0, noise, 0, 0, 0, 0.0, 0.0, 0.0, 1.0, 0.0)
    return Calibrated(visit, 1, np.zeros(shape, np.float32), np.full(shape, noise**2, np.float32),
                      np.zeros(shape, np.int32), Psf.constant(gaussian(sigma), shape), Wcs.tangent(10, -30, shape),
                      empty(STAR), facts, 0.05, 1e9)


def template_of(calibrated: Calibrated, noise: float, sigma: float) -> Template:
    return Template("r", calibrated.image, np.full(calibrated.shape, noise**2, np.float32), calibrated.mask,
                    Psf.constant(gaussian(sigma), calibrated.shape), calibrated.wcs,
                    np.ones(calibrated.shape, np.int16))


def test_an_injected_source_has_its_flux_at_its_place() -> None:
    field = blank()
    rows = inject.at_pixels(field, np.array([100.3]), np.array([50.7]), np.array([5000.0]))
    drawn = inject.inject(field, rows, None)
    y, x = np.indices(field.shape)
    assert drawn.image.sum() == pytest.approx(5000.0, rel=1e-5)
    assert (drawn.image * x).sum() / 5000.0 == pytest.approx(100.3, abs=1e-3)
    assert (drawn.image * y).sum() / 5000.0 == pytest.approx(50.7, abs=1e-3)
    assert drawn.mask[51, 100] & planes.INJECTED_CORE
    assert field.image.sum() == 0.0


def test_photon_noise_of_injections_matches_their_variance_plane() -> None:
    field = blank((96, 96))
    rows = inject.at_pixels(field, np.array([48.0]), np.array([48.0]), np.array([4.0e5]))
    rng = np.random.default_rng(1)
    images = np.stack([inject.inject(field, rows, rng).image for _ in range(200)])
    claimed = inject.inject(field, rows, rng).variance - field.variance
    core = np.s_[44:53, 44:53]
    ratio = images.var(axis=0)[core].sum() / claimed[core].sum()
    assert abs(ratio - 1.0) < 4 * np.sqrt(2 / 200 / 20)


def test_a_trail_spreads_its_flux_along_its_line() -> None:
    stamp, x0, _ = inject.draw(Psf.constant(gaussian(2.0), (256, 256)), 100.3, 50.7, 20.0, 30.0)
    x = np.indices(stamp.shape)[1] + x0 - 100.3
    assert stamp.sum() == pytest.approx(1.0)
    assert (stamp * x**2).sum() - 4.0 == pytest.approx(400 / 12 * np.cos(np.pi / 6) ** 2, rel=0.02)


def test_sources_off_the_image_change_nothing() -> None:
    field = blank((64, 64))
    rows = inject.at_pixels(field, np.array([500.0]), np.array([-300.0]), np.array([1e5]))
    assert np.array_equal(inject.inject(field, rows, None).image, field.image)


def test_the_plan_keeps_sources_apart_and_inside() -> None:
    rows = inject.plan(blank(), 10, np.random.default_rng(3), spacing_px=60, border_px=8)
    gap = np.hypot(rows["x"][:, None] - rows["x"], rows["y"][:, None] - rows["y"]) + 1e9 * np.eye(10)
    assert gap.min() > 60 * 0.75
    assert rows["x"].min() > 8
    assert rows["y"].max() < 248


def test_a_plan_that_does_not_fit_says_what_would() -> None:
    with pytest.raises(ValueError, match=r"17 injections 60 px apart do not fit 256 x 256 px \(room for 16\)"):
        inject.plan(blank(), 17, np.random.default_rng(3), border_px=8)


@pytest.mark.parametrize(("template_sigma", "template_noise"), [(2.0, 0.5), (2.0, 1.0), (3.0, 1e-4)])
def test_optimum_error_of_equal_psfs_adds_both_variances(template_sigma: float, template_noise: float) -> None:
    error = inject.optimum_flux_error(gaussian(2.0), 1.0, gaussian(template_sigma), template_noise)
    if template_noise < 1e-3:   # a noiseless template costs nothing, whatever its PSF
        expected = np.sqrt(1.0 / np.sum(gaussian(2.0) ** 2))
        assert error == pytest.approx(expected, rel=0.02)
    else:
        assert error == pytest.approx(np.sqrt((1.0 + template_noise) / np.sum(gaussian(2.0) ** 2)), rel=1e-6)


def test_correlated_noise_raises_the_optimum_error() -> None:
    acf = np.array([[0.05, 0.2, 0.05], [0.2, 1.0, 0.2], [0.05, 0.2, 0.05]])
    white = inject.optimum_flux_error(gaussian(2.0), 1.0, gaussian(2.0), 0.1)
    assert inject.optimum_flux_error(gaussian(2.0), 1.0, gaussian(2.0), 0.1, acf) > 1.2 * white


def test_truth_of_injections_has_their_signal_to_noise() -> None:
    field = blank()
    rows = inject.at_pixels(field, np.array([100.0]), np.array([90.0]), np.array([1000.0]))
    truth = inject.truth_of(rows, field, template_of(field, 5.0, 2.0))
    assert truth["snr"][0] == pytest.approx(1000 / np.sqrt(125 / np.sum(gaussian(2.0) ** 2)), rel=1e-5)
