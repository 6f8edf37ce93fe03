"""Detection on a difference image: significance, footprints, peaks.

    background -> cosmic rays -> significance -> mask of what is significant -> background again -> significance
        -> hills of each sign -> grown footprints, lobes of opposite sign merged -> streaks -> sky sources

Significance is the matched filter with the difference's own PSF P, normalised by the noise as it is,

    S = sum(P w d) / sqrt(sum(P^2 w^2 v)),    w = 1 / smoothed(v), 0 on unusable pixels,

which is sum(P d / v) / sqrt(sum(P^2 / v)) where the variance v is smooth. Smoothing keeps a variance plane that follows
the noise of its own pixels from biasing S; the denominator stays right where the variance is steep.

S is linear in d, and what the second background takes away is faint and smooth: that is put right in S by the
significance of a background of 1, known per block of pixels, without a second convolution. No plane is made but those
returned and two of a byte per pixel.

Rubin's Alert Production smooths with a Gaussian and does not deblend. Here two maxima of one sign within a footprint
are two sources when the valley between them is deep enough to be no fluctuation (`valley`): a transient next to
another is not swallowed. Lobes of opposite sign within five PSF sigmas are one source, as the dipole fit wants them.
"""

from dataclasses import replace
from typing import Final

import numpy as np
from scipy import fft, ndimage, sparse
from scipy.spatial import cKDTree

from pipeline import cosmicrays, streaks
from pipeline.images import PEAK, Calibrated, Detections, Difference
from pipeline.kernels import detection as kernels
from pipeline.kernels import peaks as hills
from pipeline.pixel_config import DetectConfig
from pipeline.psf import Psf
from schemas import mask as planes

WINDOW: Final = 288          # side of the windows that are transformed [pixel], at least
BLOCK: Final = 4             # side of the blocks in which the significance of a background is known [pixel]
SMOOTH: Final = 2            # half side of the box over which variances are smoothed into weights [pixel]
LEAST: Final = 3e-3          # of the typical denominator: where less is known than that, within masks, S is 0
SAMPLE: Final = 1_000_000    # pixels from which quantiles are taken, about
WEIGHTLESS: Final = planes.UNUSABLE | planes.SAT_TEMPLATE | planes.CR


def detect(difference: Difference, science: Calibrated, config: DetectConfig) -> Detections:
    """Sources of both signs above `threshold` sigmas of point-source significance.

    Cosmic rays carry no weight: what remains of a source under them may still be found. Streaks are masked along their
    full line after detection, so sources on them are measured and flagged.
    """
    plain = replace(difference, image=np.ascontiguousarray(difference.image, np.float32),
                    variance=np.ascontiguousarray(difference.variance, np.float32),
                    mask=np.ascontiguousarray(difference.mask, np.int32))
    variance, psf = plain.variance, plain.psf
    usable = np.empty(variance.shape, bool)
    kernels.usable(plain.image, variance, plain.mask, WEIGHTLESS, usable)
    image = _less_background(plain.image, variance, usable, config.background_bin)
    bits = plain.mask & np.int32(~(planes.DETECTED | planes.DETECTED_NEGATIVE))
    if config.cosmic_rays:
        rays = np.flatnonzero(cosmicrays.find(image, variance, usable, psf, config))
        usable.ravel()[rays] = False
        bits.ravel()[rays] |= planes.CR
    snr, of_one = significance(image, variance, usable, psf, scale=plain.noise_scale)
    _correct(image, snr, variance, usable, of_one, psf, config)
    labels, found, refused = _footprints(snr, image, bits, replace(plain, image=image), config)
    if config.streaks:
        streaks.mark(streaks.find(snr, usable, config), bits)
    sky = _sky_sources(snr, usable, labels, bits, config)
    return Detections(replace(difference, image=image, mask=bits), snr, labels, np.concatenate([found, sky]),
                      _blank_rms(snr, usable, labels), refused)


def _correct(image: np.ndarray, snr: np.ndarray, variance: np.ndarray, usable: np.ndarray, of_one: np.ndarray,
             psf: Psf, config: DetectConfig) -> None:
    """Take off what background is left beside all that is significant, from image and significance, in place."""
    blank = usable.copy()
    kernels.hide(kernels.beyond(snr, config.threshold), _growth(psf, config), blank)
    level = _level(image, np.zeros((1, 1), np.float32), variance, blank, config.background_bin)
    kernels.correct(image, snr, usable, level, of_one, BLOCK)


