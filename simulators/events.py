"""Bad nights of calibration: a flat that was wrong, a WCS that bends, sky that the template never saw.

A bad flat and a bad WCS happen to a detector-visit; what no earlier visit saw belongs to the field.
"""

import numpy as np
from numpy.typing import NDArray

from schemas import mask as planes
from schemas.exposure import Exposure, Visit
from schemas.wcs import Wcs
from simulators import camera
from simulators.bright_stars import AMPLIFIERS, Row
from simulators.config import CameraConfig, SimulationConfig
from simulators.streams import stream

EDGE_WIDTH_PX = 60.0            # about the template's end: half a kernel and a footprint on either side


def bad_flat(config: SimulationConfig, visit: Visit, detector: int, seed: int) -> tuple[NDArray[np.float32], list[Row]]:
    """(ny, nx) factor that a wrong flat leaves, and its rows; no rows when the flat is good.

    Some amplifiers are too high or too low, and a few grains of dust have moved.
    """
    c, shape = config.artifacts, (config.camera.ny, config.camera.nx)
    rng = stream(seed, "bad flat", visit.visit, detector)
    if rng.uniform() >= c.bad_flats:
        return np.ones((1, 1), np.float32), []
    factor, rows = np.ones(shape, np.float32), []
    width, height = shape[1] // AMPLIFIERS[1], shape[0] // AMPLIFIERS[0]
    for amplifier in rng.choice(AMPLIFIERS[0] * AMPLIFIERS[1], int(rng.integers(2, 6)), replace=False).tolist():
        row, column = divmod(amplifier, AMPLIFIERS[1])
        x0, y0, error = column * width, row * height, float(c.bad_flat_rms * rng.normal())
        factor[y0:y0 + height, x0:x0 + width] *= 1.0 + error
        middle = x0 + (width - 1) / 2
        rows.append(("bad_flat", middle, float(y0), middle, float(y0 + height - 1), float(width + 6), error))
    y, x = np.mgrid[:shape[0], :shape[1]].astype(np.float32)
    for _ in range(int(rng.integers(1, 5))):
        cx, cy, radius = rng.uniform(0, shape[1]), rng.uniform(0, shape[0]), rng.uniform(20.0, 50.0)
        ring = np.exp(-0.5 * ((np.hypot(x - cx, y - cy) - radius) / 4.0) ** 2)
        factor *= 1.0 - np.float32(2.0 * c.bad_flat_rms) * ring
        x0, y0 = float(cx), float(cy)
        rows.append(("bad_flat", x0, y0, x0, y0, 2.0 * radius + 16.0, -2.0 * c.bad_flat_rms))
    return factor, rows


def is_bent(config: SimulationConfig, visit: Visit, detector: int, seed: int) -> bool:
    """Whether the WCS of a detector-visit bends."""
    return bool(stream(seed, "bad wcs", visit.visit, detector).uniform() < config.artifacts.bad_wcs)


def bent(wcs: Wcs, c: CameraConfig, by_arcsec: float, rng: np.random.Generator) -> Wcs:
    """A true WCS with second-order terms about the detector's centre, which no linear fit follows."""
    half = np.hypot(c.nx, c.ny) / 2
    ox, oy = (c.nx - 1) / 2 - wcs.crpix[0], (c.ny - 1) / 2 - wcs.crpix[1]     # the centre in the WCS's own offsets
    powers = ((2, 0), (1, 1), (0, 2))
    weights = rng.normal(size=(2, 3))
    weights *= by_arcsec / c.scale_arcsec / np.linalg.norm(weights, axis=1).max()
    terms = [_about_centre(dict(zip(powers, row / half**2, strict=True)), ox, oy) for row in weights]
    return Wcs(wcs.crpix, wcs.crval, wcs.cd, "TAN-SIP", wcs.distortion_x + terms[0], wcs.distortion_y + terms[1])


def _about_centre(terms: dict[tuple[int, int], float], ox: float, oy: float
                  ) -> tuple[tuple[int, int, int, float], ...]:
    """The polynomial sum of c (u - ox)^p (v - oy)^q in powers of u and v."""
    out: dict[tuple[int, int], float] = {}
    for (p, q), value in terms.items():
        along_u = np.polynomial.polynomial.polypow([-ox, 1.0], p) if p else np.ones(1)
        along_v = np.polynomial.polynomial.polypow([-oy, 1.0], q) if q else np.ones(1)
        for i, a in enumerate(along_u):
            for j, b in enumerate(along_v):
                out[i, j] = out.get((i, j), 0.0) + float(value * a * b)
    return tuple((i, j, 0, value) for (i, j), value in out.items())


# --- sky that no earlier visit saw -----------------------------------------------------------------------------------

def missing_line(config: SimulationConfig, seed: int) -> tuple[float, float]:
    """(angle, offset [deg]): sky whose tangent-plane offset along the angle is larger has no earlier visit."""
    share = config.cadence.history_missing
    side = 2.0 * camera.field_radius_deg(config)
    return float(stream(seed, "missing template").uniform(0, 2 * np.pi)), side * (0.5 - share)


def is_missing(config: SimulationConfig, seed: int, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Which positions no earlier visit saw."""
    if not config.cadence.history_missing:
        return np.zeros(np.shape(ra), bool)
    angle, offset = missing_line(config, seed)
    plain = Wcs((0.0, 0.0), (config.field.ra, config.field.dec), (1.0, 0.0, 0.0, 1.0))
    xi, eta = plain.pixels(ra, dec)
    return np.asarray(xi * np.cos(angle) + eta * np.sin(angle) > offset)


def without_missing(exposure: Exposure, wcs: Wcs, config: SimulationConfig, seed: int) -> Exposure:
    """An earlier exposure whose pixels beyond the line are marked BAD: no template is made of them."""
    if not config.cadence.history_missing:
        return exposure
    ny, nx = exposure.shape
    x, y = np.meshgrid(np.arange(nx, dtype=float), np.arange(ny, dtype=float))
    missing = is_missing(config, seed, *wcs.sky(x, y))
    return Exposure(exposure.visit, exposure.detector, exposure.image,
                    exposure.mask | np.where(missing, np.int32(planes.BAD), np.int32(0)), exposure.wcs, exposure.gain,
                    exposure.read_noise, exposure.saturation, exposure.wcs_error_arcsec, exposure.wcs_error_deg,
                    exposure.pedestal)


def template_edge(config: SimulationConfig, seed: int, wcs: Wcs) -> tuple[float, float, float, float] | None:
    """The line where the template ends, in pixels, far beyond the detector on both sides; None without one."""
    if not config.cadence.history_missing:
        return None
    angle, offset = missing_line(config, seed)
    along = np.array([-3.0, 3.0])
    xi = offset * np.cos(angle) - along * np.sin(angle)
    eta = offset * np.sin(angle) + along * np.cos(angle)
    straight = Wcs(wcs.crpix, wcs.crval, wcs.cd)
    x, y = straight.pixels(*camera.from_plane(config.field.ra, config.field.dec, xi, eta))
    return float(x[0]), float(y[0]), float(x[1]), float(y[1])
