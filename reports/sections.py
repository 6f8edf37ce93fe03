"""The parts of a run's page, in the order of the paper's section 6: what each says, draws and tabulates."""

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np

from reports import (
    association,
    astrometry,
    completeness,
    crowding,
    directs,
    filters,
    latency,
    lightcurves,
    photometry,
    purity,
    rate,
    skymap,
    solarsystem,
    steps,
    survey,
    template,
    trails_dipoles,
)
from reports.drawing import svg
from reports.gallery import GROUPS, Triplet, appearance, evidence
from reports.intervals import Estimate
from reports.known import CHECK, silent, unknown
from reports.match import REASONS, Matches
from reports.metrics import SECTIONS
from reports.page import Table
from reports.report import FIDELITIES, Report

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


def sections(report: Report) -> list[Section]:
    """The parts of the page that the run has something to say on."""
    matches = report.matches
    tag = f"{report.fidelity} · {FIDELITIES[report.fidelity]}"
    clock = "simulated clock · modelled by fitted costs" if report.simulated else "wall clock · measured"
    simulated, truth = matches.kind == "simulated", matches.kind != "none"
    out = [_template(report, tag)] if report.templates.bands or report.templates.missing else []
    out.append(_rate(report, tag))
    out += [_purity(report, tag)] if simulated else []
    out += [_completeness(report, tag), _missed(matches, tag)] if truth else []
    out += [_survey(report, tag)] if len(report.survey.classes) else []
    out += [_cutouts(report, tag), _latency(report, clock)]
    out += [_photometry(report, tag)] if truth else []
    out += [_light_curves(report, tag)] if report.light_curves.n_all else []
    out += [_astrometry(report, tag)] if truth else []
    out += [_trails(matches, tag), _association(report, tag), _solar_system(report, tag)] if simulated else []
    out += [_stars(report, tag), _crowding(report, tag)] if len(report.outcome.stars) else []
    out.append(_filters(matches, tag))
    out += [_unexplained(matches, tag)] if not simulated else []
    out.append(Section("sky", "Sky map", tag, "Every alert of the run, in the plane of the sky.",
                       [(svg(skymap.plot(skymap.sky_map(matches))), "Alerts on the sky")]))
    out += [_steps(report), _exposures(matches, tag)]
    out += [_metrics(report, tag)] if report.metrics else []
    out = [section for section in out if not silent(section.key, report.facts)]
    return [*out, _unknown(report, tag)] if unknown(report.facts) else out


# --- template, rate, purity, completeness ----------------------------------------------------------------------------

def _template(report: Report, tag: str) -> Section:
    table = report.templates
    rows = [(b.band, f"{b.n}", _value(b.coverage, ".3f"), _value(b.depth, ".2f"), _value(b.deeper, "+.2f"),
             _value(b.fwhm, ".2f"), _value(b.fwhm_ratio, ".2f"), _value(b.high_variance, ".3f"),
             _value(b.inputs, ".1f")) for b in table.bands]
    head = ("band", "detector-visits", "coverage", "5σ depth [mag]", "less the science image's", "FWHM [″]",
            "FWHM / science's", "high variance", "visits per pixel")
    text = ("Templates as warped to each detector-visit: means, with 95 % intervals. Coverage is the fraction of "
            "science pixels with template data (templateCoveragePercent), depth that of a point source on the template "
            "alone (templateLimitingMagnitude), FWHM that of its PSF (templatePsfSize).")
    if table.missing:
        text += f" {table.missing} detector-visit{'s' if table.missing > 1 else ''} had no template."
    return Section("template", "Template", tag, text, [(svg(template.plot(table)), "Templates against science")],
                   [Table(head, rows)])


