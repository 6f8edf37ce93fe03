"""Known Solar System objects (6.9): which detections got their SSObject, why others did not, and their offsets."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.drawing import BLUE, INK, MUTED, PALE, WARM, nothing, panels, styled
from reports.intervals import Estimate, fraction, median, wilson
from reports.match import Matches
from reports.rate import per_visit
from reports.store import Store
from reports.template import known_mean

MIN_SNR: Final = 6.0
RADIUS_ARCSEC: Final = 1.0         # association radius, paper 4.9
MAX_EPHEMERIS_ERROR: Final = 0.5   # [arcsec]: beyond it a detection is not judged

KNOWN: Final = np.dtype([
    ("run", "i2"), ("visit", "i8"), ("detector", "i2"), ("truthId", "i8"), ("ssObjectId", "i8"), ("snr", "f4"),
    ("eph_err_arcsec", "f4"), ("object_within", "?"), ("judged", "?"), ("associated", "?"), ("cause", "S40")])


@dataclass(frozen=True, slots=True)
class SolarSystem:
    """Detections (alerts) of known asteroids above S/N 6."""

    rows: np.ndarray           # KNOWN
    associated: Estimate       # of those without a DIAObject within 1" and with an ephemeris error under 0.5"
    causes: dict[str, int]     # of every detection without its SSObject


def solar_system(matches: Matches, objects: np.ndarray) -> SolarSystem:
    """Judge alerts of known asteroids; `objects` are OBJECT rows, the DIAObjects of all runs."""
    use = matches.alerted & (matches.truth["ssObjectId"] > 0) & (np.abs(matches.truth["snr"]) > MIN_SNR)
    truth, sources = matches.truth[use], matches.sources[matches.found[use]]
    rows = np.zeros(len(truth), KNOWN)
    for column in ("run", "visit", "detector", "truthId", "ssObjectId", "snr", "eph_err_arcsec"):
        rows[column] = truth[column]
    rows["object_within"] = _near_object(truth, sources, objects)
    rows["associated"] = sources["ssObjectId"] == truth["ssObjectId"]
    rows["judged"] = ~rows["object_within"] & (rows["eph_err_arcsec"] < MAX_EPHEMERIS_ERROR)
    rows["cause"] = [_cause(row, int(source["ssObjectId"])).encode() for row, source in zip(rows, sources, strict=True)]
    judged = rows[rows["judged"]]
    missed = rows[~rows["associated"]]
    causes = Counter(cause.decode() for cause in missed["cause"].tolist())
    return SolarSystem(rows, fraction(int(judged["associated"].sum()), len(judged)), dict(sorted(causes.items())))


OFFSET: Final = np.dtype([("offset", "f8"), ("ra", "f8"), ("dec", "f8"), ("along", "f8"), ("cross", "f8")])   # [arcsec]


@dataclass(frozen=True, slots=True)
class Ephemerides:
    """Known objects that the exposures held, and the offsets of their detections from the predicted positions."""

    total: int                 # known objects on the detectors, visit by visit: numTotalSolarSystemObjects
    associated: int            # DIASources with an SSObject: numAssociatedSsObjects
    total_per_visit: Estimate  # per detector-visit
    associated_per_visit: Estimate
    found: Estimate            # fraction of the judged known ones over S/N 6 with their SSObject, all losses counted
    offsets: np.ndarray        # OFFSET of the associated ones, ephOffset of SSSource
    offset: Estimate           # median over objects of ephOffset [arcsec]
    along: Estimate            # median ephOffsetAlongTrack: 0 without a bias in time
    cross: Estimate
    by_snr: np.ndarray         # FOUND


FOUND: Final = np.dtype([("low", "f8"), ("high", "f8"), ("n", "i8"), ("associated", "i8")])
SNR_EDGES: Final = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 20.0, 50.0, 1000.0)


def ephemerides(store: Store, matches: Matches) -> Ephemerides:
    """Judge the known asteroids of one run."""
    known = matches.truth[matches.truth["ssObjectId"] > 0]
    given = matches.sources[(matches.sources["stage"] == b"") & (matches.sources["ssObjectId"] > 0)]
    log = matches.exposures[matches.exposures["status"] == b"done"]
    here = np.isin(known["visit"].astype("i8") * 1000 + known["detector"],
                   log["visit"].astype("i8") * 1000 + log["detector"])
    rows = store.optional("SSSource")
    rows = rows[np.isin(rows["diaSourceId"], given["id"])]
    offsets = np.zeros(len(rows), OFFSET)
    for name, column in (("offset", "ephOffset"), ("ra", "ephOffsetRa"), ("dec", "ephOffsetDec"),
                         ("along", "ephOffsetAlongTrack"), ("cross", "ephOffsetCrossTrack")):
        offsets[name] = rows[column]
    table = _by_snr(matches)
    bright = table[table["low"] >= MIN_SNR]
    offset, along, cross = (median(_by_object(rows["ssObjectId"], offsets[name])) for name in
                            ("offset", "along", "cross"))
    return Ephemerides(
        int(here.sum()), len(given), known_mean(per_visit(log, known)), known_mean(per_visit(log, given)),
        fraction(int(bright["associated"].sum()), int(bright["n"].sum())), offsets, offset, along, cross, table)


def _by_object(ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means over the detections of each object: an ephemeris is wrong for all of them alike."""
    known = np.isfinite(values)
    _, of = np.unique(ids[known], return_inverse=True)
    return np.asarray(np.bincount(of, weights=values[known]) / np.bincount(of)) if known.any() else values[:0]


