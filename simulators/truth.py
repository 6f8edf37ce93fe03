"""TRUTH rows: what differs from the template in one detector-visit, in true pixel coordinates."""

from typing import Final

import numpy as np
from scipy.spatial import cKDTree

from schemas.exposure import AB_ZEROPOINT_NJY, Visit, magnitudes
from schemas.measures import TRUTH, empty
from schemas.wcs import Wcs
from simulators.sky import Sky
from simulators.stars import band_index

ISOLATION_FWHM: Final = 4.0


def truth_rows(sky: Sky, visit: Visit, detector: int, points: np.ndarray, template_flux: np.ndarray, wcs: Wcs,
               fwhm_px: float, *, mask: np.ndarray | None = None, surface_njy: np.ndarray | None = None) -> np.ndarray:
    """TRUTH of the POINT rows whose position lies on the detector.

    `mask` is the exposure's; `surface_njy` the galaxies' surface brightness [nJy/arcsec^2] after seeing; without
    them, where no pixels are made, `input_mask` is 0 and `host_sb` NaN. A moved star stands at the middle
    of its two lobes, with `flux` and `science_flux` of the new one and `template_flux` of the old; `trail_angle` is
    then the direction from the old lobe to the new.
    """
    ny, nx = sky.config.camera.ny, sky.config.camera.nx
    x, y = wcs.pixels(points["ra"], points["dec"])
    before_x, before_y = wcs.pixels(points["ra_before"], points["dec_before"])
    star = points["kind"] == b"moved_star"
    separation = np.where(star, np.hypot(x - before_x, y - before_y), np.nan)
    direction = _line_angle(x - before_x, y - before_y)
    x, y = np.where(star, (x + before_x) / 2, x), np.where(star, (y + before_y) / 2, y)
    moving = points["kind"] == b"asteroid"
    x0, y0 = wcs.pixels(points["ra_start"], points["dec_start"])
    x1, y1 = wcs.pixels(points["ra_end"], points["dec_end"])
    inside = np.isfinite(x + y) & (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5)
    out = empty(TRUTH, int(inside.sum()))
    rows = points[inside]
    out["visit"], out["detector"] = visit.visit, detector
    out["truthId"], out["kind"] = rows["id"], rows["kind"]
    out["x"], out["y"] = x[inside], y[inside]
    out["ra"], out["dec"] = wcs.sky(out["x"], out["y"])
    out["science_flux"], out["template_flux"] = rows["flux"], template_flux[inside]
    out["flux"] = rows["flux"] - np.where(star[inside], 0.0, template_flux[inside])
    out["trail_length"] = np.where(moving, np.hypot(x1 - x0, y1 - y0), 0.0)[inside]
    out["trail_angle"] = np.where(moving, _line_angle(x1 - x0, y1 - y0), np.where(star, direction, 0.0))[inside]
    out["separation_px"] = separation[inside]
    out["ssObjectId"], out["eph_err_arcsec"] = np.maximum(rows["ssObjectId"], 0), rows["eph_err_arcsec"]
    out["class"], out["weight"] = rows["class"], rows["weight"]
    _hosts(out, sky, rows, visit, surface_njy)
    out["input_mask"] = 0 if mask is None else _mask_under(mask, out["x"], out["y"])
    out["isolated"] = _isolated(out["x"], out["y"], ISOLATION_FWHM * fwhm_px)
    return out


def _line_angle(dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Direction of a line [deg from +x towards +y] in (-90, 90]."""
    angle = np.degrees(np.arctan2(dy, dx))
    return np.asarray(90.0 - (90.0 - angle) % 180.0)


def _hosts(out: np.ndarray, sky: Sky, rows: np.ndarray, visit: Visit, surface_njy: np.ndarray | None) -> None:
    """Fill the host columns, in place; the surface brightness is that of all galaxies at the position."""
    hosted = rows["host"] >= 0
    out["host_sep_arcsec"] = np.where(hosted, rows["host_sep"], np.nan)
    host = sky.galaxies["total"][np.maximum(rows["host"], 0), band_index(visit.band)] if len(sky.galaxies) else 1.0
    out["host_mag"] = np.where(hosted, magnitudes(host), np.nan)
    if surface_njy is None:
        return
    at = surface_njy[np.round(out["y"]).astype(int), np.round(out["x"]).astype(int)]
    out["host_sb"] = np.where(hosted, AB_ZEROPOINT_NJY - 2.5 * np.log10(np.maximum(at, 1e-3)), np.nan)


def _mask_under(mask: np.ndarray, x: np.ndarray, y: np.ndarray, reach: int = 1) -> np.ndarray:
    """Mask planes set within `reach` pixels of positions."""
    ny, nx = mask.shape
    ix, iy = np.round(x).astype(int), np.round(y).astype(int)
    bits = np.zeros(len(ix), np.int32)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            bits |= mask[np.clip(iy + dy, 0, ny - 1), np.clip(ix + dx, 0, nx - 1)]
    return bits


def _isolated(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Which positions have no other within a radius."""
    if len(x) < 2:
        return np.ones(len(x), bool)
    tree = cKDTree(np.stack([x, y], 1))
    return np.asarray([len(near) == 1 for near in tree.query_ball_point(tree.data, radius)])
