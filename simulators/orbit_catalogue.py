"""The orbits that the observatory knows: fits to the observations of an arc, with the errors such a fit has.

An arc of observations determines an orbit with a covariance, which is computed here from the arc's geometry and then
scaled so that the place predicted for the night is uncertain by a stated amount. So elements err together as fitted
ones do, the error lies along the track and grows with time away from the arc, and the claimed error is the true one.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from simulators import asteroids as solar
from simulators import orbits
from simulators.config import AsteroidConfig

# Days before the night when an arc's observations were made, and its error in units of the configured one. The shares
# of orbits of one apparition are assumed.
ARCS: Final = {
    "many": (np.concatenate([365.25 * k + np.array([0.0, 12.0, 30.0]) for k in (1.3, 2.6, 3.9, 5.2, 6.5)]), 1.0),
    "one": (460.0 + np.array([0.0, 3.0, 15.0, 30.0, 45.0, 60.0]), 5.0),
    "short": (np.array([4.0, 5.0, 7.0, 10.0]), 15.0)}
ONE_APPARITION: Final = {"main_belt": 0.15, "near_earth": 0.5, "tno": 0.4}
ONE_APPARITION_ELSEWHERE: Final = 0.2
SPREAD: Final = 0.6                  # of the logarithm of errors within a kind of arc: assumed
EPOCH_DAYS: Final = 200              # standard epochs of published elements (Minor Planet Center)
STEP: Final = (1e-7, 1e-9)           # of positions [au] and velocities [au/day] in derivatives
SYMBOLS: Final = "ABCDEFGHJKLMNOPQRSTUVWXYZ"


def designation(number: int) -> str:
    """A provisional designation of the year 2024 in the half-month Z, which the calendar of designations has not.

    Examples
    --------
    >>> designation(0), designation(26), designation(3_000)
    ('2024 ZA', '2024 ZB1', '2024 ZA120')
    """
    cycle, letter = divmod(number, 25)
    return f"2024 Z{SYMBOLS[letter]}{cycle if cycle else ''}"


def catalogued(rows: np.ndarray, config: AsteroidConfig, rng: np.random.Generator, mjd_tai: float) -> np.ndarray:
    """The same MINOR_PLANET rows, a fraction of them known, with what the catalogue says of those.

    `claimed_error` is one sigma along the longest axis of the error ellipse at `mjd_tai`; the error itself is a draw
    from the whole covariance.
    """
    out = rows.copy()
    n = len(out)
    out["known"] = rng.uniform(size=n) < config.known
    out["ssObjectId"] = np.where(out["known"], 20_000_000_000 + out["id"], 0)
    arcs = _arcs(out, config, rng)
    deviates, sizes = rng.normal(size=(n, 6)), np.exp(SPREAD * rng.normal(size=n))
    for name, (days, factor) in ARCS.items():
        mine = np.flatnonzero(out["known"] & (arcs == name))
        if len(mine):
            target = config.ephemeris_error_arcsec * factor * sizes[mine]
            fit = _fit(out[mine], mjd_tai, mjd_tai - days, target)
            out["predicted"][mine] = _off(out[mine], fit, deviates[mine])
            out["element_errors"][mine] = _element_errors(out[mine], fit)
            out["arc"][mine], out["claimed_error"][mine] = name.encode(), target
    epoch = standard_epoch(mjd_tai)
    out["published"] = orbits.at_epoch(out["predicted"], epoch)
    first = int(out["id"].min()) if n else 0
    out["designation"] = [designation(int(number) - first).encode() if known else b""
                          for number, known in zip(out["id"], out["known"], strict=True)]
    return out


def standard_epoch(mjd_tai: float) -> float:
    """The nearest epoch, a multiple of 200 days of Terrestrial Time, as MJD TAI."""
    return float(EPOCH_DAYS * round(mjd_tai / EPOCH_DAYS) - orbits.TT_MINUS_TAI_D)


def _arcs(rows: np.ndarray, config: AsteroidConfig, rng: np.random.Generator) -> np.ndarray:
    """Kind of arc of each row; no orbit beyond Neptune is made of days."""
    u = rng.uniform(size=len(rows))
    single = np.array([ONE_APPARITION.get(family.decode(), ONE_APPARITION_ELSEWHERE) for family in rows["family"]])
    kept = (1.0 - config.lost) * single
    short = np.where(rows["family"] == b"tno", "one", "short")
    return np.asarray(np.where(u < config.lost, short, np.where(u < config.lost + kept, "one", "many")))


@dataclass(frozen=True, slots=True)
class _Fit:
    """The covariance of fitted states: root @ root.T * scale^2, of positions [au] and velocities [au/day]."""

    root: np.ndarray       # (n, 6, 6)
    scale: np.ndarray      # (n,)


def _fit(rows: np.ndarray, mjd: float, observed: np.ndarray, target: np.ndarray) -> _Fit:
    """What observations at given times leave uncertain; `target` is the error of the place at `mjd` [arcsec]."""
    times = np.concatenate([observed, [mjd]])
    slopes = _slopes(rows, times)
    arc, now = slopes[:-1].transpose(1, 0, 2, 3).reshape(len(rows), -1, 6), slopes[-1]
    scale = np.linalg.norm(arc, axis=1)                                  # so that the normal matrix is well scaled
    _, values, axes = np.linalg.svd(arc / scale[:, None, :], full_matrices=False)
    root = axes.transpose(0, 2, 1) / np.maximum(values, 1e-9 * values[:, :1])[:, None, :] / scale[:, :, None]
    here = now @ root
    size = np.sqrt(np.linalg.eigvalsh(here @ here.transpose(0, 2, 1))[:, -1])
    return _Fit(root, target / size)


def _off(rows: np.ndarray, fit: _Fit, deviates: np.ndarray) -> np.ndarray:
    """ORBIT rows off the true ones by a draw from a fit's covariance; taken smaller where it leaves bound orbits."""
    change = np.einsum("nij,nj->ni", fit.root, deviates) * fit.scale[:, None]
    position, velocity = orbits.states(rows)
    out = orbits.rows_of(orbits.table(rows))
    left = np.ones(len(rows), bool)
    for part in (1.0, 0.5, 0.25, 0.0):
        with np.errstate(invalid="ignore"):
            tried = orbits.of_states(position + part * change[:, :3], velocity + part * change[:, 3:], rows["epoch"])
        ok = left & np.isfinite(tried["a"]) & (tried["a"] > 0) & (tried["e"] < 0.985)
        out[ok], left = tried[ok], left & ~ok
    return out


