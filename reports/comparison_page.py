"""A comparison as a page, as JSON, as Markdown for a pull request, and as JUnit XML for continuous integration.

All four begin with the same sentence. The page is one file that loads nothing: pictures are within it, and its script
does no more than hide what was not asked for.
"""

import json
import math
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from reports import overlays
from reports.compare import Comparison
from reports.drawing import svg
from reports.flips import GROUPS, WORSE, Flow, told
from reports.gallery import picture
from reports.known import is_catalogue, unknown
from reports.outcome import Outcome
from reports.page import Table, plain, rendered, written
from reports.paired import Judged
from reports.store import Store
from reports.terms import Metric
from reports.verdict import clause, in_margins, is_cost, outlook, scale

VERSION: Final = 1                 # of comparison.json; a key that changes its meaning makes it 2
FILES: Final = ("comparison.html", "comparison.json", "comparison.md", "junit.xml")
NEAR_PX: Final = 1.5               # a stamp so near to a flip shows it
LISTED: Final = 300                # flips of the list on the page
MARKDOWN_ROWS: Final = 12
PER_SECTION: Final = 2             # metrics of a section among those that decide, beside the primary ones
WORDS: Final = ("worse", "better", "changed", "undecided", "equivalent", "no data")    # verdicts in their order
MOVED: Final = WORDS[:3]           # what the others do not leave open
BAR: Final = (200, 20, 4.0)        # width and height [pixel] of an interval's bar; margins to each side
BOUNDLESS: Final = 100.0           # a relative difference beyond it, 10,000 %, bounds nothing: it is read as infinite

# Cutouts by detector-visit: (n, 2) x and y [pixel], and (n, 3, side, side) science, template and difference.
Key = tuple[int, int, int]                                    # seed, visit, detector
Stamps = Mapping[Key, tuple[np.ndarray, np.ndarray]]


def write(comparison: Comparison, folder: Path, *, stamps: tuple[Stamps, Stamps] | None = None,
          notes: Sequence[str] = ()) -> Path:
    """Write all four files into a folder; the page's path. StoreError where they cannot be written.

    `stamps` of base and head are shown where a run folder has kept none of a place; `notes` are what has to be said
    beside the comparison.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written(folder / FILES[1], json.dumps({**document(comparison), "notes": list(notes)}, indent=1, allow_nan=False))
    written(folder / FILES[2], markdown(comparison, notes=notes))
    written(folder / FILES[3], junit(comparison))
    return written(folder / FILES[0], html(comparison, stamps=stamps, notes=notes))


# --- numbers as text -------------------------------------------------------------------------------------------------

def value_text(judged: Judged, value: float) -> str:
    """A side's value of a metric: fractions in percent, others as they are; `unit_text` has the unit."""
    if not math.isfinite(value):
        return "–"
    metric = judged.metric
    if not metric.unit:
        return f"{100 * value:.2f} %" if not metric.relative else _figures(value)
    return _figures(value if metric.relative else value * scale(metric)[0])


def unit_text(metric: Metric) -> str:
    """The unit of a metric's values."""
    return metric.unit if metric.relative or not metric.unit else scale(metric)[1]


def difference_text(judged: Judged) -> str:
    """The difference with its sign and unit: in percent for relative ones, in points of percent for fractions."""
    return _scaled(judged, judged.difference)


def interval_text(judged: Judged) -> str:
    """The interval of the difference."""
    if math.isnan(judged.low) or math.isnan(judged.high):
        return ""
    if math.isinf(judged.low) and math.isinf(judged.high):
        return "not bounded"
    return f"{_scaled(judged, judged.low, unit=False)} to {_scaled(judged, judged.high, unit=False)}"


def margin_text(judged: Judged) -> str:
    """The margin within which a difference does not matter."""
    value, _, unit = _scaled(judged, judged.margin).lstrip("+").partition(" ")
    return f"±{value.rstrip('0').rstrip('.') if '.' in value else value} {unit}"


