"""A night and its morning through the real APDB's own code, lsst-dax-apdb on SQLite.

Run by the Python of an environment that has it: FOLDER holds NAME.npy of each visit's rows and plan.json, and gets the
tables back as JSON. No module of ours is imported.
"""

import json
import sqlite3
import sys
from pathlib import Path

import astropy.time
import numpy as np
import pandas
from lsst.dax.apdb.recordIds import DiaForcedSourceId, DiaObjectId, DiaSourceId
from lsst.dax.apdb.sql import ApdbSql


def frame(path):
    rows = np.load(path, allow_pickle=False)
    columns = {}
    for name in rows.dtype.names:
        values = rows[name]
        if values.dtype.kind == "S":
            columns[name] = [text.decode() or None for text in values.tolist()]
        elif values.dtype.kind == "i" and name in ("ssObjectId", "parentDiaSourceId"):
            columns[name] = pandas.array(values, dtype="Int64")
        else:
            columns[name] = values.astype(values.dtype.newbyteorder("="))
    return pandas.DataFrame(columns)


def mjd(value):
    return astropy.time.Time(value, format="mjd", scale="tai")


def rows_of(database, query):
    return [list(row) for row in database.execute(query).fetchall()]


def main(folder):
    plan = json.loads((folder / "plan.json").read_text())
    config = ApdbSql.init_database(f"sqlite:///{folder / 'apdb.db'}", enable_replica=True)
    apdb = ApdbSql(config)
    for visit in plan["visits"]:
        frames = [frame(folder / f"{visit['name']}.{table}.npy") for table in ("objects", "sources", "forced")]
        apdb.store(mjd(visit["mjd_tai"]), frames[0].drop(columns=["validityStartMjdTai", "validityEndMjdTai"]),
                   *frames[1:])
    places = {row[0]: row[1:] for row in apdb_rows(folder, 'SELECT "diaSourceId", ra, "dec", "midpointMjdTai" '
                                                           'FROM "DiaSource"')}

    def source(number):
        ra, dec, midpoint = places[number]
        return DiaSourceId(diaSourceId=number, ra=ra, dec=dec, midpointMjdTai=midpoint)

    apdb._current_time = lambda: mjd(plan["morning"])
    apdb.reassignDiaSourcesToDiaObjects({source(number): owner for number, owner in plan["reassigned"]})
    apdb.setValidityEnd([DiaObjectId(diaObjectId=number, ra=0.0, dec=0.0) for number in plan["closed"]],
                        mjd(plan["morning"]))
    apdb.withdrawDiaSources([source(number) for number in plan["withdrawn"]])
    apdb.withdrawDiaForcedSources([DiaForcedSourceId(diaObjectId=a, visit=b, detector=c, ra=0.0, dec=0.0,
                                                     midpointMjdTai=0.0) for a, b, c in plan["withdrawn_forced"]])
    apdb.reassignDiaSources(dict(plan["to_ss"]))
    found = {
        "DiaObject": apdb_rows(folder, 'SELECT "diaObjectId", "validityStartMjdTai", "validityEndMjdTai", '
                               '"nDiaSources", "pixelId" FROM "DiaObject" ORDER BY 1, 2'),
        "DiaSource": apdb_rows(folder, 'SELECT "diaSourceId", "diaObjectId", "ssObjectId", "timeWithdrawnMjdTai", '
                               '"pixelId" FROM "DiaSource" ORDER BY 1'),
        "DiaForcedSource": apdb_rows(folder, 'SELECT "diaForcedSourceId", "diaObjectId", "timeWithdrawnMjdTai" '
                                     'FROM "DiaForcedSource" ORDER BY 1'),
        "chunks": apdb_rows(folder, "SELECT apdb_replica_chunk FROM \"ApdbReplicaChunks\" ORDER BY 1"),
        "updates": apdb_rows(folder, 'SELECT apdb_replica_chunk, update_payload FROM "ApdbUpdateRecordChunks"')}
    (folder / "found.json").write_text(json.dumps(found))


def apdb_rows(folder, query):
    with sqlite3.connect(folder / "apdb.db") as database:
        return rows_of(database, query)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
