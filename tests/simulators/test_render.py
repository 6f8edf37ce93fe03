"""The fast renderer against GalSim's own drawing of the same truth, and what it costs."""

import resource
import time

import galsim
import numpy as np
import pytest

from schemas.wcs import Wcs
from simulators.cadence import visits
from simulators.conditions import SYSTEM_FWHM, fwhm_eff
from simulators.config import (
    ArtifactConfig,
    AsteroidConfig,
    CadenceConfig,
    CameraConfig,
    GalaxyConfig,
    SimulationConfig,
    SkyConfig,
    StarConfig,
    TransientConfig,
    VariableConfig,
)
from simulators.galaxies import GALAXY
from simulators.images import add_galaxies, add_trails
from simulators.observe import expose
from simulators.psf import TruePsf, profile
from simulators.sky import Sky

SHAPE = (257, 257)
X, Y = 128.37, 127.81
SHEAR = (0.2, -0.15)                       # of the galaxies
FINE = galsim.GSParams(folding_threshold=1e-3, maxk_threshold=1e-4, maximum_fft_size=16384)
NIGHTS = [(0.4, "y", 1.0, 0.05), (0.655, "r", 1.17, 0.0), (1.4, "u", 1.6, -0.03)]   # FWHM500, band, airmass, PSF's g1
MORE_NIGHTS = [(seeing, band, airmass, g1) for seeing, airmass in ((0.4, 1.0), (0.655, 1.17), (1.0, 1.4), (1.4, 1.9))
               for band in "ugrizy" for g1 in (0.0, 0.05)]
SOURCES = ["star", "sersic 1 0.15", "sersic 1 1.0", "sersic 4 0.4", "sersic 4 1.2", "trail 4", "trail 20", "trail 60"]


def made_psf(seeing: float, band: str, airmass: float, g1: float) -> tuple[TruePsf, galsim.GSObject]:
    """Ours and GalSim's PSF, without the pixel."""
    first = np.array([1.0, 0, 0, 0, 0])
    circular = profile(fwhm_eff(seeing, band, airmass) / 0.2, float(np.clip(SYSTEM_FWHM / seeing, 0.2, 1.0)))
    ours = TruePsf(circular, SHAPE, np.zeros(5), g1 * first, np.zeros(5))
    theirs = galsim.Convolve(galsim.Kolmogorov(fwhm=ours.profile.atmosphere_fwhm, gsparams=FINE),
                             galsim.Gaussian(fwhm=ours.profile.optics_fwhm, gsparams=FINE), gsparams=FINE)
    return ours, theirs.shear(g1=g1, g2=0.0)


def drawn(source: str, psf: TruePsf, light: galsim.GSObject) -> tuple[np.ndarray, np.ndarray, float]:
    """(our image, GalSim's, the source's own size [pixel]) of a source of 1000 at (X, Y)."""
    kind, *numbers = source.split()
    ours, size = np.zeros(SHAPE), 0.0
    if kind == "star":
        ours, shape = psf.draw_one(SHAPE, X, Y, 1000.0), light
    elif kind == "sersic":
        n, radius = int(numbers[0]), float(numbers[1])
        wcs, row = Wcs.tangent(330.0, -12.0, SHAPE), np.zeros(1, GALAXY)
        row["ra"], row["dec"] = wcs.sky(X, Y)
        row["sersic"], row["radius"], row["g1"], row["g2"] = n, radius, *SHEAR
        add_galaxies(ours, row, np.array([1000.0]), wcs, psf, 5e-4)
        size = radius / 0.2 * 0.7
        own = galsim.Sersic(n=n, half_light_radius=radius / 0.2, gsparams=FINE).shear(g1=SHEAR[0], g2=SHEAR[1])
        shape = galsim.Convolve(own, light, gsparams=FINE)
    else:
        length, angle = float(numbers[0]), np.radians(65.0)
        half = length / 2 * np.array([np.cos(angle), np.sin(angle)])
        add_trails(ours, np.array([X - half[0]]), np.array([Y - half[1]]), np.array([X + half[0]]),
                   np.array([Y + half[1]]), np.array([1000.0]), psf, 1e-4)
        size = length / 2
        shape = galsim.Convolve(galsim.Box(length, 1e-4).rotate(angle * galsim.radians), light, gsparams=FINE)
    theirs = galsim.Image(SHAPE[1], SHAPE[0], scale=1.0, xmin=0, ymin=0)
    (shape * 1000.0).drawImage(theirs, center=galsim.PositionD(X, Y))
    return ours, np.asarray(theirs.array, float), size


