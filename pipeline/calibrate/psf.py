"""The PSF of an exposure from its stars.

    Moffat fits  ->  judge the candidates  ->  shape as a polynomial of position  ->  first PSF
    residuals of the stars from the PSF, moved to the centre  ->  regression pixel by pixel  ->  added to the PSF, twice

Interpolation touches the residuals alone, so its error is of second order. A residual counts as far as it exceeds its
own noise (an empirical Bayes filter in a window of 3x3 px), and far from the centre its mean over a ring does.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, spatial

from pipeline.calibrate import moffat
from pipeline.calibrate.stars import cut, locus
from pipeline.errors import AlgorithmError
from pipeline.interpolate import shifted
from pipeline.psf import Psf

MIN_STARS = 4
_MAX_STARS = 400
_ROUNDS = 3
_RING_PX = 1.5
_KOLMOGOROV_WING = 0.0016  # times width^-2: a Kolmogorov PSF of unit flux at two widths, as r^(-11/3)
_LAW_SCATTER = 0.15         # relative, that this is trusted to


@dataclass(frozen=True, slots=True)
class PsfModel:
    """A PSF and the rows of FOUND it was made from."""

    psf: Psf
    used: np.ndarray       # indices into the sources found
    size: float            # locus of stars in FOUND's `size`
    size_width: float      # its half-width, relative


@dataclass(frozen=True, slots=True)
class PointFits:
    """PSF fits of many sources: flux and position with errors."""

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    flux_error: np.ndarray
    x_error: np.ndarray
    y_error: np.ndarray
    chi2: np.ndarray       # per degree of freedom within the fit's window, softened by 2 % of the model


def side_for(fwhm: float) -> int:
    """Side of the stamps for a seeing [pixel]: five FWHM to each side (0.5 % of the light lies beyond), 31 to 61."""
    return int(np.clip(2 * round(5 * fwhm) + 1, 31, 61))


def build(image: np.ndarray, sky_variance: float, gain: float, unusable: np.ndarray, found: np.ndarray,
          ceiling: float) -> PsfModel:
    """The PSF of `image` [ADU, no sky] from the stars among `found`; `ceiling` is the highest trusted peak [ADU]."""
    candidates, size, width = _candidates(found, ceiling, (image.shape[0], image.shape[1]))
    if len(candidates) < MIN_STARS:
        raise AlgorithmError(f"PSF: {len(candidates)} usable stars, {MIN_STARS} needed")
    half = int(np.clip(round(3.0 * size), 6, 14))
    x, y = np.rint(found["x"][candidates]).astype(int), np.rint(found["y"][candidates]).astype(int)
    stamps = cut(image, x, y, half)
    bad = cut(unusable.astype(np.float32), x, y, half, fill=1.0) > 0
    variance = np.where(bad, np.inf, sky_variance + np.maximum(ndimage.gaussian_filter(stamps, (0, 1, 1)), 0) / gain)
    alpha = 1.15 * size * 2.0
    bright = np.argsort(found["snr"][candidates])[::-1][:40]
    beta = moffat.best_beta(stamps[bright], variance[bright], alpha)
    alpha *= np.sqrt((2 ** (1 / 3.0) - 1) / (2 ** (1 / beta) - 1))
    fits = moffat.fit(stamps, variance, alpha, beta)
    good, coefficients, order = _judge(fits, x, y, (image.shape[0], image.shape[1]))
    if np.count_nonzero(good) < MIN_STARS:
        raise AlgorithmError(f"PSF: {np.count_nonzero(good)} of {len(candidates)} candidates have one shape, "
                             f"{MIN_STARS} needed")
    stars, fits_x, fits_y = candidates[good], (x + fits.x)[good], (y + fits.y)[good]
    typical = np.median(fits.shape[good], axis=0)
    side = side_for(float(moffat.fwhm(typical, beta)))
    psf = _moffat_psf(coefficients, beta, order, side, (image.shape[0], image.shape[1]))
    point_flux = found["windowed"] * float(np.median(fits.flux[good] / found["windowed"][stars]))
    wide = _Stars.gather(image, unusable, found, point_flux, stars, fits_x, fits_y, typical, beta, side // 2)
    for _ in range(_ROUNDS):
        psf = _refine(psf, wide, sky_variance, gain)
    return PsfModel(_centred(psf, beta), stars, size, width)


def _candidates(found: np.ndarray, ceiling: float, shape: tuple[int, int]) -> tuple[np.ndarray, float, float]:
    """Rows that may be stars: bright, clean, alone, of the stars' size."""
    clean = ~found["masked"] & (found["peak"] < ceiling) & (found["size"] > 0.5) & (found["size"] < 6)
    for least in (50.0, 25.0, 12.0):
        bright = np.flatnonzero(clean & (found["snr"] > least))
        if len(bright) >= 25:
            break
    if len(bright) == 0:
        return bright, 0.0, 0.0
    size, width = locus(found["size"][bright], found["snr"][bright])
    chosen = bright[np.abs(np.log(found["size"][bright] / size)) < width]
    tree = spatial.cKDTree(np.stack([found["x"], found["y"]], axis=1))
    alone = []
    for row in chosen:
        near, close = ([j for j in tree.query_ball_point([found["x"][row], found["y"][row]], reach * size) if j != row]
                       for reach in (7.0, 4.0))
        faint_near = found["flux"][near].max(initial=0) < 0.5 * found["flux"][row]
        faint_close = found["flux"][close].max(initial=0) < 0.03 * found["flux"][row]
        inside = 6 <= found["x"][row] <= shape[1] - 7 and 6 <= found["y"][row] <= shape[0] - 7
        alone.append(faint_near and faint_close and inside)
    isolated = chosen[np.array(alone, bool)] if len(chosen) else chosen
    return isolated[:_MAX_STARS], size, width


