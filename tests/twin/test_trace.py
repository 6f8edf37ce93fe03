"""Traces of a night that is run again with one Step changed: that Step is found."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reports.store import DTYPES, Store
from reports.trace import blame, first_difference
from schemas.exposure import Visit
from simulators.observe import Exposed
from twin.cache import Cache
from twin.night import run_night
from twin.observatory import Observatory
from twin.scenario import read_scenario, to_toml

from .conftest import SMALL, small

Again = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Again:
    """Runs a small night with other settings; its trace. Nothing is drawn twice, unless `anew`."""
    folder = tmp_path_factory.mktemp("traces")
    simulation = {**SMALL["simulation"], "camera": {"ny": 320, "nx": 320},      # type: ignore[dict-item]
                  "cadence": {"blocks": ["rr"], "pairs": 2, "history_per_band": 2, "dither_arcsec": 5.0},
                  "sky": {"stars": {"density": 40.0},
                          "transients": {"per_field": 250.0, "flux": "snr_log", "snr": [4.5, 30.0]}}}
    scenario = folder / "scenario.toml"
    scenario.write_text(to_toml(small(simulation=simulation)))

    cache = Cache.open(folder / "cache")

    def run(*overrides: str, anew: bool = False) -> np.ndarray:
        out = folder / f"run{len(list(folder.iterdir()))}"
        run_night(read_scenario(scenario, overrides), out, cache=None if anew else cache)
        rows = Store(out).table("trace")
        trace = np.zeros(len(rows), DTYPES["seed_trace"])
        for name in rows.dtype.names or ():
            trace[name] = rows[name]
        return trace

    return run


@pytest.fixture(scope="module")
def base(again: Again) -> np.ndarray:
    return again()


PLANTED = {"pipeline.calibrate.grow_saturated_px=3": "calibrate", "pipeline.difference.decorrelate=false": "subtract",
           "pipeline.detect.threshold=5.3": "detect", "pipeline.measure.fit_trails=false": "measure",
           "pipeline.filter.min_reliability=0.7": "filter", "pipeline.associate.radius_arcsec=0.2": "associate",
           "pipeline.associate.reload=false": "reload", "pipeline.objects.position=mean": "statistics",
           "pipeline.forced.min_sources=3": "forced"}


@pytest.mark.parametrize(("override", "step"), PLANTED.items())
def test_the_step_that_was_changed_is_blamed(override: str, step: str, again: Again, base: np.ndarray) -> None:
    assert blame("package", first_difference(base, again(override))) == step


def test_the_same_night_leaves_the_same_trace(again: Again, base: np.ndarray) -> None:
    assert np.array_equal(np.sort(again(anew=True), order=["visit", "step", "quantity"]),
                          np.sort(base, order=["visit", "step", "quantity"]))


def test_roundings_of_the_pixels_blame_nothing(again: Again, base: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    expose = Observatory.expose

    def shaken(self: Observatory, visit: Visit, detector: int) -> Exposed:
        exposed = expose(self, visit, detector)
        image = exposed.exposure.image
        factor = 1 + 1e-6 * np.random.default_rng([visit.visit, detector]).standard_normal(image.shape)
        return replace(exposed, exposure=replace(exposed.exposure, image=(image * factor).astype(image.dtype)))

    monkeypatch.setattr(Observatory, "expose", shaken)
    found = first_difference(base, again(anew=True))
    assert blame("package", found) == ""
    assert max(d.largest for d in found) > 0       # they were shaken
    assert not {d.step for d in found if d.share} & {"calibrate", "warp"}


def test_tracing_costs_little(again: Again, tmp_path: Path) -> None:
    """CPU of the tracer beside that of the Steps it follows."""
    from time import thread_time

    from twin.trace import PixelTracer

    spent = []
    look = PixelTracer.__call__

    def timed(self: PixelTracer, step: object) -> None:
        began = thread_time()
        look(self, step)                                                        # type: ignore[arg-type]
        spent.append(thread_time() - began)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PixelTracer, "__call__", timed)
        out = tmp_path / "run"
        run_night(small(simulation=SMALL["simulation"]), out)
    worked = Store(out).table("step")["cpu_s"].sum()
    assert sum(spent) < 0.1 * worked               # 2 % of a visit of 1000 x 1000 px; small detectors have less to do


