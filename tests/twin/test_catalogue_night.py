"""Nights at catalogue fidelity through the whole catalogue half: races, retries, faults, and what consumers read."""

import io
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import fastavro
import lsst.alert.packet
import numpy as np
import pytest

from pipeline.config import (
    AlertConfig,
    AssociateConfig,
    FilterConfig,
    ForcedConfig,
    PipelineConfig,
    RetryConfig,
)
from pipeline.ephemerides import TableEphemerides
from pipeline.errors import NonRetriableError, RetriableError, TooManyDiaObjects, VisitTimeout
from pipeline.ports import History, Ports
from pipeline.prompt import Known, Summary, deliver, footprint_box, preload, report_sources
from pipeline.sinks.files import FileSink
from pipeline.sinks.memory import MemorySink
from pipeline.steps import Step, run
from pipeline.stores.duckdb import DuckDBStore
from pipeline.stores.memory import MemoryStore
from schemas import ids
from schemas.exposure import Visit
from schemas.measures import EPHEMERIS, REJECTION, empty
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE
from schemas.wcs import Wcs
from tests.twin.mornings import Clock, interleaved, timed
from tests.twin.nights import (
    DETECTOR,
    MJD,
    SHAPE,
    SURE,
    Notes,
    known_for,
    measured_of,
    night,
    ports_of,
    process,
    sky,
    visit_of,
)
from twin.faults import CommitsThenFails, Flaky

AT_ONCE = PipelineConfig(retry=RetryConfig(limit=3, delay_s=0.0),
                         filter=FilterConfig(satellite_retry=RetryConfig(limit=1, delay_s=0.0)))


@lru_cache
def packaged(identifier: int) -> lsst.alert.packet.Schema:
    """The schema package's own schema of a Confluent id."""
    major, minor = divmod(identifier, 100)
    return lsst.alert.packet.Schema.from_file(lsst.alert.packet.get_schema_path(str(major), str(minor))
                                              + f"/lsst.v{major}_{minor}.alert.avsc")


def read_back(packet: bytes) -> dict[str, Any]:
    """A packet as a broker reads it: with the schema package of its own version."""
    schema = packaged(int.from_bytes(packet[1:5], "big"))
    record = fastavro.schemaless_reader(io.BytesIO(packet[5:]), schema.definition)
    assert schema.validate(record)
    return dict(record)


# --- a night ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["memory", "duckdb"])
def test_a_night_of_two_visits_ends_in_packets_that_consumers_read(backend: str, tmp_path: Path) -> None:
    store = MemoryStore() if backend == "memory" else DuckDBStore(tmp_path / "prompt.duckdb")
    truth, ports = sky(25), ports_of(store, sink=FileSink(tmp_path / "alerts"))
    first, second = night([visit_of(1), visit_of(2)], truth, ports)
    assert (first.n_detected, first.n_new_objects, first.n_alerts) == (25, 25, 25)
    assert (second.n_sources, second.n_new_objects, second.n_alerts) == (25, 0, 25)
    files = sorted((tmp_path / "alerts").glob("*.avro"))
    assert len(files) == 2
    with files[1].open("rb") as file:
        alerts = list(fastavro.reader(file))
    assert len(alerts) == 25
    for alert in alerts:
        assert alert["diaObject"]["nDiaSources"] == 2
        assert [source["visit"] for source in alert["prvDiaSources"]] == [visit_of(1).visit]
        assert alert["prvDiaSources"][0]["diaSourceId"] == alert["diaObject"]["diaObjectId"]
        assert [row["visit"] for row in alert["prvDiaForcedSources"]] == [visit_of(2).visit]
        assert alert["diaSource"]["diaObjectId"] == alert["diaObject"]["diaObjectId"]
        assert alert["observation_reason"] == "simulated test"
        assert alert["ssSource"] is None
    assert {a["diaSourceId"] for a in alerts} == set(ids_of(store, "DiaSource", visit_of(2)).tolist())
    assert store.unsent() == []
    store.close()


def ids_of(store: Any, table: str, visit: Visit) -> np.ndarray:
    rows = store.table(table)
    return np.asarray(rows["diaSourceId"][rows["visit"] == visit.visit])


