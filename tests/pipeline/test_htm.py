"""HTM indexes against sphgeom's, and ranges that cover what they should."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.htm import MAX_RANGES, htm_index, htm_ranges
from schemas.exposure import Box

# RA, Dec and index at level 20, by lsst-sphgeom's HtmPixelization(20): borders and corners of the roots included.
KNOWN = [
    (0.0, 0.0, 17042430230528), (90.0, 0.0, 16492674416640), (180.0, 0.0, 15393162788864),
    (270.0, 0.0, 14293651161088), (0.0, 90.0, 16767552323584), (0.0, -90.0, 9070970929152),
    (45.0, 0.0, 17111149707264), (0.0, 45.0, 17179869184000), (359.999, -1e-09, 12644383719524),
    (123.4, -30.1, 10942162119730), (53.1, -28.1, 9876770845853), (150.1, 2.2, 15559761022814),
    (12.3, 88.8, 16768502031925)]
SPHERE_DEG2 = 360.0**2 / np.pi


def test_indexes_are_sphgeoms():
    ra, dec, expected = zip(*KNOWN, strict=True)
    assert htm_index(np.array(ra), np.array(dec)).tolist() == list(expected)
    assert htm_index(np.array(ra), np.array(dec), 7).tolist() == [index >> 26 for index in expected]


def test_a_place_that_is_none_has_no_index():
    assert htm_index(np.array([np.nan, 10.0, 370.0]), np.array([0.0, np.inf, 5.0])).tolist()[:2] == [0, 0]
    assert htm_index(np.array([370.0]), np.array([5.0])) == htm_index(np.array([10.0]), np.array([5.0]))


def covered(box, ranges, ra, dec):
    index = htm_index(ra, dec)
    place = np.searchsorted(ranges[:, 0], index, side="right") - 1
    return (place >= 0) & (index <= ranges[np.maximum(place, 0), 1])


@given(st.floats(0, 359.99), st.floats(0.001, 360.0), st.floats(-90, 89.9), st.floats(0.001, 180.0),
       st.integers(0, 2**31))
def test_ranges_cover_the_box(ra_min, width, dec_min, height, seed):
    box = Box(ra_min, (ra_min + width) % 360.0 if width < 360.0 else ra_min + 360.0, dec_min,
              min(90.0, dec_min + height))
    if width >= 360.0:
        box = Box(0.0, 360.0, box.dec_min, box.dec_max)
    ranges = htm_ranges(box)
    assert 0 < len(ranges) <= MAX_RANGES
    assert (ranges[1:, 0] > ranges[:-1, 1] + 1).all()
    u = np.random.default_rng(seed).random((2, 200))
    u[:, :4] = [[0, 0, 1, 1], [0, 1, 0, 1]]              # the corners too
    span = (box.ra_max - box.ra_min) % 360.0 or 360.0
    ra, dec = (box.ra_min + u[0] * span) % 360.0, box.dec_min + u[1] * (box.dec_max - box.dec_min)
    inside = box.contains(ra, dec)
    assert covered(box, ranges, ra[inside], dec[inside]).all()


@pytest.mark.parametrize("box", [
    Box(10.0, 10.25, -30.2, -30.0), Box(359.9, 0.1, -1.0, 1.0), Box(0.0, 360.0, 89.0, 90.0),
    Box(0.0, 360.0, -90.0, -89.5), Box(100.0, 104.0, 60.0, 62.0)])
def test_ranges_cover_little_more(box):
    ranges = htm_ranges(box)
    width = (box.ra_max - box.ra_min) % 360.0 or 360.0
    area = np.degrees(np.sin(np.radians(box.dec_max)) - np.sin(np.radians(box.dec_min))) * width
    assert area <= (ranges[:, 1] - ranges[:, 0] + 1).sum() / (8 * 4.0**20) * SPHERE_DEG2 < 3 * area
    far = covered(box, ranges, np.array([200.0]), np.array([20.0]))
    assert not far.any()


def test_the_whole_sky_is_one_range_and_too_few_ranges_are_refused():
    assert htm_ranges(Box(0.0, 360.0, -90.0, 90.0)).tolist() == [[8 << 40, (16 << 40) - 1]]
    with pytest.raises(ValueError, match="max_ranges must be 8 or more, got 3"):
        htm_ranges(Box(0.0, 1.0, 0.0, 1.0), max_ranges=3)
