"""The sky, camera and night parts of a scenario: strict frozen structs whose unknown keys are refused.

A figure that somebody published names its source. A rate or shape that nobody publishes is marked *assumed*.
"Oversampled" densities are importance sampling: a field of a few arcminutes would otherwise hold no supernova; reports
reweight them.
"""

import math
from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from simulators.focalplane import detector_name, select

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
ClassName = Literal["sn_ia", "sn_ii", "sn_iin", "sn_iib", "sn_ib", "sn_ic", "slsn_i", "tde", "kilonova", "agn",
                    "microlensing", "dwarf_nova", "m_flare", "rr_lyrae", "eclipsing", "long_period"]
CLASS_NAMES: tuple[str, ...] = get_args(ClassName)     # `simulators.populations` says what each is
FluxLaw = Literal["snr_flat", "snr_log", "magnitude"]
Band = Literal["u", "g", "r", "i", "z", "y"]


class Strict(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A section of a scenario: numbers are finite, and pairs of them are (low, high)."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} must be finite, got {value}")
            pair = isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], float)
            if pair and not value[0] <= value[1]:
                raise ValueError(f"{name} must be (low, high), got {value}")


class FieldConfig(Strict, frozen=True):
    """Where the telescope points: near the ecliptic, at opposition in the default night, at |b| = 48 deg."""

    ra: Annotated[float, Meta(ge=0, lt=360)] = 330.0      # [deg]
    dec: Annotated[float, Meta(ge=-90, le=90)] = -12.0
    target_name: str = "simulated field"


class RawConfig(Strict, frozen=True):
    """What a raw image holds that signature removal has to undo: each effect can be switched off."""

    bias: bool = True                                     # structure and drift; the level is always there
    read_noise: bool = True
    dark: bool = True
    flat: bool = True                                     # vignetting, illumination, response of pixels
    edge: bool = True                                     # roll-off of the response at the detector's border
    defects: bool = True                                  # dead columns and hot pixels, at the rates of `artifacts`
    fringe: bool = True                                   # in y alone
    brighter_fatter: bool = True
    saturation: bool = True                               # full wells and bleeding
    cti: bool = True                                      # deferred charge in the serial register
    linearity: bool = True
    crosstalk: bool = True
    calibration_frames: Count = 0                         # that each frame is the mean of; 0: calibrations are ideal


