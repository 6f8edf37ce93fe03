"""Calibration: what goes in wrong comes out right, and what is switched off stays wrong."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sep
from scipy import ndimage

from pipeline.calibrate import calibrate
from pipeline.calibrate.astrometry import corrected_wcs
from pipeline.calibrate.background import estimate
from pipeline.calibrate.moffat import evaluate, fit, fwhm
from pipeline.calibrate.noise import autocorrelation, flattened, source_counts, spread
from pipeline.calibrate.psf import light_outside
from pipeline.calibrate.stars import find, locus
from pipeline.config import CalibrateConfig
from pipeline.errors import AlgorithmError
from pipeline.images import Calibrated
from pipeline.psf import Psf
from schemas import mask as planes
from schemas.exposure import Exposure, Visit
from schemas.measures import REFERENCE, empty
from schemas.wcs import Wcs
from tests.pipeline import fields

CONFIG = CalibrateConfig()


def worst_arcsec(found: Wcs, true: Wcs, shape: tuple[int, int]) -> float:
    """Largest distance of two WCS over a detector."""
    x, y = np.meshgrid(np.linspace(0, shape[1] - 1, 9), np.linspace(0, shape[0] - 1, 9))
    (ra, dec), (ra0, dec0) = found.sky(x, y), true.sky(x, y)
    return float(np.hypot((ra - ra0) * np.cos(np.radians(dec0)), dec - dec0).max() * 3600)


def size_error(psf: Psf, field: fields.Field, x: float, y: float, relative: float = 1.0) -> float:
    """Relative error of the PSF's size (root of the effective area) at a place."""
    true = fields.psf_stamp(psf.width, field.fwhm * relative, field.beta, field.ellipticity, field.angle)
    return float(np.sqrt((true**2).sum() / (psf.at(x, y) ** 2).sum()) - 1)


@pytest.fixture(scope="module")
def field() -> fields.Field:
    return fields.make(seed=3, sky_seed=3, shape=(600, 640), density=700, magnitudes=(16.5, 24.0),
                       beta=fields.KOLMOGOROV)


@pytest.fixture(scope="module")
def calibrated(field: fields.Field) -> Calibrated:
    return calibrate(field.exposure, field.references, CONFIG)


# --- astrometry ------------------------------------------------------------------------------------------------------

def test_a_pointing_three_arcsec_off_ends_within_a_twentieth(field: fields.Field, calibrated: Calibrated) -> None:
    assert worst_arcsec(field.exposure.wcs, field.wcs, field.exposure.shape) > 2.9
    assert worst_arcsec(calibrated.wcs, field.wcs, field.exposure.shape) < 0.02
    assert calibrated.calibration.astrom_offset_mean < 0.02
    assert calibrated.calibration.n_matches > 30


@pytest.mark.parametrize(("rotation", "arcsec", "degrees"), [(0.0, 5.0, 0.1), (90.0, 5.0, -0.1), (-160.0, 0.0, 0.0)])
def test_pointings_wrong_by_all_that_is_allowed_are_solved(rotation: float, arcsec: float, degrees: float) -> None:
    field = fields.make(seed=1, shape=(400, 400), rotation=rotation, pointing_arcsec=arcsec, pointing_deg=degrees,
                        density=500, magnitudes=(16.5, 23.0))
    assert worst_arcsec(calibrate(field.exposure, field.references, CONFIG).wcs, field.wcs, (400, 400)) < 0.04


def test_references_that_are_not_there_do_not_mislead(field: fields.Field) -> None:
    rng = np.random.default_rng(4)
    strays = field.references.copy()
    strays["ra"] = rng.uniform(strays["ra"].min(), strays["ra"].max(), len(strays))
    strays["dec"] = rng.uniform(strays["dec"].min(), strays["dec"].max(), len(strays))
    strays["refId"] += 100_000
    found = calibrate(field.exposure, np.concatenate([field.references, strays]), CONFIG)
    assert worst_arcsec(found.wcs, field.wcs, field.exposure.shape) < 0.03
    assert abs(found.calibration.zeropoint - field.zeropoint) < 0.01


