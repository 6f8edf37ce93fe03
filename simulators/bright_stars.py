"""What bright stars leave where they are not: ghosts, diffraction spikes, crosstalk, and ends of bleed trails.

Ghosts and spikes are light and come before the noise; crosstalk and bleed residuals come of charge, after it. Nothing
is masked: these are what a real calibration leaves, and each has its row of TRUTH_PIXELS.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.exposure import Visit
from simulators import camera
from simulators.almanac import zenith_angle
from simulators.config import SimulationConfig
from simulators.kernels.lines import add_ring
from simulators.psf import RADIUS, TruePsf
from simulators.streams import stream

Row = tuple[str, float, float, float, float, float, float]     # kind, x0, y0, x1, y1, width, peak [e]

# Ghosts of double reflections: place over the star's place from the optical axis, outer radius [pixel], share of
# `ghosts`. Assumed: one near the mirrored place, one wider on the star's own side.
GHOSTS: Final = ((-0.85, 180.0, 0.7), (0.6, 420.0, 0.3))
GHOST_HOLE: Final = 0.61            # the pupil's obscuration
GHOST_ARCS: Final = 16              # segments that a ghost's outline is told by
FAINTEST: Final = 0.3               # of the sky's noise in a pixel: fainter ghosts and spikes are not drawn
SPIKE_CORE_PX: Final = 25.0         # brightness along a spike falls as (core / (core + r))^2
AMPLIFIERS: Final = (2, 8)          # rows and columns of amplifiers
NEIGHBOURS: Final = 2               # columns over which crosstalk is felt
CROSSTALK_FROM: Final = 0.1         # of the full well: what is fainter leaves nothing to see
RESIDUAL_LENGTH_PX: Final = 300.0   # over which a bleed residual fades


@dataclass(frozen=True, slots=True)
class Stars:
    """Point sources about a detector."""

    x: np.ndarray               # [pixel], also off the detector
    y: np.ndarray
    flux: np.ndarray            # [e]


def add_ghosts(image: np.ndarray, stars: Stars, config: SimulationConfig, detector: int, noise: float) -> list[Row]:
    """Add rings out of focus of stars that are bright enough, in place; a row for each arc of their outline."""
    axis_x, axis_y = _axis(config, detector)
    rows: list[Row] = []
    for place, radius, share in GHOSTS:
        area = np.pi * radius**2 * (1.0 - GHOST_HOLE**2)
        level = stars.flux * config.artifacts.ghosts * share / area
        for k in np.flatnonzero(level > FAINTEST * noise):
            x = axis_x + place * (stars.x[k] - axis_x)
            y = axis_y + place * (stars.y[k] - axis_y)
            if not (-radius < x < image.shape[1] + radius and -radius < y < image.shape[0] + radius):
                continue
            add_ring(image, float(x), float(y), GHOST_HOLE * radius, radius, float(level[k]), 0.06 * radius)
            rows += _arcs(float(x), float(y), radius, float(level[k]), image.shape)
    return rows


def _axis(config: SimulationConfig, detector: int) -> tuple[float, float]:
    """Pixel of the optical axis."""
    c = config.camera
    ox, oy = camera.offset_px(c, detector)
    return (c.nx - 1) / 2 - ox, (c.ny - 1) / 2 - oy


def _arcs(x: float, y: float, radius: float, level: float, shape: tuple[int, ...]) -> list[Row]:
    middle, width = radius * (1.0 + GHOST_HOLE) / 2.0, radius * (1.0 - GHOST_HOLE) * 1.1
    angle = np.linspace(0.0, 2 * np.pi, GHOST_ARCS + 1)
    px, py = x + middle * np.cos(angle), y + middle * np.sin(angle)
    near = (px > -width) & (px < shape[1] + width) & (py > -width) & (py < shape[0] + width)
    return [("ghost", float(px[k]), float(py[k]), float(px[k + 1]), float(py[k + 1]), width, level)
            for k in range(GHOST_ARCS) if near[k] or near[k + 1]]


def add_spikes(image: np.ndarray, stars: Stars, config: SimulationConfig, visit: Visit, psf: TruePsf,
               noise: float) -> list[Row]:
    """Add four spikes to stars that are bright enough, in place.

    The spider stands still in the telescope: the spikes lie at 45 deg to the vertical and turn on the sky with the hour
    angle, so those of a template are elsewhere.
    """
    upright = np.radians(90.0 + zenith_angle(visit.ra, visit.dec, visit.mjd_tai) - visit.rotation)
    peak = psf.profile.radial[0] * 3.0          # of a line of unit flux per pixel: a PSF is about three pixels wide
    per_px = stars.flux * config.artifacts.spikes / 4.0 / SPIKE_CORE_PX      # at the star
    rows: list[Row] = []
    for k in np.flatnonzero(per_px * peak > 4.0 * FAINTEST * noise):
        length = min(SPIKE_CORE_PX * (np.sqrt(per_px[k] * peak / (FAINTEST * noise)) - 1.0), 3.0 * max(image.shape))
        r = np.arange(0.5, length, 1.0)
        share = per_px[k] * (SPIKE_CORE_PX / (SPIKE_CORE_PX + r)) ** 2
        for arm in range(4):
            angle = upright + np.pi / 4 + arm * np.pi / 2
            x, y = stars.x[k] + r * np.cos(angle), stars.y[k] + r * np.sin(angle)
            near = (x > -20) & (x < image.shape[1] + 20) & (y > -20) & (y < image.shape[0] + 20)
            if not near.any():
                continue
            psf.draw(image, x[near], y[near], share[near], np.full(int(near.sum()), min(15.0, RADIUS)))
            rows.append(("spike", float(x[near][0]), float(y[near][0]), float(x[near][-1]), float(y[near][-1]), 8.0,
                         float(per_px[k] * peak)))
    return rows


def add_crosstalk(image: np.ndarray, config: SimulationConfig, detector: int, seed: int, saturated: list[Row],
                  noise: float) -> list[Row]:
    """Add what correction left of bright pixels in neighbouring amplifiers, in place.

    Amplifiers stand in AMPLIFIERS rows and columns; each talks to those up to NEIGHBOURS columns away in its row, at
    the same place within them, with a coefficient of either sign that belongs to the detector.
    """
    rms, full = config.artifacts.crosstalk, config.camera.full_well
    columns = AMPLIFIERS[1]
    coefficients = rms * stream(seed, "crosstalk", 0, detector).normal(size=(AMPLIFIERS[0], columns, columns))
    width, height = image.shape[1] // columns, image.shape[0] // AMPLIFIERS[0]
    y, x = np.nonzero(image > CROSSTALK_FROM * full)
    value = image[y, x]
    column, row = np.minimum(x // width, columns - 1), np.minimum(y // height, AMPLIFIERS[0] - 1)
    rows: list[Row] = []
    for step in range(-NEIGHBOURS, NEIGHBOURS + 1):
        to = column + step
        inside = (to >= 0) & (to < columns) & (x + step * width >= 0) & (x + step * width < image.shape[1])
        if step == 0 or not inside.any():
            continue
        coefficient = coefficients[row[inside], column[inside], to[inside]]
        np.add.at(image, (y[inside], x[inside] + step * width), coefficient * value[inside])
        rows += _crosstalk_rows(saturated, step, width, height, coefficients, full, noise, image.shape)
    return rows


def _crosstalk_rows(saturated: list[Row], step: int, width: int, height: int, coefficients: np.ndarray, full: float,
                    noise: float, shape: tuple[int, ...]) -> list[Row]:
    rows: list[Row] = []
    for _, x0, y0, x1, y1, wide, _ in saturated:
        column, row = int((x0 + x1) / 2) // width, int((y0 + y1) / 2) // height
        to = column + step
        if not (0 <= to < coefficients.shape[1] and 0 <= column < coefficients.shape[1]):
            continue
        peak = float(coefficients[min(row, AMPLIFIERS[0] - 1), column, to] * full)
        x = (x0 + x1) / 2 + step * width
        if abs(peak) > 0.5 * noise and 0 <= x < shape[1]:
            rows.append(("crosstalk", x, y0, x, y1, wide, peak))
    return rows


def add_bleed_residuals(image: np.ndarray, saturated: list[Row], config: SimulationConfig, level: float) -> list[Row]:
    """Change the columns that bled by a few percent of the sky beyond where they are masked, in place.

    Above the star the columns are high (deferred charge), below it low (an ITL sensor's dip).
    """
    change, ny = config.artifacts.bleed_residual * level, image.shape[0]
    rows: list[Row] = []
    for kind, x0, y0, x1, y1, _, _ in saturated:
        if kind != "bleed":
            continue
        columns = slice(max(int(x0) - 1, 0), int(x1) + 2)
        for first, last, sign in ((int(y1) + 1, ny, 1.0), (0, int(y0), -1.0)):
            if first >= last:
                continue
            y = np.arange(first, last)
            away = y - y1 if sign > 0 else y0 - y
            image[first:last, columns] += sign * change * np.exp(-away / RESIDUAL_LENGTH_PX)[:, None]
            end = min(last - 1, first + 3 * RESIDUAL_LENGTH_PX) if sign > 0 else max(0, last - 3 * RESIDUAL_LENGTH_PX)
            middle = (x0 + x1) / 2
            rows.append(("bleed_residual", middle, float(first if sign > 0 else last - 1), middle, float(end),
                         float(x1 - x0 + 3), sign * change))
    return rows
