"""Detection: significance, completeness, footprints, masks, backgrounds."""

from dataclasses import replace
from math import erf

import numpy as np
import pytest
from scipy import ndimage
from scipy.signal import fftconvolve
from scipy.spatial import cKDTree

from pipeline.config import DetectConfig
from pipeline.detect import detect, significance
from pipeline.images import Detections
from pipeline.psf import Psf
from schemas import mask as planes
from tests.pipeline.differences import SIGMA, Scene
from tests.pipeline.fields import psf_stamp

CONFIG = DetectConfig(sky_sources=0)


def run(scene: Scene, **changes: object) -> Detections:
    return detect(scene.difference(), scene.science(), DetectConfig(**{"sky_sources": 0, **changes}))


def found(detections: Detections, x: np.ndarray, y: np.ndarray, within: float = 3.0) -> np.ndarray:
    if not len(detections.peaks):
        return np.zeros(len(x), bool)
    tree = cKDTree(np.column_stack([detections.peaks["x"], detections.peaks["y"]]))
    return tree.query(np.column_stack([x, y]))[0] < within


@pytest.fixture(scope="module", params=[3.5, 6.0])
def crowd(request: pytest.FixtureRequest) -> tuple[Scene, np.ndarray, np.ndarray, np.ndarray, Detections]:
    scene = Scene(seed=11, shape=(1000, 1000), fwhm=request.param)
    x, y = scene.grid(32.0)
    snr = scene.rng.uniform(3.5, 10.5, len(x)) * np.where(scene.rng.random(len(x)) < 0.5, 1, -1)
    scene.points(x, y, snr)
    return scene, x, y, snr, run(scene)


@pytest.mark.parametrize("fwhm", [3.5, 6.0])
def test_significance_on_blank_sky_has_unit_rms_and_no_mean(fwhm):
    scene = Scene(seed=3, shape=(1000, 1000), fwhm=fwhm)
    x, y = scene.grid(80.0)
    scene.points(x, y, 20.0)
    detections = run(scene)
    blank = detections.labels == 0
    assert 0.98 < detections.snr_rms < 1.02
    beams = blank.sum() / (2 * scene.psf.effective_area)
    assert abs(detections.significance[blank].mean()) < 4 / np.sqrt(beams)


def test_completeness_is_that_of_a_gaussian_error(crowd):
    _, x, y, snr, detections = crowd
    ok, size = found(detections, x, y), np.abs(snr)
    expected = np.array([0.5 * (1 + erf((s - 5.0) / np.sqrt(2))) for s in size])
    for low, high in ((4, 5), (5, 6), (5.5, 6.5), (8, 10.5)):
        chosen = (size > low) & (size < high)
        p = expected[chosen].mean()
        # the peak near the source is the highest of a few pixels: up to 8 % above the plain Gaussian
        spread = 4 * np.sqrt(max(p * (1 - p), 1e-3) / chosen.sum())
        assert p - spread < ok[chosen].mean() < p + 0.08 + spread, (low, high)
    assert ok[(size > 5.5) & (size < 6.5)].mean() > 0.78
    assert ok[(size > 8) & (size < 10)].mean() > 0.97


def test_signs_are_told_apart(crowd):
    _, x, y, snr, detections = crowd
    peaks = detections.peaks
    distance, j = cKDTree(np.column_stack([peaks["x"], peaks["y"]])).query(np.column_stack([x, y]))
    near = (distance < 2) & (np.abs(snr) > 6)
    assert np.array_equal(peaks["negative"][j][near], snr[near] < 0)
    assert np.array_equal(peaks["positive"][j][near], snr[near] > 0)
    assert np.all(np.sign(peaks["snr"][j][near]) == np.sign(snr[near]))


@pytest.mark.parametrize("threshold", [3.0, 3.5])
def test_false_positives_are_those_of_a_gaussian_field(threshold):
    scene = Scene(seed=5, shape=(700, 700), fwhm=4.0)
    n = len(run(scene, threshold=threshold, low_threshold=3.0, background_bin=100, cosmic_rays=False).peaks)
    # expected maxima of a smooth Gaussian field above t: area t exp(-t^2/2) |curvature| / (2 pi)^1.5, both signs;
    # correlation exp(-r^2 / 4 sigma^2) has second derivative 1 / (2 sigma^2)
    expected = 2 * 700**2 * threshold * np.exp(-threshold**2 / 2) / (2 * scene.psf.sigma**2) / (2 * np.pi) ** 1.5
    assert 0.5 * expected - 4 * np.sqrt(expected) < n < 1.3 * expected + 4 * np.sqrt(expected)


