"""Astrometry: detections matched to references near a wrong pointing, then an affine correction of the WCS."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage, spatial

from pipeline.errors import AlgorithmError
from schemas.wcs import Wcs

MIN_MATCHES = 4
MAX_MEAN_ARCSEC = 0.5      # calibrateImage fails above this mean on-sky distance
_VOTERS = 300              # brightest detections and references that vote on the offset
_BIN_PX = 1.5
_FLOOR_PX = 0.02          # what a position is at least wrong by
_LINEAR = 3e-4            # scale and shear that a pointing's WCS lacks: refraction gives 3e-4 at an airmass of 1.5


@dataclass(frozen=True, slots=True)
class Matched:
    """A corrected WCS and the pairs that say so."""

    wcs: Wcs
    sources: np.ndarray    # indices into the detections
    references: np.ndarray   # and into the references
    used: np.ndarray       # bool: within the clip
    offset_mean: float     # mean on-sky distance of the used pairs [arcsec]
    offset_std: float


def solve(x: np.ndarray, y: np.ndarray, error: np.ndarray, brightness: np.ndarray, references: np.ndarray,
          flux: np.ndarray, wcs: Wcs, shape: tuple[int, int], *, offset_arcsec: float, rotation_deg: float) -> Matched:
    """Match detections to REFERENCE rows and correct `wcs`, which may be off by an offset and a rotation.

    x, y, error : positions of detections and their errors [pixel]; `brightness` orders them.
    flux : of the references in this band, NaN where unknown.
    """
    scale = wcs.scale_arcsec
    reach = offset_arcsec * 1.3 / scale + 4 * _BIN_PX
    turn = np.radians(rotation_deg) * 1.3
    half = np.hypot(*shape) / 2
    px, py = wcs.pixels(references["ra"], references["dec"])
    margin = reach + turn * half
    near = (px > -margin) & (px < shape[1] + margin) & (py > -margin) & (py < shape[0] + margin)
    rows = np.flatnonzero(near & np.isfinite(px) & np.isfinite(py))
    if len(rows) < MIN_MATCHES or len(x) < MIN_MATCHES:
        raise AlgorithmError(f"astrometry: {len(x)} sources and {len(rows)} references on the detector, "
                             f"{MIN_MATCHES} of each needed")
    px, py = px[rows], py[rows]
    centre = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    ref = np.stack([px, py], axis=1) - centre
    src = np.stack([x, y], axis=1) - centre
    matrix, offset = _vote(src, brightness, ref, np.nan_to_num(flux[rows], nan=0.0), reach, turn, half)
    quoted = np.hypot(references["raErr"][rows], references["decErr"][rows]) / np.sqrt(2) / scale
    quoted = np.where(np.isfinite(quoted), quoted, 0.0)
    pairs, used = (np.zeros((0, 2), int), np.zeros(0, bool))
    for radius in (3.0 * _BIN_PX, 2.5, 1.5, 1.0, 1.0):
        pairs = _mutual(src, ref @ matrix.T + offset, radius)
        if len(pairs) < MIN_MATCHES:
            raise AlgorithmError(f"astrometry: {len(pairs)} of {len(x)} sources match {len(rows)} references, "
                                 f"{MIN_MATCHES} needed")
        matrix, offset, used = _affine(ref[pairs[:, 1]], src[pairs[:, 0]],
                                       np.hypot(error[pairs[:, 0]], quoted[pairs[:, 1]]))
    if np.count_nonzero(used) < MIN_MATCHES:
        raise AlgorithmError(f"astrometry: {np.count_nonzero(used)} pairs agree on one WCS, {MIN_MATCHES} needed")
    corrected = corrected_wcs(wcs, matrix, offset + centre - matrix @ centre)
    chosen = pairs[used]
    found_ra, found_dec = corrected.sky(x[chosen[:, 0]], y[chosen[:, 0]])
    true_ra, true_dec = references["ra"][rows[chosen[:, 1]]], references["dec"][rows[chosen[:, 1]]]
    east = ((found_ra - true_ra + 180) % 360 - 180) * np.cos(np.radians(true_dec)) * 3600
    distance = np.hypot(east, (found_dec - true_dec) * 3600)
    if distance.mean() > MAX_MEAN_ARCSEC:
        raise AlgorithmError(f"astrometry: mean distance of matches {distance.mean():.2f}\", at most "
                             f"{MAX_MEAN_ARCSEC}\" allowed")
    return Matched(corrected, pairs[:, 0], rows[pairs[:, 1]], used, float(distance.mean()), float(distance.std()))


def _vote(src: np.ndarray, brightness: np.ndarray, ref: np.ndarray, flux: np.ndarray, reach: float, turn: float,
          half: float) -> tuple[np.ndarray, np.ndarray]:
    """The rotation and offset on which most pairs of bright detections and references agree."""
    src = src[np.argsort(brightness)[::-1][:_VOTERS]]
    ref = ref[np.argsort(flux)[::-1][:int(_VOTERS * 1.5)]]
    n = max(1, int(np.ceil(turn * half / _BIN_PX)))
    bins = int(np.ceil(2 * reach / _BIN_PX))
    best: tuple[float, float, np.ndarray] = (-1.0, 0.0, np.zeros(2))
    for angle in np.linspace(-turn, turn, 2 * n + 1):
        c, s = np.cos(angle), np.sin(angle)
        moved = ref @ np.array([[c, s], [-s, c]])
        delta = src[:, None, :] - moved[None, :, :]
        delta = delta[(np.abs(delta) < reach).all(axis=2)]
        votes = np.histogram2d(delta[:, 0], delta[:, 1], bins=bins, range=[[-reach, reach]] * 2)[0]
        smooth = ndimage.convolve(votes, np.array([[0.5, 1, 0.5], [1, 1, 1], [0.5, 1, 0.5]]), mode="constant")
        top = np.unravel_index(int(np.argmax(smooth)), smooth.shape)
        if smooth[top] > best[0]:
            guess = (np.array(top) + 0.5) * _BIN_PX * (2 * reach / bins / _BIN_PX) - reach
            close = delta[np.hypot(*(delta - guess).T) < 1.5 * _BIN_PX]
            best = float(smooth[top]), float(angle), np.median(close, axis=0) if len(close) else guess
    c, s = np.cos(best[1]), np.sin(best[1])
    return np.array([[c, -s], [s, c]]), best[2]


def _mutual(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    """(n, 2) indices of mutually nearest points within a radius."""
    forth, j = spatial.cKDTree(b).query(a, distance_upper_bound=radius)
    _, i = spatial.cKDTree(a).query(b, distance_upper_bound=radius)
    rows = np.flatnonzero(np.isfinite(forth))
    rows = rows[i[j[rows]] == rows]
    return np.stack([rows, j[rows]], axis=1)


def _affine(ref: np.ndarray, src: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrix and offset with src = matrix ref + offset, outliers weighted down, and which pairs are within the clip."""
    used = np.ones(len(ref), bool)
    error = np.hypot(sigma, _FLOOR_PX)
    robust = np.ones(len(ref))
    for _ in range(12):
        matrix, offset = _fit(ref, src, robust * used / error**2)
        distance = np.hypot(*(src - ref @ matrix.T - offset).T) / error
        scatter = max(float(np.median(distance[used])) / 1.18, 1.0)      # 1.18: the median of a Rayleigh distribution
        kept = distance < 4.5 * scatter
        robust = 1 / (1 + (distance / (2.5 * scatter)) ** 2)
        if (kept == used).all() or np.count_nonzero(kept) < MIN_MATCHES:
            continue
        used = kept
    return matrix, offset, used


