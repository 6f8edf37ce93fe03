"""Lines across images against their plain forms."""

import numpy as np

from pipeline.kernels import lines


def test_most_points_vote_for_the_line_they_lie_on():
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 400, (2, 300))
    along = rng.integers(0, 400, 120)
    x, y = np.concatenate([x, along]), np.concatenate([y, np.rint(0.5 * along + 80).astype(int)])
    angles = np.arange(180) * np.pi / 180
    found = lines.strongest(x, y, np.cos(angles), np.sin(angles), 600.0, 8.0, 200)
    counts = []
    for a in angles:      # the plain form
        votes = np.bincount(((x * np.cos(a) + y * np.sin(a) + 600.0) / 8.0).astype(int), minlength=200)
        counts.append(votes[:-1] + votes[1:])
    counts = np.array(counts)
    assert found[2] == counts.max()
    assert counts[found[0], found[1]] == counts.max()
    assert abs(np.degrees(angles[found[0]]) - 116.6) < 2        # the normal of a slope of 0.5


def test_a_profile_is_the_sum_along_parallels():
    rng = np.random.default_rng(2)
    plane, usable = rng.normal(0, 8, (80, 100)).astype(np.float32), rng.random((80, 100)) > 0.1
    angle, distance = 0.4, 60.0
    sums = lines.across(plane, usable, angle, distance, 130.0, 2.0, 10, -5.0, 10.0)
    steps = np.arange(-130.0, 130.0, 2.0)
    for i, offset in enumerate(range(-10, 11)):
        u = np.rint((distance + offset) * np.cos(angle) - steps * np.sin(angle)).astype(int)
        v = np.rint((distance + offset) * np.sin(angle) + steps * np.cos(angle)).astype(int)
        on = (u >= 0) & (u < 100) & (v >= 0) & (v < 80)
        on[on] = usable[v[on], u[on]]
        assert sums[i, 1] == on.sum()
        assert np.isclose(sums[i, 0], np.clip(plane[v[on], u[on]], -5, 10).sum())


def test_marked_pixels_are_those_near_the_line():
    y, x = np.mgrid[:70, :90]
    for angle, distance in ((0.3, 40.0), (np.pi / 2, 20.0), (2.5, -10.0), (0.0, 33.0), (0.1, 500.0)):
        bits = np.full((70, 90), 2, np.int32)
        lines.mark(bits, angle, distance, 4.5, 4)
        near = np.abs(x * np.cos(angle) + y * np.sin(angle) - distance) <= 4.5
        assert np.array_equal(bits, np.where(near, 6, 2))