def _scaled(judged: Judged, value: float, *, unit: bool = True) -> str:
    if math.isnan(value):
        return "–"
    factor, name = scale(judged.metric)
    if not judged.metric.relative and not judged.metric.unit:
        name = "points"                    # beside them stand differences of others in percent of the base
    endless = math.isinf(value) or (judged.metric.relative and abs(value) > BOUNDLESS)
    text = "∞" if endless else _figures(abs(value) * factor)
    sign = "" if text.strip("0.") == "" else "+" if value > 0 else "−"
    return sign + text + (f" {name}" if unit else "")


def _figures(value: float) -> str:
    """Three figures; thousands with commas."""
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1000:
        return f"{value:,.0f}"
    places = max(0, 2 - math.floor(math.log10(size)))
    text = f"{value:.{min(places, 6)}f}" if size >= 1e-4 else f"{value:.1e}"
    return text.replace("-", "−") if size >= 1e-4 else text


def _probability(value: float) -> str:
    if not math.isfinite(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


# --- the page --------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class Row:
    """A metric of the page's tables."""

    name: str
    unit: str
    rubin: str
    base: str
    head: str
    difference: str
    interval: str
    margin: str
    bar: str                   # SVG
    p: str
    q: str
    verdict: str
    note: str                  # what would decide it; the Step and how it is known
    step: str
    primary: bool


@dataclass(frozen=True, slots=True)
class Group:
    """A section of metrics."""

    title: str
    rows: list[Row]
    summary: str
    open: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """One side of a flip."""

    source: str                # data:image/png;base64,...; "" where no side has cutouts
    borrowed: bool             # the other side's cutouts
    lines: tuple[str, ...]
    has: bool                  # the side has the source


@dataclass(frozen=True, slots=True)
class Card:
    """A flip of the gallery."""

    group: str
    title: str
    kind: str
    step: str
    flow: int
    snr: str
    lines: tuple[str, ...]
    base: Shown
    head: Shown
    worse: bool
    anchor: str                # of the first card of a flow; "" for others


def html(comparison: Comparison, *, stamps: tuple[Stamps, Stamps] | None = None, notes: Sequence[str] = ()) -> str:
    """The page."""
    first = leading(comparison)
    changed = sum(j.verdict in MOVED for j in comparison.judged)
    cards = gallery(comparison, stamps=stamps)
    sides = overlays.Sides(comparison.base, comparison.head, (comparison.base_label, comparison.head_label),
                           comparison.units.n)
    figures = [("Completeness", svg(overlays.completeness(sides))), ("Purity and false alerts",
               svg(overlays.purity(sides))), ("Flux and position errors", svg(overlays.errors(sides)))]
    foreign = is_catalogue(comparison.base.facts, comparison.head.facts)
    speed = [] if foreign else [("When alerts leave, and the time that Steps take", svg(overlays.delays(sides)))]
    cpu, memory = (_ratios(comparison, kinds) for kinds in (("cpu.",), ("memory.",)))
    if cpu or memory:
        speed.append(("CPU time and memory", svg(overlays.costs(cpu, memory))))
    return rendered(
        "comparison.html", c=comparison, word=comparison.verdict.word, sentence=comparison.verdict.sentence,
        facts=_facts(comparison), tiles=_tiles(comparison), sections=groups(comparison), notes=notes,
        leading=[row(j, comparison) for j in first],
        n_more=changed - sum(j.verdict in MOVED for j in first),
        flows=_flow_rows(comparison.flips.flows, {card.flow for card in cards}), cards=cards,
        filters=_filters(cards), curves=figures, speed=speed, settings=_settings(comparison),
        listed=_listed(comparison), n_flips=len(comparison.flips.rows), needs_traces=not comparison.differences,
        foreign=foreign)


def row(judged: Judged, comparison: Comparison) -> Row:
    """A metric as it stands in a table."""
    blamed = comparison.blames.get(judged.metric.key)
    note = blamed.how if blamed else ""
    if judged.verdict == "changed":
        note = "neither way is better"
    elif judged.verdict == "undecided":
        note = outlook(judged.needed, comparison.units.n)
    metric = judged.metric
    return Row(metric.name, unit_text(metric), metric.rubin, value_text(judged, judged.base),
               value_text(judged, judged.head), difference_text(judged), interval_text(judged), margin_text(judged),
               bar(judged), _probability(judged.p), _probability(judged.q), judged.verdict, note,
               blamed.step if blamed else "", metric.primary)


def leading(comparison: Comparison) -> list[Judged]:
    """What decides: the primary metrics, and of each section the few that changed most; the worst first.

    Metrics of one section follow from one another: all of them would hide the others.
    """
    ranked = sorted((j for j in comparison.judged if j.verdict != "no data"),
                    key=lambda j: (WORDS.index(j.verdict), not j.metric.primary, is_cost(j), -in_margins(j)))
    seen: Counter[str] = Counter()
    out = []
    for j in ranked:
        changed = j.verdict in MOVED and seen[j.metric.section] < PER_SECTION
        if j.metric.primary or changed:
            out.append(j)
            seen[j.metric.section] += changed
    return out


def groups(comparison: Comparison) -> list[Group]:
    """All metrics by section, in the order in which they were judged."""
    by: dict[str, list[Judged]] = {}
    for j in comparison.judged:
        by.setdefault(j.metric.section, []).append(j)
    out = []
    for section, found in by.items():
        count = Counter(j.verdict for j in found)
        text = ", ".join(f"{count[word]} {word}" for word in WORDS if count[word])
        out.append(Group(section, [row(j, comparison) for j in found], text,
                         bool(count["worse"] or count["better"]) and len(found) <= 40))
    return out


def bar(judged: Judged) -> str:
    """The interval over its margin as a picture: better to the right, the zone of equivalence shaded."""
    width, height, reach = BAR
    sign = -1.0 if judged.metric.better == "lower" else 1.0
    unit = judged.margin if judged.margin > 0 else abs(judged.difference) or 1.0
    middle = width / 2

    def at(value: float) -> float:
        return middle + min(max(sign * value / unit, -reach), reach) / reach * (middle - 6)

    zone = (middle - 6) / reach if judged.margin > 0 else 0.0
    parts = [f'<rect x="{middle - zone:.1f}" y="1" width="{2 * zone:.1f}" height="{height - 2}" class="zone"/>',
             f'<line x1="{middle}" x2="{middle}" y1="1" y2="{height - 1}" class="null"/>']
    mark = f"m-{judged.verdict.replace(' ', '-')}"
    y = height / 2
    if not (math.isnan(judged.low) or math.isnan(judged.high)):
        ends = sorted((sign * judged.low, sign * judged.high))
        left, right = sorted((at(judged.low), at(judged.high)))
        parts.append(f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{y}" y2="{y}" class="interval {mark}"/>')
        for end, x, turn in ((-ends[0], left, -1), (ends[1], right, 1)):
            if end / unit > reach:            # goes on beyond the picture
                parts.append(f'<path d="M{x:.1f} {y - 4} L{x + 5 * turn:.1f} {y} L{x:.1f} {y + 4} Z" class="{mark}"/>')
    if not math.isnan(judged.difference):
        parts.append(f'<circle cx="{at(judged.difference):.1f}" cy="{y}" r="3.6" class="{mark}"/>')
    return (f'<svg class="bar" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
            f'{"".join(parts)}</svg>')


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    """What was compared."""
    log = comparison.base.visits
    judged = int(comparison.base.sources["judged"].sum())
    seeds = comparison.seeds
    fidelity = sorted(f.decode() for f in np.unique(log["fidelity"]).tolist() if f)
    return [("base", comparison.base_label), ("head", comparison.head_label),
            ("scenario", comparison.scenario or "not known"),
            ("seeds", _listed_seeds(seeds)),
            ("visits", f"{comparison.units.n:,} ({len(log):,} detector-visits)"),
            ("true sources", f"{len(comparison.base.sources):,} ({judged:,} judged)"),
            ("fidelity", ", ".join(fidelity) or "not known")]


def _listed_seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds)) if len(seeds) <= 12 else f"{len(seeds)} from {seeds[0]} to {seeds[-1]}"


