"""How long a visit waits for a DuckDB prompt store of a year: history of 1,000 objects, and the save of its sources.

The folder of ALERT_TWIN_BENCH_DIR keeps the stores for the next time (11 GB); without it they are made anew, in 10
minutes.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.stores.duckdb import DuckDBStore
from tests.benchmarks import prompt_store as bench

MEDIAN_S, WORST_TWENTIETH_S, GROWTH = 0.25, 0.5, 3.0
SMALL, LARGE = 1_000_000, 10_000_000
VISITS = 60


def measured(folder, rows):
    """History and save of visits, warm, and of the first one after the system forgot the files."""
    path = folder / f"{rows}.db"
    if not path.exists():
        bench.build(path, rows)
        DuckDBStore(path).close()                      # makes the row files
    bench.forget(path)
    store, rng = DuckDBStore(path), np.random.default_rng(5)
    fields = np.resize(rng.permutation(rows // (bench.OBJECTS * bench.VISITS)), VISITS + 1)
    first = max(rows // bench.OBJECTS, store._read("SELECT max(visit) FROM detector_visits").fetchall()[0][0] or 0) + 1
    found = []

    def visit(k):
        request, segment = bench.next_visit(int(fields[k]), first + k, 70000.0 + first * 0.01 + k * 0.0005, rng)

        def call():
            found.append(store.history(bench.field_ids(int(fields[k])), 60000.0, 1e9))
            store.save(request, segment)
        return call

    cold = bench.timed([visit(VISITS)])
    for k in range(VISITS):
        store.history(bench.field_ids(int(fields[k])), 60000.0, 1e9)
    found.clear()
    warm = bench.timed([visit(k) for k in range(VISITS)])
    assert all(len(one.sources) >= 40_000 and len(one.forced) >= 40_000 for one in found)
    store.close()
    print(f"\n{rows} rows, cold: {cold}\n{rows} rows, warm: {warm}")
    return warm


@pytest.mark.bench
def test_a_visit_does_not_wait_for_a_year_of_history(tmp_path):
    folder = Path(os.environ.get("ALERT_TWIN_BENCH_DIR", tmp_path))
    small, large = measured(folder, SMALL), measured(folder, LARGE)
    assert np.median(large.wall) <= MEDIAN_S
    assert np.percentile(large.wall, 95) <= WORST_TWENTIETH_S
    assert np.median(large.wall) <= GROWTH * np.median(small.wall)
