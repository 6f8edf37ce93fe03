"""A survey's sky: the same place holds the same sources whoever looks, and a visit sees what lies on its detectors."""

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import beta, norm

from schemas.exposure import Visit
from schemas.measures import EPHEMERIS_ORDER
from simulators import asteroids
from simulators.catalogs import CatalogModel
from simulators.config import CameraConfig, SimulationConfig
from simulators.wide_sky import (
    KINDS,
    Density,
    Plane,
    WideConfig,
    WideSky,
    around,
    density_of,
    limits,
    model_of,
    seen,
)

NIGHT = 61220.2
CONFIG = SimulationConfig(camera=CameraConfig(layout="lsstcam", select=("all",), ny=4000, nx=4072))
DENSITY = Density(variable=20.0, agn=15.0, transient=4.0, asteroid=30.0)


def visit_of(k: int, ra: float = 200.0, dec: float = -10.0, *, minutes: float = 0.0, rotation: float = 20.0,
             band: str = "r") -> Visit:
    return Visit(2026062800001 + k, band, ra, dec, rotation, NIGHT + minutes / 1440, 30.0, 1.1)


@lru_cache
def sky_of(seed: int = 1, cells: int = 1000) -> WideSky:
    return WideSky(CONFIG, WideConfig(cells=cells), DENSITY, seed, NIGHT)


def truth_of(sky: WideSky, visit: Visit) -> np.ndarray:
    return sky.truth(visit, seen(CONFIG, sky.wide, visit, 1, sky.plane.light))


@settings(deadline=None, max_examples=150)
@example(0.0, -90.0, 1.95)
@example(359.99, 89.9, 1.95)
@example(0.0, 0.0, 1.95)
@given(st.floats(0, 359.99), st.floats(-90, 90), st.floats(0.1, 3.0))
def test_the_cells_around_a_place_hold_every_point_of_the_circle(ra: float, dec: float, radius: float) -> None:
    angle = np.linspace(0, 2 * np.pi, 40)
    r = np.radians(radius) * np.tile([0.999, 0.5], 20)
    a, d = np.radians(ra), np.radians(dec)
    centre = np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
    east = np.array([-np.sin(a), np.cos(a), 0.0])
    north = np.cross(centre, east)
    points = (np.cos(r)[:, None] * centre
              + np.sin(r)[:, None] * (np.cos(angle)[:, None] * east + np.sin(angle)[:, None] * north))
    at_ra, at_dec = asteroids.sky(points)
    boxes = np.array([limits(k) for k in around(ra, dec, radius)])
    held = ((at_ra[:, None] >= boxes[:, 0] - 1e-9) & (at_ra[:, None] <= boxes[:, 1] + 1e-9)
            & (at_dec[:, None] >= boxes[:, 2] - 1e-9) & (at_dec[:, None] <= boxes[:, 3] + 1e-9))
    assert held.any(axis=1).all()


def test_cells_tile_the_sky() -> None:
    count = around(0.0, 0.0, 180.0)
    boxes = np.array([limits(k) for k in count])
    area = np.radians(boxes[:, 1] - boxes[:, 0]) * (np.sin(np.radians(boxes[:, 3])) - np.sin(np.radians(boxes[:, 2])))
    assert count == sorted(set(count))
    assert abs(area.sum() / (4 * np.pi) - 1) < 1e-12


def test_what_a_visit_sees_does_not_depend_on_other_visits_or_on_what_is_kept() -> None:
    visit, alone = visit_of(3), WideSky(CONFIG, WideConfig(), DENSITY, 1, NIGHT)
    expected = truth_of(alone, visit)
    busy = WideSky(CONFIG, WideConfig(cells=3), DENSITY, 1, NIGHT)
    for k, (ra, dec) in enumerate([(201.0, -9.0), (20.0, 60.0)]):
        truth_of(busy, visit_of(k, ra, dec))
    assert truth_of(busy, visit).tobytes() == expected.tobytes()
    assert len(busy._cells) <= 3
    other = WideSky(CONFIG, WideConfig(), DENSITY, 2, NIGHT)
    assert not np.isin(truth_of(other, visit)["ra"], expected["ra"]).any()


def test_static_sources_stay_and_asteroids_move_by_their_trails() -> None:
    first, second = (truth_of(sky_of(), visit_of(k, minutes=33.0 * k, rotation=20.0 + 5 * k)) for k in (0, 1))
    for rows in (first, second):
        assert len(np.unique(rows["truthId"])) == len(rows)
    shared, i, j = np.intersect1d(first["truthId"], second["truthId"], return_indices=True)
    static = first["kind"][i] != b"asteroid"
    assert len(shared) > 0.8 * min(len(first), len(second))
    np.testing.assert_array_equal(first["ra"][i[static]], second["ra"][j[static]])
    moved = np.hypot((first["ra"][i] - second["ra"][j]) * np.cos(np.radians(10.0)), first["dec"][i] - second["dec"][j])
    exposures = 33 * 60 / 30.0
    np.testing.assert_allclose(moved[~static] * 3600 / 0.2, first["trail_length"][i[~static]] * exposures, rtol=0.03)
    assert np.median(moved[~static]) > 0.002             # 0.1 deg a day


