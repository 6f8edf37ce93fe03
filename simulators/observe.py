"""One detector's exposure of a visit, with the truth about it.

    sky, visit -> conditions, PSF, WCS -> noiseless electrons -> artifacts -> Poisson and read noise -> ADU
                                                            '-> raw (`simulators.raw`), where the scenario asks for it

An exposure depends on (seed, visit, detector) alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from msgspec.structs import replace

from schemas.exposure import AB_ZEROPOINT_NJY, Exposure, Visit
from schemas.raw import RawExposure
from schemas.wcs import Wcs
from simulators import artifacts, camera, focalplane, raw
from simulators.conditions import Conditions, conditions, m5, sky_electrons, zeropoint_e
from simulators.config import SimulationConfig
from simulators.images import add_galaxies, add_trails
from simulators.psf import TruePsf, true_psf
from simulators.sky import Sky
from simulators.stars import band_index
from simulators.streams import stream
from simulators.truth import truth_rows

FAINTEST_SIGMA = 0.03      # sources are drawn out to this fraction of the sky noise in a pixel


@dataclass(frozen=True, slots=True)
class Facts:
    """True circumstances of an exposure."""

    conditions: Conditions
    wcs: Wcs                    # true
    pointing: Wcs               # the one the exposure carries
    psf: TruePsf
    zeropoint: float            # AB magnitude of 1 ADU
    sky_adu: float              # sky and dark per pixel [ADU]
    noise_adu: float            # rms of a blank pixel [ADU]
    m5: float                   # formula, from the conditions
    pointing_offset_arcsec: float   # of the pointing WCS at the detector's centre
    gain: float                 # electrons that were collected for 1 ADU

    def psf_at(self, x: float, y: float) -> np.ndarray:
        """(41, 41) PSF of unit sum at a position."""
        return self.psf.at(x, y)

    @property
    def noise_njy(self) -> float:
        """Rms of a blank pixel [nJy]."""
        return float(self.noise_adu * 10 ** (0.4 * (AB_ZEROPOINT_NJY - self.zeropoint)))

    @property
    def psf_sigma_px(self) -> float:
        """Sigma of the Gaussian with the PSF's effective area at the centre."""
        return float(np.sqrt(self.psf.effective_area / (4.0 * np.pi)))


@dataclass(frozen=True, slots=True)
class Exposed:
    """What a detector saw, and what was there."""

    exposure: Exposure | RawExposure    # raw where `camera.product` says so
    truth: np.ndarray           # TRUTH: flux = science - template where the template's visits were given
    truth_pixels: np.ndarray    # TRUTH_PIXELS
    facts: Facts
    noiseless: np.ndarray | None = None     # (ny, nx) float32 [ADU], expected counts without artifacts, when asked for
    raw_mask: np.ndarray | None = None      # of a raw exposure: what is truly saturated, and listed defects

    @property
    def mask(self) -> np.ndarray:
        """(ny, nx) int32 BAD and SAT: those that the exposure arrives with, or of a raw one ought to be found."""
        if isinstance(self.exposure, Exposure):
            return self.exposure.mask
        assert self.raw_mask is not None
        return self.raw_mask


def expose(sky: Sky, visit: Visit, detector: int, seed: int, *, now: Conditions | None = None,
           template_visits: Sequence[Visit] = (), keep_noiseless: bool = False, around_px: int = 0) -> Exposed:
    """The exposure of one detector in a visit; `around_px` adds that many pixels of its neighbours on every side.

    `now` replaces the conditions that the visit's time gives. `template_visits` (those of the visit's band are used)
    give TRUTH its template fluxes; without them they are 0.
    """
    config = _as_built(widened(sky.config, around_px), detector)
    c = config.camera
    facts = circumstances(sky, visit, detector, seed, now=now, around_px=around_px)
    electrons_per_njy = 10 ** (0.4 * (facts.zeropoint - AB_ZEROPOINT_NJY)) * c.gain
    points = sky.points(visit)
    hosts = _draw_galaxies(np.zeros((c.ny, c.nx)), sky, visit, facts, electrons_per_njy)
    scene = hosts + facts.sky_adu * c.gain * _sky_shape(config, visit, seed)
    _draw_points(scene, sky, visit, points, facts, electrons_per_njy)
    make = _raw if c.product == "raw" else _calibrated
    exposure, mask, truth_pixels = make(scene, config, visit, detector, seed, facts)
    truth = truth_rows(sky, visit, detector, points, _template_flux(sky, visit, points, template_visits), facts.wcs,
                       facts.conditions.fwhm_eff / c.scale_arcsec, mask=mask,
                       surface_njy=hosts / electrons_per_njy / c.scale_arcsec**2)
    noiseless = (scene / c.gain).astype(np.float32) if keep_noiseless else None
    return Exposed(exposure, truth, truth_pixels, facts, noiseless, mask if c.product == "raw" else None)


