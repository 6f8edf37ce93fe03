"""Sums over footprints and circles against their plain forms."""

import numpy as np
import sep

from pipeline.kernels import footprints


def labelled() -> tuple[np.ndarray, np.ndarray]:
    labels = np.zeros((40, 50), np.int32)
    labels[5:9, 10:15], labels[7:12, 13:22], labels[30:, 40:] = 1, 2, 3
    return labels, np.array([[10, 5, 14, 8], [13, 7, 21, 11], [40, 30, 60, 45], [0, 0, 5, 5]], np.int32)


def test_bits_are_those_of_all_pixels_of_a_footprint():
    labels, boxes = labelled()
    bits = np.random.default_rng(1).choice([0, 0, 0, 1, 2, 4], labels.shape).astype(np.int32)
    expected = [np.bitwise_or.reduce(bits[labels == k], initial=0) for k in (1, 2, 3, 4)]
    assert footprints.bits_of(labels, bits, boxes).tolist() == expected


def test_moments_are_those_of_the_pixels_above_one():
    labels, boxes = labelled()
    plane = np.random.default_rng(2).normal(0, 5, labels.shape).astype(np.float32)
    sums = footprints.moments_of(labels, plane, boxes[:2], np.array([1, 2], np.int32), np.array([1.0, -1.0]))
    for i, sign in enumerate((1, -1)):
        y, x = np.nonzero(labels == i + 1)
        w = np.maximum(sign * plane[y, x].astype(float) - 1, 0)
        u, v = x - boxes[i, 0], y - boxes[i, 1]
        assert np.allclose(sums[i], [(w * t).sum() for t in (1, u, v, u * u, v * v, u * v)])


def test_circles_are_those_of_sep():
    rng = np.random.default_rng(3)
    image, variance = rng.normal(5, 1, (60, 70)).astype(np.float32), rng.uniform(1, 2, (60, 70)).astype(np.float32)
    mask = (rng.random((60, 70)) < 0.05).astype(np.int32)
    image[20, 30] = np.nan
    x, y = rng.uniform(-3, 72, 40), rng.uniform(-3, 62, 40)
    bad = (mask > 0) | ~np.isfinite(image)
    flux, error, _ = sep.sum_circle(np.where(bad, np.float32(0), image), x, y, 12.0,
                                    var=np.where(bad, np.float32(0), variance), subpix=5)
    lost = sep.sum_circle(bad.astype(np.float32), x, y, 12.0, subpix=5)[0]
    found = footprints.circles(image, variance, mask, 1, x, y, 12.0, 5)
    assert np.allclose(found, np.column_stack([flux, error**2, lost]), rtol=1e-5, atol=1e-5)
