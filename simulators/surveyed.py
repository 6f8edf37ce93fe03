"""The visits of a survey that cover a scenario's field: those of one night, and earlier ones for templates.

The survey is an OpSim database or one that our own scheduler plays. What a visit met is taken over: band, time,
airmass, rotation, size of the PSF, sky and clouds. The field is small beside the camera's view, so whichever detector
saw it is drawn as the scenario's own: the pointing is the field's, dithered as in drawn nights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from schemas.exposure import Visit
from schemas.opsim import OPSIM
from simulators import opsim
from simulators.conditions import DARK_SKY, SYSTEM_FWHM, WAVELENGTH_NM, Conditions, airmass
from simulators.config import SimulationConfig
from simulators.depth import depth
from simulators.streams import stream

DAY_S: Final = 86400.0
SKY_RANGE: Final = (-7.0, 0.7)      # of the sky's brightness about the dark one, where only a depth is known [mag]


def visit_id(mjd_tai: float, sequence: int) -> int:
    """YYYYMMDD * 100000 + sequence; the day begins at 12h UTC."""
    day = date(1858, 11, 17) + timedelta(days=int(np.floor(mjd_tai - 0.5)))
    return (day.year * 10000 + day.month * 100 + day.day) * 100000 + sequence


@dataclass(frozen=True, slots=True)
class Taken:
    """A visit of a survey."""

    number: int
    band: str
    mjd_start: float
    visit_s: float
    exposure_s: float
    rotation: float
    reason: str
    conditions: Conditions

    def visit(self, config: SimulationConfig, seed: int) -> Visit:
        """The visit as the twin has it."""
        rng = stream(seed, "pointing", self.number)
        radius = config.cadence.dither_arcsec / 3600 * np.sqrt(rng.uniform())
        angle = rng.uniform(0, 2 * np.pi)
        dec = config.field.dec + radius * np.sin(angle)
        ra = (config.field.ra + radius * np.cos(angle) / np.cos(np.radians(dec))) % 360.0
        return Visit(visit=self.number, band=self.band, ra=float(ra), dec=float(dec), rotation=self.rotation,
                     mjd_tai=self.mjd_start + self.visit_s / DAY_S / 2, exposure_s=self.exposure_s,
                     airmass=self.conditions.airmass, observation_reason=self.reason,
                     target_name=config.field.target_name)


def night(config: SimulationConfig, seed: int) -> tuple[Taken, ...]:
    """The night's visits to the field in time order; ValueError where it has none."""
    return _covering(_key(config), seed)[0]


def history(config: SimulationConfig, seed: int) -> tuple[Taken, ...]:
    """The last `history_per_band` visits before the night in each of its bands, in time order."""
    return _covering(_key(config), seed)[1]


def circumstances(config: SimulationConfig, seed: int) -> Mapping[int, Conditions]:
    """What each of these visits met, by its id."""
    return _covering(_key(config), seed)[2]


def _key(config: SimulationConfig) -> bytes:
    return msgspec.json.encode(SimulationConfig(field=config.field, cadence=config.cadence,
                                                conditions=config.conditions))


@lru_cache(maxsize=4)
def _covering(key: bytes, seed: int) -> tuple[tuple[Taken, ...], tuple[Taken, ...], Mapping[int, Conditions]]:
    config = msgspec.json.decode(key, type=SimulationConfig)
    c = config.cadence
    rows, source = _rows(config, seed)
    of_night = np.floor(rows["observationStartMJD"] + 0.5).astype(int)      # the MJD of the local midnight's UTC day
    tonight = np.flatnonzero(of_night == c.night_mjd)
    if c.visits_most:
        tonight = tonight[:c.visits_most]
    if not len(tonight):
        raise ValueError(_nothing(config, source, of_night))
    bands = set(rows["band"][tonight].tolist())
    before = np.flatnonzero((of_night < c.night_mjd) & np.isin(rows["band"], list(bands)))
    earlier = np.sort(np.concatenate([before[rows["band"][before] == band][-c.history_per_band:] if c.history_per_band
                                      else before[:0] for band in sorted(bands)]))
    now, then = (tuple(_taken(config, rows[i], int(i - np.flatnonzero(of_night == of_night[i])[0]) + 1)
                       for i in chosen) for chosen in (tonight, earlier))
    return now, then, {one.number: one.conditions for one in now + then}