def _tiles(comparison: Comparison) -> list[tuple[str, str, str]]:
    count = Counter(j.verdict for j in comparison.judged)
    flips = comparison.flips
    open_ones = sum(j.verdict == "undecided" and j.metric.primary for j in comparison.judged)
    silent_topics = unknown(comparison.base.facts) | unknown(comparison.head.facts)
    return [("worse", str(count["worse"]), "metrics worse"), ("better", str(count["better"]), "metrics better"),
            ("equivalent", str(count["equivalent"]), "equivalent"),
            ("undecided", str(count["undecided"]), f"undecided, {open_ones} of them primary"),
            ("", f"−{flips.count('lost')} +{flips.count('gained')}", "alerts of true sources"),
            ("", f"+{flips.count('new_false')} −{flips.count('false_gone')}", "false alerts"),
            *([] if "association" in silent_topics else [
                ("", f"−{flips.count('object_wrong')} +{flips.count('object_right')}", "right objects")])]


def _ratios(comparison: Comparison, kinds: Sequence[str]) -> list[overlays.Ratio]:
    chosen = [j for j in comparison.judged if j.metric.key.startswith(tuple(kinds)) and math.isfinite(j.difference)]
    return [overlays.Ratio(j.metric.step or j.metric.key.partition(".")[2], j.difference, j.low, j.high, j.margin,
                           j.verdict) for j in chosen if j.metric.relative]


