import numpy as np
import pytest
from msgspec import structs

from schemas.exposure import AB_ZEROPOINT_NJY, Visit
from simulators.cadence import history, visits
from simulators.conditions import DARK_SKY, FIDUCIAL_FWHM_EFF, Conditions
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
from simulators.observe import Exposed, circumstances, expose, sources
from simulators.sky import Sky

NO_STARS = StarConfig(density=0.0, moved_per_visit_field=0.0)
NO_GALAXIES = GalaxyConfig(density=0.0)
NO_TRANSIENTS = TransientConfig(per_field=0.0)
NO_VARIABLES = VariableConfig(stars_per_field=0.0, agn_per_field=0.0)
NO_ASTEROIDS = AsteroidConfig(belt_per_field=0.0, near_earth_per_field=0.0)
CLEAN = ArtifactConfig(cosmic_rays=0.0, streaks=0.0, bad_columns=0.0, bad_pixels=0.0, unknown_pixels=0.0)


def simulation(side: int = 400, artifacts: ArtifactConfig = CLEAN, cadence: CadenceConfig | None = None,
               detectors: tuple[int, ...] = (94,), **sky: object) -> SimulationConfig:
    parts = {"stars": NO_STARS, "galaxies": NO_GALAXIES, "transients": NO_TRANSIENTS, "variables": NO_VARIABLES,
             "asteroids": NO_ASTEROIDS} | sky
    return SimulationConfig(camera=CameraConfig(ny=side, nx=side, detectors=detectors), artifacts=artifacts,
                            cadence=cadence or CadenceConfig(blocks=("rr",), pairs=1),
                            sky=SkyConfig(**parts))  # type: ignore[arg-type]  # sections by name


def residual(exposed: Exposed) -> np.ndarray:
    """Electron-noise image over its noise: (observed - sky) / noise."""
    return np.asarray((exposed.exposure.image - exposed.facts.sky_adu) / exposed.facts.noise_adu)


def forced_flux(exposed: Exposed, x: float, y: float, half: int = 15) -> tuple[float, float]:
    """PSF flux and error [nJy] at a true position, sky-noise weights."""
    facts, ix, iy = exposed.facts, round(x), round(y)
    stamp = exposed.exposure.image[iy - half:iy + half + 1, ix - half:ix + half + 1] - facts.sky_adu
    model = facts.psf.around(x, y, 2 * half + 1)
    njy = 10 ** (0.4 * (AB_ZEROPOINT_NJY - facts.zeropoint))
    return float(np.sum(stamp * model) / np.sum(model**2) * njy), float(facts.noise_njy / np.sqrt(np.sum(model**2)))


@pytest.mark.parametrize("band", ["r", "i"])
def test_depth_on_pure_noise_is_that_of_the_m5_formula(band: str) -> None:
    config = simulation(600, cadence=CadenceConfig(blocks=(band + band,), pairs=1))
    now = Conditions(0.6, FIDUCIAL_FWHM_EFF[band], 1.0, DARK_SKY[band], 0.0)
    exposed = expose(Sky(config, 1), visits(config, 1)[0], 94, 1, now=now)
    psf = exposed.facts.psf_at(299.5, 299.5)
    blank = (exposed.exposure.image - np.median(exposed.exposure.image)).astype(float)
    padded = np.zeros(blank.shape)
    padded[:41, :41] = psf
    matched = np.fft.irfft2(np.fft.rfft2(blank) * np.conj(np.fft.rfft2(padded)), s=blank.shape) / np.sum(psf**2)
    sigma_e = matched.std() * config.camera.gain
    electrons = 12.5 + np.sqrt(12.5**2 + 25 * sigma_e**2)         # source noise included
    depth = exposed.facts.zeropoint + 2.5 * np.log10(config.camera.gain) - 2.5 * np.log10(electrons)
    assert depth == pytest.approx(exposed.facts.m5, abs=0.02)
    assert exposed.facts.m5 == pytest.approx({"r": 24.52, "i": 24.13}[band], abs=0.02)


def test_stars_have_their_flux_at_their_place() -> None:
    config = simulation(500, stars=StarConfig(density=60.0, slope=0.01, bright=18.0, faint=21.0,
                                              moved_per_visit_field=0.0))
    sky = Sky(config, 1)
    exposed = expose(sky, visits(config, 1)[0], 94, 1)
    x, y = exposed.facts.wcs.pixels(sky.stars["ra"], sky.stars["dec"])
    inside = np.flatnonzero((x > 20) & (x < 479) & (y > 20) & (y < 479))
    assert len(inside) >= 3
    for k in inside:
        near = np.hypot(x - x[k], y - y[k])
        if np.sort(near)[1] < 40:
            continue
        flux, error = forced_flux(exposed, float(x[k]), float(y[k]))
        true = sky.stars["flux"][k, 2]
        error = np.hypot(error, 1.2 * true / np.sqrt(true * 10 ** (0.4 * (exposed.facts.zeropoint - 31.4)) * 1.5))
        assert abs(flux - true) < 4.5 * error


