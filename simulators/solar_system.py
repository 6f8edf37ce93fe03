"""The minor planets of one field and night: drawn, placed, lit, and as the ephemeris service predicts them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from schemas.exposure import Visit
from schemas.measures import EPHEMERIS, EPHEMERIS_ORDER, empty
from simulators import asteroids as solar
from simulators import minor_planets, orbits
from simulators.config import AsteroidConfig
from simulators.families import FAMILIES
from simulators.minor_planets import Patch
from simulators.orbit_catalogue import catalogued, observations, standard_epoch
from simulators.perturbed import Perturbed, perturbed
from simulators.streams import stream

# Fastest motion [deg/day] whose path from outside into the field is followed: half the night's length widens the circle
# that is drawn by so much. Faster ones lack those that come from further away.
FASTEST: Final = {"main_belt": 0.6, "near_earth": 12.0, "trojan": 0.3, "tno": 0.1, "hilda": 0.4, "hungaria": 1.2}
NODES: Final = 9            # of the fit to one window
IN_DEGREES: Final = np.array([1.0, 1.0, *[180.0 / np.pi] * 4])     # elements from [au, radian]


@dataclass(frozen=True)
class SolarSystem:
    """How things move; `rows` are MINOR_PLANET rows with one epoch."""

    config: AsteroidConfig

    @cached_property
    def _perturbed(self) -> Perturbed | None:
        return perturbed() if self.config.ephemerides == "assist" else None

    def observer(self, mjd_tai: np.ndarray) -> np.ndarray:
        """(m, 3) heliocentric positions of the telescope [au], ICRF."""
        return orbits.observer(mjd_tai) if self._perturbed is None else self._perturbed.observer(mjd_tai)

    def apparent(self, rows: np.ndarray, mjd_tai: np.ndarray, observers: np.ndarray) -> np.ndarray:
        """(m, n, 3) vectors to ORBIT rows as they are seen [au]."""
        if self._perturbed is None:
            return orbits.apparent(rows, mjd_tai, observers)
        return self._perturbed.apparent(rows, mjd_tai, observers)

    def draw(self, seed: int, ra: float, dec: float, radius_deg: float, times: np.ndarray, first_id: int) -> np.ndarray:
        """What is brighter than the limit and in a circle at one of the times, at its density times the boost."""
        middle, half = float((times[0] + times[-1]) / 2), float(times[-1] - times[0]) / 2 + 0.01
        parts = []
        for family in FAMILIES:
            boost = self.config.boost.get(family, 1.0)
            patch = Patch(ra, dec, min(radius_deg + FASTEST[family] * half, 60.0), middle, self.config.faint)
            rows = minor_planets.draw(family, patch, stream(seed, f"minor planets: {family}"), boost)
            parts.append(rows[self._crosses(rows, ra, dec, radius_deg, times)])
        out = np.concatenate(parts)
        out["id"] = first_id + np.arange(len(out))
        out = catalogued(out, self.config, stream(seed, "orbit catalogue"), middle)
        if self._perturbed is not None and out["known"].any():
            out["published"][out["known"]] = self._perturbed.at_epoch(out["predicted"][out["known"]],
                                                                      standard_epoch(middle))
        return out

    def _crosses(self, rows: np.ndarray, ra: float, dec: float, radius_deg: float, times: np.ndarray) -> np.ndarray:
        """Which objects are in the circle at one of the times."""
        centre = solar.directions(np.array(ra), np.array(dec))
        inside = np.zeros(len(rows), bool)
        for at in times:
            vector = orbits.apparent(rows, np.array([at]), orbits.observer(np.array([at])))[0]
            inside |= vector @ centre > np.cos(np.radians(radius_deg)) * np.linalg.norm(vector, axis=1)
        return inside

    def fluxes(self, rows: np.ndarray, band: str, mjd_tai: float) -> np.ndarray:
        """Fluxes [nJy] of objects at a time."""
        at = np.array([mjd_tai])
        here = self.observer(at)
        return minor_planets.fluxes(rows, band, mjd_tai, self.apparent(rows, at, here)[0], here[0])

    def seen(self, rows: np.ndarray, visit: Visit) -> tuple[np.ndarray, np.ndarray]:
        """Vectors (3, n, 3) at beginning, middle and end of an exposure, and errors of prediction [arcsec]."""
        half = visit.exposure_s / 2 / 86400
        at = visit.mjd_tai + half * np.array([-1.0, 0.0, 1.0])
        here = self.observer(at)
        vectors = self.apparent(rows, at, here)
        error = np.full(len(rows), np.nan)
        known = rows["known"]
        predicted = self.apparent(rows["predicted"][known], at[1:2], here[1:2])[0]
        error[known] = solar.separation_arcsec(vectors[1][known], predicted)
        return vectors, error

    def predicted(self, rows: np.ndarray, mjd_tai: float) -> np.ndarray:
        """(n, 3) vectors to where the catalogue puts objects."""
        at = np.array([mjd_tai])
        return np.asarray(self.apparent(rows["predicted"], at, self.observer(at))[0])

    def ephemerides(self, rows: np.ndarray, mjd_tai: float, half_span_d: float) -> np.ndarray:
        """EPHEMERIS rows of known objects in a window about a time, their polynomials fitted at Chebyshev nodes."""
        out = empty(EPHEMERIS, len(rows))
        if not len(rows):
            return out
        nodes = np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
        basis = np.linalg.pinv(nodes[:, None] ** np.arange(EPHEMERIS_ORDER + 1))
        at = mjd_tai + half_span_d * nodes
        here = self.observer(at)
        vectors = self.apparent(rows["predicted"], at, here)
        out["ssObjectId"], out["designation"] = rows["ssObjectId"], rows["designation"]
        out["epoch_mjd_tai"], out["half_span_d"] = mjd_tai, half_span_d
        out["object_xyz"] = np.einsum("kt,tnc->nck", basis, vectors)
        out["observer_xyz"] = np.einsum("kt,tc->ck", basis, here)
        out["vmag"] = orbits.v_magnitudes(rows["h"], rows["g"], vectors[NODES // 2], here[NODES // 2])
        out["error_arcsec"] = rows["claimed_error"]
        published = rows["published"]
        out["a"], out["e"] = published["a"], published["e"]
        for name in ("inc", "node", "argperi", "mean_anomaly"):
            out[name] = np.degrees(published[name]) % 360.0
        out["epoch_orbit_mjd_tai"], out["h"], out["g"] = published["epoch"], rows["h"], rows["g"]
        out["element_errors"] = rows["element_errors"] * IN_DEGREES
        out["arc_d"], out["n_oppositions"], out["n_observations"] = observations(rows["arc"])
        return out


def weights(rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """How many objects of the real sky each truthId stands for: 1 / boost, and 1 where it is none of `rows`."""
    if not len(rows):
        return np.ones(len(ids))
    order = np.argsort(rows["id"])
    at = order[np.minimum(np.searchsorted(rows["id"], ids, sorter=order), len(rows) - 1)]
    return np.where(rows["id"][at] == ids, rows["weight"][at], 1.0)


__all__ = ["FASTEST", "SolarSystem", "weights"]
