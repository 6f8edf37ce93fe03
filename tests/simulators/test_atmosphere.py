"""Seeing's memory, refraction by colour, clouds with structure, one field of PSF shapes."""

import galsim
import numpy as np
import pytest
from galsim import dcr
from msgspec import structs

from schemas.exposure import Visit
from schemas.wcs import Wcs
from simulators import refraction
from simulators.clouds import cloud
from simulators.conditions import WAVELENGTH_NM, Conditions, airmass, fwhm500
from simulators.config import CameraConfig, ConditionsConfig, SimulationConfig
from simulators.observe import circumstances, expose
from simulators.psf import field_psf, shape_field
from simulators.sky import Sky
from tests.simulators.test_observe import simulation

# v2.0 baseline, first year: autocorrelation of ln FWHM500 (hours, value, tolerance); the model has 0.23 at 8 hours
MEMORY = [(45 / 3600, 0.94, 0.05), (0.15, 0.81, 0.06), (0.5, 0.66, 0.06), (1.0, 0.59, 0.06), (2.0, 0.49, 0.06),
          (4.0, 0.40, 0.08), (8.0, 0.14, 0.17), (24.0, 0.15, 0.07), (72.0, 0.15, 0.08)]


def test_baseline_seeing_has_the_measured_memory_from_seconds_to_days() -> None:
    config = ConditionsConfig(seeing="baseline", fwhm500_min=0.01, fwhm500_max=9.0)
    lags = [0.0, *(hours / 24 for hours, _, _ in MEMORY)]
    values = np.log([[fwhm500(config, 60000.55 + 3 * night + lag, seed) for lag in lags]
                     for seed in range(40) for night in range(12)])
    found = np.corrcoef(values.T)[0, 1:]
    for value, (hours, expected, tolerance) in zip(found, MEMORY, strict=True):
        assert value == pytest.approx(expected, abs=tolerance), hours
    assert np.mean(values) == pytest.approx(np.log(0.655), abs=0.05)
    assert np.std(values) == pytest.approx(0.34, rel=0.08)
    quantiles = np.exp(np.quantile(values[:, 0], [0.25, 0.75]))
    assert quantiles[0] == pytest.approx(0.53, rel=0.08)
    assert quantiles[1] == pytest.approx(0.82, rel=0.08)


# --- refraction ------------------------------------------------------------------------------------------------------

def visit(band: str = "g", hours: float = 3.0) -> Visit:
    mjd = 61639.16 + hours / 24
    return Visit(2027082200001, band, 330.0, -12.0, 20.0, mjd, 30.0, airmass=airmass(330.0, -12.0, mjd))


@pytest.mark.parametrize("wavelength", [320.0, 480.0, 700.0, 1000.0])
def test_air_refracts_as_galsim_has_it(wavelength: float) -> None:
    theirs = dcr.air_refractive_index_minus_one(wavelength, pressure=75.0, temperature=283.15, H2O_pressure=0.267)
    assert refraction.index_minus_one(wavelength) == pytest.approx(theirs, rel=0.002)


@pytest.mark.parametrize(("band", "tolerance_mas"), [("u", 80.0), ("g", 25.0), ("r", 10.0), ("i", 5.0)])
def test_blue_and_red_galaxies_are_lifted_as_their_spectra_say(band: str, tolerance_mas: float) -> None:
    airmass_, through = 1.5, galsim.Bandpass(f"LSST_{band}.dat", "nm")
    wave = np.linspace(through.blue_limit, through.red_limit, 800)
    lift = refraction.lift_arcsec(wave, airmass_)
    found, expected = [], []
    for name in ("CWW_E_ext.sed", "CWW_Im_ext.sed"):
        sed = galsim.SED(name, "Ang", "flambda").atRedshift(0.0)
        rate = sed(wave) * through(wave)
        expected.append(float((rate * lift).sum() / rate.sum()))
        flux = np.array([[sed(w) * w for w in WAVELENGTH_NM.values()]])        # f_nu: photons per nm times wavelength
        found.append(float(refraction.lifts(flux, structs_visit(band, airmass_))[0]))
    assert found[1] > found[0]                                                 # the blue one nearer to the zenith
    assert (found[1] - found[0] - (expected[1] - expected[0])) * 1e3 == pytest.approx(0.0, abs=tolerance_mas)


def structs_visit(band: str, airmass_: float) -> Visit:
    return Visit(1, band, 330.0, -12.0, 0.0, 61639.3, 30.0, airmass=airmass_)


def test_refraction_moves_sources_along_the_vertical() -> None:
    v = visit()
    ra, dec = refraction.displaced(np.array([330.0]), np.array([-12.0]), np.array([30.0]), v)
    assert airmass(float(ra[0]), float(dec[0]), v.mjd_tai) < v.airmass
    sine = [1 / airmass(a, d, v.mjd_tai) for a, d in ((330.0, -12.0), (float(ra[0]), float(dec[0])))]
    assert np.degrees(np.diff(np.arcsin(sine)))[0] * 3600 == pytest.approx(30.0, rel=0.01)


