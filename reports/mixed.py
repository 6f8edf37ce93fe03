"""What a night on the platform says of its sources: each figure is of one fidelity, and says of which."""

from typing import Final

import numpy as np

from reports.acceptance import Figure, interval, number
from reports.page import Table
from reports.platform_page import Section
from reports.report import FIDELITIES, Report
from reports.store import Store

MOST: Final = 5000      # detector-visits of a night whose sources are matched for its page


def has_sources(store: Store) -> bool:
    """Whether a night on the platform kept sources and their truth, and few enough to be matched at once."""
    return store.has("exposure_log") and store.has("truth") and len(store.table("exposure_log")) <= MOST


def what_was_what(store: Store) -> Section:
    """Detectors by fidelity, and what each had on average."""
    facts, passages = store.facts(), store.table("passage")
    live = {kind: np.array([int(one) for one in facts.get(f"detectors_{kind}", "").split()], int)
            for kind in ("pixels", "catalogue")}
    chosen = {kind: np.isin(passages["detector"], detectors) for kind, detectors in live.items()}
    chosen["counts"] = ~(chosen["pixels"] | chosen["catalogue"])
    rows = [_row(kind, passages[rows]) for kind, rows in chosen.items() if rows.any()]
    return Section("fidelities", "What was what", " · ".join(kind for kind, rows in chosen.items() if rows.any()), [
        "Rendered detectors are measured, all others are modelled: those of fidelity catalogue have sources drawn from "
        "truth, those of fidelity counts have numbers alone. All times are modelled."],
        tables=[Table(("fidelity", "detectors", "detector-visits", "detections each", "alerts each", "kB per alert"),
                      rows)])


def _row(kind: str, rows: np.ndarray) -> tuple[str, ...]:
    alerts = int(rows["n_alerts"].sum())
    size = f"{rows['bytes'].sum() / alerts / 1000:.0f}" if alerts else ""
    return (f"{kind} · {FIDELITIES[kind]}", f"{len(np.unique(rows['detector']))}", f"{len(rows):,}",
            f"{rows['n_detected'].mean():.1f}", f"{rows['n_alerts'].mean():.1f}", size)


def sources(report: Report, page: str) -> Section:
    """Figures of sources, a column for each fidelity; `page` has them in full."""
    kinds = {report.fidelity: report.figures, **report.others}
    by_key = [{figure.key: figure for figure in found} for found in kinds.values()]
    rows = [(figure.name, *(_shown(found.get(figure.key)) for found in by_key)) for figure in report.figures]
    return Section("sources", "Sources", " · ".join(kinds), [
        "Of each fidelity its own detector-visits: none is a mean of two. "
        f"{page} has the curves and pictures of those of fidelity {report.fidelity}."],
        tables=[Table(("figure", *(f"{kind} · {FIDELITIES[kind]}" for kind in kinds)),
                      [row for row in rows if any(row[1:])])])


def _shown(figure: Figure | None) -> str:
    if figure is None or not np.isfinite(figure.value):
        return ""
    return f"{number(figure)} ({interval(figure)}), {figure.verdict}"


__all__ = ["has_sources", "sources", "what_was_what"]
