"""The parts of differencing: convolution that varies, whitening, restored cores, halos, scatter beyond errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from pipeline.difference.kernel import basis, intrinsic
from pipeline.difference.repair import Saturated, restore, shifted
from pipeline.difference.spatial import SpatialKernel, convolve, powers, square, terms
from pipeline.difference.whiten import SIZE, Nodes, Noise, interpolate, spectrum, transfer, whitening
from pipeline.difference.wings import wings
from pipeline.kernels import difference as passes
from pipeline.psf import Psf
from tests.pipeline.fields import draw, psf_stamp


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2), st.integers(1, 6), st.integers(40, 600), st.integers(40, 90), st.integers(0, 2**31))
def test_convolution_that_varies_equals_the_sum_over_its_terms(order: int, half: int, ny: int, nx: int,
                                                               seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((ny, nx))
    kernel = SpatialKernel(rng.standard_normal((len(powers(order)), 2 * half + 1, 2 * half + 1)), order, (ny, nx))
    found = convolve(image, kernel)
    v, u = np.meshgrid(np.linspace(-1, 1, ny), np.linspace(-1, 1, nx), indexing="ij")
    expected = sum(fftconvolve(image, part, mode="same") * u**p * v**q
                   for part, (p, q) in zip(kernel.components, powers(order), strict=True))
    inner = np.s_[half:ny - half, half:nx - half]
    assert np.allclose(found[inner], np.asarray(expected)[inner], atol=2e-4 * np.abs(expected).max())


def test_a_point_becomes_the_kernel_of_its_place() -> None:
    rng = np.random.default_rng(0)
    kernel = SpatialKernel(rng.standard_normal((3, 5, 5)), 1, (50, 60))
    image = np.zeros((50, 60))
    image[20, 40] = 1.0
    out = convolve(image, kernel)
    assert out[22, 41] == pytest.approx(kernel.at(41, 22)[4, 3], rel=1e-4)


def test_coefficients_in_a_square_are_those_of_the_terms() -> None:
    values = np.arange(6.0)
    u, v = 2 * 11 / 19 - 1, 2 * 7 / 29 - 1
    found = u ** np.arange(3) @ square(values, 2).T @ v ** np.arange(3)
    assert found == pytest.approx(float(terms(np.array([11]), np.array([7]), (30, 20), 2)[0] @ values))


def test_all_basis_functions_but_the_first_sum_to_zero() -> None:
    stamps = basis((0.7, 1.5, 3.0), (4, 2, 2), 10).stamps()
    assert len(stamps) == 15 + 6 + 6
    assert np.allclose(stamps.sum(axis=(1, 2)), np.eye(len(stamps))[0], atol=1e-12)


def test_stamps_are_convolved_as_images_are() -> None:
    functions = basis((1.0, 2.0), (2, 1), 6)
    stamp = np.random.default_rng(1).standard_normal((1, 31, 31))
    found = functions.convolve(stamp)[0]
    expected = [fftconvolve(stamp[0], part, mode="valid").ravel() for part in functions.stamps()]
    assert np.allclose(found, expected, atol=1e-5)


def _gauss(sigma: float, half: int = 12) -> np.ndarray:
    x = np.arange(-half, half + 1)
    out = np.exp(-0.5 * (x[:, None] ** 2 + x**2) / sigma**2)
    return np.asarray(out / out.sum())


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("correlation", [0.0, 0.25])
def test_whitened_noise_is_flat_in_frequency(share: float, correlation: float) -> None:
    line = np.array([correlation, 1.0, correlation])
    left, right = Noise(1.0, np.outer(line, line)), Noise(share, np.ones((1, 1)))
    delta, kernel = np.ones((1, 1)), _gauss(1.6)
    white, gain_left, gain_right = whitening(left, delta, right, kernel, 15)
    power = (spectrum(left.acf) + share * transfer(kernel)) * transfer(white)
    assert white.sum() == pytest.approx(1.0)
    assert np.std(power) / np.mean(power) < 0.03
    assert gain_left + share * gain_right == pytest.approx(power.mean())
    lag = np.fft.ifft2(power).real
    assert abs(lag[0, 1] / lag[0, 0]) < 0.01


def test_whitening_nothing_changes_nothing() -> None:
    white, *_ = whitening(Noise(1.0, np.ones((1, 1))), np.ones((1, 1)), Noise(0.5, np.ones((1, 1))), np.ones((1, 1)), 5)
    expected = np.zeros((11, 11))
    expected[5, 5] = 1.0
    assert np.allclose(white, expected, atol=1e-12)
    assert 2 * white.shape[0] < SIZE


def test_interpolation_between_nodes_is_linear() -> None:
    nodes = Nodes.over((100, 80), 4)
    y, x = np.meshgrid(nodes.y, nodes.x, indexing="ij")
    found = interpolate(2 * x + y, nodes, np.array([0.0, 31.5, 99.0]), np.array([17.0, 79.0]))
    assert found == pytest.approx(np.array([[34.0, 158.0], [65.5, 189.5], [133.0, 257.0]]), abs=1e-3)


@pytest.mark.parametrize("bleed", [0, 25])
def test_a_saturated_core_comes_back_from_the_wings(bleed: int) -> None:
    shape, x, y, flux = (121, 121), 60.3, 59.6, 2e6
    true = draw(shape, np.array([x]), np.array([y]), np.array([flux]), 4.5)
    level = 0.2 * true.max()
    saturated = true > level
    saturated[60 - bleed:61 + bleed, 60] = True
    noise = 10.0 * np.random.default_rng(3).standard_normal(shape)
    image = np.where(saturated, level, true + noise)
    variance = np.full(shape, 100.0) + true
    psf = Psf.constant(psf_stamp(41, 4.5), shape)
    flags = np.where(saturated, passes.WRONG | passes.FULL, 0).astype(np.uint8)
    out = image.astype(np.float32)
    restore(out, variance, flags, passes.WRONG, Saturated.of(flags, passes.FULL), psf)
    core = true > level
    assert np.abs(out[core] / true[core] - 1).max() < 0.05
    assert np.array_equal(out[~saturated], image[~saturated].astype(np.float32))


def test_a_stamp_is_moved_by_a_fraction_of_a_pixel() -> None:
    stamp = draw((41, 41), np.array([20.0]), np.array([20.0]), np.array([1.0]), 4.0)
    expected = draw((41, 41), np.array([20.3]), np.array([19.4]), np.array([1.0]), 4.0)
    assert np.abs(shifted(stamp, 0.3, -0.6) - expected)[5:-5, 5:-5].max() < 0.003 * expected.max()


def test_halos_beyond_the_kernel_are_found_by_all_stars_together() -> None:
    rng = np.random.default_rng(4)
    shape = (400, 400)
    x, y, flux = rng.uniform(40, 360, 12), rng.uniform(40, 360, 12), 10 ** rng.uniform(5, 6.3, 12)
    template = draw(shape, x, y, flux, 3.6, beta=3.0)
    wide = draw(shape, x, y, flux * 0.03, 30.0, beta=2.5, half=110)
    raw = wide + 5.0 * rng.standard_normal(shape)
    bad = template > 2e4
    total, count = (np.where(bad, 0, plane).reshape(100, 4, 100, 4).sum(axis=(1, 3)) for plane in (raw, np.ones(shape)))
    fair = np.maximum(count, 1)
    found, error = wings((total / fair).astype(np.float32), (25.0 / fair).astype(np.float32),
                         template.reshape(100, 4, 100, 4).mean(axis=(1, 3)), count > 8, 12)
    halo = np.kron(found, np.ones((4, 4)))
    far = np.hypot(np.arange(400) - x[:, None, None], np.arange(400)[:, None] - y[:, None, None]).min(axis=0) > 16
    before, after = np.abs(wide[far]).max(), np.abs(wide - halo)[far].max()
    assert before > 5
    assert after < 0.35 * before
    assert error < 0.5


@settings(max_examples=20, deadline=None)
@given(st.floats(0.0, 0.5), st.integers(0, 2**31))
def test_scatter_beyond_the_errors_is_measured_and_never_invented(true: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    error = np.full(2000, 0.1)
    found = intrinsic(rng.normal(0, np.hypot(error, true)), error)
    assert found == pytest.approx(true, abs=0.15 * true + 0.05)


def test_convolution_with_the_pixels_beyond_is_that_of_the_larger_image() -> None:
    rng = np.random.default_rng(4)
    wide = rng.normal(size=(140, 160)).astype(np.float32)
    inner = np.s_[20:-20, 20:-20]
    y, x = np.mgrid[-6:7, -6:7]
    stamp = np.exp(-(x**2 + y**2) / 8.0)[None]
    small, large = SpatialKernel(stamp, 0, (100, 120)), SpatialKernel(stamp, 0, wide.shape)
    expected = convolve(wide, large)[inner]
    assert np.allclose(convolve(wide[inner], small, wide), expected, atol=1e-4 * np.abs(expected).max())
    mirrored = convolve(wide[inner], small)
    assert np.abs(mirrored - expected)[:6].max() > 0.1 * np.abs(expected).max()      # the control: without them