def _fit(ref: np.ndarray, src: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offset, rotation, and scale and shear as far as the pairs ask for more than _LINEAR of them."""
    x, y = ref.T
    one, none = np.ones_like(x), np.zeros_like(x)
    root = np.sqrt(weight)
    design = np.concatenate([np.stack([one, none, -y, x, x, y], axis=1) * root[:, None],
                             np.stack([none, one, x, y, -y, x], axis=1) * root[:, None],
                             np.diag([0, 0, 0, 1, 1, 1])[3:] / _LINEAR])
    wanted = np.concatenate([(src - ref)[:, 0] * root, (src - ref)[:, 1] * root, np.zeros(3)])
    tx, ty, turn, scale, stretch, shear = np.linalg.lstsq(design, wanted, rcond=None)[0]
    return np.array([[1 + scale + stretch, shear - turn], [shear + turn, 1 + scale - stretch]]), np.array([tx, ty])


def corrected_wcs(wcs: Wcs, matrix: np.ndarray, offset: np.ndarray) -> Wcs:
    """The WCS in which the point that `wcs` has at pixel p lies at matrix p + offset; exact for every kind."""
    inverse = np.linalg.inv(matrix)
    cd = np.reshape(wcs.cd, (2, 2)) @ inverse
    crpix = matrix @ np.array(wcs.crpix) + offset
    moved = replace(wcs, crpix=(float(crpix[0]), float(crpix[1])),
                    cd=(float(cd[0, 0]), float(cd[0, 1]), float(cd[1, 0]), float(cd[1, 1])))
    if wcs.kind != "TAN-SIP":
        return moved
    # xi = cd (u + f(u)) with u = M^-1 u', so in the new pixels the distortion is M f(M^-1 u')
    order = max([p + q for p, q, _, _ in wcs.distortion_x + wcs.distortion_y] or [0])
    powers = [(p, q) for p in range(order + 1) for q in range(order + 1 - p)]
    reach = 2000.0
    side = np.linspace(-1, 1, 2 * order + 3)
    u, v = (g.ravel() for g in np.meshgrid(side, side))
    old = inverse @ np.stack([u, v]) * reach
    f = np.stack([sum((c * old[0]**p * old[1]**q for p, q, _, c in terms), np.zeros(len(u)))
                  for terms in (wcs.distortion_x, wcs.distortion_y)])
    g = matrix @ f
    design = np.stack([u**p * v**q for p, q in powers], axis=1)
    solved = np.linalg.lstsq(design, g.T, rcond=None)[0]
    terms = [tuple((p, q, 0, float(c) / reach ** (p + q)) for (p, q), c in zip(powers, solved[:, k], strict=True))
             for k in (0, 1)]
    return replace(moved, distortion_x=terms[0], distortion_y=terms[1])
