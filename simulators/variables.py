"""Variable stars and active galactic nuclei: fluxes as functions of time."""

import numpy as np

from schemas.exposure import fluxes_njy
from simulators.config import VariableConfig
from simulators.stars import star_fluxes

VARIABLE = np.dtype([("id", "i8"), ("ra", "f8"), ("dec", "f8"), ("flux", "f8", (6,)),    # mean [nJy] in ugrizy
                     ("amplitude", "f8"), ("period", "f8"), ("phase", "f8"), ("pulsating", "?")])
AGN_MODES = 128
AGN = np.dtype([("id", "i8"), ("ra", "f8"), ("dec", "f8"), ("flux", "f8", (6,)), ("host", "i8"), ("sigma", "f8"),
                ("omega", "f8", (AGN_MODES,)), ("phase", "f8", (AGN_MODES,))])           # [mag], [radian/day], [radian]


def variable_stars(config: VariableConfig, rng: np.random.Generator, ra: np.ndarray, dec: np.ndarray,
                   first_id: int) -> np.ndarray:
    """VARIABLE rows at given positions."""
    n = len(ra)
    out = np.zeros(n, VARIABLE)
    out["id"] = first_id + np.arange(n)
    out["ra"], out["dec"] = ra, dec
    out["flux"] = star_fluxes(rng, rng.uniform(*config.mag, n))
    low, high = np.log(config.amplitude)
    out["amplitude"] = np.exp(rng.uniform(low, high, n))
    out["pulsating"] = rng.uniform(size=n) < config.pulsating
    out["period"] = np.where(out["pulsating"], rng.uniform(0.3, 0.8, n), 10 ** rng.uniform(-1.0, 2.0, n))
    out["phase"] = rng.uniform(size=n)
    return out


def variable_factor(rows: np.ndarray, mjd: float) -> np.ndarray:
    """Flux over mean flux: a sinusoid in magnitudes, or a fast rise in 15 % of the period and a slow fall."""
    phase = (mjd / rows["period"] + rows["phase"]) % 1.0
    saw = np.where(phase < 0.15, 0.5 - phase / 0.15, (phase - 0.15) / 0.85 - 0.5)   # faint is positive
    shape = np.where(rows["pulsating"], saw, 0.5 * np.sin(2.0 * np.pi * phase))
    return np.asarray(10 ** (-0.4 * rows["amplitude"] * shape))


def active_nuclei(config: VariableConfig, rng: np.random.Generator, galaxies: np.ndarray, n: int,
                  first_id: int) -> np.ndarray:
    """AGN rows in the centres of galaxies of r < 23.5; the nucleus has 0.2 to 2 times its host's flux.

    The damped random walk is a sum of cosines whose frequencies follow its Lorentzian spectrum, so that it can be
    asked at any time in any order.
    """
    candidates = np.flatnonzero(galaxies["flux"][:, 2] > fluxes_njy(23.5))
    chosen = rng.choice(candidates, min(n, len(candidates)), replace=False) if len(candidates) else candidates
    out = np.zeros(len(chosen), AGN)
    out["id"] = first_id + np.arange(len(chosen))
    out["host"] = chosen
    out["ra"], out["dec"] = galaxies["ra"][chosen], galaxies["dec"][chosen]
    share = np.exp(rng.uniform(np.log(0.2), np.log(2.0), len(chosen)))
    colour = 10 ** (-0.4 * np.array([0.2, 0.1, 0.0, -0.05, -0.1, -0.1]))
    out["flux"] = (share * galaxies["flux"][chosen, 2])[:, None] * colour
    out["sigma"] = config.agn_sf_infinity / np.sqrt(2.0) * np.exp(0.3 * rng.normal(size=len(chosen)))
    out["omega"] = rng.standard_cauchy((len(chosen), AGN_MODES)) / config.agn_tau_d
    out["phase"] = rng.uniform(0, 2 * np.pi, (len(chosen), AGN_MODES))
    return out


def agn_factor(rows: np.ndarray, mjd: float) -> np.ndarray:
    """Flux over mean flux of a damped random walk in magnitudes."""
    waves = np.cos(rows["omega"] * (mjd - 60000.0) + rows["phase"])
    return np.asarray(10 ** (-0.4 * rows["sigma"] * np.sqrt(2.0 / AGN_MODES) * waves.sum(axis=1)))
