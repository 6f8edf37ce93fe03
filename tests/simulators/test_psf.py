import galsim
import numpy as np
import pytest

from simulators.kernels.stamps import add_points
from simulators.psf import STEP, TruePsf, profile, true_psf

SHAPE = (121, 121)


def round_psf(fwhm_px: float, g1: float = 0.0, g2: float = 0.0) -> TruePsf:
    first = np.array([1.0, 0, 0, 0, 0])
    return TruePsf(profile(fwhm_px, 0.6), SHAPE, np.zeros(5), g1 * first, g2 * first)


def drawn_by_galsim(psf: TruePsf, x: float, y: float, g1: float, g2: float, shape: tuple[int, int]) -> np.ndarray:
    light = galsim.Convolve(galsim.Kolmogorov(fwhm=psf.profile.atmosphere_fwhm),
                            galsim.Gaussian(fwhm=psf.profile.optics_fwhm),
                            gsparams=galsim.GSParams(folding_threshold=1e-4)).shear(g1=g1, g2=g2)
    image = galsim.Image(shape[1], shape[0], scale=1.0, xmin=0, ymin=0)
    light.drawImage(image, center=galsim.PositionD(x, y))
    return np.asarray(image.array, float)


def moments(image: np.ndarray) -> tuple[float, float, float, np.ndarray]:
    y, x = np.mgrid[:image.shape[0], :image.shape[1]]
    weight = image * np.exp(-0.5 * ((x - 60) ** 2 + (y - 60) ** 2) / 4.0**2)
    total = weight.sum()
    cx, cy = (weight * x).sum() / total, (weight * y).sum() / total
    second = [(weight * (x - cx) ** 2).sum(), (weight * (x - cx) * (y - cy)).sum(), (weight * (y - cy) ** 2).sum()]
    return float(image.sum()), float(cx), float(cy), np.array(second) / total


@pytest.mark.parametrize("fwhm_px", [3.0, 4.15, 6.5])
@pytest.mark.parametrize(("g1", "g2"), [(0.0, 0.0), (0.05, -0.03)])
def test_the_table_draws_what_galsim_draws(fwhm_px: float, g1: float, g2: float) -> None:
    psf = round_psf(fwhm_px, g1, g2)
    x, y = 60.31, 59.77
    ours, theirs = psf.draw_one(SHAPE, x, y), drawn_by_galsim(psf, x, y, g1, g2, SHAPE)
    a, b = moments(ours), moments(theirs)
    assert a[0] == pytest.approx(b[0], rel=0.002)
    assert np.hypot(a[1] - b[1], a[2] - b[2]) * 200 < 1.0                  # [mas]
    assert np.allclose(a[3], b[3], rtol=0.01, atol=0.01 * b[3][0])          # variances: 1 %; size 0.5 %
    assert np.abs(ours - theirs).max() < 0.01 * theirs.max()


@pytest.mark.parametrize("fwhm_px", [2.5, 4.15, 8.0])
def test_the_effective_area_is_that_of_smtn_002(fwhm_px: float) -> None:
    image = round_psf(fwhm_px, 0.04, 0.0).draw_one((161, 161), 80.2, 79.9)
    assert 1.0 / np.sum(image**2) == pytest.approx(2.266 * fwhm_px**2, rel=0.004)


def test_flux_is_conserved_and_wings_end_without_a_step() -> None:
    psf = round_psf(4.15)
    image = psf.draw_one((901, 901), 450.0, 450.0)
    assert image.sum() == pytest.approx(1.0, abs=1e-3)
    assert image.min() >= 0.0
    radial = psf.profile.radial
    assert np.all(np.diff(radial) <= 0)
    r = np.array([100.0, 200.0])
    slope = np.diff(np.log(radial[(r / STEP).astype(int)])) / np.log(2.0)
    assert slope[0] == pytest.approx(-11 / 3, abs=0.01)                     # Kolmogorov's wings


def test_the_radius_follows_the_flux() -> None:
    psf = round_psf(4.15)
    flux, faintest = np.array([1e5, 1e6, 1e7]), 1.0
    radius = psf.radius(flux, faintest)
    assert np.all(np.diff(radius) > 0)
    beyond = psf.profile.radial[(radius / STEP).astype(int)] * flux
    assert np.all(beyond <= faintest)


def test_the_psf_varies_smoothly_by_a_few_percent() -> None:
    psf = true_psf(4.15, 0.65, (1000, 1000), np.random.default_rng(2), size_variation=0.02, ellipticity=0.03)
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(0, 999, 12), np.linspace(0, 999, 12)))
    size = np.sqrt(np.linalg.det(psf.matrices(x, y)))
    assert 0.001 < np.std(size) < 0.04
    assert np.abs(np.diff(size.reshape(12, 12), axis=1)).max() < 0.02
    assert psf.central.sum() == pytest.approx(1.0)


def test_the_kernel_agrees_with_plain_numpy() -> None:
    psf = round_psf(4.15, 0.05, 0.02)
    x, y, flux, radius = np.array([20.3, -3.0]), np.array([11.7, 30.0]), np.array([5.0, 7.0]), np.array([15.0, 9.5])
    shape = psf.real_shape(x, y)
    got = np.zeros((40, 50))
    add_points(got, x, y, flux, radius, np.ascontiguousarray(shape), psf.profile.radial, STEP)
    expected = np.zeros_like(got)
    yy, xx = np.mgrid[:40, :50]
    for k in range(2):
        dx, dy = xx - x[k], yy - y[k]
        r = np.sqrt(shape[k, 0] * dx**2 + 2 * shape[k, 1] * dx * dy + shape[k, 2] * dy**2)
        value = np.interp(r, np.arange(len(psf.profile.radial)) * STEP, psf.profile.radial)
        expected += np.where(dx**2 + dy**2 <= radius[k] ** 2, flux[k] * shape[k, 3] * value, 0.0)
    assert np.allclose(got, expected, rtol=1e-12, atol=1e-14)


def test_an_unsampled_psf_is_refused() -> None:
    with pytest.raises(ValueError, match=r"FWHMeff must exceed 1\.6 pixels to be sampled, got 1\.0"):
        profile(1.0)
