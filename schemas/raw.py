"""What crosses from a camera to signature removal: the raw amplifiers of one exposure, and calibrations of a detector.

    one amplifier as it is read           x ->
    +----------+------------------+----------------+
    | prescan  |   light          | serial overscan|     rows, first read first
    +----------+------------------+----------------+
    |          |parallel overscan |                |
    +----------+------------------+----------------+

Sixteen amplifiers in the order of the headers' extensions, C10 .. C17 below and C07 .. C00 above (obs_lsst,
cameraHeader.yaml): a convention, so both sides of the twin use it. A `RawExposure` holds no truth, and `Calibrations`
hold what a calibration of the camera would find.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.exposure import Visit
from schemas.wcs import Wcs

AMPLIFIERS: Final = tuple(f"C1{k}" for k in range(8)) + tuple(f"C0{7 - k}" for k in range(8))
ACROSS: Final = 8                # amplifiers in a row


@dataclass(frozen=True, slots=True)
class Readout:
    """How a detector's pixels come out of its sixteen amplifiers."""

    rows: int            # light-sensitive pixels of an amplifier
    columns: int
    prescan: int         # columns read before light
    overscan: int        # columns read after it
    parallel: int        # rows read after the last
    upper_flip: bool     # upper amplifiers are read from the high-x side as the lower ones are (ITL), or not (e2v)

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) < 1 or min(self.prescan, self.overscan, self.parallel) < 0:
            raise ValueError(f"an amplifier needs rows and columns, and no negative margins, got {self}")

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of the assembled detector."""
        return 2 * self.rows, ACROSS * self.columns

    @property
    def raw_shape(self) -> tuple[int, int]:
        """(ny, nx) of one amplifier as it is read."""
        return self.rows + self.parallel, self.prescan + self.columns + self.overscan

    @property
    def light(self) -> tuple[slice, slice]:
        """The light-sensitive part of a raw amplifier."""
        return slice(0, self.rows), slice(self.prescan, self.prescan + self.columns)

    def window(self, k: int) -> tuple[slice, slice]:
        """Where amplifier `k` lies on the detector, as slices that run in the order of its readout."""
        below = k < ACROSS
        across = k if below else 2 * ACROSS - 1 - k
        x0, x1 = across * self.columns, (across + 1) * self.columns
        ys = slice(0, self.rows) if below else slice(2 * self.rows - 1, self.rows - 1, -1)
        backwards = below or self.upper_flip
        xs = slice(x1 - 1, x0 - 1 if x0 else None, -1) if backwards else slice(x0, x1)
        return ys, xs

    def split(self, image: np.ndarray) -> np.ndarray:
        """(16, rows, columns) amplifiers of a detector's image, each in the order of its readout."""
        if image.shape != self.shape:
            raise ValueError(f"image must be {self.shape}, got {image.shape}")
        return np.stack([image[self.window(k)] for k in range(len(AMPLIFIERS))])

    def assemble(self, amplifiers: np.ndarray) -> np.ndarray:
        """(ny, nx) image of (16, rows, columns) amplifiers.

        Examples
        --------
        >>> readout = Readout(2, 3, 1, 1, 1, False)
        >>> image = np.arange(4 * 24).reshape(4, 24)
        >>> bool(np.all(readout.assemble(readout.split(image)) == image))
        True
        """
        want = len(AMPLIFIERS), self.rows, self.columns
        if amplifiers.shape != want:
            raise ValueError(f"amplifiers must be {want}, got {amplifiers.shape}")
        out = np.empty(self.shape, amplifiers.dtype)
        for k in range(len(AMPLIFIERS)):
            out[self.window(k)] = amplifiers[k]
        return out

    def spread(self, values: np.ndarray) -> np.ndarray:
        """(ny, nx) float32 map of one value for each amplifier."""
        return self.assemble(np.broadcast_to(np.asarray(values, np.float32)[:, None, None],
                                             (len(AMPLIFIERS), self.rows, self.columns)))


@dataclass(frozen=True, slots=True)
class RawExposure:
    """One detector's pixels of one visit as they are digitised."""

    visit: Visit
    detector: int
    amplifiers: np.ndarray     # (16, raw ny, raw nx) int32 [ADU]
    readout: Readout
    wcs: Wcs                   # of the assembled detector, from the pointing: see `Exposure`
    dark_time_s: float         # from the last clearing to the readout
    wcs_error_arcsec: float = 5.0
    wcs_error_deg: float = 0.1

    def __post_init__(self) -> None:
        want = (len(AMPLIFIERS), *self.readout.raw_shape)
        if self.amplifiers.shape != want:
            raise ValueError(f"amplifiers must be {want}, got {self.amplifiers.shape}")

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of the assembled detector."""
        return self.readout.shape


@dataclass(frozen=True, slots=True)
class Calibrations:
    """What is known of one detector in one band; images are of the assembled detector, tables by amplifier."""

    detector: int
    band: str
    readout: Readout
    gain: np.ndarray           # (16,) [electrons per ADU]
    read_noise: np.ndarray     # (16,) [electrons]
    saturation: np.ndarray     # (16,) [electrons]: above it pixels can not be trusted
    crosstalk: np.ndarray      # (16, 16): share of column's amplifier that row's sees
    linearity: np.ndarray      # (16, n) [electrons]: to add at measured levels 0, step, 2 step ...
    linearity_step: float      # [electrons]
    cti: np.ndarray            # (16,) charge left behind per serial transfer, as a share
    trap: np.ndarray           # (16,) [electrons] that each row's trap in the serial register holds
    trap_level: np.ndarray     # (16,) [electrons] at which it is all but full (1 - 1/e)
    trap_release: np.ndarray   # (16,) share released per transfer
    bias: np.ndarray           # (ny, nx) float32 [electrons], overscan taken off
    dark: np.ndarray           # (ny, nx) float32 [electrons/s]
    flat: np.ndarray           # (ny, nx) float32: response; 1 at the centre of the focal plane, gains taken out
    fringe: np.ndarray | None  # (ny, nx) float32: of the sky after the flat, relative to it; None where there is none
    bf_kernel: np.ndarray      # (m, m) [1/electron]: the brighter-fatter effect's potential (Coulton et al. 2018)
    defects: np.ndarray        # (ny, nx) bool

    def __post_init__(self) -> None:
        for name in ("bias", "dark", "flat", "defects"):
            got = getattr(self, name).shape
            if got != self.readout.shape:
                raise ValueError(f"{name} must be {self.readout.shape}, got {got}")
        n = len(AMPLIFIERS)
        if self.crosstalk.shape != (n, n) or self.linearity.shape[0] != n or self.linearity_step <= 0:
            raise ValueError(f"crosstalk must be {(n, n)}, linearity (16, n) of positive step, got "
                             f"{self.crosstalk.shape}, {self.linearity.shape} and {self.linearity_step}")


__all__ = ["AMPLIFIERS", "Calibrations", "RawExposure", "Readout"]
