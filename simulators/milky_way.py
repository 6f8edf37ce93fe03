"""The Milky Way along one line of sight: how many stars of which kind, how bright, how red, and how they move.

    number = integral over distance of density(component) x luminosity function x distance^2

Three components after Juric et al. 2008 (ApJ 673, 864): thin and thick exponential disks and an oblate halo. There is
no bulge: counts within about 15 deg of the Galactic Centre are too low.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from simulators.passbands import band_extinction

SUN_PC: Final = 8178.0             # to the Galactic Centre (GRAVITY Collaboration 2019)
SUN_HEIGHT_PC: Final = 20.8        # Bennett & Bovy 2019
SPIN_KM_S: Final = 229.0           # of the disk, flat (Eilers et al. 2019)
SUN_UVW: Final = np.array([11.1, 12.24, 7.25])     # to the Centre, along rotation, north (Schoenrich et al. 2010)
KM_S: Final = 4.740470             # of one au per year
DUST_HEIGHT_PC: Final = 125.0
DUST_LENGTH_PC: Final = 3200.0
DUST_MAG_PER_PC: Final = 0.0007    # A(V) near the Sun: 0.7 mag/kpc, so 0.09 / sin|b| to infinity

# Rows: galactic x (to the Centre), y (l = 90 deg), z (the pole), in ICRF (ESA 1997, The Hipparcos Catalogue, 1.5)
TO_GALACTIC: Final = np.array([[-0.0548755604, -0.8734370902, -0.4838350155],
                               [0.4941094279, -0.4448296300, 0.7469822445],
                               [-0.8676661490, -0.1980763734, 0.4559837762]])


@dataclass(frozen=True, slots=True)
class Component:
    """A population of stars; its luminosity function is that of the solar neighbourhood times `local`."""

    name: str
    local: float               # density at the Sun over the thin disk's
    length_pc: float           # scale length; 0: the halo's power law
    height_pc: float
    metallicity: float         # [Fe/H]
    turnoff: float             # absolute r of the brightest dwarfs
    dispersion: tuple[float, float, float]   # [km/s] along U, V, W (Bensby et al. 2003; halo: Chiba & Beers 2000)
    drift: float               # [km/s] behind the rotation


THIN: Final = Component("thin disk", 1.0, 2600.0, 300.0, -0.1, -1.0, (35.0, 20.0, 16.0), 15.0)
THICK: Final = Component("thick disk", 0.12, 3600.0, 900.0, -0.7, 4.0, (67.0, 38.0, 35.0), 46.0)
HALO: Final = Component("halo", 0.0051, 0.0, 0.0, -1.5, 4.0, (141.0, 106.0, 94.0), 229.0)
COMPONENTS: Final = (THIN, THICK, HALO)
HALO_OBLATENESS, HALO_POWER = 0.64, 2.77
HALO_BREAK_PC, HALO_OUTER_POWER = 27_000.0, 4.6     # Deason, Belokurov & Evans 2011, MNRAS 416, 2903

# Dwarfs per 1000 pc^3 and magnitude of M_r, near the Sun: Wielen, Jahreiss & Krueger 1983 for the bright, Bochanski et
# al. 2010 (AJ 139, 2679) for the faint, rounded
_M_R: Final = np.arange(-1.0, 16.5)
_DWARFS: Final = np.array([0.01, 0.03, 0.1, 0.3, 0.8, 1.6, 2.6, 3.2, 3.0, 4.0, 6.0, 8.0, 9.5, 7.0, 5.0, 4.0, 3.0, 2.5])
GIANTS: Final = 0.12               # per 1000 pc^3 and magnitude, -0.5 < M_r < 3.5: assumed
M_R_STEP: Final = 0.1
DISTANCES_PC: Final = np.geomspace(4.0, 150_000.0, 241)      # edges of cells

STARS: Final = np.dtype([("distance", "f8"), ("m_r", "f8"), ("r", "f8"), ("a_v", "f8"), ("component", "i8"),
                         ("giant", "?")])    # [pc], absolute and apparent magnitude


@dataclass(frozen=True, slots=True)
class Sight:
    """A line of sight, in cells of distance."""

    direction: np.ndarray      # (3,) unit vector, galactic
    distance: np.ndarray       # (n,) middles [pc]
    volume: np.ndarray         # (n,) of a steradian [pc^3]
    place: np.ndarray          # (n, 3) galactocentric [pc]
    a_v: np.ndarray            # (n,) A(V) up to there

    @property
    def latitude(self) -> float:
        """Galactic b [deg]."""
        return float(np.degrees(np.arcsin(self.direction[2])))

    @property
    def longitude(self) -> float:
        """Galactic l [deg], from -180 to 180."""
        return float(np.degrees(np.arctan2(self.direction[1], self.direction[0])))


def unit(ra: np.ndarray | float, dec: np.ndarray | float) -> np.ndarray:
    """(..., 3) unit vectors, ICRF."""
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], -1)


def sight(ra: float, dec: float, a_v: float | None = None) -> Sight:
    """The line of sight to a position [deg]; `a_v` is the extinction to infinity, that of a smooth disk of dust if
    None."""
    direction = TO_GALACTIC @ unit(ra, dec)
    middles = np.sqrt(DISTANCES_PC[1:] * DISTANCES_PC[:-1])
    place = middles[:, None] * direction + np.array([-SUN_PC, 0.0, SUN_HEIGHT_PC])
    dust = (DUST_MAG_PER_PC * np.exp(-np.abs(place[:, 2]) / DUST_HEIGHT_PC)
            * np.exp(-(np.hypot(place[:, 0], place[:, 1]) - SUN_PC) / DUST_LENGTH_PC))
    steps = np.diff(DISTANCES_PC)
    column = np.cumsum(dust * steps) - 0.5 * dust * steps
    if a_v is not None:
        column = column * a_v / np.sum(dust * steps)
    return Sight(direction, middles, np.diff(DISTANCES_PC**3) / 3.0, place, column)


def density(component: Component, place: np.ndarray) -> np.ndarray:
    """(n,) density over the component's own at the Sun, at galactocentric places (n, 3)."""
    radius, height = np.hypot(place[:, 0], place[:, 1]), place[:, 2]
    if component.length_pc == 0.0:
        flat = np.sqrt(radius**2 + (height / HALO_OBLATENESS) ** 2 + 500.0**2)
        outer = np.maximum(flat / HALO_BREAK_PC, 1.0) ** (HALO_POWER - HALO_OUTER_POWER)
        return np.asarray((flat / SUN_PC) ** -HALO_POWER * outer)
    return np.asarray(np.exp(-(radius - SUN_PC) / component.length_pc
                             - (np.abs(height) - SUN_HEIGHT_PC) / component.height_pc))


