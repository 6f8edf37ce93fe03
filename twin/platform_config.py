"""The machines of a night as numbers: front end, pods, services, publication; and what troubles them.

"[PROD]" is what phalanx deploys for LSSTCam's Prompt Processing (prompt-keda-lsstcam, next-visit-fan-out and sasquatch,
snapshots of 2026-08); "[code]" a default of prompt_processing or ap_association; "assumed" nobody publishes.
"""

from typing import Annotated, Final, Literal

import msgspec

from twin.scaling import Strategy

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every section."""


class FrontConfig(Section, frozen=True):
    """From the summit's nextVisit and raw images to a message per detector and an image in the bucket."""

    fan_out_s: NotNegative = 0.1          # nextVisit to the messages in the stream: assumed
    nimages: Literal[0, 1, 2] = 1         # nextVisit.nimages [PROD] 1; 2: snaps of half the exposure; 0: not known, so
    #                                       that workers wait until they give up and take what there is
    duration_s: Positive = 35.0           # nextVisit.duration, of the script: 30 s and overheads, assumed
    expiry_s: Positive = 3600.0           # [PROD] older messages are discarded
    acknowledge: Literal["first", "last"] = "first"   # [code] first: a crashed worker's visit is not delivered again
    redeliver_s: NotNegative = 60.0       # last: a message not acknowledged is claimed after its worker died: assumed
    retries: Count = 0                    # of failures that changed nothing; [code] 0: they are logged alone
    image_timeout_s: Positive = 120.0     # [PROD] beyond twice the duration
    notification_s: NotNegative = 0.5     # image in the bucket to its notification at the worker: assumed
    max_rotation_deg: Positive = 1.0      # [code] images turned farther from nextVisit's angle are dropped
    transfer_spread: NotNegative = 0.15   # of ln(transfer_s): assumed
    image_mb: Positive = 18.0             # of a raw detector, compressed: assumed (15 TB a night over 1e3 x 189 is 80)
    link_gbps: Positive = 100.0           # summit to USDF: two paths of 100 Gb/s, of which one is used


class PodsConfig(Section, frozen=True):
    """Workers and what starts them; their greatest number is `platform.workers`."""

    smallest: Count = 3                   # [PROD] minReplicaCount
    poll_s: Positive = 2.0                # [PROD] KEDA pollingInterval
    scaling: Strategy = "eager"           # [PROD] KEDA scalingStrategy: a pod per waiting message at every poll
    startup_s: NotNegative = 20.0         # scheduling, container, imports, pipeline: assumed
    pending_share: Fraction = 0.5         # of it, until the container runs and KEDA counts the pod once: assumed
    startup_spread: NotNegative = 0.25    # of ln: assumed
    visits: Count = 10                    # [PROD] a worker restarts after as many; 0: never
    idle_s: Positive = 900.0              # [PROD] an idle one exits
    cache: Count = 3                      # [code] local Butler: detectors whose calibrations are kept
    cold_s: NotNegative = 3.0             # more work in a pod's first visit (caches, first queries): assumed
    memory_mb: Positive = 8192.0          # [PROD] limit
    memory_base_mb: NotNegative = 3000.0  # images and stack: assumed; ours take 1.3 GB (README)
    memory_source_mb: NotNegative = 0.5   # per detection: assumed


class ServiceConfig(Section, frozen=True):
    """A shared service: calls wait in one queue for the next free server."""

    servers: Count                        # calls served at once; 0: without limit
    timeout_s: Positive = 3600.0          # a caller gives up
    tries: AtLeastOne = 3                 # [code] Butler and APDB: 2 retries
    pause_s: NotNegative = 30.0           # [code] between them, 30 s
    price: NotNegative = 1.0              # of a server, in workers, for the cheapest platform: assumed


class ServicesConfig(Section, frozen=True):
    """What all workers share."""

    registry: ServiceConfig = ServiceConfig(servers=100)                   # Butler queries of preload: assumed
    storage: ServiceConfig = ServiceConfig(servers=200)                    # templates and calibrations (Weka): assumed
    apdb: ServiceConfig = ServiceConfig(servers=500, timeout_s=120.0)      # [PROD] read concurrency 500, timeout 120 s
    ephemeris: ServiceConfig = ServiceConfig(servers=64, timeout_s=10.0, tries=1)   # [code] MPSky: 10 s, no retry
    satellites: ServiceConfig = ServiceConfig(servers=64, timeout_s=30.0, tries=2, pause_s=1.0)   # sattle: once more
    export: ServiceConfig = ServiceConfig(servers=0, tries=1, pause_s=0.0)  # S3 and Butler writer (DMTN-310)


class PublicationConfig(Section, frozen=True):
    """From packets to the brokers."""

    order: Literal["outbox", "write_first"] = "outbox"   # write_first: deployed; what Kafka refuses is lost
    delivery_timeout_s: Positive = 1.2    # [code] delivery.timeout.ms of the producer: write_first gives up after
    streams: AtLeastOne = 7               # [PROD] full streams: brokers
    sweep_s: Positive = 10.0              # outbox: how often it is looked through for what a worker left: assumed
    egress_gbps: Positive = 10.0          # to all of them: assumed; 10,000 alerts in 5 s are 1.3 Gb/s each (DMTN-102)


