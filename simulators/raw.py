"""From expected electrons to the digits of sixteen amplifiers, in the order in which a camera spoils them.

    light -> response (vignetting, illumination, pixels, edges, dead columns), fringes -> dark -> Poisson, cosmic rays
      -> brighter-fatter -> bleeding -> serial register -> output amplifier (not linear) -> crosstalk
      -> gain, bias, read noise -> digits

The order is imSim's with the effects that it has not. `calibrations` gives what undoes them, ideal or with the noise of
so many frames. Everything that belongs to a detector depends on the detector alone.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from scipy.fft import fft2, ifft2, irfft2, next_fast_len, rfft2

from schemas import mask as planes
from schemas.exposure import Visit
from schemas.raw import AMPLIFIERS, Calibrations, RawExposure, Readout
from schemas.wcs import Wcs
from simulators import artifacts, focalplane
from simulators.bright_stars import Stars
from simulators.config import CameraConfig, RawConfig, SimulationConfig
from simulators.focalplane import Sensor
from simulators.kernels.raw import bleed, move_charge, read_out
from simulators.psf import TruePsf
from simulators.streams import stream

READS_BEFORE_MASK: Final = 0.95  # of the full well: the saturation that calibrations state
WAVE_PERIOD: Final = 50_000.0    # of the non-linearity's wave [electrons]; assumed
TRAP_LEVEL: Final = 20_000.0     # at which a serial trap is all but full [electrons]; assumed
TRAP_RELEASE: Final = 0.1        # share per transfer; assumed
LINEARITY_STEP: Final = 2000.0   # of the table [electrons]
BF_REACH: Final = 8              # pixels whose borders a charge moves
STRIP: Final = 496               # rows whose shifts are convolved at a time
PIXEL_RESPONSE: Final = 0.004    # rms of pixels' response; assumed
DARK_PATTERN: Final = 0.05       # rms of pixels' dark current over its mean; assumed
BIAS_PATTERN_ADU: Final = 0.3    # rms of pixels' fixed offsets; assumed
ROW_DRIFT_ADU: Final = 0.5       # rms step-by-step wander of the bias from row to row; assumed
FRINGES: Final = 0.005           # amplitude over the sky in y; assumed
EDGE: Final = (0.15, 3.0)        # roll-off of the response: depth at the border, scale [pixel]; assumed
FLAT_E: Final = 50_000.0         # level of the flats that noisy calibrations are made of [electrons]
DARK_S: Final = 300.0            # length of their darks


@dataclass(frozen=True, slots=True)
class Response:
    """What a detector does to light and adds to it, in one band."""

    flat: np.ndarray           # (ny, nx) float32: pixels' response, dead columns aside
    dead: tuple[tuple[int, int, int, float], ...]      # x, first and last y + 1 of dead columns, and what they pass
    dark: np.ndarray           # (ny, nx) float32 [electrons/s], hot pixels included
    fringe: np.ndarray | None  # (ny, nx) float32 over the sky
    bias: np.ndarray           # (ny, nx) float32 [ADU]: what the overscans do not have
    columns: np.ndarray        # (16, columns) [ADU]: what the parallel overscan shares
    defects: np.ndarray        # (ny, nx) bool: those that are listed
    rows: tuple[artifacts.Row, ...]   # all defects, as truth has them

    @property
    def passed(self) -> np.ndarray:
        """(ny, nx) float32 share of light that becomes charge."""
        out = self.flat.copy()
        for x, first, end, share in self.dead:
            out[first:end, x] *= np.float32(share)
        return out


@dataclass(frozen=True, slots=True)
class Drawn:
    """A raw exposure's digits and the truth about them."""

    amplifiers: np.ndarray     # (16, raw ny, raw nx) int32 [ADU]
    readout: Readout
    mask: np.ndarray           # (ny, nx) int32: truly saturated, and listed defects
    truth_pixels: np.ndarray   # TRUTH_PIXELS


def dark_time_s(config: SimulationConfig, visit: Visit) -> float:
    """Time in which dark current collects."""
    return visit.exposure_s + config.cadence.readout_s


