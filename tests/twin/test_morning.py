"""The morning after nights of overlapping visits: duplicates go, failed visits are caught up, the past is recovered."""

import copy
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline.batch.catch_up import AsOf, catch_up
from pipeline.batch.kept import FIRST_ID, Kept, MemoryArchive
from pipeline.batch.merge import deduplicate
from pipeline.batch.precovery import precover
from pipeline.batch.retract import retract
from pipeline.config import (
    AssociateConfig,
    BatchConfig,
    CatchUpConfig,
    DeduplicateConfig,
    FilterConfig,
    PipelineConfig,
    PrecoveryConfig,
    RetryConfig,
)
from pipeline.errors import AlgorithmError, InputError, NoWorkFound, RetriableError
from pipeline.pixel_half import Measured
from pipeline.steps import Step, Steps, run
from pipeline.stores.memory import MemoryStore
from schemas import ids
from schemas.exposure import Visit
from schemas.table import take
from schemas.wcs import Wcs
from tests.twin.mornings import Morning, concurrent_night, judge, missed
from tests.twin.nights import DETECTOR, SHAPE, measured_of, ports_of, process, sky, visit_of

NO_RELOAD = PipelineConfig(associate=AssociateConfig(reload=False))


def slow_then_fast(i: int) -> float:
    """Seconds of the pixel half so that pairs of visits end at the same time, as a busy platform makes them."""
    return 84.3 if i % 2 == 0 else 50.0


def visits_of(n: int, gap_s: float = 34.0, **place: float) -> list[Visit]:
    return [visit_of(i, minutes=gap_s * i / 60 + 1.0, **place) for i in range(1, n + 1)]


def crowded(n: int, ra: float = 330.0, dec: float = -12.0) -> np.ndarray:
    """A sky of pairs of sources 0.9 to 1.6" apart."""
    truth = sky(n, ra=ra, dec=dec)
    rng = np.random.default_rng(2)
    half = n // 2
    angle, apart = rng.uniform(0, 2 * np.pi, half), rng.uniform(0.9, 1.6, half) / 3600
    truth["dec"][half:2 * half] = truth["dec"][:half] + apart * np.sin(angle)
    truth["ra"][half:2 * half] = (truth["ra"][:half] + apart * np.cos(angle) / np.cos(np.radians(dec))) % 360.0
    return truth


def batch(algorithm: str, config: PipelineConfig) -> PipelineConfig:
    return msgspec.structs.replace(config, batch=BatchConfig(deduplicate=DeduplicateConfig(algorithm=algorithm)))


@pytest.mark.parametrize(("config", "pixel_s"), [(NO_RELOAD, lambda i: 50.0), (PipelineConfig(), slow_then_fast)],
                         ids=["reload off", "reload on"])
@pytest.mark.parametrize(("ra", "dec"), [(330.0, -12.0), (0.0, -12.0), (200.0, -85.0)],
                         ids=["plain", "RA 0", "dec -85"])
def test_the_morning_takes_the_duplicates_away(config: PipelineConfig, pixel_s: Any, ra: float, dec: float) -> None:
    store = MemoryStore()
    truth = sky(60, ra=ra, dec=dec, snr=None)
    truth = truth[truth["flux"] > 700]                       # S/N 7 and more: all are detected
    ports = concurrent_night(visits_of(4, ra=ra, dec=dec), truth, config, store, pixel_s=pixel_s)
    before = judge(store, truth)
    assert before.duplicates >= len(truth)                   # without a batch they stay
    assert before.merged == 0
    done = run(deduplicate(store, ports.clock, config))
    after = judge(store, truth)
    assert (done.merged, after.duplicates, after.merged, after.far) == (before.duplicates, 0, 0, 0)
    consistent(store)
    again = run(deduplicate(store, ports.clock, config))
    assert (again.merged, again.sources) == (0, 0)


