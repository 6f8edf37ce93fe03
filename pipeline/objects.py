"""DIAObjects: what the sources of an object say together.

Every new version is computed again from the loaded history and this visit's source: per band the weighted mean of
psfFlux and scienceFlux, spread, extremes and steepest rise; the position as the mean unit vector, weighted by inverse
variance. Definitions as in meas_base's diaCalculation plug-ins, but for the position's weights.

An object whose version is not the one that preload saw (another visit has touched it since) has sources that were not
loaded: its stored statistics stand in for them, as one summed-up datum.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.config import ObjectsConfig
from pipeline.sphere import positions, unit_vectors
from schemas import table
from schemas.exposure import BANDS
from schemas.table import DIA_OBJECT


def update(sources: np.ndarray, previous: np.ndarray, history: np.ndarray, stale: np.ndarray, now_mjd_tai: float,
           config: ObjectsConfig) -> np.ndarray:
    """New versions of the objects of `sources`, one each.

    Parameters
    ----------
    sources : (n,) DIA_SOURCE
        With distinct diaObjectId.
    previous : (n,) DIA_OBJECT
        The version before; a row of nulls (diaObjectId 0) for a new object.
    history : (h,) DIA_SOURCE
        Earlier sources, in any order; those of other objects, and withdrawn ones, are ignored.
    stale : (n,) bool
        Objects whose history is not all loaded: their previous version is used instead of it.
    now_mjd_tai : float
        Start of the new versions' validity.
    """
    known = previous["diaObjectId"] != 0
    stale = stale & known
    slot = slots(history["diaObjectId"], sources["diaObjectId"])
    used = np.flatnonzero((slot >= 0) & ~np.append(stale, False)[slot] & np.isnan(history["timeWithdrawnMjdTai"])
                          & ~np.isin(history["diaSourceId"], sources["diaSourceId"]))
    rows = table.join([table.take(history, used), sources])
    slot = np.concatenate([slot[used], np.arange(len(sources))])
    objects = table.copy(previous)
    objects["diaObjectId"], objects["validityStartMjdTai"] = sources["diaObjectId"], now_mjd_tai
    objects["validityEndMjdTai"] = np.nan
    loaded = np.bincount(slot, minlength=len(sources))
    objects["nDiaSources"] = np.maximum(loaded, np.where(known, previous["nDiaSources"], 0) + 1)
    _times(objects, previous, rows, slot)
    _position(objects, previous, rows, slot, stale, config)
    _fluxes(objects, previous, rows, slot, stale)
    return objects


def recomputed(sources: np.ndarray, now_mjd_tai: float, config: ObjectsConfig) -> np.ndarray:
    """New versions of the objects of `sources` from these alone, which must be all of theirs; in order of their ids.

    Withdrawn sources do not count, and an object that has no other is left out.
    """
    counted = (sources["diaObjectId"] != 0) & np.isnan(sources["timeWithdrawnMjdTai"])
    sources = table.take(sources, np.flatnonzero(counted))
    order = np.lexsort((sources["diaSourceId"], sources["midpointMjdTai"], sources["diaObjectId"]))
    sources = table.take(sources, order)
    last = np.append(sources["diaObjectId"][1:] != sources["diaObjectId"][:-1], True)[:len(sources)]
    newest = table.take(sources, np.flatnonzero(last))
    nulls = DIA_OBJECT.empty(len(newest))
    nulls["diaObjectId"] = 0
    return update(newest, nulls, table.take(sources, np.flatnonzero(~last)), np.zeros(len(newest), bool), now_mjd_tai,
                  config)


def slots(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Index into `wanted` (distinct) of each id; -1 where it is not wanted."""
    if not len(wanted) or not len(ids):
        return np.full(len(ids), -1)
    order = np.argsort(wanted, kind="stable")
    place = np.minimum(np.searchsorted(wanted, ids, sorter=order), len(wanted) - 1)
    found = order[place]
    return np.where(wanted[found] == ids, found, -1)


def _times(objects: np.ndarray, previous: np.ndarray, rows: np.ndarray, slot: np.ndarray) -> None:
    first, last = np.full(len(objects), np.inf), np.full(len(objects), -np.inf)
    np.minimum.at(first, slot, rows["midpointMjdTai"])
    np.maximum.at(last, slot, rows["midpointMjdTai"])
    objects["firstDiaSourceMjdTai"] = np.fmin(first, previous["firstDiaSourceMjdTai"])
    objects["lastDiaSourceMjdTai"] = np.fmax(last, previous["lastDiaSourceMjdTai"])


