"""The fitting kernels against their plain NumPy forms."""

import math

import numpy as np
import pytest
from scipy import ndimage, optimize

from pipeline.kernels import fits
from pipeline.measure.flux import BAD_PIXELS, NO_LABELS, PsfModel
from pipeline.measure.trail import Mixture
from pipeline.psf import Psf
from tests.pipeline.fields import profile, psf_stamp

SHAPE = (61, 61)
PSF = Psf.constant(psf_stamp(41, 4.0), SHAPE)
MODEL = PsfModel.of(PSF)


def plain_place(coefficients: np.ndarray, x: float, y: float, shape: tuple[int, int]) -> np.ndarray:
    """The PSF on a window, by SciPy's own spline."""
    m = coefficients.shape[0]
    rows, columns = np.mgrid[:shape[0], :shape[1]]
    at = [rows - y + m // 2, columns - x + m // 2]
    return ndimage.map_coordinates(coefficients, at, order=5, prefilter=False, mode="constant")


def placed(x: float, y: float, side: int = 31) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    out = [np.empty((side, side)) for _ in range(3)]
    m = MODEL.basis.shape[1]
    fits.place(MODEL.basis[0], x, y, 0, 0, *out, np.empty((m, side)), np.empty((m, side)))
    return tuple(out)


@pytest.mark.parametrize(("x", "y"), [(15.0, 15.0), (15.25, 14.6), (14.999, 15.5), (3.3, 28.9)])
def test_a_placed_psf_is_scipys_spline(x, y):
    model, *_ = placed(x, y)
    assert np.allclose(model, plain_place(MODEL.basis[0], x, y, model.shape), atol=2e-7)   # its corners end


@pytest.mark.parametrize(("fwhm", "limit"), [(3.3, 2e-3), (4.0, 5e-4), (6.0, 1e-4)])
def test_a_psf_between_pixels_is_the_profile_itself(fwhm, limit):
    model = PsfModel.of(Psf.constant(psf_stamp(41, fwhm), SHAPE))
    m = model.basis.shape[1]
    out = [np.empty((31, 31)) for _ in range(3)]
    rows, columns = np.mgrid[:31, :31]
    for x, y in ((15.5, 15.5), (15.3, 14.8)):
        fits.place(model.basis[0] / model.sums[0], x, y, 0, 0, *out, np.empty((m, 31)), np.empty((m, 31)))
        true = profile(columns - x, rows - y, fwhm)
        true *= 1 / psf_stamp(401, fwhm)[180:221, 180:221].sum()      # the stamp has unit sum
        assert np.abs(out[0] - true).max() < limit * true.max()


def test_derivatives_of_a_placed_psf_are_differences():
    h = 1e-5
    _, by_x, by_y = placed(15.3, 14.6)
    assert np.allclose(by_x, (placed(15.3 + h, 14.6)[0] - placed(15.3 - h, 14.6)[0]) / (2 * h), atol=1e-8)
    assert np.allclose(by_y, (placed(15.3, 14.6 + h)[0] - placed(15.3, 14.6 - h)[0]) / (2 * h), atol=1e-8)


def test_solve_and_sandwich_agree_with_numpy():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(5, 5)), rng.normal(size=(5, 5))
    a, b = a @ a.T + np.eye(5), b @ b.T
    right = rng.normal(size=5)
    answer = right.copy()
    assert fits.solve(a.copy(), answer, 5)
    assert np.allclose(answer, np.linalg.solve(a, right))
    out, inverse = np.empty((5, 5)), np.empty((5, 5))
    assert fits.sandwich(a, b, out, inverse, np.empty(5), 5)
    assert np.allclose(out, np.linalg.inv(a) @ b @ np.linalg.inv(a))
    assert not fits.solve(-np.eye(3), np.ones(3), 3)