def test_a_deduplication_whose_answers_are_lost_withdraws_nothing_that_it_moved() -> None:
    class Lossy(MemoryStore):
        """Every change lands, and its first answer is lost."""

        lost = 0

        def reassign_forced(self, *arguments: Any) -> np.ndarray:
            found = super().reassign_forced(*arguments)
            self.lost += 1
            if self.lost == 1:
                raise RetriableError("no answer")
            return found

    config = msgspec.structs.replace(NO_RELOAD, retry=RetryConfig(limit=1, delay_s=0.0))
    truth, ends = sky(20), []
    for store in (MemoryStore(), Lossy()):
        ports = concurrent_night(visits_of(6), truth, NO_RELOAD, store)
        done = run(deduplicate(store, ports.clock, config))
        assert done.forced > 0
        ends.append((done, rows_of(store, "DiaForcedSource", ["diaForcedSourceId", "diaObjectId"]),
                     int(np.isfinite(store.table("DiaForcedSource")["timeWithdrawnMjdTai"]).sum())))
        consistent(store)
    assert ends[0] == ends[1]


def test_updates_that_overlapping_visits_took_from_each_other_are_counted_again() -> None:
    """Both add their source to the version that both have read: the later save wins, and one source is lost."""
    truth, store = sky(20), MemoryStore()
    visits = [visit_of(1, minutes=-60.0), *visits_of(3)[1:]]
    ports = ports_of(store, clock=Morning(-3540.0))
    process(visits[0], truth, ports, NO_RELOAD)
    ports = concurrent_night(visits[1:], truth, NO_RELOAD, store)
    before = store.table("DiaObject")
    assert before["nDiaSources"][np.isnan(before["validityEndMjdTai"])].tolist() == [2] * 20      # of three
    done = run(deduplicate(store, ports.clock, NO_RELOAD))
    assert (done.merged, done.recounted) == (0, 20)
    consistent(store)
    assert run(deduplicate(store, ports.clock, NO_RELOAD)).recounted == 0


@pytest.mark.parametrize("killed", [False, True])
def test_an_object_that_another_source_took_over_gives_its_first_source_back(killed: bool) -> None:
    """Faint sources are made twice; then only a bright neighbour 0.7" away is seen, and taken for the second object."""
    truth, store = sky(25, snr=12.0), MemoryStore()
    neighbour = truth.copy()
    neighbour["dec"] += 0.7 / 3600
    neighbour["flux"] = neighbour["science_flux"] = 6000.0
    neighbour["truthId"] += 100
    visits = visits_of(3)
    late = replace(visits[2], mjd_tai=visits[2].mjd_tai + 0.02)
    both = np.concatenate([truth, neighbour])
    ports = concurrent_night([*visits[:2], late], lambda visit: neighbour if visit is late else truth, NO_RELOAD, store)
    assert judge(store, both).duplicates == 25
    assert judge(store, both).merged == 25
    if killed:
        steps = deduplicate(store, ports.clock, NO_RELOAD)
        while next(steps).name != "deduplicate.versions":
            pass
        steps.close()
        assert judge(store, both).merged == 0
    done = run(deduplicate(store, ports.clock, NO_RELOAD))
    assert done.strays == (0 if killed else 25)
    after = judge(store, both)
    assert (after.duplicates, after.merged, len(after.owners)) == (0, 0, 50)
    consistent(store)


def consistent(store: Any) -> None:
    """Objects are what their sources say, and nothing belongs to a closed one."""
    objects, sources = store.table("DiaObject"), store.table("DiaSource")
    current = take(objects, np.isnan(objects["validityEndMjdTai"]))
    held = dict(zip(*np.unique(sources["diaObjectId"], return_counts=True), strict=True))
    assert current["nDiaSources"].tolist() == [held[owner] for owner in current["diaObjectId"].tolist()]
    assert current["r_psfFluxNdata"].tolist() == current["nDiaSources"].tolist()
    forced = store.table("DiaForcedSource")
    alive = forced[np.isnan(forced["timeWithdrawnMjdTai"])]
    assert np.all(np.isin(alive["diaObjectId"], current["diaObjectId"]))
    for owner in current["diaObjectId"][:5].tolist():
        mine = sources[sources["diaObjectId"] == owner]
        weight = 1.0 / mine["psfFluxErr"].astype(float) ** 2
        row = current[current["diaObjectId"] == owner][0]
        np.testing.assert_allclose(row["r_psfFluxMean"], np.sum(weight * mine["psfFlux"]) / weight.sum(), rtol=1e-5)
        assert row["firstDiaSourceMjdTai"] == mine["midpointMjdTai"].min()
        assert row["lastDiaSourceMjdTai"] == mine["midpointMjdTai"].max()