def test_packets_of_memory_validate_with_the_schema_package() -> None:
    ports = ports_of()
    night([visit_of(1), visit_of(2), visit_of(3)], sky(9), ports)
    alerts = [read_back(packet) for packet in ports.sink.packets]  # type: ignore[attr-defined]
    assert [len(a["prvDiaSources"] or []) for a in alerts] == [0] * 9 + [1] * 9 + [2] * 9
    assert [len(a["prvDiaForcedSources"] or []) for a in alerts] == [0] * 9 + [1] * 9 + [2] * 9


def test_objects_and_forced_photometry_agree_with_the_truth() -> None:
    truth, ports = sky(100, snr=20.0), ports_of()
    night([visit_of(i) for i in range(1, 9)], truth, ports)
    objects = ports.store.table("DiaObject")
    last = objects[objects["nDiaSources"] == 8]
    assert len(last) == 100
    pull = (last["r_psfFluxMean"] - 2000.0) / last["r_psfFluxMeanErr"]
    assert abs(pull.mean()) < 4 / 10
    assert abs(pull.std() - 1) < 4 / np.sqrt(200)
    forced = ports.store.table("DiaForcedSource")
    assert len(forced) == 700                         # from the second visit on
    pull = (forced["psfFlux"] - 2000.0) / forced["psfFluxErr"]
    assert abs(pull.std() - 1) < 0.1
    assert -0.3 < pull.mean() < 0.1                   # positions are a little off, so the flux a little low


def test_an_object_not_detected_again_is_still_measured() -> None:
    truth, ports = sky(36, snr=30.0), ports_of()
    night([visit_of(1), visit_of(2)], truth, ports)
    faded = truth.copy()
    faded["flux"][:12] = faded["science_flux"][:12] = 0.0
    summary = process(visit_of(3), faded, ports)
    assert summary.n_sources == 24
    forced = ports.store.table("DiaForcedSource")
    forced = forced[forced["visit"] == visit_of(3).visit]
    assert len(forced) == 36
    assert abs(np.sort(forced["psfFlux"])[:12].mean()) < 4 * 100 / np.sqrt(12)


def test_switches_change_what_they_name() -> None:
    truth = sky(25)
    figures = {}
    for name, config in {"all": PipelineConfig(), "no forced": PipelineConfig(forced=ForcedConfig(enabled=False)),
                         "no alerts": PipelineConfig(alert=AlertConfig(produce=False)),
                         "no reliability": PipelineConfig(filter=FilterConfig(reliability=False))}.items():
        ports = ports_of()
        model = replace(SURE, false_per_megapixel=20.0)
        night([visit_of(1), visit_of(2)], truth, ports, config, model=model)
        sources = ports.store.table("DiaSource")
        figures[name] = (len(ports.sink.packets), len(ports.store.table("DiaForcedSource")),  # type: ignore[attr-defined]
                         int((sources["reliability"] < 0.5).sum()))
    assert 50 <= figures["all"][0] <= 52              # 0.4 % of false detections score above 0.5
    assert figures["all"][1:] == (25, 0)
    assert figures["no forced"][1] == 0
    assert figures["no alerts"][0] == 0
    assert figures["no reliability"][2] > 10          # of about 40 false detections; scores under 0.1 found no object


def test_rejections_are_recorded_with_those_of_the_pixel_half() -> None:
    visit, ports = visit_of(1), ports_of()
    measured = measured_of(visit, sky(20), model=replace(SURE, false_per_megapixel=30.0))
    measured.sources["pixelFlags_crCenter"][0] = True
    measured.sources["pixelFlags_streakCenter"][1] = True
    before = empty(REJECTION, 2)
    before["stage"] = b"measure"
    summary = run(report_sources(replace(measured, rejected=before), known_for(visit, ports), ports, PipelineConfig()))
    recorder = ports.recorder
    assert isinstance(recorder, Notes)
    rows = recorder.rows("rejection")
    assert len(rows) == len(summary.rejections) == summary.n_detected - summary.n_sources + 2
    found = {(row["stage"], row["reason"]): int(np.sum(rows[["stage", "reason"]] == row[["stage", "reason"]]))
             for row in rows}
    assert found[b"measure", b""] == 2
    assert found[b"quality", b"pixelFlags_crCenter"] == 1
    assert found[b"new_objects", b"pixelFlags_streakCenter"] == 1
    assert found[b"reliability", b"reliability"] > 10


