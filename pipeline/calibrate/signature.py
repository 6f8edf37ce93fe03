"""Signature removal: from the raw amplifiers of an exposure and the calibrations of its detector to an `Exposure`.

    serial overscan -> saturation -> gain -> crosstalk -> parallel overscan -> linearity -> deferred charge -> assembly
      -> bias -> dark -> brighter-fatter -> defects -> variance -> flat -> fringes

The order is that of Rubin's IsrTaskLSST (DP1). What it does and this does not: the dither of the digits (the mean of
the overscan needs none), amplifier offsets (off in alert production), quadratic crosstalk, masks of edge bleeds, of
ITL dips and of vampire pixels.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage
from scipy.fft import irfft2, next_fast_len, rfft2

from pipeline.errors import InputError
from pipeline.kernels.signature import bridge, linearise, restore, take_back
from pipeline.pixel_config import SignatureConfig
from schemas import mask as planes
from schemas.exposure import Exposure
from schemas.raw import Calibrations, RawExposure

_CLIP: Final = 4.0             # sigmas beyond which a pixel of an overscan is not the bias's
_SKIP: Final = (6, 2)          # first and last pixels of an overscan that are left out: deferred charge, and the end
_MIN_FLAT: Final = 0.05        # response below which nothing can be made of a pixel
_STRIP: Final = 496            # rows that are convolved at a time
_FRINGE_STEP: Final = 3        # every so many pixels serve for the fringes' strength


@dataclass(frozen=True, slots=True)
class Removed:
    """An exposure without its camera's signature."""

    exposure: Exposure
    variance: np.ndarray       # (ny, nx) float32 [ADU^2]: photons, dark current and read noise
    fringe: float              # sky that the fringes stand for [ADU]; 0 where there are none


def remove_signature(raw: RawExposure, calibrations: Calibrations, config: SignatureConfig) -> Removed:
    """The exposure that a raw one becomes; its pixels are ADU of the detector's mean gain, flattened.

    InputError names calibrations of another detector, band or layout.
    """
    _check(raw, calibrations)
    signal, full = _amplifiers(raw, calibrations, config)
    image = raw.readout.assemble(signal)
    saturated = raw.readout.assemble(full)
    del signal, full
    if config.grow_saturated_px:
        saturated = ndimage.binary_dilation(saturated, iterations=config.grow_saturated_px) if saturated.any() \
            else saturated
    if config.bias:
        image -= calibrations.bias
    dark = calibrations.dark * np.float32(raw.dark_time_s)
    if config.dark:
        image -= dark
    if config.brighter_fatter:
        image = unbent(image, calibrations.bf_kernel, config.brighter_fatter_iterations)
    defects = calibrations.defects | ~np.isfinite(image) | (calibrations.flat < _MIN_FLAT)
    if config.defects:
        bridge(image, np.ascontiguousarray(defects))
    variance = dark
    variance += image
    np.maximum(variance, 0.0, out=variance)
    variance += raw.readout.spread(calibrations.read_noise**2)
    if config.flat:
        flat = np.maximum(calibrations.flat, np.float32(_MIN_FLAT))
        image /= flat
        variance /= flat * flat
    strength = 0.0
    if config.fringe and calibrations.fringe is not None:
        strength = _fringes(image, calibrations.fringe, defects | saturated)
        image -= np.float32(strength) * calibrations.fringe
    return _removed(raw, calibrations, config, image, variance, saturated, defects, strength)


def _check(raw: RawExposure, calibrations: Calibrations) -> None:
    found = calibrations.detector, calibrations.band, calibrations.readout
    wanted = raw.detector, raw.visit.band, raw.readout
    if found != wanted:
        raise InputError(f"visit {raw.visit.visit}: calibrations must be of (detector, band, readout) {wanted}, "
                         f"got {found}")


def _amplifiers(raw: RawExposure, calibrations: Calibrations, config: SignatureConfig) -> tuple[np.ndarray, np.ndarray]:
    """(16, rows, columns) electrons of the pixels, and which are saturated."""
    readout, gain = raw.readout, calibrations.gain.astype(np.float32)
    signal = raw.amplifiers.astype(np.float32)
    start = readout.prescan + readout.columns
    signal -= _level(signal[:, :, start:], config.overscan)[:, :, None]
    signal *= gain[:, None, None]
    full = signal[(slice(None), *readout.light)] >= calibrations.saturation[:, None, None]
    if config.crosstalk and calibrations.crosstalk.any():
        _uncross(signal.reshape(len(signal), -1), calibrations.crosstalk.astype(np.float32))
    if config.parallel_overscan and readout.parallel > sum(_SKIP):
        signal -= _level(signal[:, readout.rows:].transpose(0, 2, 1), config.overscan)[:, None, :]
    if config.linearity and calibrations.linearity.any():
        linearise(signal, np.ascontiguousarray(calibrations.linearity, float), calibrations.linearity_step)
    if config.deferred_charge and (calibrations.cti.any() or calibrations.trap.any()):
        out = np.empty((len(signal), readout.rows, readout.columns), np.float32)
        tables = (np.ascontiguousarray(t, float) for t in (calibrations.cti, calibrations.trap, calibrations.trap_level,
                                                           calibrations.trap_release))
        restore(signal, *tables, readout.prescan, out)
        return out, full
    return np.ascontiguousarray(signal[(slice(None), *readout.light)]), full


