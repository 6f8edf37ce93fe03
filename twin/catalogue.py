"""A detector-visit at catalogue fidelity, dressed as what the pixel half yields.

Stamps are modelled, not measured: the PSF times the flux on a flat variance.
"""

import numpy as np

from pipeline.images import Calibration, Cutouts
from pipeline.prompt import Measured, footprint_box
from schemas.exposure import AB_ZEROPOINT_NJY, Visit
from schemas.measures import EXPOSURE_LOG, empty
from schemas.wcs import Wcs
from simulators.catalogs import Catalog

SIDES = (30, 102)     # of cutouts [pixel] (ap_association)
PSF_SIDE = 41


def measured_from_catalog(catalog: Catalog, visit: Visit, detector: int, wcs: Wcs, shape: tuple[int, int], *,
                          psf_sigma_px: float, zeropoint: float = AB_ZEROPOINT_NJY) -> Measured:
    """What enters the catalogue half; `calibration` holds the conditions as they were drawn."""
    sources = catalog.sources
    fluxes = (sources["scienceFlux"], sources["templateFlux"], sources["psfFlux"])
    variance = catalog.pixels.flux_err**2 / (4 * np.pi * psf_sigma_px**2)     # of a pixel: error^2 x sum of PSF^2
    science, template, difference = (_stamps(sources, flux, psf_sigma_px, variance) for flux in fluxes)
    return Measured(visit=visit, detector=detector, sources=sources, wcs=wcs, shape=shape,
                    box=footprint_box(wcs, shape), calibration=calibration(zeropoint), science=science,
                    template=template, difference=difference, pixels=catalog.pixels,
                    log=_log(catalog, visit, detector, wcs, shape, psf_sigma_px, zeropoint))


def _stamps(sources: np.ndarray, flux: np.ndarray, sigma: float, variance: float) -> Cutouts:
    sides = np.clip(sources["bboxSize"], *SIDES).astype(int)
    images = []
    for side, x, y, f in zip(sides.tolist(), sources["x"], sources["y"], np.nan_to_num(flux), strict=True):
        images.append(np.float32(f) * gaussian(side, x % 1.0 + side // 2, y % 1.0 + side // 2, sigma))
    flat = {side: np.full((side, side), variance, np.float32) for side in np.unique(sides).tolist()}
    return Cutouts(tuple(images), tuple(flat[side] for side in sides.tolist()), psf_stamp(sigma))


def psf_stamp(sigma: float) -> np.ndarray:
    """The PSF as cutouts hold it."""
    return gaussian(PSF_SIDE, PSF_SIDE // 2, PSF_SIDE // 2, sigma).astype(float)


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
