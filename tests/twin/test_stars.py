"""True static stars against those that calibration found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.images import Calibrated, Calibration
from pipeline.psf import Psf
from reports.store import Store
from schemas import mask
from schemas.exposure import AB_ZEROPOINT_NJY
from schemas.measures import STAR
from simulators.cadence import visits
from simulators.config import GalaxyConfig, StarConfig
from simulators.observe import Exposed, expose
from simulators.sky import Sky
from simulators.stars import band_index
from tests.simulators.test_observe import NO_GALAXIES, forced_flux, simulation
from twin.halves import observatory
from twin.stars import MIN_SNR, RADIUS_PX, contamination, flux_error, stars

SIDE = 400


def observed(density: float = 40.0, galaxies: GalaxyConfig = NO_GALAXIES) -> tuple[Sky, Exposed]:
    config = simulation(SIDE, stars=StarConfig(density=density, moved_per_visit_field=0.0), galaxies=galaxies)
    sky = Sky(config, 5)
    return sky, expose(sky, visits(config, 5)[0], 94, 5)


@pytest.fixture(scope="module")
def field() -> tuple[Sky, Exposed]:
    return observed()


def truth_of(sky: Sky, exposed: Exposed) -> np.ndarray:
    return stars(sky, exposed.exposure.visit, exposed, None)


def calibrated(exposed: Exposed, found: np.ndarray) -> Calibrated:
    plane = np.zeros(exposed.exposure.shape, np.float32)
    nothing = Calibration(*[np.nan] * 3, *[0] * 3, *[np.nan] * 5)  # type: ignore[arg-type]
    return Calibrated(exposed.exposure.visit, 94, plane, plane, plane.astype(np.int32),
                      Psf.constant(np.ones((3, 3)), plane.shape), exposed.facts.wcs, found, nothing, 1.0, 1.0)


def seen(sky: Sky, exposed: Exposed, rows: np.ndarray, shift_px: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """STAR rows where stars truly are, moved along x, their fluxes scaled."""
    of = sky.stars[np.searchsorted(sky.stars["id"], rows["starId"])]
    x, y = exposed.facts.wcs.pixels(of["ra"], of["dec"])
    out = np.zeros(len(rows), STAR)
    out["x"], out["y"], out["xErr"], out["yErr"] = x + shift_px, y, 0.1, 0.1
    out["flux"], out["fluxErr"] = rows["flux"] * scale, rows["flux"] / rows["snr"]
    return out


def test_the_error_is_the_skys_for_faint_stars_and_their_photons_for_bright_ones(field: tuple[Sky, Exposed]) -> None:
    _, exposed = field
    facts, gain = exposed.facts, exposed.exposure.gain
    electrons_per_njy = 10 ** (0.4 * (facts.zeropoint - AB_ZEROPOINT_NJY)) * gain
    faint, bright = flux_error(np.array([1.0, 1e9]), facts, gain)
    psf = facts.psf_at((SIDE - 1) / 2, (SIDE - 1) / 2)
    assert faint == pytest.approx(facts.noise_njy / np.sqrt(np.sum(psf**2)), rel=1e-3)
    assert bright == pytest.approx(np.sqrt(1e9 / electrons_per_njy), rel=0.01)
    assert bright > 100 * faint


def test_every_star_of_the_sky_above_the_threshold_is_listed_once(field: tuple[Sky, Exposed]) -> None:
    sky, exposed = field
    rows = truth_of(sky, exposed)
    x, y = exposed.facts.wcs.pixels(sky.stars["ra"], sky.stars["dec"])
    flux = sky.stars["flux"][:, band_index(exposed.exposure.visit.band)]
    on = (x > -0.5) & (x < SIDE - 0.5) & (y > -0.5) & (y < SIDE - 0.5)
    bright = flux > MIN_SNR * flux_error(flux, exposed.facts, exposed.exposure.gain)
    assert sorted(rows["starId"].tolist()) == sorted(sky.stars["id"][on & bright].tolist())
    assert len(rows) > 20
    assert np.sum(on & ~bright) > 5
    assert rows["snr"].min() >= MIN_SNR
    assert not rows["found"].any()


def test_contamination_is_what_a_matched_filter_collects_on_the_image() -> None:
    """Fluxes forced at true positions: others' light is what they have too much, within their errors."""
    sky, exposed = observed(200.0)
    rows = truth_of(sky, exposed)
    at = seen(sky, exposed, rows)
    inside = (at["x"] > 16) & (at["x"] < SIDE - 17) & (at["y"] > 16) & (at["y"] < SIDE - 17) & (rows["snr"] < 60)
    every_x, every_y = exposed.facts.wcs.pixels(sky.stars["ra"], sky.stars["dec"])
    flux = sky.stars["flux"][:, band_index(exposed.exposure.visit.band)]
    near = (np.abs(every_x - SIDE / 2) < SIDE) & (np.abs(every_y - SIDE / 2) < SIDE)
    light = contamination(at["x"], at["y"], every_x[near], every_y[near], flux[near], exposed.facts) - rows["flux"]
    measured = [forced_flux(exposed, float(s["x"]), float(s["y"])) for s in at[inside]]
    excess = np.array([m[0] for m in measured]) - rows["flux"][inside]
    error = (rows["flux"] / rows["snr"])[inside]
    blended, clean = light[inside] > 3 * error, rows["isolated"][inside]
    assert blended.sum() >= 10
    assert clean.sum() >= 20
    assert np.abs((excess - light[inside])[clean] / error[clean]).max() < 4.5
    off = excess - light[inside]
    assert np.median(np.abs(off[blended])) < 0.25 * np.median(excess[blended])