class CameraConfig(Strict, frozen=True):
    """One or more detectors: on a square grid about the boresight, or where LSSTCam has them.

    With `layout = "lsstcam"` detectors lie, and are turned, as in LSSTCam; light is vignetted, the true WCS has its
    distortion, and each detector has its own gain, read noise, dark current and full well, so that those below are not
    used but by the choice of fluxes. A detector of other than its full size (4004 x 4096 of e2v, 4000 x 4072 of ITL,
    as ny x nx) has the same centre and smaller amplifiers.
    """

    ny: Annotated[int, Meta(ge=64, le=4100)] = 1000       # [pixel]; ITL science detectors are 4072 x 4000 (obs_lsst)
    nx: Annotated[int, Meta(ge=64, le=4100)] = 1000
    detectors: Annotated[tuple[int, ...], Meta(min_length=1)] = (94,)   # ids; 94 is R22_S11, the centre of LSSTCam
    rendered: tuple[int, ...] = ()                        # of them, those whose images and templates are drawn: none
    #                                                       named, all
    spacing_px: Count = 60                                # gap between neighbours: 0.25 mm of 10 um pixels and edges
    scale_arcsec: Positive = 0.2
    gain: Positive = 1.5                                  # [e/ADU], e2v 1.51, ITL 1.68 (SITCOMTN-148)
    read_noise: NotNegative = 8.8                         # [e], SMTN-002's conservative value; measured 5.4-6.2
    dark: NotNegative = 0.2                               # [e/s], SMTN-002; measured 0.02
    full_well: Positive = 120_000.0                       # [e]; photon transfer turns off at 103-129 ke (SITCOMTN-148)
    pointing_error_arcsec: NotNegative = 3.0              # largest error of the WCS an exposure arrives with
    pointing_error_deg: NotNegative = 0.05                # largest error of its rotation
    linear_distortion: NotNegative = 5e-5                 # rms of the true WCS's scale and shear terms: assumed
    psf_size_variation: NotNegative = 0.02                # amplitude across a detector: assumed
    psf_ellipticity: NotNegative = 0.03                   # mean and variation across a detector: assumed
    psf_field: Literal["detector", "focal_plane"] = "detector"   # shapes drawn for each detector, or one field of
    #                                                       optics and atmosphere that all detectors of a visit share
    layout: Literal["square", "lsstcam"] = "square"
    select: tuple[str, ...] = ()                          # of lsstcam: "all", "active", rafts "R22", detectors
    #                                                       "R22_S11"; given, it takes the place of `detectors`
    product: Literal["calibrated", "raw"] = "calibrated"  # "raw" (of lsstcam): amplifiers as read, whose signature
    #                                                       the pipeline removes; earlier visits are calibrated anyway
    raw: RawConfig = RawConfig()

    @property
    def imaged(self) -> tuple[int, ...]:
        """Detectors whose images are drawn."""
        return self.rendered or self.detectors

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layout == "square":
            if self.select or self.product == "raw":
                raise ValueError('select and product = "raw" need layout = "lsstcam"')
            return
        if self.select:
            force_setattr(self, "detectors", tuple(dict.fromkeys(d for word in self.select for d in select(word))))
        for detector in self.detectors:
            detector_name(detector)
        if self.product == "raw" and (self.ny % 2 or self.nx % 8):
            raise ValueError(f"sixteen amplifiers need ny a multiple of 2 and nx of 8, got {self.ny} and {self.nx}")


class SchedulerConfig(Strict, frozen=True):
    """The survey that `simulators.scheduler` plays; the defaults are those of the v2.0 baseline where it has them."""

    first_night_mjd: Annotated[int, Meta(ge=58000, le=80000)] = 61218   # whose midnight: 2026-06-27, days before MJD
    #                                                       61220.5, where rubin_scheduler's survey begins
    exposure_s: Positive = 30.0
    snaps: Annotated[int, Meta(ge=1, le=2)] = 2           # exposures in a visit but u's; today's surveys take 1
    exposure_u_s: Positive = 30.0                         # in one exposure; today's surveys 38 s
    targets: Annotated[tuple[NotNegative, ...], Meta(min_length=6, max_length=6)] = (56, 80, 184, 184, 160, 160)
    #                                                       visits per wide-fast-deep field in ugrizy (LSST SRD)
    pairs: Annotated[tuple[Annotated[str, Meta(pattern="^[ugrizy]{2}$")], ...], Meta(min_length=1)] = (
        "ug", "ur", "gr", "ri", "iz", "zy", "yy")         # first and second band of blocks
    twilight_pairs: Annotated[tuple[Annotated[str, Meta(pattern="^[rizy]{2}$")], ...], Meta(min_length=1)] = (
        "ri", "iz", "zy")
    pair_min: Positive = 33.0                             # FBS baseline pair time
    twilight_pair_min: Positive = 15.0                    # its twilight blobs
    bright_filters: Annotated[str, Meta(pattern="^[ugrizy]{1,5}$")] = "grizy"   # loaded where the Moon is brighter,
    dark_filters: Annotated[str, Meta(pattern="^[ugrizy]{1,5}$")] = "ugriy"     # or darker, at sunset than
    moon_limit: Fraction = 0.4                            # this (SimpleBandSched); v2.0's dark nights swap u for z
    sun_alt: Annotated[float, Meta(ge=-18, le=-6)] = -12.0         # [deg] first and last visits
    twilight_alt: Annotated[float, Meta(ge=-18, le=-6)] = -18.0    # [deg] u and g and long pairs begin
    altitude: tuple[float, float] = (20.0, 84.0)          # [deg] v2.0's visits end at 84
    airmass_max: Positive = 2.2                           # assumed
    moon_distance_deg: NotNegative = 30.0                 # FBS moon avoidance
    rotator_deg: NotNegative = 80.0                       # rotTelPos is drawn for a night within this
    footprint_weight: NotNegative = 0.45                 # [mag of depth] that a field far behind is worth
    footprint_visits: Positive = 4.0                      # visits in r that make a field far behind
    band_weight: NotNegative = 0.8                        # [mag] that a band a month behind is worth
    slew_weight: NotNegative = 0.3                        # [mag] per 120 s lost between blocks
    nearness: NotNegative = 0.02                          # [mag/deg] that a field away from its block loses
    deep_gap_nights: Count = 9                            # between sequences of a deep-drilling field; 0: none
    deep_visits: Annotated[tuple[Count, ...], Meta(min_length=6, max_length=6)] = (8, 10, 20, 20, 26, 20)
    near_sun_nights: Count = 0                            # every so many nights twilight is spent near the Sun; 0: none
    clear: tuple[Fraction, Fraction] = (0.62, 0.95)       # share of nights below the cloud limit, July and January
    cloud_memory_d: tuple[Positive, Positive] = (0.2, 10.0)   # passing clouds, and spells; fit to how often quarters
    cloud_passing: Fraction = 0.25                        # of nights differ in the v2.0 baseline; the former's share
    cloud_limit: Fraction = 0.3                           # fraction of the sky
    cloud_mag: NotNegative = 0.05                         # [mag] that an eighth of clouds takes: assumed
    downtime: bool = True


