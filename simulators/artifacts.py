"""What an exposure holds that is not sky: each artifact with its row of TRUTH_PIXELS.

    expected electrons -> satellite trails, glints -> Poisson -> cosmic rays -> bleeding -> read noise -> defects

Defects depend on the detector alone; everything else on the visit as well.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.ndimage import find_objects, label

from schemas import mask as planes
from schemas.exposure import Visit
from schemas.measures import TRUTH_PIXELS, empty
from schemas.wcs import Wcs
from simulators.config import SimulationConfig
from simulators.kernels.detector import bleed
from simulators.psf import TruePsf
from simulators.streams import stream

CCD_PX: Final = 4072 * 4000
SILICON_E_PER_UM: Final = 80.0      # electron-hole pairs of a minimum-ionising particle
PIXEL_UM: Final = 10.0
THICKNESS_PX: Final = 10.0          # 100 um of fully depleted silicon


@dataclass(frozen=True, slots=True)
class Track:
    """A satellite's trail as a line on the sky, longer than the detector."""

    ra: tuple[float, float]         # ends [deg]
    dec: tuple[float, float]
    surface_mag: float              # [mag/arcsec^2] at the middle of the trail
    fwhm_arcsec: float
    catalogued: bool                # known to the allow-list service


def record(expected: np.ndarray, config: SimulationConfig, visit: Visit, detector: int, seed: int, wcs: Wcs,
           psf: TruePsf, zeropoint: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(electrons, mask, TRUTH_PIXELS) of an exposure of given expected electrons; `zeropoint` is of 1 electron."""
    c = config.camera
    image, rows = collect(expected, config, visit, detector, seed, wcs, psf, zeropoint)
    over = image > c.full_well
    if config.artifacts.bleeding:
        bleed(image, c.full_well)
    np.minimum(image, c.full_well, out=image)
    saturated = image >= c.full_well
    image += c.read_noise * stream(seed, "read noise", visit.visit, detector).standard_normal(image.shape, np.float32)
    mask = np.where(saturated, np.int32(planes.SAT), np.int32(0))
    rows += saturation_rows(over, saturated)
    rows += _add_defects(image, mask, config, detector, seed, float(np.median(expected)))
    return image, mask, table(rows, visit, detector, c.gain)


def collect(expected: np.ndarray, config: SimulationConfig, visit: Visit, detector: int, seed: int, wcs: Wcs,
            psf: TruePsf, zeropoint: float, *, response: np.ndarray | None = None,
            dark: np.ndarray | None = None) -> tuple[np.ndarray, list["Row"]]:
    """(electrons, rows) that collect in the pixels: what crosses the sky added to what is expected, Poisson noise,
    cosmic rays. Light is multiplied by `response`, and `dark` electrons are added, where given.
    """
    scene, rows = _with_streaks(expected, config, visit, seed, wcs, zeropoint)
    scene, glints = _with_glints(scene, config, visit, detector, seed, psf)
    scene = np.maximum(scene, 0.0)
    if response is not None:         # both are positive
        scene *= response
    if dark is not None:
        scene += dark
    image = stream(seed, "photons", visit.visit, detector).poisson(scene).astype(np.float64)
    del scene
    rows += glints + _add_cosmic_rays(image, config, visit, detector, seed)
    return image, rows


Row = tuple[str, float, float, float, float, float, float]     # kind, x0, y0, x1, y1, width, peak [e]


def table(rows: list[Row], visit: Visit, detector: int, gain: float) -> np.ndarray:
    """TRUTH_PIXELS of rows; their peaks are turned to ADU."""
    out = empty(TRUTH_PIXELS, len(rows))
    out["visit"], out["detector"], out["truthId"] = visit.visit, detector, np.arange(len(rows))
    for k, (kind, x0, y0, x1, y1, width, peak) in enumerate(rows):
        out[k] = (visit.visit, detector, k, kind.encode(), x0, y0, x1, y1, width, peak / gain)
    return out


# --- satellites ------------------------------------------------------------------------------------------------------

def satellite_tracks(config: SimulationConfig, visit: Visit, seed: int) -> list[Track]:
    """Trails that cross the field of a visit; they come from the visit alone, so all detectors see the same."""
    rng = stream(seed, "satellites", visit.visit)
    c = config.artifacts
    if rng.uniform() >= c.streaks:
        return []
    camera = config.camera
    reach = 0.35 * min(camera.nx, camera.ny) * camera.scale_arcsec / 3600      # so that it crosses the central detector
    angle, offset = rng.uniform(0, np.pi), rng.uniform(-reach, reach)
    length = 3.0                                                               # [deg]
    along = np.array([-length, length])
    xi = along * np.cos(angle) - offset * np.sin(angle)
    eta = along * np.sin(angle) + offset * np.cos(angle)
    ra, dec = Wcs((0.0, 0.0), (visit.ra, visit.dec), (1.0, 0.0, 0.0, 1.0)).sky(xi, eta)
    return [Track((float(ra[0]), float(ra[1])), (float(dec[0]), float(dec[1])), float(rng.uniform(*c.streak_mag)),
                  c.streak_fwhm_arcsec, bool(rng.uniform() < c.streak_catalogued))]


def _with_streaks(expected: np.ndarray, config: SimulationConfig, visit: Visit, seed: int, wcs: Wcs,
                  zeropoint: float) -> tuple[np.ndarray, list[Row]]:
    tracks = satellite_tracks(config, visit, seed)
    if not tracks:
        return expected, []
    out, rows = expected.copy(), []
    scale = wcs.scale_arcsec
    for track in tracks:
        x, y = wcs.pixels(np.array(track.ra), np.array(track.dec))
        clipped = _clip(float(x[0]), float(y[0]), float(x[1]), float(y[1]), expected.shape)
        if clipped is None:
            continue
        sigma = track.fwhm_arcsec / scale / 2.3548
        peak = 10 ** (0.4 * (zeropoint - track.surface_mag)) * scale**2
        _add_band(out, clipped, sigma, peak)
        rows.append(("satellite", *clipped, track.fwhm_arcsec / scale, peak))
    return out, rows


def _clip(x0: float, y0: float, x1: float, y1: float,
          shape: tuple[int, ...]) -> tuple[float, float, float, float] | None:
    """The part of a line on the image, None when it misses (Liang and Barsky)."""
    start, end = 0.0, 1.0
    for p, q in ((x0 - x1, x0), (x1 - x0, shape[1] - 1 - x0), (y0 - y1, y0), (y1 - y0, shape[0] - 1 - y0)):
        if p == 0.0:
            if q < 0:
                return None
        elif p < 0:
            start = max(start, q / p)
        else:
            end = min(end, q / p)
    if start >= end:
        return None
    dx, dy = x1 - x0, y1 - y0
    return x0 + start * dx, y0 + start * dy, x0 + end * dx, y0 + end * dy


def _add_band(image: np.ndarray, line: tuple[float, float, float, float], sigma: float, peak: float) -> None:
    """Add a Gaussian band along an infinite line through two points, in place: the defocused trail."""
    x0, y0, x1, y1 = line
    length = np.hypot(x1 - x0, y1 - y0)
    nx, ny = -(y1 - y0) / length, (x1 - x0) / length
    x = np.arange(image.shape[1])
    for first in range(0, image.shape[0], 256):
        y = np.arange(first, min(first + 256, image.shape[0]))
        distance = (y[:, None] - y0) * ny + (x - x0) * nx
        image[first:first + 256] += peak * np.exp(-0.5 * (distance / sigma) ** 2)


# --- glints ----------------------------------------------------------------------------------------------------------

def _with_glints(scene: np.ndarray, config: SimulationConfig, visit: Visit, detector: int, seed: int,
                 psf: TruePsf) -> tuple[np.ndarray, list[Row]]:
    """A line of equally spaced flashes of a tumbling satellite, in some visits."""
    rng = stream(seed, "glints", visit.visit, detector)
    if rng.uniform() >= config.artifacts.glints:
        return scene, []
    ny, nx = scene.shape
    n, angle = int(rng.integers(5, 13)), rng.uniform(0, 2 * np.pi)
    step = rng.uniform(0.04, 0.08) * min(nx, ny)
    k = np.arange(n) - (n - 1) / 2
    x = rng.uniform(0.4, 0.6) * nx + k * step * np.cos(angle)
    y = rng.uniform(0.4, 0.6) * ny + k * step * np.sin(angle)
    flux = 30.0 * np.sqrt(np.median(scene) * psf.effective_area) * np.exp(0.3 * rng.normal(size=n))
    out = scene.copy()
    psf.draw(out, x, y, flux, np.full(n, 25.0))
    inside = (x > 0) & (x < nx - 1) & (y > 0) & (y < ny - 1)
    return out, [("glint", float(a), float(b), float(a), float(b), 5.0, float(f))
                 for a, b, f in zip(x[inside], y[inside], flux[inside], strict=True)]


# --- cosmic rays -----------------------------------------------------------------------------------------------------

def _add_cosmic_rays(image: np.ndarray, config: SimulationConfig, visit: Visit, detector: int, seed: int) -> list[Row]:
    """Straight tracks of muons and wandering ones of electrons, in place; the charge spreads a third of a pixel."""
    rng = stream(seed, "cosmic rays", visit.visit, detector)
    open_s = visit.exposure_s + config.cadence.readout_s
    rows: list[Row] = []
    for _ in range(rng.poisson(config.artifacts.cosmic_rays * open_s * image.size / CCD_PX)):
        x, y, charge = _track(rng, image.shape)
        landed = _deposit(image, x + 0.35 * rng.normal(size=len(x)), y + 0.35 * rng.normal(size=len(y)), charge)
        if landed > 0:
            rows.append(("cosmic_ray", float(x[0]), float(y[0]), float(x[-1]), float(y[-1]), 2.0, landed))
    return rows


def _track(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, y, electrons) of points along a track.

    A muon at zenith distance z crosses THICKNESS tan z pixels and leaves 80 e per micron of its path, with Landau-like
    fluctuations; a Compton electron stops after a random walk.
    """
    x0, y0 = rng.uniform(-0.5, shape[1] - 0.5), rng.uniform(-0.5, shape[0] - 0.5)
    direction = rng.uniform(0, 2 * np.pi)
    if rng.uniform() < 0.7:
        z = min(np.arccos(rng.uniform(0.0, 1.0) ** (1.0 / 3.0)), 1.5)          # intensity as cos^2
        across, path = THICKNESS_PX * np.tan(z), THICKNESS_PX / np.cos(z)
        n = max(8, int(4 * path))
        t = np.linspace(0.0, across, n)
        x, y = x0 + t * np.cos(direction), y0 + t * np.sin(direction)
    else:
        path = float(rng.uniform(5.0, 40.0))
        n = max(8, int(4 * path))
        heading = direction + np.cumsum(0.35 * rng.normal(size=n))
        x, y = x0 + np.cumsum(np.cos(heading)) / 4, y0 + np.cumsum(np.sin(heading)) / 4
    charge = SILICON_E_PER_UM * PIXEL_UM * path / n * np.exp(0.5 * rng.normal(size=n))
    return x, y, charge


def _deposit(image: np.ndarray, x: np.ndarray, y: np.ndarray, charge: np.ndarray) -> float:
    """Add charges to the pixels they fall in; the largest sum in one pixel."""
    ix, iy = np.round(x).astype(int), np.round(y).astype(int)
    ok = (ix >= 0) & (ix < image.shape[1]) & (iy >= 0) & (iy < image.shape[0])
    if not ok.any():
        return 0.0
    where, total = np.unique(iy[ok] * image.shape[1] + ix[ok], return_inverse=True)
    sums = np.bincount(total, charge[ok])
    image.ravel()[where] += sums
    return float(sums.max())


# --- saturation and defects ------------------------------------------------------------------------------------------

def saturation_rows(over: np.ndarray, saturated: np.ndarray) -> list[Row]:
    """A row per connected group of saturated pixels; 'bleed' where charge ran farther than it fell."""
    if not saturated.any():
        return []
    groups, _ = label(saturated, np.ones((3, 3), int))
    rows: list[Row] = []
    for ys, xs in find_objects(groups):
        spilled = saturated[ys, xs] & ~over[ys, xs]
        kind = "bleed" if spilled.sum() > 3 else "saturated"
        rows.append((kind, float(xs.start), float(ys.start), float(xs.stop - 1), float(ys.stop - 1),
                     float(xs.stop - xs.start), np.nan))
    return rows


def _add_defects(image: np.ndarray, mask: np.ndarray, config: SimulationConfig, detector: int, seed: int,
                 level: float) -> list[Row]:
    """Bad columns and pixels (masked), and a few hot pixels that no list knows, in place; the same in every visit."""
    c, rng = config.artifacts, stream(seed, "defects", 0, detector)
    ny, nx = image.shape
    share = image.size / CCD_PX
    rows: list[Row] = []
    for _ in range(rng.poisson(c.bad_columns * share)):
        x, y0, gain = int(rng.integers(nx)), int(rng.integers(-ny // 2, ny // 2)), rng.uniform(0.0, 0.7)
        image[max(y0, 0):, x] *= gain
        mask[max(y0, 0):, x] |= planes.BAD
        rows.append(("bad_column", x, max(y0, 0), x, ny - 1, 1.0, level * (gain - 1.0)))
    for known, rate in ((True, c.bad_pixels), (False, c.unknown_pixels)):
        for _ in range(rng.poisson(rate * share)):
            x, y = int(rng.integers(nx)), int(rng.integers(ny))
            charge = float(rng.uniform(2.0, 20.0) * max(level, 100.0))
            image[y, x] += charge
            if known:
                mask[y, x] |= planes.BAD
            rows.append(("bad_pixel" if known else "hot_pixel", x, y, x, y, 1.0, charge))
    return rows
