"""Association (6.8) judged by truth: do the alerts of one source share one DIAObject, and one DIAObject one source?"""

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
    """Accuracy of association; `duplicates` are DIAObjects of a source beyond its main one."""

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
    complete: Estimate = UNKNOWN   # alerts of static sources in the main DIAObject of their source
    pure: Estimate = UNKNOWN       # those in a DIAObject that is mainly their source's


def association(matches: Matches) -> Association:
    """Judge the alerts that have a true source: `placed` says which are in the right DIAObject."""
    alerts = matches.sources["alert"]
    real = np.flatnonzero(alerts & (matches.partner >= 0))
    real = real[np.argsort(matches.sources["midpointMjdTai"][real], kind="stable")]
    truth, sources = matches.truth[matches.partner[real]], matches.sources[real]
    static, known = np.isin(truth["kind"], STATIC_KINDS), truth["ssObjectId"] > 0
    ids = np.where(matches.sources["diaObjectId"] > 0, _codes(matches.sources, "diaObjectId"), 0)
    objects, truths = ids[real[static]], _codes(truth[static], "truthId")
    at = placed(objects, truths)
    right_static = int(at.right.sum())
    right_known = int(np.sum(sources["ssObjectId"][known] == truth["ssObjectId"][known]))
    held, owners = np.unique(np.stack([objects, truths])[:, objects > 0], axis=1)
    in_object, of_source = (np.unique(x, return_counts=True)[1] for x in (held, owners))
    n_sources, alone = len(np.unique(truths)), ids[alerts & (matches.partner < 0) & (ids > 0)]
    return Association(
        fraction(right_static + right_known, int(static.sum() + known.sum())) if static.any() or known.any()
        else UNKNOWN, fraction(right_static, int(static.sum())), fraction(right_known, int(known.sum())),
        fraction(int(np.sum(sources["ssObjectId"][static] > 0)), int(static.sum())), n_sources, len(in_object),
        int(at.duplicate.sum()), int(np.sum(in_object > 1)), len(np.setdiff1d(alone, objects)),
        fraction(int(np.sum(of_source > 1)), n_sources), fraction(int(np.sum(in_object > 1)), len(in_object)),
        *unassociated(matches.sources), fraction(int(at.main.sum()), int(static.sum())),
        fraction(int(np.sum(at.held & ~at.merged)), int(static.sum())))


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of DIASources of static sources, in parallel arrays of bool."""

    right: np.ndarray          # in their source's main DIAObject, which is mainly their source's
    merged: np.ndarray         # in a DIAObject that is mainly another source's
    duplicate: np.ndarray      # the first in a DIAObject that is mainly their source's, yet not its main one
    held: np.ndarray           # in any DIAObject
    main: np.ndarray           # in the one that holds most of their source's DIASources, whosever it mainly is


def placed(objects: np.ndarray, truths: np.ndarray) -> Placed:
    """Judge DIASources in their order in time by their DIAObjects, 0 for none, and their true sources.

    A DIAObject belongs to the true source that gave most of its DIASources; of those that belong to a true source its
    main one holds most of its: the first where several do.

    Examples
    --------
    >>> found = placed(np.array([1, 1, 3, 3, 0]), np.array([7, 7, 7, 8, 8]))
    >>> found.right.tolist(), found.duplicate.tolist()
    ([True, True, False, False, False], [False, False, True, False, False])
    """
    owner = mainly(objects, truths)
    main = mainly(truths, np.where(owner == truths, objects, 0))
    held, first = objects > 0, np.zeros(len(objects), bool)
    first[np.unique(np.stack([objects, truths]), axis=1, return_index=True)[1]] = True
    return Placed(held & (main == objects) & (owner == truths), held & (owner != truths),
                  held & (owner == truths) & (main != objects) & first, held,
                  held & (mainly(truths, objects) == objects))


def mainly(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(n,) for each row the value that is most frequent among the rows of its key, the first of equals; 0 is none."""
    usable = (keys != 0) & (values != 0)
    _, key = np.unique(keys, return_inverse=True)
    names, value = np.unique(values, return_inverse=True)
    pairs, first, n = np.unique(key[usable] * len(names) + value[usable], return_index=True, return_counts=True)
    order = np.lexsort((first, -n))                        # most frequent first, then earliest
    of, best = np.unique(pairs[order] // max(len(names), 1), return_index=True)
    main = np.zeros(int(key.max(initial=-1)) + 1, values.dtype)
    main[of] = names[pairs[order][best] % max(len(names), 1)]
    return main[key]


def _codes(rows: np.ndarray, column: str) -> np.ndarray:
    """(n,) numbers from 1: the same for rows of one run and one id."""
    _, run = np.unique(rows["run"], return_inverse=True)
    names, name = np.unique(rows[column], return_inverse=True)
    return np.asarray(np.unique(run * max(len(names), 1) + name, return_inverse=True)[1]) + 1


def unassociated(sources: np.ndarray) -> tuple[int, int]:
    """DIAObjects with exactly one DIASource, as ap_verify counts totalUnassociatedDiaObjects, and all of them."""
    held = sources[(sources["stage"] == b"") & (sources["diaObjectId"] > 0)]
    counts = np.bincount(_codes(held, "diaObjectId"))[1:] if len(held) else np.zeros(0, int)
    return int(np.sum(counts == 1)), len(counts)


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
