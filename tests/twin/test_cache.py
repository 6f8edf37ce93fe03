"""The cache: entries whole or not at all, and nights that compute nothing twice and come out the same."""

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.images import Cutouts
from pipeline.psf import Psf
from reports.store import Store
from schemas.wcs import Wcs
from twin import history, recall
from twin.cache import BLOCK, Cache, format_bytes, parse_bytes
from twin.cli import main
from twin.halves import Job, pixel_half, template_job
from twin.night import run_night
from twin.nights import run_nights
from twin.packing import PackingError
from twin.scenario import Scenario, to_toml

from .conftest import SMALL, small

Disk = namedtuple("Disk", ("total", "used", "free"))
ROOT = Path(__file__).resolve().parents[2]
KEYS = [f"{n:032x}" for n in range(1, 40)]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache.open(tmp_path / "cache", 10**9)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def entry(cache: Cache, kind: str = "half", key: str = KEYS[0]) -> Path:
    return cache.folder / kind / key[:2] / key


def left_aside(cache: Cache) -> list[Path]:
    return list((cache.folder / "aside").glob("*/*"))


# --- values ----------------------------------------------------------------------------------------------------------

def same(a: Any, b: Any) -> bool:
    """Equal in type, dtype, order of axes and every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return (a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
                and [x.flags.f_contiguous and not x.flags.c_contiguous for x in (a, b)] in ([True] * 2, [False] * 2))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "__dataclass_fields__"):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return bool(a == b or a != a)


@pytest.mark.parametrize("value", [
    None, True, 3, -2.5, float("nan"), float("inf"), "Ångström", b"\0\1", [1, [2]], (1, (2.0, "x"), []),
    {"a": (1,), 2: []},
    np.float32(1.5), np.int64(3), np.bool_(True), np.arange(6.0).reshape(2, 3), np.asfortranarray(np.eye(3)[:2]),
    np.arange(10)[::2], np.zeros(0, "i4"), np.zeros((0, 3, 5), np.float32), np.array(2.0),
    np.array([(1, b"x", (1.0, 2.0)), (2, b"yy", (3.0, np.nan))], [("a", "i2"), ("b", "S5"), ("c", "f8", (2,))]),
    np.zeros((300, 300), np.int32), np.arange(70_000, dtype=np.uint16), np.array([True, False]),
    Psf.constant(np.ones((5, 5)), (10, 20)), Wcs.tangent(10.0, -5.0, (100, 100)),
    Cutouts(tuple(np.full((n, n), n, np.float32) for n in (30, 31, 102)), (), np.eye(3), (np.ones((2, 2), np.int32),))],
    ids=str)
def test_what_is_kept_comes_back_as_it_was(cache: Cache, value: object) -> None:
    assert same(cache.put("half", KEYS[0], value), value)
    loan = cache.get("half", KEYS[0])
    assert loan is not None
    loan.close()
    assert same(loan.value, value)


def test_arrays_are_writable_and_writing_does_not_reach_the_entry(cache: Cache) -> None:
    cache.put("exposure", KEYS[0], {"image": np.zeros((64, 64), np.float32)})
    for _ in range(2):
        loan = cache.get("exposure", KEYS[0])
        assert loan is not None
        loan.close()
        assert (loan.value["image"] == 0).all()
        loan.value["image"][:] = 1.0


@dataclass(frozen=True)
class Foreign:
    x: int = 1


@pytest.mark.parametrize("value", [object(), np.array([object()]), {1, 2}, Path("/elsewhere"), 1j])
def test_what_cannot_be_kept_exactly_is_refused(cache: Cache, value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        cache.put("half", KEYS[0], value)
    assert not cache.has("half", KEYS[0])
    assert not left_aside(cache)


def test_no_class_but_our_own_dataclasses_is_made_again(cache: Cache) -> None:
    with pytest.raises(PackingError, match="not ours"):
        cache.put("half", KEYS[0], Foreign())


# --- damage ----------------------------------------------------------------------------------------------------------

def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def exchanged(path: Path) -> None:
    """First and last block of a file that has several; of a small one, its halves."""
    data = path.read_bytes()
    n = min(BLOCK, len(data) // 2)
    path.write_bytes(data[-n:] + data[n:len(data) - n] + data[:n])


@pytest.mark.parametrize("harm", [flipped, truncated, exchanged, Path.unlink])
@pytest.mark.parametrize("name", ["entry", "arrays", "plane.npy"])
def test_a_damaged_entry_is_none_and_is_removed(cache: Cache, harm: Any, name: str) -> None:
    def kept() -> bool:
        loan = cache.get("half", KEYS[0])
        if loan is not None:
            loan.close()
        return loan is not None

    with cache.draft("half", KEYS[0]) as draft:
        np.save(draft.folder / "plane.npy", np.arange(10_000.0))
        draft.keep({"x": np.arange(100.0), "plane": draft.folder / "plane.npy"}).close()
    assert kept()
    harm(entry(cache) / name)
    assert not kept()
    assert not entry(cache).exists()
    cache.put("half", KEYS[0], 1)
    assert kept()


def test_an_entry_of_another_form_is_none(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataclass that has other fields now."""
    cache.put("half", KEYS[0], Wcs.tangent(1.0, 2.0, (3, 3)))
    monkeypatch.setattr("twin.packing._class", lambda name: Foreign)
    assert cache.get("half", KEYS[0]) is None