def test_without_astrometry_the_pointing_s_error_stays(field: fields.Field) -> None:
    """Switched off, the error is 3 arcsec: more than a hundred times worse."""
    left = calibrate(field.exposure, field.references, CalibrateConfig(enabled_astrometry=False))
    assert left.wcs == field.exposure.wcs
    assert left.calibration.wcs_given
    assert worst_arcsec(left.wcs, field.wcs, field.exposure.shape) > 2.9


def test_references_of_another_field_are_refused(field: fields.Field) -> None:
    other = field.references.copy()
    rng = np.random.default_rng(1)
    other["ra"], other["dec"] = other["ra"] + 1.0, other["dec"]
    with pytest.raises(AlgorithmError, match=r"astrometry: \d+ sources and 0 references"):
        calibrate(field.exposure, other, CONFIG)
    few = field.references[:6].copy()
    few["ra"], few["dec"] = (150 + rng.normal(0, 0.01, 6)), (-30 + rng.normal(0, 0.01, 6))
    with pytest.raises(AlgorithmError, match=r"astrometry: .* needed"):
        calibrate(field.exposure, few, CONFIG)


@pytest.mark.parametrize("kind", ["TAN", "TAN-SIP", "TPV"])
def test_a_corrected_wcs_is_the_old_one_seen_through_the_correction(kind: str) -> None:
    terms = {"TAN": ((), ()), "TAN-SIP": (((2, 0, 0, 1e-6), (1, 1, 0, -4e-7)), ((0, 2, 0, 3e-7), (3, 0, 0, 1e-10))),
             "TPV": (((1, 0, 0, 1.0), (2, 0, 0, 3e-3)), ((0, 1, 0, 1.0), (1, 1, 0, -2e-3)))}[kind]
    old = Wcs((300.0, -200.0), (40.0, 60.0), (-5e-5, 3e-6, 3e-6, 5e-5), kind, *terms)
    matrix, offset = np.array([[1.0004, 2e-3], [-1.8e-3, 0.9997]]), np.array([12.0, -9.0])
    new = corrected_wcs(old, matrix, offset)
    x, y = np.random.default_rng(2).uniform(0, 1000, (2, 50))
    moved = matrix @ np.stack([x, y]) + offset[:, None]
    (ra, dec), (ra0, dec0) = new.sky(*moved), old.sky(x, y)
    assert np.abs(ra - ra0).max() < 1e-9
    assert np.abs(dec - dec0).max() < 1e-9


# --- photometry ------------------------------------------------------------------------------------------------------

def test_zeropoint_within_a_hundredth(field: fields.Field, calibrated: Calibrated) -> None:
    assert calibrated.calibration.zeropoint == pytest.approx(field.zeropoint, abs=0.01)
    assert calibrated.calibration.zeropoint_err < 0.005


def test_stars_have_their_fluxes_and_places(field: fields.Field, calibrated: Calibrated) -> None:
    stars = calibrated.stars[(calibrated.stars["snr"] > 20) & ~calibrated.stars["extended"]]
    x, y = stars["x"], stars["y"]
    distance = np.hypot(x[:, None] - field.x, y[:, None] - field.y)
    nearest, second = distance.argmin(axis=1), np.partition(distance, 1, axis=1)[:, 1]
    alone = (second > 25) & ((stars["flags"] & planes.UNUSABLE) == 0)
    assert alone.sum() > 20
    pulls = (stars["flux"] - field.flux[nearest])[alone] / np.hypot(stars["fluxErr"], 0.01 * stars["flux"])[alone]
    assert abs(np.median(pulls)) < 0.5
    assert np.percentile(np.abs(pulls), 68) < 1.5
    offset = (x - field.x[nearest])[alone] / np.hypot(stars["xErr"], 0.005)[alone]
    assert abs(offset.mean()) < 4 * 1.2 / np.sqrt(alone.sum())
    assert 0.6 < 1.4826 * np.median(np.abs(offset)) < 1.5
    matched = stars["refId"] >= 0
    assert (field.references["refId"].max() >= stars["refId"][matched]).all()


def test_without_photometry_the_given_zeropoint_is_taken(field: fields.Field) -> None:
    """Switched off with 31.4 given, the zeropoint is wrong by the 0.4 mag it was off."""
    left = calibrate(field.exposure, field.references, CalibrateConfig(enabled_photometry=False), given_zeropoint=31.4)
    assert left.calibration.zeropoint == 31.4
    assert left.calibration.zeropoint_given
    assert abs(left.calibration.zeropoint - field.zeropoint) > 0.39


