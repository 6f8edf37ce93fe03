"""The true PSF of an exposure: a radial profile, sheared and stretched smoothly over the detector.

The profile is GalSim's Kolmogorov (atmosphere) times Gaussian (optics) times the pixel averaged over angle, all in
Fourier space; a Hankel transform gives it in pixels. Shear and stretch act on the profile with its pixel, so that the
effective area is exact everywhere: 1 / sum(P^2) = 2.266 (FWHMeff / scale)^2 stretch^2 (SMTN-002).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import galsim
import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import j0

from simulators.conditions import SYSTEM_FWHM
from simulators.kernels.stamps import add_points

STEP: Final = 1.0 / 64.0            # of the radial table [pixel]
RADIUS: Final = 400.0               # of the radial table [pixel]
K_MAX: Final = 2.0 * np.pi          # of the frequency table [radian per pixel]
K_NODES: Final = 6284
_SHAPE_TERMS: Final = 5             # 1, u, v, and the two second-order terms of an ellipticity field


@dataclass(frozen=True, slots=True)
class Profile:
    """A circular PSF of unit flux, in pixels and in frequencies."""

    radial: np.ndarray          # (n,) at multiples of STEP [pixel]
    transform: np.ndarray       # (K_NODES,) at multiples of K_MAX / (K_NODES - 1)
    atmosphere_fwhm: float      # of the Kolmogorov part [pixel]
    optics_fwhm: float          # of the Gaussian part [pixel]

    @property
    def k_step(self) -> float:
        return K_MAX / (K_NODES - 1)


@dataclass(frozen=True, slots=True)
class TruePsf:
    """The PSF at any position of a detector."""

    profile: Profile
    shape: tuple[int, int]
    size: np.ndarray            # (5,) fractional stretch: u, v, u^2, uv, v^2
    g1: np.ndarray              # (5,) shear along x: 1, u, v, u^2 - v^2, uv
    g2: np.ndarray              # (5,) shear along the diagonal

    def matrices(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n, 2, 2) symmetric matrices S that carry the circular profile's plane to the pixel plane."""
        u = 2.0 * np.asarray(x, float) / max(self.shape[1] - 1, 1) - 1.0
        v = 2.0 * np.asarray(y, float) / max(self.shape[0] - 1, 1) - 1.0
        stretch = 1.0 + np.stack([u, v, u * u, u * v, v * v], -1) @ self.size
        terms = np.stack([np.ones_like(u), u, v, u * u - v * v, u * v], -1)
        g1, g2 = terms @ self.g1, terms @ self.g2
        norm = stretch / np.sqrt(1.0 - g1**2 - g2**2)
        plane = np.stack([np.stack([1.0 + g1, g2], -1), np.stack([g2, 1.0 - g1], -1)], -2)
        return np.asarray(plane * norm[..., None, None])

    def real_shape(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n, 4) quadratic form of the profile radius and the flux factor, as `add_points` takes it."""
        inverse = np.linalg.inv(self.matrices(x, y))
        q = np.swapaxes(inverse, -1, -2) @ inverse
        return np.stack([q[..., 0, 0], q[..., 0, 1], q[..., 1, 1], np.linalg.det(inverse)], -1)

    def frequency_shape(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n, 3) quadratic form of the radial frequency, as `fill_transforms` takes it."""
        s = self.matrices(x, y)
        q = s @ np.swapaxes(s, -1, -2)
        return np.stack([q[..., 0, 0], q[..., 0, 1], q[..., 1, 1]], -1)

    def draw(self, image: np.ndarray, x: np.ndarray, y: np.ndarray, flux: np.ndarray, radius: np.ndarray) -> None:
        """Add point sources to `image` in place."""
        x, y = np.ascontiguousarray(x, float), np.ascontiguousarray(y, float)
        add_points(image, x, y, np.ascontiguousarray(flux, float), np.ascontiguousarray(radius, float),
                   np.ascontiguousarray(self.real_shape(x, y)), self.profile.radial, STEP)

    def radius(self, flux: np.ndarray, faintest: float, smallest: float = 15.0) -> np.ndarray:
        """Radius [pixel] beyond which a source of `flux` adds less than `faintest` to a pixel."""
        levels = faintest / np.maximum(np.abs(np.asarray(flux, float)), 1e-30)
        n = np.searchsorted(-self.profile.radial, -levels)
        return np.asarray(np.clip(n * STEP * 1.1, smallest, RADIUS))

    def at(self, x: float, y: float, side: int = 41) -> np.ndarray:
        """(side, side) stamp of unit sum, centred on its middle pixel, of the PSF at a position."""
        stamp = self._stamp(x, y, 0.0, 0.0, side)
        return np.asarray(stamp / stamp.sum())

    def around(self, x: float, y: float, side: int = 41) -> np.ndarray:
        """(side, side) pixels about the one nearest to (x, y), of a source of unit flux exactly there."""
        return self._stamp(x, y, x - round(x), y - round(y), side)

    def _stamp(self, x: float, y: float, dx: float, dy: float, side: int) -> np.ndarray:
        stamp = np.zeros((side, side))
        middle = (side - 1) / 2
        shape = np.ascontiguousarray(self.real_shape(np.array([x]), np.array([y])))
        add_points(stamp, np.array([middle + dx]), np.array([middle + dy]), np.ones(1), np.array([2.0 * side]), shape,
                   self.profile.radial, STEP)
        return stamp

    @property
    def central(self) -> np.ndarray:
        """The stamp at the detector's centre."""
        return self.at((self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2)

    def draw_one(self, shape: tuple[int, int], x: float, y: float, flux: float = 1.0) -> np.ndarray:
        """An image of one point source, out to the table's end."""
        image = np.zeros(shape)
        self.draw(image, np.array([x]), np.array([y]), np.array([flux]), np.array([RADIUS]))
        return image

    @property
    def effective_area(self) -> float:
        """1 / sum(P^2) at the centre [pixel^2]."""
        return float(1.0 / np.sum(self.central**2))


@lru_cache(maxsize=1)
def _pixel_transform() -> tuple[np.ndarray, np.ndarray]:
    """Frequencies [radian per pixel], and the pixel's transform averaged over angle at each."""
    k = np.linspace(0.0, K_MAX, K_NODES)
    angle = (np.arange(64) + 0.5) / 64 * np.pi / 4
    kx, ky = np.outer(k, np.cos(angle)), np.outer(k, np.sin(angle))
    return k, np.mean(np.sinc(kx / 2 / np.pi) * np.sinc(ky / 2 / np.pi), axis=1)


@lru_cache(maxsize=1)
def _optics_over_kolmogorov() -> tuple[np.ndarray, np.ndarray]:
    """The transform of a Kolmogorov profile of unit FWHM, tabulated: GalSim's."""
    k = np.linspace(0.0, 40.0, 8001)
    profile = galsim.Kolmogorov(fwhm=1.0)
    return k, np.array([profile.kValue(float(value), 0.0).real for value in k])


def _transform(fwhm_px: float, optics_ratio: float) -> np.ndarray:
    """Transform of pixel, atmosphere of a FWHM [pixel], and Gaussian optics of that FWHM times `optics_ratio`."""
    k, pixel = _pixel_transform()
    nodes, kolmogorov = _optics_over_kolmogorov()
    sigma = fwhm_px * optics_ratio / 2.3548200450309493
    return np.asarray(pixel * np.interp(k * fwhm_px, nodes, kolmogorov, right=0.0) * np.exp(-0.5 * (k * sigma) ** 2))


def _area(transform: np.ndarray) -> float:
    """1 / sum(P^2) [pixel^2] by Parseval."""
    k, _ = _pixel_transform()
    return float(2.0 * np.pi / np.trapezoid(k * transform**2, k))


def profile(fwhm_eff_px: float, optics_ratio: float = 0.5) -> Profile:
    """The circular profile with effective area 2.266 fwhm_eff_px^2, pixel included.

    `optics_ratio` is the FWHM of the Gaussian optics over that of the Kolmogorov atmosphere.
    """
    if not fwhm_eff_px > 1.6:
        raise ValueError(f"FWHMeff must exceed 1.6 pixels to be sampled, got {fwhm_eff_px}")
    return _profile(round(float(fwhm_eff_px), 6), round(float(optics_ratio), 3))


@lru_cache(maxsize=64)
def _profile(fwhm_eff_px: float, optics_ratio: float) -> Profile:
    wanted = 2.266 * fwhm_eff_px**2
    low, high = 0.05 * fwhm_eff_px, 2.0 * fwhm_eff_px
    for _ in range(50):
        middle = 0.5 * (low + high)
        if _area(_transform(middle, optics_ratio)) < wanted:
            low = middle
        else:
            high = middle
    atmosphere = 0.5 * (low + high)
    transform = _transform(atmosphere, optics_ratio)
    return Profile(_radial(transform), transform, atmosphere, atmosphere * optics_ratio)


def _radial(transform: np.ndarray) -> np.ndarray:
    """The profile at multiples of STEP from its transform; a power law of -11/3 beyond 60 pixels."""
    k, _ = _pixel_transform()
    significant = int(np.searchsorted(-transform, -1e-11)) + 2
    k, weight = k[:significant], (k * transform)[:significant] / (2.0 * np.pi)
    nodes = np.concatenate([np.linspace(0.0, 20.0, 161), 20.0 * 3.0 ** (np.arange(1, 25) / 24)])
    values = np.trapezoid(j0(np.outer(nodes, k)) * weight, k, axis=1) + k[1] ** 2 / (24.0 * np.pi)   # Euler-Maclaurin
    r = np.arange(0.0, RADIUS + STEP, STEP)
    core = CubicSpline(nodes, np.log(values), bc_type=((1, 0.0), "not-a-knot"))
    out = np.where(r <= 60.0, np.exp(core(np.minimum(r, 60.0))), values[-1] * (np.maximum(r, 1.0) / 60.0) ** (-11 / 3))
    out[-1] = 0.0
    return np.ascontiguousarray(out)


def true_psf(fwhm_eff_px: float, fwhm500_arcsec: float, shape: tuple[int, int], rng: np.random.Generator, *,
             size_variation: float, ellipticity: float) -> TruePsf:
    """A PSF whose size and ellipticity vary smoothly over the detector."""
    ratio = float(np.clip(SYSTEM_FWHM / fwhm500_arcsec, 0.2, 1.0))
    size = size_variation * np.array([0.7, 0.7, 0.4, 0.4, 0.4]) * rng.uniform(-1, 1, 5)
    weights = ellipticity * np.array([0.6, 0.3, 0.3, 0.2, 0.2])
    return TruePsf(profile(fwhm_eff_px, ratio), shape, size, weights * rng.normal(size=_SHAPE_TERMS),
                   weights * rng.normal(size=_SHAPE_TERMS))


# --- one field of shapes over the focal plane ------------------------------------------------------------------------

FIELD_RADIUS_DEG: Final = 1.75
WAVES: Final = 16                   # of the atmosphere's field; 30 s average shorter scales out
WAVE_DEG: Final = (1.5, 6.0)


@dataclass(frozen=True, slots=True)
class ShapeField:
    """PSF shapes over the focal plane in one visit: optics out of alignment, and the atmosphere's slow waves.

    Each of (size, g1, g2) is a polynomial of the place and a sum of plane waves.
    """

    quadratic: np.ndarray       # (3, 5): coefficients of X, Y, X^2, XY, Y^2 in units of the field's radius
    waves: np.ndarray           # (3, WAVES): amplitudes
    k: np.ndarray               # (WAVES, 2) [radian per field radius]
    phase: np.ndarray           # (3, WAVES)

    def local(self, x: float, y: float, half_x: float, half_y: float) -> np.ndarray:
        """(3, 6) second-order expansion 1, u, v, u^2, uv, v^2 about a place (field radii), u and v up to the halves."""
        a, b, c, d, e = self.quadratic.T
        angle = self.k @ np.array([x, y]) + self.phase
        value, slope = self.waves * np.cos(angle), -self.waves * np.sin(angle)
        kx, ky = self.k.T
        out = np.stack([a * x + b * y + c * x * x + d * x * y + e * y * y + value.sum(1),
                        (a + 2 * c * x + d * y + slope @ kx) * half_x, (b + d * x + 2 * e * y + slope @ ky) * half_y,
                        (c - value @ kx**2 / 2) * half_x**2, (d - value @ (kx * ky)) * half_x * half_y,
                        (e - value @ ky**2 / 2) * half_y**2], 1)
        return np.asarray(out)


def shape_field(rng: np.random.Generator, *, size_variation: float, ellipticity: float) -> ShapeField:
    """The field of a visit: rms ellipticity over the focal plane about `ellipticity`, two thirds of it atmosphere."""
    astigmatism, defocus, tilt = 0.8 * ellipticity * rng.normal(size=2), rng.normal(), rng.normal(size=(3, 2))
    quadratic = np.zeros((3, 5))
    quadratic[0, [2, 4]] = size_variation * defocus                                     # r^2
    quadratic[0, :2] = 0.5 * size_variation * tilt[0]
    quadratic[1, :2], quadratic[2, :2] = 0.3 * ellipticity * tilt[1], 0.3 * ellipticity * tilt[2]
    quadratic[1] += [0, 0, astigmatism[0], -2 * astigmatism[1], -astigmatism[0]]        # r^2 exp(2 i phi), turned
    quadratic[2] += [0, 0, astigmatism[1], 2 * astigmatism[0], -astigmatism[1]]
    scale = np.exp(rng.uniform(np.log(WAVE_DEG[0]), np.log(WAVE_DEG[1]), WAVES)) / FIELD_RADIUS_DEG
    angle = rng.uniform(0, 2 * np.pi, WAVES)
    k = 2 * np.pi / scale[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    amplitude = np.array([0.5 * size_variation, 0.7 * ellipticity, 0.7 * ellipticity])[:, None]
    return ShapeField(quadratic, amplitude * np.sqrt(2.0 / WAVES) * rng.normal(size=(3, WAVES)), k,
                      rng.uniform(0, 2 * np.pi, (3, WAVES)))


def field_psf(fwhm_eff_px: float, fwhm500_arcsec: float, shape: tuple[int, int], field: ShapeField,
              place_px: tuple[float, float], scale_arcsec: float, extra_shear: tuple[float, float] = (0.0, 0.0)
              ) -> tuple[TruePsf, float]:
    """(PSF, FWHMeff at the detector's centre [pixel]) of a detector at a place from the optical axis.

    The parts of second order that TruePsf cannot hold, along u^2 + v^2 in the shear, are dropped: under 1 % of it.
    """
    radius_px = FIELD_RADIUS_DEG * 3600 / scale_arcsec
    ny, nx = shape
    size, g1, g2 = field.local(place_px[0] / radius_px, place_px[1] / radius_px, nx / 2 / radius_px, ny / 2 / radius_px)
    local = fwhm_eff_px * (1.0 + size[0])
    ratio = float(np.clip(SYSTEM_FWHM / fwhm500_arcsec, 0.2, 1.0))
    shear = [np.array([g[0] + extra, g[1], g[2], (g[3] - g[5]) / 2.0, g[4]])
             for g, extra in zip((g1, g2), extra_shear, strict=True)]
    return TruePsf(profile(local, ratio), shape, size[[1, 2, 3, 4, 5]] / (1.0 + size[0]), *shear), local