def _rate(report: Report, tag: str) -> Section:
    table, sizes = report.rate, report.packets
    rows = [(_named(r["name"].decode(), r["rubin"].decode()), f"{r['total']:,}", _value(each, ".1f"),
             _value(dense, ".1f"), _value(camera, ",.0f"))
            for r, each, dense, camera in zip(table.counts, table.per_visit, table.per_megapixel, table.per_camera,
                                              strict=True)]
    text = ("What a detector-visit makes, per 10⁶ usable px, and what 189 detectors of such sky would make in a visit "
            "(10,000 alerts are expected on the real sky; scenarios may hold more of what changes).")
    if report.matches.kind == "injected":
        text += " Injected sources are counted."
    if sizes.median.n:
        text += (f" The typical packet has {_value(_scaled(sizes.median, 1e-3), '.0f')} kB; a detector-visit sends "
                 f"{_value(sizes.per_visit, '.1f')} MB.")
    return Section("rate", "Alert rate", tag, text, [(svg(rate.plot(table, sizes)), "Counts and packet sizes")],
                   [Table(("", "total", "per detector-visit", "per 10⁶ px", "per visit of a whole camera"), rows)])


def _purity(report: Report, tag: str) -> Section:
    table = report.purity
    rows = [(r["cause"].decode(), f"{r['raw']}", f"{r['alerts']}", f"{r['raw_rate']:.3f}", f"{r['alert_rate']:.3f}")
            for r in table.causes]
    text = (f"At S/N ≥ 6: {_share_of(table.raw)} of detections are real before the reliability filter, "
            f"{_share_of(table.alerts)} of alerts. The field holds {table.density:.1f} true sources of S/N ≥ 6 per "
            f"10⁶ px; at the {purity.REAL_DENSITY} of a visit with 10,000 alerts the same artifacts would leave "
            f"{_percent(table.raw_on_sky)} and {_percent(table.alerts_on_sky)}.")
    if table.high_real.n:
        text += (f" Of real detections that pass the other filters {_share_of(table.high_real)} score above "
                 f"{purity.HIGH_SCORE}")
        text += (f", of false ones {_share_of(table.low_false)} below {purity.LOW_SCORE}" if table.low_false.n else "")
        text += f"; {table.unscored} have no score." if table.unscored else "."
    return Section(
        "purity", "Purity", tag, text,
        [(svg(purity.plot(table)), "Purity against completeness, and causes of false detections"),
         (svg(purity.plot_scores(table)), "Reliability of real and false detections")],
        [Table(("false: cause", "before", "alerts", "before / 10⁶ px", "alerts / 10⁶ px"), rows)],
        beside=True)


def _completeness(report: Report, tag: str) -> Section:
    table = report.completeness
    rows = [(f"{r['low']:g}–{r['high']:g}", f"{r['n']}", _share(r, "raw"), _share(r, "alert"))
            for r in table.by_snr if r["n"]]
    where = "injected sources" if report.matches.kind == "injected" else "true sources"
    hostless = table.hostless[0] if len(table.hostless) and table.hostless["n"][0] else None
    text = (f"The denominator is all {where} that no mask of the input covers. Raw: detections that would be alerts "
            "were it not for the reliability filter. S/N is flux over the optimum error with both images' noise. Bars "
            "are 95 % binomial intervals.")
    if hostless is not None:
        text += f" Without a host, {_share(hostless, 'alert')} of S/N 6 to 20 have an alert."
    hosts = [(svg(completeness.plot_hosts(table)), "Completeness against the host")] if np.any(
        table.by_distance["n"]) else []
    return Section(
        "completeness", "Completeness", tag, text,
        [(svg(completeness.plot(table)), "Completeness against S/N"), *hosts,
         (svg(completeness.plot_magnitude(table)), "Completeness against magnitude")],
        [Table(("true S/N", "sources", "raw", "alerts"), rows)], beside=True)