Made = tuple[Exposure | RawExposure, np.ndarray, np.ndarray]      # with the mask, true for a raw one, and TRUTH_PIXELS


def _calibrated(scene: np.ndarray, config: SimulationConfig, visit: Visit, detector: int, seed: int,
                facts: Facts) -> Made:
    """The exposure as signature removal would leave it; light that is lost on its way is made up for."""
    c = config.camera
    lost = None if c.layout == "square" else focalplane.vignetting_map(detector, (c.ny, c.nx))
    image, mask, truth_pixels = artifacts.record(scene if lost is None else scene * lost, config, visit, detector, seed,
                                                 facts.wcs, facts.psf, facts.zeropoint + 2.5 * np.log10(c.gain))
    if lost is not None:
        image = image / lost
    exposure = Exposure(visit=visit, detector=detector, image=(image / c.gain).astype(np.float32), mask=mask,
                        wcs=facts.pointing, gain=facts.gain, read_noise=c.read_noise, saturation=c.full_well / c.gain)
    return exposure, mask, truth_pixels


def _raw(scene: np.ndarray, config: SimulationConfig, visit: Visit, detector: int, seed: int, facts: Facts) -> Made:
    c = config.camera
    drawn = raw.record(scene, facts.sky_adu * c.gain, config, visit, detector, seed, facts.wcs, facts.psf,
                       facts.zeropoint + 2.5 * np.log10(c.gain))
    return raw.exposed(drawn, config, visit, detector, facts.pointing), drawn.mask, drawn.truth_pixels


def _as_built(config: SimulationConfig, detector: int) -> SimulationConfig:
    """The settings with what the detector's own gain, noise, dark current and full well are."""
    c = camera.as_built(config.camera, detector)
    return config if c is config.camera else replace(config, camera=c)


def widened(config: SimulationConfig, around_px: int) -> SimulationConfig:
    """The same focal plane with detectors that reach so many pixels into their neighbours; never raw."""
    if not around_px:
        return config
    c = config.camera
    camera = replace(c, ny=c.ny + 2 * around_px, nx=c.nx + 2 * around_px, spacing_px=c.spacing_px - 2 * around_px,
                     product="calibrated")
    return replace(config, camera=camera)


def circumstances(sky: Sky, visit: Visit, detector: int, seed: int, *, now: Conditions | None = None,
                  around_px: int = 0) -> Facts:
    """Everything true of an exposure but its pixels."""
    config = _as_built(widened(sky.config, around_px), detector)
    c = config.camera
    now = conditions(config, visit, seed) if now is None else now
    wcs = camera.true_wcs(c, visit, detector, seed)
    pointing = camera.pointing_wcs(c, wcs, visit, detector, seed)
    psf = true_psf(now.fwhm_eff / c.scale_arcsec, now.fwhm500, (c.ny, c.nx), stream(seed, "psf", visit.visit, detector),
                   size_variation=c.psf_size_variation, ellipticity=c.psf_ellipticity)
    background = sky_electrons(visit.band, now.sky_mag, visit.exposure_s, c.scale_arcsec)
    noise = background + c.dark * visit.exposure_s + c.read_noise**2
    if c.product == "calibrated":
        background += c.dark * visit.exposure_s
    zeropoint = zeropoint_e(visit.band, now.airmass, visit.exposure_s, now.extinction) - 2.5 * np.log10(c.gain)
    depth = m5(visit.band, now, visit.exposure_s, c)
    passed = 1.0 if c.layout == "square" else _passed(detector, (c.ny, c.nx))
    if passed != 1.0:         # fewer electrons of sky and sources; the image is scaled up
        noise = (noise - c.read_noise**2) / passed + (c.read_noise / passed) ** 2
        depth += 1.25 * float(np.log10(passed))
    return Facts(now, wcs, pointing, psf, float(zeropoint), background / c.gain, float(np.sqrt(noise)) / c.gain, depth,
                 _offset_arcsec(wcs, pointing, (c.ny, c.nx)), c.gain * passed)


