"""LSSTCam's detectors: where they lie, what they are, how their WCS bends."""

import numpy as np
import pytest
from astropy.wcs import WCS

from schemas.exposure import Visit
from simulators import camera, focalplane
from simulators.conditions import DARK_SKY, FIDUCIAL_FWHM_EFF, Conditions, m5
from simulators.config import CameraConfig


def test_a_hundred_and_eighty_nine_detectors_are_made_by_two_makers() -> None:
    vendors = [focalplane.sensor(d).vendor for d in focalplane.all_detectors()]
    assert len(vendors) == 189
    assert vendors.count("e2v") == 117
    assert vendors.count("ITL") == 72
    assert len(focalplane.active_detectors()) == 172


@pytest.mark.parametrize(("detector", "name", "x", "y"), [
    (0, "R01_S00", -169.25, -296.25), (94, "R22_S11", 0.0, 0.0), (120, "R30_S10", -296.25, 127.0),
    (35, "R10_S22", -211.75, -84.75), (188, "R43_S22", 169.25, 296.25)])
def test_names_and_places_are_those_of_obs_lsst(detector: int, name: str, x: float, y: float) -> None:
    assert focalplane.detector_name(detector) == name
    assert focalplane.detector_id(name) == detector
    assert focalplane.design_mm(detector) == (x, y)


def test_no_two_detectors_overlap() -> None:
    sensors = [focalplane.sensor(d) for d in focalplane.all_detectors()]
    x, y = np.array([s.x_mm for s in sensors]), np.array([s.y_mm for s in sensors])
    apart = np.maximum(np.abs(x[:, None] - x), np.abs(y[:, None] - y)) + 99.0 * np.eye(len(x))
    assert apart.min() > 41.0                       # [mm], and none is wider than 40.96


def test_amplifiers_scatter_about_the_published_medians() -> None:
    for vendor, gain, noise in (("e2v", 1.51, 5.40), ("ITL", 1.68, 6.21)):
        mine = [s for s in map(focalplane.sensor, focalplane.all_detectors()) if s.vendor == vendor]
        assert abs(np.median([s.gain for s in mine]) / gain - 1) < 4 * 0.015 / np.sqrt(len(mine))
        assert abs(np.median([s.read_noise for s in mine]) / noise - 1) < 4 * 0.02 / np.sqrt(len(mine))


def test_the_wcs_is_what_astropy_reads_from_its_header() -> None:
    wcs = focalplane.wcs(188, (4000, 4072), 30.0, -20.0, 35.0, 0.2)
    x, y = np.array([0.0, 4071.0, 2000.0]), np.array([0.0, 3999.0, 100.0])
    ra, dec = WCS(wcs.header()).all_pix2world(x, y, 0)
    got = wcs.sky(x, y)
    assert np.abs(np.hypot((got[0] - ra) * np.cos(np.radians(20.0)), got[1] - dec)).max() * 3600 < 1e-6
    assert np.allclose(wcs.pixels(*got), (x, y), atol=1e-5)


@pytest.mark.parametrize("name", ["R22_S11", "R43_S22", "R10_S00"])
def test_sources_are_displaced_outwards_by_the_cube_of_the_radius(name: str) -> None:
    detector = focalplane.detector_id(name)
    shape = focalplane.sensor(detector).shape
    wcs = focalplane.wcs(detector, shape, 0.0, 0.0, 0.0, 0.2)
    x, y = np.array([0.0, shape[1] - 1.0]), np.array([0.0, shape[0] - 1.0])
    ra, dec = np.radians(wcs.sky(x, y))
    plane = np.degrees(np.hypot(np.tan(ra), np.tan(dec) / np.cos(ra))) * 3600 / 0.2 * focalplane.PIXEL_MM
    seen = np.hypot(*focalplane.positions_mm(detector, x, y, shape))
    expected = plane * (1 + focalplane.DISTORTION * (plane / focalplane.FIELD_MM) ** 2)
    assert np.abs(seen - expected).max() < 2e-3 * focalplane.PIXEL_MM * 10
    assert (seen >= plane).all()


