"""`alert-twin sky SCENARIO`: what the scenario's sky looks like, drawn and counted, without running its night.

    field.png          the first visit's detector in colour, with the declared sources that shine then
    visits.png         the night's outlines on the sky, and all visits over time
    light_curves.png   one source of each declared class, six bands
    psf.png            size and ellipticity of the first visit's PSF over the detectors
    artifacts.png      a stamp of each artifact that the scenario has, or of every one
    minor_planets.png  orbits, rates and counts of the population, where the scenario has one
    densities.png      events, sources and stars per square degree, beside what is published
    densities.md       the same in numbers
"""

from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from reports.drawing import png
from reports.sky import (
    PSF_PLACE,
    VISIT,
    Curves,
    Density,
    Marked,
    density_table,
    plot_densities,
    plot_field,
    plot_light_curves,
    plot_psf,
    plot_visits,
)
from schemas.exposure import AB_ZEROPOINT_NJY, BANDS, Visit, fluxes_njy, magnitudes
from simulators import cadence
from simulators.camera import offset_px, true_wcs
from simulators.densities import LIMITS, explosive_densities, gaussian_densities, star_counts, stellar_densities
from simulators.observe import circumstances, scene_njy
from simulators.populations import EXPLOSIVE, Population
from simulators.sky import Sky
from twin.artifact_gallery import STAMPS, gallery, shown
from twin.folders import claimed
from twin.minor_planets_figure import population_figure
from twin.scenario import Scenario

# Events per deg^2 and year that peak brighter than LIMITS, and those live at any time, from the rates of ELAsTiCC and
# Perley et al. 2020 with Gaussian peaks and a crude K correction of 1.0 z: right to an order of magnitude. The K
# correction alone costs type Ia supernovae 0.9 mag at z = 0.5.
CRUDE: Final = "published rates, Gaussian peaks, K = 1.0 z"
PUBLISHED: Final[dict[tuple[str, ...], tuple[tuple[float, ...], tuple[float, ...]]]] = {
    ("sn_ia",): ((1.1, 5.3, 14.0, 32.0, 47.0), (0.20, 1.1, 3.0, 7.7, 12.0)),
    ("sn_ii",): ((0.35, 2.1, 6.8, 20.0, 34.0), (0.12, 0.75, 2.5, 8.0, 14.0)),
    ("sn_iin",): ((0.22, 1.2, 3.3, 8.7, 14.0), (0.09, 0.50, 1.5, 4.3, 7.0)),
    ("sn_iib", "sn_ib", "sn_ic"): ((0.28, 1.7, 5.5, 16.0, 28.0), (0.04, 0.29, 0.96, 3.1, 5.4)),
    ("slsn_i",): ((0.015, 0.06, 0.13, 0.27, 0.38), ()),
    ("tde",): ((0.04, 0.14, 0.24, 0.39, 0.47), ()),
    ("kilonova",): ((0.001, 0.004, 0.011, 0.033, 0.055), ())}
STAR_LIMITS: Final = (18.0, 20.0, 22.0, 24.0, 25.0)
FIELD_BANDS: Final = "gri"             # blue, green, red of the picture
SPANS: Final = {"kilonova": (-5.0, 20.0), "m_flare": (-0.05, 0.05), "rr_lyrae": (-1.0, 1.0),
                "dwarf_nova": (-200.0, 50.0), "eclipsing": (-2.0, 2.0), "sn_ia": (-100.0, 100.0),
                "microlensing": (-150.0, 150.0)}