def test_empty_visits_pass() -> None:
    ports = ports_of()
    summaries = night([visit_of(1), visit_of(2)], sky(0), ports)
    assert [s.n_alerts for s in summaries] == [0, 0]
    assert ports.store.contains(visit_of(2).visit, DETECTOR)
    process(visit_of(3), sky(9), ports)
    assert process(visit_of(4), sky(0), ports).n_sources == 0


def test_a_night_across_ra_zero_and_at_the_pole_keeps_its_objects() -> None:
    for ra, dec in ((0.0, 10.0), (0.0, 90.0), (77.0, -89.99)):
        ports = ports_of()
        truth = sky(16, ra=ra, dec=dec)
        summaries = night([visit_of(i, ra=ra, dec=dec) for i in (1, 2, 3)], truth, ports)
        assert [s.n_new_objects for s in summaries] == [16, 0, 0], (ra, dec)
        assert len(ports.store.table("DiaForcedSource")) == 32


# --- Solar System ----------------------------------------------------------------------------------------------------


def asteroids(truth: np.ndarray, wcs: Wcs) -> np.ndarray:
    """EPHEMERIS rows that put an object on every true source, moving North by 0.25 deg/d."""
    rows = empty(EPHEMERIS, len(truth))
    a, d = np.radians(truth["ra"]), np.radians(truth["dec"])
    rows["object_xyz"], rows["observer_xyz"] = 0.0, 0.0
    rows["object_xyz"][:, :, 0] = 1.7 * np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)
    north = np.stack([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)], axis=1)
    rows["object_xyz"][:, :, 1] = 1.7 * np.radians(0.25) * 0.2 * north
    rows["observer_xyz"][:, 0, 0] = 1.0
    rows["epoch_mjd_tai"], rows["half_span_d"] = visit_of(1).mjd_tai, 0.2
    rows["ssObjectId"], rows["vmag"] = 9000 + np.arange(len(truth)), 20.0
    rows["designation"] = [f"2027 QA{i}".encode() for i in range(len(truth))]
    rows["a"], rows["e"], rows["inc"], rows["node"], rows["argperi"] = 2.7, 0.1, 5.0, 10.0, 20.0
    rows["mean_anomaly"], rows["epoch_orbit_mjd_tai"], rows["h"], rows["g"] = 30.0, 61600.0, 17.0, 0.15
    return rows


def test_known_asteroids_get_their_names_and_their_alerts_no_history() -> None:
    truth, visit = sky(16), visit_of(1)
    rows = asteroids(truth[:10], Wcs.tangent(visit.ra, visit.dec, SHAPE))
    ports = ports_of(ephemerides=TableEphemerides(rows))
    summary = process(visit, truth, ports)
    assert (summary.n_new_objects, summary.n_alerts) == (6, 16)
    moving = ports.store.table("SSSource")
    assert sorted(moving["ssObjectId"]) == list(range(9000, 9010))
    assert np.all(moving["ephOffset"] < 0.1)
    np.testing.assert_allclose(moving["ephRateDec"], 0.25, rtol=1e-3)
    alerts = [read_back(packet) for packet in ports.sink.packets]  # type: ignore[attr-defined]
    for alert in alerts:
        if alert["ssSource"] is None:
            assert alert["diaObject"] is not None
            continue
        assert alert["diaObject"] is None
        assert alert["prvDiaSources"] is None
        assert alert["prvDiaForcedSources"] is None
        assert alert["ssSource"]["diaSourceId"] == alert["diaSourceId"]
        assert alert["mpc_orbits"]["designation"] == alert["ssSource"]["designation"]
        assert alert["diaSource"]["ssObjectId"] == alert["ssSource"]["ssObjectId"]
    assert sum(alert["ssSource"] is not None for alert in alerts) == 10


def test_without_the_ephemeris_service_asteroids_become_objects_and_the_visit_goes_on() -> None:
    truth, visit = sky(16), visit_of(1)
    down = Flaky(TableEphemerides(asteroids(truth, Wcs.tangent(visit.ra, visit.dec, SHAPE))), np.random.default_rng(1),
                 1.0)
    assert process(visit, truth, ports_of(ephemerides=down), AT_ONCE).n_new_objects == 16


