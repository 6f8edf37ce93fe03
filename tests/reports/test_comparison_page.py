import json
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from reports.compare import Comparison, compare
from reports.comparison_page import (
    FILES,
    WORDS,
    Card,
    bar,
    document,
    gallery,
    html,
    junit,
    leading,
    markdown,
    row,
    write,
)
from reports.overlays import Sides, binned, curve, delays, errors
from reports.overlays import completeness as completeness_figure
from reports.paired import Rules
from reports.store import StoreError
from schemas import mask
from schemas.measures import STAMP, STAMP_SIDE, empty
from tests.reports.sides import changed, outcome, traced, without
from tests.reports.test_compare import judged
from twin.recorder import ParquetRecorder

VOID = {"meta", "img", "br", "rect", "line", "circle", "path"}
EVIL = "<script>alert(1)</script>"
BASE = outcome(visits=2, seeds=range(1, 7))
BRIGHT = BASE.sources["snr"] > 20


class Page(HTMLParser):
    """Tags of a page, its text outside scripts, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.classes: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert tag not in ("iframe", "object", "link"), tag
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [given["src"] or ""] if "src" in given else []
        self.links += [given["href"] or ""] if "href" in given else []
        self.ids += [given["id"] or ""] if "id" in given else []
        self.classes += (given.get("class") or "").split()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.words.append(data)


def _compared(head, base=BASE, **options) -> Comparison:
    return compare(base, head, Rules(resamples=400), **{"base_label": "old", "head_label": "new", **options})


def _kept(folder: Path, side, places: np.ndarray, level: float):
    """The side with a run folder per seed that keeps stamps at the places of chosen sources, all pixels of a level."""
    folders = {}
    for seed in np.unique(side.sources["seed"][places]).tolist():
        folders[seed] = folder / str(seed)
        of = np.flatnonzero(places & (side.sources["seed"] == seed))
        rows = empty(STAMP, len(of))
        for name in ("visit", "detector", "x", "y"):
            rows[name] = side.sources[name][of]
        for visit in np.unique(rows["visit"]):
            here = rows["visit"] == visit
            rows["index"][here] = np.arange(here.sum())
            (folders[seed] / "stamps").mkdir(parents=True, exist_ok=True)
            planes = np.random.default_rng(1).normal(level, 1.0, (int(here.sum()), 3, STAMP_SIDE, STAMP_SIDE))
            np.save(folders[seed] / "stamps" / f"{visit}_4.npy", planes.astype(np.float32))
        with ParquetRecorder(folders[seed] / "measures") as recorder:
            recorder.append("stamp", rows)
    return replace(side, folders=folders)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Bright sources lost to a mask and to the threshold, new false alerts, labels that would like to be markup."""
    place = tmp_path_factory.mktemp("runs")
    first = BRIGHT & (BASE.sources["truthId"] % 2 == 0)
    head = without(without(BASE, BRIGHT, "not detected: significance 4.9", significance_at=4.9), first,
                   "own mask: SAT", mask_at=mask.SAT)
    false = BASE.false.copy()
    false["alert"], false["stage"], false["reason"] = True, b"", b""
    head = traced(replace(head, false=false), "calibrate", "detect")
    return _compared(head, _kept(place / "base", BASE, BRIGHT, 5.0), head_label=EVIL)


@pytest.fixture(scope="module")
def text(comparison: Comparison) -> str:
    return html(comparison, notes=("the real field has few visits",))


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def cards(comparison: Comparison) -> list[Card]:
    return gallery(comparison)


def test_the_page_is_one_file_that_loads_nothing(page: Page) -> None:
    assert page.open == []
    assert len(page.loads) > 10
    assert all(source.startswith(("data:image/svg+xml;base64,", "data:image/png;base64,")) for source in page.loads)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    assert len(page.scripts) == 1
    assert not any(word in page.scripts[0] for word in ("http", "fetch", "XMLHttp", "import"))


def test_the_page_begins_with_the_verdict_and_says_what_was_compared(comparison: Comparison, page: Page) -> None:
    text = " ".join(" ".join(page.words).split())
    assert 0 < text.index(comparison.verdict.sentence) < text.index("What decides")
    assert "w-worse" in page.classes
    for part in ("the real field has few visits", "12 (12 detector-visits)", "480 (480 judged)", "1 to 6",
                 "found → own mask: SAT", "new false alert: streak", "differs since calibrate", "alert lost: transient",
                 "How verdicts are made", "Benjamini"):
        assert part in text, part