def _survey(report: Report, tag: str) -> Section:
    table = report.survey
    rows = [(r["class"].decode().replace("_", " "), f"{r['n']}", f"{r['objects']}", f"{r['density']:.3g}",
             _percent(float(r["plain"])), _share(r, "raw"), _share(r, "alert")) for r in table.classes if r["n"]]
    text = (f"This night holds more of some classes than the sky does; each source has its weight, its true density "
            f"over the field's. With these weights {_share_of(table.raw)} of detections of S/N ≥ 6 are real before the "
            f"reliability filter and {_share_of(table.alerts)} of alerts. Intervals are 95 %, and count a source seen "
            "in many visits as the few cases that it is.")
    if table.unweighted:
        text += f" {table.unweighted} alerts are of sources without a weight, and count once."
    head = ("class", "to find", "sources", "on the sky / 10⁶ px", "alerts, unweighted", "raw, weighted",
            "alerts, weighted")
    return Section("survey", "At the sky's densities", tag, text,
                   [(svg(survey.plot(table)), "Survey-weighted figures")],
                   [Table(head, rows)])


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


# --- latency, photometry, astrometry, shapes -------------------------------------------------------------------------

def _latency(report: Report, clock: str) -> Section:
    table = report.latency
    text = (f"{_percent(table.on_time.value)} of {table.on_time.n} alerts left within 60 s of the end of readout (98 % "
            f"is required); half of them after {table.percentile(50):.1f} s, 98 % after {table.percentile(98):.1f} s. "
            f"The last alert of a detector-visit left {_value(table.timing, '.1f')} s after shutter close in the "
            "median (alert_timing_since_shutter_close)."
            if table.on_time.n else "No alert of a live exposure was published.")
    rows = [(r["name"].decode(), f"{r['n']}", _number(r["start_s"]), _number(r["median_s"]), _number(r["p95_s"]))
            for r in table.steps]
    head = ("step", "detector-visits", "start after shutter close [s]", "median [s]", "95 % [s]")
    return Section("latency", "Latency", clock, text, [(svg(latency.plot(table)), "Latency")], [Table(head, rows)])


def _photometry(report: Report, tag: str) -> Section:
    table = report.precision
    names = {b"alert": "psfFlux of alerts", b"forced": "forced at the true position"}
    rows = [(names[r["kind"]], f"{r['low']:g}–{r['high']:g}", f"{r['n']}", _column(r, "bias", ".1%"),
             f"{100 * r['scatter']:.1f} %" if math.isfinite(r["scatter"]) else "",
             _column(r, "pull_mean", "+.2f"), _column(r, "pull_std", ".2f")) for r in table.rows if r["n"]]
    text = ("Isolated point sources on clean pixels, against truth. Alerts near the threshold are those that noise "
            "made brighter; fluxes forced at the true position are not chosen so.")
    if table.bias.n:
        text += (f" At S/N ≥ 20 the psfFlux of alerts is off by {_value(_scaled(table.bias, 100), '+.2f')} % in the "
                 f"median, its typical error is {_value(table.scatter_mmag, '.0f')} mmag.")
    if table.repeatability.n:
        text += (f" One source's alerts in one band repeat to {_value(table.repeatability, '.2f')} of their claimed "
                 f"errors ({table.repeatability.n} sources; 1 is right).")
    return Section(
        "photometry", "Photometry", tag, text,
        [(svg(photometry.plot_precision(table)), "Bias and scatter of fluxes against S/N"),
         (svg(photometry.plot(report.pulls)), "Pulls of flux forced at true positions")],
        [Table(("flux", "true S/N", "n", "bias", "scatter, 1σ", "mean pull", "std of pulls"), rows,
               "Bias, scatter and pulls by S/N")])


