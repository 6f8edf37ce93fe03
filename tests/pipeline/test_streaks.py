"""Streaks: satellites that cross the detector, and nothing shorter."""

import numpy as np
import pytest

from pipeline import streaks
from pipeline.config import DetectConfig, MeasureConfig
from pipeline.detect import detect
from pipeline.measure import measure
from schemas import mask as planes
from tests.pipeline.differences import Scene


def crossing(scene: Scene, angle: float, distance: float, width: float, height: float) -> np.ndarray:
    """Add a satellite of Gaussian profile; (ny, nx) distance of every pixel from its line."""
    y, x = np.mgrid[:scene.shape[0], :scene.shape[1]]
    away = x * np.cos(angle) + y * np.sin(angle) - distance
    scene.image += height * np.exp(-0.5 * (away / (width / 2.355)) ** 2)
    return np.abs(away)


@pytest.mark.parametrize(("angle", "width", "height"), [(0.3, 15.0, 6.0), (1.5707963, 4.0, 15.0), (2.5, 15.0, 50.0),
                                                        (1.0, 4.0, 10.0)])
def test_a_satellite_is_masked_along_its_full_line_at_its_width(angle, width, height):
    scene = Scene(seed=61, shape=(600, 600))
    x, y = scene.grid(70.0)
    scene.points(x, y, 30.0)
    away = crossing(scene, angle, 300 * (np.cos(angle) + np.sin(angle)), width, height)
    found = (detect(scene.difference(), scene.science(), DetectConfig()).difference.mask & planes.STREAK) != 0
    assert found[away < 0.5 * width].mean() > 0.99
    assert not found[away > 1.5 * width + 20].any()


def test_stars_and_asteroid_trails_make_no_streak():
    scene = Scene(seed=62, shape=(800, 800))
    n = 400
    scene.points(*scene.rng.uniform(20, 780, (2, n)), 10 ** scene.rng.uniform(0.8, 2.5, n))
    m = 12
    scene.trails(*scene.rng.uniform(80, 720, (2, m)), np.full(m, 300 * scene.error), np.full(m, 62.0),
                 scene.rng.uniform(0, np.pi, m))
    detections = detect(scene.difference(), scene.science(), DetectConfig())
    assert not (detections.difference.mask & planes.STREAK).any()


def test_without_the_search_sources_on_a_satellite_bear_no_flag():
    scene = Scene(seed=63, shape=(500, 500))
    away = crossing(scene, 0.7, 350.0, 6.0, 14.0)

    def flagged(**changes: object) -> np.ndarray:
        detections = detect(scene.difference(), scene.science(), DetectConfig(sky_sources=0, **changes))
        rows = measure(detections, scene.science(), scene.template(), MeasureConfig())
        on = away[np.clip(rows["peak_y"], 0, 499), np.clip(rows["peak_x"], 0, 499)] < 8
        assert on.any()
        return rows["pixelFlags_streakCenter"][on]

    assert flagged().mean() > 0.95
    assert not flagged(streaks=False).any()


def test_two_satellites_are_two_streaks():
    scene = Scene(seed=64, shape=(500, 500))
    crossing(scene, 0.4, 300.0, 8.0, 20.0)
    crossing(scene, 2.0, 100.0, 8.0, 20.0)
    significance = detect(scene.difference(), scene.science(), DetectConfig()).significance
    found = streaks.find(significance, np.ones(scene.shape, bool), DetectConfig())
    assert len(found) == 2
    angles = sorted(s.angle % np.pi for s in found)
    assert angles == pytest.approx([0.4, 2.0], abs=0.01)


def test_chords():
    assert streaks.chord(0.0, 50.0, (100, 200)) == pytest.approx(99.0)
    assert streaks.chord(np.pi / 2, 50.0, (100, 200)) == pytest.approx(199.0)
    assert streaks.chord(np.pi / 4, 0.0, (100, 200)) == pytest.approx(0.0, abs=1e-6)
    assert streaks.chord(0.0, 500.0, (100, 200)) == 0.0
