"""A survey's figures beside those of the published baseline: one simulated year of v2.0, as shipped with Sorcha."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from simulators.conditions import SYSTEM_FWHM, WAVELENGTH_NM
from simulators.depth import depth
from simulators.opsim import site_altitude

PERCENTS: Final = (5, 25, 50, 75, 95)
BANDS: Final = "ugrizy"

# Percentiles measured on the first year of baseline v2.0 (216 233 visits in 291 nights).
PUBLISHED: Final[dict[str, tuple[float, ...]]] = {
    "visits per night": (268, 690, 752, 901, 1001),
    "start to start [s]": (36.0, 38.6, 38.8, 39.6, 44.7),
    "slew gap [s]": (4.41, 4.67, 4.84, 5.66, 9.5),
    "slew distance [deg]": (2.75, 2.84, 3.07, 3.16, 6.3),
    "pair gap [min]": (15.8, 32.6, 34.3, 35.0, 36.0),
    "airmass": (1.04, 1.09, 1.17, 1.29, 1.57),
    "FWHM500 [arcsec]": (0.39, 0.53, 0.655, 0.82, 1.19),
    "FWHMeff r [arcsec]": (0.69, 0.83, 0.96, 1.14, 1.53),
    "m5 r [mag]": (23.40, 23.81, 24.04, 24.24, 24.47)}
PUBLISHED_M5: Final = dict(zip(BANDS, (23.71, 24.48, 24.04, 23.50, 22.83, 22.08), strict=True))
PUBLISHED_SHARE: Final = dict(zip(BANDS, (0.065, 0.094, 0.208, 0.229, 0.183, 0.221), strict=True))

# PSTN-054's medians of ten years of the same baseline by band: airmass, FWHMeff ["], sky, m5.
PSTN_054: Final = dict(zip(BANDS, (
    (1.18, 1.16, 22.59, 23.62), (1.18, 1.11, 21.98, 24.38), (1.18, 1.05, 20.94, 23.92), (1.18, 1.01, 20.01, 23.34),
    (1.18, 0.97, 18.80, 22.70), (1.18, 0.95, 18.20, 21.97)), strict=True))

# Depth in the baseline's moonless night visits less that of today's formula under SMTN-002's dark sky, by band [mag]:
# medians over 12,300 to 29,800 visits in u to i, 6,700 in z and y, rms 0.01-0.05. It was made with an earlier
# throughput of mirrors and filters. PSTN_054's medians, put through the formula, say the same within 0.1 mag; medians
# of a skewed sky and of sizes do not add up to that of the depth.
THROUGHPUT_STEP: Final = dict(zip(BANDS, (0.307, -0.098, -0.127, -0.189, -0.249, -0.056), strict=True))

# What a year's weather makes of a figure, 5 to 95 % of 150 years: few nights are open for one quarter alone, 8 to 31 in
# a year (the baseline's had 25), and the twentieth part of a year's nights is 15. Where fewer were, the next are nights
# of two quarters.
YEARS: Final = {("visits per night", 5): (234.0, 484.0)}

MEDIAN_BAR: Final = 0.10
TAIL_BAR: Final = 0.20
AIRMASS_BAR: Final = 0.03
DEPTH_BAR: Final = 0.10            # [mag]
DEPTH_TAIL_BAR: Final = 0.20       # [mag]: 20 % of the flux
SHARE_BAR: Final = 0.02


@dataclass(frozen=True, slots=True)
class Check:
    """One figure of a survey beside the published one."""

    name: str
    percent: int | None            # of the percentile; None for a share
    ours: float
    published: float
    bar: float
    relative: bool                 # the bar is of the ratio, else of the difference

    @property
    def off(self) -> float:
        """How far from the published figure, as the bar counts."""
        return self.ours / self.published - 1.0 if self.relative else self.ours - self.published

    @property
    def passed(self) -> bool:
        return bool(abs(self.off) <= self.bar)

    @property
    def weather(self) -> bool:
        """Off by more than the bar, and by no more than a year's weather makes of a survey that is right on average."""
        low, high = YEARS.get((self.name, self.percent or 0), (np.inf, -np.inf))
        return bool(not self.passed and low <= self.ours <= high)


def published_step(band: str) -> float:
    """What PSTN-054's medians say of the same step: two exposures of 15 s, one of 30 s in u."""
    airmass, fwhm, sky, m5 = PSTN_054[band]
    return float(m5 - depth(band, sky, fwhm, airmass, 30.0, 1 if band == "u" else 2))


def statistics(visits: np.ndarray) -> dict[str, np.ndarray]:
    """The values whose percentiles are compared, by name; OPSIM rows in time order."""
    visits = visits[np.argsort(visits["observationStartMJD"], kind="stable")]
    mjd, band = visits["observationStartMJD"], visits["band"]
    night = np.floor(mjd - 0.5).astype(int)
    same = night[1:] == night[:-1]
    step = (np.diff(mjd) * 86400.0)[same]
    steady = (band[1:] == band[:-1])[same]
    gap = step - visits["visitTime"][:-1][same]
    airmass = _airmass(visits)
    red = band == "r"
    return {"visits per night": np.unique(night, return_counts=True)[1].astype(float),
            "start to start [s]": step[step < 300.0], "slew gap [s]": gap[steady & (gap < 300.0)],
            "slew distance [deg]": _distance(visits)[same], "pair gap [min]": _pair_gaps(visits, night),
            "airmass": airmass, "FWHM500 [arcsec]": _fwhm500(visits, airmass),
            "FWHMeff r [arcsec]": visits["seeingFwhmEff"][red], "m5 r [mag]": visits["fiveSigmaDepth"][red]}


