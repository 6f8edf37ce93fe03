"""A night of a whole survey by truth: a million alerts matched at once, and what became of them.

`reports.match` explains every loss and every false detection, detector-visit by detector-visit; here are alerts alone,
paired with true sources by the same rule, nearest first and of one sign.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from reports.association import Association, association
from reports.intervals import Estimate
from reports.match import BRIGHT_SNR, FAINT_SNR, RADIUS_PX, Matches, blank_sources, with_run
from reports.store import Store

APART_PX = 1e5                 # between detector-visits, laid side by side
NEIGHBOURS = 6                 # true sources near an alert that are looked at


@dataclass(frozen=True, slots=True)
class WideNight:
    """Figures of a survey night."""

    visits: int
    detector_visits: int
    alerts: int
    wanted_per_visit: float    # NaN where the run does not say
    explained: int             # alerts of a true source
    association: Association

    @property
    def per_visit(self) -> float:
        """Alerts of a visit in the mean."""
        return self.alerts / max(self.visits, 1)

    def lines(self) -> list[str]:
        """What there is to say, a figure each."""
        a = self.association
        asked = (f", {100 * (self.per_visit / self.wanted_per_visit - 1):+.1f} % from the {self.wanted_per_visit:,.0f} "
                 "asked for" if self.wanted_per_visit > 0 else "")
        return [f"{self.visits} visits, {self.detector_visits} detector-visits, {self.alerts} alerts: "
                f"{self.per_visit:.1f} per visit{asked}",
                f"{self.explained} alerts are of true sources, {self.alerts - self.explained} are false",
                f"alerts of static sources in the right DIAObject: {_share(a.static)}",
                f"  in the main DIAObject of their source (completeness): {_share(a.complete)}",
                f"  in a DIAObject that is mainly their source's (purity): {_share(a.pure)}",
                f"duplicate DIAObjects: {a.duplicates} of {a.sources} static sources "
                f"({100 * a.duplicates / max(a.sources, 1):.3f} per 100)",
                f"DIAObjects that hold two true sources: {a.merged} of {a.objects}",
                f"alerts of known asteroids with the right ssObjectId: {_share(a.solar_system)}",
                f"alerts of static sources with an ssObjectId: {_share(a.wrong_solar_system)}"]


def wide_night(store: Store) -> WideNight:
    """The figures of a run."""
    matches, log = match_alerts(store), store.optional("exposure_log")
    wanted = store.facts().get("alerts_per_visit", "nan")
    done = log[log["status"] == b"done"]
    return WideNight(len(np.unique(log["visit"])), len(done), int(matches.sources["alert"].sum()), float(wanted),
                     int(np.sum(matches.partner >= 0)), association(matches))


def match_alerts(store: Store, *, run: int = 0) -> Matches:
    """A run's DIASources with their true sources; no causes and no reasons."""
    given, truth = store.optional("DiaSource"), store.optional("truth")
    truth = with_run(truth[np.abs(truth["snr"]) >= FAINT_SNR], run)
    sources = blank_sources(len(given))
    for name in ("visit", "detector", "diaObjectId", "ssObjectId", "midpointMjdTai", "x", "y", "ra", "dec", "snr",
                 "psfFlux", "reliability", "isNegative"):
        sources[name] = given[name]
    sources["run"], sources["id"], sources["raw"], sources["alert"] = run, given["diaSourceId"], True, True
    if store.has("publication"):
        sources["alert"] = np.isin(given["diaSourceId"], store.table("publication")["diaSourceId"])
    found, partner = paired(truth, sources)
    return Matches(truth, sources, with_run(store.optional("exposure_log"), run), found, partner,
                   np.zeros(len(sources), "S24"), np.zeros(len(truth), "S64"), "simulated" if len(truth) else "none")


def paired(truth: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each other's rows, -1 for none: nearest first, of one sign, bright true sources before faint ones."""
    found, partner = np.full(len(truth), -1), np.full(len(sources), -1)
    if not len(truth) or not len(sources):
        return found, partner
    source, of, gap = _candidates(truth, sources)
    bright = (np.abs(truth["snr"]) >= BRIGHT_SNR) | (np.nan_to_num(truth["trail_length"]) > 0)
    for wanted in (True, False):
        keep = bright[of] == wanted
        i, j, distance = source[keep], of[keep], gap[keep]
        while len(i):                                      # in each round those that are each other's nearest
            free = (partner[i] < 0) & (found[j] < 0)
            i, j, distance = i[free], j[free], distance[free]
            order = np.argsort(distance, kind="stable")
            i, j, distance = i[order], j[order], distance[order]
            mutual = _first(i) & _first(j)
            partner[i[mutual]], found[j[mutual]] = j[mutual], i[mutual]
    return found, partner


def _first(keys: np.ndarray) -> np.ndarray:
    """(n,) bool: no earlier row has the key."""
    out = np.zeros(len(keys), bool)
    out[np.unique(keys, return_index=True)[1]] = True
    return out


def _candidates(truth: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(source, truth, distance [pixel]) of pairs within reach and of one sign."""
    keys = [rows["visit"].astype(np.int64) * 1000 + rows["detector"] for rows in (truth, sources)]
    _, place = np.unique(np.concatenate(keys), return_inverse=True)
    there, here = place[:len(truth)], place[len(truth):]
    tree = cKDTree(np.stack([truth["x"] + APART_PX * there, truth["y"]], axis=1))
    length = np.nan_to_num(truth["trail_length"].astype(float))
    reach = RADIUS_PX + length.max() / 2
    _, near = tree.query(np.stack([sources["x"] + APART_PX * here, sources["y"]], axis=1), k=NEIGHBOURS,
                         distance_upper_bound=reach)
    i, k = np.nonzero(near < len(truth))
    j = near[i, k]
    angle = np.radians(np.nan_to_num(truth["trail_angle"].astype(float)[j]))
    dx, dy = sources["x"][i] - truth["x"][j], sources["y"][i] - truth["y"][j]
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    gap = np.hypot(np.maximum(np.abs(along) - length[j] / 2, 0.0), across)
    same = (np.sign(truth["flux"][j]) == np.sign(sources["psfFlux"][i])) | (truth["flux"][j] == 0)
    keep = same & (gap <= RADIUS_PX)
    return i[keep], j[keep], gap[keep]


def _share(e: Estimate) -> str:
    return f"{100 * e.value:.3f} % ({100 * e.low:.3f} to {100 * e.high:.3f}) of {e.n}" if e.n else "none"


__all__ = ["WideNight", "match_alerts", "paired", "wide_night"]
