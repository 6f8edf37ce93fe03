"""Classes of transients and variables: what is declared of each, and populations drawn for a field and a span of time.

Every class has its published rate. A scenario may raise the density; each source then carries its weight, the true
density over the injected one, so that weighted means are those of the true sky:

    sum over injected of weight x f  has the mean of  sum over a natural sample of f
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from scipy.spatial import cKDTree

from schemas.exposure import AB_ZEROPOINT_NJY, fluxes_njy
from simulators import cosmology, milky_way
from simulators.config import CLASS_NAMES, ClassConfig, DustConfig
from simulators.galaxies import places
from simulators.lightcurves.eruptive import ERUPTING, FLARE_K, OUTBURST_K, black_body, dwarf_nova_flux, flare_flux
from simulators.lightcurves.lensing import LENSED, lensed_flux
from simulators.lightcurves.nuclei import MODES, NUCLEUS, REDDER, nucleus_flux
from simulators.lightcurves.periodic import (
    ECLIPSING,
    MIRA_AMPLITUDE,
    PULSATING,
    RR_AMPLITUDE,
    eclipsing_flux,
    pulsating_flux,
)
from simulators.lightcurves.sn_ia import SN_IA, sn_ia_flux
from simulators.lightcurves.sn_ia import Z_MAX as SN_IA_Z_MAX
from simulators.lightcurves.thermal import THERMAL, Shape, thermal_flux, tops
from simulators.passbands import band_extinction, dimming, effective_nm
from simulators.region import Region
from simulators.stars import fluxes_of_colour
from simulators.streams import stream
from simulators.transients import apart

YEAR_D: Final = 365.25
SEPARATION_ARCSEC: Final = 3.0     # of any two: raised densities would blend as the real sky does not
NEAREST: Final = 0.01              # of the largest redshift: a flat spread leaves out the millionth part that is nearer
STEP_ID: Final = 10_000_000        # between the first ids of classes
BRIGHT: Final = 14.0               # r of the brightest variable star: saturated long before
FAINT: Final = 25.0                # r of the faintest star that may vary, erupt or be lensed

PLACED = np.dtype([("id", "i8"), ("ra", "f8"), ("dec", "f8"), ("host", "i8"), ("host_sep", "f8"), ("weight", "f8"),
                   ("redshift", "f8"), ("distance_pc", "f8")])       # NaN where it has none


@dataclass(frozen=True, slots=True)
class Population:
    """The sources of one class."""

    name: str
    kind: bytes                # of TRUTH
    rows: np.ndarray           # PLACED
    numbers: np.ndarray        # what its light curves depend on, row by row
    curve: Callable[[np.ndarray, int, float], np.ndarray]

    def fluxes(self, band: int, mjd_tai: float) -> np.ndarray:
        """(n,) fluxes [nJy] at a time."""
        return self.curve(self.numbers, band, mjd_tai)

    def only(self, keep: np.ndarray) -> "Population":
        """Some of its sources, as they are."""
        return Population(self.name, self.kind, self.rows[keep], self.numbers[keep], self.curve)


@dataclass(frozen=True, slots=True)
class Patch:
    """The field that populations are drawn for."""

    ra: float                  # [deg]
    dec: float
    radius_deg: float          # half the side of its square
    fields: float              # its area, in fields of 1000 x 1000 px
    first: float               # [MJD] of the earliest and of the last moment that is looked at
    last: float
    dust: DustConfig
    cells: Region | None = None    # the part of the square that is drawn; None: all of it

    @property
    def steradian(self) -> float:
        side = 2.0 * self.radius_deg if self.cells is None else self.cells.extent_deg
        return float(np.radians(side) ** 2)


# --- what is declared of each class ----------------------------------------------------------------------------------

def star_formation(z: np.ndarray) -> np.ndarray:
    """Cosmic star formation over today's (Madau & Dickinson 2014, ARA&A 52, 415, eq. 15)."""
    grown = 1.0 + z
    return np.asarray(grown**2.7 / (1.0 + (grown / 2.9) ** 5.6) * (1.0 + 2.9**-5.6))