def _sky_sources(snr: np.ndarray, usable: np.ndarray, labels: np.ndarray, bits: np.ndarray,
                 config: DetectConfig) -> np.ndarray:
    """PEAK rows on blank sky, from a sequence of places that fills the plane evenly (Roberts' R2), without chance."""
    ny, nx = snr.shape
    radius = config.sky_radius
    rows = np.zeros(config.sky_sources, PEAK)
    k = np.arange(1, 5 * config.sky_sources + 1)
    x, y = (np.asarray((0.5 + k * step) % 1.0 * n, int) for step, n in ((0.7548776662466927, nx),
                                                                       (0.5698402909980532, ny)))
    inside = (x >= radius) & (x < nx - radius) & (y >= radius) & (y < ny - radius)
    x, y = x[inside], y[inside]
    step = np.arange(-radius, radius + 1)
    box = y[:, None, None] + step[:, None], x[:, None, None] + step
    clear = (usable[box] & (labels[box] == 0)).all(axis=(1, 2))
    x, y = x[clear][:len(rows)], y[clear][:len(rows)]
    rows = rows[:len(x)]
    rows["x"], rows["y"], rows["snr"], rows["sky_source"], rows["mask"] = x, y, snr[y, x], True, bits[y, x]
    rows["x0"], rows["x1"], rows["y0"], rows["y1"] = x - radius, x + radius, y - radius, y + radius
    for name in ("positive_x", "positive_y", "negative_x", "negative_y"):
        rows[name] = np.nan
    return rows


def _growth(psf: Psf, config: DetectConfig) -> int:
    return max(1, round(config.grow_sigmas * psf.sigma))