def test_text_cannot_become_markup(comparison: Comparison, text: str, page: Page) -> None:
    assert EVIL not in text
    assert EVIL in " ".join(page.words)
    assert "<script" not in markdown(comparison).replace("`<script>alert(1)</script>`", "")
    assert ElementTree.fromstring(junit(comparison)).get("name") == f"old -> {EVIL}"


def test_flows_lead_to_their_flips(comparison: Comparison, page: Page, cards: list[Card]) -> None:
    shown = set(comparison.flips.rows["flow"][comparison.flips.shown].tolist())
    assert {link for link in page.links if link.startswith("#flow-")} == {f"#flow-{k}" for k in shown}
    assert [card.anchor for card in cards if card.anchor] == sorted(
        {card.anchor for card in cards} - {""}, key=[c.anchor for c in cards].index)
    assert cards[0].group == "lost"
    assert float(cards[0].snr) == pytest.approx(30.0)


def test_where_one_side_has_no_cutouts_the_others_are_shown_and_said(cards: list[Card], page: Page) -> None:
    lost = [card for card in cards if card.group == "lost"]
    assert lost
    for card in lost:
        assert card.base.source.startswith("data:image/png")
        assert (card.base.borrowed, card.head.borrowed) == (False, True)
        assert (card.base.has, card.head.has) == (True, False)
    false = [card for card in cards if card.group == "new_false"]
    assert all(card.base.source == card.head.source == "" for card in false)     # nobody kept any
    text = " ".join(page.words)
    assert "cutouts of the other side: none were kept of this one" in text
    assert "no cutouts were kept here" in text


def test_given_cutouts_are_shown_where_a_run_kept_none(comparison: Comparison, cards: list[Card]) -> None:
    row = comparison.flips.rows[comparison.flips.shown[0]]
    key = (int(row["seed"]), int(row["visit"]), int(row["detector"]))
    planes = np.random.default_rng(2).normal(0, 1, (2, 3, STAMP_SIDE, STAMP_SIDE)).astype(np.float32)
    places = np.array([[row["x"] + 40, row["y"]], [row["x"], row["y"]]])
    before, after = cards[0], gallery(comparison, stamps=({}, {key: (places, planes)}))[0]
    assert not after.head.borrowed
    assert after.head.source != before.head.source
    both = gallery(comparison, stamps=({key: (places, planes)}, {key: (places, planes)}))[0]
    assert both.base.source == both.head.source != before.base.source            # made alike, so that they compare
    far = gallery(comparison, stamps=({}, {key: (places[:1], planes[:1])}))[0]
    assert far.head.borrowed                                                     # another place is no cutout of it


def test_the_document_is_strict_json_and_holds_everything(comparison: Comparison) -> None:
    text = json.dumps(document(comparison), allow_nan=False)
    found = json.loads(text)
    assert found["verdict"] == "worse"
    assert found["sentence"] == comparison.verdict.sentence
    assert [m["key"] for m in found["metrics"]] == [j.metric.key for j in comparison.judged]
    worse = next(m for m in found["metrics"] if m["key"] == "completeness_raw_10_20")
    lost = next(m for m in found["metrics"] if m["key"] == "completeness_raw_20_up")
    assert (worse["verdict"] != "worse", lost["verdict"], lost["step"]) == (True, "worse", "calibrate")
    assert len(found["flips"]) == len(comparison.flips.rows)
    assert sum(flow["n"] for flow in found["flows"]) == len(found["flips"])
    assert found["head"]["facts"]["numpy"] == "2.0"