def _rows(config: SimulationConfig, seed: int) -> tuple[np.ndarray, str]:
    """OPSIM rows that cover the field, and where they come from."""
    c, field = config.cadence, config.field
    if c.opsim:
        found = opsim.read(Path(c.opsim), around=(field.ra, field.dec, c.cover_deg))
        return found, c.opsim
    from simulators.scheduler import Survey  # numba's kernels load here only

    first = c.night_mjd - c.survey_nights + 1
    plan = msgspec.structs.replace(c.scheduler, first_night_mjd=first)
    survey = Survey(plan, seed, conditions=config.conditions)
    parts = [rows[opsim.within(rows, field.ra, field.dec, c.cover_deg)] for rows in survey.nights(c.survey_nights)]
    return np.concatenate([np.zeros(0, OPSIM), *parts]), f"the scheduler (seed {seed})"


def _nothing(config: SimulationConfig, source: str, of_night: np.ndarray) -> str:
    """Why there is no night."""
    c, field = config.cadence, config.field
    nights = np.unique(of_night)
    near = nights[np.argsort(np.abs(nights - c.night_mjd), kind="stable")[:5]]
    which = f"nearest nights that do: {', '.join(map(str, sorted(near.tolist())))}" if len(near) else "no night does"
    return (f"{source}: no visit in the night {c.night_mjd} (night_mjd) covers the field at ra {field.ra:g}, "
            f"dec {field.dec:g} within {c.cover_deg:g} deg; {which}")


def _taken(config: SimulationConfig, row: np.ndarray, sequence: int) -> Taken:
    start, rotation = float(row["observationStartMJD"]), float(row["rotSkyPos"])
    return Taken(number=visit_id(start, sequence), band=str(row["band"]), mjd_start=start,
                 visit_s=float(row["visitTime"]), exposure_s=float(row["visitExposureTime"]),
                 rotation=rotation if np.isfinite(rotation) else 0.0,
                 reason=str(row["observation_reason"]) or "survey", conditions=_met(config, row))


def _met(config: SimulationConfig, row: np.ndarray) -> Conditions:
    """The conditions of an OPSIM row; what its table lacks follows from what it has."""
    band, fwhm = str(row["band"]), float(row["seeingFwhmEff"])
    x = float(row["airmass"])
    if not np.isfinite(x):
        x = airmass(float(row["fieldRA"]), float(row["fieldDec"]), float(row["observationStartMJD"]))
    seeing = float(row["seeingFwhm500"])
    if not np.isfinite(seeing):
        squared = ((fwhm / 1.16 / x**0.6) ** 2 - SYSTEM_FWHM**2) / 1.04
        seeing = float(np.sqrt(max(squared, 0.01)) * (WAVELENGTH_NM[band] / 500.0) ** 0.3)
    sky = float(row["skyBrightness"])
    if not np.isfinite(sky):
        sky = _implied_sky(row, band, fwhm, x)
    cloud = float(row["cloud"])
    extinction = config.cadence.scheduler.cloud_mag * 8.0 * cloud if np.isfinite(cloud) else 0.0
    return Conditions(seeing, fwhm, x, sky, extinction)


def _implied_sky(row: np.ndarray, band: str, fwhm: float, x: float) -> float:
    """The sky that gives the row's depth with today's throughputs, kept within what skies are."""
    grid = DARK_SKY[band] + np.linspace(*SKY_RANGE, 400)
    depths = depth(band, grid, fwhm, x, float(row["visitExposureTime"]), max(1, int(row["numExposures"])))
    return float(np.interp(float(row["fiveSigmaDepth"]), depths, grid))