class CadenceConfig(Strict, frozen=True):
    """A night of pairs: each block visits the field `pairs` times in one band and again `pair_gap_min` later."""

    night_mjd: Annotated[int, Meta(ge=58000, le=80000)] = 61639   # MJD of the local midnight's UTC day: 2027-08-22
    blocks: Annotated[tuple[Annotated[str, Meta(pattern="^[ugrizy]{2}$")], ...], Meta(min_length=1)] = (
        "gg", "rr", "ii")                                 # first and second band of each block's pairs
    pairs: Annotated[int, Meta(ge=1)] = 2                 # pairs in a block
    pair_gap_min: Positive = 33.0                         # FBS baseline pair time
    exposure_s: Positive = 30.0
    overhead_s: NotNegative = 4.0                         # shutter and readout: visitTime is 34 s in the v2.0 baseline
    readout_s: NotNegative = 3.07                         # kinem_model; requirement 2 s
    slew_s: Positive = 4.84                               # median gap between visits, v2.0 baseline
    band_change_s: NotNegative = 120.0
    dither_arcsec: NotNegative = 4.0                      # largest offset of a visit from the field: assumed
    rotation_deg: float = 0.0                             # position angle of +y
    rotation_spread_deg: NotNegative = 1.0                # rms from visit to visit: assumed
    quarter_turns: bool = True                            # visits differ by multiples of 90 deg as well, so that a
    #                                                       square detector keeps its field while the optics turn
    start_mjd_tai: float | None = None                    # None: the night is centred on the field's transit
    history_per_band: Count = 6                           # earlier visits for templates
    history_gap_d: Positive = 330.0                       # before the night: last year's opposition
    history_span_d: Positive = 60.0
    history_without: tuple[Band, ...] = ()                # bands that no earlier visit saw: a first year
    history_missing: Fraction = 0.0                       # of the field, beyond a line, that no earlier visit saw
    mode: Literal["pairs", "scheduler"] = "pairs"         # scheduler: the night that `simulators.scheduler` makes
    opsim: str = ""                                       # instead: a database of visits; relative to the scenario file
    cover_deg: Positive = 1.75                            # a visit covers the field within this of its pointing
    visits_most: Count = 0                                # of a surveyed night, its first so many; 0: all
    survey_nights: Annotated[int, Meta(ge=1)] = 40        # nights that the scheduler plays up to the night
    scheduler: SchedulerConfig = SchedulerConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.opsim and self.mode != "pairs":
            raise ValueError(f"opsim names a database of visits, so mode must stay pairs, got {self.mode!r}")

    @property
    def surveyed(self) -> bool:
        """Whether the visits are those of a survey, with its conditions, instead of drawn ones."""
        return bool(self.opsim) or self.mode != "pairs"