# --- races -----------------------------------------------------------------------------------------------------------


def visit_in_time(visit: Visit, truth: np.ndarray, ports: Ports, config: PipelineConfig,
                  pixel_s: float = 50.0) -> Generator[float, None, Summary]:
    box = footprint_box(Wcs.tangent(visit.ra, visit.dec, SHAPE), SHAPE, 50.1)
    known = yield from timed(preload(visit, DETECTOR, box, ports, config))
    yield pixel_s
    summary: Summary = yield from timed(report_sources(measured_of(visit, truth), known, ports, config))
    return summary


def raced(n_visits: int, gap_s: float, config: PipelineConfig) -> tuple[int, np.ndarray]:
    """Duplicate objects that visits `gap_s` apart make of 40 sources, and the last versions."""
    truth, ports = sky(40), ports_of()
    visits = [visit_of(i, minutes=gap_s * i / 60) for i in range(1, n_visits + 1)]
    interleaved([(gap_s * i, visit_in_time(visit, truth, ports, config)) for i, visit in enumerate(visits)], Clock())
    objects = ports.store.table("DiaObject")
    return len(np.unique(objects["diaObjectId"])) - 40, objects[np.isnan(objects["validityEndMjdTai"])]


def test_overlapping_visits_make_duplicates_without_the_reload_and_none_with_it() -> None:
    off = PipelineConfig(associate=AssociateConfig(reload=False))
    assert raced(2, 34.0, off)[0] == 40          # every object twice
    assert raced(2, 34.0, PipelineConfig())[0] == 0
    assert raced(2, 120.0, off)[0] == 0          # visits that do not overlap need no reload


def test_the_reload_is_no_lock_visits_that_reach_it_together_still_make_duplicates() -> None:
    assert raced(2, 0.3, PipelineConfig())[0] == 40


def test_objects_touched_by_an_overlapping_visit_count_all_their_sources() -> None:
    duplicates, last = raced(4, 34.0, PipelineConfig())
    assert duplicates == 0
    assert last["nDiaSources"].tolist() == [4] * 40
    assert last["r_psfFluxNdata"].tolist() == [4] * 40
    pull = (last["r_psfFluxMean"] - 3000.0) / last["r_psfFluxMeanErr"]
    assert abs(pull.std() - 1) < 4 / np.sqrt(80)
    np.testing.assert_allclose(last["r_psfFluxMeanErr"], 50.0, rtol=1e-3)


def test_a_reload_that_fails_falls_back_on_the_preloaded_objects() -> None:
    class NoReload(MemoryStore):
        broken = False

        def objects(self, *arguments: Any) -> np.ndarray:
            if self.broken:
                raise RetriableError("no connection")
            return super().objects(*arguments)

    store, truth, visit = NoReload(), sky(9), visit_of(2)
    ports = ports_of(store)
    process(visit_of(1), truth, ports)
    known = known_for(visit, ports)
    store.broken = True
    names: list[str] = []
    summary = run(report_sources(measured_of(visit, truth), known, ports, AT_ONCE), lambda s: names.append(s.name))
    assert names.count("retry.reload") == 3
    assert (summary.n_new_objects, summary.n_sources) == (0, 9)


# --- faults ----------------------------------------------------------------------------------------------------------


def test_steps_are_announced_in_order_and_the_save_ahead_of_its_effect() -> None:
    truth, visit, ports = sky(9), visit_of(2), ports_of()
    process(visit_of(1), truth, ports)
    known = known_for(visit, ports)
    seen: list[tuple[str, bool]] = []
    sizes: dict[str, int] = {}

    def note(step: Step) -> None:
        seen.append((step.name, ports.store.contains(visit.visit, DETECTOR)))
        sizes[step.name] = step.size

    run(report_sources(measured_of(visit, truth), known, ports, PipelineConfig()), note)
    assert [name for name, _ in seen] == ["satellites", "filter", "transform", "reload", "associate", "statistics",
                                          "forced", "package", "save"]
    assert not any(saved for _, saved in seen)
    assert ports.store.contains(visit.visit, DETECTOR)
    assert [sizes[name] for name in ("satellites", "associate", "forced", "save")] == [9, 9, 9, 27]
    delivered: list[str] = []
    run(deliver(ports, PipelineConfig()), lambda s: delivered.append(s.name))
    assert delivered == ["unsent", "send", "mark_sent"]


