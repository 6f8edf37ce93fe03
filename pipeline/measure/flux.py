"""PSF fluxes: forced at given positions, on any image with its PSF."""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from scipy import ndimage

from pipeline.kernels import fits
from pipeline.psf import Psf
from schemas import mask as planes

# Take no part in a fit. Pixels of the EDGE do: a source beside it would lose half of its light, and its place.
BAD_PIXELS: Final = planes.BAD | planes.SAT | planes.NO_DATA | planes.CR | planes.SAT_TEMPLATE
NO_LABELS: Final = np.zeros((1, 1), np.int32)
_BORDER: Final = 4         # zeros around a stamp before its spline: a quintic one reaches 3 pixels
_REACH: Final = 6.0        # half side of the window in Gaussian-equivalent sigmas: beyond it sum(P^2) grows by 1e-3


@dataclass(frozen=True, slots=True)
class PsfModel:
    """A PSF as spline coefficients, so that it can be put anywhere between pixels."""

    basis: np.ndarray        # (k, m, m) float64 coefficients
    sums: np.ndarray         # (k,) sums of the basis stamps
    psf: Psf
    half: int                # half side of the window for fits [pixel]

    @classmethod
    def of(cls, psf: Psf) -> Self:
        """The model of a PSF; 1e-4 of the peak for FWHM of 3.3 px and more."""
        padded = np.pad(psf.basis, ((0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER)))
        basis = np.stack([ndimage.spline_filter(stamp, order=5, mode="mirror") for stamp in padded])
        half = min(psf.width // 2, int(np.ceil(_REACH * psf.sigma)))
        return cls(np.ascontiguousarray(basis), np.asarray(psf.basis.sum(axis=(1, 2))), psf, half)

    def terms(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n, k) what the PSF at each position takes of the basis; unit sum."""
        nx, ny = self.psf.shape[1], self.psf.shape[0]
        terms = self.psf.terms(np.clip(np.nan_to_num(x), 0, nx - 1), np.clip(np.nan_to_num(y), 0, ny - 1))
        return np.ascontiguousarray(terms / (terms @ self.sums)[:, None])


@dataclass(frozen=True, slots=True)
class Fluxes:
    """PSF fluxes at positions."""

    flux: np.ndarray         # (n,) [nJy], NaN without usable pixels
    error: np.ndarray
    edge: np.ndarray         # (n,) bool: the window reaches off the image
    empty: np.ndarray        # (n,) bool: less than half of the PSF's weight is on usable pixels


def force(image: np.ndarray, variance: np.ndarray, mask: np.ndarray, model: PsfModel, x: np.ndarray, y: np.ndarray, *,
          noise_scale: float = 1.0) -> Fluxes:
    """PSF fluxes at fixed positions; neighbours are not taken away, as in the real system.

    `noise_scale` multiplies the errors: the factor by which correlated noise exceeds that of independent pixels.
    """
    x, y = np.ascontiguousarray(x, float), np.ascontiguousarray(y, float)
    rows = fits.points(np.ascontiguousarray(image, np.float32), np.ascontiguousarray(variance, np.float32),
                       np.ascontiguousarray(mask, np.int32), BAD_PIXELS, NO_LABELS, np.zeros(len(x), np.int32),
                       model.basis, model.terms(x, y), x, y, model.half, 0, 0.0)
    return Fluxes(rows[:, fits.FLUX], np.sqrt(rows[:, fits.FLUX_VARIANCE]) * noise_scale,
                  rows[:, fits.CUT] > 0, rows[:, fits.COVERED] < 0.5)