def test_dispersion_lengthens_the_psf_along_the_vertical() -> None:
    v = visit("g", 3.8)
    config = simulation(200)
    config = structs.replace(config, conditions=structs.replace(config.conditions, refraction=True),
                             camera=structs.replace(config.camera, psf_ellipticity=0.0, psf_size_variation=0.0))
    now = Conditions(0.6, 0.8, v.airmass, 22.0, 0.0)
    facts = circumstances(Sky(config, 1), v, 94, 1, now=now)
    stamp = facts.psf.draw_one((201, 201), 100.0, 100.0)
    y, x = np.mgrid[:201, :201] - 100.0
    weight = stamp * np.exp(-0.5 * (x**2 + y**2) / 3.0**2)
    xx, yy, xy = ((weight * q).sum() / weight.sum() for q in (x * x, y * y, x * y))
    angle = 0.5 * np.degrees(np.arctan2(2 * xy, xx - yy))
    up = facts.wcs.pixels(*refraction.displaced(np.array([330.0]), np.array([-12.0]), np.array([10.0]), v))
    foot = facts.wcs.pixels(330.0, -12.0)
    vertical = np.degrees(np.arctan2(up[1][0] - foot[1], up[0][0] - foot[0]))
    assert np.hypot(xx - yy, 2 * xy) / (xx + yy) > 0.02
    assert abs((angle - vertical + 90.0) % 180.0 - 90.0) < 1.5
    assert 1.0 / np.sum(stamp**2) == pytest.approx(2.266 * (facts.conditions.fwhm_eff / 0.2) ** 2, rel=0.01)


def test_a_blue_and_a_red_star_part_at_low_altitude() -> None:
    config = simulation(300)
    config = structs.replace(config, conditions=structs.replace(config.conditions, refraction=True, fwhm_eff=0.7))
    sky, v, places = Sky(config, 1), visit("g", 4.0), []
    facts = circumstances(sky, v, 94, 1)
    from simulators.stars import STAR
    for colour in (-1.0, 1.0):
        sky.stars = np.zeros(1, STAR)
        sky.stars["ra"], sky.stars["dec"] = facts.wcs.sky(150.0, 150.0)
        sky.stars["flux"] = 3e5 * np.array(list(WAVELENGTH_NM.values())) ** (3 * colour) / 480.0 ** (3 * colour)
        exposed = expose(sky, v, 94, 1, keep_noiseless=True)
        assert exposed.noiseless is not None
        light = exposed.noiseless - exposed.facts.sky_adu
        y, x = np.mgrid[:300, :300]
        places.append(np.array([(light * x).sum(), (light * y).sum()]) / light.sum())
    expected = refraction.dispersion("g", v.airmass) * -6.0 * 42.7**2 / 480.69
    assert np.hypot(*(places[1] - places[0])) * 0.2 == pytest.approx(expected, rel=0.05)
    assert 0.05 < expected < 0.5


# --- clouds ----------------------------------------------------------------------------------------------------------

def cloudy(structure: float = 0.4) -> SimulationConfig:
    return SimulationConfig(conditions=ConditionsConfig(clouds=0.5, cloud_structure=structure))


def test_clouds_have_their_mean_and_structure_and_more_of_it_on_large_scales() -> None:
    means, spreads, near, far = [], [], [], []
    xi, eta = (g.ravel() for g in np.meshgrid(np.linspace(-1.7, 1.7, 30), np.linspace(-1.7, 1.7, 30)))
    for k in range(60):
        one = cloud(cloudy(), Visit(k, "r", 330.0, -12.0, 0.0, 61639.2, 30.0), 1, 1.0)
        assert one is not None
        tau = one.extinction(xi, eta)
        means.append(tau.mean())
        spreads.append(tau.std())
        near.append(np.mean((one.extinction(xi + 0.1, eta) - tau) ** 2))
        far.append(np.mean((one.extinction(xi + 0.8, eta) - tau) ** 2))
        assert tau.min() >= 0.0
    assert np.mean(means) == pytest.approx(1.0, abs=0.1)
    assert np.mean(np.square(spreads)) < 0.4**2 * 1.2                  # the largest waves are longer than the field
    assert np.mean(far) > 4 * np.mean(near)                            # Kolmogorov: (0.8 / 0.1)^(5/3) = 32 below 3 deg


