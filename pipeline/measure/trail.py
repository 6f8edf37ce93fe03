"""Trails: a point source drawn along a line while the shutter was open.

The PSF is a mixture of Gaussians in the frame where its second moments are round; there a trail has a closed form
(the trailed Gaussian of Veres et al. 2012). Only sources that look elongated are tried, and a trail is believed when it
fits better than a point by `MIN_GAIN` in chi2, and as well as two points. The centre of a believed trail becomes the
source's centroid: it is where a moving object was in the middle of the exposure, while the peak lies anywhere along a
long trail.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from pipeline.images import Detections
from pipeline.kernels import fits, footprints
from pipeline.measure import centroid
from pipeline.measure.flux import BAD_PIXELS, PsfModel
from pipeline.measure.shapes import psf_moments
from pipeline.psf import Psf
from schemas import mask as planes

MIN_GAIN: Final = 25.0       # chi2 for two parameters more; a trail of S/N 15 and five PSF sigmas gains about 80
MIN_ELONGATION: Final = 3.0  # sigmas of excess second moment along a line that make a source worth trying
MOMENT_ERROR: Final = 1.9    # error of an adaptive moment times S/N, over Ixx + Iyy (measured)
MAX_SIDE: Final = 200        # [pixel] larger windows are not tried: satellites
MARGIN: Final = 3.0          # window beyond the footprint [PSF sigma]
LARGE: Final = 1.25          # a footprint larger than a point's by this factor is worth trying
FOOTPRINT: Final = 3.0       # S/N at the border of a footprint before it grows, ...
GROWTH: Final = 2.4          # ... and by how much [PSF sigma]: the defaults of detection
SUSPECT: Final = 3.0         # trail_suspect_long: longer than so many PSF radii (trailedSources)
WIDE: Final = 10.0           # the same for faint trails, whose footprints may end before they do
FAINT: Final = 8.0           # peak S/N below which a trail is looked for beyond its footprint
PLAIN: Final = 6.0           # trails longer than so many PSF sigmas are not compared with a point
_SIGMAS: Final = np.array([0.55, 0.9, 1.35, 2.1, 3.6])   # of the mixture, in PSF sigmas
_ITERATIONS: Final = 40
_ALL: Final = slice(None)
PAIR_LENGTH: Final = 12.0    # trails shorter than so many PSF sigmas are compared with two points
PAIR_GAIN: Final = 9.0       # chi2 by which two points must fit better, with one parameter more


@dataclass(frozen=True, slots=True)
class Mixture:
    """A PSF as a sum of Gaussians that are round in a frame of their own."""

    sigmas: np.ndarray       # (k,) [pixel]
    basis: np.ndarray        # (terms, k) amplitudes of each stamp of the PSF's basis
    frame: np.ndarray        # (2, 2) from pixels to the frame, determinant 1

    @classmethod
    def of(cls, psf: Psf) -> Self:
        """The least-squares mixture; the frame makes the central PSF's adaptive moments round."""
        centre = np.array([(psf.shape[1] - 1) / 2]), np.array([(psf.shape[0] - 1) / 2])
        xx, yy, xy = psf_moments(psf, *centre)[0]
        moments = np.array([[xx, xy], [xy, yy]]) if np.isfinite(xx) else np.eye(2) * psf.sigma**2
        values, vectors = np.linalg.eigh(moments)
        scale = float(np.prod(values)) ** 0.25
        frame = vectors @ np.diag(scale / np.sqrt(values)) @ vectors.T
        half = psf.width // 2
        y, x = np.mgrid[-half:half + 1, -half:half + 1]
        qx, qy = frame[0, 0] * x + frame[0, 1] * y, frame[1, 0] * x + frame[1, 1] * y
        sigmas = _SIGMAS * scale
        rounds = np.exp(-0.5 * (qx**2 + qy**2)[None] / sigmas[:, None, None] ** 2)
        rounds /= 2 * np.pi * sigmas[:, None, None] ** 2
        matrix = rounds.reshape(len(sigmas), -1).T
        weight = np.linalg.norm(matrix)
        ridge = np.vstack([matrix, 1e-3 * weight * np.eye(len(sigmas)) / len(sigmas)])
        target = np.vstack([psf.basis.reshape(len(psf.basis), -1).T, np.zeros((len(sigmas), len(psf.basis)))])
        basis = np.linalg.lstsq(ridge, target, rcond=None)[0].T
        return cls(sigmas, basis, frame)


