"""A survey night at catalogue fidelity: seconds, memory and alerts, visit by visit.

    python -m tests.benchmarks.wide_night --visits 100 --processes 2 --out /tmp/run
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np

from pipeline.prompt import Summary
from pipeline.sinks.counting import CountingSink
from pipeline.stores.memory import MemoryStore
from reports.store import Store
from reports.wide import wide_night
from tests.twin.wides import Night, Nothing, finish
from twin.plan import plan_of
from twin.pool import open_pool
from twin.recorder import PROMPT_TABLES, ParquetRecorder
from twin.scenario import read_scenario, to_toml
from twin.wide import AHEAD, WideSource


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenario", type=Path, default=Path("scenarios/catalogue_night.toml"))
    parser.add_argument("--visits", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--latency", type=float, help="of the report after the shutter closed [s]; none: no overlap")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    given = parser.parse_args()
    scenario = read_scenario(given.scenario, given.overrides)
    plan, store, sink = plan_of(scenario), MemoryStore(), CountingSink()
    recorder = ParquetRecorder(given.out / "measures") if given.out else Nothing()
    begun = time.perf_counter()
    n_detectors, alerts, last = scenario.counts.detectors, [], begun
    with open_pool(given.processes) as pool:
        source = WideSource(scenario, plan, pool)
        print("density per deg^2:", source.density, f"{time.perf_counter() - begun:.1f} s")
        numbers = range(given.first, min(given.first + given.visits, len(plan)))
        night = Night(source, store, sink, recorder, scenario, given.latency)

        def after(number: int, summaries: list[Summary]) -> None:
            nonlocal last
            alerts.append(sum(s.n_alerts for s in summaries))
            if len(alerts) % 50 == 0:
                now = time.perf_counter()
                print(f"{number + 1} visits, {1000 * (now - last) / 50 / n_detectors:.3f} ms wall per detector-visit, "
                      f"{np.mean(alerts[-50:]):.0f} alerts per visit, {_peak_mb():.0f} MB", flush=True)
                last = now

        night.run(numbers, after)
        for number in range(numbers.stop, min(numbers.stop + AHEAD, len(plan))):
            for detector in range(n_detectors):
                source.skip(number, detector)
    watch = night.watch
    wall, n = time.perf_counter() - begun, given.visits * n_detectors
    if isinstance(recorder, ParquetRecorder):
        finish(recorder, store, source)
        (given.out / "scenario.toml").write_text(to_toml(scenario))
        print("\n".join(wide_night(Store(given.out)).lines()))
        print(f"recorded in {time.perf_counter() - begun - wall:.1f} s more")
    print({name: round(1000 * value / n, 3) for name, value in watch.spent.items()})
    print(f"{wall:.1f} s for {n} detector-visits: {1000 * wall / n:.3f} ms wall, "
          f"{1000 * sum(watch.spent.values()) / n:.3f} ms CPU of this process each; {sum(alerts)} alerts, "
          f"{sink.n_sent} sent, {np.mean(alerts):.1f} per visit; peak {_peak_mb():.0f} MB; rows",
          {name: len(store.table(name)) for name in PROMPT_TABLES})


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