@pytest.mark.parametrize("stop", range(9))
@pytest.mark.parametrize("how", ["timeout", "kill"])
def test_a_visit_stopped_at_any_step_leaves_nothing_half_written(stop: int, how: str) -> None:
    truth, ports = sky(4), ports_of()
    visit = visit_of(1)
    steps = report_sources(measured_of(visit, truth), known_for(visit, ports), ports, PipelineConfig())
    for _ in range(stop + 1):
        next(steps)
    if how == "timeout":
        with pytest.raises(VisitTimeout):
            steps.throw(VisitTimeout("900 s"))
    else:
        steps.close()
    for table in ("DiaObject", "DiaSource", "DiaForcedSource", "SSSource", "DetectorVisitProcessingSummary"):
        assert len(ports.store.table(table)) == 0
    assert ports.store.unsent() == []
    assert process(visit, truth, ports).n_alerts == 4      # and it can be tried again


def test_without_the_satellite_service_nothing_is_published() -> None:
    ports = ports_of()
    down = replace(ports, satellites=Flaky(ports.satellites, np.random.default_rng(1), 1.0))
    with pytest.raises(RetriableError, match="allowed"):
        process(visit_of(1), sky(9), down, AT_ONCE)
    assert not ports.store.contains(visit_of(1).visit, DETECTOR)
    assert ports.sink.packets == []  # type: ignore[attr-defined]
    off = PipelineConfig(filter=FilterConfig(satellites=False))
    assert process(visit_of(1), sky(9), down, off).n_alerts == 9


def test_too_many_new_objects_leave_no_trace() -> None:
    ports = ports_of()
    with pytest.raises(TooManyDiaObjects):
        process(visit_of(1), sky(25), ports, PipelineConfig(associate=AssociateConfig(max_new_objects=24)))
    assert not ports.store.contains(visit_of(1).visit, DETECTOR)
    assert len(ports.store.table("DiaObject")) == 0


def test_flaky_ports_lose_nothing_and_double_nothing() -> None:
    truth, plain = sky(9), ports_of()
    rng = np.random.default_rng(7)
    store = Flaky(plain.store, rng, 0.2, only=("objects", "history", "save", "unsent", "mark_sent"))
    flaky = replace(plain, store=store, sink=Flaky(plain.sink, rng, 0.2))
    config = PipelineConfig(retry=RetryConfig(limit=12, delay_s=0.0))
    names: list[str] = []
    for visit in [visit_of(i) for i in range(1, 13)]:
        known = run(preload(visit, DETECTOR, footprint_box(Wcs.tangent(visit.ra, visit.dec, SHAPE), SHAPE, 50.1), flaky,
                            config), lambda s: names.append(s.name))
        run(report_sources(measured_of(visit, truth), known, flaky, config), lambda s: names.append(s.name))
        run(deliver(flaky, config), lambda s: names.append(s.name))
    assert sum(name.startswith("retry.") for name in names) > 5
    sent = [read_back(packet)["diaSourceId"] for packet in plain.sink.packets]  # type: ignore[attr-defined]
    assert len(sent) == len(set(sent)) == 108
    assert set(sent) == set(plain.store.table("DiaSource")["diaSourceId"].tolist())


def test_a_commit_whose_answer_was_lost_is_not_repeated_and_its_packets_go_out() -> None:
    truth, plain = sky(9), ports_of()
    ports = replace(plain, store=CommitsThenFails(plain.store))
    with pytest.raises(NonRetriableError, match="committed, but its answer was lost"):
        process(visit_of(1), truth, ports, AT_ONCE)
    assert len(plain.store.table("DiaSource")) == 9
    assert run(deliver(ports, AT_ONCE)) == 9
    assert run(deliver(ports, AT_ONCE)) == 0
    assert len(plain.sink.packets) == 9  # type: ignore[attr-defined]
    assert process(visit_of(2), truth, ports, AT_ONCE).n_new_objects == 0


