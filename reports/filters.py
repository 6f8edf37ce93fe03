"""What each filter stopped: true and false detections, by reason."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from reports.drawing import BLUE, MUTED, WARM, nothing, panels, styled
from reports.match import Matches

REJECTED: Final = np.dtype([("stage", "S24"), ("reason", "S40"), ("real", "i8"), ("false", "i8")])


@dataclass(frozen=True, slots=True)
class Filters:
    """Counts of rejections, stage by stage."""

    rows: np.ndarray           # REJECTED, by stage, most frequent first
    detections: int            # that entered the filters
    alerts: int


def filters(matches: Matches) -> Filters:
    """Rejected detections by stage and reason; `real` ones have a true source."""
    sources, real = matches.sources, ~matches.false
    stopped = sources["stage"] != b""
    names = np.unique(sources[stopped][["stage", "reason"]]) if stopped.any() else np.zeros(0, REJECTED)
    rows = np.zeros(len(names), REJECTED)
    rows["stage"], rows["reason"] = names["stage"], names["reason"]
    for row in rows:
        of = stopped & (sources["stage"] == row["stage"]) & (sources["reason"] == row["reason"])
        row["real"], row["false"] = np.sum(of & real), np.sum(of & ~real)
    total = rows["real"] + rows["false"]
    return Filters(rows[np.lexsort((-total, rows["stage"]))], len(sources), int(sources["alert"].sum()))


@styled
def plot(table: Filters, kind: str = "simulated") -> Figure:
    """Rejections by filter and reason."""
    rows = table.rows[np.argsort(-(table.rows["real"] + table.rows["false"]), kind="stable")][:14][::-1]
    figure, (axes,) = panels(1, width=10.4, height=max(2.2, 0.27 * len(rows) + 1.1),
                             labels=[max((name(row) for row in rows), key=len, default="")])
    if not len(rows):
        nothing(axes, "no filter rejected anything")
        return figure
    place = np.arange(len(rows))
    label = "true sources" if kind != "injected" else "injected sources"
    axes.barh(place, rows["false"], 0.7, color=WARM, label="false" if kind == "simulated" else "not injected")
    axes.barh(place, rows["real"], 0.7, left=rows["false"], color=BLUE, label=label)
    for i, row in enumerate(rows):
        axes.annotate(f"{row['false']} + {row['real']}", (row["false"] + row["real"], i), xytext=(4, 0), va="center",
                      textcoords="offset points", fontsize=7.5, color=MUTED)
    axes.set_yticks(place, [name(row) for row in rows], fontsize=8)
    axes.set(xlabel="detections", title=f"Rejected of {table.detections:,} detections; {table.alerts:,} became alerts")
    axes.set_xlim(0, axes.get_xlim()[1] * 1.06)
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    axes.set_ylim(-0.7, max(len(rows), 3) - 0.3)
    return figure


def name(row: np.void) -> str:
    """Stage and reason of a REJECTED row in words."""
    stage, reason = (row[k].decode().replace("_", " ") for k in ("stage", "reason"))
    return f"{stage}: {reason}" if reason and reason != stage else stage
