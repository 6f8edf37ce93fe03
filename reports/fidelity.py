"""One fidelity against another: what rendered detectors measured, beside what drawn ones say that they would have.

    the same sky, visits and detectors in two runs: differences are those of the pixel half alone
    two sets of detectors of one run:               what their skies differ by is in the errors

Every figure has a standard error and fails beyond `LIMIT` of them. Sources seen in several visits are one case: errors
are those of sums over objects, in which what both sides share cancels.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from scipy import stats

from reports.match import Matches, match, pool
from reports.store import Store, StoreError

LIMIT: Final = 3.5             # sigmas; of 20 true figures one in a hundred comparisons has one beyond it
FAINT: Final = (3.0, 7.0)      # S/N at which the threshold decides
PULL_SNR: Final = 8.0          # pulls are those of brighter sources: selection has no say in them
WILD: Final = 5.0              # a pull beyond counts as this
REMOVED: Final = b"measure"    # stage of what the pixel half itself removes: it enters no filter, and counts nowhere
STAGES: Final = (b"quality", b"reliability", b"new_objects")


@dataclass(frozen=True, slots=True)
class Sample:
    """The detector-visits of one fidelity."""

    fidelity: str
    matches: Matches
    forced: np.ndarray         # FORCED_PULL
    packets: np.ndarray        # PACKET
    rejected: np.ndarray       # REJECTED: sky sources too


@dataclass(frozen=True, slots=True)
class Check:
    """A figure of two fidelities."""

    name: str
    measured: float
    modelled: float
    error: float               # of the difference
    sigmas: float              # the difference over its error; NaN: nothing to compare
    n: tuple[int, int]         # cases behind each

    @property
    def passed(self) -> bool:
        """Within the limit; what cannot be compared is no failure."""
        return not self.sigmas > LIMIT


FORCED_PULL: Final = np.dtype([("key", "i8"), ("pull", "f8")])
PACKET: Final = np.dtype([("key", "i8"), ("bytes", "f8")])
REJECTED: Final = np.dtype([("run", "i2"), ("visit", "i8"), ("detector", "i2"), ("stage", "S24"), ("reason", "S40")])


@dataclass(frozen=True, slots=True)
class Cases:
    """Values with the clusters that they belong to: a figure is sum(value) / sum(weight)."""

    key: np.ndarray
    value: np.ndarray
    weight: np.ndarray


def sample(stores: Sequence[Store], fidelity: str) -> Sample:
    """The detector-visits of one fidelity in some runs; StoreError where there are none."""
    parts = [match(store, run=run, fidelity=fidelity) for run, store in enumerate(stores)]
    if not sum(len(part.exposures) for part in parts):
        raise StoreError(f"{', '.join(str(store.folder) for store in stores)}: no detector-visit at fidelity "
                         f"{fidelity!r}")
    for store, part in zip(stores, parts, strict=True):
        if len(part.exposures) and part.kind != "simulated":
            raise StoreError(f"{store.folder}: fidelities are compared by simulated truth, this run has none")
    pairs = list(zip(stores, parts, range(len(parts)), strict=True))
    return Sample(fidelity, pool(parts), np.concatenate([_forced(*pair) for pair in pairs]),
                  np.concatenate([_packets(*pair) for pair in pairs]),
                  np.concatenate([_rejected(*pair) for pair in pairs]))


def compare(measured: Sample, modelled: Sample) -> list[Check]:
    """Every figure of two samples; they are paired where they are the same detector-visits."""
    both = (measured, modelled)
    number = _counted if paired(*both) else _by_detector
    out = [number("detections per detector-visit", *both, lambda s: s["stage"] != REMOVED)]
    out += [number("alerts per detector-visit", *both, lambda s: s["alert"]),
            number("new DIAObjects per detector-visit", *both, lambda s: (s["diaObjectId"] == s["id"])
                   & (s["diaObjectId"] > 0)),
            _events("sky sources per detector-visit", *both, lambda r: r["reason"] == b"sky_source")]
    out += [_events(f"rejected per detector-visit: {stage.decode()}", *both, partial(_of_stage, stage))
            for stage in STAGES]
    out += [_false("false detections per 10⁶ px", *both, lambda s: s["stage"] != REMOVED),
            _false("false alerts per 10⁶ px", *both, lambda s: s["alert"])]
    low, high = FAINT
    out += [_ratio(f"found, S/N {low:g} to {high:g}", *both, partial(_found, low, high)),
            _ratio(f"found, S/N above {high:g}", *both, partial(_found, high, np.inf)),
            _ratio(f"in alerts, S/N above {high:g}", *both, partial(_alerted, high)),
            _ratio("share of DIASources that are associated", *both, _associated),
            _distribution("S/N of DIASources", *both)]
    out += [_ratio("flux pulls: mean", *both, _flux_pulls), _spread("flux pulls: rms", *both, _flux_pulls),
            _spread("position pulls: rms", *both, _position_pulls),
            _ratio("forced flux pulls: mean", *both, _forced_pulls),
            _spread("forced flux pulls: rms", *both, _forced_pulls),
            _ratio("bytes of a packet", *both, _bytes)]
    return out


def paired(measured: Sample, modelled: Sample) -> bool:
    """Whether two samples are of the same detector-visits."""
    ours, theirs = (np.sort(_visit_keys(s.matches.exposures)) for s in (measured, modelled))
    return bool(np.array_equal(ours, theirs))


def losses(taken: Sample, snr: float = 6.0) -> dict[str, float]:
    """Why true sources above an S/N have no alert: how many per detector-visit, by reason."""
    m = taken.matches
    bright = np.abs(m.truth["snr"]) >= snr
    reasons = Counter(reason.decode().partition(":")[0] for reason in m.reasons[bright].tolist() if reason)
    return {name: n / len(m.exposures) for name, n in reasons.most_common()}


def lines(checks: Sequence[Check], measured: str = "pixels", modelled: str = "catalogue") -> list[str]:
    """A table of text."""
    width = max(len(check.name) for check in checks)
    out = [f"{'':{width}}  {measured:>10}  {modelled:>10}  {'±':>8}  sigmas"]
    for c in checks:
        verdict = "" if not np.isfinite(c.sigmas) else "pass" if c.passed else "FAIL"
        sigmas = f"{c.sigmas:6.1f}" if np.isfinite(c.sigmas) else "     -"
        numbers = f"{_short(c.measured):>10}  {_short(c.modelled):>10}  {_short(c.error):>8}"
        out.append(f"{c.name:{width}}  {numbers}  {sigmas}  {verdict}".rstrip())
    return out


def _short(value: float) -> str:
    if not np.isfinite(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 1 else f"{value:.3f}"


# --- rows ------------------------------------------------------------------------------------------------------------

def _keys(run: np.ndarray | int, *columns: np.ndarray) -> np.ndarray:
    """One integer of a run and columns: the same where they are."""
    out = np.asarray(run, np.int64)
    for column in columns:
        out = out * np.int64(1_000_003) + np.asarray(column, np.int64)     # wraps, and stays distinct in all likelihood
    return np.asarray(out)


def _visit_keys(log: np.ndarray) -> np.ndarray:
    return _keys(log["run"], log["visit"], log["detector"])


def _of_sample(rows: np.ndarray, found: Matches) -> np.ndarray:
    log = found.exposures
    return np.isin(_keys(0, rows["visit"], rows["detector"]), _keys(0, log["visit"], log["detector"]))


def _packets(store: Store, found: Matches, run: int) -> np.ndarray:
    """What was sent; the visit is a packet's cluster, whose seeing sets the side of PSF stamps."""
    sent = store.optional("publication")
    sent = sent[_of_sample(sent, found)]
    out = np.zeros(len(sent), PACKET)
    out["key"], out["bytes"] = _keys(run, sent["visit"]), sent["bytes"]
    return out


