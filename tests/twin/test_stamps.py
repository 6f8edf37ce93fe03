from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from reports.compare import compare
from reports.outcome import of_run
from reports.paired import Rules
from reports.store import Store
from schemas.measures import STAMP_SIDE
from tests.twin.conftest import small
from twin.cache import Cache
from twin.night import run_night
from twin.stamps import HALF, of_sides, stamps_at, window


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cache]:
    """A run folder of one small visit, and the cache that its pixels are in."""
    folder = tmp_path_factory.mktemp("stamps")
    cache = Cache.open(folder / "cache")
    run_night(small(), folder / "run", cache=cache)
    return folder / "run", cache


def _wanted(run: Path) -> list[tuple[int, int, float, float]]:
    return [(int(r["visit"]), int(r["detector"]), float(r["x"]), float(r["y"])) for r in Store(run).table("stamp")]


def test_stamps_from_the_cache_are_those_that_the_run_kept(cached: tuple[Path, Cache]) -> None:
    run, cache = cached
    found = stamps_at(run, cache, _wanted(run))
    assert found
    for (visit, detector), (places, stamps) in found.items():
        kept = Store(run).stamps(visit, detector)
        assert len(places) == len(kept) == len(stamps) > 3
        np.testing.assert_array_equal(stamps[:, [0, 2]], kept[:, [0, 2]])         # science and difference
        same, turned = np.transpose([_alike(*pair) for pair in zip(stamps[:, 1], kept[:, 1], strict=True)])
        assert np.median(same) > 0.95                                              # the same sky, not matched in PSF
        assert np.median(turned) < np.median(same) - 0.1


def _alike(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Correlation of two stamps without their noise, and with one of them turned round."""
    known = np.isfinite(one) & np.isfinite(other)
    a, b = (gaussian_filter(np.where(known, plane, 0), 2)[8:-8, 8:-8] for plane in (one, other))
    return tuple(float(np.corrcoef(a.ravel(), v.ravel())[0, 1]) for v in (b, b[::-1, ::-1]))


def test_what_the_cache_has_not_is_left_out(cached: tuple[Path, Cache], tmp_path: Path) -> None:
    run, cache = cached
    assert stamps_at(run, cache, [(1, 94, 20.0, 20.0)]) == {}                      # no such visit
    visit, detector, x, y = _wanted(run)[0]
    assert stamps_at(run, cache, [(visit, detector + 1, x, y)]) == {}
    assert stamps_at(run, Cache.open(tmp_path / "empty"), _wanted(run)) == {}
    other = tmp_path / "other"                                                     # other settings: other pixels
    other.mkdir()
    text = (run / "scenario.toml").read_text()
    (other / "scenario.toml").write_text(text.replace("threshold = 5.0", "threshold = 5.3", 1))
    assert (other / "scenario.toml").read_text() != text
    assert stamps_at(other, cache, _wanted(run)) == {}


@pytest.mark.parametrize(("x", "y", "known"), [(30.0, 30.0, STAMP_SIDE**2), (0.0, 0.4, (HALF + 1) ** 2),
                                               (99.0, 59.0, (HALF + 1) ** 2), (500.0, 500.0, 0)])
def test_off_the_plane_a_stamp_holds_nothing(x: float, y: float, known: int) -> None:
    plane = np.arange(6000.0).reshape(60, 100)
    stamp = window(plane, x, y)
    assert np.isfinite(stamp).sum() == known
    if known:
        assert stamp[HALF, HALF] == plane[round(y), round(x)]


def test_both_sides_of_a_comparison_have_cutouts_at_its_flips(cached: tuple[Path, Cache], tmp_path: Path) -> None:
    run, cache = cached
    base = of_run(Store(run), 3)
    lost = base.sources.copy()
    lost["alert"], lost["raw"], lost["reason"] = False, False, b"not detected: significance 4.9"
    head = replace(base, sources=lost, folders={3: tmp_path})
    (tmp_path / "scenario.toml").write_text("unheard_of = 1\n")      # of another revision
    found = compare(base, head, Rules(resamples=100))
    ours, theirs = of_sides(found, cache)
    assert sum(len(places) for places, _ in ours.values()) == len(found.flips.shown) > 10
    assert {seed for seed, _, _ in ours} == {3}
    assert theirs == {}