def test_no_false_positive_in_a_quarter_of_a_million_pixels_at_five_sigma():
    assert len(run(Scene(seed=6)).peaks) <= 1


def test_a_lower_threshold_finds_more_and_costs_purity():
    scene = Scene(seed=7)
    x, y = scene.grid(40.0)
    scene.points(x, y, 5.0)
    strict, loose = run(scene, threshold=6.0), run(scene)
    assert found(loose, x, y).mean() > found(strict, x, y).mean() + 0.2
    assert len(run(scene, threshold=3.5).peaks) - found(run(scene, threshold=3.5), x, y).sum() > 10


def test_variance_that_follows_the_noise_of_its_pixels_does_not_bias_significance():
    scene = Scene(seed=8, shape=(800, 800))
    electrons = np.random.default_rng(8).poisson(400.0, scene.shape)      # 20 e- of noise; gain 2 e- per nJy
    scene.image = (electrons - 400.0) / 2
    scene.variance = (electrons / 4).astype(np.float32)
    scene.error = 10 * np.sqrt(scene.psf.effective_area)
    detections = run(scene, cosmic_rays=False)
    blank = detections.labels == 0
    assert abs(detections.significance[blank].mean()) < 0.06
    assert 0.98 < detections.snr_rms < 1.02
    every = np.ones(scene.shape, bool)
    plain, _ = significance(scene.image.astype(np.float32), scene.variance, every, scene.psf, smooth=0)
    assert plain.mean() < -0.1        # the control: weights from the variance as it is


def test_noise_scale_divides_significance():
    scene = Scene(seed=9, shape=(300, 300))
    twice = detect(scene.difference(noise_scale=2.0), scene.science(), CONFIG)
    once = run(scene)
    assert twice.snr_rms == pytest.approx(once.snr_rms / 2, rel=0.01)


def test_a_varying_psf_is_matched_where_it_is():
    shape = (1100, 1100)
    ramp = (psf_stamp(41, 6.0) - psf_stamp(41, 3.5)) / 2
    psf = Psf(np.stack([(psf_stamp(41, 6.0) + psf_stamp(41, 3.5)) / 2, ramp, np.zeros((41, 41))]), 1, shape)
    image = np.zeros(shape, np.float32)
    at = [(60, 60), (1040, 60), (60, 1040), (1040, 1040)]
    for x, y in at:
        image[y - 20:y + 21, x - 20:x + 21] += 100 * psf.at(x, y)
    variance = np.ones(shape, np.float32)
    snr, _ = significance(image, variance, np.ones(shape, bool), psf)
    for x, y in at:
        best = 100 / np.sqrt(1 / np.sum(psf.at(x, y) ** 2))
        assert snr[y, x] == pytest.approx(best, rel=0.03)


def test_masked_pixels_carry_no_weight_and_peaks_on_them_are_refused():
    scene = Scene(seed=10, shape=(200, 200))
    scene.mask[:, 98:104] = planes.BAD
    scene.image[:, 98:104] = 1e6
    scene.points(np.array([50.0, 109.0]), np.array([50.0, 120.0]), np.array([20.0, 20.0]))
    detections = run(scene)
    assert found(detections, np.array([50.0, 109.0]), np.array([50.0, 120.0])).all()
    assert np.all((detections.difference.mask[detections.peaks["y"], detections.peaks["x"]] & planes.UNUSABLE) == 0)
    scene = Scene(seed=10, shape=(200, 200))
    scene.points(np.array([100.0]), np.array([100.0]), 60.0)
    scene.mask[99:102, 99:102] = planes.SAT
    detections = run(scene)
    assert len(detections.peaks) + len(detections.rejected) >= 1
    assert np.all((detections.rejected["mask"] & planes.SAT) != 0)


def test_sources_beside_a_border_of_no_data_are_found_as_often_as_others():
    scene = Scene(seed=12, shape=(600, 300), fwhm=4.0)
    scene.mask[:, 150:] = planes.NO_DATA
    y = np.arange(20.0, 590.0, 20.0)
    x = np.full(len(y), 146.0)       # one FWHM inside
    scene.points(x, y, 9.0)
    assert found(run(scene), x, y).mean() > 0.9


