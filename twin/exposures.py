"""Exposures of the twin with the truth about them complete: that of the simulators, and what no catalogue of the sky
knows, the template's part.

    Facts of the visit and of the template's inputs -> optimum flux error -> TRUTH.snr

Nothing of the pipeline is imported: which earlier visits make a template is told, so that what was drawn once stays
good whatever the pipeline becomes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from schemas.exposure import AB_ZEROPOINT_NJY, Exposure, Visit
from schemas.mask import BAD, NO_DATA, SAT
from schemas.measures import TRACK, empty
from schemas.raw import Calibrations
from simulators import observe, raw
from simulators.artifacts import satellite_tracks
from simulators.config import SimulationConfig
from simulators.events import without_missing
from simulators.observe import Exposed, Facts, circumstances
from simulators.sky import Sky

SIDE = 41            # of the PSF stamps that errors are computed with [pixel]
GRID = 64            # of the Fourier transforms; 128 for trails
SHARE = 1 / 3        # of the template's inputs that a mask plane must cover to count as the template's

Masks = Callable[[Visit, int], np.ndarray]   # those of earlier exposures, by visit and detector


@dataclass(frozen=True, slots=True)
class Input:
    """One detector's exposure among a template's inputs, as truth knows it."""

    visit: Visit
    detector: int
    facts: Facts
    weight: float            # inverse variance of its blank sky [nJy^-2], as the coadd weighs
    njy_per_electron: float


def around_px(config: SimulationConfig) -> int:
    """How far earlier exposures reach beyond a detector: in life its neighbours saw what dithers bring in.

    Two dithers, and two and a half sigmas of both turns at the detector's corner; a survey turns its camera freely.
    """
    cadence, camera = config.cadence, config.camera
    if cadence.surveyed:
        corner = np.hypot(camera.ny, camera.nx) / 2 - min(camera.ny, camera.nx) / 2
        return int(np.ceil(2 * cadence.dither_arcsec / camera.scale_arcsec + corner)) + 8
    turn = 2.5 * np.sqrt(2) * np.radians(cadence.rotation_spread_deg) * np.hypot(camera.ny, camera.nx) / 2
    return int(np.ceil(2 * cadence.dither_arcsec / camera.scale_arcsec + turn)) + 8


def inputs(sky: Sky, earlier: Sequence[Visit], seed: int) -> list[Input]:
    """The inputs of a template made of earlier visits."""
    out = []
    for visit in earlier:
        for detector in sky.config.camera.imaged:
            facts = circumstances(sky, visit, detector, seed, around_px=around_px(sky.config))
            per_adu = 10 ** (0.4 * (AB_ZEROPOINT_NJY - facts.zeropoint))
            out.append(Input(visit, detector, facts, (facts.noise_adu * per_adu) ** -2,
                             per_adu / facts.gain))
    return out


def expose_earlier(sky: Sky, visit: Visit, detector: int, seed: int) -> Exposure:
    """An exposure of an earlier visit, for a template."""
    exposed = observe.expose(sky, visit, detector, seed, around_px=around_px(sky.config))
    return without_missing(exposed.calibrated, exposed.facts.wcs, sky.config, seed)


def expose(sky: Sky, visit: Visit, detector: int, seed: int, template: Sequence[Input], masks: Masks) -> Exposed:
    """An exposure of the night, its truth complete: template flux, optimum error, S/N, masks of the inputs."""
    earlier = list(dict.fromkeys(one.visit for one in template))
    exposed = observe.expose(sky, visit, detector, seed, keep_noiseless=True, template_visits=earlier)
    truth = _with_template(sky, exposed, template, masks)
    return Exposed(exposed.exposure, truth, exposed.truth_pixels, exposed.facts, raw_mask=exposed.raw_mask)


def calibrations(config: SimulationConfig, visit: Visit, detector: int, seed: int) -> Calibrations | None:
    """What is known of a detector for a raw exposure; None where exposures come without signature."""
    return raw.calibrations(config, detector, visit.band, seed) if config.camera.product == "raw" else None


def tracks(config: SimulationConfig, visits: Sequence[Visit], seed: int) -> np.ndarray:
    """TRACK rows of the satellites that the allow-list service knows."""
    found = [(visit.visit, track.ra[0], track.dec[0], track.ra[1], track.dec[1]) for visit in visits
             for track in satellite_tracks(config, visit, seed) if track.catalogued]
    return np.array(found, TRACK) if found else empty(TRACK)


def _with_template(sky: Sky, exposed: Exposed, inputs: Sequence[Input], masks: Masks) -> np.ndarray:
    """TRUTH with what the template decides."""
    truth = exposed.truth.copy()
    if not len(truth):
        return truth
    covers = np.array([_covers(one, truth) for one in inputs], bool).reshape(len(inputs), len(truth))
    weights = covers * np.array([one.weight for one in inputs])[:, None]
    weights = weights / np.maximum(weights.sum(axis=0), 1e-30)
    _template_flux(sky, truth, inputs, weights)
    truth["input_mask"] |= _template_mask(truth, inputs, covers, masks) | np.where(covers.any(axis=0), 0, NO_DATA)
    noise, template_noise, stamps = _local_noise(exposed, truth, inputs, weights)
    template_stamps = np.zeros_like(stamps)
    for one, weight in zip(inputs, weights, strict=True):
        template_stamps += weight[:, None, None] * _stamps(one.facts, truth)
    error, correlation = optimum_error(stamps, noise, template_stamps, template_noise,
                                       truth["trail_length"], truth["trail_angle"],
                                       np.nan_to_num(truth["separation_px"]))
    moved = truth["kind"] == b"moved_star"
    truth["flux_err_optimum"] = error
    truth["snr"] = truth["flux"] / error * np.where(moved, 1.0 - correlation, 1.0)
    return truth


def _template_flux(sky: Sky, truth: np.ndarray, inputs: Sequence[Input], weights: np.ndarray) -> None:
    """Replace the plain mean over the template's visits by the coadd's weighted one, in place."""
    fixed = ~np.isin(truth["kind"], [b"asteroid", b"moved_star"])
    total = np.zeros(len(truth))
    for one, weight in zip(inputs, weights, strict=True):
        total += weight * sky.flux_at(truth["truthId"], one.visit.band, one.visit.mjd_tai)
    truth["template_flux"] = np.where(fixed, total, truth["template_flux"])
    truth["flux"] = np.where(fixed, truth["science_flux"] - total, truth["flux"])


def _template_mask(truth: np.ndarray, inputs: Sequence[Input], covers: np.ndarray, masks: Masks) -> np.ndarray:
    """Planes that at least `SHARE` of the template's inputs carry within a pixel of the source."""
    counts = np.zeros((2, len(truth)))
    for one, covered in zip(inputs, covers, strict=True):
        bits = _bits_around(masks(one.visit, one.detector), *one.facts.wcs.pixels(truth["ra"], truth["dec"]))
        counts += np.stack([(bits & BAD) > 0, (bits & SAT) > 0]) * covered
    present = counts >= SHARE * np.maximum(covers.sum(axis=0), 1)
    return np.asarray(np.where(present[0], BAD, 0) | np.where(present[1], SAT, 0), np.int32)


