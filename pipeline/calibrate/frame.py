"""One exposure calibrated: pixels in ADU become an image in nJy with all that can be known of it.

    defects and sky -> sources -> PSF -> PSF fluxes and positions -> WCS -> zeropoint -> variance -> nJy
"""

import numpy as np
from scipy import ndimage

from pipeline.calibrate import astrometry, noise, photometry
from pipeline.calibrate.background import Background, estimate
from pipeline.calibrate.psf import PointFits, PsfModel, build, fit_points, light_outside
from pipeline.calibrate.stars import find
from pipeline.errors import AlgorithmError
from pipeline.images import Calibrated, Calibration
from pipeline.pixel_config import CalibrateConfig
from schemas import mask as planes
from schemas.exposure import AB_ZEROPOINT_NJY, Exposure
from schemas.measures import STAR
from schemas.wcs import Wcs

_MIN_STAR_SNR = 10.0       # calibrateImage keeps peaks of 10 sigma


def calibrate(exposure: Exposure, references: np.ndarray, config: CalibrateConfig, *,
              given_zeropoint: float = AB_ZEROPOINT_NJY) -> Calibrated:
    """Sky, noise, PSF, WCS and zeropoint of an exposure.

    Parameters
    ----------
    references : REFERENCE rows; where there are none, or a switch of `config` is off, the exposure's WCS and
        `given_zeropoint` are taken as they are.

    Raises
    ------
    AlgorithmError
        No usable pixels, too few stars for a PSF, no agreement with the references: with the numbers found.
    """
    mask, image = _prepared(exposure, config)
    unusable = (mask & planes.UNUSABLE) > 0
    bad = unusable & ((mask & planes.EDGE) == 0)
    sky = estimate(image, bad, config.mesh_px)
    image = image - sky.level
    flat = noise.flattened(image, sky.blank)
    sky_variance, total_sky = _sky_variance(exposure, sky, flat)
    found = find(image, np.sqrt(sky_variance), bad, config.star_threshold)
    if len(found) == 0:
        raise AlgorithmError(f"PSF: no source above {config.star_threshold} sigma")
    ceiling = 0.8 * (exposure.saturation - total_sky)
    model = build(image, sky_variance, exposure.gain, bad, found, ceiling)
    bright = np.flatnonzero(found["snr"] > _MIN_STAR_SNR)
    points = fit_points(image, bad, model.psf, found["x"][bright], found["y"][bright], sky_variance, exposure.gain)
    stars = _stars(found[bright], points, np.isin(bright, model.used), model, mask)
    stars, wcs, matched = _astrometry(stars, exposure, references, config)
    # a PSF of unit sum within its stamp measures the light within: fluxes are raised to what they are in total
    aperture = 1.0 + light_outside(model.psf)
    for name in ("flux", "fluxErr"):
        stars[name] *= aperture
    zeropoint = _photometry(stars, matched, references, exposure, config, given_zeropoint)
    variance, factor = _variance(exposure, image, flat, sky, sky_variance)
    acf = noise.autocorrelation(flat, sky.blank)
    njy = float(10.0 ** (0.4 * (AB_ZEROPOINT_NJY - zeropoint.value)) * aperture)
    for name in ("flux", "fluxErr"):
        stars[name] *= njy / aperture
    calibration = Calibration(
        zeropoint=zeropoint.value, sky_adu=total_sky, sky_noise_adu=float(np.sqrt(sky_variance)), n_stars=len(stars),
        n_psf_star=len(model.used), n_matches=0 if matched is None else int(np.count_nonzero(matched.used)),
        astrom_offset_mean=np.nan if matched is None else matched.offset_mean,
        astrom_offset_std=np.nan if matched is None else matched.offset_std, zeropoint_err=zeropoint.error,
        variance_factor=factor, noise_correlation=noise.lag1(acf), wcs_given=matched is None or not
        config.enabled_astrometry, zeropoint_given=zeropoint.n_stars == 0)
    image, mask = _repaired(image, mask)
    return Calibrated(
        exposure.visit, exposure.detector, (image * njy).astype(np.float32), (variance * njy**2).astype(np.float32),
        mask, model.psf, wcs, stars, calibration, exposure.gain / njy, float(exposure.saturation - total_sky) * njy,
        acf)


