"""Detection and measurement of a whole CCD: CPU time on one core, memory, and how they grow."""

import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from pipeline.config import DetectConfig, MeasureConfig
from pipeline.detect import detect
from pipeline.measure import measure
from tests.benchmarks.ccd import Ccd, ccd

pytestmark = pytest.mark.bench


@cache
def planes() -> Ccd:
    return ccd(1500)


def found(planes: Ccd) -> tuple[np.ndarray, float, float]:
    """MEASUREMENT rows, and CPU seconds of detection and of measurement."""
    start = time.process_time()
    detections = detect(planes.difference, planes.science, DetectConfig())
    middle = time.process_time()
    rows = measure(detections, planes.science, planes.template, MeasureConfig())
    return rows, middle - start, time.process_time() - middle


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    found(ccd(20, shape=(300, 300), n_stars=20, n_rays=3, n_trails=2, n_dipoles=3, satellite=False))


@pytest.mark.benchmark(timer=time.process_time)
def test_a_ccd_with_1500_candidates_takes_three_seconds(benchmark):
    whole = planes()
    rows, *_ = benchmark.pedantic(found, (whole,), rounds=6)
    bright = np.abs(whole.snr) > 7
    away = cKDTree(np.column_stack([rows["x"], rows["y"]])).query(np.column_stack([whole.x, whole.y]))[0]
    assert len(rows) > 1500
    assert np.mean(away[bright] < 2) > 0.93       # the others are on masks, or on one another
    assert benchmark.stats["min"] < 3.0


def test_time_is_linear_in_sources():
    print()
    times = []
    for n in (500, 1000, 2000):
        whole = ccd(n, n_dipoles=n // 25, n_trails=n // 50, satellite=False)
        runs = [found(whole) for _ in range(3)]
        times.append((len(runs[0][0]), min(r[1] for r in runs), min(r[2] for r in runs)))
        print(f"{times[-1][0]} sources: detection {times[-1][1]:.2f} s, measurement {times[-1][2]:.2f} s of CPU")
    (few, *_, some), (many, *_, more) = times[0], times[-1]
    assert more / some < 1.35 * many / few
    assert times[-1][1] < 2 * times[0][1]       # detection is of pixels


def test_time_is_linear_in_pixels():
    print()
    times = []
    for side in (1000, 2000, 4000):
        part = ccd(1500 * side**2 // 4000**2, shape=(side, side), n_dipoles=60 * side**2 // 4000**2, n_trails=2,
                   n_rays=300 * side**2 // 4000**2, n_stars=1500 * side**2 // 4000**2, satellite=False)
        times.append(min(found(part)[1] for _ in range(3)))
        print(f"{side} x {side} pixels: detection {times[-1]:.2f} s of CPU")
    assert times[-1] / times[0] < 16 * 1.35


MEMORY = """
from tests.benchmarks.ccd import ccd
from tests.benchmarks.test_detection import found
def peak(key):
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith(key))
whole = ccd(1500)
open("/proc/self/clear_refs", "w").write("5")      # the scene's own making does not count
before = peak("VmRSS")
found(whole)
print(before, peak("VmHWM"))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks of memory are read from /proc")
def test_a_process_with_its_inputs_stays_under_1300_megabytes():
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", MEMORY], cwd=root, capture_output=True, text=True, check=True).stdout
    before, peak = (float(word) for word in out.split())
    print(f"\nwith the inputs {before:.0f} MB, at most {peak:.0f} MB")
    assert peak < 1300
