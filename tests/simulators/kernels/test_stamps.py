import numpy as np
import pytest

from simulators.kernels.stamps import add_points, add_stamps, fill_transforms


def plain_transforms(side: int, dx: float, dy: float, flux: float, psf_shape: np.ndarray, galaxy_shape: np.ndarray,
                     psf_table: np.ndarray, psf_step: float, table: np.ndarray, table_step: float) -> np.ndarray:
    ky, kx = np.meshgrid(2 * np.pi * np.fft.fftfreq(side), 2 * np.pi * np.fft.rfftfreq(side), indexing="ij")

    def form(q: np.ndarray) -> np.ndarray:
        return np.asarray(q[0] * kx**2 + 2 * q[1] * kx * ky + q[2] * ky**2)
    psf = np.interp(np.sqrt(form(psf_shape)), np.arange(len(psf_table)) * psf_step, psf_table, right=0.0)
    galaxy = np.interp(form(galaxy_shape) ** 0.25, np.arange(len(table)) * table_step, table, right=0.0)
    return np.asarray(flux * psf * galaxy * np.exp(-1j * (kx * (side // 2 + dx) + ky * (side // 2 + dy))))


@pytest.mark.parametrize("side", [16, 32])
def test_transforms_agree_with_plain_numpy(side: int) -> None:
    rng = np.random.default_rng(1)
    psf_table, tables = np.exp(-np.linspace(0, 8, 2000)), np.exp(-np.linspace(0, 9, 4000)) * np.ones((2, 1))
    tables[1] *= 0.5
    psf_shape, galaxy_shape = np.array([[1.1, 0.1, 0.9]]), np.array([[7.0, 1.0, 4.0]])
    dx, dy = rng.uniform(-0.5, 0.5, (2, 1))
    out = np.empty((1, side, side // 2 + 1), complex)
    fill_transforms(out, dx, dy, np.array([3.0]), psf_shape, galaxy_shape, np.array([1]), psf_table, 0.004, tables,
                    0.001)
    expected = plain_transforms(side, dx[0], dy[0], 3.0, psf_shape[0], galaxy_shape[0], psf_table, 0.004, tables[1],
                                0.001)
    inner = np.abs(expected) > 1e-6
    nyquist = np.zeros_like(inner)
    nyquist[side // 2] = True            # the sign of that frequency is a convention
    assert np.allclose(out[0][inner & ~nyquist], expected[inner & ~nyquist], rtol=1e-9)


def test_stamps_are_added_and_cut_at_the_border() -> None:
    rng = np.random.default_rng(2)
    stamps = rng.normal(size=(3, 8, 8))
    x0, y0 = np.array([-3, 10, 26]), np.array([5, -6, 25])
    image, padded = np.zeros((30, 30)), np.zeros((50, 50))
    add_stamps(image, stamps, x0, y0)
    for k in range(3):
        padded[y0[k] + 10:y0[k] + 18, x0[k] + 10:x0[k] + 18] += stamps[k]
    assert np.allclose(image, padded[10:40, 10:40])


def plain_points(image: np.ndarray, x: np.ndarray, y: np.ndarray, flux: np.ndarray, radius: np.ndarray,
                 table: np.ndarray, step: float) -> None:
    yy, xx = np.mgrid[:image.shape[0], :image.shape[1]]
    for k in range(len(x)):
        r = int(radius[k]) + 1
        part = (slice(max(int(y[k]) - r, 0), int(y[k]) + r + 2), slice(max(int(x[k]) - r, 0), int(x[k]) + r + 2))
        distance = np.hypot(xx[part] - x[k], yy[part] - y[k])
        image[part] += np.where(distance <= radius[k],
                                flux[k] * np.interp(distance, np.arange(len(table)) * step, table), 0.0)


@pytest.mark.bench
@pytest.mark.parametrize("form", ["kernel", "numpy"])
def test_time_of_a_thousand_points(form: str, benchmark: object) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.uniform(30, 970, (2, 1000))
    flux, radius, table = np.ones(1000), np.full(1000, 15.0), np.append(np.exp(-np.linspace(0, 9, 2000)), 0.0)
    image, plain = np.zeros((1000, 1000)), np.zeros((1000, 1000))
    shape = np.tile([1.0, 0.0, 1.0, 1.0], (1000, 1))
    if form == "kernel":
        benchmark(add_points, image, x, y, flux, radius, shape, table, 1 / 64)  # type: ignore[operator]  # untyped
    else:
        benchmark(plain_points, plain, x, y, flux, radius, table, 1 / 64)  # type: ignore[operator]  # untyped
    image[:], plain[:] = 0.0, 0.0
    add_points(image, x, y, flux, radius, shape, table, 1 / 64)
    plain_points(plain, x, y, flux, radius, table, 1 / 64)
    assert np.allclose(image, plain, atol=1e-12)
