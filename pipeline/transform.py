"""From pixels to the sky: MEASUREMENT rows become DIASources, in the units of apdb.yaml.

Positions and their covariances go through the WCS and its local derivative J = d(East, North)/d(x, y); fluxes are in
nJy already. Angles become bearings, from North through East.
"""

from typing import Final

import numpy as np

from pipeline.sphere import east_north, unit_vectors
from schemas import ids
from schemas.exposure import Visit
from schemas.table import DIA_SOURCE, SUMMARY
from schemas.wcs import Wcs

TRAIL_ALGORITHM: Final = 3   # apdb.yaml: 1 and 2 are the moments of the real system; 3 is our fit of a trailed PSF
_COMPUTED: Final = frozenset({"trailLength", "trailLengthErr", "trailAngle", "trailAngleErr", "dipoleLength",
                              "dipoleAngle", "ixx", "iyy", "ixy", "ixxPSF", "iyyPSF", "ixyPSF"})


def transform(sources: np.ndarray, wcs: Wcs, visit: Visit, detector: int, processed_mjd_tai: float, *,
              reliability_version: str = "", counter_offset: int = 0) -> np.ndarray:
    """DIA_SOURCE rows of MEASUREMENT rows, not yet associated: diaObjectId and ssObjectId are 0.

    Parameters
    ----------
    sources : (n,) MEASUREMENT
    processed_mjd_tai : float
        When the rows were made; the catalogue half's clock.
    counter_offset : int
        Added to the counter `id` in the packed diaSourceId.
    """
    rows = DIA_SOURCE.empty(len(sources))
    given = set(sources.dtype.names or ())
    for name in rows.dtype.names or ():
        if name in given and name not in _COMPUTED:
            rows[name] = sources[name]
    rows["diaSourceId"] = ids.source_ids(visit.visit, detector, sources["id"] + counter_offset)
    rows["visit"], rows["detector"], rows["band"] = visit.visit, detector, visit.band.encode()
    rows["midpointMjdTai"], rows["exposureTime"] = visit.mjd_tai, visit.exposure_s
    rows["timeProcessedMjdTai"] = processed_mjd_tai
    rows["reliabilityVersion"] = reliability_version.encode()
    rows["trailAlgorithm"] = np.where(np.isfinite(sources["trailLength"]), TRAIL_ALGORITHM, -1)
    _place(rows, sources, wcs)
    return rows


def _place(rows: np.ndarray, sources: np.ndarray, wcs: Wcs) -> None:
    """Fill positions, errors, lengths, angles and moments."""
    x, y = sources["x"], sources["y"]
    jacobian = jacobians(wcs, x, y)
    rows["ra"], rows["dec"] = wcs.sky(x, y)
    rows["raErr"], rows["decErr"], rows["ra_dec_Cov"] = propagate(
        jacobian, sources["xErr"], sources["yErr"], sources["x_y_Cov"])
    rows["trailRa"], rows["trailDec"] = wcs.sky(sources["trailX"], sources["trailY"])
    rows["trailRaErr"], rows["trailDecErr"], _ = propagate(jacobian, sources["trailXErr"], sources["trailYErr"], 0.0)
    bearing, stretch, turn = direction(jacobian, sources["trailAngle"])
    rows["trailAngle"] = 90.0 - (90.0 - bearing) % 180.0       # a trail has no head: in (-90, 90], as real ones
    rows["trailAngleErr"] = sources["trailAngleErr"] * turn
    length = sources["trailLength"]                            # 0 for a point, which has no angle
    rows["trailLength"] = np.where(length == 0.0, 0.0, length * stretch * 3600.0)
    rows["trailLengthErr"] = sources["trailLengthErr"] * stretch * 3600.0
    bearing, stretch, _ = direction(jacobian, sources["dipoleAngle"])
    rows["dipoleAngle"] = bearing % 360.0                     # from the negative to the positive lobe
    rows["dipoleLength"] = sources["dipoleLength"] * stretch * 3600.0
    area = np.abs(np.linalg.det(jacobian)) * 3600.0**2        # moments keep the pixels' axes, as deployed
    for name in ("ixx", "iyy", "ixy", "ixxPSF", "iyyPSF", "ixyPSF"):
        rows[name] = sources[name] * area


def jacobians(wcs: Wcs, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, 2, 2) derivatives of (East, North) [deg] by (x, y) [pixel] at points; good at the poles too."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    east, north = east_north(*wcs.sky(x, y))
    step = 0.5
    columns = []
    around = unit_vectors(*wcs.sky(np.stack([x + step, x - step, x, x]), np.stack([y, y, y + step, y - step])))
    for moved in (around[0] - around[1], around[2] - around[3]):
        columns.append(np.degrees(np.stack([np.sum(moved * east, -1), np.sum(moved * north, -1)], -1)) / (2 * step))
    return np.stack(columns, axis=-1)


def propagate(jacobian: np.ndarray, x_err: np.ndarray, y_err: np.ndarray,
              cov: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors to the East and North [deg] and their covariance [deg^2] of pixel errors; a missing covariance is 0."""
    x_err, y_err = np.asarray(x_err, float), np.asarray(y_err, float)
    cov = 0.0 if isinstance(cov, float) and cov == 0.0 else np.nan_to_num(np.asarray(cov, float))
    pixel = np.empty((*x_err.shape, 2, 2))
    pixel[..., 0, 0], pixel[..., 1, 1] = x_err**2, y_err**2
    pixel[..., 0, 1] = pixel[..., 1, 0] = cov
    sky = jacobian @ pixel @ np.swapaxes(jacobian, -1, -2)
    return np.sqrt(sky[..., 0, 0]), np.sqrt(sky[..., 1, 1]), sky[..., 0, 1]


def direction(jacobian: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bearing [deg, North through East] of pixel directions, degrees per pixel along them, and bearing per angle."""
    theta = np.radians(np.asarray(angle, float))
    along = jacobian @ np.stack([np.cos(theta), np.sin(theta)], axis=-1)[..., None]
    east, north = along[..., 0, 0], along[..., 1, 0]
    squared = east**2 + north**2
    turn = np.abs(np.linalg.det(jacobian)) / squared
    return np.degrees(np.arctan2(east, north)), np.sqrt(squared), turn


def processing_summary(visit: Visit, detector: int, wcs: Wcs, shape: tuple[int, int], log: np.ndarray) -> np.ndarray:
    """DetectorVisitProcessingSummary, one row, of what the pixel half logged (EXPOSURE_LOG)."""
    row = SUMMARY.empty(1)
    ny, nx = shape
    row["visit"], row["detector"], row["xSize"], row["ySize"] = visit.visit, detector, nx, ny
    ra, dec = wcs.sky(np.array([(nx - 1) / 2, 0.0, 0.0, nx - 1.0, nx - 1.0]),
                      np.array([(ny - 1) / 2, 0.0, ny - 1.0, ny - 1.0, 0.0]))
    for name, at_ra, at_dec in zip(("", "llc", "ulc", "urc", "lrc"), ra, dec, strict=True):
        row[f"{name}ra"], row[f"{name}dec"] = at_ra, at_dec
    row["pixelScale"] = wcs.scale_arcsec
    for name, logged in (("zeroPoint", "zeropoint"), ("psfSigma", "psf_sigma_px"), ("skyBg", "sky_adu"),
                         ("skyNoise", "sky_noise_adu"), ("seeing", "fwhm_arcsec"),
                         ("astromOffsetMean", "astrom_offset_mean"), ("astromOffsetStd", "astrom_offset_std"),
                         ("nPsfStar", "n_psf_star")):
        row[name] = log[logged]
    return row
