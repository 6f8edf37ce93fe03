"""Sweeps on a Dask cluster: a real scheduler and a real worker, on this machine."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import InputError
from tests.twin.killed import OVERRIDES
from twin import cluster
from twin.cli import main
from twin.cluster import connected, differing, present
from twin.sweep import sweep

pytest.importorskip("distributed", reason="the extra `cluster` is not installed")

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "scenarios" / "platform_small.toml"
OVER = ("platform.workers=10:30:10", "platform.cost_scale=1,0.8")


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a scheduler with one worker."""
    folder = tmp_path_factory.mktemp("cluster")
    place = folder / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    common = ["--no-dashboard", "--scheduler-file", str(place)]
    with (folder / "log").open("w") as log:
        children = [subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1",
                                      "--port", "0", *common], env=environment, cwd=folder, stdout=log, stderr=log)]
        try:
            _wait(place.is_file, children)
            children.append(subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny", "--host",
                 "127.0.0.1", "--local-directory", str(folder), *common], env=environment, cwd=folder, stdout=log,
                stderr=log))
            address = json.loads(place.read_text())["address"]
            _wait(lambda: "Registered to" in (folder / "log").read_text(), children)
            yield address
        finally:
            for child in reversed(children):
                child.terminate()
                child.wait(30)


def _wait(done, children: list["subprocess.Popen[bytes]"]) -> None:  # type: ignore[no-untyped-def]
    limit = time.monotonic() + 60
    while not done():
        assert time.monotonic() < limit
        assert all(child.poll() is None for child in children)
        time.sleep(0.05)


def test_a_cluster_finds_what_one_process_finds(scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_bytes((ROOT / "scenarios" / "costs" / "constant.toml").read_bytes())
    scenario = tmp_path / "night.toml"                    # its table lies here, where workers elsewhere see nothing
    scenario.write_text(f'base = "{SMALL}"\n[platform]\ncosts = "mine.toml"\n')
    sweep(scenario, OVER, tmp_path / "local", overrides=OVERRIDES)
    with monkeypatch.context() as patched:
        patched.setattr("twin.sweep.point_of", lambda *given: pytest.fail("a point was simulated here"))
        axes = [word for axis in OVER for word in ("--over", axis)]
        assert main(["sweep", str(scenario), *axes, "--out", str(tmp_path / "there"), "--quiet", "--cluster", scheduler,
                     *OVERRIDES]) == 0
    assert "6 platforms" in capsys.readouterr().out
    for name in ("surface.csv", "surface.png"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


def test_workers_of_another_version_are_refused_in_a_line(scheduler: str, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    there = present()
    monkeypatch.setattr(cluster, "here", lambda: there | {"source": "other"})
    with pytest.raises(InputError, match=rf"worker tcp://127\.0\.0\.1:\d+ has source {there['source']}, here other; "
                       "install the same there"):
        sweep(SMALL, OVER, tmp_path / "out", overrides=OVERRIDES, cluster=scheduler)
    assert differing(there, {"tcp://a": there}) == ""
    assert differing({"numpy": "2.1"}, {"tcp://b": {"numpy": "2.0"}, "tcp://a": {"numpy": "2.1"}}) == (
        "worker tcp://b has numpy 2.0, here 2.1")


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ANSWER_S", 0.5)
    with pytest.raises(InputError, match=r"cluster tcp://127\.0\.0\.1:9: no scheduler answers there"), \
            connected("tcp://127.0.0.1:9"):
        pass
    with pytest.raises(InputError, match=r"cluster nowhere://x: no scheduler answers there"), connected("nowhere://x"):
        pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"install rubin-alert-twin\[cluster\]"):
        sweep(SMALL, OVER, tmp_path / "out", overrides=OVERRIDES, cluster="tcp://127.0.0.1:9")
