"""Counts fidelity: how many sources each detector has, what becomes of them, and what its Steps take. No source exists.

The law of the numbers is fitted to the catalogue fidelity (`twin.counts_fit`), the seconds are drawn from a cost table.
Everything is keyed by seed and visit, so that a night of other machines, faults or length has the same numbers.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np

from pipeline.errors import InputError
from schemas.measures import WORK, WORK_STEPS
from simulators.streams import stream
from twin.costs import CostTable
from twin.plan import Plan
from twin.platform_config import Fraction, NotNegative, Positive
from twin.scenario import Scenario

FILTERS: Final = ("satellites", "quality", "reliability", "new_objects")   # in the order of the pipeline

NUMBERS: Final = np.dtype([
    ("n_detected", "i4"), ("n_satellites", "i4"), ("n_quality", "i4"), ("n_reliability", "i4"),
    ("n_new_objects", "i4"), ("n_alerts", "i4"), ("n_fresh", "i4"), ("n_objects", "i4"), ("n_history", "i4"),
    ("bytes", "i8")])


class CountsModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The law of a detector's numbers.

    Detections are Poisson about a mean that scatters between fields (lognormal) and detectors (gamma): a negative
    binomial in one field. Each filter takes its share of what the one before left.
    """

    source: str
    law: Literal["drawn", "constant"] = "drawn"     # constant: means, rounded
    detected: NotNegative = 0.0           # mean of the sample it was fitted to; a scenario says how many alerts it has
    visit_spread: NotNegative = 0.0       # of ln of the density, between fields
    detector_shape: NotNegative = 0.0     # of the gamma between detectors; 0: they are alike
    satellites: Fraction = 0.0            # shares
    quality: Fraction = 0.0
    reliability: Fraction = 0.0
    new_objects: Fraction = 0.0
    fresh: Fraction = 0.1                 # of alerts, in DIAObjects that they open
    objects_per_alert: NotNegative = 2.0  # DIAObjects that preload finds
    history_per_object: NotNegative = 10.0
    alert_bytes: Positive = 80_000.0      # of a packet (DMTN-102: 82 kB)
    alert_bytes_spread: NotNegative = 0.0   # of ln of a detector's mean

    @property
    def kept(self) -> float:
        """Share of detections that become alerts."""
        return float(np.prod([1.0 - getattr(self, name) for name in FILTERS]))


def read_model(path: Path) -> CountsModel:
    """The model of a file; InputError names the file and the key."""
    try:
        model = msgspec.convert(tomllib.loads(path.read_text()), CountsModel, strict=False)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InputError(f"counts model {path}: {error}") from None
    if model.kept <= 0:
        raise InputError(f"counts model {path}: its filters leave no alerts")
    return model


