"""A run folder to one self-contained page, `report.html`, and its figures for machines, `report.json`."""

import dataclasses
import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from reports import (
    association,
    astrometry,
    completeness,
    filters,
    latency,
    photometry,
    purity,
    skymap,
    solarsystem,
    steps,
    trails_dipoles,
)
from reports.acceptance import Evidence, Figure, cost_factor, figures, interval, number
from reports.drawing import svg
from reports.gallery import GROUPS, Triplet, appearance, evidence, gallery
from reports.known import CHECK, known_figures, silent, unknown
from reports.match import REASONS, Matches, match
from reports.page import Table, plain, rendered, written
from reports.store import Store

VERSION: Final = 1                 # of report.json; a key that changes its meaning makes it 2
FIDELITIES: Final = {"pixels": "measured", "catalogue": "modelled", "counts": "modelled"}
LISTED: Final = 30                 # rows of a list on the page


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page."""

    key: str
    title: str
    tag: str                   # fidelity, and whether measured or modelled
    text: str
    images: list[tuple[str, str]] = dataclasses.field(default_factory=list)   # (data URI, alternative text)
    tables: list[Table] = dataclasses.field(default_factory=list)
    triplets: dict[str, list[Triplet]] = dataclasses.field(default_factory=dict)
    beside: bool = False       # the last image and the first table stand side by side


@dataclass(frozen=True, slots=True)
class Tile:
    """A number at the top of the page."""

    label: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the page shows and the JSON holds."""

    folder: Path
    fidelity: str
    matches: Matches
    figures: list[Figure]
    others: dict[str, list[Figure]]     # figures of the run's other fidelities
    latency: latency.Latency
    steps: steps.StepCosts
    simulated: bool                     # durations are simulated
    facts: dict[str, str]
    triplets: list[Triplet]
    solar_system: solarsystem.SolarSystem


