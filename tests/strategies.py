"""Rows of prompt tables for tests: from a seed, and as hypothesis strategies."""

import numpy as np
from hypothesis import strategies as st

from schemas.table import Column, Table


def random_rows(table: Table, n: int, rng: np.random.Generator, *, nulls: float = 0.2) -> np.ndarray:
    """Rows of plausible and extreme values, a fraction `nulls` of what may be null being null."""
    rows = table.empty(n)
    for column in table.columns:
        values = _values(column, n, rng)
        if column.nullable and column.null is not None:
            keep = rng.random(n) >= nulls
            values = np.where(keep, values, np.array(column.null, column.format))
        rows[column.name] = values
    return rows


def _values(column: Column, n: int, rng: np.random.Generator) -> np.ndarray:
    if column.is_text:
        return np.array([b"abcdefghijklmnopqrstuvwxyz"[:k] for k in rng.integers(1, min(column.length, 20) + 1, n)],
                        column.format)
    if column.datatype == "boolean":
        return rng.random(n) < 0.5
    if column.datatype == "timestamp":
        return rng.integers(0, 2 * 10**15, n).astype("M8[us]")
    if column.datatype in ("float", "double"):
        return (rng.normal(size=n) * 10.0 ** rng.integers(-6, 7, n)).astype(column.format)
    limits = np.iinfo(column.format)
    return np.concatenate([rng.integers(limits.min, limits.max, n // 2, endpoint=True),
                           rng.integers(-300, 300, n - n // 2)])[rng.permutation(n)].astype(column.format)


def _cells(column: Column) -> st.SearchStrategy:
    null = st.just(column.null) if column.nullable and column.null is not None else st.nothing()
    if column.is_text:
        plain = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=0, max_size=column.length)
        return plain.map(str.encode).filter(lambda text: len(text) <= column.length) | null
    if column.datatype == "boolean":
        return st.booleans()
    if column.datatype == "timestamp":
        return st.integers(-10**15, 4 * 10**15).map(lambda us: np.datetime64(us, "us")) | null
    if column.datatype in ("float", "double"):
        width = 32 if column.datatype == "float" else 64
        return st.floats(width=width, allow_nan=False, allow_infinity=True) | null
    limits = np.iinfo(column.format)
    return st.integers(int(limits.min), int(limits.max)) | st.sampled_from([-1, 0, 1]) | null


@st.composite
def table_rows(draw: st.DrawFn, table: Table, max_size: int = 4) -> np.ndarray:
    """Rows of a table in which a few cells at a time are drawn and the others are null."""
    rows = table.empty(draw(st.integers(0, max_size)))
    for i in range(len(rows)):
        for index in draw(st.lists(st.integers(0, len(table.columns) - 1), max_size=12, unique=True)):
            column = table.columns[index]
            rows[column.name][i] = draw(_cells(column))
    for column in table.columns:       # a required number is a number
        if not column.nullable and column.datatype in ("float", "double"):
            rows[column.name] = np.nan_to_num(rows[column.name], nan=0.5)
    return rows