def record(expected: np.ndarray, sky: float, config: SimulationConfig, visit: Visit, detector: int, seed: int, wcs: Wcs,
           psf: TruePsf, zeropoint: float, stars: Stars | None = None) -> Drawn:
    """The raw image of expected electrons, dark current not among them, `sky` of them in each pixel the sky's.

    `stars` are those that may leave ghosts and spikes.
    """
    c, sensor = config.camera, focalplane.sensor(detector)
    effects, readout = c.raw, sensor.readout(*expected.shape)
    here = response(config, detector, visit.band)
    light = expected if here.fringe is None else expected + np.float32(sky) * here.fringe
    image, rows = artifacts.collect(light, config, visit, detector, seed, wcs, psf, zeropoint,
                                    response=here.passed, dark=here.dark * np.float32(dark_time_s(config, visit)),
                                    stars=stars)
    charge = np.ascontiguousarray(image, np.float32)
    del image, light
    if effects.brighter_fatter:
        brighter_fatter(charge, sensor)
    saturated, over = _saturate(charge, sensor, readout, effects.saturation)
    rows += artifacts.saturation_rows(over, saturated)
    rows += here.rows
    rows += artifacts.event_rows(config, visit, detector, seed, wcs, expected.shape)
    mask = np.where(saturated, np.int32(planes.SAT), np.int32(0))
    mask[here.defects] |= planes.BAD
    digits = digitise(charge, sensor, readout, effects, here, stream(seed, "raw noise", visit.visit, detector))
    return Drawn(digits, readout, mask, artifacts.table(rows, visit, detector, float(sensor.gain.mean())))


def _saturate(charge: np.ndarray, sensor: Sensor, readout: Readout, wells: bool) -> tuple[np.ndarray, np.ndarray]:
    """Spill what exceeds the full wells, in place; which pixels are full, and which were before."""
    if not wells:
        none = np.zeros(charge.shape, bool)
        return none, none
    below = np.repeat(sensor.full_well[:8], readout.columns).astype(np.float32)
    above = np.repeat(sensor.full_well[:7:-1], readout.columns).astype(np.float32)
    middle = readout.rows
    wells_of = ((slice(0, middle), below), (slice(middle, None), above))
    over = np.concatenate([charge[part] > well for part, well in wells_of])
    if over.any():
        bleed(charge, below, above, sensor.maker.midline)
    return np.concatenate([charge[part] >= well * np.float32(READS_BEFORE_MASK) for part, well in wells_of]), over


def digitise(charge: np.ndarray, sensor: Sensor, readout: Readout, effects: RawConfig, here: Response,
             rng: np.random.Generator) -> np.ndarray:
    """(16, raw ny, raw nx) int32 digits of the charge in the pixels."""
    n, zero = len(AMPLIFIERS), np.zeros(len(AMPLIFIERS))
    signal = np.zeros((n, *readout.raw_shape), np.float32)
    read_out(readout.split(charge), sensor.cti if effects.cti else zero, sensor.trap if effects.cti else zero,
             TRAP_LEVEL, TRAP_RELEASE, sensor.bend if effects.linearity else zero,
             sensor.wave if effects.linearity else zero, WAVE_PERIOD, readout.prescan, signal)
    if effects.crosstalk:
        _cross(signal.reshape(n, -1), sensor.crosstalk.astype(np.float32))
    digits = np.empty(signal.shape, np.int32)
    structure = readout.split(here.bias)
    for k in range(n):
        digits[k] = _digits(signal[k], structure[k], here.columns[k], k, sensor, readout, effects, rng)
    return digits


def _cross(signal: np.ndarray, crosstalk: np.ndarray, piece: int = 1 << 18) -> None:
    """Add to (16, n) signals what each amplifier sees of the others, in place."""
    for first in range(0, signal.shape[1], piece):
        part = signal[:, first:first + piece]
        part += crosstalk @ part


def _digits(signal: np.ndarray, structure: np.ndarray, columns: np.ndarray, k: int, sensor: Sensor, readout: Readout,
            effects: RawConfig, rng: np.random.Generator) -> np.ndarray:
    """Digits of one amplifier's signal."""
    out = signal * np.float32(1.0 / sensor.gain[k])
    out += np.float32(sensor.bias_adu[k])
    if effects.bias:
        steps = rng.normal(size=len(out))
        drift = np.convolve(np.concatenate([np.zeros(30), steps]), 0.9 ** np.arange(31), "valid")
        out += (ROW_DRIFT_ADU * np.sqrt(1 - 0.81) * drift)[:, None].astype(np.float32)
        out[readout.light] += structure
        out[:, readout.light[1]] += columns.astype(np.float32)
    if effects.read_noise:
        out += np.float32(sensor.read_noise[k] / sensor.gain[k]) * rng.standard_normal(out.shape, np.float32)
    return np.rint(out, out=out).astype(np.int32)


# --- the brighter-fatter effect --------------------------------------------------------------------------------------