def test_background_is_taken_away_without_taking_from_sources():
    scene = Scene(seed=13, shape=(400, 400))
    y, x = np.mgrid[:400, :400]
    sky = 20.0 + 10.0 * x / 400 - 15.0 * (y / 400) ** 2
    scene.image += sky
    px, py = scene.grid(60.0)
    scene.points(px, py, 50.0)
    detections = run(scene)
    blank = detections.labels == 0
    assert abs(detections.difference.image[blank].mean()) < 4 * SIGMA / np.sqrt(blank.sum())   # sky: 2 sigma
    assert 0.97 < detections.snr_rms < 1.04
    assert len(detections.peaks) == len(px)


def test_a_trail_is_one_source_and_two_stars_are_two():
    scene = Scene(seed=14, shape=(300, 300))
    scene.trails([150.0], [100.0], [40 * scene.error], [50.0], [0.4])
    scene.points(np.array([100.0, 109.0]), np.array([200.0, 200.0]), np.array([30.0, 20.0]))
    detections = run(scene)
    assert len(detections.peaks) == 3
    assert found(detections, np.array([100.0, 109.0]), np.array([200.0, 200.0])).all()
    joined = run(scene, valley=1e6)      # the control: no deblending, as deployed
    assert len(joined.peaks) == 2


def test_lobes_of_opposite_sign_are_one_source():
    scene = Scene(seed=15, shape=(200, 200))
    scene.moved(np.array([100.0]), np.array([100.0]), np.array([3.0]), np.array([0.0]), np.array([60.0]))
    peaks = run(scene).peaks
    assert len(peaks) == 1
    assert peaks["positive"][0] & peaks["negative"][0]
    assert peaks["positive_x"][0] > 100 > peaks["negative_x"][0]
    assert len(run(scene, dipole_sigmas=0.1).peaks) == 2


def test_a_source_beside_a_brighter_one_of_the_other_sign_stands_alone():
    scene = Scene(seed=15, shape=(200, 200))
    x = 100 + np.array([0.0, 4.5 * scene.psf.sigma])
    scene.points(x, np.array([100.0, 100.0]), np.array([30.0, -10.0]))
    peaks = run(scene).peaks
    assert len(peaks) == 2
    assert peaks["negative"].sum() == 1
    assert len(run(scene, lobe_sigmas=5.0).peaks) == 1        # the control: merged, as deployed


def test_labels_boxes_and_planes_describe_the_same_footprints():
    scene = Scene(seed=16, shape=(300, 300))
    x, y = scene.grid(60.0)
    scene.points(x, y, np.where(np.arange(len(x)) % 2 == 0, 20.0, -20.0))
    detections = run(scene)
    peaks, labels = detections.peaks, detections.labels
    assert labels.max() == len(peaks)
    for i, peak in enumerate(peaks):
        rows, columns = np.nonzero(labels == i + 1)
        assert (columns.min(), columns.max()) == (peak["x0"], peak["x1"])
        assert (rows.min(), rows.max()) == (peak["y0"], peak["y1"])
        assert len(rows) == peak["area"]
        assert labels[peak["y"], peak["x"]] == i + 1
    bits = detections.difference.mask
    both = planes.DETECTED | planes.DETECTED_NEGATIVE
    assert np.array_equal((bits & both) != 0, labels > 0)
    assert np.all((bits[peaks["y"][peaks["negative"]], peaks["x"][peaks["negative"]]] & planes.DETECTED_NEGATIVE) != 0)


def test_sky_sources_stand_on_blank_sky_and_are_the_same_every_time():
    scene = Scene(seed=17)
    x, y = scene.grid(50.0)
    scene.points(x, y, 20.0)
    first = detect(scene.difference(), scene.science(), DetectConfig(sky_sources=8))
    again = detect(scene.difference(), scene.science(), DetectConfig(sky_sources=8))
    sky = first.peaks[first.peaks["sky_source"]]
    assert len(sky) == 8
    assert np.all(first.labels[sky["y"], sky["x"]] == 0)
    assert np.array_equal(first.peaks[["x", "y"]], again.peaks[["x", "y"]])


def test_inputs_are_left_as_they_were():
    scene = Scene(seed=18, shape=(200, 200))
    scene.points(np.array([100.0]), np.array([100.0]), 30.0)
    difference = scene.difference()
    image, bits = difference.image.copy(), difference.mask.copy()
    detect(difference, scene.science(), CONFIG)
    assert np.array_equal(image, difference.image)
    assert np.array_equal(bits, difference.mask)