def dilday(z: np.ndarray) -> np.ndarray:
    """Rise of the SN Ia rate, and its fall beyond z = 1 (Dilday et al. 2008; as in ELAsTiCC)."""
    return np.asarray(np.where(z < 1.0, (1.0 + z) ** 1.5, 3.88 * (1.0 + z) ** -0.5))


def kochanek(z: np.ndarray) -> np.ndarray:
    """Fall of the rate of tidal disruptions (Kochanek 2016, MNRAS 461, 371)."""
    return np.asarray(10.0 ** (-5.0 * z / 6.0))


@dataclass(frozen=True, slots=True)
class Extragalactic:
    """An explosive class in the volume of the universe."""

    name: str
    rate: float                # [Mpc^-3 yr^-1] at z = 0
    evolution: Callable[[np.ndarray], np.ndarray]
    z_max: float
    magnitude: float           # peak absolute AB magnitude, in B for SN Ia, else in r
    scatter: float             # of it [mag]
    lead_d: float              # how long before the reference time, and after, it may be seen
    tail_d: float
    host_av: float             # mean of the exponential distribution of A(V) in its host
    source: str
    shape: Shape | None = None
    central: bool = False      # in the middle of its host


CORE_COLLAPSE: Final = 1.01e-4     # [Mpc^-3 yr^-1] Perley et al. 2020 (ApJ 904, 35), parts as skysurvey 1.3.0
_RICHARDSON: Final = "magnitudes: Richardson et al. 2014, AJ 147, 118"
_CORE: Final = f"rate: Perley et al. 2020 and Madau & Dickinson 2014; {_RICHARDSON}"


def _stripped(rise: float, fall: float) -> Shape:
    """Of supernovae that lost their hydrogen."""
    return Shape(rise, 0.0, fall, hot=9500.0, cool=4800.0, cooling=18.0, cut_nm=400.0, tail=0.12)


EXTRAGALACTIC: Final = (
    Extragalactic("sn_ia", 2.5e-5, dilday, 1.2, -19.35, 0.12, 60.0, 250.0, 0.1,
                  "rate: Dilday et al. 2008 as in ELAsTiCC; M_B (AB): Tripp with H0 = 70; spectra: Hsiao et al. 2007"),
    Extragalactic("sn_ii", 0.649 * CORE_COLLAPSE, star_formation, 1.2, -16.75, 0.98, 60.0, 400.0, 0.3, _CORE,
                  Shape(2.5, 85.0, 10.0, 14_000.0, 5500.0, 18.0, 350.0, slope=0.35, tail=0.12)),
    Extragalactic("sn_iin", 0.047 * CORE_COLLAPSE, star_formation, 1.5, -18.53, 1.36, 200.0, 500.0, 0.3, _CORE,
                  Shape(8.0, 0.0, 60.0, 13_000.0, 7000.0, 60.0, 300.0)),
    Extragalactic("sn_iib", 0.109 * CORE_COLLAPSE, star_formation, 1.2, -16.99, 0.92, 100.0, 250.0, 0.3, _CORE,
                  _stripped(5.0, 18.0)),
    Extragalactic("sn_ib", 0.108 * CORE_COLLAPSE, star_formation, 1.2, -17.45, 1.12, 100.0, 250.0, 0.5, _CORE,
                  _stripped(5.0, 17.0)),
    Extragalactic("sn_ic", 0.075 * CORE_COLLAPSE, star_formation, 1.2, -17.66, 1.18, 100.0, 250.0, 0.5, _CORE,
                  _stripped(4.5, 15.0)),
    Extragalactic("slsn_i", 2.0e-8, star_formation, 3.5, -21.7, 0.4, 300.0, 800.0, 0.1,
                  "rate: ELAsTiCC (MD14); magnitudes: Inserra & Smartt 2014, ApJ 796, 87",
                  Shape(14.0, 0.0, 45.0, 14_000.0, 6500.0, 50.0, 300.0)),
    Extragalactic("tde", 1.0e-6, kochanek, 1.5, -18.5, 1.0, 150.0, 700.0, 0.1,
                  "rate: ELAsTiCC and Kochanek 2016; magnitudes: assumed, after van Velzen 2018, ApJ 852, 72",
                  Shape(8.0, 0.0, 45.0, 22_000.0, 20_000.0, 60.0, 100.0, power_law=True, heat_scatter=0.25),
                  central=True),
    Extragalactic("kilonova", 3.2e-7, star_formation, 0.5, -15.8, 0.8, 5.0, 20.0, 0.2,
                  "rate: GWTC-2 as in ELAsTiCC; magnitudes and shape: assumed, after AT2017gfo",
                  Shape(0.2, 0.0, 1.8, 9000.0, 2500.0, 1.2, 400.0, scatter=0.15)),
)


