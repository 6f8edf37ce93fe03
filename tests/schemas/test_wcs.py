"""FITS WCS arithmetic against astropy, whose wcslib is the reference implementation."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.wcs import Wcs

SIP = Wcs((511.5, 300.25), (210.3, -45.2), (-5.5e-5, 4e-6, 4e-6, 5.5e-5), "TAN-SIP",
          ((2, 0, 0, 2e-6), (0, 2, 0, -1e-6), (1, 1, 0, 5e-7), (3, 0, 0, 1e-9)), ((2, 0, 0, 1e-6), (1, 2, 0, -2e-10)))
TPV = Wcs((-580.0, -6950.0), (316.8366, -65.9662), (-4e-7, 7.3e-5, -7.3e-5, -4e-7), "TPV",
          ((0, 0, 0, -2.2e-3), (1, 0, 0, 1.0097), (0, 1, 0, -3.8e-4), (2, 0, 0, -7.7e-3), (0, 2, 0, -1.6e-3),
           (3, 0, 0, 1.3e-3), (0, 0, 1, 1e-5)),
          ((0, 0, 0, 2.6e-4), (1, 0, 0, -2.9e-4), (0, 1, 0, 1.0062), (0, 2, 0, -1.1e-3), (0, 3, 0, -6.3e-3),
           (1, 2, 0, 6.3e-4)))
TAN = Wcs((500.0, 400.0), (359.9999, 5.0), (-4e-5, 3e-5, 3e-5, 4e-5))


def astropy_wcs(header: Any) -> WCS:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        return WCS(header)


def distance_arcsec(ra: np.ndarray, dec: np.ndarray, ra0: np.ndarray, dec0: np.ndarray) -> np.ndarray:
    east = ((ra - ra0 + 180) % 360 - 180) * np.cos(np.radians(dec0))
    return np.asarray(np.hypot(east, dec - dec0) * 3600)


@pytest.mark.parametrize("wcs", [TAN, SIP, TPV], ids=lambda w: w.kind)
def test_sky_and_pixels_are_those_of_wcslib(wcs: Wcs) -> None:
    x, y = np.random.default_rng(1).uniform(0, 1000, (2, 200))
    reference = astropy_wcs(fits.Header(wcs.header()))
    ra0, dec0 = reference.all_pix2world(x, y, 0)
    ra, dec = wcs.sky(x, y)
    assert distance_arcsec(ra, dec, ra0, dec0).max() < 1e-6
    back = wcs.pixels(ra0, dec0)
    assert np.hypot(back[0] - x, back[1] - y).max() < 1e-6


@pytest.mark.parametrize("wcs", [TAN, SIP, TPV], ids=lambda w: w.kind)
def test_headers_make_a_round_trip(wcs: Wcs) -> None:
    again = Wcs.from_header(fits.Header(wcs.header()))
    x, y = np.random.default_rng(1).uniform(0, 1000, (2, 50))
    assert distance_arcsec(*again.sky(x, y), *wcs.sky(x, y)).max() < 1e-7
    assert again.kind == wcs.kind


@pytest.mark.parametrize("name", ["OBS04a", "OBS18b"])
def test_a_real_distorted_header_is_read(shared_data: Path, name: str) -> None:
    with fits.open(shared_data / "decam" / f"DEC-{name}.mini.fits") as hdus:
        header = hdus[0].header
    x, y = np.meshgrid(np.linspace(0, 255, 9), np.linspace(0, 255, 9))
    wcs = Wcs.from_header(header)
    assert wcs.kind == "TPV"
    assert wcs.scale_arcsec == pytest.approx(0.263, abs=0.003)
    ra0, dec0 = astropy_wcs(header).all_pix2world(x, y, 0)
    assert distance_arcsec(*wcs.sky(x, y), ra0, dec0).max() < 1e-5
    back = wcs.pixels(*wcs.sky(x, y))
    assert np.hypot(back[0] - x, back[1] - y).max() < 1e-6


@settings(deadline=None, max_examples=60)
@given(ra=st.floats(0, 359.99), dec=st.floats(-89, 89), rotation=st.floats(-180, 180), scale=st.floats(0.1, 1.0),
       x=st.floats(-500, 4500), y=st.floats(-500, 4500))
def test_pixels_undo_sky_everywhere(ra: float, dec: float, rotation: float, scale: float, x: float, y: float) -> None:
    wcs = Wcs.tangent(ra, dec, (4000, 4072), scale_arcsec=scale, rotation=rotation)
    back = wcs.pixels(*wcs.sky(x, y))
    assert np.hypot(back[0] - x, back[1] - y) < 1e-5
    assert wcs.scale_arcsec == pytest.approx(scale)


def test_rotation_turns_the_vertical_east_of_north() -> None:
    for rotation in (0.0, 30.0, 90.0, -120.0):
        wcs = Wcs.tangent(150.0, 0.0, (101, 101), rotation=rotation)
        ra, dec = wcs.sky(np.array([50.0, 50.0]), np.array([50.0, 60.0]))
        assert np.degrees(np.arctan2(ra[1] - ra[0], dec[1] - dec[0])) == pytest.approx(rotation, abs=1e-3)
    ra, _ = Wcs.tangent(150.0, 0.0, (101, 101)).sky(np.array([0.0, 100.0]), np.array([50.0, 50.0]))
    assert ra[0] > ra[1]        # +x is West


def test_the_jacobian_is_the_derivative() -> None:
    j = SIP.jacobian(300.0, 700.0)
    (ra, dec), (ra0, dec0) = SIP.sky(301.0, 702.0), SIP.sky(300.0, 700.0)
    east = (ra - ra0) * np.cos(np.radians(dec0))
    np.testing.assert_allclose(j @ [1.0, 2.0], [east, dec - dec0], rtol=2e-3, atol=1e-8)


def test_a_cutout_keeps_its_sky() -> None:
    for wcs in (TAN, SIP, TPV):
        part = wcs.shifted(37, -12)
        assert distance_arcsec(*part.sky(10.0, 20.0), *wcs.sky(47.0, 8.0)) < 1e-8


def test_points_behind_the_tangent_plane_have_no_pixel() -> None:
    x, y = TAN.pixels(np.array([180.0, 0.0]), np.array([-5.0, 5.0]))
    assert np.isnan(x[0])
    assert np.isnan(y[0])
    assert np.isfinite(x[1])


@pytest.mark.parametrize(("change", "message"), [
    ({"CTYPE1": None}, "lacks CTYPE1"),
    ({"CTYPE1": "GLON-TAN"}, "must be RA and DEC"),
    ({"CTYPE1": "RA---ZEA", "CTYPE2": "DEC--ZEA"}, "must be TAN, TAN-SIP or TPV"),
    ({"CD1_1": 0.0, "CD1_2": 0.0}, "singular")])
def test_headers_that_cannot_be_used_are_named(change: dict[str, Any], message: str) -> None:
    header = TAN.header() | change
    with pytest.raises(ValueError, match=message):
        Wcs.from_header({k: v for k, v in header.items() if v is not None})


def test_old_scamp_headers_and_pc_matrices_are_read() -> None:
    header = TPV.header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    assert Wcs.from_header(header).kind == "TPV"
    pc = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 11.0, "CRPIX2": 21.0, "CRVAL1": 10.0, "CRVAL2": 20.0,
          "CDELT1": -1e-4, "CDELT2": 2e-4, "PC1_1": 0.8, "PC1_2": 0.6, "PC2_1": -0.6, "PC2_2": 0.8}
    ra0, dec0 = astropy_wcs(fits.Header(pc)).all_pix2world([5.0, 90.0], [6.0, 40.0], 0)
    ra, dec = Wcs.from_header(pc).sky(np.array([5.0, 90.0]), np.array([6.0, 40.0]))
    assert distance_arcsec(ra, dec, ra0, dec0).max() < 1e-6
