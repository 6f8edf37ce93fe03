"""A night's visits to one field, and the earlier visits that templates are made of: pairs about 33 minutes apart with
conditions drawn for them, or the visits of a survey with its conditions.
"""

from collections.abc import Sequence

import numpy as np

from schemas.exposure import Visit
from simulators import surveyed
from simulators.conditions import SITE, Conditions, airmass, conditions, transit
from simulators.config import CadenceConfig, SimulationConfig
from simulators.streams import stream
from simulators.surveyed import visit_id

DAY_S = 86400.0
PAST_SEQUENCE = 10_001    # of the first visit of an earlier night: templates have visits of the same nights


def visits(config: SimulationConfig, seed: int) -> list[Visit]:
    """The night in time order."""
    if config.cadence.surveyed:
        return [taken.visit(config, seed) for taken in surveyed.night(config, seed)]
    plan = _plan(config, seed)
    start = config.cadence.start_mjd_tai
    if start is None:
        start = transit(config.field.ra, config.cadence.night_mjd) - plan[-1][1] / DAY_S / 2
    return [_visit(config, seed, band, start + seconds / DAY_S, number, "simulated pair")
            for number, (band, seconds) in enumerate(plan, 1)]


def history(config: SimulationConfig, seed: int, bands: Sequence[str] = ()) -> list[Visit]:
    """Earlier visits for templates in time order, `history_per_band` in each of the night's bands, or in those named.

    One per past night and band; a survey's are its last before the night, and drawn in a band that has none.
    """
    if bands:
        return _drawn_history(config, seed, bands, f"history {''.join(bands)}")
    if config.cadence.surveyed:
        earlier = surveyed.history(config, seed)
        without = {t.band for t in surveyed.night(config, seed)} - {t.band for t in earlier}
        drawn = _drawn_history(config, seed, sorted(without, key="ugrizy".index))
        return sorted([t.visit(config, seed) for t in earlier] + drawn, key=lambda visit: visit.mjd_tai)
    return _drawn_history(config, seed, sorted(set("".join(config.cadence.blocks)), key="ugrizy".index))


def conditions_of(config: SimulationConfig, visit: Visit, seed: int) -> Conditions:
    """The circumstances of a visit: the survey's, or drawn."""
    if config.cadence.surveyed:
        found = surveyed.circumstances(config, seed).get(visit.visit)
        if found is not None:
            return found
    return conditions(config, visit, seed)


def _drawn_history(config: SimulationConfig, seed: int, bands: Sequence[str], purpose: str = "history") -> list[Visit]:
    c = config.cadence
    rng = stream(seed, purpose)
    taken: dict[int, int] = {}
    rows = []
    for band in bands:
        nights = c.night_mjd - c.history_gap_d - c.history_span_d * np.sort(rng.uniform(size=c.history_per_band))[::-1]
        for night in np.floor(nights).astype(int).tolist():
            mjd = transit(config.field.ra, night) + rng.uniform(-0.04, 0.04)
            if band not in c.history_without:
                rows.append((mjd, band))
    out = []
    for mjd, band in sorted(rows):
        day = int(np.floor(mjd - 0.5))
        taken[day] = taken.get(day, 0) + 1
        out.append(_visit(config, seed, band, mjd, taken[day], "simulated template"))
    return out


def past(config: SimulationConfig, seed: int) -> list[Visit]:
    """The visits of the nights before, in time order: pairs about the field's transit in `config.past.nights` nights.

    The nights are spread over those of the span in whose season the field is, each at random within an equal share of
    them. ValueError where the season has fewer nights.
    """
    p, c = config.past, config.cadence
    rng = stream(seed, "past")
    nights = [night for night in range(int(c.night_mjd - p.span_d), c.night_mjd)
              if abs(transit(config.field.ra, night) - night + SITE[0] / 360.0) < p.season_h / 24]
    if len(nights) < p.nights:
        raise ValueError(f"past.nights: {p.nights} nights are wanted, the field transits within {p.season_h:g} h of "
                         f"midnight in {len(nights)} of the {p.span_d:g} days before")
    share = len(nights) / p.nights
    chosen = np.floor((np.arange(p.nights) + rng.uniform(size=p.nights)) * share).astype(int)
    out = []
    for number, night in enumerate(np.array(nights)[chosen].tolist()):
        plan = _pairs(c, p.blocks[number % len(p.blocks)], p.pairs, 0.0, rng)
        start = transit(config.field.ra, night) - plan[-1][1] / DAY_S / 2
        out += [_visit(config, seed, band, start + seconds / DAY_S, k, "simulated past")
                for k, (band, seconds) in enumerate(plan, PAST_SEQUENCE)]
    return out


def _plan(config: SimulationConfig, seed: int) -> list[tuple[str, float]]:
    """(band, seconds from the first exposure's start to this one's) in time order."""
    c, rng = config.cadence, stream(seed, "cadence")
    out: list[tuple[str, float]] = []
    begin = 0.0
    for block in c.blocks:
        out += _pairs(c, block, c.pairs, begin, rng)
        begin = out[-1][1] + c.exposure_s + c.overhead_s + max(c.band_change_s, c.slew_s)
    return out


def _pairs(c: CadenceConfig, block: str, pairs: int, begin: float, rng: np.random.Generator
           ) -> list[tuple[str, float]]:
    """(band, seconds) of a block of pairs that begins at some time."""
    gaps = c.exposure_s + c.overhead_s + c.slew_s * np.exp(0.12 * np.abs(rng.normal(size=pairs)))
    first = begin + np.concatenate([[0.0], np.cumsum(gaps[:-1])])
    gap = max(60.0 * c.pair_gap_min * float(rng.uniform(0.97, 1.06)), float(np.sum(gaps)))
    if block[0] != block[-1]:
        gap = max(gap, float(np.sum(gaps)) + c.band_change_s)
    return [(block[0], float(t)) for t in first] + [(block[-1], float(t + gap)) for t in first]


def _visit(config: SimulationConfig, seed: int, band: str, mjd_start: float, sequence: int, reason: str) -> Visit:
    c, number = config.cadence, visit_id(mjd_start, sequence)
    rng = stream(seed, "pointing", number)
    radius, angle = c.dither_arcsec / 3600 * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
    dec = config.field.dec + radius * np.sin(angle)
    ra = (config.field.ra + radius * np.cos(angle) / np.cos(np.radians(dec))) % 360.0
    turn = 90.0 * rng.integers(4) if c.quarter_turns else 0.0
    rotation = (c.rotation_deg + turn + c.rotation_spread_deg * rng.normal()) % 360.0
    mjd = mjd_start + c.exposure_s / DAY_S / 2
    x = config.conditions.airmass
    return Visit(visit=number, band=band, ra=float(ra), dec=float(dec), rotation=float(rotation), mjd_tai=float(mjd),
                 exposure_s=c.exposure_s, airmass=airmass(float(ra), float(dec), mjd) if x is None else x,
                 observation_reason=reason, target_name=config.field.target_name)


__all__ = ["DAY_S", "conditions_of", "history", "visit_id", "visits"]