def _rejected(store: Store, found: Matches, run: int) -> np.ndarray:
    rows = store.optional("rejection")
    rows = rows[_of_sample(rows, found)]
    out = np.zeros(len(rows), REJECTED)
    out["run"] = run
    for name in ("visit", "detector", "stage", "reason"):
        out[name] = rows[name]
    return out


def _forced(store: Store, found: Matches, run: int) -> np.ndarray:
    """Forced fluxes of objects whose sources are those of one true point, against its flux at the time."""
    rows = store.optional("DiaForcedSource")
    rows = rows[_of_sample(rows, found)]
    real = (found.partner >= 0) & (found.sources["diaObjectId"] > 0)
    objects, first = np.unique(found.sources["diaObjectId"][real], return_index=True)
    if not len(objects) or not len(rows):
        return np.zeros(0, FORCED_PULL)
    names = found.truth["truthId"][found.partner[real][first]]
    at = np.minimum(np.searchsorted(objects, rows["diaObjectId"]), len(objects) - 1)
    known = (objects[at] == rows["diaObjectId"]) & np.isfinite(rows["psfFlux"]) & (rows["psfFluxErr"] > 0)
    rows, name = rows[known], names[at[known]]
    usable = found.truth[_points(found.truth) & found.judged]
    truth_keys = _keys(0, usable["visit"], usable["detector"], usable["truthId"])
    order = np.argsort(truth_keys)
    wanted = _keys(0, rows["visit"], rows["detector"], name)
    place = order[np.minimum(np.searchsorted(truth_keys[order], wanted), len(order) - 1)] if len(order) else order
    good = truth_keys[place] == wanted if len(order) else np.zeros(len(rows), bool)
    out = np.zeros(int(good.sum()), FORCED_PULL)
    out["key"] = _keys(run, name[good])
    out["pull"] = (rows["psfFlux"][good] - usable["flux"][place[good]]) / rows["psfFluxErr"][good]
    return out