def checks(visits: np.ndarray, *, as_published: bool = False) -> list[Check]:
    """Every figure that has a bar. `as_published`: the depths are those of the baseline's throughputs already."""
    if not len(visits):
        raise ValueError("no visits to compare with the published baseline")
    out = list(_percentiles(visits, as_published))
    for band in BANDS:
        here = visits["band"] == band
        out.append(Check(f"share of {band}", None, float(np.mean(here)), PUBLISHED_SHARE[band], SHARE_BAR, False))
        if np.any(here):
            step = 0.0 if as_published else THROUGHPUT_STEP[band]
            out.append(Check(f"m5 {band} [mag]", 50, float(np.median(visits["fiveSigmaDepth"][here])) + step,
                             PUBLISHED_M5[band], DEPTH_BAR, False))
    return out


def _percentiles(visits: np.ndarray, as_published: bool) -> Iterator[Check]:
    for name, values in statistics(visits).items():
        if not len(values):
            continue
        step = THROUGHPUT_STEP["r"] if name.startswith("m5") and not as_published else 0.0
        for percent, ours, published in zip(PERCENTS, np.percentile(values, PERCENTS) + step, PUBLISHED[name],
                                            strict=True):
            middle = percent == 50
            if name.startswith("m5"):
                if not middle:
                    yield Check(name, percent, float(ours), published, DEPTH_TAIL_BAR, False)
            elif name == "airmass" and middle:
                yield Check(name, percent, float(ours), published, AIRMASS_BAR, False)
            else:
                yield Check(name, percent, float(ours), published, MEDIAN_BAR if middle else TAIL_BAR, True)


def _airmass(visits: np.ndarray) -> np.ndarray:
    """The table's, or that of the place and time where it has none."""
    known = np.isfinite(visits["airmass"])
    if known.all():
        return np.asarray(visits["airmass"])
    altitude = site_altitude(visits["fieldRA"], visits["fieldDec"], visits["observationStartMJD"])
    return np.where(known, visits["airmass"], 1.0 / np.sin(np.radians(np.maximum(altitude, 10.0))))


def _fwhm500(visits: np.ndarray, airmass: np.ndarray) -> np.ndarray:
    """The table's, or what FWHMeff implies."""
    if np.isfinite(visits["seeingFwhm500"]).all():
        return np.asarray(visits["seeingFwhm500"])
    wavelength = np.array([WAVELENGTH_NM[str(b)] for b in visits["band"]])
    squared = ((visits["seeingFwhmEff"] / 1.16 / airmass**0.6) ** 2 - SYSTEM_FWHM**2) / 1.04
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)) * (wavelength / 500.0) ** 0.3)


def _distance(visits: np.ndarray) -> np.ndarray:
    """(n - 1,) degrees from one pointing to the next."""
    ra, dec = np.radians(visits["fieldRA"]), np.radians(visits["fieldDec"])
    half = (np.sin(np.diff(dec) / 2) ** 2 + np.cos(dec[1:]) * np.cos(dec[:-1]) * np.sin(np.diff(ra) / 2) ** 2)
    return np.asarray(np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0, 1)))))


def _pair_gaps(visits: np.ndarray, night: np.ndarray) -> np.ndarray:
    """Minutes between the two visits of pointings that have exactly two in a night."""
    place = np.round(visits["fieldRA"], 3) * 1e4 + np.round(visits["fieldDec"], 3)
    order = np.lexsort((visits["observationStartMJD"], place, night))
    new = np.flatnonzero(np.r_[True, (np.diff(place[order]) != 0) | (np.diff(night[order]) != 0)])
    count = np.diff(np.r_[new, len(order)])
    first = new[count == 2]
    mjd = visits["observationStartMJD"][order]
    return np.asarray((mjd[first + 1] - mjd[first]) * 1440.0)


def lines(found: list[Check]) -> list[str]:
    """A table for the terminal."""
    out = [f"{'figure':22} {'point':>6} {'ours':>9} {'v2.0':>9} {'ratio':>7} {'off':>8} {'bar':>6}"]
    for one in found:
        point = "share" if one.percent is None else f"{one.percent} %"
        out.append(f"{one.name:22} {point:>6} {one.ours:9.3f} {one.published:9.3f} {one.ours / one.published:7.3f} "
                   f"{one.off:+8.3f} {one.bar:6.2f} {'pass' if one.passed else 'year' if one.weather else 'FAIL'}")
    passed, weather = sum(one.passed for one in found), sum(one.weather for one in found)
    out.append(f"{passed} of {len(found)} figures within their bars"
               + (f", {weather} beyond, as far as one year's weather takes it" if weather else ""))
    return out
