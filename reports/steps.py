"""CPU time and memory by Step, and how well the fitted costs predict them."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from reports.drawing import BLUE, MUTED, WARM, nothing, panels, styled
from reports.store import groups

STEP_COST: Final = np.dtype([
    ("name", "S24"), ("n", "i8"), ("size", "f8"), ("cpu_s", "f8"), ("cpu_p95_s", "f8"), ("peak_mb", "f8"),
    ("total_cpu_s", "f8"), ("total_predicted_s", "f8"),
    ("residual", "f8"), ("scatter", "f8")])   # median and spread of ln(predicted / measured); NaN if not both known


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Work of one run, and its prediction by the cost table."""

    rows: np.ndarray           # STEP_COST by total CPU time, largest first
    measured_s: float          # CPU of Steps with both figures
    predicted_s: float         # their predicted duration, free of the stated factor
    has_predictions: bool


def step_costs(steps: np.ndarray, factor: float = 1.0) -> StepCosts:
    """Summarise STEP rows; `factor` is what scaled fitted CPU seconds to simulated durations, NaN for a run on the
    wall clock, whose durations predict nothing.
    """
    work = steps[steps["measured"] & np.isfinite(steps["cpu_s"]) & (steps["cpu_s"] >= 0)]
    simulated = np.full(len(work), np.isfinite(factor))
    out = []
    for (name,), index in groups(work["name"]):
        rows = work[index]
        cpu, both = rows["cpu_s"], simulated[index] & (rows["cpu_s"] > 0) & (rows["duration_s"] > 0)
        ratio = np.log(rows["duration_s"][both] / factor / cpu[both])
        out.append((name, len(rows), float(np.median(rows["size"])), float(np.median(cpu)),
                    float(np.percentile(cpu, 95)), _largest(rows["peak_mb"]), float(cpu.sum()),
                    float(rows["duration_s"].sum()) / factor,
                    float(np.median(ratio)) if len(ratio) else np.nan, float(np.std(ratio)) if len(ratio) else np.nan))
    table = np.array(out, STEP_COST)
    return StepCosts(table[np.argsort(-table["total_cpu_s"], kind="stable")], float(work["cpu_s"][simulated].sum()),
                     float(work["duration_s"][simulated].sum()) / factor, bool(simulated.any()))


def _largest(values: np.ndarray) -> float:
    known = values[np.isfinite(values) & (values >= 0)]
    return float(known.max()) if len(known) else float("nan")


@styled
def plot(table: StepCosts) -> Figure:
    """Median CPU time and peak memory of every Step."""
    rows = table.rows[table.rows["cpu_s"] > 0][:16][::-1]
    figure, (left, right) = panels(2, height=max(2.4, 0.24 * len(rows) + 1.1),
                                   labels=[max((n.decode() for n in rows["name"]), key=len, default="")])
    if not len(rows):
        nothing(left, "no CPU times were recorded")
        right.set_axis_off()
        return figure
    place, names = np.arange(len(rows)), [name.decode() for name in rows["name"]]
    left.barh(place, rows["cpu_s"], 0.66, color=BLUE)
    left.set_xscale("log")
    low, high = float(rows["cpu_s"].min()), float(rows["cpu_s"].max())
    left.set_xlim(low / 2, high * 6)
    for i, row in enumerate(rows):
        cpu = float(row["cpu_s"])
        text = f"{cpu:.2f} s" if cpu >= 0.1 else f"{cpu * 1e3:.2g} ms"
        if np.isfinite(row["residual"]):
            text += f"  (fit {100 * np.expm1(row['residual']):+.0f} %)"
        left.annotate(text, (cpu, i), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7.5, color=MUTED)
    left.set_yticks(place, names, fontsize=8)
    left.set(xlabel="CPU per detector-visit, median [s]", title="CPU time by Step")
    memory = np.nan_to_num(rows["peak_mb"])
    if memory.any():
        right.barh(place, memory, 0.66, color=WARM)
        right.set_yticks(place, names, fontsize=8)
        right.set(xlabel="peak memory [MB]", title="Memory by Step")
    else:
        nothing(right, "no memory was recorded")
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
    return figure