def fit_trails(rows: np.ndarray, detections: Detections, model: PsfModel) -> None:
    """Fill trail columns of MEASUREMENT rows, in place.

    Sources that a point fits as well get the point's solution, length 0 and no angle. Angles are degrees from +x
    towards +y in (-90, 90].
    """
    as_points(rows)
    tried = np.flatnonzero(elongated(rows, detections))
    side = np.maximum(rows["bbox_x1"] - rows["bbox_x0"], rows["bbox_y1"] - rows["bbox_y0"])[tried] + 1
    large = tried[side > MAX_SIDE]
    rows["trail_flag"][large] = True
    rows["trail_suspect_long"][large] = True
    rows["trailLength"][large] = np.nan
    tried = tried[side <= MAX_SIDE]
    if not len(tried):
        return
    mixture = Mixture.of(detections.difference.psf)
    found = _fit(rows, tried, detections, model, mixture, _start(rows, tried, detections, mixture), MARGIN)
    found = _extended(rows, tried, found, detections, model, mixture)
    gain = found[:, fits.POINT_CHI2] - found[:, fits.TRAIL_CHI2]
    better = gain > MIN_GAIN * detections.difference.noise_scale**2     # NaN: no usable pixels
    failed = np.isnan(gain) | (better & (found[:, fits.TRAIL_FAILED] > 0))
    rows["trail_flag"][tried[failed]] = True
    believed = better & ~failed
    believed &= ~_pairs(rows, tried, found, believed, detections, model, mixture)
    _fill(rows, tried[believed], found[believed], detections, mixture, model)


def as_points(rows: np.ndarray, at: np.ndarray | slice = _ALL) -> None:
    """The point source's solution in the trail columns of the rows `at`, in place."""
    for trail, point in (("trailFlux", "psfFlux"), ("trailFluxErr", "psfFluxErr"), ("trailX", "x"), ("trailY", "y"),
                         ("trailXErr", "xErr"), ("trailYErr", "yErr"), ("trailChi2", "psfChi2"),
                         ("trailNdata", "psfNdata")):
        rows[trail][at] = rows[point][at]
    rows["trailLength"][at] = 0.0
    rows["trail_flag"][at] = rows["psfFlux_flag"][at]
    rows["trail_flag_edge"][at] = rows["psfFlux_flag_edge"][at]


def elongated(rows: np.ndarray, detections: Detections) -> np.ndarray:
    """(n,) bool: worth a trail fit, by adaptive moments or by the size of the footprint."""
    excess = rows["ixx"] + rows["iyy"] - rows["ixxPSF"] - rows["iyyPSF"]
    major = 0.5 * excess + np.hypot(0.5 * (rows["ixx"] - rows["iyy"] - rows["ixxPSF"] + rows["iyyPSF"]),
                                    rows["ixy"] - rows["ixyPSF"])
    size = rows["ixxPSF"] + rows["iyyPSF"]
    error = MOMENT_ERROR * size / np.maximum(np.abs(rows["psfFlux"] / rows["psfFluxErr"]), 1.0)
    by_moments = major > MIN_ELONGATION * error
    psf = detections.difference.psf
    long = np.hypot(rows["bbox_x1"] - rows["bbox_x0"], rows["bbox_y1"] - rows["bbox_y0"]) > np.maximum(
        16.0 * psf.sigma, LARGE * point_diagonal(psf, rows["snr"]))
    peaks = detections.peaks
    both = peaks["positive"] & peaks["negative"]      # lobes, or the residual of a bright star
    able = ~(rows["sky_source"] | both | rows["pixelFlags_streakCenter"] | rows["psfFlux_flag"])
    return np.asarray(able & (by_moments | long | (rows["shape_flag"] & (rows["snr"] > 8))))