def significance(image: np.ndarray, variance: np.ndarray, usable: np.ndarray, psf: Psf, *, scale: float = 1.0,
                 smooth: int = SMOOTH) -> tuple[np.ndarray, np.ndarray]:
    """Signed S/N of a point source centred on every pixel, and that of an image of 1 in every block of pixels.

    Weights are 0 on unusable pixels, else of the variance smoothed over `smooth` pixels to each side. `scale` is the
    factor by which correlated noise exceeds that of independent pixels. The PSF is constant over two windows.
    """
    ny, nx = image.shape
    half = psf.width // 2
    side = [fft.next_fast_len(min(max(WINDOW, 6 * half), n + 2 * half + BLOCK - 1), real=True) for n in (ny, nx)]
    core = [(n - 2 * half) // BLOCK * BLOCK for n in side]
    snr = np.empty((ny, nx), np.float32)
    norm, weight = (np.zeros((-(-ny // BLOCK), -(-nx // BLOCK)), np.float32) for _ in range(2))
    signal, power, weights = (np.empty(side, np.float32) for _ in range(3))
    floor = LEAST * scale * _typical_norm(variance, usable, psf)
    for y0 in range(0, ny, 2 * core[0]):
        for x0 in range(0, nx, 2 * core[1]):
            stamp = psf.at((x0 + min(x0 + 2 * core[1], nx) - 1) / 2, (y0 + min(y0 + 2 * core[0], ny) - 1) / 2)
            kernel, squared = (np.conj(fft.rfft2(p.astype(np.float32), side)) for p in (stamp, stamp**2))
            for y in range(y0, min(y0 + 2 * core[0], ny), core[0]):
                for x in range(x0, min(x0 + 2 * core[1], nx), core[1]):
                    kernels.weigh(image, variance, usable, smooth, y - half, x - half, signal, power, weights)
                    h, w = min(core[0], ny - y), min(core[1], nx - x)
                    square = _correlated(power, squared)
                    kernels.divide(_correlated(signal, kernel), square, scale, floor, y, x, h, w, snr)
                    kernels.block_sums(square, 0, h, w, norm, y // BLOCK, x // BLOCK)
                    kernels.block_sums(weights, half, h, w, weight, y // BLOCK, x // BLOCK)
    total = _summed(weight, psf)
    ratio = np.divide(total, norm, out=np.zeros_like(total), where=norm > 0)
    for part, n in ((ratio, ny), (ratio.T, nx)):        # a cut block's middle is not where its pixels are
        if n % BLOCK and len(part) > 1:
            part[-1] = part[-2]
    return snr, ratio


def _correlated(window: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlation of a window with a stamp whose conjugate transform is given; [0, 0] is that half a stamp inside."""
    transform = fft.rfft2(window)
    transform *= kernel
    return np.asarray(fft.irfft2(transform, window.shape, overwrite_x=True))


def _typical_norm(variance: np.ndarray, usable: np.ndarray, psf: Psf) -> float:
    """The denominator of significance for the median variance."""
    step = max(2, int(np.sqrt(variance.size / SAMPLE)))
    sample = variance[::step, ::step][usable[::step, ::step]]
    return float(np.sqrt(np.sum(psf.central**2) / np.median(sample))) if len(sample) else 0.0


def _summed(weight: np.ndarray, psf: Psf) -> np.ndarray:
    """sum(P w) for blocks of pixels, from the sums of w over the blocks, times their number of pixels."""
    stamp, half = psf.central, psf.width // 2
    reach = half // BLOCK + 1
    offset = np.arange(-half, half + 1)
    lag = BLOCK * np.arange(-reach, reach + 1)
    hat = np.clip(1 - np.abs(offset[None, :] - lag[:, None]) / BLOCK, 0, None)   # of two pixels of two blocks
    coarse = hat @ stamp @ hat.T
    ny, nx = weight.shape
    shape = tuple(fft.next_fast_len(n + 2 * reach, real=True) for n in (ny, nx))
    product = fft.rfft2(weight, shape) * np.conj(fft.rfft2(coarse.astype(np.float32), shape))
    return np.asarray(np.roll(fft.irfft2(product, shape), (reach, reach), (0, 1))[:ny, :nx])


def _less_background(image: np.ndarray, variance: np.ndarray, usable: np.ndarray, size: int) -> np.ndarray:
    """The image less a smooth background, 0 where not usable: clipped means in bins, averaged over 3x3 bins.

    Twice, since the first means are of pixels clipped about one level for all.
    """
    sample = image[::7, ::7][usable[::7, ::7]]
    level = np.full((1, 1), np.median(sample) if len(sample) else 0, np.float32)
    for _ in range(2 if len(sample) else 0):
        level = _level(image, level, variance, usable, size)
    out = np.empty_like(image)
    kernels.subtract(image, usable, level, out)
    return out


def _level(image: np.ndarray, about: np.ndarray, variance: np.ndarray, usable: np.ndarray, size: int) -> np.ndarray:
    """(my, mx) float32 background in bins of `size` pixels: the mean of pixels within 3 sigma of a level `about`."""
    ny, nx = image.shape
    my, mx = max(1, round(ny / size)), max(1, round(nx / size))
    total, count = np.zeros((my, mx)), np.zeros((my, mx))
    kernels.binned(image, variance, usable, about, 3.0, np.linspace(0, ny, my + 1).astype(np.int64),
                   np.linspace(0, nx, mx + 1).astype(np.int64), total, count)
    total, count = (ndimage.convolve(plane, np.ones((3, 3)), mode="constant") for plane in (total, count))
    return np.asarray(about + np.where(count > 0, total / np.maximum(count, 1), 0.0), np.float32)


def _footprints(snr: np.ndarray, image: np.ndarray, bits: np.ndarray, difference: Difference, config: DetectConfig
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, PEAK rows in order of labels, and rows whose peak lies on a pixel that is not trusted.

    Marks the grown footprints of either sign in `bits`.
    """
    labels = np.zeros(snr.shape, np.int32)
    of_plane = snr.ravel()
    significant = kernels.beyond(snr, config.low_threshold)
    tops, parts = [], []
    for sign in (1, -1):
        values = of_plane[significant] * np.float32(sign)
        order = np.argsort(-values, kind="stable")[:np.count_nonzero(values > 0)]
        values, flat = values[order], significant[order]
        top = hills.separate(values, flat, labels, config.threshold, config.valley, config.valley_fraction,
                             config.contrast)
        hill = labels.ravel()[flat]
        labels.ravel()[flat] = 0
        tops.append(flat[top])
        flat, hill = flat[hill > 0], hill[hill > 0] - 1
        order = np.lexsort((flat, hill))        # pixels of a hill together: it is painted in the cache
        parts.append((flat[order], hill[order]))
    at = np.concatenate(tops)
    y, x = np.divmod(at, snr.shape[1])
    positive = np.arange(len(at)) < len(tops[0])
    group = _groups(x, y, _heights(image, x, y), difference.psf.sigma, config)
    rows = _rows(x, y, positive, group, snr, difference.mask)
    refused = (rows["mask"] & planes.UNUSABLE) != 0
    number = np.where(refused, np.cumsum(refused) + np.count_nonzero(~refused), np.cumsum(~refused)).astype(np.int32)
    of_hill = number[group]
    own = np.concatenate([of_hill[parts[0][1]], of_hill[len(tops[0]):][parts[1][1]]])
    bit = np.repeat(np.array([planes.DETECTED, planes.DETECTED_NEGATIVE], np.int32), [len(p[0]) for p in parts])
    boxes = np.tile(np.array([*snr.shape[::-1], -1, -1], np.int32), (len(rows) + 1, 1))
    area = np.zeros(len(rows) + 1, np.int32)
    hills.grow(np.concatenate([p[0] for p in parts]), own, bit, _disc(_growth(difference.psf, config)), labels, bits,
               boxes, area)
    rows["area"] = area[number]
    for i, name in enumerate(("x0", "y0", "x1", "y1")):
        rows[name] = boxes[number, i]
    hills.erase(number[refused], boxes[number[refused]], labels)
    return labels, rows[~refused], rows[refused]


def _disc(radius: int) -> np.ndarray:
    """(k, 3) squared distance, rows and columns to the pixels of a disc without its middle, the nearest first."""
    dy, dx = (g.ravel() for g in np.mgrid[-radius:radius + 1, -radius:radius + 1])
    square = dy * dy + dx * dx
    order = np.argsort(square, kind="stable")[1:np.count_nonzero(square <= radius**2)]
    return np.ascontiguousarray(np.column_stack([square, dy, dx])[order])


def _heights(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n,) mean of 3 x 3 pixels at peaks: light, and not its significance, which is less where a bright star was."""
    step = np.arange(-1, 2)
    v = np.clip(y[:, None, None] + step[:, None], 0, image.shape[0] - 1)
    u = np.clip(x[:, None, None] + step, 0, image.shape[1] - 1)
    return np.asarray(image[v, u].sum(axis=(1, 2)) / 9.0)


def _groups(x: np.ndarray, y: np.ndarray, height: np.ndarray, sigma: float, config: DetectConfig) -> np.ndarray:
    """(n,) group of every hill: those of opposite sign that may be one source are together; in order of hills.

    One source are lobes nearer than `dipole_sigmas` PSF sigmas whose heights are those of a star that moved, or of a
    bright source and what its ill subtraction left; two in between are a source beside another.
    """
    n = len(x)
    pairs = np.empty((0, 2), int)
    if n:
        pairs = cKDTree(np.column_stack([x, y])).query_pairs(config.dipole_sigmas * sigma, output_type="ndarray")
    i, j = pairs.T
    low, high = (f(np.abs(height[i]), np.abs(height[j])) for f in (np.minimum, np.maximum))
    near = np.hypot(x[i] - x[j], y[i] - y[j]) <= config.lobe_sigmas * sigma
    one = (height[i] * height[j] < 0) & (near | (low > config.lobe_ratio * high) | (low < config.residual * high))
    graph = sparse.coo_matrix((np.ones(np.count_nonzero(one)), (i[one], j[one])), (n, n))
    part = sparse.csgraph.connected_components(graph, directed=False)[1]
    first = np.unique(part, return_index=True)[1]       # of each group, in order of groups
    return np.asarray(np.argsort(np.argsort(first))[part], int)


def _rows(x: np.ndarray, y: np.ndarray, positive: np.ndarray, group: np.ndarray, snr: np.ndarray,
          bits: np.ndarray) -> np.ndarray:
    """PEAK rows, one per group of hills, without their boxes and areas."""
    n = int(group.max()) + 1 if len(group) else 0
    rows = np.zeros(n, PEAK)
    for name in ("positive_x", "positive_y", "negative_x", "negative_y"):
        rows[name] = np.nan
    value = snr[y, x]
    # the most significant is written last, and stays; a positive lobe comes before a negative one up to twice as high
    order = np.argsort(np.abs(value) * np.where(positive, 2.0, 1.0), kind="stable")
    g = group[order]
    for name, plane in (("x", x), ("y", y), ("snr", value)):
        rows[name][g] = plane[order]
    for sign, name in ((True, "positive"), (False, "negative")):
        of = positive[order] == sign
        rows[name][g[of]] = True
        rows[f"{name}_x"][g[of]], rows[f"{name}_y"][g[of]] = x[order][of], y[order][of]
    rows["mask"] = bits[rows["y"], rows["x"]]
    return rows


def _blank_rms(snr: np.ndarray, usable: np.ndarray, labels: np.ndarray) -> float:
    """Robust rms of significance on blank sky: half the distance of the 16th and 84th percentiles."""
    step = max(2, int(np.sqrt(snr.size / SAMPLE)))
    every = np.s_[::step, ::step]
    values = snr[every][usable[every] & (labels[every] == 0)]
    if len(values) < 100:
        return float("nan")
    low, high = np.percentile(values, (15.865, 84.135))
    return float(high - low) / 2