def test_a_sink_that_takes_part_of_a_batch_gets_the_rest_and_nothing_twice() -> None:
    class Sips(MemorySink):
        def send(self, packets: Any, *_: Any) -> int:
            return super().send(packets[:4])

    ports = ports_of(sink=Sips())
    process(visit_of(1), sky(9), ports, AT_ONCE)
    sent = [read_back(packet)["diaSourceId"] for packet in ports.sink.packets]  # type: ignore[attr-defined]
    assert len(sent) == len(set(sent)) == 9


def test_deliver_sends_what_it_is_asked_for_and_says_when() -> None:
    ports = ports_of()
    for i in (1, 2):
        visit = visit_of(i)
        run(report_sources(measured_of(visit, sky(4)), known_for(visit, ports), ports, PipelineConfig()))
    assert run(deliver(ports, PipelineConfig(), only=(visit_of(2).visit, DETECTOR))) == 4
    assert [segment.visit for segment in ports.store.unsent()] == [visit_of(1).visit]
    assert run(deliver(ports, PipelineConfig())) == 4
    recorder = ports.recorder
    assert isinstance(recorder, Notes)
    rows = recorder.rows("publication")
    assert rows["visit"].tolist() == [visit_of(2).visit] * 4 + [visit_of(1).visit] * 4
    assert np.all(rows["sent_mjd_tai"] > MJD)
    assert np.all(rows["bytes"] > 100_000)


# --- speed -----------------------------------------------------------------------------------------------------------


def crowded(n_objects: int, n_history: int) -> tuple[np.ndarray, Known]:
    """Truth of 300 sources, and 1000 objects with a long history, 250 of them under the sources."""
    rng, truth = np.random.default_rng(3), sky(300, snr=25.0)
    objects = DIA_OBJECT.empty(n_objects)
    objects["diaObjectId"] = ids.source_ids(20270101 * 100_000 + 1, DETECTOR, np.arange(n_objects))
    objects["ra"], objects["dec"] = Wcs.tangent(330.0, -12.0, SHAPE).sky(*rng.uniform(0, 999, (2, n_objects)))
    objects["ra"][:250], objects["dec"][:250] = truth["ra"][:250], truth["dec"][:250]
    objects["nDiaSources"], objects["validityStartMjdTai"] = n_history // n_objects, 61500.0
    sources, forced = DIA_SOURCE.empty(n_history), DIA_FORCED_SOURCE.empty(n_history)
    for rows, name in ((sources, "diaSourceId"), (forced, "diaForcedSourceId")):
        rows["diaObjectId"] = np.tile(objects["diaObjectId"], n_history // n_objects)
        rows[name] = 1 + np.arange(n_history)
        rows["ra"], rows["dec"] = (np.tile(objects[c], n_history // n_objects) for c in ("ra", "dec"))
        rows["midpointMjdTai"], rows["band"] = np.sort(61300 + rng.uniform(0, 300, n_history)), b"r"
        rows["psfFlux"], rows["psfFluxErr"], rows["timeProcessedMjdTai"] = 2500.0, 100.0, 61400.0
    sources["reliability"], sources["trailLength"] = 0.9, 1.0
    return truth, Known(objects, History(sources, forced), empty(EPHEMERIS))


@pytest.mark.bench
def test_the_catalogue_half_takes_less_than_three_tenths_of_a_second() -> None:
    truth, known = crowded(1000, 20_000)
    visit = visit_of(1)
    measured = measured_of(visit, truth)
    config = PipelineConfig(associate=AssociateConfig(reload=False))
    best, summary = np.inf, None
    for _ in range(5):
        began = time.thread_time()
        summary = run(report_sources(measured, known, ports_of(), config))
        best = min(best, time.thread_time() - began)
    assert summary is not None
    assert summary.n_sources == 300
    assert 40 <= summary.n_new_objects <= 50     # a few of the 50 lie within 1" of another object by chance
    assert best < 0.3


def profile(act: Callable[[], Any]) -> str:
    """Where an action spends its time: for the bench above."""
    import cProfile
    import pstats

    profiler, text = cProfile.Profile(), io.StringIO()
    profiler.runcall(act)
    pstats.Stats(profiler, stream=text).sort_stats("cumulative").print_stats(25)
    return text.getvalue()
