"""A whole survey's sky for catalogue fidelity: what differs from the template on all detectors of a visit, at once.

    cell of the sky -> variable stars, active nuclei, transients, asteroids of a night (drawn when first looked at)
    visit           -> the cells around it -> fluxes then -> the camera's plane -> TRUTH rows, detector by detector

A cell's content is keyed by seed and cell alone, so what is found somewhere does not depend on the other visits. Cells
that were not looked at for long are let go and drawn again when needed. The camera is LSSTCam without its optical
distortion: each detector has a plain tangent projection.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from msgspec.structs import replace
from scipy.spatial import cKDTree
from scipy.stats import beta, norm

from schemas.exposure import AB_ZEROPOINT_NJY, BANDS, Visit, fluxes_njy
from schemas.measures import EPHEMERIS, TRUTH, empty
from schemas.wcs import Wcs
from simulators import asteroids, focalplane
from simulators.catalogs import FAINT_SNR, CatalogModel, trail_loss
from simulators.conditions import Conditions, conditions, sky_electrons, zeropoint_e
from simulators.config import CameraConfig, SimulationConfig
from simulators.galaxies import GALAXY
from simulators.stars import magnitudes
from simulators.streams import stream
from simulators.transients import TRANSIENT, light_curve, night_fluxes, transients
from simulators.variables import AGN, VARIABLE, active_nuclei, agn_factor, variable_factor, variable_stars
from simulators.wide_config import KINDS, WideConfig

CELL_DEG: Final = 1.0
BANDS_OF_CELLS: Final = round(180.0 / CELL_DEG)
REACH_DEG: Final = 1.95        # of the focal plane's corners from the boresight, a little more
MOTION_DEG: Final = 0.25       # of asteroids from the night's middle
PER_CELL: Final = 25_000       # ids of a kind in a cell
EPHEMERIS_SPAN_D: Final = 0.02
ISOLATION_FWHM: Final = 4.0
BELT_DEG: Final = 12.0         # scale of the asteroids' ecliptic latitudes: assumed


def model_of(wide: WideConfig) -> CatalogModel:
    """How sources are measured."""
    return CatalogModel(efficiency=wide.efficiency, false_per_megapixel=wide.false_per_megapixel)


@dataclass(frozen=True, slots=True)
class Density:
    """Sources per square degree; of asteroids on the ecliptic."""

    variable: float
    agn: float
    transient: float
    asteroid: float


@dataclass(frozen=True, slots=True)
class Seen:
    """The circumstances of a visit at catalogue fidelity."""

    conditions: Conditions
    psf_sigma_px: float
    zeropoint: float           # AB magnitude of one ADU
    flux_err: np.ndarray       # (detectors,) of a point source on blank sky, template included [nJy]
    own_noise: float           # variance of the flux per science flux [nJy]


@dataclass(frozen=True, slots=True)
class Cell:
    """What a cell of the sky holds."""

    variable: np.ndarray       # VARIABLE
    agn: np.ndarray            # AGN
    transient: np.ndarray      # TRANSIENT
    asteroid: np.ndarray       # ASTEROID
    asteroid_flux: np.ndarray  # (n, 6) [nJy] in ugrizy


class WideSky:
    """The sky of one night.

    Parameters
    ----------
    night_mjd : float
        Its middle: asteroids are drawn where they are then, transients with their fluxes then.
    """

    def __init__(self, config: SimulationConfig, wide: WideConfig, density: Density, seed: int,
                 night_mjd: float) -> None:
        self.config, self.wide, self.density, self.seed, self.night_mjd = config, wide, density, seed, night_mjd
        self._cells: OrderedDict[int, Cell] = OrderedDict()
        self.plane = Plane(config.camera)

    @property
    def detectors(self) -> np.ndarray:
        """Ids in the order of `Seen.flux_err`."""
        return self.plane.detectors

    def truth(self, visit: Visit, seen: Seen) -> np.ndarray:
        """TRUTH rows of every detector of a visit, detector by detector."""
        cells = [self.cell(number) for number in around(visit.ra, visit.dec, REACH_DEG)]
        band = BANDS.index(visit.band)
        parts = [self._variables(cells, visit.mjd_tai, band), self._agn(cells, visit.mjd_tai, band),
                 self._transients(cells, visit.mjd_tai, band), self._asteroids(visit, band)]
        rows = np.concatenate(parts)
        on = self.plane.locate(visit, rows["ra"], rows["dec"])
        inside = np.flatnonzero(on.slot >= 0)
        inside = inside[np.argsort(on.slot[inside], kind="stable")]
        out, rows, slot = empty(TRUTH, len(inside)), rows[inside], on.slot[inside]
        out["visit"], out["detector"] = visit.visit, self.detectors[slot]
        out["x"], out["y"] = on.x[inside], on.y[inside]
        for name in ("ra", "dec", "kind", "science_flux", "template_flux", "ssObjectId", "eph_err_arcsec"):
            out[name] = rows[name]
        out["truthId"], out["flux"] = rows["id"], rows["science_flux"] - rows["template_flux"]
        out["trail_length"], out["trail_angle"] = self.plane.trails(visit, slot, rows["east"], rows["north"])
        out["flux_err_optimum"] = np.sqrt(seen.flux_err[slot] ** 2
                                          + seen.own_noise * np.maximum(rows["science_flux"], 0.0))
        out["snr"] = out["flux"] * trail_loss(out["trail_length"], seen.psf_sigma_px) / out["flux_err_optimum"]
        out["isolated"] = _isolated(out["x"], out["y"], slot, ISOLATION_FWHM * 2.3548 * seen.psf_sigma_px)
        return out

    def ephemerides(self, visit: Visit) -> np.ndarray:
        """EPHEMERIS rows of the known asteroids around a visit, for its time."""
        rows, _ = self._near(visit)
        return asteroids.ephemerides(rows[rows["known"]], visit.mjd_tai, EPHEMERIS_SPAN_D)

    def cell(self, number: int) -> Cell:
        """The content of a cell."""
        if number not in self._cells:
            self._cells[number] = self._drawn(number)
            if len(self._cells) > max(self.wide.cells, 1):
                self._cells.popitem(last=False)
        self._cells.move_to_end(number)
        return self._cells[number]

    def _drawn(self, number: int) -> Cell:
        ra0, ra1, dec0, dec1 = limits(number)
        area = (ra1 - ra0) * np.degrees(np.sin(np.radians(dec1)) - np.sin(np.radians(dec0)))
        first = (number + 1) * len(KINDS) * PER_CELL

        def places(kind: str, density: float) -> tuple[np.random.Generator, np.ndarray, np.ndarray, int]:
            rng = stream(self.seed, f"wide {kind}", number)
            n = int(rng.poisson(density * area))
            if n > PER_CELL:
                raise ValueError(f"a cell holds at most {PER_CELL} sources of a kind, got {n} of {kind}")
            dec = np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(dec0)), np.sin(np.radians(dec1)), n)))
            return rng, rng.uniform(ra0, ra1, n), dec, first + KINDS.index(kind) * PER_CELL

        middle = belt_density(np.array([(ra0 + ra1) / 2]), np.array([(dec0 + dec1) / 2]))[0]
        return Cell(_draw_variables(self.config, *places("variable", self.density.variable)),
                    _draw_agn(self.config, *places("agn", self.density.agn)),
                    _draw_transients(self.config, self.night_mjd, *places("transient", self.density.transient)),
                    *_draw_asteroids(self.config, self.night_mjd,
                                     *places("asteroid", self.density.asteroid * middle)))

    def _variables(self, cells: Sequence[Cell], mjd: float, band: int) -> np.ndarray:
        rows = np.concatenate([cell.variable for cell in cells])
        mean = rows["flux"][:, band]
        return _points(rows, b"variable", mean * variable_factor(rows, mjd), mean)

    def _agn(self, cells: Sequence[Cell], mjd: float, band: int) -> np.ndarray:
        rows = np.concatenate([cell.agn for cell in cells])
        mean = rows["flux"][:, band]
        return _points(rows, b"agn", mean * agn_factor(rows, mjd), mean)

    def _transients(self, cells: Sequence[Cell], mjd: float, band: int) -> np.ndarray:
        rows = np.concatenate([cell.transient for cell in cells])
        flux = rows["flux"][:, band]
        return _points(rows, b"transient", flux * light_curve(rows, mjd, self.night_mjd),
                       np.where(rows["fading"], flux, 0.0))

    def _near(self, visit: Visit) -> tuple[np.ndarray, np.ndarray]:
        """Asteroids around a visit, and their fluxes."""
        cells = [self.cell(number) for number in around(visit.ra, visit.dec, REACH_DEG + MOTION_DEG)]
        return (np.concatenate([cell.asteroid for cell in cells]),
                np.concatenate([cell.asteroid_flux for cell in cells]))

    def _asteroids(self, visit: Visit, band: int) -> np.ndarray:
        rows, flux = self._near(visit)
        vector = asteroids.topocentric(rows, visit.mjd_tai)
        out = _points(rows, b"asteroid", flux[:, band], np.zeros(len(rows)), *asteroids.sky(vector))
        half = visit.exposure_s / 2 / 86400.0
        before, after = (_unit(asteroids.topocentric(rows, visit.mjd_tai + side * half)) for side in (-1, 1))
        a, d = np.radians(out["ra"]), np.radians(out["dec"])
        east = np.stack([-np.sin(a), np.cos(a), np.zeros_like(a)], axis=1)
        north = np.stack([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)], axis=1)
        out["east"] = np.degrees(np.sum((after - before) * east, axis=1))
        out["north"] = np.degrees(np.sum((after - before) * north, axis=1))
        out["ssObjectId"] = rows["ssObjectId"]
        error = asteroids.separation_arcsec(vector, asteroids.topocentric(rows, visit.mjd_tai, predicted=True))
        out["eph_err_arcsec"] = np.where(rows["known"], error, np.nan)
        return out


POINT: Final = np.dtype([
    ("id", "i8"), ("kind", "S12"), ("ra", "f8"), ("dec", "f8"), ("science_flux", "f8"), ("template_flux", "f8"),
    ("east", "f8"), ("north", "f8"),                     # way during the exposure [deg]
    ("ssObjectId", "i8"), ("eph_err_arcsec", "f4")])


def _points(rows: np.ndarray, kind: bytes, science: np.ndarray, template: np.ndarray, ra: np.ndarray | None = None,
            dec: np.ndarray | None = None) -> np.ndarray:
    out = np.zeros(len(rows), POINT)
    out["id"], out["kind"] = rows["id"], kind
    out["ra"], out["dec"] = rows["ra"] if ra is None else ra, rows["dec"] if dec is None else dec
    out["science_flux"], out["template_flux"], out["eph_err_arcsec"] = science, template, np.nan
    return out


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1)[:, None])


# --- what a cell holds -----------------------------------------------------------------------------------------------

def _draw_variables(config: SimulationConfig, rng: np.random.Generator, ra: np.ndarray, dec: np.ndarray,
                    first: int) -> np.ndarray:
    return variable_stars(config.sky.variables, rng, ra, dec, first)


def _draw_agn(config: SimulationConfig, rng: np.random.Generator, ra: np.ndarray, dec: np.ndarray,
              first: int) -> np.ndarray:
    """Nuclei of galaxies of 18 < r < 22, as many as there are positions: fainter ones hardly make alerts."""
    hosts = np.zeros(len(ra), GALAXY)
    hosts["ra"], hosts["dec"] = ra, dec
    hosts["flux"][:, 2] = fluxes_njy(magnitudes(rng, len(ra), 18.0, 22.0, config.sky.galaxies.slope))
    return active_nuclei(config.sky.variables, rng, hosts, len(ra), first)


def _draw_transients(config: SimulationConfig, night_mjd: float, rng: np.random.Generator, ra: np.ndarray,
                     dec: np.ndarray, first: int) -> np.ndarray:
    """Transients without hosts."""
    bare = replace(config.sky.transients, hosted=0.0)
    return transients(bare, rng, ra, dec, np.zeros(0, GALAXY), night_mjd, config.camera, config.cadence.exposure_s,
                      first)


def _draw_asteroids(config: SimulationConfig, night_mjd: float, rng: np.random.Generator, ra: np.ndarray,
                    dec: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Main-belt orbits that stand at positions in the night's middle, and fluxes in six bands."""
    c = config.sky.asteroids
    if not len(ra):
        return np.zeros(0, asteroids.ASTEROID), np.zeros((0, 6))
    rows = asteroids.belt(rng, ra, dec, np.array([night_mjd]))
    rows["id"] = first + np.arange(len(ra))
    flux = night_fluxes(rng, len(ra), c.flux, c.snr, c.mag, config.camera, config.cadence.exposure_s)
    v = AB_ZEROPOINT_NJY - 2.5 * np.log10(flux[:, 2]) + asteroids.V_MINUS[2]
    rows["h"] = v - asteroids.v_magnitudes(rows, night_mjd)
    return asteroids.with_predictions(rows, c, rng), flux


