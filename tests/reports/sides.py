"""Outcomes with known answers, row by row: what tests of a comparison change one side of."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from reports.outcome import Outcome
from reports.store import empty
from schemas.exposure import magnitudes

ERROR = 100.0                      # nJy, of every source
STEPS = ("calibrate", "warp", "subtract", "detect", "measure", "reliability", "filter", "reload", "associate", "save")


def outcome(visits: int = 4, sources: int = 40, *, seeds: Sequence[int] = (1,)) -> Outcome:
    """Every source of S/N 5 and above is found, the fainter are not; each visit has two false alerts and a detection
    that the reliability filter stopped.
    """
    keys = [(seed, 100 * seed + i) for seed in seeds for i in range(visits)]
    return Outcome(
        sources=np.concatenate([_sources(s, v, sources) for s, v in keys]),
        false=np.concatenate([_false(s, v) for s, v in keys]),
        forced=empty("outcome_forced"), stars=empty("outcome_star"),
        visits=_each("seed_exposure_log", keys, band=b"r", fidelity=b"pixels", status=b"done", nx=1000, ny=1000,
                     usable_px=1_000_000, readout_end_mjd_tai=61000.0),
        packets=_packets(keys, sources), steps=_steps(keys), traces=_traces(keys),
        facts={"scenario": "made", "kind": "simulated", "numpy": "2.0"})


def _each(table: str, keys: Sequence[tuple[int, int]], **values: Any) -> np.ndarray:
    rows = empty(table, len(keys))
    rows["seed"], rows["visit"] = np.array(keys).T
    rows["detector"] = 4
    for name, value in values.items():
        rows[name] = value
    return rows


def _sources(seed: int, visit: int, n: int) -> np.ndarray:
    rows = empty("outcome", n)
    number = np.arange(n)
    rows["seed"], rows["visit"], rows["detector"], rows["truthId"] = seed, visit, 4, 1000 * seed + number
    rows["kind"] = np.array([b"transient", b"transient", b"variable", b"asteroid"])[number % 4]
    rows["x"], rows["y"] = 20.0 + 90 * (number % 10), 50.0 + 90 * (number // 10)
    rows["ra"], rows["dec"] = 150 + rows["x"] / 18000, -30 + rows["y"] / 18000
    rows["snr"] = 3.0 + 27.0 * number / (n - 1)
    rows["flux"] = rows["science_flux"] = rows["snr"] * ERROR
    rows["magnitude"] = magnitudes(rows["flux"])
    hosted = number % 4 == 1
    rows["host_sep_arcsec"], rows["host_sb"] = np.where(hosted, 0.5, np.nan), np.where(hosted, 23.5, np.nan)
    rows["trail_length"], rows["ssObjectId"] = 0.0, np.where(number % 4 == 3, 7000 + number, 0)
    rows["judged"] = rows["isolated"] = rows["clean"] = True
    rows["mask_at"], rows["significance_at"] = 0, rows["snr"]
    rows["forced_flux"], rows["forced_flux_err"] = rows["flux"] + ERROR * np.sin(number), ERROR
    return found(rows, rows["snr"] >= 5)


def found(rows: np.ndarray, which: np.ndarray) -> np.ndarray:
    """The rows with chosen sources detected and published, the others missed at their significance."""
    out = rows.copy()
    out["raw"] = out["alert"] = which
    out["reason"] = [b"" if w else f"not detected: significance {s:.1f}".encode()
                     for w, s in zip(which, np.abs(rows["significance_at"]), strict=True)]
    static, number = out["kind"] != b"asteroid", np.arange(len(out))
    values = {"measured_id": number, "diaSourceId": out["visit"] * 100_000 + number,
              "diaObjectId": np.where(static, 10 * out["truthId"], 0),
              "found_ssObjectId": np.where(static, 0, out["ssObjectId"]), "found_snr": out["snr"],
              "psfFlux": out["forced_flux"], "psfFluxErr": ERROR, "dra": 0.02 * np.cos(number), "ddec": 0.01,
              "raErr": 0.02, "decErr": 0.02, "reliability": 0.9}
    blank = empty("outcome", 1)
    for name, value in values.items():
        out[name] = np.where(which, value, 0 if name in ("diaObjectId", "found_ssObjectId") else blank[name])
    out["associated"] = which
    return out


def _false(seed: int, visit: int) -> np.ndarray:
    rows = empty("outcome_false", 3)
    rows["seed"], rows["visit"], rows["detector"] = seed, visit, 4
    rows["x"], rows["y"], rows["snr"] = [500.0, 900.0, 700.0], [950.0, 960.0, 970.0], [9.0, 6.0, 12.0]
    rows["ra"], rows["dec"] = 150 + rows["x"] / 18000, -30 + rows["y"] / 18000 + 0.001 * (visit % 100)
    rows["cause"], rows["raw"] = [b"cosmic ray", b"noise", b"streak"], True
    rows["alert"], rows["reliability"] = [True, True, False], [0.8, 0.6, 0.2]
    rows["stage"], rows["reason"] = [b"", b"", b"reliability"], [b"", b"", b"reliability"]
    rows["measured_id"] = 500 + np.arange(3)
    rows["diaSourceId"], rows["diaObjectId"] = np.where(rows["alert"], visit * 100_000 + 500 + np.arange(3), -1), 0
    return rows


def _packets(keys: Sequence[tuple[int, int]], n: int) -> np.ndarray:
    rows = empty("seed_publication", len(keys) * n)
    rows["seed"], rows["visit"] = np.repeat(np.array(keys).T, n, axis=1)
    rows["detector"], rows["bytes"] = 4, 90_000
    rows["diaSourceId"] = np.arange(len(rows))
    rows["readout_end_mjd_tai"] = 61000.0
    rows["sent_mjd_tai"] = 61000.0 + (30 + np.arange(len(rows)) % 7) / 86400
    return rows


def _steps(keys: Sequence[tuple[int, int]]) -> np.ndarray:
    rows = np.concatenate([_each("seed_step", keys, name=name.encode(), size=1000, duration_s=0.1 * (k + 1),
                                 cpu_s=0.1 * (k + 1), peak_mb=300.0, measured=True) for k, name in enumerate(STEPS)])
    rows["cpu_s"] *= 1 + 0.01 * np.sin(np.arange(len(rows)))
    return rows


def _traces(keys: Sequence[tuple[int, int]]) -> np.ndarray:
    return np.concatenate([_each("seed_trace", keys, step=name.encode(), quantity=b"n", value=5.0 + k)
                           for k, name in enumerate(STEPS)])


def changed(side: Outcome, which: np.ndarray, **values: Any) -> Outcome:
    """The side with columns of chosen true sources set."""
    rows = side.sources.copy()
    for name, value in values.items():
        rows[name][which] = value
    return replace(side, sources=rows)


def without(side: Outcome, which: np.ndarray, reason: str, **values: Any) -> Outcome:
    """The side with chosen true sources neither detected nor published, for a reason of the closed list."""
    lost = found(side.sources, np.zeros(len(side.sources), bool))
    out = replace(side, sources=np.where(which, lost, side.sources))
    return changed(out, which, reason=reason.encode(), **values)


def traced(side: Outcome, *steps: str, visits: Sequence[int] = ()) -> Outcome:
    """The side with other numbers after the Steps named, in some visits or in all."""
    rows = side.traces.copy()
    rows["value"][np.isin(rows["step"], [s.encode() for s in steps])
                  & (np.isin(rows["visit"], visits) | (not visits))] *= 1.5
    return replace(side, traces=rows)
