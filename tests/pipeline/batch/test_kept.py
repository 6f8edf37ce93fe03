"""Differences kept for precovery: what comes back, how small it is, and one battery for folder and memory."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.batch.kept import FIRST_ID, Archive, FolderArchive, MemoryArchive
from pipeline.errors import InputError
from pipeline.pixels import PixelsInMemory, PixelsOnDisk, Planes
from schemas import mask as planes
from schemas.exposure import Visit
from schemas.wcs import Wcs
from tests.pipeline.differences import Scene


@pytest.fixture(params=["folder", "memory"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    return FolderArchive(tmp_path / "kept") if request.param == "folder" else MemoryArchive()


def scene_of(shape: tuple[int, int] = (400, 400)) -> Scene:
    scene = Scene(seed=3, shape=shape)
    x, y = scene.grid(40.0)
    scene.points(x, y, np.linspace(0, 40, len(x)))
    scene.x, scene.y = x, y  # type: ignore[attr-defined]
    scene.mask[50:60, 50:60] = planes.SAT
    return scene


def planes_of(scene: Scene) -> Planes:
    return PixelsInMemory(scene.difference(1.1), scene.science(), scene.wcs).planes()


def visit_of(number: int, mjd: float) -> Visit:
    return Visit(2026010100000 + number, "i", 150.0, -30.0, 12.5, mjd, 30.0, 1.2, "a reason", "a field")


def test_forced_fluxes_on_what_was_kept_are_those_of_the_pixels(archive: Archive) -> None:
    scene = scene_of()
    size = archive.keep(visit_of(1, 61000.0), 7, planes_of(scene))
    (kept,) = archive.kept(60990.0, 61010.0)
    assert (kept.visit, kept.detector, kept.wcs, kept.shape) == (visit_of(1, 61000.0), 7, scene.wcs, scene.shape)
    at = scene.wcs.sky(np.append(scene.x, [55.0, -20.0]), np.append(scene.y, [55.0, 10.0]))  # type: ignore[attr-defined]
    before = PixelsInMemory(scene.difference(1.1), scene.science(), scene.wcs).force(*at)
    after = archive.pixels(kept).force(*at)
    n = len(scene.x)  # type: ignore[attr-defined]
    shift = (after["psfFlux"] - before["psfFlux"])[:n] / before["psfFluxErr"][:n]
    assert np.abs(shift).max() < 0.15                        # rounding: 1/sqrt(12)/8 sigma of a pixel, 0.036
    assert abs(shift.mean()) < 4 * 0.036 / np.sqrt(n)
    np.testing.assert_allclose(after["psfFluxErr"][:n], before["psfFluxErr"][:n], rtol=0.01)
    for name in ("inside", "flag_edge", "flag_noGoodPixels"):
        np.testing.assert_array_equal(after[name], before[name])
    assert np.all(np.isnan(after["scienceFlux"]))
    assert size <= (0.9 if isinstance(archive, FolderArchive) else 9.1) * 400 * 400


def test_a_finer_step_takes_more_room_and_a_coarser_one_spoils_the_flux(tmp_path: Path) -> None:
    scene = scene_of()
    at = scene.wcs.sky(scene.x, scene.y)  # type: ignore[attr-defined]
    before = PixelsInMemory(scene.difference(), scene.science(), scene.wcs).force(*at)
    found = {}
    for steps in (0.5, 8.0, 64.0):
        archive = FolderArchive(tmp_path / f"{steps}", noise_steps=steps)
        size = archive.keep(visit_of(1, 61000.0), 7, replace(planes_of(scene), noise_scale=1.0))
        after = archive.pixels(archive.kept(0, 1e9)[0]).force(*at)
        found[steps] = size, float(np.std((after["psfFlux"] - before["psfFlux"]) / before["psfFluxErr"]))
    assert found[0.5][0] < found[8.0][0] < found[64.0][0]
    assert found[0.5][1] > 0.3 > 0.06 > found[8.0][1] > found[64.0][1]


def test_pixels_on_disk_are_kept_as_those_in_memory(tmp_path: Path) -> None:
    scene = scene_of()
    scene.image[100, 100] = np.nan
    on_disk = PixelsOnDisk.write(tmp_path / "scratch", scene.difference(1.1), scene.science(), scene.wcs)
    archives = [FolderArchive(tmp_path / name) for name in "ab"]
    for archive, pixels in zip(archives, (planes_of(scene), on_disk.planes()), strict=True):
        archive.keep(visit_of(1, 61000.0), 7, pixels)
    one, other = (next(archive.folder.glob("*.npz")).read_bytes() for archive in archives)
    assert one == other
    on_disk.close()


def test_what_is_kept_is_found_by_time_replaced_and_let_go(archive: Archive) -> None:
    small = planes_of(scene_of((120, 120)))
    for number, mjd in ((3, 61003.0), (1, 61001.0), (2, 61002.0), (2, 61002.0)):
        archive.keep(visit_of(number, mjd), 7, small)
    assert [kept.visit.mjd_tai for kept in archive.kept(61001.5, 61010.0)] == [61002.0, 61003.0]
    assert [kept.visit.mjd_tai for kept in archive.kept(0, 61002.0)] == [61001.0]
    first = archive.kept(0, 61002.0)[0]
    assert [archive.reserve(first, 5), archive.reserve(first, 2)] == [FIRST_ID, FIRST_ID + 5]
    assert archive.expire(61002.0) == 1
    assert len(archive.kept(0, 1e9)) == 2


def test_a_folder_says_its_size_and_remembers_ids_across_processes(tmp_path: Path) -> None:
    archive = FolderArchive(tmp_path / "kept")
    size = archive.keep(visit_of(1, 61000.0), 7, planes_of(scene_of((120, 120))))
    (kept,) = archive.kept(0, 1e9)
    archive.reserve(kept, 9)
    again = FolderArchive(tmp_path / "kept")
    assert again.size() == size
    assert again.reserve(kept, 1) == FIRST_ID + 9
    assert again.kept(0, 1e9) == [kept]
    assert again.expire(np.inf) == 1
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_file_that_is_none_of_ours_is_named(tmp_path: Path) -> None:
    archive = FolderArchive(tmp_path)
    path = tmp_path / "2026010100001_7.npz"
    path.write_bytes(b"PK not a file")
    with pytest.raises(InputError, match=r"2026010100001_7.npz: not a kept difference"):
        archive.kept(0, 1e9)
    np.savez(path, allow_pickle=False, other=np.zeros(3))
    with pytest.raises(InputError, match=r"2026010100001_7.npz: not a kept difference"):
        archive.kept(0, 1e9)


def test_a_bent_wcs_comes_back(tmp_path: Path) -> None:
    bent = Wcs((50.0, 60.0), (150.0, -30.0), (-5e-5, 1e-7, 1e-7, 5e-5), "TAN-SIP", ((2, 0, 0, 1e-7),),
               ((0, 2, 0, 2.5e-7), (1, 1, 0, -1e-8)))
    archive = FolderArchive(tmp_path)
    archive.keep(visit_of(1, 61000.0), 7, replace(planes_of(scene_of((120, 120))), wcs=bent))
    assert archive.kept(0, 1e9)[0].wcs == bent
