"""Positions as unit vectors know neither the seam at RA 0 nor the poles."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sphere import angles_arcsec, chord, east_north, offsets_arcsec, positions, unit_vectors

RA = st.floats(0, 360, exclude_max=True)
DEC = st.floats(-90, 90)


@given(RA, DEC)
def test_positions_come_back_from_their_vectors(ra: float, dec: float) -> None:
    back_ra, back_dec = positions(unit_vectors(np.array([ra]), np.array([dec])))
    assert abs(back_dec[0] - dec) < 1e-7
    assert abs((back_ra[0] - ra + 180) % 360 - 180) * np.cos(np.radians(dec)) < 1e-9
    assert 0 <= back_ra[0] < 360


@given(RA, DEC, st.floats(0, 100))
def test_a_chord_has_the_angle_it_was_made_from(ra: float, dec: float, arcsec: float) -> None:
    assert abs(angles_arcsec(np.array([chord(arcsec)]))[0] - arcsec) < 1e-6
    east, north = east_north(np.array([ra]), np.array([dec]))
    there = unit_vectors(np.array([ra]), np.array([dec])) + east * arcsec / 206264.806247
    east_off, north_off = offsets_arcsec(np.array([ra]), np.array([dec]), *positions(there))
    assert abs(east_off[0] - arcsec) < 1e-4
    assert abs(north_off[0]) < 1e-4
    assert abs(np.sum(east * north)) < 1e-12


def test_offsets_cross_ra_zero_and_the_pole() -> None:
    east, north = offsets_arcsec(np.array([359.9999]), np.array([0.0]), np.array([0.0001]), np.array([0.0]))
    np.testing.assert_allclose([east[0], north[0]], [0.72, 0.0], atol=1e-6)
    over = offsets_arcsec(np.array([10.0]), np.array([89.9999]), np.array([190.0]), np.array([89.9999]))
    np.testing.assert_allclose(np.hypot(*over), 0.72, atol=1e-6)