# --- catch-up --------------------------------------------------------------------------------------------------------


def rows_of(store: Any, name: str, columns: list[str]) -> list[tuple[Any, ...]]:
    return sorted(map(tuple, store.table(name)[columns].tolist()))


def partition(store: Any) -> list[tuple[int, ...]]:
    """Which DIASources are together, whatever their object is called."""
    sources = store.table("DiaSource")
    groups: dict[int, list[int]] = {}
    for owner, source in zip(sources["diaObjectId"].tolist(), sources["diaSourceId"].tolist(), strict=True):
        groups.setdefault(owner, []).append(source)
    return sorted(tuple(sorted(group)) for group in groups.values())


class Seen:
    """What catch-up was shown of the store: the latest midpoint that any row knows of, by visit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
        self.latest: dict[float, float] = {}
        for name in ("objects", "history"):
            self._watch(monkeypatch, kind, name)

    def _watch(self, monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> None:
        original = getattr(kind, name)

        def watched(past: Any, *arguments: Any) -> Any:
            found = original(past, *arguments)
            times = ([found.sources["midpointMjdTai"], found.forced["midpointMjdTai"]] if name == "history" else
                     [found["lastDiaSourceMjdTai"]])
            for rows in times:
                self.latest[past.until] = max(self.latest.get(past.until, 0.0), rows.max(initial=0.0))
            return found

        monkeypatch.setattr(kind, name, watched)


@pytest.mark.parametrize("lost", [(1, 4), (0, 1)], ids=["between", "the first two"])
def test_a_night_with_failed_visits_ends_as_the_undisturbed_one(lost: tuple[int, ...],
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    visits, truth = visits_of(6, gap_s=150.0), sky(40)
    whole, broken = MemoryStore(), MemoryStore()
    concurrent_night(visits, truth, PipelineConfig(), whole)
    ports = concurrent_night(visits, truth, PipelineConfig(), broken, lost=lost)
    sent = {segment.visit for segment in broken.unsent()}
    assert judge(broken, truth).counts != judge(whole, truth).counts
    seen = Seen(monkeypatch, AsOf)
    outcomes = run(catch_up(missed(visits, truth), broken, ports, PipelineConfig()))
    assert [(o.status, o.missed.visit.visit) for o in outcomes] == [("done", visits[k].visit) for k in lost]
    assert judge(broken, truth).counts == judge(whole, truth).counts
    assert rows_of(broken, "DiaSource", ["diaSourceId"]) == rows_of(whole, "DiaSource", ["diaSourceId"])
    assert {segment.visit for segment in broken.unsent()} == sent                  # no alerts
    assert not np.any(np.isin(broken.table("DiaForcedSource")["visit"], [visits[k].visit for k in lost]))
    assert len(seen.latest) == 2
    assert all(latest < until for until, latest in seen.latest.items())            # nothing of the future
    run(deduplicate(broken, ports.clock, PipelineConfig()))
    assert partition(broken) == partition(whole)
    consistent(broken)
    if lost == (1, 4):
        statistics = ["diaObjectId", "nDiaSources", "ra", "r_psfFluxMean", "firstDiaSourceMjdTai"]
        ends = [take(store.table("DiaObject"), np.isnan(store.table("DiaObject")["validityEndMjdTai"]))
                for store in (whole, broken)]
        for name in statistics:
            np.testing.assert_allclose(*(np.sort(end[name]) for end in ends), rtol=1e-6)
    assert run(catch_up(missed(visits, truth), broken, ports, PipelineConfig())) == []    # again: nothing to do


def test_a_catch_up_that_read_the_store_as_it_is_would_see_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above."""
    visits, truth = visits_of(4, gap_s=150.0), sky(9)
    store = MemoryStore()
    ports = concurrent_night(visits, truth, PipelineConfig(), store, lost=(1,))
    monkeypatch.setattr(AsOf, "objects", lambda past, box, until=None: past.store.objects(box))
    seen = Seen(monkeypatch, AsOf)
    run(catch_up(missed(visits, truth), store, ports, PipelineConfig()))
    assert any(latest >= until for until, latest in seen.latest.items())


