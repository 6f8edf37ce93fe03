"""What the pipeline's pixels hold AT TRUTH POSITIONS, asked after the pixel half; nothing flows back.

It says why a source was missed (mask, significance), what its flux is when its place is known (forced photometry), and
keeps stamps for the report's gallery.
"""

import numpy as np

from pipeline.pixel_half import Images, Measured
from schemas.measures import STAMP, STAMP_SIDE, empty


def inspect(truth: np.ndarray, measured: Measured, images: Images) -> np.ndarray:
    """TRUTH rows with `mask_at`, `significance_at`, `forced_flux` and `forced_flux_err` filled in.

    The mask is of the 3 x 3 pixels around the true position, the significance the largest of them by size.
    """
    rows = truth.copy()
    if not len(rows):
        return rows
    forced = measured.pixels.force(rows["ra"], rows["dec"])
    rows["forced_flux"], rows["forced_flux_err"] = forced["psfFlux"], forced["psfFluxErr"]
    around = _around(images.difference.mask, rows["x"], rows["y"], 1, fill=0)
    rows["mask_at"] = np.bitwise_or.reduce(around.reshape(len(rows), -1), axis=1)
    peaks = _around(images.significance, rows["x"], rows["y"], 1, fill=np.nan).reshape(len(rows), -1)
    largest = np.argmax(np.where(np.isfinite(peaks), np.abs(peaks), -1.0), axis=1)
    rows["significance_at"] = peaks[np.arange(len(rows)), largest]
    return rows


def stamps(truth: np.ndarray, measured: Measured, images: Images, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """STAMP rows, and (n, 3, side, side) float32 stamps of science, template and difference: up to `limit` true
    sources and as many measured ones.

    True sources that could have been found come first where the pixels hold little of them; sources far from every
    true one come first among the measured. The choice depends on the data alone.
    """
    half = limit
    true_rows = _first(_surprise_of_truth(truth), half)
    source_rows = _first(_surprise_of_sources(truth, measured.sources), half)
    index = empty(STAMP, len(true_rows) + len(source_rows))
    index["visit"], index["detector"] = measured.visit.visit, measured.detector
    index["index"] = np.arange(len(index))
    first, second = slice(0, len(true_rows)), slice(len(true_rows), None)
    index["kind"][first], index["kind"][second] = b"truth", b"source"
    index["truthId"][first] = truth["truthId"][true_rows]
    index["id"][second] = measured.sources["id"][source_rows]
    for name in ("x", "y"):
        index[name][first], index[name][second] = truth[name][true_rows], measured.sources[name][source_rows]
    planes = (images.science.image, images.difference.matched, images.difference.image)
    out = np.stack([_around(plane, index["x"], index["y"], STAMP_SIDE // 2, fill=np.nan) for plane in planes], axis=1)
    return index, out.astype(np.float32)


def _surprise_of_truth(truth: np.ndarray) -> np.ndarray:
    """(n,) true S/N less what the pixels show, -inf below S/N 5."""
    snr = np.abs(truth["snr"])
    seen = np.nan_to_num(np.abs(truth["significance_at"]))
    return np.asarray(np.where(snr >= 5.0, snr - seen, -np.inf))


def _surprise_of_sources(truth: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """(n,) distance of measured sources from the nearest true one, at most 50 px; -inf for sky sources."""
    distance = np.full(len(sources), 50.0)
    if len(truth) and len(sources):
        nearest = np.hypot(sources["x"][:, None] - truth["x"], sources["y"][:, None] - truth["y"]).min(axis=1)
        distance = np.minimum(nearest, distance)
    return np.where(sources["sky_source"], -np.inf, distance)


def _first(surprise: np.ndarray, limit: int) -> np.ndarray:
    """Half of `limit` rows with the largest values, the rest spread over the others; finite ones only."""
    order = np.argsort(-surprise, kind="stable")
    order = order[np.isfinite(surprise[order])]
    if len(order) <= limit:
        return np.asarray(order)
    others = order[limit // 2:]
    return np.concatenate([order[:limit // 2], others[np.linspace(0, len(others) - 1, limit - limit // 2).astype(int)]])


def _around(plane: np.ndarray, x: np.ndarray, y: np.ndarray, half: int, fill: float) -> np.ndarray:
    """(n, 2 half + 1, 2 half + 1) pixels around the nearest pixel of each position, `fill` off the plane."""
    padded = np.pad(plane, half + 1, constant_values=fill)
    j = np.clip(np.rint(x).astype(int), -1, plane.shape[1]) + 1
    i = np.clip(np.rint(y).astype(int), -1, plane.shape[0]) + 1
    window = np.lib.stride_tricks.sliding_window_view(padded, (2 * half + 1, 2 * half + 1))
    return np.asarray(window[i, j])