@dataclass(frozen=True, slots=True)
class Galactic:
    """A class of stars, by density in space or as a share of stars; or of nuclei, by counts on the sky."""

    name: str
    kind: bytes
    rate: float
    unit: str
    magnitude: tuple[float, float]     # range of absolute r
    source: str


GALACTIC: Final = (
    Galactic("agn", b"agn", 1.0, "published counts", (-30.0, -20.0),
             "counts: assumed, about 500 per deg^2 to r = 25 (LSST Science Book 10.1); walk: MacLeod et al. 2010"),
    Galactic("microlensing", b"variable", 1.0, "events per star and year by direction", (-1.0, 10.0),
             "rate: fall with latitude of Mroz et al. 2019, ApJS 244, 29, scaled down away from the bulge (assumed)"),
    Galactic("dwarf_nova", b"variable", 2.9e-6, "per pc^3 at the Sun", (9.5, 12.5),
             "density: 4.8e-6 pc^-3 cataclysmic variables (Pala et al. 2020, MNRAS 494, 3799), 60 % dwarf novae"),
    Galactic("m_flare", b"variable", 0.1, "of M dwarfs", (9.0, 15.0),
             "share of active M dwarfs: assumed, after West et al. 2008; shapes: Davenport et al. 2014"),
    Galactic("rr_lyrae", b"variable", 4.5e-9, "per pc^3 of halo at the Sun", (0.5, 0.7),
             "density: Sesar et al. 2010, ApJ 708, 717"),
    Galactic("eclipsing", b"variable", 0.013, "of dwarfs", (2.0, 9.0), "share: Kirk et al. 2016, AJ 151, 68"),
    Galactic("long_period", b"variable", 2.8e-7, "per pc^3 at the Sun", (-2.5, -0.5),
             "density of Miras: Wood & Cahn 1977, ApJ 211, 499"),
)

EXPLOSIVE: Final = {declared.name: declared for declared in EXTRAGALACTIC}
STELLAR: Final = {declared.name: declared for declared in GALACTIC}


def populations(classes: Mapping[str, ClassConfig], patch: Patch, galaxies: np.ndarray, seed: int,
                first_id: int) -> tuple[Population, ...]:
    """The classes that a scenario asks for, in the order of CLASS_NAMES; no galaxy hosts twice."""
    out, taken = [], np.zeros(len(galaxies), bool)
    for number, name in enumerate(CLASS_NAMES):
        if name not in classes:
            continue
        rng = stream(seed, f"class {name}")
        if name in EXPLOSIVE:
            found = explosions(EXPLOSIVE[name], classes[name], patch, rng, galaxies, taken)
        elif name == "agn":
            found = nuclei(classes[name], patch, rng, galaxies, taken)
        else:
            found = stars_that_change(STELLAR[name], classes[name], patch, rng)
        found.rows["id"] = first_id + number * STEP_ID + np.arange(len(found.rows))
        out.append(found)
    return tuple(out)


# --- explosions ------------------------------------------------------------------------------------------------------

def events_per_year_sr(declared: Extragalactic, z: np.ndarray) -> np.ndarray:
    """Events per unit redshift, observer's year and steradian."""
    return np.asarray(declared.rate * declared.evolution(z) / declared.evolution(np.zeros(1)) / (1.0 + z)
                      * cosmology.volume_mpc3_sr(z))


