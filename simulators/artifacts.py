"""What an exposure holds that is not sky: each artifact with its row of TRUTH_PIXELS.

    expected electrons -> ghosts, spikes, satellite trails, aircraft, glints -> Poisson -> cosmic rays -> bleeding
    -> crosstalk, bleed residuals -> read noise -> flat -> defects

Defects and crosstalk depend on the detector alone; everything else on the visit as well.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.ndimage import find_objects, label

from schemas import mask as planes
from schemas.exposure import Visit
from schemas.measures import TRUTH_PIXELS, empty
from schemas.wcs import Wcs
from simulators import bright_stars, events
from simulators.bright_stars import Row, Stars
from simulators.causes import Ledger
from simulators.config import SimulationConfig
from simulators.kernels.detector import bleed
from simulators.kernels.lines import add_line
from simulators.passing import Track, aircraft_tracks, cross_section, satellite_tracks
from simulators.psf import TruePsf
from simulators.streams import stream

CCD_PX: Final = 4072 * 4000
SILICON_E_PER_UM: Final = 80.0      # electron-hole pairs of a minimum-ionising particle
PIXEL_UM: Final = 10.0
THICKNESS_PX: Final = 10.0          # 100 um of fully depleted silicon


def record(expected: np.ndarray, config: SimulationConfig, visit: Visit, detector: int, seed: int, wcs: Wcs,
           psf: TruePsf, zeropoint: float, stars: Stars | None = None, ledger: Ledger | None = None
           ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(electrons, mask, TRUTH_PIXELS) of an exposure of given expected electrons; `zeropoint` is of 1 electron.

    `stars` are those that may leave ghosts and spikes; `ledger` is told what each cause adds.
    """
    c, level = config.camera, float(np.median(expected))
    ledger = Ledger() if ledger is None else ledger
    image, rows = collect(expected, config, visit, detector, seed, wcs, psf, zeropoint, stars=stars, ledger=ledger)
    over = image > c.full_well
    if config.artifacts.bleeding:
        bleed(image, c.full_well)
    np.minimum(image, c.full_well, out=image)
    ledger.note("saturation", image)
    saturated = image >= c.full_well
    mask = np.where(saturated, np.int32(planes.SAT), np.int32(0))
    groups = saturation_rows(over, saturated)
    rows += groups + _add_charge_left(image, config, detector, seed, groups, level, ledger)
    image += c.read_noise * stream(seed, "read noise", visit.visit, detector).standard_normal(image.shape, np.float32)
    ledger.note("read noise", image)
    rows += _flattened(image, config, visit, detector, seed, level, ledger)
    rows += _add_defects(image, mask, config, detector, seed, level)
    ledger.note("defect", image)
    rows += event_rows(config, visit, detector, seed, wcs, expected.shape)
    return image, mask, table(rows, visit, detector, c.gain)


def collect(expected: np.ndarray, config: SimulationConfig, visit: Visit, detector: int, seed: int, wcs: Wcs,
            psf: TruePsf, zeropoint: float, *, response: np.ndarray | None = None, dark: np.ndarray | None = None,
            stars: Stars | None = None, ledger: Ledger | None = None) -> tuple[np.ndarray, list[Row]]:
    """(electrons, rows) that collect in the pixels: what bright stars and what crosses the sky add to what is expected,
    Poisson noise, cosmic rays. Light is multiplied by `response`, and `dark` electrons are added, where given.
    """
    ledger = Ledger() if ledger is None else ledger
    ledger.start(expected)
    scene, rows = _with_bright_stars(expected, config, visit, detector, psf, stars, ledger)
    scene, streaks = _with_streaks(scene, config, visit, seed, wcs, psf, zeropoint, ledger)
    scene, glints = _with_glints(scene, config, visit, detector, seed, psf)
    ledger.note("glint", scene)
    scene = np.maximum(scene, 0.0)
    if response is not None:         # both are positive
        scene *= response
    if dark is not None:
        scene += dark
    image = _counted(scene, stream(seed, "photons", visit.visit, detector))
    ledger.note("photon noise", image)
    rows += streaks + glints + _add_cosmic_rays(image, config, visit, detector, seed)
    ledger.note("cosmic_ray", image)
    return image, rows


def _counted(expected: np.ndarray, rng: np.random.Generator, rows: int = 256) -> np.ndarray:
    """Poisson counts of what is expected, in its place: a strip at a time, whose draws are those of the whole."""
    for first in range(0, len(expected), rows):
        expected[first:first + rows] = rng.poisson(expected[first:first + rows])
    return expected


