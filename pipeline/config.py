"""Every setting of the pipeline: frozen, unknown keys refused, each default with its origin.

"[AP]" is what Rubin's Alert Production configures today (ap_pipe, ip_diffim, ap_association, snapshots of 2026);
"paper" is the draft of 2026-04-20. Where the two differ `docs/design.md` has the table and both are a value here.
"""

from typing import Literal

from pipeline.pixel_config import (
    CalibrateConfig,
    DetectConfig,
    DifferenceConfig,
    MeasureConfig,
    PixelConfig,
    ReliabilityConfig,
    Section,
    TemplateConfig,
)
from schemas.alert_versions import version


class RetryConfig(Section, frozen=True):
    limit: int = 2          # tries after the first; Butler connections have 2 (prompt_processing)
    delay_s: float = 30.0   # pause before each (prompt_processing: 30 s)


class FilterConfig(Section, frozen=True):
    satellites: bool = True            # ask the satellite allow-list; False publishes without asking
    satellite_retry: RetryConfig = RetryConfig(limit=1, delay_s=1.0)   # sattle is asked once more, then no alerts
    glints: bool = True
    glint_radius_px: float = 500.0     # [AP] findGlintTrails: how far apart the points of a line may be from its hub
    glint_residual_px: float = 15.0    # [AP] RANSAC residual threshold, and the limit of the root of the summed squares
    glint_points: int = 5              # [AP] least number of sources on a line
    glint_chance: float = 0.1          # ours: lines so good expected by chance among as many sources; inf: deployed
    quality: bool = True
    max_trail_rate: float = 36000 / 3600 / 24   # [arcsec/s] [AP] 10 deg/day
    min_science_snr: float = -2.0      # [AP]
    reliability: bool = True
    min_reliability: float = 0.5       # [AP] since 2026-02-24
    new_objects: bool = True
    new_object_flags: tuple[str, ...] = (   # [AP] none of them on a source that makes a new object
        "centroid_flag", "pixelFlags_crCenter", "pixelFlags_nodataCenter", "pixelFlags_interpolatedCenter",
        "pixelFlags_saturatedCenter", "pixelFlags_suspectCenter", "pixelFlags_streakCenter", "glint_trail")
    new_object_min_reliability: float = 0.1     # [AP]


class AssociateConfig(Section, frozen=True):
    order: str = "objects"             # objects (paper) | solar_system (deployed since 2026-01)
    matcher: str = "greedy"            # greedy (paper) | likelihood (deployed since 2026-06)
    reload: bool = True                # re-read DIAObjects just before association (deployed)
    reload_margin_arcsec: float = 2.0  # [AP]
    radius_arcsec: float = 1.0         # paper 4.9
    solar_system_radius_arcsec: float = 1.0     # paper 4.9
    solar_system_margin_px: float = 100.0       # [AP] predictions so far off the detector still count as on it
    sigma_floor_arcsec: float = 0.05   # [AP] matcher likelihood: no positional error is smaller
    sigma_missing_arcsec: float = 0.2  # [AP] matcher likelihood: in place of an error that is missing
    max_new_objects: int = 1000        # [AP] maxNewDiaObjects


class ObjectsConfig(Section, frozen=True):
    position: str = "weighted"         # by inverse variance (paper, DPDD) | mean: of the sources (deployed)
    sigma_floor_arcsec: float = 0.02   # weighted: no position counts as better; the astrometric calibration's error
    sigma_missing_arcsec: float = 0.2


class ForcedConfig(Section, frozen=True):
    enabled: bool = True
    min_sources: int = 2               # [AP] historyThreshold, of all and of good sources
    min_reliability: float = 0.5       # [AP] _selectGoodDiaObjects: what makes a source good
    max_trail_arcsec: float = 1.4      # [AP]