def test_without_references_wcs_and_zeropoint_are_as_given(field: fields.Field) -> None:
    alone = calibrate(field.exposure, empty(REFERENCE), CONFIG, given_zeropoint=30.0)
    assert alone.wcs == field.exposure.wcs
    assert alone.calibration.zeropoint == 30.0
    assert alone.calibration.wcs_given
    assert alone.calibration.zeropoint_given
    assert alone.calibration.n_matches == 0
    assert np.isnan(alone.calibration.astrom_offset_mean)


# --- PSF -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("width", "beta"), [
    (3.3, fields.KOLMOGOROV), (4.0, 3.0), (4.5, np.inf), (5.5, fields.KOLMOGOROV)])
def test_psf_size_within_a_hundredth(width: float, beta: float) -> None:
    field = fields.make(seed=2, sky_seed=5, shape=(500, 500), fwhm=width, beta=beta, density=500,
                        magnitudes=(17.0, 23.5))
    psf = calibrate(field.exposure, field.references, CONFIG).psf
    assert abs(size_error(psf, field, 250, 250)) < 0.01
    true = fields.psf_stamp(psf.width, width, beta, field.ellipticity, field.angle)
    assert np.abs(psf.central - true).max() < 0.02 * true.max()
    assert psf.central.sum() == pytest.approx(1.0)
    assert psf.central.min() >= 0


def test_psf_follows_the_seeing_across_the_detector() -> None:
    field = fields.make(seed=2, sky_seed=2, shape=(700, 700), density=700, magnitudes=(16.8, 22.0), fwhm_slope=0.2)
    psf = calibrate(field.exposure, field.references, CONFIG).psf
    assert psf.order >= 1
    for x in (20.0, 350.0, 680.0):
        assert abs(size_error(psf, field, x, 350, 1 + 0.2 * (x / 699 - 0.5))) < 0.012
    assert abs(size_error(Psf.constant(psf.central, psf.shape), field, 20.0, 350, 0.9)) > 0.05     # a control


def test_a_handful_of_stars_suffice() -> None:
    field = fields.make(seed=9, sky_seed=7, shape=(256, 256), fwhm=4.5, density=250, magnitudes=(17.5, 21.0))
    found = calibrate(field.exposure, empty(REFERENCE), CONFIG)
    assert 4 <= found.calibration.n_psf_star <= 16
    assert abs(size_error(found.psf, field, 128, 128)) < 0.015


def test_galaxies_and_cosmic_rays_stay_out_of_the_psf() -> None:
    field = fields.make(seed=2, sky_seed=5, shape=(500, 500), density=300, magnitudes=(17.0, 22.0))
    rng = np.random.default_rng(8)
    n = 120
    flux = 10 ** rng.uniform(3.6, 5.2, n)
    extended = fields.draw(field.exposure.shape, rng.uniform(0, 500, n), rng.uniform(0, 500, n), flux,
                           rng.uniform(4.6, 9.0, n), beta=2.5)
    image = field.exposure.image + extended.astype(np.float32)
    for x, y in rng.uniform(5, 490, (40, 2)).astype(int):
        image[y, x:x + 4] += 4000.0
    spoiled = replace(field.exposure, image=image.astype(np.float32))
    found = calibrate(spoiled, field.references, CONFIG)
    assert abs(size_error(found.psf, field, 250, 250)) < 0.012
    assert worst_arcsec(found.wcs, field.wcs, (500, 500)) < 0.04


def test_an_empty_sky_has_no_psf() -> None:
    field = fields.make(shape=(200, 200), density=0.0)
    with pytest.raises(AlgorithmError, match=r"PSF: (no source|\d+ usable stars, 4 needed|\d+ of \d+ candidates)"):
        calibrate(field.exposure, field.references, CONFIG)