def belt_density(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Density of asteroids over that on the ecliptic."""
    a, d, tilt = np.radians(ra), np.radians(dec), asteroids.OBLIQUITY
    latitude = np.degrees(np.arcsin(np.sin(d) * np.cos(tilt) - np.cos(d) * np.sin(tilt) * np.sin(a)))
    return np.asarray(np.exp(-np.abs(latitude) / BELT_DEG))


# --- cells of the sky ------------------------------------------------------------------------------------------------

@cache
def _counts() -> tuple[np.ndarray, np.ndarray]:
    """Cells of each band of declination, and the number of its first."""
    middle = -90.0 + CELL_DEG * (np.arange(BANDS_OF_CELLS) + 0.5)
    count = np.maximum(np.round(360.0 * np.cos(np.radians(middle)) / CELL_DEG).astype(int), 1)
    return count, np.cumsum(count) - count


def limits(number: int) -> tuple[float, float, float, float]:
    """RA and Dec [deg] between which a cell lies."""
    count, first = _counts()
    band = int(np.searchsorted(first, number, "right")) - 1
    k, n = number - int(first[band]), int(count[band])
    return 360.0 * k / n, 360.0 * (k + 1) / n, -90.0 + CELL_DEG * band, -90.0 + CELL_DEG * (band + 1)


def around(ra: float, dec: float, radius_deg: float) -> list[int]:
    """Cells that meet a circle, and some about it."""
    count, first = _counts()
    out: list[int] = []
    low, high = (int(np.clip(np.floor((dec + side * radius_deg + 90.0) / CELL_DEG), 0, BANDS_OF_CELLS - 1))
                 for side in (-1, 1))
    for band in range(low, high + 1):
        n = int(count[band])
        near = min(max(abs(-90.0 + CELL_DEG * band), abs(-90.0 + CELL_DEG * (band + 1))), 90.0)
        cosine = np.cos(np.radians(near)) * np.cos(np.radians(min(abs(dec), 90.0)))
        part = np.sin(np.radians(radius_deg / 2)) / np.sqrt(cosine) if cosine > 0 else 1.0
        width = 360.0 if part >= 0.7 else 2.0 * np.degrees(2.0 * np.arcsin(part))
        if width >= 360.0 * (1.0 - 1.0 / n):
            out += range(int(first[band]), int(first[band]) + n)
            continue
        i, j = (int(np.floor((ra + side * width / 2) * n / 360.0)) for side in (-1, 1))
        out += [int(first[band]) + k % n for k in range(i, j + 1)]
    return out


# --- the camera ------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class Located:
    """Where positions fall on the focal plane."""

    slot: np.ndarray           # (n,) index of the detector; -1 for none
    x: np.ndarray              # [pixel]
    y: np.ndarray


class Plane:
    """LSSTCam's detectors as tangent projections about one boresight."""

    def __init__(self, camera: CameraConfig) -> None:
        self.camera = camera
        self.shape = camera.ny, camera.nx
        self.detectors = np.array(focalplane.all_detectors())
        sensors = [focalplane.sensor(k) for k in self.detectors.tolist()]
        self.x_px, self.y_px = (np.array([getattr(s, name) for s in sensors]) / focalplane.PIXEL_MM
                                for name in ("x_mm", "y_mm"))
        turn = np.radians([s.turn_deg for s in sensors])
        self.cos, self.sin = np.cos(turn), np.sin(turn)
        self.light = focalplane.vignetting(self.x_px * focalplane.PIXEL_MM, self.y_px * focalplane.PIXEL_MM)
        self._slot = np.full((5, 5, 3, 3), -1)
        for slot, sensor in enumerate(sensors):
            row, column, down, across = (int(sensor.name[k]) for k in (1, 2, 5, 6))
            self._slot[row, column, down, across] = slot

    def locate(self, visit: Visit, ra: np.ndarray, dec: np.ndarray) -> Located:
        """The detector of each position, and where on it."""
        whole = self._whole(visit)
        u, v = whole.pixels(ra, dec)
        placed = np.isfinite(u) & np.isfinite(v)
        u, v = np.where(placed, u, 1e9), np.where(placed, v, 1e9)
        slot = np.where(placed, self._cell(u * focalplane.PIXEL_MM, v * focalplane.PIXEL_MM), -1)
        du, dv, c, s = u - self.x_px[slot], v - self.y_px[slot], self.cos[slot], self.sin[slot]
        ny, nx = self.shape
        x, y = c * du + s * dv + (nx - 1) / 2, c * dv - s * du + (ny - 1) / 2
        inside = (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5)
        return Located(np.where(inside, slot, -1), x, y)

    def wcs(self, visit: Visit) -> tuple[Wcs, ...]:
        """Of each detector."""
        a, b, c, d = self._whole(visit).cd
        ny, nx = self.shape
        out = []
        for x, y, cos, sin in zip(self.x_px.tolist(), self.y_px.tolist(), self.cos.tolist(), self.sin.tolist(),
                                  strict=True):
            crpix = (nx - 1) / 2 - cos * x - sin * y, (ny - 1) / 2 + sin * x - cos * y
            cd = a * cos + b * sin, b * cos - a * sin, c * cos + d * sin, d * cos - c * sin
            out.append(Wcs(crpix, (visit.ra % 360.0, visit.dec), cd))
        return tuple(out)

    def trails(self, visit: Visit, slot: np.ndarray, east: np.ndarray, north: np.ndarray
               ) -> tuple[np.ndarray, np.ndarray]:
        """Lengths [pixel] and angles [deg from +x towards +y, in (-90, 90]] of ways on the sky [deg]."""
        a, b, c, d = self._whole(visit).cd
        det = a * d - b * c
        u, v = (d * east - b * north) / det, (a * north - c * east) / det
        x, y = self.cos[slot] * u + self.sin[slot] * v, self.cos[slot] * v - self.sin[slot] * u
        length = np.hypot(x, y)
        return length, np.where(length > 0, 90.0 - (90.0 - np.degrees(np.arctan2(y, x))) % 180.0, 0.0)

    def _whole(self, visit: Visit) -> Wcs:
        """Pixels from the boresight."""
        plain = Wcs.tangent(visit.ra, visit.dec, (1, 1), scale_arcsec=self.camera.scale_arcsec,
                            rotation=visit.rotation)
        return Wcs((0.0, 0.0), plain.crval, plain.cd)

    def _cell(self, x_mm: np.ndarray, y_mm: np.ndarray) -> np.ndarray:
        """Index of the detector in whose place of the grid positions are; -1 for none."""
        column, row = (np.clip(np.rint(p / focalplane.RAFT_MM), -3, 3).astype(int) for p in (x_mm, y_mm))
        across, down = (np.clip(np.rint((p - k * focalplane.RAFT_MM) / focalplane.CCD_MM), -1, 1).astype(int)
                        for p, k in ((x_mm, column), (y_mm, row)))
        known = (np.abs(column) <= 2) & (np.abs(row) <= 2)
        column, row = np.clip(column, -2, 2), np.clip(row, -2, 2)
        return np.where(known, self._slot[row + 2, column + 2, down + 1, across + 1], -1)


def seen(config: SimulationConfig, wide: WideConfig, visit: Visit, seed: int, light: np.ndarray) -> Seen:
    """A visit's depth and seeing; `light` is what vignetting leaves on each detector."""
    c, now = config.camera, conditions(config, visit, seed)
    sigma = now.fwhm_eff / 2.3548 / c.scale_arcsec
    per_pixel = (sky_electrons(visit.band, now.sky_mag, visit.exposure_s, c.scale_arcsec) * light
                 + c.dark * visit.exposure_s + c.read_noise**2)
    magnitude = zeropoint_e(visit.band, now.airmass, visit.exposure_s, now.extinction)
    njy = 10 ** (0.4 * (AB_ZEROPOINT_NJY - magnitude)) / light        # of an electron
    science = np.sqrt(4 * np.pi * sigma**2 * per_pixel) * njy
    deeper = 1.0 + (1.0 / wide.template_visits if wide.template_visits else 0.0)
    # a source's own photons, weighted with the squared PSF: 4/3 of its flux for a Gaussian
    return Seen(now, float(sigma), float(magnitude - 2.5 * np.log10(c.gain)), science * np.sqrt(deeper),
                float(4 / 3 * np.median(njy)))


def _isolated(x: np.ndarray, y: np.ndarray, slot: np.ndarray, radius_px: float) -> np.ndarray:
    """Which have no other on their detector within a radius."""
    alone = np.ones(len(x), bool)
    if len(x):
        apart = cKDTree(np.stack([x + 1e5 * slot, y], axis=1)).query_pairs(radius_px, output_type="ndarray")
        alone[apart.ravel()] = False
    return alone


# --- how dense -------------------------------------------------------------------------------------------------------

def density_of(config: SimulationConfig, wide: WideConfig, visits: Sequence[Visit], n_detectors: int, seed: int, *,
               model: CatalogModel | None = None, min_reliability: float = 0.5, sample: int = 2000,
               most: int = 60) -> Density:
    """The density that gives `wide.alerts_per_visit` on `n_detectors` in the mean of visits, by expectation.

    `most` visits, evenly chosen, stand for all; each kind's chance to be an alert is that of `sample` sources.
    """
    model = model or model_of(wide)
    chosen = [visits[k] for k in np.unique(np.linspace(0, len(visits) - 1, most).astype(int)).tolist()]
    sky = WideSky(config, wide, Density(0.0, 0.0, 0.0, 0.0), seed, float(np.mean([v.mjd_tai for v in visits])))
    cell = _sample(config, sky, seed, sample)
    light = np.full(1, sky.plane.light.mean())
    chance, belt = np.zeros(len(KINDS)), 0.0
    kept = model.efficiency * (1.0 - model.flagged)
    scored = [beta.sf(min_reliability, *shape) for shape in (model.score_faint, model.score_real)]
    for visit in chosen:
        now, band = seen(config, wide, visit, seed, light), BANDS.index(visit.band)
        weight = float(belt_density(np.array([visit.ra]), np.array([visit.dec]))[0])
        belt += weight / len(chosen)
        for k, rows in enumerate((sky._variables([cell], visit.mjd_tai, band), sky._agn([cell], visit.mjd_tai, band),
                                  sky._transients([cell], visit.mjd_tai, band),
                                  _points(cell.asteroid, b"asteroid", cell.asteroid_flux[:, band],
                                          np.zeros(len(cell.asteroid)), np.zeros(1), np.zeros(1)))):
            snr = (rows["science_flux"] - rows["template_flux"]) / np.sqrt(
                now.flux_err[0] ** 2 + now.own_noise * np.maximum(rows["science_flux"], 0.0))
            snr = model.snr_ratio * snr
            seen_share = norm.sf(model.threshold - snr) + norm.sf(model.threshold + snr)
            seen_share = seen_share * np.where(np.abs(snr) < FAINT_SNR, *scored)
            chance[k] += kept * seen_share.mean() * (weight if KINDS[k] == "asteroid" else 1.0) / len(chosen)
    c = config.camera
    megapixels = n_detectors * c.ny * c.nx / 1e6
    false = (model.false_per_megapixel * megapixels * (1.0 - model.false_flagged)
             * beta.sf(min_reliability, *model.score_false))
    area = megapixels * 1e6 * (c.scale_arcsec / 3600.0) ** 2
    wanted = wide.shares * max(wide.alerts_per_visit - false, 0.0) / area
    per = np.divide(wanted, chance, out=np.zeros(len(KINDS)), where=chance > 0)
    return Density(*per.tolist())


def _sample(config: SimulationConfig, sky: WideSky, seed: int, n: int) -> Cell:
    """Sources of every kind, whose place does not matter."""
    def places(kind: str) -> tuple[np.random.Generator, np.ndarray, np.ndarray, int]:
        rng = stream(seed, f"wide {kind} calibration")
        return rng, rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-0.9, 0.2, n))), 0

    return Cell(_draw_variables(config, *places("variable")), _draw_agn(config, *places("agn")),
                _draw_transients(config, sky.night_mjd, *places("transient")),
                *_draw_asteroids(config, sky.night_mjd, *places("asteroid")))


__all__ = ["AGN", "EPHEMERIS", "KINDS", "TRANSIENT", "VARIABLE", "Density", "Plane", "Seen", "WideConfig", "WideSky",
           "around", "belt_density", "density_of", "limits", "model_of", "seen"]