def _local_noise(exposed: Exposed, truth: np.ndarray, inputs: Sequence[Input], weights: np.ndarray
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Variances per pixel of science and template under each source [nJy^2], and the science PSFs.

    Photon noise of everything there is counted, hosts and the source itself, weighted with the squared PSF. The
    template's scene is the science one's without what changed.
    """
    facts, gain = exposed.facts, exposed.facts.gain
    per_adu = 10 ** (0.4 * (AB_ZEROPOINT_NJY - facts.zeropoint))
    stamps = _stamps(facts, truth)
    square = stamps**2 / (stamps**2).sum(axis=(1, 2), keepdims=True)
    assert exposed.noiseless is not None
    scene = _windows(exposed.noiseless, truth["x"], truth["y"], facts.sky_adu) - facts.sky_adu
    light = np.maximum((scene * square).sum(axis=(1, 2)), 0.0) * per_adu              # [nJy per pixel]
    noise = (facts.noise_adu * per_adu) ** 2 + light * per_adu / gain
    changed = truth["flux"] * (stamps * square).sum(axis=(1, 2))
    static = np.maximum(light - np.where(truth["trail_length"] > 2.0, light, changed), 0.0)
    template = np.zeros(len(truth))
    for one, weight in zip(inputs, weights, strict=True):
        template += weight**2 * (1.0 / one.weight + static * one.njy_per_electron)
    return noise, np.where(template > 0, template, np.inf), stamps


def optimum_error(science: np.ndarray, noise: np.ndarray, template: np.ndarray, template_noise: np.ndarray,
                  trail_length: np.ndarray, trail_angle: np.ndarray, separation: np.ndarray
                  ) -> tuple[np.ndarray, np.ndarray]:
    """The smallest flux error that any differencing can reach, and the optimum filter's correlation at a distance.

    err^-2 = mean over k of |L|^2 |Ps|^2 |Pt|^2 / (Vs |Pt|^2 + Vt |Ps|^2) for white noises Vs and Vt; L is the trail's
    transform. The PSFs' orientations on the sky are not brought together: that matters at second order of their
    ellipticities.

    Parameters
    ----------
    science, template : (n, m, m) PSFs of unit sum
    noise, template_noise : (n,) variance per pixel [nJy^2]; infinite without a template: the error is then infinite
    trail_length, trail_angle : (n,) [pixel], [deg]
    separation : (n,) distance along the angle at which the correlation is wanted [pixel]

    References
    ----------
    Zackay, Ofek & Gal-Yam 2016.
    """
    error, correlation = np.full(len(science), np.inf), np.zeros(len(science))
    for long in (False, True):
        rows = np.flatnonzero(((trail_length > GRID / 4) == long) & np.isfinite(template_noise))
        if not len(rows):
            continue
        side = 2 * GRID if long else GRID
        ps = np.abs(np.fft.fft2(science[rows], s=(side, side))) ** 2
        pt = np.abs(np.fft.fft2(template[rows], s=(side, side))) ** 2
        power = ps * pt / np.maximum(noise[rows, None, None] * pt + template_noise[rows, None, None] * ps, 1e-300)
        frequency = np.fft.fftfreq(side)
        angle = np.radians(np.nan_to_num(trail_angle[rows]))[:, None, None]
        along = np.cos(angle) * frequency + np.sin(angle) * frequency[:, None]
        power *= np.sinc(along * trail_length[rows, None, None]) ** 2
        total = power.mean(axis=(1, 2))
        error[rows] = 1.0 / np.sqrt(total)
        shifted = power * np.cos(2 * np.pi * along * separation[rows, None, None])
        correlation[rows] = shifted.mean(axis=(1, 2)) / total
    return error, correlation


def _stamps(facts: Facts, truth: np.ndarray) -> np.ndarray:
    """(n, SIDE, SIDE) true PSFs at sources, wherever they are near this exposure."""
    x, y = facts.wcs.pixels(truth["ra"], truth["dec"])
    ny, nx = facts.psf.shape
    return np.stack([facts.psf.at(float(a), float(b), SIDE)
                     for a, b in zip(np.clip(x, 0, nx - 1), np.clip(y, 0, ny - 1), strict=True)])


def _covers(one: Input, truth: np.ndarray) -> np.ndarray:
    """Which sources lie on an input."""
    shape = one.facts.psf.shape
    x, y = one.facts.wcs.pixels(truth["ra"], truth["dec"])
    return np.asarray((x > -0.5) & (x < shape[1] - 0.5) & (y > -0.5) & (y < shape[0] - 0.5))


def _bits_around(mask: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mask planes within one pixel of positions."""
    j, i = np.rint(x).astype(int), np.rint(y).astype(int)
    bits = np.zeros(len(j), np.int32)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            bits |= mask[np.clip(i + dy, 0, mask.shape[0] - 1), np.clip(j + dx, 0, mask.shape[1] - 1)]
    return bits


def _windows(plane: np.ndarray, x: np.ndarray, y: np.ndarray, fill: float) -> np.ndarray:
    """(n, SIDE, SIDE) pixels around the nearest pixel of each position, `fill` off the plane."""
    half = SIDE // 2
    padded = np.pad(plane, half, constant_values=fill)
    window = np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE))
    return np.asarray(window[np.clip(np.rint(y).astype(int), 0, plane.shape[0] - 1),
                             np.clip(np.rint(x).astype(int), 0, plane.shape[1] - 1)], float)
