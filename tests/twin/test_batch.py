"""`alert-twin batch`: on a run's folder and on a store, and killed at any point."""

import copy
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline.batch.journal import Journal
from pipeline.batch.kept import FolderArchive, Kept, MemoryArchive
from pipeline.batch.morning import STEPS, Night, morning
from pipeline.config import AssociateConfig, PipelineConfig
from pipeline.errors import InputError
from pipeline.ports import Ports, PromptArchive
from pipeline.steps import Step, run
from pipeline.stores.duckdb import DuckDBStore
from pipeline.stores.memory import MemoryStore
from reports import sections
from reports.render import document
from reports.report import gather
from reports.store import Store
from schemas.table import take
from schemas.wcs import Wcs
from tests.twin.conftest import SMALL
from tests.twin.mornings import Morning, concurrent_night, judge, missed
from tests.twin.nights import DETECTOR, MJD, SHAPE, measured_of, ports_of, sky, visit_of
from tests.twin.test_morning import partition, visits_of
from twin.cli import main
from twin.night import run_night
from twin.scenario import Scenario

NO_RELOAD = PipelineConfig(associate=AssociateConfig(reload=False))
LOST = (1,)


# --- killed ----------------------------------------------------------------------------------------------------------


def night_of(store: PromptArchive, ports: Ports, folder: Path, truth: np.ndarray) -> Night:
    """The morning after a concurrent night of five visits, one of them missed; the first two are kept."""
    visits, archive = visits_of(5), MemoryArchive()
    for visit in visits[:2]:
        archive.put(Kept(visit, DETECTOR, Wcs.tangent(visit.ra, visit.dec, SHAPE), SHAPE),
                    measured_of(visit, truth).pixels)
    return Night(20270822, visits[0].mjd_tai, visits[-1].mjd_tai + 1e-5, store, ports, NO_RELOAD,
                 Journal(folder / "journal.jsonl"), lambda: missed(visits, truth), archive,
                 lambda: {"visits": len(visits)})


def fading(truth: np.ndarray) -> Callable[[Any], np.ndarray]:
    """A third of the sources appear in the third visit."""
    early = truth.copy()
    early["flux"][::3] = early["science_flux"][::3] = 0.0
    return lambda visit: truth if visit.visit >= visit_of(3).visit else early


def state(store: PromptArchive) -> Any:
    """What a morning leaves, whenever it did what."""
    objects, forced = store.table("DiaObject"), store.table("DiaForcedSource")
    current = take(objects, np.isnan(objects["validityEndMjdTai"]))
    current = current[np.argsort(current["diaObjectId"])]
    alive = np.isnan(forced["timeWithdrawnMjdTai"])
    points = sorted(zip(*(forced[name].tolist() for name in ("diaObjectId", "visit")), alive.tolist(), strict=True))
    return (partition(store), current["diaObjectId"].tolist(), current["nDiaSources"].tolist(),
            np.round(current["ra"], 9).tolist(), current["r_psfFluxMean"].tolist(), points)


def killed_at(steps: Any, count: int) -> bool:
    """Drive so many Steps and close, as a kill does; whether it ended before."""
    for _ in range(count):
        try:
            next(steps)
        except StopIteration:
            return True
    steps.close()
    return False


def test_a_morning_closed_at_any_step_ends_as_the_undisturbed_one(tmp_path: Path) -> None:
    truth, evening = sky(6), MemoryStore()
    ports = concurrent_night(visits_of(5), fading(truth), NO_RELOAD, evening, lost=LOST)
    reference: Any = None
    for count in range(60):
        store = copy.deepcopy(evening)
        night = night_of(store, ports, tmp_path / f"{count}", truth)
        if reference is None:
            run(morning(night))
            reference = state(store)
            assert judge(store, truth).duplicates == 0
            assert set(night.journal.results(20270822)) == set(STEPS)
            continue
        ended = killed_at(morning(night), count)
        results = run(morning(night))
        assert list(results) == list(STEPS)
        assert state(store) == reference, count
        if ended:
            break
    assert 25 < count < 59


