"""Detection on a difference image: significance, footprints, peaks.

    background -> cosmic rays -> significance -> mask of what is significant -> background again -> significance
        -> hills of each sign -> grown footprints, lobes of opposite sign merged -> streaks -> sky sources

Significance is the matched filter with the difference's own PSF P, normalised by the noise as it is,

    S = sum(P w d) / sqrt(sum(P^2 w^2 v)),    w = 1 / smoothed(v), 0 on unusable pixels,

which is sum(P d / v) / sqrt(sum(P^2 / v)) where the variance v is smooth. Smoothing keeps a variance plane that follows
the noise of its own pixels from biasing S; the denominator stays right where the variance is steep.

Rubin's Alert Production smooths with a Gaussian and does not deblend. Here two maxima of one sign within a footprint
are two sources when the valley between them is deep enough to be no fluctuation (`valley`): a transient next to
another is not swallowed. Lobes of opposite sign within five PSF sigmas are one source, as the dipole fit wants them.
"""

from dataclasses import replace
from typing import Final

import numpy as np
from scipy import fft, ndimage
from scipy.spatial import cKDTree

from pipeline import cosmicrays, streaks
from pipeline.images import PEAK, Calibrated, Detections, Difference
from pipeline.kernels import peaks as kernels
from pipeline.pixel_config import DetectConfig
from pipeline.psf import Psf
from schemas import mask as planes

TILE: Final = 512            # the PSF is constant over a tile of so many pixels
FAR: Final = np.int16(32767)
WEIGHTLESS: Final = planes.UNUSABLE | planes.SAT_TEMPLATE | planes.CR


def detect(difference: Difference, science: Calibrated, config: DetectConfig) -> Detections:
    """Sources of both signs above `threshold` sigmas of point-source significance.

    Cosmic rays carry no weight: what remains of a source under them may still be found. Streaks are masked along their
    full line after detection, so sources on them are measured and flagged.
    """
    variance, psf, scale = difference.variance, difference.psf, difference.noise_scale
    usable = _usable(difference.image, variance, difference.mask)
    image = np.where(usable, difference.image, np.float32(0))
    image = _less_background(image, variance, usable, config.background_bin)
    rays = cosmicrays.find(image, variance, usable, psf, config) if config.cosmic_rays else np.zeros_like(usable)
    usable &= ~rays
    weight = _weights(variance, usable)
    snr, norm = significance(image, variance, weight, psf, scale=scale)
    blank = ~ndimage.binary_dilation(np.abs(snr) > config.threshold, iterations=_growth(psf, config))
    image = image - _background(image, np.float32(0), variance, usable & blank, config.background_bin) * usable
    snr, _ = significance(image, variance, weight, psf, scale=scale, norm=norm)
    labels, found, signs = _footprints(snr, difference, config)
    bits = difference.mask & ~(planes.DETECTED | planes.DETECTED_NEGATIVE)
    lines = streaks.find(snr, usable, config) if config.streaks else []
    for where, bit in ((rays, planes.CR), (signs[0], planes.DETECTED), (signs[1], planes.DETECTED_NEGATIVE),
                       (streaks.plane(lines, snr.shape) if lines else None, planes.STREAK)):
        if where is not None:
            bits[where] |= bit
    refused = (found["mask"] & planes.UNUSABLE) != 0
    labels = _without(labels, refused)
    empty_sky = usable & (labels == 0)
    sky = _sky_sources(snr, empty_sky, bits, config)
    return Detections(replace(difference, image=image, mask=bits), snr, labels, np.concatenate([found[~refused], sky]),
                      _blank_rms(snr, empty_sky), found[refused])


def _sky_sources(snr: np.ndarray, blank: np.ndarray, bits: np.ndarray, config: DetectConfig) -> np.ndarray:
    """PEAK rows on blank sky, from a sequence of places that fills the plane evenly (Roberts' R2), without chance."""
    ny, nx = snr.shape
    radius = config.sky_radius
    rows = np.zeros(config.sky_sources, PEAK)
    k = np.arange(1, 5 * config.sky_sources + 1)
    x, y = (np.asarray((0.5 + k * step) % 1.0 * n, int) for step, n in ((0.7548776662466927, nx),
                                                                       (0.5698402909980532, ny)))
    clear = np.array([bool(blank[max(v - radius, 0):v + radius + 1, max(u - radius, 0):u + radius + 1].all())
                      and radius <= u < nx - radius and radius <= v < ny - radius
                      for u, v in zip(x, y, strict=True)], bool)
    x, y = x[clear][:len(rows)], y[clear][:len(rows)]
    rows = rows[:len(x)]
    rows["x"], rows["y"], rows["snr"], rows["sky_source"], rows["mask"] = x, y, snr[y, x], True, bits[y, x]
    rows["x0"], rows["x1"], rows["y0"], rows["y1"] = x - radius, x + radius, y - radius, y + radius
    for name in ("positive_x", "positive_y", "negative_x", "negative_y"):
        rows[name] = np.nan
    return rows