def _points(truth: np.ndarray) -> np.ndarray:
    """Isolated sources that stay where they are."""
    return np.asarray(truth["isolated"] & ~np.isin(truth["kind"], [b"asteroid", b"moved_star"]))


# --- cases of a figure -----------------------------------------------------------------------------------------------

def _found(low: float, high: float, taken: Sample) -> Cases:
    m = taken.matches
    snr = np.abs(m.truth["snr"])
    chosen = (snr >= low) & (snr < high) & (m.truth["kind"] != b"moved_star")
    return Cases(_keys(m.truth["run"], m.truth["truthId"])[chosen], _entered(m)[chosen].astype(float),
                 np.ones(int(chosen.sum())))


def _entered(m: Matches) -> np.ndarray:
    """(n_truth,) bool: the source has a detection that entered the filters."""
    if not len(m.sources):
        return np.zeros(len(m.truth), bool)
    return np.asarray((m.found >= 0) & (m.sources["stage"][np.maximum(m.found, 0)] != REMOVED))


def _alerted(low: float, taken: Sample) -> Cases:
    m = taken.matches
    chosen = (np.abs(m.truth["snr"]) >= low) & (m.truth["kind"] != b"moved_star")
    return Cases(_keys(m.truth["run"], m.truth["truthId"])[chosen], m.alerted[chosen].astype(float),
                 np.ones(int(chosen.sum())))


def _associated(taken: Sample) -> Cases:
    sources = taken.matches.sources
    kept = sources["stage"] == b""
    new = (sources["diaObjectId"] == sources["id"]) & (sources["diaObjectId"] > 0)
    return Cases(_source_keys(taken)[kept], (~new)[kept].astype(float), np.ones(int(kept.sum())))


def _source_keys(taken: Sample) -> np.ndarray:
    """The true source of each detection; a false one stands for itself."""
    m = taken.matches
    own = -1 - np.arange(len(m.sources)) - (0 if taken.fidelity == "pixels" else 10**9)
    if not len(m.truth):
        return own
    real = _keys(m.truth["run"], m.truth["truthId"])[np.maximum(m.partner, 0)]
    return np.where(m.partner >= 0, real, own)