def plain_significance(image: np.ndarray, variance: np.ndarray, usable: np.ndarray, stamp: np.ndarray) -> np.ndarray:
    """The matched filter in float64 on the whole image, 0 where no usable pixel is near."""
    share, total = (ndimage.uniform_filter(plane, 5, mode="constant")
                    for plane in (usable.astype(float), np.where(usable, variance, 0.0).astype(float)))
    weight = np.where(usable, share / np.where(usable, total, 1.0), 0.0)

    def correlated(plane: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        return fftconvolve(plane, kernel[::-1, ::-1], mode="same")

    norm = np.sqrt(np.maximum(correlated(weight**2 * np.where(usable, variance, 0), stamp**2), 0))
    floor = 3e-3 * np.sqrt(np.sum(stamp**2) / np.median(variance[usable]))
    signal = correlated(weight * np.where(usable, image, 0), stamp)
    return np.where(norm > floor, signal / np.maximum(norm, floor), 0.0)


@pytest.mark.parametrize("shape", [(700, 640), (37, 1000)])
def test_significance_is_that_of_the_whole_image_at_once(shape):
    scene = Scene(seed=21, shape=shape)
    x, y = scene.grid(45.0, border=10.0)
    scene.points(x, y, 30.0)
    usable = scene.rng.random(shape) > 0.02 * (np.arange(shape[1]) < 200)
    usable[:, 100:104] = usable[15:80, 200:290] = False
    variance = scene.variance * (1 + np.linspace(0, 1, shape[1], dtype=np.float32))
    image = np.where(usable, scene.image, np.nan).astype(np.float32)
    found, of_one = significance(image, np.where(usable, variance, np.nan), usable, scene.psf)
    expected = plain_significance(image, variance, usable, scene.psf.central)
    known = (found != 0) & (expected != 0)
    assert np.mean((found == 0) != (expected == 0)) < 1e-4
    assert np.allclose(found[known], expected[known], atol=5e-3, rtol=0.03)    # single precision, within what is masked
    assert np.percentile(np.abs(found - expected), 99) < 1e-4
    one = plain_significance(np.ones(shape), variance, usable, scene.psf.central)
    ratio = np.kron(of_one, np.ones((4, 4)))[:shape[0], :shape[1]] / np.where(expected != 0, one, np.inf)
    clear = ndimage.binary_erosion(usable, np.ones((25, 25)))
    assert np.abs(ratio - 1)[clear].max() < 0.01
    assert np.abs(ratio - 1)[usable].max() < 0.8       # beside what is masked


def test_the_second_background_is_put_right_in_the_significance():
    scene = Scene(seed=22, shape=(700, 700))
    x, y = scene.grid(30.0)
    scene.points(x, y, 40.0)        # half of the light of a crowd passes for background at first
    y, x = np.mgrid[:700, :700]
    scene.image += 3 * np.sin(x / 120) * np.cos(y / 150)
    detections = run(scene)
    again, _ = significance(detections.difference.image, scene.variance, np.ones(scene.shape, bool), scene.psf)
    off = np.abs(again - detections.significance)
    assert off[12:-12, 12:-12].max() < 0.02
    assert off.max() < 0.15       # at the border


def test_a_variance_that_is_not_finite_spoils_its_own_pixels_alone():
    scene = Scene(seed=23, shape=(300, 300))
    scene.points(np.array([100.0, 200.0]), np.array([60.0, 200.0]), np.array([20.0, 20.0]))
    scene.variance[:20] = np.nan
    scene.variance[140:143] = np.inf
    detections = run(scene)
    assert found(detections, np.array([100.0, 200.0]), np.array([60.0, 200.0])).all()
    assert 0.95 < detections.snr_rms < 1.05


@pytest.mark.parametrize("shape", [(12, 9), (64, 300), (3, 3)])
def test_an_image_without_usable_pixels_or_very_small_gives_no_sources(shape):
    scene = Scene(seed=19, shape=shape)
    assert len(run(scene).peaks) == 0
    dead = replace(scene.difference(), mask=np.full(shape, planes.NO_DATA, np.int32),
                   variance=np.full(shape, np.nan, np.float32), image=np.full(shape, np.nan, np.float32))
    detections = detect(dead, scene.science(), DetectConfig())
    assert len(detections.peaks) == 0
    assert np.isnan(detections.snr_rms)


@pytest.mark.bench
def test_detection_of_a_thousand_by_a_thousand_pixels_takes_less_than_a_second(benchmark):
    scene = Scene(seed=20, shape=(1000, 1000))
    x, y = scene.grid(95.0)
    scene.points(x, y, 20.0)
    detections = benchmark(run, scene)
    assert len(detections.peaks) >= len(x) - 1
    assert benchmark.stats["min"] < 1.0