def _light_curves(report: Report, tag: str) -> Section:
    table = report.light_curves
    text = (f"{table.n_all:,} forced points (DiaForcedSource) of {table.n_objects:,} DIAObjects that belong to a true "
            f"source, first detections have none. {len(table.points):,} are of isolated sources on clean pixels: pulls "
            f"{_value(table.bias, '+.3f')} in the mean, {_value(table.spread, '.3f')} in spread, "
            f"{_percent(table.outliers)} beyond {lightcurves.CLIP:g}.")
    if table.scattered.n:
        text += (f" {_share_of(table.scattered)} of {table.scattered.n} light curves scatter more about the truth than "
                 "99 % would by their claimed errors.")
    return Section("lightcurves", "Light curves", tag, text,
                   [(svg(lightcurves.plot(table)), "Pulls of forced points and scatter of light curves"),
                    (svg(lightcurves.plot_brightest(report.outcome)), "Light curves of the brightest transients")])


def _astrometry(report: Report, tag: str) -> Section:
    table, log = report.astrometry, report.matches.exposures
    rows = [(f"{r['low']:g}–{r['high']:g}", f"{r['n']}", _column(r, "radial", ".1f", 1e3),
             _column(r, "ra", "+.1f", 1e3), _column(r, "dec", "+.1f", 1e3), _column(r, "pull", ".2f"))
            for r in table.by_snr if r["n"]]
    value = f"{table.radial.value * 1e3:.1f} mas" if math.isfinite(table.radial.value) else "not known"
    text = (f"Median radial error above S/N 20, scaled to a FWHM of 0.83″: {value} (n = {table.radial.n}).")
    if table.offset_ra.n:
        text += (f" There positions are off by {_value(_scaled(table.offset_ra, 1e3), '+.1f')} mas in RA cos Dec and "
                 f"{_value(_scaled(table.offset_dec, 1e3), '+.1f')} mas in Dec.")
    offset = template.known_mean(log["astrom_offset_mean"])
    if offset.n:
        text += (f" Calibration stars lie {_value(_scaled(offset, 1e3), '.1f')} mas from the reference catalogue "
                 "(astromOffsetMean, mean over detector-visits).")
    head = ("true S/N", "n", "median error [mas]", "in RA cos Dec [mas]", "in Dec [mas]", "error / claimed error, std")
    return Section("astrometry", "Astrometry", tag, text,
                   [(svg(astrometry.plot(table)), "Position errors"),
                    (svg(astrometry.plot_bias(table)), "Bias of positions, and claimed errors")],
                   [Table(head, rows, "Errors of positions by S/N")])


def _trails(matches: Matches, tag: str) -> Section:
    trailed, dipole = trails_dipoles.trails(matches), trails_dipoles.dipoles(matches)
    return Section("shapes", "Trails and dipoles", tag,
                   "Trails over 5 PSF sigma: errors in units of the smallest error that noise allows. Dipoles: stars "
                   "that moved between template and science.", [(svg(trails_dipoles.plot(trailed, dipole)), "Shapes")])


# --- association, Solar System, direct images, crowded fields --------------------------------------------------------

def _association(report: Report, tag: str) -> Section:
    table, morning = association.association(report.matches), report.morning
    shown = {"this run": table} if morning is None else {"the night": table, "after the batch": morning}
    columns = [_associated(one) for one in shown.values()]
    rows = [(*cells[0], *(cell[1] for cell in cells[1:])) for cells in zip(*columns, strict=True)]
    text = (f"Judged by truth: {_share_of(table.accuracy)} of {table.accuracy.n} alerts of true sources carry the "
            "right object, static ones the DIAObject of their source, known asteroids their SSObject.")
    if morning is not None:
        text += (f" The morning's batch leaves {morning.duplicates} of the night's {table.duplicates} duplicate "
                 f"DIAObjects, and {morning.merged} that hold two true sources ({table.merged} before).")
    return Section("association", "Association", tag, text,
                   [(svg(association.plot(shown)), "Association accuracy" if morning is None else
                     "Association before and after the batch")],
                   [Table(("", "number") if morning is None else ("", *shown), rows)])


