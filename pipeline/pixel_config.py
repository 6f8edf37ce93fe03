"""Every setting of the pixel half: frozen, unknown keys refused, each default with its origin.

Apart from those of the catalogue half (`pipeline.config`, which has all of them), because what the pixel half computed
stays good when the others change. "[AP]" and "paper" are explained there.
"""

from typing import Annotated, Literal

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
Order = Annotated[int, msgspec.Meta(ge=0, le=4)]     # of a polynomial of position


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every section."""


class SignatureConfig(Section, frozen=True):
    """Signature removal of raw exposures; in brackets the switches of Rubin's IsrTaskLSST. Each switch is a control."""

    overscan: Literal["mean", "median"] = "mean"   # of each row and column, clipped; [AP] MEDIAN_PER_ROW of digits
    #                                    to which a random fraction was added (doDitherADU), which costs noise
    parallel_overscan: bool = True     # [AP] doParallelOverscan
    crosstalk: bool = True             # [AP] doCrosstalk; there with a quadratic term
    linearity: bool = True             # [AP] doLinearize
    deferred_charge: bool = True       # [AP] doDeferredCharge
    bias: bool = True                  # [AP] doBias
    dark: bool = True                  # [AP] doDark
    brighter_fatter: bool = False      # [AP] doBrighterFatter False, for latency
    brighter_fatter_iterations: AtLeastOne = 4
    defects: bool = True               # [AP] doDefect and doInterpolate: filled along rows
    grow_saturated_px: Count = 1       # [AP] growSaturationFootprintSize
    flat: bool = True                  # [AP] doFlat
    fringe: bool = True                # ours, where calibrations have fringes


class CalibrateConfig(Section, frozen=True):
    enabled_astrometry: bool = True    # False: the pointing WCS is taken as it is (a control: astrometry gets worse)
    enabled_photometry: bool = True
    mesh_px: AtLeastOne = 128          # side of a cell of the sky's mesh (LSST subtractBackground binSize 128)
    star_threshold: Positive = 5.0     # footprint S/N of stars (calibrateImage: 5, peaks 10)
    grow_saturated_px: Count = 1       # beyond saturated pixels charge has spilled
    suspect_fraction: Share = 0.9      # of saturation: the end of the linear range
    edge_px: Count = 1                 # border that is not trusted; more is lost to detection


class TemplateConfig(Section, frozen=True):
    quantile: Share = 0.33             # [AP] QuickTemplate: the best-seeing third of the visits,
    min_visits: AtLeastOne = 6         # [AP] and at least 6
    incremental: bool = False          # the incremental mode ("Prompt"):
    max_visits: AtLeastOne = 12        # [AP] its best-seeing 12,
    max_fwhm_arcsec: Positive = 1.4    # [AP] no worse than this,
    min_zeropoint_scale: NotNegative = 0.75  # [AP] effTimeZeroPointScale: no thicker clouds
    reject_artifacts: bool = True      # False is a control: cosmic rays and satellites stay in the template
    artifact_sigma: Positive = 5.0     # of the smoothed difference from the median of the visits
    variability: NotNegative = 1.0     # ours: a star's difference from the median of the visits, over its brightness
    high_variance: Positive = 4.0      # [AP] HIGH_VARIANCE: binned variance above this many medians
    variance_bin_px: AtLeastOne = 32   # [AP] its bins
    strip_rows: AtLeastOne = 256       # rows of the template made at once: bounds memory