def draw_sky(scenario: Scenario, out: Path, *, every_artifact: bool = False) -> str:
    """Write the pictures into a new folder; the table of densities as text."""
    with claimed(out):
        sky = Sky(scenario.simulation, scenario.seed)
        night = cadence.visits(scenario.simulation, scenario.seed)
        rows = densities(sky)
        (out / "field.png").write_bytes(png(_field(sky, night)))
        (out / "visits.png").write_bytes(png(_visits(sky, night)))
        (out / "light_curves.png").write_bytes(png(plot_light_curves(light_curves(sky, night))))
        (out / "psf.png").write_bytes(png(_psf(sky, night[0])))
        if names := list(STAMPS) if every_artifact else shown(scenario.simulation):
            (out / "artifacts.png").write_bytes(png(gallery(names), 90))
        if sky.solar_system is not None:
            (out / "minor_planets.png").write_bytes(png(population_figure(sky.night, scenario.seed)))
        (out / "densities.png").write_bytes(png(plot_densities(rows)))
        table = density_table(rows)
        (out / "densities.md").write_text(table, encoding="utf-8")
    return table


# --- the field and the visits ----------------------------------------------------------------------------------------

def _field(sky: Sky, night: list[Visit]) -> Figure:
    config, visit = sky.config, night[0]
    detector = config.camera.detectors[0]
    planes = [scene_njy(sky, visit, detector, sky.seed, band) for band in FIELD_BANDS]
    wcs = circumstances(sky, visit, detector, sky.seed).wcs
    marked, limit = [], float(fluxes_njy(25.0))
    for found in sky.populations:
        x, y = wcs.pixels(found.rows["ra"], found.rows["dec"])
        seen = (found.fluxes(2, visit.mjd_tai) > limit) & (x > 0) & (x < config.camera.nx) & (y > 0) & (
            y < config.camera.ny)
        if seen.any():
            marked.append(Marked(found.name, x[seen], y[seen]))
    points = sky.points(visit)
    x, y = wcs.pixels(points["ra"], points["dec"])
    moving = (points["kind"] == b"asteroid") & (points["flux"] > limit) & (x > 0) & (x < config.camera.nx) & (y > 0) & (
        y < config.camera.ny)
    if moving.any():
        marked.append(Marked("minor planets", x[moving], y[moving]))
    return plot_field(_colour(planes), marked, f"{config.field.target_name}: g, r, i without noise; marks: r < 25")


def _colour(planes: list[np.ndarray]) -> np.ndarray:
    """(ny, nx, 3) red, green, blue in 0..1 of three planes from blue to red [nJy per pixel] (Lupton et al. 2004)."""
    balanced = np.stack([planes[2] * 0.7, planes[1], planes[0] * 1.6], axis=-1)
    mean = balanced.mean(axis=-1, keepdims=True)
    knee = 20.0                       # [nJy] per pixel: about the sky's noise in 30 s
    bright = np.arcsinh(mean / knee) / np.arcsinh(600.0)
    return np.asarray(np.clip(balanced / np.maximum(mean, 1e-9) * bright, 0.0, 1.0))


def _visits(sky: Sky, night: list[Visit]) -> Figure:
    past = cadence.history(sky.config, sky.seed)
    rows = np.array([(v.ra, v.dec, v.mjd_tai, v.band.encode(), old) for old, of in ((True, past), (False, night))
                     for v in of], VISIT)
    camera = sky.config.camera
    x, y = np.array([0, camera.nx - 1, camera.nx - 1, 0]), np.array([0, 0, camera.ny - 1, camera.ny - 1])
    corners = [np.stack([np.stack(true_wcs(camera, visit, detector, sky.seed).sky(x, y), axis=-1)
                         for detector in camera.detectors]) for visit in night]
    return plot_visits(rows, corners)


def _psf(sky: Sky, visit: Visit) -> Figure:
    """The PSF on a grid over each detector; a camera of one is a map of it."""
    c = sky.config.camera
    side = 12 if len(c.detectors) < 4 else 4 if len(c.detectors) < 40 else 2
    middles = (np.arange(side) + 0.5) / side
    x, y = (a.ravel() for a in np.meshgrid(middles * c.nx, middles * c.ny))
    parts = []
    for detector in c.detectors:
        facts = circumstances(sky, visit, detector, sky.seed)
        shape = facts.psf.matrices(x, y)
        size = np.sqrt(np.linalg.det(shape))
        rows = np.zeros(len(x), PSF_PLACE)
        rows["fwhm"] = facts.conditions.fwhm_eff * size
        rows["g1"], rows["g2"] = (shape[:, 0, 0] - shape[:, 1, 1]) / 2 / size, shape[:, 0, 1] / size
        offset = offset_px(c, detector)
        rows["x_deg"], rows["y_deg"] = ((p + o - (n - 1) / 2) * c.scale_arcsec / 3600.0
                                        for p, o, n in zip((x, y), offset, (c.nx, c.ny), strict=True))
        parts.append(rows)
    return plot_psf(np.concatenate(parts), f"PSF of visit {visit.visit} in {visit.band}")


