"""The matching kernel: Gaussians times polynomials, varying over the image, fitted to stars (Alard & Lupton 1998).

The first basis function has unit sum and all others sum to zero, so its coefficients alone are the flux scale between
the two images. Both PSF models are known, so that pairs of them over the image serve as further data: the kernel must
turn one PSF into the other up to a shift and a factor, which only the stars know (registration and zeropoint). This
holds the kernel where stars are few, and costs nothing where they are many.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.difference.spatial import SpatialKernel, powers, terms
from pipeline.difference.stars import KernelStars
from pipeline.errors import AlgorithmError
from pipeline.pixel_config import DifferenceConfig
from pipeline.psf import Psf

CLIP_SIGMA = 4.0        # robust sigmas of the sample beyond which a source leaves the fit
MIN_GOOD = 0.7          # of a stamp's pixels
FLUX_SCATTER = 0.01     # of stars between two epochs: no star weighs more than this allows in the flux scale
SKY_ERROR = 0.05        # of the background around a source, in units of the noise of a pixel


@dataclass(frozen=True, slots=True)
class Basis:
    """Separable terms fx(x) fy(y); `mix` makes all but the first sum to zero."""

    filters: np.ndarray      # (f, 2 half + 1) one-dimensional filters
    pairs: np.ndarray        # (n, 2) index of the filter along x and along y
    mix: np.ndarray          # (n, n): basis = mix @ separable terms

    @property
    def half(self) -> int:
        return int(self.filters.shape[1]) // 2

    def stamps(self) -> np.ndarray:
        """(n, m, m) basis functions."""
        raw = self.filters[self.pairs[:, 1]][:, :, None] * self.filters[self.pairs[:, 0]][:, None, :]
        return np.asarray(np.tensordot(self.mix, raw, axes=1))

    def convolve(self, stamps: np.ndarray) -> np.ndarray:
        """(s, n, (M - 2 half)^2) stamps of side M convolved with every basis function."""
        along_x, along_y = self.pairs.T
        side = stamps.shape[1]
        bands = np.stack([_band(f, side) for f in self.filters]).astype(np.float32)
        wide = np.stack([stamps @ band for band in bands], axis=1)             # (s, f, M, inner)
        full = np.matmul(bands[along_y].transpose(0, 2, 1), wide[:, along_x])  # (s, n, inner, inner)
        return np.asarray(np.matmul(self.mix.astype(np.float32), full.reshape(len(stamps), len(self.pairs), -1)))


def _band(kernel: np.ndarray, side: int) -> np.ndarray:
    """(side, side - 2 half) matrix of a "valid" convolution from the right."""
    half = len(kernel) // 2
    out = np.zeros((side, side - 2 * half))
    for j in range(side - 2 * half):
        out[j:j + 2 * half + 1, j] = kernel[::-1]
    return out


def basis(sigmas: tuple[float, ...], degrees: tuple[int, ...], half: int) -> Basis:
    """Gaussians of `sigmas` [pixel] times polynomials up to `degrees`, on (2 half + 1)^2 pixels."""
    x = np.arange(-half, half + 1)
    filters: list[np.ndarray] = []
    pairs: list[tuple[int, int]] = []
    for sigma, degree in zip(sigmas, degrees, strict=True):
        first = len(filters)
        gauss = np.exp(-0.5 * (x / sigma) ** 2)
        gauss /= gauss.sum()
        filters += [gauss * (x / (2.0 * sigma)) ** k for k in range(degree + 1)]
        pairs += [(first + p, first + q) for p, q in powers(degree)]
    table, index = np.array(filters), np.array(pairs)
    sums = table.sum(axis=1)[index].prod(axis=1)
    mix = np.eye(len(index))
    mix[1:, 0] -= sums[1:]
    return Basis(table, index, mix)


def choose_basis(target_sigma: float, reference_sigma: float, config: DifferenceConfig) -> Basis:
    """The basis for two PSF sizes [pixel], by the rules of ip_diffim (makeKernel: scaleByFwhm, beta 2)."""
    if config.basis_sigmas:
        sigmas = config.basis_sigmas
    else:
        smallest = 0.7 if target_sigma >= reference_sigma else 0.4
        matching = max(smallest, float(np.sqrt(abs(target_sigma**2 - reference_sigma**2))))
        first = max(smallest, matching / 2)
        sigmas = tuple(first * 2.0**k for k in range(len(config.basis_degrees)))
    low, high = config.kernel_half
    return basis(sigmas, config.basis_degrees, int(np.clip(int(6 * max(sigmas)) // 2, low, high)))


@dataclass(frozen=True, slots=True)
class Fit:
    """A kernel, and what is left of the stars it was fitted to."""

    kernel: SpatialKernel
    scale: float                 # kernel sum at the image's centre
    used: np.ndarray             # (n,) bool
    chi2: np.ndarray             # (n,) per pixel
    offsets: np.ndarray          # (n, 3): left-over relative flux, shift in x, shift in y [pixel]
    errors: np.ndarray           # (n, 3)
    functions: Basis
    covariance: np.ndarray       # (count k, count k) of the coefficients


def solve(stars: KernelStars, functions: Basis, target_psf: Psf, reference_psf: Psf, shape: tuple[int, int],
          config: DifferenceConfig, *, order: int) -> Fit:
    """The kernel for which target = kernel * reference + a small constant per star, outlying sources clipped.

    Stars vary: each has a factor of its own, within FLUX_SCATTER, so that a bright one tells the kernel's shape but not
    its sum, which is the weighted median of all. Outliers in flux, place or chi2 leave the fit.
    """
    convolved = functions.convolve(stars.reference)
    stamps = functions.stamps()
    n, count = len(stars), len(stamps)
    target = stars.target.reshape(n, -1).astype(float)
    good = stars.good.reshape(n, -1)
    ours, theirs = (v.reshape(n, -1).astype(float) for v in (stars.target_variance, stars.reference_variance))
    smoothing = 0.3   # sum of the squared kernel: how much of the reference's variance is left by the convolution
    space = terms(stars.x, stars.y, shape, order)
    free = np.ones((count, space.shape[1]), bool)
    free[0, (config.scale_order + 1) * (config.scale_order + 2) // 2:] = False
    prior = _prior(functions, target_psf, reference_psf, shape, config, order, stars.target.shape[1])
    used = good.mean(axis=1) > MIN_GOOD
    model: np.ndarray | None = None
    shift = [0.0, 0.0]
    for step in range(config.iterations + 1):
        light = np.maximum(target, 0.0) if model is None else model
        base = _noise(ours, light) + smoothing * _noise(theirs, light)
        error = _model_error(light, config.weight_floor, shift, stars.target.shape[1])
        weight = (good / (base + error)).astype(np.float32)
        normal, vector, centred, aim = _marginal(convolved, target, model, weight, base.min(axis=1))
        if used.sum() < config.min_kernel_sources:
            raise AlgorithmError(f"InsufficientKernelSources: {int(used.sum())} of {n} sources agree on a matching "
                                 f"kernel, {config.min_kernel_sources} are needed")
        coefficients, covariance = _coefficients(normal[used], vector[used], space[used], prior, free)
        at_star = (space @ coefficients.T).astype(np.float32)              # (n, count)
        model, less = (np.einsum("snp,sn->sp", part, at_star) for part in (convolved, centred))
        offsets, errors = _offsets(aim - less, model, weight, stars.target.shape[1])
        factor = 1.0 + _weighted_median(offsets[used, 0], 1.0 / (errors[used, 0] ** 2 + FLUX_SCATTER**2))
        coefficients, model, residual = coefficients * factor, model * factor, aim - less * factor
        chi2 = (residual**2 * weight).sum(axis=1) / good.sum(axis=1)
        offsets, errors = _offsets(residual, model, weight, stars.target.shape[1])
        kernel = SpatialKernel(np.tensordot(coefficients.T, stamps, axes=1), order, shape)
        smoothing = float((kernel.central**2).sum())
        fit = Fit(kernel, float(kernel.central.sum()), used, chi2, offsets, errors,
                  functions, covariance)
        keep = _keep(fit, good)
        shift = [intrinsic(offsets[keep, k], errors[keep, k]) for k in (1, 2)]
        settled = step > 1 and np.array_equal(keep, used)
        used = keep
        if settled:
            break
    assert fit is not None
    return fit


def _marginal(convolved: np.ndarray, target: np.ndarray, model: np.ndarray | None, weight: np.ndarray,
              sky: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Normal equations per star, a constant and a factor near 1 of its own integrated out.

    Returns
    -------
    normal : (s, n, n), vector : (s, n)
    centred : (s, n, p), aim : (s, p)
        `convolved` and `target` less the constants that fit best.
    """
    total = weight.sum(axis=1) + 1.0 / (SKY_ERROR**2 * sky)
    heavy = convolved * weight[:, None, :]
    centred = convolved - (heavy.sum(axis=2) / total[:, None])[:, :, None].astype(np.float32)
    aim = (target - (target * weight).sum(axis=1, keepdims=True) / total[:, None]).astype(np.float32)
    normal = np.matmul(heavy, centred.transpose(0, 2, 1)).astype(float)
    vector = np.einsum("snp,sp->sn", heavy, aim).astype(float)
    if model is None:
        return normal, vector, centred, aim
    ours = (model - (model * weight).sum(axis=1, keepdims=True) / total[:, None]) * weight
    cross = np.einsum("snp,sp->sn", convolved, ours.astype(np.float32)).astype(float)
    norm = 1.0 / ((model * ours).sum(axis=1) + 1.0 / FLUX_SCATTER**2)
    normal -= (cross * norm[:, None])[:, :, None] * cross[:, None, :]
    vector -= cross * (norm * (target * ours).sum(axis=1))[:, None]
    return normal, vector, centred, aim