def _settings(comparison: Comparison) -> Table:
    return Table(("key", comparison.base_label, comparison.head_label),
                 [(s.key, s.base or "–", s.head or "–") for s in comparison.settings])


# --- flips -----------------------------------------------------------------------------------------------------------

def _flow_rows(flows: Sequence[Flow], with_cards: set[int]) -> list[dict[str, Any]]:
    return [{"index": k, "group": f.group, "title": GROUPS[f.group], "worse": f.group in WORSE, "before": f.before,
             "after": f.after, "kind": f.kind, "n": f.n, "step": f.step,
             "origin": f.origin if f.origin != f.step else "", "snr": f"{f.snr:.1f}" if math.isfinite(f.snr) else "",
             "largest": f"{f.largest_snr:.1f}" if math.isfinite(f.largest_snr) else "", "linked": k in with_cards}
            for k, f in enumerate(flows)]


def gallery(comparison: Comparison, *, stamps: tuple[Stamps, Stamps] | None = None) -> list[Card]:
    """Flips with the cutouts of both sides, worst first."""
    flips, anchored = comparison.flips, set[int]()
    finders = [_Cutouts(side, given) for side, given in
               zip((comparison.base, comparison.head), stamps or ({}, {}), strict=True)]
    out = []
    for flip in flips.rows[flips.shown]:
        flow = int(flip["flow"])
        found = _alike(finders, flip)
        first = found[0] if found[0] is not None else found[1]
        sides = [_shown(outcome, flip, name, planes, first) for outcome, name, planes in
                 zip((comparison.base, comparison.head), ("base", "head"), found, strict=True)]
        group, origin = flip["group"].decode(), flip["origin"].decode()
        step = flip["step"].decode()
        out.append(Card(
            group, GROUPS[group], flip["kind"].decode().replace("_", " "), step, flow,
            f"{flip['snr']:.1f}" if np.isfinite(flip["snr"]) else "–", _about(flip, step, origin), sides[0], sides[1],
            group in WORSE, "" if flow in anchored else f"flow-{flow}"))
        anchored.add(flow)
    return out