WRITER = """
import sys, time
from pathlib import Path
from twin.cache import Cache
cache = Cache.open(Path(sys.argv[1]))
with cache.draft("half", sys.argv[2]) as draft:
    (draft.folder / "plane.npy").write_bytes(b"half of it")
    print("writing", flush=True)
    time.sleep(60)
    draft.keep(1)
"""


def test_what_a_killed_writer_left_is_swept_and_a_living_one_is_left_alone(cache: Cache) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(cache.folder), key], stdout=subprocess.PIPE,
                                cwd=ROOT) for key in KEYS[:2]]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"writing\n"
        assert len(left_aside(cache)) == 2
        writers[0].send_signal(signal.SIGKILL)
        writers[0].wait()
        cache.sweep()
        assert [path.name.rpartition("~")[2] for path in left_aside(cache)] == [KEYS[1]]
        assert not any(cache.has("half", key) for key in KEYS[:2])
        writers[1].send_signal(signal.SIGKILL)
        writers[1].wait()
        code = "import sys; from pathlib import Path; from twin.cache import Cache; " \
               "Cache.open(Path(sys.argv[1])).put('half', 'aa', 1)"
        subprocess.run([sys.executable, "-c", code, str(cache.folder)], cwd=ROOT, check=True)
        assert not left_aside(cache)         # the next user sweeps by itself, and leaves nothing of its own
        assert not list((cache.folder / "live").iterdir())
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()


def test_an_error_while_writing_leaves_nothing(cache: Cache) -> None:
    with pytest.raises(FileNotFoundError), cache.draft("half", KEYS[0]) as draft:
        draft.keep((draft.folder / "plane.npy").write_bytes(b"half of it") and Path("no such file").read_bytes())
    assert not left_aside(cache)
    assert not cache.has("half", KEYS[0])


# --- the limit -------------------------------------------------------------------------------------------------------

def filled(cache: Cache, n: int, size: int = 10_000) -> None:
    """Entries used longer ago the lower their number."""
    for number, key in enumerate(KEYS[:n]):
        cache.put("half", key, np.zeros(size, np.uint8) + np.arange(size).astype(np.uint8))
        os.utime(entry(cache, key=key) / "used", (1e9 + number, 1e9 + number))


def held(cache: Cache) -> list[int]:
    return [number for number, key in enumerate(KEYS) if cache.has("half", key)]


def test_the_least_recently_used_go_first(cache: Cache) -> None:
    filled(cache, 10)
    loan = cache.get("half", KEYS[2])                   # used just now
    assert loan is not None
    loan.close()
    cache.trim(60_000)
    assert held(cache) == [2, 6, 7, 8, 9]               # 0.9 of the limit holds five of a little over 10 kB
    assert cache.usage()["half"].bytes <= 60_000
    cache.trim(10**6)
    assert len(held(cache)) == 5


def test_what_is_written_is_bounded_as_it_goes(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path / "cache", 100_000)
    for key in KEYS[:30]:
        cache.put("exposure", key, np.random.default_rng(1).integers(0, 255, 10_000, np.uint8))
        assert cache.usage()["exposure"].bytes <= 110_000
    assert cache.has("exposure", KEYS[29])
    assert not cache.has("exposure", KEYS[0])


