"""Survey nights at catalogue fidelity: the same whoever draws, every alert accounted for, duplicates as derived."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.prompt import Summary
from pipeline.sinks.counting import CountingSink
from pipeline.sinks.memory import MemorySink
from pipeline.stores.memory import MemoryStore
from reports.association import STATIC_KINDS
from reports.platform_page import render_platform
from reports.store import Store
from reports.wide import match_alerts, wide_night
from tests.twin.nights import Notes
from tests.twin.wides import Night, finish
from twin.live_night import Place, run_live
from twin.plan import plan_of
from twin.pool import open_pool
from twin.recorder import ParquetRecorder
from twin.scenario import Scenario, read_scenario
from twin.wide import WideSource

SHIPPED = Path("scenarios/catalogue_night.toml")
SMALL = ("counts.detectors=45", "counts.cadence='regular'", "counts.interval_s=34.0", "counts.fields=1",
         "wide.alerts_per_visit=100.0", "wide.false_per_megapixel=0.004", "counts.visits=6",
         "simulation.conditions.airmass=1.2")


def small(*overrides: str) -> Scenario:
    return read_scenario(SHIPPED, [*SMALL, *overrides])


def source_of(*overrides: str) -> WideSource:
    scenario = small(*overrides)
    return WideSource(scenario, plan_of(scenario))


def played(scenario: Scenario, recorder: object = None, *, latency_s: float | None = None,
           sink: object = None) -> tuple[Night, list[Summary]]:
    source = WideSource(scenario, plan_of(scenario))
    night = Night(source, MemoryStore(), sink or CountingSink(), recorder or Notes(), scenario,  # type: ignore[arg-type]
                  latency_s)
    return night, night.run(range(scenario.counts.visits))


def test_the_shipped_night_is_the_goal() -> None:
    scenario = read_scenario(SHIPPED)
    assert (scenario.counts.visits, scenario.counts.detectors, scenario.wide.alerts_per_visit) == (1000, 189, 1000.0)
    assert len(scenario.simulation.camera.detectors) == 189
    assert scenario.pipeline.alert.packets == "counted"


def test_sources_do_not_depend_on_the_number_of_processes_or_on_the_order() -> None:
    scenario, plan = small("counts.visits=3"), plan_of(small("counts.visits=3"))
    here = WideSource(scenario, plan)
    with open_pool(2) as pool:
        there = WideSource(scenario, plan, pool, density=here.density)
        for number in (2, 0):
            assert there.box(number, 7) == here.box(number, 7)
            near = [source.near(source.box(number, 7), source.visit(number).mjd_tai) for source in (here, there)]
            assert near[0].tobytes() == near[1].tobytes()
            for detector in (7, 30):
                one, other = here.take(number, detector), there.take(number, detector)
                assert one.measured is not None
                assert other.measured is not None
                assert one.truth.tobytes() == other.truth.tobytes()
                assert one.log.tobytes() == other.log.tobytes()
                assert one.measured.sources.tobytes() == other.measured.sources.tobytes()
                assert one.measured.wcs == other.measured.wcs
                assert len(one.measured.sources) > 0


@pytest.mark.parametrize(("overrides", "message"), [
    (("counts.detectors=190",), r"counts\.detectors: LSSTCam has 189, got 190"),
    (("simulation.camera={}",), r"simulation\.camera\.layout: a survey night has \"lsstcam\", got 'square'"),
    (("wide.variables=0.0", "wide.agn=0.0", "wide.transients=0.0", "wide.asteroids=0.0"), "wide: one of the shares"),
])
def test_a_night_that_cannot_be_is_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        source_of(*overrides)


def test_a_visit_is_let_go_with_its_last_detector() -> None:
    scenario = small("counts.visits=2")
    source = WideSource(scenario, plan_of(scenario))
    for detector in range(45):
        assert (0 in source._drawn) == (detector > 0)
        if detector % 2:
            source.skip(0, detector)
        else:
            source.take(0, detector)
    assert source._drawn == {}


def test_alerts_produced_are_sent_saved_and_published_each_once() -> None:
    recorder = Notes()
    night, summaries = played(small(), recorder)
    sources = night.store.table("DiaSource")
    n = sum(s.n_alerts for s in summaries)
    assert n == night.sink.n_sent == len(sources) > 300  # type: ignore[attr-defined]
    published = recorder.rows("publication")
    assert sorted(published["diaSourceId"].tolist()) == sorted(sources["diaSourceId"].tolist())
    assert night.store.unsent() == []
    assert len(summaries) == 6 * 45 == len(recorder.rows("exposure_log"))
    assert int(recorder.rows("exposure_log")["n_alerts"].sum()) == n


def alerts_by_visit(folder: Path) -> dict[int, list[int]]:
    """The visits, by number from 0, in which each static true source has an alert."""
    matches = match_alerts(Store(folder))
    real = np.flatnonzero(matches.partner >= 0)
    truth = matches.truth[matches.partner[real]]
    static = np.isin(truth["kind"], STATIC_KINDS)
    visits = np.unique(matches.exposures["visit"])
    out: dict[int, list[int]] = {}
    for source, visit in zip(truth["truthId"][static].tolist(), truth["visit"][static].tolist(), strict=True):
        out.setdefault(source, []).append(int(np.searchsorted(visits, visit)))
    return out


def duplicates_without_reload(seen: Sequence[int], behind: int) -> int:
    """DIAObjects of a source beyond the first, where a visit knows of those `behind` it and earlier alone."""
    founding = [k for k in seen if not any(before <= k - behind for before in seen)]
    return len(founding) - 1


def test_without_the_reload_overlapping_visits_make_the_duplicates_that_their_times_imply(tmp_path: Path) -> None:
    """Visits 34 s apart are preloaded 20 s ahead and reported 80 s after the shutter: a visit knows of the fourth
    before it (34 x 4 - 20 > 30 + 80 > 34 x 3 - 20), so a source seen in all of the first four founds four objects."""
    found = {}
    for reload in ("true", "false"):
        folder = tmp_path / reload
        recorder = ParquetRecorder(folder / "measures")
        scenario = small(f"pipeline.associate.reload={reload}", "wide.asteroids=0.0")
        night, _ = played(scenario, recorder, latency_s=80.0)
        finish(recorder, night.store, night.source)
        found[reload] = wide_night(Store(folder)).association
    assert found["true"].duplicates == 0
    assert found["true"].static.value > 0.995
    expected = sum(duplicates_without_reload(seen, 4) for seen in alerts_by_visit(tmp_path / "false").values())
    assert expected > found["false"].sources
    assert abs(found["false"].duplicates - expected) <= 0.01 * expected
    assert found["false"].complete.value < 0.6
    assert found["false"].pure.value > 0.995


def test_known_asteroids_get_their_ids_and_lost_ones_do_not(tmp_path: Path) -> None:
    recorder = ParquetRecorder(tmp_path / "measures")
    night, _ = played(small("counts.visits=3", "simulation.sky.asteroids.lost=0.0",
                            "simulation.sky.asteroids.known=1.0",
                            "wide.asteroids=0.8"), recorder)
    finish(recorder, night.store, night.source)
    lost = ParquetRecorder(tmp_path / "lost" / "measures")
    other, _ = played(small("counts.visits=3", "simulation.sky.asteroids.lost=1.0",
                            "simulation.sky.asteroids.known=1.0",
                            "wide.asteroids=0.8"), lost)
    finish(lost, other.store, other.source)
    good, bad = (wide_night(Store(folder)).association for folder in (tmp_path, tmp_path / "lost"))
    assert good.solar_system.n > 100
    assert good.solar_system.value > 0.98
    assert bad.solar_system.value < 0.35       # errors of 0.5 to 3", a radius of 1"


def test_rendered_cutouts_hold_the_flux_that_the_catalogue_says() -> None:
    scenario = small("counts.visits=1", "pipeline.alert.packets='bytes'", "wide.alerts_per_visit=150.0",
                     "simulation.conditions.fwhm_eff=0.8")
    source = WideSource(scenario, plan_of(scenario))
    assert source.facts["cutouts"] == "rendered from truth"
    pulls, noise, n = [], [], 0
    for detector in range(20):
        taken = source.take(0, detector)
        m = taken.measured
        assert m is not None
        sigma = float(taken.log["psf_sigma_px"][0])
        for k, row in enumerate(m.sources):
            science, template, difference = (c.image[k] for c in (m.science, m.template, m.difference))
            np.testing.assert_allclose(difference, science - template, atol=1e-3)
            inside = np.isfinite(difference).all()
            if not inside:
                continue
            side = len(difference)
            grid = np.arange(side)
            x = row["x"] - (int(np.floor(row["x"] + 0.5)) - side // 2)
            y = row["y"] - (int(np.floor(row["y"] + 0.5)) - side // 2)
            psf = np.outer(np.exp(-0.5 * ((grid - y) / sigma) ** 2), np.exp(-0.5 * ((grid - x) / sigma) ** 2))
            psf /= psf.sum()
            flux = np.sum(psf * difference) / np.sum(psf**2)
            pulls.append((flux - row["psfFlux"]) / row["psfFluxErr"])
            corner = np.hypot(grid[:, None] - y, grid - x) > 7 * sigma
            variance = m.difference.variance[k][corner]
            noise.append(np.mean(difference[corner] ** 2 / variance))
            n += 1
    assert n > 150
    assert np.median(np.abs(pulls)) < 0.2          # measured beside the true place: 1 / (2 S/N) less
    assert abs(np.median(noise) - 1) < 0.05


def test_packets_of_rendered_cutouts_are_made_where_they_are_asked_for() -> None:
    night, summaries = played(small("counts.visits=1", "counts.detectors=9", "pipeline.alert.packets='bytes'",
                                    "wide.alerts_per_visit=20.0"), sink=MemorySink())
    packets = night.sink.packets  # type: ignore[attr-defined]
    assert len(packets) == sum(s.n_alerts for s in summaries) > 5
    assert min(map(len, packets)) > 80_000


@pytest.mark.parametrize("visits", [4])
def test_the_mean_is_near_the_alerts_that_are_asked_for(visits: int, tmp_path: Path) -> None:
    recorder = ParquetRecorder(tmp_path / "measures")
    night, _ = played(small(f"counts.visits={visits}", "counts.fields=4", "wide.alerts_per_visit=200.0",
                            "wide.asteroids=0.0"), recorder)
    finish(recorder, night.store, night.source)
    found = wide_night(Store(tmp_path))
    assert abs(found.per_visit / 200.0 - 1) < 4 / np.sqrt(visits * 200.0) + 0.03
    assert "asked for" in found.lines()[0]


def test_the_page_of_a_night_on_the_platform_says_how_association_went(tmp_path: Path) -> None:
    run_live(small("counts.visits=3"), Place(tmp_path / "run"))
    page = render_platform(tmp_path / "run").read_text()
    found = json.loads((tmp_path / "run" / "report.json").read_text())["by_truth"]
    assert found["alerts"] == len(Store(tmp_path / "run").table("publication")) > 100
    assert found["association"]["static"]["value"] > 0.5
    assert "Live detectors by truth" in page
    assert "duplicate DIAObjects: " in page
