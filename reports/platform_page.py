"""A run at counts fidelity to one self-contained page, `report.html`, its figures for machines and its pictures."""

import base64
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from reports.drawing import png
from reports.page import Table, chip, plain, rendered, written
from reports.platform import SEEN_S, Fault, PlatformReport, platform, plot_delays, plot_load, plot_visits
from reports.races import Races
from reports.requirement import MAX_FAILED, MAX_LATE
from reports.store import Store, StoreError
from reports.timeline import packed, plot_workers, worst

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Tile:
    """A number at the top of the page."""

    label: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page."""

    key: str
    title: str
    tag: str
    text: Sequence[str] = ()
    images: Sequence[tuple[str, str]] = ()     # source, caption
    tables: Sequence[Table] = ()
    timeline: dict[str, Any] | None = None     # what the page's script reads


def render_platform(folder: str | os.PathLike[str], more: Sequence[Section] = ()) -> Path:
    """Write `report.html`, `report.json` and four PNG into a run folder on the platform; the page's path.

    `more` are sections on what else the run holds.
    """
    store = Store(Path(folder))
    report, facts = platform(store), store.facts()
    faults = faults_of(facts)
    drawn = {"delays": plot_delays(report), "visits": plot_visits(report, faults), "load": plot_load(report),
             "workers": plot_workers(report.passages, report.judged.visits, report.tag)}
    images = {name: png_file(Path(folder) / f"{name}.png", figure) for name, figure in drawn.items()}
    page = rendered("platform.html", title=facts.get("scenario", ""), name=Path(folder).resolve().name,
                    description=facts.get("description", ""), circumstances=circumstances(facts),
                    tiles=tiles(report), sections=[*sections(report, facts, faults, images), *more])
    written(Path(folder) / "report.json", json.dumps(document(report, facts), indent=1, allow_nan=False))
    return written(Path(folder) / "report.html", page)


def png_file(path: Path, figure: Figure) -> str:
    """Write a figure beside a page; its source within the page."""
    data = png(figure, dpi=110)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from error
    return "data:image/png;base64," + base64.b64encode(data).decode()


def faults_of(facts: dict[str, str]) -> list[Fault]:
    """The faults that a run notes, in the order of its scenario."""
    number = sum(key.startswith("fault_") and key.endswith("_span_s") for key in facts)
    return [Fault(facts[f"fault_{k}"], *(float(text) for text in facts[f"fault_{k}_span_s"].split()))
            for k in range(number)]


def circumstances(facts: dict[str, str]) -> list[tuple[str, str]]:
    """What the page's figures come from, by name."""
    table = PurePath(facts.get("cost_table", "").replace("\\", "/")).name
    note = f"; {facts['cost_note']}" if facts.get("cost_note") else ""
    return [
        ("fidelity", _fidelity(facts)),
        ("seconds of Steps", f"{facts.get('cost_origin')}: {table}, {facts.get('cost_machine')}, "
                             f"{facts.get('cost_date')}{note}; times {facts.get('cost_scale')}"),
        ("numbers of sources", facts.get("counts_model", "")),
        ("machines", f"{facts.get('workers')} workers at most; servers: {facts.get('servers')}; "
                     f"{facts.get('egress_gbps')} Gb/s to the brokers"),
        ("run", f"seed {facts.get('seed')}, twin {facts.get('twin')}, {facts.get('wall_s')} s on "
                f"{facts.get('machine')}")]


def _fidelity(facts: dict[str, str]) -> str:
    """Which detectors are of which fidelity, and what that makes of the page's figures."""
    live = []
    for kind in ("pixels", "catalogue"):
        numbers = facts.get(f"detectors_{kind}", "").split()
        if numbers:
            live.append(f"{' '.join(numbers) if len(numbers) <= FEW else f'({len(numbers)} of them)'}: {kind}")
    if not live:
        return "counts: numbers of sources and seconds of Steps; every figure here is modelled"
    return (f"detectors {'; detectors '.join(live)}; {facts.get('detectors_counts', '0')} others: counts. Numbers of "
            "alerts of the former come from the pipeline itself, all times are modelled.")


