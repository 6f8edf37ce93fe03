import galsim
import numpy as np
import pytest

from schemas.wcs import Wcs
from simulators.galaxies import GALAXY
from simulators.images import add_galaxies, add_trails
from simulators.psf import TruePsf, profile

SHAPE = (129, 129)
WCS = Wcs.tangent(330.0, -12.0, SHAPE)


def round_psf() -> TruePsf:
    return TruePsf(profile(4.15, 0.6), SHAPE, np.zeros(5), np.zeros(5), np.zeros(5))


def galaxy(n: int, radius: float, g1: float, g2: float, x: float, y: float, wcs: Wcs = WCS) -> np.ndarray:
    row = np.zeros(1, GALAXY)
    row["ra"], row["dec"] = wcs.sky(x, y)
    row["sersic"], row["radius"], row["g1"], row["g2"] = n, radius, g1, g2
    return row


@pytest.mark.parametrize(("n", "radius"), [(1, 0.3), (1, 1.5), (4, 0.4)])
def test_a_galaxy_is_drawn_as_galsim_draws_it(n: int, radius: float) -> None:
    psf = round_psf()
    x, y = 64.4, 63.8
    image = np.zeros(SHAPE)
    add_galaxies(image, galaxy(n, radius, 0.2, -0.15, x, y), np.array([1000.0]), WCS, psf, 0.001)
    light = galsim.Convolve(galsim.Sersic(n=n, half_light_radius=radius / 0.2, flux=1000.0).shear(g1=0.2, g2=-0.15),
                            galsim.Kolmogorov(fwhm=psf.profile.atmosphere_fwhm),
                            galsim.Gaussian(fwhm=psf.profile.optics_fwhm))
    theirs = galsim.Image(SHAPE[1], SHAPE[0], scale=1.0, xmin=0, ymin=0)
    light.drawImage(theirs, center=galsim.PositionD(x, y))
    assert image.sum() == pytest.approx(theirs.array.sum(), rel=0.005 if n == 1 else 0.03)   # wings beyond the stamp
    assert np.abs(image - theirs.array).max() < 0.01 * theirs.array.max()


def test_a_point_like_galaxy_is_a_star() -> None:
    psf = round_psf()
    image = np.zeros(SHAPE)
    add_galaxies(image, galaxy(1, 1e-4, 0.0, 0.0, 64.4, 63.8), np.array([1.0]), WCS, psf, 1e-9)
    star = psf.draw_one(SHAPE, 64.4, 63.8)
    assert np.abs(image - star).max() < 2e-4 * star.max()


def test_a_galaxy_turns_with_the_camera() -> None:
    psf = round_psf()
    turned = Wcs.tangent(330.0, -12.0, SHAPE, rotation=90.0)
    images = []
    for wcs in (WCS, turned):
        image = np.zeros(SHAPE)
        add_galaxies(image, galaxy(1, 1.0, 0.4, 0.0, 64.0, 64.0, wcs), np.array([1.0]), wcs, psf, 1e-6)
        images.append(image)
    assert np.abs(images[0] - images[1].T).max() < 1e-3 * images[0].max()


def test_a_trail_conserves_flux_and_its_middle() -> None:
    psf = round_psf()
    image = np.zeros((301, 301))
    add_trails(image, np.array([130.0]), np.array([140.0]), np.array([170.0]), np.array([162.0]), np.array([10.0]), psf,
               1e-9)
    y, x = np.mgrid[:301, :301]
    assert image.sum() == pytest.approx(10.0, rel=0.003)
    assert (image * x).sum() / image.sum() == pytest.approx(150.0, abs=0.01)
    assert (image * y).sum() / image.sum() == pytest.approx(151.0, abs=0.01)
    profile_along = image[151, 150]
    assert profile_along == pytest.approx(10.0 / np.hypot(40, 22) * _line_peak(psf), rel=0.01)


def _line_peak(psf: TruePsf) -> float:
    """Peak of the PSF's line integral: what a long trail of unit flux per pixel has on its axis."""
    return float(psf.draw_one((801, 801), 400.0, 400.0)[:, 400].sum())


def test_galaxies_across_the_border_keep_the_light_that_is_inside() -> None:
    rng = np.random.default_rng(1)
    rows = np.concatenate([galaxy(1, 0.4, 0.1, 0.0, *rng.uniform(0, 128, 2)) for _ in range(50)])
    image = np.zeros(SHAPE)
    add_galaxies(image, rows, np.full(50, 100.0), WCS, round_psf(), 0.5)
    assert 3000 < image.sum() < 5000
