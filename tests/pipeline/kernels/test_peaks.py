"""Hills and growth against their plain forms."""

import numpy as np
from scipy import ndimage

from pipeline.kernels import peaks


def hills(plane: np.ndarray, threshold: float, drop: float, fraction: float = 0.0, contrast: float = 0.0,
          low: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    flat = np.flatnonzero(plane > low)
    flat = flat[np.argsort(-plane.ravel()[flat], kind="stable")]
    labels = np.zeros(plane.shape, np.int32)
    top = peaks.separate(plane.ravel()[flat].astype(np.float32), flat, labels, threshold, drop, fraction, contrast)
    return labels, flat[top]


def plain_persistence(plane: np.ndarray, threshold: float, drop: float, low: float) -> int:
    """Number of maxima that stand `drop` above the level at which they join a higher one, by thresholding."""
    count = 0
    tops = np.argwhere((plane == ndimage.maximum_filter(plane, 3)) & (plane >= threshold))
    for y, x in tops:
        peak = plane[y, x]
        labels, _ = ndimage.label(plane > max(peak - drop, low), np.ones((3, 3)))
        if plane[labels == labels[y, x]].max() <= peak:
            count += 1
    return count


def test_hills_are_those_found_by_thresholding_at_every_level():
    rng = np.random.default_rng(1)
    for _ in range(20):
        plane = 8 * ndimage.gaussian_filter(rng.normal(size=(60, 60)), 2.0).astype(np.float32)
        _, top = hills(plane, 1.5, 0.8)
        assert len(top) == plain_persistence(plane, 1.5, 0.8, 0.5)


def test_every_labelled_pixel_belongs_to_one_connected_hill_with_its_peak():
    rng = np.random.default_rng(2)
    plane = 8 * ndimage.gaussian_filter(rng.normal(size=(80, 80)), 2.0).astype(np.float32)
    labels, top = hills(plane, 1.5, 0.8)
    for i, at in enumerate(top):
        assert labels.ravel()[at] == i + 1
        assert plane[labels == i + 1].max() == plane.ravel()[at]
        assert ndimage.label(labels == i + 1, np.ones((3, 3)))[1] == 1


def test_a_faint_neighbour_of_a_bright_peak_is_swallowed_by_contrast():
    plane = np.zeros((9, 30), np.float32)
    plane[4, 5], plane[4, 6:20], plane[4, 20] = 1000.0, 1.0, 20.0
    assert len(hills(plane, 5.0, 3.0)[1]) == 2
    assert len(hills(plane, 5.0, 3.0, contrast=0.03)[1]) == 1


def test_growth_is_the_distance_transform():
    rng = np.random.default_rng(3)
    seeds = np.zeros((60, 60), np.int32)
    at = rng.choice(3600, 12, replace=False)
    seeds.ravel()[at] = np.arange(1, 13)
    labels, distance = np.zeros_like(seeds), np.full(seeds.shape, 32767, np.int16)
    peaks.grow(seeds, np.sort(at), np.arange(13, dtype=np.int32), 6, labels, distance)
    away, (i, j) = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    assert np.array_equal(labels > 0, away <= 6)
    # where two seeds are equally near either may have the pixel
    assert np.all(distance[labels > 0] == np.rint(away[labels > 0] ** 2))
    assert np.mean(labels[labels > 0] == seeds[i, j][labels > 0]) > 0.9