def test_a_morning_killed_by_the_system_goes_on_where_it_was(tmp_path: Path) -> None:
    """SIGKILL at the first Step, then at the second of what is left, and so on, on a database file."""
    truth = sky(6)

    def work(kill_at: int) -> None:
        store = DuckDBStore(tmp_path / "prompt.duckdb")
        if kill_at < 0:
            concurrent_night(visits_of(5), fading(truth), NO_RELOAD, store, lost=LOST)
            store.close()
            return
        journal = Journal(tmp_path / "journal.jsonl")
        hours = 10.0 if not np.isfinite(journal.latest()) else (journal.latest() - MJD) * 24 + 1
        night = night_of(store, ports_of(store, clock=Morning(3600 * hours)), tmp_path, truth)
        seen = 0

        def note(step: Step) -> None:
            nonlocal seen
            seen += 1
            if seen > kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        run(morning(night), note)
        store.close()

    assert forked(lambda: work(-1)) == 0
    ends = []
    for kill_at in (0, 7, 2, 5, 3, 10**9):
        ends.append(forked(lambda: work(kill_at)))  # noqa: B023  # called at once
        if ends[-1] == 0:
            break
    assert ends.count(-signal.SIGKILL) >= 4
    assert ends[-1] == 0
    reference = MemoryStore()
    ports = concurrent_night(visits_of(5), fading(truth), NO_RELOAD, reference, lost=LOST)
    run(morning(night_of(reference, ports, tmp_path / "reference", truth)))
    store = DuckDBStore(tmp_path / "prompt.duckdb")
    assert state(store)[:3] == state(reference)[:3]
    assert len(state(store)[5]) == len(state(reference)[5])
    store.close()


def forked(work: Callable[[], None]) -> int:
    """The exit code of a process that does the work, minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_what_the_journal_knows_is_not_done_again_unless_asked(tmp_path: Path) -> None:
    truth, store = sky(9), MemoryStore()
    ports = concurrent_night(visits_of(5), fading(truth), NO_RELOAD, store, lost=LOST)
    night = night_of(store, ports, tmp_path, truth)
    first = run(morning(night))
    assert first["catchup"]["done"] == 1
    names: list[str] = []
    assert run(morning(night), lambda step: names.append(step.name)) == first
    assert names == []
    again = run(morning(night, ("catchup", "dedup"), again=True))
    assert (again["catchup"]["missed"], again["dedup"]["merged"]) == (0, 0)
    with pytest.raises(InputError, match="batch has no step 'coffee': there are catchup, dedup, precovery"):
        run(morning(night, ("coffee",)))


def test_a_journal_cut_short_is_mended_and_a_foreign_one_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.note(20270822, "dedup", "ended", 61000.5, {"merged": 3})
    with journal.path.open("a") as file:
        file.write('{"night": 20270822, "step": "prec')
    assert journal.results(20270822) == {"dedup": {"merged": 3}}
    journal.note(20270822, "precovery", "began", 61000.6)
    assert [entry["step"] for entry in journal.entries()] == ["dedup", "precovery"]
    assert journal.latest() == 61000.6
    journal.path.write_text("hello\n")
    with pytest.raises(InputError, match=r"journal.jsonl:1: not an entry of a batch journal"):
        journal.entries()


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small night with its first visit's worker killed, differences kept; its morning is over."""
    folder = tmp_path_factory.mktemp("broken") / "run"
    settings = {**SMALL, "platform": {"workers": 2, "killed": [1]},
                "pipeline": {"template": {"min_visits": 2}, "batch": {"precovery": {"keep": True}}}}
    run_night(msgspec.convert(settings, Scenario), folder)
    assert main(["batch", str(folder)]) == 0
    return folder


