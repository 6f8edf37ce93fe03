"""FITS files become exposures, and what is wrong with them is one line that names the place."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline.errors import InputError
from pipeline.images import Template
from pipeline.ingest import (
    HeaderConfig,
    HeaderFacts,
    decode_config,
    read_exposure,
    read_table,
    read_template,
    write_exposure,
    write_table,
    write_template,
)
from pipeline.psf import Psf
from schemas import mask as planes
from schemas.exposure import Exposure, Visit
from schemas.measures import REFERENCE, empty
from schemas.wcs import Wcs


def exposure(shape: tuple[int, int] = (40, 50)) -> Exposure:
    rng = np.random.default_rng(0)
    visit = Visit(2026010100007, "i", 10.123456789, -30.2, 12.5, 61000.123456789, 30.0, 1.2, "simulated", "field")
    mask = np.zeros(shape, np.int32)
    mask[3, 4], mask[5, 6] = planes.SAT, planes.BAD
    return Exposure(visit, 94, rng.normal(1000, 30, shape).astype(np.float32), mask,
                    Wcs.tangent(10.123456789, -30.2, shape, rotation=12.5).rounded(), 1.5, 8.8, 8.0e4, 3.0, 0.05, 0.0)


def test_an_exposure_survives_its_file_exactly(tmp_path: Path) -> None:
    before = exposure()
    write_exposure(tmp_path / "e.fits", before)
    after = read_exposure(tmp_path / "e.fits", HeaderConfig())
    assert np.array_equal(after.image, before.image)
    assert np.array_equal(after.mask, before.mask)
    assert (after.visit, after.detector, after.wcs) == (before.visit, before.detector, before.wcs)
    assert (after.gain, after.read_noise, after.saturation, after.pedestal) == (1.5, 8.8, 8.0e4, 0.0)
    assert not list(tmp_path.glob("*.part"))


def test_an_unknown_pedestal_survives(tmp_path: Path) -> None:
    import dataclasses

    write_exposure(tmp_path / "e.fits", dataclasses.replace(exposure(), pedestal=float("nan")))
    assert np.isnan(read_exposure(tmp_path / "e.fits", HeaderConfig()).pedestal)


def test_a_config_wins_over_the_header_and_a_files_own_value_over_both(tmp_path: Path) -> None:
    write_exposure(tmp_path / "e.fits", exposure())
    config = HeaderConfig(values=HeaderFacts(gain=2.0, detector=5), files={"e.fits": HeaderFacts(detector=6)})
    got = read_exposure(tmp_path / "e.fits", config)
    assert (got.gain, got.detector) == (2.0, 6)


def test_a_template_survives_its_file(tmp_path: Path) -> None:
    shape = (30, 31)
    rng = np.random.default_rng(1)
    stamp = np.abs(rng.normal(size=(3, 5, 5)))
    before = Template("r", rng.normal(size=shape).astype(np.float32), np.ones(shape, np.float32),
                      np.zeros(shape, np.int32), Psf(stamp, 1, shape), exposure().wcs, np.full(shape, 7, np.int16),
                      np.eye(3), (1, 2))
    write_template(tmp_path / "t.fits", before)
    after = read_template(tmp_path / "t.fits")
    for name in ("image", "variance", "mask", "n_inputs", "noise_acf"):
        assert np.array_equal(getattr(after, name), getattr(before, name)), name
    assert np.array_equal(after.psf.basis, before.psf.basis)
    assert (after.band, after.wcs, after.inputs, after.psf.order) == ("r", before.wcs, (1, 2), 1)


def test_a_table_survives_its_file_and_lacking_columns_are_null(tmp_path: Path) -> None:
    rows = empty(REFERENCE, 3)
    rows["ra"], rows["dec"], rows["refId"] = [1.0, 2.0, 3.0], -30.0, [7, 8, 9]
    write_table(tmp_path / "r.fits", rows[["refId", "ra", "dec"]])
    got = read_table(tmp_path / "r.fits", REFERENCE)
    assert np.array_equal(got["ra"], rows["ra"])
    assert np.isnan(got["r_flux"]).all()


def _broken(folder: Path, how: str) -> Path:
    path = folder / f"{how}.fits"
    whole = exposure()
    write_exposure(path, whole)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif how == "text":
        path.write_text("not FITS at all")
    elif how == "no_image":
        fits.HDUList([fits.PrimaryHDU()]).writeto(path, overwrite=True)
    else:
        with fits.open(path, mode="update") as hdus:
            header = hdus["IMAGE"].header
            if how == "no_wcs":
                for key in ("CTYPE1", "CTYPE2", "CRVAL1"):
                    del header[key]
            elif how == "nan":
                hdus["IMAGE"].data[:] = np.nan
            elif how == "gain":
                header["GAIN"] = -1.0
            elif how == "band":
                header["BAND"] = "H"
            elif how == "mask_shape":
                hdus["MASK"].data = np.zeros((3, 3), np.int32)
            elif how == "projection":
                header["CTYPE1"], header["CTYPE2"] = "RA---ZPN", "DEC--ZPN"
            elif how == "singular":
                header["CD1_1"] = header["CD1_2"] = 0.0
    return path


@pytest.mark.parametrize(("how", "message"), [
    ("truncated", "not a readable FITS file"), ("text", "not a readable FITS file"),
    ("no_image", "no HDU holds a two-dimensional image"), ("no_wcs", "no celestial WCS: header lacks CTYPE1, CTYPE2"),
    ("nan", "every pixel is NaN"), ("gain", r"gain \(GAIN\) must be positive, got -1"),
    ("band", r"band 'H' \(BAND or FILTER\) is not one of u, g, r, i, z, y"),
    ("mask_shape", r"MASK has shape \(3, 3\), the image \(40, 50\)"),
    ("projection", "the projection must be TAN, TAN-SIP or TPV"), ("singular", "singular")])
def test_a_bad_file_ends_in_one_line_that_names_it(tmp_path: Path, how: str, message: str) -> None:
    path = _broken(tmp_path, how)
    with pytest.raises(InputError, match=message) as caught:
        read_exposure(path, HeaderConfig())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_exposure(tmp_path / "none.fits", HeaderConfig())


def test_a_header_without_ids_says_what_to_give(tmp_path: Path) -> None:
    fits.writeto(tmp_path / "p.fits", np.ones((8, 8), np.float32), fits.Header(exposure().wcs.header()))
    with pytest.raises(InputError, match=r"no mjd_tai: header lacks MJD-MID and MJD-OBS"):
        read_exposure(tmp_path / "p.fits", HeaderConfig())


def test_an_unknown_key_of_a_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gian"):
        decode_config("[values]\ngian = 2.0\n", HeaderConfig, tmp_path / "site.toml")


def test_the_real_field_is_read_with_ids_from_a_config(shared_data: Path) -> None:
    config = HeaderConfig(values=HeaderFacts(detector=37, pedestal=float("nan")),
                          files={"DEC-OBS04a.mini.fits": HeaderFacts(visit=2018080400001)})
    got = read_exposure(shared_data / "decam" / "DEC-OBS04a.mini.fits", config)
    assert got.visit.band == "i"
    assert got.wcs.kind == "TPV"
    assert got.wcs.scale_arcsec == pytest.approx(0.263, abs=0.002)
    assert (got.gain, got.visit.exposure_s) == (pytest.approx(3.984, abs=1e-3), 330.0)
