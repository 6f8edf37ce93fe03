"""Tables of any program's files as columns: Parquet, CSV, FITS tables and Avro alerts, one file or a folder of them.

A file is what its first bytes say, whatever its name. Alerts may be framed as Kafka carries them (a zero byte, the
schema's id, one record) or lie in Avro's own container files; of an alert the triggering diaSource counts, of any other
record its own fields. Values that are missing are masked.
"""

import io
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb
import fastavro
import numpy as np
from astropy import units
from astropy.io import fits

from pipeline.alerts import read_packet
from pipeline.errors import InputError, PacketError

Columns = dict[str, np.ma.MaskedArray]     # by name in lower case

FORMATS: Final = "Parquet, CSV, a FITS table or Avro alerts"


def read_columns(path: Path, wanted: Mapping[str, str]) -> Columns:
    """Columns of a file, or of all files of a folder in order of name, with their rows together.

    `wanted` holds the names that are read, in lower case, with their units; FITS columns that name another unit are
    converted. InputError names the file, and the column or offset that is at fault.
    """
    parts = [_read(file, wanted) for file in _files(path)]
    if len(parts) == 1:
        return parts[0]
    return {name: _joined([part.get(name) for part in parts], [len(next(iter(part.values()), ())) for part in parts])
            for name in dict.fromkeys(name for part in parts for name in part)}


def _joined(parts: Sequence[np.ma.MaskedArray | None], lengths: Sequence[int]) -> np.ma.MaskedArray:
    """One column of several files; all missing where a file lacks it."""
    kind = next((part.dtype for part in parts if part is not None and len(part)), np.dtype(float))
    data = [np.zeros(n, kind) if part is None else np.ma.getdata(part) for part, n in zip(parts, lengths, strict=True)]
    missing = [np.ones(n, bool) if part is None else np.ma.getmaskarray(part)
               for part, n in zip(parts, lengths, strict=True)]
    return np.ma.MaskedArray(np.concatenate([values.astype(kind) if not len(values) else values for values in data]),
                             np.concatenate(missing))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.is_file():
            raise InputError(f"{path}: no such file; {FORMATS} expected")
        return [path]
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    if not files:
        raise InputError(f"{path}: no files in this folder; {FORMATS} expected")
    return files


def _read(path: Path, wanted: Mapping[str, str]) -> Columns:
    with path.open("rb") as file:
        head = file.read(9)
    if not head:
        raise InputError(f"{path}: the file is empty; a table without rows has its column names")
    if head[:2] == b"\x1f\x8b":
        raise InputError(f"{path}: compressed (gzip); unpack it first")
    if head.startswith(b"PAR1"):
        return _queried(path, wanted, "read_parquet(?)", "Parquet")
    if head == b"SIMPLE  =":
        return _fits(path, wanted)
    if head.startswith(b"Obj\x01"):
        return _container(path, wanted)
    if head.startswith(b"\x00"):
        return _packet(path, wanted)
    # as text: what a word means depends on its column, and is not to be guessed from the others
    return _queried(path, wanted, "read_csv(?, header=true, all_varchar=true, nullstr=['', 'NULL', 'null', 'None'])",
                    "CSV")


# --- Parquet and CSV -------------------------------------------------------------------------------------------------

def _queried(path: Path, wanted: Mapping[str, str], source: str, kind: str) -> Columns:
    try:
        with duckdb.connect(":memory:", config={"threads": 1}) as connection:
            names = [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {source}", [str(path)]).fetchall()]
            chosen = [name for name in names if name.lower() in wanted]
            if not chosen:
                raise InputError(f"{path}: none of its columns ({_listed(names)}) is one of the answer sheet's")
            selection = ", ".join('"' + name.replace('"', '""') + '"' for name in chosen)
            found = connection.execute(f"SELECT {selection} FROM {source}", [str(path)]).fetchnumpy()
    except duckdb.Error as error:
        raise InputError(f"{path}: not readable as {kind} ({' '.join(str(error).splitlines()[:1])}); "
                         f"{FORMATS} expected") from None
    return {name.lower(): np.ma.asarray(values) for name, values in found.items()}


# --- FITS ------------------------------------------------------------------------------------------------------------

def _fits(path: Path, wanted: Mapping[str, str]) -> Columns:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fits.verify.VerifyWarning)
            with fits.open(io.BytesIO(path.read_bytes()), memmap=False) as hdus:
                table = next((h for h in hdus if isinstance(h, fits.BinTableHDU | fits.TableHDU)), None)
                if table is None:
                    raise InputError(f"{path}: no table in the file, its HDUs hold images")
                return {c.name.lower(): _fits_column(path, c, np.asarray(table.data[c.name]), wanted[c.name.lower()])
                        for c in table.columns if c.name.lower() in wanted}
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: not a readable FITS table ({' '.join(str(error).split())})") from None


def _fits_column(path: Path, column: Any, values: np.ndarray, unit: str) -> np.ma.MaskedArray:
    values = values.astype(values.dtype.newbyteorder("="))
    missing = values == column.null if column.null is not None and values.dtype.kind in "iu" else np.zeros(1, bool)
    if column.unit and unit:
        values = values * _factor(path, column.name, str(column.unit), unit)
    return np.ma.MaskedArray(values, np.broadcast_to(missing, values.shape))


def _factor(path: Path, name: str, found: str, wanted: str) -> float:
    try:
        factor = float(units.Unit(found).to(units.Unit(wanted)))
    except (ValueError, TypeError, units.UnitsError):
        raise InputError(f"{path}: column {name} is in {found!r}, {wanted} expected") from None
    return factor if abs(factor - 1.0) > 1e-12 else 1


# --- Avro ------------------------------------------------------------------------------------------------------------

def _container(path: Path, wanted: Mapping[str, str]) -> Columns:
    try:
        reader = fastavro.reader(io.BytesIO(path.read_bytes()))
        names, records = _field_names(json.loads(reader.metadata["avro.schema"])), list(reader)
    except Exception as error:
        raise InputError(f"{path}: not a readable Avro file ({type(error).__name__}: {error})") from None
    return _recorded(path, records, names, wanted)


def _packet(path: Path, wanted: Mapping[str, str]) -> Columns:
    try:
        record = read_packet(path.read_bytes())
    except PacketError as error:
        raise InputError(f"{path}: not a readable alert packet ({error})") from None
    return _recorded(path, [record], [], wanted)


def _field_names(schema: Any) -> list[str]:
    """Fields of the record that counts: those of `diaSource` where the schema has one."""
    fields = {field["name"]: field["type"] for field in schema["fields"]}
    inner = fields.get("diaSource")
    return [field["name"] for field in inner["fields"]] if isinstance(inner, dict) else list(fields)


def _recorded(path: Path, records: Sequence[Any], names: Iterable[str], wanted: Mapping[str, str]) -> Columns:
    rows = [record["diaSource"] if isinstance(record.get("diaSource"), dict) else record for record in records]
    known = {name.lower(): name for name in [*names, *(name for row in rows for name in row)] if name.lower() in wanted}
    out = {}
    for key, name in known.items():
        values = [row.get(name) for row in rows]
        missing = np.array([value is None for value in values], bool)
        blank = next((value for value in values if value is not None), 0.0)
        column = np.array([blank if value is None else value for value in values])
        if column.ndim != 1:
            raise InputError(f"{path}: field {name} holds {type(blank).__name__} values, a number expected")
        out[key] = np.ma.MaskedArray(column, missing)
    return out


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
