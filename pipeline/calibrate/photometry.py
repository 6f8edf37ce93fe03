"""Photometry: the zeropoint from PSF fluxes of matched stars."""

from dataclasses import dataclass

import numpy as np

from pipeline.errors import AlgorithmError
from schemas.exposure import AB_ZEROPOINT_NJY

MIN_STARS = 3
_FLOOR_MAG = 0.01      # what a reference magnitude or a PSF flux is at least wrong by


@dataclass(frozen=True, slots=True)
class Zeropoint:
    """AB magnitude of 1 ADU, with its error and the stars that gave it."""

    value: float
    error: float
    n_stars: int


def solve(flux_adu: np.ndarray, error_adu: np.ndarray, reference_njy: np.ndarray,
          reference_error: np.ndarray) -> Zeropoint:
    """Robust weighted mean over stars of the zeropoint each one gives; rows without a positive flux are left out.

    Fluxes are total fluxes: PSF fluxes raised by the light outside the PSF's stamp.
    """
    usable = (flux_adu > 0) & (reference_njy > 0) & np.isfinite(flux_adu) & np.isfinite(reference_njy)
    if np.count_nonzero(usable) < MIN_STARS:
        raise AlgorithmError(f"photometry: {np.count_nonzero(usable)} matched stars have a reference flux, "
                             f"{MIN_STARS} needed")
    flux, reference = flux_adu[usable], reference_njy[usable]
    each = AB_ZEROPOINT_NJY - 2.5 * np.log10(reference / flux)
    relative = np.hypot(error_adu[usable] / flux, np.nan_to_num(reference_error[usable] / reference))
    sigma = np.hypot(1.0857 * relative, _FLOOR_MAG)
    centre = float(np.median(each))
    used = np.ones(len(each), bool)
    for _ in range(10):
        spread = 1.4826 * float(np.median(np.abs(each - centre)[used] / sigma[used]))
        kept = np.abs(each - centre) < 3.0 * sigma * max(spread, 1.0)
        centre = float(np.average(each[kept], weights=1 / sigma[kept] ** 2)) if kept.any() else centre
        if (kept == used).all():
            break
        used = kept
    chi2 = float(np.mean(((each - centre) / sigma)[used] ** 2))
    error = np.sqrt(max(chi2, 1.0) / np.sum(1 / sigma[used] ** 2))
    return Zeropoint(float(centre), float(error), int(np.count_nonzero(used)))
