"""Passes over whole images against their plain forms."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.kernels import detection

SHAPE = (90, 131)


@pytest.fixture
def noisy() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    variance = rng.uniform(1, 4, SHAPE).astype(np.float32)
    image = (rng.normal(0, 1, SHAPE) * np.sqrt(variance)).astype(np.float32)
    image[rng.random(SHAPE) < 0.05] += 20
    return image, variance, rng.random(SHAPE) > 0.1


def background(level: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Linear between the middles of bins, constant beyond."""
    at = [np.clip((np.arange(n) + 0.5) / n * m - 0.5, 0, m - 1) for n, m in zip(shape, level.shape, strict=True)]
    return ndimage.map_coordinates(level.astype(float), np.meshgrid(*at, indexing="ij"), order=1)


def test_usable_pixels_have_values_and_variances_and_no_bad_bit():
    image, variance = np.ones((1, 6), np.float32), np.ones((1, 6), np.float32)
    mask = np.array([[0, 2, 1, 0, 0, 0]], np.int32)
    image[0, 3], variance[0, 4], variance[0, 5] = np.nan, np.inf, 0
    out = np.empty((1, 6), bool)
    detection.usable(image, variance, mask, 2, out)
    assert out.tolist() == [[True, False, True, False, False, False]]


@pytest.mark.parametrize("bins", [(1, 1), (2, 3), (4, 5), (1, 7)])
def test_clipped_means_and_their_subtraction(noisy, bins):
    image, variance, fit = noisy
    level = np.random.default_rng(2).normal(0, 1, bins).astype(np.float32)
    rows, columns = (np.linspace(0, n, m + 1).astype(np.int64) for n, m in zip(SHAPE, (3, 4), strict=True))
    total, count = np.zeros((3, 4)), np.zeros((3, 4))
    detection.binned(image, variance, fit, level, 2.5, rows, columns, total, count)
    off = image - background(level, SHAPE)
    fair = fit & (off**2 < 2.5**2 * variance)
    for j in range(3):
        for i in range(4):
            part = np.s_[rows[j]:rows[j + 1], columns[i]:columns[i + 1]]
            assert count[j, i] == pytest.approx(fair[part].sum(), abs=1)
            assert total[j, i] == pytest.approx(off[part][fair[part]].sum(), abs=5)
    out = np.empty_like(image)
    detection.subtract(image, fit, level, out)
    assert np.allclose(out, np.where(fit, off, 0), atol=1e-5)


def test_bright_and_significant_pixels_are_listed(noisy):
    image, variance, fit = noisy
    inner = np.zeros(SHAPE, bool)
    inner[1:-1, 1:-1] = True
    bright = fit & inner & (image > 4 * np.sqrt(variance))
    assert np.array_equal(detection.bright(image, variance, fit, 4.0), np.flatnonzero(bright))
    assert np.array_equal(detection.beyond(image, 2.0), np.flatnonzero(np.abs(image) > 2))
    many = np.ones((100, 100), np.float32)
    assert len(detection.beyond(many, 0.5)) == 10_000
    blank = fit.copy()
    detection.hide(np.flatnonzero(bright), 3, blank)
    assert np.array_equal(blank, fit & ~ndimage.binary_dilation(bright, iterations=3))


@pytest.mark.parametrize(("y0", "x0"), [(0, 0), (-7, -9), (60, 100), (30, -50)])
@pytest.mark.parametrize("reach", [0, 2])
def test_weights_are_of_the_smoothed_variance(noisy, y0, x0, reach):
    image, variance, fit = noisy
    variance = np.where(fit, variance, np.nan)
    signal, power, weight = (np.full((48, 64), 7, np.float32) for _ in range(3))
    detection.weigh(image, variance, fit, reach, y0, x0, signal, power, weight)
    side = 2 * reach + 1
    count, total = (ndimage.uniform_filter(p.astype(float), side, mode="constant")
                    for p in (fit, np.where(fit, variance, 0)))
    w = np.where(fit, count / np.where(fit, total, 1), 0)
    expected = [np.where(fit, w * image, 0), np.where(fit, w**2 * variance, 0), w]
    for got, plane in zip((signal, power, weight), expected, strict=True):
        wide = np.zeros((300, 300))
        wide[100:100 + SHAPE[0], 100:100 + SHAPE[1]] = plane
        assert np.allclose(got, wide[100 + y0:148 + y0, 100 + x0:164 + x0], rtol=1e-5)


def test_quotients_and_sums_over_blocks():
    rng = np.random.default_rng(3)
    signal, square = rng.normal(size=(20, 20)).astype(np.float32), rng.normal(4, 3, (20, 20)).astype(np.float32)
    out = np.full((30, 40), 9, np.float32)
    norm = 2 * np.sqrt(np.maximum(square, 0))
    expected = np.where(norm > 1, signal / np.where(norm > 1, norm, 1), 0)[:13, :18]
    detection.divide(signal, square, 2.0, 1.0, 5, 7, 13, 18, out)
    assert np.allclose(out[5:18, 7:25], expected, rtol=1e-5)
    assert (out[:5] == 9).all()
    assert np.allclose(square[:13, :18], np.where(norm > 1, norm, 0)[:13, :18], rtol=1e-5)
    sums = np.zeros((8, 8), np.float32)
    detection.block_sums(signal, 1, 10, 9, sums, 2, 3)
    assert sums[2, 3] == pytest.approx(signal[1:5, 1:5].sum(), rel=1e-5)
    assert sums[4, 5] == pytest.approx(signal[9:11, 9:10].sum(), rel=1e-5)      # cut at its end
    assert np.count_nonzero(sums) == 9


def test_a_faint_background_is_taken_off_both_planes(noisy):
    image, _, fit = noisy
    level = np.random.default_rng(4).normal(0, 1, (3, 4)).astype(np.float32)
    ratio = np.random.default_rng(5).uniform(1, 2, (23, 33)).astype(np.float32)
    about = background(level, SHAPE)
    snr = np.where(np.arange(SHAPE[1]) > 5, image, 0).astype(np.float32)
    expected = np.where(snr != 0, snr - about * np.kron(ratio, np.ones((4, 4)))[:SHAPE[0], :SHAPE[1]], 0)
    out = image.copy()
    detection.correct(out, snr, fit, level, ratio, 4)
    assert np.allclose(out, np.where(fit, image - about, image), atol=1e-5)
    assert np.allclose(snr, expected, atol=1e-5)
