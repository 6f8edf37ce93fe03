"""Cutouts: sides, centres, borders."""

import numpy as np

from pipeline.cutouts import cut
from pipeline.psf import Psf
from schemas import mask
from schemas.measures import MEASUREMENT, empty
from tests.pipeline.fields import psf_stamp

SHAPE = (120, 150)
IMAGE = np.arange(120 * 150, dtype=np.float32).reshape(SHAPE)
PSF = Psf.constant(psf_stamp(41, 4.0), SHAPE)


def sources(*places: tuple[float, float, int]) -> np.ndarray:
    rows = empty(MEASUREMENT, len(places))
    for name, values in zip(("x", "y", "bboxSize"), zip(*places, strict=True), strict=True):
        rows[name] = values
    return rows


def test_sides_are_clamped_and_the_middle_pixel_is_the_centroids():
    stamps = cut(IMAGE, IMAGE + 1, PSF, sources((70.4, 60.6, 10), (70.0, 60.0, 51), (75.0, 60.0, 500)))
    assert [s.shape for s in stamps.image] == [(30, 30), (51, 51), (102, 102)]
    assert stamps.image[0][15, 15] == IMAGE[61, 70]
    assert stamps.image[1][25, 25] == IMAGE[60, 70]
    assert stamps.image[2][51, 51] == IMAGE[60, 75]
    assert np.array_equal(stamps.variance[0], stamps.image[0] + 1)
    assert all(s.dtype == np.float32 for s in stamps.image)
    assert len(stamps) == 3


def test_pixels_off_the_image_are_nan():
    stamp = cut(IMAGE, IMAGE, PSF, sources((0.0, 60.0, 30))).image[0]
    assert np.isnan(stamp[:, :15]).all()
    assert np.array_equal(stamp[:, 15:], IMAGE[45:75, :15])
    corner = cut(IMAGE, IMAGE, PSF, sources((149.4, 119.4, 30))).image[0]
    assert np.isfinite(corner).sum() == 16 * 16


def test_a_centroid_off_the_image_is_null():
    stamps = cut(IMAGE, IMAGE, PSF, sources((-0.6, 60.0, 30), (149.6, 60.0, 30), (np.nan, 60.0, 30), (10.0, 10.0, 30)))
    assert [s.shape for s in stamps.image] == [(0, 0), (0, 0), (0, 0), (30, 30)]


def test_the_psf_is_the_central_one_for_all():
    assert np.array_equal(cut(IMAGE, IMAGE, PSF, sources((10.0, 10.0, 30))).psf, PSF.central)


def test_no_sources_give_no_stamps():
    assert len(cut(IMAGE, IMAGE, PSF, empty(MEASUREMENT, 0))) == 0


def test_a_stamp_of_the_mask_lies_where_the_image_s_does():
    bits = np.arange(IMAGE.size, dtype=np.int32).reshape(IMAGE.shape)
    stamps = cut(IMAGE, IMAGE, PSF, sources((70.4, 60.6, 10), (0.0, 60.0, 30), (-0.6, 60.0, 30)), mask=bits)
    assert stamps.mask[0].dtype == np.int32
    assert stamps.mask[0][15, 15] == bits[61, 70]
    inside = np.isfinite(stamps.image[1])
    assert (stamps.mask[1][~inside] == mask.NO_DATA).all()
    assert (~inside).any()
    assert np.array_equal(stamps.mask[1][inside].reshape(30, -1), bits[45:75, :15])
    assert stamps.mask[2].shape == (0, 0)
    assert cut(IMAGE, IMAGE, PSF, sources((70.4, 60.6, 10))).mask == ()