def test_what_the_catch_up_leaves_out_by_default_can_be_switched_on() -> None:
    visits, truth = visits_of(4, gap_s=150.0), sky(16)
    store = MemoryStore()
    ports = concurrent_night(visits, truth, PipelineConfig(), store, lost=(2,))
    config = PipelineConfig(batch=BatchConfig(catch_up=CatchUpConfig(alerts=True, forced=True)))
    packets = len(ports.sink.packets)  # type: ignore[attr-defined]
    (outcome,) = run(catch_up(missed(visits, truth), store, ports, config))
    assert outcome.summary is not None
    assert outcome.summary.n_alerts == 16
    assert len(ports.sink.packets) == packets + 16  # type: ignore[attr-defined]
    assert np.sum(store.table("DiaForcedSource")["visit"] == visits[2].visit) == 16


def test_a_visit_that_cannot_be_caught_up_is_an_outcome_and_the_next_goes_on() -> None:
    visits, truth = visits_of(4, gap_s=150.0), sky(16)
    store, closed = MemoryStore(), []
    ports = concurrent_night(visits, truth, PipelineConfig(), store, lost=(0, 1, 2))

    def measure(error: Exception) -> Steps[Measured]:
        yield Step("detect")
        raise error

    work = missed(visits, truth)
    work[0] = replace(work[0], measure=lambda: measure(AlgorithmError("no PSF stars")))
    work[1] = replace(work[1], measure=lambda: measure(NoWorkFound("no template")))
    outcomes = run(catch_up(work, store, ports, PipelineConfig(), keep=lambda m: closed.append(m.visit.visit),
                            done=lambda o: closed.append(o.status)))
    assert [(o.status, o.reason) for o in outcomes] == [("failed", "no PSF stars"), ("no_work", "no template"),
                                                        ("done", "")]
    assert closed == ["failed", "no_work", visits[2].visit, "done"]


# --- retraction ------------------------------------------------------------------------------------------------------


def test_a_retracted_visit_leaves_objects_that_its_sources_no_longer_count_in() -> None:
    visits, truth, store = visits_of(3, gap_s=150.0), sky(30), MemoryStore()
    early = truth.copy()
    early["flux"][20:] = 0.0                              # ten sources are in the last visit alone
    ports = concurrent_night(visits, lambda visit: truth if visit is visits[2] else early, PipelineConfig(), store)
    sources, forced = store.table("DiaSource"), store.table("DiaForcedSource")
    sources, forced = (take(rows, rows["visit"] == visits[2].visit) for rows in (sources, forced))
    noted: list[np.ndarray] = []
    done = run(retract(store, ports.clock, sources, forced, "a satellite's flare", PipelineConfig(), noted.append))
    assert (done.sources, done.forced, done.closed, done.changed) == (30, 20, 10, 20)
    assert len(noted[0]) == 30
    assert set(noted[0]["reason"].tolist()) == {b"a satellite's flare"}
    after = store.table("DiaSource")
    gone = after["visit"] == visits[2].visit
    assert np.all(np.isfinite(after["timeWithdrawnMjdTai"]) == gone)
    objects = store.table("DiaObject")
    current = take(objects, np.isnan(objects["validityEndMjdTai"]))
    assert current["nDiaSources"].tolist() == current["r_psfFluxNdata"].tolist() == [2] * 20
    assert current["lastDiaSourceMjdTai"].max() == visits[1].mjd_tai
    again = run(retract(store, ports.clock, *(take(store.table(name), store.table(name)["visit"] == visits[2].visit)
                                              for name in ("DiaSource", "DiaForcedSource")), "again", PipelineConfig()))
    assert (again.sources, again.forced, again.closed, again.changed) == (0, 0, 0, 0)
    with pytest.raises(InputError, match="a retraction needs a reason, got '  '"):
        run(retract(store, ports.clock, sources, forced, "  ", PipelineConfig()))


