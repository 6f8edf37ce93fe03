"""Table `star`: the true static stars of an exposure, and what calibration found of them; nothing flows back."""

from typing import Final

import numpy as np
from scipy.spatial import cKDTree

from pipeline.images import Calibrated
from schemas import mask
from schemas.exposure import AB_ZEROPOINT_NJY, Visit
from schemas.measures import STAR_TRUTH, empty
from simulators.observe import Exposed, Facts
from simulators.psf import STEP
from simulators.sky import Sky
from simulators.stars import band_index

MIN_SNR: Final = 5.0
RADIUS_PX: Final = 2.0             # five sigma of a centroid at S/N 7; few galaxies lie so near by chance
MAX_CONTAMINATION: Final = 0.5     # of an isolated star: others' light under its PSF, in units of its error


def stars(sky: Sky, visit: Visit, exposed: Exposed, found: Calibrated | None) -> np.ndarray:
    """STAR_TRUTH rows of an exposure; none is found where calibration failed."""
    rows, x, y, ra, dec = _true(sky, visit, exposed)
    return rows if found is None else _matched(rows, x, y, ra, dec, found)


def _true(sky: Sky, visit: Visit, exposed: Exposed) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray,
                                                             np.ndarray]:
    """The rows without what was found, with their pixel and sky positions."""
    facts, exposure = exposed.facts, exposed.exposure
    flux = sky.stars["flux"][:, band_index(visit.band)]
    ra, dec = sky.stars_at(visit.mjd_tai)
    x, y = facts.wcs.pixels(ra, dec)
    ny, nx = exposure.shape
    error = flux_error(flux, facts, facts.gain)
    use = np.flatnonzero((x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5) & (flux >= MIN_SNR * error))
    rows = empty(STAR_TRUTH, len(use))
    rows["visit"], rows["detector"], rows["band"] = visit.visit, exposure.detector, visit.band.encode()
    rows["starId"], rows["flux"], rows["snr"] = sky.stars["id"][use], flux[use], flux[use] / error[use]
    rows["judged"] = _clear(exposed.mask, x[use], y[use])
    light = contamination(x[use], y[use], *_everything(sky, visit, facts), facts) - flux[use]
    rows["isolated"] = light < MAX_CONTAMINATION * error[use]
    return rows, x[use], y[use], ra[use], dec[use]


def flux_error(flux: np.ndarray, facts: Facts, gain: float) -> np.ndarray:
    """Smallest error [nJy] of a star's flux with its own photons and the sky's noise: err^-2 = sum P^2 / variance."""
    psf = facts.psf_at((facts.psf.shape[1] - 1) / 2, (facts.psf.shape[0] - 1) / 2).ravel()
    electrons_per_njy = 10 ** (0.4 * (facts.zeropoint - AB_ZEROPOINT_NJY)) * gain
    grid = np.geomspace(1.0, 1e9, 91)
    information = [np.sum(psf**2 / (facts.noise_njy**2 + f * psf / electrons_per_njy)) for f in grid]
    return np.asarray(np.exp(np.interp(np.log(np.maximum(flux, 1.0)), np.log(grid), -0.5 * np.log(information))))


def contamination(x: np.ndarray, y: np.ndarray, other_x: np.ndarray, other_y: np.ndarray, flux: np.ndarray,
                  facts: Facts) -> np.ndarray:
    """(n,) light [nJy] that a matched filter at positions collects from sources, all taken for points."""
    area = facts.psf.effective_area
    sigma = np.sqrt(area / (4 * np.pi))
    faintest = 0.02 * facts.noise_njy / np.sqrt(area)
    reach = facts.psf.radius(flux, faintest, smallest=6.0 * sigma)
    near = cKDTree(np.column_stack([x, y])).query_ball_point(np.column_stack([other_x, other_y]), reach) \
        if len(x) else []
    to = np.array([i for here in near for i in here], np.intp)
    of = np.repeat(np.arange(len(flux)), [len(here) for here in near]) if len(x) else np.zeros(0, np.intp)
    gap = np.hypot(x[to] - other_x[of], y[to] - other_y[of])
    radial = facts.psf.profile.radial
    wings = np.interp(gap, np.arange(len(radial)) * STEP, radial) * area
    seen = np.maximum(np.exp(-gap**2 / (4 * sigma**2)), np.where(gap > 2 * sigma, wings, 0.0))
    return np.bincount(to, weights=flux[of] * seen, minlength=len(x))


def _everything(sky: Sky, visit: Visit, facts: Facts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel positions and fluxes of all that shines near the detector."""
    band, points = band_index(visit.band), sky.points(visit)
    star_ra, star_dec = sky.stars_at(visit.mjd_tai)
    ra = np.concatenate([star_ra, sky.galaxies["ra"], points["ra"]])
    dec = np.concatenate([star_dec, sky.galaxies["dec"], points["dec"]])
    flux = np.concatenate([sky.stars["flux"][:, band], sky.galaxies["flux"][:, band], points["flux"]])
    x, y = facts.wcs.pixels(ra, dec)
    ny, nx = facts.psf.shape
    near = np.isfinite(x + y) & (x > -400) & (x < nx + 400) & (y > -400) & (y < ny + 400) & (flux > 0)
    return x[near], y[near], flux[near]


def _clear(planes: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether no plane of the input lies within a pixel of positions."""
    bits = np.pad((planes & mask.INPUT) != 0, 1)
    i, j = np.rint(y).astype(int) + 1, np.rint(x).astype(int) + 1
    return np.asarray(~np.any([bits[i + dy, j + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)], axis=0))


def _matched(rows: np.ndarray, x: np.ndarray, y: np.ndarray, ra: np.ndarray, dec: np.ndarray,
             found: Calibrated) -> np.ndarray:
    """The rows with their mutually nearest calibrated stars."""
    out, measured = rows.copy(), found.stars
    if not len(rows) or not len(measured):
        return out
    here, there = np.column_stack([x, y]), np.column_stack([measured["x"], measured["y"]])
    gap, nearest = cKDTree(there).query(here, distance_upper_bound=RADIUS_PX)
    _, back = cKDTree(here).query(there)
    to = np.flatnonzero(np.isfinite(gap))
    to = to[back[nearest[to]] == to]
    star = measured[nearest[to]]
    found_ra, found_dec = found.wcs.sky(star["x"], star["y"])
    out["found"][to], out["psfFlux"][to], out["psfFluxErr"][to] = True, star["flux"], star["fluxErr"]
    out["dx_arcsec"][to] = ((found_ra - ra[to] + 180.0) % 360.0 - 180.0) * np.cos(np.radians(dec[to])) * 3600
    out["dy_arcsec"][to] = (found_dec - dec[to]) * 3600
    error = np.hypot(star["xErr"], star["yErr"]) / np.sqrt(2.0)
    out["position_err_arcsec"][to] = error * found.wcs.scale_arcsec
    return out
