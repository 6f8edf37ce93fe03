"""A DuckDB store of a year: fields of 1,000 objects, each visited 40 times, in the order of the visits."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np

from pipeline.htm import htm_index
from pipeline.ports import SaveRequest, Segment
from pipeline.stores.duckdb import DuckDBStore
from schemas.exposure import Box
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE, SUMMARY, Table

OBJECTS, VISITS, VERSIONS = 1000, 40, 10         # of a field; versions kept of each object
FIELD_DEG = 0.23                                 # side of a detector
START_MJD, NIGHT_DAYS = 60000.0, 9.0
STEP_ROWS = 400_000


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall and CPU seconds of each repetition."""

    wall: np.ndarray
    cpu: np.ndarray

    def __str__(self) -> str:
        def line(values: np.ndarray) -> str:
            return (f"median {np.median(values):.3f} s, 95 % {np.percentile(values, 95):.3f} s, "
                    f"worst {values.max():.3f} s")
        return f"wall {line(self.wall)}; CPU {line(self.cpu)}"


def build(path: Path, rows: int) -> None:
    """Fill a store with `rows` DIASources and as many forced points."""
    DuckDBStore(path).close()
    fields = rows // (OBJECTS * VISITS)
    ids = np.arange(fields * OBJECTS) + 1
    ra, dec = positions(ids, fields)
    with duckdb.connect(str(path), config={"threads": 1, "memory_limit": "1GB"}) as connection:
        connection.register("sky", {"id": ids, "ra": ra, "dec": dec, "pixel": htm_index(ra, dec)})
        connection.execute("CREATE TEMP TABLE places AS SELECT * FROM sky")
        connection.unregister("sky")
        for table, share in ((DIA_SOURCE, 1), (DIA_FORCED_SOURCE, 1), (DIA_OBJECT, VISITS // VERSIONS)):
            _fill(connection, table, rows // share, fields)
        connection.execute("CHECKPOINT")


def positions(ids: np.ndarray, fields: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of objects: fields lie in rows of 40 over the sky."""
    field, rng = (ids - 1) // OBJECTS, np.random.default_rng(11)
    spread = rng.random((2, fields * OBJECTS))[:, ids - 1] * FIELD_DEG
    return (field % 40) * 9.0 + spread[0], (field // 40) * 4.0 - 40.0 + spread[1]


def field_box(field: int) -> Box:
    low = (field // 40) * 4.0 - 40.0
    return Box((field % 40) * 9.0, (field % 40) * 9.0 + FIELD_DEG, low, low + FIELD_DEG)


def field_ids(field: int) -> np.ndarray:
    return np.arange(OBJECTS) + field * OBJECTS + 1


def next_visit(field: int, visit: int, mjd_tai: float, rng: np.random.Generator) -> tuple[SaveRequest, Segment]:
    """A visit that sees every object of a field."""
    ids = field_ids(field)
    objects, sources, forced = _random(DIA_OBJECT, rng), _random(DIA_SOURCE, rng), _random(DIA_FORCED_SOURCE, rng)
    for rows in (objects, sources, forced):
        rows["diaObjectId"] = ids
        rows["ra"], rows["dec"] = field_box(field).ra_min + 0.1, field_box(field).dec_min + 0.1
    objects["validityStartMjdTai"], objects["validityEndMjdTai"] = mjd_tai + 0.001, np.nan
    for rows, key in ((sources, "diaSourceId"), (forced, "diaForcedSourceId")):
        rows[key], rows["visit"], rows["detector"] = visit * 100_000 + np.arange(OBJECTS), visit, 0
        rows["midpointMjdTai"], rows["timeProcessedMjdTai"], rows["band"] = mjd_tai, mjd_tai + 0.001, b"r"
    summary = SUMMARY.empty(1)
    summary["visit"], summary["detector"] = visit, 0
    packets = tuple(bytes(200) for _ in range(OBJECTS))
    return (SaveRequest(visit, 0, objects, sources, forced, SS_SOURCE.empty(), summary, mjd_tai + 0.001),
            Segment(visit, 0, sources["diaSourceId"], packets))


def forget(path: Path) -> None:
    """Ask the system to drop its pages of the store's files."""
    for name in [path, *path.parent.glob(f"{path.name}.Dia*")]:
        file = os.open(name, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def timed(calls: list) -> Timing:
    wall, cpu = [], []
    for call in calls:
        begin = (time.perf_counter(), time.process_time())
        call()
        wall.append(time.perf_counter() - begin[0])
        cpu.append(time.process_time() - begin[1])
    return Timing(np.array(wall), np.array(cpu))


def _random(table: Table, rng: np.random.Generator) -> np.ndarray:
    rows = table.empty(OBJECTS)
    for column in table.columns:
        if column.datatype in ("float", "double"):
            rows[column.name] = rng.random(OBJECTS) * 1000
    return rows


def _fill(connection: duckdb.DuckDBPyConnection, table: Table, rows: int, fields: int) -> None:
    expressions = [f'{_value(column.name, column.datatype, column.nullable, fields, table)} AS "{column.name}"'
                   for column in table.columns]
    own = "i AS number, pixel AS pixelId, (i // 1000000) * 600 AS apdb_replica_chunk"
    for first in range(0, rows, STEP_ROWS):
        last = min(first + STEP_ROWS, rows)
        connection.execute(
            f'INSERT INTO "{table.name}" BY NAME SELECT {own}, {", ".join(expressions)} FROM '
            f"(SELECT i, i // {OBJECTS} AS v, "
            f"(i // {OBJECTS} * 7919 % {fields}) * {OBJECTS} + (i * 37 % {OBJECTS}) + 1 AS owner "
            f"FROM range({first}, {last}) AS t(i)) JOIN places ON places.id = owner ORDER BY i")


def _value(name: str, datatype: str, nullable: bool, fields: int, table: Table) -> str:
    night = f"(v // {fields})"
    known = {"diaObjectId": "owner", "diaSourceId": "v * 100000 + i % 1000",
             "diaForcedSourceId": "v * 100000 + i % 1000", "visit": "v", "detector": "0", "ra": "ra",
             "dec": "dec", "band": "substr('ugrizy', (v % 6 + 1)::INT, 1)",
             "midpointMjdTai": f"{START_MJD} + {night} * {NIGHT_DAYS} + v % {fields} * 0.0005",
             "timeWithdrawnMjdTai": "NULL", "reliabilityVersion": "'v1'",
             "validityStartMjdTai": f"{START_MJD} + {night} * {NIGHT_DAYS}",
             "validityEndMjdTai": f"CASE WHEN {night} = {VERSIONS - 1} THEN NULL "
                                  f"ELSE {START_MJD} + ({night} + 1) * {NIGHT_DAYS} END"}
    if name in known:
        return known[name]
    if datatype in ("float", "double"):
        return "random() * 1000"
    if datatype == "boolean":
        return "random() < 0.02"
    return "NULL" if nullable else "(random() * 100)::INTEGER"
