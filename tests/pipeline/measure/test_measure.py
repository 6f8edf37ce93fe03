"""Measurement of detected sources: pulls, centroids, shapes, forced fluxes, flags, and what each switch is worth."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from pipeline.config import DetectConfig, MeasureConfig
from pipeline.detect import detect
from pipeline.kernels import fits
from pipeline.measure import measure, quality_cut
from pipeline.measure.centroid import fill
from pipeline.measure.flags import REMOVED, bbox_size
from pipeline.measure.flux import PsfModel, force
from pipeline.psf import Psf
from schemas import mask as planes
from schemas.measures import MEASUREMENT, empty
from tests.pipeline.differences import SIGMA, Scene
from tests.pipeline.fields import psf_stamp


def run(scene: Scene, *, noise_scale: float = 1.0, sky_sources: int = 0, **changes: object) -> np.ndarray:
    detections = detect(scene.difference(noise_scale), scene.science(), DetectConfig(sky_sources=sky_sources))
    return measure(detections, scene.science(), scene.template(), MeasureConfig(**changes))


def matched(rows: np.ndarray, x: np.ndarray, y: np.ndarray, within: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """For each true position whether a row is near, and which."""
    distance, j = cKDTree(np.column_stack([rows["x"], rows["y"]])).query(np.column_stack([x, y]))
    return distance < within, j


@pytest.fixture(scope="module", params=[3.5, 6.0])
def stars(request: pytest.FixtureRequest) -> tuple[Scene, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    scene = Scene(seed=21, shape=(1000, 1000), fwhm=request.param)
    x, y = scene.grid(40.0)
    snr = 10 ** scene.rng.uniform(np.log10(8), 2, len(x)) * np.where(scene.rng.random(len(x)) < 0.3, -1, 1)
    return scene, x, y, scene.points(x, y, snr), run(scene)


def test_forced_fluxes_have_unit_pulls(stars):
    scene, x, y, flux, _ = stars
    found = force(scene.image, scene.variance, scene.mask, PsfModel.of(scene.psf), x, y)
    pulls = (found.flux - flux) / found.error
    n = len(pulls)
    assert abs(pulls.mean()) < 4 / np.sqrt(n)
    assert abs(pulls.std() - 1) < 4 / np.sqrt(2 * n)
    assert found.error == pytest.approx(scene.error, rel=0.02)
    assert not found.empty.any()


def test_centroids_are_as_good_as_they_claim(stars):
    scene, x, y, flux, rows = stars
    ok, j = matched(rows, x, y)
    assert ok.all()
    rows = rows[j]
    for c, true in (("x", x), ("y", y)):
        pulls = (rows[c] - true) / rows[f"{c}Err"]
        assert abs(pulls.mean()) < 4 / np.sqrt(len(x))
        assert 0.9 < pulls.std() < 1.1
    bright = np.abs(flux / scene.error) > 20
    radial = np.hypot(rows["x"] - x, rows["y"] - y)[bright] * 0.2
    assert np.median(radial) < 0.03 * (scene.fwhm * 0.2) / 0.83
    assert not rows["centroid_flag"].any()


def test_point_sources_look_like_point_sources(stars):
    scene, x, y, flux, rows = stars
    _, j = matched(rows, x, y)
    rows = rows[j]
    assert np.array_equal(rows["isNegative"], flux < 0)
    assert np.all(np.sign(rows["psfFlux"]) == np.sign(flux))
    assert rows["isDipole"].mean() < 0.01
    assert (rows["trailLength"] > 0).mean() < 0.01
    assert rows["trail_flag"].mean() < 0.01
    assert (rows["psfChi2"] / rows["psfNdata"]).mean() == pytest.approx(1.0, abs=0.02)
    bright = np.abs(flux / scene.error) > 30
    assert np.nanmedian(rows["ixx"][bright] / rows["ixxPSF"][bright]) == pytest.approx(1.0, abs=0.03)
    assert np.nanmedian(rows["extendedness"][bright]) < 0.1
    assert rows["shape_flag"].mean() < 0.05
    pulls = (rows["psfFlux"] - flux) / rows["psfFluxErr"]
    assert abs(np.mean(pulls * np.sign(flux))) < 0.2      # a flux at the fitted position is high by 1 / (S/N)
    assert 0.85 < pulls.std() < 1.15


def test_aperture_fluxes_hold_what_the_profile_says(stars):
    scene, x, y, flux, rows = stars
    _, j = matched(rows, x, y)
    dy, dx = np.mgrid[-40:41, -40:41]
    inside = psf_stamp(81, scene.fwhm, scene.beta)[np.hypot(dx, dy) < 12].sum()
    pulls = (rows["apFlux"][j] - flux * inside) / rows["apFluxErr"][j]
    assert abs(np.mean(pulls * np.sign(flux))) < 0.4
    assert 0.85 < pulls.std() < 1.2
    assert rows["apFluxErr"][j] == pytest.approx(SIGMA * np.sqrt(np.pi) * 12, rel=0.02)


def test_variance_that_follows_the_noise_of_its_pixels_does_not_bias_fluxes():
    scene = Scene(seed=22, shape=(800, 800))
    electrons = np.random.default_rng(22).poisson(400.0, scene.shape)
    image, variance = ((electrons - 400.0) / 2).astype(np.float32), (electrons / 4).astype(np.float32)
    x, y = scene.grid(20.0)
    found = force(image, variance, scene.mask, PsfModel.of(scene.psf), x, y)
    pulls = found.flux / found.error
    assert abs(pulls.mean()) < 0.1
    assert abs(pulls.std() - 1) < 4 / np.sqrt(2 * len(x))


def test_source_noise_is_in_the_errors():
    scene = Scene(seed=23, shape=(600, 600), noiseless=True)
    x, y = scene.grid(50.0)
    flux = np.full(len(x), 300 * scene.error)
    clean = scene.draw(x, y, flux)
    scene.variance = (SIGMA**2 + 4.0 * clean).astype(np.float32)
    scene.image = clean + scene.rng.normal(0, 1, scene.shape) * np.sqrt(scene.variance)
    found = force(scene.image, scene.variance, scene.mask, PsfModel.of(scene.psf), x, y)
    pulls = (found.flux - flux) / found.error
    assert abs(pulls.std() - 1) < 4 / np.sqrt(2 * len(x))
    rows = run(scene)
    ok, j = matched(rows, x, y)
    assert ok.all()
    assert 0.75 < ((rows["x"][j] - x) / rows["xErr"][j]).std() < 1.25


def test_noise_scale_multiplies_errors():
    scene = Scene(seed=24, shape=(200, 200))
    scene.points(np.array([100.0]), np.array([100.0]), 60.0)
    once, twice = run(scene)[0], run(scene, noise_scale=2.0)[0]
    for name in ("xErr", "psfFluxErr", "apFluxErr"):
        assert twice[name] == pytest.approx(2 * once[name], rel=1e-3)
    assert twice["x_y_Cov"] == pytest.approx(4 * once["x_y_Cov"], rel=1e-2)


def test_science_and_template_fluxes_are_forced_at_the_centroid():
    scene = Scene(seed=25, shape=(300, 300))
    x, y = np.array([80.3, 200.6]), np.array([90.1, 210.4])
    scene.points(x, y, 40.0)
    scene.before = scene.image + scene.draw(x, y, np.array([5000.0, 0.0]))
    scene.matched = scene.draw(x, y, np.array([5000.0, 0.0]))
    rows = run(scene)
    ok, j = matched(rows, x, y)
    assert ok.all()
    assert rows["templateFlux"][j] == pytest.approx(np.array([5000.0, 0.0]), abs=100)
    assert rows["scienceFlux"][j] == pytest.approx(rows["psfFlux"][j] + np.array([5000.0, 0.0]), abs=200)
    assert not rows["forced_PsfFlux_flag"].any()


def test_flags_are_of_the_footprint_and_of_the_nine_central_pixels():
    scene = Scene(seed=26, shape=(300, 300))
    x, y = np.array([60.0, 150.0, 240.0]), np.array([150.0, 150.0, 150.0])
    scene.points(x, y, 40.0)
    scene.mask[150, 60] |= planes.INTRP
    scene.mask[154, 150] |= planes.SUSPECT | planes.INJECTED
    scene.mask[149:152, 239:242] |= planes.HIGH_VARIANCE | planes.SPIKE
    rows = run(scene)
    _, j = matched(rows, x, y)
    first, second, third = rows[j]
    assert first["pixelFlags_interpolated"]
    assert first["pixelFlags_interpolatedCenter"]
    assert not first["interpolatedCenterAll"]
    assert second["pixelFlags_suspect"]
    assert not second["pixelFlags_suspectCenter"]
    assert second["pixelFlags_injected"]
    assert third["high_varianceCenterAll"]
    assert third["spikeCenter"]
    assert not third["pixelFlags_suspect"]
    kept, reasons = quality_cut(rows[j])
    assert kept.tolist() == [True, True, False]
    assert reasons.tolist() == [b"", b"", b"spikeCenter"]


@pytest.mark.parametrize("flag", REMOVED)
def test_every_removal_has_its_reason(flag):
    rows = empty(MEASUREMENT, 3)
    rows[flag][1] = True
    kept, reasons = quality_cut(rows)
    assert kept.tolist() == [True, False, True]
    assert reasons[1] == flag.encode()


def test_a_source_at_the_border_is_flagged_and_measured():
    scene = Scene(seed=27, shape=(200, 200))
    scene.points(np.array([2.0]), np.array([100.0]), 60.0)
    row = run(scene)[0]
    assert row["psfFlux_flag_edge"]
    assert row["apFlux_flag_apertureTruncated"]
    assert row["psfFlux"] / row["psfFluxErr"] > 30


def test_box_size_follows_the_rule():
    rows = empty(MEASUREMENT, 2)
    for name, values in (("bbox_x0", (10, 10)), ("bbox_x1", (19, 19)), ("bbox_y0", (5, 5)), ("bbox_y1", (24, 24)),
                         ("x", (14.5, 10.0)), ("y", (14.5, 6.0))):
        rows[name] = values
    # half height 10 about the middle; about the corner the far edge is 19 away, and 2 x 20 is the limit
    assert bbox_size(rows).tolist() == [21, 38]


def test_sky_sources_are_measured_where_they_are_and_hold_noise():
    scene = Scene(seed=28, shape=(1000, 1000))
    rows = run(scene, sky_sources=40)
    sky = rows[rows["sky_source"]]
    assert len(sky) == 40
    assert np.array_equal(sky["x"], sky["peak_x"])
    pulls = sky["psfFlux"] / sky["psfFluxErr"]
    assert abs(pulls.mean()) < 4 / np.sqrt(40)
    assert abs(pulls.std() - 1) < 4 / np.sqrt(80)


def test_no_detections_give_no_rows():
    assert len(run(Scene(seed=29, shape=(100, 100)))) == 0


def test_a_varying_psf_is_measured_with_what_it_is_there():
    shape = (600, 600)
    ramp = (psf_stamp(41, 5.0) - psf_stamp(41, 3.5)) / 2
    psf = Psf(np.stack([(psf_stamp(41, 5.0) + psf_stamp(41, 3.5)) / 2, ramp, np.zeros((41, 41))]), 1, shape)
    image = np.zeros(shape, np.float32)
    at = np.array([[60, 60], [540, 300], [300, 540]])
    for x, y in at:
        image[y - 20:y + 21, x - 20:x + 21] += 1000 * psf.at(x, y)
    found = force(image, np.ones(shape, np.float32), np.zeros(shape, np.int32), PsfModel.of(psf), *at.T.astype(float))
    assert found.flux == pytest.approx(1000, rel=1e-4)
    central = force(image, np.ones(shape, np.float32), np.zeros(shape, np.int32),
                    PsfModel.of(Psf.constant(psf.central, shape)), *at.T.astype(float))
    assert np.abs(central.flux[:2] - 1000).min() > 10        # the control: one PSF for the whole image


@pytest.mark.bench
def test_measuring_a_hundred_sources_takes_less_than_half_a_second(benchmark):
    scene = Scene(seed=30, shape=(1000, 1000))
    x, y = scene.grid(95.0)
    scene.points(x, y, 20.0)
    detections = detect(scene.difference(), scene.science(), DetectConfig())
    rows = benchmark(measure, detections, scene.science(), scene.template(), MeasureConfig())
    assert len(rows) >= len(x)
    assert benchmark.stats["min"] < 0.5


@pytest.mark.parametrize("plane", [planes.BAD, planes.SAT_TEMPLATE, planes.CR])
def test_pixels_without_weight_do_not_pull_a_source(plane: int) -> None:
    scene = Scene(seed=31, shape=(300, 300))
    x, y = scene.grid(60.0)
    flux = scene.points(x, y, 60.0)
    for u, v in zip(x, y, strict=True):
        scene.mask[round(v) - 1:round(v) + 2, round(u) + 1:round(u) + 3] |= plane
    rows = run(scene)
    ok, j = matched(rows, x, y)
    assert ok.all()
    for c, true in (("x", x), ("y", y)):
        assert np.abs((rows[c][j] - true) / rows[f"{c}Err"][j]).max() < 4.5
    assert np.abs((rows["psfFlux"][j] - flux) / rows["psfFluxErr"][j]).max() < 4.5


# What a scene of all kinds leaves empty, and why.
LATER = {"reliability", "glint_trail"}                     # of later stages
NONE = {"shape_flag_parent_source"}                        # footprints are never parents: nothing is deblended
RARE = {"centroid_flag", "psfFlux_flag", "psfFlux_flag_noGoodPixels", "trail_flag", "shape_flag_no_pixels",
        "pixelFlags", "pixelFlags_offimage", "forced_PsfFlux_flag", "forced_PsfFlux_flag_noGoodPixels",   # failed fits
        "edgeCenter"}                                                    # a centre that moved into the border


def test_every_column_that_measurement_owes_is_filled_on_a_scene_of_all_kinds() -> None:
    scene = Scene(seed=3, shape=(900, 900))
    x, y = scene.grid(60.0)
    scene.points(x, y, np.where(np.arange(len(x)) % 3, 30.0, -30.0))
    scene.moved(np.array([90.0, 330.0]), np.array([90.0, 330.0]), np.array([2.5, 3.0]), np.array([0.0, 1.0]),
                np.array([80.0, 80.0]))
    scene.trails([210.0, 12.0, 690.0], [210.0, 270.0, 750.0], [300 * scene.error] * 3, [40.0, 40.0, 60.0],
                 [0.3, 0.1, 1.2])
    for i, name in enumerate(planes.PLANES.values()):
        for k in (20, 100, 140):
            u, v = round(float(x[k + i])), round(float(y[k + i]))
            scene.mask[v - 1:v + 2, u + 1:u + 3] |= name                   # beside the peak
        u, v = round(float(x[60 + i])), round(float(y[60 + i]))
        if not name & (planes.UNUSABLE | planes.CR | planes.SAT_TEMPLATE):
            scene.mask[v - 1:v + 2, u - 1:u + 2] |= name                   # under it
    rows, columns = np.mgrid[:900, :900]
    scene.image += 60 * np.exp(-0.5 * ((rows - 0.5 * columns - 430) / 3) ** 2)
    found = run(scene, sky_sources=5)
    empty_ones = set()
    for name in MEASUREMENT.names:
        values = found[name]
        used = np.isfinite(values) if values.dtype.kind == "f" else np.ones(len(values), bool)
        if not (values[used] != 0).any():
            empty_ones.add(name)
    assert empty_ones - RARE == LATER | NONE
    ordinary = ~(found["shape_flag"] | found["psfFlux_flag"] | found["trail_flag"] | found["sky_source"])
    assert ordinary.sum() > 150
    some = {"trailLengthErr", "trailAngle", "trailAngleErr", "reliability"}      # of trails alone
    for name in MEASUREMENT.names:
        if found[name].dtype.kind == "f" and not name.startswith("dipole") and name not in some:
            assert np.isfinite(found[name][ordinary]).all(), name
    assert all(np.isfinite(found[name][found["isDipole"]]).all() for name in MEASUREMENT.names
               if name.startswith("dipole"))


def test_a_position_whose_fit_ended_on_no_minimum_has_no_error() -> None:
    rows, found = empty(MEASUREMENT, 2), np.ones((2, 13))
    found[0, fits.XX], found[1, fits.YY] = -1.0, 0.0
    fill(rows, found, 2.0)
    assert rows["xErr"].tolist() == pytest.approx([np.nan, 2.0], nan_ok=True)
    assert rows["yErr"].tolist() == [2.0, 0.0]
