"""The project's differencing in a neutral benchmark's clothes: `difference(pair)` for pairs of arrays with PSFs.

    pair.science, template         (ny, nx) float32 [e-], the template on the science grid
    pair.var_science, var_template the same shape
    pair.mask_science, mask_template  uint8 bits: 1 bad, 2 saturated, 4 cosmic ray, 8 edge
    pair.psf_science, psf_template .gx, .gy, .stamps: stamps on a grid
    pair.sources                   x, y, flux, flux_err, extended
    pair.meta, pair.threads

Electrons take the place of nJy: differencing asks for no unit. The settings are the pipeline's defaults.
"""

from typing import Any, Final

import numpy as np
from diffbench.io import Result
from diffbench.psf import PsfGrid
from scipy import ndimage
from threadpoolctl import threadpool_limits

from pipeline.calibrate import noise
from pipeline.difference import subtract
from pipeline.difference.spatial import over
from pipeline.images import Calibrated, Calibration, Difference, Template
from pipeline.pixel_config import DifferenceConfig
from pipeline.psf import Psf
from schemas import mask as planes
from schemas.exposure import Visit
from schemas.measures import STAR, empty
from schemas.wcs import Wcs

REPEAT: Final = 3            # calls, the first of which is not timed
LIMITED: Final = threadpool_limits(1, "blas")    # as `alert-twin` runs the pipeline: threads are the engine's own
ORDER: Final = 4             # of the PSF polynomials
BITS: Final = np.zeros(256, np.int32)
for value in range(256):
    for bit, plane in ((1, planes.BAD), (2, planes.SAT), (4, planes.CR), (8, planes.EDGE)):
        BITS[value] |= plane if value & bit else 0


def difference(pair: Any) -> Result:  # the benchmark's own type
    """The difference of a pair with its variance, PSF and mask."""
    config = DifferenceConfig()
    threads = getattr(pair, "threads", 1)
    science, template = images(pair, threads)
    found = subtract(science, template, config, threads=threads)
    return Result(diff=found.image, var=found.variance, psf=grid(found.psf, pair.psf_science),
                  mask=unusable(found), info={"convolved": found.convolved, "kernel_stars": found.n_kernel_stars})


def images(pair: Any, threads: int = 1) -> tuple[Calibrated, Template]:
    """Both images as the pipeline's types."""
    given = [(pair.science, pair.var_science, pair.mask_science, pair.psf_science),
             (pair.template, pair.var_template, pair.mask_template, pair.psf_template)]
    left, right = over(lambda k: known(*given[k]), range(2), threads)
    shape = pair.science.shape
    wcs = Wcs.tangent(0.0, 0.0, shape)
    visit = Visit(2026010100001, "r", 0.0, 0.0, 0.0, 61041.1, 30.0)
    facts = Calibration(float(pair.meta.get("zp", 31.4)), 0.0, 1.0, len(pair.sources["x"]), 0, 0, 0.0, 0.0, 0.0, 1.0,
                        0.0, True, True)
    stars = empty(STAR, len(pair.sources["x"]))
    for ours, theirs in (("x", "x"), ("y", "y"), ("flux", "flux"), ("fluxErr", "flux_err"), ("extended", "extended")):
        stars[ours] = pair.sources[theirs]
    stars["snr"] = stars["flux"] / stars["fluxErr"]
    saturation = float(pair.meta.get("saturation", np.inf))
    science = Calibrated(visit, 0, *left[:4], wcs, stars, facts, 1.0, saturation, left[4])
    template = Template("r", *right[:4], wcs, np.broadcast_to(np.int16(10), shape), right[4])
    return science, template


def known(image: np.ndarray, variance: np.ndarray, mask: np.ndarray,
          psf: PsfGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray, Psf, np.ndarray]:
    """What the pipeline knows of one image: both planes, mask, PSF and the noise's autocorrelation."""
    shape = image.shape[0], image.shape[1]
    bits = np.empty(shape, np.int32)
    for start in range(0, len(bits), 64):       # what fits into a cache
        np.take(BITS, mask[start:start + 64], out=bits[start:start + 64], mode="clip")
    return image, variance, bits, polynomial(psf, shape), correlation(image, variance, mask)


def correlation(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Autocorrelation of the noise on blank sky, as calibration would measure it, from some windows of an image."""
    side = 256
    sums, n = np.zeros((1, 1)), 0
    for y in np.linspace(0, max(image.shape[0] - side, 0), 2).astype(int):
        for x in np.linspace(0, max(image.shape[1] - side, 0), 2).astype(int):
            window = np.s_[y:y + side, x:x + side]
            sky = image[window] - np.median(image[window])
            sigma = np.sqrt(np.median(variance[window]))
            source = ndimage.gaussian_filter(sky, 1.5) > 0.7 * sigma
            blank = ~ndimage.binary_dilation(source, iterations=3) & (mask[window] == 0)
            found = noise.autocorrelation(noise.flattened(sky, blank), blank)
            size = max(len(sums), len(found))
            sums = padded(sums, size) + padded(found, size)
            n += 1
    return sums / n


def padded(acf: np.ndarray, side: int) -> np.ndarray:
    """An autocorrelation with zeros around it."""
    return np.pad(acf, (side - len(acf)) // 2)


def polynomial(model: PsfGrid, shape: tuple[int, int]) -> Psf:
    """The polynomial PSF through a grid of stamps."""
    x, y = (a.ravel() for a in np.meshgrid(model.gx, model.gy))
    order = min(ORDER, len(model.gx) - 1, len(model.gy) - 1)
    stamps = np.asarray(model.stamps, float).reshape(len(x), -1)
    side = model.stamps.shape[-1]
    count = (order + 1) * (order + 2) // 2
    design = Psf(np.zeros((count, side, side)), order, shape).terms(x, y)
    found = np.linalg.lstsq(design, stamps / stamps.sum(axis=1, keepdims=True), rcond=None)[0]
    return Psf(found.reshape(count, side, side), order, shape)


def grid(psf: Psf, like: PsfGrid) -> PsfGrid:
    """Stamps on the same grid as another model's."""
    x, y = (a.ravel() for a in np.meshgrid(like.gx, like.gy))
    return PsfGrid(like.gx, like.gy, psf.stamps(x, y).reshape(len(like.gy), len(like.gx), psf.width, psf.width))


def unusable(found: Difference) -> np.ndarray:
    """Pixels that a detector should leave out: what the pipeline's own detection gives no weight."""
    out = np.empty(found.mask.shape, bool)
    for start in range(0, len(out), 64):       # what fits into a cache
        rows = slice(start, start + 64)
        np.not_equal(found.mask[rows] & (planes.UNUSABLE | planes.SAT_TEMPLATE | planes.CR), 0, out=out[rows])
    return out
