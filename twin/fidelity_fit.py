"""The model of catalogue fidelity, fitted to what runs with rendered detectors found of the truth.

    RUN: truth, DiaSource, rejection, scenario.toml -> FOUND rows -> simulators.catalogs.fit
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from pipeline.errors import InputError
from reports.fidelity import REMOVED
from reports.match import Matches, match
from reports.store import Store, groups
from simulators.catalogs import FALSE, FOUND, CatalogModel, fit, trail_loss, trail_power
from twin.halves import observatory
from twin.observatory import Observatory
from twin.prefill import set_errors
from twin.scenario import read_scenario


def fit_runs(folders: Sequence[Path]) -> CatalogModel:
    """The model of the rendered detectors of runs; InputError where they have too little to fit."""
    parts, false, megapixels, visits, names, seeds = [], [], 0.0, 0, [], []
    for folder in folders:
        found = match(Store(folder), fidelity="pixels")
        if not len(found.exposures) or not (folder / "scenario.toml").is_file():
            raise InputError(f"{folder}: no rendered detectors, and the model is fitted to what was found on them")
        here, scenario = observatory(folder, None), read_scenario(folder / "scenario.toml")
        parts.append(found_rows(found, here))
        false.append(false_rows(found, visits))
        megapixels += found.megapixels
        visits += len(found.exposures)
        names.append(scenario.name)
        seeds.append(scenario.seed)
    rows = np.concatenate(parts)
    source = (f"{', '.join(dict.fromkeys(names))}, seeds {' '.join(map(str, sorted(seeds)))}: {len(rows)} true "
              f"sources, {int(rows['found'].sum())} of them found, {megapixels:.0f} megapixels")
    try:
        return fit(rows, np.concatenate(false), megapixels, visits, CatalogModel(source=source))
    except ValueError as error:
        raise InputError(f"{', '.join(map(str, folders))}: {error}") from None


def found_rows(matches: Matches, here: Observatory) -> np.ndarray:
    """FOUND rows of matched detector-visits; their errors are those that drawn ones of the same sky would have."""
    visits = {visit.visit: visit for visit in here.visits}
    logs = {(int(row["visit"]), int(row["detector"])): row for row in matches.exposures}
    out = [np.zeros(0, FOUND)]
    for (visit, detector), index in groups(matches.truth["visit"], matches.truth["detector"]):
        facts = here.facts(visits[visit], detector)
        truth = matches.truth[index].copy()
        set_errors(here, facts, truth, here.inputs(visits[visit].band))
        kept = (truth["kind"] != b"moved_star") & np.isfinite(truth["snr"])
        out.append(_rows(truth[kept], matches, index[kept], facts.psf_sigma_px, logs[visit, detector]))
    return np.concatenate(out)


def false_rows(matches: Matches, first: int) -> np.ndarray:
    """FALSE rows of matched detector-visits, those counted from `first`."""
    log, sources = matches.exposures, matches.sources[matches.false & (matches.sources["stage"] != REMOVED)]
    numbers = {(int(row["visit"]), int(row["detector"])): first + i for i, row in enumerate(log)}
    out = np.zeros(len(sources), FALSE)
    out["visit"] = [numbers[key] for key in zip(sources["visit"].tolist(), sources["detector"].tolist(), strict=True)]
    out["reliability"], out["flagged"] = sources["reliability"], sources["stage"] == b"quality"
    return out


def _rows(truth: np.ndarray, matches: Matches, index: np.ndarray, sigma: float, log: np.void) -> np.ndarray:
    rows = np.zeros(len(truth), FOUND)
    length = truth["trail_length"]
    for name in ("x", "y", "flux"):
        rows[name] = truth[name]
    rows["error"] = truth["flux_err_optimum"] * np.sqrt(trail_power(length, sigma))
    rows["snr"] = truth["flux"] * trail_loss(length, sigma) / rows["error"]
    x, y = truth["x"] + 0.5, truth["y"] + 0.5
    rows["edge_px"] = np.min([x, y, log["nx"] - x, log["ny"] - y], axis=0)
    rows["sigma_px"], rows["clear"] = sigma, truth["input_mask"] == 0
    rows["point"] = truth["isolated"] & (length < 0.5)
    j = matches.found[index]
    if len(matches.sources):
        rows["found"] = (j >= 0) & (matches.sources["stage"][np.maximum(j, 0)] != REMOVED)
        sources = matches.sources[np.maximum(j, 0)]
        rows["flagged"] = rows["found"] & (sources["stage"] == b"quality")
        for name, column in (("measured_x", "x"), ("measured_y", "y"), ("psfFlux", "psfFlux"),
                             ("psfFluxErr", "psfFluxErr"), ("reliability", "reliability")):
            rows[name] = np.where(rows["found"], sources[column], np.nan)
    return rows


def to_text(model: CatalogModel) -> str:
    """The model's numbers, one a line."""
    return "\n".join(f"{field.name} = {_shown(getattr(model, field.name))}" for field in fields(model))


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(f'{v:.4g}' for v in value)})"
    return f'"{value}"' if isinstance(value, str) else f"{value:.4g}"


__all__ = ["false_rows", "fit_runs", "found_rows", "to_text"]