def test_every_transient_is_where_truth_says_with_its_flux() -> None:
    config = simulation(700, transients=TransientConfig(per_field=80.0, fading=0.0, snr=(10.0, 50.0)))
    sky = Sky(config, 1)
    exposed = expose(sky, visits(config, 1)[0], 94, 1, template_visits=history(config, 1))
    truth = exposed.truth
    good = truth[truth["isolated"] & (truth["x"] > 20) & (truth["x"] < 679) & (truth["y"] > 20) & (truth["y"] < 679)]
    assert len(good) > 20
    pulls = []
    for row in good:
        flux, error = forced_flux(exposed, row["x"], row["y"])
        pulls.append((flux - row["flux"]) / np.hypot(error, np.sqrt(row["flux"] * exposed.facts.noise_njy) * 0.25))
    assert abs(np.mean(pulls)) < 4 / np.sqrt(len(pulls))
    assert np.std(pulls) < 1.4
    ra, dec = exposed.facts.wcs.sky(good["x"], good["y"])
    assert np.allclose(ra, good["ra"], atol=1e-9)
    assert np.allclose(dec, good["dec"], atol=1e-9)


def test_asteroids_trail_where_truth_says() -> None:
    config = simulation(700, asteroids=AsteroidConfig(belt_per_field=0.0, near_earth_per_field=60.0, snr=(60.0, 80.0)))
    sky = Sky(config, 2)
    exposed = expose(sky, visits(config, 2)[0], 94, 2)
    rows = exposed.truth
    rows = rows[(rows["x"] > 60) & (rows["x"] < 640) & (rows["y"] > 60) & (rows["y"] < 640) & rows["isolated"]]
    assert len(rows) > 5
    image = residual(exposed)
    seen = 0
    for row in rows:
        half = int(row["trail_length"] / 2 + 12)
        ix, iy = round(row["x"]), round(row["y"])
        others = np.hypot(exposed.truth["x"] - row["x"], exposed.truth["y"] - row["y"])
        if np.sort(others)[1] < 2 * half + 40 or row["trail_length"] < 10:
            continue
        stamp = image[iy - half:iy + half + 1, ix - half:ix + half + 1]
        weight = np.where(stamp > 3, stamp, 0)
        yy, xx = np.mgrid[-half:half + 1, -half:half + 1]
        cx, cy = (weight * xx).sum() / weight.sum(), (weight * yy).sum() / weight.sum()
        assert np.hypot(cx - (row["x"] - ix), cy - (row["y"] - iy)) < 1.5
        ixx, iyy, ixy = ((weight * u).sum() / weight.sum() for u in ((xx - cx)**2, (yy - cy)**2, (xx - cx) * (yy - cy)))
        angle = 0.5 * np.degrees(np.arctan2(2 * ixy, ixx - iyy))
        assert abs((angle - row["trail_angle"] + 90) % 180 - 90) < 8
        seen += 1
    assert seen >= 2


def test_moved_stars_have_two_places_and_truth_stands_between() -> None:
    config = simulation(500, stars=StarConfig(density=0.0, moved_per_visit_field=40.0, moved_mag=(19.0, 20.0),
                                              moved_separation_px=(4.0, 6.0)))
    sky = Sky(config, 3)
    night, earlier = visits(config, 3)[0], history(config, 3)[0]
    exposed = expose(sky, night, 94, 3, template_visits=history(config, 3))
    truth = exposed.truth[np.hypot(exposed.truth["x"] - 250, exposed.truth["y"] - 250) < 180]
    truth = truth[truth["isolated"]]
    assert len(truth)
    assert np.all((truth["separation_px"] > 3.9) & (truth["separation_px"] < 6.1))
    assert np.allclose(truth["template_flux"], truth["science_flux"])
    row = truth[0]
    angle = np.radians(row["trail_angle"])
    step = row["separation_px"] / 2 * np.array([np.cos(angle), np.sin(angle)])
    ends = [forced_flux(exposed, row["x"] + s * step[0], row["y"] + s * step[1])[0] for s in (-1, 1)]
    assert max(ends) == pytest.approx(row["science_flux"], rel=0.1)
    before = expose(sky, earlier, 94, 3)
    x, y = before.facts.wcs.pixels(row["ra"], row["dec"])
    assert forced_flux(before, float(x), float(y))[0] < 0.9 * row["science_flux"]