def _about(flip: np.void, step: str, origin: str) -> tuple[str, ...]:
    """What is known of a flip's source, whatever side: its flow; Step, magnitude and host; place."""
    facts = []
    if step:
        facts.append(f"Step {step}" + (f", differs since {origin}" if origin and origin != step else ""))
    if np.isfinite(flip["magnitude"]):
        facts.append(f"{flip['magnitude']:.1f} mag")
    if np.isfinite(flip["host_sep_arcsec"]):
        brightness = f" at {flip['host_sb']:.1f} mag/arcsec²" if np.isfinite(flip["host_sb"]) else ""
        facts.append(f"{flip['host_sep_arcsec']:.1f}″ from its host's centre{brightness}")
    place = (f"seed {int(flip['seed'])}, visit {int(flip['visit'])}, detector {int(flip['detector'])}, "
             f"x {flip['x']:.0f}, y {flip['y']:.0f}")
    return (f"{flip['before'].decode()} → {flip['after'].decode()}", *([" · ".join(facts)] if facts else []), place)


def _shown(outcome: Outcome, flip: np.void, name: str, planes: np.ndarray | None, first: np.ndarray | None) -> Shown:
    false, index = bool(flip["truthId"] < 0), int(flip[name])
    if index < 0:
        lines: tuple[str, ...] = (flip["before" if name == "base" else "after"].decode(),)
        has = False
    else:
        source = (outcome.false if false else outcome.sources)[index]
        lines, has = told(source, false=false), bool(source["alert"])
        if flip["group"].startswith((b"object", b"ss")):
            state = flip["before" if name == "base" else "after"].decode()
            lines, has = (f"{lines[0]}, {state}", *lines[1:]), state.startswith("right")
    if first is None:
        return Shown("", False, lines, has)
    return Shown(picture(first if planes is None else planes, zoom=1, like=first, centre=True), planes is None, lines,
                 has)


_NONE: Final = (np.zeros((0, 2)), np.zeros((0, 3, 0, 0)))


def _alike(finders: Sequence["_Cutouts"], flip: np.void) -> list[np.ndarray | None]:
    """Cutouts of all sides, made in one way where that can be: a run's own have a template that was matched."""
    kept = [finder.kept(flip) for finder in finders]
    if all(planes is not None for planes in kept):
        return kept
    given = [finder.given(flip) for finder in finders]
    return [g if g is not None else k for k, g in zip(kept, given, strict=True)]


class _Cutouts:
    """Cutouts of one side: those its run folders keep, and those given."""

    def __init__(self, side: Outcome, given: Stamps) -> None:
        self._side, self._given = side, given
        self._stores: dict[int, tuple[Store, np.ndarray] | None] = {}

    def given(self, flip: np.void) -> np.ndarray | None:
        """(3, side, side) at a flip's place, of those given; None where there are none."""
        places, planes = self._given.get((int(flip["seed"]), int(flip["visit"]), int(flip["detector"])), _NONE)
        k = _nearest(places[:, 0], places[:, 1], flip)
        return np.asarray(planes[k]) if k >= 0 else None

    def kept(self, flip: np.void) -> np.ndarray | None:
        """The same of those that the run folder keeps."""
        visit, detector = int(flip["visit"]), int(flip["detector"])
        if (kept := self._kept(int(flip["seed"]))) is None:
            return None
        store, index = kept
        rows = index[(index["visit"] == visit) & (index["detector"] == detector)]
        if (k := _nearest(rows["x"], rows["y"], flip)) < 0:
            return None
        stack = store.stamps(visit, detector)
        return np.asarray(stack[rows["index"][k]]) if rows["index"][k] < len(stack) else None

    def _kept(self, seed: int) -> tuple[Store, np.ndarray] | None:
        if seed not in self._stores:
            folder = self._side.folders.get(seed)
            known = folder is not None and (folder / "measures").is_dir()
            store = Store(folder) if known and folder is not None else None
            self._stores[seed] = (store, store.optional("stamp")) if store is not None else None
        return self._stores[seed]


def _nearest(x: np.ndarray, y: np.ndarray, flip: np.void) -> int:
    """The place nearest to a flip's, if it is near; else -1."""
    if not len(x):
        return -1
    gap = np.hypot(x - flip["x"], y - flip["y"])
    k = int(np.nanargmin(gap)) if np.isfinite(gap).any() else 0
    return k if gap[k] <= NEAR_PX else -1