def _with_bright_stars(scene: np.ndarray, config: SimulationConfig, visit: Visit, detector: int, psf: TruePsf,
                       stars: Stars | None, ledger: Ledger) -> tuple[np.ndarray, list[Row]]:
    c = config.artifacts
    if stars is None or not (c.ghosts or c.spikes):
        return scene, []
    out, rows = scene.copy(), []
    noise = float(np.sqrt(np.median(scene) + config.camera.read_noise**2))
    if c.ghosts:
        rows += bright_stars.add_ghosts(out, stars, config, detector, noise)
        ledger.note("ghost", out)
    if c.spikes:
        rows += bright_stars.add_spikes(out, stars, config, visit, psf, noise)
        ledger.note("spike", out)
    return out, rows


def _add_charge_left(image: np.ndarray, config: SimulationConfig, detector: int, seed: int, groups: list[Row],
                     level: float, ledger: Ledger) -> list[Row]:
    """Crosstalk and what bleeding left, in place."""
    c, rows = config.artifacts, []
    if c.crosstalk:
        noise = float(np.sqrt(max(level, 0.0) + config.camera.read_noise**2))
        rows += bright_stars.add_crosstalk(image, config, detector, seed, groups, noise)
        ledger.note("crosstalk", image)
    if c.bleed_residual:
        rows += bright_stars.add_bleed_residuals(image, groups, config, level)
        ledger.note("bleed_residual", image)
    return rows


def _flattened(image: np.ndarray, config: SimulationConfig, visit: Visit, detector: int, seed: int, level: float,
               ledger: Ledger) -> list[Row]:
    """Multiply by the error of the flat, in place."""
    if not config.artifacts.bad_flats:
        return []
    factor, rows = events.bad_flat(config, visit, detector, seed)
    if rows:
        image *= factor
        ledger.note("bad_flat", image)
    return [(*row[:6], row[6] * level) for row in rows]


def event_rows(config: SimulationConfig, visit: Visit, detector: int, seed: int, wcs: Wcs,
                shape: tuple[int, ...]) -> list[Row]:
    """Rows of what changes no pixel here and yet makes false detections: a bent WCS, the template's end."""
    rows: list[Row] = []
    if events.is_bent(config, visit, detector, seed):
        rows.append(("bad_wcs", 0.0, shape[0] / 2, shape[1] - 1.0, shape[0] / 2, float(shape[0]), np.nan))
    line = events.template_edge(config, seed, wcs)
    clipped = None if line is None else _clip(*line, shape)
    if clipped is not None:
        rows.append(("template_edge", *clipped, events.EDGE_WIDTH_PX, np.nan))
    return rows


def table(rows: list[Row], visit: Visit, detector: int, gain: float) -> np.ndarray:
    """TRUTH_PIXELS of rows; their peaks are turned to ADU."""
    out = empty(TRUTH_PIXELS, len(rows))
    out["visit"], out["detector"], out["truthId"] = visit.visit, detector, np.arange(len(rows))
    for k, (kind, x0, y0, x1, y1, width, peak) in enumerate(rows):
        out[k] = (visit.visit, detector, k, kind.encode(), x0, y0, x1, y1, width, peak / gain)
    return out


# --- satellites and aircraft -----------------------------------------------------------------------------------------

def _with_streaks(expected: np.ndarray, config: SimulationConfig, visit: Visit, seed: int, wcs: Wcs, psf: TruePsf,
                  zeropoint: float, ledger: Ledger) -> tuple[np.ndarray, list[Row]]:
    scene, rows = expected, []
    for kind, tracks in (("satellite", satellite_tracks(config, visit, seed)),
                         ("aircraft", aircraft_tracks(config, visit, seed))):
        if tracks:
            scene = scene.copy()
            rows += _add_tracks(scene, tracks, wcs, psf, zeropoint)
            ledger.note(kind, scene)
    return scene, rows


def _add_tracks(image: np.ndarray, tracks: Sequence[Track], wcs: Wcs, psf: TruePsf, zeropoint: float) -> list[Row]:
    """Add trails, in place; a row for each that crosses the detector."""
    rows: list[Row] = []
    scale, straight = wcs.scale_arcsec, Wcs(wcs.crpix, wcs.crval, wcs.cd)    # ends lie where no distortion is known
    for track in tracks:
        x, y = straight.pixels(np.array(track.ra), np.array(track.dec))
        line = float(x[0]), float(y[0]), float(x[1]), float(y[1])
        peak = 10 ** (0.4 * (zeropoint - track.surface_mag)) * scale**2
        clipped = _clip(*line, image.shape)
        if clipped is not None and not track.range_km:
            _add_band(image, clipped, track.fwhm_arcsec / scale / 2.3548, peak)
        elif track.range_km:
            table, step = cross_section(track, psf, scale)
            add_line(image, *line, peak, table, step, track.period_arcsec / scale, 0.25)
        if clipped is not None:
            rows.append((track.kind, *clipped, track.fwhm_arcsec / scale, peak))
    return rows


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


__all__ = ["CCD_PX", "Row", "Track", "record", "satellite_tracks"]