def _uncross(signal: np.ndarray, crosstalk: np.ndarray, strip: int = 1 << 18) -> None:
    """Take off (16, n) signals what each amplifier saw of the others, in place; to first order in the coefficients."""
    for first in range(0, signal.shape[1], strip):
        part = signal[:, first:first + strip]
        part -= crosstalk @ part


def _level(overscan: np.ndarray, statistic: str) -> np.ndarray:
    """(n, lines) float32 level of each line of (n, lines, pixels), outliers left out."""
    used = np.ascontiguousarray(overscan[:, :, _SKIP[0]:overscan.shape[2] - _SKIP[1]])
    middle = np.median(used, axis=2)
    if statistic == "median":
        return np.asarray(middle, np.float32)
    away = np.abs(used - middle[:, :, None])
    spread = 1.4826 * np.median(away[:, ::8], axis=(1, 2))
    good = away <= _CLIP * np.maximum(spread, 0.5)[:, None, None]
    return np.asarray((used * good).sum(axis=2) / np.maximum(good.sum(axis=2), 1), np.float32)


def unbent(image: np.ndarray, kernel: np.ndarray, iterations: int) -> np.ndarray:
    """The image before charge bent the way of charge, from the potential's kernel [1/electron], by iteration.

    References
    ----------
    Coulton, Armstrong, Smith, Lupton & Spergel 2018.
    """
    observed = np.ascontiguousarray(image, np.float32)
    potential, estimate, spare = np.empty_like(observed), observed, np.empty_like(observed)
    for _ in range(iterations):
        _convolve(estimate, kernel, potential)
        take_back(observed, estimate, potential, spare)
        estimate, spare = spare, (np.empty_like(observed) if estimate is observed else estimate)
    return estimate


def _convolve(image: np.ndarray, kernel: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` with the convolution, beyond the edges the mean: strips of rows, overlapping by the kernel's reach."""
    (ny, nx), half = image.shape, len(kernel) // 2
    rows = min(_STRIP, ny)
    shape = next_fast_len(rows + 2 * half, real=True), next_fast_len(nx + half, real=True)
    padded = np.zeros(shape, np.float32)
    padded[: len(kernel), : len(kernel)] = kernel
    transform, mean = rfft2(np.roll(padded, (-half, -half), (0, 1)), workers=1), image.mean()
    for first in range(0, ny, rows):
        last = min(first + rows, ny)
        low, high = max(first - half, 0), min(last + half, ny)
        padded[:] = mean
        padded[half + low - first:half + high - first, :nx] = image[low:high]
        strip = rfft2(padded, workers=1)
        strip *= transform
        out[first:last] = irfft2(strip, s=shape, workers=1)[half:half + last - first, :nx]


def _fringes(image: np.ndarray, fringe: np.ndarray, bad: np.ndarray) -> float:
    """The strength of the fringes in an image: least squares beside a plane, sources clipped."""
    part = slice(None, None, _FRINGE_STEP)
    ny, nx = image.shape
    y, x = np.mgrid[0:ny:_FRINGE_STEP, 0:nx:_FRINGE_STEP]
    values, keep = image[part, part].ravel().astype(float), ~bad[part, part].ravel()
    terms = np.stack([np.ones(values.size), x.ravel() / nx, y.ravel() / ny, fringe[part, part].ravel()])
    found = np.array([np.median(values[keep]) if keep.any() else 0.0, 0.0, 0.0, 0.0])
    for _ in range(4):
        rest = values - found @ terms
        spread = 1.4826 * np.median(np.abs(rest[keep][::17])) if keep.any() else 0.0
        good = keep & (np.abs(rest) <= 3.0 * spread)
        if np.count_nonzero(good) < 100:
            return 0.0
        used = terms[:, good]
        found = np.linalg.solve(used @ used.T, used @ values[good])
    return float(found[3])


def _removed(raw: RawExposure, calibrations: Calibrations, config: SignatureConfig, image: np.ndarray,
             variance: np.ndarray, saturated: np.ndarray, defects: np.ndarray, strength: float) -> Removed:
    """Electrons as ADU of the mean gain, with the facts that the next stage reads."""
    gain = float(calibrations.gain.mean())
    response = float(np.median(calibrations.flat[::16, ::16])) if config.flat else 1.0
    dark = float(np.median(calibrations.dark[::16, ::16])) * raw.dark_time_s if config.dark else 0.0
    bits = np.where(defects, np.int32(planes.BAD), np.int32(0)) | np.where(saturated, np.int32(planes.SAT), np.int32(0))
    level = float(np.median(calibrations.saturation)) / gain / response
    exposure = Exposure(
        raw.visit, raw.detector, image * np.float32(1.0 / gain), bits.astype(np.int32), raw.wcs,
        gain=gain * response, read_noise=float(np.sqrt(np.mean(calibrations.read_noise**2))), saturation=level,
        wcs_error_arcsec=raw.wcs_error_arcsec, wcs_error_deg=raw.wcs_error_deg, pedestal=dark / (gain * response))
    return Removed(exposure, variance * np.float32(1.0 / gain**2), strength / gain)


__all__ = ["Removed", "remove_signature", "unbent"]
