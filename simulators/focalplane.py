"""LSSTCam's focal plane: 189 science detectors in 21 rafts, where they lie, what they are made of, and the light lost.

              R41 R42 R43
          R30 R31 R32 R33 R34          y up, x to the right [mm from the centre]
          R20 R21 R22 R23 R24
          R10 R11 R12 R13 R14          a raft holds S00 S01 S02 / S10 S11 S12 / S20 S21 S22 from below
              R01 R02 R03

Names, order of ids, positions and makers are obs_lsst's (policy/lsstCam, lsstCamSim.yaml); there is one camera, so what
is drawn for its amplifiers does not depend on a scenario's seed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import numpy as np

from schemas.raw import AMPLIFIERS, Readout
from schemas.wcs import Wcs
from simulators.streams import stream

Vendor = Literal["e2v", "ITL"]

RAFTS: Final = tuple(f"R{row}{column}" for row in range(5) for column in range(5)
                     if not (row in (0, 4) and column in (0, 4)))
ITL_RAFTS: Final = frozenset({"R01", "R02", "R03", "R10", "R20", "R41", "R42", "R43"})
SLOTS: Final = tuple(f"S{row}{column}" for row in range(3) for column in range(3))
RAFT_MM: Final = 127.0           # pitch of rafts
CCD_MM: Final = 42.25            # pitch of detectors in a raft
PIXEL_MM: Final = 0.01

# Detectors that prompt processing turns off (phalanx, next-visit-fan-out): dead, vignetted, with bad flats.
OFF: Final = frozenset({120, 122, 0, 20, 27, 65, 123, 161, 168, 188, 1, 19, 30, 68, 158, 169, 187})

# Light that reaches a radius [mm] over that at the centre: read off imSim's fit of a batoid ray trace, i band.
VIGNETTING: Final = ((0.0, 60.0, 120.0, 160.0, 200.0, 240.0, 270.0, 290.0, 300.0, 312.0, 318.0, 324.0, 330.0, 340.0,
                      350.0, 360.0, 365.0),
                     (1.0, 0.9993, 0.9970, 0.9941, 0.9861, 0.9723, 0.9548, 0.9369, 0.9275, 0.9141, 0.8705, 0.7971,
                      0.7157, 0.6089, 0.5006, 0.3192, 0.1872))
FIELD_MM: Final = 315.0          # 1.75 deg at 20.0 arcsec/mm
DISTORTION: Final = 1.0e-3       # displacement at FIELD_MM over the radius: assumed, the design's bound of 0.1 %
TURN_DEG: Final = 0.005          # rms rotation of a detector in its raft: assumed
SHIFT_MM: Final = 0.02           # rms displacement from the design, each way: assumed


@dataclass(frozen=True, slots=True)
class Maker:
    """A sensor type: medians over the focal plane of SITCOMTN-148 (Run 7), geometry of obs_lsst's cameraHeader."""

    rows: int                    # of an amplifier
    columns: int
    prescan: int
    overscan: int
    parallel: int
    upper_flip: bool
    gain: float                  # [electrons per ADU]
    read_noise: float            # [electrons]
    dark: float                  # [electrons/s]
    full_well: float             # [electrons]: where the photon transfer curve turns off
    serial_cti: float            # share per transfer
    trap: float                  # [electrons]; assumed
    crosstalk: float             # of the nearest amplifier; assumed, the order of Snyder et al. 2021
    midline: bool                # an implant keeps bleeding charge on its side of the middle (imSim)
    # boundary shifts: strength [1/electron], softening [pixel], y over x; they give a00 and the first neighbours
    brighter_fatter: tuple[float, float, float]


MAKERS: Final[dict[Vendor, Maker]] = {
    # a00 -3.49e-6, a10 0.51e-6, a01 0.17e-6 per electron
    "e2v": Maker(2002, 512, 10, 54, 46, False, 1.51, 5.40, 0.023, 103_000.0, 7.3e-8, 0.0, 2.0e-4, True,
                 (0.81917e-6, 0.56279, 0.73248)),
    # a00 -1.70e-6, neighbours in the same unit of it as those of e2v
    "ITL": Maker(2000, 509, 3, 64, 48, True, 1.68, 6.21, 0.021, 129_000.0, 1.5e-6, 4.0, 4.0e-4, False,
                 (0.21492e-6, 0.37221, 0.64213)),
}


