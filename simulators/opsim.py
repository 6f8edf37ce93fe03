"""Visit tables of scheduler simulations: read OpSim databases of any generation, write ours in the same form."""

import sqlite3
from pathlib import Path
from typing import Final

import numpy as np

from schemas.opsim import OPSIM
from simulators.conditions import SITE, sidereal_deg

TABLES: Final = ("observations", "SummaryAllProps")      # the second: OpSim 3 and 4
ALIASES: Final = {"finSeeing": "seeingFwhmEff", "expMJD": "observationStartMJD", "visitExpTime": "visitExposureTime"}
REQUIRED: Final = ("observationStartMJD", "fieldRA", "fieldDec", "visitExposureTime", "seeingFwhmEff",
                   "fiveSigmaDepth")                     # and band or filter
RANGES: Final = {"observationStartMJD": (40000.0, 100000.0), "fieldRA": (0.0, 360.0), "fieldDec": (-90.0, 90.0),
                 "visitExposureTime": (0.0, 3600.0), "seeingFwhmEff": (0.0, 10.0), "airmass": (1.0, 40.0)}
BANDS: Final = "ugrizy"


def read(path: Path, *, around: tuple[float, float, float] | None = None) -> np.ndarray:
    """OPSIM rows in time order of an OpSim database; those within `around` (ra, dec, radius) where it is given.

    Columns that a generation lacks are NaN, 0 or empty; `band` comes from `filter` where there is none, `filter` from
    `band`. ValueError names the file with the table, column or value that cannot be used.
    """
    if not path.is_file():
        raise ValueError(f"no visit database {path}")
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as base:
            table = _table(base, path)
            have = [row[1] for row in base.execute(f'PRAGMA table_info("{table}")')]
            names = {ALIASES.get(name, name): name for name in have}
            _complete(names, path, table)
            wanted = [name for name in OPSIM.names or () if name in names]
            columns = ", ".join(f'"{names[name]}"' for name in wanted)
            low, high = (-1e3, 1e3) if around is None else (around[1] - around[2], around[1] + around[2])
            start, dec = names["observationStartMJD"], names["fieldDec"]
            rows = base.execute(f'SELECT {columns} FROM "{table}" WHERE "{dec}" BETWEEN ? AND ? OR "{dec}" IS NULL '
                                f'ORDER BY "{start}"', (low, high)).fetchall()
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path}: not a readable sqlite database ({error})") from None
    if not rows and around is None:
        raise ValueError(f"{path}: table {table} has no visits")
    found = _checked(_filled(rows, wanted, path), path)
    return found if around is None else found[within(found, *around)]


def within(visits: np.ndarray, ra: float, dec: float, radius_deg: float) -> np.ndarray:
    """Which visits point within a radius of a place."""
    d, d0 = np.radians(visits["fieldDec"]), np.radians(dec)
    half = np.sin((d - d0) / 2) ** 2 + np.cos(d) * np.cos(d0) * np.sin(np.radians(visits["fieldRA"] - ra) / 2) ** 2
    return np.asarray(half <= np.sin(np.radians(radius_deg) / 2) ** 2)


def write(path: Path, visits: np.ndarray) -> None:
    """A sqlite database with the table `observations`; an existing file is an error."""
    if path.exists():
        raise ValueError(f"{path} exists; choose another name")
    types = {"i": "INTEGER", "f": "REAL", "U": "TEXT"}
    names = list(OPSIM.names or ())
    columns = ", ".join(f'"{name}" {types[OPSIM[name].kind]}' for name in names)
    aside = path.with_name(path.name + ".part")
    aside.unlink(missing_ok=True)
    base = sqlite3.connect(aside)
    try:
        base.execute(f"CREATE TABLE observations ({columns})")
        values = zip(*(visits[name].tolist() for name in names), strict=True)
        base.executemany(f"INSERT INTO observations VALUES ({', '.join('?' * len(names))})", values)
        base.execute("CREATE INDEX by_time ON observations (observationStartMJD)")
        base.commit()
    finally:
        base.close()
    aside.rename(path)


def site_altitude(ra_deg: np.ndarray, dec_deg: np.ndarray, mjd_tai: np.ndarray) -> np.ndarray:
    """Altitude [deg] by mean sidereal time, for tables without it: good to 0.4 deg."""
    hour, lat, dec = np.radians(sidereal_deg(mjd_tai) - ra_deg), np.radians(SITE[1]), np.radians(dec_deg)
    return np.asarray(np.degrees(np.arcsin(np.sin(lat) * np.sin(dec) + np.cos(lat) * np.cos(dec) * np.cos(hour))))


def _table(base: sqlite3.Connection, path: Path) -> str:
    have = [row[0] for row in base.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
    for name in TABLES:
        if name in have:
            return name
    raise ValueError(f"{path}: no table {' or '.join(TABLES)}, found {', '.join(have) or 'no tables'}")


def _complete(names: dict[str, str], path: Path, table: str) -> None:
    missing = [name for name in REQUIRED if name not in names]
    if "band" not in names and "filter" not in names:
        missing.append("band or filter")
    if missing:
        raise ValueError(f"{path}: table {table} lacks {', '.join(missing)}; it has {', '.join(names)}")


def _filled(rows: list[tuple[object, ...]], wanted: list[str], path: Path) -> np.ndarray:
    out = np.zeros(len(rows), OPSIM)
    for name in OPSIM.names or ():
        if OPSIM[name].kind == "f":
            out[name] = np.nan
    for name, column in zip(wanted, zip(*rows, strict=True) if rows else [()] * len(wanted), strict=True):
        try:
            kind = OPSIM[name].kind
            if kind == "U":
                out[name] = ["" if value is None else str(value) for value in column]
            else:
                out[name] = [np.nan if value is None else value for value in column] if kind == "f" else column
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: column {name} holds a value that cannot be used ({error})") from None
    if "band" not in wanted:
        out["band"] = [str(value)[:1] for value in out["filter"]]
    if "filter" not in wanted:
        out["filter"] = out["band"]
    if "visitTime" not in wanted:
        out["visitTime"] = out["visitExposureTime"] + 1.0
    return out


def _checked(rows: np.ndarray, path: Path) -> np.ndarray:
    wrong = np.flatnonzero(~np.isin(rows["band"], list(BANDS)))
    if len(wrong):
        found = str(rows["filter"][wrong[0]])
        raise ValueError(f"{path}: band must be one of {BANDS}, got {found!r} in visit {wrong[0]}")
    for name, (low, high) in RANGES.items():
        value = rows[name]
        bad = ~((value >= low) & (value <= high))
        if name not in REQUIRED:
            bad &= np.isfinite(value)
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            raise ValueError(f"{path}: {name} must be within {low:g} and {high:g}, got {value[at]} in visit {at}")
    if not np.isfinite(rows["fiveSigmaDepth"]).all():
        at = int(np.flatnonzero(~np.isfinite(rows["fiveSigmaDepth"]))[0])
        raise ValueError(f"{path}: fiveSigmaDepth must be a number, got {rows['fiveSigmaDepth'][at]} in visit {at}")
    return rows
