"""Elliptical Moffat profiles fitted to many stamps at once: the first guess of a PSF, and the judge of its stars."""

from dataclasses import dataclass

import numpy as np

BETAS = (2.2, 2.6, 3.0, 3.5, 4.2, 5.5, 9.0, 25.0)   # from heavy wings to nearly Gaussian; 4.765 is Kolmogorov's core
_SOFTENING = 0.02      # of the model: what a Moffat may be wrong by, so that bright stars are not judged by their noise


@dataclass(frozen=True, slots=True)
class MoffatFits:
    """One row per stamp: peak, x, y (from the stamp's middle), ln(alpha), e1, e2, with errors and quality."""

    peak: np.ndarray
    x: np.ndarray
    y: np.ndarray
    shape: np.ndarray      # (n, 3): ln(alpha), e1, e2
    error: np.ndarray      # (n, 3)
    chi2: np.ndarray       # per degree of freedom, softened
    beta: float

    @property
    def flux(self) -> np.ndarray:
        """Total flux of each fit."""
        return np.asarray(self.peak * area(self.shape, self.beta))


def area(shape: np.ndarray, beta: float) -> np.ndarray:
    """Flux over peak of Moffat profiles."""
    alpha2 = np.exp(2 * shape[..., 0])
    root = np.sqrt(np.maximum(1 - shape[..., 1] ** 2 - shape[..., 2] ** 2, 0.05))
    return np.asarray(np.pi * alpha2 / (beta - 1) / root)


def fwhm(shape: np.ndarray, beta: float) -> np.ndarray:
    """Full width at half maximum, of the circle with the same area [pixel]."""
    return np.asarray(2 * np.sqrt((2 ** (1 / beta) - 1) * area(shape, beta) * (beta - 1) / np.pi))


def evaluate(shape: np.ndarray, beta: float, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Profile of unit flux at offsets; `shape` (..., 3) broadcasts against them after its last axis is taken."""
    e1, e2 = shape[..., 1], shape[..., 2]
    q = (1 - e1) * dx**2 + (1 + e1) * dy**2 - 2 * e2 * dx * dy
    return np.asarray((1 + q / np.exp(2 * shape[..., 0])) ** -beta / area(shape, beta))


def fit(stamps: np.ndarray, variance: np.ndarray, alpha: float, beta: float, iterations: int = 12) -> MoffatFits:
    """Moffat profiles of one `beta` fitted to (n, s, s) stamps whose middle pixel holds the star.

    `variance` (n, s, s) is inf where a pixel is not to be used. Gauss-Newton with bounded steps.
    """
    n, side, _ = stamps.shape
    k = np.arange(side) - side // 2
    values = np.zeros((n, 6))
    values[:, 0] = np.maximum(stamps[:, side // 2, side // 2], 1e-6)
    values[:, 3] = np.log(alpha)
    limit = np.array([0.0, 0.7, 0.7, 0.3, 0.15, 0.15])
    for iteration in range(iterations):
        model, jacobian = _model(values, k, beta)
        weight = 1 / (variance + (_SOFTENING * np.maximum(model, 0)) ** 2)
        residual = stamps - model
        weighted = jacobian * weight[:, None]
        normal = np.einsum("npij,nqij->npq", weighted, jacobian, optimize=True)
        diagonal = np.einsum("npp->np", normal)
        diagonal += 1e-6 * diagonal + 1e-30
        if iteration == iterations - 1:
            break
        right = np.einsum("npij,nij->np", weighted, residual, optimize=True)
        step = np.linalg.solve(normal, right[:, :, None])[:, :, 0]
        limit[0] = np.inf
        values += np.clip(step, -limit, limit)
        values[:, 0] = np.maximum(values[:, 0], 1e-6)
        values[:, 1:3] = np.clip(values[:, 1:3], -2.5, 2.5)
        values[:, 3] = np.clip(values[:, 3], np.log(alpha) - 1.5, np.log(alpha) + 1.5)
        values[:, 4:6] = np.clip(values[:, 4:6], -0.6, 0.6)
    used = np.isfinite(variance).sum(axis=(1, 2))
    chi2 = (weight * residual**2).sum(axis=(1, 2)) / np.maximum(used - 6, 1)
    error = np.sqrt(np.einsum("npp->np", np.linalg.inv(normal))[:, 3:])
    return MoffatFits(values[:, 0], values[:, 1], values[:, 2], values[:, 3:], error, chi2, beta)


def _model(values: np.ndarray, k: np.ndarray, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """(n, s, s) models and their (n, 6, s, s) derivatives by peak, x, y, ln(alpha), e1, e2."""
    peak, x, y, log_alpha, e1, e2 = (v[:, None, None] for v in values.T)
    dx, dy = k[None, None, :] - x, k[None, :, None] - y
    alpha2 = np.exp(2 * log_alpha)
    q = ((1 - e1) * dx**2 + (1 + e1) * dy**2 - 2 * e2 * dx * dy) / alpha2
    unit = np.maximum(1 + q, 0.05) ** -beta
    slope = -beta * peak * unit / np.maximum(1 + q, 0.05)
    jacobian = np.stack([
        unit,
        slope * (-2 * (1 - e1) * dx + 2 * e2 * dy) / alpha2,
        slope * (-2 * (1 + e1) * dy + 2 * e2 * dx) / alpha2,
        slope * -2 * q,
        slope * (dy**2 - dx**2) / alpha2,
        slope * -2 * dx * dy / alpha2], axis=1)
    return peak * unit, jacobian


def best_beta(stamps: np.ndarray, variance: np.ndarray, alpha: float) -> float:
    """The one of BETAS that fits most stamps best: least median softened chi2."""
    scores = []
    for beta in BETAS:
        start = alpha * np.sqrt((2 ** (1 / 3.0) - 1) / (2 ** (1 / beta) - 1))
        scores.append(float(np.median(fit(stamps, variance, start, beta, 10).chi2)))
    return BETAS[int(np.argmin(scores))]