def test_moffat_fits_return_what_was_drawn() -> None:
    rng = np.random.default_rng(1)
    k = np.arange(21) - 10
    shapes = np.stack([np.log(rng.uniform(2.5, 4.0, 20)), rng.uniform(-0.1, 0.1, 20), rng.uniform(-0.1, 0.1, 20)], 1)
    x, y = rng.uniform(-0.5, 0.5, (2, 20))
    stamps = 5e4 * evaluate(shapes[:, None, None], 3.0, k - x[:, None, None], k[:, None] - y[:, None, None])
    fits = fit(stamps, np.full(stamps.shape, 1.0), 3.0, 3.0, iterations=20)
    np.testing.assert_allclose(fits.shape, shapes, atol=1e-4)
    np.testing.assert_allclose(fits.x, x, atol=1e-4)
    np.testing.assert_allclose(fits.flux, 5e4, rtol=1e-4)
    circle = np.array([np.log(4.0 / 2 / np.sqrt(2 ** (1 / 3) - 1)), 0.0, 0.0])
    assert float(fwhm(circle, 3.0)) == pytest.approx(4.0)


def test_light_outside_the_stamp_is_that_of_the_power_law() -> None:
    k = np.arange(2001) - 1000
    r2 = k[:, None] ** 2 + k**2
    whole = (1 + r2 / 9.0) ** (-11 / 6)
    whole /= whole.sum() * (1 + 0.0005)      # beyond 1000 px
    inner = whole[980:1021, 980:1021]
    expected = 1 - inner.sum()
    assert light_outside(Psf.constant(inner, (100, 100))) == pytest.approx(expected / inner.sum(), rel=0.06)


def test_the_stars_locus_is_found_among_galaxies() -> None:
    rng = np.random.default_rng(2)
    size = np.concatenate([rng.normal(1.7, 0.02, 20), rng.lognormal(np.log(2.6), 0.25, 80), rng.uniform(0.6, 0.9, 6)])
    centre, width = locus(size, np.full(len(size), 100.0))
    assert centre == pytest.approx(1.7, abs=0.02)
    assert 0.05 < width <= 0.2


# --- sky and noise ---------------------------------------------------------------------------------------------------

def test_sky_under_many_stars_is_unbiased(field: fields.Field, calibrated: Calibrated) -> None:
    assert calibrated.calibration.sky_adu == pytest.approx(field.sky, abs=0.5)
    crowded = fields.make(seed=1, shape=(500, 500), density=3000)
    assert calibrate(crowded.exposure, crowded.references, CONFIG).calibration.sky_adu == pytest.approx(1200, abs=2.5)


def test_a_sloping_sky_is_flattened() -> None:
    y, x = np.mgrid[:512, :512]
    slope = 1000 + 0.2 * x - 0.1 * y
    image = (slope + np.random.default_rng(1).normal(0, 20, slope.shape)).astype(np.float32)
    sky = estimate(image, np.zeros(image.shape, bool), 128)
    assert np.abs(sky.level - slope)[16:-16, 16:-16].max() < 6
    assert abs(float(np.mean(sky.level - slope))) < 0.2
    assert sky.blank.mean() > 0.97


def test_variance_is_that_of_the_noise(field: fields.Field, calibrated: Calibrated) -> None:
    njy = fields.GAIN / calibrated.gain_njy
    truth = (field.noiseless / fields.GAIN + (fields.READ_NOISE / fields.GAIN) ** 2) * njy**2
    residual = (field.exposure.image - field.noiseless) * njy
    usable = (calibrated.mask & planes.UNUSABLE) == 0
    assert np.std((residual / np.sqrt(calibrated.variance))[usable]) == pytest.approx(1.0, abs=0.01)
    assert calibrated.calibration.variance_factor == pytest.approx(1.0, abs=0.015)
    bright = usable & (field.noiseless > 4 * field.sky)
    assert bright.sum() > 100
    assert np.median((calibrated.variance / truth)[bright]) == pytest.approx(1.0, abs=0.03)
    assert calibrated.noise_acf.shape == (1, 1)


def test_variance_does_not_follow_the_noise_of_blank_pixels() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 10, (500, 500)).astype(np.float32)
    counts = source_counts(noise, 10.0)
    assert counts.mean() < 0.02 * 10.0
    assert (counts > 0).mean() < 0.003
    assert counts.max() < 20.0


