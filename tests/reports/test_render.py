import json
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from reports.acceptance import Figure
from reports.completeness import completeness, plot
from reports.drawing import svg
from reports.match import match
from reports.render import document, gather, headline, plain, render
from reports.store import Store, StoreError
from schemas.exposure import fluxes_njy
from schemas.measures import EXPOSURE_LOG, INJECTION, empty
from tests.reports.maker import MJD0, SIDE, make
from twin.recorder import ParquetRecorder

VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """Tags of a page, its text, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert tag not in ("script", "iframe", "object", "link"), tag
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [given[name] or "" for name in ("src",) if name in given]
        self.links += [given["href"] or ""] if "href" in given else []
        self.ids += [given["id"] or ""] if "id" in given else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def page(good: Store) -> Page:
    return Page(render(good.folder).read_text(encoding="utf-8"))


def test_the_page_is_one_file_that_loads_nothing(page: Page) -> None:
    assert page.open == []
    assert page.loads
    assert all(source.startswith(("data:image/svg+xml;base64,", "data:image/png;base64,")) for source in page.loads)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)


def test_the_page_says_what_it_shows_and_at_which_fidelity(page: Page) -> None:
    text = " ".join(page.words)
    for part in ("29 of 29 judged figures pass", "pixels · measured", "simulated clock · modelled by fitted costs",
                 "cosmic ray", "Completeness", "Purity", "Latency", "Association", "Sky map"):
        assert part in text, part
    assert len([source for source in page.loads if source.startswith("data:image/png")]) > 12     # triplets


def test_text_of_a_run_cannot_become_markup(good: Store, page: Page) -> None:
    text = (good.folder / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_the_figures_for_machines_are_strict_json_with_a_version(good: Store, page: Page) -> None:
    text = (good.folder / "report.json").read_text(encoding="utf-8")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads(text, parse_constant=refuse)
    assert found["version"] == 1
    keys = {figure["key"]: figure for figure in found["figures"]}
    assert keys["s50_raw"]["verdict"] == "pass"
    assert keys["wcs"]["low"] is None                # an extreme has no interval
    assert found["completeness"]["by_snr"][5]["n"] > 0
    assert found["latency"]["since_readout_s"]["p50"] == pytest.approx(40, abs=4)


def test_the_page_has_all_of_section_6_with_rubins_names(page: Page) -> None:
    text = " ".join(page.words)
    for key in ("template", "rate", "purity", "completeness", "latency", "photometry", "lightcurves", "astrometry",
                "shapes", "association", "solarsystem", "stars", "crowding", "metrics"):
        assert key in page.ids, key
    for name in ("templateCoveragePercent", "templateLimitingMagnitude", "numDiaSources", "numDipoles",
                 "alert_timing_since_shutter_close", "astromOffsetMean", "totalUnassociatedDiaObjects",
                 "numTotalSolarSystemObjects", "numAssociatedSsObjects", "PromptSource"):
        assert name in text, name
    assert "it cannot say what crowding does" in text


def test_the_figures_for_machines_hold_all_of_section_6(good: Store, page: Page) -> None:
    found = json.loads((good.folder / "report.json").read_text(encoding="utf-8"))
    assert [band["band"] for band in found["template"]["bands"]] == ["g", "r", "i"]
    assert found["template"]["bands"][0]["coverage"]["value"] == pytest.approx(0.99)
    assert found["packets"]["median"]["value"] == 100_000
    assert found["completeness"]["by_distance"][0]["n"] > 0
    assert found["stars"]["bright"]["value"] == 1.0
    assert found["crowding"]["single"] is True
    assert found["light_curves"]["spread"]["value"] == pytest.approx(1.0, abs=0.05)
    assert "points" not in found["light_curves"]
    by_key = {metric["key"]: metric for metric in found["metrics"]}
    assert by_key["template_depth"]["rubin"] == "templateLimitingMagnitude"
    assert by_key["alerts"]["visits"] == 12


def test_a_run_recorded_before_these_columns_were_is_still_read(tmp_path: Path) -> None:
    folder = make(tmp_path / "old", visits=2, sources=80)
    log = Store(folder).table("exposure_log")
    for table in ("star", "DiaForcedSource", "exposure_log"):
        for part in (folder / "measures" / table).iterdir():
            part.unlink()
    columns = [name for name in log.dtype.names or () if not name.startswith("template") and name != "n_star"]
    with ParquetRecorder(folder / "measures") as recorder:
        recorder.append("exposure_log", np.array(log[columns].tolist(), np.dtype([(n, log.dtype[n]) for n in columns])))
    ids = Page(render(folder).read_text(encoding="utf-8")).ids
    assert "completeness" in ids
    assert not {"template", "stars", "crowding", "lightcurves"} & set(ids)
    found = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert (found["stars"], found["crowding"], found["template"]["bands"]) == (None, None, [])


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    folder = make(tmp_path / "small", visits=1, sources=60, stamps=2)
    tables = [completeness(match(Store(folder))) for _ in range(2)]
    assert svg(plot(tables[0])) == svg(plot(tables[1]))
    assert document(gather(Store(folder))) == document(gather(Store(folder)))


def _log(status: bytes = b"done", reason: bytes = b"") -> np.ndarray:
    rows = empty(EXPOSURE_LOG, 1)
    for name, value in {"visit": 2026030500001, "detector": 4, "band": b"r", "midpointMjdTai": MJD0, "nx": SIDE,
                        "ny": SIDE, "ra": 150.0, "dec": -30.0, "fidelity": b"pixels", "status": status,
                        "reason": reason}.items():
        rows[name] = value
    return rows


def test_a_run_in_which_everything_failed_has_a_page(tmp_path: Path) -> None:
    with ParquetRecorder(tmp_path / "measures") as recorder:
        recorder.append("exposure_log", _log(b"failed", b"no PSF stars"))
    text = " ".join(Page(render(tmp_path).read_text(encoding="utf-8")).words)
    assert "failed: no PSF stars" in text
    assert "No alert of a live exposure was published" in text


def test_a_run_without_any_table_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "measures").mkdir()
    assert "0 of 0 judged figures pass" in render(tmp_path).read_text(encoding="utf-8")


def test_a_production_run_is_judged_by_its_injections(tmp_path: Path) -> None:
    folder = make(tmp_path / "field", visits=1, sources=200, kind="injected", stamps=2)
    text = " ".join(Page(render(folder).read_text(encoding="utf-8")).words)
    assert "truth: injected sources" in text
    assert "Alerts that were not injected" in text
    assert not {"purity", "association", "solarsystem"} & set(Page((folder / "report.html").read_text()).ids)
    assert "Purity" not in text                  # a real field's other detections are not false
    found = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert {figure["key"] for figure in found["figures"]} >= {"injected_8", "pull_std_hostless", "snr_rms"}


def test_injections_alone_serve_as_truth(tmp_path: Path) -> None:
    folder = make(tmp_path / "field", visits=1, sources=100, kind="injected")
    truth = Store(folder).table("truth")
    for part in (folder / "measures" / "truth").iterdir():
        part.unlink()
    rows = empty(INJECTION, len(truth))
    for name in ("visit", "detector", "x", "y", "ra", "dec"):
        rows[name] = truth[name]
    rows["injectionId"], rows["flux"], rows["template"] = truth["truthId"], np.abs(truth["flux"]), truth["flux"] < 0
    with ParquetRecorder(folder / "measures") as recorder:
        recorder.append("injection", rows)
    matches = gather(Store(folder)).matches
    assert matches.kind == "injected"
    detected = np.abs(truth["snr"]) > 9
    assert matches.raw[detected].mean() > 0.95
    error = fluxes_njy(24.51) / 5              # the science image's depth: the log has no other
    np.testing.assert_allclose(matches.truth["snr"], matches.truth["flux"] / error, rtol=1e-5)


def test_a_production_run_without_truth_has_a_page(tmp_path: Path) -> None:
    folder = make(tmp_path / "field", visits=1, sources=100, kind="injected")
    for part in (folder / "measures" / "truth").iterdir():
        part.unlink()
    text = " ".join(Page(render(folder).read_text(encoding="utf-8")).words)
    assert "truth: none" in text
    assert "Completeness" not in text


def test_an_unwritable_folder_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    (tmp_path / "measures").mkdir()
    with pytest.raises(StoreError, match=r"report.json: cannot be written \(Permission denied\)"):
        render(tmp_path)


def test_numbers_that_are_not_finite_become_null() -> None:
    assert plain({"a": np.float32("nan"), "b": [np.inf, 1.5], "c": np.array([(1, np.nan)], [("x", int), ("y", float)]),
                  "d": b"text", "e": (np.int64(3), True, None)}) == {
                      "a": None, "b": [None, 1.5], "c": [{"x": 1, "y": None}], "d": "text", "e": [3, True, None]}


def test_the_headline_names_what_fails() -> None:
    good = Figure("a", "first", 1.0, 0.9, 1.1, "≤ 2", True, 500, 200)
    bad, few = replace(good, name="second", passes=False), replace(good, n=3)
    assert headline([good, good]) == "2 of 2 judged figures pass."
    assert headline([good, bad, few]) == ("1 of 2 judged figures pass; 1 fails (second); 1 rest on too few cases to "
                                          "judge.")


@pytest.mark.bench
def test_a_demo_nights_page_takes_seconds(good: Store) -> None:
    start = time.process_time()
    render(good.folder)
    assert time.process_time() - start < 8