# --- light curves ----------------------------------------------------------------------------------------------------

def light_curves(sky: Sky, night: list[Visit]) -> list[Curves]:
    """The brightest source of each class of those that have their maximum about the night."""
    looks = np.array([v.mjd_tai for v in [*cadence.history(sky.config, sky.seed), *night]]) - sky.night
    return [_curves(found, sky.night, looks) for found in sky.populations if len(found.rows)]


def _curves(found: Population, night: float, looks: np.ndarray) -> Curves:
    first, last = SPANS.get(found.name, (-200.0, 200.0))
    one = found.only(np.array([_shown(found, night + np.linspace(first, last, 120))]))
    if found.name == "eclipsing":
        first, last = np.array([-1.2, 1.2]) * float(one.numbers["period"][0])
    days = np.linspace(first, last, 600)
    flux = np.array([[one.fluxes(b, night + day)[0] for day in days] for b in range(len(BANDS))])
    row = one.rows[0]
    note = f"z = {row['redshift']:.2f}" if np.isfinite(row["redshift"]) else (
        f"{row['distance_pc'] / 1000:.2g} kpc" if np.isfinite(row["distance_pc"]) else "a nucleus")
    return Curves(found.name, f"{note}, weight {row['weight']:.1e}", days,
                  np.where(flux > 10 ** (0.4 * (AB_ZEROPOINT_NJY - 30.0)), magnitudes(flux), np.nan), looks)


def _shown(found: Population, times: np.ndarray) -> int:
    """The source with the brightest maximum inside the times; the brightest, where all have it at their ends."""
    flux = np.array([found.fluxes(2, float(t)) for t in times])
    top = flux.argmax(axis=0)
    inside = (top > 12) & (top < len(times) - 12)
    return int(np.argmax(np.where(inside | ~inside.any(), flux.max(axis=0), -1.0)))


# --- densities -------------------------------------------------------------------------------------------------------

def densities(sky: Sky) -> list[Density]:
    """Every declared class off the plane, and stars in the field's direction."""
    out, none = [], (float("nan"),) * len(LIMITS)
    for names, (peaks, live) in PUBLISHED.items():
        found = [explosive_densities(name) for name in names]
        title = " + ".join(names)
        crude = tuple(np.sum([gaussian_densities(name) for name in names], axis=0).tolist())
        out.append(Density(title, "peaks / deg² / yr", LIMITS, _added(found, "yearly"), peaks, CRUDE, crude))
        out.append(Density(title, "live / deg²", LIMITS, _added(found, "live"), live or none, CRUDE if live else ""))
    field, dust = sky.config.field, sky.config.sky.dust
    for found_population in sky.populations:
        if found_population.name not in EXPLOSIVE:
            rows = stellar_densities(found_population.name, field.ra, field.dec, dust=dust)
            out.append(Density(found_population.name, "here / deg²", LIMITS, _added([rows], "live"), none, ""))
    stars = star_counts(field.ra, field.dec, np.array(STAR_LIMITS), dust.a_v)
    out.append(Density("stars", "here / deg²", STAR_LIMITS, tuple(stars.tolist()), (float("nan"),) * len(STAR_LIMITS),
                       ""))
    return out


def _added(tables: list[np.ndarray], column: str) -> tuple[float, ...]:
    return tuple(np.sum([table[column] for table in tables], axis=0).tolist())