def border_shifts(sensor: Sensor, reach: int = BF_REACH) -> tuple[np.ndarray, np.ndarray]:
    """(2, n, n) shifts of right and upper borders [pixel per electron] about a pixel that holds charge.

    The field of the charge falls as r / (r^2 + s^2)^2, averaged along each border; it differs in strength between the
    two directions, as channel stops and gates do. Strengths are chosen so that the areas that pixels lose are as
    measured: see `focalplane.MAKERS`.
    """
    strength, soft, ratio = sensor.maker.brighter_fatter
    n = np.arange(-reach, reach + 1.0)
    x, y = np.meshgrid(n, n)
    along = (np.arange(8) + 0.5) / 8 - 0.5
    right = -strength * np.mean([(x + 0.5) / ((x + 0.5) ** 2 + (y + t) ** 2 + soft**2) ** 2 for t in along], axis=0)
    upper = -strength * ratio * np.mean([(y + 0.5) / ((x + t) ** 2 + (y + 0.5) ** 2 + soft**2) ** 2 for t in along],
                                        axis=0)
    return np.asarray(right), np.asarray(upper)


def area_matrix(sensor: Sensor) -> np.ndarray:
    """(n, n) share of its area that a pixel gains per electron in the central one: Astier et al.'s a_ij."""
    right, upper = (np.pad(f, 1) for f in border_shifts(sensor))
    return np.asarray(right - np.roll(right, 1, 1) + upper - np.roll(upper, 1, 0))


