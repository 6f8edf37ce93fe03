"""The stage: choose a side, fit the kernel, subtract, whiten, and say how well it is known.

    template convolved:  D = W * (S - K * T - background)          K turns the template's PSF into the science PSF
    science convolved:   D = W * (K * S - T - background) / sum K  when the science image is the sharper one

W whitens the noise and has unit sum, so a new source of flux F has PSF flux F in D, with PSF W * P_science (and K).
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter, maximum_filter, uniform_filter

from pipeline.difference import kernel as matching
from pipeline.difference.repair import repaired
from pipeline.difference.spatial import SpatialKernel, convolve, identity, polynomial, terms
from pipeline.difference.stars import KernelStars, cut, select
from pipeline.difference.whiten import Nodes, Noise, blend, interpolate, whitening
from pipeline.difference.wings import wings
from pipeline.errors import AlgorithmError, NoWorkFound
from pipeline.images import Calibrated, Difference, Template
from pipeline.pixel_config import DifferenceConfig
from pipeline.psf import Psf
from schemas import mask as planes

UNFIT = planes.NO_DATA | planes.BAD | planes.SAT | planes.EDGE | planes.CR | planes.HIGH_VARIANCE | planes.SAT_TEMPLATE
WRONG = planes.NO_DATA | planes.BAD | planes.SAT | planes.CR | planes.SAT_TEMPLATE   # values that mean nothing
KEPT = planes.NO_DATA | planes.BAD | planes.HIGH_VARIANCE # of a template's planes, under their own names
LEAST_ERROR = (0.003, 0.006, 0.006)   # relative flux and shifts [pixel]: few stars cannot measure less (assumed)
RESTORED_ERROR = 0.1     # relative error of a saturated star's restored core (assumed)
SHARPER = 0.97            # the science image is convolved when its PSF is smaller than this times the template's


@dataclass(frozen=True, slots=True)
class Pair:
    """Both images on one grid with their invalid pixels filled."""

    science: np.ndarray
    science_variance: np.ndarray
    template: np.ndarray
    template_variance: np.ndarray
    science_bad: np.ndarray
    template_bad: np.ndarray
    science_full: np.ndarray     # saturated
    template_full: np.ndarray
    background: np.ndarray       # of science - template, already taken off `science`
    beyond: np.ndarray | None    # the filled template with the pixels around it
    beyond_hole: np.ndarray | None   # where those have no data

    @property
    def bad(self) -> np.ndarray:
        return np.asarray(self.science_bad | self.template_bad)


def subtract(science: Calibrated, template: Template, config: DifferenceConfig) -> Difference:
    """The whitened difference of a science exposure and a template warped to its grid.

    Raises
    ------
    NoWorkFound
        The template covers less than `config.min_coverage` of the pixels, or no pixel is usable.
    AlgorithmError
        InsufficientKernelSources, BadSubtraction, or a noise far from the variance plane's.
    """
    pair = _prepare(science, template, config)
    side = _side(science.psf, template.psf, config)
    fit, stars = _match(science, template, pair, side, config)
    return _compose(science, template, pair, fit, side, stars, config)


def _prepare(science: Calibrated, template: Template, config: DifferenceConfig) -> Pair:
    if science.shape != template.shape:
        raise ValueError(f"the template must be on the science grid {science.shape}, got {template.shape}")
    hole = planes.NO_DATA | planes.BAD
    science_hole = _invalid(science.image, science.variance) | (science.mask & hole != 0)
    template_hole = _invalid(template.image, template.variance) | (template.mask & planes.NO_DATA != 0)
    coverage = float(1.0 - template_hole.mean())
    if coverage < config.min_coverage:
        raise NoWorkFound(f"the template covers {100 * coverage:.1f} % of the pixels, at least "
                          f"{100 * config.min_coverage:.0f} % are needed")
    science_bad = science_hole | (science.mask & UNFIT != 0)
    template_bad = template_hole | (template.mask & UNFIT != 0)
    if (science_bad | template_bad).all():
        raise NoWorkFound("no pixel is usable in both the science image and the template")
    ours = np.where(science_hole, 0, science.image).astype(np.float32)
    theirs = np.where(template_hole, 0, template.image).astype(np.float32)
    noise = _filled(science.variance, science_hole), _filled(template.variance, template_hole)
    sky = _blank(ours, theirs, noise[0], science_bad | template_bad)
    background = _background(ours - theirs, sky, config.background_order)
    ours = ours - background
    full = science.mask & planes.SAT != 0, template.mask & (planes.SAT | planes.SAT_TEMPLATE) != 0
    wrong = (science_hole | (science.mask & WRONG != 0), template_hole | (template.mask & WRONG != 0))
    restored = repaired(theirs, noise[1], wrong[1], full[1], ours, wrong[0], template.psf)
    return Pair(repaired(ours, noise[0], wrong[0], full[0], theirs, wrong[1], science.psf), noise[0],
                restored, noise[1], science_bad, template_bad, full[0], full[1], background,
                *_beyond(template, restored))


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


def _invalid(image: np.ndarray, variance: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.asarray(~np.isfinite(image) | ~np.isfinite(variance) | (variance <= 0))


def _filled(variance: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """A variance plane whose unusable pixels have the median of the others."""
    middle = np.median(variance[~bad]) if (~bad).any() else 1.0
    return np.where(bad, middle, variance).astype(np.float32)


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
    index = select(science, pair.template, pair.bad, config, radius=radius, margin=radius + functions.half + 2)
    images = (pair.science, pair.template) if side == "template" else (pair.template, pair.science)
    variances = ((pair.science_variance, pair.template_variance) if side == "template"
                 else (pair.template_variance, pair.science_variance))
    stars = cut(*images, variances, pair.bad, science.stars[index], radius=radius, half=functions.half)
    fit = matching.solve(stars, functions, *psfs, science.shape, config,
                         order=_order(len(stars), config))
    return fit, stars


def _compose(science: Calibrated, template: Template, pair: Pair, fit: matching.Fit, side: str, stars: KernelStars,
             config: DifferenceConfig) -> Difference:
    shape = science.shape
    if side == "template":
        left, right = identity(shape), fit.kernel
        kernel_sum = fit.scale
    else:
        left, right = fit.kernel.scaled(1.0 / fit.scale), identity(shape).scaled(1.0 / fit.scale)
        kernel_sum = 1.0 / fit.scale
    minuend, matched = convolve(pair.science, left), convolve(pair.template, right, pair.beyond)
    raw = minuend - matched
    mask = _mask(science, template, pair, left, right)
    blank = _blank(pair.science, matched, pair.science_variance, pair.bad | (mask & UNFIT != 0))
    background = _background(raw, blank, config.background_order)
    raw -= background
    science_spread = _spread_variance(pair.science_variance, left)
    matched_variance = _spread_variance(pair.template_variance, right)
    halo, halo_error = wings(raw, science_spread + matched_variance, pair.template, pair.bad, fit.kernel.half)
    raw -= halo
    blank &= _quiet(raw, blank)
    nodes = Nodes.over(shape, config.whiten_pitch)
    kernels, gain_left, gain_right = _whitening(science, template, pair, blank, left, right, nodes, config)
    if left.half == 0:
        raw[pair.science_bad] = 0.0
    image = blend(raw, kernels, nodes) if config.decorrelate else raw
    variance = (science_spread * interpolate(gain_left, nodes, shape)
                + matched_variance * interpolate(gain_right, nodes, shape))
    factor = _variance_factor(image, variance, blank, config)
    variance *= np.float32(factor)
    ratio = _ratios(image, variance, pair.science, stars.x[fit.used], stars.y[fit.used])
    if not (abs(ratio[0]) <= config.max_ratio_mean and ratio[1] <= config.max_ratio_std):
        raise AlgorithmError(f"BadSubtraction: |difference| / science in the footprints of {fit.used.sum()} kernel "
                             f"sources is {ratio[0]:.3f} +- {ratio[1]:.3f}, at most {config.max_ratio_mean} +- "
                             f"{config.max_ratio_std} is expected")
    if config.systematics:
        variance += _systematics(matched, fit, stars, science.psf)
        reference = template.psf if side == "template" else science.psf
        variance += _kernel_error(matched, fit, reference, science.psf)
        doubt = (halo_error * halo) ** 2 + (RESTORED_ERROR * _restored(pair, left, right)) ** 2
        variance += np.float32(science.psf.effective_area) * doubt.astype(np.float32)
    psf = _difference_psf(science.psf, left, kernels, nodes, shape)
    noise_scale, lag1 = _measured_noise(image, variance, blank, psf)
    empty = mask & planes.NO_DATA != 0
    image[empty] = 0.0
    matched_psf = _matched_psf(template.psf, right, shape)
    matched += pair.background + background + halo
    return Difference(image, variance, mask, psf, matched, matched_variance, matched_psf, noise_scale, lag1,
                      int(fit.used.sum()), kernel_sum, side, config.decorrelate)


def _spread_variance(variance: np.ndarray, kernel: SpatialKernel) -> np.ndarray:
    """Variance after convolution of white noise with the kernel, the central kernel's shape taken everywhere."""
    if kernel.half == 0:
        return np.asarray(variance * np.float32(kernel.components[0, 0, 0] ** 2))
    square = kernel.central**2
    shape = variance.shape[0], variance.shape[1]
    return np.asarray(np.maximum(convolve(variance, SpatialKernel(square[None], 0, shape)), np.float32(1e-30)))