def luminosity_function(component: Component, m_r: np.ndarray, *, giants: bool = False) -> np.ndarray:
    """Stars per pc^3 and magnitude at the Sun."""
    if giants:
        return np.asarray(np.where((m_r > -0.5) & (m_r < 3.5), component.local * GIANTS / 1000.0, 0.0))
    dwarfs = np.exp(np.interp(m_r, _M_R, np.log(_DWARFS))) / 1000.0
    return np.asarray(np.where(m_r > component.turnoff, component.local * dwarfs, 0.0))


def star_numbers(view: Sight, bright: float, faint: float, m_r: tuple[float, float] = (-1.0, 16.0)
                 ) -> tuple[np.ndarray, np.ndarray]:
    """Expected stars per steradian with bright < r < faint, in cells (component, giants or not, M_r, distance), and
    the middles of the cells of M_r."""
    magnitudes = np.arange(m_r[0] + M_R_STEP / 2, m_r[1], M_R_STEP)
    apparent = magnitudes[:, None] + 5.0 * np.log10(view.distance / 10.0) + band_extinction()[2] * view.a_v
    inside = (apparent > bright) & (apparent < faint)
    cells = np.array([[luminosity_function(c, magnitudes, giants=giants)[:, None] * M_R_STEP
                       * density(c, view.place) * view.volume * inside for giants in (False, True)]
                      for c in COMPONENTS])
    return cells, magnitudes


def draw_stars(view: Sight, rng: np.random.Generator, steradian: float, bright: float, faint: float,
               m_r: tuple[float, float] = (-1.0, 16.0), times: float = 1.0) -> np.ndarray:
    """STARS of a Poisson process over an area, at `times` the natural density."""
    cells, magnitudes = star_numbers(view, bright, faint, m_r)
    flat = cells.ravel() * steradian * times
    n = int(rng.poisson(flat.sum()))
    if n == 0:
        return np.zeros(0, STARS)
    chosen = np.searchsorted(np.cumsum(flat), rng.uniform(0.0, flat.sum(), n), side="right").clip(0, len(flat) - 1)
    component, giant, magnitude, distance = np.unravel_index(chosen, cells.shape)
    out = np.zeros(n, STARS)
    out["component"], out["giant"] = component, giant == 1
    step = np.log(DISTANCES_PC[1] / DISTANCES_PC[0])
    out["distance"] = view.distance[distance] * np.exp(rng.uniform(-step / 2, step / 2, n))
    out["m_r"] = magnitudes[magnitude] + rng.uniform(-M_R_STEP / 2, M_R_STEP / 2, n)
    out["a_v"] = np.interp(out["distance"], view.distance, view.a_v)
    out["r"] = out["m_r"] + 5.0 * np.log10(out["distance"] / 10.0) + band_extinction()[2] * out["a_v"]
    return out


