"""Trails against what was drawn and against the Fisher bound."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from pipeline.config import DetectConfig, MeasureConfig
from pipeline.detect import detect
from pipeline.measure import measure
from pipeline.measure.trail import Mixture, to_pixels
from pipeline.psf import Psf
from tests.pipeline.differences import SIGMA, Scene
from tests.pipeline.fields import profile, psf_stamp


def rows_of(scene: Scene, **changes: object) -> np.ndarray:
    detections = detect(scene.difference(), scene.science(), DetectConfig(sky_sources=0))
    return measure(detections, scene.science(), scene.template(), MeasureConfig(**changes))


def fisher(scene: Scene, flux: float, length: float, angle: float) -> np.ndarray:
    """Least errors of flux, x, y, length, angle of a trail in white noise, by differences of drawn trails."""
    half = int(length / 2 + 5 * scene.psf.sigma) + 2
    rows, columns = np.mgrid[-half:half + 1, -half:half + 1]
    n = int(length / 1.5) + 4
    s = (np.arange(n) + 0.5) / n - 0.5

    def draw(p: np.ndarray) -> np.ndarray:
        u, v = p[1] + s * p[3] * np.cos(p[4]), p[2] + s * p[3] * np.sin(p[4])
        dots = [profile(columns - a, rows - b, scene.fwhm, scene.beta) for a, b in zip(u, v, strict=True)]
        return p[0] * np.mean(dots, axis=0)

    at, jacobian = np.array([flux, 0.0, 0.0, length, angle]), []
    for i, h in enumerate((flux / 100, 0.05, 0.05, 0.1, 0.02)):
        step = np.zeros(5)
        step[i] = h
        jacobian.append(((draw(at + step) - draw(at - step)) / (2 * h)).ravel())
    j = np.array(jacobian) / SIGMA
    return np.sqrt(np.diag(np.linalg.inv(j @ j.T)))


@pytest.fixture(scope="module", params=[(3.5, 0.0), (5.0, 0.08)])
def drawn(request: pytest.FixtureRequest) -> tuple[Scene, dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Trails longer than five PSF sigmas with a peak S/N of 7 to 20; truth, rows, and which row is whose."""
    fwhm, ellipticity = request.param
    scene = Scene(seed=41, shape=(900, 900), fwhm=fwhm, ellipticity=ellipticity)
    x, y = scene.grid(110.0, border=60.0)
    n, sigma = len(x), scene.psf.sigma
    length = scene.rng.uniform(5.2 * sigma, 60.0, n)
    angle = scene.rng.uniform(-np.pi / 2, np.pi / 2, n)
    flux = scene.rng.uniform(7, 20, n) * length / (2 * np.sqrt(np.pi) * sigma) * scene.error
    scene.trails(x, y, flux, length, angle)
    rows = rows_of(scene)
    j = cKDTree(np.column_stack([rows["x"], rows["y"]])).query(np.column_stack([x, y]))[1]
    return scene, {"x": x, "y": y, "flux": flux, "length": length, "angle": angle}, rows, j


def test_trails_have_their_length_and_angle(drawn):
    _, truth, rows, j = drawn
    rows = rows[j]
    assert not rows["trail_flag"].any()
    error = np.abs(rows["trailLength"] - truth["length"])
    off = np.abs((rows["trailAngle"] - np.degrees(truth["angle"]) + 90) % 180 - 90)
    assert np.median(error / truth["length"]) < 0.10
    assert np.median(off) < 3
    assert np.mean(error / truth["length"] < 0.3) > 0.9


def test_errors_are_near_the_fisher_bound_and_as_claimed(drawn):
    scene, truth, rows, j = drawn
    rows = rows[j]
    unit = np.array([fisher(scene, 1000.0, size, 0.0) for size in (10.0, 20.0, 35.0, 60.0)])
    bound = np.array([np.interp(truth["length"], (10.0, 20.0, 35.0, 60.0), c) for c in (unit[:, 0], unit[:, 3])]).T
    bound[:, 1] *= 1000.0 / truth["flux"]        # in white noise the error of a length goes as 1 / flux
    for i, (name, true) in enumerate((("trailFlux", truth["flux"]), ("trailLength", truth["length"]))):
        miss = np.abs(rows[name] - true)
        # the median of |normal| is 0.6745 sigma; 64 trails know it to a seventh
        assert np.median(miss / bound[:, i]) / 0.6745 < 1.3 + 0.2, name
        assert np.median(rows[f"{name}Err"] / bound[:, i]) == pytest.approx(1.0, abs=0.2), name
    for c in ("X", "Y"):
        pulls = (rows[f"trail{c}"] - truth[c.lower()]) / rows[f"trail{c}Err"]
        assert np.median(np.abs(pulls)) / 0.6745 == pytest.approx(1.0, abs=0.35), c