def draw_numbers(model: CountsModel, alerts: float, density: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """NUMBERS of `n` detectors of one visit whose field has `density` times the mean of `alerts` per detector."""
    rows = np.zeros(n, NUMBERS)
    mean = np.full(n, alerts * density / model.kept)
    if model.law == "constant":
        return _constant(model, rows, mean)
    if model.detector_shape:
        mean = mean * rng.gamma(model.detector_shape, 1.0 / model.detector_shape, n)
    rows["n_detected"] = left = rng.poisson(mean)
    for name in FILTERS:
        rows[f"n_{name}"] = taken = rng.binomial(left, getattr(model, name))
        left = left - taken
    rows["n_alerts"] = left
    rows["n_fresh"] = rng.binomial(left, model.fresh)
    rows["n_objects"] = rng.poisson(left * model.objects_per_alert)
    rows["n_history"] = rng.poisson(rows["n_objects"] * model.history_per_object)
    spread = model.alert_bytes_spread
    rows["bytes"] = left * model.alert_bytes * np.exp(spread * rng.normal(size=n) - 0.5 * spread**2)
    return rows


def _constant(model: CountsModel, rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
    rows["n_detected"] = left = np.rint(mean).astype(int)
    for name in FILTERS:
        rows[f"n_{name}"] = taken = np.rint(left * getattr(model, name)).astype(int)
        left = left - taken
    rows["n_alerts"], rows["n_fresh"] = left, np.rint(left * model.fresh)
    rows["n_objects"] = np.rint(left * model.objects_per_alert)
    rows["n_history"] = np.rint(rows["n_objects"] * model.history_per_object)
    rows["bytes"] = left * model.alert_bytes
    return rows


@dataclass(frozen=True, slots=True)
class Numbers:
    """A whole night, detectors of a visit one after the other."""

    counts: np.ndarray         # (visits x detectors,) NUMBERS
    work: np.ndarray           # (visits x detectors, len(WORK_STEPS)) float32 [s]
    scatter: np.ndarray        # the same over what the cost table's line says; 1 where that is nothing
    transfer_s: np.ndarray     # (visits x detectors,) float64, camera to bucket
    no_template: np.ndarray    # (visits,) bool


def draw_night(scenario: Scenario, plan: Plan, model: CountsModel, costs: CostTable,
               bursts: np.ndarray | None = None) -> Numbers:
    """The numbers of a night; `bursts` (visits,) multiplies the alerts of single visits."""
    c, seed, n = scenario.counts, scenario.seed, scenario.counts.detectors
    factors = np.ones(len(plan)) if bursts is None else bursts
    densities = {field: _density(model, seed, field) for field in np.unique(plan.field).tolist()}
    counts = np.zeros(len(plan) * n, NUMBERS)
    work = np.zeros((len(plan) * n, len(WORK_STEPS)), np.float32)
    scatter = np.ones_like(work)
    transfer = np.zeros(len(plan) * n)
    spread, snaps = scenario.platform.front.transfer_spread, max(scenario.platform.front.nimages, 1)
    for i, (visit, field) in enumerate(zip(plan.visit.tolist(), plan.field.tolist(), strict=True)):
        rows = slice(i * n, (i + 1) * n)
        rng = stream(seed, "counts", visit)
        counts[rows] = draw_numbers(model, c.alerts_per_visit / n * factors[i], densities[field], n, rng)
        sizes = step_sizes(counts[rows], c.pixels)
        rng = stream(seed, "costs", visit)
        for k, name in enumerate(WORK_STEPS):
            times = snaps if name == "isr" else 1
            work[rows, k] = costs.sample(name, sizes[name], rng) * times
            np.divide(work[rows, k], costs.line(name, sizes[name]), out=scatter[rows, k], where=work[rows, k] > 0)
        transfer[rows] = scenario.platform.transfer_s * np.exp(spread * rng.normal(size=n) - 0.5 * spread**2)
    missing = [stream(seed, "template", field).random() < c.template_missing for field in plan.field.tolist()]
    return Numbers(counts, work, scatter, transfer, np.array(missing, bool))


def _density(model: CountsModel, seed: int, field: int) -> float:
    spread = 0.0 if model.law == "constant" else model.visit_spread
    return float(np.exp(spread * stream(seed, "density", field).normal() - 0.5 * spread**2))


def step_sizes(rows: np.ndarray, pixels: int) -> dict[str, np.ndarray]:
    """What each Step's cost grows with, per detector, as the pipeline announces it."""
    one, image = np.ones(len(rows)), np.full(len(rows), float(pixels))
    detected, alerts, objects = rows["n_detected"], rows["n_alerts"], rows["n_objects"]
    sources = alerts + rows["n_new_objects"]
    return {
        "registry": one, "templates": one, "calibs": one, "objects": objects, "history": rows["n_history"],
        "ephemerides": 0.1 * detected,      # known asteroids: fewer than a tenth of detections, assumed
        "isr": image, "calibrate": image, "warp": image, "subtract": image, "detect": image,
        "measure": detected, "cutouts": detected, "reliability": detected,
        "satellites": detected, "filter": detected, "transform": sources, "reload": objects, "associate": sources,
        "statistics": alerts, "forced": objects, "package": rows["bytes"], "save": 2 * alerts + objects,
        "send": rows["bytes"], "export": one}


def work_rows(plan: Plan, numbers: Numbers, detectors: int) -> np.ndarray:
    """WORK rows of a night."""
    out = np.zeros(len(numbers.work), WORK)
    out["visit"], out["detector"] = np.repeat(plan.visit, detectors), np.tile(np.arange(detectors), len(plan))
    for k, name in enumerate(WORK_STEPS):
        out[name] = numbers.work[:, k]
    return out


__all__ = ["FILTERS", "NUMBERS", "CountsModel", "Numbers", "draw_night", "draw_numbers", "read_model", "step_sizes",
           "work_rows"]
