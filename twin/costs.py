"""What Steps cost: seconds of one core of a named machine, a + b size each, fitted to recorded Steps.

A table is a TOML file with the machine, the date, and per Step the two numbers, the range of sizes they were fitted
over, the number of recorded runs and the rms of the residuals. A Step without a cost is an error, never 0. Nights of
pixels take the line itself; nights at counts fidelity draw about it (`sample`).
"""

import tomllib
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np

from pipeline.errors import InputError
from pipeline.steps import Step

MIN_RUNS: Final = 30       # recorded runs that a fitted Step must have
MIN_RANGE: Final = 16.0    # and the range of size they must span


class StepCost(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Seconds = a + b size, and how single runs scatter about them where they are drawn."""

    a: float
    b: float = 0.0
    law: Literal["", "constant", "lognormal", "exponential"] = ""   # "": lognormal where fitted, constant otherwise
    spread: float = 0.0            # lognormal: of ln; the mean stays a + b size. Fitted: `rms_fraction`
    runs: int = 0
    size_min: int = 0
    size_max: int = 0
    rms_s: float = 0.0             # of the residuals
    rms_fraction: float = 0.0      # of the residuals, over the mean cost
    assumed: str = ""              # why the numbers are not fitted, when they are not


class CostFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A cost table as it lies on disk."""

    machine: str
    date: str
    steps: dict[str, StepCost]
    note: str = ""


class CostTable:
    """Costs of Steps on a machine `scale` times as slow as the one they were measured on."""

    def __init__(self, file: CostFile, scale: float = 1.0, source: str = "the cost table") -> None:
        self.file, self.scale, self.source = file, scale, source

    @classmethod
    def read(cls, path: Path, scale: float = 1.0) -> "CostTable":
        """The table of a file; InputError names the file and the key."""
        try:
            file = msgspec.convert(tomllib.loads(path.read_text()), CostFile, strict=False)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise InputError(f"cost table {path}: {error}") from None
        for name, cost in file.steps.items():
            if not (cost.a >= 0 and cost.b >= 0 and np.isfinite(cost.a + cost.b)):
                raise InputError(f"cost table {path}: steps.{name}: a and b must be 0 or more, got {cost.a}, {cost.b}")
            if not 0 <= cost.spread <= 3:
                raise InputError(f"cost table {path}: steps.{name}: spread must be 0 to 3, got {cost.spread}")
        return cls(file, scale, str(path))

    def seconds(self, step: Step) -> float:
        """What a Step takes [s]."""
        return float(self.line(step.name, np.float64(step.size)))

    def line(self, name: str, sizes: np.ndarray | np.float64) -> np.ndarray:
        """What Steps of some sizes take [s], without scatter."""
        cost = self.file.steps.get(name)
        if cost is None:
            raise InputError(f"{self.source} has no cost for Step {name!r}; `alert-twin costs` measures one")
        return np.asarray(self.scale * (cost.a + cost.b * sizes))

    def sample(self, name: str, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n,) seconds of single runs of a Step with sizes (n,), scattered by its law about `seconds`."""
        mean = self.line(name, np.asarray(sizes, float))
        cost = self.file.steps[name]
        law = cost.law or ("lognormal" if cost.runs else "constant")
        if law == "constant":
            return mean
        if law == "exponential":
            return np.asarray(mean * rng.exponential(size=len(mean)))
        spread = cost.spread or cost.rms_fraction
        return np.asarray(mean * np.exp(spread * rng.normal(size=len(mean)) - 0.5 * spread**2))

    def origin(self, name: str) -> str:
        """`measured`, or `modelled` and by what."""
        cost = self.file.steps[name]
        return "measured" if cost.runs and not cost.assumed else f"modelled: {cost.assumed or 'no source given'}"


def fit(sizes: np.ndarray, cpu_s: np.ndarray) -> StepCost:
    """The line a + b size through recorded CPU seconds, neither negative, relative errors weighed equally.

    Weights of 1 / cost keep small sizes from being ignored; they come from a first, unweighted line, and one more
    round drops runs farther than five median deviations (a busy machine, a page fault).
    """
    sizes, cpu_s = np.asarray(sizes, float), np.asarray(cpu_s, float)
    a, b = _line(sizes, cpu_s, np.ones(len(sizes)))
    keep = np.ones(len(sizes), bool)
    for _ in range(3):
        model = np.maximum(a + b * sizes, 1e-7)
        a, b = _line(sizes[keep], cpu_s[keep], 1.0 / model[keep])
        residual = np.abs(cpu_s / np.maximum(a + b * sizes, 1e-7) - 1.0)
        keep = residual <= max(5.0 * float(np.median(residual)), 0.2)
    residual = cpu_s[keep] - (a + b * sizes[keep])
    rms = float(np.sqrt(np.mean(residual**2)))
    mean = float(np.mean(cpu_s[keep]))
    return StepCost(a=a, b=b, runs=len(sizes), size_min=int(sizes.min()), size_max=int(sizes.max()), rms_s=rms,
                    rms_fraction=rms / mean if mean > 0 else 0.0)


def _line(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Weighted least squares of y = a + b x with a, b >= 0."""
    if np.ptp(x) == 0.0:
        return max(0.0, float(np.average(y, weights=weight**2))), 0.0
    w = weight**2
    sw, sx, sy = w.sum(), (w * x).sum(), (w * y).sum()
    sxx, sxy = (w * x * x).sum(), (w * x * y).sum()
    b = (sw * sxy - sx * sy) / (sw * sxx - sx * sx)
    a = (sy - b * sx) / sw
    if a < 0:
        return 0.0, float(max(0.0, sxy / sxx))
    if b < 0:
        return float(max(0.0, sy / sw)), 0.0
    return float(a), float(b)


def fit_table(steps: np.ndarray, *, machine: str, date: str, keep: CostFile | None = None) -> CostFile:
    """A cost table from recorded STEP rows (the measured ones); Steps not recorded keep the costs of `keep`."""
    costs = dict(keep.steps) if keep else {}
    measured = steps[steps["measured"] & np.isfinite(steps["cpu_s"])]
    for name in np.unique(measured["name"]):
        rows = measured[measured["name"] == name]
        text = name.decode()
        if not text.startswith("retry."):
            costs[text] = fit(rows["size"], rows["cpu_s"])
    return CostFile(machine=machine, date=date, steps=dict(sorted(costs.items())))


def shortfalls(file: CostFile) -> list[str]:
    """Which fitted Steps rest on fewer than `MIN_RUNS` runs or a narrower range than `MIN_RANGE`, in words.

    A Step whose size never changes is a constant: no range is wanted.
    """
    out = []
    for name, cost in file.steps.items():
        if cost.assumed:
            continue
        if cost.runs < MIN_RUNS:
            out.append(f"{name}: {cost.runs} runs, {MIN_RUNS} wanted")
        if cost.size_max < MIN_RANGE * max(cost.size_min, 1) and cost.size_max != cost.size_min:
            out.append(f"{name}: sizes {cost.size_min} to {cost.size_max}, a range of {MIN_RANGE:.0f} wanted")
    return out


def to_toml(file: CostFile) -> str:
    """The file's text."""
    lines = [f'machine = "{file.machine}"', f'date = "{file.date}"']
    if file.note:
        lines.append(f'note = "{file.note}"')
    for name, cost in file.steps.items():
        lines += ["", f'[steps."{name}"]' if "." in name else f"[steps.{name}]",
                  f"a = {cost.a:.6g}", f"b = {cost.b:.6g}"]
        if cost.law:
            lines.append(f'law = "{cost.law}"')
        if cost.spread:
            lines.append(f"spread = {cost.spread:.4g}")
        if cost.assumed:
            lines.append(f'assumed = "{cost.assumed}"')
        else:
            lines += [f"runs = {cost.runs}", f"size_min = {cost.size_min}", f"size_max = {cost.size_max}",
                      f"rms_s = {cost.rms_s:.4g}", f"rms_fraction = {cost.rms_fraction:.4g}"]
    return "\n".join(lines) + "\n"