def tiles(report: PlatformReport) -> list[Tile]:
    """The numbers to see first."""
    j = report.judged
    held = report.held.sum(axis=0)
    return [
        Tile("alerts sent", f"{int(report.passages['n_sent'].sum()):,}",
             f"of {j.alerts:,} that were due"),
        Tile("98 % of them within", f"{_s(j.percentiles_s['p98'])} s",
             "of the end of readout, those never sent at infinity"),
        Tile("within 60 s", f"{j.on_time:.1%}", f"{j.within_120:.1%} within 120 s"),
        Tile("visits late", f"{j.late:.2%}", f"at most 1 %: {_verdict(j.late <= MAX_LATE)}"),
        Tile("visits failed", f"{j.failed:.2%}", f"at most 0.1 %: {_verdict(j.failed <= MAX_FAILED)}"),
        Tile("workers held", f"{held.mean():.0f}", f"on average; {held.max():.0f} at most")]


def sections(report: PlatformReport, facts: dict[str, str], faults: Sequence[Fault], images: dict[str, str]
             ) -> list[Section]:
    """The page's parts; one that has nothing to say is left out."""
    out = [_latency(report, facts, images["delays"])]
    if len(report.causes):
        out.append(_causes(report))
    v = report.judged.visits
    out.append(Section("night", "The night", report.tag, [
        f"The worst visit is number {worst(v)} ({v['visit'][worst(v)]})." if len(v) else "There is no visit."], [
            (images["visits"], "Every visit of the night: how long its alerts took, how many of them were in time, and "
                               "how many there are."),
            (images["workers"], "Every worker that did anything around the worst visit, a row each, coloured by what "
                                "held it.")],
        [Table(("fault", "from [h]", "to [h]"), [
            (fault.name, f"{fault.begin_s / 3600:.2f}", f"{fault.end_s / 3600:.2f}") for fault in faults])]
        if faults else [], packed(report.passages, v) if np.isfinite(report.passages["taken_s"]).any() else None))
    out.append(_machines(report, facts, images["load"]))
    if len(report.steps):
        rows = [(r["name"].decode(), _s(r["median_s"], 3), _s(r["p98_s"], 3), f"{r['hours']:.1f}",
                 facts.get(f"step_{r['name'].decode()}", "")) for r in report.steps]
        out.append(Section("steps", "Steps", report.tag, [
            "What each Step takes of one detector-visit, before any wait."], tables=[
                Table(("Step", "median [s]", "98 % [s]", "all [h]", "seconds are"), rows)]))
    if report.by_truth:
        live = ", ".join(kind for kind in facts.get("fidelity", "").split(", ") if kind != "counts")
        out.append(Section("truth", "Live detectors by truth", f"{live} · against truth", report.by_truth.lines()))
    return out


def _latency(report: PlatformReport, facts: dict[str, str], image: str) -> Section:
    j = report.judged
    expected = [f"The scenario expects: {facts['expect']}. "
                + (f"Not so: {facts['expect_missed']}." if facts.get("expect_missed") else "So it is.")
                ] if facts.get("expect") else []
    shown = report.parts[(report.parts["p98_s"] >= SEEN_S) | (report.parts["late_mean_s"] >= SEEN_S)]
    tables = [
        Table(("requirement", "found", "allowed", ""), [
            (what, found, allowed, chip(met)) for what, found, allowed, met in j.verdicts]),
        Table(("delay of alerts [s]", "5 %", "50 %", "95 %", "98 %", "all"), [
            ("since the end of readout, those never sent at infinity", *(_s(v) for v in j.percentiles_s.values())),
            ("since shutter close, of those sent", *(_s(v) for v in report.shutter.values()))]),
        _parts(shown)]
    return Section("latency", "Latency", report.tag, expected, [
        (image, "Left: share of the night's alerts that were out after so long, on both clocks. Right: mean and 98 % "
                "of each part of the critical path, beside its bar.")], [t for t in tables if t.rows])


def _parts(rows: np.ndarray) -> Table:
    """PART_ROW, without the late ones where there are none."""
    head = ("part of the critical path", "mean [s]", "98 % of alerts [s]", "mean of late ones [s]")
    kept = 4 if np.isfinite(rows["late_mean_s"]).any() else 3
    return Table(head[:kept], [(r["name"].decode(), _s(r["mean_s"]), _s(r["p98_s"]), _s(r["late_mean_s"]))[:kept]
                               for r in rows])


