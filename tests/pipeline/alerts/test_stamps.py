import io

import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.nddata import CCDData, VarianceUncertainty
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

from pipeline.alerts import read_cutout, read_packet
from pipeline.alerts.check import psf_flux
from pipeline.alerts.stamps import (
    Place,
    Stamp,
    data,
    mask_unit,
    number,
    primary_header,
    psf_unit,
    variance_header,
)
from pipeline.errors import PacketError
from schemas.mask import PLANES


def ours(place, image, variance, psf):
    return (primary_header(place, image.shape) + data(image.astype(">f4")) + variance_header(image.shape)
            + data(variance.astype(">f4")) + psf_unit(psf))


def astropys(place, image, variance, psf, ctype=None):
    """The cutout as Rubin's packager writes it, through CCDData."""
    wcs = WCS(naxis=2)
    if ctype:
        wcs.wcs.ctype = ctype
    wcs.array_shape = image.shape
    wcs.wcs.crpix = [place.position[0] - place.x_min + 1, place.position[1] - place.y_min + 1]
    wcs.wcs.crval = list(place.crval)
    wcs.wcs.cd = np.array(place.pc).reshape(2, 2)
    meta = fits.Header([("CUTMINX", place.x_min - 1), ("CUTMINY", place.y_min - 1),
                        ("ROTPA", place.rotation, "Pos angle in deg of focal plane +Y wrt North")])
    ccd = CCDData(data=image, uncertainty=VarianceUncertainty(variance), wcs=wcs, meta=meta, unit=units.nJy, psf=psf)
    buffer = io.BytesIO()
    ccd.write(buffer, format="fits")
    return buffer.getvalue()


def some_place(rng, side):
    """A detector at any angle, right angles among them, and sources at round and other positions."""
    angle = np.radians(rng.choice([rng.uniform(0, 360), rng.choice([0, 90, 180, 270]), rng.uniform(0, 1e-3)]))
    scale = 5.5e-5 * (1 + 1e-3 * rng.normal(size=4))
    pc = tuple((scale * [-np.cos(angle), np.sin(angle), np.sin(angle), np.cos(angle)]).tolist())
    x, y = np.round(rng.uniform(0, 4072, 2), int(rng.choice([0, 1, 2, 12])))
    ra, dec = rng.uniform(0, 360) * rng.choice([1.0, 1e-5]), rng.uniform(-90, 90) * rng.choice([1.0, 1e-5])
    return Place(int(x) - side // 2, int(y) - side // 2, float(rng.uniform(-360, 360)), (float(x), float(y)), pc,
                 (float(ra), float(dec)))


@pytest.mark.parametrize("seed", range(40))
def test_cutouts_are_astropys_byte_for_byte(seed):
    rng = np.random.default_rng(seed)
    side, psf_side = int(rng.integers(30, 103)), int(rng.choice([21, 41, 55]))
    place = some_place(rng, side)
    image = rng.normal(size=(side, side)).astype(np.float32)
    variance = rng.random((side, side)).astype(np.float32)
    psf = rng.random((psf_side, psf_side))
    assert ours(place, image, variance, psf) == astropys(place, image, variance, psf)


def test_elements_of_the_unit_matrix_are_left_out_as_wcslib_does():
    image = np.zeros((30, 30), np.float32)
    for pc in ((-5.5e-5, 0.0, 0.0, 5.5e-5), (0.0, 5.5e-5, 5.5e-5, 0.0)):
        place = Place(0, 0, 0.0, (15.0, 14.0), pc, (0.0, 0.0))
        assert ours(place, image, image, np.zeros((21, 21))) == astropys(place, image, image, np.zeros((21, 21)))


@pytest.mark.parametrize("seed", range(10))
def test_the_papers_header_is_astropys_with_a_projection(seed):
    rng = np.random.default_rng(seed)
    place = some_place(rng, 30)
    image = np.zeros((30, 30), np.float32)
    expected = astropys(place, image, image, np.ones((21, 21)), ["RA---TAN", "DEC--TAN"])
    assert primary_header(place, (30, 30), projected=True) == expected[:2880]


def test_a_mask_is_written_between_image_and_variance_and_read_back():
    mask = np.random.default_rng(0).integers(0, 1 << 17, (30, 30)).astype(np.int32)
    image = np.ones((30, 30), np.float32)
    place = some_place(np.random.default_rng(0), 30)
    content = (primary_header(place, (30, 30), projected=True) + data(image.astype(">f4")) + mask_unit(mask)
               + variance_header((30, 30)) + data(image.astype(">f4")) + psf_unit(np.ones((21, 21))))
    with fits.open(io.BytesIO(content)) as units_:
        units_.verify("exception")
        assert [unit.name for unit in units_] == ["PRIMARY", "MASK", "UNCERT", "PSFIMAGE"]
        header = units_["MASK"].header
        assert {1 << header[f"MP_{name}"]: name for name in PLANES} == {bit: name for name, bit in PLANES.items()}
        written = fits.ImageHDU(mask, name="MASK")
        for name, bit in PLANES.items():
            long = len(name) > 5
            written.header[f"{'HIERARCH ' if long else ''}MP_{name}"] = int(np.log2(bit))
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), written]).writeto(buffer)
    assert mask_unit(mask) == buffer.getvalue()[2880:]
    np.testing.assert_array_equal(read_cutout(content).mask, mask)