class ConditionsConfig(Strict, frozen=True):
    """Seeing, sky and transparency."""

    fwhm500_median: Positive = 0.655                      # [arcsec] v2.0 baseline
    fwhm500_ln_sigma: NotNegative = 0.34                  # v2.0 baseline
    fwhm500_min: Positive = 0.35
    fwhm500_max: Positive = 1.5
    fwhm_eff: Positive | None = None                      # [arcsec] given: every visit has this FWHMeff
    sky_mag: dict[Band, float] = {}                       # [mag/arcsec^2] at zenith; default: dark sky (SMTN-002)
    sky_scatter: NotNegative = 0.1                        # [mag] rms from visit to visit: assumed
    sky_gradient: NotNegative = 0.0                       # of the sky's level, from edge to edge of a detector, in a
    #                                                       direction of its own in each visit; off by default
    airmass: Annotated[float, Meta(ge=1, le=4)] | None = None   # given: every visit has it
    clouds: NotNegative = 0.0                             # [mag] mean extinction; off by default
    zeropoint_scatter: NotNegative = 0.02                 # [mag] rms of the throughput: assumed
    seeing: Literal["three_terms", "baseline"] = "three_terms"   # its memory: see conditions.SEEING_MODELS
    sky: Literal["given", "model"] = "given"              # model: moon, twilight and airglow at the visit's time and
    #                                                       place, on the dark sky of sky_mag; see skybrightness
    cloud_structure: NotNegative = 0.0                    # rms of the extinction over the field as a fraction of it
    refraction: bool = False                              # differential chromatic refraction by each source's colour


class StarConfig(Strict, frozen=True):
    """Stars: N(<r) = density 10^(slope (r - 25)), or those of a model of the Milky Way in the field's direction."""

    model: Literal["power", "galaxy"] = "power"           # galaxy: `simulators.milky_way`, with proper motion and
    #                                                       parallax; density, slope and moved_* then do nothing
    moved_min_px: Positive = 0.1                          # galaxy: stars that moved farther since the templates are
    #                                                       in the truth, as a pair of lobes
    density: NotNegative = 6.0                            # per arcmin^2 to r = 25 at |b| about 30 deg
    slope: Positive = 0.18                                # d log10 N / dm: assumed
    bright: float = 13.0                                  # [mag]
    faint: float = 25.5
    moved_per_visit_field: NotNegative = 3.0              # per 1000 x 1000 px: stars that moved since the template
    moved_separation_px: tuple[float, float] = (1.5, 6.0) # oversampled: see module docstring
    moved_mag: tuple[float, float] = (18.0, 22.0)


class GalaxyConfig(Strict, frozen=True):
    """Galaxies: N(<r) = density 10^(slope (r - 25)), Sersic n = 1 and 4."""

    model: Literal["sersic", "bulge_disk"] = "sersic"     # bulge_disk: each has a disk and, mostly, a bulge in it
    density: NotNegative = 35.0                           # per arcmin^2 to r = 25
    slope: Positive = 0.37                                # 2.7 per arcmin^2 at r < 22
    bright: float = 16.0
    faint: float = 25.5
    bulge_fraction: Fraction = 0.2                        # of n = 4: assumed
    ellipticity_rms: NotNegative = 0.25                   # per component


