"""Cutouts of a detector at catalogue fidelity, rendered from truth: PSFs, trails and noise, and no image behind them.

    science = sources + noise of the science image      template = sources in it + its noise      difference: the rest

The noise is that of the catalogue: in each difference the matched filter at the source gives its psfFlux. Stamps that
overlap share no noise beside.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.cutouts import sides
from pipeline.images import Cutouts
from simulators.catalogs import Catalog
from simulators.streams import stream
from twin.catalogue import gaussian, psf_stamp

REACH: Final = 6.0             # of a point beyond a stamp, in PSF sigma
STEP: Final = 0.5              # between the points of a trail, in PSF sigma


@dataclass(frozen=True, slots=True)
class Depth:
    """The noise that stamps have."""

    template_share: float      # of the difference's variance on blank sky
    own_noise: float           # variance of a pixel per science flux in it [nJy]


def rendered(catalog: Catalog, truth: np.ndarray, truth_row: np.ndarray, depth: Depth) -> tuple[Cutouts, Cutouts,
                                                                                               Cutouts]:
    """Science, template and difference stamps of a catalogue's sources.

    Parameters
    ----------
    truth : (n,) TRUTH
        Of the detector; the first n entries of `catalog.pixels` are of these rows, the others of false detections.
    truth_row : (sources,) int
        Row of `truth` that each source is of; -1 for false detections.
    """
    pixels, sigma = catalog.pixels, catalog.pixels.field.sigma_px
    points = _points(catalog, truth, sigma)
    rng = stream(pixels.field.key, "stamps")
    blank = (pixels.noise * pixels.flux_err) ** 2 / (4 * np.pi * sigma**2)   # of a pixel: error^2 x sum of PSF^2
    stacks: list[list[np.ndarray]] = [[] for _ in range(6)]
    sources = catalog.sources
    x, y = _centres(catalog, truth, truth_row)
    for k, side in enumerate(sides(sources).tolist()):
        made = _stamp(sources[k], (float(x[k]), float(y[k])), side, points, pixels.shape, sigma, blank, depth, rng)
        for stack, plane in zip(stacks, made, strict=True):
            stack.append(plane)
    psf = psf_stamp(sigma)
    science, template, difference = (Cutouts(tuple(stacks[k]), tuple(stacks[k + 1]), psf) for k in (0, 2, 4))
    return science, template, difference


def _points(catalog: Catalog, truth: np.ndarray, sigma: float) -> np.ndarray:
    """(m, 4) x, y, science flux, template flux of all points; trails are rows of them."""
    length, angle = np.nan_to_num(truth["trail_length"]), np.radians(np.nan_to_num(truth["trail_angle"]))
    count = np.maximum(np.ceil(length / (STEP * sigma)), 1).astype(int)
    row = np.repeat(np.arange(len(truth)), count)
    place = (np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count) + 0.5) / count[row] - 0.5
    real = np.stack([truth["x"][row] + place * length[row] * np.cos(angle[row]),
                     truth["y"][row] + place * length[row] * np.sin(angle[row]),
                     np.nan_to_num(truth["science_flux"])[row] / count[row],
                     np.nan_to_num(truth["template_flux"])[row] / count[row]], axis=1)
    p, n = catalog.pixels, len(truth)
    false = np.stack([p.x[n:], p.y[n:], p.science_flux[n:], p.science_flux[n:] - p.flux[n:]], axis=1)
    return np.concatenate([real, false])


def _centres(catalog: Catalog, truth: np.ndarray, truth_row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each source's flux was measured: at its truth, where the false detection is, or on blank sky."""
    p, n, real = catalog.pixels, len(truth), truth_row >= 0
    x, y = catalog.sources["x"].copy(), catalog.sources["y"].copy()
    x[real], y[real] = truth["x"][truth_row[real]], truth["y"][truth_row[real]]
    false = ~real & ~catalog.sources["sky_source"]
    x[false], y[false] = p.x[n:], p.y[n:]                     # both in the order they were drawn
    return x, y


def _stamp(source: np.void, centre: tuple[float, float], side: int, points: np.ndarray, shape: tuple[int, int],
           sigma: float, blank: float, depth: Depth, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Science, its variance, template, its variance, difference, its variance; of no side with the centroid off it."""
    if not (-0.5 <= source["x"] < shape[1] - 0.5 and -0.5 <= source["y"] < shape[0] - 0.5):
        return (np.zeros((0, 0), np.float32),) * 6
    left, low = int(np.floor(source["x"] + 0.5)) - side // 2, int(np.floor(source["y"] + 0.5)) - side // 2
    reach = side / 2 + REACH * sigma
    near = points[(np.abs(points[:, 0] - left - side / 2) < reach) & (np.abs(points[:, 1] - low - side / 2) < reach)]
    science, template = np.zeros((side, side)), np.zeros((side, side))
    for x, y, now, then in near.tolist():
        psf = gaussian(side, x - left, y - low, sigma)
        science += now * psf
        template += then * psf
    variance = blank * (1.0 - depth.template_share) + depth.own_noise * np.maximum(science, 0.0)
    then_variance = np.full((side, side), blank * depth.template_share)
    science += np.sqrt(variance) * rng.normal(size=(side, side))
    template += np.sqrt(then_variance) * rng.normal(size=(side, side))
    psf = gaussian(side, centre[0] - left, centre[1] - low, sigma).astype(float)
    science += psf * (float(source["psfFlux"]) - np.sum(psf * (science - template)) / np.sum(psf**2))
    rows, columns = low + np.arange(side), left + np.arange(side)
    off = ((rows < 0) | (rows >= shape[0]))[:, None] | ((columns < 0) | (columns >= shape[1]))
    planes = []
    for plane in (science, variance, template, then_variance):
        planes.append(np.where(off, np.nan, plane).astype(np.float32))
    return (*planes, planes[0] - planes[2], planes[1] + planes[3])


__all__ = ["Depth", "rendered"]
