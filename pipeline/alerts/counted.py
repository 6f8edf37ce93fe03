"""The packets of one detector-visit by their number and modelled lengths, for nights of which nobody reads a packet.

Ids and keys are those that `package` gives. Cutouts count exactly; of rows the length is that of one typical row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pipeline.alerts.stamps import BLOCK
from pipeline.config import AlertConfig
from pipeline.errors import NonRetriableError
from pipeline.objects import slots
from pipeline.ports import History, Segment
from schemas.exposure import Visit

# Encoded bytes of a row of version 11.1 with deployed nulls and one band measured, as `rows.encode` makes them.
SOURCE_BYTES: Final = 327
FORCED_BYTES: Final = 80
OBJECT_BYTES: Final = 156
SOLAR_SYSTEM_BYTES: Final = 850    # SSSource with mpc_orbits
FRAME_BYTES: Final = 60            # wire header, texts, lengths and nulls


@dataclass(frozen=True, slots=True)
class Lengths(Sequence[bytes]):
    """Packets that are known by their lengths alone: there is nothing to read."""

    lengths: np.ndarray        # (n,) int64

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, slice):
            return Lengths(self.lengths[which])
        raise NonRetriableError("packets were counted and not made: a sink that reads them needs alert.packets = "
                                "\"bytes\"")


def counted(visit: Visit, detector: int, sources: np.ndarray, sides: np.ndarray, objects: np.ndarray,
            history: History, forced: np.ndarray, psf_sides: Sequence[int], config: AlertConfig) -> Segment:
    """As `pipeline.alerts.package`, without packets.

    Parameters
    ----------
    sides : (n,) int
        Of the stamps of `sources` [pixel]; 0 for none.
    psf_sides : sequence of int
        Of the PSF in each kind of cutout.
    """
    keys = np.where(sources["ssObjectId"] != 0, sources["ssObjectId"], sources["diaObjectId"]).astype(np.int64)
    owners = np.where(sources["ssObjectId"] != 0, 0, sources["diaObjectId"])
    since, ids = visit.mjd_tai - config.history_days, objects["diaObjectId"]
    rows = SOURCE_BYTES * _counts(ids, history.sources, since) + FORCED_BYTES * (
        _counts(ids, history.forced, since) + _counts(ids, forced, since))
    slot = slots(owners, ids)
    owned = np.append(rows + OBJECT_BYTES, SOLAR_SYSTEM_BYTES)[slot]
    pixels = -(-4 * sides**2 // BLOCK) * BLOCK
    planes = 3 if config.cutouts == "paper" else 2
    psfs = sum(BLOCK + -(-8 * side**2 // BLOCK) * BLOCK for side in psf_sides)
    stamps = np.where(sides > 0, len(psf_sides) * planes * (BLOCK + pixels) + psfs, 0)
    lengths = FRAME_BYTES + SOURCE_BYTES + owned + stamps
    return Segment(visit.visit, detector, np.ascontiguousarray(sources["diaSourceId"]),
                   Lengths(lengths.astype(np.int64)), keys)


def _counts(ids: np.ndarray, rows: np.ndarray, since: float) -> np.ndarray:
    """(k,) rows of each object that are not too old."""
    if not len(rows):
        return np.zeros(len(ids), np.int64)
    slot = slots(rows["diaObjectId"], ids)
    return np.bincount(slot[(slot >= 0) & (rows["midpointMjdTai"] >= since)], minlength=len(ids))


__all__ = ["Lengths", "counted"]
