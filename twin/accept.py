"""The acceptance figures, from seeds given on the line: simulate, measure, judge, print.

    sources x seeds   (six fields each) completeness, purity, pulls, positions, stages, depth, Solar System, reasons
    movers x seeds    (three fields each) trails and dipoles
    first light       the eight settings of association side by side; CPU time measured, against what a table of costs
                      fitted on this machine predicts;
                      packets read by lsst-alert-packet, and their flux measured again on their own cutouts
    a real field      DECam exposures with injected sources, where the files are at hand
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.alerts import read_packets
from pipeline.alerts.check import psf_flux
from pipeline.alerts.read import read_cutout
from reports import acceptance
from reports.acceptance import Figure
from reports.intervals import Estimate, fraction
from reports.store import Store
from twin.folders import claim
from twin.measure_costs import measure_costs
from twin.night import run_night
from twin.process import process_files
from twin.scenario import read_scenario

MOVERS: Final = ("trail", "dipole")                 # what only the movers' night judges, by key
OF_FIRST_LIGHT: Final = ("cost",)
FIELDS: Final = 100                                 # seeds of fields are seed x 100 + field
REAL_RUNS: Final = 20                               # of ten injections into each exposure of the real field
SETTINGS: Final = tuple(product(("objects", "solar_system"), ("greedy", "likelihood"), (True, False)))
REAL_FLUX: Final = (0.975, 1.020)                   # flux on a real alert's own cutout over psfFlux, 16-84 %


def accept(seeds: Sequence[int], out: Path, *, processes: int = 1, real: Path | None = None,
           say: Callable[[str], None] = print) -> bool:
    """Print every figure with its interval and bar; whether all that are judged pass. Keeps its runs in `out`."""
    claim(out)
    found: list[Figure] = []
    nights = {name: [_night(f"accept/{name}.toml", seed * FIELDS + field, out / f"{name}_{seed}_{field}", processes,
                            say, [f'simulation.cadence.blocks=["{2 * band}"]'])
                     for seed in seeds for field, band in enumerate(bands)]
              for name, bands in (("sources", "grigri"), ("movers", "gri"))}
    found += [f for f in _judged(nights["sources"]) if not f.key.startswith(MOVERS + OF_FIRST_LIGHT)]
    found += [f for f in _judged(nights["movers"]) if f.key.startswith(MOVERS)]
    say(measure_costs(None, out / "costs.toml", runs=out / "costs"))
    first = _night("first_light.toml", seeds[0], out / f"first_light_{seeds[0]}", 1, say,
                   [f'platform.costs="{(out / "costs.toml").absolute()}"'])
    found += [f for f in _judged([first]) if f.key.startswith(OF_FIRST_LIGHT)]
    found += list(_packets([first, *nights["sources"]]))
    if real is not None:
        found += _real_field(real, out / "real", say)
    say(acceptance.table(found))
    say(_settings(seeds[0], out, processes))
    (out / "figures.json").write_text(json.dumps([asdict(f) for f in found], indent=1))
    return acceptance.accepted(found)


def _night(name: str, seed: int, folder: Path, processes: int, say: Callable[[str], None],
           overrides: Sequence[str] = ()) -> Path:
    scenario = read_scenario(Path(str(resources.files("scenarios"))) / name, overrides, seed)
    say(str(run_night(scenario, folder, processes=processes)))
    return folder


def _judged(runs: Sequence[Path]) -> list[Figure]:
    return acceptance.judge([Store(run) for run in runs])


def _packets(runs: Sequence[Path]) -> Iterator[Figure]:
    """How many packets lsst-alert-packet reads, and the flux measured again on their difference cutouts."""
    from lsst.alert.packet import Schema

    schema = Schema.from_file()
    read, ratios = 0, []
    total = 0
    for packet in (p for run in runs for p in read_packets(run / "alerts")):
        total += 1
        record = schema.deserialize(packet[5:])
        read += bool(schema.validate(record))
        source, stamp = record["diaSource"], record["cutoutDifference"]
        if stamp and source["snr"] > 10 and not source["isDipole"] and not (source["trailLength"] or 0.0) > 1.0:
            ratios.append(psf_flux(read_cutout(stamp), max_shift=2.0).flux / source["psfFlux"])
    share = fraction(read, total)
    yield acceptance.at_least("packets.valid", "Packets that lsst-alert-packet reads and validates", share, 1.0)
    low, middle, high = np.percentile(ratios, [16, 50, 84])
    agrees = Estimate(float(middle), float(low), float(high), len(ratios))
    yield acceptance.between("packets.flux", "Flux on a packet's own cutout over psfFlux (16-84 % shown)", agrees,
                             *REAL_FLUX)


def _real_field(folder: Path, out: Path, say: Callable[[str], None]) -> list[Figure]:
    """The DECam field: the template from one epoch, ten injections into each exposure of the other, twenty times."""
    site = Path(str(resources.files("scenarios"))) / "decam" / "site.toml"
    science, template = sorted(folder.glob("DEC-OBS04*.fits")), sorted(folder.glob("DEC-OBS18*.fits"))
    runs = []
    for run in range(REAL_RUNS):
        runs.append(out / f"injected_{run}")
        process_files(science, runs[-1], config=site, template_from=template, inject=10, seed=run)
    say(process_files(science, out / "plain", config=site, template_from=template))
    judged = _judged(runs)
    keep = ("injected", "pull", "snr_rms")
    return [_renamed(f, "real field: ") for f in judged if f.key.startswith(keep)]


def _renamed(figure: Figure, prefix: str) -> Figure:
    return replace(figure, key=f"real.{figure.key}", name=prefix + figure.name)


def _settings(seed: int, out: Path, processes: int) -> str:
    """Association under the eight settings of order, matcher and re-read, on the same night."""
    runs = {}
    for order, matcher, reload in SETTINGS:
        folder = out / f"association_{order}_{matcher}_{'on' if reload else 'off'}"
        overrides = [f'pipeline.associate.order="{order}"', f'pipeline.associate.matcher="{matcher}"',
                     f"pipeline.associate.reload={str(reload).lower()}"]
        _night("first_light.toml", seed, folder, processes, lambda line: None, overrides)
        runs[f"{order}, {matcher}, re-read {'on' if reload else 'off'}"] = [Store(folder)]
    return f"\nassociation of first light by truth\n{acceptance.side_by_side(runs)}"
