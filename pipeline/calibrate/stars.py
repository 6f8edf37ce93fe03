"""Sources of one exposure, and which of them are stars fit to build a PSF from."""

import numpy as np
import sep

from pipeline.errors import AlgorithmError

sep.set_sub_object_limit(4096)

FOUND = np.dtype([("x", "f8"), ("y", "f8"), ("flux", "f8"), ("peak", "f4"), ("snr", "f4"), ("size", "f4"),
                  ("windowed", "f8"),   # flux under a fixed Gaussian, in proportion to the flux of point sources
                  ("blended", "?"), ("masked", "?")])
_MAX_STARS = 4000           # brightest sources of an image that calibration looks at
_WEIGHT_SIGMA = 2.0         # px; of the Gaussian in which sizes are compared


def find(image: np.ndarray, noise: float, bad: np.ndarray, threshold: float) -> np.ndarray:
    """FOUND rows of sources above `threshold` sigma, brightest first; `image` has no sky."""
    objects = _extracted(image, noise, bad, threshold)
    order = np.argsort(objects["flux"])[::-1][:_MAX_STARS]
    objects = objects[order]
    found = np.zeros(len(objects), FOUND)
    for name in ("x", "y", "flux", "peak"):
        found[name] = objects[name]
    found["blended"] = (objects["flag"] & 1) > 0
    _weighted(found, image, noise, bad)
    return np.asarray(found[np.isfinite(found["size"])])


def _extracted(image: np.ndarray, noise: float, bad: np.ndarray, threshold: float) -> np.ndarray:
    """What sep finds; where a crowded field has more pixels over the threshold than its buffer, with a larger one."""
    k = np.arange(-4, 5)
    kernel = np.exp(-0.5 * (k[:, None] ** 2 + k**2) / 1.7**2).astype(np.float32)
    buffer = max(300_000, image.size // 4)
    while True:
        sep.set_extract_pixstack(buffer)
        try:
            return np.asarray(sep.extract(image, threshold, err=noise, mask=bad, minarea=5, filter_kernel=kernel,
                                          deblend_nthresh=16, deblend_cont=0.005, clean=False))
        except Exception as error:
            if "pixel buffer full" not in str(error) or buffer >= image.size:
                raise AlgorithmError(f"source detection: {error}") from error
        buffer = min(2 * buffer, image.size)


def _weighted(found: np.ndarray, image: np.ndarray, noise: float, bad: np.ndarray, half: int = 7) -> None:
    """Fill size and S/N from moments under a fixed Gaussian: equal for equal stars, whatever their flux."""
    x, y = np.rint(found["x"]).astype(int), np.rint(found["y"]).astype(int)
    stamps = cut(image, x, y, half)
    defects = cut(bad.astype(np.float32), x, y, half, fill=1.0) > 0
    k = np.arange(-half, half + 1)
    cx, cy = found["x"] - x, found["y"] - y
    with np.errstate(all="ignore"):
        for _ in range(3):
            dx, dy = k[None, None, :] - cx[:, None, None], k[None, :, None] - cy[:, None, None]
            weight = np.exp(-0.5 * (dx**2 + dy**2) / _WEIGHT_SIGMA**2)
            wi = weight * stamps
            total = wi.sum(axis=(1, 2))
            moved_x = 2 * (wi * dx).sum(axis=(1, 2)) / total
            moved_y = 2 * (wi * dy).sum(axis=(1, 2)) / total
            cx = np.clip(cx + np.where(total > 0, np.clip(moved_x, -1, 1), 0), -2, 2)
            cy = np.clip(cy + np.where(total > 0, np.clip(moved_y, -1, 1), 0), -2, 2)
        second = (wi * (dx**2 + dy**2)).sum(axis=(1, 2)) / total / 2
        # under the weight a Gaussian of variance v has 1 / (1 / v + 1 / w^2)
        found["size"] = np.where((total > 0) & (second > 0), 1 / np.sqrt(1 / second - 1 / _WEIGHT_SIGMA**2), np.nan)
        found["windowed"] = np.maximum(total, 0)
        found["snr"] = total / (noise * np.sqrt((weight**2).sum(axis=(1, 2))))
    found["x"], found["y"] = x + cx, y + cy
    found["masked"] = defects[:, half - 4:half + 5, half - 4:half + 5].any(axis=(1, 2))


def cut(image: np.ndarray, x: np.ndarray, y: np.ndarray, half: int, fill: float = 0.0) -> np.ndarray:
    """(n, s, s) stamps about whole pixels, s = 2 half + 1; `fill` beyond the image."""
    k = np.arange(-half, half + 1)
    rows, columns = np.asarray(y)[:, None] + k, np.asarray(x)[:, None] + k
    inside = (rows >= 0)[:, :, None] & (rows < image.shape[0])[:, :, None] \
        & (columns >= 0)[:, None, :] & (columns < image.shape[1])[:, None, :]
    out = image[np.clip(rows, 0, image.shape[0] - 1)[:, :, None], np.clip(columns, 0, image.shape[1] - 1)[:, None, :]]
    return np.where(inside, out, np.float32(fill))


def locus(size: np.ndarray, snr: np.ndarray) -> tuple[float, float]:
    """Centre and half-width of the sizes of stars: the densest place in the logarithm of size, small sizes preferred.

    Stars share one size, galaxies spread over larger ones, cosmic rays are smaller and few.
    """
    logs = np.sort(np.log(size))
    n = len(logs)
    if n == 0:
        raise AlgorithmError("PSF: no source to choose stars from")
    width = 0.04
    inside = np.searchsorted(logs, logs + width, side="right") - np.searchsorted(logs, logs - width, side="left")
    # a density falls with size for galaxies: of places nearly as dense as the densest, the smallest is the stars'
    dense = np.flatnonzero(inside >= 0.7 * inside.max())
    centre = float(np.median(logs[np.abs(logs - logs[dense[0]]) <= 1.5 * width]))
    for _ in range(5):
        near = logs[np.abs(logs - centre) <= 2 * width]
        centre = float(np.median(near)) if len(near) else centre
    near = logs[np.abs(logs - centre) <= 2 * width]
    scatter = 1.4826 * float(np.median(np.abs(near - centre))) if len(near) > 3 else width
    return float(np.exp(centre)), float(np.clip(4 * scatter, 0.06, 0.2))