def _noise(variance: np.ndarray, model: np.ndarray) -> np.ndarray:
    """(n, p) variance as sky plus a multiple of the model.

    Planes made from the data are low where the data are, and weights that know the noise bias a fit.
    """
    sky = np.percentile(variance, 20.0, axis=1, keepdims=True)
    square = (model**2).sum(axis=1, keepdims=True)
    slope = ((variance - sky) * model).sum(axis=1, keepdims=True) / np.maximum(square, 1e-30)
    return np.asarray(sky + np.maximum(slope, 0.0) * np.maximum(model, 0.0))


def _model_error(model: np.ndarray, relative: float, shift: list[float], side: int) -> np.ndarray:
    """(n, p) variance of models with a relative error per pixel and errors of place [pixel]."""
    slope_y, slope_x = np.gradient(model.reshape(-1, side, side), axis=(1, 2))
    moved = (shift[0] * slope_x) ** 2 + (shift[1] * slope_y) ** 2
    return np.asarray((relative * model) ** 2 + moved.reshape(model.shape))


def _coefficients(normal: np.ndarray, vector: np.ndarray, space: np.ndarray, prior: np.ndarray,
                  free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(count, k) least-squares coefficients, those not free zero, and their covariance."""
    count, k = free.shape
    outer = (space[:, :, None] * space[:, None, :]).reshape(len(space), -1)
    matrix = (normal.reshape(len(normal), -1).T @ outer).reshape(count, count, k, k).transpose(0, 2, 1, 3)
    matrix = matrix.reshape(count * k, count * k) + prior
    right = (vector.T @ space).ravel()
    index = np.flatnonzero(free.ravel())
    matrix, right = matrix[np.ix_(index, index)], right[index]
    unit = 1.0 / np.sqrt(np.maximum(np.diag(matrix), 1e-30))
    values, vectors = np.linalg.eigh(matrix * unit[:, None] * unit)
    keep = values > 1e-8 * values[-1]
    root = vectors[:, keep] / np.sqrt(values[keep]) * unit[:, None]
    out, covariance = np.zeros(count * k), np.zeros((count * k, count * k))
    out[index] = root @ (root.T @ right)
    covariance[np.ix_(index, index)] = root @ root.T
    return out.reshape(count, k), covariance


def _prior(functions: Basis, target_psf: Psf, reference_psf: Psf, shape: tuple[int, int], config: DifferenceConfig,
           order: int, side: int) -> np.ndarray:
    """Normal matrix of the PSF pairs: kernel * reference PSF may differ from the target PSF in flux and place only."""
    k, count = (order + 1) * (order + 2) // 2, len(functions.pairs)
    if config.prior_snr <= 0:
        return np.zeros((count * k, count * k))
    nodes = np.linspace(0.1, 0.9, 5)
    x, y = (a.ravel() for a in np.meshgrid(nodes * (shape[1] - 1), nodes * (shape[0] - 1)))
    target = _resized(target_psf.stamps(x, y), side)
    reference = _resized(reference_psf.stamps(x, y), side + 2 * functions.half)
    convolved = functions.convolve(reference).astype(float)
    slope_y, slope_x = np.gradient(target, axis=(1, 2))
    nuisance = np.stack([target, slope_x, slope_y], axis=-1).reshape(len(x), -1, 3)
    frame = np.linalg.qr(nuisance)[0]
    convolved -= np.matmul(np.matmul(convolved, frame), frame.transpose(0, 2, 1))
    weight = config.prior_snr**2 / (target**2).sum(axis=(1, 2))
    normal = np.matmul(convolved, convolved.transpose(0, 2, 1)) * weight[:, None, None]
    space = terms(x, y, shape, order)
    outer = (space[:, :, None] * space[:, None, :]).reshape(len(space), -1)
    matrix = (normal.reshape(len(normal), -1).T @ outer).reshape(count, count, k, k).transpose(0, 2, 1, 3)
    return np.asarray(matrix.reshape(count * k, count * k))


def uncertainty(fit: Fit, reference_psf: Psf, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n,) variance of a matched star's pixels due to the kernel's error at positions, over the sum of its squares."""
    functions, order = fit.functions, fit.kernel.order
    side = 2 * int(np.ceil(4.0 * reference_psf.sigma)) + 1 + 2 * functions.half
    responses = functions.convolve(_resized(reference_psf.stamps(x, y), side)).astype(float)
    at = fit.kernel.components
    space = terms(x, y, fit.kernel.shape, order)
    count, k = len(functions.pairs), space.shape[1]
    block = np.einsum("ikjl,sk,sl->sij", fit.covariance.reshape(count, k, count, k), space, space, optimize=True)
    variance = np.einsum("sip,sij,sjp->s", responses, block, responses, optimize=True)
    stamps = functions.stamps().reshape(count, -1)
    found = np.linalg.lstsq(stamps.T, at.reshape(len(at), -1).T, rcond=None)[0]        # (count, k) coefficients
    star = np.einsum("sip,si->sp", responses, space @ found.T)
    return np.asarray(variance / (star**2).sum(axis=1))


def _resized(stamps: np.ndarray, side: int) -> np.ndarray:
    """Centred stamps cut or padded with zeros to a side."""
    have = stamps.shape[1]
    if have >= side:
        edge = (have - side) // 2
        return stamps[:, edge:edge + side, edge:edge + side]
    edge = (side - have) // 2
    return np.pad(stamps, ((0, 0), (edge, edge), (edge, edge)))


def _offsets(residual: np.ndarray, model: np.ndarray, weight: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) relative flux and shifts that a star's residual asks for, and their errors."""
    square = model.reshape(-1, side, side)
    slope_y, slope_x = np.gradient(square, axis=(1, 2))
    design = np.stack([model, -slope_x.reshape(model.shape), -slope_y.reshape(model.shape)], axis=1).astype(float)
    heavy = design * weight[:, None, :]
    normal = np.matmul(heavy, design.transpose(0, 2, 1))
    normal += np.eye(3) * (1e-12 + 1e-9 * np.trace(normal, axis1=1, axis2=2))[:, None, None]
    inverse = np.linalg.inv(normal)
    value = np.einsum("nij,nj->ni", inverse, np.einsum("nip,np->ni", heavy, residual))
    return value, np.sqrt(np.maximum(np.einsum("nii->ni", inverse), 0.0))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])