def _mask(science: Calibrated, template: Template, pair: Pair, left: SpatialKernel,
          right: SpatialKernel) -> np.ndarray:
    """Planes of both inputs, those of a convolved side grown by its kernel's core."""
    keep = science.mask & ~(planes.DETECTED | planes.DETECTED_NEGATIVE)
    out = _grown(keep, _reach(left.central, 0.9))
    theirs = template.mask & KEPT
    for ours, renamed in ((planes.SAT, planes.SAT_TEMPLATE), (planes.SAT_TEMPLATE, planes.SAT_TEMPLATE),
                          (planes.INJECTED, planes.INJECTED_TEMPLATE),
                          (planes.INJECTED_CORE, planes.INJECTED_CORE_TEMPLATE)):
        theirs = theirs | np.where(template.mask & ours != 0, renamed, 0)
    out = out | _grown(theirs, _reach(right.central, 0.9))
    out = out | np.where(_invalid(science.image, science.variance) | _invalid(template.image, template.variance),
                         planes.NO_DATA, 0)
    edge = _reach(left.central, 0.9)
    if pair.beyond_hole is None:
        edge = max(edge, _reach(right.central, 0.9))
    elif pair.beyond_hole.any():
        spare = (pair.beyond_hole.shape[0] - science.shape[0]) // 2
        near = _grown(pair.beyond_hole.astype(np.int32), _reach(right.central, 0.9))[spare:-spare, spare:-spare]
        out |= np.where(near > 0, planes.EDGE, 0)
    if edge:
        out[:edge] |= planes.EDGE
        out[-edge:] |= planes.EDGE
        out[:, :edge] |= planes.EDGE
        out[:, -edge:] |= planes.EDGE
    return np.asarray(out, np.int32)


