"""Explosions and flares that shine as a cooling black body: core collapse, superluminous, tidal disruption, kilonova.

The rest-frame r light curve is a rise, a plateau that may slope, and a fall (after Bazin et al. 2009 and Villar et al.
2019); the temperature falls to a floor; the ultraviolet is suppressed below a wavelength of the class, as metal lines
do. The observed bands follow by integrals of that spectrum.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from simulators.lightcurves.tables import BandTable, redshifts
from simulators.passbands import WAVELENGTHS_NM, planck, weights

THERMAL: Final = np.dtype([
    ("z", "f8"), ("start", "f8"),          # middle of the rise [MJD]
    ("flux", "f8"),                        # [nJy] 10^(-0.4 (M_r + distance modulus - 31.4)) of the maximum
    ("rise", "f8"), ("plateau", "f8"), ("fall", "f8"),      # [day], rest frame
    ("hot", "f8"), ("cool", "f8"), ("cooling", "f8"),       # [K], [K], [day]
    ("top", "f8"),                         # of the shape, which the flux is scaled by
    ("dim", "f8", (6,))])
COLDEST, HOTTEST = 1500.0, 80_000.0        # [K]
Z_MAX: Final = 4.0
COBALT_D: Final = 111.3                    # e-folding time of the decay of 56Co


@dataclass(frozen=True, slots=True)
class Shape:
    """What the members of a class share, and the medians of what they do not."""

    rise: float                # [day], rest frame
    plateau: float             # [day]
    fall: float                # [day]: of the exponential, or of (1 + t / fall)^(-5/3)
    hot: float                 # [K] during the rise
    cool: float                # [K] at last
    cooling: float             # [day]
    cut_nm: float              # the spectrum falls as (wavelength / cut)^3 below
    slope: float = 0.0         # part of the light lost along the plateau
    tail: float = 0.0          # of the decay of 56Co, over the maximum of the rest
    power_law: bool = False    # fall as t^(-5/3)
    scatter: float = 0.25      # of the natural logarithm of times
    heat_scatter: float = 0.1  # of the natural logarithm of temperatures


@cache
def band_table(cut_nm: float) -> BandTable:
    """Band fluxes over that of rest-frame r, (1 + z) included, by log10 T and redshift."""
    nodes, logs = redshifts(Z_MAX, 81), np.linspace(np.log10(COLDEST), np.log10(HOTTEST), 61)
    temperatures = 10.0 ** logs[:, None]

    def spectrum(wavelength: np.ndarray) -> np.ndarray:
        return np.asarray(planck(temperatures, wavelength) * np.minimum(wavelength / cut_nm, 1.0) ** 3)

    r = spectrum(WAVELENGTHS_NM) @ weights()[2]
    seen = np.stack([(1.0 + z) * weights() @ spectrum(WAVELENGTHS_NM / (1.0 + z)).T / r for z in nodes], axis=2)
    return BandTable(np.log10(np.maximum(seen, 1e-12)), (float(logs[0]), float(logs[-1])), Z_MAX)


def brightness(t: np.ndarray, rise: np.ndarray, plateau: np.ndarray, fall: np.ndarray, shape: Shape) -> np.ndarray:
    """Rest-frame r light at days after the middle of the rise, in units of the rise's end; 0 eight rises before."""
    after = np.maximum(t, 0.0)
    along = 1.0 - shape.slope * np.minimum(after / np.maximum(plateau, 1e-9), 1.0)
    left = soft(t - plateau, rise) / fall
    decline = (1.0 + left) ** (-5.0 / 3.0) if shape.power_law else np.exp(-left)
    light = along * decline + shape.tail * np.exp(-after / COBALT_D)
    return np.asarray(np.where(t < -8.0 * rise, 0.0, light / (1.0 + np.exp(-np.clip(t / rise, -50.0, 50.0)))))


def soft(t: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """0 long before 0 and t long after, with a bend of that scale instead of a kink."""
    return np.asarray(scale * np.logaddexp(0.0, t / scale))


def tops(rise: np.ndarray, plateau: np.ndarray, fall: np.ndarray, shape: Shape) -> np.ndarray:
    """(n,) maxima of `brightness`: all lie within 12 rises of the middle of the rise."""
    grid = np.linspace(-4.0, 12.0, 129)
    return np.asarray(np.max([brightness(k * rise, rise, plateau, fall, shape) for k in grid], axis=0))


def temperature(rows: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(n,) temperatures [K] at days after the middle of the rise."""
    return np.asarray(rows["cool"] + (rows["hot"] - rows["cool"]) * np.exp(-soft(t, rows["rise"]) / rows["cooling"]))


def thermal_flux(rows: np.ndarray, band: int, mjd: float, shape: Shape) -> np.ndarray:
    """(n,) fluxes [nJy] of THERMAL rows of one class."""
    t = (mjd - rows["start"]) / (1.0 + rows["z"])
    light = brightness(t, rows["rise"], rows["plateau"], rows["fall"], shape) / rows["top"]
    colour = band_table(shape.cut_nm).at(band, np.log10(temperature(rows, t)), rows["z"])
    return np.asarray(rows["flux"] * light * colour * rows["dim"][:, band])