def test_light_falls_from_the_centre_to_the_corner() -> None:
    central, outer = (focalplane.vignetting_map(d, (200, 200)) for d in (94, 188))
    assert central.min() > 0.999
    assert 0.4 < outer.mean() < 0.7


def test_a_cut_out_keeps_the_centre() -> None:
    whole = focalplane.wcs(30, (4000, 4072), 10.0, 5.0, 20.0, 0.2).sky(2035.5, 1999.5)
    part = focalplane.wcs(30, (1000, 800), 10.0, 5.0, 20.0, 0.2).sky(399.5, 499.5)
    assert np.allclose(whole, part, atol=1e-9)


def test_detectors_are_chosen_by_name() -> None:
    chosen = CameraConfig(layout="lsstcam", select=("R22_S11", "R01", "R01_S00"))
    assert chosen.detectors == (94, *range(9))
    assert len(CameraConfig(layout="lsstcam", select=("active",)).detectors) == 172


@pytest.mark.parametrize(("values", "message"), [
    ({"layout": "lsstcam", "select": ("R22_S33",)}, "R22_S33"),
    ({"layout": "lsstcam", "detectors": (189,)}, r"0\.\.188, got 189"),
    ({"product": "raw"}, "need layout"),
    ({"layout": "lsstcam", "product": "raw", "nx": 1001}, "multiple of 2 and nx of 8, got 1000 and 1001")])
def test_a_camera_that_does_not_exist_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CameraConfig(**values)


def test_the_pointing_wcs_is_off_by_its_error_and_bends_as_the_true_one() -> None:
    c = CameraConfig(layout="lsstcam", select=("R43_S22",), ny=1000, nx=1000)
    visit = Visit(7, "r", 40.0, -30.0, 15.0, 61000.0, 30.0)
    true = camera.true_wcs(c, visit, 188, 1)
    pointing = camera.pointing_wcs(c, true, visit, 188, 1)
    grid = np.linspace(0, 999, 5)
    x, y = np.meshgrid(grid, grid)
    a, b = pointing.pixels(*true.sky(x, y))
    offset = np.hypot(a.mean() - x.mean(), b.mean() - y.mean())
    assert 0.1 < offset < 16.0                       # 3 arcsec are 15 pixels
    design = np.stack([np.ones(x.size), x.ravel(), y.ravel()])
    for got in (a, b):
        fit = np.linalg.lstsq(design.T, got.ravel(), rcond=None)[0]
        assert np.abs(got.ravel() - fit @ design).max() < 0.02     # a shift and a turn: what astrometry solves


@pytest.mark.parametrize(("name", "u", "g", "r"), [("R22_S11", 0.28, 0.055, 0.028), ("R01_S11", 0.22, 0.045, 0.023)])
def test_the_real_sensors_go_deeper_than_the_numbers_of_smtn_002(name: str, u: float, g: float, r: float) -> None:
    """The gains follow from the sky's level alone; amplifiers scatter about the medians, so the median sensor's."""
    given = CameraConfig()
    vendor = focalplane.sensor(focalplane.detector_id(name)).vendor
    alike = [d for d in focalplane.all_detectors() if focalplane.sensor(d).vendor == vendor]
    gains = {}
    for band in "ugrizy":
        now = Conditions(0.6, FIDUCIAL_FWHM_EFF[band], 1.0, DARK_SKY[band], 0.0)
        default = m5(band, now, 30.0, given)
        gains[band] = float(np.median([m5(band, now, 30.0, camera.as_built(CameraConfig(
            layout="lsstcam", detectors=(d,)), d)) for d in alike])) - default
    assert gains["u"] == pytest.approx(u, abs=0.015)
    assert gains["g"] == pytest.approx(g, abs=0.006)
    assert gains["r"] == pytest.approx(r, abs=0.004)
    assert max(gains[band] for band in "izy") < 0.02
