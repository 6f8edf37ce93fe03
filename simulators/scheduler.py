"""A survey played night by night: a greedy scheduler before the real kinematics, the weather and the sky.

    night -> open hours -> blocks: twilight | pair of bands, fields, tour | deep drilling -> visits -> OPSIM rows

A block takes fields of one part of the sky in one band and again in the same order, 33 minutes later, in a second band.
Its worth is the depth that its fields have now, against the best that they ever have, with what the footprint and the
bands still want, less the time that slews and filter changes take.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from schemas.opsim import OPSIM
from simulators import almanac, survey_fields
from simulators.conditions import DARK_SKY, K_ATM, SITE, SYSTEM_FWHM, WAVELENGTH_NM
from simulators.config import ConditionsConfig, SchedulerConfig
from simulators.depth import depth
from simulators.kernels import pointing
from simulators.kinematics import Kinematics, slew_seconds
from simulators.skybrightness import sky_brightness
from simulators.streams import stream
from simulators.weather import Weather, seeing

BANDS: Final = "ugrizy"
DAY_S: Final = 86400.0
MEAN_GAP_S: Final = 5.3          # between visits of a block, for planning how many fit
MONTH: Final = 20000.0           # visits
SEQUENCE_S: Final = 4200.0       # a deep-drilling sequence and its slews, at most
FEWEST: Final = 4                # fields in a block
TAKEN_FROM_DEG: Final = 22.0     # fields of a block lie within this of its centre


@dataclass(slots=True)
class Progress:
    """What the survey has done so far."""

    done: np.ndarray                                       # (n, 6) visits by field and band
    by_band: np.ndarray = field(default_factory=lambda: np.zeros(6))
    deep_night: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Telescope:
    """Where the telescope is and what is mounted; changed by `Night.take`."""

    now_s: float                    # since the night's zero
    state: np.ndarray               # (8,) of the kernel


@dataclass(frozen=True, slots=True)
class Stand:
    """The fields at one time of a night."""

    now: almanac.Bodies        # of length 1
    altitude: np.ndarray       # (fields,) [deg]
    moon: np.ndarray           # (fields,) distance from the Moon [deg]
    usable: np.ndarray         # (fields,) bool


class Night:
    """One night of a survey; `visits` plays it."""

    def __init__(self, survey: "Survey", number: int) -> None:
        self.survey, self.number, self.config = survey, number, survey.config
        self.mjd = self.config.first_night_mjd + number
        self.zero = self.mjd - SITE[0] / 360.0               # local midnight
        self.rng = stream(survey.seed, "scheduler night", self.mjd)
        self.vectors = survey_fields.dithered(survey.fields.vectors, self.rng)
        self.rotator = float(np.radians(self.config.rotator_deg) * self.rng.uniform(-1, 1))
        self.matrix = almanac.of_date(self.zero)
        self.ra, self.dec = (np.radians(a) for a in almanac.angles(self.vectors @ self.matrix.T))
        self.sidereal = float(almanac.sidereal(self.zero))
        self.seen = np.zeros(len(self.vectors), bool)
        self.rows: list[np.ndarray] = []

    # --- the night -------------------------------------------------------------------------------------------------

    def visits(self) -> np.ndarray:
        """RAW rows in time order; empty where the night is lost."""
        dark, deep = almanac.night_bounds(self.mjd, self.config.sun_alt, self.config.twilight_alt)
        self._mount_filters(dark[0])
        at = dark[0]
        telescope = Telescope(0.0, np.array([0.0, 0.0, 0.0, 0.0, BANDS.index(self.mounted[-1]), 0.0, 0.0,
                                             np.radians(86.5)]))
        while at < dark[1]:
            stretch = self.survey.weather.open_until(at, dark[1])
            if stretch is None:
                break
            telescope.state[5:7] = 0.0                       # parked while it was closed
            telescope.now_s = (stretch[0] - self.zero) * DAY_S
            self._stretch(telescope, stretch, deep)
            at = stretch[1] + 1e-9
        return np.concatenate(self.rows) if self.rows else np.zeros(0, RAW)

    def _mount_filters(self, sunset: float) -> None:
        lit = float(almanac.bodies(np.array([sunset])).illuminated[0])
        self.mounted = self.config.bright_filters if lit > self.config.moon_limit else self.config.dark_filters

    def _stretch(self, telescope: Telescope, stretch: tuple[float, float], deep: tuple[float, float]) -> None:
        """Blocks from one time to another."""
        end = (stretch[1] - self.zero) * DAY_S
        evening, morning = ((t - self.zero) * DAY_S for t in deep)
        while telescope.now_s < end - 60.0:
            before = telescope.now_s
            if before < evening - 120.0:
                self._twilight(telescope, min(evening, end), "evening")
            elif before > morning - 120.0:
                self._twilight(telescope, end, "morning")
            else:
                self._dark(telescope, min(morning, end))
            if telescope.now_s <= before:                    # nothing could be observed: look again later
                telescope.now_s = before + 300.0
                telescope.state[6] = 0.0

    def _twilight(self, telescope: Telescope, end_s: float, when: str) -> None:
        every = self.config.near_sun_nights
        if every and self.number % every == 0 and self._near_sun(telescope, end_s, when):
            return
        self._pairs(telescope, end_s, self.config.twilight_pairs, 2 * 60.0 * self.config.twilight_pair_min, "twilight")

    def _dark(self, telescope: Telescope, end_s: float) -> None:
        left = end_s - telescope.now_s
        if left > SEQUENCE_S and self._deep(telescope, end_s):
            return
        if left < 60.0 * self.config.pair_min:               # too short for two passes of the usual length
            self._pairs(telescope, end_s, self.config.pairs, left, "pair_short")
            return
        block = 2 * 60.0 * self.config.pair_min + 60.0
        self._pairs(telescope, end_s, self.config.pairs, left / max(1, round(left / block)), "pair_33")

    # --- pairs -----------------------------------------------------------------------------------------------------

    def _pairs(self, telescope: Telescope, end_s: float, pairs: tuple[str, ...], length_s: float, kind: str) -> None:
        """The best block that fits, in two passes."""
        length_s = min(length_s, end_s - telescope.now_s)
        stand, slew = self._stand(telescope.now_s, length_s), self._slew_to(telescope)
        worth = {band: self._worth(stand, band)
                 for band in self.mounted if any(band in pair for pair in pairs)}
        best: tuple[float, str, np.ndarray] | None = None
        for pair in pairs:
            if pair[0] not in worth or pair[1] not in worth:
                continue
            changes = float(BANDS.index(pair[0]) != int(telescope.state[4])) + float(pair[0] != pair[1])
            number = self._fitting(pair, length_s - changes * self.survey.kinematics.band_change_s)
            if number < FEWEST:
                continue
            value, chosen = self._block(slew, 0.5 * (worth[pair[0]] + worth[pair[1]]), number)
            value += 0.5 * (self.survey.wanted(pair[0]) + self.survey.wanted(pair[1]))
            value -= self.config.slew_weight * changes * 2.0 * 1800.0 / length_s
            if len(chosen) and (best is None or value > best[0]):
                best = value, pair, chosen
        if best is None:
            return
        _, pair, chosen = best
        chosen = chosen[self._tour(telescope, chosen)]
        for band, half in zip(pair, "ab", strict=True):
            self._take(telescope, chosen, band, end_s, f"{kind}, {pair}, {half}")

    def _fitting(self, pair: str, length_s: float) -> int:
        per_field = sum(self.survey.visit_s(band) + MEAN_GAP_S for band in pair)
        return int(length_s / per_field)

    def _stand(self, start_s: float, length_s: float) -> "Stand":
        """How the fields stand in the middle of a block that begins now."""
        middle = start_s + length_s / 2
        now = almanac.bodies(np.array([self.zero + middle / DAY_S]))
        altitude = self._altitude(middle)
        moon = almanac.separation(self.vectors, almanac.unit(now.moon_ra[0], now.moon_dec[0]))
        usable = self._usable(start_s, length_s) & ~self.seen & (moon > self.config.moon_distance_deg)
        return Stand(now, altitude, moon, usable)

    def _worth(self, stand: "Stand", band: str) -> np.ndarray:
        """(fields,) magnitudes against the best that a field ever has, and what the footprint wants; -inf: not now."""
        k, now = BANDS.index(band), stand.now
        rows = np.flatnonzero(stand.usable & (self.survey.fields.weight[:, k] > 0))
        out = np.full(len(stand.usable), -np.inf)
        if not len(rows):
            return out
        altitude = stand.altitude[rows]
        sky = sky_brightness(band, altitude, stand.moon[rows], now.moon_alt[0], now.elongation[0], now.sun_alt[0])
        airmass = 1.0 / np.sin(np.radians(altitude))
        ideal = 1.0 / np.cos(self.dec[rows] - np.radians(SITE[1]))   # at transit
        loss = 0.5 * (sky - DARK_SKY[band]) - K_ATM[band] * (airmass - ideal) - 1.5 * np.log10(airmass / ideal)
        progress = self.survey.progress.done[rows, k] / self.survey.fields.weight[rows, k]
        behind = np.tanh((np.mean(progress) - progress) / self.config.footprint_visits)
        out[rows] = loss + self.config.footprint_weight * behind
        return out

    def _usable(self, start_s: float, length_s: float) -> np.ndarray:
        """Fields within the altitudes and airmass all through a block."""
        low = max(self.config.altitude[0], np.degrees(np.arcsin(1.0 / self.config.airmass_max)))
        out = np.ones(len(self.ra), bool)
        for at in (start_s, start_s + length_s / 2, start_s + length_s):
            altitude = self._altitude(at)
            out &= (altitude > low) & (altitude < self.config.altitude[1])
        return out

    def _altitude(self, at_s: float) -> np.ndarray:
        hour = self.sidereal + almanac.SIDEREAL_RATE * at_s - self.ra
        lat = np.radians(SITE[1])
        return np.asarray(np.degrees(np.arcsin(np.sin(lat) * np.sin(self.dec)
                                               + np.cos(lat) * np.cos(self.dec) * np.cos(hour))))

    def _block(self, slew: np.ndarray, worth: np.ndarray, number: int) -> tuple[float, np.ndarray]:
        """Mean worth and fields of the best part of the sky."""
        usable = np.isfinite(worth)
        if np.count_nonzero(usable) < FEWEST:
            return -np.inf, np.zeros(0, np.int64)
        near = self.survey.fields.near
        floor = float(np.min(worth[usable])) - 0.2           # what a field that can't be taken counts for
        smooth = np.append(np.where(usable, worth, floor), floor)[near].mean(1)
        smooth -= self.config.slew_weight / 120.0 * slew
        centre = int(np.argmax(np.where(usable, smooth, -np.inf)))
        away = almanac.separation(self.vectors, self.vectors[centre])
        score = np.where(usable & (away < TAKEN_FROM_DEG), worth - self.config.nearness * away, -np.inf)
        chosen = np.argsort(-score, kind="stable")[:number]
        chosen = chosen[np.isfinite(score[chosen])]
        return float(np.mean(worth[chosen])), chosen

    def _slew_to(self, telescope: Telescope) -> np.ndarray:
        """(fields,) rough seconds of a slew from where the telescope is: by the dome's speed, and the optics' loop."""
        if telescope.state[6] < 0.5:
            return np.zeros(len(self.ra))
        altitude = np.radians(self._altitude(telescope.now_s))
        place = self._place(telescope)
        k = self.survey.kinematics
        away = almanac.separation(almanac.unit(np.degrees(self.ra), np.degrees(self.dec)),
                                  almanac.unit(np.degrees(telescope.state[0]), np.degrees(telescope.state[1])))
        return np.asarray(away / k.dome[1] + k.closed_loop_s * (np.abs(np.degrees(altitude - place[0]))
                                                               >= k.closed_loop_deg + 6.0))

    def _place(self, telescope: Telescope) -> np.ndarray:
        out = np.empty(3)
        if telescope.state[6] < 0.5:
            out[:] = telescope.state[7], telescope.state[3] % (2 * np.pi), 0.0
        else:
            hour = self.sidereal + almanac.SIDEREAL_RATE * telescope.now_s - telescope.state[0]
            pointing.horizontal(hour, telescope.state[1], np.radians(SITE[1]), out)
        return out

    def _tour(self, telescope: Telescope, chosen: np.ndarray) -> np.ndarray:
        middle = telescope.now_s + 0.25 * 2 * 60.0 * self.config.pair_min
        hour = self.sidereal + almanac.SIDEREAL_RATE * middle - self.ra[chosen]
        place = np.empty(3)
        altitude, azimuth = np.empty(len(chosen)), np.empty(len(chosen))
        for i, (h, dec) in enumerate(zip(hour, self.dec[chosen], strict=True)):
            pointing.horizontal(h, dec, np.radians(SITE[1]), place)
            altitude[i], azimuth[i] = place[0], place[1]
        start = self._place(telescope)
        return np.asarray(pointing.tour(altitude, azimuth, start[0], start[1]))

    # --- other kinds -----------------------------------------------------------------------------------------------

    def _deep(self, telescope: Telescope, end_s: float) -> bool:
        """A deep-drilling sequence, if one is due and stands well."""
        c = self.config
        for name, ra, dec in survey_fields.DEEP if c.deep_gap_nights else ():
            due = self.number - self.survey.progress.deep_night.get(name, -99) >= c.deep_gap_nights
            if not due or not self._deep_stands_well(telescope, ra, dec):
                continue
            vector = almanac.unit(ra, dec)
            for band, visits in zip(BANDS, c.deep_visits, strict=True):
                if band in self.mounted and visits:
                    self._expose(telescope, np.repeat(vector[None], visits, axis=0), np.full(visits, -1), band, end_s,
                                 f"DD:{name}", c.exposure_s)
            self.survey.progress.deep_night[name] = self.number
            return True
        return False

    def _deep_stands_well(self, telescope: Telescope, ra: float, dec: float) -> bool:
        vector = almanac.unit(ra, dec)
        times = self.zero + (telescope.now_s + np.array([0.0, SEQUENCE_S])) / DAY_S
        altitude, _ = almanac.horizon(np.broadcast_to(vector, (2, 3)), times)
        now = almanac.bodies(times)
        moon = almanac.separation(np.broadcast_to(vector, (2, 3)), almanac.unit(now.moon_ra, now.moon_dec))
        return bool(np.all(altitude > 42.0) and np.all(altitude < self.config.altitude[1])
                    and np.all(moon > self.config.moon_distance_deg))

    def _near_sun(self, telescope: Telescope, end_s: float, when: str) -> bool:
        """Four passes of 15 s over the fields nearest to the Sun that stand above airmass 2.5."""
        length = end_s - telescope.now_s
        now = almanac.bodies(np.array([self.zero + telescope.now_s / DAY_S]))
        low = self._altitude(telescope.now_s), self._altitude(end_s)
        elongation = almanac.separation(self.vectors, almanac.unit(now.sun_ra[0], now.sun_dec[0]))
        usable = (np.minimum(*low) > 23.6) & (elongation > 35.0) & (elongation < 65.0)
        number = int(length / (4 * (15.0 + self.survey.kinematics.shutter_s + MEAN_GAP_S + 1.0)))
        rows = np.flatnonzero(usable)
        if number < FEWEST or len(rows) < FEWEST:
            return False
        chosen = rows[np.argsort(elongation[rows], kind="stable")[:number]]
        chosen = chosen[self._tour(telescope, chosen)]
        band = str(self.rng.choice([b for b in "riz" if b in self.mounted]))
        for turn in range(4):
            self._expose(telescope, self.vectors[chosen], np.full(len(chosen), -1), band, end_s,
                         f"twilight_near_sun, {when}, {turn}", 15.0)
        return True

    # --- taking ----------------------------------------------------------------------------------------------------

    def _take(self, telescope: Telescope, chosen: np.ndarray, band: str, end_s: float, note: str) -> None:
        k = BANDS.index(band)
        taken = self._expose(telescope, self.vectors[chosen], chosen, band, end_s, note,
                             self.survey.exposure_s(band))
        self.survey.progress.done[chosen[:taken], k] += 1
        self.seen[chosen[:taken]] = True

    def _expose(self, telescope: Telescope, vectors: np.ndarray, ids: np.ndarray, band: str, end_s: float, note: str,
                exposure_s: float) -> int:
        """Visits in the order given until the time is up; gives their number."""
        survey, n = self.survey, len(vectors)
        snaps = survey.snaps(band) if exposure_s == survey.exposure_s(band) else 1
        visit_s = survey.kinematics.visit_s(exposure_s, snaps)
        ra, dec = (np.radians(a) for a in almanac.angles(vectors @ self.matrix.T))
        out = np.zeros((n, 7))
        taken = pointing.observe(ra, dec, np.full(n, BANDS.index(band)), np.full(n, visit_s), self.rotator,
                                 np.radians(SITE[1]), self.sidereal, almanac.SIDEREAL_RATE, telescope.now_s, end_s,
                                 survey.mount, telescope.state, out)
        rows = np.zeros(taken, RAW)
        rows["vector"], rows["field"], rows["band"], rows["note"] = vectors[:taken], ids[:taken], band, note
        rows["exposure_s"], rows["visit_s"], rows["snaps"] = exposure_s, visit_s, snaps
        rows["night"], rows["mjd"] = self.number, self.zero + out[:taken, 0] / DAY_S
        for name, column in (("slew_s", 1), ("altitude", 2), ("azimuth", 3), ("parallactic", 4), ("distance", 5)):
            rows[name] = out[:taken, column]
        rows["rotator"] = self.rotator
        if taken:
            telescope.now_s = float(out[taken - 1, 0] + visit_s)
            self.rows.append(rows)
            survey.progress.by_band[BANDS.index(band)] += taken
        return int(taken)


RAW: Final = np.dtype([("night", "i8"), ("mjd", "f8"), ("field", "i8"), ("vector", "f8", (3,)), ("band", "U1"),
                       ("exposure_s", "f8"), ("visit_s", "f8"), ("snaps", "i8"), ("slew_s", "f8"),
                       ("altitude", "f8"), ("azimuth", "f8"), ("parallactic", "f8"), ("distance", "f8"),
                       ("rotator", "f8"), ("note", "U48")])        # a visit as taken; angles radians


class Survey:
    """A survey in the making: fields, weather, telescope, and what has been done."""

    def __init__(self, config: SchedulerConfig, seed: int, *, conditions: ConditionsConfig | None = None,
                 kinematics: Kinematics | None = None) -> None:
        self.config, self.seed = config, seed
        self.conditions = conditions or ConditionsConfig()
        self.kinematics = kinematics or Kinematics()
        self.mount = self.kinematics.packed()
        self.weather = Weather(config, seed)
        self.fields = survey_fields.fields(config.targets)
        self.progress = Progress(np.zeros(self.fields.weight.shape))

    def snaps(self, band: str) -> int:
        return 1 if band == "u" else self.config.snaps

    def exposure_s(self, band: str) -> float:
        return self.config.exposure_u_s if band == "u" else self.config.exposure_s

    def visit_s(self, band: str) -> float:
        return self.kinematics.visit_s(self.exposure_s(band), self.snaps(band))

    def wanted(self, band: str) -> float:
        """Magnitudes of depth that a band is worth for being behind its share of all visits."""
        share = np.array(self.config.targets) / sum(self.config.targets)
        k = BANDS.index(band)
        months = (share[k] * self.progress.by_band.sum() - self.progress.by_band[k]) / (MONTH * share[k])
        return float(self.config.band_weight * np.clip(months, -1.0, 1.0))

    def nights(self, number: int) -> Iterator[np.ndarray]:
        """OPSIM rows of each night in turn; a lost night is an empty table."""
        lost = self.weather.lost_nights(self.config.first_night_mjd, number)
        taken = 0
        for k in range(number):
            raw = np.zeros(0, RAW) if lost[k] else Night(self, k).visits()
            yield table(self, raw, taken)
            taken += len(raw)


def simulate(config: SchedulerConfig, seed: int, nights: int, *, conditions: ConditionsConfig | None = None,
             kinematics: Kinematics | None = None) -> np.ndarray:
    """OPSIM rows of a survey's first nights."""
    if nights < 1:
        raise ValueError(f"at least 1 night is needed, got {nights}")
    return np.concatenate(list(Survey(config, seed, conditions=conditions, kinematics=kinematics).nights(nights)))