def absolute_r(g_i: np.ndarray, metallicity: np.ndarray | float) -> np.ndarray:
    """Absolute r of dwarfs of a colour 0.2 < g - i < 4 (Ivezic et al. 2008, ApJ 684, 287, eqs. A2 and A7)."""
    solar = np.polyval([0.0967, -1.267, 6.127, -12.97, 14.32, -5.06], g_i)
    return np.asarray(solar + 4.50 - 1.11 * metallicity - 0.18 * np.asarray(metallicity) ** 2)


def colours(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) intrinsic g - i of STARS: dwarfs by photometric parallax, giants about 1.0."""
    grid = np.linspace(0.1, 3.8, 400)
    out = np.zeros(len(rows))
    for k, component in enumerate(COMPONENTS):
        of = rows["component"] == k
        curve = np.maximum.accumulate(absolute_r(grid, component.metallicity))
        out[of] = np.interp(rows["m_r"][of], curve, grid)
    hot = -0.5 + 0.18 * (rows["m_r"] + 1.0)      # bluer than the relation's end: A and B dwarfs of the thin disk
    dwarfs = np.where(rows["m_r"] < 2.5, np.minimum(hot, 0.3), out) + rng.normal(0.0, 0.05, len(rows))
    return np.asarray(np.where(rows["giant"], rng.normal(1.0, 0.15, len(rows)), dwarfs))


def motions(rows: np.ndarray, ra: np.ndarray, dec: np.ndarray, rng: np.random.Generator) -> tuple[
        np.ndarray, np.ndarray]:
    """Proper motions [mas/yr] to the East (cos Dec included) and to the North, as seen from the Sun."""
    towards = unit(ra, dec) @ TO_GALACTIC.T
    place = rows["distance"][:, None] * towards + np.array([-SUN_PC, 0.0, SUN_HEIGHT_PC])
    radius = np.maximum(np.hypot(place[:, 0], place[:, 1]), 1.0)[:, None]
    inward = np.concatenate([-place[:, :2] / radius, np.zeros((len(rows), 1))], axis=1)
    along = np.stack([-inward[:, 1], inward[:, 0], np.zeros(len(rows))], -1)     # l = 90 deg at the Sun
    spread = np.array([c.dispersion for c in COMPONENTS])[rows["component"]] * rng.normal(size=(len(rows), 3))
    drift = np.array([c.drift for c in COMPONENTS])[rows["component"]]
    velocity = (spread[:, :1] * inward + (SPIN_KM_S - drift + spread[:, 1])[:, None] * along
                + spread[:, 2:] * np.array([0.0, 0.0, 1.0]))
    velocity = (velocity - SUN_UVW - np.array([0.0, SPIN_KM_S, 0.0])) @ TO_GALACTIC      # ICRF axes
    a, d = np.radians(ra), np.radians(dec)
    east = np.stack([-np.sin(a), np.cos(a), np.zeros(len(rows))], -1)
    north = np.stack([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)], -1)
    scale = 1000.0 / (KM_S * rows["distance"])
    return np.sum(velocity * east, 1) * scale, np.sum(velocity * north, 1) * scale


def moved(ra: np.ndarray, dec: np.ndarray, pm_east: np.ndarray, pm_north: np.ndarray, parallax: np.ndarray,
          years: float, observer_au: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RA, Dec [deg] after uniform motion in the tangent direction [mas/yr] and parallax [mas].

    `observer_au` is where the observer stands, from the barycentre [au], ICRF; the change of perspective by radial
    motion is left out: under 0.1 mas in a decade for all but a handful of stars.
    """
    a, d = np.radians(ra), np.radians(dec)
    east = np.stack([-np.sin(a), np.cos(a), np.zeros_like(a)], -1)
    north = np.stack([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)], -1)
    mas = np.radians(1.0 / 3.6e6)
    vector = (unit(ra, dec) + mas * years * (pm_east[:, None] * east + pm_north[:, None] * north)
              - mas * parallax[:, None] * observer_au)
    return (np.degrees(np.arctan2(vector[:, 1], vector[:, 0])) % 360.0,
            np.degrees(np.arctan2(vector[:, 2], np.hypot(vector[:, 0], vector[:, 1]))))