def _causes(report: PlatformReport) -> Section:
    return Section("causes", "Why alerts were late or lost", report.tag, [
        "The part of the critical path that took most longer than in the same night with no fault and unlimited "
        "workers; the reason where nothing was sent. \"itself\" is late even then; \"workers: export\" waited for a"
        " worker while most more of them than then were held by exports."], tables=[
            Table(("cause", "alerts", "visits", "longer by, median [s]", ""), [
                (r["cause"].decode(), f"{r['alerts']:,}", f"{r['visits']}", _s(r["excess_s"]),
                 "never sent" if r["lost"] else "late") for r in report.causes])])


FEW: Final = 12                # detectors that are named one by one

COUNTERS: Final = {   # of a run, in words
    "in_vain": "messages whose worker found nothing to do, or the work done already",
    "redelivered": "messages given to another worker", "out_of_order": "messages after one of a later visit",
    "unanswered": "saves that landed without an answer",
    "without_ephemerides": "detector-visits without ephemerides",
    "single_frames": "detector-visits that fell back to single frames",
    "isr_only": "detector-visits that fell back to the removal of the signature alone",
    "surplus": "images beyond those announced, which nobody waits for",
    "not_exported": "detector-visits whose export failed"}


def _machines(report: PlatformReport, facts: dict[str, str], image: str) -> Section:
    p = report.passages
    known = float(np.nansum(p["freed_s"] - p["taken_s"]))
    vain = float(facts.get("busy_s", known)) - known
    counters = [(text, f"{int(facts[f'counter_{name}']):,}") for name, text in COUNTERS.items()
                if int(facts.get(f"counter_{name}", 0))]
    if vain > 0.001 * known:
        counters.append(("hours of workers that went into attempts that came to nothing, not drawn here",
                         f"{vain / 3600:.1f}"))
    return Section("machines", "Machines", report.tag, [_raced(report.races)], [
        (image, "Means over bins of the night: workers by what holds them and pods in all; calls that each shared "
                "service works at; messages and calls that wait.")], [t for t in (
            Table(("service", "calls", "served in [s]", "waits, mean [s]", "waits, 98 % [s]", "busy, mean",
                   "busy, most", "queue, longest"), [
                (r["name"].decode(), f"{r['calls']:,}", _s(r["mean_s"], 3), _s(r["wait_mean_s"], 3),
                 _s(r["wait_p98_s"], 3), f"{r['busy_mean']:.1f}", f"{r['busy_max']:.0f}", f"{r['queue_max']:.0f}")
                for r in report.services if r["calls"]]),
            Table(("what else came about", "number"), counters)) if t.rows])


def _raced(found: Races) -> str:
    """The duplicates, and how they are derived."""
    if not found.pairs:
        return ("DIAObjects made twice: none are expected. Of no two visits that overlap on the sky did each ask for "
                "objects before the other had saved.")
    return (f"DIAObjects made twice: {found.duplicates:,.0f} expected beside {found.objects:,} others, "
            f"{found.per_alert:.3%} of alerts, by {found.pairs:,} pairs of visits of which each asked for objects "
            f"before the other had saved; {found.same_field:,.0f} of them by visits of the same field. They are not "
            "simulated but follow from the times: of the new objects of one of two such visits, the share of the field "
            "of view that the other covers too, times the share of its detectors that race.")


def document(report: PlatformReport, facts: dict[str, str]) -> dict[str, Any]:
    """What `report.json` holds; infinite and unknown numbers are null."""
    judged = replace(report.judged, visits=report.judged.visits)
    return {"version": VERSION, "fidelity": facts.get("fidelity", "counts"), "origin": "modelled", "facts": facts,
            "requirement": plain(judged), "since_shutter_close_s": plain(report.shutter),
            "parts": plain(report.parts), "steps": plain(report.steps), "causes": plain(report.causes),
            "services": plain(report.services), "races": plain(report.races),
            "by_truth": plain(report.by_truth) if report.by_truth else None,
            "workers_held": {"mean": float(report.held.sum(axis=0).mean()),
                             "most": float(report.held.sum(axis=0).max())}}


def _s(value: float, digits: int = 1) -> str:
    if math.isfinite(value):
        return f"{value:.{digits}f}"
    return "never" if math.isinf(value) else ""


def _verdict(good: bool) -> str:
    return "met" if good else "not met"


__all__ = ["Section", "Tile", "document", "faults_of", "png_file", "render_platform", "sections", "tiles"]