def table(survey: Survey, raw: np.ndarray, first_id: int) -> np.ndarray:
    """One night's OPSIM rows."""
    out = np.zeros(len(raw), OPSIM)
    if not len(raw):
        return out
    now = almanac.bodies(raw["mjd"])
    ra, dec = almanac.angles(raw["vector"])
    altitude, para = np.degrees(raw["altitude"]), np.degrees(raw["parallactic"])
    airmass = 1.0 / np.sin(raw["altitude"])
    moon = almanac.separation(raw["vector"], almanac.unit(now.moon_ra, now.moon_dec))
    fwhm500 = seeing(survey.conditions, raw["mjd"], survey.seed)
    cloud = survey.weather.clouds(raw["mjd"])
    rotator = np.degrees(raw["rotator"])
    out["observationId"], out["night"] = first_id + np.arange(len(raw)), raw["night"]
    out["observationStartMJD"] = raw["mjd"]
    out["observationStartLST"] = np.degrees(almanac.sidereal(raw["mjd"]))
    out["numExposures"], out["visitTime"], out["visitExposureTime"] = raw["snaps"], raw["visit_s"], raw["exposure_s"]
    out["fieldId"], out["fieldRA"], out["fieldDec"] = raw["field"], ra, dec
    out["altitude"], out["azimuth"], out["airmass"] = altitude, np.degrees(raw["azimuth"]), airmass
    out["band"] = raw["band"]
    out["filter"] = np.char.add(np.char.add(raw["band"], "_"), _slot(raw["band"]))
    out["cloud"], out["seeingFwhm500"] = cloud, fwhm500
    out["slewTime"], out["slewDistance"] = raw["slew_s"], np.degrees(raw["distance"])
    out["paraAngle"] = out["pseudoParaAngle"] = para
    out["rotTelPos"], out["rotSkyPos"] = rotator % 360.0, (rotator - para) % 360.0
    out["rotSkyPos_desired"] = out["rotSkyPos"]
    out["moonRA"], out["moonDec"], out["moonAlt"], out["moonAz"] = now.moon_ra, now.moon_dec, now.moon_alt, now.moon_az
    out["moonDistance"], out["moonPhase"] = moon, 100.0 * now.illuminated
    out["sunAlt"], out["sunAz"] = now.sun_alt, now.sun_az
    out["solarElong"] = almanac.separation(raw["vector"], almanac.unit(now.sun_ra, now.sun_dec))
    _optical(survey, out, raw, now)
    _notes(survey, out, raw)
    return out


