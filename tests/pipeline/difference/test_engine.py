"""Differencing against theory: kernels of known width, fluxes kept, noise white and honest, failures by name."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import fftconvolve

from pipeline.config import DifferenceConfig
from pipeline.difference import engine, subtract
from pipeline.errors import AlgorithmError, NoWorkFound
from pipeline.images import Difference
from schemas import mask as planes
from tests.pipeline import pairs

CONFIG = DifferenceConfig()
RUBIN = DifferenceConfig(kernel_snr=(10.0, 500.0), kernel_extended=False, spatial_order=1, prior_snr=0.0,
                         convolve="template", settle=False, systematics=False)


def scores(difference: Difference, pair: pairs.Pair) -> np.ndarray:
    """Matched-filter S/N on blank sky, as a detector computes it from image, variance and PSF alone."""
    psf = difference.psf.central
    signal = fftconvolve(difference.image, psf[::-1, ::-1], mode="same")
    noise = np.sqrt(fftconvolve(difference.variance, psf[::-1, ::-1] ** 2, mode="same"))
    x, y = pairs.grid(pair.science.shape, 2)
    sky = pairs.far_from_stars(pair, x, y, 22.0)
    i, j = x[sky].astype(int), y[sky].astype(int)
    return np.asarray((signal / noise)[j, i])


def gaussians(narrow: float, wide: float) -> pairs.Pair:
    """A pair without noise to speak of, of Gaussian PSFs with the given sigmas [pixel]."""
    return pairs.make(fwhm=wide * 2.3548, template_fwhm=narrow * 2.3548, beta=np.inf, ellipticity=0.0, noise=0.05,
                      template_noise=0.02, stars=40, shape=(400, 400))


def test_a_sigma_3_psf_matched_to_sigma_5_needs_a_sigma_4_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []
    match = engine._match

    def spy(*arguments: object) -> object:
        fits.append(match(*arguments))    # type: ignore[arg-type]  # the arguments are passed through
        return fits[-1]

    monkeypatch.setattr(engine, "_match", spy)
    difference = subtract(*_inputs(gaussians(3.0, 5.0)), CONFIG)
    kernel = fits[0][0].kernel.central
    offset = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    weight = kernel / kernel.sum()
    # moments, since a sigma 3 PSF says little about the kernel's innermost pixels; half width 17 cuts 0.4 % off them
    assert np.sqrt((weight * offset**2).sum()) == pytest.approx(4.0, rel=0.015)
    assert np.sqrt((weight * offset[:, None] ** 2).sum()) == pytest.approx(4.0, rel=0.015)
    assert (weight * offset).sum() == pytest.approx(0.0, abs=0.05)
    assert difference.kernel_sum == pytest.approx(1.0, abs=0.003)
    assert difference.convolved == "template"


def _inputs(pair: pairs.Pair) -> tuple[object, object]:
    return pair.science, pair.template


@pytest.mark.parametrize(("fwhm", "template_fwhm", "side"), [(4.5, 3.6, "template"), (3.6, 4.4, "science")])
def test_new_sources_keep_their_flux_on_either_side_and_a_zeropoint_error_of_a_tenth_is_absorbed(
        fwhm: float, template_fwhm: float, side: str) -> None:
    x, y = pairs.grid((384, 384), 54)
    pair = pairs.make(seed=11, fwhm=fwhm, template_fwhm=template_fwhm, scale=1.1, noise=4.0, template_noise=1.5,
                      new=[(a, b, 1500.0) for a, b in zip(x, y, strict=True)])
    difference = subtract(pair.science, pair.template, CONFIG)
    clear = pairs.far_from_stars(pair, x, y)
    flux, error = pairs.forced(difference, x[clear], y[clear])
    assert difference.convolved == side
    assert difference.kernel_sum == pytest.approx(1 / 1.1, rel=0.015)   # wings beyond the kernel's reach are 1 %
    assert np.mean(flux) == pytest.approx(1500.0, abs=4 * np.mean(error) / np.sqrt(len(flux)))


@pytest.fixture(scope="module")
def noisy() -> pairs.Pair:
    """A template of as few visits as to have noise like the science image's."""
    return pairs.make(seed=21, shape=(512, 512), fwhm=5.0, template_fwhm=3.4, template_noise=8.0, stars=80)


