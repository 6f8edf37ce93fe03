"""The template of a whole CCD: CPU time on one core, and memory for 6, 12 and 24 visits."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.images import Calibrated, Template
from pipeline.psf import Psf
from pipeline.stored import StoredPlane
from pipeline.template import coadd
from schemas.wcs import Wcs
from tests.benchmarks.ccd import SHAPE, SIGMA
from tests.pipeline.differences import Scene
from tests.pipeline.fields import draw, psf_stamp

pytestmark = pytest.mark.bench

FWHM = 4.0
N_STARS = 800


def wcs(i: int) -> Wcs:
    return Wcs.tangent(150.0 + 3e-4 * i, -30.0 + 2e-4 * i, SHAPE, rotation=0.05 * i)


def from_files(folder: Path, n: int) -> list[Calibrated]:
    """Visits whose planes lie in a folder; beyond the twelfth those of the first again."""
    base = Scene(shape=(20, 20)).science()
    psf = Psf.constant(psf_stamp(41, FWHM), SHAPE)
    out = []
    for i in range(n):
        planes = {name: StoredPlane(folder / f"{i % 12}_{name}.npy", SHAPE) for name in ("image", "variance", "mask")}
        out.append(replace(base, visit=replace(base.visit, visit=i), wcs=wcs(i % 12), psf=psf, **planes))
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve visits of one sky; the fifth has a satellite and cosmic rays."""
    folder = tmp_path_factory.mktemp("visits")
    rng = np.random.default_rng(1)
    ra, dec = wcs(0).sky(*rng.uniform(0, 4000, (2, N_STARS)))
    flux = SIGMA * 8 * 10 ** rng.uniform(0.7, 3.0, N_STARS)
    for i in range(12):
        image = draw(SHAPE, *wcs(i).pixels(ra, dec), flux, FWHM, half=30).astype(np.float32)
        variance = (SIGMA**2 + np.maximum(image, 0) / 4).astype(np.float32)
        image += rng.standard_normal(SHAPE, np.float32) * np.sqrt(variance)
        if i == 5:
            y, x = np.mgrid[:SHAPE[0], :SHAPE[1]].astype(np.float32)
            image += 60 * np.exp(-0.5 * ((y - 0.4 * x - 900) / 2.5) ** 2)
            image[rng.integers(0, 4000, 500), rng.integers(0, 4000, 500)] += 2000
            del x, y
        for name, plane in (("image", image), ("variance", variance), ("mask", np.zeros(SHAPE, np.int32))):
            np.save(folder / f"{i}_{name}.npy", plane)
    return folder


def coadded(visits: Sequence[Calibrated]) -> Template:
    from pipeline.config import TemplateConfig

    return coadd(visits, wcs(0), SHAPE, TemplateConfig())


@pytest.mark.benchmark(timer=time.process_time)
def test_a_template_of_twelve_visits_takes_thirty_seconds(benchmark, folder):
    template = benchmark.pedantic(coadded, (from_files(folder, 12),), rounds=2)
    assert np.median(template.n_inputs) == 12
    assert np.median(template.variance) < 1.3 * SIGMA**2 / 12
    y, x = np.mgrid[500:3500:3, 500:3500:3]
    gx, gy = wcs(5).pixels(*wcs(0).sky(x, y))
    on = np.abs(gy - 0.4 * gx - 900) < 1.5
    assert on.sum() > 300
    values = template.image[y[on], x[on]]
    assert abs(np.median(values)) < SIGMA / np.sqrt(12)      # of the satellite 60 / 12 = 5 would be left
    assert benchmark.stats["min"] < 30.0


MEMORY = """
import sys
from pathlib import Path
from tests.benchmarks.test_template import coadded, from_files
coadded(from_files(Path(sys.argv[1]), int(sys.argv[2])))
print(next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks of memory are read from /proc")
def test_memory_does_not_grow_with_the_number_of_visits(folder):
    root, peaks = Path(__file__).parents[2], []
    for n in (6, 12, 24):
        out = subprocess.run([sys.executable, "-c", MEMORY, str(folder), str(n)], cwd=root, capture_output=True,
                             text=True, check=True).stdout
        peaks.append(float(out))
    print("\nat most " + ", ".join(f"{peak:.0f} MB for {n}" for n, peak in zip((6, 12, 24), peaks, strict=True)))
    assert max(peaks) < 1.1 * min(peaks)
