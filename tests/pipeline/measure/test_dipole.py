"""Dipoles: stars that moved are told from everything else."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from pipeline.config import DetectConfig, MeasureConfig
from pipeline.detect import detect, significance
from pipeline.measure import measure
from tests.pipeline.differences import Scene


@pytest.fixture(scope="module", params=[3.5, 5.5])
def moved(request: pytest.FixtureRequest) -> tuple[Scene, dict[str, np.ndarray], np.ndarray]:
    """Stars that moved by up to four PSF sigmas, both lobes above 7 sigma in the noise-free difference."""
    scene = Scene(seed=31, shape=(900, 900), fwhm=request.param)
    x, y = scene.grid(60.0, border=45.0)
    size = scene.rng.uniform(0.3, 4.0, len(x)) * scene.psf.sigma
    angle = scene.rng.uniform(-np.pi, np.pi, len(x))
    snr = 10 ** scene.rng.uniform(1.1, 2.3, len(x))
    dx, dy = size * np.cos(angle), size * np.sin(angle)
    clean = scene.moved(x, y, dx, dy, snr).astype(np.float32)
    sharp, _ = significance(clean, scene.variance, np.ones(scene.shape, bool), scene.psf, smooth=0)
    lobes = np.array([[f(sharp[round(v) - 15:round(v) + 16, round(u) - 15:round(u) + 16]) for f in (np.max, np.min)]
                      for u, v in zip(x, y, strict=True)])
    truth = {"x": x, "y": y, "dx": dx, "dy": dy, "size": size, "angle": angle, "flux": snr * scene.error,
             "clear": np.min(np.abs(lobes), axis=1) > 7}
    return scene, truth, rows_of(scene)


def rows_of(scene: Scene, **changes: object) -> np.ndarray:
    detections = detect(scene.difference(), scene.science(), DetectConfig(sky_sources=0))
    return measure(detections, scene.science(), scene.template(), MeasureConfig(**changes))


def nearest(rows: np.ndarray, truth: dict[str, np.ndarray]) -> np.ndarray:
    at = np.column_stack([truth["x"] + truth["dx"] / 2, truth["y"] + truth["dy"] / 2])
    return cKDTree(np.column_stack([rows["x"], rows["y"]])).query(at)[1]


def test_stars_that_moved_are_dipoles(moved):
    _, truth, rows = moved
    found = rows[nearest(rows, truth)]["isDipole"][truth["clear"]]
    assert truth["clear"].sum() > 60
    assert found.mean() > 0.9


def test_lobes_have_their_length_direction_and_flux(moved):
    scene, truth, rows = moved
    chosen = rows[nearest(rows, truth)]
    good = truth["clear"] & chosen["isDipole"] & (truth["size"] > scene.psf.sigma)
    off = (chosen["dipoleAngle"] - np.degrees(truth["angle"]) + 180) % 360 - 180
    assert np.median(np.abs(off[good])) < 3
    assert np.median(np.abs(chosen["dipoleLength"] - truth["size"])[good]) < 0.2 * scene.psf.sigma
    assert np.median(chosen["dipoleMeanFlux"][good] / truth["flux"][good]) == pytest.approx(1, abs=0.05)
    assert np.median(np.abs(chosen["dipoleFluxDiff"])[good] / truth["flux"][good]) < 0.15


def test_a_dipole_stands_where_the_star_is_now(moved):
    _, truth, rows = moved
    chosen = rows[nearest(rows, truth)]
    good = truth["clear"] & chosen["isDipole"]
    away = np.hypot(chosen["x"] - truth["x"] - truth["dx"] / 2, chosen["y"] - truth["y"] - truth["dy"] / 2)
    assert np.median(away[good]) < 0.35


def test_without_the_fit_nothing_is_a_dipole(moved):
    scene, *_ = moved
    rows = rows_of(scene, fit_dipoles=False)
    assert not rows["isDipole"].any()
    assert not rows["dipoleFitAttempted"].any()
    assert np.isnan(rows["dipoleLength"]).all()


def test_a_star_that_faded_in_place_is_no_dipole():
    scene = Scene(seed=32, shape=(400, 400))
    x, y = scene.grid(60.0)
    scene.points(x, y, -40.0)
    # a positive ring of a tenth, as an imperfect match of PSFs leaves
    for u, v in zip(x, y, strict=True):
        scene.image += scene.draw(u + np.array([7.0, -7.0]), v + np.zeros(2), np.full(2, 8 * scene.error))
    rows = rows_of(scene)
    assert rows["dipoleFitAttempted"].any()
    assert rows["isDipole"].mean() < 0.05


def test_very_large_footprints_are_not_tried():
    scene = Scene(seed=33, shape=(200, 200))
    one = np.array([100.0])
    scene.moved(one, one, np.array([6.0]), np.array([0.0]), np.array([20000.0]))
    assert not rows_of(scene)["dipoleFitAttempted"].any()