def test_noise_is_white_and_the_significance_honest(noisy: pairs.Pair) -> None:
    difference = subtract(noisy.science, noisy.template, CONFIG)
    assert abs(difference.lag1) < 0.02
    assert 0.97 < difference.noise_scale < 1.03
    assert 0.97 < np.std(scores(difference, noisy)) < 1.03
    assert difference.uncorrelated


def test_without_decorrelation_the_significance_is_a_tenth_too_large(noisy: pairs.Pair) -> None:
    difference = subtract(noisy.science, noisy.template, DifferenceConfig(decorrelate=False))
    assert np.std(scores(difference, noisy)) > 1.1
    assert difference.noise_scale > 1.1
    assert not difference.uncorrelated


def test_correlated_input_noise_is_whitened_and_costs_a_fifth_when_its_correlation_is_withheld() -> None:
    pair = pairs.make(seed=31, shape=(512, 512), smooth=0.125, stars=80)
    middle = pair.science.noise_acf.shape[0] // 2
    assert pair.science.noise_acf[middle, middle + 1] > 0.25
    known = subtract(pair.science, pair.template, CONFIG)
    unknown = subtract(replace(pair.science, noise_acf=np.ones((1, 1))), pair.template, CONFIG)
    assert abs(known.lag1) < 0.02
    assert 0.97 < np.std(scores(known, pair)) < 1.03
    assert np.std(scores(unknown, pair)) > 1.2


def test_pulls_of_new_sources_are_standard_normal() -> None:
    pulls = []
    for seed in range(6):
        x, y = pairs.grid((512, 512), 50)
        fluxes = np.random.default_rng(seed).uniform(250, 1500, len(x))
        pair = pairs.make(seed=40 + seed, shape=(512, 512), template_noise=4.0, stars=50,
                          new=list(zip(x, y, fluxes, strict=True)))
        difference = subtract(pair.science, pair.template, CONFIG)
        clear = pairs.far_from_stars(pair, x, y)
        flux, error = pairs.forced(difference, x[clear], y[clear])
        pulls.append((flux - fluxes[clear]) / error)
    pull = np.concatenate(pulls)
    assert len(pull) > 250
    assert abs(np.mean(pull)) < 4 / np.sqrt(len(pull))
    assert 0.9 < np.std(pull) < 1.1


def test_variable_stars_leave_the_kernel_and_stay_in_the_difference() -> None:
    pair = pairs.make(seed=51, stars=45, vary=[1.6, 1.0, 0.6, 1.3, 1.08, 1.25])
    difference = subtract(pair.science, pair.template, CONFIG)
    assert difference.kernel_sum == pytest.approx(1.0, abs=0.01)
    inside = (np.minimum(pair.x, pair.y) > 25) & (np.maximum(pair.x, pair.y) < 358)
    for k in np.flatnonzero(inside[:4]):
        i, j = round(pair.x[k]), round(pair.y[k])
        found = float(difference.image[j - 8:j + 9, i - 8:i + 9].sum()) / pair.flux[k]
        assert found == pytest.approx([0.6, 0.0, -0.4, 0.3][k], abs=0.05)


def test_registration_errors_make_false_detections_unless_sources_are_settled_or_their_variance_says_so() -> None:
    pair = pairs.make(seed=61, jitter=0.1, stars=50, brightest=4e5, magnitudes=1.0)
    inside = (np.minimum(pair.x, pair.y) > 20) & (np.maximum(pair.x, pair.y) < 363)
    counts = []
    for settle, systematics in ((True, True), (False, True), (True, False), (False, False)):
        difference = subtract(pair.science, pair.template, DifferenceConfig(settle=settle, systematics=systematics))
        psf = difference.psf.central
        score = fftconvolve(difference.image, psf[::-1, ::-1], mode="same") / np.sqrt(
            fftconvolve(difference.variance, psf[::-1, ::-1] ** 2, mode="same"))
        counts.append(sum(np.abs(score[round(b) - 6:round(b) + 7, round(a) - 6:round(a) + 7]).max() > 5
                          for a, b in zip(pair.x[inside], pair.y[inside], strict=True)))
    both, variance_alone, settled_alone, neither = counts
    assert neither >= 10
    assert both <= neither / 5
    assert both < variance_alone < neither
    assert both < settled_alone < neither