# --- precovery -------------------------------------------------------------------------------------------------------


def kept_night(days: list[float], truth: np.ndarray, faint: np.ndarray,
               store: MemoryStore) -> tuple[Any, MemoryArchive]:
    """Earlier visits of faint sources, their pixels kept, and one visit tonight in which all are bright."""
    archive = MemoryArchive()
    visits = [visit_of(k + 1, minutes=-1440 * day) for k, day in enumerate(days)] + [visit_of(100)]
    ports = ports_of(store)
    for visit, sources in zip(visits, [*[faint] * len(days), truth], strict=True):
        process(visit, sources, ports)
        wcs = Wcs.tangent(visit.ra, visit.dec, SHAPE)
        archive.put(Kept(visit, DETECTOR, wcs, SHAPE), measured_of(visit, sources).pixels)
    return ports, archive


def test_precovered_fluxes_are_the_true_ones() -> None:
    store, truth = MemoryStore(), sky(400, snr=30.0)
    faint = truth.copy()
    faint["flux"] = faint["science_flux"] = 100.0                        # S/N 1: none is detected
    ports, archive = kept_night([40.0, 29.0, 12.0, 3.0], truth, faint, store)
    assert len(store.table("DiaForcedSource")) == 0
    tonight = visit_of(100).mjd_tai
    done = run(precover(store, archive, tonight - 0.1, tonight + 0.1, ports.clock, PipelineConfig()))
    assert (done.objects, done.points, done.expired) == (400, 1200, 1)   # the visit 40 days ago is let go
    points = store.table("DiaForcedSource")
    pulls = (points["psfFlux"] - 100.0) / points["psfFluxErr"]
    assert abs(pulls.mean()) < 4 / np.sqrt(1200)
    assert abs(pulls.std() - 1) < 4 / np.sqrt(2400)
    assert len(np.unique(points["diaForcedSourceId"])) == 1200
    assert np.all(points["midpointMjdTai"] < tonight)
    again = run(precover(store, archive, tonight - 0.1, tonight + 0.1, ports.clock, PipelineConfig()))
    assert again.points == 0
    assert len(store.table("DiaForcedSource")) == 1200


def test_objects_known_before_the_night_are_not_precovered_and_later_visits_are_left_alone() -> None:
    store, truth = MemoryStore(), sky(30, snr=30.0)
    known = truth.copy()
    known["flux"][10:] = known["science_flux"][10:] = 0.0                # ten are detected three days before
    ports, archive = kept_night([12.0, 3.0], truth, known, store)
    live = len(store.table("DiaForcedSource"))
    tonight = visit_of(100).mjd_tai
    done = run(precover(store, archive, tonight - 0.1, tonight + 0.1, ports.clock, PipelineConfig()))
    assert (done.objects, done.points) == (20, 40)
    points = store.table("DiaForcedSource")
    assert len(points) == live + 40
    assert np.sum(ids.unpack(points["diaForcedSourceId"]).counter >= FIRST_ID) == 40
    two = PipelineConfig(batch=BatchConfig(precovery=PrecoveryConfig(min_sources=2)))
    assert run(precover(store, archive, tonight - 0.1, tonight + 0.1, ports.clock, two)).objects == 0


def test_a_wrong_position_would_show_as_a_bias() -> None:
    """The control of the pulls: positions half an arcsecond off lose flux."""
    store, truth = MemoryStore(), sky(400, snr=30.0)
    faint = truth.copy()
    faint["flux"] = faint["science_flux"] = 100.0
    ports, archive = kept_night([3.0], truth, faint, store)
    store.save_objects(_shifted(store, 0.5 / 3600), ports.clock())
    tonight = visit_of(100).mjd_tai
    run(precover(store, archive, tonight - 0.1, tonight + 0.1, ports.clock, PipelineConfig()))
    points = store.table("DiaForcedSource")
    assert np.mean((points["psfFlux"] - 100.0) / points["psfFluxErr"]) < -4 / np.sqrt(400)


