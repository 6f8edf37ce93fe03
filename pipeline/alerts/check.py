"""What a consumer can measure on a packet alone, to hold against what the packet says."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pipeline.alerts.stamps import Stamp


@dataclass(frozen=True, slots=True)
class StampFlux:
    """PSF flux measured on a cutout."""

    flux: float            # [nJy]
    error: float           # [nJy]
    dx: float              # shift from the header's position to that of the highest S/N [pixel]
    dy: float


def psf_flux(stamp: Stamp, *, max_shift: float = 0.0) -> StampFlux:
    """The PSF flux at the header's position, or at the shift of highest S/N within `max_shift` of it [pixel].

    Pixels are weighted by the cutout's variance; pixels off the image (NaN) have no weight. On public alerts the flux
    at the header's position is within a few per cent of `psfFlux`, blends apart.
    """
    x, y = _position(stamp)
    found = _at(stamp, x, y, 0.0, 0.0)
    for step in (1.0, 0.25):
        around = found
        reach = np.arange(-max_shift, max_shift + 0.01, step) if step == 1.0 else np.arange(-0.75, 0.76, step)
        for dx in around.dx + reach:
            for dy in around.dy + reach:
                if max(abs(dx), abs(dy)) <= max_shift:
                    found = max(found, _at(stamp, x, y, float(dx), float(dy)), key=_significance)
    return found


def _significance(found: StampFlux) -> float:
    return abs(found.flux) / found.error


def _position(stamp: Stamp) -> tuple[float, float]:
    return float(str(stamp.header["CRPIX1"])) - 1.0, float(str(stamp.header["CRPIX2"])) - 1.0


def _at(stamp: Stamp, x: float, y: float, dx: float, dy: float) -> StampFlux:
    profile = _placed(stamp.psf, stamp.image.shape, x + dx, y + dy)
    good = np.isfinite(stamp.image) & (stamp.variance > 0) & np.isfinite(stamp.variance)
    weight = np.divide(profile, stamp.variance, out=np.zeros_like(profile), where=good)
    information = float(np.sum(weight * profile))
    if not information > 0:
        return StampFlux(0.0, np.inf, dx, dy)
    return StampFlux(float(np.sum(weight[good] * stamp.image[good])) / information, information**-0.5, dx, dy)


def _placed(psf: np.ndarray, shape: tuple[int, ...], x: float, y: float) -> np.ndarray:
    """The PSF with its centre at (x, y) of an array."""
    m = psf.shape[0]
    column, row = int(np.floor(x)), int(np.floor(y))
    canvas = np.zeros((shape[0] + 2 * m, shape[1] + 2 * m))
    left, low = column - m // 2 + m, row - m // 2 + m
    if not (0 <= left <= canvas.shape[1] - m and 0 <= low <= canvas.shape[0] - m):
        return np.zeros(shape)
    canvas[low:low + m, left:left + m] = ndimage.shift(psf, (y - row, x - column), order=3)
    return canvas[m:m + shape[0], m:m + shape[1]]
