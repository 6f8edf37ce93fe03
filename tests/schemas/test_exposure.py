"""Magnitudes, and the exposure's own checks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.exposure import Exposure, Visit, fluxes_njy, magnitudes
from schemas.mask import PLANES, names
from schemas.wcs import Wcs

VISIT = Visit(2026010100001, "r", 10.0, -5.0, 0.0, 61041.0, 30.0)
EXPOSURE = Exposure(VISIT, 94, np.zeros((4, 5), np.float32), np.zeros((4, 5), np.int32), Wcs.tangent(10, -5, (4, 5)),
                    1.5, 6.0, 60000.0)


@given(st.floats(-5, 35))
def test_magnitudes_undo_fluxes(magnitude: float) -> None:
    assert float(magnitudes(fluxes_njy(magnitude))) == pytest.approx(magnitude, abs=1e-9)


def test_zero_magnitude_is_3631_jansky_and_no_flux_has_none() -> None:
    assert float(fluxes_njy(0.0)) == pytest.approx(3631e9, rel=1e-4)
    assert np.isnan(magnitudes(np.array([0.0, -3.0]))).all()


def test_the_shutter_closes_half_an_exposure_after_the_midpoint() -> None:
    assert (VISIT.shutter_close_mjd_tai - VISIT.mjd_tai) * 86400 == pytest.approx(15.0, abs=1e-4)


def test_exposures_check_their_shape_and_gain() -> None:
    assert EXPOSURE.shape == (4, 5)
    with pytest.raises(ValueError, match="one two-dimensional shape"):
        replace(EXPOSURE, mask=np.zeros((4, 4), np.int32))
    with pytest.raises(ValueError, match="gain must be positive, got 0"):
        replace(EXPOSURE, gain=0.0)


def test_planes_have_a_bit_each() -> None:
    assert len(set(PLANES.values())) == len(PLANES)
    assert all(bit & (bit - 1) == 0 for bit in PLANES.values())
    assert names(PLANES["SAT"] | PLANES["BAD"]) == ("BAD", "SAT")
