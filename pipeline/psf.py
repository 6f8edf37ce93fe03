"""A PSF that varies over an image: a few basis stamps times polynomials of position."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Psf:
    """PSF(x, y) = sum over j of T_j(x, y) basis_j, normalised to unit sum at every position.

    T_j are the monomials u^p v^q, p + q <= order, in the order (0,0), (1,0), (0,1), (2,0), (1,1), (0,2), ..., of
    u = 2 x / (nx - 1) - 1 and v = 2 y / (ny - 1) - 1. Stamps are centred: the PSF's centre is the middle pixel.
    """

    basis: np.ndarray            # ((order + 1)(order + 2) / 2, m, m) float64, m odd
    order: int
    shape: tuple[int, int]       # (ny, nx) of the image

    def __post_init__(self) -> None:
        k, m, n = self.basis.shape
        if m != n or m % 2 == 0:
            raise ValueError(f"psf must have odd, equal sides, got {self.basis.shape[1:]}")
        if k != (self.order + 1) * (self.order + 2) // 2:
            raise ValueError(f"order {self.order} needs {(self.order + 1) * (self.order + 2) // 2} stamps, got {k}")

    @classmethod
    def constant(cls, stamp: np.ndarray, shape: tuple[int, int]) -> "Psf":
        """The same PSF everywhere."""
        return cls(np.asarray(stamp, float)[None] / np.sum(stamp), 0, shape)

    @property
    def width(self) -> int:
        """Side of a stamp [pixel]."""
        return int(self.basis.shape[1])

    def terms(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n, k) values of the polynomial terms at positions."""
        u = 2.0 * np.atleast_1d(np.asarray(x, float)) / max(self.shape[1] - 1, 1) - 1.0
        v = 2.0 * np.atleast_1d(np.asarray(y, float)) / max(self.shape[0] - 1, 1) - 1.0
        return np.stack([u**(d - q) * v**q for d in range(self.order + 1) for q in range(d + 1)], axis=1)

    def stamps(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n, m, m) centred PSFs of unit sum at positions."""
        out = np.tensordot(self.terms(x, y), self.basis, axes=1)
        return np.asarray(out / out.sum(axis=(1, 2), keepdims=True))

    def at(self, x: float, y: float) -> np.ndarray:
        """(m, m) centred PSF of unit sum at one position."""
        return np.asarray(self.stamps(np.array([x]), np.array([y]))[0])

    @property
    def central(self) -> np.ndarray:
        """The PSF at the image's centre, which the real system uses for whole-image quantities."""
        return self.at((self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2)

    @property
    def sigma(self) -> float:
        """Adaptive-free size at the centre: the Gaussian sigma with the same effective area [pixel].

        1 / sum(P^2) = 4 pi sigma^2 for a Gaussian.
        """
        return float(np.sqrt(1.0 / np.sum(self.central**2) / (4.0 * np.pi)))

    @property
    def effective_area(self) -> float:
        """1 / sum(P^2) at the centre [pixel^2]; equals 2.266 (FWHMeff / scale)^2 (LSST SMTN-002)."""
        return float(1.0 / np.sum(self.central**2))

    def fwhm(self, scale_arcsec: float = 0.2) -> float:
        """FWHMeff at the centre [arcsec]."""
        return float(np.sqrt(self.effective_area / 2.266) * scale_arcsec)

    def cutout(self, dx: int, dy: int, shape: tuple[int, int]) -> "Psf":
        """The same PSF on a sub-image: only constant models keep their form, so it is re-evaluated at its centre."""
        return Psf.constant(self.at(dx + (shape[1] - 1) / 2, dy + (shape[0] - 1) / 2), shape)
