"""Everything that the report of a run shows: read, matched and judged once."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from reports.acceptance import Evidence, Figure, cost_factor, figures
from reports.association import Association, association
from reports.astrometry import Astrometry, astrometry
from reports.completeness import Completeness, completeness
from reports.crowding import Crowding, crowding
from reports.directs import Directs, directs
from reports.gallery import Triplet, gallery
from reports.known import known_figures, known_metrics
from reports.latency import Latency, latency
from reports.lightcurves import LightCurves, light_curves
from reports.match import Matches, match
from reports.metrics import metrics_of
from reports.outcome import TABLES, Outcome, of_run
from reports.photometry import Precision, Pulls, precision, pulls
from reports.purity import Purity, purity
from reports.rate import Packets, Rate, packets, rate
from reports.single import Found, singles
from reports.solarsystem import Ephemerides, SolarSystem, ephemerides, objects, solar_system
from reports.steps import StepCosts, step_costs
from reports.store import Store, empty
from reports.survey import Survey, survey
from reports.template import Templates, templates

FIDELITIES: Final = {"pixels": "measured", "catalogue": "modelled", "counts": "modelled"}


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the page shows and the JSON holds."""

    folder: Path
    fidelity: str
    matches: Matches
    outcome: Outcome                    # of the same detector-visits
    figures: list[Figure]
    others: dict[str, list[Figure]]     # figures of the run's other fidelities
    metrics: tuple[Found, ...]   # that two sides would be compared by
    templates: Templates
    rate: Rate
    packets: Packets
    completeness: Completeness
    purity: Purity
    survey: Survey
    latency: Latency
    pulls: Pulls
    precision: Precision
    light_curves: LightCurves
    astrometry: Astrometry
    solar_system: SolarSystem
    ephemerides: Ephemerides
    directs: Directs
    crowding: Crowding
    steps: StepCosts
    simulated: bool                     # durations are simulated
    facts: dict[str, str]
    triplets: list[Triplet]
    morning: Association | None         # of the run as its batch left it; None without a batch


def gather(store: Store) -> Report:
    """Read and judge a run."""
    log = store.optional("exposure_log")
    kinds = [name for name in FIDELITIES if np.any(log["fidelity"] == name.encode())] or ["pixels"]
    factor, known = cost_factor(store), objects(store)
    work = store.optional("step").copy()
    work["duration_s"] /= factor if math.isfinite(factor) else 1.0
    given = {kind: Evidence(match(store, fidelity=kind if len(log) else ""), known,
                            work if kind == "pixels" else work[:0], math.isfinite(factor) and kind == "pixels")
             for kind in kinds}
    facts = store.facts()
    judged = {kind: known_figures(figures(found), facts) for kind, found in given.items()}
    matches = given[kinds[0]].matches
    outcome = _of_fidelity(_outcome(store), kinds[0].encode())
    return Report(
        folder=store.folder, fidelity=kinds[0], matches=matches, outcome=outcome, figures=judged[kinds[0]],
        others={k: judged[k] for k in kinds[1:]},
        metrics=_metrics(outcome, matches.kind, facts),
        templates=templates(matches.exposures), rate=rate(store, matches.exposures),
        packets=packets(store, matches.exposures), completeness=completeness(matches),
        purity=purity(matches), survey=survey(matches), latency=latency(store), pulls=pulls(matches),
        precision=precision(matches), light_curves=light_curves(outcome),
        astrometry=astrometry(matches), solar_system=solar_system(matches, known),
        ephemerides=ephemerides(store, matches), directs=directs(outcome.stars, outcome.sources),
        crowding=crowding(outcome),
        steps=step_costs(work, 1.0 if math.isfinite(factor) else factor), simulated=math.isfinite(factor),
        facts=facts, triplets=gallery(store, matches), morning=_morning(store))


def _morning(store: Store) -> Association | None:
    """Association as `alert-twin batch` left it beside the run."""
    folder = store.folder / "batch"
    return association(match(Store(folder))) if (folder / "measures").is_dir() else None


def _metrics(outcome: Outcome, truth: str, facts: dict[str, str]) -> tuple[Found, ...]:
    """What the run can say of the metrics; where truth is what was injected, other detections are not false."""
    chosen = known_metrics(metrics_of(outcome), facts)
    return singles([m for m in chosen if truth == "simulated" or m.section != "purity"], outcome)


def _outcome(store: Store) -> Outcome:
    """The run laid against its truth; nothing where it has no log."""
    if store.has("exposure_log"):
        return of_run(store, 0)
    tables: dict[str, Any] = {name: empty(table) for name, table in TABLES.items()}
    return Outcome(**tables, facts=store.facts())


def _of_fidelity(outcome: Outcome, kind: bytes) -> Outcome:
    """The rows of the detector-visits of one fidelity; all where they are of one."""
    log = outcome.visits
    if np.all(log["fidelity"] == kind):
        return outcome
    keys = _key(log[log["fidelity"] == kind])
    return replace(outcome, **{name: rows[np.isin(_key(rows), keys)] for name in TABLES
                               for rows in [getattr(outcome, name)]})


def _key(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows["visit"].astype("i8") * 1000 + rows["detector"])