def _filters(cards: Sequence[Card]) -> list[tuple[str, list[tuple[str, str, int]]]]:
    """Buttons over the gallery: (name, [(value, label, number), ...]), where there is anything to choose."""
    out = []
    for name, attribute in (("change", "group"), ("class", "kind"), ("step", "step")):
        count = Counter(getattr(card, attribute) for card in cards)
        values = [(v, GROUPS.get(v, v) if name == "change" else v, n) for v, n in count.most_common() if v]
        if len(values) > 1:
            out.append((name, values))
    return out


def _listed(comparison: Comparison) -> Table:
    rows = [(GROUPS[f["group"].decode()], f["kind"].decode().replace("_", " "),
             f"{f['snr']:.1f}" if np.isfinite(f["snr"]) else "", f["before"].decode(), f["after"].decode(),
             f["step"].decode(), str(int(f["seed"])), str(int(f["visit"])), str(int(f["detector"])),
             f"{f['x']:.0f}, {f['y']:.0f}") for f in comparison.flips.rows[:LISTED]]
    return Table(("change", "class", "S/N", "before", "after", "Step", "seed", "visit", "detector", "x, y"), rows)


# --- for machines ----------------------------------------------------------------------------------------------------

def document(comparison: Comparison) -> dict[str, Any]:
    """What `comparison.json` holds; unknown numbers are null."""
    flips = comparison.flips
    return {
        "version": VERSION, "verdict": comparison.verdict.word, "sentence": comparison.verdict.sentence,
        "base": {"label": comparison.base_label, "facts": comparison.base.facts},
        "head": {"label": comparison.head_label, "facts": comparison.head.facts},
        "scenario": comparison.scenario, "seeds": list(comparison.seeds), "visits": comparison.units.n,
        "detector_visits": len(comparison.base.visits), "true_sources": len(comparison.base.sources),
        "rules": plain({"level": comparison.rules.level, "resamples": comparison.rules.resamples,
                        "margins": dict(comparison.rules.margins), "primary": list(comparison.rules.primary)}),
        "metrics": [_metric(j, comparison) for j in comparison.judged],
        "steps": plain(list(comparison.differences)),
        "flows": [{"index": k, **plain(flow)} for k, flow in enumerate(flips.flows)],
        "flips": plain(flips.rows), "settings": plain(list(comparison.settings))}


def _metric(judged: Judged, comparison: Comparison) -> dict[str, Any]:
    metric, blamed = judged.metric, comparison.blames.get(judged.metric.key)
    out: dict[str, Any] = plain({
        "key": metric.key, "name": metric.name, "rubin": metric.rubin, "section": metric.section, "unit": metric.unit,
        "better": metric.better, "relative": metric.relative, "primary": metric.primary, "base": judged.base,
        "head": judged.head, "difference": judged.difference, "low": judged.low, "high": judged.high,
        "margin": judged.margin, "p": judged.p, "q": judged.q, "verdict": judged.verdict, "visits": judged.n_units,
        "n_base": judged.n_base, "n_head": judged.n_head, "visits_needed": judged.needed,
        "step": blamed.step if blamed else None, "how": blamed.how if blamed else None})
    return out