class TransientConfig(Strict, frozen=True):
    """Point sources that appeared or went since the template; oversampled."""

    per_field: NotNegative = 25.0                         # per 1000 x 1000 px
    flux: FluxLaw = "snr_flat"
    snr: tuple[Positive, Positive] = (3.0, 50.0)               # at the band's nominal depth
    mag: tuple[float, float] = (20.0, 25.0)               # for flux = "magnitude"
    hosted: Fraction = 0.5
    separation_arcsec: NotNegative = 6.0                  # of any two: oversampled ones would blend as real ones do not
    fading: Fraction = 0.25                               # in the template, gone in the night: negative differences


class VariableConfig(Strict, frozen=True):
    """Variable stars and active galaxies; oversampled."""

    stars_per_field: NotNegative = 8.0                    # per 1000 x 1000 px
    mag: tuple[float, float] = (17.5, 23.0)
    amplitude: tuple[Positive, Positive] = (0.1, 1.0)           # [mag] peak to peak, log-uniform
    pulsating: Fraction = 0.4                             # sawtooth of 0.3-0.8 d, else sinusoid of 0.1-100 d
    agn_per_field: NotNegative = 4.0
    agn_tau_d: Positive = 200.0                           # damped random walk (MacLeod et al. 2010)
    agn_sf_infinity: NotNegative = 0.25                   # [mag]


class AsteroidConfig(Strict, frozen=True):
    """Asteroids that cross the field in the night; oversampled, or the population at its natural density.

    `model = "population"` draws orbits, sizes, colours and rotations of whole families to the magnitude `faint`, each
    `boost` times as dense as it is; then `belt_per_field` to `mag` have no meaning, `ephemeris_error_arcsec` is the
    median one sigma of orbits of many oppositions (5 times that of one, 15 times that of the short arcs of the `lost`).
    """

    model: Literal["oversampled", "population"] = "oversampled"
    faint: float = 25.0                                   # [mag] in r, without rotation
    boost: dict[Literal["main_belt", "near_earth", "trojan", "tno", "hilda", "hungaria"], NotNegative] = {}
    ephemerides: Literal["two-body", "assist"] = "two-body"   # of the population; assist needs packages of its own

    belt_per_field: NotNegative = 12.0                    # per 1000 x 1000 px at any time
    near_earth_per_field: NotNegative = 3.0               # at any time: trails
    near_earth_rate_deg_d: tuple[Positive, Positive] = (1.0, 12.0)   # log-uniform
    flux: FluxLaw = "snr_flat"
    snr: tuple[Positive, Positive] = (5.0, 60.0)
    mag: tuple[float, float] = (19.0, 24.5)
    known: Fraction = 0.7
    ephemeris_error_arcsec: Positive = 0.15               # median, lognormal with sigma 0.6: assumed
    lost: Fraction = 0.03                                 # of the known: error 0.5-3": assumed