def test_a_sky_subtracted_before_is_measured(field: fields.Field, calibrated: Calibrated) -> None:
    unknown = replace(field.exposure, image=field.exposure.image - np.float32(field.sky), pedestal=float("nan"))
    found = calibrate(unknown, field.references, CONFIG)
    blank = (field.noiseless < field.sky + 1) & ((found.mask & planes.UNUSABLE) == 0)
    ratio = np.median(found.variance[blank] / calibrated.variance[blank])
    assert ratio == pytest.approx(1.0, abs=0.025)
    known = replace(unknown, pedestal=field.sky)
    assert calibrate(known, field.references, CONFIG).calibration.sky_adu == pytest.approx(field.sky, abs=0.5)


def test_correlation_of_resampled_noise_is_measured() -> None:
    noise = np.random.default_rng(3).normal(0, 10, (400, 400)).astype(np.float32)
    shifted = ndimage.shift(noise, (0, 0.5), order=1, mode="wrap")      # the mean of neighbours: lag 1 is 0.5
    blank = np.ones(noise.shape, bool)
    acf = autocorrelation(flattened(shifted, blank), blank)
    assert acf.shape == (11, 11)
    assert acf[5, 5] == 1.0
    assert acf[5, 6] == pytest.approx(0.5, abs=0.02)
    assert acf[5, 4] == acf[5, 6]
    assert abs(acf[6, 5]) < 0.02
    assert autocorrelation(flattened(noise, blank), blank).shape == (1, 1)      # a control: white


def test_noise_is_measured_beneath_faint_sources() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(0, 2, 200_000)
    values[:20_000] += rng.exponential(4, 20_000)
    assert spread(values) == pytest.approx(2.0, rel=0.06)
    assert np.std(values) > 2.3


# --- masks and refusals ----------------------------------------------------------------------------------------------

def test_defects_are_filled_and_saturation_grows(field: fields.Field) -> None:
    image, mask = field.exposure.image.copy(), field.exposure.mask.copy()
    image[:, 200] = 65535.0
    mask[:, 200] |= planes.BAD
    image[100:110, 300:310] = np.nan
    mask[400, 400] |= planes.SAT
    found = calibrate(replace(field.exposure, image=image, mask=mask), field.references, CONFIG)
    assert (found.mask[:, 200] & planes.BAD).all()
    assert (found.mask[:, 200] & planes.INTRP).all()
    assert (found.mask[100:110, 300:310] & planes.BAD).all()
    assert np.isfinite(found.image).all()
    assert np.isfinite(found.variance).all()
    assert np.abs(found.image[50:60, 200]).max() < 20 * np.sqrt(found.variance[50:60, 100].mean())
    assert all(found.mask[y, x] & planes.SAT for y, x in ((400, 400), (399, 400), (400, 401)))
    assert not found.mask[403, 400] & planes.SAT
    assert (found.mask[0] & planes.EDGE).all()
    assert worst_arcsec(found.wcs, field.wcs, field.exposure.shape) < 0.03


@pytest.mark.parametrize("cause", ["nan", "masked"])
def test_an_exposure_without_usable_pixels_is_refused(field: fields.Field, cause: str) -> None:
    e = field.exposure
    spoiled = replace(e, image=np.full_like(e.image, np.nan)) if cause == "nan" else \
        replace(e, mask=np.full_like(e.mask, planes.BAD))
    with pytest.raises(AlgorithmError, match="no usable pixel: of 384000"):
        calibrate(spoiled, field.references, CONFIG)


def test_calibration_changes_nothing_it_was_given_and_repeats(field: fields.Field, calibrated: Calibrated) -> None:
    image, references = field.exposure.image.copy(), field.references.copy()
    again = calibrate(field.exposure, field.references, CONFIG)
    np.testing.assert_array_equal(image, field.exposure.image)
    assert references.tobytes() == field.references.tobytes()
    np.testing.assert_array_equal(again.image, calibrated.image)
    np.testing.assert_array_equal(again.psf.basis, calibrated.psf.basis)
    assert again.wcs == calibrated.wcs