class PlatformConfig(Section, frozen=True):
    """The machines of the night, in simulated time."""

    workers: AtLeastOne = 16               # detector-visits at once; [PROD] maxReplicaCount 1700
    database_connections: AtLeastOne = 8   # assumed; this and the next: of nights of pixels
    broker_connections: AtLeastOne = 2     # assumed
    lead_s: NotNegative = 20.0             # nextVisit comes at least 20 s before the exposure (ts_ScriptQueue)
    readout_s: NotNegative = 3.07          # rubin_scheduler, sim model of the camera
    transfer_s: NotNegative = 4.0          # camera to worker, assumed
    timeout_s: Positive = 900.0            # WORKER_TIMEOUT in production (prompt_processing)
    costs: str = "reference.toml"          # cost table: beside the scenario, or shipped
    cost_scale: Positive = 1.0             # this platform's cores against the table's machine, as slowness
    killed: tuple[AtLeastOne, ...] = ()    # of nights of pixels: visits, by number, whose workers die at the image
    front: FrontConfig = FrontConfig()     # this and what follows: of nights at counts fidelity
    pods: PodsConfig = PodsConfig()
    services: ServicesConfig = ServicesConfig()
    publication: PublicationConfig = PublicationConfig()


class CountsConfig(Section, frozen=True):
    """A night of numbers: which visits, and how many sources each detector has."""

    visits: AtLeastOne = 1000              # LPM-17: about 1000 in a night
    cadence: Literal["scheduler", "regular", "poisson", "simulation"] = "scheduler"   # our scheduler's, gaps of
    #                                        `interval_s`, or the night of `simulation.cadence`: one field's
    interval_s: Positive = 38.8            # 189 detectors / 4.87 per s (Prompt Processing's design load)
    exposure_s: Positive = 30.0
    fields: AtLeastOne = 1000              # regular, poisson: fields in turn
    detectors: AtLeastOne = 172            # [PROD] active of 189
    pixels: AtLeastOne = 16_288_000        # of a detector: 4072 x 4000
    model: str = "catalogue.toml"          # counts model: beside the scenario, or shipped
    alerts_per_visit: NotNegative = 10_000.0   # nAlertVisitAvg (LSE-61) of all `detectors`
    template_missing: Fraction = 0.0       # of fields that have none


class FidelitiesConfig(Section, frozen=True):
    """Detectors of a night on the platform that are more than numbers, whose halves of the pipeline are really run."""

    pixels: tuple[Count, ...] = ()         # rendered and measured
    catalogue: tuple[Count, ...] | Literal["all"] = ()   # sources drawn from truth; all: those that are not rendered

    def __post_init__(self) -> None:
        named = [*self.pixels, *(self.catalogue if self.catalogue != "all" else ())]
        if len(set(named)) != len(named):
            twice = next(one for one in named if named.count(one) > 1)
            raise ValueError(f"fidelities: a detector has one fidelity, {twice} is named twice")


FaultKind = Literal[
    "next_visit_lost", "next_visit_late", "next_visit_duplicated", "next_visit_out_of_order", "next_visit_extra",
    "image_late", "image_corrupt", "image_missing", "image_extra", "snap_missing", "notification_lost", "mismatch",
    "worker_killed", "worker_hung", "out_of_memory",
    "service_slow", "service_down", "commits_then_fails", "kafka_down", "kafka_throttled", "template_missing",
    "references_missing", "network_cut", "burst", "clock_skew"]


class FaultConfig(Section, frozen=True):
    """One trouble: what, when, and how much of what happens then it touches.

    It touches a share `rate` of the visits whose shutter opens in its span, evenly: the i-th of them, from 0, where
    floor((i + 1) rate) > floor(i rate). Of a touched visit all detectors suffer, or the first `detectors`.
    """

    kind: FaultKind
    start_s: NotNegative = 0.0             # after the first shutter opens
    duration_s: Positive = 3600.0
    rate: Fraction = 1.0
    detectors: Count = 0                   # 0: all
    delay_s: NotNegative = 0.0             # late: by; worker_killed: after it took the message; clock_skew: behind by
    factor: Positive = 1.0                 # service_slow, kafka_throttled: times as slow; burst: times the alerts;
    #                                        mismatch: degrees that the camera is turned
    service: Literal["", "registry", "storage", "apdb", "ephemeris", "satellites", "export"] = ""   # slow, down


class ExpectConfig(Section, frozen=True):
    """What a scenario must end in, exactly; a count not named is not judged."""

    why: str = ""                          # one sentence that derives the counts from the design
    alerts: Count | None = None            # the night's, with no fault and unlimited workers
    sent: Count | None = None
    late: Count | None = None              # of `alerts`: sent more than 60 s after the end of readout, or never
    sent_twice: Count | None = None
    failed: dict[str, Count] = {}          # alerts never sent, by reason; a reason not named must have none
    in_vain: Count | None = None           # messages whose worker found nothing to do, or the work done already
    redelivered: Count | None = None       # messages given to another worker
    out_of_order: Count | None = None      # messages that came after one of a later visit
    unanswered: Count | None = None        # saves that landed without an answer
    without_ephemerides: Count | None = None   # detector-visits that went on without
    single_frames: Count | None = None     # that fell back to single frames
    isr_only: Count | None = None          # and to the removal of the signature alone
    surplus: Count | None = None           # images beyond those announced, which no worker waits for


REASONS: Final = (   # why an alert was never sent: what its detector-visit ended in
    "no nextVisit", "expired", "no image", "corrupt image", "mismatch", "registry", "no preload", "no template",
    "no references", "no calibrations", "satellites", "apdb", "committed, not sent", "kafka", "killed", "timeout",
    "out of memory", "too many new objects", "pipeline failed", "not taken")
