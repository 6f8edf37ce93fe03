"""The sky, camera and night parts of a scenario: strict frozen structs whose unknown keys are refused.

A figure that somebody published names its source. A rate or shape that nobody publishes is marked *assumed*.
"Oversampled" densities are importance sampling: a field of a few arcminutes would otherwise hold no supernova; reports
reweight them.
"""

import math
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from simulators.focalplane import detector_name, select

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
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
    layout: Literal["square", "lsstcam"] = "square"
    select: tuple[str, ...] = ()                          # of lsstcam: "all", "active", rafts "R22", detectors
    #                                                       "R22_S11"; given, it takes the place of `detectors`
    product: Literal["calibrated", "raw"] = "calibrated"  # "raw" (of lsstcam): amplifiers as read, whose signature
    #                                                       the pipeline removes; earlier visits are calibrated anyway
    raw: RawConfig = RawConfig()

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


class StarConfig(Strict, frozen=True):
    """Stars: N(<r) = density 10^(slope (r - 25))."""

    density: NotNegative = 6.0                            # per arcmin^2 to r = 25 at |b| about 30 deg
    slope: Positive = 0.18                                # d log10 N / dm: assumed
    bright: float = 13.0                                  # [mag]
    faint: float = 25.5
    moved_per_visit_field: NotNegative = 3.0              # per 1000 x 1000 px: stars that moved since the template
    moved_separation_px: tuple[float, float] = (1.5, 6.0) # oversampled: see module docstring
    moved_mag: tuple[float, float] = (18.0, 22.0)


class GalaxyConfig(Strict, frozen=True):
    """Galaxies: N(<r) = density 10^(slope (r - 25)), Sersic n = 1 and 4."""

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
    """Asteroids that cross the field in the night; oversampled."""

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


class SkyConfig(Strict, frozen=True):
    """Everything on the sky."""

    stars: StarConfig = StarConfig()
    galaxies: GalaxyConfig = GalaxyConfig()
    transients: TransientConfig = TransientConfig()
    variables: VariableConfig = VariableConfig()
    asteroids: AsteroidConfig = AsteroidConfig()


class SimulationConfig(Strict, frozen=True):
    """From sky to exposures."""

    field: FieldConfig = FieldConfig()
    camera: CameraConfig = CameraConfig()
    cadence: CadenceConfig = CadenceConfig()
    conditions: ConditionsConfig = ConditionsConfig()
    sky: SkyConfig = SkyConfig()
    artifacts: ArtifactConfig = ArtifactConfig()