def test_a_run_is_caught_up_with_the_sources_of_the_undisturbed_night(broken: Path, night: Path) -> None:
    log = Store(broken).table("exposure_log")
    assert log["status"].tolist() == [b"failed", b"done"]
    assert log["reason"][0] == b"the worker was killed"
    whole, after = Store(night), Store(broken / "batch")
    assert after.table("exposure_log")["status"].tolist() == [b"done", b"done"]
    columns = ["diaSourceId", "visit", "ra", "psfFlux", "reliability"]
    np.testing.assert_array_equal(*(np.sort(store.table("DiaSource")[columns], order="diaSourceId")
                                    for store in (whole, after)))
    assert len(after.table("truth")) == len(whole.table("truth"))
    ids = [groups(store.table("DiaSource")) for store in (whole, after)]
    assert ids[0] == ids[1]                               # together as in the undisturbed night
    killed = log["visit"][0]
    assert not np.any(after.table("publication")["visit"] == killed)
    assert not np.any(after.optional("DiaForcedSource")["visit"] == killed)
    assert not (broken / "scratch").exists()


def test_visits_whose_time_was_over_are_processed_in_the_morning(night: Path, tmp_path: Path) -> None:
    run_night(msgspec.convert({**SMALL, "platform": {"timeout_s": 80.0, "cost_scale": 500.0}}, Scenario),
              tmp_path / "run")
    assert Store(tmp_path / "run").table("exposure_log")["status"].tolist() == [b"timeout", b"timeout"]
    assert main(["batch", str(tmp_path / "run"), "catchup"]) == 0
    assert main(["batch", str(tmp_path / "run"), "consolidate"]) == 0
    whole, after = Store(night), Store(tmp_path / "run" / "batch")
    assert after.table("exposure_log")["status"].tolist() == [b"done", b"done"]
    assert len(after.table("truth")) == len(whole.table("truth"))        # the night had recorded it: not twice
    assert groups(after.table("DiaSource")) == groups(whole.table("DiaSource"))
    assert not len(after.optional("publication"))


def groups(sources: np.ndarray) -> list[list[int]]:
    """Which DIASources are together."""
    return sorted(sorted(sources["diaSourceId"][sources["diaObjectId"] == owner].tolist())
                  for owner in np.unique(sources["diaObjectId"][sources["diaObjectId"] != 0]))


