"""The stage: choose a side, fit the kernel, subtract, whiten, and say how well it is known.

    template convolved:  D = W * (S - K * T - background)          K turns the template's PSF into the science PSF
    science convolved:   D = W * (K * S - T - background) / sum K  when the science image is the sharper one

W whitens the noise and has unit sum, so a new source of flux F has PSF flux F in D, with PSF W * P_science (and K).

Whatever is smooth is worked out on coarse planes of 4 x 4 pixels: which sky is blank, the background, the halos of
bright stars, the errors that grow with light. Full planes are read once per pass, by kernels or by tiles of a
transform, and rows or tiles may be shared among threads.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np
from scipy import fft
from scipy.ndimage import binary_dilation, gaussian_filter, uniform_filter
from scipy.signal import fftconvolve

from pipeline.difference import kernel as matching
from pipeline.difference.memory import plane
from pipeline.difference.repair import Saturated, restore
from pipeline.difference.spatial import SpatialKernel, convolve, identity, over, square, terms
from pipeline.difference.stars import KernelStars, cut, select
from pipeline.difference.whiten import Nodes, Noise, interpolate, whitening
from pipeline.difference.wings import wings
from pipeline.errors import AlgorithmError, NoWorkFound
from pipeline.images import Calibrated, Difference, Template
from pipeline.kernels import difference as passes
from pipeline.kernels.difference import BAD, BIN, FULL, HOLE, WRONG
from pipeline.pixel_config import DifferenceConfig
from pipeline.psf import Psf
from schemas import mask as planes

UNFIT: Final = (planes.NO_DATA | planes.BAD | planes.SAT | planes.EDGE | planes.CR | planes.HIGH_VARIANCE
                | planes.SAT_TEMPLATE)
MEANINGLESS: Final = planes.NO_DATA | planes.BAD | planes.SAT | planes.CR | planes.SAT_TEMPLATE   # as values
KEPT: Final = planes.NO_DATA | planes.BAD | planes.HIGH_VARIANCE   # of a template's planes, under their own names
RENAMED: Final = np.array([(planes.SAT, planes.SAT_TEMPLATE), (planes.SAT_TEMPLATE, planes.SAT_TEMPLATE),
                           (planes.INJECTED, planes.INJECTED_TEMPLATE),
                           (planes.INJECTED_CORE, planes.INJECTED_CORE_TEMPLATE)], np.int32)
DETECTION: Final = planes.DETECTED | planes.DETECTED_NEGATIVE
LEAST_ERROR: Final = (0.003, 0.006, 0.006)   # relative flux and shifts [pixel]: few stars cannot measure less (assumed)
COHERENT: Final = (0.1, 0.5)     # of the worst that errors of bright stars add up to in a matched filter (tuned):
# shifts, most of which are settled; flux scale, kernel and halo
SETTLED: Final = 2.5             # radius in which a source's shift is fitted and taken off [PSF sigmas]
MOVED: Final = 3.0               # S/N times scatter over PSF sigma from which a source is settled
BEYOND: Final = 4.0              # of the stars' scatter: a larger shift is a source that moved, and stays
RESTORED_ERROR: Final = 0.1     # relative error of a saturated star's restored core (assumed)
SHARPER: Final = 0.97            # the science image is convolved when its PSF is smaller than this times the template's
CELL: Final = 16                 # bins along a cell in which levels are medians
BAND: Final = 64                 # rows that one call of a kernel does
NODES: Final = 7                 # at most along each axis, at which kernels and PSFs that vary are worked out, ...
BETWEEN: Final = 100             # ... on smaller images so far apart [pixel], but as many as polynomials need
SAMPLE: Final = 400_000          # pixels of blank sky that the noise is measured on
WINDOW: Final = 256              # side of a window in which correlations of the noise are measured [pixel],
WINDOWS: Final = 4               # of which there are so many along each axis, if they fit
NOTHING: Final = np.zeros((0, 0), np.float32)      # a coarse plane that adds nothing
EITHER_BAD: Final = BAD | BAD << 4
THEIR_SHIFT: Final = 4           # of the template's flags


T = TypeVar("T")
Image = TypeVar("Image", Calibrated, Template)


@dataclass(frozen=True, slots=True)
class Pair:
    """Both images on one grid, their invalid pixels filled; the two planes are used up by the subtraction."""

    science: np.ndarray          # (ny, nx) float32, the background of science - template taken off
    template: np.ndarray
    flags: np.ndarray            # (ny, nx) uint8, of `pipeline.kernels.difference`
    background: np.ndarray       # (order + 1, order + 1) of u^p v^q at [q, p]
    science_variance: np.ndarray     # (ny, nx) float32, as given
    template_variance: np.ndarray
    fill: tuple[float, float]    # what the variances are where there is no value
    saturated: tuple[Saturated, Saturated]
    blank: np.ndarray            # (rows, columns) bool of bins: sky alone, no bad pixel, no source nearby
    noise: np.ndarray            # (rows, columns) of bins: mean variance of a pixel, science
    template_noise: np.ndarray
    beyond: np.ndarray | None    # the filled template with the pixels around it
    beyond_hole: np.ndarray | None   # where those have no data
    threads: int                 # that the work on the pair is shared among

    @property
    def shape(self) -> tuple[int, int]:
        return self.flags.shape[0], self.flags.shape[1]


def subtract(science: Calibrated, template: Template, config: DifferenceConfig, *, threads: int = 1) -> Difference:
    """The whitened difference of a science exposure and a template warped to its grid.

    Raises
    ------
    NoWorkFound
        The template covers less than `config.min_coverage` of the pixels, or no pixel is usable.
    AlgorithmError
        InsufficientKernelSources, BadSubtraction, or a noise far from the variance plane's.
    """
    science, template = _contiguous(science), _contiguous(template)
    pair = _prepare(science, template, config, threads)
    side = _side(science.psf, template.psf, config)
    fit, stars = _match(science, template, pair, side, config)
    return _compose(science, template, pair, fit, side, stars, config, threads)


# --- both images, ready ----------------------------------------------------------------------------------------------

def _prepare(science: Calibrated, template: Template, config: DifferenceConfig, threads: int) -> Pair:
    if science.shape != template.shape:
        raise ValueError(f"the template must be on the science grid {science.shape}, got {template.shape}")
    shape = science.shape
    flags, ours, theirs = plane(shape, np.uint8), plane(shape), plane(shape)
    holes, (light, other, noise, deep), count = _sorted(science, template, flags, ours, theirs, threads)
    coverage = 1.0 - holes / flags.size
    if coverage < config.min_coverage:
        raise NoWorkFound(f"the template covers {100 * coverage:.1f} % of the pixels, at least "
                          f"{100 * config.min_coverage:.0f} % are needed")
    if not count.any() and ((flags & EITHER_BAD) != 0).all():
        raise NoWorkFound("no pixel is usable in both the science image and the template")
    blank = _blank(light, other, noise, deep, count == BIN * BIN)
    background = _background(light - other, blank, shape, config.background_order)

    def fill(start: int) -> None:
        rows = start, min(start + BAND, shape[0])
        passes.add_smooth(background, -1.0, NOTHING, *rows, ours)
        passes.fill(flags, *rows, ours, theirs)

    def cores(side: int) -> Saturated:
        shift, image, of = ((0, ours, science), (THEIR_SHIFT, theirs, template))[side]
        found = Saturated.of(flags, FULL << shift)
        restore(image, of.variance, flags, WRONG << shift, found, of.psf)
        return found

    over(fill, range(0, shape[0], BAND), threads)
    level = _level(science.variance, flags, HOLE), _level(template.variance, flags, HOLE << THEIR_SHIFT)
    saturated = over(cores, range(2), threads)
    return Pair(ours, theirs, flags, background, science.variance, template.variance, level,
                (saturated[0], saturated[1]), blank, noise, deep, *_beyond(template, theirs), threads)


def _sorted(science: Calibrated, template: Template, flags: np.ndarray, ours: np.ndarray, theirs: np.ndarray,
            threads: int) -> tuple[int, list[np.ndarray], np.ndarray]:
    """Set flags and both images; the template's holes, bins' means of images and variances, and of how many pixels."""
    shape = science.shape
    means, count = ([np.empty((shape[0] // BIN, shape[1] // BIN), np.float32) for _ in range(n)] for n in (4, 1))

    def work(start: int) -> int:
        rows = start, min(start + BAND, shape[0])
        flags[start:rows[1]] = 0
        passes.sort_out(science.image, science.variance, science.mask, planes.NO_DATA | planes.BAD, UNFIT, MEANINGLESS,
                        planes.SAT, 0, *rows, flags, ours)
        holes = passes.sort_out(template.image, template.variance, template.mask, planes.NO_DATA, UNFIT, MEANINGLESS,
                                planes.SAT | planes.SAT_TEMPLATE, THEIR_SHIFT, *rows, flags, theirs)
        for full, total in zip((ours, theirs, science.variance, template.variance), means, strict=True):
            passes.binned(full, flags, EITHER_BAD, rows[0] // BIN, rows[1] // BIN, total, count[0])
        return int(holes)

    holes = sum(over(work, range(0, shape[0], BAND), threads))
    for total in means:
        total /= np.maximum(count[0], np.float32(1))
    return holes, means, count[0]


def _contiguous(of: Image) -> Image:
    """The same with planes as kernels take them, which are seldom another's copies."""
    return replace(of, image=np.ascontiguousarray(of.image, np.float32), mask=np.ascontiguousarray(of.mask, np.int32),
                   variance=np.ascontiguousarray(of.variance, np.float32))


