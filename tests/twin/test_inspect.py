"""Windows around positions."""

import numpy as np

from twin.inspect import _around, _first


def test_windows_are_centred_on_the_nearest_pixel_and_filled_off_the_plane() -> None:
    plane = np.arange(30.0).reshape(5, 6)
    found = _around(plane, np.array([2.4, 0.0, 5.0, -3.0]), np.array([1.6, 0.0, 4.0, 2.0]), 1, fill=np.nan)
    np.testing.assert_array_equal(found[0], plane[1:4, 1:4])
    assert np.isnan(found[1][0]).all()
    np.testing.assert_array_equal(found[1][1:, 1:], plane[:2, :2])
    np.testing.assert_array_equal(found[2][:2, :2], plane[3:, 4:])
    assert np.isnan(found[3][:, :2]).all()


def test_the_most_surprising_come_first_and_the_rest_is_spread() -> None:
    chosen = _first(np.array([1.0, 9.0, -np.inf, 5.0, 4.0, 3.0, 2.0]), 4)
    assert chosen.tolist() == [1, 3, 4, 0]
    assert len(_first(np.full(3, -np.inf), 4)) == 0