def point_diagonal(psf: Psf, snr: np.ndarray) -> np.ndarray:
    """(n,) diagonal of the box around a point source's footprint [pixel]."""
    side = 2 * psf.width
    own = np.fft.irfft2(np.abs(np.fft.rfft2(psf.central, (side, side))) ** 2, (side, side))[0, :psf.width]
    falling = np.minimum.accumulate(own / own[0])
    reach = np.interp(FOOTPRINT / np.maximum(snr, FOOTPRINT), falling[::-1], np.arange(psf.width)[::-1].astype(float))
    return np.asarray(np.sqrt(8.0) * (reach + GROWTH * psf.sigma))


def _pairs(rows: np.ndarray, tried: np.ndarray, found: np.ndarray, believed: np.ndarray, detections: Detections,
           model: PsfModel, mixture: Mixture) -> np.ndarray:
    """(n,) bool: short trails that two points fit better: those stay points, on the brighter of the two."""
    difference = detections.difference
    sigma, out = difference.psf.sigma, np.zeros(len(tried), bool)
    some = np.flatnonzero(believed & (found[:, 3] < PAIR_LENGTH * sigma))
    if not len(some):
        return out
    flux, x, y, length, angle, _ = to_pixels(found[some], mixture.frame)
    half = model.half + 5
    dx, dy = 0.29 * length * np.cos(angle), 0.29 * length * np.sin(angle)     # a line's rms
    start = np.column_stack([x + dx, y + dy, x - dx, y - dy])
    loose = 10 * np.abs(flux) + 1e-3
    prior = np.column_stack([flux / 2, loose, -flux / 2, loose])              # the second lobe is subtracted
    planes_of = (np.ascontiguousarray(difference.image, np.float32),
                 np.ascontiguousarray(difference.variance, np.float32), np.ascontiguousarray(difference.mask, np.int32),
                 BAD_PIXELS, detections.labels, (tried[some] + 1).astype(np.int32))
    pairs = fits.lobes(*planes_of, model.basis, model.terms(x, y), np.ascontiguousarray(start),
                       np.ascontiguousarray(prior), half, _ITERATIONS)
    corner = np.floor(np.column_stack([x, y]) + 0.5).astype(np.int64) - half
    box = np.column_stack([corner, np.full((len(some), 2), 2 * half + 1)])
    same = fits.trails(*planes_of, np.ascontiguousarray(box), _amplitudes(rows, tried[some], model, mixture),
                       mixture.sigmas, mixture.frame, np.ascontiguousarray(found[some, :5]), 0.0, 1)
    two = (pairs[:, fits.PAIR_FAILED] == 0) & (pairs[:, fits.PLUS] * pairs[:, fits.MINUS] < 0)
    two &= pairs[:, fits.PAIR_CHI2] < same[:, fits.TRAIL_CHI2] - PAIR_GAIN * difference.noise_scale**2
    two &= pairs[:, fits.PAIR_NDATA] == same[:, fits.TRAIL_NDATA]
    first = np.abs(pairs[:, fits.PLUS]) >= np.abs(pairs[:, fits.MINUS])
    at = np.where(first[:, None], pairs[:, fits.PLUS_X:fits.PLUS_Y + 1], pairs[:, fits.MINUS_X:fits.MINUS_Y + 1])
    out[some] = two
    centroid.move(rows, tried[some][two], detections, model, at[two, 0], at[two, 1],
                  np.column_stack([rows["xErr"], rows["yErr"], np.zeros(len(rows))])[tried[some][two]] ** 2
                  / difference.noise_scale**2)
    as_points(rows, tried[some][two])
    return out


def _amplitudes(rows: np.ndarray, at: np.ndarray, model: PsfModel, mixture: Mixture) -> np.ndarray:
    amplitudes = model.psf.terms(rows["x"][at], rows["y"][at]) @ mixture.basis
    return np.ascontiguousarray(amplitudes / amplitudes.sum(axis=1, keepdims=True))