class ArtifactConfig(Strict, frozen=True):
    """What is not sky."""

    cosmic_rays: NotNegative = 0.2                        # per s and CCD of 4072 x 4000 (imSim, LSSTCam darks)
    streaks: Fraction = 0.1                               # of visits with a satellite trail in the detector
    streak_fwhm_arcsec: Positive = 3.0                    # defocused at 550 km
    streak_mag: tuple[float, float] = (20.0, 24.0)        # [mag/arcsec^2]: assumed
    streak_catalogued: Fraction = 0.0                     # of the trails known to the allow-list service
    bad_columns: NotNegative = 16.0                       # per CCD of 4072 x 4000, masked: assumed
    bad_pixels: NotNegative = 80.0                        # 16 amplifiers of 3-7 dark defects (SITCOMTN-148)
    unknown_pixels: NotNegative = 2.0                     # hot pixels missing from the defect list: assumed
    glints: Fraction = 0.0                                # of visits with a line of 5-12 flashes: assumed
    bleeding: bool = True
    satellites: NotNegative = 0.0                         # in orbit: trails where the sun reaches them
    satellite_height_km: Positive = 550.0
    satellite_mag: tuple[float, float] = (6.5, 8.5)       # in the visit's band at 550 km: assumed, after V about 7
    aircraft: Fraction = 0.0                              # of visits: assumed
    aircraft_mag: tuple[float, float] = (18.5, 21.5)      # [mag/arcsec^2]: 100 candela at 10 km, out of focus, are 19.5
    ghosts: NotNegative = 0.0                             # of a star's light in its two pupil ghosts: assumed, 1e-3
    spikes: NotNegative = 0.0                             # of a star's light in its four diffraction spikes: 5e-3
    crosstalk: NotNegative = 0.0                          # rms of the coefficients left after correction: 1e-4
    bleed_residual: NotNegative = 0.0                     # of the sky's level along bleeding columns, unmasked: 0.03
    bad_flats: Fraction = 0.0                             # of detector-visits flattened with a wrong flat
    bad_flat_rms: NotNegative = 0.02                      # error of an amplifier's level: assumed
    bad_wcs: Fraction = 0.0                               # of detector-visits whose true WCS is bent
    bad_wcs_arcsec: NotNegative = 0.6                     # by so much at the corners: assumed


class ClassConfig(Strict, frozen=True):
    """A class of transients or variables at its published density, or at another with known weights."""

    boost: Positive = 1.0                                 # injected over true density
    per_field: Positive | None = None                     # instead: mean number per 1000 x 1000 px, of all that erupt
    #                                                       from long before the first template to the night's end
    spread: Literal["natural", "flat"] = "natural"        # flat: uniform in redshift, so that more are near and bright


class DustConfig(Strict, frozen=True):
    """Extinction of `classes`, of stars of the `galaxy` model and of `bulge_disk` galaxies."""

    a_v: NotNegative | None = None                        # [mag] of the Milky Way; None: of a smooth disk of dust
    host_a_v: NotNegative | None = None                   # [mag] mean in the hosts; None: that of the class


class SkyConfig(Strict, frozen=True):
    """Everything on the sky."""

    classes: dict[ClassName, ClassConfig] = {}            # beside the made-up populations below
    classes_faintest: float = 26.5                        # [mag] sources that no visit sees brighter are left out
    dust: DustConfig = DustConfig()

    stars: StarConfig = StarConfig()
    galaxies: GalaxyConfig = GalaxyConfig()
    transients: TransientConfig = TransientConfig()
    variables: VariableConfig = VariableConfig()
    asteroids: AsteroidConfig = AsteroidConfig()


class PastConfig(Strict, frozen=True):
    """The nights before, at which the field was visited: what `prefill` draws. The wide survey by default.

    Of 825 visits of a wide field in ten years (LSST SRD) 82 fall into a year: 41 pairs.
    """

    nights: Annotated[int, Meta(ge=1)] = 41               # spread over the seasons in the span, one night each
    span_d: Positive = 365.0                              # before the scenario's night
    season_h: Annotated[float, Meta(gt=0, le=12)] = 5.0   # the field is visited when it transits so near to midnight
    blocks: Annotated[tuple[Annotated[str, Meta(pattern="^[ugrizy]{2}$")], ...], Meta(min_length=1)] = (
        "gr", "ri", "iz")                                 # first and second band of a night's pairs, in turn
    pairs: Annotated[int, Meta(ge=1)] = 1                 # in a night; deep-drilling fields have ten and more


class SimulationConfig(Strict, frozen=True):
    """From sky to exposures."""

    field: FieldConfig = FieldConfig()
    camera: CameraConfig = CameraConfig()
    cadence: CadenceConfig = CadenceConfig()
    conditions: ConditionsConfig = ConditionsConfig()
    sky: SkyConfig = SkyConfig()
    artifacts: ArtifactConfig = ArtifactConfig()
    past: PastConfig = PastConfig()