def test_the_sky_of_a_field_where_stars_cover_most_of_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    y, x = rng.integers(12, 500, (2, 1500))
    image = rng.normal(1000.0, 30.0, (512, 512))
    k = np.arange(-12, 13)
    star = np.exp(-0.5 * (k[:, None] ** 2 + k**2) / 1.8**2)
    for at_y, at_x, peak in zip(y, x, 30.0 * 10 ** rng.uniform(1.0, 2.5, len(x)), strict=True):
        image[at_y - 12:at_y + 13, at_x - 12:at_x + 13] += peak * star[:min(25, 524 - at_y), :min(25, 524 - at_x)]
    image, nothing = image.astype(np.float32), np.zeros(image.shape, bool)
    found = estimate(image, nothing, 128)
    assert np.median(found.level) == pytest.approx(1000.0, abs=10.0)       # a third of the noise: wings are everywhere
    assert found.noise == pytest.approx(30.0, rel=0.1)
    monkeypatch.setattr("pipeline.calibrate.background._ENOUGH", 0.0)      # sources are left out with all around them
    assert np.median(estimate(image, nothing, 128).level) < 500.0


def test_a_field_so_crowded_that_half_its_pixels_are_bright_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the Galactic plane more pixels lie over the threshold than the extractor's buffer holds at first."""
    image = np.zeros((800, 800), np.float32)
    image[:, np.arange(800) % 10 < 5] = 20.0 + np.random.default_rng(1).normal(size=(800, 400)).astype(np.float32)
    blank = np.zeros(image.shape, bool)
    assert len(find(image, 1.0, blank, 5.0)) > 50
    sep.set_extract_pixstack(300_000)
    monkeypatch.setattr("sep.set_extract_pixstack", lambda pixels: None)     # the buffer stays as it is
    with pytest.raises(AlgorithmError, match="source detection: internal pixel buffer full"):
        find(image, 1.0, blank, 5.0)


# --- real frames -----------------------------------------------------------------------------------------------------

def decam(path: Path) -> Exposure:
    """A real exposure, sky subtracted by somebody, on its own WCS."""
    from astropy.io import fits
    with fits.open(path) as hdus:
        header, image = hdus[0].header, hdus[0].data.astype(np.float32)
    wcs = Wcs.from_header(header)
    ra, dec = wcs.sky(127.5, 127.5)
    mask = np.where(image >= header["ESATUR"], planes.SAT, 0).astype(np.int32)
    return Exposure(Visit(1, "i", float(ra), float(dec), 0.0, 57618.0, 330.0), 37, image, mask, wcs,
                    header["GAIN"], header["RDNOISE"], header["ESATUR"], pedestal=float("nan"))


@pytest.mark.parametrize(("name", "seeing", "correlated"), [
    ("OBS04a", 5.2, False), ("OBS04b", 5.2, True), ("OBS04c", 5.9, True),
    ("OBS18a", 3.9, False), ("OBS18b", 4.1, True), ("OBS18c", 3.6, True)])
def test_real_frames_have_sane_psfs_and_noise(shared_data: Path, name: str, seeing: float, correlated: bool) -> None:
    found = calibrate(decam(shared_data / "decam" / f"DEC-{name}.mini.fits"), empty(REFERENCE), CONFIG)
    assert found.calibration.n_psf_star >= 4
    core = found.psf.central[None, found.psf.width // 2 - 8:, found.psf.width // 2 - 8:][:, :17, :17]
    shape = fit(core, np.full(core.shape, 1e-8), 3.0, 4.0).shape[0]
    assert float(fwhm(shape, 4.0)) == pytest.approx(0.94 * seeing, rel=0.06)     # headers: isophotal FWHM, 6 % larger
    assert found.noise_acf.max() == 1.0
    assert (found.calibration.noise_correlation > 0.08) == correlated
    blank = spread((found.image / np.sqrt(found.variance)).ravel())
    assert blank == pytest.approx(1.0, abs=0.06)


# --- timings ---------------------------------------------------------------------------------------------------------

@pytest.mark.bench
@pytest.mark.parametrize("side", [1000, 4000])
def test_bench_calibrate(benchmark: object, side: int) -> None:
    field = fields.make(seed=3, shape=(side, side), density=1000)
    found = benchmark.pedantic(calibrate, (field.exposure, field.references, CONFIG), rounds=3)  # type: ignore[attr-defined]  # the fixture has no types
    assert abs(found.calibration.zeropoint - field.zeropoint) < 0.02