def _prepared(exposure: Exposure, config: CalibrateConfig) -> tuple[np.ndarray, np.ndarray]:
    """Mask with grown, suspect and border pixels, and the image with defects at the median."""
    image, mask = exposure.image, exposure.mask.astype(np.int32)
    finite = np.isfinite(image)
    mask = np.where(finite, mask, mask | planes.BAD)
    usable = (mask & planes.INPUT) == 0
    if not usable.any():
        raise AlgorithmError(f"no usable pixel: of {image.size}, {np.count_nonzero(~finite)} are not finite and "
                             f"{np.count_nonzero(finite & ~usable)} are masked")
    level = float(np.median(image[usable][:: max(1, np.count_nonzero(usable) // 200_000)]))
    image = np.where((mask & planes.BAD) > 0, np.float32(level), image).astype(np.float32)
    offset = 0.0 if np.isnan(exposure.pedestal) else exposure.pedestal
    saturated = ((mask & planes.SAT) > 0) | (image + offset >= exposure.saturation)
    if saturated.any():
        grown = ndimage.binary_dilation(saturated, iterations=config.grow_saturated_px)
        mask = np.where(grown, mask | planes.SAT, mask)
    mask = np.where(image + offset > config.suspect_fraction * exposure.saturation, mask | planes.SUSPECT, mask)
    width = config.edge_px
    if width:
        border = np.ones(mask.shape, bool)
        border[width:-width, width:-width] = False
        mask = np.where(border, mask | planes.EDGE, mask)
    return mask.astype(np.int32), image


def _sky_variance(exposure: Exposure, sky: Background, flat: np.ndarray) -> tuple[float, float]:
    """Variance of blank sky [ADU^2], from the sky's level where that is known; the level with its pedestal [ADU]."""
    level = float(np.median(sky.level))
    if np.isnan(exposure.pedestal):
        return _measured_noise(flat, sky) ** 2, level
    total = level + exposure.pedestal
    return max(total, 0.0) / exposure.gain + (exposure.read_noise / exposure.gain) ** 2, total


def _measured_noise(flat: np.ndarray, sky: Background) -> float:
    values = flat[sky.blank & (flat != 0)]
    return noise.spread(values) if len(values) > 500 else sky.noise


def _variance(exposure: Exposure, image: np.ndarray, flat: np.ndarray, sky: Background,
              sky_variance: float) -> tuple[np.ndarray, float]:
    """(ny, nx) variance [ADU^2] scaled to the noise measured on blank sky, and the factor."""
    counts = noise.source_counts(image, float(np.sqrt(sky_variance)))
    if np.isnan(exposure.pedestal):
        return (sky_variance + counts / exposure.gain).astype(np.float32), 1.0
    floor = (exposure.read_noise / exposure.gain) ** 2
    level = np.maximum(sky.level + exposure.pedestal, 0.0)
    blank = (level / exposure.gain + floor).astype(np.float32)
    electrons = float(np.median(level)) * exposure.gain
    skewness = electrons / max(electrons + exposure.read_noise**2, 1.0) ** 1.5
    factor = noise.variance_factor(flat, blank, sky.blank, skewness)
    return (factor * (blank + counts / exposure.gain)).astype(np.float32), factor


def _stars(found: np.ndarray, points: PointFits, used: np.ndarray, model: PsfModel, mask: np.ndarray) -> np.ndarray:
    """STAR rows [ADU] of sources whose PSF fit is sane; `flags` holds the mask bits within a pixel of the centre."""
    near = np.hypot(points.x - found["x"], points.y - found["y"]) < 2.5
    inside = (points.x > -0.5) & (points.x < mask.shape[1] - 0.5) & (points.y > -0.5) & (points.y < mask.shape[0] - 0.5)
    good = near & inside & np.isfinite(points.flux) & (points.flux_error > 0)
    rows = np.zeros(np.count_nonzero(good), STAR)
    rows["x"], rows["y"], rows["flux"] = points.x[good], points.y[good], points.flux[good]
    rows["xErr"], rows["yErr"], rows["fluxErr"] = points.x_error[good], points.y_error[good], points.flux_error[good]
    rows["snr"] = rows["flux"] / rows["fluxErr"]
    large = np.log(np.maximum(found["size"][good], 0.01) / model.size)
    noise_allowed = np.hypot(1.5 * model.size_width, 2.5 / np.maximum(found["snr"][good], 1.0))
    rows["extended"] = (np.abs(large) > noise_allowed) | (points.chi2[good] > 6.0)
    rows["psf_used"] = used[good]
    x, y = np.rint(rows["x"]).astype(int), np.rint(rows["y"]).astype(int)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            rows["flags"] |= mask[np.clip(y + dy, 0, mask.shape[0] - 1), np.clip(x + dx, 0, mask.shape[1] - 1)]
    rows["refId"] = -1
    return rows


def _astrometry(stars: np.ndarray, exposure: Exposure, references: np.ndarray,
                config: CalibrateConfig) -> tuple[np.ndarray, Wcs, astrometry.Matched | None]:
    if len(references) == 0:
        return stars, exposure.wcs, None
    clean = np.flatnonzero((stars["flags"] & planes.INPUT) == 0)
    error = np.hypot(stars["xErr"], stars["yErr"]) / np.sqrt(2)
    flux = np.asarray(references[f"{exposure.visit.band}_flux"], float)
    matched = astrometry.solve(
        stars["x"][clean], stars["y"][clean], error[clean].astype(float), stars["flux"][clean].astype(float),
        references, flux, exposure.wcs, exposure.shape, offset_arcsec=exposure.wcs_error_arcsec,
        rotation_deg=exposure.wcs_error_deg)
    matched = astrometry.Matched(matched.wcs, clean[matched.sources], matched.references, matched.used,
                                 matched.offset_mean, matched.offset_std)
    stars["refId"][matched.sources] = references["refId"][matched.references]
    return stars, matched.wcs if config.enabled_astrometry else exposure.wcs, matched


def _photometry(stars: np.ndarray, matched: astrometry.Matched | None, references: np.ndarray, exposure: Exposure,
                config: CalibrateConfig, given: float) -> photometry.Zeropoint:
    if matched is None or not config.enabled_photometry:
        return photometry.Zeropoint(given, np.nan, 0)
    band = exposure.visit.band
    rows, refs = matched.sources, references[matched.references]
    good = ~stars["extended"][rows] & ((stars["flags"][rows] & (planes.INPUT | planes.SUSPECT)) == 0) \
        & (stars["snr"][rows] > 20)
    if np.count_nonzero(good) < photometry.MIN_STARS:
        good = (stars["flags"][rows] & planes.INPUT) == 0
    rows, refs = rows[good], refs[good]
    return photometry.solve(stars["flux"][rows].astype(float), stars["fluxErr"][rows].astype(float),
                            refs[f"{band}_flux"].astype(float), refs[f"{band}_fluxErr"].astype(float))


def _repaired(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Known defects filled from their neighbours under a Gaussian, and marked INTRP; 0 where none is within 4 px."""
    bad = (mask & planes.BAD) > 0
    if not bad.any():
        return image, mask
    y, x = np.nonzero(bad)
    k = np.arange(-4, 5)
    weight = np.exp(-0.5 * (k[:, None] ** 2 + k**2) / 1.5**2)
    padded = np.pad(image, 4)
    good = np.pad(~bad, 4)
    out = image.copy()
    for first in range(0, len(y), 20_000):
        ys, xs = y[first:first + 20_000], x[first:first + 20_000]
        rows, columns = ys[:, None, None] + k[:, None] + 4, xs[:, None, None] + k + 4
        part = weight * good[rows, columns]
        total = part.sum(axis=(1, 2))
        value = (part * padded[rows, columns]).sum(axis=(1, 2)) / np.maximum(total, 1e-12)
        out[ys, xs] = np.where(total > 1e-6, value, 0.0)
    return out, np.where(bad, mask | planes.INTRP, mask).astype(np.int32)
