"""The kernels of the coadd against their plain forms."""

import numpy as np
from scipy import ndimage

from pipeline.kernels import coadd
from schemas import mask as planes

SHAPE = (6, 40, 51)


def stack(seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 1, SHAPE).astype(np.float32), rng.uniform(1, 2, SHAPE).astype(np.float32),
            rng.random(SHAPE) > 0.3)


def test_medians_are_of_the_good_pixels() -> None:
    images, _, good = stack()
    good[:, 3, 4] = False
    out = np.empty(SHAPE[1:], np.float32)
    coadd.median(images, good, out)
    expected = np.ma.median(np.ma.array(images, mask=~good), axis=0).filled(0)
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_of_two_visits_the_brighter_deviates() -> None:
    images, _, good = stack()
    middle, count = images.mean(axis=0), good.sum(axis=0).astype(np.int16)
    out = np.empty(SHAPE[1:], np.float32)
    coadd.deviation(images[0], middle, good[0], count, out)
    d = images[0] - middle
    np.testing.assert_allclose(out, np.where(good[0], np.where(count == 2, np.maximum(d * np.sqrt(2), 0), d), 0),
                               rtol=1e-5, atol=1e-6)


def test_the_blur_is_scipys() -> None:
    images, *_ = stack()
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    for plane in (images[0], images[0][:3].copy()):
        out = np.empty_like(plane)
        coadd.blur(plane, taps, out)
        np.testing.assert_allclose(out, ndimage.gaussian_filter(plane, 1.5, radius=5), atol=1e-6)


def test_what_is_rejected_is_a_core_with_what_hangs_together_with_it() -> None:
    rng = np.random.default_rng(2)
    difference = rng.normal(0, 1, (60, 70)).astype(np.float32)
    difference[20, 10:40] += 30
    difference[20, 40:50] += 7
    difference[40, 50] += 30
    smooth = ndimage.gaussian_filter(difference, 1.5)
    variance, good = np.ones_like(difference), rng.random((60, 70)) > 0.02
    bright = np.zeros_like(difference)
    bright[:, 38:] = 10.0
    steep, smooth_bright = 0.1 * bright, 0.5 * bright
    limits = np.array([5.0, 0.3, 0.4, 0.2, 1.0], np.float32)
    left = good.copy()
    coadd.reject(difference, smooth, variance, bright, steep, smooth_bright, np.empty_like(difference), limits, left)
    sharp = np.abs(difference) - 5 - 0.3 * steep
    broad = np.abs(smooth) - 5 * 0.4 - 0.2 * smooth_bright
    odd = ((sharp > 0) | (broad > 0)) & good
    core = ((sharp > bright) | (broad > smooth_bright)) & good
    core = ndimage.binary_dilation(core, iterations=5, mask=odd | core)
    near = ndimage.binary_dilation(core, iterations=2)
    found = ndimage.binary_dilation(core) | (near & (np.abs(difference) > 1.5 + 0.3 * steep))
    np.testing.assert_array_equal(left, good & ~found)
    assert found.sum() > 60


def test_means_are_weighted_and_saturated_cores_keep_a_value() -> None:
    images, variances, good = stack()
    masks = np.where(good, 0, planes.BAD).astype(np.int32)
    masks[:, 5, 6], good[:, 5, 6] = planes.SAT, False
    masks[:, 7, 8], good[:, 7, 8] = planes.NO_DATA, False
    masks[2, 9, 9] |= planes.SUSPECT
    good[2, 9, 9] = True
    weights = np.linspace(1, 2, len(images))
    image, variance = np.empty((30, 51), np.float32), np.empty((30, 51), np.float32)
    mask, count = np.empty((30, 51), np.int32), np.empty((30, 51), np.int16)
    coadd.mean(images, variances, masks, good, weights, planes.NO_DATA, planes.SAT, planes.SUSPECT, 1 / 3, 4, image,
               variance, mask, count)
    used = good.copy()
    used[:, 5, 6] = True
    w = (weights[:, None, None] * used)[:, 4:34]
    total = w.sum(axis=0)
    safe = np.where(total > 0, total, 1)
    np.testing.assert_allclose(image, (w * images[:, 4:34]).sum(axis=0) / safe, atol=1e-5)
    np.testing.assert_allclose(variance, (w**2 * variances[:, 4:34]).sum(axis=0) / safe**2, rtol=1e-5)
    np.testing.assert_array_equal(count, good[:, 4:34].sum(axis=0))
    assert mask[1, 6] == planes.SAT
    assert mask[3, 8] == planes.NO_DATA
    assert mask[5, 9] == planes.SUSPECT
    np.testing.assert_array_equal((mask & planes.NO_DATA) != 0, total == 0)