def test_markdown_is_short_with_the_rest_folded_away(comparison: Comparison) -> None:
    text = markdown(comparison, notes=("few visits",))
    lines = text.splitlines()
    assert lines[0].startswith("**Worse: ")
    assert "- few visits" in lines
    head = text[:text.index("<details>")]
    assert len(head.splitlines()) < 40
    assert text.count("<details>") == text.count("</details>") == 2
    tables = [line for line in lines if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") in (6, 8) for line in tables)


def test_each_metric_is_a_test_case(comparison: Comparison) -> None:
    suite = ElementTree.fromstring(junit(comparison))
    cases = {case.get("name"): case for case in suite}
    assert list(cases) == [j.metric.key for j in comparison.judged]
    for j in comparison.judged:
        case = cases[j.metric.key]
        failed, skipped = case.find("failure") is not None, case.find("skipped") is not None
        assert failed == (j.verdict == "worse")
        assert skipped == (j.verdict == "no data" or (j.verdict == "undecided" and j.metric.primary))
    assert int(suite.get("failures", "")) == len(comparison.of("worse")) > 0
    assert "[calibrate: " in (cases["completeness_raw_20_up"].find("failure").get("message") or "")


def test_all_four_files_are_written_and_an_unwritable_one_is_one_error(
        comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert write(comparison, tmp_path / "new" / "place") == tmp_path / "new" / "place" / "comparison.html"
    assert sorted(p.name for p in (tmp_path / "new" / "place").iterdir()) == sorted(FILES)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(StoreError, match=r"comparison.json: cannot be written \(Permission denied\)"):
        write(comparison, tmp_path)


def test_equal_sides_have_a_page_without_flips() -> None:
    found = _compared(BASE)
    page = Page(html(found))
    text = " ".join(page.words)
    assert "None: both sides have the same sources" in text
    assert "None that the runs recorded" in text
    assert not any(name in page.classes for name in ("w-worse", "w-better", "card"))
    assert ElementTree.fromstring(junit(found)).get("failures") == "0"


def test_changed_objects_show_both_sides_objects() -> None:
    static = BRIGHT & (BASE.sources["kind"] != b"asteroid")
    cards = gallery(_compared(changed(BASE, static, associated=False, merged=True, diaObjectId=9)))
    assert {card.group for card in cards} == {"object_wrong"}
    assert cards[0].base.lines[0] == "alert, right object"
    assert cards[0].head.lines[0] == "alert, another's object"
    assert (cards[0].base.has, cards[0].head.has) == (True, False)


# --- numbers ---------------------------------------------------------------------------------------------------------

def _x(svg: str, tag: str, attribute: str) -> float:
    return float(next(e.get(attribute) for e in ElementTree.fromstring(svg) if e.tag == tag))


def test_bars_point_to_better_on_the_right_whatever_the_metric() -> None:
    higher = bar(judged("completeness_raw_5.5_8", "worse", -0.02, 0.005))
    lower = bar(judged("false_alerts", "worse", 0.02, 0.005))
    assert _x(higher, "circle", "cx") == _x(lower, "circle", "cx") < 100
    assert _x(bar(judged("false_alerts", "better", -0.02, 0.005)), "circle", "cx") > 100
    zone = ElementTree.fromstring(higher).find("rect")
    assert float(zone.get("x")) == pytest.approx(100 - float(zone.get("width")) / 2)
    # two margins away is twice as far from the middle as the zone's border
    assert 100 - _x(higher, "circle", "cx") == pytest.approx(float(zone.get("width")), abs=0.2)


def test_bars_of_what_is_not_known_or_not_bounded_stay_within_the_picture() -> None:
    j = judged("false_alerts", "no data", 0.0, 0.0)
    assert "circle" not in bar(replace(j, difference=np.nan, low=np.nan, high=np.nan))
    wide = ElementTree.fromstring(bar(replace(j, low=-np.inf, high=np.inf)))
    line = next(e for e in wide if "interval" in (e.get("class") or ""))
    assert 0 < float(line.get("x1")) < 10 < 190 < float(line.get("x2")) < 200
    assert sum(e.tag == "path" for e in wide) == 2                              # arrows at both ends


def test_units_are_those_that_people_read(comparison: Comparison) -> None:
    place = row(replace(judged("position_median", "worse", 0.003, 0.001, margin=0.002), base=0.0280, head=0.0310),
                comparison)
    assert (place.base, place.head, place.difference, place.interval, place.margin, place.unit) == (
        "28.0", "31.0", "+3.00 mas", "+2.00 to +4.00", "±2 mas", "mas")
    share = row(replace(judged("completeness_raw_5.5_8", "worse", -0.02, 0.01), base=0.93, head=0.91), comparison)
    assert (share.base, share.difference, share.margin, share.unit) == ("93.00 %", "−2.00 points", "±1 points", "")
    none = row(replace(judged("false_alerts", "worse", 0, 0), base=0.0, head=1.5, difference=np.inf, low=-np.inf,
                       high=np.inf), comparison)
    assert (none.base, none.head, none.difference, none.interval) == ("0", "1.50", "+∞ %", "not bounded")


def test_a_metric_without_a_better_direction_that_changed_says_so(comparison: Comparison) -> None:
    apart = judged("alerts", "changed", 0.3, 0.05, margin=0.05)
    found = replace(comparison, judged=(*comparison.judged, apart))
    assert (row(apart, found).verdict, row(apart, found).note) == ("changed", "neither way is better")
    assert apart in leading(found)
    assert document(found)["metrics"][-1]["verdict"] == "changed"
    assert "| +30.0 % | +25.0 to +35.0 | **changed** |" in markdown(found)
    assert "changed: " in junit(found)


def test_primary_metrics_are_always_among_those_that_decide(comparison: Comparison) -> None:
    found = leading(comparison)
    keys = [j.metric.key for j in found]
    assert {j.metric.key for j in comparison.judged if j.metric.primary and j.verdict != "no data"} <= set(keys)
    assert len(found) < 30
    assert [j.verdict for j in found] == sorted((j.verdict for j in found),
                                                key=WORDS.index)
    assert all(sum(j.metric.section == s and not j.metric.primary for j in found) <= 2
               for s in {j.metric.section for j in found})


# --- curves ----------------------------------------------------------------------------------------------------------

def test_the_interval_of_a_curve_is_that_of_paired_visits() -> None:
    rng = np.random.default_rng(5)
    covered = narrower = 0
    for _ in range(200):
        shared = rng.normal(0, 1.0, 30)                       # what a visit does to both sides
        base, head = (shared + rng.normal(m, 0.1, 30) for m in (0.0, 0.05))
        one = np.ones((1, 30))
        found = curve(np.zeros(1), (base[None], one), (head[None], one))
        covered += abs(found.difference[0] - 0.05) <= found.half[0]
        narrower += found.half[0] < 0.1
    assert abs(covered - 190) < 4 * np.sqrt(200 * 0.95 * 0.05)
    assert narrower == 200                                    # unpaired, it would be 0.5


def test_bins_are_means_of_what_lies_in_them() -> None:
    value, x, unit = np.array([0.0, 1.0, 1.0, 9.0]), np.array([1.0, 1.5, 2.0, np.nan]), np.array([0, 1, 0, 1])
    found = binned(value, value + 1, (x, x), [1.0, 2.0, 3.0], (unit, unit), 2)
    np.testing.assert_allclose(found.base, [0.5, 1.0])
    np.testing.assert_allclose(found.difference, 1.0)
    np.testing.assert_array_equal(found.n, [2, 1])


def test_figures_of_empty_sides_say_so(comparison: Comparison) -> None:
    empty_side = replace(comparison.base, sources=comparison.base.sources[:0],
                         units={**comparison.base.units, "sources": np.zeros(0, int)})
    figure = completeness_figure(Sides(empty_side, empty_side, ("a", "b"), comparison.units.n))
    assert "too few sources" in {text.get_text() for axes in figure.axes for text in axes.texts}


def test_times_of_steps_are_drawn_though_some_rows_were_timed_beside_the_runs(comparison: Comparison) -> None:
    base, head = comparison.base, comparison.head
    timed = head.steps.copy()
    timed["duration_s"] = np.nan
    sides = Sides(base, replace(head, steps=np.concatenate([head.steps, timed])), ("a", "b"), comparison.units.n)
    axes = next(axes for axes in delays(sides).axes if axes.get_title("left") == "Time by Step")
    for line in axes.lines[:2]:
        assert np.max(line.get_xdata()) == pytest.approx(1.0)             # the tenth Step takes a second
        assert np.all(line.get_xdata() > 0)


def test_the_curve_of_delays_is_the_fraction_sent_and_the_change_its_difference(comparison: Comparison) -> None:
    late = comparison.head.packets.copy()
    late["sent_mjd_tai"] += 3 / 86400
    head = replace(comparison.base, packets=late)
    sent, change = delays(Sides(comparison.base, head, ("a", "b"), comparison.units.n)).axes[:2]
    (base_x, base_y), (head_x, head_y) = (line.get_data() for line in sent.lines)
    assert np.array_equal(base_x, head_x)
    assert (base_y[-1], head_y[-1], base_y[0], head_y[0]) == (1, 1, 0, 0)
    np.testing.assert_allclose(change.lines[0].get_ydata(), head_y - base_y)
    assert np.all(head_y <= base_y)


def test_positions_are_drawn_of_the_points_that_the_metric_judges(comparison: Comparison) -> None:
    """Stars that moved are no points: their errors are their own."""
    rows = comparison.base.sources.copy()
    far = rows["snr"] > 20
    rows["kind"][far], rows["judged"][far], rows["dra"][far] = b"moved_star", False, 0.5
    side = replace(comparison.base, sources=rows)
    figure = errors(Sides(side, side, ("a", "b"), comparison.units.n))
    drawn = next(axes for axes in figure.axes if axes.get_title("left") == "Position errors of points that both have")
    assert np.max(drawn.lines[0].get_ydata()) < 50


@pytest.mark.bench
def test_the_page_of_two_hundred_detector_visits_takes_seconds(tmp_path: Path) -> None:
    base = outcome(visits=10, sources=60, seeds=range(1, 21))
    head = without(base, (base.sources["snr"] > 5) & (base.sources["snr"] < 9), "own mask: SAT", mask_at=mask.SAT)
    found = _compared(head, base)
    start = time.process_time()
    write(found, tmp_path)
    assert time.process_time() - start < 5
    assert (tmp_path / "comparison.html").stat().st_size < 10e6
