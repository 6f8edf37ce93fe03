"""DIAObjects made twice by visits that overlap in time and on the sky, expected from when each read and saved.

Two visits race where each asked the database for objects before the other had saved its own. Then either opens a
DIAObject for a source that is new to both. Of the new objects of the first, the second sees those in the part of the
field of view that both cover: two discs of 9.6 square degrees. Sources that fade meanwhile and chip gaps are left out.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

RADIUS_DEG: Final = float(np.sqrt(9.6 / np.pi))     # of a disc as large as the field of view (LSST: 9.6 square degrees)


@dataclass(frozen=True, slots=True)
class Races:
    """What of a night's new DIAObjects is there twice."""

    duplicates: float          # expected
    same_field: float          # of them, by visits of the same field
    pairs: int                 # of visits that race and overlap
    objects: int               # new DIAObjects, the others
    alerts: int

    @property
    def per_alert(self) -> float:
        """Of all alerts, the share that opens a further DIAObject of its source."""
        return self.duplicates / max(self.alerts, 1)


def races(passages: np.ndarray, next_visits: np.ndarray) -> Races:
    """The races of a night whose passages of a visit lie together; its pointings are those that were announced.

    Detectors of two visits meet by chance, since cameras turn between visits.
    """
    p = passages
    saved, asked = np.where(np.isfinite(p["saved_s"]), p["saved_s"], np.inf), p["standardized_s"]
    starts = np.flatnonzero(np.concatenate([[True], p["visit"][1:] != p["visit"][:-1]])) if len(p) else np.zeros(0, int)
    groups = [g[np.isfinite(p["saved_s"][g])] for g in np.split(np.arange(len(p)), starts[1:])]
    number = {visit: k for k, visit in enumerate(next_visits["visit"].tolist())}
    where = [number.get(visit, -1) for visit in p["visit"][starts].tolist()]
    xyz = _unit(next_visits["ra"], next_visits["dec"])
    duplicates = same = 0.0
    pairs = 0
    for a, first in enumerate(groups):
        if not len(first) or where[a] < 0:
            continue
        last_save = saved[first].max()
        for b in range(a + 1, len(groups)):
            second = groups[b]
            if p["shutter_close_s"][starts[b]] >= last_save:
                break
            if not len(second) or where[b] < 0:
                continue
            common = overlap(_apart(xyz[where[a]], xyz[where[b]]))
            if common <= 0.0 or asked[second].min() >= last_save:
                continue
            met = _racing(asked[first], saved[first], asked[second], saved[second]) / _detectors(p, starts, b)
            made = common * float(p["n_fresh"][first] @ met)
            duplicates, pairs = duplicates + made, pairs + (made > 0)
            if p["field"][starts[a]] == p["field"][starts[b]]:
                same += made
    done = np.isfinite(p["saved_s"])
    return Races(duplicates, same, pairs, int(p["n_fresh"][done].sum()), int(p["n_alerts"][done].sum()))


def overlap(apart_deg: float) -> float:
    """Share of a field of view that another one covers whose centre is so far away.

    Examples
    --------
    >>> [round(overlap(apart), 3) for apart in (0.0, 1.748, 3.5)]
    [1.0, 0.391, 0.0]
    """
    half = apart_deg / (2 * RADIUS_DEG)
    if half >= 1.0:
        return 0.0
    return float(2 / np.pi * (np.arccos(half) - half * np.sqrt(1 - half**2)))


def _racing(asked: np.ndarray, saved: np.ndarray, other_asked: np.ndarray, other_saved: np.ndarray) -> np.ndarray:
    """How many of the others each races with: who asked before it saved, and saved after it asked."""
    after = len(other_asked) - np.searchsorted(np.sort(other_asked), saved, side="left")
    before = np.searchsorted(np.sort(other_saved), asked, side="right")
    return np.asarray(len(other_asked) - after - before, float)


def _detectors(p: np.ndarray, starts: np.ndarray, k: int) -> int:
    end = starts[k + 1] if k + 1 < len(starts) else len(p)
    return int(end - starts[k])


def _unit(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """Degrees between two unit vectors."""
    return float(2 * np.degrees(np.arcsin(min(float(np.linalg.norm(a - b)) / 2, 1.0))))


__all__ = ["Races", "overlap", "races"]