def image_of(x: float, y: float, flux: float, seed: int = 2, sigma: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    clean = flux * plain_place(MODEL.basis[0], x, y, SHAPE)
    variance = np.full(SHAPE, sigma**2, np.float32)
    return (clean + rng.normal(0, sigma, SHAPE)).astype(np.float32), variance


def points(image: np.ndarray, variance: np.ndarray, x: float, y: float, iterations: int,
           mask: np.ndarray | None = None) -> np.ndarray:
    mask = np.zeros(SHAPE, np.int32) if mask is None else mask
    at = np.array([x]), np.array([y])
    return fits.points(image, variance, mask, BAD_PIXELS, NO_LABELS, np.zeros(1, np.int32), MODEL.basis,
                       MODEL.terms(*at), *at, MODEL.half, iterations, 5.0)[0]


def test_a_forced_flux_is_the_weighted_sum():
    image, variance = image_of(30.3, 29.8, 500.0)
    mask = np.zeros(SHAPE, np.int32)
    mask[28, 29] = 1
    row = points(image, variance, 30.3, 29.8, 0, mask)
    window = np.s_[30 - MODEL.half:31 + MODEL.half, 30 - MODEL.half:31 + MODEL.half]
    psf = plain_place(MODEL.basis[0], 30.3, 29.8, SHAPE)[window] * (mask[window] == 0)
    assert row[fits.FLUX] == pytest.approx((psf * image[window]).sum() / (psf**2).sum(), rel=1e-9)
    assert row[fits.FLUX_VARIANCE] == pytest.approx(1 / (psf**2).sum(), rel=1e-9)
    assert row[fits.NDATA] == psf.size - 1
    residual = (image[window] - row[fits.FLUX] * psf)[mask[window] == 0]
    assert row[fits.CHI2] == pytest.approx((residual**2).sum(), rel=1e-9)
    assert row[fits.LNL] == pytest.approx(-0.5 * (residual**2 + np.log(2 * np.pi)).sum(), rel=1e-9)


def test_a_fitted_position_is_that_of_scipys_least_squares():
    image, variance = image_of(30.4, 29.7, 200.0)
    row = points(image, variance, 30.0, 30.0, 30)
    window = np.s_[30 - MODEL.half:31 + MODEL.half, 30 - MODEL.half:31 + MODEL.half]
    plain = optimize.least_squares(
        lambda p: (image - p[0] * plain_place(MODEL.basis[0], p[1], p[2], SHAPE))[window].ravel(), [150.0, 30.0, 30.0],
        x_scale=[100.0, 1.0, 1.0])
    assert row[[fits.FLUX, fits.X, fits.Y]] == pytest.approx(plain.x, rel=2e-5)
    covariance = np.linalg.inv(plain.jac.T @ plain.jac)
    assert row[[fits.XX, fits.YY, fits.XY]] == pytest.approx(covariance[[1, 2, 1], [1, 2, 2]], rel=1e-3, abs=1e-7)
    assert not row[fits.FAILED]


def test_a_source_off_the_image_or_without_pixels_is_null():
    image, variance = image_of(30.0, 30.0, 100.0)
    for x, mask in ((500.0, None), (np.nan, None), (30.0, np.full(SHAPE, 1, np.int32))):
        row = points(image, variance, x, 30.0, 10, mask)
        assert np.isnan(row[fits.FLUX])
        assert row[fits.FAILED]
        assert row[fits.NDATA] == 0


def test_lobes_agree_with_scipys_least_squares():
    rng = np.random.default_rng(3)
    truth = np.array([400.0, 350.0, 31.2, 30.1, 28.9, 29.5])

    def model(p: np.ndarray) -> np.ndarray:
        plus, minus = (plain_place(MODEL.basis[0], p[i], p[i + 1], SHAPE) for i in (2, 4))
        return p[0] * plus - p[1] * minus

    image = (model(truth) + rng.normal(0, 1, SHAPE)).astype(np.float32)
    prior = np.array([[380.0, 100.0, 380.0, 100.0]])
    start = np.array([[32.0, 30.0, 28.0, 30.0]])
    row = fits.lobes(image, np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.int32), BAD_PIXELS, NO_LABELS,
                     np.zeros(1, np.int32), MODEL.basis, MODEL.terms(np.array([30.0]), np.array([30.0])), start, prior,
                     MODEL.half, 60)[0]
    window = np.s_[30 - MODEL.half:31 + MODEL.half, 30 - MODEL.half:31 + MODEL.half]

    def residuals(p: np.ndarray) -> np.ndarray:
        return np.concatenate([(image - model(p))[window].ravel(), (p[:2] - 380.0) / 100.0])

    plain = optimize.least_squares(residuals, truth, x_scale=[100, 100, 1, 1, 1, 1])
    assert row[:6] == pytest.approx(plain.x, rel=2e-3)
    covariance = np.linalg.inv(plain.jac.T @ plain.jac)
    assert row[[fits.PLUS_VARIANCE, fits.MINUS_VARIANCE]] == pytest.approx(covariance[[0, 1], [0, 1]], rel=0.02)


def plain_trail(p: np.ndarray, mixture: Mixture, shape: tuple[int, int]) -> np.ndarray:
    """A trail as 400 points of the mixture, in pixels of a round frame."""
    rows, columns = np.mgrid[:shape[0], :shape[1]]
    s = (np.arange(400) + 0.5) / 400 - 0.5
    out = np.zeros(shape)
    for along in s * p[3]:
        r2 = (columns - p[1] - along * np.cos(p[4])) ** 2 + (rows - p[2] - along * np.sin(p[4])) ** 2
        for a, sigma in zip(mixture.basis[0], mixture.sigmas, strict=True):
            out += a * np.exp(-0.5 * r2 / sigma**2) / (2 * np.pi * sigma**2)
    return p[0] * out / 400 / mixture.basis[0].sum()


