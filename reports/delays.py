"""Where the time of every alert went: the critical path from the end of readout to the brokers, and who waited for it.

A detector-visit does one thing at a time, and before its image is there two: the worker preloads while the image comes.
The later of the two is what was waited for. So its delay is a sum of parts, each of one activity or queue.
"""

from typing import Final

import numpy as np

from schemas.measures import CALL_SERVICES, CALL_STEPS

LIMIT_S: Final = 60.0            # OTT1 of DMS-REQ-0406, from the end of readout

# Parts of a delay in the order of the path. "X queue" is waiting for a server of X, or between two tries.
PARTS: Final = ("nextVisit", "another try", "workers", "start-up", "preload", "image", "pixels", "catalogue", "kafka",
                "registry queue", "registry", "storage queue", "storage", "apdb queue", "apdb", "ephemeris queue",
                "ephemeris", "satellites queue", "satellites", "egress queue", "egress")
PART: Final = {name: k for k, name in enumerate(PARTS)}
PRELOAD_STEPS: Final = CALL_STEPS.index("ephemerides")    # and those before it
HELD: Final = ("preload", "image", "pixels", "catalogue", "export")     # what workers are held by


def parts(passages: np.ndarray, calls: np.ndarray) -> np.ndarray:
    """(n, len(PARTS)) seconds after the end of readout that each detector-visit's alerts took, NaN where never sent.

    The row's sum is `delivered_s` - `readout_end_s`.
    """
    p, out = passages, np.zeros((len(passages), len(PARTS)))
    t0 = p["readout_end_s"]
    before = np.maximum(t0, p["preloaded_s"])
    late_image = p["seen_s"] > p["preloaded_s"]

    def after(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        return np.asarray(np.maximum(end - np.maximum(begin, t0), 0.0))

    _add_calls(out, p, calls, late_image)
    preload = ~late_image
    wait = after(p["published_s"], p["taken_s"])
    again = p["attempts"] > 1
    out[:, PART["nextVisit"]] = np.where(preload, np.maximum(np.minimum(p["published_s"], p["preloaded_s"]) - t0, 0), 0)
    for name, chosen in (("another try", again), ("workers", ~again & p["capped"]),
                         ("start-up", ~again & ~p["capped"])):
        out[:, PART[name]] = np.where(preload & chosen, wait, 0.0)
    called = [PART[name] for name in ("registry queue", "registry", "storage queue", "storage", "ephemeris queue",
                                      "ephemeris")]
    apdb_before = _apdb_in_preload(p, calls, late_image)
    out[:, PART["preload"]] = np.where(preload, after(p["taken_s"], p["preloaded_s"]) - out[:, called].sum(axis=1)
                                       - apdb_before, 0.0)
    out[:, PART["image"]] = np.where(late_image, after(t0, p["seen_s"]), 0.0)
    out[:, PART["pixels"]] = after(np.maximum(p["seen_s"], before), p["measured_s"])
    services = out[:, [PART[f"{name}{kind}"] for name in ("apdb", "satellites") for kind in (" queue", "")]].sum(axis=1)
    out[:, PART["catalogue"]] = after(p["measured_s"], p["saved_s"]) - (services - apdb_before)
    out[:, PART["kafka"]] = after(p["saved_s"], p["sent_s"])
    out[~np.isfinite(p["delivered_s"])] = np.nan
    return np.asarray(np.where(np.abs(out) < 1e-6, 0.0, out))


def _of_attempt(p: np.ndarray, calls: np.ndarray) -> np.ndarray:
    """The calls of the attempts that passages are of, without exports, which nobody's alerts wait for."""
    known = calls[(calls["row"] >= 0) & (calls["step"] != CALL_STEPS.index("export"))]
    return np.asarray(known[known["message"] == p["message"][known["row"]]])


def _add_calls(out: np.ndarray, p: np.ndarray, calls: np.ndarray, late_image: np.ndarray) -> None:
    """Add every call's queue and service to its part, those of preload where it was waited for alone."""
    mine = _of_attempt(p, calls)
    rows, t0 = mine["row"], p["readout_end_s"][mine["row"]]
    counts = (mine["step"] > PRELOAD_STEPS) | ~late_image[rows]
    queue, served = (np.array([PART.get(f"{name}{kind}", 0) for name in CALL_SERVICES]) for kind in (" queue", ""))
    for column, begin, end in ((queue, "asked_s", "start_s"), (served, "start_s", "end_s")):
        spent = np.where(counts, np.maximum(mine[end] - np.maximum(mine[begin], t0), 0.0), 0.0)
        flat = rows.astype(np.int64) * len(PARTS) + column[mine["step"]]
        out += np.bincount(flat, spent, out.size).reshape(out.shape)


def _apdb_in_preload(p: np.ndarray, calls: np.ndarray, late_image: np.ndarray) -> np.ndarray:
    mine = _of_attempt(p, calls)
    early = mine[np.isin(mine["step"], [CALL_STEPS.index("objects"), CALL_STEPS.index("history")])]
    early = early[~late_image[early["row"]]]
    spent = np.maximum(early["end_s"] - np.maximum(early["asked_s"], p["readout_end_s"][early["row"]]), 0.0)
    return np.bincount(early["row"], spent, len(p))


def is_late(passages: np.ndarray, limit_s: float = LIMIT_S) -> np.ndarray:
    """(n,) bool: alerts delivered later than the limit after the end of readout, or never."""
    return np.asarray(~(passages["delivered_s"] - passages["readout_end_s"] <= limit_s) | (passages["reason"] != b""))


def causes(passages: np.ndarray, these: np.ndarray, reference: np.ndarray, holders: np.ndarray,
           limit_s: float = LIMIT_S) -> tuple[np.ndarray, np.ndarray]:
    """(cause, excess) of each detector-visit whose alerts are late or lost; b"" and NaN of the others.

    The cause is the part that took most longer than with no fault and unlimited workers (`these` against `reference`,
    both of `parts`), `workers` with what held them then (`holders`, of `held_by`); the reason where nothing was sent.
    Who is late there as well is late of itself: `itself:` and its longest part.
    """
    cause, excess = np.zeros(len(passages), "S24"), np.full(len(passages), np.nan)
    late = is_late(passages, limit_s) & (passages["n_alerts"] > 0)
    lost = late & (passages["reason"] != b"")
    cause[lost] = passages["reason"][lost]
    known = np.nan_to_num(reference)
    more = np.where(np.isfinite(these), these, 0.0) - known
    worst = np.argmax(more, axis=1)
    names = np.array([name.encode() for name in PARTS], "S24")
    itself = np.array([b"itself: " + name.encode() for name in PARTS], "S24")
    slow = known.sum(axis=1) > limit_s
    sent = late & ~lost
    cause[sent] = np.where(slow, itself[np.argmax(known, axis=1)], names[worst])[sent]
    excess[sent] = more[np.arange(len(more)), worst][sent]
    by_workers = sent & (cause == b"workers")
    cause[by_workers] = [b"workers: " + HELD[k].encode() for k in holders[by_workers].tolist()]
    return cause, excess


def held_by(passages: np.ndarray, reference: np.ndarray, bin_s: float = 20.0) -> np.ndarray:
    """(n,) which of HELD kept most more workers while each message waited than with no fault and unlimited workers."""
    end = float(np.nanmax(np.concatenate([passages["freed_s"], reference["freed_s"], [1.0]])))
    edges = np.arange(0.0, end + 2 * bin_s, bin_s)
    more = np.stack([busy(*span(passages, name), edges) - busy(*span(reference, name), edges) for name in HELD])
    summed = np.concatenate([np.zeros((len(HELD), 1)), np.cumsum(more, axis=1)], axis=1)
    low = np.clip((np.nan_to_num(passages["published_s"]) / bin_s).astype(int), 0, len(edges) - 2)
    high = np.clip((np.nan_to_num(passages["taken_s"]) / bin_s).astype(int) + 1, low + 1, len(edges) - 1)
    return np.asarray(np.argmax(summed[:, high] - summed[:, low], axis=0))


def span(passages: np.ndarray, activity: str) -> tuple[np.ndarray, np.ndarray]:
    """(begin, end) of an activity of HELD in every detector-visit that had it."""
    p = passages
    last = p["freed_s"]
    stations = {"preload": ("taken_s", "preloaded_s"), "image": ("preloaded_s", "seen_s"),
                "pixels": ("seen_s", "measured_s"), "catalogue": ("measured_s", "saved_s"),
                "export": ("saved_s", "freed_s")}
    begin, end = (p[name] for name in stations[activity])
    end = np.where(np.isfinite(end), end, last)      # cut short: until the worker was free
    known = np.isfinite(begin) & np.isfinite(end)
    return begin[known], np.maximum(end[known], begin[known])


def busy(begin: np.ndarray, end: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(len(edges) - 1,) mean number of the spans that are under way in each bin."""
    return np.asarray(np.diff(_area(begin, edges) - _area(end, edges)) / np.diff(edges))


def _area(begin: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Sum of max(0, t - begin) over all spans, at each time."""
    ordered = np.sort(begin)
    before = np.searchsorted(ordered, at)
    return np.asarray(before * at - np.concatenate([[0.0], np.cumsum(ordered)])[before])


__all__ = ["HELD", "LIMIT_S", "PART", "PARTS", "busy", "causes", "held_by", "is_late", "parts", "span"]
