"""How amplifiers lie on a detector, and what a raw exposure and its calibrations must have."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.exposure import Visit
from schemas.raw import AMPLIFIERS, RawExposure, Readout
from schemas.wcs import Wcs

E2V = Readout(2002, 512, 10, 54, 46, upper_flip=False)
ITL = Readout(2000, 509, 3, 64, 48, upper_flip=True)


@given(st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_splitting_and_assembling_gives_the_image_back(rows: int, columns: int, flip: bool) -> None:
    readout = Readout(rows, columns, 2, 3, 1, flip)
    image = np.arange(np.prod(readout.shape)).reshape(readout.shape)
    assert np.array_equal(readout.assemble(readout.split(image)), image)


def test_sensors_have_their_published_sizes() -> None:
    assert E2V.shape == (4004, 4096)
    assert E2V.raw_shape == (2048, 576)
    assert ITL.shape == (4000, 4072)
    assert ITL.raw_shape == (2048, 576)


@pytest.mark.parametrize(("readout", "name", "corner"), [
    (E2V, "C10", (0, 511)), (E2V, "C17", (0, 4095)), (E2V, "C00", (4003, 0)), (E2V, "C07", (4003, 3584)),
    (ITL, "C10", (0, 508)), (ITL, "C00", (3999, 508)), (ITL, "C07", (3999, 4071))])
def test_the_pixel_read_first_lies_where_obs_lsst_has_it(readout: Readout, name: str, corner: tuple[int, int]) -> None:
    image = np.zeros(readout.shape, np.int8)
    image[corner] = 1
    assert np.argwhere(readout.split(image)).tolist() == [[AMPLIFIERS.index(name), 0, 0]]


def test_amplifiers_of_another_shape_are_refused() -> None:
    visit = Visit(1, "r", 0.0, 0.0, 0.0, 60000.0, 30.0)
    with pytest.raises(ValueError, match=r"amplifiers must be \(16, 2048, 576\), got \(16, 2, 2\)"):
        RawExposure(visit, 94, np.zeros((16, 2, 2), np.int32), E2V, Wcs.tangent(0, 0, (4, 4)), 30.0)
