"""The law of numbers at counts fidelity, fitted to nights at catalogue fidelity: sources drawn from truth, and the
whole catalogue half run on them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from pipeline.ephemerides import TableEphemerides
from pipeline.errors import InputError
from pipeline.footprint import PRELOAD_MARGIN_ARCSEC, footprint_box
from pipeline.ports import Ports
from pipeline.prompt import deliver, preload, report_sources
from pipeline.satellites import TrackSatellites
from pipeline.sinks.memory import MemorySink
from pipeline.steps import Step, run
from pipeline.stores.memory import MemoryStore
from schemas.measures import EPHEMERIS, TRACK, empty
from simulators import observe
from twin import exposures
from twin.catalogue import measured_from_catalog
from twin.counts import FILTERS, NUMBERS, CountsModel
from twin.observatory import Observatory
from twin.prefill import DELAY_D, catalog_of, template_sigmas_px
from twin.scenario import Scenario

LEAST: Final = 30              # detector-visits that a fit rests on
SAMPLE: Final = np.dtype([("seed", "i8"), ("number", "i4"), *((n, NUMBERS[n]) for n in NUMBERS.names or ())])


@dataclass
class _Notes:
    """A recorder that counts rejections by filter."""

    rejected: dict[str, int]

    def append(self, table: str, rows: np.ndarray) -> None:
        if table == "rejection":
            for name in FILTERS:
                self.rejected[name] = self.rejected.get(name, 0) + int(np.sum(rows["stage"] == name.encode()))


def sample(scenario: Scenario, seeds: Sequence[int], say: Callable[[str], None] = lambda line: None, *,
           visits: int | None = None) -> np.ndarray:
    """SAMPLE rows: what became of every detector-visit of a scenario's nights at catalogue fidelity.

    Of each night all visits, or so many of the first.
    `number` is the visit's in its night, from 0; an object is new in the first, and known from then on.
    """
    out = []
    for seed in seeds:
        out += _night(msgspec.structs.replace(scenario, seed=seed), visits)
        say(f"seed {seed}: {len(out)} detector-visits")
    return np.concatenate(out)


def _night(scenario: Scenario, visits: int | None) -> list[np.ndarray]:
    here, store = Observatory(scenario, Path()), MemoryStore()
    rows: list[np.ndarray] = []
    shape = here.config.camera.ny, here.config.camera.nx
    templates = {band: exposures.inputs(here.sky, here.template_visits(band), here.seed)
                 for band in dict.fromkeys(visit.band for visit in here.visits)}
    for number, visit in enumerate(here.visits[:visits]):
        for detector in here.config.camera.detectors:
            template = templates[visit.band]
            facts, notes = here.facts(visit, detector), _Notes({})
            steps: list[Step] = []
            truth = observe.sources(here.sky, visit, detector, here.seed,
                                    template_visits=[one.visit for one in template])
            measured = measured_from_catalog(catalog_of(here, visit, detector, facts, truth, template), visit, detector,
                                             facts.wcs, shape, psf_sigma_px=facts.psf_sigma_px,
                                             template_sigmas_px=template_sigmas_px(template),
                                             zeropoint=facts.zeropoint)
            sink = MemorySink()
            ports = Ports(clock=partial(float, visit.shutter_close_mjd_tai + DELAY_D), store=store, sink=sink,
                          recorder=notes, ephemerides=TableEphemerides(empty(EPHEMERIS)),
                          satellites=TrackSatellites(empty(TRACK)))
            box = footprint_box(facts.wcs, shape, PRELOAD_MARGIN_ARCSEC)
            known = run(preload(visit, detector, box, ports, scenario.pipeline), steps.append)
            summary = run(report_sources(measured, known, ports, scenario.pipeline), steps.append)
            run(deliver(ports, scenario.pipeline))
            rows.append(_row(scenario.seed, number, summary.n_detected, summary.n_alerts, summary.n_new_objects, notes,
                             steps, sum(map(len, sink.packets))))
    return rows


def _row(seed: int, number: int, detected: int, alerts: int, fresh: int, notes: _Notes, steps: list[Step],
         n_bytes: int) -> np.ndarray:
    sizes = {step.name: step.size for step in steps}
    row = np.zeros(1, SAMPLE)
    row["seed"], row["number"], row["n_detected"], row["n_alerts"] = seed, number, detected, alerts
    row["n_fresh"], row["bytes"] = fresh, n_bytes
    row["n_objects"], row["n_history"] = sizes.get("objects", 0), sizes.get("history", 0)
    for name in FILTERS:
        row[f"n_{name}"] = notes.rejected.get(name, 0)
    return row


def fit_model(rows: np.ndarray, source: str, before: CountsModel | None = None) -> CountsModel:
    """The law of SAMPLE rows; what no such sample can tell (`visit_spread`, `satellites`) is that of `before`.

    The gamma's shape is that of the variance above a Poisson's; shares are totals over totals; new objects and what is
    known of the field are counted from the second visit of a night on.
    """
    if len(rows) < LEAST:
        raise InputError(f"{len(rows)} detector-visits are too few to fit the law of their numbers: {LEAST} are needed")
    before = before or CountsModel(source="")
    n = rows["n_detected"].astype(float)
    excess = float(n.var(ddof=1) - n.mean())
    later = rows[rows["number"] > 0] if np.any(rows["number"] > 0) else rows
    alerts, shares, left = max(int(rows["n_alerts"].sum()), 1), {}, int(n.sum())
    for name in FILTERS:
        taken = int(rows[f"n_{name}"].sum())
        shares[name] = taken / max(left, 1)
        left -= taken
    each = rows["bytes"][rows["n_alerts"] > 0] / rows["n_alerts"][rows["n_alerts"] > 0]
    objects = max(int(later["n_objects"].sum()), 1)
    return msgspec.structs.replace(
        before, source=source, law="drawn", detected=float(n.mean()),
        detector_shape=float(n.mean() ** 2 / excess) if excess > 0 else 0.0,
        quality=shares["quality"], reliability=shares["reliability"],
        new_objects=shares["new_objects"], fresh=float(later["n_fresh"].sum() / max(later["n_alerts"].sum(), 1)),
        objects_per_alert=objects / max(int(later["n_alerts"].sum()), 1),
        history_per_object=float(later["n_history"].sum()) / objects,
        alert_bytes=float(rows["bytes"].sum()) / alerts,
        alert_bytes_spread=float(np.std(np.log(each))) if len(each) > 1 else 0.0)


def to_toml(model: CountsModel, note: str = "") -> str:
    """The model's file."""
    lines = [f"# {line}" for line in note.splitlines()]
    for key, value in msgspec.to_builtins(model).items():
        lines.append(f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value:.6g}")
    return "\n".join(lines) + "\n"


__all__ = ["LEAST", "SAMPLE", "fit_model", "sample", "to_toml"]