def _element_errors(rows: np.ndarray, fit: _Fit) -> np.ndarray:
    """(n, 6) one sigma of a, e, inc, node, argperi and mean anomaly [au, radian]."""
    position, velocity = orbits.states(rows)
    total = np.zeros((len(rows), 6))
    for column in np.moveaxis(fit.root, 2, 0):
        step = 1e-8 / np.maximum(np.linalg.norm(column[:, :3], axis=1) + 1e2 * np.linalg.norm(column[:, 3:], axis=1),
                                 1e-300)
        ahead, behind = (orbits.of_states(position + sign * step[:, None] * column[:, :3],
                                          velocity + sign * step[:, None] * column[:, 3:], rows["epoch"])
                         for sign in (1.0, -1.0))
        for k, name in enumerate(("a", "e", "inc", "node", "argperi", "mean_anomaly")):
            moved = ahead[name] - behind[name]
            if k > 1:
                moved = (moved + np.pi) % (2 * np.pi) - np.pi
            total[:, k] += (moved / (2 * step)) ** 2
    return np.asarray(np.sqrt(total) * fit.scale[:, None])


def observations(arc: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Length [d], oppositions and observations of kinds of arc (n,); 0 where there is none.

    Examples
    --------
    >>> [column.tolist() for column in observations(np.array([b"one", b"many", b""]))]
    [[60.0, 1929.3, 0.0], [1, 5, 0], [6, 15, 0]]
    """
    facts = {name.encode(): (float(np.ptp(days)), 1 + int(np.sum(np.diff(np.sort(days)) > 200.0)), len(days))
             for name, (days, _) in ARCS.items()}
    found = [facts.get(kind, (0.0, 0, 0)) for kind in arc.tolist()]
    length, oppositions, number = zip(*found, strict=True) if found else ((), (), ())
    return np.array(length, float), np.array(oppositions, int), np.array(number, int)


def _slopes(rows: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(m, n, 2, 6) derivatives of places on the sky [arcsec] by the states at the rows' epochs [au, au/day]."""
    position, velocity = orbits.states(rows)
    here = orbits.observer(times)
    truth = orbits.apparent(rows, times, here)
    distance = np.linalg.norm(truth, axis=-1)
    line = truth / distance[..., None]
    east = np.stack([-line[..., 1], line[..., 0], np.zeros(distance.shape)], -1)
    east /= np.linalg.norm(east, axis=-1)[..., None]
    north = np.cross(line, east)
    out = np.empty((*distance.shape, 2, 6))
    for k in range(6):
        step = STEP[k // 3] * np.eye(6)[k]
        ahead, behind = (orbits.apparent(orbits.of_states(position + sign * step[:3], velocity + sign * step[3:],
                                                          rows["epoch"]), times, here) for sign in (1.0, -1.0))
        moved = (ahead - behind) / (2.0 * STEP[k // 3] * distance[..., None])
        out[..., 0, k], out[..., 1, k] = np.sum(moved * east, -1), np.sum(moved * north, -1)
    return np.asarray(np.degrees(out) * 3600.0)


def separations(rows: np.ndarray, mjd_tai: float) -> np.ndarray:
    """Distances between true and predicted places at a time [arcsec], by two-body motion."""
    at = np.array([mjd_tai])
    here = orbits.observer(at)
    return solar.separation_arcsec(orbits.apparent(rows, at, here)[0], orbits.apparent(rows["predicted"], at, here)[0])
