"""Pixels for forced photometry: one battery for memory and disk."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.pixels import PixelsInMemory, PixelsOnDisk
from pipeline.ports import Pixels
from schemas import mask as planes
from schemas.measures import FORCED
from tests.pipeline.differences import Scene

Make = Callable[[Scene], Pixels]


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    def made(scene: Scene) -> Pixels:
        if request.param == "memory":
            return PixelsInMemory(scene.difference(1.1), scene.science(), scene.wcs)
        written = PixelsOnDisk.write(tmp_path / "scratch", scene.difference(1.1), scene.science(), scene.wcs)
        return pickle.loads(pickle.dumps(written))      # as it comes from a worker

    return made


@pytest.fixture(scope="module")
def scene() -> Scene:
    scene = Scene(seed=71, shape=(500, 500))
    x, y = scene.grid(16.0)
    scene.before = scene.rng.normal(0, 10, scene.shape) + scene.draw(x, y, np.full(len(x), 3000.0))
    scene.points(x, y, 10.0)
    scene.x, scene.y = x, y
    return scene


def test_fluxes_at_sky_positions_have_unit_pulls(make, scene):
    pixels = make(scene)
    rows = pixels.force(*scene.wcs.sky(scene.x, scene.y))
    assert rows.dtype == FORCED
    assert np.allclose(rows["x"], scene.x, atol=1e-6)
    crowd = 0.2 * scene.error                    # neighbours 16 px away
    pulls = (rows["psfFlux"] - 10 * scene.error - crowd) / rows["psfFluxErr"] * 1.1
    assert abs(pulls.std() - 1) < 4 / np.sqrt(2 * len(rows))
    assert rows["psfFluxErr"] == pytest.approx(1.1 * scene.error, rel=0.02)
    assert rows["scienceFlux"].mean() == pytest.approx(3000, rel=0.05)
    assert rows["scienceFluxErr"] == pytest.approx(scene.error, rel=0.02)
    assert rows["inside"].all()
    pixels.close()


def test_positions_off_the_image_and_on_bad_pixels_are_flagged(make):
    scene = Scene(seed=72, shape=(200, 200))
    scene.mask[90:111, 90:111] = planes.SAT
    pixels = make(scene)
    rows = pixels.force(*scene.wcs.sky(np.array([100.0, 2.0, -30.0, 150.0]), np.array([100.0, 100.0, 100.0, 150.0])))
    assert rows["inside"].tolist() == [True, True, False, True]
    assert rows["flag_noGoodPixels"].tolist() == [True, False, True, False]
    assert rows["flag_edge"].tolist() == [False, True, True, False]
    assert np.isnan(rows["psfFlux"][2])
    assert np.isfinite(rows["psfFlux"][[1, 3]]).all()
    pixels.close()


def test_no_positions_give_no_rows(make, scene):
    pixels = make(scene)
    assert len(pixels.force(np.zeros(0), np.zeros(0))) == 0
    pixels.close()


def test_the_other_side_of_the_sky_is_off_the_image(make, scene):
    pixels = make(scene)
    rows = pixels.force(np.array([330.0]), np.array([30.0]))
    assert not rows["inside"][0]
    assert np.isnan(rows["psfFlux"][0])
    pixels.close()


def test_memory_and_disk_agree_to_the_bit(scene, tmp_path):
    ra, dec = scene.wcs.sky(scene.x, scene.y)
    disk = PixelsOnDisk.write(tmp_path / "scratch", scene.difference(), scene.science(), scene.wcs)
    memory = PixelsInMemory(scene.difference(), scene.science(), scene.wcs)
    assert disk.force(ra, dec).tobytes() == memory.force(ra, dec).tobytes()
    disk.close()


def test_closing_deletes_the_folder_and_may_be_repeated(scene, tmp_path):
    pixels = PixelsOnDisk.write(tmp_path / "scratch", scene.difference(), scene.science(), scene.wcs)
    assert len(list((tmp_path / "scratch").iterdir())) == 6
    assert len(pickle.dumps(pixels)) < 100_000
    pixels.close()
    pixels.close()
    assert not (tmp_path / "scratch").exists()


def test_an_occupied_folder_is_refused(scene, tmp_path):
    with pytest.raises(FileExistsError):
        PixelsOnDisk.write(tmp_path, scene.difference(), scene.science(), scene.wcs)


@pytest.mark.bench
def test_forcing_a_thousand_positions_takes_less_than_half_a_second(benchmark, scene):
    pixels = PixelsInMemory(scene.difference(), scene.science(), scene.wcs)
    ra, dec = scene.wcs.sky(np.resize(scene.x, 1000), np.resize(scene.y, 1000))
    assert len(benchmark(pixels.force, ra, dec)) == 1000
    assert benchmark.stats["min"] < 0.5
