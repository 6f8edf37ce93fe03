"""One picture with a stamp of each artifact that a scenario has, or of every one that the simulators make.

    scenario settings with one artifact on -> exposure -> pixels around its row of TRUTH_PIXELS, in sigmas of the sky
"""

from collections.abc import Mapping, Sequence
from typing import Final

import matplotlib as mpl
import msgspec
import numpy as np
from matplotlib.figure import Figure

from reports.drawing import styled
from schemas.exposure import fluxes_njy
from schemas.mask import BAD
from simulators.cadence import history, visits
from simulators.config import SimulationConfig
from simulators.events import without_missing
from simulators.observe import Exposed, expose
from simulators.sky import Sky

SIDE: Final = 1000
STAR: Final = (420.0, 560.0)                # where the bright star stands [pixel]
QUIET: Final = {"cosmic_rays": 0.0, "streaks": 0.0, "bad_columns": 0.0, "bad_pixels": 0.0, "unknown_pixels": 0.0}
NIGHT: Final = {"night_mjd": 61639, "blocks": ["rr"], "pairs": 1, "history_per_band": 1}

# name -> (kind of its row, settings of the artifact, of other sections, half the stamp's side [pixel], the star's mag)
STAMPS: Final[Mapping[str, tuple[str, Mapping[str, object], Mapping[str, Mapping[str, object]], int, float | None]]] = {
    "cosmic rays": ("cosmic_ray", {"cosmic_rays": 30.0}, {}, 40, None),
    "satellite, Gaussian": ("satellite", {"streaks": 1.0, "streak_mag": [20.5, 20.6]}, {}, 120, None),
    "satellite lit by the sun, 550 km": ("satellite", {"satellites": 5e6, "satellite_mag": [9.5, 9.6]},
                                         {"cadence": {"start_mjd_tai": 61638.985}, "field": {"ra": 270.0, "dec": -20.0},
                                          "conditions": {"fwhm_eff": 0.6}}, 60, None),
    "glints": ("glint", {"glints": 1.0}, {}, 300, None),
    "aircraft": ("aircraft", {"aircraft": 1.0, "aircraft_mag": [23.0, 23.1]}, {}, 500, None),
    "ghosts": ("ghost", {"ghosts": 1e-3}, {}, 500, 4.5),
    "diffraction spikes": ("spike", {"spikes": 0.005}, {}, 300, 10.0),
    "saturation and bleeding": ("bleed", {}, {}, 120, 11.5),
    "bleed residual": ("bleed_residual", {"bleed_residual": 0.2}, {}, 200, 12.0),
    "crosstalk": ("crosstalk", {"crosstalk": 1e-3}, {}, 100, 10.5),
    "bad column": ("bad_column", {"bad_columns": 60.0}, {}, 60, None),
    "hot pixel": ("hot_pixel", {"unknown_pixels": 60.0}, {}, 20, None),
    "bad flat": ("bad_flat", {"bad_flats": 1.0, "bad_flat_rms": 0.05}, {}, 500, None),
    "bent WCS: change of the image": ("bad_wcs", {"bad_wcs": 1.0}, {}, 60, None),
    "end of the template's sky": ("template_edge", {}, {"cadence": {"history_missing": 0.4}}, 500, None),
    "clouds: thinner is brighter": ("", {}, {"conditions": {"clouds": 0.7, "cloud_structure": 0.7}}, 500, None),
}


