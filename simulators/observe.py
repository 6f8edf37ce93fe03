"""One detector's exposure of a visit, with the truth about it.

    sky, visit -> conditions, PSF, WCS -> noiseless electrons -> artifacts -> Poisson and read noise -> ADU
                                                            '-> raw (`simulators.raw`), where the scenario asks for it

An exposure depends on (seed, visit, detector) alone.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from msgspec.structs import replace

from schemas.exposure import AB_ZEROPOINT_NJY, BANDS, Exposure, Visit
from schemas.raw import RawExposure
from schemas.wcs import Wcs
from simulators import artifacts, camera, events, focalplane, raw, refraction
from simulators.bright_stars import Stars
from simulators.cadence import conditions_of
from simulators.causes import Ledger
from simulators.clouds import Cloud, cloud
from simulators.conditions import Conditions, m5, sky_electrons, zeropoint_e
from simulators.config import SimulationConfig
from simulators.images import add_galaxies, add_trails
from simulators.psf import TruePsf, field_psf, shape_field, true_psf
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
    cloud: Cloud | None = None      # with structure; the conditions' extinction is then that at the detector's centre

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
    def calibrated(self) -> Exposure:
        """The exposure where it is a calibrated one; TypeError of a raw one."""
        if not isinstance(self.exposure, Exposure):
            raise TypeError(f"visit {self.exposure.visit.visit}, detector {self.exposure.detector}: a calibrated "
                            "exposure is wanted, this one is raw")
        return self.exposure

    @property
    def mask(self) -> np.ndarray:
        """(ny, nx) int32 BAD and SAT: those that the exposure arrives with, or of a raw one ought to be found."""
        if isinstance(self.exposure, Exposure):
            return self.exposure.mask
        assert self.raw_mask is not None
        return self.raw_mask


def expose(sky: Sky, visit: Visit, detector: int, seed: int, *, now: Conditions | None = None,
           template_visits: Sequence[Visit] = (), keep_noiseless: bool = False, around_px: int = 0,
           ledger: Ledger | None = None) -> Exposed:
    """The exposure of one detector in a visit; `around_px` adds that many pixels of its neighbours on every side.

    `now` replaces the conditions that the visit's time gives. `template_visits` (those of the visit's band are used)
    give TRUTH its template fluxes; without them they are 0. `ledger` is told what each artifact adds.
    """
    config = _as_built(widened(sky.config, around_px), detector)
    c = config.camera
    facts = circumstances(sky, visit, detector, seed, now=now, around_px=around_px)
    electrons_per_njy = 10 ** (0.4 * (facts.zeropoint - AB_ZEROPOINT_NJY)) * c.gain
    points = points_of(sky, visit)
    hosts = _draw_galaxies(np.zeros((c.ny, c.nx)), sky, visit, facts, electrons_per_njy)
    background = facts.sky_adu * c.gain * _sky_shape(config, visit, seed)
    if facts.cloud is None:
        scene = hosts + background
        _draw_points(scene, sky, visit, points, facts, electrons_per_njy)
    else:
        light = hosts.copy()
        _draw_points(light, sky, visit, points, facts, electrons_per_njy)
        scene = light * _thinned(facts, visit, light.shape) + background
    bright = _bright(sky, visit, facts, electrons_per_njy)
    make = _raw if c.product == "raw" else _calibrated
    exposure, mask, truth_pixels = make(scene, config, visit, detector, seed, facts, bright, ledger)
    truth = truth_rows(sky, visit, detector, points, _template_flux(sky, visit, points, template_visits), facts.wcs,
                       facts.conditions.fwhm_eff / c.scale_arcsec, mask=mask,
                       surface_njy=hosts / electrons_per_njy / c.scale_arcsec**2)
    noiseless = (scene / c.gain).astype(np.float32) if keep_noiseless else None
    return Exposed(exposure, truth, truth_pixels, facts, noiseless, mask if c.product == "raw" else None)


Made = tuple[Exposure | RawExposure, np.ndarray, np.ndarray]      # with the mask, true for a raw one, and TRUTH_PIXELS


def _calibrated(scene: np.ndarray, config: SimulationConfig, visit: Visit, detector: int, seed: int, facts: Facts,
                stars: Stars | None, ledger: Ledger | None) -> Made:
    """The exposure as signature removal would leave it; light that is lost on its way is made up for."""
    c = config.camera
    lost = None if c.layout == "square" else focalplane.vignetting_map(detector, (c.ny, c.nx))
    image, mask, truth_pixels = artifacts.record(scene if lost is None else scene * lost, config, visit, detector, seed,
                                                 facts.wcs, facts.psf, facts.zeropoint + 2.5 * np.log10(c.gain), stars,
                                                 ledger)
    if lost is not None:
        image = image / lost
    exposure = Exposure(visit=visit, detector=detector, image=(image / c.gain).astype(np.float32), mask=mask,
                        wcs=facts.pointing, gain=facts.gain, read_noise=c.read_noise, saturation=c.full_well / c.gain)
    return exposure, mask, truth_pixels


def _raw(scene: np.ndarray, config: SimulationConfig, visit: Visit, detector: int, seed: int, facts: Facts,
         stars: Stars | None, ledger: Ledger | None) -> Made:
    if ledger is not None:
        raise ValueError("what each cause adds is told of calibrated images, and this one is raw")
    c = config.camera
    drawn = raw.record(scene, facts.sky_adu * c.gain, config, visit, detector, seed, facts.wcs, facts.psf,
                       facts.zeropoint + 2.5 * np.log10(c.gain), stars)
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
    now = conditions_of(config, visit, seed) if now is None else now
    wcs = camera.true_wcs(c, visit, detector, seed)
    pointing = camera.pointing_wcs(c, wcs, visit, detector, seed)
    if config.artifacts.bad_wcs and events.is_bent(config, visit, detector, seed):
        wcs = events.bent(wcs, c, config.artifacts.bad_wcs_arcsec, stream(seed, "bent wcs", visit.visit, detector))
    now, psf = _seen_through(config, visit, detector, seed, now)
    above = cloud(config, visit, seed, now.extinction)
    if above is not None:
        now = dataclasses.replace(now, extinction=_at_centre(above, wcs, visit, (c.ny, c.nx)))
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
                 _offset_arcsec(wcs, pointing, (c.ny, c.nx)), c.gain * passed, above)


@cache
def _passed(detector: int, shape: tuple[int, int]) -> float:
    """Mean share of the light that reaches a detector."""
    y, x = np.linspace(0, shape[0] - 1, 65)[:, None], np.linspace(0, shape[1] - 1, 65)
    return float(focalplane.vignetting(*focalplane.positions_mm(detector, x, y, shape)).mean())


def _seen_through(config: SimulationConfig, visit: Visit, detector: int, seed: int, now: Conditions
                  ) -> tuple[Conditions, TruePsf]:
    """The PSF of a detector, and the conditions with its FWHMeff there."""
    c, shear = config.camera, (0.0, 0.0)
    if config.conditions.refraction:
        stretch, *sheared = refraction.elongation(visit, now.fwhm_eff)
        now, shear = dataclasses.replace(now, fwhm_eff=now.fwhm_eff * stretch), (sheared[0], sheared[1])
    if c.psf_field == "focal_plane":
        field = shape_field(stream(seed, "psf field", visit.visit), size_variation=c.psf_size_variation,
                            ellipticity=c.psf_ellipticity)
        psf, local = field_psf(now.fwhm_eff / c.scale_arcsec, now.fwhm500, (c.ny, c.nx), field,
                               camera.offset_px(c, detector), c.scale_arcsec, shear)
        return dataclasses.replace(now, fwhm_eff=local * c.scale_arcsec), psf
    psf = true_psf(now.fwhm_eff / c.scale_arcsec, now.fwhm500, (c.ny, c.nx), stream(seed, "psf", visit.visit, detector),
                   size_variation=c.psf_size_variation, ellipticity=c.psf_ellipticity)
    psf.g1[0], psf.g2[0] = psf.g1[0] + shear[0], psf.g2[0] + shear[1]
    return now, psf


def _at_centre(above: Cloud, wcs: Wcs, visit: Visit, shape: tuple[int, int]) -> float:
    """Extinction [mag] at the detector's centre."""
    plain = Wcs((0.0, 0.0), (visit.ra, visit.dec), (1.0, 0.0, 0.0, 1.0))
    return float(above.extinction(*plain.pixels(*wcs.sky((shape[1] - 1) / 2, (shape[0] - 1) / 2))))