def render(run_folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` and `report.json` into a run folder; the page's path. StoreError if it is none."""
    report = gather(Store(Path(run_folder)))
    page, machine = html(report), json.dumps(document(report), indent=1, allow_nan=False)
    written(report.folder / "report.json", machine)
    return written(report.folder / "report.html", page)


def gather(store: Store) -> Report:
    """Read and judge a run."""
    log = store.optional("exposure_log")
    kinds = [name for name in FIDELITIES if np.any(log["fidelity"] == name.encode())] or ["pixels"]
    factor, known = cost_factor(store), solarsystem.objects(store)
    work = store.optional("step").copy()
    work["duration_s"] /= factor if math.isfinite(factor) else 1.0
    given = {kind: Evidence(match(store, fidelity=kind if len(log) else ""), known,
                            work if kind == "pixels" else work[:0], math.isfinite(factor) and kind == "pixels")
             for kind in kinds}
    facts = store.facts()
    judged = {kind: known_figures(figures(found), facts) for kind, found in given.items()}
    matches = given[kinds[0]].matches
    return Report(store.folder, kinds[0], matches, judged[kinds[0]], {k: judged[k] for k in kinds[1:]},
                  latency.latency(store), steps.step_costs(work, 1.0 if math.isfinite(factor) else factor),
                  math.isfinite(factor), facts, gallery(store, matches),
                  solarsystem.solar_system(matches, known))


# --- sections --------------------------------------------------------------------------------------------------------

def sections(report: Report) -> list[Section]:
    """The parts of the page that the run has something to say on."""
    matches = report.matches
    tag = f"{report.fidelity} · {FIDELITIES[report.fidelity]}"
    clock = "simulated clock · modelled by fitted costs" if report.simulated else "wall clock · measured"
    out = []
    if matches.kind != "none":
        out.append(_completeness(matches, tag))
    if matches.kind == "simulated":
        out.append(_purity(matches, tag))
    if matches.kind != "none":
        out.append(_missed(matches, tag))
    out.append(_cutouts(report, tag))
    if matches.kind != "none":
        out += [_photometry(matches, tag), _astrometry(matches, tag)]
    if matches.kind == "simulated":
        out += [_association(report, tag), _trails(matches, tag)]
    out.append(_filters(matches, tag))
    if matches.kind != "simulated":
        out.append(_unexplained(matches, tag))
    out.append(Section("sky", "Sky map", tag, "Every alert of the run, in the plane of the sky.",
                       [(svg(skymap.plot(skymap.sky_map(matches))), "Alerts on the sky")]))
    out += [_latency(report, clock), _steps(report), _exposures(matches, tag)]
    out = [section for section in out if not silent(section.key, report.facts)]
    return [*out, _unknown(report, tag)] if unknown(report.facts) else out


def _completeness(matches: Matches, tag: str) -> Section:
    table = completeness.completeness(matches)
    rows = [(f"{r['low']:g}–{r['high']:g}", f"{r['n']}", _share(r, "raw"), _share(r, "alert"))
            for r in table.by_snr if r["n"]]
    where = "injected sources" if matches.kind == "injected" else "true sources"
    return Section(
        "completeness", "Completeness", tag,
        f"The denominator is all {where} that no mask of the input covers. Raw: detections that would be alerts were "
        "it not for the reliability filter. S/N is flux over the optimum error with both images' noise. Bars are 95 % "
        "binomial intervals.",
        [(svg(completeness.plot(table)), "Completeness against S/N"),
         (svg(completeness.plot_magnitude(table)), "Completeness against magnitude")],
        [Table(("true S/N", "sources", "raw", "alerts"), rows)], beside=True)


def _share(row: np.void, name: str) -> str:
    return f"{row[f'{name}_fraction']:.3f} ({row[f'{name}_low']:.3f}–{row[f'{name}_high']:.3f})"


def _purity(matches: Matches, tag: str) -> Section:
    table = purity.purity(matches)
    rows = [(r["cause"].decode(), f"{r['raw']}", f"{r['alerts']}", f"{r['raw_rate']:.3f}", f"{r['alert_rate']:.3f}")
            for r in table.causes]
    return Section(
        "purity", "Purity", tag,
        f"At S/N ≥ 6: {_percent(table.raw.value)} of detections are real before the reliability filter, "
        f"{_percent(table.alerts.value)} of alerts. The field holds {table.density:.1f} true sources of S/N ≥ 6 per "
        f"10⁶ px; at the {purity.REAL_DENSITY} of a visit with 10,000 alerts the same artifacts would leave "
        f"{_percent(table.raw_on_sky)} and {_percent(table.alerts_on_sky)}.",
        [(svg(purity.plot(table)), "Purity against completeness, and causes of false detections")],
        [Table(("cause", "before reliability", "alerts", "before, per 10⁶ px", "alerts, per 10⁶ px"), rows)])


def _missed(matches: Matches, tag: str) -> Section:
    snr = np.abs(matches.truth["snr"])
    stages = np.array([r.decode().partition(":")[0] for r in matches.reasons.tolist()])
    rows = []
    for stage in REASONS:
        of = stages == stage
        counts = [int(np.sum(of & (snr >= low) & (snr < high))) for low, high in ((5, 10), (10, np.inf))]
        if any(counts):
            details = Counter(_brief(r) for r in matches.reasons[of & (snr >= 5)].tolist())
            rows.append((stage, f"{counts[0]}", f"{counts[1]}",
                         "; ".join(f"{n} × {d}" for d, n in details.most_common(4) if d)))
    order = np.flatnonzero((stages != "") & (snr > 10))
    order = order[np.argsort(-snr[order])][:LISTED]
    listed = [(str(int(t["visit"])), t["kind"].decode().replace("_", " "), f"{abs(t['snr']):.1f}",
               f"{t['x']:.0f}, {t['y']:.0f}", reason.decode())
              for t, reason in zip(matches.truth[order], matches.reasons[order], strict=True)]
    return Section(
        "missed", "What was missed, and why", tag,
        "Every true source without an alert has a reason from a closed list that names the stage.", [],
        [Table(("reason", "S/N 5 to 10", "S/N > 10", "most frequent"), rows),
         Table(("visit", "class", "S/N", "x, y", "reason"), listed,
               f"The brightest {len(listed)} missed above S/N 10")])


def _brief(reason: bytes) -> str:
    """The detail of a reason without what differs from source to source."""
    stage, _, detail = reason.decode().partition(":")
    words = [w for w in detail.strip().split() if not w.replace(".", "").isdigit()]
    return " ".join(words).replace(": ", " · ") if stage != "not detected" else ""


def _cutouts(report: Report, tag: str) -> Section:
    shown = {group: [t for t in report.triplets if t.group == group] for group in GROUPS}
    names = {} if report.matches.kind == "simulated" else {"false": "not injected"}
    text = "Science, template and difference, x to the right and y upwards; the difference runs from −7 to 7 sigma."
    if not report.triplets:
        text = "No stamps were kept in this run."
    return Section("cutouts", "Cutouts", tag, text, triplets={
        names.get(group, group): found for group, found in shown.items() if found})


def _photometry(matches: Matches, tag: str) -> Section:
    table = photometry.pulls(matches)
    return Section("photometry", "Photometry", tag,
                   "Flux forced on the difference at the true position, less the true flux, over the claimed error; "
                   "isolated point sources on clean pixels.", [(svg(photometry.plot(table)), "Pulls")])


def _astrometry(matches: Matches, tag: str) -> Section:
    table = astrometry.astrometry(matches)
    value = f"{table.radial.value * 1e3:.1f} mas" if math.isfinite(table.radial.value) else "not known"
    return Section("astrometry", "Astrometry", tag, f"Median radial error above S/N 20, scaled to a FWHM of 0.83″: "
                   f"{value} (n = {table.radial.n}).", [(svg(astrometry.plot(table)), "Position errors")])


def _association(report: Report, tag: str) -> Section:
    table, asteroids = association.association(report.matches), report.solar_system
    rows = [("static sources with alerts", f"{table.sources}"), ("their DIAObjects", f"{table.objects}"),
            ("duplicate DIAObjects", f"{table.duplicates}"), ("DIAObjects with two true sources", f"{table.merged}"),
            ("DIAObjects of false detections alone", f"{table.false_objects}"),
            ("static sources' alerts with an SSObject", f"{_percent(table.wrong_solar_system.value)}")]
    lost = [(cause, f"{count}") for cause, count in asteroids.causes.items()]
    found = asteroids.associated
    return Section(
        "association", "Association and Solar System", tag,
        f"Judged by truth: {_percent(table.accuracy.value)} of {table.accuracy.n} alerts of true sources carry the "
        f"right object. Of {found.n} detections of known asteroids above S/N 6 without a DIAObject within 1″ and "
        f"with an ephemeris error under 0.5″, {_percent(found.value)} have their SSObject.",
        [(svg(association.plot({"this run": table})), "Association accuracy")],
        [Table(("", "number"), rows),
         *([Table(("asteroid detections without their SSObject", "number"), lost)] if lost else [])])


def _trails(matches: Matches, tag: str) -> Section:
    trailed, dipole = trails_dipoles.trails(matches), trails_dipoles.dipoles(matches)
    return Section("shapes", "Trails and dipoles", tag,
                   "Trails over 5 PSF sigma: errors in units of the smallest error that noise allows. Dipoles: stars "
                   "that moved between template and science.", [(svg(trails_dipoles.plot(trailed, dipole)), "Shapes")])


def _filters(matches: Matches, tag: str) -> Section:
    table = filters.filters(matches)
    rows = [(filters.name(r), f"{r['real']}", f"{r['false']}") for r in table.rows]
    text = "A detection counts at the first filter that stopped it."
    names = ("true", "false") if matches.kind == "simulated" else ("injected", "other")
    return Section("filters", "Rejections by filter", tag, text,
                   [(svg(filters.plot(table, matches.kind)), "Rejections")],
                   [Table(("filter: reason", *names), rows)] if matches.kind == "simulated" else [])


def _unexplained(matches: Matches, tag: str) -> Section:
    """Alerts of a real field that were not injected: what is known of each."""
    rows = np.flatnonzero(matches.sources["alert"] & matches.false)
    rows = rows[np.argsort(-np.abs(matches.sources["snr"][rows]))][:2 * LISTED]
    count = Counter(matches.sources["diaObjectId"][matches.sources["alert"]].tolist())
    listed = [(str(int(s["visit"])), f"{s['ra']:.5f}", f"{s['dec']:+.5f}", f"{s['snr']:.1f}", appearance(s),
               str(int(s["diaObjectId"])), evidence(s, count[int(s["diaObjectId"])])) for s in matches.sources[rows]]
    title = "Alerts that were not injected" if matches.kind == "injected" else "Alerts"
    head = ("visit", "RA", "Dec", "S/N", "class", "diaObjectId", "evidence")
    return Section("alerts", title, tag, "Nothing is known of them but what was measured.", [], [Table(head, listed)])


def _latency(report: Report, clock: str) -> Section:
    table = report.latency
    text = (f"{_percent(table.on_time.value)} of {table.on_time.n} alerts left within 60 s of the end of readout (98 % "
            f"is required); half of them after {table.percentile(50):.1f} s, 98 % after {table.percentile(98):.1f} s."
            if table.on_time.n else "No alert of a live exposure was published.")
    rows = [(r["name"].decode(), f"{r['n']}", _number(r["start_s"]), _number(r["median_s"]), _number(r["p95_s"]))
            for r in table.steps]
    head = ("step", "detector-visits", "start after shutter close [s]", "median [s]", "95 % [s]")
    return Section("latency", "Latency", clock, text, [(svg(latency.plot(table)), "Latency")], [Table(head, rows)])


def _steps(report: Report) -> Section:
    table = report.steps
    rows = [(r["name"].decode(), f"{r['n']}", _number(r["size"]), _number(r["cpu_s"]), _number(r["cpu_p95_s"]),
             _number(r["peak_mb"]), _number(r["total_cpu_s"]),
             f"{100 * math.expm1(r['residual']):+.0f} % ± {100 * r['scatter']:.0f} %" if math.isfinite(r["residual"])
             else "") for r in table.rows]
    text = f"{table.rows['total_cpu_s'].sum():.1f} s of CPU were measured."
    if table.has_predictions and table.measured_s > 0:
        text += (f" The fitted costs predict {table.predicted_s:.1f} s where {table.measured_s:.1f} s were measured "
                 f"({100 * (table.predicted_s / table.measured_s - 1):+.0f} %).")
    head = ("step", "runs", "median size", "CPU median [s]", "CPU 95 % [s]", "peak [MB]", "CPU total [s]",
            "fit: residual")
    return Section("steps", "Work by Step", "CPU and memory · measured", text,
                   [(svg(steps.plot(table)), "CPU time and memory")], [Table(head, rows)])


def _exposures(matches: Matches, tag: str) -> Section:
    rows = []
    for r in matches.exposures[np.argsort(matches.exposures["midpointMjdTai"], kind="stable")]:
        rows.append((str(int(r["visit"])), str(int(r["detector"])), r["band"].decode(), r["status"].decode() + (
            f": {r['reason'].decode()}" if r["reason"] else ""), _number(r["fwhm_arcsec"]), _number(r["mag_lim"]),
            _number(r["snr_rms"]), _count(r["n_detected"]), _count(r["n_sources"]), _count(r["n_alerts"])))
    head = ("visit", "detector", "band", "status", "FWHM [″]", "5σ depth", "S/N rms", "detected", "sources", "alerts")
    return Section("exposures", "Detector-visits", tag, f"{len(rows)} detector-visits.", [], [Table(head, rows)])


def _unknown(report: Report, tag: str) -> Section:
    """Another program's catalogue: what it does not say, and doubts about what it says."""
    checks = [(text,) for key, text in report.facts.items() if key.startswith(CHECK)]
    return Section("unknown", "Not known", tag, f"The detections of {report.facts.get('program', 'another program')}, "
                   "as a catalogue: this report judges what it says, and nothing of our own pipeline's pixels.", [],
                   [Table(("topic", "why"), list(unknown(report.facts).items())), Table(("doubt",), checks)])


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if math.isfinite(value) else "an unknown share"


def _number(value: float) -> str:
    value = float(value)
    if not math.isfinite(value):
        return ""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _count(value: int) -> str:
    return f"{int(value)}" if value >= 0 else ""


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


def html(report: Report) -> str:
    """The page."""
    others = {f"{kind} · {FIDELITIES[kind]}": found for kind, found in report.others.items()}
    tag = f"{report.fidelity} · {FIDELITIES[report.fidelity]}"
    return rendered(
        "page.html", name=report.folder.resolve().name, facts=report.facts, tiles=tiles(report), tag=tag, number=number,
        headline=headline(report.figures), figures=report.figures, others=others, sections=sections(report),
        interval=interval, truth=report.matches.kind)


def document(report: Report) -> dict[str, Any]:
    """What `report.json` holds; unknown numbers are null."""
    matches = report.matches
    simulated, truth = matches.kind == "simulated", matches.kind != "none"
    table = purity.purity(matches) if simulated else None
    return {
        "version": VERSION, "run": report.folder.resolve().name, "fidelity": report.fidelity,
        "origin": FIDELITIES[report.fidelity], "truth": matches.kind, "facts": report.facts,
        "figures": [_figure(f) for f in report.figures],
        "other_fidelities": {kind: [_figure(f) for f in found] for kind, found in report.others.items()},
        "completeness": plain(completeness.completeness(matches)) if truth else None,
        "purity": plain(table) if table else None,
        "latency": {"on_time": plain(report.latency.on_time), "late_visits": plain(report.latency.late_visits),
                    "since_readout_s": {f"p{q}": plain(report.latency.percentile(q)) for q in (5, 50, 95, 98, 100)},
                    "steps": plain(report.latency.steps)},
        "pulls": {k: plain(getattr(photometry.pulls(matches), k)) for k in ("hosted", "hostless")} if truth else None,
        "association": plain(association.association(matches)) if simulated and not silent(
            "association", report.facts) else None,
        "solar_system": {"associated": plain(report.solar_system.associated), "causes": report.solar_system.causes},
        "rejections": plain(filters.filters(matches).rows), "steps": plain(report.steps),
        "missed": plain(Counter(r.decode().partition(":")[0] for r in matches.reasons.tolist() if r)),
        "exposures": plain(matches.exposures)}


def _figure(figure: Figure) -> dict[str, Any]:
    return {**plain(figure), "verdict": figure.verdict}