def weighted(image: np.ndarray, sigma: float) -> tuple[float, float, float, float]:
    """Flux, centre and size under a Gaussian window: what a measurement would see."""
    y, x = np.mgrid[:SHAPE[0], :SHAPE[1]]
    light = image * np.exp(-0.5 * ((x - X) ** 2 + (y - Y) ** 2) / sigma**2)
    total = light.sum()
    cx, cy = (light * x).sum() / total, (light * y).sum() / total
    return total, cx, cy, np.sqrt((light * ((x - cx) ** 2 + (y - cy) ** 2)).sum() / total)


def differences(source: str, night: tuple[float, str, float, float]) -> tuple[float, float, float]:
    """(flux over GalSim's - 1, distance of the centres [mas], size over GalSim's - 1)."""
    psf, light = made_psf(*night)
    ours, theirs, size = drawn(source, psf, light)
    window = float(np.hypot(0.6 * psf.profile.atmosphere_fwhm, size))
    a, b = weighted(ours, window), weighted(theirs, window)
    return a[0] / b[0] - 1.0, float(np.hypot(a[1] - b[1], a[2] - b[2])) * 200.0, a[3] / b[3] - 1.0


def assert_agrees(found: tuple[float, float, float]) -> None:
    flux, centre, size = found
    assert abs(flux) < 0.002
    assert centre < 5.0
    assert abs(size) < 0.01


@pytest.mark.parametrize("night", NIGHTS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_has_galsims_flux_place_and_size(source: str, night: tuple[float, str, float, float]) -> None:
    assert_agrees(differences(source, night))


@pytest.mark.accept
def test_in_every_band_and_seeing_fluxes_are_within_two_parts_in_a_thousand_of_galsims() -> None:
    print("\nworst over bands, FWHM500 0.4-1.4 arcsec, airmass 1-1.9, round and sheared PSFs\n"
          f"{'source':15}{'flux':>9}{'mas':>7}{'size':>9}")
    for source in SOURCES:
        found = np.abs([differences(source, night) for night in MORE_NIGHTS])
        print(f"{source:15}{found[:, 0].max():9.2%}{found[:, 1].max():7.2f}{found[:, 2].max():9.2%}")
        for row in found:
            assert_agrees(tuple(row))


def test_a_psf_five_percent_wider_would_be_noticed() -> None:
    psf, light = made_psf(*NIGHTS[1])
    ours, theirs, _ = drawn("star", psf, light.dilate(1.05))
    window = 0.6 * psf.profile.atmosphere_fwhm
    assert abs(weighted(ours, window)[3] / weighted(theirs, window)[3] - 1.0) > 0.01


def test_light_of_point_sources_is_all_there() -> None:
    for night in NIGHTS:
        ours, theirs, _ = drawn("star", *made_psf(*night))
        assert ours.sum() == pytest.approx(theirs.sum(), rel=5e-4)


def whole_ccd(stars: int) -> SimulationConfig:
    """An r exposure of 4072 x 4000 px with so many stars, 6,300 galaxies, a satellite, and all that changes.

    Densities are counted to r = 25.5, the faintest drawn.
    """
    area = 4072 * 4000 * (0.2 / 60) ** 2
    sky = SkyConfig(stars=StarConfig(density=stars / area / 10 ** (0.18 * 0.5), moved_per_visit_field=0.3),
                    galaxies=GalaxyConfig(density=6300 / area / 10 ** (0.37 * 0.5)),
                    transients=TransientConfig(per_field=3),
                    variables=VariableConfig(stars_per_field=3, agn_per_field=2),
                    asteroids=AsteroidConfig(belt_per_field=3, near_earth_per_field=1))
    return SimulationConfig(camera=CameraConfig(ny=4072, nx=4000), cadence=CadenceConfig(blocks=("rr",), pairs=1),
                            sky=sky, artifacts=ArtifactConfig(streaks=1.0))


@pytest.mark.bench
@pytest.mark.parametrize(("stars", "limit_s"), [(1_100, 4.0), (70_000, 6.0)])
def test_a_whole_ccd_is_drawn_in_seconds_and_little_memory(stars: int, limit_s: float) -> None:
    config = whole_ccd(stars)
    sky, night = Sky(config, 1), visits(config, 1)
    expose(sky, night[0], 94, 1)                       # kernels and tables
    start = time.process_time()
    exposed = expose(sky, night[1], 94, 1)
    spent = time.process_time() - start
    x, y = exposed.facts.wcs.pixels(sky.stars["ra"], sky.stars["dec"])
    drawn_stars = int(np.sum((x > 0) & (x < 4000) & (y > 0) & (y < 4072)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"\n{drawn_stars} stars: {spent:.2f} s of CPU (at most {limit_s}), {memory:.2f} GB of memory (at most 1.5)")
    assert drawn_stars == pytest.approx(stars, rel=0.1)
    assert spent <= limit_s
    assert memory <= 1.5