def _position(objects: np.ndarray, previous: np.ndarray, rows: np.ndarray, slot: np.ndarray, stale: np.ndarray,
              config: ObjectsConfig) -> None:
    """Mean unit vectors and their errors, with the stored position of stale objects as one more datum."""
    if config.position not in ("weighted", "mean"):
        raise ValueError(f"objects.position must be weighted or mean, got {config.position!r}")
    n, kept = len(objects), np.flatnonzero(stale)
    columns = {name: np.concatenate([rows[name], previous[name][kept]]).astype(float)
               for name in ("ra", "dec", "raErr", "decErr", "ra_dec_Cov")}
    slot = np.concatenate([slot, kept])
    missing = ~(np.isfinite(columns["raErr"]) & np.isfinite(columns["decErr"]))
    sigma = [np.maximum(np.where(missing, config.sigma_missing_arcsec / 3600, columns[name]),
                        config.sigma_floor_arcsec / 3600) for name in ("raErr", "decErr")]
    weight = 1.0 / (sigma[0] ** 2 + sigma[1] ** 2)
    if config.position == "mean":
        weight = np.concatenate([np.ones(len(rows)), np.maximum(previous["nDiaSources"][kept], 1)]).astype(float)
    vectors = unit_vectors(columns["ra"], columns["dec"]) * weight[:, None]
    total = np.bincount(slot, weight, n)
    mean = np.stack([np.bincount(slot, vectors[:, axis], n) for axis in range(3)], axis=1)
    objects["ra"], objects["dec"] = positions(mean)
    covariance = np.where(missing, 0.0, np.nan_to_num(columns["ra_dec_Cov"]))
    for name, values in (("raErr", sigma[0] ** 2), ("decErr", sigma[1] ** 2), ("ra_dec_Cov", covariance)):
        moment = np.bincount(slot, weight**2 * values, n) / total**2
        objects[name] = moment if name == "ra_dec_Cov" else np.sqrt(moment)


def _fluxes(objects: np.ndarray, previous: np.ndarray, rows: np.ndarray, slot: np.ndarray, stale: np.ndarray) -> None:
    """Statistics per band; the bands' columns are filled from arrays of shape (objects, bands)."""
    band = np.array([BANDS.find(letter) for letter in rows["band"].astype("U1").tolist()], int)
    shape = (len(objects), len(BANDS))
    psf = _statistics(rows["psfFlux"], rows["psfFluxErr"], rows["midpointMjdTai"], slot, band, shape)
    science = _weighted(rows["scienceFlux"], rows["scienceFluxErr"], slot, band, shape)
    values = {"psfFluxMean": psf.mean, "psfFluxMeanErr": psf.mean_err, "psfFluxSigma": psf.sigma,
              "psfFluxNdata": psf.n, "psfFluxMin": psf.low, "psfFluxMax": psf.high, "psfFluxMaxSlope": psf.slope,
              "psfFluxErrMean": psf.err_mean, "scienceFluxMean": science[0], "scienceFluxMeanErr": science[1]}
    if stale.any():
        stored = {name: np.stack([previous[f"{letter}_{name}"] for letter in BANDS], axis=1).astype(float)
                  for name in values}
        values = {name: np.where(stale[:, None], folded, values[name])
                  for name, folded in _folded(stored, values).items()}
    for name, array in values.items():
        for column, letter in enumerate(BANDS):
            objects[f"{letter}_{name}"] = array[:, column]


@dataclass(frozen=True, slots=True)
class _Statistics:
    """Flux statistics, each (objects, bands); NaN without data."""

    n: np.ndarray
    mean: np.ndarray
    mean_err: np.ndarray
    sigma: np.ndarray
    low: np.ndarray
    high: np.ndarray
    slope: np.ndarray
    err_mean: np.ndarray


