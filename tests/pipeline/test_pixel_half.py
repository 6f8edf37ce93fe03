"""What the exposure log says of noise and depth."""

import numpy as np
import pytest
from scipy.signal import fftconvolve

from pipeline.pixel_half import _five_sigma, correlated_noise
from pipeline.psf import Psf
from schemas import mask

SHAPE = (600, 600)


def gaussian(sigma: float, side: int = 21) -> np.ndarray:
    k = np.arange(side) - side // 2
    stamp = np.exp(-(k[:, None] ** 2 + k**2) / (2 * sigma**2))
    return np.asarray(stamp / stamp.sum())


def autocorrelation(kernel: np.ndarray) -> np.ndarray:
    own = fftconvolve(kernel, kernel[::-1, ::-1])
    return np.asarray(own / own.max())


@pytest.mark.parametrize("kernel", [np.ones((2, 2)), np.array([[0.0, -0.2, 0.0], [-0.2, 1.0, -0.2], [0.0, -0.2, 0.0]])])
def test_correlated_noise_is_what_a_matched_filter_finds_on_such_noise(kernel: np.ndarray) -> None:
    noise = fftconvolve(np.random.default_rng(3).standard_normal(SHAPE), kernel, mode="valid")
    psf = gaussian(1.9)
    fluxes = fftconvolve(noise, psf[::-1, ::-1], mode="valid") / np.sum(psf**2)
    found = fluxes.var() / (noise.var() / np.sum(psf**2))
    claimed = correlated_noise(psf, autocorrelation(kernel))
    assert claimed == pytest.approx(found, rel=0.04)
    assert abs(claimed - 1) > 0.3                                  # far from white noise


def test_white_noise_has_no_correction() -> None:
    psf = gaussian(1.9)
    white = np.zeros((5, 5))
    white[2, 2] = 1.0
    assert correlated_noise(psf, np.ones((1, 1))) == 1.0
    assert correlated_noise(psf, white) == pytest.approx(1.0)


def test_the_depth_is_that_of_a_gaussian_on_the_usable_pixels() -> None:
    """error^2 = 4 pi sigma^2 variance."""
    variance, bits = np.full((50, 50), 9.0), np.zeros((50, 50), np.int32)
    variance[:24], bits[:24] = 9e6, mask.NO_DATA
    psf = Psf.constant(gaussian(2.0), (50, 50))
    expected = 31.4 - 2.5 * np.log10(5 * np.sqrt(4 * np.pi * 2.0**2 * 9.0))
    assert _five_sigma(variance, psf, bits) == pytest.approx(expected, abs=1e-3)
    assert _five_sigma(variance, psf, bits & 0) == pytest.approx(expected, abs=1e-3)      # the median is typical
    assert np.isnan(_five_sigma(variance, psf, bits | mask.NO_DATA))
    shallower = _five_sigma(variance, psf, bits, autocorrelation(np.ones((2, 2))))
    assert 0.4 < expected - shallower < 0.75                        # a factor of nearly 4 in variance