@given(st.floats(-1e6, 1e6))
def test_numbers_are_written_as_astropy_writes_them(value):
    assert fits.Card("X", value).image[10:30] == number(value).rjust(20)


def test_a_real_cutout_is_written_again_byte_for_byte(shared_data):
    """Header, pixels and PSF of public alerts, taken apart and put together."""
    for path in sorted((shared_data / "rubin_alerts").glob("1*.bin")):
        alert = read_packet(path.read_bytes())
        for name in ("cutoutDifference", "cutoutScience", "cutoutTemplate"):
            stamp = read_cutout(alert[name])
            h = stamp.header
            x_min, y_min = h["CUTMINX"] + 1, h["CUTMINY"] + 1
            place = Place(x_min, y_min, h["ROTPA"], (h["CRPIX1"] - 1 + x_min, h["CRPIX2"] - 1 + y_min),
                          (h["PC1_1"], h["PC1_2"], h["PC2_1"], h["PC2_2"]), (h["CRVAL1"], h["CRVAL2"]))
            assert ours(place, stamp.image, stamp.variance, stamp.psf) == alert[name]


def test_the_header_of_real_cutouts_places_the_source(shared_data):
    """x = CUTMINX + CRPIX1, and PSF flux measured there is the alert's, one blend apart."""
    ratios = []
    for path in sorted((shared_data / "rubin_alerts").glob("*.bin")):
        alert = read_packet(path.read_bytes())
        stamp = read_cutout(alert["cutoutDifference"])
        source = alert["diaSource"]
        assert stamp.header["CUTMINX"] + stamp.header["CRPIX1"] == pytest.approx(source["x"], abs=2e-4)
        assert stamp.header["CUTMINY"] + stamp.header["CRPIX2"] == pytest.approx(source["y"], abs=2e-4)
        ratios.append(psf_flux(stamp).flux / source["psfFlux"])
    assert len(ratios) == 8
    assert sum(abs(ratio - 1) < 0.03 for ratio in ratios) == 7


def gaussian_stamp(flux, side=30, x=14.3, y=15.8, sigma=2.0, seed=1, noise=1.0):
    yy, xx = np.mgrid[:side, :side]
    source = np.exp(-((xx - x)**2 + (yy - y)**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    k = np.arange(25) - 12
    psf = np.exp(-(k[:, None]**2 + k**2) / (2 * sigma**2))
    image = flux * source + np.random.default_rng(seed).normal(0, noise, (side, side))
    return Stamp(image.astype(np.float32), np.full((side, side), noise**2, np.float32), psf / psf.sum(),
                 {"CRPIX1": x + 1, "CRPIX2": y + 1})


def test_flux_measured_on_a_cutout_has_the_error_it_claims():
    pulls = []
    for seed in range(400):
        found = psf_flux(gaussian_stamp(200.0, seed=seed))
        pulls.append((found.flux - 200.0) / found.error)
    assert abs(np.mean(pulls)) < 4 / np.sqrt(400)
    assert abs(np.std(pulls) - 1) < 4 / np.sqrt(800)


def test_the_best_shift_finds_a_source_beside_its_position():
    stamp = gaussian_stamp(2000.0)
    moved = Stamp(stamp.image, stamp.variance, stamp.psf, {"CRPIX1": 14.3, "CRPIX2": 17.3})
    found = psf_flux(moved, max_shift=2.0)
    assert (found.dx, found.dy) == (1.0, -0.5)
    assert found.flux == pytest.approx(2000.0, abs=4 * found.error)
    assert abs(psf_flux(moved).flux - 2000.0) > 10 * found.error       # the control: no search, another flux


def test_pixels_off_the_image_have_no_weight():
    stamp = gaussian_stamp(2000.0)
    image = stamp.image.copy()
    image[:, :8] = np.nan
    found = psf_flux(Stamp(image, stamp.variance, stamp.psf, stamp.header))
    assert found.flux == pytest.approx(2000.0, abs=4 * found.error)
    off = psf_flux(Stamp(stamp.image, stamp.variance, stamp.psf, {"CRPIX1": 500.0, "CRPIX2": 1.0}))
    assert off.error == np.inf


def test_a_cutout_that_is_not_one_is_refused():
    with pytest.raises(PacketError, match="cutout"):
        read_cutout(b"not a FITS file")
    buffer = io.BytesIO()
    fits.PrimaryHDU(np.zeros((3, 3), np.float32)).writeto(buffer)
    with pytest.raises(PacketError, match="a cutout needs an HDU UNCERT, got PRIMARY"):
        read_cutout(buffer.getvalue())


@pytest.mark.bench
def test_writing_a_cutout(benchmark):
    place = Place(10, 10, 41.0, (25.2, 25.7), (-4.14e-5, 3.71e-5, 3.70e-5, 4.14e-5), (62.5, -47.7))
    image = np.zeros((30, 30), np.float32)
    found = benchmark(ours, place, image, image, np.zeros((41, 41)))
    assert len(found) == 34560
