"""The two-body kernels against Kepler's laws and the plain NumPy form."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from simulators import asteroids as solar
from simulators import orbits
from simulators.kernels import kepler

T = 61639.2


def some_orbits(n: int = 200, largest_e: float = 0.9) -> np.ndarray:
    rng = np.random.default_rng(4)
    angles = rng.uniform(0, 2 * np.pi, (3, n))
    return orbits.rows_of(np.stack([rng.uniform(0.8, 45.0, n), rng.uniform(0.0, largest_e, n), rng.uniform(0, 2.5, n),
                                    *angles, rng.uniform(T - 300, T + 300, n)], axis=1))


@given(st.floats(-20, 20), st.floats(0, 0.97))
@example(0.0, 0.97)
@example(1e-9, 0.97)
@example(np.pi, 0.97)
@example(-np.pi, 0.0)
def test_keplers_equation_is_solved(mean: float, e: float) -> None:
    anomaly = kepler.eccentric_anomaly(mean, e)
    residual = anomaly - e * np.sin(anomaly) - mean
    assert abs((residual + np.pi) % (2 * np.pi) - np.pi) < 1e-12 * max(1.0, abs(mean))


def test_the_kernel_gives_what_plain_numpy_gives() -> None:
    rows = some_orbits()
    times = np.array([T - 40.0, T, T + 3.0])
    here = solar.observer(times)
    plain = np.zeros(len(rows), solar.ASTEROID)
    for name in orbits.ORBIT.names:
        plain[name] = rows[name]
    found = orbits.apparent(rows, times, here)
    for k, at in enumerate(times):
        distance = np.linalg.norm(found[k], axis=1)
        off = np.linalg.norm(found[k] - solar.topocentric(plain, at), axis=1)
        # the plain form stops after two corrections for light: (v / c)^3 of the distance
        assert np.max(off / distance) < 1e-10


def test_energy_and_angular_momentum_are_those_of_the_ellipse_at_all_times() -> None:
    rows = some_orbits()
    for later in (0.0, 17.0, 4000.0):
        position, velocity = orbits.states(orbits.at_epoch(rows, T + later))
        energy = 0.5 * np.sum(velocity**2, 1) - solar.GM_SUN / np.linalg.norm(position, axis=1)
        assert np.allclose(energy, -solar.GM_SUN / (2 * rows["a"]), rtol=1e-11)
        momentum = np.linalg.norm(np.cross(position, velocity), axis=1)
        assert np.allclose(momentum, np.sqrt(solar.GM_SUN * rows["a"] * (1 - rows["e"] ** 2)), rtol=1e-11)


def test_an_orbit_returns_after_keplers_period_and_not_before() -> None:
    rows = some_orbits(50)
    here = np.zeros((1, 3))
    for k in range(50):
        period = 2 * np.pi * np.sqrt(rows["a"][k] ** 3 / solar.GM_SUN)
        places = [orbits.apparent(rows[k:k + 1], np.array([T + part * period]), here, light_time=False)[0, 0]
                  for part in (0.0, 1.0, 0.99)]
        assert np.linalg.norm(places[1] - places[0]) < 1e-9 * rows["a"][k]
        assert np.linalg.norm(places[2] - places[0]) > 1e-3 * rows["a"][k]


def test_velocities_are_the_derivative_of_positions() -> None:
    rows, h = some_orbits(), 1e-3
    _, velocity = orbits.states(rows)
    ahead, behind = (orbits.states(orbits.rows_of(orbits.table(rows) + sign * h * np.array(
        [0, 0, 0, 0, 0, 1.0, 0]) * np.sqrt(solar.GM_SUN / rows["a"][:, None] ** 3)))[0] for sign in (1, -1))
    assert np.allclose((ahead - behind) / (2 * h), velocity, atol=1e-7)


def test_states_and_elements_are_each_others_inverse() -> None:
    rows = some_orbits()
    again = orbits.of_states(*orbits.states(rows), rows["epoch"])
    for at in (T, T + 1000.0):
        here = np.zeros((1, 3))
        one, two = (orbits.apparent(o, np.array([at]), here, light_time=False)[0] for o in (rows, again))
        assert np.max(np.linalg.norm(one - two, axis=1) / rows["a"]) < 1e-9
