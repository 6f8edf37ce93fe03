"""Why a source does not go on: one reason per source, b"" for those that pass, and the REJECTION rows of the others."""

import numpy as np

from schemas.measures import REJECTION, empty
from schemas.wcs import Wcs

REASON = "S40"


def first_reason(tests: list[tuple[np.ndarray, str]], n: int) -> np.ndarray:
    """The name of the first test that each of `n` sources meets, b"" where it meets none."""
    reasons = np.zeros(n, REASON)
    for met, name in reversed(tests):
        reasons[np.asarray(met, bool)] = name.encode()
    return reasons


def rejections(sources: np.ndarray, reasons: np.ndarray, stage: str, visit: int, detector: int,
               wcs: Wcs) -> np.ndarray:
    """REJECTION rows of the MEASUREMENT rows that have a reason."""
    index = np.flatnonzero(reasons != b"")
    rows = empty(REJECTION, len(index))
    if not len(index):
        return rows
    for name in REJECTION.names or ():
        if name in (sources.dtype.names or ()):
            rows[name] = sources[name][index]
    rows["ra"], rows["dec"] = wcs.sky(sources["x"][index], sources["y"][index])
    rows["visit"], rows["detector"], rows["stage"], rows["reason"] = visit, detector, stage.encode(), reasons[index]
    return rows