def test_trails_agree_with_a_sum_of_points_and_their_errors_with_its_derivatives():
    mixture = Mixture.of(PSF)
    truth = np.array([2000.0, 30.2, 29.6, 14.0, 0.6])
    rng = np.random.default_rng(4)
    image = (plain_trail(truth, mixture, SHAPE) + rng.normal(0, 1, SHAPE)).astype(np.float32)
    row = fits.trails(image, np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.int32), BAD_PIXELS, NO_LABELS,
                      np.zeros(1, np.int32), np.array([[0, 0, *SHAPE[::-1]]]),
                      mixture.basis / mixture.basis.sum(), mixture.sigmas, np.eye(2),
                      np.array([[1500.0, 30.0, 30.0, 10.0, 0.4]]), 0.0, 40)[0]
    jacobian = []
    for i, h in enumerate((1.0, 1e-3, 1e-3, 1e-2, 1e-3)):
        step = np.zeros(5)
        step[i] = h
        jacobian.append(((plain_trail(truth + step, mixture, SHAPE) - plain_trail(truth - step, mixture, SHAPE))
                         / (2 * h)).ravel())
    bound = np.linalg.inv(np.array(jacobian) @ np.array(jacobian).T)
    assert np.all(np.abs(row[:5] - truth) < 4 * np.sqrt(np.diag(bound)))
    assert np.sqrt(np.diag(row[5:30].reshape(5, 5))) == pytest.approx(np.sqrt(np.diag(bound)), rel=0.05)
    residual = image - plain_trail(row[:5], mixture, SHAPE)
    assert row[fits.TRAIL_CHI2] == pytest.approx((residual**2).sum(), rel=1e-3)
    assert np.isinf(row[fits.POINT_CHI2])


def test_the_normal_distribution_is_that_of_math():
    for t in np.linspace(-8, 8, 1601):
        density, share = fits.normal(t)
        assert density == pytest.approx(np.exp(-0.5 * t * t) / np.sqrt(2 * np.pi), abs=2e-9)
        assert share == pytest.approx(0.5 * math.erf(t / np.sqrt(2)), abs=2e-9)


def test_smoothed_weights_are_inverse_means_of_the_variances_nearby():
    rng = np.random.default_rng(5)
    noise = np.where(rng.random((20, 31)) > 0.2, rng.uniform(1, 3, (20, 31)), 0.0)
    weight = np.zeros_like(noise)
    fits.smooth(noise, weight)
    total, count = (ndimage.uniform_filter(p, 5, mode="constant") for p in (noise, (noise > 0).astype(float)))
    assert np.allclose(weight, np.where(noise > 0, count / np.where(noise > 0, total, 1), 0))


def test_a_line_of_no_length_is_a_point_and_its_derivatives_are_differences():
    amplitudes, sigmas = np.array([0.7, 0.3]), np.array([1.5, 3.0])

    def at(u: float, v: float, length: float) -> np.ndarray:
        value = np.empty(4)
        fits.line(u, v, length, amplitudes, sigmas, value)
        return value

    for length in (0.0, 0.1, 1.0, 20.0):
        value, h = at(1.2, -0.7, length), 1e-5
        assert value[1] == pytest.approx((at(1.2 + h, -0.7, length)[0] - at(1.2 - h, -0.7, length)[0]) / (2 * h), 1e-4)
        assert value[2] == pytest.approx((at(1.2, -0.7 + h, length)[0] - at(1.2, -0.7 - h, length)[0]) / (2 * h), 1e-4)
        if length > 0.2:
            by_length = (at(1.2, -0.7, length + h)[0] - at(1.2, -0.7, length - h)[0]) / (2 * h)
            assert value[3] == pytest.approx(by_length, rel=1e-3)
    gauss = sum(a * np.exp(-0.5 * (1.2**2 + 0.7**2) / s**2) / (2 * np.pi * s**2)
                for a, s in zip(amplitudes, sigmas, strict=True))
    assert at(1.2, -0.7, 0.0)[0] == pytest.approx(gauss, rel=1e-8)


@pytest.mark.bench
def test_fitting_points_by_kernel_is_faster_than_plain(benchmark):
    image, variance = image_of(30.4, 29.7, 200.0)
    row = benchmark(points, image, variance, 30.0, 30.0, 30)
    assert abs(row[fits.X] - 30.4) < 0.1