def _thinned(facts: Facts, visit: Visit, shape: tuple[int, ...]) -> np.ndarray:
    """(ny, nx) transmission of the cloud over that at the detector's centre."""
    assert facts.cloud is not None
    whole = facts.cloud.transmission(facts.wcs, visit, (shape[0], shape[1]))
    return np.asarray(whole * 10 ** (0.4 * facts.conditions.extinction))


def points_of(sky: Sky, visit: Visit) -> np.ndarray:
    """POINT rows of a visit where their light falls: with refraction, lifted by their colour."""
    points = sky.points(visit)
    if not sky.config.conditions.refraction:
        return points
    points = points.copy()
    flux = np.stack([sky.flux_at(points["id"], band, visit.mjd_tai) for band in BANDS], 1)
    lift = refraction.lifts(flux, visit)
    for name in ("", "_start", "_end", "_before"):
        ra, dec = points["ra" + name], points["dec" + name]
        points["ra" + name], points["dec" + name] = refraction.displaced(ra, dec, lift, visit)
    return points


def _places(sky: Sky, ra: np.ndarray, dec: np.ndarray, flux: np.ndarray, visit: Visit
            ) -> tuple[np.ndarray, np.ndarray]:
    """RA, Dec of static sources where their light falls; their fluxes in the six bands say what colour it has."""
    if not sky.config.conditions.refraction:
        return ra, dec
    return refraction.displaced(ra, dec, refraction.lifts(flux, visit), visit)


