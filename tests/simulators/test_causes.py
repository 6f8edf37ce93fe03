import numpy as np

from simulators.cadence import visits
from simulators.causes import dominant
from simulators.config import (
    ArtifactConfig,
    AsteroidConfig,
    CadenceConfig,
    CameraConfig,
    ConditionsConfig,
    SimulationConfig,
    SkyConfig,
    StarConfig,
)
from simulators.observe import by_cause, expose
from simulators.sky import Sky

EVERYTHING = ArtifactConfig(cosmic_rays=20.0, streaks=1.0, unknown_pixels=200.0, bad_columns=100.0, glints=1.0,
                            satellites=1e7, aircraft=1.0, aircraft_mag=(22.0, 22.1), ghosts=2e-2, spikes=0.05,
                            crosstalk=1e-2, bleed_residual=0.1, bad_flats=1.0, bad_wcs=1.0)
CONFIG = SimulationConfig(
    camera=CameraConfig(ny=500, nx=480), artifacts=EVERYTHING, cadence=CadenceConfig(blocks=("rr",), pairs=1),
    conditions=ConditionsConfig(clouds=0.3, cloud_structure=0.5, refraction=True, sky_gradient=0.02),
    sky=SkyConfig(stars=StarConfig(bright=9.0, slope=0.01, density=8.0, moved_per_visit_field=20.0),
                  asteroids=AsteroidConfig(belt_per_field=60.0)))


def test_rendered_one_cause_at_a_time_the_parts_are_the_whole() -> None:
    for config in (CONFIG, SimulationConfig(camera=CameraConfig(ny=500, nx=480))):
        sky, visit = Sky(config, 3), visits(config, 3)[0]
        maps = by_cause(sky, visit, 94, 3)
        exposed = expose(sky, visit, 94, 3)
        image = exposed.exposure.image.astype(float) * config.camera.gain
        largest = np.max([np.abs(part) for part in maps.values()], axis=0)
        # float32 pixels, and float64 sums of many terms
        assert np.all(np.abs(sum(maps.values()) - image) <= 1.2e-7 * np.abs(image) + 1e-10 * largest + 1e-9)


def test_every_class_and_artifact_has_a_map_and_is_where_truth_has_it() -> None:
    sky, visit = Sky(CONFIG, 3), visits(CONFIG, 3)[0]
    maps = by_cause(sky, visit, 94, 3)
    assert {"sky", "star", "galaxy", "transient", "variable", "agn", "moved_star", "asteroid", "satellite", "aircraft",
            "glint", "ghost", "spike", "photon noise", "cosmic_ray", "saturation", "crosstalk", "bleed_residual",
            "read noise", "bad_flat", "defect"} <= set(maps)
    truth = expose(sky, visit, 94, 3).truth
    for kind in (b"transient", b"asteroid"):
        rows = truth[(truth["kind"] == kind) & (truth["science_flux"] > 500.0)]
        light = maps[kind.decode()]
        at = light[np.rint(rows["y"]).astype(int), np.rint(rows["x"]).astype(int)]
        assert len(rows)
        assert np.all(at > 0)
    assert np.mean(maps["asteroid"] == 0) > 0.3             # nothing where nothing is


def test_the_strongest_cause_of_a_pixel_is_named() -> None:
    maps = {"sky": np.full((3, 3), 900.0), "photon noise": np.full((3, 3), 30.0), "star": np.zeros((3, 3)),
            "cosmic_ray": np.zeros((3, 3))}
    maps["star"][0, :] = 50.0
    maps["cosmic_ray"][:, 0] = 80.0
    names, index = dominant(maps, 10.0)
    assert [[names[k] if k >= 0 else "" for k in row] for row in index.tolist()] == [
        ["cosmic_ray", "star", "star"], ["cosmic_ray", "", ""], ["cosmic_ray", "", ""]]
    assert dominant({"sky": np.ones((2, 2))}, 1.0)[1].tolist() == [[-1, -1], [-1, -1]]


def test_a_part_left_out_would_be_noticed() -> None:
    sky, visit = Sky(CONFIG, 3), visits(CONFIG, 3)[0]
    maps = by_cause(sky, visit, 94, 3)
    image = expose(sky, visit, 94, 3).exposure.image * CONFIG.camera.gain
    for name in ("agn", "glint", "crosstalk"):
        rest = sum(part for other, part in maps.items() if other != name)
        assert np.abs(rest - image).max() > 1.0