def explosions(declared: Extragalactic, config: ClassConfig, patch: Patch, rng: np.random.Generator,
               galaxies: np.ndarray, taken: np.ndarray) -> Population:
    """Events whose reference time falls from `tail_d` before the first moment to `lead_d` after the last."""
    begin, end = patch.first - declared.tail_d, patch.last + declared.lead_d
    z, weight = redshifts(declared, config, patch.steradian * (end - begin) / YEAR_D, patch.fields, rng)
    n = len(z)
    time = rng.uniform(begin, end, n)
    a_v = rng.exponential(declared.host_av if patch.dust.host_a_v is None else patch.dust.host_a_v, n)
    dim = dimming(a_v, z) * milky_way_dust(patch.ra, patch.dec, patch.dust)
    maker = _type_ia if declared.shape is None else _thermal
    numbers, curve = maker(declared, z, time, dim, rng)
    rows = _placed(patch, rng, n)
    rows["weight"], rows["redshift"] = weight, z
    _into_hosts(rows, galaxies, taken, rng, central=declared.central)
    return _separated(Population(declared.name, b"transient", rows, numbers, curve))


def redshifts(declared: Extragalactic, config: ClassConfig, steradian_years: float, fields: float,
              rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Redshifts of a Poisson sample, and weights: natural over injected density at each."""
    grid = np.linspace(0.0, declared.z_max, 2001)
    natural = events_per_year_sr(declared, grid) * steradian_years
    step = grid[1]
    cumulative = np.concatenate([[0.0], np.cumsum((natural[1:] + natural[:-1]) / 2 * step)])
    expected = float(cumulative[-1])
    injected = config.per_field * fields if config.per_field is not None else config.boost * expected
    n = int(rng.poisson(injected))
    if config.spread == "natural":
        z = np.interp(rng.uniform(0.0, expected, n), cumulative, grid)
        return np.maximum(z, 1e-4), np.full(n, expected / injected)
    nearest = NEAREST * declared.z_max
    z = rng.uniform(nearest, declared.z_max, n)
    return z, np.interp(z, grid, natural) * (declared.z_max - nearest) / injected


def _type_ia(declared: Extragalactic, z: np.ndarray, time: np.ndarray, dim: np.ndarray, rng: np.random.Generator
             ) -> tuple[np.ndarray, Callable[[np.ndarray, int, float], np.ndarray]]:
    """SN_IA rows: Gaussian stretch and intrinsic scatter; colours are the dust's alone."""
    out = np.zeros(len(z), SN_IA)
    stretch = rng.normal(0.0, 1.0, len(z)).clip(-2.5, 2.5)
    magnitude = declared.magnitude - 0.14 * stretch + declared.scatter * rng.normal(size=len(z))   # Tripp 1998
    out["z"], out["peak"], out["stretch"], out["dim"] = z, time, 1.0 + 0.1 * stretch, dim
    out["flux"] = fluxes_njy(magnitude + cosmology.distance_modulus(z))
    assert declared.z_max <= SN_IA_Z_MAX
    return out, sn_ia_flux


def _thermal(declared: Extragalactic, z: np.ndarray, time: np.ndarray, dim: np.ndarray, rng: np.random.Generator
             ) -> tuple[np.ndarray, Callable[[np.ndarray, int, float], np.ndarray]]:
    """THERMAL rows about the class's shape."""
    shape = declared.shape
    assert shape is not None
    n, out = len(z), np.zeros(len(z), THERMAL)
    out["z"], out["start"], out["dim"] = z, time, dim
    for name in ("rise", "plateau", "fall", "cooling"):
        out[name] = getattr(shape, name) * np.exp(shape.scatter * rng.normal(size=n))
    heat = np.exp(shape.heat_scatter * rng.normal(size=n))
    out["hot"], out["cool"] = shape.hot * heat, shape.cool * heat
    out["top"] = tops(out["rise"], out["plateau"], out["fall"], shape)
    magnitude = declared.magnitude + declared.scatter * rng.normal(size=n).clip(-2.5, 2.5)
    out["flux"] = fluxes_njy(magnitude + cosmology.distance_modulus(z))
    return out, partial(thermal_flux, shape=shape)


# --- nuclei ----------------------------------------------------------------------------------------------------------

AGN_R: Final = np.array([16.0, 18.0, 19.0, 20.0, 21.0, 22.0, 23.0, 24.0, 25.0])
AGN_PER_DEG2: Final = np.array([0.02, 1.0, 5.0, 18.0, 50.0, 105.0, 190.0, 310.0, 480.0])    # brighter than that
AGN_COLOUR: Final = 10 ** (-0.4 * np.array([0.3, 0.15, 0.0, -0.1, -0.15, -0.15]))


def nuclei(config: ClassConfig, patch: Patch, rng: np.random.Generator, galaxies: np.ndarray, taken: np.ndarray
           ) -> Population:
    """Nuclei of galaxies up to 2 mag fainter; quasars without a host where no such galaxy is left."""
    expected = float(AGN_PER_DEG2[-1] * np.degrees(np.degrees(patch.steradian)))
    injected = config.per_field * patch.fields if config.per_field is not None else config.boost * expected
    n = int(rng.poisson(injected))
    r = np.interp(np.log(rng.uniform(AGN_PER_DEG2[0] / AGN_PER_DEG2[-1], 1.0, n) * AGN_PER_DEG2[-1]),
                  np.log(AGN_PER_DEG2), AGN_R)
    out = np.zeros(n, NUCLEUS)
    out["flux"] = fluxes_njy(r)[:, None] * AGN_COLOUR * milky_way_dust(patch.ra, patch.dec, patch.dust)
    rest = (effective_nm() / effective_nm()[2]) ** -REDDER
    out["sigma"] = (0.25 / np.sqrt(2.0) * np.exp(0.3 * rng.normal(size=n)))[:, None] * rest
    memory = 200.0 * 10 ** (0.3 * rng.normal(size=n))
    out["omega"] = rng.standard_cauchy((n, MODES)) / memory[:, None]
    out["phase"] = rng.uniform(0.0, 2.0 * np.pi, (n, MODES))
    rows = _placed(patch, rng, n)
    rows["weight"] = expected / injected
    wanted = r + rng.uniform(-1.0, 2.0, n)
    magnitude = AB_ZEROPOINT_NJY - 2.5 * np.log10(np.maximum(galaxies["total"][:, 2], 1e-9))
    for k in range(n):
        gap = np.where(taken, np.inf, np.abs(magnitude - wanted[k]))
        if len(gap) and gap.min() < 0.5:
            _host(rows, k, galaxies, int(np.argmin(gap)), taken, 0.0, 0.0)
    return _separated(Population("agn", b"agn", rows, out, nucleus_flux))


# --- stars that change -----------------------------------------------------------------------------------------------

def stars_that_change(declared: Galactic, config: ClassConfig, patch: Patch, rng: np.random.Generator) -> Population:
    """Variable, erupting and lensed stars of the Milky Way in this direction."""
    if config.spread != "natural":
        raise ValueError(f"class {declared.name}: spread must be 'natural' for stars, got {config.spread!r}")
    view = milky_way.sight(patch.ra, patch.dec, patch.dust.a_v)
    per_sr, sampler = _stellar(declared, view, patch)
    expected = per_sr * patch.steradian
    times = config.per_field * patch.fields / max(expected, 1e-300) if config.per_field is not None else config.boost
    stars = sampler(rng, patch.steradian, times)
    rows = _placed(patch, rng, len(stars))
    rows["weight"], rows["distance_pc"] = 1.0 / times, stars["distance"]
    numbers, curve = MAKERS[declared.name](stars, patch, rng)
    return _separated(Population(declared.name, declared.kind, rows, numbers, curve))


def _stellar(declared: Galactic, view: milky_way.Sight, patch: Patch
             ) -> tuple[float, Callable[[np.random.Generator, float, float], np.ndarray]]:
    """Expected number per steradian, and the way to draw STARS of an area at so many times that density."""
    if declared.unit.startswith("per pc^3"):
        component = {"rr_lyrae": milky_way.HALO, "dwarf_nova": milky_way.THIN}.get(declared.name, milky_way.THICK)
        return (float(_tracer_cells(declared, component, view).sum()),
                lambda rng, sr, times: _tracers(declared, component, view, rng, sr * times))
    share = declared.rate if declared.name != "microlensing" else \
        lensing_per_year(view) * (patch.last - patch.first + 2 * LENSING_MARGIN_D) / YEAR_D
    per_sr = float(milky_way.star_numbers(view, BRIGHT, FAINT, declared.magnitude)[0].sum()) * share
    return per_sr, lambda rng, sr, times: milky_way.draw_stars(view, rng, sr, BRIGHT, FAINT, declared.magnitude,
                                                               share * times)


def _tracer_cells(declared: Galactic, component: milky_way.Component, view: milky_way.Sight) -> np.ndarray:
    """(n,) expected tracers per steradian by distance, within the limits of magnitude."""
    middle = sum(declared.magnitude) / 2
    r = middle + 5.0 * np.log10(view.distance / 10.0) + band_extinction()[2] * view.a_v
    return np.asarray(declared.rate * milky_way.density(component, view.place) * view.volume
                      * ((r > BRIGHT) & (r < FAINT)))


def _tracers(declared: Galactic, component: milky_way.Component, view: milky_way.Sight, rng: np.random.Generator,
             steradian: float) -> np.ndarray:
    cells = _tracer_cells(declared, component, view) * steradian
    n = int(rng.poisson(cells.sum()))
    out = np.zeros(n, milky_way.STARS)
    if n == 0:
        return out
    cell = np.searchsorted(np.cumsum(cells), rng.uniform(0.0, cells.sum(), n), side="right").clip(0, len(cells) - 1)
    out["distance"] = view.distance[cell] * np.exp(rng.uniform(-0.02, 0.02, n))
    out["m_r"] = rng.uniform(*declared.magnitude, n)
    out["a_v"] = np.interp(out["distance"], view.distance, view.a_v)
    out["r"] = out["m_r"] + 5.0 * np.log10(out["distance"] / 10.0) + band_extinction()[2] * out["a_v"]
    out["component"] = milky_way.COMPONENTS.index(component)
    return out


LENSING_MARGIN_D: Final = 100.0    # events may peak so long before the first and after the last moment


def lensing_per_year(view: milky_way.Sight) -> float:
    """Microlensing events of u0 < 1 per star and year: 1.35e-5 exp(0.49 (3 - |b|)) towards the bulge,
    and 1.5e-6 exp(-|b| / 15) exp(-|l| / 60) from the disk (assumed); angles in degrees."""
    latitude, longitude = abs(view.latitude), abs(view.longitude)
    bulge = 1.35e-5 * np.exp(0.49 * (3.0 - max(latitude, 2.0))) * np.exp(-((longitude / 10.0) ** 2))
    disk = 1.5e-6 * np.exp(-latitude / 15.0) * np.exp(-longitude / 60.0)
    return float(bulge + disk)


def _star_fluxes(stars: np.ndarray, rng: np.random.Generator, g_i: np.ndarray | None = None) -> np.ndarray:
    """(n, 6) fluxes [nJy] of STARS, reddened; `g_i` instead of the colour that a star of its magnitude has."""
    colour = milky_way.colours(stars, rng) if g_i is None else g_i
    unreddened = stars["r"] - band_extinction()[2] * stars["a_v"]
    return np.asarray(fluxes_of_colour(unreddened, colour, rng) * dimming(stars["a_v"]))


Made = tuple[np.ndarray, Callable[[np.ndarray, int, float], np.ndarray]]


def _rr_lyrae(stars: np.ndarray, patch: Patch, rng: np.random.Generator) -> Made:
    n, out = len(stars), np.zeros(len(stars), PULSATING)
    first_overtone = rng.uniform(size=n) < 0.25
    out["flux"] = _star_fluxes(stars, rng, rng.normal(0.25, 0.05, n))
    size = np.where(first_overtone, rng.uniform(0.3, 0.6, n), rng.uniform(0.4, 1.3, n))
    out["amplitude"] = size[:, None] * RR_AMPLITUDE
    out["period"] = np.where(first_overtone, rng.uniform(0.25, 0.42, n), rng.normal(0.57, 0.07, n).clip(0.4, 0.9))
    out["ascent"], out["phase"] = np.where(first_overtone, 0.4, 0.15), rng.uniform(size=n)
    return out, pulsating_flux


def _long_period(stars: np.ndarray, patch: Patch, rng: np.random.Generator) -> Made:
    n, out = len(stars), np.zeros(len(stars), PULSATING)
    out["flux"] = _star_fluxes(stars, rng, rng.normal(2.8, 0.3, n))
    out["amplitude"] = np.exp(rng.uniform(np.log(0.8), np.log(5.0), n))[:, None] * MIRA_AMPLITUDE
    out["period"], out["ascent"] = np.exp(rng.uniform(np.log(100.0), np.log(500.0), n)), 0.45
    out["phase"] = rng.uniform(size=n)
    return out, pulsating_flux


def _eclipsing(stars: np.ndarray, patch: Patch, rng: np.random.Generator) -> Made:
    n, out = len(stars), np.zeros(len(stars), ECLIPSING)
    out["flux"] = _star_fluxes(stars, rng)
    out["first"] = np.exp(rng.uniform(np.log(0.03), np.log(0.5), n))
    cooler = rng.uniform(size=n)                     # the second depth over the first, smaller still in the blue
    out["second"] = out["first"][:, None] * cooler[:, None] ** np.array([2.0, 1.5, 1.2, 1.0, 0.95, 0.9])
    out["period"] = np.exp(rng.normal(np.log(2.0), 1.2, n)).clip(0.22, 100.0)
    out["width"] = np.clip(0.07 * (out["period"] / 1.0) ** (-2.0 / 3.0), 0.004, 0.14)
    out["ellipsoidal"] = np.where(out["period"] < 0.7, 0.2 * rng.uniform(size=n), 0.01)
    out["phase"] = rng.uniform(size=n)
    return out, eclipsing_flux


def _dwarf_nova(stars: np.ndarray, patch: Patch, rng: np.random.Generator) -> Made:
    n, out = len(stars), np.zeros(len(stars), ERUPTING)
    out["flux"] = _star_fluxes(stars, rng, rng.normal(0.6, 0.25, n))
    rise = 10 ** (0.4 * rng.normal(3.5, 1.0, n).clip(1.5, 6.5))
    out["burst"] = (out["flux"][:, 2] * rise)[:, None] * black_body(OUTBURST_K) * _relative_dust(stars)
    out["recurrence"] = np.exp(rng.normal(np.log(80.0), 0.8, n)).clip(15.0, 1000.0)
    out["duration"], out["phase"] = np.exp(rng.normal(np.log(5.0), 0.4, n)), rng.uniform(size=n)
    out["spread"] = 0.2
    return out, dwarf_nova_flux


def _m_flare(stars: np.ndarray, patch: Patch, rng: np.random.Generator) -> Made:
    """Flares of median 0.1 times the star's light in u every few days, lasting minutes."""
    n, out = len(stars), np.zeros(len(stars), ERUPTING)
    out["flux"] = _star_fluxes(stars, rng)
    size = np.exp(rng.normal(np.log(0.3), 0.8, n))
    out["burst"] = (out["flux"][:, 0] * size)[:, None] * black_body(FLARE_K, 0) * _relative_dust(stars, 0)
    out["recurrence"] = np.exp(rng.normal(np.log(0.5), 1.0, n)).clip(0.05, 60.0)
    out["duration"] = np.exp(rng.normal(np.log(5.0), 0.7, n)) / 1440.0
    out["phase"], out["spread"] = rng.uniform(size=n), 1.2
    return out, flare_flux


def _microlensing(stars: np.ndarray, patch: Patch, rng: np.random.Generator) -> Made:
    n, out = len(stars), np.zeros(len(stars), LENSED)
    out["flux"] = _star_fluxes(stars, rng)
    out["lensed"] = np.where(rng.uniform(size=n) < 0.5, 1.0, rng.uniform(0.1, 1.0, n))     # half of them blended
    out["peak"] = rng.uniform(patch.first - LENSING_MARGIN_D, patch.last + LENSING_MARGIN_D, n)
    out["einstein"], out["impact"] = np.exp(rng.normal(np.log(22.0), 0.7, n)), rng.uniform(0.001, 1.0, n)
    return out, lensed_flux


MAKERS: Final[dict[str, Callable[[np.ndarray, Patch, np.random.Generator], Made]]] = {
    "rr_lyrae": _rr_lyrae, "long_period": _long_period, "eclipsing": _eclipsing, "dwarf_nova": _dwarf_nova,
    "m_flare": _m_flare, "microlensing": _microlensing}


def _relative_dust(stars: np.ndarray, band: int = 2) -> np.ndarray:
    """(n, 6) dimming of each star over that in one band."""
    dim = dimming(stars["a_v"])
    return np.asarray(dim / dim[:, band:band + 1])


# --- places ----------------------------------------------------------------------------------------------------------

def milky_way_dust(ra: float, dec: float, dust: DustConfig) -> np.ndarray:
    """(6,) dimming by all of the Milky Way's dust in a direction."""
    total = milky_way.sight(ra, dec, dust.a_v).a_v[-1]
    return np.asarray(dimming(np.array([total]))[0])


def _placed(patch: Patch, rng: np.random.Generator, n: int) -> np.ndarray:
    """PLACED rows at uniform positions of the patch."""
    out = np.zeros(n, PLACED)
    cells = patch.cells or Region(patch.ra, patch.dec, patch.radius_deg, np.zeros((0, 2)), 0.0)
    out["ra"], out["dec"] = cells.places(rng, n)
    out["host"], out["host_sep"], out["redshift"], out["distance_pc"] = -1, np.nan, np.nan, np.nan
    return out


def _host(rows: np.ndarray, k: int, galaxies: np.ndarray, of: int, taken: np.ndarray, east: float, north: float
          ) -> None:
    """Move an event to an offset [arcsec] from a galaxy's centre, in place."""
    taken[of] = True
    rows["host"][k], rows["host_sep"][k] = of, np.hypot(east, north)
    rows["dec"][k] = galaxies["dec"][of] + north / 3600.0
    rows["ra"][k] = (galaxies["ra"][of] + east / 3600.0 / np.cos(np.radians(galaxies["dec"][of]))) % 360.0


def _into_hosts(rows: np.ndarray, galaxies: np.ndarray, taken: np.ndarray, rng: np.random.Generator, *,
                central: bool, reach: float = 0.1) -> None:
    """Move events into galaxies near their redshift, drawn by light in r, in place; some find none and stay.

    A patch of minutes of arc has few galaxies at small redshifts, and none below the catalogue's limit: those events
    are hostless.
    """
    if not len(galaxies):
        return
    depth, light = np.log1p(galaxies["redshift"]), galaxies["total"][:, 2]
    tree = cKDTree(depth[:, None])
    near = tree.query_ball_point(np.log1p(rows["redshift"])[:, None], reach)
    east, north = places(rng, galaxies)              # a place in each, for whoever gets it
    for k in range(len(rows)):
        candidates = np.array([i for i in near[k] if not taken[i]], np.intp)
        share = rng.uniform()
        if len(candidates):
            cumulative = np.cumsum(light[candidates])
            of = int(candidates[min(np.searchsorted(cumulative, share * cumulative[-1]), len(candidates) - 1)])
            _host(rows, k, galaxies, of, taken, *((0.0, 0.0) if central else (float(east[of]), float(north[of]))))


def _separated(found: Population) -> Population:
    """Without those that lie on another of the class; the weight of the rest makes up for them."""
    keep = apart(found.rows["ra"], found.rows["dec"], SEPARATION_ARCSEC)
    kept = found.only(keep)
    if len(keep) and not keep.all():
        kept.rows["weight"] *= len(keep) / max(int(keep.sum()), 1)
    return kept