class AlertConfig(Section, frozen=True):
    produce: bool = True               # False: no packets (deployed catch-up)
    history_days: float = 360.0        # dax_apdb: 12 months of 30 days
    cutouts: str = "deployed"          # deployed (no mask, no CTYPE: public alerts) | paper (both)
    schema: str = "11.1"               # [AP] lsst-alerts-v11; any version from 7.4 on that lsst-alert-packet ships
    fields: str = "deployed"           # deployed (null what public alerts leave null) | all (whatever was measured)
    packets: str = "bytes"             # bytes | counted: their number and modelled lengths, for sinks that only count

    def __post_init__(self) -> None:
        if self.packets not in ("bytes", "counted"):
            raise ValueError(f"alert.packets must be bytes or counted, got {self.packets!r}")
        if self.cutouts not in ("deployed", "paper"):
            raise ValueError(f"alert.cutouts must be deployed or paper, got {self.cutouts!r}")
        if self.fields not in ("deployed", "all"):
            raise ValueError(f"alert.fields must be deployed or all, got {self.fields!r}")
        version(self.schema)


class PreloadConfig(Section, frozen=True):
    margin_arcsec: float = 20.0        # [AP] angleMargin of loadDiaCatalogs


class DeduplicateConfig(Section, frozen=True):
    algorithm: str = "ours"            # ours | deployed (DeduplicateAllSkyDiaObjectsTask)
    radius_arcsec: float = 1.5         # [AP] distance_threshold: no two objects farther apart are merged
    allowance_arcsec: float = 0.25     # ours: apart by no more than this and `sigmas` of their errors
    sigmas: float = 4.0
    window_s: float = 960.0            # ours: from a source's processing to the store, and from the store's reading to
    #                                    the midpoint: WORKER_TIMEOUT (900 s) and nextVisit's lead with its exposure
    neighbours: int = 30               # deployed: of its connectivity
    subset: int = 50_000               # deployed: objects clustered at once
    max_objects: int = 1_000_000       # deployed: aborts above


class CatchUpConfig(Section, frozen=True):
    alerts: bool = False               # of visits that the night did not finish (deployed: none)
    forced: bool = False               # deployed: doRunForcedMeasurement=False


class PrecoveryConfig(Section, frozen=True):
    keep: bool = False                 # copy differences out before a visit's pixels go, for new objects' pasts
    days: float = 30.0                 # they are kept, and new objects are measured on them (DPDD: 30 days)
    noise_steps: float = 8.0           # kept values are rounded to the noise over this: adds 1/12/8^2 of its variance
    min_sources: int = 1               # of the objects to measure; the night's own forced photometry asks for 2


class BatchConfig(Section, frozen=True):
    """The morning after."""

    deduplicate: DeduplicateConfig = DeduplicateConfig()
    catch_up: CatchUpConfig = CatchUpConfig()
    precovery: PrecoveryConfig = PrecoveryConfig()


class PublishConfig(Section, frozen=True):
    order: Literal["outbox", "write_first"] = "outbox"   # outbox (ours): packets lie on disk before the save, and are
    #                                    sent until they have arrived | write_first (deployed): the save, then packets,
    #                                    which are sent once; a crash in between or a failure to send loses them


class PipelineConfig(PixelConfig, frozen=True):
    """The settings of both halves."""

    retry: RetryConfig = RetryConfig()
    preload: PreloadConfig = PreloadConfig()
    filter: FilterConfig = FilterConfig()
    associate: AssociateConfig = AssociateConfig()
    objects: ObjectsConfig = ObjectsConfig()
    forced: ForcedConfig = ForcedConfig()
    alert: AlertConfig = AlertConfig()
    batch: BatchConfig = BatchConfig()
    publish: PublishConfig = PublishConfig()


__all__ = [
    "AlertConfig",
    "AssociateConfig",
    "BatchConfig",
    "CalibrateConfig",
    "CatchUpConfig",
    "DeduplicateConfig",
    "DetectConfig",
    "DifferenceConfig",
    "FilterConfig",
    "ForcedConfig",
    "MeasureConfig",
    "ObjectsConfig",
    "PipelineConfig",
    "PixelConfig",
    "PrecoveryConfig",
    "PreloadConfig",
    "PublishConfig",
    "ReliabilityConfig",
    "RetryConfig",
    "Section",
    "TemplateConfig",
]