def _star_places(sky: Sky, stars: np.ndarray, visit: Visit) -> tuple[np.ndarray, np.ndarray]:
    """The same of stars, which move."""
    return _places(sky, *sky.stars_at(visit.mjd_tai, stars), stars["flux"], visit)


def _bright(sky: Sky, visit: Visit, facts: Facts, electrons_per_njy: float) -> Stars | None:
    """Stars that may leave ghosts and spikes, those beside the detector too."""
    if not (sky.config.artifacts.ghosts or sky.config.artifacts.spikes):
        return None
    flux = sky.stars["flux"][:, band_index(visit.band)] * electrons_per_njy
    x, y = facts.wcs.pixels(*_star_places(sky, sky.stars, visit))
    chosen = np.isfinite(x) & (flux > 1e5)
    return Stars(x[chosen], y[chosen], flux[chosen])


def scene_njy(sky: Sky, visit: Visit, detector: int, seed: int, band: str) -> np.ndarray:
    """(ny, nx) expected light [nJy per pixel] of a detector in a band at a visit's time, no sky and no noise."""
    there = dataclasses.replace(visit, band=band)
    facts = circumstances(sky, there, detector, seed)
    c = camera.as_built(sky.config.camera, detector)
    electrons_per_njy = 10 ** (0.4 * (facts.zeropoint - AB_ZEROPOINT_NJY)) * c.gain
    image = _draw_galaxies(np.zeros((c.ny, c.nx)), sky, there, facts, electrons_per_njy)
    _draw_points(image, sky, there, sky.points(there), facts, electrons_per_njy)
    return image / electrons_per_njy


def sources(sky: Sky, visit: Visit, detector: int, seed: int, *, now: Conditions | None = None,
            template_visits: Sequence[Visit] = ()) -> np.ndarray:
    """The TRUTH that `expose` would give, without making pixels: no input mask, no surface brightness of hosts."""
    facts = circumstances(sky, visit, detector, seed, now=now)
    points = points_of(sky, visit)
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
    galaxies = sky.galaxies
    if sky.config.conditions.refraction:
        galaxies = galaxies.copy()
        galaxies["ra"], galaxies["dec"] = _places(sky, galaxies["ra"], galaxies["dec"], galaxies["flux"], visit)
    add_galaxies(image, galaxies, flux, facts.wcs, facts.psf, FAINTEST_SIGMA * facts.noise_adu * c.gain)
    return image


def _draw_points(image: np.ndarray, sky: Sky, visit: Visit, points: np.ndarray, facts: Facts,
                 electrons_per_njy: float, stars: np.ndarray | None = None) -> None:
    """Add stars (the sky's, or STAR rows given) and changing sources, in place."""
    wcs, psf, faintest = facts.wcs, facts.psf, FAINTEST_SIGMA * facts.noise_adu * sky.config.camera.gain
    fixed = points["kind"] != b"asteroid"
    stars = sky.stars if stars is None else stars
    star_ra, star_dec = _star_places(sky, stars, visit)
    ra = np.concatenate([star_ra, points["ra"][fixed]])
    dec = np.concatenate([star_dec, points["dec"][fixed]])
    flux = np.concatenate([stars["flux"][:, band_index(visit.band)], points["flux"][fixed]]) * electrons_per_njy
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



def by_cause(sky: Sky, visit: Visit, detector: int, seed: int, *, now: Conditions | None = None
             ) -> dict[str, np.ndarray]:
    """(ny, nx) float64 electrons that each cause adds to an exposure; together they are its pixels.

    Classes of sources are rendered one at a time, noiseless; artifacts and noises are those of the exposure itself. The
    sum is `expose(...).exposure.image * gain` to float32's rounding, 6e-8 of the larger terms.
    """
    ledger = Ledger(keep=True)
    facts = expose(sky, visit, detector, seed, now=now, ledger=ledger).facts
    c = camera.as_built(sky.config.camera, detector)
    per_njy = 10 ** (0.4 * (facts.zeropoint - AB_ZEROPOINT_NJY)) * c.gain
    blank, points = np.zeros((c.ny, c.nx)), points_of(sky, visit)
    maps = {"sky": blank + facts.sky_adu * c.gain * _sky_shape(sky.config, visit, seed),
            "galaxy": _draw_galaxies(blank.copy(), sky, visit, facts, per_njy)}
    for kind in ("star", *dict.fromkeys(points["kind"].tolist())):
        name = kind if isinstance(kind, str) else kind.decode()
        maps[name] = blank.copy()
        _draw_points(maps[name], sky, visit, points[points["kind"] == name.encode()], facts, per_njy,
                     sky.stars if name == "star" else sky.stars[:0])
    if facts.cloud is not None:
        thin = _thinned(facts, visit, blank.shape)
        maps = {name: image if name == "sky" else image * thin for name, image in maps.items()}
    return maps | ledger.maps
