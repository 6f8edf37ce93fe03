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


def disc(radius: int) -> np.ndarray:
    dy, dx = (g.ravel() for g in np.mgrid[-radius:radius + 1, -radius:radius + 1])
    square = dy**2 + dx**2
    order = np.argsort(square, kind="stable")[1:(square <= radius**2).sum()]
    return np.column_stack([square, dy, dx])[order]


def test_growth_is_the_distance_transform():
    rng = np.random.default_rng(3)
    seeds = np.zeros((60, 60), np.int32)
    at = np.sort(rng.choice(3600, 12, replace=False))
    seeds.ravel()[at] = np.arange(1, 13)
    seeds[30:37, 30:37] = 13
    flat = np.flatnonzero(seeds)
    labels, bits = np.zeros_like(seeds), np.zeros_like(seeds)
    boxes, area = np.tile(np.array([60, 60, -1, -1], np.int32), (14, 1)), np.zeros(14, np.int32)
    bit = np.where(seeds.ravel()[flat] % 2 == 0, 4, 8).astype(np.int32)
    peaks.grow(flat, seeds.ravel()[flat], bit, disc(6), labels, bits, boxes, area)
    away, (i, j) = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    assert np.array_equal(labels > 0, away <= 6)
    # where two seeds are equally near either may have the pixel
    assert np.mean(labels[labels > 0] == seeds[i, j][labels > 0]) > 0.9
    of_label = [ndimage.distance_transform_edt(seeds != k) for k in range(14)]
    assert np.all(np.choose(labels, of_label)[labels > 0] == away[labels > 0])
    for value, odd in ((4, 0), (8, 1)):
        mine = np.min([of_label[k] for k in range(1, 14) if k % 2 == odd], axis=0)
        assert np.array_equal((bits & value) != 0, mine <= 6)
    assert np.array_equal(area[1:], np.bincount(labels.ravel(), minlength=14)[1:])
    for k, box in enumerate(ndimage.find_objects(labels), 1):
        assert boxes[k].tolist() == [box[1].start, box[0].start, box[1].stop - 1, box[0].stop - 1]
    peaks.erase(np.array([13], np.int32), boxes[13:], labels)
    assert np.array_equal(labels == 13, np.zeros_like(labels, bool))
    assert np.bincount(labels.ravel(), minlength=14)[1:13].tolist() == area[1:13].tolist()