def test_stars_beside_brighter_ones_are_not_isolated() -> None:
    sparse, crowded = (truth_of(*observed(density)) for density in (5.0, 200.0))
    assert sparse["isolated"].mean() > 0.7
    assert crowded["isolated"].mean() < 0.5


def test_a_star_under_a_masked_pixel_is_not_judged(field: tuple[Sky, Exposed]) -> None:
    sky, exposed = field
    rows = truth_of(sky, exposed)
    x, y = (seen(sky, exposed, rows)[name] for name in ("x", "y"))
    planes = np.zeros_like(exposed.exposure.mask)
    planes[min(round(y[3]) + 1, SIDE - 1), round(x[3])] = mask.BAD
    masked = truth_of(sky, replace(exposed, exposure=replace(exposed.exposure, mask=planes)))
    apart = np.hypot(x - x[3], y - y[3]) > 4
    assert not masked["judged"][3]
    assert masked["judged"][apart].all()


def test_found_stars_carry_their_errors_on_the_sky(field: tuple[Sky, Exposed]) -> None:
    sky, exposed = field
    rows = truth_of(sky, exposed)
    lonely = rows[rows["isolated"]]
    found = stars(sky, exposed.exposure.visit, exposed, calibrated(exposed, seen(sky, exposed, lonely, 0.5, 1.02)))
    hit = found[np.isin(found["starId"], lonely["starId"])]
    assert hit["found"].all()
    assert not found["found"][~np.isin(found["starId"], lonely["starId"])].any()
    np.testing.assert_allclose(hit["psfFlux"] / hit["flux"], 1.02, rtol=1e-5)
    np.testing.assert_allclose(np.hypot(hit["dx_arcsec"], hit["dy_arcsec"]), 0.5 * 0.2, rtol=1e-3)
    np.testing.assert_allclose(hit["position_err_arcsec"], 0.1 * 0.2, rtol=1e-3)


def test_what_lies_too_far_is_not_the_star(field: tuple[Sky, Exposed]) -> None:
    sky, exposed = field
    one = truth_of(sky, exposed)
    one = one[one["isolated"]][:1]
    for shift, hit in ((0.9 * RADIUS_PX, True), (1.1 * RADIUS_PX, False)):
        found = stars(sky, exposed.exposure.visit, exposed, calibrated(exposed, seen(sky, exposed, one, shift)))
        assert bool(found["found"][found["starId"] == one["starId"]][0]) == hit


def test_two_stars_share_no_detection(field: tuple[Sky, Exposed]) -> None:
    """One detection between a star and its neighbour counts for the nearer alone."""
    sky, exposed = field
    rows = truth_of(sky, exposed)
    at = seen(sky, exposed, rows[:2])
    moved = sky.stars.copy()
    first, second = (np.searchsorted(sky.stars["id"], rows["starId"][k]) for k in (0, 1))
    x, y = at["x"][0], at["y"][0]
    moved["ra"][second], moved["dec"][second] = exposed.facts.wcs.sky(x + 1.0, y)
    sky_of_two = Sky(sky.config, 5)
    sky_of_two.stars = moved[[first, second]] if first < second else moved[[second, first]]
    found = stars(sky_of_two, exposed.exposure.visit, exposed, calibrated(exposed, at[:1]))
    assert found["found"][found["starId"] == rows["starId"][0]].all()
    assert found["found"].sum() == 1


def test_a_night_records_its_stars_and_what_calibration_made_of_them(night: Path) -> None:
    store = Store(night)
    rows = store.table("star")
    assert np.unique(rows["visit"]).tolist() == store.table("exposure_log")["visit"].tolist()
    bright = rows[rows["judged"] & rows["isolated"] & (rows["snr"] > 60)]
    assert len(bright) > 20
    assert bright["found"].mean() > 0.9
    seen = bright[bright["found"]]
    assert abs(np.median(seen["psfFlux"] / seen["flux"] - 1)) < 0.01
    assert np.median(np.hypot(seen["dx_arcsec"], seen["dy_arcsec"])) < 0.03


def test_the_depth_of_a_template_is_that_of_its_inputs(night: Path) -> None:
    """error^-2 of a point source is the sum of the inputs', each sky noise^2 times PSF area."""
    log = Store(night).table("exposure_log")
    here = observatory(night)
    inputs = here.inputs("r")
    error = np.sqrt(1 / sum(one.weight / one.facts.psf.effective_area for one in inputs))
    np.testing.assert_allclose(log["template_mag_lim"], AB_ZEROPOINT_NJY - 2.5 * np.log10(5 * error), atol=0.08)
    assert (log["template_n_inputs"] == len(inputs)).all()
    assert (log["template_high_variance"] < 0.05).all()
    assert (log["template_mag_lim"] > log["mag_lim"] + 0.2).all()      # two of such visits are deeper than one
    assert (log["n_star"] > 20).all()