@dataclass(frozen=True, slots=True)
class Sensor:
    """One detector as built: where it lies, and its sixteen amplifiers."""

    detector: int
    name: str                    # R22_S11
    vendor: Vendor
    x_mm: float                  # centre
    y_mm: float
    turn_deg: float              # of its axes against the focal plane's
    gain: np.ndarray             # (16,) each: units of `Maker`
    read_noise: np.ndarray
    dark: np.ndarray
    full_well: np.ndarray
    bend: np.ndarray             # share by which the signal falls short at 100,000 electrons
    wave: np.ndarray             # amplitude of the wave in it, as a share
    bias_adu: np.ndarray         # level of the overscan
    cti: np.ndarray
    trap: np.ndarray
    crosstalk: np.ndarray        # (16, 16)

    @property
    def maker(self) -> Maker:
        """What the type has in common."""
        return MAKERS[self.vendor]

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of the whole detector."""
        return 2 * self.maker.rows, 8 * self.maker.columns

    def readout(self, ny: int, nx: int) -> Readout:
        """The layout of a detector of this type, or of one with smaller amplifiers: a laptop's."""
        if ny % 2 or nx % 8:
            raise ValueError(f"sixteen amplifiers need ny a multiple of 2 and nx of 8, got {ny} and {nx}")
        m = self.maker
        return Readout(ny // 2, nx // 8, m.prescan, m.overscan, m.parallel, m.upper_flip)


def detector_name(detector: int) -> str:
    """`R22_S11` of 94."""
    if not 0 <= detector < len(RAFTS) * 9:
        raise ValueError(f"LSSTCam's science detectors are 0..188, got {detector}")
    return f"{RAFTS[detector // 9]}_{SLOTS[detector % 9]}"


def detector_id(name: str) -> int:
    """94 of `R22_S11`."""
    raft, _, slot = name.partition("_")
    if raft not in RAFTS or slot not in SLOTS:
        raise ValueError(f"a detector's name is a science raft and a slot, as R22_S11, got {name!r}")
    return RAFTS.index(raft) * 9 + SLOTS.index(slot)


def all_detectors() -> tuple[int, ...]:
    """Ids of the 189."""
    return tuple(range(len(RAFTS) * 9))


def active_detectors() -> tuple[int, ...]:
    """Ids of the 172 that prompt processing uses."""
    return tuple(k for k in all_detectors() if k not in OFF)


def select(wanted: str) -> tuple[int, ...]:
    """Ids that a word names: `all`, `active`, a raft `R22` or a detector `R22_S11`."""
    if wanted in ("all", "active"):
        return all_detectors() if wanted == "all" else active_detectors()
    if wanted in RAFTS:
        first = RAFTS.index(wanted) * 9
        return tuple(range(first, first + 9))
    return (detector_id(wanted),)


def design_mm(detector: int) -> tuple[float, float]:
    """Centre of a detector by design [mm]."""
    name = detector_name(detector)
    row, column, slot_row, slot_column = (int(name[k]) for k in (1, 2, 5, 6))
    return (column - 2) * RAFT_MM + (slot_column - 1) * CCD_MM, (row - 2) * RAFT_MM + (slot_row - 1) * CCD_MM


@cache
def sensor(detector: int) -> Sensor:
    """A detector as built; amplifiers scatter about the medians as those of R22 do (obs_lsst: gain 2 %, noise 4 %)."""
    name = detector_name(detector)
    vendor: Vendor = "ITL" if name[:3] in ITL_RAFTS else "e2v"
    maker, rng, n = MAKERS[vendor], stream(0, "sensor", 0, detector), len(AMPLIFIERS)
    dx, dy, turn = rng.normal(size=3)
    x, y = design_mm(detector)
    scatter = rng.normal(size=(6, n))
    whole = rng.normal(size=3)                       # of the detector, on top of which its amplifiers scatter
    return Sensor(
        detector, name, vendor, x + SHIFT_MM * dx, y + SHIFT_MM * dy, TURN_DEG * turn,
        gain=maker.gain * (1 + 0.015 * whole[0] + 0.012 * scatter[0]),
        read_noise=maker.read_noise * np.exp(0.02 * whole[1] + 0.04 * scatter[1]),
        dark=maker.dark * np.exp(0.1 * whole[2] + 0.1 * scatter[2]),
        full_well=maker.full_well * (1 + 0.015 * scatter[3]),
        bend=0.005 + 0.002 * scatter[4],             # assumed: below the requirement of 3 %
        wave=np.full(n, 0.001),                      # assumed
        bias_adu=np.round(24_000.0 + 1500.0 * scatter[5]),
        cti=maker.serial_cti * np.exp(0.3 * rng.normal(size=n)),
        trap=maker.trap * np.exp(0.3 * rng.normal(size=n)),
        crosstalk=_crosstalk(maker.crosstalk, rng))


def _crosstalk(nearest: float, rng: np.random.Generator) -> np.ndarray:
    """(16, 16) coefficients that fall with the distance of the amplifiers' electronics, a fifth of them negative."""
    n = len(AMPLIFIERS)
    k = np.arange(n)
    distance = np.abs(k[:, None] - k)
    size = nearest * np.exp(-(distance - 1) / 2.0) * np.exp(0.3 * rng.normal(size=(n, n)))
    sign = np.where((rng.uniform(size=(n, n)) < 0.2) & (distance > 1), -1.0, 1.0)
    return np.asarray(np.where(distance == 0, 0.0, sign * size))


def vignetting(x_mm: np.ndarray, y_mm: np.ndarray) -> np.ndarray:
    """Light that reaches positions on the focal plane, over that at its centre."""
    return np.asarray(np.interp(np.hypot(x_mm, y_mm), *VIGNETTING))


def positions_mm(detector: int, x_px: np.ndarray, y_px: np.ndarray, shape: tuple[int, int]
                 ) -> tuple[np.ndarray, np.ndarray]:
    """Positions on the focal plane [mm] of pixels of a detector, or of a cut-out of it with the same centre."""
    s = sensor(detector)
    turn = np.radians(s.turn_deg)
    u, v = PIXEL_MM * (x_px - (shape[1] - 1) / 2), PIXEL_MM * (y_px - (shape[0] - 1) / 2)
    return s.x_mm + u * np.cos(turn) - v * np.sin(turn), s.y_mm + u * np.sin(turn) + v * np.cos(turn)


def vignetting_map(detector: int, shape: tuple[int, int]) -> np.ndarray:
    """(ny, nx) float32 light that reaches each pixel, over that at the centre of the focal plane."""
    return smooth(shape, lambda x, y: vignetting(*positions_mm(detector, x, y, shape)))


def smooth(shape: tuple[int, int], function: Callable[[np.ndarray, np.ndarray], np.ndarray],
           step: int = 16) -> np.ndarray:
    """(ny, nx) float32 values of a smooth function of x and y [pixel], computed at every `step`-th and interpolated."""
    lines = [np.append(np.arange(0, n - 1, step), n - 1).astype(float) for n in shape]
    coarse = np.broadcast_to(function(lines[1][None, :], lines[0][:, None]), (len(lines[0]), len(lines[1])))
    rows = np.stack([np.interp(np.arange(shape[1]), lines[1], row) for row in coarse]).astype(np.float32)
    at = np.interp(np.arange(shape[0]), lines[0], np.arange(len(lines[0])))
    low = np.minimum(at.astype(int), len(rows) - 2)
    part = (at - low).astype(np.float32)[:, None]
    out = rows[low]
    out += part * (rows[low + 1] - out)
    return np.asarray(out)


def wcs(detector: int, shape: tuple[int, int], ra: float, dec: float, rotation: float, scale_arcsec: float) -> Wcs:
    """TAN-SIP about the boresight: the projection's reference point lies where the optical axis meets the plane.

    A source at radius r of the undistorted plane falls at r (1 + DISTORTION (r / FIELD_MM)^2); SIP maps pixels to the
    plane, so it holds the inverse of that to third order: exact to 2e-3 pixel at the edge of the field with its fifth.
    """
    s = sensor(detector)
    plain = Wcs.tangent(ra, dec, shape, scale_arcsec=scale_arcsec, rotation=rotation)
    turn = np.radians(s.turn_deg)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])   # pixel offsets to the plane
    centre = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    axis = centre - matrix.T @ np.array([s.x_mm, s.y_mm]) / PIXEL_MM
    a, b, c, d = (np.reshape(plain.cd, (2, 2)) @ matrix).ravel().tolist()
    k = DISTORTION * (PIXEL_MM / FIELD_MM) ** 2
    cubic, fifth = -k, 3.0 * k * k                   # r = R (1 - k R^2 + 3 k^2 R^4 ...)
    x_terms = ((3, 0, 0, cubic), (1, 2, 0, cubic), (5, 0, 0, fifth), (3, 2, 0, 2 * fifth), (1, 4, 0, fifth))
    y_terms = ((2, 1, 0, cubic), (0, 3, 0, cubic), (4, 1, 0, fifth), (2, 3, 0, 2 * fifth), (0, 5, 0, fifth))
    return Wcs((float(axis[0]), float(axis[1])), plain.crval, (a, b, c, d), "TAN-SIP", x_terms, y_terms)


__all__ = ["MAKERS", "RAFTS", "Sensor", "Vendor", "active_detectors", "all_detectors", "design_mm", "detector_id",
           "detector_name", "positions_mm", "select", "sensor", "smooth", "vignetting", "vignetting_map", "wcs"]