@cache
def _passed(detector: int, shape: tuple[int, int]) -> float:
    """Mean share of the light that reaches a detector."""
    y, x = np.linspace(0, shape[0] - 1, 65)[:, None], np.linspace(0, shape[1] - 1, 65)
    return float(focalplane.vignetting(*focalplane.positions_mm(detector, x, y, shape)).mean())


def sources(sky: Sky, visit: Visit, detector: int, seed: int, *, now: Conditions | None = None,
            template_visits: Sequence[Visit] = ()) -> np.ndarray:
    """The TRUTH that `expose` would give, without making pixels: no input mask, no surface brightness of hosts."""
    facts = circumstances(sky, visit, detector, seed, now=now)
    points = sky.points(visit)
    return truth_rows(sky, visit, detector, points, _template_flux(sky, visit, points, template_visits), facts.wcs,
                      facts.conditions.fwhm_eff / sky.config.camera.scale_arcsec)


def _template_flux(sky: Sky, visit: Visit, points: np.ndarray, template_visits: Sequence[Visit]) -> np.ndarray:
    return sky.template_flux(points["id"], [v for v in template_visits if v.band == visit.band])


def _sky_shape(config: SimulationConfig, visit: Visit, seed: int) -> np.ndarray | float:
    """The sky over its mean: a plane that falls across the detector, in a direction drawn for the visit."""
    gradient, c = config.conditions.sky_gradient, config.camera
    if not gradient:
        return 1.0
    angle = stream(seed, "sky gradient", visit.visit).uniform(0, 2 * np.pi)
    x, y = np.linspace(-0.5, 0.5, c.nx), np.linspace(-0.5, 0.5, c.ny)[:, None]
    return np.asarray(1.0 + gradient * (x * np.cos(angle) + y * np.sin(angle)))


def _draw_galaxies(image: np.ndarray, sky: Sky, visit: Visit, facts: Facts, electrons_per_njy: float) -> np.ndarray:
    """(ny, nx) electrons of galaxies, added to a blank image."""
    c = sky.config.camera
    flux = sky.galaxies["flux"][:, band_index(visit.band)] * electrons_per_njy
    add_galaxies(image, sky.galaxies, flux, facts.wcs, facts.psf, FAINTEST_SIGMA * facts.noise_adu * c.gain)
    return image


def _draw_points(image: np.ndarray, sky: Sky, visit: Visit, points: np.ndarray, facts: Facts,
                 electrons_per_njy: float) -> None:
    """Add stars and changing sources, in place."""
    wcs, psf, faintest = facts.wcs, facts.psf, FAINTEST_SIGMA * facts.noise_adu * sky.config.camera.gain
    fixed = points["kind"] != b"asteroid"
    ra = np.concatenate([sky.stars["ra"], points["ra"][fixed]])
    dec = np.concatenate([sky.stars["dec"], points["dec"][fixed]])
    flux = np.concatenate([sky.stars["flux"][:, band_index(visit.band)], points["flux"][fixed]]) * electrons_per_njy
    x, y = wcs.pixels(ra, dec)
    radius = psf.radius(flux, faintest)
    ny, nx = image.shape
    near = np.isfinite(x) & (x > -radius) & (x < nx + radius) & (y > -radius) & (y < ny + radius)
    psf.draw(image, x[near], y[near], flux[near], radius[near])
    moving = points[~fixed]
    x0, y0 = wcs.pixels(moving["ra_start"], moving["dec_start"])
    x1, y1 = wcs.pixels(moving["ra_end"], moving["dec_end"])
    inside = np.isfinite(x0 + x1) & (np.maximum(x0, x1) > -60) & (np.minimum(x0, x1) < nx + 60) \
        & (np.maximum(y0, y1) > -60) & (np.minimum(y0, y1) < ny + 60)
    add_trails(image, x0[inside], y0[inside], x1[inside], y1[inside], moving["flux"][inside] * electrons_per_njy, psf,
               faintest)


def _offset_arcsec(true: Wcs, pointing: Wcs, shape: tuple[int, int]) -> float:
    centre = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    ra, dec = pointing.sky(*centre)
    x, y = true.pixels(ra, dec)
    return float(np.hypot(x - centre[0], y - centre[1]) * true.scale_arcsec)

