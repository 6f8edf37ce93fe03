"""Association (6.8) judged by truth: do the alerts of one source share one DIAObject, and one DIAObject one source?"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from reports.drawing import BLUE, GOOD, MUTED, WARM, nothing, panels, styled
from reports.intervals import UNKNOWN, Estimate, fraction
from reports.match import Matches

STATIC_KINDS: Final = (b"transient", b"variable", b"agn", b"injected")


@dataclass(frozen=True, slots=True)
class Association:
    """Accuracy of association; `duplicates` are DIAObjects beyond the first of one source."""

    accuracy: Estimate         # alerts of static sources in the object of their source, and of asteroids in theirs
    static: Estimate
    solar_system: Estimate     # alerts of known asteroids that carry the right ssObjectId
    wrong_solar_system: Estimate   # alerts of static sources that carry any ssObjectId
    sources: int               # static true sources with an alert
    objects: int               # DIAObjects that hold them
    duplicates: int
    merged: int                # DIAObjects that hold more than one true source
    false_objects: int         # DIAObjects of false detections alone
    split: Estimate            # fraction of the static sources whose alerts lie in several DIAObjects
    merges: Estimate           # fraction of their DIAObjects that hold several true sources
    lone: int                  # DIAObjects with exactly one DIASource: Rubin's totalUnassociatedDiaObjects
    all_objects: int           # DIAObjects with any DIASource of the run


def association(matches: Matches) -> Association:
    """Judge the alerts that have a true source; a DIAObject belongs to the source that gave most of its alerts."""
    alerts = matches.sources["alert"]
    real = np.flatnonzero(alerts & (matches.partner >= 0))
    truth, sources = matches.truth[matches.partner[real]], matches.sources[real]
    static = np.isin(truth["kind"], STATIC_KINDS)
    objects, members = _tally(truth[static], sources[static])
    right_static = sum(_correct(objects, members))
    known = truth["ssObjectId"] > 0
    right_known = int(np.sum(sources["ssObjectId"][known] == truth["ssObjectId"][known]))
    total = int(static.sum()) + int(known.sum())
    per_source = {source: sum(1 for key in held if key[1]) for source, held in members.items()}
    false = matches.sources[alerts & (matches.partner < 0)]
    taken = set(objects)
    alone = {(int(r["run"]), int(r["diaObjectId"])) for r in false if r["diaObjectId"]} - taken
    return Association(
        fraction(right_static + right_known, total) if total else UNKNOWN, fraction(right_static, int(static.sum())),
        fraction(right_known, int(known.sum())),
        fraction(int(np.sum(sources["ssObjectId"][static] > 0)), int(static.sum())), len(per_source),
        sum(1 for key in objects if key[1]), sum(max(n - 1, 0) for n in per_source.values()),
        sum(1 for key, held in objects.items() if key[1] and len(held) > 1), len(alone),
        fraction(sum(n > 1 for n in per_source.values()), len(per_source)),
        fraction(sum(1 for key, held in objects.items() if key[1] and len(held) > 1),
                 sum(1 for key in objects if key[1])), *unassociated(matches.sources))


def unassociated(sources: np.ndarray) -> tuple[int, int]:
    """DIAObjects with exactly one DIASource, as ap_verify counts totalUnassociatedDiaObjects, and all of them."""
    held = sources[(sources["stage"] == b"") & (sources["diaObjectId"] > 0)]
    _, counts = np.unique(held[["run", "diaObjectId"]], return_counts=True)
    return int(np.sum(counts == 1)), len(counts)


Key = tuple[int, int]                     # run, id
Tally = dict[Key, Counter[Key]]


def _tally(truth: np.ndarray, sources: np.ndarray) -> tuple[Tally, Tally]:
    """Alerts per (object, source) and per (source, object)."""
    objects: Tally = defaultdict(Counter)
    members: Tally = defaultdict(Counter)
    for t, s in zip(truth, sources, strict=True):
        source, held = (int(t["run"]), int(t["truthId"])), (int(s["run"]), int(s["diaObjectId"]))
        objects[held][source] += 1
        members[source][held] += 1
    return objects, members


def _correct(objects: Tally, members: Tally) -> list[int]:
    """For each source, its alerts in its main object, if that object is mainly its own; object 0 is none."""
    out = []
    for source, held in members.items():
        main, count = max(((k, n) for k, n in held.items()), key=lambda pair: (pair[0][1] > 0, pair[1], pair[0]))
        owner = max(objects[main].items(), key=lambda pair: (pair[1], pair[0]))[0]
        out.append(count if main[1] > 0 and owner == source else 0)
    return out


# --- drawing ---------------------------------------------------------------------------------------------------------

@styled
def plot(tables: Mapping[str, Association]) -> Figure:
    """Accuracy of one or several runs or settings side by side, with duplicates of 100 sources."""
    names = list(tables)[::-1]
    figure, (left, right) = panels(2, height=max(2.4, 0.36 * len(tables) + 1.4),
                                   labels=[max(names, key=len, default="")])
    shown = [tables[name] for name in names]
    if not any(t.accuracy.n for t in shown):
        nothing(left, "no alerts of true sources")
        right.set_axis_off()
        return figure
    place = np.arange(len(names))
    for shift, attribute, label, colour in ((0.2, "static", "static sources: right DIAObject", BLUE),
                                            (-0.2, "solar_system", "known asteroids: right SSObject", WARM)):
        found = [getattr(t, attribute) for t in shown]
        value = np.array([f.value for f in found])
        errors = np.maximum([value - [f.low for f in found], [f.high for f in found] - value], 0.0)
        left.errorbar(value, place + shift, xerr=np.nan_to_num(errors), fmt="o", color=colour, label=label)
    lowest = min((f for t in shown for f in (t.static.low, t.solar_system.low) if np.isfinite(f)), default=0.9)
    left.set_yticks(place, names)
    left.set(xlim=(max(0.0, lowest - 0.05), 1.01), ylim=(-0.6, len(names) - 0.1), xlabel="fraction of alerts",
             title="Association accuracy by truth")
    left.legend(loc="lower left" if len(names) > 2 else "best")
    right.barh(place + 0.2, [100 * t.duplicates / max(t.sources, 1) for t in shown], 0.38, color=GOOD,
               label="duplicate DIAObjects")
    right.barh(place - 0.2, [100 * t.merged / max(t.sources, 1) for t in shown], 0.38, color=MUTED,
               label="DIAObjects with two sources")
    right.set_yticks(place, names)
    right.set(xlabel="per 100 true sources", title="Splits and merges", ylim=(-0.6, len(names) - 0.1))
    right.set_xlim(0, max(1.0, right.get_xlim()[1] * 1.1))
    right.legend(loc="best")
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
    return figure
