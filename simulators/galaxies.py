"""Galaxies: counts, sizes, shapes, colours; and places inside them."""

from typing import Final

import numpy as np
from scipy.special import gammaincinv

from schemas.exposure import AB_ZEROPOINT_NJY, fluxes_njy
from simulators.config import GalaxyConfig
from simulators.stars import magnitudes

GALAXY = np.dtype([("id", "i8"), ("ra", "f8"), ("dec", "f8"), ("flux", "f8", (6,)),       # [nJy] in ugrizy
                   ("sersic", "i8"), ("radius", "f8"), ("g1", "f8"), ("g2", "f8"),
                   ("total", "f8", (6,)), ("redshift", "f8")])
# Sersic index 1 or 4; half-light radius [arcsec]; reduced shear with +x to the West and +y to the North; total: flux of
# the whole galaxy, 0 for a bulge that has a row beside its disk's; redshift: 0 where nobody asked


def galaxies(config: GalaxyConfig, rng: np.random.Generator, ra: np.ndarray, dec: np.ndarray,
             first_id: int) -> np.ndarray:
    """GALAXY rows at given positions.

    Sizes: median half-light radius 0.45" at r = 24, growing by 0.11 dex per magnitude towards the bright, scatter
    0.18 dex (assumed, after HST deep-field sizes); colours redden for n = 4 (CWW E and Scd at z about 0.4).
    """
    n = len(ra)
    out = np.zeros(n, GALAXY)
    out["id"] = first_id + np.arange(n)
    out["ra"], out["dec"] = ra, dec
    r = magnitudes(rng, n, config.bright, config.faint, config.slope)
    bulge = rng.uniform(size=n) < config.bulge_fraction
    out["sersic"] = np.where(bulge, 4, 1)
    out["radius"] = np.clip(0.45 * 10 ** (0.11 * (24.0 - r) + 0.18 * rng.normal(size=n)), 0.1, 6.0)
    shear = config.ellipticity_rms * rng.normal(size=(n, 2))
    size = np.hypot(*shear.T)
    shear *= (np.minimum(size, 0.7) / np.maximum(size, 1e-9))[:, None]
    out["g1"], out["g2"] = shear.T
    g_r = np.where(bulge, 1.1, 0.55) + 0.2 * rng.normal(size=n)
    r_i = np.where(bulge, 0.5, 0.25) + 0.1 * rng.normal(size=n)
    u_g, i_z, z_y = np.where(bulge, 1.6, 0.9), np.where(bulge, 0.3, 0.15), np.where(bulge, 0.2, 0.1)
    out["flux"] = np.stack([fluxes_njy(m) for m in (r + g_r + u_g, r + g_r, r, r - r_i, r - r_i - i_z,
                                                    r - r_i - i_z - z_y)], axis=1)
    out["total"] = out["flux"]
    return with_bulges(out, rng) if config.model == "bulge_disk" else out


# Shares of bulges in r of disk galaxies: a third have none, the mean of the others is a fifth (assumed, after Allen et
# al. 2006, MNRAS 371, 2)
NO_BULGE: Final = 0.33
BULGE_SHARE: Final = (1.2, 4.8)            # beta distribution
BULGE_SIZE: Final = 0.4                    # half-light radius over its disk's
BULGE_COLOUR: Final = 10 ** (-0.4 * np.array([1.25, 0.55, 0.0, -0.25, -0.4, -0.5]))     # redder than its disk


def with_bulges(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The rows, those of n = 1 dimmed to their disks, and after them a row for each of their bulges."""
    disks = np.flatnonzero(rows["sersic"] == 1)
    share = np.where(rng.uniform(size=len(disks)) < NO_BULGE, 0.0, rng.beta(*BULGE_SHARE, len(disks)))
    with_one = share > 0.02
    disks, share = disks[with_one], share[with_one]
    out, bulges = rows.copy(), rows[disks]
    bulges["sersic"], bulges["total"] = 4, 0.0
    bulges["radius"] = np.maximum(BULGE_SIZE * bulges["radius"], 0.05)
    bulges["g1"], bulges["g2"] = 0.5 * bulges["g1"], 0.5 * bulges["g2"]
    bulges["flux"] = (share * rows["flux"][disks, 2])[:, None] * rows["flux"][disks] / rows["flux"][disks, 2:3] \
        * BULGE_COLOUR
    out["flux"][disks] *= (1.0 - share)[:, None]
    out["total"][disks] = out["flux"][disks] + bulges["flux"]
    bulges["id"] = rows["id"][0] + len(rows) + np.arange(len(bulges)) if len(rows) else 0
    return np.concatenate([out, bulges])


def redshifts(rng: np.random.Generator, galaxies: np.ndarray) -> np.ndarray:
    """(n,) redshifts by magnitude: p(z) as z^2 exp(-z / z0), z0 = 0.0417 i - 0.744 (LSST Science Book, 3.7.2)."""
    i = AB_ZEROPOINT_NJY - 2.5 * np.log10(np.maximum(galaxies["total"][:, 3], 1.0))
    return np.asarray(np.maximum(0.0417 * i - 0.744, 0.02) * rng.gamma(3.0, size=len(galaxies)))


def places(rng: np.random.Generator, hosts: np.ndarray, largest_radii: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (dra cos dec, ddec) [arcsec] inside galaxies, drawn from their light out to some half-light radii."""
    n = len(hosts)
    index = hosts["sersic"].astype(float)
    b = gammaincinv(2.0 * index, 0.5)
    share = rng.uniform(0.0, 0.9, n)
    radii = np.minimum((gammaincinv(2.0 * index, share) / b) ** index, largest_radii)
    angle = rng.uniform(0.0, 2.0 * np.pi, n)
    x, y = radii * np.cos(angle), radii * np.sin(angle)
    norm = hosts["radius"] / np.sqrt(1.0 - hosts["g1"] ** 2 - hosts["g2"] ** 2)
    west = norm * ((1.0 + hosts["g1"]) * x + hosts["g2"] * y)
    north = norm * (hosts["g2"] * x + (1.0 - hosts["g1"]) * y)
    return -west, north
