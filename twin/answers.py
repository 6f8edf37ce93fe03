"""The answer sheet: what another program says it detected, column by column, and how a file of it is read.

A row is a detection in one detector-visit. Columns carry Rubin's names (DIASource), a few have a shorter one beside;
upper and lower case are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from pipeline.errors import InputError
from twin.tables import Columns, read_columns

Kind = Literal["integer", "number", "boolean"]
_FORMATS: Final = {"integer": "i8", "number": "f8", "boolean": "?"}
_EXACT: Final = 2.0**53     # integers beyond it do not survive as floating-point numbers


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the answer sheet."""

    name: str
    kind: Kind
    unit: str
    needed: str                # required | one pair | optional
    meaning: str
    aliases: tuple[str, ...] = ()


SHEET: Final = (
    Column("visit", "integer", "", "required", "the exposure: VISIT of its header"),
    Column("detector", "integer", "", "required",
           "DETECTOR of its header; may be left out where the run has one detector"),
    Column("ra", "number", "deg", "one pair", "ICRS; `ra` and `dec`, or `x` and `y`, or all four"),
    Column("dec", "number", "deg", "one pair", "ICRS"),
    Column("x", "number", "pixel", "one pair",
           "along rows of the exposure; the centre of the first pixel is 0 (SExtractor, DS9 and FITS say 1)"),
    Column("y", "number", "pixel", "one pair", "along columns; the centre of the first pixel is 0"),
    Column("psfFlux", "number", "nJy", "optional", "science less template; negative where the source faded", ("flux",)),
    Column("psfFluxErr", "number", "nJy", "optional", "its standard error", ("fluxErr", "flux_err")),
    Column("snr", "number", "", "optional", "signal-to-noise; |psfFlux| / psfFluxErr where it is not given"),
    Column("isNegative", "boolean", "", "optional", "fainter than the template; the sign of the flux where not given"),
    Column("sign", "integer", "", "optional", "1 or -1, instead of isNegative; psfFlux takes it"),
    Column("reliability", "number", "", "optional",
           "score from 0 (false) to 1 (real): purity and completeness as a cut on it moves", ("score",)),
    Column("alert", "boolean", "", "optional",
           "whether an alert was sent; false: detected, but its reliability stopped it; left out: all were sent"),
    Column("diaSourceId", "integer", "", "optional", "of the detection; each once", ("id",)),
    Column("diaObjectId", "integer", "", "optional",
           "of the object it was associated with, 0 for none: association is judged by it", ("objectId", "object_id")),
    Column("ssObjectId", "integer", "", "optional", "as in ephemerides.fits, 0 for none"),
    Column("raErr", "number", "deg", "optional", "standard error towards the East"),
    Column("decErr", "number", "deg", "optional", "standard error towards the North"),
    Column("isDipole", "boolean", "", "optional", "fitted best by a positive and a negative lobe"),
    Column("dipoleLength", "number", "arcsec", "optional", "distance between the lobes"),
    Column("trailLength", "number", "arcsec", "optional", "length of a trail"),
    Column("trailAngle", "number", "deg", "optional", "its position angle, from North through East"),
    Column("trailFlux", "number", "nJy", "optional", "flux of the fitted trail"),
    Column("scienceFlux", "number", "nJy", "optional", "point-source flux at the place on the science image"),
    Column("scienceFluxErr", "number", "nJy", "optional", "its standard error"),
    Column("templateFlux", "number", "nJy", "optional", "point-source flux at the place on the template"),
    Column("templateFluxErr", "number", "nJy", "optional", "its standard error"),
    Column("extendedness", "number", "", "optional", "0 for point-like, 1 for extended"),
    Column("midpointMjdTai", "number", "d", "optional", "middle of the exposure, MJD in TAI; that of the visit if left "
           "out", ("time", "mjd")),
    Column("seed", "integer", "", "optional", "of the run, where one file answers several runs"),
)

ANSWER: Final = np.dtype([("row", "i8"), *((column.name, _FORMATS[column.kind]) for column in SHEET)])

_NAMES: Final = {name.lower(): column for column in SHEET for name in (column.name, *column.aliases)}
_NULLS: Final = {"diaSourceId": 0, "diaObjectId": 0, "ssObjectId": 0, "sign": 1, "alert": True, "seed": -1,
                 "detector": -1, "visit": -1}


@dataclass(frozen=True, slots=True)
class Answers:
    """Detections as they were given; `row` counts them from 1 in the order of the file."""

    file: Path
    rows: np.ndarray           # ANSWER; NaN, 0 and False where a value or column is missing
    given: frozenset[str]      # names of the columns that the file has

    def where(self, chosen: np.ndarray) -> "Answers":
        """Some of the rows."""
        return Answers(self.file, self.rows[chosen], self.given)


def read_answers(file: Path) -> Answers:
    """An answer sheet from a file, or a folder of them; InputError names the row, the value and what was expected."""
    found = _named(file, read_columns(file, {name: column.unit for name, column in _NAMES.items()}))
    n = len(next(iter(found.values()), ()))
    rows = np.zeros(n, ANSWER)
    rows["row"] = np.arange(1, n + 1)
    for column in SHEET:
        rows[column.name] = (_converted(file, column, found[column.name]) if column.name in found else
                             _NULLS.get(column.name, np.nan if column.kind == "number" else 0))
    answers = Answers(file, rows, frozenset(found))
    _check(answers)
    return answers


