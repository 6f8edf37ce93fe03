"""Artifacts that a scenario asks for: what passes over, what bright stars leave, bad flats and WCS, no template."""

import numpy as np
import pytest
from msgspec import structs

from schemas import mask as planes
from schemas.exposure import Visit, fluxes_njy
from simulators import almanac, events, passing
from simulators.cadence import history, visits
from simulators.conditions import Conditions, transit
from simulators.config import ArtifactConfig, CadenceConfig, GalaxyConfig, SimulationConfig, StarConfig, TransientConfig
from simulators.observe import Exposed, circumstances, expose
from simulators.psf import TruePsf, profile
from simulators.sky import Sky
from simulators.stars import STAR
from tests.simulators.test_observe import CLEAN, forced_flux, simulation

NOW = Conditions(0.6, 0.8, 1.1, 21.0, 0.0)
SIDE = 800


def asked(**settings: object) -> ArtifactConfig:
    return structs.replace(CLEAN, **settings)


def visit(number: int = 1, mjd: float = 61639.2, ra: float = 330.0, dec: float = -12.0) -> Visit:
    return Visit(2027082200000 + number, "r", ra, dec, 20.0, mjd, 30.0)


def exposed_star(artifacts: ArtifactConfig, mag: float, x: float, y: float, number: int = 1) -> Exposed:
    """An exposure of one bright star at a place."""
    config = simulation(SIDE, artifacts)
    sky, v = Sky(config, 1), visit(number)
    facts = circumstances(sky, v, 94, 1, now=NOW)
    sky.stars = np.zeros(1, STAR)
    sky.stars["ra"], sky.stars["dec"] = facts.wcs.sky(np.array([x]), np.array([y]))
    sky.stars["flux"] = fluxes_njy(mag)
    return expose(sky, v, 94, 1, now=NOW)


def change(artifacts: ArtifactConfig, mag: float, x: float = 300.0, y: float = 420.0) -> tuple[np.ndarray, Exposed]:
    """What artifacts change in the image of a bright star [sigma of the sky], and the exposure."""
    with_, without = (exposed_star(a, mag, x, y) for a in (artifacts, CLEAN))
    difference = with_.exposure.image.astype(float) - without.exposure.image
    return difference / with_.facts.noise_adu, with_


