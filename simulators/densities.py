"""How many of each class a square degree holds, by magnitude: what the declared rates and light curves amount to.

Integrated by drawing each class flat in redshift with its weights, so that the rare near and bright ones count.

Rates and peaks are the published ones: put through the crude recipe that tables of densities rest on (Gaussian peaks,
K = 1.0 z in every class, no dust), they give such a table within 5 % for type Ia and SLSN-I, 8-30 % for IIn, 24 % for
II and 16 % for stripped-envelope supernovae at every limit from r = 20.5 to 24.5. What is drawn has the K correction of
its spectra, and so differs by the factors beside, at 20.5 | 23 | 24.5:

    class      drawn / crude table    K at z = 0.3, 0.5, 0.8 [mag]    why
    sn_ia       1.2 | 2.1 | 1.8       -0.17  -0.41  -0.04             r sees the maximum of the spectrum to z = 0.6
    sn_ii       0.8 | 1.1 | 1.5       -0.36  -0.50  -0.51             hot at peak
    sn_iin      2.5 | 2.8 | 2.0       -0.40  -0.56  -0.66             hot for weeks; the ultraviolet of 13,000 K
    stripped    0.9 | 1.0 | 0.9       -0.15  -0.08   0.45
    slsn_i      2.7 | 3.0 | 1.8       -0.41  -0.57  -0.74             14,000 K, cut below 300 nm
    tde         0.9 | 1.3 | 1.4       -0.63  -0.95  -1.31             22,000 K; peaks assumed, 1 mag below the table's
    kilonova    0.3 | 0.6 | 0.8       -0.06   0.04                    peaks assumed, after AT2017gfo: the table's few
                                                                      brightest need a scatter of 1.9 mag
"""

from typing import Final

import numpy as np

from schemas.exposure import fluxes_njy, magnitudes
from simulators import milky_way
from simulators.config import ClassConfig, DustConfig
from simulators.populations import (
    EXPLOSIVE,
    STELLAR,
    YEAR_D,
    Extragalactic,
    Patch,
    events_per_year_sr,
    explosions,
    nuclei,
    stars_that_change,
)
from simulators.stars import band_index
from simulators.streams import stream

LIMITS: Final = (20.5, 22.0, 23.0, 24.0, 24.5)               # [mag] in r
DEGREE2: Final = (np.pi / 180.0) ** 2                        # [sr]
NO_GALAXIES: Final = np.zeros(0, [("redshift", "f8"), ("total", "f8", (6,)), ("sersic", "i8"), ("radius", "f8"),
                                  ("g1", "f8"), ("g2", "f8"), ("ra", "f8"), ("dec", "f8")])

DENSITY: Final = np.dtype([("class", "S12"), ("limit", "f8"),
                           ("yearly", "f8"), ("yearly_err", "f8"),   # events per deg^2 and year peaking brighter
                           ("live", "f8")])                          # brighter at any moment, per deg^2


def explosive_densities(name: str, *, samples: int = 3000, seed: int = 1, band: str = "r",
                        dust: DustConfig | None = None) -> np.ndarray:
    """DENSITY rows of a class of explosions: peaks and times above each of LIMITS in a band, off the Galactic plane."""
    declared = EXPLOSIVE[name]
    dust = DustConfig(a_v=0.0) if dust is None else dust
    span = declared.lead_d + declared.tail_d
    patch = Patch(0.0, 90.0, 0.5, 1.0, 60_000.0, 60_000.0, dust)
    found = explosions(declared, ClassConfig(per_field=float(samples), spread="flat"), patch, stream(seed, name),
                       NO_GALAXIES, np.zeros(0, bool))
    per_year = found.rows["weight"] * YEAR_D / span / np.degrees(np.degrees(patch.steradian))
    phases = _phases(declared)
    numbers = found.numbers.copy()
    numbers["peak" if declared.shape is None else "start"] = 0.0
    b = band_index(band)
    flux = np.array([found.curve(numbers, b, t) for t in phases])
    out = np.zeros(len(LIMITS), DENSITY)
    out["class"], out["limit"] = name.encode(), LIMITS
    for row in out:
        above = flux > fluxes_njy(row["limit"])
        chosen = above.any(axis=0)
        row["yearly"] = per_year[chosen].sum()
        row["yearly_err"] = np.sqrt(np.sum(per_year[chosen] ** 2))
        days = np.sum((above[1:] + above[:-1].astype(float)) / 2 * np.diff(phases)[:, None], axis=0)
        row["live"] = np.sum(per_year * days) / YEAR_D
    return out


def _phases(declared: Extragalactic) -> np.ndarray:
    """Days from the reference time, close together about it."""
    scale = min(2.0, declared.lead_d / 20.0)
    early = -declared.lead_d * np.linspace(1.0, 0.0, 40) ** 2
    return np.concatenate([early[:-1], scale * np.sinh(np.linspace(0.0, np.arcsinh(declared.tail_d / scale), 160))])


def gaussian_densities(name: str, limits: tuple[float, ...] = LIMITS, *, magnitude: float | None = None,
                       scatter: float | None = None) -> np.ndarray:
    """Events per deg^2 and year brighter than limits, with Gaussian peaks and a K correction of 1.0 z, by quadrature.

    The crude estimate that published tables rest on: no dust, no spectra. It checks rates and volumes.
    """
    declared = EXPLOSIVE[name]
    magnitude = declared.magnitude if magnitude is None else magnitude
    scatter = declared.scatter if scatter is None else scatter
    from scipy.special import ndtr

    from simulators.cosmology import distance_modulus

    z = np.linspace(1e-3, declared.z_max, 2000)
    per_z = events_per_year_sr(declared, z) * DEGREE2
    brighter = ndtr((np.asarray(limits)[:, None] - (magnitude + distance_modulus(z) + 1.0 * z)) / scatter)
    return np.asarray(np.sum(brighter * per_z, axis=1) * (z[1] - z[0]))


def stellar_densities(name: str, ra: float, dec: float, *, seed: int = 1, samples: int = 3000,
                      dust: DustConfig | None = None) -> np.ndarray:
    """DENSITY rows of a class of stars or of nuclei in a direction: `live` alone, by r at one moment."""
    patch = Patch(ra, dec, 0.5, 1.0, 60_000.0, 60_000.0 + YEAR_D, dust or DustConfig())
    config, rng = ClassConfig(per_field=float(samples)), stream(seed, name)
    found = nuclei(config, patch, rng, NO_GALAXIES, np.zeros(0, bool)) if name == "agn" else \
        stars_that_change(STELLAR[name], config, patch, rng)
    r = magnitudes(found.fluxes(2, 60_180.0))
    out = np.zeros(len(LIMITS), DENSITY)
    out["class"], out["limit"], out["yearly"], out["yearly_err"] = name.encode(), LIMITS, np.nan, np.nan
    area = np.degrees(np.degrees(patch.steradian))
    out["live"] = [found.rows["weight"][r < limit].sum() / area for limit in LIMITS]
    return out


def star_counts(ra: float, dec: float, limits: np.ndarray, a_v: float | None = None) -> np.ndarray:
    """Stars per deg^2 brighter than limits in r, by the model of the Milky Way."""
    view = milky_way.sight(ra, dec, a_v)
    return np.array([milky_way.star_numbers(view, 13.0, float(limit))[0].sum() * DEGREE2 for limit in limits])