def _by_snr(matches: Matches) -> np.ndarray:
    """FOUND rows of judged known asteroids: those whose detection carries their SSObject."""
    truth = matches.truth
    use = matches.judged & (truth["ssObjectId"] > 0)
    got = np.zeros(len(truth), bool)
    if len(matches.sources):
        source = matches.sources[np.maximum(matches.found, 0)]
        got = matches.alerted & (source["ssObjectId"] == truth["ssObjectId"])
    rows, snr = np.zeros(len(SNR_EDGES) - 1, FOUND), np.abs(truth["snr"])
    rows["low"], rows["high"] = SNR_EDGES[:-1], SNR_EDGES[1:]
    for row in rows:
        of = use & (snr >= row["low"]) & (snr < row["high"])
        row["n"], row["associated"] = of.sum(), np.sum(got & of)
    return rows


OBJECT: Final = np.dtype([("run", "i2"), ("diaObjectId", "i8"), ("ra", "f8"), ("dec", "f8"), ("first", "f8")])


def objects(store: Store, run: int = 0) -> np.ndarray:
    """OBJECT rows of a run: every DIAObject once, with the time of its first source [MJD TAI]."""
    found = store.optional("DiaObject")
    _, once = np.unique(found["diaObjectId"], return_index=True)
    rows = np.zeros(len(once), OBJECT)
    rows["run"], rows["first"] = run, found["firstDiaSourceMjdTai"][once]
    for name in ("diaObjectId", "ra", "dec"):
        rows[name] = found[name][once]
    return rows


def _near_object(truth: np.ndarray, sources: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Whether a DIAObject older than the detection lies within the association radius."""
    out = np.zeros(len(truth), bool)
    for i, (row, source) in enumerate(zip(truth, sources, strict=True)):
        here = objects[(objects["run"] == row["run"]) & (np.abs(objects["dec"] - source["dec"]) < RADIUS_ARCSEC / 3600)]
        east = ((here["ra"] - source["ra"] + 180) % 360 - 180) * np.cos(np.radians(source["dec"])) * 3600
        gap = np.hypot(east, (here["dec"] - source["dec"]) * 3600)
        older = ~(here["first"] >= source["midpointMjdTai"] - 1e-9)   # an unknown time counts as older
        out[i] = bool(np.any((gap <= RADIUS_ARCSEC) & older))
    return out


def _cause(row: np.void, got: int) -> str:
    if row["associated"]:
        return ""
    if got > 0:
        return "another SSObject was nearer"
    if row["object_within"]:
        return 'a DIAObject lies within 1"'
    if not row["eph_err_arcsec"] < MAX_EPHEMERIS_ERROR:
        return "ephemeris error not under 0.5 arcsec"
    return "no SSObject associated"


# --- drawing ---------------------------------------------------------------------------------------------------------

@styled
def plot(table: Ephemerides) -> Figure:
    """Known objects that got their SSObject against S/N, and the offsets from the ephemeris on the sky."""
    figure, (left, right) = panels(2)
    _plot_found(left, table.by_snr[table.by_snr["n"] > 0])
    _plot_offsets(right, table.offsets)
    return figure


def _plot_found(axes: Axes, rows: np.ndarray) -> None:
    if not len(rows):
        return nothing(axes, "no known Solar System object was in view")
    x, y = np.sqrt(rows["low"] * np.minimum(rows["high"], 120.0)), rows["associated"] / rows["n"]
    low, high = wilson(rows["associated"], rows["n"])
    axes.errorbar(x, y, np.maximum([y - low, high - y], 0.0), fmt="o-", color=BLUE, elinewidth=1.2, linewidth=1.0)
    for at, row in zip(x, rows, strict=True):
        axes.annotate(f"{row['n']}", (at, -0.02), ha="center", fontsize=7.5, color=MUTED)
    axes.axvline(5.0, color=MUTED, linewidth=1, linestyle=":")
    axes.set(xscale="log", xlabel="true S/N", ylabel="fraction with their SSObject", ylim=(-0.05, 1.05), xlim=(2, 120),
             title="Known objects associated")
    axes.set_xticks([2, 3, 5, 10, 20, 50, 100], ["2", "3", "5", "10", "20", "50", "100"])
    axes.minorticks_off()
    return None


def _plot_offsets(axes: Axes, offsets: np.ndarray) -> None:
    known = offsets[np.isfinite(offsets["along"]) & np.isfinite(offsets["cross"])]
    if not len(known):
        return nothing(axes, "no DIASource has an SSObject")
    edges = np.linspace(-RADIUS_ARCSEC, RADIUS_ARCSEC, 41)
    for name, label, colour in (("along", "along the track", WARM), ("cross", "across it", BLUE)):
        axes.hist(np.clip(known[name], edges[0], edges[-1]), edges.tolist(), histtype="step", linewidth=1.6,
                  color=colour, label=f"{label}: median {1e3 * np.median(known[name]):+.0f} mas")
    axes.axvline(0.0, color=INK, linewidth=1, linestyle="--")
    axes.set(xlabel="found − predicted [arcsec]", ylabel="DIASources", title="Offsets from the ephemeris",
             ylim=(0, 1.35 * axes.get_ylim()[1]))
    axes.legend(loc="upper right")
    axes.grid(axis="x", color=PALE, alpha=0.2)
    return None