def _judge(fits: moffat.MoffatFits, x: np.ndarray, y: np.ndarray,
           shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, int]:
    """Which stamps share one smooth shape, the (terms, 3) polynomial of it, and its order (least BIC)."""
    error = np.sqrt(fits.error**2 + np.array([0.003, 0.003, 0.003]) ** 2)
    good = np.isfinite(fits.shape).all(axis=1) & (fits.chi2 < max(3.0, 4 * float(np.median(fits.chi2))))
    best: tuple[float, np.ndarray, np.ndarray, int] | None = None
    centre = np.median(fits.shape[good], axis=0) if good.any() else np.zeros(3)
    scatter = np.maximum(1.4826 * np.median(np.abs(fits.shape[good] - centre), axis=0), 0.004) if good.any() else 1.0
    start = good & (np.abs(fits.shape - centre) < 5 * np.sqrt(scatter**2 + error**2)).all(axis=1)
    for order in (0, 1, 2):
        terms = _terms(x, y, shape, order)
        if np.count_nonzero(start) < 5 * terms.shape[1] and order:
            break
        kept = start
        for _ in range(5):
            if np.count_nonzero(kept) < terms.shape[1]:
                break
            coefficients = np.stack([np.linalg.lstsq(terms[kept] / error[kept, p, None],
                                                     fits.shape[kept, p] / error[kept, p], rcond=None)[0]
                                     for p in range(3)], axis=1)
            pull = (fits.shape - terms @ coefficients) / error
            spread = np.maximum(1.0, 1.4826 * np.median(np.abs(pull[kept]), axis=0))
            kept = start & (np.abs(pull) < 4.0 * spread).all(axis=1)
        if np.count_nonzero(kept) < terms.shape[1]:
            continue
        score = float(np.minimum(pull[start] ** 2, 16.0).sum()) + 3 * terms.shape[1] * np.log(np.count_nonzero(start))
        if best is None or score < best[0]:
            best = score, kept, coefficients, order
    if best is None:
        return np.zeros(len(good), bool), np.zeros((1, 3)), 0
    return best[1], best[2], best[3]


def _terms(x: np.ndarray, y: np.ndarray, shape: tuple[int, int], order: int) -> np.ndarray:
    count = (order + 1) * (order + 2) // 2
    return Psf(np.ones((count, 1, 1)), order, shape).terms(x, y)


