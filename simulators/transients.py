"""Point sources that appear after the template was taken, or went away."""

import numpy as np
from scipy.spatial import cKDTree

from schemas.exposure import BANDS, fluxes_njy
from simulators.conditions import nominal_sigma_njy
from simulators.config import CameraConfig, TransientConfig
from simulators.galaxies import places

TRANSIENT = np.dtype([("id", "i8"), ("ra", "f8"), ("dec", "f8"), ("flux", "f8", (6,)),    # [nJy] in the night
                      ("fading", "?"), ("start", "f8"), ("rise", "f8"), ("fall", "f8"), ("host", "i8"),
                      ("host_sep", "f8")])
# start [MJD]; time scales [day]; host: row of the galaxy, -1 for none


def light_curve(rows: np.ndarray, mjd: float, night: float) -> np.ndarray:
    """Brightness relative to the night's: (1 - e^(-t / rise)) e^(-t / fall) since the start; a fading one had gone."""
    def shape(at: float) -> np.ndarray:
        t = np.maximum(at - rows["start"], 0.0)
        return np.asarray(-np.expm1(-t / rows["rise"]) * np.exp(-t / rows["fall"]))
    now = shape(mjd) / np.maximum(shape(night), 1e-300)
    before = np.exp(-np.maximum(mjd - (night - 60.0), 0.0) / 5.0)
    return np.asarray(np.where(rows["fading"], before, now))


def signal_to_noise(rng: np.random.Generator, n: int, law: str, limits: tuple[float, float]) -> np.ndarray:
    """Target S/N of `n` sources, flat in S/N or in its logarithm."""
    low, high = limits
    if law == "snr_flat":
        return rng.uniform(low, high, n)
    if law == "snr_log":
        return np.exp(rng.uniform(np.log(low), np.log(high), n))
    raise ValueError(f"flux law must be snr_flat or snr_log, got {law!r}")


def night_fluxes(rng: np.random.Generator, n: int, law: str, snr: tuple[float, float], mag: tuple[float, float],
                 camera: CameraConfig, exposure_s: float) -> np.ndarray:
    """(n, 6) fluxes [nJy]: S/N targets at each band's nominal depth, or magnitudes of slope 0.6 and no colour."""
    if law == "magnitude":
        low, high = 10 ** (0.6 * mag[0]), 10 ** (0.6 * mag[1])
        m = np.log10(low + (high - low) * rng.uniform(size=n)) / 0.6
        return np.repeat(fluxes_njy(m)[:, None], 6, axis=1)
    target = signal_to_noise(rng, n, law, snr)
    noise = np.array([nominal_sigma_njy(band, exposure_s, camera) for band in BANDS])
    return np.asarray(target[:, None] * noise * np.exp(0.1 * rng.normal(size=(n, 6))))


def transients(config: TransientConfig, rng: np.random.Generator, ra: np.ndarray, dec: np.ndarray,
               galaxies: np.ndarray, night: float, camera: CameraConfig, exposure_s: float,
               first_id: int) -> np.ndarray:
    """TRANSIENT rows; hosted ones move from their given place to one in a galaxy drawn by its light."""
    n = len(ra)
    out = np.zeros(n, TRANSIENT)
    out["ra"], out["dec"] = ra, dec
    out["fading"] = rng.uniform(size=n) < config.fading
    out["start"] = night - rng.uniform(2.0, 40.0, n)
    out["rise"], out["fall"] = rng.uniform(3.0, 15.0, n), rng.uniform(15.0, 100.0, n)
    out["flux"] = night_fluxes(rng, n, config.flux, config.snr, config.mag, camera, exposure_s)
    out["host"], out["host_sep"] = -1, np.nan
    hosted = np.flatnonzero(rng.uniform(size=n) < config.hosted)
    if len(galaxies) and len(hosted):
        weight = np.sqrt(galaxies["flux"][:, 2])           # between number and light: fills faint and bright hosts
        hosted = hosted[:np.count_nonzero(weight)]
        chosen = rng.choice(len(galaxies), len(hosted), replace=False, p=weight / weight.sum())   # one in each
        east, north = places(rng, galaxies[chosen])
        out["host"][hosted] = chosen
        out["host_sep"][hosted] = np.hypot(east, north)
        out["dec"][hosted] = galaxies["dec"][chosen] + north / 3600
        out["ra"][hosted] = (galaxies["ra"][chosen]
                             + east / 3600 / np.cos(np.radians(galaxies["dec"][chosen]))) % 360.0
    out = np.asarray(out[apart(out["ra"], out["dec"], config.separation_arcsec)])
    out["id"] = first_id + np.arange(len(out))
    return out


def apart(ra: np.ndarray, dec: np.ndarray, separation_arcsec: float) -> np.ndarray:
    """(n,) bool: False for a position that has an earlier one within the separation.

    Oversampling puts many into a field that holds one in life: none of them would lie so near another.
    """
    a, d = np.radians(ra), np.radians(dec)
    xyz = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)
    later = [max(pair) for pair in cKDTree(xyz).query_pairs(np.radians(separation_arcsec / 3600))] if len(xyz) else []
    keep = np.ones(len(xyz), bool)
    keep[later] = False
    return keep