def markdown(comparison: Comparison, *, notes: Sequence[str] = ()) -> str:
    """A comment for a pull request: the sentence, what decides, the rest folded away."""
    flips = comparison.flips
    facts = dict(_facts(comparison))
    lines = [f"**{_escaped(comparison.verdict.sentence)}**", "",
             f"{_code(comparison.base_label)} → {_code(comparison.head_label)} on {_code(facts['scenario'])}, "
             f"{facts['visits']} of seeds {facts['seeds']}", "", *(f"- {_escaped(note)}" for note in notes), "",
             *_metric_lines([row(j, comparison) for j in leading(comparison)]), ""]
    if flips.flows:
        worst = [f for f in flips.flows if f.group in WORSE]
        lines += [f"<details><summary>{len(flips.rows)} flips: {flips.count('lost')} alerts lost, "
                  f"{flips.count('gained')} gained, {flips.count('new_false')} new false, "
                  f"{flips.count('false_gone')} false gone</summary>", "",
                  "| flow | class | n | S/N | Step |", "|---|---|---:|---:|---|"]
        lines += [f"| {_escaped(f.before)} → {_escaped(f.after)} | {_escaped(f.kind or GROUPS[f.group])} | {f.n} | "
                  f"{'' if math.isnan(f.snr) else f'{f.snr:.1f}'} | {f.step} |"
                  for f in (*worst, *(g for g in flips.flows if g not in worst))][:2 * MARKDOWN_ROWS]
        lines += ["", "</details>", ""]
    count = Counter(j.verdict for j in comparison.judged)
    summary = ", ".join(f"{n} {word}" for word, n in count.most_common())
    lines += [f"<details><summary>All {len(comparison.judged)} metrics: {summary}</summary>", "",
              *_metric_lines([row(j, comparison) for j in comparison.judged if j.verdict != "no data"]), "",
              "</details>"]
    return "\n".join(lines) + "\n"


def _metric_lines(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return ["No metric has any data."]
    out = ["| metric | base | head | difference | interval | verdict | Step |", "|---|---:|---:|---:|---|---|---|"]
    for r in rows:
        word = f"**{r.verdict}**" if r.verdict in MOVED else r.verdict
        out.append(f"| {_escaped(r.name)} | {r.base} | {r.head} | {r.difference} | {r.interval} | {word} | {r.step} |")
    return out


def _escaped(text: str) -> str:
    """Text that cannot become markup in a table of Markdown."""
    for sign, instead in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("*", "\\*"), ("_", "\\_"),
                          ("`", "\\`"), ("[", "\\["), ("\n", " ")):
        text = text.replace(sign, instead)
    return text


def _code(text: str) -> str:
    return "`" + text.replace("`", "'").replace("\n", " ") + "`"


def junit(comparison: Comparison) -> str:
    """A test case per metric: worse fails, an undecided primary one is skipped."""
    count = Counter(j.verdict for j in comparison.judged)
    open_ones = sum(j.verdict == "undecided" and j.metric.primary for j in comparison.judged)
    suite = ElementTree.Element(
        "testsuite", name=_legal(f"{comparison.base_label} -> {comparison.head_label}"), errors="0",
        tests=str(len(comparison.judged)), failures=str(count["worse"]), skipped=str(open_ones + count["no data"]))
    for j in comparison.judged:
        case = ElementTree.SubElement(suite, "testcase", classname=_legal(j.metric.section), name=_legal(j.metric.key),
                                      time="0")
        told_of = row(j, comparison)
        blamed = f" [{told_of.step}: {told_of.note}]" if told_of.step else ""
        if j.verdict == "worse":
            ElementTree.SubElement(case, "failure", message=_legal(clause(j) + blamed), type="worse").text = _legal(
                f"{j.metric.name}: {told_of.base} -> {told_of.head}, difference {told_of.difference} "
                f"({told_of.interval}), margin {told_of.margin}, q {told_of.q}")
        elif j.verdict == "no data" or (j.verdict == "undecided" and j.metric.primary):
            message = "no data" if j.verdict == "no data" else f"undecided: {told_of.interval}; {told_of.note}"
            ElementTree.SubElement(case, "skipped", message=_legal(message))
        else:
            ElementTree.SubElement(case, "system-out").text = _legal(
                f"{j.verdict}: {told_of.base} -> {told_of.head}, difference {told_of.difference} "
                f"({told_of.interval}){blamed}")
    ElementTree.indent(suite, " ")
    return "<?xml version='1.0' encoding='utf-8'?>\n" + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _legal(text: str) -> str:
    """Without the characters that XML 1.0 forbids."""
    return "".join(c for c in text if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd"
                   or c >= "\U00010000")


__all__ = ["FILES", "Card", "Key", "Stamps", "bar", "document", "gallery", "html", "junit", "markdown", "write"]
