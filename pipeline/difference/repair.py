"""Plausible values for pixels that are not to be trusted, before they are convolved.

A convolution carries a wrong pixel as far as its kernel reaches. A saturated star gets back the core of the PSF that
fits its wings; any other bad pixel takes the value of the other image. The pixels stay masked: this only limits what
they do to their neighbours.
"""

import numpy as np
from scipy import ndimage

from pipeline.psf import Psf

MAX_SHIFT = 3.0       # of a saturated star's centre from the middle of its saturated pixels [pixel]
MODEL_ERROR = 0.03    # relative error of a PSF model in a star's wings


def repaired(image: np.ndarray, variance: np.ndarray, bad: np.ndarray, saturated: np.ndarray, other: np.ndarray,
             other_bad: np.ndarray, psf: Psf) -> np.ndarray:
    """A copy of `image` whose bad pixels have values from the PSF or the other image, or zero."""
    out = image.copy()
    fill = bad & ~other_bad
    out[fill] = other[fill]
    out[bad & other_bad] = 0.0
    labels = ndimage.label(saturated, np.ones((3, 3)))[0]
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        _restore(out, image, variance, bad, labels, number, box, psf)
    return out


def _restore(out: np.ndarray, image: np.ndarray, variance: np.ndarray, bad: np.ndarray, labels: np.ndarray,
             number: int, box: tuple[slice, slice], psf: Psf) -> None:
    """Write the core of one saturated star into `out`, if a PSF fits around it."""
    blob = labels[box] == number
    width = blob.sum(axis=1)
    wide = np.flatnonzero(width >= 0.7 * width.max())     # a bleed is narrower than the star
    y = box[0].start + float(wide.mean())
    x = box[1].start + float(np.median(np.nonzero(blob[wide])[1]))
    half = psf.width // 2
    i, j = round(x), round(y)
    y0, y1 = max(0, j - half), min(image.shape[0], j + half + 1)
    x0, x1 = max(0, i - half), min(image.shape[1], i + half + 1)
    if y1 - y0 < 5 or x1 - x0 < 5:
        return
    here = np.s_[y0:y1, x0:x1]
    core = labels[here] == number
    near = ndimage.binary_dilation(core, iterations=max(4, half // 3)) & ~ndimage.binary_dilation(core, iterations=1)
    use = near & ~bad[here]
    if use.sum() < 20:
        return
    stamp = psf.at(x, y)
    value = image[here][use].astype(float)
    root = 1.0 / np.sqrt(variance[here][use] + (MODEL_ERROR * value) ** 2)
    cut = np.s_[y0 - j + half:y1 - j + half, x0 - i + half:x1 - i + half]
    dx, dy, flux = x - i, y - j, 0.0
    for _ in range(4):
        model = ndimage.shift(stamp, (dy, dx), order=3, mode="constant")
        slope_y, slope_x = np.gradient(model)
        columns = np.stack([model[cut][use], -slope_x[cut][use], -slope_y[cut][use]], axis=1)
        found = np.linalg.lstsq(columns * root[:, None], value * root, rcond=None)[0]
        flux = float(found[0])
        if not flux > 0:
            return
        dx += float(np.clip(found[1] / flux, -1, 1))
        dy += float(np.clip(found[2] / flux, -1, 1))
        if np.hypot(dx - (x - i), dy - (y - j)) > MAX_SHIFT:
            return
    model = ndimage.shift(stamp, (dy, dx), order=3, mode="constant")[cut] * flux
    out[here][core] = np.maximum(model, 0.0)[core]
