"""A run folder to one self-contained page, `report.html`, and its figures for machines, `report.json`."""

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np

from reports import association, filters
from reports.acceptance import Figure, interval, number
from reports.known import silent
from reports.mixed import has_sources, sources, what_was_what
from reports.page import plain, rendered, written
from reports.platform_page import render_platform
from reports.report import FIDELITIES, Report, gather
from reports.sections import sections
from reports.single import Found
from reports.state import unfinished
from reports.store import Store, StoreError

VERSION: Final = 1                 # of report.json; a key that changes its meaning makes it 2


@dataclass(frozen=True, slots=True)
class Tile:
    """A number at the top of the page."""

    label: str
    value: str
    note: str


def render(run_folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` and `report.json` into a run folder; the page's path. StoreError if it is none."""
    store = Store(Path(run_folder))
    part = unfinished(store.folder)
    if part and (store.has("passage") or not store.has("exposure_log")):
        raise StoreError(f"{run_folder}: {part}; there is nothing to report on yet")
    if store.has("passage"):
        return _on_platform(store)
    report = gather(store.of_log() if part else store)
    page, machine = html(report, part), json.dumps(document(report), indent=1, allow_nan=False)
    written(report.folder / "report.json", machine)
    return written(report.folder / "report.html", page)


def _on_platform(store: Store) -> Path:
    """The page of the platform; where detectors had sources, `sources.html` and `sources.json` beside it."""
    if not has_sources(store):
        return render_platform(store.folder)
    report = gather(store)
    written(store.folder / "sources.json", json.dumps(document(report), indent=1, allow_nan=False))
    page = written(store.folder / "sources.html", html(report))
    return render_platform(store.folder, [what_was_what(store), sources(report, page.name)])


# --- page and document -----------------------------------------------------------------------------------------------

def tiles(report: Report) -> list[Tile]:
    """The numbers to see first."""
    by_key = {figure.key: figure for figure in report.figures}
    log, late = report.matches.exposures, report.latency
    out = [Tile("alerts", f"{int(report.matches.sources['alert'].sum()):,}",
                f"{len(log)} detector-visits, {len(np.unique(log['visit']))} visits")]
    for key, label, form in (("s50_raw", "50 % complete at S/N", "{:.2f}"),
                             ("alerts_flat_6_20", "complete, S/N 6 to 20", "{:.1%}"),
                             ("purity_alerts", "of alerts are real, S/N ≥ 6", "{:.1%}"),
                             ("false_alerts", "false alerts per 10⁶ px", "{:.2f}")):
        figure = by_key.get(key)
        if figure is not None and math.isfinite(figure.value):
            texts = [form.format(v).replace("%", " %") for v in (figure.value, figure.low, figure.high)]
            out.append(Tile(label, texts[0], f"{texts[1]} to {texts[2]}" if math.isfinite(figure.low) else ""))
    if late.on_time.n:
        out.append(Tile("median delay since readout", f"{late.percentile(50):.1f} s",
                        f"98 % of alerts within {late.percentile(98):.1f} s"))
    return out


def headline(found: Sequence[Figure]) -> str:
    """One sentence on the verdicts."""
    count = Counter(figure.verdict for figure in found)
    judged = sum(count[v] for v in ("pass", "fail"))
    parts = [f"{count['pass']} of {judged} judged figures pass"]
    if failed := [figure.name for figure in found if figure.verdict == "fail"]:
        parts.append(f"{len(failed)} fail{'s' if len(failed) == 1 else ''} ({'; '.join(failed)})")
    if count["too few"]:
        parts.append(f"{count['too few']} rest on too few cases to judge")
    if count["unknown"]:
        parts.append(f"{count['unknown']} unknown in this run")
    return "; ".join(parts) + "."


def html(report: Report, part: str = "") -> str:
    """The page; first what it is a page of, where that is no whole run."""
    others = {f"{kind} · {FIDELITIES[kind]}": found for kind, found in report.others.items()}
    tag = f"{report.fidelity} · {FIDELITIES[report.fidelity]}"
    first = f"{part.capitalize()}. " if part else ""
    return rendered(
        "page.html", name=report.folder.resolve().name, facts=report.facts, tiles=tiles(report), tag=tag, number=number,
        headline=first + headline(report.figures), figures=report.figures, others=others, sections=sections(report),
        interval=interval, truth=report.matches.kind)


def document(report: Report) -> dict[str, Any]:
    """What `report.json` holds; unknown numbers are null."""
    matches = report.matches
    simulated, truth = matches.kind == "simulated", matches.kind != "none"
    judged = simulated and not silent("association", report.facts)
    return {
        "version": VERSION, "run": report.folder.resolve().name, "fidelity": report.fidelity,
        "origin": FIDELITIES[report.fidelity], "truth": matches.kind, "facts": report.facts,
        "figures": [_figure(f) for f in report.figures],
        "other_fidelities": {kind: [_figure(f) for f in found] for kind, found in report.others.items()},
        "metrics": [_metric(m) for m in report.metrics],
        "template": _without(report.templates, "rows"),
        "rate": {"counts": plain(report.rate.counts), "per_visit": plain(report.rate.per_visit),
                 "per_megapixel": plain(report.rate.per_megapixel)},
        "packets": _without(report.packets, "sizes"),
        "completeness": plain(report.completeness) if truth else None,
        "purity": plain(report.purity) if simulated else None,
        "survey": plain(report.survey) if len(report.survey.classes) else None,
        "latency": {"on_time": plain(report.latency.on_time), "late_visits": plain(report.latency.late_visits),
                    "alert_timing_since_shutter_close_s": plain(report.latency.timing),
                    "since_readout_s": {f"p{q}": plain(report.latency.percentile(q)) for q in (5, 50, 95, 98, 100)},
                    "steps": plain(report.latency.steps)},
        "pulls": {k: plain(getattr(report.pulls, k)) for k in ("hosted", "hostless")} if truth else None,
        "photometry": plain(report.precision) if truth else None,
        "light_curves": _without(report.light_curves, "points") if truth else None,
        "astrometry": _without(report.astrometry, "rows") if truth else None,
        "association": plain(association.association(matches)) if judged else None,
        "association_after_batch": plain(report.morning) if judged and report.morning is not None else None,
        "solar_system": {"associated": plain(report.solar_system.associated), "causes": report.solar_system.causes,
                         **_without(report.ephemerides, "associated", "offsets"),
                         "numAssociatedSsObjects": report.ephemerides.associated},
        "stars": plain(report.directs) if len(report.outcome.stars) else None,
        "crowding": plain(report.crowding) if len(report.outcome.stars) else None,
        "rejections": plain(filters.filters(matches).rows), "steps": plain(report.steps),
        "missed": plain(Counter(r.decode().partition(":")[0] for r in matches.reasons.tolist() if r)),
        "exposures": plain(matches.exposures)}


def _without(table: Any, *left_out: str) -> dict[str, Any]:
    """A table's fields as plain values, without those that grow with the run."""
    return {f.name: plain(getattr(table, f.name)) for f in fields(table) if f.name not in left_out}


def _metric(found: Found) -> dict[str, Any]:
    metric = found.metric
    return {"key": metric.key, "name": metric.name, "section": metric.section, "unit": metric.unit,
            "rubin": metric.rubin, **plain(found.estimate), "visits": found.n_units}


def _figure(figure: Figure) -> dict[str, Any]:
    return {**plain(figure), "verdict": figure.verdict}


__all__ = ["VERSION", "Report", "document", "gather", "headline", "html", "plain", "render", "sections", "tiles"]