def spread(values: np.ndarray) -> float:
    """Robust standard deviation about the median."""
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if len(values) else 0.0


def _keep(fit: Fit, good: np.ndarray) -> np.ndarray:
    """Which sources to use next: flux, place and chi2 must be like the others'."""
    keep = good.mean(axis=1) > MIN_GOOD
    for column in range(3):
        value, error = fit.offsets[:, column], fit.errors[:, column]
        extra = intrinsic(value[fit.used], error[fit.used])
        keep &= np.abs(value) < CLIP_SIGMA * np.sqrt(error**2 + extra**2)
    chi2 = fit.chi2[fit.used & keep] if (fit.used & keep).any() else fit.chi2
    return np.asarray(keep & (fit.chi2 < np.median(chi2) + CLIP_SIGMA * spread(chi2) + 0.3))


def intrinsic(value: np.ndarray, error: np.ndarray) -> float:
    """Robust scatter of values about zero beyond their errors, from the quarter (at least 8) of smallest errors."""
    if len(value) < 3:
        return 0.0
    best = np.argsort(error, kind="stable")[:max(8, len(error) // 2)]
    value, error = value[best], error[best]
    low, high = 0.0, float(np.max(np.abs(value)) + 1e-12)
    for _ in range(40):    # bisection: median of value^2 / (error^2 + s^2) is that of a chi2 of one degree, 0.455
        middle = 0.5 * (low + high)
        ratio = float(np.median(value**2 / (error**2 + middle**2)))
        low, high = (middle, high) if ratio > 0.455 else (low, middle)
    return low if low > 1e-9 else 0.0