def test_the_night_in_numbers_is_beside_it(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((broken / "batch" / "summary.json").read_text())
    rows = Store(broken / "batch").table("visit_summary")
    assert (summary["visits"], summary["done"], summary["caught_up"], summary["failed"]) == (2, 2, 1, 0)
    assert rows["n_caught_up"].tolist() == [1, 0]
    assert rows["n_lost_founding"].sum() > 5              # found twice, and merged
    sources = Store(broken / "batch").table("DiaSource")
    assert rows["n_sources"].tolist() == [int(np.sum(sources["visit"] == visit)) for visit in rows["visit"]]
    assert summary["precovered"] == rows["n_precovered"].sum()
    assert rows["n_alerts"][0] == 0
    assert main(["batch", str(broken)]) == 0
    printed = capsys.readouterr().out
    assert "catchup (done before)" in printed
    assert "done 1, no_work 0, failed 0" in printed


def test_differences_are_kept_those_of_visits_caught_up_too(broken: Path) -> None:
    archive = FolderArchive(broken / "kept")
    assert [kept.visit.visit for kept in archive.kept(0, 1e9)] == Store(broken).table("exposure_log")["visit"].tolist()
    assert archive.size() < 2 * 440 * 440 * 1.2


def test_fluxes_forced_on_what_was_kept_are_the_true_ones(broken: Path) -> None:
    """At the true places, so that no detection chooses them: what precovery measures where nothing was found."""
    archive, truth = FolderArchive(broken / "kept"), Store(broken / "batch").table("truth")
    pulls = []
    for kept in archive.kept(0, 1e9):
        rows = truth[(truth["visit"] == kept.visit.visit) & truth["isolated"] & (truth["input_mask"] == 0)
                     & np.isin(truth["kind"], [b"transient", b"variable", b"agn"])]
        forced = archive.pixels(kept).force(rows["ra"], rows["dec"])
        good = ~forced["flag_edge"] & ~forced["flag_noGoodPixels"]
        pulls.append(((forced["psfFlux"] - rows["flux"]) / forced["psfFluxErr"])[good])
    pull = np.concatenate(pulls)
    print(f"pull of {len(pull)}: mean {pull.mean():.3f}, std {pull.std():.3f}")
    assert len(pull) > 20
    assert abs(np.median(pull)) < 4 * 1.25 / np.sqrt(len(pull))
    spread = 1.4826 * np.median(np.abs(pull - np.median(pull)))
    assert abs(spread - 1) < 4 * 1.17 / np.sqrt(len(pull))


def test_the_report_reads_the_morning(broken: Path) -> None:
    report = gather(Store(broken))
    section = sections._association(report, "tag")        # the page's other sections take seconds to draw
    assert "The morning's batch leaves" in section.text
    assert [title for _, title in section.images] == ["Association before and after the batch"]
    assert section.tables[0].head == ("", "the night", "after the batch")
    assert report.morning is not None
    assert report.morning.duplicates == 0
    assert document(report)["association_after_batch"]["duplicates"] == 0
    after = gather(Store(broken / "batch"))
    assert after.morning is None
    assert after.facts["batch"] == "caught up 1 detector-visits"


def test_sources_are_withdrawn_with_the_reason(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    visit = int(Store(broken).table("exposure_log")["visit"][0])
    n = int(np.sum(Store(broken / "batch").table("DiaSource")["visit"] == visit))
    assert main(["batch", str(broken), "retract", "--visit", str(visit), "--reason", "a satellite's flare"]) == 0
    assert f"withdrew {n} DIASources" in capsys.readouterr().out
    assert main(["batch", str(broken), "consolidate"]) == 0
    rows = Store(broken / "batch").table("retraction")
    assert len(rows) == n
    assert set(rows["reason"].tolist()) == {b"a satellite's flare"}
    assert Store(broken / "batch").table("visit_summary")["n_withdrawn"].tolist() == [n, 0]


@pytest.mark.parametrize(("arguments", "message"), [
    (["nowhere"], "nowhere: no run folder, it has no measures/"),
    (["duckdb:nowhere.db"], "prompt store 'duckdb:nowhere.db': there is no such file"),
    (["postgresql://host/db"], "name a folder for its journal (--folder)"),
    (["RUN", "retract", "--reason", "x"], "retract: name a visit (--visit) or DIASources (--source)"),
    (["RUN", "retract", "--visit", "7", "--reason", "x"], "retract: no DIASource of visit 7 in the store"),
    (["RUN", "retract", "--source", "7", "--reason", "x"], "retract: no DIASource 7 in the store"),
    (["RUN", "dedup", "--set", "batch.deduplicate.radius=3"], "--set batch.deduplicate.radius=3: Object contains "
                                                              "unknown field `radius`"),
])
def test_what_cannot_be_done_is_one_line(arguments: list[str], message: str, broken: Path,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["batch", *(str(broken) if word == "RUN" else word for word in arguments)])
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_store_alone_has_a_morning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, path = sky(12), tmp_path / "prompt.duckdb"
    store = DuckDBStore(path)
    concurrent_night(visits_of(3), truth, NO_RELOAD, store)
    assert judge(store, truth).duplicates > 0
    store.close()
    assert main(["batch", f"duckdb:{path}", "--night", "20270822"]) == 0
    printed = capsys.readouterr().out
    assert "night 20270822" in printed
    assert "precovery               skipped no differences were kept" in printed
    store = DuckDBStore(path)
    assert judge(store, truth).duplicates == 0
    store.close()
    assert (tmp_path / "batch" / "summary.json").is_file()
    assert main(["batch", f"duckdb:{path}", "--night", "20270823"]) == 2
    assert "no visits of the night 20270823" in capsys.readouterr().err