def _associated(table: association.Association) -> list[tuple[str, str]]:
    """What the table of association says, row by row."""
    return [("static true sources with alerts", f"{table.sources}"), ("their DIAObjects", f"{table.objects}"),
            ("split: sources in several DIAObjects", _share_of(table.split)),
            ("duplicate DIAObjects", f"{table.duplicates}"),
            ("merged: DIAObjects of two true sources", f"{table.merged} ({_share_of(table.merges)})"),
            ("DIAObjects of false detections alone", f"{table.false_objects}"),
            ("DIAObjects with exactly one DIASource (totalUnassociatedDiaObjects)",
             f"{table.lone} of {table.all_objects}"),
            ("static sources' alerts with an SSObject", _share_of(table.wrong_solar_system))]


def _solar_system(report: Report, tag: str) -> Section:
    table, found = report.ephemerides, report.solar_system.associated
    rows = [("known objects on the detectors (numTotalSolarSystemObjects)", f"{table.total}",
             _value(table.total_per_visit, ".1f")),
            ("DIASources with an SSObject (numAssociatedSsObjects)", f"{table.associated}",
             _value(table.associated_per_visit, ".1f"))]
    offsets = [(name, _value(_scaled(e, 1e3), form), f"{e.n}") for name, e, form in (
        ("ephOffset", table.offset, ".0f"), ("ephOffsetAlongTrack", table.along, "+.0f"),
        ("ephOffsetCrossTrack", table.cross, "+.0f")) if e.n]
    lost = [(cause, f"{count}") for cause, count in report.solar_system.causes.items()]
    return Section(
        "solarsystem", "Solar System", tag,
        f"Of {found.n} detections of known asteroids above S/N 6 without a DIAObject within 1″ and with an ephemeris "
        f"error under 0.5″, {_share_of(found)} have their SSObject; of all known ones in view above S/N 6, every loss "
        f"counted, {_share_of(table.found)}.",
        [(svg(solarsystem.plot(table)), "Known objects associated, and offsets from the ephemeris")],
        [Table(("", "total", "per detector-visit"), rows),
         *([Table(("offset from the ephemeris", "median over objects [mas]", "objects"), offsets)] if offsets else []),
         *([Table(("asteroid detections without their SSObject", "number"), lost)] if lost else [])])


def _stars(report: Report, tag: str) -> Section:
    table = report.directs
    rows = [(name, _value(e, form), f"{e.n}") for name, e, form in (
        ("magnitude error above S/N 100, median [mmag]", table.flux_bias, "+.1f"),
        ("rms of one star's magnitudes above S/N 100, median over stars [mmag]", table.repeatability, ".1f"),
        ("flux error / claimed error, S/N 20 to 100, std", table.flux_pull, ".2f"),
        ("position error above S/N 100, median [mas]", table.radial, ".1f"),
        ("offset in RA cos Dec above S/N 100, median [mas]", table.east, "+.1f"),
        ("offset in Dec above S/N 100, median [mas]", table.north, "+.1f"),
        ("position error / claimed error, S/N 20 to 100, std", table.position_pull, ".2f"),
        ("scienceFlux of hostless alerts, bias of the median [%]", _scaled(table.science_bias, 100), "+.1f"),
        ("scienceFlux error / claimed error, std", table.science_pull, ".2f")) if e.n]
    half = f"half of them at S/N {table.half_snr:.0f}" if math.isfinite(table.half_snr) else "half of them at no S/N"
    text = (f"True static stars against those that calibration measured in {table.n_visits} detector-visits: "
            f"{_share_of(table.bright)} of those above S/N 100 were found, {half}. Errors are of isolated stars. The "
            "night's direct-image sources are what WCS, zeropoint and PSF rest on; detection to 5 sigma (PromptSource) "
            "is the morning's.")
    return Section("stars", "Direct-image sources", tag, text,
                   [(svg(directs.plot(table)), "Stars of the direct image")], [Table(("", "value", "n"), rows)])