def covered(rows: np.ndarray, margin: float, shape: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """(ny, nx) pixels within the rows' widths and a margin."""
    y, x = np.mgrid[:shape[0], :shape[1]].astype(float)
    out = np.zeros(shape, bool)
    for row in rows:
        dx, dy = float(row["x1"] - row["x0"]), float(row["y1"] - row["y0"])
        t = np.clip(((x - row["x0"]) * dx + (y - row["y0"]) * dy) / max(dx * dx + dy * dy, 1e-9), 0.0, 1.0)
        out |= np.hypot(x - row["x0"] - t * dx, y - row["y0"] - t * dy) <= row["width"] / 2 + margin
    return out


@pytest.mark.parametrize(("kind", "settings", "mag"), [
    ("ghost", {"ghosts": 1e-2}, 6.5), ("spike", {"spikes": 0.01}, 9.5), ("crosstalk", {"crosstalk": 3e-3}, 10.0),
    ("bleed_residual", {"bleed_residual": 1.0}, 12.0), ("bad_flat", {"bad_flats": 1.0, "bad_flat_rms": 0.2}, 18.0)])
def test_what_changes_is_where_the_truth_says(kind: str, settings: dict[str, float], mag: float) -> None:
    sigmas, exposed = change(asked(**settings), mag)
    rows = exposed.truth_pixels[exposed.truth_pixels["kind"] == kind.encode()]
    assert len(rows)
    strong = np.abs(sigmas) > 12.0         # Poisson noise drawn anew stays below; the star's own core does not
    y, x = np.mgrid[:SIDE, :SIDE]
    strong &= (exposed.exposure.mask == 0) & (np.hypot(x - 300, y - 420) > 80)
    assert strong.sum() > 20
    assert np.mean(covered(rows, 6.0)[strong]) > 0.97
    without = exposed_star(CLEAN, mag, 300.0, 420.0)
    assert kind.encode() not in without.truth_pixels["kind"].tolist()


def test_a_ghost_is_the_pupils_ring_with_the_asked_share_of_light() -> None:
    sigmas, exposed = change(asked(ghosts=1e-2), 6.5, 380.0, 390.0)
    light = exposed.facts.noise_adu * sigmas
    rows = exposed.truth_pixels[exposed.truth_pixels["kind"] == b"ghost"]
    inner = rows[rows["width"] < 100]
    cx, cy = inner["x0"].mean(), inner["y0"].mean()
    y, x = np.mgrid[:SIDE, :SIDE]
    r = np.hypot(x - cx, y - cy)
    ring = (r > 120) & (r < 170)
    total = 10 ** (0.4 * (exposed.facts.zeropoint - 6.5))
    area = np.pi * 180.0**2 * (1 - 0.61**2)
    assert np.median(light[ring]) == pytest.approx(0.7 * 1e-2 * total / area, rel=0.25)    # the wide one adds a little
    assert np.hypot(cx - (399.5 - 0.85 * -19.5), cy - (399.5 - 0.85 * -9.5)) < 3.0


def test_spikes_are_four_and_turn_with_the_hour_angle() -> None:
    directions = []
    for mjd in (61639.16, 61639.22):
        config = simulation(SIDE, asked(spikes=0.01))
        sky, v = Sky(config, 1), visit(1, mjd)
        facts = circumstances(sky, v, 94, 1, now=NOW)
        sky.stars = np.zeros(1, STAR)
        sky.stars["ra"], sky.stars["dec"] = facts.wcs.sky(np.array([400.0]), np.array([400.0]))
        sky.stars["flux"] = fluxes_njy(9.0)
        rows = expose(sky, v, 94, 1, now=NOW).truth_pixels
        rows = rows[rows["kind"] == b"spike"]
        angles = np.degrees(np.arctan2(rows["y1"] - rows["y0"], rows["x1"] - rows["x0"])) % 360.0
        assert np.allclose(np.diff(np.sort(angles)), 90.0, atol=0.1)
        directions.append(float(angles[0]) % 90.0)
    turned = almanac.zenith_angle(330.0, -12.0, 61639.22) - almanac.zenith_angle(330.0, -12.0, 61639.16)
    assert abs((directions[1] - directions[0] - turned + 45.0) % 90.0 - 45.0) < 0.5
    assert abs((turned + 45.0) % 90.0 - 45.0) > 5.0


def test_satellites_shine_in_twilight_and_not_at_midnight() -> None:
    config = SimulationConfig(artifacts=ArtifactConfig(streaks=0.0, satellites=1e4))
    midnight = 61639.2
    for sun_lower, sun_higher, lit in ((-90.0, -40.0, False), (-16.0, -10.0, True)):
        for mjd in np.arange(midnight - 0.25, midnight, 0.004):
            ra = float(almanac.sidereal_deg(mjd))                     # at the zenith
            sun = almanac.circumstances(ra, almanac.SITE[1], mjd).sun_alt
            if sun_lower < sun < sun_higher:
                assert (passing.expected_trails(config, visit(1, mjd, ra, almanac.SITE[1])) > 0) == lit


def test_a_shell_is_dark_where_the_earths_shadow_reaches_it() -> None:
    """At the zenith a satellite of height h is lit while R / (R + h) < cos(depression): to 23 deg at 550 km."""
    limit = np.degrees(np.arccos(6378.137 / 6928.137))
    for mjd in np.arange(61638.95, 61639.05, 0.002):
        ra = float(almanac.sidereal_deg(mjd))
        sun = almanac.circumstances(ra, almanac.SITE[1], mjd).sun_alt
        if -40.0 < sun < 0.0 and abs(-sun - limit) > 0.1:
            assert passing.shell(visit(1, mjd, ra, almanac.SITE[1]), 1.0, 550.0).sunlit == (-sun < limit)


def test_trails_are_as_many_as_the_shell_sends() -> None:
    config = SimulationConfig(artifacts=ArtifactConfig(streaks=0.0, satellites=1e7))
    seen = [visit(k, 61638.985, 270.0, -20.0) for k in range(300)]
    expected = passing.expected_trails(config, seen[0])
    n = sum(len(passing.satellite_tracks(config, v, 1)) for v in seen)
    assert abs(n - 300 * expected) < 4 * np.sqrt(300 * expected)
    assert passing.expected_trails(config, visit(1, 61639.2)) == 0.0
    zenith = passing.shell(visit(1, 61638.985, float(almanac.sidereal_deg(61638.985)), almanac.SITE[1]), 1e4, 550.0)
    assert zenith.range_km == pytest.approx(550.0, rel=1e-3)
    assert zenith.rate_deg_s == pytest.approx(0.79, abs=0.01)         # 7.59 km/s at 550 km
    assert zenith.per_deg2 == pytest.approx(1e4 / (4 * np.pi * 6928.1**2) * np.radians(550.0) ** 2, rel=1e-3)


def test_a_satellites_profile_is_its_defocused_ring_and_keeps_its_light() -> None:
    psf = TruePsf(profile(3.0, 0.6), (400, 400), np.zeros(5), np.zeros(5), np.zeros(5))
    track = passing.Track((0.0, 1.0), (0.0, 1.0), 20.0, 3.13, False, range_km=550.0)
    table, step = passing.cross_section(track, psf, 0.2)
    outer = np.degrees(8.36 / 550e3) * 3600 / 0.2 / 2
    assert 2 * table.sum() * step - table[0] * step == pytest.approx(3.13 / 0.2, rel=0.005)   # a band of that width
    half = step * np.flatnonzero(table > table.max() / 2).max()
    assert half == pytest.approx(outer, abs=1.2)                # 3.1 arcsec wide at 550 km
    assert table[0] < 0.97 * table.max()                        # the middle is darker: the pupil has a hole
    far, _ = passing.cross_section(structs_range(track, 36000.0), psf, 0.2)
    assert far[0] == far.max()                                  # nearly in focus: the PSF's own line


def structs_range(track: passing.Track, range_km: float) -> passing.Track:
    return passing.Track(track.ra, track.dec, track.surface_mag, track.fwhm_arcsec, False, range_km=range_km)


def test_an_aircraft_is_minutes_of_arc_wide() -> None:
    config = simulation(SIDE, asked(aircraft=1.0, aircraft_mag=(22.0, 22.1)))
    exposed = expose(Sky(config, 1), visit(), 94, 1, now=NOW)
    rows = exposed.truth_pixels[exposed.truth_pixels["kind"] == b"aircraft"]
    assert len(rows) >= 1
    assert np.all(rows["width"] == pytest.approx(862.0, abs=1.0))   # 8.36 m / 10 km in pixels of 0.2 arcsec
    assert np.mean(exposed.exposure.image) > 1.05 * exposed.facts.sky_adu


# --- flats and WCS ---------------------------------------------------------------------------------------------------

def test_a_wrong_flat_comes_as_often_as_asked_and_changes_whole_amplifiers() -> None:
    config = simulation(160, asked(bad_flats=0.2))
    n = sum(len(events.bad_flat(config, visit(k), 94, 1)[1]) > 0 for k in range(400))
    assert abs(n - 80) < 4 * np.sqrt(80 * 0.8)
    factor, rows = events.bad_flat(simulation(SIDE, asked(bad_flats=1.0)), visit(), 94, 1)
    amplifiers = rows[:-1]
    assert np.unique(np.round(factor[::40, ::40], 4)).size > 2
    assert {row[0] for row in amplifiers} == {"bad_flat"}


def test_a_bent_wcs_bends_by_what_was_asked_and_no_line_fits_it() -> None:
    config = simulation(1000, asked(bad_wcs=1.0, bad_wcs_arcsec=0.6), detectors=(90, 91))
    straight = simulation(1000, detectors=(90, 91))
    for detector in (90, 91):
        a, b = (expose(Sky(c, 1), visit(), detector, 1, now=NOW).facts for c in (config, straight))
        x, y = (g.ravel() for g in np.meshgrid(np.linspace(0, 999, 9), np.linspace(0, 999, 9)))
        moved = np.stack([p - q for p, q in zip(a.wcs.pixels(*b.wcs.sky(x, y)), (x, y), strict=True)], 1) * 0.2
        design = np.stack([np.ones_like(x), x, y], 1)
        left = moved - design @ np.linalg.lstsq(design, moved, rcond=None)[0]
        assert 0.1 < np.hypot(*moved.T).max() < 1.3
        assert np.hypot(*left.T).max() > 0.15
        assert np.hypot(*moved[40]) < 0.01                      # not at the detector's centre
        assert a.pointing == b.pointing


def test_a_bent_visit_and_the_templates_end_have_their_rows() -> None:
    config = simulation(SIDE, asked(bad_wcs=1.0), cadence=CadenceConfig(blocks=("rr",), pairs=1, history_missing=0.4))
    exposed = expose(Sky(config, 1), visits(config, 1)[0], 94, 1)
    assert {b"bad_wcs", b"template_edge"} <= set(exposed.truth_pixels["kind"].tolist())


# --- templates -------------------------------------------------------------------------------------------------------

def test_earlier_visits_lack_the_same_sky_and_the_share_asked() -> None:
    cadence = CadenceConfig(blocks=("rr",), pairs=1, history_per_band=3, history_missing=0.4)
    config = simulation(SIDE, cadence=cadence)
    sky = Sky(config, 2)
    shares, seen = [], []
    rng = np.random.default_rng(1)
    px, py = rng.uniform(60, SIDE - 60, (2, 400))
    reference = expose(sky, history(config, 2)[0], 94, 2).facts.wcs
    ra, dec = reference.sky(px, py)
    for earlier in history(config, 2):
        exposed = expose(sky, earlier, 94, 2)
        cut = events.without_missing(exposed.exposure, exposed.facts.wcs, config, 2)
        missing = (cut.mask & planes.BAD) > 0
        x, y = exposed.facts.wcs.pixels(ra, dec)
        inside = (x > 2) & (x < SIDE - 3) & (y > 2) & (y < SIDE - 3)
        seen.append(np.where(inside, missing[np.rint(np.clip(y, 0, SIDE - 1)).astype(int),
                                            np.rint(np.clip(x, 0, SIDE - 1)).astype(int)], 2))
        shares.append(missing.mean())
    assert 0.25 < np.mean(shares) < 0.55
    agree = (seen[0] == seen[1]) | (seen[0] == 2) | (seen[1] == 2)
    assert np.mean(agree) > 0.98


def test_bands_without_history_have_none_and_others_keep_theirs() -> None:
    full = SimulationConfig()
    first_year = structs.replace(full, cadence=structs.replace(full.cadence, history_without=("g",)))
    kept = [v for v in history(full, 1) if v.band != "g"]
    assert {v.band for v in history(first_year, 1)} == {"r", "i"}
    assert [v.mjd_tai for v in history(first_year, 1)] == [v.mjd_tai for v in kept]


def test_a_transient_in_the_template_is_a_negative_source_of_its_truth() -> None:
    """Contamination is labelled: TRUTH has the template's flux, and the difference of images has that of TRUTH."""
    config = simulation(700, transients=TransientConfig(per_field=40.0, fading=1.0, snr=(30.0, 60.0), hosted=0.0),
                        cadence=CadenceConfig(blocks=("rr",), pairs=1, history_per_band=4))
    sky, earlier = Sky(config, 1), history(config, 1)
    night = expose(sky, visits(config, 1)[0], 94, 1, template_visits=earlier)
    rows = night.truth[night.truth["isolated"] & (np.hypot(night.truth["x"] - 350, night.truth["y"] - 350) < 280)]
    rows = rows[rows["template_flux"] > 1000.0]
    assert len(rows) > 3
    assert np.all(rows["flux"] < 0)
    drawn = [expose(sky, v, 94, 1) for v in earlier]
    for row in rows:
        before = [forced_flux(e, *(float(q) for q in e.facts.wcs.pixels(row["ra"], row["dec"]))) for e in drawn]
        template, error = np.mean([f for f, _ in before]), np.hypot.reduce([s for _, s in before]) / len(before)
        now, now_error = forced_flux(night, float(row["x"]), float(row["y"]))
        assert abs(now - template - row["flux"]) < 5 * np.hypot(error, now_error) + 0.03 * row["template_flux"]


def test_the_gallery_shows_every_artifact_it_names() -> None:
    from twin.artifact_gallery import STAMPS, stamp
    for name in ("cosmic rays", "diffraction spikes", "end of the template's sky"):
        image, exposed = stamp(name)
        kind = STAMPS[name][0].encode()
        assert kind in exposed.truth_pixels["kind"].tolist()
        assert image.shape == (2 * STAMPS[name][3],) * 2
        assert np.isnan(image).any() == (name == "end of the template's sky")


def test_defaults_have_none_of_these() -> None:
    config = SimulationConfig(sky=structs.replace(SimulationConfig().sky, stars=StarConfig(), galaxies=GalaxyConfig()))
    exposed = expose(Sky(config, 1), visits(config, 1)[0], 94, 1)
    assert set(exposed.truth_pixels["kind"].tolist()) <= {b"cosmic_ray", b"satellite", b"bleed", b"saturated",
                                                          b"bad_column", b"bad_pixel", b"hot_pixel"}
    assert transit(330.0, 61639) > 0
