"""Cosmic rays: sharper than the PSF at any seeing; stars are not eaten."""

from math import erf

import numpy as np
import pytest

from pipeline import cosmicrays
from pipeline.config import DetectConfig
from pipeline.detect import detect
from schemas import mask as planes
from tests.pipeline.differences import Scene

CONFIG = DetectConfig(sky_sources=0)
DIFFUSION = 0.4     # px: 4 micrometres in LSSTCam's silicon


def tracks(shape: tuple[int, int], n: int, rng: np.random.Generator) -> np.ndarray:
    """Straight tracks of exponential length, 20 to 300 sigma per pixel of way, blurred by diffusion."""
    out = np.zeros(shape)
    offset = np.arange(-3, 4)
    integral = np.vectorize(lambda d: 0.5 * (erf((d + 0.5) / DIFFUSION / 2**0.5) - erf((d - 0.5) / DIFFUSION / 2**0.5)))
    for _ in range(n):
        x, y = rng.uniform(60, shape[1] - 60), rng.uniform(60, shape[0] - 60)
        length, angle = min(rng.exponential(8) + 0.5, 50), rng.uniform(0, 2 * np.pi)
        height = 10 ** rng.uniform(2.3, 3.5)
        for s in np.arange(0, length, 0.25):
            u, v = x + s * np.cos(angle), y + s * np.sin(angle)
            i, j = round(u), round(v)
            out[j - 3:j + 4, i - 3:i + 4] += height / 4 * np.outer(integral(offset + j - v), integral(offset + i - u))
    return out


@pytest.mark.parametrize("fwhm", [3.0, 4.0, 7.5])
def test_stars_are_not_taken_for_cosmic_rays_at_any_seeing(fwhm):
    scene = Scene(seed=51, shape=(800, 800), fwhm=fwhm, noiseless=True)
    x, y = scene.grid(16.0)
    clean = scene.draw(x, y, 10 ** scene.rng.uniform(1, 3, len(x)) * scene.error)
    variance = (100 + clean).astype(np.float32)
    image = (clean + scene.rng.normal(0, 1, clean.shape) * np.sqrt(variance)).astype(np.float32)
    found = cosmicrays.find(image, variance, np.ones(image.shape, bool), scene.psf, CONFIG)
    eaten = [found[round(v) - 2:round(v) + 3, round(u) - 2:round(u) + 3].any() for u, v in zip(x, y, strict=True)]
    assert sum(eaten) <= 0.002 * len(x) + 2


@pytest.mark.parametrize("fwhm", [3.5, 6.0])
def test_finding_cosmic_rays_takes_the_false_detections_away(fwhm):
    scene = Scene(seed=52, shape=(600, 600), fwhm=fwhm)
    rays = tracks(scene.shape, 120, scene.rng)
    scene.image += rays
    off = detect(scene.difference(), scene.science(), DetectConfig(sky_sources=0, cosmic_rays=False))
    on = detect(scene.difference(), scene.science(), CONFIG)
    assert len(off.peaks) > 60
    assert len(on.peaks) < 0.05 * len(off.peaks)
    hit = (on.difference.mask & planes.CR) != 0
    assert hit[rays > 100].mean() > 0.98
    assert not ((off.difference.mask & planes.CR) != 0).any()


def test_a_transient_under_a_cosmic_ray_is_still_found():
    scene = Scene(seed=53, shape=(300, 300), fwhm=5.0)
    x, y = scene.grid(60.0)
    scene.points(x, y, 25.0)
    for u, v in zip(x, y, strict=True):
        scene.image[round(v) + 1, round(u) - 4:round(u) + 5] += 3000.0
    on = detect(scene.difference(), scene.science(), CONFIG)
    near = [np.hypot(on.peaks["x"] - u, on.peaks["y"] - v).min() < 3 for u, v in zip(x, y, strict=True)]
    assert np.mean(near) > 0.9


def test_contrast_is_that_of_the_profile():
    scene = Scene(fwhm=4.0, beta=np.inf, shape=(50, 50))
    sigma = 4.0 / np.sqrt(8 * np.log(2))
    expected = [np.exp(-0.5 * r2 / sigma**2) for r2 in (1, 1, 2, 2)]
    assert cosmicrays.contrast(scene.psf) == pytest.approx(expected, rel=1e-6)


def test_lobes_of_a_star_that_moved_are_no_cosmic_rays() -> None:
    scene = Scene(seed=21, shape=(300, 300))
    x, y = scene.grid(50.0)
    scene.moved(x, y, np.full(len(x), 2.0), np.full(len(x), 1.0), np.full(len(x), 80.0))
    image = scene.difference()
    usable = np.ones(image.image.shape, bool)
    assert not cosmicrays.find(image.image, image.variance, usable, image.psf, DetectConfig()).any()
