"""Every setting of the pipeline: frozen, unknown keys refused, each default with its origin.

"[AP]" is what Rubin's Alert Production configures today (ap_pipe, ip_diffim, ap_association, snapshots of 2026); "paper"
is the draft of 2026-04-20. Where the two differ `docs/design.md` has the table and both are a value here.
"""

import msgspec


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every section."""


class RetryConfig(Section):
    limit: int = 2          # tries after the first; Butler connections have 2 (prompt_processing)
    delay_s: float = 30.0   # pause before each (prompt_processing: 30 s)


class CalibrateConfig(Section):
    enabled_astrometry: bool = True    # False: the pointing WCS is taken as it is (a control: astrometry gets worse)
    enabled_photometry: bool = True


class TemplateConfig(Section):
    pass


class DifferenceConfig(Section):
    decorrelate: bool = True           # DMTN-021; False is a control: the S/N rms leaves 1


class DetectConfig(Section):
    threshold: float = 5.0             # [AP] thresholdValue 5.0 pixel_stdev, both polarities


class MeasureConfig(Section):
    fit_trails: bool = True
    fit_dipoles: bool = True


class FilterConfig(Section):
    satellites: bool = True
    glints: bool = True
    quality: bool = True
    reliability: bool = True
    new_objects: bool = True
    min_reliability: float = 0.5       # [AP] since 2026-02-24


class ReliabilityConfig(Section):
    model: str = ""                    # path of an ONNX model; empty is the one shipped


class AssociateConfig(Section):
    order: str = "objects"             # objects (paper) | solar_system (deployed since 2026-01)
    matcher: str = "greedy"            # greedy (paper) | likelihood (deployed since 2026-06)
    reload: bool = True                # re-read DIAObjects just before association (deployed)
    radius_arcsec: float = 1.0         # paper 4.9
    max_new_objects: int = 1000        # [AP] maxNewDiaObjects


class ForcedConfig(Section):
    enabled: bool = True


class AlertConfig(Section):
    history_days: float = 360.0        # dax_apdb: 12 months of 30 days


class PipelineConfig(Section):
    retry: RetryConfig = RetryConfig()
    calibrate: CalibrateConfig = CalibrateConfig()
    template: TemplateConfig = TemplateConfig()
    difference: DifferenceConfig = DifferenceConfig()
    detect: DetectConfig = DetectConfig()
    measure: MeasureConfig = MeasureConfig()
    filter: FilterConfig = FilterConfig()
    reliability: ReliabilityConfig = ReliabilityConfig()
    associate: AssociateConfig = AssociateConfig()
    forced: ForcedConfig = ForcedConfig()
    alert: AlertConfig = AlertConfig()