def test_a_trailed_source_stands_on_the_middle_of_its_trail(drawn):
    scene, truth, rows, j = drawn
    away = np.hypot(rows["x"][j] - truth["x"], rows["y"][j] - truth["y"])
    assert np.median(away) < 0.5 * scene.psf.sigma
    assert np.mean(away < 5.0) > 0.95        # 1 arcsec
    assert rows["trail_suspect_long"][j].all()


def test_without_the_fit_the_flux_of_trails_is_lost(drawn):
    scene, truth, rows, j = drawn
    assert np.median(rows["trailFlux"][j] / truth["flux"]) == pytest.approx(1.0, abs=0.05)
    plain = rows_of(scene, fit_trails=False)
    at = cKDTree(np.column_stack([plain["x"], plain["y"]])).query(np.column_stack([truth["x"], truth["y"]]))[1]
    assert np.median(plain["psfFlux"][at] / truth["flux"]) < 0.5
    assert plain["trail_flag"].all()
    assert np.isnan(plain["trailLength"]).all()


def test_two_stars_side_by_side_are_no_trail():
    scene = Scene(seed=43, shape=(500, 500), fwhm=5.0)
    x, y = scene.grid(70.0)
    scene.points(x, y, 40.0)
    scene.points(x + 6.5, y, 20.0)          # 1.3 FWHM: one footprint, one maximum
    rows = rows_of(scene)
    distance, j = cKDTree(np.column_stack([rows["x"], rows["y"]])).query(np.column_stack([x, y]))
    assert np.mean(rows["trailLength"][j] == 0) > 0.8
    assert np.median(distance) < 0.5        # on the brighter one, not between


def test_a_trail_off_the_image_is_flagged():
    scene = Scene(seed=42, shape=(200, 200))
    scene.trails([10.0], [100.0], [150 * scene.error], [40.0], [0.1])
    row = rows_of(scene)[0]
    assert row["trail_off_image"]
    assert row["trail_flag_edge"]


def test_a_mixture_of_gaussians_draws_the_psf():
    for fwhm, ellipticity in ((3.5, 0.0), (5.0, 0.15)):
        psf = Psf.constant(psf_stamp(41, fwhm, 3.5, ellipticity, 30.0), (100, 100))
        mixture = Mixture.of(psf)
        assert np.linalg.det(mixture.frame) == pytest.approx(1.0)
        y, x = np.mgrid[-20:21, -20:21]
        q = np.einsum("ij,jkl->ikl", mixture.frame, np.array([x, y]))
        drawn = sum(a * np.exp(-0.5 * (q**2).sum(0) / s**2) / (2 * np.pi * s**2)
                    for a, s in zip(mixture.basis[0], mixture.sigmas, strict=True))
        assert np.abs(drawn - psf.central).max() < 0.03 * psf.central.max()
        assert drawn.sum() == pytest.approx(1.0, abs=0.02)


def test_lengths_and_angles_come_back_from_the_round_frame():
    frame = np.array([[1.2, 0.1], [0.1, (1 + 0.01) / 1.2]])
    found = np.zeros((2, 35))
    for k, (length, angle) in enumerate(((20.0, 0.3), (8.0, -1.2))):
        line = frame @ np.array([length * np.cos(angle), length * np.sin(angle)])
        found[k, :5] = 7.0, *(frame @ np.array([30.0, 40.0])), np.hypot(*line), np.arctan2(line[1], line[0]) + np.pi
    flux, x, y, length, angle, _ = to_pixels(found, frame)
    assert np.allclose(np.column_stack([flux, x, y, length, angle]), [[7, 30, 40, 20, 0.3], [7, 30, 40, 8, -1.2]])
