"""Our stores against the real APDB's code: the same night and morning through both.

`ALERT_TWIN_DAX_APDB` names the Python of an environment with lsst-dax-apdb (30.2026.4100 was tried, on Python 3.11); it
pins other libraries than ours, so it is none of ours.
"""

import json
import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pipeline.htm import htm_index
from schemas.table import DIA_OBJECT, DIA_SOURCE, take
from tests.pipeline.stores import forced_of, objects_at, request, segment
from tests.strategies import random_rows

SCRIPT = Path(__file__).resolve().parents[1] / "oracles" / "dax_apdb_night.py"
NIGHT, MORNING = 61000.0, 61000.5


def oracle():
    """The Python that has lsst-dax-apdb."""
    python = os.environ.get("ALERT_TWIN_DAX_APDB", "")
    if not python:
        pytest.skip("ALERT_TWIN_DAX_APDB names no Python that has lsst-dax-apdb")
    found = subprocess.run([python, "-c", "import lsst.dax.apdb"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        pytest.fail(f"{python} has no lsst-dax-apdb: {found.stderr.strip()[-200:]}")
    return python


def visit_rows(k, ids, rng):
    ids, time = np.array(ids), NIGHT + k * 0.004
    objects = objects_at(ids, 359.9 + ids * 0.05, -30.0 + ids, time)
    objects["ra"] %= 360.0
    objects["nDiaSources"] = k + 1
    for column in DIA_OBJECT.columns:
        if not column.nullable and column.name.endswith("Ndata"):
            objects[column.name] = 1
    sources = random_rows(DIA_SOURCE, len(ids), rng, nulls=0.0)
    for name in sources.dtype.names:
        if sources.dtype[name].kind == "f":
            sources[name] = 1.0
    sources["diaSourceId"], sources["diaObjectId"], sources["ssObjectId"] = k * 10 + ids, ids, 0
    sources["visit"], sources["detector"], sources["parentDiaSourceId"] = k + 1, 0, 0
    sources["ra"], sources["dec"] = objects["ra"], objects["dec"]
    sources["midpointMjdTai"], sources["timeProcessedMjdTai"], sources["timeWithdrawnMjdTai"] = time, time, np.nan
    sources["ssObjectReassocTimeMjdTai"], sources["band"], sources["reliabilityVersion"] = np.nan, b"r", b"v1"
    forced = forced_of(ids, k + 1, time)
    forced["timeProcessedMjdTai"], forced["band"] = time, b"r"
    forced["ra"], forced["dec"] = objects["ra"], objects["dec"]
    return objects, sources, forced


@pytest.fixture
def real(tmp_path):
    """What the real code makes of the night, and the night itself."""
    python, rng = oracle(), np.random.default_rng(8)
    night = [(k, visit_rows(k, (1, 2, 3) if k % 2 else (2, 3, 4), rng)) for k in range(6)]
    plan = {"visits": [{"name": f"v{k}", "mjd_tai": NIGHT + k * 0.004} for k, _ in night], "morning": MORNING,
            "reassigned": [(2, 3), (22, 3), (12, 1)], "closed": [2, 4], "withdrawn": [11, 24],
            "withdrawn_forced": [(1, 2, 0)], "to_ss": [(33, 77)]}
    for k, rows in night:
        for name, one in zip(("objects", "sources", "forced"), rows, strict=True):
            np.save(tmp_path / f"v{k}.{name}.npy", one, allow_pickle=False)
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    done = subprocess.run([python, SCRIPT, tmp_path], capture_output=True, text=True, check=False,
                          env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"})
    assert done.returncode == 0, done.stderr[-2000:]
    return night, plan, json.loads((tmp_path / "found.json").read_text())


def sorted_table(store, name, *keys):
    rows = store.table(name)
    return take(rows, np.lexsort([rows[key] for key in reversed(keys)]))


def same(ours, theirs):
    """Columns against lists of the database, whose null is None."""
    for column, values in zip(ours, zip(*theirs, strict=True), strict=True):
        expected = [math.nan if value is None else value for value in values]
        np.testing.assert_allclose(column, expected, rtol=0, atol=1e-9)


def save_and_amend(store, night, plan):
    """The night, and the morning but for the reassignments to Solar System objects."""
    for k, (objects, sources, forced) in night:
        store.save(request(k + 1, objects=objects, sources=sources, forced=forced), segment(k + 1))
    ids, owners = zip(*plan["reassigned"], strict=True)
    store.reassign_sources(np.array(ids), np.array(owners), MORNING)
    store.set_validity_end(np.array(plan["closed"]), MORNING)
    store.withdraw_sources(np.array(plan["withdrawn"]), MORNING)
    store.withdraw_forced(np.array([200]), MORNING)          # of object 1, visit 2, detector 0


def test_a_night_and_its_morning_are_as_the_real_apdb_has_them(real, store):
    night, plan, found = real
    save_and_amend(store, night, plan)
    store.reassign_sources_to_ss(*(np.array(column) for column in zip(*plan["to_ss"], strict=True)), MORNING)

    objects = sorted_table(store, "DiaObject", "diaObjectId", "validityStartMjdTai")
    same([objects[name] for name in ("diaObjectId", "validityStartMjdTai", "validityEndMjdTai")],
         [row[:3] for row in found["DiaObject"]])
    assert htm_index(objects["ra"], objects["dec"]).tolist() == [row[4] for row in found["DiaObject"]]
    sources = sorted_table(store, "DiaSource", "diaSourceId")
    same([sources[name] for name in ("diaSourceId", "diaObjectId", "ssObjectId", "timeWithdrawnMjdTai")],
         [[*row[:2], row[2] or 0, row[3]] for row in found["DiaSource"]])
    assert htm_index(sources["ra"], sources["dec"]).tolist() == [row[4] for row in found["DiaSource"]]
    forced = sorted_table(store, "DiaForcedSource", "diaForcedSourceId")
    same([forced[name] for name in ("diaForcedSourceId", "diaObjectId", "timeWithdrawnMjdTai")],
         found["DiaForcedSource"])
    assert [chunk.id for chunk in store.chunks()] == [row[0] for row in found["chunks"]]


def test_update_records_are_the_real_ones(real, store):
    night, plan, found = real
    save_and_amend(store, night, plan)
    ours = set()
    for row in store.updates():
        kind = row["updateType"].decode()
        key = row["diaSourceId"] if "_diasource" in kind else row["diaObjectId"]
        value = {"reassign_diasource_to_diaobject": row["diaObjectId"], "update_n_dia_sources": row["nDiaSources"],
                 "close_diaobject_validity": row["validityEndMjdTai"]}.get(kind, row["timeWithdrawnMjdTai"])
        ours.add((int(row["chunk"]), kind, int(key), float(value)))
    theirs = set()
    for chunk, payload in found["updates"]:
        record = json.loads(payload)
        kind = record["update_type"]
        key = record["diaSourceId"] if "_diasource" in kind else record["diaObjectId"]
        value = {"reassign_diasource_to_diaobject": "diaObjectId", "update_n_dia_sources": "nDiaSources",
                 "close_diaobject_validity": "validityEndMjdTai"}.get(kind, "timeWithdrawnMjdTai")
        theirs.add((chunk, kind, key, float(record[value])))
    assert ours == theirs
    assert len(theirs) >= 8