def _shifted(store: MemoryStore, degrees: float) -> np.ndarray:
    rows = store.table("DiaObject")
    rows = take(rows, np.isnan(rows["validityEndMjdTai"]))
    rows["dec"] += degrees
    rows["validityStartMjdTai"] += 1e-3
    return rows


def test_the_deployed_deduplication_moves_sources_and_leaves_the_rest_as_it_was() -> None:
    store, truth = MemoryStore(), sky(20)
    ports = concurrent_night(visits_of(6), truth, NO_RELOAD, store)
    done = run(deduplicate(store, ports.clock, batch("deployed", NO_RELOAD)))
    assert (done.merged, done.forced, done.withdrawn, judge(store, truth).duplicates) == (20, 0, 0, 0)
    objects, forced = store.table("DiaObject"), store.table("DiaForcedSource")
    current = take(objects, np.isnan(objects["validityEndMjdTai"]))
    assert len(current) == 20
    assert np.all(current["r_psfFluxNdata"] < 6)                             # statistics are not computed again
    assert not np.all(np.isin(forced["diaObjectId"], current["diaObjectId"]))    # forced points of closed objects


# --- both algorithms -------------------------------------------------------------------------------------------------

FIELDS = {"plain": (330.0, -12.0, False), "RA 0": (0.0, -12.0, False), "dec -85": (200.0, -85.0, False),
          "crowded": (330.0, -12.0, True)}


def field_of(name: str, seed: int) -> np.ndarray:
    """300 sources of S/N 6 to 60; at RA 0 every tenth lies on the meridian."""
    ra, dec, pairs = FIELDS[name]
    rng = np.random.default_rng(seed)
    truth = (crowded if pairs else sky)(300, ra=ra, dec=dec)
    truth["flux"] *= 0.2 * 10 ** rng.uniform(0, 1, len(truth))
    truth["science_flux"] = truth["flux"]
    if name == "RA 0":
        truth["ra"][::10] = rng.uniform(-0.1, 0.1, 30) / 3600 % 360.0
        truth["dec"][::10] = dec + np.linspace(-80, 80, 30) / 3600
    return truth


@pytest.mark.accept
def test_ours_and_the_deployed_algorithm_side_by_side() -> None:
    """A table by field and by what the night re-reads; each figure is of 4 visits of 34 s and 3 seeds."""
    print('\nfield    reload  sources | duplicates before | deployed: left merged  (> 1.5")  '
          '| ours: left  merged  (> 1.5")')
    for name, (ra, dec, _) in FIELDS.items():
        for reload, pixel_s in ((False, lambda i: 50.0), (True, slow_then_fast)):
            config = PipelineConfig(associate=AssociateConfig(reload=reload),
                                    filter=FilterConfig(glints=False))     # thirty on a meridian look like one
            total, before = 0, 0
            found = {algorithm: np.zeros(3, int) for algorithm in ("deployed", "ours")}
            for seed in (1, 2, 3):
                truth = field_of(name, seed)
                evening = MemoryStore()
                ports = concurrent_night(visits_of(4, ra=ra, dec=dec), truth, config, evening, pixel_s=pixel_s,
                                         seed=seed)
                first = judge(evening, truth)
                total, before = total + len(truth), before + first.duplicates
                for algorithm, sums in found.items():
                    store = copy.deepcopy(evening)
                    run(deduplicate(store, ports.clock, batch(algorithm, config)))
                    after = judge(store, truth)
                    sums += [after.duplicates, after.merged - first.merged, after.far]
            print(f"{name:8s} {'on' if reload else 'off':6s} {total:8d} | {before:17d} |"
                  + " |".join(f" {'':9s}{n[0]:5d} {n[1]:7d} {n[2]:9d}   " for n in found.values()))
            assert before > 0.8 * total
            assert found["ours"][0] <= 0.01 * before
            assert found["ours"][1] <= 0.001 * before
            assert found["ours"][2] == 0
            if name in ("RA 0", "dec -85"):
                assert found["deployed"][0] > found["ours"][0]
            if name == "crowded":
                assert found["deployed"][1] > 0.05 * before