def test_an_exposure_depends_on_its_own_key_alone() -> None:
    config = simulation(300, ArtifactConfig(streaks=1.0), stars=StarConfig(), galaxies=GalaxyConfig(),
                        transients=TransientConfig(), variables=VariableConfig(), asteroids=AsteroidConfig())
    sky, night = Sky(config, 5), visits(config, 5)
    alone = expose(Sky(config, 5), night[1], 94, 5)
    expose(sky, night[0], 94, 5)
    after = expose(sky, night[1], 94, 5)
    assert np.array_equal(alone.exposure.image, after.exposure.image)
    assert alone.truth_pixels.tobytes() == after.truth_pixels.tobytes()
    assert not np.array_equal(alone.exposure.image, expose(sky, night[0], 94, 5).exposure.image)


def test_truth_without_pixels_is_the_truth_with_them() -> None:
    config = simulation(300, stars=StarConfig(), galaxies=GalaxyConfig(), transients=TransientConfig())
    sky, night = Sky(config, 6), visits(config, 6)
    a = expose(sky, night[0], 94, 6, template_visits=history(config, 6)).truth
    b = sources(sky, night[0], 94, 6, template_visits=history(config, 6))
    for name in ("truthId", "x", "y", "flux", "template_flux", "isolated"):
        assert np.array_equal(a[name], b[name])


def test_the_pointing_is_wrong_by_a_few_arcseconds_and_a_twentieth_degree() -> None:
    config = simulation(1000)
    sky = Sky(config, 7)
    offsets, turns = [], []
    for k in range(60):
        visit = Visit(2027082200000 + k, "r", 330.0, -12.0, 33.0, 61639.2, 30.0)
        facts = circumstances(sky, visit, 94, 7)
        offsets.append(facts.pointing_offset_arcsec)
        ra, dec = facts.pointing.sky(np.array([0.0, 999.0]), np.array([499.5, 499.5]))
        x, y = facts.wcs.pixels(ra, dec)
        turns.append(np.degrees(np.arctan2(y[1] - y[0], x[1] - x[0])))
    assert 2.0 < max(offsets) <= 3.0
    assert np.abs(turns).max() < 0.055
    assert np.std(turns) > 0.02


def test_detectors_of_one_visit_tile_the_focal_plane() -> None:
    config = simulation(300, detectors=(90, 91, 92, 93))
    sky, visit = Sky(config, 8), visits(simulation(300, detectors=(90, 91, 92, 93)), 8)[0]
    corner = [circumstances(sky, visit, d, 8).wcs.sky(149.5, 149.5) for d in (90, 91, 92, 93)]
    east = np.array([((c[0] - visit.ra + 180) % 360 - 180) * np.cos(np.radians(visit.dec)) for c in corner])
    north = np.array([c[1] - visit.dec for c in corner])
    separation = np.hypot(east[:, None] - east, north[:, None] - north) * 3600 / 0.2
    assert np.allclose(np.sort(separation[0]), [0, 360, 360, 360 * np.sqrt(2)], rtol=1e-3)
    assert abs(east.mean()) * 3600 < 0.1


def test_an_unknown_detector_is_refused() -> None:
    config = simulation(300)
    with pytest.raises(ValueError, match="detector must be one of"):
        expose(Sky(config, 1), visits(config, 1)[0], 5, 1)


@pytest.mark.bench
@pytest.mark.parametrize("side", [1000, 4000])
def test_time_of_an_exposure(side: int, benchmark: object) -> None:
    config = SimulationConfig(camera=CameraConfig(ny=side, nx=side))
    sky, night = Sky(config, 1), visits(config, 1)
    exposed = benchmark(expose, sky, night[0], 94, 1)  # type: ignore[operator]  # pytest-benchmark has no types
    assert exposed.exposure.shape == (side, side)


def test_a_sky_gradient_tilts_the_sky_and_leaves_its_mean() -> None:
    config = simulation(200)
    tilted = structs.replace(config, conditions=structs.replace(config.conditions, sky_gradient=0.1))
    first = visits(config, 3)[0]
    flat, steep = (expose(Sky(c, 3), first, 94, 3, keep_noiseless=True) for c in (config, tilted))
    assert flat.noiseless is not None
    assert steep.noiseless is not None
    ratio = (steep.noiseless - flat.noiseless) / steep.facts.sky_adu
    corners = ratio[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert abs(ratio.mean()) < 1e-4
    assert 0.1 <= np.ptp(corners) <= 0.1 * np.sqrt(2) + 1e-4
    assert np.ptp(flat.noiseless) == 0
