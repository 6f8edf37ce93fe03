"""A detector-visit at catalogue fidelity, dressed as what the pixel half yields.

Stamps are modelled, not measured: the PSF times the flux on a flat variance.
"""

import numpy as np

from pipeline.calibrate.psf import side_for
from pipeline.images import Calibration, Cutouts
from pipeline.prompt import Measured, footprint_box
from schemas.exposure import AB_ZEROPOINT_NJY, Visit
from schemas.measures import EXPOSURE_LOG, empty
from schemas.wcs import Wcs
from simulators.catalogs import Catalog

SIDES = (30, 102)     # of cutouts [pixel] (ap_association)


def measured_from_catalog(catalog: Catalog, visit: Visit, detector: int, wcs: Wcs, shape: tuple[int, int], *,
                          psf_sigma_px: float, template_sigmas_px: tuple[float, float] | None = None,
                          zeropoint: float = AB_ZEROPOINT_NJY) -> Measured:
    """What enters the catalogue half; `calibration` holds the conditions as they were drawn.

    The template's sigmas are those of its PSF and of its widest input's, whose stamp sets the side.
    """
    sources = catalog.sources
    fluxes = (sources["scienceFlux"], sources["templateFlux"], sources["psfFlux"])
    variance = catalog.pixels.flux_err**2 / (4 * np.pi * psf_sigma_px**2)     # of a pixel: error^2 x sum of PSF^2
    sigma, widest = template_sigmas_px or (psf_sigma_px, psf_sigma_px)
    side, template_side = (psf_side(one, wcs.scale_arcsec) for one in (psf_sigma_px, widest))
    science, template, difference = (
        _stamps(sources, flux, of, variance, psf) for flux, of, psf in zip(
            fluxes, (psf_sigma_px, sigma, psf_sigma_px), (side, template_side, side), strict=True))
    return Measured(visit=visit, detector=detector, sources=sources, wcs=wcs, shape=shape,
                    box=footprint_box(wcs, shape), calibration=calibration(zeropoint), science=science,
                    template=template, difference=difference, pixels=catalog.pixels,
                    log=_log(catalog, visit, detector, wcs, shape, psf_sigma_px, zeropoint))


def psf_side(sigma_px: float, scale_arcsec: float) -> int:
    """Side of the PSF's stamp that the pixel half would choose: by the FWHM, which is less than the effective one."""
    effective = 2.0 * np.sqrt(2.0 * np.log(2.0)) * sigma_px * scale_arcsec
    return side_for((0.822 * effective + 0.052) / scale_arcsec)      # LSST SMTN-002


def _stamps(sources: np.ndarray, flux: np.ndarray, sigma: float, variance: float, psf: int) -> Cutouts:
    sides = np.clip(sources["bboxSize"], *SIDES).astype(int)
    images = []
    for side, x, y, f in zip(sides.tolist(), sources["x"], sources["y"], np.nan_to_num(flux), strict=True):
        images.append(np.float32(f) * gaussian(side, x % 1.0 + side // 2, y % 1.0 + side // 2, sigma))
    flat = {side: np.full((side, side), variance, np.float32) for side in np.unique(sides).tolist()}
    return Cutouts(tuple(images), tuple(flat[side] for side in sides.tolist()), psf_stamp(sigma, psf))


def psf_stamp(sigma: float, side: int = 0) -> np.ndarray:
    """The PSF as cutouts hold it; without a side, that of LSSTCam's pixels."""
    side = side or psf_side(sigma, 0.2)
    return gaussian(side, side // 2, side // 2, sigma).astype(float)


def gaussian(side: int, x: float, y: float, sigma: float) -> np.ndarray:
    """(side, side) float32 Gaussian of unit flux about a place [pixel]."""
    pixels = np.arange(side)
    column, row = np.exp(-0.5 * ((pixels - y) / sigma) ** 2), np.exp(-0.5 * ((pixels - x) / sigma) ** 2)
    return np.asarray((np.outer(column, row) / (2 * np.pi * sigma**2)).astype(np.float32))


def calibration(zeropoint: float) -> Calibration:
    """What calibration would have found, of which only the zeropoint is known."""
    nan = float("nan")
    return Calibration(zeropoint=zeropoint, sky_adu=nan, sky_noise_adu=nan, n_stars=0, n_psf_star=0, n_matches=0,
                       astrom_offset_mean=nan, astrom_offset_std=nan, zeropoint_err=nan, variance_factor=1.0,
                       noise_correlation=0.0)


def _log(catalog: Catalog, visit: Visit, detector: int, wcs: Wcs, shape: tuple[int, int], sigma: float,
         zeropoint: float) -> np.ndarray:
    row = empty(EXPOSURE_LOG, 1)
    facts = {"visit": visit.visit, "detector": detector, "band": visit.band.encode(), "ra": visit.ra, "dec": visit.dec,
             "midpointMjdTai": visit.mjd_tai, "exposure_s": visit.exposure_s, "nx": shape[1], "ny": shape[0],
             "airmass": visit.airmass, "fidelity": b"catalogue", "n_detected": len(catalog.sources),
             "usable_px": shape[0] * shape[1], "shutter_close_mjd_tai": visit.shutter_close_mjd_tai,
             "fwhm_arcsec": 2.3548 * sigma * wcs.scale_arcsec, "psf_sigma_px": sigma, "zeropoint": zeropoint,
             "n_psf_star": 0}
    for name, value in facts.items():
        row[name] = value
    return row