def _extended(rows: np.ndarray, tried: np.ndarray, found: np.ndarray, detections: Detections, model: PsfModel,
              mixture: Mixture) -> np.ndarray:
    """Fits of faint trails again in a wide window, from longer lines to either side: footprints show parts of them."""
    sigma = detections.difference.psf.sigma
    again = np.flatnonzero((found[:, 3] > 4 * sigma) & (found[:, fits.TRAIL_FAILED] == 0)
                           & (rows["snr"][tried] < FAINT))
    if not len(again):
        return found
    first = found[again]
    best = None
    step = 8.0 * sigma
    for back, forth in ((0.0, 0.0), (0.0, step), (step, 0.0), (step, step)):
        start = first[:, :5].copy()
        start[:, 1] += 0.5 * (forth - back) * np.cos(first[:, 4])
        start[:, 2] += 0.5 * (forth - back) * np.sin(first[:, 4])
        start[:, 0] *= 1.0 + (forth + back) / first[:, 3]
        start[:, 3] += forth + back
        trial = _fit(rows, tried[again], detections, model, mixture, start, WIDE)
        if best is None:
            best = trial
            continue
        better = (trial[:, fits.TRAIL_CHI2] < best[:, fits.TRAIL_CHI2] - 1.0) & (trial[:, fits.TRAIL_FAILED] == 0)
        best = np.where(better[:, None], trial, best)
    return _replaced(found, again, best)


def _replaced(found: np.ndarray, at: np.ndarray, by: np.ndarray | None) -> np.ndarray:
    out = found.copy()
    out[at] = by
    return out


def _fit(rows: np.ndarray, tried: np.ndarray, detections: Detections, model: PsfModel, mixture: Mixture,
         start: np.ndarray, margin_sigmas: float) -> np.ndarray:
    difference = detections.difference
    margin = int(np.ceil(margin_sigmas * difference.psf.sigma))
    x0, y0 = rows["bbox_x0"][tried] - margin, rows["bbox_y0"][tried] - margin
    box = np.column_stack([x0, y0, rows["bbox_x1"][tried] + margin + 1 - x0, rows["bbox_y1"][tried] + margin + 1 - y0])
    return np.asarray(fits.trails(
        np.ascontiguousarray(difference.image, np.float32), np.ascontiguousarray(difference.variance, np.float32),
        np.ascontiguousarray(difference.mask, np.int32), BAD_PIXELS, detections.labels, (tried + 1).astype(np.int32),
        np.ascontiguousarray(box, np.int64), _amplitudes(rows, tried, model, mixture), mixture.sigmas, mixture.frame,
        np.ascontiguousarray(start), PLAIN * difference.psf.sigma, _ITERATIONS))


def _start(rows: np.ndarray, tried: np.ndarray, detections: Detections, mixture: Mixture) -> np.ndarray:
    """(n, 5) flux, centre, length, angle in the frame, from the moments of significance over each footprint."""
    corner = np.column_stack([rows["bbox_x0"], rows["bbox_y0"]])[tried]
    boxes = np.column_stack([corner, rows["bbox_x1"][tried], rows["bbox_y1"][tried]])
    sums = footprints.moments_of(detections.labels, detections.significance, np.ascontiguousarray(boxes, np.int32),
                                 (tried + 1).astype(np.int32), np.where(rows["psfFlux"][tried] < 0, -1.0, 1.0))
    mx, my, xx, yy, xy = (sums[:, 1:] / np.maximum(sums[:, :1], 1e-9)).T
    xx, yy, xy = xx - mx**2, yy - my**2, xy - mx * my
    mx, my = mx + corner[:, 0], my + corner[:, 1]
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    major = 0.5 * (xx + yy) + np.hypot(0.5 * (xx - yy), xy)
    minor = xx + yy - major
    length = np.sqrt(12 * np.maximum(major - minor, detections.difference.psf.sigma**2 / 4))
    line = mixture.frame @ np.array([length * np.cos(angle), length * np.sin(angle)])
    centre = mixture.frame @ np.array([mx, my])
    spread = 1.0 + length / (3.5 * detections.difference.psf.sigma)      # what a point source misses of a trail
    return np.ascontiguousarray(np.column_stack([rows["psfFlux"][tried] * spread, centre[0], centre[1],
                                                 np.hypot(*line), np.arctan2(line[1], line[0])]).astype(float))