def test_the_term_for_bright_stars_leaves_blank_sky_alone(noisy: pairs.Pair) -> None:
    bare = subtract(noisy.science, noisy.template, DifferenceConfig(systematics=False))
    full = subtract(noisy.science, noisy.template, CONFIG)
    x, y = (a.astype(int) for a in pairs.grid(noisy.science.shape, 3))
    sky = pairs.far_from_stars(noisy, x, y, 35.0)
    ratio = full.variance[y[sky], x[sky]] / bare.variance[y[sky], x[sky]]
    assert np.median(ratio) < 1.01


def test_a_shift_of_a_seventh_of_a_pixel_is_absorbed_by_the_kernel() -> None:
    pair = pairs.make(seed=71, shift=(0.1, -0.1), stars=60)
    difference = subtract(pair.science, pair.template, DifferenceConfig(systematics=False))
    k = int(np.flatnonzero((np.minimum(pair.x, pair.y) > 40) & (np.maximum(pair.x, pair.y) < 343))[0])
    i, j = round(pair.x[k]), round(pair.y[k])
    here = np.s_[j - 4:j + 5, i - 4:i + 5]
    assert np.mean(difference.image[here] ** 2 / difference.variance[here]) < 2.5


def test_saturated_stars_are_masked_where_the_kernel_carries_them_and_no_farther() -> None:
    pair = pairs.make(seed=81, stars=60, brightest=1e6, magnitudes=2.5, saturation=8000.0)
    difference = subtract(pair.science, pair.template, CONFIG)
    saturated = (pair.template.mask & planes.SAT) != 0
    assert saturated.any()
    assert np.all(difference.mask[saturated] & planes.SAT_TEMPLATE)
    flagged = (difference.mask & planes.SAT_TEMPLATE) != 0
    assert saturated.sum() < flagged.sum() < 12 * saturated.sum()
    assert ((difference.mask & (planes.SAT | planes.SAT_TEMPLATE)) != 0).mean() < 0.03
    clear = (difference.mask & (planes.SAT | planes.SAT_TEMPLATE | planes.EDGE)) == 0
    score = difference.image / np.sqrt(difference.variance)
    assert np.abs(score[clear]).max() < 6.0


def test_holes_of_either_input_reach_the_difference_and_nothing_else_does() -> None:
    pair = pairs.make(seed=91)
    image, variance = pair.science.image.copy(), pair.science.variance.copy()
    image[100, 100:120] = np.nan
    variance[200, 200] = 0.0
    theirs = pair.template.mask.copy()
    theirs[300:320, :50] |= planes.NO_DATA
    theirs[150, 150] |= planes.HIGH_VARIANCE | planes.DETECTED
    difference = subtract(replace(pair.science, image=image, variance=variance), replace(pair.template, mask=theirs),
                          CONFIG)
    for here in (np.s_[100, 100:120], np.s_[200, 200], np.s_[300:320, :50]):
        assert np.all(difference.mask[here] & planes.NO_DATA)
        assert np.all(difference.image[here] == 0)
    assert np.all(np.isfinite(difference.image))
    assert np.all(difference.variance > 0)
    assert difference.mask[150, 150] & planes.HIGH_VARIANCE
    assert not np.any(difference.mask & planes.DETECTED)
    assert ((difference.mask & planes.NO_DATA) != 0).mean() < 0.02


def test_a_differential_background_is_taken_off() -> None:
    pair = pairs.make(seed=101, sky=25.0)
    difference = subtract(pair.science, pair.template, CONFIG)
    x, y = (a.astype(int) for a in pairs.grid(pair.science.shape, 3))
    sky = pairs.far_from_stars(pair, x, y, 25.0)
    assert np.median(difference.image[y[sky], x[sky]]) == pytest.approx(0.0, abs=0.5)
    assert np.median(difference.matched[y[sky], x[sky]]) == pytest.approx(25.0, abs=0.5)


def test_rubins_own_settings_subtract() -> None:
    pair = pairs.make(seed=111)
    difference = subtract(pair.science, pair.template, RUBIN)
    assert difference.kernel_sum == pytest.approx(1.0, abs=0.02)
    assert 0.95 < np.std(scores(difference, pair)) < 1.05


def _residual(pair: pairs.Pair, config: DifferenceConfig) -> float:
    """Median chi2 per pixel on the ten brightest stars away from the border."""
    difference = subtract(pair.science, pair.template, config)
    inside = np.flatnonzero((np.minimum(pair.x, pair.y) > 30) & (np.maximum(pair.x, pair.y) < 353))[:10]
    values = []
    for k in inside:
        i, j = round(pair.x[k]), round(pair.y[k])
        here = np.s_[j - 4:j + 5, i - 4:i + 5]
        values.append(np.mean(difference.image[here] ** 2 / difference.variance[here]))
    return float(np.median(values))


