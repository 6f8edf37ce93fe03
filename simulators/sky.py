"""Everything on the sky of one field: static stars and galaxies, and all that changes, as functions of time."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from schemas.exposure import AB_ZEROPOINT_NJY, BANDS, Box, Visit, fluxes_njy
from schemas.measures import EPHEMERIS, REFERENCE, empty
from simulators import artifacts, milky_way
from simulators import asteroids as solar
from simulators.cadence import history, visits
from simulators.conditions import FIDUCIAL_FWHM_EFF
from simulators.config import SimulationConfig
from simulators.galaxies import GALAXY, galaxies, redshifts
from simulators.populations import Patch, Population, milky_way_dust, populations
from simulators.region import region
from simulators.solar_system import SolarSystem
from simulators.stars import STAR, band_index, mean_number, milky_way_stars, stars
from simulators.streams import stream
from simulators.transients import TRANSIENT, light_curve, night_fluxes, transients
from simulators.variables import AGN, VARIABLE, active_nuclei, agn_factor, variable_factor, variable_stars

# First truthId of each population; static ones never appear in TRUTH.
FIRST_ID: Final = {"star": 1_000_000_000, "galaxy": 2_000_000_000, "transient": 3_000_000_000,
                   "variable": 4_000_000_000, "agn": 5_000_000_000, "asteroid": 6_000_000_000,
                   "moved_star": 7_000_000_000, "class": 8_000_000_000}
ONE_FIELD_ARCMIN2: Final = (1000 * 0.2 / 60) ** 2     # the "per field" of the configuration

MOVED = np.dtype([("id", "i8"), ("ra", "f8"), ("dec", "f8"), ("flux", "f8", (6,)),      # before the night
                  ("east", "f8"), ("north", "f8")])                                     # motion since [arcsec]

# A point source as it stands at a moment.
POINT = np.dtype([("id", "i8"), ("kind", "S12"), ("ra", "f8"), ("dec", "f8"), ("flux", "f8"),   # [nJy]
                  ("ra_start", "f8"), ("dec_start", "f8"), ("ra_end", "f8"), ("dec_end", "f8"),  # of a moving one
                  ("host_sep", "f8"), ("host", "i8"), ("ssObjectId", "i8"), ("eph_err_arcsec", "f8"),
                  ("ra_before", "f8"), ("dec_before", "f8"),                                    # of a moved star
                  ("class", "S12"), ("weight", "f8")])                  # of a declared class; true over drawn density


class Sky:
    """All populations of a field, drawn once from the seed.

    Attributes
    ----------
    stars, galaxies : STAR, GALAXY rows, static
    transients, variables, agn, asteroids, moved : rows of what changes
    populations : the declared classes that the scenario asks for
    night : TAI MJD of the middle of the night
    """

    def __init__(self, config: SimulationConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        planned = visits(config, seed)
        self.times = np.array([v.mjd_tai for v in planned])
        self.night = float((self.times[0] + self.times[-1]) / 2)
        self.region = region(config, seed)
        self.radius_deg = self.region.radius_deg
        self.area_arcmin2 = (self.region.extent_deg * 60) ** 2
        self.fields = self.area_arcmin2 / ONE_FIELD_ARCMIN2
        self._static()
        self._changing()

    def __reduce__(self) -> tuple[type["Sky"], tuple[SimulationConfig, int]]:
        return Sky, (self.config, self.seed)

    def _places(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Uniform positions in the sky that is drawn."""
        return self.region.places(rng, n)

    def _static(self) -> None:
        s, g = self.config.sky.stars, self.config.sky.galaxies
        rng = stream(self.seed, "stars")
        self.stars: np.ndarray
        if s.model == "galaxy":
            view = milky_way.sight(self.config.field.ra, self.config.field.dec, self.config.sky.dust.a_v)
            steradian = self.area_arcmin2 * np.radians(1.0 / 60.0) ** 2
            self.stars = milky_way_stars(s, view, rng, steradian, self._places, FIRST_ID["star"])
        else:
            n = rng.poisson(mean_number(s.density, s.slope, s.bright, s.faint, self.area_arcmin2))
            self.stars = stars(s, rng, *self._places(rng, n), FIRST_ID["star"])
        rng = stream(self.seed, "galaxies")
        n = rng.poisson(mean_number(g.density, g.slope, g.bright, g.faint, self.area_arcmin2))
        self.galaxies: np.ndarray = galaxies(g, rng, *self._places(rng, n), FIRST_ID["galaxy"])
        if g.model == "bulge_disk":
            dim = milky_way_dust(self.config.field.ra, self.config.field.dec, self.config.sky.dust)
            self.galaxies["flux"], self.galaxies["total"] = self.galaxies["flux"] * dim, self.galaxies["total"] * dim

    def _changing(self) -> None:
        config, seed, c = self.config, self.seed, self.config.sky
        exposure_s = config.cadence.exposure_s
        rng = stream(seed, "transients")
        n = rng.poisson(c.transients.per_field * self.fields)
        self.transients: np.ndarray = transients(c.transients, rng, *self._places(rng, n), self.galaxies, self.night,
                                                 config.camera, exposure_s, FIRST_ID["transient"])
        rng = stream(seed, "variables")
        n = rng.poisson(c.variables.stars_per_field * self.fields)
        self.variables: np.ndarray = variable_stars(c.variables, rng, *self._places(rng, n), FIRST_ID["variable"])
        rng = stream(seed, "agn")
        self.agn: np.ndarray = active_nuclei(c.variables, rng, self.galaxies,
                                             int(rng.poisson(c.variables.agn_per_field * self.fields)), FIRST_ID["agn"])
        self.moved: np.ndarray
        self.moving = self.stars[:0]       # the rows of `stars` that `moved` were, in the galaxy model
        if c.stars.model == "galaxy":
            self._take_moved()
        else:
            self.moved = self._moved(stream(seed, "moved stars"))
        self.populations: tuple[Population, ...] = self._classes()
        self.solar_system = SolarSystem(c.asteroids) if c.asteroids.model == "population" else None
        self.asteroids: np.ndarray = self._asteroids(stream(seed, "asteroids"))

    def _moved(self, rng: np.random.Generator) -> np.ndarray:
        c = self.config.sky.stars
        n = int(rng.poisson(c.moved_per_visit_field * self.fields))
        out = np.zeros(n, MOVED)
        out["id"] = FIRST_ID["moved_star"] + np.arange(n)
        out["ra"], out["dec"] = self._places(rng, n)
        out["flux"] = fluxes_njy(rng.uniform(*c.moved_mag, n))[:, None]
        distance = rng.uniform(*c.moved_separation_px, n) * self.config.camera.scale_arcsec
        angle = rng.uniform(0, 2 * np.pi, n)
        out["east"], out["north"] = distance * np.cos(angle), distance * np.sin(angle)
        return out

    def _take_moved(self) -> None:
        """Take the stars that moved visibly since the templates out of `stars`: they differ from their templates."""
        past = history(self.config, self.seed)
        self.template_mjd = float(np.mean([v.mjd_tai for v in past])) if past else self.night
        before, now = self.stars_at(self.template_mjd), self.stars_at(self.night)
        east = (now[0] - before[0] + 180.0) % 360.0 - 180.0
        east, north = east * np.cos(np.radians(now[1])) * 3600.0, (now[1] - before[1]) * 3600.0
        far = np.hypot(east, north) > self.config.sky.stars.moved_min_px * self.config.camera.scale_arcsec
        self.moving = self.stars[far]
        self.moved = np.zeros(len(self.moving), MOVED)
        self.moved["id"] = FIRST_ID["moved_star"] + np.arange(len(self.moving))
        self.moved["ra"], self.moved["dec"] = before[0][far], before[1][far]
        self.moved["flux"], self.moved["east"], self.moved["north"] = self.moving["flux"], east[far], north[far]
        self.stars = self.stars[~far]

    def _classes(self) -> tuple[Population, ...]:
        """Populations of the declared classes, of what some visit of the night or of the templates can see."""
        c = self.config.sky
        if not c.classes:
            return ()
        looks = [*history(self.config, self.seed), *visits(self.config, self.seed)]
        self.galaxies["redshift"] = redshifts(stream(self.seed, "galaxy redshifts"), self.galaxies)
        patch = Patch(self.config.field.ra, self.config.field.dec, self.radius_deg, self.fields,
                      looks[0].mjd_tai, looks[-1].mjd_tai, c.dust, self.region)
        faintest, classes = float(fluxes_njy(c.classes_faintest)), {str(name): one for name, one in c.classes.items()}
        out = []
        for found in populations(classes, patch, self.galaxies, self.seed, FIRST_ID["class"]):
            brightest = np.max([found.fluxes(band_index(v.band), v.mjd_tai) for v in looks], axis=0)
            out.append(found.only(brightest > faintest))
        return tuple(out)

    def stars_at(self, mjd_tai: float, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """RA, Dec [deg] of the stars at a time, as seen from the Earth; their catalogue's epoch is the night."""
        rows = self.stars if rows is None else rows
        if self.config.sky.stars.model != "galaxy":
            return rows["ra"], rows["dec"]
        return milky_way.moved(rows["ra"], rows["dec"], rows["pm_east"], rows["pm_north"], rows["parallax"],
                               (mjd_tai - self.night) / 365.25, solar.barycentric(mjd_tai))

    def _asteroids(self, rng: np.random.Generator) -> np.ndarray:
        c = self.config.sky.asteroids
        if self.solar_system is not None:
            return self.solar_system.draw(self.seed, self.config.field.ra, self.config.field.dec,
                                          np.sqrt(2.0) * self.radius_deg, self.times, FIRST_ID["asteroid"])
        hours = 24.0 * (self.times[-1] - self.times[0])
        # at any time `per_field` are inside; over the night more cross: 0.2 deg/d crosses 3.3' in 6.7 h
        side = self.region.extent_deg
        n_belt = int(rng.poisson(c.belt_per_field * self.fields * (1.0 + 0.2 * hours / 24 / side)))
        slowest, fastest = c.near_earth_rate_deg_d
        rates = np.exp(rng.uniform(np.log(slowest), np.log(fastest), 4096))
        mean_crossings = 1.0 + float(np.mean(rates)) * hours / 24 / side
        n_near = int(rng.poisson(c.near_earth_per_field * self.fields * mean_crossings))
        rows = []
        for near, n in ((False, n_belt), (True, n_near)):
            ra, dec = self._places(rng, n)
            when = rng.uniform(self.times[0], self.times[-1] + 1e-9, n)
            part = solar.near_earth(rng, ra, dec, when, np.resize(rates, n)) if near else solar.belt(rng, ra, dec, when)
            part["near_earth"] = near
            rows.append(part[np.isfinite(part["a"]) & (part["a"] > 0) & (part["e"] < 0.98)])
        out = np.concatenate(rows)
        out["id"] = FIRST_ID["asteroid"] + np.arange(len(out))
        out["h"] = self._absolute_magnitudes(rng, out)
        return solar.with_predictions(out, c, rng)

    def _absolute_magnitudes(self, rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
        """H that gives each asteroid its target S/N in r when it crosses, for a filter that knows its trail."""
        c = self.config.sky.asteroids
        flux = night_fluxes(rng, len(rows), c.flux, c.snr, c.mag, self.config.camera, self.config.cadence.exposure_s)
        apparent = AB_ZEROPOINT_NJY - 2.5 * np.log10(flux[:, band_index("r")]) + solar.V_MINUS[band_index("r")]
        zero = rows.copy()
        zero["h"] = 0.0
        return np.asarray(apparent - solar.v_magnitudes(zero, zero["epoch"]) - self._trailing(rows))

    def _trailing(self, rows: np.ndarray) -> np.ndarray:
        """Magnitudes by which a trail's optimum S/N is lower than a point's: its effective area is larger."""
        half = self.config.cadence.exposure_s / 2 / 86400
        length = solar.separation_arcsec(solar.topocentric(rows, rows["epoch"] - half),
                                         solar.topocentric(rows, rows["epoch"] + half))
        sigma = FIDUCIAL_FWHM_EFF["r"] * np.sqrt(2.266 / (4.0 * np.pi))
        return np.asarray(1.25 * np.log10(np.hypot(1.0, length / (2.0 * np.sqrt(np.pi) * sigma))))

    # --- fluxes at a time ------------------------------------------------------------------------------------------

    def fluxes(self, kind: str, band: str, mjd_tai: float) -> np.ndarray:
        """Fluxes [nJy] of a whole population ('transient', 'variable', 'agn', 'moved_star', 'asteroid') at a time."""
        b = band_index(band)
        if kind == "transient":
            return np.asarray(self.transients["flux"][:, b] * light_curve(self.transients, mjd_tai, self.night))
        if kind == "variable":
            return np.asarray(self.variables["flux"][:, b] * variable_factor(self.variables, mjd_tai))
        if kind == "agn":
            return np.asarray(self.agn["flux"][:, b] * agn_factor(self.agn, mjd_tai))
        if kind == "moved_star":
            return np.asarray(self.moved["flux"][:, b])
        if kind == "asteroid":
            return self._asteroid_fluxes(self.asteroids, band, mjd_tai)
        raise ValueError(f"kind must be a changing population, got {kind!r}")

    def flux_at(self, ids: np.ndarray, band: str, mjd_tai: float) -> np.ndarray:
        """Fluxes [nJy] of changing sources by truthId at a time; 0 for unknown ids."""
        ids = np.asarray(ids, np.int64)
        out = np.zeros(len(ids))
        for found in self.populations:
            place = np.searchsorted(found.rows["id"], ids).clip(0, max(len(found.rows) - 1, 0))
            mine = np.flatnonzero(found.rows["id"][place] == ids) if len(found.rows) else np.zeros(0, np.intp)
            if len(mine):
                out[mine] = found.only(place[mine]).fluxes(band_index(band), mjd_tai)
        for kind in ("transient", "variable", "agn", "moved_star", "asteroid"):
            rows = self.population(kind)
            here = (ids >= FIRST_ID[kind]) & (ids < FIRST_ID[kind] + len(rows))
            if here.any():
                index = ids[here] - FIRST_ID[kind]
                if kind == "asteroid":
                    out[here] = self._asteroid_fluxes(rows[index], band, mjd_tai)
                else:
                    out[here] = self.fluxes(kind, band, mjd_tai)[index]
        return out

    def _asteroid_fluxes(self, rows: np.ndarray, band: str, mjd_tai: float) -> np.ndarray:
        if self.solar_system is not None:
            return self.solar_system.fluxes(rows, band, mjd_tai)
        return fluxes_njy(solar.v_magnitudes(rows, mjd_tai) - solar.V_MINUS[band_index(band)])

    def template_flux(self, ids: np.ndarray, template_visits: Sequence[Visit]) -> np.ndarray:
        """Mean flux [nJy] that sources have AT THEIR PLACE in a coadd of visits of one band; 0 for asteroids.

        A moved star's is its flux at the place before.
        """
        ids = np.asarray(ids, np.int64)
        if not template_visits:
            return np.zeros(len(ids))
        flux = np.mean([self.flux_at(ids, v.band, v.mjd_tai) for v in template_visits], axis=0)
        moving = (ids >= FIRST_ID["asteroid"]) & (ids < FIRST_ID["moved_star"])
        return np.where(moving, 0.0, flux)

    def population(self, kind: str) -> np.ndarray:
        """Rows of a changing population."""
        return {"transient": self.transients, "variable": self.variables, "agn": self.agn,
                "moved_star": self.moved, "asteroid": self.asteroids}[kind]

    def points(self, visit: Visit) -> np.ndarray:
        """POINT rows of every changing source as it stands in a visit, wherever it is."""
        parts = [self._fixed_points(kind, visit) for kind in ("transient", "variable", "agn")]
        classes = [_class_points(found, visit) for found in self.populations]
        return np.concatenate([*parts, self._moved_points(visit), self._asteroid_points(visit), *classes])

    def _fixed_points(self, kind: str, visit: Visit) -> np.ndarray:
        rows = self.population(kind)
        out = empty(POINT, len(rows))
        out["id"], out["kind"] = rows["id"], kind.encode()
        out["ra"], out["dec"] = rows["ra"], rows["dec"]
        out["flux"] = self.fluxes(kind, visit.band, visit.mjd_tai)
        if kind != "variable":
            out["host"] = rows["host"]
            out["host_sep"] = rows["host_sep"] if kind == "transient" else 0.0
        return out

    def _moved_points(self, visit: Visit) -> np.ndarray:
        rows = self.moved
        out = empty(POINT, len(rows))
        out["id"], out["kind"], out["flux"] = rows["id"], b"moved_star", self.fluxes("moved_star", visit.band, 0.0)
        out["ra_before"], out["dec_before"] = rows["ra"], rows["dec"]
        if len(self.moving):
            out["ra"], out["dec"] = self.stars_at(visit.mjd_tai, self.moving)
            return out
        moved = 1.0 if visit.mjd_tai > self.night - 1.0 else 0.0
        out["dec"] = rows["dec"] + moved * rows["north"] / 3600
        out["ra"] = (rows["ra"] + moved * rows["east"] / 3600 / np.cos(np.radians(rows["dec"]))) % 360.0
        return out

    def _asteroid_points(self, visit: Visit) -> np.ndarray:
        """Asteroids in the night alone: earlier visits were other asteroids' turn, and a coadd clips them."""
        rows = self.asteroids if abs(visit.mjd_tai - self.night) < 1.0 else self.asteroids[:0]
        out = empty(POINT, len(rows))
        if not len(rows):
            return out
        out["id"], out["kind"], out["ssObjectId"] = rows["id"], b"asteroid", rows["ssObjectId"]
        out["flux"] = self.fluxes("asteroid", visit.band, visit.mjd_tai)
        if self.solar_system is not None:
            vectors, out["eph_err_arcsec"] = self.solar_system.seen(rows, visit)
            for name, at in zip(("_start", "", "_end"), vectors, strict=True):
                out["ra" + name], out["dec" + name] = solar.sky(at)
            return out
        half = visit.exposure_s / 2 / 86400
        middle = solar.topocentric(rows, visit.mjd_tai)
        for name, at in (("", middle), ("_start", solar.topocentric(rows, visit.mjd_tai - half)),
                         ("_end", solar.topocentric(rows, visit.mjd_tai + half))):
            out["ra" + name], out["dec" + name] = solar.sky(at)
        error = solar.separation_arcsec(middle, solar.topocentric(rows, visit.mjd_tai, predicted=True))
        out["eph_err_arcsec"] = np.where(rows["known"], error, np.nan)
        return out

    # --- what the observatory knows --------------------------------------------------------------------------------

    def references(self, box: Box, seed: int) -> np.ndarray:
        """REFERENCE rows of stars of 15.5 < r < 22.5 in a box, with errors.

        Astrometry 3 mas at the bright end to 20 mas at the faint, photometry 5-10 mmag (assumed, as the_monster's).
        """
        flux = self.stars["flux"]
        keep = (flux[:, 2] < fluxes_njy(15.5)) & (flux[:, 2] > fluxes_njy(22.5))
        rng = stream(seed, "references")
        noise = rng.normal(size=(len(self.stars), 2 + len(BANDS)))[keep]
        rows = self.stars[keep]
        ra, dec = self.stars_at(self.night, rows)
        out = empty(REFERENCE, len(rows))
        depth = np.clip((AB_ZEROPOINT_NJY - 2.5 * np.log10(rows["flux"][:, 2]) - 16.0) / 6.5, 0.0, 1.0)
        error = 0.003 * (20.0 / 3.0) ** depth
        out["refId"], out["raErr"], out["decErr"] = rows["id"], error, error
        out["ra"] = (ra + noise[:, 0] * error / 3600 / np.cos(np.radians(dec))) % 360.0
        out["dec"] = dec + noise[:, 1] * error / 3600
        relative = 0.005 + 0.005 * depth
        for k, band in enumerate(BANDS):
            out[f"{band}_flux"] = rows["flux"][:, k] * (1.0 + noise[:, 2 + k] * relative)
            out[f"{band}_fluxErr"] = rows["flux"][:, k] * relative
        inside = box.contains(out["ra"], out["dec"])      # as catalogued, so that a subset is the same rows
        return np.asarray(out[inside])

    def ephemerides(self, box: Box | None = None, mjd_tai: float | None = None, *,
                    half_span_d: float = 0.03) -> np.ndarray:
        """EPHEMERIS rows of known asteroids about a time, of those predicted inside a box.

        Without a time: the table of the whole night, each asteroid in as many rows as windows of time tile it.
        """
        if mjd_tai is None:
            first, last = self.times[0] - 0.01, self.times[-1] + 0.01
            n = int(np.ceil((last - first) / (2 * half_span_d)))
            middles = (first + last) / 2 + (np.arange(n) - (n - 1) / 2) * 2 * half_span_d
            return np.concatenate([self.ephemerides(box, float(at), half_span_d=half_span_d) for at in middles])
        at = mjd_tai
        known = self.asteroids[self.asteroids["known"]]
        if self.solar_system is not None:
            if box is not None:
                known = known[box.contains(*solar.sky(self.solar_system.predicted(known, at)))]
            return self.solar_system.ephemerides(known, at, half_span_d)
        if box is not None and len(known):
            known = known[box.contains(*solar.sky(solar.topocentric(known, at, predicted=True)))]
        return solar.ephemerides(known, at, half_span_d) if len(known) else empty(EPHEMERIS)

    def satellite_tracks(self, visit: Visit) -> list[artifacts.Track]:
        """Trails in a visit; the `catalogued` ones are those the allow-list service knows."""
        return artifacts.satellite_tracks(self.config, visit, self.seed)


def _class_points(found: Population, visit: Visit) -> np.ndarray:
    """POINT rows of a population as it stands in a visit."""
    out = empty(POINT, len(found.rows))
    out["kind"], out["class"] = found.kind, found.name.encode()
    for name in ("id", "ra", "dec", "host", "host_sep", "weight"):
        out[name] = found.rows[name]
    out["flux"] = found.fluxes(band_index(visit.band), visit.mjd_tai)
    return out


__all__ = ["AGN", "FIRST_ID", "GALAXY", "MOVED", "POINT", "STAR", "TRANSIENT", "VARIABLE", "Sky"]
