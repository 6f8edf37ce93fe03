"""Adaptive moments against the Gaussians they are exact for, and their plain form."""

import numpy as np
import pytest

from pipeline.kernels import moments

NO_LABELS = np.zeros((1, 1), np.int32)


def gaussian(xx: float, yy: float, xy: float, x: float, y: float, side: int = 81) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    dx, dy = columns - x, rows - y
    det = xx * yy - xy**2
    return np.exp(-0.5 * (yy * dx**2 - 2 * xy * dx * dy + xx * dy**2) / det)


def adaptive(image: np.ndarray, x: float, y: float, sign: float = 1.0, sigma: float = 2.0) -> np.ndarray:
    return moments.adaptive(image.astype(np.float32), np.zeros(image.shape, np.int32), 0, NO_LABELS,
                            np.zeros(1, np.int32), np.array([x]), np.array([y]), np.array([sign]), np.array([sigma]),
                            200)[0]


def plain(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """Iterated weighted moments, in NumPy, without a cut."""
    rows, columns = np.mgrid[:image.shape[0], :image.shape[1]]
    w = np.array([4.0, 4.0, 0.0])
    for _ in range(200):
        weight = gaussian(*w, x, y, image.shape[0]) * image
        w = 0.5 * (w + 2 * np.array([(weight * (columns - x) ** 2).sum(), (weight * (rows - y) ** 2).sum(),
                                     (weight * (columns - x) * (rows - y)).sum()]) / weight.sum())
    return w


@pytest.mark.parametrize("shape", [(4.0, 4.0, 0.0), (9.0, 4.0, 2.0), (20.0, 5.0, -3.0)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_moments_of_a_gaussian_are_its_own(shape, sign):
    row = adaptive(sign * gaussian(*shape, 40.3, 39.8), 40.3, 39.8, sign)
    assert row[:3] == pytest.approx(np.array(shape), rel=0.01, abs=0.02)
    assert not row[3]


def test_moments_agree_with_plain_numpy():
    image = gaussian(6, 4, 1, 40.2, 40.1) + 0.3 * gaussian(30, 20, -4, 40.2, 40.1)
    assert adaptive(image, 40.2, 40.1)[:3] == pytest.approx(plain(image, 40.2, 40.1), rel=0.01)


def test_noise_without_a_source_and_places_off_the_image_fail():
    assert adaptive(-np.ones((41, 41)), 20.0, 20.0)[3]
    assert adaptive(np.ones((41, 41)), 90.0, 20.0)[3:].tolist() == [1.0, 1.0]
    assert adaptive(gaussian(4, 4, 0, 2.0, 20.0, 41), 2.0, 20.0)[4]