def _crowding(report: Report, tag: str) -> Section:
    table = report.crowding
    rows = [(f"{b.low:.0f}–{b.high:.0f}", f"{b.n}", _value(b.completeness, ".3f"), _value(b.false_raw, ".2f"),
             _value(b.false, ".2f"), _value(b.cpu, ".2f")) for b in table.bins]
    head = ("stars of S/N ≥ 5 per 10⁶ px", "detector-visits", "completeness, S/N 6 to 20", "false, raw, per 10⁶ px",
            "false alerts per 10⁶ px", "CPU [s per 10⁶ px]")
    if table.single:
        text = "All detector-visits of this run have a similar density of stars: it cannot say what crowding does."
        return Section("crowding", "Crowded fields", tag, text, [], [Table(head, rows)])
    text = f"Densities of stars differ by a factor of {table.ratio:.1f} in one band; bins hold detector-visits alike."
    return Section("crowding", "Crowded fields", tag, text, [(svg(crowding.plot(table)), "Crowded against sparse")],
                   [Table(head, rows)])


# --- what else is known ----------------------------------------------------------------------------------------------

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


# --- every metric ----------------------------------------------------------------------------------------------------

def _metrics(report: Report, tag: str) -> Section:
    """The figures that two runs are compared by, of this run alone."""
    tables = []
    for section in (*SECTIONS, *sorted({m.metric.section for m in report.metrics} - set(SECTIONS))):
        rows = [(_named(m.metric.name, m.metric.rubin), _number(m.estimate.value), _range(m.estimate), m.metric.unit,
                 f"{m.estimate.n:,}", f"{m.n_units:,}") for m in report.metrics if m.metric.section == section]
        if rows:
            tables.append(Table(("metric", "value", "95 % interval", "unit", "n", "detector-visits"), rows,
                                f"{section[:1].upper()}{section[1:]} ({len(rows)})"))
    return Section("metrics", "All metrics", tag,
                   f"The {len(report.metrics)} figures that two runs are compared by. Intervals: chance in sources, in "
                   "visits and in objects seen many times, whichever is largest.", [], tables)


def _range(found: Estimate) -> str:
    return f"{_number(found.low)} – {_number(found.high)}" if math.isfinite(found.low) else ""


# --- numbers as text -------------------------------------------------------------------------------------------------

def _named(name: str, rubin: str) -> str:
    """The name for people, with Rubin's in parentheses."""
    return f"{name} ({rubin})" if rubin else name


def _scaled(found: Estimate, factor: float) -> Estimate:
    return Estimate(found.value * factor, found.low * factor, found.high * factor, found.n)


def _value(found: Estimate, form: str) -> str:
    """A value with its interval in parentheses, where there is one; empty where it is unknown."""
    if not math.isfinite(found.value):
        return ""
    value, low, high = (format(v, form) for v in (found.value, found.low, found.high))
    return value if not math.isfinite(found.low) or low == value == high else f"{value} ({low} to {high})"


def _column(row: np.void, name: str, form: str, factor: float = 1.0) -> str:
    """The same of a column `name` with its columns `name_low` and `name_high`."""
    return _value(_scaled(Estimate(float(row[name]), float(row[f"{name}_low"]), float(row[f"{name}_high"]), 0), factor),
                  form).replace("%", " %")


def _share(row: np.void, name: str) -> str:
    return f"{row[f'{name}_fraction']:.3f} ({row[f'{name}_low']:.3f}–{row[f'{name}_high']:.3f})"


def _share_of(found: Estimate) -> str:
    """A fraction in per cent with its interval."""
    if not math.isfinite(found.value):
        return "an unknown share"
    return f"{100 * found.value:.1f} % ({100 * found.low:.1f}–{100 * found.high:.1f})"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if math.isfinite(value) else "an unknown share"


def _number(value: float) -> str:
    value = float(value)
    if not math.isfinite(value):
        return ""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _count(value: int) -> str:
    return f"{int(value)}" if value >= 0 else ""
