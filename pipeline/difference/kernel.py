"""The matching kernel: Gaussians times polynomials, varying over the image, fitted to stars (Alard & Lupton 1998).

The first basis function has unit sum and all others sum to zero, so its coefficients alone are the flux scale between
the two images. Both PSF models are known, so that pairs of them over the image serve as further data: the kernel must
turn one PSF into the other up to a shift and a factor, which only the stars know (registration and zeropoint). This
holds the kernel where stars are few, and costs nothing where they are many.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.difference.memory import scratch
from pipeline.difference.spatial import SpatialKernel, over, powers, terms
from pipeline.difference.stars import KernelStars
from pipeline.errors import AlgorithmError
from pipeline.kernels import matching as kernels
from pipeline.pixel_config import DifferenceConfig
from pipeline.psf import Psf

CLIP_SIGMA = 4.0        # robust sigmas of the sample beyond which a source leaves the fit
MIN_GOOD = 0.7          # of a stamp's pixels
FLUX_SCATTER = 0.01     # of stars between two epochs: no star weighs more than this allows in the flux scale
SHARE = 16              # stars that one call of a kernel does
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

    def convolve(self, stamps: np.ndarray, *, threads: int = 1) -> np.ndarray:
        """(s, n, (M - 2 half)^2) float32: stamps of side M convolved with every basis function."""
        inner = stamps.shape[1] - 2 * self.half
        given = np.ascontiguousarray(stamps, np.float32), self.filters.astype(np.float32)
        less = -self.mix[:, 0].astype(np.float32)
        out = scratch((len(stamps), len(self.pairs), inner * inner))
        _by_stars(kernels.respond, (*given, self.pairs.astype(np.int64), less), (out,), threads)
        return out


def _by_stars(kernel: Callable[..., None], given: tuple[object, ...], made: tuple[np.ndarray, ...],
              threads: int) -> None:
    """Run a kernel that takes a first and an end star between its inputs and its outputs."""
    n = len(made[0])
    over(lambda start: kernel(*given, start, min(start + SHARE, n), *made), range(0, n, SHARE), threads)


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
          config: DifferenceConfig, *, order: int, threads: int = 1) -> Fit:
    """The kernel for which target = kernel * reference + a small constant per star, outlying sources clipped.

    Stars vary: each has a factor of its own, within FLUX_SCATTER, so that a bright one tells the kernel's shape but not
    its sum, which is the weighted median of all. Outliers in flux, place or chi2 leave the fit.
    """
    equations = _Equations(stars, functions.convolve(stars.reference, threads=threads), threads)
    stamps = functions.stamps()
    n, count = len(stars), len(stamps)
    share = stars.good.reshape(n, -1).mean(axis=1)
    smoothing = 0.3   # sum of the squared kernel: how much of the reference's variance is left by the convolution
    space = terms(stars.x, stars.y, shape, order)
    free = np.ones((count, space.shape[1]), bool)
    free[0, (config.scale_order + 1) * (config.scale_order + 2) // 2:] = False
    prior = _prior(functions, target_psf, reference_psf, shape, config, order, stars.target.shape[1])
    used = share > MIN_GOOD
    model: np.ndarray | None = None
    shift = [0.0, 0.0]
    for step in range(config.iterations + 1):
        weight, least = equations.weights(model, smoothing, config.weight_floor, shift)
        normal, vector, mean = equations.normals(model, weight, least)
        if used.sum() < config.min_kernel_sources:
            raise AlgorithmError(f"InsufficientKernelSources: {int(used.sum())} of {n} sources agree on a matching "
                                 f"kernel, {config.min_kernel_sources} are needed")
        coefficients, covariance = _coefficients(normal[used], vector[used], space[used], prior, free)
        at_star = space @ coefficients.T              # (n, count)
        model = equations.model(at_star)
        constant, level = (mean[:, :-1] * at_star).sum(axis=1), mean[:, -1].copy()
        offsets, errors, _ = equations.left(model, constant, level, weight, 1.0)
        factor = 1.0 + _weighted_median(offsets[used, 0], 1.0 / (errors[used, 0] ** 2 + FLUX_SCATTER**2))
        offsets, errors, chi2 = equations.left(model, constant, level, weight, factor)
        coefficients, model = coefficients * factor, model * np.float32(factor)
        kernel = SpatialKernel(np.tensordot(coefficients.T, stamps, axes=1), order, shape)
        smoothing = float((kernel.central**2).sum())
        fit = Fit(kernel, float(kernel.central.sum()), used, chi2 / (share * stars.good[0].size), offsets, errors,
                  functions, covariance)
        keep = _keep(fit, share)
        shift = [intrinsic(offsets[keep, k], errors[keep, k]) for k in (1, 2)]
        settled = step > 1 and np.array_equal(keep, used)
        used = keep
        if settled:
            break
    assert fit is not None
    return fit


class _Equations:
    """The pixels of a fit's stars, and what they say of a kernel."""

    def __init__(self, stars: KernelStars, functions: np.ndarray, threads: int) -> None:
        n = len(stars)
        self.functions, self.threads, self.side = functions, threads, stars.target.shape[1]
        self.target, self.ours, self.theirs, self.good = (
            np.ascontiguousarray(plane.reshape(n, -1))
            for plane in (stars.target, stars.target_variance, stars.reference_variance, stars.good))
        self.sky = [np.percentile(plane, 20.0, axis=1).astype(float) for plane in (self.ours, self.theirs)]

    def weights(self, model: np.ndarray | None, smoothing: float, floor: float,
                shift: list[float]) -> tuple[np.ndarray, np.ndarray]:
        """Inverse variances of the pixels, and the least noise of each star."""
        light = np.maximum(self.target, np.float32(0)) if model is None else model
        weight, least = np.empty_like(self.target), np.empty(len(self.target))
        _by_stars(kernels.weigh, (light, self.ours, self.theirs, self.good, *self.sky, smoothing, floor, *shift,
                                  self.side), (weight, least), self.threads)
        return weight, least

    def normals(self, model: np.ndarray | None, weight: np.ndarray,
                least: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Normal equations per star, a constant and a factor near 1 of its own integrated out, and what the constant
        takes off each function and the target.
        """
        n, count, _ = self.functions.shape
        made = np.empty((n, count, count)), np.empty((n, count)), np.empty((n, count + 1))
        _by_stars(kernels.normals, (self.functions, self.target, self.target if model is None else model, weight,
                                    1.0 / (SKY_ERROR**2 * least), 0.0 if model is None else 1.0 / FLUX_SCATTER**2),
                  made, self.threads)
        return made

    def model(self, coefficients: np.ndarray) -> np.ndarray:
        """(s, p) stars of given coefficients (s, n)."""
        out = np.empty_like(self.target)
        _by_stars(kernels.sums, (self.functions, coefficients.astype(np.float32)), (out,), self.threads)
        return out

    def left(self, model: np.ndarray, constant: np.ndarray, level: np.ndarray, weight: np.ndarray,
             scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(s, 3) relative flux and shifts that the residuals ask for, their errors, and the residuals' chi2."""
        n = len(model)
        made = np.empty((n, 3, 3)), np.empty((n, 3)), np.empty(n)
        _by_stars(kernels.misfit, (self.target, model, level, constant, weight, scale, self.side), made, self.threads)
        normal, vector, chi2 = made
        normal += np.eye(3) * (1e-12 + 1e-9 * np.trace(normal, axis1=1, axis2=2))[:, None, None]
        inverse = np.linalg.inv(normal)
        return (np.matmul(inverse, vector[:, :, None])[:, :, 0],
                np.sqrt(np.maximum(np.diagonal(inverse, axis1=1, axis2=2), 0.0)), chi2)


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


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])


def spread(values: np.ndarray) -> float:
    """Robust standard deviation about the median."""
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if len(values) else 0.0


def _keep(fit: Fit, good: np.ndarray) -> np.ndarray:
    """Which sources to use next: flux, place and chi2 must be like the others', and pixels good, of which share."""
    keep = good > MIN_GOOD
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