def _grid(shape: tuple[int, int], n: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.linspace(0, shape[1] - 1, n), np.linspace(0, shape[0] - 1, n))
    return x.ravel(), y.ravel()


def _moffat_psf(coefficients: np.ndarray, beta: float, order: int, side: int, shape: tuple[int, int]) -> Psf:
    """Moffat shapes that vary as polynomials, as a PSF whose pixels do."""
    x, y = _grid(shape, 7)
    shapes = _terms(x, y, shape, order) @ coefficients
    k = np.arange(side) - side // 2
    stamps = moffat.evaluate(shapes[:, None, None], beta, k[None, None, :], k[None, :, None])
    stamps /= stamps.sum(axis=(1, 2), keepdims=True)
    return Psf(polynomial(stamps, x, y, shape, order), order, shape)


def polynomial(stamps: np.ndarray, x: np.ndarray, y: np.ndarray, shape: tuple[int, int], order: int,
               weights: np.ndarray | None = None) -> np.ndarray:
    """(terms, m, m) basis whose polynomial fits (n, m, m) stamps at positions best."""
    terms = _terms(x, y, shape, order)
    root = np.ones(len(x)) if weights is None else np.sqrt(weights)
    flat = stamps.reshape(len(x), -1)
    basis = np.linalg.lstsq(terms * root[:, None], flat * root[:, None], rcond=None)[0]
    return np.asarray(basis.reshape(terms.shape[1], *stamps.shape[1:]))


@dataclass(frozen=True, slots=True)
class _Stars:
    """Wide stamps of the PSF stars, their neighbours subtracted."""

    x: np.ndarray
    y: np.ndarray
    column: np.ndarray     # whole pixel of the stamp's middle
    row: np.ndarray
    stamps: np.ndarray     # (n, m, m)
    bad: np.ndarray        # (n, m, m) bool

    @classmethod
    def gather(cls, image: np.ndarray, unusable: np.ndarray, found: np.ndarray, point_flux: np.ndarray,
               stars: np.ndarray, x: np.ndarray, y: np.ndarray, shape: np.ndarray, beta: float, half: int) -> "_Stars":
        column, row = np.rint(x).astype(int), np.rint(y).astype(int)
        stamps = cut(image, column, row, half).astype(float)
        bad = cut(unusable.astype(np.float32), column, row, half, fill=1.0) > 0
        tree = spatial.cKDTree(np.stack([found["x"], found["y"]], axis=1))
        k = np.arange(-half, half + 1)
        width = float(moffat.fwhm(shape, beta))
        for n, source in enumerate(stars):
            near = tree.query_ball_point([x[n], y[n]], 1.5 * half + 2 * width)
            for j in near:
                if j == source:
                    continue
                dx, dy = k[None, :] - (found["x"][j] - column[n]), k[:, None] - (found["y"][j] - row[n])
                stamps[n] -= point_flux[j] * moffat.evaluate(shape, beta, dx, dy)
                bad[n] |= dx**2 + dy**2 < (1.8 * width) ** 2
        return cls(x, y, column, row, stamps, bad)


def _refine(psf: Psf, stars: _Stars, sky_variance: float, gain: float) -> Psf:
    """The PSF with the mean residuals of its stars added, as polynomials of position."""
    half = psf.width // 2
    dx, dy, flux = stars.x - stars.column, stars.y - stars.row, np.ones(len(stars.x))
    models = psf.stamps(stars.x, stars.y)
    for _ in range(3):
        dx, dy, flux, *_ = _newton(models, stars.stamps, stars.bad, dx, dy, sky_variance, gain)
    good = (flux > 0) & (np.hypot(dx, dy) < 2.0)
    if np.count_nonzero(good) < MIN_STARS:
        raise AlgorithmError(f"PSF: {np.count_nonzero(good)} stars left after centring, {MIN_STARS} needed")
    dx, dy, flux, models = dx[good], dy[good], flux[good], models[good]
    moved = shifted(models, dx, dy)
    scale = flux[:, None, None]
    variance = sky_variance + np.maximum(moved, 0) * scale / gain + (0.004 * moved * scale) ** 2
    residual = shifted((stars.stamps[good] - moved * scale) * ~stars.bad[good] / scale, -dx, -dy)
    weight = np.where(stars.bad[good], 0.0, scale**2 / variance)
    order = min(psf.order, 0 if len(flux) < 12 else 1 if len(flux) < 30 else 2)
    terms = _terms(stars.x[good], stars.y[good], psf.shape, order)
    change, error = _regress(residual, weight, terms)
    basis = psf.basis.copy()
    for k in range(terms.shape[1]):
        basis[k] += _shrunk(change[k], error[k], half, k == 0, psf)
    total = basis[0].sum()
    return _positive(Psf(basis / total, psf.order, psf.shape))