def _weighted(flux: np.ndarray, error: np.ndarray, slot: np.ndarray, band: np.ndarray,
              shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Means of inverse-variance weight and their errors."""
    good = np.isfinite(flux) & (error > 0) & (band >= 0)
    key, f, e = (slot * shape[1] + band)[good], flux[good].astype(float), error[good].astype(float)
    size = shape[0] * shape[1]
    weight = np.bincount(key, 1.0 / e**2, size)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.bincount(key, f / e**2, size) / weight
        return mean.reshape(shape), np.where(weight > 0, 1.0 / np.sqrt(weight), np.nan).reshape(shape)


def _statistics(flux: np.ndarray, error: np.ndarray, mjd: np.ndarray, slot: np.ndarray, band: np.ndarray,
                shape: tuple[int, int]) -> _Statistics:
    good = np.isfinite(flux) & (error > 0) & (band >= 0)
    key, f, e, t = ((slot * shape[1] + band)[good], flux[good].astype(float), error[good].astype(float), mjd[good])
    order = np.lexsort((t, key))
    key, f, e, t = key[order], f[order], e[order], t[order]
    size = shape[0] * shape[1]
    n = np.bincount(key, minlength=size)
    low, high, slope = np.full(size, np.nan), np.full(size, np.nan), np.full(size, np.nan)
    np.fmin.at(low, key, f)
    np.fmax.at(high, key, f)
    with np.errstate(divide="ignore", invalid="ignore"):
        plain = np.bincount(key, f, size) / n
        spread = np.bincount(key, (f - plain[key]) ** 2, size)
        sigma = np.where(n > 1, np.sqrt(spread / (n - 1)), np.nan)
        err_mean = np.bincount(key, e, size) / n
    step = np.flatnonzero((np.diff(key) == 0) & (np.diff(t) > 0))
    np.fmax.at(slope, key[step], np.diff(f)[step] / np.diff(t)[step])
    mean, mean_err = _weighted(flux, error, slot, band, shape)
    return _Statistics(n.reshape(shape), mean, mean_err, sigma.reshape(shape), low.reshape(shape),
                       high.reshape(shape), slope.reshape(shape), err_mean.reshape(shape))


def _folded(stored: dict[str, np.ndarray], new: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Stored statistics with those of one more source per object; the slope to that source is not known."""
    out = {}
    n0, n1 = stored["psfFluxNdata"], new["psfFluxNdata"]
    with np.errstate(divide="ignore", invalid="ignore"):
        for name in ("psfFlux", "scienceFlux"):
            weight = [np.nan_to_num(1.0 / side[f"{name}MeanErr"] ** 2) for side in (stored, new)]
            total = weight[0] + weight[1]
            summed = sum(w * np.nan_to_num(side[f"{name}Mean"]) for w, side in zip(weight, (stored, new), strict=True))
            out[f"{name}Mean"] = np.where(total > 0, summed / total, np.nan)
            out[f"{name}MeanErr"] = np.where(total > 0, 1.0 / np.sqrt(total), np.nan)
        out["psfFluxErrMean"] = (np.nan_to_num(stored["psfFluxErrMean"]) * n0
                                 + np.nan_to_num(new["psfFluxErrMean"]) * n1) / (n0 + n1)
        apart = np.where((n0 > 0) & (n1 > 0), stored["psfFluxMean"] - new["psfFluxMean"], 0.0)
        spread = (np.nan_to_num(stored["psfFluxSigma"]) ** 2 * np.maximum(n0 - 1, 0) + apart**2 * n0 * n1 / (n0 + n1))
        out["psfFluxSigma"] = np.where(n0 + n1 > 1, np.sqrt(spread / (n0 + n1 - 1)), np.nan)
    out["psfFluxNdata"] = n0 + n1
    out["psfFluxMin"] = np.fmin(stored["psfFluxMin"], new["psfFluxMin"])
    out["psfFluxMax"] = np.fmax(stored["psfFluxMax"], new["psfFluxMax"])
    out["psfFluxMaxSlope"] = np.fmax(stored["psfFluxMaxSlope"], new["psfFluxMaxSlope"])
    return out


def stale_rows(objects: np.ndarray, preloaded: np.ndarray) -> np.ndarray:
    """Which objects have another version than at preload, or none: other visits have touched them since."""
    row = slots(objects["diaObjectId"], preloaded["diaObjectId"])
    if not len(preloaded):
        return np.ones(len(objects), bool)
    return np.asarray((row < 0) | (preloaded["validityStartMjdTai"][row] != objects["validityStartMjdTai"]))