def test_psf_pairs_hold_a_kernel_that_has_four_faint_stars() -> None:
    """Fitted to faint stars alone, judged on bright ones: without the pairs the kernel is mostly noise."""
    pair = pairs.make(seed=121, stars=40, magnitudes=2.3, noise=6.0)
    stars = pair.science.stars[np.argsort(pair.science.stars["snr"])]
    few = stars[(stars["snr"] > 10) & (np.minimum(stars["x"], stars["y"]) > 50)
                & (np.maximum(stars["x"], stars["y"]) < 333)][:5]
    science = replace(pair, science=replace(pair.science, stars=few))
    held = _residual(science, DifferenceConfig(systematics=False))
    alone = _residual(science, DifferenceConfig(systematics=False, prior_snr=0.0, max_ratio_mean=9.0,
                                                max_ratio_std=9.0))
    assert held < 0.5 * alone


def _failing() -> Iterator[object]:
    pair = pairs.make(seed=131, shape=(256, 256), stars=30)
    science, template = pair.science, pair.template
    uncovered = np.full(template.shape, planes.NO_DATA, np.int32)
    uncovered[:20] = 0
    yield pytest.param(science, replace(template, mask=uncovered), NoWorkFound, "covers 7.8 % of the pixels",
                       id="coverage")
    masked = np.full(science.shape, planes.SAT, np.int32)
    yield pytest.param(replace(science, mask=masked), template, NoWorkFound, "no pixel is usable", id="all masked")
    yield pytest.param(replace(science, image=np.full(science.shape, np.nan, np.float32)), template, NoWorkFound,
                       "no pixel is usable", id="all NaN")
    yield pytest.param(replace(science, stars=science.stars[:0]), template, AlgorithmError,
                       "InsufficientKernelSources: 0 sources", id="no stars")
    yield pytest.param(replace(science, stars=science.stars[:2]), template, AlgorithmError,
                       "InsufficientKernelSources: . of 2 sources", id="two stars")
    yield pytest.param(science, replace(template, image=np.roll(template.image, 25, axis=1)), AlgorithmError,
                       "InsufficientKernelSources|BadSubtraction", id="misregistered by 25 px")
    yield pytest.param(replace(science, variance=science.variance * np.float32(30)), template, AlgorithmError,
                       "times its variance plane", id="variance wrong by 30")
    combed = np.zeros(science.shape, np.int32)
    combed[:, ::30], combed[:, 1::30] = planes.BAD, planes.BAD
    combed[::3] |= planes.EDGE
    yield pytest.param(replace(science, mask=combed), template, AlgorithmError,
                       "InsufficientKernelSources", id="no whole bin")
    swapped = replace(template, image=template.image[::-1].copy())
    yield pytest.param(science, swapped, AlgorithmError, "InsufficientKernelSources|BadSubtraction", id="another field")


@pytest.mark.parametrize(("science", "template", "kind", "message"), list(_failing()))
def test_what_cannot_be_subtracted_fails_by_name(science: object, template: object, kind: type[Exception],
                                                 message: str) -> None:
    with pytest.raises(kind, match=message):
        subtract(science, template, CONFIG)    # type: ignore[arg-type]  # parametrised values have no types


def test_a_template_twice_as_wide_is_matched_from_the_science_side() -> None:
    x, y = pairs.grid((384, 384), 40)
    pair = pairs.make(seed=141, fwhm=3.6, template_fwhm=7.2, new=[(a, b, 2500.0) for a, b in zip(x, y, strict=True)])
    difference = subtract(pair.science, pair.template, CONFIG)
    clear = pairs.far_from_stars(pair, x, y, 25.0)
    flux, error = pairs.forced(difference, x[clear], y[clear])
    assert difference.convolved == "science"
    assert np.mean((flux - 2500.0) / error) == pytest.approx(0.0, abs=5 / np.sqrt(clear.sum()))
    assert abs(difference.lag1) < 0.02


