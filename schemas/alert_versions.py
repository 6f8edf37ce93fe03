"""The versions of the alert schema that can be written, and what each field of an older one is in today's tables.

Versions are read from the Avro declarations that lsst-alert-packet ships (schema/MAJOR/MINOR/lsst.vMAJOR_MINOR.*.avsc).
A field of theirs is the column of the same name of today's prompt tables, or what `RENAMED` says; a field that is
neither has no source, and is null. What changed between versions, as far as the names go:

    7.4 -> 8.0    alertId is diaSourceId; ssObject and prvDiaNondetectionLimits went, ssSource and MPCORB came
    8.0 -> 9.0    times of processing and validity are MJD TAI, not UTC timestamps
    9.0 -> 10.0   MPCORB is mpc_orbits, ssSource is another record
    10.0 -> 11.0  numbers of data and bboxSize may no longer be null
    11.0 -> 11.1  diaSource gained exposureTime, trailAlgorithm, trail_flag and reliabilityVersion
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

OLDEST: Final = (7, 4)                     # before it, records lack what today's brokers need
TAI_MINUS_UTC_S: Final = 37.0              # since 2017-01-01 (IERS Bulletin C)
AU_KM: Final = 149597870.7                 # IAU 2012 B2
UNIX_EPOCH_MJD: Final = 40587.0

# Records of an alert by prompt table; MPCORB is the name until version 9.
RECORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "DiaSource": ("diaSource",), "DiaObject": ("diaObject",), "DiaForcedSource": ("diaForcedSource",),
    "SSSource": ("ssSource",), "mpc_orbits": ("mpc_orbits", "MPCORB")}

# Fields of the alert record itself under an older name.
ALERT_RENAMED: Final[Mapping[str, str]] = {"alertId": "diaSourceId", "MPCORB": "mpc_orbits"}


@dataclass(frozen=True, slots=True)
class Origin:
    """A column, and what is done to it."""

    column: str
    factor: float = 1.0
    utc: bool = False                      # MJD TAI to a UTC timestamp


_PER_DAY: Final = 86400.0 / AU_KM          # km/s to au/d

# Fields of older versions: record and field.
RENAMED: Final[Mapping[str, Mapping[str, Origin]]] = {
    "diaSource": {"is_negative": Origin("isNegative"), "time_processed": Origin("timeProcessedMjdTai", utc=True)},
    "diaForcedSource": {"time_processed": Origin("timeProcessedMjdTai", utc=True)},
    "diaObject": {"validityStart": Origin("validityStartMjdTai", utc=True),
                  "radecMjdTai": Origin("lastDiaSourceMjdTai")},     # of the newest source, as ap_association had it
    "ssSource": {
        "eclipticLambda": Origin("eclLambda"), "eclipticBeta": Origin("eclBeta"), "galacticL": Origin("galLon"),
        "galacticB": Origin("galLat"), "heliocentricDist": Origin("helioRange"), "topocentricDist": Origin("topoRange"),
        "predictedVMagnitude": Origin("ephVmag"), "residualRa": Origin("ephOffsetRa", 1.0 / 3600.0),
        "residualDec": Origin("ephOffsetDec", 1.0 / 3600.0),
        **{f"{long}{axis.upper()}": Origin(f"{short}_{axis}") for long, short in
           (("heliocentric", "helio"), ("topocentric", "topo")) for axis in "xyz"},
        **{f"{long}V{axis.upper()}": Origin(f"{short}_v{axis}", _PER_DAY) for long, short in
           (("heliocentric", "helio"), ("topocentric", "topo")) for axis in "xyz"}},
    "MPCORB": {"mpcDesignation": Origin("packed_primary_provisional_designation"), "mpcH": Origin("h"),
               "epoch": Origin("epoch_mjd"), "M": Origin("mean_anomaly"), "peri": Origin("argperi"),
               "incl": Origin("i"), "t_p": Origin("peri_time"),
               "ssObjectId": Origin("ssObjectId")},                  # of the SSSource beside it
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record."""

    name: str
    kind: str                              # long | int | float | double | boolean | string | timestamp
    nullable: bool
    origin: Origin


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the alert schema."""

    major: int
    minor: int
    fields: tuple[str, ...]                           # of the alert, in order, under their newest names
    records: Mapping[str, tuple[Field, ...]]          # by prompt table; those that the version lacks are not in it

    @property
    def schema_id(self) -> int:
        """What stands in the wire header: 1101 for version 11.1."""
        return self.major * 100 + self.minor

    @property
    def header(self) -> bytes:
        """The wire header: a zero byte and the big-endian id."""
        return struct.pack(">bi", 0, self.schema_id)


def packaged() -> tuple[tuple[int, int], ...]:
    """All versions of the installed lsst-alert-packet, in order."""
    return _found(_folder())


def writable() -> tuple[str, ...]:
    """The versions that can be written."""
    return tuple(f"{major}.{minor}" for major, minor in packaged() if (major, minor) >= OLDEST)


@lru_cache(maxsize=32)
def version(text: str) -> Version:
    """The version of a name such as "11.1"; ValueError lists those that there are."""
    known = writable()
    if text not in known:
        raise ValueError(f"alert.schema must be one of {', '.join(known)} (those of the installed lsst-alert-packet), "
                         f"got {text!r}")
    major, _, minor = text.partition(".")
    return _read(int(major), int(minor))


def path_of(schema_id: int) -> Path | None:
    """The declaration of the alert record of an id; None where it is not packaged."""
    major, minor = divmod(schema_id, 100)
    return _declaration(major, minor, "alert") if (major, minor) in packaged() else None


def _folder() -> Path:
    spec = find_spec("lsst.alert.packet")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("lsst-alert-packet is not installed")
    return Path(spec.origin).parent / "schema"


@lru_cache(maxsize=4)
def _found(folder: Path) -> tuple[tuple[int, int], ...]:
    return tuple(sorted((int(path.parent.parent.name), int(path.parent.name))
                        for path in folder.glob("[0-9]*/[0-9]*/lsst.*.alert.avsc")))


def _declaration(major: int, minor: int, record: str) -> Path:
    return _folder() / str(major) / str(minor) / f"lsst.v{major}_{minor}.{record}.avsc"


def _read(major: int, minor: int) -> Version:
    alert = json.loads(_declaration(major, minor, "alert").read_text(encoding="utf-8"))
    records = {}
    for table, names in RECORDS.items():
        for name in names:
            path = _declaration(major, minor, name)
            if path.is_file():
                records[table] = tuple(_fields(name, json.loads(path.read_text(encoding="utf-8"))))
    return Version(major, minor, tuple(ALERT_RENAMED.get(field["name"], field["name"]) for field in alert["fields"]),
                   records)


def _fields(record: str, declared: Mapping[str, Any]) -> Iterator[Field]:
    for entry in declared["fields"]:
        kind, name = entry["type"], entry["name"]
        nullable = isinstance(kind, list)
        if nullable:
            first, kind = kind               # [null, T]: writing relies on null being branch 0
            if first != "null":
                raise ValueError(f"{record}.{name}: a union begins with null, got {entry['type']}")
        if isinstance(kind, dict):
            kind = "timestamp" if kind.get("logicalType") == "timestamp-micros" else kind["type"]
        yield Field(name, kind, nullable, RENAMED.get(record, {}).get(name, Origin(name)))


__all__ = ["OLDEST", "RECORDS", "RENAMED", "Field", "Origin", "Version", "packaged", "path_of", "version", "writable"]
