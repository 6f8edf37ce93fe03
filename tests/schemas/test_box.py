"""Boxes on the sky grow evenly, over RA 0 and around the poles."""

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.exposure import Box


@settings(max_examples=30)
@given(st.floats(0, 359.9), st.floats(-89, 89), st.floats(1, 3000), st.floats(0, 360), st.floats(0, 0.99))
def test_a_padded_box_holds_every_point_within_the_margin(ra: float, dec: float, margin: float, angle: float,
                                                          share: float) -> None:
    box = Box.around(np.array([ra, ra + 0.2]), np.array([dec - 0.1, dec + 0.1]))
    for corner in ((ra, dec - 0.1), (ra, dec + 0.1), (ra + 0.2, dec - 0.1), (ra + 0.2, dec + 0.1)):
        moved = SkyCoord(*corner, unit="deg").directional_offset_by(angle * u.deg, share * margin * u.arcsec)
        assert box.padded(margin).contains(moved.ra.deg, moved.dec.deg)


def test_padding_crosses_the_seam_and_closes_at_the_pole() -> None:
    assert Box(359.0, 359.999, 0.0, 1.0).padded(36.0).contains(np.array([0.005]), np.array([0.5]))[0]
    assert Box(0.001, 1.0, 0.0, 1.0).padded(36.0).contains(np.array([359.995]), np.array([0.5]))[0]
    polar = Box(10.0, 20.0, 89.0, 89.999).padded(36.0)
    assert (polar.ra_min, polar.ra_max, polar.dec_max) == (0.0, 360.0, 90.0)
    assert Box(0.0, 360.0, -10.0, 10.0).padded(36.0).contains(np.array([180.0]), np.array([10.005]))[0]


def test_no_margin_changes_nothing() -> None:
    box = Box(350.0, 10.0, -5.0, 5.0)
    assert box.padded(0.0) == box