def _reach(kernel: np.ndarray, fraction: float) -> int:
    """Radius [pixel] that holds a fraction of a kernel's absolute weight."""
    half = kernel.shape[0] // 2
    radius = np.hypot(*np.mgrid[-half:half + 1, -half:half + 1]).ravel()
    order = np.argsort(radius, kind="stable")
    total = np.cumsum(np.abs(kernel).ravel()[order])
    return int(np.ceil(radius[order][np.searchsorted(total, fraction * total[-1])])) if half else 0


def _grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """A mask whose every plane is grown by a disk."""
    if radius == 0:
        return mask
    disk = np.hypot(*np.mgrid[-radius:radius + 1, -radius:radius + 1]) <= radius
    out = np.zeros_like(mask)
    for bit in planes.PLANES.values():
        plane = mask & bit != 0
        if plane.any():
            out |= np.where(binary_dilation(plane, disk), bit, 0).astype(mask.dtype)
    return out


def _blank(science: np.ndarray, matched: np.ndarray, variance: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Pixels of sky alone: no bad pixel, and no source nearby."""
    noise = np.sqrt(float(np.median(variance[~bad])))
    bright = ((np.abs(matched - np.median(matched[~bad])) > 1.5 * noise)
              | (science - np.median(science[~bad]) > 5 * noise))
    blank = ~(maximum_filter((bright & ~bad).astype(np.uint8), 9).astype(bool) | bad)
    return blank if blank.sum() > 100 else ~bad


def _quiet(raw: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """Pixels where nothing new stands out of the noise: no transient, no trail."""
    smooth = np.abs(uniform_filter(np.where(blank, raw, 0), 5))
    sigma = 1.4826 * float(np.median(smooth[blank]))
    quiet = ~maximum_filter((smooth > 4.5 * sigma).astype(np.uint8), 9).astype(bool)
    return quiet if (quiet & blank).sum() > 100 else np.ones_like(quiet)


def _background(raw: np.ndarray, blank: np.ndarray, order: int) -> np.ndarray:
    """A polynomial through the medians of blank sky in 64 px cells."""
    shape = raw.shape[0], raw.shape[1]
    if order < 0:
        return np.zeros(shape, np.float32)
    rows, columns = max(1, shape[0] // 64), max(1, shape[1] // 64)
    values, weight = [], []
    for band, sky in zip(np.array_split(raw, rows), np.array_split(blank, rows), strict=True):
        for cell, good in zip(np.array_split(band, columns, axis=1), np.array_split(sky, columns, axis=1), strict=True):
            values.append(float(np.median(cell[good])) if good.sum() > 50 else 0.0)
            weight.append(float(good.sum()) if good.sum() > 50 else 0.0)
    edges_y = np.linspace(0, shape[0] - 1, 2 * rows + 1)[1::2]
    edges_x = np.linspace(0, shape[1] - 1, 2 * columns + 1)[1::2]
    grid_x, grid_y = np.meshgrid(edges_x, edges_y)
    use = np.array(weight) > 0
    while order > 0 and use.sum() < 3 * (order + 1) * (order + 2) // 2:
        order -= 1
    if not use.any():
        return np.zeros(shape, np.float32)
    design = terms(grid_x.ravel()[use], grid_y.ravel()[use], shape, order)
    root = np.sqrt(np.array(weight)[use])
    found = np.linalg.lstsq(design * root[:, None], np.array(values)[use] * root, rcond=None)[0]
    return polynomial(found, shape, order)


def _whitening(science: Calibrated, template: Template, pair: Pair, blank: np.ndarray, left: SpatialKernel,
               right: SpatialKernel, nodes: Nodes,
               config: DifferenceConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whitening kernels at the nodes, and the factors that turn spread variances into the whitened image's."""
    size = (len(nodes.y), len(nodes.x))
    kernels = np.zeros((*size, 2 * config.whiten_half + 1, 2 * config.whiten_half + 1))
    gain_left, gain_right = np.ones(size), np.ones(size)
    overall = [float(np.median(v[blank])) for v in (pair.science_variance, pair.template_variance)]
    depth = _depth(pair, blank, nodes)
    for j, y in enumerate(nodes.y):
        for i, x in enumerate(nodes.x):
            a, b = left.at(x, y), right.at(x, y)
            kernels[j, i], ours, theirs = whitening(
                Noise(overall[0], science.noise_acf), a,
                Noise(overall[0] * float(depth[j, i]), template.noise_acf), b, config.whiten_half)
            if not config.decorrelate:
                kernels[j, i] = 0.0
                kernels[j, i, config.whiten_half, config.whiten_half] = 1.0
                continue
            gain_left[j, i] = ours / (left.central**2).sum()
            gain_right[j, i] = theirs / (right.central**2).sum()
    return kernels, gain_left, gain_right


def _depth(pair: Pair, blank: np.ndarray, nodes: Nodes) -> np.ndarray:
    """(my, mx) variance of the template over that of the science image at nodes: a plane through local medians.

    Smooth on purpose: the whitened PSF, a polynomial of position, has to follow it.
    """
    reach_y, reach_x = nodes.y[1] / 2, nodes.x[1] / 2
    x, y = (a.ravel() for a in np.meshgrid(nodes.x, nodes.y))
    values, weights = np.zeros(len(x)), np.zeros(len(x))
    for k, (a, b) in enumerate(zip(x, y, strict=True)):
        window = np.s_[max(0, int(b - reach_y)):int(b + reach_y) + 1, max(0, int(a - reach_x)):int(a + reach_x) + 1]
        sky = blank[window]
        if sky.sum() > 100:
            weights[k] = float(sky.sum()) ** 0.5
            values[k] = np.log(float(np.median((pair.template_variance[window] / pair.science_variance[window])[sky])))
    shape = blank.shape[0], blank.shape[1]
    order = 1 if (weights > 0).sum() >= 6 else 0
    design = terms(x, y, shape, order)
    found = np.linalg.lstsq(design * weights[:, None], values * weights, rcond=None)[0]
    used = values[weights > 0]
    smooth = np.clip(design @ found, used.min(), used.max()) if len(used) else np.zeros(len(x))
    return np.asarray(np.exp(smooth).reshape(len(nodes.y), len(nodes.x)))


def _variance_factor(image: np.ndarray, variance: np.ndarray, blank: np.ndarray, config: DifferenceConfig) -> float:
    """Measured over claimed variance on blank sky."""
    ratio = image[blank] / np.sqrt(variance[blank])
    low, high = np.percentile(ratio, [15.865, 84.135])
    factor = float(((high - low) / 2) ** 2)
    limit = config.max_variance_factor
    if not 1.0 / limit < factor < limit:
        raise AlgorithmError(f"the noise of the difference is {factor:.3g} times its variance plane on blank sky, "
                             f"a factor within 1/{limit:g} and {limit:g} is expected")
    return factor


def _systematics(matched: np.ndarray, fit: matching.Fit, stars: KernelStars, psf: Psf) -> np.ndarray:
    """Variance of the errors of registration and PSF, from the scatter of the kernel stars beyond their noise.

    A shift d leaves d times the gradient, coherent over a star's image; the term is larger than d^2 |gradient|^2 by
    the number of pixels that add up in a matched filter: a quarter of the PSF's effective area for a shift, the whole
    area for a relative error of flux (Gaussian PSF, at the filter's worst place).
    """
    used = fit.used & stars.point if (fit.used & stars.point).sum() >= 8 else fit.used
    scale, shift_x, shift_y = (max(floor, matching.intrinsic(fit.offsets[used, k], fit.errors[used, k]))
                               for k, floor in enumerate(LEAST_ERROR))
    area = psf.effective_area
    slope_y, slope_x = np.gradient(matched)
    moved = shift_x**2 * slope_x**2 + shift_y**2 * slope_y**2
    return np.asarray(area * (0.25 * moved + scale**2 * matched**2), np.float32)


def _kernel_error(matched: np.ndarray, fit: matching.Fit, reference: Psf, psf: Psf) -> np.ndarray:
    """Variance of the kernel's own error, which grows where no star held it."""
    shape = matched.shape[0], matched.shape[1]
    nodes = Nodes.over(shape, max(shape) // 6)
    x, y = (a.ravel() for a in np.meshgrid(nodes.x, nodes.y))
    relative = matching.uncertainty(fit, reference, x, y).reshape(len(nodes.y), len(nodes.x))
    light = gaussian_filter(np.square(matched), psf.sigma)
    return np.asarray(0.25 * psf.effective_area * interpolate(relative, nodes, shape) * light, np.float32)


def _restored(pair: Pair, left: SpatialKernel, right: SpatialKernel) -> np.ndarray:
    """Light in the convolved image that comes from restored cores of saturated stars, and from beyond the border."""
    image, full, kernel = ((pair.template, pair.template_full, right) if right.half
                           else (pair.science, pair.science_full, left))
    half = kernel.half
    light = np.pad(np.abs(image), half, mode="symmetric")
    doubtful = np.pad(full, half, constant_values=True)
    if pair.beyond_hole is not None and right.half:
        spare = (pair.beyond_hole.shape[0] - image.shape[0]) // 2
        known = min(spare, half)
        inside = np.s_[spare - known:pair.beyond_hole.shape[0] - spare + known,
                       spare - known:pair.beyond_hole.shape[1] - spare + known]
        doubtful[half - known:doubtful.shape[0] - half + known, half - known:doubtful.shape[1] - half + known] = (
            pair.beyond_hole[inside])
        doubtful[half:-half, half:-half] = full
    shape = light.shape[0], light.shape[1]
    doubt = SpatialKernel(np.abs(kernel.central)[None], 0, shape)
    return convolve(np.where(doubtful, light, 0), doubt)[half:-half, half:-half]


def _filtered_psf(stamps: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """(n, m, m) stamps convolved each with its kernel, of unit sum and the stamps' size."""
    side = stamps.shape[1] + kernels.shape[1] - 1
    product = np.fft.rfft2(stamps, (side, side)) * np.fft.rfft2(kernels, (side, side))
    edge = kernels.shape[1] // 2
    out = np.fft.irfft2(product, (side, side))[:, edge:edge + stamps.shape[1], edge:edge + stamps.shape[1]]
    return np.asarray(out / out.sum(axis=(1, 2), keepdims=True))


def _fitted_psf(stamps: np.ndarray, x: np.ndarray, y: np.ndarray, shape: tuple[int, int], order: int) -> Psf:
    """The PSF polynomial through stamps at positions."""
    design = terms(x, y, shape, order)
    found = np.linalg.lstsq(design, stamps.reshape(len(stamps), -1), rcond=None)[0]
    return Psf(found.reshape(-1, *stamps.shape[1:]), order, shape)


def _difference_psf(psf: Psf, left: SpatialKernel, kernels: np.ndarray, nodes: Nodes, shape: tuple[int, int]) -> Psf:
    """PSF of a new source of the science image in the whitened difference."""
    x, y = (a.ravel() for a in np.meshgrid(nodes.x, nodes.y))
    stamps = psf.stamps(x, y)
    if left.half:
        stamps = _filtered_psf(stamps, np.stack([left.at(a, b) for a, b in zip(x, y, strict=True)]))
    stamps = _filtered_psf(stamps, kernels.reshape(-1, *kernels.shape[2:]))
    order = min(max(psf.order, left.order, 1), len(nodes.x) - 1, len(nodes.y) - 1)
    return _fitted_psf(stamps, x, y, shape, order)


def _matched_psf(psf: Psf, right: SpatialKernel, shape: tuple[int, int]) -> Psf:
    """PSF of the matched template."""
    if right.half == 0:
        return psf
    nodes = np.linspace(0, 1, 5)
    x, y = (a.ravel() for a in np.meshgrid(nodes * (shape[1] - 1), nodes * (shape[0] - 1)))
    kernels = np.stack([right.at(a, b) for a, b in zip(x, y, strict=True)])
    return _fitted_psf(_filtered_psf(psf.stamps(x, y), kernels), x, y, shape, max(psf.order, right.order))


def _ratios(image: np.ndarray, variance: np.ndarray, science: np.ndarray, x: np.ndarray,
            y: np.ndarray) -> tuple[float, float]:
    """Mean and scatter over the sources of the fit of |difference| beyond its noise, relative to the science flux.

    Sources whose noise alone would make a tenth are left out while others remain.
    """
    offsets = np.arange(-4, 5)
    rows, columns = (y[:, None] + offsets)[:, :, None], (x[:, None] + offsets)[:, None, :]
    flux = science[rows, columns].sum(axis=(1, 2))
    noise = np.sqrt(2.0 / np.pi * variance[rows, columns]).sum(axis=(1, 2))
    ratio = (np.abs(image[rows, columns]).sum(axis=(1, 2)) - noise) / np.maximum(flux, 1e-30)
    clear = noise < 0.1 * flux
    if clear.sum() < 3:
        clear = np.argsort(noise / np.maximum(flux, 1e-30))[:3]
    return float(np.mean(ratio[clear])), float(np.std(ratio[clear]))


def _measured_noise(image: np.ndarray, variance: np.ndarray, blank: np.ndarray, psf: Psf) -> tuple[float, float]:
    """rms of the matched-filter S/N, and lag-1 correlation, on blank sky."""
    unit = np.where(blank, np.clip(image / np.sqrt(variance), -4, 4), 0).astype(np.float32)
    power = float((unit**2)[blank].mean())
    lags = [float((unit[:, :-1] * unit[:, 1:])[blank[:, :-1] & blank[:, 1:]].mean()),
            float((unit[:-1] * unit[1:])[blank[:-1] & blank[1:]].mean())]
    stamp = psf.central[::-1, ::-1]
    shape = image.shape[0], image.shape[1]
    score = convolve(unit, SpatialKernel(stamp[None], 0, shape))
    inside = convolve(blank.astype(np.float32), SpatialKernel(stamp[None] ** 2, 0, shape)) > 0.98 * (stamp**2).sum()
    if inside.sum() < 100:
        return 1.0, float(np.mean(lags)) / power
    low, high = np.percentile(score[inside], [15.865, 84.135])
    return float((high - low) / 2 / np.sqrt((stamp**2).sum() * power)), float(np.mean(lags)) / power