def _means(full: np.ndarray, flags: np.ndarray, threads: int,
           without: int = EITHER_BAD) -> tuple[np.ndarray, np.ndarray]:
    """Mean in bins over the pixels without some flags, and how many those are."""
    total, count = (np.empty((full.shape[0] // BIN, full.shape[1] // BIN), np.float32) for _ in range(2))
    _in_bands(passes.binned, (full, flags, without), (total, count), threads)
    return total / np.maximum(count, 1.0), count


def _in_bands(kernel: Callable[..., T], given: tuple[object, ...], made: tuple[np.ndarray, ...],
              threads: int) -> list[T]:
    """Run a kernel that takes a first and an end row between its inputs and its outputs; its answers."""
    rows = made[0].shape[0]
    return over(lambda start: kernel(*given, start, min(start + BAND, rows), *made), range(0, rows, BAND), threads)


def _level(variance: np.ndarray, flags: np.ndarray, hole: int) -> float:
    """Median of a variance plane where it has values."""
    step = max(1, int(np.sqrt(flags.size / SAMPLE)))
    some = variance[::step, ::step][(flags[::step, ::step] & hole) == 0]
    if not len(some):
        some = variance[(flags & hole) == 0]
    return float(np.median(some)) if len(some) else 1.0


def _beyond(template: Template, restored: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The restored template within the pixels around it, and where those are missing."""
    if template.beyond is None:
        return None, None
    hole = ~np.isfinite(template.beyond)
    out = np.where(hole, np.float32(0), template.beyond).astype(np.float32)
    spare = (out.shape[0] - restored.shape[0]) // 2
    inner = np.s_[spare:spare + restored.shape[0], spare:spare + restored.shape[1]]
    out[inner], hole[inner] = restored, False
    return out, hole


def _blank(light: np.ndarray, other: np.ndarray, variance: np.ndarray, deep: np.ndarray,
           full: np.ndarray) -> np.ndarray:
    """Bins of sky alone: all their pixels good, and no source in them or beside them.

    light, other : (rows, columns)
        Means of the science image and of the template; `variance` and `deep` are those of their pixels.
    """
    if not full.any():
        return full
    step = max(1, int(np.sqrt(full.size / SAMPLE * 4)))
    some = np.s_[::step, ::step] if full[::step, ::step].any() else np.s_[:, :]
    sky, deep_sky, level, other_level = (float(np.median(coarse[some][full[some]]))
                                         for coarse in (variance, deep, light, other))
    noise, faint = np.sqrt(sky), np.sqrt(deep_sky)
    bright = ((np.abs(other - other_level) > max(0.4 * noise, 3.0 * faint / BIN))
              | (light - level > 5.0 * noise / BIN)) & full
    blank = full & ~_beside(bright)
    return np.asarray(blank if blank.sum() > 10 else full)


def _beside(marked: np.ndarray) -> np.ndarray:
    """Those marked, and those that touch one along a side or a corner."""
    out = marked.copy()
    out[1:] |= marked[:-1]
    out[:-1] |= marked[1:]
    wide = out.copy()
    wide[:, 1:] |= out[:, :-1]
    wide[:, :-1] |= out[:, 1:]
    return wide


def _background(level: np.ndarray, blank: np.ndarray, shape: tuple[int, int], order: int) -> np.ndarray:
    """(order + 1, order + 1) coefficients of the polynomial through the medians of blank sky in cells."""
    if order < 0 or not blank.any():
        return np.zeros((1, 1))
    value, weight, y, x = _cells(level, blank)
    use = weight > 3
    while order > 0 and use.sum() < 3 * (order + 1) * (order + 2) // 2:
        order -= 1
    if not use.any():
        return np.zeros((1, 1))
    design = terms(x[use], y[use], shape, order)
    root = np.sqrt(weight[use])
    return square(np.linalg.lstsq(design * root[:, None], value[use] * root, rcond=None)[0], order)


def _cells(plane: np.ndarray, use: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Medians over the bins in use in cells of CELL x CELL of them, their number, and where cells are [pixel]."""
    rows, columns = (max(1, n // CELL) for n in plane.shape)
    edges = [np.linspace(0, n, k + 1).astype(int) for n, k in zip(plane.shape, (rows, columns), strict=True)]
    high, wide = int(np.diff(edges[0]).max()), int(np.diff(edges[1]).max())
    values = np.full((rows, columns, high, wide), np.inf, np.float32)
    marked = np.where(use, plane, np.float32(np.inf))
    for j in range(rows):
        for i in range(columns):
            part = marked[edges[0][j]:edges[0][j + 1], edges[1][i]:edges[1][i + 1]]
            values[j, i, :part.shape[0], :part.shape[1]] = part
    flat = np.sort(values.reshape(rows * columns, -1), axis=1)
    count = np.isfinite(flat).sum(axis=1)
    middle = 0.5 * (flat[np.arange(len(flat)), np.maximum(count - 1, 0) // 2] + flat[np.arange(len(flat)), count // 2
                                                                                  - (count == flat.shape[1])])
    at = [BIN * 0.5 * (e[:-1] + e[1:]) - 0.5 for e in edges]
    x, y = np.meshgrid(at[1], at[0])
    return np.where(count > 0, middle, 0.0), count.astype(float), y.ravel(), x.ravel()


# --- the kernel ------------------------------------------------------------------------------------------------------

def _side(science: Psf, template: Psf, config: DifferenceConfig) -> str:
    if config.convolve != "auto":
        return config.convolve
    return "science" if science.sigma < SHARPER * template.sigma else "template"


def _order(count: int, config: DifferenceConfig) -> int:
    """Spatial order that a number of sources can carry."""
    return min(config.spatial_order, 0 if count < 12 else 1 if count < 50 else config.spatial_order)


def _match(science: Calibrated, template: Template, pair: Pair, side: str,
           config: DifferenceConfig) -> tuple[matching.Fit, KernelStars]:
    psfs = (science.psf, template.psf) if side == "template" else (template.psf, science.psf)
    functions = matching.choose_basis(psfs[0].sigma, psfs[1].sigma, config)
    radius = int(np.clip(np.ceil(5.0 * max(psfs[0].sigma, psfs[1].sigma)), 8, 20))
    images, variances, fill = (pair.science, pair.template), (pair.science_variance, pair.template_variance), pair.fill
    if side == "science":
        images, variances, fill = images[::-1], variances[::-1], fill[::-1]
    index = select(science, pair.template, pair.flags, EITHER_BAD, config, radius=radius,
                   margin=radius + functions.half + 2)
    stars = cut(images, variances, fill, pair.flags, EITHER_BAD, science.stars[index], radius=radius,
                half=functions.half)
    fit = matching.solve(stars, functions, *psfs, science.shape, config, order=_order(len(stars), config),
                         threads=pair.threads)
    return fit, stars


# --- the difference --------------------------------------------------------------------------------------------------

def _compose(science: Calibrated, template: Template, pair: Pair, fit: matching.Fit, side: str, stars: KernelStars,
             config: DifferenceConfig, threads: int) -> Difference:
    shape = pair.shape
    if side == "template":
        left, right = identity(shape), fit.kernel
        kernel_sum = fit.scale
    else:
        left, right = fit.kernel.scaled(1.0 / fit.scale), identity(shape).scaled(1.0 / fit.scale)
        kernel_sum = 1.0 / fit.scale
    x, y = stars.x[fit.used], stars.y[fit.used]
    star_flux = _fluxes(pair.science, x, y)
    # changed in place from here on, as is what follows: planes of a whole detector are large
    raw = pair.science if left.half == 0 else convolve(pair.science, left, threads=threads)
    matched = convolve(pair.template, right, pair.beyond, threads=threads)
    light = _means(pair.template, pair.flags, threads, 0)[0]
    restored = _Restored.of(pair, left, right) if config.systematics else None
    without = BAD if left.half == 0 else 0
    level, count = _minus(raw, matched, pair, without)
    blank = pair.blank.copy()       # never empty: the cores of the kernel's stars hold bins without a bad pixel
    background = _background(level, blank, shape, config.background_order)
    centre = [BIN * np.arange(n) + (BIN - 1) / 2 for n in level.shape]
    level -= _on_bins(background, shape, *centre)
    gain = float(np.sum(left.central**2)), float(np.sum(right.central**2))
    level_noise = (gain[0] * pair.noise + gain[1] * pair.template_noise) / np.maximum(count, 1.0)
    halo, halo_error = wings(level, level_noise, light, count > BIN**2 / 2, fit.kernel.half, threads=threads)
    _in_bands(passes.add_smooth, (background, -1.0, halo), (raw,), threads)
    blank &= _quiet(level - (halo if halo.size else 0.0), blank)
    white, gain_left, gain_right, stamps, nodes = _whitening(science, template, pair, blank, left, right, config)
    if config.settle:
        _settle(raw, matched, pair, science, fit, stars)
    image, spare = raw, pair.template
    if config.decorrelate:
        image, spare = convolve(raw, white, slopes=False, out=spare, threads=threads), raw
    ours = _spread(pair.science_variance, pair.flags, HOLE, pair.fill[0], left, threads)
    theirs = _spread(pair.template_variance, pair.flags, HOLE << THEIR_SHIFT, pair.fill[1], right, threads)
    where = _sample(blank, shape)
    factor = _variance_factor(image, (ours, theirs), (gain_left, gain_right), pair, where, config)
    gain_left, gain_right = gain_left * factor, gain_right * factor
    errors, doubt = np.zeros(3), NOTHING
    if config.systematics:
        errors = _systematics(fit, stars, science.psf)
        doubt = _doubt(pair, light, halo, halo_error, fit, template.psf if side == "template" else science.psf,
                       science.psf, centre)
    variance, mask = spare, _mask(science, template, pair, left, right)
    _in_bands(passes.compose, (ours, theirs, pair.flags, pair.fill[0], gain_left, gain_right, matched,
                               errors.astype(np.float32), doubt, mask, planes.NO_DATA), (image, variance), threads)
    noise_scale, lag1 = _measured_noise(image, variance, blank, stamps[len(stamps) // 2], threads)
    ratio = _ratios(image, variance, star_flux, x, y)
    if not (abs(ratio[0]) <= config.max_ratio_mean and ratio[1] <= config.max_ratio_std):
        raise AlgorithmError(f"BadSubtraction: |difference| / science in the footprints of {fit.used.sum()} kernel "
                             f"sources is {ratio[0]:.3f} +- {ratio[1]:.3f}, at most {config.max_ratio_mean} +- "
                             f"{config.max_ratio_std} is expected")
    if restored is not None:
        restored.add(variance, science.psf.effective_area * RESTORED_ERROR**2)
    psf = _fitted_psf(stamps, nodes, shape, min(max(science.psf.order, left.order, 1), len(nodes.x) - 1))
    matched_psf = _matched_psf(template.psf, right, shape)
    order = max(len(background), len(pair.background))
    both = np.zeros((order, order))
    for part in (background, pair.background):
        both[:len(part), :len(part)] += part
    _in_bands(passes.add_smooth, (both, 1.0, halo), (matched,), threads)
    return Difference(image, variance, mask, psf, matched, theirs, matched_psf, noise_scale, lag1,
                      int(fit.used.sum()), kernel_sum, side, config.decorrelate)


def _minus(raw: np.ndarray, matched: np.ndarray, pair: Pair, without: int) -> tuple[np.ndarray, np.ndarray]:
    """Take `matched` off in place; means of what is left in bins, and of how many pixels."""
    rows, columns = (n // BIN for n in raw.shape)
    total, count = (np.empty((rows, columns), np.float32) for _ in range(2))

    def work(start: int) -> None:
        stop = min(start + BAND, len(raw))
        passes.minus(raw, matched, pair.flags, without, start, stop, raw)
        passes.binned(raw, pair.flags, EITHER_BAD, start // BIN, stop // BIN, total, count)

    over(work, range(0, len(raw), BAND), pair.threads)
    return total / np.maximum(count, np.float32(1)), count


def _spread(variance: np.ndarray, flags: np.ndarray, hole: int, instead: float, kernel: SpatialKernel,
            threads: int) -> np.ndarray:
    """Variance after convolution of white noise with a kernel, the central kernel's shape taken everywhere.

    The square of a kernel is compact and nearly separable: its best separable form is used, of the right sum.
    """
    if kernel.half == 0:
        gain = np.float32(kernel.components[0, 0, 0] ** 2)
        if gain == 1 and hole == HOLE:
            return variance
        return np.asarray(np.where((flags & hole) != 0, np.float32(instead), variance) * gain)
    response = kernel.central**2
    u, _, v = np.linalg.svd(response)
    down, across = np.abs(u[:, 0]), np.abs(v[0])
    reach = max(_radius(down), _radius(across))
    middle = kernel.half
    down, across = (line[middle - reach:middle + reach + 1] for line in (down, across))
    scale = float(np.sqrt(response.sum() / (down.sum() * across.sum())))
    out = plane((variance.shape[0], variance.shape[1]))
    taps = (down * scale).astype(np.float32), (across * scale).astype(np.float32)
    _in_bands(passes.spread, (variance, flags, hole, instead, *taps), (out,), threads)
    return out


def _radius(line: np.ndarray) -> int:
    """Half width that holds 99.5 % of a line's weight."""
    middle = len(line) // 2
    total = float(line.sum())
    for reach in range(1, middle):
        if line[middle - reach:middle + reach + 1].sum() > 0.995 * total:
            return reach
    return middle


def _mask(science: Calibrated, template: Template, pair: Pair, left: SpatialKernel,
          right: SpatialKernel) -> np.ndarray:
    """Planes of both inputs, those of a convolved side grown by its kernel's core."""
    out = plane(pair.shape, np.int32)
    reach = _reach(left.central, 0.9), _reach(right.central, 0.9)
    _in_bands(passes.merge, (science.mask, template.mask, pair.flags, ~DETECTION, KEPT, RENAMED, planes.NO_DATA,
                             _disk(reach[0]), _disk(reach[1])), (out,), pair.threads)
    edge = reach[0]
    if pair.beyond_hole is None:
        edge = max(edge, reach[1])
    elif pair.beyond_hole.any() and reach[1]:
        _mark_beside(pair.beyond_hole, reach[1], out)
    if edge:
        out[:edge] |= planes.EDGE
        out[-edge:] |= planes.EDGE
        out[:, :edge] |= planes.EDGE
        out[:, -edge:] |= planes.EDGE
    return out


def _mark_beside(hole: np.ndarray, reach: int, mask: np.ndarray) -> None:
    """Set EDGE, in place, within `reach` of pixels without data beyond the borders."""
    spare = (hole.shape[0] - mask.shape[0]) // 2
    disk = np.hypot(*np.mgrid[-reach:reach + 1, -reach:reach + 1]) <= reach
    for quarter in range(4):
        rows = np.rot90(hole, quarter)[:spare + 2 * reach]
        near = binary_dilation(rows, disk)[spare:spare + reach, spare:-spare]
        np.rot90(mask, quarter)[:reach][near] |= planes.EDGE


def _disk(radius: int) -> np.ndarray:
    """(k, 2) offsets (dy, dx) within a radius."""
    y, x = np.mgrid[-radius:radius + 1, -radius:radius + 1]
    inside = np.hypot(y, x) <= radius
    return np.column_stack([y[inside], x[inside]]).astype(np.int64)


def _reach(kernel: np.ndarray, fraction: float) -> int:
    """Radius [pixel] that holds a fraction of a kernel's absolute weight, to the nearest.

    The next larger one would be a whole ring of masked pixels more where a weight goes from 90.1 to 89.8 %.
    """
    half = kernel.shape[0] // 2
    radius = np.hypot(*np.mgrid[-half:half + 1, -half:half + 1]).ravel()
    order = np.argsort(radius, kind="stable")
    total = np.cumsum(np.abs(kernel).ravel()[order])
    return round(float(radius[order][np.searchsorted(total, fraction * total[-1])])) if half else 0


def _quiet(level: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """Bins where nothing new stands out of the noise: no transient, no trail."""
    smooth = np.abs(uniform_filter(np.where(blank, level, np.float32(0)), 2))
    sigma = 1.4826 * float(np.median(smooth[blank]))
    quiet = ~_beside(smooth > 4.5 * sigma)
    return np.asarray(quiet if (quiet & blank).sum() > 10 else np.ones_like(blank))


def _on_bins(coefficients: np.ndarray, shape: tuple[int, int], y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(len(y), len(x)) float32 values of a polynomial as kernels take it."""
    n = len(coefficients)
    u, v = 2.0 * x / max(shape[1] - 1, 1) - 1.0, 2.0 * y / max(shape[0] - 1, 1) - 1.0
    return np.asarray(np.vander(v, n, increasing=True) @ coefficients @ np.vander(u, n, increasing=True).T, np.float32)


# --- whitening -------------------------------------------------------------------------------------------------------

def _whitening(science: Calibrated, template: Template, pair: Pair, blank: np.ndarray, left: SpatialKernel,
               right: SpatialKernel, config: DifferenceConfig,
               ) -> tuple[SpatialKernel, np.ndarray, np.ndarray, np.ndarray, Nodes]:
    """The whitening kernel, factors that turn spread variances into the whitened image's, and PSF stamps at nodes."""
    shape, half = pair.shape, config.whiten_half
    nodes = _nodes(shape, science.psf.order, left.order, right.order, config.whiten_order, 1)
    x, y = nodes.places()
    ours = science.psf.stamps(x, y)
    if left.half:
        ours = _filtered_psf(ours, np.stack([left.at(a, b) for a, b in zip(x, y, strict=True)]))
    delta = np.zeros((2 * half + 1, 2 * half + 1))
    delta[half, half] = 1.0
    one = np.ones((1, 1))
    if not config.decorrelate:
        return SpatialKernel(delta[None], 0, shape), one, one, ours, nodes
    overall = [float(np.median(v[blank])) for v in (pair.noise, pair.template_noise)]
    depth = _depth(pair, blank, x, y)
    kernels, gains = np.zeros((len(x), 2 * half + 1, 2 * half + 1)), np.zeros((len(x), 2))
    for k, (a, b) in enumerate(zip(x, y, strict=True)):
        kernels[k], *gains[k] = whitening(Noise(overall[0], science.noise_acf), left.at(a, b),
                                          Noise(overall[0] * float(depth[k]), template.noise_acf), right.at(a, b),
                                          half)
    order = config.whiten_order
    design = terms(x, y, shape, order)
    found = np.linalg.lstsq(design, kernels.reshape(len(x), -1), rcond=None)[0]
    white = SpatialKernel(found.reshape(-1, *delta.shape), order, shape)
    norm = float((left.central**2).sum()), float((right.central**2).sum())
    smooth = np.linalg.lstsq(design, gains / norm, rcond=None)[0]
    stamps = _filtered_psf(ours, (design @ found).reshape(kernels.shape))
    return white, square(smooth[:, 0], order), square(smooth[:, 1], order), stamps, nodes


def _depth(pair: Pair, blank: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n,) variance of the template over that of the science image at places: a plane through local medians.

    Smooth on purpose: the whitened PSF, a polynomial of position, has to follow it.
    """
    ratio = np.log(np.maximum(pair.template_noise, 1e-30) / np.maximum(pair.noise, 1e-30))
    value, count, cell_y, cell_x = _cells(ratio, blank)
    use = count > 3 if (count > 3).any() else count > 0
    order = 1 if use.sum() >= 6 else 0
    root = np.sqrt(count[use])
    found = np.linalg.lstsq(terms(cell_x[use], cell_y[use], pair.shape, order) * root[:, None], value[use] * root,
                            rcond=None)[0]
    smooth = terms(x, y, pair.shape, order) @ found
    return np.asarray(np.exp(np.clip(smooth, value[use].min(), value[use].max())))


def _sample(blank: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Flat indices of pixels of blank bins, all of them or evenly so many as SAMPLE."""
    row, column = np.nonzero(blank)
    per_bin = int(np.clip(SAMPLE // max(len(row), 1), BIN, BIN * BIN))
    step = max(1, len(row) * per_bin // SAMPLE)
    row, column = row[::step], column[::step]
    inside = (BIN * np.arange(len(row))[:, None] + np.arange(per_bin)) % (BIN * BIN)   # along rows: read together
    flat = (row[:, None] * BIN + inside // BIN) * shape[1] + column[:, None] * BIN + inside % BIN
    return np.asarray(flat.ravel(), np.int64)


def _variance_factor(image: np.ndarray, variances: tuple[np.ndarray, np.ndarray], gains: tuple[np.ndarray, np.ndarray],
                     pair: Pair, where: np.ndarray, config: DifferenceConfig) -> float:
    """Measured over claimed variance on blank sky."""
    ratio = np.empty(len(where), np.float32)
    part = max(1, -(-len(where) // pair.threads))
    over(lambda start: passes.ratios(image, *variances, pair.flags, pair.fill[0], *gains, where, start,
                                     min(start + part, len(where)), ratio), range(0, len(where), part), pair.threads)
    low, high = np.percentile(ratio, [15.865, 84.135])
    factor = float(((high - low) / 2) ** 2)
    limit = config.max_variance_factor
    if not 1.0 / limit < factor < limit:
        raise AlgorithmError(f"the noise of the difference is {factor:.3g} times its variance plane on blank sky, "
                             f"a factor within 1/{limit:g} and {limit:g} is expected")
    return factor


# --- errors that are not noise ---------------------------------------------------------------------------------------

def _settle(raw: np.ndarray, matched: np.ndarray, pair: Pair, science: Calibrated, fit: matching.Fit,
            stars: KernelStars) -> None:
    """Take off what errors of registration, source by source, leave of bright ones."""
    scatter = np.array(_scatter(fit, stars)[1:])
    rows = science.stars
    x, y = np.rint(rows["x"]).astype(int), np.rint(rows["y"]).astype(int)
    telling = np.flatnonzero(rows["snr"] * scatter.max() > MOVED * science.psf.sigma)
    order = telling[np.argsort(-rows["snr"][telling], kind="stable")]
    passes.settle(raw, matched, pair.science_variance, pair.template_variance, pair.flags, EITHER_BAD, x[order],
                  y[order], SETTLED * science.psf.sigma, scatter, BEYOND)


def _scatter(fit: matching.Fit, stars: KernelStars) -> tuple[float, ...]:
    """What kernel stars scatter by beyond their noise: relative flux, and shifts [pixel]."""
    used = fit.used & stars.point if (fit.used & stars.point).sum() >= 8 else fit.used
    return tuple(max(floor, matching.intrinsic(fit.offsets[used, k], fit.errors[used, k]))
                 for k, floor in enumerate(LEAST_ERROR))


def _systematics(fit: matching.Fit, stars: KernelStars, psf: Psf) -> np.ndarray:
    """Factors of (d matched / dx)^2, (d matched / dy)^2 and matched^2 in the variance: registration and PSF errors.

    From the scatter of the kernel stars beyond their noise. A shift d leaves d times the gradient, coherent over a
    star's image; the term is larger than d^2 |gradient|^2 by the number of pixels that add up in a matched filter: a
    quarter of the PSF's effective area for a shift, the whole area for a relative error of flux (Gaussian PSF, at the
    filter's worst place). COHERENT of that is taken: the whole keeps a residual of one sigma at 1 sigma, where the
    threshold is 5, and hides what is beside it.
    """
    scale, shift_x, shift_y = _scatter(fit, stars)
    shifts, fluxes = COHERENT[0] * psf.effective_area, COHERENT[1] * psf.effective_area
    return np.array([0.25 * shifts * shift_x**2, 0.25 * shifts * shift_y**2, fluxes * scale**2])


def _doubt(pair: Pair, light: np.ndarray, halo: np.ndarray, halo_error: float, fit: matching.Fit, reference: Psf,
           psf: Psf, centre: list[np.ndarray]) -> np.ndarray:
    """Variance per bin of the kernel's own error, which grows where no star held it, and of the halo's."""
    nodes = _nodes(pair.shape, reference.order, fit.kernel.order, 1)
    x, y = nodes.places()
    relative = matching.uncertainty(fit, reference, x, y).reshape(len(nodes.y), len(nodes.x))
    bright = gaussian_filter(np.square(light), psf.sigma / BIN)
    area = COHERENT[1] * psf.effective_area
    out = 0.25 * area * interpolate(relative, nodes, *centre) * bright
    if halo.size:
        out = out + area * (halo_error * halo) ** 2
    return np.asarray(out, np.float32)


@dataclass(frozen=True, slots=True)
class _Restored:
    """Light in the convolved image that comes from restored cores, and from beyond the border."""

    saturated: Saturated
    light: np.ndarray            # of its pixels
    weights: np.ndarray          # (m, m) float32 where a kernel carries light
    borders: tuple[np.ndarray, ...]    # (half, n) light carried over each border, of the image turned by quarters

    @classmethod
    def of(cls, pair: Pair, left: SpatialKernel, right: SpatialKernel) -> "_Restored | None":
        """None where nothing is convolved."""
        image, saturated, kernel, hole = ((pair.template, pair.saturated[1], right, pair.beyond_hole) if right.half
                                          else (pair.science, pair.saturated[0], left, None))
        if kernel.half == 0:
            return None
        weights = np.ascontiguousarray(np.abs(kernel.central), np.float32)
        borders = tuple(_from_beyond(np.rot90(image, k)[:kernel.half], weights,
                                     None if hole is None else np.rot90(hole, k)) for k in range(4))
        return cls(saturated, np.abs(image.ravel()[saturated.flat]), weights, borders)

    def add(self, variance: np.ndarray, scale: float) -> None:
        """Add `scale` times the square of this light to a plane."""
        passes.add_doubt(variance, self.saturated.flat, self.saturated.star, self.light, self.weights, scale)
        for k, light in enumerate(self.borders):
            inner = np.rot90(variance, k)[:len(light)]
            inner += np.float32(scale) * light**2


def _from_beyond(edge: np.ndarray, weights: np.ndarray, hole: np.ndarray | None) -> np.ndarray:
    """(half, n) light carried by a kernel over the upper border from where there is no data: the mirror's is taken.

    edge : (half, n)
        The rows next to the border.
    hole : bool
        The image with the pixels around it: where even these have no data; None: nowhere is any.
    """
    half = len(edge)
    outside = np.pad(np.abs(edge[::-1]), ((0, 0), (half, half)), mode="symmetric")
    if hole is not None:
        spare = (hole.shape[1] - edge.shape[1]) // 2
        known = min(spare, half)
        span = np.s_[half - known:half - known + edge.shape[1] + 2 * known]
        outside[half - known:, span] *= hole[spare - known:spare, spare - known:hole.shape[1] - spare + known]
    if not outside.any():
        return np.zeros(edge.shape, np.float32)
    light = np.concatenate([outside, np.zeros_like(outside)])
    return np.asarray(fftconvolve(light, weights, mode="same")[half:, half:half + edge.shape[1]], np.float32)


# --- PSFs and checks -------------------------------------------------------------------------------------------------

def _nodes(shape: tuple[int, int], *orders: int) -> Nodes:
    """So many that polynomials of these orders have values enough, and no fewer than an image's size asks for."""
    return Nodes.over(shape, min(NODES, max(*orders, -(-max(shape) // BETWEEN) - 1) + 1))


def _filtered_psf(stamps: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """(n, m, m) stamps convolved each with its kernel, of unit sum and the stamps' size."""
    side = stamps.shape[1] + kernels.shape[1] - 1
    product = np.fft.rfft2(stamps, (side, side)) * np.fft.rfft2(kernels, (side, side))
    edge = kernels.shape[1] // 2
    out = np.fft.irfft2(product, (side, side))[:, edge:edge + stamps.shape[1], edge:edge + stamps.shape[1]]
    return np.asarray(out / out.sum(axis=(1, 2), keepdims=True))


def _fitted_psf(stamps: np.ndarray, nodes: Nodes, shape: tuple[int, int], order: int) -> Psf:
    """The PSF polynomial through stamps at nodes."""
    x, y = nodes.places()
    found = np.linalg.lstsq(terms(x, y, shape, order), stamps.reshape(len(stamps), -1), rcond=None)[0]
    return Psf(found.reshape(-1, *stamps.shape[1:]), order, shape)


def _matched_psf(psf: Psf, right: SpatialKernel, shape: tuple[int, int]) -> Psf:
    """PSF of the matched template."""
    if right.half == 0:
        return psf
    nodes = _nodes(shape, psf.order, right.order, 1)
    x, y = nodes.places()
    kernels = np.stack([right.at(a, b) for a, b in zip(x, y, strict=True)])
    order = min(max(psf.order, right.order), len(nodes.x) - 1)
    return _fitted_psf(_filtered_psf(psf.stamps(x, y), kernels), nodes, shape, order)


def _footprints(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the 9 x 9 pixels around positions."""
    offsets = np.arange(-4, 5)
    return (y[:, None] + offsets)[:, :, None], (x[:, None] + offsets)[:, None, :]


def _fluxes(science: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(science[_footprints(x, y)].sum(axis=(1, 2)))


def _ratios(image: np.ndarray, variance: np.ndarray, flux: np.ndarray, x: np.ndarray,
            y: np.ndarray) -> tuple[float, float]:
    """Mean and scatter over the sources of the fit of |difference| beyond its noise, relative to the science flux.

    Sources whose noise alone would make a tenth are left out while others remain.
    """
    at = _footprints(x, y)
    noise = np.sqrt(2.0 / np.pi * variance[at]).sum(axis=(1, 2))
    ratio = (np.abs(image[at]).sum(axis=(1, 2)) - noise) / np.maximum(flux, 1e-30)
    clear = noise < 0.1 * flux
    if clear.sum() < 3:
        clear = np.argsort(noise / np.maximum(flux, 1e-30))[:3]
    return float(np.mean(ratio[clear])), float(np.std(ratio[clear]))


def _measured_noise(image: np.ndarray, variance: np.ndarray, blank: np.ndarray, stamp: np.ndarray,
                    threads: int) -> tuple[float, float]:
    """rms of the matched-filter S/N, and lag-1 correlation, on the blank sky of some windows."""
    norm = float((stamp**2).sum())
    side = min(WINDOW, *(BIN * n for n in blank.shape))
    starts = [np.unique(np.linspace(0, n - side // BIN, min(WINDOWS, -(-n * BIN // side))).astype(int))
              for n in blank.shape]
    size = fft.next_fast_len(side + stamp.shape[0], real=True)
    filters = [fft.rfft2(s.astype(np.float32), (size, size)) for s in (stamp[::-1, ::-1], stamp[::-1, ::-1] ** 2)]
    edge = stamp.shape[0] // 2
    corners = [(row, column) for row in starts[0] for column in starts[1]]

    def window(k: int) -> tuple[np.ndarray, list[float]]:
        row, column = corners[k]
        sky = np.kron(blank[row:row + side // BIN, column:column + side // BIN], np.ones((BIN, BIN), bool))
        part = np.s_[BIN * row:BIN * row + len(sky), BIN * column:BIN * column + sky.shape[1]]
        unit = np.where(sky, np.clip(image[part] / np.sqrt(variance[part]), -4, 4), 0).astype(np.float32)
        sums = [float((unit * unit).sum()), float(sky.sum()),
                float((unit[:, :-1] * unit[:, 1:]).sum() + (unit[:-1] * unit[1:]).sum()),
                float((sky[:, :-1] & sky[:, 1:]).sum() + (sky[:-1] & sky[1:]).sum())]
        score, inside = (fft.irfft2(fft.rfft2(part, (size, size)) * f, (size, size))[edge:edge + len(sky),
                                                                                   edge:edge + sky.shape[1]]
                         for part, f in zip((unit, sky.astype(np.float32)), filters, strict=True))
        return score[inside > 0.98 * norm], sums

    scores, parts = zip(*over(window, range(len(corners)), threads), strict=True)
    sums = np.sum(parts, axis=0)
    power = sums[0] / max(sums[1], 1.0)
    lag1 = sums[2] / max(sums[3], 1.0) / max(power, 1e-30)
    found = np.concatenate(scores)
    if len(found) < 100:
        return 1.0, lag1
    low, high = np.percentile(found, [15.865, 84.135])
    return float((high - low) / 2 / np.sqrt(norm * power)), lag1
