"""How long differencing takes, and a neutral benchmark's verdict on it where that benchmark lies beside the project."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from pipeline.config import DifferenceConfig
from pipeline.difference import subtract
from tests.conftest import SHARED
from tests.pipeline import pairs

ROOT = Path(__file__).resolve().parents[2]
NEUTRAL = SHARED / "bench" / "diffbench"
POOL = ("p4_mid", "p6_ccd", "p7_ccd_hard")

pytestmark = pytest.mark.bench


@pytest.mark.parametrize("shape", [(1000, 1000), (2000, 2000), (4000, 4072)])
def test_subtraction(benchmark: BenchmarkFixture, shape: tuple[int, int]) -> None:
    pair = pairs.make(shape=shape, stars=shape[0] * shape[1] // 8000)
    spent = []

    def work() -> float:
        begun = time.process_time()
        difference = subtract(pair.science, pair.template, DifferenceConfig())
        spent.append(time.process_time() - begun)
        return difference.noise_scale

    scale = benchmark.pedantic(work, rounds=3, warmup_rounds=1)
    benchmark.extra_info["CPU s"] = min(spent)
    assert 0.97 < scale < 1.03


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], dict[str, Any]]:
    """Timing and scores of every public scene on one core, and timings of the CCDs on two."""
    if not NEUTRAL.is_dir():
        pytest.skip(f"no neutral benchmark beside the project (looked for {NEUTRAL.parent.name}/{NEUTRAL.name})")
    place = tmp_path_factory.mktemp("diffbench")
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{NEUTRAL}", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}

    def run(*arguments: object) -> str:
        return subprocess.run([sys.executable, *map(str, arguments)], cwd=NEUTRAL, env=env, check=True, text=True,
                              stdout=subprocess.PIPE).stdout

    run("make_scenes.py", "scenes/public.json", place / "scenes")
    adapter = Path(__file__).with_name("diffbench_adapter.py")
    bench = ["run_bench.py", "--adapter", adapter, "--data", place / "scenes", "--out", place / "results"]
    run(*bench)
    run(*bench, "--threads", 2, "--time-only", "--only", *POOL[1:])
    print(f"\n{run('tabulate.py', place / 'results')}\n{run('tabulate.py', place / 'results', '--pool', *POOL)}")
    out = {}
    for path in sorted((place / "results").glob("*.json")):
        found = json.loads(path.read_text())
        assert "error" not in found, found.get("error")
        out[found["scene"], found["threads"]] = found
    return out


def test_a_ccd_takes_seconds_and_a_gigabyte(scored: dict[tuple[str, int], dict[str, Any]]) -> None:
    for scene in POOL[1:]:
        one, two = (scored[scene, n]["timing"] for n in (1, 2))
        print(f"{scene}: CPU {one['cpu']:.2f} s, wall on two cores {two['wall']:.2f} s, peak {one['peak_mb']:.0f} MB, "
              f"first call {one['wall_first'] - one['wall']:.2f} s more")
        assert one["peak_mb"] < 1300
        assert one["wall_first"] < one["wall"] + 2
        assert one["cpu"] < 2.5
        assert two["wall"] < 1.6


def test_the_differences_are_clean(scored: dict[tuple[str, int], dict[str, Any]]) -> None:
    scores = [scored[scene, 1]["score"] for scene in POOL]
    found = [bool(seen) for score in scores for snr, seen in score["claimed"]["pool"] if 5.5 <= snr < 6.5]
    pulls = np.concatenate([score["pool_pull"] for score in scores])
    low, middle, high = np.percentile(pulls, [15.865, 50, 84.135])
    assert sum(found) >= 600
    assert np.mean([score["claimed"]["fp_ccd"] for score in scores]) <= 100
    assert all(score["star16-18.5"]["chi2"] <= 2.5 for score in scores)
    assert 0.97 < (high - low) / 2 < 1.03
    assert abs(middle) < 0.08
    assert all(0.98 < score["score_std"] < 1.02 for score in scores)
    assert scored["p5_crowded", 1]["score"]["claimed"]["fp"] <= 350
    assert scored["p2_sharper", 1]["score"]["star16-18.5"]["chi2"] <= 5