@lru_cache(maxsize=4)
def _transforms(vendor_detector: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Half-plane transforms of the border shifts on a strip, complex64; of one detector of a type, all are alike."""
    out = []
    for kernel in border_shifts(focalplane.sensor(vendor_detector)):
        plane = np.zeros(shape, np.float32)
        half = len(kernel) // 2
        plane[: len(kernel), : len(kernel)] = kernel
        out.append(rfft2(np.roll(plane, (-half, -half), (0, 1)), workers=1))
    return out[0], out[1]


def brighter_fatter(charge: np.ndarray, sensor: Sensor) -> None:
    """Move charge between pixels as the charge that is already there bends its way, in place.

    Borders stand, on average over the exposure, half as far as they end. Their shifts are convolved in strips of rows
    that overlap: a strip's transforms take a fraction of the detector's.
    """
    (ny, nx), rows = charge.shape, min(STRIP, charge.shape[0])
    shape = next_fast_len(rows + 2 * BF_REACH, real=True), next_fast_len(nx + BF_REACH, real=True)
    kernels = _transforms(94 if sensor.vendor == "e2v" else 0, shape)
    shifts = np.empty((2, ny, nx), np.float32)
    padded, mean = np.empty(shape, np.float32), charge.mean()
    for first in range(0, ny, rows):
        last = min(first + rows, ny)
        low, high = max(first - BF_REACH, 0), min(last + BF_REACH, ny)
        padded[:] = mean
        padded[BF_REACH + low - first:BF_REACH + high - first, :nx] = charge[low:high]
        transform = rfft2(padded, workers=1)
        for shift, kernel in zip(shifts, kernels, strict=True):
            moved = irfft2(transform * kernel, s=shape, workers=1)
            np.multiply(moved[BF_REACH:BF_REACH + last - first, :nx], np.float32(0.5), out=shift[first:last])
    move_charge(charge, shifts[0], shifts[1])


def potential(areas: np.ndarray) -> np.ndarray:
    """(n, n) kernel K whose discrete Laplacian is the area matrix: what Coulton et al.'s correction is given."""
    side = 4 * len(areas) + 1
    plane = np.zeros((side, side))
    first = (side - len(areas)) // 2
    plane[first:first + len(areas), first:first + len(areas)] = areas
    k = 2 * np.pi * np.fft.fftfreq(side)
    laplacian = 2 * np.cos(k) + 2 * np.cos(k)[:, None] - 4
    laplacian[0, 0] = 1.0
    transform = fft2(plane) / laplacian
    transform[0, 0] = 0.0
    kernel = ifft2(transform).real
    kernel -= kernel[0, 0]
    return np.ascontiguousarray(kernel[first:first + len(areas), first:first + len(areas)])


# --- what belongs to the detector ------------------------------------------------------------------------------------

def response(config: SimulationConfig, detector: int, band: str) -> Response:
    """What a detector does in one band, with the effects that the settings switch on."""
    c, a = config.camera, config.artifacts
    return _response(c.raw, (c.ny, c.nx), detector, band, (a.bad_columns, a.bad_pixels, a.unknown_pixels))


@lru_cache(maxsize=1)       # half a gigabyte for a whole detector
def _response(effects: RawConfig, shape: tuple[int, int], detector: int, band: str,
              rates: tuple[float, float, float]) -> Response:
    sensor = focalplane.sensor(detector)
    readout = sensor.readout(*shape)
    dark = np.zeros(shape, np.float32)
    if effects.dark:
        pattern = stream(0, "dark pattern", 0, detector).standard_normal(shape, np.float32)
        dark = readout.spread(sensor.dark) * np.maximum(1.0 + np.float32(DARK_PATTERN) * pattern, 0.0)
    dead: list[tuple[int, int, int, float]] = []
    rows: list[artifacts.Row] = []
    defects = np.zeros(shape, bool)
    if effects.defects:
        dead, rows = _defects(dark, defects, rates, stream(0, "raw defects", 0, detector))
    bias, columns = np.zeros(shape, np.float32), np.zeros((len(AMPLIFIERS), readout.columns))
    if effects.bias:
        bias, columns = _bias(readout, stream(0, "bias", 0, detector))
    fringe = _fringe(shape, stream(0, "fringe", 0, detector)) if effects.fringe and band == "y" else None
    return Response(_flat(effects, shape, detector, band), tuple(dead), dark, fringe, bias, columns, defects,
                    tuple(rows))


def _flat(effects: RawConfig, shape: tuple[int, int], detector: int, band: str) -> np.ndarray:
    """Response of pixels: vignetting, an illumination that changes with the band, pixels, edges."""
    out = np.ones(shape, np.float32)
    if effects.flat:
        rng = stream(0, f"illumination {band}", 0, detector)
        a = 0.004 * rng.normal(size=3)

        def light(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            u, v = 2 * x / shape[1] - 1, 2 * y / shape[0] - 1
            reaching = focalplane.vignetting(*focalplane.positions_mm(detector, x, y, shape))
            return np.asarray(reaching * (1.0 + a[0] * u + a[1] * v + a[2] * (u * u + v * v)))

        out = focalplane.smooth(shape, light)
        pixels = stream(0, "pixel response", 0, detector).standard_normal(shape, np.float32)
        out *= 1.0 + np.float32(PIXEL_RESPONSE) * pixels
    if effects.edge:
        depth, scale = EDGE
        for axis, n in enumerate(shape):
            k = np.arange(n)
            fall = (1.0 - depth * np.exp(-np.minimum(k, n - 1 - k) / scale)).astype(np.float32)
            out *= fall if axis else fall[:, None]
    return out


def _defects(dark: np.ndarray, listed: np.ndarray, rates: tuple[float, float, float],
             rng: np.random.Generator) -> tuple[list[tuple[int, int, int, float]], list[artifacts.Row]]:
    """Dead columns; hot pixels of the list and some that it lacks are added to `dark`; the rows of all."""
    ny, nx = dark.shape
    share = dark.size / artifacts.CCD_PX
    dead: list[tuple[int, int, int, float]] = []
    rows: list[artifacts.Row] = []
    for _ in range(rng.poisson(rates[0] * share)):
        x, y, up = int(rng.integers(nx)), int(rng.integers(ny)), bool(rng.integers(2))
        part = slice(y, ny) if up else slice(0, y + 1)
        dead.append((x, part.start, part.stop, float(rng.uniform(0.0, 0.7))))
        listed[part, x] = True
        rows.append(("bad_column", x, part.start, x, part.stop - 1, 1.0, np.nan))
    for known, rate in ((True, rates[1]), (False, rates[2])):
        for _ in range(rng.poisson(rate * share)):
            x, y, hot = int(rng.integers(nx)), int(rng.integers(ny)), float(10 ** rng.uniform(1.0, 3.0))
            dark[y, x] += np.float32(hot)
            listed[y, x] |= known
            rows.append(("bad_pixel" if known else "hot_pixel", x, y, x, y, 1.0, np.nan))
    return dead, rows


def _bias(readout: Readout, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Offsets [ADU]: a corner of each amplifier that glows, fixed pixels, and columns that both overscans see."""
    i, j = np.arange(readout.rows)[:, None], np.arange(readout.columns)
    glow = [rng.uniform(2.0, 6.0) * np.exp(-i / 150.0) * np.exp(-j / 80.0) for _ in AMPLIFIERS]
    bias = readout.assemble(np.stack(glow).astype(np.float32))
    bias += np.float32(BIAS_PATTERN_ADU) * rng.standard_normal(readout.shape, np.float32)
    columns = 0.5 * rng.normal(size=(len(AMPLIFIERS), readout.columns)) + 5.0 * np.exp(-j / 30.0)
    return bias, columns


def _fringe(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Interference in a sheet whose thickness varies smoothly, over the sky, of mean 0."""
    waves = [(*rng.normal(0.0, 1.2, 2), rng.uniform(0.5, 1.5), rng.uniform(0, 2 * np.pi)) for _ in range(6)]
    wedge = 3.0 * rng.normal(size=2)

    def height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        u, v = x / 4000.0, y / 4000.0
        total = wedge[0] * u + wedge[1] * v
        for a, b, size, phase in waves:
            total = total + size * np.cos(2 * np.pi * (a * u + b * v) + phase)
        return np.asarray(total)

    out = np.cos(np.float32(4 * np.pi) * focalplane.smooth(shape, height))
    out *= np.float32(FRINGES)
    return np.asarray(out - out.mean())


# --- calibrations ----------------------------------------------------------------------------------------------------

def calibrations(config: SimulationConfig, detector: int, band: str, seed: int = 0) -> Calibrations:
    """What undoes a detector's effects in one band: ideal, or with the noise of `camera.raw.calibration_frames`."""
    c, sensor = config.camera, focalplane.sensor(detector)
    effects, readout, here = c.raw, sensor.readout(c.ny, c.nx), response(config, detector, band)
    n, zero = len(AMPLIFIERS), np.zeros(len(AMPLIFIERS))
    gain = readout.spread(sensor.gain)
    bias, dark, flat = here.bias * gain, here.dark, here.flat
    if effects.calibration_frames:
        bias, dark, flat = _noisy(bias, dark, flat, readout.spread(sensor.read_noise), effects.calibration_frames,
                                  stream(seed, f"calibrations {band}", 0, detector))
    known = sensor.full_well * READS_BEFORE_MASK if effects.saturation else np.full(n, np.inf)
    return Calibrations(
        detector, band, readout, sensor.gain, sensor.read_noise if effects.read_noise else zero, known,
        sensor.crosstalk if effects.crosstalk else np.zeros((n, n)),
        _linearity_table(sensor) if effects.linearity else np.zeros((n, 2)), LINEARITY_STEP,
        sensor.cti if effects.cti else zero, sensor.trap if effects.cti else zero, np.full(n, TRAP_LEVEL),
        np.full(n, TRAP_RELEASE), bias, dark, flat, here.fringe,
        potential(area_matrix(sensor)) if effects.brighter_fatter else np.zeros((3, 3)), here.defects)


def _linearity_table(sensor: Sensor, most: float = 200_000.0) -> np.ndarray:
    """(16, n) electrons to add to a measured level, at multiples of LINEARITY_STEP."""
    levels = np.arange(0.0, most + LINEARITY_STEP, LINEARITY_STEP)
    true = np.linspace(0.0, 1.1 * most, 20_000)
    out = []
    for bend, wave in zip(sensor.bend, sensor.wave, strict=True):
        measured = true * (1.0 - bend * true / 1.0e5 + wave * np.sin(2 * np.pi * true / WAVE_PERIOD))
        out.append(np.interp(levels, measured, true) - levels)
    return np.stack(out)


def _noisy(bias: np.ndarray, dark: np.ndarray, flat: np.ndarray, read_noise: np.ndarray, frames: int,
           rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames with the noise that the mean of so many of each kind has."""
    def draw() -> np.ndarray:
        return rng.standard_normal(bias.shape, np.float32)

    root = np.float32(np.sqrt(frames))
    return (bias + read_noise / root * draw(),
            dark + np.sqrt(dark * np.float32(DARK_S) + read_noise**2) / (root * np.float32(DARK_S)) * draw(),
            flat * (1.0 + draw() / (root * np.sqrt(np.float32(FLAT_E) * flat))))


def exposed(drawn: Drawn, config: SimulationConfig, visit: Visit, detector: int, pointing: Wcs) -> RawExposure:
    """The raw exposure as it leaves the camera."""
    return RawExposure(visit, detector, drawn.amplifiers, drawn.readout, pointing, dark_time_s(config, visit))


__all__ = ["CameraConfig", "Drawn", "Response", "area_matrix", "border_shifts", "brighter_fatter", "calibrations",
           "dark_time_s", "digitise", "exposed", "potential", "record", "response"]
