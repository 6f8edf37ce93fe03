"""A run at counts fidelity to one self-contained page, `report.html`, its figures for machines and its pictures."""

import base64
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from reports.drawing import png
from reports.page import Table, plain, rendered, written
from reports.platform import PlatformReport, platform, plot_delays, plot_load, plot_visits, plot_workers
from reports.races import Races
from reports.requirement import MAX_FAILED, MAX_LATE
from reports.store import Store, StoreError

VERSION: Final = 1
MODELLED: Final = "counts · modelled"


@dataclass(frozen=True, slots=True)
class Tile:
    """A number at the top of the page."""

    label: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page."""

    title: str
    tag: str
    text: Sequence[str]
    images: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()


def render_platform(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html`, `report.json` and four PNG into a run folder at counts fidelity; the page's path."""
    store = Store(Path(folder))
    report = platform(store)
    drawn = {"delays": plot_delays(report), "visits": plot_visits(report), "load": plot_load(report),
             "workers": plot_workers(report)}
    images = {name: _png(Path(folder) / f"{name}.png", figure) for name, figure in drawn.items()}
    facts = store.facts()
    page = rendered("platform.html", name=Path(folder).resolve().name, facts=facts, tiles=tiles(report),
                    sections=sections(report, facts, images))
    written(Path(folder) / "report.json", json.dumps(document(report, facts), indent=1, allow_nan=False))
    return written(Path(folder) / "report.html", page)


def _png(path: Path, figure: Figure) -> str:
    data = png(figure, dpi=110)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from error
    return "data:image/png;base64," + base64.b64encode(data).decode()


def tiles(report: PlatformReport) -> list[Tile]:
    """The numbers to see first."""
    j = report.judged
    held = report.held.sum(axis=0)
    return [
        Tile("alerts", f"{int(report.passages['n_sent'].sum()):,}",
             f"of {j.alerts:,} with no fault and enough workers"),
        Tile("98 % of them within", f"{_s(j.percentiles_s['p98'])} s",
             "of the end of readout, those never sent at infinity"),
        Tile("within 60 s", f"{j.on_time:.1%}", f"{j.within_120:.1%} within 120 s"),
        Tile("visits late", f"{j.late:.2%}", f"at most 1 %: {_verdict(j.late <= MAX_LATE)}"),
        Tile("visits failed", f"{j.failed:.2%}", f"at most 0.1 %: {_verdict(j.failed <= MAX_FAILED)}"),
        Tile("workers held", f"{held.mean():.0f}", f"on average; {held.max():.0f} at most")]


def sections(report: PlatformReport, facts: dict[str, str], images: dict[str, str]) -> list[Section]:
    """The page's parts."""
    j = report.judged
    outcome = f"Not so: {facts['expect_missed']}." if facts.get("expect_missed") else "So it is."
    expected = [f"The scenario expects: {facts['expect']}. {outcome}"] if facts.get("expect") else []
    faults = [f"Fault: {facts[key]}." for key in sorted(facts) if key.startswith("fault_")]
    live = ", ".join(kind for kind in facts.get("fidelity", "").split(", ") if kind != "counts")
    return [
        Section("Latency", MODELLED, [*j.lines(), *faults, *expected], [(images["delays"], "Delays")], [
            Table(("", "5 %", "50 %", "95 %", "98 %", "all"), [
                ("since the end of readout [s]", *(_s(v) for v in j.percentiles_s.values())),
                ("since shutter close, of those sent [s]", *(_s(v) for v in report.shutter.values()))]),
            Table(("part of the critical path", "mean [s]", "98 % of alerts [s]", "mean of late ones [s]"), [
                (r["name"].decode(), _s(r["mean_s"]), _s(r["p98_s"]), _s(r["late_mean_s"])) for r in report.parts])]),
        Section("Why alerts were late or lost", MODELLED, [
            "The part of the critical path that took most longer than in the same night with no fault and unlimited "
            "workers; the reason where nothing was sent. \"itself\" is late even then; \"workers: export\" waited for a"
            " worker while most more of them than then were held by exports."], tables=[
                Table(("cause", "alerts", "visits", "longer by, median [s]", ""), [
                    (r["cause"].decode(), f"{r['alerts']:,}", f"{r['visits']}", _s(r["excess_s"]),
                     "never sent" if r["lost"] else "late") for r in report.causes])]),
        Section("The night", MODELLED, ["Each visit by its alerts, then each worker by what held it."],
                [(images["visits"], "Visit by visit"), (images["workers"], "Worker by worker")]),
        Section("Machines", MODELLED, [
            _raced(report.races)], [(images["load"], "Machines over time")], [
                Table(("service", "calls", "served in [s]", "waits, mean [s]", "waits, 98 % [s]", "busy, mean",
                       "busy, most", "queue, longest"), [
                    (r["name"].decode(), f"{r['calls']:,}", _s(r["mean_s"], 3), _s(r["wait_mean_s"], 3),
                     _s(r["wait_p98_s"], 3), f"{r['busy_mean']:.1f}", f"{r['busy_max']:.0f}", f"{r['queue_max']:.0f}")
                    for r in report.services if r["calls"]])]),
        Section("Steps", MODELLED, ["What each Step takes of one detector-visit, before any wait."], tables=[
            Table(("Step", "median [s]", "98 % [s]", "all, hours"), [
                (r["name"].decode(), _s(r["median_s"], 3), _s(r["p98_s"], 3), f"{r['hours']:.1f}")
                for r in report.steps])]),
        *([Section("Live detectors by truth", f"{live} · against truth", report.by_truth.lines())]
          if report.by_truth else [])]


def _raced(found: Races) -> str:
    """The duplicates, and how they are derived."""
    return (f"DIAObjects made twice: {found.duplicates:,.0f} expected beside {found.objects:,} others, "
            f"{found.per_alert:.3%} of alerts, by {found.pairs:,} pairs of visits of which each asked for objects "
            f"before the other had saved; {found.same_field:,.0f} of them by visits of the same field. They are not "
            "simulated but follow from the times: of the new objects of one of two such visits, the share of the field "
            "of view that the other covers too, times the share of its detectors that race.")


def document(report: PlatformReport, facts: dict[str, str]) -> dict[str, Any]:
    """What `report.json` holds; infinite and unknown numbers are null."""
    judged = replace(report.judged, visits=report.judged.visits)
    return {"version": VERSION, "fidelity": "counts", "origin": "modelled", "facts": facts,
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


__all__ = ["document", "render_platform", "sections", "tiles"]
