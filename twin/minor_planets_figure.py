"""The drawn population of minor planets beside what is published of the real one, as one figure."""

from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.drawing import CYCLE, INK, MUTED, styled
from simulators import asteroids as solar
from simulators import minor_planets, orbits
from simulators.families import FAMILIES
from simulators.minor_planets import Patch
from simulators.streams import stream

NAMES: Final = {"main_belt": "main belt", "near_earth": "near Earth", "trojan": "Trojans", "tno": "beyond Neptune",
                "hilda": "Hildas", "hungaria": "Hungarias"}
BETA: Final = ((0, 2), (2, 5), (5, 10), (10, 15), (15, 20), (20, 30), (30, 40))
MEASURED_BETA: Final = (1.00, 0.96, 0.81, 0.58, 0.35, 0.13, 0.02)      # of a belt without magnitude limit
MEASURED_RATES: Final = {"opposition": (180.0, (0.19, 0.22, 0.27)), "105 deg from the Sun": (105.0, (0.06, 0.14, 0.26))}
EVERYTHING: Final = 99.0                                                # [mag]


@styled
def population_figure(mjd_tai: float, seed: int = 1) -> Figure:
    """Orbits, rates at two elongations, density against latitude, and counts at opposition on a night."""
    figure = Figure(figsize=(12.0, 9.6), dpi=100)
    axes = figure.subplots(2, 3)
    figure.subplots_adjust(left=0.065, right=0.985, top=0.95, bottom=0.065, wspace=0.24, hspace=0.26)
    _orbits(axes[0, 0], axes[0, 1], mjd_tai, seed)
    _rates(axes[0, 2], mjd_tai, seed)
    _latitudes(axes[1, 0], mjd_tai, seed)
    _counts(axes[1, 1], mjd_tai, seed)
    _rotations(axes[1, 2], mjd_tai, seed)
    return figure


def at_ecliptic(mjd_tai: float, elongation: float, latitude: float, radius_deg: float, faint: float,
                band: str = "R") -> Patch:
    """A circle at an angle from the Sun, west of it, along a parallel of ecliptic latitude [deg]."""
    earth = orbits.observer(np.array([mjd_tai]))[0] @ solar.TO_EQUATOR
    longitude = np.degrees(np.arctan2(earth[1], earth[0])) + elongation - 180.0
    ra, dec = solar.sky(solar.directions(np.array(longitude), np.array(latitude)) @ solar.TO_EQUATOR.T)
    return Patch(float(ra), float(dec), radius_deg, mjd_tai, faint, band)


def _orbits(left: Axes, right: Axes, mjd_tai: float, seed: int) -> None:
    for colour, family in zip(CYCLE, FAMILIES, strict=False):
        n = 4000 if family == "main_belt" else 700
        rows = minor_planets.whole_sky(family, stream(seed, f"figure: {family}"), n, mjd_tai, 20.0)
        left.plot(rows["a"], rows["e"], ".", color=colour, ms=1.6, alpha=0.6, label=NAMES[family], rasterized=True)
        right.plot(rows["a"], np.degrees(rows["inc"]), ".", color=colour, ms=1.6, alpha=0.6, rasterized=True)
    for ax, label in ((left, "eccentricity"), (right, "inclination [deg]")):
        ax.set(xscale="log", xlim=(0.6, 160.0), xlabel="semi-major axis [au]", ylabel=label)
        ax.set_xticks([1, 2, 3, 5, 10, 30, 100], ["1", "2", "3", "5", "10", "30", "100"])
        ax.minorticks_off()
    a = np.linspace(1.31, 160, 400)
    left.plot(a, 1 - 1.3 / a, color=MUTED, lw=0.8, ls="--")
    left.set(ylim=(0, 1.25), title="Orbits (dashed: perihelion 1.3 au)")
    left.legend(markerscale=6, loc="upper left", ncols=2)
    right.set(ylim=(0, 60), title="Tilts")


