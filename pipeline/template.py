"""Templates: coadds of earlier visits, and their warp onto a science exposure.

    visits -> select -> warp each -> reject what one visit alone shows -> inverse-variance weighted mean
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pipeline import interpolate
from pipeline.calibrate.psf import polynomial
from pipeline.errors import NoWorkFound
from pipeline.images import Calibrated, Template
from pipeline.kernels import coadd as kernels
from pipeline.kernels.resample import resample
from pipeline.pixel_config import TemplateConfig
from pipeline.psf import Psf
from schemas import mask as planes
from schemas.wcs import Wcs

_STEP = 16             # px between exact evaluations of a map from grid to grid
_TAKEN = interpolate.HALF + 2   # px of an input taken beyond what is asked for
_SMOOTHING_PX = 1.5    # about a PSF: where a satellite's trail stands out
_MAX_LAG = 5           # px of the noise's autocorrelation
_FULL = 15             # visits in a strip of `strip_rows`, its margins included; strips of more are narrower
_MARGIN = 16          # rows computed beside a strip: artifacts are followed and smoothed across its border
_BEYOND_PX = 24      # around a warped template, for convolution at its border (ip_diffim getTemplate: 20)
_REFUSED = planes.NO_DATA | planes.BAD | planes.SAT | planes.EDGE | planes.CR | planes.SPIKE | planes.STREAK
_SATURATED_SHARE = 1 / 3   # of the inputs' weight from which a pixel of the template counts as saturated


@dataclass(frozen=True, slots=True)
class Quality:
    """What decides whether a visit goes into a template."""

    fwhm_arcsec: float
    zeropoint_scale: float = 1.0     # effTimeZeroPointScale: transparency squared against the fiducial


def select(qualities: Sequence[Quality], config: TemplateConfig) -> tuple[int, ...]:
    """Indices of the visits to coadd, best seeing first.

    The best-seeing third and at least `min_visits` (QuickTemplate); incremental: at most `max_visits` of those that
    are sharp and clear enough ("Prompt" templates).
    """
    order = sorted(range(len(qualities)), key=lambda i: (qualities[i].fwhm_arcsec, i))
    if config.incremental:
        fit = [i for i in order if qualities[i].fwhm_arcsec <= config.max_fwhm_arcsec
               and qualities[i].zeropoint_scale >= config.min_zeropoint_scale]
        return tuple(fit[:config.max_visits])
    return tuple(order[:max(config.min_visits, int(np.ceil(config.quantile * len(order))))])


# --- from grid to grid -----------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class GridMap:
    """Where the pixels of one grid lie on another, on every _STEP-th pixel; linear in between.

    The neglected curvature is under 1e-3 px for tangent planes and for camera distortions.
    """

    x: np.ndarray          # (my, mx)
    y: np.ndarray
    shape: tuple[int, int]     # of the grid mapped from

    @classmethod
    def between(cls, origin: Wcs, shape: tuple[int, int], target: Wcs) -> "GridMap":
        """The map from pixels of `origin` to pixels of `target`."""
        gx = np.arange(0, shape[1] - 1 + _STEP, _STEP, dtype=float)
        gy = np.arange(0, shape[0] - 1 + _STEP, _STEP, dtype=float)
        gx, gy = np.append(gx, gx[-1] + _STEP), np.append(gy, gy[-1] + _STEP)
        x, y = target.pixels(*origin.sky(*np.meshgrid(gx, gy)))
        x, y = np.nan_to_num(x, nan=-1e9), np.nan_to_num(y, nan=-1e9)
        for line in (x, y):     # a shift by whole pixels stays one, whatever the last digits of the trigonometry
            near = np.abs(line - np.rint(line)) < 1e-6
            line[near] = np.rint(line[near])
        return cls(np.ascontiguousarray(x), np.ascontiguousarray(y), shape)

    def at(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mapped positions of any pixels."""
        x, y = np.asarray(x, float), np.asarray(y, float)
        i = np.clip((x // _STEP).astype(int), 0, self.x.shape[1] - 2)
        j = np.clip((y // _STEP).astype(int), 0, self.x.shape[0] - 2)
        fx, fy = x / _STEP - i, y / _STEP - j
        out = []
        for grid in (self.x, self.y):
            out.append((1 - fy) * ((1 - fx) * grid[j, i] + fx * grid[j, i + 1])
                       + fy * ((1 - fx) * grid[j + 1, i] + fx * grid[j + 1, i + 1]))
        return out[0], out[1]

    def jacobian(self, x: float, y: float) -> np.ndarray:
        """(2, 2) derivative of the mapped position."""
        h = 4.0
        xs, ys = self.at(np.array([x - h, x + h, x, x]), np.array([y, y, y - h, y + h]))
        return np.array([[xs[1] - xs[0], xs[3] - xs[2]], [ys[1] - ys[0], ys[3] - ys[2]]]) / (2 * h)


def _resampled(image: np.ndarray, variance: np.ndarray, mask: np.ndarray, grid: GridMap, row0: int,
               rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows row0 .. row0 + rows of the grid mapped from; surface brightness times the ratio of areas."""
    out = np.empty((rows, grid.shape[1]), np.float32)
    out_variance, out_mask = np.empty_like(out), np.empty(out.shape, np.int32)
    window = _window(image, grid, row0, rows)
    if window is None:
        out[:], out_variance[:], out_mask[:] = 0, 0, planes.NO_DATA
        return out, out_variance, out_mask
    part = (np.ascontiguousarray(image[window], np.float32), np.ascontiguousarray(variance[window], np.float32),
            np.ascontiguousarray(mask[window], np.int32))
    resample(*part, grid.x - window[1].start, grid.y - window[0].start, _STEP, row0,
             interpolate.table(interpolate.HALF), out, out_variance, out_mask, planes.NO_DATA)
    area = abs(float(np.linalg.det(grid.jacobian((grid.shape[1] - 1) / 2, row0 + (rows - 1) / 2))))
    if abs(area - 1.0) > 1e-9:
        out *= np.float32(area)
        out_variance *= np.float32(area**2)
    return out, out_variance, out_mask


def _window(image: np.ndarray, grid: GridMap, row0: int, rows: int) -> tuple[slice, slice] | None:
    """The part of an image that rows of the grid are made of; whole rows of one in memory, which then is not copied."""
    nodes = slice(row0 // _STEP, (row0 + rows - 1) // _STEP + 2)
    out = []
    for line, n in ((grid.y, image.shape[0]), (grid.x, image.shape[1])):
        low, high = float(line[nodes].min()), float(line[nodes].max())
        first, last = max(int(np.floor(low)) - _TAKEN, 0), min(int(np.ceil(high)) + _TAKEN + 1, n)
        if last <= first:
            return None
        out.append(slice(first, last))
    return (out[0], slice(0, image.shape[1])) if isinstance(image, np.ndarray) else (out[0], out[1])


def rotated(stamp: np.ndarray, jacobian: np.ndarray, side: int) -> np.ndarray:
    """(side, side) PSF seen on another grid: offset q there is jacobian q here; unit sum."""
    k = np.arange(side) - side // 2
    qx, qy = np.meshgrid(k, k)
    middle = stamp.shape[0] // 2
    x = jacobian[0, 0] * qx + jacobian[0, 1] * qy + middle
    y = jacobian[1, 0] * qx + jacobian[1, 1] * qy + middle
    if np.allclose(jacobian, np.eye(2), atol=1e-7) and side == stamp.shape[0]:
        return np.asarray(stamp / stamp.sum())
    out = np.maximum(interpolate.sampled(stamp, x, y), 0.0)
    return np.asarray(out / out.sum())


def warped_acf(acf: np.ndarray, grid: GridMap, samples: int = 6) -> tuple[np.ndarray, float]:
    """(2k+1, 2k+1) autocorrelation of noise after the warp, and its variance over that of white noise warped.

    Exact covariances of the interpolation weights at samples^2 places, for noise whose autocorrelation was `acf`.
    """
    k = _MAX_LAG
    lags = np.arange(-k, k + 1)
    lx, ly = (g.ravel() for g in np.meshgrid(lags, lags))
    places = _places(grid.shape, samples, margin=k)
    total, white = np.zeros(len(lx)), 0.0
    reach = acf.shape[0] // 2
    for px, py in places:
        x, y = grid.at(px + lx, py + ly)
        x0, y0 = grid.at(np.array([px]), np.array([py]))
        line_x, line_y = _overlaps(x0, x, reach), _overlaps(y0, y, reach)     # (lags, 2 reach + 1)
        total += np.einsum("ly,yx,lx->l", line_y, acf, line_x)
        own_x, own_y = _overlaps(x0, x0, 0), _overlaps(y0, y0, 0)
        white += float(own_x[0, 0] * own_y[0, 0])
    out = total.reshape(2 * k + 1, 2 * k + 1)
    out = (out + out[::-1, ::-1]) / 2
    return out / out[k, k], float(out[k, k] / white)


def _overlaps(a: np.ndarray, b: np.ndarray, reach: int) -> np.ndarray:
    """(n, 2 reach + 1): sums over i of w_a(i) w_b(i + m) for m = -reach .. reach, along one axis."""
    half = interpolate.HALF
    low_a, low_b = np.floor(a + 1e-9), np.floor(b + 1e-9)
    wa, wb = interpolate.weights(a - low_a), interpolate.weights(b - low_b)
    shift = np.rint(low_b - low_a).astype(int)      # first tap of b counted from first tap of a
    pad = 2 * half + reach + 2
    long = np.zeros((len(b), 2 * half + 2 * pad))
    taps = np.arange(2 * half)
    column = np.clip(taps[None, :] + shift[:, None] + pad, 0, long.shape[1] - 1)
    far = np.abs(shift) > 2 * half + reach
    np.put_along_axis(long, column, np.where(far[:, None], 0.0, wb), axis=1)
    return np.stack([(long[:, pad + m:pad + m + 2 * half] * wa).sum(axis=1) for m in range(-reach, reach + 1)], axis=1)


def _places(shape: tuple[int, int], n: int, margin: int = 0) -> list[tuple[float, float]]:
    """n^2 places over an image; not on one phase of the pixel grid."""
    xs = np.unique(np.rint(np.linspace(margin, max(shape[1] - 1 - margin, margin), n)))
    ys = np.unique(np.rint(np.linspace(margin, max(shape[0] - 1 - margin, margin), n)))
    return [(float(x), float(y)) for y in ys for x in xs]


# --- coadd -----------------------------------------------------------------------------------------------------------

def coadd(inputs: Sequence[Calibrated], wcs: Wcs, shape: tuple[int, int], config: TemplateConfig) -> Template:
    """The weighted mean of visits on one grid, without what only one of them shows.

    Weights are one per visit, the inverse of its blank-sky variance: weights that follow the pixels' own noise would
    make the PSF depend on flux. `inputs` is read strip by strip, so it may load from disk.

    Raises
    ------
    NoWorkFound
        No input, or none overlaps the grid.
    """
    if len(inputs) == 0:
        raise NoWorkFound("template: no input visit")
    bands = {c.visit.band for c in inputs}
    if len(bands) > 1:
        raise ValueError(f"a template has one band, got {', '.join(sorted(bands))}")
    maps = [GridMap.between(wcs, shape, c.wcs) for c in inputs]
    overlapping = [n for n, (c, m) in enumerate(zip(inputs, maps, strict=True)) if _overlaps_grid(m, c.shape)]
    if not overlapping:
        raise NoWorkFound(f"template: none of {len(inputs)} input visits overlaps the grid about "
                          f"RA {wcs.crval[0]:.4f}, Dec {wcs.crval[1]:.4f}")
    kept = [inputs[n] for n in overlapping]
    grids = [maps[n] for n in overlapping]
    weights = np.array([1.0 / _blank_variance(c) for c in kept])
    noise = [warped_acf(c.noise_acf, m) for c, m in zip(kept, grids, strict=True)]
    tolerance = _allowance(kept, grids, [n[0] for n in noise], shape)
    image, variance = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    mask, count = np.zeros(shape, np.int32), np.zeros(shape, np.int16)
    excess, height = np.array([n[1] for n in noise]), max(_FULL * config.strip_rows // len(kept) - 2 * _MARGIN, 8)
    for first in range(0, shape[0], height):
        rows = slice(first, min(first + height, shape[0]))
        _fill_strip((image[rows], variance[rows], mask[rows], count[rows]), kept, grids, weights, excess, tolerance,
                    first, shape[0], config)
    mask |= _high_variance(variance, mask, config)
    variance = _filled(variance, mask)
    acf = np.tensordot(weights / weights.sum(), np.stack([n[0] for n in noise]), axes=1)
    return Template(kept[0].visit.band, image, variance, mask, _coadd_psf(kept, grids, weights, shape), wcs, count,
                    _trimmed(acf), tuple(c.visit.visit for c in kept))


def _overlaps_grid(grid: GridMap, shape: tuple[int, int]) -> bool:
    inside = (grid.x > -_STEP) & (grid.x < shape[1] - 1 + _STEP) & (grid.y > -_STEP) & (grid.y < shape[0] - 1 + _STEP)
    return bool(inside.any())


def _blank_variance(calibrated: Calibrated) -> float:
    usable = calibrated.mask[::7, ::7] & _REFUSED == 0
    values = calibrated.variance[::7, ::7][usable]
    if len(values) == 0:
        return np.inf
    return float(np.median(values))


@dataclass(frozen=True, slots=True)
class _Allowance:
    """By how much a star in each visit may differ from the median of the visits, for nothing but its PSF."""

    sharp: np.ndarray      # (n,) of the local range of brightness
    broad: np.ndarray      # (n,) of the local maximum, after smoothing
    noise: np.ndarray      # (n,) noise after smoothing over noise of a pixel


def _allowance(inputs: Sequence[Calibrated], grids: Sequence[GridMap], acfs: Sequence[np.ndarray],
               shape: tuple[int, int]) -> _Allowance:
    """The largest ratios among the visits' own PSFs, with 0.05 px of astrometric error, and a third more."""
    side = max(c.psf.width for c in inputs)
    middle = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    stamps = np.stack([rotated(c.psf.central, g.jacobian(*middle), side) for c, g in zip(inputs, grids, strict=True)])
    typical = np.median(stamps, axis=0)
    bright, steep, smooth, smooth_bright = _surroundings(typical)
    core = bright > 2e-4 * typical.max()
    moved = interpolate.shifted(stamps, np.full(len(stamps), 0.05), np.full(len(stamps), 0.05))
    sharp, broad = [], []
    for stamp in moved:
        sharp.append(float((np.abs(stamp - typical) / np.maximum(steep, 1e-30))[core].max()))
        difference = np.abs(_smoothed(stamp) - smooth)
        broad.append(float((difference / np.maximum(smooth_bright, 1e-30))[core].max()))
    return _Allowance(1.3 * np.array(sharp) + 0.1, 1.3 * np.array(broad) + 0.02,
                      np.array([_smoothed_noise(acf) for acf in acfs]))


def _smoothed_noise(acf: np.ndarray) -> float:
    """Noise of a smoothed image over that of its pixels, for noise of this autocorrelation."""
    k = np.arange(acf.shape[0]) - acf.shape[0] // 2
    window = np.exp(-(k[:, None] ** 2 + k**2) / (4 * _SMOOTHING_PX**2)) / (4 * np.pi * _SMOOTHING_PX**2)
    return float(np.sqrt(max(float((acf * window).sum()), 1e-12)))


def _smoothed(image: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(image, _SMOOTHING_PX, truncate=3.0))


def _surroundings(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Local maximum and range of brightness, the smoothed image, and its local maximum."""
    bright = ndimage.maximum_filter(np.maximum(image, 0), 5)
    steep = bright - ndimage.minimum_filter(image, 5)
    smooth = _smoothed(image)
    return bright, steep, smooth, ndimage.maximum_filter(np.maximum(smooth, 0), 9)


def _fill_strip(strip: tuple[np.ndarray, ...], inputs: Sequence[Calibrated], grids: Sequence[GridMap],
                weights: np.ndarray, excess: np.ndarray, tolerance: _Allowance, first: int, ny: int,
                config: TemplateConfig) -> None:
    """Fill image, variance, mask and number of inputs of a strip that begins with row `first` of `ny`."""
    low, high = max(first - _MARGIN, 0), min(first + len(strip[0]) + _MARGIN, ny)
    shape = len(inputs), high - low, strip[0].shape[1]
    images, variances, masks = np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, np.int32)
    for n, (c, grid) in enumerate(zip(inputs, grids, strict=True)):
        images[n], variances[n], masks[n] = _resampled(c.image, c.variance, c.mask, grid, low, high - low)
        variances[n] *= np.float32(excess[n])
    good = (masks & np.int32(_REFUSED)) == 0
    if config.reject_artifacts and len(inputs) > 1:
        _reject_artifacts(images, variances, good, tolerance, config)
    kernels.mean(images, variances, masks, good, weights, planes.NO_DATA, planes.SAT, planes.SUSPECT | planes.INTRP,
                 _SATURATED_SHARE, first - low, *strip)


def _reject_artifacts(images: np.ndarray, variances: np.ndarray, good: np.ndarray, tolerance: _Allowance,
                      config: TemplateConfig) -> None:
    """Clear `good` on pixels that differ from the other visits by more than noise and seeing explain.

    Compared twice: as they are (cosmic rays) and smoothed to about a PSF (satellites), against the median of the
    visits. The allowance grows with the brightness nearby, by as much as the visits' PSFs differ; and a star may vary:
    a difference in proportion to its light is the star's own, unless it hangs together with an artifact beside it.
    Of two visits neither is the odd one: the brighter is, artifacts add light.
    """
    middle, difference, smooth, scratch = (np.empty(images.shape[1:], np.float32) for _ in range(4))
    kernels.median(images, good, middle)
    count = good.sum(axis=0, dtype=np.int16)
    bright, steep, _, smooth_bright = (np.ascontiguousarray(p, np.float32) for p in _surroundings(middle))
    reach = int(3.0 * _SMOOTHING_PX + 0.5)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _SMOOTHING_PX) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    for n in range(len(images)):
        kernels.deviation(images[n], middle, good[n], count, difference)
        kernels.blur(difference, taps, smooth)
        limits = np.array([config.artifact_sigma, tolerance.sharp[n], tolerance.noise[n], tolerance.broad[n],
                           config.variability], np.float32)
        kernels.reject(difference, smooth, variances[n], bright, steep, smooth_bright, scratch, limits, good[n])


def _high_variance(variance: np.ndarray, mask: np.ndarray, config: TemplateConfig) -> np.ndarray:
    """HIGH_VARIANCE where the variance averaged in bins exceeds a number of medians of the bins.

    A pixel counts with at most so much that half a bin must be bad: a star's own photon noise is no lack of depth.
    """
    side, (ny, nx) = config.variance_bin_px, variance.shape
    sample = variance[::3, ::3][(mask[::3, ::3] & planes.NO_DATA) == 0]
    out = np.zeros_like(mask)
    if not len(sample):
        return out
    most = np.float32((2 * config.high_variance - 1) * float(np.median(sample)))
    columns = np.arange(0, nx, side)
    sums, counts = [], []
    for row in range(0, ny, side):
        usable = (mask[row:row + side] & planes.NO_DATA) == 0
        clipped = np.where(usable, np.minimum(variance[row:row + side], most), np.float32(0)).sum(axis=0, dtype=float)
        sums.append(np.add.reduceat(clipped, columns))
        counts.append(np.add.reduceat(usable.sum(axis=0), columns))
    means, count = np.array(sums) / np.maximum(counts, 1), np.array(counts)
    high = (means > config.high_variance * np.median(means[count > 0])) & (count >= 0.1 * side**2)
    for j, i in np.argwhere(high):
        bin_ = np.s_[j * side:(j + 1) * side, i * side:(i + 1) * side]
        out[bin_] = np.where((mask[bin_] & planes.NO_DATA) == 0, planes.HIGH_VARIANCE, 0)
    return out


def _filled(variance: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Variance with the median where there are no data: finite and positive for all who convolve it."""
    missing = (mask & planes.NO_DATA) > 0
    if not missing.any() or missing.all():
        return variance
    return np.asarray(np.where(missing, np.median(variance[~missing]), variance), np.float32)


def _coadd_psf(inputs: Sequence[Calibrated], grids: Sequence[GridMap], weights: np.ndarray,
               shape: tuple[int, int]) -> Psf:
    """The weighted mean of the inputs' PSFs, each seen on the template's grid, as polynomials of position."""
    side = max(c.psf.width for c in inputs)
    places = _places(shape, 5)
    stamps, xs, ys, total = [], [], [], []
    for x, y in places:
        stamp, weight = np.zeros((side, side)), 0.0
        for c, grid, w in zip(inputs, grids, weights, strict=True):
            gx, gy = grid.at(np.array([x]), np.array([y]))
            if -0.5 < gx[0] < c.shape[1] - 0.5 and -0.5 < gy[0] < c.shape[0] - 0.5:
                stamp += w * rotated(c.psf.at(float(gx[0]), float(gy[0])), grid.jacobian(x, y), side)
                weight += w
        if weight > 0:
            stamps.append(stamp / weight)
            xs.append(x)
            ys.append(y)
            total.append(weight)
    if not stamps:      # the inputs meet the grid between the places
        nearest = rotated(inputs[0].psf.central, grids[0].jacobian(*places[len(places) // 2]), side)
        return Psf.constant(nearest, shape)
    # borders that fewer visits cover have another PSF; a polynomial cannot follow, so it follows the covered part
    covered = (np.array(total) / max(total)) ** 6
    order = max(c.psf.order for c in inputs)
    while order and np.count_nonzero(covered > 0.5) < (order + 1) * (order + 2):
        order -= 1
    return _fitted(np.stack(stamps), np.array(xs), np.array(ys), shape, order, covered)


def _fitted(stamps: np.ndarray, x: np.ndarray, y: np.ndarray, shape: tuple[int, int], order: int,
            weights: np.ndarray | None = None) -> Psf:
    if order == 0:
        return Psf.constant(np.average(stamps, axis=0, weights=weights), shape)
    return Psf(polynomial(stamps, x, y, shape, order, weights), order, shape)


def _trimmed(acf: np.ndarray) -> np.ndarray:
    """(1, 1) where noise is white."""
    k = acf.shape[0] // 2
    off = acf.copy()
    off[k, k] = 0.0
    return np.ones((1, 1)) if np.abs(off).max(initial=0.0) < 1e-3 else acf


# --- warp ------------------------------------------------------------------------------------------------------------

def warp(template: Template, wcs: Wcs, shape: tuple[int, int], config: TemplateConfig) -> Template:
    """The template on another grid: image, variance, mask, PSF, inputs and noise correlation.

    Raises
    ------
    NoWorkFound
        No pixel of the grid has data.
    """
    grid = GridMap.between(wcs, shape, template.wcs)
    if not _overlaps_grid(grid, template.shape):
        raise NoWorkFound(f"template: no overlap with the exposure about RA {wcs.crval[0]:.4f}, "
                          f"Dec {wcs.crval[1]:.4f}")
    wide = GridMap.between(wcs.shifted(-_BEYOND_PX, -_BEYOND_PX),
                           (shape[0] + 2 * _BEYOND_PX, shape[1] + 2 * _BEYOND_PX), template.wcs)
    around = _resampled(template.image, template.variance, template.mask, wide, 0, wide.shape[0])
    beyond = np.where((around[2] & planes.NO_DATA) > 0, np.float32(np.nan), around[0])
    inner = np.s_[_BEYOND_PX:-_BEYOND_PX, _BEYOND_PX:-_BEYOND_PX]
    image, variance, mask = (np.ascontiguousarray(plane[inner]) for plane in around)
    if ((mask & planes.NO_DATA) > 0).all():
        raise NoWorkFound(f"template: none of {image.size} pixels of the exposure has template data")
    acf, excess = warped_acf(template.noise_acf, grid)
    variance = _filled(variance * np.float32(excess), mask)
    places = _places(shape, 5)
    xs, ys = np.array([p[0] for p in places]), np.array([p[1] for p in places])
    gx, gy = grid.at(xs, ys)
    stamps = np.stack([rotated(template.psf.at(float(a), float(b)), grid.jacobian(x, y), template.psf.width)
                       for a, b, x, y in zip(gx, gy, xs, ys, strict=True)])
    psf = _fitted(stamps, xs, ys, shape, template.psf.order)
    return Template(template.band, image, variance, mask, psf, wcs, _nearest(template.n_inputs, grid, mask),
                    _trimmed(acf), template.inputs, beyond)


def _nearest(counts: np.ndarray, grid: GridMap, mask: np.ndarray) -> np.ndarray:
    """Numbers of inputs at the nearest pixels; 0 without data."""
    out = np.zeros(mask.shape, np.int16)
    x = np.arange(mask.shape[1], dtype=float)
    for first in range(0, mask.shape[0], 256):
        rows = np.arange(first, min(first + 256, mask.shape[0]), dtype=float)
        gx, gy = grid.at(*np.meshgrid(x, rows))
        i = np.clip(np.rint(gx), 0, counts.shape[1] - 1).astype(int)
        j = np.clip(np.rint(gy), 0, counts.shape[0] - 1).astype(int)
        out[first:first + len(rows)] = counts[j, i]
    out[(mask & planes.NO_DATA) > 0] = 0
    return out