def test_the_cloud_is_the_same_for_neighbouring_detectors() -> None:
    config = simulation(300, detectors=(93, 94))
    config = structs.replace(config, conditions=ConditionsConfig(clouds=0.5, cloud_structure=0.5))
    sky, v = Sky(config, 1), visit("r", 0.0)
    now = Conditions(0.6, 0.8, 1.1, 21.0, 0.6)
    left, right = (circumstances(sky, v, d, 1, now=now) for d in (93, 94))
    assert left.cloud is not None
    assert right.cloud is not None
    assert left.conditions.extinction != right.conditions.extinction
    a = left.cloud.transmission(left.wcs, v, (300, 300))
    x, y = right.wcs.pixels(*left.wcs.sky(299.0, 150.0))
    wide = right.cloud.transmission(right.wcs.shifted(-400, 0), v, (300, 700))      # reaches over the left one
    assert a[150, 299] == pytest.approx(wide[150, round(float(x)) + 400], rel=1e-4)
    assert y == pytest.approx(150.0, abs=1.0)


def test_stars_lose_what_the_cloud_takes_and_the_sky_does_not() -> None:
    from simulators.stars import STAR
    config = simulation(400)
    thin, v = structs.replace(config, conditions=ConditionsConfig(cloud_structure=0.8)), visit("r", 0.0)
    now = Conditions(0.6, 0.8, 1.1, 21.0, 0.8)
    light = {}
    for name, c in (("even", config), ("structured", thin)):
        sky = Sky(c, 3)
        facts = circumstances(sky, v, 94, 3, now=now)
        sky.stars = np.zeros(2, STAR)
        sky.stars["ra"], sky.stars["dec"] = facts.wcs.sky(np.array([60.0, 340.0]), np.array([200.0, 200.0]))
        sky.stars["flux"] = 1e5
        exposed = expose(sky, v, 94, 3, now=now, keep_noiseless=True)
        assert exposed.noiseless is not None
        image = exposed.noiseless - exposed.facts.sky_adu
        light[name] = (image[:, :120].sum(), image[:, 280:].sum(), np.median(image), exposed.facts)
    facts = light["structured"][3]
    assert facts.cloud is not None
    plain = Wcs((0.0, 0.0), (v.ra, v.dec), (1.0, 0.0, 0.0, 1.0))
    tau = facts.cloud.extinction(*plain.pixels(*facts.wcs.sky(np.array([60.0, 340.0]), np.array([200.0, 200.0]))))
    for k in range(2):
        ratio = light["structured"][k] / light["even"][k]
        assert ratio == pytest.approx(10 ** (-0.4 * (tau[k] - now.extinction)), rel=0.02)
    assert light["structured"][2] == pytest.approx(0.0, abs=0.05)


# --- one field of shapes ---------------------------------------------------------------------------------------------

def test_neighbouring_detectors_agree_on_the_psf_where_they_meet() -> None:
    field = shape_field(np.random.default_rng(5), size_variation=0.02, ellipticity=0.03)
    steps, shears = [], []
    for ox in (-6000.0, 2000.0, 8000.0):
        for oy in (-8000.0, 8000.0):
            left, _ = field_psf(4.2, 0.65, (4000, 4000), field, (ox, oy), 0.2)
            right, _ = field_psf(4.2, 0.65, (4000, 4000), field, (ox + 4000.0, oy), 0.2)
            y = np.linspace(0, 3999, 9)
            a, b = left.matrices(np.full(9, 3999.0), y), right.matrices(np.zeros(9), y)
            shear = [(m[:, 0, 0] - m[:, 1, 1]) / (m[:, 0, 0] + m[:, 1, 1]) for m in (a, b)]
            steps.append(shear[0] - shear[1])
            shears.append(shear[0])
    assert np.std(shears) > 0.005
    assert np.abs(steps).max() < 0.05 * np.std(shears) + 5e-4


def test_ellipticity_over_the_focal_plane_has_the_asked_size() -> None:
    g = []
    for k in range(200):
        field = shape_field(np.random.default_rng(k), size_variation=0.02, ellipticity=0.03)
        for x, y in ((0.0, 0.0), (0.7, 0.3), (-0.5, -0.6), (0.2, -0.9)):
            g.append(field.local(x, y, 0.06, 0.06)[1:, 0])
    assert np.std(g) == pytest.approx(0.03, rel=0.25)


def test_a_field_of_shapes_gives_the_depth_its_own_formula_claims() -> None:
    config = SimulationConfig(camera=CameraConfig(ny=300, nx=300, detectors=(1, 2, 3, 4), psf_field="focal_plane",
                                                  psf_size_variation=0.1))
    sky, now = Sky(config, 1), Conditions(0.6, 0.8, 1.0, 21.0, 0.0)
    for detector in config.camera.detectors:
        facts = circumstances(sky, visit("r", 0.0), detector, 1, now=now)
        area = 2.266 * (facts.conditions.fwhm_eff / 0.2) ** 2
        assert facts.psf.effective_area == pytest.approx(area, rel=0.01)