@pytest.mark.parametrize(("fwhm", "template_fwhm"), [(4.5, 3.6), (3.6, 4.5)])
def test_where_a_template_covers_a_ninth_there_is_a_difference_and_nowhere_else(fwhm: float,
                                                                               template_fwhm: float) -> None:
    shape = (720, 720)
    new = [(360.0, 40.0, 2500.0), (360.0, 500.0, 2500.0)]
    pair = pairs.make(seed=151, shape=shape, stars=400, fwhm=fwhm, template_fwhm=template_fwhm, new=new)
    covered = np.arange(720)[:, None] < 80
    nan = np.where(covered, 0, np.nan).astype(np.float32)
    template = replace(pair.template, image=pair.template.image + nan, variance=pair.template.variance + nan)
    difference = subtract(pair.science, template, CONFIG)
    assert np.isfinite(difference.image).all()
    assert np.isfinite(difference.variance).all()
    assert not difference.image[100:].any()
    assert (difference.mask[81:] & planes.NO_DATA != 0).all()
    flux, error = pairs.forced(difference, np.array([360.0]), np.array([40.0]))
    assert flux[0] == pytest.approx(2500.0, abs=4 * error[0])
    inner = np.s_[24:56, 24:-24]
    score = difference.image[inner] / np.sqrt(difference.variance[inner])
    low, high = np.percentile(score, [15.865, 84.135])
    assert (high - low) / 2 == pytest.approx(1.0, abs=0.05)


def test_edge_is_marked_within_a_disk_of_missing_pixels_beyond_the_border() -> None:
    hole, mask = np.zeros((60, 70), bool), np.zeros((40, 50), np.int32)
    hole[4:9, 30] = hole[35, 64] = True           # 2 px above the first row, and 5 px right of the last column
    engine._mark_beside(hole, 6, mask)
    y, x = np.mgrid[:40, :50]
    expected = np.zeros(mask.shape, bool)
    for j, i in np.argwhere(hole) - 10:
        expected |= np.hypot(y - j, x - i) <= 6
    assert np.array_equal(mask != 0, expected)
    assert set(np.unique(mask)) == {0, planes.EDGE}


def test_shapes_that_differ_are_refused() -> None:
    pair = pairs.make(shape=(256, 256), stars=20)
    small = replace(pair.template, image=pair.template.image[:200], variance=pair.template.variance[:200],
                    mask=pair.template.mask[:200])
    with pytest.raises(ValueError, match="must be on the science grid"):
        subtract(pair.science, small, CONFIG)


def test_a_real_supernova_stands_alone_in_a_real_field(shared_data: Path) -> None:
    """DECam OBS04a less OBS18a, both as they come: one source and honest noise."""
    from pipeline.calibrate import calibrate
    from pipeline.config import CalibrateConfig, DetectConfig, TemplateConfig
    from pipeline.detect import detect
    from pipeline.ingest import HeaderConfig, HeaderFacts, read_exposure
    from pipeline.template import coadd, warp
    from schemas.measures import REFERENCE, empty

    facts = HeaderFacts(detector=37, band="i", pedestal=float("nan"), saturation=41800.0, mjd_tai=58334.0,
                        visit=2018080400001)
    paths = [shared_data / "decam" / f"DEC-OBS{name}.mini.fits" for name in ("04a", "18a")]
    ours, theirs = (calibrate(read_exposure(path, HeaderConfig(values=facts)), empty(REFERENCE), CalibrateConfig(),
                              given_zeropoint=31.4) for path in paths)
    template = warp(coadd([theirs], ours.wcs, ours.shape, TemplateConfig()), ours.wcs, ours.shape, TemplateConfig())
    difference = subtract(ours, template, CONFIG)
    found = detect(difference, ours, DetectConfig())
    peaks = found.peaks[~found.peaks["sky_source"]]
    assert 0.95 < found.snr_rms < 1.05
    assert abs(difference.lag1) < 0.03
    nearest = np.hypot(peaks["x"] - 129, peaks["y"] - 128).argmin()
    assert np.hypot(peaks["x"] - 129, peaks["y"] - 128)[nearest] < 2
    assert peaks["snr"][nearest] > 8
    assert len(peaks) <= 3


def test_any_number_of_threads_makes_the_same_bytes(noisy: pairs.Pair) -> None:
    one, two = (subtract(noisy.science, noisy.template, CONFIG, threads=n) for n in (1, 2))
    for name in ("image", "variance", "mask", "matched", "matched_variance"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes()
    assert np.array_equal(one.psf.basis, two.psf.basis)
    assert (one.noise_scale, one.lag1, one.kernel_sum) == (two.noise_scale, two.lag1, two.kernel_sum)