def _optical(survey: Survey, out: np.ndarray, raw: np.ndarray, now: almanac.Bodies) -> None:
    """Fill in size, sky and depth, in place."""
    for band in np.unique(raw["band"]):
        k = raw["band"] == band
        airmass = out["airmass"][k]
        atmosphere = out["seeingFwhm500"][k] * (500.0 / WAVELENGTH_NM[band]) ** 0.3
        effective = 1.16 * airmass**0.6 * np.sqrt(SYSTEM_FWHM**2 + 1.04 * atmosphere**2)
        out["seeingFwhmEff"][k], out["seeingFwhmGeom"][k] = effective, 0.822 * effective + 0.052
        sky = sky_brightness(str(band), out["altitude"][k], out["moonDistance"][k], now.moon_alt[k],
                             now.elongation[k], now.sun_alt[k])
        out["skyBrightness"][k] = sky
        for snaps, exposure_s in np.unique(raw[["snaps", "exposure_s"]][k]):
            j = k & (raw["snaps"] == snaps) & (raw["exposure_s"] == exposure_s)
            out["fiveSigmaDepth"][j] = depth(str(band), out["skyBrightness"][j], out["seeingFwhmEff"][j],
                                             out["airmass"][j], float(exposure_s), int(snaps))
    out["fiveSigmaDepth"] -= survey.config.cloud_mag * 8.0 * out["cloud"]


def _slot(bands: np.ndarray) -> np.ndarray:
    """Numbers of LSSTCam's filters: u_24, g_6, r_57, i_39, z_20, y_10."""
    numbers = dict(zip(BANDS, ("24", "6", "57", "39", "20", "10"), strict=True))
    return np.array([numbers[str(b)] for b in bands])


def _notes(survey: Survey, out: np.ndarray, raw: np.ndarray) -> None:
    """Fill in what a visit was for, in place."""
    out["note"] = out["scheduler_note"] = raw["note"]
    head = np.array([str(note).partition(",")[0] for note in raw["note"]])
    deep = np.char.startswith(head, "DD:")
    out["observation_reason"] = np.where(deep, "deep_drilling", head)
    region = np.append(survey.fields.region, "near_sun")[raw["field"]]
    out["target_name"] = np.where(deep, head, region)
    out["science_program"] = "simulated"


__all__ = ["Night", "Survey", "simulate", "slew_seconds", "table"]