def _measured_points(taken: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of bright true points that became DIASources, and of their sources."""
    m = taken.matches
    good = (m.found >= 0) & _points(m.truth) & m.judged & (np.abs(m.truth["snr"]) >= PULL_SNR)
    t = np.flatnonzero(good)
    t = t[m.sources["stage"][m.found[t]] == b""] if len(m.sources) else t[:0]
    return _keys(m.truth["run"], m.truth["truthId"])[t], m.truth[t], m.sources[m.found[t]]


def _flux_pulls(taken: Sample) -> Cases:
    key, truth, sources = _measured_points(taken)
    return _pulls(key, (sources["psfFlux"] - truth["flux"]) / sources["psfFluxErr"])


def _position_pulls(taken: Sample) -> Cases:
    key, truth, sources = _measured_points(taken)
    log = taken.matches.exposures
    scales = dict(zip(_visit_keys(log).tolist(),
                      (log["fwhm_arcsec"] / (2.3548 * log["psf_sigma_px"])).tolist(), strict=True))
    scale = np.array([scales[k] for k in _keys(truth["run"], truth["visit"], truth["detector"]).tolist()])
    x = (sources["x"] - truth["x"]) * scale / (3600 * sources["raErr"])
    y = (sources["y"] - truth["y"]) * scale / (3600 * sources["decErr"])
    return _pulls(np.concatenate([key, key]), np.concatenate([x, y]))


def _forced_pulls(taken: Sample) -> Cases:
    return _pulls(taken.forced["key"], taken.forced["pull"])


def _pulls(key: np.ndarray, pull: np.ndarray) -> Cases:
    good = np.isfinite(pull)
    return Cases(key[good], np.clip(pull[good], -WILD, WILD), np.ones(int(good.sum())))


def _bytes(taken: Sample) -> Cases:
    return Cases(taken.packets["key"], taken.packets["bytes"], np.ones(len(taken.packets)))


def _of_stage(stage: bytes, rows: np.ndarray) -> np.ndarray:
    return np.asarray((rows["stage"] == stage) & (rows["reason"] != b"sky_source"))


# --- figures and their errors ----------------------------------------------------------------------------------------

Chooser = Callable[[np.ndarray], np.ndarray]


def _check(name: str, values: tuple[float, float], error: float, n: tuple[int, int]) -> Check:
    gap = abs(values[0] - values[1])
    sigmas = gap / error if error > 0 else (0.0 if gap == 0 else np.inf)
    return Check(name, *values, error, float(sigmas) if min(n) > 1 and np.isfinite(gap) else float("nan"), n)


def _clustered(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Standard error of a difference from each side's influences by cluster: what clusters share cancels."""
    keys = np.concatenate([key for key, _ in parts])
    signed = np.concatenate([influence * sign for (_, influence), sign in zip(parts, (1.0, -1.0), strict=True)])
    _, which = np.unique(keys, return_inverse=True)
    return float(np.sqrt(np.sum(np.bincount(which, signed) ** 2))) if len(keys) else 0.0


def _ratio(name: str, measured: Sample, modelled: Sample, of: Callable[[Sample], Cases]) -> Check:
    """A mean or a share: its error by the delta method, at least that of one case in all."""
    values, parts, n = [], [], []
    for cases in (of(measured), of(modelled)):
        total = max(float(cases.weight.sum()), 1.0)
        value = float(cases.value.sum()) / total if len(cases.value) else float("nan")
        values.append(value)
        parts.append((cases.key, (cases.value - np.nan_to_num(value) * cases.weight) / total))
        n.append(len(cases.value))
    largest = max((float(np.max(np.abs(influence), initial=0.0)) for _, influence in parts), default=0.0)
    return _check(name, (values[0], values[1]), max(_clustered(parts), largest), (n[0], n[1]))


def _spread(name: str, measured: Sample, modelled: Sample, of: Callable[[Sample], Cases]) -> Check:
    """The root mean square."""
    def squared(taken: Sample) -> Cases:
        cases = of(taken)
        return Cases(cases.key, cases.value**2, cases.weight)

    c = _ratio(name, measured, modelled, squared)
    roots = float(np.sqrt(c.measured)), float(np.sqrt(c.modelled))
    return _check(name, roots, c.error / max(sum(roots), 1e-12), c.n)


def _counted(name: str, measured: Sample, modelled: Sample, which: Chooser) -> Check:
    """Detections per detector-visit of the same detector-visits: by source, what both found cancels."""
    values, parts, n = [], [], []
    for taken in (measured, modelled):
        chosen, visits = which(taken.matches.sources), len(taken.matches.exposures)
        values.append(float(chosen.sum()) / visits)
        parts.append((_source_keys(taken)[chosen], np.full(int(chosen.sum()), 1.0 / visits)))
        n.append(visits)
    return _check(name, (values[0], values[1]), max(_clustered(parts), 1.0 / max(n)), (n[0], n[1]))


def _by_detector(name: str, measured: Sample, modelled: Sample, which: Chooser) -> Check:
    """The same of other detectors: what their skies differ by is the scatter between detectors of one side."""
    means, n = [], []
    for taken in (measured, modelled):
        log = taken.matches.exposures
        keys, visits = np.unique(_keys(log["run"], log["detector"]), return_counts=True)
        chosen = taken.matches.sources[which(taken.matches.sources)]
        here = np.searchsorted(keys, _keys(chosen["run"], chosen["detector"]))
        means.append(np.bincount(here, minlength=len(keys)) / visits)
        n.append(len(log))
    free = sum(map(len, means)) - 2
    if free < 1:
        return Check(name, float(means[0].mean()), float(means[1].mean()), float("nan"), float("nan"), (n[0], n[1]))
    variance = sum(float(np.sum((m - m.mean()) ** 2)) for m in means) / free
    error = np.sqrt(variance * sum(1 / len(m) for m in means)) * _student(free)
    return _check(name, (float(means[0].mean()), float(means[1].mean())), float(error), (n[0], n[1]))


def _student(free: int) -> float:
    """Factor on an error of so few degrees of freedom, that makes `LIMIT` as rare as a normal deviate's."""
    return float(stats.t.isf(stats.norm.sf(LIMIT), free) / LIMIT)


def _events(name: str, measured: Sample, modelled: Sample, which: Chooser) -> Check:
    """Rejections per detector-visit."""
    counts = [_per_visit(taken, taken.rejected[which(taken.rejected)]) for taken in (measured, modelled)]
    return _rate(name, counts, [1.0, 1.0])


def _false(name: str, measured: Sample, modelled: Sample, which: Chooser) -> Check:
    """False detections per 10^6 usable pixels."""
    counts = [_per_visit(taken, taken.matches.sources[taken.matches.false & which(taken.matches.sources)])
              for taken in (measured, modelled)]
    return _rate(name, counts, [taken.matches.megapixels / len(taken.matches.exposures)
                                for taken in (measured, modelled)])


def _per_visit(taken: Sample, rows: np.ndarray) -> np.ndarray:
    """How many rows each detector-visit has."""
    keys = np.sort(_visit_keys(taken.matches.exposures))
    return np.bincount(np.searchsorted(keys, _visit_keys(rows)), minlength=len(keys))


def _rate(name: str, counts: Sequence[np.ndarray], over: Sequence[float]) -> Check:
    """A mean number per detector-visit over something; its error is the scatter between detector-visits, which holds
    satellites and bleeding stars of many detections, and at least Poisson's of both together.
    """
    pooled = max(sum(float(n.sum()) for n in counts), 1.0) / sum(len(n) * o for n, o in zip(counts, over, strict=True))
    error = 0.0
    for n, o in zip(counts, over, strict=True):
        scatter = float(n.var(ddof=1)) / o**2 if len(n) > 1 else 0.0
        error += max(scatter, pooled / o) / len(n)
    return _check(name, (float(counts[0].mean()) / over[0], float(counts[1].mean()) / over[1]), float(np.sqrt(error)),
                  (max(int(counts[0].sum()), 2), max(int(counts[1].sum()), 2)))


def _distribution(name: str, measured: Sample, modelled: Sample) -> Check:
    """Kolmogorov-Smirnov: the distance of two distributions, each of as many cases as it has objects."""
    values, n, objects = [], [], []
    for taken in (measured, modelled):
        kept = taken.matches.sources["stage"] == b""
        values.append(np.abs(taken.matches.sources["snr"][kept].astype(float)))
        n.append(int(kept.sum()))
        objects.append(len(np.unique(_source_keys(taken)[kept])))
    if min(n) < 2:
        return Check(name, float("nan"), float("nan"), float("nan"), float("nan"), (n[0], n[1]))
    cases = n if paired(measured, modelled) else objects
    distance = float(stats.ks_2samp(*values).statistic)
    p = float(stats.kstwobign.sf(distance * np.sqrt(cases[0] * cases[1] / sum(cases))))
    sigmas = float(stats.norm.isf(max(p, 1e-300) / 2))
    return Check(name, float(np.median(values[0])), float(np.median(values[1])), float("nan"), sigmas, (n[0], n[1]))


__all__ = ["LIMIT", "REMOVED", "Check", "Sample", "compare", "lines", "losses", "paired", "sample"]