def _usable(image: np.ndarray, variance: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Pixels that carry weight."""
    return np.asarray(((bits & WEIGHTLESS) == 0) & np.isfinite(image) & (variance > 0) & np.isfinite(variance))


def _growth(psf: Psf, config: DetectConfig) -> int:
    return max(1, round(config.grow_sigmas * psf.sigma))


def _weights(variance: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Inverse variances, smoothed over 5x5 usable pixels; 0 on unusable ones."""
    share = ndimage.uniform_filter(usable.astype(np.float32), 5, mode="constant")
    total = ndimage.uniform_filter(np.where(usable, variance, np.float32(0)), 5, mode="constant")
    floor = np.finfo(np.float32).tiny
    return np.asarray(np.where(usable & (total > 0), share / np.maximum(total, floor), np.float32(0)))


def significance(image: np.ndarray, variance: np.ndarray, weight: np.ndarray, psf: Psf, *, scale: float = 1.0,
                 norm: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Signed S/N of a point source centred on every pixel, and its denominator, which a second call may reuse.

    `scale` is the factor by which correlated noise exceeds that of independent pixels.
    """
    ny, nx = image.shape
    half = psf.width // 2
    signal = weight * image
    power = None if norm is not None else weight * weight * variance
    out = np.zeros_like(image, dtype=np.float32)
    norm = np.zeros_like(out) if norm is None else norm
    for y in range(0, ny, TILE):
        for x in range(0, nx, TILE):
            tile = slice(y, min(y + TILE, ny)), slice(x, min(x + TILE, nx))
            stamp = psf.at((tile[1].start + tile[1].stop - 1) / 2, (tile[0].start + tile[0].stop - 1) / 2)
            if power is not None:
                square = np.maximum(_correlate(power, stamp**2, tile, half), 0)
                norm[tile] = np.sqrt(square, dtype=np.float32) * np.float32(scale)
            out[tile] = _correlate(signal, stamp, tile, half)
    floor = np.float32(1e-3) * np.median(norm[norm > 0]) if np.any(norm > 0) else np.float32(1)
    return np.where(norm > floor, out / np.maximum(norm, floor), np.float32(0)), norm


def _correlate(plane: np.ndarray, stamp: np.ndarray, tile: tuple[slice, slice], half: int) -> np.ndarray:
    """Correlation of a plane (0 beyond its border) with a stamp of half side `half`, on a tile."""
    ny, nx = plane.shape
    rows, columns = tile
    y0, y1, x0, x1 = rows.start - half, rows.stop + half, columns.start - half, columns.stop + half
    part = plane[max(y0, 0):min(y1, ny), max(x0, 0):min(x1, nx)]
    shape = tuple(fft.next_fast_len(n, real=True) for n in (y1 - y0, x1 - x0))
    padded = np.zeros(shape, np.float32)
    oy, ox = max(-y0, 0), max(-x0, 0)
    padded[oy:oy + part.shape[0], ox:ox + part.shape[1]] = part
    kernel = fft.rfft2(stamp.astype(np.float32), shape)
    result = fft.irfft2(fft.rfft2(padded) * np.conj(kernel), shape)
    return np.asarray(result[:rows.stop - rows.start, :columns.stop - columns.start])


def _less_background(image: np.ndarray, variance: np.ndarray, usable: np.ndarray, size: int) -> np.ndarray:
    """The image less a smooth background: clipped means in bins, averaged over 3x3 bins, linear in between.

    Twice, since the first means are of pixels clipped about one level for all.
    """
    sample = image[::7, ::7][usable[::7, ::7]]
    if not len(sample):
        return image
    level = np.float32(np.median(sample))
    background = _background(image, level, variance, usable, size)
    return np.where(usable, image - _background(image, background, variance, usable, size), image)


def _background(image: np.ndarray, about: np.ndarray | np.float32, variance: np.ndarray, usable: np.ndarray,
                size: int) -> np.ndarray:
    """(ny, nx) float32 mean of pixels within 3 sigma of `about`, smooth over bins of `size` pixels."""
    ny, nx = image.shape
    my, mx = max(1, round(ny / size)), max(1, round(nx / size))
    off = image - about
    fair = usable & (off * off < 9 * variance)
    rows, columns = np.linspace(0, ny, my + 1).astype(int), np.linspace(0, nx, mx + 1).astype(int)
    total = _binned(np.where(fair, off, np.float32(0)), rows, columns)
    count = _binned(fair, rows, columns)
    wide = np.ones((3, 3))
    total, count = (ndimage.convolve(plane, wide, mode="constant") for plane in (total, count))
    level = np.where(count > 0, total / np.maximum(count, 1), 0.0)
    y = (np.arange(ny) + 0.5) / ny * my - 0.5
    x = (np.arange(nx) + 0.5) / nx * mx - 0.5
    down, across = _hat(y, my).astype(np.float32), _hat(x, mx).astype(np.float32)
    return np.asarray(about + down @ (level.astype(np.float32) @ across.T))


def _binned(plane: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    lines = np.add.reduceat(plane, columns[:-1], axis=1, dtype=np.float32)
    return np.asarray(np.add.reduceat(lines, rows[:-1], axis=0, dtype=float))


def _hat(at: np.ndarray, n: int) -> np.ndarray:
    """(len(at), n) weights of linear interpolation between n points 0, 1, ...; constant beyond."""
    return np.asarray(np.clip(1.0 - np.abs(np.clip(at, 0, n - 1)[:, None] - np.arange(n)), 0.0, None))


def _footprints(snr: np.ndarray, difference: Difference, config: DetectConfig
                ) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Labels, PEAK rows in order of labels, and the grown masks of each sign."""
    radius = _growth(difference.psf, config)
    tops, hills = [], []
    for sign in (1, -1):
        values = snr.ravel() * np.float32(sign)
        flat = np.flatnonzero(values > config.low_threshold)
        flat = flat[np.argsort(-values[flat], kind="stable")]
        seeds = np.zeros(snr.shape, np.int32)
        top = kernels.separate(values[flat], flat, seeds, config.threshold, config.valley, config.valley_fraction,
                               config.contrast)
        tops.append(flat[top])
        hills.append((seeds, flat))
    at = np.concatenate(tops)
    y, x = np.divmod(at, snr.shape[1])
    positive = np.arange(len(at)) < len(tops[0])
    group = _groups(x, y, _heights(difference.image, x, y), difference.psf.sigma, config)
    labels, distance = np.zeros(snr.shape, np.int32), np.full(snr.shape, FAR)
    signs, start = [], 0
    for (seeds, flat), top in zip(hills, tops, strict=True):
        number = np.concatenate([[0], group[start:start + len(top)] + 1]).astype(np.int32)
        start += len(top)
        kernels.grow(seeds, flat, number, radius, labels, distance)
        own, own_distance = np.zeros(snr.shape, np.int32), np.full(snr.shape, FAR)
        kernels.grow(seeds, flat, number, radius, own, own_distance)
        signs.append(own > 0)
    return labels, _rows(x, y, positive, group, labels, snr, difference.mask), (signs[0], signs[1])


def _heights(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n,) mean of 3 x 3 pixels at peaks: light, and not its significance, which is less where a bright star was."""
    padded = np.pad(image, 1, mode="edge")
    return np.asarray(sum(padded[y + j, x + i] for j in range(3) for i in range(3)) / 9.0)


def _groups(x: np.ndarray, y: np.ndarray, height: np.ndarray, sigma: float, config: DetectConfig) -> np.ndarray:
    """(n,) group of every hill: those of opposite sign that may be one source are together; in order of hills.

    One source are lobes nearer than `dipole_sigmas` PSF sigmas whose heights are those of a star that moved, or of a
    bright source and what its ill subtraction left; two in between are a source beside another.
    """
    parent = np.arange(len(x))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    if len(x):
        for i, j in cKDTree(np.column_stack([x, y])).query_pairs(config.dipole_sigmas * sigma, output_type="ndarray"):
            low, high = sorted((abs(height[i]), abs(height[j])))
            near = np.hypot(x[i] - x[j], y[i] - y[j]) <= config.lobe_sigmas * sigma
            if height[i] * height[j] < 0 and (near or low > config.lobe_ratio * high or low < config.residual * high):
                a, b = sorted((root(i), root(j)))
                parent[b] = a
    roots = np.array([root(i) for i in range(len(x))], int)
    return np.asarray(np.unique(roots, return_inverse=True)[1], int)


def _rows(x: np.ndarray, y: np.ndarray, positive: np.ndarray, group: np.ndarray, labels: np.ndarray, snr: np.ndarray,
          bits: np.ndarray) -> np.ndarray:
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
    rows["area"] = np.bincount(labels.ravel(), minlength=n + 1)[1:n + 1]
    for i, box in enumerate(ndimage.find_objects(labels, n)):
        if box is not None:
            rows["y0"][i], rows["y1"][i] = box[0].start, box[0].stop - 1
            rows["x0"][i], rows["x1"][i] = box[1].start, box[1].stop - 1
    return rows


def _without(labels: np.ndarray, refused: np.ndarray) -> np.ndarray:
    """Labels renumbered after some are taken out."""
    if not refused.any():
        return labels
    number = np.concatenate([[0], np.where(refused, 0, np.cumsum(~refused))]).astype(np.int32)
    return np.asarray(number[labels])


def _blank_rms(snr: np.ndarray, blank: np.ndarray) -> float:
    """Robust rms of significance on blank sky: half the distance of the 16th and 84th percentiles."""
    values = snr[::2, ::2][blank[::2, ::2]]
    if len(values) < 100:
        return float("nan")
    low, high = np.percentile(values, (15.865, 84.135))
    return float(high - low) / 2