def _rates(ax: Axes, mjd_tai: float, seed: int) -> None:
    at = mjd_tai + np.array([-0.005, 0.005])
    geocentre = orbits.observer(at) - orbits.site(at)
    for k, (name, (elongation, measured)) in enumerate(MEASURED_RATES.items()):
        spread = (elongation,) if elongation == 180.0 else np.linspace(95.0, 115.0, 7)
        rows = np.concatenate([minor_planets.draw("main_belt", at_ecliptic(mjd_tai, away, 0.0, 1.75, EVERYTHING),
                                                  stream(seed, f"figure: rates {away}"), 0.02) for away in spread])
        vectors = orbits.apparent(rows, at, geocentre)
        rates = solar.separation_arcsec(vectors[0], vectors[1]) / 36.0
        ax.hist(rates, np.linspace(0, 0.4, 81).tolist(), density=True, histtype="stepfilled", color=CYCLE[k],
                alpha=0.35, label=name)
        for quantile, value in zip(np.percentile(rates, [5, 50, 95]), measured, strict=True):
            ax.vlines(quantile, 0, 23, CYCLE[k], lw=1.3, label="drawn" if quantile < 0.08 else "")
            ax.vlines(value, 0, 23, INK, lw=1.0, ls=":", label="measured" if value < 0.08 else "")
    ax.set(xlim=(0, 0.4), ylim=(0, 30), xlabel="rate [deg/day]; lines at 5, 50, 95 %", ylabel="density",
           title="Rates of the main belt on the ecliptic")
    ax.legend(loc="upper left", ncols=2)


def _latitudes(ax: Axes, mjd_tai: float, seed: int) -> None:
    for k, (faint, label) in enumerate(((EVERYTHING, "all"), (24.4, "R < 24.4"))):
        found = [np.mean([_density("main_belt", at_ecliptic(mjd_tai, 180.0, low + (high - low) * part, 0.5, faint),
                                   seed) for part in (0.1, 0.3, 0.5, 0.7, 0.9)]) for low, high in BETA]
        ax.stairs(np.array(found) / found[0], [0, *(high for _, high in BETA)], color=CYCLE[k], lw=1.8, label=label)
    ax.plot([(low + high) / 2 for low, high in BETA], MEASURED_BETA, "o", color=INK, ms=5, label="measured, all")
    ax.set(xlim=(0, 40), ylim=(0, 1.1), xlabel="ecliptic latitude [deg]", ylabel="density over that of 0-2 deg",
           title="Main belt at opposition against latitude")
    ax.legend()


def _density(family: str, where: Patch, seed: int) -> float:
    return minor_planets.expected(family, where, stream(seed, f"figure: density {family}")) / where.area_deg2


def _counts(ax: Axes, mjd_tai: float, seed: int) -> None:
    limits = np.arange(18.0, 25.6, 0.5)
    for colour, family in zip(CYCLE, FAMILIES, strict=False):
        elongation = 180.0
        if family == "trojan":      # where they are: 60 deg ahead of Jupiter
            sun = at_ecliptic(mjd_tai, 0.0, 0.0, 1.0, 20.0)
            line = solar.directions(np.array(sun.ra), np.array(sun.dec)) @ solar.TO_EQUATOR
            elongation = float(np.degrees(minor_planets.jupiter_longitude(mjd_tai) - np.arctan2(line[1], line[0]))) + 60
        found = [_density(family, at_ecliptic(mjd_tai, elongation, 0.0, 1.75, limit), seed) for limit in limits]
        ax.plot(limits, found, color=colour, label=NAMES[family])
    ax.plot([24.4], [290.0], "o", color=INK, ms=6, label="290 (SMBAS)")
    ax.set(yscale="log", ylim=(1e-2, 3e4), xlim=(18, 25.5), xlabel="R", ylabel="brighter, per square degree",
           title="On the ecliptic at opposition (Trojans: L4)")
    ax.legend(loc="upper left", ncols=2)


def _rotations(ax: Axes, mjd_tai: float, seed: int) -> None:
    where = at_ecliptic(mjd_tai, 180.0, 0.0, 1.75, 23.0)
    rows = minor_planets.draw("main_belt", where, stream(seed, "figure: rotations"))
    rows = rows[np.argsort(-rows["amplitude"])][[len(rows) // 50, len(rows) // 10, len(rows) // 3]]
    hours = np.linspace(0, 12, 600)
    for k in range(3):
        curve = minor_planets.rotation(rows[k:k + 1], mjd_tai + hours / 24)
        period = 24 * rows["period"][k]
        ax.plot(hours, curve + 0.9 * k, color=CYCLE[k], label=f"{rows['taxon'][k].decode()}, {period:.1f} h, "
                f"{rows['amplitude'][k]:.2f} mag")
    ax.set(xlabel="hours", ylim=(2.4, -1.3), ylabel="magnitude, each 0.9 below the last",
           title="Rotations of three in the main belt")
    ax.legend(loc="upper right")
