"""Cutout triplets: science, template and difference of sources found, missed and false."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib import image

from reports.match import Matches
from reports.store import Store, groups

GROUPS: Final = ("found", "missed", "false")
PER_GROUP: Final = 8
PER_FIELD: Final = 60              # detections of a real field that were not injected
ZOOM: Final = 2                    # screen pixels per image pixel
GAP: Final = 3                     # pixels between the planes of a triplet
NO_DATA_COLOUR: Final = (205, 216, 228)
TICK_COLOUR: Final = (217, 131, 36)


@dataclass(frozen=True, slots=True)
class Triplet:
    """Three stamps side by side, with what is known of the source."""

    group: str                 # found | missed | false
    source: str                # data:image/png;base64,...
    title: str
    lines: tuple[str, ...]
    snr: float


def gallery(store: Store, matches: Matches) -> list[Triplet]:
    """Up to `PER_GROUP` triplets of each group: found over the range of S/N, the brightest missed, the false by S/N."""
    index = store.optional("stamp")
    chosen = [*_true(index, matches), *_false(index, matches)]
    out = []
    for group in GROUPS:
        rows = sorted((c for c in chosen if c.group == group), key=lambda c: (-c.snr, c.row))
        limit = PER_FIELD if group == "false" and matches.kind != "simulated" else PER_GROUP
        out += [made for c in _sample(rows, limit, spread=group == "found")
                if (made := _triplet(store, index, c)) is not None]
    return out


def appearance(source: np.void) -> str:
    """What a detection of unknown nature looks like, from its measurements alone."""
    sign = "negative" if source["isNegative"] else "positive"
    if source["isDipole"]:
        return "dipole"
    static = source["templateFlux"] > 5 * np.fmax(source["templateFluxErr"], source["psfFluxErr"])
    return f"{sign}, on a static source" if static else f"{sign}, no static source"


def evidence(source: np.void, epochs: int) -> str:
    """The measurements that speak for it."""
    parts = [f"{epochs} epoch{'s' if epochs != 1 else ''} of its DIAObject"] if source["diaObjectId"] > 0 else []
    if source["templateFluxErr"] > 0:
        parts.append(f"template S/N {float(source['templateFlux'] / source['templateFluxErr']):.0f}")
    return "; ".join([*parts, f"reliability {float(source['reliability']):.2f}"])


@dataclass(frozen=True, slots=True)
class _Choice:
    group: str
    row: int                   # of STAMP
    snr: float
    title: str
    lines: tuple[str, ...]


def _sample(rows: Sequence[_Choice], limit: int, spread: bool) -> list[_Choice]:
    if len(rows) <= limit or not spread:
        return list(rows[:limit])
    return [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, limit).astype(int))]


def _true(index: np.ndarray, matches: Matches) -> list[_Choice]:
    """Stamps of true sources, found or missed."""
    rows = np.flatnonzero(index["kind"] == b"truth")
    truth = {(int(t["visit"]), int(t["detector"]), int(t["truthId"])): i for i, t in enumerate(matches.truth)}
    judged, alerted = matches.judged, matches.alerted
    out = []
    for row in rows:
        i = truth.get((int(index["visit"][row]), int(index["detector"][row]), int(index["truthId"][row])), -1)
        if i < 0 or not (judged[i] or matches.truth["kind"][i] == b"moved_star"):
            continue
        t, snr = matches.truth[i], float(np.nan_to_num(np.abs(matches.truth["snr"][i])))
        lines = [f"true S/N {snr:.1f}", f"visit {int(t['visit'])}"]
        if alerted[i]:
            s = matches.sources[matches.found[i]]
            lines.append(f"measured S/N {float(s['snr']):.1f}, reliability {float(s['reliability']):.2f}")
        else:
            lines.append(matches.reasons[i].decode() or "no reason")
        out.append(_Choice("found" if alerted[i] else "missed", int(row), snr, t["kind"].decode().replace("_", " "),
                           tuple(lines)))
    return out


def _false(index: np.ndarray, matches: Matches) -> list[_Choice]:
    """Stamps of detections that no true source explains; alerts first."""
    rows = np.flatnonzero(index["kind"] == b"source")
    false = matches.false & matches.sources["raw"]
    by_key = {key: of[false[of]] for key, of in groups(matches.sources["visit"], matches.sources["detector"])}
    out = []
    for row in rows:
        of = by_key.get((int(index["visit"][row]), int(index["detector"][row])), np.zeros(0, int))
        gap = np.hypot(matches.sources["x"][of] - index["x"][row], matches.sources["y"][of] - index["y"][row])
        if not len(of) or not gap.min() < 0.05:
            continue
        j = of[gap.argmin()]
        s = matches.sources[j]
        fate = "alert" if s["alert"] else f"rejected: {s['reason'].decode() or s['stage'].decode()}"
        snr = float(np.nan_to_num(np.abs(s["snr"])))
        title = matches.causes[j].decode()
        lines = (f"measured S/N {snr:.1f}, reliability {float(s['reliability']):.2f}", f"visit {int(s['visit'])}", fate)
        if matches.kind != "simulated":
            epochs = int(np.sum(matches.sources["diaObjectId"] == s["diaObjectId"]))
            title = appearance(s)
            lines = (f"S/N {snr:.1f} at {s['ra']:.5f}, {s['dec']:+.5f}", evidence(s, epochs),
                     f"visit {int(s['visit'])}: {fate}")
        out.append(_Choice("false", int(row), snr + (1e6 if s["alert"] else 0), title, lines))
    return out


def _triplet(store: Store, index: np.ndarray, choice: _Choice) -> Triplet | None:
    row = index[choice.row]
    stamps = store.stamps(int(row["visit"]), int(row["detector"]))
    if not 0 <= row["index"] < len(stamps):
        return None
    return Triplet(choice.group, picture(stamps[int(row["index"])]), choice.title, choice.lines, choice.snr % 1e6)


def picture(planes: np.ndarray, *, zoom: int = ZOOM, like: np.ndarray | None = None, centre: bool = False) -> str:
    """Three stamps as one PNG in a data URI: science and template on one scale, the difference on its own.

    `like` is another triplet whose scales are taken, so that two sides can be compared; `centre` marks the middle by
    ticks at the border.
    """
    scales = [_level(np.asarray(p, float)) for p in (planes if like is None else like)]
    noise = scales[2][1]
    parts = []
    for plane, (level, own) in zip(planes[:2], scales[:2], strict=True):
        parts.append(_grey(np.arcsinh((np.asarray(plane, float) - level) / max(own, noise) / 2), -1.0, 3.2))
    parts.append(_grey(np.asarray(planes[2], float) / noise, -7.0, 7.0))
    if centre:
        parts = [_ticked(part) for part in parts]
    gap = np.full((parts[0].shape[0], GAP, 3), 255, np.uint8)
    row = np.concatenate([parts[0], gap, parts[1], gap, parts[2]], axis=1)[::-1]
    buffer = io.BytesIO()
    image.imsave(buffer, np.repeat(np.repeat(row, zoom, 0), zoom, 1), format="png", pil_kwargs={"optimize": False})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _ticked(rgb: np.ndarray) -> np.ndarray:
    """The picture with short ticks that point to its middle pixel from each side."""
    out, (ny, nx) = rgb.copy(), rgb.shape[:2]
    for rows, columns in ((slice(0, 5), nx // 2), (slice(ny - 5, ny), nx // 2), (ny // 2, slice(0, 5)),
                          (ny // 2, slice(nx - 5, nx))):
        out[rows, columns] = TICK_COLOUR
    return out


def _level(plane: np.ndarray) -> tuple[float, float]:
    """Median, and noise from the median absolute deviation."""
    known = plane[np.isfinite(plane)]
    if not len(known):
        return 0.0, 1.0
    middle = float(np.median(known))
    return middle, max(1.4826 * float(np.median(np.abs(known - middle))), 1e-12)


def _grey(values: np.ndarray, low: float, high: float) -> np.ndarray:
    known = np.isfinite(values)
    tone = np.clip((np.where(known, values, low) - low) / (high - low), 0.0, 1.0)
    rgb = np.repeat((255 * tone).astype(np.uint8)[..., None], 3, axis=2)
    rgb[~known] = NO_DATA_COLOUR
    return rgb