def _regress(residual: np.ndarray, weight: np.ndarray, terms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(k, m, m) coefficients and errors of a robust regression of (n, m, m) residuals on (n, k) terms, per pixel."""
    n, m, _ = residual.shape
    data, base = residual.reshape(n, -1), weight.reshape(n, -1)
    robust = base
    pairs = terms[:, :, None] * terms[:, None, :]
    for _ in range(4):
        normal = np.einsum("np,nkl->pkl", robust, pairs, optimize=True)
        normal += np.eye(terms.shape[1]) * (1e-9 * np.einsum("pkk->p", normal) + 1e-12)[:, None, None]
        right = np.einsum("np,nk->pk", robust * data, terms, optimize=True)
        inverse = np.linalg.inv(normal)
        solution = np.einsum("pkl,pl->pk", inverse, right)
        pull = (data - terms @ solution.T) * np.sqrt(base)
        robust = base / (1 + (pull / 3.0) ** 2)     # Cauchy: a neighbour or a cosmic ray counts little
    excess = np.maximum((robust * pull**2).sum(axis=0) / np.maximum(robust.sum(axis=0), 1e-30), 1.0)
    error = np.sqrt(np.einsum("pkk->pk", inverse) * excess[:, None])
    return solution.T.reshape(-1, m, m), error.T.reshape(-1, m, m)


def _shrunk(change: np.ndarray, error: np.ndarray, half: int, mean: bool, psf: Psf) -> np.ndarray:
    """A residual image as far as it exceeds its noise; beyond two FWHM its mean over rings, and at last a power law."""
    k = np.arange(-half, half + 1)
    radius = np.hypot(k[None, :], k[:, None])
    width = 2.355 * psf.sigma
    wing = np.clip(radius / width - 1.5, 0.0, 1.0)
    far = np.zeros_like(change)
    if mean:
        weight = 1 / error**2
        now = _rings(psf.basis[0], np.ones_like(radius), radius)
        seen = _rings(psf.basis[0] + change, weight, radius)
        spread = 1 / np.sqrt(np.bincount(np.rint(radius / _RING_PX).astype(int).ravel(), weight.ravel()))
        law, pedestal = _power_law(seen, spread, width)
        change = change - pedestal
        at = np.arange(len(seen)) * _RING_PX
        trust = np.clip(at / width - 2.5, 0.0, 1.0)     # of the law, from 2.5 to 3.5 FWHM
        wanted = (1 - trust) * np.maximum(seen - pedestal, 0.0) + trust * law
        far = np.interp(radius / _RING_PX, np.arange(len(now)), wanted - now) * wing
    rest = change - far
    least = 1.2 + 2.8 * wing
    signal = np.maximum(ndimage.uniform_filter(rest**2 - least * error**2, 5, mode="nearest"), 0.0)
    taper = np.clip(4.0 - radius / width, 0.0, 1.0)
    return np.asarray(far + taper * rest * signal / (signal + error**2))


def _power_law(profile: np.ndarray, error: np.ndarray, width: float) -> tuple[np.ndarray, float]:
    """What falls outwards as a power beyond two FWHM, on the rings of `profile`, and the constant beneath it.

    The constant is the light of neighbours too faint to be found. A turbulent atmosphere falls as r^(-11/3); a
    steeper law is taken where it fits better by more than chance.
    """
    at = np.maximum(np.arange(len(profile)) * _RING_PX, 0.3 * _RING_PX)
    use = (at > 1.8 * width) & np.isfinite(error)
    if np.count_nonzero(use) < 4:
        return profile, 0.0
    expected = _KOLMOGOROV_WING / width**2
    best: tuple[float, np.ndarray, float] | None = None
    for power, handicap in ((11 / 3, 0.0), (4.5, 4.0), (6.0, 6.0), (9.0, 8.0), (14.0, 8.0)):
        law = (at / (2 * width)) ** -power
        sigma = np.hypot(error, 0.05 * np.maximum(profile, 0.0))
        design = np.stack([law, np.ones_like(law)], axis=1)[use] / sigma[use, None]
        target = profile[use] / sigma[use]
        if power == 11 / 3:
            design = np.vstack([design, [1 / (_LAW_SCATTER * expected), 0.0]])
            target = np.append(target, 1 / _LAW_SCATTER)
        solved = np.linalg.lstsq(design, target, rcond=None)[0]
        amplitude = max(float(solved[0]), 0.0)
        pedestal = float(solved[1]) if solved[0] > 0 else float(np.average(profile[use], weights=sigma[use] ** -2))
        misfit = (profile - amplitude * law - pedestal)[use] / sigma[use]
        score = float((misfit**2).sum()) + handicap
        if power == 11 / 3:
            score += ((amplitude / expected - 1) / _LAW_SCATTER) ** 2
        if best is None or score < best[0]:
            best = score, amplitude * law, pedestal
    assert best is not None
    return best[1], best[2]


def _rings(image: np.ndarray, weight: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Weighted means over rings _RING_PX wide."""
    ring = np.rint(radius / _RING_PX).astype(int).ravel()
    total = np.bincount(ring, weight.ravel())
    return np.asarray(np.bincount(ring, (weight * image).ravel()) / np.maximum(total, 1e-30))


def _positive(psf: Psf) -> Psf:
    """The PSF without negative pixels anywhere on the image."""
    basis = psf.basis.copy()
    basis[0] = np.maximum(basis[0], 0.0)
    swing = np.abs(basis[1:]).sum(axis=0)
    basis[1:] *= np.where(swing > basis[0], basis[0] / np.maximum(swing, 1e-30), 1.0)
    return Psf(basis, psf.order, psf.shape)


def _centred(psf: Psf, beta: float) -> Psf:
    """The PSF moved so that a Moffat fitted to it at the image's centre lies on the middle pixel."""
    central = psf.central[None]
    inner = psf.width // 2 - min(psf.width // 2, max(6, round(2.5 * 2.355 * psf.sigma / 2)))
    core = central[:, inner:psf.width - inner, inner:psf.width - inner]
    variance = np.full(core.shape, float(core.max() * 0.01) ** 2)
    found = moffat.fit(core, variance, 1.15 * 2.0 * psf.sigma, beta)
    n = len(psf.basis)
    basis = shifted(psf.basis, np.full(n, -found.x[0]), np.full(n, -found.y[0]))
    return _positive(Psf(basis / basis[0].sum(), psf.order, psf.shape))


def _newton(models: np.ndarray, stamps: np.ndarray, bad: np.ndarray, dx: np.ndarray, dy: np.ndarray,
            sky_variance: float, gain: float) -> tuple[np.ndarray, ...]:
    """One Gauss-Newton step of flux and position for (n, s, s) stamps; new dx, dy, flux, and the normal matrices."""
    width = stamps.shape[-1]
    wide = np.pad(shifted(models, dx, dy, min(width + 4, models.shape[-1])),
                  ((0, 0), *((max(0, (width + 4 - models.shape[-1]) // 2),) * 2,) * 2))
    slope_x, slope_y = _slope(wide[:, 2:-2]), _slope(wide[:, :, 2:-2].transpose(0, 2, 1)).transpose(0, 2, 1)
    model = wide[:, 2:-2, 2:-2]
    use = ~bad
    flux = np.maximum((stamps * model * use).sum(axis=(1, 2))
                      / np.maximum((model**2 * use).sum(axis=(1, 2)), 1e-30), 1e-3)
    for _ in range(2):      # weights follow the model, not the noisy pixels
        scale = flux[:, None, None]
        weight = use / (sky_variance + np.maximum(model, 0) * scale / gain + (0.01 * scale * model) ** 2)
        flux = np.maximum((stamps * model * weight).sum(axis=(1, 2))
                          / np.maximum((model**2 * weight).sum(axis=(1, 2)), 1e-30), 1e-3)
    scale = flux[:, None, None]
    basis = np.stack([model, -slope_x * scale, -slope_y * scale], axis=1)
    weighted = basis * weight[:, None]
    normal = np.einsum("npij,nqij->npq", weighted, basis, optimize=True)
    normal += np.eye(3) * (1e-9 * np.einsum("npp->np", normal) + 1e-30)[:, :, None]
    residual = stamps - scale * model
    right = np.einsum("npij,nij->np", weighted, residual, optimize=True)
    step = np.linalg.solve(normal, right[:, :, None])[:, :, 0]
    softened = use * residual**2 / (sky_variance + np.maximum(model, 0) * scale / gain + (0.02 * scale * model) ** 2)
    chi2 = softened.sum(axis=(1, 2)) / np.maximum(use.sum(axis=(1, 2)) - 3, 1)
    return (dx + np.clip(step[:, 1], -0.7, 0.7), dy + np.clip(step[:, 2], -0.7, 0.7), flux + step[:, 0], normal, chi2)


def _slope(image: np.ndarray) -> np.ndarray:
    """Derivative along the last axis by five points, whose two outer ones at each end are lost."""
    return np.asarray((8 * (image[..., 3:-1] - image[..., 1:-3]) - (image[..., 4:] - image[..., :-4])) / 12)


def light_outside(psf: Psf) -> float:
    """Share of a star's light beyond the stamp, if the PSF goes on as r^(-11/3) from the stamp's outer rings."""
    half = psf.width / 2
    k = np.arange(psf.width) - psf.width // 2
    radius = np.hypot(k[None, :], k[:, None])
    rim = (radius > 0.8 * half) & (radius < half)
    amplitude = float(np.average(psf.central[rim] * radius[rim] ** (11 / 3)))
    r = np.linspace(half, np.sqrt(2) * half, 65)
    outside = 4 / np.pi * np.arccos(np.clip(half / r, 0, 1))      # share of a circle that a square leaves out
    corners = float(np.trapezoid(2 * np.pi * r ** (-8 / 3) * outside, r))
    return float(amplitude * (corners + 2 * np.pi * 0.6 * r[-1] ** (-5 / 3)))


def fit_points(image: np.ndarray, unusable: np.ndarray, psf: Psf, x: np.ndarray, y: np.ndarray, sky_variance: float,
               gain: float, iterations: int = 4, chunk: int = 512) -> PointFits:
    """Flux and position of every source by its PSF, within about 1.3 FWHM of it."""
    half = int(np.clip(np.ceil(3.2 * psf.sigma), 5, psf.width // 2 - 1))
    parts = []
    for first in range(0, len(x), chunk):
        xs, ys = x[first:first + chunk], y[first:first + chunk]
        column, row = np.rint(xs).astype(int), np.rint(ys).astype(int)
        stamps = cut(image, column, row, half).astype(float)
        bad = cut(unusable.astype(np.float32), column, row, half, fill=1.0) > 0
        models = psf.stamps(xs, ys)
        dx, dy = xs - column, ys - row
        for _ in range(iterations):
            dx, dy, flux, normal, chi2 = _newton(models, stamps, bad, np.clip(dx, -2.5, 2.5), np.clip(dy, -2.5, 2.5),
                                                 sky_variance, gain)
        variance = np.einsum("npp->np", np.linalg.inv(normal))
        parts.append((column + dx, row + dy, flux, np.sqrt(variance[:, 0]), np.sqrt(variance[:, 1]),
                      np.sqrt(variance[:, 2]), chi2))
    if not parts:
        return PointFits(*(np.zeros(0) for _ in range(7)))
    return PointFits(*(np.concatenate(column) for column in zip(*parts, strict=True)))