def test_entries_on_loan_are_not_evicted_and_outlive_even_a_clearing(cache: Cache) -> None:
    filled(cache, 6)
    loan = cache.get("half", KEYS[0])
    assert loan is not None
    os.utime(entry(cache) / "used", (1e9, 1e9))
    cache.trim(0)
    assert held(cache) == [0]
    cache.clear()
    assert held(cache) == []
    assert (loan.folder / "arrays").is_file()
    loan.close()
    assert not left_aside(cache)


def test_a_limit_set_for_the_folder_stays(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(cache, 10)
    cache.keep_limit(50_000)
    assert len(held(cache)) == 4
    assert Cache.open(cache.folder).limit_bytes == 50_000
    monkeypatch.setenv("ALERT_TWIN_CACHE_LIMIT", "2 GB")
    assert Cache.open(cache.folder).limit_bytes == 2 * 10**9
    assert Cache.open(cache.folder, 7).limit_bytes == 7


def test_the_folder_is_the_environments_or_the_homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ALERT_TWIN_CACHE", raising=False)
    assert Cache.open().folder == tmp_path / ".cache" / "rubin-alert-twin"
    monkeypatch.setenv("ALERT_TWIN_CACHE", str(tmp_path / "here"))
    assert Cache.open().folder == tmp_path / "here"


@pytest.mark.parametrize(("free", "limit"), [(300 * 10**9, 20 * 10**9), (60 * 10**9, 20 * 10**9),
                                             (12 * 10**9, 4 * 10**9), (0, 0)])
def test_at_first_use_the_limit_follows_the_free_disk_and_then_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                    free: int, limit: int) -> None:
    monkeypatch.delenv("ALERT_TWIN_CACHE_LIMIT", raising=False)
    asked = []

    def usage(folder: Path) -> Disk:
        asked.append(folder)
        return Disk(10**12, 10**12 - free, free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert Cache.open(tmp_path / "cache").limit_bytes == limit
    assert asked == [tmp_path / "cache"]
    free = 10**9                                            # it has filled, with what the cache holds among others
    assert Cache.open(tmp_path / "cache").limit_bytes == limit
    (tmp_path / "cache" / "limit").write_text("damaged")
    assert Cache.open(tmp_path / "cache").limit_bytes == 10**9 // 3
    monkeypatch.setenv("ALERT_TWIN_CACHE_LIMIT", "1MB")     # once, and for nobody else
    assert Cache.open(tmp_path / "other").limit_bytes == 10**6
    assert not (tmp_path / "other" / "limit").exists()


@pytest.mark.parametrize(("text", "size"), [("5GB", 5 * 10**9), ("500 mb", 5 * 10**8), ("1.5GiB", 3 * 2**29),
                                            ("12", 12), ("0", 0), ("2T", 2 * 10**12)])
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "5 XB", "5GB!", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no size"):
        parse_bytes(text)


def test_sizes_are_written() -> None:
    assert [format_bytes(n) for n in (0, 999, 1000, 4_380_000, 10**10)] == ["0 B", "999 B", "1 KB", "4.38 MB", "10 GB"]


# --- many processes --------------------------------------------------------------------------------------------------

def _work(folder: Path, number: int, rounds: int, wrong: Any) -> None:
    cache, choose = Cache.open(folder, 60_000), random.Random(number)
    for _ in range(rounds):
        index = choose.randrange(12)
        expected = np.full(8_000, index, np.uint8)
        loan = cache.get("half", KEYS[index])
        if loan is None:
            with cache.draft("half", KEYS[index]) as draft:
                np.save(draft.folder / "plane.npy", expected)
                loan = draft.keep((index, draft.folder / "plane.npy"))
        same_index, path = loan.value
        if same_index != index or not np.array_equal(np.load(path), expected):
            wrong.put(index)
        loan.close()
        if choose.random() < 0.05:
            cache.trim(20_000)
        if choose.random() < 0.05:
            cache.sweep()


def test_processes_that_read_write_and_evict_at_once_get_what_they_asked_for(cache: Cache) -> None:
    spawn = multiprocessing.get_context("fork")
    wrong = spawn.SimpleQueue()
    workers = [spawn.Process(target=_work, args=(cache.folder, number, 150, wrong)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert wrong.empty()
    cache.sweep()
    assert not left_aside(cache)
    assert 0 < len(held(cache)) <= 12


# --- the command -----------------------------------------------------------------------------------------------------

def test_the_command_shows_bounds_and_clears(cache: Cache, capsys: pytest.CaptureFixture[str],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    filled(cache, 10)
    loan = cache.get("half", KEYS[9])
    assert loan is not None
    loan.close()
    monkeypatch.setenv("ALERT_TWIN_CACHE", str(cache.folder))
    monkeypatch.delenv("ALERT_TWIN_CACHE_LIMIT", raising=False)
    cache.keep_limit(10**10)
    assert main(["cache"]) == 0
    head, _, row = capsys.readouterr().out.splitlines()
    size = format_bytes(cache.usage()["half"].bytes)
    assert head == f"{cache.folder}: {size} of at most 10 GB"
    assert row.split()[:6] == ["pixel", "halves", "10", *size.split(), "1"]      # entries, size, hits
    assert row.endswith("days ago")
    assert main(["cache", "--limit", "50KB"]) == 0
    assert "of at most 50 KB" in capsys.readouterr().out
    assert len(held(cache)) == 4
    assert main(["cache", "--clear"]) == 0
    assert capsys.readouterr().out.startswith("4 entries removed\n")
    assert held(cache) == []


@pytest.mark.parametrize(("arguments", "said"), [
    (["cache", "FOLDER", "--limit", "much"], "is no size"), (["cache", "FOLDER/file"], "cannot be written"),
    (["cache", "FOLDER/full", "--clear"], "not a cache: it holds other things"),
    (["run", "FOLDER/night.toml", "--out", "FOLDER/run", "--cache", "FOLDER/full"], "not a cache"),
    (["run", "FOLDER/night.toml", "--out", "FOLDER/run", "--seeds", "1", "2", "--seed", "3"], "--seeds")])
def test_what_cannot_be_a_cache_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                 arguments: list[str], said: str) -> None:
    (tmp_path / "full").mkdir()
    for name in ("file", "full/precious", "night.toml"):
        (tmp_path / name).write_text("")
    assert main([word.replace("FOLDER", str(tmp_path)) for word in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert said in printed.err
    assert (tmp_path / "full" / "precious").exists()
    assert not (tmp_path / "run").exists()


# --- nights ----------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cache]:
    """The small night run with an empty cache, and the cache."""
    folder = tmp_path_factory.mktemp("cold")
    cache = Cache.open(folder / "cache", 10**9)
    run_night(small(), folder / "run", cache=cache)
    return folder / "run", cache


@pytest.fixture
def copied(cold: tuple[Path, Cache], tmp_path: Path) -> Cache:
    """A copy of the filled cache, to be spoilt."""
    shutil.copytree(cold[1].folder, tmp_path / "copy")
    return Cache.open(tmp_path / "copy", 10**9)


def contents(folder: Path, *names: str) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for name in names
            for path in sorted((folder / name).rglob("*")) if path.is_file()}


def assert_same_night(one: Path, other: Path) -> None:
    """Packets, stamps, templates and tables."""
    parts = ("alerts", "stamps")
    assert len(contents(one, *parts)) == 4
    assert contents(one, *parts) == contents(other, *parts)
    assert (one / "templates" / "r.fits").read_bytes() == (other / "templates" / "r.fits").read_bytes()
    assert_same_tables(one, other)


def assert_same_tables(one: Path, other: Path) -> None:
    """Every table that no clock of this machine is in."""
    for name in ("truth", "truth_pixels", "measurement", "exposure_log", "trace", "rejection", "publication",
                 "DiaSource", "DiaObject", "DiaForcedSource"):
        rows = [Store(folder).table(name) for folder in (one, other)]
        for column in rows[0].dtype.names or ():
            np.testing.assert_array_equal(rows[0][column], rows[1][column], err_msg=f"{name}.{column}")


def hits(cache: Cache) -> dict[str, int]:
    return {kind: usage.hits for kind, usage in cache.usage().items()}


def no_work(monkeypatch: pytest.MonkeyPatch, *, templates: bool = True) -> None:
    """From here on whoever measures or draws fails."""
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("computed what was computed before")

    monkeypatch.setattr("twin.halves.measure", fail)
    monkeypatch.setattr("simulators.observe.expose", fail)
    if templates:
        monkeypatch.setattr(history, "make_template", fail)


def test_a_night_is_the_same_without_a_cache_with_an_empty_and_with_a_full_one(
        night: Path, cold: tuple[Path, Cache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_same_night(night, cold[0])
    no_work(monkeypatch)
    run_night(small(), tmp_path / "warm", cache=cold[1])
    assert_same_night(night, tmp_path / "warm")
    run_night(small(), tmp_path / "two", cache=cold[1], processes=2)
    assert_same_night(night, tmp_path / "two")
    assert not left_aside(cold[1])


def test_two_processes_fill_a_cache_with_the_same(night: Path, cold: tuple[Path, Cache], tmp_path: Path) -> None:
    cache = Cache.open(tmp_path / "cache", 10**9)
    run_night(small(), tmp_path / "run", cache=cache, processes=2)
    assert_same_night(night, tmp_path / "run")
    keys = [{path.parent.name for path in c.folder.glob("*/*/*/entry")} for c in (cache, cold[1])]
    assert keys[0] == keys[1]
    assert len(keys[0]) == 10         # of exposures, earlier ones, differences and halves two each; a template, a night
    assert not left_aside(cache)


def test_steps_keep_the_time_that_they_took_when_computed(cold: tuple[Path, Cache], tmp_path: Path) -> None:
    run_night(small(), tmp_path / "warm", cache=cold[1])
    pixel = [b"calibrate", b"warp", b"subtract", b"detect", b"measure", b"cutouts", b"reliability"]
    before, after = (Store(folder).table("step") for folder in (cold[0], tmp_path / "warm"))
    for column in ("cpu_s", "peak_mb", "size"):
        pairs = [rows[column][np.isin(rows["name"], pixel)] for rows in (before, after)]
        assert len(pairs[0]) == 2 * len(pixel)
        np.testing.assert_array_equal(*pairs)
    others = [rows["cpu_s"][~np.isin(rows["name"], pixel)] for rows in (before, after)]
    assert not np.array_equal(*others)


def test_a_warm_night_needs_no_sky(cold: tuple[Path, Cache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("made a sky")

    monkeypatch.setattr("twin.observatory.Sky", fail)
    run_night(small(), tmp_path / "warm", cache=cold[1])
    with pytest.raises(AssertionError, match="made a sky"):
        run_night(small(seed=4), tmp_path / "cold", cache=cold[1])
    assert not (tmp_path / "cold").exists()


def test_another_association_finds_every_half_and_another_threshold_every_exposure(
        copied: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_settings(**pipeline: object) -> Scenario:
        return small(pipeline={**SMALL["pipeline"], **pipeline})  # type: ignore[dict-item]

    before = hits(copied)
    run_night(with_settings(detect={"threshold": 12.0}), tmp_path / "detect", cache=copied)
    after = hits(copied)
    assert {kind: after[kind] - before[kind] for kind in after} == {
        "exposure": 2, "earlier": 0, "template": 1, "night": 1, "difference": 2, "half": 0}
    no_work(monkeypatch)
    run_night(with_settings(associate={"radius_arcsec": 0.1}), tmp_path / "associate", cache=copied)
    assert hits(copied)["half"] == after["half"] + 2
    found = [len(Store(tmp_path / run).table("measurement")) for run in ("detect", "associate")]
    assert found[0] < found[1]


def test_a_change_behind_the_difference_image_does_not_make_it_again_and_is_exact(
        copied: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = small(pipeline={**SMALL["pipeline"], "measure": {"fit_dipoles": False}})  # type: ignore[dict-item]
    run_night(scenario, tmp_path / "plain")

    def fail(*_: object) -> None:
        raise AssertionError("subtracted again")

    monkeypatch.setattr("pipeline.subtraction.subtract", fail)
    run_night(scenario, tmp_path / "recalled", cache=copied)
    assert_same_night(tmp_path / "plain", tmp_path / "recalled")
    steps = Store(tmp_path / "recalled").table("step")
    assert (steps["cpu_s"][steps["name"] == b"subtract"] > 0.01).all()
    shutil.rmtree(copied.folder / "difference")
    with pytest.raises(AssertionError, match="subtracted again"):
        run_night(small(pipeline={**SMALL["pipeline"], "measure": {"fit_trails": False}}),  # type: ignore[dict-item]
                  tmp_path / "lost", cache=copied)


def test_a_damaged_half_is_computed_again(night: Path, copied: Cache, tmp_path: Path) -> None:
    places = sorted((copied.folder / "half").glob("*/*"))
    flipped(places[0] / "science_variance.npy")
    (places[1] / "stamps.npy").unlink()
    before = hits(copied)["exposure"]
    run_night(small(), tmp_path / "run", cache=copied)
    assert_same_night(night, tmp_path / "run")
    assert sorted((copied.folder / "half").glob("*/*")) == places
    assert hits(copied)["exposure"] == before + 2


@pytest.mark.parametrize("lost", [("half",), ("half", "difference"), ("half", "exposure", "earlier"), ("template",),
                                  ("half", "template", "earlier"), ("night",)])
def test_whatever_was_evicted_comes_out_the_same(night: Path, copied: Cache, tmp_path: Path,
                                                 lost: tuple[str, ...]) -> None:
    for kind in lost:
        shutil.rmtree(copied.folder / kind)
    run_night(small(), tmp_path / "run", cache=copied)
    assert_same_night(night, tmp_path / "run")


def test_kept_images_are_of_halves_measured_anew(night: Path, copied: Cache, tmp_path: Path) -> None:
    before = hits(copied)["half"]
    run_night(small(), tmp_path / "run", cache=copied, keep_images=True)
    assert_same_night(night, tmp_path / "run")
    assert files(tmp_path / "run" / "images") == files(night / "images")
    assert hits(copied)["half"] == before


def test_a_tiny_limit_costs_time_alone(night: Path, tmp_path: Path) -> None:
    cache = Cache.open(tmp_path / "cache", 100_000)
    for run in ("one", "two"):
        run_night(small(), tmp_path / run, cache=cache)
        assert_same_night(night, tmp_path / run)
    assert sum(usage.bytes for usage in cache.usage().values()) <= 100_000


def test_what_was_computed_from_a_source_that_has_changed_since_is_not_kept(
        night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "STARTED", 0.0)
    cache = Cache.open(tmp_path / "cache", 10**9)
    run_night(small(), tmp_path / "run", cache=cache)
    assert_same_night(night, tmp_path / "run")
    assert cache.usage() == {}


def test_a_failed_half_and_a_band_without_template_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No star is bright enough to calibrate with: a result like another."""
    scenario = small(pipeline={**SMALL["pipeline"], "calibrate": {"star_threshold": 1e9}})  # type: ignore[dict-item]
    cache = Cache.open(tmp_path / "cache", 10**9)
    runs = []
    for name in ("cold", "warm"):
        runs.append(run_night(scenario, tmp_path / name, cache=cache))
        no_work(monkeypatch)
    logs = [Store(tmp_path / name).table("exposure_log") for name in ("cold", "warm")]
    assert [run.done for run in runs] == [0, 0]
    assert logs[0]["status"].tolist() == logs[1]["status"].tolist() == [b"no_work", b"no_work"]
    assert logs[0]["reason"].tolist() == logs[1]["reason"].tolist()
    assert not left_aside(cache)


def test_a_half_asked_for_by_itself_is_recalled(cold: tuple[Path, Cache], tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    from simulators.cadence import visits

    (tmp_path / "scenario.toml").write_text(to_toml(small()))
    no_work(monkeypatch)
    visit = visits(small().simulation, small().seed)[0]
    assert template_job(tmp_path, "r", cold[1]) == "2 exposures"
    half = pixel_half(Job(tmp_path, visit, 94, cache=cold[1]))
    assert half.measured is not None
    forced = half.measured.pixels.force(half.truth["ra"], half.truth["dec"])
    np.testing.assert_array_equal(forced["psfFlux"], half.truth["forced_flux"].astype("f4"))
    half.measured.pixels.close()
    assert not left_aside(cold[1])
    again = pixel_half(Job(tmp_path, visit, 94, cache=cold[1]))       # closing did not reach the entry
    assert again.measured is not None
    again.measured.pixels.close()


def test_entries_are_small(cold: tuple[Path, Cache]) -> None:
    """Four planes of four bytes and two bits; 440 x 440 px here."""
    usage, pixels = cold[1].usage(), 440 * 440
    planes = sum(path.stat().st_size for path in cold[1].folder.glob("half/*/*/*.npy") if path.name != "stamps.npy")
    assert planes / 2 < 16.3 * pixels + 2000
    assert usage["exposure"].bytes / 2 < 4 * pixels + 400_000
    assert usage["difference"].bytes / 2 < 16.1 * pixels + 400_000
    assert usage["earlier"].bytes / 2 < 4.2 * (440 + 2 * 103) ** 2


def test_a_lean_night_has_the_same_tables_and_nothing_else(cold: tuple[Path, Cache], tmp_path: Path) -> None:
    (tmp_path / "night.toml").write_text(to_toml(small()))
    words = ["run", str(tmp_path / "night.toml"), "--quiet", "--cache", str(cold[1].folder), "--lean", "--out"]
    assert main([*words, str(tmp_path / "run")]) == 0
    assert_same_tables(cold[0], tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["measures", "scenario.toml", "stamps",
                                                                         "state.json", "templates"]


def test_nights_together_are_the_nights_alone(night: Path, cold: tuple[Path, Cache], tmp_path: Path) -> None:
    found = run_nights([small(), small(seed=5)], tmp_path / "runs", processes=2, cache=cold[1])
    assert [outcome.folder.name for outcome in found] == ["seed_3", "seed_5"]
    assert_same_night(night, tmp_path / "runs" / "seed_3")
    assert Store(tmp_path / "runs" / "seed_5").table("exposure_log")["status"].tolist() == [b"done", b"done"]


def test_a_night_that_cannot_be_takes_the_others_folders_with_it(tmp_path: Path) -> None:
    platform = msgspec.structs.replace(small().platform, costs="none.toml")
    wrong = msgspec.structs.replace(small(seed=6), platform=platform)
    with pytest.raises(InputError, match=r"none\.toml"):
        run_nights([small(seed=5), wrong], tmp_path / "runs", processes=1)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ValueError, match="same seed"):
        run_nights([small(), small()], tmp_path / "runs")


def test_the_environment_alone_makes_a_run_use_the_cache(cold: tuple[Path, Cache], tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "night.toml").write_text(to_toml(small()))
    words = ["run", str(tmp_path / "night.toml"), "--quiet", "--processes", "1", "--out"]
    monkeypatch.setenv("ALERT_TWIN_CACHE", str(cold[1].folder))
    before = hits(cold[1])["half"]
    assert main([*words, str(tmp_path / "one")]) == 0
    assert hits(cold[1])["half"] == before + 2
    monkeypatch.delenv("ALERT_TWIN_CACHE")
    assert main([*words, str(tmp_path / "two"), "--cache", str(cold[1].folder), "--seeds", "3"]) == 0
    assert hits(cold[1])["half"] == before + 4
    assert (tmp_path / "two" / "seed_3" / "alerts").is_dir()


def children(pid: int) -> list[int]:
    """The processes that a process has, and theirs."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [one for child in found for one in children(child)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nights_that_are_ended_leave_no_process_and_no_folder(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "night.toml").write_text(to_toml(small()))
    words = ["run", str(tmp_path / "night.toml"), "--quiet", "--seeds", "3", "4", "--processes", "2"]
    words += ["--out", str(tmp_path / "runs"), "--cache", str(tmp_path / "c")]
    running = subprocess.Popen([sys.executable, "-m", "twin.cli", *words], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    try:
        limit = time.monotonic() + 120
        while not list(tmp_path.glob("runs/*/scenario.toml")) and time.monotonic() < limit:
            time.sleep(0.02)
        below = children(running.pid)
        assert below
        running.send_signal(number)
        said = running.communicate(timeout=60)[1].decode()
    finally:
        running.kill()
        running.wait()
    assert running.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number], said
    limit = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/exe").exists() for pid in below) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not [pid for pid in below if Path(f"/proc/{pid}/exe").exists()]
    assert number == signal.SIGKILL or not (tmp_path / "runs").exists()
    cache = Cache.open(tmp_path / "c")
    cache.sweep()
    assert not left_aside(cache)
    for kind in cache.usage():
        for place in (cache.folder / kind).glob("*/*"):
            loan = cache.get(kind, place.name)
            assert loan is not None
            loan.close()