class DifferenceConfig(Section, frozen=True):
    """Rubin's own settings are kernel_snr (10, 500), kernel_extended False, spatial_order 1, prior_snr 0, convolve
    "template", max_kernel_sources 1000, settle and systematics False; the rest is the same.
    """

    decorrelate: bool = True           # DMTN-021; False is a control: the S/N rms leaves 1
    convolve: Literal["auto", "template", "science"] = "auto"   # the side that the matching kernel is applied to
    basis_sigmas: tuple[Positive, ...] = ()  # [pixel]; empty: scaled by the PSFs, as [AP] scaleByFwhm
    basis_degrees: tuple[Count, ...] = (4, 2, 2)   # [AP] alardDegGauss
    kernel_half: tuple[AtLeastOne, AtLeastOne] = (10, 17)  # [AP] kernelSizeMin 21, kernelSizeMax 35
    spatial_order: Order = 2           # [AP] 1; lower where stars are few
    scale_order: Order = 0             # of the kernel sum over the image; [AP] constant
    background_order: Annotated[int, msgspec.Meta(ge=-1, le=6)] = 2   # [AP] 2, fitted there and not subtracted;
    #                                    here taken off the difference; -1: none
    kernel_snr: tuple[NotNegative, Positive] = (10.0, 3000.0)  # [AP] 10-500: the bright ones decide the kernel's core
    kernel_extended: bool = True       # galaxies serve as well: only what they are convolved with matters; [AP] False
    cell: AtLeastOne = 128             # [AP] sizeCellX, sizeCellY [pixel]
    per_cell: AtLeastOne = 5           # [AP] nStarPerCell
    min_kernel_sources: AtLeastOne = 3  # [AP] minKernelSources
    max_kernel_sources: AtLeastOne = 400  # the brightest; [AP] 1000: no better, and slower on a whole CCD
    iterations: Count = 3              # [AP] maxSpatialIterations: rounds of clipping
    weight_floor: NotNegative = 0.003  # relative error per pixel of any model of a star: keeps one star from deciding
    prior_snr: NotNegative = 100.0     # each of 25 PSF pairs weighs as a star of this S/N; 0 leaves them out
    systematics: bool = True           # a variance term for registration and PSF errors, measured on the kernel's stars
    settle: bool = True                # each bright source's small shift is fitted and taken off
    whiten_order: Order = 2            # of the whitening kernel over the image; [AP] one kernel
    whiten_half: Annotated[int, msgspec.Meta(ge=1, le=31)] = 12  # half width of a whitening kernel [pixel]
    min_coverage: Share = 0.1          # [AP] requiredTemplateFraction
    max_variance_factor: Positive = 10.0  # [AP] scaleVariance limit
    max_ratio_mean: Positive = 0.2     # [AP] badSubtractionRatioThreshold
    max_ratio_std: Positive = 0.4      # [AP] badSubtractionVariationThreshold

    def __post_init__(self) -> None:
        if not self.basis_degrees:
            raise ValueError("basis_degrees must not be empty")
        if self.basis_sigmas and len(self.basis_sigmas) != len(self.basis_degrees):
            raise ValueError(f"basis_sigmas must be one for each of {len(self.basis_degrees)} basis_degrees, got "
                             f"{len(self.basis_sigmas)}")
        for name in ("kernel_half", "kernel_snr"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must be (low, high), got {(low, high)}")


class DetectConfig(Section, frozen=True):
    threshold: Positive = 5.0          # [AP] thresholdValue 5.0 pixel_stdev, both polarities
    low_threshold: Positive = 3.0      # ours: a footprint follows its source down to here (a faint trail is one source)
    valley: NotNegative = 3.0          # ours: two maxima are two sources if the lower stands so many sigmas ...
    valley_fraction: NotNegative = 0.15  # ... and this fraction of itself above the saddle between them
    contrast: NotNegative = 0.03       # ours: ... and is not so much fainter than its neighbour (residuals of stars)
    grow_sigmas: NotNegative = 2.4     # [AP] nSigmaToGrow, isotropic
    dipole_sigmas: NotNegative = 5.0   # [AP] maxSeparation of a dipole's lobes, in PSF sigmas
    lobe_sigmas: NotNegative = 3.5     # ours: so near, peaks of opposite sign are one source, whatever their heights
    residual: NotNegative = 0.15       # ours: farther, if one has so much less light, ...
    lobe_ratio: NotNegative = 0.5      # ... or at least this share of the other's
    background_bin: AtLeastOne = 40    # [AP] final background bins [pixel]; ours averages 3x3 of them
    cosmic_rays: bool = True
    cosmic_ray_sigmas: Positive = 6.0  # [AP] minSigma: a core stands so high above its noise
    cosmic_ray_contrast: Positive = 0.65  # ours: a core's neighbours are lower than this share of a star's
    cosmic_ray_excess: NotNegative = 2.5  # ours: ... by so many sigmas
    streaks: bool = True
    streak_min_length: Positive = 200.0  # ours [pixel]: three times the longest asteroid trail
    sky_sources: Count = 10            # ours ([AP] 100): places without a source, for metrics; a filter takes them
    sky_radius: Count = 8              # [AP] [pixel]


class MeasureConfig(Section, frozen=True):
    fit_trails: bool = True
    fit_dipoles: bool = True


class ReliabilityConfig(Section, frozen=True):
    model: str = ""                    # path of an ONNX model; empty is the one shipped


class PixelConfig(Section, frozen=True):
    """What the pixel half is told."""

    signature: SignatureConfig = SignatureConfig()
    calibrate: CalibrateConfig = CalibrateConfig()
    template: TemplateConfig = TemplateConfig()
    difference: DifferenceConfig = DifferenceConfig()
    detect: DetectConfig = DetectConfig()
    measure: MeasureConfig = MeasureConfig()
    reliability: ReliabilityConfig = ReliabilityConfig()

    def pixel_part(self) -> "PixelConfig":
        """These settings without those of the catalogue half."""
        return PixelConfig(**{name: getattr(self, name) for name in PixelConfig.__struct_fields__})