def _fill(rows: np.ndarray, at: np.ndarray, found: np.ndarray, detections: Detections, mixture: Mixture,
          model: PsfModel) -> None:
    """Put believed trails into MEASUREMENT columns, in place."""
    if not len(at):
        return
    difference = detections.difference
    flux, x, y, length, angle, covariance = to_pixels(found, mixture.frame)
    errors = np.sqrt(np.maximum(np.einsum("nii->ni", covariance), 0)) * difference.noise_scale
    columns = {"trailFlux": flux, "trailX": x, "trailY": y, "trailLength": length, "trailAngle": np.degrees(angle),
               "trailFluxErr": errors[:, 0], "trailXErr": errors[:, 1], "trailYErr": errors[:, 2],
               "trailLengthErr": errors[:, 3], "trailAngleErr": np.degrees(errors[:, 4]),
               "trailChi2": found[:, fits.TRAIL_CHI2], "trailNdata": found[:, fits.TRAIL_NDATA].astype(int)}
    for name, values in columns.items():
        rows[name][at] = values
    ny, nx = difference.image.shape
    dx, dy = 0.5 * length * np.cos(angle), 0.5 * length * np.sin(angle)
    ends = np.array([[x - dx, x + dx], [y - dy, y + dy]])
    off = np.any((ends[0] < -0.5) | (ends[0] >= nx - 0.5) | (ends[1] < -0.5) | (ends[1] >= ny - 0.5), axis=0)
    rows["trail_off_image"][at] = off
    rows["trail_suspect_long"][at] = length > SUSPECT * difference.psf.sigma
    on = np.clip(np.floor(ends + 0.5), 0, np.array([nx - 1, ny - 1])[:, None, None]).astype(int)
    bits = np.bitwise_or.reduce(difference.mask[on[1], on[0]], axis=0)
    rows["trail_flag_edge"][at] = off | ((bits & (planes.EDGE | planes.NO_DATA)) != 0)
    inside = (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5)
    spread = np.column_stack([covariance[:, 1, 1], covariance[:, 2, 2], covariance[:, 1, 2]])
    centroid.move(rows, at[inside], detections, model, x[inside], y[inside], spread[inside])


def to_pixels(found: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, ...]:
    """Flux, x, y, length, angle [rad] in (-pi/2, pi/2] and their (n, 5, 5) covariance, from the frame to pixels."""
    back = np.linalg.inv(frame)
    flux, cx, cy, length, angle = found[:, :5].T
    x, y = back @ np.array([cx, cy])
    unit, normal = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    line = back @ (unit * length)
    by_length, by_angle = back @ unit, back @ (normal * length)
    size = np.maximum(np.hypot(*line), 1e-9)
    jacobian = np.zeros((len(found), 5, 5))
    jacobian[:, 0, 0] = 1.0
    jacobian[:, 1:3, 1:3] = back
    for column, derivative in ((3, by_length), (4, by_angle)):
        jacobian[:, 3, column] = (line[0] * derivative[0] + line[1] * derivative[1]) / size
        jacobian[:, 4, column] = (line[0] * derivative[1] - line[1] * derivative[0]) / size**2
    covariance = jacobian @ found[:, 5:30].reshape(-1, 5, 5) @ jacobian.transpose(0, 2, 1)
    turned = np.arctan2(line[1], line[0])
    turned = np.where(turned > np.pi / 2, turned - np.pi, np.where(turned <= -np.pi / 2, turned + np.pi, turned))
    return flux, x, y, np.hypot(*line), turned, covariance