def test_known_asteroids_are_where_the_service_says_to_their_error() -> None:
    sky, visit = sky_of(), visit_of(0)
    truth, table = truth_of(sky, visit), sky.ephemerides(visit)
    known = truth[truth["ssObjectId"] > 0]
    share = len(known) / np.sum(truth["kind"] == b"asteroid")
    assert abs(share - 0.7) < 4 * np.sqrt(0.21 / np.sum(truth["kind"] == b"asteroid"))
    row = {int(k): i for i, k in enumerate(table["ssObjectId"])}
    at = table["object_xyz"][[row[int(k)] for k in known["ssObjectId"]]][:, :, 0]
    ra, dec = asteroids.sky(at)
    off = np.hypot((ra - known["ra"]) * np.cos(np.radians(known["dec"])), dec - known["dec"]) * 3600
    np.testing.assert_allclose(off, known["eph_err_arcsec"], atol=0.002)
    assert 0.05 < np.median(off) < 0.5
    assert table["object_xyz"].shape[2] == EPHEMERIS_ORDER + 1


@pytest.mark.parametrize("dec", [-86.0, 0.0, -30.0])
def test_every_row_is_on_its_detector_where_the_detectors_wcs_puts_it(dec: float) -> None:
    visit = visit_of(1, 0.3, dec, rotation=133.0)
    truth, wcs = truth_of(sky_of(), visit), Plane(CONFIG.camera).wcs(visit)
    assert np.all(np.diff(truth["detector"]) >= 0)
    assert len(np.unique(truth["detector"])) > 150
    for detector in np.unique(truth["detector"]):
        rows = truth[truth["detector"] == detector]
        x, y = wcs[detector].pixels(rows["ra"], rows["dec"])
        np.testing.assert_allclose(x, rows["x"], atol=1e-7)
        np.testing.assert_allclose(y, rows["y"], atol=1e-7)
        assert np.all((x > -0.5) & (x < 4071.5) & (y > -0.5) & (y < 3999.5))


def test_detectors_do_not_miss_and_do_not_share_the_sky() -> None:
    """As many static sources as the density and the detectors' area promise."""
    truth = truth_of(sky_of(7), visit_of(0))
    area = 189 * 4000 * 4072 * (0.2 / 3600) ** 2
    for kind, density in ((b"variable", DENSITY.variable), (b"agn", DENSITY.agn)):
        expected = density * area
        assert abs(np.sum(truth["kind"] == kind) - expected) < 4 * np.sqrt(expected)


def test_the_density_gives_the_alerts_that_are_asked_for() -> None:
    """Expected alerts of the drawn truth, over visits apart from each other, with false ones are as many as asked."""
    visits = [visit_of(k, 20.0 * k % 360, -60.0 + 5 * k, minutes=20.0 * k, band="gri"[k % 3]) for k in range(18)]
    wide = WideConfig(alerts_per_visit=2000.0, asteroids=0.0)
    density = density_of(CONFIG, wide, visits, 189, 1)
    assert density.asteroid == 0.0
    assert model_of(WideConfig()) == CatalogModel()
    sky, model = WideSky(CONFIG, wide, density, 5, NIGHT), CatalogModel()
    false = model.false_per_megapixel * (1 - model.false_flagged) * beta.sf(0.5, *model.score_false) * 189 * 16.288
    assert 100 < false < 1000
    counts = []
    for visit in visits:
        snr = model.snr_ratio * sky.truth(visit, seen(CONFIG, wide, visit, 1, sky.plane.light))["snr"]
        scored = np.where(np.abs(snr) < 10, beta.sf(0.5, *model.score_faint), beta.sf(0.5, *model.score_real))
        chance = model.efficiency * (1 - model.flagged) * (norm.sf(5 - snr) + norm.sf(5 + snr)) * scored
        counts.append(false + np.sum(chance))
    assert abs(np.mean(counts) / 2000.0 - 1) < 0.06


def test_shares_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="one of the shares"):
        WideConfig(variables=0.0, agn=0.0, transients=0.0, asteroids=0.0)
    assert WideConfig().shares.sum() == pytest.approx(1.0)
    assert len(KINDS) == len(WideConfig().shares)
    assert WideConfig().efficiency == CatalogModel().efficiency
