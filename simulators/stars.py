"""Stars: counts, colours, and those that move."""

from collections.abc import Callable

import numpy as np

from schemas.exposure import BANDS, fluxes_njy
from simulators import milky_way
from simulators.config import StarConfig
from simulators.passbands import band_extinction, dimming

STAR = np.dtype([("id", "i8"), ("ra", "f8"), ("dec", "f8"), ("flux", "f8", (6,)),         # [nJy] in ugrizy
                 ("pm_east", "f8"), ("pm_north", "f8"), ("parallax", "f8")])   # [mas/yr], [mas]; 0 in `power`

# Colours along the stellar locus at g - i: u-g, g-r, r-i, i-z, z-y (after Covey et al. 2007, rounded)
_G_I = np.array([0.2, 0.6, 1.0, 1.6, 2.2, 2.8, 3.4])
_LOCUS = np.array([[0.95, 0.18, 0.02, -0.02, -0.01], [1.10, 0.44, 0.16, 0.06, 0.02], [1.55, 0.73, 0.27, 0.14, 0.06],
                   [2.20, 1.13, 0.47, 0.27, 0.12], [2.60, 1.40, 0.80, 0.45, 0.22], [2.60, 1.45, 1.35, 0.70, 0.35],
                   [2.60, 1.50, 1.90, 1.05, 0.55]])


def magnitudes(rng: np.random.Generator, n: int, bright: float, faint: float, slope: float) -> np.ndarray:
    """`n` magnitudes with d log10 N / dm = slope between two limits."""
    low, high = 10 ** (slope * bright), 10 ** (slope * faint)
    return np.log10(low + (high - low) * rng.uniform(size=n)) / slope


def mean_number(density: float, slope: float, bright: float, faint: float, area_arcmin2: float) -> float:
    """Expected count between two magnitudes, where `density` is the number brighter than 25 per square arcminute."""
    return float(density * area_arcmin2 * (10 ** (slope * (faint - 25.0)) - 10 ** (slope * (bright - 25.0))))


def star_fluxes(rng: np.random.Generator, r_mag: np.ndarray) -> np.ndarray:
    """(n, 6) fluxes [nJy] of stars of given r, blue halo and red disc in proportions that shift with magnitude."""
    n = len(r_mag)
    red = rng.uniform(size=n) < np.clip(0.25 + 0.06 * (r_mag - 16.0), 0.2, 0.75)
    g_i = np.where(red, rng.normal(2.4, 0.45, n), rng.normal(0.75, 0.25, n)).clip(_G_I[0], _G_I[-1])
    return fluxes_of_colour(r_mag, g_i, rng)


def fluxes_of_colour(r_mag: np.ndarray, g_i: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, 6) fluxes [nJy] of stars of given r and g - i, along the locus with a scatter of 0.02 mag in each colour."""
    n = len(r_mag)
    u_g, g_r, r_i, i_z, z_y = (np.interp(g_i, _G_I, column) + rng.normal(0, 0.02, n) for column in _LOCUS.T)
    return np.stack([fluxes_njy(m) for m in (r_mag + g_r + u_g, r_mag + g_r, r_mag, r_mag - r_i,
                                             r_mag - r_i - i_z, r_mag - r_i - i_z - z_y)], axis=1)


def stars(config: StarConfig, rng: np.random.Generator, ra: np.ndarray, dec: np.ndarray, first_id: int) -> np.ndarray:
    """STAR rows at given positions."""
    out = np.zeros(len(ra), STAR)
    out["id"] = first_id + np.arange(len(ra))
    out["ra"], out["dec"] = ra, dec
    out["flux"] = star_fluxes(rng, magnitudes(rng, len(ra), config.bright, config.faint, config.slope))
    return out


def milky_way_stars(config: StarConfig, view: milky_way.Sight, rng: np.random.Generator, steradian: float,
                    place: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]], first_id: int
                    ) -> np.ndarray:
    """STAR rows of the Milky Way's model; `place` gives that many positions."""
    drawn = milky_way.draw_stars(view, rng, steradian, config.bright, config.faint)
    out = np.zeros(len(drawn), STAR)
    out["id"] = first_id + np.arange(len(drawn))
    out["ra"], out["dec"] = place(rng, len(drawn))
    unreddened = drawn["r"] - band_extinction()[2] * drawn["a_v"]
    out["flux"] = fluxes_of_colour(unreddened, milky_way.colours(drawn, rng), rng) * dimming(drawn["a_v"])
    out["pm_east"], out["pm_north"] = milky_way.motions(drawn, out["ra"], out["dec"], rng)
    out["parallax"] = 1000.0 / drawn["distance"]
    return out


def band_index(band: str) -> int:
    """Column of a band in flux arrays."""
    return BANDS.index(band)