def _named(file: Path, columns: Columns) -> Columns:
    """Columns by their names on the sheet."""
    out: Columns = {}
    said: dict[str, str] = {}
    for key, values in columns.items():
        name = _NAMES[key].name
        if name in out:
            raise InputError(f"{file}: columns {said[name]} and {key} are the same; one expected")
        out[name], said[name] = values, key
    if "visit" not in out:
        raise InputError(f"{file}: no column visit; it has {', '.join(said.values()) or 'none of the answer sheet'}")
    for pair in (("ra", "dec"), ("x", "y")):
        if (pair[0] in out) != (pair[1] in out):
            here, lacking = pair if pair[0] in out else pair[::-1]
            raise InputError(f"{file}: column {here} without {lacking}")
    if "ra" not in out and "x" not in out:
        raise InputError(f"{file}: no position columns, ra and dec [deg] or x and y [pixel] expected; it has "
                         f"{', '.join(said.values())}")
    return out


def _converted(file: Path, column: Column, values: np.ma.MaskedArray) -> np.ndarray:
    """A column as the sheet's type; what is missing becomes its null."""
    missing, data = np.ma.getmaskarray(values), np.ma.getdata(values)
    if data.dtype.kind in "OSU":
        data = _numbers(file, column, data, missing)
    if data.dtype.kind not in "iufb":
        raise InputError(f"{file}: column {column.name} holds {data.dtype}, a {column.kind} expected")
    if data.dtype.kind == "f" and column.kind != "number":
        missing = missing | np.isnan(data)
        data = np.where(missing, 0, data)
        odd = (data != np.rint(data)) | (np.abs(data) > _EXACT)
        _refuse(file, column, data, odd, "an integer" if column.kind == "integer" else "true or false")
    if column.kind == "boolean":
        _refuse(file, column, data, ~missing & (data != 0) & (data != 1), "true or false")
    null = _NULLS.get(column.name, np.nan if column.kind == "number" else 0)
    out = np.full(len(data), null, _FORMATS[column.kind])
    out[~missing] = data[~missing]
    return out


def _numbers(file: Path, column: Column, texts: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Text as the numbers that it spells."""
    kind = "i8" if column.kind == "integer" else "f8"
    words = [word.decode(errors="replace").strip() if isinstance(word, bytes) else str(word).strip()
             for word in np.where(missing, "0", texts).tolist()]
    try:
        return np.array(words, "U").astype(kind) if words else np.zeros(0, kind)
    except (ValueError, OverflowError):
        return np.array([_number(file, column, i, word) for i, word in enumerate(words, 1)], kind)


def _number(file: Path, column: Column, row: int, word: str) -> float:
    spelled = {"true": 1, "false": 0, "t": 1, "f": 0} if column.kind == "boolean" else {}
    try:
        if word.lower() in spelled:
            return spelled[word.lower()]
        if column.kind != "integer":
            return float(word)
        number = float(word) if "." in word or "e" in word.lower() else int(word)
        if number != int(number) or abs(number) >= 2**63:
            raise ValueError
        return int(number)
    except (ValueError, OverflowError):
        wanted = {"integer": "an integer", "number": "a number", "boolean": "true or false"}[column.kind]
        raise InputError(f"{file}: row {row}: {column.name} {word[:40]!r} is not {wanted}") from None


def _refuse(file: Path, column: Column, values: np.ndarray, odd: np.ndarray, wanted: str) -> None:
    if odd.any():
        i = int(np.argmax(odd))
        raise InputError(f"{file}: row {i + 1}: {column.name} must be {wanted}, got {values[i]}")


def _check(answers: Answers) -> None:
    """Positions are finite and on the sky, ids are there once."""
    file, rows = answers.file, answers.rows
    if (bare := rows["visit"] < 0).any():
        raise InputError(f"{file}: row {rows['row'][np.argmax(bare)]}: no visit")
    for name in [n for n in ("ra", "dec", "x", "y") if n in answers.given]:
        if (lost := ~np.isfinite(rows[name])).any():
            first = int(np.argmax(lost))
            raise InputError(f"{file}: row {rows['row'][first]}: {name} is {rows[name][first]}, a finite position "
                             f"expected ({int(lost.sum())} such rows)")
    for name, low, high in (("ra", -180.0, 360.0), ("dec", -90.0, 90.0)):
        if name in answers.given and (beyond := (rows[name] < low) | (rows[name] > high)).any():
            first = int(np.argmax(beyond))
            raise InputError(f"{file}: row {rows['row'][first]}: {name} is {rows[name][first]:g}, degrees from {low:g} "
                             f"to {high:g} expected")
    if "sign" in answers.given and (odd := np.abs(rows["sign"]) != 1).any():
        raise InputError(f"{file}: row {rows['row'][np.argmax(odd)]}: sign must be 1 or -1, got "
                         f"{rows['sign'][np.argmax(odd)]}")
    if "diaSourceId" in answers.given:
        _check_ids(file, rows[["seed", "diaSourceId", "row"]])


def _check_ids(file: Path, rows: np.ndarray) -> None:
    """Each id once in a run; 0 is none."""
    rows = rows[rows["diaSourceId"] != 0]
    rows = rows[np.lexsort((rows["row"], rows["diaSourceId"], rows["seed"]))]
    again = (rows["diaSourceId"][1:] == rows["diaSourceId"][:-1]) & (rows["seed"][1:] == rows["seed"][:-1])
    if again.any():
        first = int(np.argmax(again))
        raise InputError(f"{file}: row {rows['row'][first + 1]}: diaSourceId {rows['diaSourceId'][first]} is that of "
                         f"row {rows['row'][first]} too, each id once expected ({int(again.sum())} are there again)")


def sheet_rows() -> Sequence[tuple[str, str, str, str, str]]:
    """The sheet as text: column (and its other names), type, unit, required or optional, meaning."""
    return [(" or ".join((c.name, *c.aliases)), c.kind, c.unit, c.needed, c.meaning) for c in SHEET]
