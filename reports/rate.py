"""The alert rate (6.2): what a detector-visit makes, what that is on a whole camera, and how large packets are."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.drawing import BLUE, MUTED, PALE, WARM, nothing, panels, styled
from reports.intervals import Estimate, median
from reports.known import unknown
from reports.store import Store, empty
from reports.template import known_mean

CAMERA_MEGAPIXELS: Final = 189 * 4072 * 4000 / 1e6   # LSSTCam's science detectors

# Flags that GoodDiaSourceSelector of analysis_tools refuses: numDiaSources counts what is left of numDiaSourcesAll.
BAD_FLAGS: Final = ("pixelFlags_bad", "pixelFlags_saturatedCenter", "pixelFlags_interpolatedCenter", "pixelFlags_edge",
                    "pixelFlags_nodata")

COUNT: Final = np.dtype([("name", "S32"), ("rubin", "S32"), ("total", "i8")])


@dataclass(frozen=True, slots=True)
class Rate:
    """Counts of one run's processed detector-visits; each row of `counts` has its three rates."""

    counts: np.ndarray                 # COUNT
    per_visit: list[Estimate]          # per detector-visit
    per_megapixel: list[Estimate]      # per 10^6 usable px
    per_camera: list[Estimate]         # on a whole camera of such detectors
    alerts: np.ndarray                 # (n,) per detector-visit, in order of time
    sources: np.ndarray                # (n,) DIASources
    detected: np.ndarray               # (n,) detections before any filter


@dataclass(frozen=True, slots=True)
class Packets:
    """Sizes of the packets that were sent."""

    sizes: np.ndarray                  # (n,) [byte], sorted
    median: Estimate
    per_visit: Estimate                # megabytes per detector-visit


def rate(store: Store, log: np.ndarray) -> Rate:
    """Counts per detector-visit of EXPOSURE_LOG rows; only those that were processed have a rate."""
    done = log[log["status"] == b"done"]
    done = done[np.argsort(done["midpointMjdTai"], kind="stable")]
    sources = store.optional("DiaSource")
    good = ~np.any([sources[name] for name in BAD_FLAGS], axis=0) if len(sources) else np.zeros(0, bool)
    sent = per_visit(done, store.table("publication") if store.has("publication") else sources)
    made, detected = per_visit(done, sources), done["n_detected"].astype(float)
    topics = unknown(store.facts())
    kinds = [(name, rubin, number) for name, rubin, topic, number in (
        ("alerts", "", "", sent), ("DIASources", "numDiaSourcesAll", "", made),
        ("DIASources without bad flags", "numDiaSources", "calibration", per_visit(done, sources[good])),
        ("dipoles", "numDipoles", "dipoles", per_visit(done, sources[sources["isDipole"]])),
        ("with an SSObject", "numSsObjects", "Solar System objects",
         per_visit(done, sources[sources["ssObjectId"] > 0])),
        ("new DIAObjects", "numNewDiaObjects", "association", done["n_new_objects"].astype(float)),
        ("detections before the filters", "", "", detected)) if topic not in topics]
    area = done["nx"].astype(float) * done["ny"]
    megapixels = np.where(done["usable_px"] > 0, done["usable_px"], area) / 1e6
    counts = np.zeros(len(kinds), COUNT)
    counts["name"], counts["rubin"] = [k[0] for k in kinds], [k[1] for k in kinds]
    counts["total"] = [np.sum(np.maximum(k[2], 0)) for k in kinds]
    dense = [_density(k[2], megapixels) for k in kinds]
    camera = [Estimate(d.value * CAMERA_MEGAPIXELS, d.low * CAMERA_MEGAPIXELS, d.high * CAMERA_MEGAPIXELS, d.n)
              for d in dense]
    return Rate(counts, [count_mean(k[2]) for k in kinds], dense, camera, sent, made, detected)


def per_visit(log: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(n,) float: rows of each detector-visit of the log."""
    keys, of = (r["visit"].astype("i8") * 1000 + r["detector"] for r in (log, rows))
    found, number = np.unique(of, return_counts=True)
    if not len(found):
        return np.zeros(len(log))
    place = np.minimum(np.searchsorted(found, keys), len(found) - 1)
    return np.where(found[place] == keys, number[place], 0).astype(float)


def _density(counts: np.ndarray, megapixels: np.ndarray) -> Estimate:
    """Counts over area, both summed, with the interval that their scatter among detector-visits gives."""
    total = float(megapixels.sum())
    if total <= 0:
        return known_mean(counts[:0])
    value = float(counts.sum()) / total
    spread = known_mean((counts - value * megapixels) * len(counts) / total)
    low, high = value + spread.low - spread.value, value + spread.high - spread.value
    return Estimate(value, low if math.isnan(low) else max(low, 0.0), high, len(counts))


def count_mean(counts: np.ndarray) -> Estimate:
    """The mean of counts, its interval not below 0."""
    found = known_mean(counts)
    return Estimate(found.value, found.low if math.isnan(found.low) else max(found.low, 0.0), found.high, found.n)


def packets(store: Store, log: np.ndarray) -> Packets:
    """Sizes of what was sent of the log's detector-visits."""
    sent = store.optional("publication")
    sent = sent[np.isin(sent["visit"].astype("i8") * 1000 + sent["detector"],
                        log["visit"].astype("i8") * 1000 + log["detector"])] if len(log) else empty("publication")
    done = log[log["status"] == b"done"]
    keys, of = (r["visit"].astype("i8") * 1000 + r["detector"] for r in (done, sent))
    bytes_each = np.array([sent["bytes"][of == key].sum() for key in keys.tolist()], float)
    return Packets(np.sort(sent["bytes"]), median(sent["bytes"]), known_mean(bytes_each / 1e6))


# --- drawing ---------------------------------------------------------------------------------------------------------

@styled
def plot(table: Rate, sizes: Packets) -> Figure:
    """Counts of each detector-visit, and the distribution of packet sizes."""
    figure, (left, right) = panels(2)
    _plot_counts(left, table)
    _plot_sizes(right, sizes)
    return figure


def _plot_counts(axes: Axes, table: Rate) -> None:
    if not len(table.alerts):
        return nothing(axes, "no detector-visit was processed")
    place = np.arange(len(table.alerts)) + 1
    for values, label, colour in ((table.detected, "detections", PALE), (table.sources, "DIASources", BLUE),
                                  (table.alerts, "alerts", WARM)):
        axes.plot(place, values, "o-" if len(place) < 60 else "-", color=colour, label=label, markersize=4,
                  linewidth=1.2)
    top = max(float(np.max(v)) for v in (table.detected, table.sources, table.alerts))
    axes.set(xlabel="detector-visit, in order of time", ylabel="number", ylim=(0, 1.3 * max(top, 1.0)),
             title="Per detector-visit")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper right", ncols=3)
    return None


def _plot_sizes(axes: Axes, table: Packets) -> None:
    if not len(table.sizes):
        return nothing(axes, "no packet was sent")
    kilobytes = table.sizes / 1e3
    axes.hist(kilobytes, 30, color=PALE)
    axes.axvline(table.median.value / 1e3, color=BLUE, linewidth=1.4)
    axes.annotate(f"median {table.median.value / 1e3:.0f} kB", (table.median.value / 1e3, 0.95), color=BLUE,
                  fontsize=8.5, xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points")
    axes.set(xlabel="packet size [kB]", ylabel="packets", title="Packet sizes")
    axes.grid(axis="x", color=MUTED, alpha=0.15)
    return None
