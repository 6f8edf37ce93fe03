"""Flags of the pixels under a source, the size of its stamp, and who is removed for them."""

from typing import Final

import numpy as np

from pipeline.images import Detections
from pipeline.kernels.footprints import bits_of
from schemas import mask as planes

# (flag over the footprint, flag over the 3x3 pixels of the centre, planes)
_FLAGS: Final = (
    ("pixelFlags_bad", "badCenter", planes.BAD),
    ("pixelFlags_cr", "pixelFlags_crCenter", planes.CR),
    ("pixelFlags_edge", "edgeCenter", planes.EDGE),
    ("pixelFlags_nodata", "pixelFlags_nodataCenter", planes.NO_DATA),
    ("pixelFlags_interpolated", "pixelFlags_interpolatedCenter", planes.INTRP),
    ("pixelFlags_saturated", "pixelFlags_saturatedCenter", planes.SAT),
    ("pixelFlags_suspect", "pixelFlags_suspectCenter", planes.SUSPECT),
    ("pixelFlags_streak", "pixelFlags_streakCenter", planes.STREAK),
    ("pixelFlags_injected", "pixelFlags_injectedCenter", planes.INJECTED),
    ("pixelFlags_injected_template", "pixelFlags_injected_templateCenter", planes.INJECTED_TEMPLATE),
    (None, "sat_templateCenter", planes.SAT_TEMPLATE),
    (None, "spikeCenter", planes.SPIKE),
)
# All nine pixels of the centre.
_WHOLE: Final = (("interpolatedCenterAll", planes.INTRP), ("high_varianceCenterAll", planes.HIGH_VARIANCE))

# Sources so flagged are removed after measurement; the first that applies is the reason (ip_diffim detectAndMeasure).
REMOVED: Final = ("pixelFlags_offimage", "interpolatedCenterAll", "badCenter", "edgeCenter", "pixelFlags_nodataCenter",
                  "pixelFlags_saturatedCenter", "sat_templateCenter", "spikeCenter")


def set_flags(rows: np.ndarray, detections: Detections) -> None:
    """Fill the pixel flags of MEASUREMENT rows, in place: any pixel of the footprint, any or all of the 3x3 centre."""
    bits = detections.difference.mask
    ny, nx = bits.shape
    boxes = np.column_stack([rows[f"bbox_{c}"] for c in ("x0", "y0", "x1", "y1")])
    whole = bits_of(detections.labels, np.ascontiguousarray(bits, np.int32), np.ascontiguousarray(boxes, np.int32))
    inside = (rows["x"] >= -0.5) & (rows["x"] < nx - 0.5) & (rows["y"] >= -0.5) & (rows["y"] < ny - 0.5)
    x = np.where(inside, np.floor(np.where(inside, rows["x"], 0) + 0.5), 0).astype(int)
    y = np.where(inside, np.floor(np.where(inside, rows["y"], 0) + 0.5), 0).astype(int)
    step = np.arange(-1, 2)
    v, u = y[:, None, None] + step[:, None], x[:, None, None] + step[None, :]
    on = (v >= 0) & (v < ny) & (u >= 0) & (u < nx)
    nine = np.where(on, bits[np.clip(v, 0, ny - 1), np.clip(u, 0, nx - 1)], 0)
    some = np.bitwise_or.reduce(nine.reshape(len(rows), 9), axis=1)
    every = np.bitwise_and.reduce(np.where(on, nine, -1).reshape(len(rows), 9), axis=1)
    for footprint, centre, plane in _FLAGS:
        rows[centre] = (some & plane) != 0
        if footprint is not None:
            rows[footprint] = ((whole | some) & plane) != 0
    for name, plane in _WHOLE:
        rows[name] = (every & plane) != 0
    rows["pixelFlags_offimage"] = ~inside
    rows["pixelFlags"] = ~inside | rows["centroid_flag"]


def bbox_size(rows: np.ndarray) -> np.ndarray:
    """(n,) side of a square around the centroid that holds the grown footprint.

    min(ceil(2 max |footprint's edge - centroid|), 2 max(width, height)) (ip_diffim detectAndMeasure).
    """
    x0, y0, x1, y1 = (rows[f"bbox_{c}"].astype(float) for c in ("x0", "y0", "x1", "y1"))
    reach = np.max([np.abs(x0 - rows["x"]), np.abs(x1 + 1 - rows["x"]), np.abs(y0 - rows["y"]),
                    np.abs(y1 + 1 - rows["y"])], axis=0)
    side = np.minimum(np.ceil(2 * reach), 2 * np.maximum(x1 - x0 + 1, y1 - y0 + 1))
    return np.asarray(np.where(np.isfinite(side), side, 0), np.int32)


def quality_cut(sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which MEASUREMENT rows stay, and why the others do not.

    Returns
    -------
    kept : (n,) bool
    reasons : (n,) S40
        The first of `REMOVED` that is set; b"" for those kept. Sky sources stay: a filter takes them.
    """
    reasons = np.zeros(len(sources), "S40")
    for name in reversed(REMOVED):
        reasons[sources[name]] = name.encode()
    return reasons == b"", reasons