def stamp(name: str, seed: int = 3) -> tuple[np.ndarray, Exposed]:
    """((n, n) image in sigmas of the sky, the exposure) of one artifact."""
    kind, artifact, sections, half, magnitude = STAMPS[name]
    exposed = _exposed(artifact, sections, magnitude, seed, earlier=kind == "template_edge")
    image = (exposed.calibrated.image - exposed.facts.sky_adu) / exposed.facts.noise_adu
    if kind == "bad_wcs":
        before = _exposed({}, sections, magnitude, seed)
        assert exposed.noiseless is not None
        assert before.noiseless is not None
        image = (exposed.noiseless - before.noiseless) / exposed.facts.noise_adu
    if exposed.facts.cloud is not None:
        thin = exposed.facts.cloud.transmission(exposed.facts.wcs, exposed.calibrated.visit, exposed.calibrated.shape)
        image = 2.0 * (thin - thin.mean()) / thin.std()
    if kind == "template_edge":
        image = np.where(exposed.calibrated.mask & BAD, np.nan, image)
    rows = exposed.truth_pixels[exposed.truth_pixels["kind"] == kind.encode()]
    x, y = float(SIDE / 2), float(SIDE / 2)
    if len(rows) and half < SIDE // 2:
        middle = np.stack([rows["x0"] + rows["x1"], rows["y0"] + rows["y1"]], 1) / 2
        longest = np.hypot(rows["x1"] - rows["x0"], rows["y1"] - rows["y0"]).argmax()
        row = rows[longest if kind == "cosmic_ray" else np.argmin(np.hypot(*(middle - SIDE / 2).T))]
        x, y = (float(row["x0"] + row["x1"]) / 2, float(row["y0"] + row["y1"]) / 2)
        if kind in ("spike", "bleed", "bleed_residual"):
            x, y = STAR
        if kind == "bad_wcs":
            y, x = map(float, divmod(int(np.abs(image).argmax()), SIDE))
    ix, iy = (int(np.clip(round(v), half, SIDE - half)) for v in (x, y))
    return image[iy - half:iy + half, ix - half:ix + half], exposed


def _exposed(artifact: Mapping[str, object], sections: Mapping[str, Mapping[str, object]], magnitude: float | None,
             seed: int, *, earlier: bool = False) -> Exposed:
    settings = {"camera": {"ny": SIDE, "nx": SIDE}, "artifacts": QUIET | dict(artifact),
                "cadence": NIGHT | dict(sections.get("cadence", {})),
                "conditions": {"fwhm_eff": 0.8, "sky_scatter": 0.0, "zeropoint_scatter": 0.0}
                | dict(sections.get("conditions", {})),
                "field": dict(sections.get("field", {})),
                "sky": {"stars": {"density": 4.0, "bright": 16.0}, "galaxies": {"density": 15.0}}}
    config = msgspec.convert(settings, SimulationConfig)
    sky = Sky(config, seed)
    visit = history(config, seed)[0] if earlier else visits(config, seed)[0]
    if magnitude is not None:
        wcs = expose(sky, visit, 94, seed).facts.wcs
        sky.stars["flux"][0], (sky.stars["ra"][0], sky.stars["dec"][0]) = fluxes_njy(magnitude), wcs.sky(*STAR)
    exposed = expose(sky, visit, 94, seed, keep_noiseless=True)
    whole = without_missing(exposed.calibrated, exposed.facts.wcs, config, seed)
    return Exposed(whole, exposed.truth, exposed.truth_pixels, exposed.facts, exposed.noiseless)


def shown(config: SimulationConfig) -> list[str]:
    """Names of the stamps of what a scenario has."""
    beyond = {"end of the template's sky": config.cadence.history_missing > 0.0,
              "clouds: thinner is brighter": config.conditions.cloud_structure > 0.0,
              "saturation and bleeding": config.artifacts.bleeding}
    return [name for name, (_, artifact, *_) in STAMPS.items()
            if beyond.get(name, any(getattr(config.artifacts, key) for key in list(artifact)[:1]))]


@styled
def gallery(names: Sequence[str]) -> Figure:
    """A stamp of each artifact named, as the simulators draw it at a strength that shows it."""
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.4 * rows), dpi=90, layout="constrained")
    colours = mpl.colormaps["gray"].with_extremes(bad="#b05050")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, name in zip(axes, names, strict=False):
        image, _ = stamp(name)
        panel.imshow(np.arcsinh(image / 2.0), origin="lower", cmap=colours, vmin=-1.6, vmax=3.5,
                     interpolation="nearest")
        panel.set_title(f"{name}, {image.shape[0]} px", fontsize=9, fontweight="normal")
    for panel in axes:
        panel.set_axis_off()
    return figure
