"""Rows of a catalogue to Avro's binary form: one pass, driven by a table of columns."""

import numpy as np
from numba import njit

INTEGER, FLOATING, BOOLEAN, TEXT, TIME = 0, 1, 2, 3, 4   # column kinds
REQUIRED, NULLABLE, NEVER_NULL = 0, 1, 2                 # written plainly | null or value | always the value of a union


@njit(cache=True)
def encode(raw: np.ndarray, columns: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Write every row to `out`; the (n,) int64 ends of the rows in it.

    Parameters
    ----------
    raw : (n, itemsize) uint8
        Bytes of packed little-endian rows.
    columns : (k, 5) int64
        Kind, offset, width in bytes, nullability, and the value that stands for null in an integer column.
    out : (>= n * largest row,) uint8

    Notes
    -----
    Avro 1.11: integers are zigzag varints, floats little-endian IEEE 754, text a length and its bytes; a union is its
    branch (null is 0, the value 1) and then the value. NaN, NaT and empty text are null where null is allowed.
    """
    n, k = raw.shape[0], columns.shape[0]
    ends = np.empty(n, np.int64)
    at = 0
    for i in range(n):
        row = raw[i]
        for j in range(k):
            kind, offset, width, nullability = columns[j, 0], columns[j, 1], columns[j, 2], columns[j, 3]
            bits = np.uint64(0)
            length = 0
            if kind == TEXT:
                length = width
                while length > 0 and row[offset + length - 1] == 0:
                    length -= 1
                null = length == 0
            else:
                for b in range(width):
                    bits |= np.uint64(row[offset + b]) << np.uint64(8 * b)
                if kind == FLOATING and width == 4:
                    null = (bits & np.uint64(0x7FFFFFFF)) > np.uint64(0x7F800000)
                elif kind == FLOATING:
                    null = (bits & np.uint64(0x7FFFFFFFFFFFFFFF)) > np.uint64(0x7FF0000000000000)
                elif kind == TIME:
                    null = bits == np.uint64(0x8000000000000000)
                else:
                    null = False
            value = np.int64(0)
            if kind in (INTEGER, TIME):
                shift = np.int64(64 - 8 * width)
                value = np.int64(bits << np.uint64(shift)) >> shift   # sign extension
                if kind == INTEGER:
                    null = value == columns[j, 4]
            elif kind == TEXT:
                value = np.int64(length)
            if nullability != REQUIRED:
                if null and nullability == NULLABLE:
                    out[at] = 0
                    at += 1
                    continue
                out[at] = 2
                at += 1
            if kind in (FLOATING, BOOLEAN):
                for b in range(width):
                    out[at] = row[offset + b]
                    at += 1
                continue
            zigzag = np.uint64(value << np.int64(1)) ^ np.uint64(value >> np.int64(63))
            while zigzag > np.uint64(0x7F):
                out[at] = np.uint8((zigzag & np.uint64(0x7F)) | np.uint64(0x80))
                zigzag >>= np.uint64(7)
                at += 1
            out[at] = np.uint8(zigzag)
            at += 1
            for b in range(length):
                out[at] = row[offset + b]
                at += 1
        ends[i] = at
    return ends
